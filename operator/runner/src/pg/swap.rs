//! Fencing, swapping and dropping databases, each by name *and* OID.
//!
//! ```text
//! swap:  look ─▶ refuse connections to both ─▶ end sessions ─▶ { rename, rename, look, allow the new } ─▶ done
//!          └ already swapped: done                └────────── on any failure: allow the live one again
//! ```
//!
//! Invariants: both renames and the opening are one transaction, which commits only if names and OIDs are
//! as expected after the renames; whatever dies, the live name leads to one whole database or, until the
//! step is repeated or undone, refuses connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::task::{Named, PgDrop, PgFence, PgSwap, Report};

use super::psql::{Session, When};
use super::quote::ident;
use super::server::{Admin, ending, list, oid_of};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::stop::until;

/// How long clients may take to leave by themselves where sessions are not ended at once.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// How often late sessions are ended during the renames.
const SWEEP_EVERY: Duration = Duration::from_millis(20);

/// Where a swap stands.
enum Standing {
    /// Names and OIDs are as the ticket says.
    Before,
    /// The new database bears the live name, the live one the other.
    After,
}

/// Allows or refuses connections.
pub(crate) fn fence(job: &Job, task: &PgFence) -> Result<Report> {
    let PgFence { connect, databases, allow } = task;
    let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    let oids: Vec<u32> = databases.iter().map(|database| database.oid).collect();
    let mut admin = Admin::open_locked(job, connect, &names)?;
    admin.session.run("BEGIN")?;
    for database in databases {
        expect(&mut admin, database)?;
        admin.session.run(&allowing(&database.name, *allow))?;
        expect(&mut admin, database)?;
    }
    admin.session.run("COMMIT")?;
    if !allow && !oids.is_empty() {
        admin.end_sessions(&oids)?;
    }
    Ok(Report::Done)
}

/// Swaps names; repeated, it converges.
pub(crate) fn swap(job: &Job, task: &PgSwap) -> Result<Report> {
    let PgSwap { connect, name, live, new, away, end_sessions: _ } = task;
    let mut admin = Admin::open_locked(job, connect, &[name, &new.name, away])?;
    match standing(&mut admin, task)? {
        Standing::After => {
            if live.is_some() {
                admin.session.run(&allowing(away, false))?;
            }
            admin.session.run(&allowing(name, true))?;
            Ok(Report::PgSwap { fenced_ms: 0 })
        }
        Standing::Before => {
            has_no_prepared(&mut admin, &oids(task))?;
            let outside = [name.as_str(), &new.name, away];
            let mut broom = admin.server.session_outside(&outside, When::Working)?;
            let began = Instant::now();
            match (cut_over(&mut admin, &mut broom, task), live) {
                (Ok(()), _) => Ok(Report::PgSwap { fenced_ms: began.elapsed().as_millis() as u64 }),
                (Err(error), Some(live)) => {
                    let live = Named { name: name.clone(), oid: live.oid };
                    Err(reopened(admin, &live, &outside, error))
                }
                (Err(error), None) => Err(error),
            }
        }
    }
}

/// Drops databases.
pub(crate) fn drop_all(job: &Job, task: &PgDrop) -> Result<Report> {
    let PgDrop { connect, databases } = task;
    let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    let mut admin = Admin::open_locked(job, connect, &names)?;
    for database in databases {
        let Named { name, oid } = database;
        if *oid == 0 && !name.starts_with("skep_") {
            return Err(Error::refused(format!(
                "`{name}` is to be dropped, whichever it is, but is not Skep's"
            )));
        }
        match admin.named(name)? {
            None => {}
            Some(found) if *oid == 0 || found.oid == *oid => drop_database(&mut admin, &found)?,
            Some(found) => return Err(unexpected(database, Some(found.oid))),
        }
    }
    Ok(Report::Done)
}

/// Drops one database, whoever is in it; refuses one with a logical replication slot, a subscription or an
/// open prepared transaction before it is closed.
pub(crate) fn drop_database(admin: &mut Admin<'_>, database: &Named) -> Result<()> {
    let Named { name, oid } = database;
    let slots = slots(&mut admin.session, *oid)?;
    if !slots.is_empty() {
        return Err(Error::refused(format!("`{name}` has replication slots: {}", slots.join(", "))));
    }
    has_no_prepared(admin, &[*oid])?;
    let subscriptions = subscriptions(&mut admin.session, *oid)?;
    if !subscriptions.is_empty() {
        return Err(Error::refused(format!("`{name}` has subscriptions: {}", subscriptions.join(", "))));
    }
    // A drop that was interrupted leaves a limit of -2: nobody gets in, and nothing but another drop is allowed.
    let is_valid = format!("SELECT count(*) FROM pg_database WHERE oid = {oid} AND datconnlimit <> -2");
    if admin.session.query(&is_valid)? == "1" {
        let close = format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false IS_TEMPLATE false", ident(name));
        admin.session.run(&close)?;
    }
    admin.end_sessions(&[*oid])?;
    admin.session.run(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name)))
}

/// Names of the subscriptions of a database.
pub(crate) fn subscriptions(session: &mut Session, oid: u32) -> Result<Vec<String>> {
    session.json(&format!(
        "SELECT coalesce(json_agg(subname ORDER BY subname), '[]') FROM pg_subscription WHERE subdbid = {oid}"
    ))
}

/// Names of the logical replication slots of a database.
pub(crate) fn slots(session: &mut Session, oid: u32) -> Result<Vec<String>> {
    session.json(&format!(
        "SELECT coalesce(json_agg(slot_name ORDER BY slot_name), '[]') FROM pg_replication_slots WHERE datoid = {oid}"
    ))
}

fn cut_over(admin: &mut Admin<'_>, broom: &mut Session, task: &PgSwap) -> Result<()> {
    let PgSwap { name, live, new, end_sessions, .. } = task;
    let oids = oids(task);
    admin.session.run("BEGIN")?;
    if live.is_some() {
        admin.session.run(&allowing(name, false))?;
    }
    admin.session.run(&allowing(&new.name, false))?;
    admin.session.run("COMMIT")?;
    if !end_sessions {
        wait_for_leaving(admin, &oids)?;
    }
    admin.end_sessions(&oids)?;
    let renamed = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| sweep(broom, &oids, &renamed));
        let result = rename(admin, task);
        renamed.store(true, Ordering::SeqCst);
        result
    })
}

/// Who was let in just before the door closed shows up a moment later; a rename would wait for such a session
/// for five seconds and then give up.
fn sweep(broom: &mut Session, oids: &[u32], renamed: &AtomicBool) {
    let sql = ending(oids);
    while !renamed.load(Ordering::SeqCst) && broom.run(&sql).is_ok() {
        thread::sleep(SWEEP_EVERY);
    }
}

fn rename(admin: &mut Admin<'_>, task: &PgSwap) -> Result<()> {
    let PgSwap { name, live, new, away, .. } = task;
    admin.session.run("BEGIN")?;
    if live.is_some() {
        admin.session.run(&renaming(name, away))?;
    }
    admin.session.run(&renaming(&new.name, name))?;
    admin.session.run(&allowing(name, true))?;
    match standing(admin, task)? {
        Standing::After => admin.session.run("COMMIT"),
        Standing::Before => Err(Error::Unready("the renames had no effect".to_owned())),
    }
}

/// Sessions that do not leave in time are ended afterwards, so being late is no error.
fn wait_for_leaving(admin: &mut Admin<'_>, oids: &[u32]) -> Result<()> {
    let began = Instant::now();
    let late = || Error::Unready("sessions do not end".to_owned());
    until(LEAVE_WITHIN * 2, late, || Ok(began.elapsed() > LEAVE_WITHIN || admin.sessions(oids)? == 0))
}

/// A database that was closed takes connections again, if it still bears its name, before the job ends with
/// `error`.
pub(crate) fn reopened(admin: Admin<'_>, database: &Named, outside: &[&str], error: Error) -> Error {
    let Admin { server, session, .. } = admin;
    drop(session);
    let Named { name, oid } = database;
    let reopen = || -> Result<()> {
        let mut session = server.session_outside(outside, When::Undoing)?;
        if oid_of(&mut session, name)? == Some(*oid) { session.run(&allowing(name, true)) } else { Ok(()) }
    };
    match reopen() {
        Ok(()) => error,
        Err(again) => Error::Unready(format!(
            "{}; and `{name}` still refuses connections: {}",
            error.chain(),
            again.chain()
        )),
    }
}

fn standing(admin: &mut Admin<'_>, task: &PgSwap) -> Result<Standing> {
    let PgSwap { name, live, new, away, .. } = task;
    let at_name = admin.oid(name)?;
    let at_new = admin.oid(&new.name)?;
    let at_away = admin.oid(away)?;
    let live = live.as_ref().map(|live| live.oid);
    let away_is = |wanted: Option<u32>| live.is_none() || at_away == wanted;
    if at_name == live && at_new == Some(new.oid) && away_is(None) {
        return Ok(Standing::Before);
    }
    if at_name == Some(new.oid) && at_new.is_none() && away_is(live) {
        return Ok(Standing::After);
    }
    Err(Error::refused(format!(
        "names and OIDs are not as expected: `{name}` is {}, `{}` is {}, `{away}` is {}",
        told(at_name),
        new.name,
        told(at_new),
        told(at_away)
    )))
}

/// OIDs of the databases that change their names.
fn oids(task: &PgSwap) -> Vec<u32> {
    task.live.iter().chain([&task.new]).map(|database| database.oid).collect()
}

fn expect(admin: &mut Admin<'_>, database: &Named) -> Result<()> {
    let found = admin.oid(&database.name)?;
    if found == Some(database.oid) { Ok(()) } else { Err(unexpected(database, found)) }
}

fn unexpected(database: &Named, found: Option<u32>) -> Error {
    let Named { name, oid } = database;
    Error::refused(format!("`{name}` is {}, not {oid}", told(found)))
}

fn told(oid: Option<u32>) -> String {
    oid.map_or_else(|| "absent".to_owned(), |oid| oid.to_string())
}

/// A prepared transaction belongs to no session: nothing that could be ended, and the rename would fail.
fn has_no_prepared(admin: &mut Admin<'_>, oids: &[u32]) -> Result<()> {
    let count = admin.session.query(&format!(
        "SELECT count(*) FROM pg_prepared_xacts WHERE database IN (SELECT datname FROM pg_database WHERE oid IN ({}))",
        list(oids)
    ))?;
    if count == "0" {
        return Ok(());
    }
    Err(Error::refused(format!("{count} prepared transactions are open; commit or roll them back first")))
}

fn renaming(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", ident(from), ident(to))
}

fn allowing(name: &str, allow: bool) -> String {
    format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {allow}", ident(name))
}
