//! An alert restores the shop's database on a real Swarm, with nobody touching anything, while users keep coming.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_restore -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use skep::operation::record::{Operation, State};
use skep::runtime::clock;
use skep_tests::load::Report;
use skep_tests::sandbox::eventually;
use skep_tests::stage::{Operator, Setting, Specs, Stage};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

/// What a restore on an alert came to.
struct Played {
    operation: Operation,
    report: Report,
    before: Specs,
    after: Specs,
}

/// Backup, accident, alert, restore; with users from before the alert until after the end.
async fn play(stage: &Stage, operator: &Operator) -> Played {
    let shop = stage.shop();
    let rows = shop.orders().await;
    stage.back_up().await;
    later_than_lookback().await;
    let users = stage.users(60);
    let before = shop.specs().await;
    shop.mark_cache().await;
    shop.drop_orders().await;
    let posted = operator.alert(&stage.payload(clock::now())).await;
    assert_eq!(posted.status, 200, "{posted:?}");
    let operation = stage.ended(&stage.alerted().await).await;
    shop.serves().await;
    let report = users.leave().await;
    let steps: Vec<_> =
        operation.journal.steps.iter().map(|(n, r)| format!("{n} {:?} {}", r.state, r.note)).collect();
    println!("steps: {steps:#?}\nremarks: {:#?}", operation.journal.remarks);
    println!("users: {:?}, without the application for {:.2} s", report.totals, report.downtime_total_s);
    assert_eq!(operation.journal.state, State::Succeeded);
    let missing: Vec<_> = rows.difference(&shop.orders().await).copied().collect();
    assert_eq!(missing, Vec::<u64>::new(), "every order of the backup is back");
    assert!(!shop.cache_is_marked().await, "the cache may hold rows from the future");
    let after = shop.specs().await;
    Played { operation, report, before, after }
}

/// The label `skep.restore.lookback` is one second: the backup must be older than that when the alert begins.
async fn later_than_lookback() {
    let from = clock::now();
    eventually("the backup to be old enough", Duration::from_secs(5), async || {
        let age = clock::now().duration_since(from).unsigned_abs();
        if age > Duration::from_millis(1_500) { Ok(()) } else { Err(format!("{age:?}")) }
    })
    .await;
}

fn assert_exact(played: &Played) {
    for (service, before) in &played.before {
        assert_eq!(before.to_string(), played.after[service].to_string(), "the spec of {service}");
    }
}

/// The whole story in one setting. Returns what was played, after what holds in every setting was checked.
async fn story(setting: Setting) {
    let beside = setting.strategy == "beside";
    let stage = Stage::set(setting).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let played = play(&stage, &operator).await;
    played.report.assert_nothing_wrong();
    assert_exact(&played);
    stage.shop().is_tidy().await;
    let kept = format!("skep_{}_old", played.operation.id);
    let databases = stage.shop().databases().await;
    assert_eq!(databases.contains(&kept), beside, "{databases:?}");
    assert_eq!(databases.len(), 1 + usize::from(beside), "{databases:?}");
    drop(operator);
    stage.strike().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn with_the_page_swapped_in() {
    story(Setting::default()).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn with_the_clients_at_zero_behind_the_proxys_page() {
    story(Setting { mode: "proxy", ..Setting::default() }).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn with_the_clients_running() {
    story(Setting { quiesce: false, ..Setting::default() }).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn in_place() {
    story(Setting { strategy: "in-place", ..Setting::default() }).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn on_postgresql_17() {
    story(Setting { postgres: "skep-test/postgres:17", ..Setting::default() }).await;
}
