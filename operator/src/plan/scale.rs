//! What putting a service to sleep would do, and what waking it would.

use skep_waker::task::Mode;

use super::explain::{Draft, Stopping, becomes_a_waker, has_health_check};
use super::words::list;
use crate::operation::client_spec::is_asleep;
use crate::operation::frozen::Method;
use crate::operation::record::{Above, Work};
use crate::operation::restore::Way;
use crate::operation::sleep;
use crate::policy::{Scale, WakeOnDemand};
use crate::swarm::object::Service;
use crate::swarm::spec::host_ports;

/// Plans a sleep.
pub(super) fn sleep(draft: &mut Draft<'_>, wanted: Above) {
    let name = draft.service.name().to_owned();
    draft.labels(&name, false);
    let direct = draft.policies.graph().dependents_of(&name);
    let order = draft.policies.graph().stop_order(direct.iter().map(String::as_str));
    let mut above = awake(draft, &order);
    let keeps = kept(draft, &name);
    if is_asleep(&draft.service.spec) {
        draft.refuse(format!("{name} is at zero already"));
    } else if let Some(replicas) = draft.service.replicas().filter(|n| *n <= keeps) {
        draft.refuse(sleep::nothing_to_scale(&name, replicas, keeps));
    }
    if let Some(busy) =
        above.iter().find(|above| keeps == 0 && wanted == Above::Along && kept(draft, above) > 0)
    {
        draft.refuse(sleep::keeps_it_up(&name, busy, kept(draft, busy)));
    }
    above.retain(|above| {
        draft.world.service(above).and_then(Service::replicas).is_none_or(|n| n > kept(draft, above))
    });
    match wanted {
        _ if above.is_empty() => {}
        // What keeps replicas is there for whatever needs it.
        Above::Refuse | Above::Alone if keeps > 0 => above.clear(),
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
    let how = |name: &String| {
        let service = draft.world.service(name)?;
        let how = match (kept(draft, name), wake_of(draft, name)) {
            (0, Some(wake)) if wake.door.is_none() => becomes_a_waker(&wake.ports, is_stop_first(service)),
            (0, _) => Stopping { service, method: Method::Zero }.how(),
            (left, _) => Stopping { service, method: Method::Fewer { left } }.how(),
        };
        Some(format!("{name} {how}"))
    };
    let lines: Vec<String> = match draft.plan.refused.is_empty() {
        true => stopping.iter().filter_map(how).collect(),
        false => Vec::new(),
    };
    draft.fact("Stops", lines);
    let wake = wake_of(draft, &name);
    let comes_back = |s: &Scale| !s.up.is_empty() || (s.min > 0 && s.idle.is_some());
    if wake.is_none() && !draft.policy().scale.as_ref().is_some_and(comes_back) {
        draft.mind(format!("nothing wakes {name} by itself: `skep scale up {name}` does"));
    }
    for service in &stopping {
        minds_of_a_waker(draft, service);
    }
    if let Some(door) = wake.as_ref().and_then(|wake| wake.door.as_ref())
        && draft.world.door(draft.service, true) != Some(true)
    {
        draft.refuse(format!("the door `{door}` of {name} does not stand: nobody could wake it"));
    }
    let holds = wake.as_ref().is_some_and(|w| w.mode == Mode::Hold && !is_stop_first(draft.service));
    match (wake.is_some(), holds) {
        (false, _) if keeps > 0 => format!("{name} as before, with fewer replicas behind it"),
        (false, _) => format!("no answer from {name} until it is woken"),
        (true, true) => format!("whoever asks for {name} wakes it, and waits until it is up"),
        (true, false) => format!("whoever asks for {name} wakes it, and gets a page until it is up"),
    }
    .clone_into(&mut draft.plan.users);
    draft.steps(&Work::Sleep { above: wanted }, Way::Beside, |step| match step {
        "claim" => (format!("hold {name}"), "given back"),
        "plan" => ("decide what stops, and in which order".to_owned(), "forgotten"),
        "stop" if keeps > 0 => (
            "save the exact specs; scale down, and wait until the other tasks have ended".to_owned(),
            "the exact specs are put back",
        ),
        "stop" => (
            "save the exact specs; scale to zero, or put the waker in its place, and wait until every task has ended"
                .to_owned(),
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
            let found = draft.world.service(service)?;
            let sleeper =
                draft.world.sleepers.iter().find(|s| s.service_id == found.id && s.is_down(&found.spec))?;
            Some(match sleeper.replicas {
                Some(1) => format!("{service} goes back to 1 replica"),
                Some(n) => format!("{service} goes back to {n} replicas"),
                None => format!("{service} goes back to every node that fits"),
            })
        })
        .collect();
    if !draft.world.sleepers.iter().any(|s| s.service_id == draft.service.id) {
        let why =
            if is_asleep(&draft.service.spec) { "; whoever scaled it to zero was not Skep" } else { "" };
        draft.refuse(format!("{name} does not sleep{why}"));
    }
    draft.fact("Wakes", lines);
    draft.plan.users = match is_asleep(&draft.service.spec) {
        true => "the application again, once it is up".to_owned(),
        false => format!("{name} as before, with all replicas behind it once they are up"),
    };
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

/// As how many replicas a service goes on instead of sleeping.
fn kept(draft: &Draft<'_>, name: &str) -> u64 {
    draft.policies.get(name).and_then(|parsed| parsed.policy.scale.as_ref()).map_or(0, |scale| scale.min)
}

/// How a service of the plan is woken by whoever asks for it.
fn wake_of(draft: &Draft<'_>, name: &str) -> Option<WakeOnDemand> {
    draft.policies.get(name)?.policy.scale.as_ref()?.wake.clone()
}

fn is_stop_first(service: &Service) -> bool {
    !host_ports(&service.spec).is_empty()
}

/// What is to be known about a waker.
fn minds_of_a_waker(draft: &mut Draft<'_>, name: &str) {
    let Some(service) = draft.world.service(name) else { return };
    let Some(wake) = wake_of(draft, name) else { return };
    if let Some(door) = &wake.door {
        draft.mind(format!(
            "{name} has a door: whoever asks for it by another name than `{door}` is not seen, and wakes nobody"
        ));
    }
    if is_stop_first(service) {
        draft.mind(format!(
            "{name} publishes a host-mode port, which only one of the two can have: requests get the page and none is held, \
             and about 1 s of connections is refused each way"
        ));
    }
    if !has_health_check(service) {
        draft.mind(format!(
            "{name} has no health check in its spec: unless its image has one, the first requests after it has woken may fail"
        ));
    }
    if let Some(page) = wake.page.as_ref().filter(|p| !draft.world.pages.contains(*p)) {
        draft.mind(format!("{name}: there is no config `{page}` for its page; Skep's own is shown"));
    }
}

/// Those of these services that are not at zero.
fn awake(draft: &Draft<'_>, names: &[String]) -> Vec<String> {
    let is_up = |s: &&Service| !is_asleep(&s.spec);
    let found = names.iter().filter_map(|n| draft.world.service(n)).filter(is_up);
    found.map(|s| s.name().to_owned()).collect()
}
