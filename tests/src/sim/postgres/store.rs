//! The backup store: directories of files, and a manifest as each one's commit point.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use skep_runner::manifest::{MANIFEST, Manifest};
use skep_runner::task::Stored;

/// Directories by path, files by name.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// Every file.
    pub dirs: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

// === impl Store ===

impl Store {
    /// Whether a directory holds a manifest.
    pub fn is_sealed(&self, dir: &str) -> bool {
        self.file(dir, MANIFEST).is_some()
    }

    /// A file's bytes.
    pub fn file(&self, dir: &str, file: &str) -> Option<&Vec<u8>> {
        self.dirs.get(dir)?.get(file)
    }

    /// Directories that hold a finished backup.
    pub fn backups(&self) -> Vec<String> {
        self.dirs.keys().filter(|d| self.is_sealed(d)).cloned().collect()
    }

    /// Flips a bit of a file, as a bad disk does.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn corrupt(&mut self, dir: &str, file: &str) {
        let bytes = self.dirs.get_mut(dir).and_then(|d| d.get_mut(file)).expect("the test names a file");
        bytes[0] ^= 1;
    }

    /// Empties the directory of an unfinished backup.
    pub(super) fn empty(&mut self, dir: &str) -> Result<(), String> {
        if self.is_sealed(dir) {
            return Err(format!("{dir} holds a finished backup"));
        }
        self.dirs.insert(dir.to_owned(), BTreeMap::new());
        Ok(())
    }

    pub(super) fn write(&mut self, dir: &str, file: &str, bytes: Vec<u8>) {
        self.dirs.entry(dir.to_owned()).or_default().insert(file.to_owned(), bytes);
    }

    /// The manifest of a stored backup, if it is the registered one.
    pub(super) fn open(&self, stored: &Stored) -> Result<Manifest, String> {
        let Stored { id, dir, manifest_sha256 } = stored;
        let bytes =
            self.file(dir, MANIFEST).ok_or_else(|| format!("backup {id} has no manifest at {dir}"))?;
        let found = sha256(bytes);
        if found != *manifest_sha256 {
            return Err(format!("the manifest of backup {id} is not the registered one"));
        }
        serde_json::from_slice(bytes).map_err(|e| format!("the manifest of backup {id} cannot be read: {e}"))
    }

    /// Reads all artefacts in full; the content of the first.
    pub(super) fn whole(&self, dir: &str, manifest: &Manifest) -> Result<&Vec<u8>, String> {
        let mut first = None;
        for artefact in &manifest.artefacts {
            let label = format!("{dir}/{}", artefact.file);
            let bytes = self.file(dir, &artefact.file).ok_or_else(|| format!("{label} is missing"))?;
            let size = u64::try_from(bytes.len()).expect("a small file");
            if size != artefact.size {
                let wanted = artefact.size;
                return Err(format!("{label} has {size} bytes, its manifest says {wanted}"));
            }
            if sha256(bytes) != artefact.sha256 {
                return Err(format!("{label} does not have the checksum of its manifest"));
            }
            first = first.or(Some(bytes));
        }
        first.ok_or_else(|| "a manifest without artefacts seals nothing".to_owned())
    }

    /// Removes a directory.
    pub(super) fn discard(&mut self, dir: &str, sealed: bool) -> Result<(), String> {
        if self.is_sealed(dir) && !sealed {
            return Err(format!("{dir} holds a finished backup"));
        }
        self.dirs.remove(dir);
        Ok(())
    }
}

/// Lower-case hexadecimal SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
