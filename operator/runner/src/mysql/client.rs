//! The image's tools, told how to connect.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::job::{Job, read_secret};
use crate::task::Connect;
use crate::tool::{self, Tool};

/// Names of the client in the images of MariaDB and of MySQL.
const CLIENTS: [&str; 2] = ["mariadb", "mysql"];

/// Where a server is.
pub(super) enum Place<'a> {
    /// Over the network.
    Network {
        /// How to reach it.
        connect: &'a Connect,
        /// The password.
        password: Option<String>,
    },
    /// A scratch server's socket, for its passwordless root.
    Socket(String),
}

// === impl Place ===

impl<'a> Place<'a> {
    /// Over the network; from here on no line shows the password.
    pub(super) fn network(job: &Job, connect: &'a Connect) -> Result<Place<'a>> {
        let password = connect.password_file.as_deref().map(read_secret).transpose()?;
        if let Some(password) = &password {
            job.out.keep_back(password);
        }
        Ok(Place::Network { connect, password })
    }

    /// A tool, told how to connect. Nothing secret is among its arguments.
    pub(super) fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        for variable in ["MYSQL_PWD", "MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT", "MARIADB_HOST"] {
            command.env_remove(variable);
        }
        command.arg("--no-defaults");
        match self {
            Place::Network { connect, password } => {
                command.args(["--protocol=tcp", "-h", &connect.host, "-P", &connect.port.to_string()]);
                command.args(["-u", &connect.user]);
                if let Some(password) = password {
                    command.env("MYSQL_PWD", password);
                }
            }
            Place::Socket(path) => drop(command.args(["--protocol=socket", "-S", path, "-u", "root"])),
        }
        command.arg("--default-character-set=utf8mb4");
        command
    }

    /// The client.
    pub(super) fn client(&self) -> Result<Command> {
        let mut command = self.tool(tool::first_of(&CLIENTS)?);
        command.args(["--connect-timeout=10", "--max-allowed-packet=1G"]);
        Ok(command)
    }

    /// Runs statements; what they print, a line a row.
    pub(super) fn query(&self, database: Option<&str>, sql: &str) -> Result<Vec<String>> {
        let mut command = self.client()?;
        command.args(["--batch", "--skip-column-names"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(database) = database {
            command.arg(format!("--database={database}"));
        }
        let mut tool = Tool::start(&mut command)?;
        let mut stdin = tool.stdin().expect("standard input was piped");
        // A client that ends early says why.
        let _closed = stdin.write_all(sql.as_bytes());
        drop(stdin);
        let mut text = Vec::new();
        let mut stdout = tool.stdout().expect("standard output was piped");
        let read = std::io::Read::read_to_end(&mut stdout, &mut text);
        read.map_err(Error::io("cannot read what the client prints"))?;
        finish(tool)?;
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }
}

/// As [`Tool::finish`]; what the server refused is told as such, and a server that is away is worth another attempt.
pub(super) fn finish(tool: Tool) -> Result<()> {
    match tool.finish() {
        Err(Error::Tool { tool, status, said }) => Err(match refusal(&said) {
            Some((2000..=2999, _, _)) => Error::Unready(format!("the server cannot be reached: {said}")),
            Some((_, state, message)) => Error::Sql { state: state.to_owned(), message: message.to_owned() },
            None => Error::Tool { tool, status, said },
        }),
        done => done,
    }
}

/// `ERROR 1146 (42S02) at line 3: …` and `mysqldump: Got error: 2002: "…"`.
fn refusal(said: &str) -> Option<(u32, &str, &str)> {
    if let Some((_, rest)) = said.split_once("Got error: ") {
        let (number, message) = rest.split_once(": ")?;
        return Some((number.parse().ok()?, "HY000", message));
    }
    let (_, rest) = said.split_once("ERROR ")?;
    let (number, rest) = rest.split_once(" (")?;
    let (state, rest) = rest.split_once(')')?;
    let (_, message) = rest.split_once(": ")?;
    Some((number.parse().ok()?, state, message))
}

/// A text as a literal that no mode of the server reads otherwise.
pub(super) fn literal(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    if hex.is_empty() { "''".to_owned() } else { format!("CONVERT(0x{hex} USING utf8mb4)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_refuses_is_told_from_a_server_that_is_away() {
        let (number, state, message) =
            refusal("ERROR 1146 (42S02) at line 1: Table 'a.b' doesn't exist").unwrap();
        assert_eq!((number, state, message), (1146, "42S02", "Table 'a.b' doesn't exist"));
        let (number, ..) = refusal("ERROR 2002 (HY000): Can't connect to server on 'db' (115)").unwrap();
        assert_eq!(number, 2002);
        let (number, ..) =
            refusal("mariadb-dump: Got error: 2003: \"Can't connect\" when trying to connect").unwrap();
        assert_eq!(number, 2003);
        assert!(refusal("Killed").is_none());
    }

    #[test]
    fn a_literal_is_the_same_in_every_mode() {
        assert_eq!(literal("a'\\"), "CONVERT(0x61275c USING utf8mb4)");
        assert_eq!(literal(""), "''");
    }
}
