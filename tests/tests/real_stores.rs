//! A bucket, encryption and copies on a real Swarm: a PostgreSQL and a volume are backed up to an S3 server, encrypted,
//! with a copy in a second store, and come back exactly; also when the server is away, full of errors, or slow, and when
//! whoever drives the operation dies in the middle.
//!
//! The S3 server runs in this process, on the host's end of the link with the sandbox.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_stores -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`, and the image skep:dev; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use skep::operation::catalogue::Backup;
use skep::operation::record::{Operation, State, Work};
use skep::operation::settings::{Settings, Store};
use skep_s3::{Asked, Fault, Faults, Keys, Kind, Server, serve};
use skep_tests::sandbox::{Sandbox, unique};
use skep_tests::yard::{RESTORE, Yard, told};

/// In the data of both services, so that whoever finds it in a store knows that it is not encrypted.
const SENTINEL: &str = "a-word-that-nobody-else-may-read";
const BUCKET: &str = "backups";
const IDENTITY: &str = "skep-age-identity";
/// A service whose backups go, as they are, to a volume that the engine mounts with options.
const NOTES: Kept = Kept {
    service: "notes",
    fill: "cd /srv/notes && seq 300000 >numbers && head -c 2000000 /dev/urandom >noise && echo done",
    content: "cd /srv/notes && find . -name '.skep-*' -prune -o -type f -print0 | sort -z | xargs -0 sha256sum",
    spoil: "cd /srv/notes && rm numbers && echo other >noise",
};
const SERVICES: [Kept; 2] = [
    Kept {
        service: "db",
        fill: "psql -X -v ON_ERROR_STOP=1 -U shop -d shop -c \"DROP TABLE IF EXISTS orders; CREATE TABLE orders AS \
               SELECT g AS id, 'a-word-that-nobody-else-may-read ' || sha256(g::text::bytea)::text AS what \
               FROM generate_series(1, 20000) g\"",
        content: "psql -X -A -t -v ON_ERROR_STOP=1 -U shop -d shop -c \
                  \"SELECT count(*), md5(string_agg(id || what, ',' ORDER BY id)) FROM orders\"",
        spoil: "psql -X -v ON_ERROR_STOP=1 -U shop -d shop -c 'DELETE FROM orders WHERE id % 2 = 0'",
    },
    Kept {
        service: "files",
        fill: "cd /srv/uploads && mkdir -p a/deep && seq 300000 >a/deep/numbers && head -c 3000000 /dev/urandom >noise \
               && echo a-word-that-nobody-else-may-read >a/word && ln -s ../noise a/link && chown -R 1234:5678 a && echo done",
        content: "cd /srv/uploads && find . -name '.skep-*' -prune -o -printf '%P %y %m %U %G %l\\n' | sort \
                  && find . -name '.skep-*' -prune -o -type f -print0 | sort -z | xargs -0 sha256sum",
        spoil: "cd /srv/uploads && rm -r a && echo other >noise && touch new",
    },
];

/// One service with data.
#[derive(Clone, Copy)]
struct Kept {
    service: &'static str,
    fill: &'static str,
    content: &'static str,
    spoil: &'static str,
}

/// The stack, the S3 server, and the second store.
struct Place {
    yard: Yard,
    keys: Keys,
    address: SocketAddr,
    root: PathBuf,
    volumes: [String; 2],
    server: Option<Server>,
    faults: Faults,
}

// === impl Place ===

impl Place {
    async fn set() -> Place {
        let sandbox = Sandbox::shared().await;
        let root = std::env::temp_dir().join(unique("skep-stores"));
        for dir in ["s3/backups", "nas", "shelf"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let keys = Keys { id: "skep".to_owned(), secret: "not-a-secret-of-anybody".to_owned() };
        let faults = Faults::default();
        let server = serve(&root.join("s3"), &keys, SocketAddr::new(sandbox.host(), 0), faults.clone()).await;
        let server = server.unwrap();
        let address = server.address;
        // Of this run alone: secrets of another one open nothing of it.
        let (credentials, secret) = (unique("skep-s3"), unique(IDENTITY));
        sandbox.secret(&credentials, &format!("{}\n{}\n", keys.id, keys.secret)).await;
        let identity = age::x25519::Identity::generate();
        sandbox.secret(&secret, identity.to_string().expose_secret()).await;
        let cloud = format!(
            "s3://{BUCKET}/swarm,endpoint=http://{address},path-style=true,credentials={credentials}"
        );
        let volumes = [unique("skep-shelf"), unique("skep-small")];
        let device = root.join("shelf").display().to_string();
        let shelf = format!("volume:{},opt.type=none,opt.o=bind,opt.device={device}", volumes[0]);
        let small = format!("volume:{},opt.type=tmpfs,opt.device=tmpfs,opt.o=size=1m", volumes[1]);
        let settings = Settings {
            stores: BTreeMap::from([
                ("cloud".to_owned(), cloud.parse::<Store>().unwrap()),
                ("shelf".to_owned(), shelf.parse().unwrap()),
                ("small".to_owned(), small.parse().unwrap()),
                ("nas".to_owned(), Store::Bind(root.join("nas").display().to_string())),
            ]),
            default_store: "cloud".to_owned(),
            image: Some("skep:dev".to_owned()),
            identity: Some(secret),
            ..Settings::default()
        };
        let recipient = identity.to_public().to_string();
        let yard = Yard::deploy("stores", &stack_file(&recipient), settings).await;
        let place = Place { yard, keys, address, root, volumes, server: Some(server), faults };
        for kept in SERVICES.into_iter().chain([NOTES]) {
            place.yard.sh(kept.service, kept.fill).await;
        }
        place
    }

    async fn content(&self, kept: Kept) -> String {
        self.yard.sh(kept.service, kept.content).await
    }

    /// The S3 server is gone: connections are refused.
    fn lose_the_server(&mut self) {
        self.server = None;
    }

    async fn bring_the_server_back(&mut self) {
        let served = serve(&self.root.join("s3"), &self.keys, self.address, self.faults.clone()).await;
        self.server = Some(served.unwrap());
    }

    fn bucket(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.root.join("s3").join(BUCKET))
    }

    fn copies(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.root.join("nas"))
    }

    /// The data's node holds nothing of a backup any more.
    async fn nothing_is_staged(&self, op: &Operation) {
        let script = "find /stage -type f | head";
        let mount = "skep-stage:/stage";
        let run =
            ["run", "--rm", "--network", "none", "-v", mount, "skep-test/redis:7", "bash", "-c", script];
        let left = self.yard.sandbox.docker(&run).await;
        assert_eq!(left, "", "left in the staging volume by {}", told(op));
    }

    async fn strike(self) {
        let Place { yard, root, volumes, server, .. } = self;
        let sandbox = yard.sandbox;
        yard.strike().await;
        drop(server);
        sandbox.remove_volume("skep-stage").await;
        for volume in &volumes {
            sandbox.remove_volume(volume).await;
        }
        fs::remove_dir_all(root).unwrap();
    }
}

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(dir) = ahead.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                ahead.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(root).unwrap().to_owned();
                found.insert(path, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

fn holds(files: &BTreeMap<PathBuf, Vec<u8>>, word: &str) -> Vec<PathBuf> {
    let has = |bytes: &[u8]| bytes.windows(word.len()).any(|w| w == word.as_bytes());
    files.iter().filter(|(_, bytes)| has(bytes)).map(|(path, _)| path.clone()).collect()
}

fn stack_file(recipient: &str) -> String {
    let labels = format!(
        r#"skep.enable: "true"
        skep.backup.encrypt: {recipient}
        skep.backup.copies: nas"#
    );
    format!(
        r#"
version: "3.8"
services:
  db:
    image: skep-test/postgres:15
    environment: {{ POSTGRES_USER: shop, POSTGRES_PASSWORD: correct-horse, POSTGRES_DB: shop }}
    volumes: ["db:/var/lib/postgresql/data"]
    deploy:
      endpoint_mode: dnsrr
      labels:
        {labels}
        skep.data: postgres
        skep.data.database: shop
        skep.check.orders.sql: SELECT count(*) FROM orders
        skep.check.orders.expect: ge 1
  files:
    image: skep-test/redis:7
    command: ["sleep", "infinity"]
    init: true
    volumes: ["uploads:/srv/uploads"]
    deploy:
      endpoint_mode: dnsrr
      labels:
        {labels}
        skep.data: volume
  notes:
    image: skep-test/redis:7
    command: ["sleep", "infinity"]
    init: true
    volumes: ["notes:/srv/notes"]
    deploy:
      endpoint_mode: dnsrr
      labels: {{ skep.enable: "true", skep.data: volume, skep.backup.store: shelf }}
volumes: {{ db: {{}}, uploads: {{}}, notes: {{}} }}
"#
    )
}

/// Whether a job that brings the backup to the node has been made.
fn is_fetching(op: &Operation) -> bool {
    op.journal.steps.iter().any(|(_, step)| step.jobs.keys().any(|key| key.starts_with('f')))
}

/// Backed up although the driver dies while the backup is on its way; then lost, and restored although the driver dies while
/// it comes back.
async fn comes_back(place: &Place, kept: Kept) {
    let good = place.content(kept).await;
    let op = place.yard.run_killed(|op| op.journal.step("ship").is_some(), kept.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    place.nothing_is_staged(&op).await;
    let [backup] = place.yard.backups(kept.service).await.try_into().unwrap();
    assert!(backup.verified.is_some(), "{backup:?}");
    assert_eq!(backup.copies.iter().collect::<Vec<_>>(), ["nas"], "{}", told(&op));

    place.yard.try_sh(kept.service, kept.spoil).await.unwrap();
    assert_ne!(place.content(kept).await, good);
    let op = place.yard.run_killed(is_fetching, kept.service, RESTORE).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert_eq!(place.content(kept).await, good, "{}", told(&op));
    place.nothing_is_staged(&op).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn encrypted_backups_in_a_bucket_come_back_exactly_whatever_becomes_of_the_bucket() {
    let mut place = Place::set().await;
    for kept in SERVICES {
        comes_back(&place, kept).await;
    }
    // What is in the stores is nobody's to read, and the same in both.
    let (bucket, copies) = (place.bucket(), place.copies());
    assert!(bucket.len() >= 4 && !copies.is_empty(), "{:?} {:?}", bucket.keys(), copies.keys());
    assert_eq!(holds(&bucket, SENTINEL), Vec::<PathBuf>::new());
    assert_eq!(holds(&copies, SENTINEL), Vec::<PathBuf>::new());

    reported(&place).await;
    away(&mut place).await;
    troubled(&mut place).await;
    lost(&place).await;
    mounted(&place).await;
    place.strike().await;
}

/// A volume with options of its driver, which the engine mounts: backed up and restored. With its mount lost no backup is
/// made; one that is full takes none, and has none.
async fn mounted(place: &Place) {
    let shelf = place.root.join("shelf");
    let good = place.content(NOTES).await;
    let op = place.yard.run(NOTES.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    let held = files(&shelf);
    assert!(held.keys().any(|path| path.ends_with("manifest.json")), "{:?}", held.keys());

    // What a lost mount leaves: the same directory, and nothing in it.
    let kept = place.root.join("kept");
    fs::rename(shelf.join("v1"), &kept).unwrap();
    let op = place.yard.run(NOTES.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    assert!(told(&op).contains("the store `shelf` does not hold the backup"), "{}", told(&op));
    assert_eq!(files(&shelf), BTreeMap::new());
    fs::rename(&kept, shelf.join("v1")).unwrap();

    let label = ["service", "update", "--detach", "--label-add", "skep.backup.store=small"];
    let service = place.yard.stack.service(NOTES.service);
    place.yard.sandbox.docker(&[&label[..], &[service.as_str()]].concat()).await;
    let op = place.yard.run(NOTES.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    assert!(told(&op).contains("No space left on device"), "{}", told(&op));
    let [only] = place.yard.backups(NOTES.service).await.try_into().unwrap();
    assert_eq!((only.entry.store.as_str(), files(&shelf)), ("shelf", held));

    place.yard.try_sh(NOTES.service, NOTES.spoil).await.unwrap();
    assert_ne!(place.content(NOTES).await, good);
    // The safety copy of a restore goes where the label says.
    let label = ["service", "update", "--detach", "--label-add", "skep.backup.store=shelf"];
    place.yard.sandbox.docker(&[&label[..], &[service.as_str()]].concat()).await;
    let op = place.yard.run(NOTES.service, RESTORE).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert_eq!(place.content(NOTES).await, good, "{}", told(&op));
}

/// What was done is written up beside the backups: in a bucket, and in a directory.
async fn reported(place: &Place) {
    let [db, files] = SERVICES;
    let of = |files: &BTreeMap<PathBuf, Vec<u8>>, ending: &str| -> Vec<String> {
        let is_meant = |path: &Path| {
            path.parent().is_some_and(|dir| dir.ends_with("reports"))
                && path.extension().is_some_and(|e| e == ending)
        };
        let found = files.iter().filter(|(path, _)| is_meant(path));
        found.map(|(_, bytes)| String::from_utf8(bytes.clone()).unwrap()).collect()
    };
    let op = place.yard.run(db.service, Work::Report).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    let stored = place.bucket();
    let [markdown] = of(&stored, "md").try_into().unwrap();
    assert!(markdown.starts_with("# Restore of") && markdown.contains("## Steps (UTC)"), "{markdown}");
    let [json] = of(&stored, "json").try_into().unwrap();
    assert!(json.contains("\"kind\": \"restore\"") && json.contains("\"downtime_s\""), "{json}");
    println!("report in the bucket:\n{markdown}");

    let nearby = Settings { default_store: "nas".to_owned(), ..place.yard.settings.clone() };
    let op = place.yard.run_under(nearby, files.service, Work::Report).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    let [markdown] = of(&place.copies(), "md").try_into().unwrap();
    assert!(markdown.contains(&place.yard.stack.service(files.service)), "{markdown}");
}

/// With the server away, no backup is made, those there are stay, and a restore takes the copy.
async fn away(place: &mut Place) {
    place.lose_the_server();
    let [db, _] = SERVICES;
    let good = place.content(db).await;
    let before = (place.bucket(), place.copies(), place.yard.backups(db.service).await.len());
    let op = place.yard.run(db.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    assert!(told(&op).contains("store `cloud`"), "it says which store is away: {}", told(&op));
    place.nothing_is_staged(&op).await;
    let after = (place.bucket(), place.copies(), place.yard.backups(db.service).await.len());
    assert!(before == after, "a backup that was not made changed what there is: {}", told(&op));

    place.yard.try_sh(db.service, db.spoil).await.unwrap();
    let op = place.yard.run(db.service, RESTORE).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert_eq!(place.content(db).await, good, "{}", told(&op));
    place.nothing_is_staged(&op).await;
    place.bring_the_server_back().await;
}

/// After the Swarm was lost, its bucket says what there is, and the files come back from it.
async fn lost(place: &Place) {
    let [_, files] = SERVICES;
    let good = place.content(files).await;
    let known = |backups: Vec<Backup>| -> Vec<(String, String)> {
        backups.into_iter().map(|b| (b.entry.id, b.entry.manifest_sha256)).collect()
    };
    let before = place.yard.backups(files.service).await;
    for backup in &before {
        place.yard.engine.remove_config(&backup.config).await.unwrap();
    }
    let work =
        Work::Import { store: "cloud".to_owned(), from: None, quick: false, layout: None, dry_run: false };
    let op = place.yard.run(files.service, work).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert_eq!(known(place.yard.backups(files.service).await), known(before));
    place.yard.try_sh(files.service, files.spoil).await.unwrap();
    let op = place.yard.run(files.service, RESTORE).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert_eq!(place.content(files).await, good, "{}", told(&op));
}

/// A server that refuses, cuts and lags now and then costs time and nothing else; one that refuses for good makes no backup,
/// and leaves nothing that looks like one.
async fn troubled(place: &mut Place) {
    let [db, _] = SERVICES;
    for (asked, kind) in [
        (Asked::Put, Kind::Status(503)),
        (Asked::Put, Kind::CutRequest),
        (Asked::Get, Kind::CutAnswer),
        (Asked::Any, Kind::Slow(Duration::from_secs(2))),
    ] {
        let asked = Fault { asked, skip: 0, times: 2, kind };
        place.faults.add(asked.asked, asked.skip, asked.times, asked.kind);
    }
    let op = place.yard.run(db.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    place.faults.clear();

    let before = (place.bucket(), place.yard.backups(db.service).await.len());
    place.faults.add(Asked::Put, 1, usize::MAX, Kind::Status(507));
    let op = place.yard.run(db.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    place.faults.clear();
    place.nothing_is_staged(&op).await;
    let after = (place.bucket(), place.yard.backups(db.service).await.len());
    assert_eq!(before.1, after.1);
    let new = after.0.keys().filter(|p| !before.0.contains_key(*p) && p.ends_with("manifest.json"));
    assert_eq!(
        new.collect::<Vec<_>>(),
        Vec::<&PathBuf>::new(),
        "half a backup that looks whole: {}",
        told(&op)
    );
}
