//! The tasks of a job and their reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::Manifest;

/// What one job is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Format version, [`crate::SCHEMA`].
    pub schema: u32,
    /// `skep-<operation>-<step>-<attempt>`: the `application_name` of every session of this job. Sessions
    /// whose name begins with [`Ticket::fence`] and is not this one belong to an older attempt and are ended first.
    pub session: String,
    /// `skep-<operation>-<step>-`: the common prefix of all attempts of this step.
    pub fence: String,
    /// The work.
    pub task: Task,
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
    /// Rebuild the live database in place from a backup.
    PgInPlace(PgInPlace),
    /// Checks of an application over the network.
    NetChecks(NetChecks),
    /// Empty a Redis cache.
    RedisFlush(RedisFlush),
    /// Remove an unfinished backup's directory (one without a manifest, unless `sealed`).
    Discard(Discard),
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

/// See [`Task::PgInspect`].
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

/// See [`Task::PgDump`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgDump {
    /// The server.
    pub connect: Connect,
    /// The database to dump.
    pub database: String,
    /// Directory relative to [`crate::STORE_PATH`]; made where absent.
    pub dir: String,
}

/// See [`Task::PgSeal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgSeal {
    /// Directory relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// The manifest to write after all of its artefacts were read back and found whole.
    pub manifest: Manifest,
}

/// See [`Task::PgRestore`].
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
    /// Parallel restore jobs, at least 1.
    pub jobs: u32,
}

/// See [`Task::SqlChecks`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqlChecks {
    /// The server.
    pub connect: Connect,
    /// The database to check.
    pub database: String,
    /// The checks.
    pub checks: Vec<SqlCheck>,
}

/// One SQL check: the first column of the first row is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqlCheck {
    /// Name, from the label.
    pub name: String,
    /// One statement.
    pub sql: String,
    /// What the value must be.
    pub expect: Expect,
}

/// A comparison of a check's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// Any value: the statement must only succeed.
    Any,
    /// Equal, as numbers where both are numbers, else as text.
    Eq(String),
    /// Not equal.
    Ne(String),
    /// Less than (numbers).
    Lt(f64),
    /// Less than or equal (numbers).
    Le(f64),
    /// Greater than (numbers).
    Gt(f64),
    /// Greater than or equal (numbers).
    Ge(f64),
    /// Contains a match of the POSIX regular expression; evaluated by the server (`~`).
    Matches(String),
}

/// See [`Task::PgFence`].
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

/// See [`Task::PgSwap`]: `live` (the database now under `name`) becomes `away`, and `new` gets `name`. Without a live
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

/// See [`Task::PgDrop`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgDrop {
    /// The server.
    pub connect: Connect,
    /// The databases. An OID of 0 means any (only for names that begin with `skep_`).
    pub databases: Vec<Named>,
}

/// See [`Task::PgInPlace`].
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
    /// Parallel restore jobs.
    pub jobs: u32,
}

/// See [`Task::NetChecks`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetChecks {
    /// The checks; all must pass.
    pub checks: Vec<NetCheck>,
    /// How long to keep trying, in seconds.
    pub deadline_s: u64,
}

/// One check over the network. Every address that `host` resolves to is checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetCheck {
    /// Name, from the label.
    pub name: String,
    /// Host name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What is asked.
    pub probe: Probe,
    /// Longest time for one answer, in milliseconds.
    pub within_ms: u64,
}

/// What a network check asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// A TCP connect.
    Tcp,
    /// An HTTP/1.1 GET.
    Http {
        /// Path and query.
        path: String,
        /// The status wanted.
        status: u16,
        /// Text that the body must contain.
        body: Option<String>,
    },
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
    /// Of [`Task::PgDump`].
    PgDump(Box<PgDumped>),
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
    /// Of [`Task::SqlChecks`] and [`Task::NetChecks`]: the task succeeds also when checks fail.
    Checks {
        /// One entry a check.
        outcomes: Vec<CheckOutcome>,
    },
    /// Of [`Task::PgSwap`].
    PgSwap {
        /// Milliseconds between refusing connections and allowing them again.
        fenced_ms: u64,
    },
    /// Of [`Task::PgInPlace`].
    PgInPlace {
        /// The rebuilt database.
        live: Named,
    },
    /// Of tasks with nothing to tell.
    Done,
}

/// How one check went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// Name, from the label.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was found and wanted, for people.
    pub detail: String,
}

/// What [`Task::PgDump`] made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PgDumped {
    /// The artefact.
    pub artefacts: Vec<crate::manifest::Artefact>,
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

/// What [`Task::PgInspect`] found.
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
    /// What stands against each backup asked about, by id: missing roles, missing or older extension versions,
    /// wrong checksum, newer server. Empty list = usable.
    pub backups: BTreeMap<String, Vec<String>>,
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
