//! What jobs in Skep's own image do: backups between the staging volume and the stores that no database's tool can write.
//!
//! ```text
//! dump, seal ─▶ staging volume ── Ship ──▶ store (mount or S3): encoded files, sealed manifest last ── Copy ──▶ store
//!                     ▲──────────────────── Fetch ─────────────────────┘
//! ```

use serde::{Deserialize, Serialize};

use super::StoreScan;

/// The work of one job in Skep's own image; no runner does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreTask {
    /// Make a directory of the staging volume that every user may write to: the database's jobs may not be root.
    Stage {
        /// Directory relative to the staging volume.
        dir: String,
    },
    /// Encode a staged backup into a store, read it back, write the sealed manifest, remove the staged one.
    Ship(Ship),
    /// Bring a stored backup to the staging volume as the database's tools wrote it.
    Fetch(Fetch),
    /// Copy a stored backup, byte for byte, to another store.
    Copy {
        /// From where.
        from: Place,
        /// To where.
        to: Place,
        /// Directory in both.
        dir: String,
        /// Registered SHA-256 of the manifest.
        manifest_sha256: String,
    },
    /// Read every file of a stored backup and compare its checksum, without decoding anything; changes nothing.
    Check {
        /// Backup id.
        id: String,
        /// Directory in the store.
        dir: String,
        /// Registered SHA-256 of the manifest.
        manifest_sha256: String,
        /// From where.
        from: Place,
    },
    /// List what a bucket has of a service, as [`super::Task::StoreScan`] does of a mounted store.
    Scan {
        /// The bucket.
        from: S3Place,
        /// What of it.
        scan: StoreScan,
    },
    /// Write reports of operations into a store, and remove those of the oldest.
    Reports {
        /// To where.
        to: Place,
        /// The files.
        files: Vec<TextFile>,
        /// So many reports stay.
        most: usize,
    },
    /// Remove a backup from a store, its manifest first, and end its unfinished uploads.
    Remove {
        /// From where.
        from: Place,
        /// Directory in the store.
        dir: String,
    },
    /// Remove directories of the staging volume.
    Clear {
        /// Relative to the staging volume; absent ones are fine.
        dirs: Vec<String>,
    },
}

/// A file and what stands in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFile {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// See [`StoreTask::Ship`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ship {
    /// Directory in the staging volume and in the store.
    pub dir: String,
    /// SHA-256 of the manifest that the staged backup was sealed with.
    pub manifest_sha256: String,
    /// The age recipients; none for a backup that is not encrypted.
    pub recipients: Vec<String>,
    /// To where.
    pub to: Place,
}

/// See [`StoreTask::Fetch`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fetch {
    /// Backup id.
    pub id: String,
    /// Directory in the store and in the staging volume.
    pub dir: String,
    /// Registered SHA-256 of the manifest in the store.
    pub manifest_sha256: String,
    /// From where.
    pub from: Place,
    /// File with the age identities; none where the backup is not encrypted.
    pub identity_file: Option<String>,
}

/// A store as a job reaches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A mounted directory.
    Mount {
        /// Its path in the job.
        path: String,
    },
    /// A bucket.
    S3(S3Place),
}

/// A bucket of an S3-compatible server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct S3Place {
    /// URL of the server, with `http://` or `https://`.
    pub endpoint: String,
    /// Region, as requests are signed for.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// What all keys begin with, without a slash at the end; may be empty.
    pub prefix: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// File with the access key id in its first line and the secret access key in its second.
    pub credentials_file: String,
}

/// What [`StoreTask::Ship`] wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shipped {
    /// SHA-256 of the sealed manifest, to be registered.
    pub manifest_sha256: String,
    /// Bytes of all files in the store, but the manifest.
    pub size: u64,
    /// Most memory that the job had, in bytes.
    pub peak_rss: u64,
}

/// What [`StoreTask::Copy`] wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Bytes of all files, but the manifest.
    pub size: u64,
}
