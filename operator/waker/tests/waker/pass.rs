//! What passes through.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use skep_waker::task::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::*;

const MIB: usize = 1 << 20;
/// How much is on its way at most: in buffers of the kernel and of hyper, on both sides of the waker.
const ON_ITS_WAY: usize = 40 * MIB;

/// So many MiB, counted as they are taken.
fn stream_of(
    mib: usize,
    taken: Arc<AtomicUsize>,
) -> http_body_util::combinators::BoxBody<Bytes, hyper::Error> {
    let chunk = Bytes::from(vec![7; 1 << 16]);
    let frames = (0..mib * 16).map(move |_| {
        taken.fetch_add(1 << 16, Ordering::SeqCst);
        Ok(Frame::data(chunk.clone()))
    });
    BodyExt::boxed(StreamBody::new(stream::iter(frames)))
}

async fn count(mut body: Incoming) -> usize {
    let mut all = 0;
    while let Some(frame) = body.frame().await {
        all += frame.unwrap().into_data().map_or(0, |d| d.len());
    }
    all
}

async fn awake<F, R>(answer: F) -> (Stage, Server)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let stage = Stage::new(|_| ()).await;
    let application = Server::new(APPLICATION, answer).await;
    stage.waker.names.list(application.at);
    (stage, application)
}

#[tokio::test]
async fn the_application_sees_who_asked_and_nothing_of_the_connection() {
    let (stage, _application) = awake(|request| async move {
        let told: Vec<_> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        let line = format!("{} {}\n{}", request.method(), request.uri(), told.join("\n"));
        let mut answer = text(StatusCode::CREATED, "");
        *answer.body_mut() = http_body_util::Full::from(line).map_err(|never| match never {}).boxed();
        answer.headers_mut().insert("x-own", "1".parse().unwrap());
        answer.headers_mut().insert("keep-alive", "timeout=5".parse().unwrap());
        answer
    })
    .await;
    let headers = [("x-forwarded-for", "192.0.2.1"), ("connection", "x-of-this"), ("x-of-this", "1")];
    let (parts, body) = get_with(stage.waker.at, "/a%20b?c=d", &headers).await;
    assert_eq!(parts.status, StatusCode::CREATED);
    assert_eq!(parts.headers["x-own"], "1");
    assert!(!parts.headers.contains_key("keep-alive"));
    let mut lines: Vec<_> = body.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "GET /a%20b?c=d",
            "host: shop.example",
            "skep-waker: sleep-1",
            "x-forwarded-for: 192.0.2.1, 127.0.0.1",
            "x-forwarded-proto: http",
        ]
    );
}

#[tokio::test]
async fn a_large_upload_passes_and_does_not_pile_up() {
    let go = Arc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let (stage, _application) = awake(move |request| {
        let wait = wait.clone();
        async move {
            wait.notified().await;
            assert_eq!(count(request.into_body()).await, 64 * MIB);
            text(StatusCode::OK, "all of it")
        }
    })
    .await;
    let taken = Arc::<AtomicUsize>::default();
    let mut sender = client(stage.waker.at).await;
    let request = Request::post("/").header("host", "a").body(stream_of(64, taken.clone())).unwrap();
    let response = tokio::spawn(async move { sender.send_request(request).await });
    // The application reads nothing yet: it stops when all buffers are full.
    let mut before = 0;
    until_still(&taken, &mut before).await;
    assert!(before < ON_ITS_WAY, "{before} bytes are held by nobody who reads");
    go.notify_one();
    let body = soon(response).await.unwrap().unwrap().into_body();
    assert_eq!(soon(body.collect()).await.unwrap().to_bytes(), "all of it");
    assert_eq!(taken.load(Ordering::SeqCst), 64 * MIB);
}

#[tokio::test]
async fn a_large_download_passes_and_does_not_pile_up() {
    let taken = Arc::<AtomicUsize>::default();
    let given = taken.clone();
    let (stage, _application) = awake(move |_| {
        let given = given.clone();
        async move { Response::new(stream_of(64, given)) }
    })
    .await;
    let mut sender = client(stage.waker.at).await;
    let request = Request::get("/").header("host", "a").body(nothing()).unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    let mut before = 0;
    until_still(&taken, &mut before).await;
    assert!(before < ON_ITS_WAY, "{before} bytes are held by nobody who reads");
    assert_eq!(soon(count(response.into_body())).await, 64 * MIB);
}

/// Waits until no more is taken.
async fn until_still(taken: &AtomicUsize, before: &mut usize) {
    soon(async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = taken.load(Ordering::SeqCst);
            if now > 0 && now == *before {
                return;
            }
            *before = now;
        }
    })
    .await;
}

#[tokio::test]
async fn http_2_passes_as_such_with_its_trailers() {
    let stage = Stage::new(|_| ()).await;
    let application = Server::new(APPLICATION, |request| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.uri().authority().unwrap(), "grpc.example");
        let all = request.into_body().collect().await.unwrap();
        assert_eq!(all.trailers().unwrap()["x-of-client"], "1");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Ok(Frame::data(all.to_bytes())), Ok(Frame::trailers(trailers))];
        Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))))
    })
    .await;
    let io = TokioIo::new(TcpStream::connect(stage.waker.at).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-of-client", "1".parse().unwrap());
                let frames: [Result<_, hyper::Error>; 2] =
                    [Ok(Frame::data(Bytes::from_static(b"ping"))), Ok(Frame::trailers(trailers))];
                let request = Request::post("http://grpc.example/call")
                    .header("te", "trailers")
                    .body(BodyExt::boxed(StreamBody::new(stream::iter(frames))))
                    .unwrap();
                sender.send_request(request).await.unwrap().into_body().collect().await.unwrap()
            })
        })
        .collect();
    stage.operator.asked(1).await;
    stage.waker.names.list(application.at);
    for call in calls {
        let all = soon(call).await.unwrap();
        assert_eq!(all.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(all.to_bytes(), "ping");
    }
    assert_eq!(application.connections.load(Ordering::SeqCst), 1, "they share one connection");
}

#[tokio::test]
async fn trailers_of_chunks_pass() {
    let (stage, _application) = awake(|_| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "42".parse().unwrap());
        let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
        let mut answer = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
        answer.headers_mut().insert("trailer", "x-sum".parse().unwrap());
        answer
    })
    .await;
    let mut stream = TcpStream::connect(stage.waker.at).await.unwrap();
    let head = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_head_has_no_body_and_says_how_long_it_would_be() {
    let (stage, _application) = awake(|request| async move {
        assert_eq!(request.method(), Method::HEAD);
        let mut answer = text(StatusCode::OK, "");
        if request.uri().path() == "/known" {
            answer.headers_mut().insert("content-length", "1234".parse().unwrap());
        }
        answer
    })
    .await;
    let mut sender = client(stage.waker.at).await;
    let head = Request::head("/known").header("host", "a").body(nothing()).unwrap();
    let response = soon(sender.send_request(head)).await.unwrap();
    assert_eq!(response.headers()["content-length"], "1234");
    assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    let head = Request::head("/").header("host", "a").body(nothing()).unwrap();
    soon(sender.ready()).await.unwrap();
    assert_eq!(soon(sender.send_request(head)).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_sends_its_body_when_the_application_is_there() {
    let stage = Stage::new(|_| ()).await;
    let mut stream = TcpStream::connect(stage.waker.at).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stage.operator.asked(1).await;
    let mut told = [0; 25];
    let early = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut told)).await;
    assert!(early.is_err(), "told before there is anybody to take it");
    let application = Server::new(APPLICATION, |request| async move {
        assert!(!request.headers().contains_key("expect"));
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "body");
        text(StatusCode::OK, "taken")
    })
    .await;
    stage.waker.names.list(application.at);
    soon(stream.read_exact(&mut told)).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("taken"), "{answer}");
}

#[tokio::test]
async fn connections_to_the_application_are_kept() {
    let (stage, application) = awake(|_| async { text(StatusCode::OK, "the application") }).await;
    for _ in 0..20 {
        get(stage.waker.at, "/").await;
    }
    assert_eq!(application.connections.load(Ordering::SeqCst), 1);
}

/// Answers one request on each connection, and closes it without saying so: the next request meets the closing.
async fn rude(answered: Arc<AtomicUsize>, read_more: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind((APPLICATION, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answered = answered.clone();
            tokio::spawn(async move {
                let mut seen = [0; 4_096];
                assert!(stream.read(&mut seen).await.unwrap() > 0);
                answered.fetch_add(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                if read_more {
                    assert!(stream.read(&mut seen).await.unwrap() > 0);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    at
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_not_noticed() {
    let stage = Stage::new(|_| ()).await;
    let answered = Arc::<AtomicUsize>::default();
    stage.waker.names.list(rude(answered.clone(), false).await);
    let mut sender = client(stage.waker.at).await;
    for n in 0..10 {
        let method = if n % 2 == 0 { Method::GET } else { Method::POST };
        let request = Request::builder().method(method).uri("/").header("host", "a").body(nothing()).unwrap();
        soon(sender.ready()).await.unwrap();
        let response = soon(sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.unwrap();
        // Long enough for the closing to be seen: it is sent together with the answer.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(answered.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn what_the_application_may_have_acted_on_is_not_sent_again() {
    for (method, status) in [(Method::POST, StatusCode::BAD_GATEWAY), (Method::GET, StatusCode::OK)] {
        let stage = Stage::new(|_| ()).await;
        let answered = Arc::<AtomicUsize>::default();
        stage.waker.names.list(rude(answered.clone(), true).await);
        let mut sender = client(stage.waker.at).await;
        let request = || {
            Request::builder().method(method.clone()).uri("/").header("host", "a").body(nothing()).unwrap()
        };
        let first = soon(sender.send_request(request())).await.unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        first.into_body().collect().await.unwrap();
        soon(sender.ready()).await.unwrap();
        // Read by the application, which then goes without an answer.
        let second = soon(sender.send_request(request())).await.unwrap();
        assert_eq!(second.status(), status, "{method}");
        let seen = if method == Method::POST { 2 } else { 3 };
        assert_eq!(answered.load(Ordering::SeqCst), seen, "{method}");
    }
}

#[tokio::test]
async fn wakers_do_not_pass_requests_round_and_round() {
    let stage = Stage::new(|_| ()).await;
    // Another waker of the same sleep is listed, and nothing else.
    let names = Names::default();
    let other = Stand::new(task(stage.operator.at), &names, fast());
    let back = IpAddr::V4(Ipv4Addr::LOCALHOST);
    stage.waker.names.list((back, other.at.port()).into());
    names.list((back, stage.waker.at.port()).into());
    let at = stage.waker.at;
    let request = tokio::spawn(async move { get(at, "/").await });
    stage.operator.asked(1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!request.is_finished(), "a waker is not the application");
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    assert_eq!(soon(request).await.unwrap().1, "the application");
    // What comes back is refused in a way that a waker knows.
    let (parts, _) = get_with(at, "/", &[("skep-waker", "sleep-1")]).await;
    assert_eq!(parts.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(parts.headers["skep-waker"], "sleep-1");
    // One that was woken for another service is served: an application may pass its headers on.
    assert_eq!(get_with(at, "/", &[("skep-waker", "sleep-of-another")]).await.1, "the application");
}

#[tokio::test]
async fn a_page_is_seen_by_who_was_sending() {
    let stage = Stage::new(|task| task.mode = Mode::Page).await;
    let mut sender = client(stage.waker.at).await;
    let body = stream_of(16, Arc::default());
    assert!(!body.is_end_stream());
    let request = Request::post("/").header("host", "a").body(body).unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(soon(response.into_body().collect()).await.unwrap().to_bytes(), "<p>soon</p>");
}
