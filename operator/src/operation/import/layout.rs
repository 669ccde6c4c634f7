//! Dumps that people made and keep in a directory with `MANIFEST.txt`: copied into a backup of Skep's own.
//!
//! A copy, not a link: a file that somebody else looks after may be written to, moved or removed any day, and a backup
//! that is one inode with it would change with it. What lies in their directory is only read.

use jiff::Timestamp;
use skep_runner::manifest::Manifest;
use skep_runner::task::{Discard, LayoutCopy, LayoutScanned, PgSeal};
use skep_runner::{Report, Task};

use super::{ByHand, Copied, Listed, Listing, Taken, register, wish};
use crate::operation::backup::Place;
use crate::operation::catalogue::{Backup, Purpose};
use crate::operation::data::unexpected;
use crate::operation::frozen::{self, Target};
use crate::operation::reading::{Flaw, named as named_all};
use crate::operation::record::OpId;
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::work::{self, Access, Order, Outcome};

/// Lists what of such a directory can be taken in. A dump's id derives from its content, so that it is known again.
pub(super) fn list(
    listing: &mut Listing,
    target: &Target,
    scanned: LayoutScanned,
    registered: &[Backup],
) -> Result<(), String> {
    if scanned.dumps.is_empty() {
        let others: Vec<Flaw> = scanned.others.into_iter().map(|o| Flaw { id: o.file, why: o.why }).collect();
        return Err(format!("nothing of it can be restored by this version: {}", named_all(&others)));
    }
    for found in scanned.dumps {
        let made = found.head.made.parse::<Timestamp>();
        let taken =
            made.map_err(|e| format!("{}: its time `{}`: {e}", found.artefact.file, found.head.made))?;
        let id = OpId::new(taken, &found.artefact.sha256).to_string();
        match registered.iter().find(|b| b.entry.id == id) {
            Some(known) if known.entry.service == target.name => listing.known += 1,
            Some(known) => {
                let of = &known.entry.service;
                return Err(format!("{} is registered as backup {id} of {of} already", found.artefact.file));
            }
            None => listing.new.push(Listed {
                dir: Place::of(target, id.clone()).dir,
                id,
                manifest_sha256: String::new(),
                engine: "postgres".to_owned(),
                database: found.head.database.clone(),
                taken,
                size: found.artefact.size,
                purpose: Purpose::Regular,
                inner: None,
                base: None,
                by_hand: Some(ByHand { artefact: found.artefact, head: found.head }),
            }),
        }
    }
    let others = scanned.others.into_iter().map(|o| Flaw { id: o.file, why: o.why });
    listing.flawed.extend(others);
    listing.flaws = usize::try_from(scanned.left).unwrap_or(usize::MAX);
    Ok(())
}

/// Moves the taking of one dump on: copied, then read in full and sealed, then registered.
pub(super) async fn take(
    cx: &mut Cx<'_>,
    target: &Target,
    listed: &Listed,
    by_hand: &ByHand,
    taken: &mut Taken,
) -> Result<Progress, Fault> {
    let Some(copied) = taken.copied.iter().find(|c| c.dir == listed.dir).cloned() else {
        return copy(cx, target, listed, by_hand, taken).await;
    };
    let task = Task::PgSeal(PgSeal {
        dir: listed.dir.clone(),
        manifest: manifest(target, listed, by_hand, &copied),
    });
    let report = match job(cx, target, task, &format!("e{}", taken.turn)).await? {
        Moved::Wait(wait) => return Ok(Progress::Wait(named(listed, wait))),
        Moved::Done(report) => report,
    };
    let Report::PgSeal { manifest_sha256, size } = report else { return Err(unexpected(&report)) };
    let sealed = Listed { manifest_sha256, size, ..listed.clone() };
    if let Some(why) = register(cx, target, &sealed).await? {
        return Err(Fault::failed(format!("backup {}: {why}", listed.id)));
    }
    taken.taken.push(listed.id.clone());
    taken.next(cx).await?;
    Ok(Progress::wait("the next dump"))
}

async fn copy(
    cx: &mut Cx<'_>,
    target: &Target,
    listed: &Listed,
    by_hand: &ByHand,
    taken: &mut Taken,
) -> Result<Progress, Fault> {
    let from = wish(cx)?.layout.ok_or_else(|| Fault::failed("there is no directory to copy from"))?;
    let task = Task::LayoutCopy(LayoutCopy {
        from,
        artefact: by_hand.artefact.clone(),
        into: listed.dir.clone(),
        name: "imported.dump".to_owned(),
    });
    let report = match job(cx, target, task, &format!("c{}", taken.turn)).await? {
        Moved::Wait(wait) => return Ok(Progress::Wait(named(listed, wait))),
        Moved::Done(report) => report,
    };
    let Report::LayoutCopy { artefact } = report else { return Err(unexpected(&report)) };
    taken.copied.push(Copied { dir: listed.dir.clone(), artefact });
    taken.next(cx).await?;
    Ok(Progress::wait("reading the copy back"))
}

/// How far a job is.
enum Moved {
    Wait(Wait),
    Done(Report),
}

/// A job that fails for good fails the import.
async fn job(cx: &mut Cx<'_>, target: &Target, task: Task, key: &str) -> Result<Moved, Fault> {
    let order = Order { key, target, task, store: Some(Access::Write), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Moved::Wait(wait)),
        Outcome::Done(report) => Ok(Moved::Done(*report)),
        Outcome::Failed(fault) => Err(Fault::failed(fault.message)),
    }
}

fn named(listed: &Listed, mut wait: Wait) -> Wait {
    let file = listed.by_hand.as_ref().map_or(listed.id.as_str(), |b| b.artefact.file.as_str());
    wait.why = format!("{file}: {}", wait.why);
    wait
}

/// What is known of a dump that Skep did not make. The properties of its database are the live one's at a restore (S4).
fn manifest(target: &Target, listed: &Listed, by_hand: &ByHand, copied: &Copied) -> Manifest {
    Manifest {
        schema: skep_runner::SCHEMA,
        id: listed.id.clone(),
        service: target.name.clone(),
        engine: listed.engine.clone(),
        image: String::new(),
        spec: serde_json::Value::Null,
        server_version: by_hand.head.server_version.clone(),
        tool_version: format!("pg_dump {}", by_hand.head.tool_version),
        started: by_hand.head.made.clone(),
        ended: by_hand.head.made.clone(),
        artefacts: vec![copied.artefact.clone()],
        database: None,
        contents: None,
        base: None,
        roles: None,
    }
}

/// Removes the copies of an import that goes back; nothing of it runs any more.
///
/// # Errors
/// What the engine says.
pub(super) async fn discard(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let listing: Listing = cx.out("scan").unwrap_or_default();
    let by_hand: Vec<&Listed> = listing.new.iter().filter(|l| l.by_hand.is_some()).collect();
    let taken: Taken = cx.scratch().unwrap_or_default();
    // Nothing was begun where no job ever was.
    if by_hand.is_empty() || (cx.record().jobs.is_empty() && taken.turn == 0) {
        return Ok(Progress::done());
    }
    let target = frozen::load(cx).await?.target;
    for (nth, listed) in by_hand.iter().enumerate().take(taken.copied.len() + 1) {
        // What was not copied by this import and is sealed all the same is a backup that was there before.
        let sealed = taken.copied.iter().any(|c| c.dir == listed.dir);
        let key = format!("u{nth}");
        let task = Task::Discard(Discard { dir: listed.dir.clone(), sealed });
        let order = Order { key: &key, target: &target, task, store: Some(Access::Write), data: false };
        match work::run(cx, &order).await? {
            Outcome::Wait(wait) => return Ok(Progress::Wait(wait)),
            Outcome::Done(_) => {}
            Outcome::Failed(fault) => {
                cx.remark(format!("`{}` is left in store `{}`: {}", listed.dir, target.store, fault.message));
            }
        }
    }
    Ok(Progress::done())
}
