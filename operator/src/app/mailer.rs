//! Tells stakeholders what is due: one key an operation. Mail never blocks an operation; its failures only back off here.

use std::sync::Arc;

use thiserror::Error;
use tracing::warn;

use super::Parts;
use super::ledger::Told;
use crate::notify::outbox::{Audience, Delivery, Outbox, Undelivered};
use crate::operation::desk::{self, Refusal};
use crate::operation::record::OpId;
use crate::policy;
use crate::runtime::{Action, Disposition, Fault, Reconcile, Snapshots, clock};
use crate::swarm;
use crate::swarm::engine::Engine;
use crate::swarm::world::World;

/// Sends mail.
pub(super) struct Mailer {
    engine: Engine,
    outbox: Option<Arc<Outbox>>,
    snapshots: Snapshots<World>,
}

/// Mail that could not be sent yet.
#[derive(Debug, Error)]
pub(super) enum Unmailed {
    /// The mail server.
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    /// The engine.
    #[error(transparent)]
    Swarm(#[from] swarm::error::Error),
}

// === impl Mailer ===

impl Mailer {
    pub(super) fn new(parts: &Parts) -> Mailer {
        Mailer {
            engine: parts.env.engine.clone(),
            outbox: parts.outbox.clone(),
            snapshots: parts.snapshots.clone(),
        }
    }

    /// `skep.notify` of the operation's service.
    fn audience(&self, service: &str) -> Vec<String> {
        let world = self.snapshots.latest();
        let found = world.as_ref().and_then(|w| w.service_named(service));
        found.map(|s| policy::parse(&s.labels()).policy.notify).unwrap_or_default()
    }
}

impl Reconcile for Mailer {
    type Key = OpId;
    type Error = Unmailed;

    async fn reconcile(&self, key: &OpId) -> Result<Action, Unmailed> {
        let Some(outbox) = &self.outbox else { return Ok(Action::Idle) };
        let op = match desk::find(&self.engine, key).await {
            Ok(op) => op,
            Err(Refusal::Swarm(error)) => return Err(error.into()),
            Err(_) => return Ok(Action::Idle),
        };
        let label = self.audience(&op.intent.service);
        let audience = Audience { label: &label, expected_end: None };
        let ledger = Told { engine: self.engine.clone() };
        let now = clock::now();
        match outbox.deliver(&op, audience, &ledger, now).await? {
            Delivery::Nothing { again: Some(at) } => Ok(Action::After(at.duration_since(now).unsigned_abs())),
            Delivery::Nothing { again: None } | Delivery::Nobody => Ok(Action::Idle),
            Delivery::Told { rejected, .. } => {
                for (recipient, why) in rejected {
                    warn!(operation = %op.id, recipient, "will never get this mail: {why}");
                }
                Ok(Action::Idle)
            }
        }
    }
}

impl Fault for Unmailed {
    fn disposition(&self) -> Disposition {
        match self {
            Unmailed::Undelivered(Undelivered::Unwritable { .. }) => Disposition::Stop,
            Unmailed::Undelivered(_) => Disposition::Retry,
            Unmailed::Swarm(error) => error.disposition(),
        }
    }

    fn category(&self) -> &'static str {
        match self {
            Unmailed::Undelivered(_) => "undelivered",
            Unmailed::Swarm(error) => error.category(),
        }
    }
}
