//! Commands of a service: they are given and asked for bytes, and are trusted with what the bytes mean.
//!
//! Invariants: what a command prints is either the artefact or goes to standard error, never among the lines of the job;
//! no secret of the service is in a message.

use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::job::Job;
use crate::store::{Draft, Folder, Whole};
use crate::task::{Contents, DirDumped, ShellCommand};
use crate::tool::Tool;

/// The only artefact.
const FILE: &str = "data.dump";
pub(super) const SHELL: &str = "/bin/sh";
/// What comes before a command of which nothing but its word is wanted: its output is told with its errors.
const TO_STDERR: &str = "exec >&2\n";
/// Where Swarm puts secrets that name no other place, and the largest that is looked for in messages, in bytes.
const SECRETS: &str = "/run/secrets";
const LARGEST_SECRET: u64 = 4096;

/// Dumps into a directory of the store; what comes back lacks the times.
pub(super) fn dump(job: &Job, command: &ShellCommand, folder: &Folder) -> Result<DirDumped> {
    let mut shell = shell(job, command, "")?;
    let mut draft = Draft::new(job, folder, FILE.to_owned())?;
    let mut tool = Tool::start(shell.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let copied = draft.copy(&mut tool.stdout().expect("standard output was piped"));
    // What the command says tells more than that its stream was cut short.
    tool.finish().map_err(named("the dump command"))?;
    copied?;
    let artefact = draft.publish()?;
    if artefact.size == 0 {
        return Err(Error::refused(
            "the dump command printed nothing: the data has to come on its standard output",
        ));
    }
    let not_held = "anything that the dump command does not print".to_owned();
    let contents = Contents { size: artefact.size, not_held: vec![not_held], ..Contents::default() };
    Ok(DirDumped {
        artefacts: vec![artefact],
        server_version: String::new(),
        tool_version: format!("skep-runner {}", env!("CARGO_PKG_VERSION")),
        started: String::new(),
        ended: String::new(),
        contents,
    })
}

/// Has a dump read by the verify command.
pub(super) fn verify(job: &Job, command: &ShellCommand, whole: &Whole) -> Result<()> {
    feed(job, command, "the verify command", whole)
}

/// Hands a dump to the load command.
pub(super) fn load(job: &Job, command: &ShellCommand, whole: &Whole) -> Result<()> {
    feed(job, command, "the load command", whole)?;
    whole.is_untouched()
}

/// Runs a command on an artefact.
fn feed(job: &Job, command: &ShellCommand, what: &'static str, whole: &Whole) -> Result<()> {
    let mut shell = shell(job, command, TO_STDERR)?;
    Tool::feed(job, what, &mut shell, whole).map_err(named(what))
}

/// A command with the environment of its service.
pub(super) fn shell(job: &Job, command: &ShellCommand, before: &str) -> Result<Command> {
    let mut shell = Command::new(SHELL);
    shell.arg("-c").arg(format!("{before}{}", command.text));
    surrounded(job, command, shell)
}

/// A program with the environment of its service, whose secrets are kept back from now on.
pub(super) fn surrounded(job: &Job, command: &ShellCommand, mut shell: Command) -> Result<Command> {
    if let Some(path) = &command.environment {
        let text = std::fs::read_to_string(path).map_err(Error::io(format!("cannot read {path}")))?;
        for entry in text.split('\0').filter(|entry| !entry.is_empty()) {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            keep_back(job, value);
            shell.env(name, value);
        }
    }
    keep_back_files(job);
    shell.env(crate::HOST_VARIABLE, &command.host);
    Ok(shell)
}

/// A secret, and the password in it where it is an address: a command may complain of either.
fn keep_back(job: &Job, secret: &str) {
    job.out.keep_back(secret);
    let login = secret.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'));
    if let Some((_, password)) = login.and_then(|(login, _)| login.split_once(':')) {
        job.out.keep_back(password);
    }
}

/// The service's secrets are files, and a command may complain of what it read there. Best effort: the files of others
/// cannot be read, and need not be.
fn keep_back_files(job: &Job) {
    for entry in std::fs::read_dir(SECRETS).into_iter().flatten().flatten() {
        let is_small = entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST_SECRET);
        if let (true, Ok(text)) = (is_small, std::fs::read_to_string(entry.path())) {
            keep_back(job, text.trim());
        }
    }
}

/// The command is what people know; that it runs in a shell is not.
fn named(what: &'static str) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Tool { status, said, .. } => Error::Tool { tool: what.to_owned(), status, said },
        other => other,
    }
}
