//! The objects of the simulated Swarm's store and how they read in JSON.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use skep::swarm::object::{Labels, TaskState};

/// What every object has.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) id: String,
    /// Index of the raft entry that wrote it last: one counter for all kinds of objects.
    pub(super) version: u64,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
}

/// A config or a secret.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) meta: Meta,
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) data: Vec<u8>,
}

/// A service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) meta: Meta,
    /// As normalised by the daemon.
    pub(super) spec: Value,
    pub(super) spec_version: u64,
    pub(super) previous: Option<(Value, u64)>,
    pub(super) update: Option<Update>,
}

/// State of a service's rollout.
#[derive(Clone, Debug)]
pub(super) struct Update {
    pub(super) state: &'static str,
    pub(super) message: String,
    pub(super) started: Timestamp,
    pub(super) completed: Option<Timestamp>,
}

/// A task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) meta: Meta,
    pub(super) service: String,
    /// The service's labels when the task was made.
    pub(super) labels: Labels,
    pub(super) service_name: String,
    /// Task template without `Runtime`.
    pub(super) spec: Value,
    pub(super) endpoint: Value,
    pub(super) spec_version: u64,
    /// 0 for global services.
    pub(super) slot: u64,
    pub(super) node: Option<String>,
    pub(super) desired: TaskState,
    pub(super) status: Status,
    /// Network id, address with prefix.
    pub(super) attachments: Vec<(String, String)>,
}

/// What a task's node last said of it.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) state: TaskState,
    pub(super) at: Timestamp,
    pub(super) message: &'static str,
    pub(super) error: String,
    /// Container id and exit code.
    pub(super) container: Option<(String, i64)>,
}

/// A network.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) meta: Meta,
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) attachable: bool,
    pub(super) ingress: bool,
    /// Second-lowest octet of its subnet.
    pub(super) subnet: u8,
    pub(super) used: u8,
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) meta: Meta,
    pub(super) hostname: String,
    pub(super) labels: Labels,
    pub(super) manager: bool,
    pub(super) drained: bool,
    /// Whether the managers think that it lives.
    pub(super) ready: bool,
}

// === impl Meta ===

impl Meta {
    fn json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("ID".to_owned(), json!(self.id));
        map.insert("Version".to_owned(), json!({ "Index": self.version }));
        map.insert("CreatedAt".to_owned(), json!(self.created.to_string()));
        map.insert("UpdatedAt".to_owned(), json!(self.updated.to_string()));
        map
    }
}

// === impl Stored ===

impl Stored {
    /// As a config reads; a secret never shows its data.
    pub(super) fn json(&self, with_data: bool) -> Value {
        let mut map = self.meta.json();
        let mut spec = json!({ "Name": self.name, "Labels": self.labels });
        if with_data {
            spec["Data"] = json!(STANDARD.encode(&self.data));
        }
        map.insert("Spec".to_owned(), spec);
        Value::Object(map)
    }
}

// === impl Service ===

impl Service {
    pub(super) fn name(&self) -> &str {
        self.spec["Name"].as_str().unwrap_or_default()
    }

    pub(super) fn labels(&self) -> Labels {
        labels(&self.spec["Labels"])
    }

    /// The task template as tasks carry it.
    pub(super) fn template(&self) -> Value {
        let mut template = self.spec["TaskTemplate"].clone();
        if let Some(map) = template.as_object_mut() {
            map.remove("Runtime");
        }
        template
    }

    /// Ids of its networks.
    pub(super) fn networks(&self) -> Vec<String> {
        let of = |value: &Value| -> Vec<String> {
            let targets = value.as_array().into_iter().flatten();
            targets.filter_map(|n| n["Target"].as_str().map(str::to_owned)).collect()
        };
        let own = of(&self.spec["TaskTemplate"]["Networks"]);
        if own.is_empty() { of(&self.spec["Networks"]) } else { own }
    }

    /// Whether the managers have to allocate ports or virtual addresses for it.
    pub(super) fn needs_allocation(&self) -> bool {
        let endpoint = &self.spec["EndpointSpec"];
        endpoint["Ports"].is_array() || endpoint["Mode"] != "dnsrr" && !self.networks().is_empty()
    }

    /// Replicas wanted; none for a global service.
    pub(super) fn replicas(&self) -> Option<u64> {
        self.spec["Mode"]["Replicated"].as_object().map(|m| m["Replicas"].as_u64().unwrap_or(1))
    }

    pub(super) fn is_rolling_back(&self) -> bool {
        self.update.as_ref().is_some_and(|u| u.state == "rollback_started")
    }

    pub(super) fn json(&self) -> Value {
        let mut map = self.meta.json();
        map.insert("Spec".to_owned(), self.spec.clone());
        if let Some((previous, _)) = &self.previous {
            map.insert("PreviousSpec".to_owned(), previous.clone());
        }
        let endpoint = self.spec.get("EndpointSpec").cloned().unwrap_or_else(|| json!({}));
        let ports = endpoint.get("Ports").cloned();
        let shown = if ports.is_some() { endpoint } else { json!({}) };
        let mut endpoint = json!({ "Spec": shown });
        if let Some(ports) = ports {
            endpoint["Ports"] = ports;
        }
        map.insert("Endpoint".to_owned(), endpoint);
        if let Some(update) = &self.update {
            map.insert("UpdateStatus".to_owned(), update.json());
        }
        Value::Object(map)
    }
}

// === impl Update ===

impl Update {
    fn json(&self) -> Value {
        let mut value = json!({
            "State": self.state,
            "StartedAt": self.started.to_string(),
            "Message": self.message,
        });
        if let Some(completed) = self.completed {
            value["CompletedAt"] = json!(completed.to_string());
        }
        value
    }
}

// === impl Task ===

impl Task {
    /// Whether its container can no longer run, by what its node said.
    pub(super) fn is_over(&self) -> bool {
        self.status.state > TaskState::Running
    }

    /// Whether it should run, or be ready to.
    pub(super) fn is_wanted(&self) -> bool {
        self.desired <= TaskState::Running
    }

    pub(super) fn json(&self, networks: &BTreeMap<String, Network>) -> Value {
        let mut map = self.meta.json();
        map.insert("Labels".to_owned(), json!({}));
        map.insert("Spec".to_owned(), self.spec.clone());
        map.insert("ServiceID".to_owned(), json!(self.service));
        if self.slot > 0 {
            map.insert("Slot".to_owned(), json!(self.slot));
        }
        if let Some(node) = &self.node {
            map.insert("NodeID".to_owned(), json!(node));
        }
        map.insert("Status".to_owned(), self.status.json());
        map.insert("DesiredState".to_owned(), json!(state_name(self.desired)));
        if !self.attachments.is_empty() {
            let list = self.attachments.iter().filter_map(|(id, address)| {
                let network = networks.get(id)?;
                Some(json!({ "Network": network.attachment_json(), "Addresses": [address] }))
            });
            map.insert("NetworksAttachments".to_owned(), Value::Array(list.collect()));
        }
        Value::Object(map)
    }
}

// === impl Status ===

impl Status {
    fn json(&self) -> Value {
        let mut value = json!({
            "Timestamp": self.at.to_string(),
            "State": state_name(self.state),
            "Message": self.message,
            "PortStatus": {},
        });
        if !self.error.is_empty() {
            value["Err"] = json!(self.error);
        }
        if let Some((id, code)) = &self.container {
            value["ContainerStatus"] = json!({ "ContainerID": id, "PID": 0, "ExitCode": code });
        }
        value
    }
}

// === impl Network ===

impl Network {
    pub(super) fn json(&self) -> Value {
        json!({
            "Name": self.name, "Id": self.meta.id, "Created": self.meta.created.to_string(),
            "Scope": "swarm", "Driver": "overlay", "EnableIPv6": false,
            "IPAM": { "Driver": "default", "Options": null, "Config": [self.subnet_json()] },
            "Internal": false, "Attachable": self.attachable, "Ingress": self.ingress,
            "ConfigFrom": { "Network": "" }, "ConfigOnly": false, "Containers": null,
            "Options": {}, "Labels": self.labels,
        })
    }

    fn attachment_json(&self) -> Value {
        let mut map = self.meta.json();
        let spec = json!({
            "Name": self.name, "Labels": self.labels, "DriverConfiguration": { "Name": "overlay" },
            "Attachable": self.attachable, "Scope": "swarm",
        });
        map.insert("Spec".to_owned(), spec);
        map.insert("DriverState".to_owned(), json!({ "Name": "overlay" }));
        let ipam = json!({ "Driver": { "Name": "default" }, "Configs": [self.subnet_json()] });
        map.insert("IPAMOptions".to_owned(), ipam);
        Value::Object(map)
    }

    fn subnet_json(&self) -> Value {
        json!({
            "Subnet": format!("10.0.{}.0/24", self.subnet),
            "Gateway": format!("10.0.{}.1", self.subnet),
        })
    }
}

// === impl Node ===

impl Node {
    pub(super) fn json(&self, address: &str) -> Value {
        let mut map = self.meta.json();
        let role = if self.manager { "manager" } else { "worker" };
        let availability = if self.drained { "drain" } else { "active" };
        let spec = json!({ "Labels": self.labels, "Role": role, "Availability": availability });
        map.insert("Spec".to_owned(), spec);
        let description = json!({
            "Hostname": self.hostname,
            "Platform": { "Architecture": "x86_64", "OS": "linux" },
            "Resources": { "NanoCPUs": 2_000_000_000_u64, "MemoryBytes": 8_589_934_592_u64 },
            "Engine": { "EngineVersion": "20.10.24" },
        });
        map.insert("Description".to_owned(), description);
        let mut status = json!({ "State": if self.ready { "ready" } else { "down" }, "Addr": address });
        if !self.ready {
            status["Message"] = json!("heartbeat failure");
        }
        map.insert("Status".to_owned(), status);
        if self.manager {
            let leader =
                json!({ "Leader": true, "Reachability": "reachable", "Addr": format!("{address}:2377") });
            map.insert("ManagerStatus".to_owned(), leader);
        }
        Value::Object(map)
    }
}

/// Labels of a JSON object; none for anything else.
pub(super) fn labels(value: &Value) -> Labels {
    let map = value.as_object().into_iter().flatten();
    map.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

/// How the API writes a task's state.
pub(super) const fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::New => "new",
        TaskState::Allocated => "allocated",
        TaskState::Pending => "pending",
        TaskState::Assigned => "assigned",
        TaskState::Accepted => "accepted",
        TaskState::Preparing => "preparing",
        TaskState::Ready => "ready",
        TaskState::Starting => "starting",
        TaskState::Running => "running",
        TaskState::Complete => "complete",
        TaskState::Shutdown => "shutdown",
        TaskState::Failed => "failed",
        TaskState::Rejected => "rejected",
        TaskState::Remove => "remove",
        TaskState::Orphaned => "orphaned",
    }
}
