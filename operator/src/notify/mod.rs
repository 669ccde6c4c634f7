//! Telling people by e-mail what operations do, and what was not done about alerts.
//!
//! ```text
//! Operation ─▶ phase::due (pure) ─▶ message::render (pure) ─▶ smtp::Session ─▶ Ledger (`skep.told.<phase>`)
//!              └──────────────── outbox::deliver, once per nudge ──────────────────┘
//! Notice (of an alert) ─────▶ notice::render (pure) ─▶ smtp::Session ─▶ the guards' history
//! a week's backups ─────────▶ digest::render (pure) ─▶ smtp::Session ─▶ the config `skep-weekly`
//! ```
//!
//! Invariants: what was told stands on the operation's record (or in the guards' history, or on a config) and nowhere else, so nothing is lost across restarts;
//! it is recorded after sending, so mail goes out at least once, and a repeat carries the same `Message-ID`; mail never
//! blocks or fails an operation; recipients come from labels and configuration only; a message holds fields of the
//! record and nothing else, and those are scrubbed (S15).

pub mod digest;
pub mod expect;
pub mod message;
pub mod meter;
pub mod notice;
pub mod outbox;
pub mod phase;
pub mod settings;
pub mod smtp;

#[cfg(test)]
mod fixture;
pub mod topic;
mod view;
pub(crate) mod words;

pub use message::{Letter, render, report};
pub use meter::{Meter, Reading};
pub use outbox::{Audience, Delivery, Ledger, Outbox, Undelivered};
pub use phase::{Phase, Routine, due, due_again};
pub use settings::{Mail, MailSettings};
pub use topic::Topic;
