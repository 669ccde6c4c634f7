//! Drill of data that is a directory: `.skep-<side>` beside the live files, where a restore would build as well.
//!
//! The side is one of those that a restore finds in its preflight and removes before it builds its own, so nothing has to
//! be remembered of a drill that could not remove it.

use serde_json::json;
use skep_runner::task::SideFound;

use super::{disproved, failed, loaded, read_in_full, scratch_side};
use crate::operation::catalogue::Entry;
use crate::operation::frozen::Frozen;
use crate::operation::restore::directory::{self, Loaded, Looked, Removed, directory};
use crate::operation::restore::preflight::Examined;
use crate::operation::restore::prepare::done;
use crate::operation::saga::{Cx, Fault, Progress};

/// Looks at volumes, server and backup, and reads that in full; changes nothing.
pub(super) async fn preflight(cx: &mut Cx<'_>, frozen: &Frozen, entry: &Entry) -> Result<Progress, Fault> {
    let looks = match directory::look_at_all(cx, frozen).await? {
        Looked::Wait(wait) => return Ok(Progress::Wait(wait)),
        Looked::Seen(looks) => looks,
    };
    let manifest = match read_in_full(cx, frozen, entry, &looks.backups()).await? {
        Examined::Wait(wait) => return Ok(Progress::Wait(wait)),
        Examined::Unusable(fault) => return Err(Fault::failed(fault.message)),
        Examined::Whole(manifest) => manifest,
    };
    let seen = looks.seen;
    let own = scratch_side(&frozen.target.name);
    let goes = |side: &SideFound| side.side == own;
    let mut refuse = directory::against(directory(frozen)?, &seen, &manifest, goes);
    refuse.extend(directory::of_another_node(frozen, &manifest));
    match refuse.is_empty() {
        true => done(cx, &json!({ "settings": seen.first().and_then(|first| first.settings.clone()) })),
        false => Err(Fault::failed(refuse.join("; "))),
    }
}

/// Builds the data beside the live files and runs the checks there.
pub(super) async fn load(cx: &mut Cx<'_>, frozen: &Frozen, entry: &Entry) -> Result<Progress, Fault> {
    let seen: serde_json::Value = cx.out("preflight")?;
    let settings = serde_json::from_value(seen["settings"].clone());
    let settings = settings.map_err(|source| Fault::Journal { step: "preflight".to_owned(), source })?;
    let side = scratch_side(&frozen.target.name);
    match directory::load(cx, frozen, settings, entry, (&side, "load")).await? {
        Loaded::Wait(wait) => Ok(Progress::Wait(wait)),
        Loaded::Built { seconds } => loaded(cx, entry, None, seconds),
        Loaded::Failed(why) => Err(disproved(cx, entry, &why).await?),
        Loaded::Unusable(fault) => Err(failed(cx, entry, "it does not load", &fault).await?),
    }
}

/// Removes what was built. The keys of its jobs begin with `key`.
pub(super) async fn drop(cx: &mut Cx<'_>, frozen: &Frozen, key: &str) -> Result<Removed, Fault> {
    let volumes = directory(frozen)?.volumes.len();
    let sides = vec![vec![scratch_side(&frozen.target.name)]; volumes];
    directory::remove_sides(cx, frozen, &sides, key).await
}
