//! The command line.

pub mod settings;

pub use settings::OperatorArgs;
