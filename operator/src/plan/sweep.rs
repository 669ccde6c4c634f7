//! Mark and sweep: which objects of Skep's no living operation owns.
//!
//! Read the objects first and the operations afterwards: then an owner that is not among them is gone, not yet to come.
//! Invariants: an operation that cannot be read (a newer Skep wrote it) counts as living; saved specs stay as long as a
//! service still shows the page of the operation that saved them, whatever became of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::operation::record::{Operation, PREFIX};
use crate::operation::sleeper::{self, Sleeper};
use crate::swarm::object::{Config, KIND, Kind, OP, Secret, Service};

/// One reading of everything that Skep makes.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// All services.
    pub services: Vec<Service>,
    /// Secrets with the label `skep.op`.
    pub secrets: Vec<Secret>,
    /// Configs of the kinds in [`SWEPT`].
    pub configs: Vec<Config>,
    /// All operations as configs, read last.
    pub operations: Vec<Config>,
}

/// The kinds of config that are swept. Operations are pruned; guards, backups and the lease have owners of their own.
pub const SWEPT: [Kind; 7] =
    [Kind::Ticket, Kind::Claim, Kind::Plan, Kind::Page, Kind::Waker, Kind::Runner, Kind::Sleep];

/// What the names of services that Skep makes begin with.
const MADE: [&str; 4] = ["skep-job-", "skep-canary-", "skep-page-", "skep-wake-"];

/// An object that nobody owns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Orphan {
    /// Services go first, what they use afterwards.
    pub what: What,
    /// Name.
    pub name: String,
    /// Id.
    pub id: String,
    /// Why it is one.
    pub why: String,
}

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A job, a canary or a page.
    Service,
    /// A temporary secret.
    Secret,
    /// A config.
    Config,
}

/// What is known of the owners.
struct Owners<'a> {
    /// Operations that ended.
    ended: BTreeSet<&'a str>,
    /// Operations that did not, or that cannot be read.
    living: BTreeSet<&'a str>,
    /// Operations whose page a service still shows.
    showing: BTreeSet<&'a str>,
}

// === impl Owners ===

impl<'a> Owners<'a> {
    fn of(objects: &'a Objects) -> Owners<'a> {
        let id = |c: &'a Config| c.name.strip_prefix(PREFIX).unwrap_or(&c.name);
        let is_over = |c: &&Config| Operation::read(c).is_ok_and(|op| op.journal.state.is_terminal());
        let (ended, living): (Vec<_>, Vec<_>) = objects.operations.iter().partition(is_over);
        let own = |s: &&Service| s.spec["Labels"].get(OP).is_none();
        let page = |s: &'a Service| s.spec["TaskTemplate"]["ContainerSpec"]["Labels"][OP].as_str();
        Owners {
            ended: ended.into_iter().map(id).collect(),
            living: living.into_iter().map(id).collect(),
            showing: objects.services.iter().filter(own).filter_map(page).collect(),
        }
    }

    /// Why an object of this operation has no owner, if so.
    fn orphaned(&self, op: &str) -> Option<String> {
        if self.living.contains(op) || self.showing.contains(op) {
            return None;
        }
        Some(match self.ended.contains(op) {
            true => format!("operation {op} has ended"),
            false => format!("there is no operation {op}"),
        })
    }
}

/// The objects to remove, in the order of removing.
pub fn sweep(objects: &Objects) -> Vec<Orphan> {
    let owners = Owners::of(objects);
    let mut orphans: Vec<Orphan> = objects
        .services
        .iter()
        // A name besides the label: a person's service is never removed, whatever its labels say.
        .filter(|s| MADE.iter().any(|prefix| s.name().starts_with(prefix)))
        .filter_map(|s| {
            let why = owners.orphaned(s.spec["Labels"][OP].as_str()?)?;
            Some(Orphan { what: What::Service, name: s.name().to_owned(), id: s.id.clone(), why })
        })
        .collect();
    orphans.extend(objects.secrets.iter().filter_map(|s| {
        let why = owners.orphaned(s.labels.get(OP)?)?;
        Some(Orphan { what: What::Secret, name: s.name.clone(), id: s.id.clone(), why })
    }));
    orphans.extend(objects.configs.iter().filter(|c| !is_of(c, Kind::Sleep)).filter_map(|c| {
        let why = owners.orphaned(c.labels.get(OP)?)?;
        Some(Orphan { what: What::Config, name: c.name.clone(), id: c.id.clone(), why })
    }));
    orphans.extend(sleepers_of_nothing(objects, &owners));
    orphans.extend(old_runners(objects));
    orphans.sort();
    orphans
}

/// What was written down of sleeping services that are gone. It outlives the operation that wrote it.
fn sleepers_of_nothing(objects: &Objects, owners: &Owners<'_>) -> Vec<Orphan> {
    let there: BTreeSet<&str> = objects.services.iter().map(|s| s.id.as_str()).collect();
    let sleepers = objects.configs.iter().filter(|c| is_of(c, Kind::Sleep)).filter_map(Sleeper::read);
    let gone = sleepers
        .filter(|s| !there.contains(s.service_id.as_str()) && owners.orphaned(s.op.as_str()).is_some());
    let orphan = |s: Sleeper| Orphan {
        what: What::Config,
        name: sleeper::name(&s.service),
        id: s.config,
        why: format!("{} was removed while it slept", s.service),
    };
    gone.map(orphan).collect()
}

fn is_of(config: &Config, kind: Kind) -> bool {
    config.labels.get(KIND).is_some_and(|k| k == kind.as_str())
}

/// Runners that no service uses, but for the newest: jobs to come use that one.
fn old_runners(objects: &Objects) -> Vec<Orphan> {
    let used: BTreeSet<&str> = objects
        .services
        .iter()
        .flat_map(|s| s.spec["TaskTemplate"]["ContainerSpec"]["Configs"].as_array().into_iter().flatten())
        .filter_map(|c| c["ConfigID"].as_str())
        .collect();
    let is_runner = |c: &&Config| is_of(c, Kind::Runner);
    let by_age: BTreeMap<(Timestamp, &str), &Config> =
        objects.configs.iter().filter(is_runner).map(|c| ((c.created, c.id.as_str()), c)).collect();
    let older = by_age.values().rev().skip(1).filter(|c| !used.contains(c.id.as_str()));
    let orphan = |c: &&Config| Orphan {
        what: What::Config,
        name: c.name.clone(),
        id: c.id.clone(),
        why: "a newer runner is there and no job uses this one".to_owned(),
    };
    older.map(orphan).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing;
    use super::*;
    use crate::operation::record::{State, Work};
    use crate::swarm::object::Labels;

    fn config(name: &str, kind: Kind, op: Option<&str>) -> Config {
        let mut labels = Labels::from([(KIND.to_owned(), kind.as_str().to_owned())]);
        labels.extend(op.map(|op| (OP.to_owned(), op.to_owned())));
        let created = Timestamp::UNIX_EPOCH;
        Config {
            id: format!("{name}-id"),
            name: name.to_owned(),
            version: 1,
            created,
            updated: created,
            labels,
            data: Vec::new(),
        }
    }

    fn stored(state: State) -> (String, Config) {
        let op = testing::op("shop_db", Work::Backup, "2026-03-01T00:00:00Z", state);
        let mut config = config(&op.id.config_name(), Kind::Operation, None);
        config.labels = op.labels();
        config.data = serde_json::to_vec(&op.intent).unwrap();
        (op.id.to_string(), config)
    }

    fn made_by(op: &str) -> Objects {
        let mut job = testing::service("skep-job-x");
        job.spec["Labels"] = json!({ OP: op });
        Objects {
            services: vec![job, testing::service("shop_db")],
            secrets: vec![Secret {
                id: "s-id".to_owned(),
                name: "skep-job-x".to_owned(),
                version: 1,
                labels: Labels::from([(OP.to_owned(), op.to_owned())]),
                created: Timestamp::UNIX_EPOCH,
            }],
            configs: vec![
                config("ticket", Kind::Ticket, Some(op)),
                config("claim", Kind::Claim, Some(op)),
                config("base", Kind::Plan, Some(op)),
                config("page", Kind::Page, Some(op)),
            ],
            operations: Vec::new(),
        }
    }

    fn names(objects: &Objects) -> Vec<String> {
        sweep(objects).into_iter().map(|o| o.name).collect()
    }

    #[test]
    fn what_an_ended_or_absent_operation_left_is_swept_services_first() {
        let (id, ended) = stored(State::Succeeded);
        let mut objects = made_by(&id);
        objects.operations = vec![ended];
        let all = ["skep-job-x", "skep-job-x", "base", "claim", "page", "ticket"];
        assert_eq!(names(&objects), all);
        objects.operations.clear();
        assert_eq!(names(&objects), all);
        assert_eq!(sweep(&objects)[0].what, What::Service);
    }

    #[test]
    fn what_an_open_or_unreadable_operation_owns_stays() {
        for state in [State::Pending, State::AwaitingApproval, State::Running, State::Stuck] {
            let (id, open) = stored(state);
            let objects = Objects { operations: vec![open], ..made_by(&id) };
            assert!(sweep(&objects).is_empty(), "{state:?}");
        }
        let (id, mut newer) = stored(State::Succeeded);
        newer.data = br#"{"schema": 99}"#.to_vec();
        assert!(sweep(&Objects { operations: vec![newer], ..made_by(&id) }).is_empty());
    }

    #[test]
    fn saved_specs_stay_while_a_service_still_shows_the_page() {
        let (id, ended) = stored(State::Cancelled);
        let mut objects = Objects { operations: vec![ended], ..made_by(&id) };
        objects.services[1].spec["TaskTemplate"]["ContainerSpec"]["Labels"] = json!({ OP: id });
        assert!(sweep(&objects).is_empty());
    }

    #[test]
    fn runners_of_old_versions_go_unless_a_job_uses_them() {
        let mut objects = Objects::default();
        for (name, age) in [("old", 1), ("used", 2), ("new", 3)] {
            let mut runner = config(name, Kind::Runner, None);
            runner.created = Timestamp::from_second(age).unwrap();
            objects.configs.push(runner);
        }
        let mut job = testing::service("job");
        job.spec["TaskTemplate"]["ContainerSpec"]["Configs"] = json!([{ "ConfigID": "used-id" }]);
        objects.services.push(job);
        assert_eq!(names(&objects), ["old"]);
    }

    #[test]
    fn what_is_written_down_of_a_sleeper_stays_as_long_as_the_service() {
        let (id, ended) = stored(State::Succeeded);
        let mut sleep = config("skep-sleep-x", Kind::Sleep, Some(&id));
        let labels = [
            ("skep.service", "shop_db"),
            ("skep.service-id", "shop_db-id"),
            ("skep.since", "2026-03-01T00:00:00Z"),
        ];
        sleep.labels.extend(labels.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let services = vec![testing::service("shop_db")];
        let mut objects =
            Objects { services, configs: vec![sleep], operations: vec![ended], ..Objects::default() };
        assert!(sweep(&objects).is_empty());
        objects.operations.clear();
        assert!(sweep(&objects).is_empty(), "nor when the operation was pruned");
        objects.services.clear();
        assert_eq!(sweep(&objects).len(), 1);
    }

    #[test]
    fn a_receiver_and_what_it_uses_belong_to_no_operation_and_stay() {
        let mut receiver = testing::service("skep-wal-0123456789ab");
        receiver.spec["Labels"] = json!({ KIND: "ticket", "skep.wal": "0123" });
        receiver.spec["TaskTemplate"]["ContainerSpec"]["Configs"] = json!([{ "ConfigID": "old-id" }]);
        let mut objects = Objects { services: vec![receiver], ..Objects::default() };
        objects.configs.push(config("skep-wal-0123456789ab-0123", Kind::Ticket, None));
        for (name, age) in [("old", 1), ("new", 2)] {
            let mut runner = config(name, Kind::Runner, None);
            runner.created = Timestamp::from_second(age).unwrap();
            objects.configs.push(runner);
        }
        assert_eq!(names(&objects), [] as [&str; 0]);
    }

    #[test]
    fn a_users_own_objects_are_never_swept() {
        let mut objects = Objects { services: vec![testing::service("shop_db")], ..Objects::default() };
        objects.configs.push(config("guard", Kind::Guard, None));
        objects.services[0].spec["Labels"][OP] = json!("whatever");
        assert!(sweep(&objects).is_empty());
    }
}
