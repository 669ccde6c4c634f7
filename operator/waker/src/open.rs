//! What is open, so that the waker leaves only when nothing is, and nothing new has come for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

/// Counts requests, tunnels and connections that are passed through.
#[derive(Debug, Default)]
pub(crate) struct Open {
    now: AtomicUsize,
    ever: AtomicU64,
    is_leaving: AtomicBool,
    closed: Notify,
}

/// One of them, as long as this lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Open>);

// === impl Open ===

impl Open {
    /// Something begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.ever.fetch_add(1, Ordering::Relaxed);
        self.now.fetch_add(1, Ordering::SeqCst);
        Busy(self.clone())
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

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.now.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.is_leaving() {
            self.0.closed.notify_waiters();
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
