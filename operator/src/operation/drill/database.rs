//! Drill of a database: a scratch database on the live server.

use serde_json::json;
use skep_runner::Task;
use skep_runner::task::{Named, PgDrop};

use super::{disproved, failed, loaded, read_in_full, scratch_name};
use crate::operation::catalogue::Entry;
use crate::operation::frozen::Frozen;
use crate::operation::restore::directory::Removed;
use crate::operation::restore::judge;
use crate::operation::restore::preflight::{Examined, Looked, inspect};
use crate::operation::restore::prepare::{self, Checked, Restored};
use crate::operation::saga::{Cx, Fault, Progress};
use crate::operation::work::{self, Order, Outcome};

/// Looks at the server and reads the backup in full; changes nothing.
pub(super) async fn preflight(cx: &mut Cx<'_>, frozen: &Frozen, entry: &Entry) -> Result<Progress, Fault> {
    let (mut seen, backups) = match inspect(cx, frozen).await? {
        Looked::Wait(progress) => return Ok(progress),
        Looked::Seen { inspection, seen } => (inspection, seen),
    };
    // What an earlier drill left goes before anything is loaded.
    let scratch = scratch_name(&frozen.target.name);
    judge::reckon_with(&mut seen, |kept| kept.database.name == scratch);
    let recorded = match read_in_full(cx, frozen, entry, &backups).await? {
        Examined::Wait(wait) => return Ok(Progress::Wait(wait)),
        Examined::Unusable(fault) => return Err(Fault::failed(fault.message)),
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

/// Loads the backup into the scratch database.
pub(super) async fn load(cx: &mut Cx<'_>, frozen: &Frozen, entry: &Entry) -> Result<Progress, Fault> {
    match prepare::load(cx, frozen, entry, &scratch_name(&frozen.target.name), "load").await? {
        Restored::Wait(wait) => Ok(Progress::Wait(wait)),
        Restored::Unusable(fault) => Err(failed(cx, entry, "it does not load", &fault).await?),
        Restored::Built { live: _, side, seconds } => loaded(cx, entry, Some(side), seconds),
    }
}

/// Runs the checks there.
pub(super) async fn check(cx: &mut Cx<'_>, frozen: &Frozen, entry: &Entry) -> Result<Progress, Fault> {
    match prepare::check(cx, frozen, &scratch_name(&frozen.target.name), "check").await? {
        Checked::Wait(progress) => Ok(progress),
        Checked::Passed => Ok(Progress::Done(json!({ "checks": frozen.checks.len() }))),
        Checked::Failed(why) => Err(disproved(cx, entry, &why).await?),
        Checked::Unable(fault) => Err(failed(cx, entry, "its checks cannot be run", &fault).await?),
    }
}

/// The scratch database, whichever one bears its name.
pub(super) fn scratch(frozen: &Frozen) -> Named {
    Named { name: scratch_name(&frozen.target.name), oid: 0 }
}

/// Drops a scratch database.
pub(super) async fn drop(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    scratch: Named,
    key: &str,
) -> Result<Removed, Fault> {
    let connect = frozen.target.access.connect.clone();
    let task = Task::PgDrop(PgDrop { connect, databases: vec![scratch] });
    let order = Order { key, target: &frozen.target, task, store: None, data: false };
    Ok(match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Removed::Wait(wait),
        Outcome::Done(_) => Removed::Done,
        Outcome::Failed(fault) => Removed::Failed(fault.message),
    })
}
