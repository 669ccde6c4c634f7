//! Checks in a Redis or a MySQL.

use crate::asking::until_passed;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::task::{DataChecks, DataEngine, Report};
use crate::{mysql, redis};

/// Runs the checks one after another, until they pass or their time is over; the task succeeds also when checks fail.
pub(crate) fn run(job: &Job, task: &DataChecks) -> Result<Report> {
    let DataChecks { engine, connect, database, checks, deadline_s } = task;
    let (names, database): (Vec<&str>, _) =
        (checks.iter().map(|c| c.name.as_str()).collect(), database.as_deref());
    let outcomes = until_passed(job, &names, *deadline_s, || match engine {
        DataEngine::Redis => redis::checks::run(job, connect, database, checks),
        DataEngine::Mysql => mysql::checks::run(job, connect, database, checks),
        DataEngine::Volume => Err(Error::refused("a volume has no server to check")),
    })?;
    Ok(Report::Checks { outcomes })
}
