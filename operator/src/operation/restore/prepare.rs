//! The part of a restore that touches nothing live: preflight, safety backup, the new database beside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_runner::task::{
    CheckOutcome, Named, PgDrop, PgDumped, PgInspect, PgInspection, PgRestore, SqlChecks,
};
use skep_runner::{Report, Task};

use super::judge::{Judgement, Known, judge};
use crate::operation::backup::{self, Place, Sealed};
use crate::operation::catalogue::{Entry, Purpose};
use crate::operation::frozen::{self, Frozen};
use crate::operation::record::Trigger;
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::work::{self, Access, Order, Outcome};

/// What preflight found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Preflight {
    /// Ids of the backups that may be used, best first; the first was read in full.
    pub usable: Vec<String>,
    /// The live database, where it exists.
    pub live: Option<Named>,
    /// Its size in bytes.
    pub size: u64,
    /// Kept databases of earlier restores that exist and hold no slot.
    pub kept: Vec<Named>,
}

/// What was built beside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Beside {
    /// Index of the backup being tried.
    pub candidate: usize,
    /// Id of the backup used.
    pub backup: String,
    /// The live database, where it exists.
    pub live: Option<Named>,
    /// The new one.
    pub side: Option<Named>,
    /// Seconds that the restore took.
    pub seconds: f64,
}

/// Looks at the backups and the server, and judges.
pub(super) async fn preflight(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let inspection = match inspect(cx, &frozen).await? {
        Looked::Wait(progress) => return Ok(progress),
        Looked::Seen(inspection) => inspection,
    };
    let mut usable: Vec<&Entry> = Vec::new();
    for (i, entry) in frozen.candidates.iter().enumerate() {
        let reasons = inspection.backups.get(&entry.id).cloned().unwrap_or_default();
        if !reasons.is_empty() {
            cx.remark(format!("backup {} cannot be used: {}", entry.id, reasons.join("; ")));
            continue;
        }
        if !usable.is_empty() {
            usable.push(entry);
            continue;
        }
        let key = format!("read{i}");
        let task = Task::PgExamine(entry.stored());
        let order = Order { key: &key, target: &frozen.target, task, store: Some(Access::Read), data: false };
        match work::run(cx, &order).await? {
            Outcome::Wait(wait) => return Ok(Progress::Wait(wait)),
            Outcome::Done(_) => usable.push(entry),
            Outcome::Failed(fault) => {
                cx.remark(format!("backup {} cannot be used: {}", entry.id, fault.message))
            }
        }
    }
    if usable.is_empty() {
        return Err(Fault::failed(format!("no backup can be used: {}", cx.op.journal.remarks.join("; "))));
    }
    let size = inspection.properties.as_ref().map_or(0, |p| p.size);
    let judgement = judge(&inspection, &known(cx, &frozen).await?, size);
    if let Some(progress) = act_on(cx, judgement)? {
        return Ok(progress);
    }
    let out = Preflight {
        usable: usable.into_iter().map(|e| e.id.clone()).collect(),
        live: inspection.live.clone(),
        size,
        kept: inspection.kept.iter().filter(|k| k.slots.is_empty()).map(|k| k.database.clone()).collect(),
    };
    done(cx, &out)
}

enum Looked {
    Wait(Progress),
    Seen(Box<PgInspection>),
}

async fn inspect(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Looked, Fault> {
    let task = Task::PgInspect(PgInspect {
        connect: frozen.target.access.connect.clone(),
        database: frozen.target.database.clone(),
        backups: frozen.candidates.iter().map(Entry::stored).collect(),
        kept: frozen.kept.iter().map(|k| k.name.clone()).collect(),
    });
    let order = Order { key: "look", target: &frozen.target, task, store: Some(Access::Read), data: true };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Looked::Wait(Progress::Wait(wait))),
        Outcome::Failed(fault) => {
            Err(Fault::failed(format!("the server cannot be looked at: {}", fault.message)))
        }
        Outcome::Done(report) => match *report {
            Report::PgInspect(inspection) => Ok(Looked::Seen(inspection)),
            other => Err(backup::unexpected(&other)),
        },
    }
}

/// Maps addresses to services: whoever has a task on a network of the database.
async fn known<'a>(cx: &Cx<'_>, frozen: &'a Frozen) -> Result<Known<'a>, Fault> {
    let services = cx.engine().services(&[]).await?;
    let ids: Vec<&str> = services.iter().map(|s| s.id.as_str()).collect();
    let mut addresses = BTreeMap::new();
    for task in cx.engine().tasks(&ids).await? {
        let name = services.iter().find(|s| s.id == task.service).map_or("", |s| s.name());
        for (_, address) in task.addresses {
            addresses.insert(address, name.to_owned());
        }
    }
    Ok(Known {
        addresses,
        clients: frozen.clients.iter().map(|c| c.name.as_str()).collect(),
        ignore: frozen.ignore.iter().map(String::as_str).collect(),
    })
}

/// An alert may not go on where a person has to decide; a person who asked has decided.
fn act_on(cx: &mut Cx<'_>, judgement: Judgement) -> Result<Option<Progress>, Fault> {
    for remark in judgement.remarks {
        cx.remark(remark);
    }
    if !judgement.refuse.is_empty() {
        return Err(Fault::failed(judgement.refuse.join("; ")));
    }
    let by_alert = matches!(cx.op.intent.trigger, Trigger::Alert { .. });
    for reason in &judgement.approve {
        cx.remark(reason.clone());
    }
    let ask = by_alert && cx.op.journal.approved.is_none() && !judgement.approve.is_empty();
    Ok(ask.then(|| Progress::Approval { why: judgement.approve.join("; ") }))
}

/// Drops what earlier restores kept: one kept database a service (S17).
pub(super) async fn expire(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let seen: Preflight = cx.out("preflight")?;
    if seen.kept.is_empty() {
        return Ok(Progress::done());
    }
    let task =
        Task::PgDrop(PgDrop { connect: frozen.target.access.connect.clone(), databases: seen.kept.clone() });
    let order = Order { key: "drop", target: &frozen.target, task, store: None, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Failed(fault) => {
            Err(Fault::failed(format!("what an earlier restore kept cannot be dropped: {}", fault.message)))
        }
        Outcome::Done(_) => Ok(Progress::Done(serde_json::json!({ "dropped": seen.kept }))),
    }
}

/// Backs the live data up. Beside, the kept old database is the real safety copy, so a failure is only remarked; in
/// place there is no other way back, so it fails the restore (S10).
pub(super) async fn safety(cx: &mut Cx<'_>, required: bool) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let seen: Preflight = cx.out("preflight")?;
    if seen.live.is_none() {
        if required {
            return Err(Fault::failed("the live database is gone; restore beside instead of in place"));
        }
        cx.remark("the live database is gone, so there was nothing to take a safety backup of");
        return Ok(Progress::done());
    }
    let place = Place::safety(cx, &frozen.target);
    match safety_backup(cx, &frozen, &place).await {
        Err(Fault::Failed(why)) if !required => {
            cx.remark(format!("no safety backup ({why}); the old database itself is kept"));
            Ok(Progress::done())
        }
        other => other,
    }
}

async fn safety_backup(cx: &mut Cx<'_>, frozen: &Frozen, place: &Place) -> Result<Progress, Fault> {
    let dumped = match backup::dump(cx, &frozen.target, place, "dump").await? {
        Progress::Done(value) => value,
        other => return Ok(other),
    };
    let dumped: PgDumped = read(cx, dumped)?;
    let sealed = match backup::seal(cx, &frozen.target, place, &dumped, "seal").await? {
        Progress::Done(value) => value,
        other => return Ok(other),
    };
    let sealed: Sealed = read(cx, sealed)?;
    backup::register(cx, &frozen.target, place, &sealed, Purpose::Safety).await?;
    Ok(Progress::Done(serde_json::json!({
        "backup": place.id, "dir": place.dir, "manifest_sha256": sealed.manifest_sha256,
    })))
}

/// A finished safety backup stays; an unfinished one goes.
pub(super) async fn undo_safety(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let place = Place::safety(cx, &frozen.target);
    let name = format!("{}{}", crate::operation::catalogue::PREFIX, place.id);
    match cx.engine().config(&name).await {
        Ok(_) => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
        Err(crate::swarm::error::Error::NotFound { .. }) => backup::discard(cx, &frozen.target, &place).await,
        Err(other) => Err(other.into()),
    }
}

/// Restores the best backup into a new database and runs the checks there; where they fail, the next older one (S9).
pub(super) async fn beside(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let seen: Preflight = cx.out("preflight")?;
    let mut state: Beside = cx.scratch()?;
    let Some(id) = seen.usable.get(state.candidate) else {
        return Err(Fault::failed("no backup passes the checks once restored"));
    };
    let entry = frozen.candidates.iter().find(|e| e.id == *id);
    let entry = entry.ok_or_else(|| Fault::failed(format!("backup {id} is not in the plan")))?;
    let restored = match restore_one(cx, &frozen, entry, state.candidate).await? {
        Ok(progress) => return Ok(progress),
        Err(restored) => restored,
    };
    let why = match restored {
        Ok(Report::PgRestore { live, side, size: _, seconds }) => {
            match check(cx, &frozen, &side.name, &format!("check{}", state.candidate)).await? {
                Checked::Wait(progress) => return Ok(progress),
                Checked::Passed => {
                    let backup = entry.id.clone();
                    return done(
                        cx,
                        &Beside { candidate: state.candidate, backup, live, side: Some(side), seconds },
                    );
                }
                Checked::Failed(why) => why,
            }
        }
        Ok(other) => return Err(backup::unexpected(&other)),
        Err(why) => why,
    };
    cx.remark(format!("backup {} was not used: {why}", entry.id));
    if let Some(wait) = drop_rejected(cx, &frozen, state.candidate).await? {
        return Ok(Progress::Wait(wait));
    }
    state.candidate += 1;
    cx.keep(&state).await?;
    Ok(Progress::wait("trying the next older backup"))
}

/// What was built from a backup that is not used goes at once: it takes room, and no later step knows of it.
async fn drop_rejected(cx: &mut Cx<'_>, frozen: &Frozen, candidate: usize) -> Result<Option<Wait>, Fault> {
    let side = Named { name: side_name(cx, candidate), oid: 0 };
    let task = Task::PgDrop(PgDrop { connect: frozen.target.access.connect.clone(), databases: vec![side] });
    let key = format!("drop{candidate}");
    let order = Order { key: &key, target: &frozen.target, task, store: None, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Some(wait)),
        Outcome::Done(_) => Ok(None),
        Outcome::Failed(fault) => {
            cx.remark(format!("database `{}` is left: {}", side_name(cx, candidate), fault.message));
            Ok(None)
        }
    }
}

/// Outer `Ok` = still at it; inner = the report, or why this backup cannot be restored.
async fn restore_one(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    entry: &Entry,
    candidate: usize,
) -> Result<Result<Progress, Result<Report, String>>, Fault> {
    let task = Task::PgRestore(PgRestore {
        connect: frozen.target.access.connect.clone(),
        stored: entry.stored(),
        live: frozen.target.database.clone(),
        side: side_name(cx, candidate),
        jobs: 2,
    });
    let key = format!("load{candidate}");
    let order = Order { key: &key, target: &frozen.target, task, store: Some(Access::Read), data: true };
    Ok(match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Done(report) => Err(Ok(*report)),
        Outcome::Failed(fault) => Err(Err(fault.message)),
    })
}

/// How the SQL checks of a database went.
pub(super) enum Checked {
    Wait(Progress),
    Passed,
    Failed(String),
}

/// Runs the SQL checks in a database. No checks = passed, since the restore itself was verified.
pub(super) async fn check(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    database: &str,
    key: &str,
) -> Result<Checked, Fault> {
    if frozen.checks.is_empty() {
        return Ok(Checked::Passed);
    }
    let task = Task::SqlChecks(SqlChecks {
        connect: frozen.target.access.connect.clone(),
        database: database.to_owned(),
        checks: frozen.checks.clone(),
    });
    let order = Order { key, target: &frozen.target, task, store: None, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Checked::Wait(Progress::Wait(wait))),
        Outcome::Failed(fault) => Ok(Checked::Failed(fault.message)),
        Outcome::Done(report) => match *report {
            Report::Checks { outcomes } => Ok(failures(&outcomes).map_or(Checked::Passed, Checked::Failed)),
            other => Err(backup::unexpected(&other)),
        },
    }
}

/// The failed ones in one sentence.
pub(super) fn failures(outcomes: &[CheckOutcome]) -> Option<String> {
    let failed: Vec<String> =
        outcomes.iter().filter(|o| !o.passed).map(|o| format!("check `{}`: {}", o.name, o.detail)).collect();
    (!failed.is_empty()).then(|| failed.join("; "))
}

/// Drops whatever databases this step has made.
pub(super) async fn undo_beside(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    if cx.record().jobs.is_empty() {
        return Ok(Progress::done());
    }
    let frozen = frozen::load(cx).await?;
    let state: Beside = cx.scratch()?;
    let databases = (0..=state.candidate).map(|i| Named { name: side_name(cx, i), oid: 0 }).collect();
    let task = Task::PgDrop(PgDrop { connect: frozen.target.access.connect.clone(), databases });
    let order = Order { key: "undo", target: &frozen.target, task, store: None, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Done(_) => Ok(Progress::done()),
        Outcome::Failed(fault) => {
            cx.remark(format!("a half-restored database `{}` is left: {}", side_name(cx, 0), fault.message));
            Ok(Progress::done())
        }
    }
}

fn side_name(cx: &Cx<'_>, candidate: usize) -> String {
    format!("skep_{}_{candidate}", cx.op.id)
}

/// A finished step with its journal entry.
pub(super) fn done<T: Serialize>(cx: &Cx<'_>, out: &T) -> Result<Progress, Fault> {
    let value = serde_json::to_value(out);
    value.map(Progress::Done).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}

fn read<T: serde::de::DeserializeOwned>(cx: &Cx<'_>, value: serde_json::Value) -> Result<T, Fault> {
    serde_json::from_value(value).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}
