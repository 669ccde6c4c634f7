//! The cut-over: repeatable, killable at every statement, and never an answer from half a database.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use crate::support::{Cluster, Outcome, Runner, run_with, until};
use rustix::process::{Pid, Signal, kill_process};
use skep_runner::task::{Named, PgDrop, PgFence, PgSwap, Report, Task};

/// Two databases that tell which they are.
fn pair(cluster: &Cluster, live: &str, side: &str) -> (Named, Named) {
    for name in [live, side] {
        if name != "postgres" {
            cluster.sql("template1", &format!("CREATE DATABASE {name}"));
        }
        cluster.sql(name, &format!("CREATE TABLE me AS SELECT '{name}' AS name"));
    }
    (cluster.named(live), cluster.named(side))
}

fn swap_of(cluster: &Cluster, live: &Named, new: &Named, away: &str) -> PgSwap {
    PgSwap {
        connect: cluster.connect(),
        name: live.name.clone(),
        live: Some(live.clone()),
        new: new.clone(),
        away: away.into(),
        end_sessions: true,
    }
}

/// Names, OIDs and whether connections are allowed.
fn state(cluster: &Cluster, names: &[&str]) -> Vec<Option<(u32, bool)>> {
    let one = |name: &&str| {
        let row = cluster.sql(
            "template1",
            &format!("SELECT oid || ',' || datallowconn FROM pg_database WHERE datname = '{name}'"),
        );
        let (oid, allow) = row.split_once(',')?;
        Some((oid.parse().unwrap(), allow == "true"))
    };
    names.iter().map(one).collect()
}

#[test]
fn killed_at_any_statement_the_swap_converges_when_repeated() {
    let cluster = Cluster::start();
    let (mut live, mut new) = pair(&cluster, "app", "skep_new");
    let mut deaths = 0;
    for at in 1.. {
        assert!(at < 200, "the runner never gets to its end");
        let names = ["app", "skep_new", "skep_old"];
        let swap = swap_of(&cluster, &live, &new, "skep_old");
        let outcome =
            Runner::new(&cluster, Task::PgSwap(swap.clone())).env("SKEP_RUNNER_DIE_AT", at.to_string()).run();
        settled(&cluster);
        let found = state(&cluster, &names);
        match (found[0], found[1], found[2]) {
            (Some((app, _)), Some((side, _)), None) => assert_eq!((app, side), (live.oid, new.oid)),
            (Some((app, open)), None, Some((old, _))) => {
                assert_eq!((app, old, open), (new.oid, live.oid, true))
            }
            other => panic!("killed at {at}: {other:?}"),
        }
        if outcome.code == Some(0) {
            break;
        }
        assert_eq!(outcome.code, None, "{}", outcome.text);
        deaths += 1;
        run_with(&cluster, Task::PgSwap(swap)).done();
        let end = [Some((new.oid, true)), None, Some((live.oid, false))];
        assert_eq!(state(&cluster, &names), end, "killed at {at}");
        // The other way round next time.
        let back = Named { name: "skep_new".into(), oid: live.oid };
        cluster.sql("template1", "ALTER DATABASE skep_old RENAME TO skep_new");
        (live, new) = (Named { name: "app".into(), oid: new.oid }, back);
    }
    assert!(deaths > 20, "only {deaths} statements were seen");
}

/// A killed runner's psql may still be at work: wait until none of its sessions is left.
fn settled(cluster: &Cluster) {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'skep-%'";
    until(|| cluster.sql("template1", count) == "0");
}

#[test]
fn clients_that_connect_all_the_time_see_the_old_or_the_new_database_and_never_anything_else() {
    let cluster = Cluster::start();
    let (live, new) = pair(&cluster, "app", "skep_new");
    let over = AtomicBool::new(false);
    let answered = AtomicU32::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = Vec::new();
                    while !over.load(Ordering::SeqCst) {
                        answers.push(cluster.psql_as("post gres", "app", "SELECT name FROM me"));
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                    answers.push(cluster.psql_as("post gres", "app", "SELECT name FROM me"));
                    answers
                })
            })
            .collect();
        until(|| answered.load(Ordering::SeqCst) > 10);
        let report = run_with(&cluster, Task::PgSwap(swap_of(&cluster, &live, &new, "skep_old"))).done();
        let before = answered.load(Ordering::SeqCst);
        until(|| answered.load(Ordering::SeqCst) > before + 10);
        over.store(true, Ordering::SeqCst);
        let Report::PgSwap { fenced_ms } = report else { panic!("{report:?}") };
        println!("fenced for {fenced_ms} ms");
        assert!(fenced_ms < 5_000);
        for client in clients {
            saw_only_whole_databases(&client.join().unwrap());
        }
    });
    assert_eq!(cluster.sql("app", "SELECT name FROM me"), "skep_new");
    assert!(
        cluster.psql_as("post gres", "skep_old", "SELECT 1").unwrap_err().contains("not currently accepting")
    );
}

fn saw_only_whole_databases(answers: &[Result<String, String>]) {
    let mut swapped = false;
    for answer in answers {
        match answer.as_deref() {
            Ok("app") => assert!(!swapped, "the old database answered after the new one"),
            Ok("skep_new") => swapped = true,
            Ok(other) => panic!("{other}"),
            Err(said) => {
                let known = [
                    "not currently accepting",
                    "terminating connection",
                    "does not exist",
                    "closed the connection",
                ];
                assert!(known.iter().any(|known| said.contains(known)), "{said}");
                assert!(!said.contains("relation"), "{said}");
            }
        }
    }
    assert!(swapped, "no answer from the new database");
}

#[test]
fn anything_but_the_expected_names_and_oids_is_refused_and_nothing_changes() {
    let cluster = Cluster::start();
    let (live, new) = pair(&cluster, "app", "skep_new");
    let names = ["app", "skep_new", "skep_old"];
    let before = state(&cluster, &names);
    let wrong_live = Named { oid: live.oid + 100, ..live.clone() };
    let wrong_new = Named { oid: new.oid + 100, ..new.clone() };
    for swap in [
        swap_of(&cluster, &wrong_live, &new, "skep_old"),
        swap_of(&cluster, &live, &wrong_new, "skep_old"),
        swap_of(&cluster, &live, &new, "postgres"),
        PgSwap { live: None, ..swap_of(&cluster, &live, &new, "skep_old") },
    ] {
        assert!(run_with(&cluster, Task::PgSwap(swap)).refused().contains("not as expected"));
        assert_eq!(state(&cluster, &names), before);
    }
}

#[test]
fn a_live_database_that_is_gone_is_replaced_and_repeating_it_is_fine() {
    let cluster = Cluster::start();
    let (live, new) = pair(&cluster, "app", "skep_new");
    cluster.sql("postgres", "DROP DATABASE app");
    let swap = PgSwap { live: None, ..swap_of(&cluster, &live, &new, "skep_old") };
    for _ in 0..2 {
        run_with(&cluster, Task::PgSwap(swap.clone())).done();
        assert_eq!(cluster.sql("app", "SELECT name FROM me"), "skep_new");
    }
}

#[test]
fn the_maintenance_database_itself_can_be_swapped() {
    let cluster = Cluster::start();
    let (live, new) = pair(&cluster, "postgres", "skep_new");
    run_with(&cluster, Task::PgSwap(swap_of(&cluster, &live, &new, "skep_old"))).done();
    assert_eq!(cluster.sql("postgres", "SELECT name FROM me"), "skep_new");
}

#[test]
fn an_open_prepared_transaction_is_refused_before_anybody_is_shut_out() {
    let cluster = Cluster::start();
    let (live, new) = pair(&cluster, "app", "skep_new");
    cluster.sql("app", "BEGIN; INSERT INTO me VALUES ('x'); PREPARE TRANSACTION 'p'");
    let swap = swap_of(&cluster, &live, &new, "skep_old");
    assert!(run_with(&cluster, Task::PgSwap(swap)).refused().contains("prepared transactions"));
    assert_eq!(cluster.sql("app", "SELECT name FROM me"), "app");
}

#[test]
fn told_to_stop_while_clients_are_shut_out_the_runner_lets_them_in_again() {
    let cluster = Cluster::start();
    let (live, new) = pair(&cluster, "app", "skep_new");
    let names = ["app", "skep_new", "skep_old"];
    let mut client =
        cluster.client("psql", "post gres", "app").args(["-c", "SELECT pg_sleep(60)"]).spawn().unwrap();
    until(|| {
        cluster.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(60)'") != "0"
    });
    let swap = PgSwap { end_sessions: false, ..swap_of(&cluster, &live, &new, "skep_old") };
    let runner = Runner::new(&cluster, Task::PgSwap(swap)).spawn();
    until(|| state(&cluster, &names)[0] == Some((live.oid, false)));
    kill_process(Pid::from_child(&runner), Signal::TERM).unwrap();
    assert!(Outcome::of(runner).put_off().contains("told to stop"));
    assert_eq!(state(&cluster, &names)[0], Some((live.oid, true)));
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn a_fence_shuts_out_and_lets_in_again_only_the_databases_meant() {
    let cluster = Cluster::start();
    let (live, new) = pair(&cluster, "app", "skep_new");
    let mut client =
        cluster.client("psql", "post gres", "app").args(["-c", "SELECT pg_sleep(60)"]).spawn().unwrap();
    until(|| {
        cluster.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(60)'") != "0"
    });
    let fence = |databases: Vec<Named>, allow| {
        run_with(&cluster, Task::PgFence(PgFence { connect: cluster.connect(), databases, allow }))
    };
    fence(vec![live.clone(), new.clone()], false).done();
    assert!(!client.wait().unwrap().success());
    assert!(cluster.psql_as("post gres", "app", "SELECT 1").is_err());
    fence(vec![live.clone()], true).done();
    assert_eq!(cluster.sql("app", "SELECT name FROM me"), "app");
    assert!(cluster.psql_as("post gres", "skep_new", "SELECT 1").is_err());
    let other = Named { oid: live.oid + 100, ..live.clone() };
    assert!(fence(vec![new, other], true).refused().contains("not"));
    assert!(cluster.psql_as("post gres", "skep_new", "SELECT 1").is_err(), "half a fence was lifted");
}

#[test]
fn only_the_databases_meant_are_dropped() {
    let cluster = Cluster::start();
    let (live, new) = pair(&cluster, "app", "skep_new");
    let drop = |name: &str, oid: u32| {
        let databases = vec![Named { name: name.into(), oid }];
        run_with(&cluster, Task::PgDrop(PgDrop { connect: cluster.connect(), databases }))
    };
    assert!(drop("app", 0).refused().contains("not Skep's"));
    assert!(drop("app", new.oid).refused().contains("not"));
    cluster.sql("postgres", "ALTER DATABASE skep_new IS_TEMPLATE true");
    cluster.sql("skep_new", "SELECT pg_create_logical_replication_slot('slot', 'pgoutput')");
    assert!(drop("skep_new", new.oid).refused().contains("replication slots: slot"));
    assert_eq!(cluster.databases(), "app,skep_new");
    cluster.sql("skep_new", "SELECT pg_drop_replication_slot('slot')");
    drop("skep_new", 0).done();
    drop("skep_new", new.oid).done();
    assert_eq!(cluster.databases(), "app");
    // As a drop that was interrupted leaves it.
    cluster.sql("postgres", "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'app'");
    drop("app", live.oid).done();
    assert_eq!(cluster.databases(), "");
}
