//! The daemon as a process of its own, which the suites can kill: `skep operator` with its log on standard error.

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs the daemon against the engine at `$DOCKER_HOST`
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    operator: skep::cli::OperatorArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(&arguments.operator.log)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            term.recv().await;
        }
        told.cancel();
    });
    let Ok(host) = std::env::var("DOCKER_HOST") else {
        eprintln!("operator: DOCKER_HOST must name the sandbox's engine");
        return ExitCode::FAILURE;
    };
    match skep::app::run(arguments.operator, &host, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("operator: {error}");
            ExitCode::FAILURE
        }
    }
}
