//! Keys waiting for their time.
//!
//! Invariants: a key waits at most once, at the earliest time it was added for; a key that is handed out is not handed
//! out again until it is done, and if it was added meanwhile it runs exactly once more; a key whose last run failed does
//! not run before its backoff is over, however often it is added.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Disposition;
use super::backoff::Backoff;

/// Conflicts in a row that are tried again at once; further ones back off like failures.
const CONFLICTS: u32 = 5;
/// Waits after conflicts: short, but not in step with whom the conflict is with.
const CONFLICT: Backoff = Backoff { first: Duration::from_millis(20), cap: Duration::from_millis(500) };

/// How the run of a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well; runs again when added, or after the time given.
    Done {
        /// When to run again by itself.
        again: Option<Duration>,
    },
    /// Badly.
    Failed(Disposition),
}

/// See the module.
#[derive(Debug)]
pub struct Queue<K> {
    schedule: Mutex<Schedule<K>>,
    changed: Notify,
}

/// The queue without its waiting: pure, time and randomness are arguments.
#[derive(Debug)]
struct Schedule<K> {
    backoff: Backoff,
    /// By time, and among equals by order of arrival.
    by_time: BTreeMap<(Instant, u64), K>,
    waiting: HashMap<K, (Instant, u64)>,
    /// With the time at which to run again, where it was added meanwhile.
    running: HashMap<K, Option<Instant>>,
    failing: HashMap<K, Failing>,
    arrivals: u64,
}

/// A key whose last run failed.
#[derive(Clone, Copy, Debug)]
struct Failing {
    failures: u32,
    not_before: Instant,
}

// === impl Queue ===

impl<K: Clone + Eq + Hash> Queue<K> {
    /// An empty queue.
    pub fn new(backoff: Backoff) -> Queue<K> {
        let schedule = Schedule {
            backoff,
            by_time: BTreeMap::new(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            failing: HashMap::new(),
            arrivals: 0,
        };
        Queue { schedule: Mutex::new(schedule), changed: Notify::new() }
    }

    /// Runs the key as soon as it may.
    pub fn add(&self, key: K) {
        self.add_at(key, Instant::now());
    }

    /// Runs the key at that time, or earlier if it waits for an earlier one.
    pub fn add_at(&self, key: K, at: Instant) {
        self.lock().add(key, at);
        self.changed.notify_one();
    }

    /// Forgets the failures of a key, so that its backoff is over, and runs it as soon as it may.
    pub fn add_afresh(&self, key: K) {
        let mut schedule = self.lock();
        schedule.failing.remove(&key);
        schedule.add(key, Instant::now());
        drop(schedule);
        self.changed.notify_one();
    }

    /// The next key whose time has come. It must be given back by [`Queue::done`]. Safe to cancel.
    pub async fn next(&self) -> K {
        loop {
            // Registered before looking, so that what is added in between is not missed.
            let changed = self.changed.notified();
            let soonest = {
                let mut schedule = self.lock();
                if let Some(key) = schedule.pop(Instant::now()) {
                    return key;
                }
                schedule.soonest()
            };
            match soonest {
                None => changed.await,
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// Ends the run of a key.
    pub fn done(&self, key: &K, outcome: Outcome) {
        self.lock().done(key, outcome, Instant::now(), rand::random());
        self.changed.notify_one();
    }

    /// Keys that wait and keys that run.
    pub fn depth(&self) -> (usize, usize) {
        let schedule = self.lock();
        (schedule.waiting.len(), schedule.running.len())
    }

    fn lock(&self) -> MutexGuard<'_, Schedule<K>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Schedule ===

impl<K: Clone + Eq + Hash> Schedule<K> {
    fn add(&mut self, key: K, at: Instant) {
        let at = self.failing.get(&key).map_or(at, |f| at.max(f.not_before));
        if let Some(parked) = self.running.get_mut(&key) {
            *parked = Some(parked.map_or(at, |p| p.min(at)));
            return;
        }
        match self.waiting.get(&key) {
            Some((waits_for, _)) if *waits_for <= at => return,
            Some(place) => drop(self.by_time.remove(place)),
            None => {}
        }
        let place = (at, self.arrivals);
        self.arrivals += 1;
        self.by_time.insert(place, key.clone());
        self.waiting.insert(key, place);
    }

    fn pop(&mut self, now: Instant) -> Option<K> {
        let first = self.by_time.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let key = first.remove();
        self.waiting.remove(&key);
        self.running.insert(key.clone(), None);
        Some(key)
    }

    fn soonest(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|((at, _), _)| *at)
    }

    fn done(&mut self, key: &K, outcome: Outcome, now: Instant, random: f64) {
        let Some(parked) = self.running.remove(key) else { return };
        let again = match outcome {
            Outcome::Done { again } => {
                self.failing.remove(key);
                again.map(|after| now + after)
            }
            Outcome::Failed(Disposition::Stop) => {
                self.failing.remove(key);
                None
            }
            Outcome::Failed(disposition) => Some(self.fail(key, disposition, now, random)),
        };
        for at in [again, parked].into_iter().flatten() {
            self.add(key.clone(), at);
        }
    }

    /// Notes a failure and answers when the key may run again.
    fn fail(&mut self, key: &K, disposition: Disposition, now: Instant, random: f64) -> Instant {
        let failures = self.failing.get(key).map_or(0, |f| f.failures).saturating_add(1);
        let at_once = disposition == Disposition::Conflict && failures <= CONFLICTS;
        let backoff = if at_once { CONFLICT } else { self.backoff };
        let not_before = now + backoff.delay(failures, random);
        self.failing.insert(key.clone(), Failing { failures, not_before });
        not_before
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(60) };
    const DONE: Outcome = Outcome::Done { again: None };

    fn queue() -> Queue<&'static str> {
        Queue::new(BACKOFF)
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// The next key and how long it took to come, none where none comes within an hour.
    async fn next(queue: &Queue<&'static str>) -> Option<(&'static str, Duration)> {
        let began = Instant::now();
        let key = timeout(secs(3600), queue.next()).await.ok()?;
        Some((key, began.elapsed()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_twice_runs_once_at_the_earlier_time() {
        let queue = queue();
        queue.add_at("a", Instant::now() + secs(10));
        queue.add_at("a", Instant::now() + secs(3));
        queue.add_at("a", Instant::now() + secs(20));
        let (key, took) = next(&queue).await.unwrap();
        assert_eq!((key, took.as_secs()), ("a", 3));
        queue.done(&"a", DONE);
        assert_eq!(next(&queue).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_come_in_the_order_of_their_times_and_then_of_their_arrival() {
        let queue = queue();
        let now = Instant::now();
        queue.add_at("late", now + secs(2));
        queue.add_at("first", now + secs(1));
        queue.add_at("second", now + secs(1));
        let keys =
            [next(&queue).await.unwrap().0, next(&queue).await.unwrap().0, next(&queue).await.unwrap().0];
        assert_eq!(keys, ["first", "second", "late"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_key_is_parked_and_runs_once_more() {
        let queue = queue();
        queue.add("a");
        next(&queue).await.unwrap();
        queue.add("a");
        queue.add("a");
        assert_eq!(next(&queue).await, None, "not while it runs");
        queue.done(&"a", DONE);
        assert!(next(&queue).await.is_some());
        queue.done(&"a", DONE);
        assert_eq!(next(&queue).await, None, "once more, not twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_consumer_wakes_for_an_earlier_key() {
        let queue = std::sync::Arc::new(queue());
        queue.add_at("late", Instant::now() + secs(100));
        let consumer = tokio::spawn({
            let queue = queue.clone();
            async move { next(&queue).await.unwrap() }
        });
        tokio::task::yield_now().await;
        queue.add_at("early", Instant::now() + secs(1));
        let (key, took) = consumer.await.unwrap();
        assert_eq!((key, took.as_secs()), ("early", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_key_waits_longer_each_time_however_often_it_is_added() {
        let queue = queue();
        queue.add("a");
        let mut ceiling = secs(1);
        for failure in 1..=8 {
            let (_, took) = next(&queue).await.unwrap();
            assert!(took <= ceiling, "{failure}: {took:?}");
            queue.done(&"a", Outcome::Failed(Disposition::Retry));
            let not_before = queue.lock().failing[&"a"].not_before;
            queue.add("a");
            assert_eq!(queue.lock().soonest(), Some(not_before));
            ceiling = BACKOFF.ceiling(failure);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn success_forgets_the_failures() {
        let queue = queue();
        queue.add("a");
        for _ in 0..10 {
            next(&queue).await.unwrap();
            queue.done(&"a", Outcome::Failed(Disposition::Retry));
        }
        next(&queue).await.unwrap();
        queue.done(&"a", Outcome::Done { again: Some(secs(5)) });
        assert_eq!(next(&queue).await.unwrap(), ("a", secs(5)));
        queue.done(&"a", Outcome::Failed(Disposition::Retry));
        assert!(next(&queue).await.unwrap().1 <= BACKOFF.first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_does_not_wait_for_the_backoff() {
        let queue = queue();
        queue.add("a");
        for _ in 0..10 {
            next(&queue).await.unwrap();
            queue.done(&"a", Outcome::Failed(Disposition::Retry));
        }
        queue.add_afresh("a");
        assert_eq!(next(&queue).await.unwrap(), ("a", Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_are_tried_again_at_once_a_few_times() {
        let queue = queue();
        queue.add("a");
        let began = Instant::now();
        for _ in 0..=CONFLICTS {
            next(&queue).await.unwrap();
            queue.done(&"a", Outcome::Failed(Disposition::Conflict));
        }
        assert!(began.elapsed() < secs(2), "{:?}", began.elapsed());
        assert_eq!(queue.lock().failing[&"a"].failures, CONFLICTS + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_key_waits_until_it_is_added() {
        let queue = queue();
        queue.add("a");
        next(&queue).await.unwrap();
        queue.done(&"a", Outcome::Failed(Disposition::Stop));
        assert_eq!(next(&queue).await, None);
        queue.add("a");
        assert_eq!(next(&queue).await.unwrap(), ("a", Duration::ZERO));
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Add(u8, u64),
        Next,
        Done(u8, Outcome),
        Wait(u64),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let outcome = prop_oneof![
            Just(DONE),
            (0..50_u64).prop_map(|ms| Outcome::Done { again: Some(Duration::from_millis(ms)) }),
            prop_oneof![Just(Disposition::Retry), Just(Disposition::Conflict), Just(Disposition::Stop)]
                .prop_map(Outcome::Failed),
        ];
        prop_oneof![
            (0..5_u8, 0..100_u64).prop_map(|(k, ms)| Deed::Add(k, ms)),
            Just(Deed::Next),
            (0..5_u8, outcome).prop_map(|(k, o)| Deed::Done(k, o)),
            (0..200_u64).prop_map(Deed::Wait),
        ]
    }

    proptest! {
        #[test]
        fn never_two_runs_of_one_key_and_none_is_forgotten(deeds in prop::collection::vec(deed(), 1..200)) {
            let start = Instant::now();
            let (mut now, mut running, mut owed) = (start, HashSet::new(), HashSet::new());
            let mut schedule = Queue::<u8>::new(BACKOFF).schedule.into_inner().unwrap();
            for deed in deeds {
                match deed {
                    Deed::Add(key, ms) => {
                        schedule.add(key, now + Duration::from_millis(ms));
                        owed.insert(key);
                    }
                    Deed::Next => if let Some(key) = schedule.pop(now) {
                        prop_assert!(running.insert(key), "{key} runs already");
                        owed.remove(&key);
                    },
                    Deed::Done(key, outcome) => {
                        schedule.done(&key, outcome, now, 0.5);
                        let was_running = running.remove(&key);
                        let again = !matches!(outcome, DONE | Outcome::Failed(Disposition::Stop));
                        if was_running && again { owed.insert(key); }
                    }
                    Deed::Wait(ms) => now += Duration::from_millis(ms),
                }
                prop_assert_eq!(schedule.waiting.len(), schedule.by_time.len());
            }
            for key in running.drain() {
                schedule.done(&key, DONE, now, 0.5);
            }
            // Whatever was added and not begun since comes, each once.
            let mut left = HashSet::new();
            while let Some(key) = schedule.pop(now + secs(3600)) {
                prop_assert!(left.insert(key));
            }
            prop_assert_eq!(left, owed);
        }
    }
}
