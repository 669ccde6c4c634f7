//! Which restore points of a stack stay and which may go; pure.
//!
//! By `skep.point.keep`, whose rules are those of [`crate::operation::retention`], else the newest so many.
//!
//! Invariants: the newest point stays, and the newest whose data can all come back, whatever the rules say; one that an
//! operation wants stays; a point stands for its like alone, so that one without data, or whose data is gone, never
//! takes the day of one that holds it; what a rollback or an update took for safety stays its time, and stands for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Stored;
use crate::operation::catalogue::Backup;
use crate::operation::points::{self, Purpose};
use crate::operation::record::{OpId, Operation};
use crate::operation::retention::{self, ruled};
use crate::policy::{Keep, Parsed, Section};

/// How long stays what a rollback or an update took for safety: as long as a kept database.
const SAFETY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is kept of a stack.
#[derive(Clone, Debug, PartialEq)]
pub enum Rules {
    /// So many of the newest, whatever they hold: no label says otherwise.
    Newest(usize),
    /// What the labels of its services say, all of them together.
    Labels {
        /// `skep.point.keep`.
        keep: Vec<Keep>,
        /// The zone in which days and weeks begin and end.
        zone: TimeZone,
    },
    /// Everything: labels about points are faulty, and what they were to say is not known.
    All,
}

/// A point as rules see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// When it was taken.
    pub taken: Timestamp,
    /// Why.
    pub purpose: Purpose,
    /// What of its data can come back.
    pub holds: Holds,
    /// The operation that wants it.
    pub wanted: Option<OpId>,
}

/// What of a point's data can come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holds {
    /// All of it.
    Whole,
    /// Not all of it.
    Less,
    /// It has none: specs and configs.
    Specs,
}

/// What becomes of a point.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It stays, for these reasons.
    Stays(Vec<Reason>),
    /// It goes.
    Goes,
}

/// Why a point stays.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// It is the newest.
    Newest,
    /// It is the newest whose data can all come back.
    NewestWhole,
    /// It is one of so many of the newest.
    Last(usize),
    /// A rule of the labels keeps it.
    Rule(retention::Reason),
    /// A rollback or an update took it of what it changed; until when it stays.
    Safety(Timestamp),
    /// An operation that has not ended wants it.
    Wanted(OpId),
    /// Nothing goes, since labels are faulty.
    Faulty,
}

// === impl Rules ===

impl Rules {
    /// What the labels of the services of a stack say, else `newest`.
    pub fn of<'a>(services: impl IntoIterator<Item = &'a Parsed>, newest: usize) -> Rules {
        let (mut keep, mut zone): (Vec<Keep>, Option<TimeZone>) = (Vec::new(), None);
        for parsed in services {
            if parsed.problems.iter().any(|problem| problem.section == Section::Point) {
                return Rules::All;
            }
            let Some(points) = &parsed.policy.point else { continue };
            keep.extend(points.keep.iter().cloned());
            zone = zone.or_else(|| points.schedules.first().map(|schedule| schedule.zone()));
        }
        match keep.is_empty() {
            true => Rules::Newest(newest),
            false => Rules::Labels { keep, zone: zone.unwrap_or(TimeZone::UTC) },
        }
    }

    /// Judges the points of one stack; the newest first.
    pub fn judge(&self, mut points: Vec<Seen>, now: Timestamp) -> Vec<(Seen, Fate)> {
        points.sort_by(|a, b| (b.taken, &b.id).cmp(&(a.taken, &a.id)));
        let kept = self.kept(&points, now);
        let fate = |point: &Seen| match kept.get(&point.id) {
            Some(reasons) => Fate::Stays(reasons.clone()),
            None => Fate::Goes,
        };
        points.iter().map(|point| (point.clone(), fate(point))).collect()
    }

    /// Those that stay, by their ids; `points` from the newest to the oldest.
    fn kept(&self, points: &[Seen], now: Timestamp) -> BTreeMap<String, Vec<Reason>> {
        let mut kept: BTreeMap<String, Vec<Reason>> = BTreeMap::new();
        let mut keep = |id: &str, reason| kept.entry(id.to_owned()).or_default().push(reason);
        if let Some(newest) = points.first() {
            keep(&newest.id, Reason::Newest);
        }
        let is_whole = |point: &&Seen| point.purpose == Purpose::Regular && point.holds == Holds::Whole;
        if let Some(whole) = points.iter().find(is_whole) {
            keep(&whole.id, Reason::NewestWhole);
        }
        for (point, wanted) in points.iter().filter_map(|p| Some((p, p.wanted.clone()?))) {
            keep(&point.id, Reason::Wanted(wanted));
        }
        match self {
            Rules::All => points.iter().for_each(|point| keep(&point.id, Reason::Faulty)),
            Rules::Newest(most) => {
                let regular = points.iter().filter(|p| p.purpose == Purpose::Regular);
                regular.take(*most).for_each(|point| keep(&point.id, Reason::Last(*most)));
            }
            Rules::Labels { keep: rules, zone } => {
                for holds in [Holds::Whole, Holds::Less, Holds::Specs] {
                    let stands = |p: &&Seen| p.purpose == Purpose::Regular && p.holds == holds;
                    let standing: Vec<_> =
                        points.iter().filter(stands).map(|p| (p.id.as_str(), p.taken)).collect();
                    for (id, reason) in ruled(rules, zone, &standing) {
                        keep(id, Reason::Rule(reason));
                    }
                }
            }
        }
        for point in points.iter().filter(|p| p.purpose == Purpose::Safety) {
            let until = point.taken.checked_add(SAFETY).ok().filter(|until| *until > now);
            if let Some(until) = until {
                keep(&point.id, Reason::Safety(until));
            }
        }
        kept
    }
}

// === impl Seen ===

impl Seen {
    /// A point among these backups and operations.
    pub fn of(point: &Stored, backups: &[Backup], operations: &[Operation]) -> Seen {
        let head = &point.head;
        let needed: BTreeSet<&str> = head.backups().collect();
        let lacks = needed.iter().any(|id| points::lacks(backups, id).is_some());
        Seen {
            id: head.id.to_string(),
            taken: head.taken,
            purpose: head.purpose,
            holds: match (needed.is_empty(), lacks) {
                (true, _) => Holds::Specs,
                (false, true) => Holds::Less,
                (false, false) => Holds::Whole,
            },
            wanted: operations.iter().find(|op| points::uses(op, &head.id)).map(|op| op.id.clone()),
        }
    }
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Newest => f.write_str("the newest"),
            Reason::NewestWhole => f.write_str("the newest whose data can all come back"),
            Reason::Last(most) => write!(f, "one of the last {most}"),
            Reason::Rule(reason) => reason.fmt(f),
            Reason::Safety(until) => write!(f, "of what a rollback or an update changed, until {until}"),
            Reason::Wanted(operation) => write!(f, "wanted by operation {operation}"),
            Reason::Faulty => f.write_str("labels about restore points are faulty, so none goes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Period;

    fn now() -> Timestamp {
        "2026-03-20T12:00:00Z".parse().unwrap()
    }

    fn point(id: &str, taken: &str, holds: Holds) -> Seen {
        let taken = taken.parse().unwrap();
        Seen { id: id.to_owned(), taken, purpose: Purpose::Regular, holds, wanted: None }
    }

    fn rules(rules: &[(u32, Period)]) -> Rules {
        let keep = rules.iter().map(|(count, per)| Keep { count: *count, per: *per }).collect();
        Rules::Labels { keep, zone: TimeZone::UTC }
    }

    fn stay(rules: &Rules, points: Vec<Seen>) -> Vec<String> {
        let judged = rules.judge(points, now());
        judged.into_iter().filter(|(_, fate)| *fate != Fate::Goes).map(|(seen, _)| seen.id).collect()
    }

    #[test]
    fn rules_keep_the_newest_of_each_day_and_week() {
        let points = vec![
            point("a", "2026-03-02T02:00:00Z", Holds::Whole),
            point("b", "2026-03-09T02:00:00Z", Holds::Whole),
            point("c", "2026-03-18T02:00:00Z", Holds::Whole),
            point("d", "2026-03-19T02:00:00Z", Holds::Whole),
            point("e", "2026-03-19T14:00:00Z", Holds::Whole),
        ];
        let both = rules(&[(2, Period::Daily), (2, Period::Weekly)]);
        assert_eq!(stay(&both, points.clone()), ["e", "c", "b"]);
        assert_eq!(stay(&Rules::Newest(2), points.clone()), ["e", "d"]);
        assert_eq!(stay(&Rules::All, points.clone()).len(), 5);
        // Pruning often and pruning late keep the same.
        let mut left = Vec::new();
        for next in points.clone() {
            left.push(next);
            let ids = stay(&both, left.clone());
            left.retain(|p| ids.contains(&p.id));
        }
        assert_eq!(stay(&both, left), stay(&both, points));
    }

    #[test]
    fn the_newest_and_the_newest_whole_stay_whatever_the_rules_say() {
        let points = || {
            vec![
                point("whole", "2026-03-01T02:00:00Z", Holds::Whole),
                point("less", "2026-03-02T02:00:00Z", Holds::Less),
                point("specs", "2026-03-03T02:00:00Z", Holds::Specs),
                point("new", "2026-03-04T02:00:00Z", Holds::Specs),
            ]
        };
        assert_eq!(stay(&Rules::Newest(1), points()), ["new", "whole"]);
        assert_eq!(stay(&Rules::Newest(0), points()), ["new", "whole"]);
        // One without data, or whose data is gone, takes no place of one that holds it.
        assert_eq!(stay(&rules(&[(1, Period::Last)]), points()), ["new", "less", "whole"]);
    }

    #[test]
    fn what_is_wanted_stays_and_what_a_rollback_took_stays_its_time_and_stands_for_nothing() {
        let safety =
            |id: &str, taken: &str| Seen { purpose: Purpose::Safety, ..point(id, taken, Holds::Whole) };
        let wanted = Seen {
            wanted: Some(OpId::new(now(), "rollback")),
            ..point("wanted", "2026-02-01T02:00:00Z", Holds::Whole)
        };
        let points = vec![
            wanted,
            point("gone", "2026-02-02T02:00:00Z", Holds::Whole),
            safety("old", "2026-03-13T12:00:00Z"),
            point("day", "2026-03-16T02:00:00Z", Holds::Whole),
            safety("young", "2026-03-16T12:00:00Z"),
            point("new", "2026-03-20T02:00:00Z", Holds::Whole),
        ];
        assert_eq!(stay(&rules(&[(2, Period::Daily)]), points.clone()), ["new", "young", "day", "wanted"]);
        assert_eq!(stay(&Rules::Newest(2), points), ["new", "young", "day", "wanted"]);
    }
}
