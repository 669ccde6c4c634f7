//! Whose node has the files of a backup, and how a job has to be placed to read them.
//!
//! Invariants: a backup is looked for in the store, and on the node, that it was registered with, whatever the labels of
//! its service say today; what cannot be read from where a job has to run is not read at all, rather than looked for where
//! it is not and taken for lost.

use super::catalogue::Entry;
use super::frozen::Target;
use super::saga::{Cx, Fault};
use super::settings::Settings;

/// Who has the files of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// As far as is known, whichever node runs the job.
    Any,
    /// This one.
    Node(String),
    /// One that takes no jobs now; for people.
    Away(String),
    /// One that was removed from the Swarm, and its files with it; for people.
    Gone(String),
}

/// The one node that has the files of a backup, where its store is one of each node's own.
fn only_node<'a>(settings: &Settings, entry: &'a Entry) -> Option<&'a str> {
    let store = settings.stores.get(&entry.store)?;
    entry.node.as_deref().filter(|_| store.is_of_each_node())
}

/// Why a store that is named in the catalogue cannot be used.
pub fn unknown(store: &str) -> String {
    format!("there is no store `{store}` any more; name it in SKEP_STORES again to use what it holds")
}

/// Who has the files of a backup now.
///
/// # Errors
/// What the engine says.
pub async fn holder(cx: &Cx<'_>, entry: &Entry) -> Result<Holder, Fault> {
    let Some(id) = only_node(&cx.env.settings, entry) else { return Ok(Holder::Any) };
    let nodes = cx.engine().nodes().await?;
    Ok(match nodes.into_iter().find(|n| n.id == *id) {
        Some(node) if node.ready && node.active => Holder::Node(node.id),
        Some(node) => Holder::Away(format!("node {}, which has its files, takes no jobs now", node.hostname)),
        None => Holder::Gone(format!("its files were on node {id}, which is in the Swarm no more")),
    })
}

/// The target as a job sees it that only reads a backup: in the backup's store, on the node that has it. Otherwise why
/// nobody can read it now.
///
/// # Errors
/// What the engine says.
pub async fn where_it_is(
    cx: &Cx<'_>,
    target: &Target,
    entry: &Entry,
) -> Result<Result<Target, String>, Fault> {
    if !cx.env.settings.stores.contains_key(&entry.store) {
        return Ok(Err(unknown(&entry.store)));
    }
    let node = match holder(cx, entry).await? {
        Holder::Any => target.node.clone(),
        Holder::Node(node) => Some(node),
        Holder::Away(why) | Holder::Gone(why) => return Ok(Err(why)),
    };
    Ok(Ok(Target { store: entry.store.clone(), node, ..target.clone() }))
}

/// The target as a job sees it that reads a backup and works where the live data is. Otherwise why it cannot, and what
/// people can do about it.
///
/// # Errors
/// What the engine says.
pub async fn beside_data(
    cx: &Cx<'_>,
    target: &Target,
    entry: &Entry,
) -> Result<Result<Target, String>, Fault> {
    if !cx.env.settings.stores.contains_key(&entry.store) {
        return Ok(Err(unknown(&entry.store)));
    }
    let elsewhere = only_node(&cx.env.settings, entry).filter(|node| target.node.as_deref() != Some(node));
    let Some(id) = elsewhere else { return Ok(Ok(Target { store: entry.store.clone(), ..target.clone() })) };
    let nodes = cx.engine().nodes().await?;
    let named = |id: &str| nodes.iter().find(|n| n.id == id).map_or(id, |n| n.hostname.as_str()).to_owned();
    let here =
        target.node.as_deref().map_or_else(|| "elsewhere".to_owned(), |id| format!("on {}", named(id)));
    if nodes.iter().all(|n| n.id != id) {
        return Ok(Err(format!("its files were on node {id}, which is in the Swarm no more")));
    }
    Ok(Err(format!(
        "its files are on node {0}, whose own volume the store `{1}` is there, and the data is {here}: put the service \
         back on {0} to restore it (a store that all nodes share needs no such thing)",
        named(id),
        entry.store
    )))
}

/// Backups of one store, and the target as a job sees it that reads them there.
pub struct Shelf<'a> {
    /// Where they are.
    pub target: Target,
    /// The backups.
    pub entries: Vec<&'a Entry>,
}
