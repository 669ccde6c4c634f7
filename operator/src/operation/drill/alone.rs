//! Drill of what a running service alone tells, where the image has its server: one of the job's own is begun empty, on no
//! network of the service and without its secrets, and ends with the job.
//!
//! So nothing has to be removed, and nothing of the live server is needed: it may be down.

use skep_runner::task::{CommandDrill, ScratchServer};
use skep_runner::{Report, Task};

use super::{Loaded, failed, read_in_full};
use crate::operation::catalogue::Entry;
use crate::operation::data::unexpected;
use crate::operation::frozen::Frozen;
use crate::operation::restore::preflight::{Examined, Seen};
use crate::operation::restore::prepare::done;
use crate::operation::saga::{Cx, Fault, Progress};
use crate::operation::stores::{self, Hand};
use crate::operation::work::{self, Access, Order, Outcome};

/// What is said of a backup that cannot be loaded.
const UNLOADED: &str = "it does not load";

/// Reads the backup in full; looks at nothing live.
pub(super) async fn preflight(cx: &mut Cx<'_>, frozen: &Frozen, entry: &Entry) -> Result<Progress, Fault> {
    match read_in_full(cx, frozen, entry, &Seen::default()).await? {
        Examined::Wait(wait) => Ok(Progress::Wait(wait)),
        Examined::Unusable(fault) => Err(Fault::failed(fault.message)),
        Examined::Whole(_) => Ok(Progress::done()),
    }
}

/// Loads the backup into a server of the job's own, and compares.
pub(super) async fn load(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    entry: &Entry,
    server: ScratchServer,
) -> Result<Progress, Fault> {
    let target = match stores::at_hand(cx, frozen, entry, "f0").await? {
        Hand::Here(target) => target,
        Hand::Wait(wait) => return Ok(Progress::Wait(wait)),
        Hand::Lost(fault) => return Err(failed(cx, entry, UNLOADED, &fault).await?),
    };
    let engine = frozen.target.data.word().to_owned();
    let task = Task::CommandDrill(CommandDrill { server, engine, stored: entry.stored() });
    let order = Order { key: "load", target: &target, task, store: Some(Access::Read), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Failed(fault) => Err(failed(cx, entry, UNLOADED, &fault).await?),
        Outcome::Done(report) => match *report {
            Report::CommandDrill { left_out, seconds } => {
                left_out.iter().for_each(|left| cx.remark(left.as_str()));
                done(
                    cx,
                    &Loaded { backup: entry.id.clone(), scratch: None, seconds, left_out: left_out.len() },
                )
            }
            other => Err(unexpected(&other)),
        },
    }
}
