//! What users see when the application stops and comes back, in the ways that were measured with a real proxy.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use skep::swarm::object::TaskState;

use super::shop::{PAGE_IMAGE, Shop, ShopOptions};
use super::{Answer, Sim};

const LONG: Duration = Duration::from_secs(60);

async fn write(shop: &Shop, change: impl FnOnce(&mut Value)) {
    let mut app = shop.raw.call("GET", "/services/shop_app", None).await.unwrap().json();
    change(&mut app["Spec"]);
    let path = format!("/services/shop_app/update?version={}", app["Version"]["Index"]);
    assert_eq!(shop.raw.call("POST", &path, Some(&app["Spec"])).await.unwrap().status, 200);
}

fn seen(shop: &Shop) -> BTreeSet<Answer> {
    shop.sim.timeline().last().unwrap().1.clone()
}

fn page() -> BTreeSet<Answer> {
    BTreeSet::from([Answer::Page])
}

async fn scaled(shop: &Shop, replicas: u64) {
    write(shop, |spec| spec["Mode"] = json!({ "Replicated": { "Replicas": replicas } })).await;
}

#[tokio::test(start_paused = true)]
async fn scaling_to_zero_behind_a_proxy_with_its_own_page_is_one_clean_transition() {
    let shop = Shop::start(ShopOptions { own_page: true, ..ShopOptions::default() }).await;
    let since = shop.sim.elapsed();
    scaled(&shop, 0).await;
    shop.sim.until(LONG, "the page", |_| seen(&shop) == page()).await;
    assert_eq!(shop.sim.containers("shop_app").len(), 2, "before anything is told to stop");
    shop.sim.until(LONG, "stopped", |s| s.containers("shop_app").is_empty()).await;
    scaled(&shop, 2).await;
    shop.sim.until(LONG, "back", |_| shop.sees_only_app()).await;
    assert_eq!(shop.wrong_answers(since), []);
}

#[tokio::test(start_paused = true)]
async fn scaling_to_zero_behind_any_other_proxy_is_seen_as_a_bad_gateway() {
    let shop = Shop::start(ShopOptions::default()).await;
    let since = shop.sim.elapsed();
    scaled(&shop, 0).await;
    shop.sim.until(LONG, "stopped", |s| s.containers("shop_app").is_empty()).await;
    assert_eq!(shop.wrong_answers(since).first().map(|(_, a)| a), Some(&Answer::BadGateway));
}

#[tokio::test(start_paused = true)]
async fn a_page_swapped_in_and_out_start_first_is_never_seen_as_anything_else() {
    let shop = Shop::start(ShopOptions::default()).await;
    let since = shop.sim.elapsed();
    let before = shop.sim.service("shop_app").unwrap()["Spec"].clone();
    let all_at_once = json!({ "Parallelism": 0, "Order": "start-first", "Monitor": 1_000_000_000_u64 });
    write(&shop, |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(PAGE_IMAGE);
        spec["UpdateConfig"] = all_at_once.clone();
    })
    .await;
    shop.sim.until(LONG, "the page alone", |_| seen(&shop) == page()).await;
    let completed = |sim: &Sim| sim.service("shop_app").unwrap()["UpdateStatus"]["State"] == "completed";
    shop.sim.until(LONG, "the rollout is complete", completed).await;
    write(&shop, |spec| {
        spec["TaskTemplate"] = before["TaskTemplate"].clone();
        spec["UpdateConfig"] = all_at_once.clone();
    })
    .await;
    shop.sim.until(LONG, "the application alone", |_| shop.sees_only_app()).await;
    shop.sim.until(LONG, "the rollout is complete", completed).await;
    write(&shop, |spec| *spec = before.clone()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(shop.sim.service("shop_app").unwrap()["Spec"], before);
    assert_eq!(shop.wrong_answers(since), []);
}

#[tokio::test(start_paused = true)]
async fn a_page_swapped_in_stop_first_leaves_a_gap() {
    let shop = Shop::start(ShopOptions::default()).await;
    let since = shop.sim.elapsed();
    write(&shop, |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(PAGE_IMAGE);
        spec["UpdateConfig"] = json!({ "Parallelism": 0, "Order": "stop-first" });
    })
    .await;
    shop.sim.until(LONG, "the page alone", |_| seen(&shop) == page()).await;
    assert!(shop.wrong_answers(since).iter().any(|(_, a)| *a == Answer::BadGateway));
}

#[tokio::test(start_paused = true)]
async fn a_deploy_puts_the_stack_file_over_whatever_is_there() {
    let shop = Shop::start(ShopOptions::default()).await;
    scaled(&shop, 0).await;
    shop.deploy("shop_app", |spec| spec["Labels"]["version"] = json!("2")).await;
    let spec = shop.sim.service("shop_app").unwrap()["Spec"].clone();
    assert_eq!(
        (&spec["Labels"]["version"], &spec["Mode"]["Replicated"]["Replicas"]),
        (&json!("2"), &json!(2))
    );
    let two = |s: &Sim| {
        let tasks = s.tasks("shop_app");
        tasks.iter().filter(|t| t.state == TaskState::Running && t.desired == TaskState::Running).count() == 2
    };
    shop.sim.until(LONG, "two run again", two).await;
}
