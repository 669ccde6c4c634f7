//! The record of one step, and of its jobs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The note of a step that is being undone, or how the note goes on after the reason.
pub const BEING_UNDONE: &str = "being undone";

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
    /// Why it failed; stays while it is taken back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When its note was last written, other than with its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted: Option<Timestamp>,
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
    /// When its state last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Whether it writes files: there nothing fences it but its own end (S8).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writes: bool,
    /// Since when its node has been out of reach, so that it may still run (S8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Timestamp>,
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
            reason: String::new(),
            noted: None,
            percent: None,
            out: Value::Null,
            jobs: BTreeMap::new(),
        }
    }
}

const fn one() -> u32 {
    1
}
