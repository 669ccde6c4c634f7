//! The canary (S1): one client, out of reach of users, is tried on the new data before any client starts.
//!
//! ```text
//! ticket → journal its id → create the canary (refused once the ticket is gone) → checks → remove it → remove the ticket
//! ```
//! Like a job's, so that a driver that was suspended anywhere cannot bring a canary back (S7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skep_runner::task::{NetCheck, NetChecks};
use skep_runner::{Report, Task};

use super::cut::{hold, soon};
use super::prepare::failures;
use crate::engines::by_environment;
use crate::operation::client_spec::is_waker;
use crate::operation::clients::Base;
use crate::operation::data::unexpected;
use crate::operation::frozen::{self, Client, Target};
use crate::operation::record::JobRecordState;
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::work::{self, Order, Outcome};
use crate::operation::{canary, checks, clients, sleeper};
use crate::policy::Check;
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, OP, ObjectRef, RegistryAuth};

/// What the step journals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Canaries {
    /// Ids of the tickets, by the canary's name.
    tickets: BTreeMap<String, String>,
    /// The client that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
}

/// What a canary stands for.
struct Trial<'a> {
    client: &'a Client,
    base: Base,
    /// What the canary is asked over the network.
    checks: Vec<NetCheck>,
    /// The commands that ask it.
    commands: Vec<Check>,
    /// Name of the canary.
    name: String,
}

/// One client, without its names, ports and labels, passes its checks on the new data (S1).
pub(super) async fn canary(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(wait);
    }
    canary_of(cx, &frozen.clients, frozen.canary, &BTreeMap::new()).await
}

/// As [`canary`], of one of these stopped clients, if one is wanted; some of them start on another spec than the one that
/// was found.
///
/// # Errors
/// When it does not pass, or what the engine says.
pub(in crate::operation) async fn canary_of(
    cx: &mut Cx<'_>,
    clients: &[Client],
    wanted: bool,
    specs: &BTreeMap<String, Value>,
) -> Result<Progress, Fault> {
    let Some(trial) = trial(cx, clients.iter().filter(|_| wanted), specs).await? else {
        return Ok(Progress::done());
    };
    let Trial { client, base, checks, commands, name } = trial;
    let keys = [format!("check{}", base.number), format!("cmd{}", base.number)];
    let is_over = |cx: &mut Cx<'_>, key: &str| {
        cx.record().jobs.get(key).is_some_and(|job| job.state == JobRecordState::Closed)
    };
    let asks_commands = checks.is_empty() || is_over(cx, &keys[0]);
    let key = &keys[usize::from(asks_commands)];
    // A deploy in the middle makes another spec the client's: what a canary of the old one shows does not count.
    if let Some(wait) = remove_canaries_but(cx, &name).await? {
        return Ok(Progress::Wait(soon(wait)));
    }
    if let Some(wait) = work::end_all_but(cx, key).await? {
        return Ok(Progress::Wait(soon(wait)));
    }
    if !keys.iter().any(|key| cx.op.journal.step(cx.step).is_some_and(|r| r.jobs.contains_key(key))) {
        start_canary(cx, client, &base.spec, &name).await?;
    }
    if !checks.is_empty()
        && let Some(progress) = over_network(cx, client, &base.spec, checks, &keys[0]).await?
    {
        return Ok(progress);
    }
    if let Some(progress) = by_command(cx, client, &base.spec, &commands, &name, &keys[1]).await? {
        return Ok(progress);
    }
    if let Some(wait) = remove_canaries_but(cx, "").await? {
        return Ok(Progress::Wait(soon(wait)));
    }
    Ok(Progress::Done(json!(Canaries { client: Some(client.name.clone()), ..Canaries::default() })))
}

/// The first client that a canary can stand for.
async fn trial<'a>(
    cx: &Cx<'_>,
    clients: impl Iterator<Item = &'a Client>,
    specs: &BTreeMap<String, Value>,
) -> Result<Option<Trial<'a>>, Fault> {
    for client in clients.filter(|c| canary::can_try(&c.checks)) {
        // One that was removed has no spec.
        let Some(mut base) = clients::load_base(cx, client).await? else { continue };
        if let Some(spec) = specs.get(&client.name) {
            base.spec.clone_from(spec);
        }
        if is_waker(&base.spec["TaskTemplate"]) {
            // What stands there knows nothing of the data: the application that sleeps is tried.
            let Some(slept) = sleeper::find(cx.engine(), &client.name).await? else { continue };
            base.spec = slept.spec;
        }
        let name = canary::name(&cx.op.id, base.number);
        let checks = canary::checks(client, &base.spec, &name);
        let commands = checks::for_canary(&client.checks);
        if !checks.is_empty() || !commands.is_empty() {
            return Ok(Some(Trial { client, base, checks, commands, name }));
        }
    }
    Ok(None)
}

/// The client's commands, in a job with its spec, of the canary.
async fn by_command(
    cx: &mut Cx<'_>,
    client: &Client,
    spec: &Value,
    commands: &[Check],
    canary: &str,
    key: &str,
) -> Result<Option<Progress>, Fault> {
    let access = by_environment(&client.name, spec);
    let target = Target::without_data(&client.name, &client.id, spec);
    let target = Target { has_image: client.nodes.clone(), access, ..target };
    let within = cx.env.settings.check_deadline;
    checks::by_command(cx, &target, commands, &format!("tasks.{canary}"), within, key).await
}

async fn start_canary(cx: &mut Cx<'_>, client: &Client, base: &Value, name: &str) -> Result<(), Fault> {
    let ticket = ObjectRef { id: ticket(cx, name).await?, name: name.to_owned() };
    let node = work::ready_node(cx, &client.nodes).await?;
    let spec = canary::spec(&ticket, base, &cx.labels(Kind::Canary), node.as_deref());
    match cx.engine().create_service(&spec, RegistryAuth::Anonymous).await {
        Ok(_) | Err(Error::Exists { .. }) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// The id of a canary's ticket, journaled before the canary is made.
async fn ticket(cx: &mut Cx<'_>, name: &str) -> Result<String, Fault> {
    let mut out: Canaries = cx.scratch()?;
    if let Some(id) = out.tickets.get(name) {
        return Ok(id.clone());
    }
    let id = cx.engine().ensure_config(name, &cx.labels(Kind::Ticket), b"canary").await?;
    out.tickets.insert(name.to_owned(), id.clone());
    cx.keep(&out).await?;
    Ok(id)
}

/// Removes the canary, and waits until it has ended: the step before takes away the data that it uses.
pub(in crate::operation) async fn undo_canary(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = remove_canaries_but(cx, "").await? {
        return Ok(Progress::Wait(soon(wait)));
    }
    if let Some(wait) = ending(cx).await? {
        return Ok(Progress::Wait(soon(wait)));
    }
    Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait))
}

/// What canaries left running whose services are gone: containers end a while after that. Those on a node that does not
/// answer are not waited for, nor is one that does not end within the time for stopping.
async fn ending(cx: &mut Cx<'_>) -> Result<Option<Wait>, Fault> {
    let op = cx.op.id.clone();
    let tasks = cx.engine().all_tasks().await?;
    let mut left: Vec<_> =
        tasks.into_iter().filter(|t| !t.state.is_terminal() && canary::is_task(&t.spec, &op)).collect();
    let down = clients::down_nodes(cx, &left).await?;
    left.retain(|t| t.node.as_ref().is_some_and(|node| !down.contains(node)));
    if left.is_empty() {
        return Ok(None);
    }
    let since = cx.record().changed;
    if cx.since(since) <= cx.env.settings.stop_deadline {
        return Ok(Some(Wait::new("the canary is ending")));
    }
    cx.remark("the canary does not end; what it may still write is not waited for");
    Ok(None)
}

/// Removes canaries, then their tickets, and journals that. Returns what is waited for: a ticket is in use where its canary
/// has come back in this moment, and then both go with the next look.
async fn remove_canaries_but(cx: &mut Cx<'_>, kept: &str) -> Result<Option<Wait>, Fault> {
    let op = cx.op.id.as_str();
    for service in cx.engine().services(&[(OP, Some(op))]).await? {
        if canary::is_one(service.name(), &cx.op.id) && service.name() != kept {
            cx.engine().remove_service(&service.id).await?;
        }
    }
    let mut out: Canaries = cx.scratch()?;
    let (left, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
        out.tickets.into_iter().partition(|(name, _)| name == kept);
    for ticket in gone.values() {
        match cx.engine().remove_config(ticket).await {
            Ok(()) => {}
            Err(Error::Refused { message, .. }) => {
                return Ok(Some(Wait::new(format!("cleaning up: {message}"))));
            }
            Err(other) => return Err(other.into()),
        }
    }
    if !gone.is_empty() {
        out.tickets = left;
        cx.keep(&out).await?;
    }
    Ok(None)
}

/// Runs a client's network checks by a job on its networks, until they pass or their time is over. `None` = all have passed.
///
/// # Errors
/// When one does not pass, or what the engine says.
pub(in crate::operation) async fn over_network(
    cx: &mut Cx<'_>,
    client: &Client,
    spec: &Value,
    checks: Vec<NetCheck>,
    key: &str,
) -> Result<Option<Progress>, Fault> {
    let within = cx.env.settings.check_deadline;
    net_checks_within(cx, client, spec, NetChecks { checks, deadline_s: within.as_secs() }, key).await
}

/// As [`over_network`], within a time of its own; without one they are asked once.
///
/// # Errors
/// When one does not pass, or what the engine says.
pub(in crate::operation) async fn net_checks_within(
    cx: &mut Cx<'_>,
    client: &Client,
    spec: &Value,
    checks: NetChecks,
    key: &str,
) -> Result<Option<Progress>, Fault> {
    let target = Target::without_data(&client.name, &client.id, spec);
    let target = Target { has_image: client.nodes.clone(), ..target };
    let task = Task::NetChecks(checks);
    let order = Order { key, target: &target, task, store: None, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Some(Progress::Wait(soon(wait)))),
        Outcome::Failed(fault) => Err(Fault::failed(format!("{}: {}", client.name, fault.message))),
        Outcome::Done(report) => match *report {
            Report::Checks { outcomes } => match failures(&outcomes) {
                None => Ok(None),
                Some(why) => Err(Fault::failed(format!("{}: {why}", client.name))),
            },
            other => Err(unexpected(&other)),
        },
    }
}
