//! What lasts long or is large wakes what sleeps, passes unbroken, and is use, on a real Swarm: WebSockets, uploads, downloads and
//! calls of HTTP/2; with Skep killed in every step of a wake and of a sleep. Services of all modes, and those that keep replicas.
//!
//! Run by: `make runner image && cargo test -p skep-tests --test real_streams -- --ignored --test-threads 1`. Needs root, the
//! Debian packages of `make setup`, and the image skep:dev; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::SinkExt as _;
use futures::channel::mpsc;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use skep::operation::client_spec::is_asleep;
use skep::operation::journal::Step as _;
use skep::operation::record::{Above, Operation, State, Trigger, Work};
use skep::operation::saga::Saga as _;
use skep::operation::sleep::Sleep;
use skep::operation::wake::Wake;
use skep::runtime::clock;
use skep_tests::sandbox::eventually;
use skep_tests::stage::{Door, Operator, Write, in_the_middle_of};
use skep_tests::streams::{FEW, GUARDED, IDLE_AFTER, Scene, WebSocket};
use tokio::time::timeout;

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
/// Longest time for anything to happen by itself.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than anybody waits who is not held.
const HELD: Duration = Duration::from_secs(2);
const MIB: usize = 1 << 20;
/// How much is uploaded at once.
const UPLOAD: usize = 200;
/// How much memory a waker may have had at most, KiB. It has about a tenth of that before anybody comes.
const PEAK_KIB: u64 = 64 * 1_024;

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn what_lasts_long_or_is_large_wakes_what_sleeps_and_is_not_broken() {
    let began = Instant::now();
    let scene = Scene::set().await;
    let operator = scene.operator(OPERATOR).await;
    println!("the scene is set after {:.0} s", began.elapsed().as_secs_f64());

    // What takes a minute comes first, and the others meanwhile.
    let (guarded, socket) = tokio::join!(a_websocket_through_a_door(&scene), a_websocket_wakes(&scene));
    tokio::join!(
        a_large_upload(&scene),
        a_download_outlives_the_wake(&scene),
        calls_of_http_2(&scene),
        global_services(&scene),
        some_replicas_are_kept(&scene),
    );
    println!("streams and modes after {:.0} s", began.elapsed().as_secs_f64());
    let operator = killed_in_every_step(&scene, operator).await;
    let operator = killed_falling_asleep(&scene, operator).await;
    println!("killed in every step after {:.0} s", began.elapsed().as_secs_f64());
    let socket = an_open_websocket_is_use(&scene, socket).await;
    println!("kept through the deadline after {:.0} s", began.elapsed().as_secs_f64());
    tokio::join!(
        a_closed_one_is_none(&scene, socket),
        used_again(&scene),
        its_door_sees_what_is_use(&scene, guarded)
    );
    println!("asleep for want of use after {:.0} s", began.elapsed().as_secs_f64());
    drop(operator);
    // A door is no service of the stack, and keeps its network for as long as it stands.
    let sandbox = scene.stage.sandbox;
    let doors = sandbox.docker(&["service", "ls", "-q", "--filter", "name=skep-door-"]).await;
    for door in doors.split_whitespace() {
        sandbox.docker(&["service", "rm", door]).await;
    }
    scene.strike().await;
}

/// A WebSocket is what wakes it. Another service wakes later, for nothing.
async fn a_websocket_wakes(scene: &Scene) -> WebSocket {
    let (slept, _) = tokio::join!(scene.sleep("socket"), scene.sleep("control"));
    let mut socket = scene.client("socket").websocket().await;
    assert_eq!(socket.passed.as_deref(), Some(slept.id.as_str()), "it goes through the waker of this sleep");
    socket.echo("good morning").await;
    scene.woken("socket").await;
    assert!(scene.client("control").get("/health").await.unwrap().is_of_the_application());
    scene.woken("control").await;
    socket.echo("still in the path?").await;
    // Whoever comes now meets the application itself.
    let answer = scene.client("socket").get("/health").await.unwrap();
    assert!(answer.is_of_the_application(), "{answer:?}");
    socket
}

/// The other one falls asleep, which was woken later: so the time of this one had come as well, and it was left awake.
async fn an_open_websocket_is_use(scene: &Scene, mut socket: WebSocket) -> WebSocket {
    let slept = scene.noticed("control", "sleep").await;
    let why = |op: &Operation| matches!(&op.intent.trigger, Trigger::Found { what } if what.contains("nobody has used it"));
    assert!(why(&slept), "{slept:#?}");
    let found = scene.found("socket", "sleep").await;
    assert!(found.is_empty(), "it was put to sleep under an open WebSocket: {found:#?}");
    socket.echo("after the deadline").await;
    assert_eq!(scene.wakers("socket").await.len(), 1, "it goes on through the waker");
    assert!(!is_asleep(&scene.spec("socket").await));
    socket
}

async fn a_closed_one_is_none(scene: &Scene, socket: WebSocket) {
    socket.close().await;
    let gone = scene.left_alone("socket").await;
    let slept = scene.noticed("socket", "sleep").await;
    let after = slept.intent.created.duration_since(gone);
    println!("asleep {after:#} after its waker had left");
    // The engine tells the end of a container a little before it is not listed any more.
    let shortest = IDLE_AFTER - Duration::from_secs(5);
    assert!(after.unsigned_abs() > shortest && after.is_positive(), "only {after:#} later");
    assert!(is_asleep(&scene.spec("socket").await));
}

/// All of it arrives, though it was sent before there was anybody to take it, and the waker holds none of it.
async fn a_large_upload(scene: &Scene) {
    let slept = scene.sleep("upload").await;
    let awake = scene.wakers("upload").await;
    let [waker] = awake.as_slice() else { panic!("one waker, not {awake:?}") };
    let before = scene.peak_kib(waker).await;
    let (mut give, chunks) = mpsc::channel::<Bytes>(1);
    let answer = tokio::spawn(scene.client("upload").upload("/upload", chunks));
    let mut sum = Sha256::new();
    for number in 0..UPLOAD {
        let chunk: Vec<u8> =
            (0..MIB / 8).flat_map(|at| ((number * MIB + at) as u64 * 0x9E37_79B9).to_le_bytes()).collect();
        sum.update(&chunk);
        for part in chunk.chunks(MIB / 16) {
            give.send(Bytes::copy_from_slice(part)).await.unwrap();
        }
    }
    // All but the last byte is on its way.
    let peak = scene.peak_kib(waker).await;
    give.send(Bytes::from_static(b"!")).await.unwrap();
    sum.update(b"!");
    drop(give);
    let answer = answer.await.unwrap().unwrap();
    assert!(answer.is_of_the_application(), "{answer:?}");
    assert_eq!(answer.passed().as_deref(), Some(slept.id.as_str()));
    let sum: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(told, json!({ "bytes": UPLOAD * MIB + 1, "sha256": sum }));
    println!("{UPLOAD} MiB through a waker that had {before} KiB before and {peak} KiB at most");
    assert!(peak < PEAK_KIB, "{peak} KiB");
    scene.woken("upload").await;
    scene.left_alone("upload").await;
}

/// It begins before the service is up, and goes on when that is, the wake is over, and the waker has been told to leave.
async fn a_download_outlives_the_wake(scene: &Scene) {
    let slept = scene.sleep("download").await;
    let mut download = scene.client("download").download().await;
    assert_eq!(download.passed.as_deref(), Some(slept.id.as_str()));
    assert_eq!(download.line().await, Some(0));
    scene.woken("download").await;
    scene.told_to_leave("download").await;
    // What was sent meanwhile comes first.
    let before = download.line().await.unwrap();
    while download.line().await.unwrap() < before + 200 {}
    let end = scene.client("download").upload("/end", futures::stream::empty()).await.unwrap();
    assert!(end.is_of_the_application(), "{end:?}");
    assert_eq!(end.passed(), None, "the waker is out of the path of whoever comes anew");
    let mut last = before;
    while let Some(line) = download.line().await {
        last = line;
    }
    println!("{last} lines went through a waker that had to leave");
    scene.left_alone("download").await;
}

/// Calls of HTTP/2 with trailers both ways, twenty at once on one connection, wake it; once it is awake they need no waker.
async fn calls_of_http_2(scene: &Scene) {
    let slept = scene.sleep("calls").await;
    let messages = ["one", "two", "three"];
    let caller = scene.client("calls").calls().await;
    let held = (0..20).map(|_| caller.call(&messages));
    for passed in futures::future::join_all(held).await {
        assert_eq!(passed.as_deref(), Some(slept.id.as_str()));
    }
    scene.woken("calls").await;
    scene.left_alone("calls").await;
    let caller = scene.client("calls").calls().await;
    assert_eq!(caller.call(&messages).await, None, "the waker has gone");
}

/// A global service sleeps behind a constraint, or behind a waker, and comes back as it was.
async fn global_services(scene: &Scene) {
    for name in ["behind", "everywhere"] {
        let (before, running) = (scene.spec(name).await, scene.running(name).await);
        assert!(!before["Mode"]["Global"].is_null() && running == 1, "{running} of {before:#}");
        scene.sleep(name).await;
        if name == "behind" {
            assert_eq!(scene.running(name).await, 0);
            scene.done(name, Work::Wake).await;
        } else {
            let answer = scene.client(name).get("/health").await.unwrap();
            assert!(answer.is_of_the_application() && answer.passed().is_some(), "{answer:?}");
            scene.woken(name).await;
        }
        assert_eq!(scene.spec(name).await.to_string(), before.to_string(), "its exact spec is back");
        assert_eq!(scene.running(name).await, 1);
        scene.left_alone(name).await;
        assert!(scene.client(name).get("/health").await.unwrap().is_of_the_application());
    }
}

/// It stands for good. Whoever asks goes through it, to the application itself.
async fn a_websocket_through_a_door(scene: &Scene) -> WebSocket {
    scene.door(None).await;
    let mut socket = scene.client(GUARDED).websocket().await;
    assert!(socket.passed.as_deref().is_some_and(|by| by.starts_with("skep-door-")), "{:?}", socket.passed);
    socket.echo("through the door").await;
    socket
}

/// No Prometheus tells of this one: an open WebSocket kept it awake for longer than the deadline, a monitor is no use, and when
/// nothing is open it falls asleep, to nothing at all. Whoever comes to the door wakes it. The door dies, and that is no reason to
/// stop it.
async fn its_door_sees_what_is_use(scene: &Scene, mut socket: WebSocket) {
    assert!(scene.found(GUARDED, "sleep").await.is_empty(), "it was put to sleep under an open WebSocket");
    socket.echo("after the deadline").await;
    let before = scene.spec(GUARDED).await;
    socket.close().await;
    let closed = clock::now();
    let monitor = async {
        loop {
            // It gets the page once the service sleeps.
            drop(scene.client(GUARDED).get("/health").await);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    let slept = tokio::select! {
        slept = scene.noticed(GUARDED, "sleep") => slept,
        () = monitor => unreachable!("it never ends"),
    };
    let after = slept.intent.created.duration_since(closed);
    println!("asleep {after:#} after nothing was open at the door");
    assert!(
        after.unsigned_abs() > IDLE_AFTER - Duration::from_secs(2) && after.is_positive(),
        "only {after:#} later"
    );
    assert!(is_asleep(&scene.spec(GUARDED).await));
    assert_eq!(
        (scene.running(GUARDED).await, scene.wakers(GUARDED).await.len()),
        (0, 0),
        "the door is enough"
    );
    let asked = Instant::now();
    let upload = scene.client(GUARDED).upload("/upload", futures::stream::iter([Bytes::from_static(b"!")]));
    let answer = upload.await.unwrap();
    assert!(answer.is_of_the_application(), "{answer:?}");
    println!("awake through the door after {:.1} s", asked.elapsed().as_secs_f64());
    scene.woken(GUARDED).await;
    assert_eq!(scene.spec(GUARDED).await.to_string(), before.to_string(), "its exact spec is back");
    let door = scene.door(None).await;
    scene.stage.sandbox.docker(&["kill", &door]).await;
    scene.door(Some(&door)).await;
    assert_eq!((scene.found(GUARDED, "sleep").await.len(), scene.running(GUARDED).await), (1, 1));
}

/// By hand it goes down to what it keeps, all the while in reach, and back.
async fn some_replicas_are_kept(scene: &Scene) {
    let before = scene.spec(FEW).await;
    scene.done(FEW, Work::Sleep { above: Above::Alone }).await;
    assert_eq!(scene.running(FEW).await, 1);
    assert!(!is_asleep(&scene.spec(FEW).await));
    assert!(scene.client(FEW).get("/health").await.unwrap().is_of_the_application());
    scene.done(FEW, Work::Wake).await;
    assert_eq!(scene.spec(FEW).await.to_string(), before.to_string(), "its exact spec is back");
    assert_eq!(scene.running(FEW).await, 2);
}

/// For want of use it went down to what it keeps; as soon as it is used it comes back.
async fn used_again(scene: &Scene) {
    scene.noticed(FEW, "sleep").await;
    assert_eq!(scene.running(FEW).await, 1);
    assert!(scene.client(FEW).get("/health").await.unwrap().is_of_the_application());
    scene.used_from_now_on();
    scene.noticed(FEW, "wake").await;
    assert_eq!(scene.running(FEW).await, 2);
    assert!(scene.found(FEW, "sleep").await.len() == 1, "it stays up while it is used");
}

/// Skep dies right behind a write in the middle of every step of a wake, and in some twice; and so does a waker that holds
/// somebody. Neighbouring steps are of two wakes, so that each is met by an operator that knows nothing.
async fn killed_in_every_step(scene: &Scene, mut operator: Operator) -> Operator {
    let steps: Vec<&'static str> = Wake.steps().iter().map(|step| step.name()).collect();
    for (first, name) in [(0, "calls"), (1, "download")] {
        let before = scene.spec(name).await;
        scene.sleep(name).await;
        operator.kill().await;
        scene.bury(operator);
        if first == 0 {
            a_waker_dies_with_whom_it_holds(scene, name).await;
        }
        let asked = tokio::spawn(scene.client(name).get("/health"));
        for &step in steps.iter().skip(first).step_by(2) {
            killed_at(scene, name, step).await;
            println!("killed at {step} of the wake of {name}");
        }
        operator = scene.operator(OPERATOR).await;
        let answer = asked.await.unwrap().unwrap();
        assert!(answer.is_of_the_application(), "{answer:?}");
        let wakes = scene.found(name, "wake").await;
        assert_eq!(wakes.len(), 2, "one for each sleep: {wakes:#?}");
        let ended = scene.stage.ended(&wakes[1].id).await;
        assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
        assert_eq!(scene.spec(name).await.to_string(), before.to_string(), "its exact spec is back");
    }
    operator
}

/// The same of a sleep: it is done all the same, once, and the service wakes from it as it was.
async fn killed_falling_asleep(scene: &Scene, mut operator: Operator) -> Operator {
    let steps: Vec<&'static str> = Sleep.steps().iter().map(|step| step.name()).collect();
    for (first, name) in [(0, "calls"), (1, "download")] {
        let before = scene.spec(name).await;
        operator.kill().await;
        scene.bury(operator);
        let service = scene.service(name).await;
        let work = Work::Sleep { above: Above::Alone };
        let sleep = scene.stage.ask_of(service.name(), &service.id, work).await;
        for &step in steps.iter().skip(first).step_by(2) {
            killed_at(scene, name, step).await;
            println!("killed at {step} of the sleep of {name}");
        }
        operator = scene.operator(OPERATOR).await;
        let ended = scene.stage.ended(&sleep).await;
        assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
        assert!(is_asleep(&scene.spec(name).await));
        let answer = scene.client(name).get("/health").await.unwrap();
        assert!(answer.is_of_the_application(), "{answer:?}");
        let wakes = scene.found(name, "wake").await;
        let woken = scene.stage.ended(&wakes.last().unwrap().id).await;
        assert_eq!(woken.journal.state, State::Succeeded, "{:#?}", woken.journal);
        assert_eq!(scene.spec(name).await.to_string(), before.to_string(), "its exact spec is back");
    }
    operator
}

/// An operator that is killed right behind a write in the middle of this step.
async fn killed_at(scene: &Scene, name: &str, step: &'static str) {
    let (service, mut is_it) = (scene.service(name).await.id, in_the_middle_of(step, 1));
    let rule = move |write: &Write| (write.is_of(&service) || write.is_of_no_operation()) && is_it(write);
    let door = Door::open(scene.stage.sandbox.socket(), rule);
    let mut leader = scene.operator_behind(&door, OPERATOR).await;
    door.is_shut().await;
    leader.kill().await;
    scene.bury(leader);
}

/// Nobody can wake it now. Whoever is held is told that the connection has broken, and the next waker holds whoever comes.
async fn a_waker_dies_with_whom_it_holds(scene: &Scene, name: &str) {
    let wakers = scene.wakers(name).await;
    let [waker] = wakers.as_slice() else { panic!("one waker, not {wakers:?}") };
    let held = tokio::spawn(scene.client(name).get("/health"));
    scene.holds(waker).await;
    scene.stage.sandbox.docker(&["kill", waker]).await;
    let broken = held.await.unwrap();
    assert!(broken.is_err(), "an answer of nobody: {broken:?}");
    eventually("another waker to hold somebody", PATIENCE, async || {
        match timeout(HELD, scene.client(name).get("/health")).await {
            Err(_) => Ok(()),
            Ok(other) => Err(format!("{other:?}")),
        }
    })
    .await;
}
