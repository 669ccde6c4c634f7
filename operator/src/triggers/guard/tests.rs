use std::time::Duration;

use super::fixture::*;
use super::history::{MOST_MEMBERS, Phase};
use super::*;
use crate::operation::record::{Manner, OpId, State, StepState, Trigger, Work};
use crate::policy::{CheckProbe, RestoreMode, Strategy};
use crate::swarm::object::Config;
use crate::triggers::alertmanager::Status;

const HOUR: i64 = 3600;

fn id_of(starts_at: i64) -> OpId {
    history::Key::of(&fires(starts_at)).op_id()
}

#[test]
fn an_alert_named_on_both_sides_starts_a_restore_from_before_it() {
    let mut s = situation();
    let Decision::Start { op, intent } = s.hears(&fires(0), 5) else { panic!() };
    assert_eq!(op, id_of(0));
    assert!(!intent.approval);
    assert!(matches!(&intent.trigger, Trigger::Alert { name, .. } if name == ALERT));
    let Work::Restore { before: Some(before), .. } = intent.work else { panic!() };
    assert_eq!(before, at(-30 * 60), "startsAt less the lookback");
}

#[test]
fn the_restore_is_in_place_where_the_label_says_so() {
    for (strategy, wanted) in [(Strategy::Beside, false), (Strategy::InPlace, true)] {
        let mut s = situation();
        s.restore_mut().strategy = strategy;
        let Decision::Start { intent, .. } = s.hears(&fires(0), 5) else { panic!() };
        let Work::Restore { in_place, .. } = intent.work else { panic!() };
        assert_eq!(in_place, Some(wanted), "{strategy}");
    }
}

#[test]
fn without_either_half_of_the_opt_in_nothing_happens() {
    let mut nameless = fires(0);
    nameless.labels.remove("skep_service");
    let mut other = fires(0);
    other.name = "DiskFull".to_owned();
    let mut off = situation();
    off.target.as_mut().unwrap().policy.enabled = false;
    let mut faulty = situation();
    faulty.target.as_mut().unwrap().policy.restore = None;
    let mut gone = situation();
    gone.target = None;
    let cases = [
        (situation(), nameless),
        (situation(), other),
        (off, fires(0)),
        (faulty, fires(0)),
        (gone, fires(0)),
    ];
    for (s, alert) in cases {
        let judged = judge(&alert, &s, at(5));
        assert!(matches!(judged.decision, Decision::NotOptedIn { .. }), "{:?}", judged.decision);
        assert_eq!(judged.history, None, "nothing is stored for what nobody asked for");
    }
}

#[test]
fn repeats_and_duplicates_of_other_replicas_belong_to_the_incident() {
    let mut s = situation();
    assert!(matches!(s.hears(&fires(0), 5), Decision::Start { .. }));
    s.looks(5);
    assert_eq!(s.hears(&fires(0), 6), Decision::Duplicate { op: Some(id_of(0)) });
    let second = alert(Status::Firing, "f2", at(3));
    assert_eq!(s.hears(&second, 4 * HOUR), Decision::Duplicate { op: Some(id_of(0)) });
}

#[test]
fn an_incident_closes_only_when_every_alert_of_it_is_resolved_and_the_cooldown_has_passed() {
    let mut s = situation();
    s.hears(&fires(0), 5);
    s.looks(5);
    s.hears(&alert(Status::Firing, "f2", at(3)), 10);
    s.operations[0].journal.state = State::Succeeded;
    s.operations[0].journal.ended = Some(at(60));
    assert!(matches!(s.hears(&ends(0), 100), Decision::Resolved { .. }));
    assert!(s.history.as_ref().unwrap().open().next().is_some(), "f2 still fires");
    assert!(matches!(s.hears(&alert(Status::Resolved, "f2", at(3)), 200), Decision::Resolved { .. }));
    let flap = s.hears(&fires(150), 300);
    assert!(matches!(flap, Decision::Cooldown { answered: Some(_), .. }), "{flap:?}");
    assert!(matches!(s.hears(&ends(150), 400), Decision::Resolved { .. }));
    let next = s.hears(&fires(2 * HOUR), 2 * HOUR);
    assert!(matches!(&next, Decision::Start { op, .. } if *op == id_of(2 * HOUR)), "{next:?}");
}

#[test]
fn a_replayed_message_never_starts_anything_also_when_its_incident_is_closed() {
    let mut s = situation();
    s.hears(&fires(0), 5);
    s.looks(5);
    s.operations.clear(); // pruned long ago
    s.hears(&ends(0), 100);
    for now in [200, 5 * HOUR, 20 * 24 * HOUR] {
        assert_eq!(s.hears(&fires(0), now), Decision::Duplicate { op: Some(id_of(0)) }, "at {now}");
    }
    let late = s.hears(&fires(0), 40 * 24 * HOUR);
    assert!(matches!(late, Decision::Ignored { .. }), "{late:?}");
}

#[test]
fn an_alert_must_outlive_the_settle_time() {
    let mut s = situation();
    s.settings.settle = Duration::from_secs(15);
    assert_eq!(s.hears(&fires(0), 5), Decision::Settling { until: at(20) });
    assert!(s.looks(19).is_empty());
    let mut quiet = s.clone();
    assert!(matches!(quiet.hears(&ends(0), 18), Decision::Resolved { .. }));
    assert!(quiet.looks(30).is_empty());
    assert!(matches!(s.looks(20).as_slice(), [Decision::Start { .. }, Decision::Duplicate { .. }]));
}

#[test]
fn an_alert_that_an_earlier_process_heard_settles_anew() {
    let mut s = situation();
    s.settings.settle = Duration::from_secs(15);
    s.hears(&fires(0), 5);
    s.listening_since = at(500);
    assert!(matches!(s.looks(501).as_slice(), [Decision::Settling { until }] if *until == at(560)));
    assert!(s.looks(559).is_empty());
    assert!(matches!(s.looks(560)[0], Decision::Start { .. }));
}

#[test]
fn an_alert_that_ends_while_it_settles_leaves_no_cooldown_behind() {
    let mut s = situation();
    s.settings.settle = Duration::from_secs(15);
    s.hears(&fires(0), 5);
    s.hears(&ends(0), 10);
    assert!(matches!(s.hears(&fires(60), 61), Decision::Settling { .. }));
    assert!(matches!(s.looks(80)[0], Decision::Start { .. }));
}

#[test]
fn the_end_of_an_alert_cancels_what_has_not_begun_and_nothing_else() {
    for (state, begun, cancels) in
        [(State::Pending, false, true), (State::AwaitingApproval, false, true), (State::Running, true, false)]
    {
        let mut s = situation();
        s.hears(&fires(0), 5);
        s.looks(5);
        s.operations[0].journal.state = state;
        if begun {
            s.operations[0].journal.step_mut("claim", at(6));
        }
        let decision = s.hears(&ends(0), 10);
        assert_eq!(
            decision == Decision::ResolvedCancels { op: id_of(0) },
            cancels,
            "{state:?}: {decision:?}"
        );
    }
}

#[test]
fn after_a_cancelled_operation_the_alert_may_start_another_but_the_limit_counts_both() {
    let mut s = situation();
    for (i, decision) in ["started", "started", "limit"].into_iter().enumerate() {
        let start = 100 * i64::try_from(i).unwrap();
        assert_eq!(s.hears(&fires(start), start + 1).name(), decision);
        s.looks(start + 1);
        s.hears(&ends(start), start + 50);
        if let Some(op) = s.operations.get_mut(i) {
            op.journal.state = State::Cancelled;
        }
    }
    let history = s.history.clone().unwrap();
    assert!(history.circuit.is_some());
    assert_eq!(history.restores_within(Duration::from_hours(24), false, at(300)), 2);
}

#[test]
fn an_open_circuit_holds_until_a_person_resets_it() {
    let mut s = situation();
    s.restore_mut().limit.count = 1;
    s.restore_mut().cooldown = Duration::ZERO;
    s.hears(&fires(0), 1);
    s.looks(1);
    s.operations.clear();
    s.hears(&ends(0), 100);
    let first = s.hears(&fires(200), 201);
    assert!(matches!(first, Decision::LimitReached { opened: true, .. }), "{first:?}");
    assert!(matches!(s.hears(&fires(200), 300), Decision::LimitReached { opened: false, .. }));
    assert!(s.looks(3 * 24 * HOUR - 1).iter().all(|d| d.name() != "started"), "time alone does not close it");
    s.hears(&fires(200), 400);
    let mut history = s.history.clone().unwrap();
    history.reset_circuit(at(500));
    s.history = Ok(history);
    assert!(matches!(s.looks(501)[0], Decision::Start { .. }));
}

#[test]
fn the_cooldown_of_the_service_holds_other_alerts_back_and_then_lets_them_act() {
    let mut s = situation();
    s.hears(&fires(0), 1);
    s.looks(1);
    s.operations[0].journal.state = State::Succeeded;
    s.operations[0]
        .journal
        .steps
        .push(("claim".to_owned(), crate::operation::record::StepRecord::begun(at(2))));
    s.operations[0].journal.ended = Some(at(60));
    let mut other = fires(1000);
    other.name = "DbGone".to_owned();
    other.fingerprint = "g1".to_owned();
    assert_eq!(s.hears(&other, 1001), Decision::Cooldown { until: at(60 + HOUR), answered: None });
    assert!(s.looks(HOUR).is_empty());
    assert!(matches!(s.looks(60 + HOUR)[0], Decision::Start { .. }));
}

#[test]
fn a_failed_preflight_does_not_count_as_a_restore_for_the_cooldown() {
    let mut s = situation();
    s.operations.push(by_hand(restore_work(), State::Failed, -100, Some(-90)));
    assert!(matches!(s.hears(&fires(0), 1), Decision::Start { .. }));
}

#[test]
fn while_another_operation_works_the_alert_waits_and_is_judged_when_that_has_ended() {
    let mut s = situation();
    s.operations.push(by_hand(Work::Backup, State::Running, -50, None));
    let busy = s.hears(&fires(0), 1);
    assert!(matches!(busy, Decision::Busy { until: None, .. }), "{busy:?}");
    assert!(s.looks(100).is_empty());
    s.operations[0].journal.state = State::Succeeded;
    s.operations[0].journal.ended = Some(at(100));
    assert!(
        matches!(s.looks(101)[0], Decision::Start { .. }),
        "a backup changes nothing that the alert sees"
    );
}

#[test]
fn a_drill_keeps_no_alert_waiting() {
    let drill = Work::Drill { backup: None };
    for state in [State::Pending, State::Running, State::Stuck, State::Succeeded] {
        let mut s = situation();
        s.operations.push(by_hand(drill.clone(), state, -50, (state == State::Succeeded).then_some(-10)));
        assert!(matches!(s.hears(&fires(0), 1), Decision::Start { .. }), "{state:?}");
    }
}

#[test]
fn a_stuck_operation_keeps_alerts_away() {
    let mut s = situation();
    s.operations.push(by_hand(restore_work(), State::Stuck, -500, Some(-400)));
    assert!(matches!(s.hears(&fires(0), 1), Decision::Busy { until: None, .. }));
    assert!(s.looks(5 * HOUR).iter().all(|d| d.stores().is_none()));
}

#[test]
fn a_restore_gets_time_to_end_the_alerts_that_it_cures() {
    let mut s = situation();
    s.restore_mut().cooldown = Duration::ZERO;
    s.operations.push(by_hand(restore_work(), State::Running, 10, None));
    assert!(matches!(s.hears(&fires(0), 20), Decision::Busy { until: None, .. }));
    s.operations[0].journal.state = State::Succeeded;
    s.operations[0].journal.ended = Some(at(60));
    assert!(s.looks(61).is_empty(), "still busy, as far as the alert is concerned");
    assert!(matches!(s.hears(&fires(0), 62), Decision::Busy { until: Some(_), .. }));
    assert!(s.looks(600).is_empty());
    assert!(matches!(s.looks(660)[0], Decision::Start { .. }));
}

#[test]
fn an_alert_born_inside_our_own_operation_is_ours_and_later_a_persons() {
    for neighbour in [false, true] {
        let mut s = situation();
        s.restore_mut().cooldown = Duration::ZERO;
        let op = by_hand(restore_work(), State::Running, 0, None);
        if neighbour {
            s.neighbours.push(op)
        } else {
            s.operations.push(op)
        }
        assert!(matches!(s.hears(&fires(30), 31), Decision::OwnOperation { until: None, .. }));
        let op = if neighbour { &mut s.neighbours[0] } else { &mut s.operations[0] };
        op.journal.state = State::Succeeded;
        op.journal.ended = Some(at(100));
        assert!(s.looks(699).is_empty());
        let asked = s.looks(701);
        assert!(matches!(asked[0], Decision::AwaitApproval { why: Ask::OwnOperation, .. }), "{asked:?}");
    }
}

#[test]
fn an_update_that_is_only_watched_keeps_no_alert_waiting() {
    let work = || Work::Update {
        image: "postgres:17.1".to_owned(),
        monitor_s: None,
        force: false,
        wait_s: None,
        also: Vec::new(),
    };
    let mut s = situation();
    s.operations.push(by_hand(work(), State::Running, 0, None));
    assert!(matches!(s.hears(&fires(30), 31), Decision::OwnOperation { until: None, .. }));
    let mut watched = situation();
    let mut op = by_hand(work(), State::Running, 0, None);
    op.journal.step_mut("watch", at(10));
    watched.operations.push(op);
    assert!(matches!(watched.hears(&fires(30), 31), Decision::Start { .. }));
}

#[test]
fn a_restart_that_waits_for_the_checks_before_it_keeps_no_alert_waiting() {
    let (whole, manner) = (false, Manner::Fitting);
    let work = Work::Restart { whole, manner, force: false, flush: Vec::new(), wait_s: Some(600) };
    let mut op = by_hand(work, State::Running, 0, None);
    op.journal.step_mut("preflight", at(10));
    let mut s = situation();
    s.operations.push(op.clone());
    assert!(matches!(s.hears(&fires(30), 31), Decision::Start { .. }));
    op.journal.step_mut("preflight", at(20)).state = StepState::Done;
    let mut begun = situation();
    begun.operations.push(op);
    assert!(matches!(begun.hears(&fires(30), 31), Decision::OwnOperation { until: None, .. }));
}

#[test]
fn an_alert_that_echoes_an_operation_shortly_after_it_is_ours_too() {
    let mut s = situation();
    s.operations.push(by_hand(Work::Maintenance { until: None }, State::Succeeded, 0, Some(100)));
    assert!(matches!(s.hears(&fires(150), 151), Decision::OwnOperation { until: Some(_), .. }));
    let mut later = situation();
    later.operations.push(by_hand(Work::Maintenance { until: None }, State::Succeeded, 0, Some(100)));
    assert!(matches!(later.hears(&fires(500), 501), Decision::Start { .. }));
}

#[test]
fn in_mode_approve_a_person_is_asked() {
    let mut s = situation();
    s.restore_mut().mode = RestoreMode::Approve;
    let Decision::AwaitApproval { intent, why: Ask::Mode, .. } = s.hears(&fires(0), 1) else { panic!() };
    assert!(intent.approval);
}

#[test]
fn in_mode_observe_nothing_is_stored_but_the_same_guards_are_shown() {
    let mut s = situation();
    s.restore_mut().mode = RestoreMode::Observe;
    s.restore_mut().cooldown = Duration::ZERO;
    for start in [0, 100, 200] {
        let decision = s.hears(&fires(start), start + 1);
        let Decision::Observe { would } = &decision else { panic!("{decision:?}") };
        assert_eq!(would.contains("the limit"), start == 200, "{would}");
        assert_eq!(s.hears(&fires(start), start + 2), Decision::Duplicate { op: None });
        s.hears(&ends(start), start + 50);
    }
    assert_eq!(s.history.as_ref().unwrap().circuit, None);
    s.restore_mut().mode = RestoreMode::Auto;
    assert!(
        matches!(s.hears(&fires(300), 301), Decision::Start { .. }),
        "what was only observed does not count"
    );
}

#[test]
fn a_storm_asks_a_person_for_everything() {
    let mut many = situation();
    many.sick_elsewhere = 2;
    many.managed = 100;
    let mut share = situation();
    share.settings.storm_services = 50;
    share.sick_elsewhere = 2;
    share.managed = 5;
    for mut s in [many, share] {
        let decision = s.hears(&fires(0), 1);
        assert!(
            matches!(decision, Decision::AwaitApproval { why: Ask::Storm { sick: 3, .. }, .. }),
            "{decision:?}"
        );
        assert_eq!(decision.name(), "storm");
    }
    let mut calm = situation();
    calm.sick_elsewhere = 1;
    calm.managed = 2;
    assert!(
        matches!(calm.hears(&fires(0), 1), Decision::Start { .. }),
        "two of two is a small swarm, not a storm"
    );
}

#[test]
fn auto_without_a_check_of_the_data_asks_a_person() {
    let mut s = situation();
    s.target.as_mut().unwrap().policy.checks[0].probe =
        CheckProbe::Tcp { port: 5432, within: Duration::from_secs(1) };
    assert!(matches!(s.hears(&fires(0), 1), Decision::AwaitApproval { why: Ask::NoDataCheck, .. }));
}

#[test]
fn an_alert_that_fires_for_days_asks_a_person() {
    let mut s = situation();
    assert!(matches!(s.hears(&fires(0), 2 * 24 * HOUR), Decision::AwaitApproval { why: Ask::Stale, .. }));
}

#[test]
fn blocking_problems_and_a_pause_refuse_until_they_are_gone() {
    let blocked = |s: &mut Situation| s.target.as_mut().unwrap().blocking.push("L012 …".to_owned());
    let paused = |s: &mut Situation| s.target.as_mut().unwrap().policy.paused = true;
    for fault in [&blocked as &dyn Fn(&mut Situation), &paused] {
        let mut s = situation();
        fault(&mut s);
        assert!(matches!(s.hears(&fires(0), 1), Decision::Refused { .. }));
        assert!(s.looks(10).is_empty());
        s.target = Some(target());
        assert!(matches!(s.looks(20)[0], Decision::Start { .. }));
    }
}

#[test]
fn an_incident_that_was_not_heard_of_for_long_waits_for_the_next_message() {
    let mut s = situation();
    s.target.as_mut().unwrap().policy.paused = true;
    s.hears(&fires(0), 1);
    s.target = Some(target());
    assert!(s.looks(6 * HOUR).iter().all(|d| d.stores().is_none()));
    assert!(matches!(s.hears(&fires(0), 6 * HOUR), Decision::Start { .. }));
}

#[test]
fn an_alert_of_the_future_is_not_believed() {
    let judged = judge(&fires(1000), &situation(), at(0));
    assert!(matches!(judged.decision, Decision::Ignored { .. }));
    assert_eq!(judged.history, None);
}

#[test]
fn a_service_that_opted_out_while_its_alert_waited_is_left_alone() {
    let mut s = situation();
    s.target.as_mut().unwrap().policy.paused = true;
    s.hears(&fires(0), 1);
    s.target = Some(target());
    s.restore_mut().on_alert.clear();
    assert!(matches!(s.looks(10).as_slice(), [Decision::NotOptedIn { .. }]));
    assert!(s.history.unwrap().incidents.is_empty());
}

#[test]
fn an_operation_that_exists_already_is_taken_over_by_a_history_that_was_lost() {
    let mut s = situation();
    let mut op = by_hand(restore_work(), State::Running, 2, None);
    op.id = id_of(0);
    s.operations.push(op);
    assert_eq!(s.hears(&fires(0), 10), Decision::Duplicate { op: Some(id_of(0)) });
    assert!(matches!(&s.history.unwrap().incidents[ALERT].phase, Phase::Acted { op } if *op == id_of(0)));
}

#[test]
fn people_hear_why_an_alert_was_not_acted_on_whatever_the_reason() {
    type Case = (NoticeKind, fn(&mut Situation));
    let cases: [Case; 4] = [
        (NoticeKind::Refused, |s| s.target.as_mut().unwrap().policy.paused = true),
        (NoticeKind::Observed, |s| s.restore_mut().mode = RestoreMode::Observe),
        (NoticeKind::Limit, |s| s.restore_mut().limit.count = 0),
        (NoticeKind::Answered, |s| {
            s.hears(&fires(-20), -19);
            s.looks(-19);
            s.operations[0].journal.state = State::Succeeded;
            s.operations[0].journal.ended = Some(at(-12));
            s.hears(&ends(-20), -10);
        }),
    ];
    for (kind, prepare) in cases {
        let mut s = situation();
        prepare(&mut s);
        for now in 5..10 {
            s.hears(&fires(0), now);
            s.looks(now);
        }
        let history = s.history.as_ref().unwrap();
        let due: Vec<_> = history.due_notices(at(10)).collect();
        assert_eq!(due.iter().map(|n| n.kind).collect::<Vec<_>>(), [kind], "{history:#?}");
        assert!(!due[0].sentence.is_empty());
        s.target.as_mut().unwrap().policy.restore = None;
        s.looks(11);
        assert_eq!(
            s.history.unwrap().due_notices(at(12)).count(),
            1,
            "{kind:?} is told also when labels change"
        );
    }
    let mut s = situation();
    s.hears(&fires(0), 5);
    assert!(s.history.unwrap().notices.is_empty(), "what is acted on is told by its operation");
}

fn stored(history: &History) -> Config {
    Config {
        id: "c".to_owned(),
        name: History::config_name(&history.service),
        version: 1,
        created: at(0),
        updated: at(0),
        labels: history.labels(),
        data: vec![b'.'],
    }
}

#[test]
fn a_history_reads_back_as_it_was_written() {
    let mut s = situation();
    s.hears(&fires(0), 5);
    s.looks(5);
    let mut other = fires(30);
    other.name = "DbGone".to_owned();
    s.hears(&other, 40);
    let mut history = s.history.unwrap();
    history.reset_circuit(at(3));
    history.circuit = Some(history::Circuit { opened: at(2), why: "\"quoted\"\nand more".to_owned() });
    history
        .notice(Notice::of(&Decision::Refused { why: "paused".to_owned() }, ALERT, at(0), at(41)).unwrap());
    assert!(history.told(&history.notices[0].clone(), at(50)));
    assert_eq!(History::read(&stored(&history)), Ok(history));
}

#[test]
fn a_newer_or_damaged_history_is_refused_and_no_alert_acts_on_it() {
    let mut s = situation();
    s.hears(&fires(0), 5);
    let config = stored(s.history.as_ref().unwrap());
    let spoil = |key: &str, value: Option<&str>| {
        let mut config = config.clone();
        match value {
            Some(value) => config.labels.insert(key.to_owned(), value.to_owned()),
            None => config.labels.remove(key),
        };
        History::read(&config)
    };
    assert!(matches!(spoil("skep.guard.format", Some("2")), Err(Unreadable::Newer { found: 2, .. })));
    let incident = config.labels.keys().find(|k| k.contains("incident")).unwrap();
    for (key, value) in [
        ("skep.guard.format", None),
        ("skep.service", None),
        ("skep.service", Some("other")),
        (incident, Some("{}")),
        ("skep.guard.restore.00", Some("[]")),
        ("skep.guard.surprise", Some("1")),
        ("skep.guard.reset", Some("soon")),
    ] {
        let read = spoil(key, value);
        assert!(matches!(read, Err(Unreadable::Malformed { .. })), "{key}={value:?}: {read:?}");
        s.history = read;
        let judged = judge(&fires(0), &s, at(10));
        assert!(matches!(judged.decision, Decision::Refused { .. }));
        assert_eq!((judged.history, due(&s, at(10))), (None, None));
    }
}

#[test]
fn a_history_stays_small_however_many_alerts_come() {
    let mut s = situation();
    for i in 0..2_000_i64 {
        let fingerprint = format!("f{i}");
        s.hears(&alert(Status::Firing, &fingerprint, at(i * 100)), i * 100 + 1);
        s.looks(i * 100 + 1);
        s.operations.clear();
        if i % 3 > 0 {
            s.hears(&alert(Status::Resolved, &fingerprint, at(i * 100)), i * 100 + 50);
        }
    }
    let history = s.history.unwrap();
    assert!(history.incidents[ALERT].members.len() <= MOST_MEMBERS);
    let size: usize = history.labels().iter().map(|(k, v)| k.len() + v.len()).sum();
    assert!(size < 16_384, "{size} bytes");
}

#[test]
fn every_decision_name_is_listed_once() {
    let names: std::collections::BTreeSet<_> = Decision::NAMES.into_iter().collect();
    assert_eq!(names.len(), Decision::NAMES.len());
    assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
}
