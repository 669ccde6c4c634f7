//! Which backups stay and which may go; pure.
//!
//! Each rule of `skep.backup.keep` walks from the newest backup to the oldest and keeps the newest one of each day,
//! week, … until it has kept its number of them; what any rule keeps stays. Days without a backup do not count.
//!
//! Invariants: the newest verified backup stays, and the newest proved one, whatever the rules say; one that was never
//! verified, or was found spoilt, is not judged, stays, and stands for nothing; what goes now would also go if nothing had gone before, so pruning often and
//! pruning late keep the same; one that is already being removed goes and stands for nothing. What a restore
//! point needs stays as long as the point does ([`spare`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::catalogue::{Backup, Purpose};
use super::record::OpId;
use crate::policy::{Keep, Period, Policy};

/// What the labels of a service say about its backups.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// `skep.backup.keep`.
    pub keep: Vec<Keep>,
    /// The zone in which days and weeks begin and end.
    pub zone: TimeZone,
    /// How long safety backups stay: as long as the data that a restore replaced. For ever, where the labels do not tell.
    pub safety: Option<Duration>,
}

/// A backup with what becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It stays, for these reasons.
    Stays(Vec<Reason>),
    /// It goes.
    Goes(Cause),
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// It is the newest that was verified.
    NewestVerified,
    /// It is the newest of which a restore passed the checks.
    NewestProved,
    /// It is the newest of its day, week, …
    Rule {
        /// Of which rule.
        rule: Keep,
        /// Which day, week, …
        slot: String,
    },
    /// It was never verified, so nothing is known about it.
    NeverVerified,
    /// It was found not to be what was registered: it counts for no rule, and a person may still want what is left of it.
    Spoilt,
    /// A restore made it of what it replaced; until when it stays.
    Safety(Option<Timestamp>),
    /// A restore point needs it.
    Point(OpId),
}

/// Why a backup goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No rule keeps it.
    NoRule,
    /// It is a safety backup whose time is over.
    SafetyIsOver,
    /// Its removal has begun before.
    BeingRemoved,
}

/// Keeps what restore points need, whatever the rules say: `needed` by the id of the backup.
pub fn spare(verdicts: &mut [Verdict<'_>], needed: &BTreeMap<String, OpId>) {
    for verdict in verdicts {
        let Some(point) = needed.get(&verdict.backup.entry.id) else { continue };
        let reason = Reason::Point(point.clone());
        match &mut verdict.fate {
            Fate::Stays(reasons) => reasons.push(reason),
            Fate::Goes(Cause::NoRule | Cause::SafetyIsOver) => verdict.fate = Fate::Stays(vec![reason]),
            Fate::Goes(Cause::BeingRemoved) => {}
        }
    }
}

// === impl Rules ===

impl Rules {
    /// The rules of a service; none where its labels are faulty, or neither schedule backups nor say which to keep: what
    /// people make by hand is theirs.
    pub fn of(policy: &Policy) -> Option<Rules> {
        let backup = policy.backup.as_ref().filter(|b| !b.keep.is_empty())?;
        Some(Rules {
            keep: backup.keep.clone(),
            zone: backup.schedules.first().map_or(TimeZone::UTC, |s| s.zone()),
            safety: policy.restore.as_ref().map(|r| r.keep_old),
        })
    }

    /// Judges the backups of one service; the newest first.
    pub fn judge<'a>(
        &self,
        backups: impl IntoIterator<Item = &'a Backup>,
        now: Timestamp,
    ) -> Vec<Verdict<'a>> {
        let mut all: Vec<&Backup> = backups.into_iter().collect();
        all.sort_by_key(|b| std::cmp::Reverse((b.entry.taken, b.entry.id.as_str())));
        let stands = |b: &&Backup| {
            let is_good = b.removing.is_none() && b.spoilt.is_none() && b.verified.is_some();
            is_good && b.entry.purpose == Purpose::Regular
        };
        let standing: Vec<&Backup> = all.iter().copied().filter(stands).collect();
        let kept = self.kept(&standing);
        let reasons = |backup: &Backup| -> Vec<Reason> {
            kept.iter().filter(|(id, _)| *id == backup.entry.id).map(|(_, r)| r.clone()).collect()
        };
        let verdict = |backup: &'a Backup| Verdict { backup, fate: self.fate(backup, reasons(backup), now) };
        all.into_iter().map(verdict).collect()
    }

    fn fate(&self, backup: &Backup, reasons: Vec<Reason>, now: Timestamp) -> Fate {
        if backup.removing.is_some() {
            return Fate::Goes(Cause::BeingRemoved);
        }
        match backup.entry.purpose {
            Purpose::Safety => {
                let until = self.safety.and_then(|keep| backup.entry.taken.checked_add(keep).ok());
                match until.is_some_and(|until| until <= now) {
                    true => Fate::Goes(Cause::SafetyIsOver),
                    false => Fate::Stays(vec![Reason::Safety(until)]),
                }
            }
            Purpose::Regular if backup.spoilt.is_some() => Fate::Stays(vec![Reason::Spoilt]),
            Purpose::Regular if backup.verified.is_none() => Fate::Stays(vec![Reason::NeverVerified]),
            Purpose::Regular if reasons.is_empty() => Fate::Goes(Cause::NoRule),
            Purpose::Regular => Fate::Stays(reasons),
        }
    }

    /// The ids of those that stay, each with a reason; `standing` from the newest to the oldest.
    fn kept<'a>(&self, standing: &[&'a Backup]) -> Vec<(&'a str, Reason)> {
        let id = |b: &&'a Backup| b.entry.id.as_str();
        let mut kept: Vec<(&str, Reason)> = Vec::new();
        kept.extend(standing.first().map(|b| (id(b), Reason::NewestVerified)));
        let proved = standing.iter().filter(|b| b.proved.is_some()).max_by_key(|b| b.entry.taken);
        kept.extend(proved.map(|b| (id(b), Reason::NewestProved)));
        let standing: Vec<_> = standing.iter().map(|b| (id(b), b.entry.taken)).collect();
        kept.extend(ruled(&self.keep, &self.zone, &standing));
        kept
    }
}

/// What each rule keeps of so many things, by their ids and times, from the newest to the oldest: the newest one of each day,
/// week, … until it has its number of them.
pub(super) fn ruled<'a>(
    keep: &[Keep],
    zone: &TimeZone,
    standing: &[(&'a str, Timestamp)],
) -> Vec<(&'a str, Reason)> {
    let mut kept = Vec::new();
    for rule in keep {
        let most = usize::try_from(rule.count).unwrap_or(usize::MAX);
        let mut slots = BTreeSet::new();
        for (id, taken) in standing {
            if slots.len() == most {
                break;
            }
            let slot = slot(rule.per, zone, id, *taken);
            if slots.insert(slot.clone()) {
                kept.push((*id, Reason::Rule { rule: rule.clone(), slot }));
            }
        }
    }
    kept
}

/// The hour, day, week, … of a thing, for people too.
fn slot(per: Period, zone: &TimeZone, id: &str, taken: Timestamp) -> String {
    let taken = taken.to_zoned(zone.clone());
    match per {
        Period::Last => id.to_owned(),
        // An hour that the clock shows twice is two hours.
        Period::Hourly => taken.strftime("%Y-%m-%d %H:00%:z").to_string(),
        Period::Daily => taken.strftime("%Y-%m-%d").to_string(),
        Period::Weekly => taken.strftime("%G-W%V").to_string(),
        Period::Monthly => taken.strftime("%Y-%m").to_string(),
        Period::Yearly => taken.strftime("%Y").to_string(),
    }
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NewestVerified => f.write_str("the newest verified"),
            Reason::NewestProved => f.write_str("the newest proved by a restore"),
            Reason::Rule { rule: Keep { count, per: Period::Last }, .. } => {
                write!(f, "one of the last {count}")
            }
            Reason::Rule { rule, slot } => write!(f, "{} ({slot})", rule.per),
            Reason::NeverVerified => f.write_str("never verified, so not judged"),
            Reason::Spoilt => f.write_str("spoilt, so it stands for nothing"),
            Reason::Safety(Some(until)) => write!(f, "of what a restore replaced, until {until}"),
            Reason::Safety(None) => f.write_str("of what a restore replaced"),
            Reason::Point(point) => write!(f, "needed by restore point {point}"),
        }
    }
}

// === impl Cause ===

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::NoRule => "no rule keeps it",
            Cause::SafetyIsOver => "what the restore replaced is no longer kept either",
            Cause::BeingRemoved => "its removal has begun",
        })
    }
}

// === impl Verdict ===

impl Verdict<'_> {
    /// Whether it goes.
    pub fn goes(&self) -> bool {
        matches!(self.fate, Fate::Goes(_))
    }
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
