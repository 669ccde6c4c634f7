//! Durations as people write them: `30s`, `15m`, `1h30m`, `7d`, `250ms`.

use std::time::Duration;

use super::problem::Code;
use super::value::Fault;

/// Units from large to small, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Longest duration accepted, in milliseconds: ten years.
const LONGEST: u64 = 3_650 * 86_400_000;

/// Parses a duration; zero is one.
pub fn parse(text: &str) -> Result<Duration, Fault> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let fault = |because: &str| Err(Fault::new(Code::BadDuration).because(because).hint(meant(text)));
    if text.is_empty() {
        return fault("it is empty");
    }
    let (mut rest, mut total, mut units) = (text, 0_u64, UNITS.iter());
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let letters =
            rest[digits..].len() - rest[digits..].trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (count, unit) = (&rest[..digits], &rest[digits..digits + letters]);
        if count.is_empty() || unit.is_empty() {
            return fault("each number needs its unit");
        }
        let Some((_, size)) = units.find(|(name, _)| *name == unit) else {
            return fault("units are d, h, m, s and ms, from large to small, each once");
        };
        let part = count.parse::<u64>().ok().and_then(|n| n.checked_mul(*size));
        match part.and_then(|p| p.checked_add(total)).filter(|t| *t <= LONGEST) {
            Some(sum) => total = sum,
            None => return fault("ten years is the most"),
        }
        rest = &rest[digits + letters..];
    }
    Ok(Duration::from_millis(total))
}

/// Parses a duration that is longer than nothing.
pub fn parse_positive(text: &str) -> Result<Duration, Fault> {
    match parse(text)? {
        Duration::ZERO => Err(Fault::new(Code::BadDuration).because("it must be longer than nothing")),
        longer => Ok(longer),
    }
}

/// The canonical text, `1h30m`.
pub fn show(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, size) in UNITS {
        let (count, left) = (rest / size, rest % size);
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
        rest = left;
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// What a person probably meant by a number with a spelled-out unit, or with none.
fn meant(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let count: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let (count, unit) = match unit.as_str() {
        "" | "sec" | "secs" | "second" | "seconds" => (count, "s"),
        "min" | "mins" | "minute" | "minutes" => (count, "m"),
        "hr" | "hrs" | "hour" | "hours" | "h" => (count, "h"),
        "day" | "days" | "d" => (count, "d"),
        "w" | "wk" | "week" | "weeks" => (count.checked_mul(7)?, "d"),
        _ => return None,
    };
    Some(format!("did you mean `{count}{unit}`?"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them_and_in_days() {
        for (text, seconds) in [
            ("30s", 30),
            ("15m", 900),
            ("1h30m", 5_400),
            ("7d", 604_800),
            ("0", 0),
            ("0s", 0),
            ("90m", 5_400),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        assert_eq!(parse("2s250ms").unwrap(), Duration::from_millis(2_250));
    }

    #[test]
    fn what_is_not_a_duration_is_refused_and_the_likely_one_is_named() {
        for (text, hint) in [
            ("30", "did you mean `30s`?"),
            ("15 min", "did you mean `15m`?"),
            ("2w", "did you mean `14d`?"),
            ("1 hour", "did you mean `1h`?"),
        ] {
            assert_eq!(parse(text).unwrap_err().hint.as_deref(), Some(hint), "{text}");
        }
        for text in
            ["", "h", "1h1h", "30s1m", "1.5h", "-1s", "99999999999999999999d", "4000d", "1µs", "1h 30m"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse_positive("0s").is_err());
    }

    proptest! {
        #[test]
        fn every_duration_round_trips(millis in 0..=LONGEST) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&show(duration)).unwrap(), duration);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            let _ = parse(&text);
        }
    }
}
