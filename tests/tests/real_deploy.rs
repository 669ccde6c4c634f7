//! Somebody deploys the stack, or updates a service, in the middle of a restore: it succeeds all the same, and what was
//! deployed is what stands at the end.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_deploy -- --ignored --test-threads 1`. Needs root and the Debian
//! packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use serde_json::{Value, json};
use skep::operation::record::{Operation, State};
use skep_tests::load::Report;
use skep_tests::stage::{Setting, Specs, Stage};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

/// A restore during which `disturb` happens when `step` begins.
async fn disturbed(stage: &Stage, step: &str, disturb: impl AsyncFnOnce(&Stage)) -> (Operation, Report) {
    let shop = stage.shop();
    let rows = shop.orders().await;
    stage.back_up().await;
    shop.drop_orders().await;
    let users = stage.users(40);
    let id = stage.ask_restore().await;
    stage.when(&id, step, |op| op.journal.step(step).is_some()).await;
    disturb(stage).await;
    let ended = stage.ended(&id).await;
    shop.serves().await;
    let report = users.leave().await;
    println!("disturbed at {step}: {:?}, users {:?}", ended.journal.state, report.totals);
    println!("remarks: {:#?}", ended.journal.remarks);
    assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    report.assert_nothing_wrong();
    let missing: Vec<_> = rows.difference(&shop.orders().await).copied().collect();
    assert_eq!(missing, Vec::<u64>::new(), "every order of the backup is back");
    shop.is_tidy().await;
    (ended, report)
}

/// The stack file with another environment and three replicas of the application.
#[expect(clippy::needless_pass_by_value, reason = "the stage passes what it has read")]
fn changed(text: String) -> String {
    let changed = text.replace("CACHE_HOST: cache", "CACHE_HOST: cache\n      RELEASE: \"2\"");
    let changed = changed.replace("replicas: 2", "replicas: 3");
    assert_ne!(text, changed, "the stack file is as this suite knows it");
    changed
}

/// The first release again.
fn unchanged(text: String) -> String {
    text
}

fn without_labels_of_deploys(spec: &Value) -> Value {
    let mut spec = spec.clone();
    // Each update of the engine's may count; it says nothing about what was deployed.
    spec["TaskTemplate"]["ForceUpdate"] = json!(0);
    spec
}

fn assert_same(found: &Specs, wanted: &Specs) {
    for (service, spec) in found {
        let (found, wanted) = (without_labels_of_deploys(spec), without_labels_of_deploys(&wanted[service]));
        assert_eq!(found.to_string(), wanted.to_string(), "the spec of {service}");
    }
}

async fn deploys_at(mode: &'static str, steps: &[&str]) {
    let stage = Stage::set(Setting { mode, ..Setting::default() }).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    for step in steps {
        disturbed(&stage, step, async |stage: &Stage| stage.redeploy(changed).await).await;
        let found = stage.shop().specs().await;
        let app = &found["app"];
        assert_eq!(app["Mode"]["Replicated"]["Replicas"], 3);
        let env = app["TaskTemplate"]["ContainerSpec"]["Env"].to_string();
        assert!(env.contains("RELEASE=2"), "{env}");
        // Deploying the same again changes nothing: so this is what was deployed.
        stage.redeploy(changed).await;
        assert_same(&found, &stage.shop().specs().await);
        stage.redeploy(unchanged).await;
        stage.settled().await;
    }
    drop(operator);
    stage.strike().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_stack_deployed_while_the_page_is_on_stands_at_the_end() {
    deploys_at("swap", &["cut", "canary"]).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_stack_deployed_while_the_clients_are_at_zero_stands_at_the_end() {
    deploys_at("proxy", &["cut", "canary"]).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn an_image_updated_while_the_page_is_on_stands_at_the_end() {
    let stage = Stage::set(Setting::default()).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    stage.sandbox.docker(&["tag", "skep-test/shop:1", "skep-test/shop:2"]).await;
    let before = stage.shop().specs().await;
    disturbed(&stage, "cut", async |stage: &Stage| {
        let app = stage.service("app");
        let update =
            ["service", "update", "--detach", "--no-resolve-image", "--image", "skep-test/shop:2", &app];
        stage.sandbox.docker(&update).await;
    })
    .await;
    let mut wanted = before;
    wanted.get_mut("app").unwrap()["TaskTemplate"]["ContainerSpec"]["Image"] = json!("skep-test/shop:2");
    assert_same(&stage.shop().specs().await, &wanted);
    drop(operator);
    stage.strike().await;
}
