//! An archive into a running server, so that its databases hold that and nothing else.
//!
//! `mongorestore --drop` puts each collection of the archive in place of the live one, and leaves those that the archive
//! does not have: they are dropped afterwards, by the shell. Then all is counted, and only then the oplog replayed, where there
//! is one: what it changes nobody can count.

use std::io::{BufReader, BufWriter, Write as _};
use std::process::Stdio;

use super::archive::{self, Archive, BUCKETS};
use super::dump::held;
use super::server::{self, Count, Kept, Live, Server};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::store::Whole;
use crate::task::Connect;
use crate::tool::Tool;

/// What a load leaves alone: accounts and roles, and what a server keeps for itself.
const LEFT_ALONE: [&str; 2] = ["admin", "config"];
/// Most differences that a message names.
const TOLD: usize = 5;

/// Loads an archive.
pub(crate) fn load(job: &Job, connect: &Connect, whole: &Whole) -> Result<Vec<String>> {
    let server = Server::reach(job, connect)?;
    let archive = held(whole)?;
    // Before anything is touched: there is a shell, it may log in, and this server is new enough.
    let live = server.holds_and_may()?;
    fits(&archive, &live)?;
    into(job, &server, &archive, whole)?;
    match archive.changes {
        None | Some(0) => Ok(Vec::new()),
        Some(_) if live.replays => replay(job, &server, whole).map(|()| Vec::new()),
        Some(changes) => Ok(vec![format!(
            "{changes} changes that were made while it was dumped were not replayed: its login may not (`anyAction` on \
             `anyResource`); each collection is as it was when its turn came"
        )]),
    }
}

/// Replays what was written to the server while it was dumped: all of it is then as it was at one moment. It is handed
/// over alone, since `mongorestore` replays nothing where it is to leave something out.
pub(super) fn replay(job: &Job, server: &Server, whole: &Whole) -> Result<()> {
    job.out.progress("replay", 0, None);
    let mut command = server.tool("mongorestore")?;
    command.args(["--archive", "--oplogReplay", "--stopOnError"]);
    let mut tool = Tool::start(command.stdin(Stdio::piped()).stdout(Stdio::null()))?;
    let mut to = BufWriter::new(tool.stdin().expect("standard input was piped"));
    let cannot = Error::io("cannot hand the oplog over");
    let handed = archive::changes_alone(BufReader::new(whole.reader()), &mut to)
        .and_then(|()| to.flush().map_err(cannot));
    drop(to);
    // What the tool says tells more than that it took no more.
    tool.finish().map_err(server::told)?;
    handed?;
    whole.is_untouched()
}

/// Loads an archive that was read in full into a server that it fits, and compares.
pub(super) fn into(job: &Job, server: &Server, archive: &Archive, whole: &Whole) -> Result<()> {
    let mut command = server.tool("mongorestore")?;
    command.args(["--archive", "--drop", "--stopOnError"]);
    for database in LEFT_ALONE {
        command.arg(format!("--nsExclude={database}.*"));
    }
    Tool::feed(job, "restore", &mut command, whole).map_err(server::told)?;
    whole.is_untouched()?;
    compared(archive, &server.drop_all_but(&kept(archive))?)
}

/// The name under which a load brings a collection of an archive, if it does.
pub(super) fn loaded<'a>(database: &str, collection: &'a str) -> Option<&'a str> {
    let name = collection.strip_prefix(BUCKETS).unwrap_or(collection);
    (!LEFT_ALONE.contains(&database) && !name.starts_with("system.")).then_some(name)
}

/// The collections of an archive that a load brings, by database.
fn kept(archive: &Archive) -> Kept {
    let mut kept = Kept::new();
    for (database, collection) in archive.collections.keys() {
        if let Some(name) = loaded(database, collection) {
            kept.entry(database.clone()).or_default().insert(name.to_owned());
        }
    }
    kept
}

/// Whether a server may take an archive.
pub(super) fn fits(archive: &Archive, live: &Live) -> Result<()> {
    let version = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    };
    match (version(&archive.server_version), version(&live.version)) {
        (Some(dumped), Some(found)) if dumped > found => Err(Error::Barred(format!(
            "it is of MongoDB {}, the server is {}",
            archive.server_version, live.version
        ))),
        _ => Ok(()),
    }
}

/// Refuses a server that does not hold what the archive does, document by count.
fn compared(archive: &Archive, live: &Live) -> Result<()> {
    let kept = kept(archive);
    let mut wrong = Vec::new();
    for (database, names) in &kept {
        for name in names {
            let found = live.collections.get(&(database.clone(), name.clone()));
            let wanted = archive.collections.get(&(database.clone(), name.clone()));
            match (found, wanted) {
                (None, _) => wrong.push(format!("{database}.{name} is missing")),
                (Some(Count::Of(found)), Some(wanted)) if found != wanted => {
                    wrong.push(format!("{database}.{name} has {found} documents instead of {wanted}"));
                }
                (Some(Count::Fading(found)), Some(wanted)) if found > wanted => {
                    wrong.push(format!("{database}.{name} has {found} documents, more than {wanted}"));
                }
                _ => {}
            }
        }
    }
    let is_kept =
        |(database, name): &&(String, String)| kept.get(database).is_some_and(|names| names.contains(name));
    let extra = live.collections.keys().filter(|of| !is_kept(of));
    wrong.extend(extra.map(|(database, name)| format!("{database}.{name} is still there")));
    if wrong.is_empty() {
        return Ok(());
    }
    let more = wrong.len().saturating_sub(TOLD);
    wrong.truncate(TOLD);
    if more > 0 {
        wrong.push(format!("{more} more"));
    }
    Err(Error::refused(format!("the server did not become what the backup holds: {}", wrong.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(version: &str, counts: &[(&str, &str, u64)]) -> Archive {
        let collections =
            counts.iter().map(|(db, name, count)| (((*db).into(), (*name).into()), *count)).collect();
        Archive { server_version: version.into(), collections, ..Archive::default() }
    }

    fn live(counts: &[(&str, &str, Count)]) -> Live {
        let collections =
            counts.iter().map(|(db, name, count)| (((*db).into(), (*name).into()), *count)).collect();
        Live { version: "6.0.5".into(), collections, ..Live::default() }
    }

    #[test]
    fn every_document_counts_and_views_and_measurements_have_to_be_there() {
        let archive = archive(
            "6.0.1",
            &[
                ("shop", "orders", 3),
                ("shop", "recent", 0),
                ("shop", "system.buckets.heat", 2),
                ("shop", "system.views", 1),
                ("admin", "system.users", 1),
            ],
        );
        let whole =
            [("shop", "orders", Count::Of(3)), ("shop", "recent", Count::Not), ("shop", "heat", Count::Not)];
        compared(&archive, &live(&whole)).unwrap();
        let why = |found: &[(&str, &str, Count)]| compared(&archive, &live(found)).unwrap_err().chain();
        assert!(why(&whole[..2]).contains("shop.heat is missing"));
        assert!(
            why(&[("shop", "orders", Count::Of(2)), whole[1], whole[2]])
                .contains("shop.orders has 2 documents instead of 3")
        );
        assert!(
            why(&[&whole[..], &[("more", "x", Count::Of(1))]].concat()).contains("more.x is still there")
        );
        // What has expired since the backup goes as soon as its index is there.
        compared(&archive, &live(&[("shop", "orders", Count::Fading(1)), whole[1], whole[2]])).unwrap();
        assert!(why(&[("shop", "orders", Count::Fading(4)), whole[1], whole[2]]).contains("more than 3"));
    }

    #[test]
    fn an_older_server_takes_no_archive_of_a_newer_one() {
        let live = live(&[]);
        assert!(fits(&archive("6.0.9", &[]), &live).is_ok() && fits(&archive("4.4.1", &[]), &live).is_ok());
        assert!(matches!(fits(&archive("7.0.0", &[]), &live), Err(Error::Barred(_))));
    }
}
