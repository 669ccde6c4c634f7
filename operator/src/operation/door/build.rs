//! How doors are made.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use skep_waker::Task;
use skep_waker::task::{Ask, Door, Token, Unused};

use super::{MADE, PATH, label, name};
use crate::operation::client_spec::{NOWHERE, update_config};
use crate::operation::record::{SERVICE, SERVICE_ID};
use crate::operation::saga::{Env, Fault};
use crate::operation::waker::{self, Reach};
use crate::policy::{Scale, WakeOnDemand};
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{KIND, Kind, Labels, RegistryAuth, Service};

/// A door as it has to be.
pub(super) struct Wanted {
    service: Service,
    door: String,
    reach: Reach,
    /// All but its token.
    task: Task,
    /// How it is made; see [`MADE`].
    pub(super) made: String,
}

// === impl Wanted ===

impl Wanted {
    /// The door of a service; none where its labels ask for none.
    ///
    /// # Errors
    /// When Skep's own image or address is not known, or what the engine says.
    pub(super) async fn of(env: &Env, service: &Service, scale: &Scale) -> Result<Option<Wanted>, Fault> {
        let Some((wake, door)) = scale.wake.as_ref().and_then(|wake| Some((wake, wake.door.clone()?))) else {
            return Ok(None);
        };
        let reach = waker::reach(env).await?;
        let name = name(service.name());
        let rendered = waker::page_of(&name, service.created);
        let task = Task {
            schema: skep_waker::SCHEMA,
            service: service.name().to_owned(),
            networks: waker::network_names(&env.engine, &service.spec).await?,
            ports: wake.ports.clone(),
            mode: wake.mode,
            timeout_s: wake.timeout.as_secs().max(1),
            retry_after_s: waker::RETRY_AFTER,
            ask: Ask { url: format!("{}{}", reach.url, waker::PATH), token: Token::new("-"), sleep: name },
            ignore: wake.ignore.clone(),
            html: own_page(&env.engine, wake).await?.unwrap_or(rendered.html),
            json: rendered.json,
            door: Some(Door {
                unused: scale.idle.as_ref().map(|idle| Unused {
                    after_s: idle.after.as_secs(),
                    url: format!("{}{PATH}", reach.url),
                }),
            }),
        };
        let mut wanted = Wanted { service: service.clone(), door, reach, task, made: String::new() };
        wanted.made = digest(&json!([wanted.spec("config"), wanted.task]));
        Ok(Some(wanted))
    }

    /// Makes it. Each part that is there already was made by an earlier look.
    pub(super) async fn create(&self, engine: &Engine) -> Result<(), Error> {
        let spec = self.prepare(engine, None).await?;
        match engine.create_service(&spec, RegistryAuth::Anonymous).await {
            Ok(_) | Err(Error::Exists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes it of one that was made otherwise, in one write. It keeps the token: what leaves may still hold somebody.
    pub(super) async fn replace(&self, engine: &Engine, found: &Service) -> Result<(), Error> {
        let token = super::token_of(engine, found).await?;
        let spec = self.prepare(engine, token).await?;
        engine.update_service(&found.id, found.version, &spec).await
    }

    /// Makes the config that it mounts; its spec.
    async fn prepare(&self, engine: &Engine, token: Option<Token>) -> Result<Value, Error> {
        let mut task = self.task.clone();
        task.ask.token = token.unwrap_or_else(waker::new_token);
        let malformed = |e: serde_json::Error| Error::Malformed {
            what: format!("the task of the door of {}", self.service.name()),
            message: e.to_string(),
        };
        let data = serde_json::to_vec(&task).map_err(malformed)?;
        let config = engine.ensure_config(&self.object(), &self.labels(), &data).await?;
        Ok(self.spec(&config))
    }

    fn object(&self) -> String {
        format!("{}-{}", name(self.service.name()), self.made)
    }

    fn labels(&self) -> Labels {
        Labels::from([
            (KIND.to_owned(), Kind::Door.as_str().to_owned()),
            (SERVICE.to_owned(), self.service.name().to_owned()),
            (SERVICE_ID.to_owned(), self.service.id.clone()),
            (MADE.to_owned(), self.made.clone()),
        ])
    }

    fn spec(&self, config: &str) -> Value {
        let found = &self.service.spec["TaskTemplate"];
        let config = json!({
            "File": { "Name": waker::TASK_PATH, "UID": "0", "GID": "0", "Mode": 0o444 },
            "ConfigID": config,
            "ConfigName": self.object(),
        });
        let networks = found["Networks"].as_array().into_iter().flatten().map(|network| {
            let mut network = network.clone();
            network["Aliases"] = json!([self.door]);
            network
        });
        let constraints = found["Placement"]["Constraints"].as_array().into_iter().flatten();
        let constraints: Vec<&Value> = constraints.filter(|constraint| **constraint != NOWHERE).collect();
        let labels = json!({ super::CONTAINER: self.service.name() });
        let mut template = json!({
            "ContainerSpec": waker::container(&self.reach.image, &labels, &config),
            "RestartPolicy": { "Condition": "any", "Delay": 1_000_000_000u64, "MaxAttempts": 0 },
            "Placement": { "Constraints": constraints },
            "Networks": networks.collect::<Vec<_>>(),
            "Runtime": "container",
        });
        waker::join(&mut template, &self.reach.network);
        // As the service itself is found, so is its door.
        let mode = self.service.spec["EndpointSpec"]["Mode"].as_str().unwrap_or("vip");
        json!({
            "Name": name(self.service.name()),
            "Labels": self.labels(),
            "TaskTemplate": template,
            "Mode": { "Replicated": { "Replicas": 1 } },
            "UpdateConfig": update_config(false),
            "EndpointSpec": { "Mode": mode },
        })
    }
}

/// Whether a door is as it was made: nobody has changed how many tasks it has.
pub(super) fn is_whole(door: &Service) -> bool {
    door.replicas() == Some(1)
}

/// Whether a door was made so.
pub(super) fn is_made(door: &Service, wanted: &Wanted) -> bool {
    label(&door.spec, MADE) == wanted.made
}

/// The user's own page: the data of a Swarm config of theirs. Skep's own is shown where it is gone.
async fn own_page(engine: &Engine, wake: &WakeOnDemand) -> Result<Option<String>, Error> {
    let Some(page) = &wake.page else { return Ok(None) };
    match engine.config(page).await {
        Ok(config) => Ok(String::from_utf8(config.data).ok()),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Eight digits of what a door is made of.
fn digest(value: &Value) -> String {
    Sha256::digest(value.to_string().as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
