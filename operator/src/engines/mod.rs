//! What each data engine needs, as data: how to reach it, with which credentials, where its files are.

pub mod data;
pub mod found;
pub mod mongodb;
pub mod mysql;
pub mod nginx;
pub mod postgres;
pub mod rabbitmq;
pub mod redis;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_runner::task::Connect;
use thiserror::Error;

pub use crate::swarm::spec::{env, secret_env};
pub use data::{By, Commands, Data, Directory, DirectoryEngine, Use, Volume, is_local, live_files};

/// How a job reaches a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Access {
    /// Host, port, user, and the file that will hold the password.
    pub connect: Connect,
    /// Where the password comes from.
    pub password: Password,
}

/// Where a password comes from. Never holds the password itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Password {
    /// There is none.
    Nowhere,
    /// A file that the service's own secrets, or a volume that the job sees, bring along.
    File,
    /// A variable of the service's environment; reaches a job as a temporary Swarm secret (S15).
    Env {
        /// Its name.
        variable: String,
    },
    /// The word that follows this one in the service's command; reaches a job as a temporary Swarm secret (S15).
    Command {
        /// The word before it.
        after: String,
    },
    /// Everything of the service's environment that looks secret; reaches a job as one temporary Swarm secret (S15).
    Environment,
}

/// A service whose spec does not say how to reach its data.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NoAccess {
    /// A password file that no secret of the service provides.
    #[error(
        "{variable} names `{path}`, which is not one of the service's secrets; put the password into a Swarm secret"
    )]
    NotASecret {
        /// Variable.
        variable: String,
        /// Path.
        path: String,
    },
    /// A server whose files lie in no volume.
    #[error(
        "its data directory {path} is in no volume or bind mount of the service, so it would not outlive a restart"
    )]
    NoVolume {
        /// The directory.
        path: String,
    },
    /// Nothing to back up.
    #[error("it has no named volume that it writes to")]
    NoVolumes,
    /// A name that none of its mounts has.
    #[error("it mounts no volume `{name}` (it has: {found})")]
    UnknownVolume {
        /// The name.
        name: String,
        /// Those that it has.
        found: String,
    },
    /// One volume at two places.
    #[error("it mounts volume `{name}` twice; data is taken from volumes that are mounted once")]
    MountedTwice {
        /// The name.
        name: String,
    },
    /// A user whose name only the service itself can read.
    #[error(
        "{variable} names a file that only the service reads; put the name into {instead}, and keep the password in its file"
    )]
    UserInFile {
        /// Variable.
        variable: &'static str,
        /// The one that Skep reads.
        instead: &'static str,
    },
    /// Data of commands, and no commands.
    #[error("it names no commands (skep.data.dump.command, skep.data.load.command)")]
    NoCommands,
    /// A node of RabbitMQ that has another name after each restart, or one that cannot be told.
    #[error(
        "its node has no fixed name, by which it finds its data after a restart: give the service a `hostname:` without `{{{{`, or RABBITMQ_NODENAME"
    )]
    NoNodeName,
    /// A cookie that nobody but the node can read.
    #[error(
        "its Erlang cookie cannot be reached: mount a volume at /var/lib/rabbitmq, or give RABBITMQ_ERLANG_COOKIE or a secret at {path}"
    )]
    NoCookie {
        /// Where the node has it.
        path: &'static str,
    },
}

/// File under which a job finds a temporary secret.
pub const TEMPORARY_SECRET: &str = "skep_password";

/// How the commands of a service reach it: they find its name and whatever of its environment is secret.
pub fn by_environment(service: &str, spec: &Value) -> Access {
    let has_secrets = !secret_env(spec).is_empty();
    let connect = Connect {
        host: format!("tasks.{service}"),
        port: 0,
        user: String::new(),
        password_file: has_secrets.then(|| format!("/run/secrets/{TEMPORARY_SECRET}")),
    };
    Access { connect, password: if has_secrets { Password::Environment } else { Password::Nowhere } }
}

/// Whether one of the service's secrets is mounted at `path`.
pub fn has_secret_at(spec: &Value, path: &str) -> bool {
    let secrets = spec["TaskTemplate"]["ContainerSpec"]["Secrets"].as_array();
    secrets.into_iter().flatten().any(|s| {
        let name = s["File"]["Name"].as_str().unwrap_or_default();
        name == path || path.strip_prefix("/run/secrets/") == Some(name)
    })
}

/// What an argument of the service's command is set to: `--name=value`, or `--name` and then the value.
pub fn argument<'a>(spec: &'a Value, name: &str) -> Option<&'a str> {
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    let words = ["Command", "Args"].into_iter().filter_map(|key| container[key].as_array()).flatten();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    let value = |(i, word): (usize, &&'a str)| match word.strip_prefix(name)?.strip_prefix('=') {
        Some(value) => Some(value),
        None if *word == name => words.get(i + 1).copied(),
        None => None,
    };
    words.iter().enumerate().find_map(value)
}

/// What an option of the service's command is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The word itself.
    Word(String),
    /// The value of this variable, which a shell puts there.
    Variable(String),
    /// What this file holds, which a shell puts there: `$(cat FILE)`.
    File(String),
}

/// What follows `option` in the service's command, as a word of its own or in a line for a shell.
pub fn given(spec: &Value, option: &str) -> Option<Given> {
    let container = &spec["TaskTemplate"]["ContainerSpec"];
    let words = ["Command", "Args"].into_iter().filter_map(|key| container[key].as_array()).flatten();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    if let Some(at) = words.iter().position(|word| *word == option) {
        return words.get(at + 1).map(|word| Given::Word((*word).to_owned()));
    }
    words.iter().find_map(|line| in_shell(line, option))
}

/// As a shell reads it, as far as that can be told without one.
fn in_shell(line: &str, option: &str) -> Option<Given> {
    let mut after = line.match_indices(option).map(|(at, _)| &line[at + option.len()..]);
    let rest = after.find(|rest| rest.starts_with(char::is_whitespace))?.trim_start();
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let inner = quote.map_or(rest, |_| &rest[1..]);
    if let (Some(file), true) = (inner.strip_prefix("$("), quote != Some('\'')) {
        let (command, _) = file.split_once(')')?;
        let path = command.trim().strip_prefix("cat ").or_else(|| command.trim().strip_prefix('<'))?;
        return Some(Given::File(path.trim().to_owned()));
    }
    let ends = |c: char| match quote {
        Some(quote) => c == quote,
        None => c.is_whitespace() || matches!(c, ';' | '&' | '|'),
    };
    let word = inner.split(ends).next().filter(|word| !word.is_empty())?;
    match word.strip_prefix('$').filter(|_| quote != Some('\'')) {
        None => Some(Given::Word(word.to_owned())),
        Some(name) => {
            let name = name.trim_start_matches('{').trim_end_matches('}');
            let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            is_name.then(|| Given::Variable(name.to_owned()))
        }
    }
}

/// The password of `VARIABLE` or `VARIABLE_FILE`, and the path where a job will find it.
///
/// # Errors
/// When the file is not one of the service's secrets.
pub fn password(spec: &Value, variable: &str) -> Result<(Password, Option<String>), NoAccess> {
    let file_variable = format!("{variable}_FILE");
    if let Some(path) = env(spec, &file_variable) {
        if !has_secret_at(spec, path) {
            return Err(NoAccess::NotASecret { variable: file_variable, path: path.to_owned() });
        }
        return Ok((Password::File, Some(path.to_owned())));
    }
    Ok(match env(spec, variable) {
        Some(_) => (
            Password::Env { variable: variable.to_owned() },
            Some(format!("/run/secrets/{TEMPORARY_SECRET}")),
        ),
        None => (Password::Nowhere, None),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(env: &[&str], secret: &str) -> Value {
        json!({"TaskTemplate": {"ContainerSpec": {"Env": env, "Secrets": [{"File": {"Name": secret}}]}}})
    }

    #[test]
    fn a_password_comes_from_a_secret_file_or_from_the_environment() {
        let file = spec(&["POSTGRES_PASSWORD_FILE=/run/secrets/pw"], "pw");
        assert_eq!(
            password(&file, "POSTGRES_PASSWORD"),
            Ok((Password::File, Some("/run/secrets/pw".to_owned())))
        );
        let variable = spec(&["POSTGRES_PASSWORD=a=b"], "pw");
        let (from, path) = password(&variable, "POSTGRES_PASSWORD").unwrap();
        assert_eq!(from, Password::Env { variable: "POSTGRES_PASSWORD".to_owned() });
        assert_eq!(path.as_deref(), Some("/run/secrets/skep_password"));
        assert_eq!(env(&variable, "POSTGRES_PASSWORD"), Some("a=b"));
    }

    #[test]
    fn what_an_option_is_given_is_found_in_words_and_in_lines_for_a_shell() {
        let args = |args: &[&str]| given(&json!({"TaskTemplate": {"ContainerSpec": {"Args": args}}}), "--pw");
        let word = |text: &str| Some(Given::Word(text.to_owned()));
        assert_eq!(args(&["server", "--pw", "a b", "--x"]), word("a b"));
        assert_eq!(args(&["sh", "-c", "exec server --pwfile x --pw a;b"]), word("a"));
        assert_eq!(args(&["sh", "-c", "server --pw 'a $b' --x"]), word("a $b"));
        for line in ["server --pw $PASS", "server --pw \"${PASS}\" --x"] {
            assert_eq!(args(&["sh", "-c", line]), Some(Given::Variable("PASS".to_owned())), "{line}");
        }
        for line in ["server --pw \"$(cat /run/secrets/pw)\" --x", "server --pw $(</run/secrets/pw)"] {
            assert_eq!(args(&["sh", "-c", line]), Some(Given::File("/run/secrets/pw".to_owned())), "{line}");
        }
        assert_eq!(args(&["sh", "-c", "server --pw $(mytool)"]), None);
        assert_eq!(args(&["server", "--pw"]), None);
        assert_eq!(args(&["server"]), None);
    }

    #[test]
    fn a_password_file_that_is_no_secret_is_refused() {
        let missing = spec(&["POSTGRES_PASSWORD_FILE=/etc/pw"], "pw");
        assert!(password(&missing, "POSTGRES_PASSWORD").is_err());
    }
}
