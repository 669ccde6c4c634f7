//! What restarting a service or a stack would do.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::explain::{Draft, Plan};
use super::words::list;
use super::world::World;
use crate::operation::checks::named;
use crate::operation::point::users_of;
use crate::operation::record::Work;
use crate::operation::restart::{Decision, Order, Wanted, decide, untied};
use crate::operation::restore::Way;
use crate::policy::duration;
use crate::swarm::object::Service;
use crate::swarm::spec::has_health_check;

pub(super) fn restart(world: &World, name: &str, work: &Work, now: Timestamp) -> Plan {
    let plan = Plan { kind: work.kind(), service: name.to_owned(), ..Plan::default() };
    let Work::Restart { whole, manner, flush, .. } = work else { return plan };
    let found = match whole {
        true => users_of(&world.services, name).first().copied(),
        false => world.service(name),
    };
    let Some(found) = found else {
        let what = if *whole { "stack" } else { "service" };
        return Plan { refused: vec![format!("there is no {what} `{name}`")], ..plan };
    };
    let mut draft = Draft::of(world, found, now, plan);
    let asleep: BTreeSet<String> = world.sleepers.iter().map(|s| s.service_id.clone()).collect();
    let wanted = Wanted { name, whole: *whole, manner: *manner, flush };
    let decision = decide(&world.services, &draft.policies, &asleep, wanted);
    draft.plan.refused.extend(decision.refused.clone());
    for name in decision.touched() {
        draft.queue(name);
        draft.labels(name, false);
    }
    facts(&mut draft, &decision);
    let touched: Vec<&str> = decision.touched().into_iter().collect();
    let asked = before(&mut draft, work, &touched);
    minds(&mut draft, &decision);
    draft.plan.users = users(&decision);
    steps(&mut draft, work, &decision, asked);
    draft.plan.mind.dedup();
    draft.plan
}

/// What is asked before anything of these services is touched; how many checks that is.
pub(super) fn before(draft: &mut Draft<'_>, work: &Work, names: &[&str]) -> usize {
    let checks = |name: &&str| {
        let checks = draft.policy_of(name).map(|p| p.before.clone()).unwrap_or_default();
        checks.into_iter().map(|check| format!("{} of {name}", check.name)).collect::<Vec<_>>()
    };
    let asked: Vec<String> = names.iter().flat_map(checks).collect();
    let (force, wait_s) = match work {
        Work::Restart { force, wait_s, .. } | Work::Update { force, wait_s, .. } => (*force, *wait_s),
        _ => (false, None),
    };
    if force && !asked.is_empty() {
        draft.mind(format!("not asked before: check {}", asked.join(", ")));
        return 0;
    }
    let count = asked.len();
    let then = match wait_s.map(Duration::from_secs) {
        Some(wait) => format!("what does not pass is waited for, {} at the most", duration::show(wait)),
        None => "what does not pass refuses (`--wait` waits, `--force` does not ask)".to_owned(),
    };
    draft.fact("Asks before", asked);
    if count > 0 {
        draft.fact("", vec![then]);
    }
    count
}

/// What the step does that asks them.
pub(super) fn asks(checks: usize) -> String {
    match checks {
        1 => "ask the check that is asked before".to_owned(),
        checks => format!("ask the {checks} checks that are asked before"),
    }
}

fn facts(draft: &mut Draft<'_>, decision: &Decision) {
    let mut stopping = Vec::new();
    for name in &decision.stop {
        stopping.extend(draft.stopping(name).map(|s| format!("{name} {}", s.how())));
    }
    draft.fact("Stops", stopping);
    let replaced = decision.roll.iter().map(|(name, order)| match order {
        Order::StartFirst => format!("{name}, each new task up before the old one stops"),
        Order::StopFirst => format!("{name}, each old task stopped before the new one starts"),
    });
    draft.fact("Replaces", replaced.collect());
    let starting = decision.stop.iter().rev().chain(decision.roll.iter().map(|(name, _)| name));
    let checks = starting.flat_map(|name| {
        let checks = draft.policy_of(name).map(|policy| named(&policy.checks)).unwrap_or_default();
        checks.into_iter().map(move |check| format!("{check} of {name}"))
    });
    let checks = checks.collect();
    draft.fact("Checks", checks);
    draft.fact("Empties", decision.flush.clone());
    draft.fact("Leaves", decision.left.iter().map(|(name, why)| format!("{name}, which {why}")).collect());
}

fn minds(draft: &mut Draft<'_>, decision: &Decision) {
    let services = decision.touched().into_iter().filter_map(|name| draft.world.service(name));
    let services: Vec<&Service> = services.collect();
    for service in &services {
        let is_replaced = decision.roll.iter().any(|(name, _)| name == service.name());
        if is_replaced && service.is_rolling() {
            draft.mind(format!("a rollout of {} is under way; it gets a while to end", service.name()));
        }
        if !has_health_check(&service.spec) && !decision.flush.iter().any(|cache| cache == service.name()) {
            draft.mind(format!(
                "{} has no health check in its spec: unless its image has one, it counts as up as soon as it runs",
                service.name()
            ));
        }
    }
    let may_move = services.iter().filter_map(|s| Some(format!("{} (`{}`)", s.name(), untied(s)?)));
    let may_move: Vec<String> = may_move.collect();
    if !may_move.is_empty() {
        draft.plan.unknown.push(format!(
            "whether there is a second node, on which {} would come up without files: then it is refused",
            list(&may_move)
        ));
    }
}

fn users(decision: &Decision) -> String {
    let gaps: Vec<&str> = decision
        .roll
        .iter()
        .filter_map(|(name, order)| (*order == Order::StopFirst).then_some(name.as_str()))
        .collect();
    match (decision.stop.as_slice(), gaps.as_slice()) {
        ([], []) => "nothing: each new task is up before the old one stops".to_owned(),
        ([], gaps) => format!("no answer from {} while a task is replaced", list(gaps)),
        ([one], _) => {
            format!("{one} does not answer, or shows its maintenance page, until it is up again")
        }
        (stop, _) => format!(
            "{} do not answer, or show their maintenance page, from `stop` until each is up again",
            list(stop)
        ),
    }
}

fn steps(draft: &mut Draft<'_>, work: &Work, decision: &Decision, asked: usize) {
    let starting: Vec<&str> = decision.stop.iter().rev().map(String::as_str).collect();
    let rolling: Vec<&str> = decision.roll.iter().map(|(name, _)| name.as_str()).collect();
    let caches = list(&decision.flush);
    draft.steps(work, Way::Beside, |step| match step {
        "claim" => ("hold every service that is touched".to_owned(), "given back"),
        "preflight" if asked == 0 => ("ask nothing before".to_owned(), ""),
        "preflight" => (asks(asked), "jobs ended"),
        "plan" => ("decide what stops, how, and in which order".to_owned(), "forgotten"),
        "stop" if starting.is_empty() => ("stop nothing".to_owned(), ""),
        "stop" => (
            format!("stop {}, each once the one before it has stopped", list(&decision.stop)),
            "the exact specs are put back",
        ),
        "start" if starting.is_empty() => ("start nothing".to_owned(), ""),
        "start" if caches.is_empty() => {
            (format!("start {}, each up and checked before the next", list(&starting)), "all are started")
        }
        "start" => (
            format!("empty {caches}; start {}, each up and checked before the next", list(&starting)),
            "all are started",
        ),
        "roll" if rolling.is_empty() => ("replace nothing as it runs".to_owned(), ""),
        "roll" => (
            format!("replace the tasks of {}, one service after the other", list(&rolling)),
            "the exact spec of the one that failed is put back",
        ),
        "release" => ("give the services back".to_owned(), ""),
        other => (other.to_owned(), ""),
    });
}
