//! Whether services are used, as the Prometheus of the configuration tells.
//!
//! Invariants: only a number that is zero all the while means that nobody uses a service, and only one above zero that somebody
//! does; no value, no answer and no Prometheus leave it as it is. Nothing is remembered: how long it was zero is a part of the question, so another leader knows as
//! much.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use tracing::warn;

use crate::operation::client_spec::is_asleep;
use crate::operation::prometheus::{self, Unknown};
use crate::operation::settings::Settings;
use crate::operation::sleeper::Slept;
use crate::policy::{self, Idle};
use crate::swarm::object::Service;

/// Longest time for all of them: who asks has schedules to meet.
const ALL: Duration = Duration::from_secs(10);
/// Questions at once.
const AT_ONCE: usize = 4;
/// How long ago use is use now, seconds: as often as is asked.
const NOW: u64 = 20;

/// What Prometheus tells of services. What cannot be asked now is in neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Names of those that nobody has used for as long as their labels want.
    pub unused: BTreeSet<String>,
    /// Names of those that go on with fewer replicas and that somebody uses now.
    pub used: BTreeSet<String>,
}

/// What is to be known of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether nobody has used it all the while.
    Unused,
    /// Whether somebody uses it now.
    Used,
}

/// How use is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// PromQL expression that is zero while nobody uses a service.
    pub query: String,
    /// For how long it is to have been.
    pub after: Duration,
}

/// Asks about all services whose labels say how.
pub async fn ask(settings: &Settings, services: &[Service], sleepers: &[Slept]) -> Use {
    let mut asked = Vec::new();
    for service in services {
        // What has a door is asked about when that sees nobody (`super::doors`).
        let scale = policy::parse(&service.labels()).policy.scale.filter(|scale| scale.door().is_none());
        if let Some(Idle { query: Some(query), after }) = scale.and_then(|scale| scale.idle)
            && !is_asleep(&service.spec)
        {
            let is_low = sleepers.iter().any(|s| s.sleeper.service_id == service.id);
            let question = if is_low { Question::Used } else { Question::Unused };
            asked.push((service.name().to_owned(), question, Measure { query, after }));
        }
    }
    let answers = stream::iter(asked)
        .map(|(name, question, measure)| one(settings.prometheus.clone(), name, question, measure));
    let in_time = answers.buffer_unordered(AT_ONCE).take_until(tokio::time::sleep(ALL));
    let answers: Vec<Option<(Question, String)>> = in_time.collect().await;
    let mut told = Use::default();
    for (question, name) in answers.into_iter().flatten() {
        match question {
            Question::Unused => told.unused.insert(name),
            Question::Used => told.used.insert(name),
        };
    }
    told
}

/// The name of a service if it is as was asked.
async fn one(
    prometheus: Option<String>,
    name: String,
    question: Question,
    measure: Measure,
) -> Option<(Question, String)> {
    let Some(url) = prometheus else {
        warn!(
            service = name,
            "whether it is used is not known: no Prometheus is named (SKEP_PROMETHEUS_URL)"
        );
        return None;
    };
    match is_so(&url, question, &measure).await {
        Ok(is_so) => is_so.then_some((question, name)),
        Err(why) => {
            warn!(service = name, "whether it is used is not known: {why}");
            None
        }
    }
}

/// Whether it is so, by the service's expression.
///
/// # Errors
/// When Prometheus cannot be asked.
pub async fn is_so(prometheus: &str, question: Question, measure: &Measure) -> Result<bool, Unknown> {
    let query = question.query(measure);
    let values = prometheus::ask(prometheus, &query).await?;
    Ok(match question {
        Question::Unused => !values.is_empty() && values.iter().all(|value| *value == 0.0),
        Question::Used => values.iter().any(|value| *value > 0.0),
    })
}

// === impl Question ===

impl Question {
    fn query(self, measure: &Measure) -> String {
        match self {
            Question::Unused => all_the_while(measure),
            Question::Used => format!("max_over_time(({})[{NOW}s:5s])", measure.query),
        }
    }
}

/// The greatest value in all that time.
fn all_the_while(measure: &Measure) -> String {
    let after = measure.after.as_secs();
    let step = (after / 20).clamp(5, 60);
    format!("max_over_time(({})[{after}s:{step}s])", measure.query)
}

#[cfg(test)]
#[path = "idle_tests.rs"]
mod tests;
