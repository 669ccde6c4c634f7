//! Tests of [`super`]. The Swarm is two lists here: operations and the catalogue.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Unit};
use proptest::prelude::*;
use serde_json::json;

use super::super::testing;
use super::*;
use crate::operation::catalogue::{Entry, Origin};
use crate::operation::record::Journal;

const NO_SPREAD: Rules = Rules { at_once: 2, drills_at_once: 1, spread: Duration::ZERO };

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn minutes(n: i64) -> SignedDuration {
    SignedDuration::from_mins(n)
}

fn database(name: &str, schedule: &str) -> Service {
    let mut service = testing::service(name);
    service.spec["Labels"] =
        json!({ "skep.enable": "true", "skep.data": "postgres", "skep.backup.schedule": schedule });
    service
}

/// A database for which `errand` is asked for, and nothing else.
fn asking(errand: Errand, name: &str, schedule: &str) -> Service {
    let mut service = database(name, schedule);
    let labels = service.spec["Labels"].as_object_mut().unwrap();
    labels.remove(Errand::Backup.key());
    labels.insert(errand.key().to_owned(), json!(schedule));
    service
}

fn backup(service: &str, taken: Timestamp, purpose: Purpose) -> Backup {
    let entry = Entry {
        schema: Entry::version(None),
        id: format!("{taken}"),
        operation: OpId::new(taken, service),
        service: service.to_owned(),
        service_id: format!("{service}-id"),
        engine: "postgres".to_owned(),
        database: String::new(),
        store: "default".to_owned(),
        dir: String::new(),
        manifest_sha256: String::new(),
        size: 0,
        taken,
        purpose,
        node: None,
        origin: Origin::Made,
        inner: None,
        base: None,
    };
    Backup {
        config: String::new(),
        version: 1,
        entry,
        verified: Some(taken),
        proved: None,
        loaded: None,
        restore_seconds: None,
        drill_failed: None,
        removing: None,
        spoilt: None,
        copies: Vec::new(),
    }
}

/// A Swarm in which whatever is asked for ends at once, or goes on until it is told to end.
struct Swarm {
    services: Vec<Service>,
    operations: Vec<Operation>,
    backups: Vec<Backup>,
    points: Vec<Point>,
    rules: Rules,
}

impl Swarm {
    fn of(services: Vec<Service>) -> Swarm {
        let (operations, backups, points) = (Vec::new(), Vec::new(), Vec::new());
        Swarm { services, operations, backups, points, rules: NO_SPREAD }
    }

    fn one(schedule: &str) -> Swarm {
        Swarm::of(vec![database("shop_db", schedule)])
    }

    /// A database with a backup of long ago, which is drilled.
    fn drilled(schedule: &str) -> Swarm {
        let mut swarm = Swarm::of(vec![asking(Errand::Drill, "shop_db", schedule)]);
        swarm.backups.push(backup("shop_db", Timestamp::UNIX_EPOCH, Purpose::Regular));
        swarm
    }

    fn due(&self, now: Timestamp) -> Vec<(OpId, Intent)> {
        let Swarm { services, operations, backups, points, rules } = self;
        scheduled(&Seen { services, operations, backups, points }, rules, now)
    }

    /// What a leader does: stores what is due. Returns when it was due.
    fn ask(&mut self, now: Timestamp) -> Vec<Timestamp> {
        let due = self.due(now);
        let created = due.into_iter().map(|(id, intent)| {
            assert!(self.operations.iter().all(|o| o.id != id), "an id is used once");
            let Trigger::Schedule { due, .. } = intent.trigger else { panic!("not by a schedule") };
            let journal = Journal::new(State::Pending);
            self.operations.push(Operation { config: id.to_string(), id, version: 1, intent, journal });
            due
        });
        created.collect()
    }

    /// Ends everything that is under way.
    fn end(&mut self, state: State, now: Timestamp) {
        for op in self.operations.iter_mut().filter(|o| !o.journal.state.is_terminal()) {
            op.journal.state = state;
            op.journal.ended = Some(now);
            if state == State::Succeeded && op.intent.work == Work::Backup {
                self.backups.push(backup(&op.intent.service, op.intent.created, Purpose::Regular));
            }
            if state == State::Succeeded && matches!(op.intent.work, Work::Drill { .. }) {
                let own = self.backups.iter_mut().filter(|b| b.entry.service == op.intent.service);
                if let Some(newest) = own.max_by_key(|b| b.entry.taken) {
                    newest.proved = Some(now);
                }
            }
        }
    }

    /// What is under way gives way to something else.
    fn give_way(&mut self, now: Timestamp) {
        let live = |o: &&mut Operation| !o.journal.state.is_terminal();
        self.operations.iter_mut().filter(live).for_each(|op| {
            op.journal.cancel = Some("operation x (backup of shop_db), to which it gave way".to_owned());
        });
        self.end(State::Cancelled, now);
    }

    /// One look: asks, and lets what was asked for succeed.
    fn look(&mut self, now: Timestamp) -> Vec<Timestamp> {
        let due = self.ask(now);
        self.end(State::Succeeded, now);
        due
    }
}

#[test]
fn a_backup_begins_when_it_is_due_and_once_only() {
    let mut swarm = Swarm::one("0 2 * * *");
    swarm.look(at("2026-03-01T12:00:00Z"));
    assert!(swarm.due(at("2026-03-02T01:59:59Z")).is_empty());
    let due = at("2026-03-02T02:00:00Z");
    // Two leaders that look at different moments make the same one.
    assert_eq!(swarm.due(due)[0].0, swarm.due(at("2026-03-02T02:00:19Z"))[0].0);
    assert_eq!(swarm.ask(due), [due]);
    assert!(swarm.due(due).is_empty(), "it is under way");
    swarm.end(State::Succeeded, at("2026-03-02T02:10:00Z"));
    assert!(swarm.due(at("2026-03-02T02:10:00Z")).is_empty());
    assert_eq!(swarm.look(at("2026-03-03T02:00:10Z")), [at("2026-03-03T02:00:00Z")]);
    let (_, intent) = Swarm::one("0 2 * * *").due(due).remove(0);
    assert_eq!((intent.work, intent.service_id.as_str()), (Work::Backup, "shop_db-id"));
    assert_eq!(intent.trigger, Trigger::Schedule { key: "skep.backup.schedule".to_owned(), due });
}

#[test]
fn of_all_runs_that_were_missed_the_newest_is_made_up_and_only_once() {
    let mut swarm = Swarm::one("0 2 * * *");
    swarm.look(at("2026-03-01T02:00:00Z"));
    // Nobody leads for nine days.
    let back = at("2026-03-10T12:00:00Z");
    assert_eq!(swarm.look(back), [at("2026-03-10T02:00:00Z")]);
    for later in 1..13 * 60 {
        assert!(swarm.due(back + minutes(later)).is_empty(), "{later}");
    }
}

#[test]
fn a_run_that_was_missed_is_left_to_the_next_one_where_that_is_near() {
    let mut swarm = Swarm::one("0 2 * * *");
    swarm.look(at("2026-03-01T02:00:00Z"));
    assert!(swarm.due(at("2026-03-03T01:00:01Z")).is_empty());
    assert_eq!(swarm.due(at("2026-03-03T01:00:00Z")).len(), 1, "an hour is not near");
    // Of a month no more than an hour is left to the next one, of an hour no more than six minutes.
    let monthly = Swarm::one("@monthly");
    assert_eq!(monthly.due(at("2026-03-31T22:59:00Z")).len(), 1);
    assert!(monthly.due(at("2026-03-31T23:01:00Z")).is_empty());
    let hourly = Swarm::one("@hourly");
    assert_eq!(hourly.due(at("2026-03-31T22:53:59Z")).len(), 1);
    assert!(hourly.due(at("2026-03-31T22:54:01Z")).is_empty());
}

#[test]
fn the_catalogue_alone_tells_that_a_run_was_made() {
    let mut swarm = Swarm::one("@monthly");
    let now = at("2026-04-30T12:00:00Z");
    swarm.look(at("2026-04-01T00:00:00Z"));
    swarm.operations.clear();
    assert!(swarm.due(now).is_empty());
    // By hand will do as well; what a restore put aside will not, nor what was taken before or has yet to come.
    for (taken, purpose, is_made) in [
        ("2026-04-02T00:00:00Z", Purpose::Regular, true),
        ("2026-04-01T00:00:00Z", Purpose::Regular, true),
        ("2026-04-02T00:00:00Z", Purpose::Safety, false),
        ("2026-03-31T23:59:59Z", Purpose::Regular, false),
        ("2026-05-01T00:00:00Z", Purpose::Regular, false),
    ] {
        swarm.backups = vec![backup("shop_db", at(taken), purpose)];
        assert_eq!(swarm.due(now).is_empty(), is_made, "{taken} {purpose:?}");
    }
    swarm.backups = vec![backup("other_db", at("2026-04-02T00:00:00Z"), Purpose::Regular)];
    assert_eq!(swarm.due(now).len(), 1, "another service's backup");
}

#[test]
fn the_record_of_the_operation_tells_where_the_backup_is_gone() {
    let mut swarm = Swarm::one("@daily");
    swarm.look(at("2026-03-02T00:00:00Z"));
    swarm.backups.clear();
    assert!(swarm.due(at("2026-03-02T01:00:00Z")).is_empty());
}

#[test]
fn while_any_operation_has_the_service_it_waits_and_is_made_up_afterwards() {
    let restore = || Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: None,
        quiesce: None,
        create_roles: false,
    };
    let due = at("2026-03-02T02:00:00Z");
    for (state, waits) in [
        (State::Pending, true),
        (State::AwaitingApproval, true),
        (State::Running, true),
        (State::Stuck, true),
        (State::Succeeded, false),
        (State::Cancelled, false),
    ] {
        for work in [restore(), Work::Maintenance { until: None }, Work::Expire] {
            let mut swarm = Swarm::one("0 2 * * *");
            swarm.operations.push(testing::op("shop_db", work, "2026-03-02T01:00:00Z", state));
            assert_eq!(swarm.due(due).is_empty(), waits, "{state:?}");
            swarm.end(State::Succeeded, due);
            assert_eq!(swarm.look(due + minutes(200)), [due]);
        }
    }
    // As a client of another one's restore, too.
    let mut swarm = Swarm::one("0 2 * * *");
    let mut other = testing::op("other_db", restore(), "2026-03-02T01:00:00Z", State::Running);
    other.journal.step_mut("claim", due).out = json!({ "services": ["other_db", "shop_db"] });
    swarm.operations.push(other);
    assert!(swarm.due(due).is_empty());
}

#[test]
fn nothing_is_asked_for_where_labels_do_not_ask() {
    let due = at("2026-03-02T02:00:00Z");
    let silent: [(&str, &[(&str, &str)]); 5] = [
        ("paused", &[("skep.paused", "true")]),
        ("not enabled", &[("skep.enable", "false")]),
        ("no data", &[("skep.data", "")]),
        ("a faulty section", &[("skep.backup.keep", "seven")]),
        ("a faulty schedule", &[("skep.backup.schedule", "0 25 * * *")]),
    ];
    for (what, labels) in silent {
        let mut service = database("shop_db", "0 2 * * *");
        labels.iter().for_each(|(key, value)| service.spec["Labels"][*key] = json!(value));
        assert!(Swarm::of(vec![service]).due(due).is_empty(), "{what}");
    }
    let mut by_hand = database("shop_db", "");
    by_hand.spec["Labels"].as_object_mut().unwrap().remove("skep.backup.schedule");
    assert!(Swarm::of(vec![by_hand]).due(due).is_empty());
}

#[test]
fn what_was_missed_during_a_pause_is_made_up_after_it() {
    let mut swarm = Swarm::one("0 2 * * *");
    swarm.look(at("2026-03-01T02:00:00Z"));
    swarm.services[0].spec["Labels"]["skep.paused"] = json!("true");
    assert!(swarm.due(at("2026-03-05T09:00:00Z")).is_empty());
    swarm.services[0].spec["Labels"]["skep.paused"] = json!("false");
    assert_eq!(swarm.look(at("2026-03-05T09:00:00Z")), [at("2026-03-05T02:00:00Z")]);
}

#[test]
fn a_schedule_asks_for_nothing_from_before_its_service() {
    let mut swarm = Swarm::one("0 2 * * *");
    swarm.services[0].created = at("2026-03-02T02:30:00Z");
    assert!(swarm.due(at("2026-03-02T12:00:00Z")).is_empty());
    assert_eq!(swarm.due(at("2026-03-03T02:00:00Z")).len(), 1);
}

#[test]
fn a_service_that_was_never_backed_up_is_so_soon_after_its_label_says_it() {
    assert_eq!(Swarm::one("0 2 * * *").look(at("2026-03-02T12:00:00Z")), [at("2026-03-02T02:00:00Z")]);
}

#[test]
fn a_failed_attempt_is_repeated_ever_later_until_the_next_run_is_near() {
    let mut swarm = Swarm::one("0 2 1 * *");
    let due = at("2026-03-01T02:00:00Z");
    let (mut now, mut waits) = (due, Vec::new());
    for _ in 0..7 {
        let before = now;
        while swarm.ask(now).is_empty() {
            now += minutes(5);
        }
        waits.push(now.duration_since(before).as_mins());
        swarm.end(if waits.len() % 2 == 0 { State::Failed } else { State::RolledBack }, now);
    }
    assert_eq!(waits, [0, 15, 60, 240, 1440, 1440, 1440]);
    // A daily one has three more chances a night, then it is the next night's turn.
    let mut swarm = Swarm::one("0 2 * * *");
    let mut tried = Vec::new();
    for minute in 0..48 * 60 {
        let now = due + minutes(minute);
        tried.extend(swarm.ask(now).into_iter().map(|due| (minute, due == at("2026-03-01T02:00:00Z"))));
        swarm.end(State::Failed, now);
    }
    let day = 24 * 60;
    let each = [(0, true), (15, true), (75, true), (315, true)];
    let next = each.map(|(minute, _)| (minute + day, false));
    assert_eq!(tried, [each, next].concat());
}

#[test]
fn a_repeated_attempt_that_succeeds_ends_it_and_so_does_a_person_who_cancels() {
    let due = at("2026-03-01T02:00:00Z");
    for (second, more) in [(State::Succeeded, 0), (State::Cancelled, 0), (State::Failed, 1)] {
        let mut swarm = Swarm::one("0 2 * * *");
        assert_eq!(swarm.ask(due), [due]);
        swarm.end(State::Failed, due);
        assert_eq!(swarm.ask(due + minutes(15)), [due]);
        swarm.end(second, due + minutes(15));
        swarm.backups.clear();
        assert_eq!(swarm.due(due + minutes(75)).len(), more, "{second:?}");
    }
}

#[test]
fn two_schedules_of_one_time_make_one_run() {
    let mut swarm = Swarm::one("0 2 * * *; 0 */2 * * *; @every 2h");
    let runs: Vec<Timestamp> =
        (0..24 * 60).flat_map(|m| swarm.look(at("2026-03-01T00:00:00Z") + minutes(m))).collect();
    let every: Vec<Timestamp> = (0..12).map(|h| at("2026-03-01T00:00:00Z") + minutes(h * 120)).collect();
    assert_eq!(runs, every);
}

#[test]
fn a_clock_that_was_wrong_once_stops_nothing() {
    let mut swarm = Swarm::one("0 2 * * *");
    swarm.look(at("2031-01-01T02:00:00Z"));
    assert_eq!(swarm.look(at("2026-03-02T02:00:00Z")), [at("2026-03-02T02:00:00Z")]);
    assert!(swarm.due(at("2026-03-02T03:00:00Z")).is_empty());
    // It goes back by an hour: what was made stays made.
    assert!(swarm.due(at("2026-03-02T01:30:00Z")).is_empty());
}

#[test]
fn fifty_services_of_one_time_are_spread_and_begin_few_at_a_time() {
    let names: Vec<String> = (0..50).map(|i| format!("stack{i}_db")).collect();
    let midnight = at("2026-03-02T00:00:00Z");
    let begun = |at_once: usize, end: i64| {
        let mut swarm = Swarm::of(names.iter().map(|n| database(n, "@daily")).collect());
        swarm.rules = Rules { at_once, spread: Duration::from_secs(300), ..NO_SPREAD };
        swarm.backups = names.iter().map(|n| backup(n, midnight - minutes(1), Purpose::Regular)).collect();
        let mut begun = Vec::new();
        for second in (0..end).step_by(20) {
            let now = midnight + SignedDuration::from_secs(second);
            begun.extend(swarm.ask(now).iter().map(|_| second));
            let under_way = swarm.operations.iter().filter(|o| o.journal.state.is_live()).count();
            assert!(under_way <= at_once, "{under_way} at once");
            swarm.end(State::Succeeded, now);
        }
        assert_eq!(begun.len(), 50, "each of them once");
        (begun, swarm)
    };
    let (free, _) = begun(50, 320);
    let in_each_minute: Vec<usize> =
        (0..5).map(|m| free.iter().filter(|s| (m * 60..m * 60 + 60).contains(*s)).count()).collect();
    assert!(in_each_minute.iter().all(|n| (4..=16).contains(n)), "{in_each_minute:?}");
    let (_, mut swarm) = begun(3, 600);
    // After an outage they are all late, and still begin few at a time, those that wait longest first.
    let noon = at("2026-03-05T12:00:00Z");
    swarm.services.push(database("hourly_db", "@hourly"));
    assert_eq!(swarm.ask(noon), [at("2026-03-05T00:00:00Z"); 3]);
    assert!(swarm.ask(noon).is_empty());
}

#[test]
fn what_people_asked_for_counts_among_those_at_once() {
    let mut swarm = Swarm::of(vec![database("a_db", "@daily"), database("b_db", "@daily")]);
    let other = testing::op("other_db", Work::Backup, "2026-03-02T00:00:00Z", State::Running);
    swarm.operations.push(other);
    assert_eq!(swarm.due(at("2026-03-02T00:00:00Z")).len(), 1);
    // One that is stuck waits for a person; the others do not wait with it.
    swarm.operations[0].journal.state = State::Stuck;
    assert_eq!(swarm.due(at("2026-03-02T00:00:00Z")).len(), 2);
}

#[test]
fn the_spread_is_never_more_than_a_tenth_of_the_interval() {
    let mut swarm = Swarm::one("@every 10m");
    swarm.rules.spread = Duration::from_secs(3600);
    for n in 0..50 {
        swarm.services[0] = database(&format!("db{n}"), "@every 10m");
        swarm.operations.clear();
        assert_eq!(swarm.due(at("2026-03-02T00:01:00Z")).len(), 1, "db{n}");
    }
}

#[test]
fn a_drill_begins_when_it_is_due_and_what_failed_is_not_repeated_before_the_next_time() {
    let due = at("2026-03-02T03:00:00Z");
    for (state, what) in [
        (State::Succeeded, "proved"),
        (State::Failed, "failed"),
        (State::RolledBack, "went back"),
        (State::Cancelled, "a person cancelled it"),
    ] {
        let mut swarm = Swarm::drilled("0 3 * * *");
        swarm.look(at("2026-03-01T12:00:00Z"));
        assert!(swarm.due(at("2026-03-02T02:59:59Z")).is_empty());
        assert_eq!(swarm.due(due)[0].0, swarm.due(at("2026-03-02T03:00:19Z"))[0].0, "two leaders");
        let (_, intent) = swarm.due(due).remove(0);
        assert_eq!(intent.work, Work::Drill { backup: None });
        assert_eq!(swarm.ask(due), [due]);
        assert!(swarm.due(due + minutes(1)).is_empty(), "it is under way");
        swarm.end(state, due + minutes(2));
        for later in 2..24 * 60 - 1 {
            assert!(swarm.due(due + minutes(later)).is_empty(), "{what}: again after {later} minutes");
        }
        assert_eq!(swarm.ask(due + minutes(24 * 60)).len(), 1, "{what}");
    }
}

#[test]
fn a_drill_that_gave_way_is_made_up_later_and_not_while_the_other_has_the_service() {
    let due = at("2026-03-02T03:00:00Z");
    let mut swarm = Swarm::drilled("0 3 * * *");
    assert_eq!(swarm.ask(due), [due]);
    swarm.give_way(due + minutes(1));
    for minute in 1..16 {
        assert!(swarm.due(due + minutes(minute)).is_empty(), "{minute}");
    }
    let restore = Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: None,
        quiesce: None,
        create_roles: false,
    };
    swarm.operations.push(testing::op("shop_db", restore, "2026-03-02T03:01:00Z", State::Running));
    assert!(swarm.due(due + minutes(60)).is_empty(), "the restore goes on");
    swarm.operations.last_mut().unwrap().journal.state = State::Succeeded;
    assert_eq!(swarm.ask(due + minutes(60)), [due]);
    swarm.end(State::Succeeded, due + minutes(61));
    assert!(swarm.due(due + minutes(400)).is_empty(), "it is made up once");
}

#[test]
fn of_a_backup_and_a_drill_that_are_both_due_the_backup_goes_first() {
    let mut swarm = Swarm::one("@daily");
    swarm.services[0].spec["Labels"][Errand::Drill.key()] = json!("@daily");
    let midnight = at("2026-03-02T00:00:00Z");
    let works = |due: Vec<(OpId, Intent)>| due.into_iter().map(|(_, i)| i.work).collect::<Vec<_>>();
    assert_eq!(works(swarm.due(midnight)), [Work::Backup]);
    // Also while there is no room for that.
    for name in ["a_db", "b_db"] {
        swarm.operations.push(testing::op(name, Work::Backup, "2026-03-02T00:00:00Z", State::Running));
    }
    assert!(swarm.due(midnight).is_empty());
    swarm.end(State::Succeeded, midnight);
    assert_eq!(swarm.ask(midnight), [midnight]);
    assert!(swarm.due(midnight + minutes(5)).is_empty(), "never while a backup is under way");
    swarm.end(State::Succeeded, midnight + minutes(5));
    assert_eq!(works(swarm.due(midnight + minutes(5))), [Work::Drill { backup: None }]);
    // One that fails keeps no drill from trying what there is.
    swarm.backups.retain(|b| b.entry.taken < midnight);
    swarm.operations.iter_mut().for_each(|o| o.journal.state = State::Failed);
    assert_eq!(works(swarm.due(midnight + minutes(5))), [Work::Drill { backup: None }]);
}

#[test]
fn what_the_catalogue_says_of_the_backup_that_was_the_newest_stands_for_a_drill() {
    let due = at("2026-03-02T03:00:00Z");
    let now = due + minutes(600);
    let old = || backup("shop_db", due - minutes(2000), Purpose::Regular);
    let new = || backup("shop_db", due - minutes(60), Purpose::Regular);
    let after = || backup("shop_db", due + minutes(300), Purpose::Regular);
    let proved = |b: Backup, minute: i64| Backup { proved: Some(due + minutes(minute)), ..b };
    let failed = |b: Backup, minute: i64| {
        let finding =
            crate::operation::catalogue::Finding { at: due + minutes(minute), why: "no".to_owned() };
        Backup { drill_failed: Some(finding), ..b }
    };
    for (what, backups, is_made) in [
        ("nothing is known", vec![old(), new()], false),
        ("the newest is proved", vec![old(), proved(new(), 5)], true),
        ("the newest failed", vec![old(), failed(new(), 5)], true),
        ("before it was due", vec![old(), proved(new(), -5)], false),
        ("an older one is proved", vec![proved(old(), 5), new()], false),
        ("it was the newest at that time", vec![proved(new(), 5), after()], true),
        ("a newer one was there", vec![proved(new(), 301), after()], false),
        (
            "another service's",
            vec![Backup { entry: Entry { service: "x".into(), ..new().entry }, ..proved(new(), 5) }],
            false,
        ),
    ] {
        let mut swarm = Swarm::drilled("0 3 * * *");
        swarm.backups = backups;
        assert_eq!(swarm.due(now).is_empty(), is_made, "{what}");
    }
}

#[test]
fn drills_of_one_time_are_spread_and_begin_one_at_a_time() {
    let midnight = at("2026-03-02T00:00:00Z");
    let names: Vec<String> = (0..20).map(|i| format!("stack{i}_db")).collect();
    let mut swarm = Swarm::of(names.iter().map(|n| asking(Errand::Drill, n, "@daily")).collect());
    swarm.rules.spread = Duration::from_secs(300);
    let mut begun = Vec::new();
    for second in (0..900).step_by(20) {
        let now = midnight + SignedDuration::from_secs(second);
        begun.extend(swarm.ask(now).iter().map(|_| second));
        let under_way = swarm.operations.iter().filter(|o| o.journal.state.is_live()).count();
        assert!(under_way <= 1, "{under_way} at once");
        swarm.end(State::Succeeded, now);
    }
    assert_eq!(begun.len(), 20, "each of them once");
    assert!(begun.last().is_some_and(|last| *last > 60), "they all began at once");
    // A drill that a person asked for counts; backups have their own room.
    let mut swarm = Swarm::of(vec![asking(Errand::Drill, "a_db", "@daily"), database("b_db", "@daily")]);
    let drill = Work::Drill { backup: Some("b".to_owned()) };
    swarm.operations.push(testing::op("other_db", drill, "2026-03-02T00:00:00Z", State::Running));
    let due = swarm.due(midnight);
    assert_eq!(due.iter().map(|(_, i)| i.service.as_str()).collect::<Vec<_>>(), ["b_db"]);
}

/// When a run at this reading of the clock is due, from the clock itself: a reading is due as soon as the clock shows it
/// or a later one, and a clock that is put back shows nothing new.
fn by_the_clock(
    zone: &TimeZone,
    hour: i8,
    minute: i8,
    from: Timestamp,
    to: Timestamp,
) -> BTreeSet<Timestamp> {
    let mut due = BTreeSet::new();
    let mut latest = zone.to_datetime(from);
    let mut at = from;
    while at < to {
        at += minutes(1);
        let shows = zone.to_datetime(at);
        let mut day = latest.date();
        while day <= shows.date() {
            let reading = day.at(hour, minute, 0, 0);
            if latest < reading && reading <= shows {
                due.insert(at);
            }
            day = day.tomorrow().unwrap();
        }
        latest = latest.max(shows);
    }
    due
}

/// Every zone that has moved its clocks since 1975.
fn zones() -> Vec<String> {
    let names = jiff::tz::db().available().map(|name| name.to_string());
    let moves = |name: &String| {
        TimeZone::get(name).is_ok_and(|z| z.following(at("1975-01-01T00:00:00Z")).next().is_some())
    };
    names.filter(moves).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn across_every_change_of_clocks_each_run_is_made_exactly_once(
        zone in prop::sample::select(zones()),
        year in 1975_i16..2037,
        nth in 0_usize..4,
        (hour, minute) in prop_oneof![(0_i8..4, 0_i8..60), (0_i8..24, 0_i8..60)],
        pauses in prop::collection::vec(1_i64..30, 500),
        errand in prop_oneof![Just(Errand::Backup), Just(Errand::Drill)],
    ) {
        let clock = TimeZone::get(&zone).unwrap();
        let january = format!("{year}-01-01T00:00:00Z").parse::<Timestamp>().unwrap();
        let change = clock.following(january).nth(nth).map_or(january, |t| t.timestamp());
        let change = change.round(Unit::Minute).unwrap();
        let (from, to) = (change - minutes(36 * 60), change + minutes(36 * 60));
        let mut swarm = Swarm::drilled("@daily");
        swarm.services[0] = asking(errand, "shop_db", &format!("CRON_TZ={zone} {minute} {hour} * * *"));
        swarm.services[0].created = from;
        let (mut now, mut runs) = (from, Vec::new());
        for pause in pauses {
            now += minutes(pause);
            if now > to { break }
            runs.extend(swarm.look(now));
        }
        let wanted: Vec<Timestamp> =
            by_the_clock(&clock, hour, minute, from - minutes(1), to).into_iter().filter(|due| *due <= now - minutes(30)).collect();
        runs.truncate(wanted.len());
        prop_assert_eq!(runs, wanted, "{} around {}", zone, change);
    }

    #[test]
    fn whoever_leads_and_whenever_nobody_does_no_run_is_doubled_and_the_newest_is_always_made(
        schedule in prop_oneof![
            Just("@hourly"), Just("@every 90m"), Just("0 2 * * *"), Just("0 2 * * *; 30 14 * * MON-FRI"),
            Just("CRON_TZ=Europe/Paris */40 * * * *"),
        ],
        looks in prop::collection::vec((1_i64..600, 0_u8..4), 1..60),
        errand in prop_oneof![Just(Errand::Backup), Just(Errand::Drill)],
    ) {
        let mut swarm = Swarm::drilled(schedule);
        swarm.services[0] = asking(errand, "shop_db", schedule);
        swarm.rules.spread = Duration::from_secs(300);
        let mut now = at("2026-03-27T00:00:00Z");
        swarm.services[0].created = now;
        let mut seen = BTreeSet::new();
        for (pause, ends) in looks {
            now += minutes(pause);
            for due in swarm.ask(now) {
                prop_assert!(seen.insert((due, swarm.operations.len())));
            }
            let state = if ends == 0 { State::Failed } else { State::Succeeded };
            swarm.end(state, now);
            let succeeded = |o: &&Operation| o.journal.state == State::Succeeded;
            let mut made: Vec<_> = swarm.operations.iter().filter(succeeded).map(|o| o.intent.trigger.clone()).collect();
            let all = made.len();
            made.dedup();
            prop_assert_eq!(made.len(), all, "a run was doubled");
            // Nothing is owed, unless an attempt failed, the spread is not over, or the next run is near.
            let policies = Policies::of(&swarm.services);
            let policy = &policies.get("shop_db").unwrap().policy;
            if let Some(due) = missed(errand, &swarm.services[0], policy, &swarm.backups, now) {
                let failed = attempts(errand, &swarm.operations, &swarm.services[0].id, due, now).last().is_some_and(|o| o.journal.state == State::Failed);
                let next = errand.schedules(policy).iter().filter_map(|s| s.next_after(now)).min().unwrap();
                let interval = next.duration_since(due);
                prop_assert!(failed || now < due + interval / 10 || next < now + interval / 10, "{due} is owed at {now}");
            }
        }
    }
}

/// A service of the stack `shop` that asks for points of it.
fn of_shop(name: &str, schedule: &str) -> Service {
    let mut service = asking(Errand::Point, name, schedule);
    service.spec["Labels"]["com.docker.stack.namespace"] = json!("shop");
    service
}

/// A point of the stack `shop`, with data or without.
fn point(taken: Timestamp, purpose: PointPurpose, with_data: bool) -> Point {
    let id = OpId::new(taken, "point");
    let data = crate::operation::points::Data { engine: "postgres".to_owned(), backup: format!("{id}p0") };
    let member = crate::operation::points::Member {
        name: "shop_db".to_owned(),
        id: String::new(),
        spec: crate::operation::points::Part::of(&id, b""),
        image: String::new(),
        nodes: Vec::new(),
        data: with_data.then_some(data),
    };
    let head = Head {
        schema: Head::VERSION,
        id,
        stack: "shop".to_owned(),
        taken,
        purpose,
        services: vec![member],
        configs: Vec::new(),
        secrets: Vec::new(),
        networks: Vec::new(),
        volumes: Vec::new(),
    };
    Point { config: String::new(), head }
}

#[test]
fn a_point_is_asked_for_once_of_a_stack_whichever_of_its_services_say_so() {
    let swarm = Swarm::of(vec![of_shop("shop_app", "0 2 * * *"), of_shop("shop_db", "0 2 * * *")]);
    assert_eq!(swarm.due(at("2026-03-01T12:00:00Z")).len(), 1, "one that was missed is made up");
    let due = swarm.due(at("2026-03-02T03:00:00Z"));
    let [(id, intent)] = due.as_slice() else { panic!("{due:?}") };
    assert_eq!((intent.service.as_str(), intent.service_id.as_str()), ("shop", "stack:shop"));
    assert_eq!(intent.work, Work::Point { without_data: false });
    assert_eq!(swarm.due(at("2026-03-02T04:00:00Z"))[0].0, *id, "whoever computes it, and whenever");
    // A service of no stack has nothing to take a point of.
    let alone = Swarm::of(vec![asking(Errand::Point, "shop_db", "0 2 * * *")]);
    assert_eq!(alone.due(at("2026-03-02T03:00:00Z")), []);
}

#[test]
fn a_regular_point_with_data_from_the_due_time_on_is_what_a_schedule_asks_for() {
    let now = at("2026-03-02T03:00:00Z");
    let due = |point: Point| {
        let mut swarm = Swarm::of(vec![of_shop("shop_db", "0 2 * * *")]);
        swarm.points.push(point);
        swarm.due(now).len()
    };
    let taken = at("2026-03-02T02:10:00Z");
    assert_eq!(due(point(taken, PointPurpose::Regular, true)), 0);
    assert_eq!(due(point(at("2026-03-02T01:59:00Z"), PointPurpose::Regular, true)), 1);
    assert_eq!(due(point(taken, PointPurpose::Safety, true)), 1, "what a rollback took");
    assert_eq!(due(point(taken, PointPurpose::Regular, false)), 1, "without data");
}

#[test]
fn a_stack_that_is_rolled_back_is_left_alone_and_a_point_that_failed_is_tried_again() {
    let now = at("2026-03-02T03:00:00Z");
    let mut swarm = Swarm::of(vec![of_shop("shop_db", "0 2 * * *")]);
    let work = Work::Rollback { point: OpId::new(now, "x"), only: Vec::new() };
    let mut rollback = testing::op("shop", work, "2026-03-02T02:59:00Z", State::Running);
    rollback.intent.service_id = of_stack("shop");
    swarm.operations.push(rollback);
    assert_eq!(swarm.due(now), []);
    swarm.operations[0].journal.state = State::Succeeded;
    let (id, intent) = swarm.due(now).pop().unwrap();
    let mut journal = Journal::new(State::Failed);
    journal.ended = Some(now);
    swarm.operations.push(Operation { config: id.config_name(), id, version: 1, intent, journal });
    assert_eq!(swarm.due(at("2026-03-02T03:14:00Z")), []);
    assert_eq!(swarm.due(at("2026-03-02T03:15:00Z")).len(), 1);
}

/// An application that is restarted by schedule.
fn restarted(name: &str, schedule: &str) -> Service {
    let mut service = testing::service(name);
    service.spec["Labels"] = json!({ "skep.enable": "true", "skep.restart.schedule": schedule });
    service.spec["Mode"] = json!({ "Replicated": { "Replicas": 2 } });
    service
}

#[test]
fn a_restart_begins_at_its_time_once_and_is_left_out_when_it_is_late() {
    let mut swarm = Swarm::of(vec![restarted("shop_app", "0 4 * * SUN")]);
    swarm.rules.spread = Duration::from_secs(3600);
    assert_eq!(swarm.due(at("2026-03-01T03:59:59Z")), []);
    let due = swarm.due(at("2026-03-01T04:00:00Z"));
    let [(id, intent)] = due.as_slice() else { panic!("{due:?}") };
    assert!(matches!(intent.work, Work::Restart { whole: false, force: false, wait_s: Some(900), .. }));
    assert_eq!(swarm.due(at("2026-03-01T04:59:59Z"))[0].0, *id, "whoever computes it, and whenever");
    assert_eq!(swarm.due(at("2026-03-01T05:00:00Z")), [], "nobody expects it any more");
    // What it found it would find again.
    for state in [State::Running, State::Failed, State::RolledBack, State::Succeeded, State::Cancelled] {
        let mut done = Swarm::of(swarm.services.clone());
        let journal = Journal::new(state);
        let (id, intent) = due[0].clone();
        done.operations.push(Operation { config: id.config_name(), id, version: 1, intent, journal });
        assert_eq!(done.due(at("2026-03-01T04:30:00Z")), [], "{state:?}");
        assert_eq!(done.due(at("2026-03-08T04:00:00Z")).len(), usize::from(state.is_terminal()), "{state:?}");
    }
}

#[test]
fn what_sleeps_is_not_restarted_and_no_more_restart_at_once_than_there_is_room_for() {
    let now = at("2026-03-01T04:00:00Z");
    let mut asleep = restarted("shop_app", "0 4 * * SUN");
    asleep.spec["Mode"]["Replicated"]["Replicas"] = json!(0);
    assert_eq!(Swarm::of(vec![asleep]).due(now), []);
    let many = ["a", "b", "c", "d"].map(|name| restarted(name, "0 4 * * SUN"));
    let mut swarm = Swarm::of(many.to_vec());
    assert_eq!(swarm.due(now).len(), 2);
    let mut running = testing::op("e", Errand::Restart.work(), "2026-03-01T03:59:00Z", State::Running);
    running.intent.service_id = "e-id".to_owned();
    swarm.operations.push(running);
    assert_eq!(swarm.due(now).len(), 1);
}
