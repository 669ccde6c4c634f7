//! The window after an update, in which a red flag takes it back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::decide::{Exits, ROUNDS, Stands, red_flag, rounds_due};
use super::flags::Looked;
use super::{Frozen, apply, found};
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::work;
use crate::operation::{checks, claim, lines};

/// It is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// What the step journals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watching {
    /// Tasks with the new image that ended.
    #[serde(default, skip_serializing_if = "Exits::is_empty")]
    exits: Exits,
    /// How often the checks have passed.
    #[serde(default)]
    rounds: u32,
    /// What was seen of what the labels ask for.
    #[serde(default, skip_serializing_if = "Looked::is_none")]
    flags: Looked,
}

/// Watches until the window is over.
pub(super) async fn run(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Progress, Fault> {
    let name = &frozen.client.name;
    let began = cx.record().began;
    let watched = cx.since(began);
    let held = frozen.full.as_ref().map_or_else(|| vec![name.clone()], |scope| scope.held(name));
    if let Some(restore) = claim::restoring(cx, &held).await? {
        return give_way(cx, name, watched, &claim::named(&restore)).await;
    }
    let service = found(cx, frozen).await?;
    let service = service.ok_or_else(|| Fault::failed(format!("{name} was removed meanwhile")))?;
    match frozen.change.stands(&service.spec) {
        Stands::Settled | Stands::Written => {}
        Stands::Base => return Err(Fault::failed(apply::went_back(&service))),
        Stands::Returning | Stands::Otherwise => return Err(Fault::failed(apply::changed(name))),
    }
    let mut watching: Watching = cx.scratch()?;
    let tasks = apply::new_tasks(cx, frozen).await?;
    let end = began.checked_add(Duration::from_secs(frozen.monitor_s)).unwrap_or(began);
    let flag = match red_flag(tasks.iter(), &mut watching.exits) {
        None => watching.flags.look(cx, frozen, &tasks, end).await?,
        flag => flag,
    };
    cx.keep(&watching).await?;
    if let Some(flag) = flag {
        return Err(Fault::failed(format!("red flag: {flag}")));
    }
    let due = rounds_due(watched.as_secs(), frozen.monitor_s);
    if due > watching.rounds {
        // A round that has begun is ended before the next one.
        let round = watching.rounds + 1;
        if let Some(progress) = checks::after(cx, &frozen.client, round).await? {
            return Ok(match progress {
                Progress::Wait(wait) => Progress::Wait(Wait { again: LOOK, ..wait }),
                other => other,
            });
        }
        lines::count(cx, std::slice::from_ref(&frozen.client)).await?;
        watching.rounds = round;
        cx.keep(&watching).await?;
    }
    if watching.rounds >= ROUNDS && !watching.flags.is_open(frozen, end, cx.now()) {
        for remark in watching.flags.remarks(frozen) {
            cx.remark(remark);
        }
        return Ok(Progress::Done(json!({ "watched_s": watched.as_secs(), "exits": watching.exits.len() })));
    }
    let left = Duration::from_secs(frozen.monitor_s).saturating_sub(watched);
    // Each note is a write: now and then is enough.
    let tenths = watched.as_secs().saturating_mul(10).checked_div(frozen.monitor_s).unwrap_or(10).min(10);
    let percent = u8::try_from(tenths * 10).ok();
    let why = format!("watched for red flags, {} s in all", frozen.monitor_s);
    Ok(Progress::Wait(Wait { why, percent, again: LOOK.min(left.max(Duration::from_millis(100))) }))
}

/// Whoever restores does so because something is wrong now.
async fn give_way(cx: &mut Cx<'_>, name: &str, watched: Duration, restore: &str) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    let watched_s = watched.as_secs();
    cx.remark(format!("{name} was watched for {watched_s} s only: {restore} goes first"));
    Ok(Progress::Done(json!({ "watched_s": watched_s, "gave_way": true })))
}
