//! What can go wrong when talking to the engine, classified once.

use thiserror::Error;

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
