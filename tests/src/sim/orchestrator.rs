//! The managers' loops for services and tasks: slots, scaling, restarts, history.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use skep::swarm::object::TaskState;

use super::agenda::{Due, Moment};
use super::engine::Engine;
use super::object::{Service, Status, Task};

/// A start that waits: for a time, and for another task to stop.
#[derive(Clone, Debug)]
pub(super) struct Delay {
    not_before: Moment,
    /// The task that must stop first, and when to start without it.
    after: Option<(String, Moment)>,
}

/// A slot of a replicated service, or a node of a global one.
pub(super) type SlotKey = (u64, String);

const OLD_TASK_TIMEOUT: Duration = Duration::from_secs(60);
const HISTORY: usize = 5;

// === impl Engine ===

impl Engine {
    /// Makes the tasks of a service what its spec says.
    pub(super) fn reconcile(&mut self, id: &str) {
        let Some(service) = self.raft.services.get(id).cloned() else { return };
        let Some(wanted) = service.replicas() else { return self.reconcile_global(&service) };
        let wanted = usize::try_from(wanted).expect("replicas fit memory");
        let (mut live, mut dead) = self.slots(&service);
        if wanted > live.len() {
            self.roll(&service, live.keys().cloned().collect());
            let missing = wanted - live.len();
            let mut slot = 0;
            for _ in 0..missing {
                slot += 1;
                while live.contains_key(&(slot, String::new())) {
                    slot += 1;
                }
                dead.remove(&(slot, String::new()));
                live.insert((slot, String::new()), Vec::new());
                self.new_task(&service, slot, None, TaskState::Running);
            }
            self.forget(&dead);
        } else if wanted < live.len() {
            let mut order: Vec<(SlotKey, Vec<String>)> = live.into_iter().collect();
            order.sort_by_key(|(key, tasks)| (!self.any_runs(tasks), key.0));
            let order = self.balanced(order);
            let (keep, remove) = order.split_at(wanted);
            self.roll(&service, keep.iter().map(|(k, _)| k.clone()).collect());
            // Whatever still stops in a slot that is no longer counted is forgotten here: its container goes
            // on, but no list shows it. The real engine does the same.
            self.forget(&dead);
            for task in remove.iter().flat_map(|(_, tasks)| tasks) {
                self.set_desired(task, TaskState::Remove);
            }
        } else {
            self.forget(&dead);
            self.roll(&service, live.into_keys().collect());
        }
    }

    fn reconcile_global(&mut self, service: &Service) {
        let nodes: Vec<String> = self.raft.nodes.keys().cloned().collect();
        let mut slots = Vec::new();
        for node in nodes {
            let tasks = self.tasks_of(&service.meta.id);
            let here: Vec<&Task> =
                tasks.into_iter().filter(|t| t.node.as_ref() == Some(&node) && t.is_wanted()).collect();
            if !self.fits(&node, service) {
                for id in here.iter().map(|t| t.meta.id.clone()).collect::<Vec<_>>() {
                    self.set_desired(&id, TaskState::Shutdown);
                }
            } else if here.is_empty() {
                self.new_task(service, 0, Some(node), TaskState::Running);
            } else {
                slots.push((0, node));
            }
        }
        self.roll(service, slots);
    }

    /// Slots that count, and slots that do not, with their tasks.
    fn slots(&self, service: &Service) -> (BTreeMap<SlotKey, Vec<String>>, BTreeMap<SlotKey, Vec<String>>) {
        let mut all: BTreeMap<SlotKey, Vec<&Task>> = BTreeMap::new();
        for task in self.tasks_of(&service.meta.id) {
            all.entry((task.slot, String::new())).or_default().push(task);
        }
        let (mut live, mut dead) = (BTreeMap::new(), BTreeMap::new());
        for (key, tasks) in all {
            let ids = |tasks: &[&Task]| tasks.iter().map(|t| t.meta.id.clone()).collect::<Vec<_>>();
            let counted = self.updatable(service, &tasks);
            if counted.is_empty() {
                dead.insert(key, ids(&tasks));
            } else {
                live.insert(key, ids(&counted));
            }
        }
        (live, dead)
    }

    /// The tasks of a slot that an update may replace.
    fn updatable<'a>(&self, service: &Service, slot: &[&'a Task]) -> Vec<&'a Task> {
        let wanted: Vec<&Task> = slot.iter().copied().filter(|t| t.is_wanted()).collect();
        if !wanted.is_empty() || service.is_rolling_back() {
            return wanted;
        }
        let newest = slot.iter().max_by_key(|t| (t.status.at, t.meta.version));
        newest.filter(|t| !self.should_restart(t)).map(|t| vec![*t]).unwrap_or_default()
    }

    /// Puts slots on crowded nodes last, so that they go first.
    fn balanced(&self, order: Vec<(SlotKey, Vec<String>)>) -> Vec<(SlotKey, Vec<String>)> {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        let mut indexed: Vec<_> = order
            .into_iter()
            .map(|(key, tasks)| {
                let node = tasks.first().and_then(|t| self.raft.tasks[t].node.clone());
                let index = node.filter(|_| tasks.len() == 1).map_or(usize::MAX, |n| {
                    let nth = count.entry(n).or_default();
                    *nth += 1;
                    *nth
                });
                (index, key, tasks)
            })
            .collect();
        indexed.sort_by_key(|(index, _, _)| *index);
        indexed.into_iter().map(|(_, key, tasks)| (key, tasks)).collect()
    }

    fn any_runs(&self, tasks: &[String]) -> bool {
        tasks.iter().any(|t| self.raft.tasks[t].status.state == TaskState::Running)
    }

    /// The tasks of a service.
    pub(super) fn tasks_of(&self, service: &str) -> Vec<&Task> {
        self.raft.tasks.values().filter(|t| t.service == service).collect()
    }

    fn forget(&mut self, slots: &BTreeMap<SlotKey, Vec<String>>) {
        for task in slots.values().flatten() {
            self.remove_task(task);
        }
    }

    /// Removes a task from the store. Its container, if it still runs, ends in its own time, unseen.
    fn remove_task(&mut self, id: &str) {
        if self.raft.tasks.remove(id).is_some() {
            self.raft.version += 1;
            self.delays.remove(id);
            if self.containers.get(id).is_some_and(|c| !c.stopping) {
                self.agenda.add_once(self.now + self.options.timing.dispatch, Due::Stop(id.to_owned()));
            }
            self.schedule_soon();
        }
    }

    /// Raises a task's desired state; it never goes back.
    pub(super) fn set_desired(&mut self, id: &str, desired: TaskState) {
        let Some(task) = self.raft.tasks.get(id).filter(|t| t.desired < desired) else { return };
        let task = Task { desired, ..task.clone() };
        self.put_task(task);
    }

    /// Makes a task for a slot or a node; its id.
    pub(super) fn new_task(
        &mut self,
        service: &Service,
        slot: u64,
        node: Option<String>,
        desired: TaskState,
    ) -> String {
        let meta = self.meta();
        let id = meta.id.clone();
        self.slots_to_reap.insert((service.meta.id.clone(), slot, node.clone().unwrap_or_default()));
        let status = Status {
            state: TaskState::Pending,
            at: self.clock(),
            message: "pending task scheduling",
            error: String::new(),
            container: None,
        };
        let task = Task {
            meta,
            service: service.meta.id.clone(),
            labels: service.labels(),
            service_name: service.name().to_owned(),
            spec: service.template(),
            endpoint: service.spec.get("EndpointSpec").cloned().unwrap_or(Value::Null),
            spec_version: service.spec_version,
            slot,
            node,
            desired,
            status,
            attachments: self.attach(service),
        };
        self.raft.tasks.insert(id.clone(), task);
        self.agenda.add_once(self.now + self.options.timing.reap, Due::Reap);
        self.schedule_soon();
        id
    }

    fn attach(&mut self, service: &Service) -> Vec<(String, String)> {
        let ids = service.networks();
        let mut attached = Vec::new();
        for id in ids {
            if let Some(network) = self.raft.networks.get_mut(&id) {
                network.used = network.used.wrapping_add(1).max(2);
                let address = format!("10.0.{}.{}/24", network.subnet, network.used);
                attached.push((id, address));
            }
        }
        attached
    }

    /// A task ended: counts for a rollout, then it may be restarted.
    pub(super) fn task_over(&mut self, id: &str) {
        let Some(task) = self.raft.tasks.get(id).cloned() else { return };
        self.rollout_saw_end(&task);
        if task.is_wanted() && self.raft.services.contains_key(&task.service) {
            self.restart(&task);
        }
    }

    /// Replaces a task under its service's restart policy.
    pub(super) fn restart(&mut self, task: &Task) {
        if let Some(delay) = self.delays.get(&task.meta.id) {
            // Still in its own restart delay: looked at again when that is over.
            let at = delay.not_before;
            self.over.remove(&task.meta.id);
            self.agenda.add(at, Due::Settle);
            return;
        }
        let Some(service) = self.raft.services.get(&task.service).cloned() else { return };
        self.set_desired(&task.meta.id, TaskState::Shutdown);
        if !self.should_restart(task) {
            return;
        }
        let node = service.replicas().is_none().then(|| task.node.clone()).flatten();
        let new = self.new_task(&service, task.slot, node, TaskState::Ready);
        self.count_restart(task, service.spec_version);
        let drained = task.node.as_ref().and_then(|n| self.raft.nodes.get(n)).is_some_and(|n| n.drained);
        let policy = &task.spec["RestartPolicy"]["Delay"];
        let delay = policy.as_u64().map_or(Duration::from_secs(5), Duration::from_nanos);
        let delay = if drained { Duration::ZERO } else { delay };
        let waits = !task.is_over() && !self.is_down(task.node.as_deref());
        self.delay_start(&new, delay, waits.then(|| task.meta.id.clone()));
    }

    fn should_restart(&self, task: &Task) -> bool {
        let policy = &task.spec["RestartPolicy"];
        match policy["Condition"].as_str().unwrap_or("any") {
            "none" => return false,
            "on-failure" if task.status.state == TaskState::Complete => return false,
            _ => {}
        }
        let most = policy["MaxAttempts"].as_u64().unwrap_or(0);
        let key = self.restart_key(task);
        let done = self.restarts.get(&key).filter(|(version, _)| *version == task.spec_version);
        most == 0 || done.is_none_or(|(_, count)| *count < most)
    }

    fn count_restart(&mut self, task: &Task, spec_version: u64) {
        let key = self.restart_key(task);
        let entry = self.restarts.entry(key).or_insert((spec_version, 0));
        if entry.0 != spec_version {
            *entry = (spec_version, 0);
        }
        entry.1 += 1;
    }

    fn restart_key(&self, task: &Task) -> (String, u64, String) {
        let node = task.node.clone().filter(|_| task.slot == 0).unwrap_or_default();
        (task.service.clone(), task.slot, node)
    }

    /// Starts a task after a time and after another has stopped, but at the latest a minute from now.
    pub(super) fn delay_start(&mut self, new: &str, delay: Duration, old: Option<String>) {
        let not_before = self.now + delay;
        let latest = self.now + OLD_TASK_TIMEOUT;
        self.delays.insert(new.to_owned(), Delay { not_before, after: old.map(|o| (o, latest)) });
        self.agenda.add(not_before, Due::Settle);
        self.agenda.add(latest, Due::Settle);
    }

    /// Starts what waited long enough; whether something was.
    pub(super) fn drive_delays(&mut self) -> bool {
        let due = self.delays.iter().find(|(_, delay)| self.is_due(delay)).map(|(id, _)| id.clone());
        let Some(id) = due else { return false };
        self.delays.remove(&id);
        self.set_desired(&id, TaskState::Running);
        if self.raft.tasks.get(&id).is_some_and(Task::is_over) {
            self.over.insert(id);
        }
        true
    }

    fn is_due(&self, delay: &Delay) -> bool {
        let free = delay.after.as_ref().is_none_or(|(old, latest)| {
            let task = self.raft.tasks.get(old);
            task.is_none_or(|t| t.is_over() || self.is_down(t.node.as_deref())) || self.now >= *latest
        });
        self.now >= delay.not_before && free
    }

    /// Whether a start still waits.
    pub(super) fn is_delayed(&self, task: &str) -> bool {
        self.delays.contains_key(task)
    }

    /// Whether the managers know that a node is down.
    pub(super) fn is_down(&self, node: Option<&str>) -> bool {
        node.and_then(|n| self.raft.nodes.get(n)).is_some_and(|n| !n.ready)
    }

    /// Removes what need not be kept: removed tasks that have stopped, and history beyond the limit.
    pub(super) fn reap(&mut self) {
        let removable = |t: &&Task| {
            t.desired == TaskState::Remove && (t.is_over() || t.status.state < TaskState::Assigned)
        };
        let mut gone: Vec<String> =
            self.raft.tasks.values().filter(removable).map(|t| t.meta.id.clone()).collect();
        for (service, slot, node) in std::mem::take(&mut self.slots_to_reap) {
            let Some(spec) = self.raft.services.get(&service).map(|s| &s.spec) else { continue };
            let attempts = spec["TaskTemplate"]["RestartPolicy"]["MaxAttempts"].as_u64().unwrap_or(0);
            let keep = usize::try_from(attempts).ok().filter(|a| *a > 0).map_or(HISTORY, |a| a + 1);
            let here = |t: &&Task| t.slot == slot && (slot > 0 || t.node.as_ref() == Some(&node));
            let mut tasks: Vec<&Task> = self.tasks_of(&service).into_iter().filter(here).collect();
            tasks.sort_by_key(|t| t.status.at);
            let extra = tasks.len().saturating_sub(keep);
            let never = |t: &Task| t.status.state < TaskState::Assigned && !t.is_wanted();
            let old = tasks.iter().filter(|t| t.is_over() || never(t)).take(extra);
            gone.extend(old.map(|t| t.meta.id.clone()));
        }
        for id in gone {
            self.remove_task(&id);
        }
    }
}
