//! S12 and what else keeps a stack safe while it goes back to a restore point.

use std::time::Duration;

use serde_json::json;
use skep::operation::record::{Operation, State, StepState, Work};
use skep::operation::rollback::Component;
use skep::operation::{desk, drive, points};
use skep_runner::task::SideState;
use skep_tests::saga::{ROLLED_BACK, ROLLED_BACK_WHOLE, ROLLED_BACK_WITH_DATA, Scene, connect, update};
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};
use skep_tests::sim::{Fault, Trigger};

use super::{app_runs, driven, failed_with, live, page_runs, remarks, spec, step, suspended};

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

/// Drives until something holds of the simulated shop, then does something, and drives to rest.
async fn meanwhile(scene: &Scene, when: impl Fn(&Shop) -> bool, act: impl Future<Output = ()>) -> Operation {
    assert!(suspended(scene, "driver", |shop, _| when(shop), act).await, "it never came so far");
    scene.operation().await
}

fn audit(shop: &Shop) -> skep_tests::sim::postgres::Content {
    shop.data.content_of("shop_audit", "audit").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_rollback_with_data_puts_rows_and_specs_back_and_the_way_forth_again() {
    let scene = Box::pin(Scene::rollback_with_data(ShopOptions::default())).await;
    // What is to come again has to pass the check of the data.
    scene.shop.data.insert("shop_db", DATABASE, "users", 2);
    let (later, later_audit) = (live(&scene.shop), audit(&scene.shop));
    let op = driven(&scene).await;
    assert_eq!(scene.check("with data").await, State::Succeeded);
    assert_eq!(op.journal.step("plan").unwrap().out["data"], json!(["shop_audit", "shop_db"]));
    assert_eq!(env(&scene.shop, "shop_app"), "null");

    // The point that it took holds what was replaced, so that all of it comes again.
    let engine = connect(&scene.shop, "looker").await;
    let taken = points::list(&engine, None).await.unwrap().pop().unwrap().head;
    assert_eq!((taken.id.clone(), taken.backups().count()), (op.id.clone(), 2));
    let work = Work::Rollback { point: taken.id, only: ROLLED_BACK_WITH_DATA.to_vec() };
    let forth = Scene::ask_stack(scene.shop, work).await;
    let op = driven(&forth).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!((live(&forth.shop), audit(&forth.shop)), (later, later_audit));
    assert!(env(&forth.shop, "shop_app").contains("RELEASE=2"));
}

/// The new database of a part, as long as it has not got the live one's name.
fn beside(shop: &Shop, service: &str) -> Option<String> {
    shop.data.databases(service).into_iter().find(|name| name.starts_with("skep_") && name.ends_with("_0"))
}

/// One outcome for all: where one data service cannot be cut over, or what comes after fails, the others go back to what
/// was live.
#[tokio::test(start_paused = true)]
async fn data_services_come_back_together_or_none_does() {
    let create = "POST /services/create";
    // Once the clients have stopped, a job cuts each of them over, the audit first; then comes the canary.
    for (nth, why) in [(2, "the data of shop_db does not go back"), (3, "refused on purpose")] {
        let scene = Box::pin(Scene::rollback_with_data(ShopOptions::default())).await;
        let faults = || scene.shop.sim.faults();
        let refuse = async {
            let before = faults().calls("driver").iter().filter(|call| call.endpoint == create).count();
            let refused = Fault::Fail(400, "refused on purpose".to_owned());
            faults().on("driver", Trigger::Endpoint(create.to_owned(), before + nth), refused);
        };
        let op = meanwhile(&scene, |shop| page_runs(shop) && !app_runs(shop), refuse).await;
        assert_eq!(scene.check(why).await, State::RolledBack);
        assert!(went_back_for(&op, why), "{:#?}", op.journal);
        let first = desk::find(&connect(&scene.shop, "looker").await, &op.id.part(0)).await.unwrap();
        assert_eq!(first.intent.service, "shop_audit");
        assert_eq!(step(&first, "cut"), Some(StepState::Undone));
    }
}

/// S3: until all data is back nobody starts on some of it.
#[tokio::test(start_paused = true)]
async fn no_client_runs_on_a_mixture_of_then_and_now() {
    let (shop, point, wanted) = Box::pin(Scene::point_deploy_and_write(ShopOptions::default())).await;
    let work = Work::Rollback { point: point.id, only: ROLLED_BACK_WITH_DATA.to_vec() };
    let scene = Scene::ask_stack(shop, work).await.wanting(wanted.0.clone());
    let env = scene.driver("driver").await;
    let (mut mixed, mut stopped) = (Vec::new(), false);
    scene
        .drive_watched(&env, |shop| {
            let Some(database) = shop.data.database("shop_db", DATABASE) else { return };
            let back = (database.content == wanted.0, audit(shop) == wanted.1["shop_audit"]);
            stopped |= !app_runs(shop);
            let container = &spec(shop, "shop_app")["TaskTemplate"]["ContainerSpec"];
            let is_of_then = container["Image"] == "shop-app:1" && container["Env"].is_null();
            if app_runs(shop) && (back.0 != back.1 || is_of_then && !back.0) {
                mixed.push(back);
            }
        })
        .await;
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
    assert!(stopped, "the application stopped");
    assert_eq!(mixed, []);
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_to_a_stopped_client_ends_a_rollback_with_data_and_stays() {
    let mut scene = Box::pin(Scene::rollback_with_data(ShopOptions::default())).await;
    let deploy = update(&scene.shop, "shop_app", |spec| {
        let mut app = spec["TaskTemplate"].clone();
        app["ContainerSpec"] = json!({ "Image": "shop-app:1", "Env": ["RELEASE=3"] });
        spec["TaskTemplate"] = app;
    });
    assert!(suspended(&scene, "driver", |shop, _| page_runs(shop) && !app_runs(shop), deploy).await);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(went_back_for(&op, "shop_app was changed by somebody meanwhile"), "{:#?}", op.journal);
    assert!(env(&scene.shop, "shop_app").contains("RELEASE=3"));
    let deployed = spec(&scene.shop, "shop_app");
    scene.meant("shop_app", deployed);
    scene.check("deployed over the page").await;
}

#[tokio::test(start_paused = true)]
async fn a_person_cancels_the_whole_and_never_a_part() {
    let scene = Box::pin(Scene::rollback_with_data(ShopOptions::default())).await;
    let shop = &scene.shop;
    let cancel = async {
        let engine = connect(shop, "person").await;
        let refused = desk::cancel(&engine, &scene.op.part(0), "ann").await.unwrap_err();
        assert!(refused.to_string().contains("it is a part of another operation"), "{refused}");
        desk::cancel(&engine, &scene.op, "ann").await.unwrap();
    };
    let when = |shop: &Shop| page_runs(shop) && beside(shop, "shop_db").is_none();
    let op = Box::pin(meanwhile(&scene, when, cancel)).await;
    assert_eq!(scene.check("cancelled").await, State::Cancelled);
    assert!(op.journal.step("cut").is_some(), "{:#?}", op.journal);
}

/// A backup of the point that is spoilt ends it before anything is touched, whichever data service it is of.
#[tokio::test(start_paused = true)]
async fn a_spoilt_backup_of_one_data_service_stops_nobody() {
    let (shop, point, _) = Box::pin(Scene::point_deploy_and_write(ShopOptions::default())).await;
    shop.data.with(|world| {
        let dirs = world.store.backups();
        let of_audit = dirs.iter().find(|dir| dir.contains("shop_audit")).unwrap();
        world.store.corrupt(of_audit, "audit.dump");
    });
    let work = Work::Rollback { point: point.id, only: ROLLED_BACK_WITH_DATA.to_vec() };
    let scene = Scene::ask_stack(shop, work).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("spoilt").await, State::Failed);
    assert!(op.journal.step("stop").is_none(), "{:#?}", op.journal);
}

/// The files of the application.
fn uploads(shop: &Shop) -> u64 {
    shop.data.content_of("shop_app", "").unwrap().values().copied().sum()
}

/// How far the files of the application are, where something stands beside them.
fn side(shop: &Shop) -> Option<SideState> {
    shop.data.with(|world| world.files["shop_app"].sides.values().next().map(|side| side.state))
}

/// S3, S18: an application that keeps files and uses a database is stopped once, for both, and starts when both are back.
#[tokio::test(start_paused = true)]
async fn an_application_with_files_and_a_database_stops_once_and_starts_on_both() {
    let options = ShopOptions::app_with_files();
    let (shop, point, wanted) = Box::pin(Scene::point_deploy_and_write(options)).await;
    let work = Work::Rollback { point: point.id, only: ROLLED_BACK_WHOLE.to_vec() };
    let scene = Scene::ask_stack(shop, work).await;
    let env = scene.driver("driver").await;
    let (mut mixed, mut ran, mut changes) = (Vec::new(), true, 0);
    scene
        .drive_watched(&env, |shop| {
            let Some(database) = shop.data.database("shop_db", DATABASE) else { return };
            let back = (database.content == wanted.0, uploads(shop) == 4);
            let runs = app_runs(shop);
            changes += usize::from(runs != ran);
            ran = runs;
            if runs && back.0 != back.1 {
                mixed.push(back);
            }
        })
        .await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!((mixed, changes), (Vec::new(), 2), "it stopped and started, each once");
    assert_eq!(scene.shop.data.violations(), [] as [String; 0]);
}

/// One outcome for all: where the files of the application cannot be exchanged, or what comes after fails, the database
/// goes back as well, and the application starts on what it had.
#[tokio::test(start_paused = true)]
async fn files_and_database_of_an_application_come_back_together_or_neither_does() {
    let create = "POST /services/create";
    for (nth, why) in [(3, "the data of shop_app does not go back"), (4, "refused on purpose")] {
        let scene = Box::pin(Scene::rollback_with_data(ShopOptions::app_with_files())).await;
        let faults = || scene.shop.sim.faults();
        let refuse = async {
            let before = faults().calls("driver").iter().filter(|call| call.endpoint == create).count();
            let refused = Fault::Fail(400, "refused on purpose".to_owned());
            faults().on("driver", Trigger::Endpoint(create.to_owned(), before + nth), refused);
        };
        let op = meanwhile(&scene, |shop| page_runs(shop) && !app_runs(shop), refuse).await;
        assert_eq!(scene.check(why).await, State::RolledBack);
        assert!(went_back_for(&op, why), "{:#?}", op.journal);
    }
}

/// S18: whoever brings the application back while its files go back is stopped again before they are moved.
#[tokio::test(start_paused = true)]
async fn s18_an_application_that_comes_back_while_its_files_go_back_is_stopped_again() {
    let mut scene = Box::pin(Scene::rollback_with_data(ShopOptions::app_with_files())).await;
    let cancel = async {
        let engine = connect(&scene.shop, "person").await;
        desk::cancel(&engine, &scene.op, "ann").await.unwrap();
        update(&scene.shop, "shop_app", |spec| {
            let mut app = spec["TaskTemplate"].clone();
            app["ContainerSpec"]["Image"] = json!("shop-app:1");
            app["ContainerSpec"]["Env"] = json!(["RELEASE=3"]);
            spec["TaskTemplate"] = app;
        })
        .await;
    };
    let op = Box::pin(meanwhile(&scene, |shop| side(shop) == Some(SideState::Forward), cancel)).await;
    assert_eq!(op.journal.state, State::Cancelled, "{:#?}", op.journal);
    let deployed = spec(&scene.shop, "shop_app");
    assert!(deployed["TaskTemplate"]["ContainerSpec"]["Env"].to_string().contains("RELEASE=3"));
    scene.meant("shop_app", deployed);
    scene.check("brought back").await;
}

/// That the clients have stopped does not begin the cut-over yet: where the whole ends there, they start again first.
#[tokio::test(start_paused = true)]
async fn no_part_touches_live_data_before_the_whole_begins_to_cut_over() {
    let scene = Box::pin(Scene::rollback_with_data(ShopOptions::app_with_files())).await;
    let env = scene.driver("driver").await;
    let part = scene.op.part(0);
    while step(&scene.operation().await, "stop") != Some(StepState::Done) {
        drive::poll_whole(&env, &scene.op).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let engine = connect(&scene.shop, "person").await;
    assert_eq!(step(&scene.operation().await, "cut"), None, "it has not begun yet");
    for _ in 0..100 {
        drive::poll(&env, &part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let waiting = desk::find(&engine, &part).await.unwrap();
    assert_eq!((step(&waiting, "ready"), step(&waiting, "cut")), (Some(StepState::Started), None));
    desk::cancel(&engine, &scene.op, "ann").await.unwrap();
    scene.drive(&env).await;
    assert_eq!(scene.check("cancelled in between").await, State::Cancelled);
}
