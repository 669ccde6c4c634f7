//! Clusters on loopback in temporary directories. A cluster ends and its files go when the test's process
//! ends, however it ends: a shell holds the server and waits for the end of its standard input.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use skep_runner::task::{Connect, Named};

/// Password of every role; odd on purpose.
pub const PASSWORD: &str = "S3kret 'pa\\ss\" wörd";
/// `nobody`: the server refuses to run as root.
pub(super) const NOBODY: u32 = 65_534;

/// A running cluster with a superuser `post gres` and a store directory.
pub struct Cluster {
    /// Directory of the cluster, its store and its password file.
    pub dir: PathBuf,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    keeper: Child,
}

impl Cluster {
    /// Starts a cluster.
    pub fn start() -> Cluster {
        Cluster::start_with("")
    }

    /// Starts a cluster with further lines of configuration.
    pub fn start_with(conf: &str) -> Cluster {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = scratch().join(NUMBER.fetch_add(1, Ordering::SeqCst).to_string());
        fs::create_dir(&dir).unwrap();
        fs::create_dir(dir.join("store")).unwrap();
        fs::write(dir.join("password"), format!("{PASSWORD}\n")).unwrap();
        done(Command::new("cp").arg("-a").arg(template()).arg(dir.join("data")));
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let fixed = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = off\n\
             max_prepared_transactions = 4\nwal_level = logical\nshared_buffers = 16MB\n"
        );
        let path = dir.join("data/postgresql.conf");
        fs::write(&path, format!("{}{fixed}{conf}", fs::read_to_string(&path).unwrap())).unwrap();
        own(&dir, &dir.join("data/postgresql.conf"));
        let keeper = keep(&dir);
        let cluster = Cluster { dir, port, keeper };
        cluster.is_up();
        cluster
    }

    fn is_up(&self) {
        let began = Instant::now();
        while self.psql_as("post gres", "postgres", "SELECT 1").is_err() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_secs(60), "the cluster does not start: {log}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How to reach it as the superuser.
    pub fn connect(&self) -> Connect {
        Connect {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "post gres".into(),
            password_file: Some(self.dir.join("password").to_str().unwrap().into()),
        }
    }

    /// A new directory that belongs to the server.
    pub fn server_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).unwrap();
        own(&self.dir, &dir);
        dir
    }

    /// Root of the backup store.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Runs SQL as the superuser; what it prints, without the last newline.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.psql_as("post gres", database, sql).unwrap_or_else(|said| panic!("{sql}\n{said}"))
    }

    /// Runs SQL as any role; the error is what psql says.
    pub fn psql_as(&self, user: &str, database: &str, sql: &str) -> Result<String, String> {
        let output = self.client("psql", user, database).args(["-c", sql]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// A psql-like client tool.
    pub fn client(&self, tool: &str, user: &str, database: &str) -> Command {
        let quoted = database.replace('\\', "\\\\").replace('\'', "\\'");
        let mut command = Command::new(bin().join(tool));
        command
            .env("PGPASSWORD", PASSWORD)
            .env("PGAPPNAME", "test")
            .args(["-d", &format!("dbname='{quoted}' host=127.0.0.1 port={} user='{user}'", self.port)]);
        if tool == "psql" {
            command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        }
        command
    }

    /// A database by name.
    pub fn named(&self, name: &str) -> Named {
        let literal = name.replace('\'', "''");
        let oid = self.sql("postgres", &format!("SELECT oid FROM pg_database WHERE datname = '{literal}'"));
        Named { name: name.into(), oid: oid.parse().unwrap_or_else(|_| panic!("no database `{name}`")) }
    }

    /// Names of all databases but the cluster's own.
    pub fn databases(&self) -> String {
        self.sql(
            "postgres",
            "SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_database
             WHERE datname NOT IN ('postgres', 'template0', 'template1')",
        )
    }

    /// Major version of the server.
    pub fn major(&self) -> u32 {
        self.sql("postgres", "SHOW server_version_num").parse::<u32>().unwrap() / 10_000
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

/// Directory of the PostgreSQL programs: `SKEP_TEST_PG_BIN`, else the newest of Debian's.
pub fn bin() -> PathBuf {
    if let Some(bin) = std::env::var_os("SKEP_TEST_PG_BIN") {
        return bin.into();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let Some(newest) = newest else {
        panic!("PostgreSQL is not installed: apt-get install --no-install-recommends postgresql-15");
    };
    format!("/usr/lib/postgresql/{newest}/bin").into()
}

/// A directory that goes when the process ends.
pub(super) fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("skep-runner-test-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let script = "while read -r _; do :; done; exec rm -rf \"$0\"";
        let remover =
            Command::new("sh").args(["-c", script]).arg(&dir).stdin(Stdio::piped()).spawn().unwrap();
        std::mem::forget(remover);
        dir
    })
}

/// A fresh data directory, made once a process.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let dir = scratch().join("template");
        let password = scratch().join("initial-password");
        fs::create_dir(&dir).unwrap();
        fs::write(&password, PASSWORD).unwrap();
        own(&dir, &dir);
        own(&dir, &password);
        let mut initdb = unprivileged(bin().join("initdb"));
        initdb.args([
            "-U",
            "post gres",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        done(initdb.arg("--pwfile").arg(&password).arg("-D").arg(&dir).stdout(Stdio::null()));
        dir
    })
}

/// The server under a shell that outlives neither the test nor its own standard input.
fn keep(dir: &Path) -> Child {
    fs::write(dir.join("log"), "").unwrap();
    own(dir, &dir.join("log"));
    let script = "dir=$0; \"$@\" -D \"$dir/data\" >>\"$dir/log\" 2>&1 </dev/null & \
                  while read -r _; do :; done; kill -QUIT $!; wait; rm -rf \"$dir\"";
    let mut keeper = Command::new("sh");
    keeper.args(["-c", script]).arg(dir);
    if is_root() {
        keeper.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    keeper.arg(bin().join("postgres")).stdin(Stdio::piped()).spawn().unwrap()
}

fn unprivileged(program: PathBuf) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command
}

/// Gives `path` to the server's user; `dir` is made passable.
fn own(dir: &Path, path: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    if path.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(super) fn done(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
