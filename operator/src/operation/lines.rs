//! Checks that count lines: how many of those that the tasks of a service have printed since the operation began match, a minute.
//!
//! Invariants: nothing but tasks that the operation made, or that run, is read; what could not be read has not passed; of a line only so
//! much is told as may be shown (S15).

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use jiff::Timestamp;
use regex::Regex;
use skep_runner::task::Expect;

use super::client_spec::is_asleep;
use super::clients;
use super::frozen::Client;
use super::saga::{Cx, Fault};
use super::update::decide::has_run;
use crate::policy::{Check, CheckProbe};
use crate::runtime::scrub;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{Task, TaskState};
use crate::swarm::spec;
use crate::swarm::task_log::LogPart;

/// So many lines of a task are read, the last ones: the label tells people.
const LINES: u32 = 20_000;
/// So many bytes.
const BYTES: usize = 4 * 1024 * 1024;
/// So many tasks are read at once.
const AT_ONCE: usize = 8;
/// The longest time for all of them.
const LONGEST: Duration = Duration::from_secs(20);
/// So much of a line, or of an expression, is told.
const SHOWN: usize = 160;

/// A check that counts lines.
struct Wanted<'a> {
    name: &'a str,
    log: Regex,
    expect: &'a Expect,
}

/// Counts the lines that the log checks of these services look for.
///
/// # Errors
/// When there are more than a check wants, or a log cannot be read; what the engine says.
pub async fn count(cx: &mut Cx<'_>, clients: &[Client]) -> Result<(), Fault> {
    for client in clients {
        let wanted = wanted(&client.checks)?;
        if !wanted.is_empty() {
            of_one(cx, client, &wanted).await?;
        }
    }
    Ok(())
}

fn wanted(checks: &[Check]) -> Result<Vec<Wanted<'_>>, Fault> {
    let mut wanted = Vec::new();
    for check in checks {
        let CheckProbe::Log { log, expect } = &check.probe else { continue };
        let log = Regex::new(log).map_err(|e| Fault::failed(format!("check `{}`: {e}", check.name)))?;
        wanted.push(Wanted { name: &check.name, log, expect });
    }
    Ok(wanted)
}

async fn of_one(cx: &mut Cx<'_>, client: &Client, wanted: &[Wanted<'_>]) -> Result<(), Fault> {
    let name = &client.name;
    let found = clients::find(cx, client).await?.filter(|service| !is_asleep(&service.spec));
    let Some(service) = found else { return Ok(()) };
    let cannot = |why: &str| {
        Fault::failed(format!("{name}: check `{}`: its log cannot be read: {why}", wanted[0].name))
    };
    if let Some(driver) = spec::keeps_no_log(&service.spec) {
        return Err(cannot(&format!("the log driver (`{driver}`) keeps nothing")));
    }
    let now = cx.now();
    let since = cx.op.journal.steps.first().map_or(now, |(_, record)| record.began);
    let runs = |task: &Task| task.state == TaskState::Running && task.desired == TaskState::Running;
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let tasks: Vec<Task> =
        tasks.into_iter().filter(|task| has_run(task) && (task.created >= since || runs(task))).collect();
    let Some(first) = tasks.iter().map(|task| task.created.max(since)).min() else { return Ok(()) };
    let lines = read(cx.engine(), &tasks, since, spec::has_terminal(&service.spec)).await;
    let lines = lines.map_err(|why| cannot(&why))?;
    let minutes = (now.duration_since(first).as_secs_f64() / 60.0).max(1.0);
    let failed: Vec<String> = wanted.iter().filter_map(|check| check.judge(&lines, minutes)).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Fault::failed(format!("{name}: {}", failed.join("; ")))),
    }
}

/// What these tasks have printed since a moment.
async fn read(
    engine: &Engine,
    tasks: &[Task],
    since: Timestamp,
    terminal: bool,
) -> Result<Vec<String>, String> {
    let part = LogPart { since: Some(since), lines: LINES, bytes: BYTES, terminal };
    let ids: Vec<String> = tasks.iter().map(|task| task.id.clone()).collect();
    let reads = stream::iter(ids).map(|id| async move { engine.task_log(&id, part).await });
    let in_time = reads.buffer_unordered(AT_ONCE).take_until(tokio::time::sleep(LONGEST));
    let reads: Vec<_> = in_time.collect().await;
    let missing = tasks.len().saturating_sub(reads.len());
    if missing > 0 {
        return Err(format!("{missing} task(s) could not be read in time"));
    }
    let mut lines = Vec::new();
    for read in reads {
        match read {
            Ok(log) if log.cut => return Err("a task says more than is read at once".to_owned()),
            Ok(log) if !log.fault.is_empty() => return Err(scrub::line(&log.fault, SHOWN)),
            Ok(log) => lines.extend(log.lines.into_iter().map(|line| line.text)),
            // It is older than what the Swarm remembers.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(scrub::line(&crate::runtime::chain(&error), SHOWN)),
        }
    }
    Ok(lines)
}

// === impl Wanted ===

impl Wanted<'_> {
    /// Why these lines of so many minutes do not pass; none where they do.
    fn judge(&self, lines: &[String], minutes: f64) -> Option<String> {
        let matching: Vec<&String> = lines.iter().filter(|line| self.log.is_match(line)).collect();
        let count = u32::try_from(matching.len()).unwrap_or(u32::MAX);
        let (passed, wanted) = compare(self.expect, f64::from(count) / minutes);
        let last = matching
            .last()
            .map_or_else(String::new, |line| format!(", the last one: {}", scrub::line(line, SHOWN)));
        (!passed).then(|| {
            let (name, log) = (self.name, scrub::line(self.log.as_str(), SHOWN));
            format!("check `{name}`: {count} line(s) in {minutes:.1} min match `{log}`, wanted {wanted} a minute{last}")
        })
    }
}

/// Whether there are as many a minute as is wanted, and how many that is; none at all where nothing else is said.
fn compare(expect: &Expect, rate: f64) -> (bool, String) {
    let is = |text: &str| text.trim().parse::<f64>().is_ok_and(|wanted| (wanted - rate).abs() < f64::EPSILON);
    match expect {
        Expect::Any => (rate <= 0.0, "none".to_owned()),
        Expect::Eq(text) => (is(text), text.clone()),
        Expect::Ne(text) => (!is(text), format!("≠ {text}")),
        Expect::Lt(wanted) => (rate < *wanted, format!("< {wanted}")),
        Expect::Le(wanted) => (rate <= *wanted, format!("≤ {wanted}")),
        Expect::Gt(wanted) => (rate > *wanted, format!("> {wanted}")),
        Expect::Ge(wanted) => (rate >= *wanted, format!("≥ {wanted}")),
        Expect::Matches(text) => (false, text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(expect: &Expect, lines: &[&str], minutes: f64) -> Option<String> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        Wanted { name: "errors", log: Regex::new("ERROR").unwrap(), expect }.judge(&lines, minutes)
    }

    #[test]
    fn lines_that_match_are_counted_by_the_minute() {
        let lines = ["fine", "ERROR one", "ERROR password=hunter2", "ERROR three"];
        assert_eq!(judged(&Expect::Any, &lines[..1], 1.0), None);
        assert_eq!(judged(&Expect::Le(2.0), &lines, 2.0), None);
        assert_eq!(judged(&Expect::Eq("3".to_owned()), &lines, 1.0), None);
        let why = judged(&Expect::Le(2.0), &lines[..3], 0.5).unwrap();
        assert!(
            why.starts_with("check `errors`: 2 line(s) in 0.5 min match `ERROR`, wanted ≤ 2 a minute"),
            "{why}"
        );
        assert!(why.contains("the last one: ERROR password=") && !why.contains("hunter2"), "{why}");
        assert!(judged(&Expect::Any, &lines, 60.0).unwrap().contains("wanted none a minute"));
    }
}
