//! The tasks by which the data of a service is backed up, whatever its engine, and what their reports say.
//!
//! What only one engine has (names that are swapped, files that are moved) is asked for where it is used.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use skep_runner::manifest::Manifest;
use skep_runner::task::{
    CommandDump, CommandExamine, CommandLoad, CommandSeal, Connect, Contents, DatabaseProperties, DirDump,
    DirExamine, DirSeal, HeldRoles, Means, PgBase, PgDump, PgSeal, Reading, ShellCommand, Stored,
};
use skep_runner::{Artefact, Report, Task};

use super::frozen::Target;
use super::saga::Fault;
use crate::engines::{By, Commands, Data};
use crate::policy;
use crate::swarm::spec::redacted;

/// What a dump has told, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dumped {
    /// The files.
    pub artefacts: Vec<Artefact>,
    /// Version of the server.
    pub server_version: String,
    /// Version line of the tool.
    pub tool_version: String,
    /// Start, RFC 3339 UTC.
    pub started: String,
    /// End, RFC 3339 UTC.
    pub ended: String,
    /// PostgreSQL: what `pg_dump` leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseProperties>,
    /// Other engines: what the dump holds, and what not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// PostgreSQL: the base backup besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PgBase>,
    /// PostgreSQL: the roles of the cluster besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<HeldRoles>,
}

/// What sealing a backup has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// Bytes of all artefacts.
    pub size: u64,
}

// === impl Target ===

impl Target {
    /// The server, where the data has one.
    pub fn server(&self) -> Option<Connect> {
        let has_server = match &self.data {
            Data::None | Data::Command(_) => false,
            Data::Postgres => true,
            Data::Directory(directory) => directory.engine.has_server(),
        };
        has_server.then(|| self.access.connect.clone())
    }

    /// Dumps the data into a directory of the store.
    ///
    /// # Errors
    /// When there is no data.
    pub fn dump(&self, dir: &str) -> Result<Task, Fault> {
        let dir = dir.to_owned();
        Ok(match &self.data {
            Data::None => return Err(self.no_data()),
            Data::Postgres => {
                let connect = self.access.connect.clone();
                Task::PgDump(PgDump { connect, database: self.database.clone(), dir })
            }
            Data::Directory(directory) => Task::DirDump(DirDump {
                engine: directory.engine.runner(),
                connect: self.server(),
                volumes: directory.dumped(),
                dir,
            }),
            Data::Command(data) => {
                Task::CommandDump(CommandDump { means: self.means(data, |commands| &commands.dump), dir })
            }
        })
    }

    /// Reads a dump back in full, then writes its manifest.
    ///
    /// # Errors
    /// When there is no data.
    pub fn seal(&self, dir: &str, manifest: Manifest) -> Result<Task, Fault> {
        let dir = dir.to_owned();
        Ok(match &self.data {
            Data::None => return Err(self.no_data()),
            Data::Postgres => Task::PgSeal(PgSeal { dir, manifest }),
            Data::Directory(directory) => {
                Task::DirSeal(DirSeal { engine: directory.engine.runner(), dir, manifest })
            }
            Data::Command(data) => {
                Task::CommandSeal(CommandSeal { reading: self.reading(data), dir, manifest })
            }
        })
    }

    /// Checks a stored backup in full against its registered checksum.
    ///
    /// # Errors
    /// When there is no data.
    pub fn examine(&self, stored: Stored) -> Result<Task, Fault> {
        Ok(match &self.data {
            Data::None => return Err(self.no_data()),
            Data::Postgres => Task::PgExamine(stored),
            Data::Directory(directory) => {
                Task::DirExamine(DirExamine { engine: directory.engine.runner(), stored })
            }
            Data::Command(data) => Task::CommandExamine(CommandExamine {
                reading: self.reading(data),
                engine: self.data.word().to_owned(),
                stored,
            }),
        })
    }

    /// Loads a backup into the running service.
    pub fn load_by(&self, data: &Commands, stored: Stored) -> Task {
        let engine = self.data.word().to_owned();
        let means = self.means(data, |commands| &commands.load);
        Task::CommandLoad(CommandLoad { means, engine, stored })
    }

    fn means(&self, data: &Commands, which: impl Fn(&policy::Commands) -> &String) -> Means {
        match &data.by {
            By::Commands(commands) => Means::Shell(self.command(which(commands))),
            By::Rabbitmq => Means::Rabbitmq(self.access.connect.clone()),
            By::Mongodb => Means::Mongodb(self.access.connect.clone()),
        }
    }

    fn reading(&self, data: &Commands) -> Reading {
        match &data.by {
            By::Commands(commands) => {
                commands.verify.as_ref().map_or(Reading::Checksum, |text| Reading::Shell(self.command(text)))
            }
            By::Rabbitmq => Reading::Rabbitmq,
            By::Mongodb => Reading::Mongodb,
        }
    }

    fn command(&self, text: &str) -> ShellCommand {
        let connect = &self.access.connect;
        ShellCommand {
            text: text.to_owned(),
            host: connect.host.clone(),
            environment: connect.password_file.clone(),
        }
    }

    /// The manifest of a backup with this id.
    pub fn manifest(&self, id: &str, dumped: &Dumped) -> Manifest {
        Manifest {
            schema: skep_runner::SCHEMA,
            id: id.to_owned(),
            service: self.name.clone(),
            engine: self.data.word().to_owned(),
            image: self.image.clone(),
            spec: redacted(&self.spec),
            server_version: dumped.server_version.clone(),
            tool_version: dumped.tool_version.clone(),
            started: dumped.started.clone(),
            ended: dumped.ended.clone(),
            artefacts: dumped.artefacts.clone(),
            database: dumped.database.clone(),
            contents: dumped.contents.clone(),
            base: dumped.base.clone(),
            roles: dumped.roles,
        }
    }

    fn no_data(&self) -> Fault {
        Fault::failed(format!("{} has no data", self.name))
    }
}

// === impl Dumped ===

impl Dumped {
    /// What the report of a dump says.
    ///
    /// # Errors
    /// When it is another task's.
    pub fn of(report: Report) -> Result<Dumped, Fault> {
        match report {
            Report::PgDump(dumped) => Ok(Dumped {
                artefacts: dumped.artefacts,
                server_version: dumped.server_version,
                tool_version: dumped.tool_version,
                started: dumped.started,
                ended: dumped.ended,
                database: Some(dumped.database),
                contents: None,
                base: None,
                roles: dumped.roles,
            }),
            Report::DirDump(dumped) => Ok(Dumped {
                artefacts: dumped.artefacts,
                server_version: dumped.server_version,
                tool_version: dumped.tool_version,
                started: dumped.started,
                ended: dumped.ended,
                database: None,
                contents: Some(dumped.contents),
                base: None,
                roles: None,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// The moment whose data it holds.
    ///
    /// # Errors
    /// When the report tells no time.
    pub fn taken(&self) -> Result<Timestamp, Fault> {
        let taken = self.started.parse::<Timestamp>();
        taken.map_err(|e| Fault::failed(format!("the dump's time `{}`: {e}", self.started)))
    }
}

// === impl Sealing ===

impl Sealing {
    /// What the report of a sealing says.
    ///
    /// # Errors
    /// When it is another task's.
    pub fn of(report: Report) -> Result<Sealing, Fault> {
        match report {
            Report::PgSeal { manifest_sha256, size } | Report::DirSeal { manifest_sha256, size } => {
                Ok(Sealing { manifest_sha256, size })
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// The manifest that a full check of a backup has read.
///
/// # Errors
/// When the report is another task's.
pub fn examined(report: Report) -> Result<Manifest, Fault> {
    match report {
        Report::PgExamine { manifest } | Report::DirExamine { manifest } => Ok(*manifest),
        other => Err(unexpected(&other)),
    }
}

/// A report of another task than the one asked for: a defect.
pub fn unexpected(report: &Report) -> Fault {
    Fault::failed(format!("the job reported something else: {report:?}"))
}

#[cfg(test)]
mod tests {
    use skep_runner::task::PgDumped;

    use super::*;

    #[test]
    fn what_an_earlier_version_journaled_of_a_dump_can_be_read() {
        let dumped = PgDumped {
            artefacts: vec![Artefact { file: "database.dump".into(), size: 7, sha256: "ab".into() }],
            server_version: "170002".into(),
            tool_version: "pg_dump 17".into(),
            started: "2026-01-02T03:04:05Z".into(),
            ended: "2026-01-02T03:04:06Z".into(),
            database: DatabaseProperties { owner: "shop".into(), ..DatabaseProperties::default() },
            roles: None,
        };
        let journaled = serde_json::to_value(&dumped).unwrap();
        let read: Dumped = serde_json::from_value(journaled).unwrap();
        assert_eq!(read, Dumped::of(Report::PgDump(Box::new(dumped))).unwrap());
        assert_eq!(read.database.unwrap().owner, "shop");
    }
}
