//! Whether services are used, as the Prometheus of the configuration tells.
//!
//! Invariants: only a number that is zero all the while means that nobody uses a service, and only one above zero that somebody
//! does; no value, no answer and no Prometheus leave it as it is. Nothing is remembered: how long it was zero is a part of the question, so another leader knows as
//! much.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tracing::warn;

use crate::operation::client_spec::is_asleep;
use crate::operation::settings::Settings;
use crate::operation::sleeper::Slept;
use crate::policy::{self, Idle};
use crate::swarm::object::Service;

/// Longest time for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time for all of them: who asks has schedules to meet.
const ALL: Duration = Duration::from_secs(10);
/// Questions at once.
const AT_ONCE: usize = 4;
/// How long ago use is use now, seconds: as often as is asked.
const NOW: u64 = 20;
/// Largest answer.
const LARGEST: usize = 256 * 1024;

/// Why nobody knows whether a service is used.
#[derive(Debug, Error)]
pub enum Unknown {
    /// The address.
    #[error("`{0}` is no address of a Prometheus; want http://host:port")]
    Address(String),
    /// The connection.
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    /// The exchange.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer in time")]
    Silent,
    /// An answer that is none.
    #[error("status {status}: {what}")]
    Refused {
        /// Status.
        status: u16,
        /// What it said.
        what: String,
    },
    /// Too long or broken off.
    #[error("the answer cannot be read")]
    Answer,
}

/// What Prometheus answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Sample {
    value: (f64, String),
}

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

/// Asks about all services whose labels say how.
pub async fn ask(settings: &Settings, services: &[Service], sleepers: &[Slept]) -> Use {
    let mut asked = Vec::new();
    for service in services {
        if let Some(idle) = policy::parse(&service.labels()).policy.scale.and_then(|scale| scale.idle)
            && !is_asleep(&service.spec)
        {
            let is_low = sleepers.iter().any(|s| s.sleeper.service_id == service.id);
            let question = if is_low { Question::Used } else { Question::Unused };
            asked.push((service.name().to_owned(), question, idle));
        }
    }
    let answers = stream::iter(asked)
        .map(|(name, question, idle)| one(settings.prometheus.clone(), name, question, idle));
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
    idle: Idle,
) -> Option<(Question, String)> {
    let Some(url) = prometheus else {
        warn!(
            service = name,
            "whether it is used is not known: no Prometheus is named (SKEP_PROMETHEUS_URL)"
        );
        return None;
    };
    match is_so(&url, question, &idle).await {
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
pub async fn is_so(prometheus: &str, question: Question, idle: &Idle) -> Result<bool, Unknown> {
    let query = question.query(idle);
    let asked = tokio::time::timeout(PATIENCE, post(prometheus, &query));
    let body = asked.await.map_err(|_| Unknown::Silent)??;
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| Unknown::Answer)?;
    match answer.data {
        Some(Data::Vector(samples)) => {
            let mut values = samples.iter().map(|s| s.value.1.parse::<f64>());
            Ok(match question {
                Question::Unused => !samples.is_empty() && values.all(|value| value.is_ok_and(|v| v == 0.0)),
                Question::Used => values.any(|value| value.is_ok_and(|v| v > 0.0)),
            })
        }
        Some(Data::Other) | None => Err(Unknown::Refused { status: 200, what: answer.error }),
    }
}

// === impl Question ===

impl Question {
    fn query(self, idle: &Idle) -> String {
        match self {
            Question::Unused => all_the_while(idle),
            Question::Used => format!("max_over_time(({})[{NOW}s:5s])", idle.query),
        }
    }
}

/// The greatest value in all that time.
fn all_the_while(idle: &Idle) -> String {
    let after = idle.after.as_secs();
    let step = (after / 20).clamp(5, 60);
    format!("max_over_time(({})[{after}s:{step}s])", idle.query)
}

async fn post(prometheus: &str, query: &str) -> Result<Bytes, Unknown> {
    let wrong = || Unknown::Address(prometheus.to_owned());
    let url = format!("{}/api/v1/query", prometheus.trim_end_matches('/'));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (Some("http"), Some(host), Some(authority)) = (uri.scheme_str(), uri.host(), uri.authority()) else {
        return Err(wrong());
    };
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let body = format!("query={}", utf8_percent_encode(query, NON_ALPHANUMERIC));
    let request = Request::post(uri.path())
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| wrong())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LARGEST)
        .collect()
        .await
        .map_err(|error| if error.is::<LengthLimitError>() { Unknown::Answer } else { Unknown::Silent })?;
    driver.abort();
    let body = body.to_bytes();
    if head.status.is_success() {
        return Ok(body);
    }
    let said = serde_json::from_slice::<Answer>(&body).map(|answer| answer.error).unwrap_or_default();
    Err(Unknown::Refused { status: head.status.as_u16(), what: said })
}

#[cfg(test)]
#[path = "idle_tests.rs"]
mod tests;
