//! S10, S17: the safety copy, and room.

use std::time::Duration;

use skep::operation::desk;
use skep::operation::drill::scratch_name;
use skep::operation::record::{State, Work};
use skep_runner::Task;
use skep_tests::saga::{Scene, connect};
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions, USER};

use super::{
    app_runs, beside, driven, exists, failed_with, live, remarks, restore, spec, step, with_settings,
};

/// Every attempt of the safety backup dies.
fn no_safety_backup(shop: &Shop) {
    for _ in 0..3 {
        let safety = |task: &Task| matches!(task, Task::PgDump(dump) if dump.dir.ends_with('s'));
        shop.sim.faults().kill_job(1, move |ticket| safety(&ticket.task));
    }
}

#[tokio::test(start_paused = true)]
async fn s10_nothing_is_replaced_in_place_without_a_safety_backup() {
    let scene = Scene::restore(ShopOptions::default(), restore(true, None)).await;
    no_safety_backup(&scene.shop);
    let op = driven(&scene).await;
    assert_eq!(scene.check("s10 in place").await, State::RolledBack);
    assert_eq!(step(&op, "replace"), None, "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn s10_in_place_nothing_that_users_write_is_missing_from_the_safety_backup() {
    let scene = Scene::restore(ShopOptions::default(), restore(true, None)).await;
    let env = scene.driver("driver").await;
    let mut looks = 0;
    scene
        .drive_watched(&env, |shop| {
            if exists(shop, "-safety-dump-") {
                looks += 1;
                // The application may be too broken to have a task; what is asked for tells.
                let image = spec(shop, "shop_app")["TaskTemplate"]["ContainerSpec"]["Image"].to_string();
                let stopped = !app_runs(shop) && !image.contains("shop-app:");
                assert!(stopped, "users write while what would be put back is taken: {image}");
            }
        })
        .await;
    assert!(looks > 0, "there was no safety backup");
    assert_eq!(scene.check("s10 after the stop").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s10_beside_the_old_database_is_the_safety_copy() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    no_safety_backup(&scene.shop);
    let op = driven(&scene).await;
    assert_eq!(scene.check("s10 beside").await, State::Succeeded);
    assert!(remarks(&op, "no safety backup"), "{:?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s10_where_the_live_database_is_gone_only_a_restore_beside_goes_on() {
    for in_place in [true, false] {
        let (shop, wanted) = Scene::broken(ShopOptions::default()).await;
        let data = shop.data.clone();
        let scene = Scene::ask(shop, restore(in_place, None)).await;
        data.with(|world| world.servers.get_mut("shop_db").unwrap().databases.remove(DATABASE));
        let op = driven(&scene).await;
        if in_place {
            assert!(failed_with(&op, "restore beside instead"), "{:#?}", op.journal);
            assert_eq!(step(&op, "stop"), None);
        } else {
            assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
            assert_eq!(live(&scene.shop), wanted);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn s10_a_restore_in_place_that_takes_too_long_is_taken_back_however_long_it_took() {
    let scene = Scene::restore(ShopOptions::default(), restore(true, None)).await;
    let limit = Duration::from_secs(20);
    let env = with_settings(scene.driver("driver").await, |s| s.job_deadline = limit);
    let pace = |seconds| scene.shop.data.with(|w| w.pace.load = Duration::from_secs(seconds));
    pace(15);
    scene
        .drive_watched(&env, |shop| {
            if exists(shop, "-replace-undo-") {
                shop.data.with(|w| w.pace.load = Duration::from_secs(1));
            }
        })
        .await;
    assert_eq!(scene.check("s10 slow").await, State::RolledBack);
}

#[tokio::test(start_paused = true)]
async fn s10_a_person_who_retries_a_stuck_undo_gets_the_old_data_back() {
    let scene = Scene::restore(ShopOptions::default(), restore(true, None)).await;
    let before = live(&scene.shop);
    let env = scene.driver("driver").await;
    let flip = |shop: &Shop| {
        shop.data.with(|world| {
            for dir in world.store.backups() {
                world.store.corrupt(&dir, "shop.dump");
            }
        });
    };
    let mut damaged = false;
    scene
        .drive_watched(&env, |shop| {
            if !damaged && shop.data.database("shop_db", DATABASE).is_none() {
                flip(shop);
                damaged = true;
            }
        })
        .await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Stuck, "{:#?}", op.journal);
    // The store is mended.
    flip(&scene.shop);
    let engine = connect(&scene.shop, "person").await;
    desk::retry(&engine, &scene.op, scene.shop.sim.now()).await.unwrap();
    driven(&scene).await;
    assert_eq!(scene.check("s10 retried").await, State::RolledBack);
    assert_eq!(live(&scene.shop), before);
}

#[tokio::test(start_paused = true)]
async fn s17_without_room_a_restore_is_refused_before_anything_is_made() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    // The model's write-ahead log may grow to 1 GiB.
    scene.shop.data.with(|world| world.room = ((1 << 30) + (1 << 20), 100 << 30));
    let op = driven(&scene).await;
    assert_eq!(scene.check("s17").await, State::Failed);
    assert!(failed_with(&op, "no room"), "{:#?}", op.journal);
    assert_eq!((step(&op, "safety"), step(&op, "beside")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn s17_a_second_restore_drops_what_the_first_kept() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    driven(&scene).await;
    let kept = |shop: &Shop| shop.data.databases("shop_db").iter().filter(|n| n.ends_with("_old")).count();
    assert_eq!((scene.check("s17 first").await, kept(&scene.shop)), (State::Succeeded, 1));
    let wanted = live(&scene.shop);
    scene.shop.data.drop_table("shop_db", DATABASE, "users");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let again = Scene::ask(scene.shop, beside()).await.wanting(wanted);
    driven(&again).await;
    assert_eq!((again.check("s17 second").await, kept(&again.shop)), (State::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn s17_room_is_needed_also_for_a_database_that_is_gone() {
    let (shop, _) = Scene::broken(ShopOptions::default()).await;
    let data = shop.data.clone();
    let scene = Scene::ask(shop, beside()).await;
    data.with(|world| {
        world.servers.get_mut("shop_db").unwrap().databases.remove(DATABASE);
        // The floor, and less than the eight megabytes of the backup's database above it.
        world.room = ((2 << 30) + (4 << 20), 10 << 30);
    });
    let op = driven(&scene).await;
    assert!(failed_with(&op, "no room"), "{:#?}", op.journal);
    assert_eq!(step(&op, "beside"), None);
}

/// The least that must stay free, and half of what the database takes.
const TIGHT: (u64, u64) = ((2 << 30) + (5 << 20), 10 << 30);

#[tokio::test(start_paused = true)]
async fn s17_what_an_earlier_restore_kept_counts_as_free() {
    let first = Scene::restore(ShopOptions::default(), beside()).await;
    assert_eq!(driven(&first).await.journal.state, State::Succeeded);
    first.shop.data.with(|world| world.room = TIGHT);
    let again = Scene::ask(first.shop, beside()).await;
    let op = driven(&again).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn s17_what_a_drill_left_counts_as_free_where_it_is_dropped() {
    for (work, is_dropped) in
        [(beside(), true), (Work::Drill { backup: None }, true), (restore(true, None), false)]
    {
        let (shop, _) = Scene::broken(ShopOptions::default()).await;
        let mended = shop.data.content_of("shop_db", DATABASE).unwrap();
        shop.data.add_server("shop_db", &scratch_name("shop_db"), USER, &mended);
        shop.data.with(|world| world.room = TIGHT);
        let scene = Scene::ask(shop, work.clone()).await;
        let op = driven(&scene).await;
        if is_dropped {
            assert_eq!(op.journal.state, State::Succeeded, "{work:?}: {:#?}", op.journal);
            assert!(!scene.shop.data.databases("shop_db").contains(&scratch_name("shop_db")), "{work:?}");
        } else {
            assert!(failed_with(&op, "no room"), "in place nothing is dropped: {:#?}", op.journal);
        }
    }
}
