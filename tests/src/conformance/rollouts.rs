//! Rolling updates.

use serde_json::{Value, json};

use super::{Rig, desired, health, state, time};

super::facts![
    a_change_of_the_template_replaces_the_tasks,
    start_first_keeps_the_old_task_until_the_new_one_runs,
    stop_first_starts_the_new_task_after_the_old_one_stopped,
    every_task_at_once_with_parallelism_zero,
    a_failing_update_is_paused_and_the_old_task_stays,
    a_failing_update_is_rolled_back_with_the_whole_spec,
    a_write_during_a_rollout_overwrites_the_previous_spec,
    a_rollout_by_hand_goes_back_to_the_previous_spec,
    putting_the_old_template_back_during_a_rollout_ends_it,
    start_first_with_a_host_port_never_finishes,
];

fn image_arg(spec: &mut Value, args: &[&str]) {
    spec["TaskTemplate"]["ContainerSpec"]["Args"] = json!(args);
}

fn update_config(rig: &Rig, order: &str, action: &str) -> Value {
    let mut spec = rig.spec("web", &["serve"]);
    spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = health("0");
    spec["UpdateConfig"] = json!({
        "Parallelism": 1, "Order": order, "FailureAction": action, "Monitor": 2_000_000_000_u64,
    });
    spec
}

async fn started(rig: &Rig, spec: &Value) -> Value {
    rig.create(spec).await;
    rig.running("web", 1).await;
    rig.tasks("web").await.remove(0)
}

async fn a_change_of_the_template_replaces_the_tasks(rig: Rig) {
    let old = started(&rig, &rig.spec("web", &["serve"])).await;
    let before = rig.service("web").await;
    assert_eq!((before.get("UpdateStatus"), before.get("PreviousSpec")), (None, None));
    rig.changed("web", |spec| spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["A=1"])).await;
    rig.until("the rollout has begun", async || {
        rig.service("web").await["UpdateStatus"]["State"].is_string()
    })
    .await;
    rig.rolled("web", "completed").await;
    let after = rig.service("web").await;
    assert_eq!(after["PreviousSpec"], before["Spec"]);
    assert_eq!(after["UpdateStatus"]["Message"], "update completed");
    assert!(time(&after["UpdateStatus"]["CompletedAt"]) >= time(&after["UpdateStatus"]["StartedAt"]));
    let tasks = rig.tasks("web").await;
    assert_eq!(tasks[0]["ID"], old["ID"]);
    assert_eq!((state(&tasks[0]), desired(&tasks[0])), ("shutdown", "shutdown"));
    assert_eq!((state(&tasks[1]), &tasks[1]["Slot"]), ("running", &json!(1)));
    assert_eq!(tasks[1]["Spec"]["ContainerSpec"]["Env"], json!(["A=1"]));
}

async fn start_first_keeps_the_old_task_until_the_new_one_runs(rig: Rig) {
    let old = started(&rig, &update_config(&rig, "start-first", "pause")).await;
    rig.changed("web", |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    let mut gap = false;
    rig.until("the update is complete", async || {
        let tasks = rig.tasks("web").await;
        gap |= !tasks.iter().any(|t| state(t) == "running" && desired(t) == "running");
        rig.service("web").await["UpdateStatus"]["State"] == "completed"
    })
    .await;
    assert!(!gap, "one task ran at every moment");
    let tasks = rig.tasks("web").await;
    let old = tasks.iter().find(|t| t["ID"] == old["ID"]).expect("history keeps it");
    assert_eq!(desired(old), "shutdown");
}

async fn stop_first_starts_the_new_task_after_the_old_one_stopped(rig: Rig) {
    let old = started(&rig, &rig.spec("web", &["serve"])).await;
    rig.changed("web", |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    let mut both = false;
    rig.until("the new one runs", async || {
        let tasks = rig.tasks("web").await;
        let runs = |t: &&Value| state(t) == "running";
        both |= tasks.iter().filter(runs).count() > 1;
        tasks.iter().any(|t| t["ID"] != old["ID"] && state(t) == "running")
    })
    .await;
    assert!(!both, "never two at once");
}

async fn every_task_at_once_with_parallelism_zero(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["Mode"] = json!({ "Replicated": { "Replicas": 3 } });
    spec["UpdateConfig"] = json!({ "Parallelism": 0, "Order": "start-first", "Monitor": 1_000_000_000_u64 });
    rig.create(&spec).await;
    rig.running("web", 3).await;
    rig.changed("web", |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    rig.until("all three are on their way", async || rig.tasks("web").await.len() == 6).await;
    let fresh = rig.tasks("web").await.split_off(3);
    assert!(fresh.iter().all(|t| state(t) != "shutdown"), "none of the new ones is over yet");
    rig.rolled("web", "completed").await;
    rig.running("web", 3).await;
}

async fn a_failing_update_is_paused_and_the_old_task_stays(rig: Rig) {
    let old = started(&rig, &update_config(&rig, "start-first", "pause")).await;
    rig.changed("web", |spec| image_arg(spec, &["exit", "1"])).await;
    rig.rolled("web", "paused").await;
    let message = rig.service("web").await["UpdateStatus"]["Message"].clone();
    let text = message.as_str().unwrap_or_default();
    assert!(text.starts_with("update paused due to failure or early termination of task"), "{text}");
    let tasks = rig.tasks("web").await;
    let old = tasks.iter().find(|t| t["ID"] == old["ID"]).expect("it is there");
    assert_eq!((state(old), desired(old)), ("running", "running"));
    rig.changed("web", |spec| image_arg(spec, &["serve"])).await;
    rig.rolled("web", "completed").await;
    rig.running("web", 1).await;
    let tasks = rig.tasks("web").await;
    let running = tasks.iter().find(|t| state(t) == "running" && desired(t) == "running");
    assert_eq!(running.map(|t| &t["ID"]), Some(&old["ID"]), "the old task was right all along");
}

async fn a_failing_update_is_rolled_back_with_the_whole_spec(rig: Rig) {
    let mut spec = update_config(&rig, "start-first", "rollback");
    spec["RollbackConfig"] = json!({ "Order": "start-first", "Monitor": 1_000_000_000_u64 });
    started(&rig, &spec).await;
    let before = rig.service("web").await;
    rig.changed("web", |spec| {
        image_arg(spec, &["exit", "1"]);
        spec["Labels"]["note"] = json!("new");
    })
    .await;
    rig.rolled("web", "rollback_completed").await;
    let after = rig.service("web").await;
    assert_eq!(after["Spec"], before["Spec"], "labels too");
    assert_eq!(after.get("PreviousSpec"), None);
    rig.running("web", 1).await;
}

async fn a_write_during_a_rollout_overwrites_the_previous_spec(rig: Rig) {
    let mut spec = update_config(&rig, "start-first", "pause");
    spec["UpdateConfig"]["Monitor"] = json!(6_000_000_000_u64);
    started(&rig, &spec).await;
    rig.changed("web", |spec| spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["BAD=1"])).await;
    rig.until("it rolls", async || rig.service("web").await["UpdateStatus"]["State"] == "updating").await;
    rig.changed("web", |spec| spec["Labels"]["note"] = json!("1")).await;
    let service = rig.service("web").await;
    let env = &service["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Env"];
    assert_eq!(env, &json!(["BAD=1"]), "what was good before is forgotten");
    rig.running("web", 1).await;
}

async fn a_rollout_by_hand_goes_back_to_the_previous_spec(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["RollbackConfig"] = json!({ "Parallelism": 1, "Monitor": 1_000_000_000_u64 });
    started(&rig, &spec).await;
    rig.changed("web", |spec| spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["A=1"])).await;
    rig.rolled("web", "completed").await;
    let service = rig.service("web").await;
    let path = format!(
        "/services/{}/update?version={}&rollback=previous",
        rig.name("web"),
        super::version_of(&service)
    );
    let reply = rig.post(&path, &service["Spec"]).await;
    assert_eq!(reply.status, 200, "{}", reply.message());
    assert!(
        rig.service("web").await["UpdateStatus"]["State"]
            .as_str()
            .is_some_and(|s| s.starts_with("rollback_"))
    );
    rig.rolled("web", "rollback_completed").await;
    let after = rig.service("web").await;
    assert_eq!(after["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env"), None);
    assert_eq!(after["PreviousSpec"], service["Spec"]);
    rig.running("web", 1).await;
}

async fn putting_the_old_template_back_during_a_rollout_ends_it(rig: Rig) {
    let old = started(&rig, &update_config(&rig, "start-first", "pause")).await;
    let before = rig.service("web").await;
    rig.changed("web", |spec| {
        // Never healthy: the rollout hangs as long as it is let.
        spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] =
            json!({ "Test": ["CMD", "/task", "check", "1"], "Interval": 300_000_000_u64, "Retries": 1_000 });
    })
    .await;
    rig.until("the new task starts", async || rig.tasks("web").await.len() == 2).await;
    rig.changed("web", |spec| *spec = before["Spec"].clone()).await;
    rig.rolled("web", "completed").await;
    rig.running("web", 1).await;
    let tasks = rig.tasks("web").await;
    let running: Vec<&Value> = tasks.iter().filter(|t| desired(t) == "running").collect();
    assert_eq!(running.len(), 1);
    assert_eq!(running[0]["ID"], old["ID"]);
}

async fn start_first_with_a_host_port_never_finishes(rig: Rig) {
    let mut spec = update_config(&rig, "start-first", "pause");
    spec["EndpointSpec"]["Ports"] = json!([
        { "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 18_432, "PublishMode": "host" }
    ]);
    started(&rig, &spec).await;
    rig.changed("web", |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    let text = "no suitable node (host-mode port already in use on 1 node)";
    let stuck = async || rig.tasks("web").await.iter().any(|t| super::error(t) == text);
    rig.until("the new task waits", stuck).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(rig.service("web").await["UpdateStatus"]["State"], "updating");
}
