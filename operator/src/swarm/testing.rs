//! An engine for tests of this module: one closure answers every request over an in-process stream.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::duplex;

use super::transport::Endpoint;

/// One request as the engine got it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    /// Path without the query.
    pub(super) path: String,
    /// Query with percent-encoding undone.
    pub(super) query: String,
    pub(super) body: Value,
}

/// What the closure does about a request.
pub(super) enum Reply {
    Json(u16, Value),
    Bytes(Vec<u8>),
    /// Answers the head, and these bytes, and then nothing more.
    Endless(Vec<u8>),
    /// Never answers.
    Silence,
    /// Breaks the connection.
    Cut,
}

/// Every request that the engine got, in order.
pub(super) type Log = Arc<Mutex<Vec<Asked>>>;

/// An endpoint whose engine answers `/version` as Docker 20.10 and everything else as the closure says.
pub(super) fn engine_that<F>(answer: F) -> (Endpoint, Log)
where
    F: Fn(&Asked) -> Reply + Send + Sync + 'static,
{
    let log = Log::default();
    let (seen, answer) = (log.clone(), Arc::new(answer));
    let endpoint = Endpoint::in_process(move || {
        let (ours, theirs) = duplex(64 * 1024);
        tokio::spawn(serve(theirs, seen.clone(), answer.clone()));
        async move { Ok(ours) }
    });
    (endpoint, log)
}

/// A refusal in the engine's format.
pub(super) fn refusal(status: u16, message: &str) -> Reply {
    Reply::Json(status, json!({"message": message}))
}

async fn serve<F>(stream: tokio::io::DuplexStream, log: Log, answer: Arc<F>)
where
    F: Fn(&Asked) -> Reply + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (log, answer) = (log.clone(), answer.clone());
        async move {
            let asked = read(request).await;
            log.lock().unwrap().push(asked.clone());
            let reply = match asked.path.as_str() {
                "/version" => match answer(&asked) {
                    Reply::Json(404, _) => {
                        Reply::Json(200, json!({"ApiVersion": "1.41", "Version": "20.10.24"}))
                    }
                    other => other,
                },
                _ => answer(&asked),
            };
            match reply {
                Reply::Json(status, value) => Ok(response(status, Bytes::from(value.to_string()))),
                Reply::Bytes(bytes) => Ok(response(200, Bytes::from(bytes))),
                Reply::Endless(bytes) => {
                    let frame = Frame::data(Bytes::from(bytes));
                    let frames = stream::iter([Ok(frame)]).chain(stream::pending());
                    Ok(Response::new(BodyExt::boxed(StreamBody::new(frames))))
                }
                Reply::Silence => std::future::pending().await,
                Reply::Cut => Err(std::io::Error::other("cut")),
            }
        }
    });
    // A cut connection ends with the error that cut it.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn read(request: Request<Incoming>) -> Asked {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default().replace('+', " ");
    Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: percent_encoding::percent_decode_str(&query).decode_utf8_lossy().into_owned(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }
}

type Body = BoxBody<Bytes, Infallible>;

fn response(status: u16, body: Bytes) -> Response<Body> {
    Response::builder().status(status).body(Full::new(body).boxed()).unwrap()
}
