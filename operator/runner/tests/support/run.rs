//! The runner as a job starts it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use skep_runner::line::{Fault, FaultKind, Line, Progress};
use skep_runner::manifest::Manifest;
use skep_runner::task::{Binary, PgDump, PgDumped, PgSeal, Report, Stored, Task, Ticket};

use super::cluster::{Cluster, bin};

/// A runner to be started.
pub struct Runner {
    /// The command; more may be set.
    pub command: Command,
    ticket: Ticket,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code, none where a signal ended it.
    pub code: Option<i32>,
    /// The report.
    pub report: Option<Report>,
    /// The fault.
    pub fault: Option<Fault>,
    /// Progress lines.
    pub progress: Vec<Progress>,
    /// All of standard output and standard error.
    pub text: String,
}

impl Runner {
    /// The runner with a ticket for `task`; each call is another attempt of the same step.
    pub fn new(cluster: &Cluster, task: Task) -> Runner {
        Runner::with_ticket(cluster, next_attempt(task))
    }

    /// The runner with a ticket of one's own.
    pub fn with_ticket(cluster: &Cluster, ticket: Ticket) -> Runner {
        let mut runner = Runner::at(&cluster.dir, ticket);
        let path_variable = format!("{}:{}", bin().display(), std::env::var("PATH").unwrap());
        runner.command.env("PATH", path_variable);
        runner
    }

    /// The binary for the ticket's task, in a directory with a store and data.
    pub fn at(dir: &Path, ticket: Ticket) -> Runner {
        let path = dir.join(format!("ticket-{}.json", ticket.session));
        fs::write(&path, serde_json::to_vec(&ticket).unwrap()).unwrap();
        let mut command = Command::new(match ticket.task.binary() {
            Binary::Databases => env!("CARGO_BIN_EXE_skep-runner"),
            Binary::Directories => env!("CARGO_BIN_EXE_skep-runner-dir"),
            Binary::Log => env!("CARGO_BIN_EXE_skep-runner-wal"),
            Binary::Services => env!("CARGO_BIN_EXE_skep-runner-service"),
        });
        command
            .args(["task", "--ticket"])
            .arg(path)
            .env("SKEP_RUNNER_STORE", dir.join("store"))
            .env("SKEP_RUNNER_DATA", dir.join("data"))
            .env("SKEP_RUNNER_SCRATCH", dir.join("scratch"))
            // What the service's own environment may hold.
            .env("PGDATA", "/nowhere")
            .env("PGHOST", "wrong.invalid")
            .env("PGSERVICE", "wrong")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Runner { command, ticket }
    }

    /// `application_name` of this attempt.
    pub fn session(&self) -> &str {
        &self.ticket.session
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Runner {
        self.command.env(name, value);
        self
    }

    /// The same in namespaces of its own, made by `unshare`; `first` is a shell command that prepares them.
    pub fn apart(&self, namespaces: &[&str], first: &str) -> Command {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(namespaces).args(["sh", "-c", &format!("{first} && exec \"$0\" \"$@\"")]);
        command.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            command.env(name, value.unwrap());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The same where a file system may be mounted; `first` prepares that, and `after` is run in the same space.
    pub fn in_small_space(&self, first: &str, after: &str) -> Command {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", &format!("{first} && \"$0\" \"$@\" {after}")]);
        command.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            command.env(name, value.unwrap());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The same with a store of 2 MiB, which has the backup `one` that it has now. Exits with 9 where that has changed, where
    /// there is another manifest, or where a file of `two` has the name that it would have when whole.
    pub fn in_small_store(&self, store: &Path) -> Command {
        let store = store.display();
        let first = format!(
            "cp -a {store} {store}.kept && mount -t tmpfs -o size=2m none {store} && cp -a {store}.kept/. {store}"
        );
        let after = format!(
            "; code=$?; diff -r {store}.kept/one {store}/one >&2 || exit 9; [ $(find {store} -name manifest.json | wc -l) = 1 ] \
             && [ -d {store}/two ] && [ -z \"$(find {store}/two -type f ! -name '*.part')\" ] || exit 9; exit $code"
        );
        self.in_small_space(&first, &after)
    }

    /// Starts it.
    pub fn spawn(mut self) -> Child {
        self.command.spawn().unwrap()
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        Outcome::of(self.spawn())
    }
}

impl Outcome {
    /// Waits for a started runner.
    pub fn of(child: Child) -> Outcome {
        let output = child.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let mut outcome = Outcome {
            code: output.status.code(),
            report: None,
            fault: None,
            progress: Vec::new(),
            text: format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)),
        };
        let mut report = String::new();
        for line in stdout.lines() {
            match serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")) {
                Line::Progress(progress) => outcome.progress.push(progress),
                Line::Report { text, .. } => report += &text,
                Line::Fault(fault) => outcome.fault = Some(fault),
            }
        }
        if !report.is_empty() {
            outcome.report = Some(serde_json::from_str(&report).unwrap());
        }
        outcome
    }

    /// The report of a run that must have succeeded.
    pub fn done(self) -> Report {
        assert_eq!(self.code, Some(0), "{}", self.text);
        self.report.expect("a successful run reports")
    }

    /// The message of a run that must have ended with a fault that no other attempt mends.
    pub fn refused(self) -> String {
        assert_eq!(self.code, Some(2), "{}", self.text);
        let fault = self.fault.expect("a failed run tells why");
        assert_ne!(fault.kind, FaultKind::Transient);
        fault.message
    }

    /// The message of a run that must have ended with a transient fault.
    pub fn put_off(self) -> String {
        assert_eq!(self.code, Some(1), "{}", self.text);
        let fault = self.fault.expect("a failed run tells why");
        assert_eq!(fault.kind, FaultKind::Transient);
        fault.message
    }
}

/// A ticket of a new attempt of the same step.
pub fn next_attempt(task: Task) -> Ticket {
    static ATTEMPT: AtomicU32 = AtomicU32::new(1);
    let attempt = ATTEMPT.fetch_add(1, Ordering::SeqCst);
    Ticket {
        schema: skep_runner::SCHEMA,
        session: format!("skep-op-step-{attempt}"),
        fence: "skep-op-step-".into(),
        anchors: None,
        task,
    }
}

/// Runs a task to its end.
pub fn run_with(cluster: &Cluster, task: Task) -> Outcome {
    Runner::new(cluster, task).run()
}

impl Cluster {
    /// Dumps a database.
    pub fn dump(&self, database: &str, dir: &str) -> PgDumped {
        let task = PgDump { connect: self.connect(), database: database.into(), dir: dir.into() };
        match run_with(self, Task::PgDump(task)).done() {
            Report::PgDump(dumped) => *dumped,
            other => panic!("{other:?}"),
        }
    }

    /// Dumps and seals a database under the id `dir`.
    pub fn back_up(&self, database: &str, dir: &str) -> Stored {
        let manifest = manifest(dir, self.dump(database, dir));
        match run_with(self, Task::PgSeal(PgSeal { dir: dir.into(), manifest })).done() {
            Report::PgSeal { manifest_sha256, .. } => {
                Stored { id: dir.into(), dir: dir.into(), manifest_sha256 }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The manifest that the operator would write.
pub fn manifest(id: &str, dumped: PgDumped) -> Manifest {
    Manifest {
        schema: skep_runner::SCHEMA,
        id: id.into(),
        service: "shop_db".into(),
        engine: "postgres".into(),
        image: "postgres:15@sha256:0".into(),
        spec: serde_json::json!({"Name": "shop_db"}),
        server_version: dumped.server_version,
        tool_version: dumped.tool_version,
        started: dumped.started,
        ended: dumped.ended,
        artefacts: dumped.artefacts,
        database: Some(dumped.database),
        contents: None,
        base: None,
        roles: dumped.roles,
    }
}
