//! Backups of real databases come back whole.

use crate::support::{Cluster, PASSWORD, Runner, run_with, until};
use skep_runner::task::{PgInPlace, PgRestore, PgSwap, Report, Stored, Task};

/// A name that needs every kind of quoting, as an SQL identifier and as a literal.
const LIVE: &str = "Shop \"dü\" d'b\\";
const LIVE_IDENT: &str = "\"Shop \"\"dü\"\" d'b\\\"";

fn restore(cluster: &Cluster, stored: &Stored, live: &str, side: &str) -> PgRestore {
    PgRestore { connect: cluster.connect(), stored: stored.clone(), live: live.into(), side: side.into() }
}

/// Roles, and a database with a bit of everything that a dump of one database loses or may trip over.
fn fill(cluster: &Cluster) {
    let locale =
        if cluster.major() >= 15 { "LOCALE_PROVIDER icu ICU_LOCALE 'de' LOCALE 'C'" } else { "LOCALE 'C'" };
    let role = format!("LOGIN PASSWORD '{}'", PASSWORD.replace('\'', "''"));
    for sql in [
        &format!("CREATE ROLE \"Shop Owner\" {role}"),
        &format!("CREATE ROLE shop_ro {role}"),
        "CREATE ROLE \"Grant,or\"",
        &format!("CREATE TABLESPACE \"Fast Disk\" LOCATION '{}'", cluster.server_dir("space").display()),
        &format!(
            "CREATE DATABASE {LIVE_IDENT} TEMPLATE template0 {locale} OWNER \"Shop Owner\" CONNECTION LIMIT 17 TABLESPACE \"Fast Disk\""
        ),
        &format!("COMMENT ON DATABASE {LIVE_IDENT} IS 'it''s the shop''s'"),
        &format!("REVOKE ALL ON DATABASE {LIVE_IDENT} FROM PUBLIC"),
        &format!("GRANT CONNECT, CREATE ON DATABASE {LIVE_IDENT} TO \"Grant,or\" WITH GRANT OPTION"),
        &format!("SET ROLE \"Grant,or\"; GRANT CONNECT ON DATABASE {LIVE_IDENT} TO shop_ro"),
        &format!("ALTER DATABASE {LIVE_IDENT} SET search_path = \"$user\", \"My Schema\", public"),
        &format!("ALTER DATABASE {LIVE_IDENT} SET work_mem = '9MB'"),
        &format!("ALTER DATABASE {LIVE_IDENT} SET app.\"Tenant\" = 'a=b, ''c'''"),
        &format!("ALTER ROLE shop_ro IN DATABASE {LIVE_IDENT} SET default_transaction_read_only = on"),
        &format!("ALTER DATABASE {LIVE_IDENT} SET default_transaction_read_only = on"),
    ] {
        cluster.sql("postgres", sql);
    }
    cluster.sql(LIVE, CONTENTS);
}

const CONTENTS: &str = "
SET default_transaction_read_only = off;
BEGIN READ WRITE;
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE SCHEMA \"My Schema\" AUTHORIZATION \"Shop Owner\";
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE \"My Schema\".\"Order Items\" (id bigserial PRIMARY KEY, name citext NOT NULL, tags hstore,
  mood mood DEFAULT 'happy', made timestamptz DEFAULT now(), note text COLLATE \"C\");
ALTER TABLE \"My Schema\".\"Order Items\" OWNER TO \"Shop Owner\";
INSERT INTO \"My Schema\".\"Order Items\" (name, tags) SELECT 'item ' || g, 'a=>1' FROM generate_series(1, 5000) g;
SELECT setval('\"My Schema\".\"Order Items_id_seq\"', 777777);
CREATE MATERIALIZED VIEW public.totals AS SELECT count(*) AS items FROM \"My Schema\".\"Order Items\";
GRANT SELECT ON \"My Schema\".\"Order Items\" TO shop_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE \"Shop Owner\" GRANT SELECT ON TABLES TO shop_ro;
CREATE FUNCTION public.twice(i int) RETURNS int LANGUAGE sql AS 'SELECT 2 * i';
CREATE PUBLICATION everything FOR ALL TABLES;
SELECT lo_from_bytea(4242, decode(repeat('deadbeef', 10000), 'hex'));
COMMENT ON LARGE OBJECT 4242 IS 'a large one';
COMMIT;
SELECT 1;
";

/// Everything that must be equal, read through SQL as people would: rows of the catalog and of the tables.
fn row_of(cluster: &Cluster, database: &str) -> String {
    let icu = if cluster.major() >= 15 { "datlocprovider" } else { "'c'" };
    let literal = database.replace('\'', "''");
    cluster.sql(
        "postgres",
        &format!(
            "SELECT json_build_object('owner', pg_get_userbyid(datdba), 'enc', encoding, 'prov', {icu},
               'coll', datcollate, 'ctype', datctype, 'limit', datconnlimit, 'template', datistemplate,
               'allow', datallowconn, 'space', dattablespace,
               'comment', shobj_description(oid, 'pg_database'),
               'acl', (SELECT json_agg(a::text ORDER BY a::text) FROM unnest(datacl) a), 'default', datacl IS NULL,
               'settings', (SELECT json_agg(json_build_array(setrole,
                   (SELECT json_agg(c ORDER BY c) FROM unnest(setconfig) c)) ORDER BY setrole)
                 FROM pg_db_role_setting WHERE setdatabase = d.oid))
             FROM pg_database d WHERE datname = '{literal}'"
        ),
    )
}

fn contents_of(cluster: &Cluster, database: &str) -> String {
    cluster.sql(
        database,
        "SELECT json_build_array(
           (SELECT md5(string_agg(o::text, '|' ORDER BY id)) FROM \"My Schema\".\"Order Items\" o),
           (SELECT last_value FROM \"My Schema\".\"Order Items_id_seq\"),
           (SELECT items FROM public.totals), public.twice(21), md5(lo_get(4242)),
           (SELECT description FROM pg_description WHERE objoid = 4242 AND classoid = 'pg_largeobject'::regclass),
           (SELECT json_agg(extname || extversion ORDER BY extname) FROM pg_extension),
           (SELECT json_agg(nspname || ' ' || pg_get_userbyid(nspowner) || ' ' || coalesce(nspacl::text, '') ORDER BY nspname)
              FROM pg_namespace WHERE nspname !~ '^pg_'),
           (SELECT json_agg(relname || ' ' || pg_get_userbyid(relowner) || ' ' || coalesce(relacl::text, '') ORDER BY relname)
              FROM pg_class WHERE relnamespace = '\"My Schema\"'::regnamespace),
           (SELECT json_agg(defaclacl::text) FROM pg_default_acl),
           (SELECT json_agg(pubname) FROM pg_publication))",
    )
}

#[test]
fn a_database_restored_beside_keeps_everything_the_live_one_has() {
    let cluster = Cluster::start();
    fill(&cluster);
    let stored = cluster.back_up(LIVE, "v1/shop/db/b1");
    let (row, contents) = (row_of(&cluster, LIVE), contents_of(&cluster, LIVE));
    let report = run_with(&cluster, Task::PgRestore(restore(&cluster, &stored, LIVE, "skep_op_1"))).done();
    let Report::PgRestore { live, side, size, .. } = report else { panic!("{report:?}") };
    assert_eq!(live, Some(cluster.named(LIVE)));
    assert_eq!(side, cluster.named("skep_op_1"));
    assert!(size > 1 << 20);
    assert_eq!(row_of(&cluster, "skep_op_1"), row);
    assert_eq!(contents_of(&cluster, "skep_op_1"), contents);
    let analyzed = "SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'Order Items'";
    assert_eq!(cluster.sql("skep_op_1", analyzed), "t");
}

#[test]
fn a_swap_gives_the_live_name_to_the_restored_database() {
    let cluster = Cluster::start();
    fill(&cluster);
    let stored = cluster.back_up(LIVE, "b1");
    run_with(&cluster, Task::PgRestore(restore(&cluster, &stored, LIVE, "skep_op_1"))).done();
    let (live, new) = (cluster.named(LIVE), cluster.named("skep_op_1"));
    let row = row_of(&cluster, LIVE);
    let swap = PgSwap {
        connect: cluster.connect(),
        name: LIVE.into(),
        live: Some(live.clone()),
        new: new.clone(),
        away: "skep_op_old".into(),
        end_sessions: true,
    };
    run_with(&cluster, Task::PgSwap(swap.clone())).done();
    assert_eq!(cluster.named(LIVE).oid, new.oid);
    assert_eq!(cluster.named("skep_op_old").oid, live.oid);
    assert_eq!(row_of(&cluster, LIVE), row);
    run_with(&cluster, Task::PgSwap(swap)).done();
    assert_eq!(cluster.named(LIVE).oid, new.oid);
}

#[test]
fn a_database_restored_in_place_keeps_everything_and_may_be_restored_again() {
    let cluster = Cluster::start();
    fill(&cluster);
    let (row, contents) = (row_of(&cluster, LIVE), contents_of(&cluster, LIVE));
    let stored = cluster.back_up(LIVE, "b1");
    let properties = cluster.dump(LIVE, "b2").database;
    cluster.sql(LIVE, "BEGIN READ WRITE; DROP TABLE \"My Schema\".\"Order Items\" CASCADE; COMMIT");
    let task = PgInPlace { connect: cluster.connect(), stored, live: LIVE.into(), properties };
    for _ in 0..2 {
        run_with(&cluster, Task::PgInPlace(task.clone())).done();
        assert_eq!(row_of(&cluster, LIVE), row);
        assert_eq!(contents_of(&cluster, LIVE), contents);
        assert_eq!(cluster.databases(), LIVE);
    }
}

#[test]
fn killed_at_any_statement_a_restore_in_place_leaves_no_half_database_and_converges_when_repeated() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app CONNECTION LIMIT 9");
    cluster
        .sql("app", "CREATE TABLE t AS SELECT g FROM generate_series(1, 100) g; CREATE TABLE u AS TABLE t");
    let stored = cluster.back_up("app", "b1");
    let properties = cluster.dump("app", "b2").database;
    let connect = cluster.connect();
    let task = PgInPlace { connect, stored, live: "app".into(), properties };
    let whole = "SELECT (SELECT count(*) FROM t) || ',' || (SELECT count(*) FROM u)";
    let mut deaths = 0;
    // Three moments a statement: this visits each statement once and each kind of moment in turn.
    for at in (1..).step_by(4) {
        assert!(at < 1000, "the runner never gets to its end");
        let runner = Runner::new(&cluster, Task::PgInPlace(task.clone()));
        let outcome = runner.env("SKEP_RUNNER_DIE_AT", at.to_string()).run();
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'skep-%'";
        until(|| cluster.sql("postgres", busy) == "0");
        let open =
            "SELECT count(*) FROM pg_database WHERE datname = 'app' AND datallowconn AND datconnlimit <> -2";
        if cluster.sql("postgres", open) == "1" {
            assert_eq!(cluster.sql("app", whole), "100,100", "killed at {at}");
        }
        if outcome.code == Some(0) {
            break;
        }
        assert_eq!(outcome.code, None, "{}", outcome.text);
        deaths += 1;
    }
    assert!(deaths > 10, "only {deaths} statements were seen");
    assert_eq!((cluster.sql("app", whole), cluster.databases()), ("100,100".into(), "app".into()));
}

#[test]
fn a_live_database_that_cannot_be_dropped_stays_open() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app");
    let stored = cluster.back_up("app", "b1");
    let properties = cluster.dump("app", "b2").database;
    let task = PgInPlace { connect: cluster.connect(), stored, live: "app".into(), properties };
    for (make, remove, why) in [
        (
            "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
            "SELECT pg_drop_replication_slot('s')",
            "slots",
        ),
        (
            "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)",
            "ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
            "subscriptions",
        ),
        ("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'p'", "ROLLBACK PREPARED 'p'", "prepared"),
    ] {
        cluster.sql("app", make);
        let message = run_with(&cluster, Task::PgInPlace(task.clone())).refused();
        assert!(message.contains(why), "{message}");
        assert_eq!(cluster.sql("app", "SELECT 1"), "1");
        for sql in remove.split("; ") {
            cluster.sql("app", sql);
        }
    }
    run_with(&cluster, Task::PgInPlace(task)).done();
}

#[test]
fn bytes_of_a_database_without_an_encoding_come_back_as_they_are() {
    let cluster = Cluster::start();
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let name = encoding.to_lowercase();
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'");
        cluster.sql("postgres", &create);
        cluster.sql(&name, "CREATE TABLE t (x text)");
        cluster.sql(&name, "SET client_encoding = 'LATIN1'; INSERT INTO t VALUES (E'\\xe9')");
        let stored = cluster.back_up(&name, &name);
        let side = format!("skep_{name}");
        run_with(&cluster, Task::PgRestore(restore(&cluster, &stored, &name, &side))).done();
        for database in [&name, &side] {
            assert_eq!(cluster.sql(database, "SELECT x::bytea FROM t"), "\\xe9", "{database}");
        }
    }
}

#[test]
fn a_dump_tells_its_moment_its_tool_and_the_role_that_the_cluster_was_made_with() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql("app", "CREATE TABLE t AS SELECT 1 AS i");
    let dumped = cluster.dump("app", "b1");
    assert!(dumped.started <= dumped.ended && dumped.started.ends_with('Z') && dumped.started.len() == 20);
    let files: Vec<&str> = dumped.artefacts.iter().map(|artefact| artefact.file.as_str()).collect();
    assert_eq!(files, ["app.dump", "globals.sql"]);
    assert!(dumped.tool_version.starts_with("pg_dump (PostgreSQL)"));
    assert_eq!(dumped.database.owner, "post gres");
    assert!(dumped.database.roles.contains(&"post gres".to_owned()));
}
