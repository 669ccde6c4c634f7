//! Asking the operator to wake the service: one question at a time, however many wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rand::RngExt;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::gate::Gate;
use crate::settings::Settings;
use crate::task::{Task, Token};

/// Why the operator did not agree. Says nothing of the question, which has the token.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("the address has no host")]
    Address,
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the question cannot be sent")]
    Question,
    #[error("status {0}")]
    Status(StatusCode),
    #[error("no answer in time")]
    Silent,
}

/// Asks whenever somebody waits for an application that is not there.
pub(crate) async fn ask(task: Arc<Task>, gate: Arc<Gate>, settings: Settings) {
    let question = match task.door {
        None => json!({ "service": task.service, "sleep": task.ask.sleep }),
        Some(_) => json!({ "service": task.service }),
    };
    let mut refused: u32 = 0;
    let mut is_asked = false;
    let mut next = Instant::now();
    loop {
        gate.wanted().await;
        // Somebody else may have woken it.
        gate.tried().await;
        if gate.is_up() {
            (refused, is_asked) = (0, false);
            gate.lost().await;
            continue;
        }
        if next > Instant::now() {
            tokio::select! {
                () = sleep_until(next) => {}
                () = gate.up() => {}
            }
            continue;
        }
        let turn = gate.turn().await;
        if gate.is_up() {
            continue;
        }
        let answer = timeout(settings.ask_timeout, post(&task.ask.url, &task.ask.token, &question)).await;
        let pause = match answer.unwrap_or(Err(Refusal::Silent)) {
            Ok(()) => {
                if !is_asked {
                    info!(service = task.service, "the operator was asked, and wakes the service");
                }
                (refused, is_asked) = (0, true);
                if gate.held_for().is_some() { settings.ask_held } else { settings.ask_again }
            }
            Err(why) => {
                if refused == 0 {
                    warn!(service = task.service, %why, "the operator was asked, and will be again");
                }
                if gate.held_for().is_some_and(|held| is_lifted(&why, held, &settings)) {
                    info!(service = task.service, "the service does not sleep: whoever comes is let through");
                    gate.lift();
                }
                is_asked = false;
                refused = refused.saturating_add(1);
                backoff(&settings, refused)
            }
        };
        drop(turn);
        next = Instant::now() + pause;
    }
}

/// Whether a door lets whoever it holds through to an application that is still there. The operator knows whether that sleeps
/// or is about to; where it cannot be asked, it did not begin to stop the service after so long, and does not any more.
fn is_lifted(why: &Refusal, held: Duration, settings: &Settings) -> bool {
    matches!(why, Refusal::Status(StatusCode::NOT_FOUND)) || held > settings.held
}

/// Doubled each time; shortened by up to a half, so that those whose operator was away do not come back together.
fn backoff(settings: &Settings, refused: u32) -> Duration {
    let doubled = settings.ask_first.saturating_mul(1 << refused.saturating_sub(1).min(16));
    doubled.min(settings.ask_latest).mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Asks the operator; whether it agrees.
pub(crate) async fn post(url: &str, token: &Token, question: &Value) -> Result<(), Refusal> {
    let uri: Uri = url.parse().map_err(|_| Refusal::Address)?;
    let (Some(host), Some(authority)) = (uri.host(), uri.authority()) else { return Err(Refusal::Address) };
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What goes wrong with the connection is seen by the question.
    let driver = tokio::spawn(async move { drop(connection.await) });
    let question = Request::post(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(HOST, authority.as_str())
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, format!("Bearer {}", token.reveal()))
        .body(Full::new(Bytes::from(question.to_string())))
        .map_err(|_| Refusal::Question)?;
    let answer = sender.send_request(question).await;
    driver.abort();
    match answer?.status() {
        status if status.is_success() => Ok(()),
        status => Err(Refusal::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_its_longest() {
        let settings = Settings::default();
        for (refused, longest) in [(1, 100), (2, 200), (3, 400), (7, 5_000), (u32::MAX, 5_000)] {
            let longest = Duration::from_millis(longest);
            let pause = backoff(&settings, refused);
            assert!(pause <= longest && pause >= longest / 2, "{refused}: {pause:?}");
        }
    }

    #[test]
    fn a_door_lets_through_what_does_not_sleep_and_after_a_while_what_cannot_be_asked_about() {
        let settings = Settings::default();
        let (early, late) = (settings.held, settings.held + Duration::from_secs(1));
        assert!(is_lifted(&Refusal::Status(StatusCode::NOT_FOUND), Duration::ZERO, &settings));
        for why in [Refusal::Silent, Refusal::Status(StatusCode::SERVICE_UNAVAILABLE)] {
            assert!(!is_lifted(&why, early, &settings) && is_lifted(&why, late, &settings), "{why}");
        }
    }
}
