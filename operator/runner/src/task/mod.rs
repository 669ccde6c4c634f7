//! The tasks of a job and their reports, a file a family.

mod checks;
mod command;
mod data;
mod postgres;
mod ship;
mod store;
mod wal;

use serde::{Deserialize, Serialize};

pub use self::checks::{
    CheckOutcome, CommandCheck, CommandChecks, Expect, NetCheck, NetChecks, Probe, REDIS_READING, SqlCheck,
    SqlChecks,
};
pub use self::command::{
    CommandDrill, CommandDump, CommandExamine, CommandLoad, CommandSeal, Means, Reading, ScratchServer,
    ShellCommand,
};
pub use self::data::{
    Contents, DataChecks, DataEngine, DirDump, DirDumped, DirExamine, DirInspect, DirInspection, DirLoad,
    DirLoaded, DirMove, DirMoved, DirRemove, DirSeal, Direction, MysqlSettings, Names, RedisFiles,
    ServerSettings, SideFound, SideState, VolumeRoot,
};
pub use self::postgres::{
    DatabaseProperties, HeldRoles, KeptDatabase, Named, PgCreateRoles, PgDrop, PgDropRoles, PgDump, PgDumped,
    PgFence, PgInPlace, PgInspect, PgInspection, PgRestore, PgSeal, PgSession, PgSwap,
};
pub use self::ship::{Copied, Fetch, Place, S3Place, Ship, Shipped, StoreTask, TextFile};
pub use self::store::{
    ArchiveHead, FileForm, FoundDump, FoundFile, InnerHead, LayoutCopy, LayoutScan, LayoutScanned,
    ManifestHead, OtherFile, Packed, Scanned, StoreScan, StoreVerify, StoredFound, Verdict,
};
pub use self::wal::{PgBase, PgDropSlot, PgReceive, PgRecover, PgTakeBase, WalPrune};
use crate::manifest::{Artefact, Manifest};

/// What one job is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket<T = Task> {
    /// Format version, [`crate::SCHEMA`].
    pub schema: u32,
    /// `skep-<operation>-<step>-<attempt>`: the `application_name` of every session of this job. Sessions
    /// whose name begins with [`Ticket::fence`] and is not this one belong to an older attempt and are ended first.
    pub session: String,
    /// `skep-<operation>-<step>-`: the common prefix of all attempts of this step.
    pub fence: String,
    /// By what the store to which the work writes is known again; none where nothing is registered there, and where nothing
    /// is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchors: Option<Anchors>,
    /// The work. A binary reads the tasks that it can do, and no others: the code that reads them all is large.
    pub task: T,
}

/// Registered backups of a store: one that holds none of them is another one, however well it takes what is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchors {
    /// Name of the store, for people.
    pub store: String,
    /// Their directories, the newest first.
    pub dirs: Vec<String>,
}

/// The work of one job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Nothing but prove that the runner starts here, and tell its version.
    Probe,
    /// Look at a PostgreSQL server and one of its databases; changes nothing.
    PgInspect(PgInspect),
    /// Dump one database into a directory of the store. Writes no manifest.
    PgDump(PgDump),
    /// Read a dump back in full (checksum, `pg_restore` to nowhere), then write the manifest.
    PgSeal(PgSeal),
    /// Check a stored backup against its registered checksum, in full; changes nothing.
    PgExamine(Stored),
    /// Build a new database beside the live one from a backup, with the live one's properties; analyze it.
    PgRestore(PgRestore),
    /// Run SQL checks in a database, named side or live; read-only transactions.
    SqlChecks(SqlChecks),
    /// End sessions and refuse or allow connections.
    PgFence(PgFence),
    /// Swap names in one transaction; only while names and OIDs are as expected.
    PgSwap(PgSwap),
    /// Drop databases by name *and* OID; absent ones are fine, others are refused.
    PgDrop(PgDrop),
    /// Make roles that a backup holds and the server lacks, all or none; none that exists is altered.
    PgCreateRoles(PgCreateRoles),
    /// Drop roles that a restore made.
    PgDropRoles(PgDropRoles),
    /// Rebuild the live database in place from a backup.
    PgInPlace(PgInPlace),
    /// Take a base backup of the whole server beside a dump. Writes no manifest.
    PgTakeBase(PgTakeBase),
    /// Receive the write-ahead log into the store until told to stop.
    PgReceive(PgReceive),
    /// Recover a scratch cluster up to a moment, and dump one of its databases into a directory of the store. Writes no
    /// manifest; leaves nothing but the dump.
    PgRecover(PgRecover),
    /// Remove a replication slot, whoever uses it.
    PgDropSlot(PgDropSlot),
    /// Remove what of the write-ahead log no base backup needs any more.
    WalPrune(WalPrune),
    /// Checks of an application over the network.
    NetChecks(NetChecks),
    /// Empty a Redis cache.
    RedisFlush(RedisFlush),
    /// Look at a directory of live data and its server; changes nothing.
    DirInspect(DirInspect),
    /// Dump what such an engine holds into a directory of the store. Writes no manifest.
    DirDump(DirDump),
    /// Read such a dump back in full (checksums, the engine's own reading), then write the manifest.
    DirSeal(DirSeal),
    /// Check such a stored backup against its registered checksum, in full; changes nothing.
    DirExamine(DirExamine),
    /// Build complete data, ready for the service, in a directory beside the live data, and verify it.
    DirLoad(DirLoad),
    /// Move the live data away and what was loaded in its place, or back; the service is stopped.
    DirMove(DirMove),
    /// Remove what restores left beside the live data.
    DirRemove(DirRemove),
    /// Run checks in a Redis or a MySQL.
    DataChecks(DataChecks),
    /// Dump what a command prints, or a server tells, into a directory of the store. Writes no manifest.
    CommandDump(CommandDump),
    /// Read such a dump back in full (checksum, and how such a dump is read), then write the manifest.
    CommandSeal(CommandSeal),
    /// Check such a stored backup against its registered checksum, in full; changes nothing.
    CommandExamine(CommandExamine),
    /// Load a backup into the running service, in place of the live data.
    CommandLoad(CommandLoad),
    /// Load a backup into a server of the job's own, which ends with the job, and compare; reaches nothing live.
    CommandDrill(CommandDrill),
    /// Run checks that are commands of a service.
    CommandChecks(CommandChecks),
    /// Remove an unfinished backup's directory (one without a manifest, unless `sealed`).
    Discard(Discard),
    /// Read a stored backup in full and say whether it is what was registered; changes nothing.
    StoreVerify(StoreVerify),
    /// List what the store holds of a service, a page at a time; changes nothing.
    StoreScan(StoreScan),
    /// Read every file of a directory with `MANIFEST.txt`, and say which of them can be restored; changes nothing.
    LayoutScan(LayoutScan),
    /// Copy a file from such a directory into that of a backup. Writes no manifest.
    LayoutCopy(LayoutCopy),
    /// What jobs in Skep's own image do; no runner does it.
    Store(StoreTask),
}

/// The static binaries, each small enough for a Swarm config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `skep-runner`.
    Databases,
    /// `skep-runner-dir`.
    Directories,
    /// `skep-runner-wal`.
    Log,
    /// `skep-runner-service`.
    Services,
}

/// How to reach a server, without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connect {
    /// Host name, resolved at each connect.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// User name.
    pub user: String,
    /// File that holds the password (trailing newline ignored); none for trust.
    pub password_file: Option<String>,
}

/// A registered backup in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Backup id.
    pub id: String,
    /// Directory relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// Registered SHA-256 of its manifest.
    pub manifest_sha256: String,
}

/// See [`Task::RedisFlush`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RedisFlush {
    /// The server; the user may be empty.
    pub connect: Connect,
}

/// See [`Task::Discard`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discard {
    /// Directory relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// Remove it although it has a manifest.
    pub sealed: bool,
}

/// What a job found or did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// Of [`Task::Probe`].
    Probe {
        /// Version of the runner.
        version: String,
    },
    /// Of [`Task::PgInspect`].
    PgInspect(Box<PgInspection>),
    /// Of [`Task::PgDump`] and [`Task::PgRecover`].
    PgDump(Box<PgDumped>),
    /// Of [`Task::PgTakeBase`].
    PgBase {
        /// The archive.
        artefact: Artefact,
        /// What belongs to it.
        base: PgBase,
    },
    /// Of [`Task::PgSeal`].
    PgSeal {
        /// SHA-256 of the manifest, to be registered.
        manifest_sha256: String,
        /// Bytes of all artefacts.
        size: u64,
    },
    /// Of [`Task::PgExamine`].
    PgExamine {
        /// The manifest found.
        manifest: Box<Manifest>,
    },
    /// Of [`Task::PgRestore`].
    PgRestore {
        /// The live database, where it exists.
        live: Option<Named>,
        /// The new one.
        side: Named,
        /// Its size in bytes.
        size: u64,
        /// Seconds that the restore took.
        seconds: f64,
    },
    /// Of [`Task::SqlChecks`], [`Task::NetChecks`], [`Task::DataChecks`] and [`Task::CommandChecks`]: the task succeeds also when checks fail.
    Checks {
        /// One entry a check.
        outcomes: Vec<CheckOutcome>,
    },
    /// Of [`Task::PgSwap`].
    PgSwap {
        /// Milliseconds between refusing connections and allowing them again.
        fenced_ms: u64,
    },
    /// Of [`Task::PgCreateRoles`].
    PgCreateRoles {
        /// Those that this attempt has made.
        created: Vec<String>,
        /// Memberships that the backup has and that were not granted, in sentences for people.
        left: Vec<String>,
    },
    /// Of [`Task::PgInPlace`].
    PgInPlace {
        /// The rebuilt database.
        live: Named,
    },
    /// Of [`Task::DirInspect`].
    DirInspect(Box<DirInspection>),
    /// Of [`Task::DirDump`] and [`Task::CommandDump`].
    DirDump(Box<DirDumped>),
    /// Of [`Task::DirSeal`] and [`Task::CommandSeal`].
    DirSeal {
        /// SHA-256 of the manifest, to be registered.
        manifest_sha256: String,
        /// Bytes of all artefacts.
        size: u64,
    },
    /// Of [`Task::DirExamine`] and [`Task::CommandExamine`].
    DirExamine {
        /// The manifest found.
        manifest: Box<Manifest>,
    },
    /// Of [`Task::DirLoad`].
    DirLoad(Box<DirLoaded>),
    /// Of [`Task::DirMove`].
    DirMove(DirMoved),
    /// Of [`Task::CommandLoad`].
    CommandLoad {
        /// What stayed although the backup does not have it, in sentences for people.
        left: Vec<String>,
    },
    /// Of [`Task::CommandDrill`].
    CommandDrill {
        /// What of the backup was not loaded, in sentences for people.
        left_out: Vec<String>,
        /// Seconds that loading took, without the start of the server.
        seconds: f64,
    },
    /// Of [`Task::StoreVerify`]: the task succeeds also when the backup is spoilt.
    StoreVerify(Verdict),
    /// Of [`Task::StoreScan`].
    StoreScan(Scanned),
    /// Of [`Task::LayoutScan`].
    LayoutScan(Box<LayoutScanned>),
    /// Of [`Task::LayoutCopy`].
    LayoutCopy {
        /// The copy.
        artefact: Artefact,
    },
    /// Of [`StoreTask::Ship`].
    Shipped(Shipped),
    /// Of [`StoreTask::Copy`].
    Copied(Copied),
    /// Of tasks with nothing to tell.
    Done,
}

// === impl Task ===

impl Task {
    /// The binary that does it; [`Task::Probe`] and [`Task::Discard`] any does, and [`Task::Store`] none of them.
    pub fn binary(&self) -> Binary {
        match self {
            Task::DirInspect(_)
            | Task::DirDump(_)
            | Task::DirSeal(_)
            | Task::DirExamine(_)
            | Task::DirLoad(_)
            | Task::DirMove(_)
            | Task::DirRemove(_)
            | Task::DataChecks(_) => Binary::Directories,
            Task::CommandDump(_)
            | Task::CommandSeal(_)
            | Task::CommandExamine(_)
            | Task::CommandLoad(_)
            | Task::CommandDrill(_)
            | Task::CommandChecks(_) => Binary::Services,
            Task::PgTakeBase(_)
            | Task::PgReceive(_)
            | Task::PgRecover(_)
            | Task::PgDropSlot(_)
            | Task::WalPrune(_) => Binary::Log,
            Task::Probe
            | Task::PgInspect(_)
            | Task::PgDump(_)
            | Task::PgSeal(_)
            | Task::PgExamine(_)
            | Task::PgRestore(_)
            | Task::SqlChecks(_)
            | Task::PgFence(_)
            | Task::PgSwap(_)
            | Task::PgDrop(_)
            | Task::PgCreateRoles(_)
            | Task::PgDropRoles(_)
            | Task::PgInPlace(_)
            | Task::NetChecks(_)
            | Task::RedisFlush(_)
            | Task::StoreVerify(_)
            | Task::StoreScan(_)
            | Task::LayoutScan(_)
            | Task::LayoutCopy(_)
            | Task::Store(_)
            | Task::Discard(_) => Binary::Databases,
        }
    }
}

// === impl Binary ===

impl Binary {
    /// All of them.
    pub const ALL: [Binary; 4] = [Binary::Databases, Binary::Directories, Binary::Log, Binary::Services];

    /// File name of the binary.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Databases => "skep-runner",
            Binary::Directories => "skep-runner-dir",
            Binary::Log => "skep-runner-wal",
            Binary::Services => "skep-runner-service",
        }
    }
}
