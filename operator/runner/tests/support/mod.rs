//! A private PostgreSQL cluster for each test, and the runner as a job would start it.

// A benchmark uses it too, and less of it.
#![allow(dead_code, unused_imports, unreachable_pub)]
// A helper that cannot go on fails its test.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::{Duration, Instant};

mod bench;
mod cluster;
pub mod mongo;
mod run;
mod tree;

pub use bench::{Bench, Server, free_port};
pub use cluster::{Cluster, PASSWORD, bin};
pub use run::{Outcome, Runner, manifest, next_attempt, run_with};
pub use tree::{Tree, read as read_tree, rich_tree};

/// Looks, bounded, until `is_so`.
pub fn until(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not come to that");
        thread::sleep(Duration::from_millis(2));
    }
}
