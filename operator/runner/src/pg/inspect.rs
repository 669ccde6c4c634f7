//! Looking at a server before anything is done to it: what is there, who uses it, what a restore would
//! silently lose, and what stands against each backup. Changes nothing.

use std::collections::BTreeMap;
use std::process::Command;

use crate::manifest::Manifest;
use crate::task::{KeptDatabase, Named, PgInspect, PgInspection, Report, Stored};
use serde::Deserialize;

use super::globals;
use super::properties;
use super::psql::Session;
use super::quote::{array, literal};
use super::restore::max_wal_size;
use super::server::Admin;
use super::swap::{slots, subscriptions};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::store::Backup;
use crate::tool::output_of;

/// What a server offers to a backup.
struct Offer {
    version: u32,
    roles: Vec<String>,
    tablespaces: Vec<String>,
    /// Extension → version that `CREATE EXTENSION` would install.
    extensions: BTreeMap<String, String>,
    live_exists: bool,
    is_superuser: bool,
}

/// What stands against a backup.
#[derive(Default)]
struct Reasons {
    /// What is wrong with it.
    itself: Vec<String>,
    /// What the server lacks.
    here: Vec<String>,
    /// Roles that are to be made.
    roles: Vec<String>,
}

/// Name, OID and size of a database.
#[derive(Deserialize)]
struct Sized(String, u32, u64);

/// Looks at the server, the live database, the backups asked about and the databases kept.
pub(crate) fn inspect(job: &Job, task: &PgInspect) -> Result<Report> {
    let PgInspect { connect, database, backups, kept, create_roles } = task;
    let mut admin = Admin::open(job, connect, &[])?;
    let mut found = PgInspection {
        server_version: admin.version.to_string(),
        tool_version: output_of(Command::new("pg_restore").arg("--version"))?,
        max_wal_size: max_wal_size(&mut admin)?,
        jobs: scheduled_jobs(&mut admin, database)?,
        kept: kept_databases(&mut admin, kept)?,
        ..PgInspection::default()
    };
    if let Some(room) = job.room()? {
        found.free = room.free;
        found.capacity = room.capacity;
    }
    look_at_live(&mut admin, database, &mut found)?;
    let offer = offer(&mut admin, found.live.is_some())?;
    for stored in backups {
        job.out.progress("inspect", found.backups.len() as u64, Some(backups.len() as u64));
        let Reasons { itself, here, roles } = reasons(job, stored, &offer, *create_roles)?;
        found.backups.insert(stored.id.clone(), itself);
        if !here.is_empty() {
            found.lacking.insert(stored.id.clone(), here);
        }
        if !roles.is_empty() {
            found.missing_roles.insert(stored.id.clone(), roles);
        }
    }
    Ok(Report::PgInspect(Box::new(found)))
}

fn look_at_live(admin: &mut Admin<'_>, database: &str, found: &mut PgInspection) -> Result<()> {
    let Some(mut live) = properties::read(admin, database)? else { return Ok(()) };
    if live.allows_connections {
        let mut session = admin.server.session(database)?;
        properties::add_from_inside(&mut session, &mut live.properties)?;
    }
    let oid = live.oid;
    found.sessions = admin.session.json(&format!(
        "SELECT coalesce(json_agg(DISTINCT jsonb_build_object('address', coalesce(host(client_addr), ''),
             'user', coalesce(usename, ''), 'application', coalesce(application_name, ''))), '[]')
         FROM pg_stat_activity WHERE datid = {oid} AND pid <> pg_backend_pid()
           AND backend_type IN ('client backend', 'walsender') AND NOT starts_with(application_name, 'skep-')"
    ))?;
    found.sessions.sort();
    found.slots = slots(&mut admin.session, oid)?;
    found.subscriptions = subscriptions(&mut admin.session, oid)?;
    found.live = Some(Named { name: database.to_owned(), oid });
    found.properties = Some(live.properties);
    Ok(())
}

fn kept_databases(admin: &mut Admin<'_>, names: &[String]) -> Result<Vec<KeptDatabase>> {
    let names = array(names.iter().map(String::as_str));
    let sized: Vec<Sized> = admin.session.json(&format!(
        "SELECT coalesce(json_agg(json_build_array(datname, oid::int8, pg_database_size(oid)) ORDER BY datname), '[]')
         FROM pg_database WHERE datname = ANY({names})"
    ))?;
    let mut kept = Vec::with_capacity(sized.len());
    for Sized(name, oid, size) in sized {
        let slots = slots(&mut admin.session, oid)?;
        kept.push(KeptDatabase { database: Named { name, oid }, size, slots });
    }
    Ok(kept)
}

/// Jobs of `pg_cron` and `pgAgent` that name the database: they would go on in the restored one, or be lost.
fn scheduled_jobs(admin: &mut Admin<'_>, database: &str) -> Result<Vec<String>> {
    const CRON: (&str, &str) = (
        "cron.job",
        "SELECT coalesce(json_agg('pg_cron: ' || schedule || ' ' || command ORDER BY jobid), '[]')
         FROM cron.job WHERE database = ",
    );
    const AGENT: (&str, &str) = (
        "pgagent.pga_jobstep",
        "SELECT coalesce(json_agg('pgAgent: ' || jstname ORDER BY jstid), '[]')
         FROM pgagent.pga_jobstep WHERE jstdbname = ",
    );
    let cron_database = admin.session.query("SELECT current_setting('cron.database_name', true)")?;
    let mut places: Vec<&str> = vec!["postgres", database, &cron_database];
    places.sort_unstable();
    places.dedup();
    let mut jobs: Vec<String> = Vec::new();
    for place in places {
        let Some(mut session) = session_if_open(admin, place)? else { continue };
        for (table, sql) in [CRON, AGENT] {
            if session.query(&format!("SELECT to_regclass({}) IS NOT NULL", literal(table)))? == "t" {
                jobs.extend(session.json::<Vec<String>>(&format!("{sql}{}", literal(database)))?);
            }
        }
    }
    jobs.sort();
    jobs.dedup();
    Ok(jobs)
}

/// A session in a database that exists and allows connections.
fn session_if_open(admin: &mut Admin<'_>, database: &str) -> Result<Option<Session>> {
    let name = literal(database);
    let open = admin
        .session
        .query(&format!("SELECT count(*) FROM pg_database WHERE datname = {name} AND datallowconn"))?;
    if open == "1" { admin.server.session(database).map(Some) } else { Ok(None) }
}

fn offer(admin: &mut Admin<'_>, live_exists: bool) -> Result<Offer> {
    let (roles, tablespaces, extensions) = admin.session.json(
        "SELECT json_build_array(
           (SELECT json_agg(rolname) FROM pg_roles), (SELECT json_agg(spcname) FROM pg_tablespace),
           (SELECT coalesce(json_object_agg(name, default_version), '{}') FROM pg_available_extensions
            WHERE default_version IS NOT NULL))",
    )?;
    let (version, is_superuser) = (admin.version, admin.is_superuser);
    Ok(Offer { version, roles, tablespaces, extensions, live_exists, is_superuser })
}

/// What stands against a backup; a store that cannot be read is an error, not a reason.
fn reasons(job: &Job, stored: &Stored, offer: &Offer, create_roles: bool) -> Result<Reasons> {
    let backup = match Backup::open(job, stored) {
        Ok(backup) => backup,
        Err(Error::Refused(why)) => return Ok(Reasons { itself: vec![why], ..Reasons::default() }),
        Err(error) => return Err(error),
    };
    let mut reasons = against(&backup.manifest, offer);
    let missing = missing(&backup.manifest, offer);
    if create_roles && !missing.is_empty() {
        to_make(job, &backup, &missing, offer, &mut reasons)?;
    } else {
        reasons.here.extend(missing.iter().map(|role| format!("role `{role}` does not exist")));
    }
    for artefact in &backup.manifest.artefacts {
        match backup.folder.size_of(&artefact.file)? {
            None => reasons.itself.push(format!("{} is missing", artefact.file)),
            Some(size) if size != artefact.size => {
                reasons
                    .itself
                    .push(format!("{} has {size} bytes instead of {}", artefact.file, artefact.size));
            }
            Some(_) => {}
        }
    }
    Ok(reasons)
}

/// Roles that a backup needs and the server lacks.
fn missing(manifest: &Manifest, offer: &Offer) -> Vec<String> {
    let needed = manifest.database.iter().flat_map(|database| &database.roles);
    needed.filter(|role| !offer.roles.contains(role)).cloned().collect()
}

/// Which roles are to be made so that those that are missing are there, or why they cannot be.
fn to_make(
    job: &Job,
    backup: &Backup,
    missing: &[String],
    offer: &Offer,
    reasons: &mut Reasons,
) -> Result<()> {
    let globals = match globals::of(job, backup) {
        Err(Error::Refused(why)) => {
            reasons.itself.push(why);
            return Ok(());
        }
        found => found?,
    };
    let unknown = missing.iter().filter(|role| globals.as_ref().is_none_or(|held| !held.holds(role)));
    let told =
        |role: &String| format!("role `{role}` does not exist, and the backup does not tell how it is made");
    reasons.here.extend(unknown.map(told));
    if !offer.is_superuser {
        reasons.here.push("roles are missing, and only a superuser may make them as they were".to_owned());
    }
    if let Some(globals) = globals {
        reasons.roles = globals.to_make(missing, &offer.roles);
    }
    Ok(())
}

fn against(manifest: &Manifest, offer: &Offer) -> Reasons {
    let mut reasons = Reasons::default();
    if manifest.engine != "postgres" {
        reasons.itself.push(format!("it is a backup of {}", manifest.engine));
    }
    let major = |version: u32| version / 10_000;
    match manifest.server_version.parse().map(major) {
        Err(_) => {
            let version = &manifest.server_version;
            reasons.itself.push(format!("`{version}` is not a version of PostgreSQL"));
        }
        Ok(dumped) if dumped > major(offer.version) => {
            reasons
                .here
                .push(format!("it is of PostgreSQL {dumped}, the server is {}", major(offer.version)));
        }
        Ok(_) => {}
    }
    let Some(database) = &manifest.database else {
        // A dump that Skep did not make: the live database tells what the dump does not.
        if !offer.live_exists {
            reasons.here.push(
                "its manifest does not tell the database's properties, and there is no live database that would"
                    .to_owned(),
            );
        }
        return reasons;
    };
    if !offer.live_exists && !offer.tablespaces.contains(&database.tablespace) {
        reasons.here.push(format!("tablespace `{}` does not exist", database.tablespace));
    }
    for (name, version) in &database.extensions {
        match offer.extensions.get(name) {
            None => reasons.here.push(format!("extension `{name}` is not available")),
            Some(offered) if is_older(offered, version) => {
                reasons
                    .here
                    .push(format!("extension `{name}` is available in {offered}, it needs {version}"));
            }
            Some(_) => {}
        }
    }
    reasons
}

/// Compares extension versions part by part; parts that are no numbers as text.
fn is_older(offered: &str, wanted: &str) -> bool {
    fn parts(version: &str) -> Vec<(u64, &str)> {
        version
            .split(['.', '-'])
            .map(|part| (part.parse().unwrap_or(0), part.trim_start_matches('0')))
            .collect()
    }
    let (offered, wanted) = (parts(offered), parts(wanted));
    offered < wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_extensions_are_compared_as_numbers() {
        assert!(is_older("1.9", "1.10"));
        assert!(!is_older("1.10", "1.9"));
        assert!(!is_older("1.6", "1.6"));
        assert!(is_older("1.6", "1.6.1"));
        assert!(is_older("2.10.1", "2.10.2"));
    }
}
