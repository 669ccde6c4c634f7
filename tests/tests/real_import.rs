//! A catalogue that was lost is rebuilt from the store, and its backups restore.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_import -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use skep::operation::catalogue::{Backup, Origin};
use skep::operation::record::{Operation, State, Work};
use skep::swarm::object::Kind;
use skep_tests::stage::{Setting, Stage};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

/// The catalogue, oldest first.
async fn catalogue(stage: &Stage) -> Vec<Backup> {
    let configs = stage.engine.configs(Kind::Backup, &[]).await.unwrap();
    let mut backups: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
    backups.sort_by_key(|b| b.entry.taken);
    backups
}

/// What the loss of the Swarm does to the catalogue.
async fn forget(stage: &Stage) {
    for backup in catalogue(stage).await {
        stage.engine.remove_config(&backup.config).await.unwrap();
    }
}

async fn done(stage: &Stage, work: Work) -> Operation {
    let id = stage.ask(work).await;
    let ended = stage.ended(&id).await;
    println!("{}: {:?} {:?}", ended.title(), ended.journal.state, ended.journal.remarks);
    ended
}

fn import() -> Work {
    Work::Import { store: "default".to_owned(), from: None, quick: false, layout: None, dry_run: false }
}

/// The dump of a backup, as this host sees it.
fn dump(stage: &Stage, backup: &Backup) -> PathBuf {
    stage.stored(&backup.entry.dir).join("shop.dump")
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_lost_catalogue_is_rebuilt_from_the_store_without_what_is_spoilt_and_restores() {
    let stage = Stage::set(Setting::default()).await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let shop = stage.shop();
    let rows = shop.orders().await;
    stage.back_up().await;
    stage.back_up().await;
    let [old, new] = catalogue(&stage).await.try_into().unwrap();

    // One flipped byte is found by a verification, and by an import.
    flip(&dump(&stage, &new));
    let verified = done(&stage, Work::Verify { backup: None }).await;
    assert_eq!(verified.journal.state, State::Failed);
    let [good, spoilt] = catalogue(&stage).await.try_into().unwrap();
    assert!(good.verified > old.verified && good.spoilt.is_none(), "{good:?}");
    assert!(spoilt.verified.is_none() && spoilt.spoilt.unwrap().why.contains("checksum"));
    forget(&stage).await;
    let imported = done(&stage, import()).await;
    assert_eq!(imported.journal.state, State::Succeeded, "{:#?}", imported.journal);
    let [only] = catalogue(&stage).await.try_into().unwrap();
    let same =
        |b: &Backup| (b.entry.id.clone(), b.entry.manifest_sha256.clone(), b.entry.taken, b.entry.size);
    assert_eq!((same(&only), only.entry.origin), (same(&old), Origin::Imported));
    assert_eq!(only.entry.database, "shop");

    shop.drop_orders().await;
    let restored = stage.ask_restore().await;
    let restored = stage.ended(&restored).await;
    assert_eq!(restored.journal.state, State::Succeeded, "{:#?}", restored.journal);
    assert!(rows.is_subset(&shop.orders().await), "every order of the imported backup is back");

    by_hand(&stage).await;
    drop(operator);
    stage.strike().await;
}

/// Files below a directory, with what they hold and when they were last written to.
fn files(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            let written = entry.metadata().unwrap().modified().unwrap();
            files.insert(path.clone(), (std::fs::read(&path).unwrap(), written));
        }
    }
    files
}

/// What people have who dumped by hand: plain `pg_dump`, `sha256sum`, and a list of it all.
async fn dump_by_hand(stage: &Stage, dir: &Path) {
    let container = stage.sandbox.container(&stage.service("db")).await;
    let docker = async |args: &[&str]| stage.sandbox.docker(args).await;
    for (part, name) in [("postgres", "shop.dump"), ("redis", "dump.rdb"), ("configs", "app.conf")] {
        std::fs::create_dir_all(dir.join(part)).unwrap();
        std::fs::write(dir.join(part).join(name), format!("{part} of the shop")).unwrap();
    }
    docker(&["exec", &container, "pg_dump", "-U", "shop", "-Fc", "-f", "/tmp/shop.dump", "shop"]).await;
    let target = dir.join("postgres/shop.dump");
    docker(&["cp", &format!("{container}:/tmp/shop.dump"), target.to_str().unwrap()]).await;
    let mut list = "=== backup by hand ===\n".to_owned();
    for (path, (bytes, _)) in files(dir) {
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let file = path.strip_prefix(dir).unwrap().display();
        list += &format!("{file}|{}|{sum}\n", bytes.len());
    }
    std::fs::write(dir.join("MANIFEST.txt"), list).unwrap();
}

async fn by_hand(stage: &Stage) {
    const DIR: &str = "old/20240215-020000";
    let shop = stage.shop();
    let (dir, rows) = (stage.stored(DIR), shop.orders().await);
    dump_by_hand(stage, &dir).await;
    forget(stage).await;
    let layout = || Work::Import {
        store: "default".to_owned(),
        from: None,
        quick: false,
        layout: Some(DIR.to_owned()),
        dry_run: false,
    };

    // One flipped byte refuses all of it.
    flip(&dir.join("redis/dump.rdb"));
    let refused = done(stage, layout()).await;
    assert_eq!(refused.journal.state, State::Failed, "{:#?}", refused.journal);
    assert_eq!(catalogue(stage).await, []);
    flip(&dir.join("redis/dump.rdb"));

    let before = files(&dir);
    let imported = done(stage, layout()).await;
    assert_eq!(imported.journal.state, State::Succeeded, "{:#?}", imported.journal);
    assert_eq!(files(&dir), before, "their files are as they were");
    let [only] = catalogue(stage).await.try_into().unwrap();
    assert_eq!((only.entry.origin, only.entry.database.as_str()), (Origin::Imported, "shop"));

    // The backup needs nothing of theirs.
    std::fs::remove_dir_all(&dir).unwrap();
    shop.drop_orders().await;
    let restored = stage.ask_restore().await;
    let restored = stage.ended(&restored).await;
    assert_eq!(restored.journal.state, State::Succeeded, "{:#?}", restored.journal);
    assert!(rows.is_subset(&shop.orders().await), "every order of the dump is back");
}
