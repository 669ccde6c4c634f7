//! Making sure that nothing of a step runs any more, before the step is taken back (S7, S8).

use super::{LOOK_AT_NODE, close, is_undo};
use crate::operation::record::{JobRecord, JobRecordState};
use crate::operation::saga::{Cx, Fault, Wait};
use crate::swarm::job::JOB;
use crate::swarm::object::{OP, Task, TaskState};

/// Ends and forgets every job of this step, whatever it is doing: before an undo, nothing of the step may still run.
/// Returns what is waited for, if anything.
///
/// What runs on a node that does not answer cannot be ended. Sessions and the lock of the database fence what works
/// there; what writes files nothing fences, so that the node must come back or be removed first (S8).
///
/// # Errors
/// When a job that may still write files is out of reach for too long, or what the engine says.
pub async fn abandon(cx: &mut Cx<'_>) -> Result<Option<Wait>, Fault> {
    if let Some(wait) = end_all_but(cx, "").await? {
        return Ok(Some(wait));
    }
    let left = left_running(cx).await?;
    if left.is_empty() {
        return Ok(None);
    }
    let nodes = cx.engine().nodes().await?;
    let mut ending = 0;
    for (task, writes) in left {
        let node = task.node.as_ref().map(|id| nodes.iter().find(|n| n.id == *id));
        match node {
            // A node that was removed runs nothing of this Swarm.
            Some(None) => {}
            Some(Some(node)) if !node.ready && writes => return out_of_reach(cx, &node.hostname).map(Some),
            Some(Some(node)) if !node.ready => {}
            _ if task.state.is_terminal() => {}
            Some(Some(_)) | None => ending += 1,
        }
    }
    Ok((ending > 0).then(|| Wait::new(format!("{ending} job(s) still ending"))))
}

/// Ends and forgets the jobs of this step, except the one of this key and those that take the step back. Returns what is
/// waited for, if anything.
///
/// # Errors
/// What the engine says.
pub async fn end_all_but(cx: &mut Cx<'_>, kept: &str) -> Result<Option<Wait>, Fault> {
    let jobs = cx.record().jobs.iter();
    let open = jobs.filter(|(key, r)| r.state != JobRecordState::Closed && *key != kept && !is_undo(key));
    let open: Vec<(String, JobRecord)> = open.map(|(k, r)| (k.clone(), r.clone())).collect();
    for (key, record) in open {
        if let Some(wait) = close(cx, &key, &record).await? {
            return Ok(Some(wait));
        }
    }
    Ok(None)
}

/// Tasks of this step's own jobs that have not ended, or of which nobody has heard; and whether they write files.
async fn left_running(cx: &mut Cx<'_>) -> Result<Vec<(Task, bool)>, Fault> {
    let prefix = format!("skep-job-{}-{}-", cx.op.id, cx.step);
    let op = cx.op.id.to_string();
    let tasks = cx.engine().tasks_labelled(&[(OP, op.as_str())]).await?;
    let jobs = &cx.record().jobs;
    let of_step = |task: Task| {
        let job = task.spec["ContainerSpec"]["Labels"][JOB].as_str()?;
        let (key, _) = job.strip_prefix(&prefix)?.rsplit_once('-')?;
        let writes = jobs.get(key).is_some_and(|j| j.writes);
        let may_run = !task.state.is_terminal() || task.state == TaskState::Orphaned;
        (may_run && !is_undo(key)).then_some((task, writes))
    };
    Ok(tasks.into_iter().filter_map(of_step).collect())
}

fn out_of_reach(cx: &mut Cx<'_>, node: &str) -> Result<Wait, Fault> {
    let since = cx.record().changed;
    if cx.since(since) < cx.env.settings.lost_deadline {
        return Ok(Wait { again: LOOK_AT_NODE, ..Wait::new(may_write(node)) });
    }
    Err(Fault::failed(format!(
        "{}; bring the node back or remove it (docker node rm --force), then try again",
        may_write(node)
    )))
}

fn may_write(node: &str) -> String {
    format!("node {node} does not answer, and a job there may still write files")
}
