//! What every task is given: who it is, where the files are, and where to tell what it does.

use std::path::PathBuf;

use crate::task::Ticket;

use crate::error::{Error, Result};
use crate::output::Output;

/// Longest `application_name` that PostgreSQL keeps.
const LONGEST_SESSION: usize = 63;

/// One run of one ticket.
pub(crate) struct Job {
    /// `application_name` of this attempt's sessions.
    pub(crate) session: String,
    /// Common beginning of the names of all attempts.
    pub(crate) fence: String,
    /// Root of the backup store.
    pub(crate) store: PathBuf,
    /// Where the service's data is, to measure room; need not exist.
    pub(crate) data: PathBuf,
    /// Where a server that is needed for a while has its files; need not exist.
    pub(crate) scratch: PathBuf,
    /// Where to tell.
    pub(crate) out: Output,
}

/// Room of a file system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Available to processes that are not root.
    pub(crate) free: u64,
    /// Its size.
    pub(crate) capacity: u64,
}

// === impl Job ===

impl Job {
    /// Refuses a ticket of a newer format, and names that the server would cut short: an attempt could then
    /// not tell its own sessions from an older one's.
    pub(crate) fn new<T>(ticket: &Ticket<T>) -> Result<Job> {
        if ticket.schema > crate::SCHEMA {
            return Err(Error::refused(format!(
                "the ticket has format {}, this runner knows {}",
                ticket.schema,
                crate::SCHEMA
            )));
        }
        let plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        if !plain(&ticket.session) || !plain(&ticket.fence) || ticket.session.len() > LONGEST_SESSION {
            return Err(Error::refused(format!("`{}` is not a session name", ticket.session)));
        }
        let root = |variable: &str, default: &str| {
            std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Ok(Job {
            session: ticket.session.clone(),
            fence: ticket.fence.clone(),
            store: root("SKEP_RUNNER_STORE", crate::STORE_PATH),
            data: root("SKEP_RUNNER_DATA", crate::DATA_PATH),
            scratch: root("SKEP_RUNNER_SCRATCH", crate::SCRATCH_PATH),
            out: Output::default(),
        })
    }

    /// Room where the data is, none where the data is not mounted.
    pub(crate) fn room(&self) -> Result<Option<Room>> {
        match rustix::fs::statvfs(&self.data) {
            Ok(stat) => Ok(Some(Room::of(&stat))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => {
                Err(Error::io(format!("cannot measure the room of {}", self.data.display()))(error.into()))
            }
        }
    }
}

// === impl Room ===

impl Room {
    /// As a file system tells.
    pub(crate) fn of(stat: &rustix::fs::StatVfs) -> Room {
        Room {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            capacity: stat.f_blocks.saturating_mul(stat.f_frsize),
        }
    }
}

/// The content of a secret's file without its trailing newline.
pub(crate) fn read_secret(path: &str) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(Error::io(format!("cannot read the secret {path}")))?;
    Ok(text
        .strip_suffix('\n')
        .map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text))
        .to_owned())
}

/// Microseconds since 1970 of a time in RFC 3339 UTC, as [`now`] and the server tell it; none where it is something else.
pub(crate) fn micros(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let (date, time) = whole.split_once('T')?;
    let numbers = |text: &str, by: char| -> Option<Vec<i64>> {
        text.split(by)
            .map(|part| part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit())))
            .collect()
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let (&[year, month, day], &[hour, minute, second]) = (date.as_slice(), time.as_slice()) else {
        return None;
    };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    // Months from March on, so that the day that comes every four years is the last of a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days =
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) * 1_000_000 + fraction / 1000)
}

/// The time of this machine, RFC 3339 UTC.
pub(crate) fn now() -> String {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    civil(time.tv_sec)
}

/// A count of seconds since 1970 as a date and a time.
pub(crate) fn civil(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1 March of year 0, in cycles of 400 years.
    let days = day + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::{civil, micros};

    #[test]
    fn dates_are_microseconds() {
        for seconds in [0, 951_782_400, 1_709_251_199, 4_107_542_399, -1] {
            assert_eq!(micros(&civil(seconds)), Some(seconds * 1_000_000), "{seconds}");
        }
        assert_eq!(micros("1970-01-01T00:00:01.25Z"), Some(1_250_000));
        for odd in
            ["", "now", "1970-01-01", "1970-01-01T00:00:00", "1970-13-01T00:00:00Z", "1970-01-01T00:00:+1Z"]
        {
            assert_eq!(micros(odd), None, "{odd}");
        }
    }

    #[test]
    fn seconds_are_dates() {
        assert_eq!(civil(0), "1970-01-01T00:00:00Z");
        assert_eq!(civil(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(civil(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(civil(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(civil(-1), "1969-12-31T23:59:59Z");
    }
}
