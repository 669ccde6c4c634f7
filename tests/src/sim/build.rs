//! Builds service specs for tests.

use std::time::Duration;

use serde_json::{Value, json};

/// A service spec: replicated, dnsrr, one replica.
pub fn service_spec(name: &str, image: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    json!({
        "Name": name,
        "Labels": labels,
        "TaskTemplate": { "ContainerSpec": { "Image": image } },
        "Mode": { "Replicated": { "Replicas": 1 } },
        "EndpointSpec": { "Mode": "dnsrr" },
    })
}

/// With this many replicas.
pub fn replicas(mut spec: Value, count: u64) -> Value {
    spec["Mode"] = json!({ "Replicated": { "Replicas": count } });
    spec
}

/// On a network, under aliases.
pub fn on_network(mut spec: Value, network: &str, aliases: &[&str]) -> Value {
    let mut networks = spec["TaskTemplate"]["Networks"].as_array().cloned().unwrap_or_default();
    networks.push(json!({ "Target": network, "Aliases": aliases }));
    spec["TaskTemplate"]["Networks"] = Value::Array(networks);
    spec
}

/// With a health check of this interval.
pub fn health(mut spec: Value, interval: Duration, retries: u64) -> Value {
    let nanos = u64::try_from(interval.as_nanos()).expect("an interval of less than ages");
    let check = json!({ "Test": ["CMD", "/check"], "Interval": nanos, "Retries": retries });
    spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = check;
    spec
}

/// As a one-shot job: never restarted.
pub fn one_shot(mut spec: Value) -> Value {
    spec["TaskTemplate"]["RestartPolicy"] = json!({ "Condition": "none" });
    spec
}

/// With a config or secret (`kind` is `Config` or `Secret`) as a file.
pub fn file(mut spec: Value, kind: &str, id: &str, name: &str, path: &str) -> Value {
    let key = format!("{kind}s");
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    let mut files = container[&key].as_array().cloned().unwrap_or_default();
    files.push(json!({
        "File": { "Name": path, "UID": "0", "GID": "0", "Mode": 0o444 },
        format!("{kind}ID"): id,
        format!("{kind}Name"): name,
    }));
    container[&key] = Value::Array(files);
    spec
}
