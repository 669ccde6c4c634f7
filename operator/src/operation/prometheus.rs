//! Questions to the Prometheus of the configuration.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;

/// Longest time for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer.
const LARGEST: usize = 256 * 1024;

/// Why there is no answer.
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

/// The values that an expression has now: one of each series, none where it returns nothing.
///
/// # Errors
/// When Prometheus cannot be asked, or the expression gives no instant vector.
pub async fn ask(prometheus: &str, query: &str) -> Result<Vec<f64>, Unknown> {
    let asked = tokio::time::timeout(PATIENCE, post(prometheus, query));
    let body = asked.await.map_err(|_| Unknown::Silent)??;
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| Unknown::Answer)?;
    match answer.data {
        Some(Data::Vector(samples)) => {
            Ok(samples.iter().map(|s| s.value.1.parse().unwrap_or(f64::NAN)).collect())
        }
        Some(Data::Other) => Err(Unknown::Refused { status: 200, what: "no instant vector".to_owned() }),
        None => Err(Unknown::Refused { status: 200, what: answer.error }),
    }
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
