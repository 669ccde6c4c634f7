//! Whatever is wrong with a stored backup is found before the server is touched.
//!
//! Nothing listens where these tickets say that the server is: a runner that as much as tried to connect
//! would end with a transient fault.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Cluster, manifest, run_with};
use sha2::{Digest as _, Sha256};
use skep_runner::manifest::Manifest;
use skep_runner::task::{
    Connect, DatabaseProperties, Discard, PgDump, PgInPlace, PgRestore, PgSeal, Report, Scanned, StoreScan,
    StoreVerify, Stored, Task, Verdict,
};

/// Two backups of two databases, and where nothing listens.
struct Shelf {
    cluster: Cluster,
    one: Stored,
    two: Stored,
}

impl Shelf {
    fn new() -> Shelf {
        let cluster = Cluster::start();
        for (database, rows) in [("one", 40_000), ("two", 10)] {
            cluster.sql("postgres", &format!("CREATE DATABASE {database}"));
            cluster.sql(
                database,
                &format!("CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, {rows}) g"),
            );
        }
        let one = cluster.back_up("one", "v1/shop/one");
        let two = cluster.back_up("two", "v1/shop/two");
        Shelf { cluster, one, two }
    }

    fn path(&self, stored: &Stored, file: &str) -> PathBuf {
        self.cluster.store().join(&stored.dir).join(file)
    }

    /// Every task that reads a backup refuses this one, and tells why in words that contain `why`.
    fn is_refused(&self, stored: &Stored, why: &str) {
        let connect = Connect { port: 1, password_file: None, ..self.cluster.connect() };
        let restore = PgRestore {
            connect: connect.clone(),
            stored: stored.clone(),
            live: "one".into(),
            side: "skep_x_1".into(),
        };
        let in_place = PgInPlace {
            connect,
            stored: stored.clone(),
            live: "one".into(),
            properties: DatabaseProperties::default(),
        };
        for task in [Task::PgExamine(stored.clone()), Task::PgRestore(restore), Task::PgInPlace(in_place)] {
            let message = run_with(&self.cluster, task).refused();
            assert!(message.contains(why), "`{message}` does not tell `{why}`");
        }
    }

    fn verify(&self, stored: &Stored, quick: bool) -> Verdict {
        let task = Task::StoreVerify(StoreVerify { stored: stored.clone(), quick });
        let Report::StoreVerify(verdict) = run_with(&self.cluster, task).done() else { panic!("no verdict") };
        verdict
    }

    /// Its flaw, which contains `why`.
    fn is_spoilt(&self, stored: &Stored, why: &str) {
        for quick in [true, false] {
            match self.verify(stored, quick) {
                Verdict::Spoilt { why: said } if said.contains(why) => {}
                other => panic!("{other:?} does not tell `{why}`"),
            }
        }
    }

    fn scan(&self, service: &str, after: Option<&str>, most: u32) -> Scanned {
        let after = after.map(str::to_owned);
        let task = Task::StoreScan(StoreScan { service: service.to_owned(), after, most });
        let Report::StoreScan(scanned) = run_with(&self.cluster, task).done() else { panic!("no page") };
        scanned
    }

    /// Rewrites the manifest; returns the backup as if it had been registered so.
    fn rewritten(&self, stored: &Stored, change: impl FnOnce(&mut Manifest)) -> Stored {
        let path = self.path(stored, "manifest.json");
        let mut manifest: Manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        fs::write(path, &bytes).unwrap();
        let manifest_sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Stored { manifest_sha256, ..stored.clone() }
    }
}

#[test]
fn a_whole_backup_is_examined_and_its_manifest_told() {
    let shelf = Shelf::new();
    let Report::PgExamine { manifest } = run_with(&shelf.cluster, Task::PgExamine(shelf.one.clone())).done()
    else {
        panic!("no manifest")
    };
    assert_eq!(manifest.artefacts[0].file, "one.dump");
    assert!(manifest.artefacts[0].size > 100_000);
}

#[test]
fn one_flipped_bit_anywhere_is_refused() {
    let shelf = Shelf::new();
    let path = shelf.path(&shelf.one, "one.dump");
    let whole = fs::read(&path).unwrap();
    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&path, flipped).unwrap();
        shelf.is_refused(&shelf.one, "does not have the checksum");
    }
}

#[test]
fn a_truncated_or_missing_artefact_is_refused() {
    let shelf = Shelf::new();
    let path = shelf.path(&shelf.one, "one.dump");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    shelf.is_refused(&shelf.one, "bytes, its manifest says");
    fs::remove_file(&path).unwrap();
    shelf.is_refused(&shelf.one, "is missing");
}

#[test]
fn artefacts_swapped_between_backups_are_refused() {
    let shelf = Shelf::new();
    let (one, two) = (shelf.path(&shelf.one, "one.dump"), shelf.path(&shelf.two, "two.dump"));
    let (whole_one, whole_two) = (fs::read(&one).unwrap(), fs::read(&two).unwrap());
    fs::write(one, whole_two).unwrap();
    fs::write(two, whole_one).unwrap();
    shelf.is_refused(&shelf.one, "one.dump has");
    shelf.is_refused(&shelf.two, "two.dump has");
}

#[test]
fn a_manifest_other_than_the_registered_one_is_refused() {
    let shelf = Shelf::new();
    let path = shelf.path(&shelf.one, "manifest.json");
    let whole = fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed.push(b'\n');
    fs::write(&path, changed).unwrap();
    shelf.is_refused(&shelf.one, "not the registered one");
    fs::remove_file(&path).unwrap();
    shelf.is_refused(&shelf.one, "not in the store");
}

#[test]
fn a_foreign_backup_under_a_registered_name_is_refused() {
    let shelf = Shelf::new();
    let foreign = Stored { id: shelf.one.id.clone(), ..shelf.two.clone() };
    shelf.is_refused(&foreign, "is that of backup v1/shop/two");
}

#[test]
fn a_manifest_of_a_newer_format_is_refused() {
    let shelf = Shelf::new();
    let newer = shelf.rewritten(&shelf.one, |manifest| manifest.schema = 99);
    shelf.is_refused(&newer, "newer Skep");
}

#[test]
fn names_that_lead_out_of_the_backup_are_refused() {
    let shelf = Shelf::new();
    for file in ["../two/two.dump", "/etc/passwd", "..", ""] {
        let outside = shelf.rewritten(&shelf.one, |manifest| manifest.artefacts[0].file = file.into());
        shelf.is_refused(&outside, "is not the name of a file");
    }
    for dir in ["v1/shop/../shop/one", "/v1/shop/one", "", "v1//shop"] {
        shelf.is_refused(&Stored { dir: dir.into(), ..shelf.one.clone() }, "is not a directory of the store");
    }
}

#[test]
fn symbolic_links_are_refused_even_to_the_right_bytes() {
    let shelf = Shelf::new();
    let (artefact, moved) = (shelf.path(&shelf.one, "one.dump"), shelf.path(&shelf.one, "moved"));
    fs::rename(&artefact, &moved).unwrap();
    symlink(&moved, &artefact).unwrap();
    shelf.is_refused(&shelf.one, "is a symbolic link");
    let dir = shelf.cluster.store().join("v1/link");
    symlink(shelf.cluster.store().join("v1/shop"), dir).unwrap();
    shelf.is_refused(&Stored { dir: "v1/link/two".into(), ..shelf.two.clone() }, "cannot open");
}

#[test]
fn a_pipe_instead_of_an_artefact_does_not_hang_the_job() {
    let shelf = Shelf::new();
    let artefact = shelf.path(&shelf.one, "one.dump");
    fs::remove_file(&artefact).unwrap();
    assert!(Command::new("mkfifo").arg(&artefact).status().unwrap().success());
    shelf.is_refused(&shelf.one, "is not a regular file");
}

#[test]
fn a_backup_of_another_engine_is_not_restored_into_postgresql() {
    let shelf = Shelf::new();
    let other = shelf.rewritten(&shelf.one, |manifest| manifest.engine = "mysql".into());
    let restore = PgRestore {
        connect: shelf.cluster.connect(),
        stored: other,
        live: "one".into(),
        side: "skep_x_1".into(),
    };
    assert!(
        run_with(&shelf.cluster, Task::PgRestore(restore)).refused().contains("not one dump of PostgreSQL")
    );
    assert_eq!(shelf.cluster.databases(), "one,two");
}

#[test]
fn a_dump_cut_short_is_not_sealed_though_its_checksums_are_right() {
    let shelf = Shelf::new();
    let mut dumped = shelf.cluster.dump("one", "cut");
    let path = shelf.cluster.store().join("cut/one.dump");
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 100);
    fs::write(&path, &bytes).unwrap();
    dumped.artefacts[0].size = bytes.len() as u64;
    dumped.artefacts[0].sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let seal = PgSeal { dir: "cut".into(), manifest: manifest("cut", dumped) };
    assert!(run_with(&shelf.cluster, Task::PgSeal(seal)).refused().contains("pg_restore"));
    assert!(!shelf.cluster.store().join("cut/manifest.json").exists());
}

#[test]
fn a_dump_that_the_store_changed_is_not_sealed() {
    let shelf = Shelf::new();
    let dumped = shelf.cluster.dump("one", "changed");
    let path = shelf.cluster.store().join("changed/one.dump");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let seal = PgSeal { dir: "changed".into(), manifest: manifest("changed", dumped) };
    assert!(run_with(&shelf.cluster, Task::PgSeal(seal)).refused().contains("checksum"));
}

#[test]
fn sealing_twice_is_fine_and_with_another_manifest_it_is_not() {
    let shelf = Shelf::new();
    let manifest = manifest("again", shelf.cluster.dump("two", "again"));
    let seal = PgSeal { dir: "again".into(), manifest };
    let first = run_with(&shelf.cluster, Task::PgSeal(seal.clone())).done();
    assert_eq!(run_with(&shelf.cluster, Task::PgSeal(seal.clone())).done(), first);
    let mut other = seal;
    other.manifest.image = "postgres:16".into();
    assert!(run_with(&shelf.cluster, Task::PgSeal(other)).refused().contains("another manifest"));
}

#[test]
fn an_unsealed_dump_is_replaced_and_a_sealed_one_never() {
    let shelf = Shelf::new();
    let cluster = &shelf.cluster;
    cluster.dump("two", "d");
    fs::write(cluster.store().join("d/two.dump.skep-op-step-0.part"), "left by an attempt that died")
        .unwrap();
    cluster.dump("two", "d");
    let mut names: Vec<_> =
        fs::read_dir(cluster.store().join("d")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["globals.sql", "two.dump"]);
    let before = fs::read(shelf.path(&shelf.two, "two.dump")).unwrap();
    let again = PgDump { connect: cluster.connect(), database: "two".into(), dir: shelf.two.dir.clone() };
    assert!(run_with(cluster, Task::PgDump(again)).refused().contains("finished backup"));
    assert_eq!(fs::read(shelf.path(&shelf.two, "two.dump")).unwrap(), before);
}

#[test]
fn only_unfinished_backups_are_discarded_unless_told_otherwise() {
    let shelf = Shelf::new();
    let cluster = &shelf.cluster;
    let discard = |dir: &str, sealed| run_with(cluster, Task::Discard(Discard { dir: dir.into(), sealed }));
    cluster.dump("two", "v1/shop/unfinished");
    discard("v1/shop/unfinished", false).done();
    assert!(!cluster.store().join("v1/shop/unfinished").exists());
    discard("v1/shop/unfinished", false).done();
    assert!(discard("v1/shop/one", false).refused().contains("finished backup"));
    assert!(shelf.path(&shelf.one, "one.dump").exists());
    discard("v1/shop/one", true).done();
    assert!(!cluster.store().join("v1/shop/one").exists());
    assert!(shelf.path(&shelf.two, "two.dump").exists());
    for dir in ["", "..", "v1/..", "/"] {
        assert!(discard(dir, true).refused().contains("not a directory of the store"));
    }
}

#[test]
fn a_stored_backup_is_whole_or_spoilt_and_each_flaw_is_told() {
    let shelf = Shelf::new();
    let Verdict::Whole { size } = shelf.verify(&shelf.one, false) else { panic!("it is whole") };
    assert!(size > 100_000);
    let (dump, manifest) = (shelf.path(&shelf.one, "one.dump"), shelf.path(&shelf.one, "manifest.json"));
    let (whole, described) = (fs::read(&dump).unwrap(), fs::read(&manifest).unwrap());
    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&dump, flipped).unwrap();
        shelf.is_spoilt(&shelf.one, "does not have the checksum");
    }
    fs::write(&dump, &whole[1..]).unwrap();
    shelf.is_spoilt(&shelf.one, "bytes, its manifest says");
    fs::remove_file(&dump).unwrap();
    shelf.is_spoilt(&shelf.one, "is missing");
    let elsewhere = shelf.cluster.store().join("elsewhere");
    fs::write(&elsewhere, &whole).unwrap();
    symlink(&elsewhere, &dump).unwrap();
    shelf.is_spoilt(&shelf.one, "symbolic link");
    fs::remove_file(&dump).unwrap();
    fs::write(&dump, &whole).unwrap();
    assert!(matches!(shelf.verify(&shelf.one, true), Verdict::Whole { .. }));
    fs::write(&manifest, &described[1..]).unwrap();
    shelf.is_spoilt(&shelf.one, "is not the registered one");
    fs::remove_file(&manifest).unwrap();
    shelf.is_spoilt(&shelf.one, "has no manifest");
    fs::remove_dir_all(dump.parent().unwrap()).unwrap();
    shelf.is_spoilt(&shelf.one, "is not in the store");
}

#[test]
fn what_says_nothing_about_a_backup_does_not_call_it_spoilt() {
    let shelf = Shelf::new();
    let verify = |stored: &Stored, quick| {
        run_with(&shelf.cluster, Task::StoreVerify(StoreVerify { stored: stored.clone(), quick })).refused()
    };
    // Sound in itself, and its checksum is the registered one: this tool cannot read it, another may.
    let dump = shelf.path(&shelf.two, "two.dump");
    fs::write(&dump, b"PGDMP of a newer server").unwrap();
    let bytes = fs::read(&dump).unwrap();
    let odd = shelf.rewritten(&shelf.two, |manifest| {
        manifest.artefacts[0].size = bytes.len() as u64;
        manifest.artefacts[0].sha256 =
            Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    });
    assert!(verify(&odd, false).contains("pg_restore"));
    assert!(matches!(shelf.verify(&odd, true), Verdict::Whole { .. }), "only the engine reads it otherwise");
    let newer = shelf.rewritten(&shelf.two, |manifest| manifest.schema += 1);
    assert!(verify(&newer, true).contains("newer Skep"));
    // The whole store is away.
    let store = shelf.cluster.store();
    fs::rename(store.join("v1"), store.join("v1-away")).unwrap();
    assert!(verify(&shelf.one, true).contains("the store holds no v1/shop"));
}

#[test]
fn a_scan_lists_what_manifests_claim_page_by_page_and_follows_no_links() {
    let shelf = Shelf::new();
    let store = shelf.cluster.store();
    for (nth, service) in [(1, "shop_db"), (2, "shop_db"), (3, "shop_db"), (4, "blog_db")] {
        let stack = service.split('_').next().unwrap();
        let dir = store.join(format!("v1/{stack}/{service}/b{nth}"));
        fs::create_dir_all(&dir).unwrap();
        fs::copy(shelf.path(&shelf.two, "manifest.json"), dir.join("manifest.json")).unwrap();
        let stored = Stored { dir: format!("v1/{stack}/{service}/b{nth}"), ..shelf.two.clone() };
        shelf.rewritten(&stored, |manifest| {
            manifest.id = format!("b{nth}");
            manifest.service = service.to_owned();
        });
    }
    let of = store.join("v1/shop/shop_db");
    fs::create_dir(of.join("b4-unfinished")).unwrap();
    fs::write(of.join("b5-file"), b"no directory").unwrap();
    symlink(of.join("b1"), of.join("b6-link")).unwrap();
    fs::create_dir(of.join("b7-odd")).unwrap();
    fs::write(of.join("b7-odd/manifest.json"), b"{").unwrap();
    fs::create_dir(of.join("b8-other")).unwrap();
    fs::copy(of.join("b1/manifest.json"), of.join("b8-other/manifest.json")).unwrap();

    let first = shelf.scan("shop_db", None, 2);
    assert!(
        first.more && first.found.len() == 2 && first.others.contains(&"blog_db".to_owned()),
        "{first:?}"
    );
    let head = first.found[0].what.as_ref().unwrap();
    assert_eq!((head.id.as_str(), head.file.as_str()), ("b1", "two.dump"));
    assert_eq!(head.manifest_sha256.len(), 64);
    let rest = shelf.scan("shop_db", Some("v1/shop/shop_db/b2"), 50);
    assert!(!rest.more);
    let told: Vec<String> = rest
        .found
        .iter()
        .map(|f| match &f.what {
            Ok(head) => head.id.clone(),
            Err(why) => format!("{}: {why}", f.dir.rsplit_once('/').unwrap().1),
        })
        .collect();
    let begins = ["b3", "b4-unfinished: it has no", "b5-file: it is no dir", "b6-link: it is no dir"];
    for (told, begin) in told
        .iter()
        .zip(begins.iter().chain(&["b7-odd: its manifest cannot", "b8-other: its manifest is that"]))
    {
        assert!(told.starts_with(begin), "{told} is not {begin}");
    }
    assert_eq!(told.len(), 6);
    assert_eq!(shelf.scan("none_db", None, 50).found, []);
}
