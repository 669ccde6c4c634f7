//! What is updated as one: which services with which images, in which order, and what stands against it; pure.
//!
//! Invariant: several are begun only where all of them may go back, since the end is either all new or all as before.

use std::collections::BTreeSet;
use std::time::Duration;

use super::decide;
use super::scope::Scope;
use crate::operation::record::{Intent, Operation, Work};
use crate::policy::{GoBack, Policies, Policy, Update as Labels};
use crate::swarm::object::Service;
use crate::swarm::spec::{self, Reference};

/// A service and the image that it is to get.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// As it is now.
    pub service: &'a Service,
    /// The image, as it was asked for.
    pub image: &'a str,
}

/// What an update is asked for, by the id of each service: the image that it is to get.
pub fn asked(intent: &Intent) -> Vec<(&str, &str)> {
    let Work::Update { image, also, .. } = &intent.work else { return Vec::new() };
    let also = also.iter().map(|also| (also.service_id.as_str(), also.image.as_str()));
    std::iter::once((intent.service_id.as_str(), image.as_str())).chain(also).collect()
}

/// The same services, what is needed by others before these.
pub fn in_order<'a>(mut wanted: Vec<Wanted<'a>>, policies: &Policies) -> Vec<Wanted<'a>> {
    let order = policies.graph().start_order(wanted.iter().map(|w| w.service.name()));
    wanted.sort_by_key(|w| order.iter().position(|name| name == w.service.name()));
    wanted
}

/// Why these services do not get these images.
pub fn refusals(
    wanted: &[Wanted<'_>],
    policies: &Policies,
    asleep: &BTreeSet<String>,
    operations: &[Operation],
    force: bool,
) -> Vec<String> {
    let mut refused = Vec::new();
    for (nth, one) in wanted.iter().enumerate() {
        let policy = policy_of(policies, one.service);
        refused.extend(decide::refusals(one.service, policy, asleep, operations, one.image, force));
        if wanted.iter().take(nth).any(|other| other.service.id == one.service.id) {
            refused.push(format!("{} is named twice", one.service.name()));
        }
    }
    if wanted.len() > 1 && !force {
        refused.extend(wanted.iter().filter_map(|one| {
            let (name, why) = (one.service.name(), stays(one.service, policies, operations)?);
            Some(format!(
                "{name} would not go back by itself, and then not all of them would be as before: {why}; update it alone, or \
                 `--force`"
            ))
        }));
    }
    refused
}

/// Why a service does not go back once the new image has run, if it does not.
pub fn stays(service: &Service, policies: &Policies, operations: &[Operation]) -> Option<String> {
    decide::stays(service, policy_of(policies, service), &labels(policies, service), operations)
}

/// What the labels of a service say of updates.
pub fn labels(policies: &Policies, service: &Service) -> Labels {
    policy_of(policies, service).and_then(|p| p.update.clone()).unwrap_or_default()
}

/// Whether the labels of a service want that data goes back with it.
pub(super) fn wants_full(policies: &Policies, service: &Service) -> bool {
    labels(policies, service).rollback == Some(GoBack::Full)
}

/// What is backed up together, where several of them keep data: then it is of one restore point. No data goes back.
///
/// # Errors
/// When they are of several stacks: a point is of one.
pub fn point(wanted: &[Wanted<'_>], policies: &Policies) -> Result<Option<Scope>, String> {
    let keeps = |s: &Service| {
        let policy = policy_of(policies, s);
        policy.is_some_and(|p| p.data.is_some()) && labels(policies, s).backup
    };
    let data: Vec<&Service> = wanted.iter().map(|one| one.service).filter(|s| keeps(s)).collect();
    let [first, others @ ..] = data.as_slice() else { return Ok(None) };
    let Some(stack) = first.stack().filter(|stack| others.iter().all(|s| s.stack() == Some(stack))) else {
        return match others {
            [] => Ok(None),
            _ => Err(format!(
                "data of {} is backed up before, and not all of them are in one stack: update them one after the other",
                data.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ")
            )),
        };
    };
    let names = data.iter().map(|s| s.name().to_owned()).collect();
    let scope = Scope { stack: stack.to_owned(), data: names, clients: Vec::new() };
    Ok((!others.is_empty()).then_some(scope))
}

/// For how long they are watched, where nobody said: as long as the one that is watched longest.
pub fn monitor(wanted: &[Wanted<'_>], policies: &Policies) -> Duration {
    wanted.iter().map(|one| labels(policies, one.service).monitor).max().unwrap_or_default()
}

/// Those services of a stack that get this image where the stack is named: they have opted in, and run another one of the
/// same repository.
pub fn of_stack<'a>(services: &'a [Service], stack: &str, image: &str) -> Vec<&'a Service> {
    let is_enabled = |s: &&Service| s.spec["Labels"]["skep.enable"] == "true";
    let of = services.iter().filter(|s| s.stack() == Some(stack)).filter(is_enabled);
    let mut found: Vec<&Service> = of
        .filter(|s| {
            let has = spec::image(&s.spec);
            has != image && Reference::of(has).repository() == Reference::of(image).repository()
        })
        .collect();
    found.sort_by(|a, b| a.name().cmp(b.name()));
    found
}

fn policy_of<'a>(policies: &'a Policies, service: &Service) -> Option<&'a Policy> {
    policies.get(service.name()).map(|p| &p.policy)
}

#[cfg(test)]
#[path = "together_tests.rs"]
mod tests;
