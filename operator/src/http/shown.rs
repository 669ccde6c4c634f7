//! A view as the templates show it: grouped, with tones, marks and positions. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::view::{Condition, OperationView, Progress, ServiceView, StepView, View, between};
use crate::operation::record::State;

/// Most ended operations on the overview.
const HISTORY: usize = 40;

/// How something looks; the style sheet has a class for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tone {
    Good,
    Busy,
    Ask,
    Bad,
    Idle,
}

/// The overview.
#[derive(Serialize)]
pub(super) struct Overview<'a> {
    /// Operations that wait for a person or need one.
    asked: Vec<ShownOperation<'a>>,
    /// Services whose circuit is open.
    circuits: Vec<Circuit<'a>>,
    /// Operations that run or are queued.
    live: Vec<ShownOperation<'a>>,
    /// Operations that ended.
    ended: Vec<ShownOperation<'a>>,
    /// Operations that ended and are not shown.
    older: usize,
    services: Vec<ShownService<'a>>,
    tiles: Vec<Tile>,
}

#[derive(Serialize)]
struct Circuit<'a> {
    service: &'a str,
    since: Timestamp,
    why: &'a str,
}

/// One number at the top.
#[derive(Serialize)]
struct Tile {
    name: &'static str,
    value: String,
    note: String,
    tone: Tone,
}

#[derive(Serialize)]
struct ShownService<'a> {
    #[serde(flatten)]
    service: &'a ServiceView,
    condition_text: &'static str,
    tone: Tone,
    /// Whether the newest backup is older than the schedule allows.
    overdue: bool,
    never_backed_up: bool,
    blocked: bool,
}

/// One operation.
#[derive(Serialize)]
pub(super) struct ShownOperation<'a> {
    #[serde(flatten)]
    operation: &'a OperationView,
    title: String,
    state_text: &'static str,
    tone: Tone,
    percent: u8,
    /// Seconds so far, or in all.
    seconds: Option<f64>,
    shown_steps: Vec<ShownStep<'a>>,
    /// Steps that will not run.
    skipped: usize,
    /// Whether a share of the whole says something; a maintenance takes as long as people want.
    measured: bool,
    live: bool,
    awaits: bool,
    can_cancel: bool,
    overdue: bool,
    /// The step at work, or the one that failed.
    current: Option<&'a StepView>,
}

#[derive(Serialize)]
struct ShownStep<'a> {
    #[serde(flatten)]
    step: &'a StepView,
    tone: Tone,
    mark: &'static str,
    state_text: &'static str,
    seconds: Option<f64>,
    /// Where its bar begins and how long it is, in thousandths of the operation's time.
    x: u32,
    width: u32,
}

// === impl Overview ===

impl<'a> Overview<'a> {
    pub(super) fn of(view: &'a View, now: Timestamp) -> Overview<'a> {
        let (mut asked, mut live, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for operation in &view.operations {
            let group = match operation.state {
                State::AwaitingApproval | State::Stuck => &mut asked,
                State::Pending | State::Running => &mut live,
                State::Succeeded | State::RolledBack | State::Failed | State::Cancelled => &mut ended,
            };
            group.push(ShownOperation::of(operation, now));
        }
        let older = ended.len().saturating_sub(HISTORY);
        ended.truncate(HISTORY);
        let circuits = view.services.iter().filter_map(|s| {
            let (since, why) = s.guard.as_ref()?.circuit.as_ref()?;
            Some(Circuit { service: &s.name, since: *since, why })
        });
        let circuits: Vec<_> = circuits.collect();
        let services: Vec<_> = view.services.iter().map(|s| ShownService::of(s, now)).collect();
        let tiles = tiles(&services, asked.len() + circuits.len(), live.len());
        Overview { asked, circuits, live, ended, older, services, tiles }
    }
}

fn tiles(services: &[ShownService<'_>], asked: usize, live: usize) -> Vec<Tile> {
    let mut by_condition: BTreeMap<Condition, usize> = BTreeMap::new();
    for s in services {
        *by_condition.entry(s.service.condition).or_default() += 1;
    }
    let conditions: Vec<String> =
        by_condition.iter().map(|(c, n)| format!("{n} {}", condition_text(*c))).collect();
    let kept = services.iter().filter(|s| s.service.backups.is_some()).count();
    let late = services.iter().filter(|s| s.overdue || s.never_backed_up).count();
    let problems: usize = services.iter().map(|s| s.service.problems.len()).sum();
    let blocked = services.iter().filter(|s| s.blocked).count();
    let when = |n: usize, tone: Tone| if n > 0 { tone } else { Tone::Good };
    vec![
        Tile {
            name: "services",
            value: services.len().to_string(),
            note: conditions.join(", "),
            tone: Tone::Idle,
        },
        Tile {
            name: "under way",
            value: live.to_string(),
            note: if live == 0 { "nothing is being changed".to_owned() } else { "operations".to_owned() },
            tone: if live > 0 { Tone::Busy } else { Tone::Good },
        },
        Tile {
            name: "for a person",
            value: asked.to_string(),
            note: if asked == 0 { "nothing waits for you".to_owned() } else { "see below".to_owned() },
            tone: when(asked, Tone::Ask),
        },
        Tile {
            name: "backups late",
            value: late.to_string(),
            note: format!("of {kept} services with backups"),
            tone: when(late, Tone::Bad),
        },
        Tile {
            name: "label problems",
            value: problems.to_string(),
            note: match blocked {
                0 => "none stands against a restore".to_owned(),
                1 => "1 service cannot be restored".to_owned(),
                n => format!("{n} services cannot be restored"),
            },
            tone: if blocked > 0 { Tone::Bad } else { when(problems, Tone::Ask) },
        },
    ]
}

// === impl ShownService ===

impl<'a> ShownService<'a> {
    fn of(service: &'a ServiceView, now: Timestamp) -> ShownService<'a> {
        let backups = service.backups.as_ref();
        let late = |from: Timestamp, interval: Duration| between(from, now) > interval * 2;
        let overdue = backups.is_some_and(|b| match (b.last_success, b.interval) {
            (Some(last), Some(interval)) => late(last, interval),
            _ => false,
        });
        let never = backups.is_some_and(|b| match (b.last_success, b.wanted_since, b.interval) {
            (None, Some(since), Some(interval)) => late(since, interval),
            _ => false,
        });
        ShownService {
            service,
            condition_text: condition_text(service.condition),
            tone: match service.condition {
                Condition::Healthy => Tone::Good,
                Condition::Operating | Condition::Waking => Tone::Busy,
                Condition::Maintenance => Tone::Ask,
                Condition::Asleep | Condition::Reduced => Tone::Idle,
                Condition::Degraded | Condition::Down | Condition::Stuck => Tone::Bad,
            },
            overdue,
            never_backed_up: never,
            blocked: service.problems.iter().any(|p| p.blocks),
        }
    }
}

const fn condition_text(condition: Condition) -> &'static str {
    match condition {
        Condition::Healthy => "healthy",
        Condition::Degraded => "degraded",
        Condition::Down => "down",
        Condition::Operating => "under operation",
        Condition::Maintenance => "in maintenance",
        Condition::Asleep => "asleep",
        Condition::Reduced => "scaled down",
        Condition::Waking => "waking",
        Condition::Stuck => "stuck",
    }
}

// === impl ShownOperation ===

impl<'a> ShownOperation<'a> {
    pub(super) fn of(operation: &'a OperationView, now: Timestamp) -> ShownOperation<'a> {
        let (state_text, tone) = match operation.state {
            State::Pending => ("queued", Tone::Idle),
            State::AwaitingApproval => ("waits for approval", Tone::Ask),
            State::Running if operation.cancelled_by.is_some() => ("being called off", Tone::Ask),
            State::Running => ("running", Tone::Busy),
            State::Succeeded => ("succeeded", Tone::Good),
            State::RolledBack => ("rolled back", Tone::Ask),
            State::Failed => ("failed", Tone::Bad),
            State::Cancelled => ("cancelled", Tone::Idle),
            State::Stuck => ("needs a person", Tone::Bad),
        };
        let live = matches!(operation.state, State::Pending | State::Running);
        ShownOperation {
            operation,
            title: title(operation),
            state_text,
            tone,
            percent: operation.percent(),
            seconds: operation.ran(now).map(|d| d.as_secs_f64()),
            shown_steps: steps(operation, now),
            skipped: operation.steps.iter().filter(|s| s.state == Progress::Skipped).count(),
            measured: operation.kind != "maintenance",
            live,
            awaits: operation.state == State::AwaitingApproval,
            can_cancel: operation.can_cancel(),
            overdue: live && operation.deadline.is_some_and(|d| d < now),
            current: current(operation),
        }
    }
}

fn title(operation: &OperationView) -> String {
    let kind = match operation.kind {
        "backup" => "Backup",
        "restore" => "Restore",
        "maintenance" => "Maintenance",
        "expire" => "Clean-up",
        "verify" => "Backup verification",
        "import" => "Backup import",
        "point" => "Restore point",
        "rollback" => "Rollback",
        other => other,
    };
    format!("{kind} of {}", operation.service)
}

fn current(operation: &OperationView) -> Option<&StepView> {
    let find = |states: &[Progress]| operation.steps.iter().rev().find(|s| states.contains(&s.state));
    if operation.state == State::Succeeded {
        return None;
    }
    find(&[Progress::UndoFailed, Progress::Failed]).or_else(|| find(&[Progress::Undoing, Progress::Started]))
}

fn steps(operation: &OperationView, now: Timestamp) -> Vec<ShownStep<'_>> {
    let began = operation.began.unwrap_or(operation.created);
    let whole = between(began, operation.ended.unwrap_or(now)).as_secs_f64().max(0.001);
    operation.steps.iter().map(|step| ShownStep::of(step, began, whole, now)).collect()
}

// === impl ShownStep ===

impl<'a> ShownStep<'a> {
    fn of(step: &'a StepView, began: Timestamp, whole: f64, now: Timestamp) -> ShownStep<'a> {
        let (tone, mark, state_text) = match step.state {
            Progress::Waiting => (Tone::Idle, "", "to come"),
            Progress::Skipped => (Tone::Idle, "–", "not run"),
            Progress::Started => (Tone::Busy, "", "running"),
            Progress::Done => (Tone::Good, "✓", "done"),
            Progress::Failed => (Tone::Bad, "✕", "failed"),
            Progress::Undoing => (Tone::Ask, "↩", "being undone"),
            Progress::Undone => (Tone::Ask, "↩", "undone"),
            Progress::UndoFailed => (Tone::Bad, "✕", "cannot be undone"),
        };
        let seconds = step.ran(now).map(|d| d.as_secs_f64());
        let x = step.began.map_or(0, |at| thousandths(between(began, at).as_secs_f64(), whole)).min(992);
        let width = thousandths(seconds.unwrap_or(0.0), whole).clamp(8, 1000 - x);
        ShownStep { step, tone, mark, state_text, seconds, x, width }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000 before")]
fn thousandths(part: f64, whole: f64) -> u32 {
    (part / whole * 1000.0).clamp(0.0, 1000.0).round() as u32
}
