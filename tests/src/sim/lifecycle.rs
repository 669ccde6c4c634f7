//! What the nodes do: the life of a container from its preparation over health checks to its end.
//!
//! ```text
//! assigned ─▶ preparing ─▶ ready ─▶ starting ─▶ running ─▶ complete | failed
//! shutdown: out of the DNS ─▶ (gossip) ─▶ SIGTERM ─▶ (grace) ─▶ gone ─▶ reported
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use skep::swarm::object::TaskState;

use super::agenda::Due;
use super::engine::Engine;
use super::object::{Status, Task};
use super::spec::list;
use super::workload::{Container, Process, Run, Serve, Then, Workload};

/// What a container does now.
pub(super) struct Running {
    act: Act,
    failures: u64,
    steps: usize,
    workload: Arc<dyn Workload>,
}

enum Act {
    Serve(Serve),
    Process(Box<dyn Process>),
}

// === impl Engine ===

impl Engine {
    /// Puts what a node says of a task into the store, if the managers can hear it.
    fn report(&mut self, id: &str, change: impl FnOnce(&mut Status)) {
        let Some(mut task) = self.raft.tasks.get(id).cloned().filter(|t| !t.is_over()) else { return };
        let at = self.clock();
        if self.is_lost(task.node.as_deref()) {
            let status = self.unheard.entry(id.to_owned()).or_insert(task.status);
            status.at = at;
            return change(status);
        }
        task.status.at = at;
        change(&mut task.status);
        self.put_task(task);
    }

    fn task_in(&self, id: &str, state: TaskState) -> Option<Task> {
        let task = self.raft.tasks.get(id).filter(|t| t.status.state == state)?;
        (!self.is_lost(task.node.as_deref())).then(|| task.clone())
    }

    /// The node accepts a task.
    pub(super) fn prepare(&mut self, id: &str) {
        let Some(task) = self.task_in(id, TaskState::Assigned) else { return };
        if !task.is_wanted() {
            return self.end(id, TaskState::Shutdown, "shutdown", None, "");
        }
        self.report(id, |s| (s.state, s.message) = (TaskState::Preparing, "preparing"));
        self.agenda.add(self.now + self.options.timing.prepare, Due::Prepared(id.to_owned()));
    }

    /// The image and the files are there, or are not.
    pub(super) fn prepared(&mut self, id: &str) {
        let Some(task) = self.task_in(id, TaskState::Preparing) else { return };
        let image = task.spec["ContainerSpec"]["Image"].as_str().unwrap_or_default();
        if !task.is_wanted() {
            return self.end(id, TaskState::Shutdown, "shutdown", None, "");
        }
        if self.workloads.is_missing(image) {
            let error = format!("No such image: {image}");
            return self.end(id, TaskState::Rejected, "preparing", Some((String::new(), 0)), &error);
        }
        self.report(id, |s| (s.state, s.message) = (TaskState::Ready, "prepared"));
        self.start(id);
    }

    /// Starts a prepared task once the managers want it to run.
    pub(super) fn start(&mut self, id: &str) {
        let Some(task) = self.task_in(id, TaskState::Ready) else { return };
        if task.desired != TaskState::Running {
            return;
        }
        let container = container_id(id);
        self.report(id, |s| {
            (s.state, s.message, s.container) = (TaskState::Starting, "starting", Some((container, 0)));
        });
        self.agenda.add(self.now + self.options.timing.start, Due::Started(id.to_owned()));
    }

    /// The container runs.
    pub(super) fn started(&mut self, id: &str) {
        let Some(task) = self.task_in(id, TaskState::Starting) else { return };
        let checked = has_health_check(&task.spec);
        let mut container = self.container(&task);
        container.in_dns = !checked;
        self.containers.insert(id.to_owned(), container.clone());
        let run = self.workloads.start(&container, &self.view());
        let workload = self.workloads.of(&container);
        let act = match run {
            Run::Serve(serve) => {
                if let Some((after, code)) = serve.exits {
                    self.agenda.add(self.now + after, Due::Exit(id.to_owned(), code));
                }
                Act::Serve(serve)
            }
            Run::Process(process) => {
                self.agenda.add(self.now, Due::Step(id.to_owned()));
                Act::Process(process)
            }
        };
        self.running.insert(id.to_owned(), Running { act, failures: 0, steps: 0, workload });
        if checked {
            self.agenda.add(self.now + self.health_interval(&task.spec), Due::Probe(id.to_owned()));
        } else {
            self.report(id, |s| (s.state, s.message) = (TaskState::Running, "started"));
        }
    }

    fn container(&self, task: &Task) -> Container {
        let aliases = |network: &str| {
            let all = list(&task.spec["Networks"]).filter(|n| n["Target"] == network);
            let names = all.flat_map(|n| list(&n["Aliases"])).filter_map(Value::as_str);
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let networks = task.attachments.iter().map(|(id, address)| {
            let address = address.split('/').next().unwrap_or(address);
            (id.clone(), address.to_owned(), aliases(id))
        });
        Container {
            task: task.meta.id.clone(),
            service_id: task.service.clone(),
            service: task.service_name.clone(),
            node: task.node.clone().unwrap_or_default(),
            files: self.files(&task.spec["ContainerSpec"]),
            networks: networks.collect(),
            spec: task.spec.clone(),
            in_dns: false,
            stopping: false,
            since: self.now,
        }
    }

    fn files(&self, container: &Value) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for reference in list(&container["Configs"]) {
            let config = self.raft.configs.get(reference["ConfigID"].as_str().unwrap_or_default());
            if let (Some(config), Some(path)) = (config, reference["File"]["Name"].as_str()) {
                files.insert(path.to_owned(), config.data.clone());
            }
        }
        for reference in list(&container["Secrets"]) {
            let secret = self.raft.secrets.get(reference["SecretID"].as_str().unwrap_or_default());
            if let (Some(secret), Some(name)) = (secret, reference["File"]["Name"].as_str()) {
                let path =
                    if name.starts_with('/') { name.to_owned() } else { format!("/run/secrets/{name}") };
                files.insert(path, secret.data.clone());
            }
        }
        files
    }

    /// The next step of a process.
    pub(super) fn step(&mut self, id: &str) {
        let Some(mut running) = self.running.remove(id) else { return };
        if let Act::Process(process) = &mut running.act {
            let step = process.step(&self.view());
            running.steps += 1;
            let at = self.clock();
            let service = self.containers.get(id).map(|c| c.service_id.clone()).unwrap_or_default();
            let keeps = self.containers.get(id).is_none_or(|c| c.spec["LogDriver"]["Name"] != "none");
            if keeps {
                self.logs.add(&service, id, at, &step.lines);
            }
            let due = match step.then {
                Then::Next(after) => (after, Due::Step(id.to_owned())),
                Then::Exit(after, code) => (after, Due::Exit(id.to_owned(), code)),
            };
            if self.book.kills_job(self.containers.get(id), running.steps) {
                self.agenda.add(self.now, Due::Exit(id.to_owned(), 137));
            } else {
                self.agenda.add(self.now + due.0, due.1);
            }
        }
        self.running.insert(id.to_owned(), running);
    }

    /// A container ended by itself.
    pub(super) fn exited(&mut self, id: &str, code: i64, why: &str) {
        if self.containers.get(id).is_none_or(|c| c.stopping && why.is_empty()) {
            return;
        }
        self.containers.remove(id);
        self.running.remove(id);
        let container = Some((container_id(id), code));
        if code == 0 {
            self.end(id, TaskState::Complete, "finished", container, "");
        } else {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            self.end(
                id,
                TaskState::Failed,
                "started",
                container,
                &format!("task: non-zero exit ({code}){why}"),
            );
        }
    }

    pub(super) fn end(
        &mut self,
        id: &str,
        state: TaskState,
        message: &'static str,
        container: Option<(String, i64)>,
        error: &str,
    ) {
        self.report(id, |s| {
            (s.state, s.message) = (state, message);
            error.clone_into(&mut s.error);
            if container.is_some() {
                s.container = container;
            }
        });
    }

    /// A health check of a container.
    pub(super) fn probe(&mut self, id: &str) {
        let Some(container) = self.containers.get(id).filter(|c| !c.stopping).cloned() else { return };
        let Some(workload) = self.running.get(id).map(|r| Arc::clone(&r.workload)) else { return };
        let check = &container.spec["ContainerSpec"]["Healthcheck"];
        let healthy = workload.healthy(&container, &self.view());
        let retries = check["Retries"].as_u64().filter(|r| *r > 0).unwrap_or(3);
        let grace = Duration::from_nanos(check["StartPeriod"].as_u64().unwrap_or(0));
        let excused = !container.in_dns && self.now < container.since + grace;
        let failures = match self.running.get_mut(id) {
            Some(running) => {
                running.failures = if healthy { 0 } else { running.failures + u64::from(!excused) };
                running.failures
            }
            None => 0,
        };
        if failures >= retries {
            self.set_dns(id, false);
            return self.exited(id, 143, "dockerexec: unhealthy container");
        }
        if healthy && !container.in_dns {
            self.set_dns(id, true);
            self.report(id, |s| (s.state, s.message) = (TaskState::Running, "started"));
        }
        self.agenda.add(self.now + self.health_interval(&container.spec), Due::Probe(id.to_owned()));
    }

    fn health_interval(&self, spec: &Value) -> Duration {
        let nanos = spec["ContainerSpec"]["Healthcheck"]["Interval"].as_u64().filter(|n| *n > 0);
        nanos.map_or(self.options.timing.health, Duration::from_nanos)
    }

    fn set_dns(&mut self, id: &str, is_in: bool) {
        if let Some(container) = self.containers.get_mut(id) {
            container.in_dns = is_in;
        }
    }

    /// The node hears that a task is to stop.
    pub(super) fn stop(&mut self, id: &str) {
        if self.raft.tasks.get(id).is_some_and(|t| self.is_lost(t.node.as_deref())) {
            return;
        }
        let Some(container) = self.containers.get(id) else {
            let idle = |s: TaskState| (TaskState::Assigned..=TaskState::Starting).contains(&s);
            if self.raft.tasks.get(id).is_some_and(|t| idle(t.status.state)) {
                self.end(id, TaskState::Shutdown, "shutdown", None, "");
            }
            return;
        };
        let due = Due::Term(id.to_owned());
        if container.networks.is_empty() {
            self.agenda.add_once(self.now, due);
        } else {
            self.agenda.add_once(self.now + self.options.timing.withdraw, Due::Withdraw(id.to_owned()));
            let gossip = self.options.timing.withdraw + self.options.timing.gossip;
            self.agenda.add_once(self.now + gossip, due);
        }
    }

    /// A task that stops leaves the DNS, before anything happens to its container.
    pub(super) fn withdraw(&mut self, id: &str) {
        self.set_dns(id, false);
    }

    /// SIGTERM; SIGKILL follows after the grace period.
    pub(super) fn term(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id).filter(|c| !c.stopping) else { return };
        container.stopping = true;
        container.in_dns = false;
        let grace = container.spec["ContainerSpec"]["StopGracePeriod"].as_u64();
        let grace = grace.map_or(Duration::from_secs(10), Duration::from_nanos);
        let takes = match self.running.get(id).map(|r| &r.act) {
            Some(Act::Serve(serve)) => serve.stop.min(grace),
            // A job does not wait for anything when it is told to end.
            Some(Act::Process(_)) | None => Duration::ZERO,
        };
        if matches!(self.running.get(id).map(|r| &r.act), Some(Act::Process(_))) {
            self.running.remove(id);
        }
        self.agenda.add(self.now + takes, Due::Stopped(id.to_owned()));
    }

    /// A container that was told to stop is gone; its node reports that a little later.
    pub(super) fn stopped(&mut self, id: &str) {
        if self.containers.remove(id).is_some() {
            self.running.remove(id);
            let at = self.now + self.options.timing.report;
            return self.agenda.add(at, Due::Stopped(id.to_owned()));
        }
        self.end(id, TaskState::Shutdown, "shutdown", Some((container_id(id), 0)), "");
    }
}

fn has_health_check(spec: &Value) -> bool {
    let test = &spec["ContainerSpec"]["Healthcheck"]["Test"];
    list(test).next().is_some_and(|first| first != "NONE")
}

pub(super) fn container_id(task: &str) -> String {
    format!("{task:0<64}")
}
