//! Backups between the staging volume and the stores that no database's tool can write: the work of jobs in Skep's own
//! image.
//!
//! ```text
//! staged artefact ─▶ zstd (unless it is compressed) ─▶ age (for recipients) ─▶ hash ─▶ mounted directory | S3
//!                                                                               └── read back, hash again (S16)
//! ```
//!
//! Invariants: files first, the manifest last, so that half a backup never looks whole; what is written is read back
//! before the manifest says its hash; nothing read from a store is decoded for a restore unless its hash is the one in a
//! manifest whose own hash is registered; memory does not grow with the size of a backup; no secret is in a message.

mod check;
pub mod code;
mod copy;
mod fetch;
pub mod job;
mod reports;
pub mod s3;
mod scan;
pub mod sealed;
mod shelf;
mod ship;

pub use check::check;
pub use copy::copy;
pub use fetch::fetch;
pub use job::run;
pub use reports::{REPORTS, reports};
pub use scan::scan;
pub use shelf::{Shelf, Site};
pub use ship::ship;
