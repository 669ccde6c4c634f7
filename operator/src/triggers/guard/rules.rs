//! The rules: what stands in the way of a restore, and whether a person must be asked.

use std::time::Duration;

use jiff::Timestamp;

use super::decision::{Ask, Decision};
use super::history::{History, Incident, MOST_RESTORES, Phase, after, before};
use super::situation::{Situation, Target};
use crate::operation::record::{Intent, OpId, Operation, SCHEMA, State, StepState, Trigger, Work};
use crate::policy::{CheckProbe, Restore, RestoreMode, Strategy};

/// What stands in the way for now.
pub(super) fn obstacle(
    history: &History,
    incident: &Incident,
    target: &Target,
    restore: &Restore,
    s: &Situation,
    now: Timestamp,
) -> Option<Decision> {
    if let Some(until) = settles(incident, s).filter(|until| now < *until) {
        return Some(Decision::Settling { until });
    }
    if let Some(known) = s.operations.iter().find(|o| o.id == incident.first.op_id()) {
        return Some(Decision::Duplicate { op: Some(known.id.clone()) });
    }
    if now > after(incident.heard, s.settings.evidence) {
        let why = "it was not heard of for so long that it may have ended: waiting for the next message";
        return Some(Decision::Ignored { why: why.to_owned() });
    }
    if let Some(decision) = own_operation(incident, s, now).or_else(|| busy(incident, s, now)) {
        return Some(decision);
    }
    if let Some(why) = refusal(target) {
        return Some(Decision::Refused { why });
    }
    let observed = restore.mode == RestoreMode::Observe;
    if let Some(until) = cools_down(history, restore, s, observed).filter(|until| now < *until) {
        return Some(Decision::Cooldown { until, answered: None });
    }
    let limit = usize::try_from(restore.limit.count).unwrap_or(usize::MAX).min(MOST_RESTORES);
    let reached = history.restores_within(restore.limit.window, observed, now) >= limit;
    (reached || (history.circuit.is_some() && !observed)).then(|| Decision::LimitReached {
        opened: history.circuit.is_none() && !observed,
        limit: format!("{} restores in {}", restore.limit.count, people(restore.limit.window)),
    })
}

fn settles(incident: &Incident, s: &Situation) -> Option<Timestamp> {
    let again = (s.listening_since > incident.heard).then(|| after(s.listening_since, s.settings.resettle));
    match incident.phase {
        Phase::Settling { until } => Some(again.map_or(until, |again| until.max(again))),
        Phase::Waiting { .. } | Phase::Starting { .. } | Phase::Acted { .. } | Phase::Observed => again,
    }
}

/// Operations that change what users and monitoring see of the service; a backup does not.
fn disturbing(s: &Situation) -> impl Iterator<Item = &Operation> {
    let all = s.operations.iter().chain(&s.neighbours);
    let disturbs = |o: &&Operation| match o.intent.work {
        Work::Restore { .. }
        | Work::Maintenance { .. }
        | Work::Rollback { .. }
        | Work::Sleep { .. }
        | Work::Wake => true,
        Work::Restart { .. } | Work::Update { .. } => !lets_go(o),
        Work::Backup
        | Work::Drill { .. }
        | Work::Expire
        | Work::Report
        | Work::Verify { .. }
        | Work::Import { .. }
        | Work::Point { .. } => false,
    };
    all.filter(disturbs)
}

/// Whether it lets go as soon as a restore is asked for.
fn lets_go(op: &Operation) -> bool {
    let is_in = |step| op.journal.step(step).is_some_and(|r| r.state == StepState::Started);
    match op.intent.work {
        Work::Drill { .. } => true,
        // Nothing is changed yet while it asks; what was changed is up while it is only watched.
        Work::Restart { .. } => is_in("preflight"),
        Work::Update { .. } => is_in("preflight") || is_in("watch"),
        _ => false,
    }
}

fn own_operation(incident: &Incident, s: &Situation, now: Timestamp) -> Option<Decision> {
    let (op, ended) = born_in(incident, s)?;
    let until = ended.map(|at| after(at, s.settings.after_operation));
    until.is_none_or(|until| now < until).then(|| Decision::OwnOperation { op: op.clone(), until })
}

/// The operation during which (or just after which) the incident began, and when that ended.
fn born_in<'a>(incident: &Incident, s: &'a Situation) -> Option<(&'a OpId, Option<Timestamp>)> {
    disturbing(s).filter(|o| has_changed_something(o)).find_map(|o| {
        let began = o.journal.steps.first().map(|(_, r)| r.began)?;
        let ended = o.journal.ended;
        let inside = incident.since() >= began
            && ended.is_none_or(|ended| incident.since() <= after(ended, s.settings.echo));
        inside.then_some((&o.id, ended))
    })
}

fn busy(incident: &Incident, s: &Situation, now: Timestamp) -> Option<Decision> {
    let live = |o: &&Operation| !o.journal.state.is_terminal() && !lets_go(o);
    if let Some(op) = s.operations.iter().find(live).or_else(|| disturbing(s).find(live)) {
        return Some(Decision::Busy { op: op.id.clone(), until: None });
    }
    disturbing(s).filter(|o| has_changed_something(o)).find_map(|o| {
        let ended = o.journal.ended?;
        let until = after(ended, s.settings.after_operation);
        (incident.since() < ended && now < until)
            .then(|| Decision::Busy { op: o.id.clone(), until: Some(until) })
    })
}

pub(super) fn has_changed_something(op: &Operation) -> bool {
    matches!(op.journal.state, State::Succeeded | State::RolledBack | State::Stuck | State::Running)
}

fn refusal(target: &Target) -> Option<String> {
    if target.policy.paused {
        return Some(format!("service `{}` is paused (`skep.paused=true`)", target.name));
    }
    if target.policy.data.is_none() {
        return Some(format!("service `{}` has no usable label `skep.data`", target.name));
    }
    (!target.blocking.is_empty()).then(|| {
        format!("labels of service `{}` must be mended first: {}", target.name, target.blocking.join("; "))
    })
}

/// When the cooldown of the service's last restore ends, whoever asked for it.
fn cools_down(history: &History, restore: &Restore, s: &Situation, observed: bool) -> Option<Timestamp> {
    let restores = || s.operations.iter().filter(|o| matches!(o.intent.work, Work::Restore { .. }));
    let harmless = |id: &OpId| restores().any(|o| o.id == *id && !has_changed_something(o));
    let ended = restores().filter(|o| has_changed_something(o)).filter_map(|o| o.journal.ended);
    let remembered = history.restores.iter().filter(|r| r.observed == observed && !r.dropped);
    let remembered = remembered.filter(|r| !harmless(&r.op)).map(|r| r.ended.unwrap_or(r.at));
    ended.chain(remembered).max().map(|at| after(at, restore.cooldown))
}

/// Nothing stands in the way: the operation, at once or after a person's approval.
pub(super) fn act(
    incident: &Incident,
    target: &Target,
    restore: &Restore,
    s: &Situation,
    now: Timestamp,
) -> Decision {
    let op = incident.first.op_id();
    let why = ask(incident, target, restore, s, now);
    let intent = Box::new(Intent {
        schema: SCHEMA,
        service: target.name.clone(),
        service_id: target.id.clone(),
        work: Work::Restore {
            to: None,
            backup: None,
            before: Some(before(incident.since(), restore.lookback)),
            // Which steps there are depends on it, so it is chosen before the first.
            in_place: Some(restore.strategy == Strategy::InPlace),
            quiesce: None,
            create_roles: false,
        },
        trigger: Trigger::Alert {
            name: incident.alert.clone(),
            fingerprint: incident.first.fingerprint.clone(),
            starts_at: incident.first.starts_at,
        },
        created: now,
        approval: why.is_some(),
        accept_problems: false,
    });
    Decision::store(op, intent, why)
}

fn ask(
    incident: &Incident,
    target: &Target,
    restore: &Restore,
    s: &Situation,
    now: Timestamp,
) -> Option<Ask> {
    let sick = s.sick_elsewhere + 1;
    let share = s.managed >= 4 && sick * 100 > s.managed * s.settings.storm_percent;
    let checked = |probe: &CheckProbe| match probe {
        CheckProbe::Sql { .. } => true,
        // A command asks the service, and not what is restored beside it.
        CheckProbe::Http { .. }
        | CheckProbe::Tcp { .. }
        | CheckProbe::Command { .. }
        | CheckProbe::Log { .. } => false,
    };
    if sick > s.settings.storm_services || share {
        Some(Ask::Storm { sick, managed: s.managed })
    } else if born_in(incident, s).is_some() {
        Some(Ask::OwnOperation)
    } else if now > after(incident.since(), s.settings.stale) {
        Some(Ask::Stale)
    } else if restore.mode == RestoreMode::Auto && !target.policy.checks.iter().any(|c| checked(&c.probe)) {
        Some(Ask::NoDataCheck)
    } else {
        (restore.mode != RestoreMode::Auto).then_some(Ask::Mode)
    }
}

fn people(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        _ if seconds.is_multiple_of(86_400) && seconds > 86_400 => format!("{} d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{} h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}
