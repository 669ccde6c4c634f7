//! The services, the gauge by which their use is measured, and operators.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use jiff::Timestamp;
use serde_json::Value;
use skep::operation::client_spec::is_asleep;
use skep::operation::desk;
use skep::operation::record::{Above, Operation, State, Trigger, Work};
use skep::runtime::clock;
use skep::swarm::object::{Service, TaskState};
use tokio::net::{TcpListener, TcpStream};

use super::Client;
use crate::prometheus::Prometheus;
use crate::sandbox::{Stack, eventually, unique, unique_port};
use crate::stage::{Door, Operator, PATIENCE, Setting, Stage};

/// After how long without use services fall asleep here: no label may say less.
pub const IDLE_AFTER: Duration = Duration::from_secs(60);
/// Longest time until Skep has noticed, and done, what follows from that.
const NOTICED: Duration = Duration::from_secs(150);
/// Where the application listens.
const PORT: u16 = 8_000;

/// What a service of the suite has besides the image: part of its `deploy`, and its labels.
type Part = (&'static str, &'static str, &'static str);

const WAKING: &str =
    "skep.scale.wake: \"true\", skep.scale.wake.port: \"8000\", skep.scale.wake.timeout: 120s, ";
const BY_HAND: &str = "skep.scale.down: \"0 0 1 1 *\", skep.scale.up: \"0 0 2 1 *\", ";
/// Asked through a door, by which alone its use is known.
const DOOR: &str = "skep.scale.wake.door: guarded-door, skep.scale.idle.after: 60s, skep.scale.wake: \"true\", \
                    skep.scale.wake.port: \"8000\", skep.scale.wake.timeout: 120s, skep.scale.wake.ignore: \"path:/health\", ";
const SERVICES: [Part; 9] = [
    ("socket", "", WAKING),
    ("control", "", WAKING),
    ("calls", "", WAKING),
    ("upload", "", WAKING),
    ("download", "", WAKING),
    (FEW, "replicas: 2, ", "skep.scale.min: \"1\", "),
    ("everywhere", "mode: global, ", WAKING),
    ("behind", "mode: global, ", BY_HAND),
    (GUARDED, "", DOOR),
];
/// What keeps one of its two replicas.
pub const FEW: &str = "few";
/// What has a door.
pub const GUARDED: &str = "guarded";
/// Those that fall asleep for want of use, as Prometheus tells.
const IDLE: [&str; 3] = ["socket", "control", FEW];

/// Everything.
pub struct Scene {
    /// The shop, whose engine this is.
    pub stage: Stage,
    stack: Stack<'static>,
    heard_at: SocketAddr,
    ways: BTreeMap<&'static str, u16>,
    prometheus: Prometheus,
    is_used: Arc<AtomicBool>,
    operators: Mutex<Vec<Operator>>,
}

// === impl Scene ===

impl Scene {
    /// Deploys the services and waits until all of them answer. Nobody leads yet.
    ///
    /// # Panics
    /// When the sandbox does not take them.
    pub async fn set() -> Scene {
        let stage = Stage::set(Setting::default()).await;
        let ways: BTreeMap<_, _> = SERVICES.iter().map(|(name, ..)| (*name, unique_port())).collect();
        let name = unique("streams");
        let file = std::env::temp_dir().join(format!("{name}.yml"));
        std::fs::write(&file, manifest(&ways)).expect("the temporary directory can be written");
        let stack = stage.sandbox.deploy(&file, &name, &[]).await;
        std::fs::remove_file(file).expect("it was made here");
        let is_used = Arc::new(AtomicBool::new(false));
        let prometheus = Prometheus::start(&[gauge(is_used.clone()).await], &[]).await;
        let heard_at = SocketAddr::new(stage.sandbox.host(), unique_port());
        let scene = Scene { stage, stack, heard_at, ways, prometheus, is_used, operators: Mutex::default() };
        eventually("the front to listen", PATIENCE, async || {
            let connected = TcpStream::connect(scene.client(FEW).0).await;
            connected.map(drop).map_err(|e| e.to_string())
        })
        .await;
        // Nobody has made a door yet.
        for (name, ..) in SERVICES.iter().filter(|(name, ..)| *name != GUARDED) {
            eventually(&format!("{name} to answer"), PATIENCE, async || {
                let answer = scene.client(name).get("/health").await.map_err(|e| e.to_string())?;
                if answer.is_of_the_application() { Ok(()) } else { Err(format!("{answer:?}")) }
            })
            .await;
        }
        scene
    }

    /// Whoever asks for a service.
    pub fn client(&self, name: &str) -> Client {
        Client(SocketAddr::new(self.stage.sandbox.address(), self.ways[name]))
    }

    /// Says that [`FEW`] is used from now on. Nobody uses the others, as far as their expressions tell.
    pub fn used_from_now_on(&self) {
        self.is_used.store(true, Ordering::SeqCst);
    }

    /// An operator that leads soon.
    pub async fn operator(&self, program: &str) -> Operator {
        let docker = self.stage.sandbox.environment()["DOCKER_HOST"].clone();
        self.operator_at(&docker, program).await
    }

    /// The same behind a door.
    pub async fn operator_behind(&self, door: &Door, program: &str) -> Operator {
        self.operator_at(&door.host(), program).await
    }

    async fn operator_at(&self, docker: &str, program: &str) -> Operator {
        let (url, network) = (format!("http://{}", self.heard_at), format!("{}_default", self.stack.name()));
        let prometheus = self.prometheus.url();
        let more = ["--skep-image", "skep:dev", "--wake-url", &url, "--wake-network", &network];
        let more = [&more[..], &["--prometheus-url", &prometheus]].concat();
        self.stage.operator_with(self.heard_at, docker, program, &more).await
    }

    /// Keeps the log of an operator that has been killed, to be shown where the suite fails.
    pub fn bury(&self, operator: Operator) {
        self.operators.lock().unwrap_or_else(PoisonError::into_inner).push(operator);
    }

    /// A service as it is now.
    pub async fn service(&self, name: &str) -> Service {
        self.stage.engine.service(&self.stack.service(name)).await.expect("it was deployed")
    }

    /// The spec of a service as it is now.
    pub async fn spec(&self, name: &str) -> Value {
        self.service(name).await.spec
    }

    /// How many tasks of the application itself run.
    pub async fn running(&self, name: &str) -> usize {
        let id = self.service(name).await.id;
        let tasks = self.stage.engine.tasks(&[&id]).await.expect("the engine answers");
        let runs = |state: TaskState| state == TaskState::Running;
        tasks.iter().filter(|t| runs(t.state) && runs(t.desired)).count()
    }

    /// Asks for this as a person does, and waits until it is done.
    pub async fn done(&self, name: &str, work: Work) -> Operation {
        let service = self.service(name).await;
        let id = self.stage.ask_of(service.name(), &service.id, work).await;
        let ended = self.stage.ended(&id).await;
        assert_eq!(ended.journal.state, State::Succeeded, "{name}: {:#?}", ended.journal);
        ended
    }

    /// Puts a service to sleep.
    pub async fn sleep(&self, name: &str) -> Operation {
        let slept = self.done(name, Work::Sleep { above: Above::Alone }).await;
        assert!(is_asleep(&self.spec(name).await), "{name}");
        slept
    }

    /// What Skep itself asked for and did of this kind, the newest last.
    pub async fn found(&self, name: &str, kind: &str) -> Vec<Operation> {
        let name = self.stack.service(name);
        let mut all = desk::list(&self.stage.engine).await.expect("the engine answers");
        all.retain(|op| {
            let is_found = matches!(op.intent.trigger, Trigger::Found { .. });
            is_found && op.intent.service == name && op.intent.work.kind() == kind
        });
        all
    }

    /// The only wake that the service's waker asked for, once it has ended well.
    pub async fn woken(&self, name: &str) -> Operation {
        let wakes = self.found(name, "wake").await;
        assert_eq!(wakes.len(), 1, "{name}: {wakes:#?}");
        let ended = self.stage.ended(&wakes[0].id).await;
        assert_eq!(ended.journal.state, State::Succeeded, "{name}: {:#?}", ended.journal);
        ended
    }

    /// The only operation of this kind that Skep itself asks for, once it has ended well.
    pub async fn noticed(&self, name: &str, kind: &str) -> Operation {
        eventually(&format!("a {kind} of {name}"), NOTICED, async || {
            let found = self.found(name, kind).await;
            let op = found.first().filter(|op| op.journal.state.is_terminal());
            let op = op.cloned().ok_or_else(|| format!("{} begun", found.len()))?;
            assert_eq!((found.len(), op.journal.state), (1, State::Succeeded), "{name}: {found:#?}");
            Ok(op)
        })
        .await
    }

    /// The containers of wakers that stand in for a service, or have not left yet.
    pub async fn wakers(&self, name: &str) -> Vec<String> {
        let label = format!("label=skep.waker={}", self.stack.service(name));
        let listed = self.stage.sandbox.docker(&["ps", "-q", "--filter", &label]).await;
        listed.lines().map(str::to_owned).collect()
    }

    /// Waits until the door of [`GUARDED`] answers with the application behind it, and gives its container.
    pub async fn door(&self, before: Option<&str>) -> String {
        let label = format!("label=skep.door={}", self.stack.service(GUARDED));
        eventually("the door to stand", PATIENCE, async || {
            let listed = self.stage.sandbox.docker(&["ps", "-q", "--filter", &label]).await;
            let doors: Vec<&str> = listed.lines().filter(|id| Some(*id) != before).collect();
            let [door] = doors.as_slice() else { return Err(format!("{doors:?}")) };
            let answer = self.client(GUARDED).get("/health").await.map_err(|e| e.to_string())?;
            match answer.is_of_the_application() && answer.passed().is_some() {
                true => Ok((*door).to_owned()),
                false => Err(format!("{answer:?}")),
            }
        })
        .await
    }

    /// Waits until no waker of the service is left, and says when that was.
    pub async fn left_alone(&self, name: &str) -> Timestamp {
        eventually(&format!("the waker of {name} to leave"), PATIENCE, async || {
            let wakers = self.wakers(name).await.len();
            if wakers == 0 { Ok(()) } else { Err(format!("{wakers} are there")) }
        })
        .await;
        clock::now()
    }

    /// Waits until what stands in for a service has been told to leave.
    pub async fn told_to_leave(&self, name: &str) {
        let wakers = self.wakers(name).await;
        let [waker] = wakers.as_slice() else { panic!("one waker of {name}, not {wakers:?}") };
        self.says(waker, "told to leave").await;
    }

    /// Waits until a waker holds somebody for whom it asks in vain.
    pub async fn holds(&self, waker: &str) {
        self.says(waker, "the operator was asked, and will be again").await;
    }

    async fn says(&self, container: &str, what: &str) {
        eventually(&format!("{container} to say {what:?}"), PATIENCE, async || {
            let log = self.stage.sandbox.try_docker(&["logs", container]).await;
            let log = [log.stdout, log.stderr].concat();
            let log = String::from_utf8_lossy(&log).into_owned();
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    /// The most memory that a container's program had so far, KiB.
    pub async fn peak_kib(&self, container: &str) -> u64 {
        let id = self.stage.sandbox.docker(&["inspect", "-f", "{{.State.Pid}}", container]).await;
        let status = self.stage.sandbox.exec(&["cat", &format!("/proc/{id}/status")]).await;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.expect("the kernel tells")
    }

    /// Takes everything down.
    pub async fn strike(self) {
        self.operators.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.stack.remove().await;
        self.stage.strike().await;
    }
}

/// Serves the numbers by which use is measured.
async fn gauge(is_used: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let at = listener.local_addr().expect("its address");
    let told = move || {
        let is_used = is_used.load(Ordering::SeqCst);
        let value = |name: &str| u8::from(is_used && name == FEW);
        let lines = IDLE.map(|name| format!("suite_requests{{service=\"{name}\"}} {}\n", value(name)));
        std::future::ready(lines.concat())
    };
    let router = Router::new().route("/metrics", get(told));
    tokio::spawn(axum::serve(listener, router).into_future());
    at
}

/// The name by which the front asks for a service.
fn asked_as(name: &str) -> &str {
    if name == GUARDED { "guarded-door" } else { name }
}

fn manifest(ways: &BTreeMap<&'static str, u16>) -> String {
    let front: Vec<String> =
        (PORT..).zip(ways.keys()).map(|(own, to)| format!("{own}={}:{PORT}", asked_as(to))).collect();
    let ports: Vec<String> = (PORT..)
        .zip(ways.values())
        .map(|(own, port)| format!("{{ target: {own}, published: {port}, mode: host }}"))
        .collect();
    let mut text = format!(
        r#"
networks:
  default: {{ attachable: true }}
services:
  front:
    image: skep-test/shop:1
    command: forward {}
    ports: [{}]
    deploy: {{ endpoint_mode: dnsrr }}
"#,
        front.join(" "),
        ports.join(", ")
    );
    for (name, deploy, labels) in SERVICES {
        let idle = format!(
            "skep.scale.idle.query: 'suite_requests{{service=\"{name}\"}}', skep.scale.idle.after: {}s, ",
            IDLE_AFTER.as_secs()
        );
        let idle = if IDLE.contains(&name) { idle.as_str() } else { "" };
        text.push_str(&format!(
            r#"
  {name}:
    image: skep-test/shop:1
    command: streams
    healthcheck: {{ test: [CMD, /shop, healthcheck], interval: 500ms, timeout: 2s, start_period: 5s }}
    stop_grace_period: 2s
    deploy: {{ {deploy}endpoint_mode: dnsrr, labels: {{ {labels}{idle}skep.enable: "true" }} }}
"#
        ));
    }
    text
}
