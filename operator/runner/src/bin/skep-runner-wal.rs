//! The static runner for PostgreSQL's write-ahead log. See [`skep_runner::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    skep_runner::run::log()
}
