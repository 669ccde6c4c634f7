//! Labels → [`Policy`] and everything that is wrong with them.
//!
//! Invariants: every label that begins with `skep` is either understood or a problem; a section with a problem is
//! off and no other is; a faulty `skep.paused` counts as paused. The labels of services that Skep itself made
//! (those with `skep.kind`) are not for this parser.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::Draft;
use super::keys::{self, KEYS, KeySpec, Take};
use super::problem::{Code, Level, Problem, Section};
use super::rules;
use super::types::{self, Policy};
use super::value::{self, Fault};
use crate::swarm::object::{KIND, Labels, OP};

/// A policy with what was wrong in its labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// What is asked for; faulty sections are off.
    pub policy: Policy,
    /// All problems, in order of the keys.
    pub problems: Vec<Problem>,
}

/// Labels read one by one, for the rules that look at several.
pub(super) struct Read<'a> {
    /// The labels that concern Skep.
    pub(super) labels: BTreeMap<&'a str, &'a str>,
    /// What was understood.
    pub(super) draft: Draft,
    /// What was not.
    pub(super) problems: Vec<Problem>,
}

// === impl Parsed ===

impl Parsed {
    /// Whether a section is off because of a problem.
    pub fn is_off(&self, section: Section) -> bool {
        self.problems.iter().any(|p| p.section == section && p.code.level() == Level::Problem)
    }

    /// The problems that stand against every operation that changes data.
    pub fn blocking(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|p| p.blocks_destructive)
    }
}

// === impl Read ===

impl<'a> Read<'a> {
    fn new(labels: &'a Labels) -> Read<'a> {
        let ours = labels.iter().filter(|(key, _)| is_ours(key));
        let labels = ours.map(|(key, text)| (key.as_str(), text.trim())).collect();
        let mut read = Read { labels, draft: Draft::default(), problems: Vec::new() };
        read.take_labels();
        read.take_defaults();
        read
    }

    /// Whether a label is there, understood or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.labels.contains_key(key)
    }

    /// The first label that begins with this.
    pub(super) fn first_under(&self, prefix: &str) -> Option<&'a str> {
        self.labels.keys().copied().find(|key| key.starts_with(prefix))
    }

    /// Names of the checks that any label speaks of.
    pub(super) fn check_names(&self) -> BTreeSet<&'a str> {
        let named = self.labels.keys().filter_map(|key| keys::find(key)).filter(|(spec, _)| spec.is_named());
        named.map(|(_, name)| name).filter(|name| value::short_name(name).is_ok()).collect()
    }

    fn take_labels(&mut self) {
        for (key, text) in self.labels.clone() {
            if let Err(problem) = take(&mut self.draft, key, text) {
                self.problems.push(problem);
            }
        }
    }

    fn take_defaults(&mut self) {
        let names = self.check_names();
        for spec in KEYS {
            let Some(text) = spec.default else { continue };
            let keys: Vec<&str> = if spec.is_named() { names.iter().copied().collect() } else { vec![""] };
            for name in keys {
                if !self.has(&spec.with_name(name)) {
                    self.take_default(spec, name, text);
                }
            }
        }
    }

    fn take_default(&mut self, spec: &KeySpec, name: &str, text: &str) {
        let Take::Into(into) = spec.take else { return };
        if let Err(fault) = into(&mut self.draft, name, text) {
            self.problems.push(problem_of(spec, &spec.with_name(name), text, fault));
        }
    }

    fn finish(mut self) -> Parsed {
        self.problems.sort();
        let mut parsed = Parsed { policy: Policy::default(), problems: self.problems };
        let policy = build(self.draft, |section| !parsed.is_off(section));
        parsed.policy = policy;
        parsed
    }
}

// === free functions ===

/// Reads the labels of one service. Never fails: what is wrong is in [`Parsed::problems`].
pub fn parse(labels: &Labels) -> Parsed {
    let mut read = Read::new(labels);
    rules::apply(&mut read);
    read.finish()
}

/// Whether a label is meant for Skep: `skep` and then anything but a letter or a digit.
pub fn is_ours(key: &str) -> bool {
    let Some((head, rest)) = key.split_at_checked(4) else { return false };
    head.eq_ignore_ascii_case("skep") && rest.starts_with(|c: char| !c.is_alphanumeric())
}

fn take(draft: &mut Draft, key: &str, text: &str) -> Result<(), Problem> {
    if matches!(key, KIND | OP) {
        return Err(Problem::new(Code::ReservedKey, Section::Common, key)
            .got(text)
            .want("this label on objects that Skep makes, and nowhere else"));
    }
    let Some((spec, name)) = keys::find(key) else { return Err(unknown(key, text)) };
    if let Take::Later = spec.take {
        return Err(Problem::new(Code::NotYet, spec.section, key)
            .got(text)
            .want(format!("no `{key}`: it is known, but this version of Skep does not do it yet"))
            .hint("take the label away until a version has it".to_owned()));
    }
    if spec.is_named() {
        value::short_name(name).map_err(|fault| bad_check_name(key, name, fault))?;
    }
    let Take::Into(into) = spec.take else { return Ok(()) };
    into(draft, name, text).map(drop).map_err(|fault| problem_of(spec, key, text, fault))
}

fn unknown(key: &str, text: &str) -> Problem {
    let near = keys::nearest_key(key);
    let group = |key: &str| key.split('.').nth(1).and_then(Section::of_group);
    let section = group(key).or_else(|| near.as_deref().and_then(group)).unwrap_or(Section::Common);
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`skep labels` lists the labels".to_owned(),
    };
    Problem::new(Code::UnknownKey, section, key).got(text).want("a label that Skep knows").hint(hint)
}

fn bad_check_name(key: &str, name: &str, fault: Fault) -> Problem {
    let small = name.to_ascii_lowercase().replace('_', "-");
    let hint = value::short_name(&small).is_ok().then(|| format!("did you mean `{small}`?"));
    Problem::new(Code::BadName, Section::Check, key)
        .got(name)
        .want(format!("a name of `a-z`, `0-9` and `-`, at most 32 characters{}", because(fault.because)))
        .hint(hint)
}

fn problem_of(spec: &KeySpec, key: &str, text: &str, fault: Fault) -> Problem {
    let got = fault.redacted.unwrap_or_else(|| text.to_owned());
    let want = format!("{}{}", spec.kind.want(), because(fault.because));
    Problem::new(fault.code, spec.section, key)
        .got(got)
        .want(want)
        .hint(fault.hint.or_else(|| keys::example(key)))
}

fn because(text: Option<String>) -> String {
    text.map(|t| format!(" ({t})")).unwrap_or_default()
}

fn build(draft: Draft, works: impl Fn(Section) -> bool) -> Policy {
    let data = draft.data.build().filter(|_| works(Section::Data));
    let (enabled, has_data) = (draft.enable.unwrap_or(false), data.is_some());
    let mut restore = draft.restore.build();
    // The only way that such data has.
    if let (Some(restore), true) =
        (&mut restore, data.as_ref().is_some_and(|data| data.engine.is_loaded_live()))
    {
        restore.strategy = types::Strategy::InPlace;
    }
    let checks = draft.checks.into_iter().filter_map(|(name, check)| check.build(&name));
    let (before, after): (Vec<_>, Vec<_>) = checks.partition(|(phase, _)| *phase == types::Phase::Before);
    let of_phase = |checks: Vec<(types::Phase, types::Check)>| checks.into_iter().map(|(_, c)| c).collect();
    Policy {
        enabled,
        paused: draft.paused.unwrap_or(true),
        depends_on: draft.depends_on.unwrap_or_default(),
        notify: draft.notify.unwrap_or_default(),
        scale: draft.scale.build().filter(|_| works(Section::Scale)),
        maintenance: draft.maintenance.build().filter(|_| works(Section::Maintenance)),
        backup: draft.backup.build().filter(|_| has_data && works(Section::Backup)),
        drill: Some(draft.drill.build()).filter(|_| has_data && works(Section::Drill)),
        point: draft.point.build().filter(|_| works(Section::Point)),
        restore: restore.filter(|_| has_data && works(Section::Restore)),
        restarts: draft.restarts.filter(|_| works(Section::Restart)).unwrap_or_default(),
        update: draft.update.build().filter(|_| enabled && works(Section::Update)),
        checks: of_phase(after),
        before: of_phase(before),
        data,
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "parse_properties.rs"]
mod properties;
