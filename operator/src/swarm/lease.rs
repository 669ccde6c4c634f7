//! One of several operators leads: the one whose name stands in the labels of the config `skep-lease`.
//!
//! ```text
//! holder:    read ─▶ compare-and-swap, every 5 s           may start effects for 15 s after it *sent* a good one
//! observers: read, every second                            may take over when the version has not moved for 30 s
//! ```
//!
//! Invariants: an observer judges by its own boot clock since it saw the version move, never by times that others
//! wrote; so clocks need not agree, and a holder that was suspended, cut off or killed has long been fenced (S19)
//! when another takes over. A change of Swarm leader blocks the engine for 10 to 17 s: then nobody leads for a moment,
//! and the same holder goes on. The lease keeps two operators from doing the same work twice; that no work is lost or
//! overwritten is the business of compare-and-swap.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::engine::Engine;
use super::error::Error;
use super::fence::{BootClock, Fence, TERM};
use super::object::{Config, KIND, Kind, Labels};

/// Name of the config.
pub const NAME: &str = "skep-lease";
/// Label with the name of the process that leads; empty after a release.
pub const HOLDER: &str = "skep.holder";
/// Label that counts the changes of holder.
pub const TERM_LABEL: &str = "skep.term";

/// Time between two renewals.
const RENEW: Duration = Duration::from_secs(5);
/// Time between two looks at another's lease, and after something went wrong.
const LOOK: Duration = Duration::from_secs(1);
/// Longest time for one round: a renewal that takes longer is of no use.
const ROUND: Duration = Duration::from_secs(10);
/// How often it is checked whether the fence has closed by itself.
const WATCH: Duration = Duration::from_millis(500);
/// Longest time for a release.
const RELEASE: Duration = Duration::from_secs(5);

/// Whether this process leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It does not, or its fence has closed.
    Waiting {
        /// Who holds the lease, as far as known.
        holder: Option<String>,
    },
    /// It does.
    Leading {
        /// Number of this reign.
        term: u64,
    },
}

/// Takes part in the election.
#[derive(Debug)]
pub struct Lease {
    engine: Engine,
    me: String,
    term: Duration,
    fence: Fence,
    seen: Option<Sighting>,
    publish: watch::Sender<Leadership>,
}

/// The lease of somebody as last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sighting {
    version: u64,
    holder: String,
    /// Boot time when this version was first seen.
    since: Duration,
}

/// What to do about the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Move {
    /// There is none: make it.
    Create,
    /// It is ours: renew it.
    Renew { version: u64, term: u64 },
    /// It is free or has expired: take it.
    Take { version: u64, term: u64 },
    /// It is another's.
    Wait,
}

// === impl Leadership ===

impl Leadership {
    /// Whether this process leads.
    pub const fn is_leading(&self) -> bool {
        matches!(self, Leadership::Leading { .. })
    }
}

// === impl Lease ===

impl Lease {
    /// Takes part under a name that no other process has, also not an earlier one of the same machine. Answers also the fence
    /// to put before all writes of this process.
    pub fn new(engine: &Engine, me: impl Into<String>) -> (Lease, Fence, watch::Receiver<Leadership>) {
        Lease::with_fence(engine, me.into(), TERM, Fence::leased())
    }

    /// Like [`Lease::new`], for a lease of another length, which all replicas must agree on: shorter than a change of
    /// Swarm leader takes, it is lost at every one of them.
    pub fn with_term(
        engine: &Engine,
        me: impl Into<String>,
        term: Duration,
    ) -> (Lease, Fence, watch::Receiver<Leadership>) {
        Lease::with_fence(engine, me.into(), term, Fence::of_term(term))
    }

    /// Like [`Lease::new`], on another clock: for simulated time.
    pub fn with_clock(
        engine: &Engine,
        me: impl Into<String>,
        clock: BootClock,
    ) -> (Lease, Fence, watch::Receiver<Leadership>) {
        Lease::with_fence(engine, me.into(), TERM, Fence::with_clock(clock))
    }

    fn with_fence(
        engine: &Engine,
        me: String,
        term: Duration,
        fence: Fence,
    ) -> (Lease, Fence, watch::Receiver<Leadership>) {
        let (publish, leadership) = watch::channel(Leadership::Waiting { holder: None });
        // The lease's own writes are those that open the fence.
        let engine = engine.with_fence(Fence::open());
        (Lease { engine, me, term, fence: fence.clone(), seen: None, publish }, fence, leadership)
    }

    /// Takes part until told to stop, then releases the lease if it is held. Stop whatever writes *before* this, so that
    /// nothing is refused in the middle.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = tokio::select! {
                () = stop.cancelled() => break,
                pause = self.round() => pause,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
                () = expiry(&self.fence, &self.publish) => {}
            }
        }
        self.release().await;
    }

    /// One look at the lease, and the write that it asks for. Answers how long to wait until the next.
    async fn round(&mut self) -> Duration {
        let (fence, publish) = (self.fence.clone(), self.publish.clone());
        let result = tokio::select! {
            result = timeout(ROUND, self.step()) => result,
            // Says so as soon as the fence closes, also while the engine does not answer.
            () = expiry(&fence, &publish) => return Duration::ZERO,
        };
        match result {
            Ok(Ok(Some(leadership))) => {
                let pause = if leadership.is_leading() { RENEW.min(self.term / 6) } else { LOOK };
                self.say(leadership);
                pause
            }
            Ok(Ok(None)) => LOOK,
            Ok(Err(error)) => {
                warn!(%error, "the lease could not be kept or taken");
                LOOK
            }
            Err(_) => {
                warn!("the lease could not be kept or taken: the engine does not answer");
                LOOK
            }
        }
    }

    /// None where somebody, perhaps an unanswered renewal of ours, was faster: the next look tells who.
    async fn step(&mut self) -> Result<Option<Leadership>, Error> {
        let found = match self.engine.config(NAME).await {
            Ok(config) => Some(config),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let now = self.fence.now();
        self.look(found.as_ref(), now);
        let chosen = decide(found.as_ref(), &self.me, self.seen.as_ref(), self.term, now);
        let (term, written) = match &chosen {
            Move::Wait => {
                let holder = self.seen.as_ref().map(|s| s.holder.clone());
                return Ok(Some(Leadership::Waiting { holder }));
            }
            Move::Create => (1, self.engine.create_config(NAME, &labels(&self.me, 1), b"-").await.map(drop)),
            Move::Renew { version, term } | Move::Take { version, term } => {
                let id = found.as_ref().map_or(NAME, |c| c.id.as_str());
                (*term, self.engine.relabel_config(id, *version, NAME, &labels(&self.me, *term)).await)
            }
        };
        match written {
            Ok(()) => {
                self.fence.renewed(now);
                if !matches!(chosen, Move::Renew { .. }) {
                    info!(term, holder = self.me, "this process leads");
                }
                let in_time = self.fence.is_open();
                Ok(Some(if in_time {
                    Leadership::Leading { term }
                } else {
                    Leadership::Waiting { holder: None }
                }))
            }
            Err(Error::Stale { .. } | Error::Exists { .. } | Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn look(&mut self, found: Option<&Config>, now: Duration) {
        let Some(config) = found else { return };
        if self.seen.as_ref().is_none_or(|s| s.version != config.version) {
            let holder = holder(config).to_owned();
            if holder != self.me {
                self.fence.close();
            }
            self.seen = Some(Sighting { version: config.version, holder, since: now });
        }
    }

    fn say(&self, leadership: Leadership) {
        self.publish.send_if_modified(|current| {
            let differs = *current != leadership;
            *current = leadership;
            differs
        });
    }

    /// Lets go of the lease, so that another can take it at once.
    async fn release(&mut self) {
        self.fence.close();
        self.say(Leadership::Waiting { holder: None });
        let let_go = async {
            loop {
                let config = self.engine.config(NAME).await?;
                if holder(&config) != self.me {
                    return Ok(());
                }
                let labels = labels("", term(&config));
                match self.engine.relabel_config(&config.id, config.version, NAME, &labels).await {
                    // A renewal of ours was still under way.
                    Err(Error::Stale { .. }) => {}
                    result => return result,
                }
            }
        };
        match timeout(RELEASE, let_go).await {
            Ok(Ok(()) | Err(Error::NotFound { .. })) => info!("the lease is released"),
            Ok(Err(error)) => warn!(%error, "the lease could not be released; it expires by itself"),
            Err(_) => warn!("the lease could not be released in time; it expires by itself"),
        }
    }
}

/// What to do about the lease that was found at boot time `now`.
fn decide(found: Option<&Config>, me: &str, seen: Option<&Sighting>, lasts: Duration, now: Duration) -> Move {
    let expired = seen.is_none_or(|s| now.saturating_sub(s.since) >= lasts);
    let Some(config) = found else {
        // Somebody removed it. Whoever held it may act for a while yet.
        return if expired || seen.is_some_and(|s| s.holder == me) { Move::Create } else { Move::Wait };
    };
    let (version, term) = (config.version, term(config));
    match holder(config) {
        holder if holder == me => Move::Renew { version, term },
        "" => Move::Take { version, term: term + 1 },
        _ if expired => Move::Take { version, term: term + 1 },
        _ => Move::Wait,
    }
}

/// Returns when the fence has closed although this process was said to lead, and says so.
async fn expiry(fence: &Fence, publish: &watch::Sender<Leadership>) {
    let mut ticks = interval(WATCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if publish.borrow().is_leading() && !fence.is_open() {
            warn!("the lease could not be renewed in time: this process starts nothing until it is");
            publish.send_replace(Leadership::Waiting { holder: None });
            return;
        }
    }
}

fn holder(config: &Config) -> &str {
    config.labels.get(HOLDER).map_or("", String::as_str)
}

fn term(config: &Config) -> u64 {
    config.labels.get(TERM_LABEL).and_then(|t| t.parse().ok()).unwrap_or(0)
}

fn labels(holder: &str, term: u64) -> Labels {
    Labels::from([
        (KIND.to_owned(), Kind::Lease.as_str().to_owned()),
        (HOLDER.to_owned(), holder.to_owned()),
        (TERM_LABEL.to_owned(), term.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;
    use crate::swarm::testing::{Asked, Reply, engine_that, refusal};

    /// The one config that the tests need.
    #[derive(Default)]
    struct Store {
        version: u64,
        config: Option<Value>,
    }

    /// How the engine treats one elector.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Link {
        Up,
        /// Nothing gets through.
        Down,
        /// Requests get through and have effects; answers do not come back.
        Deaf,
    }

    struct Elector {
        link: Arc<Mutex<Link>>,
        fence: Fence,
        leadership: watch::Receiver<Leadership>,
        stop: CancellationToken,
        running: JoinHandle<()>,
    }

    fn answer(store: &Mutex<Store>, asked: &Asked) -> Reply {
        let mut store = store.lock().unwrap();
        store.version += 1;
        let version = store.version;
        let stamped = |mut config: Value| {
            config["Version"] = json!({"Index": version});
            config["Spec"]["Data"] = STANDARD.encode("-").into();
            Some(config)
        };
        match (asked.method.as_str(), asked.path.trim_start_matches("/v1.41"), &store.config) {
            ("GET", "/configs/skep-lease", Some(config)) => Reply::Json(200, config.clone()),
            ("POST", "/configs/create", None) => {
                let time = "2026-01-02T03:04:05Z";
                store.config =
                    stamped(json!({"ID": "l1", "CreatedAt": time, "UpdatedAt": time, "Spec": asked.body}));
                Reply::Json(201, json!({"ID": "l1"}))
            }
            ("POST", "/configs/create", Some(_)) => refusal(409, "already exists"),
            ("POST", "/configs/l1/update", Some(config)) => {
                if asked.query != format!("version={}", config["Version"]["Index"]) {
                    return refusal(500, "rpc error: code = Unknown desc = update out of sequence");
                }
                let mut config = config.clone();
                config["Spec"]["Labels"] = asked.body["Labels"].clone();
                store.config = stamped(config);
                Reply::Json(200, json!(null))
            }
            _ => refusal(404, "not found"),
        }
    }

    async fn elector(name: &str, store: &Arc<Mutex<Store>>) -> Elector {
        let link = Arc::new(Mutex::new(Link::Up));
        let (store, state) = (store.clone(), link.clone());
        let (endpoint, _) = engine_that(move |asked| match *state.lock().unwrap() {
            Link::Up => answer(&store, asked),
            Link::Down => Reply::Silence,
            Link::Deaf => {
                drop(answer(&store, asked));
                Reply::Silence
            }
        });
        let engine = Engine::connect(endpoint).await.unwrap();
        let start = Instant::now();
        let clock = Arc::new(move || start.elapsed() + Duration::from_secs(100));
        let (lease, fence, leadership) =
            Lease::with_fence(&engine, name.to_owned(), TERM, Fence::with_clock(clock));
        let stop = CancellationToken::new();
        let running = tokio::spawn(lease.run(stop.clone()));
        Elector { link, fence, leadership, stop, running }
    }

    impl Elector {
        async fn leads(&mut self) {
            let leads = self.leadership.wait_for(Leadership::is_leading);
            drop(timeout(Duration::from_secs(120), leads).await.expect("it leads in time").unwrap());
        }

        async fn waits(&mut self) {
            let waits = self.leadership.wait_for(|l| !l.is_leading());
            drop(timeout(Duration::from_secs(120), waits).await.expect("it is fenced in time").unwrap());
        }

        fn set(&self, link: Link) {
            *self.link.lock().unwrap() = link;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_leads_and_keeps_leading() {
        let store = Arc::default();
        let mut first = elector("a", &store).await;
        first.leads().await;
        let second = elector("b", &store).await;
        for _ in 0..600 {
            sleep(Duration::from_secs(1)).await;
            assert!(first.fence.is_open() && first.leadership.borrow().is_leading());
            assert!(!second.fence.is_open());
        }
        assert_eq!(*second.leadership.borrow(), Leadership::Waiting { holder: Some("a".to_owned()) });
    }

    #[tokio::test(start_paused = true)]
    async fn another_takes_over_a_term_after_the_leader_died_and_not_before() {
        let store = Arc::default();
        let mut first = elector("a", &store).await;
        first.leads().await;
        let mut second = elector("b", &store).await;
        sleep(Duration::from_secs(20)).await;
        first.running.abort();
        let died = Instant::now();
        second.leads().await;
        let took = died.elapsed();
        assert!(took > TERM - RENEW && took <= TERM + LOOK * 2, "{took:?}");
        assert_eq!(*second.leadership.borrow(), Leadership::Leading { term: 2 });
    }

    #[tokio::test(start_paused = true)]
    async fn another_takes_over_at_once_after_a_release() {
        let store = Arc::default();
        let mut first = elector("a", &store).await;
        first.leads().await;
        let mut second = elector("b", &store).await;
        sleep(Duration::from_secs(7)).await;
        first.stop.cancel();
        first.running.await.unwrap();
        assert!(!first.fence.is_open());
        let released = Instant::now();
        second.leads().await;
        assert!(released.elapsed() <= LOOK, "{:?}", released.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_cut_off_is_fenced_long_before_another_takes_over() {
        for cut in [Link::Down, Link::Deaf] {
            let store = Arc::default();
            let mut first = elector("a", &store).await;
            first.leads().await;
            let mut second = elector("b", &store).await;
            sleep(Duration::from_secs(7)).await;
            first.set(cut);
            let began = Instant::now();
            first.waits().await;
            assert!(!first.fence.is_open());
            assert!(began.elapsed() <= Duration::from_secs(16), "{:?}", began.elapsed());
            if cut == Link::Down {
                second.leads().await;
                assert!(began.elapsed() >= Duration::from_secs(25), "{:?}", began.elapsed());
                first.set(Link::Up);
                sleep(Duration::from_secs(30)).await;
                assert!(!first.fence.is_open() && second.fence.is_open());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_comes_back_in_time_goes_on() {
        let store = Arc::default();
        let mut first = elector("a", &store).await;
        first.leads().await;
        let second = elector("b", &store).await;
        first.set(Link::Down);
        sleep(Duration::from_secs(17)).await;
        assert!(!first.fence.is_open());
        first.set(Link::Up);
        first.leads().await;
        assert_eq!(*first.leadership.borrow(), Leadership::Leading { term: 1 });
        assert!(!second.fence.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_somebody_removed_is_not_taken_while_its_holder_may_act() {
        let store: Arc<Mutex<Store>> = Arc::default();
        let mut first = elector("a", &store).await;
        first.leads().await;
        let mut second = elector("b", &store).await;
        sleep(Duration::from_secs(3)).await;
        first.set(Link::Down);
        store.lock().unwrap().config = None;
        second.leads().await;
        assert!(!first.fence.is_open());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn never_are_two_fences_open_at_once(
            cuts in prop::collection::vec((0..3_usize, 0..3_u8, 1..25_000_u64), 1..40)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(async move {
                let store = Arc::default();
                let electors = [elector("a", &store).await, elector("b", &store).await, elector("c", &store).await];
                for (who, link, millis) in cuts {
                    electors[who].set([Link::Up, Link::Down, Link::Deaf][usize::from(link)]);
                    let until = Instant::now() + Duration::from_millis(millis);
                    while Instant::now() < until {
                        sleep(Duration::from_millis(250)).await;
                        assert!(electors.iter().filter(|e| e.fence.is_open()).count() <= 1);
                    }
                }
                for elector in &electors {
                    elector.set(Link::Up);
                }
                // However it was, somebody leads soon when all is well.
                sleep(Duration::from_secs(45)).await;
                assert_eq!(electors.iter().filter(|e| e.fence.is_open()).count(), 1);
            });
        }
    }
}
