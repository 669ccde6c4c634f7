//! The safety rules on the simulated shop. `operator/docs/safety.md` says which
//! test stands for which rule, also those that are elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::type_complexity,
    reason = "a test may panic, and its tables may be typed in place"
)]

mod alerts;
mod before;
mod checks;
mod clients;
mod commands;
mod data;
mod doors;
mod drills;
mod drills_files;
mod files;
mod flags;
mod full;
mod jobs;
mod lost;
mod moments;
mod places;
mod points;
mod reports;
mod rescue;
mod restart;
mod rollback;
mod room;
mod sleep;
mod store;
mod stores;
mod suspended;
mod together;
mod undo;
mod update;
mod wakers;
mod waking;

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde_json::Value;
use skep::operation::catalogue::Backup;
use skep::operation::record::{Operation, State, StepState, Trigger, Work};
use skep::operation::saga::Env;
use skep::operation::settings::Settings;
use skep::swarm::object::Kind;
use skep_tests::saga::{Scene, connect};
use skep_tests::sim::Call;
use skep_tests::sim::postgres::Content;
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};

fn restore(in_place: bool, quiesce: Option<bool>) -> Work {
    Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: Some(in_place),
        quiesce,
        create_roles: false,
    }
}

fn beside() -> Work {
    restore(false, None)
}

fn with_labels(db: &[(&str, &str)], app: &[(&str, &str)]) -> ShopOptions {
    let pair = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    let mut options = ShopOptions::default();
    options.db_labels.extend(db.iter().map(pair));
    options.app_labels.extend(app.iter().map(pair));
    options
}

/// Backups of this scene may be used by an alert that has just begun.
const SHORT_LOOKBACK: (&str, &str) = ("skep.restore.lookback", "1s");

fn alert(shop: &Shop) -> Trigger {
    let starts_at = shop.sim.now();
    Trigger::Alert { name: "ShopDataBroken".to_owned(), fingerprint: "f00d".to_owned(), starts_at }
}

fn person() -> Trigger {
    Trigger::Person { name: "somebody".to_owned() }
}

/// The backups that are registered, the newest last.
async fn catalogue(shop: &Shop) -> Vec<Backup> {
    let configs = connect(shop, "looker").await.configs(Kind::Backup, &[]).await.unwrap();
    let mut backups: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
    backups.sort_by_key(|b| b.entry.taken);
    backups
}

/// Drives to rest; the operation as it is then.
async fn driven(scene: &Scene) -> Operation {
    let env = scene.driver("driver").await;
    scene.drive(&env).await;
    scene.operation().await
}

/// Drives until `when` holds after one of the driver's calls, and then no further until `meanwhile` is over: as a process
/// that is suspended, with whatever it has just read. Then drives to rest. Whether it was suspended at all.
async fn suspended(
    scene: &Scene,
    name: &str,
    mut when: impl FnMut(&Shop, &[Call]) -> bool,
    meanwhile: impl Future<Output = ()>,
) -> bool {
    let env = scene.driver(name).await;
    let mut drive = Box::pin(scene.drive(&env));
    // Looked at before the driver is: what it reads next it has not seen yet.
    let held = std::future::poll_fn(|cx| {
        let calls = scene.shop.sim.faults().calls(name);
        let answered = calls.last().is_some_and(|c| c.status.is_some());
        if answered && when(&scene.shop, &calls) {
            return Poll::Ready(true);
        }
        drive.as_mut().poll(cx).map(|_| false)
    });
    if !held.await {
        return false;
    }
    meanwhile.await;
    drive.await;
    true
}

fn with_settings(mut env: Env, change: impl FnOnce(&mut Settings)) -> Env {
    let mut settings = (*env.settings).clone();
    change(&mut settings);
    env.settings = Arc::new(settings);
    env
}

fn step(op: &Operation, name: &str) -> Option<StepState> {
    op.journal.step(name).map(|r| r.state)
}

fn remarks(op: &Operation, text: &str) -> bool {
    op.journal.remarks.iter().any(|r| r.contains(text))
}

fn failed_with(op: &Operation, text: &str) -> bool {
    op.journal.state == State::Failed && op.journal.steps.iter().any(|(_, r)| r.note.contains(text))
}

/// Whether a service whose name contains `part` exists.
fn exists(shop: &Shop, part: &str) -> bool {
    shop.sim.services().iter().any(|name| name.contains(part))
}

/// Whether a task of the real application runs, or may still run.
fn app_runs(shop: &Shop) -> bool {
    shop.sim.containers("shop_app").iter().any(|c| c.image().starts_with("shop-app:"))
}

fn page_runs(shop: &Shop) -> bool {
    shop.sim.containers("shop_app").iter().any(|c| c.image() == "nginx")
}

fn live(shop: &Shop) -> Content {
    shop.data.database("shop_db", DATABASE).expect("the live database is there").content
}

fn spec(shop: &Shop, service: &str) -> Value {
    shop.sim.service(service).expect("the service is there")["Spec"].clone()
}

/// Writes a service's spec as `docker service update` does.
async fn update(shop: &Shop, service: &str, change: impl Fn(&mut Value)) {
    for _ in 0..10 {
        let found = shop.sim.service(service).expect("the service is there");
        let mut spec = found["Spec"].clone();
        change(&mut spec);
        let path = format!("/services/{service}/update?version={}", found["Version"]["Index"]);
        let reply = shop.raw.call("POST", &path, Some(&spec)).await.expect("the engine answers");
        if reply.status == 200 {
            return;
        }
    }
    panic!("{service} changes all the time");
}

/// Waits until the condition holds, however long that takes.
async fn once(shop: &Shop, what: &str, holds: impl Fn(&Shop) -> bool) {
    shop.sim.until(Duration::from_secs(600), what, |_| holds(shop)).await;
}
