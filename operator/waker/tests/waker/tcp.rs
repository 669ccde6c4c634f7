//! Ports of which nothing is known.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hyper::StatusCode;
use skep_waker::task::{Port, Protocol, Task};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::stage::*;

fn tcp(task: &mut Task) {
    task.ports = vec![Port { port: 0, protocol: Protocol::Tcp }];
}

/// Reads all that it gets, and answers only then: so it needs to be told that this was all.
async fn application() -> SocketAddr {
    let listener = TcpListener::bind((APPLICATION, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    at
}

#[tokio::test]
async fn a_connection_waits_for_the_application_and_either_side_may_end_first() {
    let stage = Stage::new(tcp).await;
    let mut stream = TcpStream::connect(stage.waker.at).await.unwrap();
    stream.write_all(b"early").await.unwrap();
    stream.shutdown().await.unwrap();
    stage.operator.asked(1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stage.waker.names.list(application().await);
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "early");
    assert_eq!(stage.operator.times(), 1);
}

#[tokio::test]
async fn a_connection_that_waits_too_long_is_closed() {
    let stage = Stage::new(|task| {
        tcp(task);
        task.timeout_s = 1;
    })
    .await;
    let mut stream = TcpStream::connect(stage.waker.at).await.unwrap();
    assert_eq!(soon(stream.read(&mut [0; 8])).await.unwrap(), 0);
    assert_eq!(stage.operator.times(), 1);
}

#[tokio::test]
async fn a_client_that_goes_is_not_waited_for() {
    let stage = Stage::new(tcp).await;
    stage.operator.next.lock().unwrap().extend([Next::Status(503); 10_000]);
    drop(TcpStream::connect(stage.waker.at).await.unwrap());
    let mut before = usize::MAX;
    soon(async {
        while stage.operator.times() != before {
            before = stage.operator.times();
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_ignored_source_is_closed_and_wakes_nothing() {
    let stage = Stage::new(|task| {
        tcp(task);
        task.ignore = vec!["source:127.0.0.1".parse().unwrap()];
    })
    .await;
    let mut stream = TcpStream::connect(stage.waker.at).await.unwrap();
    assert_eq!(soon(stream.read(&mut [0; 8])).await.unwrap(), 0);
    assert_eq!(stage.operator.times(), 0);
}

#[tokio::test]
async fn a_connection_from_a_task_of_the_service_is_closed() {
    let stage = Stage::new(tcp).await;
    // Another waker: where this test connects from.
    *stage.waker.names.hosts.lock().unwrap() = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    stage.waker.names.port.store(stage.waker.at.port(), std::sync::atomic::Ordering::SeqCst);
    let mut stream = TcpStream::connect(stage.waker.at).await.unwrap();
    assert_eq!(soon(stream.read(&mut [0; 8])).await.unwrap(), 0);
}

#[tokio::test]
async fn health_has_a_port_of_its_own_where_none_speaks_http() {
    let stage = Stage::new(tcp).await;
    assert_eq!(stage.waker.all.len(), 2);
    let (parts, _) = get(stage.waker.all[1], skep_waker::HEALTH_PATH).await;
    assert_eq!(parts.status, StatusCode::OK);
    assert_eq!(get(stage.waker.all[1], "/").await.0.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(stage.operator.times(), 0);
}
