//! Building new data beside the live data.
//!
//! ```text
//! checksums ▶ lock ▶ wipe what an earlier attempt left ▶ build and verify `new` ▶ loaded.json
//!                                                          └ any failure removes the side
//! ```

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::fs::Mode;

use super::root::{Owner, Root};
use super::side::{Loaded, Replaces, Side, dir_of};
use super::{files, volume};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::manifest::Manifest;
use crate::store::{Backup, Whole};
use crate::task::{CheckOutcome, DataEngine, DirLoad, DirLoaded, Report, ServerSettings};
use crate::{mysql, redis};

/// What a build is given.
pub(crate) struct Build<'a> {
    /// The run.
    pub(crate) job: &'a Job,
    /// What is asked.
    pub(crate) task: &'a DirLoad,
    /// The live data.
    pub(crate) root: &'a Root,
    /// The artefact, whose checksum is the registered one.
    pub(crate) whole: &'a Whole,
    /// The manifest of the backup.
    pub(crate) manifest: &'a Manifest,
    /// The side, and the directory to fill.
    pub(crate) side: &'a Side,
    /// See `side`.
    pub(crate) new: &'a OwnedFd,
    /// Who owns the live data.
    pub(crate) owner: Owner,
}

/// What a build made.
pub(crate) struct Built {
    /// As the engine counts.
    pub(crate) entries: u64,
    /// Which live entries give way.
    pub(crate) replaces: Replaces,
    /// How the checks went.
    pub(crate) checks: Vec<CheckOutcome>,
}

/// Builds the data of a backup beside the live data.
pub(crate) fn load(job: &Job, task: &DirLoad) -> Result<Report> {
    let DirLoad { engine, stored, file, root, side, .. } = task;
    let began = Instant::now();
    dir_of(side)?;
    let backup = opened(job, *engine, stored)?;
    let whole = artefact(job, &backup, file.as_deref())?;
    let root = Root::open(root)?;
    let _lock = root.lock()?;
    let owner = root.owner()?;
    let made = Side::create(&root, side, owner)?;
    let new = made.inner("new")?;
    let manifest = &backup.manifest;
    let build = Build { job, task, root: &root, whole: &whole, manifest, side: &made, new: &new, owner };
    match build.run() {
        Ok(Built { entries, replaces, checks }) => {
            whole.is_untouched()?;
            let size = files::measure(&made.fd, OsStr::new("new"))?.size;
            made.declare(&Loaded { engine: *engine, backup: stored.id.clone(), replaces })?;
            files::sync(&root.fd)?;
            let seconds = began.elapsed().as_secs_f64();
            Ok(Report::DirLoad(Box::new(DirLoaded { size, entries, seconds, checks })))
        }
        Err(error) => {
            // Best effort: the next attempt wipes what is left, and the first error is the one to tell.
            let _left = files::remove(&root.fd, &made.dir);
            Err(error)
        }
    }
}

// === impl Build ===

impl Build<'_> {
    fn run(&self) -> Result<Built> {
        // What an earlier attempt, or drill, left is gone by now.
        self.root.has_room(self.whole.size)?;
        match self.task.engine {
            DataEngine::Volume => {
                let entries = volume::load(self.job, self.root, self.whole, self.new)?;
                Ok(Built { entries, replaces: Replaces::Everything, checks: Vec::new() })
            }
            DataEngine::Redis => redis::load::build(self),
            DataEngine::Mysql => mysql::load::build(self),
        }
    }

    /// The settings of the live server, else those of the manifest.
    pub(crate) fn settings(&self) -> Option<&ServerSettings> {
        let recorded = || self.manifest.contents.as_ref()?.settings.as_ref();
        self.task.settings.as_ref().or_else(recorded)
    }

    /// Path of `new`, for a scratch server.
    pub(crate) fn new_path(&self) -> String {
        format!("{}/new", self.side_path())
    }

    /// Path of the side.
    pub(crate) fn side_path(&self) -> String {
        format!("{}/{}", self.root.path, self.side.dir.to_string_lossy())
    }

    /// Gives all of `new` to the owner of the live data, and itself the permissions of the live directory, which
    /// the move hands on; then makes it durable.
    pub(crate) fn hand_over(&self) -> Result<()> {
        let cannot = || Error::errno("cannot hand over what was loaded");
        let live = rustix::fs::fstat(&self.root.fd).map_err(cannot())?;
        self.owner.take(&self.side.fd, OsStr::new("new"))?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(live.st_uid), rustix::fs::Gid::from_raw(live.st_gid));
        rustix::fs::fchown(self.new, Some(uid), Some(gid))
            .and_then(|()| rustix::fs::fchmod(self.new, Mode::from_raw_mode(live.st_mode & 0o7777)))
            .and_then(|()| rustix::fs::syncfs(self.new))
            .map_err(cannot())
    }
}

/// Opens a backup; refuses one of another engine.
pub(crate) fn opened(job: &Job, engine: DataEngine, stored: &crate::task::Stored) -> Result<Backup> {
    let backup = Backup::open(job, stored)?;
    let found = &backup.manifest.engine;
    if !engine.is_named(found) {
        return Err(Error::refused(format!("backup {} is one of `{found}`", stored.id)));
    }
    Ok(backup)
}

/// Reads the artefact to load in full.
fn artefact(job: &Job, backup: &Backup, file: Option<&str>) -> Result<Whole> {
    let Manifest { artefacts, id, .. } = &backup.manifest;
    let artefact = match (artefacts.as_slice(), file) {
        ([only], None) => Some(only),
        (all, Some(file)) => all.iter().find(|artefact| artefact.file == file),
        _ => None,
    };
    let unknown = || Error::refused(format!("backup {id} does not say which of its files to load"));
    backup.folder.whole(artefact.ok_or_else(unknown)?, job)
}
