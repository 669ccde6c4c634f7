//! A shop falls asleep and wakes on a real Swarm: by hand, deployed over in its sleep, scaled up by a person, and with the
//! operator killed half-way.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_sleep -- --ignored --test-threads 1`. Needs root and the Debian
//! packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use skep::operation::desk;
use skep::operation::record::{Above, Operation, State, Trigger, Work};
use skep::operation::sleeper;
use skep_tests::sandbox::eventually;
use skep_tests::stage::{Setting, Stage};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
/// Longest time until the operator has looked, and has done something about it.
const PATIENCE: Duration = Duration::from_secs(90);

/// The stack file with labels of sleep on everything but the proxy, which come due in no test.
fn sleepy(text: &str) -> String {
    let labels = "        skep.scale.down: \"0 0 1 1 *\"\n        skep.scale.up: \"0 0 2 1 *\"\n";
    let mut file = String::new();
    let mut service = String::new();
    for line in text.lines() {
        if line.starts_with("  ") && !line.starts_with("   ") {
            line.trim().clone_into(&mut service);
        }
        file += line;
        file.push('\n');
        if line.trim() == "skep.enable: \"true\"" && service != "proxy:" {
            file += labels;
        }
    }
    assert_ne!(text, file.as_str(), "the stack file is as this suite knows it");
    file
}

/// Another release with three replicas.
fn second(text: &str) -> String {
    let changed = text.replace("CACHE_HOST: cache", "CACHE_HOST: cache\n      RELEASE: \"2\"");
    sleepy(&changed.replace("replicas: 2", "replicas: 3"))
}

/// How many tasks of a service have not ended.
async fn tasks(stage: &Stage, short: &str) -> usize {
    let service = stage.engine.service(&stage.service(short)).await.unwrap();
    let tasks = stage.engine.tasks(&[&service.id]).await.unwrap();
    tasks.iter().filter(|t| !t.state.is_terminal()).count()
}

async fn succeeded(stage: &Stage, work: Work) -> Operation {
    let id = stage.ask(work).await;
    let op = stage.ended(&id).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    op
}

/// The operation of this kind on the application that Skep asked for by itself, once it has ended.
async fn found(stage: &Stage, kind: &str, besides: usize) -> Operation {
    let app = stage.service("app");
    eventually(&format!("a {kind} of the application"), PATIENCE, async || {
        let all = desk::list(&stage.engine).await.map_err(|e| e.to_string())?;
        let own = |op: &&Operation| {
            op.intent.service == app
                && op.intent.work.kind() == kind
                && matches!(op.intent.trigger, Trigger::Found { .. })
                && op.journal.state.is_terminal()
        };
        let found: Vec<&Operation> = all.iter().filter(own).collect();
        match found.get(besides) {
            Some(op) => Ok((*op).clone()),
            None => Err(format!("{} of {}", found.len(), all.len())),
        }
    })
    .await
}

async fn sleepers(stage: &Stage) -> Vec<String> {
    let mut names: Vec<String> =
        sleeper::list(&stage.engine).await.unwrap().into_iter().map(|s| s.sleeper.service).collect();
    names.sort();
    names
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_shop_sleeps_wakes_and_keeps_what_was_deployed_meanwhile() {
    let stage = Stage::set(Setting { mode: "proxy", ..Setting::default() }).await;
    stage.redeploy(|text| sleepy(&text)).await;
    stage.settled().await;
    let mut operator = stage.operator(OPERATOR, &[]).await;
    let awake = stage.shop().specs().await;
    let users = stage.users(20);

    let slept = succeeded(&stage, Work::Sleep { above: Above::Along }).await;
    for service in ["app", "worker", "db"] {
        assert_eq!(tasks(&stage, service).await, 0, "{service}");
    }
    assert_eq!(sleepers(&stage).await, ["app", "db", "worker"].map(|s| stage.service(s)));
    let stopped = slept.journal.step("stop").unwrap();
    println!("asleep in {}", stopped.changed.duration_since(stopped.began));

    // Killed while it brings the database back: another one goes on.
    let app = stage.engine.service(&stage.service("app")).await.unwrap();
    let waking = stage.ask_of(app.name(), &app.id, Work::Wake).await;
    stage.caught(&waking, "its start", |op| op.journal.step("start").is_some()).await;
    operator.kill().await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let woken = stage.ended(&waking).await;
    assert_eq!(woken.journal.state, State::Succeeded, "{:#?}", woken.journal);
    stage.shop().serves().await;
    let report = users.leave().await;
    println!("users {:?}", report.totals);
    report.assert_nothing_wrong();
    assert_eq!(sleepers(&stage).await, [stage.service("worker")], "nobody asked for it");
    let specs = stage.shop().specs().await;
    for service in ["app", "db"] {
        assert_eq!(specs[service].to_string(), awake[service].to_string(), "{service}");
    }

    // Deployed over in its sleep: it sleeps on, and wakes as it was deployed.
    succeeded(&stage, Work::Sleep { above: Above::Along }).await;
    stage.redeploy(|text| second(&text)).await;
    let again = found(&stage, "sleep", 0).await;
    assert_eq!(again.journal.state, State::Succeeded, "{:#?}", again.journal);
    assert_eq!(tasks(&stage, "app").await, 0);
    let waking = stage.ask_of(app.name(), &app.id, Work::Wake).await;
    assert_eq!(stage.ended(&waking).await.journal.state, State::Succeeded);
    stage.shop().serves().await;
    let deployed = stage.shop().specs().await["app"].clone();
    assert!(
        deployed["TaskTemplate"]["ContainerSpec"]["Env"].to_string().contains("RELEASE=2"),
        "{deployed:#}"
    );
    assert_eq!(deployed["Mode"]["Replicated"]["Replicas"], 3);

    // A person scales it up: it is awake, with what it needs, and as they want it.
    succeeded(&stage, Work::Sleep { above: Above::Along }).await;
    stage.sandbox.docker(&["service", "scale", "--detach", &format!("{}=1", stage.service("app"))]).await;
    let by_hand = found(&stage, "wake", 0).await;
    assert_eq!(by_hand.journal.state, State::Succeeded, "{:#?}", by_hand.journal);
    stage.shop().serves().await;
    assert_eq!((tasks(&stage, "app").await, tasks(&stage, "db").await), (1, 1));
    assert!(!sleepers(&stage).await.contains(&stage.service("app")));
    drop(operator);
    stage.strike().await;
}
