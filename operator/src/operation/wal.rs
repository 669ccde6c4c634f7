//! Point in time of PostgreSQL: base backups beside dumps, what of the log stays, and a moment made into a backup (ADR 18).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skep_runner::task::{PgBase, PgRecover, PgTakeBase, WalPrune};
use skep_runner::{Report, Task};

use super::backup::{self, Place, Sealed};
use super::catalogue::{Backup, Entry, PREFIX, Purpose};
use super::data::{Dumped, unexpected};
use super::frozen::{self, Frozen, Target};
use super::record::SERVICE;
use super::saga::{Cx, Fault, Progress};
use super::settings::Settings;
use super::stores;
use super::whereabouts;
use super::work::{self, Access, Order, Outcome};
use crate::swarm::error::Error;
use crate::swarm::object::Kind;

/// What a restore to a moment recovers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// The backup whose base it begins with.
    pub from: Entry,
    /// The moment.
    pub until: Timestamp,
}

/// Why the log of a service cannot be received into its store, if so.
pub fn against(settings: &Settings, target: &Target) -> Option<String> {
    stores::is_staged(settings, target).then(|| {
        format!(
            "skep.backup.wal needs a store that the database's own tools can write: neither a bucket (`{}`) nor encryption can \
             be had with it yet",
            target.store
        )
    })
}

/// Takes a base backup besides a dump. Where that fails the dump is a backup all the same, and the report says so.
///
/// # Errors
/// What the engine says.
pub async fn with_base(
    cx: &mut Cx<'_>,
    target: &Target,
    place: &Place,
    dumped: Value,
) -> Result<Progress, Fault> {
    let connect = target.access.connect.clone();
    let task = Task::PgTakeBase(PgTakeBase { connect, dir: place.dir.clone(), wal: target.wal_dir() });
    let order = Order { key: "base", target, task, store: Some(Access::Write), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Failed(fault) => {
            cx.remark(format!(
                "no base backup was taken, so this backup is of one moment only: {}",
                fault.message
            ));
            Ok(Progress::Done(dumped))
        }
        Outcome::Done(report) => match *report {
            Report::PgBase { artefact, base } => {
                let mut dumped: Dumped = serde_json::from_value(dumped)
                    .map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
                dumped.artefacts.push(artefact);
                dumped.base = Some(base);
                Ok(Progress::Done(json!(dumped)))
            }
            other => Err(unexpected(&other)),
        },
    }
}

/// Removes what of the log no base backup needs any more. Never fails for good.
///
/// # Errors
/// What the engine says, where it is worth trying again.
pub async fn prune(cx: &mut Cx<'_>, target: &Target, done: Value) -> Result<Progress, Fault> {
    let all = backups(cx).await?;
    let keep: Vec<PgBase> = all.into_iter().filter_map(|backup| backup.entry.base).collect();
    if keep.is_empty() {
        return Ok(Progress::Done(done));
    }
    let task = Task::WalPrune(WalPrune { dir: target.wal_dir(), keep });
    let order = Order { key: "wal", target, task, store: Some(Access::Write), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => return Ok(Progress::Wait(wait)),
        Outcome::Done(_) => {}
        Outcome::Failed(fault) => cx.remark(format!(
            "what of the write-ahead log is not needed any more was not removed, the next backup tries again: {}",
            fault.message
        )),
    }
    Ok(Progress::Done(done))
}

/// The backup with the newest base that was taken before a moment.
///
/// # Errors
/// When there is none, saying which moments there are.
pub fn choose(all: &[Backup], service: &str, until: Timestamp) -> Result<Entry, String> {
    let ended = |b: &Backup| b.entry.base.as_ref()?.ended.parse::<Timestamp>().ok();
    let good = |b: &&Backup| b.entry.service == service && b.verified.is_some() && b.removing.is_none();
    let bases: Vec<(Timestamp, &Backup)> =
        all.iter().filter(good).filter_map(|b| Some((ended(b)?, b))).collect();
    let newest = bases.iter().filter(|(ended, _)| *ended <= until).max_by_key(|(ended, _)| *ended);
    if let Some((_, backup)) = newest {
        return Ok(backup.entry.clone());
    }
    Err(match bases.iter().map(|(ended, _)| *ended).min() {
        Some(first) => format!("{until} is before the oldest base backup of {service}, which is of {first}"),
        None => format!(
            "there is no base backup of {service}: a moment can be restored once a backup was taken with skep.backup.wal=true"
        ),
    })
}

/// Chooses what a restore to a moment begins with.
///
/// # Errors
/// When nothing reaches there, or what the engine says.
pub async fn plan(cx: &Cx<'_>, target: &Target, until: Timestamp) -> Result<Recovery, Fault> {
    if until >= cx.now() {
        return Err(Fault::failed(format!("{until} is still to come")));
    }
    let all = backups(cx).await?;
    let from = choose(&all, &cx.op.intent.service, until).map_err(Fault::failed)?;
    whereabouts::beside_data(cx, target, &from).await?.map_err(Fault::failed)?;
    Ok(Recovery { from, until })
}

/// Recovers the moment and makes a backup of it, from which the restore then goes on as from any other.
///
/// # Errors
/// When it cannot be recovered, or what the engine says.
pub async fn recover(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let recovery = frozen.recovery.as_ref().ok_or_else(|| Fault::failed("the plan names no moment"))?;
    let target = match whereabouts::beside_data(cx, &frozen.target, &recovery.from).await? {
        Ok(target) => target,
        Err(why) => return Err(Fault::failed(why)),
    };
    let place = Place::recovered(cx, &target);
    let task = Task::PgRecover(PgRecover {
        connect: target.access.connect.clone(),
        stored: recovery.from.stored(),
        database: target.database.clone(),
        until: recovery.until.to_string(),
        dir: place.dir.clone(),
    });
    let order = Order { key: "recover", target: &target, task, store: Some(Access::Write), data: true };
    let dumped = match work::run(cx, &order).await? {
        Outcome::Wait(wait) => return Ok(Progress::Wait(wait)),
        Outcome::Failed(fault) => {
            let (until, why) = (recovery.until, fault.message);
            return Err(Fault::failed(format!("{until} cannot be recovered: {why}")));
        }
        Outcome::Done(report) => Dumped::of(*report)?,
    };
    let sealed = match backup::seal(cx, &target, &place, &dumped, "seal").await? {
        Progress::Done(sealed) => sealed,
        other => return Ok(other),
    };
    let read: Sealed = serde_json::from_value(sealed.clone())
        .map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
    backup::register(cx, &target, &place, &read, Purpose::Safety).await?;
    Ok(Progress::Done(sealed))
}

/// A finished one stays, like a safety backup; an unfinished one goes.
///
/// # Errors
/// What the engine says.
pub async fn undo_recover(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let place = Place::recovered(cx, &frozen.target);
    match cx.engine().config(&format!("{PREFIX}{}", place.id)).await {
        Ok(_) => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
        Err(Error::NotFound { .. }) => {
            let store = frozen.recovery.as_ref().map_or(&frozen.target.store, |r| &r.from.store).clone();
            let target = Target { store, ..frozen.target.clone() };
            backup::discard(cx, &target, &place).await
        }
        Err(other) => Err(other.into()),
    }
}

/// Puts the backup that was made of the moment into a plan: all later steps see it as the one to restore.
pub fn add_recovered(cx: &Cx<'_>, frozen: &mut Frozen) {
    let Some(recovery) = &frozen.recovery else { return };
    let Ok(sealed) = cx.out::<Sealed>("recover") else { return };
    let target = Target { store: recovery.from.store.clone(), ..frozen.target.clone() };
    let place = Place::recovered(cx, &target);
    frozen.candidates = vec![backup::entry(cx, &target, &place, &sealed, Purpose::Safety)];
}

async fn backups(cx: &Cx<'_>) -> Result<Vec<Backup>, Fault> {
    let service = cx.op.intent.service.as_str();
    let configs = cx.engine().configs(Kind::Backup, &[(SERVICE, service)]).await?;
    Ok(configs.iter().filter_map(Backup::read).filter(|b| b.removing.is_none()).collect())
}
