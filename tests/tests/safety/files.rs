//! S10, S12, S17, S18 where the data is a directory.

use std::time::Duration;

use serde_json::json;
use skep::operation::record::{State, StepState};
use skep_runner::Task;
use skep_runner::task::SideState;
use skep_tests::saga::Scene;
use skep_tests::sim::postgres::{Crashing, Files};
use skep_tests::sim::shop::{FILES_IMAGE, Shop, ShopOptions};

use super::{beside, driven, exists, failed_with, once, remarks, restore, spec, step, update};

fn files(shop: &Shop) -> Files {
    shop.data.with(|world| world.files["shop_db"].clone())
}

fn sides(shop: &Shop) -> Vec<SideState> {
    files(shop).sides.values().map(|side| side.state).collect()
}

async fn broken() -> Scene {
    Scene::restore(ShopOptions::files("mariadb"), beside()).await
}

/// Makes each stretch of a move take this long, once the move is near.
async fn slow_move(scene: &Scene, stretch: Duration) {
    once(&scene.shop, "the data service to stop", |shop| shop.sim.containers("shop_db").is_empty()).await;
    scene.shop.data.with(|world| world.pace.short = stretch);
    once(&scene.shop, "half of the files to be moved", |shop| files(shop).half).await;
    scene.shop.data.with(|world| world.pace.short = Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn s18_files_are_exchanged_only_while_every_task_of_the_data_service_has_ended() {
    let scene = broken().await;
    let before = files(&scene.shop).live;
    let env = scene.driver("driver").await;
    let mut seen_half = false;
    let watched = scene.drive_watched(&env, |shop| {
        let now = files(shop);
        seen_half |= now.half;
        assert!(!now.half || shop.sim.containers("shop_db").is_empty(), "it runs on half of its files");
    });
    watched.await;
    assert!(seen_half, "the move was never looked at");
    assert_eq!(scene.check("s18").await, State::Succeeded);
    let after = files(&scene.shop);
    let kept: Vec<_> = after.sides.values().collect();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].state, &kept[0].old), (SideState::Forward, &before), "what was live is kept whole");
    let op = scene.operation().await;
    assert!(remarks(&op, "to go back by hand"), "{:?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s18_what_fails_its_checks_once_it_is_live_is_moved_back() {
    let (shop, _) = Scene::broken(ShopOptions::files("mariadb")).await;
    let before = files(&shop).live;
    // Nobody ever answers so: not before, and not after.
    update(&shop, "shop_db", |s| {
        s["Labels"]["skep.check.gone.http"] = json!("http://:8080/");
        s["Labels"]["skep.check.gone.status"] = json!("204");
    })
    .await;
    let scene = Scene::ask(shop, beside()).await;
    let op = driven(&scene).await;
    assert_eq!(step(&op, "serve"), Some(StepState::Undone), "{:#?}", op.journal);
    assert_eq!(scene.check("s18 back").await, State::RolledBack);
    assert_eq!(files(&scene.shop).live, before);
}

#[tokio::test(start_paused = true)]
async fn s9_a_whole_backup_of_broken_files_is_passed_over_and_leaves_nothing() {
    let (shop, wanted) = Scene::broken(ShopOptions::files("mariadb")).await;
    let shop = Scene::back_up(shop).await;
    let scene = Scene::ask(shop, beside()).await.wanting(wanted);
    let op = driven(&scene).await;
    assert!(remarks(&op, "was not used: check `users`"), "{:?}", op.journal.remarks);
    assert_eq!(scene.check("s9 files").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s10_without_a_safety_backup_the_old_files_are_the_way_back() {
    let scene = broken().await;
    let before = files(&scene.shop).live;
    for _ in 0..3 {
        let safety = |task: &Task| matches!(task, Task::DirDump(dump) if dump.dir.ends_with('s'));
        scene.shop.sim.faults().kill_job(1, move |ticket| safety(&ticket.task));
    }
    let op = driven(&scene).await;
    assert!(remarks(&op, "no safety backup"), "{:?}", op.journal.remarks);
    assert_eq!(scene.check("s10 files").await, State::Succeeded);
    assert!(files(&scene.shop).sides.values().any(|side| side.old == before), "the old files are gone");
}

#[tokio::test(start_paused = true)]
async fn s12_whoever_starts_the_data_service_while_files_are_moved_makes_the_move_go_back() {
    let scene = broken().await;
    let before = files(&scene.shop).live;
    let env = scene.driver("driver").await;
    let meddle = async {
        slow_move(&scene, Duration::from_secs(20)).await;
        update(&scene.shop, "shop_db", |s| s["Mode"]["Replicated"]["Replicas"] = json!(1)).await;
    };
    tokio::join!(scene.drive(&env), meddle);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    let moved = op.journal.step("move").unwrap();
    assert!(moved.reason.contains("somebody changed shop_db"), "{moved:?}");
    assert_eq!((files(&scene.shop).live, files(&scene.shop).half), (before, false));
    assert_eq!(sides(&scene.shop), []);
}

#[tokio::test(start_paused = true)]
async fn s12_a_deploy_of_the_stopped_data_service_is_what_it_comes_back_as() {
    let mut scene = broken().await;
    let env = scene.driver("driver").await;
    let meddle = async {
        once(&scene.shop, "the data service to stop", |shop| shop.sim.containers("shop_db").is_empty()).await;
        update(&scene.shop, "shop_db", |s| {
            s["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["TUNED=1"]);
            s["Mode"]["Replicated"]["Replicas"] = json!(1);
        })
        .await;
        let mut deployed = spec(&scene.shop, "shop_db");
        deployed["Mode"]["Replicated"]["Replicas"] = json!(1);
        deployed
    };
    let (_, deployed) = tokio::join!(scene.drive(&env), meddle);
    scene.meant("shop_db", deployed);
    let state = scene.check("s12 deployed").await;
    assert!(matches!(state, State::Succeeded | State::RolledBack), "{state:?}");
    let op = scene.operation().await;
    assert!(remarks(&op, "what they deployed is kept"), "{:?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s12_a_deploy_that_takes_the_volume_away_makes_the_restore_go_back() {
    let mut scene = broken().await;
    let env = scene.driver("driver").await;
    let other = json!([{ "Type": "volume", "Source": "other", "Target": "/var/lib/mysql" }]);
    let meddle = async {
        let is_back = |shop: &Shop| !shop.sim.containers("shop_db").is_empty();
        once(&scene.shop, "the files to be moved", |shop| sides(shop) == [SideState::Forward]).await;
        once(&scene.shop, "the data service to start on them", is_back).await;
        update(&scene.shop, "shop_db", |s| {
            s["TaskTemplate"]["ContainerSpec"]["Mounts"] = other.clone();
        })
        .await;
        let mut deployed = spec(&scene.shop, "shop_db");
        deployed["Mode"]["Replicated"]["Replicas"] = json!(1);
        deployed
    };
    let (_, deployed) = tokio::join!(scene.drive(&env), meddle);
    scene.meant("shop_db", deployed);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn s17_a_second_restore_removes_what_the_first_kept() {
    let first = broken().await;
    assert_eq!(driven(&first).await.journal.state, State::Succeeded);
    assert_eq!(sides(&first.shop), [SideState::Forward]);
    let kept = files(&first.shop).side_names();
    let second = Scene::ask(first.shop, beside()).await;
    assert_eq!(driven(&second).await.journal.state, State::Succeeded);
    assert_eq!(second.check("s17 files").await, State::Succeeded);
    assert_ne!(files(&second.shop).side_names(), kept);
}

#[tokio::test(start_paused = true)]
async fn s17_too_little_room_beside_the_files_refuses_before_anything_is_touched() {
    let (shop, _) = Scene::broken(ShopOptions::files("mariadb")).await;
    shop.data.with(|world| world.room = (10 << 20, 100 << 20));
    let scene = Scene::ask(shop, beside()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "too little room"), "{:#?}", op.journal);
    assert_eq!(step(&op, "safety"), None);
    assert_eq!(scene.check("s17 room").await, State::Failed);
}

#[tokio::test(start_paused = true)]
async fn files_are_never_replaced_in_place_nor_under_running_clients() {
    for (in_place, quiesce, why) in
        [(true, None, "in place is for PostgreSQL"), (false, Some(false), "cannot run on")]
    {
        let scene = Scene::restore(ShopOptions::files("mariadb"), restore(in_place, quiesce)).await;
        let op = driven(&scene).await;
        assert!(failed_with(&op, why), "{:#?}", op.journal);
        assert!(!exists(&scene.shop, "skep-job-"));
        assert_eq!(scene.check(why).await, State::Failed);
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_restored_also_when_their_server_is_down() {
    let (shop, wanted) = Scene::broken(ShopOptions::files("mariadb")).await;
    // It comes up again only once its files are mended.
    shop.sim.workload(FILES_IMAGE, Crashing(shop.data.clone(), wanted.clone()));
    update(&shop, "shop_db", |s| s["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let scene = Scene::ask(shop, beside()).await.wanting(wanted.clone());
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(files(&scene.shop).live, wanted);
}

#[tokio::test(start_paused = true)]
async fn a_check_of_the_data_service_itself_counts_as_one() {
    for has_check in [true, false] {
        let (shop, _) = Scene::broken(ShopOptions::files("mariadb")).await;
        for service in ["shop_app", "shop_db"] {
            update(&shop, service, |s| {
                let labels = s["Labels"].as_object_mut().unwrap();
                labels.retain(|key, _| !key.starts_with("skep.check."));
                if has_check && service == "shop_db" {
                    // What is there while the data service starts.
                    s["Labels"]["skep.check.page.http"] = json!("http://shop_app:8080/");
                    s["Labels"]["skep.check.page.status"] = json!("503");
                }
            })
            .await;
        }
        let op = driven(&Scene::ask(shop, beside()).await).await;
        assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
        assert_eq!(remarks(&op, "no check is defined"), !has_check, "{:?}", op.journal.remarks);
    }
}
