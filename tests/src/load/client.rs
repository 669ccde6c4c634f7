//! One HTTP request, judged.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Load, Verdict, Wrong};

/// Longest body that is read.
const BODY_LIMIT: usize = 256 * 1024;

/// A connection that may carry several requests.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
}

// === impl Connection ===

impl Connection {
    /// Connects.
    pub(super) async fn open(target: SocketAddr) -> Result<Self, Wrong> {
        let stream = TcpStream::connect(target).await.map_err(|error| of_io(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| of_hyper(&error))?;
        // Errors reach the request that meets them.
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Whether the other side has not closed it.
    pub(super) fn is_usable(&mut self) -> bool {
        self.sender.is_ready()
    }

    /// Asks, and reads the answer to its end.
    pub(super) async fn ask(&mut self, load: &Load, is_order: bool, keep: bool) -> Verdict {
        let (method, path) =
            if is_order { (Method::POST, "/orders") } else { (Method::GET, load.path.as_str()) };
        let connection = if keep { "keep-alive" } else { "close" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "shop.example")
            .header(CONNECTION, connection)
            .body(Empty::new());
        let Ok(request) = request else { return Verdict::Wrong(Wrong::Other) };
        match self.sender.send_request(request).await {
            Ok(response) => judged(response).await,
            Err(error) => Verdict::Wrong(of_hyper(&error)),
        }
    }
}

/// Asks on a connection of its own.
pub(super) async fn ask_once(load: &Load, is_order: bool) -> Verdict {
    match Connection::open(load.target).await {
        Ok(mut connection) => connection.ask(load, is_order, false).await,
        Err(wrong) => Verdict::Wrong(wrong),
    }
}

async fn judged(response: Response<Incoming>) -> Verdict {
    let (head, body) = response.into_parts();
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(_) => verdict(head.status, &head.headers),
        Err(error) => match error.downcast_ref::<hyper::Error>() {
            Some(error) => Verdict::Wrong(of_hyper(error)),
            None => Verdict::Wrong(Wrong::Other),
        },
    }
}

/// What a complete answer is.
fn verdict(status: StatusCode, headers: &HeaderMap) -> Verdict {
    if headers.contains_key("x-shop") {
        if status.is_success() { Verdict::App } else { Verdict::AppError }
    } else if status == StatusCode::SERVICE_UNAVAILABLE && headers.contains_key("x-skep-page") {
        Verdict::Page
    } else {
        Verdict::Wrong(Wrong::Status(status.as_u16()))
    }
}

fn of_hyper(error: &hyper::Error) -> Wrong {
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) => of_io(error),
        // The other side closed without an answer, or in the middle of one.
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => Wrong::Reset,
        None => Wrong::Other,
    }
}

fn of_io(error: &io::Error) -> Wrong {
    use io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused | HostUnreachable | NetworkUnreachable | NetworkDown => Wrong::Refused,
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof | NotConnected => Wrong::Reset,
        TimedOut => Wrong::Timeout,
        _ => Wrong::Other,
    }
}
