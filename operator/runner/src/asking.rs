//! Asking checks until they pass: what was only just started may not answer yet.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::job::Job;
use crate::line::FaultKind;
use crate::stop;
use crate::task::CheckOutcome;

/// The first pause between two rounds, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// Asks checks of these names, again and again, until all have passed or this time is over. Without a time they are asked
/// once, and a server that is away is an error; with one, that is what did not pass in the end.
pub(crate) fn until_passed(
    job: &Job,
    names: &[&str],
    deadline_s: u64,
    mut ask: impl FnMut() -> Result<Vec<CheckOutcome>>,
) -> Result<Vec<CheckOutcome>> {
    let until = Instant::now() + Duration::from_secs(deadline_s);
    let [mut pause, longest] = PAUSES;
    loop {
        let outcomes = match ask() {
            Err(error) if deadline_s > 0 && error.kind() == FaultKind::Transient => away(job, names, &error)?,
            asked => asked?,
        };
        let passed = outcomes.iter().filter(|outcome| outcome.passed).count();
        job.out.progress("check", passed as u64, Some(outcomes.len() as u64));
        if passed == outcomes.len() || Instant::now() >= until {
            return Ok(outcomes);
        }
        if stop::is_stopping() {
            return Err(Error::Stopped);
        }
        thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(longest);
    }
}

/// None of them could be asked.
fn away(job: &Job, names: &[&str], error: &Error) -> Result<Vec<CheckOutcome>> {
    if let Error::Stopped = error {
        return Err(Error::Stopped);
    }
    let detail = job.out.redact(&error.chain());
    let failed =
        |name: &&str| CheckOutcome { name: (*name).to_owned(), passed: false, detail: detail.clone() };
    Ok(names.iter().map(failed).collect())
}
