//! Times, sizes and counts as people read them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `2026-03-01 02:00:00 UTC`.
pub fn clock(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// `3 min ago`, `in 2 h`, `now`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let distance = now.duration_since(at).unsigned_abs();
    let text = rough(distance);
    match (distance.as_secs(), at <= now) {
        (0, _) => "now".to_owned(),
        (_, true) => format!("{text} ago"),
        (_, false) => format!("in {text}"),
    }
}

/// A duration in its largest unit: `45 s`, `3 min`, `5 h`, `12 days`.
pub fn rough(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..=99 => format!("{s} s"),
        s @ 100..=5_999 => format!("{} min", s / 60),
        s @ 6_000..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

/// A duration as it is measured: `0.4 s`, `12.3 s`, `3 min 05 s`, `1 h 02 min`.
pub fn exact(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=59 => format!("{:.1} s", duration.as_secs_f64()),
        60..=3_599 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// `512 B`, `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list<S: AsRef<str>>(items: &[S]) -> String {
    match items {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [most @ .., last] => {
            let most: Vec<&str> = most.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", most.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_people_say_them() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        for (at, said) in [
            ("2026-03-01T12:00:00Z", "now"),
            ("2026-03-01T11:59:15Z", "45 s ago"),
            ("2026-03-01T11:55:00Z", "5 min ago"),
            ("2026-03-01T14:30:00Z", "in 2 h"),
            ("2026-02-20T12:00:00Z", "9 days ago"),
        ] {
            assert_eq!(ago(at.parse().unwrap(), now), said);
        }
        assert_eq!(clock(now, &TimeZone::UTC), "2026-03-01 12:00:00 UTC");
        let paris = TimeZone::get("Europe/Paris").unwrap();
        assert_eq!(clock(now, &paris), "2026-03-01 13:00:00 CET");
    }

    #[test]
    fn durations_sizes_and_lists_read_well() {
        assert_eq!(exact(Duration::from_millis(440)), "0.4 s");
        assert_eq!(exact(Duration::from_secs(185)), "3 min 05 s");
        assert_eq!(exact(Duration::from_secs(3_720)), "1 h 02 min");
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1_572_864), "1.5 MiB");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(list::<&str>(&[]), "");
    }
}
