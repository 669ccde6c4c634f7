//! Starting the image's own tools. No secret is in an argument; what a tool says on standard error is
//! kept (the last lines) and goes into the fault's message, redacted.

use std::collections::VecDeque;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::job::Job;
use crate::stop;
use crate::store::Whole;

/// Number of lines of standard error that are kept.
const KEPT_LINES: usize = 20;
/// How long a tool may take to end after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(3);
/// Longest pause between two looks at a tool that reads an artefact.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A running tool. Dropped while running, it is ended and reaped.
pub(crate) struct Tool {
    name: String,
    child: Child,
    said: Option<JoinHandle<VecDeque<String>>>,
    status: Option<ExitStatus>,
}

// === impl Tool ===

impl Tool {
    /// Starts `command`, unless the job is stopping.
    pub(crate) fn start(command: &mut Command) -> Result<Tool> {
        if stop::is_stopping() { Err(Error::Stopped) } else { Tool::start_even_when_stopping(command) }
    }

    /// Starts `command`; for what must be undone before the job ends.
    pub(crate) fn start_even_when_stopping(command: &mut Command) -> Result<Tool> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = stop::spawn(command.stderr(Stdio::piped()))
            .map_err(Error::io(format!("cannot start {name} in this image")))?;
        let stderr = child.stderr.take().expect("standard error was piped");
        let said = thread::spawn(move || last_lines(BufReader::new(stderr)));
        Ok(Tool { name, child, said: Some(said), status: None })
    }

    /// The tool's standard input, once, where it was piped.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The tool's standard output, once, where it was piped.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether the tool has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait().map_err(Error::io(format!("cannot watch {}", self.name)))?;
        }
        Ok(self.status.is_some())
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        if self.status.is_none() {
            stop::terminate(&self.child);
        }
    }

    /// Ends everything of the family that it leads, where it was started as the leader of one.
    pub(crate) fn end_family(&self) {
        stop::kill_family(&self.child);
    }

    /// Waits for the end; anything but exit code 0 is an error with what the tool said.
    pub(crate) fn finish(mut self) -> Result<()> {
        let (status, said) = self.end()?;
        match status {
            _ if status.success() => Ok(()),
            _ if stop::is_stopping() => Err(Error::Stopped),
            _ => Err(Error::Tool {
                tool: self.name.clone(),
                status: status.to_string(),
                said: Vec::from(said).join("; "),
            }),
        }
    }

    /// Runs `command` on an artefact, and tells how far it is. It is handed the file itself, so that it may read it in any order.
    pub(crate) fn feed(job: &Job, phase: &str, command: &mut Command, whole: &Whole) -> Result<()> {
        let cannot = || Error::io("cannot hand the dump over");
        let mut stdin = whole.file.try_clone().map_err(cannot())?;
        stdin.seek(SeekFrom::Start(0)).map_err(cannot())?;
        let mut place = stdin.try_clone().map_err(cannot())?;
        let mut tool = Tool::start(command.stdin(Stdio::from(stdin)).stdout(Stdio::null()))?;
        let mut pause = Duration::from_millis(1);
        while !tool.has_ended()? {
            // The tool's own place in the file: descriptors of one opening share it.
            let done = place.stream_position().map_err(cannot())?;
            job.out.progress(phase, done.min(whole.size), Some(whole.size));
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_EVERY);
        }
        tool.finish()
    }

    /// Waits for the end; returns the exit status and the last lines of standard error.
    pub(crate) fn end(&mut self) -> Result<(ExitStatus, VecDeque<String>)> {
        drop(self.child.stdin.take());
        let status = match self.status {
            Some(status) => status,
            None => self.child.wait().map_err(Error::io(format!("cannot watch {}", self.name)))?,
        };
        self.status = Some(status);
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        Ok((status, said))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if self.status.is_none() {
            stop::terminate(&self.child);
            let asked = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < TERM_GRACE {
                thread::sleep(Duration::from_millis(10));
            }
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
        stop::forget(&self.child);
    }
}

/// The first of several programs that the image has.
pub(crate) fn first_of(names: &[&'static str]) -> Result<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    let found = names.iter().find(|name| dirs.iter().any(|dir| dir.join(name).is_file()));
    found.copied().ok_or_else(|| Error::refused(format!("this image has no {}", names.join(", no "))))
}

/// What `command` prints, trimmed.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut tool = Tool::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut text = String::new();
    let mut stdout = tool.stdout().expect("standard output was piped");
    stdout.read_to_string(&mut text).map_err(Error::io(format!("cannot read what {name} prints")))?;
    tool.finish()?;
    Ok(text.trim().to_owned())
}

fn last_lines(mut from: impl std::io::BufRead) -> VecDeque<String> {
    let mut kept = VecDeque::with_capacity(KEPT_LINES);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept_and_bad_utf_8_does_not_matter() {
        let mut text: Vec<u8> = (0..30).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        text.extend_from_slice(b"last \xff");
        let kept = last_lines(text.as_slice());
        assert_eq!(kept.len(), KEPT_LINES);
        assert_eq!(kept[0], "line 11");
        assert_eq!(kept[KEPT_LINES - 1], "last \u{fffd}");
    }

    #[test]
    fn a_failing_tool_tells_its_status_and_its_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo something is wrong >&2; exit 3"]);
        let error = Tool::start(&mut command).unwrap().finish().unwrap_err();
        assert_eq!(error.chain(), "sh failed (exit status: 3): something is wrong");
    }

    #[test]
    fn a_tool_that_the_image_lacks_is_named() {
        let error = output_of(&mut Command::new("no-such-tool")).unwrap_err();
        assert!(error.chain().contains("cannot start no-such-tool in this image"), "{}", error.chain());
        assert_eq!(error.kind(), crate::line::FaultKind::Final);
    }

    #[test]
    fn a_dropped_tool_does_not_run_on() {
        let tool = Tool::start(Command::new("sleep").arg("1000")).unwrap();
        let id = tool.child.id();
        drop(tool);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }
}
