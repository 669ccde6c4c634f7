//! The values that labels take: text → typed value, and back ([`Show`]).
//!
//! Every parser gives a [`Fault`] that says what stands against the text and what was probably meant; what is
//! wanted in general is told by the [`Kind`](super::keys::Kind) of the key.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use skep_waker::Rule;
use skep_waker::task::{LONGEST_HOLD_S, Mode};

use super::duration;
use super::problem::Code;
use super::schedule::Schedule;
use super::types::{
    Engine, GoBack, Keep, Limit, MaintenanceMode, OnDeploy, Period, Phase, RestoreMode, Strategy,
};
use super::window::Window;

/// Why a text is not a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of problem it is.
    pub code: Code,
    /// What stands against this very text.
    pub because: Option<String>,
    /// What was probably meant, as a sentence.
    pub hint: Option<String>,
    /// The text without the secret that it holds, where it holds one.
    pub redacted: Option<String>,
}

/// The canonical text of a value: parsing it gives the value again.
pub trait Show {
    /// What stands between two of them.
    const BETWEEN: &str = ", ";

    /// The text.
    fn show(&self) -> String;
}

// === impl Fault ===

impl Fault {
    /// A fault with nothing more to say than what is wanted.
    pub fn new(code: Code) -> Fault {
        Fault { code, because: None, hint: None, redacted: None }
    }

    /// With what stands against the text.
    #[must_use]
    pub fn because(mut self, because: impl Into<String>) -> Fault {
        self.because = Some(because.into());
        self
    }

    /// With what was probably meant.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Option<String>>) -> Fault {
        self.hint = hint.into();
        self
    }

    /// With the text as it may be shown.
    #[must_use]
    pub fn redacted(mut self, text: impl Into<String>) -> Fault {
        self.redacted = Some(text.into());
        self
    }
}

// === impl Show ===

macro_rules! show_by_display {
    ($($name:ty),*) => { $(impl Show for $name {
        fn show(&self) -> String {
            self.to_string()
        }
    })* };
}

show_by_display!(
    bool,
    u16,
    u32,
    String,
    Keep,
    Limit,
    MaintenanceMode,
    OnDeploy,
    GoBack,
    Phase,
    RestoreMode,
    Strategy,
    Engine,
    Rule,
    Window
);

impl Show for Mode {
    fn show(&self) -> String {
        match self {
            Mode::Hold => "hold".to_owned(),
            Mode::Page => "page".to_owned(),
        }
    }
}

impl Show for Duration {
    fn show(&self) -> String {
        duration::show(*self)
    }
}

impl Show for Schedule {
    const BETWEEN: &str = "; ";

    fn show(&self) -> String {
        self.to_string()
    }
}

impl<T: Show> Show for Vec<T> {
    fn show(&self) -> String {
        self.iter().map(Show::show).collect::<Vec<_>>().join(T::BETWEEN)
    }
}

// === words ===

/// `true` or `false`.
pub fn flag(text: &str) -> Result<bool, Fault> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Fault::new(Code::BadFlag).hint(match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "1" | "t" | "y" | "true" | "enabled" => Some("did you mean `true`?".to_owned()),
            "no" | "off" | "0" | "f" | "n" | "false" | "disabled" => Some("did you mean `false`?".to_owned()),
            other => nearest(other, ["true", "false"]),
        })),
    }
}

/// One of the words of a closed set.
fn choice<T: Copy + Display>(text: &str, all: &[T]) -> Result<T, Fault> {
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    match words.iter().position(|word| word == text) {
        Some(index) => Ok(all[index]),
        None => Err(Fault::new(Code::BadChoice).hint(nearest(text, words.iter().map(String::as_str)))),
    }
}

/// What an alert may do.
pub fn restore_mode(text: &str) -> Result<RestoreMode, Fault> {
    choice(text, &RestoreMode::ALL)
}

/// When a check is asked.
pub fn phase(text: &str) -> Result<Phase, Fault> {
    choice(text, &Phase::ALL)
}

/// Where a restore builds.
pub fn strategy(text: &str) -> Result<Strategy, Fault> {
    choice(text, &Strategy::ALL)
}

/// What becomes of a sleeper that is deployed.
pub fn on_deploy(text: &str) -> Result<OnDeploy, Fault> {
    choice(text, &OnDeploy::ALL)
}

/// A PromQL expression.
pub fn query(text: &str) -> Result<String, Fault> {
    let because = match text.trim() {
        "" => "it is empty",
        text if text.len() > 4_000 => "it is longer than 4000 characters",
        text => return Ok(text.to_owned()),
    };
    Err(Fault::new(Code::BadText).because(because))
}

/// A regular expression.
pub(super) fn regex(text: &str) -> Result<regex::Regex, Fault> {
    if text.is_empty() {
        return Err(Fault::new(Code::BadRegex).because("it is empty, which everything matches"));
    }
    regex::Regex::new(text).map_err(|error| {
        let last = error.to_string().lines().last().unwrap_or_default().to_owned();
        let plain = format!("to look for this very text, write `{}`", regex::escape(text));
        Fault::new(Code::BadRegex).because(last.trim_start_matches("error: ")).hint(plain)
    })
}

/// A regular expression that tells some lines from others.
pub fn line_regex(text: &str) -> Result<String, Fault> {
    match regex(text)?.is_match("") {
        true => Err(Fault::new(Code::BadRegex).because("it matches an empty line, and so may match any")),
        false => Ok(text.to_owned()),
    }
}

/// A time without use: shorter ones nobody can measure.
pub fn idle_after(text: &str) -> Result<Duration, Fault> {
    let after = duration::parse_positive(text)?;
    if after < Duration::from_secs(60) {
        return Err(Fault::new(Code::BadDuration).because("at least a minute"));
    }
    Ok(after)
}

/// How long a request may be held: no longer than a waker holds one.
pub fn wake_timeout(text: &str) -> Result<Duration, Fault> {
    let timeout = duration::parse_positive(text)?;
    if timeout > Duration::from_secs(LONGEST_HOLD_S) {
        return Err(Fault::new(Code::BadDuration).because("at most an hour"));
    }
    Ok(timeout)
}

/// What a request gets that comes while its service sleeps.
pub fn wake_mode(text: &str) -> Result<Mode, Fault> {
    let modes = [Mode::Hold, Mode::Page];
    let words = modes.map(|mode| mode.show());
    match words.iter().position(|word| word == text) {
        Some(index) => Ok(modes[index]),
        None => Err(Fault::new(Code::BadChoice).hint(nearest(text, words.iter().map(String::as_str)))),
    }
}

/// What goes back on a red flag.
pub fn go_back(text: &str) -> Result<GoBack, Fault> {
    let words = GoBack::ALL.map(|word| word.to_string());
    match words.iter().position(|word| word == text) {
        Some(index) => Ok(GoBack::ALL[index]),
        None => Err(Fault::new(Code::BadChoice).hint(nearest(text, words.iter().map(String::as_str)))),
    }
}

/// A rule of what wakes nobody.
pub fn rule(text: &str) -> Result<Rule, Fault> {
    text.parse::<Rule>().map_err(|error| Fault::new(Code::BadText).because(error.to_string()))
}

/// A data engine that this version knows how to handle.
pub fn engine(text: &str) -> Result<Engine, Fault> {
    let text = if text == "postgresql" { "postgres" } else { text };
    choice(text, &Engine::ALL)
}

/// How the maintenance page gets in front of users, as far as this version can do it.
pub fn maintenance_mode(text: &str) -> Result<MaintenanceMode, Fault> {
    match text {
        "swap" => Ok(MaintenanceMode::Swap),
        "proxy" => Ok(MaintenanceMode::Proxy),
        later if later == "standin" || later.starts_with("config:") => Err(Fault::new(Code::NotYet)
            .because(format!("`{later}` is known, but this version of Skep does `swap` and `proxy` only"))),
        _ => {
            let near = nearest(text, ["swap", "proxy", "standin", "config:<service>"]);
            Err(Fault::new(Code::BadChoice).hint(near))
        }
    }
}

// === numbers ===

fn number<T: FromStr + PartialOrd + Display>(text: &str, bounds: &RangeInclusive<T>) -> Result<T, Fault> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let parsed = if digits { text.parse::<T>().ok() } else { None };
    match parsed {
        Some(n) if bounds.contains(&n) => Ok(n),
        _ => Err(Fault::new(Code::BadNumber).because(format!(
            "it goes from {} to {}",
            bounds.start(),
            bounds.end()
        ))),
    }
}

/// Replicas that a service keeps.
pub fn kept(text: &str) -> Result<u32, Fault> {
    number(text, &(0..=1_000))
}

/// A TCP port.
pub fn port(text: &str) -> Result<u16, Fault> {
    number(text, &(1..=u16::MAX))
}

/// TCP ports, each once.
pub fn ports(text: &str) -> Result<Vec<u16>, Fault> {
    list(text, port)
}

/// An HTTP status.
pub fn status(text: &str) -> Result<u16, Fault> {
    number(text, &(100..=599))
}

/// Whole seconds, up to a day.
pub fn seconds(text: &str) -> Result<u32, Fault> {
    number(text, &(1..=86_400)).map_err(|fault| match duration::parse(text) {
        Ok(d) if d.subsec_nanos() == 0 => fault.hint(format!("did you mean `{}`?", d.as_secs())),
        _ => fault,
    })
}

/// `2/24h`.
pub fn limit(text: &str) -> Result<Limit, Fault> {
    let fault = Fault::new(Code::BadLimit);
    let Some((count, window)) = text.split_once('/') else {
        return Err(fault.because("there is no `/`"));
    };
    let count = match number(count.trim(), &(1..=1_000)) {
        Ok(count) => count,
        Err(_) if count.trim() == "0" => {
            return Err(fault.hint("to let no alert restore, set `skep.restore.mode=observe`".to_owned()));
        }
        Err(_) => return Err(fault.because("the count goes from 1 to 1000")),
    };
    match duration::parse_positive(window.trim()) {
        Ok(window) => Ok(Limit { count, window }),
        Err(inner) => Err(fault.because("the window is a duration like `24h`").hint(inner.hint)),
    }
}

/// `7 daily, 4 weekly`.
pub fn keep(text: &str) -> Result<Vec<Keep>, Fault> {
    let rules = list(text, keep_rule).map_err(|f| Fault { code: Code::BadKeep, ..f })?;
    let periods: BTreeSet<Period> = rules.iter().map(|rule| rule.per).collect();
    if periods.len() < rules.len() {
        return Err(Fault::new(Code::BadKeep).because("a period occurs twice"));
    }
    Ok(rules)
}

fn keep_rule(text: &str) -> Result<Keep, Fault> {
    let fault = |because: String| Fault::new(Code::BadKeep).because(because).hint(meant_keep(text));
    let Some((count, per)) = text.split_once(char::is_whitespace) else {
        return Err(fault(format!("`{text}` is not a count and a period")));
    };
    let count = number(count, &(1..=10_000))
        .map_err(|_| fault(format!("`{count}` is not a count from 1 to 10000")))?;
    match Period::ALL.into_iter().find(|p| p.to_string() == per.trim()) {
        Some(per) => Ok(Keep { count, per }),
        None => Err(fault(format!("`{}` is not a period", per.trim()))),
    }
}

/// `7 day`, `7d`, `7 days`, `daily 7` → `7 daily`.
fn meant_keep(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let word: String =
        text.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
    let per = match word.as_str() {
        "" => return None,
        "l" | "latest" | "newest" => Period::Last,
        "h" | "hour" | "hours" => Period::Hourly,
        "d" | "day" | "days" => Period::Daily,
        "w" | "week" | "weeks" => Period::Weekly,
        "m" | "month" | "months" => Period::Monthly,
        "y" | "year" | "years" => Period::Yearly,
        other => {
            Period::ALL.into_iter().min_by_key(|p| strsim::damerau_levenshtein(&p.to_string(), other))?
        }
    };
    let count = digits.parse::<u32>().ok().filter(|n| *n > 0)?;
    Some(format!("did you mean `{count} {per}`?"))
}

// === names and text ===

/// A service: letters, digits, `-`, `_` and `.`, at most 63 characters.
pub fn service_name(text: &str) -> Result<String, Fault> {
    named(text, 63, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Services, each once.
pub fn service_names(text: &str) -> Result<Vec<String>, Fault> {
    list(text, service_name)
}

/// Volumes.
pub fn volumes(text: &str) -> Result<Vec<String>, Fault> {
    list(text, |name| named(name, 255, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
}

/// A Swarm config.
pub fn config_name(text: &str) -> Result<String, Fault> {
    named(text, 64, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A name of our own making: a store, a check.
pub fn short_name(text: &str) -> Result<String, Fault> {
    named(text, 32, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// A name on networks: as a host name.
pub fn alias(text: &str) -> Result<String, Fault> {
    let name = named(text, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')?;
    match name.starts_with('-') || name.ends_with('-') || name.starts_with("skep-") {
        true => {
            Err(Fault::new(Code::BadName).because("no name begins or ends with `-`, or begins with `skep-`"))
        }
        false => Ok(name),
    }
}

/// An age recipient: `age1` and the 58 characters of a public key.
pub fn recipient(text: &str) -> Result<String, Fault> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let key = text.strip_prefix("age1").filter(|key| key.len() == 58 && key.chars().all(fits));
    key.map(|_| text.to_owned())
        .ok_or_else(|| Fault::new(Code::BadName).because(format!("`{text}` is no age recipient")))
}

fn named(text: &str, longest: usize, allowed: fn(char) -> bool) -> Result<String, Fault> {
    let fault = Fault::new(Code::BadName);
    if text.is_empty() {
        return Err(fault.because("it is empty"));
    }
    if let Some(odd) = text.chars().find(|c| !allowed(*c)) {
        let spaced = odd.is_whitespace().then(|| "names in a list are separated by commas".to_owned());
        return Err(fault.because(format!("`{text}` holds {odd:?}")).hint(spaced));
    }
    if text.len() > longest {
        return Err(fault.because(format!("it is longer than {longest} characters")));
    }
    Ok(text.to_owned())
}

/// A database that may be restored.
pub fn database(text: &str) -> Result<String, Fault> {
    let fault = Fault::new(Code::BadName);
    if text.is_empty() || text.len() > 63 || text.chars().any(char::is_control) {
        return Err(fault.because("a name has 1 to 63 bytes and no control characters"));
    }
    if text.starts_with("skep_") {
        return Err(
            fault.because("names that begin with `skep_` are for the databases that Skep builds and keeps")
        );
    }
    if matches!(text, "template0" | "template1") {
        return Err(fault.because("a template is not restored"));
    }
    Ok(text.to_owned())
}

/// Alert names.
pub fn alerts(text: &str) -> Result<Vec<String>, Fault> {
    list(text, |name| match name.chars().find(|c| c.is_control()) {
        None => Ok(name.to_owned()),
        Some(odd) => Err(Fault::new(Code::BadName).because(format!("it holds {odd:?}"))),
    })
}

/// E-mail addresses.
pub fn addresses(text: &str) -> Result<Vec<String>, Fault> {
    list(text, |address| match lettre::Address::from_str(address) {
        Ok(_) => Ok(address.to_owned()),
        Err(_) => Err(Fault::new(Code::BadAddress)
            .because(format!("`{address}` is not an address"))
            .hint(address_within(address))),
    })
}

fn address_within(text: &str) -> Option<String> {
    let inner = text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    let bare = inner.map_or(text, |(inner, _)| inner).trim();
    if bare.contains([' ', ';']) {
        return Some("addresses are separated by commas".to_owned());
    }
    let valid = bare != text && lettre::Address::from_str(bare).is_ok();
    valid.then(|| format!("did you mean `{bare}`?"))
}

/// One SQL statement.
pub fn sql(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new(Code::BadText).because("it is empty"));
    }
    Ok(text.to_owned())
}

/// A command for the shell.
pub fn command(text: &str) -> Result<String, Fault> {
    let because = match text {
        _ if text.trim().is_empty() => "it is empty",
        _ if text.contains('\0') => "it holds a NUL",
        _ => return Ok(text.to_owned()),
    };
    Err(Fault::new(Code::BadText).because(because))
}

/// Schedules, split on `;`. Where one has a time zone, all must.
pub fn schedules(text: &str) -> Result<Vec<Schedule>, Fault> {
    let all = text.split(';').map(|one| Schedule::parse(one.trim())).collect::<Result<Vec<_>, _>>()?;
    let cron: Vec<bool> =
        all.iter().filter(|s| matches!(s, Schedule::Cron(_))).map(Schedule::is_zoned).collect();
    if cron.contains(&true) && cron.contains(&false) {
        return Err(Fault::new(Code::BadSchedule)
            .because("one schedule has a time zone and another has none")
            .hint("write `CRON_TZ=…` before each of them".to_owned()));
    }
    Ok(all)
}

// === lists and likenesses ===

/// A comma list without empty or repeated items.
pub fn list<T: PartialEq>(text: &str, item: impl Fn(&str) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim) {
        if part.is_empty() {
            let because = if text.trim().is_empty() { "it is empty" } else { "there is a comma too many" };
            return Err(Fault::new(Code::BadText).because(because));
        }
        let value = item(part)?;
        if all.contains(&value) {
            return Err(Fault::new(Code::Conflict).because(format!("`{part}` occurs twice")));
        }
        all.push(value);
    }
    Ok(all)
}

/// A sentence that names the candidate nearest to a text, where one is near.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(text, candidates).map(|near| format!("did you mean `{near}`?"))
}

/// The candidate nearest to a text: at most a third of it differs.
pub fn closest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text: String = text.chars().take(200).collect::<String>().to_ascii_lowercase();
    let scored =
        candidates.into_iter().map(|c| (strsim::damerau_levenshtein(&text, &c.to_ascii_lowercase()), c));
    let (distance, near) = scored.min_by_key(|(distance, _)| *distance)?;
    let length = near.chars().count();
    (distance < length && distance * 3 <= length.max(3)).then_some(near)
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
