//! What kind of data a service keeps, and where jobs find it.
//!
//! ```text
//! spec, labels ─▶ Data ┬ Postgres            one database of a server: jobs speak to it
//!                      ├ Directory           files: jobs get its volumes
//!                      │   ├ volume          each volume at /skep/volumes/<name>
//!                      │   └ redis, mysql    the server's data directory at or below /skep/data
//!                      └ Command             what a running service alone tells and takes
//!                          ├ command         by its own commands
//!                          ├ rabbitmq        by its server's tools: the definitions
//!                          └ mongodb         by its server's tools: all databases
//! ```
//! What a job may do to live files follows from its task, never from who asks for it: it sees those volumes that the task
//! names and no others, and may write only where the task is one that writes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skep_runner::task::{DataEngine, ScratchServer, VolumeRoot};
use skep_runner::{DATA_PATH, Task};

use super::rabbitmq;
use crate::policy;

/// What a service keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Data {
    /// Nothing: jobs only run beside it.
    None,
    /// One database of a PostgreSQL server. What plans mean that were written when there was no other engine.
    #[default]
    Postgres,
    /// Files in volumes, with a server on them or without.
    Directory(Directory),
    /// What a running service alone can tell, and take.
    Command(Commands),
}

/// Data that is dumped and loaded by commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commands {
    /// What they are.
    #[serde(flatten)]
    pub by: By,
    /// The service's mounts that they see: where the service has them, unless there is nothing but a cookie in one.
    pub mounts: Vec<Value>,
}

/// What dumps and loads data that a running service alone can tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Commands of the service's labels.
    Commands(policy::Commands),
    /// The tool of a RabbitMQ: its definitions, and no messages.
    Rabbitmq,
    /// The tools of a MongoDB: all of its databases.
    Mongodb,
}

/// Data that is a directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Directory {
    /// The engine.
    pub engine: DirectoryEngine,
    /// Its volumes, at least one; exactly one where there is a server.
    pub volumes: Vec<Volume>,
}

/// Engines whose data is a directory, by their words in `skep.data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DirectoryEngine {
    /// Files of any service.
    Volume,
    /// Redis or Valkey.
    Redis,
    /// MySQL.
    Mysql,
    /// MariaDB.
    Mariadb,
}

/// A volume with data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Name without the stack's: what its archive is called.
    pub name: String,
    /// The service's mount of it.
    pub mount: Value,
    /// Where jobs get it.
    pub at: String,
    /// The data in a job: there, or below.
    pub root: String,
}

/// How a job may use live files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Read them.
    Read,
    /// Read and write them.
    Write,
}

// === impl Data ===

impl Data {
    /// The engine's name in labels, manifests and the catalogue; empty where there is no data.
    pub fn word(&self) -> &'static str {
        match self {
            Data::None => "",
            Data::Postgres => "postgres",
            Data::Directory(directory) => directory.engine.word(),
            Data::Command(Commands { by: By::Commands(_), .. }) => "command",
            Data::Command(Commands { by: By::Rabbitmq, .. }) => "rabbitmq",
            Data::Command(Commands { by: By::Mongodb, .. }) => "mongodb",
        }
    }

    /// The directory, where it is one.
    pub fn directory(&self) -> Option<&Directory> {
        match self {
            Data::Directory(directory) => Some(directory),
            Data::None | Data::Postgres | Data::Command(_) => None,
        }
    }
}

// === impl Commands ===

impl Commands {
    /// The mounts of live data that a task needs. Only the load command of a service's labels may write there.
    pub fn mounts(&self, task: &Task) -> Vec<Value> {
        let read_only = |mount: &Value| {
            let mut mount = mount.clone();
            mount["ReadOnly"] = json!(true);
            mount
        };
        match (task, &self.by) {
            (Task::CommandLoad(_), By::Commands(_)) => self.mounts.clone(),
            (Task::CommandDump(_) | Task::CommandLoad(_), _) => self.mounts.iter().map(read_only).collect(),
            _ => Vec::new(),
        }
    }
}

// === impl By ===

impl By {
    /// The server of the image into which a drill loads; none where only the live service takes the data.
    pub const fn scratch(&self) -> Option<ScratchServer> {
        match self {
            By::Rabbitmq => Some(ScratchServer::Rabbitmq),
            By::Mongodb => Some(ScratchServer::Mongodb),
            By::Commands(_) => None,
        }
    }

    /// What such a backup does not hold, where people may think that it does.
    pub const fn not_held(&self) -> Option<&'static str> {
        match self {
            By::Commands(_) => None,
            By::Rabbitmq => Some(
                "messages are in no backup: they are in the files of the node, which are whole only while it is stopped",
            ),
            By::Mongodb => Some(
                "a backup is of one moment only where the server is a member of a replica set, and comes back as that only where \
                 the login may do `anyAction` on `anyResource`: else each collection is as it was when its turn came; accounts \
                 and roles are in it, and a restore leaves those that there are as they are",
            ),
        }
    }
}

// === impl Directory ===

impl Directory {
    /// The mounts of live files that a task needs.
    pub fn mounts(&self, task: &Task) -> Vec<Value> {
        let Some((roots, how)) = live_files(task) else { return Vec::new() };
        let wanted = self.volumes.iter().filter(|volume| roots.contains(&volume.root.as_str()));
        let mount = |volume: &Volume| {
            let mut mount = volume.mount.clone();
            mount["Target"] = json!(volume.at);
            mount["ReadOnly"] = json!(how == Use::Read);
            mount
        };
        wanted.map(mount).collect()
    }

    /// Whether they are the files of a RabbitMQ, messages among them: whole only while it is stopped, and found again only
    /// by a node of the same name.
    pub fn is_brokers(&self) -> bool {
        self.engine == DirectoryEngine::Volume && self.volumes.iter().any(|v| rabbitmq::is_home(&v.mount))
    }

    /// The user that a task needs, where the service's own does not do: files of any owner are read, and given back to
    /// theirs. Whoever writes into a backup removes it as well, so that all jobs for volumes are one user's.
    pub fn user(&self, task: &Task) -> Option<&'static str> {
        let is_files = self.engine == DirectoryEngine::Volume;
        (is_files || live_files(task).is_some()).then_some("0")
    }

    /// Its volumes as a dump wants them: only where there is no server to ask.
    pub fn dumped(&self) -> Vec<VolumeRoot> {
        let root = |v: &Volume| VolumeRoot { name: v.name.clone(), root: v.root.clone() };
        match self.engine {
            DirectoryEngine::Volume => self.volumes.iter().map(root).collect(),
            DirectoryEngine::Redis | DirectoryEngine::Mysql | DirectoryEngine::Mariadb => Vec::new(),
        }
    }
}

// === impl DirectoryEngine ===

impl DirectoryEngine {
    /// The engine of a word, where it is one of these.
    pub fn of(word: &str) -> Option<DirectoryEngine> {
        use DirectoryEngine::{Mariadb, Mysql, Redis, Volume};
        [Volume, Redis, Mysql, Mariadb].into_iter().find(|engine| engine.word() == word)
    }

    /// The word in the label.
    pub const fn word(self) -> &'static str {
        match self {
            DirectoryEngine::Volume => "volume",
            DirectoryEngine::Redis => "redis",
            DirectoryEngine::Mysql => "mysql",
            DirectoryEngine::Mariadb => "mariadb",
        }
    }

    /// As the runner knows it.
    pub const fn runner(self) -> DataEngine {
        match self {
            DirectoryEngine::Volume => DataEngine::Volume,
            DirectoryEngine::Redis => DataEngine::Redis,
            DirectoryEngine::Mysql | DirectoryEngine::Mariadb => DataEngine::Mysql,
        }
    }

    /// Whether a server answers for the files.
    pub const fn has_server(self) -> bool {
        !matches!(self, DirectoryEngine::Volume)
    }
}

// === impl Volume ===

impl Volume {
    /// A volume whose files are the data.
    pub fn of_files(name: &str, mount: &Value) -> Volume {
        let at = format!("/skep/volumes/{name}");
        Volume { name: name.to_owned(), mount: mount.clone(), root: at.clone(), at }
    }

    /// As [`is_local`].
    pub fn is_local(&self) -> bool {
        is_local(&self.mount)
    }

    /// The volume with a server's data directory `data`, which lies `below` the mount's target.
    pub fn of_server(name: &str, mount: &Value, below: &str) -> Volume {
        let root = format!("{DATA_PATH}/{below}");
        let root = root.trim_end_matches('/').to_owned();
        Volume { name: name.to_owned(), mount: mount.clone(), at: DATA_PATH.to_owned(), root }
    }
}

/// Whether each node has a volume of its own under the name of this mount. A driver that is named, or has options (such as
/// those of NFS), may be reached from everywhere.
pub fn is_local(mount: &Value) -> bool {
    let driver = &mount["VolumeOptions"]["DriverConfig"];
    let is_default = driver["Name"].as_str().is_none_or(|name| name.is_empty() || name == "local");
    is_default && driver["Options"].as_object().is_none_or(serde_json::Map::is_empty)
}

/// The live files that a task works on, and how.
pub fn live_files(task: &Task) -> Option<(Vec<&str>, Use)> {
    match task {
        Task::DirInspect(task) => Some((vec![&task.root], Use::Read)),
        Task::DirDump(task) if task.volumes.is_empty() => None,
        Task::DirDump(task) => Some((task.volumes.iter().map(|v| v.root.as_str()).collect(), Use::Read)),
        Task::DirLoad(task) => Some((vec![&task.root], Use::Write)),
        Task::DirMove(task) => Some((vec![&task.root], Use::Write)),
        Task::DirRemove(task) => Some((vec![&task.root], Use::Write)),
        Task::Probe
        | Task::PgInspect(_)
        | Task::PgDump(_)
        | Task::PgSeal(_)
        | Task::PgExamine(_)
        | Task::PgRestore(_)
        | Task::SqlChecks(_)
        | Task::PgFence(_)
        | Task::PgSwap(_)
        | Task::PgDrop(_)
        | Task::PgCreateRoles(_)
        | Task::PgDropRoles(_)
        | Task::PgInPlace(_)
        | Task::PgTakeBase(_)
        | Task::PgReceive(_)
        | Task::PgRecover(_)
        | Task::PgDropSlot(_)
        | Task::WalPrune(_)
        | Task::NetChecks(_)
        | Task::RedisFlush(_)
        | Task::DirSeal(_)
        | Task::DirExamine(_)
        | Task::DataChecks(_)
        | Task::Store(_)
        | Task::StoreVerify(_)
        | Task::StoreScan(_)
        | Task::LayoutScan(_)
        | Task::LayoutCopy(_)
        | Task::CommandDump(_)
        | Task::CommandSeal(_)
        | Task::CommandExamine(_)
        | Task::CommandLoad(_)
        | Task::CommandDrill(_)
        | Task::CommandChecks(_)
        | Task::Discard(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use skep_runner::task::{DirDump, DirLoad, DirMove, Direction, Means, Reading, ShellCommand, Stored};

    use super::*;

    fn uploads() -> Directory {
        let mount = |source: &str| json!({"Type": "volume", "Source": source, "Target": "/srv", "VolumeOptions": {"DriverConfig": {"Name": "local"}}});
        Directory {
            engine: DirectoryEngine::Volume,
            volumes: ["a", "b"].map(|name| Volume::of_files(name, &mount(&format!("shop_{name}")))).into(),
        }
    }

    fn load(root: &str) -> Task {
        Task::DirLoad(DirLoad {
            engine: DataEngine::Volume,
            stored: Stored { id: String::new(), dir: String::new(), manifest_sha256: String::new() },
            file: None,
            root: root.to_owned(),
            side: "s".to_owned(),
            settings: None,
            checks: Vec::new(),
            database: None,
        })
    }

    #[test]
    fn a_job_sees_the_volumes_of_its_task_and_writes_only_where_the_task_does() {
        let data = uploads();
        let dump =
            DirDump { engine: DataEngine::Volume, connect: None, volumes: data.dumped(), dir: "d".into() };
        let mounts = data.mounts(&Task::DirDump(dump));
        let seen: Vec<_> = mounts.iter().map(|m| (m["Source"].as_str(), m["ReadOnly"].as_bool())).collect();
        assert_eq!(seen, [(Some("shop_a"), Some(true)), (Some("shop_b"), Some(true))]);
        let mounts = data.mounts(&load("/skep/volumes/b"));
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0]["Target"], "/skep/volumes/b");
        assert_eq!(mounts[0]["ReadOnly"], false);
        assert_eq!(mounts[0]["VolumeOptions"]["DriverConfig"]["Name"], "local", "options of the mount count");
        assert_eq!(data.mounts(&Task::Probe), Vec::<Value>::new());
    }

    #[test]
    fn commands_see_the_mounts_that_were_asked_for_and_only_the_one_that_loads_writes() {
        let mount = json!({"Type": "volume", "Source": "v", "Target": "/data"});
        let commands = policy::Commands { dump: "d".into(), load: "l".into(), verify: None };
        let data = Commands { by: By::Commands(commands), mounts: vec![mount.clone()] };
        let means = Means::Shell(ShellCommand { text: "d".into(), host: String::new(), environment: None });
        let dump = skep_runner::task::CommandDump { means: means.clone(), dir: "d".into() };
        let seen = data.mounts(&Task::CommandDump(dump));
        assert_eq!((seen[0]["Target"].as_str(), seen[0]["ReadOnly"].as_bool()), (Some("/data"), Some(true)));
        let stored = Stored { id: String::new(), dir: String::new(), manifest_sha256: String::new() };
        let examine = skep_runner::task::CommandExamine {
            reading: Reading::Checksum,
            engine: "command".into(),
            stored: stored.clone(),
        };
        assert_eq!(data.mounts(&Task::CommandExamine(examine)), Vec::<Value>::new());
        let load =
            Task::CommandLoad(skep_runner::task::CommandLoad { means, engine: "command".into(), stored });
        assert_eq!(data.mounts(&load), [mount]);
        // In the volume of a broker there is a cookie to be read, and messages that are none of a job's business.
        let data = Commands { by: By::Rabbitmq, ..data };
        assert_eq!(data.mounts(&load)[0]["ReadOnly"], true);
    }

    #[test]
    fn what_an_earlier_version_froze_of_commands_can_be_read() {
        let frozen = json!({"kind": "command", "commands": {"dump": "d", "load": "l"}, "mounts": []});
        let read: Data = serde_json::from_value(frozen.clone()).unwrap();
        assert_eq!((read.word(), serde_json::to_value(&read).unwrap()), ("command", frozen));
        let broker = Data::Command(Commands { by: By::Rabbitmq, mounts: vec![json!({})] });
        let read: Data = serde_json::from_value(serde_json::to_value(&broker).unwrap()).unwrap();
        assert_eq!(read, broker);
    }

    #[test]
    fn a_server_is_dumped_as_the_services_user_and_its_files_are_moved_as_root() {
        let mount = json!({"Type": "volume", "Source": "v", "Target": "/var/lib"});
        let volume = Volume::of_server("v", &mount, "mysql");
        assert_eq!(volume.root, "/skep/data/mysql");
        let data = Directory { engine: DirectoryEngine::Mariadb, volumes: vec![volume] };
        let dump =
            DirDump { engine: DataEngine::Mysql, connect: None, volumes: data.dumped(), dir: "d".into() };
        let dump = Task::DirDump(dump);
        assert_eq!((data.mounts(&dump), data.user(&dump)), (Vec::new(), None));
        let root = "/skep/data/mysql".to_owned();
        let moved = Task::DirMove(DirMove { root, side: "s".into(), direction: Direction::Back });
        assert_eq!(data.mounts(&moved)[0]["Target"], "/skep/data");
        assert_eq!(data.user(&moved), Some("0"));
    }
}
