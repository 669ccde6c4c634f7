//! What stands in for a service that sleeps: it asks the operator to wake the service, holds its requests or answers a
//! page, passes them through when the application is there, and leaves without losing one.
//!
//! ```text
//! operator ── Task (JSON in a Swarm config) ──▶ skep waker, under the service's name and on its ports
//! ```
//!
//! Invariants: neither a body that waits nor one that passes is ever kept in memory as a whole; the token, and what users
//! send, are never logged.

pub mod rule;
pub mod task;

pub use rule::Rule;
pub use task::Task;

/// Where the waker finds its task (a Swarm config mounted as a file).
pub const TASK_PATH: &str = "/skep/waker.json";
/// Version of the task's format. A reader refuses what is newer.
pub const SCHEMA: u32 = 1;
