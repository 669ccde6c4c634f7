//! What the operator tells the waker.

use std::fmt;

use hyper::Uri;
use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::rule::{Rule, RuleError};
use crate::{HEALTH_PORT, SCHEMA};

/// Longest time that a request may be held, in seconds.
pub const LONGEST_HOLD_S: u64 = 3_600;

/// Why a task cannot be done.
#[derive(Debug, Error)]
pub enum TaskError {
    /// It was written by a newer Skep.
    #[error("the waker's task has format {0}, newer than this Skep, which knows {SCHEMA}")]
    Newer(u32),
    /// It is no task.
    #[error("the waker's task cannot be understood: {0}")]
    Form(#[from] serde_json::Error),
    /// A part of it makes no sense.
    #[error("the waker's task has {0}")]
    Value(String),
    /// One of its rules makes no sense.
    #[error("the waker's task has a rule that makes no sense: {0}")]
    Rule(#[from] RuleError),
}

/// All that a waker is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Format version, [`crate::SCHEMA`].
    pub schema: u32,
    /// Full name of the service that sleeps.
    pub service: String,
    /// Names of the networks on which the application is looked for; empty for whichever Swarm's name service takes first.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Ports on which the application listens, and so the waker does.
    pub ports: Vec<Port>,
    /// What becomes of a request that comes before the application is there.
    pub mode: Mode,
    /// How long a request or connection is held, in seconds.
    pub timeout_s: u64,
    /// What `Retry-After` says, in seconds.
    pub retry_after_s: u32,
    /// How the service is asked for.
    pub ask: Ask,
    /// What is answered without asking for the service.
    #[serde(default)]
    pub ignore: Vec<Rule>,
    /// The page for people.
    pub html: String,
    /// The page for programs.
    pub json: String,
    /// What it does besides where it is a door: it stands before the service for good, and not in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<Door>,
}

/// What makes a waker a door.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// When the operator is asked to let the service sleep; never where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<Unused>,
}

/// When a door asks for the sleep of the service, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// For how long nobody must have used it through the door, in seconds.
    pub after_s: u64,
    /// Where the operator listens, `http://…/v1/sleep`.
    pub url: String,
}

/// One port of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// TCP port.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1, or HTTP/2 in clear text where the client begins with it.
    Http,
    /// Anything; connections are passed through as they are.
    Tcp,
}

/// What becomes of a request that comes before the application is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It waits.
    Hold,
    /// It is answered by a page, status 503. Connections of [`Protocol::Tcp`] wait: there is no page for them.
    Page,
}

/// How the service is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Where the operator listens, `http://…/v1/wake`.
    pub url: String,
    /// What the operator wants to see.
    pub token: Token,
    /// Id of the operation that put the service to sleep; of a door its own name.
    pub sleep: String,
}

/// A secret; never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

// === impl Token ===

impl Token {
    /// Takes the secret in.
    pub fn new(secret: impl Into<String>) -> Token {
        Token(secret.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl Task ===

impl Task {
    /// Reads and checks a task.
    ///
    /// # Errors
    /// When it is of a newer format, is no task, or makes no sense.
    pub fn read(text: &str) -> Result<Task, TaskError> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        // First, so that what a newer Skep may have changed does not hide that it is newer.
        let head: Head = serde_json::from_str(text)?;
        if head.schema > SCHEMA {
            return Err(TaskError::Newer(head.schema));
        }
        let task: Task = serde_json::from_str(text)?;
        task.check()?;
        Ok(task)
    }

    /// The port on which a waker tells the health check of its container that it listens: the first that speaks HTTP,
    /// else one of the loopback interface that the task does not have.
    pub fn health_port(&self) -> u16 {
        let http = self.ports.iter().find(|p| p.protocol == Protocol::Http);
        let is_free = |port: &u16| self.ports.iter().all(|p| p.port != *port);
        http.map(|p| p.port).or_else(|| (HEALTH_PORT..).find(is_free)).unwrap_or(HEALTH_PORT)
    }

    /// Refuses what no waker can do.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn check(&self) -> Result<(), TaskError> {
        if self.schema > SCHEMA {
            return Err(TaskError::Newer(self.schema));
        }
        let wrong = |what: &str| Err(TaskError::Value(what.to_owned()));
        if !is_name(&self.service) {
            return wrong("no name of a service");
        }
        if self.ports.is_empty() {
            return wrong("no port");
        }
        for (at, port) in self.ports.iter().enumerate() {
            if port.port == 0 {
                return wrong("the port 0");
            }
            if self.ports[..at].iter().any(|p| p.port == port.port) {
                return Err(TaskError::Value(format!("the port {} twice", port.port)));
            }
        }
        if !(1..=LONGEST_HOLD_S).contains(&self.timeout_s) {
            return Err(TaskError::Value(format!("a timeout that is not within 1 and {LONGEST_HOLD_S} s")));
        }
        if self.retry_after_s == 0 {
            return wrong("no time after which to come again");
        }
        self.ask.check()?;
        if let Some(unused) = self.door.as_ref().and_then(|door| door.unused.as_ref()) {
            if unused.after_s == 0 {
                return wrong("no time without use");
            }
            if !is_address(&unused.url) {
                return wrong("no address `http://…` at which to ask for the sleep");
            }
        }
        self.ignore.iter().try_for_each(|rule| rule.check().map_err(TaskError::Rule))
    }
}

/// Plain HTTP, to some host.
fn is_address(url: &str) -> bool {
    let is_plain = |u: Uri| u.scheme_str() == Some("http") && u.host().is_some_and(|h| !h.is_empty());
    url.parse::<Uri>().is_ok_and(is_plain)
}

/// As Swarm names services.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

// === impl Ask ===

impl Ask {
    fn check(&self) -> Result<(), TaskError> {
        let wrong = |what: &str| Err(TaskError::Value(what.to_owned()));
        if !is_address(&self.url) {
            return wrong("no address `http://…` at which to ask for the service");
        }
        if self.token.0.is_empty() || HeaderValue::from_str(&self.token.0).is_err() {
            return wrong("a token that cannot be sent");
        }
        if !is_name(&self.sleep) {
            return wrong("no id of the sleep");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> serde_json::Value {
        serde_json::json!({
            "schema": 1,
            "service": "shop_app",
            "networks": ["shop_default"],
            "ports": [{"port": 8080, "protocol": "http"}, {"port": 5432, "protocol": "tcp"}],
            "mode": "hold",
            "timeout_s": 60,
            "retry_after_s": 5,
            "ask": {"url": "http://skep:9180/v1/wake", "token": "s3cret", "sleep": "20261128-1"},
            "ignore": [{"path": "/health*"}, {"agent": "*bot*"}, {"source": "10.0.0.0/8"}],
            "html": "<p>soon</p>",
            "json": "{}",
        })
    }

    #[test]
    fn a_task_is_read_and_written_the_same() {
        let task = Task::read(&text().to_string()).unwrap();
        assert_eq!(task.ports[1], Port { port: 5432, protocol: Protocol::Tcp });
        assert_eq!(task.mode, Mode::Hold);
        assert_eq!(task.ignore[1], Rule::Agent("*bot*".to_owned()));
        assert_eq!(serde_json::to_value(&task).unwrap(), text());
    }

    #[test]
    fn a_task_without_rules_ignores_nothing() {
        let mut text = text();
        text.as_object_mut().unwrap().remove("ignore");
        assert_eq!(Task::read(&text.to_string()).unwrap().ignore, []);
    }

    #[test]
    fn a_newer_task_is_refused_whatever_else_it_says() {
        let error = Task::read(r#"{"schema": 2, "service": {"new": true}}"#).unwrap_err();
        assert_eq!(error.to_string(), "the waker's task has format 2, newer than this Skep, which knows 1");
    }

    #[test]
    fn the_health_check_asks_an_http_port_or_one_that_is_free() {
        let mut task = Task::read(&text().to_string()).unwrap();
        assert_eq!(task.health_port(), 8080);
        task.ports = vec![Port { port: HEALTH_PORT, protocol: Protocol::Tcp }];
        assert_eq!(task.health_port(), HEALTH_PORT + 1);
    }

    #[test]
    fn the_token_is_not_shown() {
        let task = Task::read(&text().to_string()).unwrap();
        assert!(!format!("{task:?}").contains("s3cret"));
        assert_eq!(task.ask.token.reveal(), "s3cret");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (at, value, part) in [
            ("/service", serde_json::json!(""), "no name of a service"),
            ("/service", serde_json::json!("shop.app"), "no name of a service"),
            ("/ports", serde_json::json!([]), "no port"),
            ("/ports/0/port", serde_json::json!(0), "the port 0"),
            ("/ports/0/port", serde_json::json!(5432), "the port 5432 twice"),
            ("/timeout_s", serde_json::json!(0), "a timeout"),
            ("/timeout_s", serde_json::json!(3601), "a timeout"),
            ("/retry_after_s", serde_json::json!(0), "no time after which"),
            ("/ask/url", serde_json::json!("https://skep/v1/wake"), "no address"),
            ("/ask/url", serde_json::json!("/v1/wake"), "no address"),
            ("/ask/token", serde_json::json!(""), "a token that cannot be sent"),
            ("/ask/token", serde_json::json!("a\nb"), "a token that cannot be sent"),
            ("/ask/sleep", serde_json::json!("a b"), "no id of the sleep"),
            ("/ignore/0/path", serde_json::json!(""), "a rule that makes no sense"),
            (
                "/door",
                serde_json::json!({"unused": {"after_s": 0, "url": "http://skep/v1/sleep"}}),
                "no time without use",
            ),
            ("/door", serde_json::json!({"unused": {"after_s": 60, "url": "skep"}}), "ask for the sleep"),
        ] {
            let mut text = text();
            match at {
                "/door" => text["door"] = value,
                _ => *text.pointer_mut(at).unwrap() = value,
            }
            let error = Task::read(&text.to_string()).unwrap_err().to_string();
            assert!(error.contains(part), "{at}: {error}");
        }
    }
}
