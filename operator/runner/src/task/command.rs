//! Data that is in a running service and nowhere else: the service's own commands dump and load it, or programs of its
//! server that Skep knows how to ask.
//!
//! ```text
//! dump command ─ stdout ─▶ data.dump ─ stdin ─▶ load command          node ─ rabbitmqctl ─▶ definitions.json ─▶ node
//!                              └─ stdin ─▶ verify command
//!
//! server ─ mongodump ─▶ mongodb.archive ─ mongorestore ─▶ server
//! ```

use serde::{Deserialize, Serialize};

use super::{Connect, Stored};
use crate::manifest::Manifest;

/// A command of the service: `/bin/sh -c` in the service's own image, as its user. It has done its work if and only if
/// it exits with 0. What it says on standard error is told when it fails, secrets taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellCommand {
    /// The command.
    pub text: String,
    /// Host name of the service's tasks: what the command finds as [`crate::HOST_VARIABLE`].
    pub host: String,
    /// File with the part of the service's environment that is secret, `NAME=value` with a NUL after each; none where
    /// there is no such part.
    pub environment: Option<String>,
}

/// What dumps data or loads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// A command of the service, which writes the data to its standard output, or replaces all of it by what it reads
    /// from its standard input. The latter is run again where it, or its job, failed.
    Shell(ShellCommand),
    /// The definitions of a RabbitMQ, in `definitions.json`. The user is the name of the node, and its cookie is the
    /// password.
    Rabbitmq(Connect),
    /// All databases of a MongoDB, as an archive of its own tools. Without a user it asks for no login.
    Mongodb(Connect),
}

/// What tells whether a dump is whole, besides its checksum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// Nothing.
    #[default]
    Checksum,
    /// A command that reads it from its standard input.
    Shell(ShellCommand),
    /// All definitions of a RabbitMQ are looked at.
    Rabbitmq,
    /// Every document of an archive of mongodump is read, against the checksum of its collection.
    Mongodb,
}

/// A server of the image, begun empty inside the job for as long as it takes, with data and secrets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScratchServer {
    /// A node of RabbitMQ.
    Rabbitmq,
    /// A `mongod` without accounts, a member of nothing.
    Mongodb,
}

/// See [`super::Task::CommandDump`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandDump {
    /// What dumps it.
    pub means: Means,
    /// Directory relative to [`crate::STORE_PATH`]; made where absent.
    pub dir: String,
}

/// See [`super::Task::CommandSeal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandSeal {
    /// How the dump is read.
    pub reading: Reading,
    /// Directory relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// The manifest to write after its artefact was read back and found whole.
    pub manifest: Manifest,
}

/// See [`super::Task::CommandExamine`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandExamine {
    /// As in [`CommandSeal`].
    pub reading: Reading,
    /// The engine's word in labels; a backup of another one is refused.
    pub engine: String,
    /// The backup.
    pub stored: Stored,
}

/// See [`super::Task::CommandLoad`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandLoad {
    /// What loads it.
    pub means: Means,
    /// The engine's word in labels; a backup of another one is refused.
    pub engine: String,
    /// The backup; nothing is loaded unless its checksums are the registered ones.
    pub stored: Stored,
}

/// See [`super::Task::CommandDrill`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandDrill {
    /// Into what it is loaded.
    pub server: ScratchServer,
    /// The engine's word in labels; a backup of another one is refused.
    pub engine: String,
    /// The backup; nothing is started unless its checksums are the registered ones.
    pub stored: Stored,
}

// === impl Means ===

impl Means {
    /// The host name of the service's tasks, and the file with what is secret.
    pub fn reaches(&self) -> (&str, Option<&str>) {
        match self {
            Means::Shell(command) => (&command.host, command.environment.as_deref()),
            Means::Rabbitmq(connect) | Means::Mongodb(connect) => {
                (&connect.host, connect.password_file.as_deref())
            }
        }
    }
}
