//! Checks of what was done: by SQL and by commands they count after a restart, an update and a rollback as those over the network do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use skep::operation::record::{Manner, Operation, State, StepState, Work};
use skep_runner::Task;
use skep_tests::saga::{Scene, restart, update_watched};
use skep_tests::sim::postgres::{Application, Content};
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};
use skep_tests::sim::{Answer, Container, Process, Run, Serve, Step, Then, View, Workload};

use super::jobs::SECRET;
use super::{
    app_runs, beside, driven, exists, failed_with, once, person, remarks, spec, step, update, with_labels,
};

/// There are three users, unless a test says otherwise.
const MANY: (&str, &str) = ("skep.check.users.expect", "ge 10");
/// Asks the application as users do.
const ASKS: (&str, &str) = ("skep.check.self.command", "ask http://$SKEP_HOST:8080/");

fn tasks(shop: &Shop, of: fn(&Task) -> bool) -> usize {
    shop.data.with(|world| world.tasks.iter().filter(|task| of(task)).count())
}

fn by_sql(task: &Task) -> bool {
    matches!(task, Task::SqlChecks(_))
}

fn by_command(task: &Task) -> bool {
    matches!(task, Task::CommandChecks(_))
}

/// The application shows no page of its own, and its database is checked by these labels.
fn at_zero(db: &[(&str, &str)]) -> ShopOptions {
    let mut options = ShopOptions { own_page: true, ..with_labels(db, &[]) };
    options.app_labels.push(("skep.maintenance.mode".to_owned(), "proxy".to_owned()));
    options
}

fn updated(shop: Shop, service: &'static str, image: &str, monitor_s: u64) -> impl Future<Output = Scene> {
    let work = update_watched(image, Some(monitor_s));
    Scene::ask_for(shop, service, work, person())
}

fn reason(op: &Operation, step: &str) -> String {
    op.journal.step(step).map(|r| r.reason.clone()).unwrap_or_default()
}

fn add_env(spec: &mut Value, entry: &str) {
    let env = &mut spec["TaskTemplate"]["ContainerSpec"]["Env"];
    env.as_array_mut().unwrap().push(json!(entry));
}

fn image(shop: &Shop, service: &str) -> Value {
    spec(shop, service)["TaskTemplate"]["ContainerSpec"]["Image"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_a_database_that_lacks_rows_has_failed_and_leaves_nothing_stopped() {
    let scene = Scene::restart(at_zero(&[MANY]), "shop_db", Manner::Fitting).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "shop_db: check `users`: found 3"), "{:#?}", op.journal);
    once(&scene.shop, "users reach the application", Shop::sees_only_app).await;
    // As it runs, too.
    let scene = Scene::ask_for(scene.shop, "shop_db", restart(false, Manner::Rolling), person()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "shop_db: check `users`: found 3"), "{:#?}", op.journal);
}

/// The application, whose first task after a while ends once more before it stays.
struct FallsOnce {
    app: Application,
    has_fallen: AtomicBool,
}

impl Workload for FallsOnce {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        let exits = (!self.has_fallen.swap(true, Ordering::Relaxed)).then_some((Duration::from_secs(1), 3));
        match exits {
            Some(_) => Run::Serve(Serve { exits, stop: Duration::from_millis(100) }),
            None => self.app.start(container, view),
        }
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        self.app.healthy(container, view)
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        self.app.answer(container, view)
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ended_after_it_had_come_up_is_told_although_all_is_well_in_the_end() {
    let scene = Scene::restart(at_zero(&[]), "shop_db", Manner::Fitting).await;
    let falls = FallsOnce { app: scene.shop.application(), has_fallen: AtomicBool::new(false) };
    scene.shop.sim.workload("shop-app:1", falls);
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(
        remarks(&op, "shop_app is up, but 1 of its new task(s) ended before"),
        "{:#?}",
        op.journal.remarks
    );
    assert!(!remarks(&op, "shop_db is up, but"), "{:#?}", op.journal.remarks);
}

/// The application, of which each task complains twice as soon as it runs.
struct Complains(Application);

struct Complaint {
    left: u32,
}

impl Workload for Complains {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        self.0.start(container, view);
        Run::Process(Box::new(Complaint { left: 2 }))
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        self.0.healthy(container, view)
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        self.0.answer(container, view)
    }
}

impl Process for Complaint {
    fn step(&mut self, _view: &View<'_>) -> Step {
        let says = self.left > 0;
        self.left = self.left.saturating_sub(1);
        let lines = if says { vec!["ERROR no luck, password=hunter2".to_owned()] } else { Vec::new() };
        Step { lines, then: Then::Next(Duration::from_millis(100)) }
    }
}

#[tokio::test(start_paused = true)]
async fn lines_in_the_log_of_new_tasks_are_counted_after_a_restart_and_an_update() {
    let labels = |most| [("skep.check.errors.log", "^ERROR"), ("skep.check.errors.expect", most)];
    // Two replicas, and none of what the tasks before said counts.
    for (most, state) in [("le 3", State::Failed), ("le 4", State::Succeeded)] {
        let shop = Shop::start(with_labels(&[], &labels(most))).await;
        shop.sim.workload("shop-app:1", Complains(shop.application()));
        let scene = Scene::ask_for(shop, "shop_app", restart(false, Manner::Rolling), person()).await;
        let op = driven(&scene).await;
        assert_eq!(op.journal.state, state, "{:#?}", op.journal);
        if state == State::Failed {
            assert!(failed_with(&op, "shop_app: check `errors`: 4 line(s)"), "{:#?}", op.journal);
            assert!(!format!("{:?}", op.journal).contains("hunter2"));
        }
    }
    let shop = Shop::start(with_labels(&[], &labels("le 3"))).await;
    let before = spec(&shop, "shop_app");
    shop.sim.workload("shop-app:2", Complains(shop.application()));
    let scene = updated(shop, "shop_app", "shop-app:2", 10).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(&op, "check").contains("check `errors`: 4 line(s)"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_database_starts_once_that_has_passed_its_checks_and_they_are_asked_until_then() {
    let scene = Scene::restart(at_zero(&[MANY]), "shop_db", Manner::Fitting).await;
    let env = scene.driver("driver").await;
    let fill = async {
        once(&scene.shop, "the check", |shop| exists(shop, "-start-sql")).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(!app_runs(&scene.shop), "the application did not wait for the check");
        scene.shop.data.insert("shop_db", DATABASE, "users", 7);
    };
    tokio::join!(scene.drive(&env), fill);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(op.journal.step("start").unwrap().out["checks"], json!(2));
}

#[tokio::test(start_paused = true)]
async fn a_server_of_files_is_asked_too_and_what_has_no_server_is_told() {
    for (word, said) in [("mariadb", None), ("volume", Some("check `users` of shop_db was not asked"))] {
        let mut options = ShopOptions::files(word);
        options.db_labels.push(("skep.check.users.sql".to_owned(), "SELECT count(*) FROM users".to_owned()));
        options.db_labels.push((MANY.0.to_owned(), MANY.1.to_owned()));
        let scene = Scene::restart(options, "shop_db", Manner::Fitting).await;
        let op = driven(&scene).await;
        match said {
            None => assert!(failed_with(&op, "shop_db: check `users`: found 3"), "{:#?}", op.journal),
            Some(said) => {
                assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
                assert!(remarks(&op, said), "{:#?}", op.journal.remarks);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_goes_back_when_its_data_does_not_pass_at_once_or_while_it_is_watched() {
    let labels = [("skep.update.rollback", "image"), MANY];
    let shop = Shop::start(with_labels(&labels, &[])).await;
    let before = spec(&shop, "shop_db");
    let scene = updated(shop, "shop_db", "postgres:17.1", 10).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(&op, "check").contains("check `users`"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_db"), before);

    let shop = Shop::start(with_labels(&labels[..1], &[])).await;
    let scene = updated(shop, "shop_db", "postgres:17.1", 120).await;
    let env = scene.driver("driver").await;
    let lose = async {
        once(&scene.shop, "the watch", |shop| exists(shop, "-watch-")).await;
        scene.shop.data.with(|world| {
            let server = world.servers.get_mut("shop_db").unwrap();
            server.databases.get_mut(DATABASE).unwrap().content = Content::from([("users".to_owned(), 0)]);
        });
    };
    tokio::join!(scene.drive(&env), lose);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(&op, "watch").contains("check `users`: found 0"), "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_asks_the_data_of_what_it_wrote() {
    let shop = Shop::start(ShopOptions::default()).await;
    let scene = Scene::ask_stack(shop, Work::Point { without_data: true }).await;
    let point = driven(&scene).await;
    assert_eq!(point.journal.state, State::Succeeded, "{:#?}", point.journal);
    update(&scene.shop, "shop_db", |spec| add_env(spec, "A=1")).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = tasks(&scene.shop, by_sql);
    let scene = Scene::ask_stack(scene.shop, Work::Rollback { point: point.id, only: Vec::new() }).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(step(&op, "check"), Some(StepState::Done));
    assert_eq!(tasks(&scene.shop, by_sql), before + 1, "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_does_not_pass_fails_a_restart_and_takes_an_update_back() {
    let never = [("skep.check.self.command", "false")];
    let shop = Shop::start(with_labels(&[], &never)).await;
    let scene = Scene::ask_for(shop, "shop_app", restart(false, Manner::Rolling), person()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "shop_app: check `self`: exit status: 1"), "{:#?}", op.journal);

    let (before, app) = (spec(&scene.shop, "shop_app"), scene.shop.application());
    scene.shop.sim.workload("shop-app:2", app);
    let scene = updated(scene.shop, "shop_app", "shop-app:2", 10).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert!(reason(&op, "check").contains("check `self`"), "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
}

#[tokio::test(start_paused = true)]
async fn a_command_runs_in_the_image_that_the_service_has_by_then_and_as_often_as_other_checks() {
    let shop = Shop::start(with_labels(&[], &[ASKS])).await;
    shop.sim.workload("shop-app:2", shop.application());
    let scene = updated(shop, "shop_app", "shop-app:2", 60).await;
    let env = scene.driver("driver").await;
    let mut images = Vec::new();
    scene
        .drive_watched(&env, |shop| {
            let jobs = shop.sim.services().into_iter().filter(|name| name.contains("-cmd"));
            images.extend(jobs.map(|job| image(shop, &job)));
        })
        .await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(tasks(&scene.shop, by_command), 5, "once, and four times while it is watched");
    assert!(!images.is_empty() && images.iter().all(|image| image == "shop-app:2"), "{images:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_is_asked_before_and_refuses_or_is_waited_for() {
    let labels = [
        ("skep.check.rows.command", "rows users"),
        ("skep.check.rows.expect", "ge 10"),
        ("skep.check.rows.phase", "before"),
    ];
    let shop = Shop::start(with_labels(&labels, &[])).await;
    let before = spec(&shop, "shop_db");
    let scene = Scene::ask_for(shop, "shop_db", restart(false, Manner::Fitting), person()).await;
    let op = driven(&scene).await;
    assert!(failed_with(&op, "shop_db: check `rows`: found 3"), "{:#?}", op.journal);
    assert_eq!((step(&op, "plan"), spec(&scene.shop, "shop_db")), (None, before));
    let waits = Work::Restart {
        whole: false,
        manner: Manner::Fitting,
        force: false,
        flush: Vec::new(),
        wait_s: Some(600),
    };
    let scene = Scene::ask_for(scene.shop, "shop_db", waits, person()).await;
    let env = scene.driver("driver").await;
    let fill = async {
        once(&scene.shop, "the first round", |shop| exists(shop, "-preflight-a0c0")).await;
        scene.shop.data.insert("shop_db", DATABASE, "users", 7);
    };
    tokio::join!(scene.drive(&env), fill);
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s15_what_a_command_needs_of_the_environment_is_a_temporary_secret() {
    let shop = Shop::start(with_labels(&[("skep.check.rows.command", "rows users")], &[])).await;
    update(&shop, "shop_db", |spec| add_env(spec, &format!("API_TOKEN={SECRET}"))).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let scene = Scene::ask_for(shop, "shop_db", restart(false, Manner::Fitting), person()).await;
    let env = scene.driver("driver").await;
    let mut seen = Vec::new();
    scene
        .drive_watched(&env, |shop| {
            let jobs = shop.sim.services().into_iter().filter(|name| name.contains("-cmd"));
            seen.extend(jobs.map(|job| spec(shop, &job)));
        })
        .await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(!seen.is_empty(), "no job was seen");
    for job in &seen {
        assert!(!job.to_string().contains(SECRET), "{job}");
        assert_eq!(
            job["TaskTemplate"]["ContainerSpec"]["Secrets"].as_array().map(Vec::len),
            Some(1),
            "{job}"
        );
    }
    assert!(!format!("{:?}", op.journal).contains(SECRET));
    scene.check("no secret is left").await;
}

#[tokio::test(start_paused = true)]
async fn s1_a_command_that_asks_the_host_is_put_to_the_canary_and_any_other_to_the_client() {
    let mut options = with_labels(&[("skep.check.own.command", "rows users")], &[ASKS]);
    options.app_labels.retain(|(key, _)| !key.starts_with("skep.check.health"));
    let shop = Scene::back_up(Shop::start(options).await).await;
    let scene = Scene::ask_for(shop, "shop_db", beside(), person()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let hosts: Vec<String> = scene.shop.data.with(|world| {
        let asked = world.tasks.iter().filter_map(|task| match task {
            Task::CommandChecks(task) => Some(task.checks[0].command.host.clone()),
            _ => None,
        });
        asked.collect()
    });
    let canary = format!("tasks.skep-canary-{}-0", op.id);
    assert_eq!(hosts, [canary.as_str(), "tasks.shop_db", "tasks.shop_app"]);
}
