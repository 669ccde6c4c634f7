//! The Docker API on the simulated engine: from a request to an answer, without any I/O.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::engine::{Engine, Raft};
use super::filter::{self, Filters};
use super::object::{Stored, labels};
use super::spec::{is_object_name, list};

/// The API version that the simulated engine speaks.
pub(super) const API_VERSION: &str = "1.41";
/// What one raft entry can hold.
const RAFT_LIMIT: usize = 1_572_864;
/// What one message between managers can hold.
const MESSAGE_LIMIT: usize = 4_194_304;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Segments of the path, without the version.
    pub(super) path: Vec<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Bytes,
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

/// A request that was answered.
#[derive(Debug)]
pub(super) enum Answer {
    Json(u16, Value),
    Empty(u16),
    Text(String),
    Frames(Bytes),
    /// Chunks until the client goes away.
    Stream(mpsc::UnboundedReceiver<Bytes>),
}

pub(super) type Answered = Result<Answer, Refusal>;

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(status: u16, message: &str) -> Refusal {
        Refusal { status, message: message.to_owned() }
    }

    /// What the managers answer to an invalid argument.
    pub(super) fn invalid(text: &str) -> Refusal {
        Refusal::new(400, &format!("rpc error: code = InvalidArgument desc = {text}"))
    }

    pub(super) fn not_found(kind: &str, name: &str) -> Refusal {
        Refusal::new(404, &format!("{kind} {name} not found"))
    }

    pub(super) fn stale() -> Refusal {
        Refusal::new(500, "rpc error: code = Unknown desc = update out of sequence")
    }
}

// === impl Request ===

impl Request {
    /// The endpoint without the parts that name an object: `POST /configs/{id}/update`.
    pub(super) fn endpoint(&self) -> String {
        let fixed = ["create", "update", "logs", "prune", "init", "join", "leave"];
        let parts = self.path.iter().enumerate().map(|(i, part)| match i {
            1 if !fixed.contains(&part.as_str()) => "{id}",
            _ => part.as_str(),
        });
        format!("{} /{}", self.method, parts.collect::<Vec<_>>().join("/"))
    }

    /// Whether the daemon answers by itself, without the managers.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.path.first().map(String::as_str), Some("_ping" | "version" | "info" | "events"))
    }

    pub(super) fn json(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(&self.body).map_err(|e| {
            Refusal::new(400, if e.is_eof() { "unexpected EOF" } else { "invalid character in the body" })
        })
    }

    /// The version parameter; `Err` with the raw text where it is not a number.
    pub(super) fn version(&self) -> Result<u64, String> {
        let text = self.query.get("version").cloned().unwrap_or_default();
        text.parse().map_err(|_| text)
    }

    pub(super) fn filters(&self, allowed: &[&str]) -> Result<Filters, Refusal> {
        filter::parse(self.query.get("filters").map(String::as_str), allowed)
    }

    pub(super) fn has(&self, flag: &str) -> bool {
        self.query.get(flag).is_some_and(|v| matches!(v.as_str(), "1" | "true" | "True"))
    }
}

/// Which store of configs or secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shelf {
    Configs,
    Secrets,
}

// === impl Shelf ===

impl Shelf {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Shelf::Configs => "config",
            Shelf::Secrets => "secret",
        }
    }

    const fn limit(self) -> usize {
        match self {
            Shelf::Configs => 1_024_000,
            Shelf::Secrets => 512_000,
        }
    }

    pub(super) fn of(self, raft: &Raft) -> &BTreeMap<String, Stored> {
        match self {
            Shelf::Configs => &raft.configs,
            Shelf::Secrets => &raft.secrets,
        }
    }

    fn of_mut(self, raft: &mut Raft) -> &mut BTreeMap<String, Stored> {
        match self {
            Shelf::Configs => &mut raft.configs,
            Shelf::Secrets => &mut raft.secrets,
        }
    }

    fn find<'a>(self, raft: &'a Raft, name: &str) -> Result<&'a Stored, Refusal> {
        let all = self.of(raft).values();
        lookup(self.word(), all, name, |o| (&o.meta.id, &o.name))
    }
}

/// What the API finds under a text: an id, else a name, else the beginning of one id.
pub(super) fn lookup<'a, T>(
    word: &str,
    all: impl Iterator<Item = &'a T> + Clone,
    text: &str,
    keys: impl Fn(&'a T) -> (&'a str, &'a str),
) -> Result<&'a T, Refusal> {
    let exact = all.clone().find(|o| keys(o).0 == text).or_else(|| all.clone().find(|o| keys(o).1 == text));
    if let Some(found) = exact {
        return Ok(found);
    }
    let mut prefixed = all.filter(|o| keys(o).0.starts_with(text));
    match (prefixed.next(), prefixed.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(Refusal::new(400, &format!("{word} {text} is ambiguous"))),
        (None, _) => Err(Refusal::not_found(word, text)),
    }
}

/// Answers a read from a state, which may be an old one.
pub(super) fn read(raft: &Raft, request: &Request) -> Answered {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["configs"] => list_shelf(raft, Shelf::Configs, request),
        ["secrets"] => list_shelf(raft, Shelf::Secrets, request),
        ["configs", id] => Ok(Answer::Json(200, Shelf::Configs.find(raft, id)?.json(true))),
        ["secrets", id] => Ok(Answer::Json(200, Shelf::Secrets.find(raft, id)?.json(false))),
        ["services"] => super::api_service::list_services(raft, request),
        ["services", id] => Ok(Answer::Json(200, super::api_service::find(raft, id)?.json())),
        ["tasks"] => super::api_service::list_tasks(raft, request),
        ["tasks", id] => {
            let task = raft.tasks.get(*id).ok_or_else(|| Refusal::not_found("task", id))?;
            Ok(Answer::Json(200, task.json(&raft.networks)))
        }
        ["nodes"] => list_nodes(raft, request),
        ["nodes", id] => {
            let found = raft.nodes.values().find(|n| n.meta.id == *id || n.hostname == *id);
            let node = found.ok_or_else(|| Refusal::not_found("node", id))?;
            Ok(Answer::Json(200, node.json("127.0.0.1")))
        }
        ["networks"] => list_networks(raft, request),
        ["networks", id] => {
            let found = raft.networks.values().find(|n| n.meta.id == *id || n.name == *id);
            let network = found.ok_or_else(|| Refusal::not_found("network", id))?;
            Ok(Answer::Json(200, network.json()))
        }
        ["swarm"] => Ok(Answer::Json(200, swarm_json(raft))),
        _ => Err(Refusal::new(404, "page not found")),
    }
}

fn swarm_json(raft: &Raft) -> Value {
    let created = raft.nodes.values().next().map(|n| n.meta.created.to_string());
    json!({
        "ID": "simulatedswarm00000000000",
        "Version": { "Index": 10 },
        "CreatedAt": created,
        "UpdatedAt": created,
        "Spec": { "Name": "default", "Labels": {}, "Orchestration": { "TaskHistoryRetentionLimit": 5 } },
    })
}

fn list_shelf(raft: &Raft, shelf: Shelf, request: &Request) -> Answered {
    let allowed: &[&str] = match shelf {
        Shelf::Configs => &["id", "name", "label"],
        Shelf::Secrets => &["id", "name", "label", "names"],
    };
    let filters = request.filters(allowed)?;
    let all = shelf.of(raft).values();
    let found = all.filter(|o| filter::passes(&filters, &o.meta.id, &o.name, &o.labels));
    Ok(Answer::Json(200, found.map(|o| o.json(shelf == Shelf::Configs)).collect()))
}

fn list_nodes(raft: &Raft, request: &Request) -> Answered {
    let filters = request.filters(&["id", "name", "label", "role", "membership", "node.label"])?;
    let found = raft.nodes.values().filter(|n| {
        let role = if n.manager { "manager" } else { "worker" };
        filter::passes(&filters, &n.meta.id, &n.hostname, &n.labels)
            && filters.get("role").is_none_or(|r| r.iter().any(|r| r == role))
    });
    Ok(Answer::Json(200, found.map(|n| n.json("127.0.0.1")).collect()))
}

fn list_networks(raft: &Raft, request: &Request) -> Answered {
    let filters = request.filters(&["id", "name", "label", "scope", "driver", "type", "dangling"])?;
    // Unlike elsewhere, a network's name matches by any part of it.
    let named = |name: &str| filters.get("name").is_none_or(|n| n.iter().any(|n| name.contains(n.as_str())));
    let has = |key: &str, value: &str| filters.get(key).is_none_or(|v| v.iter().any(|v| v == value));
    let labels: Filters = filters
        .iter()
        .filter(|(k, _)| *k == "label" || *k == "id")
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let found = raft.networks.values().filter(|n| {
        named(&n.name)
            && has("scope", "swarm")
            && has("driver", "overlay")
            && filter::passes(&labels, &n.meta.id, &n.name, &n.labels)
    });
    Ok(Answer::Json(200, found.map(super::object::Network::json).collect()))
}

// === impl Engine ===

impl Engine {
    /// Answers any request.
    pub(super) fn answer(&mut self, request: &Request) -> Answered {
        if request.body.len() > MESSAGE_LIMIT {
            let text = format!(
                "rpc error: code = ResourceExhausted desc = grpc: received message larger than max ({} vs. {MESSAGE_LIMIT})",
                request.body.len()
            );
            return Err(Refusal::new(500, &text));
        }
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        let answer = match (request.method.as_str(), path.as_slice()) {
            ("GET" | "HEAD", ["_ping"]) => Ok(Answer::Text("OK".to_owned())),
            ("GET", ["version"]) => Ok(Answer::Json(200, version_json())),
            ("GET", ["info"]) => Ok(Answer::Json(200, self.info_json())),
            ("GET", ["events"]) => self.subscribe(request),
            ("GET", ["distribution", name @ .., "json"]) => self.distribution(&name.join("/")),
            ("GET", ["services" | "tasks", id, "logs"]) => self.read_logs(path[0], id, request),
            ("GET", ["services"]) if request.has("status") => self.list_with_status(request),
            ("GET", _) => read(&self.raft, request),
            ("POST", ["configs", "create"]) => self.create_stored(Shelf::Configs, request),
            ("POST", ["secrets", "create"]) => self.create_stored(Shelf::Secrets, request),
            ("POST", ["configs", id, "update"]) => self.update_stored(Shelf::Configs, id, request),
            ("POST", ["secrets", id, "update"]) => self.update_stored(Shelf::Secrets, id, request),
            ("DELETE", ["configs", id]) => self.delete_stored(Shelf::Configs, id),
            ("DELETE", ["secrets", id]) => self.delete_stored(Shelf::Secrets, id),
            ("POST", ["services", "create"]) => self.create_service(request),
            ("POST", ["services", id, "update"]) => self.update_service(id, request),
            ("DELETE", ["services", id]) => self.delete_service(id),
            ("POST", ["networks", "create"]) => self.create_network(request),
            ("DELETE", ["networks", id]) => self.delete_network(id),
            ("POST", ["nodes", id, "update"]) => self.update_node(id, request),
            _ => Err(Refusal::new(404, "page not found")),
        };
        self.settle();
        answer
    }

    /// What the registry of an image has for its tag.
    fn distribution(&self, image: &str) -> Answered {
        let Some(digest) = self.workloads.pushed(image) else {
            return Err(Refusal::new(
                500,
                &format!("Get \"https://registry/v2/\": dial tcp: no route to {image}"),
            ));
        };
        let media = "application/vnd.docker.distribution.manifest.v2+json";
        let descriptor = json!({ "mediaType": media, "digest": digest, "size": 3987 });
        Ok(Answer::Json(200, json!({ "Descriptor": descriptor, "Platforms": [] })))
    }

    fn create_stored(&mut self, shelf: Shelf, request: &Request) -> Answered {
        let word = shelf.word();
        let body = request.json()?;
        let name = body["Name"].as_str().unwrap_or_default().to_owned();
        let data = STANDARD
            .decode(body["Data"].as_str().unwrap_or_default())
            .map_err(|_| Refusal::new(400, "illegal base64 data at input byte 0"))?;
        if name.is_empty() {
            return Err(Refusal::invalid("name must be provided"));
        }
        if !is_object_name(&name) {
            return Err(Refusal::invalid(
                "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
            ));
        }
        if data.is_empty() || data.len() >= shelf.limit() {
            let limit = shelf.limit();
            return Err(Refusal::invalid(&format!(
                "{word} data must be larger than 0 and less than {limit} bytes"
            )));
        }
        if shelf.of(&self.raft).values().any(|o| o.name == name) {
            let text = format!("rpc error: code = AlreadyExists desc = {word} {name} already exists");
            return Err(Refusal::new(409, &text));
        }
        let labels = labels(&body["Labels"]);
        fits_raft(&labels, data.len())?;
        let object = Stored { meta: self.meta(), name: name.clone(), labels, data };
        let id = object.meta.id.clone();
        shelf.of_mut(&mut self.raft).insert(id.clone(), object);
        self.events.send(word, "create", &id, &name, self.clock());
        Ok(Answer::Json(201, json!({ "ID": id })))
    }

    fn update_stored(&mut self, shelf: Shelf, id: &str, request: &Request) -> Answered {
        let word = shelf.word();
        let version = request.version().map_err(|_| Refusal::new(400, &format!("invalid {word} version")))?;
        let body = request.json()?;
        let mut object = shelf.find(&self.raft, id)?.clone();
        let data =
            body["Data"].as_str().filter(|d| !d.is_empty()).map(|d| STANDARD.decode(d).unwrap_or_default());
        if body["Name"] != json!(object.name) || data.is_some_and(|d| d != object.data) {
            return Err(Refusal::invalid("only updates to Labels are allowed"));
        }
        if version != object.meta.version {
            return Err(Refusal::stale());
        }
        object.labels = labels(&body["Labels"]);
        fits_raft(&object.labels, object.data.len())?;
        self.touch(&mut object.meta);
        self.events.send(word, "update", &object.meta.id, &object.name, self.clock());
        shelf.of_mut(&mut self.raft).insert(object.meta.id.clone(), object);
        Ok(Answer::Empty(200))
    }

    fn delete_stored(&mut self, shelf: Shelf, id: &str) -> Answered {
        let word = shelf.word();
        let object = shelf.find(&self.raft, id)?.clone();
        let (key, field) = match shelf {
            Shelf::Configs => ("Configs", "ConfigID"),
            Shelf::Secrets => ("Secrets", "SecretID"),
        };
        let users: Vec<&str> = self
            .raft
            .services
            .values()
            .filter(|s| {
                let container = &s.spec["TaskTemplate"]["ContainerSpec"];
                list(&container[key]).any(|r| r[field] == json!(object.meta.id))
            })
            .map(super::object::Service::name)
            .collect();
        if !users.is_empty() {
            let plural = if users.len() == 1 { "service" } else { "services" };
            let name = &object.name;
            let users = users.join(", ");
            return Err(Refusal::invalid(&format!(
                "{word} '{name}' is in use by the following {plural}: {users}"
            )));
        }
        shelf.of_mut(&mut self.raft).remove(&object.meta.id);
        self.raft.version += 1;
        self.events.send(word, "remove", &object.meta.id, &object.name, self.clock());
        Ok(Answer::Empty(204))
    }

    fn info_json(&self) -> Value {
        let node = self.raft.nodes.values().find(|n| n.manager).map(|n| n.meta.id.clone());
        json!({
            "ID": "SIMULATED", "Name": "n1", "ServerVersion": "20.10.24", "OSType": "linux",
            "LoggingDriver": "json-file",
            "Architecture": "x86_64", "NCPU": 2, "MemTotal": 8_589_934_592_u64,
            "Swarm": {
                "NodeID": node, "NodeAddr": "127.0.0.1", "LocalNodeState": "active",
                "ControlAvailable": true, "Error": "", "Nodes": self.raft.nodes.len(),
                "Managers": self.options.managers, "Cluster": swarm_json(&self.raft),
            },
        })
    }
}

/// Refuses what one raft entry cannot hold.
pub(super) fn fits_raft(labels: &BTreeMap<String, String>, data: usize) -> Result<(), Refusal> {
    // Each label costs a few bytes more than its text.
    let size: usize = labels.iter().map(|(k, v)| k.len() + v.len() + 12).sum::<usize>() + data;
    if size > RAFT_LIMIT {
        let text = "rpc error: code = Unknown desc = raft: raft message is too large and can't be sent";
        return Err(Refusal::new(500, text));
    }
    Ok(())
}

fn version_json() -> Value {
    json!({
        "Platform": { "Name": "" }, "Version": "20.10.24", "ApiVersion": API_VERSION,
        "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64", "GitCommit": "simulated",
        "Components": [{ "Name": "Engine", "Version": "20.10.24" }],
    })
}
