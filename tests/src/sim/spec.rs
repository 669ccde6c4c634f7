//! Service specs as the daemon takes them: what it refuses and what it makes of the rest.
//!
//! The daemon decodes a spec into its own types and encodes it again, so what reads back is not quite what was
//! posted: keys that it does not know vanish, so do empty values, and some defaults appear. Posting what was
//! read changes nothing more.

use serde_json::{Map, Value, json};

use super::api::Refusal;

const TOP: &[&str] =
    &["Name", "Labels", "TaskTemplate", "Mode", "UpdateConfig", "RollbackConfig", "Networks", "EndpointSpec"];
const TEMPLATE: &[&str] = &[
    "ContainerSpec",
    "Resources",
    "RestartPolicy",
    "Placement",
    "Networks",
    "LogDriver",
    "ForceUpdate",
    "Runtime",
];
const CONTAINER: &[&str] = &[
    "Image",
    "Labels",
    "Command",
    "Args",
    "Hostname",
    "Env",
    "Dir",
    "User",
    "Groups",
    "Privileges",
    "Init",
    "StopSignal",
    "TTY",
    "OpenStdin",
    "ReadOnly",
    "Mounts",
    "StopGracePeriod",
    "Healthcheck",
    "Hosts",
    "DNSConfig",
    "Secrets",
    "Configs",
    "Isolation",
    "Sysctls",
    "CapabilityAdd",
    "CapabilityDrop",
    "Ulimits",
];

/// What stays though it is empty (pointers in Go).
const POINTERS: &[&str] = &[
    "BindOptions",
    "ContainerSpec",
    "DNSConfig",
    "DriverConfig",
    "EndpointSpec",
    "File",
    "Global",
    "Healthcheck",
    "Init",
    "Labels",
    "Limits",
    "Mode",
    "Placement",
    "Replicated",
    "Reservations",
    "Resources",
    "RestartPolicy",
    "RollbackConfig",
    "TaskTemplate",
    "TmpfsOptions",
    "UpdateConfig",
    "VolumeOptions",
];

/// What the daemon stores for a posted spec.
pub(super) fn normalise(posted: &Value) -> Result<Value, Refusal> {
    let mut spec = known(posted, TOP);
    let mut template = known(&spec["TaskTemplate"], TEMPLATE);
    if template.get("ContainerSpec").is_none_or(Value::is_null) {
        return Err(Refusal::new(400, "mismatched Runtime and *Spec fields"));
    }
    let mut container = known(&template["ContainerSpec"], CONTAINER);
    if container["Labels"].as_object().is_some_and(Map::is_empty) {
        container["Labels"] = Value::Null;
    }
    container["Isolation"] = json!(container["Isolation"].as_str().unwrap_or("default"));
    template["ContainerSpec"] = container;
    if template["RestartPolicy"].is_object() {
        fill(&mut template["RestartPolicy"], &[("Condition", json!("any")), ("MaxAttempts", json!(0))]);
    }
    fill(&mut template, &[("ForceUpdate", json!(0)), ("Runtime", json!("container"))]);
    spec["TaskTemplate"] = template;
    for (key, order) in [("UpdateConfig", "stop-first"), ("RollbackConfig", "stop-first")] {
        if spec[key].is_object() {
            let defaults = [
                ("Parallelism", json!(0)),
                ("FailureAction", json!("pause")),
                ("MaxFailureRatio", json!(0)),
                ("Order", json!(order)),
            ];
            fill(&mut spec[key], &defaults);
        }
    }
    normalise_mode(&mut spec);
    normalise_endpoint(&mut spec);
    if !spec["Labels"].is_object() {
        spec["Labels"] = json!({});
    }
    Ok(slim(spec))
}

fn normalise_mode(spec: &mut Value) {
    if spec["Mode"]["Global"].is_object() {
        spec["Mode"] = json!({ "Global": {} });
    } else {
        let replicas = spec["Mode"]["Replicated"]["Replicas"].as_u64().unwrap_or(1);
        spec["Mode"] = json!({ "Replicated": { "Replicas": replicas } });
    }
}

fn normalise_endpoint(spec: &mut Value) {
    if !spec["EndpointSpec"].is_object() {
        return;
    }
    fill(&mut spec["EndpointSpec"], &[("Mode", json!("vip"))]);
    for port in spec["EndpointSpec"]["Ports"].as_array_mut().into_iter().flatten() {
        fill(port, &[("Protocol", json!("tcp")), ("PublishMode", json!("ingress"))]);
    }
}

/// Refuses what the managers refuse.
pub(super) fn validate(spec: &Value) -> Result<(), Refusal> {
    let invalid = |text: &str| Err(Refusal::invalid(text));
    let name = spec["Name"].as_str().unwrap_or_default();
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    if name.is_empty() {
        return invalid("meta: name must be provided");
    }
    if !is_dns_name(name) {
        return invalid("name must be valid as a DNS name component");
    }
    if name.len() > 63 {
        return invalid("name must be 63 characters or fewer");
    }
    let image = container["Image"].as_str().unwrap_or_default();
    if image.is_empty() {
        return invalid("ContainerSpec: image reference must be provided");
    }
    if image.split(['/', ':', '@']).next().is_some_and(|n| n.chars().any(char::is_uppercase)) {
        return invalid(&format!("ContainerSpec: {image:?} is not a valid repository/tag"));
    }
    validate_words(spec)?;
    validate_constraints(spec)?;
    validate_files(container, "Config")?;
    validate_files(container, "Secret")?;
    let targets: Vec<&Value> = list(&container["Mounts"]).map(|m| &m["Target"]).collect();
    if let Some(twice) = duplicate(&targets) {
        return invalid(&format!(
            "ContainerSpec: duplicate mount point: {}",
            twice.as_str().unwrap_or_default()
        ));
    }
    validate_ports(&spec["EndpointSpec"])
}

fn validate_words(spec: &Value) -> Result<(), Refusal> {
    let one_of =
        |value: &Value, words: &[&str]| value.as_str().is_none_or(|v| v.is_empty() || words.contains(&v));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for key in ["UpdateConfig", "RollbackConfig"] {
        let (action, order) = (&spec[key]["FailureAction"], &spec[key]["Order"]);
        if !one_of(action, &["pause", "continue", "rollback"]) {
            return Err(Refusal::new(400, &format!("unrecognized update failure action {}", text(action))));
        }
        if !one_of(order, &["stop-first", "start-first"]) {
            return Err(Refusal::new(400, &format!("unrecognized update order {}", text(order))));
        }
    }
    let condition = &spec["TaskTemplate"]["RestartPolicy"]["Condition"];
    if !one_of(condition, &["none", "on-failure", "any"]) {
        return Err(Refusal::new(400, &format!("invalid RestartCondition: {:?}", text(condition))));
    }
    Ok(())
}

fn validate_constraints(spec: &Value) -> Result<(), Refusal> {
    for constraint in list(&spec["TaskTemplate"]["Placement"]["Constraints"]) {
        if parse_constraint(constraint.as_str().unwrap_or_default()).is_none() {
            let text = "rpc error: code = Unknown desc = constraint expected one operator from ==, !=";
            return Err(Refusal::new(500, text));
        }
    }
    Ok(())
}

fn validate_files(container: &Value, kind: &str) -> Result<(), Refusal> {
    let word = kind.to_lowercase();
    let mut targets = Vec::new();
    for reference in list(&container[format!("{kind}s")]) {
        let has = |key: String| reference[key].as_str().is_some_and(|v| !v.is_empty());
        if !has(format!("{kind}ID")) || !has(format!("{kind}Name")) {
            return Err(Refusal::invalid(&format!("malformed {word} reference")));
        }
        if !reference["File"].is_object() {
            return Err(Refusal::invalid(&format!("malformed {word} reference, no target provided")));
        }
        targets.push((&reference["File"]["Name"], &reference[format!("{kind}Name")]));
    }
    let names: Vec<&Value> = targets.iter().map(|(file, _)| *file).collect();
    if let Some(twice) = duplicate(&names) {
        let both: Vec<_> =
            targets.iter().filter(|(f, _)| *f == twice).filter_map(|(_, n)| n.as_str()).collect();
        return Err(Refusal::invalid(&format!(
            "{word} references '{}' and '{}' have a conflicting target: '{}'",
            both[0],
            both[1],
            twice.as_str().unwrap_or_default()
        )));
    }
    Ok(())
}

fn validate_ports(endpoint: &Value) -> Result<(), Refusal> {
    let ports: Vec<&Value> = list(&endpoint["Ports"]).collect();
    let dnsrr = endpoint["Mode"] == "dnsrr";
    if dnsrr && ports.iter().any(|p| p["PublishMode"] == "ingress") {
        let text = "EndpointSpec: port published with ingress mode can't be used with dnsrr mode";
        return Err(Refusal::invalid(text));
    }
    let published: Vec<&Value> = ports.iter().map(|p| &p["PublishedPort"]).filter(|p| !p.is_null()).collect();
    match duplicate(&published) {
        Some(_) => Err(Refusal::invalid("EndpointSpec: duplicate published ports provided")),
        None => Ok(()),
    }
}

/// `key == value` or `key != value`: key, whether equal, value.
pub(super) fn parse_constraint(text: &str) -> Option<(&str, bool, &str)> {
    let (key, equal, value) = match text.split_once("!=") {
        Some((key, value)) => (key, false, value),
        None => text.split_once("==").map(|(key, value)| (key, true, value))?,
    };
    Some((key.trim(), equal, value.trim()))
}

/// Whether a name can be a service's.
fn is_dns_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.chars().all(fine) && ends(name.chars().next()) && ends(name.chars().last())
}

/// Whether a name can be a config's or a secret's.
pub(super) fn is_object_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= 64 && name.chars().all(fine) && ends(name.chars().next()) && ends(name.chars().last())
}

/// The elements of a JSON array; none for anything else.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn duplicate<'a>(values: &[&'a Value]) -> Option<&'a Value> {
    values.iter().enumerate().find(|(i, v)| values[..*i].contains(v)).map(|(_, v)| *v)
}

/// The object with the known keys only, in the daemon's spelling: Go reads keys without regard to case.
fn known(value: &Value, keys: &[&str]) -> Value {
    let mut map = Map::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        if let Some(key) = keys.iter().find(|k| k.eq_ignore_ascii_case(key)) {
            map.insert((*key).to_owned(), value.clone());
        }
    }
    Value::Object(map)
}

/// Drops what Go's `omitempty` drops. Labels stay as they are.
fn slim(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.into_iter().map(|(k, v)| if k == "Labels" { (k, v) } else { (k, slim(v)) });
            let kept = |k: &str, v: &Value| !is_empty(v) || !v.is_null() && POINTERS.contains(&k);
            Value::Object(entries.filter(|(k, v)| kept(k, v)).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(slim).collect()),
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn fill(value: &mut Value, defaults: &[(&str, Value)]) {
    for (key, default) in defaults {
        if value[*key].is_null() || value[*key] == "" {
            value[*key] = default.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_can_be_posted_without_a_change() {
        let posted = json!({
            "Name": "web", "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "bb:1", "Args": [], "HealthCheck": { "Test": ["CMD", "true"] }, "Labels": {},
                    "Mounts": [{ "Type": "bind", "Source": "/x", "Target": "/y", "ReadOnly": false }],
                    "StopGracePeriod": 0, "Nonsense": 1,
                },
                "RestartPolicy": {}, "Resources": {}, "Placement": {},
            },
            "UpdateConfig": { "Order": "start-first" },
            "EndpointSpec": { "Ports": [{ "TargetPort": 80 }] },
        });
        let read = normalise(&posted).unwrap();
        let wanted = json!({
            "Name": "web", "Labels": {}, "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "bb:1", "Healthcheck": { "Test": ["CMD", "true"] }, "Isolation": "default",
                    "Mounts": [{ "Type": "bind", "Source": "/x", "Target": "/y" }], "StopGracePeriod": 0,
                },
                "RestartPolicy": { "Condition": "any", "MaxAttempts": 0 }, "Resources": {}, "Placement": {},
                "ForceUpdate": 0, "Runtime": "container",
            },
            "Mode": { "Replicated": { "Replicas": 1 } },
            "UpdateConfig": {
                "Parallelism": 0, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "start-first",
            },
            "EndpointSpec": {
                "Mode": "vip", "Ports": [{ "Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress" }],
            },
        });
        assert_eq!(read, wanted);
        assert_eq!(normalise(&read).unwrap(), read);
    }
}
