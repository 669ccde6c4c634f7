//! Writing the new image, and taking it back.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decide::{Exits, Stands, explained, has_run, red_flag};
use super::{Frozen, found, full};
use crate::operation::record::{OpId, Operation};
use crate::operation::restart::is_forced;
use crate::operation::rollout::{patience, up};
use crate::operation::saga::{Cx, Fault, Progress};
use crate::swarm::object::{Service, Task, UpdateState};
use crate::swarm::spec;

/// What the step journals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Applying {
    /// When the new image was first about to be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    /// The version that it was to replace: a service that still has it was not written.
    #[serde(default)]
    over: u64,
    /// Tasks that ran the same before, in an earlier update: what became of them tells nothing of this one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    earlier: BTreeSet<String>,
    /// Tasks with the new image that ended.
    #[serde(default, skip_serializing_if = "Exits::is_empty")]
    exits: Exits,
    /// Whether a task with the new image has run, or may have: the engine forgets those as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ran: bool,
    /// Whether the service was found as it had been before, after the write.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    went_back: bool,
    /// When it was first about to be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    back: Option<Timestamp>,
    /// The rollback that puts it back, with its data; chosen before it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    full: Option<OpId>,
    /// Whether it was left as it was found on the way back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    left: bool,
}

/// How the step stands once it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing was ever written.
    Untouched,
    /// What was found before is back.
    Back,
    /// What was written, by this or by somebody else, stays.
    Left,
}

/// How the update of an operation that went back stands.
pub(super) fn ended(op: &Operation) -> End {
    let out = op.journal.step("apply").map(|r| r.out.clone()).unwrap_or_default();
    let applying = serde_json::from_value::<Applying>(out).unwrap_or_default();
    match (applying.left, applying.went_back || applying.back.is_some()) {
        (true, _) => End::Left,
        (false, true) => End::Back,
        (false, false) => End::Untouched,
    }
}

/// The tasks that this update has made.
pub(super) async fn new_tasks(cx: &Cx<'_>, frozen: &Frozen) -> Result<Vec<Task>, Fault> {
    let earlier = cx.out::<Applying>("apply")?.earlier;
    let tasks = cx.engine().tasks(&[&frozen.client.id]).await?;
    Ok(tasks.into_iter().filter(|t| frozen.change.is_new(t) && !earlier.contains(&t.id)).collect())
}

/// Writes the new image over what was found, and waits until every task runs it.
pub(super) async fn run(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Progress, Fault> {
    let name = &frozen.client.name;
    let service = found(cx, frozen).await?;
    let service = service.ok_or_else(|| Fault::failed(format!("{name} was removed meanwhile")))?;
    let applying: Applying = cx.scratch()?;
    match (frozen.change.stands(&service.spec), applying.at) {
        (Stands::Base, None) => begin(cx, frozen, &service, applying).await,
        (Stands::Base, Some(_)) if applying.over == service.version => {
            begin(cx, frozen, &service, applying).await
        }
        (Stands::Base, Some(_)) => {
            cx.keep(&Applying { went_back: true, ..applying }).await?;
            Err(Fault::failed(went_back(&service)))
        }
        (stands @ (Stands::Written | Stands::Settled), Some(at)) => {
            if let Some(progress) = come_up(cx, frozen, &service, applying, at).await? {
                return Ok(progress);
            }
            if stands == Stands::Written {
                // Its tasks are new: this restarts none.
                cx.engine().update_service(&service.id, service.version, &frozen.change.settled()).await?;
                return Ok(Progress::wait(format!("{name}: its own update settings go back")));
            }
            let applying: Applying = cx.scratch()?;
            serde_json::to_value(&applying)
                .map(Progress::Done)
                .map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
        }
        (Stands::Written | Stands::Settled | Stands::Returning | Stands::Otherwise, _) => {
            Err(Fault::failed(changed(name)))
        }
    }
}

/// What is said of a service that somebody else wrote.
pub(super) fn changed(name: &str) -> String {
    format!("{name} was changed by somebody meanwhile; what they deployed stays")
}

/// What is said of a service that is as before without our doing.
pub(super) fn went_back(service: &Service) -> String {
    let message = service.update.as_ref().map_or("no reason is known", |u| u.message.as_str());
    format!("the Swarm took the update of {} back: {message}", service.name())
}

async fn begin(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    service: &Service,
    applying: Applying,
) -> Result<Progress, Fault> {
    let name = &frozen.client.name;
    let state = service.update.as_ref().map(|u| u.state);
    let is_paused = matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    if is_paused && !is_forced(cx) {
        return Err(Fault::failed(format!(
            "an update of {name} is paused, so it is not of one image: end it first, or `--force`"
        )));
    }
    let at = applying.at.or_else(|| Some(cx.now()));
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let earlier = tasks.iter().filter(|t| frozen.change.is_new(t)).map(|t| t.id.clone()).collect();
    cx.keep(&Applying { at, over: service.version, earlier, ..applying }).await?;
    cx.engine().update_service(&service.id, service.version, &frozen.change.written()).await?;
    Ok(Progress::wait(format!("{name} gets {}", frozen.change.image)))
}

/// Waits until every task is new and the Swarm says so; none once that is so.
async fn come_up(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    service: &Service,
    mut applying: Applying,
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
    let tasks = new_tasks(cx, frozen).await?;
    let flag = red_flag(tasks.iter(), &mut applying.exits);
    applying.ran |= tasks.iter().any(has_run);
    cx.keep(&applying).await?;
    if let Some(flag) = flag {
        return Err(Fault::failed(format!("red flag: {flag}")));
    }
    match cx.since(at) <= patience(cx, service) {
        true => Ok(Some(Progress::wait(format!("{name}: {}", up.said())))),
        false => Err(Fault::failed(format!("{name} does not come up: {}, {error}", up.said()))),
    }
}

/// Puts back what was found, unless somebody else wrote over it, or going back would do harm.
pub(super) async fn undo(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Progress, Fault> {
    let name = &frozen.client.name;
    let applying: Applying = cx.scratch()?;
    if applying.at.is_none() || applying.left {
        return Ok(Progress::done());
    }
    if applying.full.is_some() {
        return with_data(cx, frozen, applying).await;
    }
    let Some(service) = found(cx, frozen).await? else {
        return leave(cx, applying, format!("{name} was removed meanwhile")).await;
    };
    let stands = frozen.change.stands(&service.spec);
    match stands {
        Stands::Otherwise => match give_back(cx, frozen, &service).await? {
            Some(progress) => Ok(progress),
            None => leave(cx, applying, changed(name)).await,
        },
        Stands::Written | Stands::Settled => {
            let has_run = may_have_run(cx, frozen, &applying).await?;
            if let Some(why) = &frozen.stays
                && has_run
            {
                if let Some(progress) = give_back(cx, frozen, &service).await? {
                    return Ok(progress);
                }
                let image = &frozen.change.image;
                let why = format!("{name} was not put back, and has image {image}: {why}");
                return leave(cx, applying, why).await;
            }
            if service.update.as_ref().is_some_and(|u| u.state == UpdateState::RollbackStarted) {
                return Ok(Progress::wait(format!("the Swarm takes the update of {name} back")));
            }
            if frozen.full.is_some() && has_run {
                let full = Some(full::new_rollback(cx));
                cx.keep(&Applying { full, back: None, ..applying }).await?;
                return Ok(Progress::wait(format!("{name} goes back, with its data")));
            }
            let back = applying.back.or_else(|| Some(cx.now()));
            cx.keep(&Applying { back, ..applying }).await?;
            cx.engine().update_service(&service.id, service.version, &frozen.change.returning()).await?;
            Ok(Progress::wait(format!("{name} goes back")))
        }
        Stands::Base | Stands::Returning => {
            let since = applying.back.unwrap_or(cx.record().changed);
            let up = up(cx, &service).await?;
            let is_up = up.settled && !service.is_rolling();
            if !is_up && cx.since(since) <= patience(cx, &service) {
                return Ok(Progress::wait(format!("{name}: {}", up.said())));
            }
            if stands == Stands::Returning {
                cx.engine().update_service(&service.id, service.version, &frozen.change.base).await?;
                return Ok(Progress::wait(format!("{name}: its own update settings go back")));
            }
            if !is_up {
                cx.remark(format!("{name}: its own spec is back, but {}: {}", up.said(), up.error));
            }
            match &frozen.full {
                // Somebody put it back, or a task began in the very moment in which it went back without its data.
                Some(scope) if may_have_run(cx, frozen, &applying).await? => {
                    let why = full::without_data(cx, scope)?;
                    leave(cx, applying, why).await
                }
                _ => Ok(Progress::done()),
            }
        }
    }
}

/// Whether a task with the new image has run, or may have: then whatever it uses may be changed.
async fn may_have_run(cx: &Cx<'_>, frozen: &Frozen, applying: &Applying) -> Result<bool, Fault> {
    let is_up = applying.ran || cx.op.journal.step("check").is_some();
    Ok(is_up || new_tasks(cx, frozen).await?.iter().any(has_run))
}

/// Follows the rollback that puts the service back with its data. One that did not succeed is tried again only when a person
/// says so, or where it is somebody else's by now.
async fn with_data(cx: &mut Cx<'_>, frozen: &Frozen, applying: Applying) -> Result<Progress, Fault> {
    let (Some(scope), Some(id)) = (&frozen.full, applying.full.clone()) else { return Ok(Progress::done()) };
    match full::roll_back(cx, scope, &id).await? {
        full::Rollback::Going(progress) => Ok(progress),
        full::Rollback::Back => {
            let back = Some(cx.now());
            cx.keep(&Applying { back, ..applying }).await?;
            Ok(Progress::done())
        }
        full::Rollback::Failed { why, ended } => {
            let was_retried = ended <= cx.record().began;
            if full::is_ours(cx, frozen).await? && !was_retried {
                return Err(Fault::failed(format!(
                    "{} does not go back with its data, and has image {}: {why}",
                    frozen.client.name, frozen.change.image
                )));
            }
            cx.keep(&Applying { full: None, ..applying }).await?;
            Ok(Progress::wait(format!("operation {id} did not put it back: {why}")))
        }
    }
}

/// Puts the service's own update settings back into whatever stands there; none once they are.
async fn give_back(cx: &mut Cx<'_>, frozen: &Frozen, service: &Service) -> Result<Option<Progress>, Fault> {
    let Some(wanted) = frozen.change.given_back(&service.spec) else { return Ok(None) };
    let since = cx.record().changed;
    // A write in the middle of a rollout would begin it anew.
    if service.is_rolling() && cx.since(since) <= patience(cx, service) {
        return Ok(Some(Progress::wait(format!("a rollout of {} is under way", service.name()))));
    }
    cx.engine().update_service(&service.id, service.version, &wanted).await?;
    Ok(Some(Progress::wait(format!("{}: its own update settings go back", service.name()))))
}

async fn leave(cx: &mut Cx<'_>, applying: Applying, why: String) -> Result<Progress, Fault> {
    cx.remark(why);
    cx.keep(&Applying { left: true, ..applying }).await?;
    Ok(Progress::done())
}
