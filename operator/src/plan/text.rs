//! A plan as people read it.

use std::fmt;

use super::explain::{Back, Fact, Plan, PlannedStep};

/// Longest line.
const WIDTH: usize = 110;
/// Column at which facts begin.
const INDENT: usize = 13;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of {}", self.kind, self.service)?;
        for Fact { title, lines } in &self.facts {
            section(f, title, lines)?;
        }
        if !self.users.is_empty() {
            section(f, "Users see", std::slice::from_ref(&self.users))?;
        }
        if let Some(alerts) = &self.alerts {
            section(f, "On alert", std::slice::from_ref(alerts))?;
        }
        steps(f, &self.steps)?;
        bullets(f, "Known only when it runs", &self.unknown)?;
        bullets(f, "Mind", &self.mind)?;
        bullets(f, "Refused, because", &self.refused)
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    for (i, line) in lines.iter().enumerate() {
        let title = if i == 0 { title } else { "" };
        for (j, part) in wrap(line, WIDTH - INDENT).iter().enumerate() {
            let (title, more) = if j == 0 { (title, "") } else { ("", "  ") };
            writeln!(f, "{title:<INDENT$}{more}{part}")?;
        }
    }
    Ok(())
}

fn steps(f: &mut fmt::Formatter<'_>, steps: &[PlannedStep]) -> fmt::Result {
    if steps.is_empty() {
        return Ok(());
    }
    writeln!(f, "\nSteps (↩ how it is taken back, ◆ no way back by itself from here on)")?;
    for (i, step) in steps.iter().enumerate() {
        let back = match &step.back {
            Back::Nothing => String::new(),
            Back::Undo(how) => format!("  ↩\u{a0}{how}"),
            Back::NoWayBack => "  ◆".to_owned(),
        };
        let text = format!("{}{back}", step.does);
        for (j, part) in wrap(&text, WIDTH - 15).iter().enumerate() {
            match j {
                0 => writeln!(f, "{:>3} {:<10} {part}", i + 1, step.name)?,
                _ => writeln!(f, "{:15}{part}", "")?,
            }
        }
    }
    Ok(())
}

fn bullets(f: &mut fmt::Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    for line in lines {
        for (i, part) in wrap(line, WIDTH - 4).iter().enumerate() {
            writeln!(f, "{} {part}", if i == 0 { "  -" } else { "   " })?;
        }
    }
    Ok(())
}

/// Breaks at spaces; a word longer than a line stands on its own.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one from the beginning");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    // What must not stand alone at the end of a line is held by a space that does not break.
    lines.into_iter().map(|l| l.trim_end().replace('\u{a0}', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_break_at_spaces_and_keep_every_word() {
        assert_eq!(wrap("a bb ccc dddddddddd e", 6), ["a bb", "ccc", "dddddddddd", "e"]);
        assert_eq!(wrap("", 6), [""]);
    }
}
