//! What a rollback would change, and what stands against it. Pure: a restore point, what is there now, and which
//! components are meant, are arguments.
//!
//! Invariants: a spec that would come back exactly as it is now is not written; nothing of a spec's values is told but
//! images, counts and names (S15); what cannot come back refuses all of it, before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::data::{self, Replaced};
use super::differences::{Difference, differences};
use crate::operation::points::{Copied, Head};
use crate::swarm::object::{ENABLE, Service};
use crate::swarm::spec;

/// What of a stack goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// Service specs, but for what the other components are.
    Specs,
    /// Which configs each service has; those that were removed are made again.
    Configs,
    /// Which image each service runs.
    Images,
    /// Data of databases.
    Database,
    /// Data of caches.
    Cache,
    /// Files of volumes.
    Volumes,
}

/// What is there now, as far as a rollback needs it.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The services of the stack, in the order of starting.
    pub services: Vec<Service>,
    /// All services of the Swarm, of which some may use data of the stack.
    pub swarm: Vec<Service>,
    /// Specs of the point, by full name.
    pub then: BTreeMap<String, Value>,
    /// Networks: name by id.
    pub networks: BTreeMap<String, String>,
    /// Secrets: name by id.
    pub secrets: BTreeMap<String, String>,
    /// Of the configs of the point those that are there, by the id that the point knows them by.
    pub configs: BTreeMap<String, Found>,
    /// Ids of nodes that take tasks.
    pub ready: BTreeSet<String>,
}

/// What there is of a config of the point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It, or one of the same name and data, under this id.
    Same(String),
    /// One of the same name with other data.
    Other,
}

/// What a rollback would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Services whose spec changes, in the order of starting.
    pub changes: Vec<Change>,
    /// Configs to be made again, as the point holds them.
    pub make: Vec<Copied>,
    /// Services whose data goes back, in the order of starting.
    pub data: Vec<Replaced>,
    /// Services that stop for that, in the order of stopping.
    pub clients: Vec<String>,
    /// Services whose spec stays as it is, and why.
    pub left: Vec<(String, Why)>,
    /// What stands against it.
    pub refused: Vec<String>,
    /// What people should know.
    pub mind: Vec<String>,
}

/// A service whose spec changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Full name.
    pub name: String,
    /// Id of the service as it is now.
    pub id: String,
    /// Its spec now.
    pub base: Value,
    /// Its spec afterwards; configs that have to be made again still under their old ids.
    pub wanted: Value,
    /// In what they differ.
    pub differences: Vec<Difference>,
}

/// Why a service stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing differs.
    Same,
    /// The point does not have it.
    NotThen,
    /// It has not opted in.
    NotEnabled,
}

/// What is not data.
const SPECS: [Component; 3] = [Component::Specs, Component::Configs, Component::Images];

// === impl Now ===

impl Now {
    /// Takes it that the specs of all services but these are meant as they are.
    pub fn only_specs_of(&mut self, is_meant: impl Fn(&str) -> bool) {
        for other in self.services.iter().filter(|s| !is_meant(s.name())) {
            if let Some(then) = self.then.get_mut(other.name()) {
                then.clone_from(&other.spec);
            }
        }
    }
}

// === impl Decision ===

impl Decision {
    /// Refuses what concerns any service but these: nobody holds it.
    pub fn within(&mut self, held: &[String]) {
        let changed = self.changes.iter().map(|change| &change.name);
        let all = changed.chain(self.data.iter().map(|replaced| &replaced.name)).chain(&self.clients);
        let beyond = all.filter(|name| !held.contains(name)).cloned().collect::<BTreeSet<String>>();
        self.refused.extend(beyond.into_iter().map(|name| {
            format!("{name} would stop or change, and came to use the data only since the operation began")
        }));
    }
}

// === impl Component ===

impl Component {
    /// Every component.
    pub const ALL: [Component; 6] = [
        Component::Specs,
        Component::Configs,
        Component::Images,
        Component::Database,
        Component::Cache,
        Component::Volumes,
    ];

    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Component::Specs => "specs",
            Component::Configs => "configs",
            Component::Images => "images",
            Component::Database => "database",
            Component::Cache => "cache",
            Component::Volumes => "volumes",
        }
    }

    /// Whether it is data.
    pub const fn is_data(self) -> bool {
        match self {
            Component::Specs | Component::Configs | Component::Images => false,
            Component::Database | Component::Cache | Component::Volumes => true,
        }
    }

    /// The component that the data of an engine (`skep.data`) is.
    pub fn of_engine(engine: &str) -> Component {
        match engine {
            "redis" => Component::Cache,
            "volume" => Component::Volumes,
            _ => Component::Database,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Same => "is as it was",
            Why::NotThen => "is not in the point",
            Why::NotEnabled => "has no label skep.enable=true",
        })
    }
}

/// Decides what becomes of each service of the stack. `only` empty means everything but data.
pub fn decide(head: &Head, now: &Now, only: &[Component]) -> Decision {
    let mut decision = Decision::default();
    let only: &[Component] = if only.is_empty() { &SPECS } else { only };
    for member in &head.services {
        if !now.services.iter().any(|s| s.name() == member.name) {
            decision.refused.push(format!("{} was removed: deploy it first, then roll back", member.name));
        }
    }
    for service in &now.services {
        let name = service.name();
        let member = head.services.iter().find(|m| m.name == name);
        let (Some(member), Some(then)) = (member, now.then.get(name)) else {
            decision.left.push((name.to_owned(), Why::NotThen));
            continue;
        };
        if service.spec["Labels"][ENABLE] != "true" {
            decision.left.push((name.to_owned(), Why::NotEnabled));
            continue;
        }
        let mut wanted = wanted(&service.spec, then, only);
        rebind(head, now, &mut wanted, name, &mut decision);
        if spec::same_spec(&service.spec, &wanted) {
            decision.left.push((name.to_owned(), Why::Same));
            continue;
        }
        stands_against(head, service, &wanted, only, &mut decision);
        let (was, image) = (spec::image(&service.spec), spec::image(&wanted));
        if was != image && !member.nodes.is_empty() && !member.nodes.iter().any(|n| now.ready.contains(n)) {
            decision.mind.push(format!(
                "no node that ran {name} then is ready now: a registry has to serve {image}, or it is loaded by hand"
            ));
        }
        decision.changes.push(Change {
            name: name.to_owned(),
            id: service.id.clone(),
            differences: differences(&service.spec, &wanted),
            base: service.spec.clone(),
            wanted,
        });
    }
    decision.make.sort_by(|a, b| a.name.cmp(&b.name));
    decision.make.dedup();
    if only.iter().any(|c| c.is_data()) {
        data::decide(head, now, only, &mut decision);
    }
    decision
}

/// The spec that a service gets. How often it was told to restart is no part of what it is.
fn wanted(now: &Value, then: &Value, only: &[Component]) -> Value {
    const IMAGE: &str = "com.docker.stack.image";
    let has = |component| only.contains(&component);
    let from = |component| if has(component) { then } else { now };
    let mut wanted = from(Component::Specs).clone();
    let image = from(Component::Images);
    spec::set_image(&mut wanted, spec::image(image));
    put(&mut wanted["Labels"], IMAGE, image["Labels"].get(IMAGE));
    let configs = &from(Component::Configs)["TaskTemplate"]["ContainerSpec"];
    put(&mut wanted["TaskTemplate"]["ContainerSpec"], "Configs", configs.get("Configs"));
    put(&mut wanted["TaskTemplate"], "ForceUpdate", now["TaskTemplate"].get("ForceUpdate"));
    wanted
}

fn put(object: &mut Value, key: &str, value: Option<&Value>) {
    match value {
        Some(value) => object[key] = value.clone(),
        None => drop(object.as_object_mut().and_then(|o| o.remove(key))),
    }
}

/// Points the spec to the networks, secrets and configs of now, where those of the point have another id.
fn rebind(head: &Head, now: &Now, wanted: &mut Value, service: &str, decision: &mut Decision) {
    for network in array(wanted, "/TaskTemplate/Networks") {
        let target = network["Target"].as_str().unwrap_or_default().to_owned();
        if now.networks.contains_key(&target) || now.networks.values().any(|name| *name == target) {
            continue;
        }
        let name = head.networks.iter().find(|n| n.id == target).map_or(target.as_str(), |n| n.name.as_str());
        match now.networks.iter().find(|(_, n)| *n == name) {
            Some((id, _)) => network["Target"] = json!(id),
            None => decision.refused.push(format!("network {name} of {service} is gone: create it first")),
        }
    }
    for secret in array(wanted, "/TaskTemplate/ContainerSpec/Secrets") {
        let id = secret["SecretID"].as_str().unwrap_or_default();
        if now.secrets.contains_key(id) {
            continue;
        }
        let name = secret["SecretName"].as_str().unwrap_or_default().to_owned();
        match now.secrets.iter().find(|(_, n)| **n == name) {
            Some((id, _)) => {
                secret["SecretID"] = json!(id);
                decision.mind.push(format!(
                    "secret {name} of {service} was made anew since: whether its content is that of then nobody can tell"
                ));
            }
            None => decision.refused.push(format!(
                "secret {name} of {service} is gone, and no restore point holds secrets: create it first"
            )),
        }
    }
    for config in array(wanted, "/TaskTemplate/ContainerSpec/Configs") {
        let id = config["ConfigID"].as_str().unwrap_or_default().to_owned();
        // One that the point does not know is one of now.
        let Some(copied) = head.configs.iter().find(|c| c.id == id) else { continue };
        match now.configs.get(&id) {
            Some(Found::Same(there)) => config["ConfigID"] = json!(there),
            Some(Found::Other) => decision.refused.push(format!(
                "config {} of {service} was made anew with other data: remove it, or give it another name, first",
                copied.name
            )),
            None => decision.make.push(copied.clone()),
        }
    }
}

/// The items of an array of the spec. One that is not there is not made.
pub(super) fn array<'a>(spec: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    spec.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

/// What no update can do, and what must not be done to data.
fn stands_against(
    head: &Head,
    service: &Service,
    wanted: &Value,
    only: &[Component],
    decision: &mut Decision,
) {
    let name = service.name();
    let mode = |spec: &Value| spec["Mode"].as_object().and_then(|m| m.keys().next().cloned());
    if mode(&service.spec) != mode(wanted) {
        decision.refused.push(format!(
            "{name} was {} then and is {} now: the Swarm does not change that; remove the service and deploy it first",
            mode(wanted).unwrap_or_default().to_lowercase(),
            mode(&service.spec).unwrap_or_default().to_lowercase(),
        ));
    }
    let holds_data = head.services.iter().any(|m| m.name == name && m.data.is_some())
        || service.spec["Labels"].get("skep.data").is_some();
    if !holds_data {
        return;
    }
    let (was, image) = (spec::image(&service.spec), spec::image(wanted));
    if was != image && !data::with_its_files(head, name, only) {
        decision.refused.push(format!(
            "{name} holds data, and its image was {image} then: an older server may not read, or may spoil, what {was} has written \
             since; deploy it by hand, or leave images out (`--only specs,configs`)"
        ));
    }
    if spec::mounts(&service.spec) != spec::mounts(wanted) {
        decision.refused.push(format!(
            "{name} holds data, and its mounts were others then: it would run on other files; deploy it by hand"
        ));
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
