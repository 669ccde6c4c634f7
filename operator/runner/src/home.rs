//! A directory of the job's own, for what its tools have to find in files: cookies, passwords, expressions.
//!
//! Invariants: nobody else can read it; it is in memory where there is such a place, unless it may be large; it goes with
//! the job.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where it is made.
const PLACES: [&str; 2] = ["/dev/shm", "/tmp"];

/// The directory, removed when dropped.
pub(crate) struct Home(PathBuf);

// === impl Home ===

impl Home {
    /// Makes it.
    pub(crate) fn make() -> Result<Home> {
        Home::make_at(&PLACES)
    }

    /// As [`Home::make`], not in memory: for what may be large.
    pub(crate) fn make_on_disk() -> Result<Home> {
        Home::make_at(&PLACES[1..])
    }

    fn make_at(places: &[&str]) -> Result<Home> {
        let name = format!("skep-{}", std::process::id());
        let mut last = None;
        for place in places {
            let path = Path::new(place).join(&name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Home(path)),
                Err(error) => last = Some(error),
            }
        }
        let error = last.unwrap_or_else(|| std::io::Error::other("no such place"));
        Err(Error::io("cannot make a directory of the job's own")(error))
    }

    /// Writes a file that only the job can read.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.0.join(name);
        let cannot = || Error::io(format!("cannot write {name}"));
        // One that an earlier question left.
        let _absent = std::fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.map_err(cannot())?.write_all(bytes).map_err(cannot())?;
        Ok(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}
