//! The event stream.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Rig, encode};

super::facts![
    changes_of_objects_are_events_without_their_content,
    rollouts_are_events_and_tasks_are_not,
    a_label_filter_matches_no_event,
    events_since_a_moment_are_told_again,
];

fn path(filters: &Value, since: Option<&str>) -> String {
    let since = since.map(|s| format!("&since={s}")).unwrap_or_default();
    format!("/events?filters={}{since}", encode(&filters.to_string()))
}

/// The events of this case's own objects, as `type action` with what the attributes say, until it is quiet.
async fn seen(rig: &Rig, lines: &mut crate::raw::Lines, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    while let Some(event) = lines.next(Duration::from_secs(10)).await {
        let name = event["Actor"]["Attributes"]["name"].as_str().unwrap_or_default();
        if name.starts_with(&rig.name("")) {
            events.push(event);
        }
        if events.len() == count {
            break;
        }
    }
    events
}

fn short(events: &[Value]) -> Vec<String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    events.iter().map(|e| format!("{} {}", text(&e["Type"]), text(&e["Action"]))).collect()
}

async fn changes_of_objects_are_events_without_their_content(rig: Rig) {
    let mut lines = rig.raw.lines(&path(&json!({ "scope": ["swarm"] }), None)).await.expect("a stream");
    let id = rig.store("configs", "c", "x", &[]).await;
    let config = rig.get(&format!("/configs/{id}")).await;
    let update = format!("/configs/{id}/update?version={}", super::version_of(&config));
    rig.post(&update, &config["Spec"]).await;
    rig.delete(&format!("/configs/{id}")).await;
    let events = seen(&rig, &mut lines, 3).await;
    assert_eq!(short(&events), ["config create", "config update", "config remove"]);
    assert_eq!(events[1]["Actor"], json!({ "ID": id, "Attributes": { "name": rig.name("c") } }));
    assert_eq!(events[1]["scope"], "swarm");
    assert!(events[0]["timeNano"].as_u64() < events[2]["timeNano"].as_u64() || rig.simulated);
}

async fn rollouts_are_events_and_tasks_are_not(rig: Rig) {
    let mut lines = rig.raw.lines(&path(&json!({ "scope": ["swarm"] }), None)).await.expect("a stream");
    rig.create(&rig.spec("web", &["serve"])).await;
    rig.running("web", 1).await;
    rig.changed("web", |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    rig.rolled("web", "completed").await;
    rig.changed("web", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    rig.delete(&format!("/services/{}", rig.name("web"))).await;
    let mut events = seen(&rig, &mut lines, 1).await;
    while events.last().is_some_and(|e| e["Action"] != "remove") {
        events.extend(seen(&rig, &mut lines, 1).await);
    }
    assert!(events.iter().all(|e| e["Type"] == "service"), "{:?}", short(&events));
    let told: Vec<&Value> = events.iter().map(|e| &e["Actor"]["Attributes"]["updatestate.new"]).collect();
    let at = |state: &str| told.iter().position(|t| **t == state).unwrap_or_else(|| panic!("no {state}"));
    assert!(at("updating") < at("completed"));
    let scaled = |e: &Value| e["Actor"]["Attributes"]["replicas.new"] == "0";
    assert!(events.iter().any(scaled), "{events:?}");
}

async fn a_label_filter_matches_no_event(rig: Rig) {
    let filters = json!({ "scope": ["swarm"], "label": [format!("{}={}", super::LABEL, rig.prefix)] });
    let mut lines = rig.raw.lines(&path(&filters, None)).await.expect("a stream");
    rig.store("configs", "c", "x", &[]).await;
    assert_eq!(lines.next(Duration::from_secs(1)).await, None);
}

async fn events_since_a_moment_are_told_again(rig: Rig) {
    let filters = json!({ "type": ["config"] });
    let mut lines = rig.raw.lines(&path(&filters, None)).await.expect("a stream");
    rig.store("configs", "one", "x", &[]).await;
    let first = seen(&rig, &mut lines, 1).await.remove(0);
    tokio::time::sleep(Duration::from_millis(5)).await;
    rig.store("configs", "two", "x", &[]).await;
    let nanos = first["timeNano"].as_u64().expect("it has a time") + 1;
    let since = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let mut again = rig.raw.lines(&path(&filters, Some(&since))).await.expect("a stream");
    let told = seen(&rig, &mut again, 1).await;
    assert_eq!(told[0]["Actor"]["Attributes"]["name"], json!(rig.name("two")), "`one` is not told again");
}
