//! What the outbox counts, for the metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::topic::Topic;

/// Counters of the outbox since the process began, and what waits.
#[derive(Debug, Default)]
pub struct Meter {
    sent: AtomicU64,
    deferred: AtomicU64,
    rejected: AtomicU64,
    waiting: Mutex<BTreeMap<Topic, Timestamp>>,
}

/// A meter read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Messages that the server took.
    pub sent: u64,
    /// Attempts that will be made again.
    pub deferred: u64,
    /// Messages that will never be delivered (dead letters).
    pub rejected: u64,
    /// Operations, and services with alerts, about which something is yet to be told.
    pub waiting: usize,
    /// Since when the longest waiting of them waits.
    pub oldest: Option<Timestamp>,
}

// === impl Meter ===

impl Meter {
    /// Reads the meter.
    pub fn read(&self) -> Reading {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            sent: self.sent.load(Ordering::Relaxed),
            deferred: self.deferred.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            waiting: waiting.len(),
            oldest: waiting.values().min().copied(),
        }
    }

    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn deferred(&self) {
        self.deferred.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn waits(&self, topic: &Topic, since: Timestamp) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(topic.clone()).or_insert(since);
    }

    pub(super) fn settled(&self, topic: &Topic) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    pub(super) fn retain(&self, keep: impl Fn(&Topic) -> bool) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(|topic, _| keep(topic));
    }
}
