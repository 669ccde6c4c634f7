//! The calls about services, tasks, logs, networks, nodes and events.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use skep::swarm::object::TaskState;

use super::agenda::Due;
use super::api::{Answer, Answered, Refusal, Request, Shelf, fits_raft, lookup};
use super::engine::{Engine, Raft};
use super::filter;
use super::logs::Show;
use super::object::{Service, Update, state_name};
use super::spec::{self, list};

/// A service by id or name.
pub(super) fn find<'a>(raft: &'a Raft, name: &str) -> Result<&'a Service, Refusal> {
    lookup("service", raft.services.values(), name, |s| (&s.meta.id, s.name()))
}

/// `GET /services`.
pub(super) fn list_services(raft: &Raft, request: &Request) -> Answered {
    Ok(Answer::Json(200, filtered(raft, request)?.into_iter().map(Service::json).collect()))
}

fn filtered<'a>(raft: &'a Raft, request: &Request) -> Result<Vec<&'a Service>, Refusal> {
    let filters = request.filters(&["id", "name", "label", "mode", "runtime"])?;
    let found = raft.services.values().filter(|s| {
        let mode = if s.replicas().is_some() { "replicated" } else { "global" };
        filter::passes(&filters, &s.meta.id, s.name(), &s.labels())
            && filters.get("mode").is_none_or(|m| m.iter().any(|m| m == mode))
    });
    Ok(found.collect())
}

/// `GET /tasks`. The label filter is about the service's labels when the task was made.
pub(super) fn list_tasks(raft: &Raft, request: &Request) -> Answered {
    let filters =
        request.filters(&["id", "name", "label", "service", "node", "desired-state", "_up-to-date"])?;
    let mut services = None;
    if let Some(names) = filters.get("service") {
        let ids: Result<Vec<String>, Refusal> =
            names.iter().map(|n| find(raft, n).map(|s| s.meta.id.clone())).collect();
        services = Some(ids?);
    }
    let states = filters.get("desired-state").cloned().unwrap_or_default();
    if let Some(state) = states.iter().find(|s| !["running", "shutdown", "accepted"].contains(&s.as_str())) {
        return Err(Refusal::new(500, &format!("Invalid desired-state filter: '{state}'")));
    }
    let mut nodes = None;
    if let Some(names) = filters.get("node") {
        let ids: Result<Vec<String>, Refusal> = names
            .iter()
            .map(|name| {
                let found = raft.nodes.values().find(|n| n.meta.id == *name || n.hostname == *name);
                found.map(|n| n.meta.id.clone()).ok_or_else(|| Refusal::not_found("node", name))
            })
            .collect();
        nodes = Some(ids?);
    }
    let found = raft.tasks.values().filter(|t| {
        services.as_ref().is_none_or(|s| s.contains(&t.service))
            && nodes.as_ref().is_none_or(|n| t.node.as_ref().is_some_and(|node| n.contains(node)))
            && (states.is_empty() || states.iter().any(|s| s == state_name(t.desired)))
            && filter::passes(&filters, &t.meta.id, &t.service_name, &t.labels)
    });
    Ok(Answer::Json(200, found.map(|t| t.json(&raft.networks)).collect()))
}

// === impl Engine ===

impl Engine {
    pub(super) fn list_with_status(&self, request: &Request) -> Answered {
        let found = filtered(&self.raft, request)?.into_iter().map(|service| {
            let tasks = self.tasks_of(&service.meta.id);
            let running = tasks.iter().filter(|t| t.status.state == TaskState::Running).count();
            let wanted = tasks.iter().filter(|t| t.desired == TaskState::Running).count();
            let desired = service.replicas().unwrap_or(u64::try_from(wanted).expect("few tasks"));
            let mut value = service.json();
            value["ServiceStatus"] =
                json!({ "RunningTasks": running, "DesiredTasks": desired, "CompletedTasks": 0 });
            value
        });
        Ok(Answer::Json(200, found.collect()))
    }

    /// A posted spec as it would be stored, or why not.
    fn checked_spec(&self, request: &Request) -> Result<Value, Refusal> {
        let mut spec = spec::normalise(&request.json()?)?;
        self.resolve_networks(&mut spec)?;
        spec::validate(&spec)?;
        let container = &spec["TaskTemplate"]["ContainerSpec"];
        for (shelf, key) in [(Shelf::Secrets, "Secret"), (Shelf::Configs, "Config")] {
            let missing = list(&container[format!("{key}s")]).filter(|reference| {
                let id = reference[format!("{key}ID")].as_str().unwrap_or_default();
                let found = shelf.of(&self.raft).get(id);
                found.is_none_or(|o| reference[format!("{key}Name")] != json!(o.name))
            });
            let missing: Vec<&str> = missing.filter_map(|r| r[format!("{key}Name")].as_str()).collect();
            if !missing.is_empty() {
                let plural = if missing.len() == 1 { "" } else { "s" };
                let text = format!("{}{plural} not found: {}", shelf.word(), missing.join(", "));
                return Err(Refusal::invalid(&text));
            }
        }
        Ok(spec)
    }

    /// Names of networks become ids.
    fn resolve_networks(&self, spec: &mut Value) -> Result<(), Refusal> {
        let of = |name: &Value| {
            let name = name.as_str().unwrap_or_default();
            let found = self.raft.networks.values().find(|n| n.meta.id == name || n.name == name);
            found
                .map(|n| json!(n.meta.id))
                .ok_or_else(|| Refusal::new(500, &format!("network {name} not found")))
        };
        for network in spec["TaskTemplate"]["Networks"].as_array_mut().into_iter().flatten() {
            network["Target"] = of(&network["Target"])?;
        }
        for network in spec["Networks"].as_array_mut().into_iter().flatten() {
            network["Target"] = of(&network["Target"])?;
        }
        if let Some(map) = spec["TaskTemplate"].as_object_mut() {
            map.retain(|_, v| !v.is_null());
        }
        if let Some(map) = spec.as_object_mut() {
            map.retain(|_, v| !v.is_null());
        }
        Ok(())
    }

    pub(super) fn create_service(&mut self, request: &Request) -> Answered {
        let spec = self.checked_spec(request)?;
        let name = spec["Name"].as_str().unwrap_or_default().to_owned();
        if self.raft.services.values().any(|s| s.name() == name) {
            return Err(Refusal::new(
                409,
                &format!(
                    "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service {name} already exists"
                ),
            ));
        }
        let service = Service { meta: self.meta(), spec, spec_version: 0, previous: None, update: None };
        fits_raft(&service.labels(), 0)?;
        let id = service.meta.id.clone();
        self.allocate(&service);
        self.raft.services.insert(id.clone(), service);
        self.events.send("service", "create", &id, &name, self.clock());
        self.dirty.insert(id.clone());
        Ok(Answer::Json(201, json!({ "ID": id })))
    }

    pub(super) fn update_service(&mut self, id: &str, request: &Request) -> Answered {
        let version = request.version().map_err(|text| {
            let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
            Refusal::new(400, &format!("invalid service version '{text}': {why}"))
        })?;
        let mut service = find(&self.raft, id)?.clone();
        let spec = self.checked_spec(request)?;
        let mode = |s: &Value| s["Mode"]["Global"].is_object();
        if mode(&spec) != mode(&service.spec) {
            return Err(unimplemented("service mode change is not allowed"));
        }
        if spec["Name"] != service.spec["Name"] {
            return Err(unimplemented("renaming services is not supported"));
        }
        if version != service.meta.version {
            return Err(Refusal::stale());
        }
        let moved = spec["EndpointSpec"] != service.spec["EndpointSpec"];
        if request.query.get("rollback").is_some_and(|r| r == "previous") {
            self.roll_back_by_hand(&mut service)?;
        } else {
            service.previous = Some((service.spec.clone(), service.spec_version));
            service.spec = spec;
            service.spec_version = version;
            service.update = None;
        }
        fits_raft(&service.labels(), 0)?;
        if moved {
            self.allocate(&service);
        }
        self.put_service(service);
        Ok(Answer::Json(200, json!({ "Warnings": null })))
    }

    /// Ports and virtual addresses are allocated a moment after a write, and that is a write too.
    fn allocate(&mut self, service: &Service) {
        if service.needs_allocation() {
            let due = Due::Allocated(service.meta.id.clone());
            self.agenda.add(self.now + self.options.timing.allocate, due);
        }
    }

    fn roll_back_by_hand(&self, service: &mut Service) -> Result<(), Refusal> {
        let Some((spec, version)) = service.previous.take() else {
            let id = &service.meta.id;
            let text = format!(
                "rpc error: code = FailedPrecondition desc = service {id} does not have a previous spec"
            );
            return Err(Refusal::new(400, &text));
        };
        service.previous = Some((std::mem::replace(&mut service.spec, spec), service.spec_version));
        service.spec_version = version;
        service.update = Some(Update {
            state: "rollback_started",
            message: "manually requested rollback".to_owned(),
            started: self.clock(),
            completed: None,
        });
        Ok(())
    }

    pub(super) fn delete_service(&mut self, id: &str) -> Answered {
        let service = find(&self.raft, id)?.clone();
        let id = service.meta.id.clone();
        self.raft.services.remove(&id);
        self.raft.version += 1;
        self.rollouts.remove(&id);
        self.dirty.remove(&id);
        self.events.send("service", "remove", &id, service.name(), self.clock());
        let tasks: Vec<String> = self.tasks_of(&id).into_iter().map(|t| t.meta.id.clone()).collect();
        for task in tasks {
            self.set_desired(&task, TaskState::Remove);
        }
        Ok(Answer::Empty(200))
    }

    pub(super) fn read_logs(&mut self, kind: &str, id: &str, request: &Request) -> Answered {
        let (service, tasks) = if kind == "tasks" {
            let task = self.raft.tasks.get(id).ok_or_else(|| Refusal::not_found("task", id))?;
            (task.service.clone(), vec![task.meta.id.clone()])
        } else {
            let service = find(&self.raft, id)?.meta.id.clone();
            let tasks = self.tasks_of(&service).into_iter().map(|t| t.meta.id.clone()).collect();
            (service, tasks)
        };
        let show = Show {
            stdout: request.has("stdout"),
            stderr: request.has("stderr"),
            timestamps: request.has("timestamps"),
            details: request.has("details"),
            tail: request.query.get("tail").and_then(|t| t.parse().ok()),
            since: request.query.get("since").and_then(|t| timestamp(t)),
        };
        if !show.stdout && !show.stderr {
            return Err(Refusal::new(500, "Bad parameters: you must choose at least one stream"));
        }
        if let Some(why) = tasks.first().filter(|_| kind == "tasks").and_then(|task| self.no_log(task)) {
            return Ok(Answer::Frames(super::logs::fault(&why)));
        }
        if request.has("follow") {
            return Ok(Answer::Stream(self.logs.follow(&service, &tasks, show)));
        }
        Ok(Answer::Frames(self.logs.read(&tasks, &show)))
    }

    /// Why the engine has no log of a task.
    fn no_log(&self, id: &str) -> Option<String> {
        match self.raft.tasks.get(id)?.node.as_deref() {
            None => Some(format!("task {id} has not been scheduled")),
            Some(node) => self.is_lost(Some(node)).then(|| format!("node {node} is not available")),
        }
    }

    pub(super) fn subscribe(&mut self, request: &Request) -> Answered {
        let kinds = [
            "config",
            "secret",
            "service",
            "node",
            "network",
            "container",
            "image",
            "volume",
            "plugin",
            "daemon",
        ];
        let others = ["scope", "type", "event", "label"];
        let allowed: Vec<&str> = kinds.into_iter().chain(others).collect();
        let filters = request.filters(&allowed)?;
        let since = request.query.get("since").and_then(|t| timestamp(t));
        Ok(Answer::Stream(self.events.subscribe(filters, since)))
    }

    pub(super) fn create_network(&mut self, request: &Request) -> Answered {
        let body = request.json()?;
        let name = body["Name"].as_str().unwrap_or_default();
        if self.raft.networks.values().any(|n| n.name == name) {
            return Err(Refusal::new(409, &format!("network with name {name} already exists")));
        }
        let id = self.add_network(name, false);
        let made = super::object::labels(&body["Labels"]);
        if let Some(network) = self.raft.networks.get_mut(&id) {
            network.labels = made;
        }
        Ok(Answer::Json(201, json!({ "Id": id, "Warning": "" })))
    }

    pub(super) fn delete_network(&mut self, name: &str) -> Answered {
        let found = self.raft.networks.values().find(|n| n.meta.id == name || n.name == name);
        let network = found.cloned().ok_or_else(|| Refusal::not_found("network", name))?;
        let id = network.meta.id;
        if let Some(user) = self.raft.services.values().find(|s| s.networks().contains(&id)) {
            let text = format!("network {id} is in use by service {}", user.meta.id);
            return Err(Refusal::new(400, &format!("rpc error: code = FailedPrecondition desc = {text}")));
        }
        self.raft.networks.remove(&id);
        self.raft.version += 1;
        self.events.send("network", "remove", &id, &network.name, self.clock());
        Ok(Answer::Empty(204))
    }

    pub(super) fn update_node(&mut self, name: &str, request: &Request) -> Answered {
        let version = request.version().map_err(|_| Refusal::new(400, "invalid node version"))?;
        let body = request.json()?;
        let found = self.raft.nodes.values().find(|n| n.meta.id == name || n.hostname == name);
        let node = found.cloned().ok_or_else(|| Refusal::not_found("node", name))?;
        if version != node.meta.version {
            return Err(Refusal::stale());
        }
        let drained = body["Availability"] == "drain";
        let labels = super::object::labels(&body["Labels"]);
        self.set_node(&node.meta.id, |n| (n.drained, n.labels) = (drained, labels));
        if drained && !node.drained {
            self.drain(&node.meta.id);
        }
        let services: Vec<String> = self.raft.services.keys().cloned().collect();
        self.dirty.extend(services);
        self.schedule_soon();
        Ok(Answer::Empty(200))
    }
}

fn unimplemented(text: &str) -> Refusal {
    Refusal::new(501, &format!("rpc error: code = Unimplemented desc = {text}"))
}

/// `seconds.nanoseconds`, as the API takes times.
fn timestamp(text: &str) -> Option<Timestamp> {
    let (seconds, nanos) = text.split_once('.').unwrap_or((text, "0"));
    let nanos = format!("{nanos:0<9}");
    let seconds = Timestamp::from_second(seconds.parse().ok()?).ok()?;
    seconds.checked_add(SignedDuration::from_nanos(nanos[..9].parse().ok()?)).ok()
}
