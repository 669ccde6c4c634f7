//! Why the runner cannot do what a ticket asks, and whether another attempt may help.
//!
//! Messages are for people and name the object; a source's text is not part of the message, the edge
//! ([`Error::chain`]) joins them. Secrets are taken out where lines are printed, not here.

use std::io;

use crate::line::FaultKind;
use thiserror::Error;

/// What every fallible function of the runner returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a task ends early.
#[derive(Debug, Error)]
pub enum Error {
    /// Trying again changes nothing.
    #[error("{0}")]
    Refused(String),
    /// Trying again changes nothing before there is room again.
    #[error("{0}")]
    NoRoom(String),
    /// Trying again changes nothing before people have changed what stands around it: rights, names, keys.
    #[error("{0}")]
    Barred(String),
    /// The next attempt may succeed.
    #[error("{0}")]
    Unready(String),
    /// A file or a socket.
    #[error("{what}")]
    Io {
        /// What was being done, with the object's name.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A tool of the image ended with a failure.
    #[error("{tool} failed ({status}): {said}")]
    Tool {
        /// Name of the tool.
        tool: String,
        /// Exit status, for people.
        status: String,
        /// The last lines of its standard error.
        said: String,
    },
    /// The server refused a statement.
    #[error("the server answered: {message}")]
    Sql {
        /// SQLSTATE.
        state: String,
        /// The server's message.
        message: String,
    },
    /// SIGTERM.
    #[error("the job was told to stop")]
    Stopped,
}

// === impl Error ===

impl Error {
    /// A final fault in one sentence.
    pub fn refused(why: impl Into<String>) -> Error {
        Error::Refused(why.into())
    }

    /// Names what was being done when `source` happened.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// As [`Error::io`], of a bare error number.
    pub(crate) fn errno(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Error {
        move |source| Error::Io { what: what.to_owned(), source: source.into() }
    }

    /// Whether another attempt may help.
    pub fn kind(&self) -> FaultKind {
        let (transient, here) = match self {
            Error::Refused(_) => (false, false),
            Error::NoRoom(_) | Error::Barred(_) => (false, true),
            Error::Unready(_) | Error::Stopped => (true, false),
            Error::Io { source, .. } => (!is_final_io(source.kind()), is_here_io(source.kind())),
            Error::Tool { said, .. } => (is_transient_text(said), is_here_text(said)),
            Error::Sql { state, .. } => (is_transient_state(state), is_here_state(state)),
        };
        match (transient, here) {
            (true, _) => FaultKind::Transient,
            (false, true) => FaultKind::Circumstance,
            (false, false) => FaultKind::Final,
        }
    }

    /// The message followed by those of its sources.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}

fn is_final_io(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as K;
    matches!(
        kind,
        K::NotFound
            | K::PermissionDenied
            | K::StorageFull
            | K::ReadOnlyFilesystem
            | K::NotADirectory
            | K::InvalidInput
            | K::InvalidData
    )
}

/// Final, but not for what the artefact is.
fn is_here_io(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as K;
    matches!(kind, K::PermissionDenied | K::StorageFull | K::ReadOnlyFilesystem)
}

/// A full disk; a refused login.
fn is_here_state(state: &str) -> bool {
    state == "53100" || state.starts_with("28")
}

fn is_here_text(said: &str) -> bool {
    const HERE: [&str; 4] = [
        "No space left on device",
        "authentication failed",
        "no pg_hba.conf entry",
        "could not open extension control file",
    ];
    // What a dump takes for granted, since it holds nothing of it.
    const ABSENT: [(&str, &str); 3] = [
        ("ERROR:  role \"", "does not exist"),
        ("ERROR:  tablespace \"", "does not exist"),
        ("ERROR:  extension \"", "is not available"),
    ];
    let is_absent = |line: &str| ABSENT.iter().any(|(what, how)| line.contains(what) && line.contains(how));
    HERE.iter().any(|text| said.contains(text)) || said.lines().any(is_absent)
}

/// By SQLSTATE class: connection, resources (but a full disk), rollbacks, locks, shutdown, system errors.
fn is_transient_state(state: &str) -> bool {
    match state {
        "53100" => false,
        "55006" | "55P03" | "57014" => true,
        _ => ["08", "40", "53", "57P", "58"].iter().any(|class| state.starts_with(class)),
    }
}

/// The tools print no SQLSTATE: what they say decides. A refused login stays refused.
fn is_transient_text(said: &str) -> bool {
    const REFUSED: [&str; 5] = [
        "authentication failed",
        "no pg_hba.conf entry",
        "does not exist",
        "permission denied",
        "not currently accepting connections",
    ];
    const AWAY: [&str; 8] = [
        "connection to server",
        "could not connect",
        "could not translate host name",
        "server closed the connection",
        "terminating connection",
        "the database system is",
        "lost synchronization",
        "deadlock detected",
    ];
    !REFUSED.iter().any(|text| said.contains(text)) && AWAY.iter().any(|text| said.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(said: &str) -> FaultKind {
        Error::Tool { tool: "psql".into(), status: "exit status: 2".into(), said: said.into() }.kind()
    }

    #[test]
    fn a_starting_or_absent_server_is_worth_another_attempt() {
        for said in [
            "psql: error: connection to server at \"db\" (10.0.0.2), port 5432 failed: Connection refused",
            "psql: error: connection to server at \"db\", port 5432 failed: FATAL:  the database system is starting up",
            "psql: error: could not translate host name \"db\" to address: Name does not resolve",
            "pg_restore: error: could not execute query: FATAL:  terminating connection due to administrator command",
        ] {
            assert_eq!(tool(said), FaultKind::Transient, "{said}");
        }
    }

    #[test]
    fn a_database_or_a_table_that_is_absent_is_final() {
        for said in [
            "psql: error: connection to server at \"db\", port 5432 failed: FATAL:  database \"shop\" does not exist",
            "pg_restore: error: could not execute query: ERROR:  relation \"orders\" does not exist",
        ] {
            assert_eq!(tool(said), FaultKind::Final, "{said}");
        }
    }

    #[test]
    fn what_is_wrong_here_says_nothing_about_the_artefact() {
        for said in [
            "psql: error: connection to server at \"db\", port 5432 failed: FATAL:  password authentication failed for user \"shop\"",
            "pg_restore: error: could not extend file \"base/1/2\": No space left on device",
            "pg_restore: error: could not execute query: ERROR:  role \"shop_ro\" does not exist",
            "pg_restore: error: could not execute query: ERROR:  extension \"postgis\" is not available\nDETAIL:  Could not open extension control file.",
        ] {
            assert_eq!(tool(said), FaultKind::Circumstance, "{said}");
        }
        assert_eq!(Error::NoRoom("full".into()).kind(), FaultKind::Circumstance);
        let full = Error::Sql { state: "53100".into(), message: "full".into() };
        assert_eq!(full.kind(), FaultKind::Circumstance);
    }

    #[test]
    fn a_full_disk_is_final_and_a_lock_timeout_is_not() {
        assert!(!is_transient_state("53100"));
        assert!(is_transient_state("53300"));
        assert!(is_transient_state("55P03"));
        assert!(!is_transient_state("42P01"));
    }
}
