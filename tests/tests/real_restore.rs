//! An alert restores the shop's database on a real Swarm, with nobody touching anything, while users keep coming.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_restore -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skep::operation::record::{Operation, State};
use skep::runtime::clock;
use skep::swarm::engine::Engine;
use skep::swarm::object::{Kind, OP};
use skep_tests::load::Report;
use skep_tests::sandbox::eventually;
use skep_tests::stage::{Operator, Setting, Specs, Stage};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

/// What asks for a restore: a second alert soon after the first is one for a person to judge.
#[derive(Clone, Copy)]
enum Begun {
    ByAlert,
    ByPerson,
}

/// What a restore came to.
struct Played {
    operation: Operation,
    report: Report,
    before: Specs,
    after: Specs,
}

/// Backup, accident, restore; with users from before the alert until after the end.
async fn play(stage: &Stage, operator: &Operator, begun: Begun) -> Played {
    let shop = stage.shop();
    let rows = shop.orders().await;
    stage.back_up().await;
    later_than_lookback().await;
    let users = stage.users(60);
    let before = shop.specs().await;
    shop.mark_cache().await;
    shop.drop_orders().await;
    let id = match begun {
        Begun::ByAlert => {
            let starts_at = clock::now();
            let restores = stage.alert_ten_times(operator, starts_at).await;
            assert_eq!(restores, 1, "one alert is one restore, however often it is posted");
            stage.alerted(starts_at).await
        }
        Begun::ByPerson => stage.ask_restore().await,
    };
    let operation = stage.ended(&id).await;
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

/// The whole story in one setting, and what holds in every one.
async fn play_well(stage: &Stage, operator: &Operator, setting: &Setting, begun: Begun) {
    let beside = setting.strategy == "beside";
    let played = play(stage, operator, begun).await;
    played.report.assert_nothing_wrong();
    assert_exact(&played);
    stage.shop().is_tidy().await;
    let kept = format!("skep_{}_old", played.operation.id);
    let databases = stage.shop().databases().await;
    assert_eq!(databases.contains(&kept), beside, "{databases:?}");
    assert_eq!(databases.len(), 1 + usize::from(beside), "{databases:?}");
    let asked = endpoints(&operator.metrics().await);
    println!("endpoints: {asked:#?}");
    assert!(asked.contains("/services/create"), "its requests are counted");
    for forbidden in ["exec", "container", "volume", "image", "build", "commit", "plugin"] {
        let found: Vec<_> = asked.iter().filter(|e| e.contains(forbidden)).collect();
        assert_eq!(found, Vec::<&String>::new(), "Skep needs no such endpoint");
    }
}

/// The engine's endpoints that an operator has called, from its metrics.
fn endpoints(metrics: &str) -> BTreeSet<String> {
    let counted = metrics.lines().filter(|line| line.starts_with("skep_docker_requests_total{"));
    let named = counted.filter_map(|line| line.split_once("endpoint=\"")?.1.split_once('"'));
    named.map(|(endpoint, _)| endpoint.to_owned()).collect()
}

/// Looks again and again whether a value can be read in what Skep makes in the Swarm, until told to stop. Returns where
/// it was, and how many temporary secrets were seen.
async fn spy(engine: Engine, value: &str, mut stopped: oneshot::Receiver<()>) -> (BTreeSet<String>, usize) {
    let (mut found, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let encoded = STANDARD.encode(value);
    while stopped.try_recv() == Err(TryRecvError::Empty) {
        for service in engine.services(&[(OP, None)]).await.unwrap() {
            if service.spec.to_string().contains(value) {
                found.insert(format!("the spec of {}", service.name()));
            }
        }
        for kind in [Kind::Operation, Kind::Ticket, Kind::Backup, Kind::Guard, Kind::Claim] {
            for config in engine.configs(kind, &[]).await.unwrap() {
                let text = format!("{:?} {}", config.labels, String::from_utf8_lossy(&config.data));
                if text.contains(value) || text.contains(&encoded) {
                    found.insert(format!("config {}", config.name));
                }
            }
        }
        let temporary = engine.secrets(&[]).await.unwrap().into_iter().filter(|s| s.labels.contains_key(OP));
        secrets.extend(temporary.map(|s| s.id));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    (found, secrets.len())
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn in_every_way_that_labels_tell() {
    let normal = Setting::default();
    let in_place = Setting { strategy: "in-place", ..normal.clone() };
    let mut stage = Stage::set(in_place.clone()).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let at_zero = Setting { mode: "proxy", ..normal.clone() };
    let running = Setting { quiesce: false, ..normal.clone() };
    for (way, setting, begun) in [
        ("in place", in_place, Begun::ByAlert),
        ("with the page swapped in", normal, Begun::ByPerson),
        ("with the clients at zero behind the proxy's page", at_zero, Begun::ByPerson),
        ("with the clients running", running, Begun::ByPerson),
    ] {
        println!("== {way}");
        stage.turn(setting.clone()).await;
        play_well(&stage, &operator, &setting, begun).await;
    }
    drop(operator);
    stage.strike().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn on_postgresql_17_with_the_password_in_the_environment_which_shows_nowhere() {
    let setting =
        Setting { postgres: "skep-test/postgres:17", password: Some("correct-horse"), ..Setting::default() };
    let stage = Stage::set(setting.clone()).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let encoding =
        "SELECT datcollate || ' ' || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'shop'";
    assert_eq!(stage.shop().sql("shop", encoding).await, "en_US.utf8 UTF8");
    let (stop, stopped) = oneshot::channel();
    let spying = tokio::spawn(spy(stage.engine.clone(), "correct-horse", stopped));
    play_well(&stage, &operator, &setting, Begun::ByAlert).await;
    stop.send(()).unwrap();
    let (found, secrets) = spying.await.unwrap();
    assert_eq!(found, BTreeSet::new(), "the password can be read there");
    assert!(secrets > 0, "jobs were given it as a temporary secret");
    assert!(!operator.log().contains("correct-horse"), "the password is in the log");
    drop(operator);
    stage.strike().await;
}
