use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn load(target: SocketAddr) -> Load {
    Load { target, path: "/".to_owned(), rate: 40, order_every: 0, patience: PATIENCE }
}

/// A server that answers each connection with these bytes and closes it.
async fn saying(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                read_request(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    address
}

/// Reads up to the end of a request's head. Returns whether there was one.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return false };
        head.push(byte);
    }
    true
}

async fn verdict_of(answer: &'static str) -> Verdict {
    ask_once(&load(saying(answer).await), false).await
}

#[tokio::test]
async fn only_a_good_answer_with_the_shops_mark_is_the_applications() {
    let good = verdict_of("HTTP/1.1 200 OK\r\nX-Shop: 1\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(good, Verdict::App);
    let own_error = verdict_of("HTTP/1.1 503 No\r\nX-Shop: 1\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(own_error, Verdict::AppError);
    let foreign = verdict_of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(foreign, Verdict::Wrong(Wrong::Status(200)));
}

#[tokio::test]
async fn the_page_is_503_with_its_mark_and_nothing_else() {
    let page = verdict_of("HTTP/1.1 503 No\r\nX-Skep-Page: proxy\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(page, Verdict::Page);
    let unmarked = verdict_of("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(unmarked, Verdict::Wrong(Wrong::Status(503)));
    let gateway = verdict_of("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(gateway, Verdict::Wrong(Wrong::Status(502)));
}

#[tokio::test]
async fn a_connection_that_ends_early_is_a_reset() {
    assert_eq!(verdict_of("").await, Verdict::Wrong(Wrong::Reset));
    let half = verdict_of("HTTP/1.1 200 OK\r\nX-Shop: 1\r\nContent-Length: 20\r\n\r\nhalf").await;
    assert_eq!(half, Verdict::Wrong(Wrong::Reset));
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(ask_once(&load(address), false).await, Verdict::Wrong(Wrong::Refused));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    });
    let report = run(load(target), tokio::time::sleep(Duration::from_secs(1))).await;
    silent.abort();
    assert!(report.totals.wrong > 0, "{report:?}");
    assert_eq!(report.totals.all(), report.wrong["timeout"], "{report:?}");
}

#[tokio::test]
async fn a_kept_connection_that_is_closed_while_idle_is_replaced_without_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let answer = b"HTTP/1.1 200 OK\r\nX-Shop: 1\r\nContent-Length: 0\r\n\r\n";
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                assert!(read_request(&mut stream).await);
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    let load = load(address);
    let mut held = None;
    for request in 0..4 {
        assert_eq!(ask_kept(&mut held, &load, false).await, Verdict::App, "request {request}");
        // The client learns of a close by reading; give it the chance that the next tick gives it.
        if request == 1 {
            while held.as_mut().unwrap().is_usable() {
                tokio::task::yield_now().await;
            }
        }
    }
    server.await.unwrap();
}

#[tokio::test]
async fn the_rate_is_kept_by_both_kinds_of_clients() {
    let app = axum::Router::new().route("/", axum::routing::get(|| async { ([("x-shop", "1")], "ok") }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let report = run(load(target), tokio::time::sleep(Duration::from_millis(1500))).await;
    assert_eq!(report.totals.app, report.totals.all(), "{report:?}");
    assert!((40..=70).contains(&report.totals.all()), "{report:?}");
    assert_eq!(report.downtime, []);
}
