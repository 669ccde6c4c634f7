//! The private Swarm that end-to-end tests run on: started or found by `tests/sandbox/engine.sh`, never the user's own.
//!
//! Helpers here panic with what they were doing, like assertions: a test cannot go on without them. Every wait has a
//! deadline and looks at the state itself, not at the time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

/// Overlay network on which Skep, Prometheus, Alertmanager and the mail server meet.
pub const MONITORING_NETWORK: &str = "skep-monitoring";
/// Longest time for one command or one HTTP answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running private engine with a swarm of one.
#[derive(Debug)]
pub struct Sandbox {
    environment: BTreeMap<String, String>,
    address: IpAddr,
    host: IpAddr,
}

/// A deployed stack; removed when dropped, at the latest.
#[derive(Debug)]
pub struct Stack<'a> {
    sandbox: &'a Sandbox,
    name: String,
    is_removed: bool,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: String,
}

// === impl Sandbox ===

impl Sandbox {
    /// The sandbox of this checkout with all images, started at the first call.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Sandbox> = OnceCell::const_new();
        SHARED.get_or_init(Self::up).await
    }

    async fn up() -> Self {
        checked("start the sandbox", script("engine.sh").arg("up")).await;
        checked("build the images", &mut script("images.sh")).await;
        let environment = checked("read the sandbox's variables", script("engine.sh").arg("env")).await;
        let environment: BTreeMap<_, _> = environment.lines().filter_map(exported).collect();
        let address = |name: &str| environment[name].parse().expect("engine.sh prints an address");
        let (address, host) = (address("SKEP_SANDBOX_ADDRESS"), address("SKEP_SANDBOX_HOST"));
        Self { environment, address, host }
    }

    /// Where the Docker API listens.
    pub fn socket(&self) -> &Path {
        let host = self.environment["DOCKER_HOST"].as_str();
        Path::new(host.strip_prefix("unix://").unwrap_or(host))
    }

    /// The node's address, reachable from this host: host-mode ports of services are there.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// This host's address on its link with the node: containers reach a server of a test there, and nobody else does.
    pub fn host(&self) -> IpAddr {
        self.host
    }

    /// Variables that point a docker client at the sandbox.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// `docker args…`, as it ended.
    pub async fn try_docker<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        output(&mut self.command(args)).await
    }

    /// `docker args…`, which must succeed. Returns its trimmed output.
    pub async fn docker<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        checked("run docker", &mut self.command(args)).await
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).envs(&self.environment).env_remove("DOCKER_CONTEXT");
        command
    }

    /// Runs a command in the engine's namespaces, where 127.0.0.1 is the node's.
    pub async fn exec<S: AsRef<OsStr>>(&self, command: &[S]) -> String {
        checked("run a command in the sandbox", script("engine.sh").arg("exec").args(command)).await
    }

    /// Makes a Swarm secret, unless there is one of this name.
    pub async fn secret(&self, name: &str, value: &str) {
        if !self.try_docker(&["secret", "inspect", name]).await.status.success() {
            self.fed(&["secret", "create", name, "-"], value).await;
        }
    }

    /// Builds an image from a Dockerfile that needs no files, unless there is one of this name: for what differs from
    /// another image in a line.
    pub async fn image(&self, name: &str, dockerfile: &str) {
        if !self.try_docker(&["image", "inspect", name]).await.status.success() {
            self.fed(&["build", "-q", "-t", name, "-"], dockerfile).await;
        }
    }

    /// `docker args…`, which must succeed, with this on its standard input.
    async fn fed(&self, args: &[&str], input: &str) {
        let mut command = self.command(args);
        // The other builder is a plugin, which nobody has to have.
        command
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("docker can be run");
        let mut pipe = child.stdin.take().expect("it was asked for");
        pipe.write_all(input.as_bytes()).await.expect("docker reads its input");
        drop(pipe);
        let done = child.wait_with_output().await.expect("docker ends");
        assert!(done.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Makes an attachable overlay network, unless there is one of this name.
    pub async fn network(&self, name: &str) {
        if !self.try_docker(&["network", "inspect", name]).await.status.success() {
            self.docker(&["network", "create", "--driver", "overlay", "--attachable", name]).await;
        }
    }

    /// `docker stack deploy` of a file with these variables, under this name.
    pub async fn deploy(&self, file: &Path, name: &str, variables: &[(&str, &str)]) -> Stack<'_> {
        let file = file.to_str().expect("paths of the repository are text");
        let mut command = self.command(&["stack", "deploy", "--resolve-image", "never", "-c", file, name]);
        let stack = Stack { sandbox: self, name: name.to_owned(), is_removed: false };
        checked("deploy a stack", command.envs(variables.iter().copied())).await;
        stack
    }

    /// Runs a command in the one running container of a service. For tests only: Skep itself never does.
    pub async fn exec_in_service<S: AsRef<OsStr>>(&self, service: &str, command: &[S]) -> String {
        let container = self.container(service).await;
        let mut args: Vec<&OsStr> = vec!["exec".as_ref(), container.as_ref()];
        args.extend(command.iter().map(AsRef::as_ref));
        self.docker(&args).await
    }

    /// A running container of a service, waited for.
    pub async fn container(&self, service: &str) -> String {
        let label = format!("label=com.docker.swarm.service.name={service}");
        eventually(&format!("a container of {service}"), PATIENCE, async || {
            let listed = self.docker(&["ps", "-q", "--filter", &label]).await;
            listed.lines().next().map(str::to_owned).ok_or_else(|| "there is none".to_owned())
        })
        .await
    }

    /// Removes a volume as soon as the last container that used it is gone: those of ended jobs go a little later.
    pub async fn remove_volume(&self, name: &str) {
        eventually(&format!("the end of volume {name}"), PATIENCE, async || {
            let removed = self.try_docker(&["volume", "rm", "-f", name]).await;
            let said = || String::from_utf8_lossy(&removed.stderr).into_owned();
            if removed.status.success() { Ok(()) } else { Err(said()) }
        })
        .await;
    }

    /// GET of a host-mode port of the node, from the host.
    pub async fn http_get(&self, port: u16, path: &str) -> Result<Answer, String> {
        http_get(SocketAddr::new(self.address, port), path).await
    }
}

// === impl Stack ===

impl Stack<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The full name of one of its services.
    pub fn service(&self, short: &str) -> String {
        format!("{}_{short}", self.name)
    }

    /// Removes the stack and its volumes, and waits until nothing of it is left.
    pub async fn remove(mut self) {
        self.is_removed = true;
        let sandbox = self.sandbox;
        sandbox.docker(&["stack", "rm", &self.name]).await;
        let label = format!("label=com.docker.stack.namespace={}", self.name);
        // Containers too that have stopped: they hold on to volumes.
        for (what, list) in [("service", "-q"), ("container", "-aq"), ("network", "-q")] {
            eventually(&format!("the end of every {what} of {}", self.name), PATIENCE, async || {
                let left = sandbox.docker(&[what, "ls", list, "--filter", &label]).await;
                if left.is_empty() { Ok(()) } else { Err(left) }
            })
            .await;
        }
        let volumes = sandbox.docker(&["volume", "ls", "-q", "--filter", &label]).await;
        for volume in volumes.lines() {
            sandbox.remove_volume(volume).await;
        }
    }
}

impl Drop for Stack<'_> {
    /// A test that failed leaves no stack to the next one.
    fn drop(&mut self) {
        if !self.is_removed {
            let mut command = std::process::Command::new("docker");
            command.args(["stack", "rm", &self.name]).envs(&self.sandbox.environment);
            if let Err(error) = command.stdout(Stdio::null()).stderr(Stdio::null()).status() {
                eprintln!("could not remove the stack {}: {error}", self.name);
            }
        }
    }
}

/// Repeats `probe` until it gives a value; panics with its last reason after `within`.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_millis(50);
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(reason) if Instant::now() >= deadline => {
                panic!("waited {within:?} for {what}; last seen: {reason}")
            }
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 3 / 2).min(Duration::from_secs(1));
    }
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A stack name that no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:06x}", rand::random_range(0..0x0100_0000))
}

/// A host-mode port that no other test of this process uses.
pub fn unique_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that begin together have neighbouring ids.
    let first = 20_000 + u16::try_from(std::process::id() * 37 % 1_000).expect("less than 1000") * 10;
    first + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// GET of a path; any HTTP answer is one, also an error.
pub async fn http_get(target: SocketAddr, path: &str) -> Result<Answer, String> {
    timeout(Duration::from_secs(5), get(target, path)).await.map_err(|_| "no answer in time".to_owned())?
}

async fn get(target: SocketAddr, path: &str) -> Result<Answer, String> {
    let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "shop.example").body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let (head, body) = sender.send_request(request).await.map_err(|error| error.to_string())?.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

fn script(name: &str) -> Command {
    Command::new(repository("tests/sandbox").join(name))
}

/// `export NAME='value'`.
fn exported(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    Some((name.to_owned(), value.trim_matches('\'').to_owned()))
}

async fn output(command: &mut Command) -> Output {
    command.kill_on_drop(true).stdin(Stdio::null()).output().await.expect("the program can be run")
}

/// Runs a command, which must succeed. Returns its trimmed output.
pub async fn checked(what: &str, command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output(command).await;
    let shown = command.as_std();
    assert!(status.success(), "could not {what}: {shown:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).trim().to_owned()
}
