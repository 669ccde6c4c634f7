//! Tells the backups of the week, once, whoever leads.

use std::time::Duration;

use jiff::Timestamp;

use super::mailer::{Unmailed, lament};
use crate::notify::digest::{self, Digest, JOURNAL, Journal};
use crate::notify::outbox::Outbox;
use crate::notify::topic::Topic;
use crate::operation::catalogue::Backup;
use crate::operation::desk;
use crate::runtime::Action;
use crate::swarm::engine::Engine;
use crate::swarm::error::Error;
use crate::swarm::object::{Config, ENABLE, Kind};

/// The longest pause between two looks at the clock.
const LOOK: Duration = Duration::from_secs(3600);

/// Sends the weekly message if it is due, and records it. A Swarm that has none on record gets its first one a week later,
/// when there is something to tell.
///
/// # Errors
/// When it is still to be told.
pub async fn tell(engine: &Engine, outbox: &Outbox, now: Timestamp) -> Result<Action, Unmailed> {
    let Some(schedule) = outbox.weekly() else { return Ok(Action::Idle) };
    let config = journal(engine, now).await?;
    let journal = Journal::read(&config);
    if let Some(due) = journal.due(schedule, now) {
        let digest = gather(engine, journal.told, due, now).await?;
        let record = record(engine, &config, due);
        let told = outbox.give_digest(&digest, record, now).await?;
        lament(&Topic::Weekly, told.unwrap_or_default());
    }
    let next = schedule.next_after(now).map(|next| next.duration_since(now).unsigned_abs());
    Ok(Action::After(next.unwrap_or(LOOK).min(LOOK)))
}

/// What was told last; made where there is none.
async fn journal(engine: &Engine, now: Timestamp) -> Result<Config, Error> {
    match engine.config(JOURNAL).await {
        Err(Error::NotFound { .. }) => {
            engine.ensure_config(JOURNAL, &Journal { told: now }.labels(), b"-").await?;
            engine.config(JOURNAL).await
        }
        other => other,
    }
}

async fn gather(engine: &Engine, since: Timestamp, due: Timestamp, now: Timestamp) -> Result<Digest, Error> {
    let services = engine.services(&[(ENABLE, Some("true"))]).await?;
    let backups = engine.configs(Kind::Backup, &[]).await?;
    let backups: Vec<Backup> = backups.iter().filter_map(Backup::read).collect();
    let operations = desk::list(engine).await?;
    let services = digest::gather(&services, &backups, &operations, since, now);
    Ok(Digest { since, due, now, services })
}

/// Whoever else has told it meanwhile has told the same.
async fn record(engine: &Engine, config: &Config, due: Timestamp) -> Result<(), Error> {
    let labels = Journal { told: due }.labels();
    match engine.relabel_config(&config.id, config.version, &config.name, &labels).await {
        Err(Error::Stale { .. }) => {
            let found = Journal::read(&engine.config(JOURNAL).await?);
            if found.told >= due {
                Ok(())
            } else {
                Err(Error::Stale { what: "noting that the week was told".to_owned() })
            }
        }
        other => other,
    }
}
