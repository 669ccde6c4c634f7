//! What is journaled about clients, and their saved specs: configs `skep-base-<op>-<service>-<n>`, the newest of which is
//! put back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RECALL, STEP};
use crate::operation::frozen::Client;
use crate::operation::record::{OpId, Operation, Work};
use crate::operation::saga::{Cx, Fault};
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, Service, short_hash};

/// What is journaled about clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientsOut {
    /// Number of saved specs by service name.
    pub saved: BTreeMap<String, u32>,
    /// Until when tasks of a service may still be ending although Swarm has forgotten them: a write in the middle of a stop
    /// makes it forget them, while their containers run on for their grace period.
    #[serde(default)]
    pub quiet: BTreeMap<String, Timestamp>,
    /// Id of the service that the newest saved spec is of, by name: where one was removed and made anew meanwhile.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub anew: BTreeMap<String, String>,
    /// Since when it is a service's turn to stop, where one stops after the other.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopping: BTreeMap<String, Timestamp>,
    /// The same of starting.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starting: BTreeMap<String, Timestamp>,
    /// Since when clients that were stopped are stopped no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unstopped: Option<Timestamp>,
}

/// A saved spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// How many were saved before it.
    pub number: u32,
    /// What the client goes back to.
    pub spec: Value,
}

/// The step under which an operation journals its clients: that in which it stops them, or in which it takes over what
/// another one has stopped.
fn step_of(op: &Operation) -> &'static str {
    if op.intent.work == Work::Wake { RECALL } else { STEP }
}

/// The operation that stops a client, with what it has journaled about that.
pub(super) struct Stopper {
    pub id: OpId,
    pub out: ClientsOut,
}

impl Stopper {
    /// The operation that is driven.
    pub(super) fn this(cx: &Cx<'_>) -> Result<Stopper, Fault> {
        Stopper::of(cx.op)
    }

    pub(super) fn of(op: &Operation) -> Result<Stopper, Fault> {
        let step = step_of(op);
        let out = op.journal.step(step).map(|record| record.out.clone()).filter(|out| !out.is_null());
        let out = out.map(serde_json::from_value).transpose();
        let out = out.map_err(|source| Fault::Journal { step: step.to_owned(), source })?;
        Ok(Stopper { id: op.id.clone(), out: out.unwrap_or_default() })
    }
}

/// What is journaled about clients so far.
pub(super) fn clients_out(cx: &Cx<'_>) -> Result<ClientsOut, Fault> {
    Ok(Stopper::this(cx)?.out)
}

fn base_name(op: &OpId, client: &Client, number: u32) -> String {
    format!("skep-base-{op}-{}-{number}", short_hash(&client.name))
}

/// The newest saved spec of a client: what it goes back to.
///
/// # Errors
/// When it is missing or malformed.
pub async fn load_base(cx: &Cx<'_>, client: &Client) -> Result<Option<Base>, Fault> {
    newest(cx, &Stopper::this(cx)?, client).await
}

/// As [`load_base`], of a client that another operation stops.
///
/// # Errors
/// When it is missing or malformed.
pub async fn load_base_of_other(
    cx: &Cx<'_>,
    other: &Operation,
    client: &Client,
) -> Result<Option<Base>, Fault> {
    newest(cx, &Stopper::of(other)?, client).await
}

async fn newest(cx: &Cx<'_>, by: &Stopper, client: &Client) -> Result<Option<Base>, Fault> {
    let Some(count) = by.out.saved.get(&client.name).copied().filter(|n| *n > 0) else {
        return Ok(None);
    };
    let number = count - 1;
    let config = cx.engine().config(&base_name(&by.id, client, number)).await?;
    let spec = serde_json::from_slice(&config.data);
    let spec = spec.map_err(|source| Fault::Journal { step: STEP.to_owned(), source })?;
    Ok(Some(Base { number, spec }))
}

/// The newest saved spec, if it is one of this very service.
pub(super) async fn load_base_of(
    cx: &Cx<'_>,
    by: &Stopper,
    client: &Client,
    service: &Service,
) -> Result<Option<Base>, Fault> {
    let of = by.out.anew.get(&client.name).unwrap_or(&client.id);
    if *of == service.id { newest(cx, by, client).await } else { Ok(None) }
}

/// Saves a spec under the next number, then journals the number. A config left by an attempt that died in between is
/// replaced: nothing was written to the service on its account yet.
pub(super) async fn save_base(
    cx: &mut Cx<'_>,
    client: &Client,
    service: &Service,
    base: &Value,
) -> Result<(), Fault> {
    let mut out = clients_out(cx)?;
    if service.id != client.id {
        cx.remark(format!("{} was removed and made anew meanwhile; the new one is kept", client.name));
        out.anew.insert(client.name.clone(), service.id.clone());
    } else if out.saved.get(&client.name).is_some_and(|number| *number > 0) {
        cx.remark(format!("{} was changed by somebody meanwhile; what they deployed is kept", client.name));
    }
    save(cx, client, base, out).await
}

/// Takes over the spec of a client that another operation has stopped: it is what this one goes back to.
///
/// # Errors
/// What the engine says.
pub async fn adopt_base(cx: &mut Cx<'_>, client: &Client, spec: &Value) -> Result<(), Fault> {
    let out = clients_out(cx)?;
    save(cx, client, spec, out).await
}

/// Saves a spec that Skep itself has begun to write: from now on it is the one to go back to.
pub(super) async fn save_wanted(cx: &mut Cx<'_>, client: &Client, wanted: &Value) -> Result<(), Fault> {
    let out = clients_out(cx)?;
    save(cx, client, wanted, out).await
}

async fn save(cx: &mut Cx<'_>, client: &Client, base: &Value, mut out: ClientsOut) -> Result<(), Fault> {
    let number = out.saved.get(&client.name).copied().unwrap_or(0);
    let name = base_name(&cx.op.id, client, number);
    let data = serde_json::to_vec(base).map_err(|source| Fault::Journal { step: STEP.to_owned(), source })?;
    match cx.engine().config(&name).await {
        Ok(left) if left.data != data => cx.engine().remove_config(&left.id).await?,
        Ok(_) | Err(Error::NotFound { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    cx.engine().ensure_config(&name, &cx.labels(Kind::Plan), &data).await?;
    out.saved.insert(client.name.clone(), number + 1);
    keep(cx, &out).await
}

/// Journals what is known about clients.
pub(super) async fn keep(cx: &mut Cx<'_>, out: &ClientsOut) -> Result<(), Fault> {
    let (now, step) = (cx.now(), step_of(cx.op));
    cx.op.journal.step_mut(step, now).out =
        serde_json::to_value(out).map_err(|source| Fault::Journal { step: step.to_owned(), source })?;
    cx.save().await
}
