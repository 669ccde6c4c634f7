//! The weekly message about backups: for each service the newest one, when one was last proved, how long a restore is
//! expected to take, and what went wrong. Pure, but for [`due`]'s arguments.
//!
//! Told of each week once: what was told last stands on one config of the Swarm ([`Journal`]), so that another leader
//! knows it. It is recorded after sending, as all mail; a repeat is the same message.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::message::{Envelope, Error, Letter};
use super::settings::Mail;
use super::view::{self, View};
use super::words::Tone;
use crate::operation::catalogue::Backup;
use crate::operation::record::{Operation, State};
use crate::plan::standing::{self, Backups};
use crate::policy::{Policies, Schedule};
use crate::runtime::scrub;
use crate::swarm::object::{Config, KIND, Kind, Labels, Service};

/// Name of the config on which it stands what was told last.
pub const JOURNAL: &str = "skep-weekly";
/// The label with that due time.
const TOLD: &str = "skep.told.weekly";
/// A backup that was due so long ago and is not there is worth a word.
const LATE: SignedDuration = SignedDuration::from_hours(1);
/// Longest text of one sentence.
const LONGEST: usize = 300;

/// What was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journal {
    /// The week that was told ended then; a new Skep has nothing to tell of the time before it.
    pub told: Timestamp,
}

/// What a weekly message tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Digest {
    /// It covers the time from here …
    pub since: Timestamp,
    /// … to when it was due.
    pub due: Timestamp,
    /// When the Swarm was looked at.
    pub now: Timestamp,
    /// The services that keep data, by name.
    pub services: Vec<Report>,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Its full name.
    pub service: String,
    /// How it stands.
    pub backups: Backups,
    /// Whether schedules leave it alone.
    pub paused: bool,
    /// Operations that failed in that time, by kind: how many, and the last one.
    pub failed: Vec<Failed>,
}

/// Operations of one kind that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// `backup`, `restore`, …
    pub kind: &'static str,
    /// How many.
    pub count: usize,
    /// When the last one ended.
    pub last: Timestamp,
    /// Why that failed.
    pub why: String,
}

// === impl Journal ===

impl Journal {
    /// Reads the config; what cannot be read counts from when it was made.
    pub fn read(config: &Config) -> Journal {
        let told = config.labels.get(TOLD).and_then(|text| text.parse().ok());
        Journal { told: told.unwrap_or(config.created) }
    }

    /// As the config's labels have it.
    pub fn labels(self) -> Labels {
        Labels::from([
            (KIND.to_owned(), Kind::Digest.as_str().to_owned()),
            (TOLD.to_owned(), self.told.to_string()),
        ])
    }

    /// The due time that is to be told now. However many were missed, the newest one is told.
    pub fn due(self, schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
        schedule.last_at(now).filter(|due| *due > self.told)
    }
}

// === free functions ===

/// What there is to tell about the services that keep data.
pub fn gather(
    services: &[Service],
    catalogue: &[Backup],
    operations: &[Operation],
    since: Timestamp,
    now: Timestamp,
) -> Vec<Report> {
    let policies = Policies::of(services);
    let report = |service: &Service| {
        let parsed = policies.get(service.name()).filter(|p| p.policy.enabled)?;
        let backups = standing::backups(service, parsed, catalogue, operations, now)?;
        Some(Report {
            service: service.name().to_owned(),
            backups,
            paused: parsed.policy.paused,
            failed: failed(operations, service, since, now),
        })
    };
    let mut reports: Vec<Report> = services.iter().filter_map(report).collect();
    reports.sort_by(|a, b| a.service.cmp(&b.service));
    reports
}

fn failed(operations: &[Operation], service: &Service, since: Timestamp, now: Timestamp) -> Vec<Failed> {
    let mut all: Vec<Failed> = Vec::new();
    for op in operations.iter().filter(|o| o.intent.service_id == service.id) {
        let failed = matches!(op.journal.state, State::Failed | State::RolledBack | State::Stuck);
        let Some(ended) = op.journal.ended.filter(|at| failed && (since..=now).contains(at)) else {
            continue;
        };
        let (kind, why) = (op.intent.work.kind(), view::reason(op));
        match all.iter_mut().find(|f| f.kind == kind) {
            None => all.push(Failed { kind, count: 1, last: ended, why }),
            Some(known) => {
                known.count += 1;
                if ended > known.last {
                    (known.last, known.why) = (ended, why);
                }
            }
        }
    }
    all.sort_by_key(|f| std::cmp::Reverse(f.last));
    all
}

/// Renders the message.
///
/// # Errors
/// When a template is at fault.
pub fn render(digest: &Digest, mail: &Mail) -> Result<Letter, Error> {
    let envelope = Envelope {
        title: "Backups of the week".to_owned(),
        stem: format!("weekly-{}", digest.due.as_second()),
        root: "weekly.root".to_owned(),
        urgent: false,
        marks: vec![("X-Skep-Notice", "weekly".to_owned())],
    };
    Letter::write(&View::of_digest(digest, mail), mail, envelope)
}

// === impl Report ===

impl Report {
    /// What a person should look at, in sentences.
    pub(super) fn concerns(&self, zone: &TimeZone, now: Timestamp) -> Vec<String> {
        let at = |at: Timestamp| view::moment(at, zone);
        let Backups { last_success, last_proved, missed, drill_failed, spoilt, .. } = &self.backups;
        let mut said = Vec::new();
        if last_success.is_none() {
            said.push("There is no backup that could be restored.".to_owned());
        }
        if let Some(due) = missed.filter(|due| now.duration_since(*due) > LATE && !self.paused) {
            said.push(format!("The backup that was due {} is missing.", at(due)));
        }
        if let Some(found) = drill_failed {
            said.push(format!("The newest backup failed its drill {}: {}", at(found.at), found.why));
        }
        if !spoilt.is_empty() {
            said.push(format!("Found spoilt, and never restored: {}", spoilt.join(", ")));
        }
        match self.backups.copies_missing {
            0 => {}
            1 => said.push("1 copy to a further store is not made.".to_owned()),
            missing => said.push(format!("{missing} copies to further stores are not made.")),
        }
        if let Some(rare) = self.backups.drill_interval.filter(|_| !self.paused) {
            let proved = last_proved.or(self.backups.wanted_since);
            let is_long_ago = |proved: Timestamp| now.duration_since(proved).unsigned_abs() > 2 * rare;
            if proved.is_some_and(is_long_ago) {
                said.push(match last_proved {
                    Some(proved) => {
                        format!("Drills are scheduled, and none has proved a backup since {}.", at(*proved))
                    }
                    None => "Drills are scheduled, and none has ever proved a backup.".to_owned(),
                });
            }
        }
        for Failed { kind, count, last, why } in &self.failed {
            let what = if *count == 1 {
                format!("A {kind} failed")
            } else {
                format!("{count} times a {kind} failed, the last time")
            };
            said.push(format!("{what} {}: {why}", at(*last)));
        }
        said.into_iter().map(|text| scrub::line(&text, LONGEST)).collect()
    }

    /// How it stands, in a word.
    pub(super) fn badge(&self, concerns: usize) -> (&'static str, Tone) {
        match (concerns, self.backups.last_proved) {
            (0, Some(_)) => ("proved", Tone::Good),
            (0, None) => ("backed up, not proved", Tone::Info),
            (_, _) if self.backups.last_success.is_none() => ("no backup", Tone::Alarm),
            _ => ("look at it", Tone::Caution),
        }
    }
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
