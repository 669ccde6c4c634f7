//! Every label that Skep knows, in one table. [`KEYS`] drives the parser, the spelling hints, `skep labels`, the
//! reference page (`docs/labels.md`) and the round-trip test: a label exists if and only if it has a row here.

use super::draft::Draft;
use super::duration;
use super::probe::{self, Body, Url};
use super::problem::Section;
use super::types::{RestoreMode, Strategy};
use super::value::{self, Fault, Show};
use super::window::Window;

/// What stands for the name of a check in a pattern.
const NAME: &str = "<name>";

/// One label.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// The key, with `<name>` where a name stands.
    pub pattern: &'static str,
    /// What it belongs to.
    pub section: Section,
    /// What values look like.
    pub kind: Kind,
    /// The value that stands when the label is absent.
    pub default: Option<&'static str>,
    /// What it does, for people.
    pub doc: &'static str,
    /// First version that knew it.
    pub since: &'static str,
    /// A valid value.
    pub example: &'static str,
    /// What this version does with it.
    pub take: Take,
}

/// What this version does with a label.
#[derive(Clone, Copy, Debug)]
pub enum Take {
    /// Puts the value into the draft (draft, name in the key, text); gives the canonical text.
    Into(fn(&mut Draft, &str, &str) -> Result<String, Fault>),
    /// Says that it cannot do it yet.
    Later,
}

/// What values look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// Service names.
    Services,
    /// E-mail addresses.
    Addresses,
    /// Alert names.
    Alerts,
    /// A word of a closed set.
    Choice(&'static str),
    /// A TCP port.
    Port,
    /// TCP ports.
    Ports,
    /// A count.
    Count,
    /// An HTTP status.
    Status,
    /// Seconds.
    Seconds,
    /// A duration.
    Duration,
    /// Schedules.
    Schedules,
    /// A schedule with a length.
    Window,
    /// A retention.
    Keep,
    /// Count in a window.
    Limit,
    /// Name of a Swarm config.
    Config,
    /// A name on networks.
    Alias,
    /// Name of a backup store.
    Store,
    /// Names of backup stores.
    Stores,
    /// Name of a database.
    Database,
    /// Names of volumes.
    Volumes,
    /// Address of an HTTP check.
    Url,
    /// A regular expression.
    Regex,
    /// An SQL statement.
    Sql,
    /// A comparison.
    Expect,
    /// A shell command.
    Command,
    /// A PromQL expression.
    Query,
    /// Age recipients.
    Recipient,
    /// What wakes nobody.
    Rules,
}

/// The table. Order is the order of the reference.
pub static KEYS: &[KeySpec] = &[
    // --- common
    key("skep.enable", Section::Common, Kind::Flag, "true", "Lets Skep look after the service. Without it no other label has an effect.")
        .into(|d, _, t| put(&mut d.enable, t, value::flag)),
    key("skep.paused", Section::Common, Kind::Flag, "false", "While `true`, no schedule and no alert acts on the service; people still can.")
        .default("false")
        .into(|d, _, t| put(&mut d.paused, t, value::flag)),
    key("skep.depends-on", Section::DependsOn, Kind::Services, "db, cache", "What the service needs to work. Decides what stops when data is restored, and the order of stopping and starting.")
        .into(|d, _, t| put(&mut d.depends_on, t, value::service_names)),
    key("skep.notify", Section::Common, Kind::Addresses, "dba@example.org, ops@example.org", "Who is told about operations on the service, besides the recipients of the configuration.")
        .into(|d, _, t| put(&mut d.notify, t, value::addresses)),
    // --- scale
    key("skep.scale.down", Section::Scale, Kind::Schedules, "CRON_TZ=Europe/Paris 0 20 * * MON-FRI", "When the service falls asleep: it is scaled to zero (a global one is taken off all nodes), and what it goes back to is written down. What needs it (`skep.depends-on`) and has such labels as well falls asleep first: until then it is put off. What needs it and has none, as a proxy, stays awake. Of this and `skep.scale.up` the newest time counts, so one that was missed is made up once. A change of the number of replicas alone, by anybody, wakes it: it then stays up until the next time. With `skep.scale.up`.")
        .into(|d, _, t| put(&mut d.scale.down, t, value::schedules)),
    key("skep.scale.up", Section::Scale, Kind::Schedules, "CRON_TZ=Europe/Paris 0 7 * * MON-FRI", "When it wakes, with the replicas that it had. What it needs and what sleeps as well is woken first, and is up before it.")
        .into(|d, _, t| put(&mut d.scale.up, t, value::schedules)),
    key("skep.scale.on-deploy", Section::Scale, Kind::Choice("`sleep` or `wake`"), "wake", "What becomes of a service that is deployed while it sleeps: `sleep` puts it back to sleep, and it wakes as it was deployed; `wake` lets it stay up.")
        .default("sleep")
        .into(|d, _, t| put(&mut d.scale.on_deploy, t, value::on_deploy)),
    key("skep.scale.min", Section::Scale, Kind::Count, "0", "As how many replicas the service goes on when it is to sleep: with more than 0 it is scaled down to these, by schedule, for want of use or by hand, and stays in reach; no waker takes its place. Fewer than it has, and not of a global service. Until it is scaled up again it counts as reduced, not as asleep: alerts, backups and all else hold for it as for what is awake, so what it needs and what has no `skep.scale.min` of its own does not fall asleep under it. With `skep.scale.idle.query` it is scaled up again as soon as that is above zero.")
        .default("0")
        .into(|d, _, t| put(&mut d.scale.min, t, value::kept)),
    key("skep.scale.idle.query", Section::Scale, Kind::Query, "sum(rate(http_requests_total{service=\"app\"}[1m])) + sum(http_connections{service=\"app\"})", "How use is measured: while this PromQL expression is zero, nobody uses the service. It is asked of the Prometheus that Skep's configuration names (`SKEP_PROMETHEUS_URL`). What has no value, or cannot be asked, counts as used. Long-lived connections are use only where the expression counts them, or while they go through the waker that they woke (`skep.scale.wake`; an hour at most). With `skep.scale.idle.after`, and with `skep.scale.wake` or `skep.scale.up`, or nothing would wake it, unless `skep.scale.min` keeps some. Not needed where `skep.scale.wake.door` is: the door sees what is used. With both, it falls asleep when both say that nobody uses it.")
        .into(|d, _, t| put(&mut d.scale.idle_query, t, value::query)),
    key("skep.scale.idle.after", Section::Scale, Kind::Duration, "15m", "After how long without use the service falls asleep; at least a minute. It was also awake for so long by then, and no operation had it.")
        .into(|d, _, t| put(&mut d.scale.idle_after, t, value::idle_after)),
    key("skep.scale.wake", Section::Scale, Kind::Flag, "true", "Wakes the service when somebody asks for it: while it sleeps, a small waker of Skep's stands in its place, under its name, networks and ports, holds or answers what comes, and leaves when the service is up. With `skep.scale.wake.port` or `skep.scale.wake.tcp`.")
        .default("false")
        .into(|d, _, t| put(&mut d.scale.wake, t, value::flag)),
    key("skep.scale.wake.port", Section::Scale, Kind::Ports, "8080", "The port or ports of the application, inside its container, on which it is asked over HTTP (WebSockets and HTTP/2 without TLS too).")
        .into(|d, _, t| put(&mut d.scale.wake_http, t, value::ports)),
    key("skep.scale.wake.tcp", Section::Scale, Kind::Ports, "5432", "The port or ports on which it is asked by another protocol over TCP, as databases and SSH are, where the caller speaks first or waits: any connection wakes it, and is held until it is up.")
        .into(|d, _, t| put(&mut d.scale.wake_tcp, t, value::ports)),
    key("skep.scale.wake.mode", Section::Scale, Kind::Choice("`hold` or `page`"), "page", "What a request gets that comes while the service sleeps: `hold` lets it wait until the service is up and passes it on, so that whoever asks sees nothing but a slow answer; `page` answers at once with a page that says so and looks again by itself. A service with a host-mode port cannot hold: its own task needs the port.")
        .default("hold")
        .into(|d, _, t| put(&mut d.scale.wake_mode, t, value::wake_mode)),
    key("skep.scale.wake.timeout", Section::Scale, Kind::Duration, "60s", "The longest that a request waits for the service to be up; then it gets the page, with status 503.")
        .default("1m")
        .into(|d, _, t| put(&mut d.scale.wake_timeout, t, value::wake_timeout)),
    key("skep.scale.wake.ignore", Section::Scale, Kind::Rules, "path:/health, agent:*monitor*", "What wakes nobody, as what monitors and robots ask: it gets the page, with status 503. Rules are `path:`, `agent:` (the User-Agent) with `*` for anything, and `source:` with an address or a network as in `10.0.0.0/8`.")
        .into(|d, _, t| put(&mut d.scale.wake_ignore, t, |t| value::list(t, value::rule))),
    key("skep.scale.wake.page", Section::Scale, Kind::Config, "shop_asleep", "The full name of a Swarm config that holds your own page (HTML), shown as it is while the service wakes.")
        .into(|d, _, t| put(&mut d.scale.wake_page, t, value::config_name)),
    key("skep.scale.wake.door", Section::Scale, Kind::Alias, "app-door", "Keeps a door before the service, also while that is up: a small service of Skep's own under this name, on the networks of the service, to which you point your proxy in its stead. It passes everything on, wakes the service as a waker would, which then takes nobody's place, and sees whether it is used: with `skep.scale.idle.after` the service falls asleep when nothing was asked for, and nothing was open (a WebSocket, a download, any other connection), for so long. No Prometheus is needed. What `skep.scale.wake.ignore` names is no use. A door that has just begun takes everything for used, and one through which nothing has come yet goes on doing so: perhaps nobody was pointed at it. A service that has a door publishes no ports, since nobody would see who comes there.")
        .into(|d, _, t| put(&mut d.scale.wake_door, t, value::alias)),
    // --- maintenance
    key("skep.maintenance", Section::Maintenance, Kind::Flag, "true", "Show users a maintenance page while the service is stopped.")
        .default("false")
        .into(|d, _, t| put(&mut d.maintenance.on, t, value::flag)),
    key("skep.maintenance.mode", Section::Maintenance, Kind::Choice("`swap` or `proxy`"), "swap", "How the page gets in front of users: in the service's own place, or by your proxy, which shows it while the service is at zero. The words `standin` and `config:<service>` are known, but not done yet.")
        .default("swap")
        .into(|d, _, t| put(&mut d.maintenance.mode, t, value::maintenance_mode)),
    key("skep.maintenance.port", Section::Maintenance, Kind::Ports, "8080", "The port or ports that the application listens on, inside its container. Needed by the mode `swap`.")
        .into(|d, _, t| put(&mut d.maintenance.ports, t, value::ports)),
    key("skep.maintenance.page", Section::Maintenance, Kind::Config, "shop_page", "The full name of a Swarm config that holds your own page (HTML), shown as it is.")
        .into(|d, _, t| put(&mut d.maintenance.page, t, value::config_name)),
    key("skep.maintenance.retry-after", Section::Maintenance, Kind::Seconds, "120", "What the page answers as `Retry-After`.")
        .default("120")
        .into(|d, _, t| put(&mut d.maintenance.retry_after, t, value::seconds)),
    key("skep.maintenance.window", Section::Maintenance, Kind::Window, "CRON_TZ=Europe/Paris 0 2 * * SUN for 2h", "Puts the page up on a schedule.").later(),
    // --- data
    key("skep.data", Section::Data, Kind::Choice("`postgres`, `mysql`, `mariadb`, `redis`, `rabbitmq`, `mongodb`, `volume` or `command`"), "postgres", "What kind of data the service keeps. `volume` is files as they are; a restore of it, and of `mysql`, `mariadb` and `redis`, stops the service itself for a moment, since its files are exchanged. `rabbitmq` is the definitions of the broker (virtual hosts, users with the hashes of their passwords, permissions, policies, parameters, exchanges, queues, bindings) and none of its messages; the node needs a fixed name (`hostname:` or `RABBITMQ_NODENAME`). `command` is anything that commands of your own can dump and load. `mongodb` is all databases of the server, by the `mongodump`, `mongorestore` and shell of its image; a restore goes in place and leaves accounts and roles as they are; it was tested against a stand-in of these tools, and never with a real MongoDB.")
        .into(|d, _, t| put(&mut d.data.engine, t, value::engine)),
    key("skep.data.database", Section::Data, Kind::Database, "shop", "The database that is backed up and restored. The one that the image creates, where absent. Of MySQL and MariaDB everything is backed up and restored, and of Redis all databases: there, this is the one in which checks run.")
        .into(|d, _, t| put(&mut d.data.database, t, value::database)),
    key("skep.data.volumes", Section::Data, Kind::Volumes, "uploads", "The volumes that hold the data, by the names that they have in the stack file or in the Swarm. With `skep.data=volume`: all named volumes that the service may write to, where absent. With `skep.data=command`: those that the commands see, at the same places as the service; the dump command cannot write there. None, where absent.")
        .into(|d, _, t| put(&mut d.data.volumes, t, value::volumes)),
    key("skep.data.dump.command", Section::Data, Kind::Command, "vault operator raft snapshot save /dev/stdout", "With `skep.data=command`: writes all of the data to its standard output, and exits with 0 only when that is whole. It runs as `/bin/sh -c` in a job of its own beside the service: in its image, as its user, with its environment, secrets, configs and networks, but not in its container, so it reaches the service as `$SKEP_HOST` (in a stack file `$$SKEP_HOST`) and not as `localhost`. When it fails, what it says on standard error is shown, the service's secrets taken out.")
        .into(|d, _, t| put(&mut d.data.dump, t, value::command)),
    key("skep.data.load.command", Section::Data, Kind::Command, "vault operator raft snapshot restore -force /dev/stdin", "With `skep.data=command`: replaces all of the live data by the dump that it reads from its standard input (a file, so `/dev/stdin` does as well), and exits with 0 only when that is done. It runs as the dump command does, while the service runs and its clients are stopped. It is run again where it failed half way, and with the safety backup where what it loaded does not pass the checks: it must not add to what is there.")
        .into(|d, _, t| put(&mut d.data.load, t, value::command)),
    key("skep.data.verify.command", Section::Data, Kind::Command, "vault operator raft snapshot inspect /dev/stdin", "With `skep.data=command`: reads a dump from its standard input and exits with 0 only when it is whole. It runs after each dump and before each restore, without the volumes of `skep.data.volumes`. Where absent, a dump is as good as the dump command's word, and its checksum tells whether it was changed since.")
        .into(|d, _, t| put(&mut d.data.verify, t, value::command)),
    // --- backup
    key("skep.backup.schedule", Section::Backup, Kind::Schedules, "CRON_TZ=Europe/Paris 15 2 * * *", "When backups are taken, by the clock of the zone that `CRON_TZ` names, else of UTC: a time that a change of clocks skips runs right after it, one that occurs twice runs once. A run that was missed is made up once, the newest only. By hand only, where absent.")
        .into(|d, _, t| put(&mut d.backup.schedules, t, value::schedules)),
    key("skep.backup.store", Section::Backup, Kind::Store, "nas", "The store, as named in Skep's configuration. Its default store, where absent.")
        .into(|d, _, t| put(&mut d.backup.store, t, value::short_name)),
    key("skep.backup.keep", Section::Backup, Kind::Keep, "7 daily, 4 weekly", "Which backups are kept when one has been made. Each rule keeps the newest one of so many days, weeks, … in which there is any, by the clock of the schedule's zone; `7 last` keeps the last seven. A backup that any of the rules keeps stays; the newest verified one and the newest proved one always do. What a restore put aside stays for `skep.restore.keep-old`. Where absent: `7 last, 7 daily, 4 weekly` with a `skep.backup.schedule`; without one nothing is removed.")
        .into(|d, _, t| put(&mut d.backup.keep, t, value::keep)),
    key("skep.backup.encrypt", Section::Backup, Kind::Recipient, "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "Encrypts backups for these age recipients. Skep decrypts with the identity that its configuration names (`SKEP_AGE_IDENTITY`); without one it makes backups that only people can restore.")
        .into(|d, _, t| put(&mut d.backup.encrypt, t, |t| value::list(t, value::recipient))),
    key("skep.backup.copies", Section::Backup, Kind::Stores, "offsite, nas", "Further stores that get a copy of each backup, as named in Skep's configuration. A copy that fails does not fail the backup: the next one tries again. A restore takes the backup from a copy where its own store does not give it.")
        .into(|d, _, t| put(&mut d.backup.copies, t, |t| value::list(t, value::short_name))),
    key("skep.backup.wal", Section::Backup, Kind::Flag, "true", "With `skep.data=postgres`: the write-ahead log of the server is received without end into the store, and each backup holds a base backup of the whole server besides its dump, so that `skep restore SERVICE --to TIME` brings back the database as it was at a moment. Needs PostgreSQL 15 or newer, a role that may replicate, a line `host replication` in `pg_hba.conf`, `max_slot_wal_keep_size` set (else a receiver that is away fills the live disk), no tablespaces of its own, and a store that is a directory or a volume, without encryption; `skep.backup.copies` copies base backups but not the log. Where something is missing, `skep check SERVICE` and `skep backups` say what. Taking the label away, or `skep release --all`, ends the receiver and drops its replication slot: do either before you remove the stack and keep its volume.")
        .default("false")
        .into(|d, _, t| put(&mut d.backup.wal, t, value::flag)),
    // --- drill
    key("skep.drill.schedule", Section::Drill, Kind::Schedules, "@daily", "When the newest backup is restored on the side, checked there and removed again, to prove that it can be restored. By the clock of its zone, as backups are. It gives way to anything else that is asked of the service, and is then made up later; one that was missed is made up once; one that failed is not repeated before its next time. By hand only, where absent.")
        .into(|d, _, t| put(&mut d.drill.schedules, t, value::schedules)),
    // --- restore points
    key("skep.point.schedule", Section::Point, Kind::Schedules, "@weekly", "When a restore point of the whole stack that the service belongs to is taken, with the data of all its data services, as `skep point` does. On any service of the stack; where several have it, each of their times counts. One that was missed is made up once. By hand only, where absent.")
        .into(|d, _, t| put(&mut d.point.schedules, t, value::schedules)),
    key("skep.point.keep", Section::Point, Kind::Keep, "7 daily, 4 weekly", "Which restore points of the stack are kept when one has been taken, by the rules of `skep.backup.keep` and the clock of the schedule's zone. On any service of the stack; where several have it, what any of them keeps stays. The newest point always stays, and the newest whose data can all come back; one without data takes no place of one with data. What a rollback took for safety stays a week. Where absent: the newest of the stack (`SKEP_KEEP_POINTS`).")
        .into(|d, _, t| put(&mut d.point.keep, t, value::keep)),
    // --- restore
    key("skep.restore.on-alert", Section::Restore, Kind::Alerts, "PostgresCorrupted", "Alerts that ask for a restore. The alert must name the service in turn, in its label `skep_service`.")
        .into(|d, _, t| put(&mut d.restore.on_alert, t, value::alerts)),
    key("skep.restore.mode", Section::Restore, Kind::Choice("`observe`, `approve` or `auto`"), "approve", "What such an alert may do: only report what would be done, wait for a person's approval, or act. `auto` needs an SQL check on the service.")
        .default(RestoreMode::Approve.as_str())
        .into(|d, _, t| put(&mut d.restore.mode, t, value::restore_mode)),
    key("skep.restore.cooldown", Section::Restore, Kind::Duration, "1h", "How long after an incident the same alert cannot ask again.")
        .default("1h")
        .into(|d, _, t| put(&mut d.restore.cooldown, t, duration::parse)),
    key("skep.restore.limit", Section::Restore, Kind::Limit, "2/24h", "At most so many restores by alerts in such a time.")
        .default("2/24h")
        .into(|d, _, t| put(&mut d.restore.limit, t, value::limit)),
    key("skep.restore.strategy", Section::Restore, Kind::Choice("`beside` or `in-place`"), "beside", "Whether the new data is built and verified beside the live data, or in its place (`postgres` only; `command` knows no other way than in its place).")
        .default(Strategy::Beside.as_str())
        .into(|d, _, t| put(&mut d.restore.strategy, t, value::strategy)),
    key("skep.restore.clients", Section::Restore, Kind::Services, "app, worker", "Services that stop for the cut-over. Those that name this one in `skep.depends-on`, where absent.")
        .into(|d, _, t| put(&mut d.restore.clients, t, value::service_names)),
    key("skep.restore.ignore-clients", Section::Restore, Kind::Services, "exporter", "Services that use the data and need not stop.")
        .into(|d, _, t| put(&mut d.restore.ignore_clients, t, value::service_names)),
    key("skep.restore.lookback", Section::Restore, Kind::Duration, "1h", "How much older than the beginning of the alert a backup must be.")
        .default("1h")
        .into(|d, _, t| put(&mut d.restore.lookback, t, duration::parse)),
    key("skep.restore.flush", Section::Restore, Kind::Services, "cache", "Redis services to empty (database 0 of each) before the clients start: they may hold what the restored data does not.")
        .into(|d, _, t| put(&mut d.restore.flush, t, value::service_names)),
    key("skep.restore.canary", Section::Restore, Kind::Flag, "false", "Whether one hidden copy of a client must pass its checks on the new data before the clients start.")
        .default("true")
        .into(|d, _, t| put(&mut d.restore.canary, t, value::flag)),
    key("skep.restore.quiesce", Section::Restore, Kind::Flag, "false", "Whether clients stop for the cut-over. With `false` it happens under running clients, which must reconnect by themselves (`postgres` only).")
        .default("true")
        .into(|d, _, t| put(&mut d.restore.quiesce, t, value::flag)),
    key("skep.restore.keep-old", Section::Restore, Kind::Duration, "7d", "How long the data that was replaced is kept, for going back.")
        .default("7d")
        .into(|d, _, t| put(&mut d.restore.keep_old, t, duration::parse_positive)),
    // --- restart, update
    key("skep.restart.schedule", Section::Restart, Kind::Schedules, "0 4 * * SUN", "When the service is restarted, and with it what needs it, in order, as `skep restart` does. Where several services of a stack are to restart, put it on the one that the others need. Its checks that are asked before are waited for, 15 minutes; a service that sleeps is left asleep; a restart that could not begin within an hour, since something else had the service or Skep was away, is left out, and one that failed is not repeated before its next time. By hand only, where absent.")
        .into(|d, _, t| put(&mut d.restarts, t, value::schedules)),
    key("skep.update.backup", Section::Update, Kind::Flag, "true", "Whether `skep update` backs up the data that the service keeps (`skep.data`) before it changes anything; with `skep.update.rollback=full` that of what it needs as well.")
        .default("true")
        .into(|d, _, t| put(&mut d.update.backup, t, value::flag)),
    key("skep.update.monitor", Section::Update, Kind::Duration, "30m", "How long an update is watched for red flags: a task that is not healthy or was killed, a restart loop, a check that fails, and what `skep.update.red-flag.log` and `skep.update.red-flag.query` name.")
        .default("30m")
        .into(|d, _, t| put(&mut d.update.monitor, t, duration::parse_positive)),
    key("skep.update.rollback", Section::Update, Kind::Choice("`image`, `full` or `none`"), "image", "What goes back by itself on a red flag: `image` is the exact spec that the service had; `full` is also the data of what it needs (`skep.depends-on`) and its own files, as they were backed up before the update, so that whatever users have written since is taken out of the live data (it is kept, for a while); `none` is nothing. Where absent: `image`, and `none` for a service with `skep.data` whose new image has run, since the old one may not read what the new one made of the data.")
        .into(|d, _, t| put(&mut d.update.rollback, t, value::go_back)),
    key("skep.update.red-flag.log", Section::Update, Kind::Regex, "FATAL|PANIC", "A line in the logs of the new tasks that is a red flag, the first one that matches. Lines on both streams count, each for itself, from the beginning of the task; one of more than 16 KiB in parts. Where the service's log driver keeps nothing (`none`, or another with `cache-disabled`), an update is refused. Of each task the last 20000 lines are read every few seconds; the operation says where that was not all.")
        .into(|d, _, t| put(&mut d.update.red_flag_log, t, value::line_regex)),
    key("skep.update.red-flag.query", Section::Update, Kind::Query, "sum(rate(http_requests_total{service=\"app\",code=~\"5..\"}[1m])) > 1", "Anything that this PromQL expression returns while an update is watched is a red flag, as in an alerting rule: whatever the value, so a comparison belongs into it. It is asked of the Prometheus that Skep's configuration names (`SKEP_PROMETHEUS_URL`), once before anything is changed and every few seconds while it is watched. What it returned before is no red flag until it has returned nothing. That it could not be asked is none either, and the operation says so. Memory near its limit, with cAdvisor: `max(container_memory_working_set_bytes{container_label_com_docker_swarm_service_name=\"shop_app\"} / (container_spec_memory_limit_bytes{container_label_com_docker_swarm_service_name=\"shop_app\"} > 0)) > 0.95`.")
        .into(|d, _, t| put(&mut d.update.red_flag_query, t, value::query)),
    key("skep.update.watch", Section::Update, Kind::Flag, "true", "Looks the tag that the service runs up in its registry, every few minutes while `skep.update.window` is open, and updates the service where the tag has another digest, as `skep update` does: with backup, checks, and the way back. Services of a stack that run the same tag and have this label are updated as one, at a time at which the windows of all of them are open. Each digest is tried once: one that went back, was cancelled, or was replaced by hand since is not tried again (`skep update SERVICE --image TAG@DIGEST` does); one that could not begin is tried again when the window opens the next time, or a day later. A service whose image carries no digest gets one with its first update. A registry that wants a login is asked with that of `SKEP_REGISTRY_CONFIG`. One that does not answer is no reason for anything.")
        .default("false")
        .into(|d, _, t| put(&mut d.update.watch, t, value::flag)),
    key("skep.update.window", Section::Update, Kind::Window, "CRON_TZ=Europe/Paris 0 2 * * SUN for 2h", "When `skep.update.watch` may begin an update; at any time, where absent. What has begun is watched to its end. Nothing else is held back by it: `skep update` updates at once.")
        .into(|d, _, t| put(&mut d.update.window, t, Window::parse)),
    // --- checks
    key("skep.check.<name>.http", Section::Check, Kind::Url, "http://:8080/health", "Asks this address from inside the application's network; an empty host is the service itself, each task of which is asked as `localhost`, as its own health check asks.")
        .into(|d, n, t| put(&mut d.check(n).http, t, Url::parse)),
    key("skep.check.<name>.status", Section::Check, Kind::Status, "200", "The status that an HTTP check wants.")
        .default("200")
        .into(|d, n, t| put(&mut d.check(n).status, t, value::status)),
    key("skep.check.<name>.body", Section::Check, Kind::Regex, "\"status\":\"ok\"", "What the answer's body must hold. This version does expressions without special characters only: `\\.` for a dot.")
        .into(|d, n, t| put(&mut d.check(n).body, t, Body::parse)),
    key("skep.check.<name>.tcp", Section::Check, Kind::Port, "5432", "Connects to this port of the service.")
        .into(|d, n, t| put(&mut d.check(n).tcp, t, value::port)),
    key("skep.check.<name>.within", Section::Check, Kind::Duration, "2s", "The longest time for an answer of an HTTP or TCP check.")
        .default("2s")
        .into(|d, n, t| put(&mut d.check(n).within, t, duration::parse_positive)),
    key("skep.check.<name>.sql", Section::Check, Kind::Sql, "SELECT count(*) FROM users", "Runs one statement in the database, in a read-only transaction. The first column of the first row is compared. For `redis`, a command that reads one value: `DBSIZE`, `EXISTS key`, `GET key`, `STRLEN`, `TYPE`, `TTL`, `LLEN`, `LINDEX`, `HGET`, `HLEN`, `SCARD`, `SISMEMBER`, `ZCARD`, `ZSCORE`, `XLEN` and the like.")
        .into(|d, n, t| put(&mut d.check(n).sql, t, value::sql)),
    key("skep.check.<name>.expect", Section::Check, Kind::Expect, "ge 1", "What an SQL check's value must be, or what a command prints (without blanks around it; no `matches`), or how many lines of a log there are a minute (no `matches`).")
        .default("any")
        .into(|d, n, t| put(&mut d.check(n).expect, t, probe::expect)),
    key("skep.check.<name>.phase", Section::Check, Kind::Choice("`before` or `after`"), "before", "When the check is asked: `after` an operation, of what it has done, or `before` a restart or an update of the service begins and of nothing else, for what must not be interrupted: open transactions, running jobs, users who are active. One that does not pass refuses, and nothing is changed; `--wait` waits until all of them pass, `--force` does not ask them.")
        .default("after")
        .into(|d, n, t| put(&mut d.check(n).phase, t, value::phase)),
    key("skep.check.<name>.command", Section::Check, Kind::Command, "/app/selftest --of $SKEP_HOST", "Runs a command (`/bin/sh -c`; in an image without a shell a program and plain words) that passes when it exits with 0 and prints what `.expect` says. It runs in a job of its own beside the service: in its image, as its user, with its environment, secrets, configs and networks, without its volumes, and not in its container, so it reaches the service as `$SKEP_HOST` (in a stack file `$$SKEP_HOST`) and not as `localhost`. It is run again until it passes or the time for checks is over, so it must change nothing that a second run would not. A hidden task that is tried before clients start (`skep.restore.canary`) is asked by those commands that hold `$SKEP_HOST`. When it does not pass, the end of what it says on standard error is told, the service's secrets taken out.")
        .into(|d, n, t| put(&mut d.check(n).command, t, value::command)),
    key("skep.check.<name>.timeout", Section::Check, Kind::Duration, "30s", "The longest time for one run of a command; then all that it began is killed, and it has not passed.")
        .default("1m")
        .into(|d, n, t| put(&mut d.check(n).timeout, t, duration::parse_positive)),
    key("skep.check.<name>.log", Section::Check, Kind::Regex, "ERROR|FATAL", "Counts the lines that match in what the service's tasks have printed since a restart, an update or a rollback began; `.expect` says how many a minute there may be, as in `le 5`, and where absent there may be none. Counted when everything else has passed, after an update also four times while it is watched; a time shorter than a minute counts as one. Of each task at most the newest 20,000 lines are read. Not of the phase `before`, and not asked in a restore.")
        .into(|d, n, t| put(&mut d.check(n).log, t, value::line_regex)),
];

// === impl KeySpec ===

/// A row that says nothing yet about what is done with it.
const fn key(
    pattern: &'static str,
    section: Section,
    kind: Kind,
    example: &'static str,
    doc: &'static str,
) -> KeySpec {
    KeySpec { pattern, section, kind, default: None, doc, since: "0.1", example, take: Take::Later }
}

impl KeySpec {
    const fn default(mut self, text: &'static str) -> KeySpec {
        self.default = Some(text);
        self
    }

    const fn into(mut self, take: fn(&mut Draft, &str, &str) -> Result<String, Fault>) -> KeySpec {
        self.take = Take::Into(take);
        self
    }

    const fn later(self) -> KeySpec {
        self
    }

    /// Whether this version does what the label asks for.
    pub const fn is_done(&self) -> bool {
        matches!(self.take, Take::Into(_))
    }

    /// Whether the key holds a name.
    pub fn is_named(&self) -> bool {
        self.pattern.contains(NAME)
    }

    /// The key with this name in it.
    pub fn with_name(&self, name: &str) -> String {
        self.pattern.replace(NAME, name)
    }

    /// The name in a key of this pattern (empty for a pattern without one); none where the key has another pattern.
    pub fn name_in<'a>(&self, key: &'a str) -> Option<&'a str> {
        match self.pattern.split_once(NAME) {
            None => (key == self.pattern).then_some(""),
            Some((before, after)) => {
                let name = key.strip_prefix(before)?.strip_suffix(after)?;
                (!name.is_empty() && !name.contains('.')).then_some(name)
            }
        }
    }
}

// === impl Kind ===

impl Kind {
    /// What is wanted, to follow the word "want".
    pub fn want(self) -> String {
        match self {
            Kind::Choice(words) => words.to_owned(),
            other => other.fixed().to_owned(),
        }
    }

    const fn fixed(self) -> &'static str {
        match self {
            Kind::Flag => "`true` or `false`",
            Kind::Services => {
                "names of services with commas between them, each of the same stack (`db`) or in full (`shop_db`)"
            }
            Kind::Addresses => "e-mail addresses with commas between them",
            Kind::Alerts => "names of alerts with commas between them",
            Kind::Choice(_) => "one of a few words",
            Kind::Port => "a port, `1` to `65535`",
            Kind::Ports => "ports, `1` to `65535`, with commas between them",
            Kind::Count => "a whole number",
            Kind::Status => "an HTTP status, `100` to `599`",
            Kind::Seconds => "whole seconds without a unit, `1` to `86400`",
            Kind::Duration => "a duration like `30s`, `15m`, `1h30m` or `7d`",
            Kind::Schedules => {
                "a schedule: five cron fields (`0 2 * * MON-FRI`), `@daily` or `@every 15m`, with `CRON_TZ=Europe/Paris ` \
                 before it where it is not UTC; several with `;` between them"
            }
            Kind::Window => "a schedule and a length, as in `0 2 * * SUN for 2h`",
            Kind::Keep => {
                "counts with a period (`last`, `hourly`, `daily`, `weekly`, `monthly`, `yearly`), as in `7 daily, 4 weekly`"
            }
            Kind::Limit => "a count in a time, as in `2/24h`",
            Kind::Config => "the name of a Swarm config",
            Kind::Alias => "a name on networks (`a-z`, `0-9`, `-`), as services have them",
            Kind::Store => "the name of a store in Skep's configuration (`a-z`, `0-9`, `-`)",
            Kind::Stores => "names of stores in Skep's configuration with commas between them",
            Kind::Database => "the name of a database",
            Kind::Volumes => "names of volumes with commas between them",
            Kind::Url => {
                "an address `http://host:port/path`; without a host, the service itself: `http://:8080/health`"
            }
            Kind::Regex => "a regular expression",
            Kind::Sql => "one SQL statement",
            Kind::Expect => {
                "a comparison: `eq`, `ne`, `lt`, `le`, `gt`, `ge` or `matches` and what to compare with, as in `ge 1`"
            }
            Kind::Command => "a command for the shell",
            Kind::Query => "a PromQL expression",
            Kind::Recipient => "age recipients, `age1…`, with commas between them",
            Kind::Rules => {
                "rules `path:/health`, `agent:*bot*` or `source:10.0.0.0/8` with commas between them"
            }
        }
    }
}

// === free functions ===

/// The row of a key, with the name that the key holds.
pub fn find(key: &str) -> Option<(&'static KeySpec, &str)> {
    KEYS.iter().find_map(|spec| Some((spec, spec.name_in(key)?)))
}

/// A sentence with a valid value of a key.
pub fn example(key: &str) -> Option<String> {
    find(key).map(|(spec, _)| format!("for example `{key}={}`", spec.example))
}

/// The valid key nearest to one that is not.
pub fn nearest_key(key: &str) -> Option<String> {
    // A key that resembles `skep.check.<name>.…` is compared with the patterns under its own name.
    let name = key.split('.').nth(2).filter(|n| value::short_name(n).is_ok()).unwrap_or("name");
    let candidates: Vec<String> = KEYS.iter().map(|spec| spec.with_name(name)).collect();
    let tail = |key: &str| key.strip_prefix("skep.").unwrap_or(key).to_owned();
    let tails: Vec<String> = candidates.iter().map(|c| tail(c)).collect();
    let dotted =
        key.to_ascii_lowercase().replacen(['_', ':', '/', '-'], ".", usize::from(!key.starts_with("skep.")));
    let near = value::closest(&tail(&dotted), tails.iter().map(String::as_str))?;
    Some(format!("skep.{near}"))
}

fn put<T: Show>(
    slot: &mut Option<T>,
    text: &str,
    parse: fn(&str) -> Result<T, Fault>,
) -> Result<String, Fault> {
    let value = parse(text)?;
    let shown = value.show();
    *slot = Some(value);
    Ok(shown)
}
