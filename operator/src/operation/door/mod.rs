//! Doors: for each service with `skep.scale.wake.door` one service of Skep's that stands before it for good, under a name of its
//! own on the networks of the service. It passes everything on, wakes the service, and asks for its sleep when nobody uses it.
//!
//! ```text
//! wanted, none there            ▶ create
//! wanted, made otherwise        ▶ update, the new task before the old one
//! not wanted any more           ▶ removed, unless the service sleeps behind it
//! its service is gone           ▶ removed
//! nothing can be told just now  ▶ left as it is
//! ```
//! What there is to do is computed from what is there at each look, so it does not matter who did what before.
//!
//! A door that asks for a sleep holds whoever comes from before it asks. So a sleep that a door asked for is called off by
//! whoever comes, for as long as nothing is stopped ([`call_off`]), and it must not begin to stop the service later than
//! [`PROMPT`]: by then a door that cannot ask anybody may have let somebody through ([`is_late`]).
//!
//! Invariants: a door is a service of Skep's own name and label, never a user's; while a service sleeps behind a door, the door
//! stays; its token is in its task and nowhere else, and stays the same for as long as there is a door.

mod build;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use skep_waker::Task;
use skep_waker::task::Token;
use tracing::{info, warn};

use self::build::{Wanted, is_made, is_whole};
pub use self::standing::{Standing, standings};
use super::client_spec::{is_asleep, is_waker};
use super::clients;
use super::desk::{self, Refusal};
use super::record::{Operation, SERVICE, SERVICE_ID, State, Trigger};
use super::saga::{Env, Fault};
use super::sleeper;
use super::waker;
use crate::policy::{Parsed, Policies, Scale, Section};
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{KIND, Kind, Service, TaskState, short_hash};

/// What the names of doors begin with.
pub const PREFIX: &str = "skep-door-";
/// Path on which the operator hears that nobody uses a service.
pub const PATH: &str = "/v1/sleep";
/// How a door was made; another value of it means that it has to be made anew.
const MADE: &str = "skep.door";
/// Label of its container: the service that it stands before.
const CONTAINER: &str = "skep.door";
/// How soon a sleep that a door asked for has to begin to stop the service. Half of the time for which a door holds whoever comes
/// where it cannot ask anybody.
pub const PROMPT: Duration = Duration::from_secs(30);
/// Who calls a sleep off.
const SOMEBODY: &str = "somebody who asked for the service at its door";

/// What is wanted of one service.
enum Want {
    /// This door.
    Door(Box<Wanted>),
    /// Nobody can tell now: labels with mistakes, a waker in place of the service, or a service that sleeps behind its door.
    Unknown,
    /// No door.
    Nothing,
}

/// The next thing to do about one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Nothing,
    Create,
    Update,
    Remove,
}

/// Makes what is wanted so, one move a service, and says how each door stands.
///
/// # Errors
/// What the engine says first; all services are looked at all the same.
pub async fn reconcile(env: &Env, released: bool) -> Result<Vec<Standing>, Error> {
    let services = env.engine.services(&[]).await?;
    let policies = Policies::of(&services);
    let mut there = there(&services);
    let (mut told, mut wanted, mut first) = (Vec::new(), BTreeSet::new(), None);
    for service in &services {
        let found = there.remove(service.id.as_str());
        let parsed = policies.get(service.name()).filter(|_| !released);
        let done = match want(env, service, parsed, found).await {
            Ok(want) => {
                if !matches!(want, Want::Nothing) {
                    wanted.insert(service.id.clone());
                }
                let acted = act(&env.engine, service, &want, found).await;
                match found.filter(|_| !matches!(want, Want::Nothing)) {
                    Some(door) => match standing::of(&env.engine, service.name(), door).await {
                        Ok(standing) => {
                            told.push(standing);
                            acted
                        }
                        Err(error) => acted.and(Err(error)),
                    },
                    None => acted,
                }
            }
            Err(error) => Err(error),
        };
        first = first.or(done.err());
    }
    for door in there.into_values() {
        first = first.or(remove(&env.engine, door).await.err());
    }
    first = first.or(tidy(&env.engine, &wanted).await.err());
    first.map_or(Ok(told), Err)
}

/// The doors, by the ids of the services before which they stand. A name besides the label: a person's service is never removed,
/// whatever its labels say.
fn there(services: &[Service]) -> BTreeMap<&str, &Service> {
    let doors = services.iter().filter(|s| is_door(s) && s.name().starts_with(PREFIX));
    doors.map(|door| (door.spec["Labels"][SERVICE_ID].as_str().unwrap_or_default(), door)).collect()
}

/// Whether a service is a door.
pub fn is_door(service: &Service) -> bool {
    service.spec["Labels"][KIND] == Kind::Door.as_str()
}

async fn want(
    env: &Env,
    service: &Service,
    parsed: Option<&Parsed>,
    found: Option<&Service>,
) -> Result<Want, Error> {
    let scale = parsed.filter(|p| p.policy.enabled).and_then(|p| p.policy.scale.as_ref());
    let is_wanted = scale.and_then(Scale::door).is_some();
    // What stands in its place is on another network besides.
    if is_waker(&service.spec["TaskTemplate"]) && is_wanted {
        return Ok(Want::Unknown);
    }
    let is_faulty = parsed.is_some_and(|p| p.policy.enabled && p.is_off(Section::Scale));
    match scale.filter(|_| is_wanted) {
        Some(scale) => match Wanted::of(env, service, scale).await {
            Ok(Some(wanted)) => Ok(Want::Door(Box::new(wanted))),
            Ok(None) => Ok(Want::Nothing),
            Err(Fault::Swarm(error)) => Err(error),
            Err(fault) => {
                warn!(service = service.name(), "it gets no door: {fault}");
                Ok(Want::Unknown)
            }
        },
        None if is_faulty => Ok(Want::Unknown),
        None if found.is_some() && sleeps_behind_it(&env.engine, service).await? => Ok(Want::Unknown),
        None => Ok(Want::Nothing),
    }
}

/// Whether nothing but a door could wake a service.
async fn sleeps_behind_it(engine: &Engine, service: &Service) -> Result<bool, Error> {
    if !is_asleep(&service.spec) {
        return Ok(false);
    }
    let slept = sleeper::find(engine, service.name()).await?;
    Ok(slept.is_some_and(|slept| slept.sleeper.service_id == service.id && slept.waker.is_none()))
}

/// What is to be done next.
fn next(want: &Want, found: Option<&Service>) -> Move {
    match (want, found) {
        (Want::Unknown, _) | (Want::Nothing, None) => Move::Nothing,
        (Want::Door(_), None) => Move::Create,
        (Want::Door(wanted), Some(door)) if is_made(door, wanted) && is_whole(door) => Move::Nothing,
        (Want::Door(_), Some(_)) => Move::Update,
        (Want::Nothing, Some(_)) => Move::Remove,
    }
}

async fn act(engine: &Engine, service: &Service, want: &Want, found: Option<&Service>) -> Result<(), Error> {
    match (next(want, found), want, found) {
        (Move::Create, Want::Door(wanted), _) => {
            info!(service = service.name(), "it gets a door");
            wanted.create(engine).await
        }
        (Move::Update, Want::Door(wanted), Some(door)) => {
            info!(service = service.name(), "its door is made otherwise");
            wanted.replace(engine, door).await
        }
        (Move::Remove, _, Some(door)) => remove(engine, door).await,
        _ => Ok(()),
    }
}

async fn remove(engine: &Engine, door: &Service) -> Result<(), Error> {
    info!(service = label(&door.spec, SERVICE), "its door is removed");
    engine.remove_service(&door.id).await
}

/// Removes what doors were told that are no more, or are made otherwise by now.
async fn tidy(engine: &Engine, wanted: &BTreeSet<String>) -> Result<(), Error> {
    let tasks = engine.configs(Kind::Door, &[]).await?;
    if tasks.is_empty() {
        return Ok(());
    }
    // Read after them: what is used by nobody now is used by nobody later.
    let services = engine.services(&[]).await?;
    let used: BTreeSet<&str> = services.iter().filter_map(config_of).collect();
    let there = there(&services);
    for task in tasks.iter().filter(|task| !used.contains(task.id.as_str())) {
        let service = task.labels.get(SERVICE_ID).map(String::as_str).unwrap_or_default();
        // That of a door which is still to come is used by nobody yet.
        if there.contains_key(service) || !wanted.contains(service) {
            engine.remove_config(&task.id).await?;
        }
    }
    Ok(())
}

/// Ends all doors, for good where no operator is told otherwise. Needs nothing but what is there. Names the services that have
/// none any more.
///
/// # Errors
/// What the engine says.
pub async fn retire(engine: &Engine) -> Result<Vec<String>, Error> {
    let services = engine.services(&[]).await?;
    let mut retired = Vec::new();
    for door in there(&services).into_values() {
        remove(engine, door).await?;
        retired.push(label(&door.spec, SERVICE).to_owned());
    }
    for task in engine.configs(Kind::Door, &[]).await? {
        engine.remove_config(&task.id).await?;
    }
    Ok(retired)
}

/// Whether any of these services is a door.
pub(super) fn is_any(services: &[Service]) -> bool {
    !there(services).is_empty()
}

/// The door of a service; none where none was made.
///
/// # Errors
/// What the engine says.
pub async fn find(engine: &Engine, service: &str) -> Result<Option<Service>, Error> {
    match engine.service(&name(service)).await {
        Ok(door) => Ok(Some(door).filter(|door| is_door(door) && label(&door.spec, SERVICE) == service)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the door of a service shows to the operator.
///
/// # Errors
/// What the engine says.
pub async fn token(engine: &Engine, service: &str) -> Result<Option<Token>, Error> {
    match find(engine, service).await? {
        Some(door) => token_of(engine, &door).await,
        None => Ok(None),
    }
}

async fn token_of(engine: &Engine, door: &Service) -> Result<Option<Token>, Error> {
    let Some(config) = config_of(door) else { return Ok(None) };
    match engine.config(config).await {
        Ok(config) => Ok(serde_json::from_slice::<Task>(&config.data).ok().map(|task| task.ask.token)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether this is the token of the service's door.
///
/// # Errors
/// What the engine says.
pub async fn shows(engine: &Engine, service: &str, shown: &Token) -> Result<bool, Error> {
    Ok(token(engine, service).await?.is_some_and(|token| waker::is_same(&token, shown)))
}

/// Whether the door of a service stands alone: one task, which runs. Another one that has not left yet may have something open
/// of which that one knows nothing; where none runs, nobody could wake the service.
///
/// # Errors
/// What the engine says.
pub async fn stands_alone(engine: &Engine, service: &str) -> Result<bool, Error> {
    let Some(door) = find(engine, service).await? else { return Ok(false) };
    let tasks = engine.tasks(&[&door.id]).await?;
    let mut live = tasks.iter().filter(|task| !task.state.is_terminal());
    let runs = live.next().is_some_and(|t| t.state == TaskState::Running && t.desired == TaskState::Running);
    Ok(runs && live.next().is_none())
}

/// Whether the door of a service runs, so that somebody hears whoever comes.
///
/// # Errors
/// What the engine says.
pub async fn stands(engine: &Engine, service: &str) -> Result<bool, Error> {
    let Some(door) = find(engine, service).await? else { return Ok(false) };
    Ok(standing::of(engine, service, &door).await?.stands)
}

/// Calls off a sleep that Skep itself asked for, since somebody asks for the service, where it has not begun to stop it. Whether
/// it is, or already was.
///
/// # Errors
/// What the engine says.
pub async fn call_off(engine: &Engine, sleep: &Operation) -> Result<bool, Refusal> {
    let called_off = desk::edit(engine, &sleep.id, |op| match op.journal.state {
        State::Pending | State::Running if op.journal.cancel.is_some() => Ok(()),
        State::Pending | State::Running if op.journal.step(clients::STEP).is_none() => {
            op.journal.cancel = Some(SOMEBODY.to_owned());
            Ok(())
        }
        _ => Err("it stops the service already"),
    });
    match called_off.await {
        Ok(_) => {
            info!(operation = %sleep.id, "called off: somebody asks for {}", sleep.intent.service);
            Ok(true)
        }
        Err(Refusal::State { .. } | Refusal::Absent(_)) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Whether it is too late to stop a service for which a door asked: see [`PROMPT`].
pub fn is_late(sleep: &Operation, now: Timestamp) -> bool {
    matches!(sleep.intent.trigger, Trigger::Found { .. })
        && now.duration_since(sleep.intent.created).unsigned_abs() > PROMPT
}

/// The config of a door.
fn config_of(door: &Service) -> Option<&str> {
    let configs = &door.spec["TaskTemplate"]["ContainerSpec"]["Configs"];
    configs[0]["ConfigID"].as_str().filter(|_| is_door(door))
}

fn label<'a>(spec: &'a Value, key: &str) -> &'a str {
    spec["Labels"][key].as_str().unwrap_or_default()
}

/// Name of a service's door.
pub fn name(service: &str) -> String {
    format!("{PREFIX}{}", short_hash(service))
}
