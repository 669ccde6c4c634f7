//! What people are told by mail about alerts on which nothing was begun, or only after a person was asked.
//!
//! Invariants: a notice is stored in the same write as the decision that it tells, so that dying loses neither, and stays
//! until it is told; an incident tells each kind of decision once, however often its alerts repeat.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decision::Decision;
use super::history::{History, after};
use crate::operation::record::OpId;

/// Most notices remembered.
pub const MOST_NOTICES: usize = 32;
/// What could not be told for this long is no news any more.
const STALE: Duration = Duration::from_hours(48);
/// Longest sentence: it is stored in a label.
const LONGEST: usize = 600;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// `alertname`.
    pub alert: String,
    /// What kind of decision it tells.
    pub kind: NoticeKind,
    /// The decision for people.
    pub sentence: String,
    /// When it was decided.
    pub at: Timestamp,
    /// When the alert's incident was opened.
    pub incident: Timestamp,
    /// The operation that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OpId>,
    /// When it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Timestamp>,
}

/// The kinds of decisions that people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// As many restores as the label allows: the circuit is open.
    Limit,
    /// It must not be done now.
    Refused,
    /// Mode `observe`.
    Observed,
    /// It fires again although a restore answered it.
    Answered,
    /// A person is asked, and why. The operation's own mail tells it.
    Asked,
    /// What the guards remember cannot be read, so that no alert acts.
    Unreadable,
}

// === impl Notice ===

impl Notice {
    /// What is to be told about a decision of an incident.
    pub fn of(decision: &Decision, alert: &str, incident: Timestamp, now: Timestamp) -> Option<Notice> {
        let kind = NoticeKind::of(decision)?;
        Some(Notice {
            alert: alert.to_owned(),
            kind,
            sentence: decision.to_string().chars().take(LONGEST).collect(),
            at: now,
            incident,
            operation: decision.operation().cloned(),
            told: None,
        })
    }

    /// Whether it tells the same, perhaps of another incident.
    pub fn is_like(&self, other: &Notice) -> bool {
        (&self.alert, self.kind) == (&other.alert, other.kind)
    }

    /// Whether it is still to be told by a mail of its own.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.told.is_none() && self.kind != NoticeKind::Asked && now <= after(self.at, STALE)
    }
}

// === impl NoticeKind ===

impl NoticeKind {
    /// Name, as in labels and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            NoticeKind::Limit => "limit",
            NoticeKind::Refused => "refused",
            NoticeKind::Observed => "observed",
            NoticeKind::Answered => "answered",
            NoticeKind::Asked => "asked",
            NoticeKind::Unreadable => "unreadable",
        }
    }

    const fn of(decision: &Decision) -> Option<NoticeKind> {
        match decision {
            Decision::LimitReached { .. } => Some(NoticeKind::Limit),
            Decision::Refused { .. } => Some(NoticeKind::Refused),
            Decision::Observe { .. } => Some(NoticeKind::Observed),
            Decision::Cooldown { answered: Some(_), .. } => Some(NoticeKind::Answered),
            Decision::AwaitApproval { .. } => Some(NoticeKind::Asked),
            Decision::Start { .. }
            | Decision::Settling { .. }
            | Decision::Duplicate { .. }
            | Decision::Cooldown { answered: None, .. }
            | Decision::Busy { .. }
            | Decision::OwnOperation { .. }
            | Decision::NotOptedIn { .. }
            | Decision::ResolvedCancels { .. }
            | Decision::Resolved { .. }
            | Decision::Ignored { .. } => None,
        }
    }
}

// === impl History ===

impl History {
    /// Takes a notice in, unless its incident has told the like already. Whether it did.
    pub fn notice(&mut self, notice: Notice) -> bool {
        if self.notices.iter().any(|n| n.is_like(&notice) && n.incident == notice.incident) {
            return false;
        }
        self.notices.retain(|n| !n.is_like(&notice));
        self.notices.push(notice);
        self.notices.sort_by_key(|n| n.at);
        true
    }

    /// Notices that are still to be told, oldest first.
    pub fn due_notices(&self, now: Timestamp) -> impl Iterator<Item = &Notice> {
        self.notices.iter().filter(move |n| n.is_due(now))
    }

    /// Notes that a notice was told. Whether that is news.
    pub fn told(&mut self, notice: &Notice, now: Timestamp) -> bool {
        let same = |n: &&mut Notice| n.is_like(notice) && n.incident == notice.incident && n.told.is_none();
        let Some(found) = self.notices.iter_mut().find(same) else { return false };
        found.told = Some(now);
        true
    }

    /// Why a person is asked about an operation.
    pub fn why_asked(&self, op: &OpId) -> Option<&str> {
        let about = |n: &&Notice| n.kind == NoticeKind::Asked && n.operation.as_ref() == Some(op);
        self.notices.iter().find(about).map(|n| n.sentence.as_str())
    }

    /// Forgets notices from before `since`, but not those of open incidents (else they would be told again), and what exceeds
    /// the bound, first what was told longest ago.
    pub(super) fn forget_notices(&mut self, since: Timestamp) {
        let incidents = &self.incidents;
        let open = |n: &Notice| {
            incidents.get(&n.alert).is_some_and(|i| i.resolved.is_none() && i.opened == n.incident)
        };
        self.notices.retain(|n| n.at > since || open(n));
        while self.notices.len() > MOST_NOTICES {
            let at = self.notices.iter().position(|n| n.told.is_some()).unwrap_or(0);
            self.notices.remove(at);
        }
    }
}
