//! From an RDB to the files that the live server reads at its start.
//!
//! ```text
//! copy RDB ▶ scratch server loads it ▶ keys counted ─┬ appendonly no ───────────────────▶ checks ▶ hand over
//!                                                    └ yes: rewrite AOF ▶ server on it ▶ ┘
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{Mode, OFlags};

use super::checks;
use super::client::{Client, is_passing};
use super::dump::{Counts, read_in_full};
use crate::dir::files;
use crate::dir::load::{Build, Built};
use crate::dir::side::Replaces;
use crate::error::{Error, Result};
use crate::scratch::{Scratch, Watch};
use crate::task::{RedisFiles, ServerSettings};
use crate::tool;

/// Names of the server in the images of Redis and of Valkey.
const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];

/// Builds the data directory.
pub(crate) fn build<'a>(build: &'a Build<'a>) -> Result<Built> {
    let Some(ServerSettings::Redis(settings)) = build.settings() else {
        return Err(Error::refused(
            "it is not known which files the live Redis reads: ask it before, or back it up",
        ));
    };
    for name in [Some(&settings.rdb), Some(&settings.aof), settings.aof_dir.as_ref()].into_iter().flatten() {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(Error::refused(format!("`{name}` is not the name of a file of a Redis")));
        }
    }
    let counts = read_in_full(build.whole)?;
    copy(build, &settings.rdb)?;
    let (mut server, mut client) = start(build, settings, false)?;
    let mut keys = loaded(&mut client, counts)?;
    if settings.append_only {
        rewrite(build, &mut server, &mut client)?;
        shut_down(server, &mut client)?;
        files::remove(build.new, OsStr::new(&settings.rdb))?;
        (server, client) = start(build, settings, true)?;
        let again = client.keys()?;
        let expires = counts.map_or(0, |counts| counts.expires);
        if again > keys || again + expires < keys {
            return Err(Error::refused(format!(
                "{keys} keys were loaded, and {again} are in the append-only files"
            )));
        }
        keys = again;
    }
    if let Some(database) = &build.task.database {
        client.ask(&["SELECT", database])?;
    }
    let checks = checks::all(build.job, &mut client, &build.task.checks)?;
    shut_down(server, &mut client)?;
    build.hand_over()?;
    Ok(Built { entries: keys, replaces: Replaces::Redis(settings.clone()), checks })
}

fn copy(build: &Build<'_>, name: &str) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(build.new, name, flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(fd.map_err(files::wrong("make", OsStr::new(name)))?);
    build.job.out.progress("copy", 0, Some(build.whole.size));
    std::io::copy(&mut build.whole.reader(), &mut file).map_err(Error::io("cannot copy the RDB"))?;
    build.owner.take(build.new, OsStr::new(name))
}

/// Starts a server on what is in `new`, and waits until it has loaded it.
fn start<'a>(
    build: &'a Build<'a>,
    settings: &RedisFiles,
    append_only: bool,
) -> Result<(Scratch<'a>, Client)> {
    let RedisFiles { rdb, aof, aof_dir, databases, .. } = settings;
    let mut command = Command::new(tool::first_of(&SERVERS)?);
    command
        .args([
            "--port",
            "0",
            "--unixsocketperm",
            "700",
            "--daemonize",
            "no",
            "--save",
            "",
            "--maxmemory",
            "0",
        ])
        .args(["--unixsocket", &format!("{}/s", build.side_path()), "--dir", &build.new_path()])
        .args(["--logfile", &format!("{}/log", build.side_path()), "--databases", &databases.to_string()])
        .args(["--dbfilename", rdb, "--appendfilename", aof])
        .args(["--appendonly", if append_only { "yes" } else { "no" }]);
    if let Some(dir) = aof_dir {
        command.args(["--appenddirname", dir]);
    }
    let mut server = Scratch::start(build, command)?;
    let mut client = None;
    server.wait("load", || {
        if client.is_none() {
            client = Client::unix(&socket(build)).ok();
        }
        match client.as_mut().map(|client| client.say(&["PING"])) {
            Some(Ok(Ok(_))) => Ok(Watch::Over),
            Some(Ok(Err(refusal))) if !is_passing(&refusal) => Err(Error::refused(refusal)),
            Some(Err(_)) => {
                client = None;
                Ok(Watch::On)
            }
            _ => Ok(Watch::On),
        }
    })?;
    Ok((server, client.expect("it has answered")))
}

fn socket(build: &Build<'_>) -> PathBuf {
    PathBuf::from(format!("{}/s", build.side_path()))
}

/// Number of keys; refuses a server that did not load what the dump holds.
fn loaded(client: &mut Client, counts: Option<Counts>) -> Result<u64> {
    let keys = client.keys()?;
    let info = client.info("persistence")?;
    let of =
        |name: &str| info.iter().find(|(found, _)| found == name).and_then(|(_, v)| v.parse::<u64>().ok());
    let Some(Counts { keys: held, expires }) = counts else { return Ok(keys) };
    let is_whole = match (of("rdb_last_load_keys_loaded"), of("rdb_last_load_keys_expired")) {
        (Some(loaded), Some(expired)) => loaded + expired == held,
        // Older servers do not tell what expired meanwhile.
        _ => keys <= held && keys + expires >= held,
    };
    if is_whole {
        return Ok(keys);
    }
    Err(Error::refused(format!(
        "the dump holds {held} keys, of which {expires} expire, and {keys} were loaded"
    )))
}

/// Makes the append-only files out of what is loaded.
fn rewrite(build: &Build<'_>, server: &mut Scratch<'_>, client: &mut Client) -> Result<()> {
    client.ask(&["CONFIG", "SET", "appendonly", "yes"])?;
    server.wait("rewrite", || {
        let info = client.info("persistence")?;
        let is =
            |name: &str, wanted: &str| info.iter().any(|(found, value)| found == name && value == wanted);
        if !is("aof_rewrite_in_progress", "0") || is("aof_rewrite_scheduled", "1") {
            return Ok(Watch::On);
        }
        if is("aof_last_bgrewrite_status", "ok") && is("aof_enabled", "1") {
            return Ok(Watch::Over);
        }
        build.root.has_room(0)?;
        Err(Error::refused("the append-only files could not be written"))
    })
}

fn shut_down(server: Scratch<'_>, client: &mut Client) -> Result<()> {
    // The server ends without an answer.
    let _ended = client.say(&["SHUTDOWN", "NOSAVE"]);
    server.finish()
}
