//! Constant load on the demo shop; writes what users saw as JSON. See [`skep_tests::load`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use skep_tests::load::{Load, PATIENCE, Report, run};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, sleep};

/// Sends requests at a constant rate until told to stop (SIGTERM, a file, or the time)
#[derive(Parser)]
struct Arguments {
    /// Address of the proxy
    target: SocketAddr,
    /// Requests a second
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Path to ask for
    #[arg(long, default_value = "/")]
    path: String,
    /// One request of so many places an order; 0 for none
    #[arg(long, default_value_t = 0)]
    order_every: u32,
    /// Stop after so many seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// Stop when this file exists
    #[arg(long)]
    stop_file: Option<PathBuf>,
    /// Where the report goes; standard output where absent
    #[arg(long)]
    output: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { target, rate, path, order_every, seconds, stop_file, output } = arguments;
    let stop = stopped(seconds, stop_file);
    let report = run(Load { target, path, rate, order_every, patience: PATIENCE }, stop).await;
    match write(&report, output.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: cannot write the report: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn stopped(seconds: Option<f64>, stop_file: Option<PathBuf>) {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut term) => drop(term.recv().await),
            Err(error) => eprintln!("load: cannot listen for SIGTERM: {error}"),
        }
    };
    let time_is_up = async {
        match seconds {
            Some(seconds) => sleep(Duration::from_secs_f64(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
        () = time_is_up => {}
        () = appeared(stop_file) => {}
    }
}

async fn appeared(file: Option<PathBuf>) {
    let Some(file) = file else { return std::future::pending().await };
    let mut looks = interval(Duration::from_millis(50));
    while !file.exists() {
        looks.tick().await;
    }
}

fn write(report: &Report, output: Option<&Path>) -> std::io::Result<()> {
    let text = serde_json::to_string(report)?;
    match output {
        Some(path) => std::fs::write(path, text),
        None => {
            println!("{text}");
            Ok(())
        }
    }
}
