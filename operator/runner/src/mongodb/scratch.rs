//! A `mongod` of the job's own: begun empty from the image's program, with files of its own, on the loopback interface,
//! without the service's settings and accounts.
//!
//! Invariants: it is a member of nothing and takes no connections from anywhere else; it removes no document by itself,
//! however old; it leaves the live data its memory and its room; it ends with the job, and its files go.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::server::{LOOPBACK, Live, Server};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::job::{Job, Room};
use crate::line::FaultKind;
use crate::stop;
use crate::tool::{self, Tool};

const SERVER: &str = "mongod";
/// How long it may take to start.
const START: Duration = Duration::from_secs(300);
/// Its cache, in GiB: the least that it takes. By itself it would take half of the node's memory.
const CACHE: &str = "0.25";
/// What must stay free where it has its files, as a share of all.
const LEAST: u64 = 10;
/// What it has for itself besides the data: its journal, and files that it makes beforehand.
const OWN_ROOM: u64 = 512 << 20;
/// Bytes of the log's end that a fault tells.
const TOLD: i64 = 2000;

/// The server. Dropped, it ends; its files go then too.
pub(super) struct Scratch {
    // Before the server, whose home is where it has its files.
    tool: Tool,
    server: Server,
}

// === impl Scratch ===

impl Scratch {
    /// Starts it where there is room for an archive of this size, and waits until it has; what it says of itself.
    /// No backup has been near it by then: none is to blame for what goes wrong.
    pub(super) fn start(job: &Job, size: u64) -> Result<(Scratch, Live)> {
        tool::first_of(&["mongorestore"]).and_then(|_| Scratch::begin(job, size)).map_err(circumstance)
    }

    fn begin(job: &Job, size: u64) -> Result<(Scratch, Live)> {
        let home = Home::make_on_disk()?;
        has_room(&room(home.path())?, size)?;
        let data = home.path().join("data");
        std::fs::create_dir(&data).map_err(Error::io("cannot make a directory for the scratch server"))?;
        let port = free_port()?;
        let mut command = command(home.path(), port)?;
        let tool = Tool::start(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        let mut scratch = Scratch { tool, server: Server::alone(port, home) };
        job.out.progress("a scratch server", 0, None);
        scratch.wait(port)?;
        let live = scratch.server.holds_and_where()?;
        scratch.still_runs()?;
        // Whatever else may listen there: nothing is loaded into it.
        if live.path.as_deref() != data.to_str() || !live.collections.is_empty() {
            return Err(Error::Barred(format!(
                "what answers at {LOOPBACK}:{port} is not the scratch server that was begun empty"
            )));
        }
        Ok((scratch, live))
    }

    /// How to ask it.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// What a failure is to blame on: no backup, where the server has ended under it, does not answer any more, or has
    /// no room.
    pub(super) fn fault_of(&mut self, error: Error) -> Error {
        if let Err(ended) = self.still_runs() {
            return ended;
        }
        if let Err(full @ Error::NoRoom(_)) =
            room(self.server.home().path()).and_then(|room| has_room(&room, 0))
        {
            return full;
        }
        match self.server.holds() {
            Ok(_) => error,
            Err(Error::Stopped) => Error::Stopped,
            Err(why) => Error::Barred(format!(
                "the scratch server answers no more ({}), after: {}",
                why.chain(),
                error.chain()
            )),
        }
    }

    fn wait(&mut self, port: u16) -> Result<()> {
        let late =
            || Error::Barred(format!("the scratch server has not started within {} s", START.as_secs()));
        stop::until(START, late, || {
            self.still_runs()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
    }

    fn still_runs(&mut self) -> Result<()> {
        if !self.tool.has_ended()? {
            return Ok(());
        }
        if stop::is_stopping() {
            return Err(Error::Stopped);
        }
        let (status, said) = self.tool.end()?;
        let said = Vec::from(said).join("; ");
        let log = log(&self.server.home().path().join("log"));
        Err(Error::Barred(format!("the scratch server of this image has ended ({status}): {said} {log}")))
    }
}

/// What no backup has had a part in.
pub(super) fn circumstance(error: Error) -> Error {
    if error.kind() == FaultKind::Final { Error::Barred(error.chain()) } else { error }
}

/// The command that starts it. It reads no file of settings unless it is told to.
fn command(home: &Path, port: u16) -> Result<Command> {
    let mut command = Command::new(tool::first_of(&[SERVER])?);
    let at = |name: &str| home.join(name).display().to_string();
    command.args([
        format!("--dbpath={}", at("data")),
        format!("--logpath={}", at("log")),
        format!("--bind_ip={LOOPBACK}"),
        format!("--port={port}"),
        format!("--wiredTigerCacheSizeGB={CACHE}"),
        "--nounixsocket".to_owned(),
        // What has expired since the backup has to be there to be counted.
        "--setParameter=ttlMonitorEnabled=false".to_owned(),
    ]);
    command.env("HOME", home).env("TMPDIR", home).current_dir(home);
    Ok(command)
}

/// Nobody else is there: the loopback interface is the job's own.
fn free_port() -> Result<u16> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    free.map(|address| address.port()).map_err(Error::io("there is no port for the scratch server"))
}

fn room(path: &Path) -> Result<Room> {
    let stat =
        rustix::fs::statvfs(path).map_err(Error::errno("cannot measure the room where the job runs"))?;
    Ok(Room::of(&stat))
}

/// Refuses to go on where an archive of this size, loaded, would leave too little.
fn has_room(room: &Room, size: u64) -> Result<()> {
    let need = if size == 0 { 0 } else { size.saturating_add(size / 5).saturating_add(OWN_ROOM) };
    let least = room.capacity / LEAST;
    if room.free >= need.saturating_add(least) {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(Error::NoRoom(format!(
        "a scratch server needs {} MiB besides the {} MiB that must stay free; only {} MiB are free where the job runs",
        mib(need),
        mib(least),
        mib(room.free)
    )))
}

fn log(path: &Path) -> String {
    let Ok(mut file) = std::fs::File::open(path) else { return String::new() };
    let mut text = Vec::new();
    // A log shorter than that is read whole.
    let _short = file.seek(SeekFrom::End(-TOLD));
    let _read = file.read_to_end(&mut text);
    String::from_utf8_lossy(&text).lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_only_where_the_loaded_archive_leaves_a_tenth() {
        let gib = |n: u64| n << 30;
        let room = |free: u64| Room { free: gib(free), capacity: gib(100) };
        // 12 GiB, half a GiB for itself, and the tenth.
        assert!(has_room(&room(23), gib(10)).is_ok());
        let why = has_room(&room(22), gib(10)).unwrap_err();
        assert!(matches!(why, Error::NoRoom(_)), "{}", why.chain());
        assert!(has_room(&room(10), 0).is_ok() && has_room(&room(9), 0).is_err());
    }
}
