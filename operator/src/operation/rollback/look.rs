//! Reads what a rollback decides by.

use std::collections::BTreeMap;

use super::decide::{Found, Now};
use crate::operation::point::users_of;
use crate::operation::points::{Copied, Head, PREFIX, Point};
use crate::operation::record::OpId;
use crate::operation::saga::Fault;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;

/// A point by its id.
///
/// # Errors
/// When there is none, it cannot be read, or what the engine says.
pub async fn point(engine: &Engine, id: &OpId) -> Result<Point, Fault> {
    match engine.config(&format!("{PREFIX}{id}")).await {
        Ok(config) => Point::read(&config).map_err(|e| Fault::failed(e.to_string())),
        Err(Error::NotFound { .. }) => Err(Fault::failed(format!("there is no restore point `{id}`"))),
        Err(other) => Err(other.into()),
    }
}

/// What is there now of what a point holds.
///
/// # Errors
/// When a part of the point is gone or was altered, or what the engine says.
pub async fn now(engine: &Engine, head: &Head) -> Result<Now, Fault> {
    let all = engine.services(&[]).await?;
    let mut then = BTreeMap::new();
    for member in &head.services {
        let data = member.spec.load(engine, &head.id).await?;
        let spec = serde_json::from_slice(&data).map_err(|e| {
            Fault::failed(format!("the spec of {} in restore point {}: {e}", member.name, head.id))
        })?;
        then.insert(member.name.clone(), spec);
    }
    let mut configs = BTreeMap::new();
    for copied in &head.configs {
        configs.extend(found(engine, head, copied).await?.map(|found| (copied.id.clone(), found)));
    }
    let networks = engine.networks().await?.into_iter().map(|n| (n.id, n.name)).collect();
    let secrets = engine.secrets(&[]).await?.into_iter().map(|s| (s.id, s.name)).collect();
    let ready = engine.nodes().await?.into_iter().filter(|n| n.ready && n.active).map(|n| n.id).collect();
    let services = users_of(&all, &head.stack).into_iter().cloned().collect();
    Ok(Now { services, swarm: all, then, networks, secrets, configs, ready })
}

/// A config of the point as it is there now: by its id, else by its name.
async fn found(engine: &Engine, head: &Head, copied: &Copied) -> Result<Option<Found>, Fault> {
    match engine.config(&copied.id).await {
        Ok(config) => return Ok(Some(Found::Same(config.id))),
        Err(Error::NotFound { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    let Some(config) = engine.user_config(&copied.name).await? else { return Ok(None) };
    let data = copied.data.load(engine, &head.id).await?;
    Ok(Some(if config.data == data { Found::Same(config.id) } else { Found::Other }))
}
