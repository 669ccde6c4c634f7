//! Times, spans and sizes in words: filters of the templates.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::view::between;
use crate::swarm::object::short_hash;

/// Adds the filters `clock`, `moment`, `ago`, `span`, `bytes`, `ticks`, `capital` and `segment`.
pub(super) fn register(templates: &mut Environment<'_>) {
    templates.add_filter("clock", |at: &str| time(at).map(clock));
    templates.add_filter("moment", |at: &str, now: &str| Ok::<_, Error>(moment(time(at)?, time(now)?)));
    templates.add_filter("ago", |at: &str, now: &str| Ok::<_, Error>(ago(time(at)?, time(now)?)));
    templates
        .add_filter("span", |seconds: f64| span(Duration::try_from_secs_f64(seconds).unwrap_or_default()));
    templates.add_filter("bytes", |n: u64| bytes(n));
    templates.add_filter("ticks", |text: &str| Value::from_safe_string(ticks(text)));
    templates.add_filter("capital", capital);
    templates.add_filter("segment", |text: &str| segment(text));
}

fn time(text: &str) -> Result<Timestamp, Error> {
    text.parse().map_err(|e: jiff::Error| Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// Address of an asset; changes with its content.
pub(super) fn asset(name: &str, content: &str) -> String {
    format!("/assets/{name}?v={}", short_hash(content))
}

/// `09:20:25`.
fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// `09:20:25` today, `20 Nov 09:20` in the months around, else `2025-11-20`.
fn moment(at: Timestamp, now: Timestamp) -> String {
    let day = |t: Timestamp| t.to_zoned(TimeZone::UTC).date();
    let apart = between(at.min(now), at.max(now));
    if day(at) == day(now) {
        clock(at)
    } else if apart < Duration::from_hours(24 * 200) {
        at.strftime("%-d %b %H:%M").to_string()
    } else {
        at.strftime("%Y-%m-%d").to_string()
    }
}

/// `3 min ago`, `in 2 h`, `now`.
fn ago(at: Timestamp, now: Timestamp) -> String {
    let apart = between(at.min(now), at.max(now));
    if apart < Duration::from_secs(5) {
        "now".to_owned()
    } else if at < now {
        format!("{} ago", rough(apart))
    } else {
        format!("in {}", rough(apart))
    }
}

/// One unit, rounded down.
fn rough(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0..100 => format!("{s} s"),
        100..6_000 => format!("{} min", s / 60),
        6_000..172_800 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

/// Two units at most: `2.9 s`, `31 s`, `4 min 12 s`, `3 h 5 min`, `2 d 4 h`.
fn span(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0..10 => format!("{:.1} s", span.as_secs_f64().min(9.9)),
        10..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// `412 MB`: powers of ten, three digits.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut size = n as f64;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < units.len() {
        size /= 1_000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && size < 9.95);
    format!("{size:.digits$} {}", units[unit])
}

/// Escapes a text, and shows what stands between a pair of back-ticks as code.
fn ticks(text: &str) -> String {
    let parts: Vec<String> = text.split('`').map(escape).collect();
    let (paired, rest) = parts.split_at(parts.len() - (parts.len() + 1) % 2);
    let coded = paired
        .iter()
        .enumerate()
        .map(|(i, part)| if i % 2 == 1 { format!("<code>{part}</code>") } else { part.clone() });
    coded.chain(rest.iter().map(|part| format!("`{part}"))).collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A text as one segment of a path.
fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn spans_and_sizes_read_well() {
        for (seconds, text) in [
            (0.0, "0.0 s"),
            (2.94, "2.9 s"),
            (9.99, "9.9 s"),
            (31.4, "31 s"),
            (252.0, "4 min 12 s"),
            (11_100.0, "3 h 5 min"),
            (187_200.0, "2 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_secs_f64(seconds)), text);
        }
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (431_812_608, "432 MB"),
            (1_263_984_640, "1.3 GB"),
            (999_999, "1.0 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn code_between_ticks_is_marked_and_everything_is_escaped() {
        for (text, html) in [
            ("found `<b>`, want `7 daily`", "found <code>&lt;b&gt;</code>, want <code>7 daily</code>"),
            ("an odd ` tick & more", "an odd ` tick &amp; more"),
            ("`a` and ` b", "<code>a</code> and ` b"),
            ("\"'", "&quot;&#39;"),
            ("", ""),
        ] {
            assert_eq!(ticks(text), html);
        }
    }

    #[test]
    fn a_name_stays_one_segment_of_a_path() {
        assert_eq!(segment("shop_db-1.x"), "shop_db-1.x");
        assert_eq!(segment("a/b?c ä"), "a%2Fb%3Fc%20%C3%A4");
    }

    #[test]
    fn moments_are_told_as_exactly_as_needed() {
        let now = t("2026-11-21T09:20:50Z");
        for (at, when, since) in [
            ("2026-11-21T09:20:49Z", "09:20:49", "now"),
            ("2026-11-21T08:15:00Z", "08:15:00", "65 min ago"),
            ("2026-11-20T09:00:00Z", "20 Nov 09:00", "24 h ago"),
            ("2025-01-02T00:00:00Z", "2025-01-02", "688 d ago"),
            ("2026-11-21T11:30:00Z", "11:30:00", "in 2 h"),
        ] {
            assert_eq!((moment(t(at), now).as_str(), ago(t(at), now).as_str()), (when, since));
        }
    }
}
