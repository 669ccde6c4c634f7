//! MySQL and MariaDB, by the image's own client, dump and server programs.
//!
//! ```text
//! dump    mariadb-dump (mysqldump) of all databases, accounts included ─▶ SQL
//! load    new data directory ▶ scratch server ▶ SQL ▶ clean end ▶ server without accounts: tables checked
//! ```
//!
//! Invariants: the password is in the environment only; option files of the image never reach a tool; a scratch
//! server listens on a socket only.

pub(crate) mod checks;
mod client;
pub(crate) mod dump;
pub(crate) mod load;
pub(crate) mod server;
