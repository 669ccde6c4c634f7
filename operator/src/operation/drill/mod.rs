//! Drill: proves that a backup restores, without touching anything live.
//!
//! ```text
//! claim ↩ plan ↩ preflight · load ↩ check · drop · record · release
//!                              └ into a scratch that nobody else knows: a database on the same server ([`database`]),
//!                                or a directory on the same volumes, with a scratch server on it ([`directory`]),
//!                                or a server of the job's own ([`alone`])
//! ```
//! It loads by the very job that a restore loads by, so that what it proves, and the time that it measures, are a
//! restore's.
//!
//! Invariants: live data is only read; the scratch bears a name of its own, one for each service, and whatever happens it
//! is removed: by the drill, by its undo, by the next drill, or by the next restore. A drill gives way to every other
//! operation that has or wants its service, at each poll, and begins only where there is none. That a backup failed is
//! noted on it before the drill fails, and only where the backup is to blame. It is proved only where a check has looked at
//! what was loaded, and every check has passed; where there is no check, it is noted that it loads, and no more (S16).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use skep_runner::Fault as JobFault;
use skep_runner::line::FaultKind;
use skep_runner::task::{Named, ScratchServer};

use super::catalogue::{self, Entry, Shown};
use super::frozen::{self, Frozen};
use super::journal::Compensation;
use super::record::{Operation, STATE, State, Work};
use super::restore::directory::Removed;
use super::restore::preflight::{Against, Examined, Seen, Standing, examine, standing};
use super::restore::prepare::done;
use super::saga::{Cx, Fault, Progress, Saga, Wait};
use super::{claim, freeze, restore, work};
use crate::engines::{Commands, Data};
use crate::swarm::object::{Kind, short_hash};

mod alone;
mod database;
mod directory;

/// The saga.
pub struct Drill;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It holds the service, as long as nobody else wants it.
    Claim,
    /// Backup and checks are frozen.
    Plan,
    /// The backup is read in full; room, and whether it fits the server, are looked at.
    Preflight,
    /// The backup is loaded on the side.
    Load,
    /// The checks run there.
    Check,
    /// What was loaded is removed.
    Drop,
    /// The catalogue learns what was shown.
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
    /// The scratch database, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scratch: Option<Named>,
    /// Seconds that loading took.
    seconds: f64,
    /// How much of the backup was not loaded.
    #[serde(default)]
    left_out: usize,
}

/// What is said of a backup that no job could read.
const UNREAD: &str = "it cannot be read";

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
            return claim::give_way(cx, &other, "nothing is proved, and nothing was changed").await;
        }
        match step {
            Step::Claim => take(cx).await,
            Step::Plan => plan(cx).await,
            Step::Preflight => preflight(cx).await,
            Step::Load => load_scratch(cx).await,
            Step::Check => run_checks(cx).await,
            Step::Drop => drop_scratch(cx).await,
            Step::Record => record(cx).await,
            Step::Release => restore::release(cx).await,
        }
    }

    /// Nothing here stops anybody: the operation for which it gave way waits.
    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        let undone = match step {
            Step::Claim => claim::release(cx).await,
            Step::Plan => frozen::remove(cx).await.map(|()| Progress::done()),
            Step::Preflight => restore::undo_preflight(cx).await,
            Step::Check => abandon(cx).await,
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

/// The scratch database of a service. Always the same, so that no drill can leave one that no later one would find.
pub fn scratch_name(service: &str) -> String {
    format!("skep_drill_{}", short_hash(service))
}

/// As [`scratch_name`], of a directory: the side's name, which is `.skep-<side>` on each volume.
pub fn scratch_side(service: &str) -> String {
    format!("drill-{}", short_hash(service))
}

/// Why what only commands load has no drill.
pub const NO_DRILL: &str =
    "what only commands load has no drill: they load into the live service, and nothing else";

/// What is to be said where [`Shown::Loads`] is all that a drill can show.
pub const NO_CHECK: &str = "no SQL check is defined (skep.check.<name>.sql): a drill shows that the backup loads, and does not prove that its data is right";

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
                | Work::Sleep { .. }
                | Work::Wake
                | Work::Restart { .. }
                | Work::Update { .. }
                | Work::Rollback { .. } => true,
                // These hold no service.
                Work::Verify { .. } | Work::Import { .. } | Work::Report => false,
            };
            if other.id != cx.op.id && is_earlier && claim::concerns(&other, service) {
                return Ok(Some(other));
            }
        }
    }
    Ok(None)
}

/// Takes the service, once nobody else has or wants it.
async fn take(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(other) = rival(cx).await? {
        let wait = Wait::new(format!("waits for {}", claim::named(&other)));
        return Ok(Progress::Wait(Wait { again: Duration::from_secs(1), ..wait }));
    }
    let service = cx.op.intent.service.clone();
    claim::take(cx, &[service]).await
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let Work::Drill { backup } = cx.op.intent.work.clone() else {
        return Err(Fault::failed("this is not a drill"));
    };
    let frozen = freeze::drill(cx, backup.as_deref()).await?;
    if let Data::Command(data) = &frozen.target.data {
        server(data)?;
    }
    if Shown::of_drill(&frozen.target.data, frozen.checks.len()) == Shown::Loads {
        cx.remark(NO_CHECK);
    }
    for remark in frozen.remarks.clone() {
        cx.remark(remark);
    }
    frozen::store(cx, &frozen).await?;
    Ok(Progress::Done(json!({ "backup": frozen.candidates.first().map(|e| e.id.clone()) })))
}

/// The server into which what a running service alone tells is loaded.
fn server(data: &Commands) -> Result<ScratchServer, Fault> {
    data.by.scratch().ok_or_else(|| Fault::failed(NO_DRILL))
}

/// The backup of the plan.
fn chosen(frozen: &Frozen) -> Result<&Entry, Fault> {
    frozen.candidates.first().ok_or_else(|| Fault::failed("there is no backup in the plan"))
}

async fn preflight(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let entry = chosen(&frozen)?;
    match frozen.target.data {
        Data::Postgres | Data::None => database::preflight(cx, &frozen, entry).await,
        Data::Directory(_) => directory::preflight(cx, &frozen, entry).await,
        Data::Command(_) => alone::preflight(cx, &frozen, entry).await,
    }
}

/// Reads the backup in full, unless what a look at it has found stands against that.
async fn read_in_full(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    entry: &Entry,
    seen: &Seen,
) -> Result<Examined, Fault> {
    match standing(cx, frozen, entry, seen, 0).await? {
        Standing::Wait(wait) => return Ok(Examined::Wait(wait)),
        Standing::Unread(fault) => return Err(failed(cx, entry, UNREAD, &fault).await?),
        Standing::Seen(Against { itself, .. }) if !itself.is_empty() => {
            return Err(disproved(cx, entry, &itself.join("; ")).await?);
        }
        Standing::Seen(Against { here, .. }) if !here.is_empty() => {
            return Err(unproved(entry, &here.join("; ")));
        }
        Standing::Seen(_) => {}
    }
    match examine(cx, frozen, entry, 0).await? {
        Examined::Unusable(fault) => Err(failed(cx, entry, UNREAD, &fault).await?),
        other => Ok(other),
    }
}

async fn load_scratch(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let entry = chosen(&frozen)?;
    match &frozen.target.data {
        Data::Postgres | Data::None => database::load(cx, &frozen, entry).await,
        Data::Directory(_) => directory::load(cx, &frozen, entry).await,
        Data::Command(data) => alone::load(cx, &frozen, entry, server(data)?).await,
    }
}

async fn run_checks(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    match frozen.target.data {
        Data::Postgres | Data::None => database::check(cx, &frozen, chosen(&frozen)?).await,
        // The scratch server was there while its data was built, and no longer.
        Data::Directory(_) | Data::Command(_) => Ok(Progress::Done(json!({ "checks": frozen.checks.len() }))),
    }
}

async fn drop_scratch(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let dropped = match frozen.target.data {
        Data::Postgres | Data::None => {
            let loaded: Loaded = cx.out("load")?;
            let scratch = loaded.scratch.unwrap_or_else(|| database::scratch(&frozen));
            database::drop(cx, &frozen, scratch, "drop").await?
        }
        Data::Directory(_) => directory::drop(cx, &frozen, "drop").await?,
        // It went with its job.
        Data::Command(_) => Removed::Done,
    };
    match dropped {
        Removed::Wait(wait) => Ok(Progress::Wait(wait)),
        Removed::Done => Ok(Progress::done()),
        Removed::Failed(why) => Err(Fault::failed(format!("what was loaded cannot be removed: {why}"))),
    }
}

async fn record(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let loaded: Loaded = cx.out("load")?;
    let shown = match loaded.left_out {
        0 => Shown::of_drill(&frozen.target.data, frozen.checks.len()),
        _ => Shown::Loads,
    };
    catalogue::note_shown(cx, &loaded.backup, shown, Some(loaded.seconds)).await?;
    Ok(Progress::Done(json!({ "backup": loaded.backup, "seconds": loaded.seconds, "shown": shown })))
}

fn loaded(cx: &Cx<'_>, entry: &Entry, scratch: Option<Named>, seconds: f64) -> Result<Progress, Fault> {
    done(cx, &Loaded { backup: entry.id.clone(), scratch, seconds, left_out: 0 })
}

/// What ended a job: noted on the backup only where that is to blame.
async fn failed(cx: &mut Cx<'_>, entry: &Entry, what: &str, fault: &JobFault) -> Result<Fault, Fault> {
    let why = format!("{what}: {}", fault.message);
    match fault.kind {
        FaultKind::Final => disproved(cx, entry, &why).await,
        FaultKind::Transient | FaultKind::Circumstance => Ok(unproved(entry, &why)),
    }
}

/// The fault that ends the drill and says nothing about the backup.
fn unproved(entry: &Entry, why: &str) -> Fault {
    Fault::failed(format!("backup {} was not proved: {why}", entry.id))
}

/// Notes on a backup that it does not restore; the fault that ends the drill.
async fn disproved(cx: &mut Cx<'_>, entry: &Entry, why: &str) -> Result<Fault, Fault> {
    catalogue::note_drill_failed(cx, &entry.id, why).await?;
    Ok(Fault::failed(format!("backup {} failed the drill: {why}", entry.id)))
}

async fn abandon(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait))
}

/// Removes the scratch if there is one. Tried for as long as it may help, but not while others wait: the next drill or
/// restore removes it as well.
async fn drop_whatever_is_there(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    if cx.record().jobs.is_empty() {
        return Ok(Progress::done());
    }
    let frozen = frozen::load(cx).await?;
    let (dropped, name) = match frozen.target.data {
        Data::Postgres | Data::None => {
            let scratch = database::scratch(&frozen);
            let name = format!("database `{}`", scratch.name);
            (database::drop(cx, &frozen, scratch, "undo").await?, name)
        }
        Data::Directory(_) => {
            let name = format!("directory `.skep-{}`", scratch_side(&frozen.target.name));
            (directory::drop(cx, &frozen, "u").await?, name)
        }
        Data::Command(_) => return Ok(Progress::done()),
    };
    let why = match dropped {
        Removed::Done => return Ok(Progress::done()),
        Removed::Failed(why) => why,
        Removed::Wait(wait) => {
            let undoing: Vec<String> =
                cx.record().jobs.keys().filter(|key| work::is_undo(key)).cloned().collect();
            let attempts = undoing.iter().filter_map(|key| Some(cx.record().jobs.get(key)?.attempt)).max();
            if attempts.unwrap_or(0) < 2 || rival(cx).await?.is_none() {
                return Ok(Progress::Wait(wait));
            }
            for key in undoing {
                if let Some(wait) = work::give_up(cx, &key).await? {
                    return Ok(Progress::Wait(wait));
                }
            }
            wait.why
        }
    };
    cx.remark(format!("the scratch {name} is left for the next drill or restore to remove: {why}"));
    Ok(Progress::done())
}
