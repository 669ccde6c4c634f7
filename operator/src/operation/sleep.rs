//! Sleep: claim ↩ · plan ↩ · stop ↩ (to zero, behind a waker, or to the replicas that it keeps) · remember ↩ · release. The way back is [`super::wake`].
//!
//! What has a door falls asleep at zero, and only while the door stands. Where nobody but the door asked for it, whoever comes
//! before anything is stopped calls it off ([`super::door`]).
//!
//! Invariants: nothing falls asleep under something that needs it and is awake, unless that was asked for; what is needed stops
//! once everything that needs it has, as the last of its sessions would wake it again where a waker stands in; what is
//! remembered is what was found when it stopped, or what somebody deployed while it did.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clients::{self, Start, Turns};
use super::freeze::{self, Seen};
use super::frozen::{Client, Frozen, Method, Target};
use super::journal::Compensation;
use super::record::{Above, Trigger, Work};
use super::saga::{Cx, Fault, Progress, Saga, Wait};
use super::{backup, claim, client_spec, door, frozen, sleeper, waker};
use crate::swarm::object::Service;

/// The saga.
pub struct Sleep;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds the services.
    Claim,
    /// What stops is frozen.
    Plan,
    /// Everything is at zero.
    Stop,
    /// What it goes back to is written down.
    Remember,
    /// The services are given back.
    Release,
}

/// What the plan says besides what is frozen.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Planned {
    /// Whether the door of the service asked for it, which holds whoever comes until then.
    #[serde(default)]
    by_its_door: bool,
}

const STEPS: [Step; 5] = [Step::Claim, Step::Plan, Step::Stop, Step::Remember, Step::Release];

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Stop => clients::STEP,
            Step::Remember => "remember",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim | Step::Plan | Step::Stop | Step::Remember => Compensation::Undo,
            Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        matches!(self, Step::Stop)
    }
}

impl Saga for Sleep {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => {
                let seen = Seen::load(cx).await?;
                let names: Vec<String> =
                    sleepy(cx, &seen).await?.iter().map(|s| s.name().to_owned()).collect();
                claim::take(cx, &names).await
            }
            Step::Plan => plan(cx).await,
            Step::Stop => {
                if let Some(why) = taken_back(cx).await? {
                    return Ok(why);
                }
                recall(cx).await?;
                let clients = frozen::load(cx).await?.clients;
                clients::stopped_in_turn(cx, &clients, &Turns::OneByOne, |_, client, wait| {
                    Err(clients::does_not_stop(client, wait))
                })
                .await
            }
            Step::Remember => {
                for client in frozen::load(cx).await?.clients {
                    // One that was removed while it stopped goes back to nothing.
                    if let Some(base) = clients::load_base(cx, &client).await? {
                        sleeper::remember(cx, &client, &base.spec).await?;
                    }
                }
                Ok(Progress::done())
            }
            Step::Release => backup::release(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => claim::release(cx).await,
            Step::Plan => {
                waker::clear(cx.engine(), &cx.op.id, None).await?;
                frozen::remove(cx).await?;
                Ok(Progress::done())
            }
            Step::Stop => {
                let frozen = frozen::load(cx).await?;
                let left = clients::start(cx, &frozen.clients, Start::BestEffort).await?;
                Ok(left.map_or_else(Progress::done, Progress::Wait))
            }
            Step::Remember => {
                for client in frozen::load(cx).await?.clients {
                    sleeper::forget(cx.engine(), &client.name).await?;
                }
                Ok(Progress::done())
            }
            Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }
}

/// A sleep for which a door asked stops nothing once it is too late for that: the door may have let somebody through by then.
/// What has been stopped already is not asked about.
async fn taken_back(cx: &mut Cx<'_>) -> Result<Option<Progress>, Fault> {
    // One that an older Skep planned says nothing.
    let asked: Option<Planned> = cx.out("plan")?;
    if !asked.unwrap_or_default().by_its_door || !door::is_late(cx.op, cx.now()) {
        return Ok(None);
    }
    let service = freeze::service(cx).await?;
    if client_spec::is_asleep(&service.spec) {
        return Ok(None);
    }
    let why = format!("{} was unused too long ago to stop it now; its door asks again", service.name());
    cx.remark(why.clone());
    cx.op.journal.cancel = Some("its door, which could not wait any longer".to_owned());
    cx.save().await?;
    Ok(Some(Progress::Wait(Wait { again: Duration::ZERO, ..Wait::new(why) })))
}

/// What falls asleep: the service and, where that was asked for, what needs it and is awake, dependents first.
async fn sleepy(cx: &Cx<'_>, seen: &Seen) -> Result<Vec<Service>, Fault> {
    let service = freeze::service(cx).await?;
    let Work::Sleep { above: wanted } = cx.op.intent.work else {
        return Err(Fault::failed("this is not a sleep"));
    };
    let keeps = kept(seen, &service) > 0;
    let mut above = match wanted {
        // What keeps replicas is there for whatever needs it.
        Above::Refuse if keeps => Vec::new(),
        Above::Refuse | Above::Along => seen.awake_above(service.name()),
        Above::Alone => Vec::new(),
    };
    if let Some(busy) = above.iter().find(|above| !keeps && kept(seen, above) > 0) {
        return Err(Fault::failed(keeps_it_up(service.name(), busy.name(), kept(seen, busy))));
    }
    above.retain(|above| !is_as_low(seen, above));
    if !above.is_empty() && wanted == Above::Refuse {
        let names: Vec<&str> = above.iter().map(Service::name).collect();
        return Err(Fault::failed(format!(
            "{} is needed by what is awake: {}",
            service.name(),
            names.join(", ")
        )));
    }
    above.push(service);
    Ok(above)
}

/// As how many replicas a service goes on instead of sleeping.
fn kept(seen: &Seen, service: &Service) -> u64 {
    seen.policy(service).scale.map_or(0, |scale| scale.min)
}

/// Whether a service keeps as many replicas as it has now.
fn is_as_low(seen: &Seen, service: &Service) -> bool {
    let kept = kept(seen, service);
    kept > 0 && service.replicas().is_some_and(|replicas| replicas <= kept)
}

/// Why a service cannot fall asleep along with what needs it.
pub fn keeps_it_up(service: &str, above: &str, kept: u64) -> String {
    format!("{above} needs {service} and keeps {kept} replica(s) (`skep.scale.min`)")
}

/// Why a service cannot be scaled down.
pub fn nothing_to_scale(service: &str, replicas: u64, kept: u64) -> String {
    format!("{service} has {replicas} replica(s) and keeps {kept} (`skep.scale.min`)")
}

/// Where a service slept behind a waker before it was brought back, what it went back to is what a change of it is told from:
/// the waker itself may still be there, or its image may have been carried over.
async fn recall(cx: &mut Cx<'_>) -> Result<(), Fault> {
    for client in frozen::load(cx).await?.clients {
        if clients::load_base(cx, &client).await?.is_none()
            && let Some(slept) = sleeper::find(cx.engine(), &client.name).await?
            && slept.waker.is_some()
            && slept.sleeper.service_id == client.id
        {
            clients::adopt_base(cx, &client, &slept.spec).await?;
        }
    }
    Ok(())
}

/// It is plainly at zero, with somebody there who wakes it.
async fn behind_its_door(cx: &Cx<'_>, service: &Service) -> Result<Method, Fault> {
    match door::stands(cx.engine(), service.name()).await? {
        true => Ok(Method::Zero),
        false => Err(Fault::failed(format!(
            "the door of {} does not stand (`skep.scale.wake.door`): nobody could wake it",
            service.name()
        ))),
    }
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let seen = Seen::load(cx).await?;
    let services = sleepy(cx, &seen).await?;
    let claimed: Value = cx.out("claim")?;
    let is_claimed =
        |s: &Service| claimed["services"].as_array().into_iter().flatten().any(|n| n == s.name());
    if let Some(late) = services.iter().find(|s| !is_claimed(s)) {
        return Err(Fault::failed(format!("{} came to need it meanwhile", late.name())));
    }
    let name = cx.op.intent.service.clone();
    if let Some(own) = services.iter().find(|s| s.name() == name && is_as_low(&seen, s)) {
        let replicas = own.replicas().unwrap_or(0);
        return Err(Fault::failed(match replicas {
            0 => format!("{name} is at zero already"),
            _ => nothing_to_scale(&name, replicas, kept(&seen, own)),
        }));
    }
    let mut frozen = Frozen::of(Target::without_data(&name, &cx.op.intent.service_id, &Value::Null));
    for service in services.iter().filter(|s| !client_spec::is_asleep(&s.spec)) {
        let client = freeze::client_of(cx, &seen, service).await?;
        let scale = seen.policy(service).scale;
        let method = match (kept(&seen, service), scale.and_then(|scale| scale.wake)) {
            (0, Some(wake)) if wake.door.is_some() => behind_its_door(cx, service).await?,
            (0, Some(wake)) => Method::Waker(waker::choose(cx, service, &wake).await?),
            (0, None) => Method::Zero,
            (left, _) => Method::Fewer { left },
        };
        frozen.clients.push(Client { method, ..client });
    }
    if frozen.clients.is_empty() {
        return Err(Fault::failed(format!("{name} is at zero already")));
    }
    frozen::store(cx, &frozen).await?;
    let is_new = sleeper::find(cx.engine(), &name).await?.is_none();
    let is_found = matches!(cx.op.intent.trigger, Trigger::Found { .. });
    let has_door = services.iter().any(|s| s.name() == name && has_door(&seen, s));
    let planned = Planned { by_its_door: is_new && is_found && has_door };
    let planned = serde_json::to_value(planned);
    planned.map(Progress::Done).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}

fn has_door(seen: &Seen, service: &Service) -> bool {
    seen.policy(service).scale.as_ref().is_some_and(|scale| scale.door().is_some())
}
