//! The life of a backup's directory: emptied for a dump, sealed by its manifest, examined, discarded.

use std::io::Write as _;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{Backup, Folder, Whole, components, sha256_of};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::manifest::{MANIFEST, Manifest};

/// Writes `bytes` under its final name in one step.
fn write_whole(folder: &Folder, part: &str, name: &str, bytes: &[u8]) -> Result<()> {
    folder.remove(part)?;
    let mut file = folder.write_new(part)?;
    file.write_all(bytes).map_err(Error::io(format!("cannot write {part}")))?;
    folder.publish(&file, part, name)
}

/// The directory of an unfinished backup without what an earlier attempt left.
pub(crate) fn emptied(job: &Job, dir: &str) -> Result<Folder> {
    let folder = Folder::create(&job.store, dir)?;
    if folder.is_sealed()? {
        return Err(Error::refused(format!("{dir} holds a finished backup")));
    }
    for name in folder.names()? {
        folder.remove(&name)?;
    }
    Ok(folder)
}

/// Reads all artefacts back, checksums first, then by `read_in_full`; only then writes the manifest, which makes
/// the directory a backup. Yields the manifest's SHA-256 and the bytes of all artefacts.
pub(crate) fn seal(
    job: &Job,
    dir: &str,
    manifest: &Manifest,
    read_in_full: impl Fn(&Whole) -> Result<()>,
) -> Result<(String, u64)> {
    let absent = || Error::refused(format!("there is no dump at {dir}"));
    let folder = Folder::open(&job.store, dir)?.ok_or_else(absent)?;
    let mut bytes = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys only");
    bytes.push(b'\n');
    let sealed = folder.manifest_bytes()?;
    if sealed.as_ref().is_some_and(|sealed| *sealed != bytes) {
        return Err(Error::refused(format!("{dir} was sealed with another manifest")));
    }
    if manifest.artefacts.is_empty() {
        return Err(Error::refused("a manifest without artefacts seals nothing"));
    }
    for artefact in &manifest.artefacts {
        let whole = folder.whole(artefact, job)?;
        read_in_full(&whole)?;
        whole.is_untouched()?;
    }
    if sealed.is_none() {
        write_whole(&folder, &format!("{MANIFEST}.{}.part", job.session), MANIFEST, &bytes)?;
    }
    Ok((sha256_of(&bytes), manifest.artefacts.iter().map(|artefact| artefact.size).sum()))
}

/// Checks a stored backup in full, as [`seal`] does.
pub(crate) fn examine(job: &Job, backup: &Backup, read_in_full: impl Fn(&Whole) -> Result<()>) -> Result<()> {
    for whole in backup.whole(job)? {
        read_in_full(&whole)?;
        whole.is_untouched()?;
    }
    Ok(())
}

/// Removes a directory of files. With a manifest only where `sealed` allows it, and the manifest first:
/// what is left of a backup then is none.
pub fn discard(root: &Path, dir: &str, sealed: bool) -> Result<()> {
    let Some(folder) = Folder::open(root, dir)? else { return Ok(()) };
    if folder.is_sealed()? {
        if !sealed {
            return Err(Error::refused(format!("{dir} holds a finished backup")));
        }
        folder.remove(MANIFEST)?;
        folder.sync()?;
    }
    for name in folder.names()? {
        folder.remove(&name)?;
    }
    let names = components(dir)?;
    let (last, above) = names.split_last().expect("a path has at least one component");
    let Some(parent) = Folder::walk(root, above, |_, _| Ok(()))? else { return Ok(()) };
    match rustix::fs::unlinkat(&parent.fd, *last, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => parent.sync(),
        Err(error) => Err(parent.wrong("remove", last)(error)),
    }
}
