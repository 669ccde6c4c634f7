//! Data that only the service's own commands can dump and load.
//!
//! ```text
//! dump command ─ stdout ─▶ data.dump ─ stdin ─▶ load command
//!                              └─ stdin ─▶ verify command
//! ```

use serde::{Deserialize, Serialize};

use super::Stored;
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

/// See [`super::Task::CommandDump`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandDump {
    /// Writes the data to its standard output.
    pub command: ShellCommand,
    /// Directory relative to [`crate::STORE_PATH`]; made where absent.
    pub dir: String,
}

/// See [`super::Task::CommandSeal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandSeal {
    /// Reads a dump from its standard input and says whether it is whole; checksums have to do where there is none.
    pub verify: Option<ShellCommand>,
    /// Directory relative to [`crate::STORE_PATH`].
    pub dir: String,
    /// The manifest to write after its artefact was read back and found whole.
    pub manifest: Manifest,
}

/// See [`super::Task::CommandExamine`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandExamine {
    /// As in [`CommandSeal`].
    pub verify: Option<ShellCommand>,
    /// The engine's word in labels; a backup of another one is refused.
    pub engine: String,
    /// The backup.
    pub stored: Stored,
}

/// See [`super::Task::CommandLoad`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandLoad {
    /// Replaces the data by what it reads from its standard input. Is run again where it, or its job, failed.
    pub command: ShellCommand,
    /// The engine's word in labels; a backup of another one is refused.
    pub engine: String,
    /// The backup; the command is not started unless its checksums are the registered ones.
    pub stored: Stored,
}
