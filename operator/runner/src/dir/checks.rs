//! Checks in a Redis or a MySQL.

use crate::error::{Error, Result};
use crate::job::Job;
use crate::task::{DataChecks, DataEngine, Report};
use crate::{mysql, redis};

/// Runs the checks one after another; the task succeeds also when checks fail.
pub(crate) fn run(job: &Job, task: &DataChecks) -> Result<Report> {
    let DataChecks { engine, connect, database, checks } = task;
    let outcomes = match engine {
        DataEngine::Redis => redis::checks::run(job, connect, database.as_deref(), checks)?,
        DataEngine::Mysql => mysql::checks::run(job, connect, database.as_deref(), checks)?,
        DataEngine::Volume => return Err(Error::refused("a volume has no server to check")),
    };
    Ok(Report::Checks { outcomes })
}
