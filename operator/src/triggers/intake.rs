//! Carries decisions out: reads what is known, judges, stores the history, then the operation.
//!
//! Invariants: the history moves first, by compare-and-swap, and whoever loses judges anew, so that two alerts never
//! start two operations; then the operation is stored, under a name that derives from the alert, so that dying in
//! between neither loses it nor makes it twice; an alert counts as taken only when its decision is stored, else
//! its sender is asked to send it again.

use std::collections::BTreeSet;
use std::future::Future;

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use super::alertmanager::{Alert, Entry, Status};
use super::guard::{self, CANCELLED_BY, Decision, History, Judged, Notice, Situation};
use crate::operation::record::{Intent, OpId};

/// How often a lost compare-and-swap is tried anew.
const ATTEMPTS: usize = 8;

/// How many incidents of one service are brought forward in one recheck.
const STEPS: usize = 200;

/// What the intake needs of the Swarm.
pub trait Port: Send + Sync {
    /// Where a stored history stands, for compare-and-swap.
    type At: Send + Sync;

    /// What is known of a service and where its history is stored, if it is: read now, not from a snapshot that may
    /// not hold what [`Port::create`] and [`Port::store`] have just written.
    fn situation(
        &self,
        service: &str,
    ) -> impl Future<Output = Result<(Situation, Option<Self::At>), Unstored>> + Send;

    /// The services that have a history.
    fn guarded(&self) -> impl Future<Output = Result<Vec<String>, Unstored>> + Send;

    /// Stores an operation under this id; that it exists already is success.
    fn create(&self, op: &OpId, intent: &Intent) -> impl Future<Output = Result<(), Unstored>> + Send;

    /// Cancels an operation that has not begun. `true` also if it does not exist or was cancelled by the same already;
    /// `false` if it has begun.
    fn cancel(&self, op: &OpId, who: &str) -> impl Future<Output = Result<bool, Unstored>> + Send;

    /// Stores a history in place of the one read. `false` if that is no longer the one stored.
    fn store(
        &self,
        history: &History,
        over: Option<&Self::At>,
    ) -> impl Future<Output = Result<bool, Unstored>> + Send;
}

/// What was decided about one alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decided {
    /// `alertname`, empty where the alert was unreadable.
    pub alert: String,
    /// The service that it names.
    pub service: Option<String>,
    /// Its fingerprint, where known.
    pub fingerprint: Option<String>,
    /// Whether it fired.
    pub status: Option<Status>,
    /// Name of the decision, one of [`Decision::NAMES`].
    pub decision: &'static str,
    /// The decision for people.
    pub sentence: String,
    /// The operation that it is about.
    pub operation: Option<OpId>,
}

/// A decision could not be stored: nothing was lost, the sender must send again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unstored {
    /// Another replica leads.
    #[error("this replica does not lead")]
    NotLeader,
    /// The engine does not take it now.
    #[error("the Swarm does not take it now: {0}")]
    Swarm(String),
    /// Others wrote all the time.
    #[error("its guard history changed all the time")]
    Contended,
}

// === impl Decided ===

impl Decided {
    fn unreadable(why: &str) -> Decided {
        Decided {
            alert: String::new(),
            service: None,
            fingerprint: None,
            status: None,
            decision: Decision::Ignored { why: String::new() }.name(),
            sentence: format!("the alert cannot be read: {why}"),
            operation: None,
        }
    }

    fn of(judged: &Judged, service: Option<&str>, alert: Option<&Alert>) -> Decided {
        Decided {
            alert: judged.alert.clone(),
            service: service.map(ToOwned::to_owned),
            fingerprint: alert.map(|a| a.fingerprint.clone()),
            status: alert.map(|a| a.status),
            decision: judged.decision.name(),
            sentence: judged.decision.to_string(),
            operation: judged.decision.operation().cloned(),
        }
    }
}

/// Judges the alerts of one post, one by one, and stores what was decided.
///
/// # Errors
/// When a decision could not be stored. What was decided before stays: sending all of them again is harmless.
pub async fn take<P: Port>(port: &P, entries: &[Entry], now: Timestamp) -> Result<Vec<Decided>, Unstored> {
    let sick: BTreeSet<&str> = entries.iter().filter_map(names_when_firing).collect();
    let mut decided = Vec::with_capacity(entries.len());
    for entry in entries {
        decided.push(match entry {
            Entry::Unreadable(why) => Decided::unreadable(why),
            Entry::Alert(alert) => take_one(port, alert, &sick, now).await?,
        });
    }
    Ok(decided)
}

/// Judges waiting incidents of all services again.
///
/// # Errors
/// When a decision could not be stored; the next call finds it again.
pub async fn recheck<P: Port>(port: &P, now: Timestamp) -> Result<Vec<Decided>, Unstored> {
    let mut decided = Vec::new();
    for service in port.guarded().await? {
        for attempt in 0.. {
            if attempt > STEPS {
                return Err(Unstored::Contended);
            }
            let (situation, at) = port.situation(&service).await?;
            let Some(judged) = guard::due(&situation, now) else { break };
            let done = carry_out(port, &judged, at.as_ref()).await?;
            if done && !matches!(judged.decision, Decision::Duplicate { .. }) {
                decided.push(Decided::of(&judged, Some(&service), None));
            }
        }
    }
    Ok(decided)
}

/// Closes the circuit of a service on a person's word. Whether it was open.
///
/// # Errors
/// When it could not be stored.
pub async fn reset_circuit<P: Port>(port: &P, service: &str, now: Timestamp) -> Result<bool, Unstored> {
    for _ in 0..ATTEMPTS {
        let (situation, at) = port.situation(service).await?;
        let mut history = situation.history.map_err(|e| Unstored::Swarm(e.to_string()))?;
        if history.circuit.is_none() {
            return Ok(false);
        }
        history.reset_circuit(now);
        if port.store(&history, at.as_ref()).await? {
            return Ok(true);
        }
    }
    Err(Unstored::Contended)
}

/// Notes that people were told a notice.
///
/// # Errors
/// When it could not be stored: it will be told again.
pub async fn told<P: Port>(port: &P, service: &str, notice: &Notice, now: Timestamp) -> Result<(), Unstored> {
    for _ in 0..ATTEMPTS {
        let (situation, at) = port.situation(service).await?;
        let mut history = situation.history.map_err(|e| Unstored::Swarm(e.to_string()))?;
        if !history.told(notice, now) || port.store(&history, at.as_ref()).await? {
            return Ok(());
        }
    }
    Err(Unstored::Contended)
}

async fn take_one<P: Port>(
    port: &P,
    alert: &Alert,
    sick: &BTreeSet<&str>,
    now: Timestamp,
) -> Result<Decided, Unstored> {
    let service = alert.service().unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let (mut situation, at) = port.situation(service).await?;
        let others = sick.iter().filter(|s| **s != service).count();
        situation.sick_elsewhere = situation.sick_elsewhere.max(others);
        let judged = guard::judge(alert, &situation, now);
        if carry_out(port, &judged, at.as_ref()).await? {
            return Ok(Decided::of(&judged, alert.service(), Some(alert)));
        }
    }
    Err(Unstored::Contended)
}

/// Whether it took effect; if not, the situation has changed and must be judged anew.
async fn carry_out<P: Port>(port: &P, judged: &Judged, at: Option<&P::At>) -> Result<bool, Unstored> {
    if let Decision::ResolvedCancels { op } = &judged.decision
        && !port.cancel(op, CANCELLED_BY).await?
    {
        return Ok(false);
    }
    if let Some(history) = &judged.history
        && !port.store(history, at).await?
    {
        return Ok(false);
    }
    if let Some((op, intent)) = judged.decision.stores() {
        port.create(op, intent).await?;
    }
    Ok(true)
}

fn names_when_firing(entry: &Entry) -> Option<&str> {
    match entry {
        Entry::Alert(alert) if alert.status == Status::Firing => alert.service(),
        Entry::Alert(_) | Entry::Unreadable(_) => None,
    }
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
