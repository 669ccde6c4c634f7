//! A PostgreSQL server in the job itself, on a copy of the live one's files: it listens on a socket in its own directory
//! only, starts no worker that would reach out, and takes none of the live server's configuration.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::base::unpacking;
use crate::error::{Error, Result};
use crate::job::{Job, Room};
use crate::stop;
use crate::store::Whole;
use crate::task::Connect;
use crate::tool::{self, Tool};

/// A server refuses to run as root: as this user it does, where the live data does not tell a better one.
const USER: &str = "postgres:";
/// What must stay free where the scratch is, as a share of all.
const LEAST: u64 = 10;
/// What the log that is replayed may take besides.
const LOG_ROOM: u64 = 2 << 30;

/// Directory and owner of a scratch server. Its files go when it is dropped.
pub(super) struct Scratch<'a> {
    job: &'a Job,
    owner: Option<(u32, u32)>,
}

/// What the live server has set, and a scratch server has to have as well.
#[derive(Clone, Debug, serde::Deserialize)]
pub(super) struct Settings {
    /// The role that may do everything.
    pub(super) superuser: String,
    /// `max_prepared_transactions`.
    pub(super) prepared: u32,
    /// `max_locks_per_transaction`.
    pub(super) locks: u32,
}

// === impl Scratch ===

impl<'a> Scratch<'a> {
    /// Makes the directory anew, where there is room for a cluster of this size.
    pub(super) fn new(job: &'a Job, size: u64) -> Result<Scratch<'a>> {
        let scratch = Scratch { job, owner: owner(job)? };
        scratch.clear()?;
        let wrong = |error| Error::io(format!("cannot make {}", job.scratch.display()))(error);
        fs::create_dir_all(&job.scratch).map_err(wrong)?;
        for dir in ["", "data", "have", "want"] {
            let path = scratch.path(dir);
            fs::create_dir_all(&path).map_err(wrong)?;
            fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(wrong)?;
            scratch.give(&path)?;
        }
        let need = size.saturating_add(size / 5).saturating_add(LOG_ROOM);
        let Room { free, capacity } = scratch.room()?;
        if free < need.saturating_add(capacity / LEAST) {
            let mib = |bytes: u64| bytes >> 20;
            return Err(Error::NoRoom(format!(
                "a scratch server needs {} MiB besides the {} MiB that must stay free; only {} MiB are free where the job runs",
                mib(need),
                mib(capacity / LEAST),
                mib(free)
            )));
        }
        Ok(scratch)
    }

    /// A path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.job.scratch.clone() } else { self.job.scratch.join(name) }
    }

    /// Writes a file that the server reads.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        let wrong = |error| Error::io(format!("cannot write {}", path.display()))(error);
        let mut file = fs::File::create(&path).map_err(wrong)?;
        file.write_all(text.as_bytes()).map_err(wrong)?;
        self.give(&path)
    }

    /// Gives a file to the server.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        chown(path, Some(user), Some(group))
            .map_err(Error::io(format!("cannot give {} to the server", path.display())))
    }

    /// Unpacks a base backup, and has every file of it checked against the server's own list.
    pub(super) fn unpack(&self, whole: &Whole) -> Result<()> {
        self.job.out.progress("unpack", 0, None);
        let mut gzip = Tool::start(unpacking(whole)?.arg("-dc").stdout(Stdio::piped()))?;
        let mut tar = Command::new(tool::first_of(&["tar"])?);
        self.as_owner(&mut tar);
        tar.args(["-x", "-f", "-", "-C"])
            .arg(self.path("data"))
            .stdin(Stdio::from(gzip.stdout().expect("standard output was piped")))
            .stdout(Stdio::null());
        let mut tar = Tool::start(&mut tar)?;
        while !tar.has_ended()? {
            self.has_room()?;
            stop::pause()?;
        }
        gzip.finish()?;
        tar.finish()?;
        whole.is_untouched()?;
        self.verify()
    }

    /// Where the image lacks the program, the checksums of Skep's own manifest have to do.
    fn verify(&self) -> Result<()> {
        let Ok(program) = tool::first_of(&["pg_verifybackup"]) else { return Ok(()) };
        self.job.out.progress("verify", 0, None);
        let mut verify = Command::new(program);
        self.as_owner(&mut verify);
        // The log is not in the base.
        verify.args(["-n", "-q"]).arg(self.path("data")).stdin(Stdio::null()).stdout(Stdio::null());
        Tool::start(&mut verify)?.finish()
    }

    /// Puts the configuration there, and what makes the server recover.
    pub(super) fn configure(&self, settings: &Settings, until: Option<&str>) -> Result<()> {
        let dir = self.job.scratch.display();
        let mut conf = format!(
            "listen_addresses = ''\nunix_socket_directories = '{dir}'\nport = {PORT}\n\
             hba_file = '{dir}/hba'\nident_file = '{dir}/ident'\n\
             max_connections = 20\nmax_prepared_transactions = {}\nmax_locks_per_transaction = {}\n\
             shared_buffers = 64MB\nmax_wal_size = 512MB\ncheckpoint_timeout = 1h\n\
             fsync = off\nfull_page_writes = off\nsynchronous_commit = off\nautovacuum = off\n\
             max_worker_processes = 0\nmax_parallel_workers = 0\nmax_logical_replication_workers = 0\n\
             max_wal_senders = 0\nmax_replication_slots = 0\nhot_standby = off\narchive_mode = off\n\
             logging_collector = off\nlog_destination = 'stderr'\nlog_line_prefix = ''\nlc_messages = 'C'\n\
             restore_command = 'sh {dir}/fetch %f %p'\nrecovery_target_timeline = 'latest'\n",
            settings.prepared.max(64),
            settings.locks.max(64),
        );
        if let Some(until) = until {
            // Where this is read, the server does not know yet that `Z` is a zone.
            let until = until.replace('T', " ").replace('Z', "+00");
            conf += &format!("recovery_target_time = '{until}'\nrecovery_target_action = 'promote'\n");
        }
        self.write("conf", &conf)?;
        self.write("hba", "local all all trust\n")?;
        self.write("ident", "")?;
        self.write("fetch", &fetch(&dir.to_string()))?;
        // The live server's own: it is read whatever the configuration file is.
        self.write("data/postgresql.auto.conf", "")?;
        self.write("data/recovery.signal", "")
    }

    /// Starts the server.
    pub(super) fn start(&self) -> Result<Tool> {
        let mut command = Command::new(tool::first_of(&["postgres"])?);
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(variable);
            }
        }
        command.env_remove("LC_ALL").env("LC_MESSAGES", "C");
        self.as_owner(&mut command);
        command
            .arg("-D")
            .arg(self.path("data"))
            .arg("-c")
            .arg(format!("config_file={}", self.path("conf").display()))
            .current_dir(self.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Tool::start(&mut command)
    }

    /// How to reach it.
    pub(super) fn connect(&self, settings: &Settings) -> Connect {
        Connect {
            host: self.job.scratch.display().to_string(),
            port: PORT,
            user: settings.superuser.clone(),
            password_file: None,
        }
    }

    /// Refuses to go on when too little would be left.
    pub(super) fn has_room(&self) -> Result<()> {
        let Room { free, capacity } = self.room()?;
        if free >= capacity / LEAST {
            return Ok(());
        }
        Err(Error::NoRoom(format!(
            "only {} MiB are free where the job runs, {} MiB must stay free",
            free >> 20,
            (capacity / LEAST) >> 20
        )))
    }

    fn room(&self) -> Result<Room> {
        let stat = rustix::fs::statvfs(&self.job.scratch);
        let stat = stat.map_err(Error::errno("cannot measure the room where the job runs"))?;
        Ok(Room::of(&stat))
    }

    fn as_owner(&self, command: &mut Command) {
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
    }

    fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(&self.job.scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("cannot empty {}", self.job.scratch.display()))(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        // Best effort: it goes with the job's container.
        let _left = self.clear();
    }
}

/// It listens on a socket whose name this is part of.
const PORT: u16 = 5432;

/// What the server calls for a file: it asks the job, which alone may read the store. A code above 125 ends the recovery,
/// where any other would mean that there is no such file.
fn fetch(dir: &str) -> String {
    format!(
        "cd '{dir}' || exit 200\ngrep -qx \"$1\" names || exit 1\ntarget=data/$2\n\
         [ -e \"have/$1\" ] || : > \"want/$1\" || exit 200\ntries=0\n\
         while [ ! -e \"have/$1\" ]; do\n  tries=$((tries + 1))\n  [ $tries -lt 30000 ] || exit 200\n  sleep 0.01 || exit 200\ndone\n\
         mv \"have/$1\" \"$target\" || exit 200\n"
    )
}

/// Whose the live server's files are; nobody's where the job itself is not root.
fn owner(job: &Job) -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let one_below = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let mut dirs = vec![job.data.clone()];
    dirs.extend(one_below(&job.data));
    let deeper: Vec<PathBuf> = dirs[1..].iter().flat_map(|dir| one_below(dir)).collect();
    dirs.extend(deeper);
    let of_data = dirs.iter().find_map(|dir| fs::metadata(dir.join("PG_VERSION")).ok());
    if let Some(found) = of_data.filter(|found| found.uid() != 0) {
        return Ok(Some((found.uid(), found.gid())));
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = users.lines().find_map(|line| {
        let mut parts = line.strip_prefix(USER)?.split(':').skip(1);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    });
    ids.map(Some).ok_or_else(|| Error::refused("no user is known that a scratch server could run as"))
}
