//! Reads what an operation concerns from the Swarm and freezes it: the data service, its clients, its checks.

use std::collections::BTreeSet;

use super::catalogue::{self, Backup, MOST_CANDIDATES};
use super::frozen::{Client, Frozen, HaltedBy, Kept, Method, Target};
use super::reading::{Flaw, named};
use super::record::{OpId, Work};
use super::restore::part;
use super::saga::{Cx, Fault};
use super::{client_spec, rollback, wal, whereabouts};
use crate::engines::found::{self, Found};
use crate::engines::{Data, Directory, Volume, by_environment, redis};
use crate::policy::graph::Graph;
use crate::policy::{Check, CheckProbe, Engine, Policies, Policy, Restore, Section};
use crate::swarm::error::Error;
use crate::swarm::object::{ENABLE, Kind, Service, Task, TaskState};
use crate::swarm::spec::{constraints, host_ports, placement};

/// All services with what their labels ask for, read at one moment.
pub struct Seen {
    services: Vec<Service>,
    policies: Policies,
}

impl Seen {
    /// Reads the Swarm's services. All of them: a label may name one that has not opted in.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn load(cx: &Cx<'_>) -> Result<Seen, Fault> {
        let services = cx.engine().services(&[]).await?;
        Ok(Seen { policies: Policies::of(&services), services })
    }

    /// All services of the Swarm.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// What their labels ask for.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The services of people in a stack, in the order of starting.
    pub fn stack(&self, stack: &str) -> Vec<Service> {
        super::point::users_of(&self.services, stack).into_iter().cloned().collect()
    }

    /// A service by its full name.
    pub fn find(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.name() == name)
    }

    fn find_managed(&self, name: &str) -> Option<&Service> {
        self.find(name).filter(|s| s.spec["Labels"][ENABLE] == "true")
    }

    /// What the labels of a service ask for.
    pub fn policy(&self, service: &Service) -> Policy {
        self.policies.get(service.name()).map(|parsed| parsed.policy.clone()).unwrap_or_default()
    }

    fn graph(&self) -> &Graph {
        self.policies.graph()
    }

    /// Whether a service needs one of these, however far away.
    pub fn needs_any(&self, name: &str, others: &BTreeSet<String>) -> bool {
        self.graph().needs_any(name, others)
    }

    /// Full names of what a label of `of` names.
    fn names(&self, of: &Service, names: &[String]) -> Vec<String> {
        names_in(self.graph(), of, names)
    }

    /// What needs this service directly and is awake, in the order of stopping. What only reaches it through them, as a proxy
    /// does, can be without it when they are.
    pub fn awake_above(&self, name: &str) -> Vec<Service> {
        let above = self.graph().dependents_of(name);
        let above = self.graph().stop_order(above.iter().map(String::as_str));
        let found = above.iter().filter_map(|n| self.find(n));
        found.filter(|s| !client_spec::is_asleep(&s.spec)).cloned().collect()
    }

    /// Names of everything that this service needs, through any number of others, in the order of stopping.
    pub fn needed_below(&self, name: &str) -> Vec<String> {
        self.graph().all_dependencies_of(name)
    }

    fn client_names(&self, of: &Service, restore: &Restore) -> Result<Vec<String>, Fault> {
        self.graph().clients(of.name(), restore).map_err(|e| Fault::failed(e.to_string()))
    }
}

/// The operation's service, which must still be the one that it was made for.
///
/// # Errors
/// When it is gone or is another one, or what the engine says.
pub async fn service(cx: &Cx<'_>) -> Result<Service, Fault> {
    match cx.engine().service(&cx.op.intent.service_id).await {
        Ok(service) => Ok(service),
        Err(Error::NotFound { .. }) => {
            Err(Fault::failed(format!("service {} was removed", cx.op.intent.service)))
        }
        Err(other) => Err(other.into()),
    }
}

/// The data service of the operation, which must be running.
///
/// # Errors
/// When its labels do not say what data it holds, or when it does not run.
pub async fn target(cx: &Cx<'_>) -> Result<Target, Fault> {
    let service = service(cx).await?;
    let policy = policy_of(cx, &Seen::load(cx).await?, &service)?;
    let target = data_target(cx, &service, &policy).await?;
    let wal = policy.backup.as_ref().is_some_and(|b| b.wal) && target.data == Data::Postgres;
    Ok(Target { wal, ..target })
}

/// A service of the operation's stack as one with data; none where it has none, or did not opt in.
///
/// # Errors
/// When its labels do not say what data it holds, or when it does not run.
pub async fn data_of(cx: &Cx<'_>, seen: &Seen, service: &Service) -> Result<Option<Target>, Fault> {
    let parsed = seen.policies.get(service.name()).cloned().unwrap_or_default();
    let faulty: Vec<String> =
        parsed.problems.iter().filter(|p| p.section == Section::Data).map(ToString::to_string).collect();
    if parsed.policy.enabled && !faulty.is_empty() {
        return Err(Fault::failed(format!("labels of {}: {}", service.name(), faulty.join("; "))));
    }
    match parsed.policy.enabled && parsed.policy.data.is_some() {
        true => data_target(cx, service, &parsed.policy).await.map(Some),
        false => Ok(None),
    }
}

/// The names of all services that the operation holds: its own and those that it stops.
///
/// # Errors
/// When the labels do not tell, or what the engine says.
pub async fn held(cx: &Cx<'_>) -> Result<Vec<String>, Fault> {
    let service = service(cx).await?;
    let seen = Seen::load(cx).await?;
    let policy = policy_of(cx, &seen, &service)?;
    let mut names = vec![service.name().to_owned()];
    names.extend(seen.client_names(&service, &policy.restore.unwrap_or_default())?);
    Ok(names)
}

/// Everything that a restore has to decide beforehand (S1, S2, S9, S21).
///
/// # Errors
/// When something stands against it, or what the engine says.
pub async fn restore(cx: &Cx<'_>) -> Result<Frozen, Fault> {
    let service = service(cx).await?;
    let seen = Seen::load(cx).await?;
    let policy = policy_of(cx, &seen, &service)?;
    let target = data_target(cx, &service, &policy).await?;
    let restore = policy.restore.clone().unwrap_or_default();
    let Work::Restore { quiesce, to, .. } = &cx.op.intent.work else {
        return Err(Fault::failed("this is not a restore"));
    };
    let mut frozen = Frozen::of(target);
    if let Data::Directory(directory) = &frozen.target.data {
        let directory = directory.clone();
        frozen.holder = Some(holder(cx, &seen, &service, &directory).await?);
    }
    if let Data::Command(_) = &frozen.target.data {
        frozen.runs_on = Some(client_of(cx, &seen, &service).await?);
    }
    if frozen.target.data == Data::Postgres && policy.checks.iter().any(is_command) {
        frozen.runs_on = Some(client_of(cx, &seen, &service).await?);
    }
    frozen.quiesce = quiesce.unwrap_or(restore.quiesce);
    frozen.canary = restore.canary && frozen.quiesce;
    frozen.keep_old_s = restore.keep_old.as_secs();
    frozen.checks = sql_checks(&policy.checks);
    frozen.ignore = seen.names(&service, &restore.ignore_clients);
    let clients = seen.client_names(&service, &restore)?;
    let mut caches = seen.names(&service, &restore.flush);
    if cx.op.part_of().is_some() {
        // The whole stops and starts them; what it restores of a cache must not be flushed away again.
        (frozen.quiesce, frozen.canary) = (true, false);
        frozen.ignore.extend(clients);
        if let Some(client) = part::stopped_by_whole(cx).await? {
            (frozen.holder, frozen.halted_by) = (Some(client), HaltedBy::Whole);
        }
        let restored = part::siblings(cx).await?;
        caches.retain(|cache| !restored.contains(cache));
    } else {
        for name in clients {
            let client = seen.find(&name);
            let client = client.ok_or_else(|| Fault::failed(format!("client {name} does not exist")))?;
            frozen.clients.push(client_of(cx, &seen, client).await?);
        }
    }
    for name in caches {
        let cache = seen.find_managed(&name);
        let cache = cache
            .ok_or_else(|| Fault::failed(format!("cache {name} does not exist or lacks {ENABLE}=true")))?;
        frozen.caches.push(cache_of(cx, cache).await?);
    }
    if frozen.caches.is_empty() {
        let told = unflushed(&seen.services, seen.graph(), &frozen.clients, service.name());
        frozen.remarks.extend(told);
    }
    match to {
        Some(until) => frozen.recovery = Some(wal::plan(cx, &frozen.target, *until).await?),
        None => choose(cx, &mut frozen, &restore).await?,
    }
    frozen.kept = kept(cx).await?;
    Ok(frozen)
}

/// What kind of data the labels of the operation's service say that it keeps.
///
/// # Errors
/// What the engine says.
pub async fn engine(cx: &Cx<'_>) -> Result<Option<Engine>, Fault> {
    let service = service(cx).await?;
    Ok(crate::policy::parse(&service.labels()).policy.data.map(|data| data.engine))
}

/// What the labels and the spec of the operation's service say that it keeps; none where no label says it.
///
/// # Errors
/// When its spec is not what its labels need; what the engine says.
pub async fn keeps(cx: &Cx<'_>) -> Result<Option<Data>, Fault> {
    let service = service(cx).await?;
    let Some(asked) = crate::policy::parse(&service.labels()).policy.data else { return Ok(None) };
    // Which server it is does not matter to a dump.
    if asked.engine == Engine::Postgres {
        return Ok(Some(Data::Postgres));
    }
    let found = found::find(&asked, service.name(), service.stack(), &service.spec);
    found.map(|found| Some(found.data)).map_err(|e| Fault::failed(format!("{}: {e}", service.name())))
}

/// The data service as one that stops while its files are exchanged (S18).
async fn holder(cx: &Cx<'_>, seen: &Seen, service: &Service, directory: &Directory) -> Result<Client, Fault> {
    let name = service.name();
    if service.replicas() == Some(0) {
        return Err(Fault::failed(format!(
            "{name} is at zero replicas; scale it up before its data is restored"
        )));
    }
    let ready = cx.engine().nodes().await?.into_iter().filter(|n| n.ready && n.active).count();
    let local = directory.volumes.iter().find(|v| v.is_local());
    if let Some(volume) = local.filter(|_| ready > 1 && constraints(&service.spec).is_empty()) {
        return Err(Fault::failed(format!(
            "nothing keeps {name} on the node of its volume `{}`: the restart that a restore needs may put it elsewhere; \
             give it a placement constraint",
            volume.name
        )));
    }
    Ok(Client { holds_files: true, ..client_of(cx, seen, service).await? })
}

/// A service that stops while its files are exchanged, and the node to which they tie it.
///
/// # Errors
/// When its data is no files, when it may not be stopped for them, or what the engine says.
pub async fn holder_of(
    cx: &Cx<'_>,
    seen: &Seen,
    service: &Service,
) -> Result<(Client, Option<String>), Fault> {
    let target = data_of(cx, seen, service).await?;
    let Some(Target { data: Data::Directory(directory), node, .. }) = target else {
        return Err(Fault::failed(format!("{} holds no files that could be exchanged", service.name())));
    };
    let node = node.filter(|_| directory.volumes.iter().any(Volume::is_local));
    Ok((holder(cx, seen, service, &directory).await?, node))
}

/// Everything that a drill has to decide beforehand: the backup, and the checks that it has to pass.
///
/// # Errors
/// When there is no backup to try, when the service does not run, or what the engine says.
pub async fn drill(cx: &Cx<'_>, wanted: Option<&str>) -> Result<Frozen, Fault> {
    let service = service(cx).await?;
    let seen = Seen::load(cx).await?;
    let policy = policy_of(cx, &seen, &service)?;
    let mut frozen = Frozen::of(data_target(cx, &service, &policy).await?);
    frozen.checks = sql_checks(&policy.checks);
    // It may have waited for a backup of this very service.
    let until = cx.now();
    let name = service.name();
    readable(cx, &mut frozen, wanted, 1, until, |all| catalogue::to_drill(all, name, wanted, until)).await?;
    Ok(frozen)
}

/// How a service is stopped.
///
/// # Errors
/// When its labels have problems that stand against it.
pub async fn client_of(cx: &Cx<'_>, seen: &Seen, service: &Service) -> Result<Client, Fault> {
    let policy = policy_of(cx, seen, service)?;
    let stop_first = !host_ports(&service.spec).is_empty();
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let mut nodes: Vec<String> = tasks.iter().filter(|t| runs(t)).filter_map(|t| t.node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    Ok(Client {
        holds_files: false,
        name: service.name().to_owned(),
        id: service.id.clone(),
        method: Method::of(policy.maintenance.as_ref(), stop_first).shown_by(&cx.env.settings.page_image),
        nodes,
        checks: policy.checks,
    })
}

/// What the labels ask for; problems that block destructive work stop here unless they were accepted.
fn policy_of(cx: &Cx<'_>, seen: &Seen, service: &Service) -> Result<Policy, Fault> {
    let parsed = seen.policies.get(service.name()).cloned().unwrap_or_default();
    let blocking: Vec<String> = parsed.blocking().map(ToString::to_string).collect();
    if is_destructive(&cx.op.intent.work) && !cx.op.intent.accept_problems && !blocking.is_empty() {
        return Err(Fault::failed(format!("labels of {}: {}", service.name(), blocking.join("; "))));
    }
    Ok(parsed.policy)
}

/// Whether work takes something away from users or from the data, if only for a while. A rollback of specs may be what mends
/// the labels.
fn is_destructive(work: &Work) -> bool {
    match work {
        Work::Restore { .. } | Work::Maintenance { .. } | Work::Expire => true,
        // Labels that are wrong must not keep an application down.
        Work::Sleep { .. } | Work::Wake | Work::Restart { .. } | Work::Update { .. } => false,
        Work::Rollback { only, .. } => rollback::with_data(only),
        Work::Backup
        | Work::Drill { .. }
        | Work::Report
        | Work::Verify { .. }
        | Work::Import { .. }
        | Work::Point { .. } => false,
    }
}

async fn data_target(cx: &Cx<'_>, service: &Service, policy: &Policy) -> Result<Target, Fault> {
    let name = service.name();
    not_behind_a_waker(service)?;
    let data = policy.data.as_ref();
    let data = data.ok_or_else(|| Fault::failed(format!("{name} has no label skep.data")))?;
    let found = found::find(data, name, service.stack(), &service.spec);
    let Found { data, access, database } = found.map_err(|e| Fault::failed(format!("{name}: {e}")))?;
    let store = policy.backup.as_ref().and_then(|b| b.store.clone());
    let store = store.unwrap_or_else(|| cx.env.settings.default_store.clone());
    if !cx.env.settings.stores.contains_key(&store) {
        return Err(Fault::failed(format!("{name}: there is no store `{store}`")));
    }
    let backup = policy.backup.as_ref();
    let (encrypt, mut copies) =
        backup.map_or_else(Default::default, |b| (b.encrypt.clone(), b.copies.clone()));
    copies.retain(|copy| *copy != store);
    let target = match &data {
        Data::Directory(directory) => holding(cx, service, directory).await?,
        Data::Postgres | Data::Command(_) | Data::None => running(cx, service).await?,
    };
    Ok(Target { data, access, database, store, encrypt, copies, ..target })
}

/// Nothing of a service that sleeps behind a waker can be asked: not its tasks, its image or its spec.
fn not_behind_a_waker(service: &Service) -> Result<(), Fault> {
    let name = service.name();
    match client_spec::is_waker(&service.spec["TaskTemplate"]) {
        true => Err(Fault::failed(format!("{name} is asleep; wake it first (`skep scale up {name}`)"))),
        false => Ok(()),
    }
}

/// A service with files: its jobs run where its newest task is or was, whether its server is up or not.
async fn holding(cx: &Cx<'_>, service: &Service, directory: &Directory) -> Result<Target, Fault> {
    let name = service.name();
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let running: Vec<&Task> = tasks.iter().filter(|t| runs(t)).collect();
    let mut nodes: Vec<&str> = running.iter().filter_map(|t| t.node.as_deref()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    if let (Some(volume), [_, _, ..]) = (directory.volumes.iter().find(|v| v.is_local()), nodes.as_slice()) {
        return Err(Fault::failed(format!(
            "{name} runs on {} nodes, each with a volume `{}` of its own: which one is its data is not clear",
            nodes.len(),
            volume.name
        )));
    }
    let placed = tasks.iter().filter(|t| t.node.is_some()).max_by_key(|t| t.created);
    let target = Target::without_data(name, &service.id, &service.spec);
    match running.first().copied().or(placed) {
        Some(task) => Ok(Target { image: task.image.clone(), node: task.node.clone(), ..target }),
        None => resting(cx, service, directory, target).await,
    }
}

/// A service with files of which no task tells any more where they are: Swarm soon forgets those of a service at zero. Its
/// constraints tell it, where they leave no choice.
async fn resting(
    cx: &Cx<'_>,
    service: &Service,
    directory: &Directory,
    target: Target,
) -> Result<Target, Fault> {
    if !directory.volumes.iter().any(Volume::is_local) {
        return Ok(target);
    }
    let nodes = cx.engine().nodes().await?;
    match placement::allowed(&service.spec, &nodes).as_slice() {
        [only] => Ok(Target { node: Some(only.id.clone()), ..target }),
        several => Err(Fault::failed(format!(
            "{} has no task that would tell on which node its data is, and its constraints allow {} nodes; scale it up, or tie \
             it to the one that has its data",
            service.name(),
            several.len()
        ))),
    }
}

/// The service as a lender of its image, for jobs that only read a store: beside its task where it runs, else wherever its
/// constraints allow.
///
/// # Errors
/// When there is no such store, or what the engine says.
pub async fn reader(cx: &Cx<'_>, store: &str) -> Result<Target, Fault> {
    if !cx.env.settings.stores.contains_key(store) {
        let known: Vec<&str> = cx.env.settings.stores.keys().map(String::as_str).collect();
        let known = known.join(", ");
        return Err(Fault::failed(format!("there is no store `{store}`; the operator has: {known}")));
    }
    let service = service(cx).await?;
    not_behind_a_waker(&service)?;
    let mut target = Target::without_data(service.name(), &service.id, &service.spec);
    store.clone_into(&mut target.store);
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    if let Some(task) = tasks.into_iter().find(runs) {
        target.image = task.image;
        target.node = task.node;
    }
    if target.image.is_empty() {
        return Err(Fault::failed(format!("{} names no image that could read the store", target.name)));
    }
    Ok(target)
}

/// A service with a server that can be asked about its data, as its labels say now; none where they name none.
///
/// # Errors
/// When its spec is not what its labels need; what the engine says.
pub async fn server_of(cx: &Cx<'_>, service: &Service, nodes: &[String]) -> Result<Option<Target>, Fault> {
    let name = service.name();
    let Some(asked) = crate::policy::parse(&service.labels()).policy.data else { return Ok(None) };
    let found = found::find(&asked, name, service.stack(), &service.spec);
    let Found { data, access, database } = found.map_err(|e| Fault::failed(format!("{name}: {e}")))?;
    let has_server = match &data {
        Data::Postgres => true,
        Data::Directory(directory) => directory.engine.has_server(),
        Data::Command(_) | Data::None => false,
    };
    let target = Target { data, access, database, ..alongside(cx, service, nodes).await? };
    Ok(has_server.then_some(target))
}

/// A service for whose commands a job is made: they find what is secret of its environment, and the name of its tasks.
///
/// # Errors
/// What the engine says.
pub async fn beside(cx: &Cx<'_>, service: &Service, nodes: &[String]) -> Result<Target, Fault> {
    let access = by_environment(service.name(), &service.spec);
    Ok(Target { access, ..alongside(cx, service, nodes).await? })
}

/// A service whose jobs run beside its task where one runs, in its task's image; else where it ran last.
async fn alongside(cx: &Cx<'_>, service: &Service, nodes: &[String]) -> Result<Target, Fault> {
    let target = Target::without_data(service.name(), &service.id, &service.spec);
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    Ok(match tasks.into_iter().find(runs) {
        Some(task) => Target { image: task.image, node: task.node, ..target },
        None => Target { has_image: nodes.to_vec(), ..target },
    })
}

/// A Redis that is to be emptied.
///
/// # Errors
/// When its spec does not say how to reach it, when it does not run, or what the engine says.
pub async fn cache_of(cx: &Cx<'_>, service: &Service) -> Result<Target, Fault> {
    let name = service.name();
    not_behind_a_waker(service)?;
    let access = redis::access(name, &service.spec).map_err(|e| Fault::failed(format!("{name}: {e}")))?;
    Ok(Target { access, ..running(cx, service).await? })
}

/// A service that must be running: its jobs run beside its task, in its task's image.
async fn running(cx: &Cx<'_>, service: &Service) -> Result<Target, Fault> {
    let tasks = cx.engine().tasks(&[&service.id]).await?;
    let task = tasks.into_iter().find(runs);
    let task = task.ok_or_else(|| Fault::failed(format!("{} has no running task", service.name())))?;
    let target = Target::without_data(service.name(), &service.id, &service.spec);
    Ok(Target { image: task.image, node: task.node, ..target })
}

fn runs(task: &Task) -> bool {
    task.state == TaskState::Running && task.desired == TaskState::Running
}

/// Full names of what a label of `of` names; a name that nothing bears stays as it is.
pub fn names_in(graph: &Graph, of: &Service, names: &[String]) -> Vec<String> {
    names.iter().map(|n| graph.resolve(of.name(), n).unwrap_or_else(|| n.clone())).collect()
}

fn is_command(check: &Check) -> bool {
    matches!(check.probe, CheckProbe::Command { .. })
}

/// The checks among these that look into the data.
pub fn sql_checks(checks: &[Check]) -> Vec<skep_runner::task::SqlCheck> {
    checks
        .iter()
        .filter_map(|c| match &c.probe {
            CheckProbe::Sql { sql, expect } => Some(skep_runner::task::SqlCheck {
                name: c.name.clone(),
                sql: sql.clone(),
                expect: expect.clone(),
            }),
            CheckProbe::Http { .. }
            | CheckProbe::Tcp { .. }
            | CheckProbe::Command { .. }
            | CheckProbe::Log { .. } => None,
        })
        .collect()
}

/// S21: caches that the clients use and nobody empties may hold rows from the future.
pub(crate) fn unflushed(
    services: &[Service],
    graph: &Graph,
    clients: &[Client],
    restored: &str,
) -> Vec<String> {
    let mut caches: Vec<String> = clients
        .iter()
        .flat_map(|c| graph.dependencies_of(&c.name))
        .filter(|name| name != restored)
        .filter(|name| {
            services.iter().any(|s| {
                s.name() == name
                    && s.spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().is_some_and(|i| {
                        ["redis", "valkey", "memcached", "keydb"].iter().any(|c| i.contains(c))
                    })
            })
        })
        .collect();
    caches.sort();
    caches.dedup();
    caches
        .into_iter()
        .map(|c| format!("cache {c} was not emptied and may hold rows that the restored data does not have; `skep.restore.flush` empties it"))
        .collect()
}

/// The backups that a restore tries (S9).
async fn choose(cx: &Cx<'_>, frozen: &mut Frozen, restore: &Restore) -> Result<(), Fault> {
    let Work::Restore { backup, before, .. } = &cx.op.intent.work else { return Ok(()) };
    // Who asked on behalf of an alert has taken the lookback off already.
    let until = before.unwrap_or_else(|| match &cx.op.intent.trigger {
        super::record::Trigger::Alert { starts_at, .. } => *starts_at - restore.lookback,
        _ => cx.op.intent.created,
    });
    let (service, wanted) = (cx.op.intent.service.as_str(), backup.as_deref());
    readable(cx, frozen, wanted, MOST_CANDIDATES, until, |all| {
        catalogue::candidates(all, service, wanted, until)
    })
    .await
}

/// Puts the best backups of the operation's service into the plan, at least one and at most `most`. One that cannot be read
/// where the live data is, is passed over, and the plan says so.
async fn readable(
    cx: &Cx<'_>,
    frozen: &mut Frozen,
    wanted: Option<&str>,
    most: usize,
    until: jiff::Timestamp,
    order: impl for<'a> Fn(&'a [Backup]) -> Vec<&'a Backup>,
) -> Result<(), Fault> {
    let service = &cx.op.intent.service;
    let all = cx.engine().configs(Kind::Backup, &[(super::record::SERVICE, service)]).await?;
    let all: Vec<Backup> = all.iter().filter_map(Backup::read).collect();
    let found = order(&all);
    if found.is_empty() {
        return Err(Fault::failed(match wanted {
            Some(id) => catalogue::unusable(&all, service, id),
            None => format!("there is no verified backup of {service} from before {until}"),
        }));
    }
    let mut passed = Vec::new();
    for backup in found {
        let here = match backup.copies.is_empty() {
            true => whereabouts::beside_data(cx, &frozen.target, &backup.entry).await?.map(drop),
            // Whether a copy can be had shows when it is fetched.
            false => Ok(()),
        };
        match here {
            Ok(()) => {
                if !backup.copies.is_empty() {
                    frozen.copies.insert(backup.entry.id.clone(), backup.copies.clone());
                }
                frozen.candidates.push(backup.entry.clone());
            }
            Err(why) => passed.push(Flaw { id: backup.entry.id.clone(), why }),
        }
        if frozen.candidates.len() == most {
            break;
        }
    }
    let named = named(&passed);
    if frozen.candidates.is_empty() {
        return Err(Fault::failed(format!("no backup of {service} can be read where its data is: {named}")));
    }
    if !passed.is_empty() {
        frozen.remarks.push(format!("passed over: {named}"));
    }
    Ok(())
}

/// Databases that earlier restores of this service kept.
///
/// # Errors
/// What the engine says.
pub async fn kept(cx: &Cx<'_>) -> Result<Vec<Kept>, Fault> {
    let service = [(super::record::SERVICE, cx.op.intent.service.as_str())];
    let operations = cx.engine().configs(Kind::Operation, &service).await?;
    Ok(operations
        .iter()
        .filter_map(|c| super::record::Operation::read(c).ok())
        .filter_map(|op| kept_by(&op))
        .collect())
}

/// What an operation kept, if it did and nobody has dropped it since.
pub fn kept_by(op: &super::record::Operation) -> Option<Kept> {
    let record = op.journal.step("keep")?;
    let mut kept: Kept = serde_json::from_value(record.out.clone()).ok()?;
    kept.operation = OpId::parse(op.id.as_str())?;
    Some(kept)
}
