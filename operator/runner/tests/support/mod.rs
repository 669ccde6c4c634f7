//! A private PostgreSQL cluster for each test, and the runner as a job would start it.

// Each test file is a program of its own and uses another part.
#![allow(dead_code, unused_imports, unreachable_pub)]
// A helper that cannot go on fails its test.
#![allow(clippy::unwrap_used)]

mod cluster;
mod run;

pub use cluster::{Cluster, PASSWORD};
pub use run::{Outcome, Runner, manifest, run_with};
