//! A real Prometheus of our own on the loopback interface.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::debian;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running Prometheus. Dropping it ends it and removes its data.
pub struct Prometheus {
    process: Child,
    address: SocketAddr,
    directory: PathBuf,
}

/// Runs promtool.
///
/// # Panics
/// When it cannot be run.
pub fn promtool(arguments: &[&str], directory: &Path) -> Output {
    let promtool = debian::program("prometheus", "usr/bin/promtool");
    Command::new(promtool).args(arguments).current_dir(directory).output().expect("promtool runs")
}

// === impl Prometheus ===

impl Prometheus {
    /// Starts one that scrapes `targets` as the job `skep` every 200 ms, with the given rule files.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(targets: &[SocketAddr], rules: &[PathBuf]) -> Prometheus {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback has a free port");
        let address = free.local_addr().expect("a bound socket has an address");
        drop(free);
        let directory =
            std::env::temp_dir().join(format!("skep-prometheus-{}-{}", std::process::id(), address.port()));
        std::fs::create_dir_all(&directory).expect("the temporary directory can be written to");
        let config = serde_json::json!({
            "global": { "scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "1s" },
            "rule_files": rules,
            "scrape_configs": [{ "job_name": "skep", "static_configs": [{ "targets": targets }] }],
        });
        // JSON is YAML.
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, config.to_string()).expect("the directory was made above");
        let log = std::fs::File::create(directory.join("log")).expect("the directory was made above");
        let process = Command::new(debian::program("prometheus", "usr/bin/prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus runs");
        let prometheus = Prometheus { process, address, directory };
        prometheus.until_ready().await;
        prometheus
    }

    /// Where it answers, as a setting names it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The result of an instant query, empty where there is nothing.
    ///
    /// # Panics
    /// When Prometheus refuses the query.
    pub async fn query(&self, expr: &str) -> Vec<Value> {
        let expr = percent_encode(expr);
        let answer = self.get(&format!("/api/v1/query?query={expr}")).await.expect("Prometheus answers");
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// Repeats an instant query until it returns something.
    ///
    /// # Panics
    /// When it returns nothing for a minute.
    pub async fn until(&self, expr: &str) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let result = self.query(expr).await;
            if !result.is_empty() {
                return result;
            }
            assert!(Instant::now() < deadline, "nothing comes of {expr}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every rule was evaluated, and returns the names and errors of those that cannot be.
    ///
    /// # Panics
    /// When some are not evaluated for a minute.
    pub async fn broken_rules(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get("/api/v1/rules").await.expect("Prometheus answers");
            let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
            let rules = || groups.iter().filter_map(|g| g["rules"].as_array()).flatten();
            if rules().next().is_some() && rules().all(|rule| rule["health"] != "unknown") {
                let broken = rules().filter(|rule| rule["health"] != "ok");
                return broken.map(|rule| format!("{}: {}", rule["name"], rule["lastError"])).collect();
            }
            assert!(Instant::now() < deadline, "the rules are not evaluated: {answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/api/v1/status/buildinfo").await.is_none() {
            let log = || std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "Prometheus does not start: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", self.address.to_string());
        let request = request.body(Empty::<Bytes>::new()).ok()?;
        let body = sender.send_request(request).await.ok()?.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn percent_encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
