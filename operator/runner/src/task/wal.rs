//! PostgreSQL's write-ahead log: received without end, and recovered up to a moment.
//!
//! ```text
//! <store>/v1/<stack>/<service>/
//!   <backup>/                      <database>.dump, base.tar.gz, manifest.json
//!   wal/<system>/<era>/            segments and timelines as pg_receivewal writes them, received.json
//! ```
//! `<system>` is the identifier of the database cluster: what is logged before and after a cluster was made anew never
//! mixes. Each start of a receiver begins an *era*, a directory of its own: no two receivers ever write the same file.

use serde::{Deserialize, Serialize};

use super::{Connect, Stored};

/// See [`super::Task::PgReceive`]. It ends when it is stopped, or when it cannot go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgReceive {
    /// The server.
    pub connect: Connect,
    /// Directory `…/wal` relative to [`crate::STORE_PATH`]; made where absent.
    pub dir: String,
    /// Name of the physical replication slot, `[a-z0-9_]`; made where absent.
    pub slot: String,
}

/// See [`super::Task::PgTakeBase`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgTakeBase {
    /// The server.
    pub connect: Connect,
    /// Directory of an unfinished backup, relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// Directory `…/wal` relative to [`crate::STORE_PATH`], where the log is received.
    pub wal: String,
}

/// See [`super::Task::PgDropSlot`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgDropSlot {
    /// The server.
    pub connect: Connect,
    /// Name of the slot; absent is fine.
    pub slot: String,
}

/// See [`super::Task::PgRecover`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgRecover {
    /// The live server: it is asked for its superuser and settings, and otherwise left alone.
    pub connect: Connect,
    /// The backup whose base is recovered; refused unless its checksums are the registered ones.
    pub stored: Stored,
    /// The database to dump from what was recovered.
    pub database: String,
    /// The moment, RFC 3339 UTC: what was committed until then is in, and nothing that was committed later.
    pub until: String,
    /// Directory of the dump, relative to [`crate::STORE_PATH`]; made where absent.
    pub dir: String,
}

/// See [`super::Task::WalPrune`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WalPrune {
    /// Directory `…/wal` relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// The base backups that stay, at least one. What was logged before the oldest of them began is removed; of another
    /// cluster, what was received before any of them was taken.
    pub keep: Vec<PgBase>,
}

/// A base backup, beside the dump of the same backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgBase {
    /// Directory `…/wal` relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// Identifier of the database cluster.
    pub system: String,
    /// Size of a segment in bytes.
    pub segment_size: u64,
    /// The log is needed from here, as in `0/3000028`.
    pub start: String,
    /// The base is consistent from here on.
    pub end: String,
    /// The server's time of that, RFC 3339 UTC: moments from then on can be recovered.
    pub ended: String,
    /// Bytes of all databases.
    pub size: u64,
}
