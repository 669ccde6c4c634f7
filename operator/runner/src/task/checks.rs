//! Checks: of a database by SQL, of an application over the network, and whatever a command of the service says.

use serde::{Deserialize, Serialize};

use super::{Connect, ShellCommand};

/// See [`super::Task::SqlChecks`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqlChecks {
    /// The server.
    pub connect: Connect,
    /// The database to check.
    pub database: String,
    /// The checks.
    pub checks: Vec<SqlCheck>,
    /// How long to keep trying, in seconds; they are asked once without it.
    #[serde(default)]
    pub deadline_s: u64,
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

/// The commands that a check of a Redis may say: they read one value.
pub const REDIS_READING: [&str; 20] = [
    "PING",
    "DBSIZE",
    "EXISTS",
    "GET",
    "GETRANGE",
    "STRLEN",
    "TYPE",
    "TTL",
    "PTTL",
    "LLEN",
    "LINDEX",
    "HGET",
    "HLEN",
    "HEXISTS",
    "SCARD",
    "SISMEMBER",
    "ZCARD",
    "ZSCORE",
    "XLEN",
    "BITCOUNT",
];

/// See [`super::Task::NetChecks`].
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

/// See [`super::Task::CommandChecks`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandChecks {
    /// The checks; all must pass.
    pub checks: Vec<CommandCheck>,
    /// How long to keep trying, in seconds; they are run once without it.
    pub deadline_s: u64,
}

/// One command as a check: it passes with exit code 0, and where it prints what is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandCheck {
    /// Name, from the label.
    pub name: String,
    /// The command.
    pub command: ShellCommand,
    /// What it must print, without blanks around it; no [`Expect::Matches`].
    pub expect: Expect,
    /// Longest time for one run, in milliseconds.
    pub within_ms: u64,
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
