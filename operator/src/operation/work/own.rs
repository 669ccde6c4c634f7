//! Jobs in Skep's own image: what needs no tool of a database, but programs that no runner can hold (age, zstd, S3).
//!
//! They get the staging volume, the stores that they name, and the secrets that these need; nothing of the service that
//! they work for reaches them but its node.

use skep_runner::task::StoreTask;
use skep_runner::{STAGE_PATH, Task};

use super::ready_node;
use crate::operation::frozen::Target;
use crate::operation::record::JobRecord;
use crate::operation::saga::{Cx, Fault};
use crate::operation::settings::{Store, stage};
use crate::operation::whereabouts;
use crate::swarm::error::Error;
use crate::swarm::job::{self, OwnSpec, SecretFile};
use crate::swarm::object::{Kind, RegistryAuth};

/// Where a job finds the age identity.
pub const IDENTITY_PATH: &str = "/run/secrets/skep-age-identity";

/// One job of a step, in Skep's own image.
pub struct OwnOrder<'a> {
    /// Tells the jobs of one step apart; `[a-z0-9]`, at most 8 characters.
    pub key: &'a str,
    /// The service that it works for: it runs on that one's node.
    pub target: &'a Target,
    /// The work.
    pub task: StoreTask,
    /// Names of the stores that it needs, with where their mounts go.
    pub stores: Vec<(&'a str, &'static str)>,
    /// Whether it decrypts.
    pub identity: bool,
}

// === impl OwnOrder ===

impl OwnOrder<'_> {
    /// As the ticket has it.
    pub(super) fn task(&self) -> Task {
        Task::Store(self.task.clone())
    }

    /// The store to which it writes part of a backup.
    pub(super) fn written(&self) -> Option<&str> {
        let at = match self.task {
            StoreTask::Ship(_) => skep_runner::STORE_PATH,
            StoreTask::Copy { .. } => skep_runner::COPY_PATH,
            StoreTask::Stage { .. }
            | StoreTask::Fetch(_)
            | StoreTask::Check { .. }
            | StoreTask::Scan { .. }
            | StoreTask::Reports { .. }
            | StoreTask::Remove { .. }
            | StoreTask::Clear { .. } => return None,
        };
        self.stores.iter().find(|(_, path)| *path == at).map(|(store, _)| *store)
    }

    /// Whether it writes files, which nothing fences but its own end (S8).
    pub(super) fn writes(&self) -> bool {
        !matches!(self.task, StoreTask::Check { .. } | StoreTask::Scan { .. })
    }
}

/// Where a job finds the credentials of an S3 store.
pub fn credentials_path(store: &str) -> String {
    format!("/run/secrets/skep-s3-{store}")
}

pub(super) async fn create(
    cx: &mut Cx<'_>,
    order: &OwnOrder<'_>,
    record: &JobRecord,
    name: &str,
) -> Result<String, Fault> {
    let settings = cx.env.settings.clone();
    let image = image(cx).await?;
    let mut mounts: Vec<_> = stage().mount(STAGE_PATH, false).into_iter().collect();
    let (mut secrets, mut networks) = (Vec::new(), Vec::new());
    for (store_name, path) in &order.stores {
        let store = settings.stores.get(*store_name);
        let store = store.ok_or_else(|| Fault::failed(whereabouts::unknown(store_name)))?;
        match store {
            Store::Bind(_) | Store::Volume { .. } => {
                mounts.extend(store.mount(path, is_read_only(&order.task, path)))
            }
            Store::S3(bucket) => {
                let what = format!("credentials of the store `{store_name}`");
                secrets.push(secret(cx, &bucket.credentials, &what, credentials_path(store_name)).await?);
                if let Some(network) = &bucket.network {
                    networks.push(network_id(cx, network, store_name).await?);
                }
            }
        }
    }
    if order.identity {
        let identity = settings.identity.as_ref().ok_or_else(|| Fault::failed(NO_IDENTITY))?;
        secrets.push(secret(cx, identity, "age identity", IDENTITY_PATH.to_owned()).await?);
    }
    let node = match &order.target.node {
        Some(node) => Some(node.clone()),
        None => ready_node(cx, &order.target.has_image).await?,
    };
    let spec = OwnSpec {
        name,
        ticket: &record.ticket,
        image: &image,
        node: node.as_deref(),
        mounts,
        secrets,
        networks,
        labels: cx.labels(Kind::Ticket),
    };
    Ok(job::ensure_own(cx.engine(), &spec, RegistryAuth::Anonymous).await?)
}

/// What to say where something is encrypted and nothing can decrypt it.
pub const NO_IDENTITY: &str = "the backup is encrypted, and Skep has no identity to decrypt it: store the age identity as a Swarm secret and \
     name it in Skep's setting SKEP_AGE_IDENTITY";

/// Only what is read is mounted so.
fn is_read_only(task: &StoreTask, path: &str) -> bool {
    match task {
        StoreTask::Fetch(_) | StoreTask::Check { .. } | StoreTask::Scan { .. } => true,
        StoreTask::Copy { .. } => path == skep_runner::STORE_PATH,
        StoreTask::Stage { .. }
        | StoreTask::Ship(_)
        | StoreTask::Reports { .. }
        | StoreTask::Remove { .. }
        | StoreTask::Clear { .. } => false,
    }
}

async fn secret(cx: &Cx<'_>, name: &str, what: &str, file: String) -> Result<SecretFile, Fault> {
    match cx.engine().secret_id(name).await {
        Ok(id) => Ok(SecretFile { id, name: name.to_owned(), file }),
        Err(Error::NotFound { .. }) => Err(Fault::failed(format!(
            "the Swarm has no secret `{name}` ({what}); make it (docker secret create)"
        ))),
        Err(other) => Err(other.into()),
    }
}

async fn network_id(cx: &Cx<'_>, name: &str, store: &str) -> Result<String, Fault> {
    match cx.engine().network(name).await {
        Ok(network) => Ok(network.id),
        Err(Error::NotFound { .. }) => {
            Err(Fault::failed(format!("the Swarm has no network `{name}` (of the store `{store}`)")))
        }
        Err(other) => Err(other.into()),
    }
}

async fn image(cx: &Cx<'_>) -> Result<String, Fault> {
    cx.env.own_image().await?.ok_or_else(|| {
        Fault::failed(
            "Skep's own image is not known here, which is needed for stores on S3, encryption, copies and reports: name it in \
             the setting SKEP_IMAGE",
        )
    })
}
