//! Drives one operation by one poll: read the journal, compute what comes next, do it, record it.
//!
//! Nothing is remembered between polls, so going on after a death is the normal path. Before a step has any effect its
//! record is written by compare-and-swap: a manager that is cut off cannot commit it, and a second driver is stale.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use tracing::{info, warn};

use super::backup::Backup;
use super::drill::Drill;
use super::expire::Expire;
use super::import::Import;
use super::journal::{Compensation, Next, Step, next};
use super::maintenance::Maintenance;
use super::point::Point;
use super::record::{BEING_UNDONE, JobRecordState, OpId, Operation, State, StepState, Work};
use super::report::Report;
use super::restart::Restart;
use super::restore::directory::RestoreDirectory;
use super::restore::part::{self, Part};
use super::restore::{Restore, Way};
use super::rollback::{self, Rollback};
use super::saga::{Cx, Env, Fault, Progress, Saga, Unwound, Wait, save};
use super::sleep::Sleep;
use super::update::Update;
use super::verify::Verify;
use super::wake::Wake;
use crate::swarm::error::Error;

/// When to look at the operation again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// When something changes.
    Idle,
    /// After a while.
    After(Duration),
}

/// Progress notes are written at most this often.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// The phase that people are told again when a step asks again.
const NEEDS_APPROVAL: &str = "needs-approval";
/// What a step saw longer ago than this no longer counts when it is approved.
const LATE_APPROVAL: Duration = Duration::from_secs(5 * 60);
/// After this time something that could not be tidied up is tried again.
const TIDY_AGAIN: Duration = Duration::from_secs(5);

/// Moves an operation on by one poll.
///
/// # Errors
/// What the engine says; the caller backs off and polls again.
pub async fn poll(env: &Env, id: &OpId) -> Result<Again, Error> {
    let config = match env.engine.config(&id.config_name()).await {
        Ok(config) => config,
        Err(Error::NotFound { .. }) => return Ok(Again::Idle),
        Err(other) => return Err(other),
    };
    let mut op = match Operation::read(&config) {
        Ok(op) => op,
        Err(unreadable) => {
            warn!(operation = %id, "not driven: {unreadable}");
            return Ok(Again::Idle);
        }
    };
    match op.journal.state {
        State::Succeeded | State::RolledBack | State::Failed | State::Cancelled | State::Stuck => {
            Ok(Again::Idle)
        }
        State::AwaitingApproval => after_approval(env, &mut op).await,
        State::Pending => begin(env, &mut op).await,
        State::Running => advance_kind(env, &mut op).await,
    }
}

/// As [`poll`], and then its parts, if it has any: for those who do not drive every operation that there is.
///
/// # Errors
/// As [`poll`].
pub async fn poll_whole(env: &Env, id: &OpId) -> Result<Again, Error> {
    let mut again = poll(env, id).await?;
    let mut parts = VecDeque::from(part::parts(&env.engine, id).await?);
    while let Some(part) = parts.pop_front() {
        again = match (again, poll(env, &part).await?) {
            (Again::Idle, other) | (other, Again::Idle) => other,
            (Again::After(one), Again::After(other)) => Again::After(one.min(other)),
        };
        // A part may have parts itself.
        parts.extend(part::parts(&env.engine, &part).await?);
    }
    Ok(again)
}

async fn after_approval(env: &Env, op: &mut Operation) -> Result<Again, Error> {
    if op.journal.cancel.is_some() && op.journal.steps.is_empty() {
        return end(env, op, State::Cancelled).await;
    }
    if op.journal.cancel.is_none() && op.journal.approved.is_none() {
        return Ok(Again::Idle);
    }
    look_again(env, op);
    enter(env, op, State::Running).await
}

/// What a step saw before it asked may have changed by the time that somebody approves: after a while it looks again.
fn look_again(env: &Env, op: &mut Operation) {
    let now = env.now();
    let asked = op.journal.steps.last_mut().filter(|(_, record)| record.state == StepState::Started);
    if let Some((_, record)) = asked
        && now.duration_since(record.changed).unsigned_abs() > LATE_APPROVAL
    {
        record.jobs.retain(|_, job| job.state != JobRecordState::Closed);
        record.began = now;
        record.changed = now;
    }
}

async fn begin(env: &Env, op: &mut Operation) -> Result<Again, Error> {
    if op.journal.cancel.is_some() {
        return end(env, op, State::Cancelled).await;
    }
    let ask = op.intent.approval && op.journal.approved.is_none();
    enter(env, op, if ask { State::AwaitingApproval } else { State::Running }).await
}

async fn enter(env: &Env, op: &mut Operation, state: State) -> Result<Again, Error> {
    op.journal.state = state;
    op.journal.holder = Some(env.settings.instance.clone());
    save(&env.engine, op).await?;
    info!(operation = %op.id, service = %op.intent.service, "{} is {}", op.title(), state.as_str());
    Ok(Again::After(Duration::ZERO))
}

async fn end(env: &Env, op: &mut Operation, state: State) -> Result<Again, Error> {
    op.journal.ended = Some(env.now());
    enter(env, op, state).await?;
    Ok(Again::Idle)
}

async fn advance_kind(env: &Env, op: &mut Operation) -> Result<Again, Error> {
    match op.intent.work.clone() {
        Work::Backup => kind(env, op, Backup).await,
        Work::Restore { .. } if op.part_of().is_some() => kind(env, op, Part { way: Way::of(op) }).await,
        Work::Restore { to, .. } => match Way::of(op) {
            Way::Beside => kind(env, op, Restore { in_place: false, recovers: to.is_some() }).await,
            Way::InPlace => kind(env, op, Restore { in_place: true, recovers: false }).await,
            Way::Directory => kind(env, op, RestoreDirectory).await,
        },
        Work::Drill { .. } => kind(env, op, Drill).await,
        Work::Maintenance { until } => kind(env, op, Maintenance { until }).await,
        Work::Expire => kind(env, op, Expire).await,
        Work::Report => kind(env, op, Report).await,
        Work::Verify { .. } => kind(env, op, Verify).await,
        Work::Import { .. } => kind(env, op, Import).await,
        Work::Point { .. } => kind(env, op, Point).await,
        Work::Sleep { .. } => kind(env, op, Sleep).await,
        Work::Wake => kind(env, op, Wake).await,
        Work::Restart { .. } => kind(env, op, Restart).await,
        Work::Update { .. } => kind(env, op, Update).await,
        Work::Rollback { only, .. } => {
            kind(env, op, Rollback { with_data: rollback::with_data(&only) }).await
        }
    }
}

/// One kind's way on. The steps of each are too large for the frame of a function that holds those of all, so they are put on
/// the heap in one of their own.
fn kind<'a, S: Saga + 'a>(
    env: &'a Env,
    op: &'a mut Operation,
    saga: S,
) -> Pin<Box<dyn Future<Output = Result<Again, Error>> + Send + 'a>> {
    Box::pin(async move { advance(env, op, &saga).await })
}

async fn advance<S: Saga>(env: &Env, op: &mut Operation, saga: &S) -> Result<Again, Error> {
    match next(&op.journal, saga.steps()) {
        Next::Run(step) => run(env, op, saga, step).await,
        Next::Undo(step) => undo(env, op, saga, step).await,
        Next::Finished => end(env, op, State::Succeeded).await,
        Next::Unwound { changed } => {
            let how = match (op.journal.cancel.is_some() && !has_failed(op), changed) {
                (true, _) => Unwound::Cancelled,
                (false, true) => Unwound::Changed,
                (false, false) => Unwound::Unchanged,
            };
            end(env, op, saga.unwound(op, how)).await
        }
        Next::Blocked(step) => {
            let mut cx = Cx { env, op, step: step.name() };
            match saga.make_safe(&mut cx).await {
                Ok(Progress::Wait(wait)) => Ok(Again::After(wait.again)),
                Ok(Progress::Done(_) | Progress::Approval { .. }) => block(env, op, saga.steps()).await,
                Err(Fault::Swarm(error)) if error.is_retryable() => Err(error),
                Err(fault) => {
                    cx.remark(format!("it could not be made safe for users either: {fault}"));
                    block(env, op, saga.steps()).await
                }
            }
        }
        Next::UndoFailed(_) => end(env, op, State::Stuck).await,
        Next::Unknown => {
            warn!(operation = %op.id, "not driven: its journal names steps that this version does not know");
            Ok(Again::Idle)
        }
    }
}

/// Waits for a person. Making things safe took back what the point of no return did, so a retry begins again there.
async fn block<S: Step>(env: &Env, op: &mut Operation, steps: &[S]) -> Result<Again, Error> {
    for step in steps.iter().filter(|s| s.compensation() == Compensation::PointOfNoReturn) {
        let record = op.journal.step_mut(step.name(), env.now());
        if record.state == StepState::Done {
            record.state = StepState::Failed;
            "taken back, since what came after it failed".clone_into(&mut record.note);
        }
    }
    end(env, op, State::Stuck).await
}

/// Whether a step has failed, also where it is undone by now.
fn has_failed(op: &Operation) -> bool {
    op.journal.steps.iter().any(|(_, r)| r.state == StepState::Failed || !r.reason.is_empty())
}

async fn run<S: Saga>(env: &Env, op: &mut Operation, saga: &S, step: S::Step) -> Result<Again, Error> {
    let name = step.name();
    if op.journal.step(name).is_none() {
        op.journal.step_mut(name, env.now());
        save(&env.engine, op).await?;
        info!(operation = %op.id, step = name, "begins");
    }
    let mut cx = Cx { env, op, step: name };
    match saga.run(step, &mut cx).await {
        Ok(Progress::Done(out)) => {
            cx.record().out = out;
            finish(env, op, name, StepState::Done, "").await
        }
        Ok(Progress::Wait(wait)) => {
            let began = cx.record().began;
            let again = unhurried(&wait, step.touches_live(), cx.since(began));
            note(env, op, name, Wait { again, ..wait }).await
        }
        Ok(Progress::Approval { why }) => {
            let record = op.journal.step_mut(name, env.now());
            record.note = why;
            record.changed = env.now();
            if op.journal.approved.take().is_some() {
                op.journal.told.remove(NEEDS_APPROVAL);
            }
            enter(env, op, State::AwaitingApproval).await
        }
        Err(fault) => match fault.ends_step() {
            Some(why) if step.only_tidies() => {
                warn!(operation = %op.id, step = name, "tried again: {why}");
                note(env, op, name, Wait { again: TIDY_AGAIN, ..Wait::new(why) }).await
            }
            Some(why) => {
                warn!(operation = %op.id, step = name, "failed: {why}");
                finish(env, op, name, StepState::Failed, &why).await
            }
            None => Err(retryable(fault)),
        },
    }
}

async fn undo<S: Saga>(env: &Env, op: &mut Operation, saga: &S, step: S::Step) -> Result<Again, Error> {
    let name = step.name();
    let now = env.now();
    let record = op.journal.step_mut(name, now);
    if record.state != StepState::Undoing {
        if record.state == StepState::Failed {
            record.reason.clone_from(&record.note);
        }
        record.state = StepState::Undoing;
        record.changed = now;
        record.note = undo_note(&record.reason, "");
        save(&env.engine, op).await?;
        info!(operation = %op.id, step = name, "is being undone");
    }
    let mut cx = Cx { env, op, step: name };
    match saga.undo(step, &mut cx).await {
        Ok(Progress::Done(_) | Progress::Approval { .. }) => {
            let reason = cx.record().reason.clone();
            finish(env, op, name, StepState::Undone, &reason).await
        }
        Ok(Progress::Wait(wait)) => {
            let why = undo_note(&cx.record().reason, &wait.why);
            note(env, op, name, Wait { why, ..wait }).await
        }
        Err(fault) => match fault.ends_step() {
            Some(why) => {
                warn!(operation = %op.id, step = name, "cannot be undone: {why}");
                finish(env, op, name, StepState::UndoFailed, &why).await
            }
            None => Err(retryable(fault)),
        },
    }
}

fn retryable(fault: Fault) -> Error {
    match fault {
        Fault::Swarm(error) => error,
        Fault::Failed(message) => Error::Malformed { what: "a step".to_owned(), message },
        Fault::Journal { step, source } => {
            Error::Malformed { what: format!("the journal of step `{step}`"), message: source.to_string() }
        }
    }
}

async fn finish(
    env: &Env,
    op: &mut Operation,
    step: &str,
    state: StepState,
    note: &str,
) -> Result<Again, Error> {
    let now = env.now();
    let record = op.journal.step_mut(step, now);
    record.state = state;
    record.changed = now;
    record.noted = None;
    record.percent = None;
    note.clone_into(&mut record.note);
    save(&env.engine, op).await?;
    info!(operation = %op.id, step, "is {state:?}");
    Ok(Again::After(Duration::ZERO))
}

/// The longer a step takes, the less often it is looked at; not where users wait for it.
fn unhurried(wait: &Wait, users_wait: bool, elapsed: Duration) -> Duration {
    let pause = if users_wait { Duration::ZERO } else { (elapsed / 20).min(Duration::from_secs(1)) };
    if wait.again.is_zero() { wait.again } else { wait.again.max(pause) }
}

/// What people read of a step that is being undone: why it failed, where it did, and what its undo waits for.
fn undo_note(reason: &str, waits: &str) -> String {
    match (reason.is_empty(), waits.is_empty()) {
        (true, true) => BEING_UNDONE.to_owned(),
        (true, false) => format!("{BEING_UNDONE}: {waits}"),
        (false, true) => reason.to_owned(),
        (false, false) => format!("{reason}; {BEING_UNDONE}: {waits}"),
    }
}

/// Tells people what a step waits for; not at every poll, since each write goes through raft.
async fn note(env: &Env, op: &mut Operation, step: &str, wait: Wait) -> Result<Again, Error> {
    let now = env.now();
    let record = op.journal.step_mut(step, now);
    let age = now.duration_since(record.noted.unwrap_or(record.changed)).unsigned_abs();
    if (record.note != wait.why || record.percent != wait.percent) && age >= NOTE_EVERY {
        record.note = wait.why;
        record.percent = wait.percent;
        record.noted = Some(now);
        save(&env.engine, op).await?;
    }
    Ok(Again::After(wait.again))
}
