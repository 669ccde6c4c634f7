//! The static runner for engines whose data is a directory. See [`skep_runner::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    skep_runner::run::directories()
}
