use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::http::fixture::{RESTORE, at, intent, operation, restore_work, running_restore};
use crate::operation::catalogue::{Entry, Origin, Purpose};
use crate::operation::client_spec;
use crate::operation::record::{OpId, Trigger};
use crate::triggers::guard::fixture::SERVICE;

fn service(name: &str, replicas: u64, labels: &Value) -> Service {
    let mut all = json!({ ENABLE: "true", "com.docker.stack.namespace": "shop" });
    all.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
    Service {
        id: format!("id-of-{name}"),
        version: 1,
        spec: json!({ "Name": name, "Labels": all, "Mode": { "Replicated": { "Replicas": replicas } } }),
        update: None,
        created: at(-1_000_000),
    }
}

fn database() -> Service {
    let labels = json!({
        "skep.data": "postgres", "skep.backup.schedule": "CRON_TZ=UTC 0 2 * * MON-FRI",
        "skep.restore.on-alert": "DbCorrupt", "skep.restore.mode": "approve", "skep.check.users.sql": "SELECT 1",
        "skep.notifi": "ada@example.org",
    });
    service(SERVICE, 1, &labels)
}

fn task(service: &str, state: TaskState, desired: TaskState) -> Task {
    Task {
        id: "t".to_owned(),
        service: format!("id-of-{service}"),
        node: None,
        slot: 1,
        state,
        desired,
        error: String::new(),
        exit_code: None,
        image: String::new(),
        spec_version: None,
        spec: Value::Null,
        addresses: Vec::new(),
        created: at(0),
        changed: at(0),
    }
}

fn backup(id: &str, taken: i64, purpose: Purpose, verified: bool, proved: Option<i64>) -> Backup {
    Backup {
        config: id.to_owned(),
        version: 1,
        verified: verified.then(|| at(taken + 10)),
        proved: proved.map(at),
        loaded: None,
        restore_seconds: None,
        drill_failed: None,
        removing: None,
        spoilt: None,
        copies: Vec::new(),
        entry: Entry {
            schema: Entry::version(None),
            id: id.to_owned(),
            operation: OpId::new(at(taken), id),
            service: SERVICE.to_owned(),
            service_id: "id".to_owned(),
            engine: "postgres".to_owned(),
            database: "shop".to_owned(),
            store: "default".to_owned(),
            dir: String::new(),
            manifest_sha256: String::new(),
            size: 7,
            taken: at(taken),
            purpose,
            node: None,
            origin: Origin::Made,
            inner: None,
            base: None,
        },
    }
}

/// A Swarm as read, for change by each test.
#[derive(Default)]
struct Swarm {
    services: Vec<Service>,
    tasks: Vec<Task>,
    operations: Vec<Operation>,
    backups: Vec<Backup>,
    sleepers: Vec<Sleeper>,
    guards: Vec<Config>,
}

impl Swarm {
    fn view(&self) -> View {
        let policies = Policies::of(&self.services);
        gather(&Sources {
            taken: at(100),
            leads: true,
            leader: Some("m1"),
            trouble: None,
            services: &self.services,
            policies: &policies,
            tasks: &self.tasks,
            operations: &self.operations,
            backups: &self.backups,
            sleepers: &self.sleepers,
            guards: &self.guards,
            settings: &Settings::default(),
            steps: |_| RESTORE.to_vec(),
        })
    }

    fn one(&self) -> ServiceView {
        self.view().services.remove(0)
    }
}

fn running(name: &str) -> Vec<Task> {
    vec![task(name, TaskState::Running, TaskState::Running)]
}

#[test]
fn a_service_is_healthy_degraded_down_or_asleep_by_its_tasks() {
    let mut swarm = Swarm { services: vec![service("web", 2, &json!({}))], ..Swarm::default() };
    swarm.tasks = running("web");
    swarm.tasks.push(task("web", TaskState::Running, TaskState::Shutdown));
    swarm.tasks.push(task("web", TaskState::Preparing, TaskState::Running));
    assert_eq!((swarm.one().condition, swarm.one().running), (Condition::Degraded, 1));
    swarm.tasks.extend(running("web"));
    assert_eq!(swarm.one().condition, Condition::Healthy);
    swarm.tasks.clear();
    assert_eq!(swarm.one().condition, Condition::Down, "nothing of it runs");
    swarm.services = vec![service("web", 0, &json!({}))];
    assert_eq!(swarm.one().condition, Condition::Asleep);
}

#[test]
fn a_global_service_is_measured_by_the_tasks_that_swarm_has_made_and_a_job_by_nothing() {
    let mut swarm = Swarm { services: vec![service("web", 1, &json!({}))], ..Swarm::default() };
    swarm.services[0].spec["Mode"] = json!({ "Global": {} });
    assert_eq!(swarm.one().condition, Condition::Down, "no node takes it");
    swarm.tasks = vec![task("web", TaskState::Pending, TaskState::Running)];
    assert_eq!(swarm.one().condition, Condition::Down);
    swarm.tasks.extend(running("web"));
    assert_eq!(swarm.one().condition, Condition::Degraded);
    swarm.tasks = running("web");
    assert_eq!(swarm.one().condition, Condition::Healthy);
    swarm.tasks.clear();
    swarm.services[0].spec["Mode"] = json!({ "ReplicatedJob": { "MaxConcurrent": 1 } });
    assert_eq!(swarm.one().condition, Condition::Healthy, "it has ended, as it should");
}

#[test]
fn a_sleeper_is_asleep_since_then_and_waking_once_it_is_brought_back() {
    let sleeper = Sleeper {
        config: "c".to_owned(),
        service: "web".to_owned(),
        service_id: "id-of-web".to_owned(),
        op: OpId::new(at(0), "sleep"),
        since: at(50),
        replicas: None,
        left: 0,
    };
    let mut global = service("web", 0, &json!({}));
    global.spec["Mode"] = json!({ "Global": {} });
    let down = Service { spec: client_spec::zero(&global.spec), ..global.clone() };
    let mut swarm = Swarm { services: vec![down], sleepers: vec![sleeper], ..Swarm::default() };
    assert_eq!((swarm.one().condition, swarm.one().since), (Condition::Asleep, Some(at(50))));
    let asked = intent(Work::Wake, "web", Trigger::Person { name: String::new() }, at(90));
    let waking = operation(asked, State::Running, &[("claim", StepState::Started, 91, 91, "")]);
    swarm.operations = vec![waking];
    assert_eq!(swarm.one().condition, Condition::Waking);
    swarm.operations.clear();
    swarm.services = vec![global];
    assert_eq!(swarm.one().condition, Condition::Waking, "somebody brought it back; it is being seen to");
}

#[test]
fn a_service_that_keeps_replicas_is_reduced_and_saves_the_others() {
    let labels = json!({ ENABLE: "true", "skep.scale.min": "2" });
    let mut low = service("web", 2, &labels);
    low.spec["Mode"] = json!({ "Replicated": { "Replicas": 2 } });
    let sleeper = Sleeper {
        config: "c".to_owned(),
        service: "web".to_owned(),
        service_id: "id-of-web".to_owned(),
        op: OpId::new(at(0), "sleep"),
        since: at(50),
        replicas: Some(5),
        left: 2,
    };
    let mut swarm = Swarm { services: vec![low.clone()], sleepers: vec![sleeper], ..Swarm::default() };
    assert_eq!((swarm.one().condition, swarm.one().saves), (Condition::Down, None), "none of them runs");
    let runs = || task("web", TaskState::Running, TaskState::Running);
    swarm.tasks = vec![runs(), runs()];
    let shown = swarm.one();
    assert_eq!((shown.condition, shown.since, shown.saves), (Condition::Reduced, Some(at(50)), Some(3)));
    assert!(shown.problems.is_empty(), "{:?}", shown.problems);
    swarm.services[0].spec["Mode"]["Replicated"]["Replicas"] = json!(3);
    assert_eq!(swarm.one().condition, Condition::Waking);
    // Two are all that it has.
    let swarm = Swarm { services: vec![low], ..Swarm::default() };
    assert_eq!(swarm.one().problems.iter().map(|p| p.code.as_str()).collect::<Vec<_>>(), ["L034"]);
}

#[test]
fn services_that_did_not_opt_in_are_not_shown() {
    let swarm = Swarm {
        services: vec![
            service("web", 1, &json!({ ENABLE: "false" })),
            service("other", 1, &json!({ ENABLE: "yes" })),
        ],
        ..Swarm::default()
    };
    assert!(swarm.view().services.is_empty());
}

#[test]
fn an_operation_shows_on_its_service_and_on_the_clients_that_it_claimed() {
    let mut restore = running_restore();
    restore.journal.steps[0].1.out = json!({ "services": ["shop_app", SERVICE] });
    let mut swarm = Swarm {
        services: vec![database(), service("shop_app", 1, &json!({})), service("shop_web", 1, &json!({}))],
        tasks: [running(SERVICE), running("shop_app"), running("shop_web")].concat(),
        operations: vec![restore],
        ..Swarm::default()
    };
    let conditions =
        |swarm: &Swarm| swarm.view().services.into_iter().map(|s| (s.name, s.condition)).collect::<Vec<_>>();
    let named = |name: &str, condition| (name.to_owned(), condition);
    assert_eq!(
        conditions(&swarm),
        [
            named("shop_app", Condition::Operating),
            named(SERVICE, Condition::Operating),
            named("shop_web", Condition::Healthy)
        ]
    );
    swarm.operations[0].journal.step_mut("stop", at(40));
    swarm.services[1].spec["TaskTemplate"]["ContainerSpec"]["Labels"][OP] = json!("some-id");
    let app = swarm.view().services.remove(0);
    assert_eq!((app.condition, app.since), (Condition::Maintenance, Some(at(40))));
    swarm.services[1] = service("shop_app", 0, &json!({}));
    assert_eq!(swarm.view().services[0].condition, Condition::Maintenance, "behind the page of a proxy");
    swarm.operations[0].journal.state = State::Stuck;
    swarm.operations[0].journal.ended = Some(at(60));
    let app = swarm.view().services.remove(0);
    assert_eq!((app.condition, app.since), (Condition::Stuck, Some(at(60))));
}

#[test]
fn backups_are_told_from_the_catalogue_and_a_safety_copy_is_none() {
    let swarm = Swarm {
        services: vec![database()],
        backups: vec![
            backup("a", -9_000, Purpose::Regular, true, Some(-50)),
            backup("b", -5_000, Purpose::Regular, true, None),
            backup("c", -1_000, Purpose::Safety, true, None),
            backup("d", -500, Purpose::Regular, false, None),
        ],
        ..Swarm::default()
    };
    let backups = swarm.one().backups.unwrap();
    assert_eq!(
        (backups.count, backups.last_success, backups.oldest),
        (4, Some(at(-5_000)), Some(at(-9_000)))
    );
    assert_eq!((backups.last_verified, backups.last_proved), (Some(at(-50)), Some(at(-50))));
    assert_eq!(backups.wanted_since, Some(at(-1_000_000)));
}

#[test]
fn the_longest_pause_of_a_schedule_is_its_week_end() {
    let backups = Swarm { services: vec![database()], ..Swarm::default() }.one().backups.unwrap();
    assert_eq!(backups.interval, Some(Duration::from_hours(72)));
    assert_eq!(backups.next.map(|t| t.to_string()).as_deref(), Some("2026-11-23T02:00:00Z"));
    assert_eq!(backups.last_success, None);
}

#[test]
fn a_run_that_was_due_is_missed_until_there_is_a_backup_from_then_or_later() {
    let mut swarm = Swarm { services: vec![database()], ..Swarm::default() };
    let due = swarm.one().backups.unwrap().missed.unwrap();
    let seconds = due.duration_since(at(0)).as_secs();
    assert!((-3 * 86_400..=0).contains(&seconds), "{due}");
    swarm.backups = vec![backup("before", seconds - 1, Purpose::Regular, true, None)];
    assert_eq!(swarm.one().backups.unwrap().missed, Some(due));
    swarm.backups.push(backup("after", seconds, Purpose::Regular, true, None));
    assert_eq!(swarm.one().backups.unwrap().missed, None);
}

#[test]
fn backups_that_a_label_fault_switched_off_are_still_wanted() {
    let mut service = database();
    service.spec["Labels"]["skep.backup.schedule"] = json!("whenever");
    let backups = Swarm { services: vec![service], ..Swarm::default() }.one().backups.unwrap();
    assert_eq!((backups.next, backups.wanted_since), (None, Some(at(-1_000_000))));
}

#[test]
fn a_service_without_backups_has_none_to_show() {
    let swarm = Swarm { services: vec![service("web", 1, &json!({}))], ..Swarm::default() };
    assert_eq!(swarm.one().backups, None);
}

#[test]
fn problems_and_guards_come_with_their_service() {
    let mut history = History::new(SERVICE, "id");
    history.circuit =
        Some(crate::triggers::guard::history::Circuit { opened: at(5), why: "the limit".to_owned() });
    let mut config = Config {
        id: "g".to_owned(),
        name: History::config_name(SERVICE),
        version: 1,
        created: at(0),
        updated: at(0),
        labels: history.labels(),
        data: vec![b'-'],
    };
    let mut swarm = Swarm { services: vec![database()], guards: vec![config.clone()], ..Swarm::default() };
    let shown = swarm.one();
    let guard = shown.guard.unwrap();
    assert_eq!((guard.mode, guard.circuit), ("approve", Some((at(5), "the limit".to_owned()))));
    let problem = shown.problems.iter().find(|p| p.key == "skep.notifi").unwrap();
    assert_eq!((problem.code.as_str(), problem.warning), ("L001", false));
    assert!(problem.hint.as_ref().unwrap().contains("skep.notify"), "{problem:?}");
    config.labels.insert("skep.guard.format".to_owned(), "9".to_owned());
    swarm.guards = vec![config];
    assert!(swarm.one().guard.unwrap().unreadable.unwrap().contains("newer"));
}

#[test]
fn the_downtime_of_a_restore_is_told_only_where_it_is_known() {
    let done = |saved: Value, out: Value| {
        let steps = [
            ("claim", StepState::Done, 0, 0, ""),
            ("stop", StepState::Done, 20, 2, ""),
            ("cut", StepState::Done, 22, 1, ""),
            ("start", StepState::Done, 23, 2, ""),
            ("release", StepState::Done, 30, 0, ""),
        ];
        let trigger = Trigger::Person { name: "p".to_owned() };
        let mut op = operation(intent(restore_work(), SERVICE, trigger, at(0)), State::Succeeded, &steps);
        op.journal.steps[1].1.out = json!({ "saved": saved });
        op.journal.steps[2].1.out = out;
        Swarm { services: vec![database()], operations: vec![op], ..Swarm::default() }.one().restored.unwrap()
    };
    let stopped = done(json!({ "shop_app": 1 }), json!({ "fenced_ms": 40 }));
    assert_eq!((stopped.took.as_secs(), stopped.downtime), (30, Some(Duration::from_secs(5))));
    assert_eq!(done(json!({}), json!({ "fenced_ms": 40 })).downtime, Some(Duration::from_millis(40)));
    assert_eq!(done(json!({}), Value::Null).downtime, None);
}

#[test]
fn a_deadline_is_shown_only_while_an_operation_runs() {
    let mut swarm = Swarm { operations: vec![running_restore()], ..Swarm::default() };
    assert!(swarm.view().operations[0].deadline.is_some_and(|d| d > at(0)));
    swarm.operations[0].journal.state = State::Succeeded;
    assert_eq!(swarm.view().operations[0].deadline, None);
}
