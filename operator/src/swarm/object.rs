//! Swarm objects as Skep reads them. Service specs stay raw JSON, so that nothing of a user's spec is lost.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Labels of any object.
pub type Labels = BTreeMap<String, String>;

/// Label that says what a Skep object is.
pub const KIND: &str = "skep.kind";
/// Label that names the operation that owns an object.
pub const OP: &str = "skep.op";
/// Label that opts a user's service in.
pub const ENABLE: &str = "skep.enable";

/// What a Skep config object is; the value of [`KIND`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An intent with its journal.
    Operation,
    /// Frozen steps and saved specs of an operation.
    Plan,
    /// The task of one job.
    Ticket,
    /// History of alert incidents.
    Guard,
    /// The runner binary.
    Runner,
    /// An entry of the backup catalogue.
    Backup,
    /// A restore point of a stack.
    Point,
    /// A whole spec, or the data of a config, that belongs to a restore point.
    PointPart,
    /// Which operation holds a service.
    Claim,
    /// The leader lease.
    Lease,
    /// A page or nginx configuration that Skep delivers.
    Page,
    /// The task of a waker.
    Waker,
    /// The task of a door, and the door: a service.
    Door,
    /// What the weekly mail has told.
    Digest,
    /// What a service that sleeps goes back to.
    Sleep,
    /// That receivers of write-ahead logs were given back.
    Released,
    /// A client's task that tries restored data, out of reach of users. A service, not a config.
    Canary,
}

/// A Swarm config object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Version, for compare-and-swap.
    pub version: u64,
    /// Creation time by the manager's clock.
    pub created: Timestamp,
    /// Time of the last change by the manager's clock.
    pub updated: Timestamp,
    /// Mutable labels.
    pub labels: Labels,
    /// Immutable data.
    pub data: Vec<u8>,
}

/// The task in whose container this program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTask {
    /// Image reference.
    pub image: String,
    /// Id of its service.
    pub service: String,
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Id.
    pub id: String,
    /// Version, for compare-and-swap.
    pub version: u64,
    /// The whole spec as the engine gave it.
    pub spec: Value,
    /// The last rollout, if there was one.
    pub update: Option<UpdateStatus>,
    /// Creation time by the manager's clock.
    pub created: Timestamp,
}

/// State of a service's last rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// The engine's message.
    pub message: String,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateState {
    /// Tasks are being replaced.
    Updating,
    /// Stopped by a failure or by a person.
    Paused,
    /// Every task was replaced and survived the monitor time.
    Completed,
    /// Going back.
    RollbackStarted,
    /// Going back was stopped.
    RollbackPaused,
    /// Went back.
    RollbackCompleted,
}

/// A task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Id.
    pub id: String,
    /// Service id.
    pub service: String,
    /// Node id, once assigned.
    pub node: Option<String>,
    /// Slot, 0 for global services.
    pub slot: u64,
    /// What the task is.
    pub state: TaskState,
    /// What it should be.
    pub desired: TaskState,
    /// Error text of the engine, empty where there is none.
    pub error: String,
    /// Exit code, where the container has ended.
    pub exit_code: Option<i64>,
    /// Image that the task runs.
    pub image: String,
    /// The version of the service spec that the task was made from, where the engine tells (it does so for jobs and newer engines).
    pub spec_version: Option<u64>,
    /// The whole task template (`Task.Spec`) as the engine gave it.
    pub spec: Value,
    /// Addresses without prefix length, by network id.
    pub addresses: Vec<(String, String)>,
    /// Creation time by the manager's clock.
    pub created: Timestamp,
    /// Time of the last state change.
    pub changed: Timestamp,
}

/// State of a task, in the order in which tasks go through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are Swarm's")]
pub enum TaskState {
    New,
    Allocated,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    Remove,
    Orphaned,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Id.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// Whether the managers reach it.
    pub ready: bool,
    /// `x86_64`, `aarch64`, …
    pub architecture: String,
    /// Whether it takes new tasks.
    pub active: bool,
    /// Whether it is a manager.
    pub manager: bool,
    /// What people labelled it with.
    pub labels: Labels,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `overlay`, `bridge`, …
    pub driver: String,
    /// Labels.
    pub labels: Labels,
}

/// A secret as far as the engine tells: never its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Version, for compare-and-swap.
    pub version: u64,
    /// Mutable labels.
    pub labels: Labels,
    /// Creation time by the manager's clock.
    pub created: Timestamp,
}

/// Names a config or a secret in a service spec, which wants both its id and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
}

/// What the engine says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version of the engine, `20.10.24`.
    pub engine_version: String,
    /// Version of the API that the paths are pinned to, `1.41`.
    pub api_version: String,
    /// Whether this engine is an active member of a swarm.
    pub active: bool,
    /// Whether it is a manager that can be asked.
    pub manager: bool,
    /// Its node id, empty outside of a swarm.
    pub node: String,
    /// Id of the swarm, on managers.
    pub cluster: Option<String>,
    /// The log driver of containers on this node whose spec names none.
    pub log_driver: String,
    /// What the engine says is wrong with the swarm (no leader, no quorum), empty where nothing is.
    pub error: String,
}

/// A hint that something changed. Events get lost, so nothing may depend on one alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// What kind of object.
    pub kind: EventKind,
    /// What happened to it.
    pub action: EventAction,
    /// Id of the object.
    pub id: String,
    /// Its name, where the engine tells.
    pub name: Option<String>,
}

/// What kind of object an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are Swarm's")]
pub enum EventKind {
    Service,
    Config,
    Secret,
    Network,
    Node,
    Other,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are Swarm's")]
pub enum EventAction {
    Create,
    Update,
    Remove,
    Other,
}

/// Credentials for the registry, sent along when a service is created. An update keeps those that Swarm has stored.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum RegistryAuth {
    /// None: public images, and images that the nodes have.
    #[default]
    Anonymous,
    /// The value of the `X-Registry-Auth` header: base64url of a JSON object.
    Header(String),
}

/// The first 12 characters of a name's hash (base32, lower case): keeps names of derived objects short.
pub fn short_hash(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(12).map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect()
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 17] = [
        Kind::Operation,
        Kind::Plan,
        Kind::Ticket,
        Kind::Guard,
        Kind::Runner,
        Kind::Backup,
        Kind::Point,
        Kind::PointPart,
        Kind::Claim,
        Kind::Lease,
        Kind::Page,
        Kind::Waker,
        Kind::Door,
        Kind::Digest,
        Kind::Sleep,
        Kind::Released,
        Kind::Canary,
    ];

    /// The value of the [`KIND`] label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Operation => "operation",
            Kind::Plan => "plan",
            Kind::Ticket => "ticket",
            Kind::Guard => "guard",
            Kind::Runner => "runner",
            Kind::Backup => "backup",
            Kind::Point => "point",
            Kind::PointPart => "point-part",
            Kind::Claim => "claim",
            Kind::Lease => "lease",
            Kind::Page => "page",
            Kind::Waker => "waker",
            Kind::Door => "door",
            Kind::Digest => "digest",
            Kind::Sleep => "sleep",
            Kind::Released => "released",
            Kind::Canary => "canary",
        }
    }
}

// === impl RegistryAuth ===

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RegistryAuth::Anonymous => "Anonymous",
            RegistryAuth::Header(_) => "Header(***)",
        })
    }
}

// === impl TaskState ===

impl TaskState {
    /// Reads the engine's name of a state.
    pub fn parse(text: &str) -> Option<TaskState> {
        Some(match text {
            "new" => TaskState::New,
            "allocated" => TaskState::Allocated,
            "pending" => TaskState::Pending,
            "assigned" => TaskState::Assigned,
            "accepted" => TaskState::Accepted,
            "preparing" => TaskState::Preparing,
            "ready" => TaskState::Ready,
            "starting" => TaskState::Starting,
            "running" => TaskState::Running,
            "complete" => TaskState::Complete,
            "shutdown" => TaskState::Shutdown,
            "failed" => TaskState::Failed,
            "rejected" => TaskState::Rejected,
            "remove" => TaskState::Remove,
            "orphaned" => TaskState::Orphaned,
            _ => return None,
        })
    }

    /// The engine's name of the state.
    pub const fn as_str(self) -> &'static str {
        match self {
            TaskState::New => "new",
            TaskState::Allocated => "allocated",
            TaskState::Pending => "pending",
            TaskState::Assigned => "assigned",
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "ready",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Complete => "complete",
            TaskState::Shutdown => "shutdown",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
            TaskState::Remove => "remove",
            TaskState::Orphaned => "orphaned",
        }
    }

    /// Whether the container can no longer run, by what its node last reported. On a dead node this proves nothing (S8).
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            TaskState::Complete
                | TaskState::Shutdown
                | TaskState::Failed
                | TaskState::Rejected
                | TaskState::Remove
                | TaskState::Orphaned
        )
    }
}

// === impl Service ===

impl Service {
    /// Full name, `stack_service` for one deployed by a stack.
    pub fn name(&self) -> &str {
        self.spec["Name"].as_str().unwrap_or_default()
    }

    /// Service labels (`deploy.labels` in a stack file).
    pub fn labels(&self) -> Labels {
        let labels = self.spec["Labels"].as_object();
        labels
            .map(|l| l.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect())
            .unwrap_or_default()
    }

    /// The stack that the service belongs to.
    pub fn stack(&self) -> Option<&str> {
        self.spec["Labels"]["com.docker.stack.namespace"].as_str()
    }

    /// Replicas wanted; none for global services.
    pub fn replicas(&self) -> Option<u64> {
        self.spec["Mode"]["Replicated"]
            .as_object()
            .map(|r| r.get("Replicas").and_then(Value::as_u64).unwrap_or(0))
    }

    /// Whether it is a job of Swarm's, which ends.
    pub fn is_job(&self) -> bool {
        let mode = &self.spec["Mode"];
        mode.get("ReplicatedJob").or(mode.get("GlobalJob")).is_some()
    }

    /// Whether a rollout is in progress: such a service must not be written to.
    pub fn is_rolling(&self) -> bool {
        matches!(
            self.update.as_ref().map(|u| u.state),
            Some(UpdateState::Updating | UpdateState::RollbackStarted)
        )
    }
}
