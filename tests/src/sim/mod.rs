//! A Docker Swarm in memory that speaks the Docker HTTP API, for tests under paused time.
//!
//! ```text
//! test ── sim.client("driver-1") ──▶ duplex stream ──▶ http (faults) ──▶ api ──▶ engine ◀── agenda (simulated time)
//!      └─ sim.service(..), sim.tasks(..), sim.timeline() ─ look inside
//! ```
//!
//! It encodes what real engines were measured to do; the conformance suite runs the same cases against a real one.
//! Time is tokio's: under `start_paused` a simulated hour takes milliseconds, otherwise it passes as it does.

mod agenda;

mod api;
mod api_service;
pub mod build;
mod engine;
mod events;
mod fault;
mod filter;
mod http;
mod lifecycle;
mod logs;
mod node;
mod object;
mod options;
mod orchestrator;
pub mod postgres;
mod rollout;
mod scheduler;
pub mod shop;
#[cfg(test)]
mod shop_tests;
mod spec;
#[cfg(test)]
mod tests;
mod users;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use skep::swarm::object::TaskState;
use skep_runner::Ticket;
use tokio::sync::Notify;
use tokio::time::Instant;

use agenda::Due;
use engine::Engine;

pub use fault::{Call, Cut, Fault, Trigger};
pub use http::Connector;
pub use node::Loss;
pub use options::{SimOptions, Timing};
pub use users::{Answer, Front};
pub use workload::{
    Container, Ends, Jobs, Plain, Process, Run, Serve, Simple, Step, Then, Unhealthy, View, Workload,
};

/// A simulated Swarm. Clones are the same one.
#[derive(Clone)]
pub struct Sim {
    shared: Arc<Shared>,
    /// Ends the ticker with the last clone.
    _alive: Arc<Alive>,
}

/// What goes wrong in a simulated Swarm.
pub struct Faults<'a>(&'a Sim);

/// A task as the store has it, for assertions.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    /// Id.
    pub id: String,
    /// Service name when it was made.
    pub service: String,
    /// Slot, 0 for global services.
    pub slot: u64,
    /// Node id.
    pub node: Option<String>,
    /// What it is.
    pub state: TaskState,
    /// What it should be.
    pub desired: TaskState,
    /// The engine's error text.
    pub error: String,
    /// Exit code, once there was a container.
    pub exit_code: Option<i64>,
    /// Its task template.
    pub spec: Value,
}

struct Alive(tokio::task::JoinHandle<()>);

struct Shared {
    engine: Mutex<Engine>,
    changed: Notify,
    epoch: Instant,
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Waits while the managers have no leader.
    async fn thawed(&self) {
        loop {
            let until = self.lock().book.frozen_until;
            if self.now() >= until {
                return;
            }
            tokio::time::sleep_until(self.epoch + until).await;
        }
    }

    /// Lets simulated time pass over what is due.
    async fn tick(&self) {
        loop {
            let next = {
                let mut engine = self.lock();
                engine.advance(self.now());
                engine.agenda.next()
            };
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(self.epoch + at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Sim ===

impl Sim {
    /// Starts a Swarm. Needs a tokio runtime.
    pub fn new(options: SimOptions) -> Sim {
        let engine = Mutex::new(Engine::new(options));
        let shared = Arc::new(Shared { engine, changed: Notify::new(), epoch: Instant::now() });
        let ticker = Arc::clone(&shared);
        let alive = Alive(tokio::spawn(async move { ticker.tick().await }));
        Sim { shared, _alive: Arc::new(alive) }
    }

    /// The simulated wall clock.
    pub fn now(&self) -> Timestamp {
        self.with(|engine| engine.clock())
    }

    /// Simulated time since the start.
    pub fn elapsed(&self) -> Duration {
        self.shared.now()
    }

    /// Sets what containers of an image do.
    pub fn workload(&self, image: &str, workload: impl Workload + 'static) {
        self.with(|engine| engine.workloads.set(image, Arc::new(workload)));
    }

    /// What a tag means in its registry from now on; without a digest the registry does not answer.
    pub fn push(&self, tagged: &str, digest: Option<&str>) {
        self.with(|engine| engine.workloads.push(tagged, digest));
    }

    /// Makes an image one that no node has.
    pub fn missing_image(&self, image: &str) {
        self.with(|engine| engine.workloads.set_missing(image));
    }

    /// Sets what Skep's jobs do.
    pub fn jobs(&self, jobs: impl Jobs + 'static) {
        self.with(|engine| engine.workloads.set_jobs(Arc::new(jobs)));
    }

    /// Sets where users come in; from now on the timeline is kept.
    pub fn front(&self, front: Front) {
        self.with(|engine| engine.users.front = Some(front));
    }

    /// What users could see, since when: every change.
    pub fn timeline(&self) -> Vec<(Duration, BTreeSet<Answer>)> {
        self.with(|engine| engine.users.timeline.clone())
    }

    /// Lets users look now: after a change of what workloads hold that the Swarm does not see.
    pub fn look(&self) {
        self.with(Engine::look);
    }

    /// What goes wrong.
    pub fn faults(&self) -> Faults<'_> {
        Faults(self)
    }

    /// Makes an overlay network; its id.
    pub fn network(&self, name: &str) -> String {
        self.with(|engine| engine.add_network(name, false))
    }

    /// The raw JSON of a service, by id or name.
    pub fn service(&self, name: &str) -> Option<Value> {
        self.with(|engine| api_service::find(&engine.raft, name).ok().map(object::Service::json))
    }

    /// The names of all services.
    pub fn services(&self) -> Vec<String> {
        self.with(|engine| engine.raft.services.values().map(|s| s.name().to_owned()).collect())
    }

    /// The tasks in the store that were made for a service of this name, oldest first.
    pub fn tasks(&self, service: &str) -> Vec<TaskInfo> {
        self.with(|engine| {
            let tasks = engine.raft.tasks.values().filter(|t| t.service_name == service);
            let mut tasks: Vec<&object::Task> = tasks.collect();
            tasks.sort_by_key(|t| t.meta.created);
            tasks.into_iter().map(TaskInfo::of).collect()
        })
    }

    /// What really runs for a service, whatever the store says.
    pub fn containers(&self, service: &str) -> Vec<Container> {
        self.with(|engine| engine.containers.values().filter(|c| c.service == service).cloned().collect())
    }

    /// Skep's configs of a kind (the value of `skep.kind`), as raw JSON.
    pub fn configs(&self, kind: &str) -> Vec<Value> {
        self.with(|engine| {
            let of_kind = |c: &&object::Stored| c.labels.get("skep.kind").is_some_and(|k| k == kind);
            engine.raft.configs.values().filter(of_kind).map(|c| c.json(true)).collect()
        })
    }

    /// The names of all configs and secrets.
    pub fn stored_names(&self) -> Vec<String> {
        self.with(|engine| {
            let all = engine.raft.configs.values().chain(engine.raft.secrets.values());
            all.map(|o| o.name.clone()).collect()
        })
    }

    /// Ids of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.with(|engine| engine.raft.nodes.keys().cloned().collect())
    }

    /// Looks at the containers as workloads do.
    pub fn view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        self.with(|engine| look(&engine.view()))
    }

    /// Calls back after a time, between two moments of the simulation.
    pub fn plan(&self, after: Duration, act: impl FnOnce() + Send + 'static) {
        self.with(|engine| engine.plan(after, Box::new(move |_| act())));
    }

    /// Waits until a condition holds; looks after every change of simulated time.
    ///
    /// # Panics
    /// When it does not hold after `within` of simulated time.
    pub async fn until(&self, within: Duration, what: &str, mut holds: impl FnMut(&Sim) -> bool) {
        let end = self.elapsed() + within;
        while !holds(self) {
            assert!(self.elapsed() < end, "{what}: not so after {within:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Engine) -> T) -> T {
        let result = {
            let mut engine = self.shared.lock();
            engine.advance(self.shared.now());
            act(&mut engine)
        };
        self.shared.changed.notify_one();
        result
    }
}

// === impl Engine ===

impl Engine {
    fn plan(&mut self, after: Duration, act: engine::Plan) {
        let number = u64::try_from(self.planned.len()).expect("few") + self.raft.version * 1_000;
        self.planned.insert(number, act);
        self.agenda.add(self.now + after, Due::Planned(number));
    }
}

// === impl TaskInfo ===

impl TaskInfo {
    fn of(task: &object::Task) -> TaskInfo {
        TaskInfo {
            id: task.meta.id.clone(),
            service: task.service_name.clone(),
            slot: task.slot,
            node: task.node.clone(),
            state: task.status.state,
            desired: task.desired,
            error: task.status.error.clone(),
            exit_code: task.status.container.as_ref().map(|(_, code)| *code),
            spec: task.spec.clone(),
        }
    }
}

// === impl Faults ===

impl Faults<'_> {
    /// Plans a fault for a call of a client; it strikes once.
    pub fn on(&self, client: &str, trigger: Trigger, fault: Fault) {
        self.0.with(|engine| engine.book.add_rule(client, trigger, fault));
    }

    /// Kills a client: its connections break, and it gets no new ones.
    pub fn kill(&self, client: &str) {
        self.0.with(|engine| engine.book.set_dead(client, true));
    }

    /// Lets a killed client connect again.
    pub fn revive(&self, client: &str) {
        self.0.with(|engine| engine.book.set_dead(client, false));
    }

    /// The managers lose their leader: their API hangs for a time (10 to 16 s in reality), then goes on.
    pub fn freeze_leader(&self, time: Duration) {
        self.0.with(|engine| engine.book.frozen_until = engine.now + time);
    }

    /// Cuts the manager that a client talks to off from the others: it answers reads from what it knew for a
    /// while, its writes hang and then fail.
    pub fn partition(&self, client: &str) {
        self.0.with(|engine| {
            let state = Some((engine.now, Box::new(engine.raft.clone())));
            engine.book.cut_off(client, state);
        });
    }

    /// Ends [`Faults::partition`].
    pub fn heal(&self, client: &str) {
        self.0.with(|engine| engine.book.cut_off(client, None));
    }

    /// Loses the next `count` events.
    pub fn lose_events(&self, count: usize) {
        self.0.with(|engine| engine.events.lose(count));
    }

    /// A node goes away; the managers notice after their heartbeat.
    pub fn lose_node(&self, node: &str, loss: Loss) {
        self.0.with(|engine| engine.lose_node(node, loss));
    }

    /// A node comes back.
    pub fn return_node(&self, node: &str) {
        self.0.with(|engine| engine.return_node(node));
    }

    /// Kills (SIGKILL, exit code 137) the next job whose ticket matches, after so many of its steps.
    pub fn kill_job(&self, after_steps: usize, which: impl Fn(&Ticket) -> bool + Send + 'static) {
        self.0.with(|engine| engine.book.job_kills.push((Box::new(which), after_steps)));
    }

    /// The calls of a client.
    pub fn calls(&self, client: &str) -> Vec<Call> {
        self.0.with(|engine| engine.book.calls(client))
    }

    /// How often each endpoint template was called by a client.
    pub fn counts(&self, client: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.calls(client) {
            *counts.entry(call.endpoint).or_default() += 1;
        }
        counts
    }

    /// How many writes a client has made.
    pub fn writes(&self, client: &str) -> usize {
        self.0.with(|engine| engine.book.writes(client))
    }
}
