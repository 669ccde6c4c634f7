//! One alert, or one incident that waited → a decision and the new history.

use std::time::Duration;

use jiff::Timestamp;

use super::decision::Decision;
use super::history::{Circuit, Heard, History, Phase, RETENTION, after, before};
use super::notice::Notice;
use super::rules::{act, has_changed_something, obstacle};
use super::situation::Situation;
use crate::operation::record::{OpId, State};
use crate::policy::RestoreMode;
use crate::triggers::alertmanager::{Alert, SERVICE_LABEL, Status};

/// An alert may begin this long after now: clocks differ.
const SKEW: Duration = Duration::from_mins(5);

/// Who cancels an operation whose alert ended before it began.
pub const CANCELLED_BY: &str = "the end of its alert";

/// A decision, and the history as it is to be stored once the decision has taken effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// `alertname`.
    pub alert: String,
    /// The decision.
    pub decision: Decision,
    /// The new history, where it differs.
    pub history: Option<History>,
    /// Whether this was not decided before.
    pub news: bool,
}

// === impl Judged ===

impl Judged {
    fn only(alert: &str, decision: Decision) -> Judged {
        Judged { alert: alert.to_owned(), decision, history: None, news: true }
    }

    fn new(alert: &str, decision: Decision, mut history: History, s: &Situation, now: Timestamp) -> Judged {
        let standing = |h: &History| h.incidents.get(alert).map(|i| (i.phase.clone(), i.resolved.is_some()));
        let news = s.history.as_ref().is_ok_and(|old| standing(old) != standing(&history));
        if let Some(notice) = notice(alert, &decision, &history, now) {
            history.notice(notice);
        }
        for op in s.operations.iter().filter(|o| has_changed_something(o)) {
            op.journal.ended.into_iter().for_each(|ended| history.note_end(&op.id, ended));
        }
        let window = s.restore().map(|r| r.limit.window).unwrap_or_default();
        history.forget(window, now);
        let history = (s.history.as_ref() != Ok(&history)).then_some(history);
        Judged { alert: alert.to_owned(), decision, history, news }
    }
}

/// Judges one alert.
pub fn judge(alert: &Alert, s: &Situation, now: Timestamp) -> Judged {
    if alert.service().is_none() {
        let why = format!("the alert carries no label `{SERVICE_LABEL}`");
        return Judged::only(&alert.name, Decision::NotOptedIn { why });
    }
    let history = match &s.history {
        Ok(history) => history.clone(),
        Err(e) => {
            let why = format!("{e}: no alert acts on this service until a person has looked");
            return Judged::only(&alert.name, Decision::Refused { why });
        }
    };
    match alert.status {
        Status::Firing => firing(alert, s, history, now),
        Status::Resolved => resolved(alert, s, history, now),
    }
}

/// Judges the incidents again that settle or wait, and finishes what was begun; the first of them where there is
/// something to do. Call it again after the decision has taken effect, until there is none.
pub fn due(s: &Situation, now: Timestamp) -> Option<Judged> {
    let history = s.history.as_ref().ok()?;
    history.open().filter(|i| i.phase.is_unfinished()).find_map(|incident| {
        let mut history = history.clone();
        let decision = weigh(&mut history, &incident.alert, s, now);
        let judged = Judged::new(&incident.alert, decision, history, s, now);
        (judged.news || judged.decision.stores().is_some()).then_some(judged)
    })
}

fn firing(alert: &Alert, s: &Situation, mut history: History, now: Timestamp) -> Judged {
    let restore = match s.opted_in(&alert.name) {
        Ok((_, restore)) => restore,
        Err(why) => return Judged::only(&alert.name, Decision::NotOptedIn { why }),
    };
    if let Some(why) = implausible(alert, now) {
        return Judged::only(&alert.name, Decision::Ignored { why });
    }
    let answered = |history: &History| history.incidents[&alert.name].phase.op().cloned();
    let decision = match history.hear(alert, s.settings.settle, restore.cooldown, now) {
        Heard::Replay => Decision::Duplicate { op: answered(&history) },
        Heard::Flapped { until } => Decision::Cooldown { until, answered: answered(&history) },
        Heard::Opened | Heard::Again => weigh(&mut history, &alert.name, s, now),
    };
    Judged::new(&alert.name, decision, history, s, now)
}

fn resolved(alert: &Alert, s: &Situation, mut history: History, now: Timestamp) -> Judged {
    let Some(incident) = history.incidents.get_mut(&alert.name).filter(|i| i.resolved.is_none()) else {
        let why = "nothing was open for it".to_owned();
        return Judged::only(&alert.name, Decision::Ignored { why });
    };
    if !incident.resolve(alert, now) {
        let why = "it is not among the alerts that fire".to_owned();
        return Judged::only(&alert.name, Decision::Ignored { why });
    }
    let firing = incident.members.values().filter(|m| m.firing).count();
    let decision = match incident.phase.clone() {
        _ if firing > 0 => Decision::Resolved { note: format!("{firing} more of the incident still fire") },
        Phase::Starting { op, .. } if has_not_begun(s, &op).unwrap_or(true) => {
            cancels(&mut history, alert, op)
        }
        Phase::Acted { op } if has_not_begun(s, &op).unwrap_or(false) => cancels(&mut history, alert, op),
        Phase::Starting { op, .. } | Phase::Acted { op } => Decision::Resolved {
            note: format!("operation {op} goes on; the incident closes after the cooldown"),
        },
        Phase::Observed => Decision::Resolved { note: "the incident closes after the cooldown".to_owned() },
        Phase::Settling { .. } | Phase::Waiting { .. } => {
            Decision::Resolved { note: "the incident is closed: nothing had been begun".to_owned() }
        }
    };
    Judged::new(&alert.name, decision, history, s, now)
}

/// The operation of an ended alert never begins: nothing was done about the incident after all.
fn cancels(history: &mut History, alert: &Alert, op: OpId) -> Decision {
    if let Some(incident) = history.incidents.get_mut(&alert.name) {
        incident.phase = Phase::Waiting { on: "cancelled".to_owned() };
    }
    history.restores.iter_mut().filter(|r| r.op == op).for_each(|r| r.dropped = true);
    Decision::ResolvedCancels { op }
}

/// Whether an operation can still be cancelled without a trace; none where it is not known.
fn has_not_begun(s: &Situation, op: &OpId) -> Option<bool> {
    let known = s.operations.iter().find(|o| o.id == *op)?;
    let waits = match known.journal.state {
        State::Pending | State::AwaitingApproval => true,
        State::Cancelled => known.journal.cancel.as_deref() == Some(CANCELLED_BY), // an earlier attempt of this decision
        State::Running | State::Succeeded | State::RolledBack | State::Failed | State::Stuck => false,
    };
    Some(waits && known.journal.steps.is_empty())
}

/// What people are to be told about a decision: that of an incident, so that its repeats are known.
fn notice(alert: &str, decision: &Decision, history: &History, now: Timestamp) -> Option<Notice> {
    let incident = history.incidents.get(alert)?;
    Notice::of(decision, alert, incident.opened, now)
}

fn implausible(alert: &Alert, now: Timestamp) -> Option<String> {
    if alert.starts_at > after(now, SKEW) {
        return Some(
            "it begins in the future: the clocks of Prometheus and of this machine differ".to_owned(),
        );
    }
    (alert.starts_at < before(now, RETENTION))
        .then(|| "it began so long ago that it may have been answered and forgotten".to_owned())
}

/// An operation that was about to be stored: stored again under its name, unless it was so long ago that it may be over.
fn finish(history: &mut History, alert: &str, s: &Situation, now: Timestamp) -> Option<Decision> {
    let incident = history.incidents.get_mut(alert)?;
    let Phase::Starting { op, intent, why } = incident.phase.clone() else { return None };
    let stored = s.operations.iter().any(|o| o.id == op);
    if stored || now > after(intent.created, s.settings.stale) {
        incident.phase = Phase::Acted { op: op.clone() };
        return Some(Decision::Duplicate { op: Some(op) });
    }
    if let Err(why) = s.opted_in(alert) {
        history.incidents.remove(alert);
        return Some(Decision::NotOptedIn { why });
    }
    Some(Decision::store(op, intent, why))
}

/// Decides about an open incident, and notes the decision in the history.
fn weigh(history: &mut History, alert: &str, s: &Situation, now: Timestamp) -> Decision {
    if let Some(decision) = finish(history, alert, s, now) {
        return decision;
    }
    let incident = history.incidents[alert].clone();
    if !incident.phase.is_unfinished() {
        return Decision::Duplicate { op: incident.phase.op().cloned() };
    }
    let decision = match s.opted_in(alert) {
        Err(why) => {
            history.incidents.remove(alert);
            return Decision::NotOptedIn { why };
        }
        Ok((target, restore)) => obstacle(history, &incident, target, restore, s, now)
            .unwrap_or_else(|| act(&incident, target, restore, s, now)),
    };
    note(history, alert, decision, s, now)
}

/// Notes a decision about an undecided incident in the history.
fn note(history: &mut History, alert: &str, decision: Decision, s: &Situation, now: Timestamp) -> Decision {
    let observed = s.restore().is_some_and(|r| r.mode == RestoreMode::Observe);
    let decision = match decision {
        Decision::Start { op, .. } | Decision::AwaitApproval { op, .. } if observed => {
            history.note_restore(&op, true, now);
            Decision::Observe { would: format!("a restore (it would be operation {op})") }
        }
        Decision::LimitReached { limit, .. } if observed => {
            Decision::Observe { would: format!("nothing, because the limit of {limit} is reached") }
        }
        decision => decision,
    };
    if let Decision::Start { op, .. }
    | Decision::AwaitApproval { op, .. }
    | Decision::Duplicate { op: Some(op) } = &decision
    {
        history.note_restore(op, false, now);
    }
    let phase = match &decision {
        Decision::Start { op, intent } => {
            Phase::Starting { op: op.clone(), intent: intent.clone(), why: None }
        }
        Decision::AwaitApproval { op, intent, why } => {
            Phase::Starting { op: op.clone(), intent: intent.clone(), why: Some(*why) }
        }
        Decision::Duplicate { op: Some(op) } => Phase::Acted { op: op.clone() },
        Decision::Duplicate { op: None } | Decision::Observe { .. } => Phase::Observed,
        Decision::Settling { until } => Phase::Settling { until: *until },
        decision => Phase::Waiting { on: decision.name().to_owned() },
    };
    if let Decision::LimitReached { opened: true, limit } = &decision {
        history.circuit = Some(Circuit {
            opened: now,
            why: format!("the limit of {limit} was reached by alert `{alert}`"),
        });
    }
    if let Some(incident) = history.incidents.get_mut(alert) {
        incident.phase = phase;
    }
    decision
}
