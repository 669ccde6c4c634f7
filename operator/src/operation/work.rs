//! Jobs of a step, journaled so that dying anywhere leaves nothing that could run twice or for ever (S7).
//!
//! ```text
//! create ticket → journal its id → create service (refused once the ticket is gone) → observe
//!   → journal the outcome → remove service by id → remove ticket and secret → journal "closed"
//! ```
//! A leader that was paused anywhere in this row and wakes up late finds its compare-and-swap refused, or the ticket
//! gone; it cannot bring a closed job back.

use std::time::Duration;

use serde_json::json;
use skep_runner::line::FaultKind;
use skep_runner::{DATA_PATH, Fault as JobFault, Report, STORE_PATH, Task, Ticket};

use super::frozen::Target;
use super::record::{JobRecord, JobRecordState, SERVICE, SERVICE_ID};
use super::saga::{Cx, Fault, Wait};
use crate::engines::{Password, TEMPORARY_SECRET, env, postgres};
use crate::swarm::error::Error;
use crate::swarm::job::{self, JOB, JobSpec, JobState, SecretFile};
use crate::swarm::object::{KIND, Kind, Labels, OP, RegistryAuth};

/// How often a job that failed for a passing reason is tried.
const ATTEMPTS: u32 = 3;

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
    /// Whether it needs to see how much room the data has.
    pub data: bool,
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
    let record = cx.record().jobs.get(order.key).cloned();
    match record {
        None => {
            open(cx, order, 1, None).await?;
            Ok(Outcome::Wait(Wait::new("starting a job")))
        }
        Some(record) => match record.state {
            JobRecordState::Open => observe(cx, order, record).await,
            JobRecordState::Closing => {
                close(cx, order.key, &record).await?;
                Ok(Outcome::Wait(Wait { again: Duration::ZERO, ..Wait::new("cleaning up") }))
            }
            JobRecordState::Closed => closed(cx, order, record).await,
        },
    }
}

/// Ends and forgets every job of this step, whatever it is doing: before an undo, nothing of the step may still run.
/// Returns whether anything is left.
///
/// # Errors
/// What the engine says.
pub async fn abandon(cx: &mut Cx<'_>) -> Result<Option<Wait>, Fault> {
    end_all_but(cx, "").await?;
    let prefix = format!("skep-job-{}-{}-", cx.op.id, cx.step);
    let op = cx.op.id.to_string();
    let left = cx.engine().tasks_labelled(&[(OP, op.as_str())]).await?;
    let of_step = |t: &&crate::swarm::object::Task| {
        t.spec["ContainerSpec"]["Labels"][JOB].as_str().is_some_and(|name| name.starts_with(&prefix))
    };
    let running = left.iter().filter(of_step).filter(|t| !t.state.is_terminal()).count();
    Ok((running > 0).then(|| Wait::new(format!("{running} job(s) still ending"))))
}

/// Ends and forgets the jobs of this step, except the one of this key and those that take the step back.
///
/// # Errors
/// What the engine says.
pub async fn end_all_but(cx: &mut Cx<'_>, kept: &str) -> Result<(), Fault> {
    let jobs = cx.record().jobs.iter();
    let open = jobs.filter(|(key, r)| r.state != JobRecordState::Closed && *key != kept && !is_undo(key));
    let open: Vec<(String, JobRecord)> = open.map(|(k, r)| (k.clone(), r.clone())).collect();
    for (key, record) in open {
        close(cx, &key, &record).await?;
    }
    Ok(())
}

/// Whether a job takes its step back: its key says so.
pub fn is_undo(key: &str) -> bool {
    key.starts_with('u')
}

async fn closed(cx: &mut Cx<'_>, order: &Order<'_>, record: JobRecord) -> Result<Outcome, Fault> {
    if let Some(report) = record.report {
        return Ok(Outcome::Done(report));
    }
    let fault =
        record.fault.unwrap_or(JobFault { kind: FaultKind::Transient, message: "it was lost".to_owned() });
    if fault.kind == FaultKind::Final || record.attempt >= ATTEMPTS {
        return Ok(Outcome::Failed(fault));
    }
    let why = format!("attempt {} failed ({}); trying again", record.attempt, fault.message);
    open(cx, order, record.attempt + 1, Some(fault)).await?;
    Ok(Outcome::Wait(Wait::new(why)))
}

/// Makes the ticket (and the temporary secret) of an attempt, and journals them. The service comes with the next poll.
async fn open(
    cx: &mut Cx<'_>,
    order: &Order<'_>,
    attempt: u32,
    fault: Option<JobFault>,
) -> Result<(), Fault> {
    let name = job_name(cx, order.key, attempt);
    let ticket = Ticket {
        schema: skep_runner::SCHEMA,
        session: format!("skep-{}-{}-{}-{attempt}", cx.op.id, cx.step, order.key),
        fence: format!("skep-{}-{}-{}-", cx.op.id, cx.step, order.key),
        task: order.task.clone(),
    };
    let data =
        serde_json::to_vec(&ticket).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
    let labels = labels(cx, Kind::Ticket);
    let secret = match &order.target.access.password {
        Password::Env { variable } => {
            let value = env(&order.target.spec, variable).unwrap_or_default().as_bytes().to_vec();
            Some(match cx.engine().create_secret(&name, &labels, &value).await {
                Ok(id) => id,
                Err(Error::Exists { .. }) => cx.engine().secret_id(&name).await?,
                Err(other) => return Err(other.into()),
            })
        }
        Password::File | Password::Nowhere => None,
    };
    let ticket = match cx.engine().create_config(&name, &labels, &data).await {
        Ok(id) => id,
        Err(Error::Exists { .. }) => cx.engine().config(&name).await?.id,
        Err(other) => return Err(other.into()),
    };
    let record = JobRecord { attempt, ticket, secret, state: JobRecordState::Open, fault, report: None };
    cx.record().jobs.insert(order.key.to_owned(), record);
    cx.record().attempt = attempt;
    cx.save().await
}

async fn observe(cx: &mut Cx<'_>, order: &Order<'_>, record: JobRecord) -> Result<Outcome, Fault> {
    let name = job_name(cx, order.key, record.attempt);
    let service = match cx.engine().service(&name).await {
        Ok(service) => service.id,
        Err(Error::NotFound { .. }) => match create(cx, order, &record, &name).await {
            Ok(id) => id,
            Err(Fault::Swarm(Error::Refused { what, message })) => {
                let fault = JobFault { kind: FaultKind::Final, message: format!("{what}: {message}") };
                return settle(cx, order.key, record, Err(fault)).await;
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
        JobState::Complete { report } => settle(cx, order.key, record, Ok(report)).await,
        JobState::Failed { fault, .. } => settle(cx, order.key, record, Err(fault)).await,
        JobState::Lost { why, .. } => {
            let fault = JobFault { kind: FaultKind::Transient, message: format!("the job was lost: {why}") };
            settle(cx, order.key, record, Err(fault)).await
        }
    }
}

async fn past_deadline(
    cx: &mut Cx<'_>,
    order: &Order<'_>,
    record: JobRecord,
    wait: Wait,
) -> Result<Outcome, Fault> {
    // What takes a step back has its own time, however long the step took.
    let began = if is_undo(order.key) { cx.record().changed } else { cx.record().began };
    if cx.now().duration_since(began).unsigned_abs() < cx.env.settings.job_deadline {
        return Ok(Outcome::Wait(wait));
    }
    let message = format!("not finished within {} s", cx.env.settings.job_deadline.as_secs());
    settle(cx, order.key, record, Err(JobFault { kind: FaultKind::Final, message })).await
}

/// Journals the outcome, and with it that the job is to be removed.
async fn settle(
    cx: &mut Cx<'_>,
    key: &str,
    mut record: JobRecord,
    outcome: Result<Box<Report>, JobFault>,
) -> Result<Outcome, Fault> {
    match outcome {
        Ok(report) => record.report = Some(report),
        Err(fault) => record.fault = Some(fault),
    }
    record.state = JobRecordState::Closing;
    cx.record().jobs.insert(key.to_owned(), record.clone());
    cx.save().await?;
    close(cx, key, &record).await?;
    Ok(Outcome::Wait(Wait { again: Duration::ZERO, ..Wait::new("cleaning up") }))
}

async fn close(cx: &mut Cx<'_>, key: &str, record: &JobRecord) -> Result<(), Fault> {
    match cx.engine().service(&job_name(cx, key, record.attempt)).await {
        Ok(service) => cx.engine().remove_service(&service.id).await?,
        Err(Error::NotFound { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    cx.engine().remove_config(&record.ticket).await?;
    if let Some(secret) = &record.secret {
        cx.engine().remove_secret(secret).await?;
    }
    let mut record = record.clone();
    record.state = JobRecordState::Closed;
    cx.record().jobs.insert(key.to_owned(), record);
    cx.save().await
}

async fn create(cx: &mut Cx<'_>, order: &Order<'_>, record: &JobRecord, name: &str) -> Result<String, Fault> {
    let runner = job::ensure_runner(cx.engine(), &cx.env.runner).await?;
    let mut mounts = Vec::new();
    if let Some(access) = order.store {
        let store = cx.env.settings.stores.get(&order.target.store);
        let store =
            store.ok_or_else(|| Fault::failed(format!("there is no store `{}`", order.target.store)))?;
        mounts.push(store.mount(STORE_PATH, access == Access::Read));
    }
    if let Some(data) = postgres::data_mount(&order.target.spec).filter(|_| order.data) {
        let mut mount = data.clone();
        mount["Target"] = json!(DATA_PATH);
        mount["ReadOnly"] = json!(true);
        mounts.push(mount);
    }
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
        node: order.target.node.as_deref(),
        mounts,
        secrets: secret.into_iter().collect(),
        networks: Vec::new(),
        labels: labels(cx, Kind::Ticket),
    };
    Ok(job::ensure(cx.engine(), &spec, RegistryAuth::Anonymous).await?)
}

fn labels(cx: &Cx<'_>, kind: Kind) -> Labels {
    Labels::from([
        (KIND.to_owned(), kind.as_str().to_owned()),
        (OP.to_owned(), cx.op.id.to_string()),
        (SERVICE.to_owned(), cx.op.intent.service.clone()),
        (SERVICE_ID.to_owned(), cx.op.intent.service_id.clone()),
    ])
}

fn job_name(cx: &Cx<'_>, key: &str, attempt: u32) -> String {
    format!("skep-job-{}-{}-{key}-{attempt}", cx.op.id, cx.step)
}

fn percent(done: u64, total: Option<u64>) -> Option<u8> {
    let total = total.filter(|t| *t > 0)?;
    u8::try_from(done.min(total).saturating_mul(100) / total).ok()
}
