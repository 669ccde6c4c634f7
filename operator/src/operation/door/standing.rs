//! How doors stand.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{PREFIX, label};
use crate::operation::record::SERVICE;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{KIND, Kind, Service, TaskState};

/// How the door of a service stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The service before which it is.
    pub service: String,
    /// Whether a task of it runs: where none does, nobody reaches the service through it.
    pub stands: bool,
}

/// How one door stands.
pub(super) async fn of(engine: &Engine, service: &str, door: &Service) -> Result<Standing, Error> {
    let tasks = engine.tasks(&[&door.id]).await?;
    let runs = |state: TaskState| state == TaskState::Running;
    let stands = tasks.iter().any(|task| runs(task.state) && runs(task.desired));
    Ok(Standing { service: service.to_owned(), stands })
}

/// How all doors stand, by the names of their services.
///
/// # Errors
/// What the engine says.
pub async fn standings(engine: &Engine) -> Result<BTreeMap<String, Standing>, Error> {
    let mut all = BTreeMap::new();
    let doors = engine.services(&[(KIND, Some(Kind::Door.as_str()))]).await?;
    for door in doors.iter().filter(|door| door.name().starts_with(PREFIX)) {
        let service = label(&door.spec, SERVICE);
        all.insert(service.to_owned(), of(engine, service, door).await?);
    }
    Ok(all)
}
