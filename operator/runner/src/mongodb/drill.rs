//! An archive into a server of the job's own, to prove that it can be loaded and comes back as it was.

use std::io::BufReader;
use std::process::Stdio;
use std::time::Instant;

use super::archive::{self, Archive};
use super::dump::held;
use super::load::{self, fits};
use super::scratch::{Scratch, circumstance};
use super::server;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::store::Whole;
use crate::task::Report;
use crate::tool::Tool;

/// Loads an archive as a restore does, then dumps what was loaded and compares every document; then replays its oplog.
pub(crate) fn drill(job: &Job, whole: &Whole) -> Result<Report> {
    let archive = held(whole)?;
    let (mut scratch, live) = Scratch::start(job, whole.size)?;
    fits(&archive, &live)?;
    let began = Instant::now();
    let loaded = load::into(job, scratch.server(), &archive, whole);
    loaded.map_err(|error| scratch.fault_of(error))?;
    let mut took = began.elapsed();
    job.out.progress("compare", 0, None);
    // It has been loaded and counted: that it cannot be dumped once more is no fault of the backup.
    let found = dumped(&scratch).map_err(|error| circumstance(scratch.fault_of(error)))?;
    if archive.changes.is_some_and(|changes| changes > 0) {
        let began = Instant::now();
        load::replay(job, scratch.server(), whole).map_err(|error| scratch.fault_of(error))?;
        took += began.elapsed();
    }
    Ok(Report::CommandDrill { left_out: differing(&archive, &found), seconds: took.as_secs_f64() })
}

/// What a server holds by now.
fn dumped(scratch: &Scratch) -> Result<Archive> {
    let mut command = scratch.server().tool("mongodump")?;
    let mut tool = Tool::start(command.arg("--archive").stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut from = BufReader::new(tool.stdout().expect("standard output was piped"));
    let read = archive::read(&mut from);
    let drained = std::io::copy(&mut from, &mut std::io::sink());
    tool.finish().map_err(server::told)?;
    drained.map_err(Error::io("cannot read what mongodump prints"))?;
    read
}

/// Collections whose documents came back otherwise. All of them are there, as many as in the backup: a server may have
/// put something else in a document's place, and whether that matters people have to say.
fn differing(archive: &Archive, found: &Archive) -> Vec<String> {
    let ours = archive.digests.iter().filter(|((database, name), _)| load::loaded(database, name).is_some());
    let differing = ours.filter(|(name, digest)| found.digests.get(*name) != Some(*digest));
    let told = |((database, name), _): (&(String, String), &u64)| {
        format!(
            "the documents of {database}.{name} were loaded, all of them, and are not bit for bit those of the backup"
        )
    };
    differing.map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_back_otherwise_is_named_and_accounts_are_not_asked_for() {
        let holding = |all: &[(&str, &str, u64)]| Archive {
            digests: all.iter().map(|(db, name, digest)| (((*db).into(), (*name).into()), *digest)).collect(),
            ..Archive::default()
        };
        let archive = holding(&[("shop", "orders", 1), ("shop", "users", 2), ("admin", "system.users", 3)]);
        let same = holding(&[("shop", "orders", 1), ("shop", "users", 2), ("config", "x", 9)]);
        assert_eq!(differing(&archive, &same), Vec::<String>::new());
        let other = differing(&archive, &holding(&[("shop", "orders", 7), ("shop", "users", 2)]));
        assert!(other.len() == 1 && other[0].contains("shop.orders"), "{other:?}");
        assert_eq!(differing(&archive, &holding(&[])).len(), 2);
    }
}
