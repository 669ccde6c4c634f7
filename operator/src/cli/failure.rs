//! What goes wrong, for people: what it was, why, and what to do; and what the process exits with.

use std::error::Error as StdError;
use std::process::ExitCode;

use thiserror::Error;

use super::host::HostError;
use super::settings::BadSettings;
use crate::notify;
use crate::operation::desk::Refusal;
use crate::operation::record::State;
use crate::swarm;
use crate::triggers::intake::Unstored;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As wanted.
    Fine,
    /// An operation failed, was rolled back or cancelled; or the engine did not answer; or a check found problems.
    Failed,
    /// The command makes no sense, or was refused.
    Refused,
    /// An operation is stuck: a person is needed.
    Stuck,
    /// An operation waits for approval.
    Approval,
    /// Interrupted from the keyboard; the operation goes on.
    Detached,
}

/// Why a command could not do what it was asked.
#[derive(Debug, Error)]
pub enum Failure {
    /// What was asked makes no sense here.
    #[error("{what}")]
    Refused {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// No engine.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Settings.
    #[error(transparent)]
    Settings(#[from] BadSettings),
    /// The desk does not grant it.
    #[error(transparent)]
    Desk(#[from] Refusal),
    /// What the guards remember of alerts.
    #[error("what is remembered of its alerts could not be changed")]
    Guard(#[from] Unstored),
    /// The engine's answer.
    #[error(transparent)]
    Swarm(#[from] swarm::error::Error),
    /// A report that cannot be written.
    #[error("the report cannot be written")]
    Report(#[from] notify::message::Error),
    /// Input or output.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

// === impl Exit ===

impl Exit {
    /// The number that the process exits with.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Refused => 2,
            Exit::Stuck => 3,
            Exit::Approval => 4,
            Exit::Detached => 130,
        }
    }

    /// How following an operation that has come to rest in this state ends.
    pub const fn of(state: State) -> Exit {
        match state {
            State::Succeeded => Exit::Fine,
            State::RolledBack | State::Failed | State::Cancelled => Exit::Failed,
            State::Stuck => Exit::Stuck,
            State::AwaitingApproval => Exit::Approval,
            State::Pending | State::Running => Exit::Detached,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

// === impl Failure ===

impl Failure {
    /// Something that makes no sense here.
    pub fn refused(what: impl Into<String>) -> Failure {
        Failure::Refused { what: what.into(), hint: None }
    }

    /// Something that makes no sense here, and what would.
    pub fn refused_but(what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::Refused { what: what.into(), hint: Some(hint.into()) }
    }

    /// What the process exits with.
    pub const fn exit(&self) -> Exit {
        match self {
            Failure::Refused { .. }
            | Failure::Host(_)
            | Failure::Settings(_)
            | Failure::Desk(Refusal::Absent(_) | Refusal::State { .. }) => Exit::Refused,
            Failure::Desk(Refusal::Swarm(_))
            | Failure::Guard(_)
            | Failure::Swarm(_)
            | Failure::Report(_)
            | Failure::Io { .. } => Exit::Failed,
        }
    }

    /// The whole story, for stderr: what, why, and what to do about it.
    pub fn story(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        match self.hint() {
            Some(hint) => format!("skep: {text}\n      {hint}"),
            None => format!("skep: {text}"),
        }
    }

    fn hint(&self) -> Option<String> {
        let error = match self {
            Failure::Refused { hint, .. } => return hint.clone(),
            Failure::Desk(Refusal::Absent(_)) => return Some("`skep ops` lists them".to_owned()),
            Failure::Swarm(error) | Failure::Desk(Refusal::Swarm(error)) => error,
            Failure::Host(_)
            | Failure::Settings(_)
            | Failure::Desk(_)
            | Failure::Guard(_)
            | Failure::Report(_)
            | Failure::Io { .. } => return None,
        };
        let hint = match error {
            swarm::error::Error::Unreachable { .. } => {
                "is the engine there, is it a manager of a swarm, and may you use it? --host, --context, \
                 DOCKER_HOST and DOCKER_CONTEXT say which one is asked"
            }
            swarm::error::Error::Unknown { .. } => {
                "look whether it happened (`skep ops`) before asking again"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_says_what_and_why_and_what_to_do() {
        let error =
            swarm::error::Error::Unreachable { what: "listing".to_owned(), message: "refused".to_owned() };
        let story = Failure::Desk(Refusal::Swarm(error)).story();
        assert!(story.starts_with("skep: the operation could not be stored: listing: the engine"), "{story}");
        assert!(story.contains("\n      is the engine there"), "{story}");
        assert_eq!(Failure::refused_but("no", "yes").story(), "skep: no\n      yes");
    }

    #[test]
    fn the_exit_code_is_the_outcome() {
        let codes: Vec<u8> = State::ALL.iter().map(|s| Exit::of(*s).code()).collect();
        assert_eq!(codes, [130, 4, 130, 0, 1, 1, 1, 3]);
    }
}
