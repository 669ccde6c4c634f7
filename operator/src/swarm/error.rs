//! What can go wrong when talking to the engine, classified once.

use thiserror::Error;

use crate::runtime::{Disposition, Fault};

/// A failed call.
#[derive(Debug, Error)]
pub enum Error {
    /// The object changed since it was read (`update out of sequence`, which Swarm answers as a 500): re-read and decide anew.
    #[error("{what}: it changed since it was read")]
    Stale {
        /// What was being done.
        what: String,
    },
    /// An object of that name exists (409): somebody, perhaps an earlier attempt, was first.
    #[error("{what}: it exists already")]
    Exists {
        /// What was being done.
        what: String,
    },
    /// No such object (404).
    #[error("{what}: there is no such object")]
    NotFound {
        /// What was being done.
        what: String,
    },
    /// The engine refuses the request (other 4xx, and 5xx that name an invalid argument): trying again changes nothing.
    #[error("{what}: the engine refuses it: {message}")]
    Refused {
        /// What was being done.
        what: String,
        /// The engine's message.
        message: String,
    },
    /// The engine cannot be reached, has no leader or no quorum. A read can simply be repeated.
    #[error("{what}: the engine cannot be reached: {message}")]
    Unreachable {
        /// What was being done.
        what: String,
        /// Cause.
        message: String,
    },
    /// A write got no answer: it may or may not have happened. Re-read before anything.
    #[error("{what}: no answer, so its outcome is unknown: {message}")]
    Unknown {
        /// What was being done.
        what: String,
        /// Cause.
        message: String,
    },
    /// This process no longer holds the lease, so the write was not sent (S19).
    #[error("{what}: not sent, because this process does not hold the lease")]
    Fenced {
        /// What was being done.
        what: String,
    },
    /// The answer could not be understood.
    #[error("{what}: the answer cannot be understood: {message}")]
    Malformed {
        /// What was being done.
        what: String,
        /// Cause.
        message: String,
    },
}

/// Whether a call changes something: decides its deadline and what silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Changes nothing.
    Read,
    /// Changes something.
    Write,
}

/// Why a request got no answer.
#[derive(Clone, Debug, Error)]
pub enum Failure {
    /// It never left, so it had no effect.
    #[error("{0}")]
    NotSent(String),
    /// It was sent, perhaps only half.
    #[error("{0}")]
    NoAnswer(String),
}

/// Texts in 5xx answers of an engine that cannot decide now: no leader, no quorum, a broken proxy connection.
const UNDECIDED: [&str; 9] = [
    "deadline",
    "context canceled",
    "leader",
    "code = Unavailable",
    "timeout",
    "timed out",
    "connection",
    "raft: stopped",
    "EOF",
];

// === impl Error ===

impl Error {
    /// Classifies an answer other than 2xx. The one place that knows which status and text means what.
    pub(super) fn from_answer(what: &str, effect: Effect, status: u16, message: &str) -> Error {
        let what = what.to_owned();
        let undecided = UNDECIDED.iter().any(|text| message.contains(text));
        let message = message.trim().to_owned();
        match status {
            404 => Error::NotFound { what },
            409 => Error::Exists { what },
            500.. if message.contains("update out of sequence") => Error::Stale { what },
            // The engine is no manager, or has no leader to pass the request on to: nothing was done.
            503 => Error::Unreachable { what, message },
            500.. if message.contains("does not have a leader") => Error::Unreachable { what, message },
            500.. if message.contains("raft message is too large") => Error::Refused { what, message },
            500.. if undecided => Error::from_failure(&what, effect, Failure::NoAnswer(message)),
            // An error that a manager decided on; the request had no effect (a bad constraint, for instance).
            500.. if message.contains("rpc error: code = ") => Error::Refused { what, message },
            500.. => Error::from_failure(&what, effect, Failure::NoAnswer(message)),
            _ => Error::Refused { what, message },
        }
    }

    /// Classifies silence: an unanswered write may have happened, an unanswered read is simply repeated.
    pub(super) fn from_failure(what: &str, effect: Effect, failure: Failure) -> Error {
        let what = what.to_owned();
        match (effect, failure) {
            (Effect::Write, Failure::NoAnswer(message)) => Error::Unknown { what, message },
            (Effect::Read, Failure::NoAnswer(message)) | (_, Failure::NotSent(message)) => {
                Error::Unreachable { what, message }
            }
        }
    }

    /// Whether reading anew and trying again, here or in the process that holds the lease, can succeed.
    /// A step that meets such an error has not failed; it is polled again.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Error::Stale { .. }
            | Error::Unreachable { .. }
            | Error::Unknown { .. }
            | Error::Fenced { .. } => true,
            Error::Exists { .. }
            | Error::NotFound { .. }
            | Error::Refused { .. }
            | Error::Malformed { .. } => false,
        }
    }

    /// Name of the class, from a closed set: for metrics.
    pub const fn category(&self) -> &'static str {
        match self {
            Error::Stale { .. } => "stale",
            Error::Exists { .. } => "exists",
            Error::NotFound { .. } => "not-found",
            Error::Refused { .. } => "refused",
            Error::Unreachable { .. } => "unreachable",
            Error::Unknown { .. } => "unknown",
            Error::Fenced { .. } => "fenced",
            Error::Malformed { .. } => "malformed",
        }
    }
}

impl Fault for Error {
    fn disposition(&self) -> Disposition {
        match self {
            Error::Stale { .. } | Error::Exists { .. } | Error::NotFound { .. } => Disposition::Conflict,
            Error::Unreachable { .. }
            | Error::Unknown { .. }
            | Error::Fenced { .. }
            | Error::Malformed { .. } => Disposition::Retry,
            Error::Refused { .. } => Disposition::Stop,
        }
    }

    fn category(&self) -> &'static str {
        Error::category(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(effect: Effect, status: u16, message: &str) -> &'static str {
        Error::from_answer("doing it", effect, status, message).category()
    }

    #[test]
    fn answers_are_classified_as_the_engine_means_them() {
        use Effect::{Read, Write};
        let table = [
            (Write, 500, "rpc error: code = Unknown desc = update out of sequence", "stale"),
            (Write, 409, "rpc error: code = AlreadyExists desc = config x already exists", "exists"),
            (Read, 404, "config x not found", "not-found"),
            (Write, 400, "invalid config version", "refused"),
            (
                Write,
                500,
                "rpc error: code = Unknown desc = raft: raft message is too large and can't be sent",
                "refused",
            ),
            (Write, 500, "rpc error: code = Unknown desc = expected one operator from [==, !=]", "refused"),
            (Write, 500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded", "unknown"),
            (Read, 500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded", "unreachable"),
            (Write, 500, "rpc error: code = Unknown desc = node lost leader status", "unknown"),
            (Write, 500, "rpc error: code = Unknown desc = The swarm does not have a leader.", "unreachable"),
            (Write, 503, "This node is not a swarm manager.", "unreachable"),
            (Write, 502, "", "unknown"),
            (Read, 500, "", "unreachable"),
        ];
        for (effect, status, message, wanted) in table {
            assert_eq!(class(effect, status, message), wanted, "{effect:?} {status} {message}");
        }
    }

    #[test]
    fn a_write_that_never_left_is_not_unknown() {
        let error = Error::from_failure("doing it", Effect::Write, Failure::NotSent("no socket".to_owned()));
        assert_eq!(error.category(), "unreachable");
        let error = Error::from_failure("doing it", Effect::Write, Failure::NoAnswer("cut".to_owned()));
        assert_eq!(error.category(), "unknown");
    }
}
