//! SQL and network checks, as the runner does them.

use std::time::Duration;

use skep_runner::Report;
use skep_runner::task::{CheckOutcome, Expect, NetCheck, NetChecks, Probe, SqlCheck, SqlChecks};

use super::World;
use super::job::{Failure, Next, PgJob, Worked};
use crate::sim::users::Answer;
use crate::sim::workload::View;

// === impl PgJob ===

impl PgJob {
    pub(super) fn sql_checks(&self, world: &mut World, view: &View<'_>, task: &SqlChecks) -> Worked {
        let SqlChecks { connect, database, checks } = task;
        let server = self.connect(world, view, connect)?;
        let found = server.databases.get(database);
        let found =
            found.ok_or_else(|| Failure::refused(format!("database \"{database}\" does not exist")))?;
        if !found.allow {
            let text = format!("database \"{database}\" is not currently accepting connections");
            return Err(Failure::refused(text));
        }
        let outcomes = checks.iter().map(|check| sql_outcome(check, found.query(&check.sql))).collect();
        Ok(Next::Done(Box::new(Report::Checks { outcomes })))
    }

    pub(super) fn net_checks(&mut self, view: &View<'_>, task: &NetChecks) -> Worked {
        let since = *self.since.get_or_insert(view.at);
        let outcomes: Vec<CheckOutcome> = task.checks.iter().map(|c| self.net_outcome(view, c)).collect();
        let passed = outcomes.iter().all(|o| o.passed);
        if passed || view.at - since >= Duration::from_secs(task.deadline_s) {
            return Ok(Next::Done(Box::new(Report::Checks { outcomes })));
        }
        Ok(Next::Again(Duration::from_millis(500)))
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
