//! One-shot jobs: services with one replica that is never restarted, written once, observed, removed (S7, S8, S14).
//!
//! ```text
//! ticket (config) ─▶ create (409 = already under way) ─▶ observe … ─▶ remove the service ─▶ remove the ticket
//! ```
//!
//! Invariants: a job's spec is an allow-list, nothing else of the service it works for reaches it; a job whose
//! ticket is gone cannot be created again; success is the task state `complete` and nothing else; what runs on a
//! node that is down is lost, not stopped.

mod build;
mod judge;
mod told;

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use skep_runner::{Fault, Progress, Report, Ticket};
use tokio::time::sleep;

use self::judge::Stand;
use super::engine::Engine;
use super::error::Error;
use super::object::{KIND, Kind, Labels, ObjectRef, RegistryAuth, Service, Task};

pub use build::{build, build_own, node_constraint};
pub use told::{Told, read_log};

/// Container label of a job's task with the job's name: a task is still listed for a while when its service is gone.
pub const JOB: &str = "skep.job";
/// What the names of runner configs begin with.
pub const RUNNER_PREFIX: &str = "skep-runner-";
/// Progress lines are short and the newest counts.
const PROGRESS_LINES: u32 = 5;
/// Lines of other nodes may come a moment after the task's end; so often the log is read again for the report.
const REPORT_READS: u32 = 5;
const REPORT_PAUSE: Duration = Duration::from_millis(200);
/// All that makes a job.
#[derive(Clone, Debug)]
pub struct JobSpec<'a> {
    /// Name of the service, at most 63 characters. Also the name of the ticket.
    pub name: &'a str,
    /// Config id of the ticket.
    pub ticket: &'a str,
    /// The runner, from [`ensure_runner`].
    pub runner: &'a ObjectRef,
    /// The service that the job works for: user, environment and files are its.
    pub service: &'a Service,
    /// Image with digest, as the tasks of the service run it.
    pub image: &'a str,
    /// The node to run on; where absent, the service's own placement constraints hold.
    pub node: Option<&'a str>,
    /// Mounts, none of which come from the service by themselves.
    pub mounts: Vec<Value>,
    /// Secrets besides those of the service.
    pub secrets: Vec<SecretFile>,
    /// What of the service it can reach.
    pub reach: Reach,
    /// The user to run as; the service's own where absent.
    pub user: Option<&'a str>,
    /// Labels of the service object.
    pub labels: Labels,
}

/// What a job can reach of the service that it works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its networks, with its secrets.
    Service,
    /// Nothing: it joins no network of it, and gets none of its secrets.
    Nothing,
}

/// All that makes a job in Skep's own image.
#[derive(Clone, Debug)]
pub struct OwnSpec<'a> {
    /// Name of the service, at most 63 characters. Also the name of the ticket.
    pub name: &'a str,
    /// Config id of the ticket.
    pub ticket: &'a str,
    /// Skep's image.
    pub image: &'a str,
    /// The node to run on; any where absent.
    pub node: Option<&'a str>,
    /// Mounts.
    pub mounts: Vec<Value>,
    /// Secrets.
    pub secrets: Vec<SecretFile>,
    /// Network ids; the node's own way out where empty.
    pub networks: Vec<String>,
    /// Labels of the service object.
    pub labels: Labels,
}

/// A secret that a job gets besides those of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    /// Secret id.
    pub id: String,
    /// Secret name.
    pub name: String,
    /// Absolute path, or file name below `/run/secrets`.
    pub file: String,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState {
    /// Not running yet.
    Pending {
        /// The engine's reason, or the state.
        why: String,
    },
    /// Running.
    Running {
        /// Node id.
        node: String,
        /// How far it is, once it has told.
        progress: Option<Progress>,
    },
    /// Ended well.
    Complete {
        /// What it found or did.
        report: Box<Report>,
    },
    /// Ended badly. A job that ended well but whose report cannot be read is such a one too (transient).
    Failed {
        /// Why.
        fault: Fault,
        /// Exit code, where a container ran.
        exit: Option<i64>,
    },
    /// Ended by something other than itself, or out of sight.
    Lost {
        /// Node id.
        node: Option<String>,
        /// Whether it may still be running (S8): the node is out of reach.
        may_run: bool,
        /// What happened.
        why: String,
    },
}

/// Stores the runner, unless it is there already. Its name is that of its contents.
///
/// # Errors
/// When the engine cannot be asked or refuses it (a runner must be smaller than 1,024,000 bytes).
pub async fn ensure_runner(engine: &Engine, binary: &[u8]) -> Result<ObjectRef, Error> {
    let name = runner_name(binary);
    let labels = Labels::from([(KIND.to_owned(), Kind::Runner.as_str().to_owned())]);
    // Looked for first: the usual case is that it is there, and a list by label and name carries no megabyte upwards.
    match engine.config_id(&name).await {
        Ok(id) => Ok(ObjectRef { id, name }),
        Err(Error::NotFound { .. }) => {
            Ok(ObjectRef { id: engine.ensure_config(&name, &labels, binary).await?, name })
        }
        Err(error) => Err(error),
    }
}

/// Stores the ticket of a job and answers its config id, also when an earlier try has stored it.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn ensure_ticket(
    engine: &Engine,
    name: &str,
    ticket: &Ticket,
    labels: &Labels,
) -> Result<String, Error> {
    let data = serde_json::to_vec(ticket).expect("a ticket has only JSON-able fields");
    engine.ensure_config(name, labels, &data).await
}

/// Creates the job, unless it is there already, and answers its service id. The ticket must have been journaled
/// before (S7).
///
/// # Errors
/// [`Error::Refused`] when its ticket is gone: the step was closed.
pub async fn ensure(engine: &Engine, job: &JobSpec<'_>, auth: RegistryAuth) -> Result<String, Error> {
    match engine.create_service(&build(job), auth).await {
        Err(Error::Exists { .. }) => Ok(engine.service(job.name).await?.id),
        result => result,
    }
}

/// As [`ensure`], of a job in Skep's own image.
///
/// # Errors
/// [`Error::Refused`] when its ticket is gone: the step was closed.
pub async fn ensure_own(engine: &Engine, job: &OwnSpec<'_>, auth: RegistryAuth) -> Result<String, Error> {
    match engine.create_service(&build_own(job), auth).await {
        Err(Error::Exists { .. }) => Ok(engine.service(job.name).await?.id),
        result => result,
    }
}

/// Where a job stands.
///
/// # Errors
/// [`Error::NotFound`] when the service is gone.
pub async fn observe(engine: &Engine, service_id: &str) -> Result<JobState, Error> {
    let tasks = engine.tasks(&[service_id]).await?;
    let Some(task) = tasks.into_iter().max_by_key(|t| t.created) else {
        engine.service(service_id).await?;
        return Ok(JobState::Pending { why: "no task yet".to_owned() });
    };
    let nodes = if judge::needs_nodes(&task) { engine.nodes().await? } else { Vec::new() };
    match judge::stand(&task, &nodes) {
        Stand::Pending { why } => Ok(JobState::Pending { why }),
        Stand::Lost { may_run, why } => Ok(JobState::Lost { node: task.node, may_run, why }),
        Stand::Running => {
            // A log that cannot be read now only means that no progress is shown.
            let log = engine.last_logs(service_id, Some(PROGRESS_LINES)).await.unwrap_or_default();
            Ok(JobState::Running { node: task.node.unwrap_or_default(), progress: read_log(&log).progress })
        }
        Stand::Complete => Ok(judge::completed(told(engine, &task, true).await?)),
        Stand::Failed => Ok(judge::failed(&task, told(engine, &task, false).await?.fault)),
    }
}

/// Removes a job: the service, then its ticket, then its secrets. All by id; what is gone already is fine.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn close(engine: &Engine, service_id: &str, ticket: &str, secrets: &[&str]) -> Result<(), Error> {
    engine.remove_service(service_id).await?;
    engine.remove_config(ticket).await?;
    for secret in secrets {
        engine.remove_secret(secret).await?;
    }
    Ok(())
}

/// Name of the runner's config.
pub fn runner_name(binary: &[u8]) -> String {
    let digest = Sha256::digest(binary);
    let hash: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{RUNNER_PREFIX}{hash}")
}

/// What an ended job has told. The log of a node that is away cannot be read: then it told nothing.
async fn told(engine: &Engine, task: &Task, report_wanted: bool) -> Result<Told, Error> {
    for reads_left in (0..REPORT_READS).rev() {
        let told = match engine.logs(&task.service).await {
            Ok(log) => read_log(&log),
            Err(error) if error.is_retryable() && is_away(engine, task).await? => return Ok(Told::default()),
            Err(error) => return Err(error),
        };
        if told.report.is_some() || told.fault.is_some() || reads_left == 0 || !report_wanted {
            return Ok(told);
        }
        sleep(REPORT_PAUSE).await;
    }
    Ok(Told::default())
}

async fn is_away(engine: &Engine, task: &Task) -> Result<bool, Error> {
    let nodes = engine.nodes().await?;
    Ok(!nodes.iter().any(|n| n.ready && Some(&n.id) == task.node.as_ref()))
}
