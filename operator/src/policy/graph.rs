//! Which service needs which: `skep.depends-on` of all services, resolved to full names.
//!
//! Only services with `skep.enable=true` have edges. One without stops only where `skep.restore.clients` of the data names it:
//! left running it would write to data that goes away, and its exact spec comes back. A name means the
//! service of the same stack first, then the service of that full name. Names that mean nothing, a service that
//! needs itself, and circles are problems of the services that say so; the order stays defined all the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::parse::parse;
use super::problem::{Code, Problem, Section};
use super::types::{MaintenanceMode, Policy, Restore};
use super::value;
use crate::swarm::object::{KIND, Service};

/// One service, as far as the graph is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Full name.
    pub name: &'a str,
    /// Its stack.
    pub stack: Option<&'a str>,
    /// What its labels ask for.
    pub policy: &'a Policy,
}

/// The dependencies of all services.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: BTreeMap<String, Node>,
}

/// One service in the graph.
#[derive(Clone, Debug, Default)]
struct Node {
    stack: Option<String>,
    needs: BTreeSet<String>,
    needed_by: BTreeSet<String>,
    /// Place in the order of starting: greater than that of everything it needs.
    rank: usize,
    problems: Vec<Problem>,
}

/// A label that names services.
struct Mention<'a> {
    key: &'static str,
    section: Section,
    names: &'a [String],
}

// === impl Graph ===

impl Graph {
    /// The graph of these services. A name that is not among them is unknown, so pass all services of the Swarm.
    pub fn new(services: &[Service]) -> Graph {
        let users: Vec<(&Service, Policy)> = services
            .iter()
            .map(|s| (s, s.labels()))
            .filter(|(_, labels)| !labels.contains_key(KIND))
            .map(|(service, labels)| (service, parse(&labels).policy))
            .collect();
        Graph::of(users.iter().map(|(service, policy)| Member {
            name: service.name(),
            stack: service.stack(),
            policy,
        }))
    }

    /// The graph of services whose labels are already parsed.
    pub fn of<'a>(members: impl IntoIterator<Item = Member<'a>>) -> Graph {
        let members: Vec<Member<'a>> = members.into_iter().collect();
        let mut graph = Graph::default();
        for member in &members {
            let node = Node { stack: member.stack.map(str::to_owned), ..Node::default() };
            graph.nodes.insert(member.name.to_owned(), node);
        }
        for member in members.iter().filter(|m| m.policy.enabled) {
            graph.add_edges(member);
            graph.check_mentions(member);
        }
        graph.rank();
        graph.report_circles();
        graph
    }

    /// The full name of the service that `name` means in a label of `service`.
    pub fn resolve(&self, service: &str, name: &str) -> Option<String> {
        let near =
            self.nodes.get(service).and_then(|n| n.stack.as_ref()).map(|stack| format!("{stack}_{name}"));
        let found =
            near.and_then(|near| self.nodes.get_key_value(&near)).or_else(|| self.nodes.get_key_value(name));
        found.map(|(full, _)| full.clone())
    }

    /// Full names of what a service needs, directly.
    pub fn dependencies_of(&self, service: &str) -> Vec<String> {
        self.nodes.get(service).map(|n| n.needs.iter().cloned().collect()).unwrap_or_default()
    }

    /// Full names of the services that need this one, directly.
    pub fn dependents_of(&self, service: &str) -> Vec<String> {
        self.nodes.get(service).map(|n| n.needed_by.iter().cloned().collect()).unwrap_or_default()
    }

    /// What is wrong with the names that a service mentions.
    pub fn problems_of(&self, service: &str) -> &[Problem] {
        self.nodes.get(service).map(|n| n.problems.as_slice()).unwrap_or_default()
    }

    /// Full names of the services that need this one, through any number of others, in the order of stopping. Never itself,
    /// not even on a circle.
    pub fn all_dependents_of(&self, service: &str) -> Vec<String> {
        self.stop_order(self.all_from(service, |n| &n.needed_by))
    }

    /// Full names of what a service needs, through any number of others, in the order of stopping. Never itself.
    pub fn all_dependencies_of(&self, service: &str) -> Vec<String> {
        self.stop_order(self.all_from(service, |n| &n.needs))
    }

    fn all_from<'a>(&'a self, service: &'a str, next: fn(&Node) -> &BTreeSet<String>) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut queue = vec![service];
        while let Some(name) = queue.pop() {
            let names = self.nodes.get(name).into_iter().flat_map(next).map(String::as_str);
            queue.extend(names.filter(|n| *n != service && found.insert(*n)));
        }
        found
    }

    /// These services in the order of starting: what is needed comes first, also when it is needed through
    /// services that are not among them. Names that are not in the graph are left out.
    pub fn start_order<'a>(&self, services: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let known: BTreeSet<&str> = services.into_iter().collect();
        let mut ranked: Vec<(usize, &str)> =
            known.into_iter().filter_map(|s| self.nodes.get(s).map(|n| (n.rank, s))).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, service)| service.to_owned()).collect()
    }

    /// These services in the order of stopping: the reverse of [`Graph::start_order`].
    pub fn stop_order<'a>(&self, services: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut order = self.start_order(services);
        order.reverse();
        order
    }

    /// The services that stop when the data of `service` is replaced, in the order of stopping (S2): those of
    /// `skep.restore.clients`, else the direct dependents; never those of `skep.restore.ignore-clients`.
    ///
    /// # Errors
    /// When `skep.restore.clients` names a service that does not exist: leaving it out would let it run on.
    pub fn clients(&self, service: &str, restore: &Restore) -> Result<Vec<String>, Problem> {
        let clients = match &restore.clients {
            Some(named) => {
                let key = "skep.restore.clients";
                let found = named.iter().map(|name| {
                    self.resolve(service, name)
                        .ok_or_else(|| self.unknown(service, Section::Restore, key, name))
                });
                found.collect::<Result<BTreeSet<String>, Problem>>()?
            }
            None => self.dependents_of(service).into_iter().collect(),
        };
        let ignored = self.ignored_clients(service, restore);
        Ok(self.stop_order(clients.difference(&ignored).map(String::as_str)))
    }

    /// Whether a service needs one of these, however far away.
    pub fn needs_any(&self, service: &str, others: &BTreeSet<String>) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = self.dependencies_of(service);
        while let Some(next) = open.pop() {
            if others.contains(&next) {
                return true;
            }
            if seen.insert(next.clone()) {
                open.extend(self.dependencies_of(&next));
            }
        }
        false
    }

    /// Full names of the services whose sessions are known and that need not stop.
    pub fn ignored_clients(&self, service: &str, restore: &Restore) -> BTreeSet<String> {
        self.resolve_all(service, &restore.ignore_clients)
    }

    fn resolve_all(&self, service: &str, names: &[String]) -> BTreeSet<String> {
        names.iter().filter_map(|name| self.resolve(service, name)).collect()
    }

    fn add_edges(&mut self, member: &Member<'_>) {
        let needed = self.resolve_all(member.name, &member.policy.depends_on);
        for other in needed.into_iter().filter(|other| other != member.name) {
            if let Some(node) = self.nodes.get_mut(&other) {
                node.needed_by.insert(member.name.to_owned());
            }
            if let Some(node) = self.nodes.get_mut(member.name) {
                node.needs.insert(other);
            }
        }
    }

    fn check_mentions(&mut self, member: &Member<'_>) {
        let mut problems = Vec::new();
        for mention in mentions(member.policy) {
            for name in mention.names {
                match self.resolve(member.name, name) {
                    None => problems.push(self.unknown(member.name, mention.section, mention.key, name)),
                    Some(found) if found == member.name => problems.push(itself(&mention, name)),
                    Some(_) => {}
                }
            }
        }
        if let Some(node) = self.nodes.get_mut(member.name) {
            node.problems.extend(problems);
        }
    }

    fn unknown(&self, service: &str, section: Section, key: &str, name: &str) -> Problem {
        let stack = self.nodes.get(service).and_then(|n| n.stack.as_ref());
        let prefix = stack.map(|stack| format!("{stack}_")).unwrap_or_default();
        let short = self.nodes.keys().filter_map(|full| full.strip_prefix(&prefix));
        let own = service.strip_prefix(&prefix).unwrap_or(service);
        let candidates =
            short.chain(self.nodes.keys().map(String::as_str)).filter(|c| *c != service && *c != own);
        Problem::new(Code::UnknownService, section, key)
            .got(name)
            .want("a service of the same stack (`db`), or the full name of another (`shop_db`)")
            .hint(value::nearest(name, candidates))
    }

    /// Kahn's algorithm, smallest name first. Where that comes to a circle, one of its services goes next.
    fn rank(&mut self) {
        let mut missing: BTreeMap<&str, usize> =
            self.nodes.iter().map(|(name, node)| (name.as_str(), node.needs.len())).collect();
        let mut free: BTreeSet<&str> =
            missing.iter().filter(|(_, n)| **n == 0).map(|(name, _)| *name).collect();
        let mut order = Vec::with_capacity(missing.len());
        while let Some(next) = free.pop_first().or_else(|| self.on_first_circle(&missing)) {
            missing.remove(next);
            order.push(next.to_owned());
            for dependent in &self.nodes[next].needed_by {
                let Some(left) = missing.get_mut(dependent.as_str()) else { continue };
                *left -= 1;
                if *left == 0 {
                    free.insert(dependent);
                }
            }
        }
        for (rank, name) in order.iter().enumerate() {
            if let Some(node) = self.nodes.get_mut(name) {
                node.rank = rank;
            }
        }
    }

    /// The first of the services left that needs nothing but services on a circle with it.
    fn on_first_circle<'a>(&'a self, left: &BTreeMap<&'a str, usize>) -> Option<&'a str> {
        let is_on =
            |name: &&str| self.reached(name, left).iter().all(|r| self.reached(r, left).contains(name));
        left.keys().copied().find(is_on)
    }

    /// What a service needs, through any number of others, of the services left.
    fn reached<'a>(&'a self, from: &str, left: &BTreeMap<&'a str, usize>) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut queue = vec![from];
        while let Some(name) = queue.pop() {
            let needs = self.nodes.get(name).map(|n| n.needs.iter());
            for next in needs.into_iter().flatten().filter_map(|n| left.get_key_value(n.as_str())) {
                if reached.insert(*next.0) {
                    queue.push(next.0);
                }
            }
        }
        reached
    }

    fn report_circles(&mut self) {
        let circles: Vec<(String, String)> = self
            .nodes
            .keys()
            .filter_map(|name| Some((name.clone(), self.circle_through(name)?.join(" → "))))
            .collect();
        for (name, circle) in circles {
            let problem = Problem::new(Code::Cycle, Section::DependsOn, "skep.depends-on")
                .got(circle)
                .want("no circle: none of these services could be started first");
            if let Some(node) = self.nodes.get_mut(&name) {
                node.problems.push(problem);
            }
        }
    }

    /// The shortest way from a service through what it needs back to itself.
    fn circle_through(&self, start: &str) -> Option<Vec<String>> {
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(name) = queue.pop_front() {
            for next in self.nodes.get(name)?.needs.iter().map(String::as_str) {
                if next == start {
                    let mut way = vec![start.to_owned(), name.to_owned()];
                    while let Some(previous) = came_from.get(way[way.len() - 1].as_str()) {
                        way.push((*previous).to_owned());
                    }
                    way.reverse();
                    way.push(start.to_owned());
                    way.dedup();
                    return Some(way);
                }
                if !came_from.contains_key(next) {
                    came_from.insert(next, name);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

// === free functions ===

fn mentions(policy: &Policy) -> Vec<Mention<'_>> {
    let mention = |key, section, names| Mention { key, section, names };
    let mut all = vec![mention("skep.depends-on", Section::DependsOn, policy.depends_on.as_slice())];
    if let Some(restore) = &policy.restore {
        let clients = restore.clients.as_deref().unwrap_or_default();
        all.push(mention("skep.restore.clients", Section::Restore, clients));
        all.push(mention("skep.restore.ignore-clients", Section::Restore, &restore.ignore_clients));
        all.push(mention("skep.restore.flush", Section::Restore, &restore.flush));
    }
    if let Some(MaintenanceMode::Config(service)) = policy.maintenance.as_ref().map(|m| &m.mode) {
        all.push(mention("skep.maintenance.mode", Section::Maintenance, std::slice::from_ref(service)));
    }
    all
}

fn itself(mention: &Mention<'_>, name: &str) -> Problem {
    let problem = match mention.section {
        Section::DependsOn => Problem::new(Code::DependsOnSelf, mention.section, mention.key),
        _ => Problem::new(Code::Conflict, mention.section, mention.key),
    };
    problem.got(name).want("services other than this one")
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
