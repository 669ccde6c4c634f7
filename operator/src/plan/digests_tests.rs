use serde_json::{Value, json};

use super::super::testing::{deployed, op};
use super::*;
use crate::operation::record::StepState;

const OLD: &str = "sha256:0000";
const NEW: &str = "sha256:1111";
/// A Sunday, half an hour after the window has opened.
const NOW: &str = "2026-03-01T02:30:00Z";
const WINDOW: &str = "0 2 * * SUN for 2h";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// One whose image is followed.
fn service(name: &str, image: &str) -> Service {
    deployed(name, image, &json!({ "skep.update.watch": "true", "skep.update.window": WINDOW }))
}

fn shop() -> Vec<Service> {
    let app = format!("app:1@{OLD}");
    vec![service("shop_web", &app), service("shop_worker", &app), service("wiki_web", &app)]
}

/// The names of what is looked up, group by group.
fn looked(services: &[Service], operations: &[Operation], now: &str) -> Vec<String> {
    let groups = groups(services, operations, &BTreeSet::new(), at(now));
    let names = |group: &Group<'_>| group.services.iter().map(|s| s.name()).collect::<Vec<_>>().join(" ");
    groups.iter().map(|group| format!("{}: {}", group.tagged, names(group))).collect()
}

/// What the services of the first group get.
fn wanted(services: &[Service], digest: &str, operations: &[Operation], now: &str) -> Option<Intent> {
    let groups = groups(services, operations, &BTreeSet::new(), at(now));
    groups.first()?.update(digest, operations, at(now)).map(|(_, intent)| intent)
}

fn names(intent: &Intent) -> Vec<&str> {
    intent.services().map(|(name, _)| name).collect()
}

#[test]
fn services_of_a_stack_that_run_the_same_tag_are_one_and_nothing_is_looked_up_outside_of_the_window() {
    assert_eq!(looked(&shop(), &[], NOW), ["app:1: shop_web shop_worker", "app:1: wiki_web"]);
    for shut in ["2026-03-01T01:59:59Z", "2026-03-01T04:00:00Z", "2026-03-02T02:30:00Z"] {
        assert_eq!(looked(&shop(), &[], shut), [] as [String; 0], "{shut}");
    }
    let mut services = shop();
    services[0].spec["Labels"]["skep.update.window"] = json!("0 3 * * SUN for 2h");
    assert_eq!(looked(&services, &[], NOW), ["app:1: wiki_web"], "its window is not open yet");
    assert_eq!(looked(&services, &[], "2026-03-01T03:10:00Z")[0], "app:1: shop_web shop_worker");
    services[0].spec["Labels"].as_object_mut().unwrap().remove("skep.update.window");
    assert_eq!(looked(&services, &[], NOW)[0], "app:1: shop_web shop_worker", "it may at any time");
}

#[test]
fn what_has_no_label_or_is_paused_or_asleep_or_names_a_digest_alone_is_left_out() {
    let mut services = shop();
    services[0].spec["Labels"]["skep.update.watch"] = json!("false");
    services[0].spec["Labels"].as_object_mut().unwrap().remove("skep.update.window");
    assert_eq!(looked(&services, &[], NOW)[0], "app:1: shop_worker");
    services[1].spec["Labels"]["skep.paused"] = json!("true");
    services[2].spec["Mode"]["Replicated"]["Replicas"] = json!(0);
    services.push(service("shop_pinned", &format!("app@{OLD}")));
    services.push(service("shop_latest", "docker.io/library/nginx"));
    assert_eq!(looked(&services, &[], NOW), ["docker.io/library/nginx:latest: shop_latest"]);
}

#[test]
fn what_something_else_has_or_is_being_rolled_out_is_waited_for_with_all_that_goes_with_it() {
    let busy = op("shop_worker", Work::Backup, NOW, State::Running);
    assert_eq!(looked(&shop(), &[busy], NOW), ["app:1: wiki_web"]);
    let mut services = shop();
    let state = crate::swarm::object::UpdateState::Updating;
    services[0].update = Some(crate::swarm::object::UpdateStatus { state, message: String::new() });
    assert_eq!(looked(&services, &[], NOW), ["app:1: wiki_web"]);
}

#[test]
fn another_digest_is_one_update_of_all_that_do_not_run_it_yet() {
    let mut services = shop();
    assert_eq!(wanted(&services, OLD, &[], NOW), None);
    let intent = wanted(&services, NEW, &[], NOW).unwrap();
    assert_eq!(names(&intent), ["shop_web", "shop_worker"]);
    let Work::Update { image, force, wait_s, .. } = &intent.work else { panic!("{intent:?}") };
    assert_eq!((image.as_str(), *force, *wait_s), ("app:1@sha256:1111", false, Some(WAITS_S)));
    assert_eq!(intent.trigger, Trigger::Schedule { key: KEY.to_owned(), due: at("2026-03-01T02:00:00Z") });
    spec::set_image(&mut services[0].spec, "app:1@sha256:1111");
    assert_eq!(names(&wanted(&services, NEW, &[], NOW).unwrap()), ["shop_worker"]);
    // Nobody knows what it runs.
    spec::set_image(&mut services[0].spec, "app:1");
    assert_eq!(names(&wanted(&services, NEW, &[], NOW).unwrap()), ["shop_web", "shop_worker"]);
}

#[test]
fn two_leaders_ask_for_the_same_and_another_digest_is_another_operation() {
    let services = shop();
    let id = |digest: &str, now: &str| {
        let groups = groups(&services, &[], &BTreeSet::new(), at(now));
        groups[0].update(digest, &[], at(now)).unwrap().0
    };
    assert_eq!(id(NEW, NOW), id(NEW, "2026-03-01T03:50:00Z"));
    assert_ne!(id(NEW, NOW), id("sha256:2222", NOW));
    assert_ne!(id(NEW, NOW), id(NEW, "2026-03-08T02:30:00Z"));
}

/// An operation that asked for the new digest, when the window was open a week before.
fn tried(state: State, apply: Value) -> Operation {
    let work = wanted(&shop(), NEW, &[], NOW).unwrap().work;
    let mut op = op("shop_web", work, "2026-02-22T02:10:00Z", state);
    let now = op.intent.created;
    let record = op.journal.step_mut("apply", now);
    (record.state, record.out) = (StepState::Undone, apply);
    op
}

#[test]
fn a_digest_is_tried_once_unless_it_could_not_even_begin() {
    let services = shop();
    let again = |op: Operation| wanted(&services, NEW, &[op], NOW).is_some();
    let back = json!({ "at": "2026-02-22T02:11:00Z", "over": 1, "back": "2026-02-22T02:12:00Z" });
    let left = json!({ "at": "2026-02-22T02:11:00Z", "over": 1, "left": true });
    assert!(!again(tried(State::RolledBack, back.clone())), "it did not do");
    assert!(!again(tried(State::Failed, left)));
    assert!(!again(tried(State::Cancelled, back)), "a person has thought better of it");
    assert!(!again(tried(State::Succeeded, Value::Null)), "somebody has put the old one back since");
    assert!(again(tried(State::Failed, Value::Null)), "jobs were running, or the node was away");
    let mut now = tried(State::Failed, Value::Null);
    now.intent.created = at("2026-03-01T02:10:00Z");
    assert!(!again(now.clone()), "it has had its turn while this window is open");
    assert!(wanted(&services, "sha256:2222", &[now.clone()], NOW).is_some(), "that is another one");
    // Without a window a day later.
    let mut services = shop();
    for service in &mut services {
        service.spec["Labels"].as_object_mut().unwrap().remove("skep.update.window");
    }
    assert!(wanted(&services, NEW, &[now.clone()], "2026-03-01T20:00:00Z").is_none());
    assert!(wanted(&services, NEW, &[now], "2026-03-02T02:30:00Z").is_some());
}

#[test]
fn no_more_than_two_of_them_go_on_at_once() {
    let mut op = tried(State::Running, Value::Null);
    assert_eq!(room(std::slice::from_ref(&op)), 2, "a person asked for it");
    op.intent.trigger = Trigger::Schedule { key: KEY.to_owned(), due: at(NOW) };
    assert_eq!(room(&[op.clone(), op.clone()]), 0);
    op.journal.state = State::Succeeded;
    assert_eq!(room(&[op]), 2);
}
