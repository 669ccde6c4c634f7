//! Sleep: what sleeps comes back as it was, whatever happens meanwhile; nothing falls asleep under what needs it.

use std::time::Duration;

use serde_json::json;
use skep::operation::client_spec::is_asleep;
use skep::operation::points;
use skep::operation::record::{Above, Operation, State, Work};
use skep::operation::sleeper;
use skep::swarm::object::TaskState;
use skep_tests::saga::{Scene, connect, update};
use skep_tests::sim::shop::{Shop, ShopOptions};
use skep_tests::sim::{TaskInfo, Unhealthy};

use super::{app_runs, beside, driven, failed_with, once, person, spec, step, with_labels};

/// One more operation on a service, driven to rest.
async fn done(shop: Shop, service: &str, work: Work) -> (Shop, Operation) {
    let scene = Scene::ask_for(shop, service, work, person()).await;
    let op = driven(&scene).await;
    (scene.shop, op)
}

async fn asleep(service: &str, above: Above) -> Shop {
    let shop = Shop::start(ShopOptions { own_page: true, ..ShopOptions::default() }).await;
    let (shop, op) = done(shop, service, Work::Sleep { above }).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(is_asleep(&spec(&shop, service)));
    shop
}

async fn sleeps(shop: &Shop, service: &str) -> bool {
    sleeper::find(&connect(shop, "looker").await, service).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn nothing_falls_asleep_under_what_needs_it_unless_that_was_asked_for() {
    let shop = Shop::start(ShopOptions::default()).await;
    let before = spec(&shop, "shop_db");
    let (shop, op) = done(shop, "shop_db", Work::Sleep { above: Above::Refuse }).await;
    assert!(failed_with(&op, "shop_app"), "{:#?}", op.journal);
    assert_eq!(step(&op, "stop"), None);
    assert_eq!(spec(&shop, "shop_db"), before);
    assert!(!sleeps(&shop, "shop_db").await);
}

#[tokio::test(start_paused = true)]
async fn what_is_needed_falls_asleep_once_everything_that_needs_it_has_stopped() {
    let shop = Shop::start(ShopOptions { own_page: true, ..ShopOptions::default() }).await;
    let scene = Scene::ask_for(shop, "shop_db", Work::Sleep { above: Above::Along }, person()).await;
    let env = scene.driver("driver").await;
    let (mut alone, mut down) = (0, 0);
    scene
        .drive_watched(&env, |shop| match is_asleep(&spec(shop, "shop_db")) {
            true => {
                down += 1;
                assert!(!app_runs(shop), "the application runs, and its database does not");
            }
            false => alone += usize::from(!app_runs(shop)),
        })
        .await;
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
    assert!(alone > 0 && down > 0, "the order was not seen: {alone} {down}");
}

#[tokio::test(start_paused = true)]
async fn what_needs_another_service_wakes_once_that_is_up() {
    let shop = asleep("shop_db", Above::Along).await;
    assert!(is_asleep(&spec(&shop, "shop_app")), "it sleeps as well");
    let scene = Scene::ask_for(shop, "shop_app", Work::Wake, person()).await;
    let env = scene.driver("driver").await;
    let running = |t: &TaskInfo| t.state == TaskState::Running && t.desired == TaskState::Running;
    let mut alone = 0;
    scene
        .drive_watched(&env, |shop| {
            let is_up = shop.sim.tasks("shop_db").iter().any(running);
            assert!(is_up || !app_runs(shop), "the application runs, and its database is not up");
            alone += usize::from(is_up && !app_runs(shop));
        })
        .await;
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
    assert!(alone > 0 && app_runs(&scene.shop), "the order was not seen: {alone}");
}

#[tokio::test(start_paused = true)]
async fn s2_a_restore_leaves_a_client_asleep_that_it_finds_asleep() {
    let shop = asleep("shop_app", Above::Refuse).await;
    let before = spec(&shop, "shop_app");
    let shop = Scene::back_up(shop).await;
    let (shop, op) = done(shop, "shop_db", beside()).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(spec(&shop, "shop_app"), before);
    assert!(sleeps(&shop, "shop_app").await);
    let (shop, op) = done(shop, "shop_app", Work::Wake).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(spec(&shop, "shop_app")["Mode"]["Replicated"]["Replicas"], 2);
    once(&shop, "users reach the application", Shop::sees_only_app).await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_point_of_a_sleeper_holds_what_it_goes_back_to() {
    let awake = spec(&Shop::start(ShopOptions::default()).await, "shop_app");
    let shop = asleep("shop_app", Above::Refuse).await;
    let scene = Scene::ask_stack(shop, Work::Point { without_data: true }).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let engine = connect(&scene.shop, "looker").await;
    let point = points::list(&engine, None).await.unwrap().pop().unwrap().head;
    let app = point.services.iter().find(|s| s.name == "shop_app").unwrap();
    let held = app.spec.load(&engine, &point.id).await.unwrap();
    let held: serde_json::Value = serde_json::from_slice(&held).unwrap();
    assert_eq!(held["Mode"], awake["Mode"]);
    assert!(is_asleep(&spec(&scene.shop, "shop_app")), "it sleeps on");
}

#[tokio::test(start_paused = true)]
async fn s12_what_is_changed_of_a_sleeper_is_there_when_it_wakes() {
    let shop = asleep("shop_app", Above::Refuse).await;
    update(&shop, "shop_app", |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=2"]);
    })
    .await;
    let (shop, op) = done(shop, "shop_app", Work::Wake).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let app = spec(&shop, "shop_app");
    assert_eq!(app["TaskTemplate"]["ContainerSpec"]["Env"], json!(["RELEASE=2"]));
    assert_eq!(app["Mode"]["Replicated"]["Replicas"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_does_not_come_up_says_so_and_leaves_the_service_to_the_swarm() {
    let before = spec(&Shop::start(ShopOptions::default()).await, "shop_app");
    let shop = asleep("shop_app", Above::Refuse).await;
    shop.sim.workload("shop-app:1", Unhealthy);
    let (shop, op) = done(shop, "shop_app", Work::Wake).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert!(failed_with(&op, "0 of 2 task(s) running"), "{:#?}", op.journal);
    assert_eq!(spec(&shop, "shop_app")["Mode"], before["Mode"], "it is not put back to sleep");
    assert!(!sleeps(&shop, "shop_app").await);
}

/// A shop whose application keeps one of its two replicas, scaled down to that.
async fn reduced() -> Shop {
    let shop = Shop::start(with_labels(&[], &[("skep.scale.min", "1")])).await;
    let (shop, op) = done(shop, "shop_app", Work::Sleep { above: Above::Refuse }).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    shop
}

#[tokio::test(start_paused = true)]
async fn what_keeps_replicas_serves_its_users_all_the_while_and_comes_back_whole() {
    let shop = Shop::start(with_labels(&[], &[("skep.scale.min", "1")])).await;
    let (before, since) = (spec(&shop, "shop_app"), shop.sim.elapsed());
    let work = Work::Sleep { above: Above::Refuse };
    let scene = Scene::ask_for(shop, "shop_app", work, person()).await;
    let env = scene.driver("driver").await;
    scene.drive_watched(&env, |shop| assert!(app_runs(shop), "nobody is left")).await;
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
    let shop = scene.shop;
    assert_eq!(spec(&shop, "shop_app")["Mode"]["Replicated"]["Replicas"], 1);
    assert_eq!(shop.sim.containers("shop_app").len(), 1, "the other one has ended");
    let slept = sleeper::find(&connect(&shop, "looker").await, "shop_app").await.unwrap().unwrap().sleeper;
    assert_eq!((slept.left, slept.saves()), (1, 1));
    let (shop, op) = done(shop, "shop_app", Work::Wake).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(spec(&shop, "shop_app"), before);
    assert_eq!(shop.wrong_answers(since), []);
    assert!(!sleeps(&shop, "shop_app").await);
}

#[tokio::test(start_paused = true)]
async fn nothing_falls_asleep_under_what_keeps_replicas_and_needs_it() {
    for above in [Above::Refuse, Above::Along] {
        let shop = reduced().await;
        let before = spec(&shop, "shop_db");
        let (shop, op) = done(shop, "shop_db", Work::Sleep { above }).await;
        assert!(failed_with(&op, "shop_app"), "{:#?}", op.journal);
        assert_eq!(spec(&shop, "shop_db"), before);
    }
}

#[tokio::test(start_paused = true)]
async fn s2_a_restore_stops_what_keeps_replicas_and_leaves_it_scaled_down() {
    let shop = Scene::back_up(reduced().await).await;
    let low = spec(&shop, "shop_app");
    let (shop, op) = done(shop, "shop_db", beside()).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(spec(&shop, "shop_app"), low);
    assert!(sleeps(&shop, "shop_app").await);
    let scene = Scene::ask_stack(shop, Work::Point { without_data: true }).await;
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
    let engine = connect(&scene.shop, "looker").await;
    let point = points::list(&engine, None).await.unwrap().pop().unwrap().head;
    let app = point.services.iter().find(|s| s.name == "shop_app").unwrap();
    let held: serde_json::Value =
        serde_json::from_slice(&app.spec.load(&engine, &point.id).await.unwrap()).unwrap();
    assert_eq!(held["Mode"]["Replicated"]["Replicas"], 2, "a point holds what it goes back to");
}

#[tokio::test(start_paused = true)]
async fn s12_replicas_that_a_person_gives_to_what_is_scaled_down_stay() {
    let shop = reduced().await;
    update(&shop, "shop_app", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(5)).await;
    let (shop, op) = done(shop, "shop_app", Work::Wake).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(spec(&shop, "shop_app")["Mode"]["Replicated"]["Replicas"], 5);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_has_scaled_to_zero_is_not_woken() {
    let shop = Shop::start(ShopOptions { own_page: true, ..ShopOptions::default() }).await;
    update(&shop, "shop_app", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (shop, op) = done(shop, "shop_app", Work::Sleep { above: Above::Refuse }).await;
    assert!(failed_with(&op, "at zero already"), "{:#?}", op.journal);
    let (shop, _) = done(shop, "shop_app", Work::Wake).await;
    assert!(is_asleep(&spec(&shop, "shop_app")));
}
