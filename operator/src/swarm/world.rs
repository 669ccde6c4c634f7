//! All that Skep needs to know of a swarm, at one time: immutable and comparable.
//!
//! Invariants: a world is complete or it is not made; it holds no data of plans and sleepers (specs can hold secrets, S15) and no
//! runner; two worlds are equal when they say the same, whenever they were taken. The parts are read one after
//! another, so they are of slightly different moments: whoever acts reads the object that he acts on again.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{BoxStream, StreamExt};
use futures::try_join;
use jiff::Timestamp;

use super::engine::Engine;
use super::error::Error;
use super::object::{
    Config, ENABLE, Event, EventKind, Info, KIND, Kind, Labels, Network, Node, OP, Service, Task, TaskState,
};
use super::{job, lease};
use crate::runtime::{Source, clock};

/// The value of [`ENABLE`] that opts a service in.
const ENABLED: &str = "true";
/// What the names of all of Skep's configs begin with.
const OURS: &str = "skep-";

/// See the module.
#[derive(Clone, Debug)]
pub struct World {
    /// When it was taken.
    pub taken: Timestamp,
    /// The engine.
    pub info: Info,
    /// Services with `skep.enable=true`, by id.
    pub services: BTreeMap<String, Service>,
    /// Services that belong to operations (jobs, stand-ins, canaries), by id.
    pub jobs: BTreeMap<String, Service>,
    /// Tasks of all of those, by service, slot and age.
    pub tasks: Vec<Task>,
    /// Nodes by id.
    pub nodes: BTreeMap<String, Node>,
    /// Networks by id.
    pub networks: BTreeMap<String, Network>,
    /// Operations by name, which is by age.
    pub operations: Vec<Config>,
    /// Plans by name, without their data.
    pub plans: Vec<Config>,
    /// Tickets by name.
    pub tickets: Vec<Config>,
    /// Backup catalogue by name.
    pub backups: Vec<Config>,
    /// Who holds which service, by name.
    pub claims: Vec<Config>,
    /// Histories of alert incidents, by name.
    pub guards: Vec<Config>,
    /// Pages, by name.
    pub pages: Vec<Config>,
    /// What sleeps, by name, without the specs that it goes back to.
    pub sleepers: Vec<Config>,
}

/// Reads worlds for a [`crate::runtime::Watcher`].
#[derive(Clone, Debug)]
pub struct WorldSource {
    engine: Engine,
}

/// What events ask to be read again, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    services: BTreeSet<String>,
    configs: BTreeSet<String>,
    nodes: bool,
    networks: bool,
}

// === impl World ===

impl World {
    /// Reads everything.
    ///
    /// # Errors
    /// When any of it cannot be read.
    pub async fn load(engine: &Engine, now: Timestamp) -> Result<World, Error> {
        // Each of these futures is large; a dozen of them would make one of 25 KB.
        let kind = |kind| Box::pin(engine.configs(kind, &[]));
        let (info, services, jobs, nodes, networks) = try_join!(
            engine.info(),
            engine.services(&[(ENABLE, Some(ENABLED))]),
            engine.services(&[(OP, None)]),
            Box::pin(engine.nodes()),
            Box::pin(engine.networks()),
        )?;
        let (operations, plans, tickets, backups, claims, guards, pages, sleepers) = try_join!(
            kind(Kind::Operation),
            kind(Kind::Plan),
            kind(Kind::Ticket),
            kind(Kind::Backup),
            kind(Kind::Claim),
            kind(Kind::Guard),
            kind(Kind::Page),
            kind(Kind::Sleep),
        )?;
        let mut world = World {
            taken: now,
            info,
            services: services.into_iter().map(|s| (s.id.clone(), s)).collect(),
            jobs: jobs.into_iter().map(|s| (s.id.clone(), s)).collect(),
            tasks: Vec::new(),
            nodes: nodes.into_iter().map(|n| (n.id.clone(), n)).collect(),
            networks: networks.into_iter().map(|n| (n.id.clone(), n)).collect(),
            operations: by_name(operations),
            plans: without_data(by_name(plans)),
            tickets: by_name(tickets),
            backups: by_name(backups),
            claims: by_name(claims),
            guards: by_name(guards),
            pages: by_name(pages),
            sleepers: without_data(by_name(sleepers)),
        };
        world.read_tasks(engine).await?;
        Ok(world)
    }

    /// A newer world: what the events are about and all tasks (they have no events) are read again, the rest is that of
    /// this one.
    ///
    /// # Errors
    /// When any of it cannot be read.
    pub async fn refresh(&self, engine: &Engine, events: &[Event], now: Timestamp) -> Result<World, Error> {
        let mut world = World { taken: now, ..self.clone() };
        let wanted = Wanted::by(events);
        for id in &wanted.services {
            world.put_service(id, found(engine.service(id).await)?);
        }
        for id in &wanted.configs {
            world.put_config(id, found(engine.config(id).await)?.as_ref());
        }
        if wanted.nodes {
            world.nodes = engine.nodes().await?.into_iter().map(|n| (n.id.clone(), n)).collect();
        }
        if wanted.networks {
            world.networks = engine.networks().await?.into_iter().map(|n| (n.id.clone(), n)).collect();
        }
        world.read_tasks(engine).await?;
        Ok(world)
    }

    /// A service by its full name.
    pub fn service_named(&self, name: &str) -> Option<&Service> {
        self.services.values().find(|s| s.name() == name)
    }

    /// The enabled services of a stack.
    pub fn stack<'a>(&'a self, stack: &'a str) -> impl Iterator<Item = &'a Service> {
        self.services.values().filter(move |s| s.stack() == Some(stack))
    }

    /// The tasks of a service, those that have ended included.
    pub fn tasks_of(&self, service_id: &str) -> &[Task] {
        let from = self.tasks.partition_point(|t| t.service.as_str() < service_id);
        let to = self.tasks.partition_point(|t| t.service.as_str() <= service_id);
        &self.tasks[from..to]
    }

    /// How many tasks of a service run.
    pub fn running(&self, service_id: &str) -> usize {
        self.tasks_of(service_id).iter().filter(|t| t.state == TaskState::Running).count()
    }

    /// The services that an operation has made.
    pub fn jobs_of<'a>(&'a self, op: &'a str) -> impl Iterator<Item = &'a Service> {
        self.jobs.values().filter(move |s| s.spec["Labels"][OP] == op)
    }

    /// The list of configs of a kind; none for kinds that a world does not hold.
    pub fn configs(&self, kind: Kind) -> &[Config] {
        match kind {
            Kind::Operation => &self.operations,
            Kind::Plan => &self.plans,
            Kind::Ticket => &self.tickets,
            Kind::Backup => &self.backups,
            Kind::Claim => &self.claims,
            Kind::Guard => &self.guards,
            Kind::Page => &self.pages,
            Kind::Sleep => &self.sleepers,
            Kind::Runner
            | Kind::Waker
            | Kind::Door
            | Kind::Lease
            | Kind::Digest
            | Kind::Released
            | Kind::Canary
            | Kind::Point
            | Kind::PointPart => &[],
        }
    }

    async fn read_tasks(&mut self, engine: &Engine) -> Result<(), Error> {
        let ids: Vec<&str> = self.services.keys().chain(self.jobs.keys()).map(String::as_str).collect();
        let mut ids = ids;
        ids.sort_unstable();
        ids.dedup();
        let mut tasks = engine.tasks(&ids).await?;
        tasks.sort_by(|a, b| {
            (&a.service, a.slot, a.created, &a.id).cmp(&(&b.service, b.slot, b.created, &b.id))
        });
        self.tasks = tasks;
        Ok(())
    }

    fn put_service(&mut self, id: &str, service: Option<Service>) {
        let label = |name| service.as_ref().and_then(|s| s.spec["Labels"][name].as_str());
        let (is_enabled, is_job) = (label(ENABLE) == Some(ENABLED), label(OP).is_some());
        put(&mut self.services, id, service.clone().filter(|_| is_enabled));
        put(&mut self.jobs, id, service.filter(|_| is_job));
    }

    fn put_config(&mut self, id: &str, config: Option<&Config>) {
        let kind = config.and_then(|c| kind_of(&c.labels));
        for (of, list) in self.lists_mut() {
            let fresh = config.filter(|_| kind == Some(of)).cloned();
            list.retain(|c| c.id != id);
            if let Some(mut fresh) = fresh {
                if matches!(of, Kind::Plan | Kind::Sleep) {
                    fresh.data.clear();
                }
                let place = list.partition_point(|c| c.name < fresh.name);
                list.insert(place, fresh);
            }
        }
    }

    fn lists_mut(&mut self) -> [(Kind, &mut Vec<Config>); 8] {
        [
            (Kind::Operation, &mut self.operations),
            (Kind::Plan, &mut self.plans),
            (Kind::Ticket, &mut self.tickets),
            (Kind::Backup, &mut self.backups),
            (Kind::Claim, &mut self.claims),
            (Kind::Guard, &mut self.guards),
            (Kind::Page, &mut self.pages),
            (Kind::Sleep, &mut self.sleepers),
        ]
    }
}

/// When it was taken does not count.
impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        let World {
            taken: _,
            info,
            services,
            jobs,
            tasks,
            nodes,
            networks,
            operations,
            plans,
            tickets,
            backups,
            claims,
            guards,
            pages,
            sleepers,
        } = self;
        *info == other.info
            && *services == other.services
            && *jobs == other.jobs
            && *tasks == other.tasks
            && *nodes == other.nodes
            && *networks == other.networks
            && *operations == other.operations
            && *plans == other.plans
            && *tickets == other.tickets
            && *backups == other.backups
            && *claims == other.claims
            && *guards == other.guards
            && *pages == other.pages
            && *sleepers == other.sleepers
    }
}

// === impl WorldSource ===

impl WorldSource {
    /// Reads the worlds of this engine.
    pub fn new(engine: Engine) -> WorldSource {
        WorldSource { engine }
    }
}

impl Source for WorldSource {
    type Nudge = Event;
    type Nudges = BoxStream<'static, Result<Event, Error>>;
    type Snapshot = World;
    type Error = Error;

    async fn subscribe(&self) -> Result<Self::Nudges, Error> {
        let events = self.engine.events().await?;
        let relevant = |event: &Result<Event, Error>| event.as_ref().map_or(true, is_relevant);
        Ok(events.filter(move |event| std::future::ready(relevant(event))).boxed())
    }

    async fn list(&self) -> Result<World, Error> {
        Box::pin(World::load(&self.engine, clock::now())).await
    }

    async fn refresh(&self, last: &World, nudges: &[Event]) -> Result<World, Error> {
        Box::pin(last.refresh(&self.engine, nudges, clock::now())).await
    }

    fn is_same(old: &World, new: &World) -> bool {
        old == new
    }
}

// === impl Wanted ===

impl Wanted {
    fn by(events: &[Event]) -> Wanted {
        let mut wanted = Wanted::default();
        for event in events.iter().filter(|e| is_relevant(e)) {
            match event.kind {
                EventKind::Service => drop(wanted.services.insert(event.id.clone())),
                EventKind::Config => drop(wanted.configs.insert(event.id.clone())),
                EventKind::Node => wanted.nodes = true,
                EventKind::Network => wanted.networks = true,
                EventKind::Secret | EventKind::Other => {}
            }
        }
        wanted
    }
}

/// Whether an event can change a world. The lease moves every few seconds, and the runner is large.
fn is_relevant(event: &Event) -> bool {
    match event.kind {
        EventKind::Service | EventKind::Node | EventKind::Network => true,
        EventKind::Config => event.name.as_ref().is_none_or(|name| {
            name.starts_with(OURS) && name != lease::NAME && !name.starts_with(job::RUNNER_PREFIX)
        }),
        EventKind::Secret | EventKind::Other => false,
    }
}

fn kind_of(labels: &Labels) -> Option<Kind> {
    let text = labels.get(KIND)?;
    Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
}

fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn put<T>(map: &mut BTreeMap<String, T>, id: &str, object: Option<T>) {
    match object {
        Some(object) => drop(map.insert(id.to_owned(), object)),
        None => drop(map.remove(id)),
    }
}

fn by_name(mut configs: Vec<Config>) -> Vec<Config> {
    configs.sort_by(|a, b| a.name.cmp(&b.name));
    configs
}

fn without_data(mut configs: Vec<Config>) -> Vec<Config> {
    for config in &mut configs {
        config.data.clear();
    }
    configs
}
