//! A stack file as the services that `docker stack deploy` makes of it, as far as plans look at services: labels, images,
//! commands, environment, files, mounts, placement, ports, networks and health checks.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use skep::swarm::object::Service;

/// The services of a stack of this name, by name.
pub(crate) fn services(file: &Path, stack: &str) -> Vec<Service> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let whole: Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let whole = filled(whole);
    let services = whole["services"].as_object().expect("services");
    let mut services: Vec<Service> = services
        .iter()
        .map(|(short, service)| Reading { whole: &whole, stack, short, service }.service())
        .collect();
    services.sort_by(|a, b| a.name().cmp(b.name()));
    services
}

/// One service of a file.
struct Reading<'a> {
    whole: &'a Value,
    stack: &'a str,
    short: &'a str,
    service: &'a Value,
}

impl Reading<'_> {
    fn service(&self) -> Service {
        let name = format!("{}_{}", self.stack, self.short);
        let deploy = &self.service["deploy"];
        let mut labels = texts(&deploy["labels"]);
        labels.insert("com.docker.stack.namespace".to_owned(), json!(self.stack));
        let spec = json!({
            "Name": name,
            "Labels": labels,
            "TaskTemplate": {
                "ContainerSpec": self.container(),
                "Placement": { "Constraints": deploy["placement"]["constraints"] },
                "Networks": self.networks(),
            },
            "Mode": { "Replicated": { "Replicas": deploy["replicas"].as_u64().unwrap_or(1) } },
            "UpdateConfig": { "Parallelism": 1, "Order": deploy["update_config"]["order"].as_str().unwrap_or("stop-first") },
            "EndpointSpec": { "Mode": "vip", "Ports": self.ports() },
        });
        Service { id: format!("{name}-id"), version: 1, spec, update: None, created: Timestamp::UNIX_EPOCH }
    }

    fn container(&self) -> Value {
        let service = self.service;
        let environment: Vec<String> = texts(&service["environment"])
            .iter()
            .map(|(name, text)| format!("{name}={}", text.as_str().unwrap_or_default()))
            .collect();
        json!({
            "Image": service["image"],
            "Command": words(&service["entrypoint"]),
            "Args": words(&service["command"]),
            "Hostname": service["hostname"].as_str().unwrap_or_default(),
            "Env": environment,
            "User": service["user"].as_str().unwrap_or_default(),
            "Healthcheck": { "Test": service["healthcheck"]["test"] },
            "Mounts": items(&service["volumes"]).map(|volume| self.mount(volume)).collect::<Vec<_>>(),
            "Secrets": items(&service["secrets"]).map(|file| self.file(file, "secrets", ["SecretName", "SecretID"])).collect::<Vec<_>>(),
            "Configs": items(&service["configs"]).map(|file| self.file(file, "configs", ["ConfigName", "ConfigID"])).collect::<Vec<_>>(),
        })
    }

    /// `volume:/path`, or `volume:/path:ro`.
    fn mount(&self, volume: &Value) -> Value {
        let parts: Vec<&str> = volume.as_str().expect("the short form of a volume").split(':').collect();
        let source = self.named("volumes", parts[0]);
        json!({ "Type": "volume", "Source": source, "Target": parts[1], "ReadOnly": parts.get(2) == Some(&"ro") })
    }

    fn file(&self, file: &Value, section: &str, [name, id]: [&str; 2]) -> Value {
        let source = file.as_str().or(file["source"].as_str()).expect("a source");
        let target = file["target"].as_str().unwrap_or(source);
        let found = self.named(section, source);
        json!({ name: found, id: format!("{found}-id"), "File": { "Name": target } })
    }

    fn networks(&self) -> Vec<Value> {
        let named: Vec<&str> = items(&self.service["networks"]).filter_map(Value::as_str).collect();
        let named = if named.is_empty() { vec!["default"] } else { named };
        named
            .into_iter()
            .map(|n| json!({ "Target": self.named("networks", n), "Aliases": [self.short] }))
            .collect()
    }

    /// The name that something defined in the file has in the Swarm.
    fn named(&self, section: &str, key: &str) -> String {
        let defined = &self.whole[section][key];
        match (defined["name"].as_str(), defined["external"].as_bool()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(true)) => key.to_owned(),
            _ => format!("{}_{key}", self.stack),
        }
    }

    /// `8080:80`, all of them through the ingress network.
    fn ports(&self) -> Vec<Value> {
        let target = |port: &Value| {
            let (_, target) =
                port.as_str().expect("the short form of a port").split_once(':').expect("both ports");
            json!({ "TargetPort": target.parse::<u16>().expect("a port"), "PublishMode": "ingress" })
        };
        items(&self.service["ports"]).map(target).collect()
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A mapping with all of its values as text.
fn texts(mapping: &Value) -> Map<String, Value> {
    let text = |value: &Value| json!(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    mapping.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
}

/// A command as a list, or as one line without quotes.
fn words(command: &Value) -> Value {
    match command.as_str() {
        Some(line) => line.split_whitespace().collect(),
        None => command.clone(),
    }
}

/// All texts with their variables filled in: none is set.
fn filled(value: Value) -> Value {
    match value {
        Value::String(text) => json!(fill(&text)),
        Value::Array(items) => items.into_iter().map(filled).collect(),
        Value::Object(entries) => entries.into_iter().map(|(key, value)| (key, filled(value))).collect(),
        other => other,
    }
}

fn fill(text: &str) -> String {
    let Some((before, after)) = text.split_once('$') else { return text.to_owned() };
    if let Some(rest) = after.strip_prefix('$') {
        return format!("{before}${}", fill(rest));
    }
    let (variable, rest) =
        after.strip_prefix('{').and_then(|inner| inner.split_once('}')).expect("a variable in braces");
    let (_, default) = variable.split_once(":-").expect("a variable with a default");
    format!("{before}{default}{}", fill(rest))
}
