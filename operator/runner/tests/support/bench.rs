//! A data directory with a store beside it, and servers of other engines than PostgreSQL.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use skep_runner::manifest::{Artefact, Manifest};
use skep_runner::task::{
    Connect, DataEngine, DirDump, DirDumped, DirExamine, DirLoad, DirLoaded, DirMove, DirMoved, DirSeal,
    Direction, Report, Stored, Task, VolumeRoot,
};

use super::cluster::{NOBODY, PASSWORD, is_root, scratch};
use super::run::{Outcome, Runner, next_attempt};

/// A place for one test.
pub struct Bench {
    /// Its directory, which goes with the process.
    pub dir: PathBuf,
    engine: DataEngine,
}

/// A running server under a shell that outlives neither the test nor its own standard input.
pub struct Server(Child);

impl Bench {
    /// An empty data directory, which belongs to nobody (the user, where the tests run as root), and a store.
    pub fn new(engine: DataEngine) -> Bench {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = scratch().join(format!("b{}", NUMBER.fetch_add(1, Ordering::SeqCst)));
        for inner in ["", "store", "data", "bin"] {
            fs::create_dir(dir.join(inner)).unwrap();
        }
        fs::write(dir.join("password"), format!("{PASSWORD}\n")).unwrap();
        // In Debian's package the server is another name of its checker, whose own package starts no daemon.
        if fs::exists("/usr/bin/redis-check-rdb").unwrap() {
            symlink("/usr/bin/redis-check-rdb", dir.join("bin/redis-server")).unwrap();
        }
        let bench = Bench { dir, engine };
        bench.give_away(&bench.data());
        bench
    }

    /// The live data.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A path as the tasks have it.
    pub fn root(&self) -> String {
        self.data().to_str().unwrap().to_owned()
    }

    /// The user who owns the data.
    pub fn give_away(&self, path: &Path) {
        if is_root() && self.engine != DataEngine::Volume {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// The runner with a ticket for `task`; each call is another attempt of the same step.
    pub fn runner(&self, task: Task) -> Runner {
        let mut runner = Runner::at(&self.dir, next_attempt(task));
        runner.command.env("PATH", self.path());
        runner
    }

    /// Where the programs are.
    pub fn path(&self) -> String {
        format!("{}:{}:/usr/sbin", self.dir.join("bin").display(), std::env::var("PATH").unwrap())
    }

    /// Runs a task to its end.
    pub fn run(&self, task: Task) -> Outcome {
        self.runner(task).run()
    }

    /// How to reach a server.
    pub fn connect(&self, user: &str, port: u16) -> Connect {
        Connect {
            host: "127.0.0.1".into(),
            port,
            user: user.into(),
            password_file: Some(self.dir.join("password").to_str().unwrap().into()),
        }
    }

    /// Starts a server as the owner of the data.
    pub fn serve(&self, program: &str, args: &[&str]) -> Server {
        let log = self.dir.join("server.log");
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
        let script = "log=$0; \"$@\" >>\"$log\" 2>&1 </dev/null & \
                      while read -r _; do :; done; kill -TERM $!; wait";
        let mut keeper = Command::new("sh");
        keeper.env("PATH", self.path()).env("TMPDIR", self.tmp()).args(["-c", script]).arg(log);
        if is_root() {
            keeper.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        Server(keeper.arg(program).args(args).stdin(Stdio::piped()).spawn().unwrap())
    }

    /// A directory of its own for a server's temporary files.
    pub fn tmp(&self) -> PathBuf {
        let tmp = self.dir.join("tmp");
        fs::create_dir_all(&tmp).unwrap();
        fs::set_permissions(&tmp, fs::Permissions::from_mode(0o777)).unwrap();
        tmp
    }

    /// What a failing server said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }

    /// The task that dumps.
    pub fn dump_task(&self, connect: Option<Connect>, dir: &str) -> Task {
        let volumes = match self.engine {
            DataEngine::Volume => vec![VolumeRoot { name: "data".into(), root: self.root() }],
            DataEngine::Redis | DataEngine::Mysql => vec![],
        };
        Task::DirDump(DirDump { engine: self.engine, connect, volumes, dir: dir.into() })
    }

    /// Dumps.
    pub fn dump(&self, connect: Option<Connect>, dir: &str) -> DirDumped {
        match self.run(self.dump_task(connect, dir)).done() {
            Report::DirDump(dumped) => *dumped,
            other => panic!("{other:?}"),
        }
    }

    /// Dumps and seals under the id `dir`.
    pub fn back_up(&self, connect: Option<Connect>, dir: &str) -> Stored {
        let dumped = self.dump(connect, dir);
        self.sealed(dir, self.manifest(dir, dumped))
    }

    /// Seals.
    pub fn sealed(&self, dir: &str, manifest: Manifest) -> Stored {
        let seal = DirSeal { engine: self.engine, dir: dir.into(), manifest };
        match self.run(Task::DirSeal(seal)).done() {
            Report::DirSeal { manifest_sha256, .. } => {
                Stored { id: dir.into(), dir: dir.into(), manifest_sha256 }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A backup that was made elsewhere, registered without having been read.
    pub fn plant(&self, dir: &str, file: &str, bytes: &[u8]) -> Stored {
        let folder = self.dir.join("store").join(dir);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), bytes).unwrap();
        let artefact = Artefact { file: file.into(), size: bytes.len() as u64, sha256: sha256(bytes) };
        let dumped = DirDumped {
            artefacts: vec![artefact],
            server_version: String::new(),
            tool_version: String::new(),
            started: "2026-01-01T00:00:00Z".into(),
            ended: "2026-01-01T00:00:00Z".into(),
            contents: skep_runner::task::Contents::default(),
        };
        let text = serde_json::to_vec(&self.manifest(dir, dumped)).unwrap();
        fs::write(folder.join("manifest.json"), &text).unwrap();
        Stored { id: dir.into(), dir: dir.into(), manifest_sha256: sha256(&text) }
    }

    /// The manifest that the operator would write.
    pub fn manifest(&self, id: &str, dumped: DirDumped) -> Manifest {
        let engine = match self.engine {
            DataEngine::Volume => "volume",
            DataEngine::Redis => "redis",
            DataEngine::Mysql => "mariadb",
        };
        Manifest {
            schema: skep_runner::SCHEMA,
            id: id.into(),
            service: "shop_data".into(),
            engine: engine.into(),
            image: "image@sha256:0".into(),
            spec: serde_json::json!({"Name": "shop_data"}),
            server_version: dumped.server_version,
            tool_version: dumped.tool_version,
            started: dumped.started,
            ended: dumped.ended,
            artefacts: dumped.artefacts,
            database: None,
            contents: Some(dumped.contents),
            base: None,
            roles: None,
        }
    }

    /// The task that reads a backup in full.
    pub fn examine(&self, stored: &Stored) -> Task {
        Task::DirExamine(DirExamine { engine: self.engine, stored: stored.clone() })
    }

    /// The task that loads a backup.
    pub fn load_task(&self, stored: &Stored, side: &str) -> DirLoad {
        DirLoad {
            engine: self.engine,
            stored: stored.clone(),
            file: None,
            root: self.root(),
            side: side.into(),
            settings: None,
            checks: vec![],
            database: None,
        }
    }

    /// Loads.
    pub fn load(&self, stored: &Stored, side: &str) -> DirLoaded {
        match self.run(Task::DirLoad(self.load_task(stored, side))).done() {
            Report::DirLoad(loaded) => *loaded,
            other => panic!("{other:?}"),
        }
    }

    /// The task that moves.
    pub fn move_task(&self, side: &str, direction: Direction) -> Task {
        Task::DirMove(DirMove { root: self.root(), side: side.into(), direction })
    }

    /// Moves.
    pub fn moved(&self, side: &str, direction: Direction) -> DirMoved {
        match self.run(self.move_task(side, direction)).done() {
            Report::DirMove(moved) => moved,
            other => panic!("{other:?}"),
        }
    }
}

impl Server {
    /// Ends it in good order.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
