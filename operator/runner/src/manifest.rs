//! `manifest.json`: the last file written into a backup, and so its commit point. No manifest, no backup.

use serde::{Deserialize, Serialize};

use crate::task::{Contents, DatabaseProperties, HeldRoles, PgBase};

/// Name of the manifest inside a backup's directory.
pub const MANIFEST: &str = "manifest.json";
/// The `format` of a manifest of encoded files, which holds the manifest of what is inside.
pub const SEALED: &str = "skep-sealed";
/// Version of that format.
pub const SEALED_SCHEMA: u32 = 1;

/// Describes one backup completely enough to restore it by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version, [`crate::SCHEMA`].
    pub schema: u32,
    /// Backup id.
    pub id: String,
    /// Full name of the Swarm service.
    pub service: String,
    /// Engine name as in `skep.data`.
    pub engine: String,
    /// Image reference of the service when the backup was taken, with its digest where known.
    pub image: String,
    /// The service's spec with secret-looking environment values redacted.
    pub spec: serde_json::Value,
    /// Version of the server, as it reports itself (`server_version_num` for PostgreSQL).
    pub server_version: String,
    /// Version line of the tool that made the artefacts.
    pub tool_version: String,
    /// Start of the dump, RFC 3339 UTC. The data is that of this moment.
    pub started: String,
    /// End of the dump, RFC 3339 UTC.
    pub ended: String,
    /// The files, in the order in which they restore.
    pub artefacts: Vec<Artefact>,
    /// What `pg_dump` leaves out of a single database.
    pub database: Option<DatabaseProperties>,
    /// What a backup of an engine with a data directory holds, and what not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// The base backup beside a dump of PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PgBase>,
    /// The roles of the cluster beside a dump of PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<HeldRoles>,
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artefact {
    /// File name inside the backup's directory.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// Lower-case hexadecimal SHA-256 of the file.
    pub sha256: String,
}
