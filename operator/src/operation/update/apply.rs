//! Writing the new images, one service after the other.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decide::{Exits, Stands, explained, has_run, red_flag};
use super::each::Each;
use super::{Frozen, Unit, found};
use crate::operation::record::{OpId, Operation};
use crate::operation::restart::is_forced;
use crate::operation::rollout::{patience, up};
use crate::operation::saga::{Cx, Fault, Progress};
use crate::swarm::object::{Service, Task, UpdateState};
use crate::swarm::spec;

/// What the step journals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Applying {
    /// Of each service.
    #[serde(flatten)]
    pub(super) each: Each<Written>,
    /// The rollback that puts all of them back, with their data; chosen before it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) full: Option<OpId>,
}

/// What the step journals of one service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Written {
    /// When the new image was first about to be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<Timestamp>,
    /// The version that it was to replace: a service that still has it was not written.
    #[serde(default)]
    pub(super) over: u64,
    /// Tasks that ran the same before, in an earlier update: what became of them tells nothing of this one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) earlier: BTreeSet<String>,
    /// Tasks with the new image that ended.
    #[serde(default, skip_serializing_if = "Exits::is_empty")]
    pub(super) exits: Exits,
    /// Whether a task with the new image has run, or may have: the engine forgets those as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) ran: bool,
    /// Whether every task runs the new image, and its own update settings are back: then the next one gets its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) up: bool,
    /// Whether the service was found as it had been before, after the write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) went_back: bool,
    /// When it was first about to be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) back: Option<Timestamp>,
    /// Whether it was left as it was found on the way back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) left: bool,
}

/// How the step stands once it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing was ever written.
    Untouched,
    /// What was found before is back.
    Back,
    /// What was written, by this or by somebody else, stays; of several of at least one.
    Left,
}

/// How the update of an operation that went back stands.
pub(super) fn ended(op: &Operation) -> End {
    let out = op.journal.step("apply").map(|r| r.out.clone()).unwrap_or_default();
    let applying = serde_json::from_value::<Applying>(out).unwrap_or_default();
    let any = |is: fn(&Written) -> bool| applying.each.iter().any(is);
    match (any(|one| one.left), any(|one| one.went_back || one.back.is_some())) {
        (true, _) => End::Left,
        (false, true) => End::Back,
        (false, false) => End::Untouched,
    }
}

/// The tasks of a service that this update has made; of none that it has not written yet.
pub(super) async fn new_tasks(cx: &Cx<'_>, nth: usize, unit: &Unit) -> Result<Vec<Task>, Fault> {
    let earlier = cx.out::<Applying>("apply")?.each.get(nth).earlier;
    let tasks = cx.engine().tasks(&[&unit.client.id]).await?;
    Ok(tasks.into_iter().filter(|t| unit.change.is_new(t) && !earlier.contains(&t.id)).collect())
}

/// Writes the new image of each over what was found, and waits until every task runs it.
pub(super) async fn run(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Progress, Fault> {
    for (nth, unit) in frozen.units.iter().enumerate() {
        let written = cx.scratch::<Applying>()?.each.get(nth);
        if written.up {
            still_up(cx, frozen, nth, unit).await?;
        } else if let Some(progress) = one(cx, frozen, nth, unit, written).await? {
            return Ok(progress);
        }
    }
    let mut applying: Applying = cx.scratch()?;
    applying.each.at(frozen.units.count() - 1).up = true;
    serde_json::to_value(&applying)
        .map(Progress::Done)
        .map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}

/// None once every task of it is new.
async fn one(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    nth: usize,
    unit: &Unit,
    written: Written,
) -> Result<Option<Progress>, Fault> {
    let name = &unit.client.name;
    let service = found(cx, unit).await?.ok_or_else(|| removed(name))?;
    match (unit.change.stands(&service.spec), written.at) {
        (Stands::Base, None) => begin(cx, nth, unit, &service, written).await.map(Some),
        (Stands::Base, Some(_)) if written.over == service.version => {
            begin(cx, nth, unit, &service, written).await.map(Some)
        }
        (Stands::Base, Some(_)) => {
            keep(cx, nth, Written { went_back: true, ..written }).await?;
            Err(Fault::failed(went_back(&service)))
        }
        (stands @ (Stands::Written | Stands::Settled), Some(at)) => {
            if let Some(progress) = come_up(cx, frozen, nth, unit, &service, at).await? {
                return Ok(Some(progress));
            }
            if stands == Stands::Written {
                // Its tasks are new: this restarts none.
                cx.engine().update_service(&service.id, service.version, &unit.change.settled()).await?;
                return Ok(Some(Progress::wait(format!("{name}: its own update settings go back"))));
            }
            if nth + 1 < frozen.units.count() {
                let written = cx.scratch::<Applying>()?.each.get(nth);
                keep(cx, nth, Written { up: true, ..written }).await?;
            }
            Ok(None)
        }
        (Stands::Written | Stands::Settled | Stands::Returning | Stands::Otherwise, _) => {
            Err(Fault::failed(changed(name)))
        }
    }
}

/// What got its image already is looked at while the others get theirs: nothing is gained by going on over a red flag.
async fn still_up(cx: &mut Cx<'_>, frozen: &Frozen, nth: usize, unit: &Unit) -> Result<(), Fault> {
    let name = &unit.client.name;
    let service = found(cx, unit).await?.ok_or_else(|| removed(name))?;
    match unit.change.stands(&service.spec) {
        Stands::Settled => {}
        Stands::Base => {
            let written = cx.scratch::<Applying>()?.each.get(nth);
            keep(cx, nth, Written { went_back: true, ..written }).await?;
            return Err(Fault::failed(went_back(&service)));
        }
        Stands::Written | Stands::Returning | Stands::Otherwise => return Err(Fault::failed(changed(name))),
    }
    let tasks = new_tasks(cx, nth, unit).await?;
    let mut written = cx.scratch::<Applying>()?.each.get(nth);
    let flag = red_flag(tasks.iter(), &mut written.exits);
    keep(cx, nth, written).await?;
    match flag {
        Some(flag) => Err(frozen.red_flag(unit, &flag)),
        None => Ok(()),
    }
}

/// What is said of a service that somebody else wrote.
pub(super) fn changed(name: &str) -> String {
    format!("{name} was changed by somebody meanwhile; what they deployed stays")
}

/// What is said of a service that is gone.
pub(super) fn removed(name: &str) -> Fault {
    Fault::failed(format!("{name} was removed meanwhile"))
}

/// What is said of a service that is as before without our doing.
pub(super) fn went_back(service: &Service) -> String {
    let message = service.update.as_ref().map_or("no reason is known", |u| u.message.as_str());
    format!("the Swarm took the update of {} back: {message}", service.name())
}

async fn begin(
    cx: &mut Cx<'_>,
    nth: usize,
    unit: &Unit,
    service: &Service,
    written: Written,
) -> Result<Progress, Fault> {
    let name = &unit.client.name;
    let state = service.update.as_ref().map(|u| u.state);
    let is_paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    if is_paused && !is_forced(cx) {
        return Err(Fault::failed(format!(
            "an update of {name} is paused, so it is not of one image: end it first, or `--force`"
        )));
    }
    let at = written.at.or_else(|| Some(cx.now()));
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let earlier = tasks.iter().filter(|t| unit.change.is_new(t)).map(|t| t.id.clone()).collect();
    keep(cx, nth, Written { at, over: service.version, earlier, ..written }).await?;
    cx.engine().update_service(&service.id, service.version, &unit.change.written()).await?;
    Ok(Progress::wait(format!("{name} gets {}", unit.change.image)))
}

/// Waits until every task is new and the Swarm says so; none once that is so.
async fn come_up(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    nth: usize,
    unit: &Unit,
    service: &Service,
    at: Timestamp,
) -> Result<Option<Progress>, Fault> {
    let name = service.name();
    let up = up(cx, service).await?;
    let error = explained(&up.error, spec::template(&service.spec));
    let update = service.update.as_ref();
    if let Some(update) =
        update.filter(|u| !matches!(u.state, UpdateState::Updating | UpdateState::Completed))
    {
        return Err(Fault::failed(format!(
            "the Swarm stopped the update of {name}: {}; {error}",
            update.message
        )));
    }
    if up.settled && !service.is_rolling() {
        return Ok(None);
    }
    let tasks = new_tasks(cx, nth, unit).await?;
    let mut written = cx.scratch::<Applying>()?.each.get(nth);
    let flag = red_flag(tasks.iter(), &mut written.exits);
    written.ran |= tasks.iter().any(has_run);
    keep(cx, nth, written).await?;
    if let Some(flag) = flag {
        return Err(frozen.red_flag(unit, &flag));
    }
    match cx.since(at) <= patience(cx, service) {
        true => Ok(Some(Progress::wait(format!("{name}: {}", up.said())))),
        false => Err(Fault::failed(format!("{name} does not come up: {}, {error}", up.said()))),
    }
}

/// Journals what there is of one.
pub(super) async fn keep(cx: &mut Cx<'_>, nth: usize, written: Written) -> Result<(), Fault> {
    let mut applying: Applying = cx.scratch()?;
    *applying.each.at(nth) = written;
    cx.keep(&applying).await
}
