//! Sends what is due about one operation and records it. Level-triggered: called with the operation as it stands,
//! as often as the caller likes; what was told stands on the record alone.
//!
//! A failure is returned for the caller's queue to back off; it concerns mail only and never the operation. Within one
//! process a recipient who has got (or will never get) a message is not sent it again while others are retried.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use lettre::Address;
use thiserror::Error;

use super::message::{self, Letter, render};
use super::meter::Meter;
use super::phase::{Phase, due, due_again, occurred};
use super::settings::Mail;
use super::smtp::{Fault, Smtp, Unusable};
use crate::operation::record::{OpId, Operation};
use crate::runtime::{self, Disposition};
use crate::swarm;

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
        /// Who will never get it (dead letters), with the reason.
        rejected: Vec<(String, String)>,
    },
}

/// Something is still to be told: call again, later each time.
#[derive(Debug, Error)]
pub enum Undelivered {
    /// Some or all recipients have not got it.
    #[error("mail about operation `{operation}` waits for {left} of {all} recipients")]
    Unsent {
        /// The operation.
        operation: OpId,
        /// How many have not got it.
        left: usize,
        /// How many there are.
        all: usize,
        /// Why.
        #[source]
        source: Fault,
    },
    /// Sent, but not recorded: a repeat sends nothing, and after a restart the same messages again.
    #[error("mail about operation `{operation}` was sent, but could not be recorded")]
    Unrecorded {
        /// The operation.
        operation: OpId,
        /// Why.
        #[source]
        source: swarm::error::Error,
    },
    /// The message cannot be made.
    #[error("mail about operation `{operation}` cannot be written")]
    Unwritable {
        /// The operation.
        operation: OpId,
        /// Why.
        #[source]
        source: message::Error,
    },
}

/// Sends mail about operations.
pub struct Outbox {
    mail: Mail,
    smtp: Smtp,
    meter: Arc<Meter>,
    progress: Mutex<BTreeMap<OpId, Progress>>,
}

/// Who needs no further attempt for one message, and why where it is a dead letter.
#[derive(Clone)]
struct Progress {
    about: (Phase, Timestamp),
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
        let phases = due(operation, self.mail.routine, now);
        let Some(&head) = phases.last() else {
            self.forget(&operation.id);
            return Ok(Delivery::Nothing { again: due_again(operation, self.mail.routine, now) });
        };
        let (recipients, refused) = self.mail.recipients(audience.label);
        if recipients.is_empty() && refused.is_empty() {
            self.forget(&operation.id);
            return Ok(Delivery::Nobody);
        }
        let about = (head, occurred(operation, head));
        self.meter.waits(&operation.id, about.1);
        let id = || operation.id.clone();
        let letter = render(operation, &phases, &self.mail, audience.expected_end, now)
            .map_err(|source| Undelivered::Unwritable { operation: id(), source })?;
        let mut progress = self.progress_of(&operation.id, about);
        let all = recipients.len();
        let sent = self.send(&operation.id, &letter, &recipients, &mut progress, now).await;
        sent.map_err(|source| {
            let left = all - recipients.iter().filter(|r| progress.settled.contains_key(*r)).count();
            Undelivered::Unsent { operation: id(), left, all, source }
        })?;
        // Never earlier than the phase itself, however the clocks of two replicas differ: it would be told again.
        let at = now.max(about.1);
        let recorded = ledger.record(operation, &phases, at).await;
        recorded.map_err(|source| Undelivered::Unrecorded { operation: id(), source })?;
        self.forget(&operation.id);
        Ok(Delivery::Told { phases, rejected: self.dead_letters(operation, progress, refused) })
    }

    /// Forgets operations that are no longer ours to tell about: pruned ones, or all when another replica leads.
    pub fn retain(&self, ours: impl Fn(&OpId) -> bool) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| ours(id));
        self.meter.retain(ours);
    }

    /// Sends to everybody who is not settled yet. One who cannot be sent to now does not hold the others; a server that
    /// cannot be reached does, for asking it once for each would take a timeout each.
    async fn send(
        &self,
        id: &OpId,
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
                Ok(()) => self.settle(id, progress, recipient, None),
                Err(Fault::Rejected(reason)) => self.settle(id, progress, recipient, Some(reason)),
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

    fn dead_letters(
        &self,
        operation: &Operation,
        progress: Progress,
        refused: Vec<String>,
    ) -> Vec<(String, String)> {
        let undeliverable = progress.settled.into_iter().filter_map(|(to, why)| Some((to.to_string(), why?)));
        let not_allowed = refused.into_iter().map(|text| {
            self.meter.rejected();
            (
                super::scrub::line(&text, 120),
                "`skep.notify`: not an address, or its domain is not allowed".to_owned(),
            )
        });
        let dead: Vec<_> = undeliverable.chain(not_allowed).collect();
        for (recipient, reason) in &dead {
            let (operation, service) = (operation.id.as_str(), operation.intent.service.as_str());
            tracing::warn!(operation, service, recipient, reason, "mail will not be delivered");
        }
        dead
    }

    fn progress_of(&self, id: &OpId, about: (Phase, Timestamp)) -> Progress {
        let known = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(id).filter(|p| p.about == about).cloned();
        known.unwrap_or_else(|| Progress { about, settled: BTreeMap::new() })
    }

    /// Noted at once, so that a delivery that is dropped in the middle repeats nothing.
    fn settle(&self, id: &OpId, progress: &mut Progress, recipient: &Address, refused: Option<String>) {
        match refused {
            None => self.meter.sent(),
            Some(_) => self.meter.rejected(),
        }
        progress.settled.insert(recipient.clone(), refused);
        let mut known = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(id.clone(), progress.clone());
    }

    fn forget(&self, id: &OpId) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.meter.settled(id);
    }
}
