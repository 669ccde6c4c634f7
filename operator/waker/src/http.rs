//! One HTTP connection, and what becomes of each of its requests.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, CONNECTION, EXPECT, HeaderValue, USER_AGENT};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::Notify;
use tokio::time::{Instant, interval_at, timeout};

use crate::HEALTH_PATH;
use crate::body::Body;
use crate::headers::{self, WAKER};
use crate::page::plain;
use crate::pass::{NotPassed, Patience, pass};
use crate::rule::Seen;
use crate::socket::{self, Socket};
use crate::task::Mode;
use crate::waker::{Accepted, Shared};

/// How long a client may go on sending what is answered by a page: it would not see the page otherwise.
const LINGER: Duration = Duration::from_secs(10);
/// How many requests one connection of HTTP/2 may have at a time.
const STREAMS: u32 = 250;

/// Whether a connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It is.
    Enough,
    /// There are too many: it is told so.
    Full,
}

struct Connection {
    shared: Arc<Shared>,
    peer: IpAddr,
    port: u16,
    room: Room,
    socket: Socket,
    /// Requests so far, and now.
    ever: AtomicU64,
    now: AtomicUsize,
    is_http2: AtomicBool,
    close: Notify,
}

/// What of a request decides how a page is answered, when the request itself has gone its way.
struct Wish {
    accept: Option<HeaderValue>,
    /// Whether the client sends the body only when it is told to.
    expects: bool,
}

/// A request of a connection, as long as this lives.
struct Counted<'a>(&'a Connection);

/// Serves a connection until it ends.
pub(crate) async fn serve(accepted: Accepted, room: Room) {
    let Accepted { shared, stream, peer, port, mut over } = accepted;
    socket::prepare(&stream);
    let socket = Socket::new(stream);
    let connection = Arc::new(Connection {
        shared: shared.clone(),
        peer,
        port,
        room,
        socket: socket.clone(),
        ever: AtomicU64::new(0),
        now: AtomicUsize::new(0),
        is_http2: AtomicBool::new(false),
        close: Notify::new(),
    });
    let idle = shared.settings.idle;
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).keep_alive_interval(idle);
    let service = {
        let connection = connection.clone();
        service_fn(move |request| answer(connection.clone(), request).map(Ok::<_, Infallible>))
    };
    let served = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
    tokio::pin!(served);
    let mut left = shared.leaving.subscribe();
    let mut look = interval_at(Instant::now() + idle, idle);
    let (mut before, mut is_told) = (0, false);
    loop {
        tokio::select! {
            // What goes wrong with a connection is its client's.
            _ = served.as_mut() => return,
            _ = look.tick() => {
                let ever = connection.ever.load(Ordering::Relaxed);
                if ever == before && connection.now.load(Ordering::Relaxed) == 0 {
                    served.as_mut().graceful_shutdown();
                }
                before = ever;
            }
            // Of HTTP/2 each request is answered that the client sends before it hears of this; one of HTTP/1 that is idle
            // would be cut off under a request on its way, so there the next response says it.
            _ = left.wait_for(|left| *left), if !is_told => {
                is_told = true;
                if connection.is_http2.load(Ordering::Relaxed) {
                    served.as_mut().graceful_shutdown();
                }
            }
            () = connection.close.notified() => served.as_mut().graceful_shutdown(),
            _ = over.changed() => served.as_mut().graceful_shutdown(),
        }
    }
}

async fn answer(connection: Arc<Connection>, request: Request<Incoming>) -> Response<Body> {
    let version = request.version();
    if version == Version::HTTP_2 {
        connection.is_http2.store(true, Ordering::Relaxed);
    }
    let mut response = {
        let _counted = connection.count();
        connection.answer(request).await
    };
    if connection.shared.open.is_leaving() || connection.room == Room::Full {
        match version {
            Version::HTTP_2 => connection.close.notify_one(),
            _ if response.status() == StatusCode::SWITCHING_PROTOCOLS => {}
            _ => {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
    }
    response
}

// === impl Connection ===

impl Connection {
    fn count(&self) -> Counted<'_> {
        self.ever.fetch_add(1, Ordering::Relaxed);
        self.now.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let shared = &*self.shared;
        if request.uri().path() == HEALTH_PATH && self.peer.is_loopback() {
            return plain(StatusCode::OK, Bytes::from_static(b"ok\n"), "text/plain");
        }
        let mut busy = shared.open.begin();
        if headers::is_circle(request.headers(), &shared.sleep, shared.task.door.is_some()) {
            let text = Bytes::from_static(b"a waker, not the application\n");
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text, "text/plain");
            response.headers_mut().insert(WAKER, shared.sleep.clone());
            return response;
        }
        if request.method() == Method::CONNECT {
            let text = Bytes::from_static(b"no tunnels to elsewhere\n");
            return plain(StatusCode::METHOD_NOT_ALLOWED, text, "text/plain");
        }
        let wish = Wish::of(request.headers());
        let is_ignored = self.is_ignored(&request);
        if !is_ignored {
            // Before anybody looks whether it is let through: a door that holds everybody sees one of the two.
            busy.is_use();
        }
        let is_up = shared.gate.is_up();
        if self.room == Room::Full || (is_ignored && !is_up && !shared.is_there_anyway().await) {
            return self.page(&wish, Some(request.into_body()));
        }
        let patience = match shared.task.mode {
            // It is passed on if that can be, and neither waits nor wakes.
            _ if is_ignored && (!is_up || shared.task.door.is_some()) => Patience::None,
            Mode::Hold => Patience::Until(Instant::now() + Duration::from_secs(shared.task.timeout_s)),
            Mode::Page => {
                if !shared.gate.is_up() {
                    shared.gate.paged();
                    shared.gate.looked().await;
                }
                Patience::None
            }
        };
        let has_body = !request.body().is_end_stream();
        let passed = tokio::select! {
            passed = pass(shared, request, (self.peer, self.port), busy, patience) => passed,
            () = self.gone(has_body) => return self.page(&wish, None),
        };
        match passed {
            Ok(response) => response,
            Err(NotPassed::NotThere(left)) => {
                if is_ignored {
                    shared.is_not_there_either();
                } else if shared.task.mode == Mode::Page {
                    shared.gate.paged();
                }
                self.page(&wish, left)
            }
            Err(NotPassed::Broken) => plain(
                StatusCode::BAD_GATEWAY,
                Bytes::from_static(b"the application broke off\n"),
                "text/plain",
            ),
        }
    }

    /// What the rules say. A monitor sees the application when it is there.
    fn is_ignored(&self, request: &Request<Incoming>) -> bool {
        let agent = request.headers().get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
        let source = headers::source(request.headers(), self.peer);
        self.shared.rules.any(&Seen { path: request.uri().path(), agent, source })
    }

    fn page(&self, wish: &Wish, left: Option<Incoming>) -> Response<Body> {
        // Who waits to be told to send it need not.
        if let Some(body) = left.filter(|b| !b.is_end_stream() && !wish.expects) {
            tokio::spawn(timeout(LINGER, throw_away(body)));
        }
        self.shared.page.answer(wish.accept.as_ref())
    }

    /// Waits until the client has gone. hyper sees it, unless there is something that it has not read.
    async fn gone(&self, has_body: bool) {
        if !has_body || self.is_http2.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.socket.no_more().await;
    }
}

async fn throw_away(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

// === impl Wish ===

impl Wish {
    fn of(headers: &HeaderMap) -> Wish {
        Wish { accept: headers.get(ACCEPT).cloned(), expects: headers.contains_key(EXPECT) }
    }
}

// === impl Counted ===

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}
