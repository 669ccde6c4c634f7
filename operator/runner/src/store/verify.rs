//! Whether a stored backup is still what was registered.
//!
//! Spoilt is only what was read and differs, or is missing from a store that holds the service's directory. A store
//! that cannot be read, is not the right one, or a tool that fails, is an error: it says nothing about the backup.

use super::{Backup, Folder, Whole, sha256_of};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::task::{Report, StoreVerify, Stored, Verdict};

/// Reads a backup in full: manifest, checksums, and, unless that is not wanted, as its engine reads it.
pub(crate) fn verify(
    job: &Job,
    task: &StoreVerify,
    engine_reads: impl Fn(&Whole) -> Result<()>,
) -> Result<Report> {
    let above = task.stored.dir.rsplit_once('/').map_or("", |(above, _)| above);
    if Folder::open(&job.store, above)?.is_none() {
        return Err(Error::refused(format!(
            "the store holds no {above} where this job ran: it is another store, or is not there on this node"
        )));
    }
    let verdict = match look(job, task, engine_reads) {
        Ok(size) => Verdict::Whole { size },
        Err(Flaw::Spoilt(why)) => Verdict::Spoilt { why },
        Err(Flaw::Unread(error)) => return Err(error),
    };
    Ok(Report::StoreVerify(verdict))
}

/// What ends the reading of a backup.
enum Flaw {
    /// What was read is not what was registered.
    Spoilt(String),
    /// It could not be read.
    Unread(Error),
}

impl From<Error> for Flaw {
    fn from(error: Error) -> Flaw {
        Flaw::Unread(error)
    }
}

fn look(
    job: &Job,
    task: &StoreVerify,
    engine_reads: impl Fn(&Whole) -> Result<()>,
) -> std::result::Result<u64, Flaw> {
    let Stored { id, dir, manifest_sha256 } = &task.stored;
    let spoilt = |why: String| Err(Flaw::Spoilt(why));
    let Some(folder) = Folder::open(&job.store, dir)? else {
        return spoilt(format!("backup {id} is not in the store at {dir}"));
    };
    match refusal_is_a_flaw(folder.manifest_bytes())? {
        None => return spoilt(format!("{dir} has no manifest")),
        Some(bytes) if sha256_of(&bytes) != *manifest_sha256 => {
            return spoilt(format!("the manifest of backup {id} is not the registered one"));
        }
        Some(_) => {}
    }
    // A manifest of a newer Skep is refused here; that is no flaw of the backup.
    let backup = Backup::open(job, &task.stored)?;
    if backup.manifest.artefacts.is_empty() {
        return spoilt(format!("the manifest of backup {id} names no file"));
    }
    for artefact in &backup.manifest.artefacts {
        let whole = refusal_is_a_flaw(backup.folder.whole(artefact, job))?;
        if !task.quick && backup.manifest.engine == "postgres" {
            engine_reads(&whole)?;
        }
        whole.is_untouched()?;
    }
    Ok(backup.manifest.artefacts.iter().map(|artefact| artefact.size).sum())
}

/// What [`Folder`] refuses of a file is a flaw of the backup.
fn refusal_is_a_flaw<T>(read: Result<T>) -> std::result::Result<T, Flaw> {
    read.map_err(|error| match error {
        Error::Refused(why) => Flaw::Spoilt(why),
        other => Flaw::Unread(other),
    })
}
