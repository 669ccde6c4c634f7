//! The state of the simulated Swarm: the replicated store, the containers that really run, and what is due.
//!
//! ```text
//! API call ─▶ put_* (version, event, dirty marks) ─▶ settle: orchestrator · restarts · rollouts ─▶ users look
//! agenda   ─▶ nodes, scheduler, reaper ───────────▶ settle
//! ```
//!
//! Invariants: every write takes the next version, shared by all kinds; `containers` is what runs on the nodes and
//! is *not* what the store says of it; nothing happens outside an API call or an agenda entry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use skep::swarm::object::TaskState;

use super::agenda::{Agenda, Due, Moment};
use super::events::Events;
use super::fault::Book;
use super::lifecycle::Running;
use super::logs::Logs;
use super::object::{Meta, Network, Node, Service, Status, Stored, Task};
use super::options::SimOptions;
use super::orchestrator::Delay;
use super::rollout::Rollout;
use super::users::Users;
use super::workload::{Container, View, Workloads};

/// What the managers replicate.
#[derive(Clone, Debug, Default)]
pub(super) struct Raft {
    pub(super) version: u64,
    pub(super) services: BTreeMap<String, Service>,
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) configs: BTreeMap<String, Stored>,
    pub(super) secrets: BTreeMap<String, Stored>,
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) nodes: BTreeMap<String, Node>,
}

/// Something that a test planned.
pub(super) type Plan = Box<dyn FnOnce(&mut Engine) + Send>;

/// The whole simulation.
pub(super) struct Engine {
    pub(super) raft: Raft,
    pub(super) options: SimOptions,
    pub(super) now: Moment,
    pub(super) agenda: Agenda,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) running: BTreeMap<String, Running>,
    pub(super) rollouts: BTreeMap<String, Rollout>,
    pub(super) delays: BTreeMap<String, Delay>,
    /// Restarts of (service, slot or 0, node or empty) under a spec version.
    pub(super) restarts: BTreeMap<(String, u64, String), (u64, u64)>,
    pub(super) dirty: BTreeSet<String>,
    pub(super) over: BTreeSet<String>,
    pub(super) slots_to_reap: BTreeSet<(String, u64, String)>,
    pub(super) lost_nodes: BTreeMap<String, Moment>,
    /// What nodes that cannot be reached would say of their tasks.
    pub(super) unheard: BTreeMap<String, Status>,
    pub(super) events: Events,
    pub(super) logs: Logs,
    pub(super) workloads: Workloads,
    pub(super) users: Users,
    pub(super) book: Book,
    pub(super) planned: BTreeMap<u64, Plan>,
    ids: u64,
}

// === impl Engine ===

impl Engine {
    pub(super) fn new(options: SimOptions) -> Engine {
        let mut engine = Engine {
            raft: Raft { version: 10, ..Raft::default() },
            now: Duration::ZERO,
            agenda: Agenda::default(),
            containers: BTreeMap::new(),
            running: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            delays: BTreeMap::new(),
            restarts: BTreeMap::new(),
            dirty: BTreeSet::new(),
            over: BTreeSet::new(),
            slots_to_reap: BTreeSet::new(),
            lost_nodes: BTreeMap::new(),
            unheard: BTreeMap::new(),
            events: Events::default(),
            logs: Logs::default(),
            workloads: Workloads::default(),
            users: Users::default(),
            book: Book::default(),
            planned: BTreeMap::new(),
            ids: 0,
            options,
        };
        for index in 0..engine.options.nodes {
            engine.add_node(index);
        }
        engine.add_network("ingress", true);
        engine
    }

    fn add_node(&mut self, index: usize) {
        let meta = self.meta();
        let hostname = format!("n{}", index + 1);
        let manager = index < self.options.managers;
        let labels = BTreeMap::new();
        let node = Node { meta, hostname, labels, manager, drained: false, ready: true };
        self.raft.nodes.insert(node.meta.id.clone(), node);
    }

    /// Makes an overlay network; its id.
    pub(super) fn add_network(&mut self, name: &str, ingress: bool) -> String {
        let meta = self.meta();
        let subnet = u8::try_from(self.raft.networks.len()).expect("a test has few networks");
        let network = Network {
            meta: meta.clone(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            attachable: !ingress,
            ingress,
            subnet,
            used: 1,
        };
        self.raft.networks.insert(meta.id.clone(), network);
        self.events.send("network", "create", &meta.id, name, self.clock());
        meta.id
    }

    /// The simulated wall clock.
    pub(super) fn clock(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.now).expect("a simulation lasts less than ages");
        self.options.start + passed
    }

    /// A new id: 25 characters like Swarm's, the same in every run.
    pub(super) fn new_id(&mut self) -> String {
        self.ids += 1;
        let mixed = self.ids.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17) ^ self.options.seed;
        let base36 = |mut n: u64| {
            let mut text = Vec::new();
            for _ in 0..12 {
                text.push(
                    b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::try_from(n % 36).expect("below 36")],
                );
                n /= 36;
            }
            String::from_utf8(text).expect("letters and digits")
        };
        format!("{}{}{}", base36(mixed), base36(self.ids.wrapping_mul(7_919)), self.ids % 10)
    }

    /// What a new object has.
    pub(super) fn meta(&mut self) -> Meta {
        self.raft.version += 1;
        let now = self.clock();
        Meta { id: self.new_id(), version: self.raft.version, created: now, updated: now }
    }

    /// Counts a write to an object.
    pub(super) fn touch(&mut self, meta: &mut Meta) {
        self.raft.version += 1;
        meta.version = self.raft.version;
        meta.updated = self.clock();
    }

    /// Stores a changed service and tells the orchestrator and the listeners.
    pub(super) fn put_service(&mut self, mut service: Service) {
        self.touch(&mut service.meta);
        let id = service.meta.id.clone();
        let old = self.raft.services.get(&id).cloned();
        let attributes = changes(old.as_ref(), &service);
        self.events.send_with("service", "update", &id, self.clock(), attributes);
        self.raft.services.insert(id.clone(), service);
        self.dirty.insert(id);
    }

    /// Stores a changed task: follows its desired state on the node, and its end in the orchestrator.
    pub(super) fn put_task(&mut self, mut task: Task) {
        self.touch(&mut task.meta);
        let id = task.meta.id.clone();
        let old = self.raft.tasks.get(&id).map(|t| (t.desired, t.is_over()));
        if task.is_over() && old.is_none_or(|(_, over)| !over) {
            self.over.insert(id.clone());
            self.schedule_soon();
        }
        let told = self.now + self.options.timing.dispatch;
        if task.node.is_some() && old.is_some_and(|(desired, _)| desired != task.desired) {
            let due = if task.is_wanted() { Due::Start(id.clone()) } else { Due::Stop(id.clone()) };
            self.agenda.add(told, due);
        }
        if task.desired == TaskState::Remove {
            let gone = task.is_over() || task.status.state < TaskState::Assigned;
            if gone {
                self.agenda.add_once(self.now + self.options.timing.reap, Due::Reap);
            }
        }
        self.raft.tasks.insert(id, task);
    }

    /// Lets the scheduler look at unplaced tasks soon.
    pub(super) fn schedule_soon(&mut self) {
        self.agenda.add_once(self.now + self.options.timing.schedule, Due::Schedule);
    }

    /// Runs everything that is due until `now`, at its own moment each.
    pub(super) fn advance(&mut self, now: Moment) {
        while let Some((at, due)) = self.agenda.take(now) {
            self.now = self.now.max(at);
            self.happen(due);
            self.settle();
        }
        self.now = self.now.max(now);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Schedule => self.schedule(),
            Due::Prepare(task) => self.prepare(&task),
            Due::Prepared(task) => self.prepared(&task),
            Due::Start(task) => self.start(&task),
            Due::Started(task) => self.started(&task),
            Due::Step(task) => self.step(&task),
            Due::Exit(task, code) => self.exited(&task, code, ""),
            Due::Probe(task) => self.probe(&task),
            Due::Stop(task) => self.stop(&task),
            Due::Withdraw(task) => self.withdraw(&task),
            Due::Term(task) => self.term(&task),
            Due::Stopped(task) => self.stopped(&task),
            Due::Allocated(service) => {
                if let Some(service) = self.raft.services.get(&service).cloned() {
                    self.put_service(service);
                }
            }
            Due::Reap => self.reap(),
            Due::Settle => {}
            Due::NodeDown(node, since) => self.node_down(&node, since),
            Due::Planned(number) => {
                if let Some(act) = self.planned.remove(&number) {
                    act(self);
                }
            }
        }
    }

    /// Lets the managers' own loops run until nothing changes, then lets the users look.
    pub(super) fn settle(&mut self) {
        loop {
            if let Some(service) = self.dirty.pop_first() {
                self.reconcile(&service);
            } else if let Some(task) = self.over.pop_first() {
                self.task_over(&task);
            } else if !self.drive_delays() && !self.drive_rollouts() {
                break;
            }
        }
        self.look();
    }

    /// Lets the users look at what they would see now.
    pub(super) fn look(&mut self) {
        let mut users = std::mem::take(&mut self.users);
        users.look(&self.view());
        self.users = users;
    }

    /// What workloads see.
    pub(super) fn view(&self) -> View<'_> {
        View { now: self.clock(), at: self.now, containers: &self.containers, workloads: &self.workloads }
    }
}

/// The attributes of an update event.
fn changes(old: Option<&Service>, new: &Service) -> serde_json::Map<String, Value> {
    let mut map = serde_json::Map::new();
    map.insert("name".to_owned(), json!(new.name()));
    let Some(old) = old else { return map };
    let image =
        |s: &Service| s.spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or("").to_owned();
    let replicas = |s: &Service| s.replicas().map(|r| r.to_string()).unwrap_or_default();
    let state = |s: &Service| s.update.as_ref().map(|u| u.state.to_owned()).unwrap_or_default();
    let pairs = [
        ("image", image(old), image(new)),
        ("replicas", replicas(old), replicas(new)),
        ("updatestate", state(old), state(new)),
    ];
    for (key, was, is) in pairs {
        if was != is && !(key == "updatestate" && is.is_empty()) {
            if !was.is_empty() || key != "updatestate" {
                map.insert(format!("{key}.old"), json!(was));
            }
            map.insert(format!("{key}.new"), json!(is));
        }
    }
    map
}
