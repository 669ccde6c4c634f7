//! Checks in a Redis: commands that only read, from labels.

use super::client::{Answer, Client, is_passing};
use crate::error::{Error, Result};
use crate::expect;
use crate::job::Job;
use crate::task::{CheckOutcome, Connect, REDIS_READING, SqlCheck};

/// Runs checks in a server that is reached over the network.
pub(crate) fn run(
    job: &Job,
    connect: &Connect,
    database: Option<&str>,
    checks: &[SqlCheck],
) -> Result<Vec<CheckOutcome>> {
    let mut client = Client::open(job, connect)?;
    if let Some(database) = database {
        client.ask(&["SELECT", database])?;
    }
    all(job, &mut client, checks)
}

/// Runs checks one after another; what a check finds is an outcome, a server that is away an error.
pub(super) fn all(job: &Job, client: &mut Client, checks: &[SqlCheck]) -> Result<Vec<CheckOutcome>> {
    let mut outcomes = Vec::new();
    for SqlCheck { name, sql, expect } in checks {
        let no_regex = |_: &str, _: &str| Err(Error::refused("Redis has no regular expressions"));
        let judged = value(client, sql)?.and_then(|(rows, value)| {
            expect::judge(expect, rows, value.as_deref(), no_regex).map_err(|error| error.chain())
        });
        let (passed, detail) = judged.unwrap_or_else(|why| (false, why));
        outcomes.push(CheckOutcome { name: name.clone(), passed, detail: job.out.redact(&detail) });
    }
    Ok(outcomes)
}

/// Number of answers and the first one; the inner error is what to tell.
fn value(client: &mut Client, command: &str) -> Result<std::result::Result<(u64, Option<String>), String>> {
    let words: Vec<&str> = command.split_ascii_whitespace().collect();
    let verb = words.first().copied().unwrap_or_default().to_ascii_uppercase();
    if !REDIS_READING.contains(&verb.as_str()) {
        return Ok(Err(format!("`{verb}` is not among the commands that a check may say")));
    }
    let said =
        client.say(&words).map_err(|error| Error::Unready(format!("redis cannot be reached: {error}")))?;
    Ok(match said {
        Ok(Answer::List(list)) => Ok((list.len() as u64, list.first().and_then(text))),
        Ok(answer) => Ok((1, text(&answer))),
        Err(refusal) if is_passing(&refusal) => {
            return Err(Error::Unready(format!("redis answered: {refusal}")));
        }
        Err(refusal) => Err(refusal),
    })
}

fn text(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Text(text) => Some(text.clone()),
        Answer::Number(number) => Some(number.to_string()),
        Answer::Nil | Answer::List(_) => None,
    }
}
