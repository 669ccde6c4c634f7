//! A moment of PostgreSQL: what comes back is what was there then, or nothing is changed; no slot is left behind, and no
//! receiver is made that nobody wants.

use std::time::Duration;

use serde_json::json;
use skep::operation::catalogue::Backup;
use skep::operation::receiver;
use skep::operation::record::{State, Work};
use skep::operation::saga::Env;
use skep::swarm::object::Kind;
use skep_tests::saga::{Scene, connect, to_moment};
use skep_tests::sim::shop::{Shop, ShopOptions};
use skep_tests::sim::{Cut, Fault, Trigger};

use super::{driven, exists, failed_with, live, spec, step, update};

/// How often a leader looks at receivers.
const LOOK: Duration = Duration::from_secs(20);

fn slots(shop: &Shop) -> usize {
    shop.data.with(|world| world.servers["shop_db"].slots.len())
}

/// Everything of receivers that is in the Swarm.
fn left(shop: &Shop) -> Vec<String> {
    let all = shop.sim.services().into_iter().chain(shop.sim.stored_names());
    all.filter(|name| name.starts_with("skep-wal-") || name.starts_with("skep-unwal-")).collect()
}

/// A leader of this name.
async fn leader(shop: &Shop, name: &str) -> Env {
    skep_tests::saga::env(shop, name).await
}

/// What a leader does about receivers, so many times.
async fn look(leader: &Env, times: usize) {
    for _ in 0..times {
        // One that is dead is refused everything.
        let _looked = receiver::reconcile(leader, false).await;
        tokio::time::sleep(LOOK).await;
    }
}

async fn receiving() -> Shop {
    Scene::receiving(ShopOptions::default()).await
}

async fn without(shop: &Shop, gone: fn(&str) -> bool) {
    update(shop, "shop_db", |spec| {
        spec["Labels"].as_object_mut().unwrap().retain(|key, _| !gone(key));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_moment_that_cannot_be_had_is_refused_with_those_that_can_before_anything_is_touched() {
    let (mut shop, to, _) = Scene::lost_later(ShopOptions::default()).await;
    let minute = Duration::from_secs(60);
    let before = live(&shop);
    for (moment, why) in [
        (to - 60 * minute, "is before the oldest base backup; of shop_db there are moments from "),
        (shop.sim.now() + minute, "is still to come; of shop_db there are moments from "),
    ] {
        let scene = Scene::ask(shop, to_moment(moment)).await;
        let op = driven(&scene).await;
        assert!(failed_with(&op, why), "{:#?}", op.journal);
        assert_eq!((step(&op, "recover"), step(&op, "stop")), (None, None));
        assert_eq!(live(&scene.shop), before);
        assert!(scene.shop.sees_only_app());
        shop = scene.shop;
    }
    // Nothing is received any more, and the moment is later than what was.
    let engine = connect(&shop, "thief").await;
    let receiver = shop.sim.services().into_iter().find(|name| name.starts_with("skep-wal-")).unwrap();
    let receiver = engine.service(&receiver).await.unwrap();
    let mut stopped = receiver.spec.clone();
    stopped["Mode"] = json!({"Replicated": {"Replicas": 0}});
    engine.update_service(&receiver.id, receiver.version, &stopped).await.unwrap();
    tokio::time::sleep(minute).await;
    let late = shop.sim.now();
    let scene = Scene::ask(shop, to_moment(late)).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "is later than what was received"), "{:#?}", op.journal);
    assert_eq!(live(&scene.shop), before);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_made_anew_where_its_service_changed_and_goes_with_its_slot_when_nobody_wants_it() {
    let shop = receiving().await;
    assert_eq!((slots(&shop), left(&shop).len()), (1, 2), "a service and its ticket: {:?}", left(&shop));
    let made = left(&shop);
    look(&leader(&shop, "leader").await, 2).await;
    assert_eq!(left(&shop), made, "what is right stays");
    update(&shop, "shop_db", |spec| spec["TaskTemplate"]["ContainerSpec"]["Env"][2] = json!("RELEASE=2"))
        .await;
    tokio::time::sleep(LOOK).await;
    look(&leader(&shop, "leader").await, 3).await;
    assert_eq!(left(&shop).len(), 3, "the tickets of both, as long as its log is wanted: {:?}", left(&shop));
    without(&shop, |key| key == "skep.backup.wal").await;
    look(&leader(&shop, "leader").await, 4).await;
    assert_eq!((slots(&shop), left(&shop)), (0, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_dropped_although_all_labels_of_its_service_are_gone() {
    let shop = receiving().await;
    without(&shop, |key| key.starts_with("skep.")).await;
    look(&leader(&shop, "leader").await, 4).await;
    assert_eq!((slots(&shop), left(&shop)), (0, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_whose_labels_cannot_be_read_stays_as_it_is() {
    let shop = receiving().await;
    let made = left(&shop);
    update(&shop, "shop_db", |spec| spec["Labels"]["skep.backup.keep"] = json!("all of them")).await;
    look(&leader(&shop, "leader").await, 3).await;
    assert_eq!((slots(&shop), left(&shop)), (1, made));
}

#[tokio::test(start_paused = true)]
async fn the_receiver_of_a_service_that_was_removed_goes() {
    let shop = receiving().await;
    let engine = connect(&shop, "people").await;
    let id = engine.service("shop_db").await.unwrap().id;
    engine.remove_service(&id).await.unwrap();
    look(&leader(&shop, "leader").await, 2).await;
    assert_eq!(left(&shop), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_at_any_write_leaves_no_slot_that_nobody_knows_of() {
    for write in 1.. {
        let shop = Scene::back_up(receiving().await).await;
        let (first, second) = (leader(&shop, "first").await, leader(&shop, "second").await);
        shop.sim.faults().on("first", Trigger::Write(write), Fault::Kill(Cut::After));
        update(&shop, "shop_db", |spec| spec["TaskTemplate"]["ContainerSpec"]["Env"][2] = json!("RELEASE=2"))
            .await;
        tokio::time::sleep(LOOK).await;
        look(&first, 3).await;
        without(&shop, |key| key == "skep.backup.wal").await;
        look(&first, 4).await;
        let known = exists(&shop, "skep-wal-") || exists(&shop, "skep-unwal-");
        assert!(known || slots(&shop) == 0, "died at write {write}: {:?}", left(&shop));
        if shop.sim.faults().writes("first") < write {
            assert!(write > 6, "it made few writes: {write}");
            return;
        }
        look(&second, 5).await;
        assert_eq!((slots(&shop), left(&shop)), (0, Vec::new()), "died at write {write}");
    }
}

#[tokio::test(start_paused = true)]
async fn s20_release_drops_every_slot_and_a_leader_that_was_there_makes_no_receiver_again() {
    let shop = receiving().await;
    let leader = leader(&shop, "leader").await;
    let started = shop.sim.now();
    tokio::time::sleep(LOOK).await;
    let person = connect(&shop, "person").await;
    receiver::release(&person).await.unwrap();
    for _ in 0..120 {
        // Both at once: they do the same.
        let released = receiver::honour(&leader.engine, started).await.unwrap();
        let _looked = receiver::reconcile(&leader, released).await;
        let _retired = receiver::retire(&person, shop.sim.now()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((slots(&shop), left(&shop)), (0, Vec::new()));
    // One that is deployed later begins anew.
    let released = receiver::honour(&leader.engine, shop.sim.now()).await.unwrap();
    receiver::reconcile(&leader, released).await.unwrap();
    tokio::time::sleep(LOOK).await;
    assert_eq!(slots(&shop), 1);
    assert!(!shop.sim.stored_names().contains(&"skep-released".to_owned()), "it is forgotten");
}

#[tokio::test(start_paused = true)]
async fn the_log_stays_as_far_as_a_base_that_is_kept_needs_it() {
    let mut options = ShopOptions::default();
    options.db_labels.push(("skep.backup.keep".to_owned(), "2 last".to_owned()));
    let mut shop = Scene::receiving(options).await;
    for _ in 0..4 {
        shop = Scene::back_up(shop).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    let engine = connect(&shop, "looker").await;
    let configs = engine.configs(Kind::Backup, &[]).await.unwrap();
    let backups: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
    let ended: Vec<jiff::Timestamp> =
        backups.iter().map(|b| b.entry.base.as_ref().unwrap().ended.parse().unwrap()).collect();
    assert_eq!(ended.len(), 2);
    let oldest = *ended.iter().min().unwrap();
    let first = shop.data.with(|w| *w.logs.values().next().unwrap().held.first_key_value().unwrap().0);
    let slack = first.duration_since(oldest);
    assert!(slack >= jiff::SignedDuration::ZERO && slack < jiff::SignedDuration::from_secs(3), "{slack}");
    let scene = Scene::ask(shop, to_moment(oldest + Duration::from_secs(4))).await;
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_slot_is_dropped_only_once_no_container_of_the_receiver_can_be_left() {
    let shop = receiving().await;
    without(&shop, |key| key == "skep.backup.wal").await;
    let leader = leader(&shop, "leader").await;
    let (mut gone, mut dropped) = (None, None);
    while dropped.is_none() {
        let _looked = receiver::reconcile(&leader, false).await;
        let is_there = shop.sim.services().iter().any(|name| name.starts_with("skep-wal-"));
        gone = gone.or((!is_there).then(|| shop.sim.elapsed()));
        dropped = (slots(&shop) == 0).then(|| shop.sim.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let waited = dropped.unwrap().saturating_sub(gone.expect("the receiver went first"));
    assert!(waited >= Duration::from_secs(14), "it was dropped {waited:?} after the receiver was removed");
}

#[tokio::test(start_paused = true)]
async fn no_log_is_received_into_a_store_that_the_tools_cannot_write() {
    let shop = Shop::start(super::with_labels(&[("skep.backup.store", "cloud")], &[])).await;
    update(&shop, "shop_db", |spec| spec["Labels"]["skep.backup.wal"] = json!("true")).await;
    look(&leader(&shop, "leader").await, 3).await;
    assert_eq!((slots(&shop), left(&shop)), (0, Vec::new()));
    let scene = Scene::ask(shop, Work::Backup).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(super::remarks(&op, "neither a bucket"), "{:#?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_one_without_a_base_where_nothing_is_received() {
    let mut options = ShopOptions::default();
    options.db_labels.push(("skep.backup.wal".to_owned(), "true".to_owned()));
    let scene = Scene::ask(Shop::start(options).await, Work::Backup).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(super::remarks(&op, "no base backup was taken"), "{:#?}", op.journal.remarks);
    let engine = connect(&scene.shop, "looker").await;
    let configs = engine.configs(Kind::Backup, &[]).await.unwrap();
    assert!(configs.iter().filter_map(Backup::read).all(|b| b.entry.base.is_none() && b.verified.is_some()));
    assert_eq!(spec(&scene.shop, "shop_db")["Labels"]["skep.backup.wal"], "true");
}
