//! What was read of the Swarm → the view. Pure.

use jiff::Timestamp;

use super::view::{
    Condition, GuardView, LONGEST, LONGEST_NAME, OperationView, ProblemView, Restored, ServiceView, View,
    between,
};
use crate::operation::catalogue::Backup;
use crate::operation::client_spec::{is_asleep, is_waker};
use crate::operation::clients;
use crate::operation::record::{Operation, State, StepState, Work};
use crate::operation::settings::Settings;
use crate::operation::sleeper::Sleeper;
use crate::plan::standing;
use crate::plan::world::meant;
use crate::policy::{Level, Parsed, Policies, Policy, Problem, Tasks, nothing_to_scale};
use crate::runtime::scrub;
use crate::swarm::object::{Config, ENABLE, OP, Service, Task, TaskState};
use crate::triggers::guard::History;

/// What a view is made of.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// When it was read.
    pub taken: Timestamp,
    /// Whether this replica leads.
    pub leads: bool,
    /// Who leads, where known.
    pub leader: Option<&'a str>,
    /// Why the engine cannot be reached, where it cannot: then the rest is what was read last.
    pub trouble: Option<&'a str>,
    /// Services; those without `skep.enable=true` are left out.
    pub services: &'a [Service],
    /// What their labels ask for.
    pub policies: &'a Policies,
    /// Their tasks.
    pub tasks: &'a [Task],
    /// Operations that can be read.
    pub operations: &'a [Operation],
    /// The catalogue.
    pub backups: &'a [Backup],
    /// Services that Skep has put to sleep.
    pub sleepers: &'a [Sleeper],
    /// Configs with the history of alerts.
    pub guards: &'a [Config],
    /// Settings of operations.
    pub settings: &'a Settings,
    /// Names of the steps of an operation, in order.
    pub steps: fn(&Operation) -> Vec<&'static str>,
}

/// Makes the view.
pub fn gather(s: &Sources<'_>) -> View {
    let managed = s.services.iter().filter(|x| x.spec["Labels"][ENABLE] == "true");
    let mut view = View {
        taken: s.taken,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: scrub::line(&s.settings.cluster, LONGEST_NAME),
        leads: s.leads,
        leader: s.leader.map(|l| scrub::line(l, LONGEST_NAME)),
        trouble: s.trouble.map(|t| scrub::line(t, LONGEST)),
        services: managed.map(|service| service_view(s, service)).collect(),
        operations: s.operations.iter().map(|op| operation_view(s, op)).collect(),
    };
    view.sort();
    view
}

fn operation_view(s: &Sources<'_>, op: &Operation) -> OperationView {
    let began = op.journal.steps.first().map_or(op.intent.created, |(_, r)| r.began);
    let limit = s.settings.job_deadline
        + s.settings.stop_deadline
        + s.settings.start_deadline
        + s.settings.check_deadline;
    let deadline = match op.intent.work {
        Work::Maintenance { until } => until,
        // It waits for its neighbours.
        Work::Restore { .. } if op.part_of().is_some() => None,
        Work::Backup
        | Work::Restore { .. }
        | Work::Drill { .. }
        | Work::Expire
        | Work::Report
        | Work::Sleep { .. }
        | Work::Wake => began.checked_add(limit).ok(),
        // One after the other, and a restore goes first: nobody can tell.
        Work::Verify { .. }
        | Work::Import { .. }
        | Work::Point { .. }
        | Work::Restart { .. }
        | Work::Update { .. }
        | Work::Rollback { .. } => None,
    };
    OperationView::of(op, &(s.steps)(op), deadline.filter(|_| op.journal.state == State::Running))
}

fn service_view(s: &Sources<'_>, service: &Service) -> ServiceView {
    let name = service.name();
    let nothing = Parsed::default();
    let parsed = s.policies.get(name).unwrap_or(&nothing);
    let holder = holder(s.operations, name);
    let desired = wanted(service);
    let tasks = Tally::of(service, s.tasks);
    let (condition, since) = condition(service, holder, s.sleepers, tasks);
    // Of one that is scaled down its spec does not say how many it has.
    let is_whole = holder.is_none() && s.sleepers.iter().all(|sleeper| sleeper.service_id != service.id);
    let known = desired.filter(|n| is_whole && *n > 0).map_or(Tasks::Unknown, Tasks::Replicas);
    let found = nothing_to_scale(&parsed.policy, known);
    ServiceView {
        name: scrub::line(name, LONGEST_NAME),
        stack: service.stack().map(|n| scrub::line(n, LONGEST_NAME)),
        condition,
        since,
        operation: holder.map(|op| op.id.clone()),
        paused: parsed.policy.paused,
        desired,
        running: tasks.running,
        saves: saves(s, service, condition),
        engine: parsed.policy.data.as_ref().map(|d| d.engine.as_str()),
        backups: standing::backups(service, parsed, s.backups, s.operations, s.taken),
        restored: restored(s.operations, name),
        guard: guard(s.guards, name, &parsed.policy),
        problems: parsed.problems.iter().chain(&found).map(problem).collect(),
    }
}

fn saves(s: &Sources<'_>, service: &Service, condition: Condition) -> Option<u64> {
    let sleeper = s.sleepers.iter().find(|sleeper| sleeper.service_id == service.id)?;
    matches!(condition, Condition::Asleep | Condition::Reduced).then(|| sleeper.saves())
}

/// The live operation that works on a service: the one that it is about, or that has claimed it as a client.
fn holder<'a>(operations: &'a [Operation], service: &str) -> Option<&'a Operation> {
    let claims = |op: &&Operation| {
        let claimed = op.journal.step("claim").and_then(|r| r.out["services"].as_array());
        claimed.is_some_and(|c| c.iter().any(|s| s == service))
    };
    let live = |op: &&Operation| matches!(op.journal.state, State::Running | State::Stuck);
    let live = operations.iter().filter(live);
    live.clone()
        .find(|op| op.intent.work.holds() && !op.intent.work.is_of_stack() && op.intent.is_about(service))
        .or_else(|| live.clone().find(claims))
}

/// The tasks of the application that are wanted; none behind a waker.
pub fn wanted(service: &Service) -> Option<u64> {
    let replicas = service.replicas();
    if is_waker(&service.spec["TaskTemplate"]) { replicas.map(|_| 0) } else { replicas }
}

/// The tasks of the application, none of a waker's.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// How many are meant to run: of a global service as many as Swarm has made.
    pub meant: u64,
    /// How many do.
    pub running: u64,
}

impl Tally {
    /// Counts those of a service among the tasks of all.
    pub fn of(service: &Service, tasks: &[Task]) -> Tally {
        let count = |tasks: usize| u64::try_from(tasks).unwrap_or(u64::MAX);
        let running = meant(tasks, service).filter(|task| task.state == TaskState::Running).count();
        let meant = meant(tasks, service).count();
        Tally { meant: wanted(service).unwrap_or(count(meant)), running: count(running) }
    }
}

/// What a service is doing and since when, where known.
pub fn condition(
    service: &Service,
    holder: Option<&Operation>,
    sleepers: &[Sleeper],
    tasks: Tally,
) -> (Condition, Option<Timestamp>) {
    let page = service.spec["TaskTemplate"]["ContainerSpec"]["Labels"][OP].as_str();
    let began = holder.and_then(|op| op.journal.steps.first()).map(|(_, r)| r.began);
    if let Some(op) = holder.filter(|op| op.journal.state == State::Stuck) {
        return (Condition::Stuck, op.journal.ended);
    }
    let is_page = page.is_some() && !is_waker(&service.spec["TaskTemplate"]);
    if is_page || holder.is_some_and(|op| is_held_at_zero(op, service)) {
        let stop = holder.and_then(|op| op.journal.step(clients::STEP)).map(|r| r.began);
        return (Condition::Maintenance, stop);
    }
    let sleeper = sleepers.iter().find(|s| s.service_id == service.id);
    match sleeper {
        _ if holder.is_some_and(|op| op.intent.work == Work::Wake) => (Condition::Waking, began),
        _ if holder.is_some() => (Condition::Operating, began),
        _ if is_asleep(&service.spec) => (Condition::Asleep, sleeper.map(|s| s.since)),
        // Somebody has brought it back; Skep will see to it.
        Some(sleeper) if !sleeper.is_down(&service.spec) => (Condition::Waking, None),
        // What ends by itself is as wanted when it has.
        _ if service.is_job() => (Condition::Healthy, None),
        _ if tasks.running == 0 => (Condition::Down, None),
        _ if tasks.running < tasks.meant => (Condition::Degraded, None),
        Some(sleeper) => (Condition::Reduced, Some(sleeper.since)),
        None => (Condition::Healthy, None),
    }
}

/// A client at zero, with the page of a proxy in front: it has no page of its own, and its users see one all the same.
fn is_held_at_zero(op: &Operation, service: &Service) -> bool {
    let stopping = op.journal.step(clients::STEP);
    let stopped = stopping.is_some_and(|r| matches!(r.state, StepState::Started | StepState::Done));
    wanted(service) == Some(0) && stopped && (op.intent.service != service.name() || is_maintenance(op))
}

fn is_maintenance(op: &Operation) -> bool {
    matches!(op.intent.work, Work::Maintenance { .. })
}

/// The last restore that succeeded.
fn restored(operations: &[Operation], service: &str) -> Option<Restored> {
    let is_restore =
        |o: &&Operation| matches!(o.intent.work, Work::Restore { .. }) && o.intent.service == service;
    let done = operations.iter().filter(is_restore).filter(|o| o.journal.state == State::Succeeded);
    let last = done.max_by_key(|o| o.journal.ended)?;
    let (at, began) = (last.journal.ended?, last.journal.steps.first()?.1.began);
    Some(Restored { at, took: between(began, at), downtime: clients::downtime(last) })
}

fn guard(guards: &[Config], service: &str, policy: &Policy) -> Option<GuardView> {
    let restore = policy.restore.as_ref().filter(|r| !r.on_alert.is_empty())?;
    let name = History::config_name(service);
    let stored = guards.iter().find(|c| c.name == name).map(History::read);
    let history = match &stored {
        Some(Ok(history)) => Ok(history.clone()),
        Some(Err(e)) => Err(e.to_string()),
        None => Ok(History::new(service, "")),
    };
    Some(GuardView::of(restore.mode, &restore.on_alert, history.as_ref().map_err(Clone::clone)))
}

fn problem(problem: &Problem) -> ProblemView {
    ProblemView {
        code: problem.code.as_str().to_owned(),
        key: scrub::line(&problem.key, LONGEST_NAME),
        text: scrub::line(&found_and_wanted(problem), LONGEST),
        hint: problem.hint.as_ref().map(|h| scrub::line(h, LONGEST)),
        blocks: problem.blocks_destructive,
        warning: problem.code.level() == Level::Warning,
    }
}

fn found_and_wanted(problem: &Problem) -> String {
    match problem.got.as_str() {
        "" => format!("want {}", problem.want),
        got => format!("found `{got}`, want {}", problem.want),
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
