//! When an operation should have ended, where earlier ones tell. Pure; where none does, nothing is said.

use std::time::Duration;

use jiff::Timestamp;

use super::phase::began;
use crate::operation::record::{Operation, State, Work};

/// A restore should take as long as the last one of the same service that succeeded in the same way, with no wait for a person
/// in it.
pub fn expected_end(operation: &Operation, known: &[Operation]) -> Option<Timestamp> {
    let way = way(operation)?;
    let like = |o: &&Operation| {
        o.intent.service_id == operation.intent.service_id
            && o.journal.state == State::Succeeded
            && o.journal.approved.is_none()
            && self::way(o) == Some(way)
    };
    let last = known.iter().filter(like).max_by_key(|o| o.journal.ended)?;
    let took = Duration::try_from(last.journal.ended?.duration_since(began(last)?)).ok()?;
    began(operation)?.checked_add(took).ok()
}

/// In place or not, under running clients or not, recovered first or not.
const fn way(operation: &Operation) -> Option<(Option<bool>, Option<bool>, bool)> {
    match operation.intent.work {
        Work::Restore { in_place, quiesce, to, .. } => Some((in_place, quiesce, to.is_some())),
        Work::Backup
        | Work::Drill { .. }
        | Work::Maintenance { .. }
        | Work::Expire
        | Work::Report
        | Work::Verify { .. }
        | Work::Import { .. }
        | Work::Point { .. }
        | Work::Sleep { .. }
        | Work::Wake
        | Work::Restart { .. }
        | Work::Update { .. }
        | Work::Rollback { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::fixture::{after, operation, person, restore, step, story};
    use crate::operation::record::StepState;

    #[test]
    fn a_restore_should_take_as_long_as_the_last_one_that_succeeded_in_the_same_way() {
        let mut now = story(State::Running);
        now.journal.steps.iter_mut().for_each(|(_, r)| r.began = after(1_000));
        let last = story(State::Succeeded);
        assert_eq!(expected_end(&now, std::slice::from_ref(&last)), Some(after(1_042)));
        assert_eq!(expected_end(&now, &[]), None, "nothing is known");
        assert_eq!(expected_end(&now, &[story(State::RolledBack)]), None);
        let mut other = last.clone();
        other.intent.work = Work::Restore {
            to: None,
            backup: None,
            before: None,
            in_place: Some(true),
            quiesce: None,
            create_roles: false,
        };
        let mut elsewhere = last.clone();
        elsewhere.intent.service_id = "x2".to_owned();
        let mut asked = last;
        asked.journal.approved = Some("dba".to_owned());
        assert_eq!(expected_end(&now, &[other, elsewhere, asked]), None);
        let mut maintenance = operation(Work::Maintenance { until: None }, person(), State::Running);
        step(&mut maintenance, "claim", StepState::Done, 0, 1, "");
        assert_eq!(expected_end(&maintenance, &[operation(restore(), person(), State::Succeeded)]), None);
    }
}
