//! Drills on a real Swarm: what they prove, what they catch, and that nothing of them stays.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_drill -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use skep::operation::catalogue::{Backup, Purpose};
use skep::operation::record::{OpId, Operation, State, Work};
use skep::swarm::object::Kind;
use skep_tests::stage::{Setting, Stage};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

/// The newest regular backup of the catalogue.
async fn newest(stage: &Stage) -> Backup {
    let configs = stage.engine.configs(Kind::Backup, &[]).await.unwrap();
    let regular = configs.iter().filter_map(Backup::read).filter(|b| b.entry.purpose == Purpose::Regular);
    regular.max_by_key(|b| b.entry.taken).expect("there is a backup")
}

async fn ask(stage: &Stage) -> OpId {
    stage.ask(Work::Drill { backup: None }).await
}

/// Waits until a drill has ended; nothing of it is left on the server.
async fn ended(stage: &Stage, id: &OpId) -> Operation {
    let ended = stage.ended(id).await;
    println!("{}: {:?} {:?}", ended.title(), ended.journal.state, ended.journal.remarks);
    let databases = stage.shop().databases().await;
    assert!(!databases.iter().any(|name| name.starts_with("skep_drill_")), "left behind: {databases:?}");
    ended
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_drill_proves_a_backup_catches_a_broken_and_an_altered_one_and_leaves_nothing_when_it_is_killed() {
    let stage = Stage::set(Setting::default()).await;
    let mut operator = stage.operator(OPERATOR, &[]).await;
    let shop = stage.shop();
    stage.back_up().await;
    let rows = shop.orders().await;

    let good = ended(&stage, &ask(&stage).await).await;
    assert_eq!(good.journal.state, State::Succeeded, "{:#?}", good.journal);
    let proved = newest(&stage).await;
    assert!(proved.proved.is_some() && proved.restore_seconds.is_some_and(|s| s > 0.0), "{proved:?}");
    assert!(rows.is_subset(&shop.orders().await), "the live rows are there");

    // The leader dies while the backup is being loaded; another one ends the drill.
    let id = ask(&stage).await;
    stage.caught(&id, "loading", |op| op.journal.step("load").is_some_and(|r| !r.jobs.is_empty())).await;
    operator.kill().await;
    let operator = stage.operator(OPERATOR, &[]).await;
    let resumed = ended(&stage, &id).await;
    assert_eq!(resumed.journal.state, State::Succeeded, "{:#?}", resumed.journal);

    // Perfect checksums, but not what the checks want.
    shop.drop_orders().await;
    stage.back_up().await;
    let broken = ended(&stage, &ask(&stage).await).await;
    assert_eq!(broken.journal.state, State::Failed, "{:#?}", broken.journal);
    let found = newest(&stage).await;
    assert!(found.proved.is_none() && found.drill_failed.is_some_and(|f| f.why.contains("orders")));

    // A restore takes the older one, which is proved.
    let restored = stage.ended(&stage.ask_restore().await).await;
    assert_eq!(restored.journal.state, State::Succeeded, "{:#?}", restored.journal);
    assert!(rows.is_subset(&shop.orders().await), "the rows of the proved backup are back");

    // One flipped byte.
    stage.back_up().await;
    let dump = stage.stored(&newest(&stage).await.entry.dir).join("shop.dump");
    let mut bytes = std::fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&dump, bytes).unwrap();
    let altered = ended(&stage, &ask(&stage).await).await;
    assert_eq!(altered.journal.state, State::Failed, "{:#?}", altered.journal);
    let found = newest(&stage).await;
    assert!(found.drill_failed.is_some_and(|f| f.why.contains("checksum")), "the catalogue says it");

    drop(operator);
    stage.strike().await;
}
