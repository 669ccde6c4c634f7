//! What the entries of an archive must be to one another.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::tar::{Entry, Kind};

/// The symbolic links seen so far: nothing may be put behind one.
#[derive(Default)]
pub(super) struct Links(BTreeSet<Vec<u8>>);

// === impl Links ===

impl Links {
    /// Refuses an entry that lies behind a symbolic link of the same archive, or is a hard link to what does.
    pub(super) fn check(&mut self, entry: &Entry) -> Result<()> {
        self.stays_inside(&entry.path, entry)?;
        match &entry.kind {
            Kind::Hardlink(target) => self.stays_inside(target, entry)?,
            Kind::Symlink(_) => drop(self.0.insert(entry.path.clone())),
            Kind::Directory | Kind::File { .. } | Kind::Fifo => {}
        }
        Ok(())
    }

    fn stays_inside(&self, path: &[u8], entry: &Entry) -> Result<()> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        if !self.0.is_empty() && ends.map(|end| &path[..end]).any(|above| self.0.contains(above)) {
            return Err(Error::refused(format!(
                "the archive is refused: `{}` leads through a symbolic link",
                entry.label()
            )));
        }
        Ok(())
    }
}

/// The directories seen so far, for who only reads an archive: on a file system they tell themselves.
#[derive(Default)]
pub(super) struct Directories(BTreeSet<Vec<u8>>);

// === impl Directories ===

impl Directories {
    /// Refuses an entry that lies in a directory which did not come before it.
    pub(super) fn check(&mut self, entry: &Entry) -> Result<()> {
        let above = entry.path.iter().rposition(|byte| *byte == b'/').map(|at| &entry.path[..at]);
        if above.is_some_and(|above| !self.0.contains(above)) {
            return Err(Error::refused(format!(
                "the archive is refused: `{}` lies in a directory that the archive does not have",
                entry.label()
            )));
        }
        if entry.kind == Kind::Directory {
            self.0.insert(entry.path.clone());
        }
        Ok(())
    }
}
