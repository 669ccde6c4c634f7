//! The roles of a PostgreSQL on a real Swarm: its cluster is lost, and a new one gets those that a backup needs, exactly as they
//! were, although whoever drives it dies; and loses them again where the restore goes back.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_roles -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::time::Duration;

use skep::operation::record::{State, Work};
use skep::operation::settings::{Settings, Store};
use skep_tests::sandbox::{eventually, unique};
use skep_tests::yard::{RESTORE, Yard, told};

const PATIENCE: Duration = Duration::from_secs(60);

const WITH_ROLES: Work =
    Work::Restore { to: None, backup: None, before: None, in_place: None, quiesce: None, create_roles: true };

const STACK: &str = r#"
version: "3.8"
services:
  db:
    image: skep-test/postgres:15
    command: ["postgres", "-c", "log_statement=all", "-c", "log_min_duration_statement=0"]
    environment: { POSTGRES_USER: shop, POSTGRES_PASSWORD: correct-horse, POSTGRES_DB: shop }
    volumes: ["db:/var/lib/postgresql/data"]
    deploy:
      endpoint_mode: dnsrr
      labels:
        skep.enable: "true"
        skep.data: postgres
        skep.data.database: shop
        skep.check.orders.sql: SELECT count(*) FROM orders
        skep.check.orders.expect: eq 500
volumes: { db: {} }
"#;

/// A table of an owner who may not log in, and who reads it by a group.
const FILL: &str = "\
    CREATE ROLE \"the owner\" NOLOGIN; CREATE ROLE readers; CREATE ROLE clerk LOGIN PASSWORD 'planted-clerk' CONNECTION LIMIT 3; \
    GRANT readers TO clerk; ALTER ROLE clerk SET work_mem = '7MB'; COMMENT ON ROLE readers IS 'who; reads'; \
    CREATE TABLE orders AS SELECT i AS id, md5(i::text) AS what FROM generate_series(1, 500) i; \
    ALTER TABLE orders OWNER TO \"the owner\"; GRANT SELECT ON orders TO readers";

/// Everything about the roles that are nobody's but the application's.
const ROLES: &str = "\
    SELECT json_agg(json_build_array(rolname, rolpassword, rolcanlogin, rolconnlimit, rolinherit, \
      (SELECT setconfig FROM pg_db_role_setting WHERE setrole = a.oid), shobj_description(a.oid, 'pg_authid'), \
      (SELECT json_agg(roleid::regrole::text) FROM pg_auth_members WHERE member = a.oid)) ORDER BY rolname) \
    FROM pg_authid a WHERE rolname IN ('the owner', 'readers', 'clerk')";

const DATA: &str = "\
    SELECT count(*) || ' ' || md5(string_agg(id || what, ',' ORDER BY id)) || ' ' || \
      (SELECT relowner::regrole || ' ' || relacl::text FROM pg_class WHERE oid = 'orders'::regclass) FROM orders";

async fn sql(yard: &Yard, text: &str) -> Result<String, String> {
    let text = text.replace('"', "\\\"");
    // By TCP: while a cluster is made, a server that is about to stop again answers at the socket.
    let psql = "PGPASSWORD=correct-horse psql -h 127.0.0.1 -U shop -d shop -XAtq -v ON_ERROR_STOP=1";
    yard.try_sh("db", &format!("{psql} -c \"{text}\"")).await
}

/// The cluster, once it answers.
async fn identity(yard: &Yard) -> String {
    eventually("the server", PATIENCE, async || {
        sql(yard, "SELECT system_identifier FROM pg_control_system()").await
    })
    .await
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_new_cluster_gets_the_roles_that_a_backup_needs_and_loses_them_where_the_restore_goes_back() {
    let store = unique("roles-backups");
    let volume = Store::Volume { name: store.clone(), driver: None, options: BTreeMap::new() };
    let settings =
        Settings { stores: BTreeMap::from([("default".to_owned(), volume)]), ..Settings::default() };
    let yard = Yard::deploy("roles", STACK, settings).await;
    let first = identity(&yard).await;
    sql(&yard, FILL).await.unwrap();
    let (roles, data) = (sql(&yard, ROLES).await.unwrap(), sql(&yard, DATA).await.unwrap());
    let op = yard.run("db", Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));

    // All of the cluster is lost: the same service, on an empty volume.
    let service = yard.stack.service("db");
    let target = "/var/lib/postgresql/data";
    let another = format!("type=volume,source={},target={target}", yard.stack.service("db-new"));
    let update = ["service", "update", "-d", "--mount-rm", target, "--mount-add", &another, &service];
    yard.sandbox.docker(&update).await;
    eventually("the new cluster", PATIENCE, async || match identity(&yard).await {
        same if same == first => Err("it is the old one".to_owned()),
        _ => Ok(()),
    })
    .await;
    assert_eq!(sql(&yard, ROLES).await.unwrap().trim(), "");

    // Nobody said that roles may be made.
    let op = yard.run("db", RESTORE).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    assert!(told(&op).contains("role `the owner` does not exist"), "{}", told(&op));
    assert!(told(&op).contains("--create-roles"), "{}", told(&op));

    // What is restored fails a check, and nothing of it stays.
    let never =
        ["--label-add", "skep.check.never.sql=SELECT 0", "--label-add", "skep.check.never.expect=ge 1"];
    yard.sandbox.docker(&[&["service", "update", "-d"], &never[..], &[&service]].concat()).await;
    let op = yard.run("db", WITH_ROLES).await;
    assert_ne!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert!(told(&op).contains("dropped again: role `clerk`"), "{}", told(&op));
    assert_eq!(sql(&yard, ROLES).await.unwrap().trim(), "", "{}", told(&op));

    let ever = ["--label-rm", "skep.check.never.sql", "--label-rm", "skep.check.never.expect"];
    yard.sandbox.docker(&[&["service", "update", "-d"], &ever[..], &[&service]].concat()).await;
    let is_making = |op: &skep::operation::record::Operation| {
        op.journal.step("beside").is_some_and(|step| step.jobs.contains_key("roles0"))
    };
    let op = yard.run_killed(is_making, "db", WITH_ROLES).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert_eq!(sql(&yard, ROLES).await.unwrap(), roles, "{}", told(&op));
    assert_eq!(sql(&yard, DATA).await.unwrap(), data, "{}", told(&op));
    let login =
        "PGPASSWORD=planted-clerk psql -h 127.0.0.1 -U clerk -d shop -XAtq -c 'SELECT count(*) FROM orders'";
    assert_eq!(yard.sh("db", login).await.trim(), "500", "{}", told(&op));

    // The server's log shows what people do, and no hash of a password.
    let container = yard.sandbox.container(&service).await;
    let log = yard.sandbox.try_docker(&["logs", &container]).await;
    let log = [log.stdout, log.stderr].concat();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("rolpassword") && log.contains("pg_control_system"), "it logs statements");
    assert!(!log.contains("SCRAM-SHA-256$"), "the hash of a password is in the server's log");
    println!("{}", told(&op));
    yard.sandbox.docker(&["service", "scale", "-d", &format!("{service}=0")]).await;
    let sandbox = yard.sandbox;
    yard.strike().await;
    sandbox.remove_volume(&store).await;
}
