//! A job of Skep on the model, step by step.

use std::time::Duration;

use skep_runner::line::FaultKind;
use skep_runner::store::MARK;
use skep_runner::task::Connect;
use skep_runner::{Fault, Line, Progress, Report, Task, Ticket};

use super::server::{Server, Session};
use super::store::Store;
use super::{Content, Data, World};
use crate::sim::workload::{Container, Process, Step, Then, View};

/// Longest wait for the lock of another job.
const LOCK_WITHIN: Duration = Duration::from_secs(30);
/// Longest text of one report line.
const PART: usize = 8 * 1024;

/// A running job.
pub(super) struct PgJob {
    pub(super) data: Data,
    pub(super) ticket: Ticket,
    pub(super) container: Container,
    /// Number of the stretch of work that comes next.
    pub(super) phase: u32,
    pub(super) since: Option<Duration>,
    waiting_since: Option<Duration>,
    pub(super) content: Content,
    pub(super) bytes: Vec<u8>,
    pub(super) started: String,
}

/// What a step came to.
pub(super) enum Next {
    /// Work goes on after a time.
    More(&'static str, Duration),
    /// This is told, and work goes on after a time.
    Tell(Progress, Duration),
    /// The same again after a time.
    Again(Duration),
    Done(Box<Report>),
}

/// Why a job ends early.
pub(super) struct Failure {
    kind: FaultKind,
    pub(super) message: String,
}

pub(super) type Worked = Result<Next, Failure>;

// === impl Failure ===

impl Failure {
    pub(super) fn refused(message: impl Into<String>) -> Failure {
        Failure { kind: FaultKind::Final, message: message.into() }
    }

    pub(super) fn barred(message: impl Into<String>) -> Failure {
        Failure { kind: FaultKind::Circumstance, message: message.into() }
    }

    /// Whether another attempt may help.
    pub(super) fn is_passing(&self) -> bool {
        self.kind == FaultKind::Transient
    }

    pub(super) fn unready(message: impl Into<String>) -> Failure {
        Failure { kind: FaultKind::Transient, message: message.into() }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::refused(message)
    }
}

// === impl PgJob ===

impl PgJob {
    pub(super) fn new(data: Data, ticket: Ticket, container: Container) -> PgJob {
        PgJob {
            data,
            ticket,
            container,
            phase: 0,
            since: None,
            waiting_since: None,
            content: Content::new(),
            bytes: Vec::new(),
            started: String::new(),
        }
    }

    fn work(&mut self, view: &View<'_>) -> Worked {
        if let Task::NetChecks(task) = &self.ticket.task {
            // Asks applications, which look at the data themselves.
            return self.net_checks(view, &task.clone());
        }
        if let Task::CommandChecks(task) = &self.ticket.task {
            return self.command_checks(view, &task.clone());
        }
        let data = self.data.clone();
        let world = &mut *data.lock();
        if let Task::Store(task) = self.ticket.task.clone() {
            self.knows_place(world, &task)?;
            return self.move_backup(world, &task);
        }
        let store = self.source(skep_runner::STORE_PATH).and_then(|source| world.other(&source, self.node()));
        let Some(store) = store else { return self.work_on(world, view) };
        // Its store is the one that is mounted.
        let exchange = |world: &mut World| {
            let other = world.others.get_mut(&store).expect("it was there");
            std::mem::swap(&mut world.store, other);
        };
        exchange(world);
        let worked = self.work_on(world, view);
        exchange(world);
        worked
    }

    fn work_on(&mut self, world: &mut World, view: &View<'_>) -> Worked {
        if self.ticket.schema > skep_runner::SCHEMA {
            return Err(Failure::refused(format!("the ticket has format {}", self.ticket.schema)));
        }
        self.knows(&world.store)?;
        let done = |()| Next::Done(Box::new(Report::Done));
        match self.ticket.task.clone() {
            Task::Probe => Ok(Next::Done(Box::new(Report::Probe { version: "simulated".to_owned() }))),
            Task::PgInspect(task) => self.inspect(world, view, &task),
            Task::PgDump(task) => self.dump(world, view, &task),
            Task::PgSeal(task) => self.seal(world, &task),
            Task::PgExamine(stored) => {
                self.needs_store(false)?;
                let manifest = world.store.open(&stored)?;
                world.store.whole(&stored.dir, &manifest)?;
                Ok(Next::Done(Box::new(Report::PgExamine { manifest: Box::new(manifest) })))
            }
            Task::PgRestore(task) => self.restore(world, view, &task),
            Task::SqlChecks(task) => self.sql_checks(world, view, &task),
            Task::PgFence(task) => {
                let (server, wait) = self.locked(world, view, &task.connect)?;
                match wait {
                    Some(wait) => Ok(wait),
                    None => Ok(done(server.fence(&task.databases, task.allow)?)),
                }
            }
            Task::PgSwap(task) => self.swap(world, view, &task),
            Task::PgDrop(task) => {
                let (server, wait) = self.locked(world, view, &task.connect)?;
                match wait {
                    Some(wait) => Ok(wait),
                    None => Ok(done(server.drop_all(&task.databases)?)),
                }
            }
            Task::PgCreateRoles(task) => self.create_roles(world, view, &task),
            Task::PgDropRoles(task) => self.drop_roles(world, view, &task),
            Task::PgInPlace(task) => self.in_place(world, view, &task),
            Task::PgTakeBase(task) => self.take_base(world, view, &task),
            Task::PgReceive(task) => self.receive(world, view, &task),
            Task::PgRecover(task) => self.recover(world, view, &task),
            Task::PgDropSlot(task) => self.drop_slot(world, view, &task),
            Task::WalPrune(task) => self.prune_log(world, &task),
            Task::NetChecks(_) | Task::CommandChecks(_) => Err(Failure::refused("these checks need no data")),
            Task::RedisFlush(task) => {
                let host = view.resolve(&self.container, &task.connect.host);
                let host = host.first().ok_or_else(|| Failure::unready("the cache does not resolve"))?;
                let cache = world.caches.get_mut(&host.service);
                cache.ok_or_else(|| Failure::refused("this is no cache"))?.clear();
                Ok(done(()))
            }
            Task::DirInspect(task) => self.dir_inspect(world, view, &task),
            Task::DirDump(task) => self.dir_dump(world, view, &task),
            Task::DirSeal(task) => self.dir_seal(world, &task),
            Task::DirExamine(task) => self.dir_examine(world, &task),
            Task::DirLoad(task) => self.dir_load(world, view, &task),
            Task::DirMove(task) => self.dir_move(world, view, &task),
            Task::DirRemove(task) => self.dir_remove(world, view, &task),
            Task::DataChecks(task) => self.data_checks(world, view, &task),
            Task::CommandDump(task) => self.command_dump(world, view, &task),
            Task::CommandSeal(task) => self.command_seal(world, &task),
            Task::CommandExamine(task) => self.command_examine(world, &task),
            Task::CommandLoad(task) => self.command_load(world, view, &task),
            Task::CommandDrill(task) => self.command_drill(world, &task),
            Task::StoreVerify(task) => self.store_verify(world, &task),
            Task::StoreScan(task) => {
                self.needs_store(false)?;
                Ok(Next::Done(Box::new(Report::StoreScan(world.store.scan(&task)))))
            }
            Task::LayoutScan(task) => {
                self.needs_store(false)?;
                Ok(Next::Done(Box::new(Report::LayoutScan(Box::new(world.store.layout(&task.dir)?)))))
            }
            Task::LayoutCopy(task) => self.layout_copy(world, &task),
            Task::Store(_) => Err(Failure::refused("this is no runner's")),
            Task::Discard(task) => {
                self.needs_store(true)?;
                Ok(done(world.store.discard(&task.dir, task.sealed)?))
            }
        }
    }

    /// Connects, or finds that the session of an earlier step was ended.
    pub(super) fn connect<'w>(
        &self,
        world: &'w mut World,
        view: &View<'_>,
        connect: &Connect,
    ) -> Result<&'w mut Server, Failure> {
        let host = &connect.host;
        let found = view.resolve(&self.container, host);
        let found = found.first().ok_or_else(|| {
            Failure::unready(format!("could not translate host name \"{host}\" to address"))
        })?;
        let server = world.servers.get_mut(&found.service);
        let server =
            server.ok_or_else(|| Failure::unready(format!("connection to server at \"{host}\" failed")))?;
        server.forget_dead(view);
        let task = &self.container.task;
        if self.phase > 0 && !server.sessions.contains_key(task) {
            return Err(Failure::unready("terminating connection due to administrator command"));
        }
        self.log_in(server, connect)?;
        server.end_older_attempts(&self.ticket.fence, &self.ticket.session);
        let session = Session {
            database: 0,
            application: self.ticket.session.clone(),
            address: self.container.addresses().first().map(|a| (*a).to_owned()).unwrap_or_default(),
            user: connect.user.clone(),
        };
        server.sessions.entry(task.clone()).or_insert(session);
        Ok(server)
    }

    fn log_in(&self, server: &Server, connect: &Connect) -> Result<(), Failure> {
        let user = &connect.user;
        if !server.roles.contains(user) {
            return Err(Failure::refused(format!("role \"{user}\" does not exist")));
        }
        let given = connect.password_file.as_ref().map(|path| {
            let file = self.container.files.get(path);
            file.map(|bytes| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned())
        });
        match (given, &server.password) {
            (Some(None), _) => Err(Failure::refused("cannot read the secret")),
            (_, None) => Ok(()),
            (Some(Some(given)), Some(wanted)) if given == *wanted => Ok(()),
            _ => Err(Failure::refused(format!("password authentication failed for user \"{user}\""))),
        }
    }

    /// Connects and takes the lock of jobs that change databases, or waits for it.
    pub(super) fn locked<'w>(
        &mut self,
        world: &'w mut World,
        view: &View<'_>,
        connect: &Connect,
    ) -> Result<(&'w mut Server, Option<Next>), Failure> {
        let server = self.connect(world, view, connect)?;
        let task = &self.container.task;
        match &server.locked_by {
            Some(holder) if holder != task => {
                let since = *self.waiting_since.get_or_insert(view.at);
                if view.at - since > LOCK_WITHIN {
                    let text = "another job of Skep is changing databases of this server";
                    return Err(Failure::unready(text));
                }
                Ok((server, Some(Next::Again(Duration::from_millis(200)))))
            }
            _ => {
                server.locked_by = Some(task.clone());
                Ok((server, None))
            }
        }
    }

    pub(super) fn mounts(&self, target: &str) -> Option<bool> {
        let mounts = self.container.spec["ContainerSpec"]["Mounts"].as_array()?;
        let mount = mounts.iter().find(|m| m["Target"] == target)?;
        Some(mount["ReadOnly"].as_bool().unwrap_or(false))
    }

    /// What is mounted at a path: the name of a volume, or a directory of the host.
    pub(super) fn source(&self, target: &str) -> Option<String> {
        let mounts = self.container.spec["ContainerSpec"]["Mounts"].as_array()?;
        let mount = mounts.iter().find(|m| m["Target"] == target)?;
        mount["Source"].as_str().map(str::to_owned)
    }

    /// The node that it runs on.
    pub(super) fn node(&self) -> &str {
        &self.container.node
    }

    /// Whether the store is the one that its ticket means: the job looks before it begins.
    pub(super) fn knows(&self, store: &Store) -> Result<(), Failure> {
        let Some(anchors) = self.ticket.anchors.as_ref().filter(|_| self.phase == 0) else { return Ok(()) };
        let held = anchors.hold(|dir| match dir {
            Some(dir) => Ok(store.is_sealed(dir)),
            None => Ok(store.file("", MARK).is_some()),
        });
        held.map_err(|error| Failure::unready(error.to_string()))
    }

    pub(super) fn needs_store(&self, to_write: bool) -> Result<(), Failure> {
        match self.mounts(skep_runner::STORE_PATH) {
            None => Err(Failure::refused("cannot open the store")),
            Some(true) if to_write => Err(Failure::refused("the store is mounted read-only")),
            Some(_) => Ok(()),
        }
    }
}

impl Process for PgJob {
    fn step(&mut self, view: &View<'_>) -> Step {
        let brief = Duration::from_millis(50);
        match self.work(view) {
            Ok(Next::More(phase, after)) => {
                self.phase += 1;
                let progress = Progress { phase: phase.to_owned(), done: u64::from(self.phase), total: None };
                Step { lines: vec![told(&Line::Progress(progress))], then: Then::Next(after) }
            }
            Ok(Next::Tell(progress, after)) => {
                self.phase += 1;
                Step { lines: vec![told(&Line::Progress(progress))], then: Then::Next(after) }
            }
            Ok(Next::Again(after)) => Step { lines: Vec::new(), then: Then::Next(after) },
            Ok(Next::Done(report)) => Step { lines: report_lines(&report), then: Then::Exit(brief, 0) },
            Err(Failure { kind, message }) => {
                let code = if kind == FaultKind::Transient { 1 } else { 2 };
                let line = told(&Line::Fault(Fault { kind, message }));
                Step { lines: vec![line], then: Then::Exit(brief, code) }
            }
        }
    }
}

fn told(line: &Line) -> String {
    serde_json::to_string(line).expect("a line has string keys only")
}

/// A report, cut into parts.
fn report_lines(report: &Report) -> Vec<String> {
    let text = serde_json::to_string(report).expect("a report has string keys only");
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (part, left) = rest.split_at(rest.floor_char_boundary(PART.min(rest.len())));
        parts.push(part.to_owned());
        rest = left;
    }
    let of = u32::try_from(parts.len()).expect("few parts");
    (0..of).zip(parts).map(|(part, text)| told(&Line::Report { part, of, text })).collect()
}
