//! Tests of [`super`].

use std::collections::BTreeMap;
use std::time::Duration;

use skep_runner::task::Expect;

use super::*;
use crate::policy::keys::Kind;
use crate::policy::types::*;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

/// With `skep.enable=true`, which would otherwise be missed in every test.
fn enabled(pairs: &[(&str, &str)]) -> Parsed {
    let mut all = labels(pairs);
    all.insert("skep.enable".to_owned(), "true".to_owned());
    parse(&all)
}

fn database(pairs: &[(&str, &str)]) -> Parsed {
    let mut all = vec![("skep.data", "postgres")];
    all.extend(pairs);
    enabled(&all)
}

fn codes(parsed: &Parsed) -> Vec<(&str, Code)> {
    parsed.problems.iter().map(|p| (p.key.as_str(), p.code)).collect()
}

#[test]
fn a_check_of_the_phase_before_is_none_of_those_that_are_asked_afterwards() {
    let base = [("skep.restore.mode", "auto"), ("skep.check.open.sql", "SELECT 0")];
    let names = |checks: &[Check]| checks.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    let after = database(&base).policy;
    assert_eq!((names(&after.checks), after.before.len()), (vec!["open".to_owned()], 0));
    let before = database(&[&base[..], &[("skep.check.open.phase", "before")]].concat());
    assert_eq!((before.policy.checks.len(), names(&before.policy.before)), (0, vec!["open".to_owned()]));
    let auto = ("skep.restore.mode", Code::AutoWithoutCheck);
    assert_eq!(codes(&before), [auto], "it tells nothing of restored data");
    let faulty = enabled(&[("skep.check.open.tcp", "1"), ("skep.check.open.phase", "befor")]);
    assert!(faulty.policy.checks.is_empty() && faulty.policy.before.is_empty(), "it is not guessed");
    assert_eq!(codes(&faulty), [("skep.check.open.phase", Code::BadChoice)]);
}

#[test]
fn a_service_without_labels_asks_for_nothing_and_has_no_problem() {
    let parsed = parse(&labels(&[
        ("com.docker.stack.namespace", "shop"),
        ("traefik.enable", "true"),
        ("skeptic", "x"),
    ]));
    assert_eq!(parsed, Parsed { policy: Policy { ..Policy::default() }, problems: vec![] });
    assert!(!parsed.policy.enabled && !parsed.policy.paused);
}

#[test]
fn a_fully_labelled_database_is_understood() {
    let parsed = database(&[
        ("skep.notify", "dba@example.org, ops@example.org"),
        ("skep.data.database", "shop"),
        ("skep.backup.schedule", "CRON_TZ=Europe/Paris 15 2 * * *; CRON_TZ=Europe/Paris 0 14 * * 1-5"),
        ("skep.backup.store", "nas"),
        ("skep.backup.keep", "7 daily, 4 weekly"),
        ("skep.drill.schedule", "30 4 * * *; @weekly"),
        ("skep.restore.on-alert", "PostgresCorrupted, ShopRowsGone"),
        ("skep.restore.mode", "auto"),
        ("skep.restore.lookback", "10m"),
        ("skep.restore.clients", "app,worker"),
        ("skep.restore.flush", "cache"),
        ("skep.restore.canary", "false"),
        ("skep.check.rows.sql", "SELECT count(*) FROM users"),
        ("skep.check.rows.expect", "ge 1"),
    ]);
    assert_eq!(parsed.problems, []);
    let policy = parsed.policy;
    assert_eq!(policy.notify, ["dba@example.org", "ops@example.org"]);
    assert_eq!(policy.data.unwrap().database.as_deref(), Some("shop"));
    let backup = policy.backup.unwrap();
    assert_eq!(backup.schedules.len(), 2);
    assert_eq!(backup.keep[0], Keep { count: 7, per: Period::Daily });
    assert_eq!(policy.drill.unwrap().schedules.len(), 2);
    let restore = policy.restore.unwrap();
    assert_eq!(restore.on_alert, ["PostgresCorrupted", "ShopRowsGone"]);
    assert_eq!((restore.mode, restore.lookback), (RestoreMode::Auto, Duration::from_secs(600)));
    assert_eq!(restore.clients.as_deref(), Some(&["app".to_owned(), "worker".to_owned()][..]));
    assert_eq!((restore.canary, restore.quiesce, restore.strategy), (false, true, Strategy::Beside));
    assert_eq!(
        policy.checks,
        [Check {
            name: "rows".to_owned(),
            probe: CheckProbe::Sql { sql: "SELECT count(*) FROM users".to_owned(), expect: Expect::Ge(1.0) },
        }]
    );
}

#[test]
fn an_application_with_a_page_and_checks_is_understood() {
    let parsed = enabled(&[
        ("skep.depends-on", "db,cache"),
        ("skep.maintenance", "true"),
        ("skep.maintenance.port", "8080"),
        ("skep.check.health.http", "http://:8080/health"),
        ("skep.check.health.body", "\"ok\""),
        ("skep.check.port.tcp", "8080"),
        ("skep.check.port.within", "500ms"),
    ]);
    assert_eq!(parsed.problems, []);
    assert_eq!(parsed.policy.depends_on, ["db", "cache"]);
    assert_eq!(
        parsed.policy.maintenance,
        Some(Maintenance { mode: MaintenanceMode::Swap, ports: vec![8080], page: None, retry_after: 120 })
    );
    let [health, port] = parsed.policy.checks.as_slice() else { panic!("{:?}", parsed.policy.checks) };
    assert_eq!(
        health.probe,
        CheckProbe::Http {
            host: String::new(),
            port: 8080,
            path: "/health".to_owned(),
            status: 200,
            within: Duration::from_secs(2),
            body: Some("\"ok\"".to_owned()),
        }
    );
    assert_eq!(port.probe, CheckProbe::Tcp { port: 8080, within: Duration::from_millis(500) });
}

#[test]
fn data_alone_gives_backups_and_restores_by_hand() {
    let policy = database(&[]).policy;
    assert_eq!(policy.backup, Some(Backup::default()));
    assert_eq!(policy.restore, Some(Restore::default()));
    assert_eq!(policy.drill, Some(Drill { schedules: Vec::new() }));
    assert_eq!(Backup::default().schedules, []);
    assert_eq!((Restore::default().mode, Restore::default().on_alert.len()), (RestoreMode::Approve, 0));
}

#[test]
fn a_faulty_drill_schedule_turns_off_drills_alone() {
    let parsed = database(&[("skep.drill.schedule", "0 25 * * *"), ("skep.backup.schedule", "@daily")]);
    assert_eq!(codes(&parsed), [("skep.drill.schedule", Code::BadSchedule)]);
    assert!(parsed.policy.drill.is_none() && parsed.policy.backup.is_some());
}

#[test]
fn a_faulty_section_is_off_and_the_others_work() {
    let parsed = database(&[("skep.backup.keep", "7 day"), ("skep.restore.mode", "approve")]);
    assert_eq!(codes(&parsed), [("skep.backup.keep", Code::BadKeep)]);
    assert_eq!(parsed.problems[0].hint.as_deref(), Some("did you mean `7 daily`?"));
    assert!(parsed.policy.backup.is_none() && parsed.is_off(Section::Backup));
    assert!(parsed.policy.restore.is_some() && parsed.policy.data.is_some());
    assert_eq!(parsed.blocking().count(), 0);
}

#[test]
fn faults_in_what_guards_the_data_block_what_changes_it() {
    for (key, text, section) in [
        ("skep.depends-on", "db cache", Section::DependsOn),
        ("skep.data.database", "skep_x", Section::Data),
        ("skep.check.rows.sql", "", Section::Check),
        ("skep.maintenance", "yes", Section::Maintenance),
        ("skep.maintenance.retryafter", "1", Section::Maintenance),
        ("skep.dependson", "db", Section::DependsOn),
        ("skep.checks.rows.sql", "SELECT 1", Section::Check),
    ] {
        let parsed = database(&[(key, text)]);
        let blocking: BTreeSet<_> = parsed.blocking().map(|p| p.section).collect();
        assert_eq!(blocking, BTreeSet::from([section]), "{key}={text}: {:?}", parsed.problems);
    }
    for (key, text) in
        [("skep.notify", "x"), ("skep.backup.keep", "x"), ("skep.paused", "x"), ("skep.zzzzzzzzzz", "x")]
    {
        let parsed = database(&[(key, text)]);
        assert_eq!((parsed.problems.len(), parsed.blocking().count()), (1, 0), "{key}");
    }
}

#[test]
fn unknown_labels_name_the_nearest_known_one() {
    for (key, near) in [
        ("skep.enabled", "skep.enable"),
        ("skep_enable", "skep.enable"),
        ("SKEP.Enable", "skep.enable"),
        ("skep.backup.shedule", "skep.backup.schedule"),
        ("skep.backups.keep", "skep.backup.keep"),
        ("skep.restore.onalert", "skep.restore.on-alert"),
        ("skep.depends_on", "skep.depends-on"),
        ("skep.check.rows.sq", "skep.check.rows.sql"),
        ("skep.check.rows.expected", "skep.check.rows.expect"),
        ("skep.maintainance.port", "skep.maintenance.port"),
    ] {
        let parsed = enabled(&[(key, "x")]);
        let problem = parsed.problems.iter().find(|p| p.key == key).unwrap();
        assert_eq!(problem.code, Code::UnknownKey, "{key}");
        assert_eq!(problem.hint, Some(format!("did you mean `{near}`?")), "{key}");
    }
    assert_eq!(
        enabled(&[("skep.frobnicate.level", "x")]).problems[0].hint.as_deref(),
        Some("`skep labels` lists the labels")
    );
}

#[test]
fn labels_that_this_version_does_not_do_yet_are_never_ignored() {
    for spec in KEYS.iter().filter(|spec| !spec.is_done()) {
        let key = spec.with_name("self");
        let parsed = database(&[(&key, spec.example)]);
        let problem = parsed.problems.iter().find(|p| p.key == key && p.code == Code::NotYet);
        assert!(problem.is_some(), "{key}: {:?}", parsed.problems);
        assert!(parsed.is_off(spec.section), "{key}");
    }
}

#[test]
fn what_a_running_server_alone_tells_goes_in_place_and_is_asked_nothing() {
    for engine in [Engine::Rabbitmq, Engine::Mongodb] {
        let with = |more: &[(&str, &str)]| enabled(&[&[("skep.data", engine.as_str())], more].concat());
        let parsed = with(&[("skep.check.answers.tcp", "5672")]);
        assert_eq!(parsed.problems, []);
        assert_eq!(parsed.policy.restore.unwrap().strategy, Strategy::InPlace);
        for (label, code) in [
            (("skep.data.dump.command", "x"), Code::Conflict),
            (("skep.data.volumes", "mq"), Code::Conflict),
            (("skep.data.database", "x"), Code::Conflict),
            (("skep.restore.strategy", "beside"), Code::Conflict),
            (("skep.restore.quiesce", "false"), Code::Conflict),
            (("skep.restore.mode", "auto"), Code::AutoWithoutCheck),
            (("skep.check.a.sql", "SELECT 1"), Code::Conflict),
        ] {
            assert_eq!(codes(&with(&[label])), [(label.0, code)]);
        }
    }
}

#[test]
fn what_has_a_drill_may_have_it_by_schedule_and_nothing_else() {
    let problems = |engine: Engine| {
        let both = [("skep.data.dump.command", "x"), ("skep.data.load.command", "y")];
        let more = if engine == Engine::Command { &both[..] } else { &[] };
        let labels = [("skep.data", engine.as_str()), ("skep.drill.schedule", "@daily")];
        codes(&enabled(&[&labels[..], more].concat())).len()
    };
    let refused: Vec<Engine> = Engine::ALL.into_iter().filter(|engine| problems(*engine) > 0).collect();
    assert_eq!(refused, [Engine::Command]);
}

#[test]
fn commands_need_both_ends_and_go_in_place() {
    let dump = ("skep.data.dump.command", "vault save /dev/stdout");
    let load = ("skep.data.load.command", "vault restore /dev/stdin");
    let verify = ("skep.data.verify.command", "vault inspect");
    let with = |more: &[(&str, &str)]| enabled(&[&[("skep.data", "command")], more].concat());
    let parsed = with(&[dump, load, verify, ("skep.data.volumes", "vault")]);
    assert_eq!(parsed.problems, []);
    let data = parsed.policy.data.unwrap();
    let commands = data.commands.unwrap();
    assert_eq!((commands.dump.as_str(), commands.load.as_str()), (dump.1, load.1));
    assert_eq!((commands.verify.as_deref(), data.volumes.len()), (Some(verify.1), 1));
    assert_eq!(parsed.policy.restore.unwrap().strategy, Strategy::InPlace);
    for (labels, faulty) in [
        (vec![load], ("skep.data.dump.command", Code::MissingKey)),
        (vec![dump], ("skep.data.load.command", Code::MissingKey)),
        (vec![dump, load, ("skep.data.verify.command", " ")], ("skep.data.verify.command", Code::BadText)),
        (vec![dump, load, ("skep.data.database", "x")], ("skep.data.database", Code::Conflict)),
        (vec![dump, load, ("skep.restore.strategy", "beside")], ("skep.restore.strategy", Code::Conflict)),
        (vec![dump, load, ("skep.restore.quiesce", "false")], ("skep.restore.quiesce", Code::Conflict)),
        (vec![dump, load, ("skep.restore.mode", "auto")], ("skep.restore.mode", Code::AutoWithoutCheck)),
        (vec![dump, load, ("skep.check.a.sql", "SELECT 1")], ("skep.check.a.sql", Code::Conflict)),
    ] {
        assert_eq!(codes(&with(&labels)), [faulty], "{labels:?}");
    }
    assert_eq!(codes(&database(&[dump])), [("skep.data.dump.command", Code::Conflict)]);
}

#[test]
fn labels_without_enable_are_pointed_out() {
    let parsed = parse(&labels(&[("skep.data", "postgres")]));
    assert_eq!(codes(&parsed), [("skep.enable", Code::NotEnabled)]);
    assert!(!parsed.policy.enabled);
    assert_eq!(parse(&labels(&[("skep.enable", "false"), ("skep.data", "postgres")])).problems, []);
}

#[test]
fn a_faulty_pause_counts_as_paused_and_a_faulty_enable_as_not_enabled() {
    assert!(enabled(&[("skep.paused", "ture")]).policy.paused);
    assert!(!enabled(&[]).policy.paused);
    assert!(!parse(&labels(&[("skep.enable", "yes")])).policy.enabled);
}

#[test]
fn what_needs_another_label_says_which() {
    for (key, text) in [
        ("skep.data.database", "shop"),
        ("skep.backup.keep", "7 daily"),
        ("skep.restore.mode", "approve"),
        ("skep.check.a.sql", "SELECT 1"),
    ] {
        let parsed = enabled(&[(key, text)]);
        assert_eq!(codes(&parsed), [(key, Code::MissingKey)], "{key}");
    }
    assert_eq!(
        codes(&enabled(&[("skep.maintenance", "true")])),
        [("skep.maintenance.port", Code::MissingKey)]
    );
    assert_eq!(
        codes(&enabled(&[("skep.maintenance.mode", "proxy")])),
        [("skep.maintenance", Code::MissingKey)]
    );
    assert_eq!(enabled(&[("skep.maintenance", "true"), ("skep.maintenance.mode", "proxy")]).problems, []);
    assert_eq!(
        enabled(&[("skep.maintenance", "false"), ("skep.maintenance.retry-after", "60")]).problems,
        []
    );
}

#[test]
fn a_command_is_a_check_with_a_time_of_its_own() {
    let parsed = enabled(&[
        ("skep.check.self.command", "/app/selftest --of $SKEP_HOST"),
        ("skep.check.self.expect", "eq ok"),
        ("skep.check.idle.command", "/app/jobs"),
        ("skep.check.idle.timeout", "5s"),
        ("skep.check.idle.phase", "before"),
    ]);
    assert_eq!(parsed.problems, []);
    let command = |command: &str, expect, seconds| CheckProbe::Command {
        command: command.to_owned(),
        expect,
        within: Duration::from_secs(seconds),
    };
    let expect = Expect::Eq("ok".to_owned());
    assert_eq!(parsed.policy.checks[0].probe, command("/app/selftest --of $SKEP_HOST", expect, 60));
    assert_eq!(parsed.policy.before[0].probe, command("/app/jobs", Expect::Any, 5));
    for (label, code) in [
        (("skep.check.self.within", "5s"), Code::CheckSetting),
        (("skep.check.self.expect", "matches ^ok"), Code::Conflict),
        (("skep.check.self.tcp", "80"), Code::CheckKinds),
        (("skep.check.self.timeout", "soon"), Code::BadDuration),
    ] {
        let parsed = enabled(&[("skep.check.self.command", "/app/selftest"), label]);
        assert_eq!(codes(&parsed).iter().map(|(_, code)| *code).collect::<Vec<_>>(), [code], "{label:?}");
    }
    // It asks the live service, so it tells nothing of what is restored beside it.
    let alone = database(&[("skep.restore.mode", "auto"), ("skep.check.a.command", "/app/selftest")]);
    assert_eq!(codes(&alone), [("skep.restore.mode", Code::AutoWithoutCheck)]);
}

#[test]
fn lines_of_a_log_are_counted_afterwards_and_compared_by_number() {
    let parsed = enabled(&[("skep.check.errors.log", "ERROR|FATAL"), ("skep.check.errors.expect", "le 5")]);
    assert_eq!(parsed.problems, []);
    let probe = CheckProbe::Log { log: "ERROR|FATAL".to_owned(), expect: Expect::Le(5.0) };
    assert_eq!(parsed.policy.checks[0].probe, probe);
    for (label, code) in [
        (("skep.check.errors.expect", "matches x"), Code::Conflict),
        (("skep.check.errors.phase", "before"), Code::Conflict),
        (("skep.check.errors.timeout", "5s"), Code::CheckSetting),
    ] {
        let parsed = enabled(&[("skep.check.errors.log", "ERROR"), label]);
        assert_eq!(codes(&parsed), [(label.0, code)]);
    }
    let any = enabled(&[("skep.check.errors.log", ".*")]);
    assert_eq!(codes(&any), [("skep.check.errors.log", Code::BadRegex)]);
}

#[test]
fn auto_without_a_data_check_is_refused() {
    let bare = database(&[("skep.restore.mode", "auto"), ("skep.check.up.tcp", "5432")]);
    assert_eq!(codes(&bare), [("skep.restore.mode", Code::AutoWithoutCheck)]);
    assert!(bare.policy.restore.is_none());
    let checked = database(&[("skep.restore.mode", "auto"), ("skep.check.a.sql", "SELECT 1")]);
    assert_eq!(checked.problems, []);
    assert_eq!(checked.policy.data_checks().count(), 1);
}

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

#[test]
fn what_only_the_configuration_can_tell_is_told_once_it_is_known() {
    let labels = [
        ("skep.enable", "true"),
        ("skep.data", "postgres"),
        ("skep.backup.store", "clout"),
        ("skep.backup.copies", "nas, tape"),
        ("skep.backup.encrypt", RECIPIENT),
        ("skep.restore.mode", "auto"),
        ("skep.check.a.sql", "SELECT 1"),
    ];
    let spec = serde_json::json!({"Name": "shop_db", "Labels": BTreeMap::from(labels)});
    let service = crate::swarm::object::Service {
        id: "s".to_owned(),
        version: 1,
        spec,
        update: None,
        created: jiff::Timestamp::UNIX_EPOCH,
    };
    let found = |has_identity| {
        let services = [service.clone()];
        let policies = crate::policy::Policies::of(&services).known_to(&["cloud", "nas"], has_identity);
        let problems = policies.get("shop_db").unwrap().problems.clone();
        let of = |code| problems.iter().filter(|p| p.code == code).map(|p| p.got.clone()).collect::<Vec<_>>();
        (of(Code::UnknownStore), of(Code::EncryptWithoutIdentity).len())
    };
    let unknown = vec!["clout".to_owned(), "tape".to_owned()];
    assert_eq!(found(false), (unknown.clone(), 1));
    assert_eq!(found(true), (unknown, 0));
}

#[test]
fn encryption_without_an_identity_stands_against_what_restores_unattended() {
    let parsed = database(&[
        ("skep.backup.encrypt", RECIPIENT),
        ("skep.restore.mode", "auto"),
        ("skep.drill.schedule", "@daily"),
        ("skep.check.a.sql", "SELECT 1"),
    ]);
    let unattended = parsed.problems.iter().filter(|p| p.code == Code::EncryptWithoutIdentity);
    assert_eq!(unattended.count(), 2);
    let alone = database(&[("skep.backup.encrypt", RECIPIENT)]);
    assert_eq!(alone.problems, []);
    assert_eq!(alone.policy.backup.unwrap().encrypt, [RECIPIENT]);
    let wrong = database(&[("skep.backup.encrypt", "age1xyz")]);
    assert_eq!(codes(&wrong), [("skep.backup.encrypt", Code::BadName)]);
    assert!(wrong.policy.backup.is_none(), "an unencrypted backup is not what was asked for");
}

#[test]
fn labels_that_contradict_each_other_are_refused() {
    for (pairs, key) in [
        (
            &[("skep.restore.clients", "app,b"), ("skep.restore.ignore-clients", "b")][..],
            "skep.restore.ignore-clients",
        ),
        (&[("skep.restore.quiesce", "false"), ("skep.restore.strategy", "in-place")], "skep.restore.quiesce"),
        (&[("skep.restore.quiesce", "false"), ("skep.restore.canary", "true")], "skep.restore.canary"),
    ] {
        assert_eq!(codes(&database(pairs)), [(key, Code::Conflict)]);
    }
    assert_eq!(database(&[("skep.restore.quiesce", "false")]).problems, []);
}

#[test]
fn a_check_has_exactly_one_kind_and_only_its_own_settings() {
    assert_eq!(codes(&enabled(&[("skep.check.a.status", "200")])), [("skep.check.a", Code::CheckKinds)]);
    let two =
        database(&[("skep.check.a.tcp", "80"), ("skep.check.a.sql", "SELECT 1"), ("skep.check.b.tcp", "81")]);
    assert_eq!(codes(&two), [("skep.check.a", Code::CheckKinds)]);
    assert_eq!(two.problems[0].got, ".sql and .tcp");
    assert_eq!(two.policy.checks.len(), 1, "the other check still works");
    let strange = enabled(&[
        ("skep.check.a.tcp", "80"),
        ("skep.check.a.status", "200"),
        ("skep.check.a.expect", "ge 1"),
    ]);
    assert_eq!(
        codes(&strange),
        [("skep.check.a.expect", Code::CheckSetting), ("skep.check.a.status", Code::CheckSetting)]
    );
    assert_eq!(codes(&enabled(&[("skep.check.Rows.tcp", "80")])), [("skep.check.Rows.tcp", Code::BadName)]);
    assert_eq!(codes(&enabled(&[("skep.check.a.b.tcp", "80")])), [("skep.check.a.b.tcp", Code::UnknownKey)]);
}

#[test]
fn labels_that_only_skep_writes_are_refused() {
    assert_eq!(
        codes(&enabled(&[("skep.kind", "backup"), ("skep.op", "x")])),
        [("skep.kind", Code::ReservedKey), ("skep.op", Code::ReservedKey)]
    );
}

#[test]
fn a_password_in_a_label_is_not_repeated_in_the_problem() {
    let parsed = enabled(&[("skep.check.a.http", "http://root:hunter2@:8080/")]);
    assert!(!format!("{:?}", parsed.problems).contains("hunter2"));
}

#[test]
fn every_label_round_trips_by_its_example_and_default() {
    for spec in KEYS {
        let Take::Into(into) = spec.take else { continue };
        for text in [Some(spec.example), spec.default].into_iter().flatten() {
            let read = |text: &str| {
                let mut draft = Draft::default();
                let shown = into(&mut draft, "self", text)
                    .unwrap_or_else(|f| panic!("{}={text}: {f:?}", spec.pattern));
                assert_ne!(draft, Draft::default(), "{} puts its value nowhere", spec.pattern);
                (draft, shown)
            };
            let (draft, shown) = read(text);
            assert_eq!(read(&shown), (draft, shown.clone()), "{}={text} shows as {shown}", spec.pattern);
        }
    }
}

#[test]
fn every_row_of_the_table_is_complete_and_reachable() {
    for (index, spec) in KEYS.iter().enumerate() {
        let key = spec.with_name("self");
        assert_eq!(keys::find(&key).map(|(s, _)| s.pattern), Some(spec.pattern), "{key} is shadowed");
        assert_eq!(Section::of_group(key.split('.').nth(1).unwrap()), Some(spec.section), "{key}");
        assert!(spec.doc.ends_with('.') && !spec.example.is_empty() && spec.since == "0.1", "{key}");
        assert!(!KEYS[..index].iter().any(|other| other.pattern == spec.pattern), "{key} occurs twice");
        if spec.kind != Kind::Choice("") {
            assert!(!spec.kind.want().is_empty(), "{key}");
        }
    }
}

#[test]
fn what_an_engine_does_not_have_contradicts_its_label() {
    let conflicts = |all: &[(&str, &str)]| {
        let parsed = enabled(all);
        let found = parsed.problems.iter().filter(|p| p.code == Code::Conflict);
        found.map(|p| p.key.clone()).collect::<Vec<_>>()
    };
    let redis = ("skep.data", "redis");
    assert_eq!(conflicts(&[redis, ("skep.check.a.sql", "dbsize"), ("skep.check.a.expect", "ge 1")]), [""; 0]);
    assert_eq!(conflicts(&[redis, ("skep.check.a.sql", "FLUSHALL")]), ["skep.check.a.sql"]);
    let pattern = ("skep.check.a.expect", "matches x");
    assert_eq!(conflicts(&[redis, ("skep.check.a.sql", "GET x"), pattern]), ["skep.check.a.expect"]);
    assert_eq!(conflicts(&[redis, ("skep.data.database", "shop")]), ["skep.data.database"]);
    assert_eq!(conflicts(&[redis, ("skep.data.volumes", "v")]), ["skep.data.volumes"]);
    let volume = ("skep.data", "volume");
    assert_eq!(conflicts(&[volume, ("skep.data.volumes", "uploads, shop_other")]), [""; 0]);
    assert_eq!(conflicts(&[volume, ("skep.check.a.sql", "SELECT 1")]), ["skep.check.a.sql"]);
    assert_eq!(conflicts(&[volume, ("skep.data.database", "shop")]), ["skep.data.database"]);
    for engine in ["mysql", "mariadb", "redis", "volume"] {
        let data = ("skep.data", engine);
        assert_eq!(conflicts(&[data, ("skep.restore.strategy", "in-place")]), ["skep.restore.strategy"]);
        assert_eq!(conflicts(&[data, ("skep.restore.quiesce", "false")]), ["skep.restore.quiesce"]);
        assert_eq!(enabled(&[data]).policy.data.unwrap().engine.as_str(), engine);
    }
}

#[test]
fn files_are_never_restored_without_a_person() {
    let auto = ("skep.restore.mode", "auto");
    let parsed = enabled(&[("skep.data", "volume"), ("skep.restore.on-alert", "Lost"), auto]);
    assert_eq!(codes(&parsed), [("skep.restore.mode", Code::AutoWithoutCheck)]);
    assert!(parsed.problems[0].want.contains("`approve`"), "{:?}", parsed.problems);
}

#[test]
fn what_has_a_door_falls_asleep_without_an_expression_and_what_has_neither_does_not() {
    let wake = [("skep.scale.wake", "true"), ("skep.scale.wake.port", "8080")];
    let (after, door) = (("skep.scale.idle.after", "15m"), ("skep.scale.wake.door", "app-door"));
    let query = ("skep.scale.idle.query", "sum(x)");
    let with = |more: &[(&str, &str)]| enabled(&[&wake[..], more].concat());
    let parsed = with(&[after, door]);
    assert_eq!(parsed.problems, []);
    let scale = parsed.policy.scale.unwrap();
    assert_eq!(scale.door(), Some("app-door"));
    assert_eq!(scale.idle, Some(Idle { query: None, after: Duration::from_secs(900) }));
    let both = with(&[after, door, query]).policy.scale.unwrap().idle.unwrap();
    assert_eq!(both.query.as_deref(), Some("sum(x)"));
    assert_eq!(with(&[door]).policy.scale.unwrap().idle, None, "it only wakes it");
    assert_eq!(codes(&with(&[after])), [("skep.scale.idle.query", Code::MissingKey)]);
    let off = [("skep.scale.wake", "false"), after, door];
    assert_eq!(codes(&enabled(&off)), [("skep.scale.idle.query", Code::MissingKey)]);
    assert_eq!(codes(&enabled(&[door])), [("skep.scale.wake", Code::MissingKey)]);
    for bad in ["App", "app_door", "-door", "door-", "skep-door-x", "a.b", ""] {
        let parsed = with(&[("skep.scale.wake.door", bad)]);
        let told: Vec<&str> = codes(&parsed).into_iter().map(|(key, _)| key).collect();
        assert_eq!(told, ["skep.scale.wake.door"], "{bad}");
    }
    let kept = with(&[door, ("skep.scale.min", "1")]);
    assert_eq!(codes(&kept), [("skep.scale.min", Code::Conflict)]);
}

#[test]
fn no_door_stands_before_what_tells_sessions_apart() {
    let wake =
        [("skep.scale.wake", "true"), ("skep.scale.wake.tcp", "5432"), ("skep.scale.wake.door", "way-in")];
    let told = |engine: &'static str| codes(&enabled(&[&wake[..], &[("skep.data", engine)]].concat())).len();
    for engine in ["postgres", "mysql", "mariadb", "redis", "rabbitmq", "mongodb"] {
        assert_eq!(told(engine), 1, "{engine}");
    }
    assert_eq!(told("volume"), 0);
}
