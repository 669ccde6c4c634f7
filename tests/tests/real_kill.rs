//! The leading operator is killed in the middle of every step of a real restore, and another carries on.
//!
//! Each kill comes right behind a write that the engine has answered and the operator never learns of: what it did stands
//! nowhere. Run by: `make runner && cargo test -p skep-tests --test real_kill -- --ignored --test-threads 1`. Needs root and
//! the Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeSet;

use skep::operation::journal::Step as _;
use skep::operation::record::{State, StepState, Work};
use skep::operation::restore::Restore;
use skep::operation::saga::Saga as _;
use skep_tests::stage::{Door, Setting, Stage, in_the_middle_of};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

fn steps(in_place: bool) -> Vec<&'static str> {
    Restore { in_place, recovers: false }.steps().iter().map(|step| step.name()).collect()
}

/// One restore whose leader dies in the middle of each of these steps, of the backup that there is.
async fn killed_at(
    stage: &Stage,
    steps: &[&'static str],
    number: usize,
    in_place: bool,
    rows: &BTreeSet<u64>,
) {
    let shop = stage.shop();
    shop.drop_orders().await;
    let users = stage.users(40);
    let before = shop.specs().await;
    let mut dead = Vec::new();
    let work = Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: Some(in_place),
        quiesce: None,
        create_roles: false,
    };
    let mut asked = None;
    for &step in steps {
        let door = Door::open(stage.sandbox.socket(), in_the_middle_of(step, number));
        let mut leader = stage.operator_behind(&door, OPERATOR).await;
        let id = match asked.take() {
            Some(id) => id,
            None => stage.ask(work.clone()).await,
        };
        door.is_shut().await;
        leader.kill().await;
        dead.push(leader);
        let op = stage.when(&id, "to be there", |_| true).await;
        let at = op.journal.step(step).map(|record| record.state);
        println!("killed at {step} ({at:?})");
        assert!(matches!(at, Some(StepState::Started | StepState::Done)), "{at:?}");
        asked = Some(id);
    }
    let last = stage.operator(OPERATOR, &[]).await;
    let id = asked.expect("there are steps");
    let ended = stage.ended(&id).await;
    shop.serves().await;
    let report = users.leave().await;
    println!("{:?}; without the application for {:.1} s", ended.journal.state, report.downtime_total_s);
    assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    report.assert_nothing_wrong();
    let missing: BTreeSet<_> = rows.difference(&shop.orders().await).copied().collect();
    assert_eq!(missing, BTreeSet::new(), "every order of the backup is back");
    for (service, spec) in &shop.specs().await {
        assert_eq!(spec.to_string(), before[service].to_string(), "the spec of {service}");
    }
    shop.is_tidy().await;
    let databases = shop.databases().await;
    let kept = format!("skep_{id}_old");
    let others: Vec<_> = databases.iter().filter(|d| *d != "shop" && **d != kept).collect();
    assert!(others.is_empty() || in_place, "nothing half-made is left: {databases:?}");
    drop(last);
}

/// Restores in which the leader dies in the middle of these steps, `every` steps apart: neighbours never in the same one.
async fn killed_at_each(setting: Setting, steps: &[&'static str], every: usize, numbers: &[usize]) {
    let in_place = setting.strategy == "in-place";
    let stage = Stage::set(setting).await;
    let rows = stage.shop().orders().await;
    let operator = stage.operator(OPERATOR, &[]).await;
    stage.back_up().await;
    drop(operator);
    for &number in numbers {
        for first in 0..every.min(steps.len()) {
            let some: Vec<_> = steps.iter().copied().skip(first).step_by(every).collect();
            println!("write {number} of {some:?}");
            killed_at(&stage, &some, number, in_place, &rows).await;
        }
    }
    stage.strike().await;
}

/// The steps in place that differ from those of a restore beside, and those around them.
fn differing() -> Vec<&'static str> {
    let differing = ["stop", "safety", "replace", "canary", "start"];
    steps(true).into_iter().filter(|step| differing.contains(step)).collect()
}

fn in_place() -> Setting {
    Setting { strategy: "in-place", mode: "proxy", ..Setting::default() }
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_leader_killed_in_the_middle_of_any_step_costs_no_row_and_no_wrong_answer() {
    killed_at_each(Setting::default(), &steps(false), 3, &[3]).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn also_where_the_data_is_replaced_in_place_and_the_clients_are_at_zero() {
    killed_at_each(in_place(), &differing(), 2, &[3]).await;
}

mod soak {
    use super::*;

    #[tokio::test]
    #[ignore = "needs the sandbox"]
    async fn at_each_of_the_first_writes_of_any_step_one_kill_a_restore() {
        killed_at_each(Setting::default(), &steps(false), usize::MAX, &[0, 1, 2, 4, 5, 6]).await;
        killed_at_each(in_place(), &steps(true), usize::MAX, &[0, 1, 2, 4, 5, 6]).await;
    }
}
