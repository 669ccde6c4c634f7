//! The part of a restore that touches nothing live, once preflight is content: safety backup, the new database beside.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_runner::line::FaultKind;
use skep_runner::task::{CheckOutcome, DataChecks, Named, PgDrop, PgRestore, SqlCheck, SqlChecks};
use skep_runner::{Fault as JobFault, Report, Task};

use super::cut::hold;
use super::preflight::Preflight;
use super::roles::{self, Made};
use crate::engines::Data;
use crate::operation::backup::{self, Place, Sealed};
use crate::operation::catalogue::{Entry, Purpose};
use crate::operation::data::{Dumped, unexpected};
use crate::operation::frozen::{self, Frozen, Target};
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::stores::{self, Hand};
use crate::operation::work::{self, Access, Order, Outcome};

/// Why a database that is gone is not restored in place.
pub(super) const NO_WAY_BACK: &str = "the live database is gone; restore beside instead of in place";

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
/// place there is no other way back, so the clients are kept stopped, and a failure fails the restore (S10).
pub(super) async fn safety(cx: &mut Cx<'_>, required: bool) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let seen: Preflight = cx.out("preflight")?;
    if let Some(wait) = if required { hold(cx, &frozen).await? } else { None } {
        return Ok(wait);
    }
    if frozen.target.data == Data::Postgres && seen.live.is_none() {
        if required {
            return Err(Fault::failed(NO_WAY_BACK));
        }
        cx.remark("the live database is gone, so there was nothing to take a safety backup of");
        return Ok(Progress::done());
    }
    let place = Place::safety(cx, &frozen.target);
    match safety_backup(cx, &frozen.target, &place).await {
        Err(Fault::Failed(why)) if !required => {
            cx.remark(format!("no safety backup ({why}); the old database itself is kept"));
            Ok(Progress::done())
        }
        Err(Fault::Failed(why)) => {
            Err(Fault::failed(format!("no safety backup, and in place there is no other way back: {why}")))
        }
        other => other,
    }
}

/// Backs the live data up: dump, full read, entry in the catalogue.
///
/// # Errors
/// When one of these fails, or what the engine says.
pub(in crate::operation) async fn safety_backup(
    cx: &mut Cx<'_>,
    target: &Target,
    place: &Place,
) -> Result<Progress, Fault> {
    let dumped = match backup::dump(cx, target, place, "dump").await? {
        Progress::Done(value) => value,
        other => return Ok(other),
    };
    let dumped: Dumped = read(cx, dumped)?;
    let sealed = match backup::seal(cx, target, place, &dumped, "seal").await? {
        Progress::Done(value) => value,
        other => return Ok(other),
    };
    let sealed: Sealed = read(cx, sealed)?;
    let sealed = match stores::ship(cx, target, place, sealed, backup::SHIP).await? {
        Ok(sealed) => sealed,
        Err(wait) => return Ok(Progress::Wait(wait)),
    };
    backup::register(cx, target, place, &sealed, Purpose::Safety).await?;
    Ok(Progress::Done(serde_json::json!({
        "backup": place.id, "dir": place.dir, "manifest_sha256": sealed.manifest_sha256,
    })))
}

/// A finished safety backup stays; an unfinished one goes.
pub(super) async fn undo_safety(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    undo_safety_backup(cx, &frozen.target).await
}

/// As [`undo_safety`], of this service.
///
/// # Errors
/// What the engine says.
pub(in crate::operation) async fn undo_safety_backup(
    cx: &mut Cx<'_>,
    target: &Target,
) -> Result<Progress, Fault> {
    let place = Place::safety(cx, target);
    let name = format!("{}{}", crate::operation::catalogue::PREFIX, place.id);
    match cx.engine().config(&name).await {
        Ok(_) => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
        Err(crate::swarm::error::Error::NotFound { .. }) => {
            match stores::undo_ship(cx, target, &place, backup::SHIP).await? {
                Progress::Done(_) => backup::discard(cx, target, &place).await,
                other => Ok(other),
            }
        }
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
    let missing = seen.roles.get(id).cloned().unwrap_or_default();
    let why = match build(cx, &frozen, entry, &missing, state.candidate).await? {
        Built::Wait(progress) => return Ok(progress),
        Built::Passed(built) => return done(cx, &*built),
        Built::Rejected(why) => why,
    };
    cx.remark(format!("backup {} was not used: {why}", entry.id));
    if let Some(wait) = drop_rejected(cx, &frozen, state.candidate).await? {
        return Ok(Progress::Wait(wait));
    }
    if let Some(wait) = roles::drop_of_rejected(cx, &frozen, state.candidate, &missing).await? {
        return Ok(Progress::Wait(wait));
    }
    state.candidate += 1;
    cx.keep(&state).await?;
    Ok(Progress::wait("trying the next older backup"))
}

/// How building from one backup went.
enum Built {
    Wait(Progress),
    /// It passes its checks.
    Passed(Box<Beside>),
    /// Why it is not used.
    Rejected(String),
}

/// Makes the roles that are missing for a backup, restores it into a new database, and runs the checks there.
async fn build(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    entry: &Entry,
    missing: &[String],
    candidate: usize,
) -> Result<Built, Fault> {
    match roles::make(cx, frozen, entry, missing, candidate).await? {
        Made::Wait(wait) => return Ok(Built::Wait(Progress::Wait(wait))),
        Made::Unable(fault) => {
            return Ok(Built::Rejected(format!(
                "the roles that are missing cannot be made: {}",
                fault.message
            )));
        }
        Made::There => {}
    }
    let (side, key) = (side_name(cx, candidate), format!("load{candidate}"));
    let (live, side, seconds) = match load(cx, frozen, entry, &side, &key).await? {
        Restored::Wait(wait) => return Ok(Built::Wait(Progress::Wait(wait))),
        Restored::Unusable(fault) => return Ok(Built::Rejected(fault.message)),
        Restored::Built { live, side, seconds } => (live, side, seconds),
    };
    Ok(match check(cx, frozen, &side.name, &format!("check{candidate}")).await? {
        Checked::Wait(progress) => Built::Wait(progress),
        Checked::Passed => {
            let backup = entry.id.clone();
            Built::Passed(Box::new(Beside { candidate, backup, live, side: Some(side), seconds }))
        }
        Checked::Failed(why) => Built::Rejected(why),
        Checked::Unable(fault) => Built::Rejected(fault.message),
    })
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

/// How restoring one backup beside went.
pub enum Restored {
    /// Not yet.
    Wait(Wait),
    /// The new database is there.
    Built {
        /// The live database, where it exists.
        live: Option<Named>,
        /// The new one.
        side: Named,
        /// Seconds that loading took.
        seconds: f64,
    },
    /// Why this backup cannot be restored; the next older one may.
    Unusable(JobFault),
}

/// Loads a backup into a new database of this name beside the live one, by one job of the current step. Whatever has to
/// happen to a backup before it can be loaded belongs here: restores and drills both come this way.
///
/// # Errors
/// What the engine says.
pub async fn load(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    entry: &Entry,
    side: &str,
    key: &str,
) -> Result<Restored, Fault> {
    let nth = frozen.candidates.iter().position(|e| e.id == entry.id).unwrap_or_default();
    let target = match stores::at_hand(cx, frozen, entry, &format!("f{nth}")).await? {
        Hand::Here(target) => target,
        Hand::Wait(wait) => return Ok(Restored::Wait(wait)),
        Hand::Lost(fault) => return Ok(Restored::Unusable(fault)),
    };
    let task = Task::PgRestore(PgRestore {
        connect: frozen.target.access.connect.clone(),
        stored: entry.stored(),
        live: frozen.target.database.clone(),
        side: side.to_owned(),
    });
    let order = Order { key, target: &target, task, store: Some(Access::Read), data: true };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Restored::Wait(wait)),
        Outcome::Failed(fault) => Ok(Restored::Unusable(fault)),
        Outcome::Done(report) => match *report {
            Report::PgRestore { live, side, size: _, seconds } => Ok(Restored::Built { live, side, seconds }),
            other => Err(unexpected(&other)),
        },
    }
}

/// How the SQL checks of a database went.
pub enum Checked {
    /// Not yet.
    Wait(Progress),
    /// All of them passed.
    Passed,
    /// Some did not.
    Failed(String),
    /// They could not be run.
    Unable(JobFault),
}

/// Runs the SQL checks in a database. No checks = passed, since the restore itself was verified.
///
/// # Errors
/// What the engine says.
pub async fn check(cx: &mut Cx<'_>, frozen: &Frozen, database: &str, key: &str) -> Result<Checked, Fault> {
    if frozen.checks.is_empty() {
        return Ok(Checked::Passed);
    }
    check_all(cx, &frozen.target, database, frozen.checks.clone(), Duration::ZERO, key).await
}

/// Runs these checks in a database, or in the server where the data is a directory; until they pass, where there is time for that,
/// else once.
///
/// # Errors
/// What the engine says.
pub(in crate::operation) async fn check_all(
    cx: &mut Cx<'_>,
    target: &Target,
    name: &str,
    checks: Vec<SqlCheck>,
    within: Duration,
    key: &str,
) -> Result<Checked, Fault> {
    let deadline_s = within.as_secs();
    let connect = target.access.connect.clone();
    let task = match &target.data {
        Data::Directory(directory) => Task::DataChecks(DataChecks {
            engine: directory.engine.runner(),
            connect,
            database: database(name),
            checks,
            deadline_s,
        }),
        // The labels are refused before; whoever accepts their problems learns it here.
        Data::Command(_) => {
            let message = "Skep has no server to ask about such data".to_owned();
            return Ok(Checked::Unable(JobFault { kind: FaultKind::Final, message }));
        }
        Data::Postgres | Data::None => {
            Task::SqlChecks(SqlChecks { connect, database: name.to_owned(), checks, deadline_s })
        }
    };
    let order = Order { key, target, task, store: None, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Checked::Wait(Progress::Wait(wait))),
        Outcome::Failed(fault) => Ok(Checked::Unable(fault)),
        Outcome::Done(report) => match *report {
            Report::Checks { outcomes } => Ok(failures(&outcomes).map_or(Checked::Passed, Checked::Failed)),
            other => Err(unexpected(&other)),
        },
    }
}

/// The name of a database, where there is one.
pub(super) fn database(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// The failed ones in one sentence.
pub(in crate::operation) fn failures(outcomes: &[CheckOutcome]) -> Option<String> {
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
        Outcome::Wait(wait) => return Ok(Progress::Wait(wait)),
        Outcome::Done(_) => {}
        Outcome::Failed(fault) => {
            cx.remark(format!("a half-restored database `{}` is left: {}", side_name(cx, 0), fault.message));
        }
    }
    // After the databases, whose objects are theirs.
    roles::unmake(cx, &frozen, state.candidate).await
}

fn side_name(cx: &Cx<'_>, candidate: usize) -> String {
    format!("skep_{}_{candidate}", cx.op.id)
}

/// A finished step with its journal entry.
pub(in crate::operation) fn done<T: Serialize>(cx: &Cx<'_>, out: &T) -> Result<Progress, Fault> {
    let value = serde_json::to_value(out);
    value.map(Progress::Done).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}

fn read<T: serde::de::DeserializeOwned>(cx: &Cx<'_>, value: serde_json::Value) -> Result<T, Fault> {
    serde_json::from_value(value).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
}
