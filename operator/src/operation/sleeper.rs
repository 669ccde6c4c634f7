//! Services that Skep has scaled down, to zero or to what they keep (`skep.scale.min`): for each one a config `skep-sleep-<hash>`,
//! whose data is the spec that the service goes back to.
//!
//! Invariants: it is written when the service has stopped and before the sleep ends well; it goes when the spec is back and
//! before the wake ends. So whoever finds a service at zero and no sleeper knows that a person put it there, and whoever finds
//! a sleeper and a service with other tasks than were left to it knows that somebody brought it back.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use super::client_spec::{is_asleep, replicas};
use super::frozen::{Client, Method, Waker};
use super::record::{OpId, SERVICE, SERVICE_ID};
use super::saga::{Cx, Fault};
use super::waker;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{Config, Kind, OP, short_hash};

/// Format version.
const SCHEMA: u32 = 1;
/// Label with the time since when it sleeps.
const SINCE: &str = "skep.since";
/// Label with the replicas that it goes back to; absent for a global service.
const REPLICAS: &str = "skep.replicas";
/// Label with the replicas that go on meanwhile; absent where there are none.
const LEFT: &str = "skep.left";

/// A service that sleeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sleeper {
    /// Id of the config.
    pub config: String,
    /// Full name of the service.
    pub service: String,
    /// Id of the service.
    pub service_id: String,
    /// The operation that put it to sleep.
    pub op: OpId,
    /// Since when.
    pub since: Timestamp,
    /// Replicas that it goes back to; none for a global service.
    pub replicas: Option<u64>,
    /// Replicas that go on meanwhile.
    pub left: u64,
}

/// A sleeper with all that is written down of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Slept {
    /// What its labels tell.
    pub sleeper: Sleeper,
    /// The spec that the service goes back to.
    pub spec: Value,
    /// What stands in for it meanwhile; none where it is at zero.
    pub waker: Option<Waker>,
}

/// What the config holds.
#[derive(Serialize, Deserialize)]
struct Held {
    schema: u32,
    spec: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waker: Option<Waker>,
}

// === impl Sleeper ===

impl Sleeper {
    /// Reads one from the labels of its config.
    pub fn read(config: &Config) -> Option<Sleeper> {
        let label = |key: &str| config.labels.get(key);
        Some(Sleeper {
            config: config.id.clone(),
            service: label(SERVICE)?.clone(),
            service_id: label(SERVICE_ID)?.clone(),
            op: OpId::parse(label(OP)?)?,
            since: label(SINCE)?.parse().ok()?,
            replicas: label(REPLICAS).and_then(|n| n.parse().ok()),
            left: label(LEFT).and_then(|n| n.parse().ok()).unwrap_or(0),
        })
    }

    /// Whether the service is as far down by this spec as it was put: asleep, or with the replicas that it keeps. Where it is
    /// not, somebody brought it back.
    pub fn is_down(&self, spec: &Value) -> bool {
        match self.left {
            0 => is_asleep(spec),
            left => replicas(spec) == Some(left),
        }
    }

    /// Replicas that do not run meanwhile. Of a global service it is not known how many there were: one.
    pub fn saves(&self) -> u64 {
        self.replicas.map_or(1, |replicas| replicas.saturating_sub(self.left))
    }
}

/// All sleepers that can be read.
///
/// # Errors
/// What the engine says.
pub async fn list(engine: &Engine) -> Result<Vec<Slept>, Error> {
    let read = |config: &Config| whole(config).inspect_err(|error| warn!("{error}")).ok();
    Ok(engine.configs(Kind::Sleep, &[]).await?.iter().filter_map(read).collect())
}

/// The sleeper of a service.
///
/// # Errors
/// When it cannot be read, or what the engine says.
pub async fn find(engine: &Engine, service: &str) -> Result<Option<Slept>, Error> {
    match engine.config(&name(service)).await {
        Ok(config) => whole(&config).map(Some),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Writes down what a stopped service goes back to. What was written down before, by an earlier sleep or by an attempt that
/// died, is replaced: the operation still has the spec in its own keeping.
///
/// # Errors
/// What the engine says.
pub async fn remember(cx: &Cx<'_>, client: &Client, spec: &Value) -> Result<(), Fault> {
    let waker = match &client.method {
        Method::Waker(waker) => Some(waker.clone()),
        Method::Zero | Method::Fewer { .. } | Method::Swap { .. } => None,
    };
    let held = Held { schema: SCHEMA, spec: spec.clone(), waker };
    let data =
        serde_json::to_vec(&held).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
    if let Some(before) = find(cx.engine(), &client.name).await? {
        if before.sleeper.op == cx.op.id && before.spec == *spec {
            return Ok(());
        }
        if before.sleeper.op != cx.op.id {
            // Its own waker has gone; what that was told is of no more use.
            waker::clear(cx.engine(), &before.sleeper.op, Some(&client.name)).await?;
        }
        cx.engine().remove_config(&before.sleeper.config).await?;
    }
    let mut labels = cx.labels(Kind::Sleep);
    labels.insert(SERVICE.to_owned(), client.name.clone());
    labels.insert(SERVICE_ID.to_owned(), client.id.clone());
    labels.insert(SINCE.to_owned(), cx.now().to_string());
    if let Some(replicas) = replicas(spec) {
        labels.insert(REPLICAS.to_owned(), replicas.to_string());
        let left = client.method.left().min(replicas);
        if left > 0 {
            labels.insert(LEFT.to_owned(), left.to_string());
        }
    }
    cx.engine().create_config(&name(&client.name), &labels, &data).await?;
    Ok(())
}

/// Forgets what was written down of a service: it is awake.
///
/// # Errors
/// What the engine says.
pub async fn forget(engine: &Engine, service: &str) -> Result<(), Error> {
    match engine.config_id(&name(service)).await {
        Ok(id) => engine.remove_config(&id).await,
        Err(Error::NotFound { .. }) => Ok(()),
        Err(other) => Err(other),
    }
}

/// Name of the config.
pub fn name(service: &str) -> String {
    format!("skep-sleep-{}", short_hash(service))
}

fn whole(config: &Config) -> Result<Slept, Error> {
    let malformed = |message: String| Error::Malformed {
        what: format!("what a sleeping service goes back to (config `{}`)", config.name),
        message,
    };
    let sleeper = Sleeper::read(config).ok_or_else(|| malformed("a label is missing".to_owned()))?;
    let held: Held = serde_json::from_slice(&config.data).map_err(|e| malformed(e.to_string()))?;
    if held.schema > SCHEMA {
        return Err(malformed(format!("a newer Skep wrote it (format {})", held.schema)));
    }
    Ok(Slept { sleeper, spec: held.spec, waker: held.waker })
}
