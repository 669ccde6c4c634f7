//! What every task is given: who it is, where the files are, and where to tell what it does.

use std::path::PathBuf;

use skep_runner::task::Ticket;

use crate::error::{Error, Result};
use crate::output::Output;

/// Longest `application_name` that PostgreSQL keeps.
const LONGEST_SESSION: usize = 63;

/// One run of one ticket.
pub(crate) struct Job {
    /// `application_name` of this attempt's sessions.
    pub(crate) session: String,
    /// Common beginning of the names of all attempts.
    pub(crate) fence: String,
    /// Root of the backup store.
    pub(crate) store: PathBuf,
    /// Where the service's data is, to measure room; need not exist.
    pub(crate) data: PathBuf,
    /// Where to tell.
    pub(crate) out: Output,
}

/// Room of a file system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Available to processes that are not root.
    pub(crate) free: u64,
    /// Its size.
    pub(crate) capacity: u64,
}

// === impl Job ===

impl Job {
    /// Refuses a ticket of a newer format, and names that the server would cut short: an attempt could then
    /// not tell its own sessions from an older one's.
    pub(crate) fn new(ticket: &Ticket) -> Result<Job> {
        if ticket.schema > skep_runner::SCHEMA {
            return Err(Error::refused(format!(
                "the ticket has format {}, this runner knows {}",
                ticket.schema,
                skep_runner::SCHEMA
            )));
        }
        let plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        if !plain(&ticket.session) || !plain(&ticket.fence) || ticket.session.len() > LONGEST_SESSION {
            return Err(Error::refused(format!("`{}` is not a session name", ticket.session)));
        }
        let root = |variable: &str, default: &str| {
            std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Ok(Job {
            session: ticket.session.clone(),
            fence: ticket.fence.clone(),
            store: root("SKEP_RUNNER_STORE", skep_runner::STORE_PATH),
            data: root("SKEP_RUNNER_DATA", skep_runner::DATA_PATH),
            out: Output::default(),
        })
    }

    /// Room where the data is, none where the data is not mounted.
    pub(crate) fn room(&self) -> Result<Option<Room>> {
        match rustix::fs::statvfs(&self.data) {
            Ok(stat) => Ok(Some(Room {
                free: stat.f_bavail.saturating_mul(stat.f_frsize),
                capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
            })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => {
                Err(Error::io(format!("cannot measure the room of {}", self.data.display()))(error.into()))
            }
        }
    }
}

/// The content of a secret's file without its trailing newline.
pub(crate) fn read_secret(path: &str) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(Error::io(format!("cannot read the secret {path}")))?;
    Ok(text
        .strip_suffix('\n')
        .map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text))
        .to_owned())
}
