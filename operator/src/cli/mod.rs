//! The command line.

pub mod check;
pub mod settings;

pub use settings::OperatorArgs;
