//! PostgreSQL.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Connect, Stored};
use crate::manifest::{Artefact, Manifest};

/// See [`super::Task::PgInspect`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgInspect {
    /// The server.
    pub connect: Connect,
    /// The live database.
    pub database: String,
    /// Backups that the restore may use, newest first; their `database` properties and sizes are compared with the server.
    pub backups: Vec<Stored>,
    /// Databases kept from earlier restores of this service (`skep_…` names), to report their size and slots.
    pub kept: Vec<String>,
    /// Roles that a backup needs and the server lacks stand against it only where it does not tell how to make them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create_roles: bool,
}

/// See [`super::Task::PgDump`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgDump {
    /// The server.
    pub connect: Connect,
    /// The database to dump.
    pub database: String,
    /// Directory relative to [`crate::STORE_PATH`]; made where absent.
    pub dir: String,
}

/// See [`super::Task::PgSeal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgSeal {
    /// Directory relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// The manifest to write after all of its artefacts were read back and found whole.
    pub manifest: Manifest,
}

/// See [`super::Task::PgRestore`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgRestore {
    /// The server.
    pub connect: Connect,
    /// The backup; refused unless its checksums are the registered ones.
    pub stored: Stored,
    /// The live database, whose properties the new one gets (the manifest's, where it is gone).
    pub live: String,
    /// Name of the new database, `skep_…`. If it exists, it is an earlier attempt's: dropped first.
    pub side: String,
}

/// See [`super::Task::PgFence`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgFence {
    /// The server.
    pub connect: Connect,
    /// Databases by name and OID; one that is not as expected is a final fault.
    pub databases: Vec<Named>,
    /// Whether connections are allowed afterwards. When false, sessions are ended too.
    pub allow: bool,
}

/// A database by name and OID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Name.
    pub name: String,
    /// OID.
    pub oid: u32,
}

/// See [`super::Task::PgSwap`]: `live` (the database now under `name`) becomes `away`, and `new` gets `name`. Without a live
/// database (somebody dropped it) only `new` is renamed, while nothing else bears `name`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgSwap {
    /// The server.
    pub connect: Connect,
    /// The name that the application connects to.
    pub name: String,
    /// The database that bears it, to be moved away; none where it is gone.
    pub live: Option<Named>,
    /// The database that takes the live name.
    pub new: Named,
    /// The name that the live one gets.
    pub away: String,
    /// Both refuse connections during the swap; afterwards the new one allows them and the other does not.
    /// When true, the sessions of both are ended at once (a cut-over under running clients), else those that
    /// have not left by themselves within 2 s.
    pub end_sessions: bool,
}

/// See [`super::Task::PgDrop`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgDrop {
    /// The server.
    pub connect: Connect,
    /// The databases. An OID of 0 means any (only for names that begin with `skep_`).
    pub databases: Vec<Named>,
}

/// See [`super::Task::PgCreateRoles`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgCreateRoles {
    /// The server.
    pub connect: Connect,
    /// The backup that tells how they are made; refused unless its checksums are the registered ones.
    pub stored: Stored,
    /// The roles, as [`PgInspection::missing_roles`] has them. Either none of them exists or, made by an earlier attempt, all.
    pub roles: Vec<String>,
}

/// See [`super::Task::PgDropRoles`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgDropRoles {
    /// The server.
    pub connect: Connect,
    /// The roles; absent ones are fine. All or, where one of them is used, none.
    pub roles: Vec<String>,
}

/// See [`super::Task::PgInPlace`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgInPlace {
    /// The server.
    pub connect: Connect,
    /// The backup to restore.
    pub stored: Stored,
    /// The live database: dropped and made anew with its properties. Until the new one is complete it bears
    /// another name, so the live name leads to a whole database or to none.
    pub live: String,
    /// Properties as they were before the first attempt.
    pub properties: DatabaseProperties,
}

/// What [`super::Task::PgDump`] made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgDumped {
    /// The artefact.
    pub artefacts: Vec<Artefact>,
    /// `server_version_num`.
    pub server_version: String,
    /// `pg_dump --version`.
    pub tool_version: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// End, RFC 3339 UTC.
    pub ended: String,
    /// What the dump does not hold.
    pub database: DatabaseProperties,
    /// What is held of the cluster's roles; none of those that earlier versions made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<HeldRoles>,
}

/// The roles of the whole cluster, in an artefact of their own beside the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRoles {
    /// Whether with the hashes of their passwords; not where the dumping role may not read them.
    pub passwords: bool,
}

/// Everything that belongs to a database and that `pg_dump` of that database leaves out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseProperties {
    /// Owner role.
    pub owner: String,
    /// Encoding name.
    pub encoding: String,
    /// Locale provider: `c`, `i` or `b`.
    pub locale_provider: String,
    /// LC_COLLATE.
    pub collate: String,
    /// LC_CTYPE.
    pub ctype: String,
    /// ICU or builtin locale, where the provider has one.
    pub locale: Option<String>,
    /// ICU rules.
    pub icu_rules: Option<String>,
    /// Tablespace.
    pub tablespace: String,
    /// Connection limit, -1 for none.
    pub connection_limit: i32,
    /// `datistemplate`.
    pub is_template: bool,
    /// Comment on the database.
    pub comment: Option<String>,
    /// `datacl` items as text, none for the default.
    pub acl: Option<Vec<String>>,
    /// Settings of `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`: role (empty for all) → `name=value` items.
    pub settings: BTreeMap<String, Vec<String>>,
    /// Security labels on the database: provider → label.
    pub security_labels: BTreeMap<String, String>,
    /// Roles that own something in it or are named in its ACLs.
    pub roles: Vec<String>,
    /// Extensions: name → version.
    pub extensions: BTreeMap<String, String>,
    /// Size in bytes when looked at.
    pub size: u64,
}

/// What [`super::Task::PgInspect`] found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PgInspection {
    /// `server_version_num`.
    pub server_version: String,
    /// `pg_restore --version`.
    pub tool_version: String,
    /// The live database, where it exists.
    pub live: Option<Named>,
    /// Its properties.
    pub properties: Option<DatabaseProperties>,
    /// Sessions in it, other than Skep's (`skep-…`), each combination once.
    pub sessions: Vec<PgSession>,
    /// Logical replication slots of the database.
    pub slots: Vec<String>,
    /// Subscriptions of the database.
    pub subscriptions: Vec<String>,
    /// Scheduled jobs inside the server that name the database (`pg_cron`).
    pub jobs: Vec<String>,
    /// `max_wal_size` in bytes.
    pub max_wal_size: u64,
    /// Free bytes where the data is; 0 together with `capacity` where the data is not mounted.
    pub free: u64,
    /// Size in bytes of the file system where the data is, 0 where the data is not mounted.
    pub capacity: u64,
    /// What is wrong with each backup asked about, by id, such as a wrong checksum. Empty list = nothing that shows before
    /// it is read in full.
    pub backups: BTreeMap<String, Vec<String>>,
    /// What this server lacks for those that need it, by id: roles, extensions in that version, a new enough version of
    /// its own. Nothing against the backup itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lacking: BTreeMap<String, Vec<String>>,
    /// Roles that are to be made for each of them, by id; only where that was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing_roles: BTreeMap<String, Vec<String>>,
    /// Kept databases that exist.
    pub kept: Vec<KeptDatabase>,
}

/// One session of the live database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PgSession {
    /// Client address, empty for a local socket.
    pub address: String,
    /// Role.
    pub user: String,
    /// `application_name`.
    pub application: String,
}

/// A database kept from an earlier restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDatabase {
    /// Name and OID.
    pub database: Named,
    /// Size in bytes.
    pub size: u64,
    /// Slots in it: such a database is never dropped.
    pub slots: Vec<String>,
}
