//! Red flags that the labels of a service ask for: a line in the logs of its new tasks, and what a query to Prometheus returns.
//!
//! Invariants: only tasks that the update has made are read, each from its beginning, and from where it was read to last whoever looks
//! next; what could not be read or asked is no red flag, and the operation says so; what a query returned before the update is
//! none until it has returned nothing; of a line only so much is told as may be shown (S15).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::Unit;
use super::decide::has_run;
use crate::operation::prometheus;
use crate::operation::saga::{Cx, Fault};
use crate::policy::RedFlags;
use crate::runtime::scrub;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{Service, Task};
use crate::swarm::spec;
use crate::swarm::task_log::{LogPart, TaskLog};

/// So many lines of a task are read in one look, the last ones: `skep.update.red-flag.log` tells people.
const LINES: u32 = 20_000;
/// So many bytes, the first ones of these.
const BYTES: usize = 4 * 1024 * 1024;
/// So many tasks are read at once.
const AT_ONCE: usize = 8;
/// The longest time for one look at all of them.
const LONGEST_LOOK: Duration = Duration::from_secs(20);
/// Both streams of a container are written side by side: so far back may a line be that came a moment later.
const SIDE_BY_SIDE: SignedDuration = SignedDuration::from_secs(1);
/// After the window has ended, what could not be read is tried for so long.
const GRACE: Duration = Duration::from_secs(30);
/// So much of a line is told.
const SHOWN: usize = 160;

/// What the plan froze of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// A regular expression for lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    /// A PromQL expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// Whether it returned something before anything was changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    before: bool,
}

/// What the step journals of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Looked {
    /// When it was looked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    /// From where each task is read on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    read: BTreeMap<String, Timestamp>,
    /// Why not all was read that was there at the last look; empty where all was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    unread: String,
    /// Whether lines were passed over, since too many came at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    skipped: bool,
    /// How the query was answered.
    #[serde(default, skip_serializing_if = "Answers::is_none")]
    answers: Answers,
}

/// How a query was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answers {
    /// How often it returned nothing.
    #[serde(default)]
    quiet: u32,
    /// How often it returned something, as it had before the update.
    #[serde(default)]
    as_before: u32,
    /// How often there was no answer.
    #[serde(default)]
    missed: u32,
    /// Why there was none, the last time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    why: String,
}

/// What came of reading one task.
#[derive(Debug, Default)]
struct Read {
    /// From where it is read on.
    on: Option<Timestamp>,
    /// The first line that matches.
    found: Option<String>,
    /// Why not all was read, empty where all was.
    unread: String,
    /// Whether lines may have been passed over.
    skipped: bool,
}

// === impl Asked ===

impl Asked {
    /// What the labels ask for, with what the query returns before anything is changed.
    pub(super) async fn freeze(cx: &Cx<'_>, flags: &RedFlags) -> Asked {
        let RedFlags { log, query } = flags.clone();
        let before = match &query {
            // Where there is no answer now, it is taken for the one that is hoped for.
            Some(query) => ask(cx, query).await.is_ok_and(|values| !values.is_empty()),
            None => false,
        };
        Asked { log, query, before }
    }

    fn is_none(&self) -> bool {
        self.log.is_none() && self.query.is_none()
    }
}

/// Why an update cannot be watched as the labels ask, for what the Swarm knows of the service alone.
pub(super) fn unreadable(service: &Service, flags: &RedFlags) -> Option<String> {
    flags.log.as_ref()?;
    let driver = spec::keeps_no_log(&service.spec)?;
    Some(unread_log(service.name(), &format!("its log driver (`{driver}`)")))
}

/// The same, for what this node says of containers whose spec names no log driver.
pub(super) async fn unreadable_here(
    cx: &Cx<'_>,
    service: &Service,
    flags: &RedFlags,
) -> Result<Option<String>, Fault> {
    let names_none = spec::template(&service.spec)["LogDriver"]["Name"].as_str().is_none_or(str::is_empty);
    if flags.log.is_none() || !names_none {
        return Ok(None);
    }
    let info = cx.engine().info().await?;
    let is_unread = spec::no_log_of(&info.log_driver, None);
    let whose = format!("the log driver of this node (`{}`)", info.log_driver);
    Ok(is_unread.then(|| unread_log(service.name(), &whose)))
}

fn unread_log(name: &str, whose: &str) -> String {
    format!("skep.update.red-flag.log of {name} looks for lines that nobody can read: {whose} keeps nothing")
}

// === impl Looked ===

impl Looked {
    /// Whether nothing was looked at.
    pub(super) fn is_none(&self) -> bool {
        *self == Looked::default()
    }

    /// Looks, where it is time to, and says what is a red flag.
    pub(super) async fn look(
        &mut self,
        cx: &Cx<'_>,
        unit: &Unit,
        monitor_s: u64,
        tasks: &[Task],
        end: Timestamp,
    ) -> Result<Option<String>, Fault> {
        let (asked, now) = (&unit.flags, cx.now());
        let pause = if now < end || self.unread.is_empty() { every(monitor_s) } else { every(0) };
        let is_due = self.at.is_none_or(|at| cx.since(at) >= pause || (at < end && now >= end));
        if asked.is_none() || !is_due {
            return Ok(None);
        }
        let flag = match &asked.log {
            Some(log) => {
                let log =
                    Regex::new(log).map_err(|e| Fault::failed(format!("skep.update.red-flag.log: {e}")))?;
                self.read(cx, unit, tasks, &log).await
            }
            None => None,
        };
        self.at = Some(now);
        Ok(match (flag, &asked.query) {
            (None, Some(query)) => {
                let answer = ask(cx, query).await;
                self.answers.take(answer, asked.before)
            }
            (flag, _) => flag,
        })
    }

    /// Whether the last look is still to be made, or to be made again.
    pub(super) fn is_open(&self, unit: &Unit, end: Timestamp, now: Timestamp) -> bool {
        let late = now.duration_since(end).unsigned_abs() >= GRACE && now > end;
        !unit.flags.is_none() && !late && (self.at.is_none_or(|at| at < end) || !self.unread.is_empty())
    }

    /// What is to be said of them once the window is over, where no flag was red.
    pub(super) fn remarks(&self, unit: &Unit) -> Vec<String> {
        let name = &unit.client.name;
        let mut remarks = Vec::new();
        if !self.unread.is_empty() {
            remarks
                .push(format!("not all of the log of {name} was looked at for red flags: {}", self.unread));
        }
        if self.skipped {
            remarks.push(format!(
                "not all of the log of {name} was looked at for red flags: more than {LINES} lines came at once"
            ));
        }
        if unit.flags.query.is_some() {
            remarks.extend(self.answers.remark(name));
        }
        remarks
    }

    async fn read(&mut self, cx: &Cx<'_>, unit: &Unit, tasks: &[Task], log: &Regex) -> Option<String> {
        let terminal = spec::has_terminal(&unit.change.base);
        let engine = cx.engine();
        let tasks: Vec<&Task> = tasks.iter().filter(|task| has_run(task)).collect();
        let parts: Vec<(String, LogPart)> = tasks
            .iter()
            .map(|task| {
                let since = self.read.get(&task.id).copied();
                (task.id.clone(), LogPart { since, lines: LINES, bytes: BYTES, terminal })
            })
            .collect();
        let reads = stream::iter(parts).map(|(task, part)| one(engine, log, task, part));
        let in_time = reads.buffer_unordered(AT_ONCE).take_until(tokio::time::sleep(LONGEST_LOOK));
        let reads: Vec<(String, Read)> = in_time.collect().await;
        let missing = tasks.len().saturating_sub(reads.len());
        self.unread.clear();
        if missing > 0 {
            self.unread = format!("{missing} task(s) could not be read in time");
        }
        let mut found = None;
        for (id, read) in reads {
            if let Some(on) = read.on {
                self.read.insert(id.clone(), on);
            }
            if !read.unread.is_empty() {
                self.unread = format!("task {id}: {}", read.unread);
            }
            self.skipped |= read.skipped;
            if let Some(line) = read.found.filter(|_| found.is_none()) {
                let replica = tasks.iter().find(|t| t.id == id).filter(|t| t.slot > 0);
                let whose = replica.map_or_else(|| format!("task {id}"), |t| format!("replica {}", t.slot));
                found = Some(format!(
                    "a line in the log of {whose} matches `{}`: {line}",
                    scrub::line(log.as_str(), SHOWN)
                ));
            }
        }
        self.read.retain(|id, _| tasks.iter().any(|task| task.id == *id));
        found
    }
}

/// So often is it looked.
fn every(monitor_s: u64) -> Duration {
    Duration::from_secs((monitor_s / 60).clamp(1, 10))
}

async fn one(engine: &Engine, log: &Regex, task: String, part: LogPart) -> (String, Read) {
    let read = match engine.task_log(&task, part).await {
        Ok(found) => read_of(&found, part, log),
        // It is older than what the Swarm remembers, and was read before.
        Err(Error::NotFound { .. }) => Read::default(),
        Err(error) => Read { unread: crate::runtime::chain(&error), ..Read::default() },
    };
    (task, read)
}

/// What a part of a log tells.
fn read_of(log: &TaskLog, part: LogPart, wanted: &Regex) -> Read {
    let newest = log.lines.iter().filter_map(|line| line.at).max();
    // Where there is more, it goes on exactly where it ended, or it might never.
    let back = if log.cut { SignedDuration::ZERO } else { SIDE_BY_SIDE };
    let on = newest.and_then(|at| at.checked_sub(back).ok()).max(part.since);
    let found = log.lines.iter().find(|line| wanted.is_match(&line.text));
    let unread = match (log.fault.as_str(), log.cut) {
        ("", false) => String::new(),
        ("", true) => "it says more than is read at once".to_owned(),
        (fault, _) => scrub::line(fault, SHOWN),
    };
    let skipped = !log.cut && log.lines.len() >= usize::try_from(part.lines).unwrap_or(usize::MAX);
    Read { on, found: found.map(|line| scrub::line(&line.text, SHOWN)), unread, skipped }
}

// === impl Answers ===

impl Answers {
    fn is_none(&self) -> bool {
        *self == Answers::default()
    }

    /// Takes one answer, and says whether it is a red flag.
    fn take(&mut self, answer: Result<Vec<f64>, String>, before: bool) -> Option<String> {
        match answer {
            Err(why) => {
                self.missed += 1;
                self.why = why;
            }
            Ok(values) => match values.first() {
                None => self.quiet += 1,
                Some(_) if before && self.quiet == 0 => self.as_before += 1,
                Some(first) => {
                    return Some(format!(
                        "skep.update.red-flag.query returns {} value(s), the first of which is {first}",
                        values.len()
                    ));
                }
            },
        }
        None
    }

    fn remark(&self, name: &str) -> Option<String> {
        let query = format!("skep.update.red-flag.query of {name}");
        match self {
            Answers { quiet: 0, as_before: 0, why, .. } => {
                Some(format!("{query} could not be asked, so it was no red flag: {why}"))
            }
            Answers { quiet: 0, .. } => Some(format!(
                "{query} returned something before the update already, and did so all the while: it could tell nothing"
            )),
            Answers { missed: 0, .. } => None,
            Answers { missed, why, .. } => {
                Some(format!("{query} could not be asked {missed} time(s) meanwhile: {why}"))
            }
        }
    }
}

async fn ask(cx: &Cx<'_>, query: &str) -> Result<Vec<f64>, String> {
    let Some(url) = &cx.env.settings.prometheus else {
        return Err("no Prometheus is named (SKEP_PROMETHEUS_URL)".to_owned());
    };
    prometheus::ask(url, query).await.map_err(|why| scrub::line(&why.to_string(), SHOWN))
}

#[cfg(test)]
#[path = "flags_tests.rs"]
mod tests;
