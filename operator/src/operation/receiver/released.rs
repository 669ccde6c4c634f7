//! Giving receivers back: `skep release --all` drops every slot, and no leader that is there then makes a new receiver, or a door.
//!
//! Invariant: what was released stays so until an operator is started that is younger than the release.

use jiff::Timestamp;
use serde::Serialize;

use super::{Want, dismiss, next, of_service, remove_all, slot, there, tidy};
use crate::operation::door;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{KIND, Kind, Labels};

/// The config that says so.
const NAME: &str = "skep-released";

/// A slot that is still to be dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// The service whose server has it.
    pub service: String,
    /// Its name.
    pub slot: String,
}

/// Says that no receivers are wanted, and no doors, where there are any.
///
/// # Errors
/// What the engine says.
pub async fn release(engine: &Engine) -> Result<(), Error> {
    let services = engine.services(&[]).await?;
    if there(&services).is_empty() && !door::is_any(&services) {
        return Ok(());
    }
    let labels = Labels::from([(KIND.to_owned(), Kind::Released.as_str().to_owned())]);
    engine.ensure_config(NAME, &labels, b"-").await.map(drop)
}

/// Whether receivers and doors were released after this moment, at which an operator started. What was released before is no more.
///
/// # Errors
/// What the engine says.
pub async fn honour(engine: &Engine, started: Timestamp) -> Result<bool, Error> {
    match engine.config(NAME).await {
        Ok(config) if config.created >= started => Ok(true),
        Ok(config) => engine.remove_config(&config.id).await.map(|()| false),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ends all receivers and drops their slots, one move a service. Needs nothing but what is there, so that it can be done
/// without an operator. Says what is left.
///
/// # Errors
/// What the engine says.
pub async fn retire(engine: &Engine, now: Timestamp) -> Result<Vec<Left>, Error> {
    let services = engine.services(&[]).await?;
    let mut left = Vec::new();
    for (id, found) in there(&services) {
        let Some(own) = found.receiver.or(found.dropper) else { continue };
        let service = of_service(own).to_owned();
        left.push(Left { slot: slot(&service), service });
        match services.iter().any(|s| s.id == id) {
            true => dismiss(engine, now, id, next(&Want::Nothing, found), found).await?,
            false => remove_all(engine, found).await?,
        }
    }
    if left.is_empty() {
        tidy(engine, &std::collections::BTreeSet::new()).await?;
    }
    Ok(left)
}
