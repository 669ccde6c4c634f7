//! S16, S17 where the data is a directory: a drill builds beside the live files, and nothing else notices it. And where a
//! running service alone takes the data: it loads into a server of its own job.

use std::time::Duration;

use serde_json::json;
use skep::operation::claim::gave_way;
use skep::operation::desk;
use skep::operation::drill::scratch_side;
use skep::operation::drive;
use skep::operation::record::{Operation, State, Work};
use skep_runner::Task;
use skep_runner::task::SideState;
use skep_tests::saga::{Scene, connect};
use skep_tests::sim::postgres::{Crashing, Files, Side};
use skep_tests::sim::shop::{FILES_IMAGE, Shop, ShopOptions};

use super::drills::{
    DRILL, also, backups, drive_to_rest, driven_until_loading, scratch, with_a_backup_of_broken_data,
};
use super::{beside, driven, failed_with, once, remarks, step, update};

const KINDS: [&str; 2] = ["mariadb", "volume"];
/// What is drilled in a server of the job's own, and where the live one's secret may be.
const ALONE: [(&str, &str); 2] =
    [("rabbitmq", "RABBITMQ_ERLANG_COOKIE"), ("mongodb", "MONGO_INITDB_ROOT_PASSWORD")];

fn files(shop: &Shop) -> Files {
    shop.data.with(|world| world.files["shop_db"].clone())
}

/// A directory that a killed drill has left.
fn leave_scratch(shop: &Shop) {
    shop.data.with(|world| {
        let files = world.files.get_mut("shop_db").unwrap();
        let side = Side::half_loaded(&files.live);
        files.sides.insert(scratch_side("shop_db"), side);
    });
    assert!(scratch(shop));
}

async fn drilled(options: ShopOptions, before: impl FnOnce(&Shop)) -> (Scene, Operation) {
    let scene = Scene::drill(options).await;
    before(&scene.shop);
    let op = driven(&scene).await;
    (scene, op)
}

#[tokio::test(start_paused = true)]
async fn s16_a_drill_of_files_builds_beside_them_and_no_job_of_it_names_anything_live_to_change() {
    for word in KINDS {
        let scene = Scene::drill(ShopOptions::files(word)).await;
        scene.shop.data.with(|world| world.tasks.clear());
        let (before, tasks) = (files(&scene.shop).live, scene.shop.sim.containers("shop_db"));
        let env = scene.driver("driver").await;
        let mut loaded = false;
        scene
            .drive_watched(&env, |shop| {
                loaded |= scratch(shop);
                assert_eq!(files(shop).live, before, "live files were touched");
                let now = shop.sim.containers("shop_db");
                assert!(now.iter().map(|c| &c.task).eq(tasks.iter().map(|c| &c.task)), "it was restarted");
            })
            .await;
        assert!(loaded, "nothing was loaded");
        assert_eq!(scene.check(word).await, State::Succeeded);
        let [backup] = backups(&scene.shop).await.try_into().unwrap();
        assert!(backup.proved.is_some() && backup.restore_seconds.is_some(), "{backup:?}");
        let side = scratch_side("shop_db");
        for task in scene.shop.data.with(|world| world.tasks.clone()) {
            let harmless = match &task {
                Task::DirInspect(_) | Task::DirExamine(_) => true,
                Task::DirLoad(load) => load.side == side,
                Task::DirRemove(remove) => remove.sides.iter().all(|s| *s == side),
                _ => false,
            };
            assert!(harmless, "{task:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s16_a_backup_of_files_that_is_intact_and_does_not_pass_its_checks_is_caught() {
    let shop = with_a_backup_of_broken_data(ShopOptions::files("mariadb")).await;
    let scene = Scene::ask(shop, DRILL).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "failed the drill: check `users`"), "{:#?}", op.journal);
    assert_eq!(scene.check("broken files").await, State::Failed);
    let [good, broken] = backups(&scene.shop).await.try_into().unwrap();
    assert!(broken.drill_failed.is_some_and(|d| d.why.contains("check `users`")) && broken.proved.is_none());
    assert!(good.drill_failed.is_none());
    // So a restore takes the older one at once.
    let restore = Scene::ask(scene.shop, beside()).await;
    let op = driven(&restore).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(op.journal.step("beside").unwrap().out["backup"], good.entry.id.as_str());
}

#[tokio::test(start_paused = true)]
async fn s16_an_altered_artefact_of_files_is_caught_before_anything_is_loaded() {
    for (word, file) in [("mariadb", "all.sql"), ("volume", "data.tar")] {
        let (scene, op) = drilled(ShopOptions::files(word), |shop| {
            shop.data.with(|world| {
                let newest = world.store.backups().into_iter().next_back().unwrap();
                world.store.corrupt(&newest, file);
            });
        })
        .await;
        assert_eq!(scene.check(word).await, State::Failed);
        assert_eq!(step(&op, "load"), None, "{:#?}", op.journal);
        assert!(backups(&scene.shop).await[0].drill_failed.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drill_of_files_gives_way_to_whatever_is_asked_for_meanwhile() {
    for (word, work) in [("mariadb", beside()), ("volume", beside()), ("mariadb", Work::Backup)] {
        let scene = Scene::drill(ShopOptions::files(word)).await;
        let env = driven_until_loading(&scene).await;
        let other = also(&scene.shop, work.clone(), false).await;
        let asked = scene.shop.sim.elapsed();
        let op = drive_to_rest(&scene.shop, &env, &scene.op).await;
        let took = scene.shop.sim.elapsed() - asked;
        assert!(gave_way(&op) && !scratch(&scene.shop), "{word} {work:?}: {:#?}", op.journal);
        assert!(took < Duration::from_secs(15), "it took {took:?}");
        assert!(backups(&scene.shop).await.iter().all(|b| b.proved.is_none()), "nothing was proved");
        let done = drive_to_rest(&scene.shop, &env, &other).await;
        assert_eq!(done.journal.state, State::Succeeded, "{work:?}: {:#?}", done.journal);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_drill_of_files_has_left_the_next_drill_or_restore_removes() {
    for work in [DRILL, beside()] {
        let shop = Scene::back_up(Shop::start(ShopOptions::files("mariadb")).await).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        leave_scratch(&shop);
        let scene = Scene::ask(shop, work.clone()).await;
        driven(&scene).await;
        assert_eq!(scene.check(&format!("{work:?}")).await, State::Succeeded);
        assert!(!scratch(&scene.shop), "{work:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drill_of_files_that_cannot_remove_its_directory_keeps_no_restore_waiting() {
    let scene = Scene::drill(ShopOptions::files("mariadb")).await;
    let env = driven_until_loading(&scene).await;
    for _ in 0..40 {
        scene.shop.sim.faults().kill_job(1, |ticket| matches!(ticket.task, Task::DirRemove(_)));
    }
    let other = also(&scene.shop, beside(), false).await;
    let asked = scene.shop.sim.elapsed();
    let op = drive_to_rest(&scene.shop, &env, &scene.op).await;
    assert!(gave_way(&op) && remarks(&op, "is left for the next drill or restore"), "{:#?}", op.journal);
    let took = scene.shop.sim.elapsed() - asked;
    assert!(took < Duration::from_secs(30), "it took {took:?}");
    desk::cancel(&connect(&scene.shop, "person").await, &other, "somebody").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn s17_a_drill_of_files_reckons_with_what_it_removes_itself_and_with_nothing_else() {
    // 8 MB of data need 1.2 times that and a tenth of the file system.
    let tight = |shop: &Shop| shop.data.with(|world| world.room = (12 << 20, 40 << 20));
    let (scene, op) = drilled(ShopOptions::files("mariadb"), tight).await;
    assert!(failed_with(&op, "too little room"), "{:#?}", op.journal);
    assert_eq!(step(&op, "load"), None);
    assert_eq!(scene.check("no room").await, State::Failed);
    assert_eq!(backups(&scene.shop).await[0].drill_failed, None);
    // What an earlier drill left goes first …
    let (scene, op) = drilled(ShopOptions::files("mariadb"), |shop| {
        tight(shop);
        leave_scratch(shop);
    })
    .await;
    assert_eq!(scene.check("room").await, State::Succeeded, "{:#?}", op.journal);
    // … and what a restore kept stays.
    let restored = Scene::restore(ShopOptions::files("mariadb"), beside()).await;
    assert_eq!(driven(&restored).await.journal.state, State::Succeeded);
    tight(&restored.shop);
    let scene = Scene::ask(restored.shop, DRILL).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "too little room"), "{:#?}", op.journal);
    let kept: Vec<SideState> = files(&scene.shop).sides.values().map(|s| s.state).collect();
    assert_eq!(kept, [SideState::Forward]);
}

#[tokio::test(start_paused = true)]
async fn a_drill_of_files_leaves_what_a_restore_kept() {
    let restored = Scene::restore(ShopOptions::files("mariadb"), beside()).await;
    assert_eq!(driven(&restored).await.journal.state, State::Succeeded);
    let kept = files(&restored.shop).side_names();
    let scene = Scene::ask(restored.shop, DRILL).await;
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
    assert_eq!(files(&scene.shop).side_names(), kept);
}

#[tokio::test(start_paused = true)]
async fn a_drill_of_files_whose_jobs_are_killed_blames_no_backup() {
    let (scene, _) = drilled(ShopOptions::files("mariadb"), |shop| {
        for _ in 0..3 {
            shop.sim.faults().kill_job(1, |ticket| matches!(ticket.task, Task::DirLoad(_)));
        }
    })
    .await;
    assert_eq!(scene.check("killed").await, State::Failed);
    assert_eq!(backups(&scene.shop).await[0].drill_failed, None);
}

#[tokio::test(start_paused = true)]
async fn files_are_drilled_also_when_their_server_is_down() {
    let shop = Scene::back_up(Shop::start(ShopOptions::files("mariadb")).await).await;
    shop.sim.workload(FILES_IMAGE, Crashing(shop.data.clone(), skep_tests::sim::postgres::Content::new()));
    update(&shop, "shop_db", |s| s["TaskTemplate"]["ForceUpdate"] = 1.into()).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let scene = Scene::ask(shop, DRILL).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(backups(&scene.shop).await[0].proved.is_some() && !scratch(&scene.shop));
}

/// Whether a job of a drill loads now.
fn loads(shop: &Shop) -> bool {
    super::exists(shop, "-load-load-1")
}

#[tokio::test(start_paused = true)]
async fn s16_a_drill_in_a_server_of_its_own_reaches_nothing_of_the_live_one_and_needs_nothing_of_it() {
    for (word, secret) in ALONE {
        let shop = Scene::back_up(Shop::start(ShopOptions::files(word)).await).await;
        // A password that every other job of the service gets.
        update(&shop, "shop_db", |s| {
            let env = json!(["MONGO_INITDB_ROOT_USERNAME=root", format!("{secret}=of-the-live-one")]);
            s["TaskTemplate"]["ContainerSpec"]["Env"] = env;
        })
        .await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        shop.data.with(|world| world.tasks.clear());
        let scene = Scene::ask(shop, DRILL).await;
        let before = files(&scene.shop).live;
        let env = scene.driver("driver").await;
        let seen = async {
            once(&scene.shop, "the load", loads).await;
            let job = scene.shop.sim.services().into_iter().find(|n| n.contains("-load-load-1")).unwrap();
            super::spec(&scene.shop, &job)["TaskTemplate"].clone()
        };
        let (_, task) = tokio::join!(scene.drive(&env), seen);
        for nothing in [&task["Networks"], &task["ContainerSpec"]["Secrets"]] {
            assert!(nothing.as_array().is_none_or(Vec::is_empty), "{task:#}");
        }
        let mounts = task["ContainerSpec"]["Mounts"].as_array().unwrap();
        assert_eq!(mounts.iter().map(|m| &m["Target"]).collect::<Vec<_>>(), ["/skep/store"], "{task:#}");
        assert!(!task.to_string().contains("of-the-live-one"), "{task:#}");
        assert_eq!(scene.check(word).await, State::Succeeded);
        assert_eq!(files(&scene.shop).live, before, "the live server was touched");
        for task in scene.shop.data.with(|world| world.tasks.clone()) {
            assert!(matches!(task, Task::CommandExamine(_) | Task::CommandDrill(_)), "{task:?}");
        }
        let [backup] = backups(&scene.shop).await.try_into().unwrap();
        assert!(backup.proved.is_some() && backup.restore_seconds.is_some_and(|s| s > 0.0), "{backup:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn s16_what_a_server_of_its_own_took_otherwise_is_named_and_proves_nothing() {
    for (word, _) in ALONE {
        let (scene, op) = drilled(ShopOptions::files(word), |shop| {
            shop.data.with(|world| world.left_out = vec!["a part was left out".to_owned()]);
        })
        .await;
        assert_eq!(scene.check(word).await, State::Succeeded);
        assert!(remarks(&op, "a part was left out"), "{:#?}", op.journal);
        let [backup] = backups(&scene.shop).await.try_into().unwrap();
        assert!(backup.proved.is_none() && backup.loaded.is_some(), "{backup:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn s16_an_altered_artefact_is_caught_before_a_server_is_begun_for_it() {
    for (word, _) in ALONE {
        let (scene, op) = drilled(ShopOptions::files(word), |shop| {
            shop.data.with(|world| {
                let newest = world.store.backups().into_iter().next_back().unwrap();
                world.store.corrupt(&newest, "data.dump");
            });
        })
        .await;
        assert_eq!(scene.check("altered").await, State::Failed);
        assert_eq!(step(&op, "load"), None, "{:#?}", op.journal);
        assert!(backups(&scene.shop).await[0].drill_failed.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drill_in_a_server_of_its_own_gives_way_and_its_job_ends_at_once() {
    for (word, _) in ALONE {
        let scene = Scene::drill(ShopOptions::files(word)).await;
        scene.shop.data.with(|world| world.pace.load = Duration::from_secs(60));
        let env = scene.driver("driver").await;
        while !loads(&scene.shop) {
            drive::poll(&env, &scene.op).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let other = also(&scene.shop, Work::Backup, false).await;
        let op = drive_to_rest(&scene.shop, &env, &scene.op).await;
        assert!(gave_way(&op) && !loads(&scene.shop), "{:#?}", op.journal);
        assert!(backups(&scene.shop).await.iter().all(|b| b.proved.is_none()), "nothing was proved");
        let done = drive_to_rest(&scene.shop, &env, &other).await;
        assert_eq!(done.journal.state, State::Succeeded, "{:#?}", done.journal);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drill_in_a_server_of_its_own_whose_jobs_are_killed_blames_no_backup() {
    for (word, _) in ALONE {
        let (scene, _) = drilled(ShopOptions::files(word), |shop| {
            for _ in 0..3 {
                shop.sim.faults().kill_job(1, |ticket| matches!(ticket.task, Task::CommandDrill(_)));
            }
        })
        .await;
        assert_eq!(scene.check("killed").await, State::Failed);
        assert_eq!(backups(&scene.shop).await[0].drill_failed, None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_commands_load_is_not_drilled() {
    let (scene, op) = drilled(ShopOptions::files("command"), |_| ()).await;
    assert!(failed_with(&op, "has no drill"), "{:#?}", op.journal);
    assert_eq!(scene.check("command").await, State::Failed);
}
