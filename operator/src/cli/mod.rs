//! The command line: asks for operations, follows them, shows what is there. It needs nothing but the Docker API.
//!
//! ```text
//! arguments ─▶ plugin (called as docker-skep?) ─▶ Cli ─▶ host (which engine?) ─▶ Session ─▶ one file a command
//!                                                                                    │
//!                                        desk (create, approve, cancel, retry) ◀─────┤
//!                                        drive (only with --drive, under the lease) ◀┘
//! ```
//!
//! Invariants: nothing of a spec is ever printed but names, images of pages and ports (S15); the exit code is the
//! outcome (see [`Exit`]); what was begun goes on when nobody reads any more.

mod backups;
pub mod check;
mod drive;
mod failure;
mod follow;
mod health;
mod host;
mod import;
mod operate;
mod ops;
mod out;
mod plugin;
mod points;
mod progress;
mod ps;
mod release;
mod restart;
mod rollback;
mod scale;
mod schedules;
mod session;
pub mod settings;
mod ssh;
mod sweep;
mod table;
mod update;
mod verify;
mod waker;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use failure::{Exit, Failure};
pub use host::{HostArgs, HostError};
pub use ops::written;
pub use out::{Format, Out, OutArgs};
pub use settings::{LogFormat, OperatorArgs, WorkArgs};
pub use waker::WakerArgs;

use crate::operation::receiver;
use crate::operation::saga::Clock;
use crate::runtime::clock;
use crate::swarm::engine::Engine;
use crate::swarm::transport::Endpoint;
use check::Answer;
use plugin::Called;
use session::Session;

/// An operator for Docker Swarm: backs up, restores and maintains labelled services.
#[derive(Clone, Debug, Parser)]
#[command(name = "skep", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 as wanted · 1 failed, rolled back or cancelled · 2 refused · 3 stuck · \
                        4 waits for approval"
)]
pub struct Cli {
    /// Which engine.
    #[command(flatten)]
    pub host: HostArgs,
    /// How answers are written.
    #[command(flatten)]
    pub out: OutArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How people call this program.
    #[arg(skip = "skep".to_owned())]
    pub called: String,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the operator itself: a service of the Swarm does this.
    Operator(Box<OperatorArgs>),
    /// Show the managed services and what each is doing.
    Ps(ps::PsArgs),
    /// Say what an operation would do, and what stands against it.
    #[command(subcommand)]
    Plan(operate::PlanCommand),
    /// Back the data of a service up.
    Backup(operate::BackupArgs),
    /// List backups, read them back in full, or take in what a store holds.
    Backups(Box<backups::BackupsArgs>),
    /// Take a restore point of a whole stack: specs, configs, and the data of all its data services.
    Point(points::PointArgs),
    /// List restore points.
    Points(points::PointsArgs),
    /// Restore the data of a service.
    Restore(operate::RestoreArgs),
    /// Restart a service and what needs it, or a whole stack, in the order in which services need each other.
    Restart(restart::RestartArgs),
    /// Give a service another image, watch it for a while, and put back what it had where that does not do.
    Update(update::UpdateArgs),
    /// Put the specs, configs and images of a stack back to a restore point.
    Rollback(rollback::RollbackArgs),
    /// Prove that a backup restores: load it on the side, check it, and drop what was loaded.
    Drill(operate::DrillArgs),
    /// Put the maintenance page of a service up, or take it down.
    #[command(subcommand)]
    Maintenance(operate::MaintenanceCommand),
    /// Put a service to sleep, or wake it.
    #[command(subcommand)]
    Scale(scale::ScaleCommand),
    /// List, show, approve, cancel or retry operations.
    Ops(Box<ops::OpsArgs>),
    /// Find mistakes in the labels of stack files or services.
    Check(check::CheckArgs),
    /// Show all labels.
    Labels,
    /// Tell what a code of a problem means.
    Explain(check::ExplainArgs),
    /// Give everything back: end operations, take pages down, wake what sleeps, put exact specs back. The first step of the uninstall.
    Release(Box<release::ReleaseArgs>),
    /// Ask the operator in this container whether it is ready.
    Healthcheck(health::HealthArgs),
    /// Do what a ticket says: jobs in Skep's own image run this.
    #[command(hide = true)]
    Task {
        /// The ticket.
        #[arg(long, default_value = skep_runner::TICKET_PATH)]
        ticket: String,
    },
    /// Stand in for a service that sleeps: Skep's own image runs this in its place.
    #[command(hide = true)]
    Waker(WakerArgs),
    /// Write completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Reads the command line.
///
/// # Errors
/// The exit code, where there is nothing more to do: a mistake, or help, was printed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let (args, name) = match plugin::called(args.into_iter().collect()) {
        Called::Plainly(args) => (args, "skep"),
        Called::ByDocker(args) => (args, "docker skep"),
        Called::ForMetadata => return Err(print(&plugin::metadata())),
        Called::ForCompletion(words) => return Err(print(&plugin::completions(&Cli::command(), &words))),
    };
    let command = Cli::command().bin_name(name);
    let cli = command.try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    match cli {
        Ok(cli) => Ok(Cli { called: name.to_owned(), ..cli }),
        Err(error) => {
            // Where it cannot be printed there is nobody to tell.
            drop(error.print());
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            Err(if asked { Exit::Fine.into() } else { Exit::Refused.into() })
        }
    }
}

// === impl Cli ===

impl Cli {
    /// The engine that is meant.
    ///
    /// # Errors
    /// When it cannot be found.
    pub fn endpoint(&self) -> Result<Endpoint, HostError> {
        self.host.endpoint(&variable)
    }

    /// Runs every command but `operator`.
    pub async fn run(self) -> Exit {
        let out = Out::new(&self.out, &variable);
        self.run_with(out, None, Arc::new(clock::now)).await
    }

    /// Runs every command but `operator` against this engine, else against the one that the arguments mean.
    pub async fn run_with(&self, out: Out, engine: Option<Endpoint>, clock: Clock) -> Exit {
        let out = Arc::new(out);
        match self.dispatch(&out, engine, clock).await {
            Ok(exit) => exit,
            Err(failure) => {
                out.aside(failure.story());
                failure.exit()
            }
        }
    }

    async fn dispatch(
        &self,
        out: &Arc<Out>,
        engine: Option<Endpoint>,
        clock: Clock,
    ) -> Result<Exit, Failure> {
        match &self.command {
            Command::Labels => Ok(tell(out, &check::labels())),
            Command::Explain(args) => Ok(tell(out, &args.run())),
            Command::Healthcheck(args) => Ok(health::healthcheck(out, args).await),
            Command::Waker(args) if args.healthy => Ok(waker::healthy(out, args).await),
            Command::Completions { shell } => Ok(completions(out, *shell)),
            Command::Check(args) if !args.needs_swarm() => {
                Ok(tell(out, &args.run(&variable, &check::Swarm::default(), self.out.output)))
            }
            Command::Operator(_) | Command::Task { .. } | Command::Waker(_) => {
                Err(Failure::refused("the operator and its jobs are not run from here"))
            }
            _ => {
                let endpoint = engine.map_or_else(|| self.endpoint(), Ok)?;
                let engine = Engine::connect(endpoint).await?;
                let (command, who) = (self.called.clone(), session::who(&variable));
                self.with_engine(&Session { engine, out: out.clone(), clock, command, who }).await
            }
        }
    }

    async fn with_engine(&self, session: &Session) -> Result<Exit, Failure> {
        match &self.command {
            Command::Ps(args) => ps::ps(session, args).await,
            Command::Plan(command) => operate::plan(session, command).await,
            Command::Backup(args) => operate::backup(session, args).await,
            Command::Backups(args) => backups::backups(session, args).await,
            Command::Point(args) => points::point(session, args).await,
            Command::Points(args) => points::points(session, args).await,
            Command::Restore(args) => operate::restore(session, args).await,
            Command::Restart(args) => restart::restart(session, args).await,
            Command::Update(args) => update::update(session, args).await,
            Command::Rollback(args) => rollback::rollback(session, args).await,
            Command::Drill(args) => operate::drill(session, args).await,
            Command::Maintenance(command) => operate::maintenance(session, command).await,
            Command::Scale(command) => scale::scale(session, command).await,
            Command::Ops(args) => ops::ops(session, args).await,
            Command::Check(args) => {
                let services = session.engine.services(&[]).await?;
                let received = receiver::standings(&session.engine).await?;
                let swarm = check::Swarm { services, received };
                Ok(tell(&session.out, &args.run(&variable, &swarm, self.out.output)))
            }
            Command::Release(args) => release::release(session, args).await,
            Command::Operator(_)
            | Command::Task { .. }
            | Command::Waker(_)
            | Command::Labels
            | Command::Explain(_)
            | Command::Healthcheck(_)
            | Command::Completions { .. } => Err(Failure::refused("this command asks no engine")),
        }
    }
}

/// Answers that need no more; mistakes of the question go to stderr.
fn tell(out: &Out, answer: &Answer) -> Exit {
    match answer.exit_code {
        0 | 1 => out.write(&answer.text),
        _ => out.aside(format!("skep: {}", answer.text.trim_end())),
    }
    match answer.exit_code {
        0 => Exit::Fine,
        1 => Exit::Failed,
        _ => Exit::Refused,
    }
}

fn completions(out: &Out, shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "skep", &mut script);
    out.write(&String::from_utf8_lossy(&script));
    Exit::Fine
}

fn print(text: &str) -> ExitCode {
    Out::new(&OutArgs::default(), &variable).say(text);
    Exit::Fine.into()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_docker_may_stand_before_and_after_the_command() {
        for args in [["skep", "-c", "far", "ps"], ["skep", "ps", "--context", "far"]] {
            let cli = parse(args.map(OsString::from)).unwrap();
            assert_eq!(cli.host.context.as_deref(), Some("far"));
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for args in [
            ["skep", "restore", "db", "--backup=x", "--before=2h"].as_slice(),
            &["skep", "backup", "db", "--detach", "--drive"],
            &["skep", "restart", "db", "--rolling", "--flush=cache"],
            &["skep", "release"],
            &["skep", "ops", "--all", "show", "x"],
            &["skep"],
        ] {
            assert!(parse(args.iter().map(OsString::from)).is_err(), "{args:?}");
        }
    }
}
