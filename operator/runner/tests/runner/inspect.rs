//! Looking at a server: what is there, who uses it, and what stands against each backup.

use std::fs;

use crate::support::{Cluster, run_with, until};
use sha2::{Digest as _, Sha256};
use skep_runner::manifest::Manifest;
use skep_runner::task::{PgInspect, PgInspection, PgSession, Report, Stored, Task};

fn inspect(cluster: &Cluster, database: &str, backups: Vec<Stored>) -> PgInspection {
    let task = PgInspect {
        connect: cluster.connect(),
        database: database.into(),
        backups,
        kept: vec!["skep_old".into(), "skep_gone".into()],
        create_roles: false,
    };
    match run_with(cluster, Task::PgInspect(task)).done() {
        Report::PgInspect(inspection) => *inspection,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_that_a_restore_would_lose_or_disturb_is_told() {
    let cluster = Cluster::start_with("cron.database_name = 'postgres'\n");
    for sql in [
        "CREATE ROLE \"Own er\"",
        "CREATE DATABASE app OWNER \"Own er\" CONNECTION LIMIT 20",
        "CREATE DATABASE skep_old",
        "CREATE SCHEMA cron",
        "CREATE TABLE cron.job (jobid bigserial, schedule text, command text, database text)",
        "INSERT INTO cron.job (schedule, command, database) VALUES
           ('0 3 * * *', 'VACUUM', 'app'), ('@daily', 'ANALYZE', 'other')",
    ] {
        cluster.sql("postgres", sql);
    }
    cluster.sql("app", "CREATE EXTENSION citext");
    cluster.sql("app", "CREATE SUBSCRIPTION \"Sub\" CONNECTION '' PUBLICATION p WITH (connect = false)");
    cluster.sql("app", "SELECT pg_create_logical_replication_slot('slot_a', 'pgoutput')");
    cluster.sql("skep_old", "SELECT pg_create_logical_replication_slot('slot_b', 'pgoutput')");
    let clients: Vec<_> = ["app", "app", "postgres"]
        .iter()
        .map(|database| {
            let mut client = cluster.client("psql", "post gres", database);
            client.args(["-c", "SELECT pg_sleep(60)"]).spawn().unwrap()
        })
        .collect();
    until(|| {
        cluster.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(60)'") == "3"
    });
    let found = inspect(&cluster, "app", vec![]);
    for mut client in clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    assert_eq!(found.server_version, cluster.sql("postgres", "SHOW server_version_num"));
    assert!(found.tool_version.starts_with("pg_restore (PostgreSQL)"), "{}", found.tool_version);
    assert_eq!(found.live, Some(cluster.named("app")));
    let session =
        PgSession { address: "127.0.0.1".into(), user: "post gres".into(), application: "test".into() };
    assert_eq!(found.sessions, [session]);
    assert_eq!((found.slots, found.subscriptions), (vec!["slot_a".to_owned()], vec!["Sub".to_owned()]));
    assert_eq!(found.jobs, ["pg_cron: 0 3 * * * VACUUM"]);
    assert_eq!(found.max_wal_size, 1 << 30);
    assert!(found.free > 0 && found.capacity >= found.free);
    let properties = found.properties.unwrap();
    assert_eq!((properties.owner.as_str(), properties.connection_limit), ("Own er", 20));
    assert!(properties.extensions.contains_key("citext"));
    assert!(properties.roles.contains(&"Own er".to_owned()));
    assert!(properties.size > 1 << 20);
    assert_eq!(found.kept.len(), 1);
    assert_eq!(found.kept[0].database, cluster.named("skep_old"));
    assert_eq!(found.kept[0].slots, ["slot_b"]);
}

#[test]
fn a_database_that_is_gone_or_fenced_can_be_inspected() {
    let cluster = Cluster::start();
    let found = inspect(&cluster, "app", vec![]);
    assert_eq!((found.live, found.properties), (None, None));
    cluster.sql("postgres", "CREATE DATABASE app ALLOW_CONNECTIONS false CONNECTION LIMIT 3");
    let found = inspect(&cluster, "app", vec![]);
    assert_eq!(found.live, Some(cluster.named("app")));
    assert_eq!(found.properties.unwrap().connection_limit, 3);
}

#[test]
fn what_stands_against_a_backup_is_told_one_reason_each() {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE ROLE gone");
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql("app", "CREATE EXTENSION hstore");
    cluster.sql("app", "CREATE TABLE t (); ALTER TABLE t OWNER TO gone");
    let good = cluster.back_up("app", "good");
    assert_eq!(inspect(&cluster, "app", vec![good.clone()]).backups["good"], Vec::<String>::new());
    cluster.sql("app", "DROP TABLE t");
    cluster.sql("postgres", "DROP ROLE gone");
    let bad = registered(&cluster, "bad", |manifest| {
        let properties = manifest.database.as_mut().unwrap();
        properties.extensions.insert("hstore".into(), "99.1".into());
        properties.extensions.insert("no_such".into(), "1.0".into());
        properties.tablespace = "fast".into();
        manifest.server_version = "990001".into();
        manifest.artefacts[0].size += 1;
    });
    let forged = Stored { manifest_sha256: "0".repeat(64), ..good.clone() };
    let forged = Stored { id: "forged".into(), ..forged };
    let absent = Stored { id: "absent".into(), dir: "absent".into(), ..good.clone() };
    let seen = inspect(&cluster, "app", vec![good, bad.clone(), forged, absent]);
    let found = seen.backups;
    assert_eq!(seen.lacking["good"], ["role `gone` does not exist"]);
    assert_eq!(found["good"], Vec::<String>::new(), "the server is to blame, not the backup");
    let reasons = seen.lacking["bad"].join("\n");
    for reason in ["PostgreSQL 99", "`gone`", "`hstore` is available in", "`no_such` is not available"] {
        assert!(reasons.contains(reason), "{reasons} lacks {reason}");
    }
    assert!(found["bad"].len() == 1 && found["bad"][0].contains("bytes instead of"), "{:?}", found["bad"]);
    assert!(!reasons.contains("tablespace"), "the live database's tablespace is used");
    assert!(found["forged"][0].contains("not the registered one"));
    assert!(found["absent"][0].contains("not in the store"));
    cluster.sql("postgres", "DROP DATABASE app");
    let reasons = inspect(&cluster, "app", vec![bad]).lacking["bad"].join("\n");
    assert!(reasons.contains("tablespace `fast` does not exist"), "{reasons}");
}

/// A backup `good` under another id with a changed manifest, as if it had been registered so.
fn registered(cluster: &Cluster, id: &str, change: impl FnOnce(&mut Manifest)) -> Stored {
    let (from, to) = (cluster.store().join("good"), cluster.store().join(id));
    fs::create_dir(&to).unwrap();
    for file in ["app.dump", "globals.sql"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let mut manifest: Manifest =
        serde_json::from_slice(&fs::read(from.join("manifest.json")).unwrap()).unwrap();
    manifest.id = id.into();
    change(&mut manifest);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    fs::write(to.join("manifest.json"), &bytes).unwrap();
    let manifest_sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Stored { id: id.into(), dir: id.into(), manifest_sha256 }
}
