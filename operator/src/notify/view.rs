//! What the templates of a message are given. Every text of the record passes through [`scrub::line`] here.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::digest::{Digest, Report};
use super::notice;
use super::outbox::Audience;
use super::phase::{self, Phase};
use super::settings::Mail;
use super::words::{self, Tone};
use crate::operation::clients;
use crate::operation::record::{Operation, State, StepRecord, StepState, Trigger, Work};
use crate::plan::standing::Backups;
use crate::plan::words::{ago, exact, size};
use crate::runtime::scrub;
use crate::triggers::guard::Notice;

/// Everything that a message shows.
#[derive(Debug, Serialize)]
pub(super) struct View {
    title: String,
    cluster: String,
    badge: String,
    colour: Colour,
    lead: String,
    /// Said where the start is told together with the end.
    late: bool,
    facts: Vec<Fact>,
    /// The services of a weekly message.
    services: Vec<Stand>,
    cause: Option<Cause>,
    next: String,
    commands: Vec<Command>,
    /// Whether the reader is asked to use a command.
    acts: bool,
    remarks: Vec<String>,
    timeline: Vec<Row>,
    link: Option<Link>,
    /// What the message is about: `operation 20261121t…`.
    about: String,
    zone: String,
}

#[derive(Debug, Serialize)]
struct Fact {
    name: &'static str,
    value: String,
}

/// How one service stands.
#[derive(Debug, Serialize)]
struct Stand {
    name: String,
    badge: String,
    colour: Colour,
    facts: Vec<Fact>,
    concerns: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Cause {
    title: String,
    note: String,
    colour: Colour,
}

#[derive(Debug, Serialize)]
pub(super) struct Command {
    pub(super) purpose: &'static str,
    pub(super) line: String,
}

#[derive(Debug, Serialize)]
struct Link {
    text: &'static str,
    url: String,
}

#[derive(Debug, Serialize)]
struct Row {
    at: String,
    step: String,
    mark: &'static str,
    state: &'static str,
    colour: Colour,
    took: String,
    note: String,
}

/// Foreground and background, light and dark: the templates' classes are named so.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Colour {
    Info,
    Good,
    Caution,
    Alarm,
    Muted,
}

/// For whom something is rendered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    /// Name of the cluster; empty where there is none.
    pub(super) cluster: &'a str,
    /// The readers' time zone.
    pub(super) zone: &'a TimeZone,
    /// Address of the status page, without a slash at its end.
    pub(super) status_url: Option<&'a str>,
}

impl<'a> Reader<'a> {
    /// The readers of mail.
    pub(super) fn of(mail: &'a Mail) -> Reader<'a> {
        Reader { cluster: &mail.cluster, zone: &mail.zone, status_url: mail.status_url.as_deref() }
    }
}

/// Longest text of one field.
const LONGEST: usize = 400;
/// So much of the names of what an operation is about.
pub(super) const LONGEST_NAMES: usize = 160;

// === impl View ===

impl View {
    /// Gathers what to show about an operation whose `phases` are told together, the last one as the headline.
    pub(super) fn of(
        operation: &Operation,
        phases: &[Phase],
        reader: Reader<'_>,
        audience: Audience<'_>,
        now: Timestamp,
    ) -> View {
        let head = phases.last().copied().unwrap_or(Phase::Started);
        let service = scrub::line(&operation.intent.about(), LONGEST_NAMES);
        let work = &operation.intent.work;
        View {
            title: words::title(work, &service),
            cluster: scrub::line(reader.cluster, 60),
            badge: words::badge(head).to_owned(),
            colour: words::tone(head).into(),
            lead: words::lead(work, head, &service),
            late: phases.len() > 1,
            facts: facts(operation, head, reader.zone, audience.expected_end, now),
            services: Vec::new(),
            cause: cause(operation, head, audience.why),
            next: words::next(operation, head),
            commands: commands(operation, head),
            acts: matches!(head, Phase::NeedsApproval | Phase::Stuck),
            remarks: operation.journal.remarks.iter().map(|r| scrub::line(r, LONGEST)).collect(),
            timeline: operation
                .journal
                .steps
                .iter()
                .map(|(n, r)| row(work, n, r, reader.zone, now))
                .collect(),
            link: reader.status_url.map(|base| Link {
                text: match operation.journal.state.is_terminal() {
                    true => "Open the timeline",
                    false => "Follow it live",
                },
                url: format!("{base}/operations/{}", operation.id),
            }),
            about: format!("operation {}", operation.id),
            zone: reader.zone.iana_name().unwrap_or("UTC").to_owned(),
        }
    }

    /// What to show about an alert on which nothing was begun.
    pub(super) fn of_notice(service: &str, notice: &Notice, mail: &Mail) -> View {
        let kind = notice.kind;
        let service = scrub::line(service, 80);
        let fact = |name, value| Fact { name, value };
        View {
            title: notice::title(&notice.alert, &service),
            cluster: scrub::line(&mail.cluster, 60),
            badge: notice::badge(kind).to_owned(),
            colour: notice::tone(kind).into(),
            lead: notice::lead(kind, &service),
            late: false,
            facts: vec![
                fact("Impact", notice::impact(kind, &service)),
                fact("Decided", moment(notice.at, &mail.zone)),
            ],
            services: Vec::new(),
            cause: Some(Cause {
                title: "Why".to_owned(),
                note: scrub::line(&notice.sentence, LONGEST),
                colour: notice::tone(kind).into(),
            }),
            next: notice::next(kind),
            commands: notice::commands(notice, &service),
            acts: true,
            remarks: Vec::new(),
            timeline: Vec::new(),
            link: mail.status_url.clone().map(|url| Link { text: "Open the status page", url }),
            about: notice::title(&notice.alert, &service).replacen('A', "a", 1),
            zone: mail.zone.iana_name().unwrap_or("UTC").to_owned(),
        }
    }
}

impl View {
    /// What to show about the backups of a week.
    pub(super) fn of_digest(digest: &Digest, mail: &Mail) -> View {
        let stands: Vec<Stand> =
            digest.services.iter().map(|r| Stand::of(r, &mail.zone, digest.now)).collect();
        let all = stands.len();
        let concerning = stands.iter().filter(|s| !s.concerns.is_empty()).count();
        let proved = digest.services.iter().filter(|r| r.backups.last_proved.is_some()).count();
        let (badge, tone) = match (concerning, all) {
            (0, _) if proved == all => ("All proved".to_owned(), Tone::Good),
            (0, _) => (format!("{proved} of {all} proved"), Tone::Info),
            (_, _) => (format!("{concerning} of {all} to look at"), Tone::Caution),
        };
        let fact = |name, value| Fact { name, value };
        View {
            title: "Backups of the week".to_owned(),
            cluster: scrub::line(&mail.cluster, 60),
            badge,
            colour: tone.into(),
            lead: match all {
                0 => "No service keeps data of which backups are wanted.".to_owned(),
                _ => format!("{proved} of {all} services have a backup that is proved to restore."),
            },
            late: false,
            facts: vec![
                fact("From", moment(digest.since, &mail.zone)),
                fact("To", moment(digest.now, &mail.zone)),
            ],
            services: stands,
            cause: None,
            next: match concerning {
                0 => "Nothing to do.".to_owned(),
                _ => "Please look at the services with an exclamation mark.".to_owned(),
            },
            commands: vec![
                Command { purpose: "List the backups", line: "skep backups".to_owned() },
                Command { purpose: "See what failed", line: "skep ops list".to_owned() },
            ],
            acts: concerning > 0,
            remarks: Vec::new(),
            timeline: Vec::new(),
            link: mail.status_url.clone().map(|url| Link { text: "Open the status page", url }),
            about: "the backups of the week".to_owned(),
            zone: mail.zone.iana_name().unwrap_or("UTC").to_owned(),
        }
    }
}

// === impl Stand ===

impl Stand {
    fn of(report: &Report, zone: &TimeZone, now: Timestamp) -> Stand {
        let Backups { last_success, last_proved, last_loaded, expected_s, last_size, .. } = &report.backups;
        let concerns = report.concerns(zone, now);
        let (badge, tone) = report.badge(concerns.len());
        let fact = |name, value| Fact { name, value };
        let at = |at: Timestamp| format!("{}, {}", moment(at, zone), ago(at, now));
        let backup = last_success.map(|taken| match last_size {
            Some(bytes) => format!("{}, {}", at(taken), size(*bytes)),
            None => at(taken),
        });
        let proved = match (last_proved, last_loaded) {
            (Some(proved), _) => at(*proved),
            (None, Some(loaded)) => format!("never; loaded without a check {}", ago(*loaded, now)),
            (None, None) => "never".to_owned(),
        };
        let expected = expected_s.and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
        let expected = expected.map(|took| format!("loads in about {}", exact(took)));
        Stand {
            name: scrub::line(&report.service, 80),
            badge: if report.paused { format!("{badge}, paused") } else { badge.to_owned() },
            colour: tone.into(),
            facts: vec![
                fact("Last backup", backup.unwrap_or_else(|| "none".to_owned())),
                fact("Last proved", proved),
                fact("A restore", expected.unwrap_or_else(|| "never measured".to_owned())),
            ],
            concerns,
        }
    }
}

// === impl Colour ===

impl From<Tone> for Colour {
    fn from(tone: Tone) -> Colour {
        match tone {
            Tone::Info => Colour::Info,
            Tone::Good => Colour::Good,
            Tone::Caution => Colour::Caution,
            Tone::Alarm => Colour::Alarm,
        }
    }
}

/// A time in the readers' zone and in UTC.
pub(super) fn moment(at: Timestamp, zone: &TimeZone) -> String {
    let (here, utc) = (at.to_zoned(zone.clone()), at.to_zoned(TimeZone::UTC));
    let local = here.strftime("%a %-d %b %Y, %H:%M:%S %Z");
    if here.offset().is_zero() {
        return local.to_string();
    }
    let day = if here.date() == utc.date() { "" } else { "%-d %b, " };
    format!("{local} ({})", utc.strftime(&format!("{day}%H:%M:%S UTC")))
}

/// A duration to the second, or to the tenth where it is short: `0.4 s`, `42 s`, `3 min 5 s`, `2 h 4 min`.
fn span(duration: SignedDuration) -> String {
    let (total, tenths) = (duration.as_secs().max(0), duration.subsec_millis().max(0) / 100);
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    match (hours, minutes) {
        (0, 0) if seconds == 0 && tenths == 0 => "< 0.1 s".to_owned(),
        (0, 0) if seconds < 10 => format!("{seconds}.{tenths} s"),
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

fn facts(
    operation: &Operation,
    head: Phase,
    zone: &TimeZone,
    expected_end: Option<Timestamp>,
    now: Timestamp,
) -> Vec<Fact> {
    let (intent, journal) = (&operation.intent, &operation.journal);
    let service = scrub::line(&intent.about(), LONGEST_NAMES);
    let fact = |name, value| Fact { name, value };
    let mut facts = vec![
        fact("Why", why(&intent.trigger, zone)),
        fact("Impact", words::impact(&intent.work, head, &service)),
    ];
    if let Some(backup) = backup(&intent.work, zone) {
        facts.push(fact("Backup", backup));
    }
    if let Some(by) = &journal.approved {
        facts.push(fact("Approved by", scrub::line(by, 80)));
    }
    if let Some(by) = &journal.cancel {
        let name = if journal.state == State::Succeeded { "Ended by" } else { "Cancelled by" };
        facts.push(fact(name, scrub::line(by, 80)));
    }
    let began = phase::began(operation);
    match began {
        Some(began) => facts.push(fact("Started", moment(began, zone))),
        None => facts.push(fact("Asked for", moment(intent.created, zone))),
    }
    match (journal.ended, began) {
        (Some(ended), Some(began)) => {
            let name = if head == Phase::Stuck { "Stopped" } else { "Ended" };
            facts.push(fact(name, moment(ended, zone)));
            facts.push(fact("Took", span(ended.duration_since(began))));
            if let Some(away) = clients::downtime(operation).and_then(|d| SignedDuration::try_from(d).ok()) {
                facts.push(fact("Down for", span(away)));
            }
        }
        (Some(ended), None) => facts.push(fact("Ended", moment(ended, zone))),
        (None, _) => {
            if let Some(end) = until(&intent.work).or(expected_end).filter(|end| *end > now) {
                facts.push(fact("Expected end", moment(end, zone)));
            }
        }
    }
    facts
}

fn why(trigger: &Trigger, zone: &TimeZone) -> String {
    match trigger {
        Trigger::Person { name } if name.trim().is_empty() => "A person asked for it".to_owned(),
        Trigger::Person { name } => format!("{} asked for it", scrub::line(name, 80)),
        Trigger::Alert { name, starts_at, .. } => {
            format!("The alert {}, firing since {}", scrub::line(name, 120), moment(*starts_at, zone))
        }
        Trigger::Schedule { key, due } => {
            format!("Scheduled by {}, due {}", scrub::line(key, 80), moment(*due, zone))
        }
        Trigger::Found { what } => format!("Skep, because {}", scrub::line(what, 200)),
        Trigger::Operation { id } => format!("Part of operation {id}"),
    }
}

fn backup(work: &Work, zone: &TimeZone) -> Option<String> {
    match work {
        Work::Restore { to: Some(at), .. } => Some(format!("The data as it was at {}", moment(*at, zone))),
        Work::Restore { backup: Some(id), .. } => Some(scrub::line(id, 80)),
        Work::Restore { before: Some(at), .. } => {
            Some(format!("The newest verified one before {}", moment(*at, zone)))
        }
        Work::Drill { backup: Some(id) } | Work::Verify { backup: Some(id) } => Some(scrub::line(id, 80)),
        Work::Verify { backup: None } => Some("All of the service".to_owned()),
        Work::Import { store, .. } => Some(format!("What store {} holds", scrub::line(store, 80))),
        Work::Restore { .. }
        | Work::Backup
        | Work::Drill { .. }
        | Work::Maintenance { .. }
        | Work::Expire
        | Work::Report
        | Work::Point { .. }
        | Work::Sleep { .. }
        | Work::Wake
        | Work::Restart { .. }
        | Work::Update { .. }
        | Work::Rollback { .. } => None,
    }
}

const fn until(work: &Work) -> Option<Timestamp> {
    match work {
        Work::Maintenance { until } => *until,
        Work::Backup
        | Work::Restore { .. }
        | Work::Drill { .. }
        | Work::Expire
        | Work::Report
        | Work::Verify { .. }
        | Work::Import { .. }
        | Work::Point { .. }
        | Work::Sleep { .. }
        | Work::Wake
        | Work::Restart { .. }
        | Work::Update { .. }
        | Work::Rollback { .. } => None,
    }
}

/// Why an operation failed, in a line.
pub(super) fn reason(operation: &Operation) -> String {
    cause(operation, Phase::Failed, None)
        .map_or_else(|| "no reason is on record".to_owned(), |cause| cause.note)
}

/// Why the operation did not go well, or why it asks.
fn cause(operation: &Operation, head: Phase, why: Option<&str>) -> Option<Cause> {
    let steps = &operation.journal.steps;
    let with = |state| steps.iter().find(|(_, record)| record.state == state);
    // A step that failed and was undone stands as undone; it is the last one that had begun, and its note is the cause.
    let undone = || steps.last().filter(|(_, r)| matches!(r.state, StepState::Undoing | StepState::Undone));
    let (name, record) = match head {
        Phase::Failed | Phase::RolledBack | Phase::Stuck => {
            with(StepState::UndoFailed).or_else(|| with(StepState::Failed)).or_else(undone)
        }
        Phase::NeedsApproval if steps.is_empty() => {
            let note = scrub::line(why?, LONGEST);
            return Some(Cause { title: "Why it asks".to_owned(), note, colour: Colour::Caution });
        }
        Phase::NeedsApproval => steps.last(),
        Phase::Announced | Phase::Started | Phase::Finished | Phase::Cancelled => None,
    }
    .filter(|(_, record)| !record.note.is_empty())?;
    let name = words::step(&operation.intent.work, name);
    let (title, colour) = match head {
        Phase::NeedsApproval => ("Why it asks".to_owned(), Colour::Caution),
        _ => (format!("Failed: {name}"), Colour::Alarm),
    };
    Some(Cause { title, note: scrub::line(&record.note, LONGEST), colour })
}

fn commands(operation: &Operation, head: Phase) -> Vec<Command> {
    let commands = words::commands(&operation.intent.work, head).iter();
    commands
        .map(|c| Command { purpose: c.purpose, line: format!("skep ops {} {}", c.verb, operation.id) })
        .collect()
}

fn row(work: &Work, name: &str, record: &StepRecord, zone: &TimeZone, now: Timestamp) -> Row {
    let (mark, state, colour) = match record.state {
        StepState::Started => ("▸", "running", Colour::Info),
        StepState::Done => ("✓", "done", Colour::Good),
        StepState::Failed => ("✗", "failed", Colour::Alarm),
        StepState::Undoing => ("↩", "being undone", Colour::Caution),
        StepState::Undone => ("↩", "undone", Colour::Muted),
        StepState::UndoFailed => ("✗", "cannot be undone", Colour::Alarm),
    };
    let running = matches!(record.state, StepState::Started | StepState::Undoing);
    let took = span((if running { now } else { record.changed }).duration_since(record.began));
    let took = if running { format!("{took} so far") } else { took };
    let note = match (record.state, record.percent) {
        (StepState::Done, _) => String::new(),
        (StepState::Started, Some(percent)) if record.note.is_empty() => format!("{percent} %"),
        (StepState::Started, Some(percent)) => format!("{percent} %, {}", scrub::line(&record.note, 160)),
        _ => scrub::line(&record.note, 160),
    };
    let at = record.began.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string();
    Row { at, step: words::step(work, name), mark, state, colour, took, note }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_given_in_the_readers_zone_and_in_utc() {
        let at: Timestamp = "2026-11-21T23:05:09Z".parse().unwrap();
        let paris = TimeZone::get("Europe/Paris").unwrap();
        assert_eq!(moment(at, &paris), "Sun 22 Nov 2026, 00:05:09 CET (21 Nov, 23:05:09 UTC)");
        assert_eq!(moment(at, &TimeZone::UTC), "Sat 21 Nov 2026, 23:05:09 UTC");
        let noon: Timestamp = "2026-07-21T12:00:00Z".parse().unwrap();
        assert_eq!(moment(noon, &paris), "Tue 21 Jul 2026, 14:00:00 CEST (12:00:00 UTC)");
    }

    #[test]
    fn durations_read_naturally() {
        let spans = [
            (420, "0.4 s"),
            (42_900, "42 s"),
            (185_000, "3 min 5 s"),
            (7_440_000, "2 h 4 min"),
            (-5, "< 0.1 s"),
        ];
        for (millis, text) in spans {
            assert_eq!(span(SignedDuration::from_millis(millis)), text);
        }
    }
}
