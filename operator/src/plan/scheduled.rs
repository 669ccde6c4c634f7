//! Scheduled backups that are to begin now.
//!
//! A service's newest due time counts, and no older one. It is *made* when there is a regular backup from that time or
//! later, or an operation that this schedule asked for and that succeeded or was cancelled. Nothing is remembered: the
//! catalogue tells, and the records of operations as long as they are kept. So a run that was missed is made up once,
//! whatever kept it from running, and never twice.
//!
//! Invariants: the id of an operation follows from service, label and due time alone (S13), that of a repeated attempt
//! from the one that failed; a service that any operation has is left alone; a clock that was wrong once, and left
//! times of the future behind, stops nothing.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::world::holder;
use crate::operation::catalogue::{Backup, Purpose};
use crate::operation::record::{Intent, OpId, Operation, SCHEMA, State, Trigger, Work};
use crate::policy::{Policies, Policy, Schedule};
use crate::swarm::object::Service;

/// The label that asks for scheduled backups.
pub const KEY: &str = "skep.backup.schedule";
/// A run is spread over at most this part of the time until the next one, and one that is late is left to the next when
/// less than this part is left.
const PART: u32 = 10;
/// One that is late is not left to the next when that is further away than this.
const SOON: Duration = Duration::from_secs(3600);
/// How long after each failed attempt the next one begins; the last of them from then on.
const RETRIES: [Duration; 4] = [
    Duration::from_secs(15 * 60),
    Duration::from_secs(3600),
    Duration::from_secs(4 * 3600),
    Duration::from_secs(24 * 3600),
];

/// The administrator's rules for what runs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// So many backups at once, those that people asked for included.
    pub at_once: usize,
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
}

/// A run that is to begin.
struct Run<'a> {
    due: Timestamp,
    begins: Timestamp,
    service: &'a Service,
    id: OpId,
}

// === impl Rules ===

impl Default for Rules {
    fn default() -> Rules {
        Rules { at_once: 2, spread: Duration::from_secs(300) }
    }
}

// === impl Run ===

impl Run<'_> {
    fn intent(&self, now: Timestamp) -> Intent {
        Intent {
            schema: SCHEMA,
            service: self.service.name().to_owned(),
            service_id: self.service.id.clone(),
            work: Work::Backup,
            trigger: Trigger::Schedule { key: KEY.to_owned(), due: self.due },
            created: now,
            approval: false,
            accept_problems: false,
        }
    }
}

/// The backups to ask for now, those that were due first before the others; no more than there is room for.
pub fn scheduled(seen: &Seen<'_>, rules: &Rules, now: Timestamp) -> Vec<(OpId, Intent)> {
    let is_under_way = |o: &&Operation| o.intent.work == Work::Backup && o.journal.state.is_live();
    let room = rules.at_once.saturating_sub(seen.operations.iter().filter(is_under_way).count());
    let policies = Policies::of(seen.services);
    let mut runs: Vec<Run<'_>> = seen
        .services
        .iter()
        .filter_map(|service| run(seen, service, &policies.get(service.name())?.policy, rules, now))
        .collect();
    runs.sort_by_key(|r| (r.due, r.begins, r.id.clone()));
    runs.truncate(room);
    runs.into_iter().map(|run| (run.id.clone(), run.intent(now))).collect()
}

/// The newest due time of a service's schedule of which there is no backup yet.
pub fn missed(service: &Service, policy: &Policy, backups: &[Backup], now: Timestamp) -> Option<Timestamp> {
    let schedules = schedules(policy);
    // A schedule asks for nothing from before the service was there.
    let due = schedules.iter().filter_map(|s| s.last_at(now)).max().filter(|due| *due >= service.created)?;
    let is_made = |b: &Backup| {
        let entry = &b.entry;
        entry.service == service.name()
            && entry.purpose == Purpose::Regular
            && (due..=now).contains(&entry.taken)
    };
    (!backups.iter().any(is_made)).then_some(due)
}

fn schedules(policy: &Policy) -> &[Schedule] {
    let asks = policy.enabled && policy.data.is_some();
    policy.backup.as_ref().filter(|_| asks).map_or(&[][..], |b| &b.schedules)
}

fn run<'a>(
    seen: &Seen<'_>,
    service: &'a Service,
    policy: &Policy,
    rules: &Rules,
    now: Timestamp,
) -> Option<Run<'a>> {
    if policy.paused || holder(seen.operations, service.name()).is_some() {
        return None;
    }
    let due = missed(service, policy, seen.backups, now)?;
    let next = schedules(policy).iter().filter_map(|s| s.next_after(now)).min();
    let interval = next.map(|next| next.duration_since(due).unsigned_abs());
    let is_near = |next: Timestamp| {
        let left = next.duration_since(now).unsigned_abs();
        left < SOON && interval.is_some_and(|i| left < i / PART)
    };
    if next.is_some_and(is_near) {
        return None;
    }
    let attempts = attempts(seen.operations, service, due, now);
    let (id, begins) = match attempts.last() {
        None => {
            let window = interval.map_or(rules.spread, |i| rules.spread.min(i / PART));
            (name(service, due, ""), due + share(service.name(), window))
        }
        Some(last) => {
            if attempts.iter().any(|o| !has_failed(o)) {
                return None;
            }
            let begins = ended(last) + RETRIES[(attempts.len() - 1).min(RETRIES.len() - 1)];
            (name(service, begins, last.id.as_str()), begins)
        }
    };
    (begins <= now).then_some(Run { due, begins, service, id })
}

/// What this schedule has already asked for, for this due time or a later one of an earlier schedule; in the order in
/// which it ended.
fn attempts<'a>(
    operations: &'a [Operation],
    service: &Service,
    due: Timestamp,
    now: Timestamp,
) -> Vec<&'a Operation> {
    let is_one = |o: &&Operation| match &o.intent.trigger {
        Trigger::Schedule { key, due: d } => {
            key == KEY && o.intent.service_id == service.id && (due..=now).contains(d)
        }
        Trigger::Person { .. } | Trigger::Alert { .. } | Trigger::Operation { .. } => false,
    };
    let mut attempts: Vec<&Operation> = operations.iter().filter(is_one).collect();
    attempts.sort_by_key(|o| (ended(o), o.id.clone()));
    attempts
}

/// Worth another attempt: not so what a person has cancelled.
fn has_failed(op: &Operation) -> bool {
    matches!(op.journal.state, State::Failed | State::RolledBack)
}

fn ended(op: &Operation) -> Timestamp {
    op.journal.ended.unwrap_or(op.intent.created)
}

/// The same from whoever computes it: `at` is the due time, or follows from the record of the attempt before.
fn name(service: &Service, at: Timestamp, before: &str) -> OpId {
    OpId::new(at, &format!("{KEY} {} {at} {before}", service.name()))
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
