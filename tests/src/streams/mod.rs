//! Services on a real Swarm that sleep, and clients of what lasts long or is large: WebSockets, uploads, downloads, calls of
//! HTTP/2.
//!
//! ```text
//! client ─▶ front (passes connections on, and knows nothing of what they carry) ─▶ tasks of a service, or its waker
//! gauge ◀─ Prometheus ◀─ operator        (how much each is used is what the suite says)
//! ```

mod client;
mod scene;

pub use client::{Answer, Caller, Client, Download, WebSocket};
pub use scene::{FEW, GUARDED, IDLE_AFTER, Scene};
