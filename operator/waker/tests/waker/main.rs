//! A waker on the loopback interface, between real clients, a real application and an operator that only answers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod ask;
mod door;
mod hold;
mod leave;
mod pass;
mod stage;
mod tcp;
