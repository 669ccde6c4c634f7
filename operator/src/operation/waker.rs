//! What stands in for a service that sleeps and is to wake when somebody asks for it: Skep's own image, running `skep waker`
//! under the service's name, on its networks and ports.
//!
//! Invariants: nothing of the application's container reaches the waker; what it shows to the operator opens nothing but the
//! wake of this one service; it is the same service all the while, so names, addresses and routing labels stay.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skep_waker::Task;
use skep_waker::task::{Ask, Mode, Token};
use subtle::ConstantTimeEq;

use super::client_spec::{PAGE_IMAGE, WAKER};
use super::desk::{self, Refusal};
use super::frozen::{self, Client, Frozen, Method, Waker};
use super::record::{self, Intent, OpId, Operation, State, Trigger, Work};
use super::saga::{Cx, Env, Fault};
use super::sleeper::Sleeper;
use super::{claim, door, page, sleeper};
use crate::engines::nginx;
use crate::policy::WakeOnDemand;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, OP, Service, short_hash};
use crate::swarm::spec::host_ports;

/// Where the waker finds what it is to do.
pub(super) const TASK_PATH: &str = "/skep/waker.json";
/// What a page tells browsers to wait before they look again, seconds.
pub(super) const RETRY_AFTER: u32 = 2;
/// How long downloads and WebSockets that went through the waker may go on when it leaves, in nanoseconds: longer than pools
/// keep connections, and no longer than a node may take to shut down, which waits for it.
const GRACE: u64 = 3_600_000_000_000;
/// How soon a wake that came to nothing is tried again; doubled each time.
const RETRY_FIRST: Duration = Duration::from_secs(10);
/// How late at most.
const RETRY_LATEST: Duration = Duration::from_secs(300);
/// Path on which the operator hears wakers.
pub const PATH: &str = "/v1/wake";

/// How what stands in for services is made, and how it reaches the operator.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    /// Skep's own image.
    pub(super) image: String,
    /// Where the operator listens, `http://host:port`.
    pub(super) url: String,
    /// Id of the network on which it does.
    pub(super) network: String,
}

/// Finds that out: from the settings, else from the task in which the operator runs.
///
/// # Errors
/// When Skep's own image, address or network is not known, or what the engine says.
pub(super) async fn reach(env: &Env) -> Result<Reach, Fault> {
    let settings = &env.settings;
    let own = env.own_task().await?;
    let image = settings.image.clone().or_else(|| own.as_ref().map(|own| own.image.clone()));
    let image = image.ok_or_else(|| unknown("image", "SKEP_IMAGE"))?;
    let own = match &own {
        Some(own) => Some(env.engine.service(&own.service).await?),
        None => None,
    };
    let url = settings.wake_url.clone();
    let url = url.or_else(|| own.as_ref().map(|s| format!("http://tasks.{}:{}", s.name(), settings.port)));
    let url = url.ok_or_else(|| unknown("address", "SKEP_WAKE_URL"))?;
    let network = match (&settings.wake_network, &own) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(own)) => own.spec["TaskTemplate"]["Networks"][0]["Target"].as_str().map(str::to_owned),
        (None, None) => None,
    };
    let network = network.ok_or_else(|| unknown("network", "SKEP_WAKE_NETWORK"))?;
    let network = match env.engine.network(&network).await {
        Ok(network) => network.id,
        Err(Error::NotFound { .. }) => {
            return Err(Fault::failed(format!(
                "the Swarm has no network `{network}` on which wakers could reach Skep"
            )));
        }
        Err(other) => return Err(other.into()),
    };
    Ok(Reach { image, url: url.trim_end_matches('/').to_owned(), network })
}

/// Decides what stands in for a service.
///
/// # Errors
/// When Skep's own image or address is not known, or what the engine says.
pub async fn choose(cx: &Cx<'_>, service: &Service, wake: &WakeOnDemand) -> Result<Waker, Fault> {
    let Reach { image, url, network } = reach(cx.env).await?;
    // Only one of the two can have the node's port, so nothing that it held could be passed on.
    let stop_first = !host_ports(&service.spec).is_empty();
    Ok(Waker {
        image,
        ports: wake.ports.clone(),
        mode: if stop_first { Mode::Page } else { wake.mode },
        timeout_s: wake.timeout.as_secs().max(1),
        ignore: wake.ignore.clone(),
        page: wake.page.clone(),
        url: format!("{url}{PATH}"),
        network,
        token: new_token(),
        stop_first,
    })
}

/// A secret that nobody can guess.
pub(super) fn new_token() -> Token {
    Token::new(format!("{:032x}", rand::random::<u128>()))
}

fn unknown(what: &str, setting: &str) -> Fault {
    Fault::failed(format!(
        "Skep's own {what} is not known here, which wakers need: name it in the setting {setting}, or let the operator \
         do it"
    ))
}

/// What whoever comes sees while the service wakes; its own page goes before it.
pub(super) fn page_of(operation: &str, started: Timestamp) -> nginx::Rendered {
    let text = nginx::PageText {
        reason: nginx::Reason::Asleep,
        title: "Waking up".to_owned(),
        message: "Nobody needed this for a while, so it was asleep. It is being started for you now."
            .to_owned(),
        started,
        expected_end: None,
        retry_after: RETRY_AFTER,
        operation: operation.to_owned(),
    };
    nginx::render(&text, &[])
}

/// Builds the waker's task template and makes the config that it mounts.
///
/// # Errors
/// What the engine says.
pub(super) async fn template(
    cx: &mut Cx<'_>,
    client: &Client,
    waker: &Waker,
    base: &Value,
) -> Result<Value, Fault> {
    let rendered = page_of(cx.op.id.as_str(), cx.op.intent.created);
    let html = match &waker.page {
        Some(name) => page::user_page(cx, name).await?.unwrap_or(rendered.html),
        None => rendered.html,
    };
    let task = Task {
        schema: skep_waker::SCHEMA,
        service: client.name.clone(),
        networks: network_names(cx.engine(), base).await?,
        ports: waker.ports.clone(),
        mode: waker.mode,
        timeout_s: waker.timeout_s,
        retry_after_s: RETRY_AFTER,
        ask: Ask { url: waker.url.clone(), token: waker.token.clone(), sleep: cx.op.id.to_string() },
        ignore: waker.ignore.clone(),
        html,
        json: rendered.json,
        door: None,
    };
    let task = serde_json::to_vec(&task);
    let task = task.map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
    let config = page::file(cx, client, Kind::Waker, "task", TASK_PATH, &task).await?;
    let labels = json!({ OP: cx.op.id.as_str(), PAGE_IMAGE: waker.image, WAKER: client.name });
    let container = container(&waker.image, &labels, &config);
    let mut template = page::in_place_of(base, container);
    join(&mut template, &waker.network);
    Ok(template)
}

/// The container of a waker, or of a door, with these labels and its task in this config.
pub(super) fn container(image: &str, labels: &Value, config: &Value) -> Value {
    json!({
        "Image": image,
        "Args": ["waker", "--task", TASK_PATH],
        "Labels": labels,
        "Configs": [config],
        "Healthcheck": {
            "Test": ["CMD", "/bin/skep", "waker", "--healthy", "--task", TASK_PATH],
            "Interval": 500_000_000u64,
            "Timeout": 2_000_000_000u64,
            "StartPeriod": 5_000_000_000u64,
            "Retries": 3,
        },
        "StopGracePeriod": GRACE,
        "ReadOnly": true,
        "CapabilityDrop": ["ALL"],
        "Isolation": "default",
    })
}

/// The networks of a service by name. One that is gone is left out: the service does not start again without it.
pub(super) async fn network_names(engine: &Engine, spec: &Value) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for network in spec["TaskTemplate"]["Networks"].as_array().into_iter().flatten() {
        let Some(target) = network["Target"].as_str() else { continue };
        match engine.network(target).await {
            Ok(network) => names.push(network.name),
            Err(Error::NotFound { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(names)
}

/// Removes what the wakers of a sleep were told, when none stands any more.
///
/// # Errors
/// What the engine says.
pub async fn clear(engine: &Engine, sleep: &OpId, service: Option<&str>) -> Result<(), Error> {
    for config in engine.configs(Kind::Waker, &[(OP, sleep.as_str())]).await? {
        if service.is_none_or(|service| config.name.contains(&short_hash(service))) {
            engine.remove_config(&config.id).await?;
        }
    }
    Ok(())
}

/// Lets the waker reach the operator.
pub(super) fn join(template: &mut Value, network: &str) {
    let mut networks = template["Networks"].as_array().cloned().unwrap_or_default();
    if networks.iter().all(|n| n["Target"] != network) {
        networks.push(json!({ "Target": network }));
    }
    template["Networks"] = Value::Array(networks);
}

/// What a waker asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Full name of the service.
    pub service: String,
    /// The operation that put it to sleep; none where a door asks, which does not know.
    pub sleep: Option<String>,
    /// What the waker, or the door, was given to show.
    pub token: Token,
}

/// What becomes of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The service is being woken, or it is too early to try again after that wake.
    UnderWay(OpId),
    /// It does not sleep.
    Awake,
    /// The waker is not the one of this sleep.
    Stranger,
}

/// Grants a waker's request: one wake, however often it asks and whichever replica hears it. One that comes while the service
/// still falls asleep is granted as well; the wake waits until it sleeps.
///
/// # Errors
/// When it could not be stored, or what the engine says.
pub async fn grant(engine: &Engine, request: &Request, now: Timestamp) -> Result<Granted, Refusal> {
    let asleep = match &request.sleep {
        Some(sleep) => asleep(engine, request, sleep).await?,
        None => behind_a_door(engine, request).await?,
    };
    let asleep = match asleep {
        Ok(asleep) => asleep,
        Err(refused) => return Ok(refused),
    };
    // Also one that wakes it along with what needs it, as when that begins to ask for it before the waker has left.
    let wakes: Vec<Operation> = desk::list(engine).await?;
    let wakes = wakes.into_iter().filter(|op| op.intent.work == Work::Wake);
    let (ended, live): (Vec<Operation>, Vec<Operation>) = wakes
        .filter(|op| claim::concerns(op, &request.service))
        .partition(|op| op.journal.state.is_terminal());
    if let Some(op) = live.into_iter().next() {
        return Ok(Granted::UnderWay(op.id));
    }
    let first = first_wake(&request.service, &asleep);
    // The clocks of two replicas may differ.
    let of_this_sleep = |op: &&Operation| op.intent.created >= asleep.since || op.id == first;
    let in_vain: Vec<&Operation> = ended.iter().filter(of_this_sleep).collect();
    let id = match next_wake(request, first, &in_vain, now) {
        Ok(id) => id,
        Err(earlier) => return Ok(Granted::UnderWay(earlier)),
    };
    let intent = Intent {
        schema: record::SCHEMA,
        service: request.service.clone(),
        service_id: asleep.service_id,
        work: Work::Wake,
        trigger: Trigger::Found { what: "somebody asked for it while it slept".to_owned() },
        created: now,
        approval: false,
        accept_problems: false,
    };
    let (op, _) = desk::create(engine, &id, intent).await?;
    Ok(Granted::UnderWay(op.id))
}

/// A service behind the waker, or the door, that asks for it.
struct Asleep {
    service_id: String,
    /// The sleep.
    sleep: String,
    /// No wake of this sleep was asked for earlier.
    since: Timestamp,
}

/// Whether the waker shows the token of the sleep that it names, and that sleep lasts or is about to begin.
async fn asleep(engine: &Engine, request: &Request, named: &str) -> Result<Result<Asleep, Granted>, Refusal> {
    let slept = sleeper::find(engine, &request.service).await?;
    let refused = if slept.is_some() { Granted::Stranger } else { Granted::Awake };
    let sleep = match OpId::parse(named) {
        Some(id) => match desk::find(engine, &id).await {
            Ok(op) => Some(op),
            // It ended so long ago that nothing is kept of it.
            Err(Refusal::Absent(_)) => None,
            Err(other) => return Err(other),
        },
        None => None,
    };
    let created = sleep.as_ref().map(|op| op.intent.created);
    let (service_id, since, waker) = match slept {
        Some(slept) if slept.sleeper.op.as_str() == named => {
            (slept.sleeper.service_id, created.unwrap_or(slept.sleeper.since), slept.waker)
        }
        // What an earlier sleep has left stays until this one is written down.
        Some(_) | None => {
            let Some(op) = sleep.filter(is_falling_asleep) else { return Ok(Err(refused)) };
            let Some(client) = planned(engine, &op.id, &request.service).await? else {
                return Ok(Err(refused));
            };
            let Method::Waker(waker) = client.method else { return Ok(Err(refused)) };
            (client.id, op.intent.created, Some(waker))
        }
    };
    let shown = waker.is_some_and(|waker| is_same(&waker.token, &request.token));
    let sleep = named.to_owned();
    Ok(if shown { Ok(Asleep { service_id, sleep, since }) } else { Err(Granted::Stranger) })
}

/// Whether the door shows its token, and the service sleeps, or is about to. A sleep that nothing but the want of use asked for,
/// and that stops nothing yet, is called off: the service stays up, and whoever is held at the door is let through.
async fn behind_a_door(engine: &Engine, request: &Request) -> Result<Result<Asleep, Granted>, Refusal> {
    let name = &request.service;
    if !door::shows(engine, name, &request.token).await? {
        return Ok(Err(Granted::Stranger));
    }
    let falling = desk::list(engine).await?.into_iter().find(|op| {
        let is_sleep = matches!(op.intent.work, Work::Sleep { .. });
        let is_live = matches!(op.journal.state, State::Pending | State::Running);
        is_sleep && is_live && claim::concerns(op, name)
    });
    let slept = sleeper::find(engine, name).await?;
    if let (Some(sleep), None) = (&falling, &slept)
        && matches!(sleep.intent.trigger, Trigger::Found { .. })
        && door::call_off(engine, sleep).await?
    {
        return Ok(Err(Granted::UnderWay(sleep.id.clone())));
    }
    let service_id = match engine.service(name).await {
        Ok(service) => service.id,
        Err(Error::NotFound { .. }) => return Ok(Err(Granted::Awake)),
        Err(other) => return Err(other.into()),
    };
    Ok(match (falling, slept) {
        // What goes back is up soon; until it is, the door holds.
        (Some(op), None) if op.journal.cancel.is_some() => Err(Granted::UnderWay(op.id)),
        (Some(op), None) => Ok(Asleep { service_id, sleep: op.id.to_string(), since: op.intent.created }),
        (_, Some(slept)) => {
            let Sleeper { op, since, .. } = slept.sleeper;
            let since = match desk::find(engine, &op).await {
                Ok(op) => op.intent.created,
                Err(Refusal::Absent(_)) => since,
                Err(other) => return Err(other),
            };
            Ok(Asleep { service_id, sleep: op.to_string(), since })
        }
        (None, None) => Err(Granted::Awake),
    })
}

/// Not one that goes back.
fn is_falling_asleep(op: &Operation) -> bool {
    let is_sleep = matches!(op.intent.work, Work::Sleep { .. });
    is_sleep && op.journal.state == State::Running && op.journal.cancel.is_none()
}

/// A service as an operation has planned to stop it.
async fn planned(engine: &Engine, op: &OpId, service: &str) -> Result<Option<Client>, Error> {
    match frozen::find::<Frozen>(engine, op).await {
        Ok(plan) => Ok(plan.and_then(|plan| plan.clients.into_iter().find(|c| c.name == service))),
        Err(Fault::Swarm(error)) => Err(error),
        Err(Fault::Failed(message)) => Err(Error::Malformed { what: frozen::name(op), message }),
        Err(Fault::Journal { source, .. }) => {
            Err(Error::Malformed { what: frozen::name(op), message: source.to_string() })
        }
    }
}

/// How the first wake of a sleep is named: by the sleep alone, so that replicas that hear of it name the same whenever they do.
fn first_wake(service: &str, asleep: &Asleep) -> OpId {
    OpId::new(asleep.since, &format!("asked for {service} {}", asleep.sleep))
}

/// How the next wake of a sleep is named, after those that came to nothing; or the last of these, for as long as it is not yet
/// time. Replicas that hear the same name the same: any but the first by the one before it.
fn next_wake(request: &Request, first: OpId, in_vain: &[&Operation], now: Timestamp) -> Result<OpId, OpId> {
    let ended = |op: &Operation| op.journal.ended.unwrap_or(op.intent.created);
    let Some(last) = in_vain.iter().max_by_key(|op| ended(op)) else { return Ok(first) };
    let doublings = u32::try_from(in_vain.len()).unwrap_or(u32::MAX).saturating_sub(1).min(16);
    let pause = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_LATEST);
    if now.duration_since(ended(last)).unsigned_abs() < pause {
        return Err(last.id.clone());
    }
    Ok(OpId::new(ended(last), &format!("asked for {} after {}", request.service, last.id)))
}

/// In the same time whatever of it is wrong.
pub(super) fn is_same(token: &Token, other: &Token) -> bool {
    let hash = |token: &Token| Sha256::digest(token.reveal().as_bytes());
    hash(token).ct_eq(&hash(other)).into()
}
