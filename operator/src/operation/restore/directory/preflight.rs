//! Preflight: looks at the backups, at the volumes and at the server, and judges whether the restore may go on; changes
//! nothing.

use serde::{Deserialize, Serialize};
use skep_runner::manifest::Manifest;
use skep_runner::task::{DirInspect, DirInspection, ServerSettings, SideState};
use skep_runner::{Report, Task};

use crate::engines::{Directory, Volume};
use crate::operation::catalogue::Entry;
use crate::operation::data::unexpected;
use crate::operation::frozen::{self, Frozen};
use crate::operation::restore::preflight::{Candidates, usable};
use crate::operation::restore::prepare::done;
use crate::operation::saga::{Cx, Fault, Progress};
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
pub(super) fn directory(frozen: &Frozen) -> Result<&Directory, Fault> {
    frozen.target.data.directory().ok_or_else(|| Fault::failed("the data in the plan is no directory"))
}

/// Looks and judges.
pub(super) async fn preflight(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let directory = directory(&frozen)?;
    let mut seen: Vec<DirInspection> = Vec::new();
    for (nth, volume) in directory.volumes.iter().enumerate() {
        match look(cx, &frozen, nth, volume).await? {
            Looked::Wait(progress) => return Ok(progress),
            Looked::Seen(inspection) => seen.push(*inspection),
        }
    }
    let first = seen.first().cloned().unwrap_or_default();
    let (ids, manifest) = match usable(cx, &frozen, &first.backups).await? {
        Candidates::Wait(progress) => return Ok(progress),
        Candidates::Usable { ids, first } => (ids, first),
    };
    let refuse = against(directory, &seen, &manifest);
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

enum Looked {
    Wait(Progress),
    Seen(Box<DirInspection>),
}

/// Looks at one volume; with the first one at the server and at the backups. A server that does not answer is left out:
/// it may be what is to be mended.
async fn look(cx: &mut Cx<'_>, frozen: &Frozen, nth: usize, volume: &Volume) -> Result<Looked, Fault> {
    let blind = format!("blind{nth}");
    let asks = nth == 0 && frozen.target.server().is_some();
    if asks && !cx.record().jobs.contains_key(&blind) && runs(cx, frozen).await? {
        match look_with(cx, frozen, nth, volume, true).await? {
            Ok(looked) => return Ok(looked),
            Err(why) => cx.remark(format!("the server of {} was asked in vain: {why}", frozen.target.name)),
        }
    }
    look_with(cx, frozen, nth, volume, false).await?.map_err(|why| {
        Fault::failed(format!("the data of {} cannot be looked at: {why}", frozen.target.name))
    })
}

async fn look_with(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    nth: usize,
    volume: &Volume,
    ask: bool,
) -> Result<Result<Looked, String>, Fault> {
    let entries = frozen.candidates.iter().filter(|_| nth == 0);
    let task = Task::DirInspect(DirInspect {
        engine: directory(frozen)?.engine.runner(),
        connect: frozen.target.server().filter(|_| ask),
        root: volume.root.clone(),
        backups: entries.map(Entry::stored).collect(),
    });
    let key = if ask { format!("look{nth}") } else { format!("blind{nth}") };
    let store = (nth == 0).then_some(Access::Read);
    let order = Order { key: &key, target: &frozen.target, task, store, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Ok(Looked::Wait(Progress::Wait(wait)))),
        Outcome::Failed(fault) => Ok(Err(fault.message)),
        Outcome::Done(report) => match *report {
            Report::DirInspect(inspection) => Ok(Ok(Looked::Seen(inspection))),
            other => Err(unexpected(&other)),
        },
    }
}

async fn runs(cx: &Cx<'_>, frozen: &Frozen) -> Result<bool, Fault> {
    let tasks = cx.engine().tasks(&[&frozen.target.id]).await?;
    Ok(tasks.iter().any(|t| t.state == TaskState::Running && t.desired == TaskState::Running))
}

/// What stands against exchanging these volumes, given the backup that would be used. Pure.
fn against(directory: &Directory, seen: &[DirInspection], manifest: &Manifest) -> Vec<String> {
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
    refuse.extend(too_little_room(directory, seen, manifest));
    refuse
}

/// S17: beside each other, old and new must fit, with a tenth left free. What earlier restores left goes first. Volumes
/// whose file systems have the same size are taken for one.
fn too_little_room(directory: &Directory, seen: &[DirInspection], manifest: &Manifest) -> Option<String> {
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
            freed = freed.saturating_add(found.sides.iter().map(|s| s.size).sum());
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
    use skep_runner::task::SideFound;

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
        }
    }

    fn seen(size: u64, free: u64) -> DirInspection {
        DirInspection { size, free, capacity: 1000 << 20, ..DirInspection::default() }
    }

    #[test]
    fn the_larger_of_what_is_live_and_what_is_backed_up_must_fit_beside_with_a_tenth_left() {
        let mib = |n: u64| n << 20;
        let fits = |live, backup, free| {
            against(&volume(), &[seen(mib(live), mib(free))], &manifest(mib(backup))).is_empty()
        };
        assert!(fits(100, 100, 220));
        assert!(!fits(100, 100, 219));
        assert!(!fits(1, 100, 219), "live data that was lost takes no room, what comes back does");
        let left = SideFound { side: "s".into(), state: SideState::Forward, size: mib(1) };
        let with_side = DirInspection { sides: vec![left], ..seen(mib(100), mib(219)) };
        assert_eq!(
            against(&volume(), &[with_side], &manifest(0)),
            [] as [String; 0],
            "what goes first makes room"
        );
    }

    #[test]
    fn a_half_done_move_and_a_mount_inside_are_refused() {
        let side = SideFound { side: "s".into(), state: SideState::Moving, size: 0 };
        let found = DirInspection { sides: vec![side], mounts: vec!["inner".into()], ..seen(0, 1000 << 20) };
        assert_eq!(against(&volume(), &[found], &manifest(0)).len(), 2);
    }
}
