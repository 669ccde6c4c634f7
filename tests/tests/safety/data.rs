//! S5, S6, S9, S20, S21: which data, and what must not happen to it.

use jiff::SignedDuration;
use skep::operation::catalogue::Backup;
use skep::operation::desk;
use skep::operation::record::{Operation, State};
use skep::swarm::object::Kind;
use skep_runner::Task;
use skep_tests::saga::{LOST_ROLE, RESTORE_WITH_ROLES, Scene, connect};
use skep_tests::sim::postgres::World;
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};

use super::{
    SHORT_LOOKBACK, alert, app_runs, beside, driven, exists, failed_with, live, page_runs, remarks, restore,
    step, with_labels,
};

fn kept(shop: &Shop) -> Vec<String> {
    shop.data.databases("shop_db").into_iter().filter(|n| n.ends_with("_old")).collect()
}

#[tokio::test(start_paused = true)]
async fn s5_a_slot_makes_an_alert_wait_for_a_person_and_its_database_is_never_dropped() {
    let (shop, wanted) = Scene::broken(with_labels(&[SHORT_LOOKBACK], &[])).await;
    shop.data.with(|world| {
        let server = world.servers.get_mut("shop_db").unwrap();
        server.databases.get_mut(DATABASE).unwrap().slots.push("cdc".to_owned());
    });
    let trigger = alert(&shop);
    let scene = Scene::ask_by(shop, beside(), trigger).await.wanting(wanted);
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::AwaitingApproval, "{:#?}", op.journal);
    assert!(remarks(&op, "slot `cdc`"), "{:?}", op.journal.remarks);
    let engine = connect(&scene.shop, "person").await;
    desk::approve(&engine, &scene.op, "somebody").await.unwrap();
    driven(&scene).await;
    assert_eq!(scene.check("s5 approved").await, State::Succeeded);
    let with_slot = kept(&scene.shop);
    // The next restore would drop what the first kept.
    let wanted = live(&scene.shop);
    scene.shop.data.drop_table("shop_db", DATABASE, "users");
    let again = Scene::ask(scene.shop, beside()).await.wanting(wanted);
    driven(&again).await;
    assert_eq!(again.check("s5 again").await, State::Succeeded);
    assert!(with_slot.iter().all(|name| kept(&again.shop).contains(name)), "{:?}", kept(&again.shop));
}

async fn awaiting_approval(change: impl FnOnce(&mut World)) -> Scene {
    let (shop, wanted) = Scene::broken(with_labels(&[SHORT_LOOKBACK], &[])).await;
    shop.data.with(|world| {
        let server = world.servers.get_mut("shop_db").unwrap();
        server.databases.get_mut(DATABASE).unwrap().slots.push("cdc".to_owned());
    });
    let trigger = alert(&shop);
    let scene = Scene::ask_by(shop, beside(), trigger).await.wanting(wanted);
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::AwaitingApproval, "{:#?}", op.journal);
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    scene.shop.data.with(change);
    scene
}

async fn approved(scene: &Scene) -> Operation {
    let engine = connect(&scene.shop, "person").await;
    desk::approve(&engine, &scene.op, "somebody").await.unwrap();
    driven(scene).await
}

#[tokio::test(start_paused = true)]
async fn s17_what_is_approved_late_is_looked_at_again() {
    let scene = awaiting_approval(|world| world.room = (1 << 20, 100 << 30)).await;
    let op = approved(&scene).await;
    assert!(failed_with(&op, "no room"), "{:#?}", op.journal);
    assert_eq!(step(&op, "beside"), None);
}

#[tokio::test(start_paused = true)]
async fn s5_who_approves_late_is_asked_again_about_what_is_new_and_about_nothing_else() {
    let scene = awaiting_approval(|world| {
        let server = world.servers.get_mut("shop_db").unwrap();
        server.databases.get_mut(DATABASE).unwrap().slots.push("audit".to_owned());
    })
    .await;
    let op = approved(&scene).await;
    assert_eq!(op.journal.state, State::AwaitingApproval, "{:#?}", op.journal);
    let asks = &op.journal.step("preflight").unwrap().note;
    assert!(asks.contains("audit") && !asks.contains("cdc"), "{asks}");
    approved(&scene).await;
    assert_eq!(scene.check("s5 approved twice").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s6_a_cut_over_that_is_killed_half_way_is_repeated_to_its_end() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    scene.shop.sim.faults().kill_job(1, |ticket| matches!(ticket.task, Task::PgSwap(_)));
    driven(&scene).await;
    assert_eq!(scene.check("s6").await, State::Succeeded);
    let old = scene.shop.data.database("shop_db", &kept(&scene.shop)[0]).unwrap();
    assert!(!old.allow, "clients may write to the old data");
}

#[tokio::test(start_paused = true)]
async fn s6_a_database_other_than_the_journaled_one_is_not_renamed() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let env = scene.driver("driver").await;
    let mut exchanged = false;
    scene
        .drive_watched(&env, |shop| {
            if !exchanged && page_runs(shop) {
                // Somebody drops the database and makes another one of the same name.
                shop.data.with(|world| {
                    let server = world.servers.get_mut("shop_db").unwrap();
                    server.databases.get_mut(DATABASE).unwrap().oid = 99_999;
                });
                exchanged = true;
            }
        })
        .await;
    let op = scene.operation().await;
    assert!(matches!(op.journal.state, State::Stuck | State::RolledBack), "{:#?}", op.journal);
    let live = scene.shop.data.database("shop_db", DATABASE).unwrap();
    assert_eq!(live.oid, 99_999, "a database that nobody has looked at was replaced");
    assert_eq!(kept(&scene.shop), [] as [String; 0]);
}

async fn with_two_backups(options: ShopOptions) -> (Shop, skep_tests::sim::postgres::Content) {
    let shop = Scene::back_up(Shop::start(options).await).await;
    let good = live(&shop);
    shop.data.drop_table("shop_db", DATABASE, "users");
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let shop = Scene::back_up(shop).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    (shop, good)
}

#[tokio::test(start_paused = true)]
async fn s9_a_whole_backup_of_broken_data_gives_way_to_the_next_older_one() {
    let (shop, good) = with_two_backups(ShopOptions::default()).await;
    let scene = Scene::ask(shop, beside()).await.wanting(good);
    let op = driven(&scene).await;
    assert_eq!(scene.check("s9").await, State::Succeeded);
    assert!(remarks(&op, "was not used: check `users`"), "{:?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s9_a_damaged_backup_gives_way_to_the_next_older_one_before_anything_is_touched() {
    let shop = Scene::back_up(Shop::start(ShopOptions::default()).await).await;
    let good = live(&shop);
    shop.data.insert("shop_db", DATABASE, "orders", 1);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let shop = Scene::back_up(shop).await;
    shop.data.with(|world| {
        let newest = world.store.backups().into_iter().next_back().unwrap();
        world.store.corrupt(&newest, "shop.dump");
    });
    let scene = Scene::ask(shop, beside()).await.wanting(good);
    let op = driven(&scene).await;
    assert_eq!(scene.check("s9 damaged").await, State::Succeeded);
    assert!(remarks(&op, "cannot be used"), "{:?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s9_an_alert_uses_no_backup_from_after_its_beginning_less_the_lookback() {
    let (shop, _) = Scene::broken(ShopOptions::default()).await;
    let trigger = alert(&shop);
    let scene = Scene::ask_by(shop, beside(), trigger).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "no verified backup"), "{:#?}", op.journal);
    scene.check("s9 too young").await;
    // The same alert an hour later is old enough.
    let (shop, wanted) = Scene::broken(ShopOptions::default()).await;
    let skep::operation::record::Trigger::Alert { name, fingerprint, starts_at } = alert(&shop) else {
        unreachable!("an alert was made");
    };
    let starts_at = starts_at + SignedDuration::from_hours(1);
    let later = skep::operation::record::Trigger::Alert { name, fingerprint, starts_at };
    let scene = Scene::ask_by(shop, beside(), later).await.wanting(wanted);
    driven(&scene).await;
    assert_eq!(scene.check("s9 old enough").await, State::Succeeded);
}

fn cache(shop: &Shop) -> Vec<String> {
    shop.data.with(|world| world.caches["shop_cache"].clone())
}

#[tokio::test(start_paused = true)]
async fn s21_caches_are_empty_before_a_client_sees_the_restored_data() {
    let options = with_labels(&[("skep.restore.flush", "cache")], &[]);
    let scene = Scene::restore(options, beside()).await;
    assert!(!cache(&scene.shop).is_empty());
    let env = scene.driver("driver").await;
    let mut seen = 0;
    scene
        .drive_watched(&env, |shop| {
            if !kept(shop).is_empty() && (app_runs(shop) || exists(shop, "skep-canary-")) {
                seen += 1;
                assert_eq!(cache(shop), [] as [String; 0], "a client may read rows from the future");
            }
        })
        .await;
    assert!(seen > 0);
    assert_eq!(scene.check("s21").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s21_under_running_clients_caches_are_emptied_after_the_cut() {
    let options = with_labels(&[("skep.restore.flush", "cache")], &[]);
    let scene = Scene::restore(options, restore(false, Some(false))).await;
    let env = scene.driver("driver").await;
    scene
        .drive_watched(&env, |shop| {
            let early = cache(shop).is_empty() && kept(shop).is_empty();
            assert!(!early, "clients that still run on the old data fill the cache again");
        })
        .await;
    assert_eq!(scene.check("s21 hot").await, State::Succeeded);
    assert_eq!(cache(&scene.shop), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn s21_a_cache_that_nobody_empties_is_told() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let op = driven(&scene).await;
    assert!(remarks(&op, "cache shop_cache was not emptied"), "{:?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s20_a_restore_says_how_to_go_back_by_hand() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let op = driven(&scene).await;
    let old = kept(&scene.shop).remove(0);
    assert!(remarks(&op, &format!("ALTER DATABASE \"{old}\" RENAME TO \"{DATABASE}\"")), "{op:#?}");
    assert_eq!(step(&op, "keep"), Some(skep::operation::record::StepState::Done));
}

/// A backup of whatever there is now, that of a healthy shop with one order more each time.
async fn backed_up(shop: Shop) -> Shop {
    let shop = Scene::back_up(shop).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    shop
}

#[tokio::test(start_paused = true)]
async fn s9_at_most_three_backups_are_tried() {
    let mut shop = backed_up(Shop::start(ShopOptions::default()).await).await;
    shop.data.drop_table("shop_db", DATABASE, "users");
    for _ in 0..3 {
        shop.data.insert("shop_db", DATABASE, "orders", 1);
        shop = backed_up(shop).await;
    }
    let scene = Scene::ask(shop, beside()).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("s9 three").await, State::Failed);
    let tried = op.journal.remarks.iter().filter(|r| r.contains("was not used: check `users`")).count();
    assert_eq!(tried, 3, "{:?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s9_a_backup_that_does_not_fit_the_server_is_not_even_read() {
    let shop = backed_up(Shop::start(ShopOptions::default()).await).await;
    let good = live(&shop);
    let role = |shop: &Shop, change: fn(&mut Vec<String>)| {
        shop.data.with(|world| {
            let server = world.servers.get_mut("shop_db").unwrap();
            change(&mut server.databases.get_mut(DATABASE).unwrap().properties.roles);
        });
    };
    role(&shop, |roles| roles.push("gone".to_owned()));
    let shop = backed_up(shop).await;
    role(&shop, |roles| roles.retain(|r| r != "gone"));
    let scene = Scene::ask(shop, beside()).await.wanting(good);
    let env = scene.driver("driver").await;
    scene
        .drive_watched(&env, |shop| {
            assert!(!exists(shop, "-preflight-read0-"), "a backup with a missing role is read")
        })
        .await;
    assert_eq!(scene.check("s9 role").await, State::Succeeded);
    let op = scene.operation().await;
    assert!(remarks(&op, "cannot be used: role `gone` does not exist"), "{:?}", op.journal.remarks);
}

async fn proved(scene: &Scene) -> usize {
    let engine = connect(&scene.shop, "looker").await;
    let backups = engine.configs(Kind::Backup, &[]).await.unwrap();
    backups.iter().filter_map(Backup::read).filter(|b| b.proved.is_some()).count()
}

#[tokio::test(start_paused = true)]
async fn s16_a_backup_is_proved_by_a_restore_that_passed_its_checks_and_by_nothing_less() {
    for checks in [true, false] {
        let mut options = ShopOptions::default();
        for labels in [&mut options.db_labels, &mut options.app_labels] {
            labels.retain(|(key, _)| checks || !key.starts_with("skep.check."));
        }
        let scene = Scene::restore(options, beside()).await;
        assert_eq!(proved(&scene).await, 0, "a backup that was read back is stored, not proved");
        driven(&scene).await;
        assert_eq!(scene.check("s16").await, State::Succeeded);
        assert_eq!(proved(&scene).await, usize::from(checks));
    }
}

fn has_role(shop: &Shop) -> bool {
    shop.data.with(|world| world.servers["shop_db"].roles.iter().any(|role| role == LOST_ROLE))
}

#[tokio::test(start_paused = true)]
async fn s4_a_role_that_is_missing_refuses_a_restore_that_nobody_told_to_make_it() {
    let (shop, _) = Scene::without_a_role(with_labels(&[SHORT_LOOKBACK], &[])).await;
    let by_hand = Scene::ask(shop, beside()).await;
    let op = driven(&by_hand).await;
    assert!(failed_with(&op, "role `reporting` does not exist"), "{:#?}", op.journal);
    assert!(remarks(&op, "--create-roles"), "{:?}", op.journal.remarks);
    assert_eq!(step(&op, "beside"), None);
    assert!(!has_role(&by_hand.shop));
    // Nor does an alert, whatever the labels allow it.
    let trigger = alert(&by_hand.shop);
    let scene = Scene::ask_by(by_hand.shop, beside(), trigger).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "role `reporting` does not exist"), "{:#?}", op.journal);
    assert!(!has_role(&scene.shop));
    scene.check("s4 refused").await;
}

#[tokio::test(start_paused = true)]
async fn s4_roles_that_a_restore_makes_stay_with_it_and_go_when_it_goes_back() {
    let scene = Scene::restore_with_roles(ShopOptions::default()).await;
    let op = driven(&scene).await;
    assert_eq!(scene.check("s4 made").await, State::Succeeded);
    assert!(remarks(&op, "role `reporting`"), "{:?}", op.journal.remarks);
    assert!(has_role(&scene.shop));
    // One that is killed after it made them and before it could tell is repeated; later the restore goes back.
    let scene = Scene::restore_with_roles(ShopOptions::default()).await;
    scene.shop.sim.faults().kill_job(1, |ticket| matches!(ticket.task, Task::PgCreateRoles(_)));
    let op = spoilt_when(&scene, "-beside-roles0-2").await;
    assert_ne!(scene.check("s4 gone").await, State::Succeeded);
    assert!(remarks(&op, "dropped again: role `reporting`"), "{:?}", op.journal.remarks);
    assert!(!has_role(&scene.shop));
}

#[tokio::test(start_paused = true)]
async fn s4_roles_that_were_made_for_a_backup_that_is_rejected_do_not_stay() {
    let shop = Scene::back_up(Shop::start(ShopOptions::default()).await).await;
    let good = live(&shop);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    // The newer one needs a role, and what it holds does not pass its checks.
    shop.data.drop_table("shop_db", DATABASE, "users");
    shop.data.add_role("shop_db", DATABASE, LOST_ROLE);
    let shop = Scene::back_up(shop).await;
    shop.data.remove_role("shop_db", LOST_ROLE);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let scene = Scene::ask(shop, RESTORE_WITH_ROLES).await;
    let op = driven(&scene).await;
    assert_eq!((op.journal.state, live(&scene.shop)), (State::Succeeded, good), "{:#?}", op.journal);
    assert!(remarks(&op, "made, as backup"), "{:?}", op.journal.remarks);
    assert!(!has_role(&scene.shop), "{:?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn s4_a_role_that_somebody_else_makes_meanwhile_is_not_dropped() {
    let scene = Scene::restore_with_roles(ShopOptions::default()).await;
    let env = scene.driver("driver").await;
    let mut is_made = false;
    scene
        .drive_watched(&env, |shop| {
            if !is_made && exists(shop, "-preflight-read0-") {
                shop.data.with(|w| w.servers.get_mut("shop_db").unwrap().roles.push(LOST_ROLE.to_owned()));
                is_made = true;
            }
            if exists(shop, "-beside-load0-") {
                shop.data.with(|w| w.store.backups().iter().for_each(|dir| w.store.cut(dir, "shop.dump")));
            }
        })
        .await;
    let op = scene.operation().await;
    assert_ne!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(is_made && has_role(&scene.shop), "{:#?}", op.journal);
}

/// Drives to rest; every backup is spoilt while a service with such a name is there.
async fn spoilt_when(scene: &Scene, name: &str) -> Operation {
    let env = scene.driver("driver").await;
    let spoil = |shop: &Shop| {
        if exists(shop, name) {
            shop.data.with(|w| w.store.backups().iter().for_each(|dir| w.store.cut(dir, "shop.dump")));
        }
    };
    scene.drive_watched(&env, spoil).await;
    scene.operation().await
}
