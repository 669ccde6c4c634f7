//! One moment of everything that is shown: the status page, its JSON and the domain metrics all come from it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

pub use super::operation_view::{OperationView, Progress, StepView};
use crate::operation::record::OpId;
pub use crate::plan::standing::Backups;
use crate::policy::RestoreMode;
use crate::runtime::scrub;
use crate::triggers::guard::History;
use crate::triggers::guard::history::Phase;

/// Longest text of a note, a remark or a problem.
pub(super) const LONGEST: usize = 600;
/// Longest name.
pub(super) const LONGEST_NAME: usize = 120;

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
    /// Replicas that do not run because Skep has put the service to sleep.
    pub saves: Option<u64>,
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
    /// None of its tasks runs, which nobody asked for.
    Down,
    /// An operation works on it.
    Operating,
    /// Its users see the maintenance page.
    Maintenance,
    /// Scaled to zero, by Skep or by a person.
    Asleep,
    /// Scaled down by Skep to the replicas that it keeps, which run.
    Reduced,
    /// Being brought back from its sleep.
    Waking,
    /// An operation on it is stuck: a person is needed.
    Stuck,
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

// === impl Condition ===

impl Condition {
    /// Every condition.
    pub const ALL: [Condition; 9] = [
        Condition::Healthy,
        Condition::Degraded,
        Condition::Down,
        Condition::Operating,
        Condition::Maintenance,
        Condition::Asleep,
        Condition::Reduced,
        Condition::Waking,
        Condition::Stuck,
    ];

    /// Name, as in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Condition::Healthy => "healthy",
            Condition::Degraded => "degraded",
            Condition::Down => "down",
            Condition::Operating => "operating",
            Condition::Maintenance => "maintenance",
            Condition::Asleep => "asleep",
            Condition::Reduced => "reduced",
            Condition::Waking => "waking",
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
        let alerts = alerts.iter().map(|a| scrub::line(a, LONGEST_NAME)).collect();
        let mut view =
            GuardView { mode: mode.as_str(), alerts, circuit: None, incidents: Vec::new(), unreadable: None };
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

/// Time between two moments, zero where they are the wrong way round.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
