//! Update with data (`skep.update.rollback=full`): a red flag puts back what was backed up before, once, and nothing else.

use std::time::Duration;

use serde_json::{Value, json};
use skep::operation::catalogue::{Backup, Purpose};
use skep::operation::record::{Operation, State, Work};
use skep::operation::{desk, points};
use skep::swarm::object::Kind;
use skep_tests::saga::{Scene, connect, update_to, update_watched};
use skep_tests::sim::postgres::{Application, Spoils};
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};
use skep_tests::sim::{Answer, Container, Run, View, Workload};

use super::{beside, driven, live, person, remarks, spec, step, update, with_labels};

const NEW: &str = "shop-app:2";

fn full() -> ShopOptions {
    with_labels(&[], &[("skep.update.rollback", "full")])
}

/// The application, which spoils the data as it starts, and turns unhealthy a while later.
struct SpoilsLater(Spoils);

impl Workload for SpoilsLater {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        self.0.start(container, view)
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        view.at.saturating_sub(container.since) < Duration::from_secs(30)
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        self.0.answer(container, view)
    }
}

fn later(app: Application) -> SpoilsLater {
    SpoilsLater(Spoils(app))
}

/// The application gets an image that spoils the data, and is watched for two minutes.
async fn watched(shop: Shop) -> Scene {
    shop.sim.workload(NEW, later(shop.application()));
    let work = update_watched(NEW, Some(120));
    Scene::ask_for(shop, "shop_app", work, person()).await
}

/// Waits until a step has begun.
async fn reached(scene: &Scene, step: &str) {
    while scene.operation().await.journal.step(step).is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn operations(shop: &Shop) -> Vec<Operation> {
    desk::list(&connect(shop, "looker").await).await.unwrap()
}

/// The rollbacks that were made.
async fn rollbacks(shop: &Shop) -> Vec<Operation> {
    let is_one = |op: &Operation| matches!(op.intent.work, Work::Rollback { .. });
    operations(shop).await.into_iter().filter(is_one).collect()
}

fn image(shop: &Shop) -> Value {
    spec(shop, "shop_app")["TaskTemplate"]["ContainerSpec"]["Image"].clone()
}

/// Why the step that is taken back is not.
fn left_at(op: &Operation, step: &str) -> String {
    op.journal.step(step).map(|r| r.note.clone()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_red_flag_puts_back_the_data_and_the_exact_spec_and_what_was_thrown_away_is_kept() {
    let shop = Shop::start(full()).await;
    let before = (spec(&shop, "shop_app"), live(&shop));
    let scene = watched(shop).await;
    let env = scene.driver("driver").await;
    let writing = async {
        reached(&scene, "watch").await;
        assert!(!live(&scene.shop).contains_key("users"), "the new image spoils the data");
        scene.shop.data.insert("shop_db", DATABASE, "orders", 7);
    };
    let (_, ()) = tokio::join!(scene.drive(&env), writing);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!((spec(&scene.shop, "shop_app"), live(&scene.shop)), before);
    // That the bad image answered nobody is no matter of going back.
    let [rollback] = rollbacks(&scene.shop).await.try_into().expect("one rollback");
    let forth = format!("skep rollback shop --to {}", rollback.id);
    assert!(remarks(&op, &forth) && remarks(&op, "what was written since is not in it"), "{op:#?}");

    // What was there is a way forth, with every row.
    let engine = connect(&scene.shop, "looker").await;
    let all = points::list(&engine, None).await.unwrap();
    let kept = all.iter().find(|p| p.head.id == rollback.id).expect("a point of what was thrown away");
    let backup = kept.backups().next().expect("it holds the data").to_owned();
    let entry = format!("skep-backup-{backup}");
    assert!(scene.shop.sim.stored_names().contains(&entry), "{backup}");
    let taken = all.iter().find(|p| Some(p.head.id.as_str()) == taken(&op)).expect("the point from before");
    let members: Vec<&str> = taken.head.services.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(members, ["shop_db", "shop_app"], "of what the update may change, and nothing else");
    assert_eq!(taken.head.purpose, points::Purpose::Safety);
    let configs = engine.configs(Kind::Backup, &[]).await.unwrap();
    let of_point =
        configs.iter().filter_map(Backup::read).find(|b| taken.backups().any(|id| id == b.entry.id));
    assert_eq!(
        of_point.map(|b| b.entry.purpose),
        Some(Purpose::Safety),
        "it takes the place of no regular one"
    );
}

fn taken(op: &Operation) -> Option<&str> {
    op.journal.step("backup")?.out["point"].as_str()
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_back_but_the_service_and_the_data_that_it_uses() {
    let scene = watched(Scene::with_audit(full()).await).await;
    let env = scene.driver("driver").await;
    let meddle = async {
        reached(&scene, "watch").await;
        scene.shop.data.insert("shop_audit", "audit", "events", 3);
        let release = |spec: &mut Value| spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=2"]);
        update(&scene.shop, "shop_cache", release).await;
        update(&scene.shop, "shop_db", |spec| spec["Labels"]["by"] = json!("hand")).await;
        (spec(&scene.shop, "shop_cache"), spec(&scene.shop, "shop_db"))
    };
    let (_, (cache, db)) = tokio::join!(scene.drive(&env), meddle);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!(
        scene.shop.data.content_of("shop_audit", "audit").unwrap()["events"],
        5,
        "of another database"
    );
    assert!(live(&scene.shop).contains_key("users"));
    assert_eq!((spec(&scene.shop, "shop_cache"), spec(&scene.shop, "shop_db")), (cache, db));
}

#[tokio::test(start_paused = true)]
async fn data_stays_as_it_is_where_no_task_of_the_new_image_has_run() {
    let shop = Shop::start(full()).await;
    let before = spec(&shop, "shop_app");
    shop.sim.missing_image(NEW);
    let scene = Scene::ask_for(shop, "shop_app", update_to(NEW), person()).await;
    let env = scene.driver("driver").await;
    let writing = async {
        reached(&scene, "apply").await;
        scene.shop.data.insert("shop_db", DATABASE, "orders", 7);
    };
    tokio::join!(scene.drive(&env), writing);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
    assert_eq!(live(&scene.shop)["orders"], 17, "what users wrote was thrown away for nothing");
    assert_eq!(rollbacks(&scene.shop).await, []);
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_while_it_is_watched_stays_and_so_does_the_data() {
    let scene = watched(Shop::start(full()).await).await;
    let env = scene.driver("driver").await;
    let meddle = async {
        reached(&scene, "watch").await;
        let release = |spec: &mut Value| spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=2"]);
        update(&scene.shop, "shop_app", release).await;
        (spec(&scene.shop, "shop_app"), live(&scene.shop))
    };
    let (_, left) = tokio::join!(scene.drive(&env), meddle);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert_eq!((spec(&scene.shop, "shop_app"), live(&scene.shop)), left);
    assert_eq!(rollbacks(&scene.shop).await, []);
}

#[tokio::test(start_paused = true)]
async fn s12_where_somebody_puts_the_service_back_the_data_stays_and_that_is_told() {
    let shop = Shop::start(full()).await;
    let before = spec(&shop, "shop_app");
    let scene = watched(shop).await;
    let env = scene.driver("driver").await;
    let meddle = async {
        reached(&scene, "watch").await;
        let base = before.clone();
        update(&scene.shop, "shop_app", move |spec| *spec = base.clone()).await;
        live(&scene.shop)
    };
    let (_, left) = tokio::join!(scene.drive(&env), meddle);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert_eq!((spec(&scene.shop, "shop_app"), live(&scene.shop)), (before, left));
    assert!(remarks(&op, "the data of shop_db stays as it is"), "{:#?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_in_the_moment_of_going_back_is_not_overwritten() {
    let scene = watched(Shop::start(full()).await).await;
    let deploy = update(&scene.shop, "shop_app", |spec| spec["Labels"]["by"] = json!("hand"));
    // The rollback is there, and has not looked yet.
    let was = super::suspended(
        &scene,
        "driver",
        |shop, _| shop.sim.stored_names().iter().filter(|name| name.starts_with("skep-op-")).count() > 2,
        deploy,
    )
    .await;
    assert!(was, "no rollback was made");
    let op = scene.operation().await;
    assert_eq!(spec(&scene.shop, "shop_app")["Labels"]["by"], "hand");
    assert_eq!((op.journal.state, image(&scene.shop)), (State::Failed, json!(NEW)), "{:#?}", op.journal);
    assert!(remarks(&op, "shop_app was changed by somebody meanwhile"), "{:#?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_back_needs_a_person_and_is_never_told_as_gone_back() {
    let scene = watched(Shop::start(full()).await).await;
    let env = scene.driver("driver").await;
    let damage = async {
        reached(&scene, "watch").await;
        scene.shop.data.with(|world| {
            let dir = world.store.backups().into_iter().next().expect("it was taken before");
            world.store.corrupt(&dir, "shop.dump");
        });
    };
    tokio::join!(scene.drive(&env), damage);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Stuck, "{:#?}", op.journal);
    assert!(left_at(&op, "apply").contains("does not go back with its data"), "{:#?}", op.journal);
    // An older image never meets newer data.
    assert_eq!((image(&scene.shop), live(&scene.shop).contains_key("users")), (json!(NEW), false));
    assert_eq!(rollbacks(&scene.shop).await.len(), 1, "it is tried once");

    // A person mends it, and says that it may try again.
    scene.shop.data.with(|world| {
        let dir = world.store.backups().into_iter().next().expect("it is there");
        world.store.corrupt(&dir, "shop.dump");
    });
    scene.retry().await;
    scene.drive(&env).await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!((image(&scene.shop), live(&scene.shop).contains_key("users")), (json!("shop-app:1"), true));
    assert_eq!(rollbacks(&scene.shop).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_red_flag_after_it_went_back_is_not_acted_on() {
    let scene = watched(Shop::start(full()).await).await;
    let env = scene.driver("driver").await;
    let spoil = async {
        reached(&scene, "watch").await;
        // The old image does not come up any more.
        scene.shop.sim.workload("shop-app:1", skep_tests::sim::Unhealthy);
    };
    tokio::join!(scene.drive(&env), spoil);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Stuck, "{:#?}", op.journal);
    assert_eq!(rollbacks(&scene.shop).await.len(), 1, "a rollback was rolled back");
}

#[tokio::test(start_paused = true)]
async fn s5_what_would_be_left_behind_needs_a_person_before_data_goes_back() {
    let scene = watched(Shop::start(full()).await).await;
    let env = scene.driver("driver").await;
    let visit = async {
        reached(&scene, "watch").await;
        scene.shop.data.with(|world| {
            let server = world.servers.get_mut("shop_db").expect("it is there");
            let database = server.databases.get_mut(DATABASE).expect("it is there");
            database.slots.push("feed".to_owned());
        });
    };
    tokio::join!(scene.drive(&env), visit);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Stuck, "{:#?}", op.journal);
    assert!(left_at(&op, "apply").contains("nobody has asked for this now"), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_to_go_back_is_held_and_a_restore_does_not_wait_for_it() {
    let shop = Scene::back_up(Shop::start(full()).await).await;
    shop.sim.workload(NEW, shop.application());
    let work = update_watched(NEW, Some(1500));
    let scene = Scene::ask_for(shop, "shop_app", work, person()).await;
    let env = scene.driver("driver").await;
    let meanwhile = async {
        reached(&scene, "watch").await;
        let backup = scene.ask_besides("shop_db", Work::Backup).await;
        let other = scene.driver("other").await;
        for _ in 0..20 {
            let _ = skep::operation::drive::poll(&other, &backup).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let held = desk::find(&connect(&scene.shop, "looker").await, &backup).await.unwrap();
        let note = held.journal.step("claim").map(|r| r.note.clone()).unwrap_or_default();
        assert!(note.contains(scene.op.as_str()), "{:#?}", held.journal);
        scene.ask_besides("shop_db", beside()).await
    };
    let (_, restore) = tokio::join!(scene.drive(&env), meanwhile);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(remarks(&op, restore.as_str()), "{:#?}", op.journal.remarks);
    assert!(scene.shop.sim.elapsed().saturating_sub(scene.since) < Duration::from_secs(600));
}

#[tokio::test(start_paused = true)]
async fn an_update_is_refused_where_no_data_could_go_back() {
    let shop =
        Shop::start(with_labels(&[], &[("skep.update.rollback", "full"), ("skep.depends-on", "cache")]))
            .await;
    let scene = Scene::ask_for(shop, "shop_app", update_to(NEW), person()).await;
    let op = driven(&scene).await;
    assert_eq!((op.journal.state, step(&op, "apply")), (State::Failed, None), "{:#?}", op.journal);
    assert_eq!(image(&scene.shop), "shop-app:1");
}

#[tokio::test(start_paused = true)]
async fn cancelling_before_anything_is_written_ends_the_point_and_leaves_nothing() {
    let scene = Scene::update_with_data(ShopOptions::default()).await;
    let env = scene.driver("driver").await;
    let cancel = async {
        reached(&scene, "backup").await;
        let engine = connect(&scene.shop, "person").await;
        desk::cancel(&engine, &scene.op, "ann").await.unwrap();
    };
    tokio::join!(scene.drive(&env), cancel);
    assert_eq!(scene.check("cancelled").await, State::Cancelled);
    let parts = operations(&scene.shop).await.into_iter().filter(|op| op.part_of().is_some());
    for part in parts {
        assert_eq!(part.journal.state, State::Cancelled, "{part:#?}");
        let engine = connect(&scene.shop, "person").await;
        assert!(desk::cancel(&engine, &part.id, "ann").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn cancelling_goes_back_with_the_data() {
    let shop = Shop::start(full()).await;
    let before = (spec(&shop, "shop_app"), live(&shop));
    let scene = watched(shop).await;
    let env = scene.driver("driver").await;
    let cancel = async {
        reached(&scene, "watch").await;
        let engine = connect(&scene.shop, "person").await;
        desk::cancel(&engine, &scene.op, "ann").await.unwrap();
    };
    tokio::join!(scene.drive(&env), cancel);
    assert_eq!(scene.operation().await.journal.state, State::Cancelled);
    assert_eq!((spec(&scene.shop, "shop_app"), live(&scene.shop)), before);
}

#[tokio::test(start_paused = true)]
async fn its_own_files_go_back_with_it() {
    let mut options = ShopOptions::app_with_files();
    options.app_labels.push(("skep.update.rollback".to_owned(), "full".to_owned()));
    let shop = Shop::start(options).await;
    let files = |shop: &Shop| shop.data.content_of("shop_app", "").expect("it keeps files");
    let before = (spec(&shop, "shop_app"), live(&shop), files(&shop));
    let scene = watched(shop).await;
    let env = scene.driver("driver").await;
    let writing = async {
        reached(&scene, "watch").await;
        scene.shop.data.with(|world| {
            let files = world.files.get_mut("shop_app").expect("it keeps files");
            files.live.insert("uploads".to_owned(), 9);
        });
    };
    tokio::join!(scene.drive(&env), writing);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!((spec(&scene.shop, "shop_app"), live(&scene.shop), files(&scene.shop)), before);
}
