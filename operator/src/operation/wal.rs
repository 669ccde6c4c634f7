//! Point in time of PostgreSQL: base backups beside dumps, what of the log stays, and a moment made into a backup (ADR 18).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skep_runner::task::{PgBase, PgRecover, PgTakeBase, WalPrune};
use skep_runner::{Report, Task};

use super::backup::{self, Place, Sealed};
use super::catalogue::{Backup, Entry, PREFIX, Purpose};
use super::data::{Dumped, unexpected};
use super::frozen::{self, Frozen, Target};
use super::receiver;
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

// === impl Range ===

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "moments from {} until {until}", self.from),
            None => write!(f, "moments from {} on, until when nobody can tell now", self.from),
        }
    }
}

// === impl Recovery ===

impl Recovery {
    /// The target as what recovers and seals sees it: all of it is in the store of the base, which is in the clear.
    fn target(&self, target: &Target) -> Target {
        let store = self.from.store.clone();
        Target { store, encrypt: Vec::new(), copies: Vec::new(), ..target.clone() }
    }
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
    let without = |why| format!("no base backup was taken, so this backup is of one moment only: {why}");
    if let Some(why) = against(&cx.env.settings, target) {
        cx.remark(without(why));
        return Ok(Progress::Done(dumped));
    }
    let connect = target.access.connect.clone();
    let task = Task::PgTakeBase(PgTakeBase { connect, dir: place.dir.clone(), wal: target.wal_dir() });
    let order = Order { key: "base", target, task, store: Some(Access::Write), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Failed(fault) => {
            cx.remark(without(fault.message));
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

/// Removes what of the log no base backup needs any more.
///
/// # Errors
/// What the engine says.
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

/// The moments that can be restored, as far as is known without reading the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// From then on: the oldest base backup had ended.
    pub from: Timestamp,
    /// Until then: so far the receiver has told. None where it tells nothing.
    pub until: Option<Timestamp>,
}

/// When the base of a backup had ended, where it has one that can be used.
pub fn base_ended(backup: &Backup) -> Option<Timestamp> {
    let is_good = backup.verified.is_some() && backup.spoilt.is_none() && backup.removing.is_none();
    backup.entry.base.as_ref().filter(|_| is_good)?.ended.parse().ok()
}

/// The moments of a service that can be restored; none without a base backup. Whether there is a gap between them shows only
/// when one is recovered.
pub fn range(all: &[Backup], service: &str, received: Option<Timestamp>) -> Option<Range> {
    let own = all.iter().filter(|b| b.entry.service == service);
    let from = own.filter_map(base_ended).min()?;
    Some(Range { from, until: received.filter(|until| *until >= from) })
}

/// The backup with the newest base that was taken before a moment.
///
/// # Errors
/// Why the moment cannot be restored, and which ones can.
pub fn choose<'a>(
    all: &'a [Backup],
    service: &str,
    to: Timestamp,
    received: Option<Timestamp>,
    now: Timestamp,
) -> Result<&'a Backup, String> {
    let Some(range) = range(all, service, received) else {
        return Err(format!(
            "there is no base backup of {service}: a moment can be restored once a backup was taken with skep.backup.wal=true"
        ));
    };
    if to > now {
        return Err(format!("{to} is still to come; of {service} there are {range}"));
    }
    if range.until.is_some_and(|until| to > until) {
        return Err(format!("{to} is later than what was received; of {service} there are {range}"));
    }
    let own = all.iter().filter(|b| b.entry.service == service);
    let ended = own.filter_map(|b| Some((base_ended(b)?, b)));
    let newest = ended.filter(|(ended, _)| *ended <= to).max_by_key(|(ended, _)| *ended);
    let too_early = || format!("{to} is before the oldest base backup; of {service} there are {range}");
    newest.map(|(_, backup)| backup).ok_or_else(too_early)
}

/// Chooses what a restore to a moment begins with.
///
/// # Errors
/// When nothing reaches there, or what the engine says.
pub async fn plan(cx: &Cx<'_>, target: &Target, until: Timestamp) -> Result<Recovery, Fault> {
    let service = cx.op.intent.service.as_str();
    let received = receiver::standings(cx.engine()).await?.remove(service).and_then(|s| s.until);
    let all = backups(cx).await?;
    let from = choose(&all, service, until, received, cx.now()).map_err(Fault::failed)?.entry.clone();
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
    let target = recovery.target(&frozen.target);
    whereabouts::beside_data(cx, &target, &recovery.from).await?.map_err(Fault::failed)?;
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
            let target = frozen.recovery.as_ref().map(|recovery| recovery.target(&frozen.target));
            backup::discard(cx, target.as_ref().unwrap_or(&frozen.target), &place).await
        }
        Err(other) => Err(other.into()),
    }
}

/// Puts the backup that was made of the moment into a plan: all later steps see it as the one to restore.
pub fn add_recovered(cx: &Cx<'_>, frozen: &mut Frozen) {
    let Some(recovery) = &frozen.recovery else { return };
    let Ok(sealed) = cx.out::<Sealed>("recover") else { return };
    let target = recovery.target(&frozen.target);
    let place = Place::recovered(cx, &target);
    frozen.candidates = vec![backup::entry(cx, &target, &place, &sealed, Purpose::Safety)];
}

async fn backups(cx: &Cx<'_>) -> Result<Vec<Backup>, Fault> {
    let service = cx.op.intent.service.as_str();
    let configs = cx.engine().configs(Kind::Backup, &[(SERVICE, service)]).await?;
    Ok(configs.iter().filter_map(Backup::read).filter(|b| b.removing.is_none()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::catalogue::Finding;
    use crate::operation::catalogue::testing;

    fn at(text: &str) -> Timestamp {
        format!("2026-05-01T{text}Z").parse().unwrap()
    }

    fn backup(id: &str, taken: Timestamp) -> Backup {
        testing::backup(id, &taken.to_string(), Purpose::Regular, true)
    }

    /// A verified backup with a base that ended then.
    fn based(id: &str, ended: &str) -> Backup {
        let mut backup = backup(id, at(ended));
        backup.entry.base = Some(PgBase {
            dir: "v1/shop/shop_db/wal".to_owned(),
            system: "7".to_owned(),
            segment_size: 16 << 20,
            start: "0/1".to_owned(),
            end: "0/2".to_owned(),
            ended: at(ended).to_string(),
            size: 7,
        });
        backup
    }

    fn chosen(all: &[Backup], to: &str) -> Result<String, String> {
        let found = choose(all, "shop_db", at(to), Some(at("12:00:00")), at("12:00:05"));
        found.map(|b| b.entry.id.clone())
    }

    #[test]
    fn a_moment_begins_with_the_newest_good_base_before_it() {
        let all = [based("a", "08:00:00"), based("b", "10:00:00"), backup("c", at("11:00:00"))];
        assert_eq!(chosen(&all, "09:59:59").as_deref(), Ok("a"));
        assert_eq!(chosen(&all, "10:00:00").as_deref(), Ok("b"));
        assert_eq!(chosen(&all, "12:00:00").as_deref(), Ok("b"), "a dump alone is no base");
        let mut spoilt = all.clone();
        spoilt[1].spoilt = Some(Finding { at: at("11:00:00"), why: "a bit".to_owned() });
        assert_eq!(chosen(&spoilt, "11:00:00").as_deref(), Ok("a"));
        let mut going = all.clone();
        going[1].removing = Some(at("11:00:00"));
        assert_eq!(chosen(&going, "11:00:00").as_deref(), Ok("a"));
        let mut unread = all;
        unread[1].verified = None;
        assert_eq!(chosen(&unread, "11:00:00").as_deref(), Ok("a"));
    }

    #[test]
    fn what_cannot_be_restored_is_refused_with_what_can() {
        let all = [based("a", "08:00:00")];
        for (to, why) in [
            ("07:59:59", "before the oldest base backup"),
            ("12:00:01", "later than what was received"),
            ("12:00:06", "still to come"),
        ] {
            let told = chosen(&all, to).unwrap_err();
            let range = "of shop_db there are moments from 2026-05-01T08:00:00Z until 2026-05-01T12:00:00Z";
            assert!(told.contains(why) && told.contains(range), "{told}");
        }
        let none = chosen(&[backup("c", at("11:00:00"))], "11:30:00").unwrap_err();
        assert!(none.contains("no base backup of shop_db"), "{none}");
        let silent = choose(&all, "shop_db", at("12:00:01"), None, at("12:00:05"));
        assert!(silent.is_ok(), "what nobody knows shows when it is recovered");
        assert!(choose(&all, "shop_audit", at("09:00:00"), None, at("12:00:05")).is_err());
    }
}
