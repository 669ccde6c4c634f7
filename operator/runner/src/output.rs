//! The JSON lines on standard output. The only place that prints, so the only one that has to keep
//! secrets back: each line passes [`Output::redact`].

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::line::{Fault, FaultKind, Line, Progress};
use crate::task::Report;

/// Shortest time between two progress lines.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Longest text of one part of a report, in bytes; escaped twice it stays under Docker's 16 KiB.
const PART: usize = 4096;

/// The lines of one job.
#[derive(Default)]
pub struct Output {
    secrets: Mutex<Vec<String>>,
    told: Mutex<Option<Instant>>,
}

// === impl Output ===

impl Output {
    /// From now on `secret` never appears in a line.
    pub fn keep_back(&self, secret: &str) {
        let mut secrets = lock(&self.secrets);
        if !secret.is_empty() && !secrets.iter().any(|known| known == secret) {
            secrets.push(secret.to_owned());
        }
    }

    /// `text` with every secret replaced.
    pub(crate) fn redact(&self, text: &str) -> String {
        lock(&self.secrets).iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
    }

    /// Tells how far the job is, at most twice a second; `done` and `total` in bytes.
    pub fn progress(&self, phase: &str, done: u64, total: Option<u64>) {
        let mut told = lock(&self.told);
        if told.is_some_and(|told| told.elapsed() < PROGRESS_EVERY) {
            return;
        }
        *told = Some(Instant::now());
        print(&Line::Progress(Progress { phase: phase.to_owned(), done, total }));
    }

    /// Prints the report, cut into parts.
    pub fn report(&self, report: &Report) {
        let text = serde_json::to_string(report).expect("a report has string keys only");
        let parts = cut(&text);
        let of = parts.len() as u32;
        for (part, text) in (0..).zip(parts) {
            print(&Line::Report { part, of, text: text.to_owned() });
        }
    }

    /// Prints why the job ends.
    pub fn fault(&self, kind: FaultKind, message: &str) {
        print(&Line::Fault(Fault { kind, message: self.redact(message) }));
    }
}

/// Cuts at character boundaries.
fn cut(mut text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while text.len() > PART {
        let (part, rest) = text.split_at(text.floor_char_boundary(PART));
        parts.push(part);
        text = rest;
    }
    parts.push(text);
    parts
}

/// A closed standard output must not end the work: the exit code decides.
fn print(line: &Line) {
    let mut text = serde_json::to_string(line).expect("a line has string keys only");
    text.push('\n');
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_join_to_the_text_whatever_its_characters() {
        let text = "é\u{1F41D}x\"\\".repeat(5000);
        let parts = cut(&text);
        assert!(parts.len() > 1);
        assert!(parts.iter().all(|part| part.len() <= PART));
        assert_eq!(parts.concat(), text);
    }

    #[test]
    fn no_secret_is_left_in_a_text() {
        let out = Output::default();
        out.keep_back("s3cret");
        out.keep_back("");
        assert_eq!(out.redact("password \"s3cret\" refused"), "password \"[redacted]\" refused");
    }
}
