//! One suite of the engine's behaviours that Skep relies on, run against the simulated engine *and* a real one.
//!
//! Each case is one fact. Durations are compared in their order only, never in figures.

mod api;
mod events;
mod jobs;
mod objects;
mod rollouts;
mod services;
mod tasks;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::{BoxFuture, LocalBoxFuture};
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::raw::{Raw, Reply};
use crate::sim::{Container, Plain, Run, Serve, Sim, Unhealthy, View, Workload};

/// Image of the tasks: `serve`, `stubborn`, `exit CODE TEXT…`, `cat PATH`, `check CODE`.
pub const IMAGE: &str = "skep-test/task:1";
/// Label of everything that the suite makes.
const LABEL: &str = "conformance";
const LONGEST: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(40);

/// How many containers of a service run really.
pub type Containers = Arc<dyn Fn(String) -> BoxFuture<'static, usize> + Send + Sync>;

/// What a case works with.
#[derive(Clone)]
pub struct Rig {
    /// The API.
    pub raw: Raw,
    /// Whether time is simulated.
    pub simulated: bool,
    prefix: String,
    containers: Containers,
}

/// One fact.
pub struct Case {
    /// What it is, as a sentence.
    pub name: &'static str,
    run: fn(Rig) -> LocalBoxFuture<'static, ()>,
}

/// The image of the suite on the simulated engine.
pub struct TaskImage;

/// Names the cases of a module.
macro_rules! facts {
    ($($name:ident),* $(,)?) => {
        /// The cases of this module.
        pub(super) fn cases() -> Vec<super::Case> {
            vec![$(super::Case { name: stringify!($name), run: |rig| Box::pin($name(rig)) }),*]
        }
    };
}
use facts;

/// Every case.
pub fn cases() -> Vec<Case> {
    [
        api::cases(),
        objects::cases(),
        services::cases(),
        tasks::cases(),
        jobs::cases(),
        rollouts::cases(),
        events::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs cases on one real engine, some at a time; the names of those that failed.
pub async fn run_all(raw: &Raw, containers: &Containers, run: u64) -> Vec<&'static str> {
    let cases = cases();
    let all = cases.iter().enumerate().map(|(number, case)| async move {
        let prefix = format!("conf{run}-{number}");
        let rig = Rig { raw: raw.clone(), simulated: false, prefix, containers: Arc::clone(containers) };
        let passed = AssertUnwindSafe((case.run)(rig.clone())).catch_unwind().await.is_ok();
        rig.clean().await;
        (!passed).then_some(case.name)
    });
    let failed: Vec<Option<&'static str>> = futures::stream::iter(all).buffer_unordered(4).collect().await;
    failed.into_iter().flatten().collect()
}

// === impl Case ===

impl Case {
    /// Runs it on a simulated engine of its own.
    pub async fn run_simulated(&self, sim: &Sim) {
        sim.workload(IMAGE, TaskImage);
        sim.missing_image("skep-test/missing:1");
        let inside = sim.clone();
        let containers: Containers = Arc::new(move |service| {
            let count = inside.containers(&service).len();
            Box::pin(async move { count })
        });
        let raw = Raw::sim(sim.client("conformance"));
        let rig = Rig { raw, simulated: true, prefix: "conf".to_owned(), containers };
        (self.run)(rig).await;
    }
}

// === impl Rig ===

impl Rig {
    /// A name of this case's own.
    fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.prefix)
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.raw.call(method, path, body).await.expect("the engine answers")
    }

    async fn get(&self, path: &str) -> Value {
        let reply = self.call("GET", path, None).await;
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.message());
        reply.json()
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, None).await
    }

    /// `GET path?filters=…`.
    async fn list(&self, path: &str, filters: &Value) -> Reply {
        self.call("GET", &format!("{path}?filters={}", encode(&filters.to_string())), None).await
    }

    /// The labels of an object of this case, with some more.
    fn labels(&self, more: &[(&str, &str)]) -> Value {
        let mut labels: Map<String, Value> = more.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        labels.insert(LABEL.to_owned(), json!(self.prefix));
        Value::Object(labels)
    }

    /// Creates a config or secret (`kind` is `configs` or `secrets`); its id.
    async fn store(&self, kind: &str, part: &str, data: &str, labels: &[(&str, &str)]) -> String {
        let body =
            json!({ "Name": self.name(part), "Data": STANDARD.encode(data), "Labels": self.labels(labels) });
        let reply = self.post(&format!("/{kind}/create"), &body).await;
        assert_eq!(reply.status, 201, "{}", reply.message());
        id_of(&reply.json())
    }

    /// A replicated service of the suite's image.
    fn spec(&self, part: &str, args: &[&str]) -> Value {
        json!({
            "Name": self.name(part),
            "Labels": self.labels(&[]),
            "TaskTemplate": {
                "ContainerSpec": { "Image": IMAGE, "Args": args, "Init": true },
                "RestartPolicy": { "Condition": "any", "Delay": 1_000_000_000_u64 },
            },
            "Mode": { "Replicated": { "Replicas": 1 } },
            "EndpointSpec": { "Mode": "dnsrr" },
            "UpdateConfig": { "Parallelism": 1, "Monitor": 1_000_000_000_u64, "Order": "stop-first" },
        })
    }

    async fn create(&self, spec: &Value) -> String {
        let reply = self.post("/services/create", spec).await;
        assert_eq!(reply.status, 201, "{}", reply.message());
        id_of(&reply.json())
    }

    async fn service(&self, part: &str) -> Value {
        self.get(&format!("/services/{}", self.name(part))).await
    }

    /// Reads a service, changes its spec, writes it.
    async fn change(&self, part: &str, change: impl FnOnce(&mut Value)) -> Reply {
        let mut service = self.service(part).await;
        change(&mut service["Spec"]);
        let version = version_of(&service);
        self.post(&format!("/services/{}/update?version={version}", self.name(part)), &service["Spec"]).await
    }

    /// As [`Rig::change`], again if the engine itself wrote the service in between.
    async fn changed(&self, part: &str, change: impl Fn(&mut Value)) {
        for _ in 0..10 {
            let reply = self.change(part, &change).await;
            if !reply.message().contains("update out of sequence") {
                assert_eq!(reply.status, 200, "{}", reply.message());
                return;
            }
        }
        panic!("{part} changes all the time");
    }

    /// The tasks of a service, oldest first.
    async fn tasks(&self, part: &str) -> Vec<Value> {
        let reply = self.list("/tasks", &json!({ "service": [self.name(part)] })).await;
        assert_eq!(reply.status, 200, "{}", reply.message());
        let mut tasks = reply.json().as_array().cloned().unwrap_or_default();
        tasks.sort_by_key(|t| time(&t["CreatedAt"]));
        tasks
    }

    /// How many containers of a service run really, whatever the lists say.
    async fn containers(&self, part: &str) -> usize {
        (self.containers)(self.name(part)).await
    }

    /// Polls until it holds.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let end = tokio::time::Instant::now() + LONGEST;
        while !holds().await {
            assert!(tokio::time::Instant::now() < end, "{what}: not so within {LONGEST:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until as many tasks as given run and are wanted.
    async fn running(&self, part: &str, count: usize) {
        self.until(&format!("{count} task(s) of {part} run"), async || {
            let tasks = self.tasks(part).await;
            tasks.iter().filter(|t| state(t) == "running" && desired(t) == "running").count() == count
        })
        .await;
    }

    /// Waits until the state of the last rollout is the given one.
    async fn rolled(&self, part: &str, wanted: &str) {
        self.until(&format!("the rollout of {part} is {wanted}"), async || {
            self.service(part).await["UpdateStatus"]["State"] == wanted
        })
        .await;
    }

    /// Removes what the case made.
    async fn clean(&self) {
        let filters = json!({ "label": [format!("{LABEL}={}", self.prefix)] });
        for kind in ["services", "configs", "secrets", "networks"] {
            let found = self.list(&format!("/{kind}"), &filters).await.json();
            for object in found.as_array().into_iter().flatten() {
                let id = object["ID"].as_str().or_else(|| object["Id"].as_str()).unwrap_or_default();
                let _ = self.raw.call("DELETE", &format!("/{kind}/{id}"), None).await;
            }
        }
    }
}

// === impl TaskImage ===

impl Workload for TaskImage {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        let lines = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let soon = Duration::from_millis(20);
        match container.command().as_slice() {
            ["exit", code, text @ ..] => {
                let code = code.parse().unwrap_or(1);
                crate::sim::Ends { lines: lines(text), after: soon, code }.start(container, view)
            }
            ["cat", path] => {
                let text = container.files.get(*path).map(|b| String::from_utf8_lossy(b).into_owned());
                let code = i64::from(text.is_none());
                crate::sim::Ends { lines: text.into_iter().collect(), after: soon, code }
                    .start(container, view)
            }
            ["stubborn"] => Run::Serve(Serve { exits: None, stop: Duration::from_secs(3_600) }),
            _ => Plain.start(container, view),
        }
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        let test = &container.spec["ContainerSpec"]["Healthcheck"]["Test"];
        let passes = test.as_array().and_then(|t| t.last()).is_some_and(|last| last == "0");
        passes || Unhealthy.healthy(container, view)
    }
}

/// A health check that passes (`0`) or fails.
fn health(code: &str) -> Value {
    json!({ "Test": ["CMD", "/task", "check", code], "Interval": 300_000_000_u64, "Retries": 2 })
}

fn id_of(object: &Value) -> String {
    object["ID"].as_str().or_else(|| object["Id"].as_str()).expect("it has an id").to_owned()
}

fn version_of(object: &Value) -> u64 {
    object["Version"]["Index"].as_u64().expect("it has a version")
}

fn state(task: &Value) -> &str {
    task["Status"]["State"].as_str().unwrap_or_default()
}

fn desired(task: &Value) -> &str {
    task["DesiredState"].as_str().unwrap_or_default()
}

/// A time of the API. As text they do not sort: trailing zeros are left out.
fn time(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(|text| text.parse().ok())
}

fn error(task: &Value) -> &str {
    task["Status"]["Err"].as_str().unwrap_or_default()
}

/// The text of log frames.
fn log_text(body: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = body;
    while rest.len() >= 8 {
        let length = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]);
        let end = 8 + usize::try_from(length).expect("a line fits memory");
        text.push_str(&String::from_utf8_lossy(&rest[8..end.min(rest.len())]));
        rest = &rest[end.min(rest.len())..];
    }
    text
}

/// Percent-encodes what a query value needs.
fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
