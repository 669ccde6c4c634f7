//! What every command that asks the engine begins with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::failure::Failure;
use super::out::Out;
use crate::operation::catalogue::Backup;
use crate::operation::desk;
use crate::operation::record::{OpId, Operation, Work};
use crate::operation::rollback;
use crate::operation::saga::{Clock, Fault};
use crate::operation::{door, points, receiver, sleeper};
use crate::plan::World;
use crate::policy;
use crate::swarm::engine::Engine;
use crate::swarm::object::{ENABLE, Kind, Service};

/// One run of a command.
pub(super) struct Session {
    pub(super) engine: Engine,
    pub(super) out: Arc<Out>,
    pub(super) clock: Clock,
    /// How people call this program: `skep`, or `docker skep`.
    pub(super) command: String,
    /// Who asks.
    pub(super) who: String,
}

// === impl Session ===

impl Session {
    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Reads everything that plans rest on.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub(super) async fn world(&self) -> Result<World, Failure> {
        let services = self.engine.services(&[]).await?;
        let ids: Vec<&str> = services.iter().filter(|s| is_looked_at(s)).map(|s| s.id.as_str()).collect();
        let tasks = if ids.is_empty() { Vec::new() } else { self.engine.tasks(&ids).await? };
        let backups = self.engine.configs(Kind::Backup, &[]).await?;
        let operations = desk::list(&self.engine).await?;
        let mut pages = BTreeSet::new();
        for page in wanted_pages(&services) {
            if self.engine.user_config(&page).await?.is_some() {
                pages.insert(page);
            }
        }
        let backups = backups.iter().filter_map(Backup::read).collect();
        let points = points::list(&self.engine, None).await?;
        let sleepers = sleeper::list(&self.engine).await?.into_iter().map(|slept| slept.sleeper).collect();
        let received = BTreeMap::new();
        Ok(World { services, tasks, backups, points, sleepers, there: None, received, operations, pages })
    }

    /// Reads everything that the plan of this work rests on.
    ///
    /// # Errors
    /// When the engine cannot be asked, or a restore point lacks something.
    pub(super) async fn world_for(&self, work: &Work) -> Result<World, Failure> {
        let mut world = self.world().await?;
        if let Work::Restore { .. } = work {
            world.received = receiver::standings(&self.engine).await?;
        }
        let Work::Rollback { point, .. } = work else { return Ok(world) };
        if let Some(point) = world.points.iter().find(|p| p.head.id == *point) {
            world.there =
                Some(rollback::now(&self.engine, &point.head).await.map_err(|fault| match fault {
                    Fault::Swarm(error) => error.into(),
                    other => Failure::refused(other.to_string()),
                })?);
        }
        Ok(world)
    }

    /// The full name of the service that a person means.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub(super) fn meant<'w>(&self, world: &'w World, name: &str) -> Result<&'w Service, Failure> {
        world.meant(name).ok_or_else(|| {
            let known: Vec<&str> = world.services.iter().map(Service::name).collect();
            let near = policy::value::nearest(name, known);
            let hint =
                near.unwrap_or_else(|| format!("`{} ps` lists the services that opted in", self.command));
            Failure::refused_but(format!("there is no service `{name}`"), hint)
        })
    }

    /// The stack that a person means.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn meant_stack<'w>(&self, world: &'w World, name: &str) -> Result<&'w str, Failure> {
        let stacks = world.stacks();
        stacks.get(name).copied().ok_or_else(|| {
            let near = policy::value::nearest(name, stacks.iter().copied());
            let hint = near.unwrap_or_else(|| "`docker stack ls` lists the stacks".to_owned());
            Failure::refused_but(format!("there is no stack `{name}`"), hint)
        })
    }

    /// The operation that a person means: its id, or an unambiguous beginning of it.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub(super) async fn operation(&self, text: &str) -> Result<Operation, Failure> {
        if let Some(id) = OpId::parse(text) {
            match desk::find(&self.engine, &id).await {
                Ok(op) => return Ok(op),
                Err(desk::Refusal::Absent(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        let all = desk::list(&self.engine).await?;
        let mut found = all.into_iter().filter(|op| !text.is_empty() && op.id.as_str().starts_with(text));
        match (found.next(), found.next()) {
            (Some(op), None) => Ok(op),
            (Some(_), Some(_)) => Err(Failure::refused(format!("several operations begin with `{text}`"))),
            (None, _) => Err(desk::Refusal::Absent(text.to_owned()).into()),
        }
    }
}

/// What opted in, and the doors before it.
fn is_looked_at(service: &Service) -> bool {
    service.spec["Labels"][ENABLE] == "true" || door::is_door(service)
}

/// Names of configs that labels name as maintenance pages.
fn wanted_pages(services: &[Service]) -> Vec<String> {
    let mut pages: Vec<String> = services
        .iter()
        .filter_map(|s| s.spec["Labels"]["skep.maintenance.page"].as_str().map(str::to_owned))
        .collect();
    pages.sort();
    pages.dedup();
    pages
}

/// The person, as far as the environment tells.
pub(super) fn who(env: &dyn Fn(&str) -> Option<String>) -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|v| env(v).filter(|n| !n.is_empty()));
    name.unwrap_or_else(|| "somebody at the command line".to_owned())
}
