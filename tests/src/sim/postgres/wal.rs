//! The write-ahead log of the model: what a server held at each moment that a receiver has looked at it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use skep_runner::task::{PgBase, PgDropSlot, PgDumped, PgReceive, PgRecover, PgTakeBase, WalPrune};
use skep_runner::{Artefact, Progress, Report};

use super::inspect::{length, properties_of};
use super::job::{Failure, Next, PgJob, Worked};
use super::store::sha256;
use super::{Content, World};
use crate::sim::workload::View;

/// File of a base backup.
const BASE: &str = "base.tar.gz";
/// How often a receiver notes how far it is.
const NOTE_EVERY: Duration = Duration::from_secs(2);
/// Longest wait of a base backup for what it needs of the log.
const RECEIVED_WITHIN: Duration = Duration::from_secs(120);
/// Every server of the model is this cluster.
const SYSTEM: &str = "7000000000000000001";

/// What was received of a server.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Databases by name, by the moment at which they held this.
    pub held: BTreeMap<Timestamp, BTreeMap<String, Content>>,
}

// === impl Log ===

impl Log {
    /// Until when everything was received.
    pub fn until(&self) -> Option<Timestamp> {
        self.held.last_key_value().map(|(at, _)| *at)
    }
}

// === impl PgJob ===

impl PgJob {
    pub(super) fn receive(&mut self, world: &mut World, view: &View<'_>, task: &PgReceive) -> Worked {
        self.needs_store(true)?;
        let PgReceive { connect, dir, slot } = task;
        let server = self.connect(world, view, connect)?;
        match server.holder_of(slot) {
            Some(other) if *other != self.container.task => {
                return Err(Failure::unready(format!("replication slot `{slot}` stays in use")));
            }
            _ => server.hold(slot, &self.container.task),
        }
        let held = server.databases.iter().map(|(name, d)| (name.clone(), d.content.clone())).collect();
        world.logs.entry(dir.clone()).or_default().held.insert(view.now, held);
        let done = view.now.as_second().unsigned_abs();
        Ok(Next::Tell(Progress { phase: "received".to_owned(), done, total: None }, NOTE_EVERY))
    }

    pub(super) fn drop_slot(&mut self, world: &mut World, view: &View<'_>, task: &PgDropSlot) -> Worked {
        let server = self.connect(world, view, &task.connect)?;
        server.drop_slot(&task.slot);
        Ok(Next::Done(Box::new(Report::Done)))
    }

    pub(super) fn take_base(&mut self, world: &mut World, view: &View<'_>, task: &PgTakeBase) -> Worked {
        self.needs_store(true)?;
        let pace = world.pace.dump;
        let server = self.connect(world, view, &task.connect)?;
        let held: BTreeMap<String, Content> =
            server.databases.iter().map(|(name, d)| (name.clone(), d.content.clone())).collect();
        if self.phase == 0 {
            self.bytes = serde_json::to_vec(&held).expect("rows by table are JSON");
            self.started = view.now.to_string();
            self.since = Some(view.at);
            return Ok(Next::More("base", pace));
        }
        let ended: Timestamp = self.started.parse().expect("it was written above");
        let received = world.logs.get(&task.wal).and_then(Log::until);
        if received.is_none_or(|until| until < ended) {
            if self.since.is_some_and(|since| view.at - since > RECEIVED_WITHIN) {
                return Err(Failure::unready("the write-ahead log was not received within 120 s"));
            }
            return Ok(Next::Again(Duration::from_secs(1)));
        }
        let bytes = std::mem::take(&mut self.bytes);
        let artefact = Artefact { file: BASE.to_owned(), size: length(&bytes), sha256: sha256(&bytes) };
        world.store.write(&task.dir, BASE, bytes);
        let base = PgBase {
            dir: task.wal.clone(),
            system: SYSTEM.to_owned(),
            segment_size: 16 << 20,
            start: "0/3000028".to_owned(),
            end: "0/3000100".to_owned(),
            ended: self.started.clone(),
            size: artefact.size,
        };
        Ok(Next::Done(Box::new(Report::PgBase { artefact, base })))
    }

    pub(super) fn recover(&mut self, world: &mut World, view: &View<'_>, task: &PgRecover) -> Worked {
        self.needs_store(true)?;
        let PgRecover { connect, stored, database, until, dir } = task;
        let manifest = world.store.open(stored)?;
        world.store.whole(&stored.dir, &manifest)?;
        let base = manifest.base.ok_or_else(|| Failure::refused("no base backup"))?;
        let at: Timestamp = until.parse().map_err(|_| Failure::refused(format!("`{until}` is no time")))?;
        let ended: Timestamp = base.ended.parse().map_err(|_| Failure::refused("the base tells no time"))?;
        if at < ended {
            return Err(Failure::refused(format!(
                "{until} is before the base backup, which ended at {ended}"
            )));
        }
        let log = world.logs.get(&base.dir).cloned().unwrap_or_default();
        if log.until().is_none_or(|received| received < at) {
            return Err(Failure::refused(format!("{until} is later than what was received")));
        }
        let pace = world.pace.load;
        let server = self.connect(world, view, connect)?;
        let live = server.databases.get(database).cloned();
        let version = server.version;
        if self.phase < 2 {
            return Ok(Next::More("recover", pace));
        }
        let held = log.held.range(ended..=at).next_back().map(|(_, held)| held.clone());
        let bytes = world.store.file(&stored.dir, BASE).expect("it was read in full").clone();
        let held = match held {
            Some(held) => held,
            None => serde_json::from_slice(&bytes).map_err(|e| Failure::refused(e.to_string()))?,
        };
        let absent = || Failure::refused(format!("database `{database}` did not exist at {until}"));
        let content = held.get(database).cloned().ok_or_else(absent)?;
        let live = live.ok_or_else(|| Failure::refused("the model recovers what is still there"))?;
        world.store.empty(dir)?;
        let properties = properties_of(live.properties, &content);
        let bytes = serde_json::to_vec(&content).expect("rows by table are JSON");
        let file = format!("{database}.dump");
        let artefact = Artefact { file: file.clone(), size: length(&bytes), sha256: sha256(&bytes) };
        world.store.write(dir, &file, bytes);
        Ok(Next::Done(Box::new(Report::PgDump(Box::new(PgDumped {
            artefacts: vec![artefact],
            server_version: version.to_string(),
            tool_version: "pg_dump (PostgreSQL) simulated".to_owned(),
            started: until.clone(),
            ended: view.now.to_string(),
            database: properties,
            roles: None,
        })))))
    }

    pub(super) fn prune_log(&mut self, world: &mut World, task: &WalPrune) -> Worked {
        self.needs_store(true)?;
        let oldest = task.keep.iter().filter_map(|base| base.ended.parse::<Timestamp>().ok()).min();
        let oldest = oldest.ok_or_else(|| Failure::refused("no base backup tells what to keep"))?;
        if let Some(log) = world.logs.get_mut(&task.dir) {
            log.held.retain(|at, _| *at >= oldest);
        }
        Ok(Next::Done(Box::new(Report::Done)))
    }
}
