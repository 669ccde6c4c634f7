//! What giving a service another image would do.

use std::collections::BTreeSet;
use std::time::Duration;

use super::explain::{Draft, what};
use super::restart::{asks, before};
use super::words::list;
use crate::engines::Data;
use crate::operation::canary::net_checks;
use crate::operation::record::Work;
use crate::operation::restart::{Order, order, untied};
use crate::operation::restore::Way;
use crate::operation::update::{refusals, stays};
use crate::policy::duration;
use crate::swarm::object::UpdateState;
use crate::swarm::spec::{self, has_health_check};

pub(super) fn update(draft: &mut Draft<'_>, work: &Work) {
    let Work::Update { image, monitor_s, force, .. } = work else { return };
    let (name, service, policy) = (draft.service.name().to_owned(), draft.service, draft.policy());
    draft.labels(&name, false);
    let asleep: BTreeSet<String> = draft.world.sleepers.iter().map(|s| s.service_id.clone()).collect();
    let operations = &draft.world.operations;
    let refused = refusals(service, Some(&policy), &asleep, operations, image, *force);
    draft.plan.refused.extend(refused);
    // That it has not opted in is said of whatever is asked for.
    draft.plan.refused.dedup();
    let labels = policy.update.clone().unwrap_or_default();
    let monitor = monitor_s.map_or(labels.monitor, Duration::from_secs);
    let stays = stays(service, Some(&policy), &labels, operations);
    let data = (labels.backup && policy.data.is_some()).then(|| draft.data());
    let data = data.filter(|found| found.data != Data::None);

    draft.fact("Now", vec![spec::image(&service.spec).to_owned()]);
    draft.fact("Then", vec![image.clone()]);
    let order = order(service, Some(&policy));
    draft.fact(
        "Replaces",
        vec![match order {
            Order::StartFirst => format!("{name}, each new task up before the old one stops"),
            Order::StopFirst => format!("{name}, each old task stopped before the new one starts"),
        }],
    );
    let asked = before(draft, work, &[&name]);
    let checks = net_checks(&policy.checks);
    draft.fact("Checks", checks.iter().map(|c| c.name.clone()).collect());
    let monitor = duration::show(monitor);
    draft.fact(
        "Red flags",
        vec![
            format!("within {monitor}: a task that is not healthy, a replica that is killed twice or ends three times"),
            "what the Swarm says of its own update: paused, or taken back".to_owned(),
        ],
    );
    if let Some(log) = &labels.red_flags.log {
        draft.fact("", vec![format!("a line in the log of a new task that matches `{log}`")]);
    }
    if let Some(query) = &labels.red_flags.query {
        draft.fact("", vec![format!("what Prometheus returns, unless it does so before: `{query}`")]);
    }
    if !checks.is_empty() {
        draft.fact("", vec!["a check that fails, at the beginning and four times meanwhile".to_owned()]);
    }
    minds(draft, image, data.is_some(), stays.as_deref());
    match order {
        Order::StartFirst => "nothing: each new task is up before the old one stops".to_owned(),
        Order::StopFirst => format!("no answer from {name} while a task is replaced"),
    }
    .clone_into(&mut draft.plan.users);
    let back =
        if stays.is_none() { "the exact spec is put back" } else { "put back only if no task of it has run" };
    let data = data.as_ref().map(what);
    draft.steps(work, Way::Beside, |step| match step {
        "claim" => (format!("hold {name}"), "given back"),
        "preflight" if asked == 0 => ("ask nothing before".to_owned(), ""),
        "preflight" => (asks(asked), "jobs ended"),
        "plan" => ("save the exact spec".to_owned(), "forgotten"),
        "backup" => match &data {
            Some(data) => (format!("back {data} up, and read it back in full"), "it stays once it is whole"),
            None => ("back nothing up".to_owned(), ""),
        },
        "apply" => (format!("write {image} over it; wait until every task runs it"), back),
        "check" if checks.is_empty() => ("check nothing".to_owned(), ""),
        "check" => ("run its checks".to_owned(), "jobs ended"),
        "watch" => (format!("watch it for {monitor}"), "jobs ended"),
        "release" => (format!("give {name} back"), ""),
        other => (other.to_owned(), ""),
    });
}

fn minds(draft: &mut Draft<'_>, image: &str, has_data: bool, stays: Option<&str>) {
    let (name, service, policy) = (draft.service.name().to_owned(), draft.service, draft.policy());
    if let Some(why) = stays {
        draft.mind(format!("on a red flag {name} does not go back by itself: {why}"));
    }
    if !image.contains('@') {
        draft.mind(format!(
            "`{image}` is a tag, which each node looks up by itself: what it means may change while tasks come and go; a \
             digest (`{image}@sha256:…`) does not"
        ));
    }
    if !has_health_check(&service.spec) {
        draft.mind(format!(
            "{name} has no health check in its spec: unless its image has one, it counts as up as soon as it runs"
        ));
    }
    if policy.data.is_some() && !has_data {
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
