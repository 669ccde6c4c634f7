//! The runner as jobs start it, against real servers and directories. One program: each more would be linked by itself.

// A helper that cannot go on fails its test.
#![allow(clippy::unwrap_used)]

mod artefacts;
mod attempts;
mod checks;
mod commands;
mod hostile;
mod inspect;
mod interference;
mod mongodb;
mod moves;
mod mysql;
mod redis;
mod restore;
mod roles;
#[path = "../support/mod.rs"]
mod support;
mod swap;
mod volume;
mod wal;
