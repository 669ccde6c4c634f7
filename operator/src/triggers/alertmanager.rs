//! The payload of an Alertmanager webhook (version 4) → alerts, each judged on its own.
//!
//! Fields that this version does not know are ignored: newer releases add some. One post can mix firing and
//! resolved alerts, and one alert that cannot be read does not keep the others from being judged.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// Label of an alert that names the service which it asks Skep to restore (the second half of the opt-in).
pub const SERVICE_LABEL: &str = "skep_service";

/// More alerts than this in one post are refused: Alertmanager groups are far smaller.
const MOST: usize = 1000;

/// One alert of a post.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Whether it fires or has ended.
    pub status: Status,
    /// `alertname`.
    pub name: String,
    /// All of its labels.
    pub labels: BTreeMap<String, String>,
    /// Since when it fires; its `for:` has passed before.
    pub starts_at: Timestamp,
    /// Hash of its labels: the same when it fires again.
    pub fingerprint: String,
}

/// Whether an alert fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It fires.
    Firing,
    /// It has ended.
    Resolved,
}

/// One entry of the payload: an alert, or why it is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// An alert.
    Alert(Alert),
    /// Not an alert that can be judged.
    Unreadable(String),
}

/// A body that is no payload at all.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// Not JSON, or without the fields that every payload has.
    #[error("the body is no Alertmanager payload: {0}")]
    NotPayload(String),
    /// Another version.
    #[error("the payload has version {0:?}, and only version \"4\" is understood")]
    Version(String),
    /// Too many alerts.
    #[error("the payload holds {0} alerts, and at most {MOST} are taken at once")]
    TooMany(usize),
}

#[derive(Deserialize)]
struct Payload {
    version: String,
    alerts: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    status: Status,
    labels: BTreeMap<String, String>,
    starts_at: Timestamp,
    fingerprint: String,
}

// === impl Alert ===

impl Alert {
    /// The service that the alert names.
    pub fn service(&self) -> Option<&str> {
        self.labels.get(SERVICE_LABEL).map(String::as_str).filter(|s| !s.is_empty())
    }
}

// === impl Status ===

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Firing => "firing",
            Status::Resolved => "resolved",
        })
    }
}

/// Reads the body of a post.
///
/// # Errors
/// When the body as a whole is no payload of version 4.
pub fn read(body: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let payload: Payload = serde_json::from_slice(body).map_err(|e| Malformed::NotPayload(e.to_string()))?;
    if payload.version != "4" {
        return Err(Malformed::Version(payload.version.chars().take(20).collect()));
    }
    if payload.alerts.len() > MOST {
        return Err(Malformed::TooMany(payload.alerts.len()));
    }
    Ok(payload.alerts.into_iter().map(entry).collect())
}

fn entry(value: Value) -> Entry {
    let raw: Raw = match serde_json::from_value(value) {
        Ok(raw) => raw,
        Err(e) => return Entry::Unreadable(e.to_string()),
    };
    let Some(name) = raw.labels.get("alertname").filter(|n| !n.is_empty()).cloned() else {
        return Entry::Unreadable("it has no label `alertname`".to_owned());
    };
    let plain = (1..=64).contains(&raw.fingerprint.len())
        && raw.fingerprint.bytes().all(|b| b.is_ascii_alphanumeric());
    if !plain {
        return Entry::Unreadable("its fingerprint is not 1 to 64 letters and digits".to_owned());
    }
    Entry::Alert(Alert {
        status: raw.status,
        name,
        labels: raw.labels,
        starts_at: raw.starts_at,
        fingerprint: raw.fingerprint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn captured() -> Value {
        json!({
            "receiver": "skep", "status": "firing", "externalURL": "http://am:9093", "version": "4",
            "groupKey": "{}:{alertname=\"DbCorrupt\"}", "truncatedAlerts": 0, "groupLabels": {},
            "commonLabels": {}, "commonAnnotations": {}, "notification_reason": "a field of newer releases",
            "alerts": [{
                "status": "firing", "labels": {"alertname": "DbCorrupt", "skep_service": "shop_db"},
                "annotations": {"summary": "x"}, "startsAt": "2026-11-20T09:20:12.205697522Z",
                "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://p/g", "fingerprint": "b8e3687026fc3605"
            }]
        })
    }

    #[test]
    fn a_payload_as_alertmanager_sends_it_is_read() {
        let entries = read(captured().to_string().as_bytes()).unwrap();
        let [Entry::Alert(alert)] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((alert.name.as_str(), alert.service()), ("DbCorrupt", Some("shop_db")));
        assert_eq!(alert.starts_at.to_string(), "2026-11-20T09:20:12.205697522Z");
        assert_eq!(alert.status, Status::Firing);
    }

    #[test]
    fn one_unreadable_alert_leaves_the_others_to_be_judged() {
        for (field, value) in
            [("startsAt", json!("yesterday")), ("fingerprint", json!("../..")), ("labels", json!({}))]
        {
            let mut payload = captured();
            let mut broken = payload["alerts"][0].clone();
            broken[field] = value;
            payload["alerts"].as_array_mut().unwrap().insert(0, broken);
            let entries = read(payload.to_string().as_bytes()).unwrap();
            assert!(
                matches!(entries.as_slice(), [Entry::Unreadable(_), Entry::Alert(_)]),
                "{field}: {entries:?}"
            );
        }
    }

    #[test]
    fn what_is_no_payload_is_refused_as_a_whole() {
        let mut newer = captured();
        newer["version"] = json!("5");
        assert_eq!(read(newer.to_string().as_bytes()), Err(Malformed::Version("5".to_owned())));
        let mut many = captured();
        many["alerts"] = json!(vec![json!({}); MOST + 1]);
        assert_eq!(read(many.to_string().as_bytes()), Err(Malformed::TooMany(MOST + 1)));
        for body in ["", "{", "[]", "{\"version\":\"4\"}", "{\"version\":\"4\",\"alerts\":{}}"] {
            assert!(matches!(read(body.as_bytes()), Err(Malformed::NotPayload(_))), "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let _ = read(&body);
        }
    }
}
