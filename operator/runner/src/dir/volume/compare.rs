//! Comparing what was unpacked with its archive, file by file and byte by byte.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FileType, Stat};

use super::dump::attributes;
use super::load::open_below;
use crate::dir::files;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::stop;
use crate::store::Whole;
use crate::tar::{Archive, Entry, Extent, Kind};

/// Bytes compared at once.
const CHUNK: usize = 256 << 10;

/// Refuses a directory that is not what the archive says.
pub(super) fn compare(job: &Job, whole: &Whole, new: &OwnedFd) -> Result<()> {
    let mut archive = Archive::new(whole.reader());
    let mut done = 0;
    while let Some(entry) = archive.next()? {
        if stop::is_stopping() {
            return Err(Error::Stopped);
        }
        let at = entry.path.iter().rposition(|byte| *byte == b'/');
        let (above, name) =
            at.map_or((&[][..], entry.path.as_slice()), |at| (&entry.path[..at], &entry.path[at + 1..]));
        let name = if name.is_empty() { &b"."[..] } else { name };
        let dir = open_below(new, above).map_err(|error| differs(&entry, &error.to_string()))?;
        done += is_same(&dir, OsStr::from_bytes(name), new, &entry, &mut archive)?;
        job.out.progress("compare", done, Some(whole.size));
    }
    Ok(())
}

fn is_same(
    dir: &OwnedFd,
    name: &OsStr,
    new: &OwnedFd,
    entry: &Entry,
    archive: &mut Archive<impl Read>,
) -> Result<u64> {
    let stat = files::look(dir, name)?.ok_or_else(|| differs(entry, "it is missing"))?;
    let kind = files::kind(&stat);
    if let Kind::Hardlink(target) = &entry.kind {
        let at = target.iter().rposition(|byte| *byte == b'/');
        let (above, name) = at.map_or((&[][..], target.as_slice()), |at| (&target[..at], &target[at + 1..]));
        let dir = open_below(new, above).map_err(|error| differs(entry, &error.to_string()))?;
        let first = files::look(&dir, OsStr::from_bytes(name))?.map(|stat| stat.st_ino);
        return if first == Some(stat.st_ino) { Ok(0) } else { Err(differs(entry, "it is no link")) };
    }
    let found = (stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec as u32);
    if found != (entry.uid, entry.gid, entry.mtime.0, entry.mtime.1) {
        return Err(differs(entry, "owner or time"));
    }
    if kind != FileType::Symlink && stat.st_mode & 0o7777 != entry.mode {
        return Err(differs(entry, "permissions"));
    }
    match &entry.kind {
        Kind::Directory if kind == FileType::Directory => {
            let dir = files::open_dir(dir, name).map_err(files::wrong("open", name))?;
            has_attributes(&dir, name, entry).map(|()| 0)
        }
        Kind::File { size, extents } if kind == FileType::RegularFile => {
            let file = File::from(files::open_file(dir, name).map_err(files::wrong("open", name))?);
            has_attributes(&file, name, entry)?;
            has_bytes(&file, &stat, *size, extents, entry, archive)
        }
        Kind::Symlink(target) if kind == FileType::Symlink => {
            let found = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(files::wrong("read", name))?;
            if found.as_bytes() == target { Ok(0) } else { Err(differs(entry, "the link's target")) }
        }
        Kind::Fifo if kind == FileType::Fifo => Ok(0),
        _ => Err(differs(entry, "its kind")),
    }
}

fn has_attributes(file: impl std::os::fd::AsFd, name: &OsStr, entry: &Entry) -> Result<()> {
    let found = attributes(file, name)?;
    let has = |pair: &(Vec<u8>, Vec<u8>)| found.contains(pair);
    if entry.xattrs.iter().all(has) { Ok(()) } else { Err(differs(entry, "attributes")) }
}

/// Compares the data; what lies between was never written.
fn has_bytes(
    file: &File,
    stat: &Stat,
    size: u64,
    extents: &[Extent],
    entry: &Entry,
    archive: &mut Archive<impl Read>,
) -> Result<u64> {
    if stat.st_size as u64 != size {
        return Err(differs(entry, "its size"));
    }
    let (mut wanted, mut found) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut sum = 0;
    for Extent { offset, length } in extents {
        let mut at = 0;
        while at < *length {
            let most = usize::try_from(length - at).map_or(CHUNK, |left| left.min(CHUNK));
            let read = archive.data(&mut wanted[..most])?;
            let cannot = Error::io(format!("cannot read back {}", entry.label()));
            file.read_exact_at(&mut found[..read], offset + at).map_err(cannot)?;
            if wanted[..read] != found[..read] {
                return Err(differs(entry, "its content"));
            }
            at += read as u64;
        }
        sum += length;
    }
    Ok(sum)
}

fn differs(entry: &Entry, what: &str) -> Error {
    Error::refused(format!("{} was unpacked and is not as in its archive: {what}", entry.label()))
}
