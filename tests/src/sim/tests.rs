//! Tests of the simulation itself, under paused time. What it shares with a real engine is in the conformance suite.

use std::time::Duration;

use serde_json::{Value, json};
use skep::swarm::object::TaskState;

use super::build::{file, health, on_network, one_shot, replicas, service_spec};
use super::*;
use crate::raw::Raw;

const LONG: Duration = Duration::from_secs(60);

fn sim() -> (Sim, Raw) {
    let sim = Sim::new(SimOptions::default());
    let raw = Raw::sim(sim.client("test"));
    (sim, raw)
}

async fn create(raw: &Raw, spec: &Value) -> String {
    let reply = raw.call("POST", "/services/create", Some(spec)).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.message());
    reply.json()["ID"].as_str().unwrap().to_owned()
}

async fn change(raw: &Raw, name: &str, change: impl FnOnce(&mut Value)) {
    let mut service = raw.call("GET", &format!("/services/{name}"), None).await.unwrap().json();
    change(&mut service["Spec"]);
    let path = format!("/services/{name}/update?version={}", service["Version"]["Index"]);
    let reply = raw.call("POST", &path, Some(&service["Spec"])).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.message());
}

async fn config(raw: &Raw, name: &str, data: &str) -> String {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(data);
    let body = json!({ "Name": name, "Data": data, "Labels": {} });
    let reply = raw.call("POST", "/configs/create", Some(&body)).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.message());
    reply.json()["ID"].as_str().unwrap().to_owned()
}

fn running(sim: &Sim, service: &str) -> usize {
    sim.tasks(service).iter().filter(|t| t.state == TaskState::Running).count()
}

fn ticket(step: &str) -> Ticket {
    let fence = format!("skep-op-{step}-");
    Ticket { schema: 1, session: format!("{fence}1"), fence, anchors: None, task: skep_runner::Task::Probe }
}

async fn job(raw: &Raw, name: &str, step: &str) -> String {
    let id = config(raw, &format!("{name}-ticket"), &serde_json::to_string(&ticket(step)).unwrap()).await;
    let mut spec = one_shot(service_spec(name, "postgres:17", &[("skep.op", "op")]));
    spec["TaskTemplate"]["ContainerSpec"]["Command"] = json!([skep_runner::RUNNER_PATH, "task"]);
    let spec = file(spec, "Config", &id, &format!("{name}-ticket"), skep_runner::TICKET_PATH);
    create(raw, &spec).await
}

#[tokio::test(start_paused = true)]
async fn a_service_starts_and_is_scaled_to_zero_in_simulated_time() {
    let (sim, raw) = sim();
    let network = sim.network("net");
    create(&raw, &on_network(replicas(service_spec("web", "web:1", &[]), 2), &network, &[])).await;
    sim.until(LONG, "both run", |s| running(s, "web") == 2).await;
    let started = sim.elapsed();
    assert!(started > Duration::from_millis(300) && started < Duration::from_secs(1), "{started:?}");
    change(&raw, "web", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    sim.until(LONG, "out of the DNS", |s| s.containers("web").iter().all(|c| !c.in_dns)).await;
    assert_eq!(sim.containers("web").len(), 2, "the containers run on for the gossip time");
    assert!(sim.tasks("web").iter().all(|t| t.desired == TaskState::Remove && t.state == TaskState::Running));
    sim.until(LONG, "no container", |s| s.containers("web").is_empty()).await;
    sim.until(LONG, "no task", |s| s.tasks("web").is_empty()).await;
    let took = sim.elapsed() - started;
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_health_check_delays_running_and_a_failing_one_replaces_the_task() {
    let (sim, raw) = sim();
    sim.workload("sick:1", Unhealthy);
    let second = Duration::from_secs(1);
    create(&raw, &health(service_spec("well", "well:1", &[]), second, 3)).await;
    create(&raw, &health(service_spec("sick", "sick:1", &[]), second, 3)).await;
    sim.until(LONG, "it starts", |s| s.containers("well").len() == 1).await;
    assert_eq!(running(&sim, "well"), 0, "not before the first check");
    sim.until(LONG, "it runs", |s| running(s, "well") == 1).await;
    sim.until(LONG, "it is replaced", |s| s.tasks("sick").len() > 1).await;
    let first = &sim.tasks("sick")[0];
    assert_eq!((first.state, first.desired), (TaskState::Failed, TaskState::Shutdown));
    assert_eq!(first.error, "task: non-zero exit (143): dockerexec: unhealthy container");
}

#[tokio::test(start_paused = true)]
async fn a_job_gets_its_ticket_and_its_outcome_shows_in_its_task_and_log() {
    let (sim, raw) = sim();
    sim.jobs(Simple(|ticket: Ticket| {
        let code = i64::from(ticket.fence.contains("bad")) * 3;
        (vec![format!("hello {}", ticket.session)], code, Duration::from_secs(2))
    }));
    job(&raw, "job-good", "good").await;
    job(&raw, "job-bad", "bad").await;
    sim.until(LONG, "both end", |s| {
        s.tasks("job-good")[0].state.is_terminal() && s.tasks("job-bad")[0].state.is_terminal()
    })
    .await;
    let (good, bad) = (&sim.tasks("job-good")[0], &sim.tasks("job-bad")[0]);
    assert_eq!((good.state, good.exit_code), (TaskState::Complete, Some(0)));
    assert_eq!(
        (bad.state, bad.exit_code, bad.error.as_str()),
        (TaskState::Failed, Some(3), "task: non-zero exit (3)")
    );
    let log = raw.call("GET", "/services/job-good/logs?stdout=1&stderr=1", None).await.unwrap();
    assert_eq!(&log.body[8..], b"hello skep-op-good-1\n");
    tokio::time::sleep(LONG).await;
    assert_eq!(sim.tasks("job-bad").len(), 1, "it is not run again");
}

#[tokio::test(start_paused = true)]
async fn a_job_killed_after_a_step_ends_with_137() {
    let (sim, raw) = sim();
    sim.jobs(Simple(|_| (Vec::new(), 0, Duration::from_secs(2))));
    sim.faults().kill_job(1, |ticket| ticket.fence.contains("x"));
    job(&raw, "job", "x").await;
    sim.until(LONG, "it ends", |s| s.tasks("job")[0].state.is_terminal()).await;
    assert_eq!(sim.tasks("job")[0].exit_code, Some(137));
}

#[tokio::test(start_paused = true)]
async fn a_write_cut_before_it_counts_changes_nothing_and_one_cut_after_does() {
    let (sim, raw) = sim();
    let faults = sim.faults();
    faults.on("test", Trigger::Write(1), Fault::Cut(Cut::Before));
    faults.on("test", Trigger::Write(2), Fault::Cut(Cut::After));
    let body = |name: &str| json!({ "Name": name, "Data": "eA==" });
    assert!(raw.call("POST", "/configs/create", Some(&body("one"))).await.is_err());
    assert!(raw.call("POST", "/configs/create", Some(&body("two"))).await.is_err());
    assert_eq!(sim.stored_names(), ["two"]);
    assert_eq!(raw.call("GET", "/configs/two", None).await.unwrap().status, 200);
    let calls = faults.calls("test");
    assert_eq!(calls[1].endpoint, "POST /configs/create");
    assert_eq!((calls[1].status, calls[2].status), (None, Some(200)));
}

#[tokio::test(start_paused = true)]
async fn a_killed_client_gets_nothing_any_more_and_others_do() {
    let (sim, raw) = sim();
    sim.faults().on("test", Trigger::Write(1), Fault::Kill(Cut::After));
    let body = json!({ "Name": "one", "Data": "eA==" });
    assert!(raw.call("POST", "/configs/create", Some(&body)).await.is_err());
    assert!(raw.call("GET", "/configs/one", None).await.is_err());
    let other = Raw::sim(sim.client("other"));
    assert_eq!(other.call("GET", "/configs/one", None).await.unwrap().status, 200);
    sim.faults().revive("test");
    assert_eq!(raw.call("GET", "/configs/one", None).await.unwrap().status, 200);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_calls_wait_and_then_go_on() {
    let (sim, raw) = sim();
    sim.faults().freeze_leader(Duration::from_secs(12));
    assert_eq!(raw.call("GET", "/_ping", None).await.unwrap().status, 200);
    assert_eq!(sim.elapsed(), Duration::ZERO);
    assert_eq!(raw.call("GET", "/services", None).await.unwrap().status, 200);
    assert!(sim.elapsed() >= Duration::from_secs(12));
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_cut_off_reads_old_state_and_cannot_write() {
    let (sim, raw) = sim();
    let other = Raw::sim(sim.client("other"));
    let id = config(&raw, "one", "x").await;
    sim.faults().partition("test");
    let spec = json!({ "Name": "one", "Labels": { "new": "1" } });
    let version = other.call("GET", "/configs/one", None).await.unwrap().json()["Version"]["Index"].clone();
    let path = format!("/configs/{id}/update?version={version}");
    assert_eq!(other.call("POST", &path, Some(&spec)).await.unwrap().status, 200);
    let stale = raw.call("GET", "/configs/one", None).await.unwrap().json();
    assert_eq!(stale["Spec"]["Labels"], json!({}));
    let reply = raw.call("POST", &path, Some(&spec)).await.unwrap();
    assert_eq!(reply.status, 500);
    assert!(sim.elapsed() > Duration::from_secs(20), "the write hung");
    assert_eq!(raw.call("GET", "/configs/one", None).await.unwrap().status, 500);
    sim.faults().heal("test");
    let fresh = raw.call("GET", "/configs/one", None).await.unwrap().json();
    assert_eq!(fresh["Spec"]["Labels"], json!({ "new": "1" }));
}

#[tokio::test(start_paused = true)]
async fn events_come_unless_they_are_lost() {
    let (sim, raw) = sim();
    let mut events = raw.lines("/events?filters=%7B%22type%22%3A%5B%22config%22%5D%7D").await.unwrap();
    config(&raw, "one", "x").await;
    sim.faults().lose_events(1);
    config(&raw, "two", "x").await;
    config(&raw, "three", "x").await;
    let mut names = Vec::new();
    while let Some(event) = events.next(Duration::from_secs(1)).await {
        names.push(event["Actor"]["Attributes"]["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names, ["one", "three"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_lost_keeps_its_tasks_running_in_the_store() {
    let sim = Sim::new(SimOptions { nodes: 2, ..SimOptions::default() });
    let raw = Raw::sim(sim.client("test"));
    create(&raw, &service_spec("web", "web:1", &[])).await;
    sim.until(LONG, "it runs", |s| running(s, "web") == 1).await;
    let node = sim.tasks("web")[0].node.clone().unwrap();
    sim.faults().lose_node(&node, Loss::Unreachable);
    sim.until(LONG, "it runs elsewhere", |s| running(s, "web") == 2).await;
    assert!(sim.elapsed() > Duration::from_secs(20));
    let old = sim.tasks("web").into_iter().find(|t| t.node.as_ref() == Some(&node)).unwrap();
    assert_eq!((old.state, old.desired), (TaskState::Running, TaskState::Shutdown));
    assert_eq!(sim.containers("web").len(), 2, "the old one really runs");
    sim.faults().return_node(&node);
    sim.until(LONG, "the old one stops", |s| s.containers("web").len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_forgotten_while_it_stops_runs_on_unseen() {
    let (sim, raw) = sim();
    let network = sim.network("net");
    create(&raw, &on_network(service_spec("web", "web:1", &[]), &network, &[])).await;
    sim.until(LONG, "it runs", |s| running(s, "web") == 1).await;
    change(&raw, "web", |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    change(&raw, "web", |spec| spec["Labels"]["note"] = json!("1")).await;
    assert!(sim.tasks("web").is_empty(), "no list shows it any more");
    assert_eq!(sim.containers("web").len(), 1, "but it runs");
    sim.until(LONG, "it ends", |s| s.containers("web").is_empty()).await;
    assert!(sim.elapsed() > Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn two_runs_of_one_simulation_are_the_same() {
    async fn run() -> (Vec<String>, Duration) {
        let (sim, raw) = sim();
        create(&raw, &replicas(service_spec("web", "web:1", &[]), 3)).await;
        sim.until(LONG, "all run", |s| running(s, "web") == 3).await;
        (sim.tasks("web").into_iter().map(|t| t.id).collect(), sim.elapsed())
    }
    assert_eq!(run().await, run().await);
}
