//! Doors: what is use, what is none, and what becomes of whoever comes while the service falls asleep.

use std::time::Duration;

use futures::future::join_all;
use hyper::StatusCode;
use skep_waker::task::{Door, Mode, Port, Protocol, Task, Unused};
use skep_waker::{Rule, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::stage::*;

/// After how long without use the doors of these tests ask for the sleep.
const AFTER: Duration = Duration::from_secs(1);
/// Long enough for a door to have asked, if it did.
const LONG: Duration = Duration::from_millis(1_600);

/// A door to an application that is there, and through which somebody has come.
async fn used(change: impl FnOnce(&mut Task), settings: Settings) -> (Stage, Server) {
    let (stage, application) = unused(change, settings).await;
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    (stage, application)
}

async fn unused(change: impl FnOnce(&mut Task), settings: Settings) -> (Stage, Server) {
    let application = Server::application().await;
    let stage = Stage::with(
        |task| {
            let url = task.ask.url.replace("/v1/wake", "/v1/sleep");
            task.door = Some(Door { unused: Some(Unused { url, after_s: AFTER.as_secs() }) });
            change(task);
        },
        settings,
    )
    .await;
    stage.waker.names.list(application.at);
    (stage, application)
}

#[tokio::test]
async fn nobody_for_so_long_is_told_and_whoever_comes_then_wakes_it() {
    let (stage, application) = used(|_| (), fast()).await;
    sleep(AFTER / 2).await;
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    sleep(AFTER * 3 / 4).await;
    assert_eq!(stage.operator.lulls(), 0, "the last one came not long ago");
    stage.operator.lulled(1).await;
    let asked = stage.operator.lulled.borrow()[0].clone();
    assert_eq!(asked["service"], "shop_app");
    assert!(asked["asked"].as_u64().is_some() && stage.operator.times() == 0, "{asked}");
    stage.waker.names.list_nobody();
    let at = stage.waker.at;
    let requests = tokio::spawn(join_all((0..20).map(|n| async move { get(at, &format!("/{n}")).await })));
    stage.operator.asked(1).await;
    let (_, question) = stage.operator.asked.lock().unwrap()[0].clone();
    assert_eq!(question, serde_json::json!({"service": "shop_app"}));
    sleep(Duration::from_millis(300)).await;
    assert!(!requests.is_finished());
    stage.waker.names.list(application.at);
    for (parts, body) in soon(requests).await.unwrap() {
        assert_eq!((parts.status, body.as_str()), (StatusCode::OK, "the application"));
    }
}

#[tokio::test]
async fn a_door_through_which_nothing_ever_came_asks_for_nothing() {
    let (stage, _application) = unused(|_| (), fast()).await;
    sleep(LONG).await;
    assert_eq!(stage.operator.lulls(), 0);
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    stage.operator.lulled(1).await;
}

#[tokio::test]
async fn an_open_websocket_is_use_and_none_when_it_is_closed() {
    let application = Server::new(APPLICATION, echo).await;
    let (stage, _other) = unused(|_| (), fast()).await;
    stage.waker.names.list(application.at);
    let mut socket = websocket(stage.waker.at).await;
    sleep(LONG).await;
    assert_eq!(stage.operator.lulls(), 0, "it is open, however quiet");
    socket.write_all(b"still there").await.unwrap();
    let mut echoed = [0; 11];
    soon(socket.read_exact(&mut echoed)).await.unwrap();
    drop(socket);
    stage.operator.lulled(1).await;
}

#[tokio::test]
async fn an_open_connection_of_another_protocol_is_use() {
    let listener = TcpListener::bind((APPLICATION, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let tcp = |task: &mut Task| task.ports = vec![Port { port: 0, protocol: Protocol::Tcp }];
    let (stage, _other) = unused(tcp, fast()).await;
    stage.waker.names.list(at);
    let mut client = TcpStream::connect(stage.waker.at).await.unwrap();
    let (mut served, _) = soon(listener.accept()).await.unwrap();
    sleep(LONG).await;
    assert_eq!(stage.operator.lulls(), 0);
    served.write_all(b"late").await.unwrap();
    let mut got = [0; 4];
    soon(client.read_exact(&mut got)).await.unwrap();
    drop((client, served));
    stage.operator.lulled(1).await;
}

#[tokio::test]
async fn what_is_ignored_passes_and_is_no_use() {
    let ignore = |task: &mut Task| task.ignore = vec![Rule::Path("/health".to_owned())];
    let (stage, _application) = unused(ignore, fast()).await;
    let at = stage.waker.at;
    // Nobody else has come yet, and nobody looks for the application.
    assert_eq!(get(at, "/health").await.1, "the application");
    let monitor = tokio::spawn(async move {
        loop {
            get(at, "/health").await;
            sleep(Duration::from_millis(50)).await;
        }
    });
    stage.operator.lulled(1).await;
    monitor.abort();
    stage.waker.names.list_nobody();
    sleep(Duration::from_millis(400)).await;
    assert_eq!(get(at, "/health").await.0.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(stage.operator.times(), 0, "it wakes nothing");
}

/// As of a proxy that asks whether it is there before it sends anybody.
#[tokio::test]
async fn what_is_ignored_sees_where_the_application_is_now_and_wakes_nobody() {
    let ignore = |task: &mut Task| task.ignore = vec![Rule::Path("/health".to_owned())];
    let (stage, application) =
        unused(ignore, Settings { look_up: Duration::from_millis(50), ..fast() }).await;
    assert_eq!(get(stage.waker.at, "/health").await.1, "the application");
    drop(application);
    let other = Server::new(APPLICATION, |_| async { text(StatusCode::OK, "another") }).await;
    stage.waker.names.list(other.at);
    let moved = async {
        while get(stage.waker.at, "/health").await.1 != "another" {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon(moved).await;
    assert_eq!(stage.operator.times(), 0);
}

/// Whoever comes from the moment of the question on is let through only when the operator says that it does not sleep.
#[tokio::test]
async fn who_comes_while_it_falls_asleep_is_held_until_it_is_known_that_it_does_not() {
    let (stage, _application) = used(|_| (), fast()).await;
    stage.operator.next.lock().unwrap().extend([Next::Status(202); 3]);
    stage.operator.next.lock().unwrap().push_back(Next::Status(404));
    stage.operator.lulled(1).await;
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    assert_eq!(stage.operator.times(), 4, "it was asked whether it still falls asleep");
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    assert_eq!(stage.operator.times(), 4, "the door is open again");
}

/// Until the operator has answered, that the service does not sleep says nothing of what it begins now.
#[tokio::test]
async fn who_comes_while_the_operator_is_asked_for_the_sleep_asks_afterwards() {
    let (stage, _application) = used(|_| (), fast()).await;
    stage.operator.next_lull.lock().unwrap().push_back(Next::Slow(Duration::from_millis(500), 202));
    stage.operator.next.lock().unwrap().push_back(Next::Status(404));
    stage.operator.lulled(1).await;
    let at = stage.waker.at;
    let request = tokio::spawn(async move { get(at, "/").await });
    sleep(Duration::from_millis(250)).await;
    assert!(stage.operator.times() == 0 && !request.is_finished());
    assert_eq!(soon(request).await.unwrap().1, "the application");
    assert_eq!(stage.operator.times(), 1);
}

#[tokio::test]
async fn a_question_that_may_have_been_heard_holds_as_well() {
    let settings = Settings { ask_timeout: Duration::from_millis(200), ..fast() };
    let (stage, _application) = used(|_| (), settings).await;
    stage.operator.next_lull.lock().unwrap().push_back(Next::Silence);
    stage.operator.next.lock().unwrap().push_back(Next::Status(404));
    stage.operator.lulled(1).await;
    sleep(Duration::from_millis(250)).await;
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    assert_eq!(stage.operator.times(), 1);
}

#[tokio::test]
async fn a_sleep_that_is_not_granted_holds_nobody_and_is_asked_for_again() {
    let (stage, _application) = used(|_| (), fast()).await;
    stage.operator.next_lull.lock().unwrap().push_back(Next::Status(409));
    stage.operator.lulled(1).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    assert_eq!(stage.operator.times(), 0);
    stage.operator.lulled(2).await;
}

#[tokio::test]
async fn an_operator_that_is_away_leaves_nobody_waiting_for_long() {
    let settings = Settings { held: Duration::from_millis(400), ..fast() };
    let (stage, _application) = used(|_| (), settings).await;
    stage.operator.next.lock().unwrap().extend([Next::Status(503); 1_000]);
    stage.operator.lulled(1).await;
    assert_eq!(get(stage.waker.at, "/").await.1, "the application");
    assert!(stage.operator.times() > 0);
}

#[tokio::test]
async fn nothing_is_asked_of_what_sleeps_already_and_nothing_by_a_door_that_leaves() {
    let (stage, application) = used(|_| (), fast()).await;
    stage.waker.names.list_nobody();
    sleep(LONG).await;
    assert_eq!((stage.operator.lulls(), stage.operator.times()), (0, 0));
    drop((stage, application));

    let (mut stage, _application) = used(|_| (), Settings { quiet: LONG * 2, ..fast() }).await;
    stage.waker.stop();
    sleep(LONG).await;
    assert_eq!(stage.operator.lulls(), 0);
}

#[tokio::test]
async fn a_door_without_such_a_wish_asks_for_no_sleep_and_pages_as_a_waker_does() {
    let change = |task: &mut Task| {
        task.door = Some(Door::default());
        task.mode = Mode::Page;
    };
    let (stage, application) = used(change, fast()).await;
    sleep(LONG).await;
    assert_eq!(stage.operator.lulls(), 0);
    stage.waker.names.list_nobody();
    drop(application);
    let settled = async {
        while get(stage.waker.at, "/").await.0.status != StatusCode::SERVICE_UNAVAILABLE {
            sleep(Duration::from_millis(50)).await;
        }
    };
    soon(settled).await;
    stage.operator.asked(1).await;
}
