//! Decisions about operations before they run; pure. Time and the state of the Swarm are arguments.
//!
//! ```text
//! World, Work ──▶ explain ──▶ Plan        what would be done, undone, refused, and what users would notice
//! operations  ──▶ due                     kept data whose time is over
//! labels, operations, catalogue ──▶ scheduled    backups that are to begin
//! labels, operations, sleepers ──▶ sleepers   what is to fall asleep, to wake, or was brought back
//! operations, labels ──▶ reports         what is to be written up in stores
//! operations  ──▶ prune                   records that nobody needs any more
//! objects     ──▶ sweep                   objects that no living operation owns
//! ```
//!
//! Invariants: what a plan says follows from the same functions that an operation decides by; nothing here names a
//! value of a spec, only labels, names and ports (S15).

pub mod digests;
mod drill;
pub mod due;
pub mod explain;
pub mod moment;
mod point;
pub mod prune;
mod recovery;
mod reports;
mod restart;
mod restore;
mod retention;
mod rollback;
mod scale;
pub mod scheduled;
pub mod sleepers;
pub mod standing;
pub mod steps;
mod store;
pub mod sweep;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod update;
pub mod words;
pub mod world;

pub use due::due;
pub use explain::{Plan, explain};
pub use prune::prune;
pub use reports::reports;
pub use scheduled::scheduled;
pub use steps::{step_names, steps};
pub use sweep::{Objects, Orphan, sweep};
pub use world::World;
