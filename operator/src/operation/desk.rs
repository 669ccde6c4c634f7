//! What people and triggers may do with operations: ask for one, approve, cancel, retry. Everything else is driven.

use jiff::Timestamp;
use thiserror::Error;

use super::record::{Intent, JobRecordState, Journal, OpId, Operation, State, StepRecord, StepState};
use super::saga::save;
use super::work::is_undo;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::Kind;

/// Why a request about an operation is not granted.
#[derive(Debug, Error)]
pub enum Refusal {
    /// There is no such operation, or it cannot be read.
    #[error("there is no operation `{0}`")]
    Absent(String),
    /// Its state does not allow it.
    #[error("operation `{id}` is {state}: {why}")]
    State {
        /// Id.
        id: OpId,
        /// State.
        state: &'static str,
        /// Why that stands against it.
        why: &'static str,
    },
    /// The engine's answer.
    #[error("the operation could not be stored")]
    Swarm(#[from] Error),
}

/// Times that a change is tried when others write the same journal.
const TRIES: u32 = 10;

/// Stores a new operation. One of the same id means that the same was asked for before: that one is answered, and
/// `false`.
///
/// # Errors
/// What the engine says.
pub async fn create(engine: &Engine, id: &OpId, intent: Intent) -> Result<(Operation, bool), Refusal> {
    let state = if intent.approval { State::AwaitingApproval } else { State::Pending };
    let intent = Intent { schema: intent.work.schema(), ..intent };
    let data = serde_json::to_vec(&intent).expect("an intent has only JSON-able fields");
    let new =
        Operation { id: id.clone(), config: String::new(), version: 0, intent, journal: Journal::new(state) };
    let created = match engine.create_config(&id.config_name(), &new.labels(), &data).await {
        Ok(_) => true,
        Err(Error::Exists { .. }) => false,
        Err(other) => return Err(other.into()),
    };
    Ok((find(engine, id).await?, created))
}

/// Reads one operation.
///
/// # Errors
/// When there is none, or what the engine says.
pub async fn find(engine: &Engine, id: &OpId) -> Result<Operation, Refusal> {
    match engine.config(&id.config_name()).await {
        Ok(config) => Operation::read(&config).map_err(|_| Refusal::Absent(id.to_string())),
        Err(Error::NotFound { .. }) => Err(Refusal::Absent(id.to_string())),
        Err(other) => Err(other.into()),
    }
}

/// All operations that can be read, oldest first.
///
/// # Errors
/// What the engine says.
pub async fn list(engine: &Engine) -> Result<Vec<Operation>, Error> {
    let configs = engine.configs(Kind::Operation, &[]).await?;
    let mut operations: Vec<_> = configs.iter().filter_map(|c| Operation::read(c).ok()).collect();
    operations.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(operations)
}

/// Lets an operation that waits for it begin or go on.
///
/// # Errors
/// When it does not wait, or what the engine says.
pub async fn approve(engine: &Engine, id: &OpId, who: &str) -> Result<Operation, Refusal> {
    edit(engine, id, |op| match op.journal.state {
        State::AwaitingApproval => {
            op.journal.approved = Some(who.to_owned());
            Ok(())
        }
        _ => Err("it does not wait for approval"),
    })
    .await
}

/// Asks an operation to go back and end.
///
/// # Errors
/// When it has ended, or what the engine says.
pub async fn cancel(engine: &Engine, id: &OpId, who: &str) -> Result<Operation, Refusal> {
    edit(engine, id, |op| match op.journal.state {
        _ if op.part_of().is_some() => Err("it is a part of another operation: cancel that one"),
        State::Pending | State::AwaitingApproval | State::Running => {
            op.journal.cancel = Some(who.to_owned());
            Ok(())
        }
        _ => Err("it has ended"),
    })
    .await
}

/// Tries the step again at which an operation is stuck. One that has gone back as far as it could begins anew: what stands
/// now is what it goes back to next time.
///
/// # Errors
/// When it is not stuck, or what the engine says.
pub async fn retry(engine: &Engine, id: &OpId, now: Timestamp) -> Result<Operation, Refusal> {
    edit(engine, id, |op| {
        if op.journal.state != State::Stuck {
            return Err("only a stuck operation can be retried");
        }
        let can_retry = |r: &StepRecord| matches!(r.state, StepState::Failed | StepState::UndoFailed);
        if !op.journal.steps.iter().any(|(_, r)| can_retry(r)) {
            op.journal.steps.clear();
            op.journal.cancel = None;
        }
        for (_, record) in &mut op.journal.steps {
            record.state = match record.state {
                StepState::Failed => StepState::Started,
                StepState::UndoFailed => StepState::Undoing,
                other => other,
            };
            if matches!(record.state, StepState::Started | StepState::Undoing) {
                let undoing = record.state == StepState::Undoing;
                record.began = now;
                record.changed = now;
                record.noted = None;
                if !undoing {
                    record.reason.clear();
                }
                // What the step did forward stays on record: an undo reads from it what there is to undo.
                record.jobs.retain(|key, j| j.state != JobRecordState::Closed || (undoing && !is_undo(key)));
            }
        }
        op.journal.state = State::Running;
        op.journal.ended = None;
        op.journal.told.remove("stuck");
        Ok(())
    })
    .await
}

/// Cancels an operation exactly as it was read.
///
/// # Errors
/// `Stale` when it has moved since; otherwise what the engine says.
pub async fn cancel_at(engine: &Engine, mut op: Operation, who: &str) -> Result<(), Error> {
    op.journal.cancel = Some(who.to_owned());
    save(engine, &mut op).await
}

/// Edits an operation's journal by compare-and-swap, reading it anew where others write it too.
///
/// # Errors
/// When there is no such operation, the edit refuses, or what the engine says.
pub async fn edit(
    engine: &Engine,
    id: &OpId,
    change: impl Fn(&mut Operation) -> Result<(), &'static str>,
) -> Result<Operation, Refusal> {
    for _ in 0..TRIES {
        let mut op = find(engine, id).await?;
        let state = op.journal.state.as_str();
        change(&mut op).map_err(|why| Refusal::State { id: id.clone(), state, why })?;
        match save(engine, &mut op).await {
            Ok(()) => return Ok(op),
            Err(Error::Stale { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(Error::Stale { what: format!("changing operation `{id}`") }.into())
}
