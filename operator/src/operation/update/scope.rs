//! What goes back with a service whose labels say that its data does (`skep.update.rollback=full`); pure.
//!
//! Invariant: what a rollback to this point would refuse later, as far as it shows in labels and specs, refuses the update
//! before anything is changed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::operation::rollback::foresee;
use crate::policy::{Engine, Policies};
use crate::swarm::object::Service;

/// Services that go back with the one that is updated, or stop for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The stack of all of them.
    pub stack: String,
    /// Those whose data goes back, in the order of starting.
    pub data: Vec<String>,
    /// Those that stop meanwhile, in the order of stopping.
    pub clients: Vec<String>,
}

// === impl Scope ===

impl Scope {
    /// Everything that is held, so that nothing else changes it before it may have to go back.
    pub fn held(&self, service: &str) -> Vec<String> {
        let all = self.data.iter().chain(&self.clients).cloned();
        let mut held: Vec<String> = all.chain([service.to_owned()]).collect();
        held.sort();
        held.dedup();
        held
    }
}

/// The scope of a service that gets this image, or why there is none. All services of the Swarm are given.
///
/// # Errors
/// What stands against going back with the data.
pub fn scope(
    services: &[Service],
    policies: &Policies,
    service: &Service,
    image: &str,
    accept_problems: bool,
) -> Result<Scope, Vec<String>> {
    let name = service.name();
    let against = |why: String| format!("skep.update.rollback=full: {why}");
    let Some(stack) = service.stack() else {
        return Err(vec![against(format!("{name} is in no stack, and a rollback is one of a stack"))]);
    };
    let graph = policies.graph();
    let mut used = graph.dependencies_of(name);
    used.push(name.to_owned());
    let of = |name: &str| services.iter().find(|s| s.name() == name);
    let says = |name: &str| of(name).is_some_and(|s| s.spec["Labels"].get("skep.data").is_some());
    let data = graph.start_order(used.iter().map(String::as_str).filter(|name| says(name)));
    if data.is_empty() {
        return Err(vec![against(format!(
            "neither {name} nor anything that it needs (skep.depends-on) keeps data that Skep backs up (skep.data)"
        ))]);
    }
    let mut refused = Vec::new();
    for used in &data {
        let engine = policies.get(used).and_then(|p| p.policy.data.as_ref()).map(|data| data.engine);
        match engine {
            None => refused.push(against(format!("labels skep.data.* of {used} have problems"))),
            Some(engine) if used == name && engine != Engine::Volume => refused.push(against(format!(
                "{name} is a server of data ({engine}), and an older server may not read, or may spoil, what a newer one wrote; \
                 it is for those who use one, and for files"
            ))),
            Some(_) if of(used).and_then(Service::stack) != Some(stack) => refused
                .push(against(format!("the data of {used} is in another stack, and a rollback is one of a stack"))),
            Some(_) => {}
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let decision = foresee(services, service, image, &data);
    refused.extend(decision.refused.into_iter().map(against));
    let scope = Scope { stack: stack.to_owned(), data, clients: decision.clients };
    for name in scope.held(name).iter().filter(|_| !accept_problems) {
        let blocking = policies.get(name).into_iter().flat_map(|p| p.blocking().map(ToString::to_string));
        let blocking: Vec<String> = blocking.collect();
        if !blocking.is_empty() {
            refused.push(against(format!("labels of {name}: {}", blocking.join("; "))));
        }
    }
    if refused.is_empty() { Ok(scope) } else { Err(refused) }
}

/// Whether the Swarm would take an update back by itself under these settings: the data would stay as it is.
pub(super) fn takes_back(update_config: &Value) -> bool {
    update_config["FailureAction"] == "rollback"
}

#[cfg(test)]
#[path = "scope_tests.rs"]
mod tests;
