//! PostgreSQL 13 and newer, through the image's own `psql`, `pg_dump`, `pg_restore` and `vacuumdb`.
//!
//! ```text
//! dump, restore, swap, inspect, checks      one file a kind of task
//! globals                                   the cluster's roles beside a dump, and making missing ones
//! wal                                       the write-ahead log: received, and recovered to a moment
//!   └─▶ properties                          what no dump holds
//!         └─▶ server ─▶ psql                sessions, older attempts, the lock
//! ```

mod base;
pub(crate) mod checks;
pub(crate) mod dump;
pub(crate) mod globals;
pub(crate) mod inspect;
mod properties;
mod psql;
mod quote;
pub(crate) mod restore;
mod server;
pub(crate) mod swap;
pub(crate) mod wal;
