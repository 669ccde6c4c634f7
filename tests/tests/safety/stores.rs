//! S9, S10, S16: backups that go through the staging volume: S3, encryption, copies.

use std::time::Duration;

use skep::operation::record::{Operation, State, StepState, Work};
use skep_runner::Task;
use skep_runner::manifest::MANIFEST;
use skep_runner::task::StoreTask;
use skep_tests::saga::{CLOUD_SHELF, Scene};
use skep_tests::sim::postgres::Server;
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};

use super::{
    beside, catalogue, driven, failed_with, live, remarks, restore, step, with_labels, with_settings,
};

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const NAS: &str = "nas";

/// Encrypted to a bucket.
fn encrypted() -> ShopOptions {
    with_labels(&[("skep.backup.store", "cloud"), ("skep.backup.encrypt", RECIPIENT)], &[])
}

/// Encrypted to a bucket, of data that is no PostgreSQL's.
fn encrypted_files(word: &'static str) -> ShopOptions {
    let mut options = ShopOptions::files(word);
    for (key, value) in [("skep.backup.store", "cloud"), ("skep.backup.encrypt", RECIPIENT)] {
        options.db_labels.push((key.to_owned(), value.to_owned()));
    }
    options
}

/// To a bucket, with a copy in a second store.
fn copied() -> ShopOptions {
    with_labels(&[("skep.backup.store", "cloud"), ("skep.backup.copies", NAS)], &[])
}

fn loads(shop: &Shop) -> usize {
    shop.data.with(|world| world.tasks.iter().filter(|t| matches!(t, Task::CommandLoad(_))).count())
}

async fn later(shop: Shop) -> Shop {
    tokio::time::sleep(Duration::from_secs(5)).await;
    shop
}

fn dirs(shop: &Shop, store: &str) -> Vec<String> {
    shop.data
        .with(|world| world.others.get(store).map(|s| s.dirs.keys().cloned().collect()).unwrap_or_default())
}

fn break_store(shop: &Shop, store: &str) {
    shop.data.with(|world| world.broken.insert(store.to_owned()));
}

fn mend_store(shop: &Shop, store: &str) {
    shop.data.with(|world| world.broken.remove(store));
}

/// Drives by a Skep that has no identity.
async fn without_identity(scene: &Scene) -> Operation {
    let env = with_settings(scene.driver("driver").await, |settings| settings.identity = None);
    scene.drive(&env).await;
    scene.operation().await
}

#[tokio::test(start_paused = true)]
async fn s16_what_is_encrypted_is_nowhere_in_the_clear_once_the_backup_has_ended() {
    let shop = Scene::back_up(Shop::start(encrypted()).await).await;
    let plain = serde_json::to_vec(&live(&shop)).unwrap();
    let [backup] = catalogue(&shop).await.try_into().unwrap();
    assert!(backup.entry.inner.as_ref().is_some_and(|i| i.encrypted));
    shop.data.with(|world| {
        let all = std::iter::once(&world.store).chain(world.others.values());
        let files = all.flat_map(|s| s.dirs.values()).flat_map(|dir| dir.iter());
        let found: Vec<&String> = files.filter(|(_, bytes)| **bytes == plain).map(|(name, _)| name).collect();
        assert_eq!(found, [] as [&String; 0]);
        assert_eq!(world.staged(), [] as [String; 0]);
    });
    assert_eq!(dirs(&shop, CLOUD_SHELF), [backup.entry.dir]);
}

#[tokio::test(start_paused = true)]
async fn s16_skep_backs_up_without_an_identity_and_says_what_it_cannot_do() {
    let scene = Scene::backup(encrypted()).await;
    let op = without_identity(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let shop = later(scene.shop).await;
    for work in [beside(), Work::Drill { backup: None }, restore(true, None)] {
        let scene = Scene::ask(Shop::start(encrypted()).await, Work::Backup).await;
        without_identity(&scene).await;
        let scene = Scene::ask(later(scene.shop).await, work).await;
        let op = without_identity(&scene).await;
        assert!(failed_with(&op, "SKEP_AGE_IDENTITY"), "{:#?}", op.journal);
        scene.check("no identity").await;
        assert!(catalogue(&scene.shop).await.iter().all(|b| b.drill_failed.is_none() && b.spoilt.is_none()));
    }
    // That it is what was written can be told all the same.
    let scene = Scene::ask(shop, Work::Verify { backup: None }).await;
    let op = without_identity(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_does_not_answer_fails_the_backup_clearly_and_touches_no_earlier_one() {
    let shop = later(Scene::back_up(Shop::start(encrypted()).await).await).await;
    let before = dirs(&shop, CLOUD_SHELF);
    let wanted = live(&shop);
    break_store(&shop, CLOUD_SHELF);
    let scene = Scene::ask(shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "did not reach the store `cloud`"), "{:#?}", op.journal);
    mend_store(&scene.shop, CLOUD_SHELF);
    assert_eq!(dirs(&scene.shop, CLOUD_SHELF), before);
    scene.check("the bucket is away").await;
    scene.shop.data.drop_table("shop_db", DATABASE, "users");
    let scene = Scene::ask(scene.shop, beside()).await.wanting(wanted);
    driven(&scene).await;
    assert_eq!(scene.check("the earlier one").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s16_a_bucket_that_is_away_spoils_and_disproves_nothing() {
    let shop = later(Scene::back_up(Shop::start(encrypted()).await).await).await;
    break_store(&shop, CLOUD_SHELF);
    let scene = Scene::ask(shop, Work::Verify { backup: None }).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "1 of 1 not read"), "{:#?}", op.journal);
    let scene = Scene::ask(scene.shop, Work::Drill { backup: None }).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "was not proved"), "{:#?}", op.journal);
    let known = catalogue(&scene.shop).await;
    assert!(known.iter().all(|b| b.spoilt.is_none() && b.drill_failed.is_none() && b.verified.is_some()));
}

#[tokio::test(start_paused = true)]
async fn s9_one_flipped_bit_in_the_bucket_is_found_by_verification_and_the_older_backup_is_used() {
    let shop = later(Scene::back_up(Shop::start(encrypted()).await).await).await;
    let wanted = live(&shop);
    let shop = later(Scene::back_up(shop).await).await;
    shop.data.with(|world| {
        let cloud = world.others.get_mut(CLOUD_SHELF).unwrap();
        let newest = cloud.backups().pop().unwrap();
        cloud.corrupt(&newest, "shop.dump.age");
    });
    shop.data.drop_table("shop_db", DATABASE, "users");
    let scene = Scene::ask(shop, beside()).await.wanting(wanted);
    let op = driven(&scene).await;
    assert_eq!(scene.check("a flipped bit").await, State::Succeeded);
    assert!(remarks(&op, "cannot be used"), "{:?}", op.journal.remarks);
    let scene = Scene::ask(scene.shop, Work::Verify { backup: None }).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "spoilt"), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_fails_no_backup_and_the_next_one_makes_it() {
    let shop = Shop::start(copied()).await;
    break_store(&shop, NAS);
    let scene = Scene::ask(shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(remarks(&op, "has no copy in the store `nas`"), "{:?}", op.journal.remarks);
    mend_store(&scene.shop, NAS);
    let shop = later(Scene::back_up(later(scene.shop).await).await).await;
    let known = catalogue(&shop).await;
    assert!(known.iter().all(|b| b.copies == [NAS]), "{known:#?}");
    assert_eq!(dirs(&shop, NAS), dirs(&shop, CLOUD_SHELF));
}

#[tokio::test(start_paused = true)]
async fn s9_a_copy_is_used_where_the_first_store_is_away_or_what_it_has_is_spoilt() {
    for is_away in [true, false] {
        let shop = later(Scene::back_up(Shop::start(copied()).await).await).await;
        let wanted = live(&shop);
        if is_away {
            break_store(&shop, CLOUD_SHELF);
        } else {
            shop.data.with(|world| {
                let cloud = world.others.get_mut(CLOUD_SHELF).unwrap();
                let newest = cloud.backups().pop().unwrap();
                cloud.corrupt(&newest, MANIFEST);
            });
        }
        shop.data.drop_table("shop_db", DATABASE, "users");
        let scene = Scene::ask(shop, beside()).await.wanting(wanted);
        let op = driven(&scene).await;
        assert_eq!(op.journal.state, State::Succeeded, "{is_away}: {:#?}", op.journal);
        assert!(remarks(&op, "was read from its copy in `nas`"), "{is_away}: {:?}", op.journal.remarks);
    }
}

#[tokio::test(start_paused = true)]
async fn retention_removes_a_backup_and_its_copy() {
    let mut options = copied();
    options.db_labels.push(("skep.backup.keep".to_owned(), "1 last".to_owned()));
    let shop = later(Scene::back_up(Shop::start(options).await).await).await;
    let shop = Scene::back_up(shop).await;
    let [only] = catalogue(&shop).await.try_into().unwrap();
    assert_eq!(dirs(&shop, NAS), std::slice::from_ref(&only.entry.dir));
    assert_eq!(dirs(&shop, CLOUD_SHELF), [only.entry.dir]);
}

#[tokio::test(start_paused = true)]
async fn s10_in_place_without_an_identity_there_is_no_way_back_and_nothing_is_touched() {
    let scene = Scene::backup(with_labels(&[], &[])).await;
    driven(&scene).await;
    let labels = [("skep.backup.store", "cloud"), ("skep.backup.encrypt", RECIPIENT)];
    super::update(&scene.shop, "shop_db", |spec| {
        for (key, value) in labels {
            spec["Labels"][key] = value.into();
        }
    })
    .await;
    let scene = Scene::ask(later(scene.shop).await, restore(true, None)).await;
    let op = without_identity(&scene).await;
    assert!(failed_with(&op, "the safety backup is the only way back"), "{:#?}", op.journal);
    scene.check("no way back").await;
}

#[tokio::test(start_paused = true)]
async fn s16_a_drill_fetches_what_it_proves_whatever_the_data_is() {
    for options in [encrypted(), encrypted_files("mariadb"), encrypted_files("volume")] {
        let what = options.files;
        let scene = Scene::drill(options).await;
        scene.shop.data.with(|world| world.tasks.clear());
        let op = driven(&scene).await;
        assert_eq!(
            scene.check("a drill of what is in a bucket").await,
            State::Succeeded,
            "{:#?}",
            op.journal
        );
        let [backup] = catalogue(&scene.shop).await.try_into().unwrap();
        assert!(backup.proved.is_some() && backup.drill_failed.is_none(), "{what:?}: {backup:#?}");
        let fetched = |t: &Task| matches!(t, Task::Store(StoreTask::Fetch(_)));
        assert!(scene.shop.data.with(|world| world.tasks.iter().any(fetched)), "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn s16_what_the_server_lacks_for_a_fetched_backup_is_not_noted_on_it() {
    let of_database = Shop::start(encrypted()).await;
    let server = |shop: &Shop, change: fn(&mut Server)| {
        shop.data.with(|world| change(world.servers.get_mut("shop_db").unwrap()));
    };
    server(&of_database, |server| {
        server.roles.push("reporting".to_owned());
        server.databases.get_mut(DATABASE).unwrap().properties.roles.push("reporting".to_owned());
    });
    let of_database = Scene::back_up(of_database).await;
    server(&of_database, |server| server.roles.retain(|role| role != "reporting"));
    let of_files = Scene::back_up(Shop::start(encrypted_files("mariadb")).await).await;
    of_files.data.with(|world| world.files.get_mut("shop_db").unwrap().version = [10, 6, 20]);
    for (shop, why) in [(of_database, "role `reporting` does not exist"), (of_files, "the server is older")] {
        let scene = Scene::ask(later(shop).await, Work::Drill { backup: None }).await;
        let op = driven(&scene).await;
        assert!(failed_with(&op, "was not proved") && failed_with(&op, why), "{:#?}", op.journal);
        assert_eq!(scene.check(why).await, State::Failed);
        let [backup] = catalogue(&scene.shop).await.try_into().unwrap();
        assert_eq!((backup.drill_failed, backup.proved), (None, None));
        // For a restore it stands against it all the same.
        let scene = Scene::ask(later(scene.shop).await, beside()).await;
        assert!(failed_with(&driven(&scene).await, why));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_command_dumped_is_shipped_and_fetched_before_its_load_command_runs() {
    let scene = Scene::restore(encrypted_files("command"), restore(true, None)).await;
    let [backup] = catalogue(&scene.shop).await.try_into().unwrap();
    assert!(backup.entry.inner.as_ref().is_some_and(|i| i.encrypted));
    assert_eq!(dirs(&scene.shop, CLOUD_SHELF), [backup.entry.dir]);
    let op = driven(&scene).await;
    assert_eq!(scene.check("a command from a bucket").await, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(loads(&scene.shop), 1);
    let stored = catalogue(&scene.shop).await;
    assert!(stored.iter().all(|b| b.entry.inner.is_some()), "the safety backup is in the clear: {stored:#?}");
}

#[tokio::test(start_paused = true)]
async fn s10_the_safety_backup_of_a_command_comes_back_from_the_bucket() {
    let (shop, _) = Scene::broken(encrypted_files("command")).await;
    let before = shop.data.with(|world| world.files["shop_db"].live.clone());
    // Nobody ever answers so: not before, and not after.
    super::update(&shop, "shop_db", |spec| {
        spec["Labels"]["skep.check.gone.http"] = "http://:8080/".into();
        spec["Labels"]["skep.check.gone.status"] = "204".into();
    })
    .await;
    let scene = Scene::ask(shop, restore(true, None)).await;
    let op = driven(&scene).await;
    assert_eq!(step(&op, "replace"), Some(StepState::Undone), "{:#?}", op.journal);
    assert_eq!(scene.check("back by a command").await, State::RolledBack);
    assert_eq!(scene.shop.data.with(|world| world.files["shop_db"].live.clone()), before);
    assert_eq!(loads(&scene.shop), 2);
}

#[tokio::test(start_paused = true)]
async fn s10_without_an_identity_no_command_loads_and_no_client_stops() {
    let shop = later(Scene::back_up(Shop::start(encrypted_files("command")).await).await).await;
    let scene = Scene::ask(shop, restore(true, None)).await;
    let op = without_identity(&scene).await;
    assert!(failed_with(&op, "the safety backup is the only way back"), "{:#?}", op.journal);
    assert_eq!((step(&op, "stop"), loads(&scene.shop)), (None, 0));
    scene.check("no way back by a command").await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_point_ships_the_data_of_services_whose_labels_want_that() {
    let scene = Scene::point(encrypted()).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("a point to a bucket").await, State::Succeeded, "{:#?}", op.journal);
    let backups = catalogue(&scene.shop).await;
    let inner = |service: &str| {
        let backup = backups.iter().find(|b| b.entry.service == service).unwrap();
        backup.entry.inner.as_ref().map(|inner| inner.encrypted)
    };
    assert_eq!((backups.len(), inner("shop_db"), inner("shop_audit")), (2, Some(true), None));
}

/// Asks for what a store holds, after the Swarm was lost.
async fn import_from(shop: Shop, store: &str) -> Scene {
    Scene::forget_catalogue(&shop).await;
    let work =
        Work::Import { store: store.to_owned(), from: None, quick: false, layout: None, dry_run: false };
    Scene::ask(shop, work).await
}

#[tokio::test(start_paused = true)]
async fn a_lost_catalogue_is_rebuilt_from_a_bucket_or_from_the_copies_and_what_is_encrypted_restores() {
    for store in ["cloud", NAS] {
        let labels =
            [("skep.backup.store", "cloud"), ("skep.backup.encrypt", RECIPIENT), ("skep.backup.copies", NAS)];
        let shop = later(Scene::back_up(Shop::start(with_labels(&labels, &[])).await).await).await;
        let wanted = live(&shop);
        let [before] = catalogue(&shop).await.try_into().unwrap();
        let scene = import_from(shop, store).await;
        // No identity is needed to take it in.
        let op = without_identity(&scene).await;
        assert_eq!(op.journal.state, State::Succeeded, "{store}: {:#?}", op.journal);
        let [backup] = catalogue(&scene.shop).await.try_into().unwrap();
        assert_eq!(backup.entry.inner, before.entry.inner);
        assert_eq!(backup.entry.manifest_sha256, before.entry.manifest_sha256);
        assert_eq!((backup.entry.size, backup.entry.store.as_str()), (before.entry.size, store));

        scene.shop.data.drop_table("shop_db", DATABASE, "users");
        let scene = Scene::ask(later(scene.shop).await, beside()).await.wanting(wanted);
        driven(&scene).await;
        assert_eq!(scene.check("restored from what was imported").await, State::Succeeded, "{store}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_spoilt_in_a_bucket_and_what_a_bucket_does_not_tell_is_not_taken_in() {
    let shop = later(Scene::back_up(Shop::start(encrypted()).await).await).await;
    let [backup] = catalogue(&shop).await.try_into().unwrap();
    let file = shop.data.with(|world| {
        let files = &world.others[CLOUD_SHELF].dirs[&backup.entry.dir];
        files.keys().find(|file| *file != MANIFEST).unwrap().clone()
    });
    shop.data.with(|world| world.others.get_mut(CLOUD_SHELF).unwrap().corrupt(&backup.entry.dir, &file));
    let scene = import_from(shop, "cloud").await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "checksum"), "{:#?}", op.journal);
    assert_eq!(catalogue(&scene.shop).await, []);

    break_store(&scene.shop, CLOUD_SHELF);
    let scene = import_from(later(scene.shop).await, "cloud").await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "the store cannot be listed"), "{:#?}", op.journal);
    assert_eq!(catalogue(&scene.shop).await, []);
}
