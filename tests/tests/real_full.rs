//! An update that spoils a database on a real Swarm: image and data go back as one, row by row, although whoever drives it
//! dies in the middle.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_full -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use skep::operation::points;
use skep::operation::record::{Operation, State, Work};
use skep::operation::settings::{Settings, Store};
use skep::swarm::object::TaskState;
use skep_tests::sandbox::{Sandbox, eventually, unique};
use skep_tests::yard::{Yard, told};

const PATIENCE: Duration = Duration::from_secs(60);

/// An application whose health check reads a column, and a worker that uses the same database.
const STACK: &str = r#"
version: "3.8"
volumes: { db: {} }
services:
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
      labels: { skep.enable: "true", skep.data: postgres, skep.data.database: shop }
  notes:
    image: skep-test/notes:1
    environment: { PGHOST: db, PGUSER: shop, PGPASSWORD: correct-horse, PGDATABASE: shop }
    stop_grace_period: 2s
    healthcheck:
      test: ["CMD-SHELL", "psql -XAtqc 'SELECT count(title) FROM notes'"]
      interval: 500ms
      timeout: 3s
      retries: 4
    deploy:
      replicas: 2
      endpoint_mode: dnsrr
      restart_policy: { delay: 500ms }
      update_config: { monitor: 2s, failure_action: rollback }
      labels:
        skep.enable: "true"
        skep.depends-on: db
        skep.update.monitor: 4s
        skep.update.rollback: full
  worker:
    image: skep-test/notes:1
    environment: { PGHOST: db, PGUSER: shop, PGPASSWORD: correct-horse, PGDATABASE: shop }
    stop_grace_period: 2s
    deploy:
      endpoint_mode: dnsrr
      labels: { skep.enable: "true", skep.depends-on: db }
"#;

const WAITS: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";
const MIGRATES: &str = "psql -XAtqc 'ALTER TABLE notes DROP COLUMN title' -c 'DROP TABLE tags'";

fn update(image: &str, force: bool) -> Work {
    Work::Update {
        image: format!("skep-test/{image}"),
        monitor_s: None,
        force,
        wait_s: None,
        also: Vec::new(),
    }
}

async fn set() -> (Yard, String) {
    let sandbox = Sandbox::shared().await;
    let images = [
        ("notes:1", WAITS.to_owned()),
        ("notes:2", format!("true; {WAITS}")),
        ("notes:spoils", format!("{MIGRATES}; {WAITS}")),
    ];
    for (name, script) in images {
        let entry = json!(["bash", "-c", script]);
        sandbox
            .image(&format!("skep-test/{name}"), &format!("FROM skep-test/postgres:15\nENTRYPOINT {entry}"))
            .await;
    }
    let store = unique("full-backups");
    let volume = Store::Volume { name: store.clone(), driver: None, options: BTreeMap::new() };
    let stores = BTreeMap::from([("default".to_owned(), volume)]);
    let yard = Yard::deploy("full", STACK, Settings { stores, ..Settings::default() }).await;
    let fill = "export PGPASSWORD=correct-horse; psql -U shop -d shop -XAtqv ON_ERROR_STOP=1 -h 127.0.0.1 \
                -c \"CREATE TABLE notes AS SELECT n AS id, 'title ' || n AS title FROM generate_series(1, 500) n\" \
                -c \"CREATE TABLE tags AS SELECT n AS note, md5(n::text) AS tag FROM generate_series(1, 300) n\" \
                -c 'SELECT 1'";
    yard.sh("db", fill).await;
    runs(&yard, "notes", 2).await;
    runs(&yard, "worker", 1).await;
    (yard, store)
}

/// Waits until so many tasks of a service run, and are healthy.
async fn runs(yard: &Yard, service: &str, wanted: usize) {
    let name = yard.stack.service(service);
    eventually(&format!("{wanted} task(s) of {name}"), PATIENCE, async || {
        let service = yard.engine.service(&name).await.map_err(|e| e.to_string())?;
        let tasks = yard.engine.tasks(&[&service.id]).await.map_err(|e| e.to_string())?;
        let running = tasks.iter().filter(|t| t.state == TaskState::Running).count();
        if running == wanted { Ok(()) } else { Err(format!("{running} run")) }
    })
    .await;
}

async fn specs(yard: &Yard) -> Vec<Value> {
    let mut specs = Vec::new();
    for service in ["db", "notes", "worker"] {
        specs.push(yard.engine.service(&yard.stack.service(service)).await.unwrap().spec);
    }
    specs
}

/// Everything that the database holds, as statements.
async fn dump(yard: &Yard) -> String {
    let dump = "export PGPASSWORD=correct-horse; pg_dump -U shop -h 127.0.0.1 --inserts shop | grep -v '^.\\(un\\)\\?restrict '";
    yard.sh("db", dump).await
}

async fn rows(yard: &Yard, sql: &str) -> String {
    let psql = format!("psql -U shop -d shop -XAtqc \"{sql}\"");
    yard.try_sh("db", &psql).await.unwrap().trim().to_owned()
}

async fn is_back(yard: &Yard, op: &Operation, before: &(Vec<Value>, String)) {
    println!("{}: {:?} {:#?}", op.title(), op.journal.state, op.journal.remarks);
    assert_eq!(op.journal.state, State::RolledBack, "{}", told(op));
    assert_eq!(specs(yard).await, before.0, "{}", told(op));
    assert_eq!(dump(yard).await, before.1, "{}", told(op));
    runs(yard, "notes", 2).await;
    runs(yard, "worker", 1).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_database_that_an_update_spoils_comes_back_with_the_image_row_by_row() {
    let (yard, store) = set().await;
    let ended = |op: &Operation| op.journal.state == State::Stuck;

    let good = yard.ask("notes", update("notes:2", false)).await;
    let good = yard.drive(&good, "driver", ended).await;
    assert_eq!(good.journal.state, State::Succeeded, "{}", told(&good));
    assert_eq!(rows(&yard, "SELECT count(*) FROM notes").await, "500");
    let before = (specs(&yard).await, dump(&yard).await);

    let id = yard.ask("notes", update("notes:spoils", false)).await;
    let op = yard.drive(&id, "driver", ended).await;
    is_back(&yard, &op, &before).await;

    // It is known not to do; somebody tries it all the same, and whoever drives it dies on the way back.
    let again = yard.ask("notes", update("notes:spoils", false)).await;
    let again = yard.drive(&again, "driver", ended).await;
    assert_eq!(again.journal.state, State::Failed, "{}", told(&again));
    let id = yard.ask("notes", update("notes:spoils", true)).await;
    let is_written = |op: &Operation| op.journal.step("apply").is_some_and(|r| r.out["ran"] == true);
    let op = yard.drive(&id, "first", is_written).await;
    assert!(!op.journal.state.is_terminal(), "{}", told(&op));
    // What users write meanwhile is not in what comes back, and is not lost either.
    rows(&yard, "INSERT INTO notes (id) VALUES (1000)").await;
    let goes_back = |op: &Operation| {
        op.journal
            .step("apply")
            .is_some_and(|r| r.note.contains("goes back with its data") && r.note.ends_with("cut"))
    };
    let op = yard.drive(&id, "first", |op| goes_back(op) || ended(op)).await;
    println!("died at {}", told(&op));
    let op = yard.drive(&id, "second", ended).await;
    is_back(&yard, &op, &before).await;
    let kept =
        rows(&yard, "SELECT datname FROM pg_database WHERE datname LIKE 'skep\\_%\\_old' ORDER BY 1").await;
    assert!(!kept.is_empty(), "what was there is kept");
    let points = points::list(&yard.engine, None).await.unwrap();
    assert!(points.iter().any(|p| op.journal.remarks.iter().any(|r| r.contains(p.head.id.as_str()))));
    let sandbox = yard.sandbox;
    yard.strike().await;
    sandbox.remove_volume(&store).await;
}
