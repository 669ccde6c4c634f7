//! What lies in a store, of whatever engine.

use serde::{Deserialize, Serialize};

use super::{PgBase, Stored};
use crate::manifest::Artefact;

/// See [`super::Task::StoreVerify`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreVerify {
    /// The backup, with the checksum that its manifest must have.
    pub stored: Stored,
    /// Leave the engine's own reading out. Every byte is read and hashed all the same.
    pub quick: bool,
}

/// What was found by reading a backup in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every file is what the manifest says, and the manifest is the one asked about.
    Whole {
        /// Bytes of all artefacts.
        size: u64,
    },
    /// Something of it is missing, or is not what it was.
    Spoilt {
        /// What, for people.
        why: String,
    },
}

/// See [`super::Task::StoreScan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreScan {
    /// Full name of the service, as the store's directories have it: `v1/<stack>/<service>/<id>`.
    pub service: String,
    /// Only directories that sort after this one: the last of the page before.
    pub after: Option<String>,
    /// Length of a page, at least 1.
    pub most: u32,
}

/// One page of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// The directories of the service, in order.
    pub found: Vec<StoredFound>,
    /// Whether there are more.
    pub more: bool,
    /// Other services of which the store has directories; at most 64.
    pub others: Vec<String>,
}

/// A directory in which a backup should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFound {
    /// Its path in the store.
    pub dir: String,
    /// What its manifest says, or why it holds no backup that can be taken in. Files were not read yet.
    pub what: Result<ManifestHead, String>,
}

/// The part of a manifest that a catalogue needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestHead {
    /// Backup id.
    pub id: String,
    /// SHA-256 of the manifest as it was found.
    pub manifest_sha256: String,
    /// Full name of the service that was backed up.
    pub service: String,
    /// Engine name as in `skep.data`.
    pub engine: String,
    /// Start of the dump, RFC 3339 UTC.
    pub started: String,
    /// Name of the first artefact.
    pub file: String,
    /// Bytes of all files of it in the store, but the manifest.
    pub size: u64,
    /// What is inside, where its files are encoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<InnerHead>,
    /// PostgreSQL: the base backup besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PgBase>,
}

/// What the manifest of encoded files says of the one inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerHead {
    /// SHA-256 of the manifest inside.
    pub manifest_sha256: String,
    /// Whether an age identity is needed to read it.
    pub encrypted: bool,
}

/// See [`super::Task::LayoutScan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutScan {
    /// Directory with `MANIFEST.txt`, relative to [`crate::STORE_PATH`].
    pub dir: String,
}

/// A directory of backups that Skep did not make, every file of which is what its `MANIFEST.txt` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutScanned {
    /// Dumps of PostgreSQL that can be restored; at most 20.
    pub dumps: Vec<FoundDump>,
    /// Files of engines whose data is a directory; at most 20.
    #[serde(default)]
    pub files: Vec<FoundFile>,
    /// Files that this version cannot restore, each with the reason; at most 50.
    pub others: Vec<OtherFile>,
    /// How many files that cannot be restored there are.
    pub left: u32,
}

/// A dump in PostgreSQL's custom format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDump {
    /// The file as `MANIFEST.txt` names it, with size and checksum.
    pub artefact: Artefact,
    /// What its first bytes tell.
    pub head: ArchiveHead,
}

/// A file that an engine with a data directory loads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFile {
    /// The file as `MANIFEST.txt` names it, with size and checksum.
    pub artefact: Artefact,
    /// What it is.
    pub form: FileForm,
    /// When it was last written to, RFC 3339.
    pub made: String,
}

/// What such a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileForm {
    /// An RDB of a Redis.
    Rdb,
    /// An archive of a volume.
    Tar,
    /// The same, packed by gzip.
    TarGz,
}

/// How a file is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packed {
    /// Not at all.
    #[default]
    Plain,
    /// By gzip; the copy is what is inside.
    Gzip,
}

/// What the head of a dump tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveHead {
    /// Name of the database.
    pub database: String,
    /// When it was made, RFC 3339. The dump has the clock of where it was made, without its zone: read as UTC.
    pub made: String,
    /// Version of the server as `server_version_num`.
    pub server_version: String,
    /// Version of `pg_dump`.
    pub tool_version: String,
}

/// A file that is not restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherFile {
    /// Its path in the directory.
    pub file: String,
    /// Why.
    pub why: String,
}

/// See [`super::Task::LayoutCopy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutCopy {
    /// Directory with `MANIFEST.txt`.
    pub from: String,
    /// The file there; refused unless size and checksum are these.
    pub artefact: Artefact,
    /// Directory of the backup that it becomes, made where absent; refused where it holds a finished one.
    pub into: String,
    /// Name of the copy.
    pub name: String,
    /// How the file is packed.
    #[serde(default)]
    pub packed: Packed,
}
