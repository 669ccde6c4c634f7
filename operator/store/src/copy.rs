//! Store → another store, byte for byte: the copy has the same manifest, and so the same registered hash.

use std::io;

use skep_runner::error::{Error, Result};
use skep_runner::output::Output;
use skep_runner::store::sha256_of;
use skep_runner::task::{Copied, Place};

use crate::fetch::registered;
use crate::shelf::{Shelf, Site};
use crate::ship::{Hashed, Watched, compare, read_back, told};

/// Copies a registered backup. Where an earlier attempt came as far as the manifest, only reads back.
///
/// # Errors
/// When the first store does not hold the registered backup, or the second does not take it.
pub fn copy(
    from: &Place,
    to: &Place,
    dir: &str,
    manifest_sha256: &str,
    site: &Site,
    out: &Output,
) -> Result<Copied> {
    let (mut from, mut to) = (Shelf::open(from, site)?, Shelf::open(to, site)?);
    let id = dir.rsplit('/').next().unwrap_or(dir);
    let (bytes, found) = registered(&mut from, dir, id, manifest_sha256)?;
    let size = found.files().iter().map(|f| f.size).sum();
    let is_there = to.manifest(dir)?.is_some_and(|there| sha256_of(&there) == manifest_sha256);
    if !is_there {
        to.clear(dir)?;
    }
    for file in found.files() {
        if !is_there {
            let inner = from.read(dir, &file.file)?;
            let mut source = Hashed::new(Watched { inner, done: 0, total: file.size, out });
            let mut draft = to.draft(dir, &file.file, file.size)?;
            io::copy(&mut source, &mut draft).map_err(told(format!("cannot copy {dir}/{}", file.file)))?;
            compare(source.tally, dir, &file)?;
            draft.finish()?;
        }
        read_back(&mut to, dir, &file, out)?;
    }
    if !is_there {
        to.commit(dir, &bytes)?;
        if to.manifest(dir)?.as_ref() != Some(&bytes) {
            return Err(Error::Unready(format!("the second store does not give back the manifest of {dir}")));
        }
    }
    Ok(Copied { size })
}
