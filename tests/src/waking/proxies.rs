//! The application and the proxies in front of it.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use futures::future::{BoxFuture, pending};
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use skep_waker::task::{Ask, Mode, Port, Protocol, Task, Token};
use skep_waker::{SCHEMA, Settings, Upstream, Waker};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Duration, sleep};

use crate::debian;
use crate::downtime::say;

/// What the application answers.
pub(super) const BODY: &[u8] = &[b'x'; 1_024];
/// Not of the clients, nor of the waker: one of the loopback interface all the same.
const APPLICATION: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// As Debian's `nobody`.
const NOBODY: u32 = 65_534;

/// An application, and three proxies in front of it; gone when dropped.
pub struct Proxies {
    /// The waker.
    pub waker: SocketAddr,
    /// nginx that asks the application before each request whether it may pass.
    pub nginx: SocketAddr,
    /// nginx that passes requests only.
    pub plain: SocketAddr,
    dir: PathBuf,
    _processes: Vec<Child>,
}

impl Proxies {
    /// Starts all of them. `program` runs [`application`] and [`waker`] when told so.
    ///
    /// # Panics
    /// When one does not start.
    pub async fn start(program: &Path) -> Proxies {
        let (application, app) = told(Command::new(program).arg("application")).await;
        let (waking, waker) = told(Command::new(program).arg("waker").arg(app.to_string())).await;
        let dir = std::env::temp_dir().join(format!("skep-bench-wake-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for nginx");
        let (nginx, plain) = (free(), free());
        std::fs::write(dir.join("nginx.conf"), conf(&dir, app, nginx, plain)).expect("nginx's configuration");
        // The signal comes also when this process dies.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if owner(&dir) == 0 {
            std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).expect("nginx's own directory");
            let nobody = NOBODY.to_string();
            command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
        }
        let server = command
            .arg(debian::program("nginx", "usr/sbin/nginx"))
            .args(["-e", "stderr", "-p"])
            .arg(&dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .spawn()
            .expect("nginx starts");
        let all = Proxies { waker, nginx, plain, dir, _processes: vec![application, waking, server] };
        for at in [waker, nginx, plain] {
            all.listens(at).await;
        }
        all
    }

    async fn listens(&self, at: SocketAddr) {
        for _ in 0..200 {
            if TcpStream::connect(at).await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(25)).await;
        }
        panic!("nothing listens on {at}");
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        for process in &self._processes {
            // nginx ends its workers only when it is told to end.
            let Some(id) = process.id() else { continue };
            drop(std::process::Command::new("kill").args(["-TERM", &id.to_string()]).status());
        }
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

fn owner(path: &Path) -> u32 {
    std::fs::metadata(path).map_or(NOBODY, |m| std::os::unix::fs::MetadataExt::uid(&m))
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address")
}

/// Starts a process that tells where it listens.
async fn told(command: &mut Command) -> (Child, SocketAddr) {
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("this program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it tells")).lines();
    let line = lines.next_line().await.expect("it tells").expect("it tells where it listens");
    (child, line.parse().expect("an address"))
}

fn conf(dir: &Path, app: SocketAddr, nginx: SocketAddr, plain: SocketAddr) -> String {
    let dir = dir.display();
    format!(
        r#"
daemon off;
worker_processes 2;
pid {dir}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    upstream app {{ server {app}; keepalive 256; keepalive_requests 100000000; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    server {{
        listen {nginx};
        location / {{ auth_request /auth; proxy_pass http://app; }}
        location = /auth {{ internal; proxy_pass http://app; proxy_pass_request_body off; proxy_set_header Content-Length "";
            proxy_set_header Connection ""; }}
    }}
    server {{
        listen {plain};
        location / {{ proxy_pass http://app; }}
    }}
}}
"#
    )
}

/// The application: answers everything with the same kibibyte. Never ends.
///
/// # Errors
/// When it cannot listen.
pub async fn application() -> io::Result<()> {
    let listener = TcpListener::bind((APPLICATION, 0)).await?;
    say(&listener.local_addr()?.to_string());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(BODY))))
            });
            // Ends with the connection.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

/// The waker, with an application that is there. Never ends.
///
/// # Errors
/// When it cannot listen.
pub async fn waker(application: SocketAddr) -> io::Result<()> {
    let task = Task {
        schema: SCHEMA,
        service: "app".to_owned(),
        networks: Vec::new(),
        ports: vec![Port { port: 0, protocol: Protocol::Http }],
        mode: Mode::Hold,
        timeout_s: 60,
        retry_after_s: 5,
        // Nobody is asked: the application is there before the first request.
        ask: Ask {
            url: "http://127.0.0.1:9/v1/wake".to_owned(),
            token: Token::new("none"),
            sleep: "bench".to_owned(),
        },
        ignore: Vec::new(),
        html: String::new(),
        json: String::new(),
        door: None,
    };
    let waker = Waker::bind(task, There(application), Settings::default()).map_err(io::Error::other)?;
    let port = waker.addresses().first().map_or(0, SocketAddr::port);
    say(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string());
    waker.run(pending()).await;
    Ok(())
}

/// An application whose address is known.
struct There(SocketAddr);

impl Upstream for There {
    fn hosts(&self) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![self.0.ip()]) })
    }

    fn is_own(&self, _: IpAddr) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }

    fn socket(&self, host: IpAddr, _: u16) -> SocketAddr {
        SocketAddr::new(host, self.0.port())
    }
}
