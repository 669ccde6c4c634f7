//! Update: a red flag puts back exactly what was found, once, and never over what somebody else wrote.

use std::time::Duration;

use serde_json::{Value, json};
use skep::operation::catalogue::{Backup, Purpose};
use skep::operation::record::{Operation, State, StepState, Work};
use skep::swarm::object::Kind;
use skep_tests::saga::{Scene, connect, update_to, update_watched};
use skep_tests::sim::postgres::Application;
use skep_tests::sim::shop::{Shop, ShopOptions};
use skep_tests::sim::{Answer, Container, Ends, Run, Serve, View, Workload};

use super::{beside, driven, person, remarks, spec, step, update, with_labels};

const NEW: &str = "shop-app:2";

/// The application, of which each task does well for so long, and no longer.
struct Fades {
    app: Application,
    after: Duration,
    how: Fading,
}

#[derive(Clone, Copy, PartialEq)]
enum Fading {
    /// Its health check fails.
    Sick,
    /// It ends.
    Exits,
    /// It answers with errors, and its health check does not see that.
    Errors,
}

impl Fades {
    fn has_faded(&self, container: &Container, view: &View<'_>) -> bool {
        view.at.saturating_sub(container.since) > self.after
    }
}

impl Workload for Fades {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        match self.how {
            Fading::Exits => {
                Run::Serve(Serve { exits: Some((self.after, 1)), stop: Duration::from_millis(100) })
            }
            Fading::Sick | Fading::Errors => self.app.start(container, view),
        }
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        !(self.how == Fading::Sick && self.has_faded(container, view)) && self.app.healthy(container, view)
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        match self.how == Fading::Errors && self.has_faded(container, view) {
            true => Answer::Refused,
            false => self.app.answer(container, view),
        }
    }
}

/// The application gets an image that does well for so long, and is watched for two minutes.
async fn fading(how: Fading, after: Duration) -> (Scene, Value, Operation) {
    let shop = Shop::start(ShopOptions::default()).await;
    let before = spec(&shop, "shop_app");
    shop.sim.workload(NEW, Fades { app: shop.application(), after, how });
    let work = update_watched(NEW, Some(120));
    let scene = Scene::ask_for(shop, "shop_app", work, person()).await;
    let op = driven(&scene).await;
    (scene, before, op)
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

#[tokio::test(start_paused = true)]
async fn an_update_keeps_users_served_and_changes_nothing_but_the_image() {
    let scene = Scene::update(ShopOptions::default(), "shop_app", NEW).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    scene.check("updated").await;
    let timeline = scene.shop.sim.timeline();
    let seen = timeline.iter().filter(|(at, _)| *at > scene.since).flat_map(|(_, answers)| answers);
    assert_eq!(
        seen.filter(|a| !matches!(a, Answer::App(_))).count(),
        0,
        "users were not served all the time"
    );
    // The proxy has no settings of its own.
    let scene = Scene::ask_for(scene.shop, "shop_proxy", update_to("nginx:2"), person()).await;
    let settings = spec(&scene.shop, "shop_proxy").get("UpdateConfig").cloned();
    let env = scene.driver("driver").await;
    let mut lent = false;
    scene
        .drive_watched(&env, |shop| {
            lent |= spec(shop, "shop_proxy")["UpdateConfig"]["Order"] == "start-first"
        })
        .await;
    assert!(lent, "its new task did not come first");
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
    assert_eq!(spec(&scene.shop, "shop_proxy").get("UpdateConfig").cloned(), settings);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_the_swarm_stops_goes_back_to_the_exact_spec() {
    let scene = Scene::update(ShopOptions::default(), "shop_app", NEW).await;
    scene.shop.sim.workload(NEW, Ends { lines: Vec::new(), after: Duration::from_millis(300), code: 1 });
    let before = spec(&scene.shop, "shop_app");
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(&op, "apply").contains("the Swarm stopped the update"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
    scene.check("stopped").await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_turns_unhealthy_while_it_is_watched_puts_the_exact_spec_back() {
    let (scene, before, op) = fading(Fading::Sick, Duration::from_secs(20)).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(&op, "watch").contains("not healthy"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
}

#[tokio::test(start_paused = true)]
async fn a_restart_loop_while_it_is_watched_puts_the_exact_spec_back() {
    let (scene, before, op) = fading(Fading::Exits, Duration::from_secs(15)).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(&op, "watch").contains("restart loop"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_fails_while_it_is_watched_puts_the_exact_spec_back() {
    let (scene, before, op) = fading(Fading::Errors, Duration::from_secs(25)).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(!reason(&op, "watch").is_empty(), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_while_it_is_watched_stays_and_that_is_told() {
    let shop = Shop::start(ShopOptions::default()).await;
    shop.sim.workload(NEW, shop.application());
    let work = update_watched(NEW, Some(600));
    let scene = Scene::ask_for(shop, "shop_app", work, person()).await;
    let env = scene.driver("driver").await;
    let meddle = async {
        reached(&scene, "watch").await;
        let release = |spec: &mut Value| spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=2"]);
        update(&scene.shop, "shop_app", release).await;
        spec(&scene.shop, "shop_app")
    };
    let (_, deployed) = tokio::join!(scene.drive(&env), meddle);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), deployed, "what somebody deployed was overwritten");
    assert!(remarks(&op, "shop_app was changed by somebody meanwhile"), "{:#?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_went_back_is_not_deployed_again_unless_that_is_said() {
    let (scene, before, op) = fading(Fading::Sick, Duration::from_secs(20)).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    let scene = Scene::ask_for(scene.shop, "shop_app", update_to(NEW), person()).await;
    let again = driven(&scene).await;
    assert_eq!(again.journal.state, State::Failed, "{:#?}", again.journal);
    let said = again.journal.step("plan").map(|r| r.reason.clone()).unwrap_or_default();
    assert!(said.contains(op.id.as_str()), "{:#?}", again.journal);
    assert_eq!((step(&again, "apply"), spec(&scene.shop, "shop_app")), (None, before));
    scene.shop.sim.workload(NEW, scene.shop.application());
    let work = Work::Update {
        image: NEW.to_owned(),
        monitor_s: Some(10),
        force: true,
        wait_s: None,
        also: Vec::new(),
    };
    let scene = Scene::ask_for(scene.shop, "shop_app", work, person()).await;
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_back_to_an_image_that_went_back_itself() {
    let (scene, _, op) = fading(Fading::Sick, Duration::from_secs(20)).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    // Somebody deploys it all the same, and then another one that does not do either.
    update(&scene.shop, "shop_app", |spec| spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(NEW)).await;
    let app = scene.shop.application();
    let fades = Fades { app, after: Duration::from_secs(20), how: Fading::Sick };
    scene.shop.sim.workload("shop-app:3", fades);
    let work = update_watched("shop-app:3", Some(120));
    let scene = Scene::ask_for(scene.shop, "shop_app", work, person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert!(remarks(&op, "did not do either"), "{:#?}", op.journal.remarks);
    assert_eq!(spec(&scene.shop, "shop_app")["TaskTemplate"]["ContainerSpec"]["Image"], "shop-app:3");
}

/// The database gets an image that turns unhealthy while it is watched.
async fn sick_db(options: ShopOptions) -> (Scene, Value, Operation) {
    struct SickLater;
    impl Workload for SickLater {
        fn start(&self, _container: &Container, _view: &View<'_>) -> Run {
            Run::Serve(Serve { exits: None, stop: Duration::from_millis(100) })
        }
        fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
            view.at.saturating_sub(container.since) < Duration::from_secs(20)
        }
    }
    let shop = Shop::start(options).await;
    let before = spec(&shop, "shop_db");
    shop.sim.workload("postgres:18", SickLater);
    let work = update_watched("postgres:18", Some(60));
    let scene = Scene::ask_for(shop, "shop_db", work, person()).await;
    let op = driven(&scene).await;
    (scene, before, op)
}

#[tokio::test(start_paused = true)]
async fn an_older_server_never_meets_newer_data_unless_its_labels_say_that_it_may() {
    let (scene, _, op) = sick_db(ShopOptions::default()).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert!(remarks(&op, "shop_db was not put back"), "{:#?}", op.journal.remarks);
    assert_eq!(spec(&scene.shop, "shop_db")["TaskTemplate"]["ContainerSpec"]["Image"], "postgres:18");
    let engine = connect(&scene.shop, "looker").await;
    let backups = engine.configs(Kind::Backup, &[]).await.unwrap();
    let safety = backups.iter().filter_map(Backup::read).filter(|b| b.entry.purpose == Purpose::Safety);
    assert_eq!(safety.count(), 1, "the data from before is in a backup");
    let (scene, before, op) = sick_db(with_labels(&[("skep.update.rollback", "image")], &[])).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_db"), before);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_never_ran_goes_back_whatever_the_service_keeps() {
    let shop = Shop::start(ShopOptions::default()).await;
    let before = spec(&shop, "shop_db");
    shop.sim.missing_image("postgres:99");
    let scene = Scene::ask_for(shop, "shop_db", update_to("postgres:99"), person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_db"), before);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_the_data_is_backed_up() {
    let scene = Scene::update(ShopOptions::default(), "shop_db", "postgres:17.1").await;
    let before = spec(&scene.shop, "shop_db");
    let env = scene.driver("driver").await;
    let mut written = false;
    scene
        .drive_watched(&env, |shop| {
            let is_backed_up = shop.sim.stored_names().iter().any(|name| name.starts_with("skep-backup-"));
            assert!(is_backed_up || spec(shop, "shop_db") == before, "it was written without a backup");
            written |= is_backed_up && spec(shop, "shop_db") != before;
        })
        .await;
    assert!(written, "it was never written");
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_restore_does_not_wait_for_the_end_of_the_watch() {
    let shop = Scene::back_up(Shop::start(ShopOptions::default()).await).await;
    let work = update_watched("postgres:17.1", Some(1500));
    let scene = Scene::ask_for(shop, "shop_db", work, person()).await;
    let env = scene.driver("driver").await;
    let restoring = async {
        reached(&scene, "watch").await;
        scene.ask_besides("shop_db", beside()).await
    };
    let (_, restore) = tokio::join!(scene.drive(&env), restoring);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(step(&op, "watch"), Some(StepState::Done));
    assert!(remarks(&op, restore.as_str()), "{:#?}", op.journal.remarks);
    let took = scene.shop.sim.elapsed().saturating_sub(scene.since);
    assert!(took < Duration::from_secs(600), "the restore waited for {took:?}");
}
