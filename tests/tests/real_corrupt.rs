//! A backup that is not what was registered is refused before anything live is touched; an older good one is used.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_corrupt -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use skep::operation::catalogue::{Backup, Purpose};
use skep::operation::record::{OpId, State, Work};
use skep::swarm::object::Kind;
use skep_tests::stage::{Setting, Stage};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

/// One way to spoil a backup, given its directory and that of another good one.
type Spoil = fn(&Path, &Path);

const WAYS: [(&str, Spoil); 6] = [
    ("truncated", |dir, _| {
        let dump = largest(dir);
        let length = fs::metadata(&dump).unwrap().len();
        fs::OpenOptions::new().write(true).open(&dump).unwrap().set_len(length / 2).unwrap();
    }),
    ("one byte flipped", |dir, _| {
        let dump = largest(dir);
        let mut bytes = fs::read(&dump).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&dump, bytes).unwrap();
    }),
    ("swapped with another backup", |dir, other| {
        fs::remove_dir_all(dir).unwrap();
        copy(other, dir);
    }),
    ("the dump of another backup", |dir, other| {
        fs::copy(largest(other), largest(dir)).unwrap();
    }),
    ("a foreign manifest", |dir, _| {
        let path = dir.join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        let foreign = text.replace("_db\"", "_other\"");
        assert_ne!(text, foreign, "the manifest names its service");
        fs::write(&path, foreign).unwrap();
    }),
    ("no manifest", |dir, _| fs::remove_file(dir.join("manifest.json")).unwrap()),
];

/// The largest file of a backup: its dump.
fn largest(dir: &Path) -> PathBuf {
    let files = files(dir).into_iter().filter(|f| f.extension().is_none_or(|e| e != "json"));
    files.max_by_key(|f| fs::metadata(f).unwrap().len()).expect("a backup has a dump")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}

/// The newest regular backup of the shop: its id and its directory as the host sees it.
async fn newest(stage: &Stage) -> (String, PathBuf) {
    let configs = stage.engine.configs(Kind::Backup, &[]).await.unwrap();
    let backups = configs.iter().filter_map(Backup::read).map(|b| b.entry);
    let mut backups: Vec<_> = backups.filter(|e| e.purpose == Purpose::Regular).collect();
    backups.sort_by_key(|e| e.taken);
    let newest = backups.pop().expect("there is a backup");
    (newest.id, stage.stored(&newest.dir))
}

/// The versions of all specs: they move with every write, also one that changes nothing.
async fn versions(stage: &Stage) -> BTreeMap<&'static str, u64> {
    let mut versions = BTreeMap::new();
    for short in ["proxy", "app", "worker", "db", "cache"] {
        versions.insert(short, stage.engine.service(&stage.service(short)).await.unwrap().version);
    }
    versions
}

async fn restore_of(stage: &Stage, backup: Option<String>) -> OpId {
    stage
        .ask(Work::Restore {
            to: None,
            backup,
            before: None,
            in_place: None,
            quiesce: None,
            create_roles: false,
        })
        .await
}

async fn refused(stage: &Stage, way: &str, spoil: Spoil, good: &Path) {
    stage.back_up().await;
    let (id, dir) = newest(stage).await;
    spoil(&dir, good);
    let shop = stage.shop();
    let (before, databases) = (versions(stage).await, shop.databases().await);
    let users = stage.users(40);
    let op = restore_of(stage, Some(id)).await;
    let ended = stage.ended(&op).await;
    let report = users.leave().await;
    println!(
        "{way}: {:?}, {:?}",
        ended.journal.state,
        ended.journal.steps.iter().map(|(n, r)| (n, r.state, &r.note)).collect::<Vec<_>>()
    );
    assert_eq!(ended.journal.state, State::Failed, "{way}: {:#?}", ended.journal);
    for step in ["safety", "beside", "stop", "cut"] {
        assert!(ended.journal.step(step).is_none(), "{way}: {step} had begun");
    }
    assert_eq!(versions(stage).await, before, "{way}: no spec was written");
    assert_eq!(shop.databases().await, databases, "{way}: no database was made");
    assert_eq!(report.totals.app, report.totals.all(), "{way}: users noticed nothing: {:?}", report.totals);
    shop.is_tidy().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_spoilt_backup_is_refused_with_nothing_touched_and_an_older_good_one_is_used() {
    let stage = Stage::set(Setting::default()).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let shop = stage.shop();
    let rows = shop.orders().await;
    stage.back_up().await;
    let (good, directory) = newest(&stage).await;
    for (way, spoil) in WAYS {
        refused(&stage, way, spoil, &directory).await;
    }
    // The three newest are candidates; the good one must be among them.
    forget_all_but(&stage, &good, 2).await;
    shop.drop_orders().await;
    let op = restore_of(&stage, None).await;
    let ended = stage.ended(&op).await;
    println!("remarks: {:#?}", ended.journal.remarks);
    assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    assert_eq!(ended.journal.step("beside").unwrap().out["backup"], good.as_str());
    assert!(rows.is_subset(&shop.orders().await), "every order of the good backup is back");
    drop(operator);
    stage.strike().await;
}

/// Removes spoilt backups from the catalogue until `keep` are left beside the good one.
async fn forget_all_but(stage: &Stage, good: &str, keep: usize) {
    let configs = stage.engine.configs(Kind::Backup, &[]).await.unwrap();
    let backups = configs.iter().filter_map(Backup::read);
    let spoilt: Vec<_> = backups.filter(|b| b.entry.id != good).collect();
    for backup in &spoilt[keep..] {
        stage.engine.remove_config(&backup.config).await.unwrap();
    }
}
