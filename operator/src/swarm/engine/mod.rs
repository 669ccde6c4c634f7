//! The calls that Skep makes to the engine, and no others.
//!
//! Invariants: each write first asks the fence (S19); lists of configs always name a kind, because the engine
//! answers lists with all data; an object asked for by id or name is never one whose id merely begins with that
//! text, which the engine would answer; removing what is gone is success.

mod registry;
mod services;
mod stored;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::{BollardRequest, ClientVersion, Docker};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::decode::{self, Wrong};
use super::error::{Effect, Error, Failure};
use super::fence::Fence;
use super::object::{Info, Network, Node};
use super::transport::{Answer, Call, Endpoint, Observer, READ_DEADLINE, Transport, chain, encode};

/// The oldest API version that Skep works with (Docker 20.10).
const OLDEST: (u32, u32) = (1, 41);
/// The newest one whose fields Skep knows; a newer engine is asked in this version.
const NEWEST: (u32, u32) = (1, 53);
/// A client of one engine. Clones share its connections and counters.
#[derive(Clone, Debug)]
pub struct Engine {
    transport: Arc<Transport>,
    docker: Docker,
    fence: Fence,
}

// === impl Engine ===

impl Engine {
    /// Connects and negotiates the API version. Writes are not fenced: see [`Engine::with_fence`].
    ///
    /// # Errors
    /// When the engine cannot be reached or is too old or too new.
    pub async fn connect(endpoint: Endpoint) -> Result<Engine, Error> {
        let transport = Arc::new(Transport::new(endpoint));
        let docker = docker_over(transport.clone(), None, "connecting")?;
        let engine = Engine { transport, docker, fence: Fence::open() };
        let version = engine.read("asking the engine's version", Call::get("/version".to_owned())).await?;
        let version = pick_version(&version)
            .map_err(|message| Error::Refused { what: "connecting".to_owned(), message })?;
        engine.transport.pin(&version);
        Ok(engine)
    }

    /// The same client, whose writes are sent only while the fence is open.
    #[must_use]
    pub fn with_fence(&self, fence: Fence) -> Engine {
        Engine { fence, ..self.clone() }
    }

    /// Whether writes would be sent now.
    pub fn is_unfenced(&self) -> bool {
        self.fence.is_open()
    }

    /// Tells the observer of every further request; the first observer stays.
    pub fn observe_by(&self, observer: Observer) {
        self.transport.observe_by(observer);
    }

    /// How often each endpoint was asked, by method and path template.
    pub fn calls(&self) -> BTreeMap<(Method, &'static str), u64> {
        self.transport.calls()
    }

    /// All nodes.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let what = "listing nodes";
        let nodes = in_time(what, self.docker.list_nodes(None)).await?;
        understood(what, nodes.into_iter().map(decode::node).collect())
    }

    /// All networks that this engine knows.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn networks(&self) -> Result<Vec<Network>, Error> {
        let what = "listing networks";
        let networks = in_time(what, self.docker.list_networks(None)).await?;
        understood(what, networks.into_iter().map(decode::listed_network).collect())
    }

    /// All networks that this engine knows, as it tells of them.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn network_definitions(&self) -> Result<Vec<Value>, Error> {
        let what = "listing networks";
        let value = self.read(what, Call::get("/networks".to_owned())).await?;
        list(value)
    }

    /// One network by id or exact name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn network(&self, id_or_name: &str) -> Result<Network, Error> {
        let what = format!("reading network `{id_or_name}`");
        let value = self.read(&what, Call::get(format!("/networks/{}", encode(id_or_name)))).await?;
        let network = understood(&what, decode::network(&value))?;
        exact(&what, id_or_name, &network.id, &network.name)?;
        Ok(network)
    }

    /// What the engine says about itself and the swarm. Answered also without a leader or quorum.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn info(&self) -> Result<Info, Error> {
        let value = self.read("asking the engine about itself", Call::get("/info".to_owned())).await?;
        Ok(decode::info(&value, self.transport.version()))
    }

    pub(super) fn transport(&self) -> &Arc<Transport> {
        &self.transport
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    async fn read(&self, what: &str, call: Call) -> Result<Value, Error> {
        let answer = self.transport.exchange(call, Effect::Read).await;
        let answer = answer.map_err(|failure| Error::from_failure(what, Effect::Read, failure))?;
        parse(what, &fine(what, Effect::Read, answer)?)
    }

    async fn write(&self, what: &str, call: Call) -> Result<Answer, Error> {
        if !self.fence.is_open() {
            return Err(Error::Fenced { what: what.to_owned() });
        }
        let answer = self.transport.exchange(call, Effect::Write).await;
        let answer = answer.map_err(|failure| Error::from_failure(what, Effect::Write, failure))?;
        fine(what, Effect::Write, answer)
    }

    async fn create(&self, what: &str, call: Call) -> Result<String, Error> {
        let answer = parse(what, &self.write(what, call).await?)?;
        let id = answer["ID"].as_str().map(str::to_owned);
        understood(what, id.ok_or_else(|| "the id is missing".to_owned()))
    }

    async fn remove(&self, what: &str, path: String) -> Result<(), Error> {
        match self.write(what, Call::delete(path)).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A bollard client whose requests travel over our transport, which also pins their API version (bollard leaves
/// it out of its paths). `answered` is told when the head of the first answer is there.
pub(super) fn docker_over(
    transport: Arc<Transport>,
    answered: Option<oneshot::Sender<()>>,
    what: &str,
) -> Result<Docker, Error> {
    let answered = Arc::new(Mutex::new(answered));
    let send = move |request: BollardRequest| {
        let (transport, answered) = (transport.clone(), answered.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body =
                body.collect().await.map_err(|e| bollard_error(Failure::NotSent(chain(&*e))))?.to_bytes();
            let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let call = Call { method: parts.method, path, registry_auth: None, body };
            let response = transport.open(call).await.map_err(bollard_error)?;
            let waiting = answered.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(answered) = waiting.filter(|_| response.status().is_success()) {
                // Where nobody waits for it any more, nobody minds.
                let _ = answered.send(());
            }
            Ok(response)
        }
    };
    let version = ClientVersion { major_version: OLDEST.0 as usize, minor_version: OLDEST.1 as usize };
    Docker::connect_with_custom_transport(send, Some("http://docker"), READ_DEADLINE.as_secs(), &version)
        .map_err(|e| from_bollard(what, e))
}

/// Runs a read through bollard within the deadline of reads, its body included.
async fn in_time<T>(
    what: &str,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, Error> {
    match timeout(READ_DEADLINE, call).await {
        Ok(result) => result.map_err(|e| from_bollard(what, e)),
        Err(_) => {
            let failure = Failure::NoAnswer(format!("no answer within {} s", READ_DEADLINE.as_secs()));
            Err(Error::from_failure(what, Effect::Read, failure))
        }
    }
}

/// Classifies what bollard answers; it only carries reads.
pub(super) fn from_bollard(what: &str, error: bollard::errors::Error) -> Error {
    use bollard::errors::Error as Bollard;
    let failure = match error {
        Bollard::DockerResponseServerError { status_code, message } => {
            return Error::from_answer(what, Effect::Read, status_code, &message);
        }
        Bollard::JsonDataError { message, .. } => {
            return Error::Malformed { what: what.to_owned(), message };
        }
        Bollard::IOError { err } => match err.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(err) => Failure::NoAnswer(chain(&err)),
        },
        other => Failure::NoAnswer(chain(&other)),
    };
    Error::from_failure(what, Effect::Read, failure)
}

fn bollard_error(failure: Failure) -> bollard::errors::Error {
    std::io::Error::other(failure).into()
}

/// The newest API version that both sides know.
fn pick_version(answer: &Value) -> Result<String, String> {
    let number = |key: &str| -> Option<(u32, u32)> {
        let (major, minor) = answer[key].as_str()?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let newest = number("ApiVersion").ok_or("it does not tell its API version")?;
    let engine = answer["Version"].as_str().unwrap_or("unknown");
    if newest < OLDEST {
        return Err(format!(
            "Docker {engine} speaks API {}.{}; Skep needs {}.{} (Docker 20.10) or newer",
            newest.0, newest.1, OLDEST.0, OLDEST.1
        ));
    }
    let picked = newest.min(NEWEST);
    if number("MinAPIVersion").is_some_and(|oldest| oldest > picked) {
        return Err(format!(
            "Docker {engine} no longer speaks API {}.{}, the newest that this Skep knows",
            NEWEST.0, NEWEST.1
        ));
    }
    Ok(format!("{}.{}", picked.0, picked.1))
}

fn filters(value: &Value) -> String {
    format!("filters={}", encode(&value.to_string()))
}

fn fine(what: &str, effect: Effect, answer: Answer) -> Result<Answer, Error> {
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let message = serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|v| v["message"].as_str().map(str::to_owned));
    Err(Error::from_answer(what, effect, answer.status, &message.unwrap_or_else(|| text.into_owned())))
}

fn parse(what: &str, answer: &Answer) -> Result<Value, Error> {
    understood(what, serde_json::from_slice(&answer.body).map_err(|e| e.to_string()))
}

fn list(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(Vec::new()),
        _ => Err(Error::Malformed { what: "listing".to_owned(), message: "it is no list".to_owned() }),
    }
}

fn understood<T>(what: &str, result: Result<T, Wrong>) -> Result<T, Error> {
    result.map_err(|message| Error::Malformed { what: what.to_owned(), message })
}

/// The engine also answers an object whose id merely begins with the text asked for.
fn exact(what: &str, asked: &str, id: &str, name: &str) -> Result<(), Error> {
    if asked == id || asked == name { Ok(()) } else { Err(Error::NotFound { what: what.to_owned() }) }
}
