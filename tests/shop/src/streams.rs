//! Another web part that needs nothing but itself: what lasts long, is large, or is no plain request. For tests of what passes
//! through something in front.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::frames;

/// Length of one line of a download, its end included.
const LINE: usize = 16 * 1024;
/// How often there is one.
const PAUSE: Duration = Duration::from_millis(20);

/// How many times downloads were told to end.
type Ends = Arc<watch::Sender<u64>>;

/// Serves until `stop` resolves, and for the drain time; HTTP/1.1, or HTTP/2 in clear text where the client begins with it.
///
/// # Errors
/// When connections cannot be accepted.
pub async fn serve(
    listener: TcpListener,
    drain: Duration,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let left = async {
        stop.await;
        sleep(drain).await;
    };
    tokio::select! {
        ended = axum::serve(listener, router()).into_future() => ended,
        () = left => Ok(()),
    }
}

fn router() -> Router {
    Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/upload", post(upload))
        .route("/download", get(download))
        .route("/end", post(end))
        .route("/socket", get(socket))
        .route("/call", post(call))
        .layer(middleware::from_fn(stamp))
        .with_state(Ends::default())
}

/// Marks every answer as the shop's own, and says which waker it has passed.
async fn stamp(request: Request, next: Next) -> Response {
    let waker = request.headers().get("skep-waker").cloned();
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-shop", HeaderValue::from_static("1"));
    if let Some(waker) = waker {
        response.headers_mut().insert("x-passed", waker);
    }
    response
}

/// Says how much came, and its checksum.
async fn upload(request: Request) -> Response {
    let mut body = request.into_body();
    let (mut sum, mut bytes) = (Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return StatusCode::BAD_REQUEST.into_response() };
        if let Ok(data) = frame.into_data() {
            bytes += data.len();
            sum.update(&data);
        }
    }
    let sum: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Json(json!({ "bytes": bytes, "sha256": sum })).into_response()
}

/// Numbered lines until somebody asks for the end, which says how many there were.
async fn download(State(ends): State<Ends>) -> Response {
    let lines = stream::unfold(Some((0_u64, ends.subscribe())), async |line| {
        let (number, ends) = line?;
        sleep(PAUSE).await;
        if ends.has_changed().unwrap_or(true) {
            return Some((Ok::<_, Infallible>(format!("end {number}\n")), None));
        }
        let text = format!("{number:>width$}\n", width = LINE - 1);
        Some((Ok(text), Some((number + 1, ends))))
    });
    Body::from_stream(lines).into_response()
}

async fn end(State(ends): State<Ends>) {
    ends.send_modify(|times| *times += 1);
}

/// A WebSocket that sends everything back.
async fn socket(mut request: Request) -> Response {
    let key = request.headers().get("sec-websocket-key").and_then(|key| key.to_str().ok());
    let Some(accept) = key.map(frames::accept) else { return StatusCode::UPGRADE_REQUIRED.into_response() };
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            // However it ends, the client has gone.
            drop(frames::echo(TokioIo::new(upgraded)).await);
        }
    });
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, &accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// As gRPC: the request comes back, and its state in a trailer.
async fn call(request: Request) -> Response {
    let version = HeaderValue::try_from(format!("{:?}", request.version()));
    let Ok(body) = request.into_body().collect().await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let told = body.trailers().and_then(|trailers| trailers.get("x-of-client")).cloned();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.extend(version.map(|version| (header::HeaderName::from_static("x-version"), version)));
    trailers.extend(told.map(|told| (header::HeaderName::from_static("x-of-client"), told)));
    let frames: [Result<Frame<Bytes>, Infallible>; 2] =
        [Ok(Frame::data(body.to_bytes())), Ok(Frame::trailers(trailers))];
    let headers = [(header::CONTENT_TYPE, "application/grpc")];
    (headers, Body::new(StreamBody::new(stream::iter(frames)))).into_response()
}
