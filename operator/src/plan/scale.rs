//! What putting a service to sleep would do, and what waking it would.

use super::explain::Draft;
use super::words::list;
use crate::operation::client_spec::is_zero;
use crate::operation::record::{Above, Work};
use crate::operation::restore::Way;
use crate::swarm::object::Service;

/// Plans a sleep.
pub(super) fn sleep(draft: &mut Draft<'_>, wanted: Above) {
    let name = draft.service.name().to_owned();
    draft.labels(&name, false);
    let direct = draft.policies.graph().dependents_of(&name);
    let order = draft.policies.graph().stop_order(direct.iter().map(String::as_str));
    let mut above = awake(draft, &order);
    if is_zero(&draft.service.spec) {
        draft.refuse(format!("{name} is at zero already"));
    }
    match wanted {
        _ if above.is_empty() => {}
        Above::Along => {}
        Above::Alone => {
            draft.mind(format!("{} stay awake and will not find {name}", list(&above)));
            above.clear();
        }
        Above::Refuse => draft.refuse(format!(
            "{name} is needed by what is awake: {}; `--with-dependents` puts that to sleep as well, `--alone` leaves it \
             awake",
            above.join(", ")
        )),
    }
    for service in &above {
        draft.queue(service);
    }
    let mut stopping = above;
    stopping.push(name.clone());
    let how = |name: &String| Some(format!("{name} {}", draft.running_on(name)?.how()));
    let lines: Vec<String> = match draft.plan.refused.is_empty() {
        true => stopping.iter().filter_map(how).collect(),
        false => Vec::new(),
    };
    draft.fact("Stops", lines);
    if draft.policy().scale.is_none_or(|s| s.up.is_empty()) {
        draft.mind(format!("nothing wakes {name} by itself: `skep scale up {name}` does"));
    }
    format!("no answer from {name} until it is woken").clone_into(&mut draft.plan.users);
    draft.steps(&Work::Sleep { above: wanted }, Way::Beside, |step| match step {
        "claim" => (format!("hold {name}"), "given back"),
        "plan" => ("decide what stops, and in which order".to_owned(), "forgotten"),
        "stop" => (
            "save the exact specs; scale to zero and wait until every task has ended".to_owned(),
            "the exact specs are put back",
        ),
        "remember" => ("write down what they go back to".to_owned(), "forgotten"),
        "release" => (format!("give {name} back"), ""),
        other => (other.to_owned(), ""),
    });
}

/// Plans a wake.
pub(super) fn wake(draft: &mut Draft<'_>) {
    let name = draft.service.name().to_owned();
    draft.labels(&name, false);
    let mut waking = vec![name.clone()];
    waking.extend(draft.policies.graph().all_dependencies_of(&name));
    waking.reverse();
    for service in waking.iter().filter(|s| **s != name) {
        draft.queue(service);
    }
    let lines: Vec<String> = waking
        .iter()
        .filter_map(|service| {
            let found = draft.world.service(service).filter(|s| is_zero(&s.spec))?;
            let sleeper = draft.world.sleepers.iter().find(|s| s.service_id == found.id)?;
            Some(match sleeper.replicas {
                Some(1) => format!("{service} goes back to 1 replica"),
                Some(n) => format!("{service} goes back to {n} replicas"),
                None => format!("{service} goes back to every node that fits"),
            })
        })
        .collect();
    if !draft.world.sleepers.iter().any(|s| s.service_id == draft.service.id) {
        let why = if is_zero(&draft.service.spec) { "; whoever scaled it to zero was not Skep" } else { "" };
        draft.refuse(format!("{name} does not sleep{why}"));
    }
    draft.fact("Wakes", lines);
    "the application again, once it is up".clone_into(&mut draft.plan.users);
    draft.steps(&Work::Wake, Way::Beside, |step| match step {
        "claim" => (format!("hold {name} and what it needs"), "given back"),
        "plan" => ("decide what wakes, and in which order".to_owned(), "forgotten"),
        "recall" => ("look up what they go back to".to_owned(), ""),
        "start" => (
            "put the exact specs back, or what was deployed meanwhile; each is up before the next".to_owned(),
            "",
        ),
        "forget" => ("note that they are awake".to_owned(), ""),
        "settle" => ("see that everything is up".to_owned(), ""),
        "release" => (format!("give {name} back"), ""),
        other => (other.to_owned(), ""),
    });
}

/// Those of these services that are not at zero.
fn awake(draft: &Draft<'_>, names: &[String]) -> Vec<String> {
    let is_up = |s: &&Service| !is_zero(&s.spec);
    let found = names.iter().filter_map(|n| draft.world.service(n)).filter(is_up);
    found.map(|s| s.name().to_owned()).collect()
}
