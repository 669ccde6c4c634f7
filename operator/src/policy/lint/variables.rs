//! Variables in a stack file, filled in as `docker stack deploy` does: `$$`, `$NAME`, `${NAME}`,
//! `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`, `${NAME?message}`.

/// Where variables come from.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A text with its variables filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) text: String,
    /// Variables that are not set and have no default: nothing stands in their place.
    pub(super) unset: Vec<String>,
}

/// Why it cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A `$` that begins no variable.
    Stray,
    /// A variable that must be set is not.
    Required {
        /// Its name.
        name: String,
        /// What the file says about it.
        message: String,
    },
}

/// What follows the `$`.
struct Substitution<'a> {
    name: &'a str,
    rest: Rest<'a>,
}

/// What follows the name.
enum Rest<'a> {
    Nothing,
    /// `-`; where `or_empty`, `:-`.
    Default {
        text: &'a str,
        or_empty: bool,
    },
    /// `?`; where `or_empty`, `:?`.
    Required {
        message: &'a str,
        or_empty: bool,
    },
}

/// Fills the variables in.
pub(super) fn fill(text: &str, environment: &Environment<'_>) -> Result<Filled, Fault> {
    let mut filled = Filled { text: String::new(), unset: Vec::new() };
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.text.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            filled.text.push('$');
            rest = tail;
            continue;
        }
        let (substitution, tail) = parse(after).ok_or(Fault::Stray)?;
        substitution.add_to(&mut filled, environment)?;
        rest = tail;
    }
    filled.text.push_str(rest);
    Ok(filled)
}

impl Substitution<'_> {
    fn add_to(&self, filled: &mut Filled, environment: &Environment<'_>) -> Result<(), Fault> {
        let value = environment(self.name);
        let usable = |or_empty: bool| value.as_ref().is_some_and(|v| !(or_empty && v.is_empty()));
        match &self.rest {
            Rest::Default { text, or_empty } if !usable(*or_empty) => {
                filled.text.push_str(text);
                return Ok(());
            }
            Rest::Required { message, or_empty } if !usable(*or_empty) => {
                return Err(Fault::Required { name: self.name.to_owned(), message: (*message).to_owned() });
            }
            Rest::Nothing if value.is_none() => filled.unset.push(self.name.to_owned()),
            Rest::Nothing | Rest::Default { .. } | Rest::Required { .. } => {}
        }
        filled.text.push_str(&value.unwrap_or_default());
        Ok(())
    }
}

/// What begins after a `$`, and what follows it.
fn parse(after: &str) -> Option<(Substitution<'_>, &str)> {
    match after.strip_prefix('{') {
        None => Some(substitution(after)).filter(|(s, _)| !s.name.is_empty()),
        Some(inner) => {
            let (found, tail) = substitution(inner);
            Some((found, tail.strip_prefix('}')?)).filter(|(s, _)| !s.name.is_empty())
        }
    }
}

/// A name with what belongs to it. Compose lets a default go on to the next `}`, also without braces.
fn substitution(text: &str) -> (Substitution<'_>, &str) {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, tail) = text.split_at(if starts_well { end } else { 0 });
    let or_empty = tail.starts_with(':');
    let sign = &tail[usize::from(or_empty)..];
    let until = |text: &str| text.find('}').unwrap_or(text.len());
    if let Some(body) = sign.strip_prefix('-') {
        let (text, tail) = body.split_at(until(body));
        return (Substitution { name, rest: Rest::Default { text, or_empty } }, tail);
    }
    if let Some(body) = sign.strip_prefix('?') {
        let (message, tail) = body.split_at(until(body));
        return (Substitution { name, rest: Rest::Required { message, or_empty } }, tail);
    }
    (Substitution { name, rest: Rest::Nothing }, tail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn filled(text: &str) -> String {
        fill(text, &environment).unwrap_or_else(|f| panic!("{text}: {f:?}")).text
    }

    #[test]
    fn variables_are_filled_in_as_compose_does() {
        for (text, result) in [
            ("plain", "plain"),
            ("$$", "$"),
            ("^ok$$", "^ok$"),
            ("$$A", "$A"),
            ("$A!", "one!"),
            ("${A}b", "oneb"),
            ("${NO:-two}", "two"),
            ("${EMPTY:-two}", "two"),
            ("${EMPTY-two}", ""),
            ("${NO-two}", "two"),
            ("${NO:-}", ""),
            ("${A:-two}/${NO:-x y}", "one/x y"),
            ("${A:?must}", "one"),
            ("${EMPTY?must}", ""),
            ("$NO-two }", "two }"),
        ] {
            assert_eq!(filled(text), result, "{text}");
        }
    }

    #[test]
    fn unset_variables_are_named() {
        assert_eq!(
            fill("${NO}$NEITHER $A", &environment),
            Ok(Filled { text: " one".to_owned(), unset: vec!["NO".to_owned(), "NEITHER".to_owned()] })
        );
    }

    #[test]
    fn what_cannot_be_filled_in_is_a_fault() {
        for text in ["^ok$", "a$ b", "$1", "${}", "${A", "${A b}", "${A:}", "$é"] {
            assert_eq!(fill(text, &environment), Err(Fault::Stray), "{text}");
        }
        let required = |message: &str| Fault::Required { name: "NO".to_owned(), message: message.to_owned() };
        assert_eq!(fill("${NO:?set it}", &environment), Err(required("set it")));
        assert_eq!(fill("${NO?}", &environment), Err(required("")));
        assert!(fill("${EMPTY:?x}", &environment).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_text_without_dollar_stays(text in "\\PC{0,40}", near in "[$a{}:?A_-]{0,16}") {
            let _ = fill(&near, &environment);
            let result = fill(&text, &environment);
            if !text.contains('$') {
                prop_assert_eq!(result.map(|f| f.text), Ok(text));
            }
        }
    }
}
