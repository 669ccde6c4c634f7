//! Sends what is due about one operation, or one notice of an alert, and records it. Level-triggered: called with the
//! record as it stands, as often as the caller likes; what was told stands on the record alone.
//!
//! A failure is returned for the caller's queue to back off; it concerns mail only and never what it tells. Within one
//! process a recipient who has got (or will never get) a message is not sent it again while others are retried.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use lettre::Address;
use thiserror::Error;

use super::digest::{self, Digest};
use super::message::{self, Letter, render};
use super::meter::Meter;
use super::notice;
use super::phase::{Phase, due, due_again, occurred};
use super::settings::Mail;
use super::smtp::{Fault, Smtp, Unusable};
use super::topic::Topic;
use crate::operation::record::Operation;
use crate::policy::Schedule;
use crate::runtime::{self, Disposition, scrub};
use crate::swarm;
use crate::triggers::guard::Notice;

/// Writes to an operation's record.
pub trait Ledger: Sync {
    /// Sets `skep.told.<phase>` to `at` for each of the phases by compare-and-swap, re-reading and merging where the
    /// record changed meanwhile. Recording what is recorded already is success.
    fn record(
        &self,
        operation: &Operation,
        phases: &[Phase],
        at: Timestamp,
    ) -> impl Future<Output = Result<(), swarm::error::Error>> + Send;
}

/// Who hears of an operation, and what the record does not hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audience<'a> {
    /// `skep.notify` of the service.
    pub label: &'a [String],
    /// When the operation should have ended, where it can be told from earlier ones.
    pub expected_end: Option<Timestamp>,
    /// Why a person is asked before it begins, where one is.
    pub why: Option<&'a str>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing to tell now.
    Nothing {
        /// Call again then, even if the record does not change.
        again: Option<Timestamp>,
    },
    /// There is something to tell and nobody to tell it to.
    Nobody,
    /// Told and recorded.
    Told {
        /// What was told, in one message.
        phases: Vec<Phase>,
        /// Who will never get it.
        rejected: DeadLetters,
    },
}

/// Who will never get a message, with the reason.
pub type DeadLetters = Vec<(String, String)>;

/// Something is still to be told: call again, later each time.
#[derive(Debug, Error)]
pub enum Undelivered {
    /// Some or all recipients have not got it.
    #[error("mail about {topic} waits for {left} of {all} recipients")]
    Unsent {
        /// What it is about.
        topic: Topic,
        /// How many have not got it.
        left: usize,
        /// How many there are.
        all: usize,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Sent, but not recorded: a repeat sends nothing, and after a restart the same messages again.
    #[error("mail about {topic} was sent, but could not be recorded")]
    Unrecorded {
        /// What it is about.
        topic: Topic,
        /// Why.
        #[source]
        source: swarm::error::Error,
    },
    /// The message cannot be made.
    #[error("mail about {topic} cannot be written")]
    Unwritable {
        /// What it is about.
        topic: Topic,
        /// Why.
        #[source]
        source: message::Error,
    },
}

/// Sends mail about operations and alerts.
pub struct Outbox {
    mail: Mail,
    smtp: Smtp,
    meter: Arc<Meter>,
    progress: Mutex<BTreeMap<Topic, Progress>>,
}

/// Who needs no further attempt for one message, and why where it is a dead letter.
#[derive(Clone)]
struct Progress {
    /// What tells the message from others of its topic.
    message: String,
    settled: BTreeMap<Address, Option<String>>,
}

// === impl Undelivered ===

impl runtime::Fault for Undelivered {
    fn disposition(&self) -> Disposition {
        match self {
            Undelivered::Unsent { .. } | Undelivered::Unrecorded { .. } => Disposition::Retry,
            Undelivered::Unwritable { .. } => Disposition::Stop,
        }
    }

    fn category(&self) -> &'static str {
        match self {
            Undelivered::Unsent { .. } => "unsent",
            Undelivered::Unrecorded { .. } => "unrecorded",
            Undelivered::Unwritable { .. } => "unwritable",
        }
    }
}

// === impl Outbox ===

impl Outbox {
    /// Makes an outbox; connects to nothing yet.
    ///
    /// # Errors
    /// When the settings cannot work, for example because the file with the certificate authority is missing.
    pub fn new(mail: Mail, meter: Arc<Meter>) -> Result<Outbox, Unusable> {
        let smtp = Smtp::new(&mail)?;
        Ok(Outbox { mail, smtp, meter, progress: Mutex::default() })
    }

    /// Tells what is due about an operation, in one message to each recipient, and records it.
    ///
    /// # Errors
    /// When something is still to be told; call again, later each time.
    pub async fn deliver<L: Ledger>(
        &self,
        operation: &Operation,
        audience: Audience<'_>,
        ledger: &L,
        now: Timestamp,
    ) -> Result<Delivery, Undelivered> {
        let topic = Topic::Operation(operation.id.clone());
        let phases = due(operation, self.mail.routine, now);
        let Some(&head) = phases.last() else {
            self.forget(&topic);
            return Ok(Delivery::Nothing { again: due_again(operation, self.mail.routine, now) });
        };
        let since = occurred(operation, head);
        // Never earlier than the phase itself, however the clocks of two replicas differ: it would be told again.
        let record = ledger.record(operation, &phases, now.max(since));
        let letter = render(operation, &phases, &self.mail, audience, now);
        let told = Box::pin(self.tell(&topic, since, letter, audience.label, record, now)).await?;
        Ok(told.map_or(Delivery::Nobody, |rejected| Delivery::Told { phases, rejected }))
    }

    /// Tells a notice about an alert of `service`, in one message to each recipient, and then records it by awaiting
    /// `record`. Answers nothing where there is nobody to tell.
    ///
    /// # Errors
    /// When it is still to be told; call again, later each time.
    pub async fn give_notice(
        &self,
        service: &str,
        notice: &Notice,
        label: &[String],
        record: impl Future<Output = Result<(), swarm::error::Error>>,
        now: Timestamp,
    ) -> Result<Option<DeadLetters>, Undelivered> {
        let topic = Topic::Alerts(service.to_owned());
        let letter = notice::render(service, notice, &self.mail);
        Box::pin(self.tell(&topic, notice.at, letter, label, record, now)).await
    }

    /// Tells the operator's recipients of a week's backups, and then records it by awaiting `record`. Answers nothing where
    /// there is nobody to tell.
    ///
    /// # Errors
    /// When it is still to be told; call again, later each time.
    pub async fn give_digest(
        &self,
        digest: &Digest,
        record: impl Future<Output = Result<(), swarm::error::Error>>,
        now: Timestamp,
    ) -> Result<Option<DeadLetters>, Undelivered> {
        let letter = digest::render(digest, &self.mail);
        Box::pin(self.tell(&Topic::Weekly, digest.due, letter, &[], record, now)).await
    }

    /// When the weekly message is due; never where nobody wants it.
    pub fn weekly(&self) -> Option<&Schedule> {
        self.mail.weekly.as_ref()
    }

    /// Sends a message about something since `since` to everybody, then records it. Answers nothing where there is nobody.
    async fn tell(
        &self,
        topic: &Topic,
        since: Timestamp,
        letter: Result<Letter, message::Error>,
        label: &[String],
        record: impl Future<Output = Result<(), swarm::error::Error>>,
        now: Timestamp,
    ) -> Result<Option<DeadLetters>, Undelivered> {
        let (recipients, refused) = self.mail.recipients(label);
        if recipients.is_empty() && refused.is_empty() {
            self.forget(topic);
            return Ok(None);
        }
        self.meter.waits(topic, since);
        let letter = letter.map_err(|source| Undelivered::Unwritable { topic: topic.clone(), source })?;
        let mut progress = self.progress_of(topic, letter.stem());
        let all = recipients.len();
        let sent = self.send(topic, &letter, &recipients, &mut progress, now).await;
        sent.map_err(|source| {
            let left = all - recipients.iter().filter(|r| progress.settled.contains_key(*r)).count();
            Undelivered::Unsent { topic: topic.clone(), left, all, source }
        })?;
        record.await.map_err(|source| Undelivered::Unrecorded { topic: topic.clone(), source })?;
        self.forget(topic);
        Ok(Some(self.dead_letters(topic, progress, refused)))
    }

    /// Forgets topics that are no longer ours to tell about: pruned operations, or all when another replica leads.
    pub fn retain(&self, ours: impl Fn(&Topic) -> bool) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).retain(|topic, _| ours(topic));
        self.meter.retain(ours);
    }

    /// Sends to everybody who is not settled yet. One who cannot be sent to now does not hold the others; a server that
    /// cannot be reached does, for asking it once for each would take a timeout each.
    async fn send(
        &self,
        topic: &Topic,
        letter: &Letter,
        recipients: &[Address],
        progress: &mut Progress,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let open: BTreeSet<&Address> =
            recipients.iter().filter(|r| !progress.settled.contains_key(*r)).collect();
        if open.is_empty() {
            return Ok(());
        }
        let mut session = self.smtp.open().await.inspect_err(|_| self.meter.deferred())?;
        let mut postponed = None;
        for recipient in open {
            let sent = match letter.to(recipient, &self.mail, now) {
                Ok(message) => session.send(&message).await,
                Err(error) => Err(Fault::Rejected(format!("{error}: the mail library refuses it"))),
            };
            match sent {
                Ok(()) => self.settle(topic, progress, recipient, None),
                Err(Fault::Rejected(reason)) => self.settle(topic, progress, recipient, Some(reason)),
                Err(fault @ Fault::Deferred(_)) => {
                    self.meter.deferred();
                    postponed = Some(fault);
                }
                Err(fault @ Fault::Server { .. }) => {
                    self.meter.deferred();
                    return Err(fault);
                }
            }
        }
        session.close().await;
        postponed.map_or(Ok(()), Err)
    }

    fn dead_letters(&self, topic: &Topic, progress: Progress, refused: Vec<String>) -> DeadLetters {
        let undeliverable = progress.settled.into_iter().filter_map(|(to, why)| Some((to.to_string(), why?)));
        let not_allowed = refused.into_iter().map(|text| {
            self.meter.rejected();
            (
                scrub::line(&text, 120),
                "`skep.notify`: not an address, or its domain is not allowed".to_owned(),
            )
        });
        let dead: Vec<_> = undeliverable.chain(not_allowed).collect();
        for (recipient, reason) in &dead {
            tracing::warn!(about = %topic, recipient, reason, "mail will not be delivered");
        }
        dead
    }

    fn progress_of(&self, topic: &Topic, message: &str) -> Progress {
        let known = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(topic).filter(|p| p.message == message).cloned();
        known.unwrap_or_else(|| Progress { message: message.to_owned(), settled: BTreeMap::new() })
    }

    /// Noted at once, so that a delivery that is dropped in the middle repeats nothing.
    fn settle(&self, topic: &Topic, progress: &mut Progress, recipient: &Address, refused: Option<String>) {
        match refused {
            None => self.meter.sent(),
            Some(_) => self.meter.rejected(),
        }
        progress.settled.insert(recipient.clone(), refused);
        let mut known = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(topic.clone(), progress.clone());
    }

    fn forget(&self, topic: &Topic) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
        self.meter.settled(topic);
    }
}
