//! The example stacks are what they are said to be: a real engine takes each of them, what it makes of them has no problem, and
//! the golden plans, which read the files without an engine, look at the same services.
//!
//! Nothing of them runs: their images are not here, and no node has their labels.
//!
//! Run by: `cargo test -p skep-tests --test real_examples -- --ignored`. Needs the sandbox (`make sandbox-up`); it fails without it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[path = "../../operator/tests/stack/mod.rs"]
mod stack;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};
use skep::policy::check_services;
use skep::swarm::object::Service;
use skep_tests::sandbox::{Sandbox, repository};

const EXAMPLES: [(&str, &str); 5] = [
    ("nautobot", "nautobot"),
    ("odoo", "odoo"),
    ("hosting", "hosting"),
    ("notes", "single"),
    ("devstack", "devstack"),
];

/// Everything of a spec that plans look at.
fn seen(spec: &Value, networks: &BTreeMap<String, String>) -> Value {
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    let sorted = |list: &Value, text: &dyn Fn(&Value) -> String| -> Vec<String> {
        let items = list.as_array().into_iter().flatten();
        items.map(text).collect::<BTreeSet<_>>().into_iter().collect()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let file = |name: &'static str| {
        move |entry: &Value| format!("{} at {}", text(&entry[name]), text(&entry["File"]["Name"]))
    };
    let mount = |m: &Value| {
        let is_read_only = m["ReadOnly"] == true;
        format!("{} {} at {} {is_read_only}", text(&m["Type"]), text(&m["Source"]), text(&m["Target"]))
    };
    let network = |entry: &Value| {
        let target = text(&entry["Target"]);
        networks.get(&target).cloned().unwrap_or(target)
    };
    let mut labels = spec["Labels"].as_object().unwrap().clone();
    labels.retain(|key, _| key != "com.docker.stack.image");
    json!({
        "name": spec["Name"],
        "labels": labels,
        "image": container["Image"],
        "command": sorted(&container["Command"], &text),
        "arguments": container["Args"].as_array().cloned().unwrap_or_default(),
        "user": text(&container["User"]),
        "host": text(&container["Hostname"]),
        "environment": sorted(&container["Env"], &text),
        "health": container["Healthcheck"]["Test"],
        "mounts": sorted(&container["Mounts"], &mount),
        "secrets": sorted(&container["Secrets"], &file("SecretName")),
        "configs": sorted(&container["Configs"], &file("ConfigName")),
        "constraints": sorted(&spec["TaskTemplate"]["Placement"]["Constraints"], &text),
        "networks": sorted(&spec["TaskTemplate"]["Networks"], &network),
        "replicas": spec["Mode"]["Replicated"]["Replicas"],
        "ports": sorted(&spec["EndpointSpec"]["Ports"], &|port| {
            format!("{} {}", port["TargetPort"], text(&port["PublishMode"]))
        }),
    })
}

async fn deployed(sandbox: &Sandbox, stack: &str) -> Vec<Service> {
    let ids = sandbox.docker(&["stack", "services", "-q", stack]).await;
    let ids: Vec<&str> = ids.lines().collect();
    let read = sandbox.docker(&[&["service", "inspect"], ids.as_slice()].concat()).await;
    let read: Vec<Value> = serde_json::from_str(&read).unwrap();
    let service = |value: &Value| Service {
        id: value["ID"].as_str().unwrap().to_owned(),
        version: 1,
        spec: value["Spec"].clone(),
        update: None,
        created: Timestamp::UNIX_EPOCH,
    };
    let mut services: Vec<Service> = read.iter().map(service).collect();
    services.sort_by(|a, b| a.name().cmp(b.name()));
    services
}

async fn networks(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let listed = sandbox.docker(&["network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"]).await;
    listed.lines().filter_map(|line| line.split_once(' ')).map(|(id, n)| (id.into(), n.into())).collect()
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn an_engine_makes_of_each_example_what_its_plans_are_made_from() {
    let sandbox = Sandbox::shared().await;
    for network in ["edge", "skep-monitoring"] {
        sandbox.network(network).await;
    }
    for (name, file) in EXAMPLES {
        let file = repository(&format!("manifests/examples/{file}.yml"));
        let wanted = stack::services(&file, name);
        let secrets = wanted.iter().filter_map(|s| s.spec.pointer("/TaskTemplate/ContainerSpec/Secrets"));
        for secret in secrets.filter_map(Value::as_array).flatten() {
            sandbox.secret(secret["SecretName"].as_str().unwrap(), "none").await;
        }
        let stack = sandbox.deploy(&file, name, &[]).await;
        let found = deployed(sandbox, name).await;
        let networks = networks(sandbox).await;
        let shown = |services: &[Service]| -> Vec<String> {
            services.iter().map(|s| format!("{:#}", seen(&s.spec, &networks))).collect()
        };
        assert_eq!(shown(&found).join("\n"), shown(&wanted).join("\n"), "{name}");
        let report = check_services(&found);
        assert!(report.findings.is_empty(), "{report}");
        stack.remove().await;
    }
}
