//! A door that sees nobody come lets the operator know, so that the service may sleep.
//!
//! Whoever comes is held from the moment before the operator is asked: so nothing is open, and nothing new is let through, while
//! the service stops. That ends when the service has gone, or when the operator says that it is not to sleep after all, as it
//! does where somebody came meanwhile.
//!
//! Invariants: what is open is use, however quiet; what came before the door began is not known, so it counts as use until then;
//! a door through which nothing has ever come asks for nothing: perhaps nobody was told of it, and the service is used past it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::ask::{Refusal, post};
use crate::gate::Gate;
use crate::open::Open;
use crate::settings::Settings;
use crate::task::{Task, Unused};
use crate::upstream::{Upstream, others};

/// What is watched.
pub(crate) struct Idle {
    pub(crate) task: Arc<Task>,
    pub(crate) unused: Unused,
    pub(crate) gate: Arc<Gate>,
    pub(crate) open: Arc<Open>,
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) settings: Settings,
}

// === impl Idle ===

impl Idle {
    /// Asks whenever nobody has used the service for long enough, until the door is told to leave.
    pub(crate) async fn watch(self) {
        let mut ticks = interval(self.settings.idle_look);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Instant::now();
        loop {
            ticks.tick().await;
            if self.open.is_leaving() {
                return;
            }
            if Instant::now() < next || !self.is_unused() || !self.open.has_anything_come() {
                continue;
            }
            next = Instant::now() + self.settings.idle_again;
            match others(&*self.upstream).await {
                Ok(hosts) if hosts.is_empty() => self.gate.list(&hosts),
                Ok(_) => self.lull().await,
                Err(_) => {}
            }
        }
    }

    fn is_unused(&self) -> bool {
        self.open.unused_for().is_some_and(|quiet| quiet >= Duration::from_secs(self.unused.after_s))
    }

    /// Asks for the sleep, with everybody held from before.
    async fn lull(&self) {
        // Whoever comes now asks afterwards: that the service does not sleep is no answer while it may begin to.
        let _turn = self.gate.turn().await;
        let was_held = self.gate.held_for().is_some();
        self.gate.hold();
        // Whoever has come and was let through is seen now; whoever was not yet will be held.
        if !self.is_unused() {
            // Where it was asked for before, whoever is held learns what becomes of that.
            if !was_held {
                self.gate.lift();
            }
            return;
        }
        let question = json!({ "service": self.task.service, "asked": seconds() });
        let asking = post(&self.unused.url, &self.task.ask.token, &question);
        match timeout(self.settings.ask_timeout, asking).await.unwrap_or(Err(Refusal::Silent)) {
            Ok(()) => info!(service = self.task.service, "nobody uses the service, and it is to sleep"),
            Err(why @ (Refusal::Silent | Refusal::Http(_))) => {
                // It may have been heard. Whoever comes asks for the service, and is told.
                warn!(service = self.task.service, %why, "the operator was asked to let the service sleep");
            }
            Err(why) => {
                info!(service = self.task.service, %why, "nobody uses the service, and it does not sleep yet");
                self.gate.lift();
            }
        }
    }
}

/// Seconds since 1970: they only tell one question from the next.
#[allow(
    clippy::disallowed_methods,
    reason = "nothing is decided by it, and this crate has no clock to be given"
)]
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
