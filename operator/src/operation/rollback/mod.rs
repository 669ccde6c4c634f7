//! Rollback: puts the specs, configs and images of a stack back to a restore point.
//!
//! ```text
//! claim ↩ plan ↩ safety ↩ configs ↩ apply ↩ check ↩ · release
//!         │      │        │         │       └ the checks of the services that changed
//!         │      │        │         └ one service after the other, in the order of starting, each up before the next
//!         │      │        └ configs that were removed are made again from the point
//!         │      └ a restore point of what is about to be changed (specs and configs)
//!         └ preflight: what differs, and what cannot come back, is decided before anything is changed
//! ```
//! There is no point of no return: data is not touched, so whatever fails, every spec goes back to what was found.
//!
//! Invariants (S12): a service is written only while its spec is the one that was read when the plan was made, or the one
//! that this operation wrote, and under the version of that very reading. Whoever changes one meanwhile ends the
//! rollback; theirs stays, also when everything else goes back. Swarm's own rollback of an update counts as a failure
//! of it. The specs to go back to are this operation's own, never Swarm's `PreviousSpec`.

mod apply;
mod decide;
mod differences;
mod look;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use decide::{Change, Component, Decision, Now, Why, decide};
pub use differences::Difference;
pub use look::{now, point};

use super::frozen::{self, Client, Method};
use super::journal::Compensation;
use super::point::{self as taking, not_held, rolling};
use super::points::{self, Copied, OF_POINT, Part};
use super::record::{OpId, Work};
use super::restore::trial;
use super::saga::{Cx, Fault, Progress, Saga};
use super::{backup, claim, work};
use crate::policy;
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, TaskState, short_hash};

/// The saga.
pub struct Rollback;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds every service of the stack.
    Claim,
    /// What changes is decided and frozen.
    Plan,
    /// A restore point of what is there now.
    Safety,
    /// Configs that were removed are made again.
    Configs,
    /// The specs are put back.
    Apply,
    /// The services that changed pass their checks.
    Check,
    /// The services are given back.
    Release,
}

const STEPS: [Step; 7] =
    [Step::Claim, Step::Plan, Step::Safety, Step::Configs, Step::Apply, Step::Check, Step::Release];
/// Format version of the plan.
const SCHEMA: u32 = 1;

/// The frozen plan. Specs lie in configs of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Frozen {
    schema: u32,
    /// The point that it goes back to.
    point: OpId,
    /// Services to write, in the order of starting.
    moves: Vec<Move>,
    /// Configs to make again.
    make: Vec<Copied>,
}

/// One service to write.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Move {
    name: String,
    id: String,
    /// Its spec when the plan was made.
    base: Part,
    /// Its spec afterwards, with configs that are made again under their old ids.
    wanted: Part,
}

/// What the configs step journals: ids of the configs that it made, by their old ids.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Made {
    #[serde(default)]
    made: BTreeMap<String, String>,
}

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Safety => "safety",
            Step::Configs => "configs",
            Step::Apply => "apply",
            Step::Check => "check",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim | Step::Plan | Step::Safety | Step::Configs | Step::Apply | Step::Check => {
                Compensation::Undo
            }
            Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        match self {
            Step::Apply | Step::Check => true,
            Step::Claim | Step::Plan | Step::Safety | Step::Configs | Step::Release => false,
        }
    }
}

impl Saga for Rollback {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => taking::take(cx).await,
            Step::Plan => plan(cx).await,
            Step::Safety => taking::safety(cx).await,
            Step::Configs => make_configs(cx).await,
            Step::Apply => apply::apply(cx).await,
            Step::Check => check(cx).await,
            Step::Release => backup::release(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => claim::release(cx).await,
            Step::Plan => {
                frozen::remove(cx).await?;
                Ok(Progress::done())
            }
            // What is there is as it was: a point of it says nothing that the Swarm does not.
            Step::Safety => {
                points::remove(cx.engine(), &cx.op.id).await?;
                Ok(Progress::done())
            }
            Step::Configs => remove_configs(cx).await,
            Step::Apply => apply::undo(cx).await,
            Step::Check => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
            Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    match load(cx).await {
        Ok(frozen) => return Ok(summary(&frozen)),
        Err(Fault::Swarm(Error::NotFound { .. })) => {}
        Err(other) => return Err(other),
    }
    let Work::Rollback { point: id, only } = cx.op.intent.work.clone() else {
        return Err(Fault::failed("this is no rollback"));
    };
    let head = point(cx.engine(), &id).await?.head;
    if head.stack != cx.op.intent.service {
        return Err(Fault::failed(format!("restore point {id} is one of stack {}", head.stack)));
    }
    let now = now(cx.engine(), &head).await?;
    if let Some(why) = not_held(cx, &now.services)? {
        return Err(Fault::failed(why));
    }
    if let Some(wait) = rolling(cx, &now.services)? {
        return Ok(Progress::Wait(wait));
    }
    let decision = decide(&head, &now, &only);
    if !decision.refused.is_empty() {
        return Err(Fault::failed(decision.refused.join("; ")));
    }
    decision.mind.iter().for_each(|mind| cx.remark(mind));
    if decision.changes.is_empty() {
        cx.remark("nothing differs from the restore point: nothing was changed");
    }
    let mut moves = Vec::new();
    for change in &decision.changes {
        moves.push(Move {
            name: change.name.clone(),
            id: change.id.clone(),
            base: store_spec(cx, &change.base).await?,
            wanted: store_spec(cx, &change.wanted).await?,
        });
    }
    let frozen = Frozen { schema: SCHEMA, point: id, moves, make: decision.make };
    let data = serde_json::to_vec(&frozen).map_err(|source| journal(cx, source))?;
    cx.engine().ensure_config(&frozen::name(&cx.op.id), &cx.labels(Kind::Plan), &data).await?;
    // Whoever came first decided.
    Ok(summary(&load(cx).await?))
}

fn summary(frozen: &Frozen) -> Progress {
    let services: Vec<&str> = frozen.moves.iter().map(|m| m.name.as_str()).collect();
    Progress::Done(json!({ "point": frozen.point, "changes": services, "configs": frozen.make.len() }))
}

/// Stores a spec that the plan needs, under a name that tells its content; it goes with the plan.
async fn store_spec(cx: &Cx<'_>, spec: &Value) -> Result<Part, Fault> {
    let data = serde_json::to_vec(spec).map_err(|source| journal(cx, source))?;
    let part = Part::of(&cx.op.id, &data);
    let part = Part { name: format!("{}-{}", frozen::name(&cx.op.id), short_hash(&part.sha256)), ..part };
    cx.engine().ensure_config(&part.name, &cx.labels(Kind::Plan), &data).await?;
    Ok(part)
}

async fn load_spec(cx: &Cx<'_>, part: &Part) -> Result<Value, Fault> {
    let config = cx.engine().config(&part.name).await?;
    serde_json::from_slice(&config.data).map_err(|source| journal(cx, source))
}

async fn load(cx: &Cx<'_>) -> Result<Frozen, Fault> {
    let config = cx.engine().config(&frozen::name(&cx.op.id)).await?;
    let frozen: Frozen = serde_json::from_slice(&config.data).map_err(|source| journal(cx, source))?;
    match frozen.schema > SCHEMA {
        true => Err(Fault::failed("the plan was written by a newer Skep")),
        false => Ok(frozen),
    }
}

fn journal(cx: &Cx<'_>, source: serde_json::Error) -> Fault {
    Fault::Journal { step: cx.step.to_owned(), source }
}

/// Makes the configs again that are gone, under their own names. What was made is known by a label, so that finding one
/// there is success, and so that an undo takes nothing away that is somebody else's.
async fn make_configs(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let mut made = Made::default();
    for copied in &frozen.make {
        let data = copied.data.load(cx.engine(), &frozen.point).await?;
        let mut labels = copied.labels.clone();
        labels.insert(OF_POINT.to_owned(), cx.op.id.to_string());
        let id = match cx.engine().create_config(&copied.name, &labels, &data).await {
            Ok(id) => id,
            Err(Error::Exists { .. }) => {
                let there = cx.engine().config(&copied.name).await?;
                if there.data != data {
                    return Err(Fault::failed(format!(
                        "config {} was made by somebody meanwhile",
                        copied.name
                    )));
                }
                there.id
            }
            Err(other) => return Err(other.into()),
        };
        made.made.insert(copied.id.clone(), id);
    }
    serde_json::to_value(&made).map(Progress::Done).map_err(|source| journal(cx, source))
}

/// Removes the configs that this operation made. One that somebody uses by now stays.
async fn remove_configs(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    for copied in &frozen.make {
        let Some(there) = cx.engine().user_config(&copied.name).await? else { continue };
        if there.labels.get(OF_POINT).map(String::as_str) != Some(cx.op.id.as_str()) {
            continue;
        }
        match cx.engine().remove_config(&there.id).await {
            Ok(()) => {}
            Err(Error::Refused { message, .. }) => {
                cx.remark(format!("config {} was made again and stays: {message}", copied.name));
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(Progress::done())
}

/// A service that was written, with the checks of its labels as they are now, and the nodes that run it.
async fn client(cx: &Cx<'_>, step: &Move) -> Result<Option<Client>, Fault> {
    let service = match cx.engine().service(&step.id).await {
        Ok(service) => service,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let runs = tasks.into_iter().filter(|t| t.state == TaskState::Running && t.desired == TaskState::Running);
    Ok(Some(Client {
        name: step.name.clone(),
        id: step.id.clone(),
        method: Method::Zero,
        nodes: runs.filter_map(|t| t.node).collect(),
        checks: policy::parse(&service.labels()).policy.checks,
        holds_files: false,
    }))
}

/// Runs the checks of the services that were written, through their own tasks.
async fn check(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let mut clients = Vec::new();
    for step in &frozen.moves {
        clients.extend(client(cx, step).await?);
    }
    match trial::check_clients(cx, &clients).await? {
        trial::Tried::Wait(progress) => Ok(progress),
        trial::Tried::Passed(0) if !clients.is_empty() => {
            cx.remark("no check is defined (skep.check.…) of a service that changed: that it runs was seen, and no more");
            Ok(Progress::Done(json!({ "checks": 0 })))
        }
        trial::Tried::Passed(count) => Ok(Progress::Done(json!({ "checks": count }))),
    }
}
