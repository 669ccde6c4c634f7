//! The checks that are asked before an operation begins (`skep.check.<name>.phase=before`).
//!
//! Invariants: nothing is changed while they are asked; one that does not pass, or cannot be asked, refuses, or is waited for
//! where somebody said for how long; a restore is not kept waiting meanwhile; no two rounds share the name of a job.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use skep_runner::task::NetChecks;

use super::freeze::{self, Seen};
use super::record::Work;
use super::restart::is_forced;
use super::restore::prepare::{Checked, check_all};
use super::restore::trial;
use super::saga::{Cx, Fault, Progress, Wait};
use super::{canary, checks, claim, work};
use crate::policy::{Check, Section, duration};
use crate::swarm::object::Service;

/// Those that did not pass are asked again after so long.
pub const AGAIN: Duration = Duration::from_secs(10);
/// Nobody waits for longer.
pub const LONGEST: Duration = Duration::from_hours(24);
/// Meanwhile it is looked this often whether somebody else wants the service.
const LOOK: Duration = Duration::from_secs(1);

/// What the step journals.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Asking {
    /// How many rounds are over.
    #[serde(default)]
    rounds: u32,
    /// When the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Timestamp>,
    /// What did not pass in it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    said: String,
}

/// A service and what it is asked.
struct Asked<'a> {
    service: &'a Service,
    checks: &'a [Check],
}

/// Asks the checks of these services, before anything of them is touched.
///
/// # Errors
/// When one does not pass within the time that is waited; what the engine says.
pub async fn ask(cx: &mut Cx<'_>, names: &[String]) -> Result<Progress, Fault> {
    // An older version began without asking, and what it stopped cannot be asked any more.
    if cx.op.journal.step("plan").is_some() {
        return Ok(Progress::done());
    }
    let seen = Seen::load(cx).await?;
    let asked: Vec<Asked<'_>> = names.iter().filter_map(|name| of(&seen, name)).collect();
    if is_forced(cx) {
        let skipped = asked.iter().flat_map(|a| a.checks.iter().map(|c| (a.service.name(), &c.name)));
        let skipped: Vec<String> =
            skipped.map(|(service, check)| format!("`{check}` of {service}")).collect();
        if !skipped.is_empty() {
            cx.remark(format!("not asked before, as was said (`--force`): check {}", skipped.join(", ")));
        }
        return Ok(Progress::done());
    }
    let faulty = names.iter().find_map(|name| faulty(&seen, name));
    if let Some(faulty) = faulty {
        return Err(Fault::failed(format!("{faulty}; `--force` does not ask")));
    }
    let asking: Asking = cx.scratch()?;
    if let Some(ended) = asking.ended {
        if let Some(restore) = claim::restoring(cx, names).await? {
            return Err(Fault::failed(format!("{}; {} goes first", asking.said, claim::named(&restore))));
        }
        let left = AGAIN.saturating_sub(cx.since(ended));
        if !left.is_zero() {
            return Ok(waiting(&asking.said, left.min(LOOK)));
        }
    }
    match round(cx, &seen, &asked, asking.rounds).await {
        Ok(Some(progress)) => Ok(progress),
        Ok(None) => {
            let checks: usize = asked.iter().map(|a| a.checks.len()).sum();
            Ok(Progress::Done(json!({ "checks": checks, "rounds": asking.rounds + 1 })))
        }
        Err(Fault::Failed(said)) => again(cx, asking, said).await,
        Err(other) => Err(other),
    }
}

fn of<'a>(seen: &'a Seen, name: &str) -> Option<Asked<'a>> {
    let checks = seen.policies().get(name)?.policy.before.as_slice();
    let service = seen.find(name).filter(|_| !checks.is_empty())?;
    Some(Asked { service, checks })
}

/// What is wrong with the labels of a service that asks for checks before: one of them may be meant.
fn faulty(seen: &Seen, name: &str) -> Option<String> {
    let asks = |key: &String| key.starts_with("skep.check.") && key.ends_with(".phase");
    seen.find(name).filter(|service| service.labels().keys().any(asks))?;
    let problems = &seen.policies().get(name)?.problems;
    let of_checks: Vec<String> =
        problems.iter().filter(|p| p.section == Section::Check).map(ToString::to_string).collect();
    (!of_checks.is_empty()).then(|| format!("labels of {name}: {}", of_checks.join("; ")))
}

/// One service after the other; none once all checks have passed.
async fn round(
    cx: &mut Cx<'_>,
    seen: &Seen,
    asked: &[Asked<'_>],
    round: u32,
) -> Result<Option<Progress>, Fault> {
    for (nth, Asked { service, checks: wanted }) in asked.iter().enumerate() {
        let net = canary::put_to(service.name(), wanted);
        if !net.is_empty() {
            let client = freeze::client_of(cx, seen, service).await?;
            let once = NetChecks { checks: net, deadline_s: 0 };
            let key = format!("{}n{nth}", turn(round));
            let asking = trial::net_checks_within(cx, &client, &service.spec, once, &key).await?;
            if asking.is_some() {
                return Ok(asking);
            }
        }
        let sql = freeze::sql_checks(wanted);
        if !sql.is_empty() {
            let target = freeze::data_of(cx, seen, service).await?;
            let target = target.ok_or_else(|| Fault::failed(format!("{} keeps no data", service.name())))?;
            let key = format!("{}s{nth}", turn(round));
            let once = Duration::ZERO;
            match check_all(cx, &target, &target.database, sql, once, &key).await? {
                Checked::Passed => {}
                Checked::Wait(progress) => return Ok(Some(progress)),
                Checked::Failed(why) => return Err(Fault::failed(format!("{}: {why}", service.name()))),
                Checked::Unable(fault) => {
                    let (name, why) = (service.name(), fault.message);
                    return Err(Fault::failed(format!("{name}: its checks cannot be asked: {why}")));
                }
            }
        }
        let target = freeze::beside(cx, service, &[]).await?;
        let (host, key) = (target.access.connect.host.clone(), format!("{}c{nth}", turn(round)));
        let asking = checks::by_command(cx, &target, wanted, &host, Duration::ZERO, &key).await?;
        if asking.is_some() {
            return Ok(asking);
        }
    }
    Ok(None)
}

/// Begins the keys of a round's jobs, which are at most eight characters long.
fn turn(round: u32) -> String {
    format!("a{}", round % 10_000)
}

/// Refuses, or waits for the next round.
async fn again(cx: &mut Cx<'_>, asking: Asking, said: String) -> Result<Progress, Fault> {
    // Whatever was being asked when it failed.
    if let Some(wait) = work::end_all_but(cx, "").await? {
        return Ok(Progress::Wait(wait));
    }
    let began = cx.record().began;
    let waited = cx.since(began);
    match may_wait(&cx.op.intent.work) {
        Some(wait) if waited < wait => {
            // Its jobs are over: a record of each would make the journal longer with every round.
            cx.record().jobs.clear();
            let ended = Some(cx.now());
            cx.keep(&Asking { rounds: asking.rounds + 1, ended, said: said.clone() }).await?;
            Ok(waiting(&said, LOOK))
        }
        Some(wait) => Err(Fault::failed(format!(
            "{said}; that was waited for, {} long; `--force` does not ask",
            duration::show(wait)
        ))),
        None => Err(Fault::failed(format!(
            "{said}; `--wait` waits until that has passed, `--force` does not ask"
        ))),
    }
}

/// For how long the checks are waited for; none where they refuse at once.
fn may_wait(work: &Work) -> Option<Duration> {
    match work {
        Work::Restart { wait_s, .. } | Work::Update { wait_s, .. } => {
            wait_s.map(Duration::from_secs).map(|wait| wait.min(LONGEST))
        }
        _ => None,
    }
}

fn waiting(said: &str, again: Duration) -> Progress {
    Progress::Wait(Wait { again, ..Wait::new(format!("waits: {said}")) })
}
