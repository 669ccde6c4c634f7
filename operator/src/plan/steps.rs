//! The steps of every kind of work, as the sagas themselves list them.

use crate::operation::backup::Backup;
use crate::operation::drill::Drill;
use crate::operation::expire::Expire;
use crate::operation::import::Import;
use crate::operation::journal::{Compensation, Step as _};
use crate::operation::maintenance::Maintenance;
use crate::operation::point::Point;
use crate::operation::record::{Operation, Work};
use crate::operation::restore::directory::RestoreDirectory;
use crate::operation::restore::{Restore, Way};
use crate::operation::rollback::Rollback;
use crate::operation::saga::Saga;
use crate::operation::verify::Verify;

/// Names of the steps of a kind of work, in order, and how each is taken back. `way` is that of a restore.
pub fn steps(work: &Work, way: Way) -> Vec<(&'static str, Compensation)> {
    match work {
        Work::Backup => of(&Backup),
        Work::Restore { .. } => match way {
            Way::Beside => of(&Restore { in_place: false }),
            Way::InPlace => of(&Restore { in_place: true }),
            Way::Directory => of(&RestoreDirectory),
        },
        Work::Drill { .. } => of(&Drill),
        Work::Maintenance { until } => of(&Maintenance { until: *until }),
        Work::Expire => of(&Expire),
        Work::Verify { .. } => of(&Verify),
        Work::Import { .. } => of(&Import),
        Work::Point { .. } => of(&Point),
        Work::Rollback { .. } => of(&Rollback),
    }
}

/// Names of the steps of an operation, in order.
pub fn step_names(op: &Operation) -> Vec<&'static str> {
    steps(&op.intent.work, Way::of(op)).into_iter().map(|(name, _)| name).collect()
}

fn of<S: Saga>(saga: &S) -> Vec<(&'static str, Compensation)> {
    saga.steps().iter().map(|s| (s.name(), s.compensation())).collect()
}
