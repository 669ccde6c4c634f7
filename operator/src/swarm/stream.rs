//! Answers that come as streams: events and logs. Only their head has a deadline; logs must also keep flowing.

use std::collections::HashMap;
use std::future::ready;

use bollard::container::LogOutput;
use bollard::query_parameters::{EventsOptionsBuilder, LogsOptions};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::decode;
use super::engine::{Engine, docker_over, from_bollard};
use super::error::{Effect, Error, Failure};
use super::object::Event;
use super::transport::READ_DEADLINE;

/// Docker cuts log lines after so many bytes, without a mark.
const LOG_CHUNK: usize = 16 * 1024;
/// A log is not read beyond so many bytes: no job of Skep prints so much.
const LOG_LIMIT: usize = 64 * 1024 * 1024;

/// Swarm-scope events; after an error the stream ends.
pub type Events = BoxStream<'static, Result<Event, Error>>;

// === impl Engine ===

impl Engine {
    /// Subscribes to swarm-scope events. The engine has answered when this returns, so that everything that
    /// changes from then on is seen, or else the stream ends.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn events(&self) -> Result<Events, Error> {
        let what = "watching events";
        let (subscribed, mut subscription) = oneshot::channel();
        let docker = docker_over(self.transport().clone(), Some(subscribed), what)?;
        let filters = HashMap::from([("scope".to_owned(), vec!["swarm".to_owned()])]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let mut events = Box::pin(docker.events(Some(options)));
        // Bollard sends the request when the stream is first polled.
        let first = async {
            tokio::select! {
                biased;
                Ok(()) = &mut subscription => None,
                first = events.next() => Some(first),
            }
        };
        let first = match timeout(READ_DEADLINE, first).await {
            Err(_) => return Err(silent(what)),
            Ok(Some(None)) => {
                return Err(Error::from_failure(what, Effect::Read, Failure::NoAnswer("it ended".into())));
            }
            Ok(Some(Some(Err(error)))) => return Err(from_bollard(what, error)),
            Ok(Some(Some(Ok(event)))) => Some(Ok(event)),
            Ok(None) => None,
        };
        let events = stream::iter(first).chain(events);
        let events = events.map(move |e| e.map(decode::event).map_err(|e| from_bollard(what, e)));
        Ok(until_error(events).boxed())
    }

    /// What the tasks of a service have printed on standard output so far.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the service is gone.
    pub async fn logs(&self, service_id: &str) -> Result<String, Error> {
        self.last_logs(service_id, None).await
    }

    /// The last lines that the tasks of a service have printed on standard output, all where `lines` is none.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the service is gone.
    pub async fn last_logs(&self, service_id: &str, lines: Option<u32>) -> Result<String, Error> {
        let what = format!("reading the log of service {service_id}");
        let tail = lines.map_or_else(|| "all".to_owned(), |n| n.to_string());
        let options = LogsOptions { stdout: true, tail, ..LogsOptions::default() };
        let mut frames = Box::pin(self.docker().service_logs(service_id, Some(options)));
        let mut text = Vec::new();
        loop {
            match timeout(READ_DEADLINE, frames.next()).await {
                Err(_) => return Err(silent(&what)),
                Ok(Some(Err(error))) => return Err(from_bollard(&what, error)),
                Ok(Some(Ok(LogOutput::StdOut { message }))) if text.len() < LOG_LIMIT => {
                    append(&mut text, &message)
                }
                Ok(Some(Ok(_))) => {}
                Ok(None) => return Ok(String::from_utf8_lossy(&text).into_owned()),
            }
        }
    }
}

/// Adds one frame. A frame is one line, except that a long line comes in several; only the last line of a task may
/// lack its end, and must not run into that of another.
fn append(text: &mut Vec<u8>, frame: &[u8]) {
    text.extend_from_slice(frame);
    if !frame.ends_with(b"\n") && frame.len() < LOG_CHUNK {
        text.push(b'\n');
    }
}

fn silent(what: &str) -> Error {
    let message = format!("no answer within {} s", READ_DEADLINE.as_secs());
    Error::from_failure(what, Effect::Read, Failure::NoAnswer(message))
}

/// The stream up to and with its first error.
fn until_error<T, E>(
    items: impl stream::Stream<Item = Result<T, E>>,
) -> impl stream::Stream<Item = Result<T, E>> {
    items.scan(false, |failed, item| {
        let next = if *failed { None } else { Some(item) };
        *failed |= matches!(next, Some(Err(_)));
        ready(next)
    })
}
