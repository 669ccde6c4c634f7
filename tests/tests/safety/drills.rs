//! S9, S16: what a drill proves, and that nothing else notices it.

use std::time::Duration;

use skep::operation::catalogue::Backup;
use skep::operation::claim::gave_way;
use skep::operation::desk;
use skep::operation::drill::{scratch_name, scratch_side};
use skep::operation::drive::{self, Again};
use skep::operation::record::{Intent, OpId, Operation, SCHEMA, State, Trigger, Work};
use skep::operation::saga::Env;
use skep::swarm::object::Kind;
use skep_runner::Task;
use skep_tests::saga::{Scene, connect};
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions, USER};

use super::{beside, driven, failed_with, live, remarks, step, with_labels};

pub(super) const DRILL: Work = Work::Drill { backup: None };

pub(super) async fn backups(shop: &Shop) -> Vec<Backup> {
    let engine = connect(shop, "looker").await;
    let configs = engine.configs(Kind::Backup, &[]).await.unwrap();
    let mut all: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
    all.sort_by_key(|b| b.entry.taken);
    all
}

/// Whether what a drill loads is there.
pub(super) fn scratch(shop: &Shop) -> bool {
    let side = scratch_side("shop_db");
    let beside = shop.data.with(|w| w.files.get("shop_db").is_some_and(|f| f.side_names().contains(&side)));
    beside || shop.data.databases("shop_db").contains(&scratch_name("shop_db"))
}

/// A shop with two backups, the newer one of broken data: intact by its checksums, and its checks fail.
pub(super) async fn with_a_backup_of_broken_data(options: ShopOptions) -> Shop {
    let shop = Scene::back_up(Shop::start(options).await).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    shop.data.drop_table("shop_db", DATABASE, "users");
    let shop = Scene::back_up(shop).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    shop
}

/// Asks for one more operation, while another one is driven.
pub(super) async fn also(shop: &Shop, work: Work, approval: bool) -> OpId {
    also_on(shop, "shop_db", work, approval).await
}

async fn also_on(shop: &Shop, service: &str, work: Work, approval: bool) -> OpId {
    let engine = connect(shop, "asker").await;
    let now = shop.sim.now();
    let intent = Intent {
        schema: SCHEMA,
        service: service.to_owned(),
        service_id: engine.service(service).await.unwrap().id,
        work,
        trigger: Trigger::Person { name: "somebody else".to_owned() },
        created: now,
        approval,
        accept_problems: false,
    };
    let id = OpId::new(now, &format!("also {intent:?}"));
    desk::create(&engine, &id, intent).await.unwrap();
    id
}

async fn operation(shop: &Shop, id: &OpId) -> Operation {
    desk::find(&connect(shop, "looker").await, id).await.unwrap()
}

pub(super) async fn drive_to_rest(shop: &Shop, env: &Env, id: &OpId) -> Operation {
    for _ in 0..100_000 {
        match drive::poll(env, id).await {
            Ok(Again::Idle) => break,
            Ok(Again::After(pause)) => tokio::time::sleep(pause.max(Duration::from_millis(1))).await,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    operation(shop, id).await
}

/// Drives until the scratch database is there, no further.
pub(super) async fn driven_until_loading(scene: &Scene) -> Env {
    let env = scene.driver("driver").await;
    for _ in 0..100_000 {
        if scratch(&scene.shop) {
            return env;
        }
        match drive::poll(&env, &scene.op).await {
            Ok(Again::After(pause)) => tokio::time::sleep(pause.max(Duration::from_millis(1))).await,
            other => panic!("nothing is loaded: {other:?}"),
        }
    }
    panic!("nothing is loaded");
}

#[tokio::test(start_paused = true)]
async fn s16_a_drill_proves_the_newest_backup_and_no_job_of_it_names_anything_live_to_change() {
    let shop = Scene::back_up(Shop::start(ShopOptions::default()).await).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let shop = Scene::back_up(shop).await;
    shop.data.with(|world| world.tasks.clear());
    let scene = Scene::ask(shop, DRILL).await;
    let env = scene.driver("driver").await;
    let oid = scene.shop.data.database("shop_db", DATABASE).unwrap().oid;
    let mut loaded = false;
    scene
        .drive_watched(&env, |shop| {
            loaded |= scratch(shop);
            let live = shop.data.database("shop_db", DATABASE).expect("the live database is there");
            assert!(live.allow && live.oid == oid, "the live database was touched");
        })
        .await;
    assert!(loaded, "nothing was loaded");
    assert_eq!(scene.check("s16 drill").await, State::Succeeded);
    let all = backups(&scene.shop).await;
    assert_eq!(all.iter().map(|b| b.proved.is_some()).collect::<Vec<_>>(), [false, true]);
    let name = scratch_name("shop_db");
    for task in scene.shop.data.with(|world| world.tasks.clone()) {
        let harmless = match &task {
            Task::PgInspect(_) | Task::PgExamine(_) => true,
            Task::PgRestore(load) => load.side == name,
            Task::SqlChecks(checks) => checks.database == name && !checks.checks.is_empty(),
            Task::PgDrop(drop) => drop.databases.iter().all(|d| d.name == name),
            _ => false,
        };
        assert!(harmless, "{task:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn s16_a_backup_that_is_intact_and_does_not_pass_its_checks_is_caught() {
    let shop = with_a_backup_of_broken_data(ShopOptions::default()).await;
    let scene = Scene::ask(shop, DRILL).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("drill of broken data").await, State::Failed);
    assert!(failed_with(&op, "failed the drill: check `users`"), "{:#?}", op.journal);
    let all = backups(&scene.shop).await;
    assert!(all[1].drill_failed.as_ref().is_some_and(|d| d.why.contains("check `users`")), "{all:#?}");
    assert!(all[0].drill_failed.is_none(), "{all:#?}");
}

#[tokio::test(start_paused = true)]
async fn s9_a_restore_prefers_a_backup_whose_drill_did_not_fail_and_proves_it() {
    let shop = with_a_backup_of_broken_data(ShopOptions::default()).await;
    let scene = Scene::ask(shop, DRILL).await;
    driven(&scene).await;
    scene.check("drill").await;
    let good = backups(&scene.shop).await[0].entry.id.clone();
    let restore = Scene::ask(scene.shop, beside()).await;
    let op = driven(&restore).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(op.journal.step("beside").unwrap().out["backup"], good.as_str());
    assert_eq!(op.journal.step("beside").unwrap().out["candidate"], 0, "the broken one was tried first");
}

#[tokio::test(start_paused = true)]
async fn s16_an_altered_artefact_is_caught_before_anything_is_loaded() {
    let shop = Scene::back_up(Shop::start(ShopOptions::default()).await).await;
    shop.data.with(|world| {
        let newest = world.store.backups().into_iter().next_back().unwrap();
        world.store.corrupt(&newest, "shop.dump");
    });
    let scene = Scene::ask(shop, DRILL).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("altered").await, State::Failed);
    assert_eq!(step(&op, "load"), None, "{:#?}", op.journal);
    assert!(backups(&scene.shop).await[0].drill_failed.is_some());
}

#[tokio::test(start_paused = true)]
async fn s17_a_drill_without_room_loads_nothing_and_blames_no_backup() {
    let scene = Scene::drill(ShopOptions::default()).await;
    scene.shop.data.with(|world| world.room = (1 << 20, 100 << 30));
    let op = driven(&scene).await;
    assert!(failed_with(&op, "no room"), "{:#?}", op.journal);
    assert_eq!(step(&op, "load"), None);
    assert_eq!(scene.check("no room").await, State::Failed);
    assert_eq!(backups(&scene.shop).await[0].drill_failed, None);
}

#[tokio::test(start_paused = true)]
async fn a_drill_whose_jobs_are_killed_blames_no_backup() {
    let scene = Scene::drill(ShopOptions::default()).await;
    for _ in 0..3 {
        scene.shop.sim.faults().kill_job(1, |ticket| matches!(ticket.task, Task::PgRestore(_)));
    }
    driven(&scene).await;
    assert_eq!(scene.check("killed").await, State::Failed);
    assert_eq!(backups(&scene.shop).await[0].drill_failed, None);
}

#[tokio::test(start_paused = true)]
async fn a_drill_that_is_proved_again_is_no_failure_any_more() {
    let shop = with_a_backup_of_broken_data(ShopOptions::default()).await;
    let scene = Scene::ask(shop, DRILL).await;
    driven(&scene).await;
    // The check was wrong, not the data.
    let mut options = scene.shop.sim.service("shop_db").unwrap()["Spec"].clone();
    options["Labels"]["skep.check.users.sql"] = "SELECT count(*) FROM orders".into();
    super::update(&scene.shop, "shop_db", |spec| *spec = options.clone()).await;
    let again = Scene::ask(scene.shop, DRILL).await;
    let op = driven(&again).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let all = backups(&again.shop).await;
    assert!(all[1].proved.is_some() && all[1].drill_failed.is_none(), "{all:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_drill_gives_way_to_whatever_is_asked_for_meanwhile() {
    for (work, approval) in [(beside(), false), (beside(), true), (Work::Backup, false)] {
        let scene = Scene::drill(ShopOptions::default()).await;
        let env = driven_until_loading(&scene).await;
        let other = also(&scene.shop, work.clone(), approval).await;
        let asked = scene.shop.sim.elapsed();
        let op = drive_to_rest(&scene.shop, &env, &scene.op).await;
        let took = scene.shop.sim.elapsed() - asked;
        assert_eq!(op.journal.state, State::Cancelled, "{:#?}", op.journal);
        assert!(gave_way(&op) && remarks(&op, "gave way to"), "{:#?}", op.journal);
        assert!(!scratch(&scene.shop), "the scratch database is left");
        assert!(took < Duration::from_secs(10), "it took {took:?}");
        assert!(backups(&scene.shop).await.iter().all(|b| b.proved.is_none()), "nothing was proved");
        if approval {
            desk::approve(&connect(&scene.shop, "person").await, &other, "somebody").await.unwrap();
        }
        let done = drive_to_rest(&scene.shop, &env, &other).await;
        assert_eq!(done.journal.state, State::Succeeded, "{work:?}: {:#?}", done.journal);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drill_gives_way_to_an_operation_on_another_service_that_wants_to_stop_this_one() {
    let scene = Scene::drill(ShopOptions::default()).await;
    let env = driven_until_loading(&scene).await;
    let engine = connect(&scene.shop, "asker").await;
    let now = scene.shop.sim.now();
    let id = also_on(&scene.shop, "shop_cache", Work::Maintenance { until: None }, false).await;
    desk::edit(&engine, &id, |op| {
        op.journal.state = State::Running;
        op.journal.step_mut("claim", now).out = serde_json::json!({ "services": ["shop_cache", "shop_db"] });
        Ok(())
    })
    .await
    .unwrap();
    let op = drive_to_rest(&scene.shop, &env, &scene.op).await;
    assert!(gave_way(&op), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_waits_for_a_service_says_which_ones_it_wants() {
    let scene = Scene::drill(ShopOptions::default()).await;
    driven_until_loading(&scene).await;
    let restore = also(&scene.shop, beside(), false).await;
    let env = scene.driver("other").await;
    for _ in 0..5 {
        drive::poll(&env, &restore).await.unwrap();
    }
    let wants = operation(&scene.shop, &restore).await.journal.step("claim").unwrap().out.clone();
    assert_eq!(wants["services"], serde_json::json!(["shop_app", "shop_db"]));
}

#[tokio::test(start_paused = true)]
async fn a_drill_does_not_begin_while_another_operation_is_there() {
    let scene = Scene::drill(ShopOptions::default()).await;
    let other = also(&scene.shop, beside(), true).await;
    let env = scene.driver("driver").await;
    for _ in 0..200 {
        let Ok(Again::After(pause)) = drive::poll(&env, &scene.op).await else { panic!("it has ended") };
        tokio::time::sleep(pause).await;
    }
    let op = scene.operation().await;
    assert_eq!(step(&op, "plan"), None, "{:#?}", op.journal);
    assert!(
        scene.shop.sim.stored_names().iter().all(|n| !n.starts_with("skep-claim-")),
        "it holds the service"
    );
    desk::cancel(&connect(&scene.shop, "person").await, &other, "somebody").await.unwrap();
    drive_to_rest(&scene.shop, &env, &other).await;
    drive_to_rest(&scene.shop, &env, &scene.op).await;
    assert_eq!(scene.check("after the other").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn of_two_drills_the_older_one_goes_first_and_both_prove() {
    let scene = Scene::drill(ShopOptions::default()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let younger = also(&scene.shop, DRILL, false).await;
    let (one, two) = (scene.driver("one").await, scene.driver("two").await);
    let (first, second) =
        tokio::join!(drive_to_rest(&scene.shop, &one, &scene.op), drive_to_rest(&scene.shop, &two, &younger));
    assert_eq!((first.journal.state, second.journal.state), (State::Succeeded, State::Succeeded));
    let began = |op: &Operation| op.journal.step("plan").unwrap().began;
    assert!(began(&second) > first.journal.ended.unwrap());
}

fn leave_scratch(shop: &Shop) {
    let content = live(shop);
    shop.data.add_server("shop_db", &scratch_name("shop_db"), USER, &content);
    assert!(scratch(shop));
}

#[tokio::test(start_paused = true)]
async fn what_a_drill_has_left_the_next_drill_or_restore_drops() {
    for work in [DRILL, beside()] {
        let shop = Scene::back_up(Shop::start(ShopOptions::default()).await).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        leave_scratch(&shop);
        let scene = Scene::ask(shop, work.clone()).await;
        driven(&scene).await;
        assert_eq!(scene.check(&format!("{work:?}")).await, State::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drill_that_a_person_cancels_leaves_nothing_and_is_not_made_up() {
    let scene = Scene::drill(ShopOptions::default()).await;
    let env = driven_until_loading(&scene).await;
    desk::cancel(&connect(&scene.shop, "person").await, &scene.op, "somebody").await.unwrap();
    let op = drive_to_rest(&scene.shop, &env, &scene.op).await;
    assert!(!gave_way(&op));
    assert_eq!(scene.check("cancelled").await, State::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_drill_on_a_server_that_does_not_answer_keeps_no_restore_waiting() {
    let scene = Scene::drill(ShopOptions::default()).await;
    let env = driven_until_loading(&scene).await;
    for _ in 0..40 {
        scene.shop.sim.faults().kill_job(1, |ticket| matches!(ticket.task, Task::PgDrop(_)));
    }
    let other = also(&scene.shop, beside(), false).await;
    let asked = scene.shop.sim.elapsed();
    let op = drive_to_rest(&scene.shop, &env, &scene.op).await;
    assert_eq!(op.journal.state, State::Cancelled, "{:#?}", op.journal);
    assert!(remarks(&op, "is left for the next drill or restore"), "{:#?}", op.journal.remarks);
    let took = scene.shop.sim.elapsed() - asked;
    assert!(took < Duration::from_secs(30), "it took {took:?}");
    assert_eq!(operation(&scene.shop, &other).await.journal.state, State::Pending);
}

#[tokio::test(start_paused = true)]
async fn without_a_check_a_drill_says_what_it_does_not_prove() {
    let mut options = with_labels(&[], &[]);
    options.db_labels.retain(|(key, _)| !key.starts_with("skep.check."));
    let scene = Scene::drill(options).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("no check").await, State::Succeeded);
    assert!(remarks(&op, "no SQL check is defined"), "{:?}", op.journal.remarks);
    let [backup] = backups(&scene.shop).await.try_into().unwrap();
    assert_eq!(backup.proved, None, "only that it loads was shown");
    assert!(backup.loaded.is_some() && backup.restore_seconds.is_some(), "{backup:?}");
    assert_eq!(op.journal.step("record").unwrap().out["shown"], "loads");
}

#[tokio::test(start_paused = true)]
async fn what_the_server_lacks_is_not_noted_on_a_backup() {
    let shop = Shop::start(ShopOptions::default()).await;
    let server = |shop: &Shop, change: fn(&mut skep_tests::sim::postgres::Server)| {
        shop.data.with(|world| change(world.servers.get_mut("shop_db").unwrap()));
    };
    server(&shop, |server| {
        server.roles.push("reporting".to_owned());
        server.databases.get_mut(DATABASE).unwrap().properties.roles.push("reporting".to_owned());
    });
    let shop = Scene::back_up(shop).await;
    server(&shop, |server| server.roles.retain(|role| role != "reporting"));
    let scene = Scene::ask(shop, DRILL).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "was not proved: role `reporting` does not exist"), "{:#?}", op.journal);
    assert_eq!(scene.check("a role is missing").await, State::Failed);
    let [backup] = backups(&scene.shop).await.try_into().unwrap();
    assert_eq!((backup.drill_failed, backup.proved), (None, None));
    // For a restore it stands against it all the same.
    let restore = Scene::ask(scene.shop, beside()).await;
    assert!(failed_with(&driven(&restore).await, "role `reporting` does not exist"));
}

#[tokio::test(start_paused = true)]
async fn a_drill_without_a_backup_fails_and_changes_nothing() {
    let shop = Shop::start(ShopOptions::default()).await;
    let scene = Scene::ask(shop, DRILL).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "no verified backup"), "{:#?}", op.journal);
    scene.check("no backup").await;
}
