//! What a server needs to have for its log to be received. All that is missing is told at once, each with what mends it.

use std::process::Stdio;

use serde::Deserialize;

use super::super::server::Admin;
use crate::error::{Error, Result};
use crate::task::Connect;
use crate::tool::output_of;

/// Oldest version whose `pg_receivewal` begins where a slot says.
const OLDEST: u32 = 150_000;

/// A server whose log can be received.
pub(super) struct System {
    /// Identifier of the database cluster.
    pub(super) id: String,
    /// Size of a segment in bytes.
    pub(super) segment_size: u64,
}

#[derive(Deserialize)]
struct Settings {
    wal_level: String,
    senders: u32,
    slots: u32,
    keep: String,
    may_replicate: bool,
    segment_size: u64,
}

/// Looks at settings, the role, and whether a replication connection is let in.
pub(super) fn of(admin: &mut Admin<'_>, connect: &Connect) -> Result<System> {
    let settings: Settings = admin.session.json(
        "SELECT json_build_object('wal_level', current_setting('wal_level'),
           'senders', current_setting('max_wal_senders')::int, 'slots', current_setting('max_replication_slots')::int,
           'keep', current_setting('max_slot_wal_keep_size'),
           'may_replicate', (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user),
           'segment_size', pg_size_bytes(current_setting('wal_segment_size')))",
    )?;
    let user = &connect.user;
    let mut missing = Vec::new();
    let mut want = |is_so: bool, what: String| {
        if !is_so {
            missing.push(what);
        }
    };
    let version = admin.version / 10_000;
    want(admin.version >= OLDEST, format!("PostgreSQL 15 or newer is needed, this is {version}"));
    want(settings.wal_level != "minimal", "set wal_level to `replica`, it is `minimal`".into());
    want(settings.senders > 1, format!("set max_wal_senders to 2 or more, it is {}", settings.senders));
    want(settings.slots > 0, "set max_replication_slots to 1 or more, it is 0".into());
    want(
        settings.keep != "-1",
        "set max_slot_wal_keep_size, to 10GB for example: without it the log of a receiver that is away fills the live disk"
            .into(),
    );
    want(
        settings.may_replicate,
        format!("role `{user}` may not replicate: ALTER ROLE \"{user}\" REPLICATION"),
    );
    let id = match identify(admin) {
        Ok(id) => Some(id),
        Err(Error::Tool { said, .. }) if said.contains("pg_hba.conf") => {
            let line = format!("host replication {user} all scram-sha-256");
            want(false, format!("pg_hba.conf lets no replication in: add the line `{line}` and reload it"));
            None
        }
        // Where something is missing that keeps it from answering, that is what there is to tell.
        Err(_) if !missing.is_empty() => None,
        Err(error) => return Err(error),
    };
    match id {
        Some(id) if missing.is_empty() => Ok(System { id, segment_size: settings.segment_size }),
        _ => Err(Error::Barred(format!("the write-ahead log cannot be received: {}", missing.join("; ")))),
    }
}

/// Asks over a replication connection, which `pg_hba.conf` treats apart from all others.
fn identify(admin: &Admin<'_>) -> Result<String> {
    let mut psql = admin.server.tool("psql");
    psql.args(["-X", "-A", "-t", "-q", "-w", "-d", "replication=true", "-c", "IDENTIFY_SYSTEM"])
        .stdin(Stdio::null());
    let row = output_of(&mut psql)?;
    let id = row.split('|').next().unwrap_or_default();
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::Unready(format!("the server tells no identifier: `{row}`")));
    }
    Ok(id.to_owned())
}
