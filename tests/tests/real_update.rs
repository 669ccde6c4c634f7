//! Updates on a real Swarm: good ones that lose no request, and bad ones that put the exact spec back, whoever drives them
//! dies in the middle.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_update -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};
use skep::operation::catalogue::Purpose;
use skep::operation::record::{Also, Manner, Operation, State, Work};
use skep::operation::settings::{Settings, Store};
use skep::runtime::clock;
use skep::swarm::object::TaskState;
use skep::triggers::registry::{self, Memory};
use skep_tests::load::Totals;
use skep_tests::prometheus::Prometheus;
use skep_tests::registry::Registry;
use skep_tests::saga::{restart, update_watched};
use skep_tests::sandbox::{Sandbox, eventually, repository, unique, unique_port};
use skep_tests::stage::Users;
use skep_tests::yard::{Yard, told};

const PATIENCE: Duration = Duration::from_secs(60);
/// Requests a second.
const RATE: u32 = 40;
/// What the engine says of a task that ended.
const EXIT: &str = "non-zero exit";

const DB: &str = r#"
  db:
    image: skep-test/postgres:15
    environment: { POSTGRES_USER: shop, POSTGRES_PASSWORD: correct-horse, POSTGRES_DB: shop }
    volumes: ["db:/var/lib/postgresql/data"]
    healthcheck:
      test: ["CMD", "pg_isready", "-q", "-h", "127.0.0.1", "-U", "shop"]
      interval: 500ms
      timeout: 3s
      retries: 60
    deploy:
      endpoint_mode: dnsrr
      restart_policy: { delay: 500ms }
      labels:
        skep.enable: "true"
        skep.data: postgres
        skep.data.database: shop
        skep.check.work.sql: SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'
        skep.check.work.expect: eq 0
        skep.check.work.phase: before
        skep.check.orders.sql: SELECT count(*) FROM orders
        skep.check.orders.expect: ge 500
        skep.check.login.command: PGPASSWORD="$$POSTGRES_PASSWORD" psql -XAtq -h "$$SKEP_HOST" -U shop -d shop -c 'SELECT max(id) FROM orders'
        skep.check.login.expect: eq 500
"#;

/// The application says nothing of an order, so one is lent to it.
const SHOP: &str = r#"
  app:
    image: skep-test/shop:1
    environment: { DATABASE_HOST: db, DATABASE_PASSWORD: correct-horse, SEED_ORDERS: "100" }
    healthcheck: { test: ["CMD", "/shop", "healthcheck"], interval: 500ms, timeout: 3s, retries: 5 }
    deploy:
      replicas: 2
      endpoint_mode: dnsrr
      restart_policy: { delay: 500ms }
      update_config: { monitor: 2s }
      resources: { limits: { memory: 64M } }
      labels:
        skep.enable: "true"
        skep.depends-on: db
        skep.update.monitor: 4s
        skep.update.red-flag.log: ^FATAL
        skep.check.orders.http: http://:8000/orders/last
  worker:
    image: skep-test/shop:worker
    environment: { DATABASE_HOST: db, DATABASE_PASSWORD: correct-horse }
    deploy:
      endpoint_mode: dnsrr
      restart_policy: { delay: 500ms }
      update_config: { monitor: 2s }
      labels:
        skep.enable: "true"
        skep.depends-on: db
        skep.update.monitor: 4s
  proxy:
    image: skep-test/nginx:1
    configs: [{ source: proxy, target: /etc/nginx/conf.d/default.conf }]
    ports: [{ target: 80, published: PORT, mode: host }]
    deploy: { endpoint_mode: dnsrr }
configs:
  proxy: { file: PROXY }
"#;

/// Images that differ from those of the stack in one line.
const IMAGES: [(&str, &str); 11] = [
    ("shop:worker", "FROM skep-test/shop:1\nCMD [\"worker\"]"),
    ("shop:worker2", "FROM skep-test/shop:1\nENV RELEASE=2\nCMD [\"worker\"]"),
    ("shop:2", "FROM skep-test/shop:1\nENV RELEASE=2"),
    ("shop:3", "FROM skep-test/shop:1\nENV RELEASE=3"),
    ("shop:crashes", "FROM skep-test/shop:1\nCMD [\"nonsense\"]"),
    // It runs, and answers nobody.
    ("shop:sick", "FROM skep-test/shop:1\nCMD [\"worker\"]"),
    // It is well, and answers where nobody asks.
    ("shop:elsewhere", "FROM skep-test/shop:1\nENV PORT=8001"),
    // It is well, and says that it is not.
    ("shop:says", "FROM skep-test/shop:1\nENV SAYS=\"FATAL: login failed, password=hunter2\""),
    // It is well for a few seconds, and then its memory runs out.
    ("shop:leaks", "FROM skep-test/shop:1\nENV LEAKS_MIB=2"),
    ("postgres:next", "FROM skep-test/postgres:15\nENV RELEASE=2"),
    ("postgres:crashes", "FROM skep-test/postgres:15\nCMD [\"postgres\", \"-c\", \"nonsense=1\"]"),
];

/// A stack of a database, and of an application behind a proxy.
struct Scene {
    yard: Yard,
    port: u16,
    store: String,
}

fn update(image: &str, monitor_s: Option<u64>) -> Work {
    update_watched(&format!("skep-test/{image}"), monitor_s)
}

fn reason(op: &Operation, step: &str) -> String {
    op.journal.step(step).map(|r| r.reason.clone()).unwrap_or_default()
}

// === impl Scene ===

impl Scene {
    async fn set(rest: &str) -> Scene {
        let sandbox = Sandbox::shared().await;
        for (name, dockerfile) in IMAGES {
            sandbox.image(&format!("skep-test/{name}"), dockerfile).await;
        }
        let (store, port) = (unique("update-backups"), unique_port());
        let volume = Store::Volume { name: store.clone(), driver: None, options: BTreeMap::new() };
        let stores = BTreeMap::from([("default".to_owned(), volume)]);
        let settings = Settings { stores, check_deadline: Duration::from_secs(4), ..Settings::default() };
        let rest = rest
            .replace("PORT", &port.to_string())
            .replace("PROXY", &repository("manifests/proxy.conf").display().to_string());
        let text = format!("version: \"3.8\"\nvolumes: {{ db: {{}} }}\nservices:{DB}{rest}");
        Scene { yard: Yard::deploy("update", &text, settings).await, port, store }
    }

    async fn spec(&self, service: &str) -> Value {
        self.yard.engine.service(&self.yard.stack.service(service)).await.unwrap().spec
    }

    async fn image(&self, service: &str) -> String {
        self.spec(service).await["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap().to_owned()
    }

    async fn serves(&self) {
        eventually("the shop to serve", PATIENCE, async || {
            let answer = self.yard.sandbox.http_get(self.port, "/orders/last").await?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
        })
        .await;
        // Both of them: until then it has nothing to lose.
        self.runs("app", 2).await;
    }

    /// Waits until so many tasks of a service run, and are healthy.
    async fn runs(&self, service: &str, wanted: usize) {
        let (engine, name) = (&self.yard.engine, self.yard.stack.service(service));
        eventually(&format!("{wanted} task(s) of {name}"), PATIENCE, async || {
            let service = engine.service(&name).await.map_err(|e| e.to_string())?;
            let tasks = engine.tasks(&[&service.id]).await.map_err(|e| e.to_string())?;
            let running = tasks.iter().filter(|t| t.state == TaskState::Running).count();
            if running == wanted { Ok(()) } else { Err(format!("{running} run")) }
        })
        .await;
    }

    /// Updates the application under load, and asserts that no user got anything but its good answers.
    async fn under_load(&self, what: &str, update: LocalBoxFuture<'_, Operation>) -> Operation {
        let (op, seen) = self.loaded(what, update).await;
        assert_eq!(seen, Totals { app: seen.app, ..Totals::default() }, "{what}: {}", told(&op));
        op
    }

    async fn loaded(&self, what: &str, update: LocalBoxFuture<'_, Operation>) -> (Operation, Totals) {
        let users = Users::at(SocketAddr::new(self.yard.sandbox.address(), self.port), RATE);
        let began = Instant::now();
        let op = update.await;
        let took = began.elapsed();
        let seen = users.leave().await.totals;
        println!("{what}: {:?} after {:.1} s, users {seen:?}", op.journal.state, took.as_secs_f64());
        assert!(seen.app > 0, "there were users");
        (op, seen)
    }

    /// An update of the application that goes back, and leaves everything as it was.
    async fn goes_back(&self, image: &str, step: &str, why: &str) {
        let before = self.spec("app").await;
        let op = self.under_load(image, self.yard.run("app", update(image, None)).boxed_local()).await;
        self.is_back(&op, "app", &before, step, why).await;
    }

    async fn is_back(&self, op: &Operation, service: &str, before: &Value, step: &str, why: &str) {
        assert_eq!(op.journal.state, State::RolledBack, "{}", told(op));
        assert!(reason(op, step).contains(why), "{}", told(op));
        println!("  {step}: {}", reason(op, step));
        assert_eq!(self.spec(service).await, *before, "{}", told(op));
    }

    /// An update of which Prometheus says after a while that it does not do, and one of which it cannot say anything.
    async fn by_query(&self) {
        let prometheus = Prometheus::start(&[], &[]).await;
        let asked = |url: String| Settings { prometheus: Some(url), ..self.yard.settings.clone() };
        let name = self.yard.stack.service("app");
        let label = async |label: [&str; 2]| {
            self.yard
                .sandbox
                .docker(&[&["service", "update", "-d"], &label[..], &[name.as_str()]].concat())
                .await;
        };
        let plain = self.spec("app").await;
        let soon = clock::now().as_second() + 20;
        label(["--label-add", &format!("skep.update.red-flag.query=vector(time()) > {soon}")]).await;
        let before = self.spec("app").await;
        let op = self.yard.run_under(asked(prometheus.url()), "app", update("shop:3", Some(60))).await;
        self.is_back(&op, "app", &before, "watch", "red-flag.query returns 1 value(s)").await;
        // By now it is so before anything is changed.
        let force = Work::Update {
            image: "skep-test/shop:3".to_owned(),
            monitor_s: Some(3),
            force: true,
            wait_s: None,
            also: Vec::new(),
        };
        for (url, said) in [
            (prometheus.url(), "before the update already"),
            ("http://127.0.0.1:1".to_owned(), "could not be asked, so it was no red flag"),
        ] {
            let op = self.yard.run_under(asked(url), "app", force.clone()).await;
            assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
            assert!(told(&op).contains(said), "{}", told(&op));
            println!("query: {:?}", op.journal.remarks);
            let op = self.yard.run("app", update("shop:2", Some(1))).await;
            assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
        }
        label(["--label-rm", "skep.update.red-flag.query"]).await;
        assert_eq!(self.spec("app").await, plain);
    }

    /// The application and its worker get new images as one.
    async fn together(&self, app: &str, worker: &str, force: bool) -> Work {
        let service = self.yard.engine.service(&self.yard.stack.service("worker")).await.unwrap();
        let also = vec![Also {
            service: service.name().to_owned(),
            service_id: service.id.clone(),
            image: format!("skep-test/{worker}"),
        }];
        let image = format!("skep-test/{app}");
        Work::Update { image, monitor_s: None, force, wait_s: None, also }
    }

    /// Two services as one, of which the second one crashes; whoever drives them dies while the second one gets its image.
    async fn as_one(&self) {
        let before = [self.spec("app").await, self.spec("worker").await];
        let is_at_the_second = |op: &Operation| {
            op.journal.step("apply").is_some_and(|step| step.out["others"][0]["at"].is_string())
        };
        let work = self.together("shop:2", "shop:crashes", false).await;
        let killed = self.yard.run_killed(is_at_the_second, "app", work).boxed_local();
        let op = self.under_load("two as one, of which one crashes", killed).await;
        self.is_back(&op, "app", &before[0], "apply", EXIT).await;
        assert_eq!(self.spec("worker").await, before[1], "{}", told(&op));
        assert!(reason(&op, "apply").contains("worker"), "{}", told(&op));

        // The application's image went back with the other one, so it takes a person to say that it is fine.
        let work = self.together("shop:2", "shop:worker2", true).await;
        let killed = self.yard.run_killed(is_at_the_second, "app", work).boxed_local();
        let op = self.under_load("two as one", killed).await;
        assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
        let mut wanted = before;
        for (spec, image) in wanted.iter_mut().zip(["shop:2", "shop:worker2"]) {
            spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(format!("skep-test/{image}"));
        }
        assert_eq!([self.spec("app").await, self.spec("worker").await], wanted, "{}", told(&op));
    }

    async fn orders(&self) -> Result<String, String> {
        self.yard.try_sh("db", "psql -U shop -d shop -XAtqc 'SELECT count(*) FROM orders'").await
    }

    async fn strike(self) {
        let sandbox = self.yard.sandbox;
        self.yard.strike().await;
        sandbox.remove_volume(&self.store).await;
    }
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn an_update_loses_no_request_and_no_row_and_puts_the_exact_spec_back_although_its_driver_dies() {
    let (shop, database) = (Scene::set(SHOP).await, Scene::set("").await);
    tokio::join!(Box::pin(of_an_application(&shop)), Box::pin(of_a_database(&database)));
    shop.strike().await;
    database.strike().await;
}

async fn of_an_application(scene: &Scene) {
    scene.serves().await;
    let before = scene.spec("app").await;

    let good = scene.under_load("good", scene.yard.run("app", update("shop:2", None)).boxed_local()).await;
    assert_eq!(good.journal.state, State::Succeeded, "{}", told(&good));
    let mut wanted = before.clone();
    wanted["TaskTemplate"]["ContainerSpec"]["Image"] = json!("skep-test/shop:2");
    assert_eq!(scene.spec("app").await, wanted, "nothing changes but the image");

    scene.goes_back("shop:crashes", "apply", EXIT).await;
    scene.goes_back("shop:sick", "apply", "exit code 0").await;
    // Only a check sees this one, and a check asks once it is there.
    let (op, seen) =
        scene.loaded("elsewhere", scene.yard.run("app", update("shop:elsewhere", None)).boxed_local()).await;
    scene.is_back(&op, "app", &wanted, "check", "check `orders`").await;
    assert_eq!(seen.wrong, 0, "users see the proxy's page");
    scene.goes_back("shop:nowhere", "apply", "No such image").await;

    // The engine and the checks are content with these for a while, or for good.
    let op = scene.under_load("says", scene.yard.run("app", update("shop:says", None)).boxed_local()).await;
    scene.is_back(&op, "app", &wanted, "watch", "matches `^FATAL`: FATAL: login failed").await;
    assert!(!format!("{:?}", op.journal).contains("hunter2"), "{}", told(&op));
    let leaking = scene.yard.run("app", update("shop:leaks", Some(60))).boxed_local();
    let (op, seen) = scene.loaded("leaks", leaking).await;
    assert_eq!(op.journal.state, State::RolledBack, "{}", told(&op));
    let why = format!("{} {}", reason(&op, "apply"), reason(&op, "watch"));
    assert!(why.contains("memory runs out (OOM), and its limit is 64 MiB"), "{}", told(&op));
    println!("  leaks: {why}");
    assert_eq!((scene.spec("app").await, seen.wrong), (wanted.clone(), 0), "{}", told(&op));

    // What Prometheus says counts too; that it says nothing does not.
    scene.by_query().await;

    // What went back once is not tried again unless somebody says so.
    let op = scene.yard.run("app", update("shop:crashes", None)).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    assert!(reason(&op, "plan").contains("did not do"), "{}", told(&op));
    assert_eq!(scene.spec("app").await, wanted);

    // Whoever drives it dies: while tasks are replaced, while it is watched, and while it goes back.
    let is_written = |op: &Operation| {
        op.journal
            .step("apply")
            .is_some_and(|step| step.out["at"].is_string() && step.note.contains("task(s)"))
    };
    let killed = scene.yard.run_killed(is_written, "app", update("shop:3", None)).boxed_local();
    let op = scene.under_load("killed while it is applied", killed).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert_eq!(scene.image("app").await, "skep-test/shop:3");
    let is_watched = |op: &Operation| op.journal.step("watch").is_some();
    let killed = scene.yard.run_killed(is_watched, "app", update("shop:1", None)).boxed_local();
    let op = scene.under_load("killed while it is watched", killed).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert_eq!(scene.spec("app").await, before, "it is as it was at the beginning");
    let force = Work::Update {
        image: "skep-test/shop:crashes".to_owned(),
        monitor_s: None,
        force: true,
        wait_s: None,
        also: Vec::new(),
    };
    let goes_back =
        |op: &Operation| op.journal.step("apply").is_some_and(|step| step.out["back"].is_string());
    let killed = scene.yard.run_killed(goes_back, "app", force).boxed_local();
    let op = scene.under_load("killed while it goes back", killed).await;
    scene.is_back(&op, "app", &before, "apply", EXIT).await;
    scene.as_one().await;
}

/// What a tag means changes in a real registry: services that run it follow as one, once, or go back.
async fn of_a_registry(scene: &Scene) {
    let (yard, sandbox) = (&scene.yard, scene.yard.sandbox);
    let registry = Registry::start(sandbox).await;
    registry.push("skep-test/shop:worker", "worker:1").await;
    let image = registry.name("worker:1");
    let names = ["one", "two"].map(|name| yard.stack.service(name));
    for name in &names {
        let stack = format!("com.docker.stack.namespace={}", yard.stack.name());
        let labels = ["skep.enable=true", "skep.update.watch=true", "skep.update.monitor=4s", &stack];
        let labels: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
        let rest = ["--update-monitor", "2s", "--restart-delay", "500ms", "--name", name, &image];
        let env = ["--env", "DATABASE_HOST=db", "--endpoint-mode", "dnsrr"];
        sandbox.docker(&[&["service", "create", "-d"], &labels[..], &env[..], &rest[..]].concat()).await;
    }
    scene.runs("one", 1).await;
    scene.runs("two", 1).await;
    let look = async || {
        let env = yard.env(yard.settings.clone());
        registry::look(&env, &mut Memory::default()).await.expect("the engine answers")
    };
    let images = async || [scene.image("one").await, scene.image("two").await];
    assert!(look().await.is_empty(), "nothing is new");

    registry.push("skep-test/shop:worker2", "worker:1").await;
    let asked = look().await;
    let [op] = asked.as_slice() else { panic!("{asked:?}") };
    let op = yard.drive(&op.id, "driver", |_| false).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    let new = images().await;
    println!("registry: {} to {}", op.title(), new[0]);
    assert!(new[0].starts_with(&format!("{image}@sha256:")) && new[0] == new[1], "{new:?}");

    registry.push("skep-test/shop:crashes", "worker:1").await;
    let asked = look().await;
    let [op] = asked.as_slice() else { panic!("{asked:?}") };
    let op = yard.drive(&op.id, "driver", |_| false).await;
    assert_eq!(op.journal.state, State::RolledBack, "{}", told(&op));
    assert_eq!(images().await, new, "{}", told(&op));
    assert!(look().await.is_empty(), "it did not do");
    registry.remove().await;
    assert!(look().await.is_empty(), "a registry that is gone is no reason for anything");
    for name in &names {
        sandbox.docker(&["service", "rm", name]).await;
    }
}

/// It is backed up before it gets another image, and goes back where none of that ran.
async fn of_a_database(scene: &Scene) {
    let yard = &scene.yard;
    let fill = "psql -U shop -d shop -XAtqv ON_ERROR_STOP=1 -h 127.0.0.1 \
                -c 'CREATE TABLE orders AS SELECT generate_series(1, 500) AS id' -c 'SELECT 1'";
    yard.sh("db", &format!("export PGPASSWORD=correct-horse; {fill}")).await;

    scene.runs("db", 1).await;
    let before = scene.spec("db").await;
    let op = yard.run("db", update("postgres:nowhere", Some(4))).await;
    println!("nowhere: {:?}", op.journal.state);
    scene.is_back(&op, "db", &before, "apply", "No such image").await;
    eventually("the old data", PATIENCE, async || scene.orders().await).await;

    // Work that must not be interrupted refuses, and is waited for where somebody says so.
    let container = yard.sandbox.container(&yard.stack.service("db")).await;
    let work = ["exec", "-d", &container, "psql", "-U", "shop", "-d", "shop", "-c", "SELECT pg_sleep(15)"];
    yard.sandbox.docker(&work).await;
    let busy =
        "psql -U shop -d shop -XAtqc \"SELECT 'busy' FROM pg_stat_activity WHERE wait_event = 'PgSleep'\"";
    yard.sh("db", busy).await;
    let op = yard.run("db", update("postgres:next", Some(4))).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    assert!(reason(&op, "preflight").contains("check `work`"), "{}", told(&op));
    println!("before: {}", reason(&op, "preflight"));
    assert_eq!((scene.spec("db").await, yard.backups("db").await.len()), (before, 1), "nothing was changed");
    let image = "skep-test/postgres:next".to_owned();
    let waits = Work::Update { image, monitor_s: Some(4), force: false, wait_s: Some(120), also: Vec::new() };
    let op = yard.run("db", waits).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    println!("waited: {}", op.journal.step("preflight").unwrap().out);
    // It was asked by SQL and by a command, which logs in with a password of the environment; at once, and while it was watched.
    assert_eq!(op.journal.step("check").unwrap().out["checks"], 2, "{}", told(&op));
    let watched: Vec<&String> = op.journal.step("watch").unwrap().jobs.keys().collect();
    assert!(
        watched.iter().any(|key| *key == "sql4") && watched.iter().any(|key| *key == "cmd4"),
        "{watched:?}"
    );
    assert!(!format!("{:?}", op.journal).contains("correct-horse"), "{}", told(&op));
    let idle = yard.try_sh("db", busy).await.unwrap();
    assert_eq!(idle.trim(), "", "the work was done before it began");
    assert_eq!(scene.image("db").await, "skep-test/postgres:next");
    assert_eq!(scene.orders().await.unwrap().trim(), "500");
    let backups = yard.backups("db").await;
    let newest = backups.last().unwrap();
    assert_eq!((backups.len(), newest.entry.purpose), (2, Purpose::Safety));
    let written: jiff::Timestamp =
        op.journal.step("apply").unwrap().out["at"].as_str().unwrap().parse().unwrap();
    assert!(newest.entry.taken < written, "the backup is of before");
    println!("good: backup of {} before it was written at {written}", newest.entry.taken);

    // A row that nobody has fails a restart, and leaves it up.
    for (label, said) in [
        ("skep.check.orders.expect=ge 501", "check `orders`: found 500, wanted ≥ 501"),
        ("skep.check.login.expect=eq 501", "check `login`: printed 500, wanted = 501"),
    ] {
        let name = yard.stack.service("db");
        yard.sandbox.docker(&["service", "update", "-d", "--label-add", label, &name]).await;
        let op = yard.run("db", restart(false, Manner::Fitting)).await;
        assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
        assert!(reason(&op, "start").contains(said), "{}", told(&op));
        println!("restart: {}", reason(&op, "start"));
        let (key, _) = label.split_once('=').unwrap();
        let back = if key.contains("orders") { format!("{key}=ge 500") } else { format!("{key}=eq 500") };
        yard.sandbox.docker(&["service", "update", "-d", "--label-add", &back, &name]).await;
        scene.runs("db", 1).await;
    }

    of_a_registry(scene).await;

    // It has run, so a person decides; unless the labels say that the image may go back.
    let before = scene.spec("db").await;
    let op = yard.run("db", update("postgres:crashes", Some(4))).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    assert!(told(&op).contains("was not put back"), "{}", told(&op));
    assert_eq!(scene.image("db").await, "skep-test/postgres:crashes");
    let name = yard.stack.service("db");
    let back = ["service", "update", "-d", "--no-resolve-image", "--image", "skep-test/postgres:next", &name];
    yard.sandbox.docker(&back).await;
    eventually("the database by hand", PATIENCE, async || scene.orders().await).await;
    scene.runs("db", 1).await;
    assert_eq!(scene.spec("db").await, before);
    let may = ["service", "update", "-d", "--label-add", "skep.update.rollback=image", &name];
    yard.sandbox.docker(&may).await;
    let before = scene.spec("db").await;
    let force = Work::Update {
        image: "skep-test/postgres:crashes".to_owned(),
        monitor_s: None,
        force: true,
        wait_s: None,
        also: Vec::new(),
    };
    let op = yard.run("db", force).await;
    scene.is_back(&op, "db", &before, "apply", EXIT).await;
    assert_eq!(eventually("the data", PATIENCE, async || scene.orders().await).await.trim(), "500");
}
