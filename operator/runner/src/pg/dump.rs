//! Taking a backup: dump, then seal.
//!
//! ```text
//! pg_dump ──pipe──▶ count, hash ──▶ <database>.dump.<session>.part ──sync, rename──▶ <database>.dump
//! seal: read back (size, SHA-256) ▶ pg_restore to nowhere ▶ manifest.json.part ──sync, rename──▶ manifest.json
//! ```

use std::fs::File;
use std::process::{Command, Stdio};

use crate::manifest::{Artefact, Manifest};
use crate::task::{PgDump, PgDumped, PgSeal, Report, Stored};

use super::base;
use super::globals;
use super::properties;
use super::server::{Admin, Server};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::store::{self, Backup, Draft, Folder, Whole};
use crate::tool::{Tool, output_of};

/// Compression that every `pg_restore` since 13 reads; level 1 was as small and as fast as any measured.
const COMPRESS: &str = "-Z1";
/// Longest wait for a table that is locked exclusively.
const LOCK_WAIT: &str = "--lock-wait-timeout=120s";
/// The server's clock: it runs where the data is.
pub(super) const NOW: &str =
    r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;

/// Dumps one database; what an earlier attempt left in an unsealed directory is replaced.
pub(crate) fn dump(job: &Job, task: &PgDump) -> Result<Report> {
    let PgDump { connect, database, dir } = task;
    let mut admin = Admin::open(job, connect, &[database])?;
    let absent = || Error::refused(format!("database `{database}` does not exist"));
    let (found, session) = properties::read_in_full(&mut admin, database)?.ok_or_else(absent)?;
    drop(session);
    let folder = store::emptied(job, dir)?;
    let started = admin.session.query(NOW)?;
    let artefact = stream(&admin.server, database, &folder)?;
    // After the dump: whom it names by then is in it.
    let (globals, held) = globals::dump(&mut admin, &folder)?;
    let ended = admin.session.query(NOW)?;
    Ok(Report::PgDump(Box::new(PgDumped {
        artefacts: vec![artefact, globals],
        server_version: admin.version.to_string(),
        tool_version: output_of(Command::new("pg_dump").arg("--version"))?,
        started,
        ended,
        database: found.properties,
        roles: Some(held),
    })))
}

/// Reads all artefacts back, then writes the manifest, which makes the directory a backup.
pub(crate) fn seal(job: &Job, task: &PgSeal) -> Result<Report> {
    let PgSeal { dir, manifest } = task;
    let (manifest_sha256, size) = store::seal(job, dir, manifest, |whole| read_in_full(job, whole))?;
    Ok(Report::PgSeal { manifest_sha256, size })
}

/// Checks a stored backup in full.
pub(crate) fn examine(job: &Job, stored: &Stored) -> Result<Report> {
    let backup = Backup::open(job, stored)?;
    store::examine(job, &backup, |whole| read_in_full(job, whole))?;
    Ok(Report::PgExamine { manifest: Box::new(backup.manifest) })
}

/// The dump of a PostgreSQL backup, checked in full.
pub(crate) fn only_dump(job: &Job, backup: &Backup) -> Result<Whole> {
    let Manifest { artefacts, id, engine, .. } = &backup.manifest;
    let is_beside = |artefact: &Artefact| artefact.file == base::BASE || artefact.file == globals::FILE;
    let dumps: Vec<&Artefact> = artefacts.iter().filter(|a| !is_beside(a)).collect();
    match dumps.as_slice() {
        [artefact] if engine == "postgres" => backup.folder.whole(artefact, job),
        _ => Err(Error::refused(format!("backup {id} is not one dump of PostgreSQL"))),
    }
}

/// `pg_restore` to nowhere: unlike a list of its contents this reads, and unpacks, every byte. A base backup is unpacked as
/// well; whether a server comes up on it shows when it is recovered.
pub(crate) fn read_in_full(job: &Job, whole: &Whole) -> Result<()> {
    job.out.progress("read", 0, None);
    match whole.name() {
        base::BASE => return base::unpack_to_nowhere(whole),
        globals::FILE => return globals::read_in_full(whole),
        _ => {}
    }
    let mut command = Command::new("pg_restore");
    command.args(["-f", "/dev/null", "/proc/self/fd/0"]).stdin(stdin_of(&whole.file)?).stdout(Stdio::null());
    Tool::start(&mut command)?.finish()
}

/// An open file as a tool's standard input. The tool opens `/proc/self/fd/0` anew, as its workers do, and
/// so reads the very file that was checked, whatever its name means by then.
pub(crate) fn stdin_of(file: &File) -> Result<Stdio> {
    file.try_clone().map(Stdio::from).map_err(Error::io("cannot hand a dump to a tool"))
}

/// Streams the dump of a database into a file of its own.
pub(super) fn stream(server: &Server<'_>, database: &str, folder: &Folder) -> Result<Artefact> {
    let mut draft = Draft::new(server.job, folder, format!("{}.dump", file_name(database)))?;
    let mut command = server.tool("pg_dump");
    command
        .args(["-Fc", "-w", COMPRESS, LOCK_WAIT, "--quote-all-identifiers"])
        .args(["-d", &server.database(database)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut tool = Tool::start(&mut command)?;
    draft.copy(&mut tool.stdout().expect("standard output was piped"))?;
    tool.finish()?;
    draft.publish()
}

/// A file name for any database name: what is neither a letter, a digit, `_` nor `-` as `%xx`.
fn file_name(database: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let bytes = database.bytes();
    bytes.map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_database_name_makes_a_plain_file_name() {
        assert_eq!(file_name("appdb"), "appdb");
        assert_eq!(file_name("../Shop \"ü\""), "%2E%2E%2FShop%20%22%C3%BC%22");
        assert!(file_name(&"é".repeat(31)).len() < 200);
    }
}
