//! Looking at a server, as the runner's `inspect` does.

use skep_runner::Report;
use skep_runner::task::{
    DatabaseProperties, KeptDatabase, Named, PgInspect, PgInspection, PgSession, Stored,
};

use super::job::{Next, PgJob, Worked};
use super::server::Session;
use super::{Content, World, roles};
use crate::sim::workload::View;

// === impl PgJob ===

impl PgJob {
    pub(super) fn inspect(&self, world: &mut World, view: &View<'_>, task: &PgInspect) -> Worked {
        let server = self.connect(world, view, &task.connect)?;
        let live = server.named(&task.database);
        let of_live = |s: &&Session| live.as_ref().is_some_and(|l| l.oid == s.database);
        let mut sessions: Vec<PgSession> = server
            .sessions
            .values()
            .filter(|s| of_live(s) && !s.application.starts_with("skep-"))
            .map(|s| PgSession {
                address: s.address.clone(),
                user: s.user.clone(),
                application: s.application.clone(),
            })
            .collect();
        sessions.sort();
        let kept = task.kept.iter().filter_map(|name| {
            let database = server.databases.get(name)?;
            let size = size_of(&database.content);
            let named = Named { name: name.clone(), oid: database.oid };
            Some(KeptDatabase { database: named, size, slots: database.slots.clone() })
        });
        let found = server.databases.get(&task.database);
        let mut inspection = PgInspection {
            server_version: server.version.to_string(),
            tool_version: "pg_restore (PostgreSQL) simulated".to_owned(),
            properties: found.map(|d| properties_of(d.properties.clone(), &d.content)),
            slots: found.map(|d| d.slots.clone()).unwrap_or_default(),
            kept: kept.collect(),
            sessions,
            live,
            max_wal_size: 1 << 30,
            ..PgInspection::default()
        };
        if self.mounts(skep_runner::DATA_PATH).is_some() {
            (inspection.free, inspection.capacity) = world.room;
        }
        let (version, roles) = {
            let server = self.connect(world, view, &task.connect)?;
            (server.version, server.roles.clone())
        };
        for stored in &task.backups {
            self.needs_store(false)?;
            let (itself, mut here) = against(world, stored, version);
            let missing = roles::missing(world, stored, &roles);
            let held = roles::held(world, stored);
            if !missing.is_empty() && task.create_roles && missing.iter().all(|role| held.contains(role)) {
                inspection.missing_roles.insert(stored.id.clone(), missing);
            } else {
                here.extend(missing.iter().map(|role| format!("role `{role}` does not exist")));
            }
            inspection.backups.insert(stored.id.clone(), itself);
            inspection.lacking.insert(stored.id.clone(), here);
        }
        Ok(Next::Done(Box::new(Report::PgInspect(Box::new(inspection)))))
    }
}

/// What is wrong with a backup, and what the server lacks for it, roles apart.
fn against(world: &World, stored: &Stored, version: u32) -> (Vec<String>, Vec<String>) {
    let manifest = match world.store.open(stored) {
        Ok(manifest) => manifest,
        Err(why) => return (vec![why], Vec::new()),
    };
    let (mut reasons, mut here) = (Vec::new(), Vec::new());
    let dumped: u32 = manifest.server_version.parse().unwrap_or(0);
    if dumped / 10_000 > version / 10_000 {
        here.push(format!("it is of PostgreSQL {}", dumped / 10_000));
    }
    for artefact in &manifest.artefacts {
        match world.store.file(&stored.dir, &artefact.file).map(|b| length(b)) {
            None => reasons.push(format!("{} is missing", artefact.file)),
            Some(size) if size != artefact.size => reasons.push(format!("{} is cut short", artefact.file)),
            Some(_) => {}
        }
    }
    (reasons, here)
}

/// The properties with the size of this content.
pub(super) fn properties_of(mut properties: DatabaseProperties, content: &Content) -> DatabaseProperties {
    properties.size = size_of(content);
    properties
}

/// A kibibyte a row, and what an empty database takes.
pub(super) fn size_of(content: &Content) -> u64 {
    8_000_000 + content.values().sum::<u64>() * 1_024
}

/// Bytes.
pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a small file")
}
