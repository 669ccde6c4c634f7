//! Roles of a cluster: beside a dump, made where they are missing, dropped again; as the runner does it.

use skep_runner::Report;
use skep_runner::task::{PgCreateRoles, PgDropRoles, Stored};

use super::World;
use super::job::{Failure, Next, PgJob, Worked};
use crate::sim::workload::View;

/// The artefact beside the dump.
pub(super) const FILE: &str = "globals.sql";

/// What the artefact holds.
pub(super) fn globals(roles: &[String]) -> Vec<u8> {
    serde_json::to_vec(roles).expect("names are JSON")
}

/// Roles that a backup tells how to make.
pub(super) fn held(world: &World, stored: &Stored) -> Vec<String> {
    let bytes = world.store.file(&stored.dir, FILE);
    bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
}

/// Roles that a backup needs and that do not exist.
pub(super) fn missing(world: &World, stored: &Stored, exist: &[String]) -> Vec<String> {
    let manifest = world.store.open(stored).ok();
    let needed = manifest.and_then(|manifest| manifest.database).map(|database| database.roles);
    needed.into_iter().flatten().filter(|role| !exist.contains(role)).collect()
}

// === impl PgJob ===

impl PgJob {
    /// In two stretches: whoever is killed between them has made all of them and told nobody.
    pub(super) fn create_roles(
        &mut self,
        world: &mut World,
        view: &View<'_>,
        task: &PgCreateRoles,
    ) -> Worked {
        self.needs_store(false)?;
        let manifest = world.store.open(&task.stored)?;
        world.store.whole(&task.stored.dir, &manifest)?;
        let (held, pace) = (held(world, &task.stored), world.pace.short);
        let (server, wait) = self.locked(world, view, &task.connect)?;
        if let Some(wait) = wait {
            return Ok(wait);
        }
        let done = |created| Next::Done(Box::new(Report::PgCreateRoles { created, left: Vec::new() }));
        if self.phase > 0 {
            return Ok(done(task.roles.clone()));
        }
        let there = task.roles.iter().filter(|role| server.roles.contains(role)).count();
        if there == task.roles.len() {
            return Ok(done(Vec::new()));
        }
        if there > 0 {
            return Err(Failure::barred("a role has been made by somebody else meanwhile"));
        }
        if let Some(role) = task.roles.iter().find(|role| !held.contains(role)) {
            return Err(Failure::refused(format!("the backup does not tell how role `{role}` is made")));
        }
        server.roles.extend(task.roles.iter().cloned());
        Ok(Next::More("roles", pace))
    }

    pub(super) fn drop_roles(&mut self, world: &mut World, view: &View<'_>, task: &PgDropRoles) -> Worked {
        let (server, wait) = self.locked(world, view, &task.connect)?;
        if let Some(wait) = wait {
            return Ok(wait);
        }
        let uses = |role: &String| {
            server
                .databases
                .values()
                .any(|d| d.properties.owner == *role || d.properties.roles.contains(role))
        };
        if let Some(role) = task.roles.iter().find(|role| server.roles.contains(role) && uses(role)) {
            return Err(Failure::refused(format!("role \"{role}\" cannot be dropped")));
        }
        server.roles.retain(|role| !task.roles.contains(role));
        Ok(Next::Done(Box::new(Report::Done)))
    }
}
