//! The part of a rollback that replaces data: a restore for each data service, as a part of this operation, and the clients
//! stopped from before the first is cut over until all of them are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::apply::bound;
use super::{Frozen, Made, Part, load, load_spec};
use crate::operation::clients::{self, Start};
use crate::operation::desk::{self, Refusal};
use crate::operation::freeze;
use crate::operation::frozen::Client;
use crate::operation::points::Data;
use crate::operation::record::{Intent, Operation, SCHEMA, State, StepState, Trigger, Work};
use crate::operation::restore::part::{Named, Parts, READY, VERDICT};
use crate::operation::restore::trial;
use crate::operation::saga::{Cx, Fault, Progress, Wait};

/// How far a part is, seen from the whole.
enum Stands {
    /// Nobody has made it.
    Absent,
    /// It is on its way.
    Going(Box<Operation>),
    /// It has gone back, or was never begun.
    Back(Box<Operation>),
    /// Its data is live for good.
    Kept,
    /// A person is needed.
    Stuck,
}

async fn find(cx: &Cx<'_>, part: &Part) -> Result<Stands, Fault> {
    let op = match desk::find(cx.engine(), &part.id).await {
        Ok(op) => op,
        Err(Refusal::Absent(_)) => return Ok(Stands::Absent),
        Err(other) => return Err(refused(other)),
    };
    Ok(match op.journal.state {
        State::Pending | State::AwaitingApproval | State::Running => Stands::Going(Box::new(op)),
        State::RolledBack | State::Failed | State::Cancelled => Stands::Back(Box::new(op)),
        State::Succeeded => Stands::Kept,
        State::Stuck => Stands::Stuck,
    })
}

fn refused(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::Swarm(error) => error.into(),
        other => Fault::failed(other.to_string()),
    }
}

/// Makes the parts, which build the new data beside the live one; done when all have.
pub(super) async fn prepare(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let named = |part: &Part| Named { id: part.id.clone(), service: part.service.clone() };
    let parts = Parts { parts: frozen.data.iter().map(named).collect() };
    // Before any is made: from this they know each other, and whoever drives knows them.
    cx.keep(&parts).await?;
    let waiting = all_at(cx, &frozen, READY).await?;
    match waiting {
        Some(wait) => Ok(Progress::Wait(wait)),
        None => serde_json::to_value(&parts)
            .map(Progress::Done)
            .map_err(|source| Fault::Journal { step: cx.step.to_owned(), source }),
    }
}

/// Waits until the new data of every part is live, with the clients stopped.
pub(super) async fn cut(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(Progress::Wait(wait));
    }
    Ok(all_at(cx, &frozen, VERDICT).await?.map_or_else(Progress::done, Progress::Wait))
}

/// What is waited for until every part has come to a step; makes those that are not there.
async fn all_at(cx: &mut Cx<'_>, frozen: &Frozen, step: &str) -> Result<Option<Wait>, Fault> {
    let mut waiting = Vec::new();
    for part in &frozen.data {
        match find(cx, part).await? {
            Stands::Absent => {
                desk::create(cx.engine(), &part.id, intent(cx, part)).await.map_err(refused)?;
                waiting.push(format!("{}: begins", part.service));
            }
            Stands::Going(op) if failure(&op).is_some() || op.journal.cancel.is_some() => {
                return Err(failed(part, &op));
            }
            Stands::Going(op) if op.journal.step(step).is_some() => {}
            Stands::Going(op) => {
                let doing = op.journal.steps.last().map_or("", |(name, _)| name.as_str());
                waiting.push(format!("{}: {doing}", part.service));
            }
            Stands::Back(op) => return Err(failed(part, &op)),
            Stands::Stuck => return Err(stuck(part)),
            Stands::Kept => {}
        }
    }
    Ok((!waiting.is_empty()).then(|| Wait::new(waiting.join("; "))))
}

fn intent(cx: &Cx<'_>, part: &Part) -> Intent {
    Intent {
        schema: SCHEMA,
        service: part.service.clone(),
        service_id: part.service_id.clone(),
        work: Work::Restore {
            to: None,
            backup: Some(part.backup.clone()),
            before: None,
            in_place: None,
            quiesce: None,
            create_roles: false,
        },
        trigger: Trigger::Operation { id: cx.op.id.clone() },
        created: cx.op.intent.created,
        approval: false,
        accept_problems: cx.op.intent.accept_problems,
    }
}

/// Why a part does not go on, where one of its steps says so.
pub(in crate::operation) fn failure(op: &Operation) -> Option<&str> {
    let failed = |state| matches!(state, StepState::Failed | StepState::UndoFailed);
    let why = |note: &str, reason: &str| !reason.is_empty() || !note.is_empty();
    op.journal.steps.iter().find_map(|(_, r)| match (failed(r.state), r.reason.as_str()) {
        (_, reason) if !reason.is_empty() => Some(reason),
        (true, reason) if why(&r.note, reason) => Some(r.note.as_str()),
        _ => None,
    })
}

fn failed(part: &Part, op: &Operation) -> Fault {
    let why = failure(op).unwrap_or("it was cancelled");
    Fault::failed(format!("the data of {} does not go back: {why}", part.service))
}

fn stuck(part: &Part) -> Fault {
    Fault::failed(format!(
        "operation {0}, which restores {1}, is stuck: retry that one, then this one",
        part.id, part.service
    ))
}

/// Takes every part back, and waits until what was live is live again.
pub(super) async fn take_back(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let mut waiting = Vec::new();
    for part in &frozen.data {
        match find(cx, part).await? {
            Stands::Absent | Stands::Back(_) => {}
            Stands::Going(op) => {
                if op.journal.cancel.is_none() {
                    let who = format!("operation {}", cx.op.id);
                    desk::cancel_at(cx.engine(), *op, &who).await?;
                }
                waiting.push(format!("{} goes back", part.service));
            }
            Stands::Stuck => return Err(stuck(part)),
            Stands::Kept => {
                return Err(Fault::failed(format!("the new data of {} is settled already", part.service)));
            }
        }
    }
    Ok(match waiting.is_empty() {
        true => Progress::done(),
        false => Progress::wait(waiting.join("; ")),
    })
}

/// As [`take_back`]; until all are back, nobody runs on files that are being moved (S18).
pub(super) async fn undo_cut(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let progress = take_back(cx).await?;
    if let Progress::Wait(_) = progress {
        let mut holders = load(cx).await?.clients;
        holders.retain(|client| client.holds_files);
        clients::keep_stopped(cx, &holders).await?;
    }
    Ok(progress)
}

/// What is waited for until every part has ended.
pub(super) async fn ended(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Option<Wait>, Fault> {
    for part in &frozen.data {
        match find(cx, part).await? {
            Stands::Going(_) => return Ok(Some(Wait::new(format!("{} finishes", part.service)))),
            Stands::Stuck => {
                cx.remark(format!("operation {}, which restored {}, is stuck", part.id, part.service))
            }
            Stands::Absent | Stands::Back(_) | Stands::Kept => {}
        }
    }
    Ok(None)
}

/// The backups that the parts have taken of what they are about to replace, by service.
pub(super) async fn safety_backups(cx: &mut Cx<'_>) -> Result<BTreeMap<String, Data>, Fault> {
    let mut backups = BTreeMap::new();
    for part in load(cx).await?.data {
        let Stands::Going(op) = find(cx, &part).await? else { continue };
        let out = op.journal.step("safety").map(|record| record.out.clone()).unwrap_or_default();
        match out["backup"].as_str() {
            Some(backup) => {
                let data = Data { engine: part.engine, backup: backup.to_owned() };
                backups.insert(part.service, data);
            }
            None => cx.remark(format!(
                "the restore point of what was replaced is without the data of {}: operation {} tells what is kept of it",
                part.service, part.id
            )),
        }
    }
    Ok(backups)
}

/// Keeps the clients stopped. What somebody deploys to one that changes ends the rollback, and stays (S12).
pub(super) async fn hold(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Option<Wait>, Fault> {
    if let Some(wait) = clients::keep_stopped(cx, &frozen.clients).await? {
        return Ok(Some(wait));
    }
    for client in &frozen.clients {
        let Some(step) = frozen.moves.iter().find(|m| m.name == client.name) else { continue };
        let base = clients::load_base(cx, client).await?;
        if base.is_none_or(|base| base.number > 0) {
            return Err(Fault::failed(format!(
                "{} was changed by somebody meanwhile; what they deployed stays",
                step.name
            )));
        }
    }
    Ok(None)
}

/// The specs of clients that change: as found, and as wanted.
async fn changing(cx: &Cx<'_>, frozen: &Frozen) -> Result<BTreeMap<String, (Value, Value)>, Fault> {
    let made: Made = cx.out("configs")?;
    let mut specs = BTreeMap::new();
    for step in frozen.moves.iter().filter(|m| frozen.clients.iter().any(|c| c.name == m.name)) {
        let wanted = bound(load_spec(cx, &step.wanted).await?, &made);
        specs.insert(step.name.clone(), (load_spec(cx, &step.base).await?, wanted));
    }
    Ok(specs)
}

/// One client passes its checks on the new data and the spec that it gets (S1).
pub(super) async fn canary(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(Progress::Wait(wait));
    }
    let specs = changing(cx, &frozen).await?.into_iter().map(|(name, (_, wanted))| (name, wanted)).collect();
    let seen = freeze::Seen::load(cx).await?;
    let stopped: BTreeSet<String> = frozen.clients.iter().map(|c| c.name.clone()).collect();
    let mut clients = frozen.clients;
    // What one needs that is stopped itself, no canary can reach.
    clients.retain(|client| !seen.needs_any(&client.name, &stopped));
    trial::canary_of(cx, &clients, true, &specs).await
}

/// Starts the clients on the specs that they get, each up before the next.
pub(super) async fn start(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let specs = changing(cx, &frozen).await?;
    for client in frozen.clients.iter().rev() {
        let left = match specs.get(&client.name) {
            Some((found, wanted)) => clients::start_anew(cx, client, found, wanted).await?,
            None => {
                let one = std::slice::from_ref(client);
                clients::start(cx, one, Start::MustBeHealthy).await?
            }
        };
        if let Some(wait) = left {
            return Ok(Progress::Wait(wait));
        }
        is_where_its_files_are(cx, &frozen, client).await?;
    }
    for part in &frozen.data {
        cx.remark(format!(
            "the data of {} is that of backup {}; operation {} tells what is kept of what was live, and how to go back by hand",
            part.service, part.backup, part.id
        ));
    }
    let started: Vec<&str> = frozen.clients.iter().rev().map(|c| c.name.as_str()).collect();
    Ok(Progress::Done(json!({ "started": started })))
}

/// A volume of the node's own is empty on any other node.
async fn is_where_its_files_are(cx: &mut Cx<'_>, frozen: &Frozen, client: &Client) -> Result<(), Fault> {
    let part = frozen.data.iter().find(|part| part.service == client.name);
    let Some(node) = part.and_then(|part| part.node.as_ref()) else { return Ok(()) };
    match clients::find(cx, client).await? {
        Some(service) => clients::runs_only_on(cx, &service, Some(node)).await,
        None => Ok(()),
    }
}

/// Stops the clients after a failure past the point of no return (S3).
pub(super) async fn make_safe(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = load(cx).await?;
    let left = clients::stop(cx, &frozen.clients).await?;
    cx.remark(
        "the data of the point is live, and what was live before is kept: nothing was thrown away, and nothing goes back by itself",
    );
    let Some(wait) = left else { return Ok(Progress::done()) };
    let failed = cx.record().changed;
    if cx.since(failed) <= cx.env.settings.stop_deadline {
        return Ok(Progress::Wait(wait));
    }
    cx.remark(format!("not every client could be stopped: {}", wait.why));
    Ok(Progress::done())
}

/// Those clients whose spec stays as it is.
pub(super) fn unchanged(frozen: &Frozen) -> impl Iterator<Item = &Client> {
    frozen.clients.iter().filter(|c| !frozen.moves.iter().any(|m| m.name == c.name))
}
