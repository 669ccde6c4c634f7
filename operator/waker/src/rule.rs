//! Requests that get an answer and wake nothing: those of monitors and bots.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a request is recognised by. `*` stands for any number of any characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Its path, without the query.
    Path(String),
    /// Its `User-Agent`, whether in capitals or not.
    Agent(String),
    /// The address of the client, or a network that it is in: as the nearest proxy tells it (the last of
    /// `X-Forwarded-For`), else of the connection. Who forges it spares nobody a wake but himself.
    Source(String),
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// It does not say what is compared.
    #[error("`{0}` begins with none of `path:`, `agent:` and `source:`")]
    Kind(String),
    /// It compares with nothing.
    #[error("`{0}:` is followed by nothing to compare with")]
    Empty(&'static str),
    /// It has characters that no request has there.
    #[error("`{0}` has characters that cannot be in a request")]
    Characters(String),
    /// No path looks so.
    #[error("`path:{0}` can match no path: one begins with `/`, or a pattern with `*`, and has no `?`")]
    Path(String),
    /// No address and no network.
    #[error("`source:{0}` is neither an address nor a network as in `10.0.0.0/8`")]
    Source(String),
}

/// What the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The path, without the query.
    pub path: &'a str,
    /// The `User-Agent`; empty where there is none.
    pub agent: &'a [u8],
    /// Where the request comes from.
    pub source: IpAddr,
}

/// Rules, ready to compare.
#[derive(Debug, Default)]
pub struct Rules(Vec<Ready>);

#[derive(Debug)]
enum Ready {
    Path(String),
    Agent(Vec<u8>),
    Source(IpNet),
}

// === impl Rule ===

impl Rule {
    /// Refuses a rule that can match nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), RuleError> {
        self.ready().map(drop)
    }

    fn parts(&self) -> (&'static str, &str) {
        match self {
            Rule::Path(pattern) => ("path", pattern),
            Rule::Agent(pattern) => ("agent", pattern),
            Rule::Source(source) => ("source", source),
        }
    }

    fn ready(&self) -> Result<Ready, RuleError> {
        let (kind, value) = self.parts();
        if value.is_empty() {
            return Err(RuleError::Empty(kind));
        }
        if value.chars().any(char::is_control) {
            return Err(RuleError::Characters(value.to_owned()));
        }
        match self {
            Rule::Path(pattern) if !pattern.starts_with(['/', '*']) || pattern.contains('?') => {
                Err(RuleError::Path(pattern.clone()))
            }
            Rule::Path(pattern) => Ok(Ready::Path(pattern.clone())),
            Rule::Agent(pattern) => Ok(Ready::Agent(pattern.to_ascii_lowercase().into_bytes())),
            Rule::Source(source) => match (source.parse::<IpNet>(), source.parse::<IpAddr>()) {
                (Ok(net), _) => Ok(Ready::Source(net)),
                (_, Ok(address)) => Ok(Ready::Source(address.into())),
                _ => Err(RuleError::Source(source.clone())),
            },
        }
    }
}

/// As labels have it: `path:/health*`, `agent:*bot*`, `source:10.0.0.0/8`.
impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rule, RuleError> {
        let text = text.trim();
        let (kind, value) = text.split_once(':').ok_or_else(|| RuleError::Kind(text.to_owned()))?;
        let value = value.trim().to_owned();
        let rule = match kind.trim_end() {
            "path" => Rule::Path(value),
            "agent" => Rule::Agent(value),
            "source" => Rule::Source(value),
            _ => return Err(RuleError::Kind(text.to_owned())),
        };
        rule.check()?;
        Ok(rule)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, value) = self.parts();
        write!(f, "{kind}:{value}")
    }
}

// === impl Rules ===

impl Rules {
    /// Makes rules ready.
    ///
    /// # Errors
    /// The first rule that can match nothing.
    pub fn new(rules: &[Rule]) -> Result<Rules, RuleError> {
        rules.iter().map(Rule::ready).collect::<Result<_, _>>().map(Rules)
    }

    /// Whether one of them matches.
    pub fn any(&self, seen: &Seen<'_>) -> bool {
        self.0.iter().any(|rule| match rule {
            Ready::Path(pattern) => glob(pattern.as_bytes(), seen.path.as_bytes()),
            Ready::Agent(pattern) => glob(pattern, &seen.agent.to_ascii_lowercase()),
            Ready::Source(net) => net.contains(&seen.source),
        })
    }

    /// Whether one of them matches what comes from there, whatever it is.
    pub fn any_source(&self, source: IpAddr) -> bool {
        self.0.iter().any(|rule| matches!(rule, Ready::Source(net) if net.contains(&source)))
    }
}

/// Whether all of `text` is as `pattern` says. Takes no more than the product of their lengths, whatever they are.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut back) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            // What the last star stands for was too short by one.
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(rule: &str, path: &str, agent: &str, source: &str) -> bool {
        let rules = Rules::new(&[rule.parse().unwrap()]).unwrap();
        rules.any(&Seen { path, agent: agent.as_bytes(), source: source.parse().unwrap() })
    }

    #[test]
    fn rules_match_what_they_say() {
        for (rule, path, agent, source, expected) in [
            ("path:/health", "/health", "", "10.0.0.1", true),
            ("path:/health", "/healthy", "", "10.0.0.1", false),
            ("path:/health*", "/healthy", "", "10.0.0.1", true),
            ("path:/Health*", "/health", "", "10.0.0.1", false),
            ("path:*.php", "/a/b.php", "", "10.0.0.1", true),
            ("path:*.php", "/a/b.php3", "", "10.0.0.1", false),
            ("path:/a*b*c", "/axxbxbxc", "", "10.0.0.1", true),
            ("path:/a*b*c", "/axxbxbx", "", "10.0.0.1", false),
            ("agent:*bot*", "/", "Mozilla/5.0 (GoogleBot/2.1)", "10.0.0.1", true),
            ("agent:*BOT*", "/", "a robot", "10.0.0.1", true),
            ("agent:*bot*", "/bot", "curl", "10.0.0.1", false),
            ("source:10.0.0.0/8", "/", "", "10.255.0.1", true),
            ("source:10.0.0.0/8", "/", "", "11.0.0.1", false),
            ("source:10.0.0.7", "/", "", "10.0.0.7", true),
            ("source:10.0.0.7", "/", "", "10.0.0.8", false),
            ("source:fd00::/8", "/", "", "fd01::1", true),
        ] {
            assert_eq!(matches(rule, path, agent, source), expected, "{rule} {path} {agent} {source}");
        }
    }

    #[test]
    fn no_rules_match_nothing() {
        let seen = Seen { path: "/", agent: b"", source: IpAddr::from([127, 0, 0, 1]) };
        assert!(!Rules::default().any(&seen));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, part) in [
            ("/health", "begins with none of"),
            ("host:a", "begins with none of"),
            ("path:", "is followed by nothing"),
            ("path:health", "one begins with `/`"),
            ("path:/a?b=*", "has no `?`"),
            ("agent:a\u{7}b", "cannot be in a request"),
            ("source:10.0.0.0/33", "neither an address nor a network"),
            ("source:example.com", "neither an address nor a network"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_pattern_of_stars_takes_no_time_without_end() {
        let pattern = format!("path:/{}b", "*a".repeat(40));
        assert!(!matches(&pattern, &format!("/{}", "a".repeat(8_000)), "", "10.0.0.1"));
    }

    fn rules() -> impl Strategy<Value = Rule> {
        prop_oneof![
            "[/*][!->@-~]{0,20}".prop_map(Rule::Path),
            "[!-~]([ -~]{0,18}[!-~])?".prop_map(Rule::Agent),
            any::<IpAddr>().prop_map(|a| Rule::Source(a.to_string())),
            (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(a, n)| Rule::Source(format!("{}/{n}", IpAddr::from(a)))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(rule in rules()) {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule.clone()));
            let text = serde_json::to_string(&rule).unwrap();
            prop_assert_eq!(serde_json::from_str::<Rule>(&text).unwrap(), rule);
        }

        #[test]
        fn a_text_without_stars_matches_itself_alone(a in "[a-c]{0,5}", b in "[a-c]{0,5}") {
            prop_assert_eq!(glob(a.as_bytes(), b.as_bytes()), a == b);
        }

        #[test]
        fn stars_match_whatever_was_cut_out(head in "[a-b]{0,4}", cut in "[a-b]{0,4}", tail in "[a-b]{0,4}") {
            let (pattern, text) = (format!("{head}*{tail}"), format!("{head}{cut}{tail}"));
            prop_assert!(glob(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn any_text_is_a_rule_or_a_mistake(text in ".{0,30}") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
            }
        }
    }
}
