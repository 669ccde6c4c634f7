//! What Skep asks of a job, and what the job answers: the types that the operator and the static
//! `runner` binary share.
//!
//! ```text
//! operator ── Ticket (JSON in a Swarm config) ──▶ /skep/runner task
//! operator ◀── Line (JSON lines on stdout, read through service logs) ── runner
//! ```
//!
//! Invariants: a ticket carries no secret, only the paths of files that hold them; every task may run
//! twice, also half of it; the exit code decides, a `Report` only describes what was done.

mod asking;
mod command;
mod death;
mod dir;
pub mod error;
mod expect;
mod home;
mod job;
pub mod line;
pub mod manifest;
mod mongodb;
mod mysql;
mod net;
pub mod output;
mod pg;
mod rabbitmq;
mod redis;
pub mod run;
mod scratch;
mod stop;
pub mod store;
mod tar;
pub mod task;
mod tool;

pub use line::{Fault, Line, Progress};
pub use manifest::{Artefact, Manifest};
pub use task::{Report, Task, Ticket};

/// Where a job finds its ticket (a Swarm config mounted as a file).
pub const TICKET_PATH: &str = "/skep/ticket.json";
/// Where a job finds the runner (a Swarm config mounted with mode 0555).
pub const RUNNER_PATH: &str = "/skep/runner";
/// Where a job finds the backup store's mount.
pub const STORE_PATH: &str = "/skep/store";
/// Where a job in Skep's own image finds the staging volume; jobs in a database's image find it at [`STORE_PATH`].
pub const STAGE_PATH: &str = "/skep/stage";
/// Where a job that copies a backup finds the mount of the store to which it copies.
pub const COPY_PATH: &str = "/skep/copy";
/// Where a job finds the data volume of the service that it works for: read-only to measure room and to dump,
/// read-write to load and to move.
pub const DATA_PATH: &str = "/skep/data";
/// Where a job puts the files of a server that it starts for a while: in its own container, with which they go.
pub const SCRATCH_PATH: &str = "/tmp/skep";
/// How the names of Redis's own configuration files end: where one stands for a password, its line `requirepass` is meant.
pub const REDIS_CONF: &str = ".conf";
/// What a command of a service (`skep.data=command`) finds the host name of the service's tasks in.
pub const HOST_VARIABLE: &str = "SKEP_HOST";
/// Version of the ticket, line and manifest formats. A reader refuses what is newer.
pub const SCHEMA: u32 = 1;
