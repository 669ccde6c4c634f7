//! The part of a restore that users notice: cut-over, caches, verification through the application.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skep_runner::task::{Named, PgInPlace, PgInspect, PgSwap, RedisFlush, Stored};
use skep_runner::{Report, Task};

use super::preflight::{Preflight, inspected};
use super::prepare::{Beside, Checked, check, done};
use super::trial::over_network;
use crate::engines::Data;
use crate::operation::catalogue::Shown;
use crate::operation::checks::{self, Tried};
use crate::operation::data::unexpected;
use crate::operation::frozen::{self, Client, Frozen, Kept, KeptForm, Target};
use crate::operation::record::Operation;
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::stores::{self, Hand};
use crate::operation::work::{self, Access, Order, Outcome};
use crate::operation::{canary, catalogue, clients, freeze};

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
    let Some(side) = beside.side else {
        return Ok(Progress::done());
    };
    let Some(live) = beside.live else {
        return stay(cx, &frozen, &beside.backup, &side).await;
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

/// The live database was gone before the restore, so there is nothing that could be swapped back: where the new one has
/// got its name, it keeps it. Having no database again would be worse.
async fn stay(cx: &mut Cx<'_>, frozen: &Frozen, backup: &str, side: &Named) -> Result<Progress, Fault> {
    if !cx.record().jobs.contains_key("swap") {
        return Ok(Progress::done());
    }
    let task = Task::PgInspect(PgInspect {
        connect: frozen.target.access.connect.clone(),
        database: frozen.target.database.clone(),
        backups: Vec::new(),
        kept: Vec::new(),
        create_roles: false,
    });
    let order = Order { key: "undo", target: &frozen.target, task, store: None, data: false };
    let found = match work::run(cx, &order).await? {
        Outcome::Wait(wait) => return Ok(Progress::Wait(soon(wait))),
        Outcome::Failed(fault) => {
            return Err(Fault::failed(format!(
                "whether the restored database has become `{}` cannot be told: {}",
                frozen.target.database, fault.message
            )));
        }
        Outcome::Done(report) => match *report {
            Report::PgInspect(seen) => seen.live,
            other => return Err(unexpected(&other)),
        },
    };
    if found.is_none_or(|live| live.oid != side.oid) {
        return Ok(Progress::done());
    }
    cx.remark(format!(
        "database `{0}` was gone before this restore, so there is nothing to go back to: what was restored from backup {backup} keeps that name, accepts connections, and the clients are put back on it; look at the data, then restore again or leave it so",
        frozen.target.database
    ));
    let record = cx.record();
    record.out = serde_json::to_value(CutOut { stays: true })
        .map_err(|source| Fault::Journal { step: "cut".to_owned(), source })?;
    Ok(Progress::done())
}

/// Whether the cut-over of an operation that went back was left as it is.
pub(super) fn stays(op: &Operation) -> bool {
    let out = op.journal.step("cut").map(|r| r.out.clone()).unwrap_or_default();
    serde_json::from_value(out).is_ok_and(|out: CutOut| out.stays)
}

/// What the cut-over journals besides how long it took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct CutOut {
    /// Nothing could be swapped back: the restored database is the live one.
    #[serde(default)]
    stays: bool,
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
pub(in crate::operation) fn soon(mut wait: Wait) -> Wait {
    wait.again = wait.again.min(Duration::from_millis(50));
    wait
}

pub(super) async fn hold(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Option<Progress>, Fault> {
    if !frozen.quiesce {
        return Ok(None);
    }
    Ok(clients::keep_stopped(cx, &frozen.clients).await?.map(Progress::Wait))
}

/// Rebuilds the live database in place from the best backup, then checks it.
pub(super) async fn replace(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(wait);
    }
    let seen: Preflight = cx.out("preflight")?;
    let best = seen.usable.first().cloned().unwrap_or_default();
    let entry = frozen.candidates.iter().find(|e| e.id == best);
    let entry = entry.ok_or_else(|| Fault::failed("no backup can be used"))?;
    let target = match stores::at_hand(cx, &frozen, entry, "f0").await? {
        Hand::Here(target) => target,
        Hand::Wait(wait) => return Ok(Progress::Wait(soon(wait))),
        Hand::Lost(fault) => return Err(Fault::failed(format!("backup {best}: {}", fault.message))),
    };
    if let Some(progress) = in_place(cx, &target, entry.stored(), "load").await? {
        return Ok(progress);
    }
    if let Some(wait) = flush(cx, &frozen).await? {
        return Ok(Progress::Wait(wait));
    }
    match check(cx, &frozen, &frozen.target.database, "check").await? {
        Checked::Wait(progress) => return Ok(progress),
        Checked::Passed => {}
        Checked::Failed(why) => return Err(Fault::failed(why)),
        Checked::Unable(fault) => return Err(Fault::failed(fault.message)),
    }
    if let Some(progress) = probe(cx, &frozen).await? {
        return Ok(progress);
    }
    Ok(Progress::Done(json!({ "backup": best })))
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
    let direct = Stored { id: text("backup"), dir: text("dir"), manifest_sha256: text("manifest_sha256") };
    if !stores::is_staged(&cx.env.settings, &frozen.target) {
        return Ok(in_place(cx, &frozen.target, direct, "undo").await?.unwrap_or_else(Progress::done));
    }
    let id = direct.id;
    let entry = catalogue::find(cx, &id).await?.map(|b| b.entry);
    let entry =
        entry.ok_or_else(|| Fault::failed(format!("the safety backup {id} is not in the catalogue")))?;
    let target = match stores::at_hand(cx, &frozen, &entry, "uf").await? {
        Hand::Here(target) => target,
        Hand::Wait(wait) => return Ok(Progress::Wait(wait)),
        Hand::Lost(fault) => {
            return Err(Fault::failed(format!(
                "the safety backup {id} cannot be fetched: {}",
                fault.message
            )));
        }
    };
    let stored = entry.stored();
    Ok(in_place(cx, &target, stored, "undo").await?.unwrap_or_else(Progress::done))
}

/// The data service, which ran on, passes its own checks over the network, and by its commands.
async fn probe(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Option<Progress>, Fault> {
    let Some(server) = &frozen.runs_on else { return Ok(None) };
    let net = canary::checks_of(server);
    if !net.is_empty()
        && let Some(progress) = over_network(cx, server, &frozen.target.spec, net, "net").await?
    {
        return Ok(Some(progress));
    }
    checks::commands_of(cx, server, &frozen.target.service(), "cmd").await
}

async fn in_place(
    cx: &mut Cx<'_>,
    target: &Target,
    stored: Stored,
    key: &str,
) -> Result<Option<Progress>, Fault> {
    let task = match &target.data {
        Data::Command(data) => target.load_by(data, stored),
        Data::Postgres | Data::Directory(_) | Data::None => rebuild(cx, target, stored)?,
    };
    let order = Order { key, target, task, store: Some(Access::Read), data: true };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Some(Progress::Wait(wait))),
        Outcome::Done(report) => {
            if let Report::CommandLoad { left } = *report {
                left.into_iter().for_each(|left| cx.remark(left));
            }
            Ok(None)
        }
        Outcome::Failed(fault) => Err(Fault::failed(format!("the restore failed: {}", fault.message))),
    }
}

/// Rebuilds a database of PostgreSQL with the properties that preflight found.
fn rebuild(cx: &Cx<'_>, target: &Target, stored: Stored) -> Result<Task, Fault> {
    let Some(seen) = inspected(cx.op) else {
        return Err(Fault::failed("preflight did not record the live database's properties"));
    };
    Ok(Task::PgInPlace(PgInPlace {
        connect: target.access.connect.clone(),
        stored,
        live: target.database.clone(),
        properties: seen.properties.unwrap_or_default(),
    }))
}

/// Empties the caches, before any client can read from them (S21). `None` = all are empty.
pub(super) async fn flush(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Option<Wait>, Fault> {
    let mut waiting = None;
    for (nth, cache) in frozen.caches.iter().enumerate() {
        waiting = flush_one(cx, cache, nth).await?.or(waiting);
    }
    Ok(waiting)
}

/// Empties the nth cache of the step. `None` = it is empty.
///
/// # Errors
/// When that cannot be done, or what the engine says.
pub(in crate::operation) async fn flush_one(
    cx: &mut Cx<'_>,
    cache: &Target,
    nth: usize,
) -> Result<Option<Wait>, Fault> {
    let key = format!("flush{nth}");
    let task = Task::RedisFlush(RedisFlush { connect: cache.access.connect.clone() });
    let order = Order { key: &key, target: cache, task, store: None, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Some(soon(wait))),
        Outcome::Done(_) => Ok(None),
        Outcome::Failed(fault) => {
            Err(Fault::failed(format!("cache {} cannot be emptied: {}", cache.name, fault.message)))
        }
    }
}

/// The data and every client pass their checks.
pub(super) async fn verify(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    match check(cx, &frozen, &frozen.target.database, "sql").await? {
        Checked::Wait(progress) => return Ok(progress),
        Checked::Passed => {}
        Checked::Failed(why) => return Err(Fault::failed(why)),
        Checked::Unable(fault) => return Err(Fault::failed(fault.message)),
    }
    // One that was replaced in place, or stopped, was asked before its clients started.
    let is_beside = cx.op.journal.step("beside").is_some();
    if let Some(server) = frozen.runs_on.as_ref().filter(|_| is_beside)
        && let Some(progress) = checks::commands_of(cx, server, &frozen.target.service(), "cmd").await?
    {
        return Ok(progress);
    }
    let of_clients = match checks::after_all(cx, &frozen.clients).await? {
        Tried::Wait(progress) => return Ok(progress),
        Tried::Passed(count) => count,
    };
    // Those in the data are counted already.
    let of_server =
        |server: &Client| checks::asked(&server.checks).count() - freeze::sql_checks(&server.checks).len();
    let of_data: usize = frozen.runs_on.iter().chain(&frozen.holder).map(of_server).sum();
    let checks = frozen.checks.len() + of_data + of_clients;
    if checks == 0 {
        cx.remark("no check is defined (skep.check.…): that the restored data is right was not verified beyond the restore itself");
    }
    let beside = cx.op.journal.step("beside").map(|r| r.out.clone());
    let seconds = beside.as_ref().and_then(|out| out["seconds"].as_f64());
    let used = beside.map(|out| out["backup"].clone());
    let used = used.or_else(|| cx.op.journal.step("replace").map(|r| r.out["backup"].clone()));
    let used = used.as_ref().and_then(Value::as_str).unwrap_or_default();
    catalogue::mark_shown(cx, used, Shown::of(&frozen.target.data, checks), seconds).await?;
    Ok(Progress::Done(json!({ "checks": checks })))
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
    let kept = Kept {
        operation: cx.op.id.clone(),
        form: KeptForm::Database,
        name: away_name(cx),
        oid: live.oid,
        until,
    };
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
