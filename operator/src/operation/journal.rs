//! What comes next in a saga, computed from the journal and nothing else; pure.
//!
//! ```text
//! forward:  first step that is not done  ─────────────────▶ all done: finished
//! backward: (a step failed, or cancelled) last begun step that is not undone ─▶ all undone: unwound
//! after the point of no return a failure never goes backward: it blocks
//! ```

use super::record::{Journal, StepState};

/// How a step can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compensation {
    /// It leaves nothing behind that must be taken back.
    Nothing,
    /// It has an undo.
    Undo,
    /// Once it has begun there is no way back that an operator may take by itself.
    PointOfNoReturn,
}

/// The steps of a saga: a closed set with names that stay stable across versions, since they stand in journals.
pub trait Step: Copy + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// Stable name, `[a-z-]`, at most 12 characters: part of the names of what the step makes.
    fn name(self) -> &'static str;
    /// How it is taken back.
    fn compensation(self) -> Compensation;
    /// Whether it changes what users or the live data see; decides between `failed` and `rolled-back`.
    fn touches_live(self) -> bool;
    /// Whether it only tidies up, so that it is tried until it succeeds instead of failing the operation.
    fn only_tidies(self) -> bool {
        self.name() == "release"
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<S> {
    /// Run (or run on with) this step.
    Run(S),
    /// Undo (or go on undoing) this step.
    Undo(S),
    /// Every step is done.
    Finished,
    /// Everything that had an undo is undone. `changed` tells whether anything live had been touched.
    Unwound {
        /// Whether a step that touches live data or users had begun.
        changed: bool,
    },
    /// A step failed after the point of no return.
    Blocked(S),
    /// An undo failed for good.
    UndoFailed(S),
    /// The journal names a step that this version does not know.
    Unknown,
}

/// Computes what comes next.
pub fn next<S: Step>(journal: &Journal, steps: &[S]) -> Next<S> {
    if journal.steps.iter().any(|(name, _)| steps.iter().all(|s| s.name() != name)) {
        return Next::Unknown;
    }
    let state = |step: S| journal.step(step.name()).map(|r| r.state);
    if let Some(step) = steps.iter().copied().find(|s| state(*s) == Some(StepState::UndoFailed)) {
        return Next::UndoFailed(step);
    }
    let failed = steps.iter().copied().find(|s| state(*s) == Some(StepState::Failed));
    let unwinding = steps.iter().any(|s| matches!(state(*s), Some(StepState::Undoing | StepState::Undone)));
    let past_pivot = is_past_pivot(journal, steps);
    if let Some(step) = failed.filter(|_| past_pivot && !unwinding) {
        return Next::Blocked(step);
    }
    let back = failed.is_some() || unwinding || (journal.cancel.is_some() && !past_pivot);
    if !back {
        return steps
            .iter()
            .copied()
            .find(|s| state(*s) != Some(StepState::Done))
            .map_or(Next::Finished, Next::Run);
    }
    steps
        .iter()
        .rev()
        .copied()
        .find(|s| {
            s.compensation() == Compensation::Undo && !matches!(state(*s), None | Some(StepState::Undone))
        })
        .map_or_else(|| Next::Unwound { changed: touched_live(journal, steps) }, Next::Undo)
}

/// Whether a step from which there is no way back has begun.
pub fn is_past_pivot<S: Step>(journal: &Journal, steps: &[S]) -> bool {
    steps
        .iter()
        .any(|s| s.compensation() == Compensation::PointOfNoReturn && journal.step(s.name()).is_some())
}

fn touched_live<S: Step>(journal: &Journal, steps: &[S]) -> bool {
    steps.iter().any(|s| s.touches_live() && journal.step(s.name()).is_some())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::operation::record::State;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum S {
        Claim,
        Build,
        Cut,
        Start,
        Verify,
    }

    const ALL: [S; 5] = [S::Claim, S::Build, S::Cut, S::Start, S::Verify];

    impl Step for S {
        fn name(self) -> &'static str {
            ["claim", "build", "cut", "start", "verify"][self as usize]
        }
        fn compensation(self) -> Compensation {
            match self {
                S::Claim | S::Cut => Compensation::Undo,
                S::Build | S::Verify => Compensation::Nothing,
                S::Start => Compensation::PointOfNoReturn,
            }
        }
        fn touches_live(self) -> bool {
            matches!(self, S::Cut | S::Start)
        }
    }

    fn journal(states: &[StepState]) -> Journal {
        let mut journal = Journal::new(State::Running);
        for (step, state) in ALL.iter().zip(states) {
            journal.step_mut(step.name(), Timestamp::UNIX_EPOCH).state = *state;
        }
        journal
    }

    use StepState::{Done, Failed, Started, UndoFailed, Undoing, Undone};

    #[test]
    fn a_saga_runs_its_steps_in_order_and_finishes() {
        assert_eq!(next(&journal(&[]), &ALL), Next::Run(S::Claim));
        assert_eq!(next(&journal(&[Started]), &ALL), Next::Run(S::Claim));
        assert_eq!(next(&journal(&[Done, Done]), &ALL), Next::Run(S::Cut));
        assert_eq!(next(&journal(&[Done; 5]), &ALL), Next::Finished);
    }

    #[test]
    fn a_failure_before_the_pivot_undoes_backwards_including_the_failed_step() {
        assert_eq!(next(&journal(&[Done, Done, Failed]), &ALL), Next::Undo(S::Cut));
        assert_eq!(next(&journal(&[Done, Done, Undone]), &ALL), Next::Undo(S::Claim));
        assert_eq!(next(&journal(&[Undoing, Done, Undone]), &ALL), Next::Undo(S::Claim));
        assert_eq!(next(&journal(&[Undone, Done, Undone]), &ALL), Next::Unwound { changed: true });
        assert_eq!(next(&journal(&[Done, Failed]), &ALL), Next::Undo(S::Claim));
        assert_eq!(next(&journal(&[Undone, Failed]), &ALL), Next::Unwound { changed: false });
    }

    #[test]
    fn a_failure_after_the_pivot_blocks_and_never_goes_back() {
        assert_eq!(next(&journal(&[Done, Done, Done, Failed]), &ALL), Next::Blocked(S::Start));
        assert_eq!(next(&journal(&[Done, Done, Done, Done, Failed]), &ALL), Next::Blocked(S::Verify));
    }

    #[test]
    fn cancelling_goes_back_before_the_pivot_and_is_ignored_after_it() {
        let mut early = journal(&[Done, Started]);
        early.cancel = Some("somebody".to_owned());
        assert_eq!(next(&early, &ALL), Next::Undo(S::Claim));
        let mut late = journal(&[Done, Done, Done, Started]);
        late.cancel = Some("somebody".to_owned());
        assert_eq!(next(&late, &ALL), Next::Run(S::Start));
    }

    #[test]
    fn an_undo_that_failed_for_good_and_an_unknown_step_stop_everything() {
        assert_eq!(next(&journal(&[Done, Done, UndoFailed]), &ALL), Next::UndoFailed(S::Cut));
        let mut newer = journal(&[Done]);
        newer.step_mut("from-the-future", Timestamp::UNIX_EPOCH);
        assert_eq!(next(&newer, &ALL), Next::Unknown);
    }
}
