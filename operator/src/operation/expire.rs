//! Expire: removes old data that restores kept and whose time is over. claim ↩ · plan ↩ · drop · forget · release.

use skep_runner::Task;
use skep_runner::task::{Named, PgDrop};

use super::frozen::{Frozen, Kept, KeptForm};
use super::journal::Compensation;
use super::record::Operation;
use super::restore::directory::{Removed, remove_sides};
use super::saga::{Cx, Fault, Progress, Saga, save};
use super::work::{self, Order, Outcome};
use super::{backup, claim, freeze, frozen};
use crate::engines::Data;
use crate::swarm::error::Error;

/// The saga.
pub struct Expire;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds the service.
    Claim,
    /// What has expired is frozen.
    Plan,
    /// Databases are dropped by name and OID, directories removed by name.
    Drop,
    /// The operations that kept them know that they are gone.
    Forget,
    /// The service is given back.
    Release,
}

const STEPS: [Step; 5] = [Step::Claim, Step::Plan, Step::Drop, Step::Forget, Step::Release];

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Drop => "drop",
            Step::Forget => "forget",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim | Step::Plan | Step::Drop => Compensation::Undo,
            Step::Forget | Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        false
    }
}

impl Saga for Expire {
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
                let mut frozen = Frozen::of(freeze::target(cx).await?);
                let now = cx.now();
                frozen.kept = freeze::kept(cx).await?.into_iter().filter(|k| k.until <= now).collect();
                frozen::store(cx, &frozen).await?;
                Ok(Progress::done())
            }
            Step::Drop => drop_expired(cx).await,
            Step::Forget => {
                let frozen = frozen::load(cx).await?;
                for kept in &frozen.kept {
                    forget(cx, kept).await?;
                }
                Ok(Progress::done())
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
            Step::Drop => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
            Step::Forget | Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }
}

async fn drop_expired(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let of = |form: KeptForm| frozen.kept.iter().filter(move |k| k.form == form);
    let databases: Vec<Named> =
        of(KeptForm::Database).map(|k| Named { name: k.name.clone(), oid: k.oid }).collect();
    let sides: Vec<String> = of(KeptForm::Side).map(|k| k.name.clone()).collect();
    match &frozen.target.data {
        Data::Postgres if !databases.is_empty() => {
            let connect = frozen.target.access.connect.clone();
            let task = Task::PgDrop(PgDrop { connect, databases });
            let order = Order { key: "drop", target: &frozen.target, task, store: None, data: false };
            match work::run(cx, &order).await? {
                Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
                Outcome::Done(_) => Ok(Progress::done()),
                Outcome::Failed(fault) => Err(Fault::failed(fault.message)),
            }
        }
        Data::Directory(directory) if !sides.is_empty() => {
            let sides = vec![sides; directory.volumes.len()];
            match remove_sides(cx, &frozen, &sides, "drop").await? {
                Removed::Wait(wait) => Ok(Progress::Wait(wait)),
                Removed::Done => Ok(Progress::done()),
                Removed::Failed(why) => Err(Fault::failed(why)),
            }
        }
        Data::None | Data::Postgres | Data::Directory(_) | Data::Command(_) => Ok(Progress::done()),
    }
}

async fn forget(cx: &mut Cx<'_>, kept: &Kept) -> Result<(), Fault> {
    let config = match cx.engine().config(&kept.operation.config_name()).await {
        Ok(config) => config,
        Err(Error::NotFound { .. }) => return Ok(()),
        Err(other) => return Err(other.into()),
    };
    let Ok(mut op) = Operation::read(&config) else { return Ok(()) };
    let now = cx.now();
    op.journal.step_mut("keep", now).out = serde_json::Value::Null;
    save(cx.engine(), &mut op).await?;
    Ok(())
}
