//! The client, jobs and the lease, against the simulated engine and against a real one.
//!
//! The real one needs the sandbox: `tests/sandbox/engine.sh up && tests/sandbox/images.sh redis:7`, then with the variables of
//! `engine.sh env`: `cargo test -p skep-tests --test client -- --ignored`.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use skep::swarm::job::{self, JobSpec, JobState, Reach};
use skep::swarm::object::{EventAction, EventKind, KIND, Kind, Labels, OP, RegistryAuth, Service};
use skep::swarm::{Endpoint, Engine, Error, Fence, Leadership, Lease, spec};
use skep_runner::line::FaultKind;
use skep_runner::{Line, Report, Task, Ticket};
use skep_tests::sim::{Cut, Fault, Sim, SimOptions, Trigger};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "skep-test/redis:7";
const LONG: Duration = Duration::from_secs(60);

async fn real() -> Engine {
    let host = std::env::var("DOCKER_HOST").expect("DOCKER_HOST is that of the sandbox");
    assert!(host.contains(".sandbox") || host.contains("skep"), "{host} is not the sandbox's engine");
    Engine::connect(Endpoint::parse(&host).expect("DOCKER_HOST is an endpoint")).await.unwrap()
}

async fn simulated() -> Engine {
    client_of(&Sim::new(SimOptions::default()), "test").await
}

async fn client_of(sim: &Sim, name: &str) -> Engine {
    Engine::connect(Endpoint::InProcess(sim.client(name))).await.unwrap()
}

/// Cases that hold on both engines.
macro_rules! on_both_engines {
    ($($case:ident),* $(,)?) => {
        mod on_the_simulated_engine {
            $(#[tokio::test(start_paused = true)]
            async fn $case() {
                super::$case(super::simulated().await).await;
            })*
        }

        mod on_a_real_engine {
            $(#[tokio::test]
            #[ignore = "needs the sandbox"]
            async fn $case() {
                super::$case(super::real().await).await;
            })*
        }
    };
}

on_both_engines! {
    configs_are_created_once_and_change_under_their_version,
    a_subscription_sees_what_happens_after_it,
    the_engine_tells_about_itself_its_nodes_and_networks,
    a_spec_comes_back_the_same_and_can_be_written_back,
    one_of_two_leads_and_the_other_takes_over_after_a_release,
    secrets_are_found_by_label_and_name_and_never_show_their_data,
    a_job_that_exists_is_found_by_whoever_makes_it_again,
}

/// A name that no other run has.
fn unique(prefix: &str) -> String {
    let (boot, pid) = (skep::runtime::clock::boot_time().as_nanos(), std::process::id());
    format!("{prefix}-{}", skep::swarm::object::short_hash(&format!("{boot}{pid}{prefix}")))
}

fn labels(kind: Kind, op: &str) -> Labels {
    Labels::from([(KIND.to_owned(), kind.as_str().to_owned()), (OP.to_owned(), op.to_owned())])
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut poll: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(began.elapsed() < LONG, "in vain: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn configs_are_created_once_and_change_under_their_version(engine: Engine) {
    let name = unique("skep-op");
    let labels = labels(Kind::Operation, &name);
    let id = engine.create_config(&name, &labels, b"intent").await.unwrap();
    assert!(matches!(engine.create_config(&name, &labels, b"x").await.unwrap_err(), Error::Exists { .. }));

    let config = engine.config(&name).await.unwrap();
    assert_eq!((config.id.as_str(), config.data.as_slice()), (id.as_str(), &b"intent"[..]));
    assert_eq!(engine.config_id(&name).await.unwrap(), id);
    assert!(
        matches!(engine.config(&id[..10]).await.unwrap_err(), Error::NotFound { .. }),
        "a prefix is no id"
    );

    let mut changed = labels.clone();
    changed.insert("skep.state".to_owned(), "running".to_owned());
    engine.relabel_config(&id, config.version, &name, &changed).await.unwrap();
    let stale = engine.relabel_config(&id, config.version, &name, &labels).await.unwrap_err();
    assert!(matches!(stale, Error::Stale { .. }), "{stale}");

    let listed = engine.configs(Kind::Operation, &[(OP, &name)]).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].data.as_slice(), &listed[0].labels), (&b"intent"[..], &changed));
    assert_eq!(listed[0], engine.config(&id).await.unwrap(), "bollard and raw JSON say the same");
    assert!(engine.configs(Kind::Plan, &[(OP, &name)]).await.unwrap().is_empty());

    engine.remove_config(&id).await.unwrap();
    engine.remove_config(&id).await.unwrap();
    let gone = engine.relabel_config(&id, 1, &name, &labels).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound { .. }), "{gone}");
}

async fn a_subscription_sees_what_happens_after_it(engine: Engine) {
    let mut events = engine.events().await.unwrap();
    let name = unique("skep-op");
    let id = engine.create_config(&name, &labels(Kind::Operation, &name), b"x").await.unwrap();
    engine.remove_config(&id).await.unwrap();
    let mut actions = Vec::new();
    while actions.len() < 2 {
        let event = timeout(LONG, events.next()).await.unwrap().unwrap().unwrap();
        if event.kind == EventKind::Config && event.id == id {
            actions.push(event.action);
        }
    }
    assert_eq!(actions, [EventAction::Create, EventAction::Remove]);
}

async fn the_engine_tells_about_itself_its_nodes_and_networks(engine: Engine) {
    let info = engine.info().await.unwrap();
    assert!(info.active && info.manager && info.cluster.is_some(), "{info:?}");
    let nodes = engine.nodes().await.unwrap();
    assert!(nodes.iter().any(|n| n.id == info.node && n.ready && n.active && n.manager), "{nodes:?}");
    assert!(nodes.iter().all(|n| n.architecture == std::env::consts::ARCH));
    let networks = engine.networks().await.unwrap();
    let ingress = networks.iter().find(|n| n.name == "ingress").unwrap();
    assert_eq!(&engine.network("ingress").await.unwrap(), ingress);
}

/// A service spec with something in every corner, small enough to start nowhere.
fn rich_spec(name: &str) -> Value {
    json!({
        "Name": name,
        "Labels": {"skep.test": "rich"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": IMAGE,
                "Labels": {"empty": ""},
                "Command": ["redis-server"],
                "Args": ["--save", ""],
                "Env": ["A=b"],
                "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000_u64, "Retries": 3},
                "StopGracePeriod": 0,
                "Init": false,
                "Mounts": [{"Type": "tmpfs", "Target": "/x"}]
            },
            "Placement": {"Constraints": ["node.id==nowhere"]},
            "Resources": {"Limits": {"MemoryBytes": 67_108_864}},
            "RestartPolicy": {"Condition": "on-failure", "MaxAttempts": 2, "Delay": 0}
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "UpdateConfig": {"Parallelism": 0, "FailureAction": "pause", "Order": "start-first", "MaxFailureRatio": 0.5},
        "EndpointSpec": {"Mode": "dnsrr"}
    })
}

async fn a_spec_comes_back_the_same_and_can_be_written_back(engine: Engine) {
    for spec in [
        rich_spec(&unique("skep-rich")),
        json!({"Name": unique("skep-poor"), "TaskTemplate": {"ContainerSpec": {"Image": IMAGE}}, "Mode": {"Global": {}},
               "EndpointSpec": {"Mode": "dnsrr"}}),
    ] {
        let id = engine.create_service(&spec, RegistryAuth::Anonymous).await.unwrap();
        let service = engine.service(&id).await.unwrap();
        assert!(spec::same_spec(&spec, &service.spec), "wrote {spec:#}\nread {:#}", service.spec);
        assert!(spec::same_template(&spec, &service.spec));

        engine.update_service(&id, service.version, &service.spec).await.unwrap();
        let again = engine.service(&id).await.unwrap();
        assert_eq!(again.spec, service.spec, "a spec written back is the same to the byte");
        let stale = engine.update_service(&id, service.version, &service.spec).await.unwrap_err();
        assert!(matches!(stale, Error::Stale { .. }), "{stale}");
        engine.remove_service(&id).await.unwrap();
        engine.remove_service(&id).await.unwrap();
        assert!(engine.tasks(&[&id]).await.unwrap().is_empty());
    }
}

/// A job whose runner is a shell script.
struct Script {
    engine: Engine,
    op: String,
    service: String,
    ticket: String,
    runner: String,
}

impl Script {
    async fn start(script: &str, node: Option<&str>) -> Script {
        Script::start_on(real().await, script, node).await
    }

    async fn start_on(engine: Engine, script: &str, node: Option<&str>) -> Script {
        let op = unique("op");
        let name = format!("skep-job-{op}-1");
        let runner = job::ensure_runner(&engine, script.as_bytes()).await.unwrap();
        assert_eq!(job::ensure_runner(&engine, script.as_bytes()).await.unwrap(), runner);
        let ticket =
            Ticket { schema: 1, session: name.clone(), fence: op.clone(), anchors: None, task: Task::Probe };
        let labels = labels(Kind::Ticket, &op);
        let ticket = job::ensure_ticket(&engine, &name, &ticket, &labels).await.unwrap();
        let works_for = Service {
            id: "none".to_owned(),
            version: 1,
            spec: json!({"TaskTemplate": {"ContainerSpec": {"Env": ["A=b", "A_PASSWORD=c"]}}}),
            update: None,
            created: jiff::Timestamp::UNIX_EPOCH,
        };
        let spec = JobSpec {
            name: &name,
            ticket: &ticket,
            runner: &runner,
            service: &works_for,
            image: IMAGE,
            node,
            mounts: Vec::new(),
            secrets: Vec::new(),
            reach: Reach::Service,
            user: None,
            labels,
        };
        let service = job::ensure(&engine, &spec, RegistryAuth::Anonymous).await.unwrap();
        let again = job::ensure(&engine, &spec, RegistryAuth::Anonymous).await.unwrap();
        assert_eq!(service, again, "a second create finds the first");
        Script { engine, op, service, ticket, runner: runner.id }
    }

    async fn until(&self, wanted: impl Fn(&JobState) -> bool) -> JobState {
        let state =
            || async { Some(job::observe(&self.engine, &self.service).await.unwrap()).filter(|s| wanted(s)) };
        until("the job gets there", state).await
    }

    async fn end(self) {
        job::close(&self.engine, &self.service, &self.ticket, &[]).await.unwrap();
        job::close(&self.engine, &self.service, &self.ticket, &[]).await.unwrap();
        let gone = job::observe(&self.engine, &self.service).await.unwrap_err();
        assert!(matches!(gone, Error::NotFound { .. }), "{gone}");
        let left = || async {
            self.engine.tasks_labelled(&[(OP, &self.op)]).await.unwrap().is_empty().then_some(())
        };
        until("its tasks end", left).await;
        self.engine.remove_config(&self.runner).await.unwrap();
    }
}

/// Two drivers may both have looked for it in vain.
async fn a_job_that_exists_is_found_by_whoever_makes_it_again(engine: Engine) {
    // To start it makes it twice.
    Script::start_on(engine, "#!/bin/sh\nexit 0\n# twice\n", Some("nowhere")).await.end().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_job_runs_once_tells_its_progress_and_reports() {
    let report = Report::Probe { version: "1".to_owned() };
    let text = serde_json::to_string(&report).unwrap();
    let (head, tail) = text.split_at(text.len() / 2);
    let part = |part, text: &str| {
        serde_json::to_string(&Line::Report { part, of: 2, text: text.to_owned() }).unwrap()
    };
    let script = format!(
        r#"#!/bin/sh
[ "$1" = task ] && [ -r /skep/ticket.json ] && [ "$A" = b ] && [ -z "$A_PASSWORD" ] || exit 9
echo '{{"line":"progress","phase":"dump","done":5,"total":10}}'
cat <<'END'
{}
{}
END
echo 'noise' >&2
"#,
        part(1, tail),
        part(0, head)
    );
    let job = Script::start(&script, None).await;
    let state = job.until(|s| !matches!(s, JobState::Pending { .. } | JobState::Running { .. })).await;
    assert_eq!(state, JobState::Complete { report: Box::new(report) });
    job.end().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_running_job_shows_its_progress() {
    let script = r#"#!/bin/sh
trap 'exit 143' TERM
echo '{"line":"progress","phase":"dump","done":5,"total":10}'
sleep 1000 & wait
"#;
    let job = Script::start(script, None).await;
    let running = job.until(|s| matches!(s, JobState::Running { progress: Some(_), .. })).await;
    let JobState::Running { node, progress } = running else { panic!("it runs") };
    assert!(job.engine.nodes().await.unwrap().iter().any(|n| n.id == node));
    assert_eq!(progress.unwrap().done, 5);
    job.end().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_failing_job_says_why() {
    let script =
        "#!/bin/sh\necho '{\"line\":\"fault\",\"kind\":\"final\",\"message\":\"no room\"}'; exit 3\n";
    let job = Script::start(script, None).await;
    let JobState::Failed { fault, exit } = job.until(|s| matches!(s, JobState::Failed { .. })).await else {
        panic!("it failed")
    };
    assert_eq!((fault.kind, fault.message.as_str(), exit), (FaultKind::Final, "no room", Some(3)));
    job.end().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_runner_that_cannot_be_executed_is_a_fault_of_the_place_and_not_of_a_backup() {
    let job = Script::start(&format!("#!/no/such/shell {}\n", unique("x")), None).await;
    let JobState::Failed { fault, .. } = job.until(|s| matches!(s, JobState::Failed { .. })).await else {
        panic!("it failed")
    };
    assert_eq!(fault.kind, FaultKind::Circumstance, "{}", fault.message);
    assert!(fault.message.contains(IMAGE), "{}", fault.message);
    job.end().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_job_that_no_node_can_take_is_pending_and_says_why() {
    let job = Script::start("#!/bin/sh\nexit 0\n# nowhere\n", Some("nowhere")).await;
    job.until(|s| matches!(s, JobState::Pending { why } if why.contains("no suitable node"))).await;
    job.end().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_job_whose_ticket_is_gone_cannot_be_made_again() {
    let job = Script::start("#!/bin/sh\nexit 0\n# ticket\n", None).await;
    let service = job.engine.service(&job.service).await.unwrap();
    let (engine, spec) = (job.engine.clone(), service.spec.clone());
    job.end().await;
    let error = engine.create_service(&spec, RegistryAuth::Anonymous).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

async fn one_of_two_leads_and_the_other_takes_over_after_a_release(engine: Engine) {
    let stops = [CancellationToken::new(), CancellationToken::new()];
    let (first, first_fence, mut first_leads) = Lease::new(&engine, unique("first"));
    let first = tokio::spawn(first.run(stops[0].clone()));
    timeout(LONG, first_leads.wait_for(Leadership::is_leading)).await.unwrap().unwrap();
    let (second, second_fence, mut second_leads) = Lease::new(&engine, unique("second"));
    let second = tokio::spawn(second.run(stops[1].clone()));
    timeout(LONG, second_leads.wait_for(|l| matches!(l, Leadership::Waiting { holder: Some(_) })))
        .await
        .unwrap()
        .unwrap();
    assert!(first_fence.is_open() && !second_fence.is_open());
    stops[0].cancel();
    first.await.unwrap();
    timeout(LONG, second_leads.wait_for(Leadership::is_leading)).await.unwrap().unwrap();
    assert!(!first_fence.is_open() && second_fence.is_open());
    stops[1].cancel();
    second.await.unwrap();
}

async fn secrets_are_found_by_label_and_name_and_never_show_their_data(engine: Engine) {
    let name = unique("skep-secret");
    let id = engine.create_secret(&name, &labels(Kind::Ticket, &name), b"hunter22").await.unwrap();
    assert_eq!(engine.secret_id(&name).await.unwrap(), id);
    assert_eq!(engine.secrets(&[(OP, &name)]).await.unwrap()[0].id, id);
    engine.remove_secret(&id).await.unwrap();
    assert!(matches!(engine.secret_id(&name).await.unwrap_err(), Error::NotFound { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_cut_is_unknown_and_reading_tells_what_became_of_it() {
    for (cut, stored) in [(Cut::Before, false), (Cut::After, true)] {
        let sim = Sim::new(SimOptions::default());
        let engine = client_of(&sim, "test").await;
        sim.faults().on("test", Trigger::Write(1), Fault::Cut(cut));
        let labels = labels(Kind::Operation, "1");
        let error = engine.create_config("skep-op-1", &labels, b"x").await.unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{error}");
        assert_eq!(engine.config("skep-op-1").await.is_ok(), stored);
    }
}

/// An elector on simulated time.
async fn elector(sim: &Sim, name: &str) -> (Lease, Fence, watch::Receiver<Leadership>) {
    let start = Instant::now();
    Lease::with_clock(&client_of(sim, name).await, name, Arc::new(move || start.elapsed()))
}

#[tokio::test(start_paused = true)]
async fn the_same_operator_leads_again_after_a_change_of_swarm_leader() {
    let sim = Sim::new(SimOptions::default());
    let stop = CancellationToken::new();
    let (first, first_fence, mut first_leads) = elector(&sim, "first").await;
    tokio::spawn(first.run(stop.clone()));
    timeout(LONG, first_leads.wait_for(Leadership::is_leading)).await.unwrap().unwrap();
    let (second, second_fence, _second_leads) = elector(&sim, "second").await;
    tokio::spawn(second.run(stop.clone()));
    sleep(Duration::from_secs(3)).await;
    sim.faults().freeze_leader(Duration::from_secs(16));
    timeout(LONG, first_leads.wait_for(|l| !l.is_leading())).await.expect("it is fenced meanwhile").unwrap();
    timeout(LONG, first_leads.wait_for(Leadership::is_leading)).await.unwrap().unwrap();
    assert!(first_fence.is_open());
    assert!(!second_fence.is_open());
}

#[tokio::test(start_paused = true)]
async fn an_operator_at_a_manager_that_is_cut_off_is_succeeded() {
    let sim = Sim::new(SimOptions::default());
    let stop = CancellationToken::new();
    let (first, _, mut first_leads) = elector(&sim, "first").await;
    tokio::spawn(first.run(stop.clone()));
    timeout(LONG, first_leads.wait_for(Leadership::is_leading)).await.unwrap().unwrap();
    let (second, _, mut second_leads) = elector(&sim, "second").await;
    tokio::spawn(second.run(stop.clone()));
    sleep(Duration::from_secs(3)).await;
    sim.faults().partition("first");
    timeout(LONG, second_leads.wait_for(Leadership::is_leading)).await.unwrap().unwrap();
    assert!(!first_leads.borrow().is_leading(), "long before that it had stopped to lead");
    sim.faults().heal("first");
    sleep(LONG).await;
    assert!(second_leads.borrow().is_leading() && !first_leads.borrow().is_leading());
}
