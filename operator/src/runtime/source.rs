//! Turns events into whole snapshots.
//!
//! ```text
//! Closed ── subscribe ──▶ Subscribed ── list, publish ──▶ Watching ──┐ event: debounce, refresh, publish
//!   ▲                                                        │  ▲────┤ every 30 s: list, publish
//!   └──────────── anything failed: wait (backoff) ◀──────────┘       └ hot, every second: refresh, publish
//! ```
//!
//! Invariants: subscribed before listed, so no change falls between; events only say where to look, and get lost,
//! therefore everything is listed anew from time to time; what is published is always complete; after a failure the
//! last snapshot stays, and tells its age.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::Fuse;
use futures::{Stream, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::backoff::Backoff;
use super::{Fault, chain};

/// Where snapshots come from.
pub trait Source: Send + Sync + 'static {
    /// A hint that something changed.
    type Nudge: Send;
    /// The hints; ends, or fails, when the connection breaks.
    type Nudges: Stream<Item = Result<Self::Nudge, Self::Error>> + Send + Unpin;
    /// Everything at one time.
    type Snapshot: Send + Sync + 'static;
    /// What can go wrong.
    type Error: Fault;

    /// Subscribes; whatever changes after this has returned is hinted at, or the stream ends.
    fn subscribe(&self) -> impl Future<Output = Result<Self::Nudges, Self::Error>> + Send;

    /// Reads everything.
    fn list(&self) -> impl Future<Output = Result<Self::Snapshot, Self::Error>> + Send;

    /// Reads what the hints are about, and what changes without a hint, into a new whole snapshot.
    fn refresh(
        &self,
        last: &Self::Snapshot,
        nudges: &[Self::Nudge],
    ) -> impl Future<Output = Result<Self::Snapshot, Self::Error>> + Send;

    /// Whether nobody needs to be woken for the newer one: all is the same but the time it was taken.
    fn is_same(old: &Self::Snapshot, new: &Self::Snapshot) -> bool;
}

/// How often to look.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Events are collected for so long before one refresh.
    pub debounce: Duration,
    /// Everything is listed this often.
    pub resync: Duration,
    /// While hot, things are refreshed this often.
    pub hot: Duration,
    /// Waits after failures.
    pub backoff: Backoff,
}

/// What happened, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// A subscription was made.
    Subscribed,
    /// An event came.
    Nudged,
    /// Everything was listed.
    Listed,
    /// Something was refreshed.
    Refreshed,
    /// Something failed; the category of its error.
    Failed(&'static str),
}

/// Is told what happens.
pub type Observer = Arc<dyn Fn(Happening) + Send + Sync>;

/// The snapshots, to read and to wait for. Clones share what they read, each waits for itself.
#[derive(Debug)]
pub struct Snapshots<S> {
    latest: watch::Receiver<Option<Arc<S>>>,
    wishes: Arc<Wishes>,
}

/// While this lives, the source is refreshed more often.
#[derive(Debug)]
pub struct Heat(Arc<Wishes>);

#[derive(Debug, Default)]
struct Wishes {
    hot: AtomicUsize,
    changed: Notify,
    now: Notify,
}

/// Keeps the snapshots up to date: see the module.
pub struct Watcher<S: Source> {
    source: S,
    options: Options,
    observer: Option<Observer>,
    publish: watch::Sender<Option<Arc<S::Snapshot>>>,
    wishes: Arc<Wishes>,
    failures: u32,
}

enum State<S: Source> {
    Closed,
    Subscribed(Fuse<S::Nudges>),
    Watching { nudges: Fuse<S::Nudges>, last: Arc<S::Snapshot>, listed: Instant },
}

/// Why the watcher looks again.
enum Cause<N> {
    Nudges(Vec<N>),
    Resync,
    Hot,
    /// The stream has ended.
    End,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Options {
        Options {
            debounce: Duration::from_millis(150),
            resync: Duration::from_secs(30),
            hot: Duration::from_secs(1),
            backoff: Backoff { first: Duration::from_millis(500), cap: Duration::from_secs(10) },
        }
    }
}

// === impl Snapshots ===

impl<S> Snapshots<S> {
    /// The latest, none before the first.
    pub fn latest(&self) -> Option<Arc<S>> {
        self.latest.borrow().clone()
    }

    /// The latest, as soon as there is one; none when the watcher has ended.
    pub async fn ready(&mut self) -> Option<Arc<S>> {
        self.latest.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The next after the one seen last by this handle; none when the watcher has ended. Comes also when nothing
    /// changed, after each listing of everything.
    pub async fn changed(&mut self) -> Option<Arc<S>> {
        loop {
            self.latest.changed().await.ok()?;
            if let Some(snapshot) = self.latest.borrow_and_update().clone() {
                return Some(snapshot);
            }
        }
    }

    /// Asks for a refresh now.
    pub fn refresh(&self) {
        self.wishes.now.notify_one();
    }

    /// Has things refreshed often for as long as the answer lives.
    #[must_use]
    pub fn heat(&self) -> Heat {
        self.wishes.hot.fetch_add(1, Ordering::AcqRel);
        self.wishes.changed.notify_one();
        Heat(self.wishes.clone())
    }
}

impl<S> Clone for Snapshots<S> {
    fn clone(&self) -> Snapshots<S> {
        Snapshots { latest: self.latest.clone(), wishes: self.wishes.clone() }
    }
}

// === impl Heat ===

impl Drop for Heat {
    fn drop(&mut self) {
        self.0.hot.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Watcher ===

impl<S: Source> Watcher<S> {
    /// A watcher, and the snapshots that it will publish.
    pub fn new(
        source: S,
        options: Options,
        observer: Option<Observer>,
    ) -> (Watcher<S>, Snapshots<S::Snapshot>) {
        let (publish, latest) = watch::channel(None);
        let wishes = Arc::<Wishes>::default();
        let snapshots = Snapshots { latest, wishes: wishes.clone() };
        (Watcher { source, options, observer, publish, wishes, failures: 0 }, snapshots)
    }

    /// Watches until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut state = State::Closed;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = self.step(state) => state = next,
            }
        }
    }

    async fn step(&mut self, state: State<S>) -> State<S> {
        let stepped = match state {
            State::Closed => self.subscribe().await,
            State::Subscribed(nudges) => self.list(nudges).await,
            State::Watching { nudges, last, listed } => self.watch(nudges, last, listed).await,
        };
        match stepped {
            Ok(next) => next,
            Err(fault) => {
                self.failures = self.failures.saturating_add(1);
                self.tell(Happening::Failed(fault.category()));
                let wait = self.options.backoff.delay(self.failures, rand::random());
                warn!(error = chain(&fault), again_ms = wait.as_millis(), "watching was interrupted");
                sleep(wait).await;
                State::Closed
            }
        }
    }

    async fn subscribe(&self) -> Result<State<S>, S::Error> {
        let nudges = self.source.subscribe().await?;
        self.tell(Happening::Subscribed);
        Ok(State::Subscribed(nudges.fuse()))
    }

    async fn list(&mut self, nudges: Fuse<S::Nudges>) -> Result<State<S>, S::Error> {
        let listed = Instant::now();
        let last = Arc::new(self.source.list().await?);
        self.failures = 0;
        self.tell(Happening::Listed);
        // Everybody is woken, also where nothing changed: whoever missed something gets another chance.
        self.publish.send_replace(Some(last.clone()));
        Ok(State::Watching { nudges, last, listed })
    }

    async fn watch(
        &mut self,
        mut nudges: Fuse<S::Nudges>,
        last: Arc<S::Snapshot>,
        listed: Instant,
    ) -> Result<State<S>, S::Error> {
        let hints = match self.next_cause(&mut nudges, listed).await? {
            Cause::End => {
                debug!("the subscription has ended");
                // Not a failure in itself; but an engine that ends each at once must not be asked without pause.
                sleep(self.options.debounce).await;
                return Ok(State::Closed);
            }
            Cause::Resync => return self.list(nudges).await,
            Cause::Hot => Vec::new(),
            Cause::Nudges(hints) => hints,
        };
        let fresh = Arc::new(self.source.refresh(&last, &hints).await?);
        self.tell(Happening::Refreshed);
        self.publish.send_if_modified(|latest| {
            *latest = Some(fresh.clone());
            !S::is_same(&last, &fresh)
        });
        Ok(State::Watching { nudges, last: fresh, listed })
    }

    async fn next_cause(
        &self,
        nudges: &mut Fuse<S::Nudges>,
        listed: Instant,
    ) -> Result<Cause<S::Nudge>, S::Error> {
        let resync = listed + self.options.resync;
        let began = Instant::now();
        loop {
            let is_hot = self.wishes.hot.load(Ordering::Acquire) > 0;
            tokio::select! {
                nudge = nudges.next() => return match nudge {
                    Some(first) => Ok(Cause::Nudges(self.collect(first?, nudges).await?)),
                    None => Ok(Cause::End),
                },
                () = sleep_until(resync) => return Ok(Cause::Resync),
                () = sleep_until(began + self.options.hot), if is_hot => return Ok(Cause::Hot),
                () = self.wishes.now.notified() => return Ok(Cause::Hot),
                () = self.wishes.changed.notified() => {}
            }
        }
    }

    /// The first event and those that follow it shortly.
    async fn collect(
        &self,
        first: S::Nudge,
        nudges: &mut Fuse<S::Nudges>,
    ) -> Result<Vec<S::Nudge>, S::Error> {
        let until = Instant::now() + self.options.debounce;
        let mut collected = vec![first];
        self.tell(Happening::Nudged);
        // An end is met again by the next look.
        while let Ok(Some(nudge)) = timeout_at(until, nudges.next()).await {
            collected.push(nudge?);
            self.tell(Happening::Nudged);
        }
        Ok(collected)
    }

    fn tell(&self, happening: Happening) {
        if let Some(observer) = &self.observer {
            observer(happening);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
    use thiserror::Error;
    use tokio::time::timeout;

    use super::*;
    use crate::runtime::Disposition;

    #[derive(Debug, Error)]
    #[error("no answer")]
    struct Broken;

    impl Fault for Broken {
        fn disposition(&self) -> Disposition {
            Disposition::Retry
        }

        fn category(&self) -> &'static str {
            "broken"
        }
    }

    /// A world of one number.
    #[derive(Default)]
    struct World {
        value: u32,
        down: bool,
        log: Vec<&'static str>,
        hints: Vec<usize>,
        subscriber: Option<UnboundedSender<Result<(), Broken>>>,
        /// Changes the value between subscription and list.
        sneak: bool,
    }

    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<World>>);

    impl Fake {
        fn with<T>(&self, deed: impl FnOnce(&mut World) -> T) -> T {
            deed(&mut self.0.lock().unwrap())
        }

        fn ask(&self, what: &'static str) -> Result<u32, Broken> {
            self.with(|w| {
                w.log.push(what);
                if w.down { Err(Broken) } else { Ok(w.value) }
            })
        }

        /// Changes the value and says so.
        fn change(&self, value: u32) {
            self.with(|w| {
                w.value = value;
                w.subscriber.as_ref().unwrap().unbounded_send(Ok(())).unwrap();
            });
        }

        fn count(&self, what: &str) -> usize {
            self.with(|w| w.log.iter().filter(|l| **l == what).count())
        }
    }

    impl Source for Fake {
        type Nudge = ();
        type Nudges = UnboundedReceiver<Result<(), Broken>>;
        type Snapshot = u32;
        type Error = Broken;

        async fn subscribe(&self) -> Result<Self::Nudges, Broken> {
            self.ask("subscribe")?;
            let (sender, receiver) = unbounded();
            self.with(|w| w.subscriber = Some(sender));
            Ok(receiver)
        }

        async fn list(&self) -> Result<u32, Broken> {
            let seen = self.ask("list");
            if self.with(|w| w.sneak) {
                self.change(99);
            }
            seen
        }

        async fn refresh(&self, _last: &u32, nudges: &[()]) -> Result<u32, Broken> {
            self.with(|w| w.hints.push(nudges.len()));
            self.ask("refresh")
        }

        fn is_same(old: &u32, new: &u32) -> bool {
            old == new
        }
    }

    fn start() -> (Fake, Snapshots<u32>) {
        let fake = Fake::default();
        let (watcher, snapshots) = Watcher::new(fake.clone(), Options::default(), None);
        tokio::spawn(watcher.run(CancellationToken::new()));
        (fake, snapshots)
    }

    async fn pass(millis: u64) {
        sleep(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_subscribes_before_it_lists_and_publishes_nothing_before() {
        let (fake, mut snapshots) = start();
        assert_eq!(snapshots.latest(), None);
        assert_eq!(*snapshots.ready().await.unwrap(), 0);
        assert_eq!(fake.with(|w| w.log.clone()), ["subscribe", "list"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_between_subscription_and_list_is_not_missed() {
        let (fake, mut snapshots) = start();
        fake.with(|w| w.sneak = true);
        assert_eq!(*snapshots.ready().await.unwrap(), 0);
        fake.with(|w| w.sneak = false);
        pass(200).await;
        assert_eq!(*snapshots.latest().unwrap(), 99);
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_come_together_make_one_refresh() {
        let (fake, mut snapshots) = start();
        snapshots.ready().await.unwrap();
        for value in 1..=5 {
            fake.change(value);
            pass(20).await;
        }
        pass(200).await;
        assert_eq!(*snapshots.latest().unwrap(), 5);
        assert_eq!(fake.with(|w| w.hints.clone()), [5]);
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_listed_from_time_to_time_and_wakes_everybody() {
        let (fake, mut snapshots) = start();
        snapshots.ready().await.unwrap();
        snapshots.latest.mark_unchanged();
        fake.with(|w| w.value = 7);
        let began = Instant::now();
        assert_eq!(*snapshots.changed().await.unwrap(), 7);
        assert_eq!(began.elapsed().as_secs(), 30);
        assert_eq!(*snapshots.changed().await.unwrap(), 7);
        assert_eq!(began.elapsed().as_secs(), 60);
        assert_eq!(fake.count("list"), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_that_finds_nothing_new_wakes_nobody() {
        let (fake, mut snapshots) = start();
        snapshots.ready().await.unwrap();
        snapshots.latest.mark_unchanged();
        fake.change(0);
        assert!(timeout(Duration::from_secs(20), snapshots.changed()).await.is_err());
        assert_eq!(fake.count("refresh"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_connection_is_made_anew_and_the_last_snapshot_stays_meanwhile() {
        let (fake, mut snapshots) = start();
        snapshots.ready().await.unwrap();
        snapshots.latest.mark_unchanged();
        fake.with(|w| {
            w.down = true;
            w.value = 3;
            w.subscriber = None;
        });
        pass(20_000).await;
        assert_eq!(*snapshots.latest().unwrap(), 0);
        assert!(fake.count("subscribe") > 3 && fake.count("subscribe") < 60, "{}", fake.count("subscribe"));
        fake.with(|w| w.down = false);
        assert_eq!(*timeout(Duration::from_secs(15), snapshots.changed()).await.unwrap().unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_in_the_stream_starts_anew_from_the_subscription() {
        let (fake, mut snapshots) = start();
        snapshots.ready().await.unwrap();
        fake.with(|w| w.subscriber.as_ref().unwrap().unbounded_send(Err(Broken)).unwrap());
        pass(2_000).await;
        assert_eq!(fake.with(|w| w.log.clone()), ["subscribe", "list", "subscribe", "list"]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_hot_it_looks_every_second() {
        let (fake, mut snapshots) = start();
        snapshots.ready().await.unwrap();
        pass(10_000).await;
        assert_eq!(fake.count("refresh"), 0);
        let (heat, more) = (snapshots.heat(), snapshots.heat());
        pass(5_500).await;
        assert_eq!(fake.count("refresh"), 6, "at once, then every second");
        drop(heat);
        pass(5_000).await;
        assert_eq!(fake.count("refresh"), 11, "somebody still wants it hot");
        drop(more);
        pass(10_000).await;
        assert!(fake.count("refresh") <= 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_can_be_asked_for() {
        let (fake, mut snapshots) = start();
        snapshots.ready().await.unwrap();
        fake.with(|w| w.value = 4);
        snapshots.refresh();
        pass(10).await;
        assert_eq!(*snapshots.latest().unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn told_to_stop_it_ends_and_so_do_those_who_wait() {
        let fake = Fake::default();
        let (watcher, mut snapshots) = Watcher::new(fake, Options::default(), None);
        let stop = CancellationToken::new();
        let running = tokio::spawn(watcher.run(stop.clone()));
        snapshots.ready().await.unwrap();
        stop.cancel();
        running.await.unwrap();
        snapshots.latest.mark_unchanged();
        assert_eq!(snapshots.changed().await, None);
    }
}
