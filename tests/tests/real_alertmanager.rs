//! A real Prometheus and a real Alertmanager notice the accident and have the shop restored; repeats and forgeries of
//! their post start nothing.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_alertmanager -- --ignored --test-threads 1`. Needs root
//! and the Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use skep::operation::record::{State, Trigger};
use skep::runtime::clock;
use skep::swarm::object::Kind;
use skep_tests::sandbox::{MONITORING_NETWORK, Stack, eventually, repository, unique, unique_port};
use skep_tests::stage::{Operator, Setting, Stage, TOKEN};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

/// The host's end of its link to the sandbox: what runs there can reach it.
fn host(stage: &Stage) -> IpAddr {
    let IpAddr::V4(node) = stage.sandbox.address() else { panic!("the sandbox has an IPv4 address") };
    IpAddr::V4(std::net::Ipv4Addr::from_bits(node.to_bits() - 1))
}

/// The shipped monitoring stack for this stage's names: its own files, with the places changed.
async fn monitoring(stage: &Stage, operator: SocketAddr) -> (Stack<'static>, PathBuf, u16) {
    let directory = std::env::temp_dir().join(unique("monitoring"));
    fs::create_dir_all(directory.join("monitoring")).unwrap();
    let read = |path: &str| fs::read_to_string(repository(path)).unwrap();
    let place = |text: String| {
        let text = text.replace("tasks.skep_operator:9180", &operator.to_string());
        text.replace("tasks.shop_app", &format!("tasks.{}", stage.service("app")))
            .replace("shop_db", &stage.service("db"))
    };
    for name in ["prometheus.yml", "alertmanager.yml", "shop.rules.yml"] {
        let text = place(read(&format!("manifests/monitoring/{name}")));
        fs::write(directory.join("monitoring").join(name), text).unwrap();
    }
    let rules = repository("grafana/alerts/skep.rules.yml");
    let stack =
        read("manifests/monitoring.yml").replace("../grafana/alerts/skep.rules.yml", rules.to_str().unwrap());
    let file = directory.join("monitoring.yml");
    fs::write(&file, stack).unwrap();
    let sandbox = stage.sandbox;
    sandbox.network(MONITORING_NETWORK).await;
    let secret = unique("webhook-token");
    sandbox.secret(&secret, TOKEN).await;
    let (prometheus, alertmanager) = (unique_port(), unique_port());
    let variables = [
        ("SHOP_NETWORK", format!("{}_default", stage.name())),
        ("SKEP_WEBHOOK_SECRET", secret),
        ("PROMETHEUS_PORT", prometheus.to_string()),
        ("ALERTMANAGER_PORT", alertmanager.to_string()),
    ];
    let variables: Vec<_> = variables.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let stack = sandbox.deploy(&file, &unique("monitoring"), &variables).await;
    (stack, directory, prometheus)
}

/// Waits until Prometheus has the shop's gauge, and the operator's metrics.
async fn watching(stage: &Stage, prometheus: u16) {
    eventually("Prometheus to see the shop well", Duration::from_secs(90), async || {
        let answer =
            stage.sandbox.http_get(prometheus, "/api/v1/query?query=min(shop_orders_table_ok)").await?;
        let found: Value = serde_json::from_str(&answer.body).map_err(|e| e.to_string())?;
        let value = &found["data"]["result"][0]["value"][1];
        if value == "1" { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_rule_that_fires_has_the_shop_restored_once_and_a_forged_post_does_nothing() {
    let stage = Stage::set(Setting::default()).await;
    let operator = stage.operator_at(host(&stage), OPERATOR, &[]).await;
    forge(&stage, &operator).await;
    let (monitoring, directory, prometheus) = monitoring(&stage, operator.address).await;
    watching(&stage, prometheus).await;
    let rows = stage.shop().orders().await;
    stage.back_up().await;
    let starts_at = break_and_be_restored(&stage, &rows).await;
    // The same post again, ten times at once, with the same beginning: a duplicate, or a replay.
    assert_eq!(stage.alert_ten_times(&operator, starts_at).await, 1, "a duplicate starts nothing");
    drop(operator);
    monitoring.remove().await;
    fs::remove_dir_all(directory).unwrap();
    stage.strike().await;
}

/// Posts without the token, or with one that is not it.
async fn forge(stage: &Stage, operator: &Operator) {
    let payload = stage.payload(clock::now());
    for token in [None, Some(""), Some("another-token-of-some-length"), Some(&TOKEN[1..])] {
        let posted = operator.post(token, &payload).await;
        assert_eq!(posted.status, 401, "{token:?}: {posted:?}");
    }
    assert_eq!(stage.restores().await, 0);
    assert_eq!(stage.engine.configs(Kind::Guard, &[]).await.unwrap().len(), 0, "nothing was stored");
}

/// The accident, and what Alertmanager and Skep make of it. Returns when the alert began.
async fn break_and_be_restored(stage: &Stage, rows: &BTreeSet<u64>) -> Timestamp {
    let shop = stage.shop();
    let users = stage.users(40);
    shop.drop_orders().await;
    let id = stage.alerted(Timestamp::MIN).await;
    let ended = stage.ended(&id).await;
    shop.serves().await;
    let report = users.leave().await;
    println!("by Alertmanager: {:?}, users {:?}", ended.journal.state, report.totals);
    assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    report.assert_nothing_wrong();
    assert!(rows.is_subset(&shop.orders().await), "every order of the backup is back");
    let Trigger::Alert { starts_at, .. } = ended.intent.trigger else { panic!("an alert began it") };
    starts_at
}
