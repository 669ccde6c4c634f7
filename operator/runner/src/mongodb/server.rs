//! A running server, asked through the image's own tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::job::{Job, read_secret};
use crate::task::Connect;
use crate::tool;

/// Shells that run the script: that of today, and that of before MongoDB 6.
const SHELLS: [&str; 2] = ["mongosh", "mongo"];
/// Tells what a server holds, and drops what is not wanted.
const SCRIPT: &str = include_str!("collections.js");
/// Begins the line that the script prints.
const MARK: &str = "skep:";
/// Where accounts are.
const ACCOUNTS: &str = "admin";
/// Where a server of the job's own listens.
pub(super) const LOOPBACK: &str = "127.0.0.1";

/// Names of collections by database.
pub(super) type Kept = BTreeMap<String, BTreeSet<String>>;

/// A server, and files for the programs that speak to it.
pub(super) struct Server {
    connect: Connect,
    password: Option<String>,
    home: Home,
}

/// What a server holds, but for what it keeps for itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Live {
    /// Its version.
    pub(super) version: String,
    /// Documents by database and collection.
    pub(super) collections: BTreeMap<(String, String), Count>,
    /// Whether it is a member of a replica set, and so has an oplog.
    pub(super) member: bool,
    /// Whether its login may replay an oplog; no where it was not asked.
    pub(super) replays: bool,
    /// Where its data is, as it says; nothing where it was not asked.
    pub(super) path: Option<String>,
}

/// How many documents a collection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// A view or measurements, which are not counted.
    Not,
    /// So many.
    Of(u64),
    /// So many by now: the server removes what has expired.
    Fading(u64),
}

/// As the script tells it.
#[derive(Deserialize)]
struct Told {
    version: String,
    collections: Vec<(String, String, i64, bool)>,
    #[serde(default)]
    member: bool,
    #[serde(default)]
    replays: bool,
    #[serde(default)]
    path: Option<String>,
}

// === impl Server ===

impl Server {
    /// The server of a service. Without a user it asks for no login.
    pub(super) fn reach(job: &Job, connect: &Connect) -> Result<Server> {
        let password = connect.password_file.as_deref().map(read_secret).transpose()?;
        let home = Home::make()?;
        if let Some(password) = &password {
            job.out.keep_back(password);
            job.out.keep_back(&encoded(password));
            home.write("tools.yml", format!("password: {}\n", json!(password)).as_bytes())?;
        }
        Ok(Server { connect: connect.clone(), password, home })
    }

    /// A server of the job's own on the loopback interface, which asks for no login and has its files in `home`.
    pub(super) fn alone(port: u16, home: Home) -> Server {
        let connect = Connect { host: LOOPBACK.to_owned(), port, user: String::new(), password_file: None };
        Server { connect, password: None, home }
    }

    /// Where its programs, and it itself where it is the job's own, have their files.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// `mongodump` or `mongorestore`, told how to connect. Nothing secret is among its arguments.
    pub(super) fn tool(&self, name: &'static str) -> Result<Command> {
        let mut command = Command::new(tool::first_of(&[name])?);
        let Connect { host, port, user, .. } = &self.connect;
        command.args([format!("--host={host}"), format!("--port={port}")]);
        if self.password.is_some() {
            let config = self.home.path().join("tools.yml");
            command.args([format!("--username={user}"), format!("--authenticationDatabase={ACCOUNTS}")]);
            command.arg(format!("--config={}", config.display()));
        }
        Ok(command)
    }

    /// What it holds.
    pub(super) fn holds(&self) -> Result<Live> {
        self.ask(&json!({ "address": self.address(), "drop": false, "keep": {} }))
    }

    /// What it holds, and what its login may do.
    pub(super) fn holds_and_may(&self) -> Result<Live> {
        self.ask(&json!({ "address": self.address(), "drop": false, "keep": {}, "rights": true }))
    }

    /// What it holds, and where its data is: what only a login that may do more can ask.
    pub(super) fn holds_and_where(&self) -> Result<Live> {
        self.ask(&json!({ "address": self.address(), "drop": false, "keep": {}, "path": true }))
    }

    /// Whether it is a member of a replica set; no where the image has no shell to ask it.
    pub(super) fn is_member(&self) -> Result<bool> {
        if tool::first_of(&SHELLS).is_err() {
            return Ok(false);
        }
        let only = json!({ "address": self.address(), "drop": false, "keep": {}, "brief": true });
        Ok(self.ask(&only)?.member)
    }

    /// Drops every other collection; what it holds then.
    pub(super) fn drop_all_but(&self, kept: &Kept) -> Result<Live> {
        self.ask(&json!({ "address": self.address(), "drop": true, "keep": kept }))
    }

    fn ask(&self, given: &serde_json::Value) -> Result<Live> {
        let script = self.home.write("script.js", format!("const given = {given};\n{SCRIPT}").as_bytes())?;
        let mut shell = Command::new(tool::first_of(&SHELLS)?);
        shell.args(["--quiet", "--norc", "--nodb"]).arg(script).env("HOME", self.home.path());
        let printed = tool::output_of(&mut shell).map_err(told)?;
        let line = printed.lines().find_map(|line| line.trim().strip_prefix(MARK));
        let read = line.and_then(|line| serde_json::from_str::<Told>(line).ok());
        let read =
            read.ok_or_else(|| Error::refused(format!("the shell printed something else: {printed}")))?;
        let count = |(database, name, count, fades)| {
            let count = match (u64::try_from(count), fades) {
                (Err(_), _) => Count::Not,
                (Ok(count), true) => Count::Fading(count),
                (Ok(count), false) => Count::Of(count),
            };
            ((database, name), count)
        };
        let collections = read.collections.iter().cloned().map(count).collect();
        let Told { version, member, replays, path, .. } = read;
        Ok(Live { version, collections, member, replays, path })
    }

    /// With the login: it stands in a file that only the job can read.
    fn address(&self) -> String {
        let Connect { host, port, user, .. } = &self.connect;
        let login = match &self.password {
            Some(password) => format!("{}:{}@", encoded(user), encoded(password)),
            None => String::new(),
        };
        format!("mongodb://{login}{host}:{port}/{ACCOUNTS}?directConnection=true&authSource={ACCOUNTS}")
    }
}

/// As it stands in an address.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut coded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            coded.push(char::from(byte));
        } else {
            let _written = write!(coded, "%{byte:02X}");
        }
        coded
    })
}

/// What the tools say of a server that refuses or cannot be reached is many lines of Go and JavaScript.
pub(super) fn told(error: Error) -> Error {
    let Error::Tool { tool, status, said } = error else { return error };
    const AWAY: [&str; 5] =
        ["server selection error", "ECONNREFUSED", "ENOTFOUND", "connection refused", "no such host"];
    if said.to_ascii_lowercase().contains("authentication failed") || said.contains("AuthenticationFailed") {
        return Error::Barred(format!(
            "{tool}: the server refuses the login that its service's environment has"
        ));
    }
    if AWAY.iter().any(|away| said.contains(away)) {
        return Error::Unready(format!(
            "{tool}: the server cannot be reached: it is down, or still starting"
        ));
    }
    Error::Tool { tool, status, said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_an_address_is_encoded() {
        assert_eq!(encoded("a-Z_9.~"), "a-Z_9.~");
        assert_eq!(encoded("p@ss:w/ü%"), "p%40ss%3Aw%2F%C3%BC%25");
    }

    #[test]
    fn a_refused_login_is_final_and_a_server_that_is_away_is_waited_for() {
        let error =
            |said: &str| told(Error::Tool { tool: "t".into(), status: "1".into(), said: said.into() });
        assert!(matches!(
            error(
                "Failed: can't create session: auth error: sasl conversation error: unable to authenticate using mechanism \"SCRAM-SHA-256\": (AuthenticationFailed) Authentication failed."
            ),
            Error::Barred(_)
        ));
        assert!(matches!(error("MongoServerError: Authentication failed."), Error::Barred(_)));
        assert!(matches!(
            error(
                "failed to connect to mongodb://db:27017/: server selection error: server selection timeout"
            ),
            Error::Unready(_)
        ));
        assert!(matches!(error("MongoNetworkError: connect ECONNREFUSED 10.0.0.1:27017"), Error::Unready(_)));
        assert!(matches!(error("Failed: something else"), Error::Tool { .. }));
    }
}
