//! An archive out of a running server, and the reading of one.

use std::io::{BufReader, Read, Write as _};
use std::process::Stdio;

use super::archive::{self, Archive};
use super::server::{self, Server};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::store::{Draft, Folder, Whole};
use crate::task::{Connect, Contents, DirDumped};
use crate::tool::Tool;

/// What people can restore by hand.
const FILE: &str = "mongodb.archive";

/// What a tool prints, on its way into the artefact.
struct Tee<'a, 'b, R> {
    from: R,
    draft: &'a mut Draft<'b>,
}

/// Dumps into a directory of the store; what comes back lacks the times.
///
/// Of a member of a replica set what is written meanwhile is dumped as well. Where that cannot be had (the oplog has gone
/// round, a collection gets another name) a backup without it is better than none, and says so.
pub(crate) fn dump(job: &Job, connect: &Connect, folder: &Folder) -> Result<DirDumped> {
    let server = Server::reach(job, connect)?;
    if !server.is_member()? {
        return dump_by(job, &server, folder, &[], "the server is no member of a replica set");
    }
    match dump_by(job, &server, folder, &["--oplog"], "") {
        Err(Error::Tool { said, .. }) if said.contains("oplog") => {
            folder.remove(&Draft::part(job, FILE))?;
            let why = format!("what was written meanwhile could not be had ({said})");
            dump_by(job, &server, folder, &[], &why)
        }
        done => done,
    }
}

/// Dumps with more options; `why` it is not of one moment, where it is not.
fn dump_by(job: &Job, server: &Server, folder: &Folder, options: &[&str], why: &str) -> Result<DirDumped> {
    let mut draft = Draft::new(job, folder, FILE.to_owned())?;
    let mut command = server.tool("mongodump")?;
    command.arg("--archive").args(options);
    let mut tool = Tool::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let from = tool.stdout().expect("standard output was piped");
    let mut tee = BufReader::new(Tee { from, draft: &mut draft });
    let read = archive::read(&mut tee);
    // What the tool says tells more than that its archive is none.
    let drained = std::io::copy(&mut tee, &mut std::io::sink());
    drop(tee);
    tool.finish().map_err(server::told)?;
    drained.map_err(Error::io("cannot keep what mongodump prints"))?;
    let Archive { server_version, tool_version, collections, changes, .. } = read?;
    let artefact = draft.publish()?;
    let not_held = match changes {
        Some(_) => Vec::new(),
        None => vec![format!("one moment: each collection is as it was when its turn came; {why}")],
    };
    let entries = collections.values().sum();
    let contents = Contents { size: artefact.size, entries, not_held, ..Contents::default() };
    Ok(DirDumped {
        artefacts: vec![artefact],
        server_version,
        tool_version: format!("mongodump {tool_version}"),
        started: String::new(),
        ended: String::new(),
        contents,
    })
}

/// Reads an archive in full.
pub(crate) fn read(job: &Job, whole: &Whole) -> Result<()> {
    job.out.progress("read", 0, Some(whole.size));
    held(whole).map(drop)
}

/// What an archive holds, once it was read in full.
pub(super) fn held(whole: &Whole) -> Result<Archive> {
    let held = archive::read(BufReader::new(whole.reader()))?;
    whole.is_untouched()?;
    Ok(held)
}

impl<R: Read> Read for Tee<'_, '_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(into)?;
        self.draft.write_all(&into[..read])?;
        Ok(read)
    }
}
