//! What the judgement of alerts needs of the Swarm: read now, written by compare-and-swap.

use std::sync::Arc;

use jiff::Timestamp;

use super::guard::{History, Settings, Situation, Target, is_sick};
use super::intake::{Port, Unstored};
use crate::operation::claim::concerns;
use crate::operation::desk::{self, Refusal};
use crate::operation::record::{Intent, OpId, Operation, SERVICE, State};
use crate::policy;
use crate::policy::graph::Graph;
use crate::runtime::clock;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{Config, ENABLE, Kind, Service};

/// The Swarm, for the judgement of alerts. Its writes need no lease: they are atomic by name or by version, so any
/// replica that Alertmanager reaches may take an alert.
#[derive(Clone)]
pub struct AlertPort {
    /// The engine, without a fence.
    pub engine: Engine,
    /// Times and thresholds.
    pub settings: Arc<Settings>,
    /// Since when this process takes alerts.
    pub listening_since: Timestamp,
}

impl Port for AlertPort {
    type At = (String, u64);

    async fn situation(&self, service: &str) -> Result<(Situation, Option<Self::At>), Unstored> {
        let services = self.engine.services(&[(ENABLE, Some("true"))]).await.map_err(unstored)?;
        let guards = self.engine.configs(Kind::Guard, &[]).await.map_err(unstored)?;
        let operations = desk::list(&self.engine).await.map_err(unstored)?;
        let found = services.iter().find(|s| s.name() == service);
        let own = guards.iter().find(|c| c.name == History::config_name(service));
        let id = found.map_or("", |s| s.id.as_str());
        let history = match own {
            Some(config) => History::read(config),
            None => Ok(History::new(service, id)),
        };
        let neighbours = neighbours(&services, service);
        let (mine, others): (Vec<Operation>, Vec<Operation>) =
            operations.into_iter().partition(|o| o.intent.is_about(service));
        let situation = Situation {
            target: found.map(target),
            history,
            operations: mine,
            neighbours: others
                .into_iter()
                .filter(|o| match o.intent.work.is_of_stack() {
                    true => concerns(o, service),
                    false => neighbours.iter().any(|name| o.intent.is_about(name)),
                })
                .collect(),
            sick_elsewhere: self.sick_elsewhere(&guards, service),
            managed: services.len(),
            listening_since: self.listening_since,
            settings: (*self.settings).clone(),
        };
        Ok((situation, own.map(|c| (c.id.clone(), c.version))))
    }

    async fn guarded(&self) -> Result<Vec<String>, Unstored> {
        let guards = self.engine.configs(Kind::Guard, &[]).await.map_err(unstored)?;
        Ok(guards.iter().filter_map(|c| c.labels.get(SERVICE).cloned()).collect())
    }

    async fn create(&self, op: &OpId, intent: &Intent) -> Result<(), Unstored> {
        desk::create(&self.engine, op, intent.clone()).await.map(drop).map_err(refused)
    }

    async fn cancel(&self, op: &OpId, who: &str) -> Result<bool, Unstored> {
        let found = match desk::find(&self.engine, op).await {
            Ok(found) => found,
            Err(Refusal::Absent(_)) => return Ok(true),
            Err(other) => return Err(refused(other)),
        };
        if found.journal.cancel.as_deref() == Some(who) {
            return Ok(true);
        }
        let waits = matches!(found.journal.state, State::Pending | State::AwaitingApproval);
        if !waits || !found.journal.steps.is_empty() {
            return Ok(false);
        }
        match desk::cancel_at(&self.engine, found, who).await {
            Ok(()) => Ok(true),
            // It has moved since it was read: it has begun, or is about to.
            Err(Error::Stale { .. }) => Ok(false),
            Err(other) => Err(unstored(other)),
        }
    }

    async fn store(&self, history: &History, over: Option<&Self::At>) -> Result<bool, Unstored> {
        let name = History::config_name(&history.service);
        let labels = history.labels();
        let stored = match over {
            Some((id, version)) => self.engine.relabel_config(id, *version, &name, &labels).await,
            None => self.engine.create_config(&name, &labels, b"-").await.map(drop),
        };
        match stored {
            Ok(()) => Ok(true),
            Err(Error::Stale { .. } | Error::Exists { .. } | Error::NotFound { .. }) => Ok(false),
            Err(other) => Err(unstored(other)),
        }
    }
}

impl AlertPort {
    fn sick_elsewhere(&self, guards: &[Config], service: &str) -> usize {
        let now = clock::now();
        guards
            .iter()
            .filter(|c| c.labels.get(SERVICE).is_some_and(|s| s != service))
            .filter_map(|c| History::read(c).ok())
            .filter(|h| is_sick(h, &self.settings, now))
            .count()
    }
}

fn target(service: &Service) -> Target {
    let parsed = policy::parse(&service.labels());
    Target {
        name: service.name().to_owned(),
        id: service.id.clone(),
        blocking: parsed.blocking().map(ToString::to_string).collect(),
        policy: parsed.policy,
    }
}

/// Services whose restore stops or pages this one: those that it depends on.
fn neighbours(services: &[Service], service: &str) -> Vec<String> {
    Graph::new(services).dependencies_of(service)
}

fn unstored(error: Error) -> Unstored {
    match error {
        Error::Fenced { .. } => Unstored::NotLeader,
        other => Unstored::Swarm(other.to_string()),
    }
}

fn refused(refusal: Refusal) -> Unstored {
    match refusal {
        Refusal::Swarm(error) => unstored(error),
        other => Unstored::Swarm(other.to_string()),
    }
}
