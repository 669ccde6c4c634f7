//! One-shot work: a replicated service that is never restarted.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Rig, desired, error, log_text, state};

super::facts![
    a_job_that_ends_well_is_complete,
    a_job_that_fails_tells_its_exit_code,
    a_job_is_not_run_again_by_a_label,
    a_job_scaled_to_zero_leaves_no_task,
    a_job_reads_its_config_as_a_file,
    logs_come_in_frames_and_need_a_stream,
    the_log_of_a_task_is_read_from_a_moment_on,
    a_log_that_cannot_be_had_is_told_in_a_frame_of_its_own,
    a_log_driver_that_keeps_nothing_looks_like_a_task_that_says_nothing,
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

/// Streams, times and texts of the frames of a log with timestamps.
fn stamped(body: &[u8]) -> Vec<(u8, Option<Timestamp>, String)> {
    let mut lines = Vec::new();
    let mut rest = body;
    while let [stream, _, _, _, a, b, c, d, ..] = rest {
        let end = 8 + usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).expect("a line fits memory");
        let text = String::from_utf8_lossy(&rest[8..end]).trim_end().to_owned();
        let (at, said) = text.split_once(' ').expect("a time stands before it");
        lines.push((*stream, at.parse().ok(), said.to_owned()));
        rest = &rest[end..];
    }
    lines
}

async fn the_log_of_a_task_is_read_from_a_moment_on(rig: Rig) {
    rig.create(&job(&rig, &["exit", "0", "one", "two", "three"])).await;
    let task = super::id_of(&over(&rig).await);
    let read = async |more: &str| {
        let path = format!("/tasks/{task}/logs?stdout=1&stderr=1&timestamps=1{more}");
        stamped(&rig.call("GET", &path, None).await.body)
    };
    rig.until("all lines are there", async || read("").await.len() == 3).await;
    let all = read("").await;
    let times: Vec<Timestamp> = all.iter().map(|(_, at, _)| at.expect("it is a time")).collect();
    assert_eq!(all.iter().map(|(_, _, said)| said.as_str()).collect::<Vec<_>>(), ["one", "two", "three"]);
    let since = async |at: Timestamp, more: &str| {
        read(&format!("&since={}.{:09}{more}", at.as_second(), at.subsec_nanosecond())).await
    };
    assert_eq!(since(times[0], "").await, all, "what was printed at that moment is in it");
    assert!(since(times[2], "").await.contains(&all[2]));
    assert_eq!(since(times[2] + SignedDuration::from_nanos(1), "").await, [], "and nothing before it");
    assert_eq!(since(times[0], "&tail=1").await, all[2..]);
    let reply = rig.call("GET", "/tasks/nosuchtask/logs?stdout=1", None).await;
    assert_eq!((reply.status, reply.message()), (404, "task nosuchtask not found".to_owned()));
}

async fn a_log_that_cannot_be_had_is_told_in_a_frame_of_its_own(rig: Rig) {
    let mut spec = job(&rig, &["exit", "0", "one"]);
    spec["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.hostname==nowhere"] });
    rig.create(&spec).await;
    rig.until("there is a task", async || !rig.tasks("job").await.is_empty()).await;
    let task = super::id_of(&rig.tasks("job").await[0]);
    let reply = rig.call("GET", &format!("/tasks/{task}/logs?stdout=1&stderr=1"), None).await;
    assert_eq!((reply.status, reply.body.first()), (200, Some(&3)));
    let text = log_text(&reply.body);
    assert!(text.starts_with("Error grabbing logs") && text.contains("has not been scheduled"), "{text}");
}

async fn a_log_driver_that_keeps_nothing_looks_like_a_task_that_says_nothing(rig: Rig) {
    let mut spec = job(&rig, &["exit", "0", "one"]);
    spec["TaskTemplate"]["LogDriver"] = json!({ "Name": "none" });
    rig.create(&spec).await;
    let task = super::id_of(&over(&rig).await);
    let reply = rig.call("GET", &format!("/tasks/{task}/logs?stdout=1&stderr=1"), None).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
}
