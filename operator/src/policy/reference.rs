//! The reference of all labels, made from the table.

use std::fmt::Write;

use super::keys::{KEYS, KeySpec};
use super::problem::Section;

const INTRODUCTION: &str = "\
# Labels

<!-- Made from the table in src/policy/keys.rs: UPDATE=1 cargo test -p skep reference -->

Labels go on the service: under `deploy.labels` in a stack file, or with `docker service update --label-add`. Values
are text, so `true`, numbers and everything that begins with `@` or `*` stand in quotes, and a `$` is written `$$`.
`skep check stack.yml` reads a stack file as `docker stack deploy` does and names every mistake.

A label that is wrong turns its section off, and no other; a mistake never becomes a default in silence. Labels
marked *not yet* are known, but this version of Skep does not do them and says so.
";

/// Headings of the sections, in order.
const SECTIONS: [(Section, &str); 12] = [
    (Section::Common, "Common"),
    (Section::DependsOn, "Dependencies"),
    (Section::Scale, "Scaling"),
    (Section::Maintenance, "Maintenance page"),
    (Section::Data, "Data"),
    (Section::Backup, "Backups"),
    (Section::Drill, "Drills"),
    (Section::Point, "Restore points"),
    (Section::Restore, "Restore"),
    (Section::Restart, "Restarts"),
    (Section::Update, "Updates"),
    (Section::Check, "Checks"),
];

/// All labels as text for a terminal, as `skep labels` prints them.
pub fn labels_reference() -> String {
    let mut text = String::new();
    for (section, title) in SECTIONS {
        let _ = writeln!(text, "{}{title}", if text.is_empty() { "" } else { "\n" });
        for spec in rows(section) {
            let _ = writeln!(text, "  {}={}{}", spec.pattern, spec.example, state(spec));
            let _ = writeln!(text, "      {}", spec.doc);
            let _ = writeln!(text, "      value: {}{}", spec.kind.want(), default(spec));
        }
    }
    text
}

/// All labels as a page, `docs/labels.md`.
pub fn labels_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (section, title) in SECTIONS {
        let _ = writeln!(
            page,
            "\n## {title}\n\n| label | what it does | value | default | since |\n|---|---|---|---|---|"
        );
        for spec in rows(section) {
            let default = spec.default.map(|d| format!("`{d}`")).unwrap_or_default();
            let since = if spec.is_done() { spec.since } else { "*not yet*" };
            let value = format!("{}; `{}`", spec.kind.want(), spec.example).replace('|', "\\|");
            let _ = writeln!(page, "| `{}` | {} | {value} | {default} | {since} |", spec.pattern, spec.doc);
        }
    }
    page
}

fn rows(section: Section) -> impl Iterator<Item = &'static KeySpec> {
    KEYS.iter().filter(move |spec| spec.section == section)
}

fn state(spec: &KeySpec) -> &'static str {
    if spec.is_done() { "" } else { "  (not in this version)" }
}

fn default(spec: &KeySpec) -> String {
    spec.default.map(|text| format!("; default {text}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/labels.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, labels_page()).unwrap();
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stored == labels_page(),
            "docs/labels.md is stale: run UPDATE=1 cargo test -p skep reference"
        );
    }

    #[test]
    fn every_label_is_in_both_references() {
        let (text, page) = (labels_reference(), labels_page());
        for spec in KEYS {
            assert!(text.contains(&format!("  {}=", spec.pattern)), "{}", spec.pattern);
            assert!(page.contains(&format!("| `{}` |", spec.pattern)), "{}", spec.pattern);
        }
    }
}
