//! Operations that time itself asks for: dropping databases that restores kept, once their time is over.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::operation::freeze::kept_by;
use crate::operation::record::{Intent, OpId, Operation, SCHEMA, State, Trigger, Work};
use crate::swarm::object::Service;

/// After a failed attempt the next one waits this long, and twice as long after each further one …
const FIRST_WAIT: SignedDuration = SignedDuration::from_hours(1);
/// … but no longer than this.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(24);

/// The operations to create now. Their ids follow from the records, so that two leaders make one. What was kept by a
/// service that is gone went with it.
pub fn due(operations: &[Operation], services: &[Service], now: Timestamp) -> Vec<(OpId, Intent)> {
    let there: BTreeSet<&str> = services.iter().map(|s| s.id.as_str()).collect();
    let mut expired: BTreeMap<(&str, &str), Timestamp> = BTreeMap::new();
    for op in operations.iter().filter(|o| there.contains(o.intent.service_id.as_str())) {
        let Some(kept) = kept_by(op).filter(|k| k.until <= now) else { continue };
        let key = (op.intent.service.as_str(), op.intent.service_id.as_str());
        let since = expired.entry(key).or_insert(kept.until);
        *since = (*since).min(kept.until);
    }
    let created = expired.into_iter().filter_map(|((service, id), since)| {
        let own: Vec<&Operation> = operations.iter().filter(|o| o.intent.service_id == id).collect();
        let due = next_attempt(&own, since).filter(|due| *due <= now)?;
        Some((OpId::new(due, &format!("expire {service}")), intent(service, id, now)))
    });
    created.collect()
}

/// When the next attempt may begin; none while an operation of the service is open, which may itself drop what is kept.
fn next_attempt(own: &[&Operation], since: Timestamp) -> Option<Timestamp> {
    if own.iter().any(|o| !o.journal.state.is_terminal()) {
        return None;
    }
    let attempts: Vec<&Operation> = own.iter().copied().filter(|o| o.intent.work == Work::Expire).collect();
    Some(after_failures(&attempts, since))
}

/// When the next attempt at something that was due then may begin, by the attempts that did not succeed.
pub(super) fn after_failures(attempts: &[&Operation], since: Timestamp) -> Timestamp {
    let failed: Vec<Timestamp> = attempts
        .iter()
        .filter(|o| o.intent.created >= since && o.journal.state != State::Succeeded)
        .map(|o| o.journal.ended.unwrap_or(o.intent.created))
        .collect();
    let Some(last) = failed.iter().max() else { return since };
    let doublings = u32::try_from(failed.len() - 1).unwrap_or(u32::MAX).min(5);
    *last + (FIRST_WAIT * 2_i32.pow(doublings)).min(LONGEST_WAIT)
}

fn intent(service: &str, service_id: &str, now: Timestamp) -> Intent {
    Intent {
        schema: SCHEMA,
        service: service.to_owned(),
        service_id: service_id.to_owned(),
        work: Work::Expire,
        trigger: Trigger::Schedule { key: "skep.restore.keep-old".to_owned(), due: now },
        created: now,
        approval: false,
        accept_problems: false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{kept, op, service};
    use super::*;

    const DAY: &str = "2026-03-02T00:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_kept_is_dropped_when_its_time_is_over_and_not_before() {
        let ops = [kept("shop_db", "2026-03-01T00:00:00Z", DAY)];
        let services = [service("shop_db")];
        assert!(due(&ops, &services, at("2026-03-01T23:59:59Z")).is_empty());
        let created = due(&ops, &services, at(DAY));
        assert_eq!(created.len(), 1);
        assert_eq!(created[0].1.work, Work::Expire);
        assert_eq!(created[0].1.service_id, "shop_db-id");
        // Another leader, a little later, makes the same one.
        assert_eq!(created[0].0, due(&ops, &services, at("2026-03-02T00:00:09Z"))[0].0);
    }

    #[test]
    fn nothing_is_due_while_an_operation_of_the_service_is_open_or_when_the_service_is_gone() {
        let kept = kept("shop_db", "2026-03-01T00:00:00Z", DAY);
        for state in [State::Pending, State::AwaitingApproval, State::Running, State::Stuck] {
            let ops = [kept.clone(), op("shop_db", Work::Backup, "2026-03-02T01:00:00Z", state)];
            assert!(due(&ops, &[service("shop_db")], at("2026-03-02T02:00:00Z")).is_empty(), "{state:?}");
        }
        assert!(due(&[kept], &[service("other")], at("2026-03-02T02:00:00Z")).is_empty());
    }

    #[test]
    fn a_failed_attempt_is_repeated_later_and_later() {
        let mut ops = vec![kept("shop_db", "2026-03-01T00:00:00Z", DAY)];
        let services = [service("shop_db")];
        let mut now = at(DAY);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let before = now;
            while due(&ops, &services, now).is_empty() {
                now += SignedDuration::from_mins(10);
            }
            waits.push(now.duration_since(before).as_hours());
            let (id, intent) = due(&ops, &services, now).remove(0);
            assert!(ops.iter().all(|o| o.id != id), "an id is used once");
            let mut failed = op("shop_db", intent.work, &now.to_string(), State::Failed);
            failed.id = id;
            ops.push(failed);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 24, 24]);
    }
}
