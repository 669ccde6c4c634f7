//! Point in time: what is recovered is what was committed until then, to the row, or it is refused.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::support::{Cluster, Outcome, PASSWORD, Runner, manifest, next_attempt, run_with, until};
use skep_runner::manifest::Manifest;
use skep_runner::task::{
    Connect, PgBase, PgDropSlot, PgReceive, PgRecover, PgRestore, PgSeal, PgTakeBase, Report, Stored, Task,
    Ticket, WalPrune,
};

const SLOT: &str = "skep_test";
const CONF: &str = "max_slot_wal_keep_size = '1GB'\n";
const NOW: &str = r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#;

/// A running receiver, which ends with the test.
struct Receiver(Child);

impl Receiver {
    fn start(cluster: &Cluster) -> Receiver {
        let ticket = next_attempt(receive(cluster));
        let session = ticket.session.replace("-op-", "-wal-");
        let ticket = Ticket { session, fence: "skep-wal-step-".into(), ..ticket };
        let mut runner = Runner::with_ticket(cluster, ticket);
        // Nobody reads it, and a pipe that is full would stop it.
        runner.command.stdout(Stdio::null()).stderr(Stdio::null());
        Receiver(runner.spawn())
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        self.0.wait().unwrap();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

fn receive(cluster: &Cluster) -> Task {
    Task::PgReceive(PgReceive { connect: cluster.connect(), dir: "wal".into(), slot: SLOT.into() })
}

fn started() -> Cluster {
    started_with("")
}

fn started_with(conf: &str) -> Cluster {
    let cluster = Cluster::start_with(&format!("{CONF}{conf}"));
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql("app", "CREATE TABLE t (x text)");
    cluster
}

fn insert(cluster: &Cluster, x: &str) {
    cluster.sql("app", &format!("INSERT INTO t VALUES ('{x}')"));
}

fn now(cluster: &Cluster) -> String {
    cluster.sql("postgres", NOW)
}

fn switch(cluster: &Cluster) {
    cluster.sql("postgres", "SELECT pg_switch_wal()");
}

fn seal(cluster: &Cluster, dir: &str, manifest: Manifest) -> Stored {
    match run_with(cluster, Task::PgSeal(PgSeal { dir: dir.into(), manifest })).done() {
        Report::PgSeal { manifest_sha256, .. } => Stored { id: dir.into(), dir: dir.into(), manifest_sha256 },
        other => panic!("{other:?}"),
    }
}

fn take_base(cluster: &Cluster, dir: &str) -> Outcome {
    let (connect, wal) = (cluster.connect(), "wal".into());
    run_with(cluster, Task::PgTakeBase(PgTakeBase { connect, dir: dir.into(), wal }))
}

/// Dumps, takes a base, and seals both.
fn back_up(cluster: &Cluster, dir: &str) -> (Stored, PgBase) {
    let mut manifest = manifest(dir, cluster.dump("app", dir));
    let report = take_base(cluster, dir).done();
    let Report::PgBase { artefact, base } = report else { panic!("{report:?}") };
    manifest.artefacts.push(artefact);
    manifest.base = Some(base.clone());
    (seal(cluster, dir, manifest), base)
}

fn recover_task(cluster: &Cluster, stored: &Stored, at: &str, dir: &str) -> Task {
    Task::PgRecover(PgRecover {
        connect: cluster.connect(),
        stored: stored.clone(),
        database: "app".into(),
        until: at.into(),
        dir: dir.into(),
    })
}

fn recover(cluster: &Cluster, stored: &Stored, at: &str) -> Outcome {
    run_with(cluster, recover_task(cluster, stored, at, "recovered"))
}

/// What is in the table at a moment, through everything that a restore does.
fn rows_at(cluster: &Cluster, stored: &Stored, at: &str) -> String {
    let report = recover(cluster, stored, at).done();
    let Report::PgDump(dumped) = report else { panic!("{report:?}") };
    assert_eq!(dumped.started, at, "the data is that of this moment");
    let recovered = seal(cluster, "recovered", manifest("recovered", *dumped));
    let task = PgRestore {
        connect: cluster.connect(),
        stored: recovered,
        live: "app".into(),
        side: "skep_side".into(),
    };
    run_with(cluster, Task::PgRestore(task)).done();
    let rows = rows(cluster, "skep_side");
    cluster.sql("postgres", "DROP DATABASE skep_side");
    fs::remove_dir_all(cluster.store().join("recovered")).unwrap();
    assert!(!cluster.dir.join("scratch").exists(), "nothing is left of the scratch server");
    rows
}

fn rows(cluster: &Cluster, database: &str) -> String {
    cluster.sql(database, "SELECT string_agg(x, ',' ORDER BY x) FROM t")
}

/// Waits until everything up to a moment was received.
fn received(cluster: &Cluster, at: &str) {
    until(|| {
        eras(cluster).iter().any(|era| {
            let text = fs::read_to_string(era.join("received.json")).unwrap_or_default();
            let note: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            note["until"].as_str().is_some_and(|until| until > at)
        })
    });
}

fn eras(cluster: &Cluster) -> Vec<PathBuf> {
    let under = |dir: PathBuf| -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> =
            fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    };
    under(cluster.store().join("wal")).into_iter().flat_map(under).collect()
}

/// Whole segments that were received, in order.
fn segments(cluster: &Cluster) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = eras(cluster)
        .into_iter()
        .flat_map(|era| fs::read_dir(era).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.file_name().unwrap().len() == 24)
        .collect();
    all.sort();
    all
}

#[test]
fn what_was_committed_until_a_moment_comes_back_and_nothing_later() {
    let cluster = started();
    let _receiver = Receiver::start(&cluster);
    insert(&cluster, "a");
    let (stored, base) = back_up(&cluster, "b1");
    assert!(base.size > 1 << 20);
    let mut moments = Vec::new();
    for x in ["b", "c", "d"] {
        insert(&cluster, x);
        moments.push(now(&cluster));
    }
    switch(&cluster);
    cluster.sql("app", "DROP TABLE t");
    let gone = now(&cluster);
    received(&cluster, &gone);
    assert_eq!(rows_at(&cluster, &stored, &moments[0]), "a,b");
    assert_eq!(rows_at(&cluster, &stored, &moments[2]), "a,b,c,d", "the moment before somebody dropped it");
    let databases = cluster.databases();
    assert_eq!(databases, "app", "the live server has nothing but what it had");
}

#[test]
fn a_moment_after_which_nothing_was_committed_is_recovered_from_all_that_there_is() {
    let cluster = started();
    let _receiver = Receiver::start(&cluster);
    let (stored, _) = back_up(&cluster, "b1");
    insert(&cluster, "a");
    let at = now(&cluster);
    received(&cluster, &at);
    assert_eq!(rows_at(&cluster, &stored, &at), "a");
}

#[test]
fn moments_before_the_base_and_after_what_was_received_are_refused_with_what_there_is() {
    let cluster = started();
    let receiver = Receiver::start(&cluster);
    let before = now(&cluster);
    let (stored, base) = back_up(&cluster, "b1");
    receiver.stop();
    let message = recover(&cluster, &stored, &before).refused();
    assert!(message.contains("before the base backup") && message.contains(&base.ended), "{message}");
    let message = recover(&cluster, &stored, "2099-01-01T00:00:00Z").refused();
    assert!(
        message.contains("later than what was received") && message.contains("reaches until 20"),
        "{message}"
    );
    let message = recover(&cluster, &stored, "yesterday").refused();
    assert!(message.contains("not a time in UTC"), "{message}");
    assert!(!cluster.store().join("recovered").exists());
}

#[test]
fn a_missing_segment_is_named_and_what_was_committed_before_it_still_comes_back() {
    let cluster = started();
    let _receiver = Receiver::start(&cluster);
    let (stored, _) = back_up(&cluster, "b1");
    insert(&cluster, "a");
    let early = now(&cluster);
    for x in ["b", "c", "d"] {
        switch(&cluster);
        insert(&cluster, x);
    }
    let late = now(&cluster);
    received(&cluster, &late);
    let all = segments(&cluster);
    // The one with the third row; whatever comes later is after the gap.
    let missing = &all[all.len() - 1];
    let name = missing.file_name().unwrap().to_str().unwrap().to_owned();
    fs::remove_file(missing).unwrap();
    let message = recover(&cluster, &stored, &late).refused();
    assert!(message.contains(&name) && message.contains("missing"), "{message}");
    assert!(!cluster.store().join("recovered").exists());
    assert_eq!(rows_at(&cluster, &stored, &early), "a");
}

#[test]
fn a_damaged_segment_is_found_out() {
    let cluster = started();
    let _receiver = Receiver::start(&cluster);
    let (stored, _) = back_up(&cluster, "b1");
    insert(&cluster, "a");
    switch(&cluster);
    insert(&cluster, "b");
    let at = now(&cluster);
    received(&cluster, &at);
    let all = segments(&cluster);
    let file = fs::OpenOptions::new().write(true).open(&all[all.len() - 1]).unwrap();
    file.write_all_at(&[0xAA; 64 << 10], 0).unwrap();
    let message = recover(&cluster, &stored, &at).refused();
    assert!(message.contains("is damaged"), "{message}");
    assert!(!cluster.store().join("recovered").exists());
}

#[test]
fn an_altered_base_is_refused_before_anything_is_unpacked() {
    let cluster = started();
    let _receiver = Receiver::start(&cluster);
    let (stored, _) = back_up(&cluster, "b1");
    let at = now(&cluster);
    received(&cluster, &at);
    let file = fs::OpenOptions::new().write(true).open(cluster.store().join("b1/base.tar.gz")).unwrap();
    file.write_all_at(b"x", 1000).unwrap();
    let message = recover(&cluster, &stored, &at).refused();
    assert!(message.contains("checksum"), "{message}");
    let examined = run_with(&cluster, Task::PgExamine(stored)).refused();
    assert!(examined.contains("base.tar.gz"), "{examined}");
}

#[test]
fn a_receiver_that_comes_back_leaves_no_gap_and_never_writes_where_another_one_did() {
    let cluster = started();
    let receiver = Receiver::start(&cluster);
    let (stored, _) = back_up(&cluster, "b1");
    insert(&cluster, "a");
    receiver.stop();
    insert(&cluster, "b");
    switch(&cluster);
    insert(&cluster, "c");
    let _receiver = Receiver::start(&cluster);
    let at = now(&cluster);
    received(&cluster, &at);
    assert_eq!(eras(&cluster).len(), 2);
    assert_eq!(rows_at(&cluster, &stored, &at), "a,b,c");
}

#[test]
fn a_second_receiver_takes_the_slot_over() {
    let cluster = started();
    let mut first = Receiver::start(&cluster);
    let at = now(&cluster);
    received(&cluster, &at);
    let _second = Receiver::start(&cluster);
    until(|| first.0.try_wait().unwrap().is_some());
    let at = now(&cluster);
    received(&cluster, &at);
}

#[test]
fn a_slot_that_the_server_gave_up_is_made_anew_and_the_gap_shows() {
    let cluster =
        started_with("max_slot_wal_keep_size = '32MB'\nmin_wal_size = '32MB'\nmax_wal_size = '32MB'\n");
    let receiver = Receiver::start(&cluster);
    let (stored, _) = back_up(&cluster, "b1");
    receiver.stop();
    let lost = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{SLOT}'");
    until(|| {
        insert(&cluster, "a");
        switch(&cluster);
        cluster.sql("postgres", "CHECKPOINT");
        cluster.sql("postgres", &lost) == "lost"
    });
    let _receiver = Receiver::start(&cluster);
    let at = now(&cluster);
    received(&cluster, &at);
    let message = recover(&cluster, &stored, &at).refused();
    assert!(message.contains("missing"), "{message}");
    let (stored, _) = back_up(&cluster, "b2");
    let at = now(&cluster);
    received(&cluster, &at);
    assert_eq!(rows_at(&cluster, &stored, &at), rows(&cluster, "app"), "a new base makes it good");
}

#[test]
fn what_a_server_lacks_is_told_at_once_with_what_mends_it() {
    let cluster = Cluster::start_with("wal_level = minimal\nmax_wal_senders = 0\n");
    let hba = cluster.dir.join("data/pg_hba.conf");
    let lines = fs::read_to_string(&hba).unwrap();
    let lines: Vec<&str> = lines.lines().filter(|line| !line.contains("replication")).collect();
    fs::write(&hba, lines.join("\n") + "\n").unwrap();
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let role = format!("CREATE ROLE weak LOGIN PASSWORD '{}'", PASSWORD.replace('\'', "''"));
    cluster.sql("postgres", &role);
    let connect = Connect { user: "weak".into(), ..cluster.connect() };
    let task = PgReceive { connect, dir: "wal".into(), slot: SLOT.into() };
    let message = run_with(&cluster, Task::PgReceive(task)).refused();
    for wanted in
        ["wal_level", "max_wal_senders", "max_slot_wal_keep_size", "ALTER ROLE \"weak\" REPLICATION"]
    {
        assert!(message.contains(wanted), "{message}");
    }
    assert_eq!(cluster.sql("postgres", "SELECT count(*) FROM pg_replication_slots"), "0");
}

#[test]
fn a_connection_that_pg_hba_does_not_let_in_is_told_with_the_line_that_does() {
    let cluster = started();
    let hba = cluster.dir.join("data/pg_hba.conf");
    let lines = fs::read_to_string(&hba).unwrap();
    let lines: Vec<&str> = lines.lines().filter(|line| !line.contains("replication")).collect();
    fs::write(&hba, lines.join("\n") + "\n").unwrap();
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let message = run_with(&cluster, receive(&cluster)).refused();
    assert!(message.contains("host replication post gres all scram-sha-256"), "{message}");
    cluster.dump("app", "b1");
    assert!(take_base(&cluster, "b1").refused().contains("host replication"));
    assert_eq!(
        fs::read_dir(cluster.store().join("b1")).unwrap().count(),
        2,
        "the dump and the roles are worth keeping"
    );
}

#[test]
fn killed_half_way_a_recovery_leaves_the_live_server_as_it_was_and_can_be_repeated() {
    let cluster = started();
    let _receiver = Receiver::start(&cluster);
    let (stored, _) = back_up(&cluster, "b1");
    insert(&cluster, "a");
    let at = now(&cluster);
    insert(&cluster, "b");
    let later = now(&cluster);
    received(&cluster, &later);
    let server = || -> Option<i32> {
        let text = fs::read_to_string(cluster.dir.join("scratch/data/postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    };
    let mut runner = Runner::new(&cluster, recover_task(&cluster, &stored, &at, "recovered")).spawn();
    until(|| server().is_some());
    runner.kill().unwrap();
    runner.wait().unwrap();
    // In a job's container everything ends with the runner.
    let pid = rustix::process::Pid::from_raw(server().unwrap()).unwrap();
    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
    until(|| rustix::process::test_kill_process(pid).is_err());
    assert_eq!((cluster.databases(), rows(&cluster, "app")), ("app".into(), "a,b".into()));
    assert!(!cluster.store().join("recovered/manifest.json").exists());
    assert_eq!(rows_at(&cluster, &stored, &at), "a");
}

#[test]
fn told_to_stop_a_recovery_leaves_nothing() {
    let cluster = started();
    let _receiver = Receiver::start(&cluster);
    let (stored, _) = back_up(&cluster, "b1");
    let at = now(&cluster);
    received(&cluster, &at);
    let runner = Runner::new(&cluster, recover_task(&cluster, &stored, &at, "recovered")).spawn();
    until(|| cluster.dir.join("scratch/data/postmaster.pid").exists());
    let pid = rustix::process::Pid::from_child(&runner);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    Outcome::of(runner).put_off();
    assert!(!cluster.dir.join("scratch").exists());
}

#[test]
fn a_recovered_cluster_takes_up_nothing_that_the_live_one_does() {
    let cluster = started();
    cluster.sql("app", "CREATE TABLE s (x text)");
    let _receiver = Receiver::start(&cluster);
    cluster
        .sql("app", "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)");
    cluster.sql("postgres", "ALTER SYSTEM SET archive_command = 'touch /nowhere/at/all'");
    cluster.sql("postgres", "ALTER SYSTEM SET listen_addresses = '*'");
    let (stored, _) = back_up(&cluster, "b1");
    insert(&cluster, "a");
    let at = now(&cluster);
    received(&cluster, &at);
    assert_eq!(rows_at(&cluster, &stored, &at), "a");
}

#[test]
fn what_no_base_needs_any_more_goes_and_the_rest_still_recovers() {
    let cluster = started();
    let receiver = Receiver::start(&cluster);
    let (old, _) = back_up(&cluster, "b1");
    insert(&cluster, "a");
    switch(&cluster);
    receiver.stop();
    let _receiver = Receiver::start(&cluster);
    insert(&cluster, "b");
    switch(&cluster);
    let (new, base) = back_up(&cluster, "b2");
    insert(&cluster, "c");
    let at = now(&cluster);
    received(&cluster, &at);
    let before = segments(&cluster).len();
    run_with(&cluster, Task::WalPrune(WalPrune { dir: "wal".into(), keep: vec![base] })).done();
    assert!(segments(&cluster).len() < before);
    assert_eq!(eras(&cluster).len(), 1, "an era of which nothing is left goes");
    assert_eq!(rows_at(&cluster, &new, &at), "a,b,c");
    let message = recover(&cluster, &old, &at).refused();
    assert!(message.contains("missing"), "{message}");
    run_with(&cluster, Task::WalPrune(WalPrune { dir: "wal".into(), keep: vec![] })).refused();
}

#[test]
fn a_slot_is_removed_whoever_uses_it_and_a_slot_of_others_is_not() {
    let cluster = started();
    let receiver = Receiver::start(&cluster);
    let at = now(&cluster);
    received(&cluster, &at);
    let drop_slot = |slot: &str| {
        let task = PgDropSlot { connect: cluster.connect(), slot: slot.into() };
        run_with(&cluster, Task::PgDropSlot(task))
    };
    let slots = "SELECT string_agg(slot_name, ',') FROM pg_replication_slots";
    drop(receiver);
    drop_slot(SLOT).done();
    assert_eq!(cluster.sql("postgres", slots), "");
    drop_slot(SLOT).done();
    cluster.sql("postgres", "SELECT pg_create_physical_replication_slot('standby')");
    assert!(drop_slot("standby").refused().contains("not the name"));
    cluster.sql("app", "SELECT pg_create_logical_replication_slot('skep_other', 'pgoutput')");
    let task = PgReceive { connect: cluster.connect(), dir: "wal".into(), slot: "skep_other".into() };
    assert!(run_with(&cluster, Task::PgReceive(task)).refused().contains("not Skep's"));
}
