//! A small controller runtime: source (subscribe → list → swap), store, queue, controller, backoff.
//! Knows no Swarm.

pub mod clock;
