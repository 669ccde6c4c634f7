//! Restore points: what a whole stack was at one moment. A head, one config `skep-point-<id>`, names everything; whole
//! specs and the data of the stack's own configs lie in parts of their own, `skep-part-…`, so that a point fits whatever
//! the size of the stack, and so that listing points carries no secret.
//!
//! Invariants: parts are written before the head and removed after it, so a point that is listed is whole; a part is
//! named by its content, and what is read has the checksum that the head tells. The data of the data services is in
//! ordinary backups, which stay as long as the point does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::catalogue::Backup;
use super::record::{OpId, Operation, SERVICE, Work};
use super::saga::{Cx, Fault};
use super::update;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{Config, KIND, Kind, Labels, OP, short_hash};

/// Prefix of the names of heads.
pub const PREFIX: &str = "skep-point-";
/// Prefix of the names of parts.
pub const PART_PREFIX: &str = "skep-part-";
/// Label that says of a config for which point it was put back.
pub const OF_POINT: &str = "skep.point";
const VERSION: u32 = 1;

/// A registered point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Config id of its head.
    pub config: String,
    /// What it holds.
    pub head: Head,
}

/// What a point holds. Immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Format version.
    pub schema: u32,
    /// Id; that of the operation which took it.
    pub id: OpId,
    /// The stack.
    pub stack: String,
    /// The moment of the specs. Each backup has its own moment, a little later.
    pub taken: Timestamp,
    /// Why it was taken.
    pub purpose: Purpose,
    /// Its services in the order of starting.
    pub services: Vec<Member>,
    /// Configs that the specs name, with their data.
    pub configs: Vec<Copied>,
    /// Secrets that the specs name. Their content is the Swarm's alone.
    pub secrets: Vec<Named>,
    /// Networks that the specs name.
    pub networks: Vec<Network>,
    /// Volumes that the specs name.
    pub volumes: Vec<Volume>,
}

/// Why a point was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Asked for.
    Regular,
    /// Taken by a rollback, or by an update that goes back with its data, of what it was about to change.
    Safety,
}

/// One service of a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Full name.
    pub name: String,
    /// Id.
    pub id: String,
    /// Its whole spec.
    pub spec: Part,
    /// Image of the spec, with the digest where the spec tells.
    pub image: String,
    /// Ids of the nodes that ran it: they had the image.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// The backup of its data; none where it has none, or where the point is without data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

/// The data of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Engine name as in `skep.data`.
    pub engine: String,
    /// Id of the backup.
    pub backup: String,
}

/// Where a part lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Config name.
    pub name: String,
    /// SHA-256 of its data.
    pub sha256: String,
}

/// An object by both its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
}

/// A config with its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Labels.
    #[serde(default)]
    pub labels: Labels,
    /// Its data.
    pub data: Part,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// How it was defined, as the engine tells.
    pub definition: Value,
}

/// A volume. Its options may hold credentials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Name.
    pub name: String,
    /// Driver, options and labels, as the mount tells.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub options: Value,
    /// Services that mount it.
    pub services: Vec<String>,
}

/// Why a point cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Written by a newer Skep.
    #[error("restore point `{0}` was written by a newer Skep")]
    Newer(String),
    /// Not what it should be.
    #[error("restore point `{0}` cannot be read: {1}")]
    Malformed(String, String),
}

// === impl Point ===

impl Point {
    /// Reads a head.
    ///
    /// # Errors
    /// When it is of a newer format or malformed.
    pub fn read(config: &Config) -> Result<Point, Unusable> {
        let malformed = |why: String| Unusable::Malformed(config.name.clone(), why);
        let value: Value = serde_json::from_slice(&config.data).map_err(|e| malformed(e.to_string()))?;
        if value["schema"].as_u64().is_some_and(|schema| schema > u64::from(VERSION)) {
            return Err(Unusable::Newer(config.name.clone()));
        }
        let head = serde_json::from_value(value).map_err(|e| malformed(e.to_string()))?;
        Ok(Point { config: config.id.clone(), head })
    }

    /// Ids of the backups that it needs.
    pub fn backups(&self) -> impl Iterator<Item = &str> {
        self.head.backups()
    }
}

// === impl Head ===

impl Head {
    /// The format version that this Skep writes.
    pub const VERSION: u32 = VERSION;

    /// Name of its config.
    pub fn config_name(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// Labels of its config.
    pub fn labels(&self) -> Labels {
        Labels::from([
            (KIND.to_owned(), Kind::Point.as_str().to_owned()),
            (OP.to_owned(), self.id.to_string()),
            (SERVICE.to_owned(), self.stack.clone()),
        ])
    }

    /// Ids of the backups that it needs.
    pub fn backups(&self) -> impl Iterator<Item = &str> {
        self.services.iter().filter_map(|s| s.data.as_ref()).map(|d| d.backup.as_str())
    }

    /// All its parts.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.services.iter().map(|s| &s.spec).chain(self.configs.iter().map(|c| &c.data))
    }
}

// === impl Part ===

impl Part {
    /// The part of a point that holds this.
    pub fn of(point: &OpId, data: &[u8]) -> Part {
        let sha256: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
        Part { name: format!("{PART_PREFIX}{point}-{}", short_hash(&sha256)), sha256 }
    }

    /// Its data.
    ///
    /// # Errors
    /// When it is gone or was altered, or what the engine says.
    pub async fn load(&self, engine: &Engine, point: &OpId) -> Result<Vec<u8>, Fault> {
        let data = match engine.config(&self.name).await {
            Ok(config) => config.data,
            Err(Error::NotFound { .. }) => {
                return Err(Fault::failed(format!(
                    "config `{}` of restore point {point} is gone",
                    self.name
                )));
            }
            Err(other) => return Err(other.into()),
        };
        match Part::of(point, &data) == *self {
            true => Ok(data),
            false => {
                Err(Fault::failed(format!("config `{}` is not what restore point {point} holds", self.name)))
            }
        }
    }
}

/// All points that can be read, the oldest first; those of one stack where one is named.
///
/// # Errors
/// What the engine says.
pub async fn list(engine: &Engine, stack: Option<&str>) -> Result<Vec<Point>, Error> {
    let labels: Vec<(&str, &str)> = stack.map(|stack| (SERVICE, stack)).into_iter().collect();
    let configs = engine.configs(Kind::Point, &labels).await?;
    let mut points: Vec<Point> = configs.iter().filter_map(|c| Point::read(c).ok()).collect();
    points.sort_by(|a, b| a.head.id.cmp(&b.head.id));
    Ok(points)
}

/// Whether an operation that has not ended takes this point, goes back to it, or may.
pub fn uses(op: &Operation, point: &OpId) -> bool {
    let goes_back_to = matches!(&op.intent.work, Work::Rollback { point: to, .. } if to == point);
    let is_its_own = op.id == *point || update::parts(op).contains(point);
    !op.journal.state.is_terminal() && (is_its_own || goes_back_to)
}

/// Why a backup that a point needs cannot be restored; none where it can.
pub fn lacks(backups: &[Backup], id: &str) -> Option<String> {
    match backups.iter().find(|b| b.entry.id == id) {
        None => Some(format!("backup {id} is not in the catalogue")),
        Some(Backup { removing: Some(_), .. }) => Some(format!("backup {id} is being removed")),
        Some(Backup { spoilt: Some(found), .. }) => Some(format!("backup {id} is spoilt: {}", found.why)),
        Some(_) => None,
    }
}

/// The backups that points need, each with the newest point that needs it.
pub fn needed(points: &[Point]) -> BTreeMap<String, OpId> {
    points.iter().flat_map(|p| p.backups().map(|b| (b.to_owned(), p.head.id.clone()))).collect()
}

/// Stores parts by their names. One that is there already is the same: its name tells its content.
///
/// # Errors
/// What the engine says; `Refused` where one is larger than the Swarm stores.
pub async fn store_parts(cx: &Cx<'_>, parts: &BTreeMap<String, Vec<u8>>) -> Result<(), Fault> {
    let labels = cx.labels(Kind::PointPart);
    for (name, data) in parts {
        cx.engine().ensure_config(name, &labels, data).await?;
    }
    Ok(())
}

/// Removes parts of a point, all but those that are named.
///
/// # Errors
/// What the engine says.
pub async fn remove_parts(engine: &Engine, point: &OpId, but: &BTreeSet<&str>) -> Result<(), Error> {
    for part in engine.configs(Kind::PointPart, &[(OP, point.as_str())]).await? {
        if !but.contains(part.name.as_str()) {
            engine.remove_config(&part.id).await?;
        }
    }
    Ok(())
}

/// Removes a point: its head first, so that no point that is listed lacks anything.
///
/// # Errors
/// What the engine says.
pub async fn remove(engine: &Engine, point: &OpId) -> Result<(), Error> {
    match engine.config(&format!("{PREFIX}{point}")).await {
        Ok(config) => engine.remove_config(&config.id).await?,
        Err(Error::NotFound { .. }) => {}
        Err(other) => return Err(other),
    }
    remove_parts(engine, point, &BTreeSet::new()).await
}
