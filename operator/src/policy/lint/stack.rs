//! What a stack file says about services, as far as labels are concerned, and what is wrong with how it says it.

use std::collections::{BTreeMap, BTreeSet};

use super::variables::{self, Environment, Fault, Filled};
use super::yaml::{self, At, Entry, Node, Slip, section_of};
use crate::policy::is_ours;
use crate::policy::policies::Tasks;
use crate::policy::problem::{Code, Problem, Section};
use crate::swarm::spec;

/// One or more stack files, later ones over earlier ones as `docker stack deploy -c a.yml -c b.yml` does.
#[derive(Clone, Debug, Default)]
pub(super) struct Stack {
    /// By short name.
    pub(super) services: BTreeMap<String, StackService>,
    /// Configs by key, with the `name:` that they are given.
    pub(super) configs: BTreeMap<String, Option<String>>,
    /// Volumes, likewise.
    pub(super) volumes: BTreeMap<String, Option<String>>,
}

/// One service of a stack.
#[derive(Clone, Debug, Default)]
pub(super) struct StackService {
    /// Where it begins.
    pub(super) at: Place,
    /// Labels of Skep under `deploy.labels`, variables filled in.
    pub(super) labels: BTreeMap<String, (String, Place)>,
    /// Whether the file gives it a health check.
    pub(super) health_check: bool,
    /// Whether it publishes a port in host mode.
    pub(super) host_port: bool,
    /// Whether it publishes a port at all.
    pub(super) publishes: bool,
    /// Names that it has on networks beside its own.
    pub(super) aliases: BTreeSet<String>,
    /// Keys of the named volumes that it mounts.
    pub(super) volumes: BTreeSet<String>,
    /// How many tasks the files give it.
    pub(super) tasks: Tasks,
    /// The log driver that the files give it, where that keeps nothing.
    pub(super) unread_log: Option<String>,
    /// Its image, where that is known.
    pub(super) image: Option<String>,
}

/// A line of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index of the file.
    pub(super) file: usize,
    /// Counted from 1; 0 for the whole file.
    pub(super) line: u64,
}

/// A problem that stands in a file.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) service: Option<String>,
    pub(super) problem: Problem,
}

/// Reads files into one stack.
pub(super) struct Reader<'a> {
    environment: &'a Environment<'a>,
    file: usize,
    pub(super) stack: Stack,
    pub(super) found: Vec<Found>,
    /// Labels (service, key) whose text is not known, so that nothing more can be said about them.
    pub(super) unknown: BTreeSet<(String, String)>,
    /// Where the services begin, in order.
    pub(super) begun: Vec<(Place, String)>,
}

/// A label before its variables are filled in.
struct Written {
    key: String,
    text: String,
    line: u64,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment<'a>) -> Reader<'a> {
        Reader {
            environment,
            file: 0,
            stack: Stack::default(),
            found: Vec::new(),
            unknown: BTreeSet::new(),
            begun: Vec::new(),
        }
    }

    /// Adds a problem of a file as a whole.
    pub(super) fn unreadable(&mut self, file: usize, message: &str) {
        self.file = file;
        let want = format!("a file that can be read ({message})");
        self.tell(0, None, Problem::new(Code::NotYaml, Section::Common, "the file").want(want));
    }

    /// Reads one file and puts it over what was read before.
    pub(super) fn read(&mut self, file: usize, source: &str) {
        self.file = file;
        let (root, slips) = yaml::read(source);
        for Slip { line, problem } in slips {
            self.tell(line, None, problem);
        }
        let Some(root) = root else { return };
        let configs = self.defined(&root, "configs");
        self.stack.configs.extend(configs);
        let volumes = self.defined(&root, "volumes");
        self.stack.volumes.extend(volumes);
        match root.get("services").map(At::entries) {
            Some(services) if !services.is_empty() => services.iter().for_each(|s| self.service(s)),
            _ => {
                let want = "a mapping of services under `services:`";
                self.tell(
                    root.line,
                    None,
                    Problem::new(Code::BadShape, Section::Common, "services").want(want),
                );
            }
        }
    }

    /// What a section at the top of the file defines, with the name that each is given: by `name:`, or since it is there
    /// already and keeps its own.
    fn defined(&self, root: &At, section: &str) -> Vec<(String, Option<String>)> {
        let entries = root.get(section).map(At::entries).unwrap_or_default();
        let named = |entry: &Entry| {
            let is_there = matches!(entry.value.get("external").map(|at| &at.node), Some(Node::Flag(true)));
            let name = entry.value.get("name").and_then(|name| self.plain(name));
            name.or_else(|| is_there.then(|| entry.key.clone()))
        };
        entries.iter().map(|entry| (entry.key.clone(), named(entry))).collect()
    }

    /// The key of the named volume that an entry of `volumes:` of a service mounts, in the short or in the long form.
    fn volume(&self, entry: &At) -> Option<String> {
        let source = match &entry.node {
            Node::Map(_) => {
                let kind = entry.get("type").and_then(|kind| self.plain(kind));
                entry
                    .get("source")
                    .filter(|_| kind.as_deref() == Some("volume"))
                    .and_then(|s| self.plain(s))?
            }
            _ => self.plain(entry)?.split_once(':').map(|(source, _)| source.to_owned())?,
        };
        let is_path = source.starts_with(['/', '.', '~']);
        (!source.is_empty() && !is_path).then_some(source)
    }

    fn service(&mut self, entry: &Entry) {
        let name = &entry.key;
        let at = Place { file: self.file, line: entry.line };
        self.begun.push((at.clone(), name.clone()));
        let mut service =
            self.stack.services.remove(name).unwrap_or(StackService { at, ..Default::default() });
        if let Some(check) = entry.value.get("healthcheck") {
            service.health_check = self.is_health_check(check);
        }
        let ports = entry.value.get("ports").map(At::items).unwrap_or_default();
        let in_host_mode =
            |port: &At| port.get("mode").and_then(|m| self.plain(m)).as_deref() == Some("host");
        service.host_port |= ports.iter().any(in_host_mode);
        service.publishes |= !ports.is_empty();
        service.aliases.extend(self.aliases(&entry.value));
        let volumes = entry.value.get("volumes").map(At::items).unwrap_or_default();
        service.volumes.extend(volumes.iter().filter_map(|entry| self.volume(entry)));
        if let Some(deploy) = entry.value.get("deploy") {
            service.tasks = self.tasks(deploy, service.tasks);
        }
        if let Some(logging) = entry.value.get("logging") {
            service.unread_log = self.unread_log(logging);
        }
        if let Some(image) = entry.value.get("image") {
            service.image = self.plain(image);
        }
        if let Some(labels) = entry.value.get("labels") {
            self.container_labels(name, labels);
        }
        if let Some(labels) = entry.value.get("deploy").and_then(|deploy| deploy.get("labels")) {
            for written in self.written(name, labels) {
                let line = written.line;
                let text = self.fill(name, &written);
                service.labels.insert(written.key, (text, Place { file: self.file, line }));
            }
        }
        self.stack.services.insert(name.clone(), service);
    }

    /// The aliases that a service has on its networks.
    fn aliases(&self, service: &At) -> Vec<String> {
        let networks = service.get("networks").map(At::entries).unwrap_or_default();
        let lists = networks.iter().filter_map(|network| network.value.get("aliases"));
        lists.flat_map(At::items).filter_map(|alias| self.plain(alias)).collect()
    }

    /// One replica where no file says anything.
    fn tasks(&self, deploy: &At, before: Tasks) -> Tasks {
        let text = |key: &str| deploy.get(key).map(|at| self.plain(at));
        match (text("mode"), text("replicas")) {
            (Some(Some(mode)), _) if mode != "replicated" => match mode.as_str() {
                "global" => Tasks::Global,
                _ => Tasks::Unknown,
            },
            (_, Some(replicas)) => {
                replicas.and_then(|n| n.parse().ok()).map_or(Tasks::Unknown, Tasks::Replicas)
            }
            (Some(_), None) => Tasks::Replicas(1),
            (None, None) => before,
        }
    }

    fn unread_log(&self, logging: &At) -> Option<String> {
        let driver = logging.get("driver").and_then(|at| self.plain(at))?;
        let option = logging.get("options").and_then(|options| options.get("cache-disabled"));
        let option = option.and_then(|at| self.plain(at));
        spec::no_log_of(&driver, option.as_deref()).then_some(driver)
    }

    fn is_health_check(&self, check: &At) -> bool {
        let disabled = matches!(check.get("disable").map(|at| &at.node), Some(Node::Flag(true)));
        let first = check.get("test").map(|test| test.items().first().unwrap_or(test));
        // Without a test it changes the one that the image has.
        !disabled && first.is_none_or(|test| self.plain(test).is_some_and(|word| word != "NONE"))
    }

    /// All labels of Skep on the containers, in one problem.
    fn container_labels(&mut self, service: &str, labels: &At) {
        let keys: Vec<String> = match &labels.node {
            Node::Map(entries) => entries.iter().map(|e| e.key.clone()).collect(),
            Node::List(items) => items.iter().filter_map(|item| Some(pair(&item.text()?).0)).collect(),
            Node::Null | Node::Flag(_) | Node::Number { .. } | Node::Text(_) => Vec::new(),
        };
        let ours: Vec<String> = keys.into_iter().filter(|key| is_ours(key)).collect();
        let Some(first) = ours.first() else { return };
        let problem = Problem::new(Code::ContainerLabel, section_of(first), "labels")
            .got(ours.join(", "))
            .want("labels of Skep under `deploy.labels`: here they are labels of the containers, which Skep does not read")
            .hint(format!("move them: `services: {service}: deploy: labels: {first}: …`"));
        self.tell(labels.line, Some(service), problem);
    }

    /// The labels of Skep in either form.
    fn written(&mut self, service: &str, labels: &At) -> Vec<Written> {
        let found: Vec<Option<Written>> = match &labels.node {
            Node::Map(entries) => entries.iter().map(|entry| self.label_of_entry(service, entry)).collect(),
            Node::List(items) => items.iter().map(|item| self.label_of_item(service, item)).collect(),
            Node::Null => Vec::new(),
            Node::Flag(_) | Node::Number { .. } | Node::Text(_) => {
                let want = "a mapping (`skep.enable: \"true\"`) or a list (`- skep.enable=true`)";
                let problem = Problem::new(Code::BadShape, Section::Common, "deploy.labels").want(want);
                self.tell(labels.line, Some(service), problem);
                Vec::new()
            }
        };
        let ours: Vec<Written> = found.into_iter().flatten().filter(|w| is_ours(&w.key)).collect();
        let mut seen = BTreeSet::new();
        for written in &ours {
            if !seen.insert(written.key.as_str()) {
                let problem = Problem::new(Code::DuplicateLabel, section_of(&written.key), &written.key)
                    .got(&written.text)
                    .want("each label once: the last one wins")
                    .hint("take one of them away".to_owned());
                self.tell(written.line, Some(service), problem);
            }
        }
        ours
    }

    fn label_of_entry(&mut self, service: &str, entry: &Entry) -> Option<Written> {
        let written =
            |text: &str| Written { key: entry.key.clone(), text: text.to_owned(), line: entry.line };
        if !is_ours(&entry.key) {
            return None;
        }
        let problem = |code: Code| Problem::new(code, section_of(&entry.key), &entry.key);
        match &entry.value.node {
            Node::Text(text) => Some(written(text)),
            Node::Null => Some(written("")),
            Node::Flag(flag) => {
                let text = flag.to_string();
                let quotes = problem(Code::UnquotedFlag)
                    .got(&text)
                    .want("it in quotes: `docker stack deploy` refuses a YAML truth value")
                    .hint(format!("write `{}: \"{text}\"`", entry.key));
                self.tell(entry.line, Some(service), quotes);
                Some(written(&text))
            }
            Node::Number { written: source, read } if source == read => Some(written(read)),
            Node::Number { written: source, read } => {
                let quotes = problem(Code::RewrittenNumber)
                    .got(source)
                    .want(format!("it in quotes: YAML turns it into {read}"))
                    .hint(format!("write `{}: \"{source}\"`", entry.key));
                self.tell(entry.line, Some(service), quotes);
                Some(written(source))
            }
            Node::List(_) | Node::Map(_) => {
                let shape = problem(Code::BadShape)
                    .want("one text")
                    .hint("a list is written in one text, with commas: `\"db, cache\"`".to_owned());
                self.tell(entry.line, Some(service), shape);
                None
            }
        }
    }

    fn label_of_item(&mut self, service: &str, item: &At) -> Option<Written> {
        if let Node::Map(entries) = &item.node {
            let entry = entries.iter().find(|e| is_ours(&e.key))?;
            let text = entry.value.text().unwrap_or_default();
            let problem = Problem::new(Code::BadShape, section_of(&entry.key), &entry.key)
                .got(&text)
                .want("a text with `=` in it, as always in a list of labels")
                .hint(format!("write `- {}={text}`", entry.key));
            self.tell(entry.line, Some(service), problem);
            return Some(Written { key: entry.key.clone(), text, line: entry.line });
        }
        let (key, text) = pair(&item.text()?);
        let inner = ['"', '\''].into_iter().find_map(|q| text.strip_prefix(q)?.strip_suffix(q));
        let Some(inner) = inner.filter(|_| is_ours(&key)) else {
            return Some(Written { key, text, line: item.line });
        };
        let problem = Problem::new(Code::BadShape, section_of(&key), &key)
            .got(&text)
            .want("no quotes after the `=`: in a list they become part of the value")
            .hint(format!("write `- {key}={inner}`"));
        self.tell(item.line, Some(service), problem);
        Some(Written { key, text: inner.to_owned(), line: item.line })
    }

    fn fill(&mut self, service: &str, written: &Written) -> String {
        let problem = |code: Code| {
            Problem::new(code, section_of(&written.key), &written.key).got(written.text.as_str())
        };
        match variables::fill(&written.text, self.environment) {
            Ok(Filled { text, unset }) => {
                for name in unset {
                    let unset = problem(Code::UnsetVariable)
                        .want(format!("the variable `{name}` to be set: nothing stands in its place"))
                        .hint(format!("set it, or write `${{{name}:-default}}`"));
                    self.tell(written.line, Some(service), unset);
                }
                text
            }
            Err(Fault::Stray) => {
                let stray = problem(Code::BadVariable)
                    .want("`$$` where a `$` is meant, else the name of a variable after it")
                    .hint(format!("did you mean `{}`?", written.text.replace("$$", "$").replace('$', "$$")));
                self.tell(written.line, Some(service), stray);
                written.text.replace("$$", "$")
            }
            Err(Fault::Required { name, message }) => {
                let colon = if message.is_empty() { "" } else { ": " };
                let want = format!("the variable `{name}` to be set{colon}{message}");
                self.tell(written.line, Some(service), problem(Code::BadVariable).want(want));
                self.unknown.insert((service.to_owned(), written.key.clone()));
                written.text.clone()
            }
        }
    }

    /// A single value as text, variables filled in where they can be.
    fn plain(&self, at: &At) -> Option<String> {
        let text = at.text()?;
        Some(variables::fill(&text, self.environment).map_or(text, |filled| filled.text))
    }

    fn tell(&mut self, line: u64, service: Option<&str>, problem: Problem) {
        let place = Place { file: self.file, line };
        self.found.push(Found { place, service: service.map(str::to_owned), problem });
    }
}

/// `key=value`; a key alone has an empty value.
fn pair(item: &str) -> (String, String) {
    let (key, text) = item.split_once('=').unwrap_or((item, ""));
    (key.trim().to_owned(), text.to_owned())
}
