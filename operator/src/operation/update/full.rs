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
use super::{Frozen, found};
use crate::operation::desk::{self, Refusal};
use crate::operation::freeze::{self, Seen};
use crate::operation::frozen;
use crate::operation::record::{Intent, OpId, Operation, SCHEMA, State, Trigger, Work, of_stack};
use crate::operation::rollback::{everything, failure, point};
use crate::operation::saga::{Cx, Fault, Progress};
use crate::policy::GoBack;
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
    /// Full name of the service that got another image.
    pub service: String,
    change: Change,
    scope: Scope,
}

// === impl Whole ===

impl Whole {
    /// Whether a service goes back, or its data does.
    pub fn concerns(&self, name: &str) -> bool {
        name == self.service || self.uses(name)
    }

    /// Whether the data of a service goes back, and it is another one than that which is updated.
    pub fn uses(&self, name: &str) -> bool {
        name != self.service && self.scope.data.iter().any(|data| data == name)
    }

    /// A service whose data goes back and that is not among these.
    pub fn lacks<'a>(&self, there: impl Iterator<Item = &'a str>) -> Option<String> {
        let there: Vec<&str> = there.collect();
        self.scope.data.iter().find(|name| !there.contains(&name.as_str())).cloned()
    }

    /// Why the service is not put back, where it is not as the update wrote it (S12).
    pub fn is_changed(&self, services: &[Service]) -> Option<String> {
        let found = services.iter().find(|s| s.name() == self.service);
        let stands = found.map(|found| self.change.stands(&found.spec));
        match stands {
            Some(Stands::Written | Stands::Settled) => None,
            Some(Stands::Base | Stands::Returning | Stands::Otherwise) => {
                Some(super::apply::changed(&self.service))
            }
            None => Some(format!("{} was removed meanwhile", self.service)),
        }
    }
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
    let scope = frozen.full.ok_or_else(|| Fault::failed(format!("operation {id} leaves data as it is")))?;
    Ok(Some(Whole { service: frozen.client.name, change: frozen.change, scope }))
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

/// What an update has to hold: the service, and where its data goes back with it, everything that this concerns.
pub(super) async fn held(cx: &Cx<'_>) -> Result<Vec<String>, Fault> {
    // All operations take theirs in the order of names, and a list that grew on the way would break that order.
    let held: Held = cx.scratch()?;
    if !held.services.is_empty() {
        return Ok(held.services);
    }
    let service = freeze::service(cx).await?;
    let name = service.name().to_owned();
    // What stands against it is told when the plan is made.
    Ok(match wanted(cx, &Seen::load(cx).await?, &service) {
        Some(Ok(scope)) => scope.held(&name),
        Some(Err(_)) | None => vec![name],
    })
}

/// The scope of the operation's service, where its labels want one.
pub(super) fn wanted(cx: &Cx<'_>, seen: &Seen, service: &Service) -> Option<Result<Scope, Vec<String>>> {
    let Work::Update { image, .. } = &cx.op.intent.work else { return None };
    let labels = seen.policies().get(service.name())?.policy.update.as_ref()?;
    let accept = cx.op.intent.accept_problems;
    (labels.rollback == Some(GoBack::Full))
        .then(|| scope(seen.services(), seen.policies(), service, image, accept))
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

/// Whether the service stands as this update wrote it, so that a rollback may be made of it.
pub(super) async fn is_ours(cx: &Cx<'_>, frozen: &Frozen) -> Result<bool, Fault> {
    let stands = found(cx, frozen).await?.map(|service| frozen.change.stands(&service.spec));
    Ok(matches!(stands, Some(Stands::Written | Stands::Settled)))
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
