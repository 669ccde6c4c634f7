//! Asks registries for the digests of the tags that services with `skep.update.watch` run, and asks for the updates that
//! follow.
//!
//! Invariants: a registry is asked for a tag at most every few minutes, and only while an update could begin; one that does
//! not answer, or answers anything but a digest, is told of once and leads to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use jiff::Timestamp;
use tracing::{info, warn};

use super::cron::create;
use super::logins::Logins;
use crate::operation::record::Operation;
use crate::operation::saga::Env;
use crate::operation::{desk, sleeper};
use crate::plan::digests::{groups, room};
use crate::runtime::chain;
use crate::swarm::error::Error;
use crate::swarm::object::ENABLE;

/// A tag is looked up this often.
const EVERY: Duration = Duration::from_mins(5);
/// So many are looked up at once.
const AT_ONCE: usize = 4;

/// What a leader remembers of its looks.
#[derive(Debug, Default)]
pub struct Memory {
    tags: BTreeMap<String, Looked>,
    /// What is wrong with the logins, where that was told.
    logins: String,
}

/// The last look for one tag.
#[derive(Clone, Debug)]
struct Looked {
    at: Timestamp,
    digest: Option<String>,
    /// Why there is no digest, where that was told.
    told: String,
}

/// Looks, and stores the updates that follow. Returns those that nobody had stored before.
///
/// # Errors
/// What the engine says; never what a registry says.
pub async fn look(env: &Env, memory: &mut Memory) -> Result<Vec<Operation>, Error> {
    let (engine, now) = (&env.engine, env.now());
    let services = engine.services(&[(ENABLE, Some("true"))]).await?;
    // Most Swarms have none, and then nothing else is read.
    if !services.iter().any(|s| s.spec["Labels"]["skep.update.watch"] == "true") {
        memory.tags.clear();
        return Ok(Vec::new());
    }
    let operations = desk::list(engine).await?;
    let asleep: BTreeSet<String> =
        sleeper::list(engine).await?.into_iter().map(|s| s.sleeper.service_id).collect();
    let groups = groups(&services, &operations, &asleep, now);
    let tags: BTreeSet<&str> = groups.iter().map(|group| group.tagged.as_str()).collect();
    memory.ask(env, &tags, now).await;
    let wanted = groups.iter().filter_map(|group| {
        let digest = memory.tags.get(&group.tagged)?.digest.as_ref()?;
        group.update(digest, &operations, now)
    });
    let mut created = Vec::new();
    for (id, intent) in wanted.take(room(&operations)).collect::<Vec<_>>() {
        created.extend(create(env, &id, intent).await?);
    }
    Ok(created)
}

// === impl Memory ===

impl Memory {
    /// Asks for the tags whose time has come, and forgets the others.
    async fn ask(&mut self, env: &Env, tags: &BTreeSet<&str>, now: Timestamp) {
        // What cannot be updated just now is not asked for more often for that.
        let is_young = |looked: &Looked| now.duration_since(looked.at).unsigned_abs() < EVERY;
        self.tags.retain(|tag, looked| tags.contains(tag.as_str()) || is_young(looked));
        let is_due = |tag: &&&str| {
            let last = self.tags.get(**tag).map(|looked| looked.at);
            last.is_none_or(|at| now.duration_since(at).unsigned_abs() >= EVERY)
        };
        let due: Vec<String> = tags.iter().filter(is_due).map(|tag| (*tag).to_owned()).collect();
        if due.is_empty() {
            return;
        }
        let Some(logins) = self.logins(env) else { return };
        let asked = due.into_iter().map(|tag| {
            let auth = logins.of(&tag);
            async move {
                let found = env.engine.digest(&tag, &auth).await;
                (tag, found.map_err(|error| chain(&error)))
            }
        });
        let found: Vec<(String, Result<String, String>)> =
            stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        for (tag, found) in found {
            self.note(tag, found, now);
        }
    }

    /// The logins; none, which is told once, where they cannot be read.
    fn logins(&mut self, env: &Env) -> Option<Logins> {
        let Some(file) = &env.settings.registry_config else { return Some(Logins::default()) };
        match Logins::read(file) {
            Ok(logins) => {
                self.logins.clear();
                Some(logins)
            }
            Err(error) => {
                let why = chain(&error);
                if self.logins != why {
                    warn!("no registry is asked for new images: SKEP_REGISTRY_CONFIG: {why}");
                    self.logins = why;
                }
                None
            }
        }
    }

    fn note(&mut self, tag: String, found: Result<String, String>, now: Timestamp) {
        let before = self.tags.get(&tag).map(|looked| looked.told.clone()).unwrap_or_default();
        let looked = match found {
            Ok(digest) => {
                if !before.is_empty() {
                    info!(image = tag, "its registry answers again");
                }
                Looked { at: now, digest: Some(digest), told: String::new() }
            }
            Err(told) => {
                if before.is_empty() {
                    warn!(image = tag, "whether there is a new image is not known: {told}");
                }
                Looked { at: now, digest: None, told }
            }
        };
        self.tags.insert(tag, looked);
    }
}
