//! Verify: reads stored backups back in full and notes in the catalogue how each was found. plan ↩ · read ↩ · release.
//!
//! ```text
//! for each backup: a job reads and hashes it → the catalogue says "verified now" or "spoilt: why" → journal
//! ```
//! Nothing is held and nothing but the catalogue is written, so nobody waits for it; a restore of the service goes
//! first: while one is under way, no job reads, and what was not read to its end is read again afterwards.
//!
//! Invariants: spoilt is only what was read and differs; a store or a node that is away, or a tool that fails, says nothing
//! about a backup, and changes nothing in the catalogue. The operation succeeds only where every backup was found whole.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use skep_runner::task::Verdict;
use tracing::warn;

use super::catalogue::{self, Backup, Entry};
use super::frozen::{self, Frozen, Target};
use super::journal::Compensation;
use super::reading::{self, First, Flaw, Read};
use super::record::{SERVICE, Work};
use super::saga::{Cx, Fault, Progress, Saga, Wait};
use super::{backup, freeze, whereabouts, work};
use crate::swarm::object::Kind;

/// The saga.
pub struct Verify;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Which backups are read is frozen.
    Plan,
    /// Each is read in full, and the catalogue told.
    Read,
    /// The plan is forgotten.
    Release,
}

const STEPS: [Step; 3] = [Step::Plan, Step::Read, Step::Release];
/// So many are read by one operation, the newest first: its journal is one object of the Swarm.
const MOST: usize = 100;

/// How far the step is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Reading {
    /// Tells its jobs apart.
    turn: u32,
    /// Ids of those that were found whole.
    whole: Vec<String>,
    /// Those that are not what was registered.
    spoilt: Vec<Flaw>,
    /// Those that could not be read.
    unread: Vec<Flaw>,
    /// Those that left the catalogue meanwhile.
    gone: Vec<String>,
}

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Plan => "plan",
            Step::Read => "read",
            Step::Release => "release",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Plan | Step::Read => Compensation::Undo,
            Step::Release => Compensation::Nothing,
        }
    }

    fn touches_live(self) -> bool {
        false
    }
}

impl Saga for Verify {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Plan => plan(cx).await,
            Step::Read => read(cx).await,
            Step::Release => backup::release(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Plan => {
                frozen::remove(cx).await?;
                Ok(Progress::done())
            }
            // What was found of a backup stays true.
            Step::Read => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
            Step::Release => Ok(Progress::done()),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }
}

async fn plan(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let Work::Verify { backup: wanted } = cx.op.intent.work.clone() else {
        return Err(Fault::failed("this is not a verification"));
    };
    let name = cx.op.intent.service.clone();
    let configs = cx.engine().configs(Kind::Backup, &[(SERVICE, &name)]).await?;
    let mut all: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
    all.retain(|b| b.removing.is_none() && wanted.as_ref().is_none_or(|id| b.entry.id == *id));
    all.sort_by_key(|b| std::cmp::Reverse(b.entry.taken));
    if all.is_empty() {
        return Err(Fault::failed(match wanted {
            Some(id) => format!("there is no backup `{id}` of {name}"),
            None => format!("there is no backup of {name}"),
        }));
    }
    if all.len() > MOST {
        cx.remark(format!(
            "only the newest {MOST} of {} backups were read; name the others by id",
            all.len()
        ));
        all.truncate(MOST);
    }
    // A store that is not there any more is found when its turn comes: the others are read all the same.
    let store = cx.env.settings.default_store.clone();
    let store = all
        .iter()
        .map(|b| &b.entry.store)
        .find(|s| cx.env.settings.stores.contains_key(*s))
        .cloned()
        .unwrap_or(store);
    let mut frozen = Frozen::of(freeze::reader(cx, &store).await?);
    frozen.candidates = all.into_iter().map(|b| b.entry).collect();
    frozen::store(cx, &frozen).await?;
    Ok(Progress::done())
}

async fn read(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let Frozen { target, candidates, .. } = frozen::load(cx).await?;
    let mut seen: Reading = cx.scratch()?;
    let Some(entry) = candidates.get(seen.count()) else { return end(&seen) };
    match reading::give_way(cx).await? {
        First::Nobody => {}
        First::Ending(wait) => return Ok(Progress::Wait(wait)),
        First::Restore(wait) => {
            if !cx.record().jobs.is_empty() {
                seen.next(cx).await?;
            }
            return Ok(Progress::Wait(wait));
        }
    }
    let verdict = match read_one(cx, &target, entry, seen.turn).await? {
        Read::Wait(wait) => {
            let (nth, of, id) = (seen.count() + 1, candidates.len(), &entry.id);
            let why = format!("backup {id} ({nth} of {of}): {}", wait.why);
            return Ok(Progress::Wait(Wait { why, ..wait }));
        }
        Read::Unread(why) => Err(why),
        Read::Done(verdict) => Ok(verdict),
    };
    seen.take(cx, entry, verdict).await?;
    seen.next(cx).await?;
    Ok(Progress::Wait(Wait { again: Duration::ZERO, ..Wait::new("the next backup") }))
}

async fn read_one(cx: &mut Cx<'_>, target: &Target, entry: &Entry, turn: u32) -> Result<Read, Fault> {
    match whereabouts::where_it_is(cx, target, entry).await? {
        Ok(target) => reading::read_entry(cx, &target, entry, false, turn).await,
        Err(why) => match work::end_all_but(cx, "").await? {
            Some(wait) => Ok(Read::Wait(wait)),
            None => Ok(Read::Unread(why)),
        },
    }
}

fn end(seen: &Reading) -> Result<Progress, Fault> {
    let Reading { whole, spoilt, unread, gone, .. } = seen;
    if spoilt.is_empty() && unread.is_empty() {
        return Ok(Progress::Done(json!({ "whole": whole.len(), "gone": gone.len() })));
    }
    let mut parts = Vec::new();
    if !spoilt.is_empty() {
        parts.push(format!("{} of {} spoilt: {}", spoilt.len(), seen.count(), reading::named(spoilt)));
    }
    if !unread.is_empty() {
        parts.push(format!("{} of {} not read: {}", unread.len(), seen.count(), reading::named(unread)));
    }
    Err(Fault::failed(parts.join("; ")))
}

// === impl Reading ===

impl Reading {
    /// How many backups are done with.
    fn count(&self) -> usize {
        self.whole.len() + self.spoilt.len() + self.unread.len() + self.gone.len()
    }

    /// Tells the catalogue what was found, then counts it. Both may happen twice.
    async fn take(
        &mut self,
        cx: &Cx<'_>,
        entry: &Entry,
        found: Result<Verdict, String>,
    ) -> Result<(), Fault> {
        let id = entry.id.clone();
        let verdict = match found {
            Ok(verdict) => verdict,
            Err(why) => {
                self.unread.push(Flaw { id, why });
                return Ok(());
            }
        };
        match (catalogue::note(cx, entry, &verdict).await?, verdict) {
            (false, _) => self.gone.push(id),
            (true, Verdict::Whole { .. }) => self.whole.push(id),
            (true, Verdict::Spoilt { why }) => {
                warn!(service = entry.service, "backup {id} is spoilt: {why}");
                self.spoilt.push(Flaw { id, why });
            }
        }
        Ok(())
    }

    /// Journals what was found, and forgets the jobs, of which nothing is left.
    async fn next(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.turn += 1;
        cx.record().jobs.clear();
        cx.keep(&*self).await
    }
}
