//! Nodes that go away and come back.

use serde_json::Value;
use skep::swarm::object::TaskState;

use super::agenda::{Due, Moment};
use super::engine::Engine;
use super::lifecycle::container_id;
use super::object::Task;
use super::workload::Container;

/// How a node goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The machine is off: its containers are gone.
    PowerCut,
    /// The managers cannot reach it: its containers go on, and nobody hears of it.
    Unreachable,
}

// === impl Engine ===

impl Engine {
    /// A node goes away. The managers notice later.
    pub(super) fn lose_node(&mut self, node: &str, loss: Loss) {
        self.lost_nodes.insert(node.to_owned(), self.now);
        if loss == Loss::PowerCut {
            self.cut_power(node);
        }
        let due = Due::NodeDown(node.to_owned(), self.now);
        self.agenda.add(self.now + self.options.timing.heartbeat, due);
        self.settle();
    }

    fn cut_power(&mut self, node: &str) {
        let here = |c: &Container| c.node == node;
        let gone: Vec<String> =
            self.containers.values().filter(|c| here(c)).map(|c| c.task.clone()).collect();
        for task in gone {
            self.containers.remove(&task);
            self.running.remove(&task);
            self.unheard.remove(&task);
        }
    }

    /// The managers give a silent node up.
    pub(super) fn node_down(&mut self, node: &str, since: Moment) {
        if self.lost_nodes.get(node) != Some(&since) {
            return;
        }
        self.set_node(node, |n| n.ready = false);
        let here = |t: &&Task| t.node.as_deref() == Some(node) && t.is_wanted();
        let tasks: Vec<Task> = self.raft.tasks.values().filter(here).cloned().collect();
        for task in tasks {
            let global = self.raft.services.get(&task.service).is_some_and(|s| s.replicas().is_none());
            if global {
                self.set_desired(&task.meta.id, TaskState::Shutdown);
            } else {
                self.restart(&task);
            }
        }
        self.schedule_soon();
    }

    /// A node is drained: its tasks move on without their restart delay.
    pub(super) fn drain(&mut self, node: &str) {
        let here = |t: &&Task| t.node.as_deref() == Some(node) && t.is_wanted();
        let tasks: Vec<Task> = self.raft.tasks.values().filter(here).cloned().collect();
        for task in tasks {
            self.restart(&task);
        }
    }

    /// A node comes back: what it ran has died or is stopped now, and it says so.
    pub(super) fn return_node(&mut self, node: &str) {
        self.lost_nodes.remove(node);
        self.set_node(node, |n| n.ready = true);
        let here = |t: &&Task| t.node.as_deref() == Some(node) && !t.is_over();
        let tasks: Vec<Task> = self.raft.tasks.values().filter(here).cloned().collect();
        for task in tasks {
            self.catch_up(&task);
        }
        let services: Vec<String> = self.raft.services.keys().cloned().collect();
        self.dirty.extend(services);
        self.schedule_soon();
        self.settle();
    }

    /// What a node that came back does about one of its tasks.
    fn catch_up(&mut self, task: &Task) {
        let id = &task.meta.id;
        if let Some(status) = self.unheard.remove(id) {
            self.put_task(Task { status, ..task.clone() });
            if self.raft.tasks[id].is_over() {
                return;
            }
        }
        match (self.containers.contains_key(id), task.is_wanted()) {
            (true, true) => {}
            (true, false) => self.stop(id),
            (false, false) => self.end(id, TaskState::Shutdown, "shutdown", None, ""),
            (false, true) => {
                let gone = Some((container_id(id), 137));
                self.end(id, TaskState::Failed, "started", gone, "task: non-zero exit (137)");
            }
        }
    }

    /// Whether a node cannot be reached now, whatever the managers think.
    pub(super) fn is_lost(&self, node: Option<&str>) -> bool {
        node.is_some_and(|n| self.lost_nodes.contains_key(n))
    }

    /// Changes a node in the store.
    pub(super) fn set_node(&mut self, id: &str, change: impl FnOnce(&mut super::object::Node)) {
        let Some(mut node) = self.raft.nodes.get(id).cloned() else { return };
        let old = node.ready;
        change(&mut node);
        self.touch(&mut node.meta);
        let name = |ready: bool| if ready { "ready" } else { "down" };
        let mut attributes = serde_json::Map::new();
        attributes.insert("name".to_owned(), Value::from(node.hostname.clone()));
        if old != node.ready {
            attributes.insert("state.old".to_owned(), Value::from(name(old)));
            attributes.insert("state.new".to_owned(), Value::from(name(node.ready)));
        }
        let at = self.clock();
        self.events.send_with("node", "update", id, at, attributes);
        self.raft.nodes.insert(id.to_owned(), node);
    }
}
