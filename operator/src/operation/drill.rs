//! Drill: proves that a backup restores, without touching anything live.
//!
//! ```text
//! claim ↩ plan ↩ preflight · load ↩ check · drop · record · release
//!                              └ into a scratch database that nobody else knows, on the same server
//! ```
//! It loads by the very job that a restore loads by, so that what it proves, and the time that it measures, are a
//! restore's.
//!
//! Invariants: the live database is only read; the scratch database bears a name of its own, one for each service, and
//! whatever happens it is dropped: by the drill, by its undo, by the next drill, or by the next restore. A drill gives
//! way to every other operation that has or wants its service, at each poll, and begins only where there is none. That a
//! backup failed is noted on it before the drill fails, and only where the backup is to blame; it is proved only after
//! every check has passed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use skep_runner::line::FaultKind;
use skep_runner::task::{Named, PgDrop};
use skep_runner::{Fault as JobFault, Task};
use tracing::info;

use super::catalogue::{self, Entry};
use super::frozen::{self, Frozen};
use super::journal::Compensation;
use super::record::{Operation, STATE, State, Work};
use super::restore::judge;
use super::restore::preflight::{Examined, Looked, examine, inspect};
use super::restore::prepare::{Checked, Restored, check, load};
use super::saga::{Cx, Fault, Progress, Saga, Wait};
use super::work::{self, Order, Outcome};
use super::{backup, claim, freeze};
use crate::engines::Data;
use crate::swarm::object::{Kind, short_hash};

/// Why data that is a directory has no drill.
pub const NOT_YET: &str = "this version drills PostgreSQL only; a restore checks what it builds from any other backup before it touches live data";

/// The saga.
pub struct Drill;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It holds the service, as long as nobody else wants it.
    Claim,
    /// Backup and checks are frozen.
    Plan,
    /// The backup is read in full; room, roles and extensions are looked at.
    Preflight,
    /// The backup is loaded into the scratch database.
    Load,
    /// The checks run there.
    Check,
    /// The scratch database is dropped.
    Drop,
    /// The catalogue learns that the backup is proved.
    Record,
    /// The service is given back.
    Release,
}

const STEPS: [Step; 8] = [
    Step::Claim,
    Step::Plan,
    Step::Preflight,
    Step::Load,
    Step::Check,
    Step::Drop,
    Step::Record,
    Step::Release,
];

/// What the load journals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Loaded {
    /// The backup.
    backup: String,
    /// The scratch database.
    scratch: Named,
    /// Seconds that loading took.
    seconds: f64,
}

/// How the note ends of who called a drill off that gave way.
const GAVE_WAY: &str = ", to which it gave way";

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Preflight => "preflight",
            Step::Load => "load",
            Step::Check => "check",
            Step::Drop => "drop",
            Step::Record => "record",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim | Step::Plan | Step::Preflight | Step::Load | Step::Check | Step::Drop => {
                Compensation::Undo
            }
            Step::Record | Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        false
    }
}

impl Saga for Drill {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        let gives_way = match step {
            Step::Plan | Step::Preflight | Step::Load | Step::Check | Step::Drop => rival(cx).await?,
            Step::Claim | Step::Record | Step::Release => None,
        };
        if let Some(other) = gives_way {
            return give_way(cx, &other).await;
        }
        match step {
            Step::Claim => take(cx).await,
            Step::Plan => plan(cx).await,
            Step::Preflight => preflight(cx).await,
            Step::Load => load_scratch(cx).await,
            Step::Check => run_checks(cx).await,
            Step::Drop => drop_scratch(cx).await,
            Step::Record => record(cx).await,
            Step::Release => backup::release(cx).await,
        }
    }

    /// Nothing here stops anybody: the operation for which it gave way waits.
    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        let undone = match step {
            Step::Claim => claim::release(cx).await,
            Step::Plan => frozen::remove(cx).await.map(|()| Progress::done()),
            Step::Preflight | Step::Check => abandon(cx).await,
            Step::Load => drop_whatever_is_there(cx).await,
            // The undo of the load, which comes later, drops it once more.
            Step::Drop => abandon(cx).await,
            Step::Record | Step::Release => Ok(Progress::done()),
        };
        match undone {
            Err(fault) => match fault.ends_step() {
                Some(why) => {
                    cx.remark(format!("step `{}` was not taken back in full: {why}", step_name(step)));
                    Ok(Progress::done())
                }
                None => Err(fault),
            },
            progress => progress,
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }
}

/// Whether an operation is a drill that ended because another one wanted the service: it is made up later.
pub fn gave_way(op: &Operation) -> bool {
    matches!(op.intent.work, Work::Drill { .. })
        && op.journal.state == State::Cancelled
        && op.journal.cancel.as_deref().is_some_and(|why| why.ends_with(GAVE_WAY))
}

/// The scratch database of a service. Always the same, so that no drill can leave one that no later one would find.
pub fn scratch_name(service: &str) -> String {
    format!("skep_drill_{}", short_hash(service))
}

fn step_name(step: Step) -> &'static str {
    super::journal::Step::name(step)
}

/// Another operation that has this service, or wants it. Of two drills the older one goes first.
async fn rival(cx: &Cx<'_>) -> Result<Option<Operation>, Fault> {
    let service = &cx.op.intent.service;
    for state in State::ALL.into_iter().filter(|s| !s.is_terminal()) {
        for config in cx.engine().configs(Kind::Operation, &[(STATE, state.as_str())]).await? {
            let Ok(other) = Operation::read(&config) else { continue };
            let is_earlier = match other.intent.work {
                Work::Drill { .. } => other.id < cx.op.id,
                Work::Backup
                | Work::Restore { .. }
                | Work::Maintenance { .. }
                | Work::Expire
                | Work::Point { .. }
                | Work::Rollback { .. } => true,
                // These hold no service.
                Work::Verify { .. } | Work::Import { .. } => false,
            };
            if other.id != cx.op.id && is_earlier && claim::concerns(&other, service) {
                return Ok(Some(other));
            }
        }
    }
    Ok(None)
}

fn named(other: &Operation) -> String {
    format!("operation {} ({})", other.id, other.title())
}

/// Takes the service, once nobody else has or wants it.
async fn take(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(other) = rival(cx).await? {
        let wait = Wait::new(format!("waits for {}", named(&other)));
        return Ok(Progress::Wait(Wait { again: Duration::from_secs(1), ..wait }));
    }
    let service = cx.op.intent.service.clone();
    claim::take(cx, &[service]).await
}

/// From here on it only goes back.
async fn give_way(cx: &mut Cx<'_>, other: &Operation) -> Result<Progress, Fault> {
    let why = format!("gave way to {}", named(other));
    info!(operation = %cx.op.id, "{why}");
    cx.remark(format!("{why}; nothing is proved, and nothing was changed"));
    cx.op.journal.cancel = Some(named(other) + GAVE_WAY);
    cx.save().await?;
    Ok(Progress::Wait(Wait { again: Duration::ZERO, ..Wait::new(why) }))
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let Work::Drill { backup } = cx.op.intent.work.clone() else {
        return Err(Fault::failed("this is not a drill"));
    };
    let frozen = freeze::drill(cx, backup.as_deref()).await?;
    if frozen.target.data != Data::Postgres {
        return Err(Fault::failed(NOT_YET));
    }
    if frozen.checks.is_empty() {
        cx.remark("no SQL check is defined (skep.check.<name>.sql): that the backup loads is proved, not that its data is right");
    }
    for remark in frozen.remarks.clone() {
        cx.remark(remark);
    }
    frozen::store(cx, &frozen).await?;
    Ok(Progress::Done(json!({ "backup": frozen.candidates.first().map(|e| e.id.clone()) })))
}

/// The backup of the plan.
fn chosen(frozen: &Frozen) -> Result<&Entry, Fault> {
    frozen.candidates.first().ok_or_else(|| Fault::failed("there is no backup in the plan"))
}

async fn preflight(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let entry = chosen(&frozen)?;
    let mut seen = match inspect(cx, &frozen).await? {
        Looked::Wait(progress) => return Ok(progress),
        Looked::Seen { inspection, unread } => match unread.get(&entry.id) {
            Some(why) => return Err(Fault::failed(format!("backup {} was not proved: {why}", entry.id))),
            None => inspection,
        },
    };
    let scratch = scratch_name(&frozen.target.name);
    // What an earlier drill left goes before anything is loaded.
    seen.free += seen.kept.iter().filter(|k| k.database.name == scratch).map(|k| k.size).sum::<u64>();
    let reasons = seen.backups.get(&entry.id).cloned().unwrap_or_default();
    if !reasons.is_empty() {
        return Err(disproved(cx, entry, &reasons.join("; ")).await?);
    }
    let recorded = match examine(cx, &frozen, entry, "read").await? {
        Examined::Wait(wait) => return Ok(Progress::Wait(wait)),
        Examined::Unusable(fault) => return Err(failed(cx, entry, "it cannot be read", &fault).await?),
        Examined::Whole(manifest) => manifest.database.as_ref().map_or(0, |d| d.size),
    };
    let size = seen.properties.as_ref().map_or(0, |p| p.size).max(recorded);
    let mut judgement = judge::Judgement::default();
    judge::room(&seen, size, &mut judgement);
    for remark in judgement.remarks {
        cx.remark(remark);
    }
    match judgement.refuse.is_empty() {
        true => Ok(Progress::Done(json!({ "size": size }))),
        false => Err(Fault::failed(judgement.refuse.join("; "))),
    }
}

async fn load_scratch(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let entry = chosen(&frozen)?;
    let scratch = scratch_name(&frozen.target.name);
    match load(cx, &frozen, entry, &scratch, "load").await? {
        Restored::Wait(wait) => Ok(Progress::Wait(wait)),
        Restored::Unusable(fault) => Err(failed(cx, entry, "it does not load", &fault).await?),
        Restored::Built { live: _, side, seconds } => {
            let loaded = Loaded { backup: entry.id.clone(), scratch: side, seconds };
            let value = serde_json::to_value(loaded);
            value.map(Progress::Done).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
        }
    }
}

async fn run_checks(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let entry = chosen(&frozen)?;
    let loaded: Loaded = cx.out("load")?;
    match check(cx, &frozen, &loaded.scratch.name, "check").await? {
        Checked::Wait(progress) => Ok(progress),
        Checked::Passed => Ok(Progress::Done(json!({ "checks": frozen.checks.len() }))),
        Checked::Failed(why) => Err(disproved(cx, entry, &why).await?),
        Checked::Unable(fault) => Err(failed(cx, entry, "its checks cannot be run", &fault).await?),
    }
}

async fn drop_scratch(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let loaded: Loaded = cx.out("load")?;
    match run_drop(cx, &frozen, loaded.scratch, "drop").await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Done(_) => Ok(Progress::done()),
        Outcome::Failed(fault) => {
            Err(Fault::failed(format!("the scratch database cannot be dropped: {}", fault.message)))
        }
    }
}

async fn record(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let loaded: Loaded = cx.out("load")?;
    catalogue::note_proved(cx, &loaded.backup, Some(loaded.seconds)).await?;
    Ok(Progress::Done(json!({ "backup": loaded.backup, "seconds": loaded.seconds })))
}

/// What ended a job: noted on the backup only where that is to blame.
async fn failed(cx: &mut Cx<'_>, entry: &Entry, what: &str, fault: &JobFault) -> Result<Fault, Fault> {
    let why = format!("{what}: {}", fault.message);
    match fault.kind {
        FaultKind::Final => disproved(cx, entry, &why).await,
        FaultKind::Transient | FaultKind::Circumstance => {
            Ok(Fault::failed(format!("backup {} was not proved: {why}", entry.id)))
        }
    }
}

/// Notes on a backup that it does not restore; the fault that ends the drill.
async fn disproved(cx: &mut Cx<'_>, entry: &Entry, why: &str) -> Result<Fault, Fault> {
    catalogue::note_drill_failed(cx, &entry.id, why).await?;
    Ok(Fault::failed(format!("backup {} failed the drill: {why}", entry.id)))
}

async fn abandon(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait))
}

/// Drops the scratch database if there is one. Tried for as long as it may help, but not while others wait: the next
/// drill or restore drops it as well.
async fn drop_whatever_is_there(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    if cx.record().jobs.is_empty() {
        return Ok(Progress::done());
    }
    let frozen = frozen::load(cx).await?;
    let scratch = Named { name: scratch_name(&frozen.target.name), oid: 0 };
    let left =
        format!("the scratch database `{}` is left for the next drill or restore to drop", scratch.name);
    match run_drop(cx, &frozen, scratch, "undo").await? {
        Outcome::Done(_) => Ok(Progress::done()),
        Outcome::Failed(fault) => {
            cx.remark(format!("{left}: {}", fault.message));
            Ok(Progress::done())
        }
        Outcome::Wait(wait) => {
            let attempt = cx.record().jobs.get("undo").map_or(0, |job| job.attempt);
            if attempt < 2 || rival(cx).await?.is_none() {
                return Ok(Progress::Wait(wait));
            }
            if let Some(wait) = work::give_up(cx, "undo").await? {
                return Ok(Progress::Wait(wait));
            }
            cx.remark(format!("{left}: {}", wait.why));
            Ok(Progress::done())
        }
    }
}

async fn run_drop(cx: &mut Cx<'_>, frozen: &Frozen, scratch: Named, key: &str) -> Result<Outcome, Fault> {
    let connect = frozen.target.access.connect.clone();
    let task = Task::PgDrop(PgDrop { connect, databases: vec![scratch] });
    work::run(cx, &Order { key, target: &frozen.target, task, store: None, data: false }).await
}
