//! Rollback: puts the specs, configs, images and data of a stack back to a restore point.
//!
//! ```text
//! claim ↩ plan ↩ safety ↩ configs ↩ apply ↩ check ↩ · release
//!         │      │        │         │       └ the checks of the services that changed
//!         │      │        │         └ one service after the other, in the order of starting, each up before the next
//!         │      │        └ configs that were removed are made again from the point
//!         │      └ a restore point of what is about to be changed
//!         └ preflight: what differs, and what cannot come back, is decided before anything is changed
//! ```
//! Without data there is no point of no return: whatever fails, every spec goes back to what was found. With data:
//!
//! ```text
//! claim ↩ plan ↩ data ↩ safety ↩ configs ↩ │ stop ↩ cut ↩ apply ↩ canary ↩ start ◆ check · release
//!                │                         │        │                      └ the clients, on the specs that they get
//!                │                         │        └ every data service has the data of the point, or all go back
//!                │                         └ users see the page
//!                └ a restore for each data service, as a part of this operation ([`part`](super::restore::part)): built beside
//! ```
//! Services that stop for the data get their specs when they start again; all others in `apply`. One whose own files go
//! back is one of them where it uses other data that does, or gets another spec: it is stopped once, for both, and starts
//! when all data is there. Before `start` has begun, data and specs go back to what was found, all of them; afterwards nothing goes back by itself (S3).
//!
//! Invariants (S12): a service is written only while its spec is the one that was read when the plan was made, or the one
//! that this operation wrote, and under the version of that very reading. Whoever changes one meanwhile ends the
//! rollback; theirs stays, also when everything else goes back. Swarm's own rollback of an update counts as a failure
//! of it. The specs to go back to are this operation's own, never Swarm's `PreviousSpec`.

mod apply;
mod data;
mod decide;
mod differences;
mod foresee;
mod look;
mod parts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use data::{Replaced, everything, with_data};
pub use decide::{Change, Component, Decision, Now, Why, decide};
pub use differences::Difference;
pub use foresee::foresee;
pub use look::{now, point};
pub(in crate::operation) use parts::failure;

use super::checks::{self, Tried};
use super::frozen::{self, Client, Method, Plan};
use super::journal::Compensation;
use super::point::{self as taking, not_held, rolling};
use super::points::{self, Copied, OF_POINT, Part as Stored};
use super::record::{OpId, Work};
use super::restore::{part, trial};
use super::saga::{Cx, Fault, Progress, Saga};
use super::{backup, claim, clients, freeze, lines, update, work};
use crate::policy;
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, Service, TaskState, short_hash};

/// The saga.
pub struct Rollback {
    /// Whether data goes back, too.
    pub with_data: bool,
}

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds every service of the stack.
    Claim,
    /// What changes is decided and frozen.
    Plan,
    /// The data of the point is built beside the live one, and checked there.
    Data,
    /// A restore point of what is there now.
    Safety,
    /// Configs that were removed are made again.
    Configs,
    /// The clients of the data stop; the page is on.
    Stop,
    /// The data changes places.
    Cut,
    /// The specs are put back.
    Apply,
    /// One client, out of reach of users, passes its checks on what was put back (S1).
    Canary,
    /// The clients start; the page goes.
    Start,
    /// The services that changed pass their checks.
    Check,
    /// The services are given back.
    Release,
}

const STEPS: [Step; 7] =
    [Step::Claim, Step::Plan, Step::Safety, Step::Configs, Step::Apply, Step::Check, Step::Release];
const WITH_DATA: [Step; 12] = [
    Step::Claim,
    Step::Plan,
    Step::Data,
    Step::Safety,
    Step::Configs,
    Step::Stop,
    Step::Cut,
    Step::Apply,
    Step::Canary,
    Step::Start,
    Step::Check,
    Step::Release,
];
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
    /// Services whose data goes back.
    #[serde(default)]
    data: Vec<Part>,
    /// Services that stop for that, in the order of stopping.
    #[serde(default)]
    clients: Vec<Client>,
}

/// One service whose data goes back, by an operation that is a part of this one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    service: String,
    service_id: String,
    engine: String,
    /// The backup in the point.
    backup: String,
    /// The operation.
    id: OpId,
    /// The node that holds its files, where it is started by this operation, and only there has them.
    #[serde(default)]
    node: Option<String>,
}

/// One service to write.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Move {
    name: String,
    id: String,
    /// Its spec when the plan was made.
    base: Stored,
    /// Its spec afterwards, with configs that are made again under their old ids.
    wanted: Stored,
}

/// What the configs step journals: ids of the configs that it made, by their old ids.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Made {
    #[serde(default)]
    made: BTreeMap<String, String>,
}

impl Plan for Frozen {
    /// Plans of version 1 knew no data.
    const SCHEMA: u32 = 2;

    fn schema(&self) -> u32 {
        self.schema
    }
}

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Data => part::MAKES,
            Step::Safety => "safety",
            Step::Configs => "configs",
            Step::Stop => clients::STEP,
            Step::Cut => part::CUTS,
            Step::Apply => "apply",
            Step::Canary => "canary",
            Step::Start => part::DECIDES,
            Step::Check => "check",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim
            | Step::Plan
            | Step::Data
            | Step::Safety
            | Step::Configs
            | Step::Stop
            | Step::Cut
            | Step::Apply
            | Step::Canary
            | Step::Check => Compensation::Undo,
            Step::Start => Compensation::PointOfNoReturn,
            Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        match self {
            Step::Stop | Step::Cut | Step::Apply | Step::Start | Step::Check => true,
            Step::Claim
            | Step::Plan
            | Step::Data
            | Step::Safety
            | Step::Configs
            | Step::Canary
            | Step::Release => false,
        }
    }
}

impl Saga for Rollback {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        if self.with_data { &WITH_DATA } else { &STEPS }
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => match update::lent(cx).await? {
                Some(services) => claim::take(cx, &services).await,
                None => taking::take(cx).await,
            },
            Step::Plan => plan(cx).await,
            Step::Data => parts::prepare(cx).await,
            Step::Safety => {
                let data = if self.with_data { parts::safety_backups(cx).await? } else { BTreeMap::new() };
                taking::safety(cx, data).await
            }
            Step::Configs => make_configs(cx).await,
            Step::Stop => clients::all_stopped(cx, &load(cx).await?.clients).await,
            Step::Cut => parts::cut(cx).await,
            Step::Apply => apply::apply(cx).await,
            Step::Canary => parts::canary(cx).await,
            Step::Start => parts::start(cx).await,
            Step::Check => check(cx).await,
            Step::Release => release(cx).await,
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
            Step::Data => parts::take_back(cx).await,
            Step::Cut => parts::undo_cut(cx).await,
            Step::Configs => remove_configs(cx).await,
            Step::Stop => {
                let left = clients::start(cx, &load(cx).await?.clients, clients::Start::BestEffort).await?;
                Ok(left.map_or_else(Progress::done, Progress::Wait))
            }
            Step::Apply => apply::undo(cx).await,
            Step::Canary => trial::undo_canary(cx).await,
            Step::Check => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
            Step::Start | Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match self.with_data {
            true => parts::make_safe(cx).await,
            false => Ok(Progress::done()),
        }
    }
}

impl Frozen {
    /// Services that are written as they run; the others when they start again.
    fn at_once(&self) -> impl DoubleEndedIterator<Item = &Move> {
        self.moves.iter().filter(|m| !self.clients.iter().any(|c| c.name == m.name))
    }
}

/// Gives the services back, once every part has ended; it may be that there is no plan any more.
async fn release(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(frozen) = frozen::find::<Frozen>(cx.engine(), &cx.op.id).await?
        && let Some(wait) = parts::ended(cx, &frozen).await?
    {
        return Ok(Progress::Wait(wait));
    }
    backup::release(cx).await
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(frozen) = frozen::find::<Frozen>(cx.engine(), &cx.op.id).await? {
        return Ok(summary(&frozen));
    }
    let Work::Rollback { point: id, only } = cx.op.intent.work.clone() else {
        return Err(Fault::failed("this is no rollback"));
    };
    let head = point(cx.engine(), &id).await?.head;
    if head.stack != cx.op.intent.service {
        return Err(Fault::failed(format!("restore point {id} is one of stack {}", head.stack)));
    }
    let mut now = now(cx.engine(), &head).await?;
    let whole = update::whole(cx).await?;
    let held = match &whole {
        Some(whole) => {
            if let Some(why) = whole.is_changed(&now.services) {
                return Err(Fault::failed(why));
            }
            now.only_specs_of(|name| whole.updates(name));
            update::lent(cx).await?
        }
        None => None,
    };
    let waits_for: Vec<Service> = match &whole {
        // Of a service that does not come up there is no end to wait for.
        Some(whole) => now.services.iter().filter(|s| whole.uses(s.name())).cloned().collect(),
        None => now.services.clone(),
    };
    if held.is_none()
        && let Some(why) = not_held(cx, &now.services)?
    {
        return Err(Fault::failed(why));
    }
    if let Some(wait) = rolling(cx, &waits_for)? {
        return Ok(Progress::Wait(wait));
    }
    let mut decision = decide(&head, &now, &only);
    if let Some(held) = &held {
        decision.within(held);
    }
    if !decision.refused.is_empty() {
        return Err(Fault::failed(decision.refused.join("; ")));
    }
    decision.mind.iter().for_each(|mind| cx.remark(mind));
    if decision.changes.is_empty() && decision.data.is_empty() {
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
    let Stopping { clients, mut nodes } = stopping(cx, &decision).await?;
    let part = |(nth, replaced): (usize, Replaced)| Part {
        node: nodes.remove(&replaced.name),
        service: replaced.name,
        service_id: replaced.id,
        engine: replaced.engine,
        backup: replaced.backup,
        id: cx.op.id.part(nth),
    };
    let data = decision.data.into_iter().enumerate().map(part).collect();
    let frozen = Frozen { schema: Frozen::SCHEMA, point: id, moves, make: decision.make, data, clients };
    frozen::store(cx, &frozen).await?;
    // Whoever came first decided.
    Ok(summary(&load(cx).await?))
}

/// Who stops while the data changes places.
struct Stopping {
    /// In the order of stopping.
    clients: Vec<Client>,
    /// The nodes to which the files of those tie them whose files go back as well.
    nodes: BTreeMap<String, String>,
}

/// The clients of the data that goes back, each with the checks of the labels that it gets.
async fn stopping(cx: &Cx<'_>, decision: &Decision) -> Result<Stopping, Fault> {
    let seen = freeze::Seen::load(cx).await?;
    let (mut clients, mut nodes) = (Vec::new(), BTreeMap::new());
    for name in &decision.clients {
        let service =
            seen.find(name).ok_or_else(|| Fault::failed(format!("{name} was removed meanwhile")))?;
        let mut client = match decision.data.iter().any(|replaced| replaced.name == *name) {
            true => {
                let (holder, node) = freeze::holder_of(cx, &seen, service).await?;
                nodes.extend(node.map(|node| (name.clone(), node)));
                holder
            }
            false => freeze::client_of(cx, &seen, service).await?,
        };
        if let Some(change) = decision.changes.iter().find(|c| c.name == *name) {
            let wanted = Service { spec: change.wanted.clone(), ..service.clone() };
            client.checks = policy::parse(&wanted.labels()).policy.checks;
        }
        clients.push(client);
    }
    Ok(Stopping { clients, nodes })
}

fn summary(frozen: &Frozen) -> Progress {
    let services: Vec<&str> = frozen.moves.iter().map(|m| m.name.as_str()).collect();
    let data: Vec<&str> = frozen.data.iter().map(|d| d.service.as_str()).collect();
    let configs = frozen.make.len();
    Progress::Done(json!({ "point": frozen.point, "changes": services, "configs": configs, "data": data }))
}

/// Stores a spec that the plan needs, under a name that tells its content; it goes with the plan.
async fn store_spec(cx: &Cx<'_>, spec: &Value) -> Result<Stored, Fault> {
    let data = serde_json::to_vec(spec).map_err(|source| journal(cx, source))?;
    let part = Stored::of(&cx.op.id, &data);
    let part = Stored { name: format!("{}-{}", frozen::name(&cx.op.id), short_hash(&part.sha256)), ..part };
    cx.engine().ensure_config(&part.name, &cx.labels(Kind::Plan), &data).await?;
    Ok(part)
}

async fn load_spec(cx: &Cx<'_>, part: &Stored) -> Result<Value, Fault> {
    let config = cx.engine().config(&part.name).await?;
    serde_json::from_slice(&config.data).map_err(|source| journal(cx, source))
}

async fn load(cx: &Cx<'_>) -> Result<Frozen, Fault> {
    frozen::read(cx.engine(), &cx.op.id).await
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

/// Runs the checks of the services that were written or stopped, through their own tasks.
async fn check(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let mut clients: Vec<Client> = parts::unchanged(&frozen).cloned().collect();
    for step in &frozen.moves {
        clients.extend(client(cx, step).await?);
    }
    match checks::after_all(cx, &clients).await? {
        Tried::Wait(progress) => Ok(progress),
        Tried::Passed(_) => {
            lines::count(cx, &clients).await?;
            let count: usize = clients.iter().map(|client| client.checks.len()).sum();
            if count == 0 && !clients.is_empty() {
                cx.remark("no check is defined (skep.check.…) of a service that changed: that it runs was seen, and no more");
            }
            Ok(Progress::Done(json!({ "checks": count })))
        }
    }
}
