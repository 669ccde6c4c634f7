//! What the guards remember of one service.
//!
//! Invariants: it outlives the operations that it names; it is bounded (one incident an alert name, at most
//! [`MOST_MEMBERS`] fingerprints each, at most [`MOST_RESTORES`] restores).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decision::Ask;
use super::notice::Notice;
use crate::operation::record::{Intent, OpId};
use crate::triggers::alertmanager::Alert;

/// How long anything is remembered at least.
pub const RETENTION: Duration = Duration::from_hours(30 * 24);
/// Most fingerprints remembered an incident.
pub const MOST_MEMBERS: usize = 64;
/// Most restores remembered, and so the largest limit per window that can be kept.
pub const MOST_RESTORES: usize = 64;

/// What the guards remember of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Full name of the service.
    pub service: String,
    /// Its id when last written.
    pub service_id: String,
    /// The newest incident of each alert name, open or closed.
    pub incidents: BTreeMap<String, Incident>,
    /// Operations that alerts began, oldest first.
    pub restores: Vec<Restored>,
    /// Set when the limit was reached: no alert acts until a person resets it.
    pub circuit: Option<Circuit>,
    /// When a person last reset it: what was before no longer counts.
    pub reset: Option<Timestamp>,
    /// What people were told about alerts, and what they are still to be told; oldest first.
    pub notices: Vec<Notice>,
}

/// One incident: from the first alert until all of its alerts are resolved and the cooldown has passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// `alertname`.
    pub alert: String,
    /// When it was first heard of.
    pub opened: Timestamp,
    /// When an alert of it was last heard firing.
    pub heard: Timestamp,
    /// The alert that opened it; names the operation.
    pub first: Key,
    /// Its alerts, by fingerprint. Those of earlier incidents stay, as resolved, so that a replay is known.
    pub members: BTreeMap<String, Member>,
    /// Since when all of its alerts are resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Timestamp>,
    /// What was done about it.
    pub phase: Phase,
    /// Alerts that began no later than this and are not among the members were forgotten: they are replays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Timestamp>,
}

/// Identifies one firing of one alert: the idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Fingerprint.
    pub fingerprint: String,
    /// `startsAt`.
    pub starts_at: Timestamp,
}

/// One alert of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its latest `startsAt`.
    pub starts_at: Timestamp,
    /// Whether it still fires, as far as was heard.
    pub firing: bool,
}

/// What was done about an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Phase {
    /// It must fire this long before anything is done.
    Settling {
        /// Until then.
        until: Timestamp,
    },
    /// Something stood against acting; judged again.
    Waiting {
        /// What: the name of the decision, so that a change of it is told.
        on: String,
    },
    /// An operation is about to be stored, or just was: whoever finds this stores it (again, under the same name).
    Starting {
        /// Its id.
        op: OpId,
        /// What it does.
        intent: Box<Intent>,
        /// Why a person is asked, if one is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Ask>,
    },
    /// An operation was stored.
    Acted {
        /// Its id.
        op: OpId,
    },
    /// It was only said what would be done.
    Observed,
}

/// An operation that an alert began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Its id.
    pub op: OpId,
    /// When it was stored.
    pub at: Timestamp,
    /// When it ended having changed something, once that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Only observed: it was never stored, and counts in mode `observe` only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
    /// Cancelled before it began: counts for the limit, not for the cooldown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
}

/// An open circuit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuit {
    /// Since when.
    pub opened: Timestamp,
    /// Why, for people.
    pub why: String,
}

/// What hearing a firing alert meant for its incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A new incident.
    Opened,
    /// One more message of an open incident.
    Again,
    /// It fires again after it was resolved, within the cooldown: the same incident.
    Flapped {
        /// When the incident would have been closed.
        until: Timestamp,
    },
    /// An old message: it changes nothing.
    Replay,
}

// === impl History ===

impl History {
    /// A service of which nothing is remembered.
    pub fn new(service: &str, service_id: &str) -> History {
        History {
            service: service.to_owned(),
            service_id: service_id.to_owned(),
            incidents: BTreeMap::new(),
            restores: Vec::new(),
            circuit: None,
            reset: None,
            notices: Vec::new(),
        }
    }

    /// Closes the circuit on a person's word: earlier restores no longer count, and waiting incidents are judged again.
    pub fn reset_circuit(&mut self, now: Timestamp) {
        self.circuit = None;
        self.reset = Some(now);
    }

    /// Incidents that fire now, as far as was heard.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values().filter(|i| i.resolved.is_none())
    }

    /// Restores that count for a limit: of the last `window`, since the last reset, of the same kind.
    pub fn restores_within(&self, window: Duration, observed: bool, now: Timestamp) -> usize {
        let since = before(now, window).max(self.reset.unwrap_or(Timestamp::MIN));
        self.restores.iter().filter(|r| r.at > since && r.observed == observed).count()
    }

    /// Notes that an operation was stored (or would have been).
    pub fn note_restore(&mut self, op: &OpId, observed: bool, now: Timestamp) {
        if !self.restores.iter().any(|r| r.op == *op && r.observed == observed) {
            self.restores.push(Restored { op: op.clone(), at: now, ended: None, observed, dropped: false });
        }
    }

    /// Notes when a remembered operation ended, so that the cooldown holds also after it was pruned.
    pub fn note_end(&mut self, op: &OpId, ended: Timestamp) {
        self.restores.iter_mut().filter(|r| r.op == *op).for_each(|r| r.ended = Some(ended));
    }

    /// Takes note of a firing alert; opens an incident where none of its name is open.
    pub fn hear(&mut self, alert: &Alert, settle: Duration, cooldown: Duration, now: Timestamp) -> Heard {
        let Some(incident) = self.incidents.get_mut(&alert.name) else {
            self.incidents.insert(alert.name.clone(), Incident::open(alert, settle, now));
            return Heard::Opened;
        };
        if incident.is_replay(alert) {
            return Heard::Replay;
        }
        let heard = match incident.closes(cooldown) {
            None => Heard::Again,
            Some(until) if now < until => Heard::Flapped { until },
            Some(_) => {
                incident.reopen(alert, settle, now);
                Heard::Opened
            }
        };
        incident.resolved = None;
        incident.join(alert, now);
        heard
    }

    /// Forgets what is older than the retention (or the window, if longer), and what exceeds the bounds.
    pub fn forget(&mut self, window: Duration, now: Timestamp) {
        let since = before(now, RETENTION.max(window));
        self.restores.retain(|r| r.at > since);
        let over = self.restores.len().saturating_sub(MOST_RESTORES);
        self.restores.drain(..over);
        self.incidents.retain(|_, i| i.resolved.is_none_or(|at| at > since));
        for incident in self.incidents.values_mut() {
            incident.forget(since);
        }
        self.forget_notices(since);
    }
}

// === impl Incident ===

impl Incident {
    fn open(alert: &Alert, settle: Duration, now: Timestamp) -> Incident {
        let mut incident = Incident {
            alert: alert.name.clone(),
            opened: now,
            heard: now,
            first: Key::of(alert),
            members: BTreeMap::new(),
            resolved: None,
            phase: Phase::Settling { until: after(now, settle) },
            forgotten: None,
        };
        incident.join(alert, now);
        incident
    }

    fn reopen(&mut self, alert: &Alert, settle: Duration, now: Timestamp) {
        self.opened = now;
        self.first = Key::of(alert);
        self.phase = Phase::Settling { until: after(now, settle) };
    }

    fn join(&mut self, alert: &Alert, now: Timestamp) {
        self.heard = now;
        let known = self.members.contains_key(&alert.fingerprint);
        if !known && self.members.len() >= MOST_MEMBERS && !self.forget_one() {
            return; // all of them fire: one more changes nothing about the incident
        }
        self.members.insert(alert.fingerprint.clone(), Member { starts_at: alert.starts_at, firing: true });
    }

    fn is_replay(&self, alert: &Alert) -> bool {
        match self.members.get(&alert.fingerprint) {
            Some(known) => {
                alert.starts_at < known.starts_at || (alert.starts_at == known.starts_at && !known.firing)
            }
            None => self.forgotten.is_some_and(|at| alert.starts_at <= at),
        }
    }

    /// When it is or was closed: at once where nothing was done, else when the cooldown has passed. None while it fires.
    pub fn closes(&self, cooldown: Duration) -> Option<Timestamp> {
        let resolved = self.resolved?;
        match self.phase {
            Phase::Starting { .. } | Phase::Acted { .. } | Phase::Observed => Some(after(resolved, cooldown)),
            Phase::Settling { .. } | Phase::Waiting { .. } => Some(resolved),
        }
    }

    /// Since when the earliest of its firing alerts fires.
    pub fn since(&self) -> Timestamp {
        let firing = self.members.values().filter(|m| m.firing).map(|m| m.starts_at);
        firing.min().unwrap_or(self.first.starts_at)
    }

    /// Takes note of a resolved alert. Whether it was one that fired.
    pub fn resolve(&mut self, alert: &Alert, now: Timestamp) -> bool {
        let Some(member) = self.members.get_mut(&alert.fingerprint) else { return false };
        if !member.firing || alert.starts_at < member.starts_at {
            return false;
        }
        member.starts_at = alert.starts_at;
        member.firing = false;
        if self.members.values().all(|m| !m.firing) {
            self.resolved = Some(now);
        }
        true
    }

    /// Forgets the resolved alert that began first, and remembers that older ones are replays.
    fn forget_one(&mut self) -> bool {
        let quiet = self.members.iter().filter(|(_, m)| !m.firing).min_by_key(|(_, m)| m.starts_at);
        let Some((fingerprint, starts_at)) = quiet.map(|(f, m)| (f.clone(), m.starts_at)) else {
            return false;
        };
        self.members.remove(&fingerprint);
        self.forgotten = self.forgotten.max(Some(starts_at));
        true
    }

    fn forget(&mut self, since: Timestamp) {
        while self.members.values().any(|m| !m.firing && m.starts_at <= since) {
            self.forget_one();
        }
    }
}

// === impl Key ===

impl Key {
    /// Of an alert.
    pub fn of(alert: &Alert) -> Key {
        Key { fingerprint: alert.fingerprint.clone(), starts_at: alert.starts_at }
    }

    /// Id of the operation that answers it: the same from every replica and after every restart.
    pub fn op_id(&self) -> OpId {
        OpId::new(self.starts_at, &format!("{}@{}", self.fingerprint, self.starts_at))
    }
}

// === impl Phase ===

impl Phase {
    /// Whether it must be judged again without being heard of.
    pub const fn is_unfinished(&self) -> bool {
        matches!(self, Phase::Settling { .. } | Phase::Waiting { .. } | Phase::Starting { .. })
    }

    /// The operation that answers the incident.
    pub const fn op(&self) -> Option<&OpId> {
        match self {
            Phase::Starting { op, .. } | Phase::Acted { op } => Some(op),
            Phase::Settling { .. } | Phase::Waiting { .. } | Phase::Observed => None,
        }
    }
}

/// A time so long after another, at most the greatest there is.
pub fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// A time so long before another, at least the least there is.
pub fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}
