//! A view with one of everything, for tests and for looking at the page.

use std::time::Duration;

use jiff::Timestamp;

use super::view::*;
use crate::operation::record::{
    Intent, Journal, OpId, Operation, SCHEMA, State, StepRecord, StepState, Trigger, Work,
};

pub(crate) const RESTORE: [&str; 14] = [
    "claim",
    "plan",
    "preflight",
    "expire",
    "safety",
    "beside",
    "stop",
    "cut",
    "flush",
    "canary",
    "start",
    "verify",
    "keep",
    "release",
];
pub(crate) const BACKUP: [&str; 6] = ["claim", "plan", "dump", "verify", "register", "release"];

/// So many seconds after the beginning of the restore that is under way.
pub(crate) fn at(seconds: i64) -> Timestamp {
    let began: Timestamp = "2026-11-21T09:20:25Z".parse().unwrap();
    began + jiff::SignedDuration::from_secs(seconds)
}

pub(crate) fn intent(work: Work, service: &str, trigger: Trigger, created: Timestamp) -> Intent {
    Intent {
        schema: SCHEMA,
        service: service.to_owned(),
        service_id: format!("id-of-{service}"),
        work,
        trigger,
        created,
        approval: false,
        accept_problems: false,
    }
}

pub(crate) fn restore_work() -> Work {
    Work::Restore {
        to: None,
        backup: None,
        before: Some(at(-3_700)),
        in_place: None,
        quiesce: None,
        create_roles: false,
    }
}

pub(crate) fn operation(
    intent: Intent,
    state: State,
    steps: &[(&str, StepState, i64, i64, &str)],
) -> Operation {
    let id = OpId::new(intent.created, &format!("{}{}", intent.service, intent.work.kind()));
    let mut journal = Journal::new(state);
    for (name, state, began, took, note) in steps {
        let record = StepRecord {
            state: *state,
            changed: at(began + took),
            note: (*note).to_owned(),
            ..StepRecord::begun(at(*began))
        };
        journal.steps.push(((*name).to_owned(), record));
    }
    if !matches!(state, State::Pending | State::AwaitingApproval | State::Running) {
        journal.ended = Some(journal.steps.last().map_or(intent.created, |(_, r)| r.changed));
    }
    Operation { id, config: "c".to_owned(), version: 1, intent, journal }
}

fn alert() -> Trigger {
    Trigger::Alert {
        name: "ShopTableMissing".to_owned(),
        fingerprint: "b8e3687026fc3605".to_owned(),
        starts_at: at(-13),
    }
}

fn person(name: &str) -> Trigger {
    Trigger::Person { name: name.to_owned() }
}

fn nightly(due: Timestamp) -> Trigger {
    Trigger::Schedule { key: "skep.backup.schedule".to_owned(), due }
}

pub(crate) fn running_restore() -> Operation {
    use StepState::{Done, Started};
    let steps = [
        ("claim", Done, 0, 0, "holds shop_db, shop_app"),
        ("plan", Done, 0, 1, "swap the page in front of shop_app"),
        ("preflight", Done, 1, 2, "backup 20261121t081500k3v5aq is whole; 38.1 GB free, 2.4 GB needed"),
        ("expire", Done, 3, 0, "nothing kept from earlier"),
        ("safety", Done, 3, 7, "412 MB in one file, read back in full"),
        ("beside", Started, 10, 0, "restore: 281 of 412 MB"),
    ];
    let mut op = operation(intent(restore_work(), "shop_db", alert(), at(0)), State::Running, &steps);
    op.journal.steps[5].1.percent = Some(68);
    op
}

fn history() -> Vec<Operation> {
    use StepState::{Done, Failed, Undone};
    let backup = |at_: i64, service: &str, note: &str| {
        let steps = [
            ("claim", Done, at_, 0, ""),
            ("plan", Done, at_, 0, ""),
            ("dump", Done, at_, 9, note),
            ("verify", Done, at_ + 9, 4, "checksums and a full read agree"),
            ("register", Done, at_ + 13, 0, ""),
            ("release", Done, at_ + 13, 1, ""),
        ];
        operation(intent(Work::Backup, service, nightly(at(at_)), at(at_)), State::Succeeded, &steps)
    };
    let failed = [
        ("claim", Undone, -90_000, 1, ""),
        ("plan", Done, -90_000, 1, ""),
        (
            "dump",
            Failed,
            -89_999,
            3,
            "pg_dump: error: connection to server failed: password=hunter2 is wrong",
        ),
    ];
    let rolled = [
        ("claim", Undone, -200_000, 40, "given back"),
        ("plan", Undone, -200_000, 1, ""),
        ("preflight", Undone, -199_999, 2, ""),
        ("safety", Undone, -199_997, 6, "kept"),
        ("beside", Undone, -199_991, 21, "dropped"),
        ("stop", Undone, -199_970, 3, "clients run again on the spec that they had, byte for byte"),
        ("cut", Failed, -199_967, 1, "the database was renamed by somebody else meanwhile"),
    ];
    let mut rolled =
        operation(intent(restore_work(), "blog_db", person("ada"), at(-200_010)), State::RolledBack, &rolled);
    rolled.journal.remarks =
        vec!["The safety backup 20261119t014412abcdef stays in the catalogue until it expires.".to_owned()];
    vec![
        backup(-3_925, "shop_db", "412 MB in one file"),
        backup(-26_000, "blog_db", "1.2 GB in one file"),
        operation(intent(Work::Backup, "blog_db", nightly(at(-90_000)), at(-90_000)), State::Failed, &failed),
        rolled,
    ]
}

fn service(name: &str, condition: Condition) -> ServiceView {
    ServiceView {
        name: name.to_owned(),
        stack: name.split_once('_').map(|(stack, _)| stack.to_owned()),
        condition,
        since: None,
        operation: None,
        paused: false,
        desired: Some(1),
        running: 1,
        saves: None,
        engine: None,
        backups: None,
        restored: None,
        guard: None,
        problems: Vec::new(),
    }
}

fn database(name: &str, condition: Condition, last: i64, count: u64, size: u64) -> ServiceView {
    ServiceView {
        engine: Some("postgres"),
        backups: Some(Backups {
            count,
            copies_missing: 0,
            last_success: Some(at(last)),
            last_attempt: Some(at(last)),
            last_verified: Some(at(last + 13)),
            last_proved: Some(at(-86_400 * 3)),
            last_size: Some(size),
            oldest: Some(at(-86_400 * 26)),
            next: Some(at(3_600)),
            missed: None,
            interval: Some(Duration::from_hours(1)),
            wanted_since: Some(at(-86_400 * 40)),
            expected_s: Some(38.4),
            next_drill: Some(at(7_200)),
            drill_interval: Some(Duration::from_hours(24)),
            ..Backups::default()
        }),
        restored: Some(Restored {
            at: at(-86_400 * 9),
            took: Duration::from_millis(31_400),
            downtime: Some(Duration::from_millis(2_900)),
        }),
        guard: Some(GuardView {
            mode: "auto",
            alerts: vec!["ShopTableMissing".to_owned()],
            circuit: None,
            incidents: Vec::new(),
            unreadable: None,
        }),
        ..service(name, condition)
    }
}

fn services() -> Vec<ServiceView> {
    let restore = running_restore().id;
    let mut shop = database("shop_db", Condition::Operating, -3_925, 27, 431_812_608);
    shop.operation = Some(restore.clone());
    shop.since = Some(at(0));
    if let Some(guard) = &mut shop.guard {
        guard.incidents.push(IncidentView {
            alert: "ShopTableMissing".to_owned(),
            since: at(-13),
            phase: "answered".to_owned(),
            operation: Some(restore.clone()),
        });
    }
    let app = ServiceView { desired: Some(2), running: 2, ..service("shop_app", Condition::Healthy) };
    let mut cache = service("shop_cache", Condition::Healthy);
    cache.engine = Some("redis");
    let mut blog = database("blog_db", Condition::Healthy, -26_000, 9, 1_263_984_640);
    if let Some(guard) = &mut blog.guard {
        guard.mode = "approve";
        guard.alerts = vec!["BlogCorrupt".to_owned(), "BlogReadOnly".to_owned()];
        guard.circuit = Some((
            at(-7_200),
            "the limit of 2 restores in 1 d was reached by alert `BlogCorrupt`".to_owned(),
        ));
    }
    blog.problems.push(ProblemView {
        code: "L007".to_owned(),
        key: "skep.backup.keep".to_owned(),
        text: "found `7 day`, want counts and periods, such as `7 daily, 4 weekly`".to_owned(),
        hint: Some("7 daily".to_owned()),
        blocks: false,
        warning: false,
    });
    blog.problems.push(ProblemView {
        code: "L012".to_owned(),
        key: "skep.depends-on".to_owned(),
        text: "found `cahce`, want a service of the same stack, or a full name".to_owned(),
        hint: Some("cache".to_owned()),
        blocks: true,
        warning: false,
    });
    let maintenance = ServiceView { since: Some(at(-1_500)), ..service("wiki_web", Condition::Maintenance) };
    let asleep = ServiceView {
        since: Some(at(-37_000)),
        desired: Some(0),
        running: 0,
        saves: Some(2),
        ..service("staging_web", Condition::Asleep)
    };
    let degraded = ServiceView {
        desired: Some(3),
        running: 1,
        paused: true,
        ..service("media_worker", Condition::Degraded)
    };
    vec![shop, app, cache, blog, maintenance, asleep, degraded]
}

/// A cluster in the middle of a restore, with somebody to be asked.
pub(crate) fn view() -> View {
    let mut asked = operation(
        intent(
            restore_work(),
            "blog_db",
            Trigger::Alert {
                name: "BlogReadOnly".to_owned(),
                fingerprint: "f".to_owned(),
                starts_at: at(-60),
            },
            at(-40),
        ),
        State::AwaitingApproval,
        &[],
    );
    asked.intent.approval = true;
    let maintenance = operation(
        intent(Work::Maintenance { until: Some(at(5_700)) }, "wiki_web", person("grace"), at(-1_505)),
        State::Running,
        &[
            ("claim", StepState::Done, -1_505, 1, ""),
            ("plan", StepState::Done, -1_504, 1, ""),
            ("stop", StepState::Done, -1_503, 3, "page on; replicas stay"),
            ("hold", StepState::Started, -1_500, 0, "until 10:55 UTC, or until ended"),
        ],
    );
    let mut operations = vec![
        OperationView::of(&running_restore(), &RESTORE, Some(at(1_800))),
        OperationView::of(&asked, &RESTORE, None),
        OperationView::of(
            &maintenance,
            &["claim", "plan", "stop", "hold", "start", "release"],
            Some(at(5_700)),
        ),
    ];
    operations.extend(history().iter().map(|op| {
        let steps: &[&str] = if op.intent.work == Work::Backup { &BACKUP } else { &RESTORE };
        OperationView::of(op, steps, None)
    }));
    let mut view = View {
        taken: at(25),
        version: "0.1.0".to_owned(),
        cluster: "production".to_owned(),
        leads: true,
        leader: Some("skep.2 on manager-2".to_owned()),
        trouble: None,
        services: services(),
        operations,
    };
    view.sort();
    view
}
