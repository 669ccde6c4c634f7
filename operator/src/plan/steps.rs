//! The steps of every kind of work, as the sagas themselves list them.

use crate::operation::backup::Backup;
use crate::operation::drill::Drill;
use crate::operation::expire::Expire;
use crate::operation::import::Import;
use crate::operation::journal::{Compensation, Step as _};
use crate::operation::maintenance::Maintenance;
use crate::operation::point::Point;
use crate::operation::record::{Operation, Work};
use crate::operation::report::Report;
use crate::operation::restart::Restart;
use crate::operation::restore::directory::RestoreDirectory;
use crate::operation::restore::part::Part;
use crate::operation::restore::{Restore, Way};
use crate::operation::rollback::{self, Rollback};
use crate::operation::saga::Saga;
use crate::operation::sleep::Sleep;
use crate::operation::update::Update;
use crate::operation::verify::Verify;
use crate::operation::wake::Wake;

/// Names of the steps of a kind of work, in order, and how each is taken back. `way` is that of a restore.
pub fn steps(work: &Work, way: Way) -> Vec<(&'static str, Compensation)> {
    match work {
        Work::Backup => of(&Backup),
        Work::Restore { to, .. } => match way {
            Way::Beside => of(&Restore { in_place: false, recovers: to.is_some() }),
            Way::InPlace => of(&Restore { in_place: true, recovers: false }),
            Way::Directory => of(&RestoreDirectory),
        },
        Work::Drill { .. } => of(&Drill),
        Work::Maintenance { until } => of(&Maintenance { until: *until }),
        Work::Expire => of(&Expire),
        Work::Report => of(&Report),
        Work::Verify { .. } => of(&Verify),
        Work::Import { .. } => of(&Import),
        Work::Point { .. } => of(&Point),
        Work::Sleep { .. } => of(&Sleep),
        Work::Wake => of(&Wake),
        Work::Restart { .. } => of(&Restart),
        Work::Update { .. } => of(&Update),
        Work::Rollback { only, .. } => of(&Rollback { with_data: rollback::with_data(only) }),
    }
}

/// Names of the steps of an operation, in order; as long as it is not settled which way a restore goes, those with which
/// every way begins that it may go.
pub fn step_names(op: &Operation) -> Vec<&'static str> {
    let names = |way: &Way| -> Vec<&'static str> {
        let steps = match (&op.intent.work, op.part_of()) {
            (Work::Restore { .. }, Some(_)) => of(&Part { way: *way }),
            (work, _) => steps(work, *way),
        };
        steps.into_iter().map(|(name, _)| name).collect()
    };
    let shared = |one: Vec<&'static str>, other: Vec<&'static str>| {
        one.into_iter().zip(other).take_while(|(one, other)| one == other).map(|(name, _)| name).collect()
    };
    Way::possible(op).iter().map(names).reduce(shared).unwrap_or_default()
}

fn of<S: Saga>(saga: &S) -> Vec<(&'static str, Compensation)> {
    saga.steps().iter().map(|s| (s.name(), s.compensation())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operation::record::{State, StepState};
    use crate::plan::testing::op;

    #[test]
    fn no_step_is_shown_of_a_restore_that_it_may_never_come_to() {
        let restore = |in_place| Work::Restore {
            to: None,
            backup: None,
            before: None,
            in_place,
            quiesce: None,
            create_roles: false,
        };
        let asked = |in_place| op("shop_db", restore(in_place), "2026-03-02T10:00:00Z", State::Pending);
        assert_eq!(step_names(&asked(None)), ["claim", "plan", "preflight"]);
        let beside = ["claim", "plan", "preflight", "expire", "safety", "beside", "stop"];
        assert_eq!(step_names(&asked(Some(false))), beside);
        assert!(step_names(&asked(Some(true))).contains(&"replace"));
        let mut claimed = asked(Some(false));
        let now = claimed.intent.created;
        claimed.journal.step_mut("claim", now).state = StepState::Done;
        assert!(step_names(&claimed).contains(&"cut"));
        claimed.journal.step_mut("claim", now).out = json!({ "directory": true });
        assert!(step_names(&claimed).contains(&"move"));
    }
}
