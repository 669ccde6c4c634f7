//! Tests of Skep: the simulated engine, the sandbox of a real Swarm, the demo application and the suites.

pub mod conformance;
pub mod debian;
pub mod demo;
pub mod docker;
pub mod downtime;
pub mod farm;
pub mod grafana;
pub mod load;
pub mod prometheus;
pub mod raw;
pub mod registry;
pub mod saga;
pub mod sandbox;
pub mod sim;
pub mod smtp;
pub mod stage;
pub mod streams;
pub mod waking;
pub mod yard;
