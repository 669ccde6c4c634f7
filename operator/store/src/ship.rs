//! Staged backup → store.

use std::io::{self, Read, Write};

use skep_runner::error::{Error, Result};
use skep_runner::manifest::Manifest;
use skep_runner::output::Output;
use skep_runner::store::{Folder, Tally, discard, sha256_of};
use skep_runner::task::{Ship, Shipped};

use crate::code::{Layer, Recipients, encode};
use crate::sealed::{Coded, Found, Sealed};
use crate::shelf::{Shelf, Site};

/// Bytes read at once.
const CHUNK: usize = 128 << 10;

/// Hashes what passes.
pub(crate) struct Hashed<T> {
    pub(crate) inner: T,
    pub(crate) tally: Tally,
}

/// Encodes a staged backup into its store, reads it back, writes the manifest, and removes what was staged. Where an earlier
/// attempt came as far as the manifest, only reads back.
///
/// # Errors
/// When the staged backup is not whole, or the store does not take it.
pub fn ship(task: &Ship, site: &Site, out: &Output) -> Result<Shipped> {
    let recipients = Recipients::parse(&task.recipients)?;
    let mut shelf = Shelf::open(&task.to, site)?;
    let manifest = match earlier(&mut shelf, task)? {
        Some(found) => {
            for file in &found.files {
                read_back(&mut shelf, &task.dir, file, out)?;
            }
            found
        }
        None => {
            let manifest = write(&mut shelf, task, site, &recipients, out)?;
            shelf.commit(&task.dir, &manifest.bytes())?;
            let stands = shelf.manifest(&task.dir)?;
            if stands.as_deref() != Some(&manifest.bytes()) {
                return Err(Error::Unready(format!(
                    "the store does not give back the manifest of {}",
                    task.dir
                )));
            }
            manifest
        }
    };
    discard(&site.stage, &task.dir, true)?;
    Ok(Shipped {
        manifest_sha256: sha256_of(&manifest.bytes()),
        size: manifest.files.iter().map(|f| f.size).sum(),
        peak_rss: crate::job::peak_rss(),
    })
}

/// The manifest that an earlier attempt wrote of the same backup.
fn earlier(shelf: &mut Shelf, task: &Ship) -> Result<Option<Sealed>> {
    let Some(bytes) = shelf.manifest(&task.dir)? else { return Ok(None) };
    let sealed: Option<Sealed> = serde_json::from_slice(&bytes).ok();
    Ok(sealed.filter(|s| s.manifest_sha256 == task.manifest_sha256 && s.bytes() == bytes))
}

fn write(
    shelf: &mut Shelf,
    task: &Ship,
    site: &Site,
    recipients: &Recipients,
    out: &Output,
) -> Result<Sealed> {
    let dir = &task.dir;
    let absent = || Error::refused(format!("there is no staged backup at {dir}"));
    let staged = Folder::open(&site.stage, dir)?.ok_or_else(absent)?;
    let inner = staged.manifest_bytes()?.ok_or_else(absent)?;
    if sha256_of(&inner) != task.manifest_sha256 {
        return Err(Error::refused(format!(
            "the manifest of the staged backup at {dir} is not the one sealed"
        )));
    }
    let manifest: Manifest = serde_json::from_slice(&inner)
        .map_err(|e| Error::refused(format!("cannot read the manifest of the staged backup: {e}")))?;
    shelf.clear(dir)?;
    let total: u64 = manifest.artefacts.iter().map(|a| a.size).sum();
    let (mut files, mut done) = (Vec::new(), 0);
    for artefact in &manifest.artefacts {
        let missing = || Error::refused(format!("{dir}/{} is missing where it was staged", artefact.file));
        let file = staged.read(&artefact.file)?.ok_or_else(missing)?;
        let mut from = Hashed::new(Watched { inner: file, done, total, out });
        let layers = Layer::of(&artefact.file, !recipients.is_empty());
        let suffix: String = layers.iter().map(|l| l.suffix()).collect();
        let name = format!("{}{suffix}", artefact.file);
        let to = Hashed::new(shelf.draft(dir, &name, artefact.size)?);
        let to =
            encode(&mut from, to, &layers, recipients).map_err(told(format!("cannot write {dir}/{name}")))?;
        let (size, sha256) = from.tally.ended();
        if (size, &sha256) != (artefact.size, &artefact.sha256) {
            return Err(Error::refused(format!("{dir}/{} is not what was dumped", artefact.file)));
        }
        to.inner.finish()?;
        let (size, sha256) = to.tally.ended();
        let coded = Coded { file: name, size, sha256, of: artefact.file.clone(), layers };
        read_back(shelf, dir, &coded, out)?;
        files.push(coded);
        done += artefact.size;
    }
    let sealed = Sealed::new(&inner, task.recipients.clone(), files)?;
    Found::read(&sealed.bytes(), &manifest.id)?;
    Ok(sealed)
}

/// Reads a file of the store in full and compares its hash.
pub(crate) fn read_back(shelf: &mut Shelf, dir: &str, file: &Coded, out: &Output) -> Result<()> {
    let from = shelf.read(dir, &file.file)?;
    let mut from = Hashed::new(Watched { inner: from, done: 0, total: file.size, out });
    let read = drain(&mut from);
    read.map_err(told(format!("cannot read {dir}/{} back", file.file)))?;
    compare(from.tally, dir, file)
}

/// Refuses a file that is not the one that was written.
pub(crate) fn compare(read: Tally, dir: &str, file: &Coded) -> Result<()> {
    let (size, sha256) = read.ended();
    if (size, &sha256) == (file.size, &file.sha256) {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{dir}/{} does not have the checksum of its manifest: {size} bytes were read, {} were written",
        file.file, file.size
    )))
}

/// A failure of a stream; where one of ours is inside, that one.
pub(crate) fn told(what: String) -> impl FnOnce(io::Error) -> Error {
    move |error| {
        if error.get_ref().is_some_and(|e| e.is::<Error>()) {
            let ours = error.into_inner().and_then(|e| e.downcast::<Error>().ok());
            return ours.map_or_else(|| Error::Unready(what), |e| *e);
        }
        Error::io(what)(error)
    }
}

/// Tells how far it is read.
pub(crate) struct Watched<'a, R> {
    pub(crate) inner: R,
    pub(crate) done: u64,
    pub(crate) total: u64,
    pub(crate) out: &'a Output,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done += read as u64;
        self.out.progress("store", self.done, Some(self.total));
        Ok(read)
    }
}

/// Reads to the end.
fn drain(from: &mut dyn Read) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while from.read(&mut buffer)? > 0 {}
    Ok(())
}

// === impl Hashed ===

impl<T> Hashed<T> {
    pub(crate) fn new(inner: T) -> Hashed<T> {
        Hashed { inner, tally: Tally::default() }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.tally.add(&buffer[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.tally.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
