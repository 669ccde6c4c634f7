//! MongoDB: everything that a running server holds, through its own `mongodump`, `mongorestore` and shell.
//!
//! ```text
//! dump    server ── mongodump --oplog, of a member of a replica set ─▶ mongodb.archive, read in full on its way     read   every block, against its checksum
//! load    mongodb.archive ── mongorestore --drop ─▶ server ─▶ what is not in it is dropped ─▶ compared ─▶ oplog replayed
//! drill   the same into a mongod of the job's own, which is dumped as well: every document is compared
//! ```
//! The archive holds the accounts and roles as well (database `admin`); a load leaves those of the server alone: the login
//! by which it works, and by which it would go back, must not change under it.
//!
//! Invariants: the password is in no argument, no message and no file that outlives the job; nothing of the server is
//! touched before the archive was read in full and the server has told what it holds; a drill loads into nothing but a
//! server that says that its data is in the job's own directory.

mod archive;
mod drill;
mod dump;
mod load;
mod scratch;
mod server;

pub(crate) use self::drill::drill;
pub(crate) use self::dump::{dump, read};
pub(crate) use self::load::load;
