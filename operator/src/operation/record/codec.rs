//! How an operation stands in a config: the intent is its data, the journal its labels.
//!
//! Compatible both ways within one [`SCHEMA`]: fields that are added have defaults, what is unknown is passed over; a
//! record of a newer schema is refused.

use jiff::Timestamp;
use serde_json::Value;
use thiserror::Error;

use super::{Journal, OpId, Operation, PREFIX, SCHEMA, SERVICE, SERVICE_ID, State};
use crate::swarm::object::{Config, KIND, Kind, Labels};

/// A config that is not an operation this version can read.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// Written by a newer Skep.
    #[error("operation `{name}` was written by a newer Skep (format {found}, this one reads {SCHEMA})")]
    Newer {
        /// Config name.
        name: String,
        /// Its format.
        found: u64,
    },
    /// Not what it should be.
    #[error("operation `{name}` cannot be read: {message}")]
    Malformed {
        /// Config name.
        name: String,
        /// What is wrong.
        message: String,
    },
}

/// Label with the state, by name.
pub const STATE: &str = "skep.state";
const STEP: &str = "skep.step.";
const TOLD: &str = "skep.told.";
const REMARK: &str = "skep.remark.";
const CANCEL: &str = "skep.cancel";
const APPROVED: &str = "skep.approved";
const HOLDER: &str = "skep.holder";
const ENDED: &str = "skep.ended";

// === impl Operation ===

impl Operation {
    /// Reads an operation from its config.
    ///
    /// # Errors
    /// When it is of a newer format or malformed.
    pub fn read(config: &Config) -> Result<Operation, Unreadable> {
        let malformed = |message: String| Unreadable::Malformed { name: config.name.clone(), message };
        let id = config.name.strip_prefix(PREFIX).and_then(OpId::parse);
        let id = id.ok_or_else(|| malformed("its name holds no id".to_owned()))?;
        let data: Value = serde_json::from_slice(&config.data).map_err(|e| malformed(e.to_string()))?;
        if let Some(found) = data["schema"].as_u64().filter(|s| *s > u64::from(SCHEMA)) {
            return Err(Unreadable::Newer { name: config.name.clone(), found });
        }
        let intent = serde_json::from_value(data).map_err(|e| malformed(e.to_string()))?;
        let journal = Journal::read(&config.labels).map_err(malformed)?;
        Ok(Operation { id, config: config.id.clone(), version: config.version, intent, journal })
    }

    /// The labels to store: those of the journal and those that never change.
    pub fn labels(&self) -> Labels {
        let mut labels = self.journal.labels();
        labels.insert(KIND.to_owned(), Kind::Operation.as_str().to_owned());
        labels.insert(SERVICE.to_owned(), self.intent.service.clone());
        labels.insert(SERVICE_ID.to_owned(), self.intent.service_id.clone());
        labels
    }
}

// === impl Journal ===

impl Journal {
    fn labels(&self) -> Labels {
        let mut labels = Labels::from([(STATE.to_owned(), self.state.as_str().to_owned())]);
        for (i, (name, record)) in self.steps.iter().enumerate() {
            let text = serde_json::to_string(record).expect("a record has only JSON-able fields");
            labels.insert(format!("{STEP}{i:02}.{name}"), text);
        }
        for (phase, at) in &self.told {
            labels.insert(format!("{TOLD}{phase}"), at.to_string());
        }
        for (i, remark) in self.remarks.iter().enumerate() {
            labels.insert(format!("{REMARK}{i:02}"), remark.clone());
        }
        let ended = self.ended.map(|t| t.to_string());
        for (key, value) in
            [(CANCEL, &self.cancel), (APPROVED, &self.approved), (HOLDER, &self.holder), (ENDED, &ended)]
        {
            if let Some(value) = value {
                labels.insert(key.to_owned(), value.clone());
            }
        }
        labels
    }

    fn read(labels: &Labels) -> Result<Journal, String> {
        let state =
            labels.get(STATE).and_then(|s| State::parse(s)).ok_or("its state is missing or unknown")?;
        let mut journal = Journal::new(state);
        let time = |text: &String| text.parse::<Timestamp>().map_err(|e| e.to_string());
        for (key, value) in labels {
            if let Some((_, name)) = key.strip_prefix(STEP).and_then(|k| k.split_once('.')) {
                let record = serde_json::from_str(value).map_err(|e| format!("step `{name}`: {e}"))?;
                journal.steps.push((name.to_owned(), record));
            } else if let Some(phase) = key.strip_prefix(TOLD) {
                journal.told.insert(phase.to_owned(), time(value)?);
            } else if key.starts_with(REMARK) {
                journal.remarks.push(value.clone());
            }
        }
        journal.cancel = labels.get(CANCEL).cloned();
        journal.approved = labels.get(APPROVED).cloned();
        journal.holder = labels.get(HOLDER).cloned();
        journal.ended = labels.get(ENDED).map(time).transpose()?;
        Ok(journal)
    }
}
