//! Update: claim ↩ · preflight ↩ · plan ↩ · backup ↩ (of the data, where there is any) · apply ↩ · check ↩ · watch ↩ · release.
//!
//! ```text
//! apply: base ──▶ new image under lent settings ──▶ new image     (each over the version that was read)
//! undo:  base ◀── base under lent settings ◀────────────┘         (nothing else is ever overwritten, S12)
//! ```
//! Of several services each does that, one after the other, what is needed first; they are checked and watched as one, and go
//! back as one. One alone is the case of one ([`each`], [`together`]).
//!
//! Invariants: the specs that were found lie whole in the plan before anything is written; a service is written only while it
//! stands as it was found or as this operation wrote it; a red flag of one, within the window, puts back what was found of all, once,
//! and what comes of that is told and not put back again; where going back may cost data, or leads to what went back before itself,
//! it stays, and several are not begun.
//!
//! The services are held also while they are watched: whatever else changed their tasks then would be taken for a red flag, or
//! hide one. Only a restore is not kept waiting: it ends the watch. Where labels want it, the data that they use goes back
//! as well ([`full`]), and everything that this concerns is held.

mod apply;
mod back;
pub mod decide;
mod each;
mod flags;
mod full;
mod scope;
pub mod together;
mod watch;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use decide::{Change, is_bad, known_bad};
use each::Each;
pub use full::{Whole, lent, parts, whole};
pub use scope::{Scope, scope};
pub use together::Wanted;

use super::backup::Place;
use super::freeze::Seen;
use super::frozen::{Client, Plan, Target};
use super::journal::Compensation;
use super::record::{Intent, Operation, State, Work};
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
    /// One operation holds the services.
    Claim,
    /// What must not be interrupted is not under way, as far as the service's checks tell.
    Preflight,
    /// What stands there, and what is written over it, is frozen.
    Plan,
    /// The data is backed up.
    Backup,
    /// Every task runs the new image.
    Apply,
    /// The checks of the services pass.
    Check,
    /// No red flag was seen for as long as it is watched.
    Watch,
    /// The services are given back.
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

/// The frozen plan. Whole specs stand in it, so it is never printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Frozen {
    schema: u32,
    /// What is updated, in the order in which it gets the new image.
    #[serde(flatten)]
    units: Each<Unit>,
    /// For how long they are watched, seconds.
    monitor_s: u64,
    /// What goes back with them once a new image has run, where data does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    full: Option<Scope>,
    /// Whose data is backed up as one, where that of several is and does not go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    point: Option<Scope>,
}

/// One service of an update.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unit {
    /// The service, with its checks.
    client: Client,
    change: Change,
    /// Its data, where it is backed up before, and no other.
    #[serde(default)]
    data: Option<Target>,
    /// What its labels take for a red flag besides.
    #[serde(default)]
    flags: flags::Asked,
    /// Why it does not go back once the new image has run; none where it does.
    #[serde(default)]
    stays: Option<String>,
}

impl Plan for Frozen {
    /// Plans of version 1 left data as it was; those of version 2 were of one service.
    const SCHEMA: u32 = 3;

    fn schema(&self) -> u32 {
        self.schema
    }
}

impl Frozen {
    /// The oldest format that says all of a plan of so many services.
    const fn schema_of(several: bool) -> u32 {
        if several { Frozen::SCHEMA } else { 2 }
    }

    fn is_of_several(&self) -> bool {
        self.units.count() > 1
    }

    /// Of which restore point this takes care, whether it goes back to that or not.
    fn scope(&self) -> Option<&Scope> {
        self.full.as_ref().or(self.point.as_ref())
    }

    /// Everything that is held.
    fn held(&self) -> Vec<String> {
        held(self.units.iter().map(|unit| unit.client.name.as_str()), self.scope())
    }

    /// What is said of a red flag.
    fn red_flag(&self, unit: &Unit, flag: &str) -> Fault {
        Fault::failed(match self.is_of_several() {
            true => format!("red flag of {}: {flag}", unit.client.name),
            false => format!("red flag: {flag}"),
        })
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
                let services: Vec<String> =
                    cx.op.intent.services().map(|(name, _)| name.to_owned()).collect();
                before::ask(cx, &services).await
            }
            Step::Plan => plan(cx).await,
            Step::Backup => {
                let frozen = load(cx).await?;
                match (frozen.scope(), data(&frozen)) {
                    (Some(scope), _) => full::back_up(cx, scope).await,
                    (None, Some(target)) => {
                        let place = Place::safety(cx, target);
                        prepare::safety_backup(cx, target, &place).await
                    }
                    (None, None) => Ok(Progress::done()),
                }
            }
            Step::Apply => apply::run(cx, &load(cx).await?).await,
            Step::Check => {
                let frozen = load(cx).await?;
                for (nth, unit) in frozen.units.iter().enumerate() {
                    if let Some(progress) = checks::after(cx, &unit.client, nth).await? {
                        return Ok(progress);
                    }
                }
                for unit in frozen.units.iter() {
                    lines::count(cx, std::slice::from_ref(&unit.client)).await?;
                }
                let checks: usize = frozen.units.iter().map(|unit| unit.client.checks.len()).sum();
                Ok(Progress::Done(json!({ "checks": checks })))
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
            Step::Backup => {
                let frozen = load(cx).await?;
                match (frozen.scope(), data(&frozen)) {
                    (Some(_), _) => full::undo_back_up(cx).await,
                    (None, Some(target)) => prepare::undo_safety_backup(cx, target).await,
                    (None, None) => Ok(Progress::done()),
                }
            }
            Step::Apply => back::undo(cx, &load(cx).await?).await,
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

/// The data that is backed up alone.
fn data(frozen: &Frozen) -> Option<&Target> {
    frozen.units.iter().find_map(|unit| unit.data.as_ref())
}

/// What an update of these holds.
fn held<'a>(updated: impl Iterator<Item = &'a str>, scope: Option<&Scope>) -> Vec<String> {
    match scope {
        Some(scope) => scope.held(updated),
        None => Scope::default().held(updated),
    }
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(frozen) = frozen::find::<Frozen>(cx.engine(), &cx.op.id).await? {
        return Ok(summary(&frozen));
    }
    let Work::Update { monitor_s, force, .. } = cx.op.intent.work else {
        return Err(Fault::failed("this is no update"));
    };
    let services = services(cx).await?;
    if let Some(wait) = point::rolling(cx, &services)? {
        return Ok(Progress::Wait(wait));
    }
    let seen = Seen::load(cx).await?;
    let policies = seen.policies();
    let intent = cx.op.intent.clone();
    let wanted = together::in_order(wanted(&intent, &services), policies);
    let asleep: BTreeSet<String> =
        sleeper::list(cx.engine()).await?.into_iter().map(|s| s.sleeper.service_id).collect();
    let operations = desk::list(cx.engine()).await?;
    let refused = together::refusals(&wanted, policies, &asleep, &operations, force);
    if !refused.is_empty() {
        return Err(Fault::failed(refused.join("; ")));
    }
    let (full, point) = full::scopes(cx, &seen, &wanted)?;
    restart::stays(cx, &services).await?;
    let mut units = Vec::new();
    for one in &wanted {
        units.push(unit(cx, &seen, one, full.as_ref(), &operations, point.is_none()).await?);
    }
    let mut units = units.into_iter();
    let first = units.next().ok_or_else(|| Fault::failed("nothing is to be updated"))?;
    let units = Each::of(first, units.collect());
    let frozen = Frozen {
        schema: Frozen::schema_of(units.count() > 1),
        units,
        monitor_s: monitor_s.unwrap_or(together::monitor(&wanted, policies).as_secs()),
        full,
        point,
    };
    frozen::store(cx, &frozen).await?;
    // Whoever came first decided.
    Ok(summary(&load(cx).await?))
}

/// The services that the operation is about, as they are now.
async fn services(cx: &Cx<'_>) -> Result<Vec<Service>, Fault> {
    let mut services = Vec::new();
    for (name, id) in cx.op.intent.services() {
        match cx.engine().service(id).await {
            Ok(service) => services.push(service),
            Err(Error::NotFound { .. }) => return Err(Fault::failed(format!("service {name} was removed"))),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(services)
}

/// These services with what they are to get.
fn wanted<'a>(intent: &'a Intent, services: &'a [Service]) -> Vec<Wanted<'a>> {
    let asked = together::asked(intent);
    let of = |(id, image)| services.iter().find(|s| s.id == id).map(|service| Wanted { service, image });
    asked.into_iter().filter_map(of).collect()
}

async fn unit(
    cx: &mut Cx<'_>,
    seen: &Seen,
    one: &Wanted<'_>,
    full: Option<&Scope>,
    operations: &[Operation],
    is_backed_up_alone: bool,
) -> Result<Unit, Fault> {
    let (service, policies) = (one.service, seen.policies());
    let labels = together::labels(policies, service);
    if let Some(why) = flags::unreadable_here(cx, service, &labels.red_flags).await? {
        return Err(Fault::failed(why));
    }
    let policy = policies.get(service.name()).map(|p| &p.policy);
    Ok(Unit {
        client: freeze::client_of(cx, seen, service).await?,
        data: match labels.backup && full.is_none() && is_backed_up_alone {
            true => freeze::data_of(cx, seen, service).await?,
            false => None,
        },
        flags: flags::Asked::freeze(cx, &labels.red_flags).await,
        stays: together::stays(service, policies, operations),
        change: Change {
            order: restart::order(service, policy),
            base: service.spec.clone(),
            image: one.image.to_owned(),
            with_data: full.is_some(),
        },
    })
}

fn summary(frozen: &Frozen) -> Progress {
    let told = |unit: &Unit| json!({ "from": spec::image(&unit.change.base), "to": unit.change.image });
    match frozen.is_of_several() {
        false => Progress::Done(told(frozen.units.first())),
        true => {
            let all = frozen.units.iter().map(|unit| (unit.client.name.clone(), told(unit)));
            Progress::Done(Value::Object(all.collect()))
        }
    }
}

/// A service, as long as it is the one that the operation is about.
async fn found(cx: &Cx<'_>, unit: &Unit) -> Result<Option<Service>, Fault> {
    match cx.engine().service(&unit.client.id).await {
        Ok(service) => Ok(Some(service)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

#[cfg(test)]
#[path = "frozen_tests.rs"]
mod tests;
