//! How backups reach stores that no database's tool can write, and come back.
//!
//! ```text
//! direct   dump, seal ─▶ the store's own mount                                        (a mount, nothing encrypted)
//! staged   dump, seal ─▶ staging volume ── ship ──▶ store ── copy ──▶ other stores    (S3, or encrypted)
//!                             ▲──────────── fetch ────┴─────────────────┘
//! ```
//!
//! Invariants: the staging volume is on the data's node, and empty of an operation's backups when that has ended; what a
//! database's tool reads there was verified against the registered hash when it was fetched, and is again when it is read;
//! a copy is the same backup byte for byte, so it needs no hash of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_runner::line::FaultKind;
use skep_runner::task::{Fetch, Place as StorePlace, S3Place, Ship, StoreScan, StoreTask, TextFile, Verdict};
use skep_runner::{COPY_PATH, Fault as JobFault, Report, STORE_PATH};

use super::backup::{Place, Sealed};
use super::catalogue::{self, Backup, Entry};
use super::data::unexpected;
use super::frozen::{self, Frozen, Target};
use super::saga::{Cx, Fault, Progress, Wait};
use super::settings::{S3, STAGE, Settings, Store};
use super::whereabouts::{self, Holder, Shelf};
use super::work::{self, NO_IDENTITY, Outcome, OwnOrder};

/// So often is it tried to remove what was written, where a step is taken back.
const ATTEMPTS_BACK: u32 = 2;

/// What is inside of a backup whose files in the store are encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inner {
    /// SHA-256 of the manifest inside.
    pub manifest_sha256: String,
    /// Whether an age identity is needed to read it.
    pub encrypted: bool,
}

/// Whether a backup can be read where the live data is.
pub enum Hand {
    /// It can, by jobs of this target.
    Here(Box<Target>),
    /// Not yet.
    Wait(Wait),
    /// No store gives it.
    Lost(JobFault),
}

/// What became of a removal.
pub enum Removed {
    /// Nothing is left.
    Done,
    /// Not yet.
    Wait(Wait),
    /// It cannot be removed now; why.
    Left(String),
}

/// Whether backups of a service go through the staging volume.
pub fn is_staged(settings: &Settings, target: &Target) -> bool {
    !target.encrypt.is_empty() || matches!(settings.stores.get(&target.store), Some(Store::S3(_)))
}

/// Whether jobs of the database reach a backup where it is.
pub fn is_direct(settings: &Settings, entry: &Entry) -> bool {
    entry.inner.is_none() && !matches!(settings.stores.get(&entry.store), Some(Store::S3(_)))
}

/// Whether a backup of the plan is fetched before jobs of its database read it. One that has copies is, from whichever
/// store gives it whole.
pub fn is_fetched(settings: &Settings, frozen: &Frozen, entry: &Entry) -> bool {
    !is_direct(settings, entry) || frozen.copies_of(entry).next().is_some()
}

/// As the jobs that write a backup see the target: their store is the staging volume where its backups go through that.
pub fn seen_by_jobs(settings: &Settings, target: &Target) -> Target {
    let store = if is_staged(settings, target) { STAGE.to_owned() } else { target.store.clone() };
    Target { store, ..target.clone() }
}

/// Makes room in the staging volume for the jobs of a database, whose user may be anybody. None = it is ready.
///
/// # Errors
/// When it cannot be made, or what the engine says.
pub async fn open(cx: &mut Cx<'_>, target: &Target, place: &Place, key: &str) -> Result<Option<Wait>, Fault> {
    if !is_staged(&cx.env.settings, target) {
        return Ok(None);
    }
    let task = StoreTask::Stage { dir: place.dir.clone() };
    let order = OwnOrder { key, target, task, stores: Vec::new(), identity: false };
    match work::run_own(cx, &order).await? {
        Outcome::Done(_) => Ok(None),
        Outcome::Wait(wait) => Ok(Some(wait)),
        Outcome::Failed(fault) => {
            Err(Fault::failed(format!("the staging volume cannot be used: {}", fault.message)))
        }
    }
}

/// Brings a sealed backup from the staging volume to its store; done = [`Sealed`] as it is to be registered. What needs no
/// staging is in its store already, and stays as it is.
///
/// # Errors
/// When the store does not take it, or what the engine says.
pub async fn ship(
    cx: &mut Cx<'_>,
    target: &Target,
    place: &Place,
    sealed: Sealed,
    key: &str,
) -> Result<Result<Sealed, Wait>, Fault> {
    if !is_staged(&cx.env.settings, target) {
        return Ok(Ok(sealed));
    }
    let task = StoreTask::Ship(Ship {
        dir: place.dir.clone(),
        manifest_sha256: sealed.manifest_sha256.clone(),
        recipients: target.encrypt.clone(),
        to: as_place(&cx.env.settings, &target.store, STORE_PATH)?,
    });
    let stores = vec![(target.store.as_str(), STORE_PATH)];
    let order = OwnOrder { key, target, task, stores, identity: false };
    match work::run_own(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Err(wait)),
        Outcome::Failed(fault) => Err(Fault::failed(format!(
            "the backup did not reach the store `{}`: {}",
            target.store, fault.message
        ))),
        Outcome::Done(report) => match *report {
            Report::Shipped(shipped) => Ok(Ok(Sealed {
                inner: Some(Inner {
                    manifest_sha256: sealed.manifest_sha256,
                    encrypted: !target.encrypt.is_empty(),
                }),
                manifest_sha256: shipped.manifest_sha256,
                size: shipped.size,
                taken: sealed.taken,
                base: None,
            })),
            other => Err(unexpected(&other)),
        },
    }
}

/// Takes shipping back: whatever of the backup reached the store goes.
///
/// # Errors
/// What the engine says.
pub async fn undo_ship(
    cx: &mut Cx<'_>,
    target: &Target,
    place: &Place,
    key: &str,
) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    if !cx.record().jobs.contains_key(key) {
        return Ok(Progress::done());
    }
    match take_back(cx, target, &target.store, &place.dir, &format!("u{key}")).await? {
        Removed::Done => {}
        Removed::Wait(wait) => return Ok(Progress::Wait(wait)),
        Removed::Left(why) => {
            cx.remark(format!("`{}` is left in the store `{}`: {why}", place.dir, target.store));
        }
    }
    Ok(Progress::done())
}

/// Removes a backup from one store, by a job on the target's node.
///
/// # Errors
/// What the engine says.
pub async fn remove(
    cx: &mut Cx<'_>,
    target: &Target,
    store: &str,
    dir: &str,
    key: &str,
) -> Result<Removed, Fault> {
    let from = match as_place(&cx.env.settings, store, STORE_PATH) {
        Ok(from) => from,
        Err(Fault::Failed(why)) => return Ok(Removed::Left(why)),
        Err(other) => return Err(other),
    };
    let task = StoreTask::Remove { from, dir: dir.to_owned() };
    let order = OwnOrder { key, target, task, stores: vec![(store, STORE_PATH)], identity: false };
    Ok(match work::run_own(cx, &order).await? {
        Outcome::Done(_) => Removed::Done,
        Outcome::Wait(wait) => Removed::Wait(wait),
        Outcome::Failed(fault) => Removed::Left(fault.message),
    })
}

/// As [`remove`], to take a step back; tried a few times and no more. What is left has no manifest, or no entry in the
/// catalogue, so that it is no backup; a store that is away must not keep the service from others.
///
/// # Errors
/// What the engine says.
pub async fn take_back(
    cx: &mut Cx<'_>,
    target: &Target,
    store: &str,
    dir: &str,
    key: &str,
) -> Result<Removed, Fault> {
    let removed = remove(cx, target, store, dir, key).await?;
    let attempt = cx.record().jobs.get(key).map_or(0, |job| job.attempt);
    match removed {
        Removed::Wait(wait) if attempt > ATTEMPTS_BACK => match work::give_up(cx, key).await? {
            Some(wait) => Ok(Removed::Wait(wait)),
            None => Ok(Removed::Left(wait.why)),
        },
        removed => Ok(removed),
    }
}

/// Removes the copies of a backup, which is marked as being removed. The keys of the jobs begin with `key`.
///
/// # Errors
/// What the engine says.
pub async fn remove_copies(
    cx: &mut Cx<'_>,
    target: &Target,
    backup: &Backup,
    key: &str,
) -> Result<Removed, Fault> {
    let entry = &backup.entry;
    // One that was begun and is not noted is where the labels want it.
    let known = |store: &&String| cx.env.settings.stores.contains_key(*store) && **store != entry.store;
    let mut copies: Vec<String> = backup.copies.clone();
    copies.extend(target.copies.iter().filter(known).filter(|c| !backup.copies.contains(c)).cloned());
    for (nth, store) in copies.iter().enumerate() {
        match remove(cx, target, store, &entry.dir, &format!("{key}x{nth}")).await? {
            Removed::Done => catalogue::mark_copy(cx, &entry.id, store, false).await?,
            left => return Ok(left),
        }
    }
    Ok(Removed::Done)
}

/// Backups of the plan that jobs read where they are, by the store that has them, in the order of the first of each; and why
/// others cannot be read by jobs that work where the live data is, by id. What has to be fetched is in neither.
///
/// # Errors
/// What the engine says.
pub async fn shelves<'a>(
    cx: &Cx<'_>,
    frozen: &'a Frozen,
) -> Result<(Vec<Shelf<'a>>, BTreeMap<String, String>), Fault> {
    let (mut shelves, mut unread): (Vec<Shelf<'a>>, _) = (Vec::new(), BTreeMap::new());
    for entry in frozen.candidates.iter().filter(|e| !is_fetched(&cx.env.settings, frozen, e)) {
        match whereabouts::beside_data(cx, &frozen.target, entry).await? {
            Err(why) => drop(unread.insert(entry.id.clone(), why)),
            Ok(target) => match shelves.iter_mut().find(|s| s.target.store == target.store) {
                Some(shelf) => shelf.entries.push(entry),
                None => shelves.push(Shelf { target, entries: vec![entry] }),
            },
        }
    }
    Ok((shelves, unread))
}

/// Makes a backup of the plan readable for jobs of its database on the data's node: where it is, or fetched to the staging
/// volume from its store, else from a copy. `key`, of at most four characters and beginning with `f` or `uf`, tells its jobs
/// from others of the step.
///
/// # Errors
/// What the engine says.
pub async fn at_hand(cx: &mut Cx<'_>, frozen: &Frozen, entry: &Entry, key: &str) -> Result<Hand, Fault> {
    let target = &frozen.target;
    if !is_fetched(&cx.env.settings, frozen, entry) {
        return Ok(match whereabouts::beside_data(cx, target, entry).await? {
            Ok(target) => Hand::Here(Box::new(target)),
            Err(message) => Hand::Lost(JobFault { kind: FaultKind::Circumstance, message }),
        });
    }
    let encrypted = entry.inner.as_ref().is_some_and(|i| i.encrypted);
    if encrypted && cx.env.settings.identity.is_none() {
        return Ok(Hand::Lost(JobFault { kind: FaultKind::Circumstance, message: NO_IDENTITY.to_owned() }));
    }
    let stores: Vec<String> = std::iter::once(&entry.store).chain(frozen.copies_of(entry)).cloned().collect();
    let (mut why, mut is_final) = (Vec::new(), true);
    for (nth, store) in stores.iter().enumerate() {
        if nth == 0
            && let Err(message) = whereabouts::beside_data(cx, target, entry).await?
        {
            why.push(message);
            is_final = false;
            continue;
        }
        match fetch(cx, target, entry, store, &format!("{key}{nth}"), encrypted).await? {
            Outcome::Done(_) => {
                for why in &why {
                    cx.remark(format!("backup {} was read from its copy in `{store}`: {why}", entry.id));
                }
                return Ok(Hand::Here(Box::new(Target { store: STAGE.to_owned(), ..target.clone() })));
            }
            Outcome::Wait(wait) => {
                let why = format!("fetching backup {} from `{store}`: {}", entry.id, wait.why);
                return Ok(Hand::Wait(Wait { why, ..wait }));
            }
            Outcome::Failed(fault) => {
                is_final &= fault.kind == FaultKind::Final;
                why.push(format!("store `{store}`: {}", fault.message));
            }
        }
    }
    // Only where every store was read, and none gave what was registered, is the backup itself to blame.
    let kind = if is_final { FaultKind::Final } else { FaultKind::Circumstance };
    Ok(Hand::Lost(JobFault { kind, message: why.join("; ") }))
}

/// Refuses a restore in place whose way back could not be read.
///
/// # Errors
/// When the safety backup would be encrypted and nothing can decrypt it.
pub fn can_go_back(settings: &Settings, target: &Target) -> Result<(), Fault> {
    if target.encrypt.is_empty() || settings.identity.is_some() {
        return Ok(());
    }
    Err(Fault::failed(format!("in place, the safety backup is the only way back: {NO_IDENTITY}")))
}

async fn fetch(
    cx: &mut Cx<'_>,
    target: &Target,
    entry: &Entry,
    store: &str,
    key: &str,
    encrypted: bool,
) -> Result<Outcome, Fault> {
    let from = match as_place(&cx.env.settings, store, STORE_PATH) {
        Ok(from) => from,
        Err(Fault::Failed(message)) => {
            return Ok(Outcome::Failed(JobFault { kind: FaultKind::Circumstance, message }));
        }
        Err(other) => return Err(other),
    };
    let task = StoreTask::Fetch(Fetch {
        id: entry.id.clone(),
        dir: entry.dir.clone(),
        manifest_sha256: entry.manifest_sha256.clone(),
        from,
        identity_file: encrypted.then(|| work::IDENTITY_PATH.to_owned()),
    });
    let stores = vec![(store, STORE_PATH)];
    work::run_own(cx, &OwnOrder { key, target, task, stores, identity: encrypted }).await
}

/// Reads every file of a backup in its store and compares its checksum, without decoding anything.
///
/// # Errors
/// What the engine says.
pub async fn check(cx: &mut Cx<'_>, target: &Target, entry: &Entry, key: &str) -> Result<Outcome, Fault> {
    let task = StoreTask::Check {
        id: entry.id.clone(),
        dir: entry.dir.clone(),
        manifest_sha256: entry.manifest_sha256.clone(),
        from: as_place(&cx.env.settings, &entry.store, STORE_PATH)?,
    };
    let stores = vec![(entry.store.as_str(), STORE_PATH)];
    work::run_own(cx, &OwnOrder { key, target, task, stores, identity: false }).await
}

/// Lists what a bucket has of a service.
///
/// # Errors
/// What the engine says.
pub async fn scan(
    cx: &mut Cx<'_>,
    target: &Target,
    bucket: &S3,
    scan: StoreScan,
    key: &str,
) -> Result<Outcome, Fault> {
    let task = StoreTask::Scan { from: bucket_of(&target.store, bucket), scan };
    let stores = vec![(target.store.as_str(), STORE_PATH)];
    work::run_own(cx, &OwnOrder { key, target, task, stores, identity: false }).await
}

/// Writes reports into the target's store, and removes those of the oldest beyond `most`.
///
/// # Errors
/// What the engine says.
pub async fn write_reports(
    cx: &mut Cx<'_>,
    target: &Target,
    files: Vec<TextFile>,
    most: usize,
    key: &str,
) -> Result<Outcome, Fault> {
    let to = as_place(&cx.env.settings, &target.store, STORE_PATH)?;
    let task = StoreTask::Reports { to, files, most };
    let stores = vec![(target.store.as_str(), STORE_PATH)];
    work::run_own(cx, &OwnOrder { key, target, task, stores, identity: false }).await
}

/// What [`check`] has found.
///
/// # Errors
/// When the report is another task's.
pub fn checked(report: Report) -> Result<Verdict, Fault> {
    match report {
        Report::StoreVerify(verdict) => Ok(verdict),
        other => Err(unexpected(&other)),
    }
}

/// Copies a registered backup to another store, by a job on the node that has it.
///
/// # Errors
/// What the engine says.
pub async fn copy(
    cx: &mut Cx<'_>,
    target: &Target,
    entry: &Entry,
    to: &str,
    key: &str,
) -> Result<Outcome, Fault> {
    let failed = |message| Ok(Outcome::Failed(JobFault { kind: FaultKind::Circumstance, message }));
    let node = match whereabouts::holder(cx, entry).await? {
        Holder::Any => target.node.clone(),
        Holder::Node(node) => Some(node),
        Holder::Away(why) | Holder::Gone(why) => return failed(why),
    };
    if cx.env.settings.stores.get(to).is_some_and(Store::is_of_each_node) {
        return failed(format!(
            "store `{to}` is a volume of each node's own: a copy there would be lost together with the data"
        ));
    }
    let places = as_place(&cx.env.settings, &entry.store, STORE_PATH)
        .and_then(|from| Ok((from, as_place(&cx.env.settings, to, COPY_PATH)?)));
    let (from, there) = match places {
        Ok(places) => places,
        Err(Fault::Failed(why)) => return failed(why),
        Err(other) => return Err(other),
    };
    let task = StoreTask::Copy {
        from,
        to: there,
        dir: entry.dir.clone(),
        manifest_sha256: entry.manifest_sha256.clone(),
    };
    let stores = vec![(entry.store.as_str(), STORE_PATH), (to, COPY_PATH)];
    let target = Target { node, ..target.clone() };
    work::run_own(cx, &OwnOrder { key, target: &target, task, stores, identity: false }).await
}

/// Removes what the operation has fetched; without a plan, that was done before. What cannot be removed is remarked: it is
/// a copy. None = nothing more to wait for.
///
/// # Errors
/// What the engine says.
pub async fn clear(cx: &mut Cx<'_>, key: &str) -> Result<Option<Wait>, Fault> {
    let fetched = |(_, record): &(String, super::record::StepRecord)| record.jobs.keys().any(|k| is_fetch(k));
    if !cx.op.journal.steps.iter().any(fetched) {
        return Ok(None);
    }
    let Some(frozen) = frozen::find::<Frozen>(cx.engine(), &cx.op.id).await? else { return Ok(None) };
    let target = &frozen.target;
    let mut dirs: Vec<String> = frozen.candidates.iter().map(|e| e.dir.clone()).collect();
    dirs.push(Place::safety(cx, target).dir);
    let nodes: Vec<String> = target.node.iter().cloned().collect();
    if !nodes.is_empty() && work::ready_node(cx, &nodes).await?.is_none() {
        cx.remark("what was fetched is left in the staging volume of a node that takes no jobs now");
        return work::give_up(cx, key).await;
    }
    let task = StoreTask::Clear { dirs };
    match work::run_own(cx, &OwnOrder { key, target, task, stores: Vec::new(), identity: false }).await? {
        Outcome::Done(_) => Ok(None),
        Outcome::Wait(wait) => Ok(Some(wait)),
        Outcome::Failed(fault) => {
            cx.remark(format!("what was fetched is left in the staging volume: {}", fault.message));
            Ok(None)
        }
    }
}

/// Whether a job fetches, by its key.
fn is_fetch(key: &str) -> bool {
    let rest = key.strip_prefix('f').or_else(|| key.strip_prefix("uf"));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// A store as a job reaches it, with its mount at `path`.
fn as_place(settings: &Settings, name: &str, path: &str) -> Result<StorePlace, Fault> {
    match settings.stores.get(name) {
        None => Err(Fault::failed(whereabouts::unknown(name))),
        Some(Store::Bind(_) | Store::Volume { .. }) => Ok(StorePlace::Mount { path: path.to_owned() }),
        Some(Store::S3(bucket)) => Ok(StorePlace::S3(bucket_of(name, bucket))),
    }
}

fn bucket_of(name: &str, bucket: &S3) -> S3Place {
    S3Place {
        endpoint: bucket.endpoint.clone(),
        region: bucket.region.clone(),
        bucket: bucket.bucket.clone(),
        prefix: bucket.prefix.clone(),
        path_style: bucket.path_style,
        credentials_file: work::credentials_path(name),
    }
}
