//! Taking a backup and reading backups in full, for every engine with a data directory.

use super::root::Root;
use super::{load, volume};
use crate::error::{Error, Result};
use crate::job::{self, Job};
use crate::store::{self, Draft, Whole};
use crate::task::{Contents, DataEngine, DirDump, DirDumped, DirExamine, DirSeal, Report, VolumeRoot};
use crate::{mysql, redis};

/// Dumps; what an earlier attempt left in an unsealed directory is replaced.
pub(crate) fn dump(job: &Job, task: &DirDump) -> Result<Report> {
    let DirDump { engine, connect, volumes, dir } = task;
    let server = || {
        let unknown = || Error::refused("the task does not say how to reach the server");
        connect.as_ref().ok_or_else(unknown)
    };
    let dumped = match engine {
        DataEngine::Volume => of_volumes(job, volumes, dir)?,
        DataEngine::Redis => redis::dump::dump(job, server()?, dir)?,
        DataEngine::Mysql => mysql::dump::dump(job, server()?, dir)?,
    };
    Ok(Report::DirDump(Box::new(dumped)))
}

/// Reads all artefacts back, then writes the manifest, which makes the directory a backup.
pub(crate) fn seal(job: &Job, task: &DirSeal) -> Result<Report> {
    let DirSeal { engine, dir, manifest } = task;
    if !engine.is_named(&manifest.engine) {
        return Err(Error::refused(format!("the manifest is one of `{}`", manifest.engine)));
    }
    let read = |whole: &Whole| read_in_full(job, *engine, whole);
    let (manifest_sha256, size) = store::seal(job, dir, manifest, read)?;
    Ok(Report::DirSeal { manifest_sha256, size })
}

/// Checks a stored backup in full.
pub(crate) fn examine(job: &Job, task: &DirExamine) -> Result<Report> {
    let DirExamine { engine, stored } = task;
    let backup = load::opened(job, *engine, stored)?;
    store::examine(job, &backup, |whole| read_in_full(job, *engine, whole))?;
    Ok(Report::DirExamine { manifest: Box::new(backup.manifest) })
}

fn read_in_full(job: &Job, engine: DataEngine, whole: &Whole) -> Result<()> {
    job.out.progress("read", 0, None);
    match engine {
        DataEngine::Volume => volume::read_in_full(whole).map(drop),
        DataEngine::Redis => redis::dump::read_in_full(whole).map(drop),
        DataEngine::Mysql => mysql::dump::read_in_full(whole),
    }
}

fn of_volumes(job: &Job, volumes: &[VolumeRoot], dir: &str) -> Result<DirDumped> {
    if volumes.is_empty() {
        return Err(Error::refused("the task names no volume"));
    }
    let roots: Vec<(&VolumeRoot, Root)> =
        volumes.iter().map(|volume| Ok((volume, Root::open(&volume.root)?))).collect::<Result<_>>()?;
    let folder = store::emptied(job, dir)?;
    let started = job::now();
    let mut contents =
        Contents { not_held: volume::NOT_HELD.map(str::to_owned).into(), ..Contents::default() };
    let mut artefacts = Vec::new();
    for (volume, root) in &roots {
        let mut draft = Draft::new(job, &folder, format!("{}.tar", volume.name))?;
        volume::dump(root, &mut draft, &mut contents)?;
        artefacts.push(draft.publish()?);
    }
    Ok(DirDumped {
        artefacts,
        server_version: String::new(),
        tool_version: format!("skep-runner {}", env!("CARGO_PKG_VERSION")),
        started,
        ended: job::now(),
        contents,
    })
}

// === impl DataEngine ===

impl DataEngine {
    /// Whether `name` is this engine's in labels and manifests.
    pub(crate) fn is_named(self, name: &str) -> bool {
        match self {
            DataEngine::Volume => name == "volume",
            DataEngine::Redis => matches!(name, "redis" | "valkey"),
            DataEngine::Mysql => matches!(name, "mysql" | "mariadb"),
        }
    }
}
