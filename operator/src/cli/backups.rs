//! The catalogue of backups.

use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::out::Tone;
use super::session::Session;
use super::table::{Cell, Table};
use crate::operation::catalogue::{Backup, Disproof, Entry, Purpose};
use crate::plan::words::{ago, clock, size};
use crate::swarm::object::Kind;

/// `backups`
#[derive(Clone, Debug, clap::Args)]
pub struct BackupsArgs {
    /// Only those of this service.
    pub service: Option<String>,
}

/// One backup, as JSON.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    entry: &'a Entry,
    verified: Option<Timestamp>,
    proved: Option<Timestamp>,
    restore_seconds: Option<f64>,
    drill_failed: Option<&'a Disproof>,
    removing: Option<Timestamp>,
}

/// `skep backups`
pub(super) async fn backups(session: &Session, args: &BackupsArgs) -> Result<Exit, Failure> {
    let configs = session.engine.configs(Kind::Backup, &[]).await?;
    let mut backups: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
    let unreadable = configs.len() - backups.len();
    if let Some(service) = &args.service {
        let end = format!("_{service}");
        backups.retain(|b| b.entry.service == *service || b.entry.service.ends_with(&end));
    }
    backups.sort_by(|a, b| (&a.entry.service, a.entry.taken).cmp(&(&b.entry.service, b.entry.taken)));
    if session.out.is_json() {
        let all: Vec<Shown<'_>> = backups
            .iter()
            .map(|b| Shown {
                entry: &b.entry,
                verified: b.verified,
                proved: b.proved,
                restore_seconds: b.restore_seconds,
                drill_failed: b.drill_failed.as_ref(),
                removing: b.removing,
            })
            .collect();
        session.out.json_whole(&all);
        return Ok(Exit::Fine);
    }
    match backups.is_empty() {
        true => session.out.say("no backups"),
        false => session.out.say(table(session, &backups).render(session.out.paint)),
    }
    if unreadable > 0 {
        session.out.aside(format!("mind: {unreadable} cannot be read; a newer Skep may have made them"));
    }
    Ok(Exit::Fine)
}

/// When a restore of it last passed the checks, or how its drill failed since.
fn proved(backup: &Backup, now: Timestamp) -> Cell {
    match (&backup.drill_failed, backup.proved) {
        (Some(failed), _) => Cell::new(Tone::Bad, format!("drill failed {}", ago(failed.at, now))),
        (None, Some(at)) => Cell::new(Tone::Good, ago(at, now)),
        (None, None) => Cell::from("no"),
    }
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
        let purpose = match (entry.purpose, backup.removing) {
            (_, Some(_)) => Cell::new(Tone::Mind, "being removed"),
            (Purpose::Regular, None) => "regular".into(),
            (Purpose::Safety, None) => "safety".into(),
        };
        table.row(vec![
            entry.id.as_str().into(),
            entry.service.as_str().into(),
            clock(entry.taken, session.out.zone()).into(),
            ago(entry.taken, now).trim_end_matches(" ago").into(),
            size(entry.size).into(),
            backup
                .verified
                .map_or_else(|| Cell::new(Tone::Mind, "no"), |at| Cell::new(Tone::Good, ago(at, now))),
            proved(backup, now),
            purpose,
            entry.store.as_str().into(),
            Cell::new(Tone::Faint, &entry.dir),
        ]);
    }
    table
}
