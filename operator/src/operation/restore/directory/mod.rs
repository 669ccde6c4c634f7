//! Restore of data that is a directory (S18): built beside the live files, then both change places by renames while
//! nobody uses them.
//!
//! ```text
//! claim ↩ plan ↩ preflight · expire · safety ↩ beside ↩ │ stop ↩ halt ↩ move ↩ serve ↩ canary ↩ start ◆ verify · keep · release
//!                                  nothing live touched │ users see the page                       └ no way back by itself (S3)
//! ```
//! Invariants: files are moved only while every task of the data service has ended, and if one began meanwhile the move
//! is taken back; what was live stays whole in `.skep-<side>/old` until it expires; the data service goes back to the
//! spec that was found, or to what somebody deployed meanwhile (S12), never to anything else.

mod exchange;
mod load;
mod preflight;

pub(in crate::operation) use load::{Loaded, Removed, load, remove_sides};
pub(super) use preflight::{Look, look_fetched};
pub(in crate::operation) use preflight::{Looked, against, directory, look_at_all, of_another_node};

use super::{cut, prepare, trial};
use crate::operation::journal::Compensation;
use crate::operation::saga::{Cx, Fault, Progress, Saga};
use crate::operation::{claim, clients, frozen, work};

/// The saga.
pub struct RestoreDirectory;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds the data service and all clients.
    Claim,
    /// Everything that can be decided beforehand is frozen.
    Plan,
    /// Backups, room, what earlier restores left are looked at.
    Preflight,
    /// What an earlier restore kept is removed: one kept old data a service (S17).
    Expire,
    /// The live data is backed up, where its server answers (S10).
    Safety,
    /// The data is built in a directory beside the live files, and checked there.
    Beside,
    /// The clients stop; the page is on.
    Stop,
    /// The data service itself stops.
    Halt,
    /// The live files and the new ones change places; the caches are emptied (S21).
    Move,
    /// The data service starts on the new files and passes its checks.
    Serve,
    /// One client, out of reach of users, passes its checks on the new data (S1).
    Canary,
    /// The clients start; the page goes.
    Start,
    /// The data and the application pass their checks.
    Verify,
    /// The old files are kept until they expire.
    Keep,
    /// The services are given back.
    Release,
}

const STEPS: [Step; 15] = [
    Step::Claim,
    Step::Plan,
    Step::Preflight,
    Step::Expire,
    Step::Safety,
    Step::Beside,
    Step::Stop,
    Step::Halt,
    Step::Move,
    Step::Serve,
    Step::Canary,
    Step::Start,
    Step::Verify,
    Step::Keep,
    Step::Release,
];

impl crate::operation::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Preflight => "preflight",
            Step::Expire => "expire",
            Step::Safety => "safety",
            Step::Beside => "beside",
            Step::Stop => clients::STEP,
            Step::Halt => "halt",
            Step::Move => "move",
            Step::Serve => "serve",
            Step::Canary => "canary",
            Step::Start => "start",
            Step::Verify => "verify",
            Step::Keep => "keep",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim
            | Step::Plan
            | Step::Preflight
            | Step::Expire
            | Step::Safety
            | Step::Beside
            | Step::Stop
            | Step::Halt
            | Step::Move
            | Step::Serve
            | Step::Canary => Compensation::Undo,
            Step::Start => Compensation::PointOfNoReturn,
            Step::Verify | Step::Keep | Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        matches!(self, Step::Stop | Step::Halt | Step::Move | Step::Serve | Step::Start)
    }
}

impl Saga for RestoreDirectory {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => super::claim(cx).await,
            Step::Plan => super::plan(cx).await,
            Step::Preflight => preflight::preflight(cx).await,
            Step::Expire => load::expire(cx).await,
            Step::Safety => load::safety(cx).await,
            Step::Beside => load::beside(cx).await,
            Step::Stop => clients::stopped(cx).await,
            Step::Halt => exchange::halt(cx).await,
            Step::Move => exchange::exchange(cx).await,
            Step::Serve => exchange::serve(cx).await,
            Step::Canary => trial::canary(cx).await,
            Step::Start => super::start(cx, clients::Start::MustBeHealthy).await,
            Step::Verify => cut::verify(cx).await,
            Step::Keep => exchange::keep(cx).await,
            Step::Release => super::release(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => claim::release(cx).await,
            Step::Plan => {
                frozen::remove(cx).await?;
                Ok(Progress::done())
            }
            Step::Preflight => super::undo_preflight(cx).await,
            Step::Expire => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
            Step::Safety => prepare::undo_safety(cx).await,
            Step::Beside => load::undo_beside(cx).await,
            Step::Stop => super::start(cx, clients::Start::BestEffort).await,
            Step::Halt => exchange::undo_halt(cx).await,
            Step::Move => exchange::undo_exchange(cx).await,
            Step::Serve => exchange::undo_serve(cx).await,
            Step::Canary => trial::undo_canary(cx).await,
            Step::Start | Step::Verify | Step::Keep | Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        super::stop_for_good(cx, "the old files are kept").await
    }
}
