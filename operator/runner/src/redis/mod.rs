//! Redis and Valkey.
//!
//! ```text
//! dump    redis-cli --rdb ─▶ RDB                       flush   empties a cache
//! load    RDB ─▶ scratch server on a socket ─▶ the very files that the live server reads at its start
//! ```
//!
//! With `appendonly yes` a server does not even look at an RDB: it starts empty, and its next save overwrites the
//! RDB. So a load makes the append-only files, and starts a server on them once more before they count.

pub(crate) mod checks;
mod client;
pub(crate) mod dump;
pub(crate) mod files;
pub(crate) mod flush;
pub(crate) mod load;
