//! Operations to tell about, for tests.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::settings::{Mail, MailSettings};
use crate::operation::record::{Intent, Journal, OpId, Operation, SCHEMA, State, StepState, Trigger, Work};

/// 21 November 2026, 13:00 UTC.
pub(super) fn noon() -> Timestamp {
    "2026-11-21T13:00:00Z".parse().unwrap()
}

pub(super) fn after(seconds: i64) -> Timestamp {
    noon() + SignedDuration::from_secs(seconds)
}

pub(super) fn mail() -> Mail {
    let settings = MailSettings {
        host: Some("127.0.0.1".to_owned()),
        from: Some("Skep <skep@example.org>".to_owned()),
        reply_to: Some("ops@example.org".to_owned()),
        to: vec!["ops@example.org".to_owned()],
        cluster: Some("prod".to_owned()),
        time_zone: Some("Europe/Paris".to_owned()),
        status_url: Some("https://skep.example.org/".to_owned()),
        ..MailSettings::default()
    };
    settings.validate().unwrap().unwrap()
}

pub(super) fn restore() -> Work {
    Work::Restore {
        to: None,
        backup: None,
        before: Some(after(-3600)),
        in_place: Some(false),
        quiesce: None,
        create_roles: false,
    }
}

pub(super) fn alert() -> Trigger {
    Trigger::Alert {
        name: "PostgresCorrupted".to_owned(),
        fingerprint: "0f3c".to_owned(),
        starts_at: after(-90),
    }
}

pub(super) fn person() -> Trigger {
    Trigger::Person { name: "dba".to_owned() }
}

pub(super) fn schedule() -> Trigger {
    Trigger::Schedule { key: "skep.backup.schedule".to_owned(), due: noon() }
}

/// An operation on `shop_db`, asked for at noon.
pub(super) fn operation(work: Work, trigger: Trigger, state: State) -> Operation {
    let intent = Intent {
        schema: SCHEMA,
        service: "shop_db".to_owned(),
        service_id: "x1".to_owned(),
        work,
        trigger,
        created: noon(),
        approval: state == State::AwaitingApproval,
        accept_problems: false,
    };
    let mut journal = Journal::new(state);
    if state.is_terminal() || state == State::Stuck {
        journal.ended = Some(after(60));
    }
    Operation { id: OpId::new(noon(), "shop_db"), config: "c1".to_owned(), version: 7, intent, journal }
}

/// Adds a step that began and changed so many seconds after noon.
pub(super) fn step(
    operation: &mut Operation,
    name: &str,
    state: StepState,
    began: i64,
    changed: i64,
    note: &str,
) {
    let record = operation.journal.step_mut(name, after(began));
    record.state = state;
    record.changed = after(changed);
    note.clone_into(&mut record.note);
    record.out = json!({ "password": "hunter2-in-out" });
}

/// A restore in the given state, with the steps that it would have.
pub(super) fn story(state: State) -> Operation {
    let mut op = operation(restore(), alert(), state);
    if matches!(state, State::Pending | State::AwaitingApproval) {
        return op;
    }
    let mut done = |name, began, changed| step(&mut op, name, StepState::Done, began, changed, "");
    done("claim", 0, 0);
    done("preflight", 0, 2);
    done("safety", 2, 9);
    match state {
        State::Running => {
            step(&mut op, "beside", StepState::Started, 9, 33, "restore: 281 of 412 MB");
            op.journal.step_mut("beside", noon()).percent = Some(66);
        }
        State::Succeeded => {
            done("beside", 9, 34);
            done("stop", 34, 37);
            done("cut", 37, 37);
            done("start", 37, 41);
            done("verify", 41, 42);
            op.journal.ended = Some(after(42));
            op.journal.remarks = vec![
                "1,204 rows written after the backup are kept in the database shop_old_20261121 until Tue 24 Nov."
                    .to_owned(),
                "To go back by hand, see the commands in: skep ops show.".to_owned(),
                "The cache shop_cache was not emptied; it may hold rows from after the backup.".to_owned(),
            ];
        }
        State::RolledBack | State::Stuck => {
            done("beside", 9, 34);
            step(&mut op, "stop", StepState::Undone, 34, 47, "");
            let (state, note) = if state == State::Stuck {
                (StepState::UndoFailed, "the old database cannot be renamed back: node db-1 is down")
            } else {
                (StepState::Undone, "relation \"users\" has 0 rows, wanted at least 1")
            };
            step(&mut op, "cut", state, 37, 45, note);
        }
        State::Failed => {
            step(&mut op, "beside", StepState::Failed, 9, 34, "relation \"users\" has 0 rows");
        }
        State::Pending | State::AwaitingApproval | State::Cancelled => {
            op.journal.cancel = Some("dba".to_owned());
        }
    }
    op
}
