//! Hands the files of the log to a scratch server, one when it asks for it and one ahead.
//!
//! The last segment may still be received: what is handed out of it is what was there at first, also when the server
//! asks again.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use super::archive::{Archive, Stretch};
use super::scratch::Scratch;
use crate::error::{Error, Result};

/// Files for one recovery.
pub(super) struct Supply<'a> {
    scratch: &'a Scratch<'a>,
    archive: &'a Archive,
    names: Vec<String>,
    last: String,
    /// How many were handed out.
    pub(super) handed: u64,
}

// === impl Supply ===

impl<'a> Supply<'a> {
    /// Offers what is in the archive: of segments those of the stretch only, so that no gap is replayed over.
    pub(super) fn new(
        scratch: &'a Scratch<'a>,
        archive: &'a Archive,
        stretch: &Stretch,
    ) -> Result<Supply<'a>> {
        let mut names = archive.names();
        names.retain(|name| {
            *name < stretch.next || name.ends_with(".history") || stretch.segments.contains(name)
        });
        let last = stretch.segments.last().cloned().unwrap_or_default();
        let supply = Supply { scratch, archive, names, last, handed: 0 };
        supply.scratch.write("names", &format!("{}\n", supply.names.join("\n")))?;
        if !supply.last.is_empty() {
            supply.copy(supply.open(&supply.last)?, &scratch.path("last"))?;
        }
        Ok(supply)
    }

    /// Does what is asked for now.
    pub(super) fn serve(&mut self) -> Result<()> {
        let wanted =
            fs::read_dir(self.scratch.path("want")).map_err(Error::io("cannot see what is wanted"))?;
        for entry in wanted {
            let entry = entry.map_err(Error::io("cannot see what is wanted"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(at) = self.names.iter().position(|known| *known == name) else {
                return Err(Error::refused(format!("the server asked for `{name}`, which is not there")));
            };
            self.hand(&name)?;
            fs::remove_file(entry.path()).map_err(Error::io("cannot answer the server"))?;
            if let Some(next) = self.names.get(at + 1).cloned() {
                self.hand(&next)?;
            }
        }
        Ok(())
    }

    fn hand(&mut self, name: &str) -> Result<()> {
        let have = self.scratch.path("have").join(name);
        if have.exists() {
            return Ok(());
        }
        let from = if name == self.last {
            File::open(self.scratch.path("last")).map_err(Error::io(format!("cannot read {name}")))?
        } else {
            self.open(name)?
        };
        let part = self.scratch.path("part");
        self.copy(from, &part)?;
        self.scratch.give(&part)?;
        fs::rename(&part, &have).map_err(Error::io(format!("cannot hand {name} out")))?;
        self.handed += 1;
        Ok(())
    }

    fn open(&self, name: &str) -> Result<File> {
        let gone = || Error::refused(format!("{name} vanished from the store while it was needed"));
        self.archive.read(name)?.ok_or_else(gone)
    }

    fn copy(&self, mut from: File, to: &PathBuf) -> Result<()> {
        let wrong = |error| Error::io(format!("cannot copy a part of the log to {}", to.display()))(error);
        let mut file = File::create(to).map_err(wrong)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = from.read(&mut buffer).map_err(wrong)?;
            if read == 0 {
                return Ok(());
            }
            file.write_all(&buffer[..read]).map_err(wrong)?;
        }
    }
}
