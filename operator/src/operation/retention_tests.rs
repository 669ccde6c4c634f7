//! Tests of [`super`].

use std::collections::BTreeSet;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::operation::catalogue::{Entry, Origin};
use crate::operation::record::OpId;
use crate::policy;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn backup(taken: Timestamp) -> Backup {
    let entry = Entry {
        schema: Entry::version(None),
        id: taken.strftime("%Y%m%dt%H%M%S").to_string(),
        operation: OpId::new(taken, ""),
        service: "shop_db".to_owned(),
        service_id: "s".to_owned(),
        engine: "postgres".to_owned(),
        database: "shop".to_owned(),
        store: "default".to_owned(),
        dir: String::new(),
        manifest_sha256: String::new(),
        size: 0,
        taken,
        purpose: Purpose::Regular,
        node: None,
        origin: Origin::Made,
        inner: None,
        base: None,
    };
    Backup {
        config: String::new(),
        version: 1,
        entry,
        verified: Some(taken),
        proved: None,
        loaded: None,
        restore_seconds: None,
        drill_failed: None,
        removing: None,
        spoilt: None,
        copies: Vec::new(),
    }
}

fn rules(keep: &str, zone: &str) -> Rules {
    let schedule = format!("CRON_TZ={zone} 0 2 * * *");
    let labels = [
        ("skep.enable", "true"),
        ("skep.data", "postgres"),
        ("skep.backup.schedule", &schedule),
        ("skep.backup.keep", keep),
    ];
    let parsed = policy::parse(&labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    Rules::of(&parsed.policy).unwrap_or_else(|| panic!("{:?}", parsed.problems))
}

/// The times of those that stay, the oldest first.
fn staying(rules: &Rules, backups: &[Backup], now: Timestamp) -> Vec<Timestamp> {
    let verdicts = rules.judge(backups, now);
    verdicts.iter().rev().filter(|v| !v.goes()).map(|v| v.backup.entry.taken).collect()
}

fn days(rules: &Rules, backups: &[Backup], now: &str) -> Vec<String> {
    let stays = staying(rules, backups, at(now));
    stays.iter().map(|t| t.strftime("%m-%d").to_string()).collect()
}

/// One a day at 02:00 UTC, that many until the end of January 2026.
fn nightly(count: i64) -> Vec<Backup> {
    (0..count).map(|n| backup(at("2026-01-31T02:00:00Z") - SignedDuration::from_hours(24 * n))).collect()
}

#[test]
fn days_weeks_and_months_keep_the_newest_of_each() {
    let all = nightly(120);
    let kept = days(&rules("3 daily, 3 weekly, 3 monthly", "UTC"), &all, "2026-01-31T03:00:00Z");
    // The 31st is a Saturday; weeks end on Sundays: the 25th and the 18th; months on their last day.
    assert_eq!(kept, ["11-30", "12-31", "01-18", "01-25", "01-29", "01-30", "01-31"]);
    let kept = days(&rules("2 last, 2 yearly", "UTC"), &all, "2026-01-31T03:00:00Z");
    assert_eq!(kept, ["12-31", "01-30", "01-31"]);
}

#[test]
fn reasons_say_which_rules_keep_a_backup_and_of_which_day_or_week() {
    let all = nightly(10);
    let verdicts =
        rules("1 last, 2 daily, 2 weekly, 1 monthly", "UTC").judge(&all, at("2026-01-31T03:00:00Z"));
    let said = |nth: usize| match &verdicts[nth].fate {
        Fate::Stays(reasons) => reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        Fate::Goes(cause) => format!("goes: {cause}"),
    };
    assert_eq!(
        said(0),
        "the newest verified; one of the last 1; daily (2026-01-31); weekly (2026-W05); monthly (2026-01)"
    );
    assert_eq!(said(1), "daily (2026-01-30)");
    assert_eq!(said(2), "goes: no rule keeps it");
    assert_eq!(said(6), "weekly (2026-W04)");
}

#[test]
fn days_without_a_backup_do_not_count() {
    let all: Vec<Backup> = nightly(100).into_iter().step_by(30).collect();
    assert_eq!(days(&rules("3 daily", "UTC"), &all, "2026-01-31T03:00:00Z"), ["12-02", "01-01", "01-31"]);
    // Long after the last one, too: nothing goes only because time passes.
    assert_eq!(days(&rules("3 daily", "UTC"), &all, "2030-01-01T00:00:00Z"), ["12-02", "01-01", "01-31"]);
}

#[test]
fn days_begin_where_the_schedule_is() {
    // 23:30 and 00:30 in Paris: one day in UTC, two in Paris.
    let all = [backup(at("2026-01-30T22:30:00Z")), backup(at("2026-01-30T23:30:00Z"))];
    let now = at("2026-01-31T12:00:00Z");
    assert_eq!(staying(&rules("7 daily", "UTC"), &all, now).len(), 1);
    assert_eq!(staying(&rules("7 daily", "Europe/Paris"), &all, now).len(), 2);
    // An hour that the clock shows twice is two hours.
    let twice = [backup(at("2026-10-25T00:30:00Z")), backup(at("2026-10-25T01:30:00Z"))];
    assert_eq!(staying(&rules("7 hourly", "Europe/Paris"), &twice, now).len(), 2);
}

#[test]
fn the_newest_verified_and_the_newest_proved_stay_whatever_the_rules_say() {
    let mut all = nightly(6);
    all[0].verified = None;
    all[3].proved = Some(all[3].entry.taken);
    all[4].proved = Some(at("2026-01-30T00:00:00Z"));
    let verdicts = rules("1 last", "UTC").judge(&all, at("2026-01-31T03:00:00Z"));
    let stays: Vec<bool> = verdicts.iter().map(|v| !v.goes()).collect();
    assert_eq!(stays, [true, true, false, true, false, false]);
    assert_eq!(verdicts[0].fate, Fate::Stays(vec![Reason::NeverVerified]));
    assert!(matches!(&verdicts[1].fate, Fate::Stays(r) if r.contains(&Reason::NewestVerified)));
    assert_eq!(verdicts[3].fate, Fate::Stays(vec![Reason::NewestProved]));
}

#[test]
fn safety_backups_stay_as_long_as_what_a_restore_replaced_and_take_no_other_ones_place() {
    let mut all = nightly(3);
    all[0].entry.purpose = Purpose::Safety;
    let keep = rules("1 last", "UTC");
    let fates = |now: &str| -> Vec<bool> { keep.judge(&all, at(now)).iter().map(|v| !v.goes()).collect() };
    assert_eq!(fates("2026-02-07T01:59:59Z"), [true, true, false]);
    assert_eq!(fates("2026-02-07T02:00:00Z"), [false, true, false]);
    // Labels of the restore that cannot be read tell no time.
    let unknown = Rules { safety: None, ..keep.clone() };
    assert!(!unknown.judge(&all, at("2036-02-07T02:00:00Z"))[0].goes());
}

#[test]
fn what_is_being_removed_goes_on_going_and_stands_for_nothing() {
    let mut all = nightly(3);
    all[0].removing = Some(at("2026-01-31T02:30:00Z"));
    let verdicts = rules("1 last", "UTC").judge(&all, at("2026-01-31T03:00:00Z"));
    assert_eq!(verdicts[0].fate, Fate::Goes(Cause::BeingRemoved));
    assert!(matches!(&verdicts[1].fate, Fate::Stays(r) if r.contains(&Reason::NewestVerified)));
}

#[test]
fn without_sound_labels_there_are_no_rules() {
    for (key, value) in [("skep.backup.keep", "seven"), ("skep.data", "nonsense")] {
        let mut labels = BTreeMap::from([
            ("skep.enable".to_owned(), "true".to_owned()),
            ("skep.data".to_owned(), "postgres".to_owned()),
        ]);
        labels.insert(key.to_owned(), value.to_owned());
        assert_eq!(Rules::of(&policy::parse(&labels).policy), None, "{key}");
    }
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let counts = prop::array::uniform6(0_u32..6);
    let zones = prop_oneof![
        Just("UTC"),
        Just("Europe/Paris"),
        Just("America/St_Johns"),
        Just("Pacific/Apia"),
        Just("Asia/Kathmandu")
    ];
    (counts, zones).prop_filter_map("at least one rule", |(counts, zone)| {
        let keep: Vec<String> = Period::ALL
            .iter()
            .zip(counts)
            .filter(|(_, n)| *n > 0)
            .map(|(per, n)| format!("{n} {per}"))
            .collect();
        (!keep.is_empty()).then(|| rules(&keep.join(", "), zone))
    })
}

/// Backups in order, from minutes to months apart, beginning in 2011: Samoa skips a day at its end.
fn any_backups() -> impl Strategy<Value = Vec<Backup>> {
    let pause = prop_oneof![1_i64..120, 60_i64..3_000, 1_000_i64..60_000];
    prop::collection::vec((pause, 0_u8..10), 1..80).prop_map(|pauses| {
        let mut now = at("2011-11-01T00:00:00Z");
        let mut all = Vec::new();
        for (pause, luck) in pauses {
            now += SignedDuration::from_mins(pause);
            let mut one = backup(now);
            one.verified = (luck > 0).then_some(now);
            one.proved = (luck == 1).then_some(now);
            if luck == 2 {
                one.entry.purpose = Purpose::Safety;
            }
            all.push(one);
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn some_verified_backup_stays_and_the_newest_of_all_does(rules in any_rules(), all in any_backups()) {
        let now = all.last().unwrap().entry.taken;
        let good = |b: &&Backup| b.verified.is_some() && b.entry.purpose == Purpose::Regular;
        let stays: BTreeSet<Timestamp> = staying(&rules, &all, now).into_iter().collect();
        let newest = all.iter().filter(good).map(|b| b.entry.taken).max();
        prop_assert!(newest.is_none_or(|t| stays.contains(&t)));
        let proved = all.iter().filter(good).filter(|b| b.proved.is_some()).map(|b| b.entry.taken).max();
        prop_assert!(proved.is_none_or(|t| stays.contains(&t)));
        prop_assert!(all.iter().filter(|b| b.verified.is_none() && b.entry.purpose == Purpose::Regular)
            .all(|b| stays.contains(&b.entry.taken)));
    }

    #[test]
    fn every_rule_keeps_its_number_as_far_as_there_are_so_many(rules in any_rules(), all in any_backups()) {
        let now = all.last().unwrap().entry.taken;
        let good: Vec<&Backup> = all.iter().filter(|b| b.verified.is_some() && b.entry.purpose == Purpose::Regular).collect();
        let verdicts = rules.judge(&all, now);
        for rule in &rules.keep {
            let kept = verdicts.iter().filter(|v| match &v.fate {
                Fate::Stays(reasons) => reasons.iter().any(|r| matches!(r, Reason::Rule { rule: r, .. } if r == rule)),
                Fate::Goes(_) => false,
            });
            let slots: BTreeSet<String> = good.iter().map(|b| slot(rule.per, &rules.zone, &b.entry.id, b.entry.taken)).collect();
            prop_assert_eq!(kept.count(), slots.len().min(usize::try_from(rule.count).unwrap()), "{}", rule);
        }
    }

    #[test]
    fn pruning_after_each_backup_keeps_what_pruning_once_at_the_end_keeps(rules in any_rules(), all in any_backups()) {
        // Being proved is not for ever: the newest proved one changes, so it is left out here.
        let all: Vec<Backup> = all.into_iter().map(|b| Backup { proved: None, ..b }).collect();
        let mut there: Vec<Backup> = Vec::new();
        let mut now = at("2011-11-01T00:00:00Z");
        for one in &all {
            now = one.entry.taken;
            there.push(one.clone());
            let stays: BTreeSet<Timestamp> = staying(&rules, &there, now).into_iter().collect();
            there.retain(|b| stays.contains(&b.entry.taken));
        }
        let kept: Vec<Timestamp> = there.iter().map(|b| b.entry.taken).collect();
        prop_assert_eq!(kept, staying(&rules, &all, now));
        // And once more changes nothing.
        prop_assert!(rules.judge(&there, now).iter().all(|v| !v.goes()));
    }

    #[test]
    fn a_rule_that_keeps_more_never_keeps_less(rules in any_rules(), all in any_backups(), more in 1_u32..4) {
        let now = all.last().unwrap().entry.taken;
        let mut wider = rules.clone();
        wider.keep.iter_mut().for_each(|k| k.count += more);
        let few: BTreeSet<Timestamp> = staying(&rules, &all, now).into_iter().collect();
        let many: BTreeSet<Timestamp> = staying(&wider, &all, now).into_iter().collect();
        prop_assert!(few.is_subset(&many));
    }
}
