//! How receivers and droppers are made.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use skep_runner::task::{PgDropSlot, PgReceive};
use skep_runner::{STORE_PATH, TICKET_PATH, Task, Ticket};
use tracing::warn;

use super::{DROPPER, MADE, PREFIX, label, name, slot};
use crate::engines::TEMPORARY_SECRET;
use crate::operation::frozen::Target;
use crate::operation::record::{SERVICE, SERVICE_ID};
use crate::operation::saga::Env;
use crate::operation::work;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::job::{self, JobSpec, Reach, SecretFile, node_constraint};
use crate::swarm::object::{self, KIND, Kind, Labels, ObjectRef, RegistryAuth, Service};

/// Swarm starts a receiver that ended again after this long, in nanoseconds.
const AGAIN: u64 = 5_000_000_000;
/// The same of what drops a slot and could not.
const DROP_AGAIN: u64 = 20_000_000_000;

/// A receiver as it has to be.
pub(super) struct Wanted {
    target: Target,
    task: Task,
    runner: ObjectRef,
    store: Option<Value>,
    secret: Option<Vec<u8>>,
    /// How it is made; see [`MADE`].
    pub(super) made: String,
}

// === impl Wanted ===

impl Wanted {
    /// The receiver of a service whose data has this task; none where its store cannot be mounted.
    pub(super) async fn of(env: &Env, target: Target, task: &object::Task) -> Result<Option<Wanted>, Error> {
        let store = match env.settings.mounted(&target.store) {
            Ok(store) => store.mount(STORE_PATH, false),
            Err(why) => {
                warn!(service = target.name, "its log is not received: {why}");
                return Ok(None);
            }
        };
        let connect = target.access.connect.clone();
        let receive = Task::PgReceive(PgReceive { connect, dir: target.wal_dir(), slot: slot(&target.name) });
        let runner = job::ensure_runner(&env.engine, env.runners.of(&receive)).await?;
        let secret = work::secret_of(&target);
        let mut wanted = Wanted { target, task: receive, runner, store, secret, made: String::new() };
        // A password of the environment changes with its task, and nothing of it may be told.
        let of_task = wanted.secret.as_ref().map(|_| task.id.as_str());
        let with_secret = of_task.map(|_| "secret");
        wanted.made = digest(&json!([
            wanted.spec("object", "ticket", with_secret, Labels::new()),
            wanted.task,
            of_task
        ]));
        Ok(Some(wanted))
    }

    /// Makes it. Each part that is there already was made by an earlier look.
    pub(super) async fn create(&self, engine: &Engine) -> Result<(), Error> {
        let spec = self.prepare(engine).await?;
        match engine.create_service(&spec, RegistryAuth::Anonymous).await {
            Ok(_) | Err(Error::Exists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes it of one that was made otherwise, in one write: it is never away, since it knows of a slot.
    pub(super) async fn replace(&self, engine: &Engine, found: &Service) -> Result<(), Error> {
        let spec = self.prepare(engine).await?;
        engine.update_service(&found.id, found.version, &spec).await
    }

    /// Makes what it uses; its spec.
    async fn prepare(&self, engine: &Engine) -> Result<Value, Error> {
        let labels = Labels::from([
            (KIND.to_owned(), Kind::Ticket.as_str().to_owned()),
            (SERVICE.to_owned(), self.target.name.clone()),
            (SERVICE_ID.to_owned(), self.target.id.clone()),
            (MADE.to_owned(), self.made.clone()),
        ]);
        let name = name(PREFIX, &self.target.name);
        let object = format!("{name}-{}", self.made);
        let secret = match &self.secret {
            Some(bytes) => Some(engine.ensure_secret(&object, &labels, bytes).await?),
            None => None,
        };
        let ticket = Ticket {
            schema: skep_runner::SCHEMA,
            session: object.clone(),
            fence: format!("{name}-"),
            anchors: None,
            task: self.task.clone(),
        };
        let ticket = job::ensure_ticket(engine, &object, &ticket, &labels).await?;
        Ok(self.spec(&object, &ticket, secret.as_deref(), labels))
    }

    /// Its files are objects of another name, which a spec has to repeat.
    fn spec(&self, object: &str, ticket: &str, secret: Option<&str>, labels: Labels) -> Value {
        let file = |id: &str| SecretFile {
            id: id.to_owned(),
            name: object.to_owned(),
            file: TEMPORARY_SECRET.to_owned(),
        };
        let mut spec = job::build(&JobSpec {
            name: object,
            ticket,
            runner: &self.runner,
            service: &self.target.service(),
            image: &self.target.image,
            node: self.target.node.as_deref(),
            mounts: self.store.clone().into_iter().collect(),
            secrets: secret.map(file).into_iter().collect(),
            reach: Reach::Service,
            user: None,
            labels,
        });
        spec["Name"] = json!(name(PREFIX, &self.target.name));
        spec["TaskTemplate"]["RestartPolicy"] = json!({"Condition": "any", "Delay": AGAIN});
        spec["TaskTemplate"]["LogDriver"]["Options"] = json!({"max-size": "1m", "max-file": "2"});
        spec
    }
}

/// What drops the slot of a receiver, made of the receiver itself: whatever became of the labels of its service, this knows
/// how to reach the server. It begins at zero replicas; none where the receiver's ticket is gone.
pub(super) async fn dropper(engine: &Engine, receiver: &Service) -> Result<Option<Value>, Error> {
    let configs = &receiver.spec["TaskTemplate"]["ContainerSpec"]["Configs"];
    let at = configs.as_array().into_iter().flatten().position(|c| c["File"]["Name"] == TICKET_PATH);
    let Some((at, id)) = at.and_then(|at| Some((at, configs[at]["ConfigID"].as_str()?))) else {
        return Ok(None);
    };
    let of_receiver = match engine.config(id).await {
        Ok(config) => serde_json::from_slice::<Ticket>(&config.data).ok(),
        Err(Error::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    let Some(Ticket { task: Task::PgReceive(PgReceive { connect, slot, .. }), .. }) = of_receiver else {
        return Ok(None);
    };
    let service = label(&receiver.spec, SERVICE);
    let name = name(DROPPER, service);
    let object = format!("{name}-{}", label(&receiver.spec, MADE));
    let labels: Labels = [KIND, SERVICE, SERVICE_ID, MADE]
        .into_iter()
        .map(|key| (key.to_owned(), label(&receiver.spec, key).to_owned()))
        .collect();
    let ticket = Ticket {
        schema: skep_runner::SCHEMA,
        session: object.clone(),
        fence: format!("{name}-"),
        anchors: None,
        task: Task::PgDropSlot(PgDropSlot { connect, slot }),
    };
    let ticket = job::ensure_ticket(engine, &object, &ticket, &labels).await?;
    let mut spec = receiver.spec.clone();
    spec["Name"] = json!(name);
    spec["Mode"] = json!({"Replicated": {"Replicas": 0}});
    spec["TaskTemplate"]["RestartPolicy"] = json!({"Condition": "on-failure", "Delay": DROP_AGAIN});
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    container["Mounts"] = json!([]);
    container["Labels"][job::JOB] = json!(name);
    container["Configs"][at]["ConfigID"] = json!(ticket);
    container["Configs"][at]["ConfigName"] = json!(object);
    Ok(Some(spec))
}

/// The spec by which a dropper works where the server runs now; none where it does so already.
pub(super) fn armed(spec: &Value, node: Option<&str>) -> Option<Value> {
    let mut armed = spec.clone();
    armed["Mode"] = json!({"Replicated": {"Replicas": 1}});
    if let Some(node) = node {
        armed["TaskTemplate"]["Placement"]["Constraints"] = json!([node_constraint(node)]);
    }
    (armed != *spec).then_some(armed)
}

/// Eight digits of what a receiver is made of.
fn digest(value: &Value) -> String {
    Sha256::digest(value.to_string().as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
