//! The message about an alert on which nothing was begun. Pure; claims nothing that the notice does not prove.

use super::message::{Envelope, Error, Letter, hash};
use super::settings::Mail;
use super::view::{Command, View};
use super::words::Tone;
use crate::runtime::scrub;
use crate::triggers::guard::{Notice, NoticeKind};

/// Renders a notice about an alert of `service`.
///
/// # Errors
/// When a template is at fault.
pub fn render(service: &str, notice: &Notice, mail: &Mail) -> Result<Letter, Error> {
    let shown = scrub::line(service, 80);
    let root = hash(format!("{service}\n{}\n{}", notice.alert, notice.incident).as_bytes());
    let envelope = Envelope {
        title: title(&notice.alert, &shown),
        stem: format!("{root}.{}", notice.kind.as_str()),
        root: format!("{root}.root"),
        urgent: tone(notice.kind) == Tone::Alarm,
        marks: vec![
            ("X-Skep-Notice", notice.kind.as_str().to_owned()),
            ("X-Skep-Alert", scrub::line(&notice.alert, 120)),
            ("X-Skep-Service", shown),
        ],
    };
    Letter::write(&View::of_notice(service, notice, mail), mail, envelope)
}

/// `Alert PostgresCorrupted on shop_db`.
pub(super) fn title(alert: &str, service: &str) -> String {
    match scrub::line(alert, 120) {
        alert if alert.is_empty() => format!("Alerts on {service}"),
        alert => format!("Alert {alert} on {service}"),
    }
}

pub(super) const fn badge(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Observed => "Observed only",
        NoticeKind::Asked => "Waits for a person",
        NoticeKind::Limit | NoticeKind::Refused | NoticeKind::Answered | NoticeKind::Unreadable => {
            "Not acted on"
        }
    }
}

pub(super) const fn tone(kind: NoticeKind) -> Tone {
    match kind {
        NoticeKind::Observed => Tone::Info,
        NoticeKind::Asked => Tone::Caution,
        NoticeKind::Limit | NoticeKind::Refused | NoticeKind::Answered | NoticeKind::Unreadable => {
            Tone::Alarm
        }
    }
}

pub(super) fn lead(kind: NoticeKind, service: &str) -> String {
    match kind {
        NoticeKind::Observed => format!("An alert asked for a restore of {service}, which is only observed."),
        NoticeKind::Asked => {
            format!("An alert asked for a restore of {service}, and a person is asked first.")
        }
        NoticeKind::Limit | NoticeKind::Refused => {
            format!("An alert asked for a restore of {service}, and none was begun.")
        }
        NoticeKind::Answered => {
            format!(
                "An alert that a restore of {service} answered fires again, and no other restore was begun."
            )
        }
        NoticeKind::Unreadable => format!("No alert can restore {service} now."),
    }
}

pub(super) fn impact(kind: NoticeKind, service: &str) -> String {
    match kind {
        NoticeKind::Unreadable => {
            format!("None yet. An alert on {service} would not be acted on.")
        }
        NoticeKind::Observed
        | NoticeKind::Asked
        | NoticeKind::Limit
        | NoticeKind::Refused
        | NoticeKind::Answered => {
            "Skep has changed nothing: whatever the alert tells of goes on until a person acts.".to_owned()
        }
    }
}

pub(super) fn next(kind: NoticeKind) -> String {
    match kind {
        NoticeKind::Limit => {
            "Please find out why restores did not help for long. Until a person closes the circuit with the command \
             below, no alert restores this service any more."
        }
        NoticeKind::Refused => {
            "Please mend what is said above: the alert is judged again by itself, as long as it fires."
        }
        NoticeKind::Answered => {
            "Please look whether the restored data is right, and what breaks it. This is told once, however often the \
             alert comes and goes."
        }
        NoticeKind::Observed => {
            "Nothing to do for Skep's sake. The label skep.restore.mode of the service says what alerts may do."
        }
        NoticeKind::Asked => "Approve or cancel the operation that waits.",
        NoticeKind::Unreadable => {
            "Please look at the guard history named above; what it remembers keeps alerts from restoring too often. \
             Only where nothing in it matters any more may its config be removed."
        }
    }
    .to_owned()
}

pub(super) fn commands(notice: &Notice, service: &str) -> Vec<Command> {
    let show = notice.operation.as_ref();
    let show =
        show.map(|op| Command { purpose: "Look at the operation", line: format!("skep ops show {op}") });
    let command = |purpose, line: String| Command { purpose, line };
    let of_kind = match notice.kind {
        NoticeKind::Limit => vec![
            command("Look at the restores so far", format!("skep ops list --service {service}")),
            command("Let alerts restore it again", format!("skep ops reset {service}")),
        ],
        NoticeKind::Refused => vec![
            command("Look for mistakes in its labels", format!("skep check {service}")),
            command("See what a restore would do", format!("skep plan restore {service}")),
        ],
        NoticeKind::Answered => {
            vec![command("See what a restore would do", format!("skep plan restore {service}"))]
        }
        NoticeKind::Observed | NoticeKind::Asked | NoticeKind::Unreadable => Vec::new(),
    };
    show.into_iter().chain(of_kind).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::notify::fixture::{after, mail};
    use crate::operation::record::OpId;

    const KINDS: [NoticeKind; 6] = [
        NoticeKind::Limit,
        NoticeKind::Refused,
        NoticeKind::Observed,
        NoticeKind::Answered,
        NoticeKind::Asked,
        NoticeKind::Unreadable,
    ];

    fn notice(kind: NoticeKind, incident: Timestamp) -> Notice {
        Notice {
            alert: "PostgresCorrupted".to_owned(),
            kind,
            sentence: "the limit of 2 restores in 1 d is reached; password=hunter2".to_owned(),
            at: after(0),
            incident,
            operation: (kind == NoticeKind::Answered).then(|| OpId::new(after(-90), "x")),
            told: None,
        }
    }

    #[test]
    fn every_notice_says_what_why_and_what_to_do_and_no_secret() {
        for kind in KINDS {
            let letter = render("shop_db", &notice(kind, after(-9)), &mail()).unwrap();
            assert_eq!(letter.subject, "[skep] Alert PostgresCorrupted on shop_db (prod)");
            for text in [&letter.text, &letter.html] {
                assert!(text.contains("the limit of 2 restores in 1 d is reached"), "{text}");
                assert!(text.contains(badge(kind)) && !text.contains("hunter2"), "{text}");
            }
            assert!(
                letter.text.contains("Sent by Skep about alert PostgresCorrupted on shop_db."),
                "{}",
                letter.text
            );
            assert!(letter.text.contains("https://skep.example.org\n"), "{}", letter.text);
            if let Some(directory) = std::env::var_os("SKEP_SAMPLES") {
                let file = std::path::Path::new(&directory).join(format!("notice-{}", kind.as_str()));
                std::fs::write(file.with_extension("html"), &letter.html).unwrap();
                std::fs::write(file.with_extension("txt"), &letter.text).unwrap();
            }
        }
        let limit = render("shop_db", &notice(NoticeKind::Limit, after(-9)), &mail()).unwrap();
        assert!(
            limit.text.contains("Let alerts restore it again:\n    skep ops reset shop_db"),
            "{}",
            limit.text
        );
    }

    #[test]
    fn a_repeat_of_a_notice_is_the_same_message_and_another_incident_is_another() {
        let id = |incident| {
            let letter = render("shop_db", &notice(NoticeKind::Limit, incident), &mail()).unwrap();
            let message = letter.to(&"dba@example.org".parse().unwrap(), &mail(), after(50)).unwrap();
            let text = String::from_utf8(message.formatted()).unwrap();
            text.lines().find(|l| l.starts_with("Message-ID: ")).unwrap().to_owned()
        };
        assert_eq!(id(after(-9)), id(after(-9)));
        assert_ne!(id(after(-9)), id(after(600)));
    }
}
