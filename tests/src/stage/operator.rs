//! An operator as a process, and what a suite asks of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use skep::operation::desk;
use skep::operation::record::{Intent, OpId, Operation, SCHEMA, State, Trigger, Work, of_stack};
use skep::runtime::clock;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{Door, LEASE, Stage};
use crate::sandbox::{eventually, http_get, unique, unique_port};

/// What the webhook expects.
pub const TOKEN: &str = "a-token-of-the-suites";

/// In which the kernel counts the time of processors, a second.
const TICKS: u64 = 100;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A running operator; ended when dropped, at the latest.
pub struct Operator {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    log: PathBuf,
}

/// The webhook's answer.
#[derive(Clone, Debug)]
pub struct Posted {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Value,
}

// === impl Operator ===

impl Operator {
    /// Ends it at once, as a power cut does. It is gone when this returns.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Its metrics.
    pub async fn metrics(&self) -> String {
        http_get(self.address, "/metrics").await.expect("it serves its metrics").body
    }

    /// Time of processors that it has used so far, in its own code and in the kernel's.
    ///
    /// # Panics
    /// When it has ended.
    pub fn processor_time(&self) -> Duration {
        let stat = self.of_process("stat");
        // The name of the program, in parentheses, may have spaces.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1_000 / TICKS)
    }

    /// Its resident memory, MiB.
    ///
    /// # Panics
    /// When it has ended.
    pub fn resident_mib(&self) -> u64 {
        let status = self.of_process("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("the kernel tells") / 1_024
    }

    fn of_process(&self, file: &str) -> String {
        let id = self.child.id().expect("it runs");
        std::fs::read_to_string(format!("/proc/{id}/{file}")).expect("it runs")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Posts a payload like Alertmanager does; `None` sends no token.
    pub async fn post(&self, token: Option<&str>, payload: &Value) -> Posted {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        let mut request = Request::post("/webhooks/alertmanager").header("host", "skep");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(payload.to_string()))).expect("a request");
        let (head, body) = sender.send_request(request).await.expect("it answers").into_parts();
        let body = body.collect().await.expect("the answer is whole").to_bytes();
        Posted { status: head.status.as_u16(), body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
    }

    /// Posts an alert with the right token.
    pub async fn alert(&self, payload: &Value) -> Posted {
        self.post(Some(TOKEN), payload).await
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            eprintln!("--- log of the operator at {}:\n{}", self.address, self.log());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

// === impl Stage ===

impl Stage {
    /// Starts an operator that acts on alerts at once, and waits until it serves.
    pub async fn operator(&self, program: &str, more: &[&str]) -> Operator {
        self.operator_at(LOOPBACK, program, more).await
    }

    /// Like [`Stage::operator`], listening on another address of this host.
    pub async fn operator_at(&self, host: IpAddr, program: &str, more: &[&str]) -> Operator {
        self.operator_on(SocketAddr::new(host, unique_port()), program, more).await
    }

    /// Like [`Stage::operator`], listening there, where an earlier one may have listened.
    pub async fn operator_on(&self, address: SocketAddr, program: &str, more: &[&str]) -> Operator {
        self.operator_with(address, &self.sandbox.environment()["DOCKER_HOST"], program, more).await
    }

    /// Like [`Stage::operator`], with this door between it and the engine.
    pub async fn operator_behind(&self, door: &Door, program: &str) -> Operator {
        let address = SocketAddr::new(LOOPBACK, unique_port());
        self.operator_with(address, &door.host(), program, &[]).await
    }

    /// Like [`Stage::operator_on`], with this way to the engine.
    pub async fn operator_with(
        &self,
        address: SocketAddr,
        docker: &str,
        program: &str,
        more: &[&str],
    ) -> Operator {
        let directory = std::env::temp_dir();
        let name = unique("operator");
        let (log, token) = (directory.join(format!("{name}.log")), directory.join(format!("{name}.token")));
        std::fs::write(&token, TOKEN).expect("the temporary directory can be written");
        let mut command = Command::new(program);
        command.args(["--listen", &address.to_string(), "--lease-term", LEASE, "--instance", &name]);
        command.args([
            "--page-image",
            "skep-test/nginx:1",
            "--store",
            &format!("default=volume:{}", self.store()),
        ]);
        command.args(["--settle", "0s", "--resettle", "0s", "--log", "info,skep=debug"]);
        command.arg("--runner").arg(Stage::runner()).arg("--webhook-token-file").arg(&token).args(more);
        command
            .envs(self.sandbox.environment())
            .env("DOCKER_HOST", docker)
            .kill_on_drop(true)
            .stdin(Stdio::null());
        let file = || std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let child = command.stdout(file()).stderr(file()).spawn().expect("the operator can be run");
        let mut operator = Operator { child, address, log };
        eventually("the operator to be ready", Duration::from_secs(30), async || {
            if let Ok(Some(status)) = operator.child.try_wait() {
                panic!("the operator ended: {status}\n{}", operator.log());
            }
            let answer = http_get(address, "/readyz").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        })
        .await;
        let _ = std::fs::remove_file(token);
        operator
    }

    /// The payload of one firing alert of the shop, as Alertmanager posts it.
    pub fn payload(&self, starts_at: Timestamp) -> Value {
        let service = self.service("db");
        let labels =
            json!({"alertname": "ShopOrdersBroken", "severity": "critical", "skep_service": service});
        json!({
            "version": "4",
            "groupKey": "{}:{alertname=\"ShopOrdersBroken\"}",
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": "skep",
            "groupLabels": {"alertname": "ShopOrdersBroken"},
            "commonLabels": labels,
            "commonAnnotations": {},
            "externalURL": "http://alertmanager:9093",
            "alerts": [{
                "status": "firing",
                "labels": labels,
                "annotations": {"summary": "The shop cannot read its orders."},
                "startsAt": starts_at.to_string(),
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus:9090/graph",
                "fingerprint": "58a4c2d6b1e0f397",
            }],
        })
    }

    /// Asks for an operation as a person does.
    pub async fn ask(&self, work: Work) -> OpId {
        let service = self.engine.service(&self.service("db")).await.expect("the shop has a database");
        self.ask_of(service.name(), &service.id, work).await
    }

    /// Asks for an operation on the whole stack as a person does.
    pub async fn ask_stack(&self, work: Work) -> OpId {
        self.ask_of(self.name(), &of_stack(self.name()), work).await
    }

    /// Asks for an operation on any service as a person does.
    pub async fn ask_of(&self, service: &str, service_id: &str, work: Work) -> OpId {
        let now = clock::now();
        let id = OpId::new(now, &now.to_string());
        let intent = Intent {
            schema: SCHEMA,
            service: service.to_owned(),
            service_id: service_id.to_owned(),
            work,
            trigger: Trigger::Person { name: "suite".to_owned() },
            created: now,
            approval: false,
            accept_problems: false,
        };
        desk::create(&self.engine, &id, intent).await.expect("the operation can be stored");
        id
    }

    /// Asks for a restore as the labels have it.
    pub async fn ask_restore(&self) -> OpId {
        self.ask(Work::Restore {
            to: None,
            backup: None,
            before: None,
            in_place: None,
            quiesce: None,
            create_roles: false,
        })
        .await
    }

    /// Takes a backup. Returns its operation.
    pub async fn back_up(&self) -> Operation {
        let id = self.ask(Work::Backup).await;
        let ended = self.ended(&id).await;
        assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
        ended
    }

    /// The restore that an alert from this time or later began, once it is stored.
    pub async fn alerted(&self, since: Timestamp) -> OpId {
        eventually("the alert's operation", Duration::from_secs(30), async || {
            let all = self.operations().await;
            let found = all
                .iter()
                .find(|o| matches!(o.intent.trigger, Trigger::Alert { starts_at, .. } if starts_at >= since));
            found.map(|o| o.id.clone()).ok_or_else(|| format!("{} others", all.len()))
        })
        .await
    }

    /// Posts the same alert ten times at once. How many restores there are then.
    pub async fn alert_ten_times(&self, operator: &Operator, starts_at: Timestamp) -> usize {
        let payload = self.payload(starts_at);
        let posted = futures::future::join_all((0..10).map(|_| operator.alert(&payload))).await;
        assert!(posted.iter().all(|posted| posted.status == 200), "{posted:?}");
        self.restores().await
    }

    /// How many restores of this stage's database there are or were.
    pub async fn restores(&self) -> usize {
        self.operations().await.iter().filter(|o| o.intent.work.kind() == "restore").count()
    }

    /// All operations on this stage's services.
    pub async fn operations(&self) -> Vec<Operation> {
        let database = self.service("db");
        let all = desk::list(&self.engine).await.expect("operations can be listed");
        all.into_iter().filter(|o| o.intent.service == database).collect()
    }

    /// An operation once it has come to an end, also a stuck one.
    pub async fn ended(&self, id: &OpId) -> Operation {
        self.when(id, "to end", |op| op.journal.state.is_terminal() || op.journal.state == State::Stuck).await
    }

    /// Like [`Stage::when`], looking so often that even a short step is caught while it runs.
    pub async fn caught(&self, id: &OpId, what: &str, reached: impl Fn(&Operation) -> bool) -> Operation {
        let looking = async {
            loop {
                match desk::find(&self.engine, id).await {
                    Ok(op) if reached(&op) => return op,
                    Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let caught = tokio::time::timeout(super::PATIENCE, looking).await;
        caught.unwrap_or_else(|_| panic!("operation {id} never came to {what}"))
    }

    /// An operation as soon as `reached` holds of it.
    pub async fn when(&self, id: &OpId, what: &str, reached: impl Fn(&Operation) -> bool) -> Operation {
        eventually(&format!("operation {id} {what}"), super::PATIENCE, async || {
            let op = desk::find(&self.engine, id).await.map_err(|e| e.to_string())?;
            if reached(&op) { Ok(op) } else { Err(format!("{:#?}", op.journal)) }
        })
        .await
    }
}
