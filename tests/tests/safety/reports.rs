//! Reports of what has ended are in the store, once, and nothing waits for them or fails for want of them.

use std::time::Duration;

use skep::operation::record::{Manner, Operation, State, Work};
use skep::operation::saga::Env;
use skep::plan::scheduled::Rules;
use skep::triggers::cron;
use skep_store::REPORTS;
use skep_tests::saga::{Scene, env};
use skep_tests::sim::shop::{Shop, ShopOptions};

use super::{driven, with_settings};

/// A restart that has ended, and whoever leads afterwards.
async fn restarted() -> (Scene, Operation, Env) {
    let scene = Scene::restart(ShopOptions::default(), "shop_app", Manner::Rolling).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let leader = env(&scene.shop, "leader").await;
    (scene, op, leader)
}

/// What the leader asks for after a while.
async fn due_after(env: &Env, seconds: u64) -> Vec<Operation> {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    cron::ask(env, &Rules::default()).await.unwrap()
}

fn stored(shop: &Shop, op: &Operation, ending: &str) -> Option<String> {
    let name = format!("{}.{ending}", op.id);
    let text = shop.data.with(|world| world.store.file(REPORTS, &name).cloned())?;
    Some(String::from_utf8(text).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_report_of_a_restart_is_in_the_store_of_its_stack_and_is_written_once() {
    let (scene, restart, leader) = restarted().await;
    assert!(due_after(&leader, 5).await.is_empty(), "it did not wait for what ends together");
    let due = due_after(&leader, 60).await;
    let [report] = due.as_slice() else { panic!("{due:#?}") };
    assert_eq!((&report.intent.work, report.intent.service.as_str()), (&Work::Report, "shop_db"));
    // Another leader at the same moment makes the same one.
    assert!(due_after(&env(&scene.shop, "other").await, 0).await.is_empty());
    let scene = Scene::of(scene.shop, report.id.clone());
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let markdown = stored(&scene.shop, &restart, "md").unwrap();
    assert!(
        markdown.starts_with("# Restart of shop_app") && markdown.contains("## Steps (UTC)"),
        "{markdown}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&stored(&scene.shop, &restart, "json").unwrap()).unwrap();
    assert_eq!((&json["id"], &json["state"]), (&restart.id.as_str().into(), &"succeeded".into()));
    assert!(due_after(&leader, 7200).await.is_empty(), "it is written again, or of itself");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_fails_no_operation_and_is_asked_again_later() {
    let (scene, restart, leader) = restarted().await;
    let due = due_after(&leader, 60).await;
    scene.shop.data.with(|world| world.broken.insert("skep-backups".to_owned()));
    let scene = Scene::of(scene.shop, due[0].id.clone());
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert_eq!(stored(&scene.shop, &restart, "md"), None);
    assert!(due_after(&leader, 1800).await.is_empty());
    scene.shop.data.with(|world| world.broken.clear());
    let again = due_after(&leader, 1900).await;
    let scene = Scene::of(scene.shop, again[0].id.clone());
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
    assert!(stored(&scene.shop, &restart, "md").is_some());
}

#[tokio::test(start_paused = true)]
async fn where_no_job_could_write_them_nobody_asks_for_reports() {
    let (_scene, _, leader) = restarted().await;
    let without = with_settings(leader.clone(), |settings| settings.image = None);
    assert!(due_after(&without, 60).await.is_empty());
    assert_eq!(due_after(&leader, 0).await.len(), 1);
}
