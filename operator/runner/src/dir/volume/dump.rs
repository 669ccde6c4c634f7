//! Reading a volume that may be in use: what changes under the reader's eyes is told, never hidden.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FileType, SeekFrom, Stat};
use rustix::io::Errno;

use crate::dir::files;
use crate::dir::root::Root;
use crate::error::{Error, Result};
use crate::stop;
use crate::store::Draft;
use crate::tar::{Entry, Extent, Kind, Writer};
use crate::task::{Contents, Names};

/// Names told of each list.
const TOLD: usize = 20;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Attributes that belong to a system, not to the data.
const NOT_DATA: [&[u8]; 1] = [b"security.selinux"];

/// One walk through a volume.
struct Walk<'a, 'b> {
    archive: Writer<&'a mut Draft<'b>>,
    /// Paths of files with several names, by device and inode.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    contents: &'a mut Contents,
    device: u64,
    buffer: Vec<u8>,
}

/// Writes an archive of all that is in `root`; adds to `contents` what there is to tell.
pub(crate) fn dump(root: &Root, draft: &mut Draft<'_>, contents: &mut Contents) -> Result<()> {
    let stat = rustix::fs::fstat(&root.fd).map_err(Error::errno("cannot look at the volume"))?;
    let mut walk = Walk {
        archive: Writer::new(draft),
        links: BTreeMap::new(),
        contents,
        device: stat.st_dev,
        buffer: vec![0; CHUNK],
    };
    let top = Entry { xattrs: attributes(&root.fd, OsStr::new("."))?, ..entry(&stat, Vec::new()) };
    walk.archive.entry(&top).map_err(Error::io("cannot write the dump"))?;
    walk.all(&root.fd, &[], root.live()?)?;
    let draft = walk.archive.finish().map_err(Error::io("cannot write the dump"))?;
    draft.flush().map_err(Error::io("cannot write the dump"))
}

// === impl Walk ===

impl Walk<'_, '_> {
    fn all(&mut self, dir: &OwnedFd, above: &[u8], names: Vec<OsString>) -> Result<()> {
        for name in names {
            if stop::is_stopping() {
                return Err(Error::Stopped);
            }
            let mut path = above.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            match self.one(dir, &name, &path) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    tell(&mut self.contents.left_out, &path, "vanished");
                }
                done => done?,
            }
        }
        Ok(())
    }

    fn one(&mut self, dir: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        let vanished = || Error::io("vanished")(std::io::ErrorKind::NotFound.into());
        let stat = files::look(dir, name)?.ok_or_else(vanished)?;
        if stat.st_dev != self.device {
            tell(&mut self.contents.left_out, path, "another file system");
            return Ok(());
        }
        let mut entry = entry(&stat, path.to_vec());
        let is_new = stat.st_nlink < 2 || files::kind(&stat) == FileType::Directory;
        if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)).filter(|_| !is_new) {
            entry.kind = Kind::Hardlink(first.clone());
            return self.put(&entry);
        }
        match files::kind(&stat) {
            FileType::Directory => {
                let inner = files::open_dir(dir, name).map_err(files::wrong("open", name))?;
                entry.xattrs = attributes(&inner, OsStr::new("."))?;
                self.put(&entry)?;
                self.all(&inner, path, files::names(&inner)?)?;
            }
            FileType::RegularFile => self.file(dir, name, entry)?,
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(dir, name, Vec::new()).map_err(files::wrong("read", name))?;
                entry.kind = Kind::Symlink(target.into_bytes());
                self.put(&entry)?;
            }
            FileType::Fifo => {
                entry.kind = Kind::Fifo;
                self.put(&entry)?;
            }
            FileType::Socket => return self.left_out(path, "socket"),
            _ => return self.left_out(path, "device node"),
        }
        if !is_new {
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        Ok(())
    }

    fn left_out(&mut self, path: &[u8], why: &str) -> Result<()> {
        tell(&mut self.contents.left_out, path, why);
        Ok(())
    }

    fn put(&mut self, entry: &Entry) -> Result<()> {
        self.contents.entries += 1;
        self.archive.entry(entry).map_err(Error::io("cannot write the dump"))
    }

    fn file(&mut self, dir: &OwnedFd, name: &OsStr, entry: Entry) -> Result<()> {
        let fd = files::open_file(dir, name).map_err(files::wrong("open", name))?;
        let file = File::from(fd);
        let before = stat_of(&file)?;
        let size = before.st_size as u64;
        let extents = extents(&file, size).map_err(files::wrong("read", name))?;
        let data: u64 = extents.iter().map(|extent| extent.length).sum();
        let xattrs = attributes(&file, name)?;
        let entry = Entry {
            kind: Kind::File { size, extents: extents.clone() },
            xattrs,
            ..entry_of(&before, entry.path)
        };
        self.put(&entry)?;
        let mut is_short = false;
        for Extent { offset, length } in extents {
            is_short |= self.extent(&file, offset, length, name)?;
        }
        self.contents.size += data;
        let after = stat_of(&file)?;
        let stamp = |stat: &Stat| {
            (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec)
        };
        if is_short || stamp(&before) != stamp(&after) {
            tell(&mut self.contents.changed, &entry.path, "");
        }
        Ok(())
    }

    /// A file that became shorter is filled with zeros: its header already says how long it is.
    fn extent(&mut self, file: &File, offset: u64, length: u64, name: &OsStr) -> Result<bool> {
        let (mut done, mut is_short) = (0, false);
        while done < length {
            if stop::is_stopping() {
                return Err(Error::Stopped);
            }
            let most = usize::try_from(length - done).map_or(CHUNK, |left| left.min(CHUNK));
            let part = &mut self.buffer[..most];
            let read = file.read_at(part, offset + done);
            let mut read = read.map_err(Error::io(format!("cannot read {}", files::escaped(name))))?;
            if read == 0 {
                part.fill(0);
                (read, is_short) = (most, true);
            }
            self.archive.data(&part[..read]).map_err(Error::io("cannot write the dump"))?;
            done += read as u64;
        }
        Ok(is_short)
    }
}

fn stat_of(file: &File) -> Result<Stat> {
    rustix::fs::fstat(file).map_err(Error::errno("cannot look at a file"))
}

fn entry(stat: &Stat, path: Vec<u8>) -> Entry {
    entry_of(stat, path)
}

fn entry_of(stat: &Stat, path: Vec<u8>) -> Entry {
    Entry {
        path,
        kind: Kind::Directory,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        xattrs: Vec::new(),
    }
}

/// Where a file has data; all of it where its file system does not tell.
fn extents(file: &File, size: u64) -> rustix::io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let offset = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(offset) => offset,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                return Ok(vec![Extent { offset: 0, length: size }]);
            }
            Err(error) => return Err(error),
        };
        if offset >= size {
            break;
        }
        let end = rustix::fs::seek(file, SeekFrom::Hole(offset)).unwrap_or(size).min(size);
        if end <= offset {
            break;
        }
        extents.push(Extent { offset, length: end - offset });
        at = end;
    }
    Ok(extents)
}

/// The extended attributes of an open file, sorted; none where its file system has none.
pub(super) fn attributes(file: impl AsFd, name: &OsStr) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let listed = sized(|buffer| rustix::fs::flistxattr(&file, buffer));
    let keys = match listed {
        Ok(keys) => keys,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(files::wrong("list the attributes of", name)(error)),
    };
    let mut found = Vec::new();
    for key in keys.split(|byte| *byte == 0).filter(|key| !key.is_empty() && !NOT_DATA.contains(key)) {
        match sized(|buffer| rustix::fs::fgetxattr(&file, key, buffer)) {
            Ok(value) => found.push((key.to_vec(), value)),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(files::wrong("read an attribute of", name)(error)),
        }
    }
    found.sort();
    Ok(found)
}

/// Asks with the largest buffer that an attribute can fill.
fn sized(ask: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let length = ask(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn tell(names: &mut Names, path: &[u8], why: &str) {
    names.count += 1;
    if names.first.len() < TOLD {
        let name = files::escaped(OsStr::from_bytes(path));
        names.first.push(if why.is_empty() { name } else { format!("{name} ({why})") });
    }
}
