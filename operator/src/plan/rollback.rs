//! What putting a stack back to a restore point would do.

use jiff::Timestamp;

use super::explain::{Draft, Plan};
use super::words::ago;
use super::world::World;
use crate::operation::point::users_of;
use crate::operation::record::Work;
use crate::operation::restore::Way;
use crate::operation::rollback::{Change, Now, Why, decide};

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
    let left = decision.left.iter().map(|(name, why)| format!("{name}, which {why}"));
    draft.fact("Leaves", left.collect());
    if decision.changes.is_empty() && decision.refused.is_empty() {
        draft.mind("nothing differs from the point: nothing would be changed");
    }
    let not_then = decision.left.iter().filter(|(_, why)| *why == Why::NotThen);
    for (name, _) in not_then {
        draft.mind(format!("{name} came after the point: it stays, and runs beside what goes back"));
    }
    draft.plan.refused.extend(decision.refused);
    draft.plan.mind.extend(decision.mind);
    draft.plan.unknown =
        vec!["whether every image can still be had, and whether what goes back comes up".to_owned()];
    "each service that changes is updated as its own update settings say, one service after the other; data stays as it is"
        .clone_into(&mut draft.plan.users);
    steps(&mut draft, work, stack);
    draft.plan.mind.dedup();
    draft.plan
}

/// A service and in what it changes, a line each.
fn lines(change: &Change) -> Vec<String> {
    change.differences.iter().map(|d| format!("{}: {d}", change.name)).collect()
}

fn steps(draft: &mut Draft<'_>, work: &Work, stack: &str) {
    draft.steps(work, Way::Beside, |step| match step {
        "claim" => (format!("hold every service of {stack}"), "given back"),
        "plan" => ("compare what is there with the point; freeze what changes".to_owned(), "forgotten"),
        "safety" => ("take a restore point of what is there now, without data".to_owned(), "removed"),
        "configs" => ("make configs again that were removed".to_owned(), "removed"),
        "apply" => (
            "write each spec under the version that was read, in the order of starting, each service up before the next".to_owned(),
            "the specs that were found are put back, but never over what somebody deployed meanwhile",
        ),
        "check" => ("run the checks of the services that changed".to_owned(), "jobs ended"),
        "release" => (format!("give every service of {stack} back"), ""),
        other => (other.to_owned(), ""),
    });
}
