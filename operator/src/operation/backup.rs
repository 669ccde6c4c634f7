//! Backup: claim ↩ plan ↩ dump ↩ verify ↩ (read back in full, manifest last) · ship ↩ · register ↩ · copy ↩ · prune ◆ · release.
//!
//! `ship` brings what was staged to its store; `copy` brings the backup to further stores. Where neither is asked for, they do nothing.
//!
//! A backup exists once it is registered; before that its directory has no manifest or no catalogue entry, and the
//! undo removes it. Once older ones are being removed it is not taken back any more. Nothing of the live data is touched at any moment.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_runner::Task;
use skep_runner::task::{Discard, PgBase};

use super::catalogue::{Entry, Origin, Purpose};
use super::data::{Dumped, Sealing};
use super::frozen::{self, Frozen, Target};
use super::journal::Compensation;
use super::saga::{Cx, Fault, Progress, Saga};
use super::settings::Store;
use super::stores::{self, Inner};
use super::work::{self, Access, Order, Outcome};
use super::{claim, copies, freeze, prune, wal};
use crate::engines::Directory;
use crate::swarm::error::Error;

/// The saga.
pub struct Backup;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds the service.
    Claim,
    /// What is to be backed up is frozen.
    Plan,
    /// The data is dumped into the store.
    Dump,
    /// The dump is read back in full; the manifest is written.
    Verify,
    /// What was staged is brought to its store.
    Ship,
    /// The catalogue knows the manifest's checksum.
    Register,
    /// Further stores get copies.
    Copy,
    /// Older backups that no rule keeps are removed.
    Prune,
    /// The service is given back.
    Release,
}

const STEPS: [Step; 9] = [
    Step::Claim,
    Step::Plan,
    Step::Dump,
    Step::Verify,
    Step::Ship,
    Step::Register,
    Step::Copy,
    Step::Prune,
    Step::Release,
];

/// The key of the job that brings a backup to its store.
pub const SHIP: &str = "ship";

/// Where one backup goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Backup id.
    pub id: String,
    /// Directory in the store.
    pub dir: String,
}

/// What the verify step found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sealed {
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// Bytes of all artefacts.
    pub size: u64,
    /// The data is that of this moment.
    pub taken: Timestamp,
    /// What is inside, where the files in the store are encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<Inner>,
    /// The base backup besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PgBase>,
}

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Dump => "dump",
            Step::Verify => "verify",
            Step::Ship => "ship",
            Step::Register => "register",
            Step::Copy => "copy",
            Step::Prune => "prune",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim
            | Step::Plan
            | Step::Dump
            | Step::Verify
            | Step::Ship
            | Step::Register
            | Step::Copy => Compensation::Undo,
            Step::Prune => Compensation::PointOfNoReturn,
            Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        false
    }
}

impl Saga for Backup {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => {
                let service = cx.op.intent.service.clone();
                claim::take(cx, &[service]).await
            }
            Step::Plan => {
                let target = freeze::target(cx).await?;
                frozen::store(cx, &Frozen::of(target)).await?;
                Ok(Progress::done())
            }
            Step::Dump => {
                let frozen = frozen::load(cx).await?;
                let place = Place::regular(cx, &frozen.target);
                match dump(cx, &frozen.target, &place, "dump").await? {
                    Progress::Done(dumped) if frozen.target.wal => {
                        wal::with_base(cx, &frozen.target, &place, dumped).await
                    }
                    other => Ok(other),
                }
            }
            Step::Verify => {
                let frozen = frozen::load(cx).await?;
                let place = Place::regular(cx, &frozen.target);
                let dumped: Dumped = cx.out("dump")?;
                seal(cx, &frozen.target, &place, &dumped, "seal").await
            }
            Step::Ship => {
                let frozen = frozen::load(cx).await?;
                let place = Place::regular(cx, &frozen.target);
                let sealed: Sealed = cx.out("verify")?;
                match stores::ship(cx, &frozen.target, &place, sealed, SHIP).await? {
                    Ok(sealed) => Ok(Progress::Done(to_value(cx, &sealed)?)),
                    Err(wait) => Ok(Progress::Wait(wait)),
                }
            }
            Step::Register => {
                let frozen = frozen::load(cx).await?;
                let place = Place::regular(cx, &frozen.target);
                let sealed: Sealed = cx.out("ship")?;
                register(cx, &frozen.target, &place, &sealed, Purpose::Regular).await?;
                Ok(Progress::Done(serde_json::json!({ "backup": place.id })))
            }
            Step::Copy => {
                let frozen = frozen::load(cx).await?;
                copies::copy(cx, &frozen.target).await
            }
            Step::Prune => {
                let frozen = frozen::load(cx).await?;
                prune::prune(cx, &frozen.target).await
            }
            Step::Release => release(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => claim::release(cx).await,
            Step::Plan => {
                frozen::remove(cx).await?;
                Ok(Progress::done())
            }
            Step::Dump => {
                let frozen = frozen::load(cx).await?;
                let place = Place::regular(cx, &frozen.target);
                discard(cx, &frozen.target, &place).await
            }
            Step::Verify => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
            Step::Ship => {
                let frozen = frozen::load(cx).await?;
                let place = Place::regular(cx, &frozen.target);
                stores::undo_ship(cx, &frozen.target, &place, SHIP).await
            }
            Step::Copy => {
                let frozen = frozen::load(cx).await?;
                let place = Place::regular(cx, &frozen.target);
                copies::undo(cx, &frozen.target, &place).await
            }
            Step::Register => {
                let frozen = frozen::load(cx).await?;
                let place = Place::regular(cx, &frozen.target);
                unregister(cx, &place).await?;
                Ok(Progress::done())
            }
            Step::Prune | Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }
}

// === impl Place ===

impl Place {
    /// The place of the backup that an operation makes.
    pub fn regular(cx: &Cx<'_>, target: &Target) -> Place {
        Place::of(target, cx.op.id.to_string())
    }

    /// The place of the safety backup that a restore makes.
    pub fn safety(cx: &Cx<'_>, target: &Target) -> Place {
        Place::of(target, format!("{}s", cx.op.id))
    }

    /// The place of the backup that a restore makes of a moment.
    pub fn recovered(cx: &Cx<'_>, target: &Target) -> Place {
        Place::of(target, format!("{}r", cx.op.id))
    }

    /// The place of a backup with this id.
    pub fn of(target: &Target, id: String) -> Place {
        let service = target.service();
        let stack = service.stack().unwrap_or("_");
        Place { dir: format!("v1/{stack}/{}/{id}", target.name), id }
    }
}

/// Dumps the data into a place; done = the report of the dump.
///
/// # Errors
/// When the dump fails, or what the engine says.
pub async fn dump(cx: &mut Cx<'_>, target: &Target, place: &Place, key: &str) -> Result<Progress, Fault> {
    // At each look, so that one that is started meanwhile, and writes to what is read, is noticed.
    not_while_it_runs(cx, target).await?;
    if let Some(wait) = stores::open(cx, target, place, &format!("o{key}")).await? {
        return Ok(Progress::Wait(wait));
    }
    let target = &stores::seen_by_jobs(&cx.env.settings, target);
    let task = target.dump(&place.dir)?;
    let order = Order { key, target, task, store: Some(Access::Write), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Failed(fault) => Err(Fault::failed(format!("the dump failed: {}", fault.message))),
        Outcome::Done(report) => {
            let dumped = Dumped::of(*report)?;
            not_of_another_place(cx, target, &dumped).await?;
            Ok(Progress::Done(to_value(cx, &dumped)?))
        }
    }
}

/// A volume that does not exist is made, empty, where it is asked for: where no task says that it is the one with the data,
/// an empty one is taken for another.
async fn not_of_another_place(cx: &Cx<'_>, target: &Target, dumped: &Dumped) -> Result<(), Fault> {
    let is_empty = dumped.contents.as_ref().is_some_and(|contents| contents.entries == 0);
    if !is_empty || target.data.directory().is_none() || !cx.engine().tasks(&[&target.id]).await?.is_empty() {
        return Ok(());
    }
    Err(Fault::failed(format!(
        "no task of {} tells on which node its data is, and where its constraints allow it there is nothing; scale it up",
        target.name
    )))
}

/// The files of a broker are whole only while nothing runs on them.
async fn not_while_it_runs(cx: &Cx<'_>, target: &Target) -> Result<(), Fault> {
    if !target.data.directory().is_some_and(Directory::is_brokers) {
        return Ok(());
    }
    let tasks = cx.engine().tasks(&[&target.id]).await?;
    match tasks.iter().any(|task| !task.state.is_terminal()) {
        true => Err(Fault::failed(format!(
            "the files of a RabbitMQ, messages among them, are whole only while it is stopped: `docker service scale {}=0` \
             first; its definitions alone are backed up while it runs (skep.data=rabbitmq)",
            target.name
        ))),
        false => Ok(()),
    }
}

/// Reads a dump back in full and writes its manifest; done = [`Sealed`].
///
/// # Errors
/// When the dump is not whole, or what the engine says.
pub async fn seal(
    cx: &mut Cx<'_>,
    target: &Target,
    place: &Place,
    dumped: &Dumped,
    key: &str,
) -> Result<Progress, Fault> {
    let taken = dumped.taken()?;
    let target = &stores::seen_by_jobs(&cx.env.settings, target);
    let task = target.seal(&place.dir, target.manifest(&place.id, dumped))?;
    let order = Order { key, target, task, store: Some(Access::Write), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Failed(fault) => Err(Fault::failed(format!("the backup is not whole: {}", fault.message))),
        Outcome::Done(report) => {
            let Sealing { manifest_sha256, size } = Sealing::of(*report)?;
            Ok(Progress::Done(to_value(
                cx,
                &Sealed { manifest_sha256, size, taken, inner: None, base: dumped.base.clone() },
            )?))
        }
    }
}

/// Registers a sealed backup. Finding it registered means that an earlier poll came this far.
///
/// # Errors
/// What the engine says.
pub async fn register(
    cx: &mut Cx<'_>,
    target: &Target,
    place: &Place,
    sealed: &Sealed,
    purpose: Purpose,
) -> Result<(), Fault> {
    let entry = entry(cx, target, place, sealed, purpose);
    let data =
        serde_json::to_vec(&entry).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
    cx.engine().ensure_config(&entry.config_name(), &entry.labels(cx.now()), &data).await?;
    Ok(())
}

/// The catalogue's entry of a sealed backup.
pub fn entry(cx: &Cx<'_>, target: &Target, place: &Place, sealed: &Sealed, purpose: Purpose) -> Entry {
    Entry {
        schema: Entry::version(sealed.inner.as_ref()),
        id: place.id.clone(),
        operation: cx.op.id.clone(),
        service: target.name.clone(),
        service_id: target.id.clone(),
        engine: target.data.word().to_owned(),
        database: target.database.clone(),
        store: target.store.clone(),
        dir: place.dir.clone(),
        manifest_sha256: sealed.manifest_sha256.clone(),
        size: sealed.size,
        taken: sealed.taken,
        purpose,
        node: node_of_files(cx, target),
        origin: Origin::Made,
        inner: sealed.inner.clone(),
        base: sealed.base.clone(),
    }
}

/// The node that has the files of the target's backups, where its store is, or may be, one of each node's own.
pub fn node_of_files(cx: &Cx<'_>, target: &Target) -> Option<String> {
    let store = cx.env.settings.stores.get(&target.store)?;
    target.node.clone().filter(|_| store.is_of_each_node() || matches!(store, Store::Bind(_)))
}

/// Takes a backup out of the catalogue, before its files go.
///
/// # Errors
/// What the engine says.
pub(super) async fn unregister(cx: &mut Cx<'_>, place: &Place) -> Result<(), Fault> {
    match cx.engine().config(&format!("{}{}", super::catalogue::PREFIX, place.id)).await {
        Ok(config) => Ok(cx.engine().remove_config(&config.id).await?),
        Err(Error::NotFound { .. }) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Ends what is left of the dump, then removes its directory.
///
/// # Errors
/// What the engine says.
pub async fn discard(cx: &mut Cx<'_>, target: &Target, place: &Place) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    if cx.record().jobs.is_empty() {
        return Ok(Progress::done());
    }
    let target = &stores::seen_by_jobs(&cx.env.settings, target);
    let task = Task::Discard(Discard { dir: place.dir.clone(), sealed: true });
    let order = Order { key: "undo", target, task, store: Some(Access::Write), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Done(_) => Ok(Progress::done()),
        Outcome::Failed(fault) => {
            cx.remark(format!("`{}` is left in the store `{}`: {}", place.dir, target.store, fault.message));
            Ok(Progress::done())
        }
    }
}

/// Gives the services back and forgets the plan.
///
/// # Errors
/// What the engine says.
pub async fn release(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    frozen::remove(cx).await?;
    claim::release(cx).await
}

fn to_value<T: Serialize>(cx: &Cx<'_>, value: &T) -> Result<Value, Fault> {
    serde_json::to_value(value).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}
