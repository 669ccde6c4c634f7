//! The canary: a client's real spec without anything by which users could reach it (S1). Pure.

use serde_json::{Value, json};

use super::record::OpId;
use crate::swarm::object::OP;

/// Name of an operation's canary of a client's saved spec of this number: another spec has another canary.
pub fn name(op: &OpId, number: u32) -> String {
    format!("skep-canary-{op}-{number}")
}

/// Whether a service of this name is a canary of this operation.
pub fn is_one(service: &str, op: &OpId) -> bool {
    service.strip_prefix("skep-canary-").is_some_and(|rest| rest.starts_with(op.as_str()))
}

/// One task of the client: no network aliases, no ports, none of its service labels (which route), our name.
pub fn spec(name: &str, base: &Value, op: &OpId) -> Value {
    let mut template = base["TaskTemplate"].clone();
    // Older specs keep their networks beside the template.
    if let Some(networks) = base.get("Networks").filter(|_| template.get("Networks").is_none()) {
        template["Networks"] = networks.clone();
    }
    strip_aliases(&mut template["Networks"]);
    template["RestartPolicy"] = json!({ "Condition": "any", "Delay": 1_000_000_000u64, "MaxAttempts": 0 });
    json!({
        "Name": name,
        "Labels": { OP: op.as_str() },
        "TaskTemplate": template,
        "Mode": { "Replicated": { "Replicas": 1 } },
        "EndpointSpec": { "Mode": "dnsrr" },
    })
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
        let spec = spec(&name(&op, 0), &base, &op);
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"], base["TaskTemplate"]["ContainerSpec"]);
        assert_eq!(spec["TaskTemplate"]["Networks"], json!([{"Target": "n"}]));
        assert_eq!(spec["EndpointSpec"], json!({"Mode": "dnsrr"}));
        assert_eq!(spec["Labels"], json!({"skep.op": op.as_str()}));
        assert!(spec["Name"].as_str().unwrap().len() <= 63);
    }
}
