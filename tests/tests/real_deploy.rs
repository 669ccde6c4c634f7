//! Somebody deploys the stack, or updates a service, in the middle of a restore: it succeeds all the same, and what was
//! deployed is what stands at the end.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_deploy -- --ignored --test-threads 1`. Needs root and the Debian
//! packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};
use skep::operation::record::{Operation, State};
use skep_tests::stage::{Setting, Specs, Stage};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

/// What happens while a step runs.
type Disturbance<'a> = (&'static str, &'a dyn Fn() -> LocalBoxFuture<'a, ()>);

/// A restore during which these things happen, each when its step has begun.
async fn disturbed(stage: &Stage, disturbances: &[Disturbance<'_>]) -> Operation {
    let shop = stage.shop();
    let rows = shop.orders().await;
    stage.back_up().await;
    shop.drop_orders().await;
    let users = stage.users(40);
    let id = stage.ask_restore().await;
    for (step, disturb) in disturbances {
        stage.when(&id, step, |op| op.journal.step(step).is_some()).await;
        disturb().await;
        let op = stage.when(&id, "to be there", |_| true).await;
        println!("disturbed at {step}: {:?}", op.journal.step(step).map(|r| r.state));
    }
    let ended = stage.ended(&id).await;
    shop.serves().await;
    let report = users.leave().await;
    println!("{:?}, users {:?}", ended.journal.state, report.totals);
    println!("remarks: {:#?}", ended.journal.remarks);
    assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    report.assert_nothing_wrong();
    let missing: Vec<_> = rows.difference(&shop.orders().await).copied().collect();
    assert_eq!(missing, Vec::<u64>::new(), "every order of the backup is back");
    shop.is_tidy().await;
    ended
}

/// The stack file with another environment and three replicas of the application.
#[expect(clippy::needless_pass_by_value, reason = "the stage passes what it has read")]
fn changed(text: String) -> String {
    let changed = text.replace("CACHE_HOST: cache", "CACHE_HOST: cache\n      RELEASE: \"2\"");
    let changed = changed.replace("replicas: 2", "replicas: 3");
    assert_ne!(text, changed, "the stack file is as this suite knows it");
    changed
}

fn without_the_count(spec: &Value) -> Value {
    let mut spec = spec.clone();
    // Each update of the engine's may count; it says nothing about what was deployed.
    spec["TaskTemplate"]["ForceUpdate"] = json!(0);
    spec
}

fn assert_same(found: &Specs, wanted: &Specs) {
    for (service, spec) in found {
        let (found, wanted) = (without_the_count(spec), without_the_count(&wanted[service]));
        assert_eq!(found.to_string(), wanted.to_string(), "the spec of {service}");
    }
}

/// What `docker stack deploy` would leave of the stack file now: deploying the same again changes nothing.
async fn assert_deployed(stage: &Stage, file: impl Fn(String) -> String) {
    let found = stage.shop().specs().await;
    stage.redeploy(file).await;
    assert_same(&found, &stage.shop().specs().await);
}

fn is_second_release(app: &Value) -> bool {
    app["TaskTemplate"]["ContainerSpec"]["Env"].to_string().contains("RELEASE=2")
        && app["Mode"]["Replicated"]["Replicas"] == 3
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn what_is_deployed_in_the_middle_stands_at_the_end() {
    let mut stage = Stage::set(Setting::default()).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    stage.sandbox.docker(&["tag", "skep-test/shop:1", "skep-test/shop:2"]).await;
    while_the_page_is_on(&stage).await;
    stage.turn(Setting { mode: "proxy", ..Setting::default() }).await;
    stage.settled().await;
    while_the_clients_are_at_zero(&stage).await;
    drop(operator);
    stage.strike().await;
}

/// The whole stack, and later one image: what stands at the end is both.
async fn while_the_page_is_on(stage: &Stage) {
    let deploy = || stage.redeploy(changed).boxed_local();
    let update = || {
        async {
            let app = stage.service("app");
            let update =
                ["service", "update", "--detach", "--no-resolve-image", "--image", "skep-test/shop:2", &app];
            stage.sandbox.docker(&update).await;
        }
        .boxed_local()
    };
    disturbed(stage, &[("cut", &deploy), ("canary", &update)]).await;
    let mut app = stage.shop().specs().await.remove("app").unwrap();
    assert!(is_second_release(&app), "{app:#}");
    let image = app["TaskTemplate"]["ContainerSpec"]["Image"].take();
    assert_eq!(image, "skep-test/shop:2");
    assert_deployed(stage, changed).await;
}

/// Another release, and while that is tried the first one again: what stands at the end is the last.
async fn while_the_clients_are_at_zero(stage: &Stage) {
    let deploy = || stage.redeploy(changed).boxed_local();
    let back = || stage.redeploy(|text| text).boxed_local();
    disturbed(stage, &[("cut", &deploy), ("canary", &back)]).await;
    let app = stage.shop().specs().await.remove("app").unwrap();
    assert!(!is_second_release(&app), "{app:#}");
    assert_deployed(stage, |text| text).await;
}
