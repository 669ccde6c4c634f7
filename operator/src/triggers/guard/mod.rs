//! Whether an alert may start a restore: pure decisions.
//!
//! ```text
//! alert + what is known of its service (history, operations, labels, how sick the swarm is) + now ─▶ decision, new history
//! ```
//!
//! Invariants: opted in on both sides, or nothing happens; one operation an incident, and one open incident a
//! (service, alert name), closed only by `resolved` plus cooldown (S13); a history that cannot be read leads to no
//! action; what stood in the way is judged again when it is gone; every decision is a sentence for people.

mod codec;
pub mod decision;
pub mod history;
pub mod judge;
pub mod notice;
mod rules;
pub mod situation;

pub use codec::Unreadable;
pub use decision::{Ask, Decision};
pub use history::History;
pub use judge::{CANCELLED_BY, Judged, due, judge};
pub use notice::{Notice, NoticeKind};
pub use situation::{Settings, Situation, Target, is_sick};

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
