//! What stands in for a service that sleeps: it asks the operator to wake the service, holds its requests or answers a
//! page, passes them through when the application is there, and leaves without losing one.
//!
//! ```text
//! operator ── Task (JSON in a Swarm config) ──▶ skep waker, under the service's name and on its ports
//!
//! client ─▶ http, tcp ─▶ gate: is it there? ── no ─▶ waits (or gets the page) ─▶ ask ─▶ operator
//!               │          ▲        └───────── yes ─▶ pass ─▶ pool ─▶ application
//!               ▼          └── upstream: who is listed? (only while somebody wants to know)
//!             open: what must end before the waker leaves
//! ```
//!
//! A door is a waker that stands before a service for good, under a name of its own. It sees what is open and when something
//! last was, and asks the operator to let the service sleep (`idle`).
//!
//! Invariants: neither a body that waits nor one that passes is ever kept in memory as a whole; one question to the
//! operator at a time, however many wait; a request is sent twice only where the application cannot have acted on the
//! first; the token, and what users send, are never logged.

mod ask;
mod body;
mod gate;
mod headers;
mod http;
mod idle;
mod open;
mod page;
mod pass;
mod pool;
pub mod rule;
mod settings;
mod socket;
pub mod task;
mod tcp;
pub mod upstream;
mod waker;

pub use rule::Rule;
pub use settings::Settings;
pub use task::Task;
pub use upstream::Upstream;
pub use waker::{Error, Waker, run};

/// Where the waker finds its task (a Swarm config mounted as a file).
pub const TASK_PATH: &str = "/skep/waker.json";
/// Version of the task's format. A reader refuses what is newer.
pub const SCHEMA: u32 = 1;
/// Answered on every HTTP port, to the loopback interface alone: 200, and nothing is woken. Whoever asks elsewhere asks
/// the application.
pub const HEALTH_PATH: &str = "/__skep/healthy";
/// Where it is answered, on the loopback interface, if no port of the task speaks HTTP and none is this.
pub const HEALTH_PORT: u16 = 9_181;
