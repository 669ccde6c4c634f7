//! The decisions, each with a name for metrics and a sentence for people.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::operation::record::{Intent, OpId};

/// What was decided about an alert.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Store this operation; it begins at once.
    Start {
        /// Its id.
        op: OpId,
        /// What it does.
        intent: Box<Intent>,
    },
    /// Store this operation; it begins when a person approves it.
    AwaitApproval {
        /// Its id.
        op: OpId,
        /// What it does.
        intent: Box<Intent>,
        /// Why a person is asked.
        why: Ask,
    },
    /// Mode `observe`: only say what would be done.
    Observe {
        /// The sentence of the decision in mode `auto`.
        would: String,
    },
    /// It must fire a little longer.
    Settling {
        /// When it is judged again.
        until: Timestamp,
    },
    /// Its incident is known and answered.
    Duplicate {
        /// The operation that answers it, if one does.
        op: Option<OpId>,
    },
    /// Too soon after the last restore.
    Cooldown {
        /// When that is over.
        until: Timestamp,
        /// It belongs to an incident that was answered already: that is all that will be done about it.
        answered: Option<OpId>,
    },
    /// As many restores as the label allows: the circuit is open until a person resets it.
    LimitReached {
        /// Whether this decision opened it.
        opened: bool,
        /// The limit, for people.
        limit: String,
    },
    /// Another operation works on the service; judged again when it has ended.
    Busy {
        /// That operation.
        op: OpId,
        /// It has ended, and its effect on the alert is waited for.
        until: Option<Timestamp>,
    },
    /// It began while an operation of ours worked on the service, so that operation is its likely cause.
    OwnOperation {
        /// That operation.
        op: OpId,
        /// When it is judged again, once the operation has ended.
        until: Option<Timestamp>,
    },
    /// The service's labels do not ask for it, or the alert names no service.
    NotOptedIn {
        /// What is missing.
        why: String,
    },
    /// Asked for, but it must not be done now; judged again while the alert fires.
    Refused {
        /// Why.
        why: String,
    },
    /// It ended before the operation that it asked for has begun: cancel that.
    ResolvedCancels {
        /// The operation.
        op: OpId,
    },
    /// It ended.
    Resolved {
        /// What that means.
        note: String,
    },
    /// Nothing to do.
    Ignored {
        /// Why.
        why: String,
    },
}

/// Why a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "kebab-case")]
pub enum Ask {
    /// `skep.restore.mode=approve`.
    Mode,
    /// Too many services are sick at once: the cause is probably not this service's data.
    Storm {
        /// Sick services.
        sick: usize,
        /// Managed services.
        managed: usize,
    },
    /// It fires for so long already that the backup before it is old.
    Stale,
    /// It began during an operation of ours and still fires.
    OwnOperation,
    /// There is no check of the data, so nobody could tell a good backup from a bad one (S9).
    NoDataCheck,
}

// === impl Decision ===

impl Decision {
    /// Every name, for metrics.
    pub const NAMES: [&'static str; 15] = [
        "started",
        "approval",
        "storm",
        "observed",
        "settling",
        "duplicate",
        "cooldown",
        "limit",
        "busy",
        "own-operation",
        "not-opted-in",
        "refused",
        "cancelled",
        "resolved",
        "ignored",
    ];

    /// Name, as used in metrics and answers.
    pub const fn name(&self) -> &'static str {
        match self {
            Decision::Start { .. } => "started",
            Decision::AwaitApproval { why: Ask::Storm { .. }, .. } => "storm",
            Decision::AwaitApproval { .. } => "approval",
            Decision::Observe { .. } => "observed",
            Decision::Settling { .. } => "settling",
            Decision::Duplicate { .. } => "duplicate",
            Decision::Cooldown { .. } => "cooldown",
            Decision::LimitReached { .. } => "limit",
            Decision::Busy { .. } => "busy",
            Decision::OwnOperation { .. } => "own-operation",
            Decision::NotOptedIn { .. } => "not-opted-in",
            Decision::Refused { .. } => "refused",
            Decision::ResolvedCancels { .. } => "cancelled",
            Decision::Resolved { .. } => "resolved",
            Decision::Ignored { .. } => "ignored",
        }
    }

    /// An operation to store: at once, or after approval where there is a reason to ask.
    pub fn store(op: OpId, intent: Box<Intent>, why: Option<Ask>) -> Decision {
        match why {
            None => Decision::Start { op, intent },
            Some(why) => Decision::AwaitApproval { op, intent, why },
        }
    }

    /// The operation that it stores, with its intent.
    pub fn stores(&self) -> Option<(&OpId, &Intent)> {
        match self {
            Decision::Start { op, intent } | Decision::AwaitApproval { op, intent, .. } => Some((op, intent)),
            _ => None,
        }
    }

    /// The operation that it is about, if any.
    pub fn operation(&self) -> Option<&OpId> {
        match self {
            Decision::Start { op, .. }
            | Decision::AwaitApproval { op, .. }
            | Decision::Busy { op, .. }
            | Decision::OwnOperation { op, .. }
            | Decision::ResolvedCancels { op } => Some(op),
            Decision::Duplicate { op } | Decision::Cooldown { answered: op, .. } => op.as_ref(),
            Decision::Observe { .. }
            | Decision::Settling { .. }
            | Decision::LimitReached { .. }
            | Decision::NotOptedIn { .. }
            | Decision::Refused { .. }
            | Decision::Resolved { .. }
            | Decision::Ignored { .. } => None,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Start { op, .. } => write!(f, "restore {op} begins"),
            Decision::AwaitApproval { op, why, .. } => {
                write!(f, "restore {op} waits for a person, because {why}")
            }
            Decision::Observe { would } => write!(f, "mode `observe`: nothing is done; otherwise: {would}"),
            Decision::Settling { until } => write!(f, "judged at {}, if it still fires", short(*until)),
            Decision::Duplicate { op: Some(op) } => write!(f, "the same incident: operation {op} answers it"),
            Decision::Duplicate { op: None } => write!(f, "the same incident: it was answered already"),
            Decision::Cooldown { until, answered: Some(op) } => write!(
                f,
                "it fires again within the cooldown (until {}), which makes it the incident that operation {op} answered: \
                 a person should look, because another restore is not begun for it",
                short(*until)
            ),
            Decision::Cooldown { until, answered: None } => {
                write!(f, "too soon after the last restore: judged again at {}", short(*until))
            }
            Decision::LimitReached { limit, .. } => write!(
                f,
                "the limit of {limit} is reached: alerts restore this service no more until a person resets its circuit"
            ),
            Decision::Busy { op, until: None } => {
                write!(f, "operation {op} works on the service: judged again when it has ended")
            }
            Decision::Busy { op, until: Some(until) } => {
                write!(
                    f,
                    "operation {op} has just ended: judged again at {}, if it still fires",
                    short(*until)
                )
            }
            Decision::OwnOperation { op, until } => {
                write!(f, "it began during operation {op}, its likely cause: ")?;
                match until {
                    Some(until) => write!(f, "a person is asked if it still fires at {}", short(*until)),
                    None => write!(f, "judged again some time after that has ended"),
                }
            }
            Decision::NotOptedIn { why } | Decision::Refused { why } | Decision::Ignored { why } => {
                f.write_str(why)
            }
            Decision::ResolvedCancels { op } => {
                write!(f, "it ended before operation {op} had begun: that is cancelled")
            }
            Decision::Resolved { note } => f.write_str(note),
        }
    }
}

// === impl Ask ===

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Mode => f.write_str("the service's labels ask for approval"),
            Ask::Storm { sick, managed } => {
                write!(
                    f,
                    "{sick} of {managed} managed services are sick at once: the cause may lie elsewhere"
                )
            }
            Ask::Stale => f.write_str("the alert fires for so long that much would be lost"),
            Ask::OwnOperation => f.write_str("the alert began during another operation and still fires"),
            Ask::NoDataCheck => f.write_str("the service has no check that could tell good data from bad"),
        }
    }
}

fn short(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
