//! One ticket of a job in Skep's own image: the same protocol as the runner's.

use std::process::ExitCode;

use serde::Deserialize;
use skep_runner::error::{Error, Result};
use skep_runner::line::FaultKind;
use skep_runner::output::Output;
use skep_runner::store::discard;
use skep_runner::task::{Ship, StoreTask};
use skep_runner::{Report, Ticket};

use crate::fetch::open_to_all;
use crate::shelf::{Shelf, Site};

/// The tasks of Skep's own image, in the form of [`skep_runner::Task`].
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "there is one, once")]
enum Own {
    Probe,
    Store(StoreTask),
}

/// Does what the ticket at `path` asks, and tells it on standard output. Exit codes as the runner's: 0 done, 1 try again,
/// 2 final.
pub fn run(path: &str) -> ExitCode {
    let out = Output::default();
    let site = Site::default();
    let done = ticket(path).and_then(|ticket| {
        known(&ticket, &site)?;
        act(&ticket.task, &site, &out)
    });
    match done {
        Ok(report) => {
            out.report(&report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let kind = error.kind();
            out.fault(kind, &error.chain());
            match kind {
                FaultKind::Transient => ExitCode::from(1),
                FaultKind::Final | FaultKind::Circumstance => ExitCode::from(2),
            }
        }
    }
}

fn ticket(path: &str) -> Result<Ticket<Own>> {
    let text = std::fs::read(path).map_err(Error::io(format!("cannot read the ticket {path}")))?;
    let ticket: Ticket<Own> = serde_json::from_slice(&text)
        .map_err(|e| Error::refused(format!("cannot understand the ticket {path}: {e}")))?;
    if ticket.schema > skep_runner::SCHEMA {
        return Err(Error::refused(format!("the ticket has format {}, newer than this Skep", ticket.schema)));
    }
    Ok(ticket)
}

/// Refuses to write to a store that is not the one that the ticket means.
fn known(ticket: &Ticket<Own>, site: &Site) -> Result<()> {
    let Some(anchors) = &ticket.anchors else { return Ok(()) };
    match &ticket.task {
        Own::Store(StoreTask::Ship(Ship { to, .. }) | StoreTask::Copy { to, .. }) => {
            Shelf::open(to, site)?.is_the_one(anchors)
        }
        Own::Probe | Own::Store(_) => Ok(()),
    }
}

fn act(task: &Own, site: &Site, out: &Output) -> Result<Report> {
    match task {
        Own::Probe => Ok(Report::Probe { version: env!("CARGO_PKG_VERSION").to_owned() }),
        Own::Store(task) => perform(task, site, out),
    }
}

/// Does one task.
///
/// # Errors
/// When it cannot be done.
pub fn perform(task: &StoreTask, site: &Site, out: &Output) -> Result<Report> {
    match task {
        StoreTask::Stage { dir } => open_to_all(&site.stage, dir).map(|_| Report::Done),
        StoreTask::Ship(task) => crate::ship(task, site, out).map(Report::Shipped),
        StoreTask::Fetch(task) => crate::fetch(task, site, out).map(|()| Report::Done),
        StoreTask::Copy { from, to, dir, manifest_sha256 } => {
            crate::copy(from, to, dir, manifest_sha256, site, out).map(Report::Copied)
        }
        StoreTask::Check { id, dir, manifest_sha256, from } => {
            crate::check(from, id, dir, manifest_sha256, site, out).map(Report::StoreVerify)
        }
        StoreTask::Scan { from, scan } => crate::scan(from, scan, site, out).map(Report::StoreScan),
        StoreTask::Reports { to, files, most } => {
            crate::reports(to, files, *most, site).map(|()| Report::Done)
        }
        StoreTask::Remove { from, dir } => Shelf::open(from, site)?.clear(dir).map(|()| Report::Done),
        StoreTask::Clear { dirs } => {
            dirs.iter().try_for_each(|dir| discard(&site.stage, dir, true)).map(|()| Report::Done)
        }
    }
}

/// Most memory that this process had, in bytes; 0 where it cannot be told.
pub(crate) fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
