//! The clients.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt as _, Stream, StreamExt as _};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time for one answer, or one line of it.
const PATIENCE: Duration = Duration::from_secs(90);
/// The key of RFC 6455, 1.3, and what a server answers to it.
const KEY: (&str, &str) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

type Sent = BoxBody<Bytes, Infallible>;

/// Who asks at one address, each time on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub SocketAddr);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// An open WebSocket.
pub struct WebSocket {
    stream: TokioIo<hyper::upgrade::Upgraded>,
    /// The sleep whose waker it goes through.
    pub passed: Option<String>,
}

/// A download that goes on until somebody asks for its end.
pub struct Download {
    body: Incoming,
    unread: Vec<u8>,
    next: u64,
    /// The sleep whose waker it goes through.
    pub passed: Option<String>,
}

/// One connection of HTTP/2 in clear text, which begins with it.
pub struct Caller(http2::SendRequest<Sent>);

/// Within the patience that everything here has.
async fn soon<T>(what: &str, doing: impl Future<Output = T>) -> T {
    timeout(PATIENCE, doing).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}

fn passed(headers: &HeaderMap) -> Option<String> {
    headers.get("x-passed").map(|id| id.to_str().expect("ids are text").to_owned())
}

fn nothing() -> Sent {
    Full::new(Bytes::new()).boxed()
}

// === impl Client ===

impl Client {
    async fn send(self, request: Request<Sent>) -> hyper::Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.0).await.expect("the front listens");
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.expect("nothing is said yet");
        tokio::spawn(connection.with_upgrades());
        soon("an answer", sender.send_request(request)).await
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// When the connection breaks, as it does where nobody is there.
    pub async fn get(self, path: &str) -> hyper::Result<Answer> {
        let request = Request::get(path).header("host", "streams").body(nothing()).expect("a request");
        whole(self.send(request).await?).await
    }

    /// Sends these chunks as they come.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn upload(
        self,
        path: &str,
        chunks: impl Stream<Item = Bytes> + Send + Sync + 'static,
    ) -> hyper::Result<Answer> {
        let body = StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk))));
        let request = Request::post(path).header("host", "streams").body(BodyExt::boxed(body));
        whole(self.send(request.expect("a request")).await?).await
    }

    /// Opens a WebSocket.
    ///
    /// # Panics
    /// When it is not opened.
    pub async fn websocket(self) -> WebSocket {
        let request = Request::get("/socket")
            .header("host", "streams")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", KEY.0);
        let response = self.send(request.body(nothing()).expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{response:?}");
        assert_eq!(response.headers()["sec-websocket-accept"], KEY.1);
        let passed = passed(response.headers());
        let stream = hyper::upgrade::on(response).await.expect("it was agreed to");
        WebSocket { stream: TokioIo::new(stream), passed }
    }

    /// Begins a download.
    ///
    /// # Panics
    /// When it does not begin.
    pub async fn download(self) -> Download {
        let request = Request::get("/download").header("host", "streams").body(nothing());
        let response = self.send(request.expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{response:?}");
        let passed = passed(response.headers());
        Download { body: response.into_body(), unread: Vec::new(), next: 0, passed }
    }

    /// Connects for calls.
    ///
    /// # Panics
    /// When nobody is there.
    pub async fn calls(self) -> Caller {
        let stream = TcpStream::connect(self.0).await.expect("the front listens");
        let connected = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = connected.expect("nothing is said yet");
        tokio::spawn(connection);
        Caller(sender)
    }
}

async fn whole(response: Response<Incoming>) -> hyper::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = soon("a whole answer", body.collect()).await?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

// === impl Answer ===

impl Answer {
    /// Whether the application itself answered, and well.
    pub fn is_of_the_application(&self) -> bool {
        self.status == StatusCode::OK && self.headers.contains_key("x-shop")
    }

    /// The sleep whose waker it has passed.
    pub fn passed(&self) -> Option<String> {
        passed(&self.headers)
    }
}

// === impl WebSocket ===

impl WebSocket {
    /// Sends a message, and waits until it has come back.
    ///
    /// # Panics
    /// When it does not.
    pub async fn echo(&mut self, message: &str) {
        let length = u8::try_from(message.len()).ok().filter(|n| *n < 126).expect("a short message");
        let mask: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![0x81, 0x80 | length];
        frame.extend(mask);
        frame.extend(message.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame).await.expect("it is open");
        let mut back = vec![0; 2 + usize::from(length)];
        soon("a message to come back", self.stream.read_exact(&mut back)).await.expect("it is open");
        assert_eq!((back[0], back[1]), (0x81, length));
        assert_eq!(&back[2..], message.as_bytes());
    }

    /// Closes it, as both sides do.
    ///
    /// # Panics
    /// When the other side does not.
    pub async fn close(mut self) {
        self.stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.expect("it is open");
        let mut rest = Vec::new();
        soon("the end", self.stream.read_to_end(&mut rest)).await.expect("it is closed, not broken");
        assert_eq!(rest, [0x88, 0]);
    }
}

// === impl Download ===

impl Download {
    /// The next line, which has to be the next number; `None` = this was all, and all of it.
    ///
    /// # Panics
    /// When anything is missing, or comes twice.
    pub async fn line(&mut self) -> Option<u64> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8(line).expect("lines are text");
                let text = line.trim();
                if let Some(count) = text.strip_prefix("end ") {
                    assert_eq!(count.parse::<u64>(), Ok(self.next), "lines were lost");
                    let rest = soon("the end", self.body.frame()).await;
                    assert!(rest.is_none() && self.unread.is_empty(), "{rest:?} follows the end");
                    return None;
                }
                assert_eq!(text.parse::<u64>(), Ok(self.next), "a line was lost");
                self.next += 1;
                return Some(self.next - 1);
            }
            let frame = soon("more", self.body.frame()).await.expect("it broke off").expect("it broke");
            self.unread.extend(frame.into_data().expect("lines are data"));
        }
    }
}

// === impl Caller ===

impl Caller {
    /// Sends messages one after the other in one call, whose trailers come last, and takes what comes back.
    ///
    /// # Panics
    /// When it is not answered as the application answers.
    pub async fn call(&self, messages: &[&'static str]) -> Option<String> {
        let (mut give, frames) = mpsc::channel::<Frame<Bytes>>(1);
        let request = Request::post("http://streams/call")
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(BodyExt::boxed(StreamBody::new(frames.map(Ok))))
            .expect("a request");
        let mut sender = self.0.clone();
        let answer = sender.send_request(request);
        let sending = async {
            for message in messages {
                give.send(Frame::data(Bytes::from_static(message.as_bytes()))).await.expect("it is taken");
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-of-client", "1".parse().expect("a value"));
            give.send(Frame::trailers(trailers)).await.expect("it is taken");
            drop(give);
        };
        let both = async { tokio::join!(answer, sending).0 };
        let response = soon("an answer to a call", both).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{response:?}");
        let passed = passed(response.headers());
        let all = soon("a whole answer", response.into_body().collect()).await.expect("a whole answer");
        let trailers = all.trailers().cloned().expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-version"], "HTTP/2.0");
        assert_eq!(trailers["x-of-client"], "1");
        assert_eq!(all.to_bytes(), messages.concat());
        passed
    }
}
