//! SQL checks. A check is text from a label: one statement that only reads, in a read-only transaction of its own.

use super::client::{Place, literal};
use crate::error::{Error, Result};
use crate::expect;
use crate::job::Job;
use crate::task::{CheckOutcome, Connect, SqlCheck};

/// First words of statements that only read.
const READING: [&str; 6] = ["SELECT", "WITH", "SHOW", "TABLE", "VALUES", "EXPLAIN"];

/// Runs checks in a server that is reached over the network.
pub(crate) fn run(
    job: &Job,
    connect: &Connect,
    database: Option<&str>,
    checks: &[SqlCheck],
) -> Result<Vec<CheckOutcome>> {
    let place = Place::network(job, connect)?;
    place.query(None, "SELECT 1")?;
    all(job, &place, database, checks)
}

/// Runs checks one after another; what a check finds is an outcome, a server that is away an error.
pub(super) fn all(
    job: &Job,
    place: &Place<'_>,
    database: Option<&str>,
    checks: &[SqlCheck],
) -> Result<Vec<CheckOutcome>> {
    checks.iter().map(|check| outcome(job, place, database, check)).collect()
}

fn outcome(job: &Job, place: &Place<'_>, database: Option<&str>, check: &SqlCheck) -> Result<CheckOutcome> {
    let SqlCheck { name, sql, expect } = check;
    let matches = |value: &str, regex: &str| {
        let rows = place.query(None, &format!("SELECT {} REGEXP {}", literal(value), literal(regex)))?;
        Ok(rows.first().is_some_and(|row| row == "1"))
    };
    let judged = answer(place, database, sql)
        .and_then(|(rows, value)| expect::judge(expect, rows, value.as_deref(), matches));
    let (passed, detail) = match judged {
        Ok(judged) => judged,
        Err(Error::Sql { message, .. } | Error::Refused(message)) => (false, message),
        Err(error) => return Err(error),
    };
    Ok(CheckOutcome { name: name.clone(), passed, detail: job.out.redact(&detail) })
}

/// Number of rows, and the first column of the first one.
fn answer(place: &Place<'_>, database: Option<&str>, sql: &str) -> Result<(u64, Option<String>)> {
    let first = sql.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    let verb: String = first.chars().take_while(char::is_ascii_alphabetic).collect();
    if !READING.contains(&verb.to_ascii_uppercase().as_str()) {
        return Err(Error::refused(format!("a check has to read: it begins with `{verb}`")));
    }
    let rows = place.query(
        database,
        &format!(
            "/*M!100101 SET SESSION max_statement_time = 60 */;
             /*!50708 SET SESSION max_execution_time = 60000 */;
             SET SESSION TRANSACTION READ ONLY;
             SET @skep_check = {};
             PREPARE skep_check FROM @skep_check;
             START TRANSACTION READ ONLY;
             EXECUTE skep_check;
             ROLLBACK;",
            literal(sql.trim().trim_end_matches(';'))
        ),
    )?;
    let value = rows.first().map(|row| row.split('\t').next().unwrap_or_default());
    Ok((rows.len() as u64, value.filter(|value| *value != "NULL").map(unescaped)))
}

/// What the client prints with `--batch`.
fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut plain = String::new();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('0') => '\0',
                Some(c) => c,
                None => '\\',
            },
            c => c,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn what_the_client_escapes_is_read_again() {
        assert_eq!(unescaped(r"a\tb\nc\\d\0"), "a\tb\nc\\d\0");
        assert_eq!(unescaped("plain"), "plain");
    }
}
