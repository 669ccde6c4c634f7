//! Reading an archive that nobody vouches for.

use std::io::Read;

use super::header::{Header, decimal, records};
use super::{BLOCK, Entry, Extent, Kind, padding};
use crate::error::{Error, Result};

/// Longest set of records, or map of a sparse file, that is read, in bytes.
const LONGEST_RECORDS: u64 = 64 << 20;

/// An archive being read.
pub(crate) struct Archive<R> {
    from: R,
    /// Bytes of data of the last entry that were not read yet.
    due: u64,
    /// Zeros that follow them.
    pad: usize,
    /// Entries so far, to tell where it is damaged.
    count: u64,
}

/// What the records before a header say.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    /// The name of a sparse file, whose `path` is a stand-in.
    sparse_name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_size: Option<u64>,
    sparse_major: Option<u64>,
}

// === impl Archive ===

impl<R: Read> Archive<R> {
    /// An archive from its beginning.
    pub(crate) fn new(from: R) -> Archive<R> {
        Archive { from, due: 0, pad: 0, count: 0 }
    }

    /// The next entry; data of the one before that was not read is passed over. None at the end mark.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut found = Records::default();
        loop {
            let header = self.header()?;
            if header.is_end() {
                return if self.header()?.is_end() {
                    Ok(None)
                } else {
                    Err(self.wrong("its end mark is not whole"))
                };
            }
            self.count += 1;
            let fields = header.fields()?;
            if fields.kind == b'x' {
                let bytes = self.bytes(fields.size)?;
                found = Records::read(&bytes)?;
                continue;
            }
            if let b'L' | b'K' = fields.kind {
                // A long name as GNU's tar writes it, with a zero behind it.
                let mut name = self.bytes(fields.size)?;
                name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
                let field = if fields.kind == b'L' { &mut found.path } else { &mut found.link };
                *field = Some(name);
                continue;
            }
            let size = found.size.unwrap_or(fields.size);
            let whole_name = [fields.prefix, fields.name].join(&b'/');
            let name = if fields.prefix.is_empty() { fields.name } else { &whole_name };
            let path = checked(found.sparse_name.as_deref().or(found.path.as_deref()).unwrap_or(name))?;
            let link = found.link.as_deref().unwrap_or(fields.link);
            (self.due, self.pad) = (size, padding(size));
            let kind = match fields.kind {
                b'0' | 0 if found.sparse_major.is_some() => self.sparse(&found)?,
                b'0' | 0 => Kind::solid(size),
                kind if size > 0 => return Err(self.wrong(&format!("an entry of kind {kind} has data"))),
                b'1' => Kind::Hardlink(checked(link)?),
                b'2' if !link.is_empty() && !link.contains(&0) => Kind::Symlink(link.to_vec()),
                b'5' => Kind::Directory,
                b'6' => Kind::Fifo,
                b'3' | b'4' => return Err(refused(&path, "is a device node")),
                kind => return Err(refused(&path, &format!("is of the unknown kind {kind}"))),
            };
            if path.is_empty() && kind != Kind::Directory {
                return Err(refused(&path, "is not a directory"));
            }
            return Ok(Some(Entry {
                path,
                kind,
                mode: fields.mode & 0o7777,
                uid: found.uid.unwrap_or(fields.uid),
                gid: found.gid.unwrap_or(fields.gid),
                mtime: found.mtime.unwrap_or((fields.mtime as i64, 0)),
                xattrs: found.xattrs,
            }));
        }
    }

    /// The next bytes of the entry's extents; 0 when there are no more.
    pub(crate) fn data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = buffer.len().min(usize::try_from(self.due).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut buffer[..most]).map_err(Error::io("cannot read the archive"))?;
        if read == 0 {
            return Err(self.wrong("it is cut short"));
        }
        self.due -= read as u64;
        Ok(read)
    }

    fn skip(&mut self) -> Result<()> {
        let mut buffer = [0; 16 << 10];
        while self.data(&mut buffer)? > 0 {}
        let pad = std::mem::take(&mut self.pad);
        self.exact(&mut buffer[..pad])
    }

    fn header(&mut self) -> Result<Header> {
        let mut bytes = [0; BLOCK];
        self.exact(&mut bytes)?;
        Ok(Header(bytes))
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        match self.from.read_exact(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.wrong("it is cut short"))
            }
            read => read.map_err(Error::io("cannot read the archive")),
        }
    }

    fn bytes(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > LONGEST_RECORDS {
            return Err(self.wrong("a set of PAX records is too long"));
        }
        let mut bytes = vec![0; size as usize + padding(size)];
        self.exact(&mut bytes)?;
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    /// Reads the map that stands before the data of a sparse file.
    fn sparse(&mut self, found: &Records) -> Result<Kind> {
        let (Some(1), Some(size)) = (found.sparse_major, found.sparse_size) else {
            return Err(self.wrong("a sparse file is of an unknown format"));
        };
        let mut map = Map { archive: self, block: [0; BLOCK], at: BLOCK, read: 0 };
        let count = map.number()?;
        let mut extents = Vec::new();
        let mut end = 0;
        for _ in 0..count {
            let (offset, length) = (map.number()?, map.number()?);
            let next = offset.checked_add(length).filter(|next| offset >= end && *next <= size);
            end = next.ok_or_else(|| map.archive.wrong("the map of a sparse file is damaged"))?;
            if length > 0 {
                extents.push(Extent { offset, length });
            }
        }
        if extents.iter().map(|extent| extent.length).sum::<u64>() != self.due {
            return Err(self.wrong("a sparse file has other data than its map says"));
        }
        Ok(Kind::File { size, extents })
    }

    fn wrong(&self, why: &str) -> Error {
        Error::refused(format!("the archive is damaged after {} headers: {why}", self.count))
    }
}

/// The map of a sparse file: numbers in lines, block by block.
struct Map<'a, R> {
    archive: &'a mut Archive<R>,
    block: [u8; BLOCK],
    at: usize,
    read: u64,
}

// === impl Map ===

impl<R: Read> Map<'_, R> {
    fn number(&mut self) -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(self.archive.wrong("the map of a sparse file is damaged")),
            }
        }
        decimal(&digits).ok_or_else(|| self.archive.wrong("the map of a sparse file is damaged"))
    }

    fn byte(&mut self) -> Result<u8> {
        if self.at == BLOCK {
            self.read += BLOCK as u64;
            if self.archive.due < BLOCK as u64 || self.read > LONGEST_RECORDS {
                return Err(self.archive.wrong("the map of a sparse file is damaged"));
            }
            self.archive.exact(&mut self.block)?;
            self.archive.due -= BLOCK as u64;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}

// === impl Records ===

impl Records {
    fn read(bytes: &[u8]) -> Result<Records> {
        let mut found = Records::default();
        let id = |value: &[u8]| decimal(value).and_then(|id| u32::try_from(id).ok());
        for (key, value) in records(bytes)? {
            let is_fine = match key {
                b"path" => set(&mut found.path, Some(value.to_vec())),
                b"GNU.sparse.name" => set(&mut found.sparse_name, Some(value.to_vec())),
                b"linkpath" => set(&mut found.link, Some(value.to_vec())),
                b"uid" => set(&mut found.uid, id(value)),
                b"gid" => set(&mut found.gid, id(value)),
                b"size" => set(&mut found.size, decimal(value)),
                b"mtime" => set(&mut found.mtime, time(value)),
                b"GNU.sparse.realsize" => set(&mut found.sparse_size, decimal(value)),
                b"GNU.sparse.major" => set(&mut found.sparse_major, decimal(value)),
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        found.xattrs.push((unescaped(name), value.to_vec()));
                    }
                    true
                }
            };
            if !is_fine {
                return Err(Error::refused("the archive is damaged: a PAX record has no sense"));
            }
        }
        Ok(found)
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    *field = value;
    field.is_some()
}

/// Seconds with an optional fraction; a negative one counts back.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (text.starts_with('-'), nanos) {
        (true, 1..) => (seconds - 1, 1_000_000_000 - nanos),
        _ => (seconds, nanos),
    })
}

fn unescaped(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = key;
    while let [first, after @ ..] = rest {
        let (byte, after) = match rest {
            [b'%', b'2', b'5', after @ ..] => (&b'%', after),
            [b'%', b'3', b'D', after @ ..] => (&b'=', after),
            _ => (first, after),
        };
        bytes.push(*byte);
        rest = after;
    }
    bytes
}

/// A name as a relative path without `.` and `..`; the root is empty.
fn checked(name: &[u8]) -> Result<Vec<u8>> {
    let trimmed = name.strip_suffix(b"/").unwrap_or(name);
    if name.is_empty() || name.starts_with(b"/") || name.contains(&0) {
        return Err(refused(name, "is no relative name"));
    }
    let mut parts = Vec::new();
    for part in trimmed.split(|byte| *byte == b'/') {
        match part {
            b"." if parts.is_empty() => {}
            b"" | b"." | b".." => return Err(refused(name, "leads out of the directory, or around in it")),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

fn refused(name: &[u8], why: &str) -> Error {
    Error::refused(format!("the archive is refused: `{}` {why}", String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::Writer;
    use super::*;

    fn round(entry: &Entry, data: &[u8]) -> (Entry, Vec<u8>) {
        let mut writer = Writer::new(Vec::new());
        writer.entry(entry).unwrap();
        writer.data(data).unwrap();
        let mut archive = Archive::new(Cursor::new(writer.finish().unwrap()));
        let found = archive.next().unwrap().unwrap();
        let mut bytes = vec![0; 10_000];
        let mut length = 0;
        loop {
            match archive.data(&mut bytes[length..]).unwrap() {
                0 => break,
                read => length += read,
            }
        }
        bytes.truncate(length);
        assert!(archive.next().unwrap().is_none());
        (found, bytes)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let plain =
            Entry { path: b"a".to_vec(), mode: 0o4755, uid: 1, gid: 2, mtime: (3, 0), ..Entry::default() };
        let odd = Entry {
            path: [&b"d/"[..], &[b'x'; 200], b"/\xff\n"].concat(),
            uid: u32::MAX,
            gid: 3_000_000,
            mtime: (-5, 250_000_000),
            xattrs: vec![(b"user.a=b%3D%".to_vec(), b"\0\n=".to_vec())],
            ..Entry::default()
        };
        for entry in [plain.clone(), odd] {
            assert_eq!(round(&entry, b""), (entry, vec![]));
        }
        for kind in [Kind::Fifo, Kind::Symlink(b"/../x".to_vec()), Kind::Hardlink(vec![b'y'; 300])] {
            let entry = Entry { kind, ..plain.clone() };
            assert_eq!(round(&entry, b""), (entry, vec![]));
        }
        for size in [0, 1, 511, 512, 513, 1024] {
            let (entry, data) = (Entry { kind: Kind::solid(size), ..plain.clone() }, vec![7; size as usize]);
            assert_eq!(round(&entry, &data), (entry, data));
        }
    }

    #[test]
    fn a_sparse_file_keeps_its_extents() {
        let extents = vec![Extent { offset: 1 << 40, length: 5 }, Extent { offset: 2 << 40, length: 600 }];
        for size in [(2 << 40) + 600, 3 << 40] {
            let kind = Kind::File { size, extents: extents.clone() };
            let entry = Entry { path: [b'n'; 150].to_vec(), kind, ..Entry::default() };
            assert_eq!(round(&entry, &[9; 605]), (entry, vec![9; 605]));
        }
        let hole =
            Entry { path: b"h".to_vec(), kind: Kind::File { size: 9, extents: vec![] }, ..Entry::default() };
        assert_eq!(round(&hole, b""), (hole, vec![]));
    }

    /// A header of another program, with its sum.
    fn header(name: &[u8], kind: u8, size: u64, mark: &[u8], prefix: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, name);
        put(100, b"0000644\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(156, &[kind]);
        put(257, mark);
        put(345, prefix);
        put(148, b"        ");
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    }

    #[test]
    fn archives_of_other_programs_are_read() {
        const GNU: &[u8] = b"ustar  \0";
        let long = [b'l'; 180];
        let mut block = [0; BLOCK];
        block[..180].copy_from_slice(&long);
        let end = vec![0; 2 * BLOCK];
        let gnu = [
            header(b"././@LongLink", b'L', 181, GNU, b""),
            block.to_vec(),
            header(&long[..100], b'0', 0, GNU, b""),
            end.clone(),
        ];
        assert_eq!(Archive::new(gnu.concat().as_slice()).next().unwrap().unwrap().path, long);
        let posix = [header(b"name", b'0', 0, b"ustar\x0000", b"above/it"), end.clone()];
        assert_eq!(Archive::new(posix.concat().as_slice()).next().unwrap().unwrap().path, b"above/it/name");
        // Whichever way a name is told, it stays below the root.
        let mut hostile = [0; BLOCK];
        hostile[..9].copy_from_slice(b"a/../../b");
        let gnu = [
            header(b"x", b'L', 10, GNU, b""),
            hostile.to_vec(),
            header(b"x", b'0', 0, GNU, b""),
            end.clone(),
        ];
        assert!(Archive::new(gnu.concat().as_slice()).next().is_err());
        let posix = [header(b"name", b'0', 0, b"ustar\x0000", b"../above"), end];
        assert!(Archive::new(posix.concat().as_slice()).next().is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [&b"/etc/passwd"[..], b"..", b"a/../b", b"a//b", b"a/./b", b"", b"a\0b", b"./../x"] {
            assert!(checked(name).is_err(), "{name:?}");
        }
        assert_eq!(checked(b"./a/b/").unwrap(), b"a/b");
        assert_eq!(checked(b"./").unwrap(), b"");
        assert_eq!(checked(b"...").unwrap(), b"...");
    }

    #[test]
    fn an_archive_cut_short_anywhere_is_refused() {
        let mut writer = Writer::new(Vec::new());
        writer.entry(&Entry { path: vec![b'a'; 150], kind: Kind::solid(700), ..Entry::default() }).unwrap();
        writer.data(&[1; 700]).unwrap();
        let whole = writer.finish().unwrap();
        for length in 0..whole.len() {
            let mut archive = Archive::new(&whole[..length]);
            let end = std::iter::from_fn(|| archive.next().transpose()).find(Result::is_err);
            assert!(end.is_some(), "{length} of {}", whole.len());
        }
    }

    #[test]
    fn a_flipped_bit_of_a_header_is_found() {
        let mut writer = Writer::new(Vec::new());
        writer.entry(&Entry { path: b"a".to_vec(), ..Entry::default() }).unwrap();
        let whole = writer.finish().unwrap();
        for at in [0, 101, 150, 156, 260] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(Archive::new(damaged.as_slice()).next().is_err(), "{at}");
        }
    }
}
