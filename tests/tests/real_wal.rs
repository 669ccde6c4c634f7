//! Point in time on a real Swarm: the log of a PostgreSQL is received, and the database comes back as it was at a moment,
//! to the row; also when whoever drives the operation dies in the middle.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_wal -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use jiff::Timestamp;
use skep::operation::receiver;
use skep::operation::record::{Operation, State, Work};
use skep::operation::settings::Settings;
use skep_tests::sandbox::eventually;
use skep_tests::yard::{Yard, told};

const PATIENCE: Duration = Duration::from_secs(120);
const STACK: &str = r#"
services:
  db:
    image: skep-test/postgres:15
    command: postgres -c max_slot_wal_keep_size=1GB
    environment: { POSTGRES_USER: shop, POSTGRES_DB: shop, POSTGRES_PASSWORD: correct-horse }
    volumes: ["data:/var/lib/postgresql/data"]
    deploy:
      endpoint_mode: dnsrr
      labels:
        skep.enable: "true"
        skep.data: postgres
        skep.data.database: shop
        skep.backup.wal: "true"
        skep.check.orders.sql: SELECT count(*) FROM orders
        skep.check.orders.expect: ge 1
volumes:
  data:
"#;

fn sql(text: &str) -> String {
    format!("psql -X -A -t -q -v ON_ERROR_STOP=1 -U shop -d shop -c \"{text}\"")
}

fn succeeded(op: &Operation) {
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(op));
}

fn to(at: &str) -> Work {
    let to = Some(at.parse::<Timestamp>().unwrap());
    Work::Restore { backup: None, before: None, to, in_place: None, quiesce: None, create_roles: false }
}

async fn now(yard: &Yard) -> String {
    let zone = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')";
    yard.sh("db", &sql(zone)).await.trim().replace(' ', "T") + "Z"
}

async fn rows(yard: &Yard) -> String {
    yard.sh("db", &sql("SELECT string_agg(what, ',' ORDER BY what) FROM orders")).await.trim().to_owned()
}

/// Keeps receivers as a leader does, until what was committed by a moment was received.
async fn received(yard: &Yard, at: &str) {
    let at: Timestamp = at.parse().unwrap();
    let env = yard.env(yard.settings.clone());
    eventually("the log is received", PATIENCE, async || {
        let standings = receiver::reconcile(&env, false).await.map_err(|e| e.to_string())?;
        let until = standings.iter().find_map(|s| s.until).ok_or("it has told nothing")?;
        let is_there = until.as_second() > at.as_second();
        is_there.then_some(()).ok_or_else(|| format!("it is there until {until}"))
    })
    .await;
}

/// A server that lets no replication in: `skep check` has it from here.
async fn told_what_is_missing(yard: &Yard) {
    let env = yard.env(yard.settings.clone());
    eventually("what is missing is told", PATIENCE, async || {
        receiver::reconcile(&env, false).await.map_err(|e| e.to_string())?;
        let all = receiver::standings(&env.engine).await.map_err(|e| e.to_string())?;
        let standing = all.get(&yard.stack.service("db")).ok_or("there is no receiver")?;
        let fault = standing.fault.clone().unwrap_or_default();
        fault.contains("host replication shop").then_some(()).ok_or(fault)
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_database_comes_back_as_it_was_at_a_moment() {
    let yard = Yard::deploy("wal", STACK, Settings::default()).await;
    yard.sh("db", &sql("CREATE TABLE orders (what text); INSERT INTO orders VALUES ('a'); SELECT 1")).await;
    told_what_is_missing(&yard).await;
    let line = "echo 'host replication all all scram-sha-256' >>$PGDATA/pg_hba.conf";
    yard.sh("db", &format!("{line} && {}", sql("SELECT pg_reload_conf()"))).await;
    received(&yard, &now(&yard).await).await;
    succeeded(&yard.run("db", Work::Backup).await);
    let backups = yard.backups("db").await;
    assert!(backups[0].entry.base.is_some());
    let mut moments = Vec::new();
    for what in ["b", "c"] {
        // Each time it goes on where the slot says.
        eventually("its receiver runs, and is killed", PATIENCE, async || {
            let receiver = yard.sandbox.docker(&["ps", "-q", "--filter", "name=skep-wal-"]).await;
            let killed = yard.sandbox.try_docker(&["kill", receiver.trim()]).await;
            if killed.status.success() { Ok(()) } else { Err(format!("{killed:?}")) }
        })
        .await;
        yard.sh("db", &sql(&format!("INSERT INTO orders VALUES ('{what}'); SELECT 1"))).await;
        moments.push(now(&yard).await);
    }
    yard.sh("db", &sql("DROP TABLE orders; SELECT 1")).await;
    received(&yard, &now(&yard).await).await;
    let op = yard.run("db", to(&moments[0])).await;
    succeeded(&op);
    println!("{}", told(&op));
    assert_eq!(rows(&yard).await, "a,b");
    let dies = |op: &Operation| op.journal.step("recover").is_some_and(|r| !r.jobs.is_empty());
    succeeded(&yard.run_killed(dies, "db", to(&moments[1])).await);
    assert_eq!(rows(&yard).await, "a,b,c");
    let early = yard.run("db", to("2026-01-01T00:00:00Z")).await;
    assert_eq!(early.journal.state, State::Failed);
    assert_eq!(rows(&yard).await, "a,b,c");
    // Without the label nothing is left: no receiver, no slot.
    let docker = ["service", "update", "--label-rm", "skep.backup.wal", "--detach"];
    let service = yard.stack.service("db");
    yard.sandbox.docker(&[&docker[..], &[&service]].concat()).await;
    let env = yard.env(yard.settings.clone());
    eventually("slot and receiver are gone", PATIENCE, async || {
        receiver::reconcile(&env, false).await.map_err(|e| e.to_string())?;
        let slots = yard.sh("db", &sql("SELECT 'slots: ' || count(*) FROM pg_replication_slots")).await;
        let left = yard.sandbox.docker(&["service", "ls", "-q", "--filter", "name=skep-wal-"]).await;
        if slots.trim() == "slots: 0" && left.is_empty() { Ok(()) } else { Err(format!("{slots} {left}")) }
    })
    .await;
    yard.strike().await;
}
