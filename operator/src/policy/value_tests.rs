//! Tests of [`super`].

use proptest::prelude::*;

use super::*;

fn code<T>(result: Result<T, Fault>) -> Option<Code> {
    result.err().map(|f| f.code)
}

fn hint<T>(result: Result<T, Fault>) -> Option<String> {
    result.err().and_then(|f| f.hint)
}

#[test]
fn a_request_is_held_no_longer_than_a_waker_holds_one() {
    assert_eq!(wake_timeout("1h"), Ok(Duration::from_secs(3600)));
    for text in ["61m", "0s", "soon"] {
        assert_eq!(wake_timeout(text).map_err(|fault| fault.code), Err(Code::BadDuration), "{text}");
    }
}

#[test]
fn only_true_and_false_are_flags_and_the_others_are_explained() {
    assert_eq!((flag("true"), flag("false")), (Ok(true), Ok(false)));
    for (text, meant) in [
        ("yes", "true"),
        ("True", "true"),
        ("on", "true"),
        ("1", "true"),
        ("off", "false"),
        ("flase", "false"),
    ] {
        assert_eq!(hint(flag(text)), Some(format!("did you mean `{meant}`?")), "{text}");
    }
    assert_eq!(code(flag("")), Some(Code::BadFlag));
}

#[test]
fn words_of_a_closed_set_are_taken_and_near_ones_named() {
    assert_eq!(restore_mode("auto"), Ok(RestoreMode::Auto));
    assert_eq!(hint(restore_mode("automatic")), None);
    assert_eq!(hint(restore_mode("aprove")).as_deref(), Some("did you mean `approve`?"));
    assert_eq!(hint(strategy("inplace")).as_deref(), Some("did you mean `in-place`?"));
    assert_eq!(maintenance_mode("proxy"), Ok(MaintenanceMode::Proxy));
    assert_eq!(hint(maintenance_mode("swop")).as_deref(), Some("did you mean `swap`?"));
    for later in ["standin", "config:shop_nginx"] {
        assert_eq!(code(maintenance_mode(later)), Some(Code::NotYet), "{later}");
    }
    assert_eq!(engine("postgresql"), Ok(Engine::Postgres));
    assert_eq!(engine("mongodb"), Ok(Engine::Mongodb));
    assert_eq!(hint(engine("postgers")).as_deref(), Some("did you mean `postgres`?"));
}

#[test]
fn numbers_keep_their_bounds() {
    assert_eq!(ports("8080, 8443"), Ok(vec![8080, 8443]));
    for text in ["0", "65536", "-1", "+80", "80,80", "80,", "", "８０", "http"] {
        assert!(ports(text).is_err(), "{text}");
    }
    assert_eq!((status("200"), code(status("20"))), (Ok(200), Some(Code::BadNumber)));
    assert_eq!(hint(seconds("2m")).as_deref(), Some("did you mean `120`?"));
}

#[test]
fn limits_have_a_count_and_a_window() {
    assert_eq!(limit("2/24h"), Ok(Limit { count: 2, window: Duration::from_secs(86_400) }));
    for text in ["2", "0/24h", "/24h", "2/", "2/0s", "x/1h", "2/24"] {
        assert_eq!(code(limit(text)), Some(Code::BadLimit), "{text}");
    }
    assert!(hint(limit("0/24h")).unwrap().contains("skep.restore.mode=observe"));
    assert_eq!(hint(limit("2/24")).as_deref(), Some("did you mean `24s`?"));
}

#[test]
fn retentions_are_read_and_near_ones_named() {
    assert_eq!(keep("7 daily,4  weekly").unwrap().show(), "7 daily, 4 weekly");
    for (text, meant) in [
        ("7 day", "7 daily"),
        ("7d", "7 daily"),
        ("4 weeks", "4 weekly"),
        ("7 dayly", "7 daily"),
        ("daily 7", "7 daily"),
        ("12m", "12 monthly"),
    ] {
        assert_eq!(hint(keep(text)), Some(format!("did you mean `{meant}`?")), "{text}");
    }
    for text in ["", "7", "0 daily", "7 daily, 3 daily", "7 daily,", "all", "7 daily; 4 weekly"] {
        assert_eq!(code(keep(text)), Some(Code::BadKeep), "{text}");
    }
}

#[test]
fn names_are_checked_and_spaces_in_lists_explained() {
    assert_eq!(service_names("db, shop_cache"), Ok(vec!["db".to_owned(), "shop_cache".to_owned()]));
    assert_eq!(hint(service_names("db cache")).as_deref(), Some("names in a list are separated by commas"));
    assert_eq!(code(service_names("db,db")), Some(Code::Conflict));
    for text in ["", "a/b", "é", &"x".repeat(64)] {
        assert!(service_name(text).is_err(), "{text}");
    }
    assert_eq!(code(short_name("NAS")), Some(Code::BadName));
    for text in ["", "skep_shop", "template1", "a\nb", &"x".repeat(64)] {
        assert_eq!(code(database(text)), Some(Code::BadName), "{text}");
    }
}

#[test]
fn addresses_are_those_of_mail() {
    assert_eq!(addresses("dba@example.org,ops@example.org").unwrap().len(), 2);
    assert_eq!(
        hint(addresses("The DBA <dba@example.org>")).as_deref(),
        Some("did you mean `dba@example.org`?")
    );
    assert_eq!(
        hint(addresses("a@example.org b@example.org")).as_deref(),
        Some("addresses are separated by commas")
    );
    for text in ["dba", "@example.org", "a@b@c", "a@example.org\r\nBcc: x@example.org"] {
        assert_eq!(code(addresses(text)), Some(Code::BadAddress), "{text}");
    }
}

#[test]
fn several_schedules_are_split_and_agree_on_having_a_zone() {
    assert_eq!(schedules("@daily; 0 12 * * *").unwrap().len(), 2);
    assert_eq!(schedules("CRON_TZ=Europe/Paris @daily; @every 1h").unwrap().len(), 2);
    assert_eq!(code(schedules("CRON_TZ=Europe/Paris @daily; 0 12 * * *")), Some(Code::BadSchedule));
    assert_eq!(code(schedules("@daily;")), Some(Code::BadSchedule));
}

proptest! {
    #[test]
    fn every_valid_value_round_trips(
        names in prop::collection::btree_set("[a-zA-Z0-9_.-]{1,12}", 1..4),
        count in 1_u32..1_000, window in 1_u64..10_000_000, periods in prop::sample::subsequence(Period::ALL.to_vec(), 1..6),
        many in prop::collection::btree_set(1_u16.., 1..4), on in any::<bool>(),
    ) {
        let names: Vec<String> = names.into_iter().collect();
        prop_assert_eq!(service_names(&names.show()), Ok(names));
        let rate = Limit { count, window: Duration::from_millis(window) };
        prop_assert_eq!(limit(&rate.show()), Ok(rate));
        let rules: Vec<Keep> = periods.into_iter().map(|per| Keep { count, per }).collect();
        prop_assert_eq!(keep(&rules.show()), Ok(rules));
        let many: Vec<u16> = many.into_iter().collect();
        prop_assert_eq!(ports(&many.show()), Ok(many));
        prop_assert_eq!(flag(&on.show()), Ok(on));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,32}", near in "[0-9a-z,;:/@ -]{0,24}") {
        for text in [&text, &near] {
            let _ = (flag(text), limit(text), keep(text), service_names(text), ports(text), seconds(text));
            let _ = (addresses(text), schedules(text), maintenance_mode(text), engine(text));
            let _ = (database(text), alerts(text), sql(text), restore_mode(text), strategy(text));
        }
    }
}
