//! SQL checks. A check is text from a label: it runs as one dynamic statement inside a read-only
//! transaction of its own, where it can neither commit, nor write, nor reach psql's commands.

use crate::task::{CheckOutcome, Expect, Report, SqlCheck, SqlChecks};
use serde::Deserialize;

use super::psql::{Session, When};
use super::quote::literal;
use super::server::{Admin, Server};
use crate::asking::until_passed;
use crate::error::{Error, Result};
use crate::expect;
use crate::job::Job;

/// Longest time of one check.
const STATEMENT_TIMEOUT: &str = "60s";

/// What a statement yielded.
#[derive(Debug, Deserialize)]
struct Answer {
    rows: u64,
    value: Option<String>,
}

/// Runs the checks one after another, until they pass or their time is over; the task succeeds also when checks fail.
pub(crate) fn run(job: &Job, task: &SqlChecks) -> Result<Report> {
    let SqlChecks { connect, database, checks, deadline_s } = task;
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    let outcomes = until_passed(job, &names, *deadline_s, || {
        drop(Admin::open(job, connect, &[])?);
        let server = Server::new(job, connect)?;
        checks.iter().map(|check| outcome(&server, database, check)).collect()
    })?;
    Ok(Report::Checks { outcomes })
}

/// A statement that fails is an outcome; a server that is away is an error.
fn outcome(server: &Server<'_>, database: &str, check: &SqlCheck) -> Result<CheckOutcome> {
    let SqlCheck { name, sql, expect } = check;
    let mut session = Session::open(server, database, When::Working)?;
    let (passed, detail) = match answer(&mut session, sql) {
        Ok(answer) => judge(&mut session, expect, &answer)?,
        Err(Error::Sql { state, message }) if !is_away(&state) => (false, message),
        Err(error) => return Err(error),
    };
    Ok(CheckOutcome { name: name.clone(), passed, detail: server.job.out.redact(&detail) })
}

fn answer(session: &mut Session, sql: &str) -> Result<Answer> {
    let block = format!(
        "DECLARE value text; number bigint; BEGIN EXECUTE {} INTO value; GET DIAGNOSTICS number = ROW_COUNT;
         PERFORM pg_catalog.set_config('skep.answer',
           pg_catalog.json_build_object('rows', number, 'value', value)::pg_catalog.text, true); END",
        literal(sql.trim())
    );
    session.run("BEGIN READ ONLY")?;
    session.run(&format!("SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"))?;
    session.run(&format!("DO {}", literal(&block)))?;
    let answer = session.json("SELECT pg_catalog.current_setting('skep.answer')")?;
    session.run("ROLLBACK")?;
    Ok(answer)
}

/// Whether an SQLSTATE tells of the server (connection, resources, shutdown) rather than of the statement.
fn is_away(state: &str) -> bool {
    ["08", "53", "57P"].iter().any(|class| state.starts_with(class))
}

/// Whether the answer is as expected, and what to tell.
fn judge(session: &mut Session, expect: &Expect, answer: &Answer) -> Result<(bool, String)> {
    expect::judge(expect, answer.rows, answer.value.as_deref(), |value, regex| matches(session, value, regex))
}

fn matches(session: &mut Session, value: &str, regex: &str) -> Result<bool> {
    let (value, regex) = (literal(value), literal(regex));
    session.json(&format!("SELECT pg_catalog.to_json({value}::text OPERATOR(pg_catalog.~) {regex}::text)"))
}
