//! Operations: intent and journal in one Swarm config each, driven step by step.

pub mod journal;
pub mod record;
