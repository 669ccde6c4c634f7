//! What a job's task means: pure.

use skep_runner::Fault;
use skep_runner::line::FaultKind;

use super::JobState;
use super::told::Told;
use crate::swarm::object::{Node, Task, TaskState};

/// Exit codes of a container that was ended from outside by SIGKILL or SIGTERM.
const KILLED: [i64; 2] = [137, 143];
/// Exit codes that say that the command cannot be executed.
const NOT_EXECUTABLE: [i64; 2] = [126, 127];

/// Where a job stands, before its log is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    Pending { why: String },
    Running,
    Complete,
    Failed,
    Lost { may_run: bool, why: String },
}

/// Whether the nodes must be known to judge the task.
pub(super) fn needs_nodes(task: &Task) -> bool {
    is_unwanted(task) || task.state == TaskState::Orphaned
}

/// Where the job of this task stands.
pub(super) fn stand(task: &Task, nodes: &[Node]) -> Stand {
    let node = task.node.as_ref().and_then(|id| nodes.iter().find(|n| n.id == *id));
    match task.state {
        TaskState::Complete => Stand::Complete,
        TaskState::Failed | TaskState::Rejected => Stand::Failed,
        TaskState::Shutdown | TaskState::Remove => {
            Stand::Lost { may_run: false, why: why(task, "it was shut down") }
        }
        // Swarm gave it up because its node has been away for a day.
        TaskState::Orphaned => Stand::Lost { may_run: node.is_some(), why: why(task, "its node is gone") },
        TaskState::New
        | TaskState::Allocated
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Running => match (is_unwanted(task), task.node.is_some(), node) {
            (true, true, None) => Stand::Lost { may_run: false, why: "its node was removed".to_owned() },
            (true, _, Some(node)) if !node.ready => {
                Stand::Lost { may_run: true, why: format!("node {} is down", node.hostname) }
            }
            _ if task.state == TaskState::Running => Stand::Running,
            _ => Stand::Pending { why: why(task, task.state.as_str()) },
        },
    }
}

/// A job whose task is `complete`.
pub(super) fn completed(told: Told) -> JobState {
    match told.report {
        Some(report) => JobState::Complete { report },
        None => {
            let message = "it ended well, but its report cannot be read".to_owned();
            JobState::Failed { fault: Fault { kind: FaultKind::Transient, message }, exit: Some(0) }
        }
    }
}

/// A job whose task failed. What it says itself counts most; else it may have been killed from outside.
pub(super) fn failed(task: &Task, fault: Option<Fault>) -> JobState {
    let exit = task.exit_code;
    if let Some(fault) = fault {
        return JobState::Failed { fault, exit };
    }
    let killed = exit.is_some_and(|code| KILLED.contains(&code)) || task.error.contains("No such container");
    if killed {
        return JobState::Lost { node: task.node.clone(), may_run: false, why: why(task, "it was killed") };
    }
    let error = why(task, "it failed without a word");
    let unstartable = exit.is_some_and(|code| NOT_EXECUTABLE.contains(&code))
        || error.contains("permission denied")
        || error.contains("exec format error");
    let fault = if unstartable {
        let message = format!("the runner cannot be started in image {}: {error}", task.image);
        Fault { kind: FaultKind::Circumstance, message }
    } else {
        Fault { kind: FaultKind::Transient, message: error }
    };
    JobState::Failed { fault, exit }
}

/// Not ended, although it should have: its node is down, it is being drained, or somebody scaled the job.
fn is_unwanted(task: &Task) -> bool {
    !task.state.is_terminal() && task.desired > TaskState::Running
}

fn why(task: &Task, otherwise: &str) -> String {
    if task.error.is_empty() { otherwise.to_owned() } else { task.error.clone() }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::swarm::object::Labels;

    fn task(state: TaskState, desired: TaskState) -> Task {
        Task {
            id: "t".into(),
            service: "s".into(),
            node: Some("n".into()),
            slot: 1,
            state,
            desired,
            error: String::new(),
            exit_code: None,
            image: "postgres:17".into(),
            spec_version: None,
            spec: Value::Null,
            addresses: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
            changed: Timestamp::UNIX_EPOCH,
        }
    }

    fn node(ready: bool) -> Node {
        Node {
            id: "n".into(),
            hostname: "n1".into(),
            ready,
            architecture: "x86_64".into(),
            active: true,
            manager: true,
            labels: Labels::new(),
        }
    }

    fn is_lost(stand: &Stand, running: bool) -> bool {
        matches!(stand, Stand::Lost { may_run, .. } if *may_run == running)
    }

    #[test]
    fn only_the_state_complete_is_success() {
        assert_eq!(stand(&task(TaskState::Complete, TaskState::Shutdown), &[]), Stand::Complete);
        let mut rejected = task(TaskState::Rejected, TaskState::Shutdown);
        rejected.exit_code = Some(0);
        assert_eq!(stand(&rejected, &[]), Stand::Failed);
        let shutdown = task(TaskState::Shutdown, TaskState::Shutdown);
        assert!(is_lost(&stand(&shutdown, &[node(true)]), false));
    }

    #[test]
    fn a_running_task_on_a_dead_node_is_lost_and_may_still_run() {
        let task = task(TaskState::Running, TaskState::Shutdown);
        assert!(needs_nodes(&task));
        assert!(is_lost(&stand(&task, &[node(false)]), true));
    }

    #[test]
    fn a_running_task_whose_node_was_removed_is_lost_and_does_not_run() {
        assert!(is_lost(&stand(&task(TaskState::Running, TaskState::Shutdown), &[]), false));
    }

    #[test]
    fn a_task_that_is_being_drained_runs_until_it_has_ended() {
        assert_eq!(stand(&task(TaskState::Running, TaskState::Shutdown), &[node(true)]), Stand::Running);
    }

    #[test]
    fn a_dead_node_is_no_loss_while_the_task_is_wanted() {
        let task = task(TaskState::Running, TaskState::Running);
        assert!(!needs_nodes(&task));
        assert_eq!(stand(&task, &[]), Stand::Running);
    }

    #[test]
    fn a_pending_job_says_why() {
        let mut pending = task(TaskState::Pending, TaskState::Running);
        pending.error = "no suitable node (scheduling constraints not satisfied on 1 node)".into();
        assert_eq!(stand(&pending, &[]), Stand::Pending { why: pending.error.clone() });
        pending.error.clear();
        assert_eq!(stand(&pending, &[]), Stand::Pending { why: "pending".into() });
    }

    #[test]
    fn what_the_job_says_itself_counts_most() {
        let mut task = task(TaskState::Failed, TaskState::Shutdown);
        task.exit_code = Some(143);
        let fault = Fault { kind: FaultKind::Final, message: "no room".into() };
        assert_eq!(failed(&task, Some(fault.clone())), JobState::Failed { fault, exit: Some(143) });
    }

    #[test]
    fn a_job_killed_by_a_restart_of_the_engine_is_lost() {
        let mut killed = task(TaskState::Failed, TaskState::Shutdown);
        killed.exit_code = Some(143);
        assert!(matches!(failed(&killed, None), JobState::Lost { may_run: false, .. }));
        let mut gone = task(TaskState::Failed, TaskState::Shutdown);
        gone.error = "No such container: skep-job.1.abc".into();
        assert!(matches!(failed(&gone, None), JobState::Lost { may_run: false, .. }));
    }

    #[test]
    fn a_runner_that_cannot_be_started_is_a_final_fault_that_says_so() {
        let mut task = task(TaskState::Failed, TaskState::Shutdown);
        task.exit_code = Some(127);
        let JobState::Failed { fault, .. } = failed(&task, None) else { panic!("it failed") };
        assert_eq!(fault.kind, FaultKind::Circumstance);
        assert!(fault.message.contains("postgres:17"), "{}", fault.message);
    }

    #[test]
    fn an_ended_job_without_a_report_is_tried_again() {
        let JobState::Failed { fault, .. } = completed(Told::default()) else { panic!("it failed") };
        assert_eq!(fault.kind, FaultKind::Transient);
    }
}
