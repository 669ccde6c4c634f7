//! Whether the tasks of a service are those of its spec, and up: what whoever writes a spec waits for; and the update settings
//! that are lent to it meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use super::restart::Order;
use super::saga::{Cx, Fault};
use crate::swarm::object::{Service, Task, TaskState};
use crate::swarm::spec;

/// How long a service may take to come up, one task after the other.
pub fn patience(cx: &Cx<'_>, service: &Service) -> Duration {
    let tasks = u32::try_from(service.replicas().unwrap_or(1).max(1)).unwrap_or(u32::MAX);
    cx.env.settings.start_deadline.saturating_mul(tasks)
}

/// How many tasks run what the spec says.
pub struct Up {
    /// Tasks of the spec that run, or have done their work.
    pub running: usize,
    /// How many there should be.
    pub wanted: usize,
    /// Whether every task that is meant to run does, and is one of this spec.
    pub settled: bool,
    /// What the engine says of a task that does not run.
    pub error: String,
}

// === impl Up ===

impl Up {
    /// How many run, for people.
    pub fn said(&self) -> String {
        format!("{} of {} task(s) running", self.running, self.wanted)
    }
}

/// Looks at the tasks of a service.
///
/// # Errors
/// What the engine says.
pub async fn up(cx: &Cx<'_>, service: &Service) -> Result<Up, Fault> {
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let (own, old): (Vec<&Task>, Vec<&Task>) = tasks.iter().partition(|t| is_of(t, &service.spec));
    let meant = |t: &&&Task| t.desired == TaskState::Running;
    let is_up = |t: &&&Task| is_up(t, &service.spec);
    let running = own.iter().filter(is_up).count();
    let coming = own.iter().filter(meant).filter(|t| t.state != TaskState::Running).count();
    let stale = old.iter().filter(meant).filter(|t| !t.state.is_terminal()).count();
    let wanted = match service.replicas() {
        Some(replicas) => usize::try_from(replicas).unwrap_or(usize::MAX),
        None => own.iter().filter(meant).count(),
    };
    let enough = running >= wanted && stale == 0 && (service.replicas().is_some() || coming == 0);
    Ok(Up { running, wanted, settled: service.is_job() || enough, error: reason(&own, &old) })
}

/// Whether a task runs. One that has done its work and is not started again is as good as one that does.
fn is_up(task: &Task, spec: &Value) -> bool {
    match task.state {
        TaskState::Running => task.desired == TaskState::Running,
        TaskState::Complete => {
            matches!(spec::template(spec)["RestartPolicy"]["Condition"].as_str(), Some("none" | "on-failure"))
        }
        _ => false,
    }
}

/// What the engine said last of a task of this spec; of an older one only where there is none yet.
fn reason(own: &[&Task], old: &[&Task]) -> String {
    let last = |tasks: &[&Task]| {
        let said = tasks.iter().filter(|t| !t.error.is_empty()).max_by_key(|t| t.changed);
        said.map(|t| t.error.clone())
    };
    // Also one that was stopped because it is not healthy: the engine says nothing of it.
    let ended = || {
        let is_so = own.iter().any(|t| t.state == TaskState::Complete);
        is_so.then(|| "a task ended, with exit code 0".to_owned())
    };
    let old = || last(old).filter(|_| own.is_empty());
    last(own).or_else(ended).or_else(old).unwrap_or_else(|| "no reason is known".to_owned())
}

/// Whether a task was made from this spec of its service.
pub fn is_of(task: &Task, spec: &Value) -> bool {
    let own = json!({ "TaskTemplate": spec::template(spec) });
    let task = json!({ "TaskTemplate": task.spec });
    spec::same_template(&task, &own) && spec::force_update(&task) == spec::force_update(&own)
}

/// The update settings under which tasks are replaced in this order; none where a service's own do.
pub fn lent(own: &Value, order: Order) -> Option<Value> {
    let is_default = own["Order"].as_str().is_none_or(str::is_empty) && order == Order::StopFirst;
    if is_default || own["Order"] == order.as_str() {
        return None;
    }
    let mut lent = match own.is_object() {
        true => own.clone(),
        false => json!({
            "Parallelism": 1,
            "FailureAction": "pause",
            "Monitor": 5_000_000_000_u64,
            "MaxFailureRatio": 0,
        }),
    };
    lent["Order"] = order.as_str().into();
    Some(lent)
}

/// Whether settings that were lent still stand in a spec.
pub fn has_lent(spec: &Value, lent: Option<&Value>) -> bool {
    let lent = lent.and_then(Value::as_object);
    lent.is_some_and(|lent| lent.iter().all(|(key, value)| same(&spec["UpdateConfig"][key], value)))
}

/// The engine may answer 0 for 0.0, or nothing.
fn same(found: &Value, wrote: &Value) -> bool {
    let is_zero = |v: &Value| v.is_null() || v.as_f64() == Some(0.0);
    found == wrote || is_zero(found) && is_zero(wrote)
}

/// Sets a member of an object, or takes it away where the value is null.
pub fn put(object: &mut Value, key: &str, value: &Value) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Value::Null => map.remove(key),
        value => map.insert(key.to_owned(), value.clone()),
    };
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn task(second: i64, error: &str) -> Task {
        Task {
            id: String::new(),
            service: "s".to_owned(),
            node: None,
            slot: 1,
            state: TaskState::Failed,
            desired: TaskState::Shutdown,
            error: error.to_owned(),
            exit_code: None,
            image: String::new(),
            spec_version: None,
            spec: Value::Null,
            addresses: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
            changed: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn why_a_service_is_not_up_is_what_its_newest_task_died_of_and_not_how_an_older_one_was_shut_down() {
        let [first, last, quiet] = [task(2, "exit (1)"), task(3, "exit (2)"), task(4, "")];
        let old = task(9, "network sandbox does not exist");
        assert_eq!(reason(&[&last, &first, &quiet], &[&old]), "exit (2)");
        assert_eq!(reason(&[&quiet], &[&old]), "no reason is known");
        let ended = Task { state: TaskState::Complete, ..quiet };
        assert_eq!(reason(&[&ended], &[&old]), "a task ended, with exit code 0");
        assert_eq!(reason(&[], &[&old]), "network sandbox does not exist");
    }

    #[test]
    fn a_task_that_ended_is_up_only_where_it_is_not_started_again() {
        let of = |policy: Value| json!({ "TaskTemplate": { "RestartPolicy": policy } });
        let done = Task { state: TaskState::Complete, ..task(1, "") };
        assert!(is_up(&done, &of(json!({ "Condition": "on-failure" }))));
        assert!(is_up(&done, &of(json!({ "Condition": "none" }))));
        assert!(!is_up(&done, &of(json!({ "Condition": "any" }))));
        assert!(!is_up(&done, &json!({ "TaskTemplate": {} })), "it is started again where nothing is said");
        let runs = Task { state: TaskState::Running, desired: TaskState::Running, ..task(1, "") };
        assert!(is_up(&runs, &json!({})));
        assert!(!is_up(&Task { desired: TaskState::Shutdown, ..runs }, &json!({})));
    }
}
