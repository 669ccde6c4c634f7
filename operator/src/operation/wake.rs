//! Wake: claim ↩ · plan ↩ · recall · start · forget · settle · release. The way back from [`super::sleep`].
//!
//! What a service needs and what sleeps as well is woken with it, and is up before it. Once a spec is back it stays: a
//! service that does not come up is told of and left to Swarm, which tries on; nothing puts it back to sleep.

use serde_json::Value;

use super::clients::{self, Start};
use super::freeze::{self, Seen};
use super::frozen::{Client, Frozen, Method, Target};
use super::journal::Compensation;
use super::record::{Operation, State};
use super::saga::{Cx, Fault, Progress, Saga, Unwound};
use super::{backup, claim, frozen, sleeper, waker};

/// The saga.
pub struct Wake;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds the services.
    Claim,
    /// What wakes is frozen.
    Plan,
    /// The specs that were written down are in the operation's own keeping.
    Recall,
    /// Their own specs are back, what is needed first.
    Start,
    /// Nothing is written down any more.
    Forget,
    /// Everything is up.
    Settle,
    /// The services are given back.
    Release,
}

const STEPS: [Step; 7] =
    [Step::Claim, Step::Plan, Step::Recall, Step::Start, Step::Forget, Step::Settle, Step::Release];

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Recall => clients::RECALL,
            Step::Start => "start",
            Step::Forget => "forget",
            Step::Settle => "settle",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim | Step::Plan => Compensation::Undo,
            Step::Recall | Step::Start | Step::Forget | Step::Settle | Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        matches!(self, Step::Start)
    }
}

impl Saga for Wake {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => {
                let seen = Seen::load(cx).await?;
                let mut names = seen.needed_below(&cx.op.intent.service);
                names.push(cx.op.intent.service.clone());
                claim::take(cx, &names).await
            }
            Step::Plan => plan(cx).await,
            Step::Recall => {
                for client in frozen::load(cx).await?.clients {
                    if clients::load_base(cx, &client).await?.is_none()
                        && let Some(slept) = sleeper::find(cx.engine(), &client.name).await?
                    {
                        clients::adopt_base(cx, &client, &slept.spec).await?;
                    }
                }
                clients::journaled(cx)
            }
            Step::Start => {
                let frozen = frozen::load(cx).await?;
                let left = clients::start(cx, &frozen.clients, Start::BestEffort).await?;
                Ok(left.map_or_else(Progress::done, Progress::Wait))
            }
            Step::Forget => {
                for client in frozen::load(cx).await?.clients {
                    if let Some(slept) = sleeper::find(cx.engine(), &client.name).await? {
                        waker::clear(cx.engine(), &slept.sleeper.op, Some(&client.name)).await?;
                    }
                    sleeper::forget(cx.engine(), &client.name).await?;
                }
                Ok(Progress::done())
            }
            Step::Settle => {
                let frozen = frozen::load(cx).await?;
                match clients::not_up(cx, &frozen.clients).await? {
                    None => Ok(Progress::done()),
                    Some(why) => Err(Fault::failed(why)),
                }
            }
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
            Step::Recall | Step::Start | Step::Forget | Step::Settle | Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }

    /// Once anything was started nothing is as it was before.
    fn unwound(&self, op: &Operation, how: Unwound) -> State {
        match how {
            _ if op.journal.step("start").is_some() => State::Failed,
            Unwound::Cancelled | Unwound::Changed | Unwound::Unchanged => how.state(),
        }
    }
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let service = freeze::service(cx).await?;
    let seen = Seen::load(cx).await?;
    let mut frozen = Frozen::of(Target::without_data(service.name(), &service.id, &Value::Null));
    // Dependents first, as everything that stops is listed; it starts the other way round.
    let mut names = vec![service.name().to_owned()];
    names.extend(seen.needed_below(service.name()));
    for name in names {
        let Some(slept) = sleeper::find(cx.engine(), &name).await? else { continue };
        let Some(found) = seen.find(&name).filter(|s| s.id == slept.sleeper.service_id) else { continue };
        let client = freeze::client_of(cx, &seen, found).await?;
        let method = match (slept.waker, slept.sleeper.left) {
            (Some(waker), _) => Method::Waker(waker),
            (None, 0) => Method::Zero,
            (None, left) => Method::Fewer { left },
        };
        frozen.clients.push(Client { method, ..client });
    }
    if !frozen.clients.iter().any(|c| c.name == service.name()) {
        cx.remark(format!("{} was not asleep", service.name()));
    }
    frozen::store(cx, &frozen).await?;
    Ok(Progress::done())
}
