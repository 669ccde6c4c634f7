//! Updates that follow from what registries have: each digest once, within the window, and never from an error.

use std::time::Duration;

use skep::operation::record::{Operation, State, Trigger, Work};
use skep::plan::digests::KEY;
use skep_tests::farm::{Farm, Leader};
use skep_tests::sim::Ends;

const WATCH: [(&str, &str); 3] = [
    ("skep.update.watch", "true"),
    ("skep.update.window", "0 2 * * * for 2h"),
    ("skep.update.monitor", "10m"),
];

fn digest(nth: u8) -> String {
    format!("sha256:{}", format!("{nth:02x}").repeat(32))
}

fn image(nth: u8) -> String {
    format!("app:1@{}", digest(nth))
}

/// A web server and a worker of one image, on a Sunday evening.
async fn shop() -> (Farm, Leader) {
    let farm = Farm::start("2026-03-01T20:00:00Z", &[]).await;
    for name in ["shop_web", "shop_worker"] {
        farm.serve(name, &image(1), &WATCH).await;
    }
    farm.sim.push("app:1", Some(&digest(1)));
    let leader = farm.leader("one").await;
    (farm, leader)
}

/// What was asked for by the registry's word.
async fn updates(farm: &Farm) -> Vec<Operation> {
    let is_one = |op: &Operation| matches!(&op.intent.trigger, Trigger::Schedule { key, .. } if key == KEY);
    farm.operations().await.into_iter().filter(is_one).collect()
}

fn images(farm: &Farm) -> [String; 2] {
    ["shop_web", "shop_worker"].map(|name| {
        let service = farm.sim.service(name).expect("it is there");
        service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].as_str().expect("a text").to_owned()
    })
}

/// When the registry was asked, in simulated time.
fn asked(farm: &Farm, client: &str) -> Vec<Duration> {
    let calls = farm.sim.faults().calls(client);
    calls.iter().filter(|call| call.path.contains("distribution")).map(|call| call.at).collect()
}

#[tokio::test(start_paused = true)]
async fn another_digest_is_one_update_of_all_that_run_the_tag_once_their_window_is_open() {
    let (farm, mut leader) = shop().await;
    leader.looks_every = Duration::from_secs(60);
    farm.sim.push("app:1", Some(&digest(2)));
    leader.lead("2026-03-02T01:59:00Z").await;
    assert_eq!(asked(&farm, "one"), [] as [Duration; 0], "nothing could be done with an answer");
    assert_eq!(images(&farm), [image(1), image(1)]);
    leader.lead("2026-03-02T04:30:00Z").await;
    let done = updates(&farm).await;
    let [op] = done.as_slice() else { panic!("{done:#?}") };
    assert_eq!(op.journal.state, State::Succeeded, "{op:#?}");
    assert_eq!(op.intent.about(), "shop_web and shop_worker");
    assert_eq!(images(&farm), [image(2), image(2)]);
    let times = asked(&farm, "one");
    let least = times.windows(2).map(|pair| pair[1] - pair[0]).min().expect("it was asked more than once");
    assert!(least >= Duration::from_secs(300), "{times:?}");
    assert!(times.len() <= 24, "two hours of looks: {}", times.len());
    leader.lead("2026-03-03T05:00:00Z").await;
    assert_eq!(updates(&farm).await.len(), 1, "there is nothing new");
}

#[tokio::test(start_paused = true)]
async fn a_digest_that_went_back_is_not_tried_again_and_the_next_one_is() {
    let (farm, mut leader) = shop().await;
    farm.sim.workload(&image(2), Ends { lines: Vec::new(), after: Duration::from_millis(300), code: 1 });
    farm.sim.push("app:1", Some(&digest(2)));
    leader.lead("2026-03-05T05:00:00Z").await;
    let done = updates(&farm).await;
    let [op] = done.as_slice() else { panic!("{done:#?}") };
    assert_eq!(op.journal.state, State::RolledBack, "{op:#?}");
    assert_eq!(images(&farm), [image(1), image(1)]);
    farm.sim.push("app:1", Some(&digest(3)));
    leader.lead("2026-03-06T05:00:00Z").await;
    let done = updates(&farm).await;
    assert_eq!(done.len(), 2, "{done:#?}");
    assert_eq!(images(&farm), [image(3), image(3)]);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_puts_back_after_an_update_stays() {
    let (farm, mut leader) = shop().await;
    farm.sim.push("app:1", Some(&digest(2)));
    leader.lead("2026-03-02T05:00:00Z").await;
    assert_eq!(images(&farm), [image(2), image(2)]);
    let back = |spec: &mut serde_json::Value| {
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = serde_json::json!(image(1));
    };
    farm.change("shop_web", back).await;
    leader.lead("2026-03-04T05:00:00Z").await;
    assert_eq!(images(&farm), [image(1), image(2)]);
    assert_eq!(updates(&farm).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_is_no_reason_for_anything() {
    let (farm, mut leader) = shop().await;
    farm.sim.push("app:1", None);
    leader.lead("2026-03-02T05:00:00Z").await;
    assert!(!asked(&farm, "one").is_empty(), "it was asked");
    // Nor is what is no digest.
    farm.sim.push("app:1", Some("latest"));
    leader.lead("2026-03-03T05:00:00Z").await;
    assert_eq!((farm.operations().await.len(), images(&farm)), (0, [image(1), image(1)]));
    farm.sim.push("app:1", Some(&digest(2)));
    leader.lead("2026-03-04T05:00:00Z").await;
    assert_eq!(images(&farm), [image(2), image(2)], "it answers again");
}

#[tokio::test(start_paused = true)]
async fn two_who_lead_at_once_ask_for_one_update() {
    let (farm, mut one) = shop().await;
    let mut two = farm.leader("two").await;
    farm.sim.push("app:1", Some(&digest(2)));
    tokio::join!(one.lead("2026-03-02T05:00:00Z"), two.lead("2026-03-02T05:00:00Z"));
    let done = updates(&farm).await;
    let [op] = done.as_slice() else { panic!("{done:#?}") };
    assert_eq!(op.journal.state, State::Succeeded, "{op:#?}");
    assert!(matches!(&op.intent.work, Work::Update { also, .. } if also.len() == 1));
}
