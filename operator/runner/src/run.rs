//! Running one ticket, the same for every binary; a binary is a family of tasks.
//!
//! ```text
//! runner task ─▶ read ticket ─▶ do the task ─▶ JSON lines on stdout ─▶ exit 0 done, 1 try again, 2 final
//! ```
//!
//! The exit code is the truth; the lines describe. See `skep_runner` for the types.

use std::process::ExitCode;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::job::Job;
use crate::line::FaultKind;
use crate::output::Output;
use crate::task::{
    CommandChecks, CommandDrill, CommandDump, CommandExamine, CommandLoad, CommandSeal, DataChecks, DirDump,
    DirExamine, DirInspect, DirLoad, DirMove, DirRemove, DirSeal, Discard, LayoutCopy, LayoutScan, NetChecks,
    PgCreateRoles, PgDrop, PgDropRoles, PgDropSlot, PgDump, PgFence, PgInPlace, PgInspect, PgReceive,
    PgRecover, PgRestore, PgSeal, PgSwap, PgTakeBase, RedisFlush, Report, SqlChecks, StoreScan, StoreVerify,
    Stored, Ticket, WalPrune,
};
use crate::{command, dir, net, pg, redis, stop, store};

const USAGE: &str = "usage: runner --version | runner task [--ticket PATH]";

/// The tasks that a binary can do: part of [`crate::Task`], in the same form. Each binary has one family, since
/// together they would not fit into a Swarm config.
trait Family: DeserializeOwned {
    /// Does the task.
    fn run(&self, job: &Job) -> Result<Report>;
}

/// PostgreSQL, and checks over the network.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Databases {
    Probe,
    PgInspect(PgInspect),
    PgDump(PgDump),
    PgSeal(Box<PgSeal>),
    PgExamine(Stored),
    PgRestore(PgRestore),
    SqlChecks(SqlChecks),
    PgFence(PgFence),
    PgSwap(PgSwap),
    PgDrop(PgDrop),
    PgCreateRoles(PgCreateRoles),
    PgDropRoles(PgDropRoles),
    PgInPlace(Box<PgInPlace>),
    NetChecks(NetChecks),
    RedisFlush(RedisFlush),
    Discard(Discard),
    StoreVerify(StoreVerify),
    StoreScan(StoreScan),
    LayoutScan(LayoutScan),
    LayoutCopy(LayoutCopy),
}

/// Engines whose data is a directory.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Directories {
    Probe,
    DirInspect(DirInspect),
    DirDump(DirDump),
    DirSeal(Box<DirSeal>),
    DirExamine(DirExamine),
    DirLoad(Box<DirLoad>),
    DirMove(DirMove),
    DirRemove(DirRemove),
    DataChecks(DataChecks),
    Discard(Discard),
}

/// Data that a running service alone tells, and takes.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Services {
    Probe,
    CommandDump(CommandDump),
    CommandSeal(Box<CommandSeal>),
    CommandExamine(CommandExamine),
    CommandLoad(CommandLoad),
    CommandDrill(CommandDrill),
    CommandChecks(CommandChecks),
    Discard(Discard),
}

/// PostgreSQL's write-ahead log.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Log {
    Probe,
    PgTakeBase(PgTakeBase),
    PgReceive(PgReceive),
    PgRecover(PgRecover),
    PgDropSlot(PgDropSlot),
    WalPrune(WalPrune),
}

/// The program of PostgreSQL and of checks over the network.
pub fn databases() -> ExitCode {
    main::<Databases>()
}

/// The program of engines whose data is a directory.
pub fn directories() -> ExitCode {
    main::<Directories>()
}

/// The program of PostgreSQL's write-ahead log.
pub fn log() -> ExitCode {
    main::<Log>()
}

/// The program of data that a running service alone tells.
pub fn services() -> ExitCode {
    main::<Services>()
}

fn main<F: Family>() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--version"] => {
            println!("runner {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["task"] => task::<F>(crate::TICKET_PATH),
        ["task", "--ticket", path] => task::<F>(path),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn task<F: Family>(path: &str) -> ExitCode {
    if stop::is_init() {
        return stop::run_as_init().map_or(ExitCode::from(1), ExitCode::from);
    }
    let done = stop::install()
        .map_err(Error::io("cannot handle signals"))
        .and_then(|()| ticket::<F>(path))
        .and_then(|ticket| Ok((Job::new(&ticket)?, ticket)));
    let (job, ticket) = match done {
        Ok(ready) => ready,
        Err(error) => return fault(&Output::default(), &error),
    };
    let known = ticket.anchors.as_ref().map_or(Ok(()), |anchors| store::is_the_one(&job.store, anchors));
    match known.and_then(|()| ticket.task.run(&job)) {
        Ok(report) => {
            job.out.report(&report);
            ExitCode::SUCCESS
        }
        Err(error) => fault(&job.out, &error),
    }
}

fn ticket<F: Family>(path: &str) -> Result<Ticket<F>> {
    let text = std::fs::read(path).map_err(Error::io(format!("cannot read the ticket {path}")))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::refused(format!("cannot understand the ticket {path}: {error}")))
}

impl Family for Databases {
    fn run(&self, job: &Job) -> Result<Report> {
        match self {
            Databases::Probe => Ok(probe()),
            Databases::PgInspect(task) => pg::inspect::inspect(job, task),
            Databases::PgDump(task) => pg::dump::dump(job, task),
            Databases::PgSeal(task) => pg::dump::seal(job, task),
            Databases::PgExamine(task) => pg::dump::examine(job, task),
            Databases::PgRestore(task) => pg::restore::beside(job, task),
            Databases::SqlChecks(task) => pg::checks::run(job, task),
            Databases::PgFence(task) => pg::swap::fence(job, task),
            Databases::PgSwap(task) => pg::swap::swap(job, task),
            Databases::PgDrop(task) => pg::swap::drop_all(job, task),
            Databases::PgCreateRoles(task) => pg::globals::create(job, task),
            Databases::PgDropRoles(task) => pg::globals::drop_all(job, task),
            Databases::PgInPlace(task) => pg::restore::in_place(job, task),
            Databases::NetChecks(task) => net::run(job, task),
            Databases::RedisFlush(task) => redis::flush::flush(job, task),
            Databases::Discard(task) => discard(job, task),
            Databases::StoreVerify(task) => {
                store::verify(job, task, |whole| pg::dump::read_in_full(job, whole))
            }
            Databases::StoreScan(task) => store::scan(job, task),
            Databases::LayoutScan(task) => store::layout::scan(job, task),
            Databases::LayoutCopy(task) => store::layout::copy(job, task),
        }
    }
}

impl Family for Directories {
    fn run(&self, job: &Job) -> Result<Report> {
        match self {
            Directories::Probe => Ok(probe()),
            Directories::DirInspect(task) => dir::inspect::inspect(job, task),
            Directories::DirDump(task) => dir::dump::dump(job, task),
            Directories::DirSeal(task) => dir::dump::seal(job, task),
            Directories::DirExamine(task) => dir::dump::examine(job, task),
            Directories::DirLoad(task) => dir::load::load(job, task),
            Directories::DirMove(task) => dir::moves::run(job, task),
            Directories::DirRemove(task) => dir::remove::remove(job, task),
            Directories::DataChecks(task) => dir::checks::run(job, task),
            Directories::Discard(task) => discard(job, task),
        }
    }
}

impl Family for Log {
    fn run(&self, job: &Job) -> Result<Report> {
        match self {
            Log::Probe => Ok(probe()),
            Log::PgTakeBase(task) => pg::wal::take(job, task),
            Log::PgReceive(task) => pg::wal::receive(job, task),
            Log::PgRecover(task) => pg::wal::recover(job, task),
            Log::PgDropSlot(task) => pg::wal::drop_slot(job, task),
            Log::WalPrune(task) => pg::wal::prune(job, task),
        }
    }
}

impl Family for Services {
    fn run(&self, job: &Job) -> Result<Report> {
        match self {
            Services::Probe => Ok(probe()),
            Services::CommandDump(task) => command::dump(job, task),
            Services::CommandSeal(task) => command::seal(job, task),
            Services::CommandExamine(task) => command::examine(job, task),
            Services::CommandLoad(task) => command::load(job, task),
            Services::CommandDrill(task) => command::drill(job, task),
            Services::CommandChecks(task) => command::checks(job, task),
            Services::Discard(task) => discard(job, task),
        }
    }
}

fn probe() -> Report {
    Report::Probe { version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn discard(job: &Job, Discard { dir, sealed }: &Discard) -> Result<Report> {
    store::discard(&job.store, dir, *sealed)?;
    Ok(Report::Done)
}

fn fault(out: &Output, error: &Error) -> ExitCode {
    let kind = error.kind();
    out.fault(kind, &error.chain());
    match kind {
        FaultKind::Transient => ExitCode::from(1),
        FaultKind::Final | FaultKind::Circumstance => ExitCode::from(2),
    }
}
