//! What plans are made from: one reading of the Swarm.

use std::collections::{BTreeMap, BTreeSet};

use crate::operation::catalogue::Backup;
use crate::operation::claim::concerns;
use crate::operation::client_spec::is_waker;
use crate::operation::door;
use crate::operation::points::Point;
use crate::operation::receiver::Standing;
use crate::operation::record::Operation;
use crate::operation::rollback::Now;
use crate::operation::sleeper::Sleeper;
use crate::swarm::object::{Service, Task, TaskState};

/// One reading of everything that decisions about operations rest on.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// All services of the Swarm.
    pub services: Vec<Service>,
    /// Tasks of the services that opted in, and of their doors.
    pub tasks: Vec<Task>,
    /// The catalogue.
    pub backups: Vec<Backup>,
    /// Restore points, the oldest first.
    pub points: Vec<Point>,
    /// Services that Skep has put to sleep.
    pub sleepers: Vec<Sleeper>,
    /// What there is now of what the point holds to which a rollback would go.
    pub there: Option<Now>,
    /// How far the receivers of write-ahead logs are, by the names of their services; where a plan needs it.
    pub received: BTreeMap<String, Standing>,
    /// All operations that can be read, oldest first.
    pub operations: Vec<Operation>,
    /// Configs that `skep.maintenance.page` names and that exist.
    pub pages: BTreeSet<String>,
}

// === impl World ===

impl World {
    /// A service by its full name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.name() == name)
    }

    /// The full name that a person meant: a full name, or the only service that ends in `_<name>`.
    pub fn meant(&self, name: &str) -> Option<&Service> {
        self.service(name).or_else(|| {
            let mut found = self
                .services
                .iter()
                .filter(|s| s.name().strip_suffix(name).is_some_and(|rest| rest.ends_with('_')));
            found.next().filter(|_| found.next().is_none())
        })
    }

    /// The names of the stacks.
    pub fn stacks(&self) -> BTreeSet<&str> {
        self.services.iter().filter_map(Service::stack).collect()
    }

    /// How many tasks of a service run and are meant to.
    pub fn running(&self, service: &Service) -> usize {
        meant(&self.tasks, service).filter(|task| task.state == TaskState::Running).count()
    }

    /// Whether the door of a service stands; none where it has none and, as `is_wanted` says, is to have none.
    pub fn door(&self, service: &Service, is_wanted: bool) -> Option<bool> {
        let door = self.service(&door::name(service.name())).filter(|door| door::is_door(door));
        match door {
            Some(door) => Some(self.running(door) > 0),
            None => is_wanted.then_some(false),
        }
    }

    /// The operation that has a service now, or that people must decide about.
    pub fn holder(&self, service: &str) -> Option<&Operation> {
        holder(&self.operations, service)
    }
}

/// The tasks of a service itself that are meant to run; those of a waker are none.
pub fn meant<'a>(tasks: &'a [Task], service: &Service) -> impl Iterator<Item = &'a Task> {
    let is_own = |t: &&Task| t.service == service.id && t.desired == TaskState::Running && !is_waker(&t.spec);
    tasks.iter().filter(is_own)
}

/// The open operation that has a service now, or waits for it, or that people must decide about.
pub(super) fn holder<'a>(operations: &'a [Operation], service: &str) -> Option<&'a Operation> {
    let open = |op: &&Operation| !op.journal.state.is_terminal();
    operations.iter().filter(open).find(|op| concerns(op, service))
}
