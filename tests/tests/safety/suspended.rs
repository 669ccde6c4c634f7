//! S7, S12: a driver that is suspended anywhere and wakes up late, with what it read long ago.

use serde_json::json;
use skep::operation::record::State;
use skep_tests::saga::Scene;
use skep_tests::sim::Call;
use skep_tests::sim::shop::{Shop, ShopOptions};

use super::{beside, exists, spec, suspended, update};

#[tokio::test(start_paused = true)]
async fn s7_a_driver_that_is_suspended_after_any_call_brings_nothing_back_when_it_wakes() {
    let clean = Scene::restore(ShopOptions::default(), beside()).await;
    super::driven(&clean).await;
    let calls = clean.shop.sim.faults().calls("driver").len();
    assert!(calls > 100, "only {calls} calls");
    for after in (1..calls).step_by(calls / 8) {
        let scene = Scene::restore(ShopOptions::default(), beside()).await;
        let awake = scene.driver("awake").await;
        let meanwhile = Box::pin(async {
            scene.drive(&awake).await;
        });
        assert!(suspended(&scene, "sleepy", |_, calls| calls.len() >= after, meanwhile).await);
        assert_eq!(scene.check(&format!("s7, suspended after call {after}")).await, State::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn s7_a_driver_that_is_suspended_before_it_creates_a_job_cannot_bring_it_back_once_it_is_closed() {
    for step in ["-safety-dump", "-beside-load0", "-cut-swap"] {
        let scene = Scene::restore(ShopOptions::default(), beside()).await;
        let awake = scene.driver("awake").await;
        // It has found that the job does not exist yet, and the runner that it needs.
        let before_creation = |_: &Shop, calls: &[Call]| {
            let asked = calls.iter().rev().take(4).any(|c| c.path.contains(step) && c.status == Some(404));
            asked && calls.last().is_some_and(|c| c.path.starts_with("/configs/skep-runner-"))
        };
        let meanwhile = Box::pin(async {
            scene.drive(&awake).await;
        });
        assert!(suspended(&scene, "sleepy", before_creation, meanwhile).await, "{step}: never suspended");
        assert_eq!(scene.check(&format!("s7, before the job of {step}")).await, State::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn s7_a_driver_that_is_suspended_before_it_makes_the_canary_cannot_bring_it_back() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let awake = scene.driver("awake").await;
    // The nodes are asked for right before the canary is made.
    let before_creation = |shop: &Shop, calls: &[Call]| {
        let has_ticket = shop.sim.stored_names().iter().any(|name| name.starts_with("skep-canary-"));
        has_ticket && calls.last().is_some_and(|c| c.path.starts_with("/nodes"))
    };
    let meanwhile = Box::pin(async {
        scene.drive(&awake).await;
    });
    assert!(suspended(&scene, "sleepy", before_creation, meanwhile).await, "never suspended");
    let created = scene.shop.sim.faults().calls("sleepy");
    let created = created.iter().rfind(|c| c.endpoint == "POST /services/create");
    assert_eq!(created.and_then(|c| c.status), Some(400), "it woke up without making the canary");
    assert_eq!(scene.check("s7 canary").await, State::Succeeded);
}

fn wakes_to_a_change(shop: &Shop) -> impl Future<Output = ()> {
    update(shop, "shop_app", |s| s["Mode"]["Replicated"]["Replicas"] = json!(4))
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_changes_between_a_drivers_look_and_its_write_is_not_overwritten() {
    // The last file of the page is made right before the page goes on.
    let page_on = |shop: &Shop, _: &[Call]| {
        shop.sim.stored_names().iter().any(|n| n.starts_with("skep-page-") && n.ends_with("-json"))
    };
    // The saved spec is read right before it is put back.
    let mut canary = false;
    let page_off = move |shop: &Shop, calls: &[Call]| {
        canary |= exists(shop, "skep-canary-");
        let reads_base = calls.last().is_some_and(|c| c.path.starts_with("/configs/skep-base-"));
        canary && !exists(shop, "skep-canary-") && reads_base
    };
    type When = Box<dyn FnMut(&Shop, &[Call]) -> bool>;
    let moments: [(&str, When); 2] = [("page on", Box::new(page_on)), ("page off", Box::new(page_off))];
    for (what, when) in moments {
        let mut scene = Scene::restore(ShopOptions::default(), beside()).await;
        let mut wanted = spec(&scene.shop, "shop_app");
        wanted["Mode"]["Replicated"]["Replicas"] = json!(4);
        assert!(
            suspended(&scene, "driver", when, wakes_to_a_change(&scene.shop)).await,
            "{what}: never there"
        );
        scene.meant("shop_app", wanted);
        assert_eq!(scene.check(&format!("s12 {what}")).await, State::Succeeded);
    }
}
