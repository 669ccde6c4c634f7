//! The shop's HTTP side while there is no database.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::CONNECTION;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use skep_shop::{Settings, web};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

/// A shop whose database is a port that nobody listens on.
struct Shop {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn shop() -> Shop {
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = nobody.local_addr().expect("it is bound").port().to_string();
    drop(nobody);
    let settings =
        Arguments::parse_from(["shop", "--database-host", "127.0.0.1", "--database-port", &port]).settings;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (stop, stopped) = oneshot::channel();
    let shop = web::Shop::new(&settings);
    let serving = tokio::spawn(web::serve(listener, shop, Duration::from_millis(300), async move {
        let _told = stopped.await;
    }));
    Shop { address, stop, serving }
}

async fn connect(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("the shop listens");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a new connection is sound");
    tokio::spawn(connection);
    sender
}

async fn ask(
    sender: &mut SendRequest<Empty<Bytes>>,
    method: &str,
    path: &str,
) -> (StatusCode, HeaderMap, String) {
    let request = Request::builder().method(method).uri(path).header("host", "shop").body(Empty::new());
    let answer = sender.send_request(request.expect("a sound request")).await.expect("an answer");
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    (head.status, head.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn every_answer_carries_the_shops_mark() {
    let shop = shop().await;
    for (method, path, status) in [
        ("GET", "/", StatusCode::SERVICE_UNAVAILABLE),
        ("POST", "/orders", StatusCode::SERVICE_UNAVAILABLE),
        ("GET", "/orders/last", StatusCode::SERVICE_UNAVAILABLE),
        ("GET", "/health", StatusCode::SERVICE_UNAVAILABLE),
        ("GET", "/metrics", StatusCode::OK),
        ("GET", "/nowhere", StatusCode::NOT_FOUND),
        ("DELETE", "/orders", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let (found, headers, body) = ask(&mut connect(shop.address).await, method, path).await;
        assert_eq!(found, status, "{method} {path}: {body}");
        assert!(headers.contains_key("x-shop"), "{method} {path}: {headers:?}");
    }
}

#[tokio::test]
async fn an_absent_database_is_said_within_a_second() {
    let shop = shop().await;
    let begun = Instant::now();
    let (status, _, body) = ask(&mut connect(shop.address).await, "GET", "/").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("cannot reach the database"), "{body}");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn metrics_say_nothing_about_the_tables_of_an_absent_database() {
    let shop = shop().await;
    let (_, _, body) = ask(&mut connect(shop.address).await, "GET", "/metrics").await;
    assert!(body.contains("\nshop_database_ok 0\n"), "{body}");
    assert!(!body.contains("shop_orders_table_ok"), "{body}");
}

#[tokio::test]
async fn a_shop_told_to_stop_drains_before_it_closes() {
    let shop = shop().await;
    let mut kept = connect(shop.address).await;
    let (_, headers, _) = ask(&mut kept, "GET", "/metrics").await;
    assert!(!headers.contains_key(CONNECTION), "{headers:?}");

    shop.stop.send(()).expect("the shop runs");
    // The kept connection is answered once more and told to leave; a new one is still taken.
    let mut is_told = false;
    while !is_told {
        let (_, headers, _) = ask(&mut kept, "GET", "/metrics").await;
        is_told = headers.get(CONNECTION).is_some_and(|value| value == "close");
    }
    let (_, headers, _) = ask(&mut connect(shop.address).await, "GET", "/metrics").await;
    assert_eq!(headers[CONNECTION], "close");

    shop.serving.await.expect("it did not panic").expect("it ended well");
    TcpStream::connect(shop.address).await.expect_err("nobody listens any more");
}
