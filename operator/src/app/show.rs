//! Makes a view of each new world, for the status page and the metrics.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::http::gather::{Sources, gather};
use crate::http::view::View;
use crate::operation::catalogue::Backup;
use crate::operation::record::Operation;
use crate::operation::sleeper::Sleeper;
use crate::plan;
use crate::policy::Policies;
use crate::runtime::clock;
use crate::swarm::lease::Leadership;
use crate::swarm::world::World;

/// A world older than this means that the engine does not answer.
const STALE: Duration = Duration::from_secs(90);
/// The view is renewed at least this often: times in it are relative.
const EVERY: Duration = Duration::from_secs(15);

/// Publishes a view whenever the world or the leadership changes.
pub(super) async fn publish(
    parts: Arc<Parts>,
    publish: watch::Sender<Option<Arc<View>>>,
    stop: CancellationToken,
) {
    let mut snapshots = parts.snapshots.clone();
    let mut leadership = parts.leadership.clone();
    let Some(mut world) = (tokio::select! {
        world = snapshots.ready() => world,
        () = stop.cancelled() => None,
    }) else {
        return;
    };
    loop {
        let view = Arc::new(view(&parts, &world, &leadership.borrow_and_update()));
        parts.metrics.observe(&view);
        parts.metrics.mailed(&parts.meter.read());
        publish.send_replace(Some(view));
        tokio::select! {
            next = snapshots.changed() => match next {
                Some(next) => world = next,
                None => return,
            },
            _ = leadership.changed() => {}
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn view(parts: &Parts, world: &World, leadership: &Leadership) -> View {
    let services: Vec<_> = world.services.values().cloned().collect();
    let settings = &parts.env.settings;
    let stores: Vec<&str> = settings.stores.keys().map(String::as_str).collect();
    let policies = Policies::of(&services).known_to(&stores, settings.identity.is_some());
    let operations: Vec<_> = world.operations.iter().filter_map(|c| Operation::read(c).ok()).collect();
    let backups: Vec<_> = world.backups.iter().filter_map(Backup::read).collect();
    let sleepers: Vec<_> = world.sleepers.iter().filter_map(Sleeper::read).collect();
    let now = clock::now();
    let old = now.duration_since(world.taken).unsigned_abs() > STALE;
    let leader = match leadership {
        Leadership::Leading { .. } => Some(parts.env.settings.instance.as_str()),
        Leadership::Waiting { holder } => holder.as_deref(),
    };
    gather(&Sources {
        taken: now,
        leads: leadership.is_leading(),
        leader,
        trouble: old.then_some("the engine does not answer; what is shown is what was read last"),
        services: &services,
        policies: &policies,
        tasks: &world.tasks,
        operations: &operations,
        backups: &backups,
        sleepers: &sleepers,
        guards: &world.guards,
        settings: &parts.env.settings,
        steps: plan::step_names,
    })
}
