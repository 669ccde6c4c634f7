//! Restore points and rollbacks on a real Swarm: a whole stack is taken, changed by a deploy, and comes back spec by spec.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_points -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use skep::operation::catalogue::Backup;
use skep::operation::points;
use skep::operation::record::{Operation, State, Work};
use skep::operation::rollback::Component;
use skep::swarm::object::Kind;
use skep_tests::stage::{Door, Setting, Specs, Stage, Write};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
const SPECS: [Component; 3] = [Component::Specs, Component::Configs, Component::Images];

async fn done(stage: &Stage, work: Work) -> Operation {
    let ended = stage.ended(&stage.ask_stack(work).await).await;
    println!("{}: {:?} {:?}", ended.title(), ended.journal.state, ended.journal.remarks);
    ended
}

/// Specs without what counts restarts.
fn plain(specs: &Specs) -> Vec<(&'static str, Value)> {
    let without = |spec: &Value| {
        let mut spec = spec.clone();
        spec["TaskTemplate"]["ForceUpdate"] = json!(0);
        spec
    };
    specs.iter().map(|(name, spec)| (*name, without(spec))).collect()
}

/// The stack file with another environment, three replicas, and another cache.
#[expect(clippy::needless_pass_by_value, reason = "the stage passes what it has read")]
fn changed(text: String) -> String {
    let changed = text
        .replace("CACHE_HOST: cache", "CACHE_HOST: cache\n      RELEASE: \"2\"")
        .replace("replicas: 2", "replicas: 3")
        .replace("--appendonly no", "--appendonly yes");
    assert_ne!(text, changed, "the stack file is as this suite knows it");
    changed
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_stack_is_taken_as_a_point_and_comes_back_from_a_deploy_spec_by_spec() {
    let stage = Stage::set(Setting::default()).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let before = stage.shop().specs().await;

    let taken = done(&stage, Work::Point { without_data: false }).await;
    assert_eq!(taken.journal.state, State::Succeeded, "{:#?}", taken.journal);
    let [point] = points::list(&stage.engine, Some(stage.name())).await.unwrap().try_into().unwrap();
    assert_eq!(point.head.services.len(), before.len());
    for member in &point.head.services {
        let spec = member.spec.load(&stage.engine, &point.head.id).await.unwrap();
        let spec: Value = serde_json::from_slice(&spec).unwrap();
        assert!(before.values().any(|live| *live == spec), "the spec of {}", member.name);
    }
    let backups = stage.engine.configs(Kind::Backup, &[]).await.unwrap();
    let backups: Vec<Backup> = backups.iter().filter_map(Backup::read).collect();
    assert_eq!(point.backups().collect::<Vec<_>>(), [backups[0].entry.id.as_str()]);
    assert!(
        backups[0].verified.is_some() && stage.stored(&backups[0].entry.dir).join("manifest.json").exists()
    );
    stage.shop().is_tidy().await;

    stage.redeploy(changed).await;
    stage.settled().await;
    let deployed = stage.shop().specs().await;
    assert_ne!(plain(&before), plain(&deployed));
    let back = done(&stage, Work::Rollback { point: point.head.id.clone(), only: SPECS.to_vec() }).await;
    assert_eq!(back.journal.state, State::Succeeded, "{:#?}", back.journal);
    assert_eq!(plain(&stage.shop().specs().await), plain(&before));
    stage.settled().await;

    // What it took before is a way forth again.
    let forth = done(&stage, Work::Rollback { point: back.id.clone(), only: SPECS.to_vec() }).await;
    assert_eq!(forth.journal.state, State::Succeeded, "{:#?}", forth.journal);
    assert_eq!(plain(&stage.shop().specs().await), plain(&deployed));
    stage.shop().is_tidy().await;
    drop(operator);
    stage.strike().await;
}

/// The stack file with an application that keeps files and uses the database.
#[expect(clippy::needless_pass_by_value, reason = "the stage passes what it has read")]
fn with_wiki(text: String) -> String {
    const WIKI: &str = r#"
  wiki:
    image: ${POSTGRES_IMAGE:-skep-test/postgres:15}
    entrypoint: ["sh", "-c", "trap exit TERM; while :; do sleep 1 & wait; done"]
    secrets: [db-password]
    volumes:
      - wiki:/files
    healthcheck:
      test: ["CMD-SHELL", "PGPASSWORD=$$(cat /run/secrets/db-password) psql -h db -U shop -d shop -c 'SELECT 1'"]
      interval: 500ms
      timeout: 3s
      retries: 60
    deploy:
      endpoint_mode: dnsrr
      restart_policy:
        delay: 500ms
      labels:
        skep.enable: "true"
        skep.data: volume
        skep.depends-on: db

configs:
  proxy:
"#;
    let changed = text
        .replace("\nconfigs:\n  proxy:\n", WIKI)
        .replace("\nvolumes:\n  db: {}", "\nvolumes:\n  wiki: {}\n  db: {}");
    assert!(
        changed.contains("wiki:/files") && changed.contains("wiki: {}"),
        "the stack file is as this suite knows it"
    );
    changed
}

/// What the wiki holds: its rows, and its files with their content.
async fn pages(stage: &Stage) -> (String, String) {
    let rows = stage.shop().sql("shop", "SELECT * FROM pages ORDER BY id").await;
    let tell = "cd /files && find . -path './.skep*' -prune -o -type f -print | sort | xargs grep -H .";
    (rows, stage.sandbox.exec_in_service(&stage.service("wiki"), &["sh", "-c", tell]).await)
}

/// A page is a row and a file.
async fn write_page(stage: &Stage, id: u32) {
    stage.shop().sql("shop", &format!("INSERT INTO pages VALUES ({id})")).await;
    let write = format!("mkdir -p /files/deep && echo page {id} > /files/deep/{id}");
    stage.sandbox.exec_in_service(&stage.service("wiki"), &["sh", "-c", &write]).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn an_application_with_files_and_a_database_comes_back_as_one_and_stops_once() {
    let stage = Stage::set(Setting::default()).await;
    stage.redeploy(with_wiki).await;
    stage.settled().await;
    let operator = stage.operator(OPERATOR, &[]).await;
    stage.shop().sql("shop", "CREATE TABLE pages (id int)").await;
    write_page(&stage, 1).await;
    let spec = async || stage.engine.service(&stage.service("wiki")).await.unwrap().spec;
    let (then, spec_then) = (pages(&stage).await, spec().await);
    let taken = done(&stage, Work::Point { without_data: false }).await;
    assert_eq!(taken.journal.state, State::Succeeded, "{:#?}", taken.journal);

    stage.redeploy(|text| with_wiki(text).replace("sleep 1 & wait", "sleep 2 & wait")).await;
    stage.settled().await;
    write_page(&stage, 2).await;
    let lose = ["sh", "-c", "rm /files/deep/1"];
    stage.sandbox.exec_in_service(&stage.service("wiki"), &lose).await;
    let (now, spec_now) = (pages(&stage).await, spec().await);
    assert!(now != then && spec_now != spec_then);
    let only = [&SPECS[..], &[Component::Database, Component::Volumes]].concat();
    let tasks = async || {
        let id = stage.engine.service(&stage.service("wiki")).await.unwrap().id;
        stage.engine.tasks(&[&id]).await.unwrap().into_iter().map(|task| task.id).collect::<BTreeSet<_>>()
    };
    let before = tasks().await;
    let back = done(&stage, Work::Rollback { point: taken.id.clone(), only: only.clone() }).await;
    assert_eq!(back.journal.state, State::Succeeded, "{:#?}", back.journal);
    assert_eq!((pages(&stage).await, spec().await), (then.clone(), spec_then.clone()));
    assert_eq!(tasks().await.difference(&before).count(), 1, "it started once");
    stage.shop().serves().await;
    stage.shop().is_tidy().await;

    // And forth again, by the point that it took.
    let forth = done(&stage, Work::Rollback { point: back.id.clone(), only: only.clone() }).await;
    assert_eq!(forth.journal.state, State::Succeeded, "{:#?}", forth.journal);
    assert_eq!((pages(&stage).await, spec().await), (now.clone(), spec_now.clone()));
    stage.shop().is_tidy().await;
    drop(operator);
    stage.strike().await;
}

/// The step that the leader has just begun, with the data of a part about to be cut over.
fn begins_to_cut_over() -> impl FnMut(&Write) -> bool + Send + 'static {
    |write| write.records("cut", "started")
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_stack_comes_back_spec_by_spec_and_row_by_row_although_the_leader_dies_half_way() {
    let stage = Stage::set(Setting::default()).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let (before, rows) = (stage.shop().specs().await, stage.shop().orders().await);
    let taken = done(&stage, Work::Point { without_data: false }).await;
    assert_eq!(taken.journal.state, State::Succeeded, "{:#?}", taken.journal);
    drop(operator);

    stage.redeploy(changed).await;
    stage.settled().await;
    let deployed = stage.shop().specs().await;
    stage.shop().drop_orders().await;
    let users = stage.users(40);
    let only = [&SPECS[..], &[Component::Database]].concat();
    let door = Door::open(stage.sandbox.socket(), begins_to_cut_over());
    let mut leader = stage.operator_behind(&door, OPERATOR).await;
    let id = stage.ask_stack(Work::Rollback { point: taken.id.clone(), only: only.clone() }).await;
    door.is_shut().await;
    leader.kill().await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let back = stage.ended(&id).await;
    println!("{}: {:?} {:#?}", back.title(), back.journal.state, back.journal.remarks);
    assert_eq!(back.journal.state, State::Succeeded, "{:#?}", back.journal);
    stage.shop().serves().await;
    let report = users.leave().await;
    println!("without the application for {:.1} s", report.downtime_total_s);
    report.assert_nothing_wrong();
    assert_eq!(plain(&stage.shop().specs().await), plain(&before));
    let missing: Vec<u64> = rows.difference(&stage.shop().orders().await).copied().collect();
    assert_eq!(missing, [] as [u64; 0], "every order of the point is back");
    let parts = stage.operations().await.into_iter().filter(|op| op.part_of() == Some(&id));
    let parts: Vec<Operation> = parts.collect();
    assert_eq!(parts.len(), 1, "{parts:#?}");
    assert_eq!(parts[0].journal.state, State::Succeeded, "{:#?}", parts[0].journal);
    stage.settled().await;
    stage.shop().is_tidy().await;

    // What was replaced had lost its orders, so a check stands against its return, and everything stays.
    let forth = done(&stage, Work::Rollback { point: back.id.clone(), only }).await;
    println!(
        "{:#?}",
        forth.journal.steps.iter().map(|(name, r)| (name, r.state, &r.note)).collect::<Vec<_>>()
    );
    match forth.journal.state {
        State::Succeeded => assert_eq!(plain(&stage.shop().specs().await), plain(&deployed)),
        State::Failed | State::RolledBack => assert_eq!(plain(&stage.shop().specs().await), plain(&before)),
        other => panic!("{other:?}: {:#?}", forth.journal),
    }
    stage.shop().is_tidy().await;
    drop(operator);
    stage.strike().await;
}
