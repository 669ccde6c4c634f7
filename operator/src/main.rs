//! `skep`: the operator, and the commands of people.

use std::error::Error;
use std::process::ExitCode;

use skep::cli::{self, Cli, Command, LogFormat, OperatorArgs, WakerArgs};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    if let Command::Task { ticket } = &cli.command {
        return skep_store::run(ticket);
    }
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match threads {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    if let Command::Operator(args) = &cli.command {
        return match runtime.block_on(operate(&cli, args)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&*error),
        };
    }
    if let Command::Waker(args) = &cli.command
        && !args.healthy
    {
        return match runtime.block_on(stand_in(args)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&*error),
        };
    }
    if cli.host.debug {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    }
    runtime.block_on(cli.run()).into()
}

/// The daemon, until it is told to stop.
async fn operate(cli: &Cli, args: &OperatorArgs) -> Result<(), Box<dyn Error>> {
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(&args.log)?);
    match args.log_format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_ansi(false).init(),
    }
    Ok(skep::app::run(args.clone(), &cli.endpoint()?.to_string(), told_to_stop()?).await?)
}

/// The waker, until it is told to stop and nothing is open any more.
async fn stand_in(args: &WakerArgs) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false).init();
    args.stand_in(told_to_stop()?.cancelled_owned()).await
}

/// Cancelled by a signal.
fn told_to_stop() -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

/// Says what went wrong, with its causes.
fn failed(error: &dyn Error) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    eprintln!("skep: {text}");
    ExitCode::FAILURE
}
