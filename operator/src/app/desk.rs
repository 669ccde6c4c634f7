//! Answers what the HTTP handlers ask for.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tracing::info;

use super::Parts;
use crate::http::server::{Denied, Desk};
use crate::http::view::View;
use crate::operation::desk::{self, Refusal};
use crate::operation::record::OpId;
use crate::operation::waker::{self, Granted, Request};
use crate::runtime::clock;
use crate::triggers::alertmanager::Entry;
use crate::triggers::doors::{self, Lulled, Unused};
use crate::triggers::intake::{self, Decided, Unstored};

/// The daemon, as handlers see it.
pub(super) struct AppDesk {
    parts: Arc<Parts>,
    views: watch::Receiver<Option<Arc<View>>>,
    /// One post at a time: posts that come together (repeats, an Alertmanager of several) would take each other's turn to
    /// write until one of them gives up.
    taking: Mutex<()>,
}

impl AppDesk {
    pub(super) fn new(parts: Arc<Parts>, views: watch::Receiver<Option<Arc<View>>>) -> AppDesk {
        AppDesk { parts, views, taking: Mutex::new(()) }
    }
}

impl Desk for AppDesk {
    async fn alerts(&self, entries: Vec<Entry>) -> Result<Vec<Decided>, Unstored> {
        let _alone = self.taking.lock().await;
        let decided = intake::take(&self.parts.port, &entries, clock::now()).await?;
        self.parts.snapshots.refresh();
        Ok(decided)
    }

    async fn approve(&self, op: &OpId, who: &str) -> Result<(), Denied> {
        let approved = desk::approve(&self.parts.engine, op, who).await;
        self.parts.snapshots.refresh();
        approved.map(drop).map_err(denied)
    }

    async fn cancel(&self, op: &OpId, who: &str) -> Result<(), Denied> {
        let cancelled = desk::cancel(&self.parts.engine, op, who).await;
        self.parts.snapshots.refresh();
        cancelled.map(drop).map_err(denied)
    }

    async fn reset_circuit(&self, service: &str, who: &str) -> Result<(), Denied> {
        info!(service, who, "the circuit is reset");
        match intake::reset_circuit(&self.parts.port, service, clock::now()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Denied::NotFound),
            Err(unstored) => Err(Denied::Unstored(unstored)),
        }
    }

    async fn wake(&self, request: &Request) -> Result<Granted, Denied> {
        let granted = waker::grant(&self.parts.engine, request, clock::now()).await;
        if let Ok(Granted::UnderWay(id)) = &granted {
            // Nobody hears it where another replica leads: that one hears of it from the engine.
            let _ = self.parts.asked.send(id.clone());
        }
        self.parts.snapshots.refresh();
        granted.map_err(denied)
    }

    async fn lull(&self, unused: &Unused) -> Result<Lulled, Denied> {
        let Parts { engine, env, .. } = &*self.parts;
        let lulled = doors::lull(engine, &env.settings, unused, clock::now()).await;
        if let Ok(Lulled::UnderWay(id)) = &lulled {
            let _ = self.parts.asked.send(id.clone());
        }
        self.parts.snapshots.refresh();
        lulled.map_err(denied)
    }

    fn view(&self) -> Option<Arc<View>> {
        self.views.borrow().clone()
    }

    fn ready(&self) -> Result<(), String> {
        match &*self.views.borrow() {
            None => Err("the Swarm was not read yet".to_owned()),
            Some(view) => view.trouble.clone().map_or(Ok(()), Err),
        }
    }
}

fn denied(refusal: Refusal) -> Denied {
    match refusal {
        Refusal::Absent(_) => Denied::NotFound,
        state @ Refusal::State { .. } => Denied::Conflict(state.to_string()),
        Refusal::Swarm(error) => Denied::Unstored(Unstored::Swarm(error.to_string())),
    }
}
