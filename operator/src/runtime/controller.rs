//! Runs the reconciler for the keys of a queue.
//!
//! Invariants: never more runs at once than allowed, never two of one key; a panic ends one run, not the controller (in a
//! build that unwinds); told to stop, it starts nothing and lets what runs finish.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::backoff::Backoff;
use super::queue::{Outcome, Queue};
use super::{Disposition, Fault, chain};

/// Brings one thing closer to what it should be.
pub trait Reconcile: Send + Sync + 'static {
    /// Names the thing.
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;
    /// What can go wrong.
    type Error: Fault;

    /// Looks at the thing as it is now and does what is next, without waiting for slow things: it is called again. Why
    /// it is called is not told, so that a restart and the steady state are one path.
    ///
    /// # Errors
    /// Decide by their disposition when it is called again.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Action, Self::Error>> + Send;
}

/// What comes after a good run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until somebody adds the key.
    Idle,
    /// Again after this time, or when somebody adds the key.
    After(Duration),
}

/// How one run ended, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// `ok`, `panic`, or the category of the error.
    pub outcome: &'static str,
    /// How long it took.
    pub duration: Duration,
    /// Keys that wait now.
    pub waiting: usize,
    /// Keys that run now.
    pub running: usize,
}

/// Is told of every run.
pub type Observer = Arc<dyn Fn(&Ended) + Send + Sync>;

/// Settings of a controller.
#[derive(Clone)]
pub struct Options {
    /// Name, for logs.
    pub name: &'static str,
    /// Runs at once.
    pub at_once: usize,
    /// Waits after failures.
    pub backoff: Backoff,
    /// Is told of every run.
    pub observer: Option<Observer>,
}

/// See the module.
pub struct Controller<R: Reconcile> {
    reconciler: Arc<R>,
    queue: Arc<Queue<R::Key>>,
    options: Options,
}

/// One run that ended; no result where it panicked.
struct Run<R: Reconcile> {
    key: R::Key,
    result: Option<Result<Action, R::Error>>,
    duration: Duration,
}

// === impl Options ===

impl Options {
    /// Four at once, one second to five minutes of backoff, nobody to tell.
    pub fn named(name: &'static str) -> Options {
        let backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(300) };
        Options { name, at_once: 4, backoff, observer: None }
    }
}

// === impl Controller ===

impl<R: Reconcile> Controller<R> {
    /// A controller with an empty queue.
    pub fn new(reconciler: R, options: Options) -> Controller<R> {
        let queue = Arc::new(Queue::new(options.backoff));
        Controller { reconciler: Arc::new(reconciler), queue, options }
    }

    /// The queue, to add keys to.
    pub fn queue(&self) -> Arc<Queue<R::Key>> {
        self.queue.clone()
    }

    /// Runs until told to stop, then until what runs has finished. Keys that wait stay in the queue.
    pub async fn run(&self, stop: CancellationToken) {
        let mut runs: JoinSet<Run<R>> = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(run) = runs.join_next() => self.ended(run),
                key = self.queue.next(), if runs.len() < self.options.at_once.max(1) => {
                    runs.spawn(run(self.reconciler.clone(), key));
                }
            }
        }
        while let Some(run) = runs.join_next().await {
            self.ended(run);
        }
    }

    fn ended(&self, run: Result<Run<R>, tokio::task::JoinError>) {
        let Run { key, result, duration } = match run {
            Ok(run) => run,
            // Panics are caught inside of the task, and nobody aborts it: only the end of the runtime comes here.
            Err(error) => return debug!(%error, "a run was abandoned"),
        };
        let (outcome, told) = self.judge(&key, result);
        self.queue.done(&key, outcome);
        if let Some(observer) = &self.options.observer {
            let (waiting, running) = self.queue.depth();
            observer(&Ended { outcome: told, duration, waiting, running });
        }
    }

    fn judge(&self, key: &R::Key, result: Option<Result<Action, R::Error>>) -> (Outcome, &'static str) {
        let controller = self.options.name;
        match result {
            Some(Ok(Action::Idle)) => (Outcome::Done { again: None }, "ok"),
            Some(Ok(Action::After(after))) => (Outcome::Done { again: Some(after) }, "ok"),
            Some(Err(fault)) => {
                let (disposition, error) = (fault.disposition(), chain(&fault));
                match disposition {
                    Disposition::Conflict => debug!(controller, %key, error, "{key} changed meanwhile"),
                    Disposition::Retry => {
                        warn!(controller, %key, error, "{key} failed and is tried again: {error}")
                    }
                    Disposition::Stop => error!(controller, %key, error, "{key} failed: {error}"),
                }
                (Outcome::Failed(disposition), fault.category())
            }
            None => {
                error!(controller, %key, "{key} panicked and is tried again");
                (Outcome::Failed(Disposition::Retry), "panic")
            }
        }
    }
}

async fn run<R: Reconcile>(reconciler: Arc<R>, key: R::Key) -> Run<R> {
    let began = Instant::now();
    // A reconciler keeps no state between runs but what it protects itself, so a torn one is not seen.
    let result = AssertUnwindSafe(reconciler.reconcile(&key)).catch_unwind().await.ok();
    Run { key, result, duration: began.elapsed() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use thiserror::Error;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[derive(Debug, Error)]
    #[error("it failed")]
    struct Failure(Disposition);

    impl Fault for Failure {
        fn disposition(&self) -> Disposition {
            self.0
        }

        fn category(&self) -> &'static str {
            "test"
        }
    }

    /// What a key does, by its first letter; counts runs and overlaps.
    #[derive(Default)]
    struct Worker {
        runs: Mutex<BTreeMap<String, usize>>,
        now: AtomicUsize,
        most: AtomicUsize,
        finished: AtomicUsize,
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Worker>);

    impl Reconcile for Shared {
        type Key = String;
        type Error = Failure;

        async fn reconcile(&self, key: &String) -> Result<Action, Failure> {
            let run = {
                let mut runs = self.0.runs.lock().unwrap();
                let count = runs.entry(key.clone()).or_default();
                *count += 1;
                *count
            };
            let now = self.0.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.most.fetch_max(now, Ordering::SeqCst);
            sleep(Duration::from_secs(1)).await;
            self.0.now.fetch_sub(1, Ordering::SeqCst);
            self.0.finished.fetch_add(1, Ordering::SeqCst);
            match key.as_bytes()[0] {
                b'p' if run == 1 => panic!("as told"),
                b'f' if run < 4 => Err(Failure(Disposition::Retry)),
                b's' => Err(Failure(Disposition::Stop)),
                b'a' => Ok(Action::After(Duration::from_secs(60))),
                _ => Ok(Action::Idle),
            }
        }
    }

    struct Running {
        worker: Shared,
        queue: Arc<Queue<String>>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
        outcomes: Arc<Mutex<Vec<&'static str>>>,
    }

    fn start(at_once: usize) -> Running {
        let (worker, stop, outcomes) =
            (Shared::default(), CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let told = outcomes.clone();
        let observer: Observer = Arc::new(move |ended| told.lock().unwrap().push(ended.outcome));
        let options = Options { at_once, observer: Some(observer), ..Options::named("test") };
        let controller = Controller::new(worker.clone(), options);
        let (queue, token) = (controller.queue(), stop.clone());
        let task = tokio::spawn(async move { controller.run(token).await });
        Running { worker, queue, stop, task, outcomes }
    }

    impl Running {
        fn runs(&self, key: &str) -> usize {
            self.worker.0.runs.lock().unwrap().get(key).copied().unwrap_or(0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_run_side_by_side_up_to_the_limit() {
        let controller = start(3);
        for n in 0..10 {
            controller.queue.add(format!("i{n}"));
        }
        sleep(Duration::from_secs(5)).await;
        assert_eq!(controller.worker.0.most.load(Ordering::SeqCst), 3);
        assert_eq!(controller.worker.0.finished.load(Ordering::SeqCst), 10);
        assert_eq!(controller.queue.depth(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_key_never_runs_twice_at_once() {
        let controller = start(8);
        for _ in 0..50 {
            controller.queue.add("i".to_owned());
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_secs(5)).await;
        assert_eq!(controller.worker.0.most.load(Ordering::SeqCst), 1);
        assert!((5..=7).contains(&controller.runs("i")), "{}", controller.runs("i"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_contained_counted_and_tried_again() {
        let controller = start(1);
        controller.queue.add("p".to_owned());
        controller.queue.add("i".to_owned());
        sleep(Duration::from_secs(10)).await;
        assert_eq!((controller.runs("p"), controller.runs("i")), (2, 1));
        let outcomes = controller.outcomes.lock().unwrap().clone();
        assert_eq!(outcomes.iter().filter(|o| **o == "panic").count(), 1);
        assert_eq!(outcomes.iter().filter(|o| **o == "ok").count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_until_success_and_final_ones_are_not() {
        let controller = start(2);
        controller.queue.add("f".to_owned());
        controller.queue.add("s".to_owned());
        sleep(Duration::from_secs(600)).await;
        assert_eq!((controller.runs("f"), controller.runs("s")), (4, 1));
        assert_eq!(controller.outcomes.lock().unwrap().iter().filter(|o| **o == "test").count(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_comes_back_when_it_asked_to() {
        let controller = start(2);
        controller.queue.add("a".to_owned());
        sleep(Duration::from_secs(59)).await;
        assert_eq!(controller.runs("a"), 1);
        sleep(Duration::from_secs(4)).await;
        assert_eq!(controller.runs("a"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn told_to_stop_it_finishes_what_runs_and_starts_nothing() {
        let controller = start(2);
        for n in 0..5 {
            controller.queue.add(format!("i{n}"));
        }
        sleep(Duration::from_millis(500)).await;
        controller.stop.cancel();
        timeout(Duration::from_secs(5), controller.task).await.unwrap().unwrap();
        assert_eq!(controller.worker.0.finished.load(Ordering::SeqCst), 2);
        assert_eq!(controller.queue.depth(), (3, 0));
    }
}
