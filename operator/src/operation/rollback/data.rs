//! Which data goes back with a rollback, and who stops meanwhile. Pure.

use std::collections::BTreeSet;

use super::decide::{Component, Decision, Now};
use crate::operation::points::Head;
use crate::policy::Policies;
use crate::swarm::object::ENABLE;

/// A service whose data goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Full name.
    pub name: String,
    /// Id of the service as it is now.
    pub id: String,
    /// Engine name as in `skep.data`.
    pub engine: String,
    /// Id of the backup in the point.
    pub backup: String,
}

/// The label that says what data a service keeps.
const DATA: &str = "skep.data";

/// Whether these components are, or contain, data. None at all is what earlier versions said for everything but data.
pub fn with_data(only: &[Component]) -> bool {
    only.iter().any(|component| component.is_data())
}

/// Everything that a point can put back: what no component names is all of them.
pub fn everything(head: &Head) -> Vec<Component> {
    let holds = |component: &Component| !component.is_data() || holds(head, *component);
    Component::ALL.into_iter().filter(holds).collect()
}

fn holds(head: &Head, component: Component) -> bool {
    let data = head.services.iter().filter_map(|member| member.data.as_ref());
    data.into_iter().any(|data| Component::of_engine(&data.engine) == component)
}

/// Whether data is files that no server has to show before its clients start: the service that holds them can stop with
/// those who use other data, and start when all of it is there.
fn starts_with_all(engine: &str) -> bool {
    engine == "volume"
}

/// Whether a service gets the files of the point together with its spec: then the release of then finds what it wrote itself.
pub(super) fn with_its_files(head: &Head, service: &str, only: &[Component]) -> bool {
    let member = head.services.iter().find(|member| member.name == service);
    let data = member.and_then(|member| member.data.as_ref());
    data.is_some_and(|data| {
        starts_with_all(&data.engine) && only.contains(&Component::of_engine(&data.engine))
    })
}

/// Decides which data goes back, once it is decided which specs do.
pub(super) fn decide(head: &Head, now: &Now, only: &[Component], decision: &mut Decision) {
    for component in only.iter().filter(|c| c.is_data() && !holds(head, **c)) {
        decision.refused.push(format!("the point holds no data of the component {}", component.as_str()));
    }
    for member in &head.services {
        let Some(data) = &member.data else { continue };
        if !only.contains(&Component::of_engine(&data.engine)) {
            continue;
        }
        // One that was removed is refused already.
        let Some(service) = now.services.iter().find(|s| s.name() == member.name) else { continue };
        let (name, labels) = (service.name(), &service.spec["Labels"]);
        if labels[ENABLE] != "true" {
            decision
                .refused
                .push(format!("the data of {name} cannot go back: it has no label {ENABLE}=true"));
        }
        match labels[DATA].as_str() {
            Some(engine) if engine == data.engine => {}
            other => decision.refused.push(format!(
                "the data of {name} cannot go back: it was {} then, and {DATA} says {} now",
                data.engine,
                other.unwrap_or("nothing")
            )),
        }
        decision.data.push(Replaced {
            name: name.to_owned(),
            id: service.id.clone(),
            engine: data.engine.clone(),
            backup: data.backup.clone(),
        });
    }
    decision.clients = clients(now, decision);
}

/// Who stops while the data is replaced, in the order of stopping (S2): the clients of all of it, and what depends on one
/// of them and changes as well, since it has to start after it.
fn clients(now: &Now, decision: &mut Decision) -> Vec<String> {
    let policies = Policies::of(&now.swarm);
    let graph = policies.graph();
    let mut clients = BTreeSet::new();
    for replaced in &decision.data {
        let restore = policies.get(&replaced.name).and_then(|p| p.policy.restore.clone()).unwrap_or_default();
        match graph.clients(&replaced.name, &restore) {
            Ok(names) => clients.extend(names),
            Err(problem) => decision.refused.push(format!("{}: {problem}", replaced.name)),
        }
    }
    // Neither does the release of now run on files of then.
    let of_then = decision.data.iter().filter(|r| starts_with_all(&r.engine));
    let changes = |name: &str| decision.changes.iter().any(|change| change.name == name);
    clients.extend(of_then.filter(|r| changes(&r.name)).map(|r| r.name.clone()));
    if !clients.is_empty() {
        let is_data = |name: &str| decision.data.iter().any(|r| r.name == name);
        let changed = decision.changes.iter().map(|c| c.name.as_str()).filter(|name| !is_data(name));
        let dependents: Vec<String> =
            changed.filter(|name| graph.needs_any(name, &clients)).map(str::to_owned).collect();
        clients.extend(dependents);
    }
    for name in &clients {
        if let Some(replaced) = decision.data.iter().find(|r| r.name == *name && !starts_with_all(&r.engine))
        {
            decision.refused.push(format!(
                "{name} uses data that goes back and holds data that goes back itself ({}), for which its server has to run while \
                 those who use the other data are stopped; leave a component out (`--only`), then restore it",
                replaced.engine
            ));
        } else if !now.services.iter().any(|s| s.name() == name) {
            decision.refused.push(format!(
                "{name} uses data that goes back and is of no service of this stack: a rollback holds one stack; restore that data alone"
            ));
        }
    }
    graph.stop_order(clients.iter().map(String::as_str))
}
