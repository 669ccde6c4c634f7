//! Jobs in Skep's own image: backups between the staging volume and the stores, as `skep-store` moves them.

use skep_runner::manifest::{MANIFEST, Manifest};
use skep_runner::task::{Copied, Fetch, Place, Ship, Shipped, StoreTask, Verdict};
use skep_runner::{Report, STAGE_PATH};
use skep_store::REPORTS;
use skep_store::code::Layer;
use skep_store::sealed::{Coded, Found, Sealed};

use super::inspect::length;
use super::job::{Failure, Next, PgJob, Worked};
use super::store::{Store, sha256};
use super::{STAGE, World};

/// Stands for the encryption of a file.
const LOCKED: &[u8] = b"locked:";

// === impl PgJob ===

impl PgJob {
    pub(super) fn move_backup(&mut self, world: &mut World, task: &StoreTask) -> Worked {
        if self.mounts(STAGE_PATH).is_none() {
            return Err(Failure::refused("the staging volume is not mounted"));
        }
        let done = Ok(Next::Done(Box::new(Report::Done)));
        match task {
            StoreTask::Stage { .. } => done,
            StoreTask::Ship(task) => self.ship(world, task),
            StoreTask::Fetch(task) => self.fetch(world, task),
            StoreTask::Copy { from, to, dir, manifest_sha256 } => {
                self.copy(world, from, to, dir, manifest_sha256)
            }
            StoreTask::Reports { to, files, .. } => {
                let shelf = self.shelf(world, to)?;
                files.iter().for_each(|f| shelf.write(REPORTS, &f.name, f.text.clone().into_bytes()));
                done
            }
            StoreTask::Remove { from, dir } => {
                self.shelf(world, from)?.discard(dir, true)?;
                done
            }
            StoreTask::Clear { dirs } => {
                let stage = world.shelf(STAGE, self.node());
                dirs.iter().try_for_each(|dir| stage.discard(dir, true))?;
                done
            }
            StoreTask::Scan { from, scan } => {
                let scanned = self.shelf(world, &Place::S3(from.clone()))?.scan(scan);
                Ok(Next::Done(Box::new(Report::StoreScan(scanned))))
            }
            StoreTask::Check { id, dir, manifest_sha256, from } => {
                let shelf = self.shelf(world, from)?.clone();
                Ok(Next::Done(Box::new(Report::StoreVerify(check(&shelf, id, dir, manifest_sha256)?))))
            }
        }
    }

    /// As [`PgJob::knows`], of the store to which it brings a backup.
    pub(super) fn knows_place(&self, world: &mut World, task: &StoreTask) -> Result<(), Failure> {
        match task {
            StoreTask::Ship(Ship { to, .. }) | StoreTask::Copy { to, .. } => {
                let store = self.shelf(world, to)?;
                self.knows(store)
            }
            _ => Ok(()),
        }
    }

    /// The store that a place leads to. Credentials must be at hand, and a mount be mounted.
    fn shelf<'w>(&self, world: &'w mut World, place: &Place) -> Result<&'w mut Store, Failure> {
        let name = match place {
            Place::S3(s3) => {
                if !self.container.files.contains_key(&s3.credentials_file) {
                    return Err(Failure::barred("cannot read the S3 credentials"));
                }
                format!("s3://{}/{}", s3.bucket, s3.prefix)
            }
            Place::Mount { path } => {
                let source = self.source(path);
                source.ok_or_else(|| Failure::refused(format!("cannot open the store at {path}")))?
            }
        };
        if world.broken.contains(&name) {
            return Err(Failure::unready(format!("store {name} does not answer")));
        }
        Ok(world.shelf(&name, self.node()))
    }

    fn ship(&mut self, world: &mut World, task: &Ship) -> Worked {
        let pace = world.pace.short;
        let earlier = self.shelf(world, &task.to)?.file(&task.dir, MANIFEST).cloned();
        let earlier = earlier.filter(|bytes| {
            let sealed: Option<Sealed> = serde_json::from_slice(bytes).ok();
            sealed.is_some_and(|s| s.manifest_sha256 == task.manifest_sha256)
        });
        if let Some(bytes) = earlier {
            world.shelf(STAGE, self.node()).discard(&task.dir, true)?;
            let sealed: Sealed =
                serde_json::from_slice(&bytes).map_err(|e| Failure::refused(e.to_string()))?;
            let size = sealed.files.iter().map(|f| f.size).sum();
            let shipped = Shipped { manifest_sha256: sha256(&bytes), size, peak_rss: 0 };
            return Ok(Next::Done(Box::new(Report::Shipped(shipped))));
        }
        let inner = world.shelf(STAGE, self.node()).file(&task.dir, MANIFEST).cloned();
        let inner =
            inner.ok_or_else(|| Failure::refused(format!("there is no staged backup at {}", task.dir)))?;
        if sha256(&inner) != task.manifest_sha256 {
            return Err(Failure::refused("the staged backup is not the one sealed"));
        }
        let manifest: Manifest =
            serde_json::from_slice(&inner).map_err(|e| Failure::refused(e.to_string()))?;
        world.shelf(STAGE, self.node()).whole(&task.dir, &manifest)?;
        if self.phase == 0 {
            self.shelf(world, &task.to)?.discard(&task.dir, true)?;
        }
        let mut files = Vec::new();
        for artefact in &manifest.artefacts {
            let plain =
                world.shelf(STAGE, self.node()).file(&task.dir, &artefact.file).cloned().unwrap_or_default();
            let is_locked = !task.recipients.is_empty();
            let bytes = if is_locked { [LOCKED, plain.as_slice()].concat() } else { plain };
            let layers: Vec<Layer> = is_locked.then_some(Layer::Age).into_iter().collect();
            let suffix = if is_locked { ".age" } else { "" };
            let file = format!("{}{suffix}", artefact.file);
            files.push(Coded {
                size: length(&bytes),
                sha256: sha256(&bytes),
                of: artefact.file.clone(),
                file: file.clone(),
                layers,
            });
            self.shelf(world, &task.to)?.write(&task.dir, &file, bytes);
        }
        if self.phase == 0 {
            return Ok(Next::More("store", pace));
        }
        let sealed =
            Sealed::new(&inner, task.recipients.clone(), files).map_err(|e| Failure::refused(e.chain()))?;
        self.shelf(world, &task.to)?.write(&task.dir, MANIFEST, sealed.bytes());
        Ok(Next::More("store", pace))
    }

    fn fetch(&mut self, world: &mut World, task: &Fetch) -> Worked {
        let shelf = self.shelf(world, &task.from)?.clone();
        let (bytes, found) = registered(&shelf, &task.id, &task.dir, &task.manifest_sha256)?;
        if self.phase == 0 {
            world.shelf(STAGE, self.node()).discard(&task.dir, true)?;
            return Ok(Next::More("fetch", world.pace.short));
        }
        for file in found.files() {
            let stored = shelf.file(&task.dir, &file.file).cloned().unwrap_or_default();
            if sha256(&stored) != file.sha256 {
                return Err(Failure::refused(format!(
                    "{} does not have the checksum of its manifest",
                    file.file
                )));
            }
            let plain = if file.layers.contains(&Layer::Age) {
                let identity = task.identity_file.as_ref().and_then(|path| self.container.files.get(path));
                identity.ok_or_else(|| Failure::barred("it is encrypted, and there is no identity"))?;
                stored.strip_prefix(LOCKED).unwrap_or_default().to_vec()
            } else {
                stored
            };
            world.shelf(STAGE, self.node()).write(&task.dir, &file.of, plain);
        }
        if self.phase == 1 {
            return Ok(Next::More("fetch", world.pace.short));
        }
        world.shelf(STAGE, self.node()).write(&task.dir, MANIFEST, found.inner(&bytes));
        Ok(Next::Done(Box::new(Report::Done)))
    }

    fn copy(&mut self, world: &mut World, from: &Place, to: &Place, dir: &str, sha: &str) -> Worked {
        let id = dir.rsplit('/').next().unwrap_or(dir);
        let source = self.shelf(world, from)?.clone();
        let (bytes, found) = registered(&source, id, dir, sha)?;
        let pace = world.pace.short;
        let target = self.shelf(world, to)?;
        if self.phase == 0 {
            target.discard(dir, true)?;
            return Ok(Next::More("copy", pace));
        }
        for file in found.files() {
            let bytes = source.file(dir, &file.file).cloned().unwrap_or_default();
            if sha256(&bytes) != file.sha256 {
                return Err(Failure::refused(format!(
                    "{} does not have the checksum of its manifest",
                    file.file
                )));
            }
            target.write(dir, &file.file, bytes);
        }
        if self.phase == 1 {
            return Ok(Next::More("copy", pace));
        }
        target.write(dir, MANIFEST, bytes);
        let size = found.files().iter().map(|f| f.size).sum();
        Ok(Next::Done(Box::new(Report::Copied(Copied { size }))))
    }
}

/// How a backup is found that is read without decoding anything.
fn check(shelf: &Store, id: &str, dir: &str, sha: &str) -> Result<Verdict, Failure> {
    let above = dir.rsplit_once('/').map_or("", |(above, _)| above);
    if !shelf.dirs.keys().any(|d| d.starts_with(&format!("{above}/"))) {
        return Err(Failure::barred(format!("the store holds no {above}")));
    }
    let found = match registered(shelf, id, dir, sha) {
        Ok((_, found)) => found,
        Err(why) => return Ok(Verdict::Spoilt { why: why.message }),
    };
    for file in found.files() {
        let whole = shelf.file(dir, &file.file).is_some_and(|bytes| sha256(bytes) == file.sha256);
        if !whole {
            let why = format!("{} does not have the checksum of its manifest", file.file);
            return Ok(Verdict::Spoilt { why });
        }
    }
    Ok(Verdict::Whole { size: found.files().iter().map(|f| f.size).sum() })
}

fn registered(shelf: &Store, id: &str, dir: &str, sha: &str) -> Result<(Vec<u8>, Found), Failure> {
    let absent = || Failure::refused(format!("backup {id} is not in the store at {dir}"));
    let bytes = shelf.file(dir, MANIFEST).cloned().ok_or_else(absent)?;
    if sha256(&bytes) != sha {
        return Err(Failure::refused(format!("the manifest of backup {id} is not the registered one")));
    }
    let found = Found::read(&bytes, id).map_err(|e| Failure::refused(e.chain()))?;
    Ok((bytes, found))
}
