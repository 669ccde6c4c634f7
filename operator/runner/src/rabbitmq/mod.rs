//! RabbitMQ: its definitions (virtual hosts, users, permissions, policies, parameters, exchanges, queues, bindings).
//!
//! ```text
//! dump    running node ── eval ─▶ definitions.json        read    every definition is looked at
//! load    definitions.json ─▶ compared with the node ─▶ remove what is not in it ─▶ import ─▶ compared again
//! drill   definitions.json ─▶ a node of the job's own, empty ─▶ the same
//! ```
//! Messages are in none of it: they are in the node's own files, which are whole only while it is stopped.
//!
//! Invariants: no queue that holds a message, or that somebody reads from, is removed; a restore that would have to
//! is refused before anything is changed. The node's cookie is in no argument, no message and no file that outlives the
//! job.

mod definitions;
mod drill;
mod dump;
mod load;
mod node;
mod scratch;

pub(crate) use self::drill::drill;
pub(crate) use self::dump::{dump, read};
pub(crate) use self::load::load;
