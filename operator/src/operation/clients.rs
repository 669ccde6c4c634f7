//! Stopping and starting the services that use the data, one poll at a time (S1, S3, S11, S12).
//!
//! Stopped means that every task of the previous spec is in a terminal state; that the service "converged" proves
//! nothing. Started means running (which, with a health check, is healthy) on the spec that was found or that somebody
//! deployed meanwhile.

mod saved;
mod turns;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

pub use saved::{Base, ClientsOut, adopt_base, load_base, load_base_of_other};
use saved::{Stopper, clients_out, keep, load_base_of, save_base, save_wanted};
pub use turns::Turns;

use super::client_spec::{self as spec, StartMove, StopMove};
use super::frozen::{self, Client};
use super::page;
use super::record::{Operation, StepRecord, StepState};
use super::saga::{Cx, Fault, Progress, Wait};
use crate::swarm::error::Error;
use crate::swarm::object::{Service, Task, TaskState, UpdateState};

/// The step under which the state of all clients is journaled.
pub const STEP: &str = "stop";
/// The same of an operation that starts what another one has stopped.
pub const RECALL: &str = "recall";

/// How long a rollout that somebody else began may delay a write of ours.
const FOREIGN_ROLLOUT: Duration = Duration::from_secs(15);
/// Swarm's own grace period where a spec names none.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// What Swarm adds to it: it waits for gossip before it signals, and takes a while to remove a container.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// How insistent a start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Forward: a client that does not become healthy is a failure.
    MustBeHealthy,
    /// Undo: the exact spec must be back; health is waited for, but not a condition (it may have been ill before).
    BestEffort,
}

/// What a service's turn is to do, where each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Stop.
    Stop,
    /// Start.
    Start,
}

/// Since when it is this client's turn, journaled before anything is written on its account: the time that it has is its own.
///
/// # Errors
/// What the engine says.
pub async fn turn(cx: &mut Cx<'_>, turn: Turn, client: &Client) -> Result<Timestamp, Fault> {
    let mut out = clients_out(cx)?;
    let now = cx.now();
    let turns = match turn {
        Turn::Stop => &mut out.stopping,
        Turn::Start => &mut out.starting,
    };
    if let Some(since) = turns.get(&client.name) {
        return Ok(*since);
    }
    turns.insert(client.name.clone(), now);
    keep(cx, &out).await?;
    Ok(now)
}

/// Moves all clients towards stopped; dependents first. `None` = every one is stopped.
///
/// # Errors
/// When a page cannot be started, or what the engine says.
pub async fn stop(cx: &mut Cx<'_>, clients: &[Client]) -> Result<Option<Wait>, Fault> {
    let mut waiting = Vec::new();
    for client in clients {
        if let Some(why) = stop_one(cx, client).await? {
            waiting.push(why);
        }
    }
    Ok((!waiting.is_empty()).then(|| Wait::new(waiting.join("; "))))
}

/// The step that stops the clients of the operation's plan: done when every one is stopped, failed when that takes too long.
///
/// # Errors
/// When a client does not stop, or what the engine says.
pub async fn stopped(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let clients = if frozen.quiesce { frozen.clients } else { Vec::new() };
    all_stopped(cx, &clients).await
}

/// As [`stopped`], of these clients.
///
/// # Errors
/// When a client does not stop, or what the engine says.
pub async fn all_stopped(cx: &mut Cx<'_>, clients: &[Client]) -> Result<Progress, Fault> {
    let Some(wait) = stop(cx, clients).await? else { return journaled(cx) };
    let since = cx.record().began;
    if cx.since(since) > cx.env.settings.stop_deadline {
        return Err(Fault::failed(format!("clients do not stop: {}", wait.why)));
    }
    Ok(Progress::Wait(wait))
}

/// The same in turns, so that nothing loses what it needs before it has stopped. Each has the whole time for itself; `late` says
/// what becomes of one that takes longer.
///
/// # Errors
/// When a client does not stop and `late` says so, or what the engine says.
pub async fn stopped_in_turn(
    cx: &mut Cx<'_>,
    clients: &[Client],
    turns: &Turns,
    late: fn(&mut Cx<'_>, &Client, &Wait) -> Result<(), Fault>,
) -> Result<Progress, Fault> {
    let (mut waiting, mut why): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    for client in clients {
        if turns.waits(&client.name, &waiting) {
            waiting.push(&client.name);
            continue;
        }
        let since = turn(cx, Turn::Stop, client).await?;
        let Some(wait) = stop(cx, std::slice::from_ref(client)).await? else { continue };
        if cx.since(since) > cx.env.settings.stop_deadline {
            late(cx, client, &wait)?;
            continue;
        }
        waiting.push(&client.name);
        why.push(wait.why);
    }
    if waiting.is_empty() { journaled(cx) } else { Ok(Progress::Wait(Wait::new(why.join("; ")))) }
}

/// What did not stop in its time, as a failure.
pub fn does_not_stop(client: &Client, wait: &Wait) -> Fault {
    Fault::failed(format!("{} does not stop: {}", client.name, wait.why))
}

/// How long users could not work, where an operation has stopped and started: from the first client's stop to the last one's
/// start, or until the stop was taken back, or, where none was stopped, while connections were refused for the swap of names.
pub fn downtime(op: &Operation) -> Option<Duration> {
    let step = |name: &str| op.journal.step(name);
    let has_stopped = |r: &&StepRecord| r.out["saved"].as_object().is_some_and(|saved| !saved.is_empty());
    match (step(STEP).filter(has_stopped), step("start").filter(|r| r.state == StepState::Done)) {
        (Some(stop), Some(start)) => Some(start.changed.duration_since(stop.began).unsigned_abs()),
        (Some(stop), None) if stop.state == StepState::Undone => {
            Some(stop.changed.duration_since(stop.began).unsigned_abs())
        }
        (Some(_), None) => None,
        (None, _) => step("cut").and_then(|r| r.out["fenced_ms"].as_u64()).map(Duration::from_millis),
    }
}

/// The step is done, and what it has journaled about clients stays.
///
/// # Errors
/// When the journal is of another shape.
pub fn journaled(cx: &Cx<'_>) -> Result<Progress, Fault> {
    let out = serde_json::to_value(clients_out(cx)?);
    out.map(Progress::Done).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}

/// Which of the clients is not up, and why; one that was removed has nothing to bring up.
///
/// # Errors
/// What the engine says.
pub async fn not_up(cx: &mut Cx<'_>, clients: &[Client]) -> Result<Option<String>, Fault> {
    for client in clients.iter().rev() {
        let Some(service) = find(cx, client).await? else { continue };
        let up = up(cx, client, &service).await?;
        if !up.enough {
            let Up { running, wanted, error, .. } = up;
            return Ok(Some(format!("{}: {running} of {wanted} task(s) running: {error}", client.name)));
        }
    }
    Ok(None)
}

/// For the steps after that one: a deploy in the middle may bring clients back (S12), and they have to be stopped again.
///
/// # Errors
/// When that takes longer than stopping may, or what the engine says.
pub async fn keep_stopped(cx: &mut Cx<'_>, clients: &[Client]) -> Result<Option<Wait>, Fault> {
    let waiting = stop(cx, clients).await?;
    let mut out = clients_out(cx)?;
    let Some(wait) = waiting else {
        if out.unstopped.take().is_some() {
            keep(cx, &out).await?;
        }
        return Ok(None);
    };
    let Some(since) = out.unstopped else {
        out.unstopped = Some(cx.now());
        keep(cx, &out).await?;
        return Ok(Some(wait));
    };
    if cx.since(since) <= cx.env.settings.stop_deadline {
        return Ok(Some(wait));
    }
    // Whoever tries again gets the whole time again.
    out.unstopped = None;
    keep(cx, &out).await?;
    Err(Fault::failed(format!("clients do not stay stopped: {}", wait.why)))
}

/// Moves all clients towards their own specs, in the reverse order, each up before the next. `None` = all are up.
///
/// # Errors
/// When a client does not come up and must, or what the engine says.
pub async fn start(cx: &mut Cx<'_>, clients: &[Client], how: Start) -> Result<Option<Wait>, Fault> {
    for client in clients.iter().rev() {
        if let Some(why) = start_one(cx, client, how).await? {
            return Ok(Some(Wait::new(why)));
        }
    }
    Ok(None)
}

/// Moves all clients towards their own specs, none waiting for another: what becomes of one is no reason to leave the next one
/// down. `None` = all are up, or were given their time.
///
/// # Errors
/// What the engine says of the first that cannot be started, once all others were.
pub async fn start_at_once(cx: &mut Cx<'_>, clients: &[Client]) -> Result<Option<Wait>, Fault> {
    let (mut waiting, mut faults) = (Vec::new(), Vec::new());
    for client in clients.iter().rev() {
        match start_one(cx, client, Start::BestEffort).await {
            Ok(why) => waiting.extend(why),
            Err(fault) => faults.push(fault),
        }
    }
    match faults.into_iter().next() {
        Some(fault) => Err(fault),
        None => Ok((!waiting.is_empty()).then(|| Wait::new(waiting.join("; ")))),
    }
}

/// Moves a stopped client towards another spec than the one that was found, and does not look at the one in between: from
/// the first write on, `wanted` is what it goes back to. `None` = it is up. What somebody deployed meanwhile stays.
///
/// # Errors
/// When it does not come up, or what the engine says.
pub async fn start_anew(
    cx: &mut Cx<'_>,
    client: &Client,
    found: &Value,
    wanted: &Value,
) -> Result<Option<Wait>, Fault> {
    let Some(service) = find(cx, client).await? else { return Ok(None) };
    let by = Stopper::this(cx)?;
    let base = load_base_of(cx, &by, client, &service).await?.map(|base| base.spec);
    if base.as_ref() == Some(found) {
        if spec::stop(&client.method, &cx.op.id, &service.spec, Some(found)) == StopMove::Watch {
            if let Some(why) = foreign_rollout(cx, client, &service) {
                return Ok(Some(Wait::new(why)));
            }
            let first = spec::first_of_start(&client.method, wanted);
            cx.engine().update_service(&service.id, service.version, &first).await?;
            return Ok(Some(Wait::new(format!("{} starts", client.name))));
        }
        let is_ours = spec::start(&client.method, &cx.op.id, &service.spec, wanted);
        if matches!(is_ours, StartMove::Watch | StartMove::Settle(_)) {
            save_wanted(cx, client, wanted).await?;
        }
    }
    Ok(start_one(cx, client, Start::MustBeHealthy).await?.map(Wait::new))
}

/// What is waited for until another operation has stopped a client. Writes nothing.
///
/// # Errors
/// When the journal of that one cannot be read, or what the engine says.
pub async fn stopped_by(cx: &mut Cx<'_>, other: &Operation, client: &Client) -> Result<Option<Wait>, Fault> {
    let by = Stopper::of(other)?;
    let Some(service) = find(cx, client).await? else {
        return Ok(ending(cx, client).await?.map(Wait::new));
    };
    let base = load_base_of(cx, &by, client, &service).await?.map(|base| base.spec);
    let why = match spec::stop(&client.method, &by.id, &service.spec, base.as_ref()) {
        StopMove::Watch => watch(cx, &by, client, &service).await?,
        StopMove::SaveBase(_) | StopMove::Write(_) | StopMove::SwapIn(_) => {
            Some(format!("{} is not stopped", client.name))
        }
    };
    Ok(why.map(Wait::new))
}

/// Whether every task of a service is on this node: a volume of a node's own is empty on any other one.
///
/// # Errors
/// When one is elsewhere, or what the engine says.
pub async fn runs_only_on(cx: &Cx<'_>, service: &Service, node: Option<&String>) -> Result<(), Fault> {
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let running = |t: &&Task| t.state == TaskState::Running && t.desired == TaskState::Running;
    match tasks.iter().filter(running).all(|t| t.node.as_ref() == node) {
        true => Ok(()),
        false => Err(Fault::failed(format!(
            "{} came up on another node than the one with its data; give it a placement constraint",
            service.name()
        ))),
    }
}

async fn stop_one(cx: &mut Cx<'_>, client: &Client) -> Result<Option<String>, Fault> {
    for _ in 0..4 {
        let Some(service) = find(cx, client).await? else { return ending(cx, client).await };
        let by = Stopper::this(cx)?;
        let base = load_base_of(cx, &by, client, &service).await?.map(|base| base.spec);
        let wanted = match spec::stop(&client.method, &cx.op.id, &service.spec, base.as_ref()) {
            StopMove::SaveBase(new) => {
                save_base(cx, client, &service, &new).await?;
                continue;
            }
            StopMove::Watch => return watch(cx, &by, client, &service).await,
            StopMove::Write(wanted) => wanted,
            StopMove::SwapIn(base) => {
                let stand_in = client.method.stand_in();
                let stand_in =
                    stand_in.ok_or_else(|| Fault::failed("nothing stands in for what is at zero"))?;
                spec::swapped(&base, &page::template(cx, client, &base).await?, &stand_in)
            }
        };
        if let Some(why) = foreign_rollout(cx, client, &service) {
            return Ok(Some(why));
        }
        note_rewrite(cx, client, &service).await?;
        cx.engine().update_service(&service.id, service.version, &wanted).await?;
    }
    Ok(Some(format!("{} keeps changing", client.name)))
}

/// Before a second stop of the same client: what the first one was ending may be forgotten by Swarm and run on.
async fn note_rewrite(cx: &mut Cx<'_>, client: &Client, service: &Service) -> Result<(), Fault> {
    let mut out = clients_out(cx)?;
    if out.saved.get(&client.name).copied().unwrap_or(0) < 2 {
        return Ok(());
    }
    let grace = service.spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"].as_u64();
    let grace = grace.map_or(DEFAULT_GRACE, Duration::from_nanos);
    out.quiet.insert(client.name.clone(), cx.now() + grace + FORGOTTEN);
    keep(cx, &out).await
}

/// What is left of a client that was told to stop.
async fn watch(
    cx: &mut Cx<'_>,
    by: &Stopper,
    client: &Client,
    service: &Service,
) -> Result<Option<String>, Fault> {
    let before = if service.id == client.id { None } else { ending(cx, client).await? };
    match before {
        Some(why) => Ok(Some(why)),
        None => watch_stop(cx, by, client, service).await,
    }
}

async fn watch_stop(
    cx: &mut Cx<'_>,
    by: &Stopper,
    client: &Client,
    service: &Service,
) -> Result<Option<String>, Fault> {
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let down = down_nodes(cx, &tasks).await?;
    let (pages, old): (Vec<_>, Vec<_>) =
        tasks.iter().partition(|t| spec::is_stand_in(&client.method, &t.spec, &by.id));
    let (lost, left): (Vec<&Task>, Vec<&Task>) = old
        .into_iter()
        .filter(|t| !t.state.is_terminal())
        .partition(|t| !client.holds_files && t.node.as_ref().is_some_and(|n| down.contains(n)));
    let quiet = by.out.quiet.get(&client.name).copied();
    if let Some(until) = quiet.filter(|until| *until > cx.now()) {
        return Ok(Some(format!(
            "{}: tasks that Swarm has forgotten may still be ending until {until}",
            client.name
        )));
    }
    if !lost.is_empty() {
        cx.remark(format!(
            "{} task(s) of {} are on a node that does not answer and may still run; the database refuses their sessions during the cut-over",
            lost.len(),
            client.name
        ));
    }
    if let Some(stand_in) = client.method.stand_in() {
        let paused = service.update.as_ref().filter(|u| u.state == UpdateState::Paused);
        if let Some(update) = paused.filter(|_| !pages.iter().any(|t| t.state == TaskState::Running)) {
            let why =
                pages.iter().map(|t| t.error.as_str()).find(|e| !e.is_empty()).unwrap_or(&update.message);
            let what = if stand_in.is_waker { "waker" } else { "maintenance page" };
            return Err(Fault::failed(format!("the {what} of {} does not start: {why}", client.name)));
        }
        // A client that sleeps at zero has no task that could show the page, and nobody to show it to.
        let shown = service.replicas() == Some(0) || pages.iter().any(|t| t.state == TaskState::Running);
        if !left.is_empty() || !shown {
            return Ok(Some(format!("{}: page on, {} task(s) left", client.name, left.len())));
        }
        return Ok(None);
    }
    let more = left.len().saturating_sub(usize::try_from(client.method.left()).unwrap_or(usize::MAX));
    Ok((more > 0).then(|| format!("{}: {more} task(s) left", client.name)))
}

async fn start_one(cx: &mut Cx<'_>, client: &Client, how: Start) -> Result<Option<String>, Fault> {
    for _ in 0..4 {
        let Some(service) = find(cx, client).await? else { return Ok(None) };
        let by = Stopper::this(cx)?;
        let Some(base) = load_base_of(cx, &by, client, &service).await? else { return Ok(None) };
        match spec::start(&client.method, &cx.op.id, &service.spec, &base.spec) {
            StartMove::SaveBase(new) => save_base(cx, client, &service, &new).await?,
            StartMove::Write(wanted) => {
                if let Some(why) = foreign_rollout(cx, client, &service) {
                    return Ok(Some(why));
                }
                cx.engine().update_service(&service.id, service.version, &wanted).await?;
            }
            StartMove::Settle(exact) => {
                if let Some(why) = unsettled(cx, client, &service, how).await? {
                    return Ok(Some(why));
                }
                cx.engine().update_service(&service.id, service.version, &exact).await?;
            }
            StartMove::Watch => return watch_start(cx, client, &service, how).await,
        }
    }
    Ok(Some(format!("{} keeps changing", client.name)))
}

/// Why the rollout back to the application's template has not come to rest yet. Any write removes what Swarm tells of a
/// rollout, so where it tells nothing the tasks do.
async fn unsettled(
    cx: &mut Cx<'_>,
    client: &Client,
    service: &Service,
    how: Start,
) -> Result<Option<String>, Fault> {
    match service.update.as_ref().map(|u| u.state) {
        Some(UpdateState::Completed) => Ok(None),
        None | Some(UpdateState::Updating | UpdateState::RollbackStarted) => {
            let up = up(cx, client, service).await?;
            if service.update.is_none() && up.enough {
                return Ok(None);
            }
            overdue(cx, client, &up, how)
        }
        Some(UpdateState::Paused | UpdateState::RollbackPaused | UpdateState::RollbackCompleted) => match how
        {
            Start::BestEffort => Ok(None),
            Start::MustBeHealthy => {
                let why = service.update.as_ref().map_or("", |u| u.message.as_str());
                Err(Fault::failed(format!("{} does not start: {why}", client.name)))
            }
        },
    }
}

async fn watch_start(
    cx: &mut Cx<'_>,
    client: &Client,
    service: &Service,
    how: Start,
) -> Result<Option<String>, Fault> {
    let up = up(cx, client, service).await?;
    if up.enough && !service.is_rolling() {
        return Ok(None);
    }
    overdue(cx, client, &up, how)
}

/// How many tasks of the application itself run.
struct Up {
    running: usize,
    wanted: usize,
    enough: bool,
    error: String,
}

async fn up(cx: &Cx<'_>, client: &Client, service: &Service) -> Result<Up, Fault> {
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let is_own = |t: &&Task| !spec::is_stand_in(&client.method, &t.spec, &cx.op.id);
    let own = tasks.iter().filter(|t| t.desired == TaskState::Running).filter(is_own);
    let (up, coming): (Vec<&Task>, Vec<&Task>) = own.partition(|t| t.state == TaskState::Running);
    let wanted = usize::try_from(service.replicas().unwrap_or(1)).unwrap_or(usize::MAX);
    let enough = up.len() >= wanted && (service.replicas().is_some() || coming.is_empty());
    let error = tasks.iter().map(|t| t.error.as_str()).find(|e| !e.is_empty());
    let error = error.unwrap_or("no reason is known").to_owned();
    Ok(Up { running: up.len(), wanted, enough, error })
}

/// Waits on, until the deadline: then it is a failure, or only a remark.
fn overdue(cx: &mut Cx<'_>, client: &Client, up: &Up, how: Start) -> Result<Option<String>, Fault> {
    let waiting = format!("{}: {} of {} task(s) running", client.name, up.running, up.wanted);
    let turn = clients_out(cx)?.starting.get(&client.name).copied();
    let record = cx.record();
    let is_undoing = record.state == StepState::Undoing;
    let since = if is_undoing { record.changed } else { turn.unwrap_or(record.began) };
    if cx.since(since) <= cx.env.settings.start_deadline {
        return Ok(Some(waiting));
    }
    match how {
        Start::MustBeHealthy => Err(Fault::failed(format!("{waiting}: {}", up.error))),
        Start::BestEffort => {
            cx.remark(format!("its own spec is back, but {waiting}: {}", up.error));
            Ok(None)
        }
    }
}

/// A rollout that is not ours delays a write for a while (it would lose Swarm's memory of the previous spec), not for ever.
fn foreign_rollout(cx: &mut Cx<'_>, client: &Client, service: &Service) -> Option<String> {
    let since = cx.record().began;
    (service.is_rolling() && cx.since(since) < FOREIGN_ROLLOUT)
        .then(|| format!("{}: a rollout is under way", client.name))
}

/// The client as it is now. A service that was removed and made anew under the same name is the client as well: it would
/// meet the same data (S12).
///
/// # Errors
/// What the engine says.
pub async fn find(cx: &mut Cx<'_>, client: &Client) -> Result<Option<Service>, Fault> {
    for id_or_name in [&client.id, &client.name] {
        match cx.engine().service(id_or_name).await {
            Ok(service) => return Ok(Some(service)),
            Err(Error::NotFound { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    cx.remark(format!("{} was removed meanwhile", client.name));
    Ok(None)
}

/// What a client that was removed left running: its containers end a while after it has gone.
async fn ending(cx: &mut Cx<'_>, client: &Client) -> Result<Option<String>, Fault> {
    let tasks = cx.engine().all_tasks().await?;
    let own: Vec<Task> = tasks.into_iter().filter(|t| t.service == client.id).collect();
    let down = down_nodes(cx, &own).await?;
    // Sessions of what is out of reach are fenced; nothing fences files (S8).
    let counts = |node: &String| client.holds_files || !down.contains(node);
    let here = |t: &&Task| !t.state.is_terminal() && t.node.as_ref().is_some_and(counts);
    let left = own.iter().filter(here).count();
    Ok((left > 0).then(|| format!("{} was removed: {left} task(s) left", client.name)))
}

/// The nodes of tasks that still run somewhere and that do not answer.
///
/// # Errors
/// What the engine says.
pub async fn down_nodes(cx: &Cx<'_>, tasks: &[Task]) -> Result<Vec<String>, Fault> {
    if tasks.iter().all(|t| t.state.is_terminal()) {
        return Ok(Vec::new());
    }
    let nodes = cx.engine().nodes().await?;
    Ok(nodes.into_iter().filter(|n| !n.ready).map(|n| n.id).collect())
}
