//! Whether services are used, as the Prometheus of the configuration tells.
//!
//! Invariants: only a number that is zero all the while means that nobody uses a service; no value, no answer and no Prometheus
//! mean that somebody may. Nothing is remembered: how long it was zero is a part of the question, so another leader knows as
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
use crate::policy::{self, Idle};
use crate::swarm::object::Service;

/// Longest time for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time for all of them: who asks has schedules to meet.
const ALL: Duration = Duration::from_secs(10);
/// Questions at once.
const AT_ONCE: usize = 4;
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

/// Names of the services that nobody has used for as long as their labels want. What cannot be asked now is none of them.
pub async fn unused(settings: &Settings, services: &[Service]) -> BTreeSet<String> {
    let mut asked = Vec::new();
    for service in services {
        if let Some(idle) = policy::parse(&service.labels()).policy.scale.and_then(|scale| scale.idle)
            && !is_asleep(&service.spec)
        {
            asked.push((service.name().to_owned(), idle));
        }
    }
    let answers =
        stream::iter(asked).map(|(name, idle)| unless_used(settings.prometheus.clone(), name, idle));
    let in_time = answers.buffer_unordered(AT_ONCE).take_until(tokio::time::sleep(ALL));
    let answers: Vec<Option<String>> = in_time.collect().await;
    answers.into_iter().flatten().collect()
}

/// The name of a service if nobody has used it.
async fn unless_used(prometheus: Option<String>, name: String, idle: Idle) -> Option<String> {
    let Some(url) = prometheus else {
        warn!(
            service = name,
            "it cannot fall asleep for want of use: no Prometheus is named (SKEP_PROMETHEUS_URL)"
        );
        return None;
    };
    match is_unused(&url, &idle).await {
        Ok(is_unused) => is_unused.then_some(name),
        Err(why) => {
            warn!(service = name, "whether it is used is not known: {why}");
            None
        }
    }
}

/// Whether the expression was zero all the while.
///
/// # Errors
/// When Prometheus cannot be asked.
pub async fn is_unused(prometheus: &str, idle: &Idle) -> Result<bool, Unknown> {
    let question = question(idle);
    let asked = tokio::time::timeout(PATIENCE, post(prometheus, &question));
    let body = asked.await.map_err(|_| Unknown::Silent)??;
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| Unknown::Answer)?;
    match answer.data {
        Some(Data::Vector(samples)) => {
            Ok(!samples.is_empty()
                && samples.iter().all(|s| s.value.1.parse::<f64>().is_ok_and(|v| v == 0.0)))
        }
        Some(Data::Other) | None => Err(Unknown::Refused { status: 200, what: answer.error }),
    }
}

/// The greatest value in all that time.
fn question(idle: &Idle) -> String {
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
