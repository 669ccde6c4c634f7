//! Going back with the data (`skep.update.rollback=full`): a restore point of the service and of the data that it uses,
//! taken before anything is written, and on the way back a rollback to that point. Both are operations of their own, and
//! parts of the update, which lends them what it holds.
//!
//! ```text
//! backup ↩  ──▶ point     (of the service and its data, and no others)
//! apply  ↩  undo ──▶ rollback to it   (the one place where the data goes back)
//! ```
//! Invariants: the id of a part is journaled before it is made; data goes back only where a task of the new image may have
//! run, and only to the point that this update has taken; the update has gone back when its rollback has succeeded, and
//! otherwise a person is needed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::decide::{Change, Stands};
use super::scope::{Scope, scope};
use super::together::{self, Wanted};
use super::{Frozen, found};
use crate::operation::desk::{self, Refusal};
use crate::operation::freeze::Seen;
use crate::operation::frozen;
use crate::operation::record::{Intent, OpId, Operation, SCHEMA, State, Trigger, Work, of_stack};
use crate::operation::rollback::{everything, failure, point};
use crate::operation::saga::{Cx, Fault, Progress};
use crate::swarm::object::Service;

/// What the backup step journals where there is a scope.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Taking {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    point: Option<OpId>,
}

/// What the claim of an update holds.
#[derive(Default, Deserialize)]
struct Held {
    #[serde(default)]
    services: Vec<String>,
}

/// The update of which an operation is a part.
pub struct Whole {
    /// What gets another image, by full name.
    updated: Vec<(String, Change)>,
    scope: Scope,
}

// === impl Whole ===

impl Whole {
    /// Whether a service goes back, or its data does.
    pub fn concerns(&self, name: &str) -> bool {
        self.updates(name) || self.uses(name)
    }

    /// Whether a service gets another image.
    pub fn updates(&self, name: &str) -> bool {
        self.updated.iter().any(|(updated, _)| updated == name)
    }

    /// Whether the data of a service goes back, and it is another one than those that are updated.
    pub fn uses(&self, name: &str) -> bool {
        !self.updates(name) && self.scope.data.iter().any(|data| data == name)
    }

    /// A service whose data goes back and that is not among these.
    pub fn lacks<'a>(&self, there: impl Iterator<Item = &'a str>) -> Option<String> {
        let there: Vec<&str> = there.collect();
        self.scope.data.iter().find(|name| !there.contains(&name.as_str())).cloned()
    }

    /// Why they are not put back, where one is not as the update found or wrote it, or nothing is as it wrote it (S12).
    pub fn is_changed(&self, services: &[Service]) -> Option<String> {
        let of = |name: &str| services.iter().find(|s| s.name() == name);
        let stands: Vec<(&String, Option<Stands>)> = self
            .updated
            .iter()
            .map(|(name, change)| (name, of(name).map(|found| change.stands(&found.spec))))
            .collect();
        if let Some((name, stands)) = stands.iter().find(|(_, stands)| is_theirs(*stands)) {
            return Some(match stands {
                Some(_) => super::apply::changed(name),
                None => format!("{name} was removed meanwhile"),
            });
        }
        let (first, _) = stands.first()?;
        (!stands.iter().any(|(_, stands)| is_written(*stands))).then(|| super::apply::changed(first))
    }
}

/// Whether a service is somebody else's by now, or gone.
const fn is_theirs(stands: Option<Stands>) -> bool {
    matches!(stands, Some(Stands::Returning | Stands::Otherwise) | None)
}

/// Whether a service stands as the update wrote it.
const fn is_written(stands: Option<Stands>) -> bool {
    matches!(stands, Some(Stands::Written | Stands::Settled))
}

/// What an update lends to this operation, where it is a part of one: everything that it holds.
///
/// # Errors
/// When the update has ended, or what the engine says.
pub async fn lent(cx: &Cx<'_>) -> Result<Option<Vec<String>>, Fault> {
    let Some(id) = cx.op.part_of() else { return Ok(None) };
    let update = desk::find(cx.engine(), id).await.map_err(refused)?;
    if update.journal.state.is_terminal() {
        return Err(Fault::failed(format!("operation {id}, of which this is a part, has ended")));
    }
    let claim = update.journal.step("claim").map(|record| record.out.clone()).unwrap_or_default();
    let held: Held = serde_json::from_value(claim)
        .map_err(|source| Fault::Journal { step: "claim".to_owned(), source })?;
    Ok(Some(held.services))
}

/// The update of which this operation is a part, if it is one.
///
/// # Errors
/// When it has ended, does not go back with its data, or what the engine says.
pub async fn whole(cx: &Cx<'_>) -> Result<Option<Whole>, Fault> {
    let Some(id) = cx.op.part_of() else { return Ok(None) };
    let frozen = frozen::find::<Frozen>(cx.engine(), id).await?;
    let frozen =
        frozen.ok_or_else(|| Fault::failed(format!("operation {id}, of which this is a part, has ended")))?;
    let scope = frozen.scope().cloned();
    let scope = scope.ok_or_else(|| Fault::failed(format!("operation {id} leaves data as it is")))?;
    let updated = frozen.units.iter().map(|unit| (unit.client.name.clone(), unit.change.clone())).collect();
    Ok(Some(Whole { updated, scope }))
}

/// The operations that are parts of this one, where it is an update.
pub fn parts(op: &Operation) -> Vec<OpId> {
    if !matches!(op.intent.work, Work::Update { .. }) {
        return Vec::new();
    }
    let named = |step: &str, key: &str| {
        let record = op.journal.step(step)?;
        OpId::parse(record.out[key].as_str()?)
    };
    [named("backup", "point"), named("apply", "full")].into_iter().flatten().collect()
}

/// What an update has to hold: the services, and where data goes back with them, everything that this concerns.
pub(super) async fn held(cx: &Cx<'_>) -> Result<Vec<String>, Fault> {
    // All operations take theirs in the order of names, and a list that grew on the way would break that order.
    let held: Held = cx.scratch()?;
    if !held.services.is_empty() {
        return Ok(held.services);
    }
    let services = super::services(cx).await?;
    let wanted = super::wanted(&cx.op.intent, &services);
    let seen = Seen::load(cx).await?;
    let names = wanted.iter().map(|one| one.service.name());
    let accept = cx.op.intent.accept_problems;
    // What stands against it is told when the plan is made.
    let full = scope(seen.services(), seen.policies(), &wanted, accept).and_then(Result::ok);
    let point = together::point(&wanted, seen.policies()).ok().flatten();
    Ok(super::held(names, full.or(point).as_ref()))
}

/// What data goes back with these, or is backed up as one, where it is that of several and does not.
pub(super) fn scopes(
    cx: &Cx<'_>,
    seen: &Seen,
    wanted: &[Wanted<'_>],
) -> Result<(Option<Scope>, Option<Scope>), Fault> {
    let accept = cx.op.intent.accept_problems;
    let full = scope(seen.services(), seen.policies(), wanted, accept).transpose();
    let full = full.map_err(|refused| Fault::failed(refused.join("; ")))?;
    let point = match full {
        Some(_) => None,
        None => together::point(wanted, seen.policies()).map_err(Fault::failed)?,
    };
    let claimed: serde_json::Value = cx.out("claim")?;
    let names = wanted.iter().map(|one| one.service.name());
    if claimed["services"] != json!(super::held(names, full.as_ref().or(point.as_ref()))) {
        return Err(Fault::failed("labels changed while the operation began: ask for it again"));
    }
    Ok((full, point))
}

/// Takes the point, before anything is written.
pub(super) async fn back_up(cx: &mut Cx<'_>, scope: &Scope) -> Result<Progress, Fault> {
    let id = match cx.scratch::<Taking>()?.point {
        Some(id) => id,
        None => {
            let id = named(cx, "point");
            cx.keep(&Taking { point: Some(id.clone()) }).await?;
            id
        }
    };
    let op = part(cx, &id, scope, Work::Point { without_data: false }).await?;
    match op.journal.state {
        State::Succeeded => Ok(Progress::Done(json!({ "point": id }))),
        State::Pending | State::AwaitingApproval | State::Running => {
            Ok(Progress::wait(format!("operation {id} takes a restore point: {}", doing(&op))))
        }
        State::Failed | State::RolledBack | State::Cancelled => {
            let why = failure(&op).or(op.journal.cancel.as_deref()).unwrap_or_default();
            Err(Fault::failed(format!("nothing was taken that it could go back to: {why}")))
        }
        State::Stuck => Err(stuck(&id)),
    }
}

/// Ends the taking of the point. One that is whole stays: it is of everything as it was before.
pub(super) async fn undo_back_up(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let Some(id) = cx.scratch::<Taking>()?.point else { return Ok(Progress::done()) };
    let op = match desk::find(cx.engine(), &id).await {
        Ok(op) => op,
        Err(Refusal::Absent(_)) => return Ok(Progress::done()),
        Err(other) => return Err(refused(other)),
    };
    match op.journal.state {
        State::Succeeded | State::Failed | State::RolledBack | State::Cancelled => Ok(Progress::done()),
        State::Stuck => Err(stuck(&id)),
        State::Pending | State::AwaitingApproval | State::Running => {
            if op.journal.cancel.is_none() {
                let who = format!("operation {}", cx.op.id);
                desk::cancel_at(cx.engine(), op, &who).await?;
            }
            Ok(Progress::wait(format!("operation {id} takes no restore point any more")))
        }
    }
}

/// The id of a rollback that nobody has made yet.
pub(super) fn new_rollback(cx: &Cx<'_>) -> OpId {
    named(cx, "rollback")
}

/// How far the rollback is.
pub(super) enum Rollback {
    /// Not yet.
    Going(Progress),
    /// The service and the data are as in the point.
    Back,
    /// It has ended otherwise, and nothing of it is left.
    Failed {
        /// Why.
        why: String,
        /// When.
        ended: Timestamp,
    },
}

/// Moves the rollback on: makes it where it is not there, else looks how far it is.
pub(super) async fn roll_back(cx: &mut Cx<'_>, scope: &Scope, id: &OpId) -> Result<Rollback, Fault> {
    let to = cx.out::<Taking>("backup")?.point;
    let to = to.ok_or_else(|| Fault::failed("the journal names no restore point to go back to"))?;
    let head = point(cx.engine(), &to).await?.head;
    let only = everything(&head);
    let op = part(cx, id, scope, Work::Rollback { point: to, only }).await?;
    match op.journal.state {
        State::Pending | State::AwaitingApproval | State::Running => Ok(Rollback::Going(Progress::wait(
            format!("goes back with its data, by operation {id}: {}", doing(&op)),
        ))),
        State::Succeeded => {
            op.journal.remarks.iter().for_each(|remark| cx.remark(remark));
            cx.remark(format!(
                "the data of {} is as it was at {:.0}: what was written since is not in it, and is kept; \
                 `skep rollback {} --to {id}` goes forth again",
                scope.data.join(", "),
                head.taken,
                scope.stack
            ));
            Ok(Rollback::Back)
        }
        State::Failed | State::RolledBack | State::Cancelled => Ok(Rollback::Failed {
            why: failure(&op).or(op.journal.cancel.as_deref()).unwrap_or("no reason is known").to_owned(),
            ended: op.journal.ended.unwrap_or_else(|| cx.now()),
        }),
        State::Stuck => Err(stuck(id)),
    }
}

/// What is said where the service is as before without its data: somebody else put it back.
pub(super) fn without_data(cx: &Cx<'_>, scope: &Scope) -> Result<String, Fault> {
    let data = scope.data.join(", ");
    let point = cx.out::<Taking>("backup")?.point.map(|id| id.to_string()).unwrap_or_default();
    Ok(format!(
        "the service is as it was, and a task of the new image has run; the data of {data} stays as it is: `skep rollback {} --to \
         {point}` takes it back",
        scope.stack
    ))
}

/// Whether they stand as this update found or wrote them, so that a rollback may be made of it.
pub(super) async fn is_ours(cx: &Cx<'_>, frozen: &Frozen) -> Result<bool, Fault> {
    let mut any = false;
    for unit in frozen.units.iter() {
        let stands = found(cx, unit).await?.map(|service| unit.change.stands(&service.spec));
        if is_theirs(stands) {
            return Ok(false);
        }
        any |= is_written(stands);
    }
    Ok(any)
}

async fn part(cx: &Cx<'_>, id: &OpId, scope: &Scope, work: Work) -> Result<Operation, Fault> {
    match desk::find(cx.engine(), id).await {
        Ok(op) => return Ok(op),
        Err(Refusal::Absent(_)) => {}
        Err(other) => return Err(refused(other)),
    }
    let intent = Intent {
        schema: SCHEMA,
        service: scope.stack.clone(),
        service_id: of_stack(&scope.stack),
        work,
        trigger: Trigger::Operation { id: cx.op.id.clone() },
        created: cx.now(),
        approval: false,
        accept_problems: cx.op.intent.accept_problems,
    };
    desk::create(cx.engine(), id, intent).await.map(|(op, _)| op).map_err(refused)
}

fn named(cx: &Cx<'_>, what: &str) -> OpId {
    OpId::new(cx.now(), &format!("{what} of {}", cx.op.id))
}

fn doing(op: &Operation) -> &str {
    op.journal.steps.last().map_or("begins", |(name, _)| name.as_str())
}

fn stuck(id: &OpId) -> Fault {
    Fault::failed(format!("operation {id} is stuck: retry that one, then this one"))
}

fn refused(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::Swarm(error) => error.into(),
        other => Fault::failed(other.to_string()),
    }
}
