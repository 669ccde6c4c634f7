//! From records to what people see.

use super::*;
use crate::operation::record::{Operation, StepState, Work};
use crate::plan::step_names;
use crate::plan::testing::op;

const LOOK: Look = Look { paint: Paint::NONE, width: 120 };

fn at(text: &str) -> Timestamp {
    format!("2026-03-02T10:00:{text}Z").parse().unwrap()
}

fn restore() -> Operation {
    let work = Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: None,
        quiesce: None,
        create_roles: false,
    };
    op("shop_db", work, "2026-03-02T10:00:00Z", State::Running)
}

fn step(op: &mut Operation, name: &str, state: StepState, from: &str, to: &str) {
    let record = op.journal.step_mut(name, at(from));
    record.state = state;
    record.changed = at(to);
}

fn view(op: &Operation) -> OperationView {
    OperationView::of(op, &step_names(op), None)
}

fn under_way() -> Operation {
    let mut op = restore();
    step(&mut op, "claim", StepState::Done, "00", "01");
    step(&mut op, "plan", StepState::Done, "01", "02");
    step(&mut op, "beside", StepState::Started, "02", "05");
    let record = op.journal.step_mut("beside", at("02"));
    record.percent = Some(52);
    record.attempt = 2;
    "loading".clone_into(&mut record.note);
    op
}

#[test]
fn an_operation_under_way_shows_every_step_with_time_bar_and_note() {
    let op = under_way();
    let lines = lines(&view(&op), LOOK, at("12.5"));
    assert_eq!(lines[0], format!("restore of shop_db  {}  running  12.5 s", op.id));
    assert_eq!(lines[1], "  ✔ claim      Take hold of the services                     1.0 s");
    assert_eq!(
        lines[3],
        "  ▶ beside     Restore beside, and check it there           10.5 s  █████░░░░░  52%  attempt 2  loading"
    );
    assert_eq!(lines[4], "  · preflight  Look at the backups, the data and the room");
    assert_eq!(lines.len(), 1 + step_names(&op).len());
}

#[test]
fn no_line_is_longer_than_the_terminal_is_wide() {
    let mut op = under_way();
    op.journal.step_mut("beside", at("02")).note = "x".repeat(500);
    for width in [40, 80] {
        let lines = lines(&view(&op), Look { width, ..LOOK }, at("12"));
        let longest = lines.iter().map(|l| l.chars().count()).max();
        assert!(longest <= Some(width), "{longest:?}");
    }
}

#[test]
fn colours_only_wrap_what_is_there_without_them() {
    let view = view(&under_way());
    let coloured = lines(&view, Look { paint: Paint::COLOURS, ..LOOK }, at("12"));
    let plain = lines(&view, LOOK, at("12"));
    let colours = regex::Regex::new("\x1b\\[[0-9;]*m").unwrap();
    for (coloured, plain) in coloured.iter().zip(&plain) {
        let stripped = colours.replace_all(coloured, "").into_owned();
        assert_eq!(stripped, *plain);
        assert_ne!(coloured, plain);
    }
}

#[test]
fn where_nothing_is_redrawn_each_change_is_one_line() {
    let utc = TimeZone::UTC;
    let mut op = restore();
    op.journal.state = State::Pending;
    let pending = view(&op);
    let first = changes(None, &pending, &utc, at("00"));
    assert_eq!(first, [format!("10:00:00 restore of shop_db {} is pending", op.id)]);
    assert!(changes(Some(&pending), &pending, &utc, at("01")).is_empty());
    let running = view(&under_way());
    let lines = changes(Some(&pending), &running, &utc, at("05"));
    assert_eq!(
        lines[1..],
        [
            "10:00:05   claim done in 1.0 s",
            "10:00:05   plan done in 1.0 s",
            "10:00:05   beside: Restore beside, and check it there"
        ]
    );
}

#[test]
fn why_a_step_failed_is_told_also_when_it_is_undone_before_anybody_looked() {
    let before = view(&under_way());
    let mut op = under_way();
    step(&mut op, "beside", StepState::Undone, "02", "09");
    "no room".clone_into(&mut op.journal.step_mut("beside", at("02")).note);
    step(&mut op, "plan", StepState::Undone, "01", "09");
    "".clone_into(&mut op.journal.step_mut("plan", at("01")).note);
    let lines = changes(Some(&before), &view(&op), &TimeZone::UTC, at("10"));
    assert_eq!(lines, ["10:00:10   plan undone", "10:00:10   beside undone; it failed: no room"]);
}

#[test]
fn a_step_that_was_left_when_it_went_back_is_not_shown_as_under_way() {
    let mut op = under_way();
    step(&mut op, "plan", StepState::Undoing, "01", "09");
    op.journal.cancel = Some("ann".to_owned());
    let view = view(&op);
    assert_eq!(current(&view), "plan");
    let lines = lines(&view, LOOK, at("12"));
    assert!(lines[2].starts_with("  ↩ plan") && lines[3].starts_with("  - beside"), "{lines:#?}");
    assert_eq!(summary(&view, LOOK, "skep", at("12")).len(), 2, "it cannot be cancelled twice");
}

#[test]
fn of_the_percents_every_tenth_gets_a_line() {
    let mut op = under_way();
    let mut told = Vec::new();
    let mut before = view(&op);
    for percent in 53..=71 {
        op.journal.step_mut("beside", at("02")).percent = Some(percent);
        let after = view(&op);
        told.extend(changes(Some(&before), &after, &TimeZone::UTC, at("07")));
        before = after;
    }
    assert_eq!(
        told,
        ["10:00:07   beside 60% (attempt 2): loading", "10:00:07   beside 70% (attempt 2): loading"]
    );
}

#[test]
fn a_summary_says_how_it_ended_why_and_what_to_know() {
    let mut op = under_way();
    step(&mut op, "beside", StepState::Undone, "02", "09");
    "no backup passes the checks".clone_into(&mut op.journal.step_mut("beside", at("02")).note);
    op.journal.state = State::Failed;
    op.journal.ended = Some(at("10"));
    op.journal.remarks = vec!["backup x was not used".to_owned()];
    let lines = summary(&view(&op), LOOK, "skep", at("20"));
    assert_eq!(
        lines,
        [
            "restore of shop_db failed after 10.0 s; nothing was changed".to_owned(),
            "  beside failed: no backup passes the checks".to_owned(),
            "  - backup x was not used".to_owned(),
            format!("skep ops show {}    shows every step", op.id),
        ]
    );
}

#[test]
fn every_state_has_its_sentence_and_its_next_commands() {
    for (state, said, commands) in [
        (State::Succeeded, "succeeded", 0),
        (State::RolledBack, "as it was before", 1),
        (State::Failed, "nothing was changed", 1),
        (State::Cancelled, "was cancelled", 0),
        (State::Stuck, "a person is needed", 1),
        (State::AwaitingApproval, "waits for approval", 2),
        (State::Running, "goes on", 2),
        (State::Pending, "goes on", 2),
    ] {
        let mut op = restore();
        op.journal.state = state;
        let lines = summary(&view(&op), LOOK, "docker skep", at("20"));
        assert!(lines[0].contains(said), "{}", lines[0]);
        assert_eq!(lines.iter().filter(|l| l.contains("docker skep ops")).count(), commands, "{state:?}");
    }
}

#[test]
fn what_is_being_undone_is_not_told_as_a_failure_of_its_own() {
    let mut op = under_way();
    step(&mut op, "plan", StepState::Undone, "01", "09");
    "being undone".clone_into(&mut op.journal.step_mut("plan", at("01")).note);
    op.journal.state = State::Cancelled;
    op.journal.ended = Some(at("10"));
    assert_eq!(summary(&view(&op), LOOK, "skep", at("20")).len(), 1);
}
