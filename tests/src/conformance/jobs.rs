//! One-shot work: a replicated service that is never restarted.

use serde_json::{Value, json};

use super::{Rig, desired, error, log_text, state};

super::facts![
    a_job_that_ends_well_is_complete,
    a_job_that_fails_tells_its_exit_code,
    a_job_is_not_run_again_by_a_label,
    a_job_scaled_to_zero_leaves_no_task,
    a_job_reads_its_config_as_a_file,
    logs_come_in_frames_and_need_a_stream,
];

fn job(rig: &Rig, args: &[&str]) -> Value {
    let mut spec = rig.spec("job", args);
    spec["TaskTemplate"]["RestartPolicy"] = json!({ "Condition": "none" });
    spec
}

async fn over(rig: &Rig) -> Value {
    let ended = async || {
        let tasks = rig.tasks("job").await;
        // What it should be is settled a moment after what it is.
        let ended = ["complete", "failed", "rejected", "shutdown"];
        tasks.iter().any(|t| ended.contains(&state(t)) && desired(t) == "shutdown")
    };
    rig.until("the job ends", ended).await;
    rig.tasks("job").await.remove(0)
}

async fn log(rig: &Rig, query: &str) -> String {
    let path = format!("/services/{}/logs?{query}", rig.name("job"));
    log_text(&rig.call("GET", &path, None).await.body)
}

async fn a_job_that_ends_well_is_complete(rig: Rig) {
    rig.create(&job(&rig, &["exit", "0", "hello"])).await;
    let task = over(&rig).await;
    assert_eq!((state(&task), desired(&task)), ("complete", "shutdown"));
    assert_eq!(task["Status"]["ContainerStatus"]["ExitCode"], 0);
    assert_eq!(error(&task), "");
    rig.until("its log is there", async || log(&rig, "stdout=1&stderr=1").await == "hello\n").await;
}

async fn a_job_that_fails_tells_its_exit_code(rig: Rig) {
    rig.create(&job(&rig, &["exit", "3"])).await;
    let task = over(&rig).await;
    assert_eq!((state(&task), desired(&task)), ("failed", "shutdown"));
    assert_eq!(task["Status"]["ContainerStatus"]["ExitCode"], 3);
    assert_eq!(error(&task), "task: non-zero exit (3)");
}

async fn a_job_is_not_run_again_by_a_label(rig: Rig) {
    rig.create(&job(&rig, &["exit", "0"])).await;
    let before = over(&rig).await;
    rig.changed("job", |spec| spec["Labels"]["note"] = json!("1")).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let tasks = rig.tasks("job").await;
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0]["ID"], before["ID"]);
    rig.changed("job", |spec| spec["TaskTemplate"]["ForceUpdate"] = json!(1)).await;
    rig.until("forced, it runs again", async || rig.tasks("job").await.len() == 2).await;
}

async fn a_job_scaled_to_zero_leaves_no_task(rig: Rig) {
    rig.create(&job(&rig, &["exit", "0"])).await;
    over(&rig).await;
    rig.changed("job", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    rig.until("its task is gone", async || rig.tasks("job").await.is_empty()).await;
}

async fn a_job_reads_its_config_as_a_file(rig: Rig) {
    let id = rig.store("configs", "ticket", "the ticket", &[]).await;
    let mut spec = job(&rig, &["cat", "/skep/ticket.json"]);
    spec["TaskTemplate"]["ContainerSpec"]["Configs"] = json!([{
        "File": { "Name": "/skep/ticket.json", "UID": "0", "GID": "0", "Mode": 0o444 },
        "ConfigID": id, "ConfigName": rig.name("ticket"),
    }]);
    rig.create(&spec).await;
    let task = over(&rig).await;
    assert_eq!(state(&task), "complete", "{}", error(&task));
    rig.until("its log is there", async || log(&rig, "stdout=1").await == "the ticket\n").await;
}

async fn logs_come_in_frames_and_need_a_stream(rig: Rig) {
    rig.create(&job(&rig, &["exit", "0", "one", "two", "three"])).await;
    over(&rig).await;
    rig.until("all lines are there", async || log(&rig, "stdout=1").await == "one\ntwo\nthree\n").await;
    assert_eq!(log(&rig, "stdout=1&tail=1").await, "three\n");
    assert_eq!(log(&rig, "stderr=1").await, "");
    let task = super::id_of(&rig.tasks("job").await[0]);
    let detailed = log(&rig, "stdout=1&details=1&tail=1").await;
    assert!(detailed.contains(&format!("com.docker.swarm.task.id={task}")), "{detailed}");
    let path = format!("/services/{}/logs", rig.name("job"));
    let reply = rig.call("GET", &path, None).await;
    assert!(reply.status >= 400 && reply.message().contains("at least one stream"), "{}", reply.message());
}
