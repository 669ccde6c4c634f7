//! The demo: on a private Swarm somebody drops a table, an alert fires, and Skep restores the database, unattended.
//!
//! Everything shown is measured or read from the running services, and checked: the play fails where a promise is not
//! kept. Invariant: from the damage to the end of the restore nothing is asked but what is only read.

mod scenery;
mod show;
mod stage;
mod watch;

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::load::{Load, PATIENCE, Report};
use crate::sandbox::http_get;
use show::{Mail, bar, heading};
pub use stage::Stage;
use stage::until;

const SHOP_PORT: u16 = 8080;
const PROMETHEUS_PORT: u16 = 9090;
/// Requests a second, and how many of them place one order.
const RATE: u32 = 40;
const ORDER_EVERY: u32 = 4;
/// Orders placed and booked after the backup, before the damage.
const ORDERS_AFTER: u64 = 50;
/// How long the idle operator is measured.
const IDLE: Duration = Duration::from_secs(10);
/// Services whose specs must come back as they were.
const TOUCHED: [&str; 4] = ["shop_proxy", "shop_app", "shop_worker", "shop_db"];
const LEDGER: &str = "SELECT count(*) FROM sales.ledger WHERE order_id >";

/// A value, or the reason for people.
pub type Outcome<T> = Result<T, String>;

/// What is known before the damage.
struct Before {
    orders: BTreeSet<u64>,
    last: u64,
    specs: Vec<serde_json::Value>,
}

/// The load that is under way.
struct Users {
    stop: oneshot::Sender<()>,
    report: JoinHandle<Report>,
}

/// Plays it. Answers the last line.
///
/// # Errors
/// What could not be done, or was not as promised.
pub async fn play(stage: &Stage) -> Outcome<String> {
    scenery::build(stage).await?;
    let leader = scenery::leader(stage).await?;
    idle(stage, leader).await?;
    let before = backup(stage).await?;
    let users = Users::come(stage)?;
    let booked = orders_come_in(stage, &before).await?;

    heading("somebody drops a table");
    println!("$ psql shop -c 'DROP TABLE orders CASCADE'");
    stage.sql("shop", "DROP TABLE orders CASCADE").await?;
    heading("from here on nobody touches anything");
    let since = Instant::now();
    let id = watch::alert(stage, leader, since).await?;
    let ended = watch::operation(stage, leader, &id).await?;
    app_answers(stage).await?;
    println!("  {:5.1} s after the damage the shop is as the backup had it", since.elapsed().as_secs_f64());
    if ended.state != "succeeded" {
        return Err(format!("the restore is {}, not succeeded", ended.state));
    }

    let report = users.leave().await?;
    heading("what users saw");
    bar(&report);
    println!("  without a good answer of the application: {:.1} s in all", report.downtime_total_s);
    let mails = mails(stage).await?;
    let rows = verify(stage, &before, booked, &ended).await?;
    if report.totals.wrong > 0 {
        return Err(format!("users saw wrong answers: {:?}", report.wrong));
    }
    println!("{rows}");
    Ok(format!(
        "demo: ok downtime_s={:.1} restore_s={:.1} rows_lost=0 wrong_answers=0 mails={mails}",
        report.downtime_total_s, ended.took_s
    ))
}

/// Says how to look at what was left running.
///
/// # Errors
/// When the engine is not up.
pub async fn leave(stage: &Stage) -> Outcome<()> {
    println!("\nleft running (DEMO_KEEP); `make sandbox-down` ends it");
    for port in stage.skep_ports().await? {
        println!("  status page  http://{}/", stage.port(port)?);
    }
    println!("  the shop     http://{}/", stage.port(SHOP_PORT)?);
    println!("  Prometheus   http://{}/", stage.port(PROMETHEUS_PORT)?);
    println!("  docker and skep: eval \"$(tests/sandbox/engine.sh env)\"");
    Ok(())
}

async fn idle(stage: &Stage, leader: u16) -> Outcome<()> {
    heading("the idle operator");
    let begin = Instant::now();
    let cpu = scenery::metric(stage, leader, "process_cpu_seconds_total").await?;
    sleep(IDLE).await;
    let spent = scenery::metric(stage, leader, "process_cpu_seconds_total").await? - cpu;
    let share = spent / begin.elapsed().as_secs_f64() * 100.0;
    let memory = scenery::metric(stage, leader, "process_resident_memory_bytes").await? / 1_048_576.0;
    println!("  resident memory {memory:.1} MiB (aim: under 15 MiB)");
    println!("  CPU {share:.2} % of a core over {} s (aim: under 0.2 %)", IDLE.as_secs());
    Ok(())
}

async fn backup(stage: &Stage) -> Outcome<Before> {
    heading("a backup is taken");
    let specs = stage.specs(&TOUCHED).await?;
    let ids = stage.sql("shop", "SELECT id FROM orders").await?;
    stage.skep(&["backup", "shop_db"]).await?;
    let orders: BTreeSet<u64> = ids.lines().filter_map(|id| id.parse().ok()).collect();
    let last = orders.last().copied().ok_or("there are no orders to back up")?;
    println!("  it holds {} orders", orders.len());
    Ok(Before { orders, last, specs })
}

/// Waits until enough orders were placed and booked. Answers how many are booked just before the damage.
async fn orders_come_in(stage: &Stage, before: &Before) -> Outcome<u64> {
    heading("users come, and orders that the backup does not have");
    let booked = format!("{LEDGER} {}", before.last);
    let placed = format!("SELECT count(*) FROM orders WHERE id > {}", before.last);
    let booked = until("orders after the backup", Duration::from_secs(60), async || {
        let count = stage.count("shop", &booked).await?;
        if count >= ORDERS_AFTER { Ok(count) } else { Err(format!("{count} are booked")) }
    })
    .await?;
    println!("  {RATE} requests a second, one of {ORDER_EVERY} an order");
    let placed = stage.count("shop", &placed).await?;
    println!("  {placed} orders placed after the backup, the ledger has {booked} of them so far");
    Ok(booked)
}

/// Until the application itself answers, and stays for two seconds more that belong into the picture.
async fn app_answers(stage: &Stage) -> Outcome<()> {
    let address = stage.port(SHOP_PORT)?;
    let mut good_since: Option<Instant> = None;
    until("two good seconds of the shop", Duration::from_secs(60), async || {
        let answer = http_get(address, "/").await;
        if !answer.is_ok_and(|answer| answer.status == 200 && answer.headers.contains_key("x-shop")) {
            good_since = None;
            return Err("it does not answer well".to_owned());
        }
        let since = *good_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= Duration::from_secs(2) { Ok(()) } else { Err("it answers again".to_owned()) }
    })
    .await
}

async fn mails(stage: &Stage) -> Outcome<usize> {
    heading("the mails");
    let mails = until("the mail about the end", Duration::from_secs(60), async || {
        let container = stage.container("mail_smtp").await?;
        let listed = stage.docker(&["exec", &container, "messages"]).await?;
        let mut mails = Vec::new();
        for name in listed.lines() {
            mails.push(Mail::parse(&stage.docker(&["exec", &container, "messages", name]).await?)?);
        }
        if mails.iter().any(Mail::is_end_of_restore) {
            Ok(mails)
        } else {
            Err(format!("{} mails, none says that the data was restored", mails.len()))
        }
    })
    .await?;
    mails.iter().for_each(Mail::show);
    Ok(mails.len())
}

/// Holds the outcome against what was noted before. Answers the line about rows written after the backup.
async fn verify(stage: &Stage, before: &Before, booked: u64, ended: &watch::Ended) -> Outcome<String> {
    heading("checked");
    let ids = stage.sql("shop", "SELECT id FROM orders").await?;
    let now: BTreeSet<u64> = ids.lines().filter_map(|id| id.parse().ok()).collect();
    let missing = before.orders.difference(&now).count();
    if missing > 0 {
        return Err(format!("{missing} orders of the backup are missing"));
    }
    println!("  all {} orders of the backup are there", before.orders.len());
    if stage.specs(&TOUCHED).await? != before.specs {
        return Err("a service's spec is not what it was before".to_owned());
    }
    println!("  the specs of {} are exactly as before", TOUCHED.join(", "));
    let kept = ended.kept_database()?;
    let rows = kept_rows(stage, kept, before.last).await?;
    if rows < booked {
        return Err(format!("{booked} rows were written after the backup, only {rows} are in {kept}"));
    }
    Ok(format!(
        "{rows} rows were written to sales.ledger after the backup: they are in the kept database {kept} \
         (the orders themselves went with the table that was dropped)"
    ))
}

/// Counts in the kept database, which nobody may use until somebody says so.
async fn kept_rows(stage: &Stage, kept: &str, last: u64) -> Outcome<u64> {
    let allow = |allowed| format!("ALTER DATABASE \"{kept}\" ALLOW_CONNECTIONS {allowed}");
    stage.sql("postgres", &allow(true)).await?;
    let rows = stage.count(kept, &format!("{LEDGER} {last}")).await;
    stage.sql("postgres", &allow(false)).await?;
    rows
}

// === impl Users ===

impl Users {
    /// Users come, at a constant rate.
    fn come(stage: &Stage) -> Outcome<Users> {
        let load = Load {
            target: stage.port(SHOP_PORT)?,
            path: "/".to_owned(),
            rate: RATE,
            order_every: ORDER_EVERY,
            patience: PATIENCE,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let report = tokio::spawn(crate::load::run(load, async { drop(stopped.await) }));
        Ok(Users { stop, report })
    }

    async fn leave(self) -> Outcome<Report> {
        drop(self.stop);
        self.report.await.map_err(|error| format!("the load: {error}"))
    }
}
