//! What the labels of one service ask for.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_runner::task::Expect;
use skep_waker::Rule;
use skep_waker::task::{Mode, Port};

pub use super::schedule::{Cron, Schedule};
pub use super::window::Window;

/// Everything that the labels of one service ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// `skep.enable=true`.
    pub enabled: bool,
    /// `skep.paused=true`: no schedule and no alert acts; people still can.
    pub paused: bool,
    /// `skep.depends-on`, as written: names in the same stack, or full names.
    pub depends_on: Vec<String>,
    /// `skep.notify`.
    pub notify: Vec<String>,
    /// Sleep; none where no label asks for it.
    pub scale: Option<Scale>,
    /// Maintenance page.
    pub maintenance: Option<Maintenance>,
    /// Data engine.
    pub data: Option<Data>,
    /// Backups: there whenever there is data, so that backups by hand work too; none where its labels are faulty.
    pub backup: Option<Backup>,
    /// When the service is restarted by itself, with what needs it.
    pub restarts: Vec<Schedule>,
    /// Updates of a service that opted in; none where their labels are faulty.
    pub update: Option<Update>,
    /// Drills: there whenever there is data, so that drills by hand work too; none where its labels are faulty.
    pub drill: Option<Drill>,
    /// Restore points of the service's stack, where they are asked for.
    pub point: Option<Points>,
    /// Restore: there whenever there is data, with the defaults; none where its labels are faulty.
    pub restore: Option<Restore>,
    /// Checks by name, of what an operation has done.
    pub checks: Vec<Check>,
    /// Checks by name that are asked before the service is restarted or updated, and never of what was done.
    pub before: Vec<Check>,
}

/// The `scale` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// When the service falls asleep.
    pub down: Vec<Schedule>,
    /// When it wakes.
    pub up: Vec<Schedule>,
    /// What becomes of a service that is deployed while it sleeps.
    pub on_deploy: OnDeploy,
    /// As how many replicas it goes on instead of sleeping; 0 where it sleeps.
    pub min: u64,
    /// How it is woken by whoever asks for it; none where that wakes nobody, and of what keeps replicas.
    pub wake: Option<WakeOnDemand>,
    /// When it falls asleep for want of use; none where it does not.
    pub idle: Option<Idle>,
}

// === impl Scale ===

impl Scale {
    /// Whether anything but a person puts it to sleep or wakes it.
    pub fn is_by_itself(&self) -> bool {
        !self.down.is_empty() || self.idle.is_some() || self.wake.is_some()
    }

    /// The name of its door.
    pub fn door(&self) -> Option<&str> {
        self.wake.as_ref()?.door.as_deref()
    }
}

/// When a service falls asleep for want of use: as its expression tells, as its door sees ([`WakeOnDemand::door`]), or, where it
/// has both, as both do. It has one of them at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// PromQL expression that is zero while nobody uses it.
    pub query: Option<String>,
    /// For how long nobody has used it by then.
    pub after: Duration,
}

/// How a service is woken by whoever asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct WakeOnDemand {
    /// Ports on which it is asked, inside its container; never empty, each once.
    pub ports: Vec<Port>,
    /// What becomes of a request that comes while it sleeps.
    pub mode: Mode,
    /// The longest that one waits.
    pub timeout: Duration,
    /// What wakes nobody.
    pub ignore: Vec<Rule>,
    /// Own page: name of a Swarm config.
    pub page: Option<String>,
    /// Name of the door, through which everybody asks for it all the time; none where a waker takes its place while it sleeps.
    pub door: Option<String>,
}

/// What becomes of a service that is deployed while it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeploy {
    /// It goes back to sleep, and wakes as it was deployed.
    Sleep,
    /// It stays up.
    Wake,
}

/// The `maintenance` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    /// Mode of design §6.
    pub mode: MaintenanceMode,
    /// Port(s) that the application listens on; never empty in the modes swap and standin.
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
    /// `skep.data.dump.command` and its like; with `command` and nothing else.
    pub commands: Option<Commands>,
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

/// The commands of `skep.data=command`, each for `sh -c`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    /// Writes the data to its standard output.
    pub dump: String,
    /// Replaces the data by what it reads from its standard input.
    pub load: String,
    /// Says whether what it reads from its standard input is a whole dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
}

/// The `backup` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Backup {
    /// Schedules; none where backups are taken by hand only.
    pub schedules: Vec<Schedule>,
    /// Name of the store; the default store where absent.
    pub store: Option<String>,
    /// Retention: which backups stay; nothing is removed where empty, since nobody asked for it.
    pub keep: Vec<Keep>,
    /// The age recipients; none where backups are not encrypted.
    pub encrypt: Vec<String>,
    /// Stores that get copies.
    pub copies: Vec<String>,
    /// Whether the write-ahead log is received, and base backups are taken.
    pub wal: bool,
}

/// The `drill` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Drill {
    /// Schedules; none where drills are asked for by hand only.
    pub schedules: Vec<Schedule>,
}

/// The `point` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// Schedules; none where points are taken by hand only.
    pub schedules: Vec<Schedule>,
    /// Which of the stack's points are kept; empty where the label says nothing of it.
    pub keep: Vec<Keep>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The `update` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Whether data is backed up before.
    pub backup: bool,
    /// How long the service is watched afterwards.
    pub monitor: Duration,
    /// What goes back on a red flag; by what the service keeps, where it is not said.
    pub rollback: Option<GoBack>,
    /// What is a red flag besides.
    pub red_flags: RedFlags,
    /// Whether the tag that the service runs is looked up in its registry.
    pub watch: bool,
    /// When that may lead to an update; at any time where absent.
    pub window: Option<Window>,
}

/// What is a red flag besides what the engine and the checks tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedFlags {
    /// A regular expression: a line of the log that it matches.
    pub log: Option<String>,
    /// A PromQL expression: anything that it returns.
    pub query: Option<String>,
}

/// What goes back on a red flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoBack {
    /// The spec, whatever the service keeps.
    Image,
    /// The spec, and the data that the service uses.
    Full,
    /// Nothing.
    None,
}

/// One named check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `[a-z0-9-]{1,32}`.
    pub name: String,
    /// What it does.
    pub probe: CheckProbe,
}

/// When a check is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before a restart or an update begins.
    Before,
    /// Of what an operation has done.
    After,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "kebab-case")]
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
        /// Text that the body must contain.
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
        /// The longest time for one run.
        within: Duration,
    },
    /// `skep.check.<name>.log`.
    Log {
        /// A regular expression for lines.
        log: String,
        /// How many of them a minute; none where any will do.
        expect: Expect,
    },
}

// === impl Policy ===

impl Policy {
    /// The checks that look into the data.
    pub fn data_checks(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| matches!(check.probe, CheckProbe::Sql { .. }))
    }
}

// === impl Update ===

impl Default for Update {
    fn default() -> Update {
        Update {
            backup: true,
            monitor: Duration::from_mins(30),
            rollback: None,
            red_flags: RedFlags::default(),
            watch: false,
            window: None,
        }
    }
}

// === impl GoBack ===

impl GoBack {
    /// Every choice.
    pub const ALL: [GoBack; 3] = [GoBack::Image, GoBack::Full, GoBack::None];
}

impl fmt::Display for GoBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GoBack::Image => "image",
            GoBack::Full => "full",
            GoBack::None => "none",
        })
    }
}

// === impl Phase ===

impl Phase {
    /// Every choice.
    pub const ALL: [Phase; 2] = [Phase::Before, Phase::After];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Before => "before",
            Phase::After => "after",
        })
    }
}

// === impl OnDeploy ===

impl OnDeploy {
    /// Every choice.
    pub const ALL: [OnDeploy; 2] = [OnDeploy::Sleep, OnDeploy::Wake];

    /// The word in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            OnDeploy::Sleep => "sleep",
            OnDeploy::Wake => "wake",
        }
    }
}

impl fmt::Display for OnDeploy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl MaintenanceMode ===

impl fmt::Display for MaintenanceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaintenanceMode::Swap => f.write_str("swap"),
            MaintenanceMode::Proxy => f.write_str("proxy"),
            MaintenanceMode::StandIn => f.write_str("standin"),
            MaintenanceMode::Config(service) => write!(f, "config:{service}"),
        }
    }
}

// === impl Engine ===

impl Engine {
    /// Every engine.
    pub const ALL: [Engine; 8] = [
        Engine::Postgres,
        Engine::Mysql,
        Engine::Mariadb,
        Engine::Mongodb,
        Engine::Redis,
        Engine::Rabbitmq,
        Engine::Volume,
        Engine::Command,
    ];

    /// The word in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Engine::Postgres => "postgres",
            Engine::Mysql => "mysql",
            Engine::Mariadb => "mariadb",
            Engine::Mongodb => "mongodb",
            Engine::Redis => "redis",
            Engine::Rabbitmq => "rabbitmq",
            Engine::Volume => "volume",
            Engine::Command => "command",
        }
    }

    /// Whether its data is loaded into the running service, which nothing can be tried beside.
    pub const fn is_loaded_live(self) -> bool {
        matches!(self, Engine::Command | Engine::Mongodb | Engine::Rabbitmq)
    }

    /// Whether a backup of it can be tried somewhere else than in the live service.
    pub const fn has_drill(self) -> bool {
        !matches!(self, Engine::Command)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Keep ===

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.per)
    }
}

// === impl Period ===

impl Period {
    /// Every period, from short to long.
    pub const ALL: [Period; 6] =
        [Period::Last, Period::Hourly, Period::Daily, Period::Weekly, Period::Monthly, Period::Yearly];

    /// The word in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Period::Last => "last",
            Period::Hourly => "hourly",
            Period::Daily => "daily",
            Period::Weekly => "weekly",
            Period::Monthly => "monthly",
            Period::Yearly => "yearly",
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Limit ===

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, super::duration::show(self.window))
    }
}

// === impl RestoreMode ===

impl RestoreMode {
    /// Every mode, from harmless to bold.
    pub const ALL: [RestoreMode; 3] = [RestoreMode::Observe, RestoreMode::Approve, RestoreMode::Auto];

    /// The word in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            RestoreMode::Observe => "observe",
            RestoreMode::Approve => "approve",
            RestoreMode::Auto => "auto",
        }
    }
}

impl fmt::Display for RestoreMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Strategy ===

impl Strategy {
    /// Every strategy.
    pub const ALL: [Strategy; 2] = [Strategy::Beside, Strategy::InPlace];

    /// The word in the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Strategy::Beside => "beside",
            Strategy::InPlace => "in-place",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Keep ===

impl Keep {
    /// What holds where backups are scheduled and nothing else is said: the last seven, seven days, four weeks.
    pub fn of_schedules() -> Vec<Keep> {
        [(7, Period::Last), (7, Period::Daily), (4, Period::Weekly)]
            .map(|(count, per)| Keep { count, per })
            .to_vec()
    }
}

// === impl Backup ===

impl Default for Backup {
    /// What stands where no label says otherwise.
    fn default() -> Backup {
        by_default().backup.expect("the table of labels has a default for all that a backup needs")
    }
}

// === impl Restore ===

impl Default for Restore {
    /// What stands where no label says otherwise.
    fn default() -> Restore {
        by_default().restore.expect("the table of labels has a default for all that a restore needs")
    }
}

/// The policy of a service that only says that it has data.
fn by_default() -> Policy {
    let labels = [("skep.enable", "true"), ("skep.data", "postgres")];
    super::parse(&labels.map(|(key, text)| (key.to_owned(), text.to_owned())).into()).policy
}
