//! Writing the specs of a rollback, and taking them back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::decide::array;
use super::{Made, Move, load, load_spec, parts};
use crate::operation::rollout::{patience, up};
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::swarm::error::Error;
use crate::swarm::object::{Service, UpdateState};

/// What the step journals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Writing {
    /// When and over which version each service was first written, by name.
    #[serde(default)]
    forward: BTreeMap<String, Written>,
    /// The same of its undo.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    back: BTreeMap<String, Written>,
}

/// A write that was about to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Written {
    at: Timestamp,
    /// The version that it was to replace: where the service still has it, the write was never made.
    over: u64,
}

/// What is found of a service.
enum Stands {
    /// As this operation wrote it.
    Wanted(Service),
    /// As it was when the plan was made.
    Base(Service),
    /// As somebody else wrote it.
    Otherwise,
    /// Removed, or made anew under its name.
    Gone,
}

/// Writes one service after the other, each up before the next.
pub(super) async fn apply(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let made: Made = cx.out("configs")?;
    if let Some(wait) = parts::hold(cx, &frozen).await? {
        return Ok(Progress::Wait(wait));
    }
    for step in frozen.at_once() {
        let (base, wanted) =
            (load_spec(cx, &step.base).await?, bound(load_spec(cx, &step.wanted).await?, &made));
        let service = match stands(cx, step, &base, &wanted).await? {
            Stands::Wanted(service) => service,
            Stands::Base(service) => {
                if let Some(why) = went_back(cx, step, &service)? {
                    return Err(Fault::failed(why));
                }
                note(cx, step, &service, false).await?;
                cx.engine().update_service(&service.id, service.version, &wanted).await?;
                return Ok(Progress::Wait(again(format!("{} is written", step.name))));
            }
            Stands::Otherwise => {
                return Err(Fault::failed(format!(
                    "{} was changed by somebody meanwhile; what they deployed stays",
                    step.name
                )));
            }
            Stands::Gone => return Err(Fault::failed(format!("{} was removed meanwhile", step.name))),
        };
        let up = up(cx, &service).await?;
        let status = service.update.as_ref().map(|u| u.state);
        if matches!(status, Some(UpdateState::Paused | UpdateState::RollbackPaused)) {
            let message = service.update.as_ref().map_or("", |u| u.message.as_str());
            return Err(Fault::failed(format!("the update of {} was paused: {message}", step.name)));
        }
        if up.settled && !service.is_rolling() {
            continue;
        }
        let since = cx.scratch::<Writing>()?.forward.get(&step.name).map(|w| w.at);
        let began = since.unwrap_or(cx.record().began);
        if cx.since(began) <= patience(cx, &service) {
            return Ok(Progress::Wait(again(format!("{}: {}", step.name, up.said()))));
        }
        return Err(Fault::failed(format!("{} does not come up: {}, {}", step.name, up.said(), up.error)));
    }
    let writing: Writing = cx.scratch()?;
    serde_json::to_value(&writing)
        .map(Progress::Done)
        .map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}

/// Puts the specs back that were found, in the reverse order. What somebody wrote over one of them stays.
pub(super) async fn undo(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let made: Made = cx.out("configs")?;
    for step in frozen.at_once().rev() {
        let (base, wanted) =
            (load_spec(cx, &step.base).await?, bound(load_spec(cx, &step.wanted).await?, &made));
        let service = match stands(cx, step, &base, &wanted).await? {
            Stands::Wanted(service) => {
                note(cx, step, &service, true).await?;
                cx.engine().update_service(&service.id, service.version, &base).await?;
                return Ok(Progress::Wait(again(format!("{} goes back", step.name))));
            }
            Stands::Base(service) => service,
            Stands::Otherwise => {
                cx.remark(format!(
                    "{} was changed by somebody meanwhile; what they deployed stays",
                    step.name
                ));
                continue;
            }
            Stands::Gone => {
                cx.remark(format!("{} was removed meanwhile", step.name));
                continue;
            }
        };
        let writing: Writing = cx.scratch()?;
        let Some(written) = writing.back.get(&step.name) else { continue };
        let up = up(cx, &service).await?;
        if up.settled && !service.is_rolling() {
            continue;
        }
        if cx.since(written.at) <= patience(cx, &service) {
            return Ok(Progress::Wait(again(format!("{}: {}", step.name, up.said()))));
        }
        cx.remark(format!("{}: its own spec is back, but {}: {}", step.name, up.said(), up.error));
    }
    Ok(Progress::done())
}

/// The spec with the configs that were made again under their new ids.
pub(super) fn bound(mut wanted: Value, made: &Made) -> Value {
    for config in array(&mut wanted, "/TaskTemplate/ContainerSpec/Configs") {
        if let Some(id) = config["ConfigID"].as_str().and_then(|old| made.made.get(old)) {
            config["ConfigID"] = json!(id);
        }
    }
    wanted
}

async fn stands(cx: &Cx<'_>, step: &Move, base: &Value, wanted: &Value) -> Result<Stands, Fault> {
    let service = match cx.engine().service(&step.id).await {
        Ok(service) => service,
        Err(Error::NotFound { .. }) => return Ok(Stands::Gone),
        Err(other) => return Err(other.into()),
    };
    Ok(match &service.spec {
        spec if spec == wanted => Stands::Wanted(service),
        spec if spec == base => Stands::Base(service),
        _ => Stands::Otherwise,
    })
}

/// Journals that a service is about to be written.
async fn note(cx: &mut Cx<'_>, step: &Move, service: &Service, back: bool) -> Result<(), Fault> {
    let mut writing: Writing = cx.scratch()?;
    let now = cx.now();
    let side = if back { &mut writing.back } else { &mut writing.forward };
    let written = side.entry(step.name.clone()).or_insert(Written { at: now, over: service.version });
    written.over = service.version;
    cx.keep(&writing).await
}

/// Why a service that was written stands as before: the Swarm has taken the update back by itself.
fn went_back(cx: &Cx<'_>, step: &Move, service: &Service) -> Result<Option<String>, Fault> {
    let writing: Writing = cx.scratch()?;
    let was_written = writing.forward.get(&step.name).is_some_and(|w| w.over != service.version);
    let message = service.update.as_ref().map_or("no reason is known", |u| u.message.as_str());
    Ok(was_written.then(|| format!("the Swarm took the update of {} back: {message}", step.name)))
}

fn again(why: String) -> Wait {
    Wait::new(why)
}
