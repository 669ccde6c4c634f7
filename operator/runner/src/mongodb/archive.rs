//! The archive of `mongodump --archive`, read in full without a server.
//!
//! ```text
//! magic  header  collection…  FF FF FF FF  ( namespace document… FF FF FF FF | end-of-namespace FF FF FF FF )…
//! ```
//! All parts are BSON documents, each with its length before it. A collection's documents may come in several pieces
//! among those of others; its end holds the CRC-64 (ECMA) of all of them. What was written to the server while it was
//! dumped comes last, as a collection `oplog` of no database.
//!
//! Invariants: an archive is whole only if each collection that it announces has ended, with the checksum of what was
//! read; memory is that of one document.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{Read, Write};

use crate::error::{Error, Result};

const MAGIC: [u8; 4] = 0x8199_e26d_u32.to_le_bytes();
const TERMINATOR: i32 = -1;
/// As it is written.
const END: [u8; 4] = TERMINATOR.to_le_bytes();
/// Largest document that is read, in bytes: 16 MiB, and what the server's own wrapping of one may add.
const LARGEST: i32 = (16 << 20) + (16 << 10);
/// Bytes of the head of a piece of the oplog.
const HEAD: u8 = 55;
/// What the documents of a collection of measurements are under.
pub(super) const BUCKETS: &str = "system.buckets.";
/// The type of such a collection.
const MEASUREMENTS: &str = "timeseries";
/// The ECMA polynomial, its bits reversed.
const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;

/// What an archive holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Archive {
    /// Version of the server that was dumped.
    pub(super) server_version: String,
    /// Version of the tool.
    pub(super) tool_version: String,
    /// Its collections, with the number of documents in each.
    pub(super) collections: BTreeMap<(String, String), u64>,
    /// How many changes of the oplog a load brings; none where the archive has no oplog.
    pub(super) changes: Option<u64>,
    /// What the documents of each come to in whatever order they stand, as this process alone knows it.
    pub(super) digests: BTreeMap<(String, String), u64>,
}

/// Fields of a document that says what others are.
#[derive(Default)]
struct Fields {
    texts: BTreeMap<String, String>,
    numbers: BTreeMap<String, i64>,
}

#[derive(Default)]
struct Collection {
    documents: u64,
    crc: u64,
    digest: u64,
    has_ended: bool,
}

/// A part of an archive.
enum Part<'a> {
    /// What the archive says of itself.
    Header(&'a [u8], &'a Fields),
    /// A collection that it says it has.
    Announced(&'a Name, &'a [u8]),
    /// A document of a collection.
    Document(&'a Name, &'a [u8]),
}

/// Database and collection.
type Name = (String, String);

/// Reads all of it; refuses what is cut, altered, or no archive.
pub(super) fn read(from: impl Read) -> Result<Archive> {
    let mut archive = Archive::default();
    let counts = walk(from, |part| {
        match part {
            Part::Header(_, fields) => {
                let text = |name: &str| fields.texts.get(name).cloned().unwrap_or_default();
                (archive.server_version, archive.tool_version) =
                    (text("server_version"), text("tool_version"));
            }
            Part::Document((database, name), document) if is_oplog(database, name) => {
                let is_replayed = is_replayed(&Fields::of(document)?);
                archive.changes = Some(archive.changes.unwrap_or(0) + u64::from(is_replayed));
            }
            Part::Document(..) | Part::Announced(..) => {}
        }
        Ok(())
    })?;
    for ((database, name), collection) in counts {
        if is_oplog(&database, &name) {
            archive.changes.get_or_insert(0);
        } else {
            archive.digests.insert((database.clone(), name.clone()), collection.digest);
            archive.collections.insert((database, name), collection.documents);
        }
    }
    Ok(archive)
}

/// Writes an archive with nothing in it but those changes of the oplog that a load brings.
pub(super) fn changes_alone(from: impl Read, to: &mut impl Write) -> Result<()> {
    let mut sum = 0;
    let table = table();
    let mut write = |bytes: &[u8]| to.write_all(bytes).map_err(Error::io("cannot hand the oplog over"));
    let mut has_begun = false;
    walk(from, |part| match part {
        Part::Header(header, _) => {
            write(&MAGIC)?;
            write(header)
        }
        Part::Announced((database, name), announced) if is_oplog(database, name) => write(announced),
        Part::Document((database, name), document) if is_oplog(database, name) => {
            if !is_replayed(&Fields::of(document)?) {
                return Ok(());
            }
            if !std::mem::replace(&mut has_begun, true) {
                write(&END)?;
                write(&oplog_head(None))?;
            }
            sum = crc(&table, sum, document);
            write(document)
        }
        Part::Announced(..) | Part::Document(..) => Ok(()),
    })?;
    if !has_begun {
        write(&END)?;
        write(&oplog_head(None))?;
    }
    write(&END)?;
    write(&oplog_head(Some(sum)))?;
    write(&END)
}

/// Reads all of it and shows its parts; what it holds of each collection.
fn walk(
    mut from: impl Read,
    mut see: impl FnMut(Part<'_>) -> Result<()>,
) -> Result<BTreeMap<Name, Collection>> {
    let mut magic = [0; 4];
    from.read_exact(&mut magic).map_err(cut)?;
    if magic != MAGIC {
        return Err(no("it does not begin as one"));
    }
    let mut document = Vec::new();
    match next(&mut from, &mut document)? {
        Some(true) => see(Part::Header(&document, &Fields::of(&document)?))?,
        _ => return Err(no("it has no header")),
    }
    let mut found = BTreeMap::new();
    let mut measured = Vec::new();
    while expected(next(&mut from, &mut document)?)? {
        let fields = Fields::of(&document)?;
        let name = fields.name()?;
        see(Part::Announced(&name, &document))?;
        if fields.texts.get("type").is_some_and(|kind| kind == MEASUREMENTS) {
            measured.push(name.clone());
        }
        if found.insert(name, Collection::default()).is_some() {
            return Err(no("it announces a collection twice"));
        }
    }
    let table = table();
    while let Some(is_document) = next(&mut from, &mut document)? {
        if !is_document {
            return Err(no("a part of it has no name"));
        }
        let head = Fields::of(&document)?;
        let name = head.name()?;
        // What is not announced has no metadata, and is restored all the same.
        let collection: &mut Collection = found.entry(name.clone()).or_default();
        if collection.has_ended {
            return Err(no("a collection goes on after its end"));
        }
        let ends = head.numbers.get("EOF").is_some_and(|is| *is != 0);
        while expected(next(&mut from, &mut document)?)? {
            if ends {
                return Err(no("the end of a collection holds documents"));
            }
            see(Part::Document(&name, &document))?;
            collection.documents += 1;
            collection.crc = crc(&table, collection.crc, &document);
            collection.digest = collection.digest.wrapping_add(digest(&document));
        }
        if ends {
            collection.has_ended = true;
            if head.numbers.get("CRC").copied() != Some(collection.crc.cast_signed()) {
                return Err(no("the checksum of a collection is another one"));
            }
        }
    }
    // Measurements are announced by their name, and what they are made of has another one.
    for (database, name) in measured {
        let buckets = (database.clone(), format!("{BUCKETS}{name}"));
        if found.get(&buckets).is_some_and(|buckets| buckets.has_ended) {
            found.remove(&(database, name));
        }
    }
    match found.iter().find(|(_, collection)| !collection.has_ended) {
        Some(((database, name), _)) => Err(no(&format!("it is cut short: {database}.{name} does not end"))),
        None => Ok(found),
    }
}

/// Whether it is what was written to the server while it was dumped: under no database.
fn is_oplog(database: &str, name: &str) -> bool {
    database.is_empty() && name == "oplog"
}

/// Whether a load brings a change: it leaves accounts and what a server keeps for itself as they are, and notes that
/// change nothing are many. Transactions stand under `admin.$cmd`, whatever they change.
fn is_replayed(change: &Fields) -> bool {
    let text = |name: &str| change.texts.get(name).map(String::as_str).unwrap_or_default();
    let (database, _) = text("ns").split_once('.').unwrap_or_default();
    text("op") != "n" && (text("ns") == "admin.$cmd" || !matches!(database, "admin" | "config"))
}

/// The head of a piece of the oplog, or of its end with the checksum of all of it.
fn oplog_head(end: Option<u64>) -> Vec<u8> {
    let named = b"\x02db\0\x01\0\0\0\0\x02collection\0\x06\0\0\0oplog\0\x08EOF\0";
    let ends = [u8::from(end.is_some())];
    let sum = end.unwrap_or(0).to_le_bytes();
    [&[HEAD, 0, 0, 0], &named[..], &ends, b"\x12CRC\0", &sum, &[0]].concat()
}

/// The next document, whole: whether it is one and no terminator; none at the end of the archive.
fn next(from: &mut impl Read, into: &mut Vec<u8>) -> Result<Option<bool>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match from.read(&mut length[have..]).map_err(Error::io("cannot read the archive"))? {
            0 if have == 0 => return Ok(None),
            0 => return Err(no("it is cut short")),
            read => have += read,
        }
    }
    let size = i32::from_le_bytes(length);
    if size == TERMINATOR {
        return Ok(Some(false));
    }
    if !(5..=LARGEST).contains(&size) {
        return Err(no("a document has no possible length"));
    }
    into.clear();
    into.extend_from_slice(&length);
    let rest = u64::from(size.unsigned_abs()) - 4;
    from.take(rest).read_to_end(into).map_err(Error::io("cannot read the archive"))?;
    if into.len() as u64 != rest + 4 || into.last() != Some(&0) {
        return Err(no("it is cut short"));
    }
    Ok(Some(true))
}

fn expected(next: Option<bool>) -> Result<bool> {
    next.ok_or_else(|| no("it is cut short"))
}

fn cut(_: std::io::Error) -> Error {
    no("it is cut short")
}

fn no(why: &str) -> Error {
    Error::refused(format!("this is no whole archive of mongodump: {why}"))
}

// === impl Fields ===

impl Fields {
    /// Texts, numbers and truths of a document; whatever else it holds is passed over.
    fn of(document: &[u8]) -> Result<Fields> {
        let mut fields = Fields::default();
        let mut rest = document.get(4..document.len().saturating_sub(1)).unwrap_or_default();
        while let Some((kind, after)) = rest.split_first() {
            rest = fields.take(*kind, after).ok_or_else(|| no("a header cannot be read"))?;
        }
        Ok(fields)
    }

    fn take<'a>(&mut self, kind: u8, after: &'a [u8]) -> Option<&'a [u8]> {
        let end = after.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(&after[..end]).ok()?.to_owned();
        let value = &after[end + 1..];
        let (number, rest) = match kind {
            0x02 => {
                let (length, rest) = value.split_first_chunk::<4>()?;
                let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
                let text = rest.get(..length.checked_sub(1)?)?;
                self.texts.insert(name, std::str::from_utf8(text).ok()?.to_owned());
                return rest.get(length..);
            }
            0x08 => value.split_first().map(|(is, rest)| (i64::from(*is), rest))?,
            0x10 => {
                value.split_first_chunk::<4>().map(|(n, rest)| (i64::from(i32::from_le_bytes(*n)), rest))?
            }
            0x12 => value.split_first_chunk::<8>().map(|(n, rest)| (i64::from_le_bytes(*n), rest))?,
            _ => return value.get(length_of(kind, value)?..),
        };
        self.numbers.insert(name, number);
        Some(rest)
    }

    fn name(&self) -> Result<(String, String)> {
        let text = |name: &str| self.texts.get(name).cloned();
        text("db").zip(text("collection")).ok_or_else(|| no("a part of it has no name"))
    }
}

/// The length of a value of any other kind.
fn length_of(kind: u8, value: &[u8]) -> Option<usize> {
    let told = || usize::try_from(i32::from_le_bytes(*value.first_chunk()?)).ok();
    let text = |from: usize| Some(from + value.get(from..)?.iter().position(|byte| *byte == 0)? + 1);
    Some(match kind {
        0x06 | 0x0A | 0x7F | 0xFF => 0,
        0x01 | 0x09 | 0x11 => 8,
        0x07 => 12,
        0x13 => 16,
        0x03 | 0x04 | 0x0F => told()?,
        0x05 => told()?.checked_add(5)?,
        0x0B => text(text(0)?)?,
        0x0C => told()?.checked_add(16)?,
        0x0D | 0x0E => told()?.checked_add(4)?,
        _ => return None,
    })
}

fn digest(document: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(document);
    hasher.finish()
}

fn table() -> [u64; 256] {
    std::array::from_fn(|byte| {
        let step = |crc: u64, _| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
        (0..8).fold(byte as u64, step)
    })
}

/// The checksum of what it was of, and these bytes.
fn crc(table: &[u64; 256], before: u64, bytes: &[u8]) -> u64 {
    !bytes.iter().fold(!before, |crc, byte| table[((crc ^ u64::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Field<'a> {
        Text(&'a str, &'a str),
        Truth(&'a str, bool),
        Long(&'a str, i64),
    }

    fn document(fields: &[Field<'_>]) -> Vec<u8> {
        let mut body = Vec::new();
        for field in fields {
            let (kind, name, value) = match field {
                Field::Text(name, text) => {
                    let length = i32::try_from(text.len() + 1).unwrap().to_le_bytes();
                    (0x02, name, [&length[..], text.as_bytes(), &[0]].concat())
                }
                Field::Truth(name, is) => (0x08, name, vec![u8::from(*is)]),
                Field::Long(name, number) => (0x12, name, number.to_le_bytes().to_vec()),
            };
            body.push(kind);
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(&value);
        }
        let length = i32::try_from(body.len() + 5).unwrap().to_le_bytes();
        [&length[..], &body, &[0]].concat()
    }

    fn head(collection: &str, ends: bool, crc: u64) -> Vec<u8> {
        let db = Field::Text("db", "shop");
        let rest = [Field::Truth("EOF", ends), Field::Long("CRC", crc.cast_signed())];
        document(&[&[db, Field::Text("collection", collection)], &rest[..]].concat_fields())
    }

    fn copy<'a>(field: &Field<'a>) -> Field<'a> {
        match field {
            Field::Text(name, text) => Field::Text(name, text),
            Field::Truth(name, is) => Field::Truth(name, *is),
            Field::Long(name, number) => Field::Long(name, *number),
        }
    }

    trait Concat<'a> {
        fn concat_fields(self) -> Vec<Field<'a>>;
    }

    impl<'a> Concat<'a> for &[&[Field<'a>]; 2] {
        fn concat_fields(self) -> Vec<Field<'a>> {
            self.iter().flat_map(|fields| fields.iter().map(copy)).collect()
        }
    }

    fn archive() -> Vec<u8> {
        let order = |n: i64| document(&[Field::Long("_id", n), Field::Text("what", "x")]);
        let (one, two) = (order(1), order(2));
        let of_orders = crc(&table(), crc(&table(), 0, &one), &two);
        let end = TERMINATOR.to_le_bytes().to_vec();
        let metadata = |name| {
            document(&[
                Field::Text("db", "shop"),
                Field::Text("collection", name),
                Field::Text("metadata", "{}"),
            ])
        };
        [
            MAGIC.to_vec(),
            document(&[Field::Text("version", "0.1"), Field::Text("server_version", "7.0.1")]),
            metadata("orders"),
            metadata("users"),
            end.clone(),
            head("orders", false, 0),
            one,
            end.clone(),
            head("users", true, 0),
            end.clone(),
            head("orders", false, 0),
            two,
            end.clone(),
            head("orders", true, of_orders),
            end,
        ]
        .concat()
    }

    #[test]
    fn the_checksum_is_the_one_of_the_format() {
        assert_eq!(crc(&table(), 0, b"123456789"), 0x995D_C9BB_DF19_39FA);
    }

    #[test]
    fn a_whole_archive_tells_what_it_holds() {
        let read = read(archive().as_slice()).unwrap();
        assert_eq!(read.server_version, "7.0.1");
        let counts: Vec<_> =
            read.collections.iter().map(|((_, name), count)| (name.as_str(), *count)).collect();
        assert_eq!(counts, [("orders", 2), ("users", 0)]);
    }

    #[test]
    fn measurements_are_announced_by_one_name_and_written_under_another() {
        let end = TERMINATOR.to_le_bytes().to_vec();
        let announced = [("db", "shop"), ("collection", "heat"), ("metadata", "{}"), ("type", "timeseries")];
        let announced = document(&announced.map(|(name, text)| Field::Text(name, text)));
        let begun =
            [MAGIC.to_vec(), document(&[Field::Text("version", "0.1")]), announced, end.clone()].concat();
        let bucket = document(&[Field::Long("_id", 1)]);
        let of_buckets = crc(&table(), 0, &bucket);
        let name = "system.buckets.heat";
        let written = [head(name, false, 0), bucket, end.clone(), head(name, true, of_buckets), end].concat();
        let read = read([begun.clone(), written].concat().as_slice()).unwrap();
        let names: Vec<_> =
            read.collections.iter().map(|((_, name), count)| (name.as_str(), *count)).collect();
        assert_eq!(names, [(name, 1)]);
        assert!(super::read(begun.as_slice()).is_err(), "nothing of it was written");
    }

    #[test]
    fn of_an_oplog_what_concerns_accounts_or_changes_nothing_is_not_handed_over() {
        let op = |op: &str, ns: &str| {
            document(&[
                Field::Long("ts", 1),
                Field::Truth("x", true),
                Field::Text("op", op),
                Field::Text("ns", ns),
            ])
        };
        let changes = [
            op("n", ""),
            op("i", "shop.orders"),
            op("u", "admin.system.users"),
            op("c", "admin.$cmd"),
            op("d", "config.x"),
            op("c", "shop.$cmd"),
        ];
        let head = |ends: bool, sum: u64| {
            let name = [Field::Text("db", ""), Field::Text("collection", "oplog")];
            let rest = [Field::Truth("EOF", ends), Field::Long("CRC", sum.cast_signed())];
            document(&[&name[..], &rest[..]].into_iter().flatten().map(copy).collect::<Vec<_>>())
        };
        assert_eq!((oplog_head(None), oplog_head(Some(7))), (head(false, 0), head(true, 7)));
        let announced = document(&[Field::Text("db", ""), Field::Text("collection", "oplog")]);
        let end = END.to_vec();
        let of_shop = archive();
        // Announced after the collections, and written after them.
        let at = of_shop.windows(4).position(|bytes| bytes == END).unwrap();
        let with = |changes: &[Vec<u8>]| {
            let all = changes.concat();
            let sum = crc(&table(), 0, &all);
            let written = [head(false, 0), all, end.clone(), head(true, sum), end.clone()].concat();
            [&of_shop[..at], &announced, &of_shop[at..], &written].concat()
        };
        let whole = with(&changes);
        let found = read(whole.as_slice()).unwrap();
        assert_eq!((found.changes, found.collections.len(), found.digests.len()), (Some(3), 2, 2));
        for (given, wanted) in [(&changes[..], 3), (&changes[..1], 0), (&changes[..0], 0)] {
            let mut alone = Vec::new();
            changes_alone(with(given).as_slice(), &mut alone).unwrap();
            let found = read(alone.as_slice()).unwrap();
            assert_eq!((found.changes, found.collections.len()), (Some(wanted), 0));
            assert_eq!(found.server_version, "7.0.1");
        }
        let mut altered = whole;
        let at = altered.windows(11).rposition(|bytes| bytes == b"shop.orders").unwrap();
        altered[at] ^= 1;
        assert!(
            read(altered.as_slice()).is_err() && changes_alone(altered.as_slice(), &mut Vec::new()).is_err()
        );
    }

    #[test]
    fn whatever_a_change_holds_is_passed_over_and_what_is_cut_is_refused() {
        let text = |text: &[u8]| [&(text.len() as u32 + 1).to_le_bytes()[..], text, &[0]].concat();
        let inner = document(&[Field::Long("a", 1)]);
        let values: [(u8, Vec<u8>); 15] = [
            (0x01, vec![1; 8]),
            (0x03, inner.clone()),
            (0x04, inner.clone()),
            (0x05, [&[3, 0, 0, 0, 0][..], &[9; 3]].concat()),
            (0x06, Vec::new()),
            (0x07, vec![1; 12]),
            (0x09, vec![1; 8]),
            (0x0A, Vec::new()),
            (0x0B, b"a.*\0i\0".to_vec()),
            (0x0C, [text(b"shop.x"), vec![1; 12]].concat()),
            (0x0D, text(b"return 1")),
            (0x0E, text(b"symbol")),
            (0x11, vec![1; 8]),
            (0x13, vec![1; 16]),
            (0xFF, Vec::new()),
        ];
        for (kind, value) in values {
            let body = [&[kind][..], b"v\0", &value, &[0x02], b"ns\0", &text(b"shop.x")].concat();
            let whole = [&(body.len() as u32 + 5).to_le_bytes()[..], &body, &[0]].concat();
            assert_eq!(Fields::of(&whole).unwrap().texts["ns"], "shop.x", "{kind:#x}");
            assert!(Fields::of(&whole[..whole.len() - 4]).is_err(), "{kind:#x}");
        }
    }

    #[test]
    fn a_digest_is_that_of_the_documents_in_whatever_order() {
        let end = TERMINATOR.to_le_bytes().to_vec();
        let order = |n: i64| document(&[Field::Long("_id", n)]);
        let held = |all: &[i64]| {
            let all: Vec<u8> = all.iter().flat_map(|n| order(*n)).collect();
            let sum = crc(&table(), 0, &all);
            let begun = [MAGIC.to_vec(), document(&[Field::Text("version", "0.1")]), end.clone()].concat();
            let rest = [head("orders", false, 0), all, end.clone(), head("orders", true, sum), end.clone()];
            read([begun, rest.concat()].concat().as_slice()).unwrap().digests
        };
        assert_eq!(held(&[1, 2, 3]), held(&[3, 1, 2]));
        assert_ne!(held(&[1, 2, 3]), held(&[1, 2, 4]));
        assert_ne!(held(&[1, 2, 2]), held(&[1, 2]));
    }

    #[test]
    fn what_is_cut_anywhere_is_refused_and_so_is_what_is_altered_in_a_document() {
        let whole = archive();
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut at {length}");
        }
        let at = whole.windows(5).position(|bytes| bytes == b"what\0").unwrap();
        let mut altered = whole.clone();
        altered[at + 9] ^= 1;
        assert!(read(altered.as_slice()).is_err());
    }
}
