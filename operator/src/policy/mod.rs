//! Labels → typed policy; pure. Parse, don't validate: all problems are collected, a faulty section is off and
//! the others work, and nothing ever becomes a silent default.

pub mod types;

pub use types::*;
