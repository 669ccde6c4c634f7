//! Placement: which node a task gets, or why it gets none.

use std::collections::BTreeMap;

use serde_json::Value;
use skep::swarm::object::TaskState;

use super::agenda::Due;
use super::engine::Engine;
use super::object::{Service, Status, Task};
use super::spec::{list, parse_constraint};

// === impl Engine ===

impl Engine {
    /// Places tasks that have no node yet, or says why it cannot.
    pub(super) fn schedule(&mut self) {
        let unplaced = |t: &&Task| t.status.state == TaskState::Pending && t.is_wanted();
        let mut tasks: Vec<Task> = self.raft.tasks.values().filter(unplaced).cloned().collect();
        tasks.sort_by_key(|t| (t.meta.version, t.slot));
        for mut task in tasks {
            match self.place(&task) {
                Ok(node) => {
                    task.node = Some(node);
                    task.status = Status {
                        state: TaskState::Assigned,
                        at: self.clock(),
                        message: "scheduler assigned task to node",
                        error: String::new(),
                        container: None,
                    };
                    let id = task.meta.id.clone();
                    self.put_task(task);
                    self.agenda.add(self.now + self.options.timing.dispatch, Due::Prepare(id));
                }
                Err(why) if task.status.error != why => {
                    task.status.error = why;
                    task.status.at = self.clock();
                    self.put_task(task);
                }
                Err(_) => {}
            }
        }
    }

    /// The node with the fewest tasks of the service that fits, or why none does.
    fn place(&self, task: &Task) -> Result<String, String> {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        let mut fits = Vec::new();
        for id in self.raft.nodes.keys().filter(|n| task.node.as_ref().is_none_or(|t| t == *n)) {
            match self.unfit(id, &task.spec, &task.endpoint, &task.meta.id) {
                None => fits.push(id),
                Some(why) => *reasons.entry(why).or_default() += 1,
            }
        }
        let count = |node: &String| {
            let here = |t: &&Task| t.node.as_ref() == Some(node) && t.is_wanted();
            let tasks: Vec<&Task> = self.raft.tasks.values().filter(here).collect();
            (tasks.iter().filter(|t| t.service == task.service).count(), tasks.len())
        };
        fits.into_iter().min_by_key(|n| count(n)).cloned().ok_or_else(|| explain(&reasons))
    }

    /// Whether a service may run on a node, apart from what runs there.
    pub(super) fn fits(&self, node: &str, service: &Service) -> bool {
        self.unfit(node, &service.spec["TaskTemplate"], &Value::Null, "").is_none()
    }

    fn unfit(&self, node: &str, template: &Value, endpoint: &Value, task: &str) -> Option<&'static str> {
        let found = self.raft.nodes.get(node)?;
        if !found.ready || found.drained {
            return Some("not available for new tasks");
        }
        let constraints = list(&template["Placement"]["Constraints"]);
        for (key, equal, value) in constraints.filter_map(|c| parse_constraint(c.as_str()?)) {
            let role = if found.manager { "manager" } else { "worker" };
            let is = match key {
                "node.id" => found.meta.id == value,
                "node.hostname" => found.hostname == value,
                "node.role" => role == value,
                _ => key
                    .strip_prefix("node.labels.")
                    .is_some_and(|l| found.labels.get(l).is_some_and(|v| v == value)),
            };
            if is != equal {
                return Some("scheduling constraints not satisfied");
            }
        }
        let mut ports = host_ports(endpoint);
        let taken = |port: u64| {
            let mut others = self.raft.tasks.values().filter(|t| t.meta.id != task);
            others.any(|t| {
                let here = t.node.as_deref() == Some(node);
                here && !t.is_over() && host_ports(&t.endpoint).any(|p| p == port)
            })
        };
        ports.any(taken).then_some("host-mode port already in use")
    }
}

fn explain(reasons: &BTreeMap<&str, usize>) -> String {
    let part = |why: &str, nodes: usize| match (why, nodes) {
        ("not available for new tasks", 1) => "1 node not available for new tasks".to_owned(),
        ("not available for new tasks", n) => format!("{n} nodes not available for new tasks"),
        (why, 1) => format!("{why} on 1 node"),
        (why, n) => format!("{why} on {n} nodes"),
    };
    let mut ordered: Vec<(&&str, &usize)> = reasons.iter().collect();
    ordered.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let parts: Vec<String> = ordered.into_iter().map(|(why, n)| part(why, *n)).collect();
    format!("no suitable node ({})", parts.join("; "))
}

fn host_ports(endpoint: &Value) -> impl Iterator<Item = u64> {
    let ports = list(&endpoint["Ports"]).filter(|p| p["PublishMode"] == "host");
    ports.filter_map(|p| p["PublishedPort"].as_u64()).collect::<Vec<_>>().into_iter()
}
