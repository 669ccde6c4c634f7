//! HTTP in front of the simulated API, over in-process streams and unix sockets; where faults strike.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::api::{self, API_VERSION, Answer, Answered, Refusal, Request};
use super::fault::{Call, Cut, Fault};
use super::{Shared, Sim};

/// Opens a connection to the simulated API.
pub type Connector = Arc<dyn Fn() -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync>;

type Body = BoxBody<Bytes, Infallible>;

/// How long a manager that is cut off answers reads from what it knows.
const STALE_READS: Duration = Duration::from_secs(18);
/// When its hanging writes fail.
const HANGING_WRITES: Duration = Duration::from_secs(27);
const NO_LEADER: &str = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

// === impl Sim ===

impl Sim {
    /// How the client of that name connects.
    pub fn client(&self, name: &str) -> Connector {
        let (sim, name) = (self.clone(), name.to_owned());
        Arc::new(move || {
            let (sim, name) = (sim.clone(), name.clone());
            Box::pin(async move {
                if sim.shared.lock().book.is_dead(&name) {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let (ours, theirs) = tokio::io::duplex(256 * 1024);
                tokio::spawn(serve(Arc::clone(&sim.shared), name, ours));
                Ok(theirs)
            })
        })
    }

    /// Serves the API on a unix socket until the runtime ends, as one client.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn serve_unix(&self, path: &Path, name: &str) -> io::Result<()> {
        let listener = UnixListener::bind(path)?;
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&shared), name.clone(), stream));
            }
        });
        Ok(())
    }
}

/// Serves one connection until it ends or its client dies.
async fn serve<S>(shared: Arc<Shared>, client: String, stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut death = shared.lock().book.watch_death(&client);
    let service = service_fn(move |request| {
        let (shared, client) = (Arc::clone(&shared), client.clone());
        async move { handle(&shared, &client, request).await }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        _ = death.wait_for(|dead| *dead) => {}
    }
}

/// Answers one request. An error cuts the connection.
async fn handle(
    shared: &Shared,
    client: &str,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let (path, refused) = match versioned(parts.uri.path()) {
        Ok(path) => (path, None),
        Err(refusal) => (parts.uri.path(), Some(refusal)),
    };
    let request = Request {
        method: parts.method.as_str().to_owned(),
        path: path.split('/').filter(|p| !p.is_empty()).map(decode).collect(),
        query: query(parts.uri.query().unwrap_or_default()),
        body,
    };
    let call = Call {
        at: shared.now(),
        endpoint: request.endpoint(),
        path: format!("{path}{}", parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default()),
        status: None,
    };
    let (number, fault) = shared.lock().book.arrive(client, call);
    let answered = match refused {
        Some(refusal) => Err(refusal),
        None => with_fault(shared, client, &request, fault).await?,
    };
    let response = respond(answered, request.method == "HEAD");
    shared.lock().book.answered(client, number, response.status().as_u16());
    Ok(response)
}

async fn with_fault(
    shared: &Shared,
    client: &str,
    request: &Request,
    fault: Option<Fault>,
) -> io::Result<Answered> {
    let cut = || io::Error::from(io::ErrorKind::ConnectionReset);
    match fault {
        None => Ok(act(shared, client, request).await),
        Some(Fault::Fail(status, message)) => Ok(Err(Refusal::new(status, &message))),
        Some(Fault::Delay(before, after)) => {
            tokio::time::sleep(before).await;
            let answered = act(shared, client, request).await;
            tokio::time::sleep(after).await;
            Ok(answered)
        }
        Some(Fault::Cut(when)) => {
            if when == Cut::After {
                let _ = act(shared, client, request).await;
            }
            Err(cut())
        }
        Some(Fault::Kill(when)) => {
            if when == Cut::After {
                let _ = act(shared, client, request).await;
            }
            shared.lock().book.set_dead(client, true);
            Err(cut())
        }
    }
}

/// Lets a request take effect, as soon as the managers answer.
async fn act(shared: &Shared, client: &str, request: &Request) -> Answered {
    if !request.is_local() {
        shared.thawed().await;
        if let Some(answered) = act_cut_off(shared, client, request).await {
            return answered;
        }
    }
    let answered = {
        let mut engine = shared.lock();
        engine.advance(shared.now());
        engine.answer(request)
    };
    shared.changed.notify_one();
    answered
}

/// What a manager answers that is cut off from the others; none when this client's is not.
async fn act_cut_off(shared: &Shared, client: &str, request: &Request) -> Option<Answered> {
    let is_read = matches!(request.method.as_str(), "GET" | "HEAD");
    let since = {
        let mut engine = shared.lock();
        let (since, raft) = engine.book.is_cut_off(client)?;
        if is_read && shared.now() < since + STALE_READS {
            return Some(api::read(raft, request));
        }
        since
    };
    if !is_read && shared.now() < since + HANGING_WRITES {
        tokio::time::sleep(since + HANGING_WRITES - shared.now()).await;
        let text = "rpc error: code = Unknown desc = node lost leader status";
        return Some(Err(Refusal::new(500, text)));
    }
    Some(Err(Refusal::new(500, NO_LEADER)))
}

/// The path without its version, unless that is one that the engine does not speak.
fn versioned(path: &str) -> Result<&str, Refusal> {
    let Some((version, rest)) = path.strip_prefix("/v1.").and_then(|p| p.split_once('/')) else {
        return Ok(path);
    };
    let newest = API_VERSION.trim_start_matches("1.").parse().unwrap_or(0);
    match version.parse::<u32>() {
        Ok(minor) if minor > newest => Err(Refusal::new(
            400,
            &format!("client version 1.{minor} is too new. Maximum supported API version is {API_VERSION}"),
        )),
        Ok(_) => Ok(&path[path.len() - rest.len() - 1..]),
        Err(_) => Ok(path),
    }
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|p| !p.is_empty());
    pairs.map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

/// Undoes percent-encoding and `+`.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'%'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn respond(answered: Answered, is_head: bool) -> hyper::Response<Body> {
    let builder = hyper::Response::builder()
        .header("Api-Version", API_VERSION)
        .header("Ostype", "linux")
        .header("Server", "Docker/20.10.24 (linux)");
    let full = |bytes: Bytes| Full::new(if is_head { Bytes::new() } else { bytes }).boxed();
    let json = "application/json";
    let response = match answered {
        Ok(Answer::Json(status, value)) => {
            builder.status(status).header("Content-Type", json).body(full(value.to_string().into()))
        }
        Ok(Answer::Empty(status)) => builder.status(status).body(full(Bytes::new())),
        Ok(Answer::Text(text)) => {
            builder.status(200).header("Content-Type", "text/plain; charset=utf-8").body(full(text.into()))
        }
        Ok(Answer::Frames(bytes)) => builder.status(200).body(full(bytes)),
        Ok(Answer::Stream(stream)) => {
            builder.status(200).header("Content-Type", json).body(stream_body(stream))
        }
        Err(Refusal { status, message }) => {
            let text = serde_json::json!({ "message": message }).to_string();
            builder.status(status).header("Content-Type", json).body(full(text.into()))
        }
    };
    response.expect("a response of known parts")
}

fn stream_body(stream: mpsc::UnboundedReceiver<Bytes>) -> Body {
    let chunks = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.recv().await?;
        Some((Ok(Frame::data(chunk)), stream))
    });
    BoxBody::new(StreamBody::new(chunks))
}
