//! Commands as checks. They are run again until they pass or their time is over, each no longer than it may take.
//!
//! Invariants: nothing that a command began outlives its run; what it printed goes into no line but as a detail, short and
//! without the secrets of the service.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::shell::{SHELL, shell, surrounded};
use crate::asking::until_passed;
use crate::error::{Error, Result};
use crate::expect;
use crate::job::Job;
use crate::stop;
use crate::task::{CheckOutcome, CommandCheck, CommandChecks, Expect, Report, ShellCommand};
use crate::tool::Tool;

/// So much of what a command prints is looked at, in bytes.
const KEPT: usize = 64 * 1024;
/// What only a shell understands.
const FOR_A_SHELL: &str = "\"'`$&|;<>()*?[]{}~#\\\n";

/// Runs the checks one after another, until they pass or their time is over; the task succeeds also when checks fail.
pub(super) fn run(job: &Job, task: &CommandChecks) -> Result<Report> {
    let CommandChecks { checks, deadline_s } = task;
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    let mut outcomes: Vec<Option<CheckOutcome>> = vec![None; checks.len()];
    let asked = until_passed(job, &names, *deadline_s, || {
        for (check, outcome) in checks.iter().zip(&mut outcomes) {
            if outcome.as_ref().is_none_or(|outcome| !outcome.passed) {
                *outcome = Some(once(job, check)?);
            }
        }
        Ok(outcomes.iter().flatten().cloned().collect())
    })?;
    Ok(Report::Checks { outcomes: asked })
}

/// Runs one command. That it fails, or takes too long, is an outcome; that it cannot be started is an error.
fn once(job: &Job, check: &CommandCheck) -> Result<CheckOutcome> {
    let CommandCheck { name, command, expect, within_ms } = check;
    let within = Duration::from_millis((*within_ms).max(1));
    let mut program = program(job, command, Path::new(SHELL))?;
    // A family of its own, so that all of it can be ended.
    let mut tool = Tool::start(program.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let printed = listen(tool.stdout().expect("standard output was piped"));
    let late = || Error::refused(format!("it takes longer than {} s", within.as_secs_f64()));
    let ended = stop::until(within, late, || tool.has_ended());
    // Whatever it left behind holds its output open.
    tool.end_family();
    let (passed, detail) = match ended {
        Err(Error::Refused(why)) => (false, why),
        Err(error) => return Err(error),
        Ok(()) => {
            let (status, said) = tool.end()?;
            let printed = printed.join().unwrap_or_default();
            match status.success() {
                true => judge(job, expect, &printed)?,
                false if stop::is_stopping() => return Err(Error::Stopped),
                false => (false, failed(job, &status.to_string(), &Vec::from(said).join("; "), &printed)),
            }
        }
    };
    Ok(CheckOutcome { name: name.clone(), passed, detail })
}

/// The command in a shell; where the image at `shell_path` has none, the program that its words name.
fn program(job: &Job, command: &ShellCommand, shell_path: &Path) -> Result<Command> {
    if shell_path.exists() {
        return shell(job, command, "");
    }
    let mut words = command.text.split_whitespace();
    match words.next().filter(|_| !command.text.contains(|c| FOR_A_SHELL.contains(c))) {
        Some(word) => {
            let mut program = Command::new(word);
            program.args(words);
            surrounded(job, command, program)
        }
        None => Err(Error::refused(format!(
            "this image has no {SHELL}: there, a command is the path of a program and plain words"
        ))),
    }
}

/// Keeps the beginning of what is printed, and lets the rest pass.
fn listen(mut stdout: ChildStdout) -> JoinHandle<String> {
    thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 8192]);
        while let Ok(read @ 1..) = stdout.read(&mut buffer) {
            let room = KEPT.saturating_sub(kept.len());
            kept.extend_from_slice(&buffer[..read.min(room)]);
        }
        String::from_utf8_lossy(&kept).into_owned()
    })
}

/// Whether it printed what is wanted, and what to tell.
fn judge(job: &Job, expect: &Expect, printed: &str) -> Result<(bool, String)> {
    if *expect == Expect::Any {
        return Ok((true, "exit code 0".to_owned()));
    }
    let mut no_regex = |_: &str, _: &str| {
        Err(Error::refused(
            "what a command prints is compared without regular expressions; `grep` knows them",
        ))
    };
    let (passed, wanted) = expect::compare(expect, printed.trim(), &mut no_regex)?;
    let told = expect::shortened(&job.out.redact(printed.trim()));
    Ok((passed, format!("printed {told}, wanted {wanted}")))
}

/// What is told of one that failed: its last words, and where it has none what it printed.
fn failed(job: &Job, status: &str, said: &str, printed: &str) -> String {
    let words = if said.trim().is_empty() { printed.trim() } else { said.trim() };
    let words = job.out.redact(words);
    // What went wrong stands at the end.
    let from = words.len().saturating_sub(expect::TOLD);
    let from = words.ceil_char_boundary(from);
    let words = words[from..].replace('\n', "; ");
    if words.is_empty() { status.to_owned() } else { format!("{status}: {words}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Task, Ticket};

    fn job() -> Job {
        let ticket = Ticket {
            schema: crate::SCHEMA,
            session: "skep-1-check-1".to_owned(),
            fence: "skep-1-check-".to_owned(),
            task: Task::Probe,
            anchors: None,
        };
        Job::new(&ticket).unwrap()
    }

    fn command(text: &str) -> ShellCommand {
        ShellCommand { text: text.to_owned(), host: "tasks.shop_app".to_owned(), environment: None }
    }

    fn check(text: &str, expect: Expect) -> CommandCheck {
        CommandCheck { name: "c".to_owned(), command: command(text), expect, within_ms: 500 }
    }

    fn asked(text: &str, expect: Expect) -> (bool, String) {
        let outcome = once(&job(), &check(text, expect)).unwrap();
        (outcome.passed, outcome.detail)
    }

    #[test]
    fn a_command_passes_by_its_exit_code_and_by_what_it_prints() {
        assert_eq!(asked("true", Expect::Any), (true, "exit code 0".to_owned()));
        assert!(asked("echo ' 3 '", Expect::Eq("3".to_owned())).0);
        assert!(asked("echo $SKEP_HOST", Expect::Eq("tasks.shop_app".to_owned())).0);
        assert_eq!(asked("echo 3", Expect::Ge(4.0)), (false, "printed 3, wanted ≥ 4".to_owned()));
        let (passed, detail) = asked("echo 3; echo no room >&2; exit 4", Expect::Eq("3".to_owned()));
        assert_eq!((passed, detail.as_str()), (false, "exit status: 4: no room"));
        assert_eq!(asked("echo shown; exit 1", Expect::Any).1, "exit status: 1: shown");
    }

    #[test]
    fn one_that_takes_too_long_fails_and_nothing_of_it_runs_on() {
        let left = std::env::temp_dir().join(format!("skep-check-{}", std::process::id()));
        let text = format!("sh -c 'echo $$ > {0}; exec sleep 60' & sleep 60", left.display());
        let began = std::time::Instant::now();
        assert_eq!(asked(&text, Expect::Any), (false, "it takes longer than 0.5 s".to_owned()));
        let id = std::fs::read_to_string(&left).unwrap();
        // It was told to end, and the kernel may need a moment for that.
        let told = std::time::Instant::now();
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                break;
            }
            assert!(told.elapsed() < Duration::from_secs(5), "it runs on: {stat}");
            thread::yield_now();
        }
        // One that ends and leaves something behind is not waited for either.
        assert!(asked("sleep 60 & echo done", Expect::Eq("done".to_owned())).0);
        assert!(began.elapsed() < Duration::from_secs(20));
        std::fs::remove_file(&left).unwrap();
    }

    #[test]
    fn a_lot_of_output_is_no_reason_to_wait() {
        assert!(asked("head -c 300000 /dev/zero | tr '\\0' x", Expect::Any).0);
    }

    #[test]
    fn secrets_are_taken_out_of_what_is_told() {
        let job = job();
        job.out.keep_back("hunter22");
        let told = |text: &str, expect| once(&job, &check(text, expect)).unwrap().detail;
        assert_eq!(told("echo bad hunter22 >&2; exit 1", Expect::Any), "exit status: 1: bad [redacted]");
        assert_eq!(told("echo hunter22", Expect::Eq("x".to_owned())), "printed [redacted], wanted = x");
        let long = "echo hunter22; head -c 400 /dev/zero | tr '\\0' y; exit 1";
        assert!(!told(long, Expect::Any).contains("hunter"));
    }

    #[test]
    fn without_a_shell_a_command_is_a_program_and_plain_words() {
        let nowhere = Path::new("/nowhere/sh");
        let job = job();
        let program_of = |text: &str| program(&job, &command(text), nowhere);
        let found = program_of("/shop healthcheck --fast").unwrap();
        let words: Vec<_> = found.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(
            (found.get_program().to_str(), words.as_slice()),
            (Some("/shop"), ["healthcheck".to_owned(), "--fast".to_owned()].as_slice())
        );
        for text in ["/shop check && true", "/shop \"a b\"", "/shop $SKEP_HOST", ""] {
            assert!(program_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn commands_are_run_again_until_they_pass() {
        let file = std::env::temp_dir().join(format!("skep-check-again-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        let text = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3", file.display());
        let checks = vec![check("true", Expect::Any), check(&text, Expect::Any)];
        let report = run(&job(), &CommandChecks { checks, deadline_s: 30 }).unwrap();
        let Report::Checks { outcomes } = report else { panic!("another report") };
        assert!(outcomes.iter().all(|outcome| outcome.passed), "{outcomes:?}");
        let never = CommandChecks { checks: vec![check("false", Expect::Any)], deadline_s: 0 };
        let Report::Checks { outcomes } = run(&job(), &never).unwrap() else { panic!("another report") };
        assert!(!outcomes[0].passed);
        std::fs::remove_file(&file).unwrap();
    }
}
