//! YAML as a tree that remembers its lines and what was written, and that survives the usual slips.
//!
//! A value that begins with `@` or `*`, or that holds `: `, makes the whole file unreadable. Such a value is
//! reported, put into quotes in memory, and reading goes on, so that one slip does not hide the other problems.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

use crate::policy::problem::{Code, Problem, Section};

/// Slips that are mended before reading gives up.
const MOST_REPAIRS: usize = 100;

/// A node with its line, counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At {
    pub(super) line: u64,
    pub(super) node: Node,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    /// An unquoted `true` or `false`.
    Flag(bool),
    /// An unquoted number.
    Number {
        /// As in the file.
        written: String,
        /// As Compose passes it on.
        read: String,
    },
    Text(String),
    List(Vec<At>),
    Map(Vec<Entry>),
}

/// One pair of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) value: At,
}

/// A problem on a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slip {
    pub(super) line: u64,
    pub(super) problem: Problem,
}

/// A node as the deserializer gives it: its text is still only in the source.
enum Raw {
    Null,
    Flag(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

struct RawVisitor;

// === impl At ===

impl At {
    /// The entries of a mapping; none for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.node {
            Node::Map(entries) => entries,
            Node::Null | Node::Flag(_) | Node::Number { .. } | Node::Text(_) | Node::List(_) => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub(super) fn items(&self) -> &[At] {
        match &self.node {
            Node::List(items) => items,
            Node::Null | Node::Flag(_) | Node::Number { .. } | Node::Text(_) | Node::Map(_) => &[],
        }
    }

    /// The value of a key of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&At> {
        self.entries().iter().rev().find(|e| e.key == key).map(|e| &e.value)
    }

    /// A single value as text.
    pub(super) fn text(&self) -> Option<String> {
        match &self.node {
            Node::Text(text) => Some(text.clone()),
            Node::Number { read, .. } => Some(read.clone()),
            Node::Flag(flag) => Some(flag.to_string()),
            Node::Null | Node::List(_) | Node::Map(_) => None,
        }
    }

    fn of(raw: Spanned<Raw>, source: &str) -> At {
        let node = match raw.value {
            Raw::Null => Node::Null,
            Raw::Flag(flag) => Node::Flag(flag),
            Raw::Number(read) => {
                let span = raw.defined.span();
                let start = span.byte_offset().and_then(|n| usize::try_from(n).ok());
                let length = span.byte_len().and_then(|n| usize::try_from(n).ok());
                let written = start.zip(length).and_then(|(s, n)| source.get(s..s.checked_add(n)?));
                Node::Number { written: written.unwrap_or(&read).trim().to_owned(), read }
            }
            Raw::Text(text) => Node::Text(text),
            Raw::List(items) => Node::List(items.into_iter().map(|item| At::of(item, source)).collect()),
            Raw::Map(entries) => {
                Node::Map(entries.into_iter().map(|(k, v)| Entry::of(k, v, source)).collect())
            }
        };
        At { line: raw.referenced.line(), node }
    }
}

// === impl Entry ===

impl Entry {
    fn of(key: Spanned<String>, value: Spanned<Raw>, source: &str) -> Entry {
        Entry { line: key.referenced.line(), key: key.value, value: At::of(value, source) }
    }
}

// === impl Raw ===

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Raw, E> {
        Ok(Raw::Flag(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Number(number.to_string()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

// === free functions ===

/// Reads one document, with the slips that were mended on the way. No tree where it cannot be read.
pub(super) fn read(source: &str) -> (Option<At>, Vec<Slip>) {
    let mut text = source.to_owned();
    let mut slips = Vec::new();
    loop {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            // As the Docker client reads them: 010 is 8.
            legacy_octal_numbers: true,
            with_snippet: false,
            duplicate_keys: DuplicateKeyPolicy::LastWins,
            non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        };
        let error = match serde_saphyr::from_str_with_options::<Spanned<Raw>>(&text, options) {
            Ok(raw) => return (Some(At::of(raw, &text)), slips),
            Err(error) => error,
        };
        let line = error.location().map_or(0, |l| l.line());
        match quote_value(&text, line).filter(|_| slips.len() < MOST_REPAIRS) {
            Some((mended, slip)) => {
                slips.push(slip);
                text = mended;
            }
            None => {
                slips.push(Slip { line, problem: not_yaml(&error.to_string()) });
                return (None, slips);
            }
        }
    }
}

fn not_yaml(message: &str) -> Problem {
    Problem::new(Code::NotYaml, Section::Common, "the file").want(format!("YAML ({message})"))
}

/// Puts the plain value on a line into quotes, where that is what is wrong with it.
fn quote_value(text: &str, line: u64) -> Option<(String, Slip)> {
    static PAIR: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"^(\s*(?:-\s+)?["']?)([^\s"'#:][^\s"':]*)(["']?\s*:\s+)([^\s"'#].*?)(\s+#.*)?\s*$"#)
            .expect("the pattern is fixed and valid")
    });
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let wrong = text.lines().nth(index)?;
    let parts = PAIR.captures(wrong)?;
    let (key, value) = (parts[2].to_owned(), parts[4].to_owned());
    let code = slip_of(&value)?;
    let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    let comment = parts.get(5).map_or("", |c| c.as_str());
    let mended = format!("{}{key}{}{quoted}{comment}", &parts[1], &parts[3]);
    let lines = text.lines().enumerate().map(|(i, l)| if i == index { mended.as_str() } else { l });
    let mut whole = lines.collect::<Vec<_>>().join("\n");
    whole.push('\n');
    let section = section_of(&key);
    let problem = Problem::new(code, section, &key)
        .got(value)
        .want("the value in quotes: as it stands, YAML cannot read the file")
        .hint(format!("write `{key}: {quoted}`"));
    Some((whole, Slip { line, problem }))
}

/// What is wrong with a plain value, if quotes mend it.
fn slip_of(value: &str) -> Option<Code> {
    if value.starts_with(['@', '`']) {
        return Some(Code::LeadingAt);
    }
    if value.starts_with('*') && (value.contains([' ', '/', ',']) || value == "*") {
        return Some(Code::LeadingStar);
    }
    let is_plain = !value.starts_with(['*', '&', '!', '{', '[', '|', '>']);
    (is_plain && (value.contains(": ") || value.ends_with(':') || value.starts_with(['%', '?', '-', ','])))
        .then_some(Code::NotYaml)
}

/// The section of a label, for problems that are found before the label is understood.
pub(super) fn section_of(key: &str) -> Section {
    key.split('.').nth(1).and_then(Section::of_group).unwrap_or(Section::Common)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(source: &str) -> At {
        let (root, slips) = read(source);
        assert_eq!(slips, [], "{source}");
        root.unwrap()
    }

    fn codes(source: &str) -> Vec<(u64, Code)> {
        read(source).1.iter().map(|s| (s.line, s.problem.code)).collect()
    }

    #[test]
    fn lines_and_what_was_written_are_kept() {
        let root = tree("a:\n  b: 010\n  c: 'x' # y\n  d: true\n  e: yes\n  f: ~\n");
        let a = root.get("a").unwrap();
        assert_eq!(
            a.get("b"),
            Some(&At { line: 2, node: Node::Number { written: "010".into(), read: "8".into() } })
        );
        assert_eq!(a.get("c").map(|at| (at.line, &at.node)), Some((3, &Node::Text("x".into()))));
        assert_eq!(a.get("d").map(|at| &at.node), Some(&Node::Flag(true)));
        assert_eq!(a.get("e").map(|at| &at.node), Some(&Node::Text("yes".into())));
        assert_eq!(a.get("f").map(|at| &at.node), Some(&Node::Null));
    }

    #[test]
    fn merged_and_repeated_values_are_read() {
        let root = tree("x: &l\n  a: one\n  b: two\ny:\n  <<: *l\n  b: three\n");
        let y = root.get("y").unwrap();
        assert_eq!(y.get("a").map(|at| &at.node), Some(&Node::Text("one".into())));
        assert_eq!(y.get("b").map(|at| &at.node), Some(&Node::Text("three".into())));
    }

    #[test]
    fn values_that_need_quotes_are_reported_and_reading_goes_on() {
        let source = "a: @daily\nb: */5 * * * *\nc: * * * * * # often\nd: SELECT 'x: y'\ne: fine\n";
        assert_eq!(
            codes(source),
            [(1, Code::LeadingAt), (2, Code::LeadingStar), (3, Code::LeadingStar), (4, Code::NotYaml)]
        );
        let root = read(source).0.unwrap();
        assert_eq!(root.get("c").map(|at| &at.node), Some(&Node::Text("* * * * *".into())));
        assert_eq!(root.get("d").map(|at| &at.node), Some(&Node::Text("SELECT 'x: y'".into())));
        assert_eq!(root.get("e").map(|at| at.line), Some(5));
    }

    #[test]
    fn what_quotes_do_not_mend_ends_the_reading() {
        for source in ["a: 'x\nb: c\n", "a: *unknown\n", "a: [1\n", "a: 1\n---\nb: 2\n", "? [a]\n: b\n"] {
            let (root, slips) = read(source);
            assert!(root.is_none(), "{source}");
            assert_eq!(slips.last().map(|s| s.problem.code), Some(Code::NotYaml), "{source}");
        }
    }

    #[test]
    fn a_bomb_of_repetitions_is_refused() {
        let mut source = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for n in 1..12 {
            let inner = vec![format!("*a{}", n - 1); 9].join(",");
            source.push_str(&format!("a{n}: &a{n} [{inner}]\n"));
        }
        assert!(read(&source).0.is_none());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}", near in "([a-z]{1,3}: ?[-@*`'\"a-z0-9:#%&!{}\\[\\] ]{0,12}\n){0,6}") {
            let _ = read(&text);
            let _ = read(&near);
        }
    }
}
