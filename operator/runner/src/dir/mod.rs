//! Engines whose live data is a directory: beside it new data is built, then both change places by renames.
//!
//! ```text
//! dump ─▶ artefacts ─▶ load ─▶ <root>/.skep-<side>/new ─▶ moves ─▶ <root>
//!   └ volume, redis, mysql ┘         └ side: how far it is      └ what was live ─▶ .skep-<side>/old
//! ```
//!
//! Invariants: nothing is built from an artefact whose checksum is not the registered one; nothing in `<root>`
//! but `.skep-…` is touched before a complete, verified `new` is there; names are resolved a component at a time
//! and no symbolic link is followed.

pub(crate) mod checks;
pub(crate) mod dump;
pub(crate) mod files;
pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod moves;
pub(crate) mod remove;
pub(crate) mod root;
pub(crate) mod side;
mod volume;
