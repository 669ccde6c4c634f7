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
use skep::operation::settings::{self, Settings};
use skep::swarm::object::Kind;
use skep_tests::sandbox::{eventually, unique};
use skep_tests::stage::{PATIENCE, Setting, Stage};
use skep_tests::yard::{RESTORE, Yard, told};

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

const FILES: &str = r#"
version: "3.8"
services:
  files:
    image: skep-test/redis:7
    command: ["sleep", "infinity"]
    init: true
    volumes: ["uploads_data:/srv/uploads"]
    deploy: { labels: { skep.enable: "true", skep.data: volume } }
  cache:
    image: skep-test/redis:7
    command: ["redis-server", "--appendonly", "yes"]
    volumes: ["cache:/data"]
    deploy: { labels: { skep.enable: "true", skep.data: redis } }
volumes: { uploads_data: {}, cache: {} }
"#;

const FILL: [(&str, &str); 2] = [
    (
        "files",
        "cd /srv/uploads && mkdir -p a/deep b && seq 100000 >a/deep/one && echo two >b/two && ln -s ../b/two a/link \
         && ln b/two b/hard && truncate -s 1M b/sparse && chown -R 1234:5678 a && chmod 2750 a && printf x >\"odd $(printf '\\t')\" \
         && chmod 0601 b/two && mkdir \"$(printf d%.0s $(seq 200))\" && touch -d 2001-02-03 \"$(printf d%.0s $(seq 200))/old\"",
    ),
    (
        "cache",
        "for i in $(seq 40); do echo set cart:$i value-$i; done | redis-cli >/dev/null && redis-cli rpush list a b c \
         && redis-cli hset hash f 1 g 2 && redis-cli zadd zset 1 one 2 two && redis-cli xadd log 1-1 k v && redis-cli set forever x",
    ),
];

/// What is in the volume, what is in its files, and what they are; of times no more than an archive of GNU's tar holds.
const UPLOADS: &str = "cd /srv/uploads && find . -mindepth 1 -name '.skep-*' -prune -o -printf '%P %y %m %U %G %l %n %Ts\\n' | sort \
                       && find . -name '.skep-*' -prune -o -type f -print0 | sort -z | xargs -0 sha256sum";
const KEYS: &str = "for key in $(redis-cli --raw keys '*' | sort); do echo $key $(redis-cli type $key) \
                    $(redis-cli --no-raw dump $key) $(redis-cli --raw pttl $key); done";

/// A stack whose volume and cache people have backed up with `tar` and `redis-cli`.
struct ByHand {
    yard: Yard,
    store: String,
}

// === impl ByHand ===

impl ByHand {
    async fn set() -> ByHand {
        let store = unique("hand-backups");
        let volume = settings::Store::Volume { name: store.clone(), driver: None, options: BTreeMap::new() };
        let settings =
            Settings { stores: BTreeMap::from([("default".to_owned(), volume)]), ..Settings::default() };
        let by_hand = ByHand { yard: Yard::deploy("hand", FILES, settings).await, store };
        for (service, fill) in FILL {
            eventually(&format!("{service} to take its data"), PATIENCE, async || {
                by_hand.yard.try_sh(service, fill).await.map(drop)
            })
            .await;
        }
        by_hand
    }

    /// A script where a person sees the store, and the data to read.
    async fn sh(&self, script: &str) -> String {
        let mounts = [
            format!("{}:/store", self.store),
            format!("{}:/uploads:ro", self.yard.stack.service("uploads_data")),
            format!("{}:/cache:ro", self.yard.stack.service("cache")),
        ];
        let mut args = vec!["run", "--rm", "--network", "none", "--user", "0"];
        args.extend(mounts.iter().flat_map(|mount| ["-v", mount.as_str()]));
        args.extend(["skep-test/redis:7", "bash", "-ec", script]);
        self.yard.sandbox.docker(&args).await
    }

    /// Fills a directory of the store, and lists what is in it.
    async fn fill(&self, dir: &str, script: &str) {
        let list = "find . -type f | sed 's,^./,,' | sort | while read -r file; do \
                    echo \"$file|$(stat -c %s \"$file\")|$(sha256sum <\"$file\" | cut -d ' ' -f 1)\"; done >/tmp/list; \
                    { echo '=== by hand ==='; cat /tmp/list; } >MANIFEST.txt";
        self.sh(&format!("mkdir -p /store/{dir} && cd /store/{dir} && {script}\n{list}")).await;
    }

    async fn import(&self, service: &str, dir: &str) -> Operation {
        let layout = Some(dir.to_owned());
        let work =
            Work::Import { store: "default".to_owned(), from: None, quick: false, layout, dry_run: false };
        self.yard.run(service, work).await
    }
}

/// Every file of theirs, with its content and its time.
const THEIRS: &str = "cd /store/old && find . -printf '%P %y %m %s %T@ %C@\\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum";

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn what_tar_and_redis_wrote_by_hand_is_imported_and_comes_back_exactly() {
    const DIR: &str = "old/20240215-020000";
    let place = ByHand::set().await;
    let yard = &place.yard;
    let (uploads, keys) = (yard.sh("files", UPLOADS).await, yard.sh("cache", KEYS).await);
    yard.sh("cache", "redis-cli bgrewriteaof && redis-cli save && ls /data/appendonlydir/*.base.rdb").await;
    place
        .fill(
            DIR,
            "mkdir redis volumes configs && cp -p /cache/dump.rdb redis/redis-20240215-020000.rdb \
             && cp -p /cache/appendonlydir/*.base.rdb /cache/appendonlydir/*.incr.aof redis/ \
             && tar -czf volumes/uploads-20240215-020000.tar.gz -C /uploads . && echo conf >configs/app.conf",
        )
        .await;
    let theirs = place.sh(THEIRS).await;
    for (service, content, spoil, told_of, times) in [
        (
            "files",
            UPLOADS,
            "cd /srv/uploads && rm -r a && echo other >b/two && touch new",
            "redis-20240215",
            &uploads,
        ),
        (
            "cache",
            KEYS,
            "redis-cli del cart:7 && redis-cli set other 1 && redis-cli lpush list z",
            "append-only",
            &keys,
        ),
    ] {
        let op = place.import(service, DIR).await;
        assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
        let remarks = op.journal.remarks.join("\n");
        assert!(remarks.contains(told_of) && remarks.contains("configs/app.conf"), "{remarks}");
        assert_eq!(place.sh(THEIRS).await, theirs, "their files are as they were");
        let [only] = yard.backups(service).await.try_into().unwrap();
        assert_eq!(only.entry.origin, Origin::Imported);
        println!("{service}: {} bytes of {}, {remarks}", only.entry.size, only.entry.taken);
        yard.try_sh(service, spoil).await.unwrap();
        assert_ne!(&yard.sh(service, content).await, times);
        let op = yard.run(service, RESTORE).await;
        assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
        assert_eq!(&yard.sh(service, content).await, times, "{}", told(&op));
    }

    // What is no archive, or would leave the volume, is not taken in, and nothing of it stays.
    let (stored, registered) = (place.sh("find /store/v1 | sort").await, yard.backups("files").await.len());
    for (name, script, why) in [
        ("none", "echo none of it | gzip >volumes/uploads.tar.gz", "the archive is damaged"),
        ("out", "cd volumes && tar -czPf uploads.tar.gz ../../../../etc/hostname && cd ..", "leads out"),
        ("cut", "tar -cz -C /uploads . | head -c 3000 >volumes/uploads.tar.gz", "cut short"),
    ] {
        let dir = format!("bad/{name}");
        place.fill(&dir, &format!("mkdir volumes && {script}")).await;
        let op = place.import("files", &dir).await;
        assert_ne!(op.journal.state, State::Succeeded, "{name}: {}", told(&op));
        assert!(op.journal.steps.iter().any(|(_, step)| step.reason.contains(why)), "{name}: {op:#?}");
        assert_eq!(place.sh("find /store/v1 | sort").await, stored, "{name}: a copy is left");
        assert_eq!(yard.backups("files").await.len(), registered, "{name}");
    }
    let (sandbox, store) = (yard.sandbox, place.store.clone());
    place.yard.strike().await;
    sandbox.remove_volume(&store).await;
}
