//! Copies of backups in further stores. One that fails does not fail the backup: it is remarked, and the next backup tries
//! again; where copies are stands in the catalogue.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::backup::Place;
use super::catalogue::{self, Backup, Purpose};
use super::frozen::Target;
use super::record::SERVICE;
use super::saga::{Cx, Fault, Progress, Wait};
use super::stores::{self, Removed};
use super::work::{self, Outcome};
use crate::swarm::object::Kind;

/// So many backups at most are brought to the stores that lack them, the newest first.
const MOST: usize = 4;

/// What the step journals before it acts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Copying {
    /// Backup and store; none before they were chosen.
    chosen: Option<Vec<(String, String)>>,
}

/// Copies the backups that a store lacks, this one first. Never fails for good.
///
/// # Errors
/// What the engine says, where it is worth trying again.
pub async fn copy(cx: &mut Cx<'_>, target: &Target) -> Result<Progress, Fault> {
    if target.copies.is_empty() {
        return Ok(Progress::done());
    }
    match copy_chosen(cx, target).await {
        Err(fault) => match fault.ends_step() {
            Some(why) => {
                if let Some(wait) = work::end_all_but(cx, "").await? {
                    return Ok(Progress::Wait(wait));
                }
                cx.remark(format!("not every copy was made, the next backup tries again: {why}"));
                Ok(Progress::done())
            }
            None => Err(fault),
        },
        progress => progress,
    }
}

async fn copy_chosen(cx: &mut Cx<'_>, target: &Target) -> Result<Progress, Fault> {
    let backups = backups(cx).await?;
    let chosen = match cx.scratch::<Copying>()?.chosen {
        Some(chosen) => chosen,
        None => {
            let chosen = lacking(&backups, &target.copies);
            cx.keep(&Copying { chosen: Some(chosen.clone()) }).await?;
            chosen
        }
    };
    let mut failed = Vec::new();
    for (nth, (id, store)) in chosen.iter().enumerate() {
        let Some(backup) = backups.iter().find(|b| b.entry.id == *id) else { continue };
        match stores::copy(cx, target, &backup.entry, store, &format!("c{nth}")).await? {
            Outcome::Done(_) if backup.copies.contains(store) => {}
            Outcome::Done(_) => catalogue::mark_copy(cx, id, store, true).await?,
            Outcome::Wait(wait) => {
                let why = format!("copying backup {id} to `{store}`: {}", wait.why);
                return Ok(Progress::Wait(Wait { why, ..wait }));
            }
            Outcome::Failed(fault) => {
                cx.remark(format!(
                    "backup {id} has no copy in the store `{store}`, the next backup tries again: {}",
                    fault.message
                ));
                failed.push(store);
            }
        }
    }
    Ok(Progress::Done(json!({ "chosen": chosen, "failed": failed })))
}

/// Removes the copies of this operation's own backup; those of earlier ones are as good as they are.
///
/// # Errors
/// What the engine says.
pub async fn undo(cx: &mut Cx<'_>, target: &Target, place: &Place) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    if cx.record().jobs.is_empty() {
        return Ok(Progress::done());
    }
    for (nth, store) in target.copies.iter().enumerate() {
        match stores::take_back(cx, target, store, &place.dir, &format!("u{nth}")).await? {
            Removed::Done => {}
            Removed::Wait(wait) => return Ok(Progress::Wait(wait)),
            Removed::Left(why) => cx.remark(format!("`{}` is left in the store `{store}`: {why}", place.dir)),
        }
    }
    Ok(Progress::done())
}

async fn backups(cx: &Cx<'_>) -> Result<Vec<Backup>, Fault> {
    let name = cx.op.intent.service.as_str();
    let configs = cx.engine().configs(Kind::Backup, &[(SERVICE, name)]).await?;
    Ok(configs.iter().filter_map(Backup::read).collect())
}

/// The newest backups that wanted stores lack, by id; pure. Those that a restore made of what it replaced are not copied, nor
/// is what was found spoilt.
pub fn lacking<'a>(
    backups: impl IntoIterator<Item = &'a Backup>,
    wanted: &[String],
) -> Vec<(String, String)> {
    let is_meant =
        |b: &&Backup| b.entry.purpose == Purpose::Regular && b.removing.is_none() && b.spoilt.is_none();
    let mut newest: Vec<&Backup> = backups.into_iter().filter(is_meant).collect();
    newest.sort_by_key(|b| std::cmp::Reverse(b.entry.taken));
    let missing = newest.into_iter().take(MOST).flat_map(|backup| {
        let lacks = |store: &&String| !backup.copies.contains(store) && **store != backup.entry.store;
        wanted.iter().filter(lacks).map(|store| (backup.entry.id.clone(), store.clone()))
    });
    missing.collect()
}
