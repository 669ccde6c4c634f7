//! What is printed: what users saw, and the mails.

use std::io::IsTerminal as _;

use mailparse::{MailHeaderMap as _, ParsedMail};

use super::Outcome;
use crate::load::{Report, Second};

/// Seconds on one line of the bar.
const WIDTH: usize = 60;
/// Lines of a mail's text that are shown.
const LINES: usize = 8;

/// A mail as it arrived.
pub(super) struct Mail {
    head: String,
    text: String,
}

/// What a second is, for its worst answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    App,
    Page,
    Error,
    Wrong,
    Nothing,
}

// === impl Mail ===

impl Mail {
    pub(super) fn parse(raw: &str) -> Outcome<Mail> {
        let mail = mailparse::parse_mail(raw.as_bytes()).map_err(|error| format!("a mail: {error}"))?;
        let header = |name: &str| mail.headers.get_first_value(name).unwrap_or_default();
        let head = ["From", "To", "Subject", "Date"].map(|name| format!("  {name}: {}", header(name)));
        let text = text_part(&mail).unwrap_or_default();
        Ok(Mail { head: head.join("\n"), text })
    }

    /// Whether it says that data was restored.
    pub(super) fn is_end_of_restore(&self) -> bool {
        self.text.contains("was restored from a backup and verified")
    }

    pub(super) fn show(&self) {
        println!("{}", self.head);
        let lines = self.text.lines().filter(|line| !line.trim().is_empty()).take(LINES);
        lines.for_each(|line| println!("  | {line}"));
        println!();
    }
}

fn text_part(mail: &ParsedMail<'_>) -> Option<String> {
    if mail.ctype.mimetype == "text/plain" {
        return mail.get_body().ok();
    }
    mail.subparts.iter().find_map(text_part)
}

// === impl Colour ===

impl Colour {
    fn of(second: &Second) -> Colour {
        let totals = second.totals;
        match () {
            () if totals.wrong > 0 => Colour::Wrong,
            () if totals.app_error > 0 => Colour::Error,
            () if totals.page > 0 => Colour::Page,
            () if totals.app > 0 => Colour::App,
            () => Colour::Nothing,
        }
    }

    fn paint(self, coloured: bool) -> String {
        let (letter, code) = match self {
            Colour::App => ('.', 32),
            Colour::Page => ('P', 33),
            Colour::Error => ('E', 35),
            Colour::Wrong => ('X', 31),
            Colour::Nothing => (' ', 90),
        };
        if coloured { format!("\x1b[{code}m█\x1b[0m") } else { letter.to_string() }
    }
}

/// Heading of a part of the play.
pub(super) fn heading(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\x1b[1m== {text}\x1b[0m");
    } else {
        println!("\n== {text}");
    }
}

/// What users saw, a block a second.
pub(super) fn bar(report: &Report) {
    let coloured = std::io::stdout().is_terminal();
    let colours: Vec<Colour> = report.seconds.iter().map(Colour::of).collect();
    for (line, chunk) in colours.chunks(WIDTH).enumerate() {
        let blocks: String = chunk.iter().map(|colour| colour.paint(coloured)).collect();
        println!("  {:>4} s  {blocks}", line * WIDTH);
    }
    let legend = [
        (Colour::App, "the application", report.totals.app),
        (Colour::Error, "the application's own error", report.totals.app_error),
        (Colour::Page, "503 with the maintenance page", report.totals.page),
        (Colour::Wrong, "anything else", report.totals.wrong),
    ];
    println!("  (one a second: the worst that any user saw in it)");
    for (colour, meaning, count) in legend {
        println!("    {} {meaning}: {count} answers", colour.paint(coloured));
    }
    for (kind, count) in &report.wrong {
        println!("      {kind}: {count}");
    }
    println!("  slowest answer {:.0} ms", report.slowest_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Totals;

    #[test]
    fn a_second_is_what_its_worst_answer_was() {
        let second = |totals| Second { totals, slowest_ms: 1.0 };
        let app = Totals { app: 9, ..Totals::default() };
        assert_eq!(Colour::of(&second(app)), Colour::App);
        assert_eq!(Colour::of(&second(Totals { page: 1, ..app })), Colour::Page);
        assert_eq!(Colour::of(&second(Totals { page: 1, app_error: 1, ..app })), Colour::Error);
        assert_eq!(Colour::of(&second(Totals { wrong: 1, app_error: 1, ..app })), Colour::Wrong);
        assert_eq!(Colour::of(&second(Totals::default())), Colour::Nothing);
    }

    #[test]
    fn the_text_of_a_mail_of_several_parts_is_found() {
        let raw = "Subject: hello\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>x\r\n--b\r\nContent-Type: text/plain\r\n\r\nplain words\r\n--b--\r\n";
        let mail = Mail::parse(raw).unwrap();
        assert!(mail.head.contains("Subject: hello"), "{}", mail.head);
        assert_eq!(mail.text.trim(), "plain words");
    }
}
