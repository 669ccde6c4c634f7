//! What goes back with services of which the labels of one say that data does (`skep.update.rollback=full`); pure.
//!
//! Invariant: what a rollback to this point would refuse later, as far as it shows in labels and specs, refuses the update
//! before anything is changed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::together::{Wanted, wants_full};
use crate::operation::rollback::foresee;
use crate::policy::{Engine, Policies};
use crate::swarm::object::Service;

/// Services that go back with those that are updated, or stop for it.
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
    pub fn held<'a>(&self, updated: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let all = self.data.iter().chain(&self.clients).cloned();
        let mut held: Vec<String> = all.chain(updated.into_iter().map(str::to_owned)).collect();
        held.sort();
        held.dedup();
        held
    }
}

/// The scope of what is updated, or why there is none; nothing where no labels want one. All services of the Swarm are given.
///
/// # Errors
/// What stands against going back with the data.
pub fn scope(
    services: &[Service],
    policies: &Policies,
    wanted: &[Wanted<'_>],
    accept_problems: bool,
) -> Option<Result<Scope, Vec<String>>> {
    let names = wanted.iter().filter(|one| wants_full(policies, one.service)).map(|one| one.service.name());
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| scope_of(services, policies, wanted, &names, accept_problems))
}

/// The same, where the labels of these want one.
fn scope_of(
    services: &[Service],
    policies: &Policies,
    wanted: &[Wanted<'_>],
    names: &[&str],
    accept_problems: bool,
) -> Result<Scope, Vec<String>> {
    let against = |why: String| format!("skep.update.rollback=full: {why}");
    let Some(stack) = wanted.first().and_then(|one| one.service.stack()) else {
        let name = wanted.first().map_or("it", |one| one.service.name());
        return Err(vec![against(format!("{name} is in no stack, and a rollback is one of a stack"))]);
    };
    if let Some(other) = wanted.iter().find(|one| one.service.stack() != Some(stack)) {
        let name = other.service.name();
        return Err(vec![against(format!(
            "{name} is not in stack {stack}, and a rollback is one of a stack"
        ))]);
    }
    let graph = policies.graph();
    let mut used: Vec<String> = names.iter().flat_map(|name| graph.dependencies_of(name)).collect();
    used.extend(names.iter().map(|name| (*name).to_owned()));
    let of = |name: &str| services.iter().find(|s| s.name() == name);
    let says = |name: &str| of(name).is_some_and(|s| s.spec["Labels"].get("skep.data").is_some());
    let data = graph.start_order(used.iter().map(String::as_str).filter(|name| says(name)));
    if data.is_empty() {
        let needs = if names.len() == 1 { "it needs" } else { "they need" };
        return Err(vec![against(format!(
            "neither {} nor anything that {needs} (skep.depends-on) keeps data that Skep backs up (skep.data)",
            names.join(", ")
        ))]);
    }
    let is_updated = |name: &str| wanted.iter().any(|one| one.service.name() == name);
    let mut refused = Vec::new();
    for used in &data {
        let engine = policies.get(used).and_then(|p| p.policy.data.as_ref()).map(|data| data.engine);
        match engine {
            None => refused.push(against(format!("labels skep.data.* of {used} have problems"))),
            Some(engine) if is_updated(used) && engine != Engine::Volume => refused.push(against(format!(
                "{used} is a server of data ({engine}), and an older server may not read, or may spoil, what a newer one wrote; \
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
    let images: Vec<(&str, &str)> = wanted.iter().map(|one| (one.service.id.as_str(), one.image)).collect();
    let decision = foresee(services, stack, &images, &data);
    refused.extend(decision.refused.into_iter().map(against));
    let scope = Scope { stack: stack.to_owned(), data, clients: decision.clients };
    let updated = wanted.iter().map(|one| one.service.name());
    for name in scope.held(updated).iter().filter(|_| !accept_problems) {
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
