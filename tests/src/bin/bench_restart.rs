//! How long the restart of a whole stack takes, and users miss its application meanwhile: by the shell commands of a runbook, and
//! by Skep.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use skep_tests::downtime::{RATE, by_hand, median, operator, restarted, say, stage, told};
use skep_tests::sandbox::checked;
use skep_tests::stage::Stage;

/// Measures the restart of a stack of five services by hand and by Skep
#[derive(Parser)]
struct Arguments {
    /// How often each restarts it; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The operator to run; `operator` beside this program where absent
    #[arg(long)]
    operator: Option<PathBuf>,
}

/// What the runbook says: from the front to the back, a fixed wait, and from the back to the front with fixed waits between. No
/// command waits for more than that, which is in the runbook's favour.
const RUNBOOK: &str = r#"
set -euo pipefail
scale() { docker service scale --detach "$@" >/dev/null; }
scale "$STACK"_proxy=0
scale "$STACK"_app=0 "$STACK"_worker=0
scale "$STACK"_db=0 "$STACK"_cache=0
sleep 5
scale "$STACK"_db=1 "$STACK"_cache=1
sleep 5
scale "$STACK"_app=2 "$STACK"_worker=1
sleep 10
scale "$STACK"_proxy=1
sleep 5
"#;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let program = operator(arguments.operator);
    let stage = stage().await;
    let mut runbook = Vec::new();
    for _ in 0..arguments.rounds {
        runbook.push(by_runbook(&stage).await);
    }
    let leader = stage.operator(&program, &[]).await;
    let mut skep = Vec::new();
    for _ in 0..arguments.rounds {
        skep.push(restarted(&stage).await);
        stage.settled().await;
    }
    drop(leader);
    stage.strike().await;
    let ((downtime_runbook, total_runbook), (downtime_skep, total_skep)) =
        (medians(&runbook), medians(&skep));
    say(&format!(
        "bench-restart: downtime_runbook_s={downtime_runbook:.2} downtime_skep_s={downtime_skep:.2} \
         total_runbook_s={total_runbook:.2} total_skep_s={total_skep:.2}"
    ));
    ExitCode::SUCCESS
}

/// The seconds that users were without the application, and those that the commands took.
async fn by_runbook(stage: &Stage) -> (f64, f64) {
    let users = stage.users(RATE);
    let began = Instant::now();
    checked("restart by hand", &mut by_hand(stage, RUNBOOK)).await;
    let took = began.elapsed();
    stage.settled().await;
    stage.shop().serves().await;
    (told("runbook", took, &users.leave().await), took.as_secs_f64())
}

/// The median of each of the two.
fn medians(all: &[(f64, f64)]) -> (f64, f64) {
    (median(all.iter().map(|one| one.0).collect()), median(all.iter().map(|one| one.1).collect()))
}
