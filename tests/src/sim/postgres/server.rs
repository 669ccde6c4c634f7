//! One PostgreSQL server: databases by name, sessions, and the statements that the runner sends.

use std::collections::BTreeMap;

use skep_runner::task::{DatabaseProperties, Named, PgSwap};

use super::Content;
use crate::sim::workload::View;

/// A server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Databases by name.
    pub databases: BTreeMap<String, Database>,
    /// Sessions by task id; one a task.
    pub sessions: BTreeMap<String, Session>,
    /// Roles.
    pub roles: Vec<String>,
    /// Password of every role; none for trust.
    pub password: Option<String>,
    /// `server_version_num`.
    pub version: u32,
    /// Task that holds the lock of jobs that change databases.
    pub(super) locked_by: Option<String>,
    /// Physical replication slots, and the task that uses each.
    pub slots: BTreeMap<String, String>,
    next_oid: u32,
}

/// A database.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// OID.
    pub oid: u32,
    /// Rows by table.
    pub content: Content,
    /// Whether everything that belongs in it is in it.
    pub whole: bool,
    /// `datallowconn`.
    pub allow: bool,
    /// What a dump leaves out.
    pub properties: DatabaseProperties,
    /// Logical replication slots.
    pub slots: Vec<String>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// OID of its database; 0 for administrative work outside of all.
    pub database: u32,
    /// `application_name`.
    pub application: String,
    /// Client address.
    pub address: String,
    /// Role.
    pub user: String,
}

/// Where a swap stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Before,
    After,
}

// === impl Server ===

impl Server {
    pub(super) fn new() -> Server {
        Server {
            databases: BTreeMap::new(),
            sessions: BTreeMap::new(),
            roles: vec!["postgres".to_owned()],
            password: None,
            version: 170_002,
            locked_by: None,
            slots: BTreeMap::new(),
            next_oid: 16_384,
        }
    }

    /// Makes a database that allows connections.
    pub(super) fn create(&mut self, name: &str, properties: DatabaseProperties, content: Content) -> Named {
        self.next_oid += 1;
        let oid = self.next_oid;
        let database = Database { oid, content, whole: true, allow: true, properties, slots: Vec::new() };
        self.databases.insert(name.to_owned(), database);
        Named { name: name.to_owned(), oid }
    }

    /// Makes a database that nobody may connect to and that has nothing in it yet.
    pub(super) fn create_closed(&mut self, name: &str, properties: DatabaseProperties) -> Named {
        let made = self.create(name, properties, Content::new());
        let database = self.databases.get_mut(name).expect("it was made just now");
        (database.whole, database.allow) = (false, false);
        made
    }

    /// The database of that name.
    pub fn named(&self, name: &str) -> Option<Named> {
        self.databases.get(name).map(|d| Named { name: name.to_owned(), oid: d.oid })
    }

    /// Forgets sessions and locks of containers that are gone.
    pub(super) fn forget_dead(&mut self, view: &View<'_>) {
        self.sessions.retain(|task, _| view.container(task).is_some());
        if self.locked_by.as_ref().is_some_and(|task| !self.sessions.contains_key(task)) {
            self.locked_by = None;
        }
    }

    /// Ends the sessions of older attempts of a step.
    pub(super) fn end_older_attempts(&mut self, fence: &str, own: &str) {
        self.sessions.retain(|_, s| !s.application.starts_with(fence) || s.application == own);
        if self.locked_by.as_ref().is_some_and(|task| !self.sessions.contains_key(task)) {
            self.locked_by = None;
        }
    }

    /// The task that uses a replication slot now.
    pub(super) fn holder_of(&self, slot: &str) -> Option<&String> {
        self.slots.get(slot).filter(|task| self.sessions.contains_key(*task))
    }

    /// Uses a replication slot, which is made where it is absent.
    pub(super) fn hold(&mut self, slot: &str, task: &str) {
        self.slots.insert(slot.to_owned(), task.to_owned());
    }

    /// Drops a replication slot, whoever uses it.
    pub(super) fn drop_slot(&mut self, slot: &str) {
        if let Some(task) = self.slots.remove(slot) {
            self.sessions.remove(&task);
        }
    }

    /// Ends all sessions in databases.
    pub(super) fn end_sessions(&mut self, oids: &[u32]) {
        self.sessions.retain(|_, s| !oids.contains(&s.database));
    }

    /// Allows or refuses connections to all of `databases`, or changes nothing.
    pub(super) fn fence(&mut self, databases: &[Named], allow: bool) -> Result<(), String> {
        for wanted in databases {
            let found = self.databases.get(&wanted.name).map(|d| d.oid);
            if found != Some(wanted.oid) {
                return Err(unexpected(wanted, found));
            }
        }
        for wanted in databases {
            self.allow(&wanted.name, allow);
        }
        if !allow {
            self.end_sessions(&databases.iter().map(|d| d.oid).collect::<Vec<_>>());
        }
        Ok(())
    }

    pub(super) fn allow(&mut self, name: &str, allow: bool) {
        if let Some(database) = self.databases.get_mut(name) {
            database.allow = allow;
        }
    }

    pub(super) fn standing(&self, task: &PgSwap) -> Result<Standing, String> {
        let oid = |name: &str| self.databases.get(name).map(|d| d.oid);
        let (at_name, at_new, at_away) = (oid(&task.name), oid(&task.new.name), oid(&task.away));
        let live = task.live.as_ref().map(|l| l.oid);
        let away_is = |wanted: Option<u32>| live.is_none() || at_away == wanted;
        if at_name == live && at_new == Some(task.new.oid) && away_is(None) {
            return Ok(Standing::Before);
        }
        if at_name == Some(task.new.oid) && at_new.is_none() && away_is(live) {
            return Ok(Standing::After);
        }
        Err(format!(
            "names and OIDs are not as expected: `{}` is {}, `{}` is {}, `{}` is {}",
            task.name,
            told(at_name),
            task.new.name,
            told(at_new),
            task.away,
            told(at_away)
        ))
    }

    /// The renames and the opening: one transaction.
    pub(super) fn rename(&mut self, task: &PgSwap) {
        if task.live.is_some()
            && let Some(live) = self.databases.remove(&task.name)
        {
            self.databases.insert(task.away.clone(), live);
        }
        if let Some(new) = self.databases.remove(&task.new.name) {
            self.databases.insert(task.name.clone(), new);
        }
        self.allow(&task.name, true);
    }

    /// Renames one database.
    pub(super) fn rename_one(&mut self, from: &str, to: &str) {
        if let Some(database) = self.databases.remove(from) {
            self.databases.insert(to.to_owned(), database);
        }
    }

    /// Drops a database, whoever is in it; refuses one with a slot.
    pub(super) fn drop(&mut self, name: &str) -> Result<(), String> {
        let Some(database) = self.databases.get(name) else { return Ok(()) };
        if !database.slots.is_empty() {
            return Err(format!("`{name}` has replication slots: {}", database.slots.join(", ")));
        }
        let oid = database.oid;
        self.end_sessions(&[oid]);
        self.databases.remove(name);
        Ok(())
    }

    /// Drops databases by name and OID, one after the other.
    pub(super) fn drop_all(&mut self, databases: &[Named]) -> Result<(), String> {
        for wanted in databases {
            let Named { name, oid } = wanted;
            if *oid == 0 && !name.starts_with("skep_") {
                return Err(format!("`{name}` is to be dropped, whichever it is, but is not Skep's"));
            }
            match self.databases.get(name).map(|d| d.oid) {
                None => {}
                Some(found) if *oid == 0 || found == *oid => self.drop(name)?,
                Some(found) => return Err(unexpected(wanted, Some(found))),
            }
        }
        Ok(())
    }
}

// === impl Database ===

impl Database {
    /// Tells contents apart: `orders=10 users=3`.
    pub fn fingerprint(&self) -> String {
        let tables: Vec<String> = self.content.iter().map(|(t, n)| format!("{t}={n}")).collect();
        tables.join(" ")
    }

    /// Answers `SELECT count(*) FROM <table>` and `SELECT <literal>`, the way a server would.
    pub(super) fn query(&self, sql: &str) -> Result<String, String> {
        query(&self.content, sql)
    }
}

/// Answers what the model understands of SQL.
pub(super) fn query(content: &Content, sql: &str) -> Result<String, String> {
    let words: Vec<&str> = sql.trim().trim_end_matches(';').split_whitespace().collect();
    match words.as_slice() {
        [select, count, from, table]
            if select.eq_ignore_ascii_case("select")
                && count.eq_ignore_ascii_case("count(*)")
                && from.eq_ignore_ascii_case("from") =>
        {
            let rows = content.get(*table);
            rows.map(u64::to_string).ok_or_else(|| format!("relation \"{table}\" does not exist"))
        }
        [select, value] if select.eq_ignore_ascii_case("select") => {
            Ok((*value).trim_matches('\'').to_owned())
        }
        _ => Err("syntax error (the model knows `SELECT count(*) FROM <table>` only)".to_owned()),
    }
}

fn unexpected(wanted: &Named, found: Option<u32>) -> String {
    format!("`{}` is {}, not {}", wanted.name, told(found), wanted.oid)
}

fn told(oid: Option<u32>) -> String {
    oid.map_or_else(|| "absent".to_owned(), |oid| oid.to_string())
}
