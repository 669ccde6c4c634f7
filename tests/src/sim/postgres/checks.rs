//! SQL and network checks, and commands as checks, as the runner does them.
//!
//! Of commands it knows `true`, `false`, `rows TABLE` (prints how many there are in the database of the service), and whatever holds
//! `$SKEP_HOST`: that asks the service's tasks as users do.

use std::time::Duration;

use skep_runner::task::{
    CheckOutcome, CommandCheck, CommandChecks, Expect, NetCheck, NetChecks, Probe, SqlCheck, SqlChecks,
};
use skep_runner::{HOST_VARIABLE, Report};

use super::World;
use super::job::{Failure, Next, PgJob, Worked};
use crate::sim::users::Answer;
use crate::sim::workload::View;

// === impl PgJob ===

impl PgJob {
    pub(super) fn sql_checks(&mut self, world: &mut World, view: &View<'_>, task: &SqlChecks) -> Worked {
        let asked = self.sql_outcomes(world, view, task);
        self.until_passed(view, task.deadline_s, &task.checks, asked)
    }

    /// Asks again until all pass or the time is over; who is away until then has not passed.
    pub(super) fn until_passed(
        &mut self,
        view: &View<'_>,
        deadline_s: u64,
        checks: &[SqlCheck],
        asked: Result<Vec<CheckOutcome>, Failure>,
    ) -> Worked {
        let away = |check: &SqlCheck, detail: &str| CheckOutcome {
            name: check.name.clone(),
            passed: false,
            detail: detail.to_owned(),
        };
        let outcomes = match asked {
            Err(failure) if deadline_s > 0 && failure.is_passing() => {
                checks.iter().map(|check| away(check, &failure.message)).collect()
            }
            asked => asked?,
        };
        self.judged(view, deadline_s, outcomes)
    }

    fn judged(&mut self, view: &View<'_>, deadline_s: u64, outcomes: Vec<CheckOutcome>) -> Worked {
        let since = *self.since.get_or_insert(view.at);
        let passed = outcomes.iter().all(|o| o.passed);
        if passed || view.at.saturating_sub(since) >= Duration::from_secs(deadline_s) {
            return Ok(Next::Done(Box::new(Report::Checks { outcomes })));
        }
        Ok(Next::Again(Duration::from_millis(500)))
    }

    fn sql_outcomes(
        &self,
        world: &mut World,
        view: &View<'_>,
        task: &SqlChecks,
    ) -> Result<Vec<CheckOutcome>, Failure> {
        let SqlChecks { connect, database, checks, .. } = task;
        let server = self.connect(world, view, connect)?;
        let found = server.databases.get(database);
        let found =
            found.ok_or_else(|| Failure::refused(format!("database \"{database}\" does not exist")))?;
        if !found.allow {
            let text = format!("database \"{database}\" is not currently accepting connections");
            return Err(Failure::refused(text));
        }
        Ok(checks.iter().map(|check| sql_outcome(check, found.query(&check.sql))).collect())
    }

    /// Asks applications, which look at the data themselves, so nothing is locked meanwhile.
    pub(super) fn command_checks(&mut self, view: &View<'_>, task: &CommandChecks) -> Worked {
        let outcomes =
            task.checks.iter().map(|c| self.command_outcome(view, c)).collect::<Result<_, Failure>>()?;
        self.judged(view, task.deadline_s, outcomes)
    }

    fn command_outcome(&self, view: &View<'_>, check: &CommandCheck) -> Result<CheckOutcome, Failure> {
        let CommandCheck { name, command, expect, .. } = check;
        if let Some(path) =
            command.environment.as_ref().filter(|path| !self.container.files.contains_key(*path))
        {
            return Err(Failure::refused(format!("cannot read {path}")));
        }
        let peers = view.resolve(&self.container, &command.host);
        let printed = match command.text.as_str() {
            "true" => Ok(String::new()),
            text if text.starts_with("rows ") => {
                let table = text.trim_start_matches("rows ");
                let world = self.data.lock();
                let server = peers.first().and_then(|peer| world.servers.get(&peer.service));
                let rows =
                    server.and_then(|server| server.databases.values().next()?.content.get(table).copied());
                rows.map(|rows| rows.to_string()).ok_or_else(|| format!("no {table} there"))
            }
            text if text.contains(HOST_VARIABLE) && !peers.is_empty() => {
                let refused = peers.iter().find(|peer| !matches!(view.answer(peer), Answer::App(_)));
                refused.map_or_else(|| Ok(String::new()), |peer| Err(format!("{} is not well", peer.task)))
            }
            _ => Err("exit status: 1".to_owned()),
        };
        let query = SqlCheck { name: name.clone(), sql: String::new(), expect: expect.clone() };
        Ok(sql_outcome(&query, printed))
    }

    pub(super) fn net_checks(&mut self, view: &View<'_>, task: &NetChecks) -> Worked {
        let outcomes: Vec<CheckOutcome> = task.checks.iter().map(|c| self.net_outcome(view, c)).collect();
        self.judged(view, task.deadline_s, outcomes)
    }

    pub(super) fn net_outcome(&self, view: &View<'_>, check: &NetCheck) -> CheckOutcome {
        let outcome =
            |passed: bool, detail: String| CheckOutcome { name: check.name.clone(), passed, detail };
        let found = view.resolve(&self.container, &check.host);
        if found.is_empty() {
            return outcome(false, format!("{} does not resolve", check.host));
        }
        for peer in &found {
            if let Err(why) = ask(check, &view.answer(peer)) {
                return outcome(false, format!("{}: {why}", peer.addresses().join(", ")));
            }
        }
        outcome(true, format!("asked {} addresses", found.len()))
    }
}

pub(super) fn sql_outcome(check: &SqlCheck, answer: Result<String, String>) -> CheckOutcome {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let (passed, detail) = match answer {
        Err(message) => (false, message),
        Ok(value) => {
            let compare =
                |test: fn(f64, f64) -> bool, wanted: f64| number(&value).is_some_and(|v| test(v, wanted));
            let passed = match &check.expect {
                Expect::Any => true,
                Expect::Eq(wanted) => {
                    value == *wanted || number(&value).zip(number(wanted)).is_some_and(|(a, b)| a == b)
                }
                Expect::Ne(wanted) => value != *wanted,
                Expect::Lt(wanted) => compare(|a, b| a < b, *wanted),
                Expect::Le(wanted) => compare(|a, b| a <= b, *wanted),
                Expect::Gt(wanted) => compare(|a, b| a > b, *wanted),
                Expect::Ge(wanted) => compare(|a, b| a >= b, *wanted),
                Expect::Matches(part) => value.contains(part.as_str()),
            };
            (passed, format!("found {value}"))
        }
    };
    CheckOutcome { name: check.name.clone(), passed, detail }
}

/// Whether an answer passes a check.
fn ask(check: &NetCheck, answer: &Answer) -> Result<(), String> {
    let (found, text) = match answer {
        Answer::App(text) => (200, text.as_str()),
        Answer::Error(why) => (500, why.as_str()),
        Answer::Page => (503, ""),
        Answer::BadGateway => (502, ""),
        Answer::Wrong(text) => (200, text.as_str()),
        Answer::Refused => return Err("connection refused".to_owned()),
    };
    match &check.probe {
        Probe::Tcp => Ok(()),
        Probe::Http { status, .. } if *status != found => {
            Err(format!("answered {found} instead of {status}"))
        }
        Probe::Http { body: Some(body), .. } if !text.contains(body.as_str()) => {
            Err(format!("the body does not contain `{body}`"))
        }
        Probe::Http { .. } => Ok(()),
    }
}
