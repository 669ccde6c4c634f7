//! What starts operations besides people.
//!
//! ```text
//! Alertmanager ─▶ http ─▶ alertmanager (payload → alerts) ─▶ intake ─▶ guard::judge (pure) ─▶ an operation, or not
//! time ─▶ cron ─▶ plan::scheduled, plan::due (pure) ─▶ operations
//! Prometheus ─▶ idle ─▶ plan::sleepers (pure) ─▶ operations
//! a door ─▶ http ─▶ doors ─▶ plan::sleepers (pure) ─▶ an operation, or not
//! ```
//!
//! Invariant: nothing here works on a service; the most that a trigger does is to store an operation.

pub mod alertmanager;
pub mod cron;
pub mod doors;
pub mod guard;
pub mod idle;
pub mod intake;
pub mod logins;
pub mod port;
pub mod registry;
