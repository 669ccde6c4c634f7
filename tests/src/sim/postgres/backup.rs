//! Dump and seal, as the runner does them.

use skep_runner::Report;
use skep_runner::manifest::{Artefact, MANIFEST, Manifest};
use skep_runner::task::{HeldRoles, LayoutCopy, PgDump, PgDumped, PgSeal, StoreVerify, Stored, Verdict};

use super::inspect::{length, properties_of};
use super::job::{Failure, Next, PgJob, Worked};
use super::store::sha256;
use super::{Content, World, roles};
use crate::sim::workload::View;

// === impl PgJob ===

impl PgJob {
    pub(super) fn dump(&mut self, world: &mut World, view: &View<'_>, task: &PgDump) -> Worked {
        self.needs_store(true)?;
        let pace = world.pace.dump;
        let name = &task.database;
        let server = self.connect(world, view, &task.connect)?;
        let (version, roles) = (server.version, server.roles.clone());
        let found = server.databases.get(name).cloned();
        let found = found.ok_or_else(|| Failure::refused(format!("database `{name}` does not exist")))?;
        if self.phase == 0 {
            if !found.allow {
                let text = format!("database \"{name}\" is not currently accepting connections");
                return Err(Failure::refused(text));
            }
            world.store.empty(&task.dir)?;
            self.content = found.content;
            self.started = view.now.to_string();
            return Ok(Next::More("dump", pace));
        }
        let file = format!("{name}.dump");
        let bytes = serde_json::to_vec(&self.content).expect("rows by table are JSON");
        let artefact = Artefact { file: file.clone(), size: length(&bytes), sha256: sha256(&bytes) };
        world.store.write(&task.dir, &file, bytes);
        let globals = roles::globals(&roles);
        let held =
            Artefact { file: roles::FILE.to_owned(), size: length(&globals), sha256: sha256(&globals) };
        world.store.write(&task.dir, roles::FILE, globals);
        Ok(Next::Done(Box::new(Report::PgDump(Box::new(PgDumped {
            artefacts: vec![artefact, held],
            server_version: version.to_string(),
            tool_version: "pg_dump (PostgreSQL) simulated".to_owned(),
            started: self.started.clone(),
            ended: view.now.to_string(),
            database: properties_of(found.properties, &self.content),
            roles: Some(HeldRoles { passwords: true }),
        })))))
    }

    pub(super) fn seal(&self, world: &mut World, task: &PgSeal) -> Worked {
        self.needs_store(true)?;
        let PgSeal { dir, manifest } = task;
        if !world.store.dirs.contains_key(dir) {
            return Err(Failure::refused(format!("there is no dump at {dir}")));
        }
        let mut bytes = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys only");
        bytes.push(b'\n');
        if world.store.file(dir, MANIFEST).is_some_and(|sealed| *sealed != bytes) {
            return Err(Failure::refused(format!("{dir} was sealed with another manifest")));
        }
        world.store.whole(dir, manifest)?;
        if self.phase == 0 {
            return Ok(Next::More("read", world.pace.dump));
        }
        let manifest_sha256 = sha256(&bytes);
        world.store.write(dir, MANIFEST, bytes);
        let size = manifest.artefacts.iter().map(|a| a.size).sum();
        Ok(Next::Done(Box::new(Report::PgSeal { manifest_sha256, size })))
    }

    /// Reads a backup in full, in two stretches, and says how it was found.
    pub(super) fn store_verify(&self, world: &World, task: &StoreVerify) -> Worked {
        self.needs_store(false)?;
        let Stored { dir, .. } = &task.stored;
        let above = dir.rsplit_once('/').map_or("", |(above, _)| above);
        if !world.store.dirs.keys().any(|d| d.starts_with(&format!("{above}/"))) {
            return Err(Failure::refused(format!("the store holds no {above} where this job ran")));
        }
        if self.phase == 0 {
            return Ok(Next::More("checksum", world.pace.dump));
        }
        let read = world.store.open(&task.stored).and_then(|m| world.store.whole(dir, &m).map(|_| m));
        let verdict = match read {
            Ok(manifest) => Verdict::Whole { size: manifest.artefacts.iter().map(|a| a.size).sum() },
            Err(why) => Verdict::Spoilt { why },
        };
        Ok(Next::Done(Box::new(Report::StoreVerify(verdict))))
    }

    /// Copies a dump that people made, in two stretches.
    pub(super) fn layout_copy(&self, world: &mut World, task: &LayoutCopy) -> Worked {
        self.needs_store(true)?;
        let LayoutCopy { from, artefact, into, name, packed: _ } = task;
        let bytes = world.store.file(from, &artefact.file).cloned();
        let bytes = bytes.ok_or_else(|| Failure::refused(format!("{} is missing", artefact.file)))?;
        if sha256(&bytes) != artefact.sha256 {
            return Err(Failure::refused(format!("{} was changed", artefact.file)));
        }
        if self.phase == 0 {
            world.store.empty(into)?;
            return Ok(Next::More("copy", world.pace.dump));
        }
        world.store.write(into, name, bytes);
        let artefact = Artefact { file: name.clone(), ..artefact.clone() };
        Ok(Next::Done(Box::new(Report::LayoutCopy { artefact })))
    }

    /// The checked content of a backup.
    pub(super) fn load(&self, world: &World, stored: &Stored) -> Result<(Manifest, Content), Failure> {
        self.needs_store(false)?;
        let manifest = world.store.open(stored)?;
        if manifest.engine != "postgres"
            || manifest.artefacts.iter().filter(|a| a.file != roles::FILE).count() != 1
        {
            let id = &stored.id;
            return Err(Failure::refused(format!("backup {id} is not one dump of PostgreSQL")));
        }
        let bytes = world.store.whole(&stored.dir, &manifest)?;
        let content = serde_json::from_slice(bytes).map_err(|e| Failure::refused(e.to_string()))?;
        Ok((manifest, content))
    }
}
