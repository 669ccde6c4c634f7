//! Definitions out of a running node, and the reading of such a dump.

use std::io::Read as _;

use super::definitions::Definitions;
use super::node::Node;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::store::{Draft, Folder, Whole};
use crate::task::{Connect, Contents, DirDumped};

/// What people can import by hand.
const FILE: &str = "definitions.json";
/// Largest set of definitions that is read, in bytes: it is held in memory.
const LARGEST: u64 = 256 << 20;
/// An expression that comes to all definitions.
const EXPORT: &str = include_str!("export.erl");

/// Dumps into a directory of the store; what comes back lacks the times.
pub(crate) fn dump(job: &Job, connect: &Connect, folder: &Folder) -> Result<DirDumped> {
    let node = Node::reach(job, connect)?;
    let (bytes, read) = export(&node)?;
    let mut draft = Draft::new(job, folder, FILE.to_owned())?;
    draft.copy(&mut bytes.as_slice())?;
    let artefact = draft.publish()?;
    let contents = Contents {
        size: artefact.size,
        entries: read.len(),
        not_held: vec!["messages: they are in the files of the node, and nowhere else".to_owned()],
        ..Contents::default()
    };
    Ok(DirDumped {
        artefacts: vec![artefact],
        server_version: read.version,
        tool_version: "rabbitmqctl".to_owned(),
        started: String::new(),
        ended: String::new(),
        contents,
    })
}

/// All definitions of a node, as they are and as they read.
pub(super) fn export(node: &Node) -> Result<(Vec<u8>, Definitions)> {
    let bytes = node.eval(EXPORT, None)?;
    let read = Definitions::parse(&bytes)?;
    Ok((bytes, read))
}

/// Reads a dump in full.
pub(crate) fn read(whole: &Whole) -> Result<()> {
    wanted(whole).map(drop)
}

/// A dump, as it is and as it reads.
pub(super) fn wanted(whole: &Whole) -> Result<(Vec<u8>, Definitions)> {
    if whole.size > LARGEST {
        return Err(Error::refused("the definitions are larger than can be read"));
    }
    let mut bytes = Vec::new();
    whole.reader().read_to_end(&mut bytes).map_err(Error::io("cannot read the definitions"))?;
    let read = Definitions::parse(&bytes)?;
    Ok((bytes, read))
}
