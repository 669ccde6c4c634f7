//! The checks of a service once an operation has done something to it: over the network, in its data, and by its commands.
//!
//! Invariants: each is asked until it passes or the time for checks is over, and one that cannot be asked has not passed; nothing of
//! what sleeps is asked; of what a command says only so much is told as may be shown (S15).

use std::fmt::Display;
use std::time::Duration;

use jiff::Timestamp;
use skep_runner::task::{CheckOutcome, CommandCheck, CommandChecks, ShellCommand};
use skep_runner::{HOST_VARIABLE, Report, Task};

use super::client_spec::is_asleep;
use super::data::unexpected;
use super::frozen::{Client, Target};
use super::record::JobRecordState;
use super::restore::cut::soon;
use super::restore::prepare::{Checked, check_all, failures};
use super::restore::trial::over_network;
use super::saga::{Cx, Fault, Progress};
use super::work::{self, Order, Outcome};
use super::{canary, clients, freeze};
use crate::policy::{Check, CheckProbe};
use crate::runtime::scrub;
use crate::swarm::object::{self, Service, TaskState};

/// So much of what a command says is told.
const TOLD: usize = 240;

/// How far the checks of services are.
pub enum Tried {
    /// Not all have passed yet.
    Wait(Progress),
    /// So many are defined, and those of services that run have passed.
    Passed(usize),
}

/// The names of these checks, with what they ask.
pub fn named<'a>(checks: impl IntoIterator<Item = &'a Check>) -> Vec<String> {
    checks.into_iter().map(|check| format!("{} ({})", check.name, kind(&check.probe))).collect()
}

/// Those among these checks that are asked of a service; the others are counted in its log.
pub fn asked(checks: &[Check]) -> impl Iterator<Item = &Check> {
    checks.iter().filter(|check| !matches!(check.probe, CheckProbe::Log { .. }))
}

/// What a check asks, for people.
pub const fn kind(probe: &CheckProbe) -> &'static str {
    match probe {
        CheckProbe::Http { .. } => "HTTP",
        CheckProbe::Sql { .. } => "SQL",
        CheckProbe::Tcp { .. } => "TCP",
        CheckProbe::Command { .. } => "command",
        CheckProbe::Log { .. } => "log",
    }
}

/// Asks the checks of services, one service after the other.
///
/// # Errors
/// When one does not pass, or what the engine says.
pub async fn after_all(cx: &mut Cx<'_>, clients: &[Client]) -> Result<Tried, Fault> {
    for (nth, client) in clients.iter().enumerate() {
        if let Some(progress) = after(cx, client, nth).await? {
            return Ok(Tried::Wait(progress));
        }
    }
    Ok(Tried::Passed(clients.iter().map(|client| asked(&client.checks).count()).sum()))
}

/// Asks the checks of one service; `nth` tells its jobs from others of the step. None = all of them have passed, or nothing of the
/// service runs.
///
/// # Errors
/// When one does not pass, or what the engine says.
pub async fn after(cx: &mut Cx<'_>, client: &Client, nth: impl Display) -> Result<Option<Progress>, Fault> {
    if client.checks.is_empty() {
        return Ok(None);
    }
    // The checks of what sleeps behind a waker would wake it.
    let found = clients::find(cx, client).await?.filter(|service| !is_asleep(&service.spec));
    let Some(service) = found else { return Ok(None) };
    let net = canary::checks_of(client);
    if !net.is_empty()
        && let Some(progress) = over_network(cx, client, &service.spec, net, &format!("net{nth}")).await?
    {
        return Ok(Some(progress));
    }
    if let Some(progress) = in_data(cx, client, &service, &format!("sql{nth}")).await? {
        return Ok(Some(progress));
    }
    commands_of(cx, client, &service, &format!("cmd{nth}")).await
}

/// Asks the commands of one service, and nothing else.
///
/// # Errors
/// When one does not pass, or what the engine says.
pub async fn commands_of(
    cx: &mut Cx<'_>,
    client: &Client,
    service: &Service,
    key: &str,
) -> Result<Option<Progress>, Fault> {
    if commands(&client.checks, "", None).is_empty() || has_passed(cx, key) {
        return Ok(None);
    }
    let target = freeze::beside(cx, service, &client.nodes).await?;
    let within = cx.env.settings.check_deadline;
    let host = target.access.connect.host.clone();
    by_command(cx, &target, &client.checks, &host, within, key).await
}

/// Runs the commands among these checks in a job beside the target, whose tasks they find under `host`; once, where there is no
/// time to run them again. None = all have passed.
///
/// # Errors
/// When one does not pass or cannot be run, or what the engine says.
pub async fn by_command(
    cx: &mut Cx<'_>,
    target: &Target,
    checks: &[Check],
    host: &str,
    within: Duration,
    key: &str,
) -> Result<Option<Progress>, Fault> {
    let environment = target.access.connect.password_file.as_deref();
    let checks = commands(checks, host, environment);
    if checks.is_empty() {
        return Ok(None);
    }
    let task = Task::CommandChecks(CommandChecks { checks, deadline_s: within.as_secs() });
    let order = Order { key, target, task, store: None, data: false };
    let name = &target.name;
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Some(Progress::Wait(soon(wait)))),
        Outcome::Failed(fault) => {
            let why = scrub::line(&fault.message, TOLD);
            Err(Fault::failed(format!("{name}: its commands cannot be run as checks: {why}")))
        }
        Outcome::Done(report) => match *report {
            Report::Checks { outcomes } => match failures(&scrubbed(outcomes)) {
                None => Ok(None),
                Some(why) => Err(Fault::failed(format!("{name}: {why}"))),
            },
            other => Err(unexpected(&other)),
        },
    }
}

/// The commands among these checks that ask whatever `$SKEP_HOST` names: those can be put to a canary instead of the client.
pub fn for_canary(checks: &[Check]) -> Vec<Check> {
    let asks_host = |check: &&Check| match &check.probe {
        CheckProbe::Command { command, .. } => command.contains(HOST_VARIABLE),
        CheckProbe::Http { .. }
        | CheckProbe::Sql { .. }
        | CheckProbe::Tcp { .. }
        | CheckProbe::Log { .. } => false,
    };
    checks.iter().filter(asks_host).cloned().collect()
}

/// The commands among these checks, as a job runs them.
fn commands(checks: &[Check], host: &str, environment: Option<&str>) -> Vec<CommandCheck> {
    let command = |check: &Check| match &check.probe {
        CheckProbe::Command { command, expect, within } => Some(CommandCheck {
            name: check.name.clone(),
            command: ShellCommand {
                text: command.clone(),
                host: host.to_owned(),
                environment: environment.map(str::to_owned),
            },
            expect: expect.clone(),
            within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        }),
        CheckProbe::Http { .. }
        | CheckProbe::Sql { .. }
        | CheckProbe::Tcp { .. }
        | CheckProbe::Log { .. } => None,
    };
    checks.iter().filter_map(command).collect()
}

/// Tells of tasks of a service that came up since a moment and have ended since: it is up, and its checks may all have passed.
///
/// # Errors
/// What the engine says.
pub async fn tell_ended(cx: &mut Cx<'_>, client: &Client, since: Timestamp) -> Result<(), Fault> {
    let tasks = cx.engine().tasks(&[&client.id]).await?;
    let has_ended = |task: &&object::Task| {
        let by_itself = matches!(task.state, TaskState::Failed | TaskState::Rejected | TaskState::Complete);
        by_itself && task.created >= since
    };
    let ended: Vec<&object::Task> = tasks.iter().filter(has_ended).collect();
    if let Some(last) = ended.iter().max_by_key(|task| task.changed) {
        let why = scrub::line(&last.error, TOLD);
        let why = if why.is_empty() { "no error is known".to_owned() } else { why };
        let (name, count) = (&client.name, ended.len());
        cx.remark(format!("{name} is up, but {count} of its new task(s) ended before: {why}"));
    }
    Ok(())
}

/// The SQL checks of a service, in its own server.
async fn in_data(
    cx: &mut Cx<'_>,
    client: &Client,
    service: &Service,
    key: &str,
) -> Result<Option<Progress>, Fault> {
    let sql = freeze::sql_checks(&client.checks);
    if sql.is_empty() || has_passed(cx, key) {
        return Ok(None);
    }
    let name = &client.name;
    let Some(target) = freeze::server_of(cx, service, &client.nodes).await? else {
        let checks: Vec<String> = sql.iter().map(|check| format!("`{}`", check.name)).collect();
        let checks = checks.join(", ");
        cx.remark(format!(
            "check {checks} of {name} was not asked: its labels name no server to ask (skep.data)"
        ));
        return Ok(None);
    };
    let within = cx.env.settings.check_deadline;
    match check_all(cx, &target, &target.database, sql, within, key).await? {
        Checked::Wait(Progress::Wait(wait)) => Ok(Some(Progress::Wait(soon(wait)))),
        Checked::Wait(other) => Ok(Some(other)),
        Checked::Passed => Ok(None),
        Checked::Failed(why) => Err(Fault::failed(format!("{name}: {why}"))),
        Checked::Unable(fault) => {
            Err(Fault::failed(format!("{name}: its checks cannot be asked: {}", fault.message)))
        }
    }
}

/// Whether the job of this key is over and its checks have passed: then nothing about the service matters to them any more.
fn has_passed(cx: &mut Cx<'_>, key: &str) -> bool {
    let record = cx.record().jobs.get(key).filter(|record| record.state == JobRecordState::Closed);
    match record.and_then(|record| record.report.as_deref()) {
        Some(Report::Checks { outcomes }) => outcomes.iter().all(|outcome| outcome.passed),
        _ => false,
    }
}

fn scrubbed(outcomes: Vec<CheckOutcome>) -> Vec<CheckOutcome> {
    let line = |outcome: CheckOutcome| CheckOutcome { detail: scrub::line(&outcome.detail, TOLD), ..outcome };
    outcomes.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use skep_runner::task::Expect;

    use super::*;

    fn command(name: &str, text: &str) -> Check {
        let probe = CheckProbe::Command {
            command: text.to_owned(),
            expect: Expect::Eq("3".to_owned()),
            within: Duration::from_millis(1500),
        };
        Check { name: name.to_owned(), probe }
    }

    #[test]
    fn only_commands_that_ask_for_the_host_are_put_to_a_canary() {
        let tcp =
            Check { name: "port".to_owned(), probe: CheckProbe::Tcp { port: 80, within: Duration::ZERO } };
        let checks = [command("own", "curl -f http://$SKEP_HOST/"), command("other", "/app/selftest"), tcp];
        let names: Vec<String> = for_canary(&checks).into_iter().map(|check| check.name).collect();
        assert_eq!(names, ["own"]);
        assert_eq!(named(&checks), ["own (command)", "other (command)", "port (TCP)"]);
    }

    #[test]
    fn a_command_keeps_what_its_labels_say() {
        let [check] = commands(&[command("own", "x $SKEP_HOST")], "tasks.shop_app", Some("/secret"))
            .try_into()
            .unwrap();
        assert_eq!((check.within_ms, check.expect), (1500, Expect::Eq("3".to_owned())));
        let ShellCommand { text, host, environment } = check.command;
        assert_eq!(
            (text.as_str(), host.as_str(), environment.as_deref()),
            ("x $SKEP_HOST", "tasks.shop_app", Some("/secret"))
        );
    }
}
