//! How a service stands with its backups: what metrics, pages and the weekly mail tell. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::scheduled::{Errand, missed};
use crate::operation::catalogue::{Backup, Finding, Purpose};
use crate::operation::copies;
use crate::operation::record::{Operation, Work};
use crate::policy::{Parsed, Schedule, Section};
use crate::swarm::object::Service;

/// How many times of a schedule are looked at for the longest pause: a week of working days and more.
const FIRINGS: usize = 30;

/// The backups of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Backups {
    /// How many are registered.
    pub count: u64,
    /// How many copies in further stores are wanted of the newest ones and not made.
    pub copies_missing: u64,
    /// When the newest one was taken.
    pub last_success: Option<Timestamp>,
    /// When the last attempt to take one began.
    pub last_attempt: Option<Timestamp>,
    /// When one was last read back in full or restored.
    pub last_verified: Option<Timestamp>,
    /// When one was last proved by a drill or a restore that passed its checks.
    pub last_proved: Option<Timestamp>,
    /// When one was last loaded where there was no check that could prove anything.
    pub last_loaded: Option<Timestamp>,
    /// How many seconds a restore is expected to load: as long as it took with what was proved last, else with what was
    /// loaded last.
    pub expected_s: Option<f64>,
    /// When and why the newest one last failed its drill, if it was not proved since.
    pub drill_failed: Option<Finding>,
    /// Ids of those that were found spoilt.
    pub spoilt: Vec<String>,
    /// Size of the newest in bytes.
    pub last_size: Option<u64>,
    /// When the oldest was taken.
    pub oldest: Option<Timestamp>,
    /// When the next one is due, where there is a schedule.
    pub next: Option<Timestamp>,
    /// When the newest one was due, where there is no backup from that time or later yet.
    pub missed: Option<Timestamp>,
    /// Longest time between two that the schedule allows, where there is one.
    pub interval: Option<Duration>,
    /// When the next drill is due, where there is a schedule.
    pub next_drill: Option<Timestamp>,
    /// Longest time between two drills that the schedule allows, where there is one.
    pub drill_interval: Option<Duration>,
    /// Since when the service exists: what "never" is measured from.
    pub wanted_since: Option<Timestamp>,
}

/// What is known about the backups of a service; nothing where its labels want none and there are none.
pub fn backups(
    service: &Service,
    parsed: &Parsed,
    catalogue: &[Backup],
    operations: &[Operation],
    now: Timestamp,
) -> Option<Backups> {
    let policy = &parsed.policy;
    let wanted = policy.backup.is_some() || parsed.is_off(Section::Backup);
    let of_it = |b: &&Backup| b.entry.service == service.name() && b.removing.is_none();
    let all: Vec<&Backup> = catalogue.iter().filter(of_it).collect();
    if all.is_empty() && !wanted {
        return None;
    }
    let good = || all.iter().filter(|b| b.verified.is_some() && b.entry.purpose == Purpose::Regular);
    let newest = good().max_by_key(|b| b.entry.taken);
    let attempts =
        operations.iter().filter(|o| o.intent.work == Work::Backup && o.intent.service == service.name());
    let attempts = attempts.filter_map(|o| o.journal.steps.first().map(|(_, r)| r.began));
    let last_success = newest.map(|b| b.entry.taken);
    let copies = policy.backup.as_ref().map_or(&[][..], |b| &b.copies);
    let missing = copies::lacking(all.iter().copied(), copies).len();
    let (next, interval) = rhythm(Errand::Backup.schedules(policy), now);
    let (next_drill, drill_interval) = rhythm(Errand::Drill.schedules(policy), now);
    Some(Backups {
        count: u64::try_from(all.len()).unwrap_or(u64::MAX),
        copies_missing: u64::try_from(missing).unwrap_or(u64::MAX),
        last_success,
        last_attempt: attempts.max().max(last_success),
        last_verified: all.iter().filter_map(|b| b.verified.max(b.proved).max(b.loaded)).max(),
        last_proved: all.iter().filter_map(|b| b.proved).max(),
        last_loaded: all.iter().filter_map(|b| b.loaded).max(),
        expected_s: expected(&all),
        drill_failed: newest.and_then(|b| b.drill_failed.clone()),
        spoilt: all.iter().filter(|b| b.spoilt.is_some()).map(|b| b.entry.id.clone()).collect(),
        last_size: newest.map(|b| b.entry.size),
        oldest: good().map(|b| b.entry.taken).min(),
        next,
        missed: missed(Errand::Backup, service, policy, catalogue, now),
        interval,
        next_drill,
        drill_interval,
        wanted_since: wanted.then_some(service.created),
    })
}

fn expected(all: &[&Backup]) -> Option<f64> {
    let last = |when: fn(&Backup) -> Option<Timestamp>| {
        let measured = all.iter().filter(|b| b.restore_seconds.is_some() && when(b).is_some());
        measured.max_by_key(|b| (b.entry.taken, when(b))).and_then(|b| b.restore_seconds)
    };
    last(|b| b.proved).or_else(|| last(|b| b.loaded))
}

/// When schedules are due next, and the longest pause between two times that they are due.
fn rhythm(schedules: &[Schedule], now: Timestamp) -> (Option<Timestamp>, Option<Duration>) {
    let due = |after: Timestamp| schedules.iter().filter_map(|s| s.next_after(after)).min();
    let firings: Vec<Timestamp> = std::iter::successors(due(now), |t| due(*t)).take(FIRINGS).collect();
    let pauses = firings.windows(2).map(|pair| pair[1].duration_since(pair[0]).unsigned_abs());
    (firings.first().copied(), pauses.max())
}
