//! The backup store: directories of files, and a manifest as each one's commit point.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use skep_runner::manifest::{Artefact, MANIFEST, Manifest};
use skep_runner::task::{
    ArchiveHead, FileForm, FoundDump, FoundFile, LayoutScanned, ManifestHead, OtherFile, Scanned, StoreScan,
    Stored, StoredFound,
};

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

    /// Cuts a file short, to nothing.
    pub fn cut(&mut self, dir: &str, file: &str) {
        if let Some(bytes) = self.dirs.get_mut(dir).and_then(|dir| dir.get_mut(file)) {
            bytes.clear();
        }
    }

    /// Leaves a backup as a dump that went wrong does: its checksums are right, and nobody can read what it holds.
    pub fn misdump(&mut self, dir: &str) {
        let bytes = self.file(dir, MANIFEST).expect("the test names a backup");
        let mut manifest: Manifest = serde_json::from_slice(bytes).expect("it is a manifest");
        let wrong = b"none of it".to_vec();
        let artefact = &mut manifest.artefacts[0];
        (artefact.size, artefact.sha256) = (wrong.len() as u64, sha256(&wrong));
        let file = artefact.file.clone();
        self.write(dir, &file, wrong);
        self.write(dir, MANIFEST, serde_json::to_vec(&manifest).expect("a manifest is JSON"));
    }

    /// Empties the directory of an unfinished backup.
    pub(super) fn empty(&mut self, dir: &str) -> Result<(), String> {
        if self.is_sealed(dir) {
            return Err(format!("{dir} holds a finished backup"));
        }
        self.dirs.insert(dir.to_owned(), BTreeMap::new());
        Ok(())
    }

    /// Puts a file there.
    pub fn write(&mut self, dir: &str, file: &str, bytes: Vec<u8>) {
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

    /// Lists one page of the directories of a service.
    pub(super) fn scan(&self, task: &StoreScan) -> Scanned {
        let service = |dir: &str| dir.split('/').nth(2).map(str::to_owned);
        let is_after = |dir: &str| task.after.as_ref().is_none_or(|after| dir > after.as_str());
        let of_it = |dir: &&String| service(dir).as_ref() == Some(&task.service) && is_after(dir);
        let dirs: Vec<&String> = self.dirs.keys().filter(of_it).collect();
        let most = usize::try_from(task.most).expect("a small page");
        let found =
            dirs.iter().take(most).map(|dir| StoredFound { dir: (*dir).clone(), what: self.head(dir) });
        let others = self.dirs.keys().filter_map(|d| service(d)).filter(|s| *s != task.service);
        Scanned {
            found: found.collect(),
            more: dirs.len() > most,
            others: others.collect::<BTreeSet<_>>().into_iter().collect(),
        }
    }

    fn head(&self, dir: &str) -> Result<ManifestHead, String> {
        let bytes = self.file(dir, MANIFEST).ok_or("it has no manifest: a backup that was never finished")?;
        skep_runner::store::head(dir.rsplit('/').next().unwrap_or(dir), bytes)
    }

    /// A directory with `MANIFEST.txt`: dumps are the files of `postgres/`.
    pub(super) fn layout(&self, dir: &str) -> Result<LayoutScanned, String> {
        let list = self.file(dir, "MANIFEST.txt").ok_or_else(|| format!("there is no {dir}/MANIFEST.txt"))?;
        let mut scanned = LayoutScanned::default();
        for line in String::from_utf8_lossy(list).lines() {
            let parts: Vec<&str> = line.split('|').collect();
            let [file, size, wanted] = parts.as_slice() else { return Err(format!("`{line}` is no line")) };
            let bytes = self.file(dir, file).ok_or_else(|| format!("{file} is missing"))?;
            if sha256(bytes) != *wanted || size.parse() != Ok(bytes.len()) {
                return Err(format!("{file} does not have the checksum of its manifest"));
            }
            let artefact = Artefact {
                file: (*file).to_owned(),
                size: u64::try_from(bytes.len()).expect("a small file"),
                sha256: (*wanted).to_owned(),
            };
            if file.starts_with("postgres/") {
                let head = ArchiveHead {
                    database: "shop".to_owned(),
                    made: "2026-01-01T02:00:00Z".to_owned(),
                    server_version: "150004".to_owned(),
                    tool_version: "15.4".to_owned(),
                };
                scanned.dumps.push(FoundDump { artefact, head });
            } else if let Some(form) = form(file) {
                scanned.files.push(FoundFile { artefact, form, made: "2026-01-01T02:00:00Z".to_owned() });
            } else {
                scanned.left += 1;
                scanned.others.push(OtherFile { file: artefact.file, why: "not restored".to_owned() });
            }
        }
        Ok(scanned)
    }

    /// Puts a directory with `MANIFEST.txt` into the store, as people do who dump by hand.
    pub fn by_hand(&mut self, dir: &str, files: &[(&str, Vec<u8>)]) {
        let line = |(file, bytes): &(&str, Vec<u8>)| format!("{file}|{}|{}\n", bytes.len(), sha256(bytes));
        let list: String = files.iter().map(line).collect();
        self.write(dir, "MANIFEST.txt", list.into_bytes());
        for (file, bytes) in files {
            self.write(dir, file, bytes.clone());
        }
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

/// What a file that people made is, by its name: the model does not pack.
fn form(file: &str) -> Option<FileForm> {
    let ends = [(".rdb", FileForm::Rdb), (".tar", FileForm::Tar), (".tar.gz", FileForm::TarGz)];
    ends.into_iter().find(|(end, _)| file.ends_with(end)).map(|(_, form)| form)
}

/// Lower-case hexadecimal SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
