//! What a check found, for people and for programs.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::policy::problem::{Level, Problem};

/// Everything that a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckReport {
    /// Problems and warnings, in order of their places.
    pub findings: Vec<Finding>,
    /// Services with labels of Skep.
    pub services: Vec<String>,
    /// What else must be right for the labels to work, and cannot be seen from here.
    pub notes: Vec<String>,
}

/// One problem with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Problem or warning.
    pub level: Level,
    /// The file, where there is one.
    pub file: Option<String>,
    /// Its line, counted from 1, where there is one.
    pub line: Option<u64>,
    /// The service, where it belongs to one.
    pub service: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub problem: Problem,
}

// === impl CheckReport ===

impl CheckReport {
    /// Adds what another check found.
    pub fn add(&mut self, other: CheckReport) {
        let CheckReport { findings, services, notes } = other;
        self.findings.extend(findings);
        self.services.extend(services);
        self.notes.extend(notes);
    }

    /// How many problems; warnings do not count.
    pub fn problems(&self) -> usize {
        self.findings.iter().filter(|f| f.level == Level::Problem).count()
    }

    /// How many warnings.
    pub fn warnings(&self) -> usize {
        self.findings.len() - self.problems()
    }

    /// What `skep check` exits with: 1 where there is a problem.
    pub fn exit_code(&self) -> u8 {
        u8::from(self.problems() > 0)
    }
}

impl fmt::Display for CheckReport {
    /// One block for each problem, then what else to see to, then the count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}\n")?;
        }
        for note in &self.notes {
            writeln!(f, "note  {note}")?;
        }
        if !self.notes.is_empty() {
            writeln!(f)?;
        }
        let labelled: BTreeSet<&String> = self.services.iter().collect();
        writeln!(
            f,
            "{}, {}, {} with labels of Skep",
            count(self.problems(), "problem"),
            count(self.warnings(), "warning"),
            count(labelled.len(), "service")
        )
    }
}

// === impl Finding ===

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { code, key, got: _, want, hint, section: _, blocks_destructive } = &self.problem;
        write!(f, "{code}  ")?;
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str("  ")?;
        }
        if let Some(service) = &self.service {
            write!(f, "service `{service}`, ")?;
        }
        if self.problem.got.is_empty() {
            writeln!(f, "`{key}`")?;
        } else {
            writeln!(f, "`{key}` = {}", self.problem.quoted())?;
        }
        writeln!(f, "      want  {want}")?;
        write!(f, "      help  {}; skep explain {code}", hint.as_deref().unwrap_or_else(|| code.title()))?;
        if *blocks_destructive {
            write!(f, "\n      note  no operation that changes data touches this service while this stands")?;
        }
        Ok(())
    }
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
