//! Restart: claim ↩ · preflight ↩ · plan ↩ · stop ↩ (what needs it first) · start ↩ (each healthy before the next) · roll ↩ · release.
//!
//! Invariants: a service stops once everything that needs it and stops as well has; it starts once everything that it needs is
//! up and has passed its checks; nothing waits for what it has nothing to do with, as users wait for all of it; whatever goes
//! wrong, every service that was stopped is started again with the spec that it had, or that somebody deployed meanwhile (S12).
//! What sleeps, or was scaled to zero by a person, stays there.

mod decide;
mod roll;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use decide::{Decision, Left, Order, Wanted, decide, is_stateless, left_alone, order, untied};

use super::clients::{Start, Turns};
use super::freeze::Seen;
use super::frozen::{Client, Method, Plan, Target};
use super::journal::Compensation;
use super::record::{Operation, State, StepState, Work};
use super::restore::cut;
use super::saga::{Cx, Fault, Progress, Saga, Unwound, Wait};
use super::{backup, before, checks, claim, clients, freeze, frozen, lines, point, sleeper, work};
use crate::swarm::object::Service;

/// The saga.
pub struct Restart;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds the services.
    Claim,
    /// What must not be interrupted is not under way, as far as the checks of all that is touched tell.
    Preflight,
    /// What stops, what is replaced as it runs, and how, is frozen.
    Plan,
    /// Everything that stops has stopped.
    Stop,
    /// All of it is up again, and the caches are empty.
    Start,
    /// The tasks of the others are new.
    Roll,
    /// The services are given back.
    Release,
}

const STEPS: [Step; 7] =
    [Step::Claim, Step::Preflight, Step::Plan, Step::Stop, Step::Start, Step::Roll, Step::Release];
/// A rollout that somebody else began is looked at this often.
const LOOK: Duration = Duration::from_millis(500);

/// The frozen plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Frozen {
    schema: u32,
    /// Services that stop, in the order of stopping.
    clients: Vec<Client>,
    /// Which of them wait for which.
    #[serde(default)]
    turns: Turns,
    /// Services that are replaced as they run, in the order of starting.
    rolls: Vec<Roll>,
    /// Caches to empty.
    #[serde(default)]
    caches: Vec<Target>,
}

/// A service that is replaced as it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Roll {
    client: Client,
    order: Order,
}

/// What the claim step journals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Claimed {
    #[serde(default)]
    services: Vec<String>,
}

impl Plan for Frozen {
    const SCHEMA: u32 = 1;

    fn schema(&self) -> u32 {
        self.schema
    }
}

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Preflight => "preflight",
            Step::Plan => "plan",
            Step::Stop => clients::STEP,
            Step::Start => "start",
            Step::Roll => "roll",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim | Step::Preflight | Step::Plan | Step::Stop | Step::Start | Step::Roll => {
                Compensation::Undo
            }
            Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        matches!(self, Step::Stop | Step::Start | Step::Roll)
    }
}

impl Saga for Restart {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => take(cx).await,
            Step::Preflight => {
                let services = cx.out::<Claimed>("claim")?.services;
                before::ask(cx, &services).await
            }
            Step::Plan => plan(cx).await,
            Step::Stop => {
                let Frozen { clients, turns, .. } = load(cx).await?;
                clients::stopped_in_turn(cx, &clients, &turns, late).await
            }
            Step::Start => start(cx).await,
            Step::Roll => roll::run(cx, &load(cx).await?.rolls).await,
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
            Step::Stop => back_up(cx).await,
            Step::Preflight | Step::Start => {
                Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait))
            }
            Step::Roll => {
                if let Some(wait) = work::abandon(cx).await? {
                    return Ok(Progress::Wait(wait));
                }
                roll::undo(cx, &load(cx).await?.rolls).await
            }
            Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }

    /// Once anything was started anew nothing is as it was before, whatever its spec is.
    fn unwound(&self, op: &Operation, how: Unwound) -> State {
        match how {
            Unwound::Changed if op.journal.step("start").is_some() => State::Failed,
            Unwound::Cancelled | Unwound::Changed | Unwound::Unchanged => how.state(),
        }
    }
}

async fn load(cx: &Cx<'_>) -> Result<Frozen, Fault> {
    frozen::read(cx.engine(), &cx.op.id).await
}

async fn decided(cx: &Cx<'_>, seen: &Seen) -> Result<Decision, Fault> {
    let Work::Restart { whole, manner, flush, .. } = &cx.op.intent.work else {
        return Err(Fault::failed("this is no restart"));
    };
    if !whole {
        freeze::service(cx).await?;
    }
    let sleepers = sleeper::list(cx.engine()).await?;
    let asleep: BTreeSet<String> = sleepers.into_iter().map(|s| s.sleeper.service_id).collect();
    let wanted = Wanted { name: &cx.op.intent.service, whole: *whole, manner: *manner, flush };
    let decision = decide(seen.services(), seen.policies(), &asleep, wanted);
    match decision.refused.is_empty() {
        true => Ok(decision),
        false => Err(Fault::failed(decision.refused.join("; "))),
    }
}

/// Takes every service that is touched. Which ones is journaled with the first look, as for a restore point.
async fn take(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let mut wanted = cx.scratch::<Claimed>()?.services;
    if wanted.is_empty() {
        let decision = decided(cx, &Seen::load(cx).await?).await?;
        wanted = decision.touched().into_iter().map(str::to_owned).collect();
    }
    claim::take(cx, &wanted).await
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(frozen) = frozen::find::<Frozen>(cx.engine(), &cx.op.id).await? {
        return Ok(summary(&frozen));
    }
    let seen = Seen::load(cx).await?;
    let decision = decided(cx, &seen).await?;
    let claimed = cx.out::<Claimed>("claim")?.services;
    if let Some(late) = decision.touched().iter().find(|name| !claimed.iter().any(|c| c == *name)) {
        return Err(Fault::failed(format!("{late} came to belong to it meanwhile; ask for it again")));
    }
    let names: Vec<&str> = decision.touched().into_iter().collect();
    let services: Vec<Service> = names.iter().filter_map(|name| seen.find(name)).cloned().collect();
    if let Some(wait) = point::rolling(cx, &services)? {
        return Ok(Progress::Wait(Wait { again: LOOK, ..wait }));
    }
    stays(cx, &services).await?;
    let mut frozen = Frozen {
        schema: Frozen::SCHEMA,
        clients: Vec::new(),
        turns: Turns::by_need(seen.policies().graph(), &decision.stop),
        rolls: Vec::new(),
        caches: Vec::new(),
    };
    for name in &decision.stop {
        frozen.clients.push(client(cx, &seen, name).await?);
    }
    for (name, order) in &decision.roll {
        let client = Client { method: Method::Zero, ..client(cx, &seen, name).await? };
        frozen.rolls.push(Roll { client, order: *order });
    }
    for name in &decision.flush {
        let cache = seen.find(name).ok_or_else(|| gone(name))?;
        frozen.caches.push(freeze::cache_of(cx, cache).await?);
    }
    for (name, why) in &decision.left {
        cx.remark(format!("{name} {why}"));
    }
    frozen::store(cx, &frozen).await?;
    // Whoever came first decided.
    Ok(summary(&load(cx).await?))
}

/// A service that stops or is replaced. One that keeps files is waited for also where its node does not answer: two of it at
/// once would be on the same files (S8).
async fn client(cx: &Cx<'_>, seen: &Seen, name: &str) -> Result<Client, Fault> {
    let service = seen.find(name).ok_or_else(|| gone(name))?;
    let client = freeze::client_of(cx, seen, service).await?;
    let policy = seen.policies().get(name).map(|p| &p.policy);
    Ok(Client { holds_files: !is_stateless(service, policy), ..client })
}

fn gone(name: &str) -> Fault {
    Fault::failed(format!("{name} was removed meanwhile"))
}

/// Nothing may come up without its files: on another node its volume is another one, and empty.
///
/// # Errors
/// When it may, and that was not said to be fine; what the engine says.
pub(super) async fn stays(cx: &mut Cx<'_>, services: &[Service]) -> Result<(), Fault> {
    let ready = cx.engine().nodes().await?.into_iter().filter(|n| n.ready && n.active).count();
    let untied = services.iter().filter(|_| ready > 1).filter_map(|s| Some((s.name(), untied(s)?)));
    let why = |(name, volume): (&str, &str)| {
        format!("nothing keeps {name} on the node of `{volume}`: new tasks may come up elsewhere")
    };
    let found: Vec<String> = untied.map(why).collect();
    match is_forced(cx) {
        _ if found.is_empty() => Ok(()),
        true => {
            found.into_iter().for_each(|why| cx.remark(why));
            Ok(())
        }
        false => Err(Fault::failed(format!("{}; give it a placement constraint", found.join("; ")))),
    }
}

/// Whether a person has said that it goes on over what would stop it.
pub(super) fn is_forced(cx: &Cx<'_>) -> bool {
    matches!(cx.op.intent.work, Work::Restart { force: true, .. } | Work::Update { force: true, .. })
}

fn summary(frozen: &Frozen) -> Progress {
    let stop: Vec<&str> = frozen.clients.iter().map(|c| c.name.as_str()).collect();
    let roll: Vec<&str> = frozen.rolls.iter().map(|r| r.client.name.as_str()).collect();
    Progress::Done(json!({ "stop": stop, "roll": roll }))
}

/// Two at once of what keeps files is nothing that a person can want (S8).
fn late(cx: &mut Cx<'_>, client: &Client, wait: &Wait) -> Result<(), Fault> {
    if !is_forced(cx) || client.holds_files {
        return Err(clients::does_not_stop(client, wait));
    }
    cx.remark(format!("{} was not waited for any longer when it stopped", client.name));
    Ok(())
}

/// In turns, in the reverse order: what a service needs is up and has passed its checks before it.
async fn start(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let is_client = |cache: &Target| frozen.clients.iter().any(|c| c.name == cache.name);
    for (nth, cache) in frozen.caches.iter().enumerate().filter(|(_, cache)| !is_client(cache)) {
        if let Some(wait) = cut::flush_one(cx, cache, nth).await? {
            return Ok(Progress::Wait(wait));
        }
    }
    let (mut waiting, mut waits): (Vec<&str>, Vec<Wait>) = (Vec::new(), Vec::new());
    for (nth, client) in frozen.clients.iter().enumerate().rev() {
        if frozen.turns.waits(&client.name, &waiting) {
            waiting.push(&client.name);
            continue;
        }
        match start_one(cx, &frozen, nth, client).await? {
            Some(Progress::Wait(wait)) => {
                waiting.push(&client.name);
                waits.push(wait);
            }
            Some(progress) => return Ok(progress),
            None => {}
        }
    }
    if let Some(wait) = Wait::for_all(&waits) {
        return Ok(Progress::Wait(wait));
    }
    lines::count(cx, &frozen.clients).await?;
    for client in &frozen.clients {
        let since = clients::turn(cx, clients::Turn::Start, client).await?;
        checks::tell_ended(cx, client, since).await?;
    }
    let checks: usize = frozen.clients.iter().map(|c| c.checks.len()).sum();
    Ok(Progress::Done(json!({ "checks": checks })))
}

/// Starts one, empties it where it is a cache, and asks its checks. `None` = it is up, and they have passed.
async fn start_one(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    nth: usize,
    client: &Client,
) -> Result<Option<Progress>, Fault> {
    clients::turn(cx, clients::Turn::Start, client).await?;
    let one = std::slice::from_ref(client);
    if let Some(wait) = clients::start(cx, one, Start::MustBeHealthy).await? {
        return Ok(Some(Progress::Wait(wait)));
    }
    for (nth, cache) in frozen.caches.iter().enumerate().filter(|(_, cache)| cache.name == client.name) {
        if let Some(wait) = cut::flush_one(cx, cache, nth).await? {
            return Ok(Some(Progress::Wait(wait)));
        }
    }
    checks::after(cx, client, nth).await
}

/// Everything that was stopped starts again. Where it was the start that failed, nothing waits for anything else: what does
/// not come up is no reason to keep the rest down.
async fn back_up(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let clients = load(cx).await?.clients;
    let has_failed = |step: &str| {
        let record = cx.op.journal.step(step);
        record.is_some_and(|r| r.state == StepState::Failed || !r.reason.is_empty())
    };
    let left = match has_failed("start") {
        true => clients::start_at_once(cx, &clients).await?,
        false => clients::start(cx, &clients, Start::BestEffort).await?,
    };
    Ok(left.map_or_else(Progress::done, Progress::Wait))
}
