//! A directory of live files with what restores put beside it, and the jobs that work on it, as the runner's `dir` does.
//!
//! ```text
//! live ◀─ half by half ─▶ sides.<name>.new | old      a server or an application reads `live` while it runs
//! ```
//! Content is rows by table here as well: what a file holds does not matter, that all of it is there does.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_runner::Report;
use skep_runner::manifest::{Artefact, Manifest};
use skep_runner::task::{
    Connect, Contents, DataChecks, DataEngine, DirDump, DirDumped, DirExamine, DirInspect, DirInspection,
    DirLoad, DirLoaded, DirMove, DirMoved, DirRemove, DirSeal, Direction, MysqlSettings, PgSeal,
    ServerSettings, SideFound, SideState, Stored,
};

use super::checks::sql_outcome;
use super::inspect::{length, size_of};
use super::job::{Failure, Next, PgJob, Worked};
use super::server::query;
use super::store::sha256;
use super::{Content, Data, World};
use crate::sim::workload::{Container, Run, Serve, View, Workload};

/// Longest wait for the lock of another job.
const LOCK_WITHIN: Duration = Duration::from_secs(10);
/// The image's name of a page.
const PAGE: &str = "nginx";

/// The files of one service.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// What the service reads.
    pub live: Content,
    /// Whether entries are between their places.
    pub half: bool,
    /// What restores left, by name.
    pub sides: BTreeMap<String, Side>,
    /// Version of the server, where there is one: its first two numbers and a third one.
    pub version: [u32; 3],
    /// Task of the job that changes it.
    locked_by: Option<String>,
}

/// What one restore built.
#[derive(Clone, Debug)]
pub struct Side {
    /// How far it is.
    pub state: SideState,
    /// What becomes live, or what was live before a move back.
    pub new: Content,
    /// What was live before the move forward.
    pub old: Content,
    is_forward: bool,
}

/// As [`Holder`], but ends at once unless it finds this.
pub struct Crashing(pub Data, pub Content);

/// The process on the files: must never begin on half of them.
pub struct Holder(pub Data);

// === impl Files ===

impl Files {
    pub(super) fn of(live: Content) -> Files {
        Files { live, version: [10, 11, 6], ..Files::default() }
    }

    /// Names of the sides that are there.
    pub fn side_names(&self) -> Vec<String> {
        self.sides.keys().cloned().collect()
    }

    fn version(&self) -> String {
        self.version.map(|number| number.to_string()).join(".")
    }

    /// Whether its server is too old for a dump of another one.
    fn is_older_than(&self, theirs: &str) -> bool {
        let theirs: Vec<u32> = theirs.split('.').map_while(|n| n.parse().ok()).take(2).collect();
        theirs.as_slice() > &self.version[..2]
    }

    /// What whoever reads now finds.
    pub(super) fn fingerprint(&self) -> String {
        self.live.iter().map(|(table, rows)| format!("{table}={rows}")).collect::<Vec<_>>().join(" ")
    }

    /// One stretch of a move. Whether another one follows.
    fn step(&mut self, name: &str, direction: Direction) -> Result<bool, Failure> {
        let side = match (self.sides.get_mut(name), direction) {
            (Some(side), _) => side,
            (None, Direction::Back) => return Ok(false),
            (None, Direction::Forward) => {
                return Err(Failure::refused(format!("nothing was loaded as `{name}`")));
            }
        };
        match (side.state, direction) {
            (SideState::Loading, Direction::Forward) => {
                return Err(Failure::refused("what was loaded is not complete"));
            }
            (SideState::Back, Direction::Forward) => {
                return Err(Failure::refused("it was live and moved back since"));
            }
            (SideState::Forward, Direction::Forward)
            | (SideState::Loading | SideState::Loaded | SideState::Back, Direction::Back) => {
                return Ok(false);
            }
            (SideState::Loaded, Direction::Forward) => {
                side.old = std::mem::take(&mut self.live);
                self.live = half_of(&side.new);
                side.is_forward = true;
            }
            (SideState::Forward, Direction::Back) => {
                side.new = std::mem::take(&mut self.live);
                self.live = half_of(&side.old);
                side.is_forward = false;
            }
            (SideState::Moving, Direction::Back) if side.is_forward => {
                self.live = std::mem::take(&mut side.old);
                (side.state, self.half) = (SideState::Loaded, false);
                return Ok(false);
            }
            (SideState::Moving, _) if side.is_forward => {
                self.live = std::mem::take(&mut side.new);
                (side.state, self.half) = (SideState::Forward, false);
                return Ok(false);
            }
            (SideState::Moving, _) => {
                self.live = std::mem::take(&mut side.old);
                (side.state, self.half) = (SideState::Back, false);
                return Ok(false);
            }
        }
        (side.state, self.half) = (SideState::Moving, true);
        Ok(true)
    }
}

// === impl Side ===

impl Side {
    /// What is left where a load was killed.
    pub fn half_loaded(content: &Content) -> Side {
        Side { state: SideState::Loading, new: half_of(content), old: Content::new(), is_forward: true }
    }
}

pub(super) fn half_of(content: &Content) -> Content {
    content.iter().take(content.len().div_ceil(2)).map(|(t, n)| (t.clone(), *n)).collect()
}

// === impl Holder ===

impl Workload for Holder {
    fn start(&self, container: &Container, _view: &View<'_>) -> Run {
        self.0.lock().begins(&container.service);
        Run::Serve(Serve { exits: None, stop: Duration::from_millis(800) })
    }
}

// === impl World ===

impl World {
    /// A process of a service begins, on whatever files that has.
    pub(super) fn begins(&mut self, service: &str) {
        if self.files.get(service).is_some_and(|files| files.half) {
            self.violations.push(format!("{service} began on half of its files"));
        }
    }
}

// === impl Crashing ===

impl Workload for Crashing {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        let finds = self.0.lock().files.get(&container.service).map(|files| files.live.clone());
        if finds.as_ref() == Some(&self.1) {
            return Holder(self.0.clone()).start(container, view);
        }
        Run::Serve(Serve { exits: Some((Duration::from_millis(100), 1)), stop: Duration::ZERO })
    }
}

// === impl PgJob ===

impl PgJob {
    /// The files at `root`, which must be mounted; exclusively, where they are to be changed.
    fn files<'w>(
        &mut self,
        world: &'w mut World,
        view: &View<'_>,
        root: &str,
        to_write: bool,
    ) -> Result<(&'w mut Files, Option<Next>), Failure> {
        let mounts = self.container.spec["ContainerSpec"]["Mounts"].as_array().cloned().unwrap_or_default();
        let mount = mounts.iter().find(|m| m["Target"].as_str().is_some_and(|t| root.starts_with(t)));
        let mount = mount.ok_or_else(|| Failure::refused(format!("cannot open the data at {root}")))?;
        if to_write && mount["ReadOnly"] == true {
            return Err(Failure::refused(format!("{root} is mounted read-only")));
        }
        let files = self.holder(world, root).and_then(|service| world.files.get_mut(&service));
        let files = files.ok_or_else(|| Failure::refused(format!("{root} is an empty volume")))?;
        if files.locked_by.as_ref().is_some_and(|task| view.container(task).is_none()) {
            files.locked_by = None;
        }
        if !to_write {
            return Ok((files, None));
        }
        if files.locked_by.as_ref().is_some_and(|task| *task != self.container.task) {
            let since = *self.since.get_or_insert(view.at);
            if view.at - since > LOCK_WITHIN {
                return Err(Failure::unready("another job of Skep is at work there"));
            }
            return Ok((files, Some(Next::Again(Duration::from_millis(20)))));
        }
        files.locked_by = Some(self.container.task.clone());
        Ok((files, None))
    }

    /// The service whose files are mounted at `root`.
    fn holder(&self, world: &World, root: &str) -> Option<String> {
        let mounts = self.container.spec["ContainerSpec"]["Mounts"].as_array()?;
        let mount = mounts.iter().find(|m| m["Target"].as_str().is_some_and(|t| root.starts_with(t)))?;
        world.volumes.get(mount["Source"].as_str()?).cloned()
    }

    /// The service whose server answers at an address.
    fn server_of(&self, view: &View<'_>, connect: &Connect) -> Result<String, Failure> {
        let found = view.resolve(&self.container, &connect.host);
        let server =
            found.first().ok_or_else(|| Failure::unready(format!("{} does not resolve", connect.host)))?;
        Ok(server.service.clone())
    }

    pub(super) fn dir_inspect(&mut self, world: &mut World, view: &View<'_>, task: &DirInspect) -> Worked {
        let server = task.connect.as_ref().map(|connect| self.server_of(view, connect)).transpose()?;
        let (free, capacity) = world.room;
        let (files, _) = self.files(world, view, &task.root, false)?;
        let side = |(name, side): (&String, &Side)| SideFound {
            side: name.clone(),
            state: side.state,
            size: size_of(&side.new),
        };
        let mut found = DirInspection {
            server_version: server.as_ref().map(|_| files.version()),
            settings: server.as_ref().map(|_| settings()),
            size: size_of(&files.live),
            entries: length(b""),
            free,
            capacity,
            sides: files.sides.iter().map(side).collect(),
            ..DirInspection::default()
        };
        let asked = server.is_some().then(|| files.clone());
        for stored in &task.backups {
            self.needs_store(false)?;
            let (itself, theirs) = match world.store.open(stored) {
                Ok(manifest) => (Vec::new(), manifest.server_version),
                Err(why) => (vec![why], String::new()),
            };
            found.backups.insert(stored.id.clone(), itself);
            if asked.as_ref().is_some_and(|files| files.is_older_than(&theirs)) {
                let why = format!("it is of version {theirs}, the server is older");
                found.lacking.insert(stored.id.clone(), vec![why]);
            }
        }
        Ok(Next::Done(Box::new(Report::DirInspect(Box::new(found)))))
    }

    pub(super) fn dir_dump(&mut self, world: &mut World, view: &View<'_>, task: &DirDump) -> Worked {
        self.needs_store(true)?;
        let pace = world.pace.dump;
        let (file, live, version) = match (task.engine, task.volumes.as_slice()) {
            (DataEngine::Volume, [volume]) => {
                let (files, _) = self.files(world, view, &volume.root, false)?;
                (format!("{}.tar", volume.name), files.live.clone(), String::new())
            }
            (DataEngine::Volume, _) => return Err(Failure::refused("the model knows one volume")),
            (DataEngine::Redis | DataEngine::Mysql, _) => {
                let connect = task.connect.as_ref().ok_or_else(|| Failure::refused("no server is named"))?;
                let service = self.server_of(view, connect)?;
                let files = world.files.get(&service).ok_or_else(|| Failure::unready("no server there"))?;
                ("all.sql".to_owned(), files.live.clone(), files.version())
            }
        };
        if self.phase == 0 {
            world.store.empty(&task.dir)?;
            self.content = live;
            self.started = view.now.to_string();
            return Ok(Next::More("dump", pace));
        }
        let bytes = serde_json::to_vec(&self.content).expect("rows by table are JSON");
        let artefact = Artefact { file: file.clone(), size: length(&bytes), sha256: sha256(&bytes) };
        let entries = self.content.values().sum();
        let contents =
            Contents { settings: Some(settings()), size: artefact.size, entries, ..Contents::default() };
        world.store.write(&task.dir, &file, bytes);
        Ok(Next::Done(Box::new(Report::DirDump(Box::new(DirDumped {
            artefacts: vec![artefact],
            server_version: version,
            tool_version: "simulated".to_owned(),
            started: self.started.clone(),
            ended: view.now.to_string(),
            contents,
        })))))
    }

    /// Reads the files as their engine does, besides their checksums.
    pub(super) fn dir_seal(&self, world: &mut World, task: &DirSeal) -> Worked {
        let DirSeal { engine, dir, manifest } = task;
        for artefact in &manifest.artefacts {
            let bytes = world.store.file(dir, &artefact.file);
            if bytes.is_some_and(|bytes| serde_json::from_slice::<Content>(bytes).is_err()) {
                return Err(Failure::refused(format!("{} is no file of a {engine:?}", artefact.file)));
            }
        }
        self.dir_seal_as(world, &PgSeal { dir: dir.clone(), manifest: manifest.clone() })
    }

    /// As [`PgJob::seal`], with the report of other engines.
    pub(super) fn dir_seal_as(&self, world: &mut World, task: &PgSeal) -> Worked {
        Ok(match self.seal(world, task)? {
            Next::Done(report) => match *report {
                Report::PgSeal { manifest_sha256, size } => {
                    Next::Done(Box::new(Report::DirSeal { manifest_sha256, size }))
                }
                other => Next::Done(Box::new(other)),
            },
            other => other,
        })
    }

    pub(super) fn dir_examine(&self, world: &World, task: &DirExamine) -> Worked {
        let (manifest, _) = self.stored(world, task.engine, &task.stored)?;
        Ok(Next::Done(Box::new(Report::DirExamine { manifest: Box::new(manifest) })))
    }

    fn stored(
        &self,
        world: &World,
        engine: DataEngine,
        stored: &Stored,
    ) -> Result<(Manifest, Content), Failure> {
        self.needs_store(false)?;
        let manifest = world.store.open(stored)?;
        let is_named = match engine {
            DataEngine::Volume => manifest.engine == "volume",
            DataEngine::Redis => manifest.engine == "redis",
            DataEngine::Mysql => matches!(manifest.engine.as_str(), "mysql" | "mariadb"),
        };
        if !is_named {
            return Err(Failure::refused(format!("backup {} is one of `{}`", stored.id, manifest.engine)));
        }
        let bytes = world.store.whole(&stored.dir, &manifest)?;
        let content = serde_json::from_slice(bytes).map_err(|e| Failure::refused(e.to_string()))?;
        Ok((manifest, content))
    }

    pub(super) fn dir_load(&mut self, world: &mut World, view: &View<'_>, task: &DirLoad) -> Worked {
        let (manifest, content) = self.stored(world, task.engine, &task.stored)?;
        let pace = world.pace.load;
        let phase = self.phase;
        let (files, wait) = self.files(world, view, &task.root, true)?;
        if let Some(wait) = wait {
            return Ok(wait);
        }
        if files.is_older_than(&manifest.server_version) {
            return Err(Failure::refused("the scratch server does not understand the dump"));
        }
        let moved = |side: &Side| !matches!(side.state, SideState::Loading | SideState::Loaded);
        if files.sides.get(&task.side).is_some_and(moved) {
            return Err(Failure::refused(format!("`{}` was moved already", task.side)));
        }
        let new = if phase == 0 { Content::new() } else { half_of(&content) };
        let side = Side { state: SideState::Loading, new, old: Content::new(), is_forward: true };
        files.sides.insert(task.side.clone(), side);
        if phase < 2 {
            return Ok(Next::More("load", pace));
        }
        let checks =
            task.checks.iter().map(|check| sql_outcome(check, query(&content, &check.sql))).collect();
        let side = files.sides.get_mut(&task.side).expect("it was put there just now");
        (side.new, side.state) = (content.clone(), SideState::Loaded);
        let loaded = DirLoaded { size: size_of(&content), entries: 1, seconds: 1.0, checks };
        Ok(Next::Done(Box::new(Report::DirLoad(Box::new(loaded)))))
    }

    pub(super) fn dir_move(&mut self, world: &mut World, view: &View<'_>, task: &DirMove) -> Worked {
        let pace = world.pace.short;
        let running = self.holder(world, &task.root).filter(|service| {
            view.containers(service).iter().any(|container| !container.image().starts_with(PAGE))
        });
        let (files, wait) = self.files(world, view, &task.root, true)?;
        if let Some(wait) = wait {
            return Ok(wait);
        }
        let before = files.half;
        let more = files.step(&task.side, task.direction)?;
        let moved = files.half != before;
        if let Some(service) = running.filter(|_| moved) {
            world.violations.push(format!("files of {service} were moved while it ran"));
        }
        if more {
            return Ok(Next::More("move", pace));
        }
        Ok(Next::Done(Box::new(Report::DirMove(DirMoved { renamed: u64::from(moved), ms: 1 }))))
    }

    pub(super) fn dir_remove(&mut self, world: &mut World, view: &View<'_>, task: &DirRemove) -> Worked {
        let (files, wait) = self.files(world, view, &task.root, true)?;
        if let Some(wait) = wait {
            return Ok(wait);
        }
        for side in &task.sides {
            if files.sides.get(side).is_some_and(|s| s.state == SideState::Moving) {
                return Err(Failure::refused(format!("`{side}` is moved half way: it holds live data")));
            }
            files.sides.remove(side);
        }
        Ok(Next::Done(Box::new(Report::Done)))
    }

    pub(super) fn data_checks(&mut self, world: &World, view: &View<'_>, task: &DataChecks) -> Worked {
        let files = self
            .server_of(view, &task.connect)
            .and_then(|service| world.files.get(&service).ok_or_else(|| Failure::unready("no server there")));
        let asked = files.map(|files| {
            task.checks.iter().map(|check| sql_outcome(check, query(&files.live, &check.sql))).collect()
        });
        self.until_passed(view, task.deadline_s, &task.checks, asked)
    }
}

fn settings() -> ServerSettings {
    ServerSettings::Mysql(MysqlSettings {
        page_size: 16_384,
        data_file_path: "ibdata1:12M:autoextend".to_owned(),
        lower_case_table_names: 0,
        character_set: "utf8mb4".to_owned(),
        collation: "utf8mb4_general_ci".to_owned(),
    })
}
