//! Maintenance: claim ↩ · plan ↩ · page on ↩ · hold (until told, or until a time) · page off · release.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::frozen::{Frozen, Target};
use super::journal::Compensation;
use super::record::{Operation, State};
use super::saga::{Cx, Fault, Progress, Saga, Unwound, Wait};
use super::{backup, claim, clients, freeze, frozen};

/// The saga.
pub struct Maintenance {
    /// When the page goes by itself.
    pub until: Option<Timestamp>,
}

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds the service.
    Claim,
    /// How it stops is frozen.
    Plan,
    /// The page is on.
    Stop,
    /// The page stays.
    Hold,
    /// The page goes.
    Start,
    /// The service is given back.
    Release,
}

const STEPS: [Step; 6] = [Step::Claim, Step::Plan, Step::Stop, Step::Hold, Step::Start, Step::Release];

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Stop => clients::STEP,
            Step::Hold => "hold",
            Step::Start => "start",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim | Step::Plan | Step::Stop => Compensation::Undo,
            Step::Hold | Step::Start | Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        matches!(self, Step::Stop)
    }
}

impl Saga for Maintenance {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => {
                let service = cx.op.intent.service.clone();
                claim::take(cx, &[service]).await
            }
            Step::Plan => {
                let service = freeze::service(cx).await?;
                let seen = freeze::Seen::load(cx).await?;
                let client = freeze::client_of(cx, &seen, &service).await?;
                // No job runs: the spec, which may hold secrets, is not needed.
                let mut frozen = Frozen::of(Target::without_data(service.name(), &service.id, &Value::Null));
                frozen.clients = vec![client];
                frozen::store(cx, &frozen).await?;
                Ok(Progress::done())
            }
            Step::Stop => clients::stopped(cx).await,
            Step::Hold => {
                let now = cx.now();
                if self.until.is_some_and(|until| until <= now) {
                    return Ok(Progress::done());
                }
                let frozen = frozen::load(cx).await?;
                // A deploy in the middle brings the application back: the page is put on top again (S12).
                if let Some(wait) = clients::stop(cx, &frozen.clients).await? {
                    return Ok(Progress::Wait(wait));
                }
                let mut wait = Wait::new(match self.until {
                    Some(until) => format!("the page is on until {until}"),
                    None => "the page is on until told otherwise".to_owned(),
                });
                wait.again = Duration::from_secs(1);
                Ok(Progress::Wait(wait))
            }
            Step::Start => {
                let frozen = frozen::load(cx).await?;
                let left = clients::start(cx, &frozen.clients, clients::Start::BestEffort).await?;
                Ok(left.map_or_else(Progress::done, Progress::Wait))
            }
            Step::Release => backup::release(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => claim::release(cx).await,
            Step::Plan => {
                frozen::remove(cx).await?;
                Ok(Progress::done())
            }
            Step::Stop => {
                let frozen = frozen::load(cx).await?;
                let left = clients::start(cx, &frozen.clients, clients::Start::BestEffort).await?;
                Ok(left.map_or_else(Progress::done, Progress::Wait))
            }
            Step::Hold | Step::Start | Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }

    /// Being told to end while the page is on is how maintenance ends well.
    fn unwound(&self, op: &Operation, how: Unwound) -> State {
        match how {
            Unwound::Cancelled if op.journal.step("hold").is_some() => State::Succeeded,
            Unwound::Cancelled | Unwound::Changed | Unwound::Unchanged => how.state(),
        }
    }
}
