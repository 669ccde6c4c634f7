//! The static runner: does one task inside the image of the service that it works for.
//!
//! ```text
//! runner task ─▶ read ticket ─▶ do the task ─▶ JSON lines on stdout ─▶ exit 0 done, 1 try again, 2 final
//! ```
//!
//! The exit code is the truth; the lines describe. See `skep_runner` for the types.

mod error;
mod job;
mod net;
mod output;
mod pg;
mod redis;
mod stop;
mod store;
mod tool;

use std::process::ExitCode;

use skep_runner::line::FaultKind;
use skep_runner::task::{Discard, Report, Task, Ticket};

use crate::error::{Error, Result};
use crate::job::Job;
use crate::output::Output;

const USAGE: &str = "usage: runner --version | runner task [--ticket PATH]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--version"] => {
            println!("runner {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["task"] => task(skep_runner::TICKET_PATH),
        ["task", "--ticket", path] => task(path),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn task(path: &str) -> ExitCode {
    if stop::is_init() {
        return stop::run_as_init().map_or(ExitCode::from(1), ExitCode::from);
    }
    let done = stop::install()
        .map_err(Error::io("cannot handle signals"))
        .and_then(|()| ticket(path))
        .and_then(|ticket| Ok((Job::new(&ticket)?, ticket)));
    let (job, ticket) = match done {
        Ok(ready) => ready,
        Err(error) => return fault(&Output::default(), &error),
    };
    match run(&job, &ticket.task) {
        Ok(report) => {
            job.out.report(&report);
            ExitCode::SUCCESS
        }
        Err(error) => fault(&job.out, &error),
    }
}

fn ticket(path: &str) -> Result<Ticket> {
    let text = std::fs::read(path).map_err(Error::io(format!("cannot read the ticket {path}")))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::refused(format!("cannot understand the ticket {path}: {error}")))
}

fn run(job: &Job, task: &Task) -> Result<Report> {
    match task {
        Task::Probe => Ok(Report::Probe { version: env!("CARGO_PKG_VERSION").to_owned() }),
        Task::PgInspect(task) => pg::inspect::inspect(job, task),
        Task::PgDump(task) => pg::dump::dump(job, task),
        Task::PgSeal(task) => pg::dump::seal(job, task),
        Task::PgExamine(task) => pg::dump::examine(job, task),
        Task::PgRestore(task) => pg::restore::beside(job, task),
        Task::SqlChecks(task) => pg::checks::run(job, task),
        Task::PgFence(task) => pg::swap::fence(job, task),
        Task::PgSwap(task) => pg::swap::swap(job, task),
        Task::PgDrop(task) => pg::swap::drop_all(job, task),
        Task::PgInPlace(task) => pg::restore::in_place(job, task),
        Task::NetChecks(task) => net::run(job, task),
        Task::RedisFlush(task) => redis::flush(job, task),
        Task::Discard(Discard { dir, sealed }) => {
            store::discard(&job.store, dir, *sealed)?;
            Ok(Report::Done)
        }
    }
}

fn fault(out: &Output, error: &Error) -> ExitCode {
    let kind = error.kind();
    out.fault(kind, &error.chain());
    match kind {
        FaultKind::Transient => ExitCode::from(1),
        FaultKind::Final => ExitCode::from(2),
    }
}
