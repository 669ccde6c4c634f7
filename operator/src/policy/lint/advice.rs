//! What works, but probably not as hoped: warnings that need more than the labels.

use jiff::{SignedDuration, Timestamp};

use crate::policy::policies::{Tasks, nothing_to_scale};
use crate::policy::problem::{Code, Problem, Section};
use crate::policy::types::{Backup, Check, CheckProbe, Maintenance, MaintenanceMode, Period, Policy};
use crate::policy::value;

/// What surrounds the labels of a service.
pub(super) struct Surroundings {
    /// Whether the service has a health check of its own.
    pub(super) health_check: bool,
    /// Whether it publishes a port in host mode.
    pub(super) host_port: bool,
    /// The configs that the stack defines, where that is known.
    pub(super) configs: Option<Vec<StackName>>,
    /// The named volumes that the service mounts.
    pub(super) volumes: Vec<StackName>,
    /// How many tasks it has.
    pub(super) tasks: Tasks,
    /// Its log driver, where that keeps nothing that can be read.
    pub(super) unread_log: Option<String>,
    /// Its image, where that has a digest and no tag.
    pub(super) untagged: Option<String>,
    /// Whether the labels set `skep.restore.mode`.
    pub(super) sets_mode: bool,
}

/// A config or a volume of a stack.
pub(super) struct StackName {
    /// Its key in the file.
    pub(super) key: String,
    /// Its name in the Swarm.
    pub(super) name: String,
    /// Whether the name begins with that of a stack that is not known.
    pub(super) open: bool,
}

impl StackName {
    /// Whether it may have this full name.
    fn may_be(&self, full: &str) -> bool {
        let ends_alike = full.strip_suffix(self.key.as_str()).is_some_and(|stack| stack.ends_with('_'));
        full == self.name || (self.open && ends_alike)
    }
}

/// All that is to be said about one service beyond its labels: warnings, and names of what it does not have.
pub(super) fn advice(policy: &Policy, around: &Surroundings) -> Vec<Problem> {
    let mut warnings = unknown_volumes(policy, around);
    if let Some(maintenance) = &policy.maintenance {
        warnings.extend(health_check(maintenance, around));
        warnings.extend(host_port(maintenance, around));
        warnings.extend(page(maintenance, around));
    }
    warnings.extend(nothing_to_scale(policy, around.tasks));
    warnings.extend(unread_log(policy, around));
    warnings.extend(uncounted(policy, around));
    warnings.extend(nothing_to_watch(policy, around));
    warnings.extend(alerts(policy, around));
    warnings.extend(policy.backup.as_ref().and_then(|b| lone(b).or_else(|| thin_today(b))));
    warnings.extend(policy.backup.as_ref().and_then(log_without_backup));
    warnings
}

fn health_check(maintenance: &Maintenance, around: &Surroundings) -> Option<Problem> {
    (maintenance.mode == MaintenanceMode::Swap && !around.health_check).then(|| {
        Problem::new(Code::NoHealthCheck, Section::Maintenance, "skep.maintenance.mode")
            .got("swap")
            .want("a health check: without one Swarm cannot tell when the application answers again, and requests may fail")
            .hint("add `healthcheck:` to the service, unless its image has one".to_owned())
    })
}

fn host_port(maintenance: &Maintenance, around: &Surroundings) -> Option<Problem> {
    (maintenance.mode == MaintenanceMode::Swap && around.host_port).then(|| {
        Problem::new(Code::HostPort, Section::Maintenance, "skep.maintenance.mode")
            .got(maintenance.mode.to_string())
            .want("no port in host mode: the old task must stop first, about a second of refused connections each time")
            .hint("publish the port with `mode: ingress`, or use `skep.maintenance.mode=proxy`".to_owned())
    })
}

fn page(maintenance: &Maintenance, around: &Surroundings) -> Option<Problem> {
    let (page, configs) = (maintenance.page.as_ref()?, around.configs.as_ref()?);
    if configs.iter().any(|config| config.may_be(page)) {
        return None;
    }
    let near = value::closest(page, configs.iter().map(|c| c.key.as_str()));
    let meant = configs.iter().find(|c| Some(c.key.as_str()) == near);
    let problem = Problem::new(Code::UndefinedConfig, Section::Maintenance, "skep.maintenance.page")
        .got(page)
        .want("the full name of a config that exists: the stack defines none of this name")
        .hint(meant.map(|config| format!("did you mean `{}`?", config.name)));
    Some(problem)
}

fn unknown_volumes(policy: &Policy, around: &Surroundings) -> Vec<Problem> {
    let named = policy.data.iter().flat_map(|data| &data.volumes);
    let has = |name: &String| around.volumes.iter().any(|volume| volume.key == *name || volume.may_be(name));
    let keys: Vec<&str> = around.volumes.iter().map(|volume| volume.key.as_str()).collect();
    let problem = |name: &String| {
        let found = if keys.is_empty() { "none".to_owned() } else { format!("`{}`", keys.join("`, `")) };
        Problem::new(Code::UnknownVolume, Section::Data, "skep.data.volumes")
            .got(name.as_str())
            .want(format!("a named volume that the service mounts (it mounts {found})"))
            .hint(value::nearest(name, keys.iter().copied()))
    };
    named.filter(|name| !has(name)).map(problem).collect()
}

/// Whoever looks for lines there would find none, whatever is printed.
fn unread_log(policy: &Policy, around: &Surroundings) -> Option<Problem> {
    let line = policy.update.as_ref()?.red_flags.log.as_ref()?;
    let driver = around.unread_log.as_ref()?;
    let problem = Problem::new(Code::UnreadLog, Section::Update, "skep.update.red-flag.log")
        .got(line.as_str())
        .want(format!("a log that can be read: the log driver of the service (`{driver}`) keeps nothing"))
        .hint(
            "use the driver `local` or `json-file`, or take the label away: until then updates are refused"
                .to_owned(),
        );
    Some(problem)
}

/// As [`unread_log`], of checks.
fn uncounted(policy: &Policy, around: &Surroundings) -> Vec<Problem> {
    let Some(driver) = &around.unread_log else { return Vec::new() };
    let log = |check: &Check| match &check.probe {
        CheckProbe::Log { log, .. } => Some((check.name.clone(), log.clone())),
        _ => None,
    };
    let problem = |(name, log): (String, String)| {
        Problem::new(Code::UnreadLog, Section::Check, format!("skep.check.{name}.log"))
            .got(log)
            .want(format!("a log that can be read: the log driver of the service (`{driver}`) keeps nothing"))
            .hint(
                "use the driver `local` or `json-file`, or take the label away: until then it never passes"
                    .to_owned(),
            )
    };
    policy.checks.iter().filter_map(log).map(problem).collect()
}

/// A digest is the same for good: nothing about it could ever change.
fn nothing_to_watch(policy: &Policy, around: &Surroundings) -> Option<Problem> {
    policy.update.as_ref().filter(|update| update.watch)?;
    let image = around.untagged.as_ref()?;
    let problem = Problem::new(Code::NothingToWatch, Section::Update, "skep.update.watch").got("true").want(
        format!("an image with a tag, which may come to mean another one: `{image}` has a digest alone"),
    );
    Some(problem)
}

fn alerts(policy: &Policy, around: &Surroundings) -> Option<Problem> {
    let restore = policy.restore.as_ref()?;
    if restore.on_alert.is_empty() {
        return around.sets_mode.then(|| {
            Problem::new(Code::ModeWithoutAlert, Section::Restore, "skep.restore.mode")
                .got(restore.mode.to_string())
                .want("`skep.restore.on-alert` beside it: without an alert nothing happens by itself")
        });
    }
    let scheduled = policy.backup.as_ref().is_none_or(|b| !b.schedules.is_empty());
    (!scheduled).then(|| {
        Problem::new(Code::RestoreWithoutBackup, Section::Restore, "skep.restore.on-alert")
            .got(restore.on_alert.join(", "))
            .want("`skep.backup.schedule` beside it: there are only the backups that somebody takes by hand")
            .hint("for example `skep.backup.schedule=@daily`".to_owned())
    })
}

/// A log that nothing ever begins with, and that nothing is ever removed of.
fn log_without_backup(backup: &Backup) -> Option<Problem> {
    (backup.wal && backup.schedules.is_empty()).then(|| {
        Problem::new(Code::LogWithoutBackup, Section::Backup, "skep.backup.wal")
            .got("true")
            .want("`skep.backup.schedule` beside it: a moment is recovered from a base backup, which is taken with each backup, and without one the log grows without end")
            .hint("for example `skep.backup.schedule=@daily`".to_owned())
    })
}

/// A single backup, which the next run replaces.
fn lone(backup: &Backup) -> Option<Problem> {
    let [only] = backup.keep.as_slice() else { return None };
    (only.count == 1 && !backup.schedules.is_empty()).then(|| {
        Problem::new(Code::LoneBackup, Section::Backup, "skep.backup.keep")
            .got(only.to_string())
            .want("more than one backup: the next run replaces the only one, whatever the data has become by then")
            .hint("for example `7 last, 7 daily, 4 weekly`, which also holds without this label where there is a schedule".to_owned())
    })
}

/// Several backups a day, of which the retention keeps one.
fn thin_today(backup: &Backup) -> Option<Problem> {
    const OFTEN: SignedDuration = SignedDuration::from_hours(20);
    const SAMPLE: usize = 16;
    let keeps_today = backup.keep.iter().any(|k| matches!(k.per, Period::Last | Period::Hourly));
    if keeps_today {
        return None;
    }
    let mut due: Vec<Timestamp> = Vec::new();
    for schedule in &backup.schedules {
        let next = |at: &Timestamp| schedule.next_after(*at);
        due.extend(std::iter::successors(next(&Timestamp::UNIX_EPOCH), next).take(SAMPLE));
    }
    due.sort_unstable();
    let often = due.windows(2).any(|pair| pair[1].duration_since(pair[0]) < OFTEN);
    often.then(|| {
        let keep: Vec<String> = backup.keep.iter().map(ToString::to_string).collect();
        Problem::new(Code::ThinToday, Section::Backup, "skep.backup.keep")
            .got(keep.join(", "))
            .want("`hourly` or `last` among the periods: each backup of a day drops the one before it")
            .hint(format!("for example `24 hourly, {}`", keep.join(", ")))
    })
}
