use std::io::Write;
use std::process::{Command, Stdio};

use hyper::Method;

use super::*;
use crate::http::fixture::{at, intent, operation, view};
use crate::http::view::OperationView;
use crate::operation::record::{State, StepState, Trigger, Work};

fn metrics() -> Metrics {
    Metrics::new("0.1.0", "abc123", &["operations", "plan"])
}

fn full() -> Metrics {
    let metrics = metrics();
    metrics.observe(&view());
    metrics.reconciled("plan", Reconciled::Success, Duration::from_millis(3), at(0));
    metrics.requested(&Observed {
        method: Method::GET,
        template: "/services/{id}",
        status: Some(200),
        duration: Duration::from_millis(2),
    });
    metrics.mailed(&Reading { sent: 2, deferred: 1, rejected: 0, waiting: 1, oldest: Some(at(-9)) });
    metrics
}

fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.map(|v| v.parse().unwrap())
}

/// The rules of `promtool check metrics`, so that they hold also where it is not installed.
fn faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let help = text
            .lines()
            .any(|l| l.strip_prefix("# HELP ").is_some_and(|l| l.starts_with(&format!("{name} "))));
        let total = name.ends_with("_total");
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let reserved = kind != "histogram" && ["_count", "_sum", "_bucket"].iter().any(|s| name.ends_with(s));
        if !help || total != (kind == "counter") || !plain || reserved {
            faults.push(format!("{name} ({kind}): help {help}, named as a counter {total}, plain {plain}"));
        }
        if !name.starts_with("skep_") && !name.starts_with("process_") {
            faults.push(format!("{name}: without prefix"));
        }
    }
    faults
}

#[test]
fn every_family_keeps_the_conventions() {
    let text = full().render();
    assert_eq!(faults(&text), Vec::<String>::new());
    assert!(text.lines().filter(|l| l.starts_with("# TYPE skep_")).count() > 40, "{text}");
    assert!(text.contains("process_resident_memory_bytes"));
}

#[test]
fn promtool_finds_nothing_to_say() {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match promtool.spawn() {
        Ok(child) => child,
        Err(e) => return eprintln!("promtool is not installed ({e}): its rules are tested by hand above"),
    };
    child.stdin.take().unwrap().write_all(full().render().as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.trim().is_empty(), "{text}");
}

#[test]
fn what_sleeping_services_save_is_counted_from_view_to_view_while_leading() {
    let metrics = metrics();
    let saved = "skep_saved_replica_seconds_total{service=\"staging_web\"}";
    let shown = |seconds: i64, leads: bool| View { taken: at(seconds), leads, ..view() };
    metrics.observe(&shown(0, true));
    assert_eq!(value(&metrics.render(), saved), Some(0.0), "what was before is not known");
    metrics.observe(&shown(30, true));
    assert_eq!(value(&metrics.render(), saved), Some(60.0), "two replicas for half a minute");
    // Another one leads for a while, and counts.
    metrics.observe(&shown(40, false));
    metrics.observe(&shown(90, true));
    assert_eq!(value(&metrics.render(), saved), Some(60.0));
}

#[test]
fn how_long_waking_took_is_measured_for_each_service_from_the_moment_that_it_was_asked_for() {
    let metrics = metrics();
    let mut later = view();
    metrics.observe(&View { leads: true, ..later.clone() });
    let asked = intent(Work::Wake, "staging_web", Trigger::Person { name: String::new() }, at(100));
    let mut wake = OperationView::of(&operation(asked, State::Succeeded, &[]), &[], None);
    wake.ended = Some(at(103));
    later.operations.push(wake);
    metrics.observe(&View { leads: true, taken: at(104), ..later });
    let text = metrics.render();
    let of =
        |what: &str| value(&text, &format!("skep_wake_duration_seconds_{what}{{service=\"staging_web\"}}"));
    assert_eq!((of("count"), of("sum")), (Some(1.0), Some(3.0)), "{text}");
}

#[test]
fn a_fresh_process_knows_when_the_last_backup_was() {
    let text = full().render();
    let last = "skep_backup_last_success_timestamp_seconds{service=\"shop_db\"}";
    assert_eq!(value(&text, last), Some(seconds(at(-3_925))));
    assert_eq!(value(&text, "skep_backups{service=\"shop_db\"}"), Some(27.0));
    assert_eq!(value(&text, "skep_restore_expected_seconds{service=\"shop_db\"}"), Some(38.4));
    let rhythm = "skep_drill_schedule_interval_seconds{service=\"shop_db\"}";
    assert_eq!(value(&text, rhythm), Some(86_400.0));
    let failed = "skep_backup_drill_failed_timestamp_seconds{service=\"shop_db\"}";
    assert_eq!(value(&text, failed), Some(0.0), "it did not fail");
    assert_eq!(value(&text, "skep_restore_last_downtime_seconds{service=\"shop_db\"}"), Some(2.9));
    assert_eq!(value(&text, "skep_remediation_circuit_open{service=\"blog_db\"}"), Some(1.0));
    assert_eq!(value(&text, "skep_label_problems{code=\"L007\",service=\"blog_db\"}"), Some(1.0));
}

#[test]
fn a_service_that_is_gone_leaves_no_series_behind() {
    let metrics = full();
    let mut later = view();
    later.services.retain(|s| s.name != "blog_db");
    later.operations.retain(|o| o.service != "blog_db");
    metrics.observe(&later);
    let text = metrics.render();
    assert!(!text.contains("blog_db"), "{text}");
    assert!(text.contains("skep_backups{service=\"shop_db\"}"));
}

#[test]
fn only_the_leader_tells_about_services_and_operations() {
    let metrics = full();
    assert_eq!(value(&metrics.render(), "skep_leader"), Some(1.0));
    let mut follower = view();
    follower.leads = false;
    metrics.observe(&follower);
    let text = metrics.render();
    assert_eq!(value(&text, "skep_leader"), Some(0.0));
    for family in ["skep_backups{", "skep_service_state{", "skep_operation_started_timestamp_seconds{"] {
        assert!(!text.contains(family), "{family}");
    }
}

#[test]
fn an_operation_is_counted_once_when_it_ends_and_never_if_it_had_ended_before_this_process_led() {
    let metrics = full();
    let success = "skep_operations_total{operation=\"restore\",result=\"success\",service=\"shop_db\"}";
    let backups = "skep_operations_total{operation=\"backup\",result=\"success\",service=\"shop_db\"}";
    assert_eq!(value(&metrics.render(), success), Some(0.0), "known in advance");
    assert_eq!(value(&metrics.render(), backups), Some(0.0), "it ended before");
    let mut ended = view();
    let restore =
        ended.operations.iter_mut().find(|o| o.kind == "restore" && o.service == "shop_db").unwrap();
    restore.state = State::Succeeded;
    restore.ended = Some(at(42));
    for _ in 0..3 {
        metrics.observe(&ended);
    }
    let text = metrics.render();
    assert_eq!(value(&text, success), Some(1.0));
    let took = "skep_operation_duration_seconds_sum{operation=\"restore\",result=\"success\"}";
    assert_eq!(value(&text, took), Some(42.0));
    assert!(
        !text.contains("skep_operation_started_timestamp_seconds{operation=\"restore\",service=\"shop_db\"}")
    );
}

#[test]
fn a_stuck_operation_that_a_person_brings_to_its_end_counts_as_both() {
    let metrics = full();
    let mut view = view();
    for (state, result, stuck) in
        [(State::Stuck, "stuck", 1.0), (State::Running, "stuck", 0.0), (State::Succeeded, "success", 0.0)]
    {
        let restore =
            view.operations.iter_mut().find(|o| o.kind == "restore" && o.service == "shop_db").unwrap();
        restore.state = state;
        restore.ended = (state != State::Running).then(|| at(50));
        metrics.observe(&view);
        let text = metrics.render();
        let series =
            format!("skep_operations_total{{operation=\"restore\",result=\"{result}\",service=\"shop_db\"}}");
        assert_eq!(value(&text, &series), Some(1.0), "{state:?}");
        assert_eq!(value(&text, "skep_operations_stuck{service=\"shop_db\"}"), Some(stuck), "{state:?}");
    }
}

#[test]
fn names_from_outside_cannot_break_the_format() {
    let metrics = metrics();
    let mut view = view();
    view.services[0].name = "a\"b\\c\nd".to_owned();
    let odd = intent(Work::Backup, "x\"} 1\nskep_leader 7", Trigger::Person { name: "p".to_owned() }, at(0));
    let odd = operation(odd, State::Running, &[("claim", StepState::Started, 0, 0, "")]);
    view.operations.push(OperationView::of(&odd, &[], None));
    metrics.observe(&view);
    let text = metrics.render();
    assert!(
        text.lines().all(|l| l.starts_with("# ") || l.starts_with("skep_") || l.starts_with("process_")),
        "{text}"
    );
    assert_eq!(text.lines().filter(|l| l.starts_with("skep_leader ")).count(), 1);
}

#[test]
fn what_the_outbox_counts_is_taken_over_and_never_falls() {
    let metrics = full();
    metrics.mailed(&Reading { sent: 5, deferred: 1, rejected: 1, waiting: 0, oldest: None });
    let text = metrics.render();
    assert_eq!(value(&text, "skep_notifications_total{result=\"sent\"}"), Some(5.0));
    assert_eq!(value(&text, "skep_notifications_total{result=\"rejected\"}"), Some(1.0));
    assert_eq!(value(&text, "skep_notification_outbox_oldest_timestamp_seconds"), Some(0.0));
}
