//! Asks for the operations that time itself asks for: scheduled backups, drills and restore points, sleeping and waking,
//! dropping what restores kept, and writing up what has ended.
//!
//! Everything is read anew, so the leader that does this needs to know nothing of what another one did before.

use tracing::{info, warn};

use crate::operation::catalogue::Backup;
use crate::operation::desk::{self, Refusal};
use crate::operation::points;
use crate::operation::record::{Intent, OpId, Operation};
use crate::operation::saga::Env;
use crate::operation::sleeper;
use crate::plan::scheduled::{Rules, Seen};
use crate::plan::sleepers::{self, sleepers};
use crate::plan::{due, reports, scheduled};
use crate::swarm::error::Error;
use crate::swarm::object::{ENABLE, Kind};
use crate::triggers::idle::{self, Use};

/// Stores the operations that are due now. Returns those that nobody had stored before.
///
/// # Errors
/// What the engine says.
pub async fn ask(env: &Env, rules: &Rules) -> Result<Vec<Operation>, Error> {
    let (engine, now) = (&env.engine, env.now());
    let operations = desk::list(engine).await?;
    let services = engine.services(&[(ENABLE, Some("true"))]).await?;
    let mut wanted = due(&operations, &services, now);
    let unwritten = reports(&operations, &services, now);
    // They are written by jobs in Skep's own image: where that is not known, nobody could.
    if !unwritten.is_empty() && env.own_image().await?.is_some() {
        wanted.extend(unwritten);
    }
    let mut seen = Seen { services: &services, operations: &operations, backups: &[], points: &[] };
    // The catalogue only ever says that nothing needs to be done, and it is long.
    if !scheduled(&seen, rules, now).is_empty() {
        let backups = engine.configs(Kind::Backup, &[]).await?;
        let backups: Vec<Backup> = backups.iter().filter_map(Backup::read).collect();
        let points = points::list(engine, None).await?;
        (seen.backups, seen.points) = (&backups, &points);
        wanted.extend(scheduled(&seen, rules, now));
    }
    let asleep = sleeper::list(engine).await?;
    let Use { unused, used } = idle::ask(&env.settings, &services, &asleep).await;
    let idle: Vec<&str> =
        services.iter().filter(|s| unused.contains(s.name())).map(|s| s.id.as_str()).collect();
    let tasks = if idle.is_empty() { Vec::new() } else { engine.tasks(&idle).await? };
    let attended = sleepers::attended(&tasks, now);
    let seen = sleepers::Seen {
        services: &services,
        operations: &operations,
        sleepers: &asleep,
        unused: &unused,
        used: &used,
        attended: &attended,
    };
    wanted.extend(sleepers(&seen, now));
    let mut created = Vec::new();
    for (id, intent) in wanted {
        created.extend(create(env, &id, intent).await?);
    }
    Ok(created)
}

pub(super) async fn create(env: &Env, id: &OpId, intent: Intent) -> Result<Option<Operation>, Error> {
    let service = intent.service_id.clone();
    match desk::create(&env.engine, id, intent).await {
        Ok((op, true)) => {
            info!(operation = %id, "{} is due", op.title());
            Ok(Some(op))
        }
        Ok((op, false)) => {
            if op.intent.service_id != service {
                warn!(operation = %id, service, "not asked for: the id is that of the {}", op.title());
            }
            Ok(None)
        }
        Err(Refusal::Absent(_) | Refusal::State { .. }) => Ok(None),
        Err(Refusal::Swarm(error)) => Err(error),
    }
}
