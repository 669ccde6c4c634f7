//! Questions to the operator.

use std::time::Duration;

use skep_waker::Settings;
use skep_waker::task::Mode;
use tokio::net::TcpListener;

use crate::stage::*;

#[tokio::test]
async fn the_operator_is_asked_until_it_agrees() {
    let settings = Settings { ask_timeout: Duration::from_millis(300), ..fast() };
    let stage = Stage::with(|_| (), settings).await;
    stage.operator.next.lock().unwrap().extend([Next::Status(503), Next::Silence, Next::Status(401)]);
    let at = stage.waker.at;
    let request = tokio::spawn(async move { get(at, "/").await });
    stage.operator.asked(4).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.operator.times(), 4, "it agreed the fourth time");
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    assert_eq!(soon(request).await.unwrap().1, "the application");
}

#[tokio::test]
async fn an_operator_that_cannot_be_reached_is_asked_when_it_can() {
    // Taken while nobody listens.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = reserved.local_addr().unwrap();
    let stage = Stage::new(|task| task.ask.url = format!("http://{at}/v1/wake")).await;
    let waker = stage.waker.at;
    let request = tokio::spawn(async move { get(waker, "/").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let operator: TcpListener = reserved.listen(16).unwrap();
    // A question is on its way; it is answered by no one here, so only that it comes counts.
    soon(operator.accept()).await.unwrap();
    request.abort();
}

#[tokio::test]
async fn a_wake_that_brought_nothing_is_asked_for_again() {
    let settings = Settings { ask_again: Duration::from_millis(200), ..fast() };
    let stage = Stage::with(|_| (), settings).await;
    let at = stage.waker.at;
    let request = tokio::spawn(async move { get(at, "/").await });
    stage.operator.asked(3).await;
    let application = Server::application().await;
    stage.waker.names.list(application.at);
    assert_eq!(soon(request).await.unwrap().1, "the application");
    let so_far = stage.operator.times();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.operator.times(), so_far, "it is there");
}

#[tokio::test]
async fn who_got_a_page_counts_as_waiting_for_a_while() {
    let settings = Settings { page_counts: Duration::from_millis(400), ..fast() };
    let stage = Stage::with(|task| task.mode = Mode::Page, settings).await;
    stage.operator.next.lock().unwrap().extend([Next::Status(503); 10_000]);
    get(stage.waker.at, "/").await;
    stage.operator.asked(5).await;
    let mut before = 0;
    soon(async {
        while stage.operator.times() != before {
            before = stage.operator.times();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
}
