//! Receiving the log without end.
//!
//! ```text
//! facts ▶ slot, made anew where it is lost ▶ a new era ▶ pg_receivewal ─┬─ synced as it comes
//!   every few seconds: server's position and time ▶ until that is on the disk ▶ received.json, a line for the operator
//! ```
//! Whatever ends, the server or the tool, ends the task; the next start begins where the slot says.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::quote::literal;
use super::super::server::Admin;
use super::archive::{Received, moment};
use super::{Lsn, facts};
use crate::error::{Error, Result};
use crate::job::{Job, civil};
use crate::stop::{self, until};
use crate::store::Folder;
use crate::task::{PgDropSlot, PgReceive, Report};
use crate::tool::Tool;

/// How often it is noted how far the log was received.
const NOTE_EVERY: Duration = Duration::from_secs(2);
/// Longest time in which what the server has written comes to the disk of the store.
const BEHIND: Duration = Duration::from_secs(300);
/// A commit gets its time a moment before it is in the log, and with `synchronous_commit=off` is written up to three
/// times `wal_writer_delay` later.
const MARGIN: &str = "2 seconds";
/// Longest wait for a slot that somebody else uses.
const FREE_WITHIN: Duration = Duration::from_secs(30);
/// What is said of how far the log was received: `done` is in seconds since 1970.
const PHASE: &str = "received";

/// A slot, as the server tells.
#[derive(Deserialize)]
struct Slot {
    kind: String,
    lost: bool,
    pid: Option<u32>,
}

/// Receives until told to stop.
pub(crate) fn receive(job: &Job, task: &PgReceive) -> Result<Report> {
    let PgReceive { connect, dir, slot } = task;
    is_name(slot)?;
    let mut admin = Admin::open(job, connect, &[])?;
    let system = facts::of(&mut admin, connect)?;
    own(&mut admin, slot)?;
    // Never the directory of another receiver, which may still run where nobody sees it.
    let era = format!("{dir}/{}/{}", system.id, era());
    let folder = Folder::create(&job.store, &era)?;
    let path = job.store.join(&era);
    let mut command = admin.server.tool("pg_receivewal");
    command
        .arg("-D")
        .arg(&path)
        .args(["-S", slot, "--synchronous", "--no-loop", "-s", "5", "-w"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut tool = Tool::start(&mut command)?;
    let mut noted: Option<Instant> = None;
    while !tool.has_ended()? {
        if stop::is_stopping() {
            break;
        }
        if noted.is_none_or(|at| at.elapsed() >= NOTE_EVERY) {
            let received = note(&mut admin, &mut tool, slot)?;
            received.write(job, &folder)?;
            noted = Some(Instant::now());
            let seconds = moment(&received.until)?.div_euclid(1_000_000);
            job.out.progress(PHASE, seconds.unsigned_abs(), None);
        }
        thread::sleep(Duration::from_millis(100));
    }
    if stop::is_stopping() {
        tool.terminate();
        let _ended = tool.end()?;
        return Err(Error::Stopped);
    }
    tool.finish()?;
    Err(Error::Unready("pg_receivewal ended".to_owned()))
}

/// Removes a slot.
pub(crate) fn drop_slot(job: &Job, task: &PgDropSlot) -> Result<Report> {
    let PgDropSlot { connect, slot } = task;
    is_name(slot)?;
    let mut admin = Admin::open(job, connect, &[])?;
    remove(&mut admin, slot)?;
    Ok(Report::Done)
}

/// Makes sure that the slot is there and that nobody else uses it. One that the server gave up is made anew: what was
/// logged meanwhile is lost, and the gap in what was received shows it.
fn own(admin: &mut Admin<'_>, slot: &str) -> Result<()> {
    if let Some(found) = look(admin, slot)? {
        if found.kind != "physical" {
            return Err(Error::refused(format!(
                "replication slot `{slot}` is {} and not Skep's",
                found.kind
            )));
        }
        if found.lost {
            remove(admin, slot)?;
        } else {
            return free(admin, slot);
        }
    }
    let name = literal(slot);
    admin.session.run(&format!("SELECT pg_create_physical_replication_slot({name}, true)"))
}

fn look(admin: &mut Admin<'_>, slot: &str) -> Result<Option<Slot>> {
    let name = literal(slot);
    admin.session.json(&format!(
        "SELECT coalesce((SELECT json_build_object('kind', slot_type, 'pid', active_pid,
             'lost', wal_status IS NOT DISTINCT FROM 'lost' OR restart_lsn IS NULL)
           FROM pg_replication_slots WHERE slot_name = {name}), 'null')"
    ))
}

/// Ends whoever uses the slot.
fn free(admin: &mut Admin<'_>, slot: &str) -> Result<()> {
    let late = || Error::Unready(format!("replication slot `{slot}` stays in use"));
    until(FREE_WITHIN, late, || match look(admin, slot)?.and_then(|slot| slot.pid) {
        None => Ok(true),
        Some(pid) => {
            admin.session.run(&format!("SELECT pg_terminate_backend({pid})"))?;
            Ok(false)
        }
    })
}

fn remove(admin: &mut Admin<'_>, slot: &str) -> Result<()> {
    free(admin, slot)?;
    let name = literal(slot);
    let sql = format!(
        "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots
         WHERE slot_name = {name} AND slot_type = 'physical' AND active_pid IS NULL"
    );
    let late = || Error::Unready(format!("replication slot `{slot}` stays in use"));
    until(FREE_WITHIN, late, || {
        admin.session.run(&sql)?;
        Ok(look(admin, slot)?.is_none_or(|slot| slot.kind != "physical"))
    })
}

/// Takes the server's position and time, and waits until the receiver has written and synced that much.
fn note(admin: &mut Admin<'_>, tool: &mut Tool, slot: &str) -> Result<Received> {
    let (until_then, lsn): (String, String) = admin.session.json(&format!(
        r#"SELECT json_build_array(to_char((clock_timestamp() - interval '{MARGIN}') AT TIME ZONE 'UTC',
             'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), pg_current_wal_flush_lsn()::text)"#
    ))?;
    let name = literal(slot);
    let sql = format!(
        "SELECT coalesce((SELECT to_json(r.flush_lsn::text) FROM pg_replication_slots s
           JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = {name}), 'null')"
    );
    let wanted = Lsn::parse(&lsn)?;
    let late = || Error::Unready("the receiver does not keep up with the server".to_owned());
    until(BEHIND, late, || {
        if tool.has_ended()? {
            return Ok(true);
        }
        let flushed: Option<String> = admin.session.json(&sql)?;
        flushed.map_or(Ok(false), |flushed| Ok(Lsn::parse(&flushed)? >= wanted))
    })?;
    if tool.has_ended()? {
        return Err(Error::Unready(match tool.end()? {
            (_, said) if !said.is_empty() => format!("pg_receivewal ended: {}", Vec::from(said).join("; ")),
            (status, _) => format!("pg_receivewal ended ({status})"),
        }));
    }
    Ok(Received { until: until_then, lsn })
}

/// A name for a new era; later ones sort later.
fn era() -> String {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let second: String = civil(time.tv_sec).chars().filter(char::is_ascii_digit).collect();
    format!("{second}-{:09}", time.tv_nsec)
}

fn is_name(slot: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if slot.starts_with("skep_") && slot.len() <= 63 && slot.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::refused(format!("`{slot}` is not the name of a replication slot of Skep")))
}
