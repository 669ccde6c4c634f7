//! The static runner for PostgreSQL and for checks over the network: does one task inside the image of the
//! service that it works for. See [`skep_runner::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    skep_runner::run::databases()
}
