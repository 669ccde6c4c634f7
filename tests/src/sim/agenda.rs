//! What is going to happen, in the order of simulated time. Two entries of one moment keep their order.

use std::collections::BTreeMap;
use std::time::Duration;

/// Simulated time since the start of the simulation.
pub(super) type Moment = Duration;

/// Something that is due at a moment. Every entry checks, when it comes up, whether it still applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The scheduler looks at unplaced tasks.
    Schedule,
    /// A node begins to prepare a task.
    Prepare(String),
    /// The task's image and files are there.
    Prepared(String),
    /// The manager told the node to start a prepared task.
    Start(String),
    /// The task's container starts.
    Started(String),
    /// The next step of a container that runs a process.
    Step(String),
    /// A container ends by itself with this code.
    Exit(String, i64),
    /// A health check.
    Probe(String),
    /// A node begins to shut a task down.
    Stop(String),
    /// A task leaves the DNS.
    Withdraw(String),
    /// SIGTERM, or the stop signal.
    Term(String),
    /// A stopped container is gone.
    Stopped(String),
    /// A service's ports and addresses are allocated, which writes it once more.
    Allocated(String),
    /// Old tasks are removed from the store.
    Reap,
    /// A delayed start, a rollout's delay or the end of its monitor time may be over.
    Settle,
    /// The managers give up on a node that is silent since the given moment.
    NodeDown(String, Moment),
    /// Something that a test planned.
    Planned(u64),
}

/// The entries by moment.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: BTreeMap<(Moment, u64), Due>,
    count: u64,
}

// === impl Agenda ===

impl Agenda {
    /// Adds an entry.
    pub(super) fn add(&mut self, at: Moment, due: Due) {
        self.count += 1;
        self.entries.insert((at, self.count), due);
    }

    /// Adds an entry unless the same one is due at or before that moment.
    pub(super) fn add_once(&mut self, at: Moment, due: Due) {
        if !self.entries.range(..=(at, u64::MAX)).any(|(_, d)| *d == due) {
            self.add(at, due);
        }
    }

    /// When the next entry is due.
    pub(super) fn next(&self) -> Option<Moment> {
        self.entries.keys().next().map(|(at, _)| *at)
    }

    /// Takes the first entry that is due at `now`.
    pub(super) fn take(&mut self, now: Moment) -> Option<(Moment, Due)> {
        let entry = self.entries.first_entry().filter(|e| e.key().0 <= now)?;
        let ((at, _), due) = entry.remove_entry();
        Some((at, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order_of_time_and_then_of_their_making() {
        let mut agenda = Agenda::default();
        let at = Duration::from_secs;
        agenda.add(at(2), Due::Reap);
        agenda.add(at(1), Due::Schedule);
        agenda.add(at(1), Due::Settle);
        assert_eq!(agenda.next(), Some(at(1)));
        assert_eq!(agenda.take(at(1)), Some((at(1), Due::Schedule)));
        assert_eq!(agenda.take(at(1)), Some((at(1), Due::Settle)));
        assert_eq!(agenda.take(at(1)), None);
        assert_eq!(agenda.take(at(3)), Some((at(2), Due::Reap)));
    }

    #[test]
    fn an_entry_that_is_due_earlier_is_not_added_again() {
        let mut agenda = Agenda::default();
        agenda.add(Duration::from_secs(1), Due::Reap);
        agenda.add_once(Duration::from_secs(2), Due::Reap);
        assert_eq!(agenda.entries.len(), 1);
    }
}
