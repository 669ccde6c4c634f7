//! Prune: the last work of a backup removes the older ones that no rule keeps any more ([`super::retention`]).
//!
//! ```text
//! choose, journal → for each: mark "being removed" → delete its directory by a job → remove its entry
//! ```
//! Marked, a backup is no candidate for any restore, so nothing that can be restored is ever half there; its entry goes
//! last, so a directory whose removal failed is not forgotten: the next backup tries again.
//!
//! Invariants: a backup that has been registered is not failed by what goes wrong here, only remarked on; from the
//! first mark on it is not taken back either, since older ones may be gone. While a restore of the service is open
//! nothing is marked: it may want any of them. What goes is judged anew, by the labels as they are, before each mark.

use serde::{Deserialize, Serialize};
use serde_json::json;
use skep_runner::Task;
use skep_runner::task::Discard;
use tracing::info;

use super::catalogue::{self, Backup, Entry};
use super::freeze;
use super::frozen::Target;
use super::points;
use super::record::{JobRecordState, Operation, SERVICE, Work};
use super::retention::{Cause, Fate, Rules, spare};
use super::saga::{Cx, Fault, Progress, Wait};
use super::stores::{self, Removed};
use super::wal;
use super::whereabouts::{self, Holder};
use super::work::{self, Access, Order, Outcome};
use crate::policy;
use crate::swarm::error::Error;
use crate::swarm::object::{Config, Kind};

/// So many are removed after one backup; the rest goes after the next.
const MOST: usize = 16;

/// What the step journals before it acts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Pruning {
    /// Ids of the backups to remove, the oldest first; none before they were chosen.
    chosen: Option<Vec<String>>,
}

/// How far the removal of one backup is.
enum Removal {
    /// Nothing of it is left.
    Done,
    /// Not yet.
    Wait(Wait),
    /// Something stands against it for now.
    Left(String),
}

/// Removes what goes. Never fails for good.
///
/// # Errors
/// What the engine says, where it is worth trying again.
pub async fn prune(cx: &mut Cx<'_>, target: &Target) -> Result<Progress, Fault> {
    match remove_all(cx, target).await {
        Err(fault) => match fault.ends_step() {
            Some(why) => {
                if let Some(wait) = work::end_all_but(cx, "").await? {
                    return Ok(Progress::Wait(wait));
                }
                cx.remark(format!(
                    "what no rule keeps was not all removed, the next backup tries again: {why}"
                ));
                Ok(Progress::done())
            }
            None => Err(fault),
        },
        progress => progress,
    }
}

/// The backups, then what of the write-ahead log none of the others needs.
async fn remove_all(cx: &mut Cx<'_>, target: &Target) -> Result<Progress, Fault> {
    match remove_chosen(cx, target).await? {
        Progress::Done(done) if target.wal => wal::prune(cx, target, done).await,
        other => Ok(other),
    }
}

async fn remove_chosen(cx: &mut Cx<'_>, target: &Target) -> Result<Progress, Fault> {
    let chosen = cx.scratch::<Pruning>()?.chosen;
    if let Some((nth, config, backup)) = under_way(cx, chosen.as_deref().unwrap_or_default()).await?
        && let Removal::Wait(wait) = remove(cx, target, nth, &config, &backup).await?
    {
        return Ok(Progress::Wait(wait));
    }
    let going = going(cx).await?;
    let chosen = match chosen {
        Some(chosen) => chosen,
        None => {
            let chosen: Vec<String> = going.iter().take(MOST).map(|(_, b)| b.entry.id.clone()).collect();
            cx.keep(&Pruning { chosen: Some(chosen.clone()) }).await?;
            chosen
        }
    };
    let mut left = Vec::new();
    for (nth, id) in chosen.iter().enumerate() {
        // One that is not among them is gone, or stays after all.
        let Some((config, backup)) = going.iter().find(|(_, b)| b.entry.id == *id) else { continue };
        match remove(cx, target, nth, config, backup).await? {
            Removal::Done => {}
            Removal::Wait(wait) => return Ok(Progress::Wait(wait)),
            Removal::Left(why) => {
                cx.remark(format!("backup {id} could not be removed, the next backup tries again: {why}"));
                left.push(id);
            }
        }
    }
    Ok(Progress::Done(json!({ "chosen": chosen, "left": left })))
}

/// The backup whose files a job is removing: while that runs, nothing needs to be judged.
async fn under_way(cx: &mut Cx<'_>, chosen: &[String]) -> Result<Option<(usize, Config, Backup)>, Fault> {
    let jobs = &cx.record().jobs;
    let is_open = |nth: usize| jobs.get(&key(nth)).is_some_and(|job| job.state != JobRecordState::Closed);
    let Some((nth, id)) = chosen.iter().enumerate().find(|(nth, _)| is_open(*nth)) else { return Ok(None) };
    let config = match cx.engine().config(&format!("{}{id}", catalogue::PREFIX)).await {
        Ok(config) => config,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    Ok(Backup::read(&config).filter(|b| b.removing.is_some()).map(|backup| (nth, config, backup)))
}

/// The key of the job that removes the files of this one of the chosen.
fn key(nth: usize) -> String {
    format!("d{nth}")
}

/// The backups that go now, the oldest first.
async fn going(cx: &Cx<'_>) -> Result<Vec<(Config, Backup)>, Fault> {
    let name = cx.op.intent.service.as_str();
    let policy = policy::parse(&freeze::service(cx).await?.labels()).policy;
    let Some(rules) = Rules::of(&policy) else { return Ok(Vec::new()) };
    let wanted = is_wanted(cx, name).await?;
    let configs = cx.engine().configs(Kind::Backup, &[(SERVICE, name)]).await?;
    let all: Vec<(Config, Backup)> =
        configs.into_iter().filter_map(|c| Some((Backup::read(&c)?, c))).map(|(b, c)| (c, b)).collect();
    let mut verdicts = rules.judge(all.iter().map(|(_, b)| b), cx.now());
    spare(&mut verdicts, &points::needed(&points::list(cx.engine(), None).await?));
    let goes = verdicts.iter().filter(|v| match v.fate {
        Fate::Stays(_) => false,
        Fate::Goes(Cause::BeingRemoved) => true,
        Fate::Goes(Cause::NoRule | Cause::SafetyIsOver) => !wanted,
    });
    let ids: Vec<&str> = goes.rev().map(|v| v.backup.entry.id.as_str()).collect();
    let one = |id: &&str| all.iter().find(|(_, b)| b.entry.id == *id).cloned();
    Ok(ids.iter().filter_map(one).collect())
}

/// Whether an open restore may want any backup of the service.
async fn is_wanted(cx: &Cx<'_>, service: &str) -> Result<bool, Fault> {
    let operations = cx.engine().configs(Kind::Operation, &[(SERVICE, service)]).await?;
    let is_open = |config: &Config| match Operation::read(config) {
        Ok(op) => matches!(op.intent.work, Work::Restore { .. }) && !op.journal.state.is_terminal(),
        Err(_) => true,
    };
    Ok(operations.iter().any(is_open))
}

async fn remove(
    cx: &mut Cx<'_>,
    target: &Target,
    nth: usize,
    config: &Config,
    backup: &Backup,
) -> Result<Removal, Fault> {
    let entry = &backup.entry;
    if !cx.env.settings.stores.contains_key(&entry.store) {
        return Ok(Removal::Left(whereabouts::unknown(&entry.store)));
    }
    let holder = whereabouts::holder(cx, entry).await?;
    if matches!(holder, Holder::Away(_) | Holder::Gone(_))
        && let Some(wait) = work::end_all_but(cx, "").await?
    {
        return Ok(Removal::Wait(wait));
    }
    let is_gone = matches!(holder, Holder::Gone(_));
    let node = match holder {
        Holder::Any => target.node.clone(),
        Holder::Node(node) => Some(node),
        Holder::Away(why) => return Ok(Removal::Left(why)),
        Holder::Gone(why) if backup.copies.is_empty() => {
            cx.remark(format!("backup {} is forgotten: {why}", entry.id));
            cx.engine().remove_config(&config.id).await?;
            return Ok(Removal::Done);
        }
        Holder::Gone(_) => target.node.clone(),
    };
    let target = Target { store: entry.store.clone(), node, ..target.clone() };
    if backup.removing.is_none() {
        match catalogue::mark_removing(cx, config).await {
            Ok(()) => {}
            Err(Error::NotFound { .. }) => return Ok(Removal::Done),
            Err(other) => return Err(other.into()),
        }
    }
    let key = key(nth);
    match stores::remove_copies(cx, &target, backup, &key).await? {
        Removed::Done if is_gone => return forget(cx, config, entry).await,
        Removed::Done => {}
        Removed::Wait(wait) => return Ok(Removal::Wait(removing(entry, &wait))),
        Removed::Left(why) => return Ok(Removal::Left(why)),
    }
    if !stores::is_direct(&cx.env.settings, entry) {
        return match stores::remove(cx, &target, &entry.store, &entry.dir, &key).await? {
            Removed::Done => forget(cx, config, entry).await,
            Removed::Wait(wait) => Ok(Removal::Wait(removing(entry, &wait))),
            Removed::Left(why) => Ok(Removal::Left(why)),
        };
    }
    let task = Task::Discard(Discard { dir: entry.dir.clone(), sealed: true });
    let order = Order { key: &key, target: &target, task, store: Some(Access::Write), data: false };
    Ok(match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Removal::Wait(removing(entry, &wait)),
        Outcome::Failed(fault) => Removal::Left(fault.message),
        Outcome::Done(_) => forget(cx, config, entry).await?,
    })
}

fn removing(entry: &Entry, wait: &Wait) -> Wait {
    Wait { why: format!("removing backup {}: {}", entry.id, wait.why), ..wait.clone() }
}

/// Takes a backup out of the catalogue whose files are gone.
async fn forget(cx: &Cx<'_>, config: &Config, entry: &Entry) -> Result<Removal, Fault> {
    cx.engine().remove_config(&config.id).await?;
    info!(service = entry.service, "backup {} is removed", entry.id);
    Ok(Removal::Done)
}
