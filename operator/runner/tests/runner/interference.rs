//! What happens when something changes beneath the runner's hands: statements without effect, files that are written to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Cluster, Outcome, Runner, bin, run_with};
use skep_runner::task::{PgRestore, PgSwap, Report, Stored, Task};

fn restore(cluster: &Cluster, stored: &Stored) -> Task {
    Task::PgRestore(PgRestore {
        connect: cluster.connect(),
        stored: stored.clone(),
        live: "app".into(),
        side: "skep_x_1".into(),
    })
}

/// Runs a task with `script` in the place of a tool of the image; `$REAL` is the tool itself.
fn run_with_tool(cluster: &Cluster, task: Task, tool: &str, script: &str) -> Outcome {
    let tools = cluster.dir.join("tools");
    fs::create_dir_all(&tools).unwrap();
    let path = tools.join(tool);
    let real = bin().join(tool);
    fs::write(&path, format!("#!/bin/sh\nREAL='{}'\n{script}\n", real.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let search = format!("{}:{}:{}", tools.display(), bin().display(), std::env::var("PATH").unwrap());
    Runner::new(cluster, task).env("PATH", search).run()
}

#[test]
fn a_property_that_was_set_without_effect_fails_the_restore_and_leaves_nothing() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql("postgres", "COMMENT ON DATABASE app IS 'the shop'");
    let stored = cluster.back_up("app", "b1");
    let deaf = "sed -u '/^COMMENT ON DATABASE/d' | \"$REAL\" \"$@\"";
    let message = run_with_tool(&cluster, restore(&cluster, &stored), "psql", deaf).refused();
    assert!(message.contains("did not get all properties: comment"), "{message}");
    assert_eq!(cluster.databases(), "app");
}

#[test]
fn a_backup_that_is_written_to_while_it_is_restored_is_refused() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql("app", "CREATE TABLE t AS SELECT 1 AS i");
    let stored = cluster.back_up("app", "b1");
    let dump = cluster.store().join("b1/app.dump");
    let script = format!("\"$REAL\" \"$@\" || exit; printf x >> '{}'", dump.display());
    let message = run_with_tool(&cluster, restore(&cluster, &stored), "pg_restore", &script).refused();
    assert!(message.contains("was changed while it was used"), "{message}");
    assert_eq!(cluster.databases(), "app");
}

#[test]
fn subscriptions_of_the_live_database_do_not_begin_a_second_time() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql("app", "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)");
    let stored = cluster.back_up("app", "b1");
    run_with(&cluster, restore(&cluster, &stored)).done();
    let of =
        "SELECT string_agg(d.datname, ',') FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid";
    assert_eq!(cluster.sql("postgres", of), "app");
}

#[test]
fn repeating_a_swap_shuts_the_old_database_again() {
    let cluster = Cluster::start();
    for name in ["app", "skep_new"] {
        cluster.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    let swap = PgSwap {
        connect: cluster.connect(),
        name: "app".into(),
        live: Some(cluster.named("app")),
        new: cluster.named("skep_new"),
        away: "skep_old".into(),
        end_sessions: true,
    };
    let report = run_with(&cluster, Task::PgSwap(swap.clone())).done();
    assert!(matches!(report, Report::PgSwap { .. }));
    cluster.sql("postgres", "ALTER DATABASE skep_old ALLOW_CONNECTIONS true");
    run_with(&cluster, Task::PgSwap(swap)).done();
    let open = "SELECT datallowconn FROM pg_database WHERE datname = 'skep_old'";
    assert_eq!(cluster.sql("postgres", open), "f", "who writes there now writes into what will be dropped");
}
