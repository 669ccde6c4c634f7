//! Values of checks: the address to ask, and the comparison of what comes back.

use std::fmt;

use skep_runner::task::Expect;

use super::problem::Code;
use super::value::{self, Fault, Show, port};

/// `http://:8080/health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// Empty for the service itself.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query, with the leading `/`.
    pub(super) path: String,
}

/// What a body must hold: written as a regular expression, kept as the text that it stands for. Checks look for
/// plain text, so an expression that could match anything else is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Body(pub(super) String);

// === impl Body ===

impl Body {
    pub(super) fn parse(text: &str) -> Result<Body, Fault> {
        value::regex(text)?;
        literal(text).map(Body).ok_or_else(|| {
            Fault::new(Code::NotYet)
                .because("this version of Skep looks for plain text only: special characters need a `\\` before them")
                .hint(format!("to look for this very text, write `{}`", regex::escape(text)))
        })
    }
}

impl Show for Body {
    fn show(&self) -> String {
        regex::escape(&self.0)
    }
}

// === impl Url ===

impl Url {
    /// Parses an address. User names and passwords are refused: labels are no place for secrets.
    pub(super) fn parse(text: &str) -> Result<Url, Fault> {
        let fault = Fault::new(Code::BadUrl);
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(match text.strip_prefix("https://") {
                Some(_) => fault.because("checks ask inside the application's own network, without TLS"),
                None => fault.because("it does not begin with `http://`").hint(without_scheme(text)),
            });
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if let Some((_, host)) = authority.rsplit_once('@') {
            let shown = format!("http://…@{host}{path}");
            return Err(fault.because("it holds a user name or password").redacted(shown));
        }
        let (host, port) = host_and_port(authority)?;
        if path.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') {
            return Err(fault.because("the path holds a space, a control character or `#`"));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Url { host, port, path: format!("{slash}{path}") })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.path)
    }
}

impl Show for Url {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for Expect {
    fn show(&self) -> String {
        match self {
            Expect::Any => "any".to_owned(),
            Expect::Eq(text) => format!("eq {text}"),
            Expect::Ne(text) => format!("ne {text}"),
            Expect::Lt(number) => format!("lt {number}"),
            Expect::Le(number) => format!("le {number}"),
            Expect::Gt(number) => format!("gt {number}"),
            Expect::Ge(number) => format!("ge {number}"),
            Expect::Matches(pattern) => format!("matches {pattern}"),
        }
    }
}

// === free functions ===

/// `ge 1`, `eq ok`, `matches ^v1[0-9]`, or `any`.
pub(super) fn expect(text: &str) -> Result<Expect, Fault> {
    let (word, operand) = text.split_once(char::is_whitespace).map_or((text, ""), |(w, o)| (w, o.trim()));
    if word == "any" && operand.is_empty() {
        return Ok(Expect::Any);
    }
    let known = matches!(word, "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "matches");
    if !known {
        return Err(Fault::new(Code::BadExpect)
            .because(format!("`{word}` is not a comparison"))
            .hint(meant(text)));
    }
    if operand.is_empty() {
        return Err(Fault::new(Code::BadExpect).because(format!("`{word}` needs something to compare with")));
    }
    Ok(match word {
        "eq" => Expect::Eq(operand.to_owned()),
        "ne" => Expect::Ne(operand.to_owned()),
        "lt" => Expect::Lt(number(operand)?),
        "le" => Expect::Le(number(operand)?),
        "gt" => Expect::Gt(number(operand)?),
        "ge" => Expect::Ge(number(operand)?),
        _ => Expect::Matches(operand.to_owned()),
    })
}

fn number(text: &str) -> Result<f64, Fault> {
    let parsed = text.parse::<f64>().ok().filter(|n| n.is_finite());
    parsed.ok_or_else(|| Fault::new(Code::BadExpect).because(format!("`{text}` is not a number")))
}

/// The only text that a regular expression matches, where there is only one and it can be told at sight.
fn literal(expression: &str) -> Option<String> {
    const SPECIAL: &str = r"\.+*?()|[]{}^$#&-~";
    let mut text = String::new();
    let mut rest = expression.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => text.push(rest.next().filter(|c| SPECIAL.contains(*c))?),
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            plain => text.push(plain),
        }
    }
    Some(text)
}

/// `>= 1` → `ge 1`, `1` → `eq 1`.
fn meant(text: &str) -> Option<String> {
    let signs = [
        (">=", "ge"),
        ("<=", "le"),
        ("!=", "ne"),
        ("<>", "ne"),
        ("==", "eq"),
        ("=", "eq"),
        (">", "gt"),
        ("<", "lt"),
    ];
    let found = signs.iter().find_map(|(sign, word)| Some((word, text.strip_prefix(sign)?.trim())));
    match found {
        Some((word, operand)) if !operand.is_empty() => Some(format!("did you mean `{word} {operand}`?")),
        _ => number(text).ok().map(|_| format!("did you mean `eq {text}`?")),
    }
}

fn host_and_port(authority: &str) -> Result<(String, u16), Fault> {
    const DEFAULT: u16 = 80;
    let fault = Fault::new(Code::BadUrl);
    let (host, digits) = authority.rsplit_once(':').map_or((authority, None), |(h, p)| (h, Some(p)));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !host.chars().all(allowed) || host.len() > 253 {
        return Err(fault.because(format!("`{host}` is not a host name")));
    }
    let port = match digits {
        Some(digits) => port(digits).map_err(|_| fault.because(format!("`{digits}` is not a port")))?,
        None => DEFAULT,
    };
    Ok((host.to_owned(), port))
}

fn without_scheme(text: &str) -> Option<String> {
    let candidate =
        if text.starts_with('/') { format!("http://:8080{text}") } else { format!("http://{text}") };
    let looks_right = text.starts_with('/') || text.contains(':');
    (looks_right && !text.contains("://") && Url::parse(&candidate).is_ok())
        .then(|| format!("did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|f| panic!("{text}: {f:?}"))
    }

    #[test]
    fn an_address_without_a_host_asks_the_service_itself() {
        assert_eq!(
            url("http://:8080/health"),
            Url { host: String::new(), port: 8080, path: "/health".to_owned() }
        );
        assert_eq!(
            url("http://app:81/a/b?c=d"),
            Url { host: "app".to_owned(), port: 81, path: "/a/b?c=d".to_owned() }
        );
        assert_eq!(
            url("http://tasks.app"),
            Url { host: "tasks.app".to_owned(), port: 80, path: "/".to_owned() }
        );
        assert_eq!(url("http://app?x=/y").path, "/?x=/y");
    }

    #[test]
    fn addresses_that_cannot_be_asked_are_refused() {
        for text in [
            "",
            "http//x",
            "https://app/",
            "http://app:0/",
            "http://app:99999/",
            "http://app:/",
            "http://a b/",
            "http://app/a b",
            "http://app/a\r\nX: y",
            "http://app/#top",
            "http://[::1]:80/",
            "http://app:80:80/",
        ] {
            assert_eq!(Url::parse(text).map_err(|f| f.code), Err(Code::BadUrl), "{text}");
        }
        assert_eq!(
            Url::parse(":8080/h").unwrap_err().hint.as_deref(),
            Some("did you mean `http://:8080/h`?")
        );
    }

    #[test]
    fn a_password_in_an_address_is_not_repeated() {
        let fault = Url::parse("http://admin:hunter2@app:80/health").unwrap_err();
        assert_eq!(fault.redacted.as_deref(), Some("http://…@app:80/health"));
        assert!(!format!("{:?} {:?}", fault.because, fault.hint).contains("hunter2"));
    }

    #[test]
    fn comparisons_are_words_and_signs_are_explained() {
        assert_eq!(expect("ge 1"), Ok(Expect::Ge(1.0)));
        assert_eq!(expect("eq two words"), Ok(Expect::Eq("two words".to_owned())));
        assert_eq!(expect("matches ^v1[0-9]"), Ok(Expect::Matches("^v1[0-9]".to_owned())));
        for (text, hint) in [
            (">= 1", "did you mean `ge 1`?"),
            ("5", "did you mean `eq 5`?"),
            ("=ok", "did you mean `eq ok`?"),
        ] {
            assert_eq!(expect(text).unwrap_err().hint.as_deref(), Some(hint), "{text}");
        }
        for text in ["", "ge", "ge x", "ge NaN", "lt inf", "between 1 2", "any 5", "matches "] {
            assert!(expect(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_body_is_plain_text_written_as_a_regular_expression() {
        let body = |text: &str| Body::parse(text).map(|b| b.0);
        assert_eq!(body("ok"), Ok("ok".to_owned()));
        assert_eq!(body(r#""status":"ok""#), Ok(r#""status":"ok""#.to_owned()));
        assert_eq!(body(r"v1\.2 \{a\}"), Ok("v1.2 {a}".to_owned()));
        for text in ["^ok$", "v1.2", "a|b", r"\d+", "(?i)ok", "[0-9]"] {
            assert_eq!(body(text).map_err(|f| f.code), Err(Code::NotYet), "{text}");
        }
        for text in ["", "(", r#"{"status":"ok"}"#, "a\\"] {
            assert_eq!(body(text).map_err(|f| f.code), Err(Code::BadRegex), "{text}");
        }
        let braces = body(r#"{"status":"ok"}"#).unwrap_err();
        assert_eq!(braces.hint.as_deref(), Some(r#"to look for this very text, write `\{"status":"ok"\}`"#));
    }

    proptest! {
        #[test]
        fn a_body_matches_exactly_what_its_expression_matches(text in "[a-c.*\\\\^$ ]{1,6}", other in "[a-c.*^$ ]{0,8}") {
            if let Ok(body) = Body::parse(&text) {
                prop_assert_eq!(other.contains(&body.0), regex::Regex::new(&text).unwrap().is_match(&other));
                prop_assert_eq!(Body::parse(&body.show()), Ok(body));
            }
        }

        #[test]
        fn every_valid_address_and_comparison_round_trips(
            host in "[a-z0-9._-]{0,12}", port in 1_u16.., path in "(/[a-z0-9?=&%.-]{0,12})?", n in any::<f64>(), word in "[!-~]{1,8}",
        ) {
            let first = url(&format!("http://{host}:{port}{path}"));
            prop_assert_eq!(&url(&first.show()), &first);
            if n.is_finite() {
                for value in [Expect::Lt(n), Expect::Le(n), Expect::Gt(n), Expect::Ge(n)] {
                    prop_assert_eq!(expect(&value.show()), Ok(value));
                }
            }
            for value in [Expect::Eq(word.clone()), Expect::Ne(word.clone()), Expect::Matches(word.clone()), Expect::Any] {
                prop_assert_eq!(expect(&value.show()), Ok(value));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,32}", near in "http://[:@a-z0-9/?#.-]{0,24}") {
            let _ = Url::parse(&text);
            let _ = Url::parse(&near);
            let _ = expect(&text);
            let _ = Body::parse(&text);
        }
    }
}
