//! What is shown of one operation.
//!
//! Invariant: nothing of a step's output is in it (it can hold specs), and every text of the record is scrubbed.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::view::{LONGEST, LONGEST_NAME, between};
use crate::notify::words;
use crate::operation::record::{
    Above, Journal, Manner, OpId, Operation, State, StepRecord, StepState, Trigger, Work,
};
use crate::operation::rollback;
use crate::runtime::scrub;

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationView {
    /// Id.
    pub id: OpId,
    /// `backup`, `restore`, …
    pub kind: &'static str,
    /// Full name of the service; of an update of several all of them.
    pub service: String,
    /// State.
    pub state: State,
    /// What it does, for people: which backup, until when.
    pub what: String,
    /// Who or what asked for it, for people.
    pub asked_by: String,
    /// When it was asked for.
    pub created: Timestamp,
    /// When its first step began.
    pub began: Option<Timestamp>,
    /// When it ended or got stuck.
    pub ended: Option<Timestamp>,
    /// When it should have ended, where there is a deadline.
    pub deadline: Option<Timestamp>,
    /// Steps: those begun, then those to come.
    pub steps: Vec<StepView>,
    /// What people should know.
    pub remarks: Vec<String>,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// Who asked to cancel it.
    pub cancelled_by: Option<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepView {
    /// Name, as in the journal.
    pub name: String,
    /// What it does, for people.
    pub title: String,
    /// Where it stands.
    pub state: Progress,
    /// When it began.
    pub began: Option<Timestamp>,
    /// When its state last changed.
    pub changed: Option<Timestamp>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// What it is doing, what it did or why it failed.
    pub note: String,
    /// 0 to 100, where known.
    pub percent: Option<u8>,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// To come.
    Waiting,
    /// Will not run: the operation ended or turned back before it.
    Skipped,
    /// Begun.
    Started,
    /// Finished.
    Done,
    /// Failed.
    Failed,
    /// Being undone.
    Undoing,
    /// Undone.
    Undone,
    /// Cannot be undone without a person.
    UndoFailed,
}

// === impl OperationView ===

impl OperationView {
    /// From the record of an operation. `steps` are all steps of its kind, in order, as far as known; `deadline` is
    /// when it should have ended.
    pub fn of(op: &Operation, steps: &[&str], deadline: Option<Timestamp>) -> OperationView {
        let journal = &op.journal;
        OperationView {
            id: op.id.clone(),
            kind: op.intent.work.kind(),
            service: scrub::line(&op.intent.about(), LONGEST_NAME),
            state: journal.state,
            what: what(&op.intent.work),
            asked_by: asked_by(&op.intent.trigger),
            created: op.intent.created,
            began: journal.steps.first().map(|(_, r)| r.began),
            ended: journal.ended,
            deadline,
            steps: steps_of(&op.intent.work, journal, steps),
            remarks: journal.remarks.iter().map(|r| scrub::line(r, LONGEST)).collect(),
            approved_by: journal.approved.as_ref().map(|w| scrub::line(w, LONGEST_NAME)),
            cancelled_by: journal.cancel.as_ref().map(|w| scrub::line(w, LONGEST_NAME)),
        }
    }

    /// How long it ran so far, or in all.
    pub fn ran(&self, now: Timestamp) -> Option<Duration> {
        Some(between(self.began?, self.ended.unwrap_or(now)))
    }

    /// How much of it is done, 0 to 100; counts steps, and what a running step says of itself.
    pub fn percent(&self) -> u8 {
        if self.state == State::Succeeded {
            return 100;
        }
        let part = |s: &StepView| match s.state {
            Progress::Done | Progress::Undone => 100,
            Progress::Started | Progress::Undoing => usize::from(s.percent.unwrap_or(0)),
            Progress::Waiting | Progress::Skipped | Progress::Failed | Progress::UndoFailed => 0,
        };
        let sum: usize = self.steps.iter().map(part).sum();
        u8::try_from(sum / self.steps.len().max(1)).unwrap_or(100).min(99)
    }

    /// Whether a person can still call it off.
    pub fn can_cancel(&self) -> bool {
        let open = matches!(self.state, State::Pending | State::AwaitingApproval | State::Running);
        open && self.cancelled_by.is_none()
    }
}

fn steps_of(work: &Work, journal: &Journal, all: &[&str]) -> Vec<StepView> {
    let begun = journal.steps.iter().map(|(name, record)| StepView::begun(work, name, record));
    let back = journal.steps.iter().any(|(_, r)| !matches!(r.state, StepState::Started | StepState::Done));
    let over = journal.state.is_terminal() || back;
    let state = if over { Progress::Skipped } else { Progress::Waiting };
    let to_come = all.iter().filter(|name| journal.step(name).is_none());
    begun.chain(to_come.map(|name| StepView::to_come(work, name, state))).collect()
}

fn what(work: &Work) -> String {
    let time = |at: &Timestamp| at.strftime("%-d %b %Y %H:%M:%S UTC").to_string();
    let text = match work {
        Work::Backup => "A new backup, read back in full.".to_owned(),
        Work::Restore { to: Some(at), .. } => format!(
            "The data becomes what it was at {}; changes made after that are not in it.",
            time(at)
        ),
        Work::Restore { backup: Some(id), .. } => {
            format!("The data becomes that of backup `{id}`; changes made after it are not in it.")
        }
        Work::Restore { before: Some(at), .. } => format!(
            "The data becomes that of the newest verified backup from before {}; changes made after it are not in it.",
            time(at)
        ),
        Work::Restore { .. } => {
            "The data becomes that of the newest verified backup; changes made after it are not in it."
                .to_owned()
        }
        Work::Drill { backup: Some(id) } => {
            format!("Backup `{id}` is restored on the side, to prove that it can be; the live data is only read.")
        }
        Work::Drill { backup: None } => {
            "The newest verified backup is restored on the side, to prove that it can be; the live data is only read."
                .to_owned()
        }
        Work::Maintenance { until: Some(at) } => {
            format!("Users see the maintenance page until {}.", time(at))
        }
        Work::Maintenance { until: None } => {
            "Users see the maintenance page until told otherwise.".to_owned()
        }
        Work::Expire => "Data that earlier restores kept beside is dropped: its time is over.".to_owned(),
        Work::Report => "Reports of operations that have ended are written into the store.".to_owned(),
        Work::Verify { backup: Some(id) } => format!("Backup `{id}` is read back in full."),
        Work::Verify { backup: None } => "Every backup is read back in full.".to_owned(),
        Work::Import { store, dry_run: true, .. } => {
            format!("What store `{store}` holds is listed; nothing is changed.")
        }
        Work::Import { store, dry_run: false, .. } => {
            format!("What store `{store}` holds is read in full and taken into the catalogue.")
        }
        Work::Rollback { point, only } if rollback::with_data(only) => format!(
            "The stack goes back to restore point `{point}`, data included; changes made after it are not in what comes back."
        ),
        Work::Rollback { point, .. } => {
            format!("Services of the stack go back to restore point `{point}`; their data stays as it is.")
        }
        Work::Sleep { above: Above::Along } => {
            "The service, and what needs it, is scaled to zero; what it goes back to is written down.".to_owned()
        }
        Work::Sleep { above: Above::Alone | Above::Refuse } => {
            "The service is scaled to zero; what it goes back to is written down.".to_owned()
        }
        Work::Wake => "The service comes back as it was before it fell asleep, after what it needs.".to_owned(),
        Work::Restart { manner: Manner::Rolling, .. } => {
            "The tasks of the service are replaced one after the other as it runs.".to_owned()
        }
        Work::Restart { whole: true, .. } => {
            "The services of the stack stop and start again in the order in which they need each other.".to_owned()
        }
        Work::Restart { whole: false, .. } => {
            "The service restarts; what needs it stops before, and starts again once it is up.".to_owned()
        }
        Work::Update { also, .. } if !also.is_empty() => {
            "The services get their new images as one and are watched for a while; what all of them had before is put back where one does not do.".to_owned()
        }
        Work::Update { image, .. } => format!(
            "The service gets image `{image}` and is watched for a while; what it had before is put back where that does not do."
        ),
        Work::Point { without_data: false } => {
            "Specs, configs and data of the stack are stored as one restore point; nothing is changed.".to_owned()
        }
        Work::Point { without_data: true } => {
            "Specs and configs of the stack are stored as one restore point; nothing is changed.".to_owned()
        }
    };
    scrub::line(&text, LONGEST)
}

fn asked_by(trigger: &Trigger) -> String {
    let text = match trigger {
        Trigger::Person { name } => name.clone(),
        Trigger::Alert { name, .. } => format!("alert {name}"),
        Trigger::Schedule { key, .. } => format!("schedule {key}"),
        Trigger::Found { what } => format!("because {what}"),
        Trigger::Operation { id } => format!("operation {id}"),
    };
    scrub::line(&text, LONGEST_NAME)
}

// === impl StepView ===

impl StepView {
    fn begun(work: &Work, name: &str, record: &StepRecord) -> StepView {
        let state = match record.state {
            StepState::Started => Progress::Started,
            StepState::Done => Progress::Done,
            StepState::Failed => Progress::Failed,
            StepState::Undoing => Progress::Undoing,
            StepState::Undone => Progress::Undone,
            StepState::UndoFailed => Progress::UndoFailed,
        };
        StepView {
            name: scrub::line(name, LONGEST_NAME),
            title: words::step(work, name),
            state,
            began: Some(record.began),
            changed: Some(record.changed),
            attempt: record.attempt,
            note: scrub::line(&record.note, LONGEST),
            percent: record.percent.map(|p| p.min(100)),
        }
    }

    fn to_come(work: &Work, name: &str, state: Progress) -> StepView {
        StepView {
            name: scrub::line(name, LONGEST_NAME),
            title: words::step(work, name),
            state,
            began: None,
            changed: None,
            attempt: 1,
            note: String::new(),
            percent: None,
        }
    }

    /// How long it ran so far, or in all.
    pub fn ran(&self, now: Timestamp) -> Option<Duration> {
        let end = match self.state {
            Progress::Started | Progress::Undoing => now,
            _ => self.changed?,
        };
        Some(between(self.began?, end))
    }
}
