//! What a restore point holds of a stack beside its data: read from the Swarm at one moment.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::operation::client_spec;
use crate::operation::points::{Copied, Data, Head, Member, Named, Network, Part, Purpose, Volume};
use crate::operation::saga::{Cx, Fault};
use crate::operation::sleeper;
use crate::policy::graph::Graph;
use crate::swarm::error::Error;
use crate::swarm::object::{KIND, Service, TaskState};
use crate::swarm::spec::{self, FileKind};

/// Label by which `docker stack deploy` tells which stack an object belongs to.
pub const STACK: &str = "com.docker.stack.namespace";

/// A head with the data of its parts by their names.
pub(super) struct Captured {
    pub(super) head: Head,
    pub(super) parts: BTreeMap<String, Vec<u8>>,
}

/// The services of people in a stack, in the order of starting; all services of the Swarm are given.
pub fn users_of<'a>(services: &'a [Service], stack: &str) -> Vec<&'a Service> {
    let is_users = |s: &&Service| s.stack() == Some(stack) && s.spec["Labels"].get(KIND).is_none();
    let users: Vec<&Service> = services.iter().filter(is_users).collect();
    let order = Graph::new(services).start_order(users.iter().map(|s| s.name()));
    order.iter().filter_map(|name| users.iter().copied().find(|s| s.name() == name)).collect()
}

/// Reads everything that the specs name. `services` in the order of starting, `data` by their names.
///
/// # Errors
/// When something that a spec names is not there, or what the engine says.
pub(super) async fn capture(
    cx: &Cx<'_>,
    services: &[Service],
    mut data: BTreeMap<String, Data>,
    purpose: Purpose,
) -> Result<Captured, Fault> {
    let mut parts = BTreeMap::new();
    let mut part = |bytes: Vec<u8>| {
        let part = Part::of(&cx.op.id, &bytes);
        parts.insert(part.name.clone(), bytes);
        part
    };
    let ids: Vec<&str> = services.iter().map(|s| s.id.as_str()).collect();
    let tasks = cx.engine().tasks(&ids).await?;
    let mut awakened = Vec::new();
    for service in services {
        awakened.push(Service { spec: awake(cx, service).await?, ..service.clone() });
    }
    let services = awakened.as_slice();
    let mut members = Vec::new();
    for service in services {
        let bytes = serde_json::to_vec(&service.spec)
            .map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
        let own = tasks.iter().filter(|t| t.service == service.id && !client_spec::is_waker(&t.spec));
        let running = own.filter(|t| t.state == TaskState::Running);
        let mut nodes: Vec<String> = running.filter_map(|t| t.node.clone()).collect();
        nodes.sort();
        nodes.dedup();
        members.push(Member {
            name: service.name().to_owned(),
            id: service.id.clone(),
            spec: part(bytes),
            image: spec::image(&service.spec).to_owned(),
            nodes,
            data: data.remove(service.name()),
        });
    }
    let mut configs = Vec::new();
    for named in named(services, FileKind::Config) {
        let config = match cx.engine().config(&named.id).await {
            Ok(config) => config,
            Err(Error::NotFound { .. }) => {
                return Err(Fault::failed(format!(
                    "config `{}`, which a service names, is gone",
                    named.name
                )));
            }
            Err(other) => return Err(other.into()),
        };
        let Named { id, name } = named;
        configs.push(Copied { id, name, labels: config.labels, data: part(config.data) });
    }
    let head = Head {
        schema: Head::VERSION,
        id: cx.op.id.clone(),
        stack: cx.op.intent.service.clone(),
        taken: cx.now(),
        purpose,
        services: members,
        configs,
        secrets: named(services, FileKind::Secret),
        networks: networks(services, &cx.engine().network_definitions().await?),
        volumes: volumes(services),
    };
    Ok(Captured { head, parts })
}

/// The spec of a service, and of one that sleeps or was scaled down that to which it goes back: a point is gone back to in order to work.
pub(super) async fn awake(cx: &Cx<'_>, service: &Service) -> Result<Value, Fault> {
    let slept = sleeper::find(cx.engine(), service.name()).await?;
    let slept =
        slept.filter(|slept| slept.sleeper.service_id == service.id && slept.sleeper.is_down(&service.spec));
    Ok(slept.map_or_else(|| service.spec.clone(), |slept| slept.spec))
}

/// The configs or secrets that specs name, each once.
fn named(services: &[Service], kind: FileKind) -> Vec<Named> {
    let refs = services.iter().flat_map(|s| spec::object_refs(&s.spec, kind));
    let mut named: Vec<Named> = refs.map(|r| Named { id: r.id, name: r.name }).collect();
    named.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    named.dedup();
    named
}

/// The networks that specs name. One that the engine does not tell of has its id only.
fn networks(services: &[Service], known: &[Value]) -> Vec<Network> {
    const DEFINES: [&str; 9] =
        ["Driver", "Scope", "Attachable", "Internal", "Ingress", "EnableIPv6", "IPAM", "Options", "Labels"];
    let mut targets: Vec<String> =
        services.iter().flat_map(|s| spec::networks(&s.spec)).map(|n| n.target).collect();
    targets.sort();
    targets.dedup();
    let network = |target: String| {
        let found = known.iter().find(|n| n["Id"] == target.as_str() || n["Name"] == target.as_str());
        let text = |key: &str| found.and_then(|n| n[key].as_str()).map(str::to_owned);
        let mut definition = json!({});
        for key in DEFINES {
            if let Some(value) = found.map(|n| &n[key]).filter(|v| !v.is_null()) {
                definition[key] = value.clone();
            }
        }
        Network {
            id: text("Id").unwrap_or_else(|| target.clone()),
            name: text("Name").unwrap_or_else(|| target.clone()),
            definition,
        }
    };
    targets.into_iter().map(network).collect()
}

/// The named volumes that specs mount, each once.
fn volumes(services: &[Service]) -> Vec<Volume> {
    let mut volumes: BTreeMap<&str, Volume> = BTreeMap::new();
    for service in services {
        let mounts = spec::mounts(&service.spec).iter().filter(|m| m["Type"] == "volume");
        for (mount, name) in mounts.filter_map(|m| Some((m, m["Source"].as_str()?))) {
            let volume = volumes.entry(name).or_insert_with(|| Volume {
                name: name.to_owned(),
                options: mount["VolumeOptions"].clone(),
                services: Vec::new(),
            });
            if volume.services.last().is_none_or(|last| last != service.name()) {
                volume.services.push(service.name().to_owned());
            }
        }
    }
    volumes.into_values().collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn service(name: &str, template: &Value) -> Service {
        Service {
            id: format!("{name}-id"),
            version: 1,
            spec: json!({ "Name": name, "Labels": { STACK: "shop" }, "TaskTemplate": template }),
            update: None,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_several_specs_name_is_listed_once_with_its_definition() {
        let mount = json!([{ "Type": "volume", "Source": "files", "Target": "/f",
            "VolumeOptions": { "DriverConfig": { "Name": "nfs" } } }, { "Type": "bind", "Source": "/x" }]);
        let secret = json!([{ "SecretID": "s1", "SecretName": "pw", "File": { "Name": "pw" } }]);
        let template = json!({ "Networks": [{ "Target": "n1" }],
            "ContainerSpec": { "Mounts": mount, "Secrets": secret,
                "Configs": [{ "ConfigID": "c1", "ConfigName": "conf", "Runtime": {} }] } });
        let services = [service("shop_a", &template), service("shop_b", &template)];
        let known = [
            json!({ "Id": "n1", "Name": "shop_default", "Driver": "overlay", "Peers": [1], "Options": null }),
        ];
        let [network] = networks(&services, &known).try_into().unwrap();
        assert_eq!(
            (network.name.as_str(), network.definition),
            ("shop_default", json!({ "Driver": "overlay" }))
        );
        let [volume] = volumes(&services).try_into().unwrap();
        assert_eq!(
            (volume.name.as_str(), volume.services),
            ("files", vec!["shop_a".into(), "shop_b".into()])
        );
        assert_eq!(volume.options["DriverConfig"]["Name"], "nfs");
        assert_eq!(named(&services, FileKind::Secret), [Named { id: "s1".into(), name: "pw".into() }]);
        // A credential spec is no file, and is named all the same.
        assert_eq!(named(&services, FileKind::Config), [Named { id: "c1".into(), name: "conf".into() }]);
    }

    #[test]
    fn what_skep_made_itself_belongs_to_no_stack() {
        let mut job = service("skep-job-1", &json!({}));
        job.spec["Labels"][KIND] = json!("ticket");
        let other = Service { spec: json!({ "Name": "x" }), ..service("x", &json!({})) };
        let all = [service("shop_a", &json!({})), job, other];
        let names: Vec<&str> = users_of(&all, "shop").into_iter().map(Service::name).collect();
        assert_eq!(names, ["shop_a"]);
    }
}
