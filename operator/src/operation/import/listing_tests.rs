//! Tests of [`super`].

use super::*;
use crate::operation::catalogue::{Entry, Origin};

fn head(id: &str, sha: &str) -> ManifestHead {
    ManifestHead {
        id: id.to_owned(),
        manifest_sha256: sha.to_owned(),
        service: "shop_db".to_owned(),
        engine: "postgres".to_owned(),
        started: "2026-03-01T02:00:00Z".to_owned(),
        file: "shop.dump".to_owned(),
        size: 7,
        inner: None,
        base: None,
    }
}

fn found(id: &str, sha: &str) -> StoredFound {
    StoredFound { dir: format!("v1/shop/shop_db/{id}"), what: Ok(head(id, sha)) }
}

fn registered(id: &str, sha: &str) -> Backup {
    let listed = listed(format!("v1/shop/shop_db/{id}"), head(id, sha), "shop_db").unwrap();
    Backup {
        config: id.to_owned(),
        version: 1,
        verified: Some(listed.taken),
        proved: None,
        loaded: None,
        restore_seconds: None,
        drill_failed: None,
        removing: None,
        spoilt: None,
        copies: Vec::new(),
        entry: Entry {
            schema: Entry::version(None),
            id: listed.id,
            operation: OpId::new(listed.taken, id),
            service: "shop_db".to_owned(),
            service_id: "s".to_owned(),
            engine: listed.engine,
            database: listed.database,
            store: "default".to_owned(),
            dir: listed.dir,
            manifest_sha256: listed.manifest_sha256,
            size: listed.size,
            taken: listed.taken,
            purpose: listed.purpose,
            node: None,
            origin: Origin::Made,
            inner: None,
            base: None,
        },
    }
}

const A: &str = "20260301t020000aaaaaa";
const B: &str = "20260302t020000bbbbbb";

fn page(found: Vec<StoredFound>, registered: &[Backup]) -> Result<(Listing, bool), String> {
    let mut listing = Listing::default();
    let scanned = Scanned { found, more: true, others: Vec::new() };
    let more = listing.page(scanned, "shop_db", registered)?;
    Ok((listing, more))
}

#[test]
fn what_is_registered_is_left_alone_and_the_rest_is_taken() {
    let (listing, more) = page(vec![found(A, "1"), found(B, "2")], &[registered(A, "1")]).unwrap();
    assert!(more);
    assert_eq!((listing.known, listing.new.len(), listing.new[0].id.as_str()), (1, 1, B));
    assert_eq!(listing.after.as_deref(), Some("v1/shop/shop_db/20260302t020000bbbbbb"));
    assert_eq!(listing.new[0].database, "shop");
}

#[test]
fn another_checksum_under_a_known_id_refuses_everything() {
    let why = page(vec![found(A, "1"), found(B, "2")], &[registered(B, "3")]).unwrap_err();
    assert!(why.contains("nothing was imported") && why.contains(B), "{why}");
}

#[test]
fn one_id_in_two_directories_refuses_everything() {
    let mut twin = found(A, "2");
    twin.dir = format!("v1/blog/shop_db/{A}");
    assert!(page(vec![found(A, "1"), twin], &[]).unwrap_err().contains("twice"));
}

#[test]
fn claims_that_make_no_sense_are_listed_and_not_taken() {
    let with = |change: fn(&mut ManifestHead)| {
        let mut head = head(A, "1");
        change(&mut head);
        StoredFound { dir: "v1/shop/shop_db/x".to_owned(), what: Ok(head) }
    };
    let unread = StoredFound { dir: "v1/shop/shop_db/y".to_owned(), what: Err("no manifest".to_owned()) };
    let odd = vec![
        with(|h| "../../etc".clone_into(&mut h.id)),
        with(|h| h.id = "x".repeat(200)),
        with(|h| "blog_db".clone_into(&mut h.service)),
        with(|h| "yesterday".clone_into(&mut h.started)),
        unread,
    ];
    let (listing, _) = page(odd, &[]).unwrap();
    assert_eq!((listing.new.len(), listing.flawed.len()), (0, 5), "{listing:?}");
}

#[test]
fn a_safety_backup_is_taken_in_as_one() {
    let (listing, _) = page(vec![found(&format!("{A}s"), "1"), found(B, "2")], &[]).unwrap();
    let ends_in_s = "20260301t020000aaaaas";
    let (regular, _) = page(vec![found(ends_in_s, "1")], &[]).unwrap();
    assert_eq!(regular.new[0].purpose, Purpose::Regular);
    let purposes: Vec<Purpose> = listing.new.iter().map(|l| l.purpose).collect();
    assert_eq!(purposes, [Purpose::Safety, Purpose::Regular]);
}

#[test]
fn more_than_one_operation_takes_is_left_to_the_next() {
    let many: Vec<StoredFound> = (0..=MOST).map(|i| found(&format!("20260301t020000{i:06}"), "1")).collect();
    let (listing, more) = page(many, &[]).unwrap();
    assert!(!more && listing.more && listing.new.len() == MOST);
    let gone =
        |i: usize| StoredFound { dir: format!("v1/shop/shop_db/{i:03}"), what: Err("gone".to_owned()) };
    let (listing, more) = page((0..200).map(gone).collect(), &[]).unwrap();
    assert!(more && listing.flaws == 200 && listing.flawed.len() == MOST_FLAWS, "flaws keep nothing out");
}

#[test]
fn names_of_databases_are_read_from_their_files() {
    for (file, name) in
        [("shop", "shop"), ("%2E%2E%2FShop%20%22%C3%BC%22", "../Shop \"ü\""), ("a%", "a%"), ("%zz", "%zz")]
    {
        assert_eq!(decoded(file), name);
    }
}
