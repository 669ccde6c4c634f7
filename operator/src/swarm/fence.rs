//! The fence of S19: no effect starts once half of the lease has passed since the last good renewal was *sent*.
//!
//! Invariants: the time is that of the boot clock, which counts on while the process or the machine is
//! suspended; the time of sending counts, not that of the answer, because observers judge from the write on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::runtime::clock;

/// How long the lease lasts for those who watch it.
pub const TERM: Duration = Duration::from_secs(30);

/// A clock that counts suspended time too, as a time since some fixed moment.
pub type BootClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Says whether this process may write. Clones share one state.
#[derive(Clone)]
pub struct Fence(Gate);

#[derive(Clone)]
enum Gate {
    /// Never closed: commands that hold no lease, and tests.
    Open,
    /// Open for `hold` after the renewal that was sent at so many nanoseconds, closed where that is 0.
    Leased { sent: Arc<AtomicU64>, clock: BootClock, hold: Duration },
}

// === impl Fence ===

impl Fence {
    /// A fence that is always open, for work that needs no lease.
    pub fn open() -> Fence {
        Fence(Gate::Open)
    }

    /// A closed fence that a lease opens.
    pub fn leased() -> Fence {
        Fence::of_term(TERM)
    }

    /// Like [`Fence::leased`], for a lease that lasts `term`: its holder may start effects during the first half.
    pub fn of_term(term: Duration) -> Fence {
        Fence::new(Arc::new(clock::boot_time), term)
    }

    /// Like [`Fence::leased`], on another clock.
    pub fn with_clock(clock: BootClock) -> Fence {
        Fence::new(clock, TERM)
    }

    fn new(clock: BootClock, term: Duration) -> Fence {
        Fence(Gate::Leased { sent: Arc::new(AtomicU64::new(0)), clock, hold: term / 2 })
    }

    /// Whether an effect may start now.
    pub fn is_open(&self) -> bool {
        match &self.0 {
            Gate::Open => true,
            Gate::Leased { sent, clock, hold } => {
                let sent = sent.load(Ordering::Acquire);
                sent != 0 && clock().saturating_sub(Duration::from_nanos(sent)) < *hold
            }
        }
    }

    /// Opens the fence: a renewal sent at `sent` was good. An older one never shortens a newer.
    pub(super) fn renewed(&self, sent: Duration) {
        if let Gate::Leased { sent: last, .. } = &self.0 {
            let nanos = u64::try_from(sent.as_nanos()).unwrap_or(u64::MAX).max(1);
            last.fetch_max(nanos, Ordering::AcqRel);
        }
    }

    /// Closes the fence until the next good renewal.
    pub(super) fn close(&self) {
        if let Gate::Leased { sent, .. } = &self.0 {
            sent.store(0, Ordering::Release);
        }
    }

    /// The time by the fence's clock.
    pub(super) fn now(&self) -> Duration {
        match &self.0 {
            Gate::Open => clock::boot_time(),
            Gate::Leased { clock, .. } => clock(),
        }
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_open() { "Fence(open)" } else { "Fence(closed)" })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn fence_on_a_hand_clock() -> (Fence, Arc<Mutex<Duration>>) {
        let time = Arc::new(Mutex::new(Duration::from_secs(1000)));
        let hand = time.clone();
        (Fence::with_clock(Arc::new(move || *hand.lock().unwrap())), time)
    }

    #[test]
    fn a_leased_fence_is_closed_until_the_first_renewal() {
        let (fence, time) = fence_on_a_hand_clock();
        assert!(!fence.is_open());
        fence.renewed(*time.lock().unwrap());
        assert!(fence.is_open());
    }

    #[test]
    fn it_closes_when_half_of_the_lease_has_passed_since_the_renewal_was_sent() {
        let (fence, time) = fence_on_a_hand_clock();
        let sent = *time.lock().unwrap();
        *time.lock().unwrap() = sent + Duration::from_secs(14);
        fence.renewed(sent);
        assert!(fence.is_open());
        *time.lock().unwrap() = sent + Duration::from_secs(15);
        assert!(!fence.is_open());
    }

    #[test]
    fn half_of_a_shorter_lease_is_shorter_too() {
        let time = Arc::new(Mutex::new(Duration::from_secs(1000)));
        let hand = time.clone();
        let fence = Fence::new(Arc::new(move || *hand.lock().unwrap()), Duration::from_secs(4));
        fence.renewed(Duration::from_secs(1000));
        *time.lock().unwrap() = Duration::from_millis(1_001_999);
        assert!(fence.is_open());
        *time.lock().unwrap() = Duration::from_secs(1002);
        assert!(!fence.is_open());
    }

    #[test]
    fn a_late_answer_to_an_old_renewal_does_not_shorten_a_newer_one() {
        let (fence, time) = fence_on_a_hand_clock();
        let sent = *time.lock().unwrap();
        fence.renewed(sent + Duration::from_secs(5));
        fence.renewed(sent);
        *time.lock().unwrap() = sent + Duration::from_secs(16);
        assert!(fence.is_open());
    }

    #[test]
    fn closing_one_clone_closes_all() {
        let (fence, time) = fence_on_a_hand_clock();
        let other = fence.clone();
        fence.renewed(*time.lock().unwrap());
        other.close();
        assert!(!fence.is_open());
    }
}
