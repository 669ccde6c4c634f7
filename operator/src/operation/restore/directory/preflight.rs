//! Preflight: looks at the backups, at the volumes and at the server, and judges whether the restore may go on; changes
//! nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skep_runner::manifest::Manifest;
use skep_runner::task::{DirInspect, DirInspection, ServerSettings, SideFound, SideState};
use skep_runner::{Report, Task};

use crate::engines::{Directory, Volume, rabbitmq};
use crate::operation::data::unexpected;
use crate::operation::frozen::{self, Frozen};
use crate::operation::restore::preflight::{Candidates, Seen, usable};
use crate::operation::restore::prepare::done;
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::stores;
use crate::operation::whereabouts::Shelf;
use crate::operation::work::{self, Access, Order, Outcome};
use crate::swarm::object::TaskState;

/// What preflight found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Preflight {
    /// Ids of the backups that may be used, best first; the first was read in full.
    pub usable: Vec<String>,
    /// Whether the server answered; true where there is none.
    pub answers: bool,
    /// The live server's settings, where it answered.
    pub settings: Option<ServerSettings>,
    /// What earlier restores left, by volume.
    pub sides: Vec<Vec<String>>,
}

/// The directory that the operation restores.
pub(in crate::operation) fn directory(frozen: &Frozen) -> Result<&Directory, Fault> {
    frozen.target.data.directory().ok_or_else(|| Fault::failed("the data in the plan is no directory"))
}

/// Looks and judges.
pub(super) async fn preflight(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let looks = match look_at_all(cx, &frozen).await? {
        Looked::Wait(wait) => return Ok(Progress::Wait(wait)),
        Looked::Seen(looks) => looks,
    };
    let (ids, manifest) = match usable(cx, &frozen, &looks.backups()).await? {
        Candidates::Wait(progress) => return Ok(progress),
        Candidates::Usable { ids, first, roles: _ } => (ids, first),
    };
    let seen = looks.seen;
    let first = seen.first().cloned().unwrap_or_default();
    // What earlier restores and drills left goes first.
    let mut refuse = against(directory(&frozen)?, &seen, &manifest, |_| true);
    refuse.extend(of_another_node(&frozen, &manifest));
    if !refuse.is_empty() {
        return Err(Fault::failed(refuse.join("; ")));
    }
    let answers = frozen.target.server().is_none() || first.settings.is_some();
    if !answers {
        cx.remark(format!(
            "the server of {} does not answer; what is built follows the settings that it had at the time of the backup",
            frozen.target.name
        ));
    }
    let names = |seen: &DirInspection| seen.sides.iter().map(|s| s.side.clone()).collect();
    let out =
        Preflight { usable: ids, answers, settings: first.settings, sides: seen.iter().map(names).collect() };
    done(cx, &out)
}

/// What a look at the volumes came to.
pub(in crate::operation) enum Looked {
    /// Not yet.
    Wait(Wait),
    /// This.
    Seen(Looks),
}

/// What was seen.
#[derive(Default)]
pub(in crate::operation) struct Looks {
    /// Each volume; with the first, what was found against the backups that could be looked at.
    pub(in crate::operation) seen: Vec<DirInspection>,
    /// Why the others could not be, by id.
    pub(in crate::operation) unread: BTreeMap<String, String>,
}

/// Looks at each volume; with the first one at the server and at the backups of the plan. Changes nothing.
///
/// # Errors
/// When a volume cannot be looked at, or what the engine says.
pub(in crate::operation) async fn look_at_all(cx: &mut Cx<'_>, frozen: &Frozen) -> Result<Looked, Fault> {
    let (shelves, unread) = stores::shelves(cx, frozen).await?;
    let mut looks = Looks { unread, ..Looks::default() };
    for (nth, volume) in directory(frozen)?.volumes.iter().enumerate() {
        let shelves = if nth == 0 { shelves.as_slice() } else { &[] };
        if let Some(wait) = looks.at(cx, frozen, nth, volume, shelves).await? {
            return Ok(Looked::Wait(wait));
        }
    }
    Ok(Looked::Seen(looks))
}

/// Looks at a fetched backup, the `nth` of the plan, as [`look_at_all`] does at those that need no fetching.
///
/// # Errors
/// What the engine says.
pub(in crate::operation::restore) async fn look_fetched(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    shelf: &Shelf<'_>,
    nth: usize,
) -> Result<Look, Fault> {
    let volume = directory(frozen)?.volumes.first();
    let volume = volume.ok_or_else(|| Fault::failed("the data in the plan has no volume"))?;
    look(cx, frozen, &format!("f{nth}"), 0, volume, Some(shelf)).await
}

/// How far a look is.
pub(in crate::operation::restore) enum Look {
    /// Not yet.
    Wait(Wait),
    /// This.
    Seen(Box<DirInspection>),
    /// Why it failed.
    Failed(String),
}

// === impl Looks ===

impl Looks {
    /// What was found of the backups.
    pub(in crate::operation) fn backups(&self) -> Seen {
        let (itself, lacking) =
            self.seen.first().map_or_else(Default::default, |s| (s.backups.clone(), s.lacking.clone()));
        Seen { itself, lacking, unread: self.unread.clone(), ..Seen::default() }
    }

    /// Looks at one volume and at the backups of these stores, by a job for each store. What is waited for, if anything.
    async fn at(
        &mut self,
        cx: &mut Cx<'_>,
        frozen: &Frozen,
        nth: usize,
        volume: &Volume,
        shelves: &[Shelf<'_>],
    ) -> Result<Option<Wait>, Fault> {
        let mut seen: Option<DirInspection> = None;
        for (of, shelf) in shelves.iter().enumerate() {
            let suffix = if of == 0 { nth.to_string() } else { format!("{nth}s{of}") };
            match look(cx, frozen, &suffix, nth, volume, Some(shelf)).await? {
                Look::Wait(wait) => return Ok(Some(wait)),
                Look::Seen(found) => match &mut seen {
                    None => seen = Some(*found),
                    Some(seen) => {
                        seen.backups.extend(found.backups);
                        seen.lacking.extend(found.lacking);
                    }
                },
                Look::Failed(why) => {
                    let why = format!("it cannot be looked at in the store `{}`: {why}", shelf.target.store);
                    self.unread.extend(shelf.entries.iter().map(|e| (e.id.clone(), why.clone())));
                }
            }
        }
        let bare = if shelves.is_empty() { nth.to_string() } else { format!("{nth}b") };
        let seen = match seen {
            Some(seen) => seen,
            None => match look(cx, frozen, &bare, nth, volume, None).await? {
                Look::Wait(wait) => return Ok(Some(wait)),
                Look::Seen(found) => *found,
                Look::Failed(why) => {
                    let name = &frozen.target.name;
                    return Err(Fault::failed(format!("the data of {name} cannot be looked at: {why}")));
                }
            },
        };
        self.seen.push(seen);
        Ok(None)
    }
}

/// Looks at one volume; with the first one at the server and at backups. A server that does not answer is left out: it may
/// be what is to be mended.
async fn look(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    suffix: &str,
    nth: usize,
    volume: &Volume,
    shelf: Option<&Shelf<'_>>,
) -> Result<Look, Fault> {
    let (asking, blind) = (format!("look{suffix}"), format!("blind{suffix}"));
    let asks = nth == 0 && frozen.target.server().is_some();
    if asks && !cx.record().jobs.contains_key(&blind) && runs(cx, frozen).await? {
        match look_with(cx, frozen, &asking, volume, shelf, true).await? {
            Look::Failed(why) => {
                cx.remark(format!("the server of {} was asked in vain: {why}", frozen.target.name));
            }
            looked => return Ok(looked),
        }
    }
    look_with(cx, frozen, &blind, volume, shelf, false).await
}

async fn look_with(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    key: &str,
    volume: &Volume,
    shelf: Option<&Shelf<'_>>,
    ask: bool,
) -> Result<Look, Fault> {
    let task = Task::DirInspect(DirInspect {
        engine: directory(frozen)?.engine.runner(),
        connect: frozen.target.server().filter(|_| ask),
        root: volume.root.clone(),
        backups: shelf.into_iter().flat_map(|s| s.entries.iter().map(|e| e.stored())).collect(),
    });
    let target = shelf.map_or(&frozen.target, |s| &s.target);
    let order = Order { key, target, task, store: shelf.map(|_| Access::Read), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Look::Wait(wait)),
        Outcome::Failed(fault) => Ok(Look::Failed(fault.message)),
        Outcome::Done(report) => match *report {
            Report::DirInspect(inspection) => Ok(Look::Seen(inspection)),
            other => Err(unexpected(&other)),
        },
    }
}

async fn runs(cx: &Cx<'_>, frozen: &Frozen) -> Result<bool, Fault> {
    let tasks = cx.engine().tasks(&[&frozen.target.id]).await?;
    Ok(tasks.iter().any(|t| t.state == TaskState::Running && t.desired == TaskState::Running))
}

/// What stands against exchanging these volumes, given the backup that would be used; `goes` tells what of the sides that
/// are there is removed before anything is built. Pure.
pub(in crate::operation) fn against(
    directory: &Directory,
    seen: &[DirInspection],
    manifest: &Manifest,
    goes: impl Fn(&SideFound) -> bool,
) -> Vec<String> {
    let mut refuse = Vec::new();
    for (volume, found) in directory.volumes.iter().zip(seen) {
        for mount in &found.mounts {
            refuse.push(format!(
                "`{mount}` in volume `{}` is a mount of its own, which cannot be exchanged",
                volume.name
            ));
        }
        for side in found.sides.iter().filter(|s| s.state == SideState::Moving) {
            refuse.push(format!(
                "an earlier restore stopped in the middle of a move: `.skep-{}` in volume `{}` holds live data; \
                 look at it before anything else",
                side.side, volume.name
            ));
        }
    }
    refuse.extend(too_little_room(directory, seen, manifest, goes));
    refuse
}

/// The files of a broker lie in a directory that bears the name of its node: one of another name would start empty. Pure.
pub(in crate::operation) fn of_another_node(frozen: &Frozen, manifest: &Manifest) -> Option<String> {
    let is_brokers = frozen.target.data.directory().is_some_and(Directory::is_brokers);
    let (was, is) = (rabbitmq::node(&manifest.spec), rabbitmq::node(&frozen.target.spec));
    let name = |node: Option<String>| node.unwrap_or_else(|| "none that is fixed".to_owned());
    (is_brokers && was != is).then(|| {
        format!(
            "the node was called {} when the backup was taken, and is called {} now: it would not find what is restored; \
             give it the old name (`hostname:`, RABBITMQ_NODENAME)",
            name(was),
            name(is)
        )
    })
}

/// S17: beside each other, old and new must fit, with a tenth left free. Volumes whose file systems have the same size are
/// taken for one.
fn too_little_room(
    directory: &Directory,
    seen: &[DirInspection],
    manifest: &Manifest,
    goes: impl Fn(&SideFound) -> bool,
) -> Option<String> {
    let recorded = manifest.contents.as_ref().map_or(0, |contents| contents.size);
    let archived = |volume: &Volume| {
        let file = format!("{}.tar", volume.name);
        manifest.artefacts.iter().find(|a| a.file == file).map_or(recorded, |a| a.size)
    };
    for one in seen {
        let same = directory.volumes.iter().zip(seen).filter(|(_, other)| other.capacity == one.capacity);
        let (mut need, mut freed) = (0u64, 0u64);
        for (volume, found) in same {
            let size = found.size.max(archived(volume));
            need = need.saturating_add(size).saturating_add(size / 5);
            freed = freed.saturating_add(found.sides.iter().filter(|s| goes(s)).map(|s| s.size).sum());
        }
        let least = one.capacity / 10;
        if one.free.saturating_add(freed) < need.saturating_add(least) {
            let mib = |bytes: u64| bytes >> 20;
            return Some(format!(
                "too little room beside the live data: {} MiB are free, {} MiB are needed and {} MiB must stay free",
                mib(one.free),
                mib(need),
                mib(least)
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engines::DirectoryEngine;

    fn volume() -> Directory {
        let mount = json!({"Type": "volume", "Source": "v"});
        Directory { engine: DirectoryEngine::Volume, volumes: vec![Volume::of_files("v", &mount)] }
    }

    fn manifest(size: u64) -> Manifest {
        let artefact = skep_runner::Artefact { file: "v.tar".into(), size, sha256: String::new() };
        Manifest {
            schema: 1,
            id: String::new(),
            service: String::new(),
            engine: "volume".into(),
            image: String::new(),
            spec: json!({}),
            server_version: String::new(),
            tool_version: String::new(),
            started: String::new(),
            ended: String::new(),
            artefacts: vec![artefact],
            database: None,
            contents: None,
            base: None,
            roles: None,
        }
    }

    fn seen(size: u64, free: u64) -> DirInspection {
        DirInspection { size, free, capacity: 1000 << 20, ..DirInspection::default() }
    }

    #[test]
    fn the_larger_of_what_is_live_and_what_is_backed_up_must_fit_beside_with_a_tenth_left() {
        let mib = |n: u64| n << 20;
        let fits = |live, backup, free| {
            against(&volume(), &[seen(mib(live), mib(free))], &manifest(mib(backup)), |_| true).is_empty()
        };
        assert!(fits(100, 100, 220));
        assert!(!fits(100, 100, 219));
        assert!(!fits(1, 100, 219), "live data that was lost takes no room, what comes back does");
        let left = SideFound { side: "s".into(), state: SideState::Forward, size: mib(1) };
        let with_side = DirInspection { sides: vec![left], ..seen(mib(100), mib(219)) };
        assert_eq!(
            against(&volume(), std::slice::from_ref(&with_side), &manifest(0), |_| true),
            [] as [String; 0],
            "what goes first makes room"
        );
        assert_eq!(
            against(&volume(), &[with_side], &manifest(0), |side| side.side == "other").len(),
            1,
            "what stays makes none"
        );
    }

    #[test]
    fn a_half_done_move_and_a_mount_inside_are_refused() {
        let side = SideFound { side: "s".into(), state: SideState::Moving, size: 0 };
        let found = DirInspection { sides: vec![side], mounts: vec!["inner".into()], ..seen(0, 1000 << 20) };
        assert_eq!(against(&volume(), &[found], &manifest(0), |_| true).len(), 2);
    }
}
