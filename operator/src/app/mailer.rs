//! Tells stakeholders what is due: one key an operation, one a service whose alerts were not acted on, and one for the
//! backups of the week. Mail never
//! blocks what it tells; its failures only back off here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use thiserror::Error;
use tracing::warn;

use super::Parts;
use super::ledger::Told;
use super::weekly;
use crate::notify::expect::expected_end;
use crate::notify::outbox::{Audience, DeadLetters, Delivery, Outbox, Undelivered};
use crate::notify::topic::Topic;
use crate::operation::desk::{self, Refusal};
use crate::operation::record::{OpId, Operation, State, Trigger};
use crate::policy;
use crate::runtime::{Action, Disposition, Fault, Reconcile, Snapshots, clock};
use crate::swarm;
use crate::swarm::engine::Engine;
use crate::swarm::object::Config;
use crate::swarm::world::World;
use crate::triggers::guard::{History, Notice, NoticeKind};
use crate::triggers::intake::{self, Unstored};
use crate::triggers::port::AlertPort;

/// Sends mail.
pub(super) struct Mailer {
    engine: Engine,
    outbox: Option<Arc<Outbox>>,
    snapshots: Snapshots<World>,
    port: AlertPort,
    /// Histories that cannot be read, and of which this process has told: there is nowhere to note it.
    unreadable: Mutex<BTreeSet<String>>,
}

/// Mail that could not be sent yet.
#[derive(Debug, Error)]
pub enum Unmailed {
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
            port: AlertPort { engine: parts.env.engine.clone(), ..parts.port.clone() },
            unreadable: Mutex::default(),
        }
    }

    /// `skep.notify` of a service.
    fn audience(&self, service: &str) -> Vec<String> {
        let world = self.snapshots.latest();
        let found = world.as_ref().and_then(|w| w.service_named(service));
        found.map(|s| policy::parse(&s.labels()).policy.notify).unwrap_or_default()
    }

    /// Everybody whom one of these services names, each once.
    fn audience_of<'a>(&self, services: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for name in services.flat_map(|service| self.audience(service)) {
            if !all.contains(&name) {
                all.push(name);
            }
        }
        all
    }

    /// Everybody whom a service of the stack names.
    fn audience_of_stack(&self, stack: &str) -> Vec<String> {
        let Some(world) = self.snapshots.latest() else { return Vec::new() };
        let all = world.stack(stack).flat_map(|s| policy::parse(&s.labels()).policy.notify);
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    async fn tell_operation(&self, outbox: &Outbox, id: &OpId) -> Result<Action, Unmailed> {
        let op = match desk::find(&self.engine, id).await {
            Ok(op) => op,
            Err(Refusal::Swarm(error)) => return Err(error.into()),
            Err(_) => return Ok(Action::Idle),
        };
        let label = match op.intent.work.is_of_stack() {
            true => self.audience_of_stack(&op.intent.service),
            false => self.audience_of(op.intent.services().map(|(name, _)| name)),
        };
        let why = self.why_asked(&op).await?;
        let known: Vec<Operation> = match self.snapshots.latest() {
            Some(world) => world.operations.iter().filter_map(|c| Operation::read(c).ok()).collect(),
            None => Vec::new(),
        };
        let expected_end = expected_end(&op, &known);
        let audience = Audience { label: &label, expected_end, why: why.as_deref() };
        let ledger = Told { engine: self.engine.clone() };
        let now = clock::now();
        match outbox.deliver(&op, audience, &ledger, now).await? {
            Delivery::Nothing { again: Some(at) } => Ok(Action::After(at.duration_since(now).unsigned_abs())),
            Delivery::Nothing { again: None } | Delivery::Nobody => Ok(Action::Idle),
            Delivery::Told { rejected, .. } => {
                lament(&Topic::Operation(op.id), rejected);
                Ok(Action::Idle)
            }
        }
    }

    /// Why a person is asked about an operation of an alert: the guards know it, the operation does not.
    async fn why_asked(&self, op: &Operation) -> Result<Option<String>, Unmailed> {
        let by_alert = matches!(op.intent.trigger, Trigger::Alert { .. });
        if op.journal.state != State::AwaitingApproval || !by_alert {
            return Ok(None);
        }
        let guard = self.guard(&op.intent.service).await?;
        let history = guard.and_then(|config| History::read(&config).ok());
        Ok(history.and_then(|h| h.why_asked(&op.id).map(str::to_owned)))
    }

    async fn guard(&self, service: &str) -> Result<Option<Config>, swarm::error::Error> {
        match self.engine.config(&History::config_name(service)).await {
            Ok(config) => Ok(Some(config)),
            Err(swarm::error::Error::NotFound { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn tell_alerts(&self, outbox: &Outbox, service: &str) -> Result<Action, Unmailed> {
        let Some(config) = self.guard(service).await? else { return Ok(Action::Idle) };
        let (label, now) = (self.audience(service), clock::now());
        let topic = Topic::Alerts(service.to_owned());
        match History::read(&config) {
            Ok(history) => {
                for notice in history.due_notices(now) {
                    let record = Box::pin(self.record(service, notice, now));
                    let told = outbox.give_notice(service, notice, &label, record, now).await?;
                    lament(&topic, told.unwrap_or_default());
                }
            }
            Err(why) => {
                if self.told_unreadable(&config.id, false) {
                    return Ok(Action::Idle);
                }
                let notice = unreadable(&why.to_string(), &config, now);
                let record = async { Ok(()) };
                let told = outbox.give_notice(service, &notice, &label, record, now).await?;
                self.told_unreadable(&config.id, true);
                lament(&topic, told.unwrap_or_default());
            }
        }
        Ok(Action::Idle)
    }

    async fn record(
        &self,
        service: &str,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<(), swarm::error::Error> {
        let what = format!("noting that people were told about alerts of `{service}`");
        intake::told(&self.port, service, notice, now).await.map_err(|unstored| match unstored {
            Unstored::NotLeader => swarm::error::Error::Fenced { what },
            Unstored::Contended => swarm::error::Error::Stale { what },
            Unstored::Swarm(message) => swarm::error::Error::Unreachable { what, message },
        })
    }

    fn told_unreadable(&self, config: &str, now: bool) -> bool {
        let mut told = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if now { !told.insert(config.to_owned()) } else { told.contains(config) }
    }
}

pub(super) fn lament(topic: &Topic, rejected: DeadLetters) {
    for (recipient, why) in rejected {
        warn!(about = %topic, recipient, "will never get this mail: {why}");
    }
}

fn unreadable(why: &str, config: &Config, now: Timestamp) -> Notice {
    Notice {
        alert: String::new(),
        kind: NoticeKind::Unreadable,
        sentence: format!("{why}: no alert acts on this service until a person has looked"),
        at: now,
        incident: config.created,
        operation: None,
        told: None,
    }
}

impl Reconcile for Mailer {
    type Key = Topic;
    type Error = Unmailed;

    async fn reconcile(&self, key: &Topic) -> Result<Action, Unmailed> {
        let Some(outbox) = &self.outbox else { return Ok(Action::Idle) };
        match key {
            Topic::Operation(id) => self.tell_operation(outbox, id).await,
            Topic::Alerts(service) => self.tell_alerts(outbox, service).await,
            Topic::Weekly => Ok(weekly::tell(&self.engine, outbox, clock::now()).await?),
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
