//! Which services a restart stops, and which it replaces as they run; pure.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engines::is_local;
use crate::operation::client_spec::is_asleep;
use crate::operation::point::users_of;
use crate::operation::record::Manner;
use crate::policy::{Policies, Policy};
use crate::swarm::object::Service;
use crate::swarm::spec::{constraints, host_ports, mounts};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Full name of the service; the name of the stack, where all of it is meant.
    pub name: &'a str,
    /// Whether it is a stack.
    pub whole: bool,
    /// Whether services stop.
    pub manner: Manner,
    /// Caches to empty, as they were named.
    pub flush: &'a [String],
}

/// What comes of it. Names are full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Services that stop and start again, in the order of stopping.
    pub stop: Vec<String>,
    /// Services whose tasks are replaced as they run, in the order of starting.
    pub roll: Vec<(String, Order)>,
    /// Caches to empty while what uses them is stopped.
    pub flush: Vec<String>,
    /// What is left alone, and why.
    pub left: Vec<(String, Left)>,
    /// Why nothing of it can be done.
    pub refused: Vec<String>,
}

/// Which task comes first when one is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The new one is up before the old one stops.
    StartFirst,
    /// The old one has stopped before the new one starts.
    StopFirst,
}

/// Why a service is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Skep has put it to sleep.
    Asleep,
    /// A person has scaled it to zero.
    AtZero,
    /// It has not opted in.
    NotEnabled,
    /// It is a job of Swarm's.
    Job,
}

/// What a decision is made from.
struct Scene<'a> {
    services: &'a [Service],
    policies: &'a Policies,
    asleep: &'a BTreeSet<String>,
}

/// Decides. `asleep` holds the ids of services that Skep has put to sleep; all services of the Swarm are given.
pub fn decide(
    services: &[Service],
    policies: &Policies,
    asleep: &BTreeSet<String>,
    wanted: Wanted<'_>,
) -> Decision {
    let scene = Scene { services, policies, asleep };
    let mut decision = Decision::default();
    let targets = scene.targets(wanted, &mut decision);
    let names: BTreeSet<&str> = targets.iter().map(|s| s.name()).collect();
    let (roll, stop): (Vec<&Service>, Vec<&Service>) =
        targets.iter().partition(|s| scene.rolls(s, &names, wanted));
    let mut stopping: BTreeSet<String> = stop.iter().map(|s| s.name().to_owned()).collect();
    decision.flush = scene.caches(wanted, &mut decision.refused);
    let missed = stop.iter().map(|s| s.name()).filter(|name| scene.is_missed(name));
    for below in missed.chain(decision.flush.iter().map(String::as_str)) {
        for above in policies.graph().dependents_of(below) {
            let Some(service) = scene.find(&above) else { continue };
            match scene.left(service) {
                None => drop(stopping.insert(above)),
                Some(why) => decision.left.push((above, why)),
            }
        }
    }
    let graph = policies.graph();
    decision.stop = graph.stop_order(stopping.iter().map(String::as_str));
    let rolling = roll.iter().map(|s| s.name()).filter(|name| !stopping.contains(*name));
    let rolling = graph.start_order(rolling);
    decision.roll = rolling
        .into_iter()
        .filter_map(|name| {
            let order = order(scene.find(&name)?, scene.policy(&name));
            Some((name, order))
        })
        .collect();
    decision.left.sort_by(|(a, _), (b, _)| a.cmp(b));
    decision.left.dedup();
    decision
}

/// Why a service is left alone, if it is. `asleep` holds the ids of services that Skep has put to sleep.
pub fn left_alone(service: &Service, policy: Option<&Policy>, asleep: &BTreeSet<String>) -> Option<Left> {
    if service.is_job() {
        return Some(Left::Job);
    }
    if !policy.is_some_and(|p| p.enabled) {
        return Some(Left::NotEnabled);
    }
    match (is_asleep(&service.spec), asleep.contains(&service.id)) {
        (true, true) => Some(Left::Asleep),
        (true, false) => Some(Left::AtZero),
        (false, _) => None,
    }
}

/// Which task of a service comes first when one is replaced: two at once on the same data, or on the same port of a node,
/// cannot be.
pub fn order(service: &Service, policy: Option<&Policy>) -> Order {
    let is_free = is_stateless(service, policy)
        && host_ports(&service.spec).is_empty()
        && service.spec["Mode"].get("Replicated").is_some();
    if is_free { Order::StartFirst } else { Order::StopFirst }
}

/// Whether a service keeps nothing: it says of no data that it is its own, and writes to no volume and no directory of a node.
pub fn is_stateless(service: &Service, policy: Option<&Policy>) -> bool {
    policy.is_none_or(|p| p.data.is_none()) && kept(service).next().is_none()
}

/// A volume of a node's own from which a new task of the service may be put away, since no placement constraint ties it.
pub fn untied(service: &Service) -> Option<&str> {
    let local = kept(service).find(|m| m["Type"] == "bind" || is_local(m));
    local.filter(|_| constraints(&service.spec).is_empty()).and_then(|m| m["Source"].as_str())
}

fn kept(service: &Service) -> impl Iterator<Item = &Value> {
    let keeps = |m: &&Value| matches!(m["Type"].as_str(), Some("volume" | "bind" | "cluster"));
    mounts(&service.spec).iter().filter(keeps).filter(|m| m["ReadOnly"] != true)
}

// === impl Scene ===

impl<'a> Scene<'a> {
    fn find(&self, name: &str) -> Option<&'a Service> {
        self.services.iter().find(|s| s.name() == name)
    }

    fn policy(&self, name: &str) -> Option<&'a Policy> {
        self.policies.get(name).map(|p| &p.policy)
    }

    /// What is to be restarted, in the order of starting.
    fn targets(&self, wanted: Wanted<'_>, decision: &mut Decision) -> Vec<&'a Service> {
        let meant = match wanted.whole {
            true => users_of(self.services, wanted.name),
            false => self.find(wanted.name).into_iter().collect(),
        };
        let is_none = meant.is_empty();
        let (left, targets): (Vec<_>, Vec<_>) = meant.into_iter().partition(|s| self.left(s).is_some());
        match (wanted.whole, left.first().and_then(|s| self.left(s)), targets.is_empty()) {
            (false, Some(why), _) => decision.refused.push(format!("{} {why}", wanted.name)),
            (false, None, true) => decision.refused.push(format!("there is no service `{}`", wanted.name)),
            (true, _, _) if is_none => decision.refused.push(format!("there is no stack `{}`", wanted.name)),
            (true, _, true) => decision
                .refused
                .push(format!("no service of stack {} runs and has the label skep.enable=true", wanted.name)),
            _ => {}
        }
        let named = left.iter().filter_map(|s| Some((s.name().to_owned(), self.left(s)?)));
        decision.left.extend(named.filter(|_| wanted.whole));
        targets
    }

    fn left(&self, service: &Service) -> Option<Left> {
        left_alone(service, self.policy(service.name()), self.asleep)
    }

    /// Whether what needs a service cannot be without it: where there is a page while it is away, what is in front of it shows
    /// that, and must not stop.
    fn is_missed(&self, name: &str) -> bool {
        self.policy(name).is_none_or(|p| p.maintenance.is_none())
    }

    /// Whether a service is restarted as it runs. Of a stack only what stands beside the others: between two that need each
    /// other there is an order to keep.
    fn rolls(&self, service: &Service, targets: &BTreeSet<&str>, wanted: Wanted<'_>) -> bool {
        match wanted.manner {
            Manner::Rolling => true,
            Manner::Stopped => false,
            Manner::Fitting => {
                let (graph, name) = (self.policies.graph(), service.name());
                let goes_away = |below: &String| targets.contains(below.as_str()) && self.is_missed(below);
                let is_awake = |above: &String| self.find(above).is_some_and(|above| !is_asleep(&above.spec));
                is_stateless(service, self.policy(name))
                    && !(self.is_missed(name) && graph.dependents_of(name).iter().any(is_awake))
                    && !graph.dependencies_of(name).iter().any(goes_away)
                    && (wanted.whole || wanted.flush.is_empty())
            }
        }
    }

    /// The caches that are named.
    fn caches(&self, wanted: Wanted<'_>, refused: &mut Vec<String>) -> Vec<String> {
        if wanted.manner == Manner::Rolling && !wanted.flush.is_empty() {
            refused
                .push("a cache is emptied while what uses it is stopped, and nothing stops here".to_owned());
        }
        let graph = self.policies.graph();
        let mut caches = Vec::new();
        for name in wanted.flush {
            let near = format!("{}_{name}", wanted.name);
            let full = match wanted.whole {
                true => self.find(&near).or_else(|| self.find(name)).map(|s| s.name().to_owned()),
                false => graph.resolve(wanted.name, name),
            };
            let Some(service) = full.and_then(|full| self.find(&full)) else {
                refused.push(format!("cache {name} does not exist"));
                continue;
            };
            match self.left(service) {
                Some(why) => refused.push(format!("cache {} {why}", service.name())),
                None => caches.push(service.name().to_owned()),
            }
        }
        caches.sort();
        caches.dedup();
        caches
    }
}

// === impl Decision ===

impl Decision {
    /// Every service that it touches.
    pub fn touched(&self) -> BTreeSet<&str> {
        let rolled = self.roll.iter().map(|(name, _)| name);
        self.stop.iter().chain(rolled).chain(&self.flush).map(String::as_str).collect()
    }
}

// === impl Left ===

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Left::Asleep => "sleeps, and is left asleep",
            Left::AtZero => "is at zero, and is left there",
            Left::NotEnabled => "has no label skep.enable=true",
            Left::Job => "is a job of the Swarm, and is left alone",
        })
    }
}

// === impl Order ===

impl Order {
    /// As it stands in a spec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Order::StartFirst => "start-first",
            Order::StopFirst => "stop-first",
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
