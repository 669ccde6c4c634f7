//! Drives operations: one key an operation, and the feeding of keys from each new world.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Parts;
use super::keeper::Chore;
use crate::notify::topic::Topic;
use crate::operation::claim;
use crate::operation::drive::{self, Again};
use crate::operation::record::{OpId, Operation, SERVICE};
use crate::operation::saga::Env;
use crate::operation::sleeper::Sleeper;
use crate::runtime::{Action, Queue, Reconcile, clock};
use crate::swarm::error::Error;
use crate::swarm::object::Config;
use crate::swarm::world::World;
use crate::triggers::guard::History;

/// Polls operations.
pub(super) struct Driver {
    pub(super) env: Env,
}

impl Reconcile for Driver {
    type Key = OpId;
    type Error = Error;

    async fn reconcile(&self, key: &OpId) -> Result<Action, Error> {
        Ok(match drive::poll(&self.env, key).await? {
            Again::Idle => Action::Idle,
            Again::After(pause) => Action::After(pause),
        })
    }
}

/// Adds keys for everything that a new world shows to be live, until told to stop. While an operation is live the world is
/// read often, so that those who look at it see it move.
pub(super) async fn feed(
    parts: &Arc<Parts>,
    operations: Arc<Queue<OpId>>,
    mail: Arc<Queue<Topic>>,
    keeper: Arc<Queue<Chore>>,
    stop: CancellationToken,
) {
    let mut snapshots = parts.snapshots.clone();
    let mut asked = parts.asked.subscribe();
    let mut heat = None;
    Chore::ALL.into_iter().for_each(|chore| keeper.add(chore));
    mail.add(Topic::Weekly);
    let mut world = tokio::select! {
        world = snapshots.ready() => world,
        () = stop.cancelled() => None,
    };
    while let Some(current) = world {
        let known: Vec<Operation> =
            current.operations.iter().filter_map(|c| Operation::read(c).ok()).collect();
        let live: Vec<&Operation> = known.iter().filter(|op| !op.journal.state.is_terminal()).collect();
        live.iter().for_each(|op| operations.add(op.id.clone()));
        known.iter().for_each(|op| mail.add(Topic::Operation(op.id.clone())));
        if was_brought_back(&current, &live) {
            keeper.add(Chore::Due);
        }
        let untold = untold(&current.guards);
        untold.iter().for_each(|service| mail.add(Topic::Alerts(service.clone())));
        if let Some(outbox) = &parts.outbox {
            outbox.retain(|topic| match topic {
                Topic::Operation(id) => known.iter().any(|op| op.id == *id),
                Topic::Alerts(service) => untold.contains(service),
                Topic::Weekly => true,
            });
        }
        let moving = live.iter().any(|op| op.journal.state.is_live());
        heat = moving.then(|| heat.unwrap_or_else(|| snapshots.heat()));
        world = loop {
            tokio::select! {
                // What is missed is in the next world.
                Ok(id) = asked.recv() => operations.add(id),
                world = snapshots.changed() => break world,
                () = stop.cancelled() => break None,
            }
        };
    }
    // Whoever leads next tells what is still to be told.
    if let Some(outbox) = &parts.outbox {
        outbox.retain(|_| false);
    }
}

/// Whether somebody has brought a sleeper back, and nothing sees to it yet.
fn was_brought_back(world: &World, live: &[&Operation]) -> bool {
    world.sleepers.iter().filter_map(Sleeper::read).any(|sleeper| {
        let is_up = world.services.get(&sleeper.service_id).is_some_and(|s| !sleeper.is_down(&s.spec));
        is_up && !live.iter().any(|op| claim::concerns(op, &sleeper.service))
    })
}

/// Services with something about their alerts that people are still to be told.
fn untold(guards: &[Config]) -> Vec<String> {
    let now = clock::now();
    let waits = |config: &&Config| match History::read(config) {
        Ok(history) => history.due_notices(now).next().is_some(),
        // That it cannot be read is itself to be told.
        Err(_) => true,
    };
    guards.iter().filter(waits).filter_map(|config| config.labels.get(SERVICE).cloned()).collect()
}
