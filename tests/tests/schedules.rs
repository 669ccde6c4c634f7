//! Scheduled backups and drills, and updates by what registries have, on a simulated Swarm: weeks of them, whoever leads and
//! whatever happens.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "schedules/registry.rs"]
mod registry;

use std::collections::BTreeMap;
use std::time::Duration;

use skep::operation::client_spec;
use skep::operation::desk;
use skep::operation::record::{Operation, State, Trigger, Work};
use skep::operation::sleeper;
use skep::swarm::object::RegistryAuth;
use skep_tests::farm::Farm;
use skep_tests::sim::{self, Cut, Fault};

/// Until when each run was due, by service.
type Runs = BTreeMap<String, Vec<String>>;

async fn runs(farm: &Farm) -> Runs {
    let mut runs = Runs::new();
    for op in farm.operations().await {
        let Trigger::Schedule { due, .. } = &op.intent.trigger else { continue };
        assert_eq!(op.journal.state, State::Succeeded, "{op:#?}");
        runs.entry(op.intent.service).or_default().push(due.to_string());
    }
    runs
}

/// Every scheduled run made a backup, and every backup has its files.
async fn whole(farm: &Farm) {
    let (backups, operations) = (farm.backups().await, farm.operations().await);
    assert_eq!(backups.len(), operations.iter().filter(|o| o.intent.work == Work::Backup).count());
    for backup in backups {
        assert!(farm.data.with(|w| w.store.is_sealed(&backup.entry.dir)), "{}", backup.entry.dir);
    }
    let left: Vec<String> = farm
        .sim
        .stored_names()
        .into_iter()
        .filter(|n| n.contains("-claim-") || n.contains("-job-"))
        .collect();
    assert_eq!(left, [] as [String; 0]);
}

fn daily(days: &[&str], time: &str) -> Vec<String> {
    days.iter().map(|day| format!("{day}T{time}:00Z")).collect()
}

/// The clocks of Paris go back on 25 October 2026, from 03:00 to 02:00 at 01:00 UTC: 02:30 is there twice.
#[tokio::test(start_paused = true)]
async fn a_week_with_several_leaders_and_a_change_of_clocks_makes_each_run_exactly_once() {
    let keep = ("skep.backup.keep", "100 last");
    let farm = Farm::start(
        "2026-10-22T12:01:00Z",
        &[
            ("night_db", &[("skep.backup.schedule", "CRON_TZ=Europe/Paris 30 2 * * *"), keep]),
            ("often_db", &[("skep.backup.schedule", "@every 6h"), keep]),
            ("work_db", &[("skep.backup.schedule", "0 4 * * MON-FRI"), keep]),
        ],
    )
    .await;
    let quarter = Duration::from_secs(900);
    let mut one = farm.leader("one").await;
    one.looks_every = quarter;
    one.lead("2026-10-24T18:05:00Z").await;
    // Two believe for a day that they lead.
    let mut two = farm.leader("two").await;
    two.looks_every = quarter;
    tokio::join!(one.lead("2026-10-25T20:00:00Z"), two.lead("2026-10-25T20:00:00Z"));
    // The second goes on alone, and dies in the middle of a backup.
    let writes = farm.sim.faults().writes("two");
    farm.sim.faults().on("two", sim::Trigger::Write(writes + 15), Fault::Kill(Cut::After));
    two.lead("2026-10-26T12:00:00Z").await;
    let halfway = farm.operations().await.pop().unwrap();
    assert_eq!(halfway.journal.state, State::Running, "it died in the middle");
    // Nobody leads until the evening; then a third one does.
    farm.leaderless("2026-10-27T19:00:00Z").await;
    let mut three = farm.leader("three").await;
    three.looks_every = quarter;
    three.lead("2026-10-29T12:00:00Z").await;
    let wanted = Runs::from([
        (
            "night_db".to_owned(),
            [
                daily(&["2026-10-23", "2026-10-24", "2026-10-25"], "00:30"),
                // The run of the 26th was missed for good, that of the 27th is made up.
                daily(&["2026-10-27", "2026-10-28", "2026-10-29"], "01:30"),
            ]
            .concat(),
        ),
        ("often_db".to_owned(), {
            let before =
                ["2026-10-22T18", "2026-10-23T00", "2026-10-23T06", "2026-10-23T12", "2026-10-23T18"];
            let both = ["2026-10-24T00", "2026-10-24T06", "2026-10-24T12", "2026-10-24T18", "2026-10-25T00"];
            let then = ["2026-10-25T06", "2026-10-25T12", "2026-10-25T18", "2026-10-26T00"];
            let third = ["2026-10-27T18", "2026-10-28T00", "2026-10-28T06", "2026-10-28T12", "2026-10-28T18"];
            let last = ["2026-10-29T00", "2026-10-29T06"];
            [&before[..], &both, &then, &third, &last]
                .concat()
                .iter()
                .map(|t| format!("{t}:00:00Z"))
                .collect()
        }),
        ("work_db".to_owned(), daily(&["2026-10-23", "2026-10-27", "2026-10-28", "2026-10-29"], "04:00")),
    ]);
    assert_eq!(runs(&farm).await, wanted);
    whole(&farm).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_due_during_another_operation_is_made_up_when_that_has_ended() {
    let farm =
        Farm::start("2026-03-01T23:00:00Z", &[("shop_db", &[("skep.backup.schedule", "@daily")])]).await;
    let mut leader = farm.leader("leader").await;
    leader.lead("2026-03-01T23:10:00Z").await;
    let restore = Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: None,
        quiesce: None,
        create_roles: false,
    };
    let asked = farm.ask_approval("shop_db", restore).await;
    leader.lead("2026-03-02T05:00:00Z").await;
    assert_eq!(farm.backups().await.len(), 0, "the restore waits for approval, and the service for it");
    desk::cancel(&leader.env.engine, &asked, "somebody").await.unwrap();
    skep::operation::drive::poll(&leader.env, &asked).await.unwrap();
    leader.lead("2026-03-02T05:10:00Z").await;
    let backups = farm.backups().await;
    assert_eq!(backups.len(), 1);
    assert!(backups[0].entry.taken >= "2026-03-02T05:00:00Z".parse().unwrap());
    leader.lead("2026-03-02T23:30:00Z").await;
    assert_eq!(farm.backups().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_failed_is_tried_again_and_its_failure_leaves_nothing_behind() {
    let farm =
        Farm::start("2026-03-02T00:00:00Z", &[("shop_db", &[("skep.backup.schedule", "@daily")])]).await;
    let mut leader = farm.leader("leader").await;
    farm.data
        .with(|w| w.servers.get_mut("shop_db").unwrap().databases.get_mut("shop").unwrap().allow = false);
    leader.lead("2026-03-02T23:50:00Z").await;
    let failed: Vec<Operation> = farm.operations().await;
    let times: Vec<String> = failed.iter().map(|o| o.intent.created.strftime("%H:%M").to_string()).collect();
    assert_eq!(times, ["00:00", "00:15", "01:15", "05:15"]);
    assert!(failed.iter().all(|o| o.journal.state == State::Failed), "{failed:#?}");
    assert!(farm.data.with(|w| w.store.dirs.is_empty()), "{:?}", farm.data.with(|w| w.store.dirs.clone()));
    farm.data.with(|w| w.servers.get_mut("shop_db").unwrap().databases.get_mut("shop").unwrap().allow = true);
    leader.lead("2026-03-03T12:00:00Z").await;
    assert_eq!(farm.backups().await.len(), 1);
    assert_eq!(farm.operations().await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_run_is_not_repeated_when_the_record_of_it_was_pruned() {
    let farm =
        Farm::start("2026-03-31T23:59:00Z", &[("shop_db", &[("skep.backup.schedule", "@monthly")])]).await;
    let mut leader = farm.leader("leader").await;
    leader.lead("2026-04-01T00:10:00Z").await;
    let made = farm.operations().await;
    assert_eq!(made.len(), 1);
    leader.env.engine.remove_config(&made[0].config).await.unwrap();
    let mut other = farm.leader("other").await;
    other.lead("2026-04-01T03:00:00Z").await;
    assert!(farm.operations().await.is_empty());
    farm.leaderless("2026-04-30T23:58:00Z").await;
    other.lead("2026-05-01T00:10:00Z").await;
    assert_eq!(runs(&farm).await["shop_db"], ["2026-05-01T00:00:00Z"]);
}

/// When each drill began, and what became of it; oldest first.
async fn drills(farm: &Farm) -> Vec<(String, State)> {
    let mut drills = farm.operations().await;
    drills.retain(|o| matches!(o.intent.work, Work::Drill { .. }));
    drills.into_iter().map(|o| (o.intent.created.strftime("%d %H:%M").to_string(), o.journal.state)).collect()
}

fn nothing_is_left(farm: &Farm) {
    let left = farm.data.with(|w| {
        w.servers.values().flat_map(|s| s.databases.keys().cloned()).filter(|n| n.contains("drill")).count()
    });
    assert_eq!(left, 0, "a scratch database is left");
}

/// Backups and drills of two services that are all due at the same time.
const NIGHTLY: [(&str, &str); 3] =
    [("skep.backup.schedule", "@daily"), ("skep.drill.schedule", "@daily"), CHECK];
const CHECK: (&str, &str) = ("skep.check.users.sql", "SELECT count(*) FROM users");

#[tokio::test(start_paused = true)]
async fn every_night_the_backup_of_that_night_is_drilled_once_whoever_leads() {
    let farm = Farm::start("2026-03-01T12:00:00Z", &[("a_db", &NIGHTLY), ("b_db", &NIGHTLY)]).await;
    let mut one = farm.leader("one").await;
    one.lead("2026-03-02T12:00:00Z").await;
    let mut two = farm.leader("two").await;
    tokio::join!(one.lead("2026-03-03T00:00:01Z"), two.lead("2026-03-03T12:00:00Z"));
    // The second dies in the middle of a drill, and nobody leads for a while.
    two.looks_every = Duration::from_secs(20);
    two.lead("2026-03-04T00:00:10Z").await;
    let writes = farm.sim.faults().writes("two");
    farm.sim.faults().on("two", sim::Trigger::Write(writes + 60), Fault::Kill(Cut::After));
    two.lead("2026-03-04T02:00:00Z").await;
    farm.leaderless("2026-03-04T02:30:00Z").await;
    let mut three = farm.leader("three").await;
    three.lead("2026-03-04T13:00:00Z").await;
    let operations = farm.operations().await;
    let of = |work: fn(&Work) -> bool| operations.iter().filter(|o| work(&o.intent.work)).count();
    assert!(operations.iter().all(|o| o.journal.state == State::Succeeded), "{operations:#?}");
    assert_eq!(of(|w| *w == Work::Backup), 6, "three nights");
    assert_eq!(of(|w| matches!(w, Work::Drill { .. })), 6, "three nights");
    let backups = farm.backups().await;
    assert!(backups.iter().all(|b| b.proved.is_some_and(|at| at >= b.entry.taken)), "{backups:#?}");
    nothing_is_left(&farm);
}

#[tokio::test(start_paused = true)]
async fn a_drill_that_gave_way_is_made_up_when_the_other_operation_has_ended() {
    let labels = [("skep.drill.schedule", "0 3 * * *"), CHECK];
    let farm = Farm::start("2026-03-01T12:00:00Z", &[("shop_db", &labels)]).await;
    let mut leader = farm.leader("leader").await;
    farm.ask("shop_db", Work::Backup).await;
    leader.lead("2026-03-02T02:59:59Z").await;
    let loads = |ops: &[Operation]| ops.iter().any(|o| o.journal.step("load").is_some());
    while !loads(&farm.operations().await) {
        leader.lead_for(Duration::from_millis(500)).await;
    }
    let begun = farm.operations().await.pop().unwrap().intent.created;
    assert_eq!(drills(&farm).await.len(), 1, "it is under way");
    let restore = Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: None,
        quiesce: None,
        create_roles: false,
    };
    let asked = farm.ask_approval("shop_db", restore).await;
    leader.lead("2026-03-02T08:00:00Z").await;
    let gave_way = (begun.strftime("%d %H:%M").to_string(), State::Cancelled);
    assert_eq!(drills(&farm).await, [gave_way], "the restore waits, and the drill for it");
    desk::cancel(&leader.env.engine, &asked, "somebody").await.unwrap();
    skep::operation::drive::poll(&leader.env, &asked).await.unwrap();
    leader.lead("2026-03-03T02:00:00Z").await;
    let [_, (begun, state)] = drills(&farm).await.try_into().unwrap();
    assert_eq!((begun.as_str(), state), ("02 08:00", State::Succeeded));
    assert!(farm.backups().await[0].proved.is_some());
    nothing_is_left(&farm);
}

#[tokio::test(start_paused = true)]
async fn a_drill_that_failed_waits_for_its_next_time() {
    let labels = [
        ("skep.drill.schedule", "0 3 * * *"),
        ("skep.check.users.sql", "SELECT count(*) FROM users"),
        ("skep.check.users.expect", "ge 9"),
    ];
    let farm = Farm::start("2026-03-01T12:00:00Z", &[("shop_db", &labels)]).await;
    let mut leader = farm.leader("leader").await;
    farm.ask("shop_db", Work::Backup).await;
    leader.lead("2026-03-03T12:00:00Z").await;
    let failed = |day: &str| (format!("{day} 03:00"), State::Failed);
    assert_eq!(drills(&farm).await, [failed("02"), failed("03")]);
    assert!(farm.backups().await[0].drill_failed.is_some());
    nothing_is_left(&farm);
}

/// A month of Sundays: the leader dies in the middle of one restart, and nobody leads around another.
#[tokio::test(start_paused = true)]
async fn a_service_is_restarted_at_its_time_once_whoever_leads_and_never_late() {
    let farm =
        Farm::start("2026-02-28T12:00:00Z", &[("db", &[("skep.restart.schedule", "0 4 * * SUN")])]).await;
    let mut one = farm.leader("one").await;
    one.looks_every = Duration::from_secs(300);
    one.lead("2026-03-08T03:59:00Z").await;
    let writes = farm.sim.faults().writes("one");
    farm.sim.faults().on("one", sim::Trigger::Write(writes + 12), Fault::Kill(Cut::After));
    one.lead("2026-03-08T04:00:10Z").await;
    let halfway = farm.operations().await.pop().unwrap();
    assert_eq!(halfway.journal.state, State::Running, "it died in the middle");
    let mut two = farm.leader("two").await;
    two.looks_every = Duration::from_secs(300);
    two.lead("2026-03-15T03:59:00Z").await;
    farm.leaderless("2026-03-15T05:00:01Z").await;
    let mut three = farm.leader("three").await;
    three.looks_every = Duration::from_secs(300);
    three.lead("2026-03-22T12:00:00Z").await;
    assert_eq!(runs(&farm).await["db"], daily(&["2026-03-01", "2026-03-08", "2026-03-22"], "04:00"));
    assert_eq!(farm.sim.containers("db").len(), 1);
}

/// Down at 20:00 and up at 07:00 on working days, backed up at 02:00.
const NIGHTS: [(&str, &str); 3] = [
    ("skep.scale.down", "0 20 * * MON-FRI"),
    ("skep.scale.up", "0 7 * * MON-FRI"),
    ("skep.backup.schedule", "0 2 * * *"),
];

async fn sleeps(farm: &Farm, service: &str) -> bool {
    let engine = farm.connect("looker").await;
    let found = engine.service(service).await.unwrap();
    let written = sleeper::find(&engine, service).await.unwrap();
    assert_eq!(written.is_some(), client_spec::is_asleep(&found.spec), "{service}");
    written.is_some()
}

/// A weekend and the nights around it, with two leaders, one of which dies as the service falls asleep.
#[tokio::test(start_paused = true)]
async fn a_service_sleeps_by_night_and_is_backed_up_before() {
    let farm = Farm::start("2026-10-22T12:00:00Z", &[("db", &NIGHTS)]).await;
    let mut one = farm.leader("one").await;
    one.looks_every = Duration::from_secs(300);
    one.lead("2026-10-22T19:58:00Z").await;
    assert!(!sleeps(&farm, "db").await);
    one.lead("2026-10-23T06:50:00Z").await;
    assert!(sleeps(&farm, "db").await, "Thursday night");
    assert_eq!(farm.backups().await.len(), 1, "before it fell asleep, and none at 02:00");
    one.lead("2026-10-23T19:58:00Z").await;
    assert!(!sleeps(&farm, "db").await, "Friday");
    // It dies in the middle of falling asleep; nobody leads until Saturday.
    let writes = farm.sim.faults().writes("one");
    farm.sim.faults().on("one", sim::Trigger::Write(writes + 60), Fault::Kill(Cut::After));
    one.lead("2026-10-23T20:30:00Z").await;
    farm.leaderless("2026-10-24T10:00:00Z").await;
    let mut two = farm.leader("two").await;
    two.looks_every = Duration::from_secs(300);
    two.lead("2026-10-26T06:50:00Z").await;
    assert!(sleeps(&farm, "db").await, "the weekend");
    two.lead("2026-10-26T12:00:00Z").await;
    assert!(!sleeps(&farm, "db").await, "Monday");
    assert_eq!(farm.sim.containers("db").len(), 1);
    let operations = farm.operations().await;
    let kinds = |kind: &str| operations.iter().filter(|o| o.intent.work.kind() == kind).count();
    assert_eq!((kinds("sleep"), kinds("wake")), (2, 2));
    assert!(operations.iter().all(|o| o.journal.state == State::Succeeded), "{operations:#?}");
}

#[tokio::test(start_paused = true)]
async fn s12_what_is_deployed_over_a_sleeper_sleeps_and_what_a_person_scales_stays_up() {
    let farm = Farm::start("2026-10-22T12:00:00Z", &[("db", &NIGHTS[..2])]).await;
    let mut leader = farm.leader("one").await;
    leader.looks_every = Duration::from_secs(60);
    leader.lead("2026-10-22T21:00:00Z").await;
    assert!(sleeps(&farm, "db").await);
    let deploy = |spec: &mut serde_json::Value| {
        spec["TaskTemplate"]["ContainerSpec"]["Labels"] = serde_json::json!({ "release": "2" });
        spec["Mode"]["Replicated"]["Replicas"] = serde_json::json!(1);
    };
    farm.change("db", deploy).await;
    leader.lead("2026-10-22T21:10:00Z").await;
    assert!(sleeps(&farm, "db").await, "it was deployed, and nobody asked for it to wake");
    leader.lead("2026-10-23T08:00:00Z").await;
    let spec = farm.connect("looker").await.service("db").await.unwrap().spec;
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Labels"]["release"], "2");
    assert_eq!(farm.sim.containers("db").len(), 1);
    leader.lead("2026-10-23T21:00:00Z").await;
    assert!(sleeps(&farm, "db").await);
    farm.change("db", |spec| spec["Mode"]["Replicated"]["Replicas"] = serde_json::json!(2)).await;
    leader.lead("2026-10-24T12:00:00Z").await;
    assert!(!sleeps(&farm, "db").await, "a person wants it");
    assert_eq!(farm.sim.containers("db").len(), 2);
}

/// A service that is removed while it sleeps leaves nothing that could be taken for the next one of its name.
#[tokio::test(start_paused = true)]
async fn what_is_written_down_of_a_service_says_nothing_about_another_of_its_name() {
    let farm = Farm::start("2026-10-22T12:00:00Z", &[("db", &NIGHTS[..2])]).await;
    let mut leader = farm.leader("one").await;
    leader.lead("2026-10-22T21:00:00Z").await;
    let engine = farm.connect("person").await;
    let old = engine.service("db").await.unwrap();
    engine.remove_service(&old.id).await.unwrap();
    let mut spec = old.spec.clone();
    spec["Mode"]["Replicated"]["Replicas"] = serde_json::json!(3);
    engine.create_service(&spec, RegistryAuth::Anonymous).await.unwrap();
    leader.lead("2026-10-23T06:00:00Z").await;
    assert_eq!(
        farm.sim.containers("db").len(),
        3,
        "it was made in the night, and nobody said when to sleep since"
    );
}
