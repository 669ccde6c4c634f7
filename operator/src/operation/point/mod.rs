//! Point: takes a restore point of a whole stack.
//!
//! ```text
//! claim ↩ plan ↩ dump ↩ verify ↩ ship ↩ register ↩ · prune ◆ · release
//!         │      └ the data of each data service, in the order of starting, by the steps of a backup
//!         └ specs, configs, names of secrets, networks, volumes: read at one moment, stored as parts
//! ```
//! Every service of the stack is held from before the specs are read until the point is registered, so that no other
//! operation of Skep's changes any of them in between. A person or a deploy may: then the point is not registered.
//!
//! As a part of an update it is of the services that the update may put back, and no others.
//!
//! It gives way to a restore that an alert asks for, as long as data is still being dumped: whoever is down goes first.
//!
//! Invariants: nothing live is changed at any moment; the head is written last, when every part and every backup is
//! there, so a point that is listed is whole; older points go only after that.

mod capture;
pub mod retention;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::json;
use skep_runner::task::Discard;
use skep_runner::{Report, Task};
use tracing::info;

use super::backup::{self, Place, Sealed};
use super::catalogue::{Backup, Purpose as BackupPurpose};
use super::data::{Dumped, Sealing};
use super::frozen::{self, Plan, Target};
use super::journal::Compensation;
use super::points::{self, Head, Point as Stored, Purpose};
use super::record::{OpId, Work};
use super::saga::{Cx, Fault, Progress, Saga, Wait};
use super::work::{self, Access, Order, Outcome};
use super::{claim, desk, freeze, stores, update};
use crate::policy::Policies;
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, Service};

pub use capture::{STACK, users_of};
use retention::{Fate, Rules, Seen};

/// The saga.
pub struct Point;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds every service of the stack.
    Claim,
    /// Specs and everything that they name are read and stored as parts.
    Plan,
    /// The data of every data service is dumped.
    Dump,
    /// Every dump is read back in full.
    Verify,
    /// What was staged is brought to its stores.
    Ship,
    /// The backups, then the point, are registered.
    Register,
    /// Older points go.
    Prune,
    /// The services are given back.
    Release,
}

const STEPS: [Step; 8] = [
    Step::Claim,
    Step::Plan,
    Step::Dump,
    Step::Verify,
    Step::Ship,
    Step::Register,
    Step::Prune,
    Step::Release,
];
/// What was decided before anything is dumped. Whole specs of the data services stand in it, so it is never printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Shot {
    schema: u32,
    head: Head,
    targets: Vec<Target>,
}

/// Which services are held.
#[derive(Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    services: Vec<String>,
}

/// What the prune step journals before it acts.
#[derive(Default, Serialize, Deserialize)]
struct Pruning {
    chosen: Option<Vec<OpId>>,
}

impl Plan for Shot {
    const SCHEMA: u32 = 1;

    fn schema(&self) -> u32 {
        self.schema
    }
}

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Dump => "dump",
            Step::Verify => "verify",
            Step::Ship => "ship",
            Step::Register => "register",
            Step::Prune => "prune",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Claim | Step::Plan | Step::Dump | Step::Verify | Step::Ship | Step::Register => {
                Compensation::Undo
            }
            Step::Prune => Compensation::PointOfNoReturn,
            Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        false
    }
}

impl Saga for Point {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        let gives_way = match step {
            Step::Dump | Step::Verify | Step::Ship => {
                let held = cx.out::<Wanted>("claim")?.services;
                claim::alerted(cx, &held).await?
            }
            Step::Claim | Step::Plan | Step::Register | Step::Prune | Step::Release => None,
        };
        if let Some(other) = gives_way {
            return claim::give_way(cx, &other, "nothing of the point is kept").await;
        }
        match step {
            Step::Claim => match update::lent(cx).await? {
                Some(services) => claim::take(cx, &services).await,
                None => take(cx).await,
            },
            Step::Plan => plan(cx).await,
            Step::Dump => dump(cx).await,
            Step::Verify => verify(cx).await,
            Step::Ship => ship(cx).await,
            Step::Register => register(cx).await,
            Step::Prune => prune(cx).await,
            Step::Release => backup::release(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => claim::release(cx).await,
            Step::Plan => {
                points::remove_parts(cx.engine(), &cx.op.id, &[].into()).await?;
                frozen::remove(cx).await?;
                Ok(Progress::done())
            }
            Step::Dump => discard(cx).await,
            Step::Verify => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
            Step::Ship => undo_ship(cx).await,
            Step::Register => unregister(cx).await,
            Step::Prune | Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }
}

/// Takes every service of the operation's stack. Which ones is journaled with the first look: all operations take
/// theirs in the order of names, and a list that grew on the way would break that order.
///
/// # Errors
/// When there is no such stack, or what the engine says.
pub async fn take(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let mut wanted = cx.scratch::<Wanted>()?.services;
    if wanted.is_empty() {
        wanted = members(cx).await?.iter().map(|s| s.name().to_owned()).collect();
    }
    claim::take(cx, &wanted).await
}

/// The services of the operation's stack, in the order of starting.
///
/// # Errors
/// When there are none, or what the engine says.
pub async fn members(cx: &Cx<'_>) -> Result<Vec<Service>, Fault> {
    let members = freeze::Seen::load(cx).await?.stack(&cx.op.intent.service);
    match members.is_empty() {
        true => Err(Fault::failed(format!("there is no stack `{}`", cx.op.intent.service))),
        false => Ok(members),
    }
}

/// Why the services of the stack are not those that are held, where they are not.
///
/// # Errors
/// When the journal is of another shape.
pub fn not_held(cx: &Cx<'_>, members: &[Service]) -> Result<Option<String>, Fault> {
    let mut held = cx.out::<Wanted>("claim")?.services;
    let mut there: Vec<String> = members.iter().map(|s| s.name().to_owned()).collect();
    held.sort();
    there.sort();
    let changed =
        held.iter().find(|h| !there.contains(h)).or_else(|| there.iter().find(|t| !held.contains(t)));
    Ok(changed.map(|name| format!("{name} came or went meanwhile; ask for it again")))
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(shot) = frozen::find::<Shot>(cx.engine(), &cx.op.id).await? {
        return Ok(summary(&shot));
    }
    let Work::Point { without_data } = cx.op.intent.work else {
        return Err(Fault::failed("this is no restore point"));
    };
    let seen = freeze::Seen::load(cx).await?;
    let mut services = seen.stack(&cx.op.intent.service);
    let whole = update::whole(cx).await?;
    match &whole {
        // Of a stack as far as an update may change it.
        Some(whole) => services.retain(|s| whole.concerns(s.name())),
        None => {
            if let Some(why) = not_held(cx, &services)? {
                return Err(Fault::failed(why));
            }
        }
    }
    if let Some(wait) = rolling(cx, &services)? {
        return Ok(Progress::Wait(wait));
    }
    let mut targets = Vec::new();
    for service in services.iter().filter(|_| !without_data) {
        targets.extend(freeze::data_of(cx, &seen, service).await?);
    }
    if let Some(lacking) = whole.iter().find_map(|whole| whole.lacks(targets.iter().map(|t| t.name.as_str())))
    {
        return Err(Fault::failed(format!("{lacking} keeps no data any more that could be backed up")));
    }
    let purpose = if whole.is_some() { Purpose::Safety } else { Purpose::Regular };
    let backups = targets.iter().enumerate().map(|(nth, t)| (t, backup_id(&cx.op.id, nth)));
    let data = backups
        .map(|(t, backup)| (t.name.clone(), points::Data { engine: t.data.word().to_owned(), backup }));
    let captured = capture::capture(cx, &services, data.collect(), purpose).await?;
    points::store_parts(cx, &captured.parts).await?;
    frozen::store(cx, &Shot { schema: Shot::SCHEMA, head: captured.head, targets }).await?;
    // Whoever came first decided, and what another one stored is in no point.
    let shot = load(cx).await?;
    let parts = shot.head.parts().map(|part| part.name.as_str()).collect();
    points::remove_parts(cx.engine(), &cx.op.id, &parts).await?;
    Ok(summary(&shot))
}

/// Waits for a rollout of any of these services, for a while: their tasks are not those of their specs yet.
///
/// # Errors
/// When it does not end.
pub fn rolling(cx: &mut Cx<'_>, services: &[Service]) -> Result<Option<Wait>, Fault> {
    let Some(rolling) = services.iter().find(|s| s.is_rolling()) else { return Ok(None) };
    let why = format!("a rollout of {} is under way", rolling.name());
    let began = cx.record().began;
    match cx.since(began) < cx.env.settings.start_deadline {
        true => Ok(Some(Wait::new(why))),
        false => Err(Fault::failed(format!("{why}, and does not end"))),
    }
}

fn summary(shot: &Shot) -> Progress {
    let backups: Vec<&str> = shot.head.backups().collect();
    Progress::Done(json!({ "services": shot.head.services.len(), "backups": backups }))
}

/// The plan of this operation.
async fn load(cx: &Cx<'_>) -> Result<Shot, Fault> {
    frozen::read(cx.engine(), &cx.op.id).await
}

fn journal(cx: &Cx<'_>, source: serde_json::Error) -> Fault {
    Fault::Journal { step: cx.step.to_owned(), source }
}

/// The id of the backup of the nth data service.
fn backup_id(op: &OpId, nth: usize) -> String {
    format!("{op}p{nth}")
}

fn place(cx: &Cx<'_>, target: &Target, nth: usize) -> Place {
    Place::of(target, backup_id(&cx.op.id, nth))
}

async fn dump(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let targets = load(cx).await?.targets;
    for (nth, target) in targets.iter().enumerate() {
        let place = place(cx, target, nth);
        match backup::dump(cx, target, &place, &format!("d{nth}")).await {
            Ok(Progress::Done(_)) => {}
            Ok(Progress::Wait(wait)) => return Ok(Progress::Wait(named(&wait, target))),
            Ok(other) => return Ok(other),
            Err(fault) => return Err(of_service(fault, target)),
        }
    }
    Ok(Progress::done())
}

async fn verify(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let targets = load(cx).await?.targets;
    for (nth, target) in targets.iter().enumerate() {
        let (place, dumped) = (place(cx, target, nth), dumped(cx, nth)?);
        match backup::seal(cx, target, &place, &dumped, &format!("s{nth}")).await {
            Ok(Progress::Done(_)) => {}
            Ok(Progress::Wait(wait)) => return Ok(Progress::Wait(named(&wait, target))),
            Ok(other) => return Ok(other),
            Err(fault) => return Err(of_service(fault, target)),
        }
    }
    Ok(Progress::done())
}

/// Done = the backups as they are to be registered, in the order of the targets.
async fn ship(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let targets = load(cx).await?.targets;
    let mut all = Vec::new();
    for (nth, target) in targets.iter().enumerate() {
        let Sealing { manifest_sha256, size } = Sealing::of(report(cx, "verify", &format!("s{nth}"))?)?;
        let sealed =
            Sealed { manifest_sha256, size, taken: dumped(cx, nth)?.taken()?, inner: None, base: None };
        let place = place(cx, target, nth);
        match stores::ship(cx, target, &place, sealed, &format!("h{nth}")).await {
            Ok(Ok(sealed)) => all.push(sealed),
            Ok(Err(wait)) => return Ok(Progress::Wait(named(&wait, target))),
            Err(fault) => return Err(of_service(fault, target)),
        }
    }
    serde_json::to_value(all).map(Progress::Done).map_err(|source| journal(cx, source))
}

async fn undo_ship(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    let targets = load(cx).await?.targets;
    for (nth, target) in targets.iter().enumerate() {
        let place = place(cx, target, nth);
        match stores::undo_ship(cx, target, &place, &format!("h{nth}")).await? {
            Progress::Done(_) => {}
            other => return Ok(other),
        }
    }
    Ok(Progress::done())
}

fn named(wait: &Wait, target: &Target) -> Wait {
    Wait { why: format!("{}: {}", target.name, wait.why), ..wait.clone() }
}

fn of_service(fault: Fault, target: &Target) -> Fault {
    match fault {
        Fault::Failed(why) => Fault::Failed(format!("{}: {why}", target.name)),
        other => other,
    }
}

/// What the job of the nth data service reported in a step.
fn report(cx: &Cx<'_>, step: &str, key: &str) -> Result<Report, Fault> {
    let job = cx.op.journal.step(step).and_then(|r| r.jobs.get(key));
    let report = job.and_then(|job| job.report.as_deref().cloned());
    report
        .ok_or_else(|| Fault::failed(format!("the journal holds no report of job `{key}` of step `{step}`")))
}

fn dumped(cx: &Cx<'_>, nth: usize) -> Result<Dumped, Fault> {
    Dumped::of(report(cx, "dump", &format!("d{nth}"))?)
}

async fn register(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let shot = load(cx).await?;
    if let Some(why) = changed(cx, &shot.head).await? {
        return Err(Fault::failed(why));
    }
    let sealed: Vec<Sealed> = cx.out("ship")?;
    let purpose = match shot.head.purpose {
        Purpose::Regular => BackupPurpose::Regular,
        Purpose::Safety => BackupPurpose::Safety,
    };
    for (nth, (target, sealed)) in shot.targets.iter().zip(&sealed).enumerate() {
        let place = place(cx, target, nth);
        backup::register(cx, target, &place, sealed, purpose).await?;
    }
    list(cx, &shot.head).await?;
    let mind = unbacked(&shot.head);
    if !mind.is_empty() {
        cx.remark(format!("without data: no label skep.data says how to back up {}", mind.join(", ")));
    }
    Ok(Progress::Done(json!({ "point": shot.head.id })))
}

/// Takes a point of the stack as it is now under the id of the operation, which holds every service of it, with the data
/// that is in these backups already, by service. Finding one there means that an earlier poll came this far.
///
/// # Errors
/// What the engine says.
pub async fn safety(cx: &mut Cx<'_>, data: BTreeMap<String, points::Data>) -> Result<Progress, Fault> {
    let name = format!("{}{}", points::PREFIX, cx.op.id);
    match cx.engine().config(&name).await {
        Ok(_) => {}
        Err(Error::NotFound { .. }) => {
            let services = members(cx).await?;
            let captured = capture::capture(cx, &services, data, Purpose::Safety).await?;
            points::store_parts(cx, &captured.parts).await?;
            list(cx, &captured.head).await?;
        }
        Err(other) => return Err(other.into()),
    }
    let head =
        Stored::read(&cx.engine().config(&name).await?).map_err(|e| Fault::failed(e.to_string()))?.head;
    let parts = head.parts().map(|part| part.name.as_str()).collect();
    points::remove_parts(cx.engine(), &head.id, &parts).await?;
    Ok(Progress::Done(json!({ "point": head.id })))
}

/// Registers a head, whose parts are all there.
async fn list(cx: &Cx<'_>, head: &Head) -> Result<(), Fault> {
    let data = serde_json::to_vec(head).map_err(|source| journal(cx, source))?;
    cx.engine().ensure_config(&head.config_name(), &head.labels(), &data).await?;
    Ok(())
}

/// Volumes of services whose data is in no backup of the point.
pub fn unbacked(head: &Head) -> Vec<String> {
    let has_data = |name: &String| head.services.iter().any(|s| s.name == *name && s.data.is_some());
    let bare = head.volumes.iter().filter(|v| !v.services.iter().any(has_data));
    bare.map(|v| format!("volume {} of {}", v.name, v.services.join(", "))).collect()
}

/// Why specs and data are not those of one stack, where somebody changed a service while the data was dumped.
async fn changed(cx: &Cx<'_>, head: &Head) -> Result<Option<String>, Fault> {
    let mut services = members(cx).await?;
    match cx.op.part_of() {
        Some(_) => services.retain(|s| head.services.iter().any(|m| m.name == s.name())),
        None => {
            if let Some(why) = not_held(cx, &services)? {
                return Ok(Some(why));
            }
        }
    }
    if services.len() != head.services.len() {
        return Ok(Some(
            "a service was removed while the data was being dumped; ask for it again".to_owned(),
        ));
    }
    for service in &services {
        let member = head.services.iter().find(|m| m.name == service.name());
        let spec = capture::awake(cx, service).await?;
        let spec = serde_json::to_vec(&spec).map_err(|source| journal(cx, source))?;
        if member.is_none_or(|m| m.id != service.id || m.spec != points::Part::of(&head.id, &spec)) {
            return Ok(Some(format!(
                "{} was changed while the data was being dumped: its spec is not that of the data; ask for it again",
                service.name()
            )));
        }
    }
    Ok(None)
}

/// Takes the point out of the list first, then its backups out of the catalogue.
async fn unregister(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let shot = load(cx).await?;
    match cx.engine().config(&shot.head.config_name()).await {
        Ok(config) => cx.engine().remove_config(&config.id).await?,
        Err(Error::NotFound { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    for (nth, target) in shot.targets.iter().enumerate() {
        let place = place(cx, target, nth);
        backup::unregister(cx, &place).await?;
    }
    Ok(Progress::done())
}

/// Ends what is left of the dumps, then removes the directories of those that had begun.
async fn discard(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    let targets = load(cx).await?.targets;
    for (nth, target) in targets.iter().enumerate() {
        if !cx.record().jobs.contains_key(&format!("d{nth}")) {
            continue;
        }
        let dir = place(cx, target, nth).dir;
        let (key, task) = (format!("u{nth}"), Task::Discard(Discard { dir: dir.clone(), sealed: true }));
        let seen = stores::seen_by_jobs(&cx.env.settings, target);
        let order = Order { key: &key, target: &seen, task, store: Some(Access::Write), data: false };
        match work::run(cx, &order).await? {
            Outcome::Wait(wait) => return Ok(Progress::Wait(named(&wait, target))),
            Outcome::Done(_) => {}
            Outcome::Failed(fault) => {
                cx.remark(format!("`{dir}` is left in the store `{}`: {}", target.store, fault.message));
            }
        }
    }
    Ok(Progress::done())
}

/// Removes the points of the stack that nothing keeps. Their backups stay until the rules of their services let them
/// go. Never fails for good: the point is there.
async fn prune(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    match remove_older(cx).await {
        Err(fault) => match fault.ends_step() {
            Some(why) => {
                cx.remark(format!("older restore points were not removed, the next one tries again: {why}"));
                Ok(Progress::done())
            }
            None => Err(fault),
        },
        progress => progress,
    }
}

async fn remove_older(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let engine = cx.engine().clone();
    let chosen = match cx.scratch::<Pruning>()?.chosen {
        Some(chosen) => chosen,
        None => {
            let chosen = going(cx).await?;
            cx.keep(&Pruning { chosen: Some(chosen.clone()) }).await?;
            chosen
        }
    };
    for point in &chosen {
        match points::remove(&engine, point).await {
            Ok(()) => info!(stack = cx.op.intent.service, "restore point {point} is removed"),
            Err(error) if error.is_retryable() => return Err(error.into()),
            Err(error) => cx.remark(format!("restore point {point} could not be removed: {error}")),
        }
    }
    Ok(Progress::Done(json!({ "chosen": chosen })))
}

/// The points of the stack that go now.
async fn going(cx: &Cx<'_>) -> Result<Vec<OpId>, Fault> {
    let (engine, stack) = (cx.engine(), &cx.op.intent.service);
    let services = engine.services(&[]).await?;
    let policies = Policies::of(&services);
    let rules = users_of(&services, stack).into_iter().filter_map(|service| policies.get(service.name()));
    let rules = Rules::of(rules, cx.env.settings.keep_points);
    let backups: Vec<Backup> =
        engine.configs(Kind::Backup, &[]).await?.iter().filter_map(Backup::read).collect();
    let mut operations = desk::list(engine).await?;
    // This one has taken its point: it wants no other.
    operations.retain(|op| op.id != cx.op.id);
    let all = points::list(engine, Some(stack)).await?;
    let seen = all.iter().map(|point| Seen::of(point, &backups, &operations)).collect();
    let goes = rules.judge(seen, cx.now()).into_iter().filter(|(_, fate)| *fate == Fate::Goes);
    let goes: BTreeSet<String> = goes.map(|(seen, _)| seen.id).collect();
    Ok(all.into_iter().map(|p| p.head.id).filter(|id| goes.contains(id.as_str())).collect())
}
