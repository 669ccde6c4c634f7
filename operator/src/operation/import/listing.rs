//! What a store holds, held against the catalogue: what is new, what is known, and what holds no backup.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use skep_runner::Artefact;
use skep_runner::task::{ArchiveHead, ManifestHead, Packed, PgBase, Scanned, StoredFound};

use crate::operation::catalogue::{Backup, Purpose};
use crate::operation::reading::{self, Flaw};
use crate::operation::record::OpId;
use crate::operation::saga::{Cx, Fault, Progress};
use crate::operation::stores::Inner;

/// So many are taken in by one operation: its journal is one object of the Swarm.
const MOST: usize = 100;
/// Length of the id of an operation, and of the backup that it makes.
const ID: usize = 21;
/// Of those that cannot be taken in, so many are listed.
const MOST_FLAWS: usize = 20;

/// What the scan came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// Tells its jobs apart.
    pub turn: u32,
    /// The last directory that was looked at.
    pub after: Option<String>,
    /// What is to be taken in.
    pub new: Vec<Listed>,
    /// What holds no backup that can be; the first of them.
    pub flawed: Vec<Flaw>,
    /// How many there are of those.
    pub flaws: usize,
    /// How many are registered already, as they are.
    pub known: u32,
    /// Whether the store holds more than one operation takes.
    pub more: bool,
    /// Other services of which the store has backups.
    pub others: Vec<String>,
}

/// A backup that the store holds, as its manifest tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Backup id.
    pub id: String,
    /// Directory in the store.
    pub dir: String,
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// Engine name.
    pub engine: String,
    /// Database, where the engine has one.
    pub database: String,
    /// The data is that of this moment.
    pub taken: Timestamp,
    /// Bytes of all artefacts.
    pub size: u64,
    /// Why it was made, as its id tells: a safety backup holds what may have been wrong, and is never chosen by itself.
    pub purpose: Purpose,
    /// What is inside, where its files are encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<Inner>,
    /// PostgreSQL: the base backup besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PgBase>,
    /// Where it does not lie in Skep's own layout: the file that is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByHand>,
}

/// A dump that people made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ByHand {
    /// The file, as `MANIFEST.txt` has it.
    pub artefact: Artefact,
    /// What its head tells; of files of other engines, when they were made.
    pub head: ArchiveHead,
    /// What it becomes in the backup.
    #[serde(default)]
    pub copied: CopiedAs,
}

/// What a file that people made becomes in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedAs {
    /// Name of the copy.
    pub name: String,
    /// How the file is packed.
    pub packed: Packed,
}

impl Default for CopiedAs {
    /// A dump of PostgreSQL.
    fn default() -> CopiedAs {
        CopiedAs { name: "imported.dump".to_owned(), packed: Packed::Plain }
    }
}

// === impl Listing ===

impl Listing {
    /// Takes a page of the store; whether the next one is wanted. An error where the catalogue knows one otherwise.
    pub(super) fn page(
        &mut self,
        scanned: Scanned,
        from: &str,
        registered: &[Backup],
    ) -> Result<bool, String> {
        let Scanned { found, more, others } = scanned;
        self.others = others;
        self.after = found.last().map(|f| f.dir.clone()).or(self.after.take());
        let mut full = false;
        for StoredFound { dir, what } in found {
            if self.new.len() >= MOST {
                full = true;
                break;
            }
            match what.and_then(|head| listed(dir.clone(), head, from)) {
                Err(why) => {
                    self.flaws += 1;
                    if self.flawed.len() < MOST_FLAWS {
                        self.flawed.push(Flaw { id: dir, why });
                    }
                }
                Ok(listed) => match known(&listed, registered)? {
                    true => self.known += 1,
                    false => self.new.push(listed),
                },
            }
        }
        let twice = |l: &Listed| self.new.iter().filter(|o| o.id == l.id).count() > 1;
        if let Some(listed) = self.new.iter().find(|l| twice(l)) {
            return Err(format!("the store holds backup {} twice, once at {}", listed.id, listed.dir));
        }
        self.more = full;
        Ok(more && !full)
    }

    pub(super) fn end(self, cx: &mut Cx<'_>, from: &str, store: &str) -> Result<Progress, Fault> {
        if self.new.is_empty() && self.known == 0 && self.flawed.is_empty() {
            let hint = match self.others.as_slice() {
                [] => String::new(),
                others => format!(
                    "; it has backups of {}: `--from` takes those of a service that had another name",
                    others.join(", ")
                ),
            };
            return Err(Fault::failed(format!("store `{store}` holds no backup of {from}{hint}")));
        }
        if self.more {
            cx.remark(format!("the store holds more than {MOST}: import again to take in the rest"));
        }
        if !self.flawed.is_empty() {
            let (n, named) = (self.flaws, reading::named(&self.flawed));
            cx.remark(format!("{n} left alone: {named}"));
        }
        let out = serde_json::to_value(self);
        out.map(Progress::Done).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })
    }
}

/// Whether the catalogue has a backup as the store has it; an error where it has another one under that id.
fn known(listed: &Listed, registered: &[Backup]) -> Result<bool, String> {
    let Some(known) = registered.iter().find(|b| b.entry.id == listed.id) else { return Ok(false) };
    let entry = &known.entry;
    match entry.manifest_sha256 == listed.manifest_sha256 {
        true => Ok(true),
        false => Err(format!(
            "nothing was imported: backup {} is registered with another manifest (for {}, store `{}`, {}) than the one \
             at {}; one of the two is not what it was",
            listed.id, entry.service, entry.store, entry.dir, listed.dir
        )),
    }
}

/// A manifest's claims, as far as they make sense.
fn listed(dir: String, head: ManifestHead, from: &str) -> Result<Listed, String> {
    let ManifestHead { id, manifest_sha256, service, engine, started, file, size, inner, base } = head;
    // A safety backup has the id of its restore and an `s` behind it, and what a restore recovered an `r`; any other id may
    // end in such a letter too.
    let (of, purpose) = match id.strip_suffix(['s', 'r']) {
        Some(of) if of.len() == ID => (of, Purpose::Safety),
        Some(_) | None => (id.as_str(), Purpose::Regular),
    };
    // Names of objects of the Swarm derive from it.
    if OpId::parse(of).is_none() {
        return Err(format!("`{id}` is not the id of a backup"));
    }
    if service != from {
        return Err(format!("its manifest says that it is a backup of {service}"));
    }
    let taken = started.parse().map_err(|e| format!("its time `{started}`: {e}"))?;
    let database = file.strip_suffix(".dump").filter(|_| engine == "postgres").map(decoded);
    let database = database.unwrap_or_default();
    let inner = inner.map(|i| Inner { manifest_sha256: i.manifest_sha256, encrypted: i.encrypted });
    Ok(Listed {
        id,
        dir,
        manifest_sha256,
        engine,
        database,
        taken,
        size,
        purpose,
        inner,
        base,
        by_hand: None,
    })
}

/// A database's name from that of its file, in which what is not plain stands as `%xx`.
fn decoded(file: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = file.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|c| std::str::from_utf8(c).ok());
        match code.and_then(|c| u8::from_str_radix(c, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &after[2..]),
            None => (bytes.push(*first), rest = after),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
