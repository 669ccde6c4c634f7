//! Roles that a backup of PostgreSQL needs and the server lacks: made where somebody has asked for it (`--create-roles`),
//! before anything is loaded, and dropped where the restore goes back. None that exists is altered (S4).

use skep_runner::line::FaultKind;
use skep_runner::task::{PgCreateRoles, PgDropRoles};
use skep_runner::{Fault as JobFault, Report, Task};

use super::preflight::{Preflight, Seen};
use crate::operation::catalogue::Entry;
use crate::operation::data::unexpected;
use crate::operation::frozen::Frozen;
use crate::operation::record::{JobRecord, Operation, Work};
use crate::operation::saga::{Cx, Fault, Progress, Wait};
use crate::operation::stores::{self, Hand};
use crate::operation::work::{self, Access, Order, Outcome};

/// Whether an operation makes roles.
pub(super) fn are_made(op: &Operation) -> bool {
    matches!(op.intent.work, Work::Restore { create_roles: true, .. })
}

/// Tells whoever lacks roles how they can be made.
pub(super) fn hint(cx: &mut Cx<'_>, seen: &Seen) {
    if seen.lacking.values().flatten().any(|why| why.starts_with("role `")) && !are_made(cx.op) {
        cx.remark(
            "roles that are missing can be made where a backup holds them: skep restore --create-roles",
        );
    }
}

/// How making roles went.
pub(super) enum Made {
    /// Not yet.
    Wait(Wait),
    /// All of them are there.
    There,
    /// None was made.
    Unable(JobFault),
}

/// Makes the roles that preflight found `missing` for a backup of the plan, by one job of the current step.
///
/// # Errors
/// What the engine says.
pub(super) async fn make(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    entry: &Entry,
    missing: &[String],
    candidate: usize,
) -> Result<Made, Fault> {
    if missing.is_empty() {
        return Ok(Made::There);
    }
    let nth = frozen.candidates.iter().position(|e| e.id == entry.id).unwrap_or_default();
    let target = match stores::at_hand(cx, frozen, entry, &format!("f{nth}")).await? {
        Hand::Here(target) => target,
        Hand::Wait(wait) => return Ok(Made::Wait(wait)),
        Hand::Lost(fault) => return Ok(Made::Unable(fault)),
    };
    let task = Task::PgCreateRoles(PgCreateRoles {
        connect: frozen.target.access.connect.clone(),
        stored: entry.stored(),
        roles: missing.to_vec(),
    });
    let key = making(candidate);
    let order = Order { key: &key, target: &target, task, store: Some(Access::Read), data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Made::Wait(wait)),
        Outcome::Failed(fault) => Ok(Made::Unable(fault)),
        Outcome::Done(report) => match *report {
            Report::PgCreateRoles { created: _, left } => {
                cx.remark(format!("made, as backup {} has them: {}", entry.id, named(missing)));
                for membership in left {
                    cx.remark(membership);
                }
                Ok(Made::There)
            }
            other => Err(unexpected(&other)),
        },
    }
}

/// Drops what was made for a backup that is not used, so that the next one finds what preflight found.
///
/// # Errors
/// What the engine says.
pub(super) async fn drop_of_rejected(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    candidate: usize,
    missing: &[String],
) -> Result<Option<Wait>, Fault> {
    let roles = made(cx.record().jobs.get(&making(candidate)), missing);
    drop_roles(cx, frozen, roles, &format!("drole{candidate}")).await
}

/// Drops the roles that this step has made.
///
/// # Errors
/// What the engine says.
pub(super) async fn unmake(cx: &mut Cx<'_>, frozen: &Frozen, candidate: usize) -> Result<Progress, Fault> {
    let seen: Preflight = cx.out("preflight")?;
    let mut roles = Vec::new();
    for (nth, id) in seen.usable.iter().enumerate().take(candidate + 1) {
        let missing = seen.roles.get(id).map(Vec::as_slice).unwrap_or_default();
        roles.extend(made(cx.record().jobs.get(&making(nth)), missing));
    }
    roles.sort();
    roles.dedup();
    Ok(drop_roles(cx, frozen, roles, "uroles").await?.map_or_else(Progress::done, Progress::Wait))
}

/// The key of the job that makes the roles of a candidate.
fn making(candidate: usize) -> String {
    format!("roles{candidate}")
}

/// What such a job has made, or may have: one that ended before it could tell, or an attempt before it. One that refused at
/// once has made nothing, and what is there then is somebody else's.
fn made(job: Option<&JobRecord>, missing: &[String]) -> Vec<String> {
    let Some(job) = job else { return Vec::new() };
    match (job.attempt, job.report.as_deref(), &job.fault) {
        (1, Some(Report::PgCreateRoles { created, .. }), _) => created.clone(),
        (1, _, Some(fault)) if fault.kind != FaultKind::Transient => Vec::new(),
        _ => missing.to_vec(),
    }
}

/// Where one of them is used by now, all of them stay, and that is told.
async fn drop_roles(
    cx: &mut Cx<'_>,
    frozen: &Frozen,
    roles: Vec<String>,
    key: &str,
) -> Result<Option<Wait>, Fault> {
    if roles.is_empty() {
        return Ok(None);
    }
    let connect = frozen.target.access.connect.clone();
    let task = Task::PgDropRoles(PgDropRoles { connect, roles: roles.clone() });
    let order = Order { key, target: &frozen.target, task, store: None, data: false };
    match work::run(cx, &order).await? {
        Outcome::Wait(wait) => Ok(Some(wait)),
        Outcome::Done(_) => {
            cx.remark(format!("dropped again: {}", named(&roles)));
            Ok(None)
        }
        Outcome::Failed(fault) => {
            cx.remark(format!("{} stayed: {}", named(&roles), fault.message));
            Ok(None)
        }
    }
}

fn named(roles: &[String]) -> String {
    format!("role `{}`", roles.join("`, role `"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::record::JobRecordState;

    #[test]
    fn what_somebody_else_has_made_is_never_dropped() {
        let missing = ["app".to_owned()];
        let mut job = JobRecord {
            attempt: 1,
            ticket: String::new(),
            secret: None,
            state: JobRecordState::Closed,
            since: None,
            writes: false,
            lost: None,
            fault: None,
            report: None,
        };
        assert_eq!(made(None, &missing), Vec::<String>::new());
        assert_eq!(made(Some(&job), &missing), missing, "it died before it could tell");
        job.fault = Some(JobFault { kind: FaultKind::Circumstance, message: "it is there".into() });
        assert_eq!(made(Some(&job), &missing), Vec::<String>::new());
        job.attempt = 2;
        assert_eq!(made(Some(&job), &missing), missing, "the first attempt may have");
        (job.attempt, job.fault) = (1, None);
        job.report = Some(Box::new(Report::PgCreateRoles { created: Vec::new(), left: Vec::new() }));
        assert_eq!(made(Some(&job), &missing), Vec::<String>::new());
    }
}
