//! What is open, so that the waker leaves only when nothing is, and nothing new has come for a while; and what of it is use, so
//! that a door can tell that nobody needs the application.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// Counts requests, tunnels and connections that are passed through.
#[derive(Debug)]
pub(crate) struct Open {
    now: AtomicUsize,
    ever: AtomicU64,
    /// Those of them that are use.
    in_use: AtomicUsize,
    /// When the last use began or ended; at first when this was made: what was used before that nobody knows.
    last_used: Mutex<Instant>,
    is_leaving: AtomicBool,
    closed: Notify,
}

/// One of them, as long as this lives.
#[derive(Debug)]
pub(crate) struct Busy {
    open: Arc<Open>,
    is_use: bool,
}

impl Default for Open {
    fn default() -> Open {
        Open {
            now: AtomicUsize::new(0),
            ever: AtomicU64::new(0),
            in_use: AtomicUsize::new(0),
            last_used: Mutex::new(Instant::now()),
            is_leaving: AtomicBool::new(false),
            closed: Notify::new(),
        }
    }
}

// === impl Open ===

impl Open {
    /// Something begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.ever.fetch_add(1, Ordering::Relaxed);
        self.now.fetch_add(1, Ordering::SeqCst);
        Busy { open: self.clone(), is_use: false }
    }

    /// For how long nothing was use; none while something is.
    pub(crate) fn unused_for(&self) -> Option<Duration> {
        // In this order: what has begun and ended between the two was the last use.
        let is_used = self.in_use.load(Ordering::SeqCst) > 0;
        let last = *self.last_used.lock().unwrap_or_else(PoisonError::into_inner);
        (!is_used).then(|| last.elapsed())
    }

    /// Whether anything has ever come, use or not.
    pub(crate) fn has_anything_come(&self) -> bool {
        self.ever.load(Ordering::SeqCst) > 0
    }

    fn touch(&self) {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether the waker has been told to leave.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// The waker has been told to leave.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Ordering::SeqCst);
    }

    /// Whether nothing is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.now.load(Ordering::SeqCst) == 0
    }

    /// Waits until nothing is open and nothing has come for so long; after [`Open::leave`].
    pub(crate) async fn quiet(&self, quiet: Duration) {
        loop {
            let closed = self.closed.notified();
            if !self.is_idle() {
                closed.await;
                continue;
            }
            let before = self.ever.load(Ordering::SeqCst);
            sleep(quiet).await;
            if self.is_idle() && self.ever.load(Ordering::SeqCst) == before {
                return;
            }
        }
    }
}

// === impl Busy ===

impl Busy {
    /// It is use: somebody wants the application.
    pub(crate) fn is_use(&mut self) {
        if !self.is_use {
            self.is_use = true;
            self.open.in_use.fetch_add(1, Ordering::SeqCst);
            self.open.touch();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let open = &self.open;
        if self.is_use {
            open.touch();
            open.in_use.fetch_sub(1, Ordering::SeqCst);
        }
        if open.now.fetch_sub(1, Ordering::SeqCst) == 1 && open.is_leaving() {
            open.closed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::{Instant, advance};

    use super::*;

    const QUIET: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn it_is_quiet_when_nothing_has_come_for_a_while() {
        let open = Arc::new(Open::default());
        open.leave();
        let began = Instant::now();
        open.quiet(QUIET).await;
        assert_eq!(began.elapsed(), QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_use_counts_as_such_and_for_as_long_as_it_is_open() {
        let open = Arc::new(Open::default());
        assert!(!open.has_anything_come());
        advance(QUIET).await;
        assert_eq!(open.unused_for(), Some(QUIET), "since it began");
        let ignored = open.begin();
        assert!(open.has_anything_come());
        assert_eq!(open.unused_for(), Some(QUIET));
        let mut used = open.begin();
        used.is_use();
        used.is_use();
        advance(QUIET).await;
        assert_eq!(open.unused_for(), None, "a long one is use all the while");
        drop(used);
        assert_eq!(open.unused_for(), Some(Duration::ZERO));
        advance(QUIET).await;
        drop(ignored);
        assert_eq!(open.unused_for(), Some(QUIET));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_open_is_waited_for_and_what_comes_begins_the_while_again() {
        let open = Arc::new(Open::default());
        open.leave();
        let busy = open.begin();
        let quiet = open.quiet(QUIET);
        tokio::pin!(quiet);
        assert!(quiet.as_mut().now_or_never().is_none());
        advance(Duration::from_secs(3_600)).await;
        assert!(quiet.as_mut().now_or_never().is_none());
        drop(busy);
        assert!(quiet.as_mut().now_or_never().is_none());
        advance(Duration::from_secs(2)).await;
        drop(open.begin());
        advance(Duration::from_secs(2)).await;
        assert!(quiet.as_mut().now_or_never().is_none(), "something came 2 s ago");
        advance(QUIET).await;
        assert!(quiet.now_or_never().is_some());
    }
}
