//! The catalogue of backups: what is in it, and what else can be done with it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::import::{self, ImportArgs};
use super::out::Tone;
use super::session::Session;
use super::table::{Cell, Table};
use super::verify::{self, VerifyArgs};
use crate::operation::catalogue::{Backup, Entry, Finding, Origin, Purpose};
use crate::operation::receiver::{self, Standing};
use crate::operation::wal::{self, Range};
use crate::plan::words::{ago, clock, size};
use crate::swarm::object::Kind;

/// `backups`
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackupsArgs {
    /// What to do with them; they are listed where nothing is said.
    #[command(subcommand)]
    pub command: Option<BackupsCommand>,
    /// Only those of this service.
    pub service: Option<String>,
}

/// `backups …`
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BackupsCommand {
    /// Read stored backups back in full, and note in the catalogue how each was found.
    Verify(VerifyArgs),
    /// Take the backups that a store holds into the catalogue, for a Swarm that was lost.
    Import(ImportArgs),
}

/// One backup, as JSON.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    verified: Option<Timestamp>,
    proved: Option<Timestamp>,
    loaded: Option<Timestamp>,
    restore_seconds: Option<f64>,
    drill_failed: Option<&'a Finding>,
    removing: Option<Timestamp>,
    spoilt: Option<&'a Finding>,
    copies: &'a [String],
    /// Where it has a base backup: the moments that can be restored from it.
    moments: Option<Range>,
}

/// `skep backups`
pub(super) async fn backups(session: &Session, args: &BackupsArgs) -> Result<Exit, Failure> {
    match &args.command {
        None => list(session, args.service.as_deref()).await,
        Some(BackupsCommand::Verify(args)) => verify::verify(session, args).await,
        Some(BackupsCommand::Import(args)) => import::import(session, args).await,
    }
}

async fn list(session: &Session, service: Option<&str>) -> Result<Exit, Failure> {
    let configs = session.engine.configs(Kind::Backup, &[]).await?;
    let mut backups: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
    let unreadable = configs.len() - backups.len();
    if let Some(service) = service {
        backups.retain(|b| is_meant(&b.entry.service, service));
    }
    backups.sort_by(|a, b| (&a.entry.service, a.entry.taken).cmp(&(&b.entry.service, b.entry.taken)));
    let mut received = receiver::standings(&session.engine).await?;
    received.retain(|of, _| service.is_none_or(|service| is_meant(of, service)));
    let exit = if backups.iter().any(|b| b.spoilt.is_some()) { Exit::Failed } else { Exit::Fine };
    if session.out.is_json() {
        let all: Vec<Shown<'_>> = backups
            .iter()
            .map(|b| Shown {
                entry: &b.entry,
                verified: b.verified,
                proved: b.proved,
                loaded: b.loaded,
                restore_seconds: b.restore_seconds,
                drill_failed: b.drill_failed.as_ref(),
                removing: b.removing,
                spoilt: b.spoilt.as_ref(),
                copies: &b.copies,
                moments: moments(std::slice::from_ref(b), &b.entry.service, &received),
            })
            .collect();
        session.out.json_whole(&all);
        return Ok(exit);
    }
    match backups.is_empty() {
        true => session.out.say("no backups"),
        false => session.out.say(table(session, &backups).render(session.out.paint)),
    }
    tell_moments(session, &backups, &received);
    for backup in &backups {
        let Some(Finding { at, why }) = &backup.spoilt else { continue };
        let (id, since) = (&backup.entry.id, ago(*at, session.now()));
        session.out.aside(format!("mind: {id} was found spoilt {since}: {why}"));
    }
    if unreadable > 0 {
        session.out.aside(format!("mind: {unreadable} cannot be read; a newer Skep may have made them"));
    }
    Ok(exit)
}

/// Whether a person means a service by this name.
fn is_meant(service: &str, name: &str) -> bool {
    service == name || service.strip_suffix(name).is_some_and(|stack| stack.ends_with('_'))
}

/// The moments of a service that can be restored, as far as is known.
fn moments(all: &[Backup], service: &str, received: &BTreeMap<String, Standing>) -> Option<Range> {
    wal::range(all, service, received.get(service).and_then(|s| s.until))
}

/// Says of each service of which moments they can be restored, and of each receiver that does not receive why.
fn tell_moments(session: &Session, backups: &[Backup], received: &BTreeMap<String, Standing>) {
    let of_backups = backups.iter().map(|b| &b.entry.service);
    let services: BTreeSet<&String> = of_backups.chain(received.keys()).collect();
    for service in services {
        let (zone, command) = (session.out.zone(), &session.command);
        if let Some(Range { from, until }) = moments(backups, service, received) {
            let until = until.map_or_else(|| "when nobody can tell now".to_owned(), |at| clock(at, zone));
            session.out.say(format!(
                "{service} can be restored as it was at any moment from {} until {until}: {command} restore {service} --to TIME",
                clock(from, zone),
            ));
        }
        if let Some(why) = received.get(service).and_then(|standing| standing.fault.as_ref()) {
            session.out.aside(format!("mind: the write-ahead log of {service} is not received now: {why}"));
        }
    }
}

/// When what was made of it last passed the checks, or how its drill failed since; where there was no check, that it loads.
fn proved(backup: &Backup, now: Timestamp) -> Cell {
    match (&backup.drill_failed, backup.proved, backup.loaded) {
        (Some(failed), _, _) => Cell::new(Tone::Bad, format!("drill failed {}", ago(failed.at, now))),
        (None, Some(at), _) => Cell::new(Tone::Good, ago(at, now)),
        (None, None, Some(at)) => Cell::new(Tone::Mind, format!("no; it loads, {}", ago(at, now))),
        (None, None, None) => Cell::from("no"),
    }
}

/// The stores that have it.
fn stores(backup: &Backup) -> String {
    let is_encrypted = backup.entry.inner.as_ref().is_some_and(|i| i.encrypted);
    let store = format!("{}{}", backup.entry.store, if is_encrypted { " (encrypted)" } else { "" });
    std::iter::once(store).chain(backup.copies.iter().cloned()).collect::<Vec<_>>().join(", ")
}

fn table(session: &Session, backups: &[Backup]) -> Table {
    let now = session.now();
    let mut table = Table::new(&[
        "ID",
        "SERVICE",
        "TAKEN",
        "AGE",
        "SIZE",
        "VERIFIED",
        "PROVED",
        "PURPOSE",
        "STORE",
        "DIRECTORY",
    ]);
    for backup in backups {
        let entry = &backup.entry;
        let purpose = match (entry.purpose, entry.origin, backup.removing) {
            (_, _, Some(_)) => Cell::new(Tone::Mind, "being removed"),
            (Purpose::Regular, Origin::Made, None) => "regular".into(),
            (Purpose::Regular, Origin::Imported, None) => "imported".into(),
            (Purpose::Safety, Origin::Made, None) => "safety".into(),
            (Purpose::Safety, Origin::Imported, None) => "safety, imported".into(),
        };
        let verified = match (&backup.spoilt, backup.verified) {
            (Some(_), _) => Cell::new(Tone::Bad, "spoilt"),
            (None, Some(at)) => Cell::new(Tone::Good, ago(at, now)),
            (None, None) => Cell::new(Tone::Mind, "no"),
        };
        table.row(vec![
            entry.id.as_str().into(),
            entry.service.as_str().into(),
            clock(entry.taken, session.out.zone()).into(),
            ago(entry.taken, now).trim_end_matches(" ago").into(),
            size(entry.size).into(),
            verified,
            proved(backup, now),
            purpose,
            stores(backup).into(),
            Cell::new(Tone::Faint, &entry.dir),
        ]);
    }
    table
}
