//! What taking a restore point of a stack would do.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::explain::{Draft, Plan, what};
use super::words::{ago, list};
use super::world::World;
use crate::operation::point::retention::{Fate, Holds, Rules, Seen};
use crate::operation::point::users_of;
use crate::operation::points::Purpose;
use crate::operation::record::Work;
use crate::operation::restore::Way;
use crate::policy::{Policies, Section};
use crate::swarm::object::Service;
use crate::swarm::spec::{self, FileKind};

/// Stands for the point that is to be taken.
const THIS: &str = "this one";

pub(super) fn point(world: &World, stack: &str, work: &Work, now: Timestamp) -> Plan {
    let plan = Plan { kind: work.kind(), service: stack.to_owned(), ..Plan::default() };
    let Work::Point { without_data } = work else { return plan };
    let members = users_of(&world.services, stack);
    let Some(first) = members.first().copied() else {
        let refused = vec![format!("there is no stack `{stack}`")];
        return Plan { refused, ..plan };
    };
    let policies = Policies::of(&world.services);
    let enabled = |s: &&Service| policies.get(s.name()).is_some_and(|p| p.policy.enabled);
    let mut draft = Draft::of(world, first, now, plan);
    if !members.iter().any(enabled) {
        draft.refuse(format!("no service of {stack} has the label skep.enable=true"));
    }
    for service in &members {
        draft.queue(service.name());
        if service.is_rolling() {
            draft.mind(format!("a rollout of {} is under way; it gets a moment to end", service.name()));
        }
    }
    draft.fact("Holds", members.iter().map(|s| holds(s)).collect());
    let mut data = Vec::new();
    for service in members.iter().filter(|s| enabled(s) && !without_data) {
        let mut own = Draft::of(world, service, now, Plan::default());
        data.extend(data_of(&mut own));
        draft.plan.refused.append(&mut own.plan.refused);
        draft.plan.mind.append(&mut own.plan.mind);
    }
    mind(&mut draft, &members, &data, *without_data);
    let count = data.len();
    draft.fact("Data", data.into_iter().map(|(_, line)| line).collect());
    keeping(&mut draft, stack, &members, count > 0);
    draft.plan.users = match count {
        0 => "nothing: specs are read, never changed".to_owned(),
        _ => "nothing: specs and data are read, never changed, and every service keeps running".to_owned(),
    };
    steps(&mut draft, work, stack, count);
    draft.plan.mind.dedup();
    draft.plan
}

/// Says which points go once this one is taken, by the same judgement that the step makes.
fn keeping(draft: &mut Draft<'_>, stack: &str, members: &[&Service], has_data: bool) {
    let now = draft.now;
    let rules = Rules::of(members.iter().filter_map(|s| draft.policies.get(s.name())), 0);
    match rules {
        Rules::Newest(_) => {
            let unknown =
                "which older points go: the operator keeps the newest of each stack (SKEP_KEEP_POINTS)";
            draft.plan.unknown = vec![unknown.to_owned()];
            return;
        }
        Rules::All => draft.mind("labels about restore points are faulty, so none is removed"),
        Rules::Labels { .. } => {}
    }
    let World { points, backups, operations, .. } = draft.world;
    let of_it = points.iter().filter(|point| point.head.stack == stack);
    let mut seen: Vec<Seen> = of_it.map(|point| Seen::of(point, backups, operations)).collect();
    seen.push(Seen {
        id: THIS.to_owned(),
        taken: now,
        purpose: Purpose::Regular,
        holds: if has_data { Holds::Whole } else { Holds::Specs },
        wanted: None,
    });
    let (mut stays, mut goes) = (Vec::new(), Vec::new());
    for (Seen { id, taken, .. }, fate) in rules.judge(seen, now) {
        let point = match id.as_str() {
            THIS => id,
            _ => format!("{id}, taken {taken} ({})", ago(taken, now)),
        };
        match fate {
            Fate::Goes => goes.push(format!("{point}: no rule keeps it")),
            Fate::Stays(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                stays.push(format!("{point}: {}", reasons.join(", ")));
            }
        }
    }
    draft.fact("Stays", stays);
    draft.fact("Goes", goes);
}

fn holds(service: &Service) -> String {
    let count = |n: usize, what: &str| match n {
        0 => None,
        1 => Some(format!("1 {what}")),
        n => Some(format!("{n} {what}s")),
    };
    let more = [
        count(spec::object_refs(&service.spec, FileKind::Config).len(), "config"),
        count(spec::object_refs(&service.spec, FileKind::Secret).len(), "secret name"),
        count(spec::networks(&service.spec).len(), "network"),
        count(spec::mounts(&service.spec).iter().filter(|m| m["Type"] == "volume").count(), "volume"),
    ];
    let more: Vec<String> = more.into_iter().flatten().collect();
    let with = if more.is_empty() { String::new() } else { format!("; {}", list(&more)) };
    format!("{}: its spec, image {}{with}", service.name(), tag(spec::image(&service.spec)))
}

/// An image without the digest that makes lines long.
fn tag(image: &str) -> &str {
    image.split('@').next().unwrap_or(image)
}

/// The data of a service that has any, with its name.
fn data_of(draft: &mut Draft<'_>) -> Option<(String, String)> {
    let name = draft.service.name().to_owned();
    let policy = draft.policy();
    let faulty =
        draft.policies.get(&name).is_some_and(|p| p.problems.iter().any(|p| p.section == Section::Data));
    if faulty {
        draft.labels(&name, true);
        draft.refuse(format!("the labels of {name} do not say what data it holds"));
    }
    policy.data.as_ref()?;
    let found = draft.data();
    let store = policy.backup.and_then(|b| b.store);
    let store = store.map_or_else(|| "the default store".to_owned(), |s| format!("store `{s}`"));
    let line = format!("{} of {name}, to {store}", what(&found));
    Some((name, line))
}

fn mind(draft: &mut Draft<'_>, members: &[&Service], data: &[(String, String)], without_data: bool) {
    let keepers = members.iter().filter(|service| data.iter().any(|(of, _)| of == service.name()));
    let backed_up: BTreeSet<&str> = keepers.flat_map(|service| volumes_of(service)).collect();
    for service in members {
        let name = service.name();
        let image = spec::image(&service.spec);
        if !image.contains("@sha256:") {
            draft.mind(format!(
                "{name} names image {image} without a digest: back comes whatever that name means then"
            ));
        }
        let volumes: Vec<&str> = volumes_of(service).filter(|volume| !backed_up.contains(volume)).collect();
        if !without_data && !volumes.is_empty() {
            draft.mind(format!(
                "the files of volume {} of {name} are not in the point: no label skep.data says how to back them up",
                list(&volumes)
            ));
        }
    }
    if data.len() > 1 {
        draft.mind(
            "each backup is of its own moment, one after the other; what must fit together to the second has to be stopped first",
        );
    }
}

/// The volumes that a service mounts.
fn volumes_of(service: &Service) -> impl Iterator<Item = &str> {
    let volumes = spec::mounts(&service.spec).iter().filter(|m| m["Type"] == "volume");
    volumes.filter_map(|m| m["Source"].as_str())
}

fn steps(draft: &mut Draft<'_>, work: &Work, stack: &str, count: usize) {
    let dumps = match count {
        0 => "nothing to dump".to_owned(),
        1 => "dump the data into its store".to_owned(),
        n => format!("dump the data of {n} services into their stores, one after the other"),
    };
    draft.steps(work, Way::Beside, |step| match step {
        "claim" => (format!("hold every service of {stack}"), "given back"),
        "plan" => (
            "read specs, configs, networks and volumes at one moment; store them in the Swarm".to_owned(),
            "removed from the Swarm",
        ),
        "dump" => (dumps.clone(), if count == 0 { "" } else { "removed from the stores" }),
        "verify" if count == 0 => ("nothing to read back".to_owned(), ""),
        "verify" => ("read every dump back in full; write the manifests last".to_owned(), "jobs ended"),
        "ship" => (
            "bring to their stores what had to be staged (S3, encrypted)".to_owned(),
            "removed from the stores",
        ),
        "register" => (
            "look whether any spec has changed meanwhile; register the backups, then the point".to_owned(),
            "taken out of the catalogue",
        ),
        "prune" => ("remove the points that nothing keeps".to_owned(), ""),
        "release" => (format!("give every service of {stack} back"), ""),
        other => (other.to_owned(), ""),
    });
}
