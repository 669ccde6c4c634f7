//! Quoting for SQL and for libpq's connection strings. Sessions run with `standard_conforming_strings=on`.

/// A quoted identifier.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A literal, or `NULL`.
pub(crate) fn nullable(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), literal)
}

/// A `text[]` value.
pub(crate) fn array<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.into_iter().map(literal).collect();
    format!("ARRAY[{}]::text[]", items.join(","))
}

/// A value of a connection string.
pub(crate) fn conninfo(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The elements of a stored list setting such as `"$user", public`, without their quotes.
pub(crate) fn list_elements(value: &str) -> Vec<String> {
    let mut elements = vec![String::new()];
    let mut quoted = false;
    let mut chars = value.chars().peekable();
    while let Some(char) = chars.next() {
        let element = elements.last_mut().expect("there is always an element");
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => element.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(String::new()),
            char if !quoted && char.is_whitespace() => {}
            char => element.push(char),
        }
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_inside_are_doubled_or_escaped() {
        assert_eq!(ident("Shop \"DB\""), "\"Shop \"\"DB\"\"\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(conninfo("a'b\\c d"), "'a\\'b\\\\c d'");
        assert_eq!(array(["a", "b'c"]), "ARRAY['a','b''c']::text[]");
        assert_eq!(array([]), "ARRAY[]::text[]");
    }

    #[test]
    fn list_settings_split_as_the_server_writes_them() {
        assert_eq!(list_elements("\"$user\", public"), ["$user", "public"]);
        assert_eq!(list_elements("\"a, \"\"b\"\"\", c"), ["a, \"b\"", "c"]);
        assert_eq!(list_elements("\"\""), [""]);
    }
}
