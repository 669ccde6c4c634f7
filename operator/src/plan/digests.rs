//! Updates that follow from the digests that registries have for the tags that services run (`skep.update.watch`). Pure.
//!
//! Invariants: services of a stack that run the same tag move together or not at all; nothing begins outside of their
//! windows, nor while anything else has one of them; a digest is tried once, unless it could not even begin; the id of an
//! operation follows from the services, the digest and the time of the window, so that two leaders make one (S13).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::world::holder;
use crate::operation::claim;
use crate::operation::record::{Also, Intent, OpId, Operation, State, Trigger, Work};
use crate::operation::restart::left_alone;
use crate::operation::update::{is_bad, together};
use crate::policy::{Policies, Update as Labels};
use crate::swarm::object::Service;
use crate::swarm::spec::{self, Reference};

/// The label that asks for it.
pub const KEY: &str = "skep.update.watch";
/// So many of such updates at once.
const AT_ONCE: usize = 2;
/// How long the checks are waited for that are asked before, seconds.
const WAITS_S: u64 = 15 * 60;
/// What could not begin is tried again after so long, where no window says when.
const AGAIN: SignedDuration = SignedDuration::from_hours(24);

/// Services that run the same tag, and are updated as one.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// What their registry is asked for.
    pub tagged: String,
    services: Vec<&'a Service>,
    /// When the last of their windows has opened; none where they have none.
    opened: Option<Timestamp>,
}

/// What is looked up now: nothing that could not be updated. The services that opted in are given, and the ids of those that
/// Skep has put to sleep.
pub fn groups<'a>(
    services: &'a [Service],
    operations: &[Operation],
    asleep: &BTreeSet<String>,
    now: Timestamp,
) -> Vec<Group<'a>> {
    let policies = Policies::of(services);
    let mut members: BTreeMap<(&str, String), Vec<(&Service, Labels)>> = BTreeMap::new();
    for service in services {
        let Some(policy) = policies.get(service.name()).map(|p| &p.policy) else { continue };
        let Some(labels) = policy.update.clone().filter(|update| update.watch) else { continue };
        let image = Reference::of(spec::image(&service.spec));
        let is_fixed = image.tag.is_none() && image.digest.is_some();
        if policy.paused || is_fixed || left_alone(service, Some(policy), asleep).is_some() {
            continue;
        }
        let stack = service.stack().unwrap_or(service.name());
        members.entry((stack, image.tagged())).or_default().push((service, labels));
    }
    let busy = |s: &Service| s.is_rolling() || holder(operations, s.name()).is_some();
    let group = |((_, tagged), members): (_, Vec<(&'a Service, Labels)>)| {
        let is_busy = members.iter().any(|(service, _)| busy(service));
        let windows = members.iter().filter_map(|(_, labels)| labels.window.as_ref());
        let opened: Option<Vec<Timestamp>> = windows.map(|window| window.opened(now)).collect();
        let opened = opened.filter(|_| !is_busy)?.into_iter().max();
        let mut services: Vec<&Service> = members.into_iter().map(|(service, _)| service).collect();
        // Whoever lists them in another order asks for the same.
        services.sort_by(|a, b| a.name().cmp(b.name()));
        Some(Group { tagged, services, opened })
    };
    members.into_iter().filter_map(group).collect()
}

/// How many more of such updates may begin.
pub fn room(operations: &[Operation]) -> usize {
    let is_one = |op: &&Operation| {
        matches!(&op.intent.trigger, Trigger::Schedule { key, .. } if key == KEY)
            && !op.journal.state.is_terminal()
    };
    AT_ONCE.saturating_sub(operations.iter().filter(is_one).count())
}

// === impl Group ===

impl Group<'_> {
    /// The update to ask for, where their registry has this digest for the tag.
    pub fn update(&self, digest: &str, operations: &[Operation], now: Timestamp) -> Option<(OpId, Intent)> {
        let image = format!("{}@{digest}", self.tagged);
        let runs = |s: &&&Service| Reference::of(spec::image(&s.spec)).digest == Some(digest);
        let behind: Vec<&Service> = self.services.iter().filter(|s| !runs(s)).copied().collect();
        let (first, others) = behind.split_first()?;
        // What could not begin since then has had its turn.
        let since = self.opened.unwrap_or(now - AGAIN);
        let tried = |op: &&Operation| {
            let asked = together::asked(&op.intent);
            behind.iter().any(|s| asked.contains(&(s.id.as_str(), image.as_str())))
        };
        if operations.iter().filter(tried).any(|op| !could_not_begin(op) || op.intent.created >= since) {
            return None;
        }
        let due = self.opened.unwrap_or_else(|| the_hour(now));
        let names: Vec<&str> = behind.iter().map(|s| s.name()).collect();
        let id = OpId::new(due, &format!("{KEY} {} {digest}", names.join(" ")));
        let also = others.iter().map(|s| Also {
            service: s.name().to_owned(),
            service_id: s.id.clone(),
            image: image.clone(),
        });
        let work = Work::Update {
            also: also.collect(),
            image: image.clone(),
            monitor_s: None,
            force: false,
            wait_s: Some(WAITS_S),
        };
        let intent = Intent {
            schema: work.schema(),
            service: first.name().to_owned(),
            service_id: first.id.clone(),
            work,
            trigger: Trigger::Schedule { key: KEY.to_owned(), due },
            created: now,
            approval: false,
            accept_problems: false,
        };
        Some((id, intent))
    }
}

/// Whether nothing was written: what stood in the way may be gone the next time.
fn could_not_begin(op: &Operation) -> bool {
    let has_failed = op.journal.state == State::Failed && !is_bad(op);
    has_failed || claim::gave_way(op)
}

/// Whoever looks in the same hour asks for the same.
fn the_hour(now: Timestamp) -> Timestamp {
    let second = now.as_second();
    Timestamp::from_second(second - second.rem_euclid(3600)).unwrap_or(now)
}

#[cfg(test)]
#[path = "digests_tests.rs"]
mod tests;
