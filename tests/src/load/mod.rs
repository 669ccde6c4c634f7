//! Constant load, and what its users got: the measure for "nobody saw a wrong answer".
//!
//! Requests start at a fixed rate whatever becomes of the earlier ones, half of them on a connection of their own and
//! half on connections that are kept. Nothing is repeated or forgiven: a client that is refused, cut off or kept
//! waiting counts, also where a browser would have tried again.

mod client;
mod report;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skep::runtime::clock;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

pub use report::{Report, Second, Span, Totals};

use client::{Connection, ask_once};

/// How long most users wait for an answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Requests a second of one client that keeps its connection.
const KEPT_RATE: u32 = 10;
const KEPT_EVERY: Duration = Duration::from_millis(1000 / KEPT_RATE as u64);

/// What to ask, and how often.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where the proxy listens.
    pub target: SocketAddr,
    /// Path of the GET requests.
    pub path: String,
    /// Requests a second, all clients together.
    pub rate: u32,
    /// Every so many requests one is `POST /orders`; none where 0.
    pub order_every: u32,
    /// Longest time for an answer; more is a wrong one.
    pub patience: Duration,
}

/// What one request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The application's own good answer.
    App,
    /// The application's own answer that it cannot.
    AppError,
    /// 503 with the maintenance page.
    Page,
    /// Anything else.
    Wrong(Wrong),
}

/// What a user must never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// No connection.
    Refused,
    /// The connection ended in the middle.
    Reset,
    /// No answer in time.
    Timeout,
    /// An answer that is neither the application's nor the page.
    Status(u16),
    /// Something else.
    Other,
}

/// One request: when it began (since the start of the load), how long it took, and what came.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the start of the load.
    pub sent: Duration,
    /// Until the last byte, or until it failed.
    pub took: Duration,
    /// What it came to.
    pub verdict: Verdict,
}

/// What the clients share.
struct Shared {
    load: Load,
    start: Instant,
    samples: Mutex<Vec<Sample>>,
}

// === impl Shared ===

impl Shared {
    fn note(&self, sent: Instant, verdict: Verdict) {
        let sample = Sample { sent: sent - self.start, took: sent.elapsed(), verdict };
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    }

    /// Whether the request number `number` places an order.
    fn is_order(&self, number: u32) -> bool {
        self.load.order_every > 0 && number.is_multiple_of(self.load.order_every)
    }
}

/// Sends requests until `stop` resolves, waits for the last answers, and says what came.
pub async fn run(load: Load, stop: impl Future<Output = ()>) -> Report {
    let started = clock::now();
    let shared = Arc::new(Shared { load, start: Instant::now(), samples: Mutex::default() });
    let (kept, single) = shares(shared.load.rate);
    let mut clients = JoinSet::new();
    let (told, stopped) = tokio::sync::watch::channel(false);
    for first in 0..kept {
        clients.spawn(kept_client(Arc::clone(&shared), first, stopped.clone()));
    }
    if single > 0 {
        clients.spawn(single_clients(Arc::clone(&shared), single, stopped));
    }
    stop.await;
    told.send_replace(true);
    clients.join_all().await;
    let samples = std::mem::take(&mut *shared.samples.lock().unwrap_or_else(PoisonError::into_inner));
    Report::new(started, shared.start.elapsed(), samples)
}

/// How many clients keep their connection, and the rate of the others together.
fn shares(rate: u32) -> (u32, u32) {
    let kept = rate / 2 / KEPT_RATE;
    (kept, rate - kept * KEPT_RATE)
}

type Stopped = tokio::sync::watch::Receiver<bool>;

/// One client with a connection that it keeps as long as the other side does.
async fn kept_client(shared: Arc<Shared>, first: u32, mut stopped: Stopped) {
    // Spread over the time of one tick, not all at once.
    let (kept, _) = shares(shared.load.rate);
    let mut ticks = interval_at(shared.start + KEPT_EVERY * first / kept, KEPT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    let mut number = first;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            _ = ticks.tick() => {}
        }
        let sent = Instant::now();
        let asked = ask_kept(&mut connection, &shared.load, shared.is_order(number));
        let verdict = timeout(shared.load.patience, asked).await.unwrap_or(Verdict::Wrong(Wrong::Timeout));
        if matches!(verdict, Verdict::Wrong(Wrong::Refused | Wrong::Reset | Wrong::Timeout | Wrong::Other)) {
            connection = None;
        }
        shared.note(sent, verdict);
        number = number.wrapping_add(1);
    }
}

/// Asks on the connection held, or on a new one where the other side has closed it while nothing was asked.
async fn ask_kept(held: &mut Option<Connection>, load: &Load, is_order: bool) -> Verdict {
    if !held.as_mut().is_some_and(Connection::is_usable) {
        match Connection::open(load.target).await {
            Ok(connection) => *held = Some(connection),
            Err(wrong) => return Verdict::Wrong(wrong),
        }
    }
    match held {
        Some(connection) => connection.ask(load, is_order, true).await,
        None => Verdict::Wrong(Wrong::Other),
    }
}

/// Clients that come once each.
async fn single_clients(shared: Arc<Shared>, rate: u32, mut stopped: Stopped) {
    let mut ticks = interval(Duration::from_secs(1) / rate);
    let mut under_way = JoinSet::new();
    for number in 0_u32.. {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            _ = ticks.tick() => {}
        }
        while under_way.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        under_way.spawn(async move {
            let sent = Instant::now();
            let asked = ask_once(&shared.load, shared.is_order(number));
            let verdict =
                timeout(shared.load.patience, asked).await.unwrap_or(Verdict::Wrong(Wrong::Timeout));
            shared.note(sent, verdict);
        });
    }
    under_way.join_all().await;
}

#[cfg(test)]
mod tests;
