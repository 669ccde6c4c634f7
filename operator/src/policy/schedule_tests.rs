//! Tests of [`super`]. Expected times are written by hand from the calendars and rules of the zones.

use proptest::prelude::*;

use super::*;

/// The first `count` times after `after`, as RFC 3339.
fn times(text: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(text).unwrap_or_else(|f| panic!("{text}: {f:?}"));
    let mut at: Timestamp = after.parse().unwrap();
    let mut due = Vec::new();
    while due.len() < count {
        at = schedule.next_after(at).unwrap();
        due.push(at.to_string());
    }
    due
}

fn because(text: &str) -> String {
    Schedule::parse(text).unwrap_err().because.unwrap_or_default()
}

/// Days of November 2026 (the 1st is a Sunday) on which the weekday field matches.
fn november(weekdays: &str) -> Vec<i8> {
    let schedule =
        Schedule::parse(&format!("0 0 * 11 {weekdays}")).unwrap_or_else(|f| panic!("{weekdays}: {f:?}"));
    let mut at: Timestamp = "2026-10-31T23:59:59Z".parse().unwrap();
    let mut days = Vec::new();
    while days.len() < 7 {
        at = schedule.next_after(at).unwrap();
        let day = at.to_zoned(TimeZone::UTC).day();
        if day > 7 {
            break;
        }
        days.push(day);
    }
    days
}

#[test]
fn weekdays_are_numbered_as_in_posix() {
    for (field, days) in [
        ("0", vec![1]),
        ("7", vec![1]),
        ("1", vec![2]),
        ("6", vec![7]),
        ("SUN", vec![1]),
        ("sunday", vec![1]),
        ("MON-FRI", vec![2, 3, 4, 5, 6]),
        ("1-5", vec![2, 3, 4, 5, 6]),
        ("5-7", vec![1, 6, 7]),
        ("FRI-SUN", vec![1, 6, 7]),
        ("0-2", vec![1, 2, 3]),
        ("SUN-TUE", vec![1, 2, 3]),
        ("7-2", vec![1, 2, 3]),
        ("0-6", vec![1, 2, 3, 4, 5, 6, 7]),
        ("*/2", vec![1, 3, 5, 7]),
        ("1-5/2", vec![2, 4, 6]),
        ("3/2", vec![4, 6]),
        ("1,3,SAT", vec![2, 4, 7]),
        ("tues,thurs", vec![3, 5]),
        ("*", vec![1, 2, 3, 4, 5, 6, 7]),
    ] {
        assert_eq!(november(field), days, "{field}");
    }
}

#[test]
fn wrong_weekdays_are_refused() {
    for field in
        ["8", "-1", "FRI-MON", "5-3", "MON/0", "*/8", "SU", "1,,2", "", "1-", "FOO", "1-2-3", "5L", "MON#2"]
    {
        assert!(Schedule::parse(&format!("0 0 * * {field}")).is_err(), "{field}");
    }
}

#[test]
fn either_of_two_restricted_days_will_do_as_in_every_crontab() {
    // The 13th, and every Friday (6, 13, 20, 27 November 2026).
    assert_eq!(
        times("0 4 13 * FRI", "2026-11-01T00:00:00Z", 5),
        [
            "2026-11-06T04:00:00Z",
            "2026-11-13T04:00:00Z",
            "2026-11-20T04:00:00Z",
            "2026-11-27T04:00:00Z",
            "2026-12-04T04:00:00Z"
        ]
    );
    assert_eq!(
        times("0 0 15 * 7", "2026-12-07T00:00:00Z", 3),
        ["2026-12-13T00:00:00Z", "2026-12-15T00:00:00Z", "2026-12-20T00:00:00Z"]
    );
}

#[test]
fn a_day_field_that_begins_with_a_star_does_not_count_as_restricted() {
    // Every second day of the month, but only Mondays: 9 and 23 November 2026 are odd Mondays.
    assert_eq!(
        times("0 0 */2 11 MON", "2026-11-01T00:00:00Z", 2),
        ["2026-11-09T00:00:00Z", "2026-11-23T00:00:00Z"]
    );
}

#[test]
fn words_and_intervals() {
    for (text, due) in [
        ("@hourly", "2026-11-21T02:00:00Z"),
        ("@daily", "2026-11-22T00:00:00Z"),
        ("@midnight", "2026-11-22T00:00:00Z"),
        ("@weekly", "2026-11-22T00:00:00Z"),
        ("@monthly", "2026-12-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z"),
        ("@annually", "2027-01-01T00:00:00Z"),
        ("@every 15m", "2026-11-21T01:45:00Z"),
        ("@every 1h30m", "2026-11-21T03:00:00Z"),
        ("*/7 1 * * *", "2026-11-21T01:35:00Z"),
        ("5/20 * * * *", "2026-11-21T01:45:00Z"),
    ] {
        assert_eq!(times(text, "2026-11-21T01:33:20.5Z", 1), [due], "{text}");
    }
}

#[test]
fn an_interval_keeps_its_own_grid_also_before_1970() {
    assert_eq!(
        times("@every 1h", "1969-12-31T22:30:00Z", 2),
        ["1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"]
    );
}

#[test]
fn a_time_that_the_clocks_skip_runs_at_the_first_instant_after_the_gap() {
    // Paris, 29 March 2026: 02:00 → 03:00 at 01:00 UTC.
    let paris = |cron: &str| format!("CRON_TZ=Europe/Paris {cron}");
    assert_eq!(
        times(&paris("30 2 * * *"), "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    // Every half hour: the two skipped readings and 03:00 are one and the same instant.
    assert_eq!(
        times(&paris("*/30 * * * *"), "2026-03-29T00:00:00Z", 4),
        ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:00:00Z"]
    );
    // Lord Howe moves by half an hour: 4 October 2026, 02:00 → 02:30 at 15:30 UTC.
    assert_eq!(
        times("CRON_TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-03T00:00:00Z", 1),
        ["2026-10-03T15:30:00Z"]
    );
}

#[test]
fn a_time_that_occurs_twice_runs_once() {
    // New York, 1 November 2026: 02:00 → 01:00 at 06:00 UTC.
    let york = |cron: &str| format!("CRON_TZ=America/New_York {cron}");
    assert_eq!(
        times(&york("30 1 * * *"), "2026-11-01T04:00:00Z", 2),
        ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
    );
    // Asked in the middle of the second pass, the next is after the fold.
    assert_eq!(times(&york("*/30 * * * *"), "2026-11-01T06:10:00Z", 1), ["2026-11-01T07:00:00Z"]);
    assert_eq!(
        times(&york("*/30 * * * *"), "2026-11-01T05:10:00Z", 2),
        ["2026-11-01T05:30:00Z", "2026-11-01T07:00:00Z"]
    );
}

#[test]
fn a_whole_day_that_a_zone_skipped_does_not_stop_the_schedule() {
    // Samoa had no 30 December 2011: it went from the 29th straight to the 31st, at 10:00 UTC.
    assert_eq!(
        times("CRON_TZ=Pacific/Apia 0 12 * * *", "2011-12-29T23:00:00Z", 2),
        ["2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"]
    );
}

#[test]
fn the_last_time_is_found_however_long_ago_it_was() {
    let last = |text: &str, now: &str| {
        let due = Schedule::parse(text).unwrap().last_at(now.parse().unwrap());
        due.map(|t| t.to_string()).unwrap_or_default()
    };
    assert_eq!(last("* * * * *", "2026-11-21T02:00:59Z"), "2026-11-21T02:00:00Z");
    assert_eq!(last("@daily", "2026-11-21T00:00:00Z"), "2026-11-21T00:00:00Z");
    assert_eq!(last("@every 90m", "2026-11-21T02:00:00Z"), "2026-11-21T01:30:00Z");
    assert_eq!(last("0 0 29 2 *", "2028-02-28T00:00:00Z"), "2024-02-29T00:00:00Z");
    // A Monday on the 1st or the 29th of February.
    assert_eq!(last("0 0 */28 2 MON", "2044-01-31T00:00:00Z"), "2038-02-01T00:00:00Z");
    // In the middle of the hour that New York has twice, and of the one that it skips.
    assert_eq!(last("CRON_TZ=America/New_York 30 1 * * *", "2026-11-01T06:31:00Z"), "2026-11-01T05:30:00Z");
    assert_eq!(last("CRON_TZ=America/New_York 30 2 * * *", "2026-03-08T07:00:00Z"), "2026-03-08T07:00:00Z");
    assert_eq!(last("CRON_TZ=America/New_York 30 2 * * *", "2026-03-08T06:59:59Z"), "2026-03-07T07:30:00Z");
}

#[test]
fn leap_days_are_met_and_impossible_days_refused() {
    assert_eq!(times("0 0 29 2 *", "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        assert_eq!(Schedule::parse(never).unwrap_err().code, Code::NeverDue, "{never}");
    }
    // With a weekday the other half of the either-or still comes due.
    assert!(Schedule::parse("0 0 30 2 MON").is_ok());
}

#[test]
fn the_faulty_field_is_named() {
    assert!(because("61 * * * *").contains("minute `61`"));
    assert!(because("0 24 * * *").contains("hour `24`"));
    assert!(because("0 0 0 * *").contains("day of month `0`"));
    assert!(because("0 0 L * *").contains("day of month `L`"));
    assert!(because("0 0 1 13 *").contains("month `13`"));
    assert!(because("0 0 * * 8").contains("day of week `8`"));
    assert!(because("CRON_TZ=Europe/Pariss 0 0 * * *").contains("`Europe/Pariss` is not a time zone"));
    assert!(because("CRON_TZ=Europe/Paris @every 1h").contains("leave CRON_TZ out"));
}

#[test]
fn a_field_for_seconds_is_pointed_out() {
    let fault = Schedule::parse("0 0 2 * * *").unwrap_err();
    assert_eq!(fault.hint.as_deref(), Some("there is no field for seconds: did you mean `0 2 * * *`?"));
    assert_eq!(Schedule::parse("@dayly").unwrap_err().hint.as_deref(), Some("did you mean `@daily`?"));
    for text in
        ["", "@", "@reboot", "@every", "@every 10s", "@every 1m1ms", "* * * *", "CRON_TZ=", "CRON_TZ=UTC"]
    {
        assert!(Schedule::parse(text).is_err(), "{text}");
    }
}

fn field(low: u32, high: u32) -> BoxedStrategy<String> {
    let number = low..=high;
    prop_oneof![
        Just("*".to_owned()),
        number.clone().prop_map(|n| n.to_string()),
        (number.clone(), number.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        (1..=high).prop_map(|n| format!("*/{n}")),
        prop::collection::vec(number, 1..4).prop_map(|ns| ns
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",")),
    ]
    .boxed()
}

fn any_cron() -> impl Strategy<Value = String> {
    let zones = prop_oneof![
        Just(""),
        Just("CRON_TZ=Europe/Paris "),
        Just("CRON_TZ=America/St_Johns "),
        Just("CRON_TZ=Australia/Lord_Howe ")
    ];
    // Days up to 28 so that every expression comes due.
    (zones, field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6))
        .prop_map(|(zone, m, h, d, month, w)| format!("{zone}{m} {h} {d} {month} {w}"))
}

/// Whether one field, with lists of ranges and steps, holds a number: the definition, without any calendar.
fn holds(field: &str, number: u32) -> bool {
    field.split(',').any(|item| {
        let (range, step) = item.split_once('/').map_or((item, 1), |(r, s)| (r, s.parse().unwrap()));
        match range.split_once('-') {
            _ if range == "*" => number.is_multiple_of(step),
            Some((low, high)) => (low.parse().unwrap()..=high.parse().unwrap()).contains(&number),
            None => range.parse() == Ok(number),
        }
    })
}

proptest! {
    #[test]
    fn every_valid_schedule_round_trips(text in any_cron()) {
        let schedule = Schedule::parse(&text).unwrap();
        prop_assert_eq!(&Schedule::parse(&schedule.to_string()).unwrap(), &schedule);
    }

    #[test]
    fn the_next_time_is_later_and_steady(text in any_cron(), second in 0_i64..3_700_000_000) {
        let schedule = Schedule::parse(&text).unwrap();
        let after = Timestamp::from_second(second).unwrap();
        let next = schedule.next_after(after).unwrap();
        prop_assert!(next > after);
        // Asked from anywhere in between, the answer is the same.
        let between = Timestamp::from_second(i64::midpoint(second, next.as_second())).unwrap();
        prop_assert_eq!(schedule.next_after(between), Some(next));
    }

    // From 2011 on: the rarest days come every 28 years, and schedules know none from before 1970.
    #[test]
    fn the_last_time_is_the_one_before_the_next(text in any_cron(), second in 1_300_000_000_i64..3_700_000_000) {
        let schedule = Schedule::parse(&text).unwrap();
        let now = Timestamp::from_second(second).unwrap();
        let last = schedule.last_at(now).unwrap();
        prop_assert!(last <= now);
        prop_assert!(schedule.next_after(last).unwrap() > now);
        prop_assert_eq!(schedule.last_at(last), Some(last));
    }

    #[test]
    fn in_utc_it_is_the_first_minute_that_the_fields_hold(
        m in field(0, 59), h in field(0, 23), w in field(0, 6), minute in 0_i64..60_000_000,
    ) {
        let schedule = Schedule::parse(&format!("{m} {h} * * {w}")).unwrap();
        let after = Timestamp::from_second(minute * 60).unwrap();
        let due = (minute + 1..).map(|n| n * 60).find(|second| {
            let at = Timestamp::from_second(*second).unwrap().to_zoned(TimeZone::UTC);
            let weekday = u32::try_from(at.weekday().to_sunday_zero_offset()).unwrap();
            holds(&m, u32::try_from(at.minute()).unwrap())
                && holds(&h, u32::try_from(at.hour()).unwrap())
                && holds(&w, weekday)
        });
        prop_assert_eq!(schedule.next_after(after).map(|t| t.as_second()), due);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,32}", fields in "[0-9A-Za-z*,/@=; -]{0,24}") {
        let _ = Schedule::parse(&text);
        let _ = Schedule::parse(&fields);
    }
}
