//! Scheduled backups, drills, restore points and restarts that are to begin now.
//!
//! A service's newest due time counts, and no older one. It is *made* when the catalogue shows what it asks for from that
//! time or later (a regular backup; a drill of the backup that was the newest then), or an operation that this schedule
//! asked for has ended in a way that is not worth another attempt. Nothing is remembered: the catalogue tells, and the
//! records of operations as long as they are kept. So a run that was missed is made up once, whatever kept it from
//! running, and never twice.
//!
//! A schedule of restore points stands on a service and is about its stack: there the points show what was made, as the
//! catalogue does of backups.
//!
//! A backup or a point that failed is worth another attempt; of drills and restarts only one that gave way, since what a drill has
//! found it would find again. Of a restart nothing tells but its record, and it is wanted at its time: one that could not begin
//! soon is left out.
//!
//! Invariants: the id of an operation follows from service, label and due time alone (S13), that of a repeated attempt
//! from the one before; a service that any operation has is left alone, and of a backup and a drill that are both due the
//! backup goes first; a clock that was wrong once, and left times of the future behind, stops nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::world::holder;
use crate::operation::catalogue::{Backup, Purpose};
use crate::operation::claim;
use crate::operation::client_spec::is_asleep;
use crate::operation::points::{Head, Point, Purpose as PointPurpose};
use crate::operation::record::{Intent, Manner, OpId, Operation, SCHEMA, State, Trigger, Work, of_stack};
use crate::policy::{Policies, Policy, Schedule};
use crate::swarm::object::Service;

/// A run is spread over at most this part of the time until the next one, and one that is late is left to the next when
/// less than this part is left.
const PART: u32 = 10;
/// One that is late is not left to the next when that is further away than this; a restart that is later than this is left out.
const SOON: Duration = Duration::from_secs(3600);
/// So many restarts at once, those that people asked for included.
const RESTARTS_AT_ONCE: usize = 2;
/// How long the checks are waited for that are asked before a scheduled restart, seconds.
const RESTART_WAITS_S: u64 = 15 * 60;
/// So many restore points at once, those that people asked for included: each dumps the data of a whole stack.
const POINTS_AT_ONCE: usize = 1;
/// How long after each attempt that is worth another one that begins; the last of them from then on.
const RETRIES: [Duration; 4] = [
    Duration::from_secs(15 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(4 * 3600),
    Duration::from_secs(24 * 3600),
];

/// What a schedule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// A backup.
    Backup,
    /// A drill of the newest backup.
    Drill,
    /// A restore point of the stack that the service belongs to.
    Point,
    /// A restart of the service and of what needs it.
    Restart,
}

/// The administrator's rules for what runs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// So many backups at once, those that people asked for included.
    pub at_once: usize,
    /// So many drills at once, those that people asked for included.
    pub drills_at_once: usize,
    /// Runs of one due time are spread over so long.
    pub spread: Duration,
}

/// What is decided on.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The services that opted in.
    pub services: &'a [Service],
    /// All operations that can be read.
    pub operations: &'a [Operation],
    /// The catalogue.
    pub backups: &'a [Backup],
    /// Restore points.
    pub points: &'a [Point],
}

/// What a run is about: the service whose label asks for it, or the stack of that service.
struct Subject<'a> {
    name: &'a str,
    id: String,
}

/// A run that is to begin.
struct Run<'a> {
    errand: Errand,
    due: Timestamp,
    begins: Timestamp,
    subject: Subject<'a>,
    id: OpId,
}

// === impl Rules ===

impl Default for Rules {
    fn default() -> Rules {
        Rules { at_once: 2, drills_at_once: 1, spread: Duration::from_secs(300) }
    }
}

// === impl Errand ===

impl Errand {
    /// The label that asks for it.
    pub const fn key(self) -> &'static str {
        match self {
            Errand::Backup => "skep.backup.schedule",
            Errand::Drill => "skep.drill.schedule",
            Errand::Point => "skep.point.schedule",
            Errand::Restart => "skep.restart.schedule",
        }
    }

    /// The schedules by which it is asked for.
    pub fn schedules(self, policy: &Policy) -> &[Schedule] {
        let has_data = policy.data.is_some();
        let schedules = match self {
            Errand::Backup => policy.backup.as_ref().filter(|_| has_data).map(|b| &b.schedules),
            Errand::Drill => policy.drill.as_ref().filter(|_| has_data).map(|d| &d.schedules),
            Errand::Point => policy.point.as_ref().map(|p| &p.schedules),
            Errand::Restart => Some(&policy.restarts),
        };
        schedules.filter(|_| policy.enabled).map_or(&[][..], |schedules| schedules)
    }

    fn work(self) -> Work {
        match self {
            Errand::Backup => Work::Backup,
            Errand::Drill => Work::Drill { backup: None },
            Errand::Point => Work::Point { without_data: false },
            Errand::Restart => Work::Restart {
                whole: false,
                manner: Manner::Fitting,
                force: false,
                flush: Vec::new(),
                wait_s: Some(RESTART_WAITS_S),
            },
        }
    }

    fn is_of(self, op: &Operation) -> bool {
        match self {
            Errand::Backup => op.intent.work == Work::Backup,
            Errand::Drill => matches!(op.intent.work, Work::Drill { .. }),
            Errand::Point => matches!(op.intent.work, Work::Point { .. }),
            Errand::Restart => matches!(op.intent.work, Work::Restart { .. }),
        }
    }

    /// What it is about; nothing where it is about a stack and the service belongs to none.
    fn subject(self, service: &Service) -> Option<Subject<'_>> {
        match self {
            Errand::Backup | Errand::Drill | Errand::Restart => {
                Some(Subject { name: service.name(), id: service.id.clone() })
            }
            Errand::Point => service.stack().map(|name| Subject { name, id: of_stack(name) }),
        }
    }

    const fn at_once(self, rules: &Rules) -> usize {
        match self {
            Errand::Backup => rules.at_once,
            Errand::Drill => rules.drills_at_once,
            Errand::Point => POINTS_AT_ONCE,
            Errand::Restart => RESTARTS_AT_ONCE,
        }
    }

    /// Over how long runs of one due time are spread. People are told when a restart is to be expected.
    const fn spread(self, rules: &Rules) -> Duration {
        match self {
            Errand::Backup | Errand::Drill | Errand::Point => rules.spread,
            Errand::Restart => Duration::ZERO,
        }
    }

    /// Whether this backup, one of `own` (all regular ones of the service), shows that it was done at such a time.
    fn shows(self, backup: &Backup, own: &[&Backup], is_then: impl Fn(Timestamp) -> bool) -> bool {
        match self {
            Errand::Backup => is_then(backup.entry.taken),
            Errand::Drill => {
                let was_newest = |at: Timestamp| {
                    let newer = backup.entry.taken..=at;
                    let is_newer = |b: &&&Backup| b.verified.is_some() && newer.contains(&b.entry.taken);
                    own.iter().filter(is_newer).all(|b| b.entry.taken == backup.entry.taken)
                };
                backup.drilled().any(|at| is_then(at) && was_newest(at))
            }
            // A point shows itself, and of a restart no backup tells.
            Errand::Point | Errand::Restart => false,
        }
    }

    /// Not so what a person has cancelled.
    fn is_worth_another(self, op: &Operation) -> bool {
        match self {
            Errand::Backup => matches!(op.journal.state, State::Failed | State::RolledBack),
            Errand::Point => {
                matches!(op.journal.state, State::Failed | State::RolledBack) || claim::gave_way(op)
            }
            Errand::Drill | Errand::Restart => claim::gave_way(op),
        }
    }
}

// === impl Run ===

impl Run<'_> {
    fn intent(&self, now: Timestamp) -> Intent {
        Intent {
            schema: SCHEMA,
            service: self.subject.name.to_owned(),
            service_id: self.subject.id.clone(),
            work: self.errand.work(),
            trigger: Trigger::Schedule { key: self.errand.key().to_owned(), due: self.due },
            created: now,
            approval: false,
            accept_problems: false,
        }
    }
}

/// What to ask for now, what was due first before the rest; no more of each than there is room for.
pub fn scheduled(seen: &Seen<'_>, rules: &Rules, now: Timestamp) -> Vec<(OpId, Intent)> {
    let policies = Policies::of(seen.services);
    let mut backups = runs(Errand::Backup, seen, &policies, rules, now);
    // A drill after it proves what it makes.
    let taken: BTreeSet<&str> = backups.iter().map(|r| r.subject.name).collect();
    let mut drills = runs(Errand::Drill, seen, &policies, rules, now);
    drills.retain(|r| !taken.contains(r.subject.name));
    let mut points = runs(Errand::Point, seen, &policies, rules, now);
    // Several services of a stack may ask for the same one.
    let mut stacks = BTreeSet::new();
    points.retain(|r| stacks.insert(r.subject.name));
    backups.truncate(room(Errand::Backup, seen, rules));
    drills.truncate(room(Errand::Drill, seen, rules));
    points.truncate(room(Errand::Point, seen, rules));
    let mut restarts = runs(Errand::Restart, seen, &policies, rules, now);
    restarts.truncate(room(Errand::Restart, seen, rules));
    let all = backups.into_iter().chain(drills).chain(points).chain(restarts);
    all.map(|run| (run.id.clone(), run.intent(now))).collect()
}

/// The newest due time of a schedule of a service. It asks for nothing from before the service was there.
fn newest_due(errand: Errand, service: &Service, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    let schedules = errand.schedules(policy).iter();
    schedules.filter_map(|s| s.last_at(now)).max().filter(|due| *due >= service.created)
}

/// The newest due time of a stack's schedule of points, on one of its services, that was not met yet.
fn missed_point(service: &Service, policy: &Policy, points: &[Point], now: Timestamp) -> Option<Timestamp> {
    let due = newest_due(Errand::Point, service, policy, now)?;
    // One without data shows nothing of a schedule's; of a stack that has none the records of operations tell.
    let is_one = |head: &Head| {
        service.stack() == Some(head.stack.as_str())
            && head.purpose == PointPurpose::Regular
            && head.backups().next().is_some()
            && (due..=now).contains(&head.taken)
    };
    (!points.iter().any(|p| is_one(&p.head))).then_some(due)
}

/// The newest due time of a service's restart, as long as it is of now.
fn missed_restart(service: &Service, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    if is_asleep(&service.spec) {
        return None;
    }
    newest_due(Errand::Restart, service, policy, now).filter(|due| *due + SOON > now)
}

/// The newest due time of a service's schedule of backups or drills that was not met yet.
pub fn missed(
    errand: Errand,
    service: &Service,
    policy: &Policy,
    backups: &[Backup],
    now: Timestamp,
) -> Option<Timestamp> {
    // Nothing runs that could be asked for its data, which does not change either.
    if is_asleep(&service.spec) {
        return None;
    }
    let due = newest_due(errand, service, policy, now)?;
    let is_own = |b: &&Backup| b.entry.service == service.name() && b.entry.purpose == Purpose::Regular;
    let own: Vec<&Backup> = backups.iter().filter(is_own).collect();
    let is_made = own.iter().any(|b| errand.shows(b, &own, |at| (due..=now).contains(&at)));
    (!is_made).then_some(due)
}

fn room(errand: Errand, seen: &Seen<'_>, rules: &Rules) -> usize {
    let is_under_way = |o: &&Operation| errand.is_of(o) && o.journal.state.is_live();
    errand.at_once(rules).saturating_sub(seen.operations.iter().filter(is_under_way).count())
}

fn runs<'a>(
    errand: Errand,
    seen: &Seen<'a>,
    policies: &Policies,
    rules: &Rules,
    now: Timestamp,
) -> Vec<Run<'a>> {
    let of = |service| run(errand, seen, service, &policies.get(service.name())?.policy, rules, now);
    let mut runs: Vec<Run<'a>> = seen.services.iter().filter_map(of).collect();
    runs.sort_by_key(|r| (r.due, r.begins, r.id.clone()));
    runs
}

fn run<'a>(
    errand: Errand,
    seen: &Seen<'_>,
    service: &'a Service,
    policy: &Policy,
    rules: &Rules,
    now: Timestamp,
) -> Option<Run<'a>> {
    let subject = errand.subject(service)?;
    let is_open = |op: &&Operation| !op.journal.state.is_terminal() && op.intent.service_id == subject.id;
    let is_busy = holder(seen.operations, service.name()).is_some()
        || errand == Errand::Point && seen.operations.iter().any(|op| is_open(&op));
    // Nothing could be asked for the data of what sleeps; the point is taken once it is awake.
    let sleeps = |s: &Service| is_asleep(&s.spec) && s.spec["Labels"].get("skep.data").is_some();
    let is_asleep =
        errand == Errand::Point && seen.services.iter().any(|s| s.stack() == service.stack() && sleeps(s));
    if policy.paused || is_busy || is_asleep {
        return None;
    }
    let due = match errand {
        Errand::Backup | Errand::Drill => missed(errand, service, policy, seen.backups, now)?,
        Errand::Point => missed_point(service, policy, seen.points, now)?,
        Errand::Restart => missed_restart(service, policy, now)?,
    };
    let next = errand.schedules(policy).iter().filter_map(|s| s.next_after(now)).min();
    let interval = next.map(|next| next.duration_since(due).unsigned_abs());
    let is_near = |next: Timestamp| {
        let left = next.duration_since(now).unsigned_abs();
        left < SOON && interval.is_some_and(|i| left < i / PART)
    };
    if next.is_some_and(is_near) {
        return None;
    }
    let attempts = attempts(errand, seen.operations, &subject.id, due, now);
    let (id, begins) = match attempts.last() {
        None => {
            let window = interval.map_or(errand.spread(rules), |i| errand.spread(rules).min(i / PART));
            (name(errand, subject.name, due, ""), due + share(subject.name, window))
        }
        Some(last) => {
            if attempts.iter().any(|o| !errand.is_worth_another(o)) {
                return None;
            }
            let begins = ended(last) + RETRIES[(attempts.len() - 1).min(RETRIES.len() - 1)];
            (name(errand, subject.name, begins, last.id.as_str()), begins)
        }
    };
    (begins <= now).then_some(Run { errand, due, begins, subject, id })
}

/// What this schedule has already asked for, for this due time or a later one of an earlier schedule; in the order in
/// which it ended.
fn attempts<'a>(
    errand: Errand,
    operations: &'a [Operation],
    subject_id: &str,
    due: Timestamp,
    now: Timestamp,
) -> Vec<&'a Operation> {
    let is_one = |o: &&Operation| match &o.intent.trigger {
        Trigger::Schedule { key, due: d } => {
            key == errand.key() && o.intent.service_id == subject_id && (due..=now).contains(d)
        }
        Trigger::Person { .. }
        | Trigger::Alert { .. }
        | Trigger::Found { .. }
        | Trigger::Operation { .. } => false,
    };
    let mut attempts: Vec<&Operation> = operations.iter().filter(is_one).collect();
    attempts.sort_by_key(|o| (ended(o), o.id.clone()));
    attempts
}

fn ended(op: &Operation) -> Timestamp {
    op.journal.ended.unwrap_or(op.intent.created)
}

/// The same from whoever computes it: `at` is the due time, or follows from the record of the attempt before.
fn name(errand: Errand, subject: &str, at: Timestamp, before: &str) -> OpId {
    OpId::new(at, &format!("{} {subject} {at} {before}", errand.key()))
}

/// A service's own share of a window, always the same.
fn share(service: &str, window: Duration) -> Duration {
    let digest = Sha256::digest(service.as_bytes());
    let [a, b, ..] = digest.as_slice() else { return Duration::ZERO };
    let share = u32::from(u16::from_be_bytes([*a, *b]));
    let nanos = window.as_nanos() / u128::from(u16::MAX) * u128::from(share);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "scheduled_tests.rs"]
mod tests;
