//! Tests of Skep: the simulated engine, the sandbox of a real Swarm, the demo application and the suites.
pub mod shop;

pub mod debian;
pub mod smtp;
