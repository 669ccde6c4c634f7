//! A small controller runtime. Knows no Swarm.
//!
//! ```text
//! Source ── subscribe, list, refresh ──▶ Watcher ──▶ Snapshots (a watch channel of whole snapshots)
//!                                                        │ somebody adds keys
//!                                                        ▼
//!                          Queue ──▶ Controller ──▶ Reconcile::reconcile(key) ──▶ Action | Fault ──▶ Queue
//! ```
//!
//! Invariants: events are hints that make somebody look, never facts; only complete snapshots are published; never
//! do two runs of one key overlap; whatever fails is tried again with backoff and jitter, and forgotten on success.

pub mod backoff;
pub mod clock;
pub mod controller;
pub mod queue;
pub(crate) mod scrub;
pub mod source;

use std::error::Error;

pub use backoff::Backoff;
pub use controller::{Action, Controller, Reconcile};
pub use queue::Queue;
pub use source::{Snapshots, Source, Watcher};

/// What the runtime must know about an error.
pub trait Fault: Error + Send + Sync + 'static {
    /// What to do next.
    fn disposition(&self) -> Disposition;
    /// Name of the class, from a closed set: for metrics.
    fn category(&self) -> &'static str;
}

/// What to do about a key whose run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Try again, later and later.
    Retry,
    /// Somebody else was faster: read anew and try again at once, a few times.
    Conflict,
    /// Trying again changes nothing: wait until somebody adds the key again.
    Stop,
}

/// An error and its causes in one line: Display is one layer only.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
