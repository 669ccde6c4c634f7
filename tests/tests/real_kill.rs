//! The leading operator is killed in the middle of every step of a real restore, and another carries on.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_kill -- --ignored --test-threads 1`. Needs root and the Debian
//! packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeSet;

use skep::operation::journal::Step as _;
use skep::operation::record::{State, StepState, Work};
use skep::operation::restore::Restore;
use skep::operation::saga::Saga as _;
use skep_tests::stage::{Operator, Setting, Stage};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

fn steps(in_place: bool) -> Vec<&'static str> {
    Restore { in_place }.steps().iter().map(|step| step.name()).collect()
}

/// One restore whose leader dies as soon as `step` has begun. Returns the operator that took over.
async fn killed_at(stage: &Stage, step: &'static str, mut leader: Operator, in_place: bool) -> Operator {
    let shop = stage.shop();
    let rows = shop.orders().await;
    stage.back_up().await;
    shop.drop_orders().await;
    let users = stage.users(40);
    let before = shop.specs().await;
    let work = Work::Restore { backup: None, before: None, in_place: Some(in_place), quiesce: None };
    let id = stage.ask(work).await;
    let reached = stage.caught(&id, step, |op| op.journal.step(step).is_some()).await;
    leader.kill().await;
    let at = reached.journal.step(step).map(|record| record.state).unwrap();
    let next = stage.operator(OPERATOR, &[]).await;
    let ended = stage.ended(&id).await;
    shop.serves().await;
    let report = users.leave().await;
    println!(
        "killed at {step} ({at:?}): {:?}; without the application for {:.1} s",
        ended.journal.state, report.downtime_total_s
    );
    assert!(at == StepState::Started || at == StepState::Done, "{at:?}");
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
    next
}

async fn killed_at_each(setting: Setting, steps: &[&'static str]) {
    let in_place = setting.strategy == "in-place";
    let stage = Stage::set(setting).await;
    let mut leader = stage.operator(OPERATOR, &[]).await;
    for step in steps {
        leader = killed_at(&stage, step, leader, in_place).await;
    }
    drop(leader);
    stage.strike().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_killed_leader_at_any_step_costs_no_row_and_no_wrong_answer() {
    killed_at_each(Setting::default(), &steps(false)).await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn also_where_the_data_is_replaced_in_place_and_the_clients_are_at_zero() {
    // The steps that differ from those of a restore beside, and those around them.
    let differing = ["safety", "stop", "replace", "canary", "start"];
    assert!(differing.iter().all(|step| steps(true).contains(step)));
    killed_at_each(Setting { strategy: "in-place", mode: "proxy", ..Setting::default() }, &differing).await;
}
