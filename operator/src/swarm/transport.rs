//! Carries requests to the engine, for bollard and for the raw client alike.
//!
//! ```text
//! bollard (events, lists, logs) ─┐
//! raw JSON (everything else)   ──┴─▶ Transport ── /v1.xx/… ──▶ unix socket | TCP | in-process stream
//! ```
//!
//! Invariants: every path is pinned to one negotiated API version; every request has a deadline (S19), of streams
//! only the head has; a write uses a fresh connection, so that a connection that died while idle cannot make its
//! outcome unknown; every request is counted under a template from a closed set.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::error::{Effect, Failure};

/// Longest time for the answer to a read, or for a connection to be made.
pub const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Longest time for the answer to a write. Longer than a change of Swarm leader takes.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Header with registry credentials.
pub(super) const REGISTRY_AUTH: &str = "x-registry-auth";

const IDLE_CONNECTIONS: usize = 4;
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Makes a stream to an engine in this process.
pub type Connector = Arc<dyn Fn() -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync>;

/// Where the engine is.
#[derive(Clone)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// An engine in this process.
    InProcess(Connector),
}

/// One request and how it ended, for metrics.
#[derive(Clone, Debug)]
pub struct Observed {
    /// HTTP method.
    pub method: Method,
    /// Path with `{id}` for what varies, without the API version.
    pub template: &'static str,
    /// HTTP status; none where no answer came.
    pub status: Option<u16>,
    /// Time until the answer's head (for whole answers, its body) was there.
    pub duration: Duration,
}

/// Is told of every request.
pub type Observer = Arc<dyn Fn(&Observed) + Send + Sync>;

/// A request to the engine.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Path and query, without the API version.
    pub(super) path: String,
    pub(super) registry_auth: Option<HeaderValue>,
    pub(super) body: Bytes,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

type Sender = SendRequest<Full<Bytes>>;

/// See the module.
pub(super) struct Transport {
    endpoint: Endpoint,
    /// `/v1.41`, once negotiated.
    prefix: OnceLock<String>,
    idle: Mutex<Vec<Sender>>,
    calls: Mutex<BTreeMap<(Method, &'static str), u64>>,
    observer: OnceLock<Observer>,
}

// === impl Endpoint ===

impl Endpoint {
    /// An engine in this process that is reached through the streams that `connect` makes.
    pub fn in_process<F, R>(connect: F) -> Endpoint
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<DuplexStream>> + Send + 'static,
    {
        Endpoint::InProcess(Arc::new(move || Box::pin(connect())))
    }

    /// Reads `unix:///var/run/docker.sock`, `/var/run/docker.sock` or `tcp://host:port`; none for anything else.
    pub fn parse(text: &str) -> Option<Endpoint> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Some(Endpoint::Unix(path.into()));
        }
        if text.starts_with('/') {
            return Some(Endpoint::Unix(text.into()));
        }
        let host = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://"))?;
        Some(Endpoint::Tcp(host.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp(host) => write!(f, "tcp://{host}"),
            Endpoint::InProcess(_) => f.write_str("an engine in this process"),
        }
    }
}

// === impl Call ===

impl Call {
    pub(super) fn get(path: String) -> Call {
        Call { method: Method::GET, path, registry_auth: None, body: Bytes::new() }
    }

    pub(super) fn delete(path: String) -> Call {
        Call { method: Method::DELETE, path, registry_auth: None, body: Bytes::new() }
    }

    pub(super) fn post(path: String, body: &serde_json::Value) -> Call {
        Call { method: Method::POST, path, registry_auth: None, body: Bytes::from(body.to_string()) }
    }
}

// === impl Transport ===

impl Transport {
    pub(super) fn new(endpoint: Endpoint) -> Transport {
        Transport {
            endpoint,
            prefix: OnceLock::new(),
            idle: Mutex::default(),
            calls: Mutex::default(),
            observer: OnceLock::new(),
        }
    }

    /// Pins all further paths to an API version, `1.41`. The first call decides.
    pub(super) fn pin(&self, version: &str) {
        self.prefix.get_or_init(|| format!("/v{version}"));
    }

    /// The pinned API version, empty before it is negotiated.
    pub(super) fn version(&self) -> &str {
        self.prefix.get().map_or("", |p| p.trim_start_matches("/v"))
    }

    pub(super) fn observe_by(&self, observer: Observer) {
        // A second observer is a mistake in the composition of the program; the first stays.
        let _ = self.observer.set(observer);
    }

    pub(super) fn calls(&self) -> BTreeMap<(Method, &'static str), u64> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request and reads the whole answer within the deadline of its effect.
    pub(super) async fn exchange(&self, call: Call, effect: Effect) -> Result<Answer, Failure> {
        self.exchange_within(call, effect, READ_DEADLINE).await
    }

    /// The same, of a read that may take another time.
    pub(super) async fn exchange_within(
        &self,
        call: Call,
        effect: Effect,
        reading: Duration,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        let (method, template) = (call.method.clone(), self.count(&call));
        let result = match effect {
            Effect::Read => within(reading, self.read(call)).await,
            Effect::Write => {
                let sender = self.connect().await;
                match sender {
                    Ok(sender) => within(WRITE_DEADLINE, self.send_whole(sender, call)).await,
                    Err(failure) => Err(failure),
                }
            }
        };
        self.report(method, template, result.as_ref().ok().map(|a| a.status), began);
        result
    }

    /// Sends a read and waits for the head of the answer only; the connection is used for nothing else.
    pub(super) async fn open(&self, call: Call) -> Result<Response<Incoming>, Failure> {
        let began = Instant::now();
        let (method, template) = (call.method.clone(), self.count(&call));
        let head = async {
            let mut sender = self.connect().await?;
            send(&mut sender, self.request(call)?).await
        };
        let result = within(READ_DEADLINE, head).await;
        self.report(method, template, result.as_ref().ok().map(|r| r.status().as_u16()), began);
        result
    }

    async fn read(&self, call: Call) -> Result<Answer, Failure> {
        if let Some(sender) = self.idle_sender() {
            // An idle connection may have died unnoticed; a read is simply sent again on a fresh one.
            if let Ok(answer) = self.send_whole(sender, call.clone()).await {
                return Ok(answer);
            }
        }
        let sender = self.connect().await?;
        self.send_whole(sender, call).await
    }

    async fn send_whole(&self, mut sender: Sender, call: Call) -> Result<Answer, Failure> {
        let response = send(&mut sender, self.request(call)?).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await;
        let body = body.map_err(|e| Failure::NoAnswer(chain(&e)))?.to_bytes();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS && !sender.is_closed() {
            idle.push(sender);
        }
        Ok(Answer { status, body })
    }

    fn idle_sender(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|s| !s.is_closed());
        let ready = idle.iter().rposition(SendRequest::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, Failure> {
        let uri = format!("{}{}", self.prefix.get().map_or("", String::as_str), call.path);
        let mut request = Request::builder().method(call.method).uri(uri).header(HOST, "docker");
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(auth) = call.registry_auth {
            request = request.header(REGISTRY_AUTH, auth);
        }
        request.body(Full::new(call.body)).map_err(|e| Failure::NotSent(e.to_string()))
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let connected = async {
            match &self.endpoint {
                Endpoint::Unix(path) => shake(UnixStream::connect(path).await).await,
                Endpoint::Tcp(host) => shake(TcpStream::connect(host).await).await,
                Endpoint::InProcess(connect) => shake(connect().await).await,
            }
        };
        let result =
            timeout(READ_DEADLINE, connected).await.unwrap_or_else(|_| Err("no connection in time".into()));
        result.map_err(|message| Failure::NotSent(format!("{}: {message}", self.endpoint)))
    }

    fn count(&self, call: &Call) -> &'static str {
        let template = template(&call.path);
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry((call.method.clone(), template)).or_default() += 1;
        template
    }

    fn report(&self, method: Method, template: &'static str, status: Option<u16>, began: Instant) {
        if let Some(observer) = self.observer.get() {
            observer(&Observed { method, template, status, duration: began.elapsed() });
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({}, API {})", self.endpoint, self.version())
    }
}

/// A path segment or query value with everything encoded that could mean something.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// A path with `{id}` for what varies: a closed set.
pub(super) fn template(path: &str) -> &'static str {
    let path = path.split('?').next().unwrap_or_default();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        ["version"] => "/version",
        ["info"] => "/info",
        ["events"] => "/events",
        ["nodes"] => "/nodes",
        ["networks"] => "/networks",
        ["networks", _] => "/networks/{id}",
        ["configs"] => "/configs",
        ["configs", "create"] => "/configs/create",
        ["configs", _] => "/configs/{id}",
        ["configs", _, "update"] => "/configs/{id}/update",
        ["secrets"] => "/secrets",
        ["secrets", "create"] => "/secrets/create",
        ["secrets", _] => "/secrets/{id}",
        ["services"] => "/services",
        ["services", "create"] => "/services/create",
        ["services", _] => "/services/{id}",
        ["services", _, "update"] => "/services/{id}/update",
        ["services", _, "logs"] => "/services/{id}/logs",
        ["distribution", .., "json"] => "/distribution/{name}/json",
        ["tasks"] => "/tasks",
        ["tasks", _, "logs"] => "/tasks/{id}/logs",
        _ => "other",
    }
}

async fn shake<S>(stream: io::Result<S>) -> Result<Sender, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = stream.map_err(|e| e.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| chain(&e))?;
    // The driver ends with its connection; what goes wrong in it is seen by the request.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn send(sender: &mut Sender, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
    sender.ready().await.map_err(|e| Failure::NotSent(chain(&e)))?;
    sender.try_send_request(request).await.map_err(|mut e| match e.take_message() {
        Some(_) => Failure::NotSent(chain(e.error())),
        None => Failure::NoAnswer(chain(e.error())),
    })
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(deadline, work)
        .await
        .unwrap_or_else(|_| Err(Failure::NoAnswer(format!("no answer within {} s", deadline.as_secs()))))
}

/// The texts of an error and its sources: hyper keeps the cause in the source.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
