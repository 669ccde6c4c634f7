//! Restore: build the data beside, verify it there, and only then cut over by rename (or, where asked for, in place).
//!
//! ```text
//! claim ↩ plan ↩ preflight · expire · safety ↩ beside ↩ │ stop ↩ cut ↩ canary ↩ start ◆ verify · keep · release
//!                                  nothing live touched │ users see the page                 └ no way back by itself (S3)
//! ```
//! In place, `stop` comes before `safety`, so that nothing that users wrote is missing from it; it must succeed, and
//! `replace ↩` stands where `cut` does; its undo restores the safety backup. That is the only way of data that a running
//! service alone can tell and take ([`Data::Command`]).

pub(super) mod cut;
pub mod directory;
pub mod judge;
pub mod part;
pub mod preflight;
pub mod prepare;
mod roles;
pub(super) mod trial;

use serde_json::{Value, json};

use super::journal::Compensation;
use super::record::{Operation, State, StepState, Work};
use super::saga::{Cx, Fault, Progress, Saga, Unwound};
use super::{backup, claim, clients, freeze, frozen, stores, wal};
use crate::engines::Data;
use crate::policy::Engine;

/// How a restore replaces the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A database is built beside, and names are swapped.
    Beside,
    /// A database is rebuilt, or data loaded by a command, in place.
    InPlace,
    /// Files are built beside and moved ([`directory`]).
    Directory,
}

/// The saga of databases, and of what commands load.
pub struct Restore {
    /// Whether the data is replaced in place.
    pub in_place: bool,
    /// Whether a moment is recovered first; only beside.
    pub recovers: bool,
}

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One operation holds the data service and all clients.
    Claim,
    /// Everything that can be decided beforehand is frozen.
    Plan,
    /// A moment is recovered, and made into a backup.
    Recover,
    /// Backups, room, roles, extensions, sessions are looked at.
    Preflight,
    /// What an earlier restore kept is dropped: one kept database a service (S17).
    Expire,
    /// The live data is backed up (S10).
    Safety,
    /// The data is restored into a new database, and checked there.
    Beside,
    /// The clients stop; the page is on.
    Stop,
    /// The names are swapped, and the caches emptied (S21).
    Cut,
    /// In place: the live database is rebuilt, and the caches emptied.
    Replace,
    /// One client, out of reach of users, passes its checks on the new data (S1).
    Canary,
    /// The clients start; the page goes.
    Start,
    /// The data and the application pass their checks.
    Verify,
    /// The old data is kept until it expires.
    Keep,
    /// The services are given back.
    Release,
}

const BESIDE: [Step; 13] = [
    Step::Claim,
    Step::Plan,
    Step::Preflight,
    Step::Expire,
    Step::Safety,
    Step::Beside,
    Step::Stop,
    Step::Cut,
    Step::Canary,
    Step::Start,
    Step::Verify,
    Step::Keep,
    Step::Release,
];

const RECOVERED: [Step; 14] = [
    Step::Claim,
    Step::Plan,
    Step::Recover,
    Step::Preflight,
    Step::Expire,
    Step::Safety,
    Step::Beside,
    Step::Stop,
    Step::Cut,
    Step::Canary,
    Step::Start,
    Step::Verify,
    Step::Keep,
    Step::Release,
];

const IN_PLACE: [Step; 10] = [
    Step::Claim,
    Step::Plan,
    Step::Preflight,
    Step::Stop,
    Step::Safety,
    Step::Replace,
    Step::Canary,
    Step::Start,
    Step::Verify,
    Step::Release,
];

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Claim => "claim",
            Step::Plan => "plan",
            Step::Recover => "recover",
            Step::Preflight => "preflight",
            Step::Expire => "expire",
            Step::Safety => "safety",
            Step::Beside => "beside",
            Step::Stop => clients::STEP,
            Step::Cut => "cut",
            Step::Replace => "replace",
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
            | Step::Recover
            | Step::Preflight
            | Step::Expire
            | Step::Safety
            | Step::Beside
            | Step::Stop
            | Step::Cut
            | Step::Replace
            | Step::Canary => Compensation::Undo,
            Step::Start => Compensation::PointOfNoReturn,
            Step::Verify | Step::Keep | Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        matches!(self, Step::Stop | Step::Cut | Step::Replace | Step::Start)
    }
}

impl Saga for Restore {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        match (self.in_place, self.recovers) {
            (true, _) => &IN_PLACE,
            (false, true) => &RECOVERED,
            (false, false) => &BESIDE,
        }
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => claim(cx).await,
            Step::Plan => plan(cx).await,
            Step::Recover => wal::recover(cx).await,
            Step::Preflight => preflight::preflight(cx).await,
            Step::Expire => prepare::expire(cx).await,
            Step::Safety => prepare::safety(cx, self.in_place).await,
            Step::Beside => prepare::beside(cx).await,
            Step::Stop => clients::stopped(cx).await,
            Step::Cut => cut::cut(cx).await,
            Step::Replace => cut::replace(cx).await,
            Step::Canary => trial::canary(cx).await,
            Step::Start => start(cx, clients::Start::MustBeHealthy).await,
            Step::Verify => cut::verify(cx).await,
            Step::Keep => cut::keep(cx).await,
            Step::Release => release(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Claim => claim::release(cx).await,
            Step::Plan => {
                frozen::remove(cx).await?;
                Ok(Progress::done())
            }
            Step::Recover => wal::undo_recover(cx).await,
            Step::Preflight => undo_preflight(cx).await,
            Step::Expire => Ok(super::work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
            Step::Safety => prepare::undo_safety(cx).await,
            Step::Beside => prepare::undo_beside(cx).await,
            Step::Stop => start(cx, clients::Start::BestEffort).await,
            Step::Cut => cut::undo_cut(cx).await,
            Step::Replace => cut::undo_replace(cx).await,
            Step::Canary => trial::undo_canary(cx).await,
            Step::Start | Step::Verify | Step::Keep | Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        let kept = if self.in_place { "the safety backup is kept" } else { "both databases are kept" };
        stop_for_good(cx, kept).await
    }

    /// Where there is no database to go back to, a person has to look at what stands.
    fn unwound(&self, op: &Operation, how: Unwound) -> State {
        if cut::stays(op) { State::Stuck } else { how.state() }
    }
}

// === impl Way ===

impl Way {
    /// The way of an operation; until it has claimed its services, that is not settled.
    pub fn of(op: &Operation) -> Way {
        let claimed = op.journal.step("claim").map(|record| record.out.clone()).unwrap_or_default();
        let asked = matches!(op.intent.work, Work::Restore { in_place: Some(true), .. });
        match (claimed["directory"] == true, asked || claimed["in-place"] == true) {
            (true, _) => Way::Directory,
            (false, true) => Way::InPlace,
            (false, false) => Way::Beside,
        }
    }

    /// The ways that an operation may go. Before it has claimed its services nobody has looked at their labels.
    pub fn possible(op: &Operation) -> Vec<Way> {
        let is_claimed = op.journal.step("claim").is_some_and(|record| record.state == StepState::Done)
            || op.journal.step("plan").is_some();
        match op.intent.work {
            Work::Restore { in_place: None, .. } if !is_claimed => {
                vec![Way::Beside, Way::InPlace, Way::Directory]
            }
            Work::Restore { in_place: Some(false), .. } if !is_claimed => vec![Way::Beside, Way::Directory],
            _ => vec![Way::of(op)],
        }
    }

    /// The way that data of an engine goes, where it has no other.
    fn only(engine: Engine) -> Option<Way> {
        match engine {
            Engine::Postgres => None,
            Engine::Command | Engine::Mongodb | Engine::Rabbitmq => Some(Way::InPlace),
            Engine::Mysql | Engine::Mariadb | Engine::Redis | Engine::Volume => Some(Way::Directory),
        }
    }
}

/// Claims the data service and all clients; with that it is settled in which way the data is replaced.
async fn claim(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let only = freeze::engine(cx).await?.and_then(Way::only);
    if let Work::Restore { to: Some(_), in_place, .. } = &cx.op.intent.work
        && (only.is_some() || *in_place == Some(true))
    {
        return Err(Fault::failed(NOT_THERE));
    }
    if let Work::Restore { in_place, quiesce, create_roles, .. } = &cx.op.intent.work {
        let in_place = *in_place == Some(true);
        let wishes = Wishes { in_place, quiesce: *quiesce != Some(false), create_roles: *create_roles };
        let reasons = against(only, wishes);
        if !reasons.is_empty() {
            return Err(Fault::failed(reasons.join("; ")));
        }
    }
    let services = match cx.op.part_of() {
        Some(_) => vec![cx.op.intent.service.clone()],
        None => freeze::held(cx).await?,
    };
    let mut progress = claim::take(cx, &services).await?;
    if let Progress::Done(out) = &mut progress {
        match only {
            Some(Way::Directory) => out["directory"] = json!(true),
            Some(Way::InPlace) => out["in-place"] = json!(true),
            Some(Way::Beside) | None => {}
        }
    }
    Ok(progress)
}

/// Why a moment is not restored.
pub const NOT_THERE: &str = "a moment is restored beside, and only PostgreSQL has one";

/// What somebody wants of a restore beyond its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// The data is replaced in place.
    pub in_place: bool,
    /// The clients stop.
    pub quiesce: bool,
    /// Roles that are missing are made.
    pub create_roles: bool,
}

/// What stands against wishes. `only` is the way that the engine leaves; none for PostgreSQL's data, which has a choice.
pub fn against(only: Option<Way>, wishes: Wishes) -> Vec<&'static str> {
    let Wishes { in_place, quiesce, create_roles } = wishes;
    let roles = "roles are made for PostgreSQL restored beside, and nowhere else";
    let reasons = match only {
        Some(Way::Beside) => [None; 3],
        None => [(create_roles && in_place).then_some(roles), None, None],
        Some(Way::InPlace) => [
            create_roles.then_some(roles),
            None,
            (!quiesce)
                .then_some("clients cannot run on: the live data itself is replaced while they would use it"),
        ],
        Some(Way::Directory) => [
            create_roles.then_some(roles),
            in_place.then_some("in place is for PostgreSQL: other data is built beside and then moved"),
            (!quiesce)
                .then_some("clients cannot run on: while files are moved the data service itself is stopped"),
        ],
    };
    reasons.into_iter().flatten().collect()
}

/// Starts the clients.
async fn start(cx: &mut Cx<'_>, how: clients::Start) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let left = clients::start(cx, &frozen.clients, how).await?;
    Ok(left.map_or_else(Progress::done, Progress::Wait))
}

/// Stops the clients after a failure past the point of no return (S3).
async fn stop_for_good(cx: &mut Cx<'_>, kept: &str) -> Result<Progress, Fault> {
    let frozen = frozen::load(cx).await?;
    let left = clients::stop(cx, &frozen.clients).await?;
    cx.remark(format!("{kept}: nothing was thrown away, and nothing goes back by itself"));
    let Some(wait) = left else { return Ok(Progress::done()) };
    let failed = cx.record().changed;
    if cx.since(failed) <= cx.env.settings.stop_deadline {
        return Ok(Progress::Wait(wait));
    }
    cx.remark(format!("not every client could be stopped: {}", wait.why));
    Ok(Progress::done())
}

/// Removes what was fetched, and gives the services back.
pub(super) async fn release(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    match stores::clear(cx, "clear").await? {
        Some(wait) => Ok(Progress::Wait(wait)),
        None => backup::release(cx).await,
    }
}

/// Ends the jobs of the step, and removes what this one and any later one has fetched.
pub(super) async fn undo_preflight(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    if let Some(wait) = super::work::abandon(cx).await? {
        return Ok(Progress::Wait(wait));
    }
    Ok(stores::clear(cx, "uclear").await?.map_or_else(Progress::done, Progress::Wait))
}

/// Freezes the plan, which must concern exactly the services that were claimed.
async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let frozen = freeze::restore(cx).await?;
    let mut names: Vec<String> = frozen.clients.iter().map(|c| c.name.clone()).collect();
    names.push(frozen.target.name.clone());
    names.sort();
    names.dedup();
    let claimed: Value = cx.out("claim")?;
    let is_directory = frozen.target.data.directory().is_some();
    let is_command = matches!(frozen.target.data, Data::Command(_));
    let is_as_claimed =
        (claimed["directory"] == true, claimed["in-place"] == true) == (is_directory, is_command);
    if claimed["services"] != json!(names) || !is_as_claimed {
        return Err(Fault::failed("labels changed while the operation began: what it concerns is not clear"));
    }
    for remark in frozen.remarks.clone() {
        cx.remark(remark);
    }
    frozen::store(cx, &frozen).await?;
    let backups: Vec<_> = frozen.candidates.iter().map(|c| c.id.clone()).collect();
    Ok(Progress::Done(json!({ "services": names, "backups": backups })))
}
