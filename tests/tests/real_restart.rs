//! The shop's five services restart on a real Swarm, in the order in which they need each other, with the operator killed
//! half-way; then its application alone, as it runs.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_restart -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use jiff::Timestamp;
use skep::operation::record::{Manner, State, Work};
use skep::runtime::clock;
use skep::swarm::object::{Task, TaskState};
use skep_tests::saga::restart;
use skep_tests::stage::{Setting, Stage};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
const SERVICES: [&str; 5] = ["db", "cache", "app", "worker", "proxy"];

/// When the tasks of a service ended that had run before, and when those that run now were up.
struct Seen {
    ended: Timestamp,
    up: Timestamp,
    began: Timestamp,
}

async fn running(stage: &Stage, short: &str) -> Vec<Task> {
    let service = stage.engine.service(&stage.service(short)).await.unwrap();
    let tasks = stage.engine.tasks(&[&service.id]).await.unwrap();
    tasks.into_iter().filter(|t| t.state == TaskState::Running && t.desired == TaskState::Running).collect()
}

/// Follows the tasks of some services: of those that stop nothing is left in the Swarm once they are at zero.
struct Watch {
    service: String,
    old: Vec<String>,
    ended: Option<Timestamp>,
}

impl Watch {
    async fn of(stage: &Stage, short: &str) -> Watch {
        let old = running(stage, short).await.into_iter().map(|t| t.id).collect();
        Watch { service: stage.service(short), old, ended: None }
    }

    /// Looks; the first time that none of the old tasks runs counts.
    async fn look(&mut self, stage: &Stage) {
        let service = stage.engine.service(&self.service).await.unwrap();
        let tasks = stage.engine.tasks(&[&service.id]).await.unwrap();
        let left = tasks.iter().any(|t| self.old.contains(&t.id) && !t.state.is_terminal());
        if !left && self.ended.is_none() {
            self.ended = Some(clock::now());
        }
    }
}

/// What was seen of a service, now that its new tasks run.
async fn seen(stage: &Stage, short: &str, watch: &Watch) -> Seen {
    let new = running(stage, short).await;
    assert!(!new.is_empty() && new.iter().all(|t| !watch.old.contains(&t.id)), "{short} was not restarted");
    let up = new.iter().map(|t| t.changed).max().unwrap();
    let began = new.iter().map(|t| t.created).min().unwrap();
    Seen { ended: watch.ended.unwrap(), up, began }
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn five_services_restart_in_order_also_when_the_operator_dies() {
    let stage = Stage::set(Setting { mode: "proxy", ..Setting::default() }).await;
    let mut operator = stage.operator(OPERATOR, &[]).await;
    let before = stage.shop().specs().await;
    let mut watches = Vec::new();
    for short in SERVICES {
        watches.push(Watch::of(&stage, short).await);
    }
    let id = stage.ask_stack(restart(true, Manner::Fitting)).await;
    let mut killed = false;
    let mut again = None;
    let ended = loop {
        for watch in &mut watches {
            watch.look(&stage).await;
        }
        let op = skep::operation::desk::find(&stage.engine, &id).await.unwrap();
        // Half-way: the database starts, and its clients do not run.
        if !killed && op.journal.step("start").is_some() {
            operator.kill().await;
            killed = true;
            again = Some(stage.operator(OPERATOR, &[]).await);
        }
        if op.journal.state.is_terminal() || op.journal.state == State::Stuck {
            break op;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(killed, "it ended before it could be killed");
    assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    stage.shop().serves().await;

    let mut all = Vec::new();
    for (short, watch) in SERVICES.iter().zip(&watches) {
        let seen = seen(&stage, short, watch).await;
        println!("{short}: ended {} made {} up {}", seen.ended, seen.began, seen.up);
        all.push(seen);
    }
    // Two of its data and one over the network, each asked before anything else started.
    let started = ended.journal.step("start").unwrap();
    assert_eq!(started.out["checks"], 3, "{:#?}", ended.journal);
    assert!(started.jobs.keys().any(|key| key.starts_with("sql")), "{started:#?}");
    let [db, cache, app, worker, proxy] = all.try_into().ok().unwrap();
    for (client, below) in [(&app, &db), (&app, &cache), (&worker, &db)] {
        assert!(client.ended <= below.ended, "what needs it stops first");
        assert!(client.began >= below.up, "what needs it is made once it is healthy");
    }
    for client in [&app, &worker] {
        assert!(client.ended <= db.began, "and is down until then");
    }
    assert!(proxy.began >= app.up, "the proxy stays until the application is back");

    let mut after = stage.shop().specs().await;
    for (short, spec) in &mut after {
        let count = &mut spec["TaskTemplate"]["ForceUpdate"];
        let was = before[short]["TaskTemplate"]["ForceUpdate"].clone();
        if *short == "proxy" {
            assert_eq!(count.as_u64().unwrap_or(0), was.as_u64().unwrap_or(0) + 1, "it was replaced");
            *count = was;
        }
        assert_eq!(spec.to_string(), before[short].to_string(), "{short}");
    }

    // The application alone: its proxy has a page for it, so it does not stop, and nobody notices.
    let users = stage.users(20);
    let app = stage.engine.service(&stage.service("app")).await.unwrap();
    let old: Vec<String> = running(&stage, "app").await.into_iter().map(|t| t.id).collect();
    let work: Work = restart(false, Manner::Fitting);
    let id = stage.ask_of(app.name(), &app.id, work).await;
    let rolled = stage.ended(&id).await;
    assert_eq!(rolled.journal.state, State::Succeeded, "{:#?}", rolled.journal);
    assert!(running(&stage, "app").await.iter().all(|t| !old.contains(&t.id)), "a task is old");
    let report = users.leave().await;
    println!("users {:?}", report.totals);
    report.assert_nothing_wrong();
    drop(again);
    stage.strike().await;
}
