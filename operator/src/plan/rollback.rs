//! What putting a stack back to a restore point would do.

use jiff::Timestamp;

use super::explain::{Draft, Plan};
use super::words::{ago, list, size};
use super::world::World;
use crate::operation::catalogue::{candidates, unusable};
use crate::operation::point::users_of;
use crate::operation::points::Head;
use crate::operation::record::Work;
use crate::operation::restore::Way;
use crate::operation::rollback::{Change, Decision, Now, Replaced, Why, decide, with_data};
use crate::policy::duration;

pub(super) fn rollback(world: &World, stack: &str, work: &Work, now: Timestamp) -> Plan {
    let plan = Plan { kind: work.kind(), service: stack.to_owned(), ..Plan::default() };
    let Work::Rollback { point, only } = work else { return plan };
    let refused = |why: String| Plan { refused: vec![why], ..plan.clone() };
    let members = users_of(&world.services, stack);
    let Some(first) = members.first().copied() else {
        return refused(format!("there is no stack `{stack}`"));
    };
    let head = world.points.iter().map(|p| &p.head).find(|h| h.id == *point);
    let Some(head) = head else { return refused(format!("there is no restore point `{point}`")) };
    if head.stack != stack {
        return refused(format!("restore point {point} is one of stack {}", head.stack));
    }
    let nothing = Now::default();
    let decision = decide(head, world.there.as_ref().unwrap_or(&nothing), only);
    let mut draft = Draft::of(world, first, now, plan);
    for service in &members {
        draft.queue(service.name());
        if service.is_rolling() {
            draft.mind(format!("a rollout of {} is under way; it gets a moment to end", service.name()));
        }
    }
    draft.fact("Back to", vec![format!("{point}, taken {} ({})", head.taken, ago(head.taken, now))]);
    draft.fact("Changes", decision.changes.iter().flat_map(lines).collect());
    let makes = decision.make.iter().map(|c| format!("config {}, which was removed", c.name));
    draft.fact("Makes again", makes.collect());
    let left = decision.left.iter().map(|(name, why)| format!("{name}, whose spec {why}"));
    draft.fact("Leaves", left.collect());
    data(&mut draft, &decision);
    if decision.changes.is_empty() && decision.data.is_empty() && decision.refused.is_empty() {
        draft.mind("nothing differs from the point: nothing would be changed");
    }
    let not_then = decision.left.iter().filter(|(_, why)| *why == Why::NotThen);
    for (name, _) in not_then {
        draft.mind(format!("{name} came after the point: it stays, and runs beside what goes back"));
    }
    draft.plan.refused.extend(decision.refused.clone());
    draft.plan.mind.extend(decision.mind.clone());
    foreseen(&mut draft, head, &decision, with_data(only));
    steps(&mut draft, work, stack, &decision);
    draft.plan.mind.dedup();
    draft.plan
}

/// A service and in what it changes, a line each.
fn lines(change: &Change) -> Vec<String> {
    change.differences.iter().map(|d| format!("{}: {d}", change.name)).collect()
}

/// The data that goes back, and the services that stop for it.
fn data(draft: &mut Draft<'_>, decision: &Decision) {
    let lines: Vec<String> = decision.data.iter().map(|replaced| backup(draft, replaced)).collect();
    draft.fact("Data", lines);
    let mut stopping = Vec::new();
    for name in &decision.clients {
        draft.labels(name, true);
        stopping.extend(draft.stopping(name).map(|client| format!("{name} {}", client.how())));
    }
    draft.fact("Clients", stopping);
}

fn backup(draft: &mut Draft<'_>, replaced: &Replaced) -> String {
    let Replaced { name, backup: id, engine, .. } = replaced;
    draft.labels(name, true);
    let found = candidates(&draft.world.backups, name, Some(id), draft.now);
    let Some(backup) = found.first().copied() else {
        draft.refuse(format!("the data of {name}: {}", unusable(&draft.world.backups, name, id)));
        return format!("{name}: backup {id}, which cannot be used");
    };
    let (taken, now) = (backup.entry.taken, draft.now);
    let verified =
        backup.verified.map_or("never verified".to_owned(), |v| format!("verified {}", ago(v, now)));
    if let Some(failed) = &backup.drill_failed {
        draft.mind(format!(
            "backup {id} of {name} did not pass its drill {}: {}",
            ago(failed.at, now),
            failed.why
        ));
    }
    let restore = draft.policy_of(name).and_then(|p| p.restore.clone()).unwrap_or_default();
    let kept = match engine.as_str() {
        "command" | "mongodb" | "rabbitmq" => "in its safety backup".to_owned(),
        _ => format!("beside it for {}", duration::show(restore.keep_old)),
    };
    draft.mind(format!(
        "what was written to {name} after {taken} ({}) is not in what comes back; it stays {kept}",
        ago(taken, now)
    ));
    format!("{name} ({engine}): backup {id}, taken {taken}, {}, {verified}", size(backup.entry.size))
}

/// What cannot be known beforehand, and what users see.
fn foreseen(draft: &mut Draft<'_>, head: &Head, decision: &Decision, with_data: bool) {
    let mut unknown =
        vec!["whether every image can still be had, and whether what goes back comes up".to_owned()];
    if with_data {
        unknown.push(
            "whether each backup is whole, and whether there is room for it beside the live data".to_owned(),
        );
    }
    draft.plan.unknown = unknown;
    draft.plan.users = match (with_data, decision.clients.as_slice()) {
        (false, _) => {
            "each service that changes is updated as its own update settings say, one service after the other; data stays as it is"
                .to_owned()
        }
        (true, []) => format!(
            "no service says that it uses the data, so nothing but what holds files stops: whoever uses it sees errors while it \
             becomes that of {}",
            head.taken
        ),
        (true, clients) => format!(
            "from `stop` to `start` {} {} stopped, or {} the maintenance page: as long as all data services take to cut over, and \
             the clients to stop and to start again",
            list(clients),
            if clients.len() == 1 { "is" } else { "are" },
            if clients.len() == 1 { "shows" } else { "show" },
        ),
    };
}

fn steps(draft: &mut Draft<'_>, work: &Work, stack: &str, decision: &Decision) {
    let with_data = !decision.data.is_empty();
    let of_data: Vec<&str> = decision.data.iter().map(|r| r.name.as_str()).collect();
    let clients: Vec<&str> = decision.clients.iter().map(String::as_str).collect();
    let what = list(&of_data);
    let starting: Vec<&str> = clients.iter().rev().copied().collect();
    draft.steps(work, Way::Beside, |step| match step {
        "claim" => (format!("hold every service of {stack}"), "given back"),
        "plan" => ("compare what is there with the point; freeze what changes".to_owned(), "forgotten"),
        "data" => (
            format!(
                "for each of {what}: back up what is live, build the data of the point beside it, run the checks there"
            ),
            "the new data is removed",
        ),
        "safety" if with_data => (
            "take a restore point of what is there now, with the data just backed up".to_owned(),
            "removed; the backups stay",
        ),
        "safety" => ("take a restore point of what is there now, without data".to_owned(), "removed"),
        "configs" => ("make configs again that were removed".to_owned(), "removed"),
        "stop" if clients.is_empty() => ("stop nothing".to_owned(), ""),
        "stop" => (format!("stop {}, dependents first", list(&clients)), "their exact specs are put back"),
        "cut" => (
            format!("cut over {what}; what was live is kept until all of them have"),
            "all of them go back to what was live",
        ),
        "apply" if with_data => (
            "write the spec of each service that runs on, in the order of starting, each up before the next".to_owned(),
            "the specs that were found are put back, but never over what somebody deployed meanwhile",
        ),
        "apply" => (
            "write each spec under the version that was read, in the order of starting, each service up before the next".to_owned(),
            "the specs that were found are put back, but never over what somebody deployed meanwhile",
        ),
        "canary" => ("try one task of a client with checks, out of reach of users, on what goes back".to_owned(), "removed"),
        "start" if clients.is_empty() => ("start nothing".to_owned(), ""),
        "start" => (
            format!("start {} on the specs of the point, each healthy before the next", list(&starting)),
            "",
        ),
        "check" if with_data => ("run the checks of the clients and of the services that changed".to_owned(), ""),
        "check" => ("run the checks of the services that changed".to_owned(), "jobs ended"),
        "release" => (format!("give every service of {stack} back"), ""),
        other => (other.to_owned(), ""),
    });
}
