//! Replacing the tasks of services that run on: `ForceUpdate` is counted up, in the order that their mounts and ports allow.
//!
//! Nothing but that count and the update settings is written, over the version that was read; what somebody else writes
//! meanwhile stays (S12). What Swarm says of its rollout counts: one that it has paused, or taken back, is a failure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Roll, is_forced};
use crate::operation::rollout::{has_lent, lent, patience, put, up};
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::{checks, clients, lines};
use crate::swarm::object::{Service, UpdateState, short_hash};
use crate::swarm::spec;

/// What the step journals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Rolling {
    #[serde(default)]
    services: BTreeMap<String, Rolled>,
}

/// A service whose write was about to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rolled {
    /// When.
    at: Timestamp,
    /// The version that it was to replace.
    over: u64,
    /// The count of restarts that was found; null where there was none.
    was: Value,
    /// The count that was to be written.
    count: u64,
    /// The update settings that were found; null where there were none.
    own: Value,
    /// Those that were written in their place, where they were others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lent: Option<Value>,
    /// Tells the task template that was written from any other.
    template: String,
    /// Whether its tasks are new, and its own settings are back.
    #[serde(default)]
    settled: bool,
    /// When it was written back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    back: Option<Timestamp>,
}

/// Replaces the tasks of one service after the other.
pub(super) async fn run(cx: &mut Cx<'_>, rolls: &[Roll]) -> Result<Progress, Fault> {
    for (nth, roll) in rolls.iter().enumerate() {
        if let Some(wait) = roll_one(cx, roll).await? {
            return Ok(Progress::Wait(wait));
        }
        if let Some(progress) = checks::after(cx, &roll.client, nth).await? {
            return Ok(progress);
        }
    }
    let rolling: Rolling = cx.scratch()?;
    for roll in rolls {
        lines::count(cx, std::slice::from_ref(&roll.client)).await?;
        if let Some(rolled) = rolling.services.get(&roll.client.name) {
            checks::tell_ended(cx, &roll.client, rolled.at).await?;
        }
    }
    serde_json::to_value(&rolling)
        .map(Progress::Done)
        .map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}

async fn roll_one(cx: &mut Cx<'_>, roll: &Roll) -> Result<Option<Wait>, Fault> {
    let name = &roll.client.name;
    let Some(service) = clients::find(cx, &roll.client).await? else { return Ok(None) };
    if service.id != roll.client.id {
        cx.remark(format!("{name} was removed and made anew meanwhile: its tasks are new"));
        return Ok(None);
    }
    let Some(rolled) = cx.scratch::<Rolling>()?.services.remove(name) else {
        return begin(cx, roll, &service).await.map(Some);
    };
    if rolled.settled {
        return Ok(None);
    }
    if spec::force_update(&service.spec) >= rolled.count {
        return watch(cx, name, &service, rolled).await;
    }
    let update = service.update.as_ref();
    let is_taken_back = update.is_some_and(|u| {
        matches!(
            u.state,
            UpdateState::RollbackStarted | UpdateState::RollbackPaused | UpdateState::RollbackCompleted
        )
    });
    if is_taken_back && service.version != rolled.over {
        let why = update.map_or("", |u| u.message.as_str());
        return Err(Fault::failed(format!("the Swarm took the restart of {name} back: {why}")));
    }
    // It was never made, or somebody else wrote before.
    begin(cx, roll, &service).await.map(Some)
}

/// Writes a service over the version that was found, once no rollout of anybody's is under way.
async fn begin(cx: &mut Cx<'_>, roll: &Roll, service: &Service) -> Result<Wait, Fault> {
    let name = &roll.client.name;
    let state = service.update.as_ref().map(|u| u.state);
    let is_paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    if is_paused && !is_forced(cx) {
        return Err(Fault::failed(format!(
            "an update of {name} is paused: a restart would go on with it; end it first, or `--force`"
        )));
    }
    if service.is_rolling() {
        let began = cx.record().began;
        return match cx.since(began) <= patience(cx, service) {
            true => Ok(Wait::new(format!("a rollout of {name} is under way"))),
            false => Err(Fault::failed(format!("a rollout of {name} is under way, and does not end"))),
        };
    }
    let count = spec::force_update(&service.spec) + 1;
    let own = service.spec.get("UpdateConfig").cloned().unwrap_or(Value::Null);
    let mut wanted = service.spec.clone();
    spec::set_force_update(&mut wanted, count);
    let lent = lent(&own, roll.order);
    if let Some(lent) = &lent {
        wanted["UpdateConfig"] = lent.clone();
    }
    let rolled = Rolled {
        at: cx.now(),
        over: service.version,
        was: service.spec["TaskTemplate"].get("ForceUpdate").cloned().unwrap_or(Value::Null),
        count,
        own,
        lent,
        template: mark(&wanted),
        settled: false,
        back: None,
    };
    journal(cx, name, rolled).await?;
    cx.engine().update_service(&service.id, service.version, &wanted).await?;
    Ok(Wait::new(format!("{name} is told to restart")))
}

/// Waits until every task is new and Swarm says so, then puts the service's own settings back.
async fn watch(
    cx: &mut Cx<'_>,
    name: &str,
    service: &Service,
    rolled: Rolled,
) -> Result<Option<Wait>, Fault> {
    let update = service.update.as_ref();
    if let Some(update) =
        update.filter(|u| !matches!(u.state, UpdateState::Updating | UpdateState::Completed))
    {
        return Err(Fault::failed(format!("the Swarm stopped the restart of {name}: {}", update.message)));
    }
    let up = up(cx, service).await?;
    if !up.settled || service.is_rolling() {
        if cx.since(rolled.at) <= patience(cx, service) {
            return Ok(Some(Wait::new(format!("{name}: {}", up.said()))));
        }
        return Err(Fault::failed(format!("{name} does not come up: {}, {}", up.said(), up.error)));
    }
    if has_lent(&service.spec, rolled.lent.as_ref()) {
        cx.engine().update_service(&service.id, service.version, &given_back(service, &rolled)).await?;
        return Ok(Some(Wait::new(format!("{name}: its own update settings go back"))));
    }
    journal(cx, name, Rolled { settled: true, ..rolled }).await?;
    Ok(None)
}

/// Puts back what was found of the services that have not become new. What somebody else wrote over it stays.
pub(super) async fn undo(cx: &mut Cx<'_>, rolls: &[Roll]) -> Result<Progress, Fault> {
    for roll in rolls {
        let name = &roll.client.name;
        let Some(rolled) = cx.scratch::<Rolling>()?.services.remove(name).filter(|r| !r.settled) else {
            continue;
        };
        let Some(service) = clients::find(cx, &roll.client).await?.filter(|s| s.id == roll.client.id) else {
            continue;
        };
        if let Some(wait) = undo_one(cx, name, &service, rolled).await? {
            return Ok(Progress::Wait(wait));
        }
    }
    Ok(Progress::done())
}

async fn undo_one(
    cx: &mut Cx<'_>,
    name: &str,
    service: &Service,
    rolled: Rolled,
) -> Result<Option<Wait>, Fault> {
    if spec::force_update(&service.spec) == rolled.count && mark(&service.spec) == rolled.template {
        // Under the settings that were lent: its own may let the old task stop first. They go back after that.
        let mut wanted = service.spec.clone();
        put(&mut wanted["TaskTemplate"], "ForceUpdate", &rolled.was);
        let back = Some(cx.now());
        journal(cx, name, Rolled { back, ..rolled }).await?;
        cx.engine().update_service(&service.id, service.version, &wanted).await?;
        return Ok(Some(Wait::new(format!("{name} goes back"))));
    }
    if has_lent(&service.spec, rolled.lent.as_ref()) {
        // A write in the middle of a rollout would begin it anew.
        if service.is_rolling() && cx.since(rolled.at) <= 2 * patience(cx, service) {
            return Ok(Some(Wait::new(format!("a rollout of {name} is under way"))));
        }
        cx.engine().update_service(&service.id, service.version, &given_back(service, &rolled)).await?;
        return Ok(Some(Wait::new(format!("{name}: its own update settings go back"))));
    }
    let Some(since) = rolled.back else { return Ok(None) };
    let up = up(cx, service).await?;
    if up.settled && !service.is_rolling() {
        return Ok(None);
    }
    if cx.since(since) <= patience(cx, service) {
        return Ok(Some(Wait::new(format!("{name}: {}", up.said()))));
    }
    cx.remark(format!("{name}: its own spec is back, but {}: {}", up.said(), up.error));
    Ok(None)
}

fn given_back(service: &Service, rolled: &Rolled) -> Value {
    let mut wanted = service.spec.clone();
    if has_lent(&service.spec, rolled.lent.as_ref()) {
        put(&mut wanted, "UpdateConfig", &rolled.own);
    }
    wanted
}

fn mark(spec: &Value) -> String {
    short_hash(&spec::template(spec).to_string())
}

async fn journal(cx: &mut Cx<'_>, name: &str, rolled: Rolled) -> Result<(), Fault> {
    let mut rolling: Rolling = cx.scratch()?;
    rolling.services.insert(name.to_owned(), rolled);
    cx.keep(&rolling).await
}
