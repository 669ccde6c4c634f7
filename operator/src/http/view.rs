//! One moment of everything that is shown: the status page, its JSON and the domain metrics all come from it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::notify::scrub;
use crate::operation::record::{Journal, OpId, Operation, State, StepRecord, StepState, Trigger, Work};
use crate::policy::RestoreMode;
use crate::triggers::guard::History;
use crate::triggers::guard::history::Phase;

/// Longest text of a note, a remark or a problem.
const LONGEST: usize = 600;
/// Longest name.
const LONGEST_NAME: usize = 120;

/// Everything that is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    /// When the Swarm was read.
    pub taken: Timestamp,
    /// Version of Skep.
    pub version: String,
    /// Name of the cluster, as configured; may be empty.
    pub cluster: String,
    /// Whether this replica leads. Only the leader exports the metrics of services and operations.
    pub leads: bool,
    /// Host name or task of the leader, where known.
    pub leader: Option<String>,
    /// Why the engine cannot be reached, where it cannot.
    pub trouble: Option<String>,
    /// The services with `skep.enable=true`, by name.
    pub services: Vec<ServiceView>,
    /// Operations, live ones first, then the newest.
    pub operations: Vec<OperationView>,
}

/// One managed service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceView {
    /// Full name.
    pub name: String,
    /// Its stack.
    pub stack: Option<String>,
    /// What it is doing.
    pub condition: Condition,
    /// Since when, where known.
    pub since: Option<Timestamp>,
    /// The live operation that holds it.
    pub operation: Option<OpId>,
    /// `skep.paused`.
    pub paused: bool,
    /// Replicas wanted; none for global services.
    pub desired: Option<u64>,
    /// Tasks that run.
    pub running: u64,
    /// `skep.data`.
    pub engine: Option<&'static str>,
    /// Backups; none where the labels ask for none and there are none.
    pub backups: Option<Backups>,
    /// How the last successful restore went, where known.
    pub restored: Option<Restored>,
    /// What alerts may do; none where they may do nothing.
    pub guard: Option<GuardView>,
    /// Problems of its labels.
    pub problems: Vec<ProblemView>,
}

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// As wanted.
    Healthy,
    /// Fewer tasks run than wanted.
    Degraded,
    /// An operation works on it.
    Operating,
    /// Its users see the maintenance page.
    Maintenance,
    /// Scaled to zero by Skep.
    Asleep,
    /// An operation on it is stuck: a person is needed.
    Stuck,
}

/// The backups of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Backups {
    /// How many are registered.
    pub count: u64,
    /// When the newest one was taken.
    pub last_success: Option<Timestamp>,
    /// When the last attempt to take one began.
    pub last_attempt: Option<Timestamp>,
    /// When one was last read back in full or restored.
    pub last_verified: Option<Timestamp>,
    /// When one was last proved by a restore that passed its checks.
    pub last_proved: Option<Timestamp>,
    /// Size of the newest in bytes.
    pub last_size: Option<u64>,
    /// When the oldest was taken.
    pub oldest: Option<Timestamp>,
    /// When the next one is due, where there is a schedule.
    pub next: Option<Timestamp>,
    /// Longest time between two that the schedule allows, where there is one.
    pub interval: Option<Duration>,
    /// Since when the service exists: what "never" is measured from.
    pub wanted_since: Option<Timestamp>,
}

/// How a restore went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Restored {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How long users could not work, where known.
    pub downtime: Option<Duration>,
}

/// What alerts may do about a service, and what they have done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuardView {
    /// Mode.
    pub mode: &'static str,
    /// Alerts that may ask.
    pub alerts: Vec<String>,
    /// Since when the circuit is open, and why.
    pub circuit: Option<(Timestamp, String)>,
    /// Alerts that fire.
    pub incidents: Vec<IncidentView>,
    /// Why the history cannot be read, where it cannot.
    pub unreadable: Option<String>,
}

/// One incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentView {
    /// `alertname`.
    pub alert: String,
    /// Since when.
    pub since: Timestamp,
    /// What was done, for people.
    pub phase: String,
    /// The operation that answers it.
    pub operation: Option<OpId>,
}

/// One problem of a label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProblemView {
    /// `L007`.
    pub code: String,
    /// Label.
    pub key: String,
    /// What is wrong and what is wanted, for people.
    pub text: String,
    /// What was probably meant.
    pub hint: Option<String>,
    /// Whether it stands against destructive operations.
    pub blocks: bool,
    /// Only a warning.
    pub warning: bool,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationView {
    /// Id.
    pub id: OpId,
    /// `backup`, `restore`, …
    pub kind: &'static str,
    /// Full name of the service.
    pub service: String,
    /// State.
    pub state: State,
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

// === impl Condition ===

impl Condition {
    /// Every condition.
    pub const ALL: [Condition; 6] = [
        Condition::Healthy,
        Condition::Degraded,
        Condition::Operating,
        Condition::Maintenance,
        Condition::Asleep,
        Condition::Stuck,
    ];

    /// Name, as in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Condition::Healthy => "healthy",
            Condition::Degraded => "degraded",
            Condition::Operating => "operating",
            Condition::Maintenance => "maintenance",
            Condition::Asleep => "asleep",
            Condition::Stuck => "stuck",
        }
    }
}

// === impl View ===

impl View {
    /// Puts operations in the order in which they are shown.
    pub fn sort(&mut self) {
        self.services.sort_by(|a, b| a.name.cmp(&b.name));
        self.operations.sort_by(|a, b| {
            let calm = |o: &OperationView| o.state.is_terminal();
            calm(a).cmp(&calm(b)).then(b.created.cmp(&a.created)).then(b.id.cmp(&a.id))
        });
    }

    /// One operation by its id.
    pub fn operation(&self, id: &str) -> Option<&OperationView> {
        self.operations.iter().find(|o| o.id.as_str() == id)
    }
}

// === impl GuardView ===

impl GuardView {
    /// From what the guards remember.
    pub fn of(mode: RestoreMode, alerts: &[String], history: Result<&History, String>) -> GuardView {
        let mode = match mode {
            RestoreMode::Observe => "observe",
            RestoreMode::Approve => "approve",
            RestoreMode::Auto => "auto",
        };
        let alerts = alerts.iter().map(|a| scrub::line(a, LONGEST_NAME)).collect();
        let mut view = GuardView { mode, alerts, circuit: None, incidents: Vec::new(), unreadable: None };
        match history {
            Err(why) => view.unreadable = Some(scrub::line(&why, LONGEST)),
            Ok(history) => {
                view.circuit = history.circuit.as_ref().map(|c| (c.opened, scrub::line(&c.why, LONGEST)));
                view.incidents = history
                    .open()
                    .map(|i| IncidentView {
                        alert: scrub::line(&i.alert, LONGEST_NAME),
                        since: i.since(),
                        phase: doing(&i.phase),
                        operation: i.phase.op().cloned(),
                    })
                    .collect();
            }
        }
        view
    }
}

fn doing(phase: &Phase) -> String {
    match phase {
        Phase::Settling { until } => {
            format!("judged at {}, if it still fires", until.strftime("%H:%M:%S UTC"))
        }
        Phase::Waiting { on } => match on.as_str() {
            "cooldown" => "waits for the cooldown after the last restore".to_owned(),
            "limit" => "the limit of restores is reached".to_owned(),
            "busy" => "waits for an operation to end".to_owned(),
            "own-operation" => "probably an effect of our own operation; judged again later".to_owned(),
            "refused" => "refused; judged again while it fires".to_owned(),
            _ => "waits".to_owned(),
        },
        Phase::Starting { .. } => "being answered".to_owned(),
        Phase::Acted { .. } => "answered".to_owned(),
        Phase::Observed => "only observed".to_owned(),
    }
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
            service: scrub::line(&op.intent.service, LONGEST_NAME),
            state: journal.state,
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

fn asked_by(trigger: &Trigger) -> String {
    let text = match trigger {
        Trigger::Person { name } => name.clone(),
        Trigger::Alert { name, .. } => format!("alert {name}"),
        Trigger::Schedule { key, .. } => format!("schedule {key}"),
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
            title: title(work, name),
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
            title: title(work, name),
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

/// What a step does, for people; its name where it is not known.
fn title(work: &Work, name: &str) -> String {
    let text = match (work, name) {
        (_, "claim") => "Take hold of the services",
        (_, "plan") => "Decide every detail beforehand",
        (_, "release") => "Give the services back",
        (Work::Backup, "dump") => "Dump the data",
        (Work::Backup, "verify") => "Read the backup back in full",
        (Work::Backup, "register") => "Register it in the catalogue",
        (Work::Restore { .. }, "preflight") => "Look at backups, room, roles and sessions",
        (Work::Restore { .. }, "expire") => "Drop what an earlier restore kept",
        (Work::Restore { .. }, "safety") => "Back up what is about to be replaced",
        (Work::Restore { .. }, "beside") => "Restore beside, and check it there",
        (Work::Restore { .. }, "stop") => "Stop the clients, page on",
        (Work::Restore { .. }, "cut") => "Cut over by rename",
        (Work::Restore { .. }, "replace") => "Rebuild the data in place",
        (Work::Restore { .. }, "flush") => "Empty the caches",
        (Work::Restore { .. }, "canary") => "Try one client on the new data",
        (Work::Restore { .. }, "start") => "Start the clients, page off",
        (Work::Restore { .. }, "verify") => "Check data and application",
        (Work::Restore { .. }, "keep") => "Keep the old data until it expires",
        (Work::Maintenance { .. }, "page" | "stop") => "Page on",
        (Work::Maintenance { .. }, "hold") => "Hold until told, or until its time is over",
        (Work::Maintenance { .. }, "back" | "start") => "Page off",
        _ => return scrub::line(&capital(&name.replace(['-', '_'], " ")), LONGEST_NAME),
    };
    text.to_owned()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Time between two moments, zero where they are the wrong way round.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
