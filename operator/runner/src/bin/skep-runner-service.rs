//! The static runner for data that a running service alone tells, and takes. See [`skep_runner::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    skep_runner::run::services()
}
