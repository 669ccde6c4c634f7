//! S3, S7, S8, S10: going back when that is hard, and what stands where it cannot be done.

use std::time::Duration;

use serde_json::json;
use skep::operation::desk;
use skep::operation::record::{State, StepState, Work};
use skep_runner::Task;
use skep_tests::saga::{Driven, Scene, connect};
use skep_tests::sim::postgres::Application;
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};
use skep_tests::sim::{Answer, Container, Fault, Loss, Run, Serve, Trigger, View, Workload};

use super::{
    app_runs, beside, driven, exists, live, once, page_runs, remarks, spec, step, update, with_labels,
    with_settings,
};

/// A check of the application that passes on the data as it was before the restore only.
const FAILS_ON_RESTORED: (&str, &str) = ("skep.check.health.body", "orders=17");

async fn retried(scene: &Scene) {
    let engine = connect(&scene.shop, "person").await;
    desk::retry(&engine, &scene.op, scene.shop.sim.now()).await.unwrap();
    driven(scene).await;
}

async fn cancel(scene: &Scene) {
    let engine = connect(&scene.shop, "person").await;
    desk::cancel(&engine, &scene.op, "somebody").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn s10_what_was_restored_where_no_database_was_stays_and_waits_for_a_person() {
    let (shop, wanted) = Scene::broken(with_labels(&[], &[FAILS_ON_RESTORED])).await;
    let before = spec(&shop, "shop_app");
    let data = shop.data.clone();
    let scene = Scene::ask(shop, beside()).await;
    data.with(|world| world.servers.get_mut("shop_db").unwrap().databases.remove(DATABASE));
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Stuck, "{:#?}", op.journal);
    assert_eq!(step(&op, "canary"), Some(StepState::Undone));
    assert!(remarks(&op, "there is nothing to go back to"), "{:?}", op.journal.remarks);
    let stands = scene.shop.data.database("shop_db", DATABASE).expect("the restored database was dropped");
    assert_eq!((stands.content, stands.allow), (wanted.clone(), true));
    assert_eq!(scene.shop.data.databases("shop_db"), [DATABASE], "a database was left behind");
    assert_eq!(spec(&scene.shop, "shop_app"), before, "the clients are not back");
    once(&scene.shop, "users get the application", Shop::sees_only_app).await;
    // Tried again with the check as wrong as before, it goes back to what stands now.
    retried(&scene).await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!(live(&scene.shop), wanted);
}

#[tokio::test(start_paused = true)]
async fn s10_what_was_restored_where_no_database_was_can_be_tried_again_once_the_check_is_right() {
    let (shop, wanted) = Scene::broken(with_labels(&[], &[FAILS_ON_RESTORED])).await;
    let data = shop.data.clone();
    let scene = Scene::ask(shop, beside()).await;
    data.with(|world| world.servers.get_mut("shop_db").unwrap().databases.remove(DATABASE));
    driven(&scene).await;
    update(&scene.shop, "shop_app", |s| s["Labels"]["skep.check.health.body"] = json!("orders=10")).await;
    once(&scene.shop, "users get the application", Shop::sees_only_app).await;
    retried(&scene).await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(live(&scene.shop), wanted);
}

#[tokio::test(start_paused = true)]
async fn an_undo_is_tried_until_it_ends_and_tells_meanwhile_what_it_waits_for() {
    let scene = Scene::restore(with_labels(&[], &[FAILS_ON_RESTORED]), beside()).await;
    for _ in 0..6 {
        scene.shop.sim.faults().kill_job(1, |ticket| ticket.session.contains("-cut-undo-"));
    }
    let env = scene.driver("driver").await;
    let mut told = false;
    scene
        .drive_watched(&env, |shop| {
            let records = shop.sim.configs("operation");
            told |= records.iter().any(|r| {
                let text = r.to_string();
                text.contains("being undone: attempt") && text.contains("again at")
            });
        })
        .await;
    assert_eq!(scene.check("undo").await, State::RolledBack);
    assert!(told, "nobody could tell what the undo waits for");
    let op = scene.operation().await;
    let canary = op.journal.step("canary").unwrap();
    assert!(canary.note.contains("does not contain"), "why it failed is lost: {}", canary.note);
}

/// A scene on three nodes.
async fn on_three_nodes(work: Work) -> Scene {
    let mut options = ShopOptions::default();
    (options.sim.nodes, options.sim.managers) = (3, 3);
    match work {
        Work::Backup => Scene::backup(options).await,
        other => Scene::restore(options, other).await,
    }
}

/// Waits for a job and cuts its node off while it goes on; the node.
async fn cut_off(shop: &Shop, job: &str) -> String {
    once(shop, job, |shop| running(shop, job).is_some()).await;
    let node = running(shop, job).unwrap().node;
    shop.sim.faults().lose_node(&node, Loss::Unreachable);
    node
}

fn running(shop: &Shop, job: &str) -> Option<Container> {
    let name = shop.sim.services().into_iter().find(|n| n.contains(job))?;
    shop.sim.containers(&name).into_iter().next()
}

#[tokio::test(start_paused = true)]
async fn s8_a_lost_dump_that_may_write_on_is_not_followed_by_another() {
    let scene = on_three_nodes(Work::Backup).await;
    scene.shop.data.with(|w| w.pace.dump = Duration::from_secs(100));
    let env = scene.driver("driver").await;
    let lost = async {
        let node = cut_off(&scene.shop, "-dump-dump-1").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!exists(&scene.shop, "-dump-dump-2"), "two dumps may write to one place");
        scene.shop.data.with(|w| w.pace.dump = Duration::from_secs(1));
        scene.shop.sim.faults().return_node(&node);
    };
    tokio::join!(scene.drive(&env), lost);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn s8_an_undo_waits_for_the_node_of_a_dump_but_not_for_ever() {
    let scene = on_three_nodes(Work::Backup).await;
    scene.shop.data.with(|w| w.pace.dump = Duration::from_secs(3600));
    let env = scene.driver("driver").await;
    let env = with_settings(env, |s| s.lost_deadline = Duration::from_secs(300));
    let lost = async {
        let node = cut_off(&scene.shop, "-dump-dump-1").await;
        cancel(&scene).await;
        node
    };
    let (_, node) = tokio::join!(scene.drive(&env), lost);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Stuck, "{:#?}", op.journal);
    let note = &op.journal.step("dump").unwrap().note;
    assert!(note.contains("may still write files") && note.contains("docker node rm"), "{note}");
    scene.shop.sim.faults().return_node(&node);
    retried(&scene).await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Cancelled, "{:#?}", op.journal);
    scene.shop.data.with(|w| assert!(w.store.dirs.is_empty(), "a part of a dump is left"));
}

#[tokio::test(start_paused = true)]
async fn s8_an_undo_does_not_wait_for_a_lost_job_that_writes_nothing() {
    let scene = on_three_nodes(beside()).await;
    let env = scene.driver("driver").await;
    let lost = async {
        cut_off(&scene.shop, "-preflight-look-").await;
        cancel(&scene).await;
    };
    tokio::join!(scene.drive(&env), lost);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Cancelled, "{:#?}", op.journal);
}

/// An application that does not end for an hour when it is told to.
struct Stubborn(Application);

impl Workload for Stubborn {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        let _ = self.0.start(container, view);
        Run::Serve(Serve { exits: None, stop: Duration::from_secs(3600) })
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        self.0.healthy(container, view)
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        self.0.answer(container, view)
    }
}

fn stubborn(shop: &Shop) -> Stubborn {
    let (database, user) = (DATABASE.to_owned(), "shop".to_owned());
    Stubborn(Application { data: shop.data.clone(), host: "db".to_owned(), database, user })
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_and_never_stops_fails_the_step_and_everything_goes_back() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    scene.shop.sim.workload("shop-app:2", stubborn(&scene.shop));
    let before = live(&scene.shop);
    let env = scene.driver("driver").await;
    let meddle = async {
        once(&scene.shop, "the canary", |shop| exists(shop, "skep-canary-")).await;
        scene
            .shop
            .deploy("shop_app", |s| {
                s["TaskTemplate"]["ContainerSpec"]["Image"] = json!("shop-app:2");
                s["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = json!(7_200_000_000_000_u64);
                // It replaces the page at once, before anybody notices.
                s["UpdateConfig"] = json!({ "Parallelism": 0, "Order": "stop-first" });
            })
            .await;
    };
    let (ended, ()) = tokio::join!(scene.drive(&env), meddle);
    assert!(matches!(ended, Driven::Rest));
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    let note = &op.journal.step("canary").unwrap().note;
    assert!(note.contains("do not stay stopped"), "{note}");
    assert_eq!(live(&scene.shop), before);
    assert_eq!(spec(&scene.shop, "shop_app")["TaskTemplate"]["ContainerSpec"]["Image"], "shop-app:2");
}

#[tokio::test(start_paused = true)]
async fn s3_a_client_that_never_stops_does_not_keep_a_person_from_being_called() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    update(&scene.shop, "shop_app", |s| {
        s["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = json!(7_200_000_000_000_u64);
    })
    .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let env = scene.driver("driver").await;
    let (mut canary, mut harmed) = (false, false);
    scene
        .drive_watched(&env, |shop| {
            if !canary && exists(shop, "skep-canary-") {
                canary = true;
                shop.sim.workload("shop-app:1", stubborn(shop));
            }
            if canary && !harmed && app_runs(shop) {
                shop.data.drop_table("shop_db", DATABASE, "users");
                harmed = true;
            }
        })
        .await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Stuck, "{:#?}", op.journal);
    assert!(remarks(&op, "not every client could be stopped"), "{:?}", op.journal.remarks);
    assert!(page_runs(&scene.shop), "users do not see the page");
}

/// Swarm refuses to remove what a task still uses, although its service has gone.
#[tokio::test(start_paused = true)]
async fn s7_what_a_closed_job_still_uses_for_a_moment_is_removed_a_moment_later() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let in_use = || Fault::Fail(400, "config 'x' is in use by the following service: y".to_owned());
    for nth in 1..=8 {
        let removal = Trigger::Endpoint("DELETE /configs/{id}".to_owned(), nth);
        scene.shop.sim.faults().on("driver", removal, in_use());
    }
    let op = driven(&scene).await;
    assert_eq!(scene.check("s7 in use").await, State::Succeeded);
    let again = op.journal.steps.iter().flat_map(|(_, r)| r.jobs.values()).filter(|j| j.attempt > 1);
    assert_eq!(again.count(), 0, "an attempt was wasted");
}

#[tokio::test(start_paused = true)]
async fn s7_a_swap_that_is_undone_ends_the_sessions_of_the_swap() {
    let scene = Scene::restore(with_labels(&[], &[FAILS_ON_RESTORED]), beside()).await;
    let env = scene.driver("driver").await;
    let mut fences = Vec::new();
    scene
        .drive_watched(&env, |shop| {
            for name in shop.sim.services().iter().filter(|n| n.contains("-cut-undo-")) {
                fences.extend(shop.sim.containers(name).iter().filter_map(Container::ticket).map(|t| {
                    assert!(matches!(t.task, Task::PgSwap(_)));
                    t.fence
                }));
            }
        })
        .await;
    let of_step = format!("skep-{}-cut-", scene.op);
    assert!(!fences.is_empty() && fences.iter().all(|f| *f == of_step), "{fences:?}");
}
