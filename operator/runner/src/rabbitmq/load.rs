//! Definitions into a running node, so that it has those and no others.
//!
//! An import adds, and changes what can be changed: it removes nothing, and leaves a queue or an exchange that is there
//! as it is. What else it takes is done before: what is not wanted, or is wanted otherwise, is removed. A queue is not,
//! where it holds a message or somebody reads from it.

use serde_json::json;

use super::definitions::{Changes, Definitions, Name, told};
use super::dump::{export, wanted};
use super::node::Node;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::store::Whole;
use crate::task::Connect;

/// An expression that counts messages and consumers.
const HELD: &str = include_str!("held.erl");
/// An expression that removes definitions.
const REMOVE: &str = include_str!("remove.erl");

/// A queue, and whether nothing is in it and nobody reads from it.
struct Queue {
    host: String,
    name: String,
    is_idle: bool,
}

/// Loads a dump; what was left although the dump does not have it.
pub(crate) fn load(job: &Job, connect: &Connect, whole: &Whole) -> Result<Vec<String>> {
    let node = Node::reach(job, connect)?;
    let (bytes, wanted) = wanted(whole)?;
    whole.is_untouched()?;
    let left = make(job, &node, &bytes, &wanted)?;
    let told = |name: &Name| {
        format!(
            "{name} of {} is not in the backup, and was left with what leads to it: it holds messages, or is being read from",
            connect.user
        )
    };
    Ok(left.iter().filter(|name| name.queue().is_some()).map(told).collect())
}

/// Makes a node have these definitions and no others; what was left although it is not among them.
pub(super) fn make(job: &Job, node: &Node, bytes: &[u8], wanted: &Definitions) -> Result<Vec<Name>> {
    let (_, live) = export(node)?;
    let changes = live.towards(wanted);
    let in_use: Vec<Queue> = queues(node, &changes)?.into_iter().filter(|queue| !queue.is_idle).collect();
    let is_in_use = |name: &&Name| in_use.iter().any(|queue| name.queue() == Some(queue.named()));
    let stuck: Vec<Name> = changes.otherwise.iter().filter(is_in_use).cloned().collect();
    if !stuck.is_empty() {
        return Err(Error::Barred(format!(
            "nothing was changed: as the backup has it, this has to be made anew, and it holds messages or is being read from: {}",
            told(&stuck)
        )));
    }
    let is_needed = |name: &&Name| in_use.iter().any(|queue| queue.needs(name, &changes.extra));
    let (left, gone): (Vec<&Name>, Vec<&Name>) = changes.extra.iter().partition(is_needed);
    let left: Vec<Name> = left.into_iter().cloned().collect();
    let mut gone: Vec<&Name> = gone.into_iter().chain(&changes.otherwise).collect();
    job.out.progress("definitions", 0, Some(wanted.len()));
    if !gone.is_empty() {
        gone.sort();
        let gone: Vec<_> = gone.into_iter().map(Name::json).collect();
        node.eval(REMOVE, Some(&json!(gone).to_string()))?;
    }
    node.import(bytes)?;
    compared(&export(node)?.1, wanted, &left)?;
    job.out.progress("definitions", wanted.len(), Some(wanted.len()));
    Ok(left)
}

/// The queues that would have to go.
fn queues(node: &Node, changes: &Changes) -> Result<Vec<Queue>> {
    let named = || changes.extra.iter().chain(&changes.otherwise);
    let queues: Vec<_> = named().filter_map(Name::queue).collect();
    let hosts: Vec<_> = changes.extra.iter().filter_map(Name::host).collect();
    if queues.is_empty() && hosts.is_empty() {
        return Ok(Vec::new());
    }
    let told = node.eval(HELD, Some(&json!({ "queues": queues, "vhosts": hosts }).to_string()))?;
    let told: Vec<(String, String, i64, i64)> = serde_json::from_slice(&told).map_err(|error| {
        Error::refused(format!("what the node says of its queues cannot be read: {error}"))
    })?;
    let queue =
        |(host, name, messages, consumers)| Queue { host, name, is_idle: (messages, consumers) == (0, 0) };
    Ok(told.into_iter().map(queue).collect())
}

/// Refuses a node that is not as it is wanted, but for what was left.
fn compared(live: &Definitions, wanted: &Definitions, left: &[Name]) -> Result<()> {
    let lacking = live.lacking(wanted);
    let mut extra = live.towards(wanted).extra;
    extra.retain(|name| !left.contains(name));
    if lacking.is_empty() && extra.is_empty() {
        return Ok(());
    }
    let part = |names: &[Name], what: &str| (!names.is_empty()).then(|| format!("{what}: {}", told(names)));
    let parts = [part(&lacking, "not as in the backup"), part(&extra, "still there")];
    Err(Error::refused(format!(
        "the node did not become what the backup holds ({})",
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    )))
}

// === impl Queue ===

impl Queue {
    fn named(&self) -> (&str, &str) {
        (&self.host, &self.name)
    }

    /// Whether the queue would not be what it is without this, of all that is not in the backup: what is bound to it,
    /// and from where; and the whole virtual host, where that is not in the backup either.
    fn needs(&self, name: &Name, extra: &[Name]) -> bool {
        let leads_here = |binding: &Name| binding.is_bound_to(self.named());
        name.queue() == Some(self.named())
            || leads_here(name)
            || extra.iter().any(|binding| leads_here(binding) && name.is_source_of(binding))
            || (name.is_in(&self.host) && extra.iter().any(|other| other.host() == Some(&self.host)))
    }
}
