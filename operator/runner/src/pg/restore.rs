//! Building a database from a backup, beside the live one or in its place.
//!
//! ```text
//! checksums ▶ create (closed) ▶ pg_restore ▶ ANALYZE ▶ properties, compared ▶ open
//!                                  └ room is watched; any failure drops the unfinished database
//! ```
//!
//! Invariants: nothing reaches the restore tool, and nothing of the server is touched, unless the checksums
//! are the registered ones; an unfinished database never bears the live name.

use std::num::NonZero;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::task::{DatabaseProperties, Named, PgInPlace, PgRestore, Report};

use super::dump::{only_dump, stdin_of};
use super::properties;
use super::quote::{ident, literal};
use super::server::Admin;
use super::swap::{drop_database, reopened};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::stop;
use crate::store::{Backup, Whole, sha256_of};
use crate::tool::Tool;

/// Longest pause between two looks at the room and for the end. Whoever waits for the restore waits for half of it, twice.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often the server is asked for the size of what is being loaded.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Most tables that are loaded or looked at at a time: each takes a connection of the server, and others need some.
const MOST_AT_ONCE: usize = 8;
/// Names of databases that are Skep's.
const OURS: &str = "skep_";

/// How a database is loaded.
struct Load<'a> {
    whole: &'a Whole,
    /// Bytes of the database that was dumped, to tell how far the load is.
    expected: Option<u64>,
}

/// Builds a database beside the live one.
pub(crate) fn beside(job: &Job, task: &PgRestore) -> Result<Report> {
    let PgRestore { connect, stored, live, side } = task;
    if !side.starts_with(OURS) || side.len() > 63 {
        return Err(Error::refused(format!("`{side}` is not the name of a database of Skep")));
    }
    let backup = Backup::open(job, stored)?;
    let whole = only_dump(job, &backup)?;
    let mut admin = Admin::open_locked(job, connect, &[live, side])?;
    drop_earlier(&mut admin, side)?;
    let found = properties::read(&mut admin, live)?;
    let live = found.as_ref().map(|found| Named { name: live.clone(), oid: found.oid });
    let manifest = &backup.manifest;
    let wanted = found.map(|found| found.properties).or_else(|| manifest.database.clone());
    let unknown = || Error::refused("neither the live database nor the manifest tells the properties");
    let wanted = wanted.ok_or_else(unknown)?;
    let expected = manifest.database.as_ref().map(|database| database.size);
    let began = Instant::now();
    let load = Load { whole: &whole, expected };
    let built = build(&mut admin, side, &wanted, &load)?;
    let seconds = began.elapsed().as_secs_f64();
    let size = size(&mut admin, &built)?;
    Ok(Report::PgRestore { live, side: built, size, seconds })
}

/// Drops the live database and builds it anew. It is built under a name of Skep's and renamed when it is
/// complete, so a run that ends early leaves no live database rather than half a one.
pub(crate) fn in_place(job: &Job, task: &PgInPlace) -> Result<Report> {
    let PgInPlace { connect, stored, live, properties: wanted } = task;
    let backup = Backup::open(job, stored)?;
    let whole = only_dump(job, &backup)?;
    let unfinished = format!("{OURS}in_place_{}", &sha256_of(live.as_bytes())[..12]);
    let mut admin = Admin::open_locked(job, connect, &[live, &unfinished])?;
    drop_earlier(&mut admin, &unfinished)?;
    if let Some(found) = admin.named(live)?
        && let Err(error) = drop_database(&mut admin, &found)
    {
        return Err(reopened(admin, &found, &[live, &unfinished], error));
    }
    let load = Load { whole: &whole, expected: Some(wanted.size) };
    let built = build(&mut admin, &unfinished, wanted, &load)?;
    admin.end_sessions(&[built.oid])?;
    admin.session.run(&format!("ALTER DATABASE {} RENAME TO {}", ident(&unfinished), ident(live)))?;
    Ok(Report::PgInPlace { live: Named { name: live.clone(), oid: built.oid } })
}

/// What an earlier attempt left under a name of Skep's.
fn drop_earlier(admin: &mut Admin<'_>, name: &str) -> Result<()> {
    match admin.named(name)? {
        Some(earlier) => drop_database(admin, &earlier),
        None => Ok(()),
    }
}

fn build(admin: &mut Admin<'_>, name: &str, wanted: &DatabaseProperties, load: &Load<'_>) -> Result<Named> {
    let built = properties::create(admin, name, wanted)?;
    match fill(admin, &built, wanted, load) {
        Ok(()) => Ok(built),
        Err(error) => {
            // Best effort: the next attempt drops what is left, and the first error is the one to tell.
            let _left = drop_database(admin, &built);
            Err(error)
        }
    }
}

fn fill(admin: &mut Admin<'_>, built: &Named, wanted: &DatabaseProperties, load: &Load<'_>) -> Result<()> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let jobs = at_once(processors).to_string();
    let database = admin.server.database(&built.name);
    let mut restore = admin.server.tool("pg_restore");
    restore
        .args([
            "-w",
            "--exit-on-error",
            "--no-subscriptions",
            "-j",
            &jobs,
            "-d",
            &database,
            "/proc/self/fd/0",
        ])
        .stdin(stdin_of(&load.whole.file)?);
    watch(admin, built, "restore", restore, load.expected)?;
    load.whole.is_untouched()?;
    // The server does all the work of this one.
    let jobs = processors.min(MOST_AT_ONCE).to_string();
    let mut analyze = admin.server.tool("vacuumdb");
    analyze.args(["-w", "-q", "--analyze-only", "-j", &jobs, "-d", &database]).stdin(Stdio::null());
    watch(admin, built, "analyze", analyze, load.expected)?;
    properties::apply(admin, &built.name, wanted)
}

/// How much is loaded at a time: half as many as there are processors here, since for each that loads one of the server works.
/// More of them than that make a restore slower where both share the machine, which is the rule.
fn at_once(processors: usize) -> usize {
    (processors / 2).clamp(1, MOST_AT_ONCE)
}

/// Runs a tool that fills the database, as long as there is room and the lock is held.
fn watch(
    admin: &mut Admin<'_>,
    built: &Named,
    phase: &str,
    mut command: Command,
    expected: Option<u64>,
) -> Result<()> {
    let job = admin.server.job;
    let max_wal_size = max_wal_size(admin)?;
    let mut tool = Tool::start(command.stdout(Stdio::null()))?;
    let mut measured = Instant::now();
    let mut pause = Duration::from_millis(2);
    while !tool.has_ended()? {
        if stop::is_stopping() {
            return Err(Error::Stopped);
        }
        has_room(job, max_wal_size)?;
        if measured.elapsed() >= MEASURE_EVERY {
            measured = Instant::now();
            job.out.progress(phase, size(admin, built)?, expected);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LOOK_EVERY);
    }
    tool.finish()
}

/// Refuses to go on when less than a tenth, or twice `max_wal_size`, would be left to the live database.
fn has_room(job: &Job, max_wal_size: u64) -> Result<()> {
    let Some(room) = job.room()? else { return Ok(()) };
    let least = (room.capacity / 10).max(max_wal_size.saturating_mul(2));
    if room.free >= least {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(Error::NoRoom(format!(
        "only {} MiB are free where the data is, {} MiB must stay free",
        mib(room.free),
        mib(least)
    )))
}

/// In bytes.
pub(crate) fn max_wal_size(admin: &mut Admin<'_>) -> Result<u64> {
    admin.session.json("SELECT pg_size_bytes(current_setting('max_wal_size'))")
}

/// Size of a database in bytes; also proves that the session which holds the lock lives.
fn size(admin: &mut Admin<'_>, database: &Named) -> Result<u64> {
    let name = literal(&database.name);
    admin.session.json(&format!(
        "SELECT coalesce((SELECT pg_database_size(oid) FROM pg_database WHERE datname = {name}), 0)"
    ))
}
