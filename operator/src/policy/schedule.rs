//! Schedules: five-field cron with POSIX weekdays in a time zone, `@daily` and the like, and `@every 15m`.
//!
//! The `cron` crate runs on civil time: it is asked on wall-clock readings written as if they were UTC, and the
//! answer is placed in the zone here. So a reading that a change of clocks skips runs late, at the first instant
//! after the gap, and a reading that occurs twice runs once, the first time.
//!
//! As in every crontab, when day of month *and* day of week are restricted (neither begins with `*`), a day that
//! matches either will do; the crate would want both, so such an expression becomes two schedules.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{Datelike, NaiveDate, Timelike, Utc};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::duration;
use super::problem::Code;
use super::value::Fault;

/// Names of the fields with what they may hold, in order.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31"),
    ("month", "1-12 or JAN-DEC"),
    ("day of week", "0-7 (0 and 7 are Sunday) or SUN-SAT"),
];
/// Words for common expressions.
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
/// Nothing runs more often than cron itself could.
const SHORTEST: Duration = Duration::from_secs(60);
/// Nothing runs less often: a 29 February on one weekday comes every 40 years at the latest.
const RAREST: Duration = Duration::from_secs(60 * 366 * 86_400);

/// When something is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// At wall-clock times.
    Cron(Cron),
    /// `@every 15m`: at the multiples of the interval since 1970, so that every replica of Skep agrees on them.
    Every(Duration),
}

/// Wall-clock times in a zone. Comes due at least once: an expression that never does is refused.
#[derive(Clone, Debug)]
pub struct Cron {
    expression: String,
    /// As named by `CRON_TZ`; UTC where absent.
    zone: Option<TimeZone>,
    /// A reading that matches any of these is due: two where days of month and of week are both restricted.
    any: Vec<cron::Schedule>,
}

type Civil = chrono::DateTime<Utc>;

// === impl Schedule ===

impl Schedule {
    /// Parses one schedule.
    pub fn parse(text: &str) -> Result<Schedule, Fault> {
        let (zone, rest) = split_zone(text)?;
        if let Some(interval) = rest.strip_prefix("@every") {
            if zone.is_some() {
                return Err(fault("an interval is the same in every time zone: leave CRON_TZ out"));
            }
            return every(interval.trim());
        }
        let expression = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        let cron = Cron { any: compile(&expression)?, expression, zone };
        match cron.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(Schedule::Cron(cron)),
            None => Err(Fault::new(Code::NeverDue).because("no date matches it")),
        }
    }

    /// The first time after `after` at which it is due. None when there is none before the year 2101.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Cron(cron) => cron.next_after(after),
            Schedule::Every(interval) => {
                let step = i64::try_from(interval.as_secs()).ok()?;
                let count = after.as_second().checked_div_euclid(step)?.checked_add(1)?;
                Timestamp::from_second(count.checked_mul(step)?).ok()
            }
        }
    }

    /// The last time at or before `now` at which it was due.
    pub fn last_at(&self, now: Timestamp) -> Option<Timestamp> {
        // Looks back ever further, so that few times are counted through, whatever the rhythm.
        let mut back = SHORTEST;
        while back < RAREST {
            let due = |after: Timestamp| self.next_after(after).filter(|t| *t <= now);
            if let Some(first) = due(now.checked_sub(back).ok()?) {
                return std::iter::successors(Some(first), |t| due(*t)).last();
            }
            back *= 2;
        }
        None
    }

    /// The zone in which its days begin and end.
    pub fn zone(&self) -> TimeZone {
        match self {
            Schedule::Cron(Cron { zone: Some(zone), .. }) => zone.clone(),
            Schedule::Cron(_) | Schedule::Every(_) => TimeZone::UTC,
        }
    }

    /// Whether it carries a time zone, or needs none.
    pub fn is_zoned(&self) -> bool {
        match self {
            Schedule::Cron(cron) => cron.zone.is_some(),
            Schedule::Every(_) => true,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Cron(cron) => cron.fmt(f),
            Schedule::Every(interval) => write!(f, "@every {}", duration::show(*interval)),
        }
    }
}

// === impl Cron ===

impl Cron {
    fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let zone = self.zone.clone().unwrap_or(TimeZone::UTC);
        let mut reading = to_chrono(zone.to_datetime(after))?;
        loop {
            // In the second pass through a repeated hour the readings of that hour have had their turn.
            reading = self.any.iter().filter_map(|s| s.after(&reading).next()).min()?;
            let due = instant(&zone, to_jiff(reading)?)?;
            if due > after {
                return Some(due);
            }
        }
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Cron) -> bool {
        self.expression == other.expression && self.zone == other.zone
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.zone.as_ref().and_then(TimeZone::iana_name) {
            write!(f, "CRON_TZ={name} ")?;
        }
        f.write_str(&self.expression)
    }
}

// === free functions ===

fn fault(because: impl Into<String>) -> Fault {
    Fault::new(Code::BadSchedule).because(because)
}

fn split_zone(text: &str) -> Result<(Option<TimeZone>, &str), Fault> {
    let Some(named) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) else {
        return Ok((None, text));
    };
    let (name, rest) = named.split_once(char::is_whitespace).unwrap_or((named, ""));
    match TimeZone::get(name) {
        Ok(zone) if zone.iana_name().is_some() => Ok((Some(zone), rest.trim_start())),
        _ => Err(fault(format!("`{name}` is not a time zone; they are named like `Europe/Paris`"))),
    }
}

fn every(interval: &str) -> Result<Schedule, Fault> {
    let parsed = duration::parse(interval)
        .map_err(|f| fault("`@every` needs a duration, as in `@every 15m`").hint(f.hint))?;
    if parsed < SHORTEST || parsed.subsec_nanos() != 0 {
        return Err(fault("an interval is at least `1m`, in whole seconds"));
    }
    Ok(Schedule::Every(parsed))
}

/// Five fields or a word → what the crate understands.
fn compile(expression: &str) -> Result<Vec<cron::Schedule>, Fault> {
    let expression = match expression.strip_prefix('@') {
        Some(_) => word(expression)?,
        None => expression,
    };
    let fields: Vec<&str> = expression.split(' ').filter(|f| !f.is_empty()).collect();
    let &[minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(wrong_count(&fields));
    };
    for (index, field) in [minute, hour, day, month].into_iter().enumerate() {
        check_field(index, field)?;
    }
    let weekdays = weekday_numbers(weekday).map_err(|why| wrong_field(4, weekday, &why))?;
    let build = |day: &str, weekdays: &str| {
        cron::Schedule::from_str(&format!("0 {minute} {hour} {day} {month} {weekdays}"))
            .map_err(|e| fault(e.to_string()))
    };
    if day.starts_with('*') || weekday.starts_with('*') {
        return Ok(vec![build(day, &weekdays)?]);
    }
    Ok(vec![build(day, "*")?, build("*", &weekdays)?])
}

fn word(text: &str) -> Result<&'static str, Fault> {
    let found = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, expression)| *expression).ok_or_else(|| {
        let near = super::value::nearest(text, WORDS.iter().map(|(name, _)| *name));
        fault("the words are @hourly, @daily, @weekly, @monthly, @yearly and @every").hint(near)
    })
}

fn wrong_count(fields: &[&str]) -> Fault {
    let fault = fault(format!("it has {} fields", fields.len()));
    match fields {
        ["0", rest @ ..] if rest.len() == 5 => {
            fault.hint(format!("there is no field for seconds: did you mean `{}`?", rest.join(" ")))
        }
        _ if fields.len() == 6 => fault.hint("there is no field for seconds, and none for years".to_owned()),
        _ => fault,
    }
}

fn wrong_field(index: usize, field: &str, why: &str) -> Fault {
    let (name, range) = FIELDS[index];
    fault(format!(
        "the {name} `{field}` {why}; it takes {range}, `*`, lists `1,2`, ranges `1-5` and steps `*/5`"
    ))
}

/// Asks the crate about one field alone, so that the message can name it.
fn check_field(index: usize, field: &str) -> Result<(), Fault> {
    let plain = field.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '*' | ',' | '/' | '-'));
    let mut alone = ["*"; 4];
    alone[index] = field;
    if plain && cron::Schedule::from_str(&format!("0 {} *", alone.join(" "))).is_ok() {
        return Ok(());
    }
    Err(wrong_field(index, field, "is not understood"))
}

/// A POSIX weekday field (0 and 7 = Sunday) → a list of the crate's numbers (1 = Sunday), or `*`.
fn weekday_numbers(field: &str) -> Result<String, String> {
    if field == "*" {
        return Ok("*".to_owned());
    }
    let mut days = [false; 7];
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(weekday_step(step)?)),
            None => (item, None),
        };
        let (first, last) = weekday_range(range, step.is_some())?;
        for day in (first..=last).step_by(step.unwrap_or(1)) {
            days[day % 7] = true;
        }
    }
    let numbers: Vec<String> = (0..7).filter(|d| days[*d]).map(|d| (d + 1).to_string()).collect();
    Ok(numbers.join(","))
}

fn weekday_step(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=7).contains(n)).ok_or_else(|| "has a step that is not 1-7".to_owned())
}

/// First and last day of an item, `last` up to 7. A single day with a step runs to the end of the week.
fn weekday_range(text: &str, stepped: bool) -> Result<(usize, usize), String> {
    if text == "*" {
        return Ok((0, 6));
    }
    let Some((first, last)) = text.split_once('-') else {
        let day = weekday(text)?;
        return Ok(if stepped { (day % 7, 6) } else { (day, day) });
    };
    let (first, last) = (weekday(first)?, weekday(last)?);
    let (first, last) = match (first, last) {
        (7, 0 | 7) => (0, 0),
        (7, last) => (0, last),
        (first, 0) if first > 0 => (first, 7),
        both => both,
    };
    if first > last { Err("has a range that runs backwards".to_owned()) } else { Ok((first, last)) }
}

fn weekday(text: &str) -> Result<usize, String> {
    if let Ok(number) = text.parse::<usize>() {
        return if number <= 7 { Ok(number) } else { Err("is out of range".to_owned()) };
    }
    let name = text.to_ascii_lowercase();
    let found = WEEKDAYS.iter().position(|full| name.len() >= 3 && full.starts_with(&name));
    found.ok_or_else(|| "is not understood".to_owned())
}

/// A wall-clock reading → the instant at which it is due.
fn instant(zone: &TimeZone, reading: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(reading).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(reading).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(reading).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            // Read with the offset that only holds after the gap, the reading lies before it.
            let before_gap = after.to_timestamp(reading).ok()?;
            zone.following(before_gap).next().map(|t| t.timestamp())
        }
    }
}

fn to_chrono(reading: DateTime) -> Option<Civil> {
    let field = |value: i8| u32::try_from(value).ok();
    let date =
        NaiveDate::from_ymd_opt(reading.year().into(), field(reading.month())?, field(reading.day())?)?;
    let (hour, minute, second) = (field(reading.hour())?, field(reading.minute())?, field(reading.second())?);
    Some(date.and_hms_opt(hour, minute, second)?.and_utc())
}

fn to_jiff(reading: Civil) -> Option<DateTime> {
    let field = |value: u32| i8::try_from(value).ok();
    let year = i16::try_from(reading.year()).ok()?;
    let (month, day) = (field(reading.month())?, field(reading.day())?);
    let (hour, minute, second) = (field(reading.hour())?, field(reading.minute())?, field(reading.second())?);
    DateTime::new(year, month, day, hour, minute, second, 0).ok()
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
