//! What the labels of one service ask for.

use std::time::Duration;

use jiff::tz::TimeZone;
use skep_runner::task::Expect;

/// Everything that the labels of one service ask for.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `skep.enable=true`.
    pub enabled: bool,
    /// `skep.paused=true`: no schedule and no alert acts; people still can.
    pub paused: bool,
    /// `skep.depends-on`, as written: names in the same stack, or full names.
    pub depends_on: Vec<String>,
    /// `skep.notify`.
    pub notify: Vec<String>,
    /// Maintenance page.
    pub maintenance: Option<Maintenance>,
    /// Data engine.
    pub data: Option<Data>,
    /// Backups.
    pub backup: Option<Backup>,
    /// Restore.
    pub restore: Option<Restore>,
    /// Checks by name.
    pub checks: Vec<Check>,
}

/// The `maintenance` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    /// Mode of design §6.
    pub mode: MaintenanceMode,
    /// Port(s) that the application listens on.
    pub ports: Vec<u16>,
    /// Own page: name of a Swarm config.
    pub page: Option<String>,
    /// `Retry-After`, seconds.
    pub retry_after: u32,
}

/// How the page gets in front of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MaintenanceMode {
    /// The service's own task template becomes the page.
    Swap,
    /// The user's proxy shows the page while the service is at zero.
    Proxy,
    /// A second service with the network alias.
    StandIn,
    /// A config of the named service is rotated.
    Config(String),
}

/// The `data` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Engine.
    pub engine: Engine,
    /// `skep.data.database`; the engine's own default where absent.
    pub database: Option<String>,
    /// `skep.data.volumes`.
    pub volumes: Vec<String>,
}

/// Data engines that can be named. Those without an implementation are a label problem that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the products'")]
pub enum Engine {
    Postgres,
    Mysql,
    Mariadb,
    Mongodb,
    Redis,
    Rabbitmq,
    Volume,
    Command,
}

/// The `backup` section.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Schedules, split on `;`.
    pub schedules: Vec<Schedule>,
    /// Name of the store; the default store where absent.
    pub store: Option<String>,
    /// Retention.
    pub keep: Vec<Keep>,
}

/// A cron schedule in a time zone, or an interval.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// Civil times in a zone.
    Cron {
        /// The expression as written, without the zone prefix.
        expression: String,
        /// The parsed schedule, on civil time.
        schedule: Box<cron::Schedule>,
        /// Zone, UTC where absent.
        zone: TimeZone,
    },
    /// `@every 15m`.
    Every(Duration),
}

/// One retention rule, `7 daily`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How many.
    pub count: u32,
    /// Per what.
    pub per: Period,
}

/// A retention period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "self-explaining")]
pub enum Period {
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// The `restore` section.
#[derive(Clone, Debug)]
pub struct Restore {
    /// Alert names.
    pub on_alert: Vec<String>,
    /// What an alert may do.
    pub mode: RestoreMode,
    /// Least time between two incidents of one alert.
    pub cooldown: Duration,
    /// At most this many restores …
    pub limit: Limit,
    /// Beside or in place.
    pub strategy: Strategy,
    /// Which services stop; `None` = the direct dependents (S2).
    pub clients: Option<Vec<String>>,
    /// Sessions of these services are known and not stopped.
    pub ignore_clients: Vec<String>,
    /// How far before `startsAt` the backup must be (S9).
    pub lookback: Duration,
    /// Caches to empty before clients start (S21).
    pub flush: Vec<String>,
    /// Whether a canary runs before clients start.
    pub canary: bool,
    /// Whether clients stop for the cut-over.
    pub quiesce: bool,
    /// How long the old database is kept.
    pub keep_old: Duration,
}

/// `2/24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub count: u32,
    /// In which window.
    pub window: Duration,
}

/// What an alert may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreMode {
    /// Only say what would be done.
    Observe,
    /// Prepare and wait for a person.
    Approve,
    /// Act.
    Auto,
}

/// Where the new data is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Beside the live data, then cut over.
    Beside,
    /// In place of it.
    InPlace,
}

/// One named check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// `[a-z0-9-]{1,32}`.
    pub name: String,
    /// What it does.
    pub probe: CheckProbe,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckProbe {
    /// `skep.check.<name>.http=http://[host]:port/path`.
    Http {
        /// Host; the service itself where empty.
        host: String,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Status wanted.
        status: u16,
        /// Longest time for an answer.
        within: Duration,
        /// Text (regular expression) that the body must contain.
        body: Option<String>,
    },
    /// `skep.check.<name>.sql`.
    Sql {
        /// One statement.
        sql: String,
        /// What the value must be.
        expect: Expect,
    },
    /// `skep.check.<name>.tcp=5432`.
    Tcp {
        /// Port.
        port: u16,
        /// Longest time for a connect.
        within: Duration,
    },
    /// `skep.check.<name>.command`.
    Command {
        /// The command, for `sh -c`.
        command: String,
        /// What its output must be.
        expect: Expect,
    },
}
