//! One message: subject, headers, text and HTML. Pure.
//!
//! Everything that identifies a message derives from (cluster, operation, phase, recipient), or for a notice from its
//! incident: a message that is sent twice is recognised as one, and all messages of an operation hang under one root,
//! sent or not.

use std::sync::LazyLock;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::outbox::Audience;
use super::phase::{Phase, current, occurred};
use super::settings::Mail;
use super::view::{LONGEST_NAMES, Reader, View};
use super::words;
use crate::operation::record::{Operation, Work};
use crate::runtime::scrub;

/// What a message says, the same for every recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Subject: constant for an operation, so that mail programs keep its messages together.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// HTML, self-contained.
    pub html: String,
    /// Message-ID without recipient and domain.
    stem: String,
    /// Message-ID of the root.
    root: String,
    domain: String,
    urgent: bool,
    marks: Vec<(&'static str, String)>,
}

/// A message that could not be made.
#[derive(Debug, Error)]
pub enum Error {
    /// A template does not fit what it is given.
    #[error("a template of the message is at fault")]
    Template(#[from] minijinja::Error),
    /// The mail library refuses the message.
    #[error("the message cannot be put together")]
    Build(#[from] lettre::error::Error),
}

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let syntax = syntax.expect("the syntax is a constant and tested");
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_syntax(syntax);
    templates.add_filter("cell", |text: String| text.replace('|', "\\|"));
    for (name, source) in [
        ("mail.txt", include_str!("templates/mail.txt")),
        ("mail.html", include_str!("templates/mail.html")),
        ("report.md", include_str!("templates/report.md")),
    ] {
        templates.add_template(name, source).expect("the template is a constant and tested");
    }
    templates
});

/// What identifies a message, and how it is marked.
pub(super) struct Envelope {
    /// The constant part of the subject.
    pub(super) title: String,
    /// Message-ID without recipient and domain.
    pub(super) stem: String,
    /// The same of the thread's root.
    pub(super) root: String,
    pub(super) urgent: bool,
    /// `X-Skep-…` headers; empty ones are left out.
    pub(super) marks: Vec<(&'static str, String)>,
}

/// Renders what to say about the `phases` of an operation, the last one as the headline.
///
/// # Errors
/// When a template is at fault.
pub fn render(
    operation: &Operation,
    phases: &[Phase],
    mail: &Mail,
    audience: Audience<'_>,
    now: Timestamp,
) -> Result<Letter, Error> {
    let phase = phases.last().copied().unwrap_or(Phase::Started);
    let view = View::of(operation, phases, Reader::of(mail), audience, now);
    let about = scrub::line(&operation.intent.about(), LONGEST_NAMES);
    let envelope = Envelope {
        title: words::title(&operation.intent.work, &about),
        stem: stem(operation, phase),
        root: format!("{}.root", operation.id),
        urgent: is_urgent(operation, phase),
        marks: vec![
            ("X-Skep-Operation", operation.id.to_string()),
            ("X-Skep-Phase", phase.as_str().to_owned()),
            ("X-Skep-Service", scrub::line(&operation.intent.service, 80)),
        ],
    };
    Letter::write(&view, mail, envelope)
}

/// What there is to say about an operation as it stands now, in Markdown: the record that a runbook asks for.
///
/// # Errors
/// When the template is at fault.
pub fn report(operation: &Operation, zone: &TimeZone, now: Timestamp) -> Result<String, Error> {
    let reader = Reader { cluster: "", zone, status_url: None };
    let phase = current(operation).unwrap_or(Phase::Started);
    let view = View::of(operation, &[phase], reader, Audience::default(), now);
    let text = TEMPLATES.get_template("report.md")?.render(Value::from(Serde(&view)))?;
    Ok(text.trim_end().to_owned())
}

// === impl Letter ===

impl Letter {
    /// Fills the templates.
    pub(super) fn write(view: &View, mail: &Mail, envelope: Envelope) -> Result<Letter, Error> {
        let Envelope { title, stem, root, urgent, mut marks } = envelope;
        let (cluster, domain) = (scrub::line(&mail.cluster, 60), domain(mail));
        marks.push(("X-Skep-Cluster", cluster.clone()));
        Ok(Letter {
            subject: match cluster.is_empty() {
                true => format!("[skep] {title}"),
                false => format!("[skep] {title} ({cluster})"),
            },
            text: TEMPLATES.get_template("mail.txt")?.render(Value::from(Serde(view)))?,
            html: TEMPLATES.get_template("mail.html")?.render(Value::from(Serde(view)))?,
            stem,
            root: format!("<{root}@{domain}>"),
            domain,
            urgent,
            marks,
        })
    }

    /// The message for one recipient.
    ///
    /// # Errors
    /// When the mail library refuses it.
    pub fn to(&self, recipient: &Address, mail: &Mail, now: Timestamp) -> Result<Message, Error> {
        let own = hash(recipient.to_string().to_lowercase().as_bytes());
        let mut message = Message::builder()
            .from(mail.from.clone())
            .to(Mailbox::new(None, recipient.clone()))
            .date(SystemTime::from(now))
            .subject(&self.subject)
            .message_id(Some(format!("<{}.{own}@{}>", self.stem, self.domain)))
            .in_reply_to(self.root.clone())
            .references(self.root.clone());
        if let Some(reply_to) = &mail.reply_to {
            message = message.reply_to(reply_to.clone());
        }
        for (name, value) in self.fixed_headers() {
            message = message.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), value));
        }
        let body = MultiPart::alternative()
            .boundary(format!("skep-{}-{own}", hash(self.stem.as_bytes())))
            .singlepart(SinglePart::builder().header(ContentType::TEXT_PLAIN).body(self.text.clone()))
            .singlepart(SinglePart::builder().header(ContentType::TEXT_HTML).body(self.html.clone()));
        Ok(message.multipart(body)?)
    }

    /// What tells it from every other message: the same for each recipient and each repeat.
    pub(super) fn stem(&self) -> &str {
        &self.stem
    }

    fn fixed_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("Auto-Submitted", "auto-generated".to_owned()),
            ("X-Auto-Response-Suppress", "All".to_owned()),
            ("List-Id", format!("<{}>", self.domain)),
        ];
        if self.urgent {
            headers.extend([("Importance", "high".to_owned()), ("X-Priority", "1".to_owned())]);
        }
        headers.extend(self.marks.iter().filter(|(_, value)| !value.is_empty()).cloned());
        headers
    }
}

/// Right-hand side of identifiers: a name under the sender's own domain that tells clusters apart.
fn domain(mail: &Mail) -> String {
    let own = mail.from.email.domain().to_lowercase();
    let own = if own.is_ascii() && !own.starts_with('[') { own } else { "invalid".to_owned() };
    match scrub::slug(&mail.cluster) {
        cluster if cluster.is_empty() => format!("skep.{own}"),
        cluster => format!("{cluster}.skep.{own}"),
    }
}

/// An operation can get stuck more than once: each time is another message.
fn stem(operation: &Operation, phase: Phase) -> String {
    match phase {
        Phase::Stuck => {
            format!("{}.{}-{}", operation.id, phase.as_str(), occurred(operation, phase).as_second())
        }
        Phase::Announced
        | Phase::NeedsApproval
        | Phase::Started
        | Phase::Finished
        | Phase::Failed
        | Phase::RolledBack
        | Phase::Cancelled => format!("{}.{}", operation.id, phase.as_str()),
    }
}

const fn is_urgent(operation: &Operation, phase: Phase) -> bool {
    match phase {
        Phase::Stuck => true,
        Phase::Failed | Phase::RolledBack => {
            matches!(
                operation.intent.work,
                Work::Restore { .. } | Work::Rollback { .. } | Work::Verify { .. }
            )
        }
        Phase::Announced | Phase::NeedsApproval | Phase::Started | Phase::Finished | Phase::Cancelled => {
            false
        }
    }
}

pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::fixture::{
        after, alert, mail, noon, operation, person, restore, schedule, step, story,
    };
    use crate::notify::phase::{Routine, due};
    use crate::operation::record::{State, StepState, Trigger};

    fn letter(operation: &Operation, phases: &[Phase]) -> Letter {
        render(operation, phases, &mail(), Audience::default(), after(50)).unwrap()
    }

    fn formatted_to(to: &str, operation: &Operation, phases: &[Phase]) -> String {
        let message = letter(operation, phases).to(&to.parse().unwrap(), &mail(), after(50)).unwrap();
        String::from_utf8(message.formatted()).unwrap()
    }

    fn formatted(operation: &Operation, phases: &[Phase]) -> String {
        formatted_to("dba@example.org", operation, phases)
    }

    /// The headers with folded lines joined, and none else.
    fn headers(message: &str) -> Vec<String> {
        let head = message.split("\r\n\r\n").next().unwrap();
        head.replace("\r\n ", " ").split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_report_tells_why_what_each_step_did_how_long_users_could_not_work_and_what_next() {
        let mut op = story(State::Succeeded);
        op.journal.step_mut("stop", noon()).out = serde_json::json!({ "saved": { "shop_app": 1 } });
        op.journal.step_mut("cut", noon()).note = "a | b".to_owned();
        let text = report(&op, &TimeZone::UTC, after(50)).unwrap();
        for line in [
            "# Restore of shop_db: Finished",
            &format!("| Operation | `{}` |", op.id),
            "| Why | The alert PostgresCorrupted, firing since Sat 21 Nov 2026, 12:58:30 UTC |",
            "| Took | 42 s |",
            "| Down for | 7.0 s |",
            "| Began | Step | State | Took | What it says |",
            "* The cache shop_cache was not emptied; it may hold rows from after the backup.",
            "## What next",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
        }
        let mut op = story(State::RolledBack);
        op.journal.step_mut("stop", noon()).out = serde_json::json!({ "saved": { "shop_app": 1 } });
        let failed = report(&op, &TimeZone::UTC, after(50)).unwrap();
        assert!(failed.contains("> relation \"users\" has 0 rows, wanted at least 1"), "{failed}");
        assert!(failed.contains("| Down for | 13 s |"), "{failed}");
        assert!(!failed.contains("hunter2") && !text.contains("hunter2"), "S15");
    }

    #[test]
    fn messages_of_one_operation_share_subject_and_root_and_have_their_own_ids() {
        let op = story(State::Succeeded);
        let (start, end) = (formatted(&op, &[Phase::Started]), formatted(&op, &[Phase::Finished]));
        let root = format!("<{}.root@prod.skep.example.org>", op.id);
        for message in [&start, &end] {
            let headers = headers(message);
            for wanted in [
                "Subject: [skep] Restore of shop_db (prod)".to_owned(),
                format!("References: {root}"),
                format!("In-Reply-To: {root}"),
                "Auto-Submitted: auto-generated".to_owned(),
                "X-Auto-Response-Suppress: All".to_owned(),
                format!("X-Skep-Operation: {}", op.id),
                "X-Skep-Service: shop_db".to_owned(),
                "X-Skep-Cluster: prod".to_owned(),
                "To: dba@example.org".to_owned(),
                "Date: Sat, 21 Nov 2026 13:00:50 +0000".to_owned(),
            ] {
                assert!(headers.contains(&wanted), "{wanted} is not among {headers:#?}");
            }
        }
        let id =
            |message: &str| headers(message).into_iter().find(|h| h.starts_with("Message-ID: ")).unwrap();
        assert_ne!(id(&start), id(&end));
        assert_eq!(start, formatted(&op, &[Phase::Started]), "a repeat is the same, byte for byte");
        assert_ne!(id(&start), id(&formatted_to("ops@example.org", &op, &[Phase::Started])));
    }

    #[test]
    fn every_phase_of_every_work_renders_without_anything_from_elsewhere() {
        let works = [
            Work::Backup,
            Work::Expire,
            Work::Report,
            Work::Verify { backup: None },
            Work::Import { store: "nas".to_owned(), from: None, quick: false, layout: None, dry_run: false },
            restore(),
            Work::Restore {
                to: None,
                backup: Some("b1".to_owned()),
                before: None,
                in_place: Some(true),
                quiesce: None,
                create_roles: false,
            },
            Work::Restore {
                to: None,
                backup: None,
                before: None,
                in_place: None,
                quiesce: Some(false),
                create_roles: false,
            },
            Work::Maintenance { until: Some(after(3600)) },
            Work::Maintenance { until: None },
        ];
        let parent = Trigger::Operation { id: story(State::Running).id };
        for (work, state) in works.iter().flat_map(|w| State::ALL.map(|s| (w, s))) {
            for trigger in [alert(), person(), schedule(), parent.clone()] {
                let mut op = story(state);
                op.intent.work = work.clone();
                op.intent.trigger = trigger;
                for phase in Phase::ALL {
                    let letter = letter(&op, &[Phase::Started, phase]);
                    assert!(letter.text.contains("It began and ended before"), "{}", letter.text);
                    for foreign in ["src=", "url(", "<link", "<script", "@import"] {
                        assert!(!letter.html.contains(foreign), "{foreign} in {}", letter.html);
                    }
                }
            }
        }
    }

    #[test]
    fn the_reader_learns_what_why_when_and_what_to_do() {
        let text = letter(&story(State::AwaitingApproval), &[Phase::NeedsApproval]).text;
        let id = story(State::AwaitingApproval).id;
        for wanted in [
            "Restore of shop_db (prod): Waiting for approval",
            "The alert PostgresCorrupted, firing since Sat 21 Nov 2026, 13:58:30 CET (12:58:30 UTC)",
            "Impact:       None yet.",
            &format!("Approve:\n    skep ops approve {id}"),
            &format!("https://skep.example.org/operations/{id}"),
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
        let text = letter(&story(State::Stuck), &[Phase::Stuck]).text;
        for wanted in [
            "FAILED: CUT OVER BY RENAME\nthe old database cannot be renamed back: node db-1 is down",
            &format!("skep ops retry {id}"),
            "14:00:37  ✗ Cut over by rename (cannot be undone, 8.0 s)",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }

    #[test]
    fn a_step_that_asks_in_the_middle_says_why() {
        let mut op = story(State::Running);
        op.journal.state = State::AwaitingApproval;
        step(&mut op, "preflight", StepState::Started, 1, 2, "shop_report uses the data and is not declared");
        op.journal.steps.retain(|(name, _)| name == "claim" || name == "preflight");
        assert_eq!(due(&op, Routine::Failures, after(2)), [Phase::NeedsApproval]);
        let text = letter(&op, &[Phase::NeedsApproval]).text;
        assert!(text.contains("WHY IT ASKS\nshop_report uses the data and is not declared"), "{text}");
    }

    #[test]
    fn an_operation_that_waits_says_why_a_person_is_asked() {
        let op = story(State::AwaitingApproval);
        let why = Audience { why: Some("3 of 10 managed services are sick at once"), ..Audience::default() };
        let text = |audience| render(&op, &[Phase::NeedsApproval], &mail(), audience, after(5)).unwrap().text;
        assert!(
            text(why).contains("WHY IT ASKS\n3 of 10 managed services are sick at once"),
            "{}",
            text(why)
        );
        assert!(!text(Audience::default()).contains("WHY IT ASKS"));
    }

    #[test]
    fn names_of_alerts_inject_neither_headers_nor_markup() {
        let evil = "x\r\nBcc: evil@example.net\r\n\r\n<script>alert(1)</script>\u{202e}";
        let mut op = story(State::Running);
        op.intent.trigger =
            Trigger::Alert { name: evil.to_owned(), fingerprint: evil.to_owned(), starts_at: after(0) };
        op.intent.service = format!("shop_db{evil}");
        op.journal.remarks = vec![evil.to_owned()];
        op.journal.approved = Some(evil.to_owned());
        step(&mut op, evil, StepState::Started, 1, 1, evil);
        let mut settings = mail();
        settings.cluster = format!("prod{evil}");
        let letter = render(&op, &[Phase::Started], &settings, Audience::default(), after(50)).unwrap();
        let message = letter.to(&"dba@example.org".parse().unwrap(), &settings, after(50)).unwrap();
        let message = String::from_utf8(message.formatted()).unwrap();
        assert!(!headers(&message).iter().any(|h| h.to_lowercase().starts_with("bcc")), "{message}");
        assert_eq!(headers(&message).iter().filter(|h| h.starts_with("To: ")).count(), 1);
        assert!(!letter.html.contains("<script>"), "{}", letter.html);
        assert!(!letter.html.contains('\u{202e}') && !letter.text.contains('\u{202e}'));
    }

    #[test]
    fn nothing_secret_is_told() {
        let mut op = story(State::Stuck);
        let dsn = "cannot connect to postgres://app:hunter2@db/shop";
        step(&mut op, "dump", StepState::UndoFailed, 1, 2, dsn);
        op.journal.remarks.push("run PGPASSWORD=hunter2 psql".to_owned());
        let mut labels = op.labels();
        labels.insert("shop.password".to_owned(), "hunter2".to_owned());
        let mut data = serde_json::to_value(&op.intent).unwrap();
        data["spec"] = serde_json::json!({ "Env": ["POSTGRES_PASSWORD=hunter2"] });
        let config = crate::swarm::object::Config {
            id: op.config.clone(),
            name: op.id.config_name(),
            version: op.version,
            created: op.intent.created,
            updated: op.intent.created,
            labels,
            data: serde_json::to_vec(&data).unwrap(),
        };
        let op = Operation::read(&config).unwrap();
        let letter = letter(&op, &[Phase::Started, Phase::Stuck]);
        for text in [&letter.subject, &letter.text, &letter.html] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(letter.text.contains("postgres://app:•••@db/shop"), "{}", letter.text);
    }

    #[test]
    fn an_operation_stuck_twice_makes_two_messages() {
        let mut op = story(State::Stuck);
        let first = letter(&op, &[Phase::Stuck]).stem;
        op.journal.ended = Some(after(600));
        assert_ne!(first, letter(&op, &[Phase::Stuck]).stem);
    }

    /// `SKEP_SAMPLES=<directory>` writes what readers would see, to look at.
    #[test]
    fn samples_of_every_phase_can_be_looked_at() {
        let mut maintenance =
            operation(Work::Maintenance { until: Some(after(5400)) }, person(), State::Running);
        step(&mut maintenance, "stop", StepState::Done, 1, 6, "");
        step(&mut maintenance, "hold", StepState::Started, 6, 6, "");
        let samples = [
            ("approval", story(State::AwaitingApproval), vec![Phase::NeedsApproval]),
            ("started", story(State::Running), vec![Phase::Started]),
            ("finished", story(State::Succeeded), vec![Phase::Started, Phase::Finished]),
            ("rolled-back", story(State::RolledBack), vec![Phase::RolledBack]),
            ("stuck", story(State::Stuck), vec![Phase::Stuck]),
            ("maintenance", maintenance, vec![Phase::Started]),
        ];
        for (name, op, phases) in samples {
            let letter = letter(&op, &phases);
            assert!(letter.html.ends_with("</html>"), "{name}");
            let Some(directory) = std::env::var_os("SKEP_SAMPLES") else { continue };
            let directory = std::path::Path::new(&directory);
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join(format!("{name}.html")), &letter.html).unwrap();
            std::fs::write(directory.join(format!("{name}.txt")), &letter.text).unwrap();
        }
    }
}
