//! A moment as people write it, to which data is to come back.
//!
//! Invariant: what may mean two instants, or none, is no moment. Nobody guesses between them.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{RoundMode, Timestamp, TimestampRound, Unit, Zoned};
use thiserror::Error;

/// A text that is no moment.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Unclear {
    /// It is not written as a time is.
    #[error(
        "`{0}` is no moment: want `2026-05-01T14:03:00Z`, or `2026-05-01 14:03:00` with a zone such as `Europe/Paris` behind it where it is not {1}'s"
    )]
    NoTime(String, String),
    /// A day without its time.
    #[error("`{0}` is a whole day: say at what time, as in `{0} 14:03:00`")]
    NoTimeOfDay(String),
    /// A zone that nobody knows.
    #[error("there is no time zone `{0}`")]
    NoZone(String),
    /// Clocks were put back over it.
    #[error(
        "{reading} occurs twice in {zone}, where clocks are put back: it is {first} and, later, {second}; write the one that is meant"
    )]
    Twice {
        /// As it was written.
        reading: DateTime,
        /// Where.
        zone: String,
        /// The earlier one.
        first: Timestamp,
        /// The later one.
        second: Timestamp,
    },
    /// Clocks were put forward over it.
    #[error(
        "{reading} does not exist in {zone}, where clocks are put forward: by the clock before that it would be {before}, by the one after {after}; write the one that is meant"
    )]
    Never {
        /// As it was written.
        reading: DateTime,
        /// Where.
        zone: String,
        /// By the offset before.
        before: Timestamp,
        /// By the offset after.
        after: Timestamp,
    },
}

/// Reads a moment. Where the text has neither offset nor zone, it is a reading of the clock in `zone`.
///
/// # Errors
/// When it is no time, or not clear which instant is meant.
pub fn parse(text: &str, zone: &TimeZone) -> Result<Timestamp, Unclear> {
    let text = text.trim();
    let (reading, named) = split(text);
    if let Ok(at) = reading.parse::<Timestamp>() {
        // An offset and a zone have to agree.
        let agrees = named.is_none_or(|zone| format!("{reading}[{zone}]").parse::<Zoned>().is_ok());
        let no_time = || Unclear::NoTime(text.to_owned(), named.unwrap_or("UTC").to_owned());
        return agrees.then(|| whole_micros(at)).ok_or_else(no_time);
    }
    let zone = match named {
        Some(name) => TimeZone::get(name).map_err(|_| Unclear::NoZone(name.to_owned()))?,
        None => zone.clone(),
    };
    let name = || zone.iana_name().unwrap_or("UTC").to_owned();
    let no_time = || Unclear::NoTime(text.to_owned(), name());
    let parsed: DateTime = reading.parse().map_err(|_| no_time())?;
    if !reading.contains(':') {
        return Err(Unclear::NoTimeOfDay(reading.to_owned()));
    }
    let ambiguous = zone.to_ambiguous_timestamp(parsed);
    let (reading, zone) = (parsed, name());
    let at = |offset: jiff::tz::Offset| offset.to_timestamp(parsed).map_err(|_| no_time());
    Ok(whole_micros(match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => at(offset)?,
        AmbiguousOffset::Fold { before, after } => {
            return Err(Unclear::Twice { reading, zone, first: at(before)?, second: at(after)? });
        }
        AmbiguousOffset::Gap { before, after } => {
            return Err(Unclear::Never { reading, zone, before: at(before)?, after: at(after)? });
        }
    }))
}

/// The reading of a clock, and the zone behind it: `… Europe/Paris` or `…[Europe/Paris]`.
fn split(text: &str) -> (&str, Option<&str>) {
    if let Some((reading, zone)) = text.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
        return (reading.trim_end(), Some(zone));
    }
    match text.rsplit_once(' ') {
        Some((reading, zone)) if zone.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            (reading.trim_end(), Some(zone))
        }
        _ => (text, None),
    }
}

/// A server tells times to the microsecond.
fn whole_micros(at: Timestamp) -> Timestamp {
    let down = TimestampRound::new().smallest(Unit::Microsecond).mode(RoundMode::Floor);
    at.round(down).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paris() -> TimeZone {
        TimeZone::get("Europe/Paris").unwrap()
    }

    fn read(text: &str) -> Result<String, String> {
        parse(text, &paris()).map(|at| at.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        for (text, meant) in [
            ("2026-05-01T14:03:00Z", "2026-05-01T14:03:00Z"),
            ("2026-05-01 14:03:00+02:00", "2026-05-01T12:03:00Z"),
            ("2026-05-01 14:03:00", "2026-05-01T12:03:00Z"),
            (" 2026-05-01T14:03 ", "2026-05-01T12:03:00Z"),
            ("2026-05-01 14:03:00.123456789", "2026-05-01T12:03:00.123456Z"),
            ("2026-05-01 14:03:00 UTC", "2026-05-01T14:03:00Z"),
            ("2026-05-01 14:03:00 America/New_York", "2026-05-01T18:03:00Z"),
            ("2026-05-01T14:03:00[America/New_York]", "2026-05-01T18:03:00Z"),
            ("2026-10-25T02:30:00+02:00[Europe/Paris]", "2026-10-25T00:30:00Z"),
            ("2026-10-25T02:30:00+01:00", "2026-10-25T01:30:00Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(meant), "{text}");
        }
        assert_eq!(parse("2026-05-01 14:03:00", &TimeZone::UTC).unwrap().to_string(), "2026-05-01T14:03:00Z");
    }

    #[test]
    fn what_two_instants_or_none_may_be_meant_by_is_refused_with_both() {
        let twice = read("2026-10-25 02:30:00").unwrap_err();
        for part in ["twice in Europe/Paris", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"] {
            assert!(twice.contains(part), "{twice}");
        }
        let never = read("2026-03-29 02:30:00").unwrap_err();
        for part in ["does not exist in Europe/Paris", "2026-03-29T01:30:00Z", "2026-03-29T00:30:00Z"] {
            assert!(never.contains(part), "{never}");
        }
        assert!(read("2026-10-25 02:30:00 America/New_York").is_ok(), "only where clocks are put back then");
        assert!(read("2026-10-25 02:00:00").is_err() && read("2026-10-25 03:00:00").is_ok());
        assert!(read("2026-03-29 02:00:00").is_err() && read("2026-03-29 03:00:00").is_ok());
    }

    #[test]
    fn what_is_no_moment_says_what_one_looks_like() {
        assert!(read("2026-05-01").unwrap_err().contains("at what time"));
        assert!(read("2026-05-01 14:03:00 Europe/Atlantis").unwrap_err().contains("`Europe/Atlantis`"));
        for text in
            ["", "yesterday", "2h", "14:03", "2026-13-01 00:00:00", "2026-05-01T14:03:00+01:00[Europe/Paris]"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
