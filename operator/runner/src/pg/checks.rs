//! SQL checks. A check is text from a label: it runs as one dynamic statement inside a read-only
//! transaction of its own, where it can neither commit, nor write, nor reach psql's commands.

use std::cmp::Ordering;

use serde::Deserialize;
use skep_runner::task::{CheckOutcome, Expect, Report, SqlCheck, SqlChecks};

use super::psql::{Session, When};
use super::quote::literal;
use super::server::{Admin, Server};
use crate::error::{Error, Result};
use crate::job::Job;

/// Longest time of one check.
const STATEMENT_TIMEOUT: &str = "60s";
/// Longest value that is told, in characters.
const TOLD: usize = 200;

/// What a statement yielded.
#[derive(Debug, Deserialize)]
struct Answer {
    rows: u64,
    value: Option<String>,
}

/// Runs the checks one after another; the task succeeds also when checks fail.
pub(crate) fn run(job: &Job, task: &SqlChecks) -> Result<Report> {
    let SqlChecks { connect, database, checks } = task;
    drop(Admin::open(job, connect, &[])?);
    let server = Server::new(job, connect)?;
    let outcomes =
        checks.iter().map(|check| outcome(&server, database, check)).collect::<Result<Vec<_>>>()?;
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
    let value = match answer {
        _ if *expect == Expect::Any => return Ok((true, format!("answered {} rows", answer.rows))),
        Answer { rows: 0, .. } => return Ok((false, "answered no row".to_owned())),
        Answer { value: None, .. } => return Ok((false, "answered NULL".to_owned())),
        Answer { value: Some(value), .. } => value,
    };
    let (passed, wanted) = match expect {
        Expect::Any => (true, String::new()),
        Expect::Eq(wanted) => (is_equal(value, wanted), format!("= {wanted}")),
        Expect::Ne(wanted) => (!is_equal(value, wanted), format!("≠ {wanted}")),
        Expect::Lt(wanted) => (is_ordered(value, *wanted, &[Ordering::Less]), format!("< {wanted}")),
        Expect::Le(wanted) => {
            (is_ordered(value, *wanted, &[Ordering::Less, Ordering::Equal]), format!("≤ {wanted}"))
        }
        Expect::Gt(wanted) => (is_ordered(value, *wanted, &[Ordering::Greater]), format!("> {wanted}")),
        Expect::Ge(wanted) => {
            (is_ordered(value, *wanted, &[Ordering::Greater, Ordering::Equal]), format!("≥ {wanted}"))
        }
        Expect::Matches(regex) => (matches(session, value, regex)?, format!("a match of {regex}")),
    };
    Ok((passed, format!("found {}, wanted {wanted}", shortened(value))))
}

fn matches(session: &mut Session, value: &str, regex: &str) -> Result<bool> {
    let (value, regex) = (literal(value), literal(regex));
    session.json(&format!("SELECT pg_catalog.to_json({value}::text OPERATOR(pg_catalog.~) {regex}::text)"))
}

/// As numbers where both are numbers; a boolean by either of its spellings; else as text.
fn is_equal(value: &str, wanted: &str) -> bool {
    let (value, wanted) = (value.trim(), wanted.trim());
    let numbers = value.parse::<f64>().ok().zip(wanted.parse::<f64>().ok());
    value == wanted
        || numbers.is_some_and(|(value, wanted)| value == wanted)
        || matches!((value, wanted), ("true", "t") | ("false", "f"))
}

fn is_ordered(value: &str, wanted: f64, allowed: &[Ordering]) -> bool {
    let ordering = value.trim().parse::<f64>().ok().and_then(|value| value.partial_cmp(&wanted));
    ordering.is_some_and(|ordering| allowed.contains(&ordering))
}

fn shortened(value: &str) -> String {
    let mut chars = value.chars();
    let told: String = chars.by_ref().take(TOLD).collect();
    if chars.next().is_some() { told + "…" } else { told }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_equal_by_value_and_texts_by_letters() {
        assert!(is_equal("3", "3.0"));
        assert!(is_equal("9007199254740993", "9007199254740993"));
        assert!(is_equal("true", "t") && is_equal("false", "f"));
        assert!(!is_equal("true", "f"));
        assert!(!is_equal("abc", "abd"));
    }

    #[test]
    fn what_is_no_number_is_in_no_order() {
        assert!(is_ordered("12", 3.0, &[Ordering::Greater]));
        assert!(!is_ordered("many", 3.0, &[Ordering::Greater]));
        assert!(!is_ordered("NaN", 3.0, &[Ordering::Greater, Ordering::Less, Ordering::Equal]));
    }

    #[test]
    fn a_long_value_is_told_short() {
        assert_eq!(shortened("é"), "é");
        assert_eq!(shortened(&"é".repeat(TOLD + 1)).chars().count(), TOLD + 1);
        assert!(shortened(&"é".repeat(TOLD + 1)).ends_with('…'));
    }
}
