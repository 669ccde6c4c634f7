//! How long users miss the application while its database is restored: by the shell commands of a runbook, and by Skep.
//!
//! Downtime is what users at the proxy saw under constant load: the time without a good answer of the application
//! itself, all spans together. The database is not broken before, so nothing else is in the figures.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use skep::operation::record::{State, Work};
use skep_tests::sandbox::{checked, eventually};
use skep_tests::stage::{Setting, Stage};
use tokio::process::Command;

/// Requests a second of the users.
const RATE: u32 = 50;
/// Bytes of one row of the filler, its index included; measured.
const ROW: u64 = 152;

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

/// One restore by Skep.
struct Run {
    mode: &'static str,
    quiesce: bool,
}

const ZERO: Run = Run { mode: "proxy", quiesce: true };
const SWAP: Run = Run { mode: "swap", quiesce: true };
const HOT: Run = Run { mode: "proxy", quiesce: false };

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
    let operator = arguments.operator.unwrap_or_else(|| {
        let here = std::env::current_exe().unwrap_or_default();
        here.with_file_name("operator")
    });
    let program = operator.to_string_lossy().into_owned();
    let stage = Stage::set(Setting { mode: "proxy", ..Setting::default() }).await;
    fill(&stage, arguments.small).await;
    let runbook = by_hand(&stage).await;
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

/// Grows the shop's database to so many megabytes.
async fn fill(stage: &Stage, megabytes: u64) {
    let rows = megabytes * 1_000_000 / ROW;
    let statement = format!(
        "CREATE TABLE IF NOT EXISTS filler (id bigint PRIMARY KEY, text text NOT NULL);
         INSERT INTO filler SELECT n, md5(n::text) || md5((n + 1)::text) || md5((n + 2)::text)
         FROM generate_series((SELECT coalesce(max(id), 0) + 1 FROM filler), {rows}) n;
         CHECKPOINT; ANALYZE"
    );
    let shop = stage.shop();
    for one in statement.split(';') {
        shop.sql("shop", one).await;
    }
    let size = shop.sql("shop", "SELECT pg_size_pretty(pg_database_size('shop'))").await;
    say(&format!("the database has {size}"));
}

async fn by_hand(stage: &Stage) -> f64 {
    let dump = std::env::temp_dir().join(format!("{}.dump", stage.name()));
    let db = stage.sandbox.container(&stage.service("db")).await;
    let taken = "docker exec \"$DB\" pg_dump -U shop -Fc shop > \"$DUMP\"";
    checked("take a dump", shell(stage, taken).env("DB", db).env("DUMP", &dump)).await;
    let users = stage.users(RATE);
    let began = Instant::now();
    checked("restore by hand", shell(stage, RUNBOOK).env("DUMP", &dump)).await;
    let took = began.elapsed();
    stage.settled().await;
    let _ = std::fs::remove_file(dump);
    told("runbook", took, &users.leave().await)
}

fn shell(stage: &Stage, script: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).envs(stage.sandbox.environment()).env("STACK", stage.name());
    command
}

async fn by_skep(stage: &Stage, run: Run) -> f64 {
    let label = format!("skep.maintenance.mode={}", run.mode);
    stage
        .sandbox
        .docker(&["service", "update", "--detach", "--label-add", &label, &stage.service("app")])
        .await;
    stage.settled().await;
    let users = stage.users(RATE);
    let began = Instant::now();
    let work = Work::Restore { backup: None, before: None, in_place: None, quiesce: Some(run.quiesce) };
    let id = stage.ask(work).await;
    let ended = stage.ended(&id).await;
    let took = began.elapsed();
    assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    stage.shop().serves().await;
    eventually("the last task of the operation to go", Duration::from_secs(60), async || {
        let left =
            stage.engine.tasks_labelled(&[("skep.op", id.as_str())]).await.map_err(|e| e.to_string())?;
        if left.iter().all(|t| t.state.is_terminal()) { Ok(()) } else { Err(format!("{} left", left.len())) }
    })
    .await;
    let report = users.leave().await;
    assert_eq!(report.totals.wrong, 0, "wrong answers: {:?}", report.wrong);
    told(if run.quiesce { run.mode } else { "hot" }, took, &report)
}

fn told(what: &str, took: Duration, report: &skep_tests::load::Report) -> f64 {
    let seen = report.totals;
    say(&format!(
        "{what}: done after {:.1} s; users without the application for {:.2} s (longest {:.2} s; {} of {} answers were the \
         page, {} errors of the application, {} wrong)",
        took.as_secs_f64(),
        report.downtime_total_s,
        report.downtime_longest_s,
        seen.page,
        seen.all(),
        seen.app_error,
        seen.wrong,
    ));
    report.downtime_total_s
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
