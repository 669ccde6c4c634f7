//! Every metric of Skep, in one registry.
//!
//! Invariants: label values come from closed sets or are names of managed services, never ids or texts; gauges of
//! services and operations are derived from the view as a whole, so that a restart forgets nothing and a service
//! that is gone leaves no series behind; only the leader exports them; a scrape never sees half an observation.

mod domain;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus::{
    CounterVec, Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::view::View;
use crate::notify::Reading;
use crate::operation::door;
use crate::operation::receiver::Standing;
use crate::swarm::transport::Observed;
use crate::triggers::guard::Decision;
use domain::Domain;

/// Media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

const RECONCILE: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const REQUEST: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciled {
    /// Nothing more to do for now.
    Success,
    /// It asks to be called again.
    Requeue,
    /// It failed and will be tried again.
    Error,
}

/// What became of one post to the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every alert was judged, and the decisions are stored.
    Accepted,
    /// No or a wrong token.
    Unauthorized,
    /// Not a payload.
    Malformed,
    /// Larger than a payload may be.
    TooLarge,
    /// Could not be stored: the sender sends again.
    Unstored,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    domain: Mutex<Domain>,
    leader: IntGauge,
    reconcile: IntCounterVec,
    reconcile_duration: HistogramVec,
    reconcile_success: GaugeVec,
    queue_depth: IntGaugeVec,
    workers: IntGaugeVec,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    event_stream: IntGauge,
    resyncs: IntCounter,
    webhook: IntCounterVec,
    remediations: IntCounterVec,
    notifications: IntCounterVec,
    outbox_size: IntGauge,
    outbox_oldest: prometheus::Gauge,
    wal_received: GaugeVec,
    door_up: GaugeVec,
}

// === impl Reconciled ===

impl Reconciled {
    const ALL: [Reconciled; 3] = [Reconciled::Success, Reconciled::Requeue, Reconciled::Error];

    const fn as_str(self) -> &'static str {
        match self {
            Reconciled::Success => "success",
            Reconciled::Requeue => "requeue",
            Reconciled::Error => "error",
        }
    }
}

// === impl Outcome ===

impl Outcome {
    const ALL: [Outcome; 5] =
        [Outcome::Accepted, Outcome::Unauthorized, Outcome::Malformed, Outcome::TooLarge, Outcome::Unstored];

    const fn as_str(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::Unauthorized => "unauthorized",
            Outcome::Malformed => "malformed",
            Outcome::TooLarge => "too_large",
            Outcome::Unstored => "unstored",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// All metrics, with every combination that is known in advance at zero. `controllers` are the names of the
    /// process's controllers.
    pub fn new(version: &str, revision: &str, controllers: &[&'static str]) -> Metrics {
        let r = Registry::new();
        let metrics = Metrics {
            domain: Mutex::new(Domain::new(&r)),
            leader: gauge(&r, "leader", "Whether this replica leads."),
            reconcile: counters(
                &r,
                "reconcile_total",
                "Reconciles by how they ended.",
                &["controller", "result"],
            ),
            reconcile_duration: histograms(
                &r,
                "reconcile_duration_seconds",
                "Time that reconciles took.",
                &["controller"],
                &RECONCILE,
            ),
            reconcile_success: gauges(
                &r,
                "reconcile_last_success_timestamp_seconds",
                "When a reconcile last succeeded.",
                &["controller"],
            ),
            queue_depth: int_gauges(&r, "queue_depth", "Keys that wait for a worker.", &["controller"]),
            workers: int_gauges(&r, "workers_active", "Workers that are busy.", &["controller"]),
            requests: counters(
                &r,
                "docker_requests_total",
                "Requests to the engine by answer; code 0 where none came.",
                &["method", "endpoint", "code"],
            ),
            request_duration: histograms(
                &r,
                "docker_request_duration_seconds",
                "Time until the engine answered.",
                &["method", "endpoint"],
                &REQUEST,
            ),
            event_stream: gauge(&r, "docker_event_stream_up", "Whether the event stream is connected."),
            resyncs: counter(&r, "resyncs_total", "Full reads of the Swarm."),
            webhook: counters(
                &r,
                "alert_webhook_requests_total",
                "Posts to the webhook of Alertmanager by outcome.",
                &["outcome"],
            ),
            remediations: counters(
                &r,
                "remediations_total",
                "Decisions about alerts that were told.",
                &["decision"],
            ),
            notifications: counters(
                &r,
                "notifications_total",
                "Messages to stakeholders: sent, deferred (tried again) or rejected (never delivered).",
                &["result"],
            ),
            outbox_size: gauge(&r, "notification_outbox_size", "Operations with something yet to be told."),
            outbox_oldest: single(
                &r,
                "notification_outbox_oldest_timestamp_seconds",
                "Since when the longest waiting of them waits; 0 where none does.",
            ),
            wal_received: gauges(
                &r,
                "wal_received_timestamp_seconds",
                "Until when everything that was committed has been received, of services with skep.backup.wal; 0 where nothing was.",
                &["service"],
            ),
            door_up: gauges(
                &r,
                "door_up",
                "1 where the door of a service (skep.scale.wake.door) stands, 0 where nobody reaches the service through it.",
                &["service"],
            ),
            registry: r,
        };
        metrics.begin(version, revision, controllers);
        metrics
    }

    fn begin(&self, version: &str, revision: &str, controllers: &[&'static str]) {
        let info =
            int_gauges(&self.registry, "build_info", "This build; always 1.", &["version", "revision"]);
        info.with_label_values(&[version, revision]).set(1);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        self.registry.register(Box::new(process)).expect("it is registered once");
        for controller in controllers {
            for result in Reconciled::ALL {
                self.reconcile.with_label_values(&[*controller, result.as_str()]);
            }
            self.reconcile_duration.with_label_values(&[*controller]);
            self.reconcile_success.with_label_values(&[*controller]).set(0.0);
            self.queue_depth.with_label_values(&[*controller]).set(0);
            self.workers.with_label_values(&[*controller]).set(0);
        }
        Outcome::ALL.iter().for_each(|o| drop(self.webhook.with_label_values(&[o.as_str()])));
        Decision::NAMES.iter().for_each(|n| drop(self.remediations.with_label_values(&[*n])));
        ["sent", "deferred", "rejected"]
            .iter()
            .for_each(|n| drop(self.notifications.with_label_values(&[*n])));
    }

    /// The text that a scrape gets.
    pub fn render(&self) -> String {
        let domain = self.domain.lock().unwrap_or_else(PoisonError::into_inner);
        let families = self.registry.gather();
        drop(domain);
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("every family has samples, and memory takes them");
        String::from_utf8(text).expect("the encoder writes UTF-8")
    }

    /// Takes a view over: replaces every gauge of services and operations, counts operations that have ended since
    /// the last view.
    pub fn observe(&self, view: &View) {
        let mut domain = self.domain.lock().unwrap_or_else(PoisonError::into_inner);
        self.leader.set(i64::from(view.leads));
        domain.observe(view);
        if !view.leads {
            self.wal_received.reset();
            self.door_up.reset();
        }
    }

    /// Takes over how the receivers of write-ahead logs stand.
    pub fn receivers(&self, standings: &[Standing]) {
        self.wal_received.reset();
        for standing in standings {
            let until = standing.until.map_or(0.0, seconds);
            self.wal_received.with_label_values(&[standing.service.as_str()]).set(until);
        }
    }

    /// Takes over how doors stand.
    pub fn doors(&self, standings: &[door::Standing]) {
        self.door_up.reset();
        for standing in standings {
            let up = if standing.stands { 1.0 } else { 0.0 };
            self.door_up.with_label_values(&[standing.service.as_str()]).set(up);
        }
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, controller: &'static str, result: Reconciled, took: Duration, now: Timestamp) {
        self.reconcile.with_label_values(&[controller, result.as_str()]).inc();
        self.reconcile_duration.with_label_values(&[controller]).observe(took.as_secs_f64());
        if result != Reconciled::Error {
            self.reconcile_success.with_label_values(&[controller]).set(seconds(now));
        }
    }

    /// Sets how much a controller has to do.
    pub fn queue(&self, controller: &'static str, waiting: usize, busy: usize) {
        self.queue_depth.with_label_values(&[controller]).set(count(waiting));
        self.workers.with_label_values(&[controller]).set(count(busy));
    }

    /// Counts one request to the engine.
    pub fn requested(&self, call: &Observed) {
        let code = call.status.unwrap_or(0).to_string();
        let method = call.method.as_str();
        self.requests.with_label_values(&[method, call.template, code.as_str()]).inc();
        self.request_duration
            .with_label_values(&[method, call.template])
            .observe(call.duration.as_secs_f64());
    }

    /// Sets whether the event stream is connected.
    pub fn event_stream_is_up(&self, up: bool) {
        self.event_stream.set(i64::from(up));
    }

    /// Counts one full read of the Swarm.
    pub fn resynced(&self) {
        self.resyncs.inc();
    }

    /// Counts one post to the webhook.
    pub fn posted(&self, outcome: Outcome) {
        self.webhook.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Counts one decision about an alert, by [`Decision::name`].
    pub fn decided(&self, name: &'static str) {
        self.remediations.with_label_values(&[name]).inc();
    }

    /// Takes the outbox's meter over.
    pub fn mailed(&self, reading: &Reading) {
        let results =
            [("sent", reading.sent), ("deferred", reading.deferred), ("rejected", reading.rejected)];
        for (result, total) in results {
            let counter = self.notifications.with_label_values(&[result]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.outbox_size.set(count(reading.waiting));
        self.outbox_oldest.set(reading.oldest.map_or(0.0, seconds));
    }
}

/// Seconds since the epoch.
#[allow(clippy::cast_precision_loss, reason = "microseconds of our century fit an f64")]
fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

const VALID: &str = "names and labels are constants that a test reads";

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("skep")
}

fn add<C: prometheus::core::Collector + Clone + 'static>(r: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect(VALID);
    r.register(Box::new(collector.clone())).expect(VALID);
    collector
}

fn gauge(r: &Registry, name: &str, help: &str) -> IntGauge {
    add(r, IntGauge::with_opts(opts(name, help)))
}

fn single(r: &Registry, name: &str, help: &str) -> prometheus::Gauge {
    add(r, prometheus::Gauge::with_opts(opts(name, help)))
}

fn counter(r: &Registry, name: &str, help: &str) -> IntCounter {
    add(r, IntCounter::with_opts(opts(name, help)))
}

fn int_gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    add(r, IntGaugeVec::new(opts(name, help), labels))
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    add(r, GaugeVec::new(opts(name, help), labels))
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    add(r, IntCounterVec::new(opts(name, help), labels))
}

fn float_counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> CounterVec {
    add(r, CounterVec::new(opts(name, help), labels))
}

fn histograms(r: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let opts = HistogramOpts { common_opts: opts(name, help), buckets: buckets.to_vec() };
    add(r, HistogramVec::new(opts, labels))
}

#[cfg(test)]
mod tests;
