//! The window after an update, in which a red flag takes it back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::decide::{Exits, ROUNDS, Stands, red_flag, rounds_due};
use super::each::Each;
use super::flags::Looked;
use super::{Frozen, Unit, apply, found};
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::work;
use crate::operation::{checks, claim, lines};

/// It is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// What the step journals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Watching {
    /// Of each service.
    #[serde(flatten)]
    each: Each<Watched>,
    /// How often the checks of all of them have passed.
    #[serde(default)]
    rounds: u32,
    /// Whether somebody changed one of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) theirs: bool,
}

/// What the step journals of one service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watched {
    /// Tasks with the new image that ended.
    #[serde(default, skip_serializing_if = "Exits::is_empty")]
    exits: Exits,
    /// What was seen of what the labels ask for.
    #[serde(default, skip_serializing_if = "Looked::is_none")]
    flags: Looked,
}

/// Watches all of them until the window is over.
pub(super) async fn run(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Progress, Fault> {
    let began = cx.record().began;
    let watched = cx.since(began);
    if let Some(restore) = claim::restoring(cx, &frozen.held()).await? {
        return give_way(cx, frozen, watched, &claim::named(&restore)).await;
    }
    for unit in frozen.units.iter() {
        still_ours(cx, unit).await?;
    }
    let mut watching: Watching = cx.scratch()?;
    let end = began.checked_add(Duration::from_secs(frozen.monitor_s)).unwrap_or(began);
    for (nth, unit) in frozen.units.iter().enumerate() {
        let tasks = apply::new_tasks(cx, nth, unit).await?;
        let watched = watching.each.at(nth);
        let flag = match red_flag(tasks.iter(), &mut watched.exits) {
            None => watched.flags.look(cx, unit, frozen.monitor_s, &tasks, end).await?,
            flag => flag,
        };
        if let Some(flag) = flag {
            cx.keep(&watching).await?;
            return Err(frozen.red_flag(unit, &flag));
        }
    }
    cx.keep(&watching).await?;
    let due = rounds_due(watched.as_secs(), frozen.monitor_s);
    if due > watching.rounds {
        // A round that has begun is ended before the next one.
        let round = watching.rounds + 1;
        for (nth, unit) in frozen.units.iter().enumerate() {
            if let Some(progress) = checks::after(cx, &unit.client, key(round, nth)).await? {
                return Ok(match progress {
                    Progress::Wait(wait) => Progress::Wait(Wait { again: LOOK, ..wait }),
                    other => other,
                });
            }
        }
        for unit in frozen.units.iter() {
            lines::count(cx, std::slice::from_ref(&unit.client)).await?;
        }
        watching.rounds = round;
        cx.keep(&watching).await?;
    }
    let units = || frozen.units.iter().zip(watching.each.iter());
    let is_open = units().any(|(unit, watched)| watched.flags.is_open(unit, end, cx.now()));
    if watching.rounds >= ROUNDS && !is_open {
        let remarks: Vec<String> = units().flat_map(|(unit, watched)| watched.flags.remarks(unit)).collect();
        remarks.into_iter().for_each(|remark| cx.remark(remark));
        let exits: usize = watching.each.iter().map(|watched| watched.exits.len()).sum();
        return Ok(Progress::Done(json!({ "watched_s": watched.as_secs(), "exits": exits })));
    }
    let left = Duration::from_secs(frozen.monitor_s).saturating_sub(watched);
    // Each note is a write: now and then is enough.
    let tenths = watched.as_secs().saturating_mul(10).checked_div(frozen.monitor_s).unwrap_or(10).min(10);
    let percent = u8::try_from(tenths * 10).ok();
    let why = format!("watched for red flags, {} s in all", frozen.monitor_s);
    Ok(Progress::Wait(Wait { why, percent, again: LOOK.min(left.max(Duration::from_millis(100))) }))
}

/// Ends the keys of a round's jobs, which are at most eight characters long.
fn key(round: u32, nth: usize) -> String {
    match nth {
        0 => round.to_string(),
        nth => format!("{round}u{nth}"),
    }
}

/// What somebody changed ends the watch, and the others stay as they are: all of them have the new image.
async fn still_ours(cx: &mut Cx<'_>, unit: &Unit) -> Result<(), Fault> {
    let name = &unit.client.name;
    let service = found(cx, unit).await?;
    let fault = match service.as_ref().map(|service| unit.change.stands(&service.spec)) {
        Some(Stands::Settled | Stands::Written) => return Ok(()),
        Some(Stands::Base) => {
            let why = service.as_ref().map(apply::went_back).unwrap_or_default();
            return Err(Fault::failed(why));
        }
        Some(Stands::Returning | Stands::Otherwise) => Fault::failed(apply::changed(name)),
        None => apply::removed(name),
    };
    let watching = Watching { theirs: true, ..cx.scratch()? };
    cx.keep(&watching).await?;
    Err(fault)
}

/// Whoever restores does so because something is wrong now.
async fn give_way(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    watched: Duration,
    restore: &str,
) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    let watched_s = watched.as_secs();
    let names: Vec<&str> = frozen.units.iter().map(|unit| unit.client.name.as_str()).collect();
    let (names, was) = (names.join(", "), if frozen.is_of_several() { "were" } else { "was" });
    cx.remark(format!("{names} {was} watched for {watched_s} s only: {restore} goes first"));
    Ok(Progress::Done(json!({ "watched_s": watched_s, "gave_way": true })))
}
