//! S8, S9, S10, S15, S16 where a running service alone tells the data, and takes it: by commands, or as definitions.

use std::time::Duration;

use serde_json::json;
use skep::operation::record::{State, StepState, Work};
use skep_runner::Task;
use skep_tests::saga::Scene;
use skep_tests::sim::Loss;
use skep_tests::sim::postgres::Content;
use skep_tests::sim::shop::{Shop, ShopOptions};

use super::jobs::{SECRET, readable};
use super::{driven, exists, failed_with, once, remarks, restore, spec, step, update};

fn held(shop: &Shop) -> Content {
    shop.data.with(|world| world.files["shop_db"].live.clone())
}

/// As the command line and an alert ask for it; the labels settle that it is in place.
fn asked() -> Work {
    Work::Restore { to: None, backup: None, before: None, in_place: None, quiesce: None, create_roles: false }
}

fn loads(shop: &Shop) -> usize {
    shop.data.with(|world| world.tasks.iter().filter(|t| matches!(t, Task::CommandLoad(_))).count())
}

#[tokio::test(start_paused = true)]
async fn what_a_command_dumped_its_load_command_brings_back_while_clients_are_stopped() {
    for word in ["command", "rabbitmq", "mongodb"] {
        let scene = Scene::restore(ShopOptions::files(word), asked()).await;
        let op = driven(&scene).await;
        assert_eq!(scene.check("a restore into the running service").await, State::Succeeded);
        assert_eq!(step(&op, "replace"), Some(StepState::Done), "{:#?}", op.journal);
        assert_eq!((loads(&scene.shop), step(&op, "beside")), (1, None));
        assert!(remarks(&op, "Skep cannot know"), "{:?}", op.journal.remarks);
    }
}

#[tokio::test(start_paused = true)]
async fn s15_a_job_sees_the_volume_of_a_broker_for_its_cookie_and_writes_nothing_there() {
    let scene = Scene::restore(ShopOptions::files("rabbitmq"), asked()).await;
    let env = scene.driver("driver").await;
    let seen = async {
        once(&scene.shop, "the load", |shop| exists(shop, "-replace-load-1")).await;
        let job = scene.shop.sim.services().into_iter().find(|n| n.contains("-replace-load-1")).unwrap();
        spec(&scene.shop, &job)["TaskTemplate"]["ContainerSpec"]["Mounts"].clone()
    };
    let (_, mounts) = tokio::join!(scene.drive(&env), seen);
    let volume = mounts.as_array().unwrap().iter().find(|m| m["Source"] == "shop_data").unwrap();
    assert_eq!((&volume["Target"], &volume["ReadOnly"]), (&json!("/skep/data"), &json!(true)));
    assert_eq!(scene.check("the cookie").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_broker_whose_name_changes_with_each_restart_is_refused() {
    let shop = Shop::start(ShopOptions::files("rabbitmq")).await;
    update(&shop, "shop_db", |s| s["TaskTemplate"]["ContainerSpec"]["Hostname"] = json!("{{.Task.ID}}"))
        .await;
    let scene = Scene::ask(shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert!(failed_with(&op, "no fixed name"), "{:#?}", op.journal);
}

/// A broker whose files are its data, messages among them.
async fn files_of_a_broker(host: &str) -> Shop {
    let shop = Shop::start(ShopOptions::files("volume")).await;
    let host = host.to_owned();
    update(&shop, "shop_db", move |s| {
        let container = &mut s["TaskTemplate"]["ContainerSpec"];
        container["Hostname"] = json!(host);
        container["Mounts"][0]["Target"] = json!("/var/lib/rabbitmq");
    })
    .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    shop
}

async fn stopped(shop: &Shop) {
    update(shop, "shop_db", |s| s["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
}

#[tokio::test(start_paused = true)]
async fn s16_the_files_of_a_broker_are_backed_up_while_it_is_stopped_and_only_then() {
    let scene = Scene::ask(files_of_a_broker("mq").await, Work::Backup).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "whole only while it is stopped"), "{:#?}", op.journal);
    assert!(scene.shop.data.with(|world| world.store.backups()).is_empty());

    stopped(&scene.shop).await;
    let scene = Scene::ask(scene.shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);

    // Started while its files are read.
    scene.shop.data.with(|world| world.pace.dump = Duration::from_secs(20));
    let scene = Scene::ask(scene.shop, Work::Backup).await;
    let env = scene.driver("driver").await;
    let start = async {
        once(&scene.shop, "the dump", |shop| exists(shop, "-dump-dump-1")).await;
        update(&scene.shop, "shop_db", |s| s["Mode"]["Replicated"]["Replicas"] = json!(1)).await;
    };
    tokio::join!(scene.drive(&env), start);
    let op = scene.operation().await;
    assert!(failed_with(&op, "whole only while it is stopped"), "{:#?}", op.journal);
    assert_eq!(scene.shop.data.with(|world| world.store.backups()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_files_of_a_broker_are_refused_without_a_fixed_name_and_restored_to_no_other_name() {
    let scene = Scene::ask(files_of_a_broker("{{.Task.ID}}").await, Work::Backup).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "no fixed name"), "{:#?}", op.journal);

    let host = |name: &'static str| {
        move |s: &mut serde_json::Value| s["TaskTemplate"]["ContainerSpec"]["Hostname"] = json!(name)
    };
    update(&scene.shop, "shop_db", host("mq")).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    stopped(&scene.shop).await;
    let scene = Scene::ask(scene.shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    update(&scene.shop, "shop_db", host("other")).await;
    update(&scene.shop, "shop_db", |s| s["Mode"]["Replicated"]["Replicas"] = json!(1)).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let mut shop = scene.shop;
    for work in [asked(), Work::Drill { backup: None }] {
        let scene = Scene::ask(shop, work).await;
        let op = driven(&scene).await;
        assert!(failed_with(&op, "rabbit@mq when the backup was taken"), "{:#?}", op.journal);
        shop = scene.shop;
    }
}

#[tokio::test(start_paused = true)]
async fn s10_no_command_loads_without_a_safety_backup() {
    let scene = Scene::restore(ShopOptions::files("rabbitmq"), asked()).await;
    for _ in 0..3 {
        let safety = |task: &Task| matches!(task, Task::CommandDump(dump) if dump.dir.ends_with('s'));
        scene.shop.sim.faults().kill_job(1, move |ticket| safety(&ticket.task));
    }
    let op = driven(&scene).await;
    assert_eq!(scene.check("s10 command").await, State::RolledBack);
    assert!(op.journal.step("safety").unwrap().reason.contains("no safety backup"), "{:#?}", op.journal);
    assert_eq!((step(&op, "replace"), loads(&scene.shop)), (None, 0), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn s10_what_fails_its_checks_once_a_command_has_loaded_it_gives_way_to_the_safety_backup() {
    let (shop, _) = Scene::broken(ShopOptions::files("command")).await;
    let before = held(&shop);
    // Nobody ever answers so: not before, and not after.
    update(&shop, "shop_db", |s| {
        s["Labels"]["skep.check.gone.http"] = json!("http://:8080/");
        s["Labels"]["skep.check.gone.status"] = json!("204");
    })
    .await;
    let scene = Scene::ask(shop, asked()).await;
    let op = driven(&scene).await;
    assert_eq!(step(&op, "replace"), Some(StepState::Undone), "{:#?}", op.journal);
    assert_eq!(scene.check("s10 command back").await, State::RolledBack);
    assert_eq!((held(&scene.shop), loads(&scene.shop)), (before, 2));
}

#[tokio::test(start_paused = true)]
async fn s16_an_altered_dump_is_refused_before_anything_live_is_touched() {
    let (shop, _) = Scene::broken(ShopOptions::files("command")).await;
    shop.data.with(|world| {
        let dir = world.store.backups().pop().unwrap();
        world.store.corrupt(&dir, "data.dump");
    });
    let scene = Scene::ask(shop, asked()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "no backup can be used"), "{:#?}", op.journal);
    assert_eq!((step(&op, "safety"), step(&op, "stop"), loads(&scene.shop)), (None, None, 0));
    assert_eq!(scene.check("s16 command").await, State::Failed);
}

#[tokio::test(start_paused = true)]
async fn s8_a_load_on_a_lost_node_is_waited_for_since_nothing_fences_a_command() {
    let mut options = ShopOptions::files("command");
    (options.sim.nodes, options.sim.managers) = (3, 3);
    let (shop, wanted) = Scene::broken(options).await;
    let before = held(&shop);
    let scene = Scene::ask(shop, asked()).await;
    scene.shop.data.with(|w| w.pace.load = Duration::from_secs(60));
    let env = scene.driver("driver").await;
    let lost = async {
        once(&scene.shop, "the load", |shop| exists(shop, "-replace-load-1")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let job = scene.shop.sim.services().into_iter().find(|n| n.contains("-replace-load-1")).unwrap();
        let node = scene.shop.sim.containers(&job)[0].node.clone();
        scene.shop.sim.faults().lose_node(&node, Loss::Unreachable);
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert!(!exists(&scene.shop, "-replace-load-2"), "a second load runs beside a first that may run");
        scene.shop.sim.faults().return_node(&node);
    };
    tokio::join!(scene.drive(&env), lost);
    let op = scene.operation().await;
    assert!(op.journal.step("replace").unwrap().jobs["load"].writes, "{:#?}", op.journal);
    let expected = if op.journal.state == State::Succeeded { &wanted } else { &before };
    assert!(op.journal.state.is_terminal(), "{:#?}", op.journal);
    assert_eq!(held(&scene.shop), *expected, "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn s15_the_secret_part_of_the_environment_reaches_commands_and_nobody_else() {
    let shop = Shop::start(ShopOptions::files("command")).await;
    update(&shop, "shop_db", |s| {
        let env = json!(["ADDR=here", format!("STORE_PASSWORD={SECRET}")]);
        s["TaskTemplate"]["ContainerSpec"]["Env"] = env;
    })
    .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let shop = Scene::back_up(shop).await;
    let scene = Scene::ask(shop, asked()).await;
    keeps_secret(&scene, SECRET).await;
    assert_eq!(scene.check("s15 command").await, State::Succeeded);
    let given = scene.shop.data.with(|world| {
        world.tasks.iter().any(|t| matches!(t, Task::CommandLoad(l) if l.means.reaches().1.is_some()))
    });
    assert!(given, "the command did not get it");
}

#[tokio::test(start_paused = true)]
async fn s15_the_password_of_a_mongodb_is_in_nothing_that_can_be_read() {
    let shop = Shop::start(ShopOptions::files("mongodb")).await;
    update(&shop, "shop_db", |s| {
        let env = json!(["MONGO_INITDB_ROOT_USERNAME=root", format!("MONGO_INITDB_ROOT_PASSWORD={SECRET}")]);
        s["TaskTemplate"]["ContainerSpec"]["Env"] = env;
    })
    .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let shop = Scene::back_up(shop).await;
    let scene = Scene::ask(shop, asked()).await;
    keeps_secret(&scene, SECRET).await;
    assert_eq!(scene.check("s15 mongodb").await, State::Succeeded);
    let given = scene.shop.data.with(|world| {
        world.tasks.iter().any(|t| matches!(t, Task::CommandLoad(l) if l.means.reaches().1.is_some()))
    });
    assert!(given, "the tools did not get it");
}

/// Drives to rest, and looks all the time at what can be read.
async fn keeps_secret(scene: &Scene, secret: &str) {
    let env = scene.driver("driver").await;
    let drive = scene.drive(&env);
    tokio::pin!(drive);
    let mut secrets = 0;
    loop {
        tokio::select! {
            biased;
            _ = &mut drive => break,
            text = readable(&scene.shop) => {
                secrets += usize::from(text.contains("skep-job-"));
                assert!(!text.contains(secret), "the secret can be read");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    assert!(secrets > 0, "no job was looked at");
}

#[tokio::test(start_paused = true)]
async fn s10_what_fails_its_checks_once_a_mongodb_holds_it_gives_way_to_the_safety_backup() {
    let (shop, _) = Scene::broken(ShopOptions::files("mongodb")).await;
    let before = held(&shop);
    update(&shop, "shop_db", |s| {
        s["Labels"]["skep.check.gone.http"] = json!("http://:8080/");
        s["Labels"]["skep.check.gone.status"] = json!("204");
    })
    .await;
    let scene = Scene::ask(shop, asked()).await;
    let op = driven(&scene).await;
    assert_eq!(step(&op, "replace"), Some(StepState::Undone), "{:#?}", op.journal);
    assert_eq!(scene.check("s10 mongodb back").await, State::RolledBack);
    assert_eq!((held(&scene.shop), loads(&scene.shop)), (before, 2));
}

#[tokio::test(start_paused = true)]
async fn a_command_never_loads_under_running_clients() {
    let work = restore(true, Some(false));
    let scene = Scene::restore(ShopOptions::files("command"), work).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "cannot run on"), "{:#?}", op.journal);
    assert!(!exists(&scene.shop, "skep-job-"));
    assert_eq!(scene.check("under clients").await, State::Failed);
}
