//! The part that touches nothing live: removing what earlier restores left, the safety backup, the new data beside.

use serde::{Deserialize, Serialize};
use skep_runner::task::{DirLoad, DirRemove, ServerSettings};
use skep_runner::{Fault as JobFault, Report, Task};

use super::preflight::{Preflight, directory};
use crate::engines::{Directory, DirectoryEngine};
use crate::operation::backup::Place;
use crate::operation::catalogue::Entry;
use crate::operation::data::unexpected;
use crate::operation::frozen::{self, Frozen};
use crate::operation::restore::prepare::{database, done, failures, safety_backup};
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::stores::{self, Hand};
use crate::operation::work::{self, Access, Order, Outcome};

/// What was built beside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Beside {
    /// Index of the backup being tried.
    pub candidate: usize,
    /// Id of the backup used.
    pub backup: String,
    /// The directory beside the live files of each volume.
    pub side: String,
    /// Seconds that building it took.
    pub seconds: f64,
}

/// Removes what earlier restores left (S17).
pub(super) async fn expire(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let seen: Preflight = cx.out("preflight")?;
    match remove_sides(cx, &frozen, &seen.sides, "drop").await? {
        Removed::Wait(wait) => Ok(Progress::Wait(wait)),
        Removed::Done => done(cx, &serde_json::json!({ "removed": seen.sides })),
        Removed::Failed(why) => {
            Err(Fault::failed(format!("what an earlier restore kept cannot be removed: {why}")))
        }
    }
}

/// How removing sides went.
pub(in crate::operation) enum Removed {
    Done,
    Wait(Wait),
    Failed(String),
}

/// Removes sides (by volume) beside live files. The keys of its jobs begin with `key`.
pub(in crate::operation) async fn remove_sides(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    sides: &[Vec<String>],
    key: &str,
) -> Result<Removed, Fault> {
    for (nth, (volume, sides)) in directory(frozen)?.volumes.iter().zip(sides).enumerate() {
        if sides.is_empty() {
            continue;
        }
        let task = Task::DirRemove(DirRemove { root: volume.root.clone(), sides: sides.clone() });
        let key = format!("{key}v{nth}");
        let order = Order { key: &key, target: &frozen.target, task, store: None, data: false };
        match work::run(cx, &order).await? {
            Outcome::Wait(wait) => return Ok(Removed::Wait(wait)),
            Outcome::Done(_) => {}
            Outcome::Failed(fault) => return Ok(Removed::Failed(fault.message)),
        }
    }
    Ok(Removed::Done)
}

/// Backs the live data up. The old files themselves are kept, so a failure is only remarked (S10).
pub(super) async fn safety(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let seen: Preflight = cx.out("preflight")?;
    if !seen.answers {
        cx.remark(
            "the server does not answer, so there is no safety backup; the old files themselves are kept",
        );
        return Ok(Progress::done());
    }
    let place = Place::safety(cx, &frozen.target);
    match safety_backup(cx, &frozen.target, &place).await {
        Err(Fault::Failed(why)) => {
            cx.remark(format!("no safety backup ({why}); the old files themselves are kept"));
            Ok(Progress::done())
        }
        other => other,
    }
}

/// Builds the data of the best backup beside the live files and runs the checks there; where that fails, of the next
/// older one (S9).
pub(super) async fn beside(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let seen: Preflight = cx.out("preflight")?;
    let mut state: Beside = cx.scratch()?;
    let Some(id) = seen.usable.get(state.candidate) else {
        return Err(Fault::failed("no backup passes the checks once restored"));
    };
    let entry = frozen.candidates.iter().find(|e| e.id == *id);
    let entry = entry.ok_or_else(|| Fault::failed(format!("backup {id} is not in the plan")))?;
    let (side, key) = (side_name(cx, state.candidate), format!("l{}", state.candidate));
    let why = match load(cx, &frozen, seen.settings.clone(), entry, (&side, &key)).await? {
        Loaded::Wait(wait) => return Ok(Progress::Wait(wait)),
        Loaded::Built { seconds } => {
            let backup = entry.id.clone();
            return done(cx, &Beside { candidate: state.candidate, backup, side, seconds });
        }
        Loaded::Failed(why) => why,
        Loaded::Unusable(fault) => fault.message,
    };
    cx.remark(format!("backup {} was not used: {why}", entry.id));
    let sides = vec![vec![side_name(cx, state.candidate)]; directory(&frozen)?.volumes.len()];
    match remove_sides(cx, &frozen, &sides, &format!("d{}", state.candidate)).await? {
        Removed::Wait(wait) => return Ok(Progress::Wait(wait)),
        Removed::Done => {}
        Removed::Failed(why) => {
            cx.remark(format!("directory `.skep-{}` is left: {why}", side_name(cx, state.candidate)));
        }
    }
    state.candidate += 1;
    cx.keep(&state).await?;
    Ok(Progress::wait("trying the next older backup"))
}

/// How building the data of one backup went.
pub(in crate::operation) enum Loaded {
    /// Not yet.
    Wait(Wait),
    /// It is there, and passed the checks.
    Built {
        /// Seconds that it took.
        seconds: f64,
    },
    /// It could be built, and did not pass the checks.
    Failed(String),
    /// Why it cannot be built.
    Unusable(JobFault),
}

/// Builds the data of a backup in a side beside the live files and runs the checks there, by one job a volume of the
/// current step; their keys begin with `key`. Whatever has to happen to a backup before it can be loaded belongs here:
/// restores and drills both come this way.
///
/// # Errors
/// What the engine says.
pub(in crate::operation) async fn load(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    settings: Option<ServerSettings>,
    entry: &Entry,
    (side, key): (&str, &str),
) -> Result<Loaded, Fault> {
    let of = frozen.candidates.iter().position(|e| e.id == entry.id).unwrap_or_default();
    let target = match stores::at_hand(cx, frozen, entry, &format!("f{of}")).await? {
        Hand::Here(target) => target,
        Hand::Wait(wait) => return Ok(Loaded::Wait(wait)),
        Hand::Lost(fault) => return Ok(Loaded::Unusable(fault)),
    };
    let Directory { engine, volumes } = directory(frozen)?;
    let mut seconds = 0.0;
    for (nth, volume) in volumes.iter().enumerate() {
        let task = Task::DirLoad(DirLoad {
            engine: engine.runner(),
            stored: entry.stored(),
            file: (*engine == DirectoryEngine::Volume).then(|| format!("{}.tar", volume.name)),
            root: volume.root.clone(),
            side: side.to_owned(),
            settings: settings.clone(),
            checks: frozen.checks.clone(),
            database: database(&frozen.target.database),
        });
        let key = format!("{key}v{nth}");
        let order = Order { key: &key, target: &target, task, store: Some(Access::Read), data: false };
        match work::run(cx, &order).await? {
            Outcome::Wait(wait) => return Ok(Loaded::Wait(wait)),
            Outcome::Failed(fault) => return Ok(Loaded::Unusable(fault)),
            Outcome::Done(report) => match *report {
                Report::DirLoad(loaded) => {
                    if let Some(why) = failures(&loaded.checks) {
                        return Ok(Loaded::Failed(why));
                    }
                    seconds += loaded.seconds;
                }
                other => return Err(unexpected(&other)),
            },
        }
    }
    Ok(Loaded::Built { seconds })
}

/// Removes whatever this step has made; but not what users have written since it was live.
pub(super) async fn undo_beside(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    if cx.record().jobs.is_empty() {
        return Ok(Progress::done());
    }
    let frozen = frozen::load(cx).await?;
    let state: Beside = cx.scratch()?;
    let has_no_clients = frozen.clients.is_empty() && cx.op.part_of().is_none();
    let was_live = has_no_clients && cx.op.journal.step("serve").is_some();
    if was_live {
        cx.remark(format!(
            "what was restored, and what was written to it meanwhile, is left in `.skep-{}/new` beside the live data; \
             the next restore removes it",
            state.side
        ));
    }
    let tried = if was_live { state.candidate } else { state.candidate + 1 };
    let sides: Vec<String> = (0..tried).map(|candidate| side_name(cx, candidate)).collect();
    let sides = vec![sides; directory(&frozen)?.volumes.len()];
    match remove_sides(cx, &frozen, &sides, "u").await? {
        Removed::Wait(wait) => Ok(Progress::Wait(wait)),
        Removed::Done => Ok(Progress::done()),
        Removed::Failed(why) => {
            cx.remark(format!("a half-restored directory `.skep-{}` is left: {why}", side_name(cx, 0)));
            Ok(Progress::done())
        }
    }
}

fn side_name(cx: &Cx<'_>, candidate: usize) -> String {
    format!("{}-{candidate}", cx.op.id)
}
