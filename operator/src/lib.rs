//! Skep: an operator for Docker Swarm.
//!
//! ```text
//! labels ─▶ policy ─┐
//! events ─▶ runtime::source ─▶ World ─▶ plan (pure) ─▶ operations ─▶ swarm (effects)
//! alerts, CLI, web ─┘                                     │
//!                                  notify, http ◀─────────┘ (what the journal says)
//! ```
//!
//! Dependencies point one way: `runtime ← swarm ← policy ← operation ← plan ← triggers, notify, http, cli ← app`.

pub mod app;
pub mod cli;
pub mod engines;
pub mod http;
pub mod notify;
pub mod operation;
pub mod plan;
pub mod policy;
pub mod runtime;
pub mod swarm;
pub mod triggers;
