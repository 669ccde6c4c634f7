//! What the judgement rests on.

use std::time::Duration;

use jiff::Timestamp;

use super::codec::Unreadable;
use super::history::{History, before};
use crate::operation::record::Operation;
use crate::policy::{Policy, Restore};

/// Times and thresholds that hold for every service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long an alert must fire after it was first heard before anything is done.
    pub settle: Duration,
    /// How long an alert that was heard by an earlier process must fire on: its end may have been missed.
    pub resettle: Duration,
    /// After a restore or maintenance, how long alerts may take to end: Alertmanager tells within its `group_interval`.
    pub after_operation: Duration,
    /// Alerts that begin this soon after a restore or maintenance are taken for its echo.
    pub echo: Duration,
    /// A waiting alert that was not heard for this long no longer counts: longer than `repeat_interval`.
    pub evidence: Duration,
    /// An alert that fires for longer than this needs a person.
    pub stale: Duration,
    /// Storm brake: more sick services than this.
    pub storm_services: usize,
    /// Storm brake: a greater share than this of the managed services, in percent (from four services on).
    pub storm_percent: usize,
    /// Storm brake: incidents opened within this time.
    pub storm_window: Duration,
}

/// What is known about the service that an alert names.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The service, where the Swarm has it.
    pub target: Option<Target>,
    /// What the guards remember of it.
    pub history: Result<History, Unreadable>,
    /// Its operations, live and recent.
    pub operations: Vec<Operation>,
    /// Operations on other services that stop or page this one too (it is a client of what they restore), and those on its whole stack.
    pub neighbours: Vec<Operation>,
    /// Other services with an incident opened within the storm window.
    pub sick_elsewhere: usize,
    /// All managed services.
    pub managed: usize,
    /// Since when this process takes alerts.
    pub listening_since: Timestamp,
    /// Times and thresholds.
    pub settings: Settings,
}

/// A service of the Swarm with what its labels ask for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Full name.
    pub name: String,
    /// Id.
    pub id: String,
    /// Policy.
    pub policy: Policy,
    /// Problems of labels that block destructive operations, for people.
    pub blocking: Vec<String>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            settle: Duration::from_secs(10),
            resettle: Duration::from_mins(1),
            after_operation: Duration::from_mins(10),
            echo: Duration::from_mins(5),
            evidence: Duration::from_hours(5),
            stale: Duration::from_hours(24),
            storm_services: 2,
            storm_percent: 50,
            storm_window: Duration::from_mins(10),
        }
    }
}

// === impl Situation ===

impl Situation {
    pub(super) fn restore(&self) -> Option<&Restore> {
        self.target.as_ref()?.policy.restore.as_ref()
    }

    /// The labels' half of the opt-in, or what is missing of it.
    pub(super) fn opted_in(&self, alert: &str) -> Result<(&Target, &Restore), String> {
        let target = self.target.as_ref().ok_or("the Swarm has no such service")?;
        let name = &target.name;
        if !target.policy.enabled {
            return Err(format!("service `{name}` has no label `skep.enable=true`"));
        }
        let restore = target.policy.restore.as_ref().filter(|r| r.on_alert.iter().any(|a| a == alert));
        let restore = restore
            .ok_or_else(|| format!("no label `skep.restore.on-alert` of service `{name}` names it"))?;
        Ok((target, restore))
    }
}

/// Whether a service counts as sick for the storm brake.
pub fn is_sick(history: &History, settings: &Settings, now: Timestamp) -> bool {
    history.open().any(|i| i.opened >= before(now, settings.storm_window))
}
