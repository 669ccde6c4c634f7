//! The only module that speaks to the Docker engine.
//!
//! `transport` carries bytes (unix socket, TCP, or an in-process stream for the simulated engine) for both
//! bollard and the raw client; `engine` offers the calls that Skep makes and nothing else; `object` holds the
//! types; `world` is one complete snapshot; `job` runs one-shot work; `spec` edits service specs as raw JSON
//! (bollard's types lose health checks); `lease` elects a leader and `fence` holds back the writes of those who do
//! not lead; `error` classifies answers; `stream` reads events and logs of jobs, `task_log` logs of users' tasks.

#[cfg(test)]
mod client_tests;
mod decode;
pub mod engine;
pub mod error;
pub mod fence;
pub mod job;
pub mod lease;
pub mod object;
pub mod spec;
mod stream;
pub mod task_log;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod world;

pub use engine::Engine;
pub use error::Error;
pub use fence::Fence;
pub use lease::{Leadership, Lease};
pub use stream::Events;
pub use transport::Endpoint;
pub use world::{World, WorldSource};
