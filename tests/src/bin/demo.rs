//! Plays the whole of Skep on a private Swarm: an alert restores a database, unattended. See [`skep_tests::demo`].

use std::process::ExitCode;

use skep_tests::demo::{self, Stage};

#[tokio::main]
async fn main() -> ExitCode {
    let stage = Stage::new();
    let outcome = tokio::select! {
        outcome = demo::play(&stage) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    if let Err(reason) = &outcome {
        eprintln!("demo: failed: {reason}");
    }
    let cleaned = match std::env::var_os("DEMO_KEEP") {
        Some(_) => demo::leave(&stage).await,
        None => stage.down().await,
    };
    if let Err(reason) = &cleaned {
        eprintln!("demo: could not clean up: {reason}");
    }
    match (outcome, cleaned) {
        (Ok(last), Ok(())) => {
            println!("{last}");
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}
