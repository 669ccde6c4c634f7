//! From a base backup and the log to a dump of one database as it was at a moment.
//!
//! ```text
//! checksums ▶ is the moment in what was received? ▶ room ▶ unpack, verified ▶ replay up to the moment ▶ dump
//!                                                       └ ended before the moment: replay all that there is,
//!                                                         and see that it reaches as far as it has to
//! ```
//! A server that stops at a moment has seen something that was committed later. Where nothing was, all of the log is
//! replayed, and the position that had been received when the server's clock was past the moment proves that it is all.

use std::process::Command;
use std::time::{Duration, Instant};

use super::super::base::BASE;
use super::super::dump::{NOW, stream};
use super::super::properties;
use super::super::psql::{Session, When};
use super::super::server::{Admin, Server};
use super::Lsn;
use super::archive::{Archive, Stretch, moment};
use super::scratch::{Scratch, Settings};
use super::supply::Supply;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::line::FaultKind;
use crate::stop;
use crate::store::{self, Backup};
use crate::task::{Connect, PgBase, PgDumped, PgRecover, Report};
use crate::tool::{Tool, output_of};

/// What the server says when it saw nothing that was committed after the moment.
const ENDED_BEFORE: &str = "recovery ended before configured recovery target was reached";
/// How often it is asked whether it is up.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How often the room is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How a replay ended.
enum Replayed {
    /// The server is up.
    Up(Tool),
    /// It saw nothing that was committed after the moment.
    EndedBefore,
}

/// Recovers, and dumps.
pub(crate) fn recover(job: &Job, task: &PgRecover) -> Result<Report> {
    let PgRecover { connect, stored, database, until, dir } = task;
    let at = moment(until)?;
    let backup = Backup::open(job, stored)?;
    let no_base = || Error::refused(format!("backup {} has no base backup", stored.id));
    let base = backup.manifest.base.as_ref().ok_or_else(no_base)?;
    let artefact = backup.manifest.artefacts.iter().find(|a| a.file == BASE).ok_or_else(no_base)?;
    let archive = Archive::open(job, &base.dir, &base.system, base.segment_size)?;
    let stretch = stretch(&archive, base, at, until)?;
    let settings = settings(job, connect)?;
    let whole = backup.folder.whole(artefact, job)?;
    let scratch = Scratch::new(job, base.size)?;
    scratch.unpack(&whole)?;
    let mut supply = Supply::new(&scratch, &archive, &stretch)?;
    let replay = Replay { job, scratch: &scratch, settings: &settings };
    let server = match replay.run(&mut supply, Some(until))? {
        Replayed::Up(server) => server,
        Replayed::EndedBefore => {
            let enough = archive.enough_for(at)?.unwrap_or(Lsn(u64::MAX));
            if stretch.end < enough {
                return Err(gap(&stretch, until));
            }
            let Replayed::Up(server) = replay.run(&mut supply, None)? else {
                return Err(Error::refused("the server ended although it was to replay all that there is"));
            };
            reaches(&replay, enough, until)?;
            server
        }
    };
    let report = dump(job, &scratch.connect(&settings), database, until, dir)?;
    server.terminate();
    server.finish()?;
    Ok(report)
}

/// What there is of the log for a moment, if it is in what was received.
fn stretch(archive: &Archive, base: &PgBase, at: i64, until: &str) -> Result<Stretch> {
    if at < moment(&base.ended)? {
        let ended = &base.ended;
        return Err(Error::refused(format!("{until} is before the base backup, which ended at {ended}")));
    }
    let stretch = archive.from(Lsn::parse(&base.start)?);
    let Some(latest) = archive.latest()? else {
        return Err(Error::refused(format!("nothing was received of the write-ahead log in {}", base.dir)));
    };
    if moment(&latest.until)? < at {
        return Err(Error::refused(format!(
            "{until} is later than what was received of the write-ahead log, which reaches until {}",
            latest.until
        )));
    }
    if stretch.end < Lsn::parse(&base.end)? {
        return Err(gap(&stretch, until));
    }
    Ok(stretch)
}

fn gap(stretch: &Stretch, until: &str) -> Error {
    Error::refused(format!(
        "segment {} of the write-ahead log is missing: what was committed until {until} is not all there",
        stretch.next
    ))
}

/// Asks the live server what a scratch server has to know.
fn settings(job: &Job, connect: &Connect) -> Result<Settings> {
    let mut live = Admin::open(job, connect, &[])?;
    live.session.json(
        "SELECT json_build_object('superuser', (SELECT rolname FROM pg_roles WHERE oid = 10),
           'prepared', current_setting('max_prepared_transactions')::int,
           'locks', current_setting('max_locks_per_transaction')::int)",
    )
}

/// Whether all of the log that had to be replayed was.
fn reaches(replay: &Replay<'_>, enough: Lsn, until: &str) -> Result<()> {
    let connect = replay.scratch.connect(replay.settings);
    let server = Server::new(replay.job, &connect)?;
    let mut session = server.session_outside(&[], When::Working)?;
    let replayed = Lsn::parse(&session.query("SELECT pg_last_wal_replay_lsn()")?)?;
    if replayed >= enough {
        return Ok(());
    }
    Err(Error::refused(format!(
        "the write-ahead log can be read up to {replayed} only, and what was committed until {until} reaches to {enough}: \
         a segment is damaged"
    )))
}

fn dump(job: &Job, connect: &Connect, database: &str, until: &str, dir: &str) -> Result<Report> {
    let mut admin = Admin::open(job, connect, &[database])?;
    let absent = || Error::refused(format!("database `{database}` did not exist at {until}"));
    let (found, session) = properties::read_in_full(&mut admin, database)?.ok_or_else(absent)?;
    drop(session);
    let folder = store::emptied(job, dir)?;
    let artefact = stream(&admin.server, database, &folder)?;
    Ok(Report::PgDump(Box::new(PgDumped {
        artefacts: vec![artefact],
        server_version: admin.version.to_string(),
        tool_version: output_of(Command::new("pg_dump").arg("--version"))?,
        started: until.to_owned(),
        ended: admin.session.query(NOW)?,
        database: found.properties,
        // Of the scratch server nobody asked for them.
        roles: None,
    })))
}

/// A server that replays.
struct Replay<'a> {
    job: &'a Job,
    scratch: &'a Scratch<'a>,
    settings: &'a Settings,
}

// === impl Replay ===

impl Replay<'_> {
    /// Starts the server and hands it what it asks for until it is up.
    fn run(&self, supply: &mut Supply<'_>, until: Option<&str>) -> Result<Replayed> {
        self.scratch.configure(self.settings, until)?;
        let connect = self.scratch.connect(self.settings);
        let server = Server::new(self.job, &connect)?;
        let mut tool = self.scratch.start()?;
        let (mut asked, mut looked) = (Instant::now(), Instant::now());
        while !tool.has_ended()? {
            stop::pause()?;
            supply.serve()?;
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.scratch.has_room()?;
                self.job.out.progress("recover", supply.handed, None);
            }
            if asked.elapsed() >= ASK_EVERY {
                match self.is_up(&server) {
                    Ok(true) => return Ok(Replayed::Up(tool)),
                    Ok(false) => {}
                    Err(error) if error.kind() == FaultKind::Transient => {}
                    Err(error) => return Err(error),
                }
                asked = Instant::now();
            }
        }
        let (status, said) = tool.end()?;
        let said: Vec<String> = said.into();
        if stop::is_stopping() {
            return Err(Error::Stopped);
        }
        if said.iter().any(|line| line.contains(ENDED_BEFORE)) {
            return Ok(Replayed::EndedBefore);
        }
        let said = said.join("; ");
        Err(Error::Refused(format!("the scratch server does not come up ({status}): {said}")))
    }

    fn is_up(&self, server: &Server<'_>) -> Result<bool> {
        let mut session =
            Session::open(server, "postgres", When::Working).or_else(|error| match error.kind() {
                FaultKind::Transient => Err(error),
                FaultKind::Final | FaultKind::Circumstance => {
                    Session::open(server, "template1", When::Working)
                }
            })?;
        Ok(session.query("SELECT pg_catalog.pg_is_in_recovery()")? == "f")
    }
}
