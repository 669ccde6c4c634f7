//! The lines that a job prints. Docker splits log lines at 16 KiB without a mark, so a report is cut
//! into numbered parts by the writer and joined by the reader.

use serde::{Deserialize, Serialize};

/// One line of a job's standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// How far the job is; informative only, at most about two a second.
    Progress(Progress),
    /// One part of the JSON of a [`crate::Report`], at most 8 KiB of text each.
    Report {
        /// Index of this part, from 0.
        part: u32,
        /// Number of parts.
        of: u32,
        /// A slice of the report's JSON text.
        text: String,
    },
    /// Why the job ends with a non-zero exit code; the last line of such a job.
    Fault(Fault),
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, for people: `dump`, `restore`, `checksum`, …
    pub phase: String,
    /// Bytes (or items) done so far.
    pub done: u64,
    /// Bytes (or items) in all, where known.
    pub total: Option<u64>,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Whether trying again can help.
    pub kind: FaultKind,
    /// One sentence for people, without secrets.
    pub message: String,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The server is starting, the network is away: the next attempt may succeed.
    Transient,
    /// Trying again changes nothing: the artefact is wrong, a role is missing.
    Final,
    /// Trying again changes nothing before something here is mended: there is no room, a login is refused. Says nothing
    /// about the artefact.
    Circumstance,
}
