//! Rolling updates: the managers' updater as a state machine.
//!
//! ```text
//! dirty slots ─▶ queue ─▶ workers (parallelism) ─▶ monitor ─▶ completed
//!                            └─ failed task ─▶ paused | rollback_started (the whole previous spec) | go on
//! ```
//!
//! A write to the service with another spec cancels the rollout and starts a new one; the write has then already
//! replaced the previous spec by the one being rolled out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::Value;
use skep::swarm::object::TaskState;

use super::agenda::{Due, Moment};
use super::engine::Engine;
use super::object::{Service, Task, Update};
use super::orchestrator::SlotKey;

/// One rollout.
#[derive(Clone, Debug)]
pub(super) struct Rollout {
    spec: Value,
    config: Config,
    total: usize,
    queue: VecDeque<SlotKey>,
    workers: Vec<Worker>,
    /// Tasks that it made, with the moment when they came up (or ended).
    made: BTreeMap<String, Option<Moment>>,
    ended: VecDeque<String>,
    failed: BTreeSet<String>,
    stopped: bool,
    monitor_until: Option<Moment>,
}

#[derive(Clone, Debug)]
struct Config {
    parallelism: usize,
    delay: Duration,
    monitor: Duration,
    ratio: f64,
    action: String,
    start_first: bool,
    is_rollback: bool,
}

#[derive(Clone, Debug)]
struct Worker {
    old: Vec<String>,
    new: String,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The new task comes up, the old one goes, in the order of the config.
    Replacing,
    /// A task of the new spec is there: it only needs to be started.
    Starting,
    /// The delay between two tasks.
    Delaying(Moment),
}

// === impl Config ===

impl Config {
    fn of(service: &Service, dirty: usize) -> Config {
        let is_rollback = service.is_rolling_back();
        let section = &service.spec[if is_rollback { "RollbackConfig" } else { "UpdateConfig" }];
        let nanos = |key: &str| section[key].as_u64().map(Duration::from_nanos);
        let parallelism =
            section["Parallelism"].as_u64().map_or(1, |p| usize::try_from(p).unwrap_or(usize::MAX));
        Config {
            parallelism: if parallelism == 0 { dirty } else { parallelism },
            delay: nanos("Delay").unwrap_or_default(),
            monitor: nanos("Monitor").unwrap_or(Duration::from_secs(5)),
            ratio: section["MaxFailureRatio"].as_f64().unwrap_or(0.0),
            action: section["FailureAction"].as_str().unwrap_or("pause").to_owned(),
            start_first: section["Order"] == "start-first",
            is_rollback,
        }
    }
}

// === impl Rollout ===

impl Rollout {
    fn is_idle(&self) -> bool {
        self.workers.is_empty() && (self.queue.is_empty() || self.stopped)
    }
}

// === impl Engine ===

impl Engine {
    /// Starts a rollout of the slots that are not as the spec says; goes on with one that is under way already.
    pub(super) fn roll(&mut self, service: &Service, slots: Vec<SlotKey>) {
        let id = &service.meta.id;
        if self.rollouts.get(id).is_some_and(|r| r.spec == service.spec) {
            return;
        }
        self.rollouts.remove(id);
        let state = service.update.as_ref().map(|u| u.state);
        if matches!(state, Some("paused" | "rollback_paused")) {
            return;
        }
        let queue: VecDeque<SlotKey> = slots.into_iter().filter(|s| self.is_slot_dirty(service, s)).collect();
        if queue.is_empty() {
            if matches!(state, Some("updating" | "rollback_started")) {
                self.complete(id);
            }
            return;
        }
        let rollout = Rollout {
            spec: service.spec.clone(),
            config: Config::of(service, queue.len()),
            total: queue.len(),
            queue,
            workers: Vec::new(),
            made: BTreeMap::new(),
            ended: VecDeque::new(),
            failed: BTreeSet::new(),
            stopped: false,
            monitor_until: None,
        };
        self.rollouts.insert(id.clone(), rollout);
        if service.update.is_none() {
            self.set_update(id, "updating", "update in progress".to_owned());
        }
    }

    /// Whether the slot's tasks are not those that the spec asks for.
    fn is_slot_dirty(&self, service: &Service, slot: &SlotKey) -> bool {
        let tasks = self.slot_tasks(service, slot);
        tasks.len() > 1 || tasks.first().is_some_and(|t| self.is_dirty(service, t))
    }

    fn slot_tasks(&self, service: &Service, slot: &SlotKey) -> Vec<&Task> {
        let here = |t: &&Task| t.slot == slot.0 && (slot.1.is_empty() || t.node.as_ref() == Some(&slot.1));
        let tasks: Vec<&Task> = self.tasks_of(&service.meta.id).into_iter().filter(here).collect();
        let wanted: Vec<&Task> = tasks.iter().copied().filter(|t| t.is_wanted()).collect();
        if wanted.is_empty() {
            tasks.into_iter().max_by_key(|t| (t.status.at, t.meta.version)).into_iter().collect()
        } else {
            wanted
        }
    }

    fn is_dirty(&self, service: &Service, task: &Task) -> bool {
        if task.spec_version == service.spec_version {
            return false;
        }
        let template = service.template();
        let endpoint = service.spec.get("EndpointSpec").cloned().unwrap_or(Value::Null);
        if task.spec == template {
            return task.endpoint != endpoint;
        }
        let mut moved = task.spec.clone();
        moved["Placement"] = template["Placement"].clone();
        let mut template = template;
        template["Placement"] = moved["Placement"].clone();
        let only_placement = moved == template;
        let fits = task.node.as_ref().is_some_and(|n| self.fits(n, service));
        !(only_placement && fits)
    }

    /// A task ended: a rollout that made it counts that as a failure.
    pub(super) fn rollout_saw_end(&mut self, task: &Task) {
        if let Some(rollout) = self.rollouts.get_mut(&task.service)
            && rollout.made.contains_key(&task.meta.id)
        {
            rollout.ended.push_back(task.meta.id.clone());
        }
    }

    /// Moves rollouts on; whether anything moved.
    pub(super) fn drive_rollouts(&mut self) -> bool {
        let ids: Vec<String> = self.rollouts.keys().cloned().collect();
        ids.iter().any(|id| self.drive_rollout(id))
    }

    fn drive_rollout(&mut self, id: &str) -> bool {
        let Some(mut rollout) = self.rollouts.remove(id) else { return false };
        let Some(service) = self.raft.services.get(id).cloned() else { return true };
        let moved = self.drive_workers(&mut rollout)
            || self.hand_out(&service, &mut rollout)
            || self.judge(&service, &mut rollout);
        if moved {
            // A rollback has put a new spec in place, which starts its own rollout.
            self.rollouts.entry(id.to_owned()).or_insert(rollout);
            return true;
        }
        if !rollout.is_idle() {
            self.rollouts.insert(id.to_owned(), rollout);
            return false;
        }
        if rollout.stopped {
            return true;
        }
        self.monitor(id, rollout)
    }

    /// After the last task: watches for failures for the monitor time, then the update is complete.
    fn monitor(&mut self, id: &str, mut rollout: Rollout) -> bool {
        let config = &rollout.config;
        let time = if config.delay >= config.monitor {
            config.delay + Duration::from_secs(1)
        } else {
            config.monitor
        };
        let until = *rollout.monitor_until.get_or_insert(self.now + time);
        if self.now >= until {
            self.complete(id);
            return true;
        }
        self.agenda.add_once(until, Due::Settle);
        self.rollouts.insert(id.to_owned(), rollout);
        false
    }

    fn drive_workers(&mut self, rollout: &mut Rollout) -> bool {
        for index in 0..rollout.workers.len() {
            let worker = rollout.workers[index].clone();
            let state = self.raft.tasks.get(&worker.new).map(|t| t.status.state);
            let next = match worker.phase {
                Phase::Delaying(until) if self.now >= until => None,
                Phase::Delaying(_) => continue,
                Phase::Starting if self.is_delayed(&worker.new) => continue,
                Phase::Starting => Some(()),
                Phase::Replacing if self.is_delayed(&worker.new) => continue,
                Phase::Replacing => match state {
                    Some(state) if state >= TaskState::Running => {
                        rollout.made.insert(worker.new.clone(), Some(self.now));
                        if rollout.config.start_first && state == TaskState::Running {
                            self.shut_down(&worker.old);
                        }
                        Some(())
                    }
                    Some(_) => continue,
                    None => Some(()),
                },
            };
            if next.is_some() && rollout.config.delay > Duration::ZERO {
                let until = self.now + rollout.config.delay;
                rollout.workers[index].phase = Phase::Delaying(until);
                self.agenda.add(until, Due::Settle);
            } else {
                rollout.workers.remove(index);
            }
            return true;
        }
        false
    }

    fn hand_out(&mut self, service: &Service, rollout: &mut Rollout) -> bool {
        if rollout.stopped || rollout.workers.len() >= rollout.config.parallelism {
            return false;
        }
        let Some(slot) = rollout.queue.pop_front() else { return false };
        let old: Vec<Task> = self.slot_tasks(service, &slot).into_iter().cloned().collect();
        let clean = old.iter().filter(|t| t.is_wanted() && !self.is_dirty(service, t));
        let existing = clean.max_by_key(|t| t.desired).map(|t| t.meta.id.clone());
        let old: Vec<String> = old.into_iter().map(|t| t.meta.id).collect();
        let worker = match existing {
            Some(existing) => self.use_existing(&existing, old),
            None => self.replace(service, &slot, old, rollout),
        };
        rollout.workers.push(worker);
        true
    }

    fn use_existing(&mut self, existing: &str, old: Vec<String>) -> Worker {
        let others: Vec<String> = old.into_iter().filter(|t| t != existing).collect();
        let removed = self.shut_down(&others);
        if self.raft.tasks[existing].desired < TaskState::Running {
            self.delay_start(existing, Duration::ZERO, removed);
        }
        Worker { old: others, new: existing.to_owned(), phase: Phase::Starting }
    }

    fn replace(
        &mut self,
        service: &Service,
        slot: &SlotKey,
        old: Vec<String>,
        rollout: &mut Rollout,
    ) -> Worker {
        let node = Some(slot.1.clone()).filter(|n| !n.is_empty());
        let new = self.new_task(service, slot.0, node, TaskState::Ready);
        rollout.made.insert(new.clone(), None);
        if rollout.config.start_first {
            self.delay_start(&new, Duration::ZERO, None);
        } else {
            let removed = self.shut_down(&old);
            self.delay_start(&new, Duration::ZERO, removed);
        }
        Worker { old, new, phase: Phase::Replacing }
    }

    /// Shuts tasks down; one of those that were still wanted.
    fn shut_down(&mut self, tasks: &[String]) -> Option<String> {
        let mut last = None;
        for id in tasks {
            if self.raft.tasks.get(id).is_some_and(Task::is_wanted) {
                self.set_desired(id, TaskState::Shutdown);
                last = Some(id.clone());
            }
        }
        last
    }

    /// Looks at ended tasks, as the updater does: while it hands slots out, and while it monitors.
    fn judge(&mut self, service: &Service, rollout: &mut Rollout) -> bool {
        let listens = !rollout.stopped && (!rollout.queue.is_empty() || rollout.workers.is_empty());
        let Some(task) = rollout.ended.front().cloned().filter(|_| listens) else { return false };
        rollout.ended.pop_front();
        let recent = rollout
            .made
            .get(&task)
            .is_some_and(|up| up.is_none_or(|at| self.now.saturating_sub(at) <= rollout.config.monitor));
        if rollout.config.action == "continue" || !recent || !rollout.failed.insert(task.clone()) {
            return true;
        }
        let share = ratio(rollout.failed.len(), rollout.total);
        if share > rollout.config.ratio {
            rollout.stopped = true;
            let id = &service.meta.id;
            let why = format!("due to failure or early termination of task {task}");
            match (rollout.config.action.as_str(), rollout.config.is_rollback) {
                ("rollback", false) => self.roll_back(id, format!("update rolled back {why}")),
                (_, true) => self.set_update(id, "rollback_paused", format!("rollback paused {why}")),
                (_, false) => self.set_update(id, "paused", format!("update paused {why}")),
            }
        }
        true
    }

    fn roll_back(&mut self, id: &str, message: String) {
        let Some(mut service) = self.raft.services.get(id).cloned() else { return };
        let (Some(update), Some((spec, version))) = (service.update.as_mut(), service.previous.take()) else {
            return;
        };
        update.state = "rollback_started";
        update.message = message;
        service.spec = spec;
        service.spec_version = version;
        self.put_service(service);
    }

    fn set_update(&mut self, id: &str, state: &'static str, message: String) {
        let started = self.clock();
        let Some(mut service) = self.raft.services.get(id).cloned() else { return };
        match service.update.as_mut() {
            Some(update) => (update.state, update.message) = (state, message),
            None if state == "updating" => {
                service.update = Some(Update { state, message, started, completed: None });
            }
            // The service was written since the rollout began: the new one has its own status.
            None => return,
        }
        self.put_service(service);
    }

    fn complete(&mut self, id: &str) {
        let completed = Some(self.clock());
        let Some(mut service) = self.raft.services.get(id).cloned() else { return };
        let Some(update) = service.update.as_mut() else { return };
        let back = update.state == "rollback_started";
        update.state = if back { "rollback_completed" } else { "completed" };
        let message = if back { "rollback completed" } else { "update completed" };
        message.clone_into(&mut update.message);
        update.completed = completed;
        self.put_service(service);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of tasks are small")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}
