//! One operation as it stands in the Swarm: an immutable intent (a config's data) and a journal (its labels).
//!
//! ```text
//! pending → (awaiting-approval) → running → succeeded | rolled-back | failed | cancelled
//!                                     └──▶ stuck   (an undo cannot finish, or a failure after the point of no return)
//! ```
//!
//! Invariants: an intent never changes; the journal moves only by compare-and-swap on the config's version;
//! direction and next step are computed from it, never stored. A record of a newer schema is refused.

mod codec;
mod step;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::rollback::Component;

pub use codec::{STATE, Unreadable};
pub use step::{BEING_UNDONE, JobRecord, JobRecordState, StepRecord, StepState};

/// The newest version of the intent and journal format that is read; [`Work::schema`] is the one that is written.
pub const SCHEMA: u32 = 2;

/// Identifies an operation and sorts by time: `20261121t013420` and six characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(String);

/// What is to be done, to what, and why. Immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// Format version.
    pub schema: u32,
    /// Full name of the service; the name of the stack, where the work is about one.
    pub service: String,
    /// Its id: a service removed and made anew is another service. Of a stack [`of_stack`].
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
        /// The data as it was at this moment, recovered from a base backup and the write-ahead log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Timestamp>,
        /// Overrides `skep.restore.strategy`.
        #[serde(default)]
        in_place: Option<bool>,
        /// Overrides `skep.restore.quiesce`.
        #[serde(default)]
        quiesce: Option<bool>,
        /// Make roles that a backup of PostgreSQL holds and the server lacks. Only ever by hand.
        #[serde(default)]
        create_roles: bool,
    },
    /// Restore a backup on the side, to prove that it can be.
    Drill {
        /// This backup and no other; the newest verified one where absent.
        #[serde(default)]
        backup: Option<String>,
    },
    /// Put the maintenance page up until told otherwise.
    Maintenance {
        /// When to take it down again; until cancelled where absent.
        #[serde(default)]
        until: Option<Timestamp>,
    },
    /// Drop databases kept from earlier restores that have expired.
    Expire,
    /// Write reports of operations that have ended into the store of the service.
    Report,
    /// Read stored backups of the service in full, and note in the catalogue how each was found.
    Verify {
        /// This backup; all of the service where absent.
        #[serde(default)]
        backup: Option<String>,
    },
    /// Take what a store holds of the service into the catalogue, once it was read in full.
    Import {
        /// Name of the store.
        store: String,
        /// The name that the service had when its backups were made, where it was another.
        #[serde(default)]
        from: Option<String>,
        /// Leave the engine's own reading out; checksums are checked all the same.
        #[serde(default)]
        quick: bool,
        /// A directory of the store that people filled by hand, with `MANIFEST.txt`, instead of Skep's own layout.
        #[serde(default)]
        layout: Option<String>,
        /// Only list what would be taken in.
        #[serde(default)]
        dry_run: bool,
    },
    /// Take a restore point of a whole stack: the intent's service is the stack.
    Point {
        /// Only specs and what they name; no data is backed up.
        #[serde(default)]
        without_data: bool,
    },
    /// Scale the service to zero, and write down what it goes back to.
    Sleep {
        /// What becomes of what needs it and is awake.
        #[serde(default)]
        above: Above,
    },
    /// Bring a service that sleeps back, and before it what it needs.
    Wake,
    /// Stop a service and what needs it, or all services of a stack, and start them again in the order in which they need each
    /// other; or replace tasks without a stop.
    Restart {
        /// All services of a stack: the intent's service is the stack.
        #[serde(default)]
        whole: bool,
        /// Whether services stop.
        #[serde(default)]
        manner: Manner,
        /// Go on without what does not stop in time, over an update that is paused, where a service may lose its node, and without
        /// the checks that are asked before.
        #[serde(default)]
        force: bool,
        /// Caches to empty while what uses them is stopped, as they were named.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        flush: Vec<String>,
        /// How long the checks that are asked before are waited for where they do not pass, seconds; none where they refuse.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait_s: Option<u64>,
    },
    /// Give a service another image, or several theirs as one, watch them for a while, and put back what was there on a red flag.
    Update {
        /// The image, as it was asked for.
        image: String,
        /// Overrides `skep.update.monitor`, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        monitor_s: Option<u64>,
        /// Also an image that did not do before, over an update that is paused, where a service may lose its node, and without the
        /// checks that are asked before.
        #[serde(default)]
        force: bool,
        /// How long the checks that are asked before are waited for where they do not pass, seconds; none where they refuse.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait_s: Option<u64>,
        /// Services that get theirs with it: all of them do, or none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        also: Vec<Also>,
    },
    /// Put a stack back to a restore point: the intent's service is the stack.
    Rollback {
        /// The point.
        point: OpId,
        /// What of it; everything that the point holds where nothing is named.
        #[serde(default)]
        only: Vec<Component>,
    },
}

/// A service that is updated together with the one that the intent names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Also {
    /// Full name.
    pub service: String,
    /// Its id.
    pub service_id: String,
    /// The image that it gets, as it was asked for.
    pub image: String,
}

/// What becomes of the services that need one which is to fall asleep, directly, and that are awake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Above {
    /// Nothing falls asleep under them.
    #[default]
    Refuse,
    /// They fall asleep as well, before it.
    Along,
    /// They stay awake: a proxy, or whatever can do without.
    Alone,
}

/// Whether services stop when they are restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// Unless they keep nothing, and nothing needs them.
    #[default]
    Fitting,
    /// None does: the tasks of each are replaced as it runs.
    Rolling,
    /// All do.
    Stopped,
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
    /// What Skep found a service to be.
    Found {
        /// What that was, as the end of `because …`.
        what: String,
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

    /// The id of the nth part of an operation. Sorts behind it.
    #[must_use]
    pub fn part(&self, nth: usize) -> OpId {
        OpId(format!("{}r{nth}", self.0))
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
            Work::Drill { .. } => "drill",
            Work::Maintenance { .. } => "maintenance",
            Work::Expire => "expire",
            Work::Report => "report",
            Work::Verify { .. } => "verify",
            Work::Import { .. } => "import",
            Work::Point { .. } => "point",
            Work::Rollback { .. } => "rollback",
            Work::Sleep { .. } => "sleep",
            Work::Wake => "wake",
            Work::Restart { .. } => "restart",
            Work::Update { .. } => "update",
        }
    }

    /// The oldest format that says all of it: a version that knows no newer one carries it on as well.
    pub const fn schema(&self) -> u32 {
        // An update of several that is read as one of the first would be half of what was asked for.
        if self.also().is_empty() { 1 } else { 2 }
    }

    /// What is updated together with the service that the intent names.
    pub const fn also(&self) -> &[Also] {
        match self {
            Work::Update { also, .. } => also.as_slice(),
            _ => &[],
        }
    }

    /// Whether it holds the service, so that others wait for it. What only reads the store and writes the catalogue does
    /// not: nothing has to wait for it, and a restore goes before it.
    pub const fn holds(&self) -> bool {
        match self {
            Work::Backup
            | Work::Restore { .. }
            | Work::Drill { .. }
            | Work::Maintenance { .. }
            | Work::Expire
            | Work::Point { .. }
            | Work::Sleep { .. }
            | Work::Wake
            | Work::Restart { .. }
            | Work::Update { .. }
            | Work::Rollback { .. } => true,
            Work::Verify { .. } | Work::Import { .. } | Work::Report => false,
        }
    }

    /// Whether it is about a whole stack, whose name then stands where else that of a service does.
    pub const fn is_of_stack(&self) -> bool {
        match self {
            Work::Point { .. } | Work::Rollback { .. } => true,
            Work::Restart { whole, .. } => *whole,
            Work::Backup
            | Work::Restore { .. }
            | Work::Drill { .. }
            | Work::Maintenance { .. }
            | Work::Expire
            | Work::Report
            | Work::Verify { .. }
            | Work::Import { .. }
            | Work::Sleep { .. }
            | Work::Wake
            | Work::Update { .. } => false,
        }
    }
}

/// What stands in an intent for the id of a service, where the work is about a stack: the id of no service.
pub fn of_stack(stack: &str) -> String {
    format!("stack:{stack}")
}

// === impl Intent ===

impl Intent {
    /// The services that it is about, by name and id. Of what is about a stack the name of that, which is no service's.
    pub fn services(&self) -> impl Iterator<Item = (&str, &str)> {
        let also = self.work.also().iter().map(|also| (also.service.as_str(), also.service_id.as_str()));
        std::iter::once((self.service.as_str(), self.service_id.as_str())).chain(also)
    }

    /// Whether it is about a service of this name.
    pub fn is_about(&self, service: &str) -> bool {
        self.services().any(|(name, _)| name == service)
    }

    /// What it is about, for people: `shop_app`, or `shop_app, shop_web and shop_worker`.
    pub fn about(&self) -> String {
        let names: Vec<&str> = self.services().map(|(name, _)| name).collect();
        match names.as_slice() {
            [names @ .., last] if !names.is_empty() => format!("{} and {last}", names.join(", ")),
            _ => self.service.clone(),
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
    /// `restore of shop_db`.
    pub fn title(&self) -> String {
        format!("{} of {}", self.intent.work.kind(), self.intent.about())
    }

    /// The operation of which this one is a part: that one holds the services, and decides in the end. A restore is one of a
    /// rollback; a point and a rollback are those of an update that goes back with its data.
    pub const fn part_of(&self) -> Option<&OpId> {
        match (&self.intent.work, &self.intent.trigger) {
            (
                Work::Restore { .. } | Work::Point { .. } | Work::Rollback { .. },
                Trigger::Operation { id },
            ) => Some(id),
            _ => None,
        }
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
}
