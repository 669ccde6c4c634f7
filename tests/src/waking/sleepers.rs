//! Services that sleep on a real Swarm, and how long whoever asks for one waits, against the time that Swarm itself needs.
//!
//! The application is an nginx with a health check, behind a proxy that looks names up for each request. Everything but the
//! operator, the clients and the clock runs inside of the sandbox's engine.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use futures::{StreamExt as _, TryFutureExt as _};
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use skep::operation::client_spec::is_asleep;
use skep::operation::desk;
use skep::operation::record::{Above, OpId, State, Work};
use skep::operation::sleeper;
use skep::swarm::object::{RegistryAuth, TaskState};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::sandbox::{Stack, eventually, unique, unique_port};
use crate::stage::{Operator, PATIENCE, Setting, Stage};

/// How often is looked whether a task runs. Short against what is measured.
const LOOK: Duration = Duration::from_millis(5);
/// Longest time for many operations.
const LONG: Duration = Duration::from_secs(1_800);
/// How many services are asked to sleep before the first of them has to.
const AT_ONCE: usize = 32;

/// The services.
pub struct Sleepers {
    stage: Stage,
    stack: Stack<'static>,
    operator: Operator,
    front: SocketAddr,
    count: usize,
}

/// What an operator needs.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Resident memory, MiB.
    pub rss_mib: u64,
    /// Of one processor, percent.
    pub cpu_percent: f64,
}

impl Sleepers {
    /// Deploys so many services that wake on demand, and waits until all run. `operator` is the program.
    ///
    /// # Panics
    /// When the sandbox does not take them.
    pub async fn set(count: usize, operator: &str) -> Sleepers {
        let stage = Stage::set(Setting::default()).await;
        let (port, name) = (unique_port(), unique("sleepers"));
        let dir = std::env::temp_dir().join(&name);
        std::fs::create_dir(&dir).expect("the temporary directory can be written");
        let text = manifest(count, port);
        for (file, text) in
            [("stack.yml", text.as_str()), ("front.conf", FRONT), ("application.conf", APPLICATION)]
        {
            std::fs::write(dir.join(file), text).expect("it was just made");
        }
        let stack = stage.sandbox.deploy(&dir.join("stack.yml"), &name, &[]).await;
        std::fs::remove_dir_all(dir).expect("it was made here");
        let heard_at = SocketAddr::new(stage.sandbox.host(), unique_port());
        let (url, network) = (format!("http://{heard_at}"), format!("{}_default", stage.name()));
        let more = ["--skep-image", "skep:dev", "--wake-url", &url, "--wake-network", &network];
        let operator = stage.operator_on(heard_at, operator, &more).await;
        let front = SocketAddr::new(stage.sandbox.address(), port);
        let sleepers = Sleepers { stage, stack, operator, front, count };
        for nth in 0..count {
            eventually("a service to answer", PATIENCE, async || {
                sleepers.first_byte(nth).await.map(drop).map_err(|e| e.to_string())
            })
            .await;
        }
        sleepers
    }

    fn name(&self, nth: usize) -> String {
        self.stack.service(&format!("s{nth}"))
    }

    /// How long a request to the application waits for the first byte of its answer.
    async fn first_byte(&self, nth: usize) -> std::io::Result<Duration> {
        let stream = TcpStream::connect(self.front).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::get(format!("/s{nth}/")).header("host", "sleepers");
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let began = Instant::now();
        let answer = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let took = began.elapsed();
        let server = answer.headers().contains_key("x-application");
        match answer.status().as_u16() {
            200 if server => Ok(took),
            other => Err(std::io::Error::other(format!("status {other}, not of the application"))),
        }
    }

    async fn fall_asleep(&self, nth: usize) {
        let service = self.stage.engine.service(&self.name(nth)).await.expect("it was deployed");
        let id = self.stage.ask_of(service.name(), &service.id, Work::Sleep { above: Above::Refuse }).await;
        let ended = self.stage.ended(&id).await;
        assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    }

    /// Waits until no operation has anything left to do.
    async fn rest(&self) {
        eventually("all operations to end", PATIENCE, async || {
            let all = desk::list(&self.stage.engine).await.map_err(|e| e.to_string())?;
            let left = all.iter().filter(|op| !op.journal.state.is_terminal()).count();
            if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
        })
        .await;
    }

    /// How long whoever asks for the sleeping service waits for the first byte of the application's answer.
    ///
    /// # Panics
    /// When somebody else answers.
    pub async fn woken(&self, nth: usize) -> Duration {
        self.fall_asleep(nth).await;
        let took = self.first_byte(nth).await.expect("the application's answer");
        self.rest().await;
        took
    }

    /// How long Swarm needs from `replicas: 1` to a healthy task of the service that was at zero.
    ///
    /// # Panics
    /// When the engine refuses.
    pub async fn bare(&self, nth: usize) -> Duration {
        self.scale(nth, 0).await;
        eventually("the service to stop", PATIENCE, async || {
            let left = self.tasks(nth, |state| !state.is_terminal()).await;
            if left == 0 { Ok(()) } else { Err(format!("{left} tasks left")) }
        })
        .await;
        let began = Instant::now();
        self.scale(nth, 1).await;
        while self.tasks(nth, |state| state == TaskState::Running).await == 0 {
            sleep(LOOK).await;
        }
        began.elapsed()
    }

    async fn scale(&self, nth: usize, replicas: u64) {
        let engine = &self.stage.engine;
        let mut service = engine.service(&self.name(nth)).await.expect("it was deployed");
        service.spec["Mode"]["Replicated"]["Replicas"] = Value::from(replicas);
        engine
            .update_service(&service.id, service.version, &service.spec)
            .await
            .expect("nobody else writes it");
    }

    async fn tasks(&self, nth: usize, is_so: impl Fn(TaskState) -> bool) -> usize {
        let engine = &self.stage.engine;
        let id = engine.service(&self.name(nth)).await.expect("it was deployed").id;
        let tasks = engine.tasks(&[&id]).await.expect("the engine answers");
        tasks.iter().filter(|task| is_so(task.state)).count()
    }

    /// All services fall asleep, and all are asked for at the same time: how long the last one waits.
    ///
    /// # Panics
    /// When somebody else answers.
    pub async fn all_at_once(&self) -> Duration {
        futures::future::join_all((0..self.count).map(|nth| self.fall_asleep(nth))).await;
        let began = Instant::now();
        let answers = (0..self.count).map(|nth| self.first_byte(nth));
        for answer in futures::future::join_all(answers).await {
            answer.expect("the application's answer");
        }
        let took = began.elapsed();
        self.rest().await;
        took
    }

    /// Puts so many more services to sleep, by as many operations, and answers what the operator needs then, over this time.
    /// They have no node that fits, so that the machine has to run none of them; each sleeps at zero, with no waker.
    ///
    /// # Panics
    /// When one does not fall asleep.
    pub async fn operator_needs(&self, more: usize, time: Duration) -> Needs {
        let engine = &self.stage.engine;
        stream::iter(0..more).for_each_concurrent(AT_ONCE, |nth| self.one_more(nth)).await;
        eventually("all of them to sleep", LONG, async || {
            let asleep = sleeper::list(engine).await.map_err(|e| e.to_string())?.len();
            if asleep >= more { Ok(()) } else { Err(format!("{asleep} sleep")) }
        })
        .await;
        self.rest().await;
        let before = self.operator.processor_time();
        sleep(time).await;
        let used = self.operator.processor_time() - before;
        Needs {
            rss_mib: self.operator.resident_mib(),
            cpu_percent: used.as_secs_f64() / time.as_secs_f64() * 100.0,
        }
    }

    async fn one_more(&self, nth: usize) {
        let name = format!("{}_more{nth}", self.stack.name());
        let spec = json!({
            "Name": name,
            "Labels": {
                "com.docker.stack.namespace": self.stack.name(),
                "skep.enable": "true",
                "skep.scale.down": "0 20 * * *",
                "skep.scale.up": "0 7 * * *",
            },
            "TaskTemplate": {
                "ContainerSpec": { "Image": "skep-test/nginx:1" },
                "Placement": { "Constraints": ["node.labels.bench == none"] },
            },
            "Mode": { "Replicated": { "Replicas": 1 } },
            "EndpointSpec": { "Mode": "dnsrr" },
        });
        let id = self
            .stage
            .engine
            .create_service(&spec, RegistryAuth::Anonymous)
            .await
            .expect("the engine takes it");
        let id: OpId = self.stage.ask_of(&name, &id, Work::Sleep { above: Above::Refuse }).await;
        // Those that ended long ago are not kept; what counts is that it sleeps.
        eventually("it to fall asleep", LONG, async || {
            let service = self.stage.engine.service(&name).map_err(|e| e.to_string()).await?;
            if is_asleep(&service.spec) { Ok(()) } else { Err(format!("operation {id}")) }
        })
        .await;
    }

    /// Takes everything down.
    pub async fn strike(self) {
        drop(self.operator);
        self.stack.remove().await;
        self.stage.strike().await;
    }
}

fn manifest(count: usize, port: u16) -> String {
    let mut text = format!(
        r#"
networks:
  default: {{ attachable: true }}
configs:
  front: {{ file: front.conf }}
  application: {{ file: application.conf }}
services:
  front:
    image: skep-test/nginx:1
    configs: [{{ source: front, target: /etc/nginx/conf.d/default.conf }}]
    ports: [{{ target: 80, published: {port}, mode: host }}]
    deploy: {{ endpoint_mode: dnsrr }}
"#
    );
    for nth in 0..count {
        let application = format!(
            r#"
  s{nth}:
    image: skep-test/nginx:1
    configs: [{{ source: application, target: /etc/nginx/conf.d/default.conf }}]
    healthcheck: {{ test: [CMD, curl, -fsS, -o, /dev/null, "http://127.0.0.1/"], interval: 500ms, timeout: 2s, start_period: 5s }}
    stop_grace_period: 1s
    deploy:
      endpoint_mode: dnsrr
      labels:
        skep.enable: "true"
        skep.scale.wake: "true"
        skep.scale.wake.port: "80"
        skep.scale.wake.timeout: 120s
"#
        );
        text.push_str(&application);
    }
    text
}

/// The application.
const APPLICATION: &str = r#"
server {
    listen 80;
    add_header X-Application yes;
    location / { return 200 "hello\n"; }
}
"#;

/// A proxy that is patient, and looks names up for each request.
const FRONT: &str = r#"
server {
    listen 80 default_server;
    resolver 127.0.0.11 valid=1s ipv6=off;
    location ~ ^/(s[0-9]+)/ {
        set $application $1;
        proxy_pass http://$application:80/;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_read_timeout 120s;
    }
}
"#;
