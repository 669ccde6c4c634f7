//! Store → staging volume: verified, decoded, and laid out as the database's tools wrote it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use skep_runner::Artefact;
use skep_runner::error::{Error, Result};
use skep_runner::manifest::MANIFEST;
use skep_runner::output::Output;
use skep_runner::store::{Folder, discard, sha256_of};
use skep_runner::task::Fetch;

use crate::code::{Identities, decode};
use crate::sealed::{Coded, Found};
use crate::shelf::{Shelf, Site};
use crate::ship::{Hashed, Watched, compare, told};

/// The jobs that read what was fetched run as the user of the database's image.
const READABLE: u32 = 0o644;

/// Brings a backup to the staging volume. Where an earlier attempt came as far as the manifest, that stands.
///
/// # Errors
/// When the store does not hold the registered backup, whole; or no identity decrypts it.
pub fn fetch(task: &Fetch, site: &Site, out: &Output) -> Result<()> {
    let identities = match &task.identity_file {
        None => Identities::none(),
        Some(path) => {
            let file =
                fs::read(path).map_err(Error::io(format!("cannot read the age identity from {path}")))?;
            Identities::parse(&file)?
        }
    };
    let mut shelf = Shelf::open(&task.from, site)?;
    let (bytes, found) = registered(&mut shelf, &task.dir, &task.id, &task.manifest_sha256)?;
    let inner = found.inner(&bytes);
    if staged(site, &task.dir)?.as_ref() == Some(&inner) {
        return Ok(());
    }
    discard(&site.stage, &task.dir, true)?;
    let folder = open_to_all(&site.stage, &task.dir)?;
    for (file, artefact) in found.files().iter().zip(&found.manifest().artefacts) {
        write_one(&mut shelf, &folder, task, file, artefact, &identities, out)?;
    }
    let part = format!("{MANIFEST}.part");
    let mut made = folder.write_new(&part)?;
    io::Write::write_all(&mut made, &inner).map_err(Error::io("cannot write the manifest"))?;
    readable(&made)?;
    folder.publish(&made, &part, MANIFEST)
}

/// The manifest of a backup, which must be the registered one.
pub(crate) fn registered(shelf: &mut Shelf, dir: &str, id: &str, sha256: &str) -> Result<(Vec<u8>, Found)> {
    let absent = || Error::refused(format!("backup {id} is not in the store at {dir}"));
    let bytes = shelf.manifest(dir)?.ok_or_else(absent)?;
    if sha256_of(&bytes) != sha256 {
        return Err(Error::refused(format!("the manifest of backup {id} is not the registered one")));
    }
    let found = Found::read(&bytes, id)?;
    Ok((bytes, found))
}

fn staged(site: &Site, dir: &str) -> Result<Option<Vec<u8>>> {
    match Folder::open(&site.stage, dir)? {
        Some(folder) => folder.manifest_bytes(),
        None => Ok(None),
    }
}

/// Reads one file once, hashes what comes and what comes out, and keeps it only where both are as the manifests say.
fn write_one(
    shelf: &mut Shelf,
    folder: &Folder,
    task: &Fetch,
    file: &Coded,
    artefact: &Artefact,
    identities: &Identities,
    out: &Output,
) -> Result<()> {
    let Fetch { id, dir, .. } = task;
    let stored = Watched { inner: shelf.read(dir, &file.file)?, done: 0, total: file.size, out };
    let mut stored = Hashed::new(stored);
    let part = format!("{}.part", artefact.file);
    let mut to = Hashed::new(folder.write_new(&part)?);
    let named = |why: String| format!("backup {id}, {}: {why}", file.file);
    let mut content = decode(&mut stored, &file.layers, identities).map_err(|e| match e {
        Error::Barred(why) => Error::Barred(named(why)),
        other => Error::refused(named(other.chain())),
    })?;
    io::copy(&mut content, &mut to).map_err(told(format!("cannot bring {dir}/{} here", file.file)))?;
    drop(content);
    // What is behind the end of the last layer belongs to the file too.
    io::copy(&mut stored, &mut io::sink()).map_err(told(format!("cannot read {dir}/{}", file.file)))?;
    compare(stored.tally, dir, file)?;
    let (size, sha256) = to.tally.ended();
    if (size, &sha256) != (artefact.size, &artefact.sha256) {
        return Err(Error::refused(format!("{dir}/{} does not hold what was dumped", file.file)));
    }
    readable(&to.inner)?;
    folder.publish(&to.inner, &part, &artefact.file)
}

/// Makes a directory of the staging volume that every user of a container may write to.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn open_to_all(stage: &Path, dir: &str) -> Result<Folder> {
    let folder = Folder::create(stage, dir)?;
    let mut path = stage.to_owned();
    let wrong = || Error::io(format!("cannot open {dir} in the staging volume to all users"));
    for part in dir.split('/') {
        path.push(part);
        fs::set_permissions(&path, Permissions::from_mode(0o777)).map_err(wrong())?;
    }
    Ok(folder)
}

fn readable(file: &fs::File) -> Result<()> {
    file.set_permissions(Permissions::from_mode(READABLE)).map_err(Error::io("cannot make a file readable"))
}
