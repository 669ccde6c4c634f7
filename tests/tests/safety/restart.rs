//! Restart: what needs a service is stopped before it and started after it, and nothing is left down.

use std::time::Duration;

use serde_json::json;
use skep::operation::client_spec::is_asleep;
use skep::operation::record::{Above, Manner, Operation, State, Work};
use skep::operation::saga::Env;
use skep::swarm::object::TaskState;
use skep_tests::saga::{Scene, restart};
use skep_tests::sim::postgres::Application;
use skep_tests::sim::shop::{Shop, ShopOptions};
use skep_tests::sim::{Answer, Container, Run, SimOptions, TaskInfo, Unhealthy, View, Workload};

use super::{
    app_runs, driven, failed_with, once, page_runs, person, remarks, spec, step, update, with_settings,
};

/// The application shows no page of its own: it is scaled to zero.
fn at_zero() -> ShopOptions {
    let mut options = ShopOptions { own_page: true, ..ShopOptions::default() };
    options.app_labels.push(("skep.maintenance.mode".to_owned(), "proxy".to_owned()));
    options
}

/// The application, of which no task is ever healthy that was told to restart.
struct SickWhenNew(Application);

impl Workload for SickWhenNew {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        self.0.start(container, view)
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        container.spec["ForceUpdate"].as_u64().unwrap_or(0) == 0 && self.0.healthy(container, view)
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        self.0.answer(container, view)
    }
}

async fn of_db(options: ShopOptions) -> Scene {
    Scene::restart(options, "shop_db", Manner::Fitting).await
}

fn up(shop: &Shop, service: &str) -> bool {
    let running = |t: &TaskInfo| t.state == TaskState::Running && t.desired == TaskState::Running;
    shop.sim.tasks(service).iter().any(running)
}

/// Ids of the tasks that run.
fn running(shop: &Shop, service: &str) -> Vec<String> {
    let tasks = shop.sim.tasks(service).into_iter();
    tasks.filter(|t| t.state == TaskState::Running && t.desired == TaskState::Running).map(|t| t.id).collect()
}

async fn succeeded(scene: &Scene, what: &str) -> Operation {
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    scene.check(what).await;
    op
}

#[tokio::test(start_paused = true)]
async fn no_client_runs_while_what_it_needs_stops_is_down_or_is_not_healthy_yet() {
    let scene = of_db(at_zero()).await;
    let before = running(&scene.shop, "shop_db");
    let env = scene.driver("driver").await;
    let (mut down, mut clients) = (0, 0);
    scene
        .drive_watched(&env, |shop| {
            let is_new = !up(shop, "shop_db") || is_asleep(&spec(shop, "shop_db"));
            if is_new {
                down += 1;
                assert!(!app_runs(shop), "the application runs without its database");
            } else if !app_runs(shop) {
                clients += 1;
            }
        })
        .await;
    assert!(down > 0 && clients > 0, "the order was not seen: {down} {clients}");
    succeeded(&scene, "order").await;
    assert!(!running(&scene.shop, "shop_db").iter().any(|id| before.contains(id)), "it was not restarted");
}

#[tokio::test(start_paused = true)]
async fn users_see_the_page_while_a_service_behind_it_restarts() {
    let scene = of_db(ShopOptions::default()).await;
    let env = scene.driver("driver").await;
    let mut pages = 0;
    scene.drive_watched(&env, |shop| pages += usize::from(page_runs(shop))).await;
    assert!(pages > 0, "no page was shown");
    succeeded(&scene, "page").await;
}

/// A restart of a database that does not come up again, with a time for that which a simulation need not be long about.
async fn sick_db() -> (Scene, Env) {
    let scene = of_db(at_zero()).await;
    scene.shop.sim.workload("postgres:17", Unhealthy);
    let env = with_settings(scene.driver("driver").await, |s| s.start_deadline = DEADLINE);
    (scene, env)
}

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_starts_nothing_before_it_has_failed_and_leaves_nothing_stopped() {
    let (scene, env) = sick_db().await;
    let (mut stopped, mut started) = (false, None);
    scene
        .drive_watched(&env, |shop| match is_asleep(&spec(shop, "shop_app")) {
            true => stopped = true,
            false if stopped && started.is_none() => started = Some(shop.sim.elapsed()),
            false => {}
        })
        .await;
    let op = scene.operation().await;
    assert!(failed_with(&op, "shop_db: 0 of 1 task(s) running"), "{:#?}", op.journal);
    assert!(remarks(&op, "its own spec is back, but shop_db"), "{:#?}", op.journal.remarks);
    let waited = started.unwrap().saturating_sub(scene.since);
    assert!(
        waited > DEADLINE,
        "the application was started after {waited:?}, before its database had failed"
    );
    assert!(waited < DEADLINE * 3 / 2, "what came up was kept down for {waited:?} by what did not");
    let other = Shop::start(at_zero()).await;
    for service in ["shop_app", "shop_db"] {
        assert_eq!(spec(&scene.shop, service)["Mode"], spec(&other, service)["Mode"], "{service}");
    }
}

#[tokio::test(start_paused = true)]
async fn s12_what_somebody_deploys_while_it_is_stopped_is_what_starts() {
    let mut scene = of_db(at_zero()).await;
    let env = scene.driver("driver").await;
    let meddle = async {
        once(&scene.shop, "the stop of the database", |shop| is_asleep(&spec(shop, "shop_db"))).await;
        update(&scene.shop, "shop_app", |spec| {
            spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=2"]);
        })
        .await;
    };
    tokio::join!(scene.drive(&env), meddle);
    let app = spec(&scene.shop, "shop_app");
    assert_eq!(app["TaskTemplate"]["ContainerSpec"]["Env"], json!(["RELEASE=2"]));
    assert_eq!(app["Mode"]["Replicated"]["Replicas"], 2);
    scene.meant("shop_app", app);
    let op = succeeded(&scene, "deployed").await;
    assert!(remarks(&op, "shop_app was changed by somebody meanwhile"), "{:#?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn what_sleeps_is_left_asleep_and_that_is_told() {
    let shop = Shop::start(at_zero()).await;
    let scene = Scene::ask_for(shop, "shop_app", Work::Sleep { above: Above::Refuse }, person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let asleep = spec(&scene.shop, "shop_app");
    let scene = Scene::ask_for(scene.shop, "shop_db", restart(false, Manner::Fitting), person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(remarks(&op, "shop_app sleeps, and is left asleep"), "{:#?}", op.journal.remarks);
    let scene = Scene::ask_stack(scene.shop, restart(true, Manner::Fitting)).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), asleep);
    let scene = Scene::ask_for(scene.shop, "shop_app", restart(false, Manner::Stopped), person()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "sleeps"), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn a_rolling_restart_keeps_users_served_and_gives_back_the_settings_that_it_lent() {
    let scene = Scene::restart(ShopOptions::default(), "shop_app", Manner::Rolling).await;
    let before = running(&scene.shop, "shop_app");
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    scene.check("rolling").await;
    assert!(!running(&scene.shop, "shop_app").iter().any(|id| before.contains(id)), "a task is old");
    let not_served = |seen: &Answer| !matches!(seen, Answer::App(_));
    let timeline = scene.shop.sim.timeline();
    let seen = timeline.iter().filter(|(at, _)| *at > scene.since).flat_map(|(_, answers)| answers);
    assert_eq!(seen.filter(|a| not_served(a)).count(), 0, "users were not served all the time");
    // The proxy has no settings of its own.
    let scene = Scene::restart(ShopOptions::default(), "shop_proxy", Manner::Rolling).await;
    let settings = spec(&scene.shop, "shop_proxy").get("UpdateConfig").cloned();
    let env = scene.driver("driver").await;
    let mut lent = false;
    scene
        .drive_watched(&env, |shop| {
            lent |= spec(shop, "shop_proxy")["UpdateConfig"]["Order"] == "start-first"
        })
        .await;
    assert!(lent, "its new task did not come first");
    succeeded(&scene, "lent").await;
    assert_eq!(spec(&scene.shop, "shop_proxy").get("UpdateConfig").cloned(), settings);
}

#[tokio::test(start_paused = true)]
async fn a_rolling_restart_that_the_swarm_stops_goes_back_to_the_exact_spec() {
    let scene = Scene::restart(ShopOptions::default(), "shop_app", Manner::Rolling).await;
    let before = spec(&scene.shop, "shop_app");
    let app = scene.shop.application();
    scene.shop.sim.workload("shop-app:1", SickWhenNew(app));
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert!(failed_with(&op, "the Swarm stopped the restart of shop_app"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
    let wrong = scene.shop.wrong_answers(scene.since);
    assert!(wrong.is_empty(), "{wrong:?}");
    once(&scene.shop, "users reach the application", Shop::sees_only_app).await;
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_paused_is_not_gone_on_with() {
    let shop = Shop::start(ShopOptions::default()).await;
    shop.sim.workload("shop-app:2", Unhealthy);
    update(&shop, "shop_app", |spec| spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("shop-app:2"))
        .await;
    let paused = |shop: &Shop| shop.sim.service("shop_app").unwrap()["UpdateStatus"]["State"] == "paused";
    once(&shop, "the update is paused", paused).await;
    let found = spec(&shop, "shop_app");
    let scene = Scene::ask_for(shop, "shop_app", restart(false, Manner::Rolling), person()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "is paused"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), found);
}

#[tokio::test(start_paused = true)]
async fn s18_what_may_come_up_on_another_node_than_its_files_is_not_restarted() {
    let options = ShopOptions { sim: SimOptions { nodes: 3, ..SimOptions::default() }, ..at_zero() };
    let scene = of_db(options).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "nothing keeps shop_db on the node"), "{:#?}", op.journal);
    assert_eq!(step(&op, "stop"), None);
}
