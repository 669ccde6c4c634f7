//! Whether a stored backup is still what was registered: every file is read, nothing is decoded.
//!
//! Spoilt is only what was read and differs, or is missing from a store that holds the service's directory. A store that
//! cannot be read is an error: it says nothing about the backup.

use skep_runner::error::{Error, Result};
use skep_runner::output::Output;
use skep_runner::store::sha256_of;
use skep_runner::task::{Place, Verdict};

use crate::sealed::Found;
use crate::shelf::{Shelf, Site};
use crate::ship::read_back;

/// Reads a backup in full and says how it was found.
///
/// # Errors
/// When the store cannot be read, is another one, or the backup is of a newer Skep.
pub fn check(
    from: &Place,
    id: &str,
    dir: &str,
    manifest_sha256: &str,
    site: &Site,
    out: &Output,
) -> Result<Verdict> {
    let spoilt = |why: String| Ok(Verdict::Spoilt { why });
    let mut shelf = Shelf::open(from, site)?;
    let Some(bytes) = shelf.manifest(dir)? else {
        let above = dir.rsplit_once('/').map_or("", |(above, _)| above);
        if !shelf.holds(above)? {
            return Err(Error::Barred(format!(
                "the store holds no {above}: it is another store, or is not there"
            )));
        }
        return spoilt(format!("backup {id} is not in the store at {dir}"));
    };
    if sha256_of(&bytes) != manifest_sha256 {
        return spoilt(format!("the manifest of backup {id} is not the registered one"));
    }
    let files = Found::read(&bytes, id)?.files();
    for file in &files {
        match read_back(&mut shelf, dir, file, out) {
            Ok(()) => {}
            Err(Error::Refused(why)) => return spoilt(why),
            Err(other) => return Err(other),
        }
    }
    Ok(Verdict::Whole { size: files.iter().map(|f| f.size).sum() })
}
