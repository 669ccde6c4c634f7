//! Labels → typed policy; pure. Parse, don't validate: all problems are collected, a faulty section is off and
//! the others work, and nothing ever becomes a silent default.
//!
//! ```text
//! labels ─▶ parse ─▶ Parsed { policy, problems } ─▶ Policies { all services, Graph }
//!             │
//!           keys (the one table) · value, schedule, duration, probe (texts ⇄ values) · rules (labels together)
//! ```

mod door;
mod draft;
pub mod duration;
pub mod graph;
pub mod keys;
pub mod lint;
mod parse;
mod policies;
mod probe;
pub mod problem;
mod reference;
mod rules;
pub mod schedule;
pub mod types;
pub mod value;
mod window;

pub use graph::Graph;
pub use lint::{CheckReport, check_files, check_service, check_services};
pub use parse::{Parsed, is_ours, parse};
pub use policies::{Policies, Tasks, is_labelled, nothing_to_scale};
pub use problem::{Code, Level, Problem, Section, explain};
pub use reference::{labels_page, labels_reference};
pub use types::*;
