//! Requests that come before the application is there.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use hyper::{Request, StatusCode};
use skep_waker::task::Mode;
use skep_waker::{Rule, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_requests_wait_for_the_application_and_ask_once() {
    let stage = Stage::new(|_| ()).await;
    let at = stage.waker.at;
    let requests = tokio::spawn(join_all((0..200).map(|n| async move { get(at, &format!("/{n}")).await })));
    stage.operator.asked(1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!requests.is_finished());
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    for (parts, body) in soon(requests).await.unwrap() {
        assert_eq!((parts.status, body.as_str()), (StatusCode::OK, "the application"));
    }
    assert_eq!(stage.operator.times(), 1, "one wake was asked for, whoever waits");
}

#[tokio::test]
async fn the_question_names_the_service_and_its_sleep_and_has_the_token() {
    let stage = Stage::new(|task| task.mode = Mode::Page).await;
    get(stage.waker.at, "/").await;
    stage.operator.asked(1).await;
    let (headers, body) = stage.operator.asked.lock().unwrap()[0].clone();
    assert_eq!(headers["authorization"], "Bearer s3cret");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(body, serde_json::json!({"service": "shop_app", "sleep": "sleep-1"}));
}

#[tokio::test]
async fn nobody_looks_for_the_application_before_somebody_asks() {
    let stage = Stage::new(|_| ()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.waker.names.looked.load(Ordering::SeqCst), 0);
    assert_eq!(stage.operator.times(), 0);
}

#[tokio::test]
async fn an_application_that_is_there_is_not_asked_for() {
    let stage = Stage::new(|_| ()).await;
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.operator.times(), 0);
}

#[tokio::test]
async fn who_waits_too_long_gets_the_page() {
    let stage = Stage::new(|task| task.timeout_s = 1).await;
    let began = Instant::now();
    let (parts, body) = get(stage.waker.at, "/").await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!((parts.status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "<p>soon</p>"));
    assert_eq!(parts.headers["retry-after"], "7");
    assert_eq!(parts.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_listed_application_that_refuses_connections_is_waited_for() {
    let stage = Stage::new(|_| ()).await;
    // Reserved, so that nobody else gets it, but not listening.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.bind((APPLICATION, 0).into()).unwrap();
    stage.waker.names.list(reserved.local_addr().unwrap());
    let at = stage.waker.at;
    let request = tokio::spawn(async move { get(at, "/").await });
    stage.operator.asked(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!request.is_finished());
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    assert_eq!(soon(request).await.unwrap().1, "the application");
}

#[tokio::test]
async fn in_page_mode_the_page_comes_at_once_and_the_application_when_it_is_there() {
    let stage = Stage::new(|task| task.mode = Mode::Page).await;
    let (parts, body) = get(stage.waker.at, "/").await;
    assert_eq!((parts.status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "<p>soon</p>"));
    assert_eq!(parts.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(parts.headers["retry-after"], "7");
    assert_eq!(parts.headers["cache-control"], "no-store");
    let (parts, body) = get_with(stage.waker.at, "/", &[("accept", "application/json")]).await;
    assert_eq!((parts.status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, r#"{"soon":true}"#));
    assert_eq!(parts.headers["content-type"], "application/json");
    stage.operator.asked(1).await;
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    soon(async { while get(stage.waker.at, "/").await.1 != "the application" {} }).await;
    assert_eq!(stage.operator.times(), 1);
}

#[tokio::test]
async fn what_is_ignored_gets_the_page_and_wakes_nothing() {
    let stage = Stage::new(|task| {
        task.ignore =
            ["path:/health*", "agent:*bot*", "source:192.0.2.0/24"].map(|r| r.parse().unwrap()).to_vec();
    })
    .await;
    for (path, headers) in [
        ("/healthz?deep=1", &[][..]),
        ("/", &[("user-agent", "GoogleBot/2")]),
        ("/", &[("x-forwarded-for", "10.0.0.1, 192.0.2.7")]),
    ] {
        let (parts, body) = get_with(stage.waker.at, path, headers).await;
        assert_eq!((parts.status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "<p>soon</p>"), "{path}");
        assert_eq!(parts.headers["retry-after"], "7");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.operator.times(), 0);
    assert_eq!(stage.waker.names.looked.load(Ordering::SeqCst), 0);
    // Everything else does, and then a monitor sees the application too.
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    assert_eq!(get(stage.waker.at, "/healthz").await.1, "the application");
}

#[tokio::test]
async fn the_health_check_wakes_nothing() {
    let stage = Stage::new(|task| task.ignore = Vec::<Rule>::new()).await;
    let (parts, body) = get(stage.waker.at, skep_waker::HEALTH_PATH).await;
    assert_eq!((parts.status, body.as_str()), (StatusCode::OK, "ok\n"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(stage.operator.times(), 0);
}

/// As many questions as come in so long, when the operator never agrees: none once nobody waits.
#[tokio::test]
async fn a_client_that_goes_while_it_waits_leaves_nothing_behind() {
    for body in ["", "content-length: 1000\r\n"] {
        let stage = Stage::new(|_| ()).await;
        stage.operator.next.lock().unwrap().extend([Next::Status(503); 10_000]);
        let mut stream = TcpStream::connect(stage.waker.at).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{body}\r\nsome of it");
        stream
            .write_all(&head.as_bytes()[..head.len() - if body.is_empty() { 10 } else { 0 }])
            .await
            .unwrap();
        stage.operator.asked(3).await;
        drop(stream);
        // Asked again as long as somebody waits; so nobody does when the questions end.
        let mut before = 0;
        soon(async {
            while stage.operator.times() != before {
                before = stage.operator.times();
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn too_many_connections_are_told_so_and_the_health_check_is_not() {
    let settings = Settings { connections: 2, ..fast() };
    let stage = Stage::with(|_| (), settings).await;
    let at = stage.waker.at;
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(async move { get(at, "/").await })).collect();
    stage.operator.asked(1).await;
    // One that has a place may have sent its request before the other had one.
    let mut third = get(at, "/").await;
    for _ in 0..50 {
        if third.0.status == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        third = get(at, "/").await;
    }
    assert_eq!((third.0.status, third.1.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "<p>soon</p>"));
    assert_eq!(third.0.headers["connection"], "close");
    assert_eq!(get(at, skep_waker::HEALTH_PATH).await.0.status, StatusCode::OK);
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    for request in held {
        assert_eq!(soon(request).await.unwrap().1, "the application");
    }
}

#[tokio::test]
async fn connections_that_say_nothing_or_never_end_their_head_are_closed() {
    let settings = Settings { idle: Duration::from_millis(200), ..fast() };
    let stage = Stage::with(|_| (), settings).await;
    for begun in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nhost: a\r\n"] {
        let mut stream = TcpStream::connect(stage.waker.at).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Reset or closed, but not held.
        drop(soon(stream.read_to_end(&mut rest)).await);
    }
    assert_eq!(stage.operator.times(), 0);
}

#[tokio::test]
async fn a_body_that_waits_is_not_read() {
    let stage = Stage::new(|_| ()).await;
    let mut stream = TcpStream::connect(stage.waker.at).await.unwrap();
    let head = Request::post("/").header("host", "a").body(()).unwrap();
    assert_eq!(head.method(), "POST");
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
    let chunk = vec![b'x'; 1 << 16];
    let mut sent = 0_usize;
    // It ends when the kernel's buffers are full, whose sizes are its own; what the waker reads has no end.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), stream.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "the waker reads what nobody takes");
    }
}
