//! From a dump to a data directory that the live server starts on.
//!
//! ```text
//! initialise ▶ scratch server ▶ dump ▶ clean end ▶ scratch server without accounts ▶ tables counted and checked,
//! checks of the labels ▶ clean end ▶ hand over
//! ```

use std::io::Seek as _;
use std::process::{Command, Stdio};

use super::checks;
use super::client::{Place, finish};
use super::dump::read_in_full;
use super::server::tables;
use crate::dir::load::{Build, Built};
use crate::dir::side::Replaces;
use crate::error::{Error, Result};
use crate::scratch::{Scratch, Watch, as_owner};
use crate::task::{MysqlSettings, ServerSettings};
use crate::tool::{self, Tool};

/// Names of the programs in the images of MariaDB and of MySQL.
const SERVERS: [&str; 2] = ["mariadbd", "mysqld"];
const INSTALLERS: [&str; 2] = ["mariadb-install-db", "mysql_install_db"];
const CHECKERS: [&str; 2] = ["mariadb-check", "mysqlcheck"];

/// Builds the data directory.
pub(crate) fn build<'a>(build: &'a Build<'a>) -> Result<Built> {
    let Some(ServerSettings::Mysql(settings)) = build.settings() else {
        return Err(Error::refused(
            "it is not known what the live server's data is made with: ask it before, or back it up",
        ));
    };
    read_in_full(build.whole)?;
    initialise(build, settings)?;
    let place = Place::Socket(format!("{}/s", build.side_path()));
    let mut server = start(build, settings, &place, &[])?;
    fill(build, &mut server, &place)?;
    server.end()?;
    let server = start(build, settings, &place, &["--skip-grant-tables"])?;
    let (entries, _) = tables(&place)?;
    let held = build.manifest.contents.as_ref().map(|contents| contents.entries);
    if held.is_some_and(|held| held != entries) {
        let held = held.unwrap_or_default();
        return Err(Error::refused(format!("the dump was of {held} tables, and {entries} were loaded")));
    }
    is_sound(&place)?;
    let checks = checks::all(build.job, &place, build.task.database.as_deref(), &build.task.checks)?;
    server.end()?;
    build.hand_over()?;
    Ok(Built { entries, replaces: Replaces::Everything, checks })
}

/// What a data directory is made with, and has to be opened with ever after.
fn made_with(settings: &MysqlSettings) -> Vec<String> {
    let MysqlSettings { page_size, data_file_path, lower_case_table_names, character_set, collation } =
        settings;
    vec![
        format!("--innodb-page-size={page_size}"),
        format!("--innodb-data-file-path={data_file_path}"),
        format!("--lower-case-table-names={lower_case_table_names}"),
        format!("--character-set-server={character_set}"),
        format!("--collation-server={collation}"),
    ]
}

fn initialise(build: &Build<'_>, settings: &MysqlSettings) -> Result<()> {
    let datadir = format!("--datadir={}", build.new_path());
    let mut command = if let Ok(installer) = tool::first_of(&INSTALLERS) {
        let mut command = Command::new(installer);
        // `rpm`: no file outside of the directory gets another owner.
        command.args([
            "--no-defaults",
            &datadir,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--rpm",
        ]);
        command
    } else {
        let mut command = Command::new(tool::first_of(&SERVERS)?);
        command.args(["--no-defaults", &datadir, "--initialize-insecure"]);
        command
    };
    as_owner(build, &mut command);
    command
        .args(made_with(settings))
        .current_dir(build.side_path())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut tool = Tool::start(&mut command)?;
    watched(build, &mut tool, "initialise", || 0)?;
    tool.finish()
}

/// Starts a server on what is in `new`, and waits until it answers.
fn start<'a>(
    build: &'a Build<'a>,
    settings: &MysqlSettings,
    place: &Place<'_>,
    more: &[&str],
) -> Result<Scratch<'a>> {
    let side = build.side_path();
    let mut command = Command::new(tool::first_of(&SERVERS)?);
    command
        .args([
            "--no-defaults",
            "--skip-networking",
            "--skip-log-bin",
            "--skip-slave-start",
            "--event-scheduler=OFF",
        ])
        .args(["--max-allowed-packet=1G", "--innodb-flush-log-at-trx-commit=0", "--secure-file-priv="])
        .arg(format!("--datadir={}", build.new_path()))
        .arg(format!("--socket={side}/s"))
        .arg(format!("--pid-file={side}/pid"))
        .arg(format!("--log-error={side}/log"))
        .args(made_with(settings))
        .args(more);
    let mut server = Scratch::start(build, command)?;
    server.wait("start", || match place.query(None, "SELECT 1") {
        Ok(_) => Ok(Watch::Over),
        Err(Error::Unready(_)) => Ok(Watch::On),
        Err(error) => Err(error),
    })?;
    Ok(server)
}

/// Lets the client read the very file that was checked.
fn fill(build: &Build<'_>, server: &mut Scratch<'_>, place: &Place<'_>) -> Result<()> {
    let mut file = build.whole.file.try_clone().map_err(Error::io("cannot hand the dump to the client"))?;
    file.rewind().map_err(Error::io("cannot rewind the dump"))?;
    let mut position = file.try_clone().map_err(Error::io("cannot hand the dump to the client"))?;
    let mut command = place.client()?;
    command.arg("--binary-mode").stdin(Stdio::from(file)).stdout(Stdio::null());
    let mut client = Tool::start(&mut command)?;
    // The position is the client's too: it tells how far that is.
    watched(build, &mut client, "load", || position.stream_position().unwrap_or(0))?;
    finish(client)?;
    server.wait("load", || Ok(Watch::Over))
}

/// Waits for a tool's end as long as there is room.
fn watched(build: &Build<'_>, tool: &mut Tool, phase: &str, mut done: impl FnMut() -> u64) -> Result<()> {
    let late = || Error::Unready(format!("{phase} takes longer than a day"));
    crate::stop::until(std::time::Duration::from_secs(86_400), late, || {
        build.root.has_room(0)?;
        build.job.out.progress(phase, done(), Some(build.whole.size));
        tool.has_ended()
    })
}

/// Lets the server read every table and index.
fn is_sound(place: &Place<'_>) -> Result<()> {
    let mut command = place.tool(tool::first_of(&CHECKERS)?);
    command.args(["--all-databases", "--silent"]);
    let said = tool::output_of(&mut command)?;
    if said.is_empty() { Ok(()) } else { Err(Error::refused(format!("a loaded table is not sound: {said}"))) }
}
