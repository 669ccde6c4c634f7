use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::operation::record::StepState;
use crate::plan::testing::op;

fn base() -> Value {
    json!({
        "Name": "shop_app",
        "Labels": { "skep.enable": "true" },
        "TaskTemplate": { "ContainerSpec": { "Image": "app:1" }, "ForceUpdate": 2 },
        "Mode": { "Replicated": { "Replicas": 2 } },
    })
}

fn change() -> Change {
    Change { base: base(), image: "app:2".to_owned(), order: Order::StartFirst, with_data: false }
}

#[test]
fn only_the_image_changes_and_the_update_settings_for_a_while() {
    let change = change();
    let written = change.written();
    assert_eq!(written["UpdateConfig"]["Order"], "start-first");
    assert_eq!(change.settled().get("UpdateConfig"), None);
    let mut settled = change.settled();
    spec::set_image(&mut settled, "app:1");
    assert_eq!(settled, base());
}

#[test]
fn a_service_is_told_from_what_somebody_else_made_of_it() {
    let change = change();
    for (spec, stands) in [
        (base(), Stands::Base),
        (change.settled(), Stands::Settled),
        (change.written(), Stands::Written),
        (change.returning(), Stands::Returning),
    ] {
        assert_eq!(change.stands(&spec), stands);
    }
    let edits: [fn(&mut Value); 4] = [
        |s| s["TaskTemplate"]["ForceUpdate"] = json!(3),
        |s| s["Mode"]["Replicated"]["Replicas"] = json!(3),
        |s| s["Labels"]["a"] = json!("b"),
        |s| spec::set_image(s, "app:3"),
    ];
    for edit in edits {
        let mut spec = change.settled();
        edit(&mut spec);
        assert_eq!(change.stands(&spec), Stands::Otherwise, "{spec}");
    }
}

fn task(id: &str, slot: u64, state: TaskState, error: &str, exit_code: Option<i64>) -> Task {
    Task {
        id: id.to_owned(),
        service: "s".to_owned(),
        node: Some("n1".to_owned()),
        slot,
        state,
        desired: TaskState::Shutdown,
        error: error.to_owned(),
        exit_code,
        image: "app:2".to_owned(),
        spec_version: None,
        spec: Value::Null,
        addresses: Vec::new(),
        created: Timestamp::UNIX_EPOCH,
        changed: Timestamp::UNIX_EPOCH,
    }
}

fn exit(id: &str, slot: u64, code: i64) -> Task {
    task(id, slot, TaskState::Failed, &format!("task: non-zero exit ({code})"), Some(code))
}

fn flag(tasks: &[Task]) -> Option<String> {
    red_flag(tasks.iter(), &mut Exits::new())
}

#[test]
fn one_task_that_is_not_healthy_is_a_red_flag() {
    let said = "task: non-zero exit (143): dockerexec: unhealthy container";
    let flag = flag(&[task("a", 1, TaskState::Failed, said, Some(143))]).unwrap();
    assert!(flag.contains("not healthy"), "{flag}");
}

#[test]
fn a_replica_that_ends_again_and_again_is_in_a_loop_and_several_that_end_once_are_not() {
    assert_eq!(flag(&[exit("a", 1, 1), exit("b", 2, 1), exit("c", 3, 1), exit("d", 1, 1)]), None);
    let found = flag(&[exit("a", 1, 1), exit("b", 1, 1), exit("c", 1, 1)]).unwrap();
    assert!(found.contains("restart loop"), "{found}");
    let complete = |id| task(id, 1, TaskState::Complete, "", Some(0));
    assert!(flag(&[complete("a"), complete("b"), complete("c")]).is_some(), "also where it ends well");
}

#[test]
fn a_replica_that_is_killed_twice_is_a_red_flag() {
    assert_eq!(flag(&[exit("a", 1, 137), exit("b", 2, 137)]), None, "an engine that restarts kills all");
    let found = flag(&[exit("a", 1, 137), exit("b", 1, 137)]).unwrap();
    assert!(found.contains("memory"), "{found}");
}

#[test]
fn what_was_killed_is_told_with_the_memory_that_it_may_have() {
    let template = json!({ "Resources": { "Limits": { "MemoryBytes": 64 << 20 } } });
    let limited = |id| Task { spec: template.clone(), ..exit(id, 1, 137) };
    let found = flag(&[limited("a"), limited("b")]).unwrap();
    assert!(found.ends_with("as where memory runs out (OOM), and its limit is 64 MiB"), "{found}");
    let told = explained("task: non-zero exit (137)", &template);
    assert!(told.starts_with("task: non-zero exit (137): ") && told.ends_with("64 MiB"), "{told}");
    assert_eq!(explained("task: non-zero exit (1)", &template), "task: non-zero exit (1)");
    assert!(explained("task: non-zero exit (137)", &Value::Null).ends_with("(OOM)"));
}

#[test]
fn exits_that_the_engine_has_forgotten_count() {
    let mut exits = Exits::new();
    for id in ["a", "b"] {
        assert_eq!(red_flag([exit(id, 1, 1)].iter(), &mut exits), None);
    }
    assert!(red_flag([exit("c", 1, 1)].iter(), &mut exits).is_some());
    assert_eq!(red_flag([].iter(), &mut Exits::new()), None);
}

#[test]
fn tasks_that_were_told_to_end_are_no_exits() {
    let told = |id| task(id, 1, TaskState::Shutdown, "", Some(137));
    assert_eq!(flag(&[told("a"), told("b"), told("c")]), None);
}

#[test]
fn checks_are_asked_at_equal_distances() {
    assert_eq!([0, 449, 450, 1799, 1800, 9999].map(|s| rounds_due(s, 1800)), [0, 0, 1, 3, 4, 4]);
    assert_eq!(rounds_due(0, 0), ROUNDS);
}

fn updated(image: &str, at: &str, state: State, apply: Value) -> Operation {
    let work = Work::Update {
        image: image.to_owned(),
        monitor_s: None,
        force: false,
        wait_s: None,
        also: Vec::new(),
    };
    let mut op = op("shop_app", work, at, state);
    let now = op.intent.created;
    let record = op.journal.step_mut("apply", now);
    (record.state, record.out) = (StepState::Undone, apply);
    op
}

#[test]
fn an_image_that_did_not_do_is_known_until_it_does() {
    let back = json!({ "at": "2026-03-01T10:00:00Z", "over": 1, "back": "2026-03-01T10:01:00Z" });
    let left = json!({ "at": "2026-03-01T10:00:00Z", "over": 1, "left": true });
    let bad = |ops: &[Operation]| known_bad(ops, "shop_app-id", "app:2").is_some();
    let [day1, day2] = ["2026-03-01T10:00:00Z", "2026-03-02T10:00:00Z"];
    let rolled_back = updated("app:2", day1, State::RolledBack, back.clone());
    assert!(bad(std::slice::from_ref(&rolled_back)));
    assert!(bad(&[updated("app:2", day1, State::Failed, left)]));
    assert!(!bad(&[updated("app:2", day1, State::Failed, json!({ "over": 1 }))]), "it was never written");
    assert!(
        !bad(&[updated("app:2", day1, State::Cancelled, back.clone())]),
        "a person has thought better of it"
    );
    assert!(!bad(&[updated("app:3", day1, State::RolledBack, back.clone())]));
    assert!(!bad(&[rolled_back.clone(), updated("app:2", day2, State::Succeeded, json!({ "over": 1 }))]));
    assert!(bad(&[rolled_back.clone(), updated("app:2", day2, State::Failed, Value::Null)]), "no news");
    assert!(known_bad(&[rolled_back], "another-id", "app:2").is_none());
}

#[test]
fn where_data_goes_back_with_it_the_swarm_does_not_take_it_back_alone() {
    let mut own = base();
    own["UpdateConfig"] = json!({ "Order": "start-first", "FailureAction": "rollback", "Monitor": 7 });
    let change = Change { base: own.clone(), ..change() };
    assert_eq!(change.written()["UpdateConfig"], own["UpdateConfig"], "nothing is lent for the image alone");
    let change = Change { with_data: true, ..change };
    let lent = json!({ "Order": "start-first", "FailureAction": "pause", "Monitor": 7 });
    assert_eq!(change.written()["UpdateConfig"], lent);
    assert_eq!(change.stands(&change.written()), Stands::Written);
    assert_eq!(change.given_back(&change.written()), Some(change.settled()));
    assert_eq!(change.settled()["UpdateConfig"], own["UpdateConfig"]);
}
