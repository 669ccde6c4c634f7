//! Nodes that go away while services sleep and while they wake: what sleeps wakes on another node, and nothing is called woken
//! that does not run.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use skep::operation::client_spec::is_waker;
use skep::operation::record::{Above, Operation, State, Work};
use skep::operation::sleeper;
use skep::operation::waker::{self, Granted, Request};
use skep::swarm::object::TaskState;
use skep_tests::saga::{Scene, connect, update};
use skep_tests::sim::Loss;
use skep_tests::sim::shop::{Shop, ShopOptions};

use super::{driven, failed_with, once, person, spec, with_labels};

const ON_DEMAND: [(&str, &str); 2] = [("skep.scale.wake", "true"), ("skep.scale.wake.port", "8080")];

/// Three nodes, each a manager.
fn spread(labels: &[(&str, &str)]) -> ShopOptions {
    let mut options = with_labels(&[], labels);
    (options.sim.nodes, options.sim.managers) = (3, 3);
    options
}

async fn done(shop: Shop, work: Work) -> (Shop, Operation) {
    let scene = Scene::ask_for(shop, "shop_app", work, person()).await;
    let op = driven(&scene).await;
    (scene.shop, op)
}

async fn asleep(labels: &[(&str, &str)]) -> Shop {
    let shop = Shop::start(spread(labels)).await;
    let (shop, op) = done(shop, Work::Sleep { above: Above::Refuse }).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    shop
}

/// Nodes on which a task of the application is to run and does, as the managers see it.
fn up_on(shop: &Shop) -> Vec<String> {
    let tasks = shop.sim.tasks("shop_app").into_iter();
    let up = tasks
        .filter(|t| !is_waker(&t.spec) && t.state == TaskState::Running && t.desired == TaskState::Running);
    up.filter_map(|t| t.node).collect()
}

/// A node with a task of the application that is placed and not yet up.
fn coming_on(shop: &Shop) -> Option<String> {
    let mut tasks = shop.sim.tasks("shop_app").into_iter();
    let is_coming = |state: TaskState| (TaskState::Assigned..TaskState::Running).contains(&state);
    let coming = tasks.find(|t| !is_waker(&t.spec) && t.desired == TaskState::Running && is_coming(t.state));
    coming.and_then(|t| t.node)
}

#[tokio::test(start_paused = true)]
async fn what_sleeps_on_a_node_that_goes_away_is_asked_for_and_wakes_on_another() {
    for loss in [Loss::PowerCut, Loss::Unreachable] {
        let shop = asleep(&ON_DEMAND).await;
        let lost = shop.sim.containers("shop_app")[0].node.clone();
        shop.sim.faults().lose_node(&lost, loss);
        let stands = |shop: &Shop| {
            shop.sim.tasks("shop_app").iter().any(|t| {
                is_waker(&t.spec)
                    && t.state == TaskState::Running
                    && t.node.as_ref().is_some_and(|n| *n != lost)
            })
        };
        once(&shop, "a waker on another node", stands).await;
        let engine = connect(&shop, "operator").await;
        let slept = sleeper::find(&engine, "shop_app").await.unwrap().expect("it sleeps on");
        let asked = Request {
            service: "shop_app".to_owned(),
            sleep: Some(slept.sleeper.op.to_string()),
            token: slept.waker.as_ref().unwrap().token.clone(),
        };
        let granted = waker::grant(&engine, &asked, shop.sim.now()).await.unwrap();
        let Granted::UnderWay(id) = granted else { panic!("{granted:?}") };
        let scene = Scene::of(shop, id);
        let op = driven(&scene).await;
        assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
        let up = up_on(&scene.shop);
        assert!(up.len() == 2 && !up.contains(&lost), "{up:?}, without {lost}");
        assert_eq!(spec(&scene.shop, "shop_app"), slept.spec);
        // What went on there, and what comes back with it, is ended by the Swarm and is nobody's waker.
        scene.shop.sim.faults().return_node(&lost);
        once(&scene.shop, "users reach the application", Shop::sees_only_app).await;
    }
}

/// The node goes away while the task that wakes there is on its way up.
#[tokio::test(start_paused = true)]
async fn a_wake_whose_task_is_lost_goes_on_on_another_node_and_is_not_called_woken_before() {
    for labels in [&ON_DEMAND[..], &[]] {
        let shop = asleep(labels).await;
        let scene = Scene::ask_for(shop, "shop_app", Work::Wake, person()).await;
        let env = scene.driver("driver").await;
        let mut lost: Option<String> = None;
        scene
            .drive_watched(&env, |shop| {
                if lost.is_none()
                    && let Some(node) = coming_on(shop)
                {
                    shop.sim.faults().lose_node(&node, Loss::PowerCut);
                    lost = Some(node);
                }
            })
            .await;
        let lost = lost.expect("a task was on its way up");
        let op = scene.operation().await;
        assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
        let up: BTreeSet<String> = up_on(&scene.shop).into_iter().collect();
        assert!(up_on(&scene.shop).len() == 2 && !up.contains(&lost), "{up:?}, without {lost}");
        let engine = connect(&scene.shop, "looker").await;
        assert!(sleeper::find(&engine, "shop_app").await.unwrap().is_none());
    }
}

/// Nowhere else may it run: the wake ends, says so, and the Swarm starts it when the node is back.
#[tokio::test(start_paused = true)]
async fn a_wake_whose_only_node_is_lost_ends_and_says_that_it_is_not_up() {
    let shop = asleep(&[]).await;
    let node = shop.sim.nodes()[2].clone();
    let there = json!({ "Constraints": [format!("node.id=={node}")] });
    update(&shop, "shop_app", |spec| spec["TaskTemplate"]["Placement"] = there).await;
    shop.sim.faults().lose_node(&node, Loss::PowerCut);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (shop, op) = done(shop, Work::Wake).await;
    assert!(failed_with(&op, "0 of 2 task(s) running"), "{:#?}", op.journal);
    assert_eq!(spec(&shop, "shop_app")["Mode"]["Replicated"]["Replicas"], 2, "it is left to the Swarm");
    shop.sim.faults().return_node(&node);
    once(&shop, "it to come up by itself", |shop| up_on(shop) == [node.clone(), node.clone()]).await;
}
