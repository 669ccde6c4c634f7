//! Taking the new images back, all of them or none.
//!
//! ```text
//! a service that keeps what the old image may not read, and whose new one has run ──▶ all stay, and that is told
//! data goes back with them, and a task of a new image may have run              ──▶ a rollback puts all back
//! else                                                                          ──▶ each gets its exact spec again
//! ```
//! Invariants: what somebody else wrote stays (S12); what was changed by somebody while they were watched leaves the others as
//! they are, since all of them had the new image; nothing waits for anything on the way back, so that two images run side by
//! side no longer than has to be.

use super::apply::{Applying, Written, changed, keep, new_tasks};
use super::decide::{Stands, has_run};
use super::watch::Watching;
use super::{Frozen, Unit, found, full};
use crate::operation::rollout::{patience, up};
use crate::operation::saga::{Cx, Fault, Progress};
use crate::swarm::object::{Service, UpdateState};

/// How one service is found on the way back.
struct Found<'a> {
    nth: usize,
    unit: &'a Unit,
    /// None where it was removed.
    service: Option<Service>,
    stands: Option<Stands>,
    /// Whether a task with the new image has run, or may have: then whatever it uses may be changed.
    ran: bool,
    /// Whether it was left as it was found.
    left: bool,
    /// Whether it is as before by what this update wrote.
    is_back: bool,
}

/// Which way all of them go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// Each gets its exact spec again.
    Image,
    /// A rollback puts them back, with their data.
    Data,
    /// They stay as they are, for this reason.
    Stay(String),
}

// === impl Found ===

impl Found<'_> {
    /// Whether it stands as the update wrote it.
    fn is_new(&self) -> bool {
        matches!(self.stands, Some(Stands::Written | Stands::Settled))
    }

    /// The same, of one that is still to be put back.
    fn is_ours(&self) -> bool {
        !self.left && self.is_new()
    }

    /// Whether it is somebody else's by now.
    fn is_theirs(&self) -> bool {
        matches!(self.stands, Some(Stands::Otherwise) | None)
    }
}

/// Puts back what was found, unless somebody else wrote over it, or going back would do harm.
pub(super) async fn undo(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Progress, Fault> {
    let mut applying: Applying = cx.scratch()?;
    if (0..frozen.units.count()).all(|nth| applying.each.at(nth).at.is_none()) {
        return Ok(Progress::done());
    }
    if applying.full.is_some() {
        return with_data(cx, frozen, applying).await;
    }
    let mut all = Vec::new();
    for (nth, unit) in frozen.units.iter().enumerate() {
        all.push(look(cx, nth, unit, applying.each.at(nth)).await?);
    }
    let way = way(&all, frozen, theirs(cx)?);
    if way == Way::Data {
        if let Some(rolling) = all.iter().filter_map(|one| one.service.as_ref()).find(|s| is_taken_back(s)) {
            return Ok(Progress::wait(format!("the Swarm takes the update of {} back", rolling.name())));
        }
        let names = list(&all, |_| true);
        cx.keep(&Applying { full: Some(full::new_rollback(cx)), ..applying }).await?;
        return Ok(Progress::wait(format!("{names} {} back, with {} data", goes(frozen), its(frozen))));
    }
    let (mut waits, mut fault) = (None, None);
    for one in all.iter().rev() {
        // What stands in the way of one is no reason to leave the others as they are.
        match undo_one(cx, one, &way).await {
            Ok(Some(wait)) => drop(waits.get_or_insert(wait)),
            Ok(None) => {}
            Err(why) => drop(fault.get_or_insert(why)),
        }
    }
    match (fault, waits) {
        (Some(fault), _) => Err(fault),
        (None, Some(wait)) => Ok(wait),
        (None, None) => end(cx, frozen, &all).await,
    }
}

async fn look<'a>(cx: &Cx<'_>, nth: usize, unit: &'a Unit, written: &Written) -> Result<Found<'a>, Fault> {
    let service = found(cx, unit).await?;
    let stands = service.as_ref().map(|service| unit.change.stands(&service.spec));
    let was_up = written.ran || written.up || written.at.is_some() && cx.op.journal.step("check").is_some();
    let ran = was_up || written.at.is_some() && new_tasks(cx, nth, unit).await?.iter().any(has_run);
    let is_back = written.back.is_some() && matches!(stands, Some(Stands::Base | Stands::Returning));
    Ok(Found { nth, unit, service, stands, ran, left: written.left, is_back })
}

/// Whether somebody changed one of them while all were watched.
fn theirs(cx: &Cx<'_>) -> Result<bool, Fault> {
    match cx.op.journal.step("watch") {
        Some(record) if !record.out.is_null() => Ok(cx.out::<Watching>("watch")?.theirs),
        _ => Ok(false),
    }
}

fn way(all: &[Found<'_>], frozen: &Frozen, theirs: bool) -> Way {
    let ours = || all.iter().filter(|one| one.is_ours());
    // Also one that was left already: the others stay with it.
    let mut new = all.iter().filter(|one| one.is_new() && one.ran);
    let stays = new.find_map(|one| Some((one, one.unit.stays.as_ref()?)));
    let other = all.iter().find(|one| one.is_theirs());
    match (stays, other) {
        (Some((one, why)), _) if frozen.is_of_several() => {
            Way::Stay(format!("{} does not go back: {why}", one.unit.client.name))
        }
        (Some((_, why)), _) => Way::Stay(why.clone()),
        (None, other) if theirs => {
            let name = other.map_or("one of them", |one| one.unit.client.name.as_str());
            Way::Stay(format!("{name} was changed by somebody while all of them were watched"))
        }
        (None, Some(other)) if frozen.full.is_some() && all.iter().any(|one| one.ran) => Way::Stay(format!(
            "{} was changed by somebody, so the data stays as it is, and the old image does not meet it",
            other.unit.client.name
        )),
        (None, None)
            if frozen.full.is_some()
                && all.iter().any(|one| one.ran)
                && !all.iter().any(|one| one.is_back)
                && ours().next().is_some() =>
        {
            Way::Data
        }
        (None, _) => Way::Image,
    }
}

/// None once it is as it is to stay.
async fn undo_one(cx: &mut Cx<'_>, one: &Found<'_>, way: &Way) -> Result<Option<Progress>, Fault> {
    let (name, change) = (&one.unit.client.name, &one.unit.change);
    let written = cx.scratch::<Applying>()?.each.get(one.nth);
    if written.at.is_none() || written.left {
        return Ok(None);
    }
    let (Some(service), Some(stands)) = (&one.service, one.stands) else {
        leave(cx, one.nth, written, format!("{name} was removed meanwhile")).await?;
        return Ok(None);
    };
    match (stands, way) {
        (Stands::Otherwise, _) => {
            let wait = give_back(cx, one.unit, service).await?;
            if wait.is_none() {
                leave(cx, one.nth, written, changed(name)).await?;
            }
            Ok(wait)
        }
        (Stands::Written | Stands::Settled, Way::Stay(why)) => {
            let wait = give_back(cx, one.unit, service).await?;
            if wait.is_none() {
                let why = format!("{name} was not put back, and has image {}: {why}", change.image);
                leave(cx, one.nth, written, why).await?;
            }
            Ok(wait)
        }
        (Stands::Written | Stands::Settled, Way::Image | Way::Data) => {
            if is_taken_back(service) {
                return Ok(Some(Progress::wait(format!("the Swarm takes the update of {name} back"))));
            }
            let back = written.back.or_else(|| Some(cx.now()));
            keep(cx, one.nth, Written { back, ..written }).await?;
            cx.engine().update_service(&service.id, service.version, &change.returning()).await?;
            Ok(Some(Progress::wait(format!("{name} goes back"))))
        }
        (Stands::Base | Stands::Returning, _) => come_back(cx, one.unit, service, stands, &written).await,
    }
}

/// Waits until every task is of the spec that was put back; what does not come up of it is told.
async fn come_back(
    cx: &mut Cx<'_>,
    unit: &Unit,
    service: &Service,
    stands: Stands,
    written: &Written,
) -> Result<Option<Progress>, Fault> {
    let name = &unit.client.name;
    let since = written.back.unwrap_or(cx.record().changed);
    let up = up(cx, service).await?;
    let is_up = up.settled && !service.is_rolling();
    if !is_up && cx.since(since) <= patience(cx, service) {
        return Ok(Some(Progress::wait(format!("{name}: {}", up.said()))));
    }
    if stands == Stands::Returning {
        cx.engine().update_service(&service.id, service.version, &unit.change.base).await?;
        return Ok(Some(Progress::wait(format!("{name}: its own update settings go back"))));
    }
    if !is_up {
        cx.remark(format!("{name}: its own spec is back, but {}: {}", up.said(), up.error));
    }
    Ok(None)
}

/// All of them are as they are to stay.
async fn end(cx: &mut Cx<'_>, frozen: &Frozen, all: &[Found<'_>]) -> Result<Progress, Fault> {
    let mut applying: Applying = cx.scratch()?;
    let left: Vec<bool> = (0..all.len()).map(|nth| applying.each.at(nth).left).collect();
    let any_left = left.contains(&true);
    if let Some(scope) = &frozen.full
        && !any_left
        && all.iter().any(|one| one.ran)
    {
        // Somebody put it back, or a task began in the very moment in which it went back without its data.
        let why = full::without_data(cx, scope)?;
        let written = applying.each.get(0);
        leave(cx, 0, written, why).await?;
    } else if any_left && left.contains(&false) {
        let is_back = |one: &Found<'_>| !left[one.nth] && matches!(one.stands, Some(Stands::Base));
        cx.remark(format!("as before: {}", list(all, is_back)));
    }
    Ok(Progress::done())
}

/// Follows the rollback that puts them back with their data. One that did not succeed is tried again only when a person
/// says so, or where one of them is somebody else's by now.
async fn with_data(cx: &mut Cx<'_>, frozen: &Frozen, mut applying: Applying) -> Result<Progress, Fault> {
    let (Some(scope), Some(id)) = (&frozen.full, applying.full.clone()) else { return Ok(Progress::done()) };
    match full::roll_back(cx, scope, &id).await? {
        full::Rollback::Going(progress) => Ok(progress),
        full::Rollback::Back => {
            for nth in 0..frozen.units.count() {
                let written = applying.each.at(nth);
                written.back = written.at.map(|_| cx.now());
            }
            cx.keep(&applying).await?;
            Ok(Progress::done())
        }
        full::Rollback::Failed { why, ended } => {
            let was_retried = ended <= cx.record().began;
            if full::is_ours(cx, frozen).await? && !was_retried {
                let told = frozen.units.iter().map(|unit| {
                    let (name, image) = (&unit.client.name, &unit.change.image);
                    format!("{name} does not go back with its data, and has image {image}")
                });
                return Err(Fault::failed(format!("{}: {why}", told.collect::<Vec<_>>().join("; "))));
            }
            cx.keep(&Applying { full: None, ..applying }).await?;
            Ok(Progress::wait(format!("operation {id} did not put it back: {why}")))
        }
    }
}

fn is_taken_back(service: &Service) -> bool {
    service.update.as_ref().is_some_and(|u| u.state == UpdateState::RollbackStarted)
}

/// Puts the service's own update settings back into whatever stands there; none once they are.
async fn give_back(cx: &mut Cx<'_>, unit: &Unit, service: &Service) -> Result<Option<Progress>, Fault> {
    let Some(wanted) = unit.change.given_back(&service.spec) else { return Ok(None) };
    let since = cx.record().changed;
    // A write in the middle of a rollout would begin it anew.
    if service.is_rolling() && cx.since(since) <= patience(cx, service) {
        return Ok(Some(Progress::wait(format!("a rollout of {} is under way", service.name()))));
    }
    cx.engine().update_service(&service.id, service.version, &wanted).await?;
    Ok(Some(Progress::wait(format!("{}: its own update settings go back", service.name()))))
}

async fn leave(cx: &mut Cx<'_>, nth: usize, written: Written, why: String) -> Result<(), Fault> {
    cx.remark(why);
    keep(cx, nth, Written { left: true, ..written }).await
}

fn list(all: &[Found<'_>], is_meant: impl Fn(&Found<'_>) -> bool) -> String {
    let names = all.iter().filter(|one| is_meant(one)).map(|one| one.unit.client.name.as_str());
    names.collect::<Vec<_>>().join(", ")
}

fn goes(frozen: &Frozen) -> &'static str {
    if frozen.is_of_several() { "go" } else { "goes" }
}

fn its(frozen: &Frozen) -> &'static str {
    if frozen.is_of_several() { "their" } else { "its" }
}
