//! A dump of all databases of a running server, and reading one in full.

use std::io::Read as _;
use std::process::{Command, Stdio};

use super::client::{Place, finish};
use super::server::{asked, databases, plain_tables, tables};
use crate::error::{Error, Result};
use crate::job::{self, Job};
use crate::store::{self, Draft, Whole};
use crate::task::{Connect, Contents, DirDumped};
use crate::tool::{self, Tool, output_of};

/// Names of the program in the images of MariaDB and of MySQL.
const DUMPERS: [&str; 2] = ["mariadb-dump", "mysqldump"];
/// Stands in the last line of a dump that ended well.
const COMPLETED: &[u8] = b"-- Dump completed";
/// Longest last line.
const LAST_LINE: usize = 200;

/// Dumps while the server runs: one moment for tables with transactions.
pub(crate) fn dump(job: &Job, connect: &Connect, dir: &str) -> Result<DirDumped> {
    let place = Place::network(job, connect)?;
    let (server_version, settings) = asked(&place)?;
    let (entries, size) = tables(&place)?;
    let program = tool::first_of(&DUMPERS)?;
    let tool_version = output_of(Command::new(program).arg("--version"))?;
    let mut command = place.tool(program);
    command
        .args(["--single-transaction", "--quick", "--hex-blob", "--routines", "--events", "--triggers"])
        .args(["--max-allowed-packet=1G", "--flush-privileges"]);
    if !tool_version.contains("MariaDB") {
        // A server with another history of transactions could not load those of this one.
        command.arg("--set-gtid-purged=OFF");
    }
    command.arg("--databases").args(databases(&place)?).stdin(Stdio::null()).stdout(Stdio::piped());
    let folder = store::emptied(job, dir)?;
    let started = job::now();
    let mut draft = Draft::new(job, &folder, "all.sql".to_owned())?;
    let mut dumper = Tool::start(&mut command)?;
    draft.copy(&mut dumper.stdout().expect("standard output was piped"))?;
    finish(dumper)?;
    let artefact = draft.publish()?;
    let mut not_held = vec![
        "binary logs and the place of this server in a replication".to_owned(),
        "option files, keys and certificates in the data directory".to_owned(),
    ];
    let plain = plain_tables(&place)?;
    if plain > 0 {
        not_held.push(format!(
            "one moment of {plain} tables without transactions: they were read one after the other"
        ));
    }
    let contents = Contents { settings: Some(settings), size, entries, not_held, ..Contents::default() };
    Ok(DirDumped {
        artefacts: vec![artefact],
        server_version,
        tool_version,
        started,
        ended: job::now(),
        contents,
    })
}

/// Reads a dump to its last line.
pub(crate) fn read_in_full(whole: &Whole) -> Result<()> {
    let mut reader = whole.reader();
    let mut buffer = vec![0; 256 << 10];
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let read = reader.read(&mut buffer).map_err(Error::io("cannot read the dump"))?;
        if read == 0 {
            break;
        }
        tail.extend_from_slice(&buffer[..read]);
        tail.drain(..tail.len().saturating_sub(LAST_LINE));
    }
    let last = tail.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    if last.starts_with(COMPLETED) {
        return Ok(());
    }
    Err(Error::refused("the dump is cut short: it does not end as a complete one"))
}
