//! Update: claim ↩ · preflight ↩ · plan ↩ · backup ↩ (of the data, where there is any) · apply ↩ · check ↩ · watch ↩ · release.
//!
//! ```text
//! apply: base ──▶ new image under lent settings ──▶ new image     (each over the version that was read)
//! undo:  base ◀── base under lent settings ◀────────────┘         (nothing else is ever overwritten, S12)
//! ```
//! Invariants: the spec that was found lies whole in the plan before anything is written; a service is written only while it
//! stands as it was found or as this operation wrote it; a red flag, within the window, puts back what was found, once, and what comes
//! of that is told and not put back again; where going back may cost data, or leads to what went back before itself, it stays.
//!
//! The service is held also while it is watched: whatever else changed its tasks then would be taken for a red flag, or hide
//! one. Only a restore is not kept waiting: it ends the watch. Where labels want it, the data that the service uses goes back
//! as well ([`full`]), and everything that this concerns is held.

mod apply;
pub mod decide;
mod flags;
mod full;
mod scope;
mod watch;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use decide::{Change, is_bad, known_bad, refusals, stays};
pub use full::{Whole, lent, parts, whole};
pub use scope::{Scope, scope};

use super::backup::Place;
use super::freeze::Seen;
use super::frozen::{Client, Plan, Target};
use super::journal::Compensation;
use super::record::{Operation, State, Work};
use super::restore::prepare;
use super::saga::{Cx, Fault, Progress, Saga, Unwound};
use super::{backup, before, checks, claim, desk, freeze, frozen, lines, point, restart, sleeper, work};
use crate::swarm::error::Error;
use crate::swarm::object::Service;
use crate::swarm::spec;

/// The saga.
pub struct Update;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds the service.
    Claim,
    /// What must not be interrupted is not under way, as far as the service's checks tell.
    Preflight,
    /// What stands there, and what is written over it, is frozen.
    Plan,
    /// The data is backed up.
    Backup,
    /// Every task runs the new image.
    Apply,
    /// The checks of the service pass.
    Check,
    /// No red flag was seen for as long as it is watched.
    Watch,
    /// The service is given back.
    Release,
}

const STEPS: [Step; 8] = [
    Step::Claim,
    Step::Preflight,
    Step::Plan,
    Step::Backup,
    Step::Apply,
    Step::Check,
    Step::Watch,
    Step::Release,
];

/// The frozen plan. A whole spec stands in it, so it is never printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Frozen {
    schema: u32,
    /// The service, with its checks.
    client: Client,
    change: Change,
    /// Its data, where it is backed up before.
    #[serde(default)]
    data: Option<Target>,
    /// For how long it is watched, seconds.
    monitor_s: u64,
    /// What its labels take for a red flag besides.
    #[serde(default)]
    flags: flags::Asked,
    /// Why it does not go back once the new image has run; none where it does.
    #[serde(default)]
    stays: Option<String>,
    /// What goes back with it once the new image has run, where data does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    full: Option<Scope>,
}

impl Plan for Frozen {
    /// Plans of version 1 left data as it was.
    const SCHEMA: u32 = 2;

    fn schema(&self) -> u32 {
        self.schema
    }
}

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Preflight => "preflight",
            Step::Plan => "plan",
            Step::Backup => "backup",
            Step::Apply => "apply",
            Step::Check => "check",
            Step::Watch => "watch",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim
            | Step::Preflight
            | Step::Plan
            | Step::Backup
            | Step::Apply
            | Step::Check
            | Step::Watch => Compensation::Undo,
            Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        matches!(self, Step::Apply)
    }
}

impl Saga for Update {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => {
                let services = full::held(cx).await?;
                claim::take(cx, &services).await
            }
            Step::Preflight => {
                let services = [cx.op.intent.service.clone()];
                before::ask(cx, &services).await
            }
            Step::Plan => plan(cx).await,
            Step::Backup => match load(cx).await? {
                Frozen { full: Some(scope), .. } => full::back_up(cx, &scope).await,
                Frozen { data: Some(target), .. } => {
                    let place = Place::safety(cx, &target);
                    prepare::safety_backup(cx, &target, &place).await
                }
                Frozen { .. } => Ok(Progress::done()),
            },
            Step::Apply => apply::run(cx, &load(cx).await?).await,
            Step::Check => {
                let client = load(cx).await?.client;
                match checks::after(cx, &client, 0).await? {
                    Some(progress) => Ok(progress),
                    None => {
                        lines::count(cx, std::slice::from_ref(&client)).await?;
                        Ok(Progress::Done(json!({ "checks": client.checks.len() })))
                    }
                }
            }
            Step::Watch => watch::run(cx, &load(cx).await?).await,
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
            // One that is whole stays: it is of the data as it was before.
            Step::Backup => match load(cx).await? {
                Frozen { full: Some(_), .. } => full::undo_back_up(cx).await,
                Frozen { data: Some(target), .. } => prepare::undo_safety_backup(cx, &target).await,
                Frozen { .. } => Ok(Progress::done()),
            },
            Step::Apply => apply::undo(cx, &load(cx).await?).await,
            Step::Preflight | Step::Check | Step::Watch => {
                Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait))
            }
            Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }

    /// It has gone back where something was put back, by it or by the Swarm.
    fn unwound(&self, op: &Operation, how: Unwound) -> State {
        match (apply::ended(op), how) {
            (apply::End::Left, _) | (apply::End::Untouched, Unwound::Changed) => State::Failed,
            (apply::End::Back | apply::End::Untouched, how) => how.state(),
        }
    }
}

async fn load(cx: &Cx<'_>) -> Result<Frozen, Fault> {
    frozen::read(cx.engine(), &cx.op.id).await
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(frozen) = frozen::find::<Frozen>(cx.engine(), &cx.op.id).await? {
        return Ok(summary(&frozen));
    }
    let Work::Update { image, monitor_s, force, .. } = cx.op.intent.work.clone() else {
        return Err(Fault::failed("this is no update"));
    };
    let service = freeze::service(cx).await?;
    if let Some(wait) = point::rolling(cx, std::slice::from_ref(&service))? {
        return Ok(Progress::Wait(wait));
    }
    let seen = Seen::load(cx).await?;
    let policy = seen.policies().get(service.name()).map(|p| &p.policy);
    let asleep: BTreeSet<String> =
        sleeper::list(cx.engine()).await?.into_iter().map(|s| s.sleeper.service_id).collect();
    let operations = desk::list(cx.engine()).await?;
    let refused = refusals(&service, policy, &asleep, &operations, &image, force);
    if !refused.is_empty() {
        return Err(Fault::failed(refused.join("; ")));
    }
    let full = match full::wanted(cx, &seen, &service) {
        None => None,
        Some(Err(refused)) => return Err(Fault::failed(refused.join("; "))),
        Some(Ok(scope)) => {
            let claimed: serde_json::Value = cx.out("claim")?;
            if claimed["services"] != json!(scope.held(service.name())) {
                return Err(Fault::failed("labels changed while the operation began: ask for it again"));
            }
            Some(scope)
        }
    };
    restart::stays(cx, std::slice::from_ref(&service)).await?;
    let labels = policy.and_then(|p| p.update.clone()).unwrap_or_default();
    if let Some(why) = flags::unreadable_here(cx, &service, &labels.red_flags).await? {
        return Err(Fault::failed(why));
    }
    let frozen = Frozen {
        schema: Frozen::SCHEMA,
        client: freeze::client_of(cx, &seen, &service).await?,
        data: match labels.backup && full.is_none() {
            true => freeze::data_of(cx, &seen, &service).await?,
            false => None,
        },
        monitor_s: monitor_s.unwrap_or(labels.monitor.as_secs()),
        flags: flags::Asked::freeze(cx, &labels.red_flags).await,
        stays: stays(&service, policy, &labels, &operations),
        change: Change {
            order: restart::order(&service, policy),
            base: service.spec,
            image,
            with_data: full.is_some(),
        },
        full,
    };
    frozen::store(cx, &frozen).await?;
    // Whoever came first decided.
    Ok(summary(&load(cx).await?))
}

fn summary(frozen: &Frozen) -> Progress {
    Progress::Done(json!({ "from": spec::image(&frozen.change.base), "to": frozen.change.image }))
}

/// The service, as long as it is the one that the operation is about.
async fn found(cx: &Cx<'_>, frozen: &Frozen) -> Result<Option<Service>, Fault> {
    match cx.engine().service(&frozen.client.id).await {
        Ok(service) => Ok(Some(service)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}
