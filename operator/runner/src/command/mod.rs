//! Data that is in a running service and nowhere else: its own commands ([`shell`]), or a server that Skep knows how to
//! ask, dump it into one artefact and load that.
//!
//! A drill loads it into a server of the job's own. Commands can be checks as well ([`checks`]).
//!
//! Invariants: nothing is loaded from an artefact whose checksum is not the registered one.

mod checks;
mod shell;

use crate::error::{Error, Result};
use crate::job::{self, Job};
use crate::mongodb;
use crate::rabbitmq;
use crate::store::{self, Backup, Whole};
use crate::task::{
    CommandChecks, CommandDrill, CommandDump, CommandExamine, CommandLoad, CommandSeal, Means, Reading,
    Report, ScratchServer, Stored,
};

/// Dumps; what an earlier attempt left in an unsealed directory is replaced.
pub(crate) fn dump(job: &Job, task: &CommandDump) -> Result<Report> {
    let CommandDump { means, dir } = task;
    let folder = store::emptied(job, dir)?;
    let started = job::now();
    let mut dumped = match means {
        Means::Shell(command) => shell::dump(job, command, &folder)?,
        Means::Rabbitmq(connect) => rabbitmq::dump(job, connect, &folder)?,
        Means::Mongodb(connect) => mongodb::dump(job, connect, &folder)?,
    };
    (dumped.started, dumped.ended) = (started, job::now());
    Ok(Report::DirDump(Box::new(dumped)))
}

/// Reads the artefact back, then writes the manifest, which makes the directory a backup.
pub(crate) fn seal(job: &Job, task: &CommandSeal) -> Result<Report> {
    let CommandSeal { reading, dir, manifest } = task;
    let (manifest_sha256, size) = store::seal(job, dir, manifest, |whole| read(job, reading, whole))?;
    Ok(Report::DirSeal { manifest_sha256, size })
}

/// Checks a stored backup in full.
pub(crate) fn examine(job: &Job, task: &CommandExamine) -> Result<Report> {
    let CommandExamine { reading, engine, stored } = task;
    let backup = opened(job, engine, stored)?;
    store::examine(job, &backup, |whole| read(job, reading, whole))?;
    Ok(Report::DirExamine { manifest: Box::new(backup.manifest) })
}

/// Loads a backup.
pub(crate) fn load(job: &Job, task: &CommandLoad) -> Result<Report> {
    let CommandLoad { means, engine, stored } = task;
    let whole = only_one(job, engine, stored)?;
    let left = match means {
        Means::Shell(command) => shell::load(job, command, &whole).map(|()| Vec::new())?,
        Means::Rabbitmq(connect) => rabbitmq::load(job, connect, &whole)?,
        Means::Mongodb(connect) => mongodb::load(job, connect, &whole)?,
    };
    Ok(Report::CommandLoad { left })
}

/// Loads a backup into a server of the job's own.
pub(crate) fn drill(job: &Job, task: &CommandDrill) -> Result<Report> {
    let CommandDrill { server, engine, stored } = task;
    let whole = only_one(job, engine, stored)?;
    match server {
        ScratchServer::Rabbitmq => rabbitmq::drill(job, &whole),
        ScratchServer::Mongodb => mongodb::drill(job, &whole),
    }
}

/// Runs commands as checks.
pub(crate) fn checks(job: &Job, task: &CommandChecks) -> Result<Report> {
    checks::run(job, task)
}

/// The dump of a backup that is no more than one.
fn only_one(job: &Job, engine: &str, stored: &Stored) -> Result<Whole> {
    let mut wholes = opened(job, engine, stored)?.whole(job)?;
    match (wholes.pop(), wholes.is_empty()) {
        (Some(whole), true) => Ok(whole),
        _ => Err(Error::refused(format!("backup {} is not one dump", stored.id))),
    }
}

fn opened(job: &Job, engine: &str, stored: &Stored) -> Result<Backup> {
    let backup = Backup::open(job, stored)?;
    let found = &backup.manifest.engine;
    if found != engine {
        return Err(Error::refused(format!("backup {} is one of `{found}`", stored.id)));
    }
    Ok(backup)
}

fn read(job: &Job, reading: &Reading, whole: &Whole) -> Result<()> {
    match reading {
        Reading::Checksum => Ok(()),
        Reading::Shell(command) => shell::verify(job, command, whole),
        Reading::Rabbitmq => rabbitmq::read(whole),
        Reading::Mongodb => mongodb::read(job, whole),
    }
}
