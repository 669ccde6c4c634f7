//! Tests of [`super`].

use std::time::Duration;

use super::*;
use crate::notify::fixture::{after, mail, operation, schedule, story};
use crate::operation::catalogue::Finding;
use crate::operation::record::{StepState, Work};

const DAY: i64 = 86_400;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn report(service: &str, backups: Backups) -> Report {
    Report { service: service.to_owned(), backups, paused: false, failed: Vec::new() }
}

/// Backed up last night, proved this morning.
fn fine() -> Backups {
    Backups {
        count: 9,
        last_success: Some(after(-7 * 3600)),
        last_verified: Some(after(-6 * 3600)),
        last_proved: Some(after(-5 * 3600)),
        expected_s: Some(41.5),
        last_size: Some(412 << 20),
        interval: Some(Duration::from_secs(86_400)),
        drill_interval: Some(Duration::from_secs(86_400)),
        wanted_since: Some(after(-90 * DAY)),
        ..Backups::default()
    }
}

fn digest(services: Vec<Report>) -> Digest {
    Digest { since: after(-7 * DAY), due: after(-600), now: after(0), services }
}

fn letter(services: Vec<Report>) -> Letter {
    render(&digest(services), &mail()).unwrap()
}

fn everything() -> Vec<Report> {
    let failed = Backups {
        last_proved: Some(after(-9 * DAY)),
        drill_failed: Some(Finding {
            at: after(-3600),
            why: "check `users`: 0, want ge 1; password=hunter2".into(),
        }),
        spoilt: vec!["20261110t021500abcdef".to_owned()],
        missed: Some(after(-2 * 3600)),
        copies_missing: 3,
        ..fine()
    };
    let mut broken = report("blog_db", failed);
    broken.failed =
        vec![Failed { kind: "drill", count: 3, last: after(-3600), why: "check `users`: 0".into() }];
    let loads = Backups { last_proved: None, last_loaded: Some(after(-DAY)), drill_interval: None, ..fine() };
    let never = Backups { wanted_since: Some(after(-90 * DAY)), interval: None, ..Backups::default() };
    vec![
        broken,
        report("cache_redis", loads),
        report("empty_db", never),
        Report { paused: true, ..report("old_db", fine()) },
        report("shop_db", fine()),
    ]
}

#[test]
fn each_service_is_told_with_its_backup_proof_and_expected_time_and_what_failed() {
    let letter = letter(everything());
    assert_eq!(letter.subject, "[skep] Backups of the week (prod)");
    for wanted in [
        "Backups of the week (prod): 2 of 5 to look at",
        "shop_db: proved",
        "Last backup: Sat 21 Nov 2026, 07:00:00 CET (06:00:00 UTC), 7 h ago, 412.0 MiB",
        "Last proved: Sat 21 Nov 2026, 09:00:00 CET (08:00:00 UTC), 5 h ago",
        "A restore:   loads in about 41.5 s",
        "blog_db: look at it",
        "! The newest backup failed its drill Sat 21 Nov 2026, 13:00:00 CET (12:00:00 UTC): check `users`: 0, want ge 1",
        "! The backup that was due Sat 21 Nov 2026, 12:00:00 CET (11:00:00 UTC) is missing.",
        "! Found spoilt, and never restored: 20261110t021500abcdef",
        "! 3 copies to further stores are not made.",
        "! Drills are scheduled, and none has proved a backup since Thu 12 Nov 2026",
        "! 3 times a drill failed, the last time Sat 21 Nov 2026",
        "cache_redis: backed up, not proved",
        "Last proved: never; loaded without a check 24 h ago",
        "empty_db: no backup",
        "Last backup: none",
        "A restore:   never measured",
        "old_db: proved, paused",
    ] {
        assert!(letter.text.contains(wanted), "{wanted} is not in\n{}", letter.text);
    }
    for text in [&letter.text, &letter.html] {
        assert!(!text.contains("hunter2") && text.contains("cache_redis"), "{text}");
    }
    if let Some(directory) = std::env::var_os("SKEP_SAMPLES") {
        let file = std::path::Path::new(&directory).join("weekly");
        std::fs::write(file.with_extension("html"), &letter.html).unwrap();
        std::fs::write(file.with_extension("txt"), &letter.text).unwrap();
    }
}

#[test]
fn a_good_week_asks_for_nothing() {
    let text = letter(vec![report("shop_db", fine())]).text;
    assert!(text.contains("Backups of the week (prod): All proved"), "{text}");
    assert!(text.contains("WHAT NEXT\nNothing to do."), "{text}");
    assert!(!text.contains('!'), "{text}");
    let text = letter(Vec::new()).text;
    assert!(text.contains("No service keeps data"), "{text}");
}

#[test]
fn a_repeat_is_the_same_message_and_the_next_week_is_another() {
    let id = |due: Timestamp| {
        let digest = Digest { due, ..digest(vec![report("shop_db", fine())]) };
        let message =
            render(&digest, &mail()).unwrap().to(&"dba@example.org".parse().unwrap(), &mail(), after(50));
        let text = String::from_utf8(message.unwrap().formatted()).unwrap();
        text.lines().find(|l| l.starts_with("Message-ID: ")).unwrap().to_owned()
    };
    assert_eq!(id(after(0)), id(after(0)));
    assert_ne!(id(after(0)), id(after(7 * DAY)));
}

#[test]
fn a_week_is_told_once_at_its_time_and_however_many_were_missed_the_newest() {
    let monday = Schedule::parse("CRON_TZ=Europe/Paris 0 8 * * MON").unwrap();
    let told = |text: &str| Journal { told: at(text) };
    // 08:00 in Paris is 06:00 UTC in summer and 07:00 in winter.
    assert_eq!(told("2026-10-19T06:00:00Z").due(&monday, at("2026-10-26T06:59:59Z")), None);
    let due = at("2026-10-26T07:00:00Z");
    assert_eq!(told("2026-10-19T06:00:00Z").due(&monday, due), Some(due));
    assert_eq!(Journal { told: due }.due(&monday, at("2026-11-02T06:59:00Z")), None, "told once");
    assert_eq!(told("2026-09-01T00:00:00Z").due(&monday, at("2026-10-28T00:00:00Z")), Some(due));
}

#[test]
fn what_was_told_is_read_as_it_was_written() {
    let journal = Journal { told: after(5) };
    let config = Config {
        id: "c".to_owned(),
        name: JOURNAL.to_owned(),
        version: 1,
        created: after(-9),
        updated: after(-9),
        labels: journal.labels(),
        data: Vec::new(),
    };
    assert_eq!(Journal::read(&config), journal);
    let unreadable = Config { labels: Labels::new(), ..config };
    assert_eq!(Journal::read(&unreadable).told, after(-9));
}

#[test]
fn what_failed_in_that_time_is_counted_by_kind_with_the_last_reason() {
    let service = Service {
        id: "x1".to_owned(),
        version: 1,
        spec: serde_json::json!({ "Name": "shop_db", "Labels": { "skep.enable": "true", "skep.data": "postgres" } }),
        update: None,
        created: after(-90 * DAY),
    };
    let failed = |work: Work, ended: i64, why: &str| {
        let mut op = operation(work, schedule(), State::Failed);
        op.journal.ended = Some(after(ended));
        crate::notify::fixture::step(&mut op, "load", StepState::Failed, ended - 1, ended, why);
        op
    };
    let mut operations = vec![
        failed(Work::Drill { backup: None }, -2 * DAY, "the first"),
        failed(Work::Drill { backup: None }, -DAY, "the second"),
        failed(Work::Backup, -8 * DAY, "too long ago"),
        story(State::Succeeded),
    ];
    operations.push(failed(Work::Backup, -60, "no room"));
    operations[3].journal.ended = Some(after(-5));
    let [report] = gather(&[service], &[], &operations, after(-7 * DAY), after(0)).try_into().unwrap();
    let told: Vec<(&str, usize, &str)> =
        report.failed.iter().map(|f| (f.kind, f.count, f.why.as_str())).collect();
    assert_eq!(told, [("backup", 1, "no room"), ("drill", 2, "the second")]);
}
