//! A model of PostgreSQL servers, of directories of files, of the backup store and of caches, for the jobs of Skep and for applications.
//!
//! ```text
//! job (ticket) ─▶ job::PgJob ─ step by step ─▶ Server (databases, sessions) and Store (directories, hashed content)
//! application  ─▶ app::Application ─ sessions, health, answers ─▶ Server
//! ```
//!
//! It keeps what the real runner keeps: repeatable, refusing what it must refuse, checksums before anything of the
//! server is touched, names and OIDs in one transaction. Each step of a job is one such transaction or one stretch
//! of work, so a job that is killed between two of them leaves what a real one would leave.

mod app;
mod backup;
mod checks;
mod commands;
mod files;
mod inspect;
mod job;
mod restore;
mod roles;
mod server;
mod store;
mod stores;
#[cfg(test)]
mod tests;
mod wal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_runner::task::DatabaseProperties;
use skep_runner::{Task, Ticket};

pub use app::{Application, PageServer, Spoils};
pub use files::{Crashing, Files, Holder, Side};
pub use server::{Database, Server, Session};
pub use store::Store;
pub use wal::Log;

use super::workload::{Container, Jobs, Process, View};

/// Source of the default store's mount.
const STORE: &str = "skep-backups";
/// Source of the staging volume's mount. Nodes share it here: every job of a test that uses it runs where the data is.
const STAGE: &str = "skep-stage";

/// Rows by table.
pub type Content = BTreeMap<String, u64>;

/// All servers, caches and the one store. Clones are the same.
#[derive(Clone, Default)]
pub struct Data(Arc<Mutex<World>>);

/// What [`Data`] holds.
#[derive(Default)]
pub struct World {
    /// Servers by the name of the service that runs them.
    pub servers: BTreeMap<String, Server>,
    /// Files by the name of the service that holds them.
    pub files: BTreeMap<String, Files>,
    /// Names of those services by their volumes.
    pub volumes: BTreeMap<String, String>,
    /// The default backup store.
    pub store: Store,
    /// Other stores, by the source of their mount; and what one node has under that name of its own, by `source@node`.
    pub others: BTreeMap<String, Store>,
    /// Stores that do not answer, by the source of their mount or as `s3://bucket/prefix`.
    pub broken: BTreeSet<String>,
    /// What was received of write-ahead logs, by the directory in the store.
    pub logs: BTreeMap<String, Log>,
    /// Caches by the name of the service: their keys.
    pub caches: BTreeMap<String, Vec<String>>,
    /// How long a stretch of work takes.
    pub pace: Pace,
    /// What an application saw and must never see.
    pub violations: Vec<String>,
    /// What jobs were asked to do, in order.
    pub tasks: Vec<Task>,
    /// Room where the data is: free bytes and size.
    pub room: (u64, u64),
    /// What a server of a drill's own does not take as it is.
    pub left_out: Vec<String>,
}

/// How long a stretch of a job's work takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Anything short.
    pub short: Duration,
    /// Each of the two stretches of a dump, and of a full read.
    pub dump: Duration,
    /// Each of the three stretches of a load.
    pub load: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        let ms = Duration::from_millis;
        Pace { short: ms(50), dump: ms(800), load: ms(1_500) }
    }
}

// === impl World ===

impl World {
    /// The key in [`World::others`] of what jobs on a node find under this source of a mount; none for [`World::store`].
    fn other(&mut self, source: &str, node: &str) -> Option<String> {
        let own = format!("{source}@{node}");
        if self.others.contains_key(&own) {
            return Some(own);
        }
        if source == STORE {
            return None;
        }
        self.others.entry(source.to_owned()).or_default();
        Some(source.to_owned())
    }

    /// A store as jobs on a node find it, by the source of its mount or as `s3://bucket/prefix`.
    fn shelf(&mut self, source: &str, node: &str) -> &mut Store {
        match self.other(source, node) {
            None => &mut self.store,
            Some(key) => self.others.get_mut(&key).expect("it was made just now"),
        }
    }

    /// Directories that the staging volume holds.
    pub fn staged(&self) -> Vec<String> {
        self.others.get(STAGE).map(|s| s.dirs.keys().cloned().collect()).unwrap_or_default()
    }

    /// Makes the default store one of each node's own: what it holds is on this node alone.
    pub fn only_on(&mut self, node: &str) {
        let held = std::mem::take(&mut self.store);
        self.others.insert(format!("{STORE}@{node}"), held);
    }
}

// === impl Data ===

impl Data {
    /// Adds a server with one database, owned by `owner`; its service must be made in the simulation as well.
    pub fn add_server(&self, service: &str, database: &str, owner: &str, content: &Content) {
        let mut world = self.lock();
        if world.room == (0, 0) {
            world.room = (80 << 30, 100 << 30);
        }
        let server = world.servers.entry(service.to_owned()).or_insert_with(Server::new);
        let properties = DatabaseProperties {
            owner: owner.to_owned(),
            encoding: "UTF8".to_owned(),
            locale_provider: "c".to_owned(),
            collate: "C.UTF-8".to_owned(),
            ctype: "C.UTF-8".to_owned(),
            tablespace: "pg_default".to_owned(),
            connection_limit: -1,
            roles: vec![owner.to_owned()],
            ..DatabaseProperties::default()
        };
        server.roles.push(owner.to_owned());
        server.create(database, properties, content.clone());
    }

    /// Adds a role that something in a database belongs to.
    pub fn add_role(&self, service: &str, database: &str, role: &str) {
        self.server(service, |server| {
            server.roles.push(role.to_owned());
            if let Some(database) = server.databases.get_mut(database) {
                database.properties.roles.push(role.to_owned());
            }
        });
    }

    /// Takes a role away, and with it what belonged to it.
    pub fn remove_role(&self, service: &str, role: &str) {
        self.server(service, |server| {
            server.roles.retain(|r| r != role);
            server.databases.values_mut().for_each(|d| d.properties.roles.retain(|r| r != role));
        });
    }

    fn server(&self, service: &str, change: impl FnOnce(&mut Server)) {
        change(self.lock().servers.get_mut(service).expect("the test added the server"));
    }

    /// Adds the files of a service in a volume.
    pub fn add_files(&self, service: &str, volume: &str, content: &Content) {
        let mut world = self.lock();
        if world.room == (0, 0) {
            world.room = (80 << 30, 100 << 30);
        }
        world.files.insert(service.to_owned(), Files::of(content.clone()));
        world.volumes.insert(volume.to_owned(), service.to_owned());
    }

    /// What a service holds now: its files, or the database of that name.
    pub fn content_of(&self, service: &str, database: &str) -> Option<Content> {
        let files = self.lock().files.get(service).map(|files| files.live.clone());
        files.or_else(|| self.database(service, database).map(|d| d.content))
    }

    /// Adds a cache with some keys.
    pub fn add_cache(&self, service: &str, keys: &[&str]) {
        let keys = keys.iter().map(|k| (*k).to_owned()).collect();
        self.lock().caches.insert(service.to_owned(), keys);
    }

    /// Looks at everything, or changes it. Must not be called from a workload's callback.
    pub fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        act(&mut self.lock())
    }

    /// A database as it is now.
    pub fn database(&self, service: &str, name: &str) -> Option<Database> {
        self.lock().servers.get(service).and_then(|s| s.databases.get(name)).cloned()
    }

    /// Names of a server's databases.
    pub fn databases(&self, service: &str) -> Vec<String> {
        let world = self.lock();
        world.servers.get(service).map(|s| s.databases.keys().cloned().collect()).unwrap_or_default()
    }

    /// Drops a table of a database: the mishap that a restore mends.
    pub fn drop_table(&self, service: &str, database: &str, table: &str) {
        self.content(service, database, |content| {
            content.remove(table);
        });
    }

    /// Writes rows, as an application does.
    pub fn insert(&self, service: &str, database: &str, table: &str, rows: u64) {
        self.content(service, database, |content| *content.entry(table.to_owned()).or_default() += rows);
    }

    /// What applications saw and must never see.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn content(&self, service: &str, database: &str, change: impl FnOnce(&mut Content)) {
        let mut world = self.lock();
        if let Some(files) = world.files.get_mut(service) {
            return change(&mut files.live);
        }
        let server = world.servers.get_mut(service).expect("the test added the server");
        change(&mut server.databases.get_mut(database).expect("the test made the database").content);
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs for Data {
    fn start(&self, ticket: Ticket, container: &Container, _view: &View<'_>) -> Box<dyn Process> {
        self.lock().tasks.push(ticket.task.clone());
        Box::new(job::PgJob::new(self.clone(), ticket, container.clone()))
    }
}
