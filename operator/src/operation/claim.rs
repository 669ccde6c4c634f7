//! One operation holds a service: a claim is a config whose name derives from the service, so that creating it is
//! atomic. Claims are taken in the order of names and given back when the operation has come to rest.

use std::time::Duration;

use tracing::info;

use super::record::{OpId, Operation, SERVICE, STATE, State, Trigger, Work};
use super::saga::{Cx, Fault, Progress, Wait};
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{KIND, Kind, Labels, OP, short_hash};

/// Name of a service's claim.
pub fn name(service: &str) -> String {
    format!("skep-claim-{}", short_hash(service))
}

/// Takes all of these services, or waits while another operation holds one of them. Holding some while waiting for
/// others cannot deadlock, since everybody takes them in the same order.
///
/// # Errors
/// What the engine says.
pub async fn take(cx: &mut Cx<'_>, services: &[String]) -> Result<Progress, Fault> {
    let mut services = services.to_vec();
    services.sort();
    services.dedup();
    let wanted = serde_json::json!({ "services": services });
    for service in &services {
        let other = take_one(cx.engine(), service, &cx.op.id).await?;
        if let Some(other) = other {
            if lends(cx, &other).await? {
                continue;
            }
            // Whoever holds one of them learns from this that it is wanted.
            cx.keep(&wanted).await?;
            let mut wait = Wait::new(format!("operation {other} holds {service}"));
            // Whoever asked for what still falls asleep waits for it; the longer it takes, the less often it is looked at.
            let is_waking = cx.op.intent.work == Work::Wake;
            wait.again = if is_waking { Duration::from_millis(100) } else { Duration::from_secs(1) };
            return Ok(Progress::Wait(wait));
        }
    }
    Ok(Progress::Done(wanted))
}

/// Whether this holder lends what it has: this operation is a part of that one, or of a part of it.
async fn lends(cx: &Cx<'_>, holder: &str) -> Result<bool, Fault> {
    let mut whole = cx.op.part_of().cloned();
    while let Some(id) = whole {
        if id.as_str() == holder {
            return Ok(true);
        }
        whole = match cx.engine().config(&id.config_name()).await {
            Ok(config) => Operation::read(&config).ok().and_then(|op| op.part_of().cloned()),
            Err(Error::NotFound { .. }) => None,
            Err(other) => return Err(other.into()),
        };
    }
    Ok(false)
}

/// Whether an operation has this service, or wants it.
pub fn concerns(op: &Operation, service: &str) -> bool {
    let claimed = op.journal.step("claim").map(|r| &r.out["services"]);
    let listed = claimed.and_then(|c| c.as_array()).into_iter().flatten();
    op.intent.work.holds() && !op.intent.work.is_of_stack() && op.intent.is_about(service)
        || listed.filter_map(|s| s.as_str()).any(|s| s == service)
}

async fn take_one(engine: &Engine, service: &str, op: &OpId) -> Result<Option<String>, Fault> {
    let labels = Labels::from([
        (KIND.to_owned(), Kind::Claim.as_str().to_owned()),
        (OP.to_owned(), op.to_string()),
        (SERVICE.to_owned(), service.to_owned()),
    ]);
    match engine.create_config(&name(service), &labels, b"-").await {
        Ok(_) => Ok(None),
        Err(Error::Exists { .. }) => {
            let holder = engine.config(&name(service)).await?.labels.get(OP).cloned().unwrap_or_default();
            Ok((holder != op.as_str()).then_some(holder))
        }
        Err(other) => Err(other.into()),
    }
}

/// Gives back whatever this operation holds.
///
/// # Errors
/// What the engine says.
pub async fn release(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let op = cx.op.id.to_string();
    for claim in cx.engine().configs(Kind::Claim, &[(OP, op.as_str())]).await? {
        cx.engine().remove_config(&claim.id).await?;
    }
    Ok(Progress::done())
}

/// An operation, for people.
pub fn named(other: &Operation) -> String {
    format!("operation {} ({})", other.id, other.title())
}

/// How the note ends of who called an operation off that gave way.
const GAVE_WAY: &str = ", to which it gave way";

/// Gives way to another operation: from here on this one only goes back. `lost` says what people miss then.
///
/// # Errors
/// What the engine says.
pub async fn give_way(cx: &mut Cx<'_>, other: &Operation, lost: &str) -> Result<Progress, Fault> {
    let why = format!("gave way to {}", named(other));
    info!(operation = %cx.op.id, "{why}");
    cx.remark(format!("{why}; {lost}"));
    cx.op.journal.cancel = Some(named(other) + GAVE_WAY);
    cx.save().await?;
    Ok(Progress::Wait(Wait { again: Duration::ZERO, ..Wait::new(why) }))
}

/// Whether an operation ended because another one wanted its services: it is made up later.
pub fn gave_way(op: &Operation) -> bool {
    op.journal.state == State::Cancelled
        && op.journal.cancel.as_deref().is_some_and(|why| why.ends_with(GAVE_WAY))
}

/// A restore that an alert asks for and that wants one of these services.
///
/// # Errors
/// What the engine says.
pub async fn alerted(cx: &Cx<'_>, services: &[String]) -> Result<Option<Operation>, Fault> {
    wanting(cx, services, |other| {
        let asks = (&other.intent.work, &other.intent.trigger);
        matches!(asks, (Work::Restore { .. }, Trigger::Alert { .. }))
    })
    .await
}

/// A restore that wants one of these services, whoever asks for it.
///
/// # Errors
/// What the engine says.
pub async fn restoring(cx: &Cx<'_>, services: &[String]) -> Result<Option<Operation>, Fault> {
    wanting(cx, services, |other| matches!(other.intent.work, Work::Restore { .. })).await
}

async fn wanting(
    cx: &Cx<'_>,
    services: &[String],
    is_meant: impl Fn(&Operation) -> bool,
) -> Result<Option<Operation>, Fault> {
    for state in [State::Pending, State::Running] {
        for config in cx.engine().configs(Kind::Operation, &[(STATE, state.as_str())]).await? {
            let Ok(other) = Operation::read(&config) else { continue };
            if is_meant(&other) && services.iter().any(|service| concerns(&other, service)) {
                return Ok(Some(other));
            }
        }
    }
    Ok(None)
}
