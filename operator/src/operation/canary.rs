//! The canary: a client's real spec without anything by which users could reach it (S1). Pure.

use serde_json::{Value, json};
use skep_runner::TICKET_PATH;
use skep_runner::task::{NetCheck, Probe};

use super::checks::for_canary;
use super::frozen::Client;
use super::record::OpId;
use crate::policy::{Check, CheckProbe};
use crate::swarm::job::node_constraint;
use crate::swarm::object::{Labels, ObjectRef};
use crate::swarm::spec::{FileKind, FileRef, networks};

/// Everybody in the container may read it.
const READABLE: u32 = 0o444;

/// Name of an operation's canary of a client's saved spec of this number: another spec has another canary.
pub fn name(op: &OpId, number: u32) -> String {
    format!("skep-canary-{op}-{number}")
}

/// Whether a service of this name is a canary of this operation.
pub fn is_one(service: &str, op: &OpId) -> bool {
    service.strip_prefix("skep-canary-").is_some_and(|rest| rest.starts_with(op.as_str()))
}

/// Whether a task with this template is of a canary of this operation: it refers to its ticket by name, and does so also when
/// the service is gone.
pub fn is_task(template: &Value, op: &OpId) -> bool {
    let configs = template["ContainerSpec"]["Configs"].as_array().into_iter().flatten();
    configs.filter_map(|c| c["ConfigName"].as_str()).any(|name| is_one(name, op))
}

/// One task of the client: no network aliases, no ports, none of its service labels (which route), the ticket's name and
/// `labels`; on `node` where one is given. It refers to its ticket as a job does: without it, it cannot be made (S7).
pub fn spec(ticket: &ObjectRef, base: &Value, labels: &Labels, node: Option<&str>) -> Value {
    let mut template = base["TaskTemplate"].clone();
    // Older specs keep their networks beside the template.
    if let Some(networks) = base.get("Networks").filter(|_| template.get("Networks").is_none()) {
        template["Networks"] = networks.clone();
    }
    strip_aliases(&mut template["Networks"]);
    template["RestartPolicy"] = json!({ "Condition": "any", "Delay": 1_000_000_000u64, "MaxAttempts": 0 });
    if let Some(node) = node {
        pin(&mut template, node);
    }
    let ticket_file = FileRef { object: ticket.clone(), path: TICKET_PATH.to_owned(), mode: READABLE };
    let mut configs = template["ContainerSpec"]["Configs"].as_array().cloned().unwrap_or_default();
    configs.push(ticket_file.to_entry(FileKind::Config));
    template["ContainerSpec"]["Configs"] = Value::Array(configs);
    json!({
        "Name": ticket.name,
        "Labels": labels,
        "TaskTemplate": template,
        "Mode": { "Replicated": { "Replicas": 1 } },
        "EndpointSpec": { "Mode": "dnsrr" },
    })
}

/// The checks that the canary answers instead of the client: those that name no host, or the client itself by one of its
/// names. A check that names another host asks what lies before the client and still shows the page.
pub fn checks(client: &Client, base: &Value, canary: &str) -> Vec<NetCheck> {
    let own = own_names(&client.name, base);
    let asks_client = |host: &str| host.is_empty() || own.iter().any(|name| name == host);
    let checks = net_checks(&client.checks).into_iter().filter(|check| asks_client(&check.host));
    checks.map(|check| NetCheck { host: format!("tasks.{canary}"), ..check }).collect()
}

/// Whether a canary can be asked any of these checks.
pub fn can_try(checks: &[Check]) -> bool {
    !net_checks(checks).is_empty() || !for_canary(checks).is_empty()
}

/// The network checks among these; one that names no host has an empty one.
pub fn net_checks(checks: &[Check]) -> Vec<NetCheck> {
    let checks = checks.iter().filter_map(|check| {
        let (host, port, probe, within) = match &check.probe {
            CheckProbe::Http { host, port, path, status, within, body } => {
                let probe = Probe::Http { path: path.clone(), status: *status, body: body.clone() };
                (host.clone(), *port, probe, *within)
            }
            CheckProbe::Tcp { port, within } => (String::new(), *port, Probe::Tcp, *within),
            CheckProbe::Sql { .. } | CheckProbe::Command { .. } | CheckProbe::Log { .. } => return None,
        };
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        Some(NetCheck { name: check.name.clone(), host, port, probe, within_ms })
    });
    checks.collect()
}

/// The network checks of a service, put to its own tasks where they name no other host.
pub fn checks_of(service: &Client) -> Vec<NetCheck> {
    put_to(&service.name, &service.checks)
}

/// The network checks among these, put to the tasks of a service where they name no other host.
pub fn put_to(service: &str, checks: &[Check]) -> Vec<NetCheck> {
    let mut checks = net_checks(checks);
    for check in checks.iter_mut().filter(|check| check.host.is_empty()) {
        check.host = format!("tasks.{service}");
    }
    checks
}

/// The names by which others on its networks reach a service.
fn own_names(name: &str, base: &Value) -> Vec<String> {
    let mut names = vec![name.to_owned(), format!("tasks.{name}")];
    names.extend(networks(base).into_iter().flat_map(|network| network.aliases));
    names
}

fn pin(template: &mut Value, node: &str) {
    let mut constraints = template["Placement"]["Constraints"].as_array().cloned().unwrap_or_default();
    constraints.push(Value::from(node_constraint(node)));
    if !template["Placement"].is_object() {
        template["Placement"] = json!({});
    }
    template["Placement"]["Constraints"] = Value::Array(constraints);
}

fn strip_aliases(networks: &mut Value) {
    for network in networks.as_array_mut().into_iter().flatten() {
        if let Some(map) = network.as_object_mut() {
            map.remove("Aliases");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::frozen::Method;

    #[test]
    fn users_cannot_reach_a_canary_but_it_is_otherwise_the_client() {
        let base = json!({
            "Name": "shop_app",
            "Labels": {"traefik.enable": "true"},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "app:1", "Env": ["A=1"], "Healthcheck": {"Test": ["CMD", "x"]}},
                "Networks": [{"Target": "n", "Aliases": ["app"]}],
            },
            "EndpointSpec": {"Mode": "vip", "Ports": [{"TargetPort": 80}]},
            "Mode": {"Replicated": {"Replicas": 3}},
        });
        let op = OpId::parse("20260101t000000abcdef").unwrap();
        let labels = Labels::from([("skep.op".to_owned(), op.to_string())]);
        let ticket = ObjectRef { id: "t1".to_owned(), name: name(&op, 0) };
        let mut spec = spec(&ticket, &base, &labels, Some("n1"));
        let configs =
            spec["TaskTemplate"]["ContainerSpec"].as_object_mut().unwrap().remove("Configs").unwrap();
        assert_eq!((&configs[0]["ConfigID"], configs.as_array().unwrap().len()), (&json!("t1"), 1));
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"], base["TaskTemplate"]["ContainerSpec"]);
        assert_eq!(spec["TaskTemplate"]["Networks"], json!([{"Target": "n"}]));
        assert_eq!(spec["TaskTemplate"]["Placement"], json!({"Constraints": ["node.id==n1"]}));
        assert_eq!(spec["EndpointSpec"], json!({"Mode": "dnsrr"}));
        assert_eq!(spec["Labels"], json!({"skep.op": op.as_str()}));
        assert!(spec["Name"].as_str().unwrap().len() <= 63);
    }

    #[test]
    fn a_canary_keeps_the_constraints_of_its_client() {
        let placement = json!({"Constraints": ["node.role==worker"], "MaxReplicas": 1});
        let base = json!({"TaskTemplate": {"Placement": placement}});
        let (labels, ticket) = (Labels::new(), ObjectRef { id: "t".to_owned(), name: "c".to_owned() });
        assert_eq!(spec(&ticket, &base, &labels, None)["TaskTemplate"]["Placement"], placement);
        let pinned = &spec(&ticket, &base, &labels, Some("n1"))["TaskTemplate"]["Placement"];
        assert_eq!(*pinned, json!({"Constraints": ["node.role==worker", "node.id==n1"], "MaxReplicas": 1}));
    }

    #[test]
    fn a_check_of_the_client_by_any_of_its_names_asks_the_canary_and_one_of_another_host_is_left_out() {
        let http = |host: &str| Check {
            name: host.to_owned(),
            probe: CheckProbe::Http {
                host: host.to_owned(),
                port: 8080,
                path: "/".to_owned(),
                status: 200,
                within: std::time::Duration::from_secs(1),
                body: None,
            },
        };
        let client = Client {
            holds_files: false,
            name: "shop_app".to_owned(),
            id: String::new(),
            method: Method::Zero,
            nodes: Vec::new(),
            checks: ["", "app", "shop_app", "tasks.shop_app", "shop_proxy", "other"].map(http).into(),
        };
        let base = json!({"TaskTemplate": {"Networks": [{"Target": "n", "Aliases": ["app"]}]}});
        let asked = checks(&client, &base, "skep-canary-1");
        assert!(asked.iter().all(|c| c.host == "tasks.skep-canary-1"), "{asked:?}");
        let names: Vec<&str> = asked.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["", "app", "shop_app", "tasks.shop_app"]);
    }
}
