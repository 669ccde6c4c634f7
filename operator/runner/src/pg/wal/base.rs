//! Taking a base backup: the archive, and where in the log it begins and ends.

use std::process::Stdio;
use std::time::Duration;

use super::super::base::BASE;
use super::super::server::Admin;
use super::archive::{Archive, moment};
use super::{Lsn, facts};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::manifest::Artefact;
use crate::stop::until;
use crate::store::{Draft, Folder};
use crate::task::{PgBase, PgTakeBase, Report};
use crate::tool::Tool;

/// How long the end of a base may take to be received.
const RECEIVED_WITHIN: Duration = Duration::from_secs(120);
/// How far the server has written its log.
const POSITION: &str = "SELECT pg_current_wal_flush_lsn()";
/// The server's time, to the microsecond.
pub(super) const NOW: &str =
    r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#;

/// Takes a base backup beside a dump; done when the log that it needs was received. A failure leaves the dump as it was.
pub(crate) fn take(job: &Job, task: &PgTakeBase) -> Result<Report> {
    let PgTakeBase { connect, dir, wal } = task;
    let mut admin = Admin::open(job, connect, &[])?;
    let absent = || Error::refused(format!("there is no dump at {dir}"));
    let folder = Folder::open(&job.store, dir)?.ok_or_else(absent)?;
    if folder.is_sealed()? {
        return Err(Error::refused(format!("{dir} holds a finished backup")));
    }
    clear(&folder)?;
    let taken = base(&mut admin, task, wal, &folder);
    if taken.is_err() {
        clear(&folder)?;
    }
    let (artefact, base) = taken?;
    Ok(Report::PgBase { artefact, base })
}

/// Removes what an earlier attempt left.
fn clear(folder: &Folder) -> Result<()> {
    for name in folder.names()?.iter().filter(|name| name.starts_with(BASE)) {
        folder.remove(name)?;
    }
    Ok(())
}

fn base(admin: &mut Admin<'_>, task: &PgTakeBase, wal: &str, folder: &Folder) -> Result<(Artefact, PgBase)> {
    let system = facts::of(admin, &task.connect)?;
    let spaces: u32 = admin
        .session
        .json("SELECT count(*) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')")?;
    if spaces > 0 {
        return Err(Error::Barred(format!(
            "the server has {spaces} tablespaces of its own: they cannot be in a base backup of Skep yet"
        )));
    }
    let size = admin.session.json("SELECT sum(pg_database_size(oid))::int8 FROM pg_database")?;
    // A base begins at a checkpoint that is made for it, and its end is on the server's disk when it is done.
    let start = Lsn::parse(&admin.session.query(POSITION)?)?;
    let mut draft = Draft::new(admin.server.job, folder, BASE.to_owned())?;
    let mut command = admin.server.tool("pg_basebackup");
    command
        .args(["-D", "-", "-Ft", "-Z1", "-X", "none", "-c", "fast", "-w", "-l", "skep"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut tool = Tool::start(&mut command)?;
    draft.copy(&mut tool.stdout().expect("standard output was piped"))?;
    tool.finish()?;
    let end = Lsn::parse(&admin.session.query(POSITION)?)?;
    let ended = admin.session.query(NOW)?;
    let base = PgBase {
        dir: wal.to_owned(),
        system: system.id,
        segment_size: system.segment_size,
        start: start.to_string(),
        end: end.to_string(),
        ended,
        size,
    };
    is_received(admin, &base, start, end)?;
    Ok((draft.publish()?, base))
}

/// Without the log from its start to its end a base is worth nothing.
fn is_received(admin: &mut Admin<'_>, base: &PgBase, start: Lsn, end: Lsn) -> Result<()> {
    let job = admin.server.job;
    let until_then = moment(&base.ended)?;
    let late = || {
        Error::Unready(format!(
            "the write-ahead log up to {end} was not received within {} s: the receiver does not run, or writes elsewhere",
            RECEIVED_WITHIN.as_secs()
        ))
    };
    until(RECEIVED_WITHIN, late, || {
        job.out.progress("receive", 0, None);
        let archive = Archive::open(job, &base.dir, &base.system, base.segment_size)?;
        Ok(archive.enough_for(until_then)?.is_some_and(|lsn| lsn >= end) && archive.from(start).end >= end)
    })
}
