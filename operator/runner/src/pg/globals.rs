//! The roles of the cluster beside a dump, as `pg_dumpall --globals-only` writes them, and making those that a server lacks.
//!
//! Invariants: a role that exists is never altered, nor what it is a member of; roles are made all or none, in one
//! transaction; the hash of a password is in the artefact and in the server's catalog, and in no line of the job, no log
//! and no view of the server.

use std::io::Read as _;
use std::process::Stdio;

use super::quote::ident;
use super::server::Admin;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::manifest::Artefact;
use crate::store::{Backup, Draft, Folder, Whole};
use crate::task::{HeldRoles, PgCreateRoles, PgDropRoles, Report};
use crate::tool::Tool;

/// The artefact.
pub(crate) const FILE: &str = "globals.sql";
/// How one ends that is whole.
const END: &str = "-- PostgreSQL database cluster dump complete\n--";
/// Largest one that is read, in bytes.
const LARGEST: u64 = 64 << 20;
/// Before the statements that hold hashes. What is sampled, and whether at all, a server decides when a transaction begins,
/// so these are the session's. Other sessions see no text of it, which they could in `pg_stat_activity` until it ends; nor
/// does `pg_stat_statements` keep it. (`pgaudit` leaves passwords out by itself.)
const QUIETLY: [&str; 10] = [
    "SET track_activities = off",
    "SET log_statement = 'none'",
    "SET log_min_error_statement = 'panic'",
    "SET log_min_duration_statement = -1",
    "SET log_min_duration_sample = -1",
    "SET log_transaction_sample_rate = 0",
    "SET debug_print_parse = off",
    "SET debug_print_rewritten = off",
    "SET debug_print_plan = off",
    "SET pg_stat_statements.track_utility = off",
];

/// Writes the artefact. Who may not read the hashes of passwords leaves them out.
pub(crate) fn dump(admin: &mut Admin<'_>, folder: &Folder) -> Result<(Artefact, HeldRoles)> {
    let may = "SELECT to_json(has_table_privilege('pg_catalog.pg_authid', 'SELECT'))";
    let passwords: bool = admin.session.json(may)?;
    let mut draft = Draft::new(admin.server.job, folder, FILE.to_owned())?;
    let mut command = admin.server.tool("pg_dumpall");
    command
        .args(["--globals-only", "-w", "--quote-all-identifiers", "--encoding=UTF8"])
        .args(["-d", &admin.server.database("postgres")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if !passwords {
        command.arg("--no-role-passwords");
    }
    let mut tool = Tool::start(&mut command)?;
    draft.copy(&mut tool.stdout().expect("standard output was piped"))?;
    tool.finish()?;
    Ok((draft.publish()?, HeldRoles { passwords }))
}

/// Reads one to its end.
pub(crate) fn read_in_full(whole: &Whole) -> Result<()> {
    if text(whole)?.trim_end().ends_with(END) {
        return Ok(());
    }
    Err(Error::refused("the roles of the backup are cut short: their end is missing"))
}

/// The roles of a backup, where it holds any. Reads the artefact in full.
pub(crate) fn of(job: &Job, backup: &Backup) -> Result<Option<Globals>> {
    let Some(artefact) = backup.manifest.artefacts.iter().find(|artefact| artefact.file == FILE) else {
        return Ok(None);
    };
    let whole = backup.folder.whole(artefact, job)?;
    let text = text(&whole)?;
    whole.is_untouched()?;
    Ok(Some(Globals { statements: statements(&text) }))
}

fn text(whole: &Whole) -> Result<String> {
    let mut bytes = Vec::new();
    let read = whole.reader().take(LARGEST).read_to_end(&mut bytes);
    read.map_err(Error::io("cannot read the roles of the backup"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes roles that do not exist.
pub(crate) fn create(job: &Job, task: &PgCreateRoles) -> Result<Report> {
    let PgCreateRoles { connect, stored, roles } = task;
    let backup = Backup::open(job, stored)?;
    let unknown = || Error::refused(format!("backup {} does not tell how roles are made", stored.id));
    let globals = of(job, &backup)?.ok_or_else(unknown)?;
    let mut admin = Admin::open_locked(job, connect, &[])?;
    let exists: Vec<String> = admin.session.json("SELECT json_agg(rolname) FROM pg_roles")?;
    let (there, missing): (Vec<&String>, Vec<&String>) = roles.iter().partition(|role| exists.contains(role));
    let others: Vec<String> = exists.iter().filter(|role| !roles.contains(role)).cloned().collect();
    let Making { statements, left } = globals.making(roles, &others)?;
    match (there.first(), missing.first()) {
        // An earlier attempt did it.
        (_, None) => return Ok(Report::PgCreateRoles { created: Vec::new(), left }),
        (Some(role), _) => {
            return Err(Error::Barred(format!("role `{role}` has been made by somebody else meanwhile")));
        }
        (None, Some(_)) => {}
    }
    for hash in statements.iter().filter_map(|statement| password_in(statement)) {
        job.out.keep_back(hash);
    }
    for setting in QUIETLY {
        admin.session.run(setting)?;
    }
    admin.session.run("BEGIN")?;
    for statement in &statements {
        admin.session.run(statement)?;
    }
    admin.session.run("COMMIT")?;
    Ok(Report::PgCreateRoles { created: roles.clone(), left })
}

/// Drops roles that a restore made. One that is used by now keeps all of them, and is an error.
pub(crate) fn drop_all(job: &Job, task: &PgDropRoles) -> Result<Report> {
    let PgDropRoles { connect, roles } = task;
    let mut admin = Admin::open_locked(job, connect, &[])?;
    let names: Vec<String> = roles.iter().map(|role| ident(role)).collect();
    if !names.is_empty() {
        admin.session.run(&format!("DROP ROLE IF EXISTS {}", names.join(", ")))?;
    }
    Ok(Report::Done)
}

/// Statements that make roles.
pub(crate) struct Globals {
    statements: Vec<String>,
}

/// What making some of them takes.
struct Making {
    /// In order.
    statements: Vec<String>,
    /// Memberships that are not granted, in sentences.
    left: Vec<String>,
}

// === impl Globals ===

impl Globals {
    /// Whether a role can be made from it.
    pub(crate) fn holds(&self, role: &str) -> bool {
        let create = format!("CREATE ROLE {}", ident(role));
        self.statements.contains(&create)
    }

    /// The roles to be made where those `missing` are needed: with them what memberships join to them, as far as it is
    /// missing too. Who logs in by the rights of a group is named nowhere in a database.
    pub(crate) fn to_make(&self, missing: &[String], exists: &[String]) -> Vec<String> {
        let mut made = missing.to_vec();
        let mut at = 0;
        while let Some(role) = made.get(at).cloned() {
            for (of, member, _) in self.memberships() {
                let other = match (of == role, member == role) {
                    (true, _) => member,
                    (false, true) => of,
                    (false, false) => continue,
                };
                if !exists.contains(&other) && !made.contains(&other) && self.holds(&other) {
                    made.push(other);
                }
            }
            at += 1;
        }
        made.sort();
        made
    }

    /// Group, member and options of each membership.
    fn memberships(&self) -> impl Iterator<Item = (String, String, &str)> {
        self.statements.iter().filter_map(|statement| {
            let (of, rest) = quoted(statement.strip_prefix("GRANT ")?)?;
            let (member, options) = quoted(rest.strip_prefix(" TO ")?)?;
            // Whoever granted it may not exist here.
            Some((of, member, options.split(" GRANTED BY ").next().unwrap_or_default()))
        })
    }

    /// What makes `roles` where only `others` exist. Memberships are granted to them alone: what exists is not altered.
    fn making(&self, roles: &[String], others: &[String]) -> Result<Making> {
        if let Some(role) = roles.iter().find(|role| !self.holds(role)) {
            return Err(Error::refused(format!("the backup does not tell how role `{role}` is made")));
        }
        let is_made = |name: &str| roles.iter().any(|role| role == name);
        let is_about_one = |statement: &&String| {
            let verbs = ["CREATE ROLE ", "ALTER ROLE ", "COMMENT ON ROLE "];
            let subject = verbs.into_iter().find_map(|verb| quoted(statement.strip_prefix(verb)?));
            // What a role is told for one database belongs to that one, and comes with it.
            subject.is_some_and(|(name, rest)| is_made(&name) && !rest.starts_with(" IN DATABASE "))
        };
        let mut statements: Vec<String> = self.statements.iter().filter(is_about_one).cloned().collect();
        let mut left = Vec::new();
        for (of, member, options) in self.memberships() {
            let is_known = is_made(&of) || others.contains(&of);
            if is_made(&member) && is_known {
                statements.push(format!("GRANT {} TO {}{options}", ident(&of), ident(&member)));
            } else if is_made(&member) || is_made(&of) {
                left.push(format!("role `{member}` was a member of `{of}` and is not"));
            }
        }
        Ok(Making { statements, left })
    }
}

/// A quoted name at the beginning, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                name.extend(chars.next().map(|(_, c)| c))
            }
            '"' => return Some((name, &text[at + 2..])),
            char => name.push(char),
        }
    }
    None
}

/// Splits a script as `pg_dumpall` writes it (quotes are doubled, also in `E'…'`); comments and psql's own commands are
/// left out.
fn statements(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut statement = String::new();
    let mut quote = None;
    for line in text.split_inclusive('\n') {
        let is_aside = line.starts_with("--") || line.starts_with('\\') || line.trim().is_empty();
        if quote.is_none() && statement.trim().is_empty() && is_aside {
            continue;
        }
        for char in line.chars() {
            match (quote, char) {
                (None, ';') => {
                    found.push(std::mem::take(&mut statement).trim().to_owned());
                    continue;
                }
                (None, '\'' | '"') => quote = Some(char),
                (Some(open), char) if char == open => quote = None,
                _ => {}
            }
            statement.push(char);
        }
    }
    found
}

/// The hash that a statement sets.
fn password_in(statement: &str) -> Option<&str> {
    let (_, rest) = statement.strip_prefix("ALTER ROLE ")?.split_once(" PASSWORD '")?;
    rest.split('\'').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = r#"--
-- PostgreSQL database cluster dump
--

\restrict abc
SET standard_conforming_strings = on;
CREATE ROLE "app";
ALTER ROLE "app" WITH NOSUPERUSER INHERIT NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD 'SCRAM-SHA-256$4096:x;y';
COMMENT ON ROLE "app" IS 'two; lines
-- and a "quote';
CREATE ROLE "odd ""name";
ALTER ROLE "odd ""name" WITH SUPERUSER NOINHERIT;
CREATE ROLE "reader";
CREATE ROLE "alice";
CREATE ROLE "other";
ALTER ROLE "app" SET "search_path" TO 'a', 'b';
ALTER ROLE "app" IN DATABASE "other" SET "work_mem" TO '1MB';
GRANT "odd ""name" TO "app" WITH ADMIN OPTION GRANTED BY "boss";
GRANT "app" TO "reader";
GRANT "app" TO "alice" WITH INHERIT TRUE GRANTED BY "boss";
GRANT "gone" TO "app" GRANTED BY "boss";

--
-- PostgreSQL database cluster dump complete
--
"#;

    fn globals() -> Globals {
        Globals { statements: statements(SCRIPT) }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_is_missing_is_made_and_nothing_that_exists_is_altered() {
        let Making { statements, left } =
            globals().making(&names(&["app"]), &names(&["odd \"name", "reader", "alice"])).unwrap();
        assert_eq!(statements.len(), 5, "{statements:#?}");
        assert_eq!(statements[0], "CREATE ROLE \"app\"");
        assert_eq!(password_in(&statements[1]), Some("SCRAM-SHA-256$4096:x;y"));
        assert_eq!(statements[2], "COMMENT ON ROLE \"app\" IS 'two; lines\n-- and a \"quote'");
        assert_eq!(statements[4], "GRANT \"odd \"\"name\" TO \"app\" WITH ADMIN OPTION");
        assert_eq!(left.len(), 3, "{left:#?}");
        assert!(globals().making(&names(&["nobody"]), &[]).is_err());
    }

    #[test]
    fn what_memberships_join_to_a_missing_role_is_made_with_it() {
        let to_make = |missing: &[&str], exists: &[&str]| globals().to_make(&names(missing), &names(exists));
        assert_eq!(to_make(&["app"], &["odd \"name", "reader"]), ["alice", "app"]);
        assert_eq!(
            to_make(&["alice"], &["app"]),
            ["alice"],
            "others of the group may have been dropped on purpose"
        );
        assert_eq!(to_make(&["odd \"name"], &[]), ["alice", "app", "odd \"name", "reader"]);
    }
}
