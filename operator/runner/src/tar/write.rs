//! Writing an archive.

use std::io::{self, Write};

use super::header::{Fields, Header, LARGEST_ID, LARGEST_SIZE, LONGEST_NAME, record};
use super::{BLOCK, Entry, Extent, Kind, has_holes, padding};

/// An archive being written.
pub(crate) struct Writer<W> {
    to: W,
    /// Bytes of data that the last entry still misses.
    due: u64,
    /// Zeros that follow them.
    pad: usize,
}

// === impl Writer ===

impl<W: Write> Writer<W> {
    /// An empty archive.
    pub(crate) fn new(to: W) -> Writer<W> {
        Writer { to, due: 0, pad: 0 }
    }

    /// Begins an entry; the bytes of its extents follow by [`Writer::data`].
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        debug_assert_eq!(self.due, 0, "the entry before has all of its data");
        let mut records = Vec::new();
        let mut name = match entry.path.as_slice() {
            [] => b"./".to_vec(),
            path => path.to_vec(),
        };
        let (mut map, mut link) = (Vec::new(), &[][..]);
        let (kind, data) = match &entry.kind {
            Kind::Directory => (b'5', 0),
            Kind::Symlink(target) => {
                link = target;
                (b'2', 0)
            }
            Kind::Hardlink(target) => {
                link = target;
                (b'1', 0)
            }
            Kind::Fifo => (b'6', 0),
            Kind::File { size, extents } => {
                if has_holes(*size, extents) {
                    record(&mut records, b"GNU.sparse.major", b"1");
                    record(&mut records, b"GNU.sparse.minor", b"0");
                    record(&mut records, b"GNU.sparse.name", &name);
                    record(&mut records, b"GNU.sparse.realsize", size.to_string().as_bytes());
                    map = sparse_map(*size, extents);
                    name = b"GNUSparseFile.0".to_vec();
                }
                (b'0', extents.iter().map(|extent| extent.length).sum())
            }
        };
        let size = map.len() as u64 + data;
        header_records(&mut records, entry, &name, link, size);
        if !records.is_empty() {
            let header = Fields { name: b"PaxHeader", size: records.len() as u64, ..plain(b'x') };
            self.to.write_all(&Header::new(&header).0)?;
            let pad = padding(records.len() as u64);
            records.resize(records.len() + pad, 0);
            self.to.write_all(&records)?;
        }
        let header = Fields {
            name: &name[..name.len().min(LONGEST_NAME)],
            mode: entry.mode & 0o7777,
            uid: if entry.uid > LARGEST_ID { 0 } else { entry.uid },
            gid: if entry.gid > LARGEST_ID { 0 } else { entry.gid },
            size: if size > LARGEST_SIZE { 0 } else { size },
            mtime: u64::try_from(entry.mtime.0).ok().filter(|s| *s <= LARGEST_SIZE).unwrap_or(0),
            link: &link[..link.len().min(LONGEST_NAME)],
            ..plain(kind)
        };
        self.to.write_all(&Header::new(&header).0)?;
        self.to.write_all(&map)?;
        (self.due, self.pad) = (data, padding(data));
        self.end_data()
    }

    /// The next bytes of the entry's extents.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.due -= bytes.len() as u64;
        self.end_data()
    }

    /// Writes the end mark.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }

    fn end_data(&mut self) -> io::Result<()> {
        if self.due > 0 || self.pad == 0 {
            return Ok(());
        }
        let pad = std::mem::take(&mut self.pad);
        self.to.write_all(&[0; BLOCK][..pad])
    }
}

fn plain(kind: u8) -> Fields<'static> {
    Fields { name: b"", mode: 0o644, uid: 0, gid: 0, size: 0, mtime: 0, kind, link: b"", prefix: b"" }
}

/// Records for what does not fit into the header.
fn header_records(records: &mut Vec<u8>, entry: &Entry, name: &[u8], link: &[u8], size: u64) {
    if name.len() > LONGEST_NAME {
        record(records, b"path", name);
    }
    if link.len() > LONGEST_NAME {
        record(records, b"linkpath", link);
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if id > LARGEST_ID {
            record(records, key, id.to_string().as_bytes());
        }
    }
    if size > LARGEST_SIZE {
        record(records, b"size", size.to_string().as_bytes());
    }
    let (seconds, nanos) = entry.mtime;
    if nanos > 0 || seconds < 0 || seconds as u64 > LARGEST_SIZE {
        record(records, b"mtime", decimal_time(seconds, nanos).as_bytes());
    }
    for (key, value) in &entry.xattrs {
        record(records, &[b"SCHILY.xattr.", escaped(key).as_slice()].concat(), value);
    }
}

/// As GNU tar does: a key ends at its first `=`.
fn escaped(key: &[u8]) -> Vec<u8> {
    let bytes = key.iter().map(|byte| match byte {
        b'%' => &b"%25"[..],
        b'=' => b"%3D",
        byte => std::slice::from_ref(byte),
    });
    bytes.collect::<Vec<_>>().concat()
}

/// Nanoseconds count forward from the second before; the decimal number of an early time counts back.
fn decimal_time(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (0.., _) => format!("{seconds}.{nanos:09}"),
        (_, 0) => format!("{seconds}"),
        _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

/// The number of extents, and each one's offset and length, a line each; padded. A hole at the end is an
/// extent of no bytes there.
fn sparse_map(size: u64, extents: &[Extent]) -> Vec<u8> {
    let ends_in_a_hole = extents.last().is_none_or(|last| last.offset + last.length < size);
    let mut text = format!("{}\n", extents.len() + usize::from(ends_in_a_hole));
    for Extent { offset, length } in extents {
        text += &format!("{offset}\n{length}\n");
    }
    if ends_in_a_hole {
        text += &format!("{size}\n0\n");
    }
    let mut map = text.into_bytes();
    map.resize(map.len() + padding(map.len() as u64), 0);
    map
}
