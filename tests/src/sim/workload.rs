//! What containers do: the part of the simulation that a test can replace.
//!
//! Callbacks run while the engine is locked: they may use the [`View`] and their own state, never the
//! [`Sim`](super::Sim) itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use skep_runner::{TICKET_PATH, Ticket};

use super::users::Answer;

/// A container of the simulated Swarm.
#[derive(Clone, Debug)]
pub struct Container {
    /// Task id.
    pub task: String,
    /// Service id.
    pub service_id: String,
    /// Service name.
    pub service: String,
    /// Node id.
    pub node: String,
    /// The task template.
    pub spec: Value,
    /// Contents of the configs and secrets by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Network id, address without prefix, aliases.
    pub networks: Vec<(String, String, Vec<String>)>,
    /// Whether the network's names lead to it.
    pub in_dns: bool,
    /// Whether it was told to end.
    pub stopping: bool,
    /// Since when it runs.
    pub since: Duration,
}

/// What a workload sees of the Swarm.
pub struct View<'a> {
    /// The simulated wall clock.
    pub now: Timestamp,
    /// Simulated time since the start.
    pub at: Duration,
    pub(super) containers: &'a BTreeMap<String, Container>,
    pub(super) workloads: &'a Workloads,
}

/// What a new container does.
pub enum Run {
    /// It serves until it is told to end.
    Serve(Serve),
    /// It does something step by step, then ends by itself.
    Process(Box<dyn Process>),
}

/// How a serving container behaves.
#[derive(Clone, Debug, Default)]
pub struct Serve {
    /// Ends by itself after this time with this code.
    pub exits: Option<(Duration, i64)>,
    /// Time between SIGTERM and its end; cut off by the grace period.
    pub stop: Duration,
}

/// Work in steps. Whatever kills the container between two of them is a crash half-way.
pub trait Process: Send {
    /// Does the next step. The first one happens when the container starts.
    fn step(&mut self, view: &View<'_>) -> Step;
}

/// What comes after a step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Lines for standard output.
    pub lines: Vec<String>,
    /// When the next step is, or with which code the container ends.
    pub then: Then,
}

/// What comes after a step.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    /// The next step, after this time.
    Next(Duration),
    /// The end, with this exit code, after this time.
    Exit(Duration, i64),
}

/// The behaviour of an image.
pub trait Workload: Send + Sync {
    /// What a new container does.
    fn start(&self, container: &Container, view: &View<'_>) -> Run;

    /// Whether its health check passes now.
    fn healthy(&self, _container: &Container, _view: &View<'_>) -> bool {
        true
    }

    /// What it answers to an HTTP request now.
    fn answer(&self, _container: &Container, _view: &View<'_>) -> Answer {
        Answer::Refused
    }
}

/// The behaviour of the runner: makes the process of a ticket.
pub trait Jobs: Send + Sync {
    /// What a job with this ticket does.
    fn start(&self, ticket: Ticket, container: &Container, view: &View<'_>) -> Box<dyn Process>;
}

/// Serves at once, is healthy at its first check, ends 100 ms after SIGTERM.
pub struct Plain;

/// Serves, and its health check never passes.
pub struct Unhealthy;

/// Runs for a while, says something, then ends by itself with the given code.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Its output.
    pub lines: Vec<String>,
    /// How long it runs.
    pub after: Duration,
    /// Exit code.
    pub code: i64,
}

/// A job that does all of its work in one step, by a closure from its ticket to (lines, exit code, duration).
pub struct Simple<F>(pub F);

struct Once(Option<Step>);

// === impl View ===

impl View<'_> {
    /// The containers that `name` leads to for `from`: service name, `tasks.<service>` or alias, on a network
    /// that both are attached to.
    pub fn resolve(&self, from: &Container, name: &str) -> Vec<&Container> {
        let service = name.strip_prefix("tasks.").unwrap_or(name);
        let found = self.containers.values().filter(|c| c.in_dns && from.shares_network_as(c, name, service));
        found.collect()
    }

    /// The containers of a service, also those that are leaving.
    pub fn containers(&self, service: &str) -> Vec<&Container> {
        self.containers.values().filter(|c| c.service == service).collect()
    }

    /// What a container answers to an HTTP request now.
    pub fn answer(&self, container: &Container) -> Answer {
        self.workloads.of(container).answer(container, self)
    }

    /// The container of a task.
    pub fn container(&self, task: &str) -> Option<&Container> {
        self.containers.get(task)
    }
}

// === impl Container ===

impl Container {
    /// Its image.
    pub fn image(&self) -> &str {
        self.spec["ContainerSpec"]["Image"].as_str().unwrap_or_default()
    }

    /// Command and arguments together.
    pub fn command(&self) -> Vec<&str> {
        let words = |key: &str| self.spec["ContainerSpec"][key].as_array().into_iter().flatten();
        words("Command").chain(words("Args")).filter_map(Value::as_str).collect()
    }

    /// The ticket, if this is one of Skep's jobs.
    pub fn ticket(&self) -> Option<Ticket> {
        let command = self.command();
        // Skep's own image begins with its program, so that its jobs have arguments only.
        let is_job = command.starts_with(&[skep_runner::RUNNER_PATH, "task"]) || command == ["task"];
        let file = self.files.get(TICKET_PATH).filter(|_| is_job)?;
        serde_json::from_slice(file).ok()
    }

    /// Addresses of this container.
    pub fn addresses(&self) -> Vec<&str> {
        self.networks.iter().map(|(_, address, _)| address.as_str()).collect()
    }

    fn shares_network_as(&self, other: &Container, name: &str, service: &str) -> bool {
        other.networks.iter().any(|(id, _, aliases)| {
            let shared = self.networks.iter().any(|(mine, _, _)| mine == id);
            shared && (other.service == service || aliases.iter().any(|a| a == name))
        })
    }
}

// === impl Workload ===

impl Workload for Plain {
    fn start(&self, _container: &Container, _view: &View<'_>) -> Run {
        Run::Serve(Serve { exits: None, stop: Duration::from_millis(100) })
    }
}

impl Workload for Unhealthy {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        Plain.start(container, view)
    }

    fn healthy(&self, _container: &Container, _view: &View<'_>) -> bool {
        false
    }
}

impl Workload for Ends {
    fn start(&self, _container: &Container, _view: &View<'_>) -> Run {
        let step = Step { lines: self.lines.clone(), then: Then::Exit(self.after, self.code) };
        Run::Process(Box::new(Once(Some(step))))
    }
}

// === impl Jobs ===

impl<F> Jobs for Simple<F>
where
    F: Fn(Ticket) -> (Vec<String>, i64, Duration) + Send + Sync,
{
    fn start(&self, ticket: Ticket, _container: &Container, _view: &View<'_>) -> Box<dyn Process> {
        let (lines, code, takes) = (self.0)(ticket);
        Box::new(Once(Some(Step { lines, then: Then::Exit(takes, code) })))
    }
}

impl Process for Once {
    fn step(&mut self, _view: &View<'_>) -> Step {
        self.0.take().unwrap_or(Step { lines: Vec::new(), then: Then::Exit(Duration::ZERO, 0) })
    }
}

/// The workloads by image, and the runner's.
#[derive(Clone, Default)]
pub(super) struct Workloads {
    images: BTreeMap<String, Arc<dyn Workload>>,
    missing: Vec<String>,
    /// What registries have, by tag.
    pushed: BTreeMap<String, String>,
    jobs: Option<Arc<dyn Jobs>>,
}

// === impl Workloads ===

impl Workloads {
    pub(super) fn set(&mut self, image: &str, workload: Arc<dyn Workload>) {
        self.images.insert(image.to_owned(), workload);
    }

    pub(super) fn push(&mut self, tagged: &str, digest: Option<&str>) {
        match digest {
            Some(digest) => drop(self.pushed.insert(tagged.to_owned(), digest.to_owned())),
            None => drop(self.pushed.remove(tagged)),
        }
    }

    pub(super) fn pushed(&self, tagged: &str) -> Option<&String> {
        self.pushed.get(tagged)
    }

    pub(super) fn set_missing(&mut self, image: &str) {
        self.missing.push(image.to_owned());
    }

    pub(super) fn set_jobs(&mut self, jobs: Arc<dyn Jobs>) {
        self.jobs = Some(jobs);
    }

    pub(super) fn is_missing(&self, image: &str) -> bool {
        self.missing.iter().any(|m| m == image)
    }

    /// By image; a digest behind the name does not matter.
    pub(super) fn of(&self, container: &Container) -> Arc<dyn Workload> {
        let image = container.image();
        let name = image.split('@').next().unwrap_or(image);
        self.images.get(image).or_else(|| self.images.get(name)).cloned().unwrap_or_else(|| Arc::new(Plain))
    }

    pub(super) fn start(&self, container: &Container, view: &View<'_>) -> Run {
        match (container.ticket(), &self.jobs) {
            (Some(ticket), Some(jobs)) => Run::Process(jobs.start(ticket, container, view)),
            _ => self.of(container).start(container, view),
        }
    }
}
