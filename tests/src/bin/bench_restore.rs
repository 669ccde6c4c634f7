//! How long users miss the application while its database is restored: by the shell commands of a runbook, and by Skep.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use skep_tests::downtime::{HOT, RATE, SWAP, ZERO, by_hand, by_skep, fill, operator, say, stage, told};
use skep_tests::sandbox::checked;
use skep_tests::stage::Stage;

/// Measures the downtime of a restore by hand and by Skep, at two database sizes
#[derive(Parser)]
struct Arguments {
    /// Size of the small database in megabytes
    #[arg(long, default_value_t = 60)]
    small: u64,
    /// Size of the large database in megabytes
    #[arg(long, default_value_t = 600)]
    large: u64,
    /// The operator to run; `operator` beside this program where absent
    #[arg(long)]
    operator: Option<PathBuf>,
}

/// What the runbook says: only the database, with fixed waits, from a dump that is there already.
const RUNBOOK: &str = r#"
set -euo pipefail
docker service scale --detach "$STACK"_app=0 "$STACK"_worker=0 >/dev/null
sleep 30
db=$(docker ps -q --filter label=com.docker.swarm.service.name="$STACK"_db)
psql() { docker exec "$db" psql -q -X -v ON_ERROR_STOP=1 -U shop -d postgres -c "$1" >/dev/null; }
psql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'"
psql "DROP DATABASE shop"
psql "CREATE DATABASE shop OWNER shop"
docker cp -q "$DUMP" "$db":/tmp/shop.dump
docker exec "$db" pg_restore -U shop -d shop /tmp/shop.dump
docker exec "$db" rm /tmp/shop.dump
docker service scale --detach "$STACK"_worker=1 "$STACK"_app=2 >/dev/null
sleep 10
"#;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let program = operator(arguments.operator);
    let stage = stage().await;
    fill(&stage, arguments.small).await;
    let runbook = by_runbook(&stage).await;
    let leader = stage.operator(&program, &[]).await;
    stage.back_up().await;
    let zero = by_skep(&stage, ZERO).await;
    let swap = by_skep(&stage, SWAP).await;
    let hot = by_skep(&stage, HOT).await;
    fill(&stage, arguments.large).await;
    stage.back_up().await;
    let zero_large = by_skep(&stage, ZERO).await;
    let hot_large = by_skep(&stage, HOT).await;
    drop(leader);
    stage.strike().await;
    say(&format!(
        "bench-restore: runbook_s={runbook:.2} skep_zero_s={zero:.2} skep_swap_s={swap:.2} skep_hot_s={hot:.2} \
         skep_zero_large_s={zero_large:.2} skep_hot_large_s={hot_large:.2}"
    ));
    ExitCode::SUCCESS
}

async fn by_runbook(stage: &Stage) -> f64 {
    let dump = std::env::temp_dir().join(format!("{}.dump", stage.name()));
    let db = stage.sandbox.container(&stage.service("db")).await;
    let taken = "docker exec \"$DB\" pg_dump -U shop -Fc shop > \"$DUMP\"";
    checked("take a dump", by_hand(stage, taken).env("DB", db).env("DUMP", &dump)).await;
    let users = stage.users(RATE);
    let began = Instant::now();
    checked("restore by hand", by_hand(stage, RUNBOOK).env("DUMP", &dump)).await;
    let took = began.elapsed();
    stage.settled().await;
    let _ = std::fs::remove_file(dump);
    told("runbook", took, &users.leave().await)
}
