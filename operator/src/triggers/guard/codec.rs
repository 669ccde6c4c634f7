//! How a history is stored: labels of the config `skep-guard-<hash>`.
//!
//! Invariant: what cannot be read in full is refused, never guessed at, so that a newer or damaged history leads
//! to no action.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::history::{History, Incident};
use super::notice::Notice;
use crate::operation::record::{SERVICE, SERVICE_ID};
use crate::swarm::object::{Config, KIND, Kind, Labels, short_hash};

/// Version of the format.
const FORMAT: u32 = 1;
const PREFIX: &str = "skep.guard.";
const FORMAT_KEY: &str = "skep.guard.format";
const CIRCUIT: &str = "skep.guard.circuit";
const RESET: &str = "skep.guard.reset";
const INCIDENT: &str = "skep.guard.incident.";
const RESTORE: &str = "skep.guard.restore.";
const NOTICE: &str = "skep.guard.notice.";

/// A history that this version must not act on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unreadable {
    /// Written by a newer Skep.
    #[error("guard history `{name}` was written by a newer Skep (format {found}, this one reads {FORMAT})")]
    Newer {
        /// Config name.
        name: String,
        /// Its format.
        found: u32,
    },
    /// Not what it should be.
    #[error("guard history `{name}` cannot be read: {message}")]
    Malformed {
        /// Config name.
        name: String,
        /// What is wrong.
        message: String,
    },
}

// === impl History ===

impl History {
    /// Name of the config that holds the history of a service.
    pub fn config_name(service: &str) -> String {
        format!("skep-guard-{}", short_hash(service))
    }

    /// Reads a history from its config.
    ///
    /// # Errors
    /// When it is of a newer format or anything in it is not understood.
    pub fn read(config: &Config) -> Result<History, Unreadable> {
        let name = &config.name;
        let malformed = |message: String| Unreadable::Malformed { name: name.clone(), message };
        let text = |key: &str| config.labels.get(key).ok_or_else(|| malformed(format!("it has no `{key}`")));
        let found: u32 =
            text(FORMAT_KEY)?.parse().map_err(|_| malformed("its format is no number".to_owned()))?;
        if found > FORMAT {
            return Err(Unreadable::Newer { name: name.clone(), found });
        }
        let mut history = History::new(text(SERVICE)?, text(SERVICE_ID)?);
        if History::config_name(&history.service) != *name {
            return Err(malformed(format!(
                "it is about `{}`, whose history has another name",
                history.service
            )));
        }
        for (key, value) in config.labels.iter().filter(|(k, _)| k.starts_with(PREFIX)) {
            history.take(key, value).map_err(|message| malformed(format!("`{key}`: {message}")))?;
        }
        history.restores.sort_by_key(|r| r.at);
        history.notices.sort_by_key(|n| n.at);
        Ok(history)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        if key == CIRCUIT {
            self.circuit = Some(parse(value)?);
        } else if key == RESET {
            self.reset = Some(value.parse().map_err(|e: jiff::Error| e.to_string())?);
        } else if key.starts_with(INCIDENT) {
            let incident: Incident = parse(value)?;
            self.incidents.insert(incident.alert.clone(), incident);
        } else if key.starts_with(RESTORE) {
            self.restores.push(parse(value)?);
        } else if key.starts_with(NOTICE) {
            self.notices.push(parse::<Notice>(value)?);
        } else if key != FORMAT_KEY {
            return Err("a label of that name is not known".to_owned());
        }
        Ok(())
    }

    /// The labels to store.
    pub fn labels(&self) -> Labels {
        let mut labels = Labels::from([
            (KIND.to_owned(), Kind::Guard.as_str().to_owned()),
            (SERVICE.to_owned(), self.service.clone()),
            (SERVICE_ID.to_owned(), self.service_id.clone()),
            (FORMAT_KEY.to_owned(), FORMAT.to_string()),
        ]);
        for (alert, incident) in &self.incidents {
            labels.insert(format!("{INCIDENT}{}", short_hash(alert)), json(incident));
        }
        for (i, restored) in self.restores.iter().enumerate() {
            labels.insert(format!("{RESTORE}{i:02}"), json(restored));
        }
        for notice in &self.notices {
            let name = short_hash(&format!("{} {}", notice.kind.as_str(), notice.alert));
            labels.insert(format!("{NOTICE}{name}"), json(notice));
        }
        if let Some(circuit) = &self.circuit {
            labels.insert(CIRCUIT.to_owned(), json(circuit));
        }
        if let Some(reset) = self.reset {
            labels.insert(RESET.to_owned(), reset.to_string());
        }
        labels
    }
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("histories have only JSON-able fields")
}
