//! The only module that speaks to the Docker engine.
//!
//! `transport` carries bytes (unix socket, TCP, or an in-process stream for the simulated engine) for both
//! bollard and the raw client; `engine` offers the calls that Skep makes and nothing else; `object` holds the
//! types; `world` is one complete snapshot; `job` runs one-shot work; `spec` edits service specs as raw JSON
//! (bollard's types lose health checks); `lease` elects a leader and fences writes; `error` classifies answers.

mod decode;
pub mod engine;
pub mod error;
pub mod fence;
pub mod job;
pub mod object;
pub mod spec;
mod stream;
pub mod transport;

pub use engine::Engine;
pub use error::Error;
pub use fence::Fence;
pub use stream::Events;
pub use transport::Endpoint;
