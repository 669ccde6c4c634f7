//! S12 and what else keeps a stack safe while it goes back to a restore point.

use std::time::Duration;

use serde_json::json;
use skep::operation::points;
use skep::operation::record::{Operation, State, Work};
use skep::operation::rollback::Component;
use skep_tests::saga::{ROLLED_BACK, Scene, connect, update};
use skep_tests::sim::shop::{Shop, ShopOptions};

use super::{driven, failed_with, remarks, suspended};

fn spec(shop: &Shop, service: &str) -> serde_json::Value {
    shop.sim.service(service).unwrap()["Spec"].clone()
}

fn env(shop: &Shop, service: &str) -> String {
    spec(shop, service)["TaskTemplate"]["ContainerSpec"]["Env"].to_string()
}

fn image(shop: &Shop, service: &str) -> String {
    spec(shop, service)["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap().to_owned()
}

/// Why an operation that went back did so.
fn went_back_for(op: &Operation, text: &str) -> bool {
    op.journal.steps.iter().any(|(_, r)| r.note.contains(text) || r.reason.contains(text))
}

/// Whether the cache, which is written before the application, has its old image again.
fn cache_is_back(shop: &Shop) -> bool {
    image(shop, "shop_cache") == "redis:7"
}

#[tokio::test(start_paused = true)]
async fn a_rollback_puts_every_spec_back_and_takes_a_point_of_what_it_changes() {
    let scene = Scene::rollback(ShopOptions::default()).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("rollback").await, State::Succeeded);
    assert_eq!(
        (image(&scene.shop, "shop_cache"), env(&scene.shop, "shop_app")),
        ("redis:7".into(), "null".into())
    );
    let changed = &op.journal.step("plan").unwrap().out["changes"];
    let place = |name: &str| changed.as_array().unwrap().iter().position(|c| c == name).unwrap();
    assert!(place("shop_cache") < place("shop_app"), "in the order of starting: {changed}");
    assert_eq!(changed.as_array().unwrap().len(), 3, "the others are as they were: {changed}");

    // And forth again: the point that it took is one of what stood before.
    let safety = op.id.clone();
    let points = points::list(&connect(&scene.shop, "looker").await, None).await.unwrap();
    assert!(points.iter().any(|p| p.head.id == safety && p.head.purpose == points::Purpose::Safety));
    let work = Work::Rollback { point: safety, only: ROLLED_BACK.to_vec() };
    let forth = Scene::ask_stack(scene.shop, work).await;
    let op = driven(&forth).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(image(&forth.shop, "shop_cache"), "redis:8");
    assert!(env(&forth.shop, "shop_app").contains("RELEASE=2"));
    assert_eq!(spec(&forth.shop, "shop_app")["Mode"]["Replicated"]["Replicas"], 3);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_named_goes_back() {
    let shop = Scene::point_and_deploy(ShopOptions::default()).await;
    let engine = connect(&shop, "looker").await;
    let point = points::list(&engine, None).await.unwrap()[0].head.id.clone();
    let scene = Scene::ask_stack(shop, Work::Rollback { point, only: vec![Component::Images] }).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(image(&scene.shop, "shop_cache"), "redis:7");
    assert!(env(&scene.shop, "shop_app").contains("RELEASE=2"), "its environment is no image");
    assert!(engine.user_config("shop_conf_1").await.unwrap().is_none(), "nobody asked for configs");
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_meanwhile_ends_a_rollback_and_stays() {
    let mut scene = Scene::rollback(ShopOptions::default()).await;
    let deploy = update(&scene.shop, "shop_app", |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=3"]);
    });
    assert!(suspended(&scene, "driver", |shop, _| cache_is_back(shop), deploy).await);
    let deployed = spec(&scene.shop, "shop_app");
    scene.meant("shop_app", deployed);
    let op = scene.operation().await;
    assert_eq!(scene.check("deployed meanwhile").await, State::RolledBack);
    assert!(went_back_for(&op, "shop_app was changed by somebody meanwhile"), "{:#?}", op.journal);
    assert!(env(&scene.shop, "shop_app").contains("RELEASE=3"));
    assert_eq!(image(&scene.shop, "shop_cache"), "redis:8", "the others go back");
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_over_what_was_written_stays_when_the_rest_goes_back() {
    let mut scene = Scene::rollback(ShopOptions::default()).await;
    let deploy = async {
        update(&scene.shop, "shop_cache", |spec| {
            spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("redis:9")
        })
        .await;
        update(&scene.shop, "shop_app", |spec| spec["Labels"]["by"] = json!("hand")).await;
    };
    assert!(suspended(&scene, "driver", |shop, _| cache_is_back(shop), deploy).await);
    for service in ["shop_cache", "shop_app"] {
        let deployed = spec(&scene.shop, service);
        scene.meant(service, deployed);
    }
    let op = scene.operation().await;
    assert_eq!(scene.check("both deployed").await, State::RolledBack);
    assert_eq!(image(&scene.shop, "shop_cache"), "redis:9");
    assert!(
        remarks(&op, "what they deployed stays") || went_back_for(&op, "what they deployed stays"),
        "{op:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_takes_everything_back() {
    let scene = Scene::rollback(ShopOptions::default()).await;
    scene.shop.sim.missing_image("redis:7");
    let op = driven(&scene).await;
    assert_eq!(scene.check("no image").await, State::RolledBack);
    assert!(went_back_for(&op, "shop_cache"), "{:#?}", op.journal);
    assert_eq!(image(&scene.shop, "shop_cache"), "redis:8");
}

#[tokio::test(start_paused = true)]
async fn an_update_that_swarm_itself_takes_back_is_a_failure_and_not_written_again() {
    let shop = Scene::point_and_deploy(ShopOptions::default()).await;
    update(&shop, "shop_cache", |spec| {
        spec["UpdateConfig"] = json!({
            "Parallelism": 1, "FailureAction": "rollback", "Monitor": 5_000_000_000_u64, "MaxFailureRatio": 0,
            "Order": "stop-first",
        });
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    shop.sim.missing_image("redis:7");
    let point = points::list(&connect(&shop, "looker").await, None).await.unwrap()[0].head.id.clone();
    let scene = Scene::ask_stack(shop, Work::Rollback { point, only: vec![Component::Images] }).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("taken back").await, State::RolledBack);
    assert!(went_back_for(&op, "the Swarm took the update of shop_cache back"), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_come_back_refuses_before_anything_is_changed() {
    let mut scene = Scene::rollback(ShopOptions::default()).await;
    let engine = connect(&scene.shop, "somebody").await;
    // The audit is deployed without its secret, which then goes.
    update(&scene.shop, "shop_audit", |spec| spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([]))
        .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let secret = engine.secret_id("shop_key").await.unwrap();
    engine.remove_secret(&secret).await.unwrap();
    let deployed = spec(&scene.shop, "shop_audit");
    scene.meant("shop_audit", deployed);
    let op = driven(&scene).await;
    assert_eq!(scene.check("a secret is gone").await, State::Failed);
    assert!(failed_with(&op, "secret shop_key of shop_audit is gone"), "{:#?}", op.journal);
    assert!(op.journal.step("safety").is_none(), "not even a point was taken");
}

#[tokio::test(start_paused = true)]
async fn a_part_of_the_point_that_is_gone_or_altered_refuses() {
    let scene = Scene::rollback(ShopOptions::default()).await;
    let engine = connect(&scene.shop, "somebody").await;
    let head = points::list(&engine, None).await.unwrap()[0].head.clone();
    let part = engine.config(&head.services[0].spec.name).await.unwrap();
    engine.remove_config(&part.id).await.unwrap();
    engine.create_config(&part.name, &part.labels, b"{}").await.unwrap();
    let op = driven(&scene).await;
    assert!(failed_with(&op, "is not what restore point"), "{:#?}", op.journal);
}
