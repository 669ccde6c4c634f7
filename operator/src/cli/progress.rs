//! An operation as people see it while it runs and when it has ended; pure.
//!
//! ```text
//! restore of shop_db  20260302t100000abcdef  running  12.3 s
//!   ✔ claim      Take hold of the services                 0.1 s
//!   ▶ beside     Restore beside, and check it there        4.2 s  █████░░░░░ 52%  loading
//!   · stop       Stop the clients, page on
//! ```

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::out::{Paint, Tone};
use crate::http::view::{OperationView, Progress, StepView};
use crate::operation::record::{BEING_UNDONE, State};
use crate::plan::words::{exact, list};

/// Characters of a progress bar.
const BAR: usize = 10;
/// Column of a step's title, and its width.
const NAME: usize = 10;
const TITLE: usize = 42;
/// Percent that a line is worth where each change gets one.
const STRIDE: u8 = 10;

/// How it is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) paint: Paint,
    pub(super) width: usize,
}

/// The whole operation, a line a step, none longer than the width.
pub(super) fn lines(op: &OperationView, look: Look, now: Timestamp) -> Vec<String> {
    let mut lines = vec![heading(op, look, now)];
    let back = is_going_back(op);
    lines.extend(op.steps.iter().map(|step| match step.state {
        // What was begun and has no undo is simply left.
        Progress::Started if back => {
            step_line(&StepView { state: Progress::Skipped, began: None, ..step.clone() }, look, now)
        }
        _ => step_line(step, look, now),
    }));
    lines
}

/// What changed since it was last looked at, a line a change.
pub(super) fn changes(
    before: Option<&OperationView>,
    after: &OperationView,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<String> {
    let clock = now.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string();
    let mut lines = Vec::new();
    if before.is_none_or(|b| b.state != after.state) {
        lines.push(format!("{clock} {} {} is {}", title(after), after.id, after.state.as_str()));
    }
    for step in &after.steps {
        let old = before.and_then(|b| b.steps.iter().find(|s| s.name == step.name));
        lines.extend(step_change(old, step, now).map(|text| format!("{clock}   {text}")));
    }
    lines
}

/// How it ended and what people should know; what to do next, where something is to be done.
pub(super) fn summary(op: &OperationView, look: Look, command: &str, now: Timestamp) -> Vec<String> {
    let took = op.ran(now).map(|t| format!(" after {}", exact(t))).unwrap_or_default();
    let title = title(op);
    let (tone, text) = match op.state {
        State::Succeeded => (Tone::Good, format!("{title} succeeded{took}")),
        State::RolledBack => (Tone::Mind, format!("{title} failed{took}; everything is as it was before")),
        State::Failed => (Tone::Bad, format!("{title} failed{took}; nothing was changed")),
        State::Cancelled => {
            (Tone::Mind, format!("{title} was cancelled{took}; everything is as it was before"))
        }
        State::Stuck => (Tone::Bad, format!("{title} is stuck{took}: a person is needed")),
        State::AwaitingApproval => (Tone::Mind, format!("{title} waits for approval")),
        State::Pending | State::Running => (Tone::Live, format!("{title} goes on")),
    };
    let mut lines = vec![look.paint.tone(tone, &text)];
    lines.extend(causes(op).map(|cause| format!("  {cause}")));
    lines.extend(op.remarks.iter().map(|r| format!("  - {r}")));
    lines.extend(next(op, command).into_iter().map(|n| look.paint.tone(Tone::Faint, &n)));
    lines
}

/// Commands that make sense now.
fn next(op: &OperationView, command: &str) -> Vec<String> {
    let id = &op.id;
    let say = |verb: &str, what: &str| format!("{command} ops {verb} {id}{what}");
    match op.state {
        State::Succeeded | State::Cancelled => Vec::new(),
        State::RolledBack | State::Failed => vec![say("show", "    shows every step")],
        State::Stuck => vec![say("retry", "    tries the step again once the cause is mended")],
        State::AwaitingApproval => vec![say("approve", "    lets it go on"), say("cancel", "    ends it")],
        State::Pending | State::Running => {
            let mut next = vec![say("show", " --follow    follows it again")];
            next.extend(op.can_cancel().then(|| say("cancel", "    ends it")));
            next
        }
    }
}

/// Why steps failed or what they ask.
fn causes(op: &OperationView) -> impl Iterator<Item = String> {
    let asks = op.state == State::AwaitingApproval;
    op.steps.iter().filter(move |s| !s.note.is_empty() && (asks || failed(s))).map(move |s| {
        let verb = if failed(s) { "failed" } else { "asks" };
        format!("{} {verb}: {}", s.name, s.note)
    })
}

/// An undone step keeps why it failed; the others that are undone only say so.
fn failed(step: &StepView) -> bool {
    match step.state {
        Progress::Failed | Progress::UndoFailed => true,
        Progress::Undone | Progress::Undoing => !step.note.is_empty() && !step.note.starts_with(BEING_UNDONE),
        Progress::Waiting | Progress::Skipped | Progress::Started | Progress::Done => false,
    }
}

fn heading(op: &OperationView, look: Look, now: Timestamp) -> String {
    let state = op.state.as_str();
    let took = op.ran(now).map(exact).unwrap_or_default();
    let text = cut(&format!("{}  {}  {state}  {took}", title(op), op.id), look.width);
    let text = text.trim_end();
    match text.rsplit_once(state) {
        Some((head, tail)) => {
            format!(
                "{}{}{tail}",
                look.paint.tone(Tone::Strong, head),
                look.paint.tone(state_tone(op.state), state)
            )
        }
        None => text.to_owned(),
    }
}

fn step_line(step: &StepView, look: Look, now: Timestamp) -> String {
    let (mark, tone) = mark(step.state);
    let took = step.ran(now).map(exact).unwrap_or_default();
    let mut text = format!("{:<NAME$} {:<TITLE$} {took:>8}", step.name, step.title);
    if let Some(percent) = step.percent.filter(|_| is_under_way(step)) {
        text += &format!("  {} {percent:>3}%", bar(percent));
    }
    if step.attempt > 1 && is_under_way(step) {
        text += &format!("  attempt {}", step.attempt);
    }
    if !step.note.is_empty() {
        text += &format!("  {}", step.note);
    }
    let text = cut(text.trim_end(), look.width.saturating_sub(4));
    let rest =
        if matches!(step.state, Progress::Waiting | Progress::Skipped) { Tone::Faint } else { Tone::Plain };
    format!("  {} {}", look.paint.tone(tone, mark), look.paint.tone(rest, &text))
}

fn step_change(old: Option<&StepView>, new: &StepView, now: Timestamp) -> Option<String> {
    let moved = old.is_none_or(|o| o.state != new.state);
    let took = new.ran(now).map(exact).unwrap_or_default();
    let name = &new.name;
    match new.state {
        Progress::Waiting | Progress::Skipped => None,
        Progress::Started if moved => Some(format!("{name}: {}", new.title)),
        Progress::Started => ongoing(old?, new),
        Progress::Done => moved.then(|| format!("{name} done in {took}")),
        Progress::Failed => moved.then(|| format!("{name} failed after {took}: {}", new.note)),
        Progress::Undoing => moved.then(|| format!("{name} is being undone")),
        Progress::Undone if failed(new) => moved.then(|| format!("{name} undone; it failed: {}", new.note)),
        Progress::Undone => moved.then(|| format!("{name} undone")),
        Progress::UndoFailed => moved.then(|| format!("{name} cannot be undone: {}", new.note)),
    }
}

/// Not every percent is worth a line.
fn ongoing(old: &StepView, new: &StepView) -> Option<String> {
    let stride = |s: &StepView| s.percent.map(|p| p / STRIDE);
    if old.note == new.note && old.attempt == new.attempt && stride(old) == stride(new) {
        return None;
    }
    let percent = new.percent.map(|p| format!(" {p}%")).unwrap_or_default();
    let attempt = if new.attempt > 1 { format!(" (attempt {})", new.attempt) } else { String::new() };
    let note = if new.note.is_empty() { String::new() } else { format!(": {}", new.note) };
    Some(format!("{}{percent}{attempt}{note}", new.name))
}

const fn is_under_way(step: &StepView) -> bool {
    matches!(step.state, Progress::Started | Progress::Undoing)
}

const fn mark(state: Progress) -> (&'static str, Tone) {
    match state {
        Progress::Waiting => ("·", Tone::Faint),
        Progress::Skipped => ("-", Tone::Faint),
        Progress::Started => ("▶", Tone::Live),
        Progress::Done => ("✔", Tone::Good),
        Progress::Failed | Progress::UndoFailed => ("✘", Tone::Bad),
        Progress::Undoing | Progress::Undone => ("↩", Tone::Mind),
    }
}

/// `restore of shop_db`.
pub(super) fn title(op: &OperationView) -> String {
    format!("{} of {}", op.kind, op.service)
}

/// The colour of a state.
pub(super) const fn state_tone(state: State) -> Tone {
    match state {
        State::Pending | State::Running => Tone::Live,
        State::AwaitingApproval | State::RolledBack | State::Cancelled => Tone::Mind,
        State::Succeeded => Tone::Good,
        State::Failed | State::Stuck => Tone::Bad,
    }
}

fn bar(percent: u8) -> String {
    let full = usize::from(percent.min(100)) * BAR / 100;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// The text, cut to so many characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).collect::<String>() + "…"
}

/// The steps that are under way, for a list.
pub(super) fn current(op: &OperationView) -> String {
    let back = is_going_back(op);
    let moving = op.steps.iter().filter(|s| is_under_way(s) && !(back && s.state == Progress::Started));
    list(&moving.map(|s| s.name.as_str()).collect::<Vec<_>>())
}

/// Whether steps are being undone.
fn is_going_back(op: &OperationView) -> bool {
    op.steps.iter().any(|s| matches!(s.state, Progress::Undoing | Progress::Undone))
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
