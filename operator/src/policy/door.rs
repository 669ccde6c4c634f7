//! Whether a service can have the door that its labels ask for: what of that stands beside the labels.

use std::collections::BTreeSet;

use super::problem::{Code, Problem, Section};
use super::types::{Policy, Scale};
use crate::swarm::object::Service;

/// The label of a door.
pub(super) const DOOR: &str = "skep.scale.wake.door";

/// How a service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// By name, on a network.
    ByName,
    /// Also, or only, by a port that it publishes.
    ByPort,
    /// It is on no network on which a door could have a name.
    Nowhere,
}

/// What is wrong where users do not come through the door.
pub(super) fn past_the_door(policy: &Policy, reached: Reached) -> Option<Problem> {
    let door = policy.scale.as_ref().and_then(Scale::door)?;
    let want = match reached {
        Reached::ByName => return None,
        Reached::ByPort => {
            "no published port of a service with a door: who comes there passes the door by, is not seen, and would wake nobody; \
             publish a port of your proxy, or do without the door"
        }
        Reached::Nowhere => {
            "a network of the service: without one nobody finds the door by its name, nor the door the service"
        }
    };
    Some(Problem::new(Code::PastTheDoor, Section::Scale, DOOR).got(door).want(want))
}

/// What is wrong where the name of the door is the service's own, or another one's: both would get what is sent there.
pub(super) fn taken(policy: &Policy, names: &BTreeSet<String>) -> Option<Problem> {
    let door = policy.scale.as_ref().and_then(Scale::door)?;
    names.contains(door).then(|| {
        Problem::new(Code::DoorTaken, Section::Scale, DOOR)
            .got(door)
            .want("a name that nobody has on the networks of the service, neither it nor another service nor another door")
            .hint(format!("for example `{door}-door`"))
    })
}

/// How a service of the Swarm is reached.
pub(super) fn reached(service: &Service) -> Reached {
    let is_any = |list: &serde_json::Value| list.as_array().is_some_and(|list| !list.is_empty());
    match (is_any(&service.spec["EndpointSpec"]["Ports"]), networks(service).is_empty()) {
        (true, _) => Reached::ByPort,
        (false, true) => Reached::Nowhere,
        (false, false) => Reached::ByName,
    }
}

/// The names that others have on the networks of a service, and its own.
pub(super) fn names_around<'a>(
    service: &Service,
    all: impl IntoIterator<Item = (&'a Service, &'a Policy)>,
) -> BTreeSet<String> {
    let own = networks(service);
    let mut names = BTreeSet::new();
    for (other, policy) in all {
        if other.id != service.id && networks(other).is_disjoint(&own) {
            continue;
        }
        names.insert(other.name().to_owned());
        names.extend(aliases(other));
        if other.id != service.id {
            names.extend(policy.scale.as_ref().and_then(Scale::door).map(str::to_owned));
        }
    }
    names
}

fn attachments(service: &Service) -> impl Iterator<Item = &serde_json::Value> {
    service.spec["TaskTemplate"]["Networks"].as_array().into_iter().flatten()
}

fn networks(service: &Service) -> BTreeSet<&str> {
    attachments(service).filter_map(|network| network["Target"].as_str()).collect()
}

fn aliases(service: &Service) -> impl Iterator<Item = String> {
    let lists = attachments(service).filter_map(|network| network["Aliases"].as_array());
    lists.flatten().filter_map(|alias| alias.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::policies::Policies;
    use super::*;

    fn service(name: &str, labels: &[(&str, &str)], network: &str) -> Service {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let networks = json!([{ "Target": network, "Aliases": [name.trim_start_matches("shop_")] }]);
        Service {
            id: format!("{name}-id"),
            version: 1,
            spec: json!({ "Name": name, "Labels": labels, "TaskTemplate": { "Networks": networks } }),
            update: None,
            created: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn with_door(name: &str, door: &str) -> Service {
        let labels = [
            ("skep.enable", "true"),
            ("skep.scale.wake", "true"),
            ("skep.scale.wake.port", "8080"),
            (DOOR, door),
        ];
        service(name, &labels, "net")
    }

    fn told(services: &[Service]) -> Vec<(String, Code)> {
        let policies = Policies::of(services);
        for (name, problem) in policies.problems() {
            assert!(policies.get(name).unwrap().policy.scale.is_none(), "{problem}");
        }
        policies.problems().map(|(name, problem)| (name.to_owned(), problem.code)).collect()
    }

    #[test]
    fn a_door_has_a_name_that_nobody_else_has_where_it_stands() {
        let others = || vec![service("shop_db", &[], "net"), service("far_web", &[], "elsewhere")];
        let with = |door: &str| [vec![with_door("shop_app", door)], others()].concat();
        for free in ["app-door", "far_web", "far-web"] {
            let told = told(&with(free));
            assert!(told.iter().all(|(_, code)| *code != Code::DoorTaken), "{free}: {told:?}");
        }
        for taken in ["app", "db"] {
            assert_eq!(told(&with(taken)), [("shop_app".to_owned(), Code::DoorTaken)], "{taken}");
        }
        let two = [with_door("shop_app", "way-in"), with_door("shop_api", "way-in")];
        assert_eq!(told(&two).len(), 2, "neither has it");
    }

    #[test]
    fn users_come_through_the_door_or_there_is_none() {
        let mut app = with_door("shop_app", "app-door");
        assert_eq!(told(std::slice::from_ref(&app)), []);
        app.spec["EndpointSpec"] = json!({ "Ports": [{ "TargetPort": 8080, "PublishMode": "host" }] });
        assert_eq!(told(std::slice::from_ref(&app)), [("shop_app".to_owned(), Code::PastTheDoor)]);
        app.spec["EndpointSpec"] = json!({ "Mode": "dnsrr" });
        app.spec["TaskTemplate"]["Networks"] = json!([]);
        assert_eq!(told(&[app]), [("shop_app".to_owned(), Code::PastTheDoor)]);
    }
}
