//! The steps of every kind of work, as the sagas themselves list them.

use crate::operation::backup::Backup;
use crate::operation::drill::Drill;
use crate::operation::expire::Expire;
use crate::operation::journal::{Compensation, Step as _};
use crate::operation::maintenance::Maintenance;
use crate::operation::record::Work;
use crate::operation::restore::Restore;
use crate::operation::saga::Saga;

/// Names of the steps of a kind of work, in order, and how each is taken back.
pub fn steps(work: &Work) -> Vec<(&'static str, Compensation)> {
    match work {
        Work::Backup => of(&Backup),
        Work::Restore { in_place, .. } => of(&Restore { in_place: in_place.unwrap_or(false) }),
        Work::Drill { .. } => of(&Drill),
        Work::Maintenance { until } => of(&Maintenance { until: *until }),
        Work::Expire => of(&Expire),
    }
}

/// Names of the steps of a kind of work, in order.
pub fn step_names(work: &Work) -> Vec<&'static str> {
    steps(work).into_iter().map(|(name, _)| name).collect()
}

fn of<S: Saga>(saga: &S) -> Vec<(&'static str, Compensation)> {
    saga.steps().iter().map(|s| (s.name(), s.compensation())).collect()
}
