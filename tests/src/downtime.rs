//! What users miss while a database is restored, or a whole stack restarts, measured at the proxy under constant load: the time
//! without a good answer of the application itself, all spans together. Nothing is broken before, so nothing else is in the
//! figures.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use skep::operation::record::{Manner, OpId, State, StepRecord, Work};
use tokio::process::Command;

use crate::load::Report;
use crate::saga::restart;
use crate::sandbox::eventually;
use crate::stage::{Setting, Stage};

/// Requests a second of the users.
pub const RATE: u32 = 50;
/// Bytes of one row of the filler, its index included; measured.
const ROW: u64 = 152;

/// How a restore by Skep is done.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    mode: &'static str,
    quiesce: bool,
}

/// Clients to zero, the proxy in front shows the page.
pub const ZERO: Run = Run { mode: "proxy", quiesce: true };
/// The page takes the application's place.
pub const SWAP: Run = Run { mode: "swap", quiesce: true };
/// Clients run on.
pub const HOT: Run = Run { mode: "proxy", quiesce: false };

/// The shop, for any [`Run`].
pub async fn stage() -> Stage {
    Stage::set(Setting { mode: "proxy", ..Setting::default() }).await
}

/// Grows the shop's database to so many megabytes.
pub async fn fill(stage: &Stage, megabytes: u64) {
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

/// Restores once under load and answers the seconds that users were without the application.
///
/// # Panics
/// When the restore does not succeed, or users saw a wrong answer.
pub async fn by_skep(stage: &Stage, run: Run) -> f64 {
    let label = format!("skep.maintenance.mode={}", run.mode);
    stage
        .sandbox
        .docker(&["service", "update", "--detach", "--label-add", &label, &stage.service("app")])
        .await;
    stage.settled().await;
    let work = Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: None,
        quiesce: Some(run.quiesce),
        create_roles: false,
    };
    let (took, report) = under_load(stage, stage.ask(work)).await;
    assert_eq!(report.totals.wrong, 0, "wrong answers: {:?}", report.wrong);
    told(if run.quiesce { run.mode } else { "hot" }, took, &report)
}

/// Restarts the whole stack once under load: the seconds that users were without the application, and those that it took. The
/// proxy is one of its services and has a port of its node: it cuts off who is there, and nobody listens for a moment.
///
/// # Panics
/// When the restart does not succeed, or users got a wrong answer.
pub async fn restarted(stage: &Stage) -> (f64, f64) {
    let (took, report) = under_load(stage, stage.ask_stack(restart(true, Manner::Fitting))).await;
    let of_the_proxy = |what: &String| what == "refused" || what == "reset";
    assert!(report.wrong.keys().all(of_the_proxy), "wrong answers: {:?}", report.wrong);
    (told("skep restart", took, &report), took.as_secs_f64())
}

/// How long an operation takes, asked for while users come, and what they see until the last of its tasks is gone.
async fn under_load(stage: &Stage, ask: impl Future<Output = OpId>) -> (Duration, Report) {
    let users = stage.users(RATE);
    let began = Instant::now();
    let id = ask.await;
    let ended = stage.ended(&id).await;
    let took = began.elapsed();
    assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    let seconds = |record: &StepRecord| record.changed.duration_since(record.began).as_secs_f64();
    let steps: Vec<String> =
        ended.journal.steps.iter().map(|(name, record)| format!("{name} {:.1} s", seconds(record))).collect();
    say(&format!("steps: {}", steps.join(", ")));
    stage.shop().serves().await;
    eventually("the last task of the operation to go", Duration::from_secs(60), async || {
        let left =
            stage.engine.tasks_labelled(&[("skep.op", id.as_str())]).await.map_err(|e| e.to_string())?;
        if left.iter().all(|t| t.state.is_terminal()) { Ok(()) } else { Err(format!("{} left", left.len())) }
    })
    .await;
    (took, users.leave().await)
}

/// Says what users saw, and answers the seconds that they were without the application.
pub fn told(what: &str, took: Duration, report: &Report) -> f64 {
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

/// A shell that does by hand what a runbook says, on the stage's Swarm.
pub fn by_hand(stage: &Stage, script: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg(script).envs(stage.sandbox.environment()).env("STACK", stage.name());
    command
}

/// The operator to run: the one that was named, or the one beside this program.
pub fn operator(named: Option<PathBuf>) -> String {
    let beside = || std::env::current_exe().unwrap_or_default().with_file_name("operator");
    named.unwrap_or_else(beside).to_string_lossy().into_owned()
}

/// The median of some seconds; no number where there are none.
pub fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints a line.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
