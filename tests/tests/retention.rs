//! Retention on a simulated Swarm: what a backup removes, and what is left when it dies or is disturbed anywhere.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::json;
use skep::operation::catalogue::{Backup, Entry};
use skep::operation::record::{OpId, Operation, State, Work};
use skep::operation::{desk, drive};
use skep_runner::Task;
use skep_tests::farm::{Farm, Leader};
use skep_tests::sim::{self, Cut, Fault, Loss};

const START: &str = "2026-03-01T23:00:00Z";

/// One backup an hour, and room for two.
async fn farm(keep: &str) -> Farm {
    let labels = [("skep.backup.schedule", "@hourly"), ("skep.backup.keep", keep)];
    Farm::start(START, &[("shop_db", &labels)]).await
}

/// What must hold at every moment: a backup that a restore may use has all its files, and there is one.
async fn sound(farm: &Farm, what: &str) {
    let backups = farm.backups().await;
    let usable: Vec<_> = backups.iter().filter(|b| b.removing.is_none()).collect();
    assert!(!usable.is_empty(), "{what}: no backup is left");
    for backup in usable {
        let whole = farm.data.with(|w| w.store.dirs.get(&backup.entry.dir).map(|files| files.len()));
        // The dump, the roles and the manifest.
        assert_eq!(whole, Some(3), "{what}: {} is half there", backup.entry.dir);
    }
}

/// The catalogue and the store hold the same.
async fn tidy(farm: &Farm, what: &str) {
    let registered: BTreeSet<String> = farm.backups().await.into_iter().map(|b| b.entry.dir).collect();
    let stored: BTreeSet<String> = farm.data.with(|w| w.store.dirs.keys().cloned().collect());
    assert_eq!(registered, stored, "{what}");
    let mine = ["-job-", "-claim-", "-plan-"];
    let objects = farm.sim.stored_names().into_iter().chain(farm.sim.services());
    let left: Vec<String> = objects.filter(|n| mine.iter().any(|m| n.contains(m))).collect();
    assert_eq!(left, [] as [String; 0], "{what}");
}

async fn hours(farm: &Farm) -> Vec<String> {
    farm.backups().await.iter().map(|b| b.entry.taken.strftime("%H").to_string()).collect()
}

async fn last(farm: &Farm) -> Operation {
    farm.operations().await.pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_backup_removes_what_no_rule_keeps_any_more_files_and_entry() {
    let farm = farm("2 last").await;
    let mut leader = farm.leader("leader").await;
    leader.lead("2026-03-02T05:10:00Z").await;
    assert_eq!(hours(&farm).await, ["04", "05"]);
    tidy(&farm, "five nights").await;
    // A narrower rule takes effect with the next backup, a wider one brings nothing back.
    farm.relabel("shop_db", "skep.backup.keep", "1 last").await;
    leader.lead("2026-03-02T06:10:00Z").await;
    assert_eq!(hours(&farm).await, ["06"]);
    farm.relabel("shop_db", "skep.backup.keep", "9 last").await;
    leader.lead("2026-03-02T08:10:00Z").await;
    assert_eq!(hours(&farm).await, ["06", "07", "08"]);
    tidy(&farm, "the end").await;
}

#[tokio::test(start_paused = true)]
async fn faulty_labels_remove_nothing() {
    let farm = farm("1 last").await;
    let mut leader = farm.leader("leader").await;
    leader.lead("2026-03-02T00:10:00Z").await;
    let asked = farm.ask("shop_db", Work::Backup).await;
    farm.relabel("shop_db", "skep.backup.keep", "one").await;
    leader.lead("2026-03-02T00:20:00Z").await;
    assert_eq!(desk::find(&leader.env.engine, &asked).await.unwrap().journal.state, State::Succeeded);
    assert_eq!(farm.backups().await.len(), 2);
}

/// Nobody asked for it, so what people make by hand stays, also beyond what is kept of scheduled backups.
#[tokio::test(start_paused = true)]
async fn without_a_schedule_and_without_a_rule_nothing_is_removed() {
    let farm = Farm::start(START, &[("shop_db", &[])]).await;
    let mut leader = farm.leader("leader").await;
    for made in 1..=9 {
        farm.ask("shop_db", Work::Backup).await;
        leader.lead_for(MINUTE).await;
        assert_eq!(farm.backups().await.len(), made);
    }
    // With a schedule the usual rules hold, of which seven of one day stay.
    farm.relabel("shop_db", "skep.backup.schedule", "0 3 1 1 *").await;
    farm.ask("shop_db", Work::Backup).await;
    leader.lead_for(MINUTE).await;
    assert_eq!(farm.backups().await.len(), 7);
    tidy(&farm, "scheduled now").await;
}

/// Longer than a backup takes.
const MINUTE: Duration = Duration::from_secs(60);

/// Two backups are there; the third one, asked for by hand, removes the first.
async fn third() -> (Farm, Leader, OpId) {
    let farm = Farm::start(START, &[("shop_db", &[("skep.backup.keep", "2 last")])]).await;
    let mut leader = farm.leader("first").await;
    for _ in 0..2 {
        farm.ask("shop_db", Work::Backup).await;
        leader.lead_for(MINUTE).await;
    }
    assert_eq!(farm.backups().await.len(), 2);
    let asked = farm.ask("shop_db", Work::Backup).await;
    (farm, leader, asked)
}

/// Ids of the backups when all went well.
fn wanted(before: &[Backup], third: &OpId) -> Vec<String> {
    vec![before[1].entry.id.clone(), third.to_string()]
}

async fn ids(farm: &Farm) -> Vec<String> {
    farm.backups().await.into_iter().map(|b| b.entry.id).collect()
}

/// The writes of a clean run that come after the backup was registered: the others are the saga's own tests' matter.
async fn writes_of_pruning() -> RangeInclusive<usize> {
    let (farm, leader, asked) = third().await;
    let writes = || farm.sim.faults().writes("first");
    let before = writes();
    let mut first = None;
    loop {
        let op = desk::find(&leader.env.engine, &asked).await.unwrap();
        if op.journal.step("prune").is_some() {
            first.get_or_insert_with(writes);
        }
        if op.journal.state.is_terminal() {
            break;
        }
        drive::poll(&leader.env, &asked).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let range = first.unwrap() - before..=writes() - before;
    assert!(range.clone().count() > 10, "{range:?}");
    range
}

/// One case: something happens at a write, somebody else takes over after a lease's time, and all ends well.
async fn disturbed(write: usize, fault: Fault) {
    let what = format!("{fault:?} at write {write}");
    let (farm, mut leader, asked) = third().await;
    let before = farm.backups().await;
    let done = farm.sim.faults().writes("first");
    farm.sim.faults().on("first", sim::Trigger::Write(done + write), fault);
    let watch = async {
        for _ in 0..12 {
            sound(&farm, &what).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    tokio::join!(leader.lead_for(MINUTE), watch);
    let mut other = farm.leader("second").await;
    other.lead_for(MINUTE).await;
    assert_eq!(last(&farm).await.journal.state, State::Succeeded, "{what}");
    assert_eq!(ids(&farm).await, wanted(&before, &asked), "{what}");
    tidy(&farm, &what).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_dies_at_whatever_write_the_next_one_ends_it_and_nothing_usable_is_half_there() {
    for write in writes_of_pruning().await {
        for cut in [Cut::Before, Cut::After] {
            disturbed(write, Fault::Kill(cut)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn writes_that_fail_or_are_not_answered_lose_nothing() {
    for write in writes_of_pruning().await {
        disturbed(write, Fault::Cut(Cut::After)).await;
        disturbed(write, Fault::Fail(503, "the swarm does not have a leader".to_owned())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_removed_fails_no_backup_and_goes_after_the_next_one() {
    let (farm, mut leader, _) = third().await;
    let before = ids(&farm).await;
    for _ in 0..3 {
        farm.sim.faults().kill_job(1, |ticket| matches!(ticket.task, Task::Discard(_)));
    }
    leader.lead_for(MINUTE).await;
    let op = last(&farm).await;
    assert_eq!(op.journal.state, State::Succeeded);
    assert!(op.journal.remarks.iter().any(|r| r.contains(&before[0])), "{:?}", op.journal.remarks);
    assert_eq!(ids(&farm).await[..2], before);
    assert!(farm.backups().await[0].removing.is_some(), "nothing restores it any more");
    sound(&farm, "one is left").await;
    farm.ask("shop_db", Work::Backup).await;
    leader.lead_for(MINUTE).await;
    let after = ids(&farm).await;
    assert!(after.len() == 2 && after.iter().all(|id| !before.contains(id)), "{after:?}");
    tidy(&farm, "the next backup").await;
}

#[tokio::test(start_paused = true)]
async fn a_backup_in_a_store_that_is_gone_stays_as_it_is() {
    let (farm, _, _) = third().await;
    let mut leader = farm.leader("second").await;
    let mut settings = (*leader.env.settings).clone();
    let store = settings.stores.remove("default").unwrap();
    settings.stores.insert("new".to_owned(), store);
    settings.default_store = "new".to_owned();
    leader.env.settings = std::sync::Arc::new(settings);
    leader.lead_for(MINUTE).await;
    let op = last(&farm).await;
    assert_eq!(op.journal.state, State::Succeeded);
    assert!(op.journal.remarks.iter().any(|r| r.contains("there is no store `default`")));
    let backups = farm.backups().await;
    assert!(backups.len() == 3 && backups.iter().all(|b| b.removing.is_none()), "{backups:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_while_a_restore_waits_that_may_want_it() {
    let (farm, mut leader, _) = third().await;
    let work = Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: None,
        quiesce: None,
        create_roles: false,
    };
    let waits = farm.ask_approval("shop_db", work).await;
    leader.lead_for(MINUTE).await;
    assert_eq!(farm.backups().await.len(), 3);
    desk::cancel(&leader.env.engine, &waits, "somebody").await.unwrap();
    drive::poll(&leader.env, &waits).await.unwrap();
    farm.ask("shop_db", Work::Backup).await;
    leader.lead_for(MINUTE).await;
    assert_eq!(farm.backups().await.len(), 2);
    tidy(&farm, "after the restore").await;
}

#[tokio::test(start_paused = true)]
async fn who_cancels_gets_the_backup_taken_back_before_anything_was_removed_and_not_after() {
    for (step, state) in [("register", State::Cancelled), ("prune", State::Succeeded)] {
        let (farm, mut leader, asked) = third().await;
        while desk::find(&leader.env.engine, &asked).await.unwrap().journal.step(step).is_none() {
            drive::poll(&leader.env, &asked).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        desk::cancel(&leader.env.engine, &asked, "somebody").await.unwrap();
        leader.lead_for(MINUTE).await;
        assert_eq!(desk::find(&leader.env.engine, &asked).await.unwrap().journal.state, state, "{step}");
        assert_eq!(farm.backups().await.len(), 2, "{step}");
        sound(&farm, step).await;
        tidy(&farm, step).await;
    }
}

/// A service on any of three nodes, each with a volume of its own for backups, of which one is kept; the service has moved to
/// another node since the first one was made.
async fn moved() -> (Farm, Leader, Backup) {
    let farm = Farm::spread(3, START, &[("shop_db", &[("skep.backup.keep", "1 last")])]).await;
    let mut leader = farm.leader("leader").await;
    farm.ask("shop_db", Work::Backup).await;
    leader.lead_for(MINUTE).await;
    let first = farm.backups().await.remove(0);
    let node = farm.sim.containers("shop_db")[0].node.clone();
    assert_eq!(first.entry.node.as_ref(), Some(&node));
    let elsewhere = json!({"Constraints": [format!("node.id!={node}")]});
    farm.change("shop_db", |spec| spec["TaskTemplate"]["Placement"] = elsewhere).await;
    let is_elsewhere = |sim: &sim::Sim| matches!(&sim.containers("shop_db")[..], [one] if one.node != node);
    farm.sim.until(MINUTE, "the service moves", is_elsewhere).await;
    farm.ask("shop_db", Work::Backup).await;
    (farm, leader, first)
}

/// Where jobs that remove files ran while somebody led for a minute: their placement constraints.
async fn removals(farm: &Farm, leader: &mut Leader) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let watch = async {
        loop {
            for job in farm.sim.services().iter().filter(|name| name.contains("-prune-d")) {
                let placed = farm.sim.service(job).unwrap()["Spec"]["TaskTemplate"]["Placement"].clone();
                seen.insert(placed["Constraints"][0].as_str().unwrap_or_default().to_owned());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = leader.lead_for(MINUTE) => {}
        () = watch => {}
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn files_in_a_nodes_own_volume_are_removed_there_also_when_the_service_has_moved() {
    let (farm, mut leader, first) = moved().await;
    let node = first.entry.node.unwrap();
    assert_eq!(removals(&farm, &mut leader).await, BTreeSet::from([format!("node.id=={node}")]));
    assert_eq!(farm.backups().await.len(), 1);
    tidy(&farm, "moved").await;
}

#[tokio::test(start_paused = true)]
async fn files_on_a_node_that_is_away_go_when_it_is_back() {
    let (farm, mut leader, first) = moved().await;
    let node = first.entry.node.clone().unwrap();
    farm.sim.faults().lose_node(&node, Loss::Unreachable);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(removals(&farm, &mut leader).await, BTreeSet::new());
    let op = last(&farm).await;
    assert_eq!(op.journal.state, State::Succeeded);
    assert!(op.journal.remarks.iter().any(|r| r.contains(&first.entry.id)), "{:?}", op.journal.remarks);
    assert_eq!(farm.backups().await.len(), 2);
    farm.sim.faults().return_node(&node);
    tokio::time::sleep(MINUTE).await;
    farm.ask("shop_db", Work::Backup).await;
    leader.lead_for(MINUTE).await;
    assert_eq!(farm.backups().await.len(), 1);
    tidy(&farm, "back").await;
}

/// A node that was removed has taken its files with it: its backups are not tried for ever.
#[tokio::test(start_paused = true)]
async fn a_backup_on_a_node_that_is_no_more_is_forgotten() {
    let (farm, mut leader, first) = moved().await;
    let engine = farm.connect("people").await;
    let entry = Entry { node: Some("gone".to_owned()), ..first.entry };
    engine.remove_config(&first.config).await.unwrap();
    let data = serde_json::to_vec(&entry).unwrap();
    engine.create_config(&entry.config_name(), &entry.labels(entry.taken), &data).await.unwrap();
    assert_eq!(removals(&farm, &mut leader).await, BTreeSet::new());
    let op = last(&farm).await;
    assert_eq!(op.journal.state, State::Succeeded);
    assert!(
        op.journal.remarks.iter().any(|r| r.contains("in the Swarm no more")),
        "{:?}",
        op.journal.remarks
    );
    assert_eq!(farm.backups().await.len(), 1);
}
