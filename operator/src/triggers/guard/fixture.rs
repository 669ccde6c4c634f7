//! Builders for tests of the guards.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use skep_runner::task::Expect;

use super::*;
use crate::operation::record::{Intent, Journal, OpId, Operation, SCHEMA, State, StepRecord, Trigger, Work};
use crate::policy::{Check, CheckProbe, Data, Engine, Limit, Policy, Restore, RestoreMode, Strategy};
use crate::triggers::alertmanager::{Alert, SERVICE_LABEL, Status};

pub(crate) const SERVICE: &str = "shop_db";
pub(crate) const ALERT: &str = "DbCorrupt";

/// So many seconds after the tests' beginning of time.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

pub(crate) fn alert(status: Status, fingerprint: &str, starts_at: Timestamp) -> Alert {
    Alert {
        status,
        name: ALERT.to_owned(),
        labels: BTreeMap::from([
            ("alertname".to_owned(), ALERT.to_owned()),
            (SERVICE_LABEL.to_owned(), SERVICE.to_owned()),
        ]),
        starts_at,
        fingerprint: fingerprint.to_owned(),
    }
}

pub(crate) fn fires(starts_at: i64) -> Alert {
    alert(Status::Firing, "f1", at(starts_at))
}

pub(crate) fn ends(starts_at: i64) -> Alert {
    alert(Status::Resolved, "f1", at(starts_at))
}

pub(crate) fn restore_policy() -> Restore {
    Restore {
        on_alert: vec![ALERT.to_owned(), "DbGone".to_owned()],
        mode: RestoreMode::Auto,
        cooldown: Duration::from_hours(1),
        limit: Limit { count: 2, window: Duration::from_hours(24) },
        strategy: Strategy::Beside,
        clients: None,
        ignore_clients: Vec::new(),
        lookback: Duration::from_mins(30),
        flush: Vec::new(),
        canary: false,
        quiesce: true,
        keep_old: Duration::from_hours(24),
    }
}

pub(crate) fn target() -> Target {
    Target {
        name: SERVICE.to_owned(),
        id: "s1".to_owned(),
        policy: Policy {
            enabled: true,
            data: Some(Data {
                engine: Engine::Postgres,
                database: None,
                volumes: Vec::new(),
                commands: None,
            }),
            restore: Some(restore_policy()),
            checks: vec![Check {
                name: "users".to_owned(),
                probe: CheckProbe::Sql { sql: "SELECT 1".to_owned(), expect: Expect::Any },
            }],
            ..Policy::default()
        },
        blocking: Vec::new(),
    }
}

/// An opted-in, quiet service in a swarm of ten; no settle time, so that decisions fall at once.
pub(crate) fn situation() -> Situation {
    Situation {
        target: Some(target()),
        history: Ok(History::new(SERVICE, "s1")),
        operations: Vec::new(),
        neighbours: Vec::new(),
        sick_elsewhere: 0,
        managed: 10,
        listening_since: at(-1_000_000),
        settings: Settings { settle: Duration::ZERO, ..Settings::default() },
    }
}

impl Situation {
    pub(crate) fn restore_mut(&mut self) -> &mut Restore {
        self.target.as_mut().unwrap().policy.restore.as_mut().unwrap()
    }

    /// Judges, and takes the new history over.
    pub(crate) fn hears(&mut self, alert: &Alert, now: i64) -> Decision {
        let judged = judge(alert, self, at(now));
        if let Some(history) = judged.history {
            self.history = Ok(history);
        }
        judged.decision
    }

    /// Looks again until nothing is left to do.
    pub(crate) fn looks(&mut self, now: i64) -> Vec<Decision> {
        let mut decisions = Vec::new();
        while let Some(judged) = due(self, at(now)) {
            assert!(decisions.len() < 20, "it does not come to rest: {decisions:?}");
            if let Some((op, intent)) = judged.decision.stores() {
                self.operations.push(operation(op.clone(), intent.clone(), State::Pending));
            }
            decisions.push(judged.decision);
            if let Some(history) = judged.history {
                self.history = Ok(history);
            }
        }
        decisions
    }
}

pub(crate) fn operation(id: OpId, intent: Intent, state: State) -> Operation {
    Operation { id, config: "c1".to_owned(), version: 1, intent, journal: Journal::new(state) }
}

/// An operation of the service by a person, running since `began`, ended at `ended`.
pub(crate) fn by_hand(work: Work, state: State, began: i64, ended: Option<i64>) -> Operation {
    let intent = Intent {
        schema: SCHEMA,
        service: SERVICE.to_owned(),
        service_id: "s1".to_owned(),
        work,
        trigger: Trigger::Person { name: "somebody".to_owned() },
        created: at(began),
        approval: false,
        accept_problems: false,
    };
    let mut op = operation(OpId::new(at(began), "by hand"), intent, state);
    op.journal.steps.push(("claim".to_owned(), StepRecord::begun(at(began))));
    op.journal.ended = ended.map(at);
    op
}

pub(crate) fn restore_work() -> Work {
    Work::Restore { to: None, backup: None, before: None, in_place: None, quiesce: None, create_roles: false }
}
