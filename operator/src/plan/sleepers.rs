//! What is to fall asleep now, what is to wake, and what somebody brought back while it slept. Pure.
//!
//! Of the times of `skep.scale.down` and `skep.scale.up` the newest counts, and no older one: a time that was missed is made up
//! once, whatever kept it from being met. What it asks for is asked for once: a service that a person wakes afterwards stays
//! up until the next time.
//!
//! A sleeper with tasks was brought back by somebody (S12): where nothing but the number of its replicas changed, they want it
//! up; anything else is a deploy, which says nothing about sleep.
//!
//! Besides, a service falls asleep that nobody has used for a while, as Prometheus tells, that no operation had meanwhile, and
//! to which no waker passed anything: one that was told to leave stays for as long as anything is open through it, so its own
//! presence is use, whatever the expression counts.
//!
//! One that keeps replicas (`skep.scale.min`) goes down to these by all the same rules; it comes up again also when Prometheus
//! tells that it is used.
//!
//! A service with data whose backup would come due while it sleeps is backed up before it falls asleep: afterwards nothing
//! runs that could be asked for the data.
//!
//! Invariants: the id of an operation follows from service, label and time alone (S13); a service that any operation has is
//! left alone; of a service and what needs it, where both have labels of sleep, the latter falls asleep first (what has none,
//! as a proxy, is meant to stay awake; what keeps replicas is only as low as they are); of what wakes at the same time, what another one needs
//! is left to that one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::world::holder;
use crate::operation::claim;
use crate::operation::client_spec::{is_asleep, is_only_counted, is_waker};
use crate::operation::record::{Above, Intent, OpId, Operation, SCHEMA, State, Trigger, Work};
use crate::operation::sleeper::Slept;
use crate::policy::{OnDeploy, Policies, Policy, Scale, Schedule, duration};
use crate::swarm::object::{Service, Task};

/// The label by which a service falls asleep.
pub const DOWN: &str = "skep.scale.down";
/// The label by which it wakes.
pub const UP: &str = "skep.scale.up";
/// A time that is longer past than this is met no more: the records of what was asked for then may be gone.
const OLDEST: SignedDuration = SignedDuration::from_hours(28 * 24);
/// How long after each attempt that failed another one begins; the last of them from then on.
const RETRIES: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(3600),
];

/// What is decided on.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The services that opted in.
    pub services: &'a [Service],
    /// All operations that can be read.
    pub operations: &'a [Operation],
    /// What sleeps, with what it goes back to.
    pub sleepers: &'a [Slept],
    /// Names of services that nobody has used for as long as their labels want.
    pub unused: &'a BTreeSet<String>,
    /// Names of services that keep replicas in their sleep and that somebody uses now.
    pub used: &'a BTreeSet<String>,
    /// Until when wakers were there, by the service's id, as [`attended`] tells.
    pub attended: &'a BTreeMap<String, Timestamp>,
}

/// Until when the wakers of services were there, by the service's id: one that is still there passes something.
pub fn attended(tasks: &[Task], now: Timestamp) -> BTreeMap<String, Timestamp> {
    let mut until = BTreeMap::new();
    for task in tasks.iter().filter(|task| is_waker(&task.spec)) {
        let left = if task.state.is_terminal() { task.changed } else { now };
        let latest = until.entry(task.service.clone()).or_insert(left);
        *latest = left.max(*latest);
    }
    until
}

/// What the schedules want of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Asleep { since: Timestamp },
    Awake { since: Timestamp },
}

/// What to ask for now.
pub fn sleepers(seen: &Seen<'_>, now: Timestamp) -> Vec<(OpId, Intent)> {
    let policies = Policies::of(seen.services);
    let mut asked: Vec<(OpId, Intent)> = seen
        .services
        .iter()
        .filter_map(|service| {
            let policy = &policies.get(service.name())?.policy;
            let is_held = holder(seen.operations, service.name()).is_some();
            if is_held { None } else { one(seen, &policies, service, policy, now) }
        })
        .collect();
    let waking = asked.iter().filter(|(_, intent)| intent.work == Work::Wake);
    let needed: BTreeSet<String> =
        waking.flat_map(|(_, intent)| policies.graph().all_dependencies_of(&intent.service)).collect();
    asked.retain(|(_, intent)| intent.work != Work::Wake || !needed.contains(&intent.service));
    asked
}

fn one(
    seen: &Seen<'_>,
    policies: &Policies,
    service: &Service,
    policy: &Policy,
    now: Timestamp,
) -> Option<(OpId, Intent)> {
    let scale = policy.scale.as_ref().filter(|_| !policy.paused);
    let wanted = scale.and_then(|scale| wanted(scale, service, now));
    let slept = seen.sleepers.iter().find(|slept| slept.sleeper.service_id == service.id);
    let is_down =
        slept.map_or_else(|| is_asleep(&service.spec), |slept| slept.sleeper.is_down(&service.spec));
    match (slept, is_down) {
        (Some(slept), false) => Some(brought_back(service, scale, slept, wanted, now)),
        (Some(slept), true) => {
            let by_the_clock = match wanted {
                Some(Wanted::Awake { since }) if since > slept.sleeper.since => {
                    attempt(seen, service, Work::Wake, UP, since, now)
                }
                Some(Wanted::Awake { .. } | Wanted::Asleep { .. }) | None => None,
            };
            by_the_clock.or_else(|| used_again(seen, service, scale, slept, now))
        }
        // As low as it goes; its problem is told where its labels are shown.
        (None, false) if keeps_all(service, scale) => None,
        (None, false) => {
            let by_the_clock = match wanted {
                Some(Wanted::Asleep { since }) => fall_asleep(seen, policies, service, policy, since, now),
                Some(Wanted::Awake { .. }) | None => None,
            };
            by_the_clock.or_else(|| fall_idle(seen, policies, service, policy, now))
        }
        // Whoever scaled it to zero was not Skep.
        (None, true) => None,
    }
}

/// What the newest time of a service's schedules asks for. Nothing that was due before the service was there, or too long ago.
fn wanted(scale: &Scale, service: &Service, now: Timestamp) -> Option<Wanted> {
    let newest = |schedules: &[Schedule]| {
        let due = schedules.iter().filter_map(|s| s.last_at(now)).max();
        due.filter(|due| *due >= service.created && now.duration_since(*due) < OLDEST)
    };
    match (newest(&scale.down), newest(&scale.up)) {
        (Some(down), up) if up.is_none_or(|up| up < down) => Some(Wanted::Asleep { since: down }),
        (_, Some(up)) => Some(Wanted::Awake { since: up }),
        (Some(_) | None, None) => None,
    }
}

/// Somebody brought a sleeper back.
fn brought_back(
    service: &Service,
    scale: Option<&Scale>,
    slept: &Slept,
    wanted: Option<Wanted>,
    now: Timestamp,
) -> (OpId, Intent) {
    let Slept { sleeper, spec: base, .. } = slept;
    let by_count = is_only_counted(&service.spec, base);
    // Where no label would ever wake it again, or it is paused, what somebody deployed stays up.
    let sleeps_on = scale.is_some_and(|scale| scale.is_by_itself() && scale.on_deploy == OnDeploy::Sleep)
        && !matches!(wanted, Some(Wanted::Awake { since }) if since > sleeper.since);
    let (work, what) = match (by_count, sleeps_on) {
        (true, _) => (Work::Wake, "its replicas were changed while it slept"),
        (false, true) => (Work::Sleep { above: Above::Alone }, "it was deployed while it slept"),
        (false, false) => (Work::Wake, "it was deployed while it slept, and is to stay up then"),
    };
    let id = OpId::new(now, &format!("{} {} {}", service.name(), sleeper.config, service.version));
    (id, intent(service, work, Trigger::Found { what: what.to_owned() }, now))
}

fn fall_asleep(
    seen: &Seen<'_>,
    policies: &Policies,
    service: &Service,
    policy: &Policy,
    due: Timestamp,
    now: Timestamp,
) -> Option<(OpId, Intent)> {
    // It may have slept already when the time came, so that no record of that time tells of it.
    let is_woken_since = |op: &Operation| {
        op.intent.work == Work::Wake && op.intent.created >= due && claim::concerns(op, service.name())
    };
    if seen.operations.iter().any(is_woken_since) {
        return None;
    }
    if is_awaited(seen, policies, service) {
        return None;
    }
    let sleep = attempt(seen, service, Work::Sleep { above: Above::Alone }, DOWN, due, now)?;
    if !misses_a_backup(policy, due) {
        return Some(sleep);
    }
    let what = "its next backup would come due while it sleeps".to_owned();
    let id = OpId::new(due, &format!("backup before sleep {} {due}", service.name()));
    let is_asked_for = seen.operations.iter().any(|op| op.id == id);
    let backup = || (id, intent(service, Work::Backup, Trigger::Found { what }, now));
    Some(if is_asked_for { sleep } else { backup() })
}

/// Whether something that needs a service, and sleeps as well, is awake: that falls asleep first. A service that keeps replicas
/// waits only for what is not as low as it goes.
fn is_awaited(seen: &Seen<'_>, policies: &Policies, service: &Service) -> bool {
    let above = policies.graph().all_dependents_of(service.name());
    let scale = |name: &str| policies.get(name).and_then(|parsed| parsed.policy.scale.as_ref());
    let keeps = scale(service.name()).is_some_and(|scale| scale.min > 0);
    let is_low = |s: &Service| {
        let slept = seen.sleepers.iter().find(|slept| slept.sleeper.service_id == s.id);
        is_asleep(&s.spec) || (keeps && slept.is_some_and(|slept| slept.sleeper.is_down(&s.spec)))
    };
    let waits = |s: &Service| {
        above.iter().any(|n| n == s.name()) && scale(s.name()).is_some_and(Scale::is_by_itself) && !is_low(s)
    };
    seen.services.iter().any(waits)
}

/// Whether a service keeps as many replicas as it has.
fn keeps_all(service: &Service, scale: Option<&Scale>) -> bool {
    let kept = scale.map_or(0, |scale| scale.min);
    kept > 0 && service.replicas().is_some_and(|replicas| replicas <= kept)
}

/// What went on with fewer replicas is up again once somebody uses it.
fn used_again(
    seen: &Seen<'_>,
    service: &Service,
    scale: Option<&Scale>,
    slept: &Slept,
    now: Timestamp,
) -> Option<(OpId, Intent)> {
    scale.filter(|_| slept.sleeper.left > 0)?.idle.as_ref()?;
    if !seen.used.contains(service.name()) {
        return None;
    }
    let id = OpId::new(now, &format!("used {} {}", slept.sleeper.config, service.version));
    Some((id, intent(service, Work::Wake, Trigger::Found { what: "it is used again".to_owned() }, now)))
}

/// What to ask for where nobody uses a service: that it falls asleep, if it was left alone for as long.
fn fall_idle(
    seen: &Seen<'_>,
    policies: &Policies,
    service: &Service,
    policy: &Policy,
    now: Timestamp,
) -> Option<(OpId, Intent)> {
    let idle = policy.scale.as_ref().filter(|_| !policy.paused)?.idle.as_ref()?;
    let name = service.name();
    if !seen.unused.contains(name) || is_awaited(seen, policies, service) {
        return None;
    }
    let of_it = || seen.operations.iter().filter(|op| claim::concerns(op, name));
    let attended = seen.attended.get(&service.id).copied();
    let operated = of_it().map(|op| op.journal.ended.unwrap_or(now));
    let touched = operated.chain(attended).chain([service.created]).max()?;
    if now.duration_since(touched) < SignedDuration::try_from(idle.after).ok()? {
        return None;
    }
    let woken = of_it().filter(|op| op.intent.work == Work::Wake).map(|op| op.intent.created).max();
    let is_backed_up = of_it()
        .any(|op| op.intent.work == Work::Backup && woken.is_none_or(|woken| op.intent.created >= woken));
    let (work, what) = match misses_a_backup(policy, now) && !is_backed_up {
        true => (Work::Backup, "its next backup would come due while it sleeps".to_owned()),
        false => {
            let after = duration::show(idle.after);
            (Work::Sleep { above: Above::Alone }, format!("nobody has used it for {after}"))
        }
    };
    let id = OpId::new(now, &format!("unused {name} {}", service.version));
    Some((id, intent(service, work, Trigger::Found { what }, now)))
}

/// Whether a backup would come due between falling asleep and waking.
fn misses_a_backup(policy: &Policy, due: Timestamp) -> bool {
    let next = |schedules: &[Schedule]| schedules.iter().filter_map(|s| s.next_after(due)).min();
    let backups = policy.backup.as_ref().filter(|_| policy.data.is_some()).map(|b| b.schedules.as_slice());
    let Some(backup) = backups.and_then(next) else { return false };
    let up = policy.scale.as_ref().and_then(|scale| next(&scale.up));
    up.is_none_or(|up| backup < up)
}

/// The operation that a time of a label asks for: a first attempt, or another one after one that failed.
fn attempt(
    seen: &Seen<'_>,
    service: &Service,
    work: Work,
    key: &str,
    due: Timestamp,
    now: Timestamp,
) -> Option<(OpId, Intent)> {
    let is_one = |op: &&Operation| {
        op.intent.service_id == service.id
            && matches!(&op.intent.trigger, Trigger::Schedule { key: k, due: d } if k == key && *d == due)
    };
    let mut attempts: Vec<&Operation> = seen.operations.iter().filter(is_one).collect();
    let ended = |op: &Operation| op.journal.ended.unwrap_or(op.intent.created);
    attempts.sort_by_key(|op| (ended(op), op.id.clone()));
    let (at, before) = match attempts.last() {
        None => (due, ""),
        Some(last) if matches!(last.journal.state, State::Failed | State::RolledBack) => {
            (ended(last) + RETRIES[(attempts.len() - 1).min(RETRIES.len() - 1)], last.id.as_str())
        }
        Some(_) => return None,
    };
    let id = OpId::new(at, &format!("{key} {} {at} {before}", service.name()));
    let trigger = Trigger::Schedule { key: key.to_owned(), due };
    (at <= now).then(|| (id, intent(service, work, trigger, now)))
}

fn intent(service: &Service, work: Work, trigger: Trigger, now: Timestamp) -> Intent {
    Intent {
        schema: SCHEMA,
        service: service.name().to_owned(),
        service_id: service.id.clone(),
        work,
        trigger,
        created: now,
        approval: false,
        accept_problems: false,
    }
}

#[cfg(test)]
#[path = "sleepers_tests.rs"]
mod tests;
