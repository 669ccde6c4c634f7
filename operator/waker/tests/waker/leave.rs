//! Leaving without losing anything.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::stage::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_under_constant_load() {
    let mut stage = Stage::new(|_| ()).await;
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    let at = stage.waker.at;
    // Connections that are kept, as proxies have them, until the waker asks to close them. As Swarm takes the waker's name
    // away before it says that it has to leave, nobody comes anew long after.
    let load: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut answered = 0_usize;
                let mut sender = client(at).await;
                loop {
                    let request = Request::get("/").header("host", "a").body(nothing()).unwrap();
                    let response = sender.send_request(request).await.expect("a request was lost");
                    assert_eq!(response.status(), StatusCode::OK);
                    let closes = response.headers().get("connection").is_some_and(|c| c == "close");
                    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "the application");
                    answered += 1;
                    if closes {
                        return answered;
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.waker.stop();
    for requests in load {
        assert!(soon(requests).await.unwrap() > 10);
    }
    // One that had not heard of it.
    assert_eq!(get(at, "/").await.1, "the application");
    stage.waker.left().await;
    assert!(tokio::net::TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn what_is_open_ends_by_itself() {
    let mut stage = Stage::new(|_| ()).await;
    let (give, parts) = mpsc::channel::<Result<Frame<Bytes>, hyper::Error>>(1);
    let parts = std::sync::Arc::new(std::sync::Mutex::new(Some(parts)));
    let application = Server::new(APPLICATION, move |_| {
        let mut parts = parts.lock().unwrap().take().unwrap();
        async move {
            let body = futures::stream::poll_fn(move |cx| parts.poll_recv(cx));
            Response::new(BodyExt::boxed(StreamBody::new(body)))
        }
    })
    .await;
    stage.waker.names.list(application.at);
    let mut sender = client(stage.waker.at).await;
    let request = Request::get("/").header("host", "a").body(nothing()).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    stage.waker.stop();
    // Longer than nothing new has to come.
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!stage.waker.has_left());
    give.send(Ok(Frame::data(Bytes::from_static(b"late")))).await.unwrap();
    assert_eq!(soon(body.frame()).await.unwrap().unwrap().into_data().unwrap(), "late");
    drop(give);
    assert!(soon(body.frame()).await.is_none());
    stage.waker.left().await;
}

#[tokio::test]
async fn a_websocket_is_kept_until_it_ends() {
    let mut stage = Stage::new(|_| ()).await;
    let application = Server::new(APPLICATION, echo).await;
    let at = stage.waker.at;
    let opened = tokio::spawn(async move { websocket(at).await });
    stage.operator.asked(1).await;
    stage.waker.names.list(application.at);
    let mut socket = soon(opened).await.unwrap();
    stage.waker.stop();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!stage.waker.has_left());
    socket.write_all(b"still there?").await.unwrap();
    let mut answer = [0; 12];
    soon(socket.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"still there?");
    drop(socket);
    stage.waker.left().await;
}

#[tokio::test]
async fn held_requests_are_served_though_the_waker_was_told_to_leave() {
    let mut stage = Stage::new(|_| ()).await;
    let at = stage.waker.at;
    let request = tokio::spawn(async move { get(at, "/").await });
    stage.operator.asked(1).await;
    stage.waker.stop();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    assert_eq!(soon(request).await.unwrap().1, "the application");
    stage.waker.left().await;
}

#[tokio::test]
async fn connections_with_nothing_on_them_do_not_keep_it() {
    let mut stage = Stage::new(|_| ()).await;
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    let silent = tokio::net::TcpStream::connect(stage.waker.at).await.unwrap();
    let mut idle = client(stage.waker.at).await;
    let request = Request::get("/").header("host", "a").body(nothing()).unwrap();
    idle.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    stage.waker.stop();
    stage.waker.left().await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_http_2_are_not_lost_either() {
    let mut stage = Stage::new(|_| ()).await;
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    let io = TokioIo::new(tokio::net::TcpStream::connect(stage.waker.at).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let at = stage.waker.at;
    let load = tokio::spawn(async move {
        let mut answered = 0_usize;
        // As clients do: a connection that says it goes away takes no more, and what it has taken is answered.
        while sender.ready().await.is_ok() {
            let request = Request::get(format!("http://{at}/")).body(nothing()).unwrap();
            match sender.try_send_request(request).await {
                Ok(response) => {
                    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "the application");
                }
                Err(mut error) => {
                    assert!(error.take_message().is_some(), "a call was lost: {:?}", error.error());
                    return answered;
                }
            }
            answered += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answered
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.waker.stop();
    assert!(soon(load).await.unwrap() > 10);
    stage.waker.left().await;
}
