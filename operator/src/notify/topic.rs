//! What a mail is about.

use std::fmt;

use crate::operation::record::OpId;

/// What a mail is about. Each topic is told on its own, and retried on its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// An operation.
    Operation(OpId),
    /// Alerts about a service, by its full name.
    Alerts(String),
    /// The backups of a week.
    Weekly,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Topic::Operation(id) => write!(f, "operation `{id}`"),
            Topic::Alerts(service) => write!(f, "alerts of `{service}`"),
            Topic::Weekly => f.write_str("the backups of the week"),
        }
    }
}
