//! The composition root.

pub mod ledger;
pub mod port;
