//! The part that users notice: the data service stops, files change places, it starts on the new ones.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_runner::task::{DirMove, Direction, Expect, SqlCheck};
use skep_runner::{Fault as JobFault, Report, Task};

use super::load::Beside;
use super::preflight::directory;
use crate::engines::{Directory, DirectoryEngine};
use crate::operation::clients::{self, Start};
use crate::operation::data::unexpected;
use crate::operation::frozen::{self, Client, Frozen, HaltedBy, Kept, KeptForm};
use crate::operation::restore::cut::{flush, hold, soon};
use crate::operation::restore::part;
use crate::operation::restore::prepare::{Checked, check_all, done};
use crate::operation::restore::trial::over_network;
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::work::{self, Order, Outcome};
use crate::operation::{canary, checks};
use crate::swarm::object::Service;

/// What the move journals before it acts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Moving {
    /// The data service, as it was when the move began.
    there: Option<Still>,
    /// As it was when the move back began.
    back: Option<Still>,
    /// Entries renamed.
    renamed: u64,
    /// Milliseconds that the renames took.
    ms: u64,
}

/// A service that has stopped: any write to it makes another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Still {
    id: String,
    version: u64,
}

/// What the start of the data service journals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Serving {
    /// How often the server was asked in vain.
    asked: u32,
    /// When it was asked in vain first: before that it was starting, which has its own deadline.
    since: Option<Timestamp>,
}

fn holder(frozen: &Frozen) -> Result<&Client, Fault> {
    frozen.holder.as_ref().ok_or_else(|| Fault::failed("the plan does not say how the data service stops"))
}

/// Stops the data service: every task of it has ended.
pub(super) async fn halt(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(wait);
    }
    let name = &holder(&frozen)?.name;
    if frozen.halted_by == HaltedBy::Whole {
        let left = part::rests(cx, holder(&frozen)?).await?;
        return Ok(left.map_or_else(Progress::done, |wait| Progress::Wait(soon(wait))));
    }
    let Some(wait) = clients::stop(cx, std::slice::from_ref(holder(&frozen)?)).await? else {
        return Ok(Progress::done());
    };
    let since = cx.record().began;
    if cx.since(since) > cx.env.settings.stop_deadline {
        return Err(Fault::failed(format!("{name} does not stop: {}", wait.why)));
    }
    Ok(Progress::Wait(soon(wait)))
}

/// Starts the data service on the spec that it had, or that somebody deployed meanwhile.
pub(super) async fn undo_halt(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    if frozen.halted_by == HaltedBy::Whole {
        return Ok(Progress::done());
    }
    let left = clients::start(cx, std::slice::from_ref(holder(&frozen)?), Start::BestEffort).await?;
    Ok(left.map_or_else(Progress::done, |wait| Progress::Wait(soon(wait))))
}

/// Moves the live files away and the new ones in their place. Nothing fences files: whoever wrote to the data service
/// while they were moved may have started it on half of them, so then the move fails and is taken back (S12).
pub(super) async fn exchange(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let beside: Beside = cx.out("beside")?;
    let mut moving: Moving = cx.scratch()?;
    let still = match moving.there.clone() {
        Some(still) => still,
        None => match stilled(cx, &frozen).await? {
            Stilled::Wait(progress) => return Ok(progress),
            Stilled::Yes(still) => {
                moving.there = Some(still.clone());
                cx.keep(&moving).await?;
                still
            }
        },
    };
    is_still(cx, &frozen, &still).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(wait);
    }
    let beforehand = flush(cx, &frozen).await?;
    match rename_all(cx, &frozen, &beside.side, Direction::Forward, "move").await? {
        Renamed::Wait(wait) => return Ok(Progress::Wait(soon(wait))),
        Renamed::Failed(why) => {
            return Err(Fault::failed(format!("the files could not be exchanged: {why}")));
        }
        Renamed::Done { renamed, ms } => (moving.renamed, moving.ms) = (renamed, ms),
    }
    is_still(cx, &frozen, &still).await?;
    match beforehand {
        Some(wait) => Ok(Progress::Wait(wait)),
        None => done(cx, &moving),
    }
}

/// Moves everything back. Where nothing was moved, the runner finds it so.
pub(super) async fn undo_exchange(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    if !cx.record().jobs.keys().any(|key| key.starts_with("move")) {
        return Ok(Progress::done());
    }
    let frozen = frozen::load(cx).await?;
    let beside: Beside = cx.out("beside")?;
    let mut moving: Moving = cx.scratch()?;
    let still = match moving.back.clone() {
        Some(still) => still,
        None => match stilled(cx, &frozen).await? {
            Stilled::Wait(progress) => return Ok(progress),
            Stilled::Yes(still) => {
                moving.back = Some(still.clone());
                cx.keep(&moving).await?;
                still
            }
        },
    };
    is_still(cx, &frozen, &still).await?;
    match rename_all(cx, &frozen, &beside.side, Direction::Back, "u").await? {
        Renamed::Wait(wait) => return Ok(Progress::Wait(soon(wait))),
        Renamed::Failed(why) => {
            return Err(Fault::failed(format!("the files could not be moved back: {why}")));
        }
        Renamed::Done { .. } => {}
    }
    if let Err(fault) = is_still(cx, &frozen, &still).await {
        // Whoever tries again stops it anew.
        moving.back = None;
        cx.keep(&moving).await?;
        return Err(fault);
    }
    Ok(Progress::done())
}

enum Stilled {
    Wait(Progress),
    Yes(Still),
}

/// The data service, once it has stopped and nothing of a rollout will write to it any more.
async fn stilled(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Stilled, Fault> {
    let holder = holder(frozen)?;
    let left = match frozen.halted_by {
        HaltedBy::Itself => clients::keep_stopped(cx, std::slice::from_ref(holder)).await?,
        // It stops whoever comes back, and gives up when that takes too long.
        HaltedBy::Whole => part::rests(cx, holder).await?,
    };
    if let Some(wait) = left {
        return Ok(Stilled::Wait(Progress::Wait(soon(wait))));
    }
    let service = found(cx, holder).await?;
    if service.is_rolling() {
        let why = format!("{}: a rollout has not come to rest", holder.name);
        return Ok(Stilled::Wait(Progress::Wait(Wait::new(why))));
    }
    Ok(Stilled::Yes(Still { id: service.id, version: service.version }))
}

async fn is_still(cx: &mut Cx<'_>, frozen: &Frozen, still: &Still) -> Result<(), Fault> {
    let holder = holder(frozen)?;
    let service = found(cx, holder).await?;
    if (&service.id, service.version) == (&still.id, still.version) {
        return Ok(());
    }
    Err(Fault::failed(format!(
        "somebody changed {} while its files were being moved; it may have started on half of them",
        holder.name
    )))
}

async fn found(cx: &mut Cx<'_>, holder: &Client) -> Result<Service, Fault> {
    let found = clients::find(cx, holder).await?;
    found.ok_or_else(|| Fault::failed(format!("{} was removed meanwhile", holder.name)))
}

enum Renamed {
    Wait(Wait),
    Done { renamed: u64, ms: u64 },
    Failed(String),
}

async fn rename_all(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    side: &str,
    direction: Direction,
    key: &str,
) -> Result<Renamed, Fault> {
    let (mut renamed, mut ms) = (0, 0);
    for (nth, volume) in directory(frozen)?.volumes.iter().enumerate() {
        let task = Task::DirMove(DirMove { root: volume.root.clone(), side: side.to_owned(), direction });
        let key = format!("{key}{nth}");
        let order = Order { key: &key, target: &frozen.target, task, store: None, data: false };
        match work::run(cx, &order).await? {
            Outcome::Wait(wait) => return Ok(Renamed::Wait(wait)),
            Outcome::Failed(fault) => return Ok(Renamed::Failed(fault.message)),
            Outcome::Done(report) => match *report {
                Report::DirMove(moved) => (renamed, ms) = (renamed + moved.renamed, ms + moved.ms),
                other => return Err(unexpected(&other)),
            },
        }
    }
    Ok(Renamed::Done { renamed, ms })
}

/// Starts the data service, which must come up on the node of its files and pass its checks.
pub(super) async fn serve(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    if let Some(wait) = hold(cx, &frozen).await? {
        return Ok(wait);
    }
    let holder = holder(&frozen)?;
    has_its_volumes(cx, &frozen, holder).await?;
    if frozen.halted_by == HaltedBy::Whole {
        return Ok(Progress::done());
    }
    if let Some(wait) = clients::start(cx, std::slice::from_ref(holder), Start::MustBeHealthy).await? {
        return Ok(Progress::Wait(soon(wait)));
    }
    let service = found(cx, holder).await?;
    is_where_its_files_are(cx, &frozen, &service).await?;
    if let Some(progress) = answers(cx, &frozen).await? {
        return Ok(progress);
    }
    let net = canary::checks_of(holder);
    if !net.is_empty()
        && let Some(progress) = over_network(cx, holder, &service.spec, net, "net").await?
    {
        return Ok(progress);
    }
    let checked = checks::commands_of(cx, holder, &service, "cmd").await?;
    Ok(checked.unwrap_or_else(Progress::done))
}

/// Asks the server until it answers and its checks pass, or the time for that is over: it may still be starting.
async fn answers(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Option<Progress>, Fault> {
    let sql = match directory(frozen)?.engine {
        DirectoryEngine::Volume => return Ok(None),
        DirectoryEngine::Redis => "DBSIZE",
        DirectoryEngine::Mysql | DirectoryEngine::Mariadb => "SELECT 1",
    };
    let mut checks = vec![SqlCheck { name: "answers".to_owned(), sql: sql.to_owned(), expect: Expect::Any }];
    checks.extend(frozen.checks.clone());
    let mut serving: Serving = cx.scratch()?;
    let key = format!("ask{}", serving.asked);
    match check_all(cx, &frozen.target, &frozen.target.database, checks, Duration::ZERO, &key).await? {
        Checked::Wait(progress) => Ok(Some(progress)),
        Checked::Passed => Ok(None),
        // A server that still starts cannot be asked.
        Checked::Failed(why) | Checked::Unable(JobFault { message: why, .. }) => {
            let since = *serving.since.get_or_insert(cx.now());
            if cx.since(since) > cx.env.settings.check_deadline {
                return Err(Fault::failed(format!("{}: {why}", frozen.target.name)));
            }
            serving.asked += 1;
            cx.keep(&serving).await?;
            Ok(Some(Progress::Wait(soon(Wait::new(why)))))
        }
    }
}

/// What was moved lies in the volumes of the plan. A deploy in the middle may have given the service others.
async fn has_its_volumes(cx: &mut Cx<'_>, frozen: &Frozen, holder: &Client) -> Result<(), Fault> {
    let base = match frozen.halted_by {
        HaltedBy::Itself => clients::load_base(cx, holder).await?,
        HaltedBy::Whole => part::base(cx, holder).await?,
    };
    let Some(base) = base else { return Ok(()) };
    let mounts = base.spec["TaskTemplate"]["ContainerSpec"]["Mounts"].as_array().cloned().unwrap_or_default();
    let is_same = |mount: &Value, other: &Value| {
        ["Type", "Source", "Target"].iter().all(|key| mount[*key] == other[*key])
    };
    let gone = directory(frozen)?.volumes.iter().find(|v| !mounts.iter().any(|m| is_same(m, &v.mount)));
    match gone {
        None => Ok(()),
        Some(volume) => Err(Fault::failed(format!(
            "what was deployed meanwhile does not mount volume `{}` where it was: the restored data is in it",
            volume.name
        ))),
    }
}

/// A volume of the node's own is empty on any other node.
async fn is_where_its_files_are(cx: &mut Cx<'_>, frozen: &Frozen, service: &Service) -> Result<(), Fault> {
    if !directory(frozen)?.volumes.iter().any(crate::engines::Volume::is_local) {
        return Ok(());
    }
    clients::runs_only_on(cx, service, frozen.target.node.as_ref()).await
}

/// Stops the data service again.
pub(super) async fn undo_serve(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    let frozen = frozen::load(cx).await?;
    if frozen.halted_by == HaltedBy::Whole {
        return Ok(Progress::done());
    }
    let left = clients::keep_stopped(cx, std::slice::from_ref(holder(&frozen)?)).await?;
    Ok(left.map_or_else(Progress::done, |wait| Progress::Wait(soon(wait))))
}

/// Records what is kept, and says how to go back by hand.
pub(super) async fn keep(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let beside: Beside = cx.out("beside")?;
    let moved = cx.op.journal.step("move").map_or(cx.now(), |r| r.changed);
    let until = moved + Duration::from_secs(frozen.keep_old_s);
    let kept = Kept { operation: cx.op.id.clone(), form: KeptForm::Side, name: beside.side, oid: 0, until };
    cx.remark(format!("the old data is kept as {} until {until}", kept.what()));
    cx.remark(by_hand(&frozen, directory(&frozen)?, &kept.name));
    done(cx, &kept)
}

/// How to go back by hand.
fn by_hand(frozen: &Frozen, directory: &Directory, side: &str) -> String {
    let volumes = directory.volumes.iter().filter_map(|v| v.mount["Source"].as_str());
    let live = match directory.engine {
        DirectoryEngine::Redis => "what bears the names in old/",
        _ => "everything but .skep-* and lost+found",
    };
    format!(
        "to go back by hand: stop the clients and {0} (docker service scale {0}=0); on its node, in volume {1}: move {live} \
         into .skep-{side}/new/, then all of .skep-{side}/old/ into its place; start {0} and then the clients",
        frozen.target.name,
        volumes.collect::<Vec<_>>().join(", ")
    )
}
