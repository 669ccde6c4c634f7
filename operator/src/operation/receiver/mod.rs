//! Receivers: for each service with `skep.backup.wal=true` one service of Skep's that receives its write-ahead log.
//!
//! ```text
//! wanted, none there            ▶ create
//! wanted, made otherwise        ▶ update
//! not wanted any more           ▶ dropper, at zero ▶ receiver removed ▶ dropper at one: drops the slot ▶ all removed
//! its service is gone           ▶ all removed: the slot went with the server
//! nothing can be told just now  ▶ left as it is
//! ```
//! What there is to do is computed from what is there at each look, so it does not matter who did what before.
//! Invariants: a receiver is a service of Skep's own name and label, never a user's; while there is a slot there is a
//! receiver or a dropper that knows of it; a dropper needs nothing of the labels of the service that it works for; nothing
//! that a receiver or a dropper uses is removed before it.

mod build;
mod released;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tracing::{info, warn};

use self::build::{Wanted, armed, dropper};
pub use self::released::{Left, honour, release, retire};
pub use self::standing::{Standing, standings};
use super::frozen::Target;
use super::record::{SERVICE, SERVICE_ID};
use super::saga::Env;
use super::wal;
use crate::engines::Data;
use crate::engines::found::{self, Found};
use crate::operation::client_spec::is_waker;
use crate::policy::{Policies, Policy, Section};
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::job::{self, JobState};
use crate::swarm::object::{Kind, RegistryAuth, Service, Task, TaskState, short_hash};

/// What the names of receivers begin with.
pub const PREFIX: &str = "skep-wal-";
/// What the names of jobs begin with that drop a slot.
pub const DROPPER: &str = "skep-unwal-";
/// How a receiver was made; another value of it means that it has to be made anew. Everything of receivers carries it.
const MADE: &str = "skep.wal";
/// A container of a receiver that was removed is gone after this long: only then is its slot dropped for good.
const GONE_AFTER: Duration = Duration::from_secs(15);

/// What is there of one service's.
#[derive(Clone, Copy, Default)]
struct Own<'a> {
    receiver: Option<&'a Service>,
    dropper: Option<&'a Service>,
}

/// What is wanted of one service.
enum Want {
    /// Its log is to be received, by this.
    Receiver(Box<Wanted>),
    /// Nobody can tell now: labels with mistakes, or a server that does not run.
    Unknown,
    /// Its log is not to be received any more.
    Nothing,
}

/// The next thing to do about one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Nothing,
    Create,
    Update,
    RemoveReceiver,
    RemoveDropper,
    /// Make a dropper, then remove the receiver.
    Dismiss,
    /// Let the dropper work, or see how it does.
    Drop,
}

/// Makes what is wanted so, one move a service, and says how each receiver stands.
///
/// # Errors
/// What the engine says first; all services are looked at all the same.
pub async fn reconcile(env: &Env, released: bool) -> Result<Vec<Standing>, Error> {
    let services = env.engine.services(&[]).await?;
    let policies = Policies::of(&services);
    let mut there = there(&services);
    let (mut told, mut wanted, mut first) = (Vec::new(), BTreeSet::new(), None);
    for service in &services {
        let found = there.remove(service.id.as_str()).unwrap_or_default();
        let parsed = policies.get(service.name());
        let want = match (parsed, released) {
            (Some(parsed), false) if parsed.policy.enabled && is_received(&parsed.policy) => {
                want(env, service, &parsed.policy).await
            }
            (Some(parsed), false) if parsed.policy.enabled && is_faulty(&parsed.problems) => {
                Ok(Want::Unknown)
            }
            (_, _) => Ok(Want::Nothing),
        };
        let done = match want {
            Ok(want) => {
                if !matches!(want, Want::Nothing) {
                    wanted.insert(service.id.clone());
                }
                if let (Want::Receiver(_) | Want::Unknown, Some(receiver)) = (&want, found.receiver) {
                    told.push(standing::of(&env.engine, service.name(), receiver).await);
                } else if let Want::Receiver(_) = &want {
                    told.push(Standing::nothing(service.name()));
                }
                act(env, service, &want, found).await
            }
            Err(error) => Err(error),
        };
        first = first.or(done.err());
    }
    for found in there.into_values() {
        first = first.or(remove_all(&env.engine, found).await.err());
    }
    first = first.or(tidy(&env.engine, &wanted).await.err());
    first.map_or(Ok(told), Err)
}

/// The receivers and droppers, by the ids of the services that they work for.
fn there(services: &[Service]) -> BTreeMap<&str, Own<'_>> {
    let mut there: BTreeMap<&str, Own<'_>> = BTreeMap::new();
    for own in services.iter().filter(|s| s.spec["Labels"][MADE].is_string()) {
        let of = there.entry(own.spec["Labels"][SERVICE_ID].as_str().unwrap_or_default()).or_default();
        // A name besides the label: a person's service is never removed, whatever its labels say.
        if own.name().starts_with(PREFIX) {
            of.receiver = Some(own);
        } else if own.name().starts_with(DROPPER) {
            of.dropper = Some(own);
        }
    }
    there
}

fn is_received(policy: &Policy) -> bool {
    policy.data.is_some() && policy.backup.as_ref().is_some_and(|b| b.wal)
}

fn is_faulty(problems: &[crate::policy::Problem]) -> bool {
    problems.iter().any(|p| matches!(p.section, Section::Data | Section::Backup))
}

async fn want(env: &Env, service: &Service, policy: &Policy) -> Result<Want, Error> {
    let Some((target, task)) = target(env, service, policy).await? else { return Ok(Want::Unknown) };
    if let Some(why) = wal::against(&env.settings, &target) {
        warn!(service = target.name, "its log is not received: {why}");
        return Ok(Want::Nothing);
    }
    match Wanted::of(env, target, &task).await? {
        Some(wanted) => Ok(Want::Receiver(Box::new(wanted))),
        None => Ok(Want::Unknown),
    }
}

/// The service as one that jobs work for, and its task; none where it does not run, or is no PostgreSQL.
async fn target(env: &Env, service: &Service, policy: &Policy) -> Result<Option<(Target, Task)>, Error> {
    let Some(data) = &policy.data else { return Ok(None) };
    let found = found::find(data, service.name(), service.stack(), &service.spec);
    let Ok(Found { data: Data::Postgres, access, database }) = found else { return Ok(None) };
    let Some(task) = running(&env.engine, &service.id).await? else { return Ok(None) };
    let backup = policy.backup.clone().unwrap_or_default();
    let target = Target {
        image: task.image.clone(),
        node: task.node.clone(),
        data: Data::Postgres,
        access,
        database,
        store: backup.store.unwrap_or_else(|| env.settings.default_store.clone()),
        encrypt: backup.encrypt,
        ..Target::without_data(service.name(), &service.id, &service.spec)
    };
    Ok(Some((target, task)))
}

async fn running(engine: &Engine, service: &str) -> Result<Option<Task>, Error> {
    let tasks = engine.tasks(&[service]).await?;
    let runs = |t: &Task| t.state == TaskState::Running && t.desired == TaskState::Running;
    Ok(tasks.into_iter().find(|t| runs(t) && !is_waker(&t.spec)))
}

/// What is to be done next.
fn next(want: &Want, found: Own<'_>) -> Move {
    match (want, found.receiver, found.dropper) {
        (Want::Unknown, _, _) | (Want::Nothing, None, None) => Move::Nothing,
        // Before the dropper goes, which knows of the slot.
        (Want::Receiver(_), None, _) => Move::Create,
        (Want::Receiver(_), Some(_), Some(_)) => Move::RemoveDropper,
        (Want::Receiver(wanted), Some(receiver), None) if made(receiver) == wanted.made => Move::Nothing,
        (Want::Receiver(_), Some(_), None) => Move::Update,
        (Want::Nothing, Some(_), None) => Move::Dismiss,
        (Want::Nothing, Some(_), Some(_)) => Move::RemoveReceiver,
        (Want::Nothing, None, Some(_)) => Move::Drop,
    }
}

async fn act(env: &Env, service: &Service, want: &Want, found: Own<'_>) -> Result<(), Error> {
    match (next(want, found), want, found.receiver) {
        (Move::Create, Want::Receiver(wanted), _) => wanted.create(&env.engine).await,
        (Move::Update, Want::Receiver(wanted), Some(receiver)) => {
            info!(service = service.name(), "its receiver is made otherwise");
            wanted.replace(&env.engine, receiver).await
        }
        (other, _, _) => dismiss(&env.engine, env.now(), &service.id, other, found).await,
    }
}

/// Does whatever ends a receiver; nothing of it needs more than what is there.
async fn dismiss(
    engine: &Engine,
    now: jiff::Timestamp,
    service: &str,
    what: Move,
    found: Own<'_>,
) -> Result<(), Error> {
    match what {
        Move::Nothing | Move::Create | Move::Update => Ok(()),
        Move::RemoveDropper => remove(engine, found.dropper).await,
        Move::RemoveReceiver => remove(engine, found.receiver).await,
        Move::Dismiss => {
            let Some(receiver) = found.receiver else { return Ok(()) };
            let Some(spec) = dropper(engine, receiver).await? else {
                warn!(receiver = receiver.name(), "its ticket is gone: its slot has to be dropped by hand");
                return remove(engine, Some(receiver)).await;
            };
            match engine.create_service(&spec, RegistryAuth::Anonymous).await {
                Ok(_) | Err(Error::Exists { .. }) => remove(engine, Some(receiver)).await,
                Err(error) => Err(error),
            }
        }
        Move::Drop => {
            let Some(dropper) = found.dropper else { return Ok(()) };
            if now.duration_since(dropper.created).unsigned_abs() < GONE_AFTER {
                return Ok(());
            }
            let node = running(engine, service).await?.and_then(|task| task.node);
            if let Some(spec) = armed(&dropper.spec, node.as_deref()) {
                return engine.update_service(&dropper.id, dropper.version, &spec).await;
            }
            if let JobState::Complete { .. } = job::observe(engine, &dropper.id).await? {
                info!(job = dropper.name(), "a replication slot was dropped");
                return remove(engine, Some(dropper)).await;
            }
            Ok(())
        }
    }
}

async fn remove_all(engine: &Engine, found: Own<'_>) -> Result<(), Error> {
    remove(engine, found.receiver).await?;
    remove(engine, found.dropper).await
}

async fn remove(engine: &Engine, service: Option<&Service>) -> Result<(), Error> {
    match service {
        Some(service) => {
            info!(name = service.name(), "removed");
            engine.remove_service(&service.id).await
        }
        None => Ok(()),
    }
}

/// Removes tickets and secrets of receivers that are no more. Those of a service whose log is wanted stay: its receiver may
/// be coming.
async fn tidy(engine: &Engine, wanted: &BTreeSet<String>) -> Result<(), Error> {
    let configs = engine.configs(Kind::Ticket, &[]).await?;
    let secrets = engine.secrets(&[]).await?;
    let objects =
        configs.iter().map(|c| (&c.id, &c.labels)).chain(secrets.iter().map(|s| (&s.id, &s.labels)));
    let unwanted = |labels: &&crate::swarm::object::Labels| {
        labels.contains_key(MADE) && labels.get(SERVICE_ID).is_none_or(|id| !wanted.contains(id))
    };
    let left: BTreeSet<&String> = objects.filter(|(_, l)| unwanted(l)).map(|(id, _)| id).collect();
    if left.is_empty() {
        return Ok(());
    }
    // Read after them: what is used by nobody now is used by nobody later.
    let services = engine.services(&[]).await?;
    let used: BTreeSet<&str> = services.iter().flat_map(used_by).collect();
    for config in configs.iter().filter(|c| left.contains(&c.id) && !used.contains(c.id.as_str())) {
        engine.remove_config(&config.id).await?;
    }
    for secret in secrets.iter().filter(|s| left.contains(&s.id) && !used.contains(s.id.as_str())) {
        engine.remove_secret(&secret.id).await?;
    }
    Ok(())
}

/// Ids of the configs and secrets that a service uses.
fn used_by(service: &Service) -> impl Iterator<Item = &str> {
    let container = &service.spec["TaskTemplate"]["ContainerSpec"];
    let ids = |key: &'static str, id: &'static str| {
        container[key].as_array().into_iter().flatten().filter_map(move |entry| entry[id].as_str())
    };
    ids("Configs", "ConfigID").chain(ids("Secrets", "SecretID"))
}

fn made(service: &Service) -> &str {
    label(&service.spec, MADE)
}

fn label<'a>(spec: &'a Value, key: &str) -> &'a str {
    spec["Labels"][key].as_str().unwrap_or_default()
}

/// Name of a service's receiver, or of what drops its slot.
fn name(prefix: &str, service: &str) -> String {
    format!("{prefix}{}", short_hash(service))
}

/// Name of the replication slot of a service.
pub fn slot(service: &str) -> String {
    format!("skep_{}", short_hash(service))
}

/// The service that a receiver or dropper works for.
fn of_service(own: &Service) -> &str {
    label(&own.spec, SERVICE)
}
