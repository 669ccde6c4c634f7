//! Jobs of a step, journaled so that dying anywhere leaves nothing that could run twice or for ever (S7).
//!
//! ```text
//! create ticket → journal its id → create service (refused once the ticket is gone) → observe
//!   → journal the outcome → remove service by id → remove ticket and secret → journal "closed"
//! ```
//! A leader that was paused anywhere in this row and wakes up late finds its compare-and-swap refused, or the ticket
//! gone; it cannot bring a closed job back.

mod abandon;
mod own;

use std::time::Duration;

use serde_json::{Value, json};
use skep_runner::line::FaultKind;
use skep_runner::{DATA_PATH, Fault as JobFault, Report, STORE_PATH, Task, Ticket};

pub use abandon::{abandon, end_all_but};
pub use own::{IDENTITY_PATH, NO_IDENTITY, OwnOrder, credentials_path};

use super::anchors;
use super::frozen::Target;
use super::record::{JobRecord, JobRecordState};
use super::saga::{Cx, Fault, Wait};
use crate::engines::{
    Data, Given, Password, TEMPORARY_SECRET, Use, env, given, live_files, postgres, secret_env,
};
use crate::swarm::error::Error;
use crate::swarm::job::{self, JobSpec, JobState, Reach, SecretFile};
use crate::swarm::object::{Kind, RegistryAuth};

/// How often a job that failed for a passing reason is tried; one that takes a step back is tried until it ends.
const ATTEMPTS: u32 = 3;
/// After its first failure a job that takes a step back waits this long, and twice as long after each further one …
const FIRST_UNDO_PAUSE: Duration = Duration::from_secs(1);
/// … but no longer than this.
const LONGEST_UNDO_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Whatever is waited for is looked at this often.
const LONGEST_LOOK: Duration = Duration::from_secs(10);
/// A node that does not answer is looked at this often.
const LOOK_AT_NODE: Duration = Duration::from_secs(1);

/// One job of a step.
pub struct Order<'a> {
    /// Tells the jobs of one step apart; `[a-z0-9]`, at most 8 characters.
    pub key: &'a str,
    /// The service that it works for.
    pub target: &'a Target,
    /// The work.
    pub task: Task,
    /// Whether it needs the backup store, and may write there.
    pub store: Option<Access>,
    /// Whether it needs to see how much room a PostgreSQL's data has. Other engines' tasks name what they need.
    pub data: bool,
}

/// A job, in the image of the service that it works for or in Skep's own.
#[derive(Clone, Copy)]
enum Job<'a> {
    OfService(&'a Order<'a>),
    Own(&'a OwnOrder<'a>),
}

/// How a job may use a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Read and write.
    Write,
}

/// How far a job is.
#[derive(Debug)]
pub enum Outcome {
    /// It finished, nothing of it is left, and this is what it said.
    Done(Box<Report>),
    /// Not yet.
    Wait(Wait),
    /// It failed for good, and nothing of it is left.
    Failed(JobFault),
}

/// Moves one job of the current step on.
///
/// # Errors
/// What the engine says; a failure of the job itself is an [`Outcome`].
pub async fn run(cx: &mut Cx<'_>, order: &Order<'_>) -> Result<Outcome, Fault> {
    advance(cx, Job::OfService(order)).await
}

/// Moves one job of the current step on that runs in Skep's own image.
///
/// # Errors
/// As [`run`]; a job that cannot be made, for want of Skep's image, a secret or a network, has failed.
pub async fn run_own(cx: &mut Cx<'_>, order: &OwnOrder<'_>) -> Result<Outcome, Fault> {
    advance(cx, Job::Own(order)).await
}

async fn advance(cx: &mut Cx<'_>, job: Job<'_>) -> Result<Outcome, Fault> {
    let record = match cx.record().jobs.get(job.key()).cloned() {
        Some(record) => record,
        None => open(cx, job, 1, None).await?,
    };
    match record.state {
        JobRecordState::Open => observe(cx, job, record).await,
        JobRecordState::Closing => closing(cx, job, record).await,
        JobRecordState::Closed => closed(cx, job, record).await,
    }
}

// === impl Job ===

impl Job<'_> {
    fn key(&self) -> &str {
        match self {
            Job::OfService(order) => order.key,
            Job::Own(order) => order.key,
        }
    }

    fn task(&self) -> Task {
        match self {
            Job::OfService(order) => order.task.clone(),
            Job::Own(order) => order.task(),
        }
    }

    /// Whether it writes files that nothing fences but its own end (S8).
    fn writes(&self) -> bool {
        match self {
            Job::OfService(order) => order.store == Some(Access::Write) || changes_live_data(&order.task),
            Job::Own(order) => order.writes(),
        }
    }

    /// The store to which it writes part of a backup, and the service that it works for. What only removes may do that in
    /// any place.
    fn written(&self) -> Option<(&Target, &str)> {
        match self {
            Job::OfService(order) => {
                let removes = matches!(order.task, Task::Discard(_) | Task::WalPrune(_));
                let writes = order.store == Some(Access::Write) && !removes;
                writes.then_some((order.target, order.target.store.as_str()))
            }
            Job::Own(order) => order.written().map(|store| (order.target, store)),
        }
    }

    /// What of its service's secrets reaches it as a temporary secret.
    fn secret(&self) -> Option<Vec<u8>> {
        match self {
            Job::OfService(order) => match reach(&order.task) {
                Reach::Service => secret_of(order.target),
                Reach::Nothing => None,
            },
            Job::Own(_) => None,
        }
    }
}

/// What of a service's secrets has to reach its jobs as a temporary secret (S15).
pub fn secret_of(target: &Target) -> Option<Vec<u8>> {
    match &target.access.password {
        Password::Env { variable } => {
            Some(env(&target.spec, variable).unwrap_or_default().as_bytes().to_vec())
        }
        Password::Command { after } => Some(match given(&target.spec, after) {
            Some(Given::Word(word)) => word.into_bytes(),
            Some(Given::Variable(_) | Given::File(_)) | None => Vec::new(),
        }),
        Password::Environment => Some(secret_env(&target.spec).join("\0").into_bytes()),
        Password::File | Password::Nowhere => None,
    }
}

/// Whether a job takes its step back: its key says so.
pub fn is_undo(key: &str) -> bool {
    key.starts_with('u')
}

/// Whether a step has a row of such jobs: their keys end with a number.
fn is_one_of_many(key: &str) -> bool {
    key.ends_with(|c: char| c.is_ascii_digit())
}

async fn closed(cx: &mut Cx<'_>, order: Job<'_>, record: JobRecord) -> Result<Outcome, Fault> {
    if let Some(report) = record.report {
        return Ok(Outcome::Done(report));
    }
    let fault =
        record.fault.unwrap_or(JobFault { kind: FaultKind::Transient, message: "it was lost".to_owned() });
    let is_undo = is_undo(order.key());
    if fault.kind != FaultKind::Transient || (record.attempt >= ATTEMPTS && !is_undo) {
        return Ok(Outcome::Failed(fault));
    }
    let failed = format!("attempt {} failed ({})", record.attempt, fault.message);
    if let Some(ended) = record.since.filter(|_| is_undo) {
        let due = ended + undo_pause(record.attempt);
        let left = due.duration_since(cx.now());
        if left.is_positive() {
            let again = left.unsigned_abs().min(LONGEST_LOOK);
            return Ok(Outcome::Wait(Wait { again, ..Wait::new(format!("{failed}; again at {due:.0}")) }));
        }
    }
    open(cx, order, record.attempt + 1, Some(fault)).await?;
    Ok(Outcome::Wait(Wait::new(format!("{failed}; trying again"))))
}

/// What takes a step back is tried for as long as it may help, but less and less often.
fn undo_pause(attempt: u32) -> Duration {
    let doubled = FIRST_UNDO_PAUSE * 2_u32.saturating_pow(attempt.saturating_sub(1).min(16));
    doubled.min(LONGEST_UNDO_PAUSE)
}

/// Makes the ticket (and the temporary secret) of an attempt, and journals them: only then may the service be created.
async fn open(
    cx: &mut Cx<'_>,
    order: Job<'_>,
    attempt: u32,
    fault: Option<JobFault>,
) -> Result<JobRecord, Fault> {
    let key = order.key();
    let name = job_name(cx, key, attempt);
    let of_step = format!("skep-{}-{}-", cx.op.id, cx.step);
    let of_key = format!("{of_step}{key}-");
    let ticket = Ticket {
        schema: skep_runner::SCHEMA,
        session: format!("{of_key}{attempt}"),
        // What takes a step back ends the sessions of everything that the step began.
        fence: if is_undo(key) { of_step } else { of_key },
        anchors: match order.written() {
            Some((target, store)) => anchors::find(cx, target, store).await?,
            None => None,
        },
        task: order.task(),
    };
    let labels = cx.labels(Kind::Ticket);
    let secret = match order.secret() {
        Some(secret) => Some(cx.engine().ensure_secret(&name, &labels, &secret).await?),
        None => None,
    };
    let ticket = match job::ensure_ticket(cx.engine(), &name, &ticket, &labels).await {
        Ok(ticket) => ticket,
        Err(error) => {
            // Nothing would know of it. Best effort: the first error is the one to tell.
            if let Some(secret) = &secret {
                let _gone = cx.engine().remove_secret(secret).await;
            }
            return Err(error.into());
        }
    };
    let record = JobRecord {
        attempt,
        ticket,
        secret,
        state: JobRecordState::Open,
        since: Some(cx.now()),
        writes: order.writes(),
        lost: None,
        fault,
        report: None,
    };
    cx.record().jobs.insert(key.to_owned(), record.clone());
    cx.record().attempt = attempt;
    cx.save().await?;
    Ok(record)
}

async fn observe(cx: &mut Cx<'_>, order: Job<'_>, record: JobRecord) -> Result<Outcome, Fault> {
    let name = job_name(cx, order.key(), record.attempt);
    let service = match cx.engine().service(&name).await {
        Ok(service) => service.id,
        Err(Error::NotFound { .. }) => match start(cx, order, &record, &name).await {
            Ok(id) => id,
            Err(Fault::Swarm(Error::Refused { what, message })) => {
                let fault = JobFault { kind: FaultKind::Circumstance, message: format!("{what}: {message}") };
                return settle(cx, order, record, Err(fault)).await;
            }
            // What people have to provide is not there: another attempt changes nothing, and nothing is left to remove.
            Err(Fault::Failed(message)) => {
                let fault = JobFault { kind: FaultKind::Circumstance, message };
                return settle(cx, order, record, Err(fault)).await;
            }
            Err(other) => return Err(other),
        },
        Err(other) => return Err(other.into()),
    };
    match job::observe(cx.engine(), &service).await? {
        JobState::Pending { why } => past_deadline(cx, order, record, Wait::new(why)).await,
        JobState::Running { progress, .. } => {
            let mut wait = Wait::new(progress.as_ref().map_or("working", |p| p.phase.as_str()));
            wait.percent = progress.and_then(|p| percent(p.done, p.total));
            past_deadline(cx, order, record, wait).await
        }
        JobState::Complete { report } => settle(cx, order, record, Ok(report)).await,
        JobState::Failed { fault, .. } => settle(cx, order, record, Err(fault)).await,
        JobState::Lost { may_run, why, .. } => {
            // Whatever an undo writes (it only removes files), a second one of it does no harm.
            if may_run && record.writes && !is_undo(order.key()) {
                return still_writing(cx, order, record, &why).await;
            }
            let fault = JobFault { kind: FaultKind::Transient, message: format!("the job was lost: {why}") };
            settle(cx, order, record, Err(fault)).await
        }
    }
}

/// A job that writes files may run on where nobody sees it. The next attempt would write to the same place, so the
/// node has to come back, or to be removed, first (S8).
async fn still_writing(
    cx: &mut Cx<'_>,
    order: Job<'_>,
    mut record: JobRecord,
    why: &str,
) -> Result<Outcome, Fault> {
    let Some(since) = record.lost else {
        record.lost = Some(cx.now());
        cx.record().jobs.insert(order.key().to_owned(), record);
        cx.save().await?;
        return Ok(Outcome::Wait(Wait::new(format!("{why}; the job there may still write files"))));
    };
    let message = format!("{why}, and a job there may still write files");
    if cx.since(since) < cx.env.settings.lost_deadline {
        return Ok(Outcome::Wait(Wait { again: LOOK_AT_NODE, ..Wait::new(message) }));
    }
    settle(cx, order, record, Err(JobFault { kind: FaultKind::Circumstance, message })).await
}

async fn past_deadline(
    cx: &mut Cx<'_>,
    order: Job<'_>,
    record: JobRecord,
    wait: Wait,
) -> Result<Outcome, Fault> {
    // What takes a step back has its own time, however long the step or an earlier attempt took; so has one of many.
    let own = record.since.filter(|_| is_undo(order.key()) || is_one_of_many(order.key()));
    let began = own.unwrap_or_else(|| cx.record().began);
    if cx.since(began) < cx.env.settings.job_deadline {
        return Ok(Outcome::Wait(wait));
    }
    let message = format!("not finished within {} s", cx.env.settings.job_deadline.as_secs());
    settle(cx, order, record, Err(JobFault { kind: FaultKind::Circumstance, message })).await
}

/// Journals the outcome, and with it that the job is to be removed.
async fn settle(
    cx: &mut Cx<'_>,
    order: Job<'_>,
    mut record: JobRecord,
    outcome: Result<Box<Report>, JobFault>,
) -> Result<Outcome, Fault> {
    match outcome {
        Ok(report) => record.report = Some(report),
        Err(fault) => record.fault = Some(fault),
    }
    record.state = JobRecordState::Closing;
    record.since = Some(cx.now());
    cx.record().jobs.insert(order.key().to_owned(), record.clone());
    cx.save().await?;
    closing(cx, order, record).await
}

async fn closing(cx: &mut Cx<'_>, order: Job<'_>, record: JobRecord) -> Result<Outcome, Fault> {
    match close(cx, order.key(), &record).await? {
        Some(wait) => Ok(Outcome::Wait(wait)),
        None => {
            closed(cx, order, JobRecord { state: JobRecordState::Closed, since: Some(cx.now()), ..record })
                .await
        }
    }
}

/// Removes what is left of a job, and journals that. What is refused because something still uses it is looked at again
/// for a while.
async fn close(cx: &mut Cx<'_>, key: &str, record: &JobRecord) -> Result<Option<Wait>, Fault> {
    match cx.engine().service(&job_name(cx, key, record.attempt)).await {
        Ok(service) => cx.engine().remove_service(&service.id).await?,
        Err(Error::NotFound { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    match remove_files(cx, record).await {
        Ok(()) => {}
        Err(Error::Refused { message, .. }) if is_recent(cx, record) => {
            return Ok(Some(Wait::new(format!("cleaning up: {message}"))));
        }
        Err(other) => return Err(other.into()),
    }
    let mut record = record.clone();
    record.state = JobRecordState::Closed;
    record.since = Some(cx.now());
    cx.record().jobs.insert(key.to_owned(), record);
    cx.save().await?;
    Ok(None)
}

/// Removes what is left of a job of the current step, whatever it is doing. Returns what is waited for, if anything.
///
/// # Errors
/// What the engine says.
pub async fn give_up(cx: &mut Cx<'_>, key: &str) -> Result<Option<Wait>, Fault> {
    match cx.record().jobs.get(key).cloned() {
        Some(record) if record.state != JobRecordState::Closed => close(cx, key, &record).await,
        Some(_) | None => Ok(None),
    }
}

async fn remove_files(cx: &Cx<'_>, record: &JobRecord) -> Result<(), Error> {
    cx.engine().remove_config(&record.ticket).await?;
    match &record.secret {
        Some(secret) => cx.engine().remove_secret(secret).await,
        None => Ok(()),
    }
}

fn is_recent(cx: &mut Cx<'_>, record: &JobRecord) -> bool {
    let changed = cx.record().changed;
    cx.since(record.since.map_or(changed, |since| since.max(changed))) < cx.env.settings.stop_deadline
}

async fn start(cx: &mut Cx<'_>, job: Job<'_>, record: &JobRecord, name: &str) -> Result<String, Fault> {
    match job {
        Job::OfService(order) => create(cx, order, record, name).await,
        Job::Own(order) => own::create(cx, order, record, name).await,
    }
}

async fn create(cx: &mut Cx<'_>, order: &Order<'_>, record: &JobRecord, name: &str) -> Result<String, Fault> {
    let runner = job::ensure_runner(cx.engine(), cx.env.runners.of(&order.task)).await?;
    let mut mounts = Vec::new();
    if let Some(access) = order.store {
        let store = cx.env.settings.mounted(&order.target.store).map_err(Fault::Failed)?;
        mounts.extend(store.mount(STORE_PATH, access == Access::Read));
    }
    mounts.extend(live_mounts(order));
    let node = match &order.target.node {
        Some(node) => Some(node.clone()),
        None => ready_node(cx, &order.target.has_image).await?,
    };
    let service = order.target.service();
    let secret = record.secret.as_ref().map(|id| SecretFile {
        id: id.clone(),
        name: name.to_owned(),
        file: TEMPORARY_SECRET.to_owned(),
    });
    let spec = JobSpec {
        name,
        ticket: &record.ticket,
        runner: &runner,
        service: &service,
        image: &order.target.image,
        node: node.as_deref(),
        mounts,
        secrets: secret.into_iter().collect(),
        reach: reach(&order.task),
        user: order.target.data.directory().and_then(|directory| directory.user(&order.task)),
        labels: cx.labels(Kind::Ticket),
    };
    Ok(job::ensure(cx.engine(), &spec, RegistryAuth::Anonymous).await?)
}

/// A drill in a server of the job's own has nothing to seek in the live service.
fn reach(task: &Task) -> Reach {
    match task {
        Task::CommandDrill(_) => Reach::Nothing,
        _ => Reach::Service,
    }
}

/// Whether it writes live data where nothing fences it but its own end (S8): files, or whatever a command writes to.
fn changes_live_data(task: &Task) -> bool {
    matches!(task, Task::CommandLoad(_)) || live_files(task).is_some_and(|(_, how)| how == Use::Write)
}

fn live_mounts(order: &Order<'_>) -> Vec<Value> {
    match &order.target.data {
        Data::Directory(directory) => directory.mounts(&order.task),
        Data::Command(data) => data.mounts(&order.task),
        Data::Postgres if order.data => {
            let mount = postgres::data_mount(&order.target.spec).cloned();
            let mount = mount.map(|mut mount| {
                mount["Target"] = json!(DATA_PATH);
                mount["ReadOnly"] = json!(true);
                mount
            });
            mount.into_iter().collect()
        }
        Data::Postgres | Data::None => Vec::new(),
    }
}

/// The first of these nodes that answers and takes tasks.
///
/// # Errors
/// What the engine says.
pub async fn ready_node(cx: &Cx<'_>, nodes: &[String]) -> Result<Option<String>, Fault> {
    if nodes.is_empty() {
        return Ok(None);
    }
    let ready: Vec<_> = cx.engine().nodes().await?.into_iter().filter(|n| n.ready && n.active).collect();
    Ok(nodes.iter().find(|id| ready.iter().any(|n| n.id == **id)).cloned())
}

fn job_name(cx: &Cx<'_>, key: &str, attempt: u32) -> String {
    format!("skep-job-{}-{}-{key}-{attempt}", cx.op.id, cx.step)
}

fn percent(done: u64, total: Option<u64>) -> Option<u8> {
    let total = total.filter(|t| *t > 0)?;
    u8::try_from(done.min(total).saturating_mul(100) / total).ok()
}
