//! Engines whose live data is a directory: volumes, Redis (Valkey), MySQL and MariaDB.
//!
//! ```text
//! <root>/                      the data volume, mounted in the job
//!   <live entries>             what the service reads
//!   .skep-<side>/new/          built and verified by DirLoad, complete once `.skep-<side>/loaded.json` is there
//!   .skep-<side>/old/          what was live before DirMove forward
//!   .skep-<side>/moves.json    the list that DirMove follows
//! ```

use serde::{Deserialize, Serialize};

use super::{CheckOutcome, Connect, SqlCheck, Stored};
use crate::manifest::{Artefact, Manifest};

/// An engine whose data is a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataEngine {
    /// Files: one PAX archive a volume.
    Volume,
    /// Redis or Valkey: an RDB.
    Redis,
    /// MySQL or MariaDB, whichever the image has: a dump of all databases in SQL.
    Mysql,
}

/// See [`super::Task::DirInspect`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirInspect {
    /// The engine.
    pub engine: DataEngine,
    /// The server; none where it is down (or has none): its settings are then not told.
    pub connect: Option<Connect>,
    /// Absolute path of the live data in the job.
    pub root: String,
    /// Backups that a restore may use, newest first.
    pub backups: Vec<Stored>,
}

/// See [`super::Task::DirDump`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirDump {
    /// The engine.
    pub engine: DataEngine,
    /// The server; must be given for all engines but [`DataEngine::Volume`].
    pub connect: Option<Connect>,
    /// The volumes of [`DataEngine::Volume`], mounted read-only, at least one; empty for the others.
    pub volumes: Vec<VolumeRoot>,
    /// Directory relative to [`crate::STORE_PATH`]; made where absent.
    pub dir: String,
}

/// A volume to be dumped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRoot {
    /// Its name; the artefact is `<name>.tar`.
    pub name: String,
    /// Absolute path of its mount in the job.
    pub root: String,
}

/// See [`super::Task::DirSeal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirSeal {
    /// The engine.
    pub engine: DataEngine,
    /// Directory relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// The manifest to write after all of its artefacts were read back and found whole.
    pub manifest: Manifest,
}

/// See [`super::Task::DirExamine`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirExamine {
    /// The engine; a backup of another one is refused.
    pub engine: DataEngine,
    /// The backup.
    pub stored: Stored,
}

/// See [`super::Task::DirLoad`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirLoad {
    /// The engine; a backup of another one is refused.
    pub engine: DataEngine,
    /// The backup; refused unless its checksums are the registered ones.
    pub stored: Stored,
    /// The artefact to load, where the backup has several (volumes); none for the only one.
    pub file: Option<String>,
    /// Absolute path of the live data in the job, mounted read-write.
    pub root: String,
    /// `[a-z0-9-]{1,40}`: the data is built in `<root>/.skep-<side>`. What an earlier attempt left there goes first.
    pub side: String,
    /// The live server's settings from [`DirInspection::settings`]; none for the manifest's, where the server is down.
    pub settings: Option<ServerSettings>,
    /// Checks against the scratch server; none for [`DataEngine::Volume`].
    pub checks: Vec<SqlCheck>,
    /// The database in which they run, as in [`DataChecks`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// See [`super::Task::DirMove`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirMove {
    /// Absolute path of the live data in the job, mounted read-write. Nothing else may use it: the service is stopped.
    pub root: String,
    /// As given to [`DirLoad`].
    pub side: String,
    /// Which way.
    pub direction: Direction,
}

/// Which way the entries move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The live entries away, the loaded ones in. Undone half way by [`Direction::Back`], which may be followed by
    /// [`Direction::Forward`] again.
    Forward,
    /// As before the move forward, also when that was never begun, ended half way, or a server has since changed the
    /// data (what is live then goes to `new`). After a complete move there and back the data has to be loaded anew.
    Back,
}

/// See [`super::Task::DirRemove`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirRemove {
    /// Absolute path of the live data in the job, mounted read-write.
    pub root: String,
    /// As given to [`DirLoad`]; absent ones are fine, half moved ones are refused. No link is followed.
    pub sides: Vec<String>,
}

/// See [`super::Task::DataChecks`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataChecks {
    /// [`DataEngine::Redis`] (a check's `sql` is then a reading command such as `DBSIZE`) or [`DataEngine::Mysql`].
    pub engine: DataEngine,
    /// The server.
    pub connect: Connect,
    /// The database (for Redis its number); none for no default database (0).
    pub database: Option<String>,
    /// The checks.
    pub checks: Vec<SqlCheck>,
    /// How long to keep trying, in seconds; they are asked once without it.
    #[serde(default)]
    pub deadline_s: u64,
}

/// What [`super::Task::DirInspect`] found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DirInspection {
    /// Version of the server, none where it was not asked.
    pub server_version: Option<String>,
    /// What a backup and a load have to know of the server, none where it was not asked.
    pub settings: Option<ServerSettings>,
    /// Bytes that the live data takes on its file system, earlier restores' apart.
    pub size: u64,
    /// Files, directories and links in it.
    pub entries: u64,
    /// Bytes available on its file system.
    pub free: u64,
    /// Size of its file system in bytes.
    pub capacity: u64,
    /// Top-level entries that are file systems of their own: they can neither be dumped nor moved.
    pub mounts: Vec<String>,
    /// What is left of earlier restores.
    pub sides: Vec<SideFound>,
    /// What is wrong with each backup asked about, by id. Empty list = nothing that shows before it is read in full.
    pub backups: std::collections::BTreeMap<String, Vec<String>>,
    /// What is missing here for those that need it, by id: nothing against the backup itself.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub lacking: std::collections::BTreeMap<String, Vec<String>>,
}

/// What is left of an earlier restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideFound {
    /// Its name, without `.skep-`.
    pub side: String,
    /// How far it came.
    pub state: SideState,
    /// Bytes that it takes.
    pub size: u64,
}

/// How far a side came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SideState {
    /// A load has not ended, or was killed.
    Loading,
    /// Built and verified.
    Loaded,
    /// A move was begun and has not ended.
    Moving,
    /// It is live, and `old` holds what was live before.
    Forward,
    /// It was live; what was live before is so again.
    Back,
}

/// What a load has to know of the live server so that this reads what is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerSettings {
    /// Of Redis.
    Redis(RedisFiles),
    /// Of MySQL and MariaDB.
    Mysql(MysqlSettings),
}

/// Which files a Redis reads at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisFiles {
    /// `appendonly`: with it the RDB is not even looked at.
    pub append_only: bool,
    /// `dbfilename`.
    pub rdb: String,
    /// `appendfilename`.
    pub aof: String,
    /// `appenddirname`, none before Redis 7 (one file in the data directory).
    pub aof_dir: Option<String>,
    /// `databases`.
    pub databases: u32,
}

/// What a data directory of MySQL is made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MysqlSettings {
    /// `innodb_page_size`.
    pub page_size: u64,
    /// `innodb_data_file_path`.
    pub data_file_path: String,
    /// `lower_case_table_names`.
    pub lower_case_table_names: u8,
    /// `character_set_server`.
    pub character_set: String,
    /// `collation_server`.
    pub collation: String,
}

/// What [`super::Task::DirDump`] made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirDumped {
    /// The artefacts.
    pub artefacts: Vec<Artefact>,
    /// Version of the server, empty for volumes.
    pub server_version: String,
    /// Version line of the tool.
    pub tool_version: String,
    /// Start, RFC 3339 UTC. Redis: the data is that of a moment after it. Volume: no moment, see `contents.changed`.
    pub started: String,
    /// End, RFC 3339 UTC.
    pub ended: String,
    /// For [`Manifest::contents`].
    pub contents: Contents,
}

/// What a backup of these engines holds, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The server's settings at that time.
    pub settings: Option<ServerSettings>,
    /// Bytes that its content takes when restored, as far as is known.
    pub size: u64,
    /// Files, keys or tables, as the engine counts.
    pub entries: u64,
    /// Files that changed while they were read: number, and the first names.
    pub changed: Names,
    /// What was left out (sockets, device nodes, other file systems, files that vanished): number, and the first.
    pub left_out: Names,
    /// What such a backup never holds, in sentences for people.
    pub not_held: Vec<String>,
}

/// A number of names, of which some are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// How many there are.
    pub count: u64,
    /// The first ones, at most 20.
    pub first: Vec<String>,
}

/// What [`super::Task::DirLoad`] built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirLoaded {
    /// Bytes that it takes.
    pub size: u64,
    /// Files, keys or tables, as the engine counts.
    pub entries: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// The checks' outcomes; the task succeeds also when checks fail.
    pub checks: Vec<CheckOutcome>,
}

/// What [`super::Task::DirMove`] did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirMoved {
    /// Entries renamed by this run; 0 where it was done already.
    pub renamed: u64,
    /// Milliseconds that it took.
    pub ms: u64,
}
