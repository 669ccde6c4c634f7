//! What an update writes, what it finds, and what it takes for a red flag; pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::operation::record::{Operation, State, Work};
use crate::operation::restart::{Order, left_alone};
use crate::operation::rollout::{has_lent, is_of, lent, put};
use crate::operation::update::scope::takes_back;
use crate::operation::update::{apply, flags, together};
use crate::policy::{GoBack, Policy, Update as Labels};
use crate::swarm::object::{Service, Task, TaskState};
use crate::swarm::spec;

/// So many exits of one replica within the window are a restart loop.
pub const LOOP: usize = 3;
/// So many where the kernel ended it: the Swarm does not tell whether memory ran out, and one may be an engine's restart.
pub const KILLS: usize = 2;
/// The checks pass so often within the window, at equal distances, the last time at its end.
pub const ROUNDS: u32 = 4;
/// The exit code of what was ended by SIGKILL, as the kernel does where memory runs out.
const KILLED: i64 = 137;

/// A spec and the image that it gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The whole spec that was found.
    pub base: Value,
    /// The new image, as it was asked for.
    pub image: String,
    /// Which task comes first when one is replaced.
    pub order: Order,
    /// Whether data goes back with it: then the Swarm must not take it back by itself, without the data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_data: bool,
}

/// As what a service is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// As it was.
    Base,
    /// With the new image.
    Settled,
    /// With the new image, under the settings that were lent.
    Written,
    /// As it was, under the settings that were lent.
    Returning,
    /// As somebody else wrote it.
    Otherwise,
}

/// Exits of tasks with the new image that were seen, by task: the engine forgets them.
pub type Exits = BTreeMap<String, Exit>;

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The replica: its slot, or the node of a global service.
    pub place: String,
    /// Whether it was killed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub killed: bool,
}

// === impl Change ===

impl Change {
    /// The spec with the new image: one that goes back to the base's update settings when its tasks are new.
    pub fn settled(&self) -> Value {
        let mut spec = self.base.clone();
        spec::set_image(&mut spec, &self.image);
        spec
    }

    /// What is written first.
    pub fn written(&self) -> Value {
        self.lent_to(self.settled())
    }

    /// What is written first on the way back.
    pub fn returning(&self) -> Value {
        self.lent_to(self.base.clone())
    }

    /// Which of these a service is.
    pub fn stands(&self, found: &Value) -> Stands {
        let is = |spec: &Value| {
            spec::same_spec(found, spec) && spec::force_update(found) == spec::force_update(spec)
        };
        match () {
            () if is(&self.base) => Stands::Base,
            () if is(&self.settled()) => Stands::Settled,
            () if is(&self.written()) => Stands::Written,
            () if is(&self.returning()) => Stands::Returning,
            () => Stands::Otherwise,
        }
    }

    /// What is found with the base's own update settings; none where no lent ones stand there.
    pub fn given_back(&self, found: &Value) -> Option<Value> {
        has_lent(found, self.lent().as_ref()).then(|| {
            let mut spec = found.clone();
            put(&mut spec, "UpdateConfig", &self.base["UpdateConfig"]);
            spec
        })
    }

    /// Whether a task runs the new image.
    pub fn is_new(&self, task: &Task) -> bool {
        is_of(task, &self.settled())
    }

    fn lent_to(&self, mut spec: Value) -> Value {
        if let Some(lent) = self.lent() {
            put(&mut spec, "UpdateConfig", &lent);
        }
        spec
    }

    /// The update settings meanwhile; none where its own do.
    fn lent(&self) -> Option<Value> {
        let own = &self.base["UpdateConfig"];
        let mut lent = lent(own, self.order);
        if self.with_data && takes_back(own) {
            lent.get_or_insert_with(|| own.clone())["FailureAction"] = "pause".into();
        }
        lent
    }
}

/// Why a service does not get this image.
pub fn refusals(
    service: &Service,
    policy: Option<&Policy>,
    asleep: &BTreeSet<String>,
    operations: &[Operation],
    image: &str,
    force: bool,
) -> Vec<String> {
    let name = service.name();
    let mut refused = Vec::new();
    if let Some(why) = left_alone(service, policy, asleep) {
        refused.push(format!("{name} {why}"));
    } else if policy.is_some_and(|p| p.update.is_none()) {
        refused.push(format!("labels skep.update.* of {name} have problems; `skep check` tells which"));
    }
    let red_flags = policy.and_then(|p| p.update.as_ref()).map(|update| &update.red_flags);
    refused.extend(red_flags.and_then(|asked| flags::unreadable(service, asked)));
    if image.is_empty() || image.contains(char::is_whitespace) {
        refused.push(format!("`{image}` is no reference of an image"));
    }
    if spec::image(&service.spec) == image {
        refused.push(format!("{name} has image {image} already; `skep restart` replaces its tasks"));
    }
    if let Some(op) = known_bad(operations, &service.id, image).filter(|_| !force) {
        refused.push(format!(
            "{image} did not do in {name} before (operation {}); give it another tag, name its digest, or `--force`",
            op.id
        ));
    }
    refused
}

/// The update that showed that an image does not do for a service, if the last one with that image did.
pub fn known_bad<'a>(operations: &'a [Operation], service_id: &str, image: &str) -> Option<&'a Operation> {
    let is_of_image = |op: &&Operation| together::asked(&op.intent).contains(&(service_id, image));
    let told = |op: &&Operation| is_bad(op) || op.journal.state == State::Succeeded;
    let last = operations.iter().filter(is_of_image).filter(told).max_by(|a, b| a.id.cmp(&b.id));
    last.filter(|op| is_bad(op))
}

/// Whether an update showed that its image does not do.
pub fn is_bad(op: &Operation) -> bool {
    let has_failed = matches!(op.journal.state, State::RolledBack | State::Failed);
    matches!(op.intent.work, Work::Update { .. }) && has_failed && apply::ended(op) != apply::End::Untouched
}

/// Why a service does not go back once the new image has run, if it does not.
pub fn stays(
    service: &Service,
    policy: Option<&Policy>,
    labels: &Labels,
    operations: &[Operation],
) -> Option<String> {
    let before = spec::image(&service.spec);
    if let Some(op) = known_bad(operations, &service.id, before) {
        return Some(format!("{before}, which it had before, did not do either (operation {})", op.id));
    }
    match labels.rollback {
        Some(GoBack::None) => Some("its labels say so (skep.update.rollback=none)".to_owned()),
        Some(GoBack::Image | GoBack::Full) => None,
        None if policy.is_some_and(|p| p.data.is_some()) => Some(
            "it keeps data, which the new image may have changed in a way that the old one does not read; \
             skep.update.rollback=image says that it may go back all the same"
                .to_owned(),
        ),
        None => None,
    }
}

/// Whether a task has run, or may have: then whatever it keeps may be changed.
pub fn has_run(task: &Task) -> bool {
    let is_up = matches!(task.state, TaskState::Starting | TaskState::Running | TaskState::Complete);
    is_up || task.exit_code.is_some()
}

/// A red flag among these tasks with the new image. What ended by itself is noted in `exits`.
pub fn red_flag<'a>(tasks: impl Iterator<Item = &'a Task>, exits: &mut Exits) -> Option<String> {
    let (mut flag, mut limit) = (None, None);
    for task in
        tasks.filter(|t| matches!(t.state, TaskState::Failed | TaskState::Rejected | TaskState::Complete))
    {
        if task.error.contains("unhealthy") {
            flag = Some(format!("a task was not healthy: {}", task.error));
        }
        let place = match task.slot {
            0 => task.node.clone().unwrap_or_default(),
            slot => slot.to_string(),
        };
        limit = limit.or(memory_limit(&task.spec));
        exits.insert(task.id.clone(), Exit { place, killed: task.exit_code == Some(KILLED) });
    }
    let places: BTreeSet<&str> = exits.values().map(|e| e.place.as_str()).collect();
    let of = |place: &str| exits.values().filter(move |e| e.place == place).cloned().collect::<Vec<_>>();
    let looping = places.iter().map(|place| of(place)).find_map(|exits| {
        let kills = exits.iter().filter(|e| e.killed).count();
        match (kills >= KILLS, exits.len() >= LOOP) {
            (true, _) => Some(format!("a replica was killed {kills} times: {}", killed(limit))),
            (false, true) => Some(format!("a replica ended {} times: it is in a restart loop", exits.len())),
            (false, false) => None,
        }
    });
    flag.or(looping)
}

/// What the engine says of a task, with what it leaves out: that memory ran out, as far as anybody can know.
pub fn explained(error: &str, template: &Value) -> String {
    match error.contains(&format!("non-zero exit ({KILLED})")) {
        true => format!("{error}: {}", killed(memory_limit(template))),
        false => error.to_owned(),
    }
}

/// What the exit code of a task that was killed means.
fn killed(limit: Option<u64>) -> String {
    let limit = limit.map(|bytes| format!(", and its limit is {} MiB", bytes.div_ceil(1024 * 1024)));
    format!("exit code {KILLED}, as where memory runs out (OOM){}", limit.unwrap_or_default())
}

fn memory_limit(template: &Value) -> Option<u64> {
    template["Resources"]["Limits"]["MemoryBytes"].as_u64().filter(|bytes| *bytes > 0)
}

/// How often the checks should have passed by now.
pub fn rounds_due(watched_s: u64, window_s: u64) -> u32 {
    let due = watched_s.saturating_mul(ROUNDS.into()).checked_div(window_s).unwrap_or(ROUNDS.into());
    u32::try_from(due).unwrap_or(ROUNDS).min(ROUNDS)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
