//! S9, S16: what the catalogue says of stored backups, and what it must not believe.

use std::time::Duration;

use skep::operation::catalogue::Origin;
use skep::operation::record::{Operation, State, Work};
use skep::policy;
use skep_runner::Task;
use skep_tests::saga::{BY_HAND, Driven, Scene, connect, import};
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};

use super::{beside, catalogue, driven, failed_with, live, remarks};

/// Flips a bit of the newest backup's data.
fn damage_newest(shop: &Shop) {
    shop.data.with(|world| {
        let newest = world.store.backups().into_iter().next_back().unwrap();
        world.store.corrupt(&newest, "shop.dump");
    });
}

fn verify() -> Work {
    Work::Verify { backup: None }
}

#[tokio::test(start_paused = true)]
async fn s9_a_spoilt_backup_is_marked_told_and_never_chosen_also_not_by_its_id() {
    let shop = Scene::backed_up_twice(ShopOptions::default()).await;
    damage_newest(&shop);
    let scene = Scene::ask(shop, verify()).await;
    let op = driven(&scene).await;
    // Failed: that is what a mail tells, also of a routine, and what the command line exits with.
    assert_eq!(scene.check("verify").await, State::Failed);
    assert!(failed_with(&op, "1 of 2 spoilt") && failed_with(&op, "checksum"), "{:#?}", op.journal);
    let [good, spoilt] = catalogue(&scene.shop).await.try_into().unwrap();
    assert!(good.spoilt.is_none() && good.verified.unwrap() > good.entry.taken, "{good:?}");
    assert!(spoilt.verified.is_none() && spoilt.spoilt.unwrap().why.contains("checksum"));

    scene.shop.data.drop_table("shop_db", DATABASE, "users");
    let wanted = Scene::ask(scene.shop, beside()).await;
    let env = wanted.driver("restorer").await;
    wanted.drive(&env).await;
    let op = wanted.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(op.journal.step("beside").unwrap().out["backup"], good.entry.id.as_str(), "{op:#?}");
    assert!(!remarks(&op, "cannot be used"), "it was not even tried: {:?}", op.journal.remarks);

    let id = Some(spoilt.entry.id.clone());
    let work = Work::Restore {
        to: None,
        backup: id,
        before: None,
        in_place: None,
        quiesce: None,
        create_roles: false,
    };
    let by_id = Scene::ask(wanted.shop, work).await;
    let op = driven(&by_id).await;
    assert!(failed_with(&op, "is spoilt: "), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn s16_a_backup_that_is_whole_again_is_no_longer_spoilt() {
    let shop = Scene::backed_up_twice(ShopOptions::default()).await;
    damage_newest(&shop);
    let scene = Scene::ask(shop, verify()).await;
    driven(&scene).await;
    // Somebody brings the file back from elsewhere; flipping the bit again does the same.
    damage_newest(&scene.shop);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let again = Scene::ask(scene.shop, verify()).await;
    driven(&again).await;
    assert_eq!(again.check("whole again").await, State::Succeeded);
    assert!(catalogue(&again.shop).await.iter().all(|b| b.spoilt.is_none() && b.verified.is_some()));
}

#[tokio::test(start_paused = true)]
async fn retention_keeps_the_last_good_backup_whatever_is_newer_and_spoilt() {
    let shop = Scene::backed_up_twice(ShopOptions::default()).await;
    damage_newest(&shop);
    let scene = Scene::ask(shop, verify()).await;
    driven(&scene).await;
    let all = catalogue(&scene.shop).await;
    let labels = [("skep.enable", "true"), ("skep.data", "postgres"), ("skep.backup.keep", "1 last")];
    let labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let rules = skep::operation::retention::Rules::of(&policy::parse(&labels).policy).unwrap();
    let verdicts = rules.judge(&all, scene.shop.sim.now());
    let goes: Vec<&str> = verdicts.iter().filter(|v| v.goes()).map(|v| v.backup.entry.id.as_str()).collect();
    assert_eq!(goes, [] as [&str; 0], "the older one is the last good one");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_spoils_nothing() {
    let shop = Scene::backed_up_twice(ShopOptions::default()).await;
    let dirs = shop.data.with(|world| std::mem::take(&mut world.store.dirs));
    let scene = Scene::ask(shop, verify()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "2 of 2 not read"), "{:#?}", op.journal);
    assert!(catalogue(&scene.shop).await.iter().all(|b| b.spoilt.is_none() && b.verified.is_some()));
    // One that is missing beside others is lost.
    let mut dirs = dirs.into_iter();
    scene.shop.data.with(|world| world.store.dirs.extend(dirs.next()));
    let scene = Scene::ask(scene.shop, verify()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "1 of 2 spoilt"), "{:#?}", op.journal);
}

/// Reads of stored backups that run now.
fn reads(shop: &Shop) -> usize {
    shop.sim.services().iter().filter(|name| name.contains("-read-r")).count()
}

#[tokio::test(start_paused = true)]
async fn a_verification_gives_way_to_a_restore_and_goes_on_afterwards() {
    let scene = Scene::verify(ShopOptions::default(), false).await;
    let env = scene.driver("verifier").await;
    while reads(&scene.shop) == 0 {
        skep::operation::drive::poll(&env, &scene.op).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (verification, shop) = (scene.op.clone(), scene.shop);
    let wanted = live(&shop);
    shop.data.drop_table("shop_db", DATABASE, "users");
    let restore = Scene::ask(shop, beside()).await.wanting(wanted);
    // The restore waits for nobody, and once it has begun to read, nothing of the verification reads.
    let beside = restore.driver("restorer").await;
    let verifier = async {
        loop {
            let _busy = skep::operation::drive::poll(&env, &verification).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let began = restore.shop.sim.elapsed();
    let mut both = 0;
    let restored = restore.drive_watched(&beside, |shop| {
        let is_late = shop.sim.elapsed() > began + Duration::from_secs(10);
        both += usize::from(is_late && reads(shop) > 0);
    });
    let driven =
        tokio::select! { driven = restored => driven, () = verifier => unreachable!("it never ends") };
    assert!(matches!(driven, Driven::Rest));
    assert_eq!(both, 0, "the verification went on reading");
    let of = |op: &Operation| op.journal.state;
    let engine = connect(&restore.shop, "looker").await;
    for _ in 0..1000 {
        let op = skep::operation::desk::find(&engine, &verification).await.unwrap();
        if of(&op).is_terminal() {
            assert_eq!(of(&op), State::Succeeded, "{:#?}", op.journal);
            assert_eq!(restore.check("the restore").await, State::Succeeded);
            return;
        }
        let _busy = skep::operation::drive::poll(&env, &verification).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the verification does not go on");
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_for_a_verification() {
    let scene = Scene::verify(ShopOptions::default(), false).await;
    let env = scene.driver("verifier").await;
    while reads(&scene.shop) == 0 {
        skep::operation::drive::poll(&env, &scene.op).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let backup = Scene::ask(scene.shop, Work::Backup).await;
    driven(&backup).await;
    assert_eq!(backup.operation().await.journal.state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_import_never_registers_what_it_has_not_read_and_found_whole() {
    let shop = Scene::backed_up_twice(ShopOptions::default()).await;
    Scene::forget_catalogue(&shop).await;
    damage_newest(&shop);
    let scene = Scene::ask(shop, import()).await;
    let env = scene.driver("importer").await;
    scene.drive(&env).await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(remarks(&op, "not taken in") && remarks(&op, "checksum"), "{:?}", op.journal.remarks);
    let [only] = catalogue(&scene.shop).await.try_into().unwrap();
    assert_eq!(only.entry.origin, Origin::Imported);
    assert!(only.verified.is_some());
    // A person is told that nothing vouches for it.
    assert!(remarks(&op, "only a restore that passes its checks can show"), "{:?}", op.journal.remarks);
}

/// That the checksums of files are right does not show that their engine can read them.
#[tokio::test(start_paused = true)]
async fn an_import_reads_files_as_their_engine_does() {
    for word in ["volume", "rabbitmq", "mongodb"] {
        let shop = Scene::backed_up_twice(ShopOptions::files(word)).await;
        Scene::forget_catalogue(&shop).await;
        let dir = shop.data.with(|world| {
            let dir = world.store.backups().remove(0);
            world.store.misdump(&dir);
            dir
        });
        let scene = Scene::ask(shop, import()).await;
        let op = driven(&scene).await;
        assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
        let taken = catalogue(&scene.shop).await;
        assert_eq!(taken.len(), 1, "{taken:#?}");
        assert_ne!(taken[0].entry.dir, dir);
        assert!(remarks(&op, "not taken in"), "{:#?}", op.journal.remarks);
        // A verification reads in the same way, and finds the other one whole.
        let scene = Scene::ask(scene.shop, Work::Verify { backup: None }).await;
        let op = driven(&scene).await;
        assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    }
}

#[tokio::test(start_paused = true)]
async fn an_import_whose_reading_jobs_die_registers_nothing_unread() {
    let scene = Scene::import(ShopOptions::default()).await;
    for _ in 0..3 {
        scene.shop.sim.faults().kill_job(1, |ticket| matches!(ticket.task, Task::StoreVerify(_)));
    }
    let env = scene.driver("importer").await;
    scene.drive(&env).await;
    assert_eq!(catalogue(&scene.shop).await.len(), 1, "the one whose three attempts died is not taken in");
}

#[tokio::test(start_paused = true)]
async fn an_import_of_another_manifest_under_a_known_id_is_refused_before_anything_is_registered() {
    let shop = Scene::backed_up_twice(ShopOptions::default()).await;
    let engine = connect(&shop, "loss").await;
    let all = catalogue(&shop).await;
    // One is lost; the manifest of the other was exchanged for one that is sound in itself.
    engine.remove_config(&all[0].config).await.unwrap();
    shop.data.with(|world| {
        let files = world.store.dirs.get_mut(&all[1].entry.dir).unwrap();
        files.get_mut("manifest.json").unwrap().push(b' ');
    });
    let scene = Scene::ask(shop, import()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "nothing was imported") && failed_with(&op, &all[1].entry.id), "{op:#?}");
    assert_eq!(catalogue(&scene.shop).await.len(), 1, "nothing was registered");
}

#[tokio::test(start_paused = true)]
async fn an_import_leaves_what_is_registered_as_it_is_and_its_backups_restore() {
    let scene = Scene::import(ShopOptions::default()).await;
    driven(&scene).await;
    assert_eq!(scene.check("the first import").await, State::Succeeded);
    let before = catalogue(&scene.shop).await;
    let again = Scene::ask(scene.shop, import()).await;
    let op = driven(&again).await;
    assert_eq!(op.journal.state, State::Succeeded);
    assert_eq!(catalogue(&again.shop).await, before);
    let wanted = live(&again.shop);
    again.shop.data.drop_table("shop_db", DATABASE, "users");
    let restore = Scene::ask(again.shop, beside()).await.wanting(wanted);
    driven(&restore).await;
    assert_eq!(restore.check("from an imported backup").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_import_takes_the_backups_of_a_service_of_another_name_only_where_that_is_asked_for() {
    let scene = Scene::import(ShopOptions::default()).await;
    let rename = |dir: &str| dir.replace("/shop_db/", "/old_db/");
    scene.shop.data.with(|world| {
        let dirs = std::mem::take(&mut world.store.dirs);
        world.store.dirs = dirs
            .into_iter()
            .map(|(dir, mut files)| {
                let manifest = files.get_mut("manifest.json").unwrap();
                let text = String::from_utf8(manifest.clone()).unwrap();
                *manifest = text.replace("\"shop_db\"", "\"old_db\"").into_bytes();
                (rename(&dir), files)
            })
            .collect();
    });
    let op = driven(&scene).await;
    assert!(failed_with(&op, "holds no backup of shop_db") && failed_with(&op, "old_db"), "{op:#?}");
    let from = Some("old_db".to_owned());
    let work = Work::Import { store: "default".to_owned(), from, quick: true, layout: None, dry_run: false };
    let asked = Scene::ask(scene.shop, work).await;
    driven(&asked).await;
    assert_eq!(asked.check("from the old name").await, State::Succeeded);
    assert!(catalogue(&asked.shop).await.iter().all(|b| b.entry.service == "shop_db"));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_lists_and_registers_nothing() {
    let shop = Scene::backed_up_twice(ShopOptions::default()).await;
    Scene::forget_catalogue(&shop).await;
    let work =
        Work::Import { store: "default".to_owned(), from: None, quick: false, layout: None, dry_run: true };
    let dry = Scene::ask(shop, work).await;
    let op = driven(&dry).await;
    assert_eq!(op.journal.state, State::Succeeded);
    assert_eq!(op.journal.step("scan").unwrap().out["new"].as_array().unwrap().len(), 2);
    assert_eq!(catalogue(&dry.shop).await, []);
}

#[tokio::test(start_paused = true)]
async fn who_cancels_an_import_finds_the_catalogue_as_it_was() {
    let scene = Scene::import(ShopOptions::default()).await;
    let env = scene.driver("importer").await;
    while catalogue(&scene.shop).await.is_empty() {
        skep::operation::drive::poll(&env, &scene.op).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let engine = connect(&scene.shop, "person").await;
    skep::operation::desk::cancel(&engine, &scene.op, "somebody").await.unwrap();
    scene.drive(&env).await;
    assert_eq!(scene.check("cancelled").await, State::Cancelled);
}

fn files(shop: &Shop) -> std::collections::BTreeMap<String, Vec<u8>> {
    shop.data.with(|world| world.store.dirs[BY_HAND].clone())
}

#[tokio::test(start_paused = true)]
async fn what_people_dumped_by_hand_is_imported_and_restored_and_their_files_stay_as_they_are() {
    let (scene, content) = Scene::layout(ShopOptions::default()).await;
    let before = files(&scene.shop);
    let op = driven(&scene).await;
    assert_eq!(scene.check("by hand").await, State::Succeeded);
    assert!(remarks(&op, "redis/dump.rdb"), "what is not restored is told: {:?}", op.journal.remarks);
    let [only] = catalogue(&scene.shop).await.try_into().unwrap();
    assert_eq!(
        (only.entry.origin, only.entry.taken.to_string().as_str()),
        (Origin::Imported, "2026-01-01T02:00:00Z")
    );

    // The backup depends on nothing of theirs.
    scene.shop.data.with(|world| world.store.corrupt(BY_HAND, "postgres/shop.dump"));
    scene.shop.data.drop_table("shop_db", DATABASE, "users");
    let restore = Scene::ask(scene.shop, beside()).await.wanting(content);
    driven(&restore).await;
    assert_eq!(restore.check("from a dump by hand").await, State::Succeeded);
    restore.shop.data.with(|world| world.store.corrupt(BY_HAND, "postgres/shop.dump"));
    assert_eq!(files(&restore.shop), before, "their files are as they were");

    // A second import knows it again.
    let layout = Some(BY_HAND.to_owned());
    let work = Work::Import { store: "default".to_owned(), from: None, quick: false, layout, dry_run: false };
    let again = Scene::ask(restore.shop, work).await;
    let op = driven(&again).await;
    assert_eq!(op.journal.state, State::Succeeded, "{op:#?}");
    assert_eq!(op.journal.step("scan").unwrap().out["known"], 1);
}

/// S16, S18: an archive that people made of a volume comes in by the reading of its engine, and back by its restore.
#[tokio::test(start_paused = true)]
async fn an_archive_that_people_made_of_a_volume_is_imported_and_restored() {
    let (scene, content) = Scene::layout(ShopOptions::files("volume")).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{op:#?}");
    assert!(remarks(&op, "redis/dump.rdb (an RDB: it is for a service"), "{:?}", op.journal.remarks);
    let [only] = catalogue(&scene.shop).await.try_into().unwrap();
    assert_eq!((only.entry.engine.as_str(), only.entry.origin), ("volume", Origin::Imported));
    scene.shop.data.with(|world| world.store.corrupt(BY_HAND, "volumes/data.tar.gz"));
    scene.shop.data.with(|world| world.files.get_mut("shop_db").unwrap().live.clear());
    let restore = Scene::ask(scene.shop, beside()).await.wanting(content);
    driven(&restore).await;
    assert_eq!(restore.check("from an archive by hand").await, State::Succeeded);
}

/// S16: what is no archive inside is not taken in, whatever its checksum says.
#[tokio::test(start_paused = true)]
async fn what_its_engine_cannot_read_is_not_imported_from_a_directory_filled_by_hand() {
    let (scene, _) = Scene::layout(ShopOptions::files("volume")).await;
    let files = [("volumes/data.tar.gz", b"none of it".to_vec())];
    scene.shop.data.with(|world| world.store.by_hand(BY_HAND, &files));
    let before = dirs(&scene.shop);
    let op = driven(&scene).await;
    assert!(failed_with(&op, "is no file of a Volume"), "{op:#?}");
    assert_eq!(catalogue(&scene.shop).await, []);
    assert_eq!(dirs(&scene.shop), before, "the copy is left, or their files were written to");
}

fn dirs(shop: &Shop) -> std::collections::BTreeMap<String, std::collections::BTreeMap<String, Vec<u8>>> {
    shop.data.with(|world| world.store.dirs.clone())
}

#[tokio::test(start_paused = true)]
async fn one_flipped_byte_in_a_directory_filled_by_hand_refuses_all_of_it() {
    for file in ["postgres/shop.dump", "redis/dump.rdb"] {
        let (scene, _) = Scene::layout(ShopOptions::default()).await;
        scene.shop.data.with(|world| world.store.corrupt(BY_HAND, file));
        let before = files(&scene.shop);
        let op = driven(&scene).await;
        assert!(failed_with(&op, file) && failed_with(&op, "checksum"), "{op:#?}");
        assert_eq!(scene.check(file).await, State::Failed);
        assert_eq!(files(&scene.shop), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_was_there_before_survives_an_import_that_goes_back() {
    let (scene, _) = Scene::layout(ShopOptions::default()).await;
    driven(&scene).await;
    let [only] = catalogue(&scene.shop).await.try_into().unwrap();
    Scene::forget_catalogue(&scene.shop).await;
    let layout = Some(BY_HAND.to_owned());
    let work = Work::Import { store: "default".to_owned(), from: None, quick: false, layout, dry_run: false };
    let again = Scene::ask(scene.shop, work).await;
    let op = driven(&again).await;
    assert!(failed_with(&op, "holds a finished backup"), "{op:#?}");
    assert!(again.shop.data.with(|w| w.store.is_sealed(&only.entry.dir)), "it was removed");
}
