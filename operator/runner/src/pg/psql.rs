//! One session of `psql`, kept open: statements go in on its standard input, rows come out followed by a
//! mark. When the runner dies, psql reads the end of its input and leaves; an open transaction is undone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;

use super::server::Server;
use crate::error::{Error, Result};
use crate::tool::Tool;
use crate::{death, stop};

/// Printed after the rows of a statement; rows of ours are JSON or numbers and never look like it.
const MARK: &str = "--skep-done--";

/// An open session. After an error it is of no use.
pub(crate) struct Session {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    tool: Tool,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// The task; not while the job is being stopped.
    Working,
    /// What must be undone before the job ends.
    Undoing,
}

// === impl Session ===

impl Session {
    /// Connects to `database`.
    pub(crate) fn open(server: &Server<'_>, database: &str, when: When) -> Result<Session> {
        let mut command = psql(server, database);
        Session::over(match when {
            When::Working => Tool::start(&mut command)?,
            When::Undoing => Tool::start_even_when_stopping(&mut command)?,
        })
    }

    fn over(mut tool: Tool) -> Result<Session> {
        let stdin = tool.stdin().expect("standard input was piped");
        let stdout = BufReader::new(tool.stdout().expect("standard output was piped"));
        let mut session = Session { stdin, stdout, tool };
        session.query("SELECT 1")?;
        Ok(session)
    }

    /// Nothing in the database's own schemas can stand in for what the catalog means.
    pub(crate) fn with_catalog_only(mut self) -> Result<Session> {
        self.run("SET search_path = ''")?;
        Ok(self)
    }

    /// Runs one statement and returns what it prints, without the last newline.
    pub(crate) fn query(&mut self, sql: &str) -> Result<String> {
        death::may_come();
        let sent = writeln!(self.stdin, "{sql}\n;\n\\echo {MARK}").and_then(|()| self.stdin.flush());
        death::may_come();
        let printed = if sent.is_ok() { self.read_to_mark() } else { None };
        death::may_come();
        match printed {
            Some(printed) => Ok(printed),
            None => Err(self.why_it_ended()),
        }
    }

    /// Runs one statement for its effect.
    pub(crate) fn run(&mut self, sql: &str) -> Result<()> {
        self.query(sql).map(drop)
    }

    /// Runs one statement that yields one JSON value.
    pub(crate) fn json<T: DeserializeOwned>(&mut self, sql: &str) -> Result<T> {
        let text = self.query(sql)?;
        serde_json::from_slice(text.as_bytes())
            .map_err(|error| Error::Unready(format!("cannot read the server's answer: {error}")))
    }

    /// The text up to the mark, none where psql ended before. A database without an encoding may answer
    /// with anything.
    fn read_to_mark(&mut self) -> Option<String> {
        let mut text = Vec::new();
        loop {
            let start = text.len();
            if self.stdout.read_until(b'\n', &mut text).ok()? == 0 {
                return None;
            }
            if text[start..].trim_ascii_end() == MARK.as_bytes() {
                return Some(String::from_utf8_lossy(&text[..start]).trim_end_matches('\n').to_owned());
            }
        }
    }

    fn why_it_ended(&mut self) -> Error {
        if stop::is_stopping() {
            return Error::Stopped;
        }
        match self.tool.end() {
            Err(error) => error,
            Ok((status, said)) => {
                let lines: Vec<&str> = said.iter().map(String::as_str).collect();
                server_error(&lines).unwrap_or_else(|| Error::Tool {
                    tool: "psql".to_owned(),
                    status: status.to_string(),
                    said: lines.join("; "),
                })
            }
        }
    }
}

/// `psql:<stdin>:3: ERROR:  42P01: relation "x" does not exist` and the lines that belong to it.
fn server_error(lines: &[&str]) -> Option<Error> {
    let at = lines.iter().rposition(|line| state_and_text(line).is_some())?;
    let (state, text) = state_and_text(lines[at])?;
    let more = lines[at + 1..].iter().filter(|line| line.starts_with("DETAIL:") || line.starts_with("HINT:"));
    let message = more.fold(text.to_owned(), |message, line| format!("{message}; {line}"));
    Some(Error::Sql { state: state.to_owned(), message })
}

/// Splits by shape, not by words: the server may speak another language.
fn state_and_text(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(":  ")?;
    let (state, text) = rest.split_once(": ")?;
    let is_state = state.len() == 5
        && state.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        && !state.starts_with("00");
    is_state.then_some((state, text))
}

fn psql(server: &Server<'_>, database: &str) -> Command {
    let mut command = server.tool("psql");
    // Not for pg_dump: it would write bytes of a database without an encoding as if they were UTF-8.
    command
        .env("PGCLIENTENCODING", "UTF8")
        .args(["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"])
        .args(["-d", &server.database(database)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_known_by_its_state_in_any_language() {
        let said = [
            "NOTICE:  00000: etwas",
            "psql:<stdin>:4: FEHLER:  42P01: Relation »x« existiert nicht",
            "LINE 1: select * from x;",
            "HINT:  Etwas anderes.",
            "LOCATION:  parserOpenTable, parse_relation.c:1392",
        ];
        match server_error(&said) {
            Some(Error::Sql { state, message }) => {
                assert_eq!(state, "42P01");
                assert_eq!(message, "Relation »x« existiert nicht; HINT:  Etwas anderes.");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_error_of_the_server_is_left_to_the_exit_status() {
        assert!(server_error(&["psql: error: connection to server failed: Connection refused"]).is_none());
    }
}
