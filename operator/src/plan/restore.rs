//! What a restore would do.

use jiff::Timestamp;

use super::explain::{Draft, Stopping, what};
use super::recovery;
use super::words::{ago, list, size};
use super::world::World;
use crate::engines::found::Found;
use crate::engines::{By, Data};
use crate::operation::canary::can_try;
use crate::operation::catalogue::{Backup, Entry, MOST_CANDIDATES, candidates, unusable};
use crate::operation::checks::{asked, named};
use crate::operation::freeze::{kept_by, names_in, unflushed};
use crate::operation::frozen::{Client, Kept};
use crate::operation::record::Work;
use crate::operation::restore::{NOT_THERE, Way, Wishes, against};
use crate::policy::{Check, CheckProbe, Policy, Restore, RestoreMode, duration};
use crate::swarm::object::ENABLE;

/// How a step is taken back that leaves nothing but jobs.
const JOBS: &str = "jobs ended";

/// What a restore has chosen, for its words.
struct Choice<'a> {
    backup: Option<&'a Backup>,
    /// The moment, where one is recovered from that backup's base.
    to: Option<Timestamp>,
    /// What is replaced.
    what: String,
    way: Way,
    /// What the running service takes it by, where nothing else can.
    by: Option<By>,
    /// The service itself, where it stops.
    holder: Option<Stopping<'a>>,
    clients: Vec<Stopping<'a>>,
    caches: Vec<String>,
    kept: Vec<Kept>,
    quiesce: bool,
    /// Whether roles that are missing are made.
    create_roles: bool,
    canary: Option<String>,
    checks: usize,
}

pub(super) fn restore(draft: &mut Draft<'_>, work: &Work) {
    let Work::Restore { backup, before, to, in_place, quiesce, create_roles } = work else { return };
    let name = draft.service.name().to_owned();
    draft.labels(&name, true);
    let found = draft.data();
    let policy = draft.policy();
    let restore = policy.restore.clone().unwrap_or_default();
    let backup = match to {
        Some(to) => recovery::choose(draft, *to),
        None => choose(draft, backup.as_deref(), *before),
    };
    let quiesce = quiesce.unwrap_or(restore.quiesce);
    let itself = found.data.directory().is_some();
    let clients = clients(draft, &restore, quiesce, itself);
    let caches = caches(draft, &restore, &clients);
    let checks = checks(draft, &policy, &clients, &found);
    let canary = canary(draft, &clients).filter(|_| restore.canary && quiesce);
    let wishes = Wishes { in_place: in_place.unwrap_or(false), quiesce, create_roles: *create_roles };
    let (way, holder) = way(draft, &found, wishes);
    if to.is_some() && (way != Way::Beside || found.data != Data::Postgres) {
        draft.refuse(NOT_THERE);
    }
    let kept = kept(draft.world, &name);
    let by = match &found.data {
        Data::Command(data) => Some(data.by.clone()),
        Data::None | Data::Postgres | Data::Directory(_) => None,
    };
    let what = match way {
        Way::Directory => what(&found),
        Way::Beside | Way::InPlace if by.is_some() => "the live data".to_owned(),
        Way::Beside | Way::InPlace if found.database.is_empty() => "the live one".to_owned(),
        Way::Beside | Way::InPlace => format!("`{}`", found.database),
    };
    let create_roles = *create_roles;
    let choice = Choice {
        backup,
        to: *to,
        what,
        way,
        by,
        holder,
        clients,
        caches,
        kept,
        quiesce,
        create_roles,
        canary,
        checks,
    };
    if checks == 0 {
        draft.mind(
            "no check is defined (skep.check.…): that the restored data is right is not verified beyond the \
             restore itself",
        );
    }
    unknown(draft, &choice);
    draft.plan.alerts = alerts(&policy);
    draft.plan.users = users(&choice);
    draft.steps(work, way, |step| words(step, &name, &choice, &restore));
}

/// How the data is replaced, other data than PostgreSQL's in one way only; and how the service itself stops, where it does.
fn way<'a>(draft: &mut Draft<'a>, found: &Found, wishes: Wishes) -> (Way, Option<Stopping<'a>>) {
    let only = match &found.data {
        Data::Directory(_) => Some(Way::Directory),
        Data::Command(_) => Some(Way::InPlace),
        Data::Postgres | Data::None => None,
    };
    for why in against(only, wishes) {
        draft.refuse(why);
    }
    match only {
        Some(Way::Directory) => {}
        Some(way) => return (way, None),
        None if wishes.in_place => return (Way::InPlace, None),
        None => return (Way::Beside, None),
    }
    let name = draft.service.name().to_owned();
    if draft.service.replicas() == Some(0) {
        draft.refuse(format!("{name} is at zero replicas; scale it up before its data is restored"));
    }
    let holder = draft.stopping(&name);
    draft.fact(
        "Data service",
        holder.iter().map(|h| format!("{name} {}; then its files are moved", h.how())).collect(),
    );
    (Way::Directory, holder)
}

/// Databases that earlier restores of a service kept.
pub(super) fn kept(world: &World, service: &str) -> Vec<Kept> {
    world.operations.iter().filter(|o| o.intent.service == service).filter_map(kept_by).collect()
}

fn choose<'a>(draft: &mut Draft<'a>, wanted: Option<&str>, before: Option<Timestamp>) -> Option<&'a Backup> {
    let (name, now) = (draft.service.name(), draft.now);
    let until = before.unwrap_or(now);
    let mut found = candidates(&draft.world.backups, name, wanted, until);
    found.truncate(MOST_CANDIDATES);
    if found.is_empty() {
        draft.refuse(match (wanted, before) {
            (Some(id), _) => unusable(&draft.world.backups, name, id),
            (None, Some(before)) => format!("there is no verified backup of {name} from before {before}"),
            (None, None) => format!("there is no verified backup of {name}"),
        });
        return None;
    }
    let line = |(i, b): (usize, &&Backup)| {
        let Entry { id, taken, size: bytes, .. } = &b.entry;
        let verified =
            b.verified.map_or("never verified".to_owned(), |v| format!("verified {}", ago(v, now)));
        let proved = b.proved.map(|p| format!(", proved {}", ago(p, now))).unwrap_or_default();
        let failed = b.drill_failed.as_ref();
        let failed =
            failed.map(|d| format!(", its drill failed {}: {}", ago(d.at, now), d.why)).unwrap_or_default();
        let then = if i == 0 { "" } else { "else " };
        format!(
            "{then}{id}, taken {taken} ({}), {}, {verified}{proved}{failed}",
            ago(*taken, now),
            size(*bytes)
        )
    };
    let lines = found.iter().enumerate().map(line).collect();
    draft.fact("Backup", lines);
    found.first().copied()
}

/// The services that use the data, dependents first.
fn clients<'a>(
    draft: &mut Draft<'a>,
    restore: &Restore,
    quiesce: bool,
    is_directory: bool,
) -> Vec<Stopping<'a>> {
    let name = draft.service.name();
    let names = match draft.policies.graph().clients(name, restore) {
        Ok(names) => names,
        Err(problem) => {
            draft.refuse(problem.of(name).to_string());
            return Vec::new();
        }
    };
    let mut clients = Vec::new();
    for client in &names {
        draft.labels(client, true);
        draft.queue(client);
        if !draft.policy_of(client).is_some_and(|p| p.enabled) {
            draft.mind(format!(
                "{client} has no label {ENABLE}=true; it is stopped all the same, because skep.restore.clients names it: \
                 left running it would write to data that goes away"
            ));
        }
        clients.extend(if quiesce { draft.stopping(client) } else { draft.running_on(client) });
    }
    if clients.is_empty() {
        draft.mind(format!(
            "no service says that it needs {name} (skep.depends-on, skep.restore.clients): nothing {}is stopped",
            if is_directory { "but itself " } else { "" }
        ));
    }
    let how = |c: &Stopping<'_>| if quiesce { c.how() } else { "keeps running".to_owned() };
    draft.fact("Clients", clients.iter().map(|c| format!("{} {}", c.service.name(), how(c))).collect());
    let ignored = draft.policies.graph().ignored_clients(name, restore);
    draft.fact("Not stopped", ignored.into_iter().collect());
    clients
}

fn caches(draft: &mut Draft<'_>, restore: &Restore, clients: &[Stopping<'_>]) -> Vec<String> {
    let caches = names_in(draft.policies.graph(), draft.service, &restore.flush);
    for cache in &caches {
        match draft.world.service(cache) {
            None => draft.refuse(format!("cache {cache} does not exist")),
            Some(_) if !draft.policy_of(cache).is_some_and(|p| p.enabled) => {
                draft.refuse(format!("cache {cache} has no label {ENABLE}=true"));
            }
            Some(s) if draft.world.running(s) == 0 => {
                draft.refuse(format!("cache {cache} has no running task"))
            }
            Some(_) => {}
        }
    }
    if caches.is_empty() {
        let frozen: Vec<Client> = clients
            .iter()
            .map(|c| Client {
                holds_files: false,
                name: c.service.name().to_owned(),
                id: c.service.id.clone(),
                method: c.method.clone(),
                nodes: Vec::new(),
                checks: Vec::new(),
            })
            .collect();
        let restored = draft.service.name();
        draft.plan.mind.extend(unflushed(&draft.world.services, draft.policies.graph(), &frozen, restored));
    }
    draft.fact("Caches", caches.iter().map(|c| format!("{c}: emptied before the clients start")).collect());
    caches
}

fn checks(draft: &mut Draft<'_>, policy: &Policy, clients: &[Stopping<'_>], found: &Found) -> usize {
    let mut lines: Vec<String> = policy
        .data_checks()
        .map(|c| format!("{} (SQL): in the restored data, before and after", c.name))
        .collect();
    let how = |checks: &[Check], how: &str| -> Vec<String> {
        named(asked(checks)).into_iter().map(|name| format!("{name}: {how}")).collect()
    };
    let is_command = |check: &Check| matches!(check.probe, CheckProbe::Command { .. });
    let of_the_service = policy.checks.iter().filter(|check| match &found.data {
        Data::Command(_) | Data::Directory(_) => !matches!(check.probe, CheckProbe::Sql { .. }),
        Data::Postgres => is_command(check),
        Data::None => false,
    });
    let when = match &found.data {
        Data::Command(_) => "of the data service, once the data is loaded",
        Data::Directory(_) => "of the data service, once it is up on the new files",
        Data::Postgres | Data::None => "of the data service, once the data is live",
    };
    lines.extend(how(&of_the_service.cloned().collect::<Vec<_>>(), when));
    for client in clients {
        let name = client.service.name();
        let Some(policy) = draft.policy_of(name) else { continue };
        lines.extend(how(&policy.checks, &format!("through {name}, after its return")));
    }
    let count = lines.len();
    draft.fact("Checks", lines);
    count
}

/// The client that tries the new data first: one with a check that a hidden task of it can be asked.
fn canary(draft: &Draft<'_>, clients: &[Stopping<'_>]) -> Option<String> {
    let asked = |name: &str| draft.policy_of(name).is_some_and(|policy| can_try(&policy.checks));
    clients.iter().map(|c| c.service.name()).find(|name| asked(name)).map(str::to_owned)
}

fn unknown(draft: &mut Draft<'_>, choice: &Choice<'_>) {
    if choice.way == Way::Directory {
        draft.plan.unknown = vec![
            "whether the backup is whole (checksums, full read), and fits the server's version".to_owned(),
            "whether there is room: 1.2 × the larger of the live data and the backup, and a tenth left"
                .to_owned(),
            "whether the live data holds mounts of its own, which cannot be moved".to_owned(),
        ];
        return;
    }
    let safety = "whether the safety backup succeeds; without one nothing is replaced".to_owned();
    if let Some(by) = &choice.by {
        let (whole, uses) = match by {
            By::Commands(_) => (
                "whether the backup is whole (its checksum, and the verify command where there is one)",
                "what else uses the data, and how much room its load command needs",
            ),
            By::Mongodb => (
                "whether the backup is whole (checksum, every document against the checksum of its collection)",
                "what else uses the data, and how much room loading it needs",
            ),
            By::Rabbitmq => (
                "whether the backup is whole (checksum, full read)",
                "which queues hold messages: one that the backup has otherwise, and that holds any, ends the restore before \
                 anything is changed; one that it does not have, and that holds any, stays",
            ),
        };
        draft.plan.unknown = vec![whole.to_owned(), uses.to_owned(), safety];
        draft.plan.mind.extend(by.not_held().map(str::to_owned));
        return;
    }
    let mut unknown = vec![
        "whether the backup is whole (checksums, full read), and fits the server's roles and extensions"
            .to_owned(),
        "whether there is room: 1.2 × the live size and the write-ahead log".to_owned(),
        "which sessions, replication slots, subscriptions and scheduled jobs the live database has"
            .to_owned(),
    ];
    if choice.way == Way::InPlace {
        unknown.push(safety);
    }
    if choice.create_roles {
        unknown.push("which roles are missing: those that exist stay as they are".to_owned());
    }
    if choice.to.is_some() {
        unknown.splice(0..0, recovery::unknown());
    }
    draft.plan.unknown = unknown;
}

fn users(choice: &Choice<'_>) -> String {
    let mut text = if choice.quiesce {
        format!("{}, {}.", seen(choice), lasting(choice.way))
    } else {
        "no page: clients keep running, their sessions are cut once, and what they ask at that moment fails."
            .to_owned()
    };
    if let Some(backup) = choice.backup {
        let taken = choice.to.unwrap_or(backup.entry.taken);
        let kept = match choice.way {
            Way::Beside => "the kept old database",
            Way::InPlace => "the safety backup",
            Way::Directory => "the kept old files",
        };
        text += &format!(" Changes made after {taken} are not in the restored data; they stay in {kept}.");
    }
    text
}

fn seen(choice: &Choice<'_>) -> String {
    let names = |page: bool| {
        // What is at zero behind its clients is not what users ask.
        let itself = choice.holder.iter().filter(|_| page || choice.clients.is_empty());
        let stopping = choice.clients.iter().chain(itself);
        let of: Vec<&str> = stopping.filter(|s| s.has_page() == page).map(|s| s.service.name()).collect();
        (!of.is_empty()).then(|| list(&of))
    };
    match (names(true), names(false)) {
        (Some(page), Some(zero)) => format!("the maintenance page of {page}, and no answer from {zero}"),
        (Some(page), None) => format!("the maintenance page of {page}"),
        (None, Some(zero)) => format!("no answer from {zero}"),
        (None, None) => "errors of whatever uses the data".to_owned(),
    }
}

const fn lasting(way: Way) -> &'static str {
    match way {
        Way::InPlace => {
            "from `stop` to `start`: as long as backing the live data up and restoring it takes, which grows with its size"
        }
        Way::Beside => {
            "from `stop` to `start`: as long as the clients take to stop and to start again, whatever the size of \
             the data"
        }
        Way::Directory => {
            "from `stop` to `start`: as long as the data service and the clients take to stop and to start again"
        }
    }
}

fn alerts(policy: &Policy) -> Option<String> {
    let restore = policy.restore.as_ref().filter(|r| !r.on_alert.is_empty())?;
    let alerts = list(&restore.on_alert);
    Some(match restore.mode {
        RestoreMode::Observe => format!("{alerts}: observed only (skep.restore.mode=observe)"),
        RestoreMode::Approve => format!("{alerts}: asks for a restore that waits for `skep ops approve`"),
        RestoreMode::Auto => format!(
            "{alerts}: restores by itself, at most {}, and waits for a person where preflight finds something \
             undeclared",
            restore.limit
        ),
    })
}

/// What a step does, and how it is taken back.
fn words(step: &str, name: &str, choice: &Choice<'_>, restore: &Restore) -> (String, &'static str) {
    let id = choice.backup.map_or("a backup", |b| b.entry.id.as_str());
    if let Some(words) = choice.to.and_then(|to| recovery::words(step, id, to)) {
        return words;
    }
    let what = &choice.what;
    let files = choice.way == Way::Directory;
    match step {
        "claim" => {
            let clients: Vec<&str> = choice.clients.iter().map(|c| c.service.name()).collect();
            (format!("hold {}", list(&[&[name], clients.as_slice()].concat())), "given back")
        }
        "plan" => ("freeze everything chosen here".to_owned(), "forgotten"),
        "preflight" if files => {
            ("read the backup in full; look at the files, the room and the server".to_owned(), JOBS)
        }
        "preflight" if choice.by.is_some() => ("read the backup in full".to_owned(), JOBS),
        "preflight" => {
            ("read the backup in full; look at roles, extensions, room and sessions".to_owned(), JOBS)
        }
        "expire" => (expiring(choice), JOBS),
        "safety" => ("back up what is about to be replaced".to_owned(), "an unfinished one is removed"),
        "beside" if files => {
            let does = format!(
                "build {id} in a directory beside the live files, run the checks there; else the next older"
            );
            (does, "the new directory is removed")
        }
        "halt" => (format!("stop {name}, until every task of it has ended"), "its exact spec is put back"),
        "move" => {
            let does = format!("exchange {what} by renames{}", emptied(choice));
            (does, "everything is moved back")
        }
        "serve" => (format!("start {name} on the new files; its checks must pass"), "it is stopped again"),
        "beside" => {
            let made = if choice.create_roles {
                "make the roles that are missing, as the backup has them; "
            } else {
                ""
            };
            let does =
                format!("{made}restore {id} into a new database, run the checks there; else the next older");
            let undo = if choice.create_roles {
                "the new database is dropped, and so are the roles that were made"
            } else {
                "the new database is dropped"
            };
            (does, undo)
        }
        "replace" if matches!(choice.by, Some(By::Commands(_))) => {
            let does = format!("hand {id} to the load command, then run the checks{}", emptied(choice));
            (does, "the safety backup is handed to it")
        }
        "replace" if matches!(choice.by, Some(By::Mongodb)) => {
            let does = format!(
                "load {id} into {name}, drop what it does not have, count all of it, then run the checks{}",
                emptied(choice)
            );
            (does, "the safety backup is loaded likewise")
        }
        "replace" if choice.by.is_some() => {
            let does =
                format!("load {id} into {name}, compare all of it, then run the checks{}", emptied(choice));
            (does, "the safety backup is loaded likewise")
        }
        "replace" => {
            let does = format!("rebuild {what} from {id}, then run the checks{}", emptied(choice));
            (does, "the safety backup is restored")
        }
        "cut" => {
            let does = format!("swap the names in one transaction: the new database becomes {what}");
            (does + &emptied(choice), "the names are swapped back")
        }
        "keep" if files => (format!("keep the old files for {}", duration::show(restore.keep_old)), ""),
        "keep" => (format!("keep the old database for {}", duration::show(restore.keep_old)), ""),
        "release" => ("give the services back".to_owned(), ""),
        other => around(other, choice),
    }
}

/// The steps that concern the clients.
fn around(step: &str, choice: &Choice<'_>) -> (String, &'static str) {
    let mut names: Vec<&str> = choice.clients.iter().map(|c| c.service.name()).collect();
    let stops = choice.quiesce && !names.is_empty();
    match step {
        "stop" if stops => {
            (format!("stop {}, dependents first", list(&names)), "their exact specs are put back")
        }
        "stop" => ("stop nothing".to_owned(), ""),
        "canary" => match &choice.canary {
            Some(client) => {
                (format!("try one task of {client}, out of reach of users, on the new data"), "removed")
            }
            None => ("no canary".to_owned(), ""),
        },
        "start" if stops => {
            names.reverse();
            (format!("start {}, each healthy before the next", list(&names)), "")
        }
        "start" => ("start nothing".to_owned(), ""),
        "verify" if choice.checks == 0 => ("no check to run".to_owned(), ""),
        "verify" => ("run the checks on the live data and through the clients".to_owned(), ""),
        other => (other.to_owned(), ""),
    }
}

fn emptied(choice: &Choice<'_>) -> String {
    if choice.caches.is_empty() { String::new() } else { format!("; empty {}", list(&choice.caches)) }
}

fn expiring(choice: &Choice<'_>) -> String {
    if choice.kept.is_empty() {
        return "nothing was kept by an earlier restore".to_owned();
    }
    let kept: Vec<String> =
        choice.kept.iter().map(|k| format!("`{}` (kept until {})", k.name, k.until)).collect();
    let noun = if choice.way == Way::Directory { "old directory" } else { "database" };
    format!("drop {}: one kept {noun} a service", list(&kept))
}
