//! Looking at a directory of live data before anything is done to it. Changes nothing.

use std::collections::BTreeMap;

use super::files;
use super::load::opened;
use super::root::Root;
use super::side::{Side, dir_of};
use crate::error::{Error, Result};
use crate::job::{Job, Room};
use crate::task::{DataEngine, DirInspect, DirInspection, Report, ServerSettings, SideFound, Stored};
use crate::{mysql, redis};

/// Looks at the directory, its server where one is named, what earlier restores left, and the backups asked about.
pub(crate) fn inspect(job: &Job, task: &DirInspect) -> Result<Report> {
    let DirInspect { engine, connect, root, backups } = task;
    let server = match (engine, connect) {
        (DataEngine::Volume, _) | (_, None) => None,
        (DataEngine::Redis, Some(connect)) => Some(redis::files::ask(job, connect)?),
        (DataEngine::Mysql, Some(connect)) => Some(mysql::server::ask(job, connect)?),
    };
    let root = Root::open(root)?;
    let Room { free, capacity } = root.room()?;
    let live = root.measure()?;
    let version = server.as_ref().map(|(version, _)| version.as_str());
    let mut found = DirInspection {
        size: live.size,
        entries: live.entries,
        free,
        capacity,
        mounts: root.mounts()?,
        sides: sides(&root)?,
        backups: BTreeMap::new(),
        ..DirInspection::default()
    };
    for stored in backups {
        let (itself, here) = reasons(job, *engine, stored, version)?;
        found.backups.insert(stored.id.clone(), itself);
        found.lacking.extend(here.map(|why| (stored.id.clone(), vec![why])));
    }
    let (server_version, settings): (Option<String>, Option<ServerSettings>) = server.unzip();
    Ok(Report::DirInspect(Box::new(DirInspection { server_version, settings, ..found })))
}

fn sides(root: &Root) -> Result<Vec<SideFound>> {
    let mut found = Vec::new();
    for side in root.sides()? {
        if dir_of(&side).is_err() {
            continue;
        }
        let Some(open) = Side::open(root, &side)? else { continue };
        let size = files::measure(&root.fd, &open.dir)?.size;
        found.push(SideFound { state: open.state()?, side, size });
    }
    Ok(found)
}

/// What is wrong with a backup (everything but its content, which takes a full read), and what it needs that the server
/// has not.
fn reasons(
    job: &Job,
    engine: DataEngine,
    stored: &Stored,
    live: Option<&str>,
) -> Result<(Vec<String>, Option<String>)> {
    let backup = match opened(job, engine, stored) {
        Ok(backup) => backup,
        Err(Error::Refused(why)) => return Ok((vec![why], None)),
        Err(error) => return Err(error),
    };
    let mut reasons = Vec::new();
    for artefact in &backup.manifest.artefacts {
        match backup.folder.size_of(&artefact.file) {
            Ok(Some(size)) if size == artefact.size => {}
            Ok(Some(size)) => {
                reasons.push(format!("{} has {size} bytes instead of {}", artefact.file, artefact.size));
            }
            Ok(None) => reasons.push(format!("{} is missing", artefact.file)),
            Err(Error::Refused(why)) => reasons.push(why),
            Err(error) => return Err(error),
        }
    }
    let theirs = backup.manifest.server_version.as_str();
    let newer = live.filter(|live| series(theirs) > series(live));
    let newer = newer.map(|live| format!("it is of version {theirs}, the server is older: {live}"));
    Ok((reasons, newer))
}

/// The first two numbers of a version, which decide what a server can read.
fn series(version: &str) -> Vec<u32> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).take(2).collect()
}

#[cfg(test)]
mod tests {
    use super::series;

    #[test]
    fn versions_compare_by_number() {
        assert!(series("10.11.6-MariaDB-1") > series("10.6.20"));
        assert!(series("7.0.15") < series("7.2"));
        assert_eq!(series("8.0.36-28.1"), series("8.0.11"));
    }
}
