//! An S3 server for tests: `s3s` with signatures checked, on a directory, and in front of it faults on demand.

mod fault;
mod serve;

pub use fault::{Asked, Fault, Faults, Kind};
pub use serve::{Keys, Server, serve};
