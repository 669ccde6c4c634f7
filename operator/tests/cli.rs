//! The program as people call it: what it prints, where, and what it exits with. No engine is needed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SKEP: &str = env!("CARGO_BIN_EXE_skep");
const TEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/check/ten-mistakes.yml");

/// Runs it with nothing of the environment that could mean an engine.
fn run(program: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(args)
        .env_clear()
        .env("HOME", "/nonexistent")
        .output()
        .expect("the program can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    (status.code().expect("it exits"), text(stdout), text(stderr))
}

fn skep(args: &[&str]) -> (i32, String, String) {
    run(Path::new(SKEP), args)
}

/// The program under the name of a docker plugin.
fn plugin(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).expect("a directory for the link");
    let link = dir.join("docker-skep");
    drop(std::fs::remove_file(&link));
    std::os::unix::fs::symlink(SKEP, &link).expect("the link is made");
    link
}

#[test]
fn mistakes_of_the_command_line_exit_with_2_and_say_what_is_wanted() {
    for (args, said) in [
        (["resotre", "db"].as_slice(), "restore"),
        (&["restore"], "<SERVICE>"),
        (&["restore", "db", "--before"], "--before"),
        (&["maintenance", "on", "app", "--for", "2"], "want a duration"),
        (&["backup", "db", "--output", "xml"], "possible values: human, json"),
        (&["explain", "L7"], "`skep explain` lists them"),
        (&["check", "no-such-file.yml", "other/none.yml", "--stack"], "--stack"),
        (&["ps", "--host", "docker.example.org"], "is no engine: want `unix:///path`"),
        (&["ps", "--context", "far"], "there is no context `far`"),
    ] {
        let (code, out, err) = skep(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.contains(said), "{args:?}: {err}");
    }
}

#[test]
fn help_and_version_exit_with_0() {
    for args in
        [["--help"].as_slice(), &["help", "restore"], &["restore", "-h"], &["--version"], &["ops", "--help"]]
    {
        let (code, out, err) = skep(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        assert!(out.contains("skep") || out.contains("Restore"), "{out}");
    }
    let (_, out, _) = skep(&["restore", "-h"]);
    assert!(
        out.contains("--no-quiesce") && !out.contains("--tlscacert") && !out.contains("--page-image"),
        "{out}"
    );
}

#[test]
fn a_stack_file_with_ten_mistakes_is_told_all_ten() {
    let (code, out, err) = skep(&["check", TEN]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert!(out.ends_with("10 problems, 0 warnings, 3 services with labels of Skep\n"), "{out}");
    let (code, out, _) = skep(&["-o", "json", "check", TEN]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["findings"].as_array().map(Vec::len)), (1, Some(10)));
}

#[test]
fn labels_and_codes_are_told_without_an_engine() {
    let (code, out, _) = skep(&["labels"]);
    assert!(code == 0 && out.contains("skep.restore.on-alert"), "{out}");
    let (code, out, _) = skep(&["explain", "l007"]);
    assert!(code == 0 && out.starts_with("L007"), "{out}");
}

#[test]
fn an_engine_that_does_not_answer_exits_with_1_and_says_how_to_name_another() {
    let (code, out, err) = skep(&["--host", "unix:///nonexistent/docker.sock", "ops"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("unix:///nonexistent/docker.sock") && err.contains("DOCKER_HOST"), "{err}");
    assert!(!err.contains("Os {") && !err.contains("Unreachable"), "{err}");
}

#[test]
fn docker_may_call_it_as_a_plugin() {
    let plugin = plugin("plugin");
    let (code, out, _) = run(&plugin, &["docker-cli-plugin-metadata"]);
    let metadata: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, metadata["SchemaVersion"].as_str()), (0, Some("0.1.0")));
    let (code, out, _) = run(&plugin, &["--context", "default", "skep", "explain", "L007"]);
    assert!(code == 0 && out.starts_with("L007"), "{out}");
    let (code, out, _) = run(&plugin, &["skep", "--help"]);
    assert!(code == 0 && out.contains("Usage: docker skep"), "{out}");
    let (code, out, _) = run(&plugin, &["__complete", "skep", "back"]);
    assert!(code == 0 && out.starts_with("backup\t") && out.ends_with(":4\n"), "{out}");
    let (code, _, err) = run(&plugin, &["skep", "nonsense"]);
    assert!(code == 2 && err.contains("nonsense"), "{err}");
}

#[test]
fn shells_get_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = skep(&["completions", shell]);
        assert!(code == 0 && out.contains("maintenance"), "{shell}");
    }
}

#[test]
fn the_health_check_passes_only_when_the_operator_is_ready() {
    for (status, code) in [("200 OK", 0), ("503 Service Unavailable", 1)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 512];
            let read = stream.read(&mut head).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n")
                .unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        let (found, out, err) = skep(&["healthcheck", "--listen", &address]);
        assert_eq!(found, code, "{out}{err}");
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
        assert!(format!("{out}{err}").contains("hello"));
    }
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, _, err) = skep(&["healthcheck", "--listen", &unused]);
    assert!(code == 1 && err.contains("does not answer"), "{err}");
}

#[test]
fn a_waker_stands_in_until_it_is_told_to_stop() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("waker");
    std::fs::create_dir_all(&dir).expect("a directory for the task");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let path = dir.join("waker.json");
    let task = serde_json::json!({
        "schema": 1, "service": "shop_app", "ports": [{"port": port, "protocol": "http"}], "mode": "page",
        "timeout_s": 5, "retry_after_s": 5, "html": "soon", "json": "{}",
        "ask": {"url": "http://127.0.0.1:1/v1/wake", "token": "s3cret", "sleep": "sleep-1"},
    });
    std::fs::write(&path, task.to_string()).expect("the task is written");
    let path = path.to_str().expect("the path is text");
    let (code, _, err) = skep(&["waker", "--task", path, "--healthy"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains(&format!("127.0.0.1:{port} does not answer")), "{err}");
    let mut waker = Command::new(SKEP)
        .args(["waker", "--task", path])
        .env_clear()
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the waker starts");
    // It says so when it listens.
    let mut log = std::io::BufReader::new(waker.stdout.take().expect("it has a log"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut log, &mut line).expect("a line");
    assert!(line.contains("standing in") && line.contains("shop_app"), "{line}");
    assert_eq!(skep(&["waker", "--task", path, "--healthy"]), (0, "ok\n".to_owned(), String::new()));
    let told = Command::new("sh").args(["-c", &format!("kill -TERM {}", waker.id())]).status();
    assert!(told.expect("it is told").success());
    assert!(waker.wait().expect("it ends").success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("the rest of the log");
    assert!(rest.contains("left") && !rest.contains("s3cret"), "{rest}");
}

#[test]
fn a_waker_without_a_task_it_knows_says_why() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("newer.json");
    std::fs::write(&path, r#"{"schema": 2}"#).expect("the task is written");
    let (code, _, err) = skep(&["waker", "--task", path.to_str().expect("the path is text")]);
    assert_eq!(code, 1);
    assert!(err.contains("has format 2, newer than this Skep"), "{err}");
    let (code, _, err) = skep(&["waker", "--task", "/nonexistent.json"]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot read the waker's task /nonexistent.json"), "{err}");
}
