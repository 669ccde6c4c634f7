//! What stands in for a service that sleeps and is to wake when somebody asks for it: Skep's own image, running `skep waker`
//! under the service's name, on its networks and ports.
//!
//! Invariants: nothing of the application's container reaches the waker; what it shows to the operator opens nothing but the
//! wake of this one service; it is the same service all the while, so names, addresses and routing labels stay.

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skep_waker::Task;
use skep_waker::task::{Ask, Mode, Token};
use subtle::ConstantTimeEq;

use super::client_spec::{PAGE_IMAGE, WAKER};
use super::desk::{self, Refusal};
use super::frozen::{Client, Waker};
use super::record::{self, Intent, OpId, Operation, Trigger, Work};
use super::saga::{Cx, Fault};
use super::{claim, page, sleeper};
use crate::engines::nginx;
use crate::policy::WakeOnDemand;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, OP, Service, short_hash};
use crate::swarm::spec::host_ports;

/// Where the waker finds what it is to do.
const TASK_PATH: &str = "/skep/waker.json";
/// What a page tells browsers to wait before they look again, seconds.
const RETRY_AFTER: u32 = 2;
/// How long downloads and WebSockets that went through the waker may go on when it leaves, in nanoseconds.
const GRACE: u64 = 600_000_000_000;
/// Path on which the operator hears wakers.
pub const PATH: &str = "/v1/wake";

/// Decides what stands in for a service.
///
/// # Errors
/// When Skep's own image or address is not known, or what the engine says.
pub async fn choose(cx: &Cx<'_>, service: &Service, wake: &WakeOnDemand) -> Result<Waker, Fault> {
    let settings = &cx.env.settings;
    let own = cx.own_task().await?;
    let image = settings.image.clone().or_else(|| own.as_ref().map(|own| own.image.clone()));
    let image = image.ok_or_else(|| unknown("image", "SKEP_IMAGE"))?;
    let own = match &own {
        Some(own) => Some(cx.engine().service(&own.service).await?),
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
    let network = match cx.engine().network(&network).await {
        Ok(network) => network.id,
        Err(Error::NotFound { .. }) => {
            return Err(Fault::failed(format!(
                "the Swarm has no network `{network}` on which wakers could reach Skep"
            )));
        }
        Err(other) => return Err(other.into()),
    };
    // Only one of the two can have the node's port, so nothing that it held could be passed on.
    let stop_first = !host_ports(&service.spec).is_empty();
    Ok(Waker {
        image,
        ports: wake.ports.clone(),
        mode: if stop_first { Mode::Page } else { wake.mode },
        timeout_s: wake.timeout.as_secs().max(1),
        ignore: wake.ignore.clone(),
        page: wake.page.clone(),
        url: format!("{}{PATH}", url.trim_end_matches('/')),
        network,
        token: Token::new(format!("{:032x}", rand::random::<u128>())),
        stop_first,
    })
}

fn unknown(what: &str, setting: &str) -> Fault {
    Fault::failed(format!(
        "Skep's own {what} is not known here, which wakers need: name it in the setting {setting}, or let the operator \
         do it"
    ))
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
    let text = nginx::PageText {
        reason: nginx::Reason::Asleep,
        title: "Waking up".to_owned(),
        message: "Nobody needed this for a while, so it was asleep. It is being started for you now."
            .to_owned(),
        started: cx.op.intent.created,
        expected_end: None,
        retry_after: RETRY_AFTER,
        operation: cx.op.id.to_string(),
    };
    let rendered = nginx::render(&text, &[]);
    let html = match &waker.page {
        Some(name) => page::user_page(cx, name).await?.unwrap_or(rendered.html),
        None => rendered.html,
    };
    let task = Task {
        schema: skep_waker::SCHEMA,
        service: client.name.clone(),
        ports: waker.ports.clone(),
        mode: waker.mode,
        timeout_s: waker.timeout_s,
        retry_after_s: RETRY_AFTER,
        ask: Ask { url: waker.url.clone(), token: waker.token.clone(), sleep: cx.op.id.to_string() },
        ignore: waker.ignore.clone(),
        html,
        json: rendered.json,
    };
    let task = serde_json::to_vec(&task);
    let task = task.map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
    let config = page::file(cx, client, Kind::Waker, "task", TASK_PATH, &task).await?;
    let container = json!({
        "Image": waker.image,
        "Args": ["waker", "--task", TASK_PATH],
        "Labels": { OP: cx.op.id.as_str(), PAGE_IMAGE: waker.image, WAKER: client.name },
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
    });
    let mut template = page::in_place_of(base, container);
    join(&mut template, &waker.network);
    Ok(template)
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
fn join(template: &mut Value, network: &str) {
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
    /// The operation that put it to sleep.
    pub sleep: String,
    /// What the waker was given to show.
    pub token: Token,
}

/// What becomes of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The service is being woken.
    UnderWay(OpId),
    /// It does not sleep, or not yet.
    Awake,
    /// The waker is not the one of this sleep.
    Stranger,
}

/// Grants a waker's request: one wake, however often it asks and whichever replica hears it.
///
/// # Errors
/// When it could not be stored, or what the engine says.
pub async fn grant(engine: &Engine, request: &Request, now: Timestamp) -> Result<Granted, Refusal> {
    let Some(slept) = sleeper::find(engine, &request.service).await? else { return Ok(Granted::Awake) };
    let waker = slept.waker.filter(|waker| is_same(&waker.token, &request.token));
    if waker.is_none() || slept.sleeper.op.as_str() != request.sleep {
        return Ok(Granted::Stranger);
    }
    // Also one that wakes it along with what needs it, as when that begins to ask for it before the waker has left.
    let is_waking = |op: &Operation| {
        op.intent.work == Work::Wake
            && !op.journal.state.is_terminal()
            && claim::concerns(op, &request.service)
    };
    if let Some(op) = desk::list(engine).await?.into_iter().find(is_waking) {
        return Ok(Granted::UnderWay(op.id));
    }
    let service = slept.sleeper.service;
    // Replicas that hear it in the same minute name the same operation; one that failed is not tried again before the next.
    let minute = now.as_second() / 60;
    let minute = Timestamp::from_second(minute * 60).unwrap_or(now);
    let id = OpId::new(minute, &format!("asked for {service} {} {minute}", slept.sleeper.config));
    let intent = Intent {
        schema: record::SCHEMA,
        service,
        service_id: slept.sleeper.service_id,
        work: Work::Wake,
        trigger: Trigger::Found { what: "somebody asked for it while it slept".to_owned() },
        created: now,
        approval: false,
        accept_problems: false,
    };
    let (op, _) = desk::create(engine, &id, intent).await?;
    Ok(Granted::UnderWay(op.id))
}

/// In the same time whatever of it is wrong.
fn is_same(token: &Token, other: &Token) -> bool {
    let hash = |token: &Token| Sha256::digest(token.reveal().as_bytes());
    hash(token).ct_eq(&hash(other)).into()
}
