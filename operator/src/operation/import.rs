//! Import: takes the backups that a store holds into the catalogue, for a Swarm that was lost. plan ↩ · scan · take ↩ · release.
//!
//! ```text
//! scan: what the manifests claim, page by page → compare with the catalogue, choose, journal
//! take: for each: a job reads and hashes it in full → register as imported → journal
//!       (made by people, see `layout`: a job copies it, another one reads the copy in full and writes its manifest)
//! ```
//! Nothing is held and nothing that lies in the store is changed. A restore of the service goes first, as in [`super::verify`].
//!
//! Invariants: nothing is registered whose files were not read and found to be what its manifest says; what is registered
//! under an id stays as it is, and an id that is registered with another checksum refuses the whole import, before
//! anything is registered. The Swarm cannot vouch for what was not registered in it: each entry says that it was imported.

mod layout;
mod listing;

use std::time::Duration;

pub use listing::{ByHand, Listed, Listing};
use serde::{Deserialize, Serialize};
use skep_runner::task::{LayoutScan, LayoutScanned, Scanned, StoreScan, Verdict};
use skep_runner::{Artefact, Report, Task};

use super::catalogue::{Backup, Entry, Origin};
use super::data::unexpected;
use super::frozen::{self, Frozen, Target};
use super::journal::Compensation;
use super::reading::{self, First, Flaw, Read};
use super::record::Work;
use super::saga::{Cx, Fault, Progress, Saga, Wait};
use super::settings::Store;
use super::stores;
use super::work::{self, Access, Order, Outcome};
use super::{backup, freeze};
use crate::swarm::object::{Kind, OP};

/// The saga.
pub struct Import;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Store and image are frozen.
    Plan,
    /// What the store holds is listed and compared with the catalogue.
    Scan,
    /// Each backup is read in full, then registered.
    Take,
    /// The plan is forgotten.
    Release,
}

const STEPS: [Step; 4] = [Step::Plan, Step::Scan, Step::Take, Step::Release];
/// Directories that one job lists.
const PAGE: u32 = 50;

/// How far the taking is, and what it came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// Tells its jobs apart.
    pub turn: u32,
    /// Ids of those that are registered now.
    pub taken: Vec<String>,
    /// Those that are not what their manifests say, or could not be read: not registered.
    pub refused: Vec<Flaw>,
    /// Directories that this import has filled with copies of files that people made.
    #[serde(default)]
    pub copied: Vec<Copied>,
}

/// A copy of a file that people made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copied {
    /// The backup's directory.
    pub dir: String,
    /// The copy in it.
    pub artefact: Artefact,
}

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Plan => "plan",
            Step::Scan => "scan",
            Step::Take => "take",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Plan | Step::Scan | Step::Take => Compensation::Undo,
            Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        false
    }
}

impl Saga for Import {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Plan => {
                let Wish { store, layout, .. } = wish(cx)?;
                if layout.is_some() && matches!(cx.env.settings.stores.get(&store), Some(Store::S3(_))) {
                    return Err(Fault::failed(format!(
                        "store `{store}` is a bucket: files that people made are taken in from mounted stores only"
                    )));
                }
                let target = freeze::reader(cx, &store).await?;
                frozen::store(cx, &Frozen::of(target)).await?;
                Ok(Progress::done())
            }
            Step::Scan => scan(cx).await,
            Step::Take => take(cx).await,
            Step::Release => backup::release(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Plan => {
                frozen::remove(cx).await?;
                Ok(Progress::done())
            }
            Step::Scan => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
            Step::Take => {
                if let Some(wait) = work::abandon(cx).await? {
                    return Ok(Progress::Wait(wait));
                }
                unregister(cx).await?;
                layout::discard(cx).await
            }
            Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }
}

/// What was asked for.
struct Wish {
    store: String,
    from: String,
    quick: bool,
    layout: Option<String>,
    dry_run: bool,
}

fn wish(cx: &Cx<'_>) -> Result<Wish, Fault> {
    let Work::Import { store, from, quick, layout, dry_run } = cx.op.intent.work.clone() else {
        return Err(Fault::failed("this is not an import"));
    };
    let from = from.unwrap_or_else(|| cx.op.intent.service.clone());
    Ok(Wish { store, from, quick, layout, dry_run })
}

async fn scan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let Wish { from, store, layout, .. } = wish(cx)?;
    let target = frozen::load(cx).await?.target;
    let mut listing: Listing = cx.scratch()?;
    match reading::give_way(cx).await? {
        First::Nobody => {}
        First::Ending(wait) => return Ok(Progress::Wait(wait)),
        First::Restore(wait) => {
            if !cx.record().jobs.is_empty() {
                listing.turn += 1;
                cx.record().jobs.clear();
                cx.keep(&listing).await?;
            }
            return Ok(Progress::Wait(wait));
        }
    }
    let key = format!("s{}", listing.turn);
    let page = StoreScan { service: from.clone(), after: listing.after.clone(), most: PAGE };
    let bucket = cx.env.settings.stores.get(&store).cloned();
    let outcome = match (&layout, bucket) {
        (None, Some(Store::S3(bucket))) => stores::scan(cx, &target, &bucket, page, &key).await?,
        (None, _) => scan_mount(cx, &target, Task::StoreScan(page), &key).await?,
        (Some(dir), _) => {
            scan_mount(cx, &target, Task::LayoutScan(LayoutScan { dir: dir.clone() }), &key).await?
        }
    };
    let scanned = match outcome {
        Outcome::Wait(wait) => return Ok(Progress::Wait(wait)),
        Outcome::Failed(fault) => {
            return Err(Fault::failed(format!("the store cannot be listed: {}", fault.message)));
        }
        Outcome::Done(report) => match *report {
            Report::StoreScan(scanned) => Seen::Store(scanned),
            Report::LayoutScan(scanned) => Seen::Layout(*scanned),
            other => return Err(unexpected(&other)),
        },
    };
    let registered = cx.engine().configs(Kind::Backup, &[]).await?;
    let registered: Vec<Backup> = registered.iter().filter_map(Backup::read).collect();
    let more = match scanned {
        Seen::Store(scanned) => listing.page(scanned, &from, &registered).map_err(Fault::Failed)?,
        Seen::Layout(scanned) => {
            layout::list(&mut listing, &target, freeze::keeps(cx).await?.as_ref(), scanned, &registered)
                .map_err(Fault::Failed)?;
            false
        }
    };
    if !more {
        return listing.end(cx, &from, &store);
    }
    listing.turn += 1;
    cx.record().jobs.clear();
    cx.keep(&listing).await?;
    Ok(Progress::Wait(Wait { again: Duration::ZERO, ..Wait::new("the next page") }))
}

async fn scan_mount(cx: &mut Cx<'_>, target: &Target, task: Task, key: &str) -> Result<Outcome, Fault> {
    work::run(cx, &Order { key, target, task, store: Some(Access::Read), data: false }).await
}

/// What a job saw of the store.
enum Seen {
    Store(Scanned),
    Layout(LayoutScanned),
}

async fn take(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let Wish { quick, dry_run, .. } = wish(cx)?;
    let listing: Listing = cx.out("scan")?;
    let mut taken: Taken = cx.scratch()?;
    if dry_run {
        return done(cx, &taken);
    }
    let nth = taken.taken.len() + taken.refused.len();
    let Some(listed) = listing.new.get(nth) else { return done(cx, &taken) };
    match reading::give_way(cx).await? {
        First::Nobody => {}
        First::Ending(wait) => return Ok(Progress::Wait(wait)),
        First::Restore(wait) => {
            if !cx.record().jobs.is_empty() {
                taken.next(cx).await?;
            }
            return Ok(Progress::Wait(wait));
        }
    }
    let target = frozen::load(cx).await?.target;
    let Listed { id, .. } = listed;
    if let Some(by_hand) = &listed.by_hand {
        return layout::take(cx, &target, listed, by_hand, &mut taken).await;
    }
    let refused =
        match reading::read_entry(cx, &target, &entry(cx, &target, listed), quick, taken.turn).await? {
            Read::Wait(wait) => {
                let why = format!("backup {id} ({} of {}): {}", nth + 1, listing.new.len(), wait.why);
                return Ok(Progress::Wait(Wait { why, ..wait }));
            }
            Read::Unread(why) | Read::Done(Verdict::Spoilt { why }) => Some(why),
            Read::Done(Verdict::Whole { .. }) => register(cx, &target, listed).await?,
        };
    match refused {
        None => taken.taken.push(id.clone()),
        Some(why) => taken.refused.push(Flaw { id: id.clone(), why }),
    }
    taken.next(cx).await?;
    Ok(Progress::Wait(Wait { again: Duration::ZERO, ..Wait::new("the next backup") }))
}

fn done(cx: &mut Cx<'_>, taken: &Taken) -> Result<Progress, Fault> {
    if taken.taken.is_empty() && !taken.refused.is_empty() {
        let refused = reading::named(&taken.refused);
        return Err(Fault::failed(format!("nothing could be taken in: {refused}")));
    }
    if !taken.taken.is_empty() {
        cx.remark(format!(
            "{} backup(s) were imported; they were read in full just now, but that they are what was once backed up, only \
             a restore that passes its checks can show",
            taken.taken.len()
        ));
    }
    if !taken.refused.is_empty() {
        cx.remark(format!("not taken in: {}", reading::named(&taken.refused)));
    }
    let out = serde_json::to_value(taken);
    out.map(Progress::Done).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}

/// Registers what was just read; why not, where another one has taken its id meanwhile.
pub(super) async fn register(
    cx: &mut Cx<'_>,
    target: &Target,
    listed: &Listed,
) -> Result<Option<String>, Fault> {
    let entry = entry(cx, target, listed);
    let data =
        serde_json::to_vec(&entry).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
    cx.engine().ensure_config(&entry.config_name(), &entry.labels(cx.now()), &data).await?;
    // It may have been there already: what counts is what stands there.
    let stands = cx.engine().config(&entry.config_name()).await?;
    let is_it = Backup::read(&stands).is_some_and(|b| b.entry.manifest_sha256 == entry.manifest_sha256);
    Ok((!is_it).then(|| "another backup was registered under its id meanwhile".to_owned()))
}

/// What stands in the catalogue of a backup that is taken in.
fn entry(cx: &Cx<'_>, target: &Target, listed: &Listed) -> Entry {
    Entry {
        schema: Entry::version(listed.inner.as_ref()),
        id: listed.id.clone(),
        operation: cx.op.id.clone(),
        service: target.name.clone(),
        service_id: target.id.clone(),
        engine: listed.engine.clone(),
        database: listed.database.clone(),
        store: target.store.clone(),
        dir: listed.dir.clone(),
        manifest_sha256: listed.manifest_sha256.clone(),
        size: listed.size,
        taken: listed.taken,
        purpose: listed.purpose,
        node: backup::node_of_files(cx, target),
        origin: Origin::Imported,
        inner: listed.inner.clone(),
        base: listed.base.clone(),
    }
}

/// Takes what this import has registered out of the catalogue again.
async fn unregister(cx: &mut Cx<'_>) -> Result<(), Fault> {
    let op = cx.op.id.to_string();
    for config in cx.engine().configs(Kind::Backup, &[(OP, op.as_str())]).await? {
        cx.engine().remove_config(&config.id).await?;
    }
    Ok(())
}

// === impl Taken ===

impl Taken {
    /// Journals what was found, and forgets the jobs, of which nothing is left.
    pub(super) async fn next(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.turn += 1;
        cx.record().jobs.clear();
        cx.keep(&*self).await
    }
}
