//! A server of the image on data that is being built: reached by a socket only, run as the owner of the live
//! data, watched for its end and for room.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::dir::files;
use crate::dir::load::Build;
use crate::error::{Error, Result};
use crate::stop;
use crate::tool::Tool;

/// Longest pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of the log's end that a fault tells.
const TOLD: i64 = 2000;

/// A running server.
pub(crate) struct Scratch<'a> {
    build: &'a Build<'a>,
    name: String,
    tool: Tool,
}

/// Whether to go on waiting.
pub(crate) enum Watch {
    /// Look again.
    On,
    /// It is so.
    Over,
}

// === impl Scratch ===

impl<'a> Scratch<'a> {
    /// Starts it; it writes its log to `log` in the side.
    pub(crate) fn start(build: &'a Build<'a>, mut command: Command) -> Result<Scratch<'a>> {
        let name = command.get_program().to_string_lossy().into_owned();
        as_owner(build, &mut command);
        command.current_dir(build.side_path()).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Scratch { build, name, tool: Tool::start(&mut command)? })
    }

    /// Looks until it is so, as long as the server runs and there is room.
    pub(crate) fn wait(&mut self, phase: &str, mut look: impl FnMut() -> Result<Watch>) -> Result<()> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            if self.tool.has_ended()? {
                return Err(self.why());
            }
            self.build.root.has_room(0)?;
            if let Watch::Over = look()? {
                return Ok(());
            }
            if stop::is_stopping() {
                return Err(Error::Stopped);
            }
            self.build.job.out.progress(phase, began.elapsed().as_secs(), None);
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_EVERY);
        }
    }

    /// Asks it to end by a signal, then as [`Scratch::finish`].
    pub(crate) fn end(self) -> Result<()> {
        self.tool.terminate();
        self.finish()
    }

    /// Waits for an end that was asked for; any but a clean one is an error.
    pub(crate) fn finish(mut self) -> Result<()> {
        let (status, _) = self.tool.end()?;
        if status.success() { Ok(()) } else { Err(self.why()) }
    }

    fn why(&mut self) -> Error {
        if stop::is_stopping() {
            return Error::Stopped;
        }
        match self.tool.end() {
            Ok((status, said)) => {
                let said = Vec::from(said).join("; ");
                let log = log(self.build);
                Error::Tool {
                    tool: self.name.clone(),
                    status: status.to_string(),
                    said: format!("{said} {log}"),
                }
            }
            Err(error) => error,
        }
    }
}

/// Makes a command run as the owner of the live data, where it may choose, with its temporary files in the side: a
/// MariaDB that starts or ends removes those of any other one that shares a directory with it.
pub(crate) fn as_owner(build: &Build<'_>, command: &mut Command) {
    command.env("TMPDIR", build.side_path());
    if rustix::process::geteuid().is_root() {
        command.uid(build.owner.uid).gid(build.owner.gid);
    }
}

fn log(build: &Build<'_>) -> String {
    let Ok(fd) = files::open_file(&build.side.fd, std::ffi::OsStr::new("log")) else { return String::new() };
    let mut file = std::fs::File::from(fd);
    let mut text = Vec::new();
    // A log shorter than that is read whole.
    let _short = file.seek(SeekFrom::End(-TOLD));
    let _read = file.read_to_end(&mut text);
    String::from_utf8_lossy(&text).lines().map(str::trim).collect::<Vec<_>>().join("; ")
}
