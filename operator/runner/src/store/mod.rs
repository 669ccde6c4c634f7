//! The files of a backup. What lies in a store is not trusted: names are resolved one component at a time
//! without following symbolic links, and only regular files are read.
//!
//! Invariants: a directory with a manifest is sealed and never written again; a file is visible under its
//! final name only after it was synced.

mod anchor;
mod archive;
mod gzip;
pub(crate) mod layout;
mod rdb;
mod scan;
mod seal;
mod verify;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

pub use self::anchor::{MARK, is_the_one};
pub(crate) use self::scan::scan;
pub use self::scan::{LONGEST, MOST_OTHERS, ROOT, head, page};
pub use self::seal::discard;
pub(crate) use self::seal::{emptied, examine, seal};
pub(crate) use self::verify::verify;
use crate::error::{Error, Result};
use crate::job::{Job, civil};
use crate::manifest::{Artefact, MANIFEST, Manifest};
use crate::task::Stored;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Largest manifest that is read, in bytes.
const LARGEST_MANIFEST: u64 = 16 << 20;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// An open directory of the store.
pub struct Folder {
    fd: OwnedFd,
    label: String,
}

/// A backup whose manifest is the registered one.
pub(crate) struct Backup {
    /// Its directory.
    pub(crate) folder: Folder,
    /// Its manifest.
    pub(crate) manifest: Manifest,
}

/// An open artefact whose content had the manifest's checksum.
pub(crate) struct Whole {
    /// Positioned anywhere: readers open it anew.
    pub(crate) file: File,
    /// Its size in bytes.
    pub(crate) size: u64,
    label: String,
    stamp: Stamp,
}

/// See [`Whole::reader`].
pub(crate) struct WholeReader<'a> {
    whole: &'a Whole,
    at: u64,
}

/// An artefact being written. The hash is that of what was to be written, not of what the store gives back: a
/// store that loses bytes is found out by the seal.
pub(crate) struct Draft<'a> {
    folder: &'a Folder,
    job: &'a Job,
    file: File,
    part: String,
    name: String,
    tally: Tally,
}

/// Tells whether a file was written between two looks.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

/// Counts and hashes a stream.
#[derive(Default)]
pub struct Tally {
    /// Bytes so far.
    pub size: u64,
    hash: Sha256,
}

// === impl Folder ===

impl Folder {
    /// Its path in the store.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// The topmost directory itself.
    pub fn root(root: &Path) -> Result<Folder> {
        let opened = Folder::walk(root, &[], |_, _| Ok(()))?;
        opened.ok_or_else(|| Error::Unready(format!("the store at {} vanished", root.display())))
    }

    /// Opens `dir` under `root`, none where it does not exist.
    pub fn open(root: &Path, dir: &str) -> Result<Option<Folder>> {
        Folder::walk(root, &components(dir)?, |_, _| Ok(()))
    }

    /// Opens `dir` under `root`, making what is absent.
    pub fn create(root: &Path, dir: &str) -> Result<Folder> {
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP;
        let made = Folder::walk(root, &components(dir)?, |parent, name| {
            match rustix::fs::mkdirat(parent, name, mode) {
                Ok(()) => sync_dir(parent),
                Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error),
            }
        })?;
        made.ok_or_else(|| Error::Unready(format!("the directory {dir} vanished from the store")))
    }

    fn walk(
        root: &Path,
        names: &[&str],
        before: impl Fn(&OwnedFd, &str) -> rustix::io::Result<()>,
    ) -> Result<Option<Folder>> {
        let dir = names.join("/");
        let wrong = |error: Errno| Error::io(format!("cannot open {dir} in the store"))(error.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut fd = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| {
            Error::io(format!("cannot open the store at {}", root.display()))(error.into())
        })?;
        for &name in names {
            before(&fd, name).map_err(wrong)?;
            fd = match rustix::fs::openat(&fd, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(wrong(error)),
            };
        }
        Ok(Some(Folder { fd, label: dir }))
    }

    /// Opens a regular file for reading, none where it does not exist.
    pub fn read(&self, name: &str) -> Result<Option<File>> {
        plain(name)?;
        // NONBLOCK: opening a named pipe must not hang.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.wrong("open", name)(error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(self.wrong("look at", name))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::refused(format!("{}/{name} is not a regular file", self.label)));
        }
        Ok(Some(file))
    }

    /// Size of a regular file in bytes, none where it does not exist.
    pub fn size_of(&self, name: &str) -> Result<Option<u64>> {
        match self.read(name)? {
            Some(file) => Ok(Some(Stamp::of(&file, name)?.size as u64)),
            None => Ok(None),
        }
    }

    /// Makes a file anew for writing.
    pub fn write_new(&self, name: &str) -> Result<File> {
        plain(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP)
            .map(File::from)
            .map_err(self.wrong("make", name))
    }

    /// Syncs `file` and gives it its final name.
    pub fn publish(&self, file: &File, part: &str, name: &str) -> Result<()> {
        file.sync_all().map_err(Error::io(format!("cannot sync {}/{part}", self.label)))?;
        rustix::fs::renameat(&self.fd, part, &self.fd, name).map_err(self.wrong("rename to", name))?;
        self.sync()
    }

    /// Names of the entries.
    pub fn names(&self) -> Result<Vec<String>> {
        let listed =
            rustix::fs::Dir::read_from(&self.fd).and_then(Iterator::collect::<rustix::io::Result<Vec<_>>>);
        let entries = listed.map_err(self.wrong("list", "."))?;
        let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name != "." && name != "..").collect())
    }

    /// Removes a file; absent is fine.
    pub fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.wrong("remove", name)(error)),
        }
    }

    /// Whether it holds a manifest.
    pub fn is_sealed(&self) -> Result<bool> {
        match rustix::fs::statat(&self.fd, MANIFEST, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.wrong("look at", MANIFEST)(error)),
        }
    }

    /// Makes renames and removals durable.
    pub fn sync(&self) -> Result<()> {
        sync_dir(&self.fd).map_err(self.wrong("sync", "."))
    }

    /// Reads the manifest's bytes, none where there is no manifest.
    pub fn manifest_bytes(&self) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.read(MANIFEST)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(LARGEST_MANIFEST)
            .read_to_end(&mut bytes)
            .map_err(Error::io(format!("cannot read {}/{MANIFEST}", self.label)))?;
        Ok(Some(bytes))
    }

    /// Reads an artefact in full; refuses it unless size and checksum are the manifest's.
    pub(crate) fn whole(&self, artefact: &Artefact, job: &Job) -> Result<Whole> {
        let label = format!("{}/{}", self.label, artefact.file);
        let absent = || Error::refused(format!("{label} is missing"));
        let file = self.read(&artefact.file)?.ok_or_else(absent)?;
        let stamp = Stamp::of(&file, &label)?;
        if stamp.size as u64 != artefact.size {
            let (found, wanted) = (stamp.size, artefact.size);
            return Err(Error::refused(format!("{label} has {found} bytes, its manifest says {wanted}")));
        }
        let mut tally = Tally::default();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = (&file).read(&mut buffer).map_err(Error::io(format!("cannot read {label}")))?;
            if read == 0 {
                break;
            }
            if crate::stop::is_stopping() {
                return Err(Error::Stopped);
            }
            tally.add(&buffer[..read]);
            job.out.progress("checksum", tally.size, Some(artefact.size));
        }
        if tally.size != artefact.size || tally.sha256() != artefact.sha256 {
            return Err(Error::refused(format!("{label} does not have the checksum of its manifest")));
        }
        Ok(Whole { file, label, size: artefact.size, stamp })
    }

    fn wrong(&self, verb: &'static str, name: &str) -> impl FnOnce(Errno) -> Error + use<> {
        let path = format!("{}/{name}", self.label);
        move |error| match error {
            Errno::LOOP => Error::refused(format!("{path} is a symbolic link")),
            error => Error::io(format!("cannot {verb} {path}"))(error.into()),
        }
    }
}

// === impl Draft ===

impl<'a> Draft<'a> {
    /// A new file under a name of this attempt's own.
    pub(crate) fn new(job: &'a Job, folder: &'a Folder, name: String) -> Result<Draft<'a>> {
        plain(&name)?;
        let part = Draft::part(job, &name);
        let file = folder.write_new(&part)?;
        Ok(Draft { folder, job, file, part, name, tally: Tally::default() })
    }

    /// What it is called before it is whole.
    pub(crate) fn part(job: &Job, name: &str) -> String {
        format!("{name}.{}.part", job.session)
    }

    /// Takes all that a tool prints.
    pub(crate) fn copy(&mut self, from: &mut impl Read) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = from.read(&mut buffer).map_err(Error::io("cannot read what is to be dumped"))?;
            if read == 0 {
                return Ok(());
            }
            self.write_all(&buffer[..read]).map_err(Error::io("cannot write the dump"))?;
        }
    }

    /// Syncs it and gives it its final name.
    pub(crate) fn publish(self) -> Result<Artefact> {
        self.folder.publish(&self.file, &self.part, &self.name)?;
        Ok(Artefact { file: self.name, size: self.tally.size, sha256: self.tally.sha256() })
    }
}

impl Write for Draft<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.tally.add(&bytes[..written]);
        self.job.out.progress("dump", self.tally.size, None);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

// === impl Backup ===

impl Backup {
    /// Opens a registered backup; refuses it unless its manifest is the registered one, byte for byte.
    pub(crate) fn open(job: &Job, stored: &Stored) -> Result<Backup> {
        let Stored { id, dir, manifest_sha256 } = stored;
        let absent = || Error::refused(format!("backup {id} is not in the store at {dir}"));
        let folder = Folder::open(&job.store, dir)?.ok_or_else(absent)?;
        let bytes = folder.manifest_bytes()?.ok_or_else(absent)?;
        if sha256_of(&bytes) != *manifest_sha256 {
            return Err(Error::refused(format!("the manifest of backup {id} is not the registered one")));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| Error::refused(format!("cannot read the manifest of backup {id}: {error}")))?;
        if manifest.schema > crate::SCHEMA {
            return Err(Error::refused(format!("backup {id} was written by a newer Skep")));
        }
        if manifest.id != *id {
            return Err(Error::refused(format!("the manifest at {dir} is that of backup {}", manifest.id)));
        }
        for artefact in &manifest.artefacts {
            plain(&artefact.file)?;
        }
        Ok(Backup { folder, manifest })
    }

    /// Reads every artefact in full; refuses one that is not as the manifest says.
    pub(crate) fn whole(&self, job: &Job) -> Result<Vec<Whole>> {
        self.manifest.artefacts.iter().map(|artefact| self.folder.whole(artefact, job)).collect()
    }
}

// === impl Whole ===

impl Whole {
    /// Its file name.
    pub(crate) fn name(&self) -> &str {
        self.label.rsplit_once('/').map_or(self.label.as_str(), |(_, name)| name)
    }

    /// Its bytes from the beginning; reads by position, so any number of readers may be at it.
    pub(crate) fn reader(&self) -> WholeReader<'_> {
        WholeReader { whole: self, at: 0 }
    }

    /// When it was last written to.
    pub(crate) fn modified(&self) -> String {
        civil(self.stamp.modified.0)
    }

    /// Refuses a file that was written to since it was read. Its name does not matter: the file is open.
    pub(crate) fn is_untouched(&self) -> Result<()> {
        if Stamp::of(&self.file, &self.label)? == self.stamp {
            return Ok(());
        }
        Err(Error::refused(format!("{} was changed while it was used", self.label)))
    }
}

impl Read for WholeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.whole.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(file: &File, label: &str) -> Result<Stamp> {
        let stat = rustix::fs::fstat(file.as_fd())
            .map_err(|error| Error::io(format!("cannot look at {label}"))(error.into()))?;
        Ok(Stamp {
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        })
    }
}

// === impl Tally ===

impl Tally {
    /// Takes the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// Number of bytes, and their hash as [`Tally::sha256`] tells it.
    pub fn ended(self) -> (u64, String) {
        (self.size, self.sha256())
    }

    /// Lower-case hexadecimal SHA-256.
    pub fn sha256(self) -> String {
        hex(&self.hash.finalize())
    }
}

/// Lower-case hexadecimal SHA-256 of `bytes`.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Some network file systems know no sync of a directory: their renames are as durable as they get.
fn sync_dir(dir: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::fsync(dir) {
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        synced => synced,
    }
}

/// The parts of a relative path that stays below its root.
fn components(dir: &str) -> Result<Vec<&str>> {
    let parts: Vec<&str> = dir.split('/').collect();
    for part in &parts {
        if part.is_empty() || *part == "." || *part == ".." || part.contains('\0') {
            return Err(Error::refused(format!("`{dir}` is not a directory of the store")));
        }
    }
    Ok(parts)
}

/// Refuses what is not the plain name of an artefact.
fn plain(name: &str) -> Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(Error::refused(format!("`{name}` is not the name of a file of a backup")));
    }
    Ok(())
}
