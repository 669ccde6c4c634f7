//! A restore as a part of a larger operation (a rollback), which holds the services, stops the clients of all its data
//! services, and decides in the end.
//!
//! ```text
//! claim ↩ plan ↩ preflight · expire · safety ↩ beside ↩ ready · │ stop ↩ cut ↩ verdict · keep ◆ release
//!                              until the clients have stopped ┘                └ until the whole passes its own point of no return
//! ```
//! The journal of the whole is the record of what was decided, as in a two-phase commit: as long as its `start` has not
//! begun, every part can go back, and does when it is cancelled by the whole; from then on none does. So all the data
//! services of a stack come back, or none.
//!
//! A service of files that uses other data of the same whole, or gets another spec by it, is stopped and started by the
//! whole: `halt` and `serve` of its part only look, and it starts when all data is there.
//!
//! Invariants: nothing live is touched before the whole has stopped the clients; what was live is kept until the verdict;
//! a part whose whole has ended goes back by itself.

use serde::{Deserialize, Serialize};

use super::directory::{self, RestoreDirectory};
use super::{Restore, Way, cut};
use crate::operation::clients::{self, Base};
use crate::operation::frozen::{self, Client, Plan};
use crate::operation::journal::Compensation;
use crate::operation::record::{OpId, Operation, State};
use crate::operation::saga::{Cx, Fault, Progress, Saga, Unwound, Wait};
use crate::operation::update;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;

/// The step of the whole that makes its parts, and in which its journal names them.
pub const MAKES: &str = "data";
/// The step of the whole in which the data changes places: until it has begun, nothing live is touched. That the clients
/// have stopped is not enough: where the whole ends between the two, they start again first.
pub const CUTS: &str = "cut";
/// The step of the whole from which on nothing goes back.
pub const DECIDES: &str = "start";
/// The step of a part that has built the new data, and has not touched the live data.
pub const READY: &str = "ready";
/// The step of a part whose new data is live.
pub const VERDICT: &str = "verdict";

/// The saga.
pub struct Part {
    /// How the data is replaced.
    pub way: Way,
}

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One of a restore of a database, or of what commands load.
    Of(super::Step),
    /// One of a restore of files.
    Files(directory::Step),
    /// Until the whole has stopped the clients.
    Ready,
    /// Until the whole has decided.
    Verdict,
    /// What was live is kept until it expires.
    Keep,
}

const BESIDE: [Step; 12] = [
    Step::Of(super::Step::Claim),
    Step::Of(super::Step::Plan),
    Step::Of(super::Step::Preflight),
    Step::Of(super::Step::Expire),
    Step::Of(super::Step::Safety),
    Step::Of(super::Step::Beside),
    Step::Ready,
    Step::Of(super::Step::Stop),
    Step::Of(super::Step::Cut),
    Step::Verdict,
    Step::Keep,
    Step::Of(super::Step::Release),
];

const IN_PLACE: [Step; 10] = [
    Step::Of(super::Step::Claim),
    Step::Of(super::Step::Plan),
    Step::Of(super::Step::Preflight),
    Step::Ready,
    Step::Of(super::Step::Stop),
    Step::Of(super::Step::Safety),
    Step::Of(super::Step::Replace),
    Step::Verdict,
    Step::Keep,
    Step::Of(super::Step::Release),
];

const DIRECTORY: [Step; 14] = [
    Step::Files(directory::Step::Claim),
    Step::Files(directory::Step::Plan),
    Step::Files(directory::Step::Preflight),
    Step::Files(directory::Step::Expire),
    Step::Files(directory::Step::Safety),
    Step::Files(directory::Step::Beside),
    Step::Ready,
    Step::Files(directory::Step::Stop),
    Step::Files(directory::Step::Halt),
    Step::Files(directory::Step::Move),
    Step::Files(directory::Step::Serve),
    Step::Verdict,
    Step::Keep,
    Step::Files(directory::Step::Release),
];

/// What the whole journals of its parts, before it makes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The parts.
    #[serde(default)]
    pub parts: Vec<Named>,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: OpId,
    /// Full name of its service.
    pub service: String,
}

impl crate::operation::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Of(step) => step.name(),
            Step::Files(step) => step.name(),
            Step::Ready => READY,
            Step::Verdict => VERDICT,
            Step::Keep => "keep",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Of(step) => step.compensation(),
            Step::Files(step) => step.compensation(),
            Step::Ready | Step::Verdict => Compensation::Nothing,
            Step::Keep => Compensation::PointOfNoReturn,
        }
    }

    fn touches_live(self) -> bool {
        match self {
            Step::Of(step) => step.touches_live(),
            Step::Files(step) => step.touches_live(),
            Step::Ready | Step::Verdict | Step::Keep => false,
        }
    }
}

impl Part {
    const fn restore(&self) -> Restore {
        Restore { in_place: matches!(self.way, Way::InPlace), recovers: false }
    }
}

impl Saga for Part {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        match self.way {
            Way::Beside => &BESIDE,
            Way::InPlace => &IN_PLACE,
            Way::Directory => &DIRECTORY,
        }
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Of(super::Step::Claim) | Step::Files(directory::Step::Claim) => {
                whole(cx).await?;
                super::claim(cx).await
            }
            Step::Of(step) => self.restore().run(step, cx).await,
            Step::Files(step) => RestoreDirectory.run(step, cx).await,
            Step::Ready => Ok(match whole(cx).await?.journal.step(CUTS) {
                Some(_) => Progress::done(),
                None => Progress::wait("the new data is there; the clients have not stopped yet"),
            }),
            Step::Verdict => Ok(match whole(cx).await?.journal.step(DECIDES) {
                Some(_) => Progress::done(),
                None => Progress::wait("the new data is live; it is not settled yet that it stays"),
            }),
            Step::Keep => match self.way {
                Way::Beside => cut::keep(cx).await,
                Way::Directory => RestoreDirectory.run(directory::Step::Keep, cx).await,
                Way::InPlace => Ok(Progress::done()),
            },
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Of(step) => self.restore().undo(step, cx).await,
            Step::Files(step) => RestoreDirectory.undo(step, cx).await,
            Step::Ready | Step::Verdict | Step::Keep => Ok(Progress::done()),
        }
    }

    /// The whole decides about the clients.
    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }

    fn unwound(&self, op: &Operation, how: Unwound) -> State {
        self.restore().unwound(op, how)
    }
}

/// The operation that this one is a part of.
///
/// # Errors
/// When it has ended or cannot be read, or what the engine says.
async fn whole(cx: &Cx<'_>) -> Result<Operation, Fault> {
    let id = cx.op.part_of().cloned().ok_or_else(|| Fault::failed("this is a part of no operation"))?;
    let config = match cx.engine().config(&id.config_name()).await {
        Ok(config) => config,
        Err(Error::NotFound { .. }) => return Err(Fault::failed(format!("there is no operation {id}"))),
        Err(other) => return Err(other.into()),
    };
    let whole = Operation::read(&config).map_err(|e| Fault::failed(e.to_string()))?;
    match whole.journal.state.is_terminal() {
        true => Err(Fault::failed(format!("operation {id}, of which this is a part, has ended"))),
        false => Ok(whole),
    }
}

/// Whether nobody has asked for this restore at this time: it is a part of the rollback of an update that goes back by itself.
///
/// # Errors
/// As for the whole.
pub(super) async fn is_unattended(cx: &Cx<'_>) -> Result<bool, Fault> {
    match cx.op.part_of() {
        Some(_) => Ok(whole(cx).await?.part_of().is_some()),
        None => Ok(false),
    }
}

/// The services whose data the same whole restores.
///
/// # Errors
/// As for the whole.
pub(in crate::operation) async fn siblings(cx: &Cx<'_>) -> Result<Vec<String>, Fault> {
    Ok(parts_in(&whole(cx).await?).into_iter().map(|part| part.service).collect())
}

/// What a part needs of the plan of its whole, of whichever kind that is.
#[derive(Serialize, Deserialize)]
struct Stopping {
    schema: u32,
    #[serde(default)]
    clients: Vec<Client>,
}

impl Plan for Stopping {
    const SCHEMA: u32 = u32::MAX;

    fn schema(&self) -> u32 {
        self.schema
    }
}

/// The service of this part as the whole stops and starts it, where it does: it uses other data of the same whole.
///
/// # Errors
/// As for the whole, or when its plan cannot be read.
pub(in crate::operation) async fn stopped_by_whole(cx: &Cx<'_>) -> Result<Option<Client>, Fault> {
    let plan: Stopping = frozen::read(cx.engine(), &whole(cx).await?.id).await?;
    Ok(plan.clients.into_iter().find(|client| client.name == cx.op.intent.service))
}

/// What is waited for until the whole has stopped a client.
///
/// # Errors
/// As for the whole.
pub(super) async fn rests(cx: &mut Cx<'_>, client: &Client) -> Result<Option<Wait>, Fault> {
    let whole = whole(cx).await?;
    clients::stopped_by(cx, &whole, client).await
}

/// What the whole puts back of a client that it has stopped.
///
/// # Errors
/// As for the whole, or when it is missing.
pub(super) async fn base(cx: &Cx<'_>, client: &Client) -> Result<Option<Base>, Fault> {
    let whole = whole(cx).await?;
    clients::load_base_of_other(cx, &whole, client).await
}

/// The parts of an operation.
///
/// # Errors
/// What the engine says.
pub async fn parts(engine: &Engine, id: &OpId) -> Result<Vec<OpId>, Error> {
    match engine.config(&id.config_name()).await {
        Ok(config) => {
            let Ok(op) = Operation::read(&config) else { return Ok(Vec::new()) };
            let restores = parts_in(&op).into_iter().map(|part| part.id);
            Ok(restores.chain(update::parts(&op)).collect())
        }
        Err(Error::NotFound { .. }) => Ok(Vec::new()),
        Err(other) => Err(other),
    }
}

fn parts_in(op: &Operation) -> Vec<Named> {
    let out = op.journal.step(MAKES).map(|record| record.out.clone()).unwrap_or_default();
    serde_json::from_value::<Parts>(out).unwrap_or_default().parts
}
