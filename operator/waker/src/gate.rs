//! What is known of the application, and who waits for it.
//!
//! Two values that everything else watches: the view, written by what looks and by what connects, and the interest,
//! written by those who wait. Requests to an application that is there touch neither.
//!
//! A door holds whoever comes also while the application is still there: from the moment at which it asks for its sleep.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::{Instant, timeout};
use tracing::info;

/// How long the name service is waited for before somebody is answered or the operator is asked.
const LOOK: Duration = Duration::from_millis(100);
/// How long a listed application may take to answer before the operator is asked.
const TRY: Duration = Duration::from_millis(500);

/// What is known of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    /// Addresses of its tasks; unknown until somebody has looked.
    hosts: Option<Arc<[IpAddr]>>,
    /// Whether it took the last connection.
    is_there: bool,
    /// When it was last said that nobody is let through to it, since it is about to sleep.
    held: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Interest {
    waiting: usize,
    until: Option<Instant>,
}

/// The shared state.
#[derive(Debug)]
pub(crate) struct Gate {
    view: watch::Sender<View>,
    interest: watch::Sender<Interest>,
    page_counts: Duration,
    turn: Mutex<()>,
}

/// Somebody waits, as long as this lives.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Gate);

// === impl Gate ===

impl Gate {
    pub(crate) fn new(page_counts: Duration) -> Gate {
        Gate {
            view: watch::Sender::default(),
            interest: watch::Sender::default(),
            page_counts,
            turn: Mutex::new(()),
        }
    }

    /// The turn to ask the operator, and to act on its answer: what it says of one question is known before the next one.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Addresses of the application; empty if there are none, nobody has looked, or nobody is let through.
    pub(crate) fn hosts(&self) -> Arc<[IpAddr]> {
        self.view.borrow().open().cloned().unwrap_or_default()
    }

    /// Lets nobody through from now on, whoever is there. What reads [`Gate::hosts`] after this waits.
    pub(crate) fn hold(&self) {
        self.view.send_modify(|view| view.held = Some(Instant::now()));
    }

    /// Lets everybody through again.
    pub(crate) fn lift(&self) {
        self.view.send_if_modified(|view| view.held.take().is_some());
    }

    /// How long ago it was last said that nobody is let through; none where that is not so.
    pub(crate) fn held_for(&self) -> Option<Duration> {
        self.view.borrow().held.map(|since| since.elapsed())
    }

    /// Whether the application is listed and took the last connection.
    pub(crate) fn is_up(&self) -> bool {
        self.view.borrow().is_up()
    }

    /// Waits until the application is listed.
    pub(crate) async fn listed(&self) -> Arc<[IpAddr]> {
        self.until(|view| view.open().is_some_and(|h| !h.is_empty())).await;
        self.hosts()
    }

    /// Waits until somebody has looked, but not long: it takes a moment, unless the name service is silent.
    pub(crate) async fn looked(&self) {
        let looked = self.until(|view| view.hosts.is_some());
        drop(timeout(LOOK, looked).await);
    }

    /// Waits until somebody has looked and, if the application is listed, tried to connect; not long either.
    pub(crate) async fn tried(&self) {
        self.looked().await;
        if !self.hosts().is_empty() {
            drop(timeout(TRY, self.up()).await);
        }
    }

    /// Waits until the application is listed and took a connection.
    pub(crate) async fn up(&self) {
        self.until(View::is_up).await;
    }

    /// Waits until it is not, or no more.
    pub(crate) async fn lost(&self) {
        self.until(|view| !view.is_up()).await;
    }

    async fn until(&self, is_so: impl FnMut(&View) -> bool) {
        // It fails only when the sender is gone, which is borrowed here.
        drop(self.view.subscribe().wait_for(is_so).await);
    }

    /// These are the addresses now.
    pub(crate) fn list(&self, hosts: &[IpAddr]) {
        self.view.send_if_modified(|view| {
            let before = view.hosts.as_deref();
            if before == Some(hosts) {
                return false;
            }
            if before.unwrap_or_default() != hosts {
                info!(tasks = hosts.len(), "tasks of the application are listed");
            }
            view.hosts = Some(hosts.into());
            view.is_there &= !hosts.is_empty();
            if hosts.is_empty() {
                // It sleeps: whoever comes now finds nobody there, and wakes it.
                view.held = None;
            }
            true
        });
    }

    /// Somebody has looked, and could not see.
    pub(crate) fn list_nothing_new(&self) {
        self.view.send_if_modified(|view| {
            let is_first = view.hosts.is_none();
            view.hosts.get_or_insert_default();
            is_first
        });
    }

    /// Nobody looks any more.
    pub(crate) fn forget(&self) {
        self.view.send_if_modified(|view| {
            let nothing = View { held: view.held, ..View::default() };
            std::mem::replace(view, nothing.clone()) != nothing
        });
    }

    /// The application answered, or did not take a connection on any address.
    pub(crate) fn reached(&self, is_there: bool) {
        if self.view.borrow().is_there == is_there {
            return;
        }
        self.view.send_if_modified(|view| {
            let is_new = view.is_there != is_there;
            view.is_there = is_there;
            is_new
        });
        match is_there {
            true => info!("the application is there"),
            false => info!("the application cannot be reached"),
        }
    }

    /// Somebody begins to wait.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.interest.send_modify(|i| i.waiting += 1);
        Waiting(self)
    }

    /// Somebody was answered by a page.
    pub(crate) fn paged(&self) {
        self.interest.send_modify(|i| i.until = Some(Instant::now() + self.page_counts));
    }

    /// Whether anybody waits, or was answered by a page not long ago.
    pub(crate) fn is_wanted(&self) -> bool {
        self.interest.borrow().is_alive()
    }

    /// Waits until somebody does.
    pub(crate) async fn wanted(&self) {
        drop(self.interest.subscribe().wait_for(Interest::is_alive).await);
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.interest.borrow().waiting
    }
}

// === impl View ===

impl View {
    /// The addresses to which somebody may be let through.
    fn open(&self) -> Option<&Arc<[IpAddr]>> {
        self.hosts.as_ref().filter(|_| self.held.is_none())
    }

    fn is_up(&self) -> bool {
        self.is_there && self.open().is_some_and(|h| !h.is_empty())
    }
}

// === impl Interest ===

impl Interest {
    fn is_alive(&self) -> bool {
        self.waiting > 0 || self.until.is_some_and(|until| until > Instant::now())
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.interest.send_modify(|i| i.waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[tokio::test(start_paused = true)]
    async fn interest_ends_with_those_who_wait_and_a_while_after_the_last_page() {
        let gate = Gate::new(Duration::from_secs(60));
        assert!(!gate.is_wanted());
        let waiting = (gate.wait(), gate.wait());
        assert_eq!(gate.waiting(), 2);
        drop(waiting);
        assert!(!gate.is_wanted());
        gate.paged();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(gate.is_wanted());
        assert!(gate.wanted().now_or_never().is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!gate.is_wanted());
        assert!(gate.wanted().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_let_through_until_that_is_lifted_or_it_has_gone() {
        let gate = Gate::new(Duration::ZERO);
        gate.list(&[HOST]);
        gate.reached(true);
        gate.hold();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(gate.held_for(), Some(Duration::from_secs(7)));
        gate.hold();
        assert_eq!(gate.held_for(), Some(Duration::ZERO), "said again");
        assert!(!gate.is_up() && gate.hosts().is_empty() && gate.listed().now_or_never().is_none());
        gate.forget();
        gate.list(&[HOST]);
        assert!(gate.hosts().is_empty(), "that nobody has looked does not end it");
        gate.lift();
        assert_eq!(*gate.listed().await, [HOST]);
        gate.hold();
        gate.list(&[]);
        gate.list(&[HOST]);
        assert_eq!(*gate.hosts(), [HOST], "it has slept");
    }

    #[tokio::test]
    async fn it_is_up_when_it_is_listed_and_took_a_connection() {
        let gate = Gate::new(Duration::ZERO);
        gate.list(&[HOST]);
        assert_eq!(*gate.listed().await, [HOST]);
        assert!(!gate.is_up());
        gate.reached(true);
        assert!(gate.is_up());
        assert!(gate.up().now_or_never().is_some());
        gate.reached(false);
        assert!(!gate.is_up());
        gate.reached(true);
        gate.list(&[]);
        assert!(!gate.is_up());
        // A connection from before does not count for those that come.
        gate.list(&[HOST]);
        assert!(!gate.is_up());
    }
}
