//! Roles of a backup: stored beside the dump, made where they are missing, and nothing else.

use std::fs;

use crate::support::{Cluster, PASSWORD, Runner, run_with, until};
use skep_runner::task::{
    Connect, HeldRoles, PgCreateRoles, PgDropRoles, PgInspect, PgInspection, PgRestore, Report, Stored, Task,
};

const OWNER: &str = "Own \"er";

/// A database with objects of three roles, backed up; then two of them are gone, and so is who belonged to one.
fn lost() -> (Cluster, Stored, String) {
    let cluster = Cluster::start_with("log_statement = 'all'\nlog_min_duration_statement = 0\n");
    for sql in [
        "CREATE ROLE \"Own \"\"er\" LOGIN PASSWORD 'planted-hunter22' CONNECTION LIMIT 7",
        "CREATE ROLE grp NOLOGIN CREATEROLE",
        "CREATE ROLE clerk LOGIN PASSWORD 'planted-hunter23' VALID UNTIL '2031-01-01'",
        "CREATE ROLE stays LOGIN PASSWORD 'before'",
        "CREATE ROLE unrelated",
        "GRANT grp TO \"Own \"\"er\" WITH ADMIN OPTION",
        "GRANT grp TO stays",
        "GRANT grp TO clerk",
        "ALTER ROLE \"Own \"\"er\" SET work_mem = '7MB'",
        "ALTER ROLE clerk SET search_path = 'a', \"B c\"",
        "COMMENT ON ROLE \"Own \"\"er\" IS 'two; lines\nand more \\ it''s'",
        "CREATE DATABASE app OWNER \"Own \"\"er\"",
    ] {
        cluster.sql("postgres", sql);
    }
    cluster.sql(
        "app",
        "CREATE TABLE t AS SELECT 1 AS i; ALTER TABLE t OWNER TO grp; GRANT SELECT ON t TO stays",
    );
    let stored = cluster.back_up("app", "one");
    let before = described(&cluster);
    cluster.sql("postgres", "ALTER DATABASE app OWNER TO CURRENT_USER");
    cluster.sql("app", "DROP OWNED BY grp, \"Own \"\"er\"");
    cluster.sql("postgres", "DROP ROLE \"Own \"\"er\", grp, clerk, unrelated");
    cluster.sql("postgres", "ALTER ROLE stays PASSWORD 'after' NOLOGIN");
    (cluster, stored, before)
}

/// Everything about the roles that are lost.
fn described(cluster: &Cluster) -> String {
    cluster.sql(
        "postgres",
        "SELECT json_agg(x ORDER BY x->>'n') FROM (SELECT json_build_object('n', rolname, 'p', rolpassword, 'l', rolcanlogin,
           'c', rolconnlimit, 'r', rolcreaterole, 'v', rolvaliduntil,
           's', (SELECT setconfig FROM pg_db_role_setting WHERE setrole = a.oid AND setdatabase = 0),
           'd', shobj_description(a.oid, 'pg_authid'),
           'g', (SELECT json_agg(json_build_array(roleid::regrole::text, admin_option)) FROM pg_auth_members WHERE member = a.oid)) AS x
         FROM pg_authid a WHERE rolname IN ('Own \"er', 'grp', 'clerk')) q",
    )
}

fn make(cluster: &Cluster, connect: Connect, stored: &Stored, roles: &[&str]) -> crate::support::Outcome {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    run_with(cluster, Task::PgCreateRoles(PgCreateRoles { connect, stored: stored.clone(), roles }))
}

fn inspect(cluster: &Cluster, connect: Connect, stored: &Stored, create_roles: bool) -> PgInspection {
    let backups = vec![stored.clone()];
    let task = PgInspect { connect, database: "app".into(), backups, kept: vec![], create_roles };
    match run_with(cluster, Task::PgInspect(task)).done() {
        Report::PgInspect(found) => *found,
        other => panic!("{other:?}"),
    }
}

fn restore(cluster: &Cluster, stored: &Stored) -> crate::support::Outcome {
    let task = PgRestore {
        connect: cluster.connect(),
        stored: stored.clone(),
        live: "app".into(),
        side: "skep_x_0".into(),
    };
    run_with(cluster, Task::PgRestore(task))
}

fn log(cluster: &Cluster) -> String {
    fs::read_to_string(cluster.dir.join("log")).unwrap()
}

#[test]
fn what_is_missing_is_made_exactly_and_what_exists_is_not_touched() {
    let (cluster, stored, before) = lost();
    let stays = || {
        let is =
            "SELECT rolpassword, rolcanlogin, (SELECT count(*) FROM pg_auth_members WHERE member = a.oid)
                  FROM pg_authid a WHERE rolname = 'stays'";
        cluster.sql("postgres", is)
    };
    let kept = stays();
    let found = inspect(&cluster, cluster.connect(), &stored, false);
    let lacking = found.lacking["one"].join("; ");
    assert_eq!(lacking, "role `Own \"er` does not exist; role `grp` does not exist");
    restore(&cluster, &stored).refused();

    let found = inspect(&cluster, cluster.connect(), &stored, true);
    assert!(found.backups["one"].is_empty() && found.lacking.is_empty(), "{found:?}");
    let roles = ["Own \"er", "clerk", "grp"];
    assert_eq!(
        found.missing_roles["one"], roles,
        "who has his rights by a group comes with it, others do not"
    );
    let made = make(&cluster, cluster.connect(), &stored, &roles);
    let hash = cluster.sql("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'Own \"er'");
    assert!(hash.starts_with("SCRAM") && !made.text.contains(&hash), "{}", made.text);
    match made.done() {
        Report::PgCreateRoles { created, left } => {
            assert_eq!(
                (created.len(), left),
                (3, vec!["role `stays` was a member of `grp` and is not".to_owned()])
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(described(&cluster), before);
    assert_eq!(stays(), kept, "a role that exists was altered");
    cluster.psql_as(OWNER, "postgres", "SELECT 1").unwrap_err();
    // Its password is what it was.
    let login = std::process::Command::new(crate::support::bin().join("psql"))
        .env("PGPASSWORD", "planted-hunter22")
        .args(["-X", "-c", "SELECT 1", "-d"])
        .arg(format!("dbname=postgres host=127.0.0.1 port={} user='{OWNER}'", cluster.port))
        .output()
        .unwrap();
    assert!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));

    let again = make(&cluster, cluster.connect(), &stored, &roles).done();
    assert!(
        matches!(again, Report::PgCreateRoles { created, .. } if created.is_empty()),
        "an earlier attempt made them"
    );
    let log = log(&cluster);
    assert!(
        log.contains("CREATE ROLE grp") && !log.contains("CREATE ROLE \"grp\""),
        "it shows what people do alone"
    );
    assert!(!log.contains(&hash), "the hash of a password is in the server's log");
    restore(&cluster, &stored).done();

    // Used by now.
    let drop = PgDropRoles { connect: cluster.connect(), roles: roles.map(str::to_owned).to_vec() };
    let why = run_with(&cluster, Task::PgDropRoles(drop.clone())).refused();
    assert!(why.contains("cannot be dropped"), "{why}");
    assert_eq!(described(&cluster), before, "all or none");
    cluster.sql("postgres", "DROP DATABASE skep_x_0");
    run_with(&cluster, Task::PgDropRoles(drop.clone())).done();
    run_with(&cluster, Task::PgDropRoles(drop)).done();
    assert_eq!(described(&cluster), "");
}

#[test]
fn killed_at_any_statement_all_of_them_are_there_or_none() {
    let (cluster, stored, before) = lost();
    let roles = ["Own \"er", "clerk", "grp"];
    let list = || roles.map(str::to_owned).to_vec();
    let drop = Task::PgDropRoles(PgDropRoles { connect: cluster.connect(), roles: list() });
    let mut deaths = 0;
    for at in 1.. {
        assert!(at < 200, "the runner never gets to its end");
        let task = PgCreateRoles { connect: cluster.connect(), stored: stored.clone(), roles: list() };
        let task = Task::PgCreateRoles(task);
        let outcome = Runner::new(&cluster, task.clone()).env("SKEP_RUNNER_DIE_AT", at.to_string()).run();
        // A killed runner's psql may still be at work.
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'skep-%'";
        until(|| cluster.sql("template1", sessions) == "0");
        let found = described(&cluster);
        assert!(found.is_empty() || found == before, "killed at {at}: {found}");
        if outcome.code == Some(0) {
            break;
        }
        deaths += 1;
        run_with(&cluster, task).done();
        assert_eq!(described(&cluster), before, "killed at {at}");
        run_with(&cluster, drop.clone()).done();
        assert_eq!(described(&cluster), "");
    }
    assert!(deaths > 30, "only {deaths} statements were seen");
}

#[test]
fn what_somebody_else_has_made_meanwhile_or_the_backup_does_not_hold_is_refused() {
    let (cluster, stored, _) = lost();
    let text = fs::read_to_string(cluster.store().join("one/globals.sql")).unwrap();
    assert!(text.contains("SCRAM-SHA-256$"), "the hashes are in the store");
    cluster.sql("postgres", "CREATE ROLE clerk");
    let why = make(&cluster, cluster.connect(), &stored, &["Own \"er", "clerk", "grp"]).refused();
    assert!(why.contains("role `clerk` has been made by somebody else"), "{why}");
    assert!(!described(&cluster).contains("grp"));
    cluster.sql("postgres", "DROP ROLE clerk");
    let unknown = make(&cluster, cluster.connect(), &stored, &["nobody"]).refused();
    assert!(unknown.contains("does not tell how role `nobody` is made"), "{unknown}");
    assert_eq!(described(&cluster), "");
}

#[test]
fn who_may_not_read_hashes_stores_roles_without_them_and_only_a_superuser_makes_roles() {
    let (cluster, stored, _) = lost();
    cluster.sql(
        "postgres",
        &format!("CREATE ROLE maker LOGIN CREATEROLE CREATEDB PASSWORD '{}'", PASSWORD.replace('\'', "''")),
    );
    cluster.sql("postgres", "CREATE DATABASE mine OWNER maker");
    let maker = Connect { user: "maker".into(), ..cluster.connect() };
    let found = inspect(&cluster, maker.clone(), &stored, true);
    assert!(found.lacking["one"].join("; ").contains("only a superuser"), "{found:?}");
    make(&cluster, maker.clone(), &stored, &["grp"]).refused();
    assert_eq!(described(&cluster), "");

    let task = skep_runner::task::PgDump { connect: maker, database: "mine".into(), dir: "two".into() };
    match run_with(&cluster, Task::PgDump(task)).done() {
        Report::PgDump(dumped) => assert_eq!(dumped.roles, Some(HeldRoles { passwords: false })),
        other => panic!("{other:?}"),
    }
    let text = fs::read_to_string(cluster.store().join("two/globals.sql")).unwrap();
    assert!(text.contains("CREATE ROLE \"stays\"") && !text.contains("SCRAM"), "{text}");
    assert_eq!(cluster.dump("mine", "three").roles, Some(HeldRoles { passwords: true }));
}

#[test]
fn roles_that_were_cut_or_altered_are_refused() {
    let (cluster, stored, _) = lost();
    let path = cluster.store().join("one/globals.sql");
    let whole = fs::read(&path).unwrap();
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    for bytes in [&altered[..], &whole[..whole.len() - 9]] {
        fs::write(&path, bytes).unwrap();
        make(&cluster, cluster.connect(), &stored, &["grp"]).refused();
        run_with(&cluster, Task::PgExamine(stored.clone())).refused();
        let found = inspect(&cluster, cluster.connect(), &stored, true);
        assert!(!found.backups["one"].is_empty(), "{found:?}");
    }
    assert_eq!(described(&cluster), "");
}
