//! The last part of `make bench-backup`: how long users miss the application while its database is restored, at two sizes ten
//! times apart. Before it the runner was measured against plain tools, and what that said last is part of the last line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use skep_tests::downtime::{SWAP, by_skep, fill, median, operator, say, stage};

/// Measures the downtime of a restore at two database sizes
#[derive(Parser)]
struct Arguments {
    /// What `cargo bench -p skep-runner` printed
    measured: PathBuf,
    /// Size of the small database in megabytes: `pgbench` at scale 5
    #[arg(long, default_value_t = 75)]
    small: u64,
    /// Size of the large database in megabytes: `pgbench` at scale 50
    #[arg(long, default_value_t = 750)]
    large: u64,
    /// How often each is restored; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = std::fs::read_to_string(&arguments.measured).unwrap_or_default();
    let Some(ratios) = measured.lines().last().filter(|line| line.contains("dump_ratio=")) else {
        say(&format!("{} does not hold what the runner's measurement prints", arguments.measured.display()));
        return ExitCode::FAILURE;
    };
    let stage = stage().await;
    let leader = stage.operator(&operator(None), &[]).await;
    let mut downtimes = Vec::new();
    for size in [arguments.small, arguments.large] {
        fill(&stage, size).await;
        stage.back_up().await;
        let mut seconds = Vec::new();
        for _ in 0..arguments.rounds {
            seconds.push(by_skep(&stage, SWAP).await);
        }
        downtimes.push(median(seconds));
    }
    drop(leader);
    stage.strike().await;
    let [small, large] = downtimes.as_slice() else { return ExitCode::FAILURE };
    say(&format!("bench-backup: {ratios} downtime_small_s={small:.2} downtime_large_s={large:.2}"));
    ExitCode::SUCCESS
}
