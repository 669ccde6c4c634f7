//! Checks: by SQL against a real server, over the network against listeners on loopback.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use crate::support::{Cluster, Outcome, Runner, run_with};
use skep_runner::task::{
    CheckOutcome, Connect, Expect, NetCheck, NetChecks, Probe, RedisFlush, Report, SqlCheck, SqlChecks, Task,
};

/// Runs SQL checks named by their number.
fn ask(cluster: &Cluster, checks: &[(&str, Expect)]) -> Vec<CheckOutcome> {
    let checks = checks.iter().enumerate().map(|(number, (sql, expect))| SqlCheck {
        name: number.to_string(),
        sql: (*sql).into(),
        expect: expect.clone(),
    });
    let task = SqlChecks {
        connect: cluster.connect(),
        database: "app".into(),
        checks: checks.collect(),
        deadline_s: 0,
    };
    match run_with(cluster, Task::SqlChecks(task)).done() {
        Report::Checks { outcomes } => outcomes,
        other => panic!("{other:?}"),
    }
}

fn shop() -> Cluster {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE DATABASE app");
    cluster.sql("postgres", "ALTER DATABASE app SET search_path = shop");
    cluster.sql(
        "app",
        "CREATE SCHEMA shop; CREATE TABLE shop.users AS SELECT g AS id FROM generate_series(1, 12) g",
    );
    cluster
}

#[test]
fn the_first_column_of_the_first_row_is_compared() {
    let cluster = shop();
    let passing = [
        ("SELECT count(*) FROM users", Expect::Eq("12".into())),
        ("SELECT count(*) FROM users;", Expect::Eq("12.0".into())),
        ("SELECT count(*) FROM users", Expect::Ne("0".into())),
        ("SELECT id, 'x' FROM users ORDER BY id DESC", Expect::Lt(12.5)),
        ("SELECT 3 AS a, 4 AS b", Expect::Le(3.0)),
        ("SELECT count(*) FROM users", Expect::Gt(11.0)),
        ("SELECT count(*) FROM users", Expect::Ge(12.0)),
        ("SELECT 'it''s a \\ \"quote\"'", Expect::Eq("it's a \\ \"quote\"".into())),
        ("SELECT true", Expect::Eq("t".into())),
        ("SHOW server_version", Expect::Matches("^[0-9]+[.]".into())),
        ("SELECT NULL", Expect::Any),
        ("SELECT 1 WHERE false", Expect::Any),
    ];
    for (outcome, (sql, _)) in ask(&cluster, &passing).iter().zip(&passing) {
        assert!(outcome.passed, "{sql}: {}", outcome.detail);
    }
    let failing = [
        ("SELECT count(*) FROM users", Expect::Eq("13".into()), "found 12, wanted = 13"),
        ("SELECT 'many'", Expect::Ge(1.0), "found many"),
        ("SELECT 1 WHERE false", Expect::Ge(0.0), "no row"),
        ("SELECT NULL", Expect::Ne("1".into()), "NULL"),
        ("SELECT 'abc'", Expect::Matches("^b".into()), "wanted a match of ^b"),
        ("SELECT count(*) FROM no_such", Expect::Any, "relation \"no_such\" does not exist"),
    ];
    let asked: Vec<_> = failing.iter().map(|(sql, expect, _)| (*sql, expect.clone())).collect();
    for (outcome, (sql, _, detail)) in ask(&cluster, &asked).iter().zip(&failing) {
        assert!(!outcome.passed && outcome.detail.contains(detail), "{sql}: {}", outcome.detail);
    }
}

#[test]
fn no_check_can_change_anything_or_reach_beyond_its_transaction() {
    let cluster = shop();
    let touched = cluster.dir.join("touched");
    let shell = format!("SELECT 1\n\\! touch {}\n", touched.display());
    let attempts = [
        "DELETE FROM users RETURNING 1",
        "COMMIT; DELETE FROM shop.users; SELECT 1",
        "SELECT 1; COMMIT; DROP TABLE shop.users",
        "SELECT 1'; DROP TABLE shop.users; --",
        "SET TRANSACTION READ WRITE; DELETE FROM users RETURNING 1",
        "SELECT set_config('transaction_read_only', 'off', false) FROM (DELETE FROM users RETURNING 1) x",
        "DO 'BEGIN DELETE FROM shop.users; END'",
        &shell,
    ];
    let asked: Vec<_> = attempts.iter().map(|sql| (*sql, Expect::Any)).collect();
    for (outcome, sql) in ask(&cluster, &asked).iter().zip(attempts) {
        assert!(!outcome.passed, "{sql}: {}", outcome.detail);
    }
    assert_eq!(cluster.sql("app", "SELECT count(*) FROM users"), "12");
    assert!(!touched.exists());
}

#[test]
fn a_server_that_is_away_is_a_fault_and_not_a_failed_check() {
    let cluster = shop();
    let task = SqlChecks {
        connect: Connect { port: 1, ..cluster.connect() },
        database: "app".into(),
        checks: vec![],
        deadline_s: 0,
    };
    run_with(&cluster, Task::SqlChecks(task)).put_off();
}

#[test]
fn checks_are_asked_again_until_they_pass_or_their_time_is_over() {
    let cluster = shop();
    let asked = |connect: Connect, sql: String, deadline_s: u64| {
        let checks = vec![SqlCheck { name: "late".into(), sql, expect: Expect::Eq("1".into()) }];
        let task = SqlChecks { connect, database: "app".into(), checks, deadline_s };
        match run_with(&cluster, Task::SqlChecks(task)).done() {
            Report::Checks { outcomes } => outcomes[0].clone(),
            other => panic!("{other:?}"),
        }
    };
    let soon = cluster.sql("app", "SELECT clock_timestamp() + interval '1 second'");
    let late =
        format!("SELECT CASE WHEN clock_timestamp() > timestamptz '{}' THEN 1 ELSE 0 END", soon.trim());
    assert!(!asked(cluster.connect(), late.clone(), 0).passed, "it was late already");
    let outcome = asked(cluster.connect(), late, 30);
    assert!(outcome.passed, "{}", outcome.detail);
    let away = asked(Connect { port: 1, ..cluster.connect() }, "SELECT 1".into(), 1);
    assert!(!away.passed && !away.detail.is_empty(), "{away:?}");
}

/// Answers each connection with what `answer` gives for its number; returns the port and what was received.
fn listener(answer: impl Fn(u32) -> Vec<&'static str> + Send + 'static) -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(String::new()));
    let heard_too = Arc::clone(&heard);
    thread::spawn(move || {
        let number = AtomicU32::new(0);
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            for part in answer(number.fetch_add(1, Ordering::SeqCst)) {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).unwrap();
                heard_too.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
                stream.write_all(part.as_bytes()).unwrap();
            }
        }
    });
    (port, heard)
}

fn check(port: u16, probe: Probe) -> NetCheck {
    NetCheck { name: "c".into(), host: "localhost".into(), port, probe, within_ms: 2_000 }
}

fn ask_net(cluster: &Cluster, check: NetCheck, deadline_s: u64) -> CheckOutcome {
    match run_with(cluster, Task::NetChecks(NetChecks { checks: vec![check], deadline_s })).done() {
        Report::Checks { outcomes } => outcomes.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn http(path: &str, status: u16, body: Option<&str>) -> Probe {
    Probe::Http { path: path.into(), status, body: body.map(str::to_owned) }
}

#[test]
fn an_application_that_becomes_healthy_in_time_passes() {
    let cluster = Cluster::start();
    let (port, heard) = listener(|number| match number {
        0 => vec!["HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n"],
        1 => vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsta\r\n5\r\nrting\r\n0\r\n\r\n"],
        _ => vec!["HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhealthy"],
    });
    let host =
        NetCheck { host: "127.0.0.1".into(), ..check(port, http("/health?x=1", 200, Some("healthy"))) };
    let outcome = ask_net(&cluster, host, 30);
    assert!(outcome.passed, "{}", outcome.detail);
    let heard = heard.lock().unwrap();
    assert!(heard.starts_with(&format!("GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n")), "{heard}");
    assert_eq!(heard.matches("GET ").count(), 3);
}

#[test]
fn the_wrong_status_body_or_path_and_silence_are_told() {
    let cluster = Cluster::start();
    let host = |check: NetCheck| NetCheck { host: "127.0.0.1".into(), within_ms: 300, ..check };
    let (port, _) = listener(|_| vec!["HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno"]);
    let cases = [
        (host(check(port, http("/", 200, None))), "answered 502 instead of 200"),
        (host(check(port, http("/", 502, Some("yes")))), "does not contain `yes`"),
        (host(check(port, http("/ HTTP/1.1\r\nX: y", 200, None))), "is not a path"),
        (host(check(1, Probe::Tcp)), "refused"),
        (NetCheck { host: "no-such-host.invalid".into(), ..check(1, Probe::Tcp) }, "does not resolve"),
    ];
    for (check, detail) in cases {
        let outcome = ask_net(&cluster, check, 0);
        assert!(!outcome.passed && outcome.detail.contains(detail), "{}", outcome.detail);
    }
    let (silent, _) = listener(|_| vec!["", ""]);
    let asked = Instant::now();
    let outcome = ask_net(&cluster, host(check(silent, http("/", 200, None))), 0);
    assert!(outcome.detail.contains("no answer in time"), "{}", outcome.detail);
    assert!(asked.elapsed().as_secs() < 30);
}

#[test]
fn every_address_of_a_name_is_asked() {
    let cluster = Cluster::start();
    let hosts = cluster.dir.join("hosts");
    fs::write(&hosts, "127.0.0.1 two.test\n127.0.0.2 two.test\n").unwrap();
    let (one, _) = listener(|_| vec![]);
    let both = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    for (port, passed) in [(one, false), (both.local_addr().unwrap().port(), true)] {
        let check = NetCheck { host: "two.test".into(), ..check(port, Probe::Tcp) };
        let runner = Runner::new(&cluster, Task::NetChecks(NetChecks { checks: vec![check], deadline_s: 0 }));
        let mount = format!("mount --bind '{}' /etc/hosts", hosts.display());
        let outcome = Outcome::of(runner.apart(&["--mount"], &mount).spawn().unwrap());
        let Report::Checks { outcomes } = outcome.done() else { panic!("no outcomes") };
        assert_eq!(outcomes[0].passed, passed, "{}", outcomes[0].detail);
        assert!(outcomes[0].detail.contains("127.0.0.2"), "{}", outcomes[0].detail);
    }
}

fn flush(cluster: &Cluster, port: u16, user: &str, password: Option<&str>) -> Outcome {
    let password_file = password.map(|password| {
        let path = cluster.dir.join("redis-password");
        fs::write(&path, password).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let connect = Connect { host: "127.0.0.1".into(), port, user: user.into(), password_file };
    run_with(cluster, Task::RedisFlush(RedisFlush { connect }))
}

#[test]
fn a_cache_is_flushed_after_logging_in() {
    let cluster = Cluster::start();
    let (port, heard) = listener(|_| vec!["+OK\r\n", "+OK\r\n"]);
    flush(&cluster, port, "", Some("pa ss\n")).done();
    assert_eq!(*heard.lock().unwrap(), "*2\r\n$4\r\nAUTH\r\n$5\r\npa ss\r\n*1\r\n$7\r\nFLUSHDB\r\n");
    let (port, heard) = listener(|_| vec!["+OK\r\n", "+OK\r\n"]);
    flush(&cluster, port, "shop", Some("pa ss")).done();
    assert!(heard.lock().unwrap().starts_with("*3\r\n$4\r\nAUTH\r\n$4\r\nshop\r\n$5\r\npa ss\r\n"));
}

#[test]
fn a_cache_that_refuses_is_never_reported_as_flushed() {
    let cluster = Cluster::start();
    let refusing = |answer: &'static str| listener(move |_| vec![answer]).0;
    let wrong = refusing("-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    assert!(flush(&cluster, wrong, "", Some("x")).refused().contains("WRONGPASS"));
    assert!(
        flush(&cluster, refusing("-NOAUTH Authentication required.\r\n"), "", None)
            .refused()
            .contains("NOAUTH")
    );
    assert!(
        flush(&cluster, refusing("-LOADING dataset in memory\r\n"), "", None).put_off().contains("LOADING")
    );
    assert!(flush(&cluster, refusing("-READONLY replica\r\n"), "", None).put_off().contains("takes writes"));
    assert!(flush(&cluster, refusing(""), "", None).put_off().contains("cannot be reached"));
    assert!(flush(&cluster, 1, "", None).put_off().contains("refused"));
}
