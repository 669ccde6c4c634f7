//! What giving a service another image would do.

use std::collections::BTreeSet;
use std::time::Duration;

use super::explain::{Draft, what};
use super::restart::{asks, before};
use super::words::list;
use crate::engines::Data;
use crate::operation::checks::named;
use crate::operation::record::Work;
use crate::operation::restart::{Order, order, untied};
use crate::operation::restore::Way;
use crate::operation::update::{Scope, refusals, scope, stays};
use crate::policy::{GoBack, Update as Labels, duration};
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
    let scope = full(draft, &labels, image);
    let own = labels.backup && policy.data.is_some() && labels.rollback != Some(GoBack::Full);
    let data = own.then(|| draft.data());
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
    let checks = named(&policy.checks);
    draft.fact("Checks", checks.clone());
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
    if let Some(scope) = &scope {
        goes_back(draft, scope);
    }
    minds(draft, image, data.is_some() || scope.is_some(), stays.as_deref());
    match order {
        Order::StartFirst => "nothing: each new task is up before the old one stops".to_owned(),
        Order::StopFirst => format!("no answer from {name} while a task is replaced"),
    }
    .clone_into(&mut draft.plan.users);
    let back = match (&stays, &scope) {
        (Some(_), _) => "put back only if no task of it has run",
        (None, Some(_)) => {
            "a rollback to the restore point, with the data; without, if no task of it has run"
        }
        (None, None) => "the exact spec is put back",
    };
    let held = scope.as_ref().map_or_else(|| vec![name.clone()], |scope| scope.held(&name));
    let held = list(&held);
    let backed_up = scope.as_ref().map(|scope| list(&scope.data));
    let data = data.as_ref().map(what);
    draft.steps(work, Way::Beside, |step| match step {
        "claim" => (format!("hold {held}"), "given back"),
        "preflight" if asked == 0 => ("ask nothing before".to_owned(), ""),
        "preflight" => (asks(asked), "jobs ended"),
        "plan" => ("save the exact spec".to_owned(), "forgotten"),
        "backup" if let Some(data) = &backed_up => (
            format!("take a restore point: the spec of {name}, and the data of {data}, read back in full"),
            "it stays once it is whole",
        ),
        "backup" => match &data {
            Some(data) => (format!("back {data} up, and read it back in full"), "it stays once it is whole"),
            None => ("back nothing up".to_owned(), ""),
        },
        "apply" => (format!("write {image} over it; wait until every task runs it"), back),
        "check" if checks.is_empty() => ("check nothing".to_owned(), ""),
        "check" => ("run its checks".to_owned(), "jobs ended"),
        "watch" => (format!("watch it for {monitor}"), "jobs ended"),
        "release" => (format!("give {held} back"), ""),
        other => (other.to_owned(), ""),
    });
}

/// What goes back besides the image on a red flag, where labels want that.
fn full(draft: &mut Draft<'_>, labels: &Labels, image: &str) -> Option<Scope> {
    if labels.rollback != Some(GoBack::Full) {
        return None;
    }
    let (services, accept) = (&draft.world.services, draft.accept_problems);
    match scope(services, &draft.policies, draft.service, image, accept) {
        Ok(scope) => Some(scope),
        Err(refused) => {
            draft.plan.refused.extend(refused);
            None
        }
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
