//! Comparing the value of a check with what is wanted, the same for every engine.

use std::cmp::Ordering;

use crate::error::Result;
use crate::task::Expect;

/// Longest value that is told, in characters.
pub(crate) const TOLD: usize = 200;

/// Whether a value (none for NULL) is as expected, and what to tell. `matches` evaluates regular expressions.
pub(crate) fn judge(
    expect: &Expect,
    rows: u64,
    value: Option<&str>,
    mut matches: impl FnMut(&str, &str) -> Result<bool>,
) -> Result<(bool, String)> {
    let value = match (rows, value) {
        _ if *expect == Expect::Any => return Ok((true, format!("answered {rows} rows"))),
        (0, _) => return Ok((false, "answered no row".to_owned())),
        (_, None) => return Ok((false, "answered NULL".to_owned())),
        (_, Some(value)) => value,
    };
    let (passed, wanted) = compare(expect, value, &mut matches)?;
    Ok((passed, format!("found {}, wanted {wanted}", shortened(value))))
}

/// Whether a value is as expected, and what was wanted.
pub(crate) fn compare(
    expect: &Expect,
    value: &str,
    matches: &mut impl FnMut(&str, &str) -> Result<bool>,
) -> Result<(bool, String)> {
    Ok(match expect {
        Expect::Any => (true, String::new()),
        Expect::Eq(wanted) => (is_equal(value, wanted), format!("= {wanted}")),
        Expect::Ne(wanted) => (!is_equal(value, wanted), format!("≠ {wanted}")),
        Expect::Lt(wanted) => (is_ordered(value, *wanted, &[Ordering::Less]), format!("< {wanted}")),
        Expect::Le(wanted) => {
            (is_ordered(value, *wanted, &[Ordering::Less, Ordering::Equal]), format!("≤ {wanted}"))
        }
        Expect::Gt(wanted) => (is_ordered(value, *wanted, &[Ordering::Greater]), format!("> {wanted}")),
        Expect::Ge(wanted) => {
            (is_ordered(value, *wanted, &[Ordering::Greater, Ordering::Equal]), format!("≥ {wanted}"))
        }
        Expect::Matches(regex) => (matches(value, regex)?, format!("a match of {regex}")),
    })
}

/// As numbers where both are numbers; a boolean by either of its spellings; else as text.
fn is_equal(value: &str, wanted: &str) -> bool {
    let (value, wanted) = (value.trim(), wanted.trim());
    let numbers = value.parse::<f64>().ok().zip(wanted.parse::<f64>().ok());
    value == wanted
        || numbers.is_some_and(|(value, wanted)| value == wanted)
        || matches!((value, wanted), ("true", "t") | ("false", "f"))
}

fn is_ordered(value: &str, wanted: f64, allowed: &[Ordering]) -> bool {
    let ordering = value.trim().parse::<f64>().ok().and_then(|value| value.partial_cmp(&wanted));
    ordering.is_some_and(|ordering| allowed.contains(&ordering))
}

/// So much of it as is told.
pub(crate) fn shortened(value: &str) -> String {
    let mut chars = value.chars();
    let told: String = chars.by_ref().take(TOLD).collect();
    if chars.next().is_some() { told + "…" } else { told }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_equal_by_value_and_texts_by_letters() {
        assert!(is_equal("3", "3.0"));
        assert!(is_equal("9007199254740993", "9007199254740993"));
        assert!(is_equal("true", "t") && is_equal("false", "f"));
        assert!(!is_equal("true", "f"));
        assert!(!is_equal("abc", "abd"));
    }

    #[test]
    fn what_is_no_number_is_in_no_order() {
        assert!(is_ordered("12", 3.0, &[Ordering::Greater]));
        assert!(!is_ordered("many", 3.0, &[Ordering::Greater]));
        assert!(!is_ordered("NaN", 3.0, &[Ordering::Greater, Ordering::Less, Ordering::Equal]));
    }

    #[test]
    fn a_long_value_is_told_short() {
        assert_eq!(shortened("é"), "é");
        assert_eq!(shortened(&"é".repeat(TOLD + 1)).chars().count(), TOLD + 1);
        assert!(shortened(&"é".repeat(TOLD + 1)).ends_with('…'));
    }
}
