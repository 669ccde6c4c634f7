//! An RDB of a running server, and reading one in full.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::client::{Client, password_of};
use super::files;
use crate::error::{Error, Result};
use crate::job::{self, Job};
use crate::store::{self, Draft, Whole};
use crate::task::{Connect, Contents, DirDumped, ServerSettings};
use crate::tool::{self, Tool, output_of};

/// Names of the programs in the images of Redis and of Valkey.
const CLIENTS: [&str; 2] = ["redis-cli", "valkey-cli"];
const CHECKERS: [&str; 2] = ["redis-check-rdb", "valkey-check-rdb"];
/// Length of the mark that ends a stream without a known length: `redis-cli` cuts it off files only.
const MARK: usize = 40;
/// The end of an RDB: one byte, and a checksum of eight.
const END: usize = 9;
/// The byte of `END`.
const END_BYTE: u8 = 0xff;

/// What a check of an RDB counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Keys.
    pub(crate) keys: u64,
    /// Keys that expire.
    pub(crate) expires: u64,
}

/// Dumps while the server runs.
pub(crate) fn dump(job: &Job, connect: &Connect, dir: &str) -> Result<DirDumped> {
    let mut client = Client::open(job, connect)?;
    let (server_version, files) = files::asked(&mut client)?;
    let entries = client.keys()?;
    drop(client);
    let folder = store::emptied(job, dir)?;
    let started = job::now();
    let mut draft = Draft::new(job, &folder, "dump.rdb".to_owned())?;
    let mut command = cli(job, connect)?;
    let mut cli = Tool::start(command.args(["--rdb", "-"]).stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let copied = copy(&mut cli.stdout().expect("standard output was piped"), &mut draft);
    // What the tool says tells more than that its stream was cut short.
    cli.finish()?;
    copied?;
    let artefact = draft.publish()?;
    let contents = Contents {
        settings: Some(ServerSettings::Redis(files)),
        size: artefact.size,
        entries,
        not_held: vec!["the server's configuration, access list and modules".to_owned()],
        ..Contents::default()
    };
    Ok(DirDumped {
        artefacts: vec![artefact],
        server_version,
        tool_version: output_of(Command::new(tool::first_of(&CLIENTS)?).arg("--version"))?,
        started,
        ended: job::now(),
        contents,
    })
}

/// Reads an RDB in full by the image's own checker, where it has one.
pub(crate) fn read_in_full(whole: &Whole) -> Result<Option<Counts>> {
    let mut magic = [0; 5];
    let cannot = Error::io("cannot read the RDB");
    whole.reader().read_exact(&mut magic).map_err(cannot)?;
    // Valkey 9 writes `VALKEY`, as long as it is no older Redis that is to read it.
    if !(&magic == b"REDIS" || &magic == b"VALKE") {
        return Err(Error::refused("the backup is no RDB"));
    }
    let Ok(checker) = tool::first_of(&CHECKERS) else { return Ok(None) };
    let stdin = whole.file.try_clone().map_err(Error::io("cannot hand the RDB to its checker"))?;
    let said = output_of_with(Command::new(checker).arg("/proc/self/fd/0"), Stdio::from(stdin))?;
    let number = |what: &str| {
        let line = said.lines().find(|line| line.ends_with(what))?;
        line.trim_end_matches(what).split(' ').next_back()?.parse().ok()
    };
    let keys =
        number(" keys read").ok_or_else(|| Error::refused("the RDB's checker does not count its keys"))?;
    Ok(Some(Counts { keys, expires: number(" expires").unwrap_or(keys) }))
}

/// The checker tells what is wrong on its standard output.
fn output_of_with(command: &mut Command, stdin: Stdio) -> Result<String> {
    let mut tool = Tool::start(command.stdin(stdin).stdout(Stdio::piped()))?;
    let mut text = Vec::new();
    let mut stdout = tool.stdout().expect("standard output was piped");
    stdout.read_to_end(&mut text).map_err(Error::io("cannot read what the RDB's checker prints"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let (status, _) = tool.end()?;
    if status.success() {
        return Ok(text);
    }
    let last =
        text.lines().rev().find(|line| line.contains("---") || line.contains("error")).unwrap_or(&text);
    Err(Error::refused(format!("the RDB is damaged: {last}")))
}

/// The image's client, told how to connect. The password is in its environment only.
fn cli(job: &Job, connect: &Connect) -> Result<Command> {
    let Connect { host, port, user, password_file } = connect;
    let mut command = Command::new(tool::first_of(&CLIENTS)?);
    command.env_remove("REDISCLI_AUTH").args(["-h", host, "-p", &port.to_string(), "--no-auth-warning"]);
    if let Some(password) = password_of(job, password_file.as_deref())? {
        command.env("REDISCLI_AUTH", password);
    }
    if !user.is_empty() {
        command.args(["--user", user]);
    }
    Ok(command)
}

/// Copies a stream without the mark that may follow the RDB's end; refuses one without such an end.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let wrong = || Error::io("cannot write the dump");
    let mut held: Vec<u8> = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = from.read(&mut buffer).map_err(Error::io("cannot read from redis-cli"))?;
        if read == 0 {
            break;
        }
        held.extend_from_slice(&buffer[..read]);
        let sure = held.len().saturating_sub(MARK + END);
        to.write_all(&held[..sure]).map_err(wrong())?;
        held.drain(..sure);
    }
    let end = end_of(&held).ok_or_else(|| Error::Unready("the RDB was cut short on its way".to_owned()))?;
    to.write_all(&held[..end]).map_err(wrong())
}

/// Where an RDB ends in its last bytes. Where there is no mark, the byte before the checksum stands where a mark
/// would have a digit, so it cannot be one.
fn end_of(tail: &[u8]) -> Option<usize> {
    let ends_at = |end: usize| end.checked_sub(END).is_some_and(|at| tail[at] == END_BYTE);
    let without = tail.len().checked_sub(MARK)?;
    if tail[without..].iter().all(u8::is_ascii_hexdigit) && ends_at(without) {
        return Some(without);
    }
    ends_at(tail.len()).then_some(tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut to = Vec::new();
        copy(&mut &*bytes, &mut to).map(|()| to)
    }

    #[test]
    fn the_mark_after_an_rdb_is_cut_off_and_nothing_else() {
        let rdb = [&b"REDIS0010"[..], &[b'a'; 100], &[END_BYTE], b"checksum"].concat();
        assert_eq!(copied(&rdb).unwrap(), rdb);
        assert_eq!(copied(&[rdb.as_slice(), &[b'f'; MARK]].concat()).unwrap(), rdb);
        let ends_in_digits = [&b"REDIS0010"[..], &[b'a'; 100], &[END_BYTE], b"01234567"].concat();
        assert_eq!(copied(&ends_in_digits).unwrap(), ends_in_digits);
    }

    #[test]
    fn an_rdb_cut_short_is_no_rdb() {
        let rdb = [&b"REDIS0010"[..], &[b'a'; 100], &[END_BYTE], b"checksum"].concat();
        for length in 0..rdb.len() {
            assert!(copied(&rdb[..length]).is_err(), "{length}");
        }
    }
}
