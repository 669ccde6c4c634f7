//! Unpacking an archive into an empty directory, then reading both once more to compare them.
//!
//! Invariants: a name is resolved one component at a time below the directory, never through a symbolic link;
//! nothing that exists is opened for writing; owners come before permissions, which come before attributes
//! (a change of owner takes set-id bits and capabilities away).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::archive::Links;
use super::compare;
use crate::dir::files;
use crate::dir::root::Root;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::stop;
use crate::store::Whole;
use crate::tar::{Archive, Entry, Extent, Kind};

/// Bytes written at once.
const CHUNK: usize = 256 << 10;
/// How often the room is looked at.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

/// One unpacking.
struct Unpack<'a> {
    job: &'a Job,
    root: &'a Root,
    new: &'a OwnedFd,
    /// The directory where the last entry was put.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Directories get their times when nothing is put into them any more.
    directories: Vec<Entry>,
    looked: Instant,
    done: u64,
    total: u64,
    buffer: Vec<u8>,
}

/// Unpacks; yields the number of entries.
pub(crate) fn load(job: &Job, root: &Root, whole: &Whole, new: &OwnedFd) -> Result<u64> {
    let mut unpack = Unpack {
        job,
        root,
        new,
        last: None,
        directories: Vec::new(),
        looked: Instant::now(),
        done: 0,
        total: whole.size,
        buffer: vec![0; CHUNK],
    };
    let mut archive = Archive::new(whole.reader());
    let mut links = Links::default();
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        if stop::is_stopping() {
            return Err(Error::Stopped);
        }
        links.check(&entry)?;
        entries += u64::from(!entry.path.is_empty());
        unpack.one(entry, &mut archive)?;
    }
    unpack.end_directories()?;
    rustix::fs::syncfs(new).map_err(Error::errno("cannot sync what was unpacked"))?;
    compare::compare(job, whole, new)?;
    Ok(entries)
}

// === impl Unpack ===

impl Unpack<'_> {
    fn one(&mut self, entry: Entry, archive: &mut Archive<impl std::io::Read>) -> Result<()> {
        self.has_room(0)?;
        if entry.path.is_empty() {
            self.directories.push(entry);
            return Ok(());
        }
        let (dir, name) = self.parent(&entry)?;
        let wrong = |error: Errno| unpacking(&entry)(error);
        match &entry.kind {
            Kind::Directory => {
                rustix::fs::mkdirat(&dir, &name, Mode::RWXU).map_err(wrong)?;
                self.directories.push(entry);
                Ok(())
            }
            Kind::File { size, extents } => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&dir, &name, flags, Mode::RUSR | Mode::WUSR).map_err(wrong)?;
                let file = File::from(fd);
                self.fill(&file, *size, extents, &entry, archive)?;
                dress(&file, &entry)
            }
            Kind::Hardlink(target) => {
                let (from, old) = self.parent(&Entry { path: target.clone(), ..Entry::default() })?;
                let found = files::look(&from, &old)?.map(|stat| files::kind(&stat));
                if !matches!(found, Some(FileType::RegularFile | FileType::Symlink | FileType::Fifo)) {
                    let target = String::from_utf8_lossy(target);
                    return Err(refused(
                        &entry,
                        &format!("is a link to `{target}`, which is not in the archive before it"),
                    ));
                }
                rustix::fs::linkat(&from, &old, &dir, &name, AtFlags::empty()).map_err(wrong)
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), &dir, &name).map_err(wrong)?;
                dress_name(&dir, &name, &entry)
            }
            Kind::Fifo => {
                let mode = Mode::RUSR | Mode::WUSR;
                rustix::fs::mknodat(&dir, &name, FileType::Fifo, mode, 0).map_err(wrong)?;
                dress_name(&dir, &name, &entry)?;
                let mode = Mode::from_raw_mode(entry.mode);
                rustix::fs::chmodat(&dir, &name, mode, AtFlags::empty()).map_err(wrong)
            }
        }
    }

    /// The directory into which an entry goes, and its name there.
    fn parent(&mut self, entry: &Entry) -> Result<(OwnedFd, OsString)> {
        let path = entry.path.as_slice();
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&path[..0], path),
        };
        if self.last.as_ref().is_none_or(|(last, _)| last != above) {
            let fd = open_below(self.new, above).map_err(|error| match error {
                Errno::LOOP | Errno::NOTDIR => refused(entry, "leads through what is no directory"),
                Errno::NOENT => refused(entry, "lies in a directory that the archive does not have"),
                error => unpacking(entry)(error),
            })?;
            self.last = Some((above.to_vec(), fd));
        }
        let (_, fd) = self.last.as_ref().expect("it was just set");
        let fd = fd.try_clone().map_err(Error::io("cannot open a directory once more"))?;
        Ok((fd, OsStr::from_bytes(name).to_owned()))
    }

    fn fill(
        &mut self,
        file: &File,
        size: u64,
        extents: &[Extent],
        entry: &Entry,
        archive: &mut Archive<impl std::io::Read>,
    ) -> Result<()> {
        let cannot = || Error::io(format!("cannot unpack {}", entry.label()));
        for Extent { offset, length } in extents {
            let mut at = 0;
            while at < *length {
                if stop::is_stopping() {
                    return Err(Error::Stopped);
                }
                let most = usize::try_from(length - at).map_or(CHUNK, |left| left.min(CHUNK));
                let read = archive.data(&mut self.buffer[..most])?;
                file.write_all_at(&self.buffer[..read], offset + at).map_err(cannot())?;
                at += read as u64;
                self.has_room(read as u64)?;
            }
        }
        if extents.last().is_none_or(|last| last.offset + last.length < size) {
            file.set_len(size).map_err(cannot())?;
        }
        Ok(())
    }

    fn has_room(&mut self, more: u64) -> Result<()> {
        self.done += more;
        self.job.out.progress("unpack", self.done, Some(self.total));
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        self.root.has_room(0)
    }

    /// Innermost first, so that a directory without permission to enter is closed after what is in it.
    fn end_directories(&mut self) -> Result<()> {
        let mut directories = std::mem::take(&mut self.directories);
        while let Some(entry) = directories.pop() {
            let dir = open_below(self.new, &entry.path).map_err(unpacking(&entry))?;
            dress(&dir, &entry)?;
        }
        Ok(())
    }
}

/// Opens a directory below another, one component at a time.
pub(super) fn open_below(new: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut dir = files::open_dir(new, OsStr::new("."))?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        dir = files::open_dir(&dir, OsStr::from_bytes(part))?;
    }
    Ok(dir)
}

/// Owner, permissions, attributes and time of an open file or directory.
fn dress(file: impl AsFd, entry: &Entry) -> Result<()> {
    let (uid, gid) = owner(entry);
    let wrong = |error| unpacking(entry)(error);
    rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(|error| not_given(entry, error))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(wrong)?;
    for (key, value) in &entry.xattrs {
        rustix::fs::fsetxattr(&file, key.as_slice(), value, XattrFlags::empty()).map_err(|error| {
            let key = String::from_utf8_lossy(key);
            Error::io(format!("cannot set the attribute {key} of {}", entry.label()))(error.into())
        })?;
    }
    rustix::fs::futimens(&file, &times(entry)).map_err(wrong)
}

/// Owner and time of what cannot be opened.
fn dress_name(dir: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
    let (uid, gid) = owner(entry);
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| not_given(entry, error))?;
    rustix::fs::utimensat(dir, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).map_err(unpacking(entry))
}

fn owner(entry: &Entry) -> (Uid, Gid) {
    (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid))
}

fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanos) = entry.mtime;
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

fn not_given(entry: &Entry, error: Errno) -> Error {
    let Entry { uid, gid, .. } = entry;
    Error::io(format!("cannot give {} to {uid}:{gid} (it takes root)", entry.label()))(error.into())
}

fn unpacking(entry: &Entry) -> impl FnOnce(Errno) -> Error + use<> {
    let label = entry.label();
    move |error| match error {
        Errno::EXIST => Error::refused(format!("the archive is refused: `{label}` is in it twice")),
        error => Error::io(format!("cannot unpack {label}"))(error.into()),
    }
}

fn refused(entry: &Entry, why: &str) -> Error {
    Error::refused(format!("the archive is refused: `{}` {why}", entry.label()))
}
