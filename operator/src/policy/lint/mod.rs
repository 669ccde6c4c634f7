//! `skep check`: labels checked before they are deployed, in stack files, and after, in the Swarm.
//!
//! ```text
//! files ─▶ yaml (tree, slips mended) ─▶ stack (labels, variables) ─┐
//!                                                                  ├─▶ Policies (parse, graph) ─▶ advice ─▶ CheckReport
//! services of the Swarm ───────────────────────────────────────────┘
//! ```
//!
//! Every mistake is reported at once, each at its own line; one never hides another where that can be helped.

mod advice;
mod report;
mod stack;
mod variables;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use report::{CheckReport, Finding};
pub use variables::Environment;

use self::advice::{StackName, Surroundings, advice};
use self::stack::{Found, Place, Reader, Stack, StackService};
use super::door::{self, Reached};
use super::graph::{Graph, Member};
use super::parse::{Parsed, is_ours, parse};
use super::policies::{Policies, Tasks, is_labelled, nothing_to_go_back};
use super::problem::{Code, Problem};
use super::types::Policy;
use crate::swarm::object::{ENABLE, KIND, Labels, Service};
use crate::swarm::spec;

/// Stands for the name of the stack while it is not known.
const UNKNOWN_STACK: &str = "<stack>";

/// A stack file: name and text, or why it cannot be read.
pub type Source = (String, Result<String, String>);

/// Checks stack files together, as `docker stack deploy -c a.yml -c b.yml <stack>` would read them.
pub fn check_files(paths: &[&Path], environment: &Environment<'_>, stack: Option<&str>) -> CheckReport {
    let read = |path: &&Path| {
        let text = std::fs::read(path).map_err(|e| e.to_string());
        let text = text.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()));
        (path.display().to_string(), text)
    };
    check_sources(&paths.iter().map(read).collect::<Vec<_>>(), environment, stack)
}

/// Checks the texts of stack files together.
pub fn check_sources(sources: &[Source], environment: &Environment<'_>, stack: Option<&str>) -> CheckReport {
    let mut reader = Reader::new(environment);
    for (file, (_, text)) in sources.iter().enumerate() {
        match text {
            Ok(text) => reader.read(file, text),
            Err(message) => reader.unreadable(file, message),
        }
    }
    let Reader { stack: read, mut found, unknown, begun, .. } = reader;
    let checked = Checked::new(&read, stack.unwrap_or(UNKNOWN_STACK));
    found.extend(checked.problems().into_iter().filter(|f| !unknown.contains(&subject(f))));
    for slip in found.iter_mut().filter(|f| f.service.is_none() && is_ours(&f.problem.key)) {
        slip.service = begun
            .iter()
            .rev()
            .find(|(place, _)| place.file == slip.place.file && place.line <= slip.place.line)
            .map(|(_, name)| name.clone());
    }
    found.sort_by(|a, b| (&a.place, a.problem.code).cmp(&(&b.place, b.problem.code)));
    CheckReport {
        findings: found.into_iter().map(|f| finding(f, sources)).collect(),
        services: checked.labelled().map(|(name, ..)| name.to_owned()).collect(),
        notes: checked.notes(),
    }
}

/// Checks one service of the Swarm by its full name, among all services. None where there is no such service.
pub fn check_service(services: &[Service], name: &str) -> Option<CheckReport> {
    services.iter().find(|s| s.name() == name).map(|_| check_live(services, |s| s.name() == name))
}

/// Checks all services of the Swarm.
pub fn check_services(services: &[Service]) -> CheckReport {
    check_live(services, |_| true)
}

fn check_live(services: &[Service], wanted: impl Fn(&Service) -> bool) -> CheckReport {
    let policies = Policies::of(services);
    let mut report = CheckReport::default();
    for service in services.iter().filter(|s| wanted(s) && is_labelled(s) && !s.labels().contains_key(KIND)) {
        let Some(parsed) = policies.get(service.name()) else { continue };
        let advice = advice(&parsed.policy, &surroundings_of(service));
        let name = service.name().to_owned();
        for problem in parsed.problems.iter().cloned().chain(advice) {
            let level = problem.code.level();
            report.findings.push(Finding {
                level,
                file: None,
                line: None,
                service: Some(name.clone()),
                problem,
            });
        }
        report.notes.extend(alert_note(&name, &name, &parsed.policy));
        report.services.push(name);
    }
    report
}

fn surroundings_of(service: &Service) -> Surroundings {
    let test = &service.spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"]["Test"];
    let first = test.get(0).and_then(serde_json::Value::as_str);
    Surroundings {
        health_check: first.is_some_and(|word| word != "NONE"),
        host_port: has_host_port(service),
        configs: None,
        volumes: volumes_of(service),
        // It may be scaled down just now, and a global one is told of with the labels.
        tasks: Tasks::Unknown,
        unread_log: spec::keeps_no_log(&service.spec).map(str::to_owned),
        untagged: untagged(spec::image(&service.spec)),
        sets_mode: service.labels().contains_key("skep.restore.mode"),
    }
}

/// An image that is named by its digest alone.
fn untagged(image: &str) -> Option<String> {
    let reference = spec::Reference::of(image);
    (reference.tag.is_none() && reference.digest.is_some()).then(|| image.to_owned())
}

fn volumes_of(service: &Service) -> Vec<StackName> {
    let mounts = service.spec["TaskTemplate"]["ContainerSpec"]["Mounts"].as_array();
    let volumes = mounts.into_iter().flatten().filter(|mount| mount["Type"] == "volume");
    let named = volumes.filter_map(|mount| mount["Source"].as_str()).filter(|source| !source.is_empty());
    let prefix = service.stack().map(|stack| format!("{stack}_"));
    let short =
        |name: &str| prefix.as_ref().and_then(|p| name.strip_prefix(p.as_str())).unwrap_or(name).to_owned();
    named.map(|name| StackName { key: short(name), name: name.to_owned(), open: false }).collect()
}

fn has_host_port(service: &Service) -> bool {
    let ports = service.spec["EndpointSpec"]["Ports"].as_array();
    ports.into_iter().flatten().any(|port| port["PublishMode"] == "host")
}

/// A stack file with the policies of its services.
struct Checked<'a> {
    stack: &'a Stack,
    /// Name of the stack.
    name: &'a str,
    /// By short name.
    parsed: BTreeMap<&'a str, Parsed>,
    graph: Graph,
}

impl<'a> Checked<'a> {
    fn new(stack: &'a Stack, name: &'a str) -> Checked<'a> {
        let parsed: BTreeMap<&str, Parsed> =
            stack.services.iter().map(|(short, service)| (short.as_str(), parse_service(service))).collect();
        let full: Vec<(String, &Parsed)> =
            parsed.iter().map(|(short, parsed)| (format!("{name}_{short}"), parsed)).collect();
        let members = full.iter().map(|(full, parsed)| Member {
            name: full,
            stack: Some(name),
            policy: &parsed.policy,
        });
        let graph = Graph::of(members);
        Checked { stack, name, parsed, graph }
    }

    fn labelled(&self) -> impl Iterator<Item = (&'a str, &'a StackService, &Parsed)> {
        let all = self.stack.services.iter().filter(|(_, service)| !service.labels.is_empty());
        all.filter_map(|(short, service)| Some((short.as_str(), service, self.parsed.get(short.as_str())?)))
    }

    fn problems(&self) -> Vec<Found> {
        self.labelled()
            .flat_map(|(short, service, parsed)| self.problems_of(short, service, parsed))
            .collect()
    }

    fn problems_of(&self, short: &str, service: &StackService, parsed: &Parsed) -> Vec<Found> {
        let around = Surroundings {
            health_check: service.health_check,
            host_port: service.host_port,
            configs: Some(self.named(&self.stack.configs)),
            volumes: self.volumes(service),
            tasks: service.tasks,
            unread_log: service.unread_log.clone(),
            untagged: service.image.as_deref().and_then(untagged),
            sets_mode: service.labels.contains_key("skep.restore.mode"),
        };
        let across = self.graph.problems_of(&format!("{}_{short}", self.name)).iter();
        let across = across.cloned().map(|problem| self.shortened(self.foreign(problem)));
        let full_name = |short: &str| format!("{}_{short}", self.name);
        let keeps: BTreeSet<String> = self
            .parsed
            .iter()
            .filter(|(_, parsed)| parsed.policy.data.is_some())
            .map(|(short, _)| full_name(short))
            .collect();
        let stays = nothing_to_go_back(&parsed.policy, &self.graph, &full_name(short), &keeps);
        let reached = if service.publishes { Reached::ByPort } else { Reached::ByName };
        let past = door::past_the_door(&parsed.policy, reached);
        let taken = door::taken(&parsed.policy, &self.names_beside(short));
        let all = parsed.problems.iter().cloned().chain(across).chain(stays).chain(past).chain(taken);
        let all = all.chain(advice(&parsed.policy, &around));
        let found = |problem: Problem| {
            let place = place_of(&problem.key, service);
            Found { place, service: Some(short.to_owned()), problem }
        };
        all.map(found).collect()
    }

    /// The names that services of the stack have, as if all were on one network, and those of other doors.
    fn names_beside(&self, short: &str) -> BTreeSet<String> {
        let own = self.stack.services.iter();
        let mut names: BTreeSet<String> =
            own.flat_map(|(name, service)| service.aliases.iter().cloned().chain([name.clone()])).collect();
        let others = self.parsed.iter().filter(|(name, _)| **name != short);
        names
            .extend(others.filter_map(|(_, parsed)| parsed.policy.scale.as_ref()?.door().map(str::to_owned)));
        names
    }

    /// What the stack defines, by the names that it will have.
    fn named(&self, defined: &BTreeMap<String, Option<String>>) -> Vec<StackName> {
        let all = defined.iter().map(|(key, named)| StackName {
            key: key.clone(),
            name: named.clone().unwrap_or_else(|| format!("{}_{key}", self.name)),
            open: named.is_none() && self.name == UNKNOWN_STACK,
        });
        all.collect()
    }

    /// The volumes that a service mounts; one that the files do not define stands for itself.
    fn volumes(&self, service: &StackService) -> Vec<StackName> {
        let mut defined = self.named(&self.stack.volumes);
        defined.retain(|volume| service.volumes.contains(&volume.key));
        let undefined = service.volumes.iter().filter(|name| !self.stack.volumes.contains_key(*name));
        defined.extend(undefined.map(|n| StackName { key: n.clone(), name: n.clone(), open: true }));
        defined
    }

    /// A name in the form of another stack's service cannot be judged from a file.
    fn foreign(&self, problem: Problem) -> Problem {
        let own = format!("{}_", self.name);
        let is_name_like_that = problem.got.contains('_') && !problem.got.starts_with(&own);
        if problem.code != Code::UnknownService || problem.hint.is_some() || !is_name_like_that {
            return problem;
        }
        let last = problem.got.rsplit('_').next().filter(|last| self.stack.services.contains_key(*last));
        let hint = last.map(|last| format!("if that is the `{last}` of this stack, write `{last}`"));
        Problem::new(Code::ForeignService, problem.section, problem.key)
            .got(problem.got)
            .want("a service that exists: these files do not show it")
            .hint(hint)
    }

    /// Names as the file has them, while it is not known how the Swarm will have them.
    fn shortened(&self, mut problem: Problem) -> Problem {
        if self.name == UNKNOWN_STACK {
            problem.got = problem.got.replace(&format!("{UNKNOWN_STACK}_"), "");
        }
        problem
    }

    fn notes(&self) -> Vec<String> {
        let notes = |(short, policy): (&str, &Policy)| {
            let full = format!("{}_{short}", self.name);
            [alert_note(short, &full, policy), log_note(short, &full, policy)].into_iter().flatten()
        };
        self.labelled().flat_map(|(short, _, parsed)| notes((short, &parsed.policy))).collect()
    }
}

fn parse_service(service: &StackService) -> Parsed {
    let labels: Labels = service.labels.iter().map(|(key, (text, _))| (key.clone(), text.clone())).collect();
    let mut parsed = parse(&labels);
    // The names that it mentions are worth checking even where `skep.enable` is still missing.
    parsed.policy.enabled |= !labels.is_empty() && !labels.contains_key(ENABLE);
    parsed
}

/// The other half of an alert's opt-in, which stands in the alert's rule.
fn alert_note(shown: &str, full: &str, policy: &Policy) -> Option<String> {
    let alerts =
        policy.restore.as_ref().map(|r| r.on_alert.join("`, `")).filter(|names| !names.is_empty())?;
    Some(format!("service `{shown}`: the alert `{alerts}` must carry the label skep_service=\"{full}\""))
}

/// What a server must be set to; of one that runs its receiver tells.
fn log_note(shown: &str, full: &str, policy: &Policy) -> Option<String> {
    policy.backup.as_ref().filter(|backup| backup.wal)?;
    Some(format!(
        "service `{shown}`: its server must have `max_slot_wal_keep_size` set, a role that may replicate, and a line `host \
         replication` in pg_hba.conf; once it runs, `skep check {full}` tells what is missing"
    ))
}

/// Where a key stands: its own line, else that of the nearest label above or below it, else that of the service.
fn place_of(key: &str, service: &StackService) -> Place {
    let under = format!("{key}.");
    let above = std::iter::successors(Some(key), |k| k.rsplit_once('.').map(|(parent, _)| parent));
    let exact_or_above = above.filter_map(|k| service.labels.get(k)).next();
    let below = || service.labels.iter().find(|(other, _)| other.starts_with(&under)).map(|(_, label)| label);
    exact_or_above.or_else(below).map_or_else(|| service.at.clone(), |(_, place)| place.clone())
}

fn subject(found: &Found) -> (String, String) {
    (found.service.clone().unwrap_or_default(), found.problem.key.clone())
}

fn finding(found: Found, sources: &[Source]) -> Finding {
    Finding {
        level: found.problem.code.level(),
        file: sources.get(found.place.file).map(|(name, _)| name.clone()),
        line: (found.place.line > 0).then_some(found.place.line),
        service: found.service,
        problem: found.problem,
    }
}

#[cfg(test)]
mod tests;
