//! What an operation would do, before it does it.

use jiff::Timestamp;
use serde::Serialize;
use skep_waker::task::Port;

use super::steps::steps;
use super::words::list;
use super::world::World;
use super::{drill, point, restart, restore, retention, rollback, scale, store, update};
use crate::engines::found::{self, Found};
use crate::engines::{Access, By, Data, DirectoryEngine};
use crate::operation::frozen::Method;
use crate::operation::journal::Compensation;
use crate::operation::record::Work;
use crate::operation::restore::Way;
use crate::policy::{MaintenanceMode, Policies, Policy, Problem};
use crate::swarm::object::Service;
use crate::swarm::spec::host_ports;

/// Everything that can be said beforehand about one operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// `backup`, `restore`, …
    pub kind: &'static str,
    /// Full name of the service.
    pub service: String,
    /// Why it would not run; empty = it would.
    pub refused: Vec<String>,
    /// What people should know before they let it run.
    pub mind: Vec<String>,
    /// What only the running operation can find out.
    pub unknown: Vec<String>,
    /// Facts by heading: backups, clients, caches, checks. Each line of one heading on its own.
    pub facts: Vec<Fact>,
    /// The steps.
    pub steps: Vec<PlannedStep>,
    /// What users notice.
    pub users: String,
    /// What alerts may do about the service.
    pub alerts: Option<String>,
}

/// Some lines under one heading.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// Heading.
    pub title: &'static str,
    /// Lines.
    pub lines: Vec<String>,
}

/// One step to come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStep {
    /// Name, as in the journal.
    pub name: &'static str,
    /// What it does.
    pub does: String,
    /// How it is taken back.
    pub back: Back,
}

/// How a step is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Back {
    /// There is nothing to take back.
    Nothing,
    /// Like this.
    Undo(String),
    /// From here on nothing goes back by itself.
    NoWayBack,
}

/// What the parts of a plan are made from.
pub(super) struct Draft<'a> {
    pub(super) world: &'a World,
    pub(super) policies: Policies,
    pub(super) service: &'a Service,
    pub(super) accept_problems: bool,
    pub(super) now: Timestamp,
    pub(super) plan: Plan,
}

/// A service that stops, and how.
pub(super) struct Stopping<'a> {
    pub(super) service: &'a Service,
    pub(super) method: Method,
}

/// Explains what an operation of this kind on `service` would do. `accept_problems`: go on although labels have
/// problems that stand against it.
pub fn explain(world: &World, service: &str, work: &Work, accept_problems: bool, now: Timestamp) -> Plan {
    if let Work::Point { .. } = work {
        return point::point(world, service, work, now);
    }
    if let Work::Rollback { .. } = work {
        return rollback::rollback(world, service, work, now);
    }
    if let Work::Restart { .. } = work {
        return restart::restart(world, service, work, now);
    }
    let plan = Plan { kind: work.kind(), service: service.to_owned(), ..Plan::default() };
    let Some(found) = world.service(service) else {
        let refused = vec![format!("there is no service `{service}`")];
        return Plan { refused, ..plan };
    };
    let mut draft = Draft { accept_problems, ..Draft::of(world, found, now, plan) };
    draft.opted_in();
    if work.holds() {
        draft.queue(service);
    }
    match work {
        Work::Backup => backup(&mut draft),
        Work::Restore { .. } => restore::restore(&mut draft, work),
        Work::Drill { .. } => drill::drill(&mut draft, work),
        Work::Maintenance { until } => maintenance(&mut draft, *until),
        Work::Expire => expire(&mut draft),
        Work::Report => store::report(&mut draft, work),
        Work::Verify { backup } => store::verify(&mut draft, work, backup.as_deref()),
        Work::Import { .. } => store::import(&mut draft, work),
        Work::Sleep { above } => scale::sleep(&mut draft, *above),
        Work::Wake => scale::wake(&mut draft),
        Work::Update { .. } => update::update(&mut draft, work),
        // Of a stack, or of more than one service: see above.
        Work::Point { .. } | Work::Rollback { .. } | Work::Restart { .. } => {}
    }
    let mut plan = draft.plan;
    plan.mind.dedup();
    plan
}

// === impl Plan ===

impl Plan {
    /// Whether it would run.
    pub fn is_fine(&self) -> bool {
        self.refused.is_empty()
    }
}

// === impl Draft ===

impl<'a> Draft<'a> {
    /// A draft about a service.
    pub(super) fn of(world: &'a World, service: &'a Service, now: Timestamp, plan: Plan) -> Draft<'a> {
        let policies = Policies::of(&world.services);
        Draft { world, policies, service, accept_problems: false, now, plan }
    }

    /// What the labels of the service ask for.
    pub(super) fn policy(&self) -> Policy {
        self.policy_of(self.service.name()).cloned().unwrap_or_default()
    }

    pub(super) fn policy_of(&self, service: &str) -> Option<&Policy> {
        self.policies.get(service).map(|p| &p.policy)
    }

    pub(super) fn refuse(&mut self, why: impl Into<String>) {
        self.plan.refused.push(why.into());
    }

    pub(super) fn mind(&mut self, what: impl Into<String>) {
        self.plan.mind.push(what.into());
    }

    pub(super) fn fact(&mut self, title: &'static str, lines: Vec<String>) {
        if !lines.is_empty() {
            self.plan.facts.push(Fact { title, lines });
        }
    }

    /// Adds the steps of a kind of work, each with what it does and how it is taken back.
    pub(super) fn steps(&mut self, work: &Work, way: Way, say: impl Fn(&str) -> (String, &'static str)) {
        self.plan.steps = steps(work, way)
            .into_iter()
            .map(|(name, compensation)| {
                let (does, undo) = say(name);
                let back = match compensation {
                    Compensation::PointOfNoReturn => Back::NoWayBack,
                    Compensation::Undo if !undo.is_empty() => Back::Undo(undo.to_owned()),
                    Compensation::Undo | Compensation::Nothing => Back::Nothing,
                };
                PlannedStep { name, does, back }
            })
            .collect();
    }

    fn opted_in(&mut self) {
        let name = self.service.name().to_owned();
        let policy = self.policy();
        if !policy.enabled {
            self.refuse(format!("{name} has no label skep.enable=true"));
        }
        if policy.paused {
            self.mind(format!(
                "{name} is paused (skep.paused): no schedule and no alert acts, people still can"
            ));
        }
    }

    /// Whoever has the service now goes first.
    pub(super) fn queue(&mut self, service: &str) {
        if let Some(op) = self.world.holder(service) {
            let (id, title, state) = (&op.id, op.title(), op.journal.state.as_str());
            let what = format!("it waits for operation {id} ({title}, {state}), which has {service}");
            self.mind(what);
        }
    }

    /// Problems of labels: those that block refuse what is destructive, the others are said.
    pub(super) fn labels(&mut self, service: &str, destructive: bool) {
        let Some(parsed) = self.policies.get(service).cloned() else { return };
        let blocks = |p: &&Problem| p.blocks_destructive && destructive && !self.accept_problems;
        let (refuse, say): (Vec<_>, Vec<_>) = parsed.problems.iter().partition(blocks);
        self.plan.refused.extend(refuse.iter().map(|p| p.of(service).to_string()));
        self.plan.mind.extend(say.iter().map(|p| p.of(service).to_string()));
    }

    /// What has to be true of a data service for any work on its data.
    pub(super) fn data(&mut self) -> Found {
        let (name, policy) = (self.service.name().to_owned(), self.policy());
        let Some(asked) = &policy.data else {
            self.refuse(format!("{name} has no label skep.data"));
            return Found { data: Data::None, access: Access::nowhere(), database: String::new() };
        };
        let found = found::find(asked, &name, self.service.stack(), &self.service.spec);
        let found = found.unwrap_or_else(|why| {
            self.refuse(format!("{name}: {why}"));
            Found { data: Data::None, access: Access::nowhere(), database: String::new() }
        });
        // Files are where they are also while nothing runs on them.
        let is_nowhere = match found.data.directory() {
            Some(_) => !self.world.tasks.iter().any(|t| t.service == self.service.id),
            None => self.world.running(self.service) == 0,
        };
        if is_nowhere {
            self.refuse(format!("{name} has no running task"));
        }
        found
    }

    /// A service that need not stop.
    pub(super) fn running_on(&self, name: &str) -> Option<Stopping<'a>> {
        self.world.service(name).map(|service| Stopping { service, method: Method::Zero })
    }

    /// How a service stops, with everything that is to be known about that.
    pub(super) fn stopping(&mut self, name: &str) -> Option<Stopping<'a>> {
        let service = self.world.service(name)?;
        let maintenance = self.policy_of(name).and_then(|p| p.maintenance.clone());
        let host_port = !host_ports(&service.spec).is_empty();
        let method = Method::of(maintenance.as_ref(), host_port);
        if let Some(mode @ (MaintenanceMode::StandIn | MaintenanceMode::Config(_))) =
            maintenance.as_ref().map(|m| &m.mode)
        {
            self.mind(format!("{name}: mode {mode} shows no page in this version; it is scaled to zero"));
        }
        if let Method::Swap { page, .. } = &method {
            if host_port {
                self.mind(format!(
                    "{name} publishes a host-mode port, so the page starts only after it has stopped: \
                     about 1 s of refused connections each way"
                ));
            }
            if !has_health_check(service) {
                self.mind(format!(
                    "{name} has no health check in its spec: unless its image has one, the first requests after its \
                     return may fail"
                ));
            }
            if let Some(page) = page.as_ref().filter(|p| !self.world.pages.contains(*p)) {
                self.mind(format!("{name}: there is no config `{page}` for its page; Skep's own is shown"));
            }
        }
        if service.is_rolling() {
            self.mind(format!("a rollout of {name} is under way; it gets a moment to end"));
        }
        Some(Stopping { service, method })
    }
}

// === impl Stopping ===

impl Stopping<'_> {
    /// How it stops, after its name.
    pub(super) fn how(&self) -> String {
        match &self.method {
            Method::Zero => match self.service.replicas() {
                Some(1) => "is scaled to zero (now 1 replica)".to_owned(),
                Some(n) => format!("is scaled to zero (now {n} replicas)"),
                None => "is taken off all nodes".to_owned(),
            },
            Method::Swap { ports, page, stop_first, .. } => {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let page = page.as_ref().map(|p| format!(" `{p}`")).unwrap_or_default();
                let order = before(*stop_first);
                format!("becomes the maintenance page{page} on port {}, {order}", list(&ports))
            }
            Method::Fewer { left } => {
                let now = self.service.replicas().unwrap_or(0);
                format!("is scaled down to {left} of {now} replicas, which go on")
            }
            Method::Waker(waker) => becomes_a_waker(&waker.ports, waker.stop_first),
        }
    }

    /// Whether its users see the page.
    pub(super) fn has_page(&self) -> bool {
        matches!(self.method, Method::Swap { .. })
    }
}

/// How a service stops whose place a waker takes, after its name.
pub(super) fn becomes_a_waker(ports: &[Port], stop_first: bool) -> String {
    let ports: Vec<String> = ports.iter().map(|p| p.port.to_string()).collect();
    format!("becomes a waker on port {}, {}", list(&ports), before(stop_first))
}

fn before(stop_first: bool) -> &'static str {
    if stop_first { "once it has stopped" } else { "which is up before it stops" }
}

fn backup(draft: &mut Draft<'_>) {
    let name = draft.service.name().to_owned();
    draft.labels(&name, false);
    let found = draft.data();
    let what = what(&found);
    let store = draft.policy().backup.and_then(|b| b.store);
    let store = store.map_or_else(|| "the default store".to_owned(), |s| format!("store `{s}`"));
    let stack = draft.service.stack().unwrap_or("_");
    draft.fact("Goes to", vec![format!("{store}, v1/{stack}/{name}/<operation>")]);
    retention::facts(draft);
    if found.data.directory().is_some_and(|d| d.engine == DirectoryEngine::Volume) {
        draft.mind(
            "files are read while they are in use: what changes meanwhile is named, and is not of one moment",
        );
    }
    if let Data::Command(data) = &found.data {
        draft.plan.mind.extend(data.by.not_held().map(str::to_owned));
    }
    "nothing: the data is read, never changed, and the service keeps running"
        .clone_into(&mut draft.plan.users);
    draft.steps(&Work::Backup, Way::Beside, |step| {
        let (does, undo) = match step {
            "claim" => (format!("hold {name}"), "given back"),
            "plan" => ("decide image, node and credentials beforehand".to_owned(), "forgotten"),
            "dump" => (format!("dump {what} into the store"), "removed from the store"),
            "verify" => ("read the dump back in full; write the manifest last".to_owned(), "jobs ended"),
            "register" => {
                ("register the manifest's checksum in the catalogue".to_owned(), "taken out of the catalogue")
            }
            "ship" => (
                "bring to its store what had to be staged (S3, encrypted)".to_owned(),
                "removed from the store",
            ),
            "copy" => ("copy it to the stores of `skep.backup.copies`".to_owned(), "copies removed"),
            "prune" => ("remove the backups that no rule keeps any more".to_owned(), ""),
            "release" => (format!("give {name} back"), ""),
            other => (other.to_owned(), ""),
        };
        (does, undo)
    });
}

fn maintenance(draft: &mut Draft<'_>, until: Option<Timestamp>) {
    let name = draft.service.name().to_owned();
    draft.labels(&name, true);
    let Some(stopping) = draft.stopping(&name) else { return };
    draft.fact("Stops", vec![format!("{name} {}", stopping.how())]);
    if !stopping.has_page() {
        draft.mind(format!(
            "{name} has no maintenance page of its own (label skep.maintenance, mode swap): users see what \
             stands in front of it answer"
        ));
    }
    let lasts = match until {
        Some(until) => format!("until {until}"),
        None => format!("until `skep maintenance off {name}`"),
    };
    let sees = if stopping.has_page() { "the maintenance page" } else { "no answer from the application" };
    draft.plan.users = format!("{sees} {lasts}");
    draft.steps(&Work::Maintenance { until }, Way::Beside, |step| {
        let (does, undo) = match step {
            "claim" => (format!("hold {name}"), "given back"),
            "plan" => ("decide how it stops".to_owned(), "forgotten"),
            "stop" => (format!("save its exact spec; it {}", stopping.how()), "its exact spec is put back"),
            "hold" => (format!("hold {lasts}; a deploy in between gets the page put on top again"), ""),
            "start" => ("put its exact spec back, or what was deployed meanwhile".to_owned(), ""),
            "release" => (format!("give {name} back"), ""),
            other => (other.to_owned(), ""),
        };
        (does, undo)
    });
}

fn expire(draft: &mut Draft<'_>) {
    let name = draft.service.name().to_owned();
    draft.labels(&name, true);
    draft.data();
    let kept = restore::kept(draft.world, &name);
    draft.fact("Kept", kept.iter().map(|k| format!("{} until {}", k.what(), k.until)).collect());
    "nothing".clone_into(&mut draft.plan.users);
    draft.steps(&Work::Expire, Way::Beside, |step| {
        let (does, undo) = match step {
            "claim" => (format!("hold {name}"), "given back"),
            "plan" => ("list what has expired".to_owned(), "forgotten"),
            "drop" => ("remove it, databases by name and OID".to_owned(), "jobs ended"),
            "forget" => ("strike it from the records of the restores that kept it".to_owned(), ""),
            "release" => (format!("give {name} back"), ""),
            other => (other.to_owned(), ""),
        };
        (does, undo)
    });
}

/// What is backed up and restored, for people.
pub(super) fn what(found: &Found) -> String {
    let directory = match &found.data {
        Data::None => return "the data".to_owned(),
        Data::Postgres => return format!("database `{}`", found.database),
        Data::Directory(directory) => directory,
        Data::Command(data) => {
            return match data.by {
                By::Commands(_) => "the data, with its own commands,",
                By::Rabbitmq => "the definitions of the broker",
                By::Mongodb => "all databases of the server",
            }
            .to_owned();
        }
    };
    let names: Vec<String> = directory.volumes.iter().map(|v| format!("`{}`", v.name)).collect();
    match directory.engine {
        DirectoryEngine::Volume if names.len() == 1 => format!("the files of volume {}", list(&names)),
        DirectoryEngine::Volume => format!("the files of volumes {}", list(&names)),
        DirectoryEngine::Redis => "all keys of the Redis".to_owned(),
        DirectoryEngine::Mysql | DirectoryEngine::Mariadb => "all databases of the server".to_owned(),
    }
}

pub(super) fn has_health_check(service: &Service) -> bool {
    let check = &service.spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"];
    let test = check["Test"].as_array().map(Vec::as_slice).unwrap_or_default();
    test.first().is_some_and(|kind| kind != "NONE")
}
