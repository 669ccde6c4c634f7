use super::*;
use crate::swarm::task_log::LogLine;

const PART: LogPart = LogPart { since: None, lines: 3, bytes: 100, terminal: false };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000 + second).unwrap()
}

fn log(lines: &[(i64, &str)], cut: bool) -> TaskLog {
    let line = |(second, text): &(i64, &str)| LogLine { at: Some(at(*second)), text: (*text).to_owned() };
    TaskLog { lines: lines.iter().map(line).collect(), cut, fault: String::new() }
}

fn read(log: &TaskLog) -> Read {
    read_of(log, PART, &Regex::new("FATAL|PANIC").unwrap())
}

#[test]
fn the_first_line_that_matches_is_told_as_far_as_it_may_be_shown() {
    let found =
        read(&log(&[(1, "well"), (2, "FATAL: password=hunter2 is\u{1b}[0m wrong"), (3, "PANIC")], false))
            .found;
    assert_eq!(found.as_deref(), Some("FATAL: password=••• is [0m wrong"));
    assert_eq!(read(&log(&[(1, "no fatal thing")], false)).found, None);
    let long = format!("FATAL {}", "x".repeat(1_000));
    assert_eq!(read(&log(&[(1, &long)], false)).found.map(|line| line.chars().count()), Some(SHOWN));
}

#[test]
fn a_task_is_read_on_from_a_little_before_its_newest_line_and_never_from_further_back_than_before() {
    assert_eq!(read(&log(&[(5, "a"), (4, "b")], false)).on, Some(at(4)));
    assert_eq!(read(&log(&[], false)).on, None);
    let since = LogPart { since: Some(at(9)), ..PART };
    let wanted = Regex::new("x").unwrap();
    assert_eq!(read_of(&log(&[], false), since, &wanted).on, Some(at(9)));
    assert_eq!(read_of(&log(&[(9, "again")], false), since, &wanted).on, Some(at(9)));
}

#[test]
fn what_was_not_read_is_known() {
    let cut = read(&log(&[(5, "a"), (6, "b")], true));
    assert_eq!((cut.on, cut.unread.is_empty(), cut.skipped), (Some(at(6)), false, false));
    let many = read(&log(&[(5, "a"), (6, "b"), (7, "c")], false));
    assert_eq!((many.unread.as_str(), many.skipped), ("", true), "the lines before these are not known");
    let fault = TaskLog { fault: "node n2 is not available".to_owned(), ..TaskLog::default() };
    assert_eq!(read(&fault).unread, "node n2 is not available");
    assert!(!read(&log(&[(5, "a")], false)).skipped);
}

fn taken(answers: &[Result<Vec<f64>, String>], before: bool) -> (Option<String>, Option<String>) {
    let mut all = Answers::default();
    let flag = answers.iter().cloned().find_map(|answer| all.take(answer, before));
    (flag, all.remark("shop_app"))
}

#[test]
fn anything_that_a_query_returns_is_a_red_flag_unless_it_returned_it_before() {
    let (nothing, something, zero) = (Ok(Vec::new()), Ok(vec![0.97, 2.0]), Ok(vec![0.0]));
    let flag = taken(&[nothing.clone(), something.clone()], false).0.unwrap();
    assert!(flag.contains("2 value(s)") && flag.contains("0.97"), "{flag}");
    assert!(taken(&[zero], false).0.is_some(), "`up == 0` returns a zero");
    assert_eq!(taken(&[nothing.clone(), nothing.clone()], false), (None, None));
    let (flag, remark) = taken(&[something.clone(), something.clone()], true);
    assert_eq!(flag, None, "it was so before the update");
    assert!(remark.unwrap().contains("before the update already"));
    assert!(taken(&[something.clone(), nothing, something], true).0.is_some(), "it was quiet in between");
}

#[test]
fn what_could_not_be_asked_is_no_red_flag_and_is_told() {
    let (nothing, missed) = (Ok(Vec::new()), Err("no connection".to_owned()));
    let (flag, remark) = taken(&[missed.clone(), missed.clone()], false);
    assert_eq!(flag, None);
    assert!(
        remark.as_ref().is_some_and(|r| r.contains("could not be asked, so") && r.ends_with("no connection")),
        "{remark:?}"
    );
    let remark = taken(&[nothing, missed], false).1.unwrap();
    assert!(remark.contains("could not be asked 1 time(s)"), "{remark}");
}

#[test]
fn a_long_window_is_not_looked_at_all_the_time() {
    assert_eq!([0, 4, 120, 1800, 86_400].map(|s| every(s).as_secs()), [1, 1, 2, 10, 10]);
}
