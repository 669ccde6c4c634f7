//! Makes texts of the record safe to show: one line, no control or bidirectional characters, bounded, and with
//! what looks like a credential masked (S15). Notes hold messages of engines and tools, which quote what they like.

use std::sync::LazyLock;

use regex::Regex;

/// What stands in the place of a masked value.
const MASK: &str = "•••";

static CREDENTIALS: LazyLock<Vec<(Regex, String)>> = LazyLock::new(|| {
    let rules = [
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", MASK.to_owned()),
        (r"AGE-SECRET-KEY-1[A-Za-z0-9]+", MASK.to_owned()),
        (r"([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@]*):\S*@", format!("${{1}}:{MASK}@")),
        (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}", format!("${{1}} {MASK}")),
        (
            r#"(?i)([a-z0-9_.-]*(?:password|passwd|pwd|passphrase|secret|token|api[_-]?key|access[_-]?key|credentials?)"?)(\s*[=:]\s*|\s+is\s+)(?:"[^"]*"|'[^']*'|[^\s,;&]+)"#,
            format!("${{1}}${{2}}{MASK}"),
        ),
    ];
    rules.map(|(rule, with)| (Regex::new(rule).expect("the rule is a constant and tested"), with)).into()
});

/// The text on one line, without control characters and credentials, at most `longest` characters.
pub(crate) fn line(text: &str, longest: usize) -> String {
    let flat: String = text.chars().map(|c| if is_harmful(c) { ' ' } else { c }).collect();
    let mut flat = flat.split_whitespace().collect::<Vec<_>>().join(" ");
    for (rule, with) in CREDENTIALS.iter() {
        flat = rule.replace_all(&flat, with.as_str()).into_owned();
    }
    if flat.chars().count() > longest {
        flat = flat.chars().take(longest.saturating_sub(1)).collect::<String>() + "…";
    }
    flat
}

/// Lower-case letters, digits and dashes: fit for a `Message-ID` or a domain label.
pub(crate) fn slug(text: &str) -> String {
    let dashed: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let parts: Vec<&str> = dashed.split('-').filter(|p| !p.is_empty()).collect();
    let slug: String = parts.join("-").chars().take(40).collect();
    slug.trim_end_matches('-').to_owned()
}

/// Control characters, line and paragraph separators, and those that reorder or hide text.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_no_line_break_and_no_character_that_reorders_text() {
        assert_eq!(line("a\r\nBcc: x@example.org\t\u{202e}b\u{2028}c\0", 80), "a Bcc: x@example.org b c");
    }

    #[test]
    fn a_line_is_cut_at_a_character_not_inside_one() {
        assert_eq!(line("äöüäöü", 4), "äöü…");
    }

    #[test]
    fn what_looks_like_a_credential_is_masked() {
        for text in [
            "cannot connect to postgres://app:hunter2@db:5432/shop",
            "cannot connect to postgres://app:hun/ter2hunter2@db",
            "PGPASSWORD=hunter2 pg_dump failed",
            "password: \"hunter2 hunter2\" is wrong",
            r#"{"password":"hunter2"}"#,
            "db_token = hunter2;",
            "Authorization: Bearer hunter2hunter2",
            "key AGE-SECRET-KEY-1HUNTER2 read",
            "-----BEGIN RSA PRIVATE KEY----- hunter2",
            "the password is hunter2",
            "AWS_SECRET_ACCESS_KEY=hunter2",
        ] {
            let shown = line(text, 200);
            assert!(!shown.to_lowercase().contains("hunter2"), "{text} is shown as {shown}");
        }
    }

    #[test]
    fn ordinary_notes_are_left_alone() {
        for text in [
            "pg_restore: error: could not execute query: relation \"users\" exists at 12:30:01",
            "see http://status.example.org:8080/ops/1 for more",
            "12,345 of 20,000 rows; secretary table done",
        ] {
            assert_eq!(line(text, 200), text);
        }
    }

    #[test]
    fn a_slug_is_fit_for_a_domain() {
        assert_eq!(slug("Prod – Zürich (EU)"), "prod-z-rich-eu");
        assert_eq!(slug("…"), "");
    }
}
