//! Checks that are asked before: what must not be interrupted is not, and nothing else ever asks them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use skep::operation::record::{Manner, Operation, State, Work};
use skep_tests::saga::{Scene, restart};
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};

use super::{beside, driven, failed_with, once, person, remarks, spec, step, with_labels};

/// Nobody may have a job under way; one is, unless a test says otherwise.
const JOBS: [(&str, &str); 3] = [
    ("skep.check.jobs.sql", "SELECT count(*) FROM jobs"),
    ("skep.check.jobs.expect", "ge 3"),
    ("skep.check.jobs.phase", "before"),
];
/// Users are active as long as this is not served.
const ACTIVE: [(&str, &str); 3] = [
    ("skep.check.active.http", "http://:8080/active"),
    ("skep.check.active.status", "418"),
    ("skep.check.active.phase", "before"),
];

async fn with_jobs(options: ShopOptions) -> Shop {
    let shop = Shop::start(options).await;
    shop.data.insert("shop_db", DATABASE, "jobs", 1);
    shop
}

fn db_restart(wait_s: Option<u64>, force: bool) -> Work {
    Work::Restart { whole: false, manner: Manner::Fitting, force, flush: Vec::new(), wait_s }
}

fn db_update(wait_s: Option<u64>) -> Work {
    Work::Update {
        image: "postgres:17.1".to_owned(),
        monitor_s: Some(10),
        force: false,
        wait_s,
        also: Vec::new(),
    }
}

fn specs(shop: &Shop) -> BTreeMap<&'static str, Value> {
    ["shop_db", "shop_app", "shop_proxy"].into_iter().map(|name| (name, spec(shop, name))).collect()
}

fn tasks(shop: &Shop) -> Vec<String> {
    ["shop_db", "shop_app"].iter().flat_map(|s| shop.sim.tasks(s)).map(|t| t.id).collect()
}

/// Asks for it, while a check before it does not pass; the whole of the shop, before and after.
async fn refused(options: ShopOptions, work: Work) -> Operation {
    let shop = with_jobs(options).await;
    let before = (specs(&shop), tasks(&shop));
    let scene = Scene::ask_for(shop, "shop_db", work, person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert_eq!(step(&op, "plan"), None, "{:#?}", op.journal);
    assert_eq!((specs(&scene.shop), tasks(&scene.shop)), before, "something was changed");
    op
}

/// Waits until the checks have been asked so often.
async fn asked(scene: &Scene, rounds: u64) {
    let is_so = |op: &Operation| {
        op.journal.step("preflight").is_some_and(|r| r.out["rounds"].as_u64() >= Some(rounds))
    };
    while !is_so(&scene.operation().await) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_before_that_does_not_pass_refuses_and_changes_nothing() {
    for work in [db_restart(None, false), db_update(None)] {
        let op = refused(with_labels(&JOBS, &[]), work).await;
        for said in ["shop_db: check `jobs`", "1", "`--wait`", "`--force`"] {
            assert!(failed_with(&op, said), "{said}: {:#?}", op.journal);
        }
    }
    // Of what would be stopped with it, too; and over the network.
    let op = refused(with_labels(&[], &ACTIVE), db_restart(None, false)).await;
    assert!(failed_with(&op, "shop_app: check `active`"), "{:#?}", op.journal);
    // What its label means is not guessed.
    let mut faulty = JOBS;
    faulty[2].1 = "befor";
    let op = refused(with_labels(&faulty, &[]), db_restart(None, false)).await;
    assert!(failed_with(&op, "skep.check.jobs.phase"), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn who_waits_begins_once_the_checks_before_pass_and_not_earlier() {
    for work in [db_restart(Some(3600), false), db_update(Some(3600))] {
        let shop = with_jobs(with_labels(&JOBS, &[])).await;
        let before = specs(&shop);
        let scene = Scene::ask_for(shop, "shop_db", work, person()).await;
        let env = scene.driver("driver").await;
        let finish = async {
            asked(&scene, 3).await;
            assert_eq!(specs(&scene.shop), before, "it began before they passed");
            scene.shop.data.insert("shop_db", DATABASE, "jobs", 2);
        };
        tokio::join!(scene.drive(&env), finish);
        let op = scene.operation().await;
        assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
        let asked = op.journal.step("preflight").unwrap();
        assert!(asked.jobs.len() <= 1, "the journal grows with every round: {asked:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_longer_than_was_said() {
    let op = refused(with_labels(&JOBS, &[]), db_restart(Some(60), false)).await;
    assert!(failed_with(&op, "that was waited for, 1m long"), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn by_force_the_checks_before_are_not_asked_and_that_is_told() {
    let shop = with_jobs(with_labels(&JOBS, &ACTIVE)).await;
    let scene = Scene::ask_for(shop, "shop_db", db_restart(None, true), person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(remarks(&op, "`jobs` of shop_db") && remarks(&op, "`active` of shop_app"), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn a_restore_does_not_wait_for_who_waits_to_begin() {
    let shop = Scene::back_up(with_jobs(with_labels(&JOBS, &[])).await).await;
    let scene = Scene::ask_for(shop, "shop_db", db_restart(Some(3600), false), person()).await;
    let env = scene.driver("driver").await;
    let restoring = async {
        asked(&scene, 1).await;
        scene.ask_besides("shop_db", beside()).await
    };
    let (_, restore) = tokio::join!(scene.drive(&env), restoring);
    let op = scene.operation().await;
    assert!(failed_with(&op, restore.as_str()), "{:#?}", op.journal);
    let took = scene.shop.sim.elapsed().saturating_sub(scene.since);
    assert!(took < Duration::from_secs(60), "the restore waited for {took:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_asks_the_checks_before_but_a_restart_and_an_update() {
    // Neither would ever pass.
    let shop = with_jobs(with_labels(&JOBS, &ACTIVE)).await;
    let mut shop = Scene::back_up(shop).await;
    for work in [Work::Drill { backup: None }, beside()] {
        let scene = Scene::ask_for(shop, "shop_db", work, person()).await;
        let op = driven(&scene).await;
        assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
        shop = scene.shop;
    }
    once(&shop, "users reach the application", Shop::sees_only_app).await;
    // They are there to be asked.
    let scene = Scene::ask_for(shop, "shop_app", restart(false, Manner::Rolling), person()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "check `active`"), "{:#?}", op.journal);
}
