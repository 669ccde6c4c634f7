//! Whether a store is the one that it was: a mount that is lost leaves an empty directory of the local disk, and a wrong
//! bucket is as good as any, so that whatever is written there would be read back and found whole.

use std::io::ErrorKind;
use std::path::Path;

use super::Folder;
use crate::error::{Error, Result};
use crate::task::Anchors;

/// What people put into the root of a store that was emptied, or begun anew, on purpose.
pub const MARK: &str = "skep-store";

// === impl Anchors ===

impl Anchors {
    /// Refuses a store that has neither any of the backups nor the mark. `is_there` is asked for the directory of a backup,
    /// and for the mark with none.
    ///
    /// The fault is transient: what was registered when the ticket was written may have been removed since, and the ticket of
    /// the next attempt names what is registered then.
    pub fn hold(&self, mut is_there: impl FnMut(Option<&str>) -> Result<bool>) -> Result<()> {
        for dir in &self.dirs {
            if is_there(Some(dir))? {
                return Ok(());
            }
        }
        let Some(newest) = self.dirs.first() else { return Ok(()) };
        if is_there(None)? {
            return Ok(());
        }
        let others = if self.dirs.len() > 1 { ", nor any other that is registered there" } else { "" };
        Err(Error::Unready(format!(
            "the store `{}` does not hold the backup {newest}{others}: its mount is lost, or this is another place. Bring the \
             mount back; only where it was emptied, or begun anew, on purpose, put a file named `{MARK}` into its topmost \
             directory",
            self.store
        )))
    }
}

/// See [`Anchors::hold`], of a mounted store.
pub fn is_the_one(root: &Path, anchors: &Anchors) -> Result<()> {
    anchors.hold(|dir| match dir {
        Some(dir) => match Folder::open(root, dir) {
            Ok(Some(folder)) => folder.is_sealed(),
            Ok(None) => Ok(false),
            // Of another service, whose jobs are another user: but it is there.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(true),
            Err(error) => Err(error),
        },
        None => Ok(Folder::root(root)?.read(MARK)?.is_some()),
    })
}
