//! A door saw nobody for as long as the labels of its service say, and holds whoever comes from now on: whether the service may
//! sleep is decided here, by everything else that is known.
//!
//! Invariants: it is the service's own door, and stands alone: an older one that still passes something on would not have been
//! asked; with an expression beside the door (`skep.scale.idle.query`) both have to say that nobody uses the service; what the
//! rules of falling asleep want besides ([`plan::sleepers`](crate::plan::sleepers)) holds as ever.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use skep_waker::task::Token;
use tokio::time::Instant;
use tracing::warn;

use super::idle::{self, Measure, Question};
use crate::operation::desk::{self, Refusal};
use crate::operation::record::{OpId, Operation, Trigger, Work};
use crate::operation::settings::Settings;
use crate::operation::{door, sleeper};
use crate::plan::sleepers::{Seen, attended, sleepers};
use crate::policy::{Idle, parse};
use crate::swarm::engine::Engine;
use crate::swarm::object::{ENABLE, Service};

/// A door whose clock differs by more than this is taken to ask now.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A door waits for 5 s for the answer: what is not stored before that is not stored any more.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a door says.
#[derive(Clone, Debug)]
pub struct Unused {
    /// Full name of the service.
    pub service: String,
    /// When it began to ask, by its own clock: the same where it says it again.
    pub asked: Timestamp,
    /// What it was given to show.
    pub token: Token,
}

/// What becomes of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lulled {
    /// The service falls asleep.
    UnderWay(OpId),
    /// It does not now.
    NotNow(&'static str),
    /// It is not the door of this service.
    Stranger,
}

/// Lets the service of a door fall asleep, if it may.
///
/// # Errors
/// When it could not be stored, or what the engine says.
pub async fn lull(
    engine: &Engine,
    settings: &Settings,
    unused: &Unused,
    now: Timestamp,
) -> Result<Lulled, Refusal> {
    let name = unused.service.as_str();
    let heard = Instant::now();
    if !door::shows(engine, name, &unused.token).await? {
        return Ok(Lulled::Stranger);
    }
    let services = engine.services(&[(ENABLE, Some("true"))]).await?;
    let Some(service) = services.iter().find(|s| s.name() == name) else {
        return Ok(Lulled::NotNow("there is no such service with labels"));
    };
    let scale = parse(&service.labels()).policy.scale.filter(|scale| scale.door().is_some());
    let Some(idle) = scale.and_then(|scale| scale.idle) else {
        return Ok(Lulled::NotNow("its labels do not say so"));
    };
    if !door::stands_alone(engine, name).await? {
        return Ok(Lulled::NotNow("another door of it has not left yet"));
    }
    if !says_so(settings, name, idle).await {
        return Ok(Lulled::NotNow("its expression does not say that nobody uses it"));
    }
    ask_for(engine, &services, service, unused, (now, heard)).await
}

/// Whether the expression of a service, if it has one, tells as well that nobody uses it.
async fn says_so(settings: &Settings, name: &str, idle: Idle) -> bool {
    let Some(query) = idle.query else { return true };
    let Some(prometheus) = &settings.prometheus else {
        warn!(
            service = name,
            "whether it is used is not known: no Prometheus is named (SKEP_PROMETHEUS_URL)"
        );
        return false;
    };
    let measure = Measure { query, after: idle.after };
    match idle::is_so(prometheus, Question::Unused, &measure).await {
        Ok(is_so) => is_so,
        Err(why) => {
            warn!(service = name, "whether it is used is not known: {why}");
            false
        }
    }
}

async fn ask_for(
    engine: &Engine,
    services: &[Service],
    service: &Service,
    unused: &Unused,
    (now, heard): (Timestamp, Instant),
) -> Result<Lulled, Refusal> {
    let operations = desk::list(engine).await?;
    let asleep = sleeper::list(engine).await?;
    if asleep.iter().any(|slept| slept.sleeper.service_id == service.id) {
        return Ok(Lulled::NotNow("it sleeps, or was brought back from it"));
    }
    let attended = attended(&engine.tasks(&[&service.id]).await?, now);
    let id = id_of(unused, now);
    // Said again, since the answer was lost, or it takes long: whoever comes is still to be held.
    let is_one = |op: &&Operation| {
        let is_sleep = matches!(op.intent.work, Work::Sleep { .. }) && op.intent.service_id == service.id;
        is_sleep && !op.journal.state.is_terminal() && op.journal.cancel.is_none()
    };
    if let Some(op) = operations.iter().find(is_one) {
        return Ok(Lulled::UnderWay(op.id.clone()));
    }
    let seen = Seen {
        services,
        operations: &operations,
        sleepers: &asleep,
        unused: &BTreeSet::from([service.name().to_owned()]),
        used: &BTreeSet::new(),
        attended: &attended,
    };
    let asked = sleepers(&seen, now).into_iter().find(|(_, intent)| intent.service_id == service.id);
    if heard.elapsed() > PATIENCE {
        return Ok(Lulled::NotNow("it took too long: the door may have let somebody through by now"));
    }
    match asked {
        Some((of_time, intent)) if matches!(intent.work, Work::Sleep { .. }) => {
            let is_found = matches!(intent.trigger, Trigger::Found { .. });
            let (op, _) = desk::create(engine, if is_found { &id } else { &of_time }, intent).await?;
            // One of this id that has ended was called off, or failed.
            Ok(match op.journal.state.is_terminal() {
                true => Lulled::NotNow("it was asked for before"),
                false => Lulled::UnderWay(op.id),
            })
        }
        Some((id, intent)) if intent.work == Work::Backup => {
            desk::create(engine, &id, intent).await?;
            Ok(Lulled::NotNow("it is backed up first"))
        }
        Some(_) | None => Ok(Lulled::NotNow("it was not left alone for long enough, or is needed")),
    }
}

/// Whichever replica hears of it, and however often, names the same.
fn id_of(unused: &Unused, now: Timestamp) -> OpId {
    let differs = now.duration_since(unused.asked).abs() > SKEW;
    let asked = if differs { now } else { unused.asked };
    OpId::new(asked, &format!("unused {} at its door", unused.service))
}
