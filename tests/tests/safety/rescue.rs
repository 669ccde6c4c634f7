//! S20: the command line where no operator runs, or where another one leads.

use std::sync::Arc;
use std::time::Duration;

use skep::cli::{self, Exit, Format, Out};
use skep::operation::record::{State, Work};
use skep::swarm::lease::{HOLDER, NAME, TERM_LABEL};
use skep::swarm::object::{KIND, Kind, Labels};
use skep::swarm::transport::Endpoint;
use skep_tests::saga::{Scene, connect, runner_files};
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};

use super::{app_runs, beside, exists, page_runs, spec};

/// Somebody at the command line of a machine that reaches the Swarm.
async fn say(shop: &Shop, words: &[&str]) -> Exit {
    let runner = runner_files(env!("CARGO_TARGET_TMPDIR"));
    let more = ["--runner", runner.to_str().unwrap()];
    let line = ["skep"].into_iter().chain(words.iter().copied()).chain(more);
    let cli = cli::parse(line.map(Into::into)).unwrap_or_else(|_| panic!("no command: {words:?}"));
    let connector = shop.sim.client("people");
    let endpoint = Endpoint::in_process(move || connector());
    let sim = shop.sim.clone();
    let out = Out::to(Format::Human, std::io::sink(), std::io::sink());
    cli.run_with(out, Some(endpoint), Arc::new(move || sim.now())).await
}

#[tokio::test(start_paused = true)]
async fn s20_release_gives_the_specs_of_a_stuck_restore_back_where_a_person_wants_it() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let before = spec(&scene.shop, "shop_app");
    let env = scene.driver("driver").await;
    let (mut canary, mut harmed) = (false, false);
    scene
        .drive_watched(&env, |shop| {
            canary |= exists(shop, "skep-canary-");
            if canary && !harmed && app_runs(shop) {
                shop.data.drop_table("shop_db", DATABASE, "users");
                harmed = true;
            }
        })
        .await;
    assert_eq!(scene.operation().await.journal.state, State::Stuck);
    assert_eq!(say(&scene.shop, &["release", "--all"]).await, Exit::Stuck);
    assert!(page_runs(&scene.shop), "it gave back what a person has to judge");
    assert_eq!(
        say(&scene.shop, &["release", "--all", "--stuck"]).await,
        Exit::Stuck,
        "its record stays stuck"
    );
    assert_eq!(spec(&scene.shop, "shop_app"), before);
    super::once(&scene.shop, "users reach the application", Shop::sees_only_app).await;
}

#[tokio::test(start_paused = true)]
async fn s20_the_command_line_drives_nothing_while_another_one_leads() {
    let scene = Scene::ask(Shop::start(ShopOptions::default()).await, Work::Backup).await;
    let engine = connect(&scene.shop, "leader").await;
    let labels = Labels::from([
        (KIND.to_owned(), Kind::Lease.as_str().to_owned()),
        (HOLDER.to_owned(), "another".to_owned()),
        (TERM_LABEL.to_owned(), "1".to_owned()),
    ]);
    engine.create_config(NAME, &labels, b"-").await.unwrap();
    let id = scene.op.to_string();
    let words = ["ops", "show", &id, "--drive"];
    let driven = tokio::time::timeout(Duration::from_secs(20), say(&scene.shop, &words)).await;
    assert!(driven.is_err(), "it came to an end: {driven:?}");
    let op = scene.operation().await;
    assert_eq!((op.journal.state, op.journal.steps.len()), (State::Pending, 0), "{:#?}", op.journal);
}
