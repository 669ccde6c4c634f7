//! Reading of stored backups by operations that hold nothing: what a job found of one, and who goes first.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_runner::task::{CommandExamine, DirExamine, Reading, StoreVerify, Stored, Verdict};
use skep_runner::{Report, Task};

use super::catalogue::Entry;
use super::data::unexpected;
use super::frozen::Target;
use super::record::{Operation, SERVICE, Work};
use super::saga::{Cx, Fault, Wait};
use super::stores;
use super::work::{self, Access, Order, Outcome};
use crate::engines::DirectoryEngine;
use crate::policy::Engine;
use crate::swarm::object::Kind;

/// Whoever goes first is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// As many are named in one sentence.
const MOST_NAMED: usize = 5;

/// How far the reading of one backup is.
pub enum Read {
    /// Read; nothing of the job is left.
    Done(Verdict),
    /// It cannot be read; nothing is known about it. Nothing of the job is left.
    Unread(String),
    /// Not yet.
    Wait(Wait),
}

/// Whether somebody goes first.
pub enum First {
    /// Nobody does.
    Nobody,
    /// A restore of the service does, and jobs of this step are still ending.
    Ending(Wait),
    /// A restore of the service does, and nothing of this step runs any more: its jobs have to begin anew.
    Restore(Wait),
}

/// A backup and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaw {
    /// Backup id, or directory.
    pub id: String,
    /// What is wrong, for people.
    pub why: String,
}

async fn read(
    cx: &mut Cx<'_>,
    target: &Target,
    stored: Stored,
    quick: bool,
    turn: u32,
) -> Result<Read, Fault> {
    let task = Task::StoreVerify(StoreVerify { stored, quick });
    let key = format!("r{turn}");
    let order = Order { key: &key, target, task, store: Some(Access::Read), data: false };
    Ok(match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Read::Wait(wait),
        Outcome::Failed(fault) => Read::Unread(fault.message),
        Outcome::Done(report) => match *report {
            Report::StoreVerify(verdict) => Read::Done(verdict),
            other => return Err(unexpected(&other)),
        },
    })
}

/// Moves the reading of one backup on, where it is. `turn` tells the jobs of a step apart; `quick` leaves the engine's own
/// reading out. What only Skep's own image can read is compared with its
/// checksums and not decoded, so that no identity is needed: it is bit for bit what was written, which was read in full
/// before it was encoded.
///
/// # Errors
/// What the engine says.
pub async fn read_entry(
    cx: &mut Cx<'_>,
    target: &Target,
    entry: &Entry,
    quick: bool,
    turn: u32,
) -> Result<Read, Fault> {
    if stores::is_direct(&cx.env.settings, entry) {
        let read = read(cx, target, entry.stored(), quick, turn).await?;
        return match (read, examination(entry).filter(|_| !quick)) {
            (Read::Done(Verdict::Whole { size }), Some(task)) => examine(cx, target, task, size, turn).await,
            (read, _) => Ok(read),
        };
    }
    Ok(match stores::check(cx, target, entry, &format!("r{turn}")).await? {
        Outcome::Wait(wait) => Read::Wait(wait),
        Outcome::Failed(fault) => Read::Unread(fault.message),
        Outcome::Done(report) => Read::Done(stores::checked(*report)?),
    })
}

/// What reads a backup as its engine does; none where its checksums were compared along with that, or where nobody but
/// the service's own commands can.
fn examination(entry: &Entry) -> Option<Task> {
    let stored = entry.stored();
    if let Some(engine) = DirectoryEngine::of(&entry.engine) {
        return Some(Task::DirExamine(DirExamine { engine: engine.runner(), stored }));
    }
    let engine = entry.engine.clone();
    let readings = [(Engine::Rabbitmq, Reading::Rabbitmq), (Engine::Mongodb, Reading::Mongodb)];
    let reading =
        readings.into_iter().find_map(|(of, reading)| (engine == of.as_str()).then_some(reading))?;
    Some(Task::CommandExamine(CommandExamine { reading, engine, stored }))
}

/// Reads a backup whose checksums are right as its engine does. What that does not take may be a tool's fault, so it spoils
/// nothing; nobody believes in the backup either.
async fn examine(cx: &mut Cx<'_>, target: &Target, task: Task, size: u64, turn: u32) -> Result<Read, Fault> {
    let key = format!("x{turn}");
    let order = Order { key: &key, target, task, store: Some(Access::Read), data: false };
    Ok(match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Read::Wait(wait),
        Outcome::Failed(fault) => Read::Unread(fault.message),
        Outcome::Done(report) => match *report {
            Report::DirExamine { .. } => Read::Done(Verdict::Whole { size }),
            other => return Err(unexpected(&other)),
        },
    })
}

/// A restore of the service goes first, and of two imports the one that was asked for first: meanwhile the jobs of this step
/// are ended.
///
/// # Errors
/// What the engine says.
pub async fn give_way(cx: &mut Cx<'_>) -> Result<First, Fault> {
    let service = cx.op.intent.service.clone();
    let operations = cx.engine().configs(Kind::Operation, &[(SERVICE, &service)]).await?;
    let imports = matches!(cx.op.intent.work, Work::Import { .. });
    let goes_first = |op: &Operation| match op.intent.work {
        Work::Restore { .. } => true,
        Work::Import { .. } => imports && op.id < cx.op.id,
        Work::Backup
        | Work::Drill { .. }
        | Work::Maintenance { .. }
        | Work::Expire
        | Work::Report
        | Work::Verify { .. }
        | Work::Point { .. }
        | Work::Sleep { .. }
        | Work::Wake
        | Work::Restart { .. }
        | Work::Update { .. }
        | Work::Rollback { .. } => false,
    };
    let mut open = operations.iter().filter_map(|c| Operation::read(c).ok()).filter(goes_first);
    let Some(first) = open.find(|op| op.journal.state.is_live()) else { return Ok(First::Nobody) };
    if let Some(wait) = work::abandon(cx).await? {
        return Ok(First::Ending(wait));
    }
    let why = format!("{} ({}) goes first", first.id, first.title());
    Ok(First::Restore(Wait { again: LOOK_AGAIN, ..Wait::new(why) }))
}

/// `a (why), b (why) and 3 more`
pub fn named(flaws: &[Flaw]) -> String {
    let mut parts: Vec<String> =
        flaws.iter().take(MOST_NAMED).map(|f| format!("{} ({})", f.id, f.why)).collect();
    if flaws.len() > MOST_NAMED {
        parts.push(format!("and {} more", flaws.len() - MOST_NAMED));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_flaws_is_cut() {
        let flaw = |i: u32| Flaw { id: format!("b{i}"), why: "gone".to_owned() };
        let flaws: Vec<Flaw> = (0..7).map(flaw).collect();
        assert_eq!(named(&flaws[..1]), "b0 (gone)");
        assert_eq!(named(&flaws), "b0 (gone), b1 (gone), b2 (gone), b3 (gone), b4 (gone), and 2 more");
    }
}
