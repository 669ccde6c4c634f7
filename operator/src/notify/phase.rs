//! Which phases of an operation people have yet to be told. Pure.
//!
//! What [`due`] returns goes into *one* message, whose headline is the last phase: an operation that ended before
//! its start could be told makes one mail that says both, never a burst.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::operation::record::{Operation, State, StepState, Trigger, Work};

/// A moment in the life of an operation that people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Stored, and waiting behind another operation.
    Announced,
    /// Waits for a person to approve it.
    NeedsApproval,
    /// Begun.
    Started,
    /// Finished and verified.
    Finished,
    /// Failed or refused before anything was changed.
    Failed,
    /// Failed, and everything is as it was before.
    RolledBack,
    /// Ended by a person.
    Cancelled,
    /// A person is needed.
    Stuck,
}

/// What routine operations (on a schedule, or part of another operation) tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Routine {
    /// Only that they failed.
    #[default]
    Failures,
    /// Everything, as an operation that a person asked for.
    Everything,
}

/// An operation that waits for longer than this behind another is announced.
const QUEUED: SignedDuration = SignedDuration::from_secs(30);
/// An operation without impact on users that takes longer than this tells that it started.
const LONG: SignedDuration = SignedDuration::from_mins(1);
/// What could not be told for this long is no news any more.
const STALE: SignedDuration = SignedDuration::from_hours(48);

/// The phases to tell now, oldest first, in one message; empty where there is nothing to tell.
pub fn due(operation: &Operation, routine: Routine, now: Timestamp) -> Vec<Phase> {
    // A part has no outcome of its own: what it comes to is told with its whole.
    let head = current(operation).filter(|_| operation.part_of().is_none());
    let Some(head) = head else { return Vec::new() };
    let since = occurred(operation, head);
    let is_asked_for = routine != Routine::Failures && operation.intent.work != Work::Report;
    let quiet = is_routine(operation) && !is_asked_for && !is_failure(head);
    if quiet || was_told(operation, head) || now < since + patience(operation, head) || now > since + STALE {
        return Vec::new();
    }
    match head {
        Phase::Announced if !operation.journal.told.is_empty() => Vec::new(),
        Phase::Announced | Phase::NeedsApproval | Phase::Started => vec![head],
        Phase::Finished | Phase::Failed | Phase::RolledBack | Phase::Cancelled | Phase::Stuck => {
            let unsaid = !operation.journal.steps.is_empty() && !was_told(operation, Phase::Started);
            if unsaid { vec![Phase::Started, head] } else { vec![head] }
        }
    }
}

/// When something will be due although the record does not change.
pub fn due_again(operation: &Operation, routine: Routine, now: Timestamp) -> Option<Timestamp> {
    let head = current(operation)?;
    let at = occurred(operation, head) + patience(operation, head);
    (at > now && !due(operation, routine, at).is_empty()).then_some(at)
}

/// When a phase of an operation came about, as far as the record tells.
pub fn occurred(operation: &Operation, phase: Phase) -> Timestamp {
    let created = operation.intent.created;
    match phase {
        Phase::Announced => created,
        // A step in the middle can ask too.
        Phase::NeedsApproval => operation.journal.steps.last().map_or(created, |(_, record)| record.changed),
        Phase::Started => began(operation).unwrap_or(created),
        Phase::Finished | Phase::Failed | Phase::RolledBack | Phase::Cancelled | Phase::Stuck => {
            operation.journal.ended.or_else(|| last_change(operation)).unwrap_or(created)
        }
    }
}

/// When the first step began.
pub fn began(operation: &Operation) -> Option<Timestamp> {
    operation.journal.steps.iter().map(|(_, record)| record.began).min()
}

// === impl Phase ===

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 8] = [
        Phase::Announced,
        Phase::NeedsApproval,
        Phase::Started,
        Phase::Finished,
        Phase::Failed,
        Phase::RolledBack,
        Phase::Cancelled,
        Phase::Stuck,
    ];

    /// Name, as in `skep.told.<phase>`, headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Announced => "announced",
            Phase::NeedsApproval => "needs-approval",
            Phase::Started => "started",
            Phase::Finished => "finished",
            Phase::Failed => "failed",
            Phase::RolledBack => "rolled-back",
            Phase::Cancelled => "cancelled",
            Phase::Stuck => "stuck",
        }
    }
}

/// The phase that the operation is in.
pub(super) fn current(operation: &Operation) -> Option<Phase> {
    match operation.journal.state {
        State::Pending => Some(Phase::Announced),
        State::AwaitingApproval => Some(Phase::NeedsApproval),
        State::Running => began(operation).map(|_| Phase::Started),
        State::Succeeded => Some(Phase::Finished),
        State::RolledBack => Some(Phase::RolledBack),
        State::Failed => Some(Phase::Failed),
        State::Cancelled => Some(Phase::Cancelled),
        State::Stuck => Some(Phase::Stuck),
    }
}

/// Whether a phase stands on the record as told. An operation that was retried and got stuck again is told again.
fn was_told(operation: &Operation, phase: Phase) -> bool {
    let told = operation.journal.told.get(phase.as_str());
    told.is_some_and(|at| phase != Phase::Stuck || *at >= occurred(operation, phase))
}

/// How long a phase must last to be worth a message of its own.
fn patience(operation: &Operation, phase: Phase) -> SignedDuration {
    match (phase, &operation.intent.work) {
        (Phase::Announced, _) => QUEUED,
        (
            Phase::Started,
            Work::Backup
            | Work::Drill { .. }
            | Work::Expire
            | Work::Report
            | Work::Verify { .. }
            | Work::Import { .. }
            | Work::Point { .. }
            | Work::Wake,
        ) => LONG,
        _ => SignedDuration::ZERO,
    }
}

fn is_routine(operation: &Operation) -> bool {
    match operation.intent.trigger {
        Trigger::Schedule { .. } | Trigger::Found { .. } | Trigger::Operation { .. } => true,
        Trigger::Person { .. } | Trigger::Alert { .. } => false,
    }
}

const fn is_failure(phase: Phase) -> bool {
    matches!(phase, Phase::Failed | Phase::RolledBack | Phase::Stuck | Phase::NeedsApproval)
}

fn last_change(operation: &Operation) -> Option<Timestamp> {
    let steps = operation.journal.steps.iter();
    steps.filter(|(_, record)| record.state != StepState::Started).map(|(_, record)| record.changed).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::fixture::{after, alert, noon, operation, person, restore, schedule, step};

    const QUIET: Routine = Routine::Failures;

    fn tell(operation: &mut Operation, phases: &[Phase], at: Timestamp) {
        operation.journal.told.extend(phases.iter().map(|p| (p.as_str().to_owned(), at)));
    }

    #[test]
    fn each_phase_of_a_restore_is_told_once() {
        let mut op = operation(restore(), alert(), State::AwaitingApproval);
        assert_eq!(due(&op, QUIET, noon()), [Phase::NeedsApproval]);
        tell(&mut op, &[Phase::NeedsApproval], noon());
        assert_eq!(due(&op, QUIET, after(5)), []);
        op.journal.state = State::Running;
        step(&mut op, "claim", StepState::Done, 10, 10, "");
        assert_eq!(due(&op, QUIET, after(10)), [Phase::Started]);
        tell(&mut op, &[Phase::Started], after(10));
        assert_eq!(due(&op, QUIET, after(20)), []);
        op.journal.state = State::Succeeded;
        op.journal.ended = Some(after(30));
        assert_eq!(due(&op, QUIET, after(30)), [Phase::Finished]);
        tell(&mut op, &[Phase::Finished], after(30));
        assert_eq!(due(&op, QUIET, after(40)), []);
    }

    #[test]
    fn an_operation_that_ended_before_its_start_was_told_makes_one_message() {
        let ends = [
            (State::Succeeded, Phase::Finished),
            (State::Failed, Phase::Failed),
            (State::RolledBack, Phase::RolledBack),
            (State::Cancelled, Phase::Cancelled),
            (State::Stuck, Phase::Stuck),
        ];
        for (state, phase) in ends {
            let mut op = operation(restore(), alert(), state);
            assert_eq!(due(&op, QUIET, after(60)), [phase], "it never began");
            step(&mut op, "claim", StepState::Done, 10, 10, "");
            assert_eq!(due(&op, QUIET, after(60)), [Phase::Started, phase]);
        }
    }

    #[test]
    fn waiting_behind_another_is_announced_only_when_it_lasts() {
        let op = operation(restore(), person(), State::Pending);
        assert_eq!(due(&op, QUIET, after(29)), []);
        assert_eq!(due_again(&op, QUIET, after(29)), Some(after(30)));
        assert_eq!(due(&op, QUIET, after(30)), [Phase::Announced]);
        assert_eq!(due_again(&op, QUIET, after(30)), None);
    }

    #[test]
    fn an_approved_operation_is_not_announced_again() {
        let mut op = operation(restore(), alert(), State::Pending);
        tell(&mut op, &[Phase::NeedsApproval], noon());
        assert_eq!(due(&op, QUIET, after(600)), []);
        assert_eq!(due_again(&op, QUIET, after(1)), None);
    }

    #[test]
    fn a_backup_by_a_person_tells_its_start_only_when_it_is_long() {
        let mut op = operation(Work::Backup, person(), State::Running);
        step(&mut op, "dump", StepState::Started, 0, 0, "");
        assert_eq!(due(&op, QUIET, after(59)), []);
        assert_eq!(due_again(&op, QUIET, after(59)), Some(after(60)));
        assert_eq!(due(&op, QUIET, after(60)), [Phase::Started]);
        op.journal.state = State::Succeeded;
        op.journal.ended = Some(after(61));
        assert_eq!(due(&op, QUIET, after(61)), [Phase::Started, Phase::Finished]);
    }

    #[test]
    fn routine_backups_tell_only_failures_unless_wanted() {
        let parent = Trigger::Operation { id: crate::operation::record::OpId::new(noon(), "parent") };
        for trigger in [schedule(), parent] {
            for (state, told) in [
                (State::Pending, false),
                (State::Running, false),
                (State::Succeeded, false),
                (State::Cancelled, false),
                (State::Failed, true),
                (State::RolledBack, true),
                (State::Stuck, true),
                (State::AwaitingApproval, true),
            ] {
                let mut op = operation(Work::Backup, trigger.clone(), state);
                step(&mut op, "dump", StepState::Done, 0, 1, "");
                assert_eq!(!due(&op, QUIET, after(120)).is_empty(), told, "{state:?} of {trigger:?}");
                assert!(!due(&op, Routine::Everything, after(120)).is_empty(), "{state:?} of {trigger:?}");
            }
        }
    }

    #[test]
    fn what_comes_of_a_part_is_told_with_its_whole() {
        let whole = Trigger::Operation { id: crate::operation::record::OpId::new(noon(), "whole") };
        for state in [State::Running, State::Succeeded, State::RolledBack, State::Failed, State::Stuck] {
            let mut op = operation(restore(), whole.clone(), state);
            step(&mut op, "claim", StepState::Done, 0, 1, "");
            assert_eq!(due(&op, QUIET, after(120)), [], "{state:?}");
            assert_eq!(due(&op, Routine::Everything, after(120)), [], "{state:?}");
        }
    }

    #[test]
    fn an_operation_that_gets_stuck_again_is_told_again() {
        let mut op = operation(restore(), alert(), State::Stuck);
        tell(&mut op, &[Phase::Started, Phase::Stuck], after(60));
        assert_eq!(due(&op, QUIET, after(61)), []);
        op.journal.ended = Some(after(600));
        assert_eq!(due(&op, QUIET, after(600)), [Phase::Stuck]);
    }

    #[test]
    fn what_could_not_be_told_for_two_days_is_no_news() {
        let op = operation(restore(), alert(), State::Succeeded);
        assert_eq!(due(&op, QUIET, after(60 + 48 * 3600)), [Phase::Finished]);
        assert_eq!(due(&op, QUIET, after(61 + 48 * 3600)), []);
    }
}
