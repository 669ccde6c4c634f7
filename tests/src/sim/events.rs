//! The event stream: a ring of the last 256 events, live subscribers, and a way to lose events.

use std::collections::VecDeque;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::filter::Filters;

const RING: usize = 256;

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    kind: &'static str,
    action: &'static str,
    id: String,
    attributes: Map<String, Value>,
    at: Timestamp,
}

/// All events.
#[derive(Debug, Default)]
pub(super) struct Events {
    ring: VecDeque<Event>,
    subscribers: Vec<(Filters, mpsc::UnboundedSender<Bytes>)>,
    lose: usize,
}

// === impl Event ===

impl Event {
    fn matches(&self, filters: &Filters) -> bool {
        filters.iter().all(|(key, values)| {
            let has = |text: &str| values.iter().any(|v| v == text);
            let name = self.attributes.get("name").and_then(Value::as_str).unwrap_or_default();
            match key.as_str() {
                "scope" => has("swarm"),
                "type" => has(self.kind),
                "event" => has(self.action),
                // The payload carries no labels, so a label filter never matches.
                "label" => false,
                kind if kind == self.kind => has(&self.id) || has(name),
                _ => false,
            }
        })
    }

    fn line(&self) -> Bytes {
        let nanos = self.at.as_nanosecond();
        let value = json!({
            "Type": self.kind,
            "Action": self.action,
            "Actor": { "ID": self.id, "Attributes": self.attributes },
            "scope": "swarm",
            "time": self.at.as_second(),
            "timeNano": i64::try_from(nanos).unwrap_or(i64::MAX),
        });
        Bytes::from(format!("{value}\n"))
    }
}

// === impl Events ===

impl Events {
    /// Sends an event, unless it gets lost.
    pub(super) fn send(
        &mut self,
        kind: &'static str,
        action: &'static str,
        id: &str,
        name: &str,
        at: Timestamp,
    ) {
        self.send_with(kind, action, id, at, [("name".to_owned(), json!(name))].into_iter().collect());
    }

    /// Sends an event with its attributes, unless it gets lost.
    pub(super) fn send_with(
        &mut self,
        kind: &'static str,
        action: &'static str,
        id: &str,
        at: Timestamp,
        attributes: Map<String, Value>,
    ) {
        if self.lose > 0 {
            self.lose -= 1;
            return;
        }
        let event = Event { kind, action, id: id.to_owned(), attributes, at };
        self.subscribers.retain(|(filters, to)| {
            if event.matches(filters) { to.send(event.line()).is_ok() } else { !to.is_closed() }
        });
        if self.ring.len() == RING {
            self.ring.pop_front();
        }
        self.ring.push_back(event);
    }

    /// Loses the next `count` events.
    pub(super) fn lose(&mut self, count: usize) {
        self.lose = count;
    }

    /// Events from `since` on as far as the ring still holds them, then those to come.
    pub(super) fn subscribe(
        &mut self,
        filters: Filters,
        since: Option<Timestamp>,
    ) -> mpsc::UnboundedReceiver<Bytes> {
        let (to, from) = mpsc::unbounded_channel();
        let past = self.ring.iter().filter(|e| since.is_some_and(|s| e.at >= s) && e.matches(&filters));
        for event in past {
            let _ = to.send(event.line());
        }
        self.subscribers.push((filters, to));
        from
    }
}
