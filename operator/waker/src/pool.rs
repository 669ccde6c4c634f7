//! Connections to the application: idle ones of HTTP/1, and one of HTTP/2 for each address.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout};

use crate::body::Upload;
use crate::socket;

/// How many idle connections are kept for an address.
const IDLE: usize = 256;
/// How long one may be idle for a request that may be sent twice.
const STALE: Duration = Duration::from_secs(60);
/// And for one that may not: hardly an application closes a connection so soon, and a request that meets the closing would
/// be lost.
const STALE_FOR_ONE: Duration = Duration::from_secs(1);
/// How long a connection may take to be ready again after its last response.
const READY: Duration = Duration::from_millis(50);

type Sender1 = http1::SendRequest<Upload>;
type Sender2 = http2::SendRequest<Upload>;

/// See the module.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    shared: Mutex<HashMap<SocketAddr, Shared>>,
    connect: Duration,
}

struct Idle {
    sender: Sender1,
    since: Instant,
}

type Shared = Arc<tokio::sync::Mutex<Option<Sender2>>>;

/// A connection that is used by one request.
pub(crate) struct Lent {
    pub(crate) sender: Sender1,
    /// Whether another request used it before.
    pub(crate) is_old: bool,
    to: SocketAddr,
    pool: Arc<Pool>,
}

// === impl Pool ===

impl Pool {
    pub(crate) fn new(connect: Duration) -> Pool {
        Pool { connect, ..Pool::default() }
    }

    /// A connection for a request: an idle one, fresh enough unless the request `is_safe` to be sent twice, or a new one.
    pub(crate) async fn lend(self: &Arc<Self>, to: SocketAddr, is_safe: bool) -> io::Result<Lent> {
        let limit = if is_safe { STALE } else { STALE_FOR_ONE };
        let lent = |sender, is_old| Lent { sender, is_old, to, pool: self.clone() };
        while let Some(mut idle) = self.pop(to) {
            if idle.since.elapsed() > limit || idle.sender.is_closed() {
                continue;
            }
            if idle.sender.is_ready() || matches!(timeout(READY, idle.sender.ready()).await, Ok(Ok(()))) {
                return Ok(lent(idle.sender, true));
            }
        }
        let stream = socket::connect(to, self.connect).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // What goes wrong with the connection is seen by its requests.
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(lent(sender, false))
    }

    /// The connection that all requests of HTTP/2 to this address share.
    pub(crate) async fn share(&self, to: SocketAddr) -> io::Result<Sender2> {
        let shared = held(&self.shared).entry(to).or_default().clone();
        let mut shared = shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|s| !s.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = socket::connect(to, self.connect).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(shared.insert(sender).clone())
    }

    fn pop(&self, to: SocketAddr) -> Option<Idle> {
        held(&self.idle).get_mut(&to)?.pop()
    }

    fn push(&self, to: SocketAddr, sender: Sender1) {
        let mut all = held(&self.idle);
        let idle = all.entry(to).or_default();
        if idle.len() >= IDLE {
            idle.retain(|i| !i.sender.is_closed() && i.since.elapsed() < STALE);
        }
        if idle.len() < IDLE {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

/// What it guards is whole after every statement.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Lent ===

impl Lent {
    /// All of a response has come: the next request may have the connection.
    pub(crate) fn give_back(self) {
        if !self.sender.is_closed() {
            self.pool.push(self.to, self.sender);
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("to", &self.to).finish_non_exhaustive()
    }
}
