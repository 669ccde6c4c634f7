use serde_json::json;

use super::super::testing::{op, service, task};
use super::*;
use crate::operation::client_spec::{scaled, zero};
use crate::operation::sleeper::Sleeper;
use crate::swarm::object::TaskState;

/// Down at 20:00, up at 07:00, UTC.
fn app(name: &str) -> Service {
    let mut app = service(name);
    app.spec["Mode"] = json!({ "Replicated": { "Replicas": 3 } });
    app.spec["Labels"][DOWN] = json!("0 20 * * *");
    app.spec["Labels"][UP] = json!("0 7 * * *");
    app
}

fn at(text: &str) -> Timestamp {
    format!("2026-03-{text}:00Z").parse().unwrap()
}

/// The service asleep, and what was written down of it.
fn asleep(service: &Service, since: &str) -> (Service, Slept) {
    let sleeper = Sleeper {
        config: "sleep-config".to_owned(),
        service: service.name().to_owned(),
        service_id: service.id.clone(),
        op: OpId::parse("20260301t200000abcdef").unwrap(),
        since: at(since),
        replicas: service.replicas(),
        left: 0,
    };
    let slept = Slept { sleeper, spec: service.spec.clone(), waker: None };
    (Service { spec: zero(&service.spec), version: 2, ..service.clone() }, slept)
}

/// Of which nobody knows whether anybody uses them, and that no waker stood in for.
fn seen<'a>(services: &'a [Service], operations: &'a [Operation]) -> Seen<'a> {
    static NOBODY: BTreeSet<String> = BTreeSet::new();
    static NEVER: BTreeMap<String, Timestamp> = BTreeMap::new();
    Seen { services, operations, sleepers: &[], unused: &NOBODY, used: &NOBODY, attended: &NEVER }
}

fn asked(
    services: &[Service],
    operations: &[Operation],
    sleepers: &[Slept],
    now: &str,
) -> Vec<(String, Work, Trigger)> {
    let asked = super::sleepers(&Seen { sleepers, ..seen(services, operations) }, at(now));
    asked.into_iter().map(|(_, i)| (i.service, i.work, i.trigger)).collect()
}

fn works(services: &[Service], sleepers: &[Slept], now: &str) -> Vec<(String, Work)> {
    asked(services, &[], sleepers, now).into_iter().map(|(service, work, _)| (service, work)).collect()
}

const SLEEP: Work = Work::Sleep { above: Above::Alone };

fn scheduled(key: &str, due: &str) -> Trigger {
    Trigger::Schedule { key: key.to_owned(), due: at(due) }
}

#[test]
fn a_service_falls_asleep_and_wakes_by_its_schedules() {
    let app = app("shop_app");
    let up = [app.clone()];
    assert_eq!(asked(&up, &[], &[], "02T19:59"), []);
    assert_eq!(
        asked(&up, &[], &[], "02T20:00"),
        [("shop_app".to_owned(), SLEEP, scheduled(DOWN, "02T20:00"))]
    );
    let (down, sleeper) = asleep(&app, "02T20:01");
    let (down, sleepers) = ([down], [sleeper]);
    assert_eq!(asked(&down, &[], &sleepers, "03T06:59"), []);
    let woken = [("shop_app".to_owned(), Work::Wake, scheduled(UP, "03T07:00"))];
    assert_eq!(asked(&down, &[], &sleepers, "03T07:00"), woken);
}

#[test]
fn of_times_that_were_missed_the_newest_counts() {
    let app = app("shop_app");
    // Three nights without anybody to look: by day it stays up, at night it sleeps.
    assert_eq!(works(std::slice::from_ref(&app), &[], "05T12:00"), []);
    assert_eq!(works(std::slice::from_ref(&app), &[], "05T23:00"), [("shop_app".to_owned(), SLEEP)]);
    let (down, sleeper) = asleep(&app, "02T20:01");
    assert_eq!(
        works(std::slice::from_ref(&down), std::slice::from_ref(&sleeper), "05T12:00"),
        [("shop_app".to_owned(), Work::Wake)]
    );
    assert_eq!(works(&[down], &[sleeper], "05T23:00"), [], "it sleeps, and is to sleep");
}

#[test]
fn a_time_is_met_once_and_never_for_a_service_that_came_after_it() {
    let mut app = app("shop_app");
    let mut slept = op("shop_app", SLEEP, "2026-03-02T20:00:00Z", State::Succeeded);
    slept.intent.trigger = scheduled(DOWN, "02T20:00");
    // A person has woken it since: it stays up until tomorrow.
    assert_eq!(asked(&[app.clone()], std::slice::from_ref(&slept), &[], "02T23:00"), []);
    assert_eq!(asked(&[app.clone()], &[slept], &[], "03T20:00").len(), 1);
    app.created = at("02T20:30");
    assert_eq!(asked(&[app], &[], &[], "02T23:00"), []);
}

/// It slept already when the time came, so that no operation was asked for then.
#[test]
fn what_was_woken_since_a_time_is_not_put_to_sleep_on_its_account() {
    let services = [app("shop_app"), app("shop_db")];
    let mut woken = op("shop_app", Work::Wake, "2026-03-02T21:00:00Z", State::Succeeded);
    let now = woken.intent.created;
    woken.journal.step_mut("claim", now).out = json!({ "services": ["shop_app", "shop_db"] });
    assert_eq!(asked(&services, std::slice::from_ref(&woken), &[], "02T21:01"), []);
    assert_eq!(asked(&services, &[woken], &[], "03T20:00").len(), 2, "the next time is another one");
}

#[test]
fn what_failed_is_tried_again_later_and_later_and_what_a_person_ended_is_not() {
    let (app, sleeper) = asleep(&app("shop_app"), "02T20:01");
    let (app, sleepers) = ([app], [sleeper]);
    let mut failed = op("shop_app", Work::Wake, "2026-03-03T07:00:00Z", State::Failed);
    failed.intent.trigger = scheduled(UP, "03T07:00");
    failed.journal.ended = Some(at("03T07:02"));
    assert_eq!(asked(&app, std::slice::from_ref(&failed), &sleepers, "03T07:02"), []);
    assert_eq!(asked(&app, std::slice::from_ref(&failed), &sleepers, "03T07:03").len(), 1);
    let mut again = failed.clone();
    again.id = OpId::new(at("03T07:03"), "again");
    again.journal.ended = Some(at("03T07:05"));
    let both = [failed.clone(), again];
    assert_eq!(asked(&app, &both, &sleepers, "03T07:09"), []);
    assert_eq!(asked(&app, &both, &sleepers, "03T07:10").len(), 1);
    failed.journal.state = State::Cancelled;
    assert_eq!(asked(&app, &[failed], &sleepers, "03T12:00"), []);
}

#[test]
fn a_change_of_replicas_alone_wakes_and_a_deploy_does_not() {
    let up = app("shop_app");
    let (_, sleeper) = asleep(&up, "02T20:01");
    let sleepers = [sleeper];
    let mut by_hand = up.clone();
    by_hand.spec["Mode"]["Replicated"]["Replicas"] = json!(1);
    assert_eq!(works(&[by_hand], &sleepers, "02T22:00"), [("shop_app".to_owned(), Work::Wake)]);
    let mut deployed = up.clone();
    deployed.spec["TaskTemplate"] = json!({ "ContainerSpec": { "Image": "app:2" } });
    assert_eq!(works(&[deployed.clone()], &sleepers, "02T22:00"), [("shop_app".to_owned(), SLEEP)]);
    // In the morning it is to be up anyway.
    assert_eq!(works(&[deployed.clone()], &sleepers, "03T07:30"), [("shop_app".to_owned(), Work::Wake)]);
    deployed.spec["Labels"]["skep.scale.on-deploy"] = json!("wake");
    assert_eq!(works(&[deployed.clone()], &sleepers, "02T22:00"), [("shop_app".to_owned(), Work::Wake)]);
    // Nothing would wake it again.
    for label in [UP, DOWN, "skep.scale.on-deploy"] {
        deployed.spec["Labels"].as_object_mut().unwrap().remove(label);
    }
    assert_eq!(works(&[deployed], &sleepers, "02T22:00"), [("shop_app".to_owned(), Work::Wake)]);
}

#[test]
fn a_proxy_that_has_no_labels_of_sleep_keeps_nothing_awake() {
    let mut proxy = service("proxy");
    proxy.spec["Labels"]["skep.depends-on"] = json!("app");
    proxy.spec["Mode"] = json!({ "Replicated": { "Replicas": 1 } });
    assert_eq!(works(&[proxy, app("app")], &[], "02T20:00"), [("app".to_owned(), SLEEP)]);
}

#[test]
fn nothing_falls_asleep_under_what_needs_it_and_what_is_needed_wakes_with_what_needs_it() {
    let mut web = app("web");
    web.spec["Labels"]["skep.depends-on"] = json!("app");
    let mut app_ = app("app");
    app_.spec["Labels"]["skep.depends-on"] = json!("db");
    let db = app("db");
    let all = [web.clone(), app_.clone(), db.clone()];
    assert_eq!(works(&all, &[], "02T20:00"), [("web".to_owned(), SLEEP)]);
    let (web, first) = asleep(&web, "02T20:01");
    assert_eq!(works(&[web.clone(), app_.clone(), db.clone()], &[], "02T20:01"), [("app".to_owned(), SLEEP)]);
    let (app_, second) = asleep(&app_, "02T20:02");
    let (db, third) = asleep(&db, "02T20:03");
    let woken = works(&[web, app_, db], &[first, second, third], "03T07:00");
    assert_eq!(woken, [("web".to_owned(), Work::Wake)]);
}

#[test]
fn a_service_whose_backup_would_come_due_in_its_sleep_is_backed_up_before() {
    let mut db = app("db");
    db.spec["Labels"]["skep.data"] = json!("postgres");
    db.spec["Labels"]["skep.backup.schedule"] = json!("0 2 * * *");
    let services = [db.clone()];
    assert_eq!(works(&services, &[], "02T20:00"), [("db".to_owned(), Work::Backup)]);
    let asked_for = sleepers(&seen(&services, &[]), at("02T20:00"));
    let mut backup = op("db", Work::Backup, "2026-03-02T20:00:00Z", State::Running);
    backup.id = asked_for[0].0.clone();
    assert_eq!(asked(&services, std::slice::from_ref(&backup), &[], "02T20:05"), [], "it has the service");
    // It falls asleep all the same when the backup failed: that is told by the backup.
    backup.journal.state = State::Failed;
    assert_eq!(asked(&services, &[backup], &[], "02T20:06").first().map(|a| a.1.clone()), Some(SLEEP));
    db.spec["Labels"]["skep.backup.schedule"] = json!("0 12 * * *");
    assert_eq!(works(&[db], &[], "02T20:00"), [("db".to_owned(), SLEEP)]);
}

#[test]
fn a_service_that_is_paused_held_or_scaled_to_zero_by_a_person_is_left_alone() {
    let mut paused = app("shop_app");
    paused.spec["Labels"]["skep.paused"] = json!("true");
    assert_eq!(works(std::slice::from_ref(&paused), &[], "02T20:00"), []);
    let (down, sleeper) = asleep(&paused, "02T20:01");
    assert_eq!(works(&[down], std::slice::from_ref(&sleeper), "03T07:00"), []);
    let mut deployed = paused;
    deployed.spec["TaskTemplate"] = json!({ "ContainerSpec": { "Image": "app:2" } });
    assert_eq!(
        works(&[deployed], &[sleeper], "02T22:00"),
        [("shop_app".to_owned(), Work::Wake)],
        "it is left up"
    );
    let held = op("shop_app", Work::Maintenance { until: None }, "2026-03-02T19:00:00Z", State::Running);
    assert_eq!(asked(&[app("shop_app")], &[held], &[], "02T20:00"), []);
    let zero = Service { spec: zero(&app("shop_app").spec), ..app("shop_app") };
    assert_eq!(works(&[zero], &[], "02T20:00"), []);
}

/// Falls asleep after a quarter of an hour without use, and wakes when somebody asks.
fn idler(name: &str) -> Service {
    let mut app = service(name);
    for (key, value) in [
        ("skep.scale.idle.query", "x"),
        ("skep.scale.idle.after", "15m"),
        ("skep.scale.wake", "true"),
        ("skep.scale.wake.port", "80"),
    ] {
        app.spec["Labels"][key] = json!(value);
    }
    app
}

fn idle(services: &[Service], operations: &[Operation], unused: &[&str], now: &str) -> Vec<(String, Work)> {
    let unused = unused.iter().map(|name| (*name).to_owned()).collect();
    let seen = Seen { unused: &unused, ..seen(services, operations) };
    sleepers(&seen, at(now)).into_iter().map(|(_, i)| (i.service, i.work)).collect()
}

#[test]
fn what_nobody_uses_falls_asleep_once_it_was_left_alone_for_as_long() {
    let app = [idler("shop_app")];
    let asleep = [("shop_app".to_owned(), SLEEP)];
    assert_eq!(idle(&app, &[], &[], "02T12:00"), []);
    assert_eq!(idle(&app, &[], &["shop_app"], "02T12:00"), asleep);
    let mut woken = op("shop_app", Work::Wake, "2026-03-02T11:40:00Z", State::Succeeded);
    woken.journal.ended = Some(at("02T11:50"));
    let woken = [woken];
    assert_eq!(
        idle(&app, &woken, &["shop_app"], "02T12:04"),
        [],
        "whoever woke it may not have come back yet"
    );
    assert_eq!(idle(&app, &woken, &["shop_app"], "02T12:05"), asleep);
    let mut paused = idler("shop_app");
    paused.spec["Labels"]["skep.paused"] = json!("true");
    assert_eq!(idle(&[paused], &[], &["shop_app"], "02T12:00"), []);
}

/// A waker that was told to leave, in this state since then.
fn waker_of(service: &Service, state: TaskState, since: &str) -> Task {
    let mut waker = task(service, state);
    waker.spec = json!({ "ContainerSpec": { "Labels": { "skep.waker": service.name() } } });
    (waker.desired, waker.changed) = (TaskState::Shutdown, at(since));
    waker
}

/// What the expression does not count, such as a WebSocket, may still be open through the waker that it woke.
#[test]
fn nothing_falls_asleep_for_want_of_use_while_its_waker_passes_something_nor_soon_after() {
    let app = idler("shop_app");
    let unused = BTreeSet::from(["shop_app".to_owned()]);
    let works = |tasks: &[Task], now: &str| {
        let (services, attended) = ([app.clone()], attended(tasks, at(now)));
        let seen = Seen { unused: &unused, attended: &attended, ..seen(&services, &[]) };
        sleepers(&seen, at(now)).into_iter().map(|(_, i)| i.work).collect::<Vec<_>>()
    };
    let open = waker_of(&app, TaskState::Running, "02T11:00");
    let left = waker_of(&app, TaskState::Shutdown, "02T12:00");
    let earlier = waker_of(&app, TaskState::Shutdown, "02T08:00");
    assert_eq!(works(&[earlier.clone(), open, earlier.clone()], "02T23:00"), []);
    assert_eq!(works(&[left.clone(), earlier.clone()], "02T12:14"), []);
    assert_eq!(works(&[earlier, left], "02T12:15"), [SLEEP]);
    let own = task(&app, TaskState::Running);
    assert_eq!(works(&[own], "02T12:15"), [SLEEP], "tasks of its own are no waker");
}

#[test]
fn what_needs_it_falls_asleep_before_what_nobody_uses() {
    let mut app = idler("shop_app");
    app.spec["Labels"]["skep.depends-on"] = json!("shop_db");
    let both = [app, idler("shop_db")];
    let unused = ["shop_app", "shop_db"];
    assert_eq!(idle(&both, &[], &unused, "02T12:00"), [("shop_app".to_owned(), SLEEP)]);
    assert_eq!(idle(&both, &[], &["shop_db"], "02T12:00"), [], "the application is awake and may ask for it");
}

#[test]
fn what_nobody_uses_is_backed_up_before_once_since_it_woke() {
    let mut db = idler("shop_db");
    db.spec["Labels"]["skep.data"] = json!("postgres");
    db.spec["Labels"]["skep.backup.schedule"] = json!("0 3 * * *");
    let db = [db];
    assert_eq!(idle(&db, &[], &["shop_db"], "02T12:00"), [("shop_db".to_owned(), Work::Backup)]);
    let ended = |work: Work, created: &str, at: Timestamp| {
        let mut op = op("shop_db", work, created, State::Succeeded);
        op.journal.ended = Some(at);
        op
    };
    let backed_up = ended(Work::Backup, "2026-03-02T12:00:00Z", at("02T12:01"));
    assert_eq!(
        idle(&db, std::slice::from_ref(&backed_up), &["shop_db"], "02T12:20"),
        [("shop_db".to_owned(), SLEEP)]
    );
    let woken = ended(Work::Wake, "2026-03-02T13:00:00Z", at("02T13:01"));
    assert_eq!(
        idle(&db, &[backed_up, woken], &["shop_db"], "02T14:00"),
        [("shop_db".to_owned(), Work::Backup)]
    );
}

/// Keeps one of three replicas by night.
fn keeper(name: &str) -> Service {
    let mut app = app(name);
    app.spec["Labels"]["skep.scale.min"] = json!("1");
    app
}

/// As [`asleep`], with the replica that it keeps.
fn reduced(service: &Service, since: &str) -> (Service, Slept) {
    let (_, mut slept) = asleep(service, since);
    slept.sleeper.left = 1;
    (Service { spec: scaled(&service.spec, 1), version: 2, ..service.clone() }, slept)
}

#[test]
fn what_keeps_replicas_goes_down_to_them_and_up_again_by_the_same_rules() {
    let app = keeper("shop_app");
    assert_eq!(works(std::slice::from_ref(&app), &[], "02T20:00"), [("shop_app".to_owned(), SLEEP)]);
    let (low, slept) = reduced(&app, "02T20:01");
    let (lows, sleepers) = ([low.clone()], [slept]);
    assert_eq!(works(&lows, &sleepers, "02T22:00"), [], "it is as low as it goes");
    assert_eq!(works(&lows, &sleepers, "03T07:00"), [("shop_app".to_owned(), Work::Wake)]);
    let mut by_hand = low.clone();
    by_hand.spec["Mode"]["Replicated"]["Replicas"] = json!(2);
    assert_eq!(works(&[by_hand], &sleepers, "02T22:00"), [("shop_app".to_owned(), Work::Wake)]);
    let mut deployed = app.clone();
    deployed.spec["TaskTemplate"] = json!({ "ContainerSpec": { "Image": "app:2" } });
    assert_eq!(works(&[deployed], &sleepers, "02T22:00"), [("shop_app".to_owned(), SLEEP)]);
    let mut few = app;
    few.spec["Mode"]["Replicated"]["Replicas"] = json!(1);
    assert_eq!(works(&[few], &[], "02T20:00"), [], "it has no more than it keeps");
}

#[test]
fn what_keeps_replicas_waits_for_what_is_not_as_low_as_it_goes_and_what_does_not_for_what_is_awake() {
    let mut app = keeper("app");
    app.spec["Labels"]["skep.depends-on"] = json!("db");
    let (low, slept) = reduced(&app, "02T20:01");
    for (db, then) in [(keeper("db"), vec![("db".to_owned(), SLEEP)]), (self::app("db"), vec![])] {
        assert_eq!(works(&[app.clone(), db.clone()], &[], "02T20:00"), [("app".to_owned(), SLEEP)]);
        assert_eq!(works(&[low.clone(), db], std::slice::from_ref(&slept), "02T20:02"), then);
    }
}

#[test]
fn what_keeps_replicas_is_scaled_up_once_it_is_used() {
    let mut app = service("shop_app");
    app.spec["Mode"] = json!({ "Replicated": { "Replicas": 3 } });
    for (key, value) in
        [("skep.scale.idle.query", "x"), ("skep.scale.idle.after", "15m"), ("skep.scale.min", "1")]
    {
        app.spec["Labels"][key] = json!(value);
    }
    assert_eq!(
        idle(std::slice::from_ref(&app), &[], &["shop_app"], "02T12:00"),
        [("shop_app".to_owned(), SLEEP)]
    );
    let (low, slept) = reduced(&app, "02T12:01");
    let (services, sleepers) = ([low], [slept]);
    let works = |used: &[&str], unused: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<String>>();
        let (used, unused) = (names(used), names(unused));
        let seen = Seen { sleepers: &sleepers, unused: &unused, used: &used, ..seen(&services, &[]) };
        super::sleepers(&seen, at("02T12:10")).into_iter().map(|(_, i)| i.work).collect::<Vec<_>>()
    };
    assert_eq!(works(&[], &[]), [], "nobody knows");
    assert_eq!(works(&[], &["shop_app"]), []);
    assert_eq!(works(&["shop_app"], &[]), [Work::Wake]);
}

#[test]
fn what_a_person_put_to_sleep_by_hand_goes_back_to_sleep_by_no_label_alone() {
    let mut app = service("shop_app");
    app.spec["Mode"] = json!({ "Replicated": { "Replicas": 3 } });
    app.spec["Labels"]["skep.scale.min"] = json!("1");
    let (_, slept) = reduced(&app, "02T12:01");
    app.spec["TaskTemplate"] = json!({ "ContainerSpec": { "Image": "app:2" } });
    assert_eq!(
        works(&[app], &[slept], "02T13:00"),
        [("shop_app".to_owned(), Work::Wake)],
        "nothing would wake it"
    );
}
