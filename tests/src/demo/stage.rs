//! The private Swarm that the demo plays on, and what it does there by hand: commands, SQL, HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::Outcome;
use crate::sandbox::{http_get, repository};

/// Images that the play needs.
const IMAGES: [&str; 7] =
    ["postgres:15", "redis:7", "nginx:1", "mail:1", "monitoring:1", "shop:1", "skep:dev"];

/// The private engine; its variables once it is up.
#[derive(Debug, Default)]
pub struct Stage {
    environment: OnceLock<BTreeMap<String, String>>,
}

// === impl Stage ===

impl Stage {
    /// One that is not up yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a fresh engine and builds what is missing.
    pub(super) async fn up(&self) -> Outcome<()> {
        run(script("engine.sh").arg("down")).await?;
        run(script("engine.sh").arg("up")).await?;
        let printed = run(script("engine.sh").arg("env")).await?;
        let environment = printed.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        });
        self.environment.get_or_init(|| environment.collect());
        run(script("images.sh").args(IMAGES)).await.map(drop)
    }

    /// Ends the engine with all that runs in it; images stay for the next time.
    ///
    /// # Errors
    /// What the script says.
    pub async fn down(&self) -> Outcome<()> {
        run(script("engine.sh").arg("down")).await.map(drop)
    }

    pub(super) fn variable(&self, name: &str) -> Outcome<&str> {
        let value = self.environment.get().and_then(|all| all.get(name));
        value.map(String::as_str).ok_or_else(|| format!("{name} is not known: the engine is not up"))
    }

    /// Address of a host-mode port.
    pub(super) fn port(&self, port: u16) -> Outcome<SocketAddr> {
        let address = self.variable("SKEP_SANDBOX_ADDRESS")?;
        format!("{address}:{port}").parse().map_err(|_| format!("`{address}` is no address"))
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Outcome<Command> {
        let environment = self.environment.get().ok_or("the engine is not up")?;
        let mut command = Command::new(program);
        command.envs(environment).env_remove("DOCKER_CONTEXT");
        Ok(command)
    }

    /// `docker args…`; what it prints.
    pub(super) async fn docker(&self, args: &[&str]) -> Outcome<String> {
        run(self.command("docker")?.args(args)).await
    }

    /// `docker stack deploy` of these files.
    pub(super) async fn deploy(&self, name: &str, files: &[&str], set: &[(&str, &str)]) -> Outcome<()> {
        let mut command = self.command("docker")?;
        command.args(["stack", "deploy", "--resolve-image", "never"]).envs(set.iter().copied());
        for file in files {
            command.arg("-c").arg(repository(file));
        }
        run(command.arg(name)).await.map(drop)
    }

    /// Makes a secret or config with this content.
    pub(super) async fn store(&self, kind: &str, name: &str, content: &str) -> Outcome<()> {
        let mut command = self.command("docker")?;
        command.args([kind, "create", name, "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("docker: {error}"))?;
        let mut input = child.stdin.take().ok_or("docker has no input")?;
        input.write_all(content.as_bytes()).await.map_err(|error| error.to_string())?;
        drop(input);
        let status = child.wait().await.map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("cannot create the {kind} {name}")) }
    }

    /// `skep args…`, shown to whoever looks on.
    pub(super) async fn skep(&self, args: &[&str]) -> Outcome<()> {
        println!("$ skep {}", args.join(" "));
        let status = self.command(skep_binary())?.args(args).kill_on_drop(true).status().await;
        let status = status.map_err(|error| format!("skep: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("`skep {}` ended with {status}", args.join(" "))) }
    }

    /// The one running container of a service.
    pub(super) async fn container(&self, service: &str) -> Outcome<String> {
        let label = format!("label=com.docker.swarm.service.name={service}");
        let listed = self.docker(&["ps", "-q", "--filter", &label]).await?;
        listed.lines().next().map(str::to_owned).ok_or_else(|| format!("no container of {service} runs"))
    }

    /// Runs SQL as somebody with a shell in the database's container; what it prints, a row a line.
    pub(super) async fn sql(&self, database: &str, sql: &str) -> Outcome<String> {
        let container = self.container("shop_db").await?;
        let psql = ["psql", "-U", "shop", "-d", database, "-qAt", "-v", "ON_ERROR_STOP=1", "-c", sql];
        self.docker(&[&["exec", "-u", "postgres", container.as_str()], &psql[..]].concat()).await
    }

    /// A number from the database.
    pub(super) async fn count(&self, database: &str, sql: &str) -> Outcome<u64> {
        let printed = self.sql(database, sql).await?;
        printed.parse().map_err(|_| format!("`{sql}` gives {printed:?}, no number"))
    }

    /// The JSON at a path of a published port.
    pub(super) async fn json(&self, port: u16, path: &str) -> Outcome<Value> {
        let answer = http_get(self.port(port)?, path).await?;
        serde_json::from_str(&answer.body).map_err(|_| format!("{path} answers {}", answer.status))
    }

    /// The specs of services, to compare.
    pub(super) async fn specs(&self, services: &[&str]) -> Outcome<Vec<Value>> {
        let mut args = vec!["service", "inspect"];
        args.extend(services);
        let printed = self.docker(&args).await?;
        let listed: Vec<Value> = serde_json::from_str(&printed).map_err(|error| error.to_string())?;
        Ok(listed.into_iter().map(|mut service| service["Spec"].take()).collect())
    }

    /// The ports on which the replicas of Skep listen.
    pub(super) async fn skep_ports(&self) -> Outcome<Vec<u16>> {
        let tasks =
            self.docker(&["ps", "-q", "--filter", "label=com.docker.swarm.service.name=skep_operator"]);
        let task = r#"{{index .Config.Labels "com.docker.swarm.task.id"}}"#;
        let mut ports = Vec::new();
        for container in tasks.await?.lines() {
            let id = self.docker(&["inspect", "-f", task, container]).await?;
            // Each port is listed twice, for IPv4 and IPv6.
            let format = "{{with .Status.PortStatus.Ports}}{{(index . 0).PublishedPort}}{{end}}";
            let port = self.docker(&["inspect", "--type", "task", "-f", format, &id]).await?;
            ports.extend(port.parse::<u16>());
        }
        Ok(ports)
    }
}

/// Repeats `probe` until it gives a value, or says what was last seen when the time is up.
pub(super) async fn until<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Outcome<T>,
) -> Outcome<T> {
    let deadline = Instant::now() + within;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= deadline => {
                return Err(format!("waited {} s for {what}; last seen: {seen}", within.as_secs()));
            }
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

fn skep_binary() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository("target"), PathBuf::from);
    target.join("x86_64-unknown-linux-musl/release/skep")
}

fn script(name: &str) -> Command {
    Command::new(repository("tests/sandbox").join(name))
}

async fn run(command: &mut Command) -> Outcome<String> {
    let output = command.kill_on_drop(true).stdin(Stdio::null()).output().await;
    let output = output.map_err(|error| format!("{:?}: {error}", command.as_std().get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let args: Vec<_> = command.as_std().get_args().map(|arg| arg.to_string_lossy()).collect();
    let program = command.as_std().get_program().to_string_lossy();
    Err(format!("{program} {}: {}: {}", args.join(" "), output.status, said.trim()))
}
