//! Which reports are due to be written into stores.

use jiff::Timestamp;

use super::due::after_failures;
use crate::operation::record::{Intent, OpId, Operation, SCHEMA, Trigger, Work};
use crate::operation::report::{SETTLE, waiting};
use crate::swarm::object::Service;

/// The operations to create now: one for each store that lacks reports. Their ids follow from the records, so that two leaders
/// make one.
pub fn reports(operations: &[Operation], services: &[Service], now: Timestamp) -> Vec<(OpId, Intent)> {
    let waiting = waiting(operations, services, now);
    let due = waiting.into_iter().filter_map(|(service_id, ops)| {
        let service = services.iter().find(|service| service.id == service_id)?;
        let is_own = |op: &&Operation| op.intent.work == Work::Report && op.intent.service_id == service_id;
        let own: Vec<&Operation> = operations.iter().filter(is_own).collect();
        if own.iter().any(|op| !op.journal.state.is_terminal()) {
            return None;
        }
        let first = ops.first()?;
        let since = first.journal.ended.unwrap_or(first.intent.created) + SETTLE;
        let due = Some(after_failures(&own, since)).filter(|due| *due <= now)?;
        let name = service.name();
        Some((OpId::new(due, &format!("report {name}")), intent(name, &service_id, first, now)))
    });
    due.collect()
}

fn intent(service: &str, service_id: &str, first: &Operation, now: Timestamp) -> Intent {
    Intent {
        schema: SCHEMA,
        service: service.to_owned(),
        service_id: service_id.to_owned(),
        work: Work::Report,
        trigger: Trigger::Found { what: format!("the {} ended", first.title()) },
        created: now,
        approval: false,
        accept_problems: false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;

    use super::super::testing::{op, service};
    use super::*;
    use crate::operation::record::State;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn db() -> Vec<Service> {
        let mut db = service("shop_db");
        db.spec["Labels"]["skep.data"] = json!("postgres");
        vec![db]
    }

    fn failed(at: &str) -> Operation {
        op("shop_db", Work::Backup, at, State::Failed)
    }

    #[test]
    fn reports_are_due_a_moment_after_the_end_and_two_leaders_make_one() {
        let ops = [failed("2026-03-01T00:00:00Z"), failed("2026-03-01T00:00:20Z")];
        assert!(reports(&ops, &db(), at("2026-03-01T00:00:29Z")).is_empty());
        let one = reports(&ops, &db(), at("2026-03-01T00:00:31Z"));
        assert_eq!((one.len(), &one[0].1.work), (1, &Work::Report));
        assert_eq!(one[0].0, reports(&ops, &db(), at("2026-03-01T00:00:45Z"))[0].0);
        let mut open = op("shop_db", Work::Report, "2026-03-01T00:00:31Z", State::Running);
        open.id = one[0].0.clone();
        assert!(reports(&[&ops[..], &[open]].concat(), &db(), at("2026-03-01T01:00:00Z")).is_empty());
        assert!(reports(&ops, &[service("shop_db")], at("2026-03-01T01:00:00Z")).is_empty(), "no store");
    }

    #[test]
    fn a_store_that_does_not_take_them_is_tried_again_later() {
        let mut ops = vec![failed("2026-03-01T00:00:00Z")];
        let (id, intent) = reports(&ops, &db(), at("2026-03-01T00:01:00Z")).remove(0);
        let mut tried = op("shop_db", intent.work, "2026-03-01T00:01:00Z", State::Failed);
        tried.id = id.clone();
        ops.push(tried);
        assert!(reports(&ops, &db(), at("2026-03-01T00:59:00Z")).is_empty());
        let again = reports(&ops, &db(), at("2026-03-01T01:02:00Z"));
        assert!(again.len() == 1 && again[0].0 != id);
        let late = at("2026-03-01T00:00:00Z") + SignedDuration::from_hours(24 * 8);
        assert!(reports(&ops, &db(), late).is_empty(), "not for ever");
    }
}
