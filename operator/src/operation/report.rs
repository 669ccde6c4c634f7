//! Report: the reports of operations that have ended are written into a store. choose · write ↩.
//!
//! ```text
//! what ended, and nobody took on ─▶ choose (journaled) ─▶ one job writes reports/<id>.md and .json, and removes the oldest
//! ```
//! Invariants: no operation waits for its report, and none fails for want of it; which reports were written stands in the journals
//! of the operations that wrote them and nowhere else, so a report is written again where that did not end well; nothing is
//! held.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use skep_runner::task::TextFile;

use super::frozen::Target;
use super::journal::Compensation;
use super::record::{OpId, Operation, State, Work};
use super::saga::{Cx, Fault, Progress, Saga};
use super::settings::Store;
use super::work::{self, Outcome};
use super::{desk, freeze, stores};
use crate::policy;
use crate::swarm::object::{ENABLE, Service};

/// What ends together is written up together.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(30);
/// What ended longer ago was written up then, or never will be.
const OLDEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// So many are written at once …
const MOST: usize = 20;
/// … and not many more bytes than this: the ticket of a job is one object of the Swarm.
const ROOM: usize = 256 * 1024;
/// So many stay in a store, the newest.
const KEPT: usize = 500;

/// The saga.
pub struct Report;

/// Its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Which operations are written up is journaled.
    Choose,
    /// Their reports are in the store.
    Write,
}

const STEPS: [Step; 2] = [Step::Choose, Step::Write];

/// What the first step journals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Chosen {
    #[serde(default)]
    operations: Vec<OpId>,
}

/// An operation, written up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// For people.
    pub markdown: String,
    /// For programs.
    pub json: String,
}

impl super::journal::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Choose => "choose",
            Step::Write => "write",
        }
    }

    fn compensation(self) -> Compensation {
        match self {
            Step::Choose => Compensation::Nothing,
            Step::Write => Compensation::Undo,
        }
    }

    fn touches_live(self) -> bool {
        false
    }
}

impl Saga for Report {
    type Step = Step;

    fn steps(&self) -> &'static [Step] {
        &STEPS
    }

    async fn run(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Choose => choose(cx).await,
            Step::Write => write(cx).await,
        }
    }

    async fn undo(&self, step: Step, cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        match step {
            Step::Choose => Ok(Progress::done()),
            // A report that was written is right, whatever comes after it.
            Step::Write => Ok(work::abandon(cx).await?.map_or_else(Progress::done, Progress::Wait)),
        }
    }

    async fn make_safe(&self, _cx: &mut Cx<'_>) -> Result<Progress, Fault> {
        Ok(Progress::done())
    }
}

/// Operations of which a report is to be written, the oldest first, by the id of the service in whose store it is kept. Pure.
pub fn waiting<'a>(
    operations: &'a [Operation],
    services: &[Service],
    now: Timestamp,
) -> BTreeMap<String, Vec<&'a Operation>> {
    let taken = taken(operations);
    let is_due = |op: &&Operation| {
        let ended = op.journal.ended.unwrap_or(op.intent.created);
        is_wanted(op) && now.duration_since(ended) <= OLDEST && !taken.contains(&op.id)
    };
    let mut waiting = BTreeMap::<String, Vec<&Operation>>::new();
    for op in operations.iter().filter(is_due) {
        if let Some(keeper) = keeper(op, services) {
            waiting.entry(keeper.id.clone()).or_default().push(op);
        }
    }
    for of_store in waiting.values_mut() {
        of_store.sort_by_key(|op| (op.journal.ended, op.id.clone()));
    }
    waiting
}

/// What changed something for users or their data, and what failed; not the parts of another operation, which tells of them.
fn is_wanted(op: &Operation) -> bool {
    let changes = match op.intent.work {
        Work::Restore { .. } | Work::Restart { .. } | Work::Update { .. } | Work::Rollback { .. } => true,
        Work::Report => return false,
        Work::Backup
        | Work::Drill { .. }
        | Work::Maintenance { .. }
        | Work::Expire
        | Work::Verify { .. }
        | Work::Import { .. }
        | Work::Point { .. }
        | Work::Sleep { .. }
        | Work::Wake => false,
    };
    let failed = matches!(op.journal.state, State::Failed | State::RolledBack);
    op.journal.state.is_terminal() && op.part_of().is_none() && (changes || failed)
}

/// Those that another operation has written up, or is about to.
fn taken(operations: &[Operation]) -> BTreeSet<OpId> {
    let is_good = |op: &&Operation| {
        let state = op.journal.state;
        op.intent.work == Work::Report && (!state.is_terminal() || state == State::Succeeded)
    };
    let chosen = operations.iter().filter(is_good).filter_map(|op| op.journal.step("choose"));
    let chosen = chosen.filter_map(|step| serde_json::from_value::<Chosen>(step.out.clone()).ok());
    chosen.flat_map(|chosen| chosen.operations).collect()
}

/// In whose store the report of an operation is kept: its service's, else that of the first service of its stack that has one.
fn keeper<'a>(op: &Operation, services: &'a [Service]) -> Option<&'a Service> {
    let own = services.iter().find(|service| service.id == op.intent.service_id);
    let stack = match op.intent.work.is_of_stack() {
        true => op.intent.service.as_str(),
        false => match own {
            Some(own) if has_store(own) => return Some(own),
            own => own?.stack()?,
        },
    };
    let of_stack = services.iter().filter(|service| service.stack() == Some(stack) && has_store(service));
    of_stack.min_by(|a, b| a.name().cmp(b.name()))
}

fn has_store(service: &Service) -> bool {
    let policy = policy::parse(&service.labels()).policy;
    policy.enabled && policy.backup.is_some()
}

async fn choose(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let operations = desk::list(cx.engine()).await?;
    let services = cx.engine().services(&[(ENABLE, Some("true"))]).await?;
    let mut waiting = waiting(&operations, &services, cx.now());
    let waiting = waiting.remove(&cx.op.intent.service_id).unwrap_or_default();
    let (mut chosen, mut bytes) = (Chosen::default(), 0);
    for op in waiting.into_iter().take(MOST) {
        bytes += files(cx, op).iter().map(|file| file.text.len()).sum::<usize>();
        if bytes > ROOM && !chosen.operations.is_empty() {
            break;
        }
        chosen.operations.push(op.id.clone());
    }
    super::restore::prepare::done(cx, &chosen)
}

async fn write(cx: &mut Cx<'_>) -> Result<Progress, Fault> {
    let chosen: Chosen = cx.out("choose")?;
    let mut written = Vec::new();
    for id in &chosen.operations {
        match desk::find(cx.engine(), id).await {
            Ok(op) => written.extend(files(cx, &op)),
            // It was pruned meanwhile.
            Err(desk::Refusal::Absent(_)) => {}
            Err(desk::Refusal::Swarm(error)) => return Err(error.into()),
            Err(other) => cx.remark(format!("operation {id} cannot be written up: {other}")),
        }
    }
    if written.is_empty() {
        return Ok(Progress::done());
    }
    let target = target(cx).await?;
    match stores::write_reports(cx, &target, written, KEPT, "write").await? {
        Outcome::Wait(wait) => Ok(Progress::Wait(wait)),
        Outcome::Failed(fault) => Err(Fault::failed(format!(
            "the store `{}` did not take the reports: {}",
            target.store, fault.message
        ))),
        Outcome::Done(_) => Ok(Progress::Done(serde_json::json!({ "store": target.store }))),
    }
}

/// Where the store is: on the node of the service, as its backups are.
async fn target(cx: &mut Cx<'_>) -> Result<Target, Fault> {
    let service = freeze::service(cx).await?;
    let policy = policy::parse(&service.labels()).policy;
    let store = policy.backup.and_then(|backup| backup.store);
    let store = store.unwrap_or_else(|| cx.env.settings.default_store.clone());
    let target = Target { store, ..freeze::beside(cx, &service, &[]).await? };
    let is_mounted = !matches!(cx.env.settings.stores.get(&target.store), Some(Store::S3(_)));
    if is_mounted && target.node.is_none() && cx.engine().nodes().await?.len() > 1 {
        return Err(Fault::failed(format!(
            "{} has no running task that would tell on which node its store `{}` is",
            target.name, target.store
        )));
    }
    Ok(target)
}

/// The files of one report. What cannot be written up is told in its place.
fn files(cx: &Cx<'_>, op: &Operation) -> Vec<TextFile> {
    let file = |ending: &str, text: String| TextFile { name: format!("{}.{ending}", op.id), text };
    match (cx.env.reports)(op) {
        Ok(Written { markdown, json }) if json.len() <= ROOM => {
            vec![file("md", markdown), file("json", json)]
        }
        Ok(Written { markdown, .. }) => vec![file("md", markdown)],
        Err(why) => vec![file("md", format!("# {}\n\nThis report cannot be written: {why}", op.title()))],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::testing::{op, service};

    const BEGAN: &str = "2026-03-01T00:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn with_labels(name: &str, labels: &[(&str, &str)]) -> Service {
        let mut service = service(name);
        for (key, value) in [("com.docker.stack.namespace", "shop")].iter().chain(labels) {
            service.spec["Labels"][*key] = json!(value);
        }
        service
    }

    fn shop() -> Vec<Service> {
        let data = [("skep.data", "postgres")];
        vec![
            with_labels("shop_app", &[]),
            with_labels("shop_db", &data),
            with_labels("shop_cache", &[("skep.data", "redis")]),
        ]
    }

    fn restart(whole: bool) -> Work {
        let manner = super::super::record::Manner::Fitting;
        Work::Restart { whole, manner, force: false, flush: Vec::new(), wait_s: None }
    }

    fn wanted(operations: &[Operation]) -> Vec<(String, usize)> {
        let waiting = waiting(operations, &shop(), at("2026-03-01T01:00:00Z"));
        waiting.into_iter().map(|(service, ops)| (service, ops.len())).collect()
    }

    #[test]
    fn a_report_is_kept_in_the_store_of_the_service_or_of_its_stack() {
        let of = |service: &str, work: Work| wanted(&[op(service, work, BEGAN, State::Succeeded)]);
        assert_eq!(of("shop_db", restart(false)), [("shop_db-id".to_owned(), 1)]);
        assert_eq!(of("shop_app", restart(false)), [("shop_cache-id".to_owned(), 1)]);
        let mut whole = op("shop", restart(true), BEGAN, State::Succeeded);
        whole.intent.service_id = super::super::record::of_stack("shop");
        assert_eq!(wanted(&[whole]), [("shop_cache-id".to_owned(), 1)]);
        assert_eq!(of("blog_app", restart(false)), []);
    }

    #[test]
    fn only_what_changed_something_or_failed_is_written_up_and_only_once() {
        assert_eq!(wanted(&[op("shop_db", Work::Backup, BEGAN, State::Succeeded)]), []);
        assert_eq!(wanted(&[op("shop_db", restart(false), BEGAN, State::Running)]), []);
        assert_eq!(wanted(&[op("shop_db", Work::Report, BEGAN, State::Failed)]), []);
        let ended = op("shop_db", Work::Backup, BEGAN, State::Failed);
        assert_eq!(wanted(std::slice::from_ref(&ended)).len(), 1);
        for (state, left) in [(State::Running, 0), (State::Succeeded, 0), (State::Failed, 1)] {
            let mut report = op("shop_db", Work::Report, BEGAN, state);
            report.journal.step_mut("choose", at(BEGAN)).out = json!({ "operations": [ended.id] });
            assert_eq!(wanted(&[ended.clone(), report]).len(), left, "{state:?}");
        }
        let old = op("shop_db", Work::Backup, "2026-02-20T00:00:00Z", State::Failed);
        assert_eq!(wanted(&[old]), []);
    }
}
