//! The policies of all services of a Swarm, with what is wrong across them.

use std::collections::{BTreeMap, BTreeSet};

use super::door;
use super::graph::{Graph, Member};
use super::parse::{Parsed, is_ours, parse};
use super::problem::{Code, Problem, Section};
use super::types::{Engine, GoBack, Policy, Scale};
use super::value::nearest;
use crate::swarm::object::{KIND, Service};

/// What the labels of every service ask for. Sections that name services which do not exist are off as well.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    parsed: BTreeMap<String, Parsed>,
    graph: Graph,
}

// === impl Policies ===

impl Policies {
    /// The policies of these services; those that Skep made itself are left out. A name that is not among them is
    /// a problem of whoever mentions it, so pass all services of the Swarm.
    pub fn of<'a>(services: impl IntoIterator<Item = &'a Service>) -> Policies {
        let users =
            services.into_iter().map(|s| (s, s.labels())).filter(|(_, labels)| !labels.contains_key(KIND));
        let mut parsed: Vec<(&Service, Parsed)> = users.map(|(s, labels)| (s, parse(&labels))).collect();
        let graph = Graph::of(parsed.iter().map(|(service, parsed)| Member {
            name: service.name(),
            stack: service.stack(),
            policy: &parsed.policy,
        }));
        let keeps: BTreeSet<String> = parsed
            .iter()
            .filter(|(_, p)| p.policy.data.is_some())
            .map(|(s, _)| s.name().to_owned())
            .collect();
        let mut doors = Vec::new();
        for (service, own) in parsed.iter().filter(|(_, p)| p.policy.scale.as_ref().is_some_and(has_door)) {
            let names = door::names_around(service, parsed.iter().map(|(s, p)| (*s, &p.policy)));
            let past = door::past_the_door(&own.policy, door::reached(service));
            let problems = past.into_iter().chain(door::taken(&own.policy, &names));
            doors.push((service.id.clone(), problems.collect::<Vec<_>>()));
        }
        for (service, parsed) in &mut parsed {
            if let Some((_, problems)) = doors.iter().find(|(id, _)| *id == service.id) {
                parsed.add(problems);
            }
            if let Some(problem) = nothing_to_go_back(&parsed.policy, &graph, service.name(), &keeps) {
                parsed.add(&[problem]);
            }
            parsed.add(graph.problems_of(service.name()));
            let is_global = service.spec["Mode"].get("Global").is_some();
            if let Some(problem) =
                is_global.then(|| nothing_to_scale(&parsed.policy, Tasks::Global)).flatten()
            {
                parsed.add(&[problem]);
            }
        }
        let parsed = parsed.into_iter().map(|(service, parsed)| (service.name().to_owned(), parsed));
        Policies { parsed: parsed.collect(), graph }
    }

    /// The same for a Skep of which the configuration is known: its stores, and whether it names an identity that decrypts
    /// backups. With one, nothing is wrong with encrypted backups that are restored without a person (S16).
    pub fn known_to(mut self, stores: &[&str], has_identity: bool) -> Policies {
        for parsed in self.parsed.values_mut() {
            parsed.problems.retain(|p| p.code != Code::EncryptWithoutIdentity || !has_identity);
            let Some(backup) = &parsed.policy.backup else { continue };
            let named = backup.store.iter().map(|store| ("skep.backup.store", store));
            let named = named.chain(backup.copies.iter().map(|store| ("skep.backup.copies", store)));
            let unknown = named.filter(|(_, store)| !stores.contains(&store.as_str()));
            let problem = |(key, store): (&str, &String)| {
                Problem::new(Code::UnknownStore, Section::Backup, key)
                    .got(store)
                    .want(format!("one of Skep's stores: {}", stores.join(", ")))
                    .hint(nearest(store, stores.iter().copied()))
            };
            let problems: Vec<Problem> = unknown.map(problem).collect();
            parsed.problems.extend(problems);
        }
        self
    }

    /// The policy of a service, with all problems.
    pub fn get(&self, service: &str) -> Option<&Parsed> {
        self.parsed.get(service)
    }

    /// All services in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parsed)> {
        self.parsed.iter().map(|(name, parsed)| (name.as_str(), parsed))
    }

    /// Every problem with its service, for gauges and reports.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &Problem)> {
        self.iter().flat_map(|(name, parsed)| parsed.problems.iter().map(move |p| (name, p)))
    }

    /// Who needs whom.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
}

// === impl Parsed ===

impl Parsed {
    /// Adds problems found outside of the labels, and turns their sections off.
    fn add(&mut self, problems: &[Problem]) {
        self.problems.extend_from_slice(problems);
        self.problems.sort();
        if self.is_off(Section::Restore) {
            self.policy.restore = None;
        }
        if self.is_off(Section::Maintenance) {
            self.policy.maintenance = None;
        }
        if self.is_off(Section::Scale) {
            self.policy.scale = None;
        }
        if self.is_off(Section::Update) {
            self.policy.update = None;
        }
    }
}

fn has_door(scale: &Scale) -> bool {
    scale.door().is_some()
}

/// How many tasks a service has when it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tasks {
    /// One on every node that fits.
    Global,
    /// So many.
    Replicas(u64),
    /// Not known, as of a service that may be scaled down now.
    Unknown,
}

impl Default for Tasks {
    /// What a file means that says nothing.
    fn default() -> Tasks {
        Tasks::Replicas(1)
    }
}

/// What is wrong where a service keeps as many replicas as it has, or has none that could be counted.
pub fn nothing_to_scale(policy: &Policy, tasks: Tasks) -> Option<Problem> {
    let min = policy.scale.as_ref().map(|scale| scale.min).filter(|min| *min > 0)?;
    let want = match tasks {
        Tasks::Global => {
            "no `skep.scale.min` of a global service: its tasks are as many as there are nodes".to_owned()
        }
        Tasks::Replicas(replicas) if replicas <= min => {
            format!("fewer than the {replicas} that the service has: there is nothing to scale down")
        }
        Tasks::Replicas(_) | Tasks::Unknown => return None,
    };
    Some(Problem::new(Code::NothingToScale, Section::Scale, "skep.scale.min").got(min.to_string()).want(want))
}

/// What is wrong where data is to go back with an update, and the service has none that could: `keeps` names the services with
/// data. Where a name that it needs is unknown, that is what is wrong.
pub(super) fn nothing_to_go_back(
    policy: &Policy,
    graph: &Graph,
    service: &str,
    keeps: &BTreeSet<String>,
) -> Option<Problem> {
    let full = policy.update.as_ref().is_some_and(|update| update.rollback == Some(GoBack::Full));
    let is_known = |name: &String| graph.resolve(service, name).is_some();
    if !full || !policy.depends_on.iter().all(is_known) {
        return None;
    }
    let own = policy.data.as_ref().map(|data| data.engine);
    let want = match own {
        Some(Engine::Volume) => return None,
        Some(engine) => format!(
            "`image` or `none`: an older {engine} may not read what a newer one wrote; `full` is for those who use one, and for files"
        ),
        None if graph.dependencies_of(service).iter().any(|name| keeps.contains(name)) => return None,
        None => "`skep.depends-on` beside it, with a service that has `skep.data`: there is no data that could go back"
            .to_owned(),
    };
    Some(Problem::new(Code::NothingToGoBack, Section::Update, "skep.update.rollback").got("full").want(want))
}

/// Whether a service carries any label of Skep.
pub fn is_labelled(service: &Service) -> bool {
    service.labels().keys().any(|key| is_ours(key))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::policy::Code;

    fn service(name: &str, labels: &serde_json::Value) -> Service {
        let mut labels = labels.clone();
        labels["com.docker.stack.namespace"] = "shop".into();
        Service {
            id: name.to_owned(),
            version: 1,
            spec: json!({ "Name": format!("shop_{name}"), "Labels": labels }),
            update: None,
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn problems_across_services_turn_their_sections_off() {
        let db = service(
            "db",
            &json!({ "skep.enable": "true", "skep.data": "postgres", "skep.restore.clients": "ap" }),
        );
        let app = service("app", &json!({ "skep.enable": "true", "skep.depends-on": "db" }));
        let policies = Policies::of([&db, &app]);
        let told: Vec<_> = policies.problems().map(|(service, p)| (service, p.code)).collect();
        assert_eq!(told, [("shop_db", Code::UnknownService)]);
        let parsed = policies.get("shop_db").unwrap();
        assert!(parsed.policy.restore.is_none() && parsed.policy.backup.is_some());
        assert_eq!(policies.graph().dependents_of("shop_db"), ["shop_app"]);
    }

    #[test]
    fn what_keeps_replicas_has_more_of_them() {
        let labels = json!({ "skep.enable": "true", "skep.scale.min": "2" });
        let mut app = service("app", &labels);
        app.spec["Mode"] = json!({ "Global": {} });
        let policies = Policies::of([&app]);
        let told: Vec<_> = policies.problems().map(|(_, p)| p.code).collect();
        assert_eq!(
            (told, &policies.get("shop_app").unwrap().policy.scale),
            (vec![Code::NothingToScale], &None)
        );
        // How many a service with replicas has when it is up does not stand in the spec of one that is down.
        app.spec["Mode"] = json!({ "Replicated": { "Replicas": 2 } });
        let policies = Policies::of([&app]);
        let policy = &policies.get("shop_app").unwrap().policy;
        assert_eq!((policies.problems().count(), policy.scale.as_ref().map(|s| s.min)), (0, Some(2)));
        for (tasks, is_wrong) in
            [(Tasks::Replicas(2), true), (Tasks::Replicas(3), false), (Tasks::Unknown, false)]
        {
            assert_eq!(nothing_to_scale(policy, tasks).is_some(), is_wrong, "{tasks:?}");
        }
    }

    #[test]
    fn services_that_skep_made_are_left_out() {
        let job = service("job", &json!({ "skep.kind": "job", "skep.op": "x" }));
        assert!(Policies::of([&job]).get("shop_job").is_none());
        assert!(is_labelled(&job) && !is_labelled(&service("plain", &json!({}))));
    }
}
