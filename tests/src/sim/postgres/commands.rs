//! Data that a running service alone tells: rows by table again, of the service whose host the job is given.

use skep_runner::manifest::{Artefact, Manifest};
use skep_runner::task::{
    CommandDrill, CommandDump, CommandExamine, CommandLoad, CommandSeal, Contents, DirDumped, Means, PgSeal,
    Stored,
};
use skep_runner::{DATA_PATH, Report};

use super::files::{Files, half_of};
use super::inspect::length;
use super::job::{Failure, Next, PgJob, Worked};
use super::store::sha256;
use super::{Content, World};
use crate::sim::workload::View;

/// The only artefact.
const FILE: &str = "data.dump";

// === impl PgJob ===

impl PgJob {
    /// What the service of a command holds.
    fn held<'w>(
        &self,
        world: &'w mut World,
        view: &View<'_>,
        means: &Means,
    ) -> Result<&'w mut Files, Failure> {
        let (host, secret) = means.reaches();
        // What is in a volume this simulation does not know.
        let is_known = |path: &str| path.starts_with(DATA_PATH) || self.container.files.contains_key(path);
        if let Some(path) = secret.filter(|path| !is_known(path)) {
            return Err(Failure::refused(format!("cannot read {path}")));
        }
        let found = view.resolve(&self.container, host);
        let found = found.first().ok_or_else(|| Failure::unready(format!("{host} does not resolve")))?;
        let files = world.files.get_mut(&found.service);
        files.ok_or_else(|| Failure::refused("the command failed (exit status: 1): nothing there"))
    }

    pub(super) fn command_dump(&mut self, world: &mut World, view: &View<'_>, task: &CommandDump) -> Worked {
        self.needs_store(true)?;
        let pace = world.pace.dump;
        if self.phase == 0 {
            world.store.empty(&task.dir)?;
            self.content = self.held(world, view, &task.means)?.live.clone();
            self.started = view.now.to_string();
            return Ok(Next::More("dump", pace));
        }
        let bytes = serde_json::to_vec(&self.content).expect("rows by table are JSON");
        let artefact = Artefact { file: FILE.to_owned(), size: length(&bytes), sha256: sha256(&bytes) };
        let contents = Contents { size: artefact.size, ..Contents::default() };
        world.store.write(&task.dir, FILE, bytes);
        Ok(Next::Done(Box::new(Report::DirDump(Box::new(DirDumped {
            artefacts: vec![artefact],
            server_version: String::new(),
            tool_version: "simulated".to_owned(),
            started: self.started.clone(),
            ended: view.now.to_string(),
            contents,
        })))))
    }

    pub(super) fn command_seal(&self, world: &mut World, task: &CommandSeal) -> Worked {
        self.dir_seal_as(world, &PgSeal { dir: task.dir.clone(), manifest: task.manifest.clone() })
    }

    pub(super) fn command_examine(&self, world: &World, task: &CommandExamine) -> Worked {
        let (manifest, _) = self.dumped(world, &task.engine, &task.stored)?;
        Ok(Next::Done(Box::new(Report::DirExamine { manifest: Box::new(manifest) })))
    }

    fn dumped(&self, world: &World, engine: &str, stored: &Stored) -> Result<(Manifest, Content), Failure> {
        self.needs_store(false)?;
        let manifest = world.store.open(stored)?;
        if manifest.engine != engine {
            return Err(Failure::refused(format!("backup {} is one of `{}`", stored.id, manifest.engine)));
        }
        let bytes = world.store.whole(&stored.dir, &manifest)?;
        let content = serde_json::from_slice(bytes).map_err(|e| Failure::refused(e.to_string()))?;
        Ok((manifest, content))
    }

    /// The data goes, comes back by halves, and is in use by nobody who could tell.
    pub(super) fn command_load(&mut self, world: &mut World, view: &View<'_>, task: &CommandLoad) -> Worked {
        let (_, content) = self.dumped(world, &task.engine, &task.stored)?;
        let (pace, phase) = (world.pace.load, self.phase);
        let held = self.held(world, view, &task.means)?;
        held.half = phase < 2;
        held.live = match phase {
            0 => Content::new(),
            1 => half_of(&content),
            _ => content,
        };
        if phase < 2 {
            return Ok(Next::More("the load command", pace));
        }
        Ok(Next::Done(Box::new(Report::CommandLoad { left: Vec::new() })))
    }

    /// Whatever it is loaded into goes with the job.
    pub(super) fn command_drill(&mut self, world: &mut World, task: &CommandDrill) -> Worked {
        self.dumped(world, &task.engine, &task.stored)?;
        if self.phase < 2 {
            return Ok(Next::More("a scratch node", world.pace.load));
        }
        Ok(Next::Done(Box::new(Report::CommandDrill { left_out: world.left_out.clone(), seconds: 1.5 })))
    }
}
