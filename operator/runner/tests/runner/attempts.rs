//! What happens around a task: older attempts, stopping, secrets, roles, room.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::support::{Cluster, Outcome, PASSWORD, Runner, next_attempt, run_with, until};
use rustix::process::{Pid, Signal, kill_process};
use skep_runner::line::FaultKind;
use skep_runner::store::MARK;
use skep_runner::task::{
    Anchors, Connect, Named, PgDrop, PgDump, PgRestore, PgSwap, Report, Stored, Task, Ticket,
};

/// A database that takes a moment to restore.
fn slow_backup(cluster: &Cluster) -> Stored {
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql(
        "app",
        "CREATE FUNCTION slow(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           'BEGIN PERFORM pg_sleep(60); RETURN i; END';
         CREATE TABLE t (i int)",
    );
    cluster.sql("app", "CREATE INDEX ON t (slow(i))");
    // Restored, the index is built over this row.
    cluster.sql("app", "SET session_replication_role = replica; ALTER TABLE t ADD j int");
    cluster.sql(
        "app",
        "CREATE OR REPLACE FUNCTION slow(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN i; END';
         INSERT INTO t VALUES (1);
         CREATE OR REPLACE FUNCTION slow(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
           'BEGIN PERFORM pg_sleep(60); RETURN i; END'",
    );
    cluster.back_up("app", "b1")
}

fn restore(cluster: &Cluster, stored: &Stored, side: &str) -> Task {
    Task::PgRestore(PgRestore {
        connect: cluster.connect(),
        stored: stored.clone(),
        live: "app".into(),
        side: side.into(),
    })
}

fn is_loading(cluster: &Cluster) -> bool {
    cluster.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%'") == "1"
}

fn sessions(cluster: &Cluster, application: &str) -> String {
    cluster.sql(
        "postgres",
        &format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application}'"),
    )
}

#[test]
fn a_later_attempt_ends_the_sessions_of_an_earlier_one_and_of_nobody_else() {
    let cluster = Cluster::start();
    let stored = slow_backup(&cluster);
    let older = Runner::new(&cluster, restore(&cluster, &stored, "skep_x_1"));
    let name = older.session().to_owned();
    let older = older.spawn();
    until(|| is_loading(&cluster));
    // Paused, as on a node that is cut off: only the server can end what it is doing.
    kill_process(Pid::from_child(&older), Signal::STOP).unwrap();
    let mut other = cluster.client("psql", "post gres", "postgres");
    let mut other =
        other.env("PGAPPNAME", "skep-op2-step-1").args(["-c", "SELECT pg_sleep(60)"]).spawn().unwrap();
    until(|| sessions(&cluster, "skep-op2-step-1") == "1");
    let databases = vec![Named { name: "skep_x_1".into(), oid: 0 }];
    run_with(&cluster, Task::PgDrop(PgDrop { connect: cluster.connect(), databases })).done();
    assert_eq!(sessions(&cluster, &name), "0");
    assert_eq!(sessions(&cluster, "skep-op2-step-1"), "1");
    assert_eq!(cluster.databases(), "app");
    kill_process(Pid::from_child(&older), Signal::CONT).unwrap();
    assert_ne!(Outcome::of(older).code, Some(0));
    assert_eq!(cluster.databases(), "app");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn one_job_at_a_time_changes_databases() {
    let cluster = Cluster::start();
    let stored = slow_backup(&cluster);
    let first = Runner::new(&cluster, restore(&cluster, &stored, "skep_x_1")).spawn();
    until(|| is_loading(&cluster));
    let ticket = Ticket {
        schema: 1,
        session: "skep-op2-step-1".into(),
        fence: "skep-op2-step-".into(),
        anchors: None,
        task: Task::PgDrop(PgDrop { connect: cluster.connect(), databases: vec![] }),
    };
    assert!(Runner::with_ticket(&cluster, ticket).run().put_off().contains("another job of Skep"));
    kill_process(Pid::from_child(&first), Signal::TERM).unwrap();
    first.wait_with_output().unwrap();
}

#[test]
fn told_to_stop_the_runner_ends_its_tools_and_their_sessions() {
    let cluster = Cluster::start();
    let stored = slow_backup(&cluster);
    let runner = Runner::new(&cluster, restore(&cluster, &stored, "skep_x_1"));
    let name = runner.session().to_owned();
    let runner = runner.spawn();
    until(|| is_loading(&cluster));
    let tools = descendants(runner.id());
    // And its workers, where there are processors for more than one.
    assert!(tools.len() >= 2, "psql and pg_restore: {tools:?}");
    kill_process(Pid::from_child(&runner), Signal::TERM).unwrap();
    assert!(Outcome::of(runner).put_off().contains("told to stop"));
    until(|| tools.iter().all(|id| !fs::exists(format!("/proc/{id}")).unwrap()));
    until(|| sessions(&cluster, &name) == "0");
    run_with(
        &cluster,
        Task::PgDrop(PgDrop { connect: cluster.connect(), databases: vec![cluster.named("skep_x_1")] }),
    )
    .done();
}

#[test]
fn as_process_1_the_runner_passes_the_signal_on_and_reaps_what_it_is_left_with() {
    let cluster = Cluster::start();
    let stored = slow_backup(&cluster);
    let runner = Runner::new(&cluster, restore(&cluster, &stored, "skep_x_1"));
    // In a process namespace of its own, where an orphan is left to process 1 as well.
    let mut command = runner.apart(&["--pid", "--fork", "--kill-child", "--mount-proc"], "(sleep 0.1 &)");
    let unshare = command.spawn().unwrap();
    until(|| is_loading(&cluster));
    let init = *children(unshare.id()).first().expect("unshare has a child");
    until(|| descendants(init).iter().all(|id| !is_zombie(*id)));
    kill_process(Pid::from_raw(init as i32).unwrap(), Signal::TERM).unwrap();
    assert!(Outcome::of(unshare).put_off().contains("told to stop"));
}

fn children(id: u32) -> BTreeSet<u32> {
    let stat_of = |id: &str| fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let ids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    ids.filter(|other| {
        let stat = stat_of(other);
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&id.to_string())
    })
    .filter_map(|id| id.parse().ok())
    .collect()
}

fn descendants(id: u32) -> BTreeSet<u32> {
    let direct = children(id);
    direct.iter().flat_map(|id| descendants(*id)).chain(direct.iter().copied()).collect()
}

fn is_zombie(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default().contains(") Z ")
}

#[test]
fn the_password_is_in_no_argument_and_in_no_line() {
    let cluster = Cluster::start();
    let stored = slow_backup(&cluster);
    let runner = Runner::new(&cluster, restore(&cluster, &stored, "skep_x_1")).spawn();
    until(|| is_loading(&cluster));
    let mut seen = String::new();
    for id in descendants(runner.id()).into_iter().chain([runner.id()]) {
        seen += &String::from_utf8_lossy(&fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default());
    }
    assert!(seen.contains("pg_restore") && seen.contains("psql"), "{seen}");
    assert!(!seen.contains(PASSWORD) && !seen.contains("S3kret"));
    kill_process(Pid::from_child(&runner), Signal::TERM).unwrap();
    assert!(!Outcome::of(runner).text.contains("S3kret"));
}

#[test]
fn a_tool_that_repeats_the_password_is_not_quoted_with_it() {
    let cluster = Cluster::start();
    let tools = cluster.dir.join("tools");
    fs::create_dir(&tools).unwrap();
    fs::write(tools.join("psql"), "#!/bin/sh\necho \"cannot log in with $PGPASSWORD\" >&2\nexit 1\n")
        .unwrap();
    Command::new("chmod").arg("755").arg(tools.join("psql")).status().unwrap();
    let task = PgDump { connect: cluster.connect(), database: "postgres".into(), dir: "d".into() };
    let runner = Runner::new(&cluster, Task::PgDump(task));
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let outcome = runner.env("PATH", path).run();
    assert!(outcome.text.contains("cannot log in with [redacted]"), "{}", outcome.text);
    assert!(!outcome.text.contains("S3kret"));
}

#[test]
fn a_wrong_password_is_final_and_an_absent_server_is_not() {
    let cluster = Cluster::start();
    fs::write(cluster.dir.join("wrong"), "wrong\n").unwrap();
    let wrong = Some(cluster.dir.join("wrong").to_str().unwrap().to_owned());
    let dump = |connect: Connect| {
        run_with(&cluster, Task::PgDump(PgDump { connect, database: "postgres".into(), dir: "d".into() }))
    };
    let message = dump(Connect { password_file: wrong, ..cluster.connect() }).refused();
    assert!(message.contains("password authentication failed"), "{message}");
    assert!(dump(Connect { port: 1, ..cluster.connect() }).put_off().contains("Connection refused"));
    let absent = Some("/nonexistent/password".to_owned());
    assert!(
        dump(Connect { password_file: absent, ..cluster.connect() })
            .refused()
            .contains("cannot read the secret")
    );
}

#[test]
fn a_missing_role_fails_the_restore_and_leaves_no_half_database() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE ROLE gone");
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql("app", "CREATE TABLE t (); ALTER TABLE t OWNER TO gone");
    let stored = cluster.back_up("app", "b1");
    cluster.sql("app", "DROP OWNED BY gone");
    cluster.sql("postgres", "DROP ROLE gone");
    let message = run_with(&cluster, restore(&cluster, &stored, "skep_x_1")).refused();
    assert!(message.contains("role \"gone\" does not exist"), "{message}");
    assert_eq!(cluster.databases(), "app");
}

#[test]
fn a_restore_that_would_fill_the_disk_is_stopped_and_dropped() {
    let cluster = Cluster::start();
    let stored = slow_backup(&cluster);
    // Twice this is more than any disk has.
    cluster.sql("postgres", "ALTER SYSTEM SET max_wal_size = '1000TB'");
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    until(|| cluster.sql("postgres", "SHOW max_wal_size") == "1000TB");
    let message = run_with(&cluster, restore(&cluster, &stored, "skep_x_1")).refused();
    assert!(message.contains("MiB are free where the data is"), "{message}");
    assert_eq!(cluster.databases(), "app");
}

#[test]
fn what_an_earlier_attempt_left_under_the_side_name_is_replaced_and_other_names_are_refused() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql("app", "CREATE TABLE t AS SELECT 1 AS i");
    let stored = cluster.back_up("app", "b1");
    cluster.sql("postgres", "CREATE DATABASE skep_x_1");
    cluster.sql("skep_x_1", "CREATE TABLE half ()");
    run_with(&cluster, restore(&cluster, &stored, "skep_x_1")).done();
    assert_eq!(cluster.sql("skep_x_1", "SELECT string_agg(relname, ',') FROM pg_stat_user_tables"), "t");
    assert!(run_with(&cluster, restore(&cluster, &stored, "app")).refused().contains("not the name"));
}

#[test]
fn nobody_but_a_superuser_gets_into_a_database_that_is_being_loaded() {
    let cluster = Cluster::start();
    let password = PASSWORD.replace('\'', "''");
    cluster.sql("postgres", &format!("CREATE ROLE owner LOGIN PASSWORD '{password}'"));
    let stored = slow_backup(&cluster);
    cluster.sql("postgres", "ALTER DATABASE app OWNER TO owner");
    let runner = Runner::new(&cluster, restore(&cluster, &stored, "skep_x_1")).spawn();
    until(|| is_loading(&cluster));
    assert!(cluster.psql_as("owner", "skep_x_1", "SELECT 1").unwrap_err().contains("too many connections"));
    assert!(cluster.psql_as("owner", "app", "SELECT 1").is_ok());
    kill_process(Pid::from_child(&runner), Signal::TERM).unwrap();
    runner.wait_with_output().unwrap();
}

#[test]
fn a_plain_owner_who_may_create_databases_can_back_up_restore_and_swap() {
    let cluster = Cluster::start();
    let password = PASSWORD.replace('\'', "''");
    cluster.sql("postgres", &format!("CREATE ROLE plain LOGIN CREATEDB PASSWORD '{password}'"));
    cluster.sql("postgres", "CREATE DATABASE app OWNER plain");
    cluster.psql_as("plain", "app", "CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 42 AS i").unwrap();
    let stored = cluster.back_up("app", "b1");
    let connect = Connect { user: "plain".into(), ..cluster.connect() };
    let Task::PgRestore(task) = restore(&cluster, &stored, "skep_x_1") else { unreachable!() };
    let report = run_with(&cluster, Task::PgRestore(PgRestore { connect: connect.clone(), ..task })).done();
    let Report::PgRestore { live, side, .. } = report else { panic!("{report:?}") };
    let task = PgSwap {
        connect,
        name: "app".into(),
        live,
        new: side,
        away: "skep_x_old".into(),
        end_sessions: true,
    };
    run_with(&cluster, Task::PgSwap(task)).done();
    assert_eq!(cluster.psql_as("plain", "app", "SELECT i FROM s.t").unwrap(), "42");
}

#[test]
fn a_ticket_that_is_not_understood_is_final() {
    let cluster = Cluster::start();
    let ticket = |schema, session: &str| Ticket {
        schema,
        session: session.into(),
        fence: "skep-op-step-".into(),
        anchors: None,
        task: Task::Probe,
    };
    assert!(Runner::with_ticket(&cluster, ticket(2, "skep-op-step-1")).run().refused().contains("format 2"));
    let long = format!("skep-op-step-{}", "1".repeat(60));
    assert!(Runner::with_ticket(&cluster, ticket(1, &long)).run().refused().contains("session name"));
    let report = Runner::with_ticket(&cluster, ticket(1, "skep-op-step-1")).run().done();
    assert!(matches!(report, Report::Probe { .. }));
    let runner = env!("CARGO_BIN_EXE_skep-runner");
    let output = Command::new(runner).args(["task", "--ticket", "/nonexistent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let line: skep_runner::Line = serde_json::from_slice(&output.stdout).unwrap();
    assert!(matches!(line, skep_runner::Line::Fault(fault) if fault.kind == FaultKind::Final));
}

#[test]
fn a_store_that_fills_up_is_told_has_no_half_backup_and_keeps_the_earlier_one() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.back_up("app", "one");
    // Nothing that could be compressed.
    cluster.sql(
        "app",
        "CREATE TABLE t AS SELECT sha256(g::text::bytea) AS a, sha256((-g)::text::bytea) AS b FROM generate_series(1, 100000) g",
    );
    let task = PgDump { connect: cluster.connect(), database: "app".into(), dir: "two".into() };
    let runner = Runner::new(&cluster, Task::PgDump(task));
    let said = Outcome::of(runner.in_small_store(&cluster.store()).spawn().unwrap()).refused();
    assert!(said.contains("No space left on device"), "{said}");
}

#[test]
fn s16_what_writes_to_a_store_looks_first_whether_it_is_the_one_that_it_was() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.back_up("app", "v1/shop/db/one");
    let dump = |known: &[&str]| {
        let task =
            PgDump { connect: cluster.connect(), database: "app".into(), dir: "v1/shop/db/two".into() };
        let dirs = known.iter().map(|dir| (*dir).to_owned()).collect();
        let anchors = Some(Anchors { store: "nas".into(), dirs });
        Runner::with_ticket(&cluster, Ticket { anchors, ..next_attempt(Task::PgDump(task)) })
    };
    dump(&["v1/shop/db/gone", "v1/shop/db/one"]).run().done();
    fs::remove_dir_all(cluster.store().join("v1")).unwrap();
    let said = dump(&["v1/shop/db/one"]).run().put_off();
    assert!(
        said.contains("the store `nas` does not hold the backup v1/shop/db/one: its mount is lost"),
        "{said}"
    );
    // A directory without a manifest is no backup.
    fs::create_dir_all(cluster.store().join("v1/shop/db/one")).unwrap();
    let said = dump(&["v1/shop/db/one", "v1/shop/db/zero"]).run().put_off();
    assert!(said.contains("nor any other"), "{said}");
    assert!(!cluster.store().join("v1/shop/db/two").exists());
    fs::write(cluster.store().join(MARK), "").unwrap();
    dump(&["v1/shop/db/one"]).run().done();
}
