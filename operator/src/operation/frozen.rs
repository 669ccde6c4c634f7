//! What an operation has decided before it acts: frozen into a config `skep-plan-<id>` when the operation has claimed
//! its services, and never changed. It holds whole specs, which can hold secrets, so it is never printed whole.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_runner::task::{Connect, SqlCheck};
use skep_waker::Rule;
use skep_waker::task::{Mode, Port, Token};

use super::catalogue::Entry;
use super::record::OpId;
use super::saga::{Cx, Fault};
use super::wal::{self, Recovery};
use crate::engines::{Access, Data, Password};
use crate::policy::{Check, Maintenance};
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, OP, Service};

/// What an operation freezes: [`Frozen`], or something of its own.
pub trait Plan: Serialize + DeserializeOwned {
    /// The format that this version writes, and the newest that it reads.
    const SCHEMA: u32;

    /// The format of this plan.
    fn schema(&self) -> u32;
}

/// Everything that was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// Format version.
    pub schema: u32,
    /// The data service.
    pub target: Target,
    /// Services to stop, dependents first.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// Caches to empty before the clients start (S21).
    #[serde(default)]
    pub caches: Vec<Target>,
    /// SQL checks of the data.
    #[serde(default)]
    pub checks: Vec<SqlCheck>,
    /// Backups to try, best first (S9).
    #[serde(default)]
    pub candidates: Vec<Entry>,
    /// Names of the stores that have copies of them, by id.
    #[serde(default)]
    pub copies: BTreeMap<String, Vec<String>>,
    /// Services whose sessions are known and not stopped (S2).
    #[serde(default)]
    pub ignore: Vec<String>,
    /// The data service itself, where it runs on while its data is replaced: then it is asked by its checks.
    #[serde(default)]
    pub runs_on: Option<Client>,
    /// The data service itself, where its files are exchanged: it stops after its clients and starts before them (S18).
    #[serde(default)]
    pub holder: Option<Client>,
    /// Who stops and starts it.
    #[serde(default)]
    pub halted_by: HaltedBy,
    /// Whether clients stop for the cut-over.
    #[serde(default)]
    pub quiesce: bool,
    /// Whether a canary runs before clients start.
    #[serde(default)]
    pub canary: bool,
    /// How long the old database is kept, in seconds.
    #[serde(default)]
    pub keep_old_s: u64,
    /// Databases kept by earlier restores of this service.
    #[serde(default)]
    pub kept: Vec<Kept>,
    /// What is recovered first, where a moment is restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// Things that people should know, found while deciding.
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// Who stops the data service whose files are exchanged, and starts it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HaltedBy {
    /// The operation that exchanges them.
    #[default]
    Itself,
    /// The operation of which that one is a part: the service uses other data that is replaced as well.
    Whole,
}

/// Old data kept by an earlier restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The operation that kept it.
    pub operation: OpId,
    /// What it is.
    #[serde(default)]
    pub form: KeptForm,
    /// Name of the database, or of the side.
    pub name: String,
    /// OID of the database.
    #[serde(default)]
    pub oid: u32,
    /// Until when.
    pub until: jiff::Timestamp,
}

/// What old data is kept as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptForm {
    /// A database of its own.
    #[default]
    Database,
    /// A directory `.skep-<name>` in each volume.
    Side,
}

/// A service that jobs work for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Full name.
    pub name: String,
    /// Id.
    pub id: String,
    /// Its spec when it was frozen.
    pub spec: Value,
    /// Image reference as its tasks run it, with the digest where known.
    pub image: String,
    /// The node where its data is, and where its jobs run; none where any will do.
    pub node: Option<String>,
    /// Where any will do: nodes that surely have the image. Those of a private registry cannot be pulled again, since
    /// nobody but Swarm knows the credentials.
    #[serde(default)]
    pub has_image: Vec<String>,
    /// What data it keeps.
    #[serde(default)]
    pub data: Data,
    /// How to reach it.
    pub access: Access,
    /// Database; empty where the engine has none.
    #[serde(default)]
    pub database: String,
    /// Name of the store.
    pub store: String,
    /// The age recipients of its backups; none where they are not encrypted.
    #[serde(default)]
    pub encrypt: Vec<String>,
    /// Names of the stores to which its backups are copied.
    #[serde(default)]
    pub copies: Vec<String>,
    /// Whether its write-ahead log is received, and base backups are taken besides the dumps.
    #[serde(default)]
    pub wal: bool,
}

/// A service that stops while the data is replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Full name.
    pub name: String,
    /// Id.
    pub id: String,
    /// How it stops (S1).
    pub method: Method,
    /// Nodes where its own tasks ran: they have its image.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Checks that it must pass afterwards.
    pub checks: Vec<Check>,
    /// Whether files are moved under it, so that not even a task on a lost node may still run (S8).
    #[serde(default)]
    pub holds_files: bool,
}

/// How a client stops (S1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum Method {
    /// Scaled to zero.
    Zero,
    /// Scaled down to as many replicas, which go on working.
    Fewer {
        /// How many are left; fewer only where it has fewer by itself.
        left: u64,
    },
    /// Its task template becomes the maintenance page.
    Swap {
        /// Image of the page's server, chosen when the plan was frozen: a deploy may carry it over, and must be told from one
        /// that names an image.
        #[serde(default)]
        image: Option<String>,
        /// Ports that the page listens on.
        ports: Vec<u16>,
        /// Own page: name of a Swarm config.
        page: Option<String>,
        /// `Retry-After`, seconds.
        retry_after: u32,
        /// Whether the service publishes a host-mode port: then the page starts after the application has stopped.
        stop_first: bool,
    },
    /// Its task template becomes Skep's waker, which wakes it when somebody asks for it.
    Waker(Waker),
}

/// What stands in for a service that sleeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waker {
    /// Skep's own image, chosen when the plan was frozen.
    pub image: String,
    /// Ports on which the service is asked.
    pub ports: Vec<Port>,
    /// What becomes of a request that comes while it sleeps.
    pub mode: Mode,
    /// The longest that one waits, seconds.
    pub timeout_s: u64,
    /// What wakes nobody.
    #[serde(default)]
    pub ignore: Vec<Rule>,
    /// Own page: name of a Swarm config.
    #[serde(default)]
    pub page: Option<String>,
    /// Where the operator hears it.
    pub url: String,
    /// Id of the network on which it does.
    pub network: String,
    /// What it shows to the operator: it may wake this service and do nothing else.
    pub token: Token,
    /// Whether the service publishes a host-mode port: then only one of the two can run.
    pub stop_first: bool,
}

/// What takes the place of a service's own task template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandIn<'a> {
    /// Its image, where that was chosen beforehand.
    pub image: Option<&'a str>,
    /// Whether the one of the two ends before the other starts.
    pub stop_first: bool,
    /// Whether it is the waker, of which one task is enough.
    pub is_waker: bool,
}

// === impl Kept ===

impl Kept {
    /// What it is, for people.
    pub fn what(&self) -> String {
        match self.form {
            KeptForm::Database => format!("database `{}`", self.name),
            KeptForm::Side => format!("directory `.skep-{}` beside the live data", self.name),
        }
    }
}

// === impl Method ===

impl Method {
    /// The method for a service with these labels.
    pub fn of(maintenance: Option<&Maintenance>, stop_first: bool) -> Method {
        match maintenance {
            Some(m) if m.mode == crate::policy::MaintenanceMode::Swap => Method::Swap {
                image: None,
                ports: m.ports.clone(),
                page: m.page.clone(),
                retry_after: m.retry_after,
                stop_first,
            },
            Some(_) | None => Method::Zero,
        }
    }

    /// How many tasks of the service itself are left when it is stopped this way.
    pub fn left(&self) -> u64 {
        match self {
            Method::Fewer { left } => *left,
            Method::Zero | Method::Swap { .. } | Method::Waker(_) => 0,
        }
    }

    /// What stands in for the service while it is stopped this way; none where nothing does.
    pub fn stand_in(&self) -> Option<StandIn<'_>> {
        match self {
            Method::Zero | Method::Fewer { .. } => None,
            Method::Swap { image, stop_first, .. } => {
                Some(StandIn { image: image.as_deref(), stop_first: *stop_first, is_waker: false })
            }
            Method::Waker(waker) => {
                Some(StandIn { image: Some(&waker.image), stop_first: waker.stop_first, is_waker: true })
            }
        }
    }

    /// The method with the image that its page is shown by, where it shows one.
    pub fn shown_by(self, page_image: &str) -> Method {
        match self {
            Method::Zero | Method::Fewer { .. } | Method::Waker(_) => self,
            Method::Swap { image: _, ports, page, retry_after, stop_first } => {
                Method::Swap { image: Some(page_image.to_owned()), ports, page, retry_after, stop_first }
            }
        }
    }
}

// === impl Target ===

impl Target {
    /// A service without data of its own: jobs for it run in its image and in its networks.
    pub fn without_data(name: &str, id: &str, spec: &Value) -> Target {
        let connect = Connect { host: String::new(), port: 0, user: String::new(), password_file: None };
        Target {
            name: name.to_owned(),
            id: id.to_owned(),
            spec: spec.clone(),
            image: spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned(),
            node: None,
            has_image: Vec::new(),
            data: Data::None,
            access: Access { connect, password: Password::Nowhere },
            database: String::new(),
            store: String::new(),
            encrypt: Vec::new(),
            copies: Vec::new(),
            wal: false,
        }
    }

    /// Directory of the store with its write-ahead log.
    pub fn wal_dir(&self) -> String {
        let service = self.service();
        format!("v1/{}/{}/wal", service.stack().unwrap_or("_"), self.name)
    }

    /// As a service object, for building jobs.
    pub fn service(&self) -> Service {
        Service {
            id: self.id.clone(),
            version: 0,
            spec: self.spec.clone(),
            update: None,
            created: jiff::Timestamp::UNIX_EPOCH,
        }
    }
}

// === impl Frozen ===

impl Frozen {
    /// A plan that concerns nothing but the data service.
    pub fn of(target: Target) -> Frozen {
        Frozen {
            schema: Frozen::SCHEMA,
            target,
            clients: Vec::new(),
            caches: Vec::new(),
            checks: Vec::new(),
            candidates: Vec::new(),
            copies: BTreeMap::new(),
            ignore: Vec::new(),
            runs_on: None,
            holder: None,
            halted_by: HaltedBy::Itself,
            quiesce: true,
            canary: true,
            keep_old_s: 0,
            kept: Vec::new(),
            recovery: None,
            remarks: Vec::new(),
        }
    }

    /// The stores that have copies of a backup of the plan.
    pub fn copies_of(&self, entry: &Entry) -> impl Iterator<Item = &String> {
        self.copies.get(&entry.id).into_iter().flatten()
    }
}

impl Plan for Frozen {
    /// Plans of version 1 knew no engine but PostgreSQL, and mean that where they name none.
    const SCHEMA: u32 = 2;

    fn schema(&self) -> u32 {
        self.schema
    }
}

/// Name of an operation's plan.
pub fn name(op: &OpId) -> String {
    format!("skep-plan-{op}")
}

/// Stores a plan. Finding one there already means that an earlier attempt of the step came this far: that one counts.
///
/// # Errors
/// What the engine says.
pub async fn store<P: Plan>(cx: &Cx<'_>, plan: &P) -> Result<(), Fault> {
    let data =
        serde_json::to_vec(plan).map_err(|source| Fault::Journal { step: cx.step.to_owned(), source })?;
    cx.engine().ensure_config(&name(&cx.op.id), &cx.labels(Kind::Plan), &data).await?;
    Ok(())
}

/// Reads the operation's plan.
///
/// # Errors
/// When it is missing, malformed or of a newer format.
pub async fn load(cx: &Cx<'_>) -> Result<Frozen, Fault> {
    let mut frozen: Frozen = read(cx.engine(), &cx.op.id).await?;
    wal::add_recovered(cx, &mut frozen);
    Ok(frozen)
}

/// Reads the plan of an operation.
///
/// # Errors
/// When it is missing, malformed or of a newer format.
pub async fn read<P: Plan>(engine: &Engine, op: &OpId) -> Result<P, Fault> {
    let config = engine.config(&name(op)).await?;
    let plan: P = serde_json::from_slice(&config.data)
        .map_err(|source| Fault::Journal { step: "plan".to_owned(), source })?;
    match plan.schema() > P::SCHEMA {
        true => Err(Fault::failed("the plan was written by a newer Skep")),
        false => Ok(plan),
    }
}

/// As [`read`]; none where there is no plan yet, or any more.
///
/// # Errors
/// When it is malformed or of a newer format.
pub async fn find<P: Plan>(engine: &Engine, op: &OpId) -> Result<Option<P>, Fault> {
    match read(engine, op).await {
        Ok(plan) => Ok(Some(plan)),
        Err(Fault::Swarm(Error::NotFound { .. })) => Ok(None),
        Err(other) => Err(other),
    }
}

/// Removes the operation's plan and saved specs, when nothing needs them any more.
///
/// # Errors
/// What the engine says.
pub async fn remove(cx: &mut Cx<'_>) -> Result<(), Fault> {
    let op = cx.op.id.to_string();
    for kind in [Kind::Plan, Kind::Page] {
        for config in cx.engine().configs(kind, &[(OP, op.as_str())]).await? {
            cx.engine().remove_config(&config.id).await?;
        }
    }
    Ok(())
}
