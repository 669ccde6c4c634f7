//! Tasks: placement, scaling, health, restarts, and the end of services.

use serde_json::json;

use super::{Rig, desired, error, health, state, time};

super::facts![
    a_task_says_what_it_is,
    scaling_to_zero_removes_the_tasks_once_they_have_stopped,
    a_write_while_tasks_stop_makes_the_lists_forget_them,
    a_health_check_holds_a_task_in_starting_until_it_passes,
    a_task_that_is_never_healthy_fails_and_is_replaced,
    a_task_that_ends_is_replaced_after_its_delay,
    restarts_end_after_the_attempts_allowed,
    a_constraint_that_no_node_fits_leaves_the_task_pending,
    a_host_port_is_taken_once_a_node,
    a_missing_image_rejects_the_task,
    a_global_service_has_one_task_a_node_without_a_slot,
    a_removed_service_takes_its_tasks_with_it,
    tasks_carry_the_labels_that_the_service_had,
    tasks_filter_by_desired_state,
];

async fn a_task_says_what_it_is(rig: Rig) {
    let body = json!({ "Name": rig.name("net"), "Driver": "overlay", "Labels": rig.labels(&[]) });
    let network = super::id_of(&rig.post("/networks/create", &body).await.json());
    let mut spec = rig.spec("web", &["serve"]);
    spec["TaskTemplate"]["Networks"] = json!([{ "Target": network }]);
    let service = rig.create(&spec).await;
    rig.running("web", 1).await;
    let task = rig.tasks("web").await.remove(0);
    assert_eq!((&task["ServiceID"], &task["Slot"]), (&json!(service), &json!(1)));
    assert!(task["NodeID"].is_string());
    let read = rig.service("web").await;
    let mut template = read["Spec"]["TaskTemplate"].clone();
    template.as_object_mut().expect("an object").remove("Runtime");
    assert_eq!(task["Spec"], template, "the template without its runtime");
    assert_eq!(task["NetworksAttachments"][0]["Network"]["ID"], json!(network));
    let address = task["NetworksAttachments"][0]["Addresses"][0].as_str().expect("it has an address");
    assert!(address.starts_with("10.") && address.contains('/'), "{address}");
    assert_eq!(task["Status"]["ContainerStatus"]["ExitCode"], 0);
    assert!(time(&task["Status"]["Timestamp"]) >= time(&task["CreatedAt"]));
    assert_eq!(rig.get(&format!("/tasks/{}", super::id_of(&task))).await["ID"], task["ID"]);
}

async fn scaling_to_zero_removes_the_tasks_once_they_have_stopped(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["Mode"] = json!({ "Replicated": { "Replicas": 2 } });
    rig.create(&spec).await;
    rig.running("web", 2).await;
    let slots: Vec<u64> = rig.tasks("web").await.iter().filter_map(|t| t["Slot"].as_u64()).collect();
    assert!(slots.contains(&1) && slots.contains(&2), "{slots:?}");
    rig.changed("web", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    rig.until("the tasks are to be removed", async || {
        rig.tasks("web").await.iter().all(|t| desired(t) == "remove")
    })
    .await;
    assert!(rig.tasks("web").await.iter().any(|t| state(t) == "running"), "they run on for a while");
    rig.until("no task is listed", async || rig.tasks("web").await.is_empty()).await;
    assert_eq!(rig.containers("web").await, 0, "a task is listed as long as its container runs");
    rig.changed("web", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(1)).await;
    rig.running("web", 1).await;
}

async fn a_write_while_tasks_stop_makes_the_lists_forget_them(rig: Rig) {
    let mut spec = rig.spec("web", &["stubborn"]);
    spec["TaskTemplate"]["ContainerSpec"]["Init"] = json!(false);
    spec["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = json!(8_000_000_000_u64);
    rig.create(&spec).await;
    rig.running("web", 1).await;
    rig.changed("web", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    rig.until("the task is to be removed", async || {
        rig.tasks("web").await.iter().all(|t| desired(t) == "remove")
    })
    .await;
    rig.changed("web", |spec| spec["Labels"]["note"] = json!("1")).await;
    rig.until("no task is listed", async || rig.tasks("web").await.is_empty()).await;
    assert_eq!(rig.containers("web").await, 1, "but its container runs on");
    rig.until("the container ends", async || rig.containers("web").await == 0).await;
}

async fn a_health_check_holds_a_task_in_starting_until_it_passes(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = health("0");
    rig.create(&spec).await;
    let mut seen = Vec::new();
    rig.until("the task runs", async || {
        let task = rig.tasks("web").await.pop();
        let now = task.as_ref().map(state).unwrap_or_default().to_owned();
        let up = rig.containers("web").await == 1;
        seen.push((up, now.clone()));
        now == "running"
    })
    .await;
    assert!(seen.contains(&(true, "starting".to_owned())), "the container ran before the task did: {seen:?}");
}

async fn a_task_that_is_never_healthy_fails_and_is_replaced(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = health("1");
    rig.create(&spec).await;
    rig.until("it is replaced", async || rig.tasks("web").await.len() > 1).await;
    let first = rig.tasks("web").await.remove(0);
    assert_eq!((state(&first), desired(&first)), ("failed", "shutdown"));
    assert!(error(&first).ends_with("dockerexec: unhealthy container"), "{}", error(&first));
}

async fn a_task_that_ends_is_replaced_after_its_delay(rig: Rig) {
    rig.create(&rig.spec("web", &["exit", "3", "bye"])).await;
    rig.until("it is replaced twice", async || rig.tasks("web").await.len() > 2).await;
    let tasks = rig.tasks("web").await;
    assert_eq!((state(&tasks[0]), desired(&tasks[0])), ("failed", "shutdown"));
    assert_eq!(error(&tasks[0]), "task: non-zero exit (3)");
    assert_eq!(tasks[0]["Status"]["ContainerStatus"]["ExitCode"], 3);
    assert!(tasks.iter().all(|t| t["Slot"] == 1), "all in one slot");
}

async fn restarts_end_after_the_attempts_allowed(rig: Rig) {
    let mut spec = rig.spec("web", &["exit", "1"]);
    spec["TaskTemplate"]["RestartPolicy"] =
        json!({ "Condition": "on-failure", "Delay": 200_000_000_u64, "MaxAttempts": 2 });
    rig.create(&spec).await;
    let over = async || {
        let tasks = rig.tasks("web").await;
        tasks.len() == 3 && tasks.iter().all(|t| state(t) == "failed" && desired(t) == "shutdown")
    };
    rig.until("three runs are over", over).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(rig.tasks("web").await.len(), 3);
}

async fn a_constraint_that_no_node_fits_leaves_the_task_pending(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.labels.nobody == has"] });
    rig.create(&spec).await;
    let text = "no suitable node (scheduling constraints not satisfied on 1 node)";
    rig.until("it says why", async || rig.tasks("web").await.iter().any(|t| error(t) == text)).await;
    let task = rig.tasks("web").await.remove(0);
    assert_eq!((state(&task), desired(&task)), ("pending", "running"));
}

async fn a_host_port_is_taken_once_a_node(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["Mode"] = json!({ "Replicated": { "Replicas": 2 } });
    spec["EndpointSpec"]["Ports"] = json!([
        { "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 18_431, "PublishMode": "host" }
    ]);
    rig.create(&spec).await;
    rig.running("web", 1).await;
    let text = "no suitable node (host-mode port already in use on 1 node)";
    rig.until("the other waits", async || rig.tasks("web").await.iter().any(|t| error(t) == text)).await;
}

async fn a_missing_image_rejects_the_task(rig: Rig) {
    let mut spec = rig.spec("web", &[]);
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("skep-test/missing:1");
    rig.create(&spec).await;
    let rejected = async || rig.tasks("web").await.iter().any(|t| state(t) == "rejected");
    rig.until("it is rejected", rejected).await;
    let tasks = rig.tasks("web").await;
    let task = tasks.iter().find(|t| state(t) == "rejected").expect("it was there");
    assert!(error(task).contains("No such image: skep-test/missing:1"), "{}", error(task));
    assert_eq!(task["Status"]["ContainerStatus"]["ExitCode"], 0, "which proves nothing");
}

async fn a_global_service_has_one_task_a_node_without_a_slot(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["Mode"] = json!({ "Global": {} });
    rig.create(&spec).await;
    rig.running("web", 1).await;
    let task = rig.tasks("web").await.remove(0);
    assert_eq!(task.get("Slot"), None);
    assert_eq!(rig.service("web").await["Spec"]["Mode"], json!({ "Global": {} }));
}

async fn a_removed_service_takes_its_tasks_with_it(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["Labels"]["mark"] = json!(rig.name("mark"));
    rig.create(&spec).await;
    rig.running("web", 1).await;
    let marked = json!({ "label": [format!("mark={}", rig.name("mark"))] });
    let path = format!("/services/{}", rig.name("web"));
    assert_eq!(rig.delete(&path).await.status, 200);
    rig.until("its tasks are to be removed", async || {
        let left = rig.list("/tasks", &marked).await.json();
        left.as_array().into_iter().flatten().all(|t| desired(t) == "remove")
    })
    .await;
    let text = format!("service {} not found", rig.name("web"));
    for reply in [
        rig.call("GET", &path, None).await,
        rig.delete(&path).await,
        rig.list("/tasks", &json!({ "service": [rig.name("web")] })).await,
        rig.call("GET", &format!("{path}/logs?stdout=1"), None).await,
    ] {
        assert_eq!((reply.status, reply.message()), (404, text.clone()));
    }
    rig.until("its tasks are gone", async || rig.list("/tasks", &marked).await.json() == json!([])).await;
    assert_eq!(rig.containers("web").await, 0);
}

async fn tasks_carry_the_labels_that_the_service_had(rig: Rig) {
    let mut spec = rig.spec("web", &["serve"]);
    spec["Labels"]["mark"] = json!(rig.name("old"));
    rig.create(&spec).await;
    rig.running("web", 1).await;
    rig.changed("web", |spec| spec["Labels"]["mark"] = json!(rig.name("new"))).await;
    let count = async |mark: &str| {
        let filters = json!({ "label": [format!("mark={}", rig.name(mark))] });
        rig.list("/tasks", &filters).await.json().as_array().map_or(0, Vec::len)
    };
    assert_eq!((count("old").await, count("new").await), (1, 0));
}

async fn tasks_filter_by_desired_state(rig: Rig) {
    rig.create(&rig.spec("web", &["serve"])).await;
    rig.running("web", 1).await;
    rig.changed("web", |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    rig.until("one runs and one is over", async || rig.tasks("web").await.len() == 2).await;
    rig.running("web", 1).await;
    for wanted in ["running", "shutdown"] {
        let filters = json!({ "service": [rig.name("web")], "desired-state": [wanted] });
        let found = rig.list("/tasks", &filters).await.json();
        assert_eq!(found.as_array().map_or(0, Vec::len), 1, "{wanted}");
        assert_eq!(desired(&found[0]), wanted);
    }
    let reply = rig.list("/tasks", &json!({ "desired-state": ["bogus"] })).await;
    assert!(reply.status >= 400);
}
