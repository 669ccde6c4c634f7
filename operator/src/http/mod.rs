//! What Skep shows and takes over HTTP: metrics, health, the status page, and the webhook of Alertmanager.
//!
//! ```text
//! World, journals, catalogue ─▶ View ─┬▶ status page, JSON       (read by anybody who reaches the port)
//!                                     └▶ Metrics::observe ─▶ /metrics
//! POST webhook (token) · approve, cancel, reset (token) ─▶ Desk ─▶ operations
//! ```
//!
//! Invariants: a handler never speaks to the engine, it reads the last view or asks the desk; nothing of
//! a spec, a step's output or a secret is in a view; every text from outside is scrubbed on its way into the view
//! and escaped on its way into a page; what changes anything needs a token in its body or header, never a cookie.

mod actions;
pub mod gather;
pub mod metrics;
mod operation_view;
pub mod server;
mod shown;
pub mod status;
pub mod token;
pub mod view;
mod waker;
mod webhook;
mod words;

#[cfg(test)]
pub(crate) mod fixture;
