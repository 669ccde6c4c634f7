//! What giving a service another image would do, or several theirs as one.

use std::collections::BTreeSet;
use std::time::Duration;

use super::explain::{Draft, what};
use super::restart::{asks, before};
use super::words::list;
use crate::engines::Data;
use crate::operation::checks::named;
use crate::operation::record::{Also, Work};
use crate::operation::restart::{Order, order, untied};
use crate::operation::restore::Way;
use crate::operation::update::together::{self, Wanted, in_order, refusals};
use crate::operation::update::{Scope, scope};
use crate::policy::{Policy, duration};
use crate::swarm::object::{Service, UpdateState};
use crate::swarm::spec::{self, has_health_check};

/// One service, and what it gets.
struct Unit<'a> {
    service: &'a Service,
    policy: Policy,
    image: &'a str,
    order: Order,
}

/// How a plan says it of one service and of several.
struct Words {
    several: bool,
}

// === impl Unit ===

impl<'a> Unit<'a> {
    fn of(draft: &Draft<'_>, one: Wanted<'a>) -> Unit<'a> {
        let policy = draft.policy_of(one.service.name()).cloned().unwrap_or_default();
        let order = order(one.service, Some(&policy));
        Unit { service: one.service, policy, image: one.image, order }
    }

    fn name(&self) -> &'a str {
        self.service.name()
    }
}

// === impl Words ===

impl Words {
    fn say<'s>(&self, one: &'s str, several: &'s str) -> &'s str {
        if self.several { several } else { one }
    }
}

pub(super) fn update(draft: &mut Draft<'_>, work: &Work) {
    let Work::Update { image, monitor_s, force, also, .. } = work else { return };
    let Some(wanted) = wanted(draft, image, also) else { return };
    let wanted = in_order(wanted, &draft.policies);
    let units: Vec<Unit<'_>> = wanted.iter().map(|one| Unit::of(draft, *one)).collect();
    let names: Vec<&str> = units.iter().map(Unit::name).collect();
    let words = Words { several: names.len() > 1 };
    draft.plan.service = list(&names);
    let first = draft.service.name();
    for name in &names {
        draft.labels(name, false);
        if *name != first {
            draft.queue(name);
        }
    }
    let asleep: BTreeSet<String> = draft.world.sleepers.iter().map(|s| s.service_id.clone()).collect();
    let operations = &draft.world.operations;
    draft.plan.refused.extend(refusals(&wanted, &draft.policies, &asleep, operations, *force));
    // That it has not opted in is said of whatever is asked for.
    draft.plan.refused.dedup();
    let monitor = monitor_s.map_or_else(|| together::monitor(&wanted, &draft.policies), Duration::from_secs);
    let stays: Vec<(&str, String)> = units
        .iter()
        .filter_map(|unit| Some((unit.name(), together::stays(unit.service, &draft.policies, operations)?)))
        .collect();
    let full = scope(&draft.world.services, &draft.policies, &wanted, draft.accept_problems);
    let point = match full {
        Some(_) => None,
        None => together::point(&wanted, &draft.policies).map_err(|why| vec![why]).transpose(),
    };
    let (full, point) = (kept(draft, full), kept(draft, point));
    let data = if full.is_none() && point.is_none() { data(draft, &units) } else { None };

    replaces(draft, &units, &words);
    let asked = before(draft, work, &names);
    let checks = red_flags(draft, &units, monitor, &words);
    if let Some(scope) = &full {
        goes_back(draft, scope);
    }
    let backed_up: BTreeSet<&str> = full
        .iter()
        .chain(&point)
        .flat_map(|scope| scope.data.iter().map(String::as_str))
        .chain(data.iter().map(|(name, _)| *name))
        .collect();
    minds(draft, &units, &backed_up, &stays, &words);
    draft.plan.users = users(&units);
    let held = held(full.as_ref().or(point.as_ref()), &names);
    let back = match (stays.is_empty(), &full) {
        (false, _) => words.say(
            "put back only if no task of it has run",
            "put back only if no task of one that stays has run",
        ),
        (true, Some(_)) => {
            "a rollback to the restore point, with the data; without, if no task of it has run"
        }
        (true, None) => words.say("the exact spec is put back", "the exact specs of all are put back"),
    };
    let monitor = duration::show(monitor);
    let written = written(&units, &words);
    let point = full.as_ref().or(point.as_ref()).map(|scope| list(&scope.data));
    draft.steps(work, Way::Beside, |step| match step {
        "claim" => (format!("hold {held}"), "given back"),
        "preflight" if asked == 0 => ("ask nothing before".to_owned(), ""),
        "preflight" => (asks(asked), "jobs ended"),
        "plan" => (words.say("save the exact spec", "save the exact specs").to_owned(), "forgotten"),
        "backup" if let Some(data) = &point => (
            format!(
                "take a restore point: {} of {}, and the data of {data}, read back in full",
                words.say("the spec", "the specs"),
                list(&names)
            ),
            "it stays once it is whole",
        ),
        "backup" => match &data {
            Some((_, data)) => {
                (format!("back {data} up, and read it back in full"), "it stays once it is whole")
            }
            None => ("back nothing up".to_owned(), ""),
        },
        "apply" => (written.clone(), back),
        "check" if checks == 0 => ("check nothing".to_owned(), ""),
        "check" => (words.say("run its checks", "run their checks").to_owned(), "jobs ended"),
        "watch" => (format!("watch {} for {monitor}", words.say("it", "all of them")), "jobs ended"),
        "release" => (format!("give {held} back"), ""),
        other => (other.to_owned(), ""),
    });
}

/// What gets which image; none, and a refusal, where one of them is not there.
fn wanted<'w, 'a: 'w>(draft: &mut Draft<'a>, image: &'w str, also: &'w [Also]) -> Option<Vec<Wanted<'w>>> {
    let mut wanted = vec![Wanted { service: draft.service, image }];
    for other in also {
        match draft.world.service(&other.service) {
            Some(service) => wanted.push(Wanted { service, image: &other.image }),
            None => draft.refuse(format!("there is no service `{}`", other.service)),
        }
    }
    (wanted.len() == also.len() + 1).then_some(wanted)
}

/// What was found, where nothing stands against it.
fn kept(draft: &mut Draft<'_>, found: Option<Result<Scope, Vec<String>>>) -> Option<Scope> {
    match found? {
        Ok(scope) => Some(scope),
        Err(refused) => {
            draft.plan.refused.extend(refused);
            None
        }
    }
}

/// The data that is backed up alone, with its service.
fn data<'a>(draft: &mut Draft<'_>, units: &[Unit<'a>]) -> Option<(&'a str, String)> {
    let keeps = |unit: &&Unit<'_>| {
        unit.policy.data.is_some() && unit.policy.update.clone().unwrap_or_default().backup
    };
    let unit = units.iter().find(keeps)?;
    let service = draft.world.service(unit.name())?;
    let asked = std::mem::replace(&mut draft.service, service);
    let found = draft.data();
    draft.service = asked;
    (found.data != Data::None).then(|| (unit.name(), what(&found)))
}

fn held(scope: Option<&Scope>, names: &[&str]) -> String {
    let held = scope.cloned().unwrap_or_default().held(names.iter().copied());
    list(&held)
}

/// What runs now, what then, and how tasks are replaced.
fn replaces(draft: &mut Draft<'_>, units: &[Unit<'_>], words: &Words) {
    let now = |unit: &Unit<'_>| spec::image(&unit.service.spec).to_owned();
    let named = |unit: &Unit<'_>, image: &str| match words.several {
        true => format!("{}: {image}", unit.name()),
        false => image.to_owned(),
    };
    draft.fact("Now", units.iter().map(|unit| named(unit, &now(unit))).collect());
    let is_one = units.iter().all(|unit| units.first().is_some_and(|first| first.image == unit.image));
    let then: Vec<String> = match is_one {
        true => units.first().map(|unit| unit.image.to_owned()).into_iter().collect(),
        false => units.iter().map(|unit| named(unit, unit.image)).collect(),
    };
    draft.fact("Then", then);
    let replaced = |unit: &Unit<'_>| match unit.order {
        Order::StartFirst => format!("{}, each new task up before the old one stops", unit.name()),
        Order::StopFirst => format!("{}, each old task stopped before the new one starts", unit.name()),
    };
    draft.fact("Replaces", units.iter().map(replaced).collect());
}

/// What is looked at; answers how many checks there are.
fn red_flags(draft: &mut Draft<'_>, units: &[Unit<'_>], monitor: Duration, words: &Words) -> usize {
    let mut checks = Vec::new();
    for unit in units {
        let of = |check: String| match words.several {
            true => format!("{check} of {}", unit.name()),
            false => check,
        };
        checks.extend(named(&unit.policy.checks).into_iter().map(of));
    }
    let count = checks.len();
    draft.fact("Checks", checks);
    draft.fact(
        "Red flags",
        vec![
            format!(
                "within {}: a task that is not healthy, a replica that is killed twice or ends three times",
                duration::show(monitor)
            ),
            "what the Swarm says of its own update: paused, or taken back".to_owned(),
        ],
    );
    for unit in units {
        let flags = unit.policy.update.clone().unwrap_or_default().red_flags;
        let whose = match words.several {
            true => format!("a new task of {}", unit.name()),
            false => "a new task".to_owned(),
        };
        if let Some(log) = &flags.log {
            draft.fact("", vec![format!("a line in the log of {whose} that matches `{log}`")]);
        }
        if let Some(query) = &flags.query {
            draft.fact("", vec![format!("what Prometheus returns, unless it does so before: `{query}`")]);
        }
    }
    if count > 0 {
        draft.fact("", vec!["a check that fails, at the beginning and four times meanwhile".to_owned()]);
    }
    if words.several {
        draft.fact("", vec!["that of one service takes all of them back".to_owned()]);
    }
    count
}

fn written(units: &[Unit<'_>], words: &Words) -> String {
    let Some(first) = units.first() else { return String::new() };
    if !words.several {
        return format!("write {} over it; wait until every task runs it", first.image);
    }
    let one = |unit: &Unit<'_>| format!("{} over {}", unit.image, unit.name());
    let each: Vec<String> = units.iter().map(one).collect();
    format!("write {}, each once every task of the one before runs its image", each.join(", then "))
}

fn users(units: &[Unit<'_>]) -> String {
    let gaps = units.iter().filter(|unit| unit.order == Order::StopFirst).map(Unit::name);
    let gaps: Vec<&str> = gaps.collect();
    match gaps.as_slice() {
        [] => "nothing: each new task is up before the old one stops".to_owned(),
        gaps => format!("no answer from {} while a task is replaced", list(gaps)),
    }
}

/// What a red flag costs.
fn goes_back(draft: &mut Draft<'_>, scope: &Scope) {
    let data = list(&scope.data);
    let stopping: Vec<String> = scope
        .clients
        .iter()
        .filter_map(|name| draft.stopping(name).map(|client| format!("{name} {}", client.how())))
        .collect();
    draft.fact("Goes back", vec![format!("on a red flag, with the image: the data of {data}")]);
    draft.fact("Meanwhile", stopping);
    draft.mind(format!(
        "on a red flag, or when it is cancelled, whatever users have written to {data} since the backup is taken out of the live data; it is kept, and a rollback to what was there takes it forth again"
    ));
    for name in &scope.data {
        draft.queue(name);
    }
}

fn minds(
    draft: &mut Draft<'_>,
    units: &[Unit<'_>],
    backed_up: &BTreeSet<&str>,
    stays: &[(&str, String)],
    words: &Words,
) {
    for (name, why) in stays {
        draft.mind(format!("on a red flag {name} does not go back by itself: {why}"));
    }
    if words.several {
        draft.mind(
            "they get their images one after the other, so that old and new ones run side by side for a while",
        );
    }
    let tags: BTreeSet<&str> = units.iter().map(|unit| unit.image).filter(|i| !i.contains('@')).collect();
    for image in tags {
        draft.mind(format!(
            "`{image}` is a tag, which each node looks up by itself: what it means may change while tasks come and go; a \
             digest (`{image}@sha256:…`) does not"
        ));
    }
    for unit in units {
        of_one(draft, unit, backed_up.contains(unit.name()));
    }
}

fn of_one(draft: &mut Draft<'_>, unit: &Unit<'_>, is_backed_up: bool) {
    let (name, service) = (unit.name(), unit.service);
    if !has_health_check(&service.spec) {
        draft.mind(format!(
            "{name} has no health check in its spec: unless its image has one, it counts as up as soon as it runs"
        ));
    }
    if unit.policy.data.is_some() && !is_backed_up {
        draft.mind(format!("the data of {name} is not backed up before (skep.update.backup)"));
    }
    match service.update.as_ref().map(|u| u.state) {
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => {
            draft.mind(format!("an update of {name} is paused: this one fails over it without `--force`"));
        }
        Some(UpdateState::Updating | UpdateState::RollbackStarted) => {
            draft.mind(format!("a rollout of {name} is under way; it gets a while to end"));
        }
        Some(UpdateState::Completed | UpdateState::RollbackCompleted) | None => {}
    }
    if let Some(volume) = untied(service) {
        let which = [format!("{name} (`{volume}`)")];
        draft.plan.unknown.push(format!(
            "whether there is a second node, on which {} would come up without files: then it is refused",
            list(&which)
        ));
    }
}
