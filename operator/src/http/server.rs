//! Routes, and the loop that accepts connections.
//!
//! Invariants: a slow or silent client holds one connection for a bounded time and nothing else; the webhook and the
//! pages are two routers, so that they can listen on two networks.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::metrics::{self, Metrics};
use super::status::Pages;
use super::token::Tokens;
use super::view::View;
use super::{actions, status, waker, webhook};
use crate::operation::door;
use crate::operation::record::OpId;
use crate::operation::waker::{Granted, PATH, Request};
use crate::runtime::clock;
use crate::triggers::alertmanager::Entry;
use crate::triggers::doors::{Lulled, Unused};
use crate::triggers::intake::{Decided, Unstored};

/// Most connections at once; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// Longest time for a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// Longest time for a whole request and its answer.
pub(super) const WHOLE: Duration = Duration::from_secs(60);
/// Longest time that open connections get to end when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// What the handlers ask for. The composition root answers from the world and the engine.
pub trait Desk: Send + Sync + 'static {
    /// Judges alerts and stores what was decided.
    fn alerts(&self, entries: Vec<Entry>) -> impl Future<Output = Result<Vec<Decided>, Unstored>> + Send;

    /// Approves an operation that waits for a person.
    fn approve(&self, op: &OpId, who: &str) -> impl Future<Output = Result<(), Denied>> + Send;

    /// Calls an operation off: it ends, or turns back.
    fn cancel(&self, op: &OpId, who: &str) -> impl Future<Output = Result<(), Denied>> + Send;

    /// Closes the circuit of a service, so that alerts restore it again.
    fn reset_circuit(&self, service: &str, who: &str) -> impl Future<Output = Result<(), Denied>> + Send;

    /// Wakes a service on behalf of what stands in for it.
    fn wake(&self, request: &Request) -> impl Future<Output = Result<Granted, Denied>> + Send;

    /// Lets a service sleep whose door sees nobody.
    fn lull(&self, unused: &Unused) -> impl Future<Output = Result<Lulled, Denied>> + Send;

    /// The last view; none before the Swarm was read for the first time.
    fn view(&self) -> Option<Arc<View>>;

    /// Whether requests make sense here, or why not.
    fn ready(&self) -> Result<(), String>;
}

/// Why a person's wish was not fulfilled.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Denied {
    /// No such operation or service.
    #[error("there is no such operation or service")]
    NotFound,
    /// It is not in a state in which that makes sense.
    #[error("{0}")]
    Conflict(String),
    /// It could not be stored; trying again may help.
    #[error("it could not be stored: {0}")]
    Unstored(Unstored),
}

/// What all handlers share.
pub struct Shared<D> {
    /// Answers them.
    pub desk: D,
    /// Counts what they do, and is served by one of them.
    pub metrics: Arc<Metrics>,
    /// Opens the webhook.
    pub webhook_tokens: Tokens,
    /// Opens approve, cancel and reset.
    pub people_tokens: Tokens,
    /// Renders pages.
    pub pages: Pages,
    /// The clock.
    pub now: fn() -> Timestamp,
}

// === impl Shared ===

impl<D> Shared<D> {
    /// With the real clock.
    pub fn new(desk: D, metrics: Arc<Metrics>, webhook_tokens: Tokens, people_tokens: Tokens) -> Shared<D> {
        Shared { desk, metrics, webhook_tokens, people_tokens, pages: Pages::new(), now: clock::now }
    }
}

/// Health, metrics, the status page with its JSON, and what people do there.
pub fn pages<D: Desk>(shared: Arc<Shared<D>>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready::<D>))
        .route("/metrics", get(render_metrics::<D>))
        .route("/", get(status::overview::<D>))
        .route("/operations/{id}", get(status::operation::<D>))
        .route("/assets/{name}", get(status::asset))
        .route("/api/v1/status", get(status::api_overview::<D>))
        .route("/api/v1/operations/{id}", get(status::api_operation::<D>))
        .route("/operations/{id}/approve", post(actions::approve::<D>))
        .route("/operations/{id}/cancel", post(actions::cancel::<D>))
        .route("/services/{name}/reset-circuit", post(actions::reset_circuit::<D>))
        .route("/api/v1/operations/{id}/approve", post(actions::approve::<D>))
        .route("/api/v1/operations/{id}/cancel", post(actions::cancel::<D>))
        .route("/api/v1/services/{name}/reset-circuit", post(actions::reset_circuit::<D>))
        .fallback(status::not_found::<D>)
        .layer(DefaultBodyLimit::max(16 * 1024))
        .layer(map_response(harden))
        .with_state(shared)
}

/// What wakers and doors ask.
pub fn wakers<D: Desk>(shared: Arc<Shared<D>>) -> Router {
    Router::new()
        .route(PATH, post(waker::wake::<D>))
        .route(door::PATH, post(waker::lull::<D>))
        .layer(DefaultBodyLimit::max(4 * 1024))
        .layer(map_response(harden))
        .with_state(shared)
}

/// The webhook of Alertmanager.
pub fn alerts<D: Desk>(shared: Arc<Shared<D>>) -> Router {
    Router::new()
        .route("/webhooks/alertmanager", post(webhook::alertmanager::<D>))
        .layer(DefaultBodyLimit::disable()) // the handler has its own, so that it can say so
        .layer(map_response(harden))
        .with_state(shared)
}

async fn ready<D: Desk>(State(shared): State<Arc<Shared<D>>>) -> Response {
    match shared.desk.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn render_metrics<D: Desk>(State(shared): State<Arc<Shared<D>>>) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], shared.metrics.render()).into_response()
}

/// A page of ours loads nothing from elsewhere, is framed by nobody, and is not kept.
async fn harden(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                          connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Serves until told to stop; then requests that are under way get a few seconds.
///
/// # Errors
/// When the listener is broken for good.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) if is_of_one_connection(&e) => continue,
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept connections for now");
                tokio::time::sleep(Duration::from_secs(1)).await; // out of file descriptors: some will be closed
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        let (router, stop) = (router.clone(), stop.clone());
        tasks.spawn(async move {
            connection(stream, router, stop).await;
            drop(permit);
        });
    }
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::info!("connections were still open when the server stopped");
    }
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection ended early");
    }
}

fn is_of_one_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
