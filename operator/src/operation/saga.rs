//! The frame in which every operation's steps run.
//!
//! A step is *polled*: it looks, does at most the next effect, and says whether it is done or what it waits for. It
//! may run twice, and die before or after every write it makes; what it chooses it journals before it uses it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use skep_runner::Task;
use skep_runner::task::Binary;
use thiserror::Error;

use super::journal::Step;
use super::record::{Operation, SERVICE, SERVICE_ID, State, StepRecord};
use super::report::Written;
use super::settings::Settings;
use crate::swarm;
use crate::swarm::engine::Engine;
use crate::swarm::object::{KIND, Kind, Labels, OP, OwnTask};

/// What operations work with.
#[derive(Clone)]
pub struct Env {
    /// The Swarm.
    pub engine: Engine,
    /// Settings.
    pub settings: Arc<Settings>,
    /// The static runner binaries.
    pub runners: Runners,
    /// The wall clock.
    pub clock: Clock,
    /// Writes operations up that have ended.
    pub reports: Writer,
}

/// The static runner binaries.
#[derive(Clone)]
pub struct Runners {
    databases: Arc<[u8]>,
    directories: Arc<[u8]>,
    log: Arc<[u8]>,
    services: Arc<[u8]>,
}

/// Writes an operation up; an error says why it cannot.
pub type Writer = Arc<dyn Fn(&Operation) -> Result<Written, String> + Send + Sync>;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How far a step is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Finished, with what later steps need to know.
    Done(Value),
    /// Not yet.
    Wait(Wait),
    /// A person must approve before it goes on.
    Approval {
        /// Why.
        why: String,
    },
}

/// What a step waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// For people.
    pub why: String,
    /// 0 to 100, where known.
    pub percent: Option<u8>,
    /// When to look again.
    pub again: Duration,
}

/// Why a step cannot go on.
#[derive(Debug, Error)]
pub enum Fault {
    /// The engine's answer; decides by itself whether it is retried.
    #[error("the Swarm did not do what was asked")]
    Swarm(#[from] swarm::error::Error),
    /// The step fails for good; what was done is taken back.
    #[error("{0}")]
    Failed(String),
    /// The record is not what this step wrote: a defect, or another version's.
    #[error("the journal of step `{step}` cannot be read")]
    Journal {
        /// Step name.
        step: String,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
}

/// A kind of operation.
pub trait Saga: Send + Sync {
    /// Its steps.
    type Step: Step;
    /// The steps in order.
    fn steps(&self) -> &'static [Self::Step];
    /// Runs a step, or runs on with it.
    fn run(&self, step: Self::Step, cx: &mut Cx<'_>) -> impl Future<Output = Result<Progress, Fault>> + Send;
    /// Takes a step back, whatever of it was done. Repeatable.
    fn undo(&self, step: Self::Step, cx: &mut Cx<'_>)
    -> impl Future<Output = Result<Progress, Fault>> + Send;
    /// After a failure past the point of no return: makes things safe for users (the page back up) before a person comes.
    fn make_safe(&self, cx: &mut Cx<'_>) -> impl Future<Output = Result<Progress, Fault>> + Send;
    /// The state in which it rests once everything that can be taken back is.
    fn unwound(&self, _op: &Operation, how: Unwound) -> State {
        how.state()
    }
}

/// Why and from where an operation went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwound {
    /// A person told it to.
    Cancelled,
    /// A step failed, after live data or users had been touched.
    Changed,
    /// A step failed before that.
    Unchanged,
}

/// What a step sees: the operation it belongs to and the Swarm.
pub struct Cx<'a> {
    /// Tools.
    pub env: &'a Env,
    /// The operation as last read or written.
    pub op: &'a mut Operation,
    /// Name of the current step.
    pub step: &'static str,
}

// === impl Env ===

impl Env {
    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// The task in whose container this runs; none where it runs outside of the Swarm.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn own_task(&self) -> Result<Option<OwnTask>, swarm::error::Error> {
        let here = rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.engine.task_of_container(&here).await
    }

    /// Skep's own image: as configured, else that of the task in whose container this runs; none where neither is known.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn own_image(&self) -> Result<Option<String>, swarm::error::Error> {
        match &self.settings.image {
            Some(image) => Ok(Some(image.clone())),
            None => Ok(self.own_task().await?.map(|own| own.image)),
        }
    }
}

// === impl Runners ===

impl Runners {
    /// All of them, as `read` gives their bytes.
    ///
    /// # Errors
    /// The first one of `read`.
    pub fn read<E>(mut read: impl FnMut(Binary) -> Result<Arc<[u8]>, E>) -> Result<Runners, E> {
        Ok(Runners {
            databases: read(Binary::Databases)?,
            directories: read(Binary::Directories)?,
            log: read(Binary::Log)?,
            services: read(Binary::Services)?,
        })
    }

    /// The one that does a task.
    pub fn of(&self, task: &Task) -> &[u8] {
        match task.binary() {
            Binary::Databases => &self.databases,
            Binary::Directories => &self.directories,
            Binary::Log => &self.log,
            Binary::Services => &self.services,
        }
    }
}

// === impl Progress ===

impl Progress {
    /// Done, with nothing to tell.
    pub fn done() -> Progress {
        Progress::Done(Value::Null)
    }

    /// Not yet; look again soon.
    pub fn wait(why: impl Into<String>) -> Progress {
        Progress::Wait(Wait::new(why))
    }
}

// === impl Wait ===

impl Wait {
    /// Waits, looking again after a short while.
    pub fn new(why: impl Into<String>) -> Wait {
        Wait { why: why.into(), percent: None, again: Duration::from_millis(100) }
    }

    /// Waits for all of these at once. `None` = there is none.
    pub fn for_all(waits: &[Wait]) -> Option<Wait> {
        let again = waits.iter().map(|wait| wait.again).min()?;
        let why: Vec<&str> = waits.iter().map(|wait| wait.why.as_str()).collect();
        Some(Wait { why: why.join("; "), percent: None, again })
    }
}

// === impl Unwound ===

impl Unwound {
    /// What it is called where everything is as it was before.
    pub const fn state(self) -> State {
        match self {
            Unwound::Cancelled => State::Cancelled,
            Unwound::Changed => State::RolledBack,
            Unwound::Unchanged => State::Failed,
        }
    }
}

// === impl Fault ===

impl Fault {
    /// A step that fails for good.
    pub fn failed(why: impl Into<String>) -> Fault {
        Fault::Failed(why.into())
    }

    /// The sentence to record when this ends a step; none when the step is to be tried again.
    pub fn ends_step(&self) -> Option<String> {
        match self {
            Fault::Failed(why) => Some(why.clone()),
            Fault::Swarm(swarm::error::Error::Refused { what, message }) => {
                Some(format!("{what}: {message}"))
            }
            Fault::Swarm(swarm::error::Error::Malformed { what, message }) => {
                Some(format!("{what}: {message}"))
            }
            Fault::Swarm(_) => None,
            Fault::Journal { step, source } => {
                Some(format!("the journal of step `{step}` cannot be read: {source}"))
            }
        }
    }
}

// === impl Cx ===

impl Cx<'_> {
    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.env.engine
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.env.now()
    }

    /// The task in whose container this runs; none where it runs outside of the Swarm.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn own_task(&self) -> Result<Option<OwnTask>, swarm::error::Error> {
        self.env.own_task().await
    }

    /// Labels of an object that belongs to this operation: it goes when the operation has ended.
    pub fn labels(&self, kind: Kind) -> Labels {
        Labels::from([
            (KIND.to_owned(), kind.as_str().to_owned()),
            (OP.to_owned(), self.op.id.to_string()),
            (SERVICE.to_owned(), self.op.intent.service.clone()),
            (SERVICE_ID.to_owned(), self.op.intent.service_id.clone()),
        ])
    }

    /// How long ago something was.
    pub fn since(&self, then: Timestamp) -> Duration {
        self.now().duration_since(then).unsigned_abs()
    }

    /// This step's record.
    pub fn record(&mut self) -> &mut StepRecord {
        let now = self.env.now();
        self.op.journal.step_mut(self.step, now)
    }

    /// What a step journaled; an error where it has journaled nothing of that shape.
    ///
    /// # Errors
    /// When the journal is of another shape.
    pub fn out<T: DeserializeOwned>(&self, step: &str) -> Result<T, Fault> {
        let out = self.op.journal.step(step).map_or(Value::Null, |r| r.out.clone());
        serde_json::from_value(out).map_err(|source| Fault::Journal { step: step.to_owned(), source })
    }

    /// What this step journaled so far, or the default where it has just begun.
    ///
    /// # Errors
    /// When the journal is of another shape.
    pub fn scratch<T: DeserializeOwned + Default>(&self) -> Result<T, Fault> {
        match self.op.journal.step(self.step) {
            Some(record) if !record.out.is_null() => self.out(self.step),
            _ => Ok(T::default()),
        }
    }

    /// Journals what this step has chosen, before it acts on it.
    ///
    /// # Errors
    /// When the journal was changed by somebody else, or the engine does not answer.
    pub async fn keep<T: Serialize>(&mut self, scratch: &T) -> Result<(), Fault> {
        let step = self.step;
        let out = serde_json::to_value(scratch)
            .map_err(|source| Fault::Journal { step: step.to_owned(), source })?;
        if self.record().out != out {
            self.record().out = out;
            self.save().await?;
        }
        Ok(())
    }

    /// Adds a remark for the report, once.
    pub fn remark(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.op.journal.remarks.contains(&text) {
            self.op.journal.remarks.push(text);
        }
    }

    /// Writes the journal by compare-and-swap and reads its new version.
    ///
    /// # Errors
    /// `Stale` when somebody else wrote it: everything decided on this reading is dropped.
    pub async fn save(&mut self) -> Result<(), Fault> {
        save(&self.env.engine, self.op).await?;
        Ok(())
    }
}

/// Writes an operation's journal by compare-and-swap and reads its new version.
///
/// # Errors
/// `Stale` when somebody else wrote it; otherwise what the engine says.
pub async fn save(engine: &Engine, op: &mut Operation) -> Result<(), swarm::error::Error> {
    let name = op.id.config_name();
    engine.relabel_config(&op.config, op.version, &name, &op.labels()).await?;
    let config = engine.config(&op.config).await?;
    let read = Operation::read(&config).map_err(|e| swarm::error::Error::Malformed {
        what: format!("read operation `{}` back", op.id),
        message: e.to_string(),
    })?;
    *op = read;
    Ok(())
}
