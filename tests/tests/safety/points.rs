//! Restore points: one moment, nothing live touched, whole or not there at all; and what keeps them so afterwards.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use skep::operation::catalogue::Backup;
use skep::operation::points::{self, Point};
use skep::operation::record::{Intent, OpId, SCHEMA, State, Work};
use skep::operation::rollback::Component;
use skep::operation::saga::Env;
use skep::operation::settings::Settings;
use skep::operation::{claim, desk};
use skep::swarm::object::Kind;
use skep_tests::saga::{Scene, connect};
use skep_tests::sim::shop::{Shop, ShopOptions};

use super::{driven, failed_with, remarks, suspended, with_labels};

const POINT: Work = Work::Point { without_data: false };

async fn listed(shop: &Shop) -> Vec<Point> {
    points::list(&connect(shop, "looker").await, None).await.unwrap()
}

async fn catalogue(shop: &Shop) -> Vec<Backup> {
    let configs = connect(shop, "looker").await.configs(Kind::Backup, &[]).await.unwrap();
    configs.iter().filter_map(Backup::read).collect()
}

/// Whether a job of this step runs.
fn works_at(shop: &Shop, step: &str) -> bool {
    shop.sim.services().iter().any(|name| name.starts_with("skep-job-") && name.contains(step))
}

#[tokio::test(start_paused = true)]
async fn a_point_holds_the_specs_configs_and_data_of_the_whole_stack() {
    let scene = Scene::point(ShopOptions::default()).await;
    driven(&scene).await;
    assert_eq!(scene.check("point").await, State::Succeeded);
    let [Point { head, .. }] = listed(&scene.shop).await.try_into().unwrap();
    let names: Vec<&str> = head.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    let place = |name: &str| names.iter().position(|n| *n == name).unwrap();
    assert!(place("shop_db") < place("shop_app") && place("shop_cache") < place("shop_app"), "{names:?}");
    let engine = connect(&scene.shop, "looker").await;
    for member in &head.services {
        let spec = member.spec.load(&engine, &head.id).await.unwrap();
        let live = engine.service(&member.name).await.unwrap().spec;
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&spec).unwrap(), live, "{}", member.name);
        let has_data = ["shop_db", "shop_audit"].contains(&member.name.as_str());
        assert_eq!(member.data.is_some(), has_data, "{member:?}");
    }
    let [config] = head.configs.as_slice() else { panic!("{:?}", head.configs) };
    assert_eq!(config.data.load(&engine, &head.id).await.unwrap(), b"level=info");
    assert_eq!((config.name.as_str(), head.secrets[0].name.as_str()), ("shop_conf_1", "shop_key"));
    assert_eq!(
        (head.networks[0].name.as_str(), head.volumes[0].name.as_str()),
        ("shop_default", "shop_data")
    );
    // Each backup is an ordinary one, of its own service.
    let backups = catalogue(&scene.shop).await;
    for member in head.services.iter().filter(|m| m.data.is_some()) {
        let id = &member.data.as_ref().unwrap().backup;
        assert!(backups.iter().any(|b| b.entry.id == *id && b.entry.service == member.name), "{member:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_point_without_data_dumps_nothing() {
    let shop = Scene::with_audit(ShopOptions::default()).await;
    let scene = Scene::ask_stack(shop, Work::Point { without_data: true }).await;
    driven(&scene).await;
    assert_eq!(scene.check("point").await, State::Succeeded);
    assert_eq!(catalogue(&scene.shop).await, []);
    assert_eq!(listed(&scene.shop).await[0].backups().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deploy_while_the_data_is_dumped_makes_no_point() {
    let mut scene = Scene::point(ShopOptions::default()).await;
    let labels = scene.shop.sim.service("shop_app").unwrap()["Spec"]["Labels"].clone();
    let deploy = scene.shop.deploy("shop_app", |spec| {
        spec["Labels"] = labels.clone();
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=2"]);
    });
    assert!(suspended(&scene, "driver", |shop, _| works_at(shop, "-dump-"), deploy).await);
    let deployed = scene.shop.sim.service("shop_app").unwrap()["Spec"].clone();
    scene.meant("shop_app", deployed);
    // The second driver ends what the first may have left.
    let op = driven(&scene).await;
    assert_eq!(scene.check("deployed meanwhile").await, State::Failed);
    assert!(failed_with(&op, "shop_app was changed while the data was being dumped"), "{:#?}", op.journal);
    assert_eq!(listed(&scene.shop).await, []);
    assert_eq!(catalogue(&scene.shop).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_point_holds_every_service_and_waits_for_who_holds_one() {
    let shop = Scene::with_audit(ShopOptions::default()).await;
    let lasts = shop.sim.now() + Duration::from_secs(60);
    let page = Work::Maintenance { until: Some(lasts) };
    let person = skep::operation::record::Trigger::Person { name: "somebody".to_owned() };
    let held = Scene::ask_for(shop, "shop_app", page, person).await;
    let env = held.driver("keeper").await;
    let id = held.op.clone();
    while connect(&held.shop, "looker").await.config(&id.config_name()).await.unwrap().labels["skep.state"]
        != "running"
        || !held.shop.sim.services().iter().any(|s| s == "shop_app")
        || held.operation().await.journal.step("hold").is_none()
    {
        skep::operation::drive::poll(&env, &id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The page is on: a point of this moment would hold it as the application's spec.
    let scene = Scene::ask_stack(held.shop, POINT).await;
    let taker = scene.driver("taker").await;
    for _ in 0..20 {
        skep::operation::drive::poll(&taker, &scene.op).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let waiting = scene.operation().await;
    assert!(waiting.journal.step("plan").is_none(), "{:#?}", waiting.journal);
    assert!(waiting.journal.step("claim").unwrap().note.contains("holds shop_app"), "{:#?}", waiting.journal);
    while !at_rest(&env, &id).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    scene.drive(&taker).await;
    let [Point { head, .. }] = listed(&scene.shop).await.try_into().unwrap();
    let app = head.services.iter().find(|s| s.name == "shop_app").unwrap();
    assert_eq!(app.image, "shop-app:1");
}

async fn at_rest(env: &Env, id: &OpId) -> bool {
    skep::operation::drive::poll(env, id).await.unwrap();
    desk::find(&env.engine, id).await.unwrap().journal.state.is_terminal()
}

#[tokio::test(start_paused = true)]
async fn retention_keeps_what_a_point_needs_and_points_beyond_their_number_go() {
    let shop = Scene::with_audit(with_labels(&[("skep.backup.keep", "1 last")], &[])).await;
    let first = Scene::ask_stack(shop, POINT).await;
    driven(&first).await;
    assert_eq!(first.check("first point").await, State::Succeeded);
    let [point] = listed(&first.shop).await.try_into().unwrap();
    let needed: Vec<String> = point.backups().map(str::to_owned).collect();
    let has = |backups: &[Backup]| needed.iter().all(|id| backups.iter().any(|b| b.entry.id == *id));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let shop = Scene::back_up(first.shop).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let shop = Scene::back_up(shop).await;
    assert!(has(&catalogue(&shop).await), "a backup that the point needs is gone");
    assert_eq!(catalogue(&shop).await.len(), 3, "the first of the other two is gone");

    // One point is kept: the second takes the first away, and its backups fall to the rules.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let second = Scene::ask_stack(shop, POINT).await;
    let env = second.driver("driver").await;
    let settings = Settings { keep_points: 1, ..(*env.settings).clone() };
    let env = Env { settings: Arc::new(settings), ..env };
    second.drive(&env).await;
    assert_eq!(second.check("second point").await, State::Succeeded);
    let [kept] = listed(&second.shop).await.try_into().unwrap();
    assert_eq!(kept.head.id, second.op);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let shop = Scene::back_up(second.shop).await;
    let left = catalogue(&shop).await;
    assert!(!has(&left), "nothing needs it any more");
    assert!(kept.backups().all(|id| left.iter().any(|b| b.entry.id == id)), "the second point needs its own");
}

/// Points that the labels keep go and stay by them, whatever the operator keeps where they say nothing.
#[tokio::test(start_paused = true)]
async fn points_go_by_the_rules_of_the_stack_and_never_the_last_with_data() {
    let mut shop = Scene::with_audit(with_labels(&[("skep.point.keep", "1 daily")], &[])).await;
    let mut taken = Vec::new();
    for without_data in [false, false, true, true] {
        let scene = Scene::ask_stack(shop, Work::Point { without_data }).await;
        driven(&scene).await;
        assert_eq!(scene.check("point").await, State::Succeeded);
        taken.push(scene.op.clone());
        tokio::time::sleep(Duration::from_secs(5)).await;
        shop = scene.shop;
    }
    let left: Vec<_> = listed(&shop).await.into_iter().map(|point| point.head.id).collect();
    assert_eq!(left, [taken[1].clone(), taken[3].clone()]);
}

/// Nobody knows what a faulty label was to keep.
#[tokio::test(start_paused = true)]
async fn no_point_goes_where_labels_about_points_are_faulty() {
    let shop = Scene::with_audit(with_labels(&[("skep.point.keep", "7 dayly")], &[])).await;
    let first = Scene::ask_stack(shop, POINT).await;
    driven(&first).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let second = Scene::ask_stack(first.shop, POINT).await;
    let env = second.driver("driver").await;
    let settings = Settings { keep_points: 1, ..(*env.settings).clone() };
    second.drive(&Env { settings: Arc::new(settings), ..env }).await;
    assert_eq!(second.check("second point").await, State::Succeeded);
    assert_eq!(listed(&second.shop).await.len(), 2);
}

/// A rollback that waits for its turn finds the point that it was asked for.
#[tokio::test(start_paused = true)]
async fn a_point_that_an_operation_wants_stays() {
    let shop = Scene::with_audit(ShopOptions::default()).await;
    let first = Scene::ask_stack(shop, POINT).await;
    driven(&first).await;
    let wanted = first.op.clone();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let second = Scene::ask_stack(first.shop, POINT).await;
    let point = second.op.clone();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let only = vec![Component::Specs];
    let rollback = Scene::ask_stack(second.shop, Work::Rollback { point: wanted.clone(), only }).await;
    let env = rollback.driver("driver").await;
    let settings = Settings { keep_points: 1, ..(*env.settings).clone() };
    let env = Env { settings: Arc::new(settings), ..env };
    while !at_rest(&env, &point).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let left: Vec<_> = listed(&rollback.shop).await.into_iter().map(|point| point.head.id).collect();
    assert_eq!(left, [wanted, point]);
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_data_cannot_be_backed_up_makes_no_point() {
    let shop = Scene::with_audit(with_labels(&[("skep.data", "postgers")], &[])).await;
    let scene = Scene::ask_stack(shop, POINT).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("faulty label").await, State::Failed);
    assert!(failed_with(&op, "labels of shop_db"), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn a_point_says_which_files_it_does_not_hold() {
    let mut options = ShopOptions::default();
    options.db_labels.retain(|(key, _)| !key.starts_with("skep.data"));
    let scene = Scene::ask_stack(Scene::with_audit(options).await, POINT).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("point").await, State::Succeeded);
    assert!(remarks(&op, "volume shop_data of shop_db"), "{:?}", op.journal.remarks);
}

/// Whoever is down goes first: what nobody waits for is asked for again.
#[tokio::test(start_paused = true)]
async fn a_point_gives_way_to_a_restore_that_an_alert_asks_for() {
    let labels = with_labels(&[super::SHORT_LOOKBACK], &[]);
    let shop = Scene::back_up(Scene::with_audit(labels).await).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let scene = Scene::ask_stack(shop, POINT).await;
    let engine = connect(&scene.shop, "alertmanager").await;
    let mut restore = None;
    let ask = async {
        let intent = Intent {
            schema: SCHEMA,
            service: "shop_db".to_owned(),
            service_id: engine.service("shop_db").await.unwrap().id,
            work: super::beside(),
            trigger: super::alert(&scene.shop),
            created: scene.shop.sim.now(),
            approval: false,
            accept_problems: false,
        };
        let id = OpId::new(intent.created, "alert");
        desk::create(&engine, &id, intent).await.unwrap();
        restore = Some(id);
    };
    assert!(suspended(&scene, "driver", |shop, _| works_at(shop, "dump"), ask).await);
    let op = scene.operation().await;
    assert!(claim::gave_way(&op) && remarks(&op, "gave way to operation"), "{:#?}", op.journal);
    assert_eq!(scene.check("gave way").await, State::Cancelled);
    let env = scene.driver("restorer").await;
    let restored = super::drills::drive_to_rest(&scene.shop, &env, &restore.unwrap()).await;
    assert_eq!(restored.journal.state, State::Succeeded, "{:#?}", restored.journal);
}
