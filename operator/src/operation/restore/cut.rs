//! The part of a restore that users notice: cut-over, caches, canary, verification through the application.

use std::time::Duration;

use serde_json::{Value, json};
use skep_runner::task::{Connect, Named, NetCheck, NetChecks, PgInPlace, PgSwap, Probe, RedisFlush, Stored};
use skep_runner::{Report, Task};

use super::prepare::{Beside, Checked, Preflight, check, done, failures};
use crate::engines::{Access as EngineAccess, Password};
use crate::operation::backup::unexpected;
use crate::operation::frozen::{self, Client, Frozen, Kept, Target};
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::work::{self, Access, Order, Outcome};
use crate::operation::{canary, catalogue, clients};
use crate::policy::CheckProbe;
use crate::swarm::error::Error;
use crate::swarm::object::{OP, RegistryAuth};

/// Swaps the names. The clients must still be stopped: a deploy in the middle may have brought them back (S12).
pub(super) async fn cut(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(wait);
    }
    let beside: Beside = cx.out("beside")?;
    let side = beside.side.ok_or_else(|| Fault::failed("there is no new database to cut over to"))?;
    let swap = PgSwap {
        connect: frozen.target.access.connect.clone(),
        name: frozen.target.database.clone(),
        live: beside.live,
        new: side,
        away: away_name(cx),
        end_sessions: true,
    };
    // Side by side where no client runs, since users wait. A client that runs fills a cache again until the cut.
    let beforehand = if frozen.quiesce { flush(cx, &frozen).await? } else { None };
    let swapped = swap_names(cx, &frozen, swap, "swap").await?;
    let Progress::Done(_) = swapped else { return Ok(swapped) };
    let left = if frozen.quiesce { beforehand } else { flush(cx, &frozen).await? };
    Ok(left.map_or(swapped, Progress::Wait))
}

/// Swaps the names back. Where they were never swapped, the runner finds them as wanted and only allows connections.
pub(super) async fn undo_cut(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    let frozen = frozen::load(cx).await?;
    let beside: Beside = cx.out("beside")?;
    let (Some(side), Some(live)) = (beside.side, beside.live) else {
        // There was no live database to give its name back to; the new one may keep it.
        return Ok(Progress::done());
    };
    let swap = PgSwap {
        connect: frozen.target.access.connect.clone(),
        name: frozen.target.database.clone(),
        live: Some(Named { name: frozen.target.database.clone(), oid: side.oid }),
        new: Named { name: away_name(cx), oid: live.oid },
        away: side.name,
        end_sessions: true,
    };
    swap_names(cx, &frozen, swap, "undo").await
}

async fn swap_names(cx: &mut Cx<'_>, frozen: &Frozen, swap: PgSwap, key: &str) -> Result<Progress, Fault> {
    let order = Order { key, target: &frozen.target, task: Task::PgSwap(swap), store: None, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(soon(wait))),
        Outcome::Failed(fault) => Err(Fault::failed(format!("the cut-over failed: {}", fault.message))),
        Outcome::Done(report) => match *report {
            Report::PgSwap { fenced_ms } => Ok(Progress::Done(json!({ "fenced_ms": fenced_ms }))),
            other => Err(unexpected(&other)),
        },
    }
}

/// Users wait while these steps run, so they are looked at often.
fn soon(mut wait: Wait) -> Wait {
    wait.again = wait.again.min(Duration::from_millis(50));
    wait
}

async fn hold(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Option<Progress>, Fault> {
    if !frozen.quiesce {
        return Ok(None);
    }
    Ok(clients::stop(cx, &frozen.clients).await?.map(Progress::Wait))
}

/// Rebuilds the live database in place from the best backup, then checks it.
pub(super) async fn replace(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(wait);
    }
    let seen: Preflight = cx.out("preflight")?;
    let best = seen.usable.first().cloned().unwrap_or_default();
    let stored = frozen.candidates.iter().find(|e| e.id == best).map(|e| e.stored());
    let stored = stored.ok_or_else(|| Fault::failed("no backup can be used"))?;
    if let Some(progress) = in_place(cx, &frozen, stored, "load").await? {
        return Ok(progress);
    }
    if let Some(wait) = flush(cx, &frozen).await? {
        return Ok(Progress::Wait(wait));
    }
    match check(cx, &frozen, &frozen.target.database, "check").await? {
        Checked::Wait(progress) => Ok(progress),
        Checked::Passed => Ok(Progress::Done(json!({ "backup": best }))),
        Checked::Failed(why) => Err(Fault::failed(why)),
    }
}

/// Puts the safety backup back in place.
pub(super) async fn undo_replace(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    if !cx.record().jobs.contains_key("load") {
        return Ok(Progress::done());
    }
    let frozen = frozen::load(cx).await?;
    let safety: Value = cx.out("safety")?;
    let text = |key: &str| safety[key].as_str().unwrap_or_default().to_owned();
    let stored = Stored { id: text("backup"), dir: text("dir"), manifest_sha256: text("manifest_sha256") };
    Ok(in_place(cx, &frozen, stored, "undo").await?.unwrap_or_else(Progress::done))
}

async fn in_place(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    stored: Stored,
    key: &str,
) -> Result<Option<Progress>, Fault> {
    let properties = cx.op.journal.step("preflight").and_then(|r| r.jobs.get("look")?.report.clone());
    let Some(Report::PgInspect(seen)) = properties.map(|r| *r) else {
        return Err(Fault::failed("preflight did not record the live database's properties"));
    };
    let task = Task::PgInPlace(PgInPlace {
        connect: frozen.target.access.connect.clone(),
        stored,
        live: frozen.target.database.clone(),
        properties: seen.properties.unwrap_or_default(),
        jobs: 2,
    });
    let order = Order { key, target: &frozen.target, task, store: Some(Access::Read), data: true };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Some(Progress::Wait(wait))),
        Outcome::Done(_) => Ok(None),
        Outcome::Failed(fault) => Err(Fault::failed(format!("the restore failed: {}", fault.message))),
    }
}

/// Empties the caches, before any client can read from them (S21). `None` = all are empty.
async fn flush(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Option<Wait>, Fault> {
    let mut waiting = None;
    for (i, cache) in frozen.caches.iter().enumerate() {
        let key = format!("flush{i}");
        let task = Task::RedisFlush(RedisFlush { connect: cache.access.connect.clone() });
        let order = Order { key: &key, target: cache, task, store: None, data: false };
        match work::run(cx, &order).await? {
            Outcome::Wait(wait) => waiting = Some(soon(wait)),
            Outcome::Done(_) => {}
            Outcome::Failed(fault) => {
                return Err(Fault::failed(format!(
                    "cache {} cannot be emptied: {}",
                    cache.name, fault.message
                )));
            }
        }
    }
    Ok(waiting)
}

/// One client, without its names, ports and labels, passes its checks on the new data (S1).
pub(super) async fn canary(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(wait);
    }
    let client = frozen.clients.iter().find(|c| frozen.canary && !net_checks(c, "").is_empty());
    let Some(client) = client else {
        return Ok(Progress::done());
    };
    let base = clients::load_base(cx, client).await?;
    let base = base.ok_or_else(|| Fault::failed(format!("the spec of {} was not saved", client.name)))?;
    let name = canary::name(&cx.op.id, base.number);
    let key = format!("check{}", base.number);
    // A deploy in the middle makes another spec the client's: what a canary of the old one shows does not count.
    remove_canaries_but(cx, &name).await?;
    work::end_all_but(cx, &key).await?;
    let spec = canary::spec(&name, &base.spec, &cx.op.id);
    match cx.engine().create_service(&spec, RegistryAuth::Anonymous).await {
        Ok(_) | Err(Error::Exists { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    let checks = net_checks(client, &format!("tasks.{name}"));
    match run_net_checks(cx, client, &base.spec, checks, &key).await? {
        Some(progress) => Ok(progress),
        None => {
            remove_canaries_but(cx, "").await?;
            Ok(Progress::Done(json!({ "client": client.name })))
        }
    }
}

/// Removes the canary.
pub(super) async fn undo_canary(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    remove_canaries_but(cx, "").await?;
    Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait))
}

async fn remove_canaries_but(cx: &Cx<'_>, kept: &str) -> Result<(), Fault> {
    let op = cx.op.id.as_str();
    for service in cx.engine().services(&[(OP, Some(op))]).await? {
        if canary::is_one(service.name(), &cx.op.id) && service.name() != kept {
            cx.engine().remove_service(&service.id).await?;
        }
    }
    Ok(())
}

/// The data and every client pass their checks.
pub(super) async fn verify(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    match check(cx, &frozen, &frozen.target.database, "sql").await? {
        Checked::Wait(progress) => return Ok(progress),
        Checked::Passed => {}
        Checked::Failed(why) => return Err(Fault::failed(why)),
    }
    for (i, client) in frozen.clients.iter().enumerate() {
        let checks = net_checks(client, &format!("tasks.{}", client.name));
        if checks.is_empty() {
            continue;
        }
        let service = match cx.engine().service(&client.id).await {
            Ok(service) => service,
            Err(Error::NotFound { .. }) => continue,
            Err(other) => return Err(other.into()),
        };
        if service.replicas() == Some(0) {
            continue;
        }
        if let Some(progress) = run_net_checks(cx, client, &service.spec, checks, &format!("net{i}")).await? {
            return Ok(progress);
        }
    }
    let checks = frozen.checks.len() + frozen.clients.iter().map(|c| net_checks(c, "").len()).sum::<usize>();
    if checks == 0 {
        cx.remark("no check is defined (skep.check.…): that the restored data is right was not verified beyond the restore itself");
    }
    if checks > 0 {
        let beside = cx.op.journal.step("beside").map(|r| r.out["backup"].clone());
        let used = beside.or_else(|| cx.op.journal.step("replace").map(|r| r.out["backup"].clone()));
        catalogue::mark_proved(cx, used.as_ref().and_then(Value::as_str).unwrap_or_default()).await?;
    }
    Ok(Progress::Done(json!({ "checks": checks })))
}

async fn run_net_checks(
    cx: &mut Cx<'_>,
    client: &Client,
    spec: &Value,
    checks: Vec<NetCheck>,
    key: &str,
) -> Result<Option<Progress>, Fault> {
    let deadline_s = cx.env.settings.check_deadline.as_secs();
    let target = as_target(client, spec);
    let task = Task::NetChecks(NetChecks { checks, deadline_s });
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

/// A job for a client runs in the client's own image, which its nodes have already, and in its networks.
fn as_target(client: &Client, spec: &Value) -> Target {
    let connect = Connect { host: String::new(), port: 0, user: String::new(), password_file: None };
    Target {
        name: client.name.clone(),
        id: client.id.clone(),
        image: spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned(),
        spec: spec.clone(),
        node: None,
        access: EngineAccess { connect, password: Password::Nowhere },
        database: String::new(),
        store: String::new(),
    }
}

/// The network checks of a client, asked of `host` where a check names no host of its own.
fn net_checks(client: &Client, host: &str) -> Vec<NetCheck> {
    client
        .checks
        .iter()
        .filter_map(|c| {
            let (own, port, probe, within) = match &c.probe {
                CheckProbe::Http { host, port, path, status, within, body } => {
                    let probe = Probe::Http { path: path.clone(), status: *status, body: body.clone() };
                    (host.as_str(), *port, probe, *within)
                }
                CheckProbe::Tcp { port, within } => ("", *port, Probe::Tcp, *within),
                CheckProbe::Sql { .. } | CheckProbe::Command { .. } => return None,
            };
            Some(NetCheck {
                name: c.name.clone(),
                host: if own.is_empty() { host } else { own }.to_owned(),
                port,
                probe,
                within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            })
        })
        .collect()
}

/// Records what is kept, and says how to go back by hand.
pub(super) async fn keep(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let beside: Beside = cx.out("beside")?;
    let Some(live) = beside.live else {
        return Ok(Progress::done());
    };
    let until =
        cx.op.journal.step("cut").map_or(cx.now(), |r| r.changed) + Duration::from_secs(frozen.keep_old_s);
    let kept = Kept { operation: cx.op.id.clone(), name: away_name(cx), oid: live.oid, until };
    cx.remark(format!("the old data is kept as database `{}` until {until}", kept.name));
    cx.remark(format!(
        "to go back by hand: stop the clients, then as superuser in database postgres: BEGIN; ALTER DATABASE \"{0}\" RENAME TO \"{0}_new\"; ALTER DATABASE \"{1}\" RENAME TO \"{0}\"; COMMIT; ALTER DATABASE \"{0}\" ALLOW_CONNECTIONS true;",
        frozen.target.database, kept.name
    ));
    done(cx, &kept)
}

fn away_name(cx: &Cx<'_>) -> String {
    format!("skep_{}_old", cx.op.id)
}
