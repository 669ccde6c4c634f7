//! Which records of ended operations nobody needs any more.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::operation::freeze::kept_by;
use crate::operation::record::{OpId, Operation};
use crate::operation::update::is_bad;
use crate::swarm::object::Service;

/// Records younger than this always stay: guards look back as far (S13).
const LEAST_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Config ids of the operations to remove, oldest first: ended, beyond the newest `keep`, older than 30 days, with
/// nothing kept that still has to be dropped, no image that did not do, and not among those that guards still name.
pub fn prune(
    operations: &[Operation],
    services: &[Service],
    named: &BTreeSet<OpId>,
    keep: usize,
    now: Timestamp,
) -> Vec<String> {
    let there: BTreeSet<&str> = services.iter().map(|s| s.id.as_str()).collect();
    let mut ended: Vec<&Operation> = operations.iter().filter(|o| o.journal.state.is_terminal()).collect();
    ended.sort_by(|a, b| a.id.cmp(&b.id));
    let beyond = ended.len().saturating_sub(keep);
    let needed = |op: &Operation| {
        // An image that did not do is not forgotten as long as its service is there.
        let is_there = op.intent.services().any(|(_, id)| there.contains(id));
        let keeps = is_there && (kept_by(op).is_some() || is_bad(op));
        keeps || named.contains(&op.id)
    };
    let old = |op: &Operation| now.duration_since(op.journal.ended.unwrap_or(op.intent.created)) > LEAST_AGE;
    let gone = ended.into_iter().take(beyond).filter(|op| old(op) && !needed(op));
    gone.map(|op| op.config.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{kept, op, service};
    use super::*;
    use crate::operation::record::{State, Work};

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn ended(at: &str) -> Operation {
        op("shop_db", Work::Backup, at, State::Succeeded)
    }

    fn pruned(operations: &[Operation], keep: usize) -> usize {
        prune(operations, &[service("shop_db")], &BTreeSet::new(), keep, now()).len()
    }

    #[test]
    fn only_what_is_beyond_the_count_and_older_than_thirty_days_goes() {
        let ops =
            [ended("2026-01-01T00:00:00Z"), ended("2026-01-02T00:00:00Z"), ended("2026-05-31T00:00:00Z")];
        assert_eq!(prune(&ops, &[], &BTreeSet::new(), 2, now()), [ops[0].config.clone()]);
        assert_eq!(pruned(&ops, 0), 2, "the young one stays");
        assert_eq!(pruned(&ops, 3), 0);
    }

    #[test]
    fn open_operations_stay_whatever_their_age() {
        for state in [State::Pending, State::AwaitingApproval, State::Running, State::Stuck] {
            assert_eq!(pruned(&[op("shop_db", Work::Backup, "2026-01-01T00:00:00Z", state)], 0), 0);
        }
    }

    #[test]
    fn what_still_keeps_a_database_or_is_named_by_a_guard_stays() {
        let keeps = kept("shop_db", "2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z");
        assert_eq!(pruned(std::slice::from_ref(&keeps), 0), 0);
        let gone = prune(&[keeps], &[], &BTreeSet::new(), 0, now());
        assert_eq!(gone.len(), 1, "the service went, and with it what was kept");
        let named = ended("2026-01-01T00:00:00Z");
        let guards = BTreeSet::from([named.id.clone()]);
        assert!(prune(&[named], &[], &guards, 0, now()).is_empty());
    }
}
