//! What users saw, second by second.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Sample, Verdict, Wrong};

/// The outcome of a load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// When the load began.
    pub started: Timestamp,
    /// How long it lasted, in seconds.
    pub lasted_s: f64,
    /// All requests.
    pub totals: Totals,
    /// Wrong answers by kind: `refused`, `reset`, `timeout`, `status-502`, `other`.
    pub wrong: BTreeMap<String, u64>,
    /// Time without a good answer of the application: all spans together, in seconds.
    pub downtime_total_s: f64,
    /// The longest of those spans, in seconds.
    pub downtime_longest_s: f64,
    /// The spans.
    pub downtime: Vec<Span>,
    /// The slowest answer, in milliseconds.
    pub slowest_ms: f64,
    /// Requests by the second in which they were sent.
    pub seconds: Vec<Second>,
}

/// Requests by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The application's good answers.
    pub app: u64,
    /// The application's own errors.
    pub app_error: u64,
    /// Maintenance pages.
    pub page: u64,
    /// Anything else.
    pub wrong: u64,
}

/// One second of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// What came.
    #[serde(flatten)]
    pub totals: Totals,
    /// The slowest answer to a request of this second, in milliseconds.
    pub slowest_ms: f64,
}

/// From the first request that the application did not answer well to the next that it did, in seconds since the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// When the first unanswered request was sent.
    pub from_s: f64,
    /// When the next answered one was sent, or the end of the load.
    pub to_s: f64,
}

// === impl Totals ===

impl Totals {
    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::App => self.app += 1,
            Verdict::AppError => self.app_error += 1,
            Verdict::Page => self.page += 1,
            Verdict::Wrong(_) => self.wrong += 1,
        }
    }

    /// Requests of every kind.
    pub fn all(&self) -> u64 {
        self.app + self.app_error + self.page + self.wrong
    }
}

// === impl Span ===

impl Span {
    /// Length in seconds.
    pub fn length_s(&self) -> f64 {
        self.to_s - self.from_s
    }
}

// === impl Report ===

impl Report {
    /// Sums up the samples of a load that lasted `lasted`.
    pub fn new(started: Timestamp, lasted: Duration, mut samples: Vec<Sample>) -> Self {
        samples.sort_by_key(|sample| sample.sent);
        let mut totals = Totals::default();
        let mut wrong = BTreeMap::new();
        let mut seconds = vec![Second::default(); usize::try_from(lasted.as_secs()).unwrap_or_default() + 1];
        for sample in &samples {
            totals.count(sample.verdict);
            if let Verdict::Wrong(kind) = sample.verdict {
                *wrong.entry(name(kind)).or_default() += 1;
            }
            let at = usize::try_from(sample.sent.as_secs()).unwrap_or_default();
            if let Some(second) = seconds.get_mut(at) {
                second.totals.count(sample.verdict);
                second.slowest_ms = second.slowest_ms.max(millis(sample.took));
            }
        }
        let downtime = spans(&samples, lasted);
        Self {
            started,
            lasted_s: lasted.as_secs_f64(),
            totals,
            wrong,
            downtime_total_s: downtime.iter().map(Span::length_s).fold(0.0, |sum, length| sum + length),
            downtime_longest_s: downtime.iter().map(Span::length_s).fold(0.0, f64::max),
            downtime,
            slowest_ms: seconds.iter().map(|second| second.slowest_ms).fold(0.0, f64::max),
            seconds,
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn name(wrong: Wrong) -> String {
    match wrong {
        Wrong::Refused => "refused".to_owned(),
        Wrong::Reset => "reset".to_owned(),
        Wrong::Timeout => "timeout".to_owned(),
        Wrong::Status(status) => format!("status-{status}"),
        Wrong::Other => "other".to_owned(),
    }
}

/// The times without a good answer; `samples` are in the order of sending.
fn spans(samples: &[Sample], lasted: Duration) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut since = None;
    for sample in samples {
        let at = sample.sent.as_secs_f64();
        if sample.verdict != Verdict::App {
            since.get_or_insert(at);
        } else if let Some(from_s) = since.take() {
            spans.push(Span { from_s, to_s: at });
        }
    }
    if let Some(from_s) = since {
        spans.push(Span { from_s, to_s: lasted.as_secs_f64() });
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sent_ms: u64, verdict: Verdict) -> Sample {
        Sample { sent: Duration::from_millis(sent_ms), took: Duration::from_millis(7), verdict }
    }

    fn report(samples: Vec<Sample>) -> Report {
        Report::new(Timestamp::UNIX_EPOCH, Duration::from_secs(3), samples)
    }

    #[test]
    fn downtime_runs_from_the_first_bad_answer_to_the_next_good_one() {
        let report = report(vec![
            sample(0, Verdict::App),
            sample(500, Verdict::Page),
            sample(1000, Verdict::AppError),
            sample(1500, Verdict::App),
            sample(2000, Verdict::Wrong(Wrong::Refused)),
            sample(2200, Verdict::App),
        ]);
        assert_eq!(report.downtime, [Span { from_s: 0.5, to_s: 1.5 }, Span { from_s: 2.0, to_s: 2.2 }]);
        assert!((report.downtime_total_s - 1.2).abs() < 1e-9, "{report:?}");
        assert!((report.downtime_longest_s - 1.0).abs() < 1e-9, "{report:?}");
    }

    #[test]
    fn downtime_that_does_not_end_counts_to_the_end_of_the_load() {
        let report = report(vec![sample(0, Verdict::App), sample(1000, Verdict::Page)]);
        assert_eq!(report.downtime, [Span { from_s: 1.0, to_s: 3.0 }]);
    }

    #[test]
    fn the_order_in_which_answers_came_does_not_matter() {
        let report =
            report(vec![sample(2000, Verdict::App), sample(0, Verdict::App), sample(1000, Verdict::Page)]);
        assert_eq!(report.downtime, [Span { from_s: 1.0, to_s: 2.0 }]);
    }

    #[test]
    fn requests_are_counted_in_the_second_of_their_sending() {
        let report = report(vec![
            sample(999, Verdict::App),
            sample(1000, Verdict::Wrong(Wrong::Status(502))),
            sample(1999, Verdict::Page),
            sample(2000, Verdict::AppError),
        ]);
        let counts: Vec<_> = report.seconds.iter().map(|second| second.totals).collect();
        assert_eq!(counts[0], Totals { app: 1, ..Totals::default() });
        assert_eq!(counts[1], Totals { page: 1, wrong: 1, ..Totals::default() });
        assert_eq!(counts[2], Totals { app_error: 1, ..Totals::default() });
        assert_eq!(report.totals.all(), 4);
        assert_eq!(report.wrong, BTreeMap::from([("status-502".to_owned(), 1)]));
    }
}
