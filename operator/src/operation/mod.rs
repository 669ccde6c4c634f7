//! Operations: intent and journal in one Swarm config each, driven step by step.
//!
//! `record` is what stands in the Swarm; `journal` computes what comes next; `saga` is the frame of steps; `drive` polls.
//! One file per operation: `backup`, `restore`, `drill`, `maintenance`, `expire`, `report`, `verify`, `import`, `sleep` and
//! `wake` (with `sleeper`, what is written down in between, `waker`, what stands in its place, and `door`, what stands before
//! it); `restart`, of a service or of a stack; `update`, of a service or of several as one; `point` and `rollback`, which are
//! about a whole stack. What they share: `claim` (one holder per service), `freeze` and `frozen` (decisions made beforehand),
//! `data` (the tasks that the engine of a service wants), `work` (jobs), `clients` (stop and start), `checks` and `lines` (of
//! what was done), `rollout` (whether tasks are those of their spec), `catalogue`, `points`, `reading` (of stored backups),
//! `stores` and `copies` (what no database's tool can write), `whereabouts` (whose node has their files), `anchors` (by what
//! a store is known again), `prometheus` (what it answers), `retention` (which backups stay) and `prune` (removing the
//! others).

pub mod anchors;
pub mod backup;
pub mod before;
pub mod canary;
pub mod catalogue;
pub mod checks;
pub mod claim;
pub mod client_spec;
pub mod clients;
pub mod copies;
pub mod data;
pub mod desk;
pub mod door;
pub mod drill;
pub mod drive;
pub mod expire;
pub mod freeze;
pub mod frozen;
pub mod import;
pub mod journal;
pub mod lines;
pub mod maintenance;
pub mod page;
pub mod point;
pub mod points;
pub mod prometheus;
pub mod prune;
pub mod reading;
pub mod receiver;
pub mod record;
pub mod report;
pub mod restart;
pub mod restore;
pub mod retention;
pub mod rollback;
pub mod rollout;
pub mod saga;
pub mod settings;
pub mod sleep;
pub mod sleeper;
pub mod stores;
pub mod update;
pub mod verify;
pub mod wake;
pub mod waker;
pub mod wal;
pub mod whereabouts;
pub mod work;
