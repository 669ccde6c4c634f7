//! Chores of the leader: ask for what is due, judge alerts that wait, remove what nobody owns or needs any more.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tracing::info;

use super::Parts;
use crate::http::metrics::Metrics;
use crate::operation::saga::Env;
use crate::operation::{desk, door, receiver};
use crate::plan;
use crate::plan::scheduled::Rules;
use crate::plan::sweep::{Objects, SWEPT, What};
use crate::runtime::{Action, Disposition, Fault, Reconcile, clock};
use crate::swarm::error::Error;
use crate::swarm::object::{Kind, OP};
use crate::triggers::cron;
use crate::triggers::guard::History;
use crate::triggers::intake::{self, Unstored};
use crate::triggers::port::AlertPort;

/// One chore; each is a key of its own, so that none delays another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Chore {
    /// Judge alerts that wait for their time.
    Alerts,
    /// Ask for operations that are due by themselves.
    Due,
    /// Keep receivers of write-ahead logs.
    Receivers,
    /// Keep doors before services.
    Doors,
    /// Remove records and objects.
    Tidy,
}

/// Does the chores.
pub(super) struct Keeper {
    env: Env,
    port: AlertPort,
    rules: Rules,
    metrics: Arc<Metrics>,
    started: Timestamp,
}

/// A chore that could not be done now.
#[derive(Debug, Error)]
pub(super) enum Undone {
    /// The engine.
    #[error(transparent)]
    Swarm(#[from] Error),
    /// Alerts.
    #[error(transparent)]
    Alerts(#[from] Unstored),
}

// === impl Chore ===

impl Chore {
    pub(super) const ALL: [Chore; 5] =
        [Chore::Alerts, Chore::Due, Chore::Receivers, Chore::Doors, Chore::Tidy];

    const fn every(self) -> Duration {
        match self {
            Chore::Alerts => Duration::from_secs(1),
            Chore::Due | Chore::Receivers => Duration::from_secs(20),
            // Somebody may have deployed a proxy that asks for one.
            Chore::Doors => Duration::from_secs(10),
            Chore::Tidy => Duration::from_secs(60),
        }
    }
}

impl fmt::Display for Chore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Chore::Alerts => "alerts",
            Chore::Due => "due",
            Chore::Receivers => "receivers",
            Chore::Doors => "doors",
            Chore::Tidy => "tidy",
        })
    }
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(parts: &Parts) -> Keeper {
        let port = AlertPort { engine: parts.env.engine.clone(), ..parts.port.clone() };
        Keeper {
            env: parts.env.clone(),
            port,
            rules: parts.rules,
            metrics: parts.metrics.clone(),
            started: parts.started,
        }
    }

    async fn tidy(&self) -> Result<(), Error> {
        let engine = &self.env.engine;
        let objects = objects(&self.env).await?;
        for orphan in plan::sweep(&objects) {
            info!(name = orphan.name, "removed: {}", orphan.why);
            match orphan.what {
                What::Service => engine.remove_service(&orphan.id).await?,
                What::Secret => engine.remove_secret(&orphan.id).await?,
                What::Config => engine.remove_config(&orphan.id).await?,
            }
        }
        let operations = desk::list(engine).await?;
        let guards = engine.configs(Kind::Guard, &[]).await?;
        let histories = guards.iter().filter_map(|c| History::read(c).ok());
        let named: BTreeSet<_> = histories.flat_map(|h| h.restores.into_iter().map(|r| r.op)).collect();
        let keep = self.env.settings.keep_operations;
        for config in plan::prune(&operations, &objects.services, &named, keep, clock::now()) {
            engine.remove_config(&config).await?;
        }
        Ok(())
    }
}

/// Everything that Skep makes; the operations last, so that an owner that is not among them is gone.
async fn objects(env: &Env) -> Result<Objects, Error> {
    let engine = &env.engine;
    let mut objects = Objects { services: engine.services(&[]).await?, ..Objects::default() };
    objects.secrets = engine.secrets(&[]).await?.into_iter().filter(|s| s.labels.contains_key(OP)).collect();
    for kind in SWEPT {
        objects.configs.extend(engine.configs(kind, &[]).await?);
    }
    objects.operations = engine.configs(Kind::Operation, &[]).await?;
    Ok(objects)
}

impl Reconcile for Keeper {
    type Key = Chore;
    type Error = Undone;

    async fn reconcile(&self, key: &Chore) -> Result<Action, Undone> {
        match key {
            Chore::Alerts => {
                for decided in intake::recheck(&self.port, clock::now()).await? {
                    self.metrics.decided(decided.decision);
                    info!(alert = decided.alert, service = decided.service, "{}", decided.sentence);
                }
            }
            Chore::Due => drop(cron::ask(&self.env, &self.rules).await?),
            Chore::Receivers => {
                let released = receiver::honour(&self.env.engine, self.started).await?;
                self.metrics.receivers(&receiver::reconcile(&self.env, released).await?);
            }
            Chore::Doors => {
                let released = receiver::honour(&self.env.engine, self.started).await?;
                self.metrics.doors(&door::reconcile(&self.env, released).await?);
            }
            Chore::Tidy => self.tidy().await?,
        }
        Ok(Action::After(key.every()))
    }
}

impl Fault for Undone {
    fn disposition(&self) -> Disposition {
        Disposition::Retry
    }

    fn category(&self) -> &'static str {
        match self {
            Undone::Swarm(error) => error.category(),
            Undone::Alerts(_) => "unstored",
        }
    }
}
