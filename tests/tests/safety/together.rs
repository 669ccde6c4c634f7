//! Several services updated as one: all of them run their new images in the end, or all are exactly as before.

use std::time::Duration;

use serde_json::{Value, json};
use skep::operation::record::{Operation, State, Work};
use skep::operation::{claim, desk, points};
use skep_tests::saga::{NEW_WORKER, Scene, connect, running, together, update_to};
use skep_tests::sim::postgres::Spoils;
use skep_tests::sim::shop::{Shop, ShopOptions};
use skep_tests::sim::{Container, Plain, Run, Unhealthy, View, Workload};

use super::{driven, live, person, remarks, spec, step, update, with_labels};

const NEW: &str = "shop-app:2";

/// Serves, and turns unhealthy after so long.
struct SickAfter(Duration);

impl Workload for SickAfter {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        Plain.start(container, view)
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        view.at.saturating_sub(container.since) < self.0
    }
}

/// The application and the worker get new images as one, and are watched for so long.
async fn asked(options: ShopOptions, monitor_s: u64) -> Scene {
    let shop = Scene::with_worker(options).await;
    shop.sim.workload(NEW, shop.application());
    let work = together(&shop, NEW, &[("shop_worker", NEW_WORKER)], monitor_s).await;
    Scene::ask_for(shop, "shop_app", work, person()).await
}

/// What somebody deployed, without the update settings that were lent meanwhile: the worker has none of its own.
fn deployed_worker(shop: &Shop) -> Value {
    let mut deployed = spec(shop, "shop_worker");
    deployed.as_object_mut().unwrap().remove("UpdateConfig");
    deployed
}

fn both(shop: &Shop) -> [Value; 2] {
    ["shop_app", "shop_worker"].map(|name| spec(shop, name))
}

fn images(shop: &Shop) -> [String; 2] {
    both(shop).map(|s| s["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap().to_owned())
}

fn reason(op: &Operation, step: &str) -> String {
    op.journal.step(step).map(|r| r.reason.clone()).unwrap_or_default()
}

/// Waits until a step has begun.
async fn reached(scene: &Scene, step: &str) {
    while scene.operation().await.journal.step(step).is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the application has its new image and runs it, and the worker is about to get its own.
async fn half_way(scene: &Scene) {
    let is_up = |op: &Operation| op.journal.step("apply").is_some_and(|r| r.out["up"] == true);
    while !is_up(&scene.operation().await) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_gets_its_image_once_the_one_before_runs_its_own_and_nothing_else_changes() {
    let mut options = ShopOptions::default();
    // So the worker comes first, whatever their names are.
    options.app_labels.retain(|(key, _)| key != "skep.depends-on");
    options.app_labels.push(("skep.depends-on".to_owned(), "db,cache,worker".to_owned()));
    let scene = asked(options, 10).await;
    let before = both(&scene.shop);
    let env = scene.driver("driver").await;
    let mut order = vec![images(&scene.shop)];
    scene
        .drive_watched(&env, |shop| {
            let now = images(shop);
            if order.last() != Some(&now) {
                order.push(now);
            }
            let [app, _] = both(shop);
            let is_new = app["TaskTemplate"]["ContainerSpec"]["Image"] == NEW;
            assert!(!is_new || running(&shop.sim, "shop_worker") == 1, "the worker was not up yet");
        })
        .await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let seen: Vec<[&str; 2]> = order.iter().map(|[app, worker]| [app.as_str(), worker.as_str()]).collect();
    assert_eq!(seen, [["shop-app:1", "shop-worker:1"], ["shop-app:1", NEW_WORKER], [NEW, NEW_WORKER]]);
    let [mut app, mut worker] = before;
    app["TaskTemplate"]["ContainerSpec"]["Image"] = json!(NEW);
    worker["TaskTemplate"]["ContainerSpec"]["Image"] = json!(NEW_WORKER);
    assert_eq!(both(&scene.shop), [app, worker]);
    assert_eq!(op.title(), "update of shop_app and shop_worker");
    assert_eq!(op.intent.schema, 2, "whoever knows of one alone must not carry it on as one of the first");
}

#[tokio::test(start_paused = true)]
async fn a_red_flag_of_one_while_all_are_watched_puts_the_exact_specs_of_all_back() {
    let scene = asked(ShopOptions::default(), 120).await;
    scene.shop.sim.workload(NEW_WORKER, SickAfter(Duration::from_secs(30)));
    let before = both(&scene.shop);
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(&op, "watch").starts_with("red flag of shop_worker: "), "{:#?}", op.journal);
    assert_eq!(both(&scene.shop), before);
    // What went back as one is known of each.
    let scene = Scene::ask_for(scene.shop, "shop_worker", update_to(NEW_WORKER), person()).await;
    let again = driven(&scene).await;
    assert_eq!(again.journal.state, State::Failed, "{:#?}", again.journal);
    assert!(reason(&again, "plan").contains(op.id.as_str()), "{:#?}", again.journal);
    assert_eq!((step(&again, "apply"), both(&scene.shop)), (None, before));
}

#[tokio::test(start_paused = true)]
async fn a_red_flag_of_the_first_does_not_wait_until_the_others_have_their_images() {
    let scene = asked(ShopOptions::default(), 120).await;
    let app = SickAfter(Duration::from_secs(10));
    scene.shop.sim.workload(NEW, app);
    // It takes for ever to come up.
    struct Slow;
    impl Workload for Slow {
        fn start(&self, container: &Container, view: &View<'_>) -> Run {
            Plain.start(container, view)
        }
        fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
            view.at.saturating_sub(container.since) > Duration::from_secs(600)
        }
    }
    let patient = |spec: &mut Value| {
        spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"]["Retries"] = json!(10_000);
    };
    update(&scene.shop, "shop_worker", patient).await;
    scene
        .shop
        .sim
        .until(Duration::from_secs(60), "the worker runs", |sim| running(sim, "shop_worker") == 1)
        .await;
    scene.shop.sim.workload(NEW_WORKER, Slow);
    let before = both(&scene.shop);
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(&op, "apply").starts_with("red flag of shop_app: "), "{:#?}", op.journal);
    assert_eq!(both(&scene.shop), before);
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_of_one_before_its_turn_stays_and_the_others_go_back() {
    let scene = asked(ShopOptions::default(), 60).await;
    let [before, _] = both(&scene.shop);
    let env = scene.driver("driver").await;
    let mut deployed = None;
    let meddle = async {
        half_way(&scene).await;
        update(&scene.shop, "shop_worker", |s| s["Labels"]["release"] = json!("7")).await;
        deployed = Some(deployed_worker(&scene.shop));
    };
    let (_, ()) = tokio::join!(scene.drive(&env), meddle);
    let op = scene.operation().await;
    let told = format!("{:#?}", op.journal);
    assert!(matches!(op.journal.state, State::RolledBack | State::Failed), "{told}");
    assert!(told.contains("shop_worker was changed by somebody meanwhile"), "{told}");
    let [app, worker] = both(&scene.shop);
    assert_eq!((app, Some(worker)), (before, deployed), "{told}");
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_of_one_while_all_are_watched_stays_and_so_do_the_others() {
    let scene = asked(ShopOptions::default(), 600).await;
    let env = scene.driver("driver").await;
    let mut deployed = None;
    let meddle = async {
        reached(&scene, "watch").await;
        update(&scene.shop, "shop_worker", |s| s["Mode"]["Replicated"]["Replicas"] = json!(2)).await;
        deployed = Some(both(&scene.shop));
    };
    let (_, ()) = tokio::join!(scene.drive(&env), meddle);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert_eq!(Some(both(&scene.shop)), deployed, "{:#?}", op.journal);
    assert_eq!(images(&scene.shop), [NEW, NEW_WORKER], "nobody is left with an old image beside a new one");
    assert!(remarks(&op, "shop_worker was changed by somebody"), "{:#?}", op.journal.remarks);
    assert!(remarks(&op, "shop_app was not put back, and has image shop-app:2"), "{:#?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_of_one_on_the_way_back_stays_and_which_one_is_told() {
    let scene = asked(ShopOptions::default(), 120).await;
    scene.shop.sim.workload(NEW, SickAfter(Duration::from_secs(30)));
    let [before, _] = both(&scene.shop);
    let mut deployed = None;
    let is_back = |shop: &Shop, _: &[skep_tests::sim::Call]| {
        spec(shop, "shop_worker")["TaskTemplate"]["ContainerSpec"]["Image"] == "shop-worker:1"
            && spec(shop, "shop_app")["TaskTemplate"]["ContainerSpec"]["Image"] == NEW
            && shop.sim.elapsed() > Duration::from_secs(40)
    };
    let meddle = async {
        update(&scene.shop, "shop_worker", |s| s["Labels"]["release"] = json!("7")).await;
        deployed = Some(deployed_worker(&scene.shop));
    };
    let was = super::suspended(&scene, "driver", is_back, meddle).await;
    assert!(was, "it was on its way back");
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    let [app, worker] = both(&scene.shop);
    assert_eq!((app, Some(worker)), (before, deployed), "{:#?}", op.journal);
    assert!(remarks(&op, "shop_worker was changed by somebody"), "{:#?}", op.journal.remarks);
    assert!(remarks(&op, "as before: shop_app"), "{:#?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn several_of_which_one_would_not_go_back_are_not_begun_unless_that_is_said() {
    let options = with_labels(&[], &[("skep.update.rollback", "none")]);
    let scene = asked(options, 60).await;
    let before = both(&scene.shop);
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert!(reason(&op, "plan").contains("shop_app would not go back by itself"), "{:#?}", op.journal);
    assert_eq!((step(&op, "apply"), both(&scene.shop)), (None, before));
    // Said, all of them stay: no half of it goes back.
    scene.shop.sim.workload(NEW_WORKER, Unhealthy);
    let Work::Update { image, monitor_s, wait_s, also, .. } = op.intent.work.clone() else {
        panic!("{op:#?}")
    };
    let work = Work::Update { image, monitor_s, force: true, wait_s, also };
    let scene = Scene::ask_for(scene.shop, "shop_app", work, person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert_eq!(images(&scene.shop), [NEW, NEW_WORKER], "{:#?}", op.journal);
    assert!(remarks(&op, "shop_worker was not put back"), "{:#?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn nothing_else_has_any_of_them_until_the_watch_is_over() {
    let scene = asked(ShopOptions::default(), 60).await;
    let env = scene.driver("driver").await;
    let looking = async {
        reached(&scene, "watch").await;
        let stored = scene.shop.sim.stored_names();
        ["shop_app", "shop_worker"].map(|name| stored.contains(&claim::name(name)))
    };
    let (_, held) = tokio::join!(scene.drive(&env), looking);
    assert_eq!(held, [true, true]);
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn where_data_goes_back_with_one_it_goes_back_with_all_by_one_rollback() {
    let scene = asked(with_labels(&[], &[("skep.update.rollback", "full")]), 60).await;
    let before = (both(&scene.shop), live(&scene.shop));
    scene.shop.sim.workload(NEW_WORKER, Spoils(scene.shop.application()));
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!((both(&scene.shop), live(&scene.shop)), before);
    let engine = connect(&scene.shop, "looker").await;
    let operations = desk::list(&engine).await.unwrap();
    let rollbacks = operations.iter().filter(|o| matches!(o.intent.work, Work::Rollback { .. }));
    assert_eq!(rollbacks.count(), 1);
    let taken = op.journal.step("backup").map(|r| r.out["point"].clone()).unwrap_or_default();
    let points = points::list(&engine, None).await.unwrap();
    let taken = points.iter().find(|p| taken == p.head.id.as_str()).expect("the point from before");
    let members: Vec<&str> = taken.head.services.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(
        members,
        ["shop_db", "shop_app", "shop_worker"],
        "of what the update may change, and nothing else"
    );
}

#[tokio::test(start_paused = true)]
async fn data_of_several_is_backed_up_as_one_before_anything_is_written() {
    let mut options = ShopOptions::app_with_files();
    options.app_labels.push(("skep.update.rollback".to_owned(), "image".to_owned()));
    options.db_labels.push(("skep.update.rollback".to_owned(), "image".to_owned()));
    let shop = Shop::start(options).await;
    shop.sim.workload(NEW, shop.application());
    let work = together(&shop, NEW, &[("shop_db", "postgres:17.1")], 10).await;
    let scene = Scene::ask_for(shop, "shop_app", work, person()).await;
    let before = ["shop_app", "shop_db"].map(|name| spec(&scene.shop, name));
    let env = scene.driver("driver").await;
    scene
        .drive_watched(&env, |shop| {
            let is_taken = shop.sim.stored_names().iter().any(|name| name.starts_with("skep-point-"));
            let now = ["shop_app", "shop_db"].map(|name| spec(shop, name));
            assert!(is_taken || now == before, "it was written without a restore point");
        })
        .await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let engine = connect(&scene.shop, "looker").await;
    let points = points::list(&engine, None).await.unwrap();
    let [point] = points.as_slice() else { panic!("{points:?}") };
    assert_eq!(point.backups().count(), 2, "the data of both is of one moment");
}
