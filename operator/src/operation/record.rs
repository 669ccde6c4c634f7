//! One operation as it stands in the Swarm: an immutable intent (a config's data) and a journal (its labels).
//!
//! ```text
//! pending → (awaiting-approval) → running → succeeded | rolled-back | failed | cancelled
//!                                     └──▶ stuck   (an undo cannot finish, or a failure after the point of no return)
//! ```
//!
//! Invariants: an intent never changes; the journal moves only by compare-and-swap on the config's version;
//! direction and next step are computed from it, never stored. A record of a newer schema is refused.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::swarm::object::{Config, KIND, Kind, Labels};

/// Version of the intent and journal format.
pub const SCHEMA: u32 = 1;

/// Identifies an operation and sorts by time: `20261121t013420` and six characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(String);

/// What is to be done, to what, and why. Immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Format version.
    pub schema: u32,
    /// Full name of the service.
    pub service: String,
    /// Its id: a service removed and made anew is another service.
    pub service_id: String,
    /// The work.
    pub work: Work,
    /// Who or what asked for it.
    pub trigger: Trigger,
    /// When it was asked for.
    pub created: Timestamp,
    /// Whether a person must approve it before it begins.
    pub approval: bool,
    /// Go on although labels of the service have problems that block destructive operations.
    #[serde(default)]
    pub accept_problems: bool,
}

/// The kinds of work with their parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// Back the service's data up.
    Backup,
    /// Restore the service's data.
    Restore {
        /// This backup and no other.
        #[serde(default)]
        backup: Option<String>,
        /// The newest verified backup older than this.
        #[serde(default)]
        before: Option<Timestamp>,
        /// Overrides `skep.restore.strategy`.
        #[serde(default)]
        in_place: Option<bool>,
        /// Overrides `skep.restore.quiesce`.
        #[serde(default)]
        quiesce: Option<bool>,
    },
    /// Put the maintenance page up until told otherwise.
    Maintenance {
        /// When to take it down again; until cancelled where absent.
        #[serde(default)]
        until: Option<Timestamp>,
    },
    /// Drop databases kept from earlier restores that have expired.
    Expire,
}

/// Who or what asked for an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Trigger {
    /// A person at the command line or on the status page.
    Person {
        /// Name, as far as known.
        name: String,
    },
    /// An alert.
    Alert {
        /// `alertname`.
        name: String,
        /// Alertmanager's fingerprint.
        fingerprint: String,
        /// Since when it fires.
        starts_at: Timestamp,
    },
    /// A schedule of the labels.
    Schedule {
        /// The label key.
        key: String,
        /// The time at which it was due.
        due: Timestamp,
    },
    /// Another operation.
    Operation {
        /// Its id.
        id: OpId,
    },
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Stored, not begun (perhaps queued behind another).
    Pending,
    /// Waits for a person.
    AwaitingApproval,
    /// Begun.
    Running,
    /// Finished and verified.
    Succeeded,
    /// Failed, and everything is as it was before.
    RolledBack,
    /// Failed or refused before anything was changed.
    Failed,
    /// Ended by a person, and everything is as it was before.
    Cancelled,
    /// A person is needed.
    Stuck,
}

/// One step's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Where it stands.
    pub state: StepState,
    /// When it began.
    pub began: Timestamp,
    /// When its state last changed.
    pub changed: Timestamp,
    /// Number of the current attempt, from 1; part of the names of what the step makes.
    #[serde(default = "one")]
    pub attempt: u32,
    /// What it is doing or why it failed, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Progress, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// What it chose or found; later steps read it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub out: Value,
    /// Its jobs, by a key of the step's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<String, JobRecord>,
}

/// One job of a step. Closing removes the service, then the ticket, and only then is it recorded as closed (S7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Number of the attempt, from 1; part of the job's name.
    pub attempt: u32,
    /// Config id of the ticket.
    pub ticket: String,
    /// Id of the temporary secret, where the credentials live in the service's environment (S15).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// What is left of it.
    pub state: JobRecordState,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<skep_runner::Fault>,
    /// What it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<skep_runner::Report>>,
}

/// What is left of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobRecordState {
    /// Its service and ticket may exist.
    Open,
    /// Its outcome is recorded; its service and ticket are being removed.
    Closing,
    /// Nothing of it exists any more.
    Closed,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Begun; its effects may or may not be there.
    Started,
    /// Finished.
    Done,
    /// Failed; its effects may or may not be there.
    Failed,
    /// Being undone.
    Undoing,
    /// Undone.
    Undone,
    /// Cannot be undone without a person.
    UndoFailed,
}

/// An operation read from its config.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Id.
    pub id: OpId,
    /// Config id.
    pub config: String,
    /// Config version.
    pub version: u64,
    /// The intent.
    pub intent: Intent,
    /// The journal.
    pub journal: Journal,
}

/// The mutable part of an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    /// State.
    pub state: State,
    /// Steps begun so far, in order.
    pub steps: Vec<(String, StepRecord)>,
    /// Who asked to cancel it.
    pub cancel: Option<String>,
    /// Who approved it.
    pub approved: Option<String>,
    /// Who drives it.
    pub holder: Option<String>,
    /// Phases that the stakeholders were told, with the time.
    pub told: BTreeMap<String, Timestamp>,
    /// What people should know at the end: rows kept where, caches not emptied, how to go back by hand.
    pub remarks: Vec<String>,
    /// When it reached a terminal state (or got stuck).
    pub ended: Option<Timestamp>,
}

/// A config that is not an operation this version can read.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// Written by a newer Skep.
    #[error("operation `{name}` was written by a newer Skep (format {found}, this one reads {SCHEMA})")]
    Newer {
        /// Config name.
        name: String,
        /// Its format.
        found: u64,
    },
    /// Not what it should be.
    #[error("operation `{name}` cannot be read: {message}")]
    Malformed {
        /// Config name.
        name: String,
        /// What is wrong.
        message: String,
    },
}

const STATE: &str = "skep.state";
const STEP: &str = "skep.step.";
const TOLD: &str = "skep.told.";
const REMARK: &str = "skep.remark.";
const CANCEL: &str = "skep.cancel";
const APPROVED: &str = "skep.approved";
const HOLDER: &str = "skep.holder";
const ENDED: &str = "skep.ended";
/// Label with the service's full name, on every object that has one.
pub const SERVICE: &str = "skep.service";
/// Label with the service's id, on every object that has one.
pub const SERVICE_ID: &str = "skep.service-id";
/// Prefix of the names of operation configs.
pub const PREFIX: &str = "skep-op-";

// === impl OpId ===

impl OpId {
    /// Makes an id from a time and something that tells operations of one second apart.
    pub fn new(at: Timestamp, distinct: &str) -> OpId {
        let time = at.strftime("%Y%m%dt%H%M%S");
        OpId(format!("{time}{}", &crate::swarm::object::short_hash(distinct)[..6]))
    }

    /// Reads an id that a person typed or an object carries.
    pub fn parse(text: &str) -> Option<OpId> {
        let fine = (8..=24).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        fine.then(|| OpId(text.to_owned()))
    }

    /// The id as text: lower-case letters and digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the operation's config.
    pub fn config_name(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Work ===

impl Work {
    /// Name of the kind, as used in labels, metrics and mails.
    pub const fn kind(&self) -> &'static str {
        match self {
            Work::Backup => "backup",
            Work::Restore { .. } => "restore",
            Work::Maintenance { .. } => "maintenance",
            Work::Expire => "expire",
        }
    }
}

// === impl State ===

impl State {
    /// Every state.
    pub const ALL: [State; 8] = [
        State::Pending,
        State::AwaitingApproval,
        State::Running,
        State::Succeeded,
        State::RolledBack,
        State::Failed,
        State::Cancelled,
        State::Stuck,
    ];

    /// Name, as in labels and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::AwaitingApproval => "awaiting-approval",
            State::Running => "running",
            State::Succeeded => "succeeded",
            State::RolledBack => "rolled-back",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Stuck => "stuck",
        }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Whether it will never change again. `Stuck` may: a person can retry or go back.
    pub const fn is_terminal(self) -> bool {
        matches!(self, State::Succeeded | State::RolledBack | State::Failed | State::Cancelled)
    }

    /// Whether the driver has something to do.
    pub const fn is_live(self) -> bool {
        matches!(self, State::Pending | State::Running)
    }
}

// === impl Operation ===

impl Operation {
    /// Reads an operation from its config.
    ///
    /// # Errors
    /// When it is of a newer format or malformed.
    pub fn read(config: &Config) -> Result<Operation, Unreadable> {
        let malformed = |message: String| Unreadable::Malformed { name: config.name.clone(), message };
        let id = config.name.strip_prefix(PREFIX).and_then(OpId::parse);
        let id = id.ok_or_else(|| malformed("its name holds no id".to_owned()))?;
        let data: Value = serde_json::from_slice(&config.data).map_err(|e| malformed(e.to_string()))?;
        if let Some(found) = data["schema"].as_u64().filter(|s| *s > u64::from(SCHEMA)) {
            return Err(Unreadable::Newer { name: config.name.clone(), found });
        }
        let intent = serde_json::from_value(data).map_err(|e| malformed(e.to_string()))?;
        let journal = Journal::read(&config.labels).map_err(malformed)?;
        Ok(Operation { id, config: config.id.clone(), version: config.version, intent, journal })
    }

    /// The labels to store: those of the journal and those that never change.
    pub fn labels(&self) -> Labels {
        let mut labels = self.journal.labels();
        labels.insert(KIND.to_owned(), Kind::Operation.as_str().to_owned());
        labels.insert(SERVICE.to_owned(), self.intent.service.clone());
        labels.insert(SERVICE_ID.to_owned(), self.intent.service_id.clone());
        labels
    }

    /// `restore of shop_db`.
    pub fn title(&self) -> String {
        format!("{} of {}", self.intent.work.kind(), self.intent.service)
    }
}

// === impl Journal ===

impl Journal {
    /// The journal of an operation that has not begun.
    pub fn new(state: State) -> Journal {
        Journal {
            state,
            steps: Vec::new(),
            cancel: None,
            approved: None,
            holder: None,
            told: BTreeMap::new(),
            remarks: Vec::new(),
            ended: None,
        }
    }

    /// The record of a step, if it has begun.
    pub fn step(&self, name: &str) -> Option<&StepRecord> {
        self.steps.iter().find(|(n, _)| n == name).map(|(_, r)| r)
    }

    /// The record of a step for change; makes one that has just begun.
    pub fn step_mut(&mut self, name: &str, now: Timestamp) -> &mut StepRecord {
        let at = self.steps.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
            self.steps.push((name.to_owned(), StepRecord::begun(now)));
            self.steps.len() - 1
        });
        &mut self.steps[at].1
    }

    fn labels(&self) -> Labels {
        let mut labels = Labels::from([(STATE.to_owned(), self.state.as_str().to_owned())]);
        for (i, (name, record)) in self.steps.iter().enumerate() {
            let text = serde_json::to_string(record).expect("a record has only JSON-able fields");
            labels.insert(format!("{STEP}{i:02}.{name}"), text);
        }
        for (phase, at) in &self.told {
            labels.insert(format!("{TOLD}{phase}"), at.to_string());
        }
        for (i, remark) in self.remarks.iter().enumerate() {
            labels.insert(format!("{REMARK}{i:02}"), remark.clone());
        }
        let ended = self.ended.map(|t| t.to_string());
        for (key, value) in
            [(CANCEL, &self.cancel), (APPROVED, &self.approved), (HOLDER, &self.holder), (ENDED, &ended)]
        {
            if let Some(value) = value {
                labels.insert(key.to_owned(), value.clone());
            }
        }
        labels
    }

    fn read(labels: &Labels) -> Result<Journal, String> {
        let state =
            labels.get(STATE).and_then(|s| State::parse(s)).ok_or("its state is missing or unknown")?;
        let mut journal = Journal::new(state);
        let time = |text: &String| text.parse::<Timestamp>().map_err(|e| e.to_string());
        for (key, value) in labels {
            if let Some((_, name)) = key.strip_prefix(STEP).and_then(|k| k.split_once('.')) {
                let record = serde_json::from_str(value).map_err(|e| format!("step `{name}`: {e}"))?;
                journal.steps.push((name.to_owned(), record));
            } else if let Some(phase) = key.strip_prefix(TOLD) {
                journal.told.insert(phase.to_owned(), time(value)?);
            } else if key.starts_with(REMARK) {
                journal.remarks.push(value.clone());
            }
        }
        journal.cancel = labels.get(CANCEL).cloned();
        journal.approved = labels.get(APPROVED).cloned();
        journal.holder = labels.get(HOLDER).cloned();
        journal.ended = labels.get(ENDED).map(time).transpose()?;
        Ok(journal)
    }
}

// === impl StepRecord ===

impl StepRecord {
    /// A step that has just begun.
    pub fn begun(now: Timestamp) -> StepRecord {
        StepRecord {
            state: StepState::Started,
            began: now,
            changed: now,
            attempt: 1,
            note: String::new(),
            percent: None,
            out: Value::Null,
            jobs: BTreeMap::new(),
        }
    }
}

const fn one() -> u32 {
    1
}
