//! S9, S16: a backup is read in the store and on the node that have it, whatever the labels say by now.

use std::time::Duration;

use serde_json::json;
use skep::operation::record::{Operation, State, Work};
use skep::operation::saga::Env;
use skep_tests::saga::{Scene, connect};
use skep_tests::sim::Loss;
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};

use super::{beside, catalogue, driven, failed_with, once, remarks, restore, update, with_settings};

const MINUTE: Duration = Duration::from_secs(60);

/// Keeps the data service on one node, and waits until it is there.
async fn put_on(shop: &Shop, host: &str) -> String {
    let nodes = connect(shop, "looker").await.nodes().await.unwrap();
    let id = nodes.into_iter().find(|n| n.hostname == host).unwrap().id;
    let there = json!({"Constraints": [format!("node.id=={id}")]});
    update(shop, "shop_db", |spec| spec["TaskTemplate"]["Placement"] = there.clone()).await;
    let is_there = |shop: &Shop| {
        matches!(&shop.sim.containers("shop_db")[..], [one] if one.node == id) && shop.sees_only_app()
    };
    once(shop, "the service moves", is_there).await;
    id
}

async fn later(shop: Shop) -> Shop {
    tokio::time::sleep(Duration::from_secs(5)).await;
    shop
}

/// A shop on three nodes whose data service was backed up on the second one, into that node's own volume, and has moved to
/// the third one since; with that second node.
async fn moved(options: ShopOptions) -> (Shop, String) {
    let mut options = options;
    options.sim.nodes = 3;
    let shop = Shop::start(options).await;
    let node = put_on(&shop, "n2").await;
    let shop = later(Scene::back_up(shop).await).await;
    shop.data.with(|world| world.only_on(&node));
    put_on(&shop, "n3").await;
    (shop, node)
}

fn options_of(files: Option<&'static str>) -> ShopOptions {
    files.map_or_else(ShopOptions::default, ShopOptions::files)
}

fn verify() -> Work {
    Work::Verify { backup: None }
}

fn drill() -> Work {
    Work::Drill { backup: None }
}

#[tokio::test(start_paused = true)]
async fn what_a_nodes_own_volume_holds_is_verified_there_and_not_judged_while_that_node_is_away() {
    let (shop, node) = moved(ShopOptions::default()).await;
    // The other node's volume holds backups of the service too, so that nothing looks like a store that is away.
    let shop = later(Scene::back_up(shop).await).await;
    let scene = Scene::ask(shop, verify()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(op.journal.step("read").unwrap().out["whole"], 2);

    scene.shop.sim.faults().lose_node(&node, Loss::Unreachable);
    tokio::time::sleep(MINUTE).await;
    let scene = Scene::ask(scene.shop, verify()).await;
    let op = driven(&scene).await;
    assert!(
        failed_with(&op, "1 of 2 not read") && failed_with(&op, "takes no jobs now"),
        "{:#?}",
        op.journal
    );
    let known = catalogue(&scene.shop).await;
    assert!(known.iter().all(|b| b.spoilt.is_none() && b.verified.is_some()), "{known:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_another_nodes_volume_holds_is_passed_over_and_the_plan_says_where_it_is() {
    for files in [None, Some("mariadb"), Some("volume")] {
        let (shop, _) = moved(options_of(files)).await;
        let wanted = shop.data.content_of("shop_db", DATABASE).unwrap();
        shop.data.insert("shop_db", DATABASE, "orders", 1);
        let shop = later(Scene::back_up(shop).await).await;
        // The newest one is on the third node now, and the service is on the second one again.
        let third = connect(&shop, "looker").await.nodes().await.unwrap();
        let third = third.into_iter().find(|n| n.hostname == "n3").unwrap().id;
        shop.data.with(|world| world.only_on(&third));
        put_on(&shop, "n2").await;
        let scene = Scene::ask(shop, beside()).await.wanting(wanted);
        let op = driven(&scene).await;
        assert_eq!(op.journal.state, State::Succeeded, "{files:?}: {:#?}", op.journal);
        assert!(remarks(&op, "its files are on node n3"), "{files:?}: {:?}", op.journal.remarks);
        scene.check("passed over").await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_only_another_node_has_backups_nothing_is_restored_and_nothing_is_disproved() {
    for work in [beside(), restore(true, None), drill()] {
        let (shop, _) = moved(ShopOptions::default()).await;
        let scene = Scene::ask(shop, work).await;
        let op = driven(&scene).await;
        assert!(failed_with(&op, "its files are on node n2"), "{:#?}", op.journal);
        assert!(failed_with(&op, "put the service back on n2"), "{:#?}", op.journal);
        scene.check("only on another node").await;
        let [only] = catalogue(&scene.shop).await.try_into().unwrap();
        assert!(only.verified.is_some() && only.spoilt.is_none() && only.drill_failed.is_none(), "{only:?}");
    }
}

/// A shop that was backed up into the default store, and whose label names another one since.
async fn relabelled(options: ShopOptions) -> Shop {
    let shop = later(Scene::back_up(Shop::start(options).await).await).await;
    update(&shop, "shop_db", |spec| spec["Labels"]["skep.backup.store"] = json!("nas")).await;
    shop
}

/// Lets the checks of whatever is backed up from now on fail.
fn break_data(shop: &Shop) {
    shop.data.drop_table("shop_db", DATABASE, "users");
}

#[tokio::test(start_paused = true)]
async fn backups_from_before_the_label_named_another_store_are_restored_from_where_they_are() {
    let works = [
        (None, beside()),
        (None, restore(true, None)),
        (Some("mariadb"), beside()),
        (Some("volume"), beside()),
    ];
    for (files, work) in works {
        let shop = relabelled(options_of(files)).await;
        let wanted = shop.data.content_of("shop_db", DATABASE).unwrap();
        shop.data.insert("shop_db", DATABASE, "orders", 7);
        let scene = Scene::ask(shop, work.clone()).await.wanting(wanted);
        let op = driven(&scene).await;
        assert_eq!(op.journal.state, State::Succeeded, "{files:?} {work:?}: {:#?}", op.journal);
        scene.check("from the store of before").await;
        let safety = catalogue(&scene.shop).await.pop().unwrap();
        assert_eq!(safety.entry.store, "nas", "what is made now goes where the label says");
    }
}

#[tokio::test(start_paused = true)]
async fn s9_where_the_newest_backup_fails_its_checks_the_next_older_one_comes_from_its_own_store() {
    for files in [None, Some("mariadb")] {
        let shop = relabelled(options_of(files)).await;
        let wanted = shop.data.content_of("shop_db", DATABASE).unwrap();
        break_data(&shop);
        let shop = later(Scene::back_up(shop).await).await;
        let stores: Vec<String> = catalogue(&shop).await.into_iter().map(|b| b.entry.store).collect();
        assert_eq!(stores, ["default", "nas"]);
        let scene = Scene::ask(shop, beside()).await.wanting(wanted);
        let op = driven(&scene).await;
        assert_eq!(op.journal.state, State::Succeeded, "{files:?}: {:#?}", op.journal);
        scene.check("the next older one").await;
        assert!(remarks(&op, "was not used"), "{files:?}: {:?}", op.journal.remarks);
    }
}

#[tokio::test(start_paused = true)]
async fn s16_a_drill_proves_a_backup_where_it_is() {
    let shop = relabelled(ShopOptions::default()).await;
    let scene = Scene::ask(shop, drill()).await;
    driven(&scene).await;
    assert_eq!(scene.check("in the store of before").await, State::Succeeded);
}

/// Drives with settings that lack a store.
async fn without(scene: &Scene, store: &str) -> Operation {
    let env: Env = with_settings(scene.driver("driver").await, |settings| {
        settings.stores.remove(store);
        settings.default_store = "nas".to_owned();
    });
    scene.drive(&env).await;
    scene.operation().await
}

#[tokio::test(start_paused = true)]
async fn a_backup_in_a_store_that_skep_has_no_more_is_passed_over_and_never_judged() {
    let shop = relabelled(ShopOptions::default()).await;
    let shop = later(Scene::back_up(shop).await).await;
    let wanted = shop.data.content_of("shop_db", DATABASE).unwrap();
    let scene = Scene::ask(shop, verify()).await;
    let op = without(&scene, "default").await;
    assert!(failed_with(&op, "1 of 2 not read") && failed_with(&op, "SKEP_STORES"), "{:#?}", op.journal);

    scene.shop.data.insert("shop_db", DATABASE, "orders", 7);
    let scene = Scene::ask(scene.shop, beside()).await.wanting(wanted);
    let op = without(&scene, "default").await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    scene.check("the other store").await;
    assert!(remarks(&op, "passed over: "), "{:?}", op.journal.remarks);

    let oldest = catalogue(&scene.shop).await.remove(0);
    assert!(oldest.verified.is_some() && oldest.spoilt.is_none(), "{oldest:?}");
    let work = Work::Restore {
        to: None,
        backup: Some(oldest.entry.id),
        before: None,
        in_place: None,
        quiesce: None,
        create_roles: false,
    };
    let scene = Scene::ask(scene.shop, work).await;
    let op = without(&scene, "default").await;
    assert!(failed_with(&op, "there is no store `default` any more"), "{:#?}", op.journal);
}

/// Scales the data service to zero, and waits until Swarm has forgotten its tasks.
async fn forgotten(shop: &Shop) {
    update(shop, "shop_db", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    let engine = connect(shop, "looker").await;
    let id = engine.service("shop_db").await.unwrap().id;
    while !engine.tasks(&[&id]).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_task_tells_where_files_are_the_constraints_do_if_they_leave_no_choice() {
    let mut options = ShopOptions::files("volume");
    options.sim.nodes = 3;
    let shop = Shop::start(options).await;
    forgotten(&shop).await;
    let scene = Scene::ask(shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "its constraints allow 3 nodes"), "{:#?}", op.journal);

    let shop = scene.shop;
    let there = json!({"Constraints": ["node.hostname == n2"]});
    update(&shop, "shop_db", |spec| spec["TaskTemplate"]["Placement"] = there.clone()).await;
    let nodes = connect(&shop, "looker").await.nodes().await.unwrap();
    let node = nodes.into_iter().find(|n| n.hostname == "n2").unwrap().id;
    let scene = Scene::ask(shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(catalogue(&scene.shop).await.pop().unwrap().entry.node, Some(node));
}

#[tokio::test(start_paused = true)]
async fn an_empty_volume_is_no_backup_where_no_task_tells_that_it_is_the_one() {
    let shop = Shop::start(ShopOptions::files("volume")).await;
    shop.data.with(|world| world.files.get_mut("shop_db").unwrap().live.clear());
    // Where a task tells it, an empty volume is what its application has.
    let scene = Scene::ask(shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    forgotten(&scene.shop).await;
    let scene = Scene::ask(scene.shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "there is nothing"), "{:#?}", op.journal);
    assert_eq!(catalogue(&scene.shop).await.len(), 1);
}
