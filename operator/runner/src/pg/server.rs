//! A PostgreSQL server as the image's tools reach it.
//!
//! Invariants: the password travels in the environment only; variables of the service's own environment
//! (`PGDATA`, `PGHOST`, …) never reach a tool; every session bears the attempt's name, so that a later
//! attempt can end it.

use std::process::Command;
use std::time::Duration;

use crate::task::{Connect, Named};

use super::psql::{Session, When};
use super::quote::{conninfo, literal};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::stop::until;

/// Longest wait for a lock of the server.
const LOCK_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for ended sessions to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait for another job's lock. That of an older attempt is free as soon as its session has ended.
const LOCK_WITHIN: Duration = Duration::from_secs(10);
/// `pg_advisory_lock` key of every job that changes databases of a server: `skep` in ASCII.
const LOCK: i64 = 0x736b_6570;
/// Databases that every server has, to do administrative work from.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// A server to connect to.
pub(crate) struct Server<'a> {
    /// The run that connects.
    pub(crate) job: &'a Job,
    connect: &'a Connect,
    password: Option<String>,
}

/// A session in a database that is none of the task's, after older attempts were ended.
pub(crate) struct Admin<'a> {
    /// The server.
    pub(crate) server: Server<'a>,
    /// The session.
    pub(crate) session: Session,
    /// `server_version_num`.
    pub(crate) version: u32,
    /// Whether the role may do everything.
    pub(crate) is_superuser: bool,
}

// === impl Server ===

impl<'a> Server<'a> {
    /// Reads the password; from here on no line shows it.
    pub(crate) fn new(job: &'a Job, connect: &'a Connect) -> Result<Server<'a>> {
        let password = connect.password_file.as_deref().map(crate::job::read_secret).transpose()?;
        if let Some(password) = &password {
            job.out.keep_back(password);
        }
        Ok(Server { job, connect, password })
    }

    /// A tool of the image, told how to connect. Nothing secret is among its arguments.
    pub(crate) fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(variable);
            }
        }
        let lock_timeout = LOCK_TIMEOUT.as_millis();
        command
            // What tools say decides whether another attempt may help, so it has to be in one language.
            .env("LC_MESSAGES", "C")
            .env_remove("LC_ALL")
            .env_remove("LANGUAGE")
            .env("PGHOST", &self.connect.host)
            .env("PGPORT", self.connect.port.to_string())
            .env("PGUSER", &self.connect.user)
            .env("PGAPPNAME", &self.job.session)
            .env("PGCONNECT_TIMEOUT", "10")
            // libpq complains about one that is no plain file, not about one that is absent.
            .env("PGPASSFILE", "/nonexistent")
            .env(
                "PGOPTIONS",
                format!(
                    "-c statement_timeout=0 -c lock_timeout={lock_timeout} -c standard_conforming_strings=on \
                     -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off"
                ),
            );
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        command
    }

    /// The connection string of a database; keepalives notice a server that vanished.
    pub(crate) fn database(&self, name: &str) -> String {
        let name = conninfo(name);
        format!("dbname={name} keepalives_idle=20 keepalives_interval=5 keepalives_count=4")
    }

    /// A session in `database`, with the schemas of the catalog only.
    pub(crate) fn session(&self, database: &str) -> Result<Session> {
        Session::open(self, database, When::Working)?.with_catalog_only()
    }

    /// A session outside of `databases`.
    pub(crate) fn session_outside(&self, databases: &[&str], when: When) -> Result<Session> {
        let mut outside = MAINTENANCE.iter().filter(|name| !databases.contains(name)).peekable();
        while let Some(name) = outside.next() {
            match Session::open(self, name, when).and_then(Session::with_catalog_only) {
                Err(error) if outside.peek().is_some() && error.chain().contains("does not exist") => {}
                tried => return tried,
            }
        }
        Err(Error::refused("neither `postgres` nor `template1` is left to work from"))
    }
}

// === impl Admin ===

impl<'a> Admin<'a> {
    /// Connects outside of `databases` and ends the sessions of older attempts of this step.
    pub(crate) fn open(job: &'a Job, connect: &'a Connect, databases: &[&str]) -> Result<Admin<'a>> {
        let server = Server::new(job, connect)?;
        let mut session = server.session_outside(databases, When::Working)?;
        end_older_attempts(&mut session, job)?;
        let (version, is_superuser) = session.json(
            "SELECT json_build_array(current_setting('server_version_num')::int,
                (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))",
        )?;
        if version < 130_000 {
            return Err(Error::refused(format!("PostgreSQL {version} is older than 13")));
        }
        Ok(Admin { server, session, version, is_superuser })
    }

    /// As [`Admin::open`], holding the lock of jobs that change databases until dropped.
    pub(crate) fn open_locked(job: &'a Job, connect: &'a Connect, databases: &[&str]) -> Result<Admin<'a>> {
        let mut admin = Admin::open(job, connect, databases)?;
        let sql = format!("SELECT pg_try_advisory_lock({LOCK})::text");
        let late = || Error::Unready("another job of Skep is changing databases of this server".to_owned());
        until(LOCK_WITHIN, late, || Ok(admin.session.query(&sql)? == "true"))?;
        Ok(admin)
    }

    /// The OID of a database, none where it does not exist.
    pub(crate) fn oid(&mut self, name: &str) -> Result<Option<u32>> {
        oid_of(&mut self.session, name)
    }

    /// The database of that name.
    pub(crate) fn named(&mut self, name: &str) -> Result<Option<Named>> {
        Ok(self.oid(name)?.map(|oid| Named { name: name.to_owned(), oid }))
    }

    /// Ends the sessions in databases until none is left.
    pub(crate) fn end_sessions(&mut self, oids: &[u32]) -> Result<()> {
        let ids = list(oids);
        let sql = ending(oids);
        let late = || Error::Unready(format!("sessions in databases {ids} do not end"));
        until(GONE_WITHIN, late, || Ok(self.session.query(&sql)? == "0"))
    }

    /// Number of sessions of clients in databases.
    pub(crate) fn sessions(&mut self, oids: &[u32]) -> Result<u64> {
        self.session.json(&format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datid IN ({}) AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'",
            list(oids)
        ))
    }
}

/// The OID of a database, none where it does not exist.
pub(crate) fn oid_of(session: &mut Session, name: &str) -> Result<Option<u32>> {
    let name = literal(name);
    session.json(&format!(
        "SELECT coalesce((SELECT to_json(oid::int8) FROM pg_database WHERE datname = {name}), 'null')"
    ))
}

/// Ends sessions in databases; yields how many there were.
pub(crate) fn ending(oids: &[u32]) -> String {
    format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datid IN ({}) AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'",
        list(oids)
    )
}

/// `1,2,3`.
pub(crate) fn list(oids: &[u32]) -> String {
    oids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// A node that is lost may still run an older attempt: its sessions end before this one does anything.
fn end_older_attempts(session: &mut Session, job: &Job) -> Result<()> {
    let (fence, own) = (literal(&job.fence), literal(&job.session));
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE starts_with(application_name, {fence}) AND application_name <> {own}"
    );
    let late = || Error::Unready("sessions of an older attempt do not end".to_owned());
    until(GONE_WITHIN, late, || Ok(session.query(&sql)? == "0"))
}
