//! Windows: times at which something may begin, as in `0 2 * * SUN for 2h`.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::duration;
use super::problem::Code;
use super::schedule::Schedule;
use super::value::Fault;

/// A schedule with a length: open from each time at which it is due, for so long.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// When it opens.
    pub opens: Schedule,
    /// For how long.
    pub lasts: Duration,
}

/// The shortest: whoever looks does so once in a while.
const SHORTEST: Duration = Duration::from_mins(5);

// === impl Window ===

impl Window {
    /// Parses one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Window, Fault> {
        let Some((opens, lasts)) = text.rsplit_once(" for ") else {
            return Err(fault("there is no ` for ` with a length behind the schedule"));
        };
        let lasts = duration::parse_positive(lasts.trim())
            .map_err(|f| fault("the length is no duration, as in `for 2h`").hint(f.hint))?;
        if lasts < SHORTEST {
            return Err(fault("it is open for less than 5 minutes, in which nobody may look"));
        }
        Ok(Window { opens: Schedule::parse(opens.trim())?, lasts })
    }

    /// When it has opened, where it is open now.
    pub fn opened(&self, now: Timestamp) -> Option<Timestamp> {
        let opened = self.opens.last_at(now)?;
        (now.duration_since(opened).unsigned_abs() < self.lasts).then_some(opened)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.opens, duration::show(self.lasts))
    }
}

fn fault(because: &str) -> Fault {
    Fault::new(Code::BadWindow).because(because)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(window: &str, now: &str) -> Option<String> {
        let opened = Window::parse(window).unwrap().opened(now.parse().unwrap());
        opened.map(|at| at.to_string())
    }

    #[test]
    fn a_window_is_open_from_its_time_on_for_as_long_as_it_says() {
        let sunday = "0 2 * * SUN for 2h";
        assert_eq!(opened(sunday, "2026-03-01T01:59:59Z"), None);
        assert_eq!(opened(sunday, "2026-03-01T02:00:00Z").as_deref(), Some("2026-03-01T02:00:00Z"));
        assert_eq!(opened(sunday, "2026-03-01T03:59:59Z").as_deref(), Some("2026-03-01T02:00:00Z"));
        assert_eq!(opened(sunday, "2026-03-01T04:00:00Z"), None);
        assert_eq!(opened(sunday, "2026-03-02T02:30:00Z"), None, "that is a Monday");
        let night = "CRON_TZ=Europe/Paris 0 23 * * * for 8h";
        assert_eq!(opened(night, "2026-03-02T05:00:00Z").as_deref(), Some("2026-03-01T22:00:00Z"));
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["0 2 * * SUN for 2h", "CRON_TZ=Europe/Paris 30 1 * * MON-FRI for 45m"] {
            assert_eq!(Window::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Window::parse("@daily  for  90m").unwrap().to_string(), "@daily for 1h30m");
    }

    #[test]
    fn what_is_no_window_says_what_is_missing() {
        for (text, because) in [
            ("0 2 * * SUN", "no ` for `"),
            ("0 2 * * SUN for ever", "no duration"),
            ("0 2 * * SUN for 1m", "less than 5 minutes"),
            ("", "no ` for `"),
        ] {
            let fault = Window::parse(text).unwrap_err();
            assert!(format!("{fault:?}").contains(because), "{text}: {fault:?}");
        }
        assert!(Window::parse("99 2 * * SUN for 2h").is_err());
    }
}
