//! Red flags that labels ask for: a line in the log of a new task puts back what was found, wherever in the window it comes and
//! whoever watches; what could not be read or asked is told, and is no red flag.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use skep::operation::record::{Operation, State};
use skep_tests::saga::{Driven, Scene, update_to, update_watched};
use skep_tests::sim::postgres::Application;
use skep_tests::sim::shop::Shop;
use skep_tests::sim::{
    Answer, Container, Cut, Fault, Process, Run, Step, Then, Trigger as On, View, Workload,
};

use super::{driven, person, remarks, spec, update, with_labels};

const NEW: &str = "shop-app:2";
const LOG: (&str, &str) = ("skep.update.red-flag.log", "FATAL|PANIC");
const SAID: &str = "FATAL: login failed, password=hunter2";
const LOGS: &str = "GET /tasks/{id}/logs";

/// When a task says it.
#[derive(Clone)]
enum When {
    /// It is so old.
    Age(Duration),
    /// That moment has come, as soon as one is known.
    Moment(Arc<Mutex<Option<Timestamp>>>),
}

/// The application, of which each task says something at some time, and serves on.
struct Talks {
    app: Application,
    when: When,
}

struct Talk {
    since: Duration,
    when: When,
    has_begun: bool,
    has_said: bool,
}

impl When {
    fn is_now(&self, since: Duration, view: &View<'_>) -> bool {
        match self {
            When::Age(age) => view.at.saturating_sub(since) >= *age,
            When::Moment(moment) => moment.lock().unwrap().is_some_and(|at| view.now >= at),
        }
    }
}

impl Workload for Talks {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        self.app.start(container, view);
        let when = self.when.clone();
        Run::Process(Box::new(Talk { since: view.at, when, has_begun: false, has_said: false }))
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        self.app.healthy(container, view)
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        self.app.answer(container, view)
    }
}

impl Process for Talk {
    fn step(&mut self, view: &View<'_>) -> Step {
        let mut lines = Vec::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            lines.push("well".to_owned());
        }
        if !self.has_said && self.when.is_now(self.since, view) {
            self.has_said = true;
            lines.push(SAID.to_owned());
        }
        Step { lines, then: Then::Next(Duration::from_millis(100)) }
    }
}

/// The application, under these labels, gets an image that says something, and is watched for so long.
async fn talking(
    labels: &[(&str, &str)],
    when: When,
    monitor_s: u64,
    change: impl FnOnce(&Shop),
) -> (Scene, Value) {
    let shop = Shop::start(with_labels(&[], labels)).await;
    let before = spec(&shop, "shop_app");
    shop.sim.workload(NEW, Talks { app: shop.application(), when });
    change(&shop);
    let monitor_s = Some(monitor_s);
    let work = update_watched(NEW, monitor_s);
    (Scene::ask_for(shop, "shop_app", work, person()).await, before)
}

fn after(seconds: u64) -> When {
    When::Age(Duration::from_secs(seconds))
}

fn reason(op: &Operation, step: &str) -> String {
    op.journal.step(step).map(|r| r.reason.clone()).unwrap_or_default()
}

fn is_back(scene: &Scene, op: &Operation, before: &Value) {
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(op, "watch").contains("FATAL: login failed"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), *before);
}

#[tokio::test(start_paused = true)]
async fn a_line_in_the_log_of_a_new_task_puts_the_exact_spec_back_and_shows_no_secret() {
    let (scene, before) = talking(&[LOG], after(60), 120, |_| ()).await;
    let op = driven(&scene).await;
    is_back(&scene, &op, &before);
    assert!(reason(&op, "watch").contains("in the log of replica"), "{:#?}", op.journal);
    assert!(!format!("{:?}", op.journal).contains("hunter2"), "{:#?}", op.journal);
    let calls = scene.shop.sim.faults().calls("driver");
    let again = calls.iter().filter(|call| call.endpoint == LOGS && call.path.contains("since="));
    assert!(again.count() > 10, "it is read on from where it was read to");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_comes_before_the_window_is_seen() {
    let (scene, before) = talking(&[LOG], after(0), 5, |_| ()).await;
    let op = driven(&scene).await;
    is_back(&scene, &op, &before);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_comes_at_the_very_end_of_the_window_is_seen() {
    let moment = Arc::new(Mutex::new(None));
    let (scene, before) = talking(&[LOG], When::Moment(moment.clone()), 600, |_| ()).await;
    let env = scene.driver("driver").await;
    let choose = async {
        loop {
            if let Some(watch) = scene.operation().await.journal.step("watch") {
                *moment.lock().unwrap() = Some(watch.began + SignedDuration::from_millis(599_700));
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(scene.drive(&env), choose);
    is_back(&scene, &scene.operation().await, &before);
}

#[tokio::test(start_paused = true)]
async fn what_older_tasks_say_and_what_nobody_asks_for_is_no_red_flag() {
    let (scene, _) = talking(&[], after(10), 120, |_| ()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(op.journal.remarks.is_empty(), "{:#?}", op.journal.remarks);
    // The image that talks is now the older one.
    update(&scene.shop, "shop_app", |spec| spec["Labels"][LOG.0] = json!(LOG.1)).await;
    scene.shop.sim.workload("shop-app:3", scene.shop.application());
    let scene = Scene::ask_for(scene.shop, "shop_app", update_to("shop-app:3"), person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(op.journal.remarks.is_empty(), "{:#?}", op.journal.remarks);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_nobody_can_read_refuses_an_update_that_is_to_be_watched_by_it() {
    let shop = Shop::start(with_labels(&[], &[LOG])).await;
    let none = |spec: &mut Value| spec["TaskTemplate"]["LogDriver"] = json!({ "Name": "none" });
    update(&shop, "shop_app", none).await;
    let before = spec(&shop, "shop_app");
    let scene = Scene::ask_for(shop, "shop_app", update_to(NEW), person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Failed, "{:#?}", op.journal);
    assert!(reason(&op, "plan").contains("its log driver (`none`) keeps nothing"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
}

fn no_log(shop: &Shop, calls: usize) {
    for nth in 1..=calls {
        let fault = Fault::Fail(500, "no log now".to_owned());
        shop.sim.faults().on("driver", On::Endpoint(LOGS.to_owned(), nth), fault);
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_for_a_while_is_read_later() {
    // Two tasks, every second: that is until after the line, and until after the window.
    let (scene, before) = talking(&[LOG], after(3), 20, |shop| no_log(shop, 60)).await;
    let op = driven(&scene).await;
    is_back(&scene, &op, &before);
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_on_sees_what_was_said_while_nobody_watched() {
    let (scene, before) = talking(&[LOG], after(40), 120, |shop| {
        shop.sim.faults().on("first", On::Endpoint(LOGS.to_owned(), 5), Fault::Kill(Cut::After));
    })
    .await;
    let first = scene.driver("first").await;
    assert!(matches!(scene.drive(&first).await, Driven::Dead));
    tokio::time::sleep(Duration::from_secs(200)).await;
    let op = driven(&scene).await;
    is_back(&scene, &op, &before);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_or_asked_at_all_is_no_red_flag_and_is_told() {
    let query = ("skep.update.red-flag.query", "sum(errors) > 1");
    let (scene, _) = talking(&[LOG, query], after(3), 10, |shop| no_log(shop, 2_000)).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(remarks(&op, "not all of the log of shop_app was looked at"), "{:#?}", op.journal.remarks);
    assert!(remarks(&op, "no log now"), "{:#?}", op.journal.remarks);
    assert!(remarks(&op, "no Prometheus is named"), "{:#?}", op.journal.remarks);
}
