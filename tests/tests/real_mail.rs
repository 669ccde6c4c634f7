//! Mail and the maintenance page in the sandbox: a real OpenSMTPD and the nginx image.
//!
//! Run by: `tests/sandbox/engine.sh up && tests/sandbox/images.sh mail:1 nginx:1`, then with the variables of
//! `engine.sh env`: `cargo test -p skep-tests --test real_mail -- --ignored`.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use mailparse::MailHeaderMap;
use skep::engines::nginx::{CONF_PATH, HTML_PATH, JSON_PATH, PageText, health_test, render};
use skep::notify::{Audience, Delivery, Ledger, Mail, MailSettings, Meter, Outbox, Phase, Undelivered};
use skep::operation::record::{Intent, Journal, OpId, Operation, SCHEMA, State, StepState, Trigger, Work};
use skep::swarm::error::Error;
use skep_tests::docker::{docker, docker_until, sandbox_address};

fn now() -> Timestamp {
    skep::runtime::clock::now()
}

fn unique(prefix: &str) -> String {
    let boot = skep::runtime::clock::boot_time().as_nanos();
    format!("{prefix}-{}-{boot}", std::process::id())
}

/// A container or a service of ours with its configs and files, gone when dropped.
struct Ours {
    remove: Vec<Vec<String>>,
    directory: PathBuf,
}

impl Ours {
    fn new(name: &str) -> Ours {
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Ours { remove: Vec::new(), directory }
    }

    fn removes(&mut self, arguments: &[&str]) {
        self.remove.push(arguments.iter().map(|&a| a.to_owned()).collect());
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        for arguments in self.remove.iter().rev() {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let _ = std::panic::catch_unwind(|| docker(&arguments));
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

struct Book(Mutex<Operation>);

impl Ledger for Book {
    async fn record(&self, _: &Operation, phases: &[Phase], at: Timestamp) -> Result<(), Error> {
        self.0.lock().unwrap().journal.told.extend(phases.iter().map(|p| (p.as_str().to_owned(), at)));
        Ok(())
    }
}

impl Book {
    fn new() -> Book {
        let intent = Intent {
            schema: SCHEMA,
            service: "größe_db".to_owned(),
            service_id: "x1".to_owned(),
            work: Work::Restore { backup: None, before: None, in_place: None, quiesce: None },
            trigger: Trigger::Person { name: "dba".to_owned() },
            created: now(),
            approval: false,
            accept_problems: false,
        };
        let id = OpId::new(now(), &unique("op"));
        let mut journal = Journal::new(State::Running);
        journal.step_mut("claim", now()).state = StepState::Done;
        Book(Mutex::new(Operation { id, config: "c1".to_owned(), version: 1, intent, journal }))
    }

    async fn deliver(&self, outbox: &Outbox) -> Result<Delivery, Undelivered> {
        let operation = self.0.lock().unwrap().clone();
        let label = ["dba@example.org".to_owned()];
        outbox.deliver(&operation, Audience { label: &label, ..Audience::default() }, self, now()).await
    }
}

fn settings(port: &str, ours: &Ours) -> Mail {
    let settings = MailSettings {
        host: Some(sandbox_address()),
        port: Some(port.parse().unwrap()),
        tls_name: Some("localhost".to_owned()),
        ca_file: Some(ours.directory.join("ca.crt")),
        user: Some("skep".to_owned()),
        password_file: Some(ours.directory.join("password")),
        from: Some("Skep <skep@example.org>".to_owned()),
        to: vec!["ops@example.org".to_owned()],
        cluster: Some("sandbox".to_owned()),
        ..MailSettings::default()
    };
    Mail { timeout: Duration::from_secs(20), ..settings.validate().unwrap().unwrap() }
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_real_server_takes_mail_after_starttls_and_login_and_none_is_lost_while_it_is_down() {
    let name = unique("skep-test-mail");
    let mut ours = Ours::new(&name);
    std::fs::write(ours.directory.join("password"), "correct horse\n").unwrap();
    docker(&[
        "run",
        "-d",
        "-p",
        "587",
        "--name",
        &name,
        "-e",
        "MAIL_USER=skep",
        "-e",
        "MAIL_PASSWORD=correct horse",
        "skep-test/mail:1",
    ]);
    ours.removes(&["rm", "-f", &name]);
    let authority = docker(&["exec", &name, "cat", "/etc/mail/tls/ca.crt"]);
    std::fs::write(ours.directory.join("ca.crt"), authority).unwrap();
    let port = |name: &str| {
        docker(&["port", name, "587/tcp"]).lines().next().unwrap().rsplit(':').next().unwrap().to_owned()
    };
    let outbox = |mail| Outbox::new(mail, Arc::new(Meter::default())).unwrap();
    let book = Book::new();

    // The server needs a moment to listen, which the caller's queue would bridge.
    let first = outbox(settings(&port(&name), &ours));
    let mut tries = 0;
    while let Err(error) = book.deliver(&first).await {
        tries += 1;
        assert!(tries < 400, "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    docker_until(&["exec", &name, "messages"], |list| list.lines().count() == 2);

    docker(&["stop", "-t", "1", &name]);
    {
        let mut operation = book.0.lock().unwrap();
        operation.journal.state = State::Succeeded;
        operation.journal.ended = Some(now());
    }
    let error = book.deliver(&first).await.unwrap_err();
    assert!(matches!(error, Undelivered::Unsent { left: 2, .. }), "{error:?}");
    docker(&["start", &name]);
    let second = outbox(settings(&port(&name), &ours));
    let mut tries = 0;
    while let Err(error) = book.deliver(&second).await {
        tries += 1;
        assert!(tries < 400, "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(book.deliver(&second).await.unwrap(), Delivery::Nothing { again: None });
    let list = docker_until(&["exec", &name, "messages"], |list| list.lines().count() == 4);
    check_thread(&name, &list, &book.0.lock().unwrap().id);

    std::fs::write(ours.directory.join("password"), "wrong horse").unwrap();
    let error = Book::new().deliver(&outbox(settings(&port(&name), &ours))).await.unwrap_err();
    assert!(matches!(error, Undelivered::Unsent { left: 2, .. }), "{error:?}");
    assert_eq!(docker(&["exec", &name, "messages"]), list);
}

fn check_thread(container: &str, list: &str, id: &OpId) {
    let root = format!("<{id}.root@sandbox.skep.example.org>");
    let mut ids = std::collections::BTreeSet::new();
    for name in list.lines() {
        let text = docker(&["exec", container, "messages", name]);
        let mail = mailparse::parse_mail(text.as_bytes()).unwrap();
        let header = |name: &str| mail.headers.get_first_value(name).unwrap();
        assert_eq!(header("Subject"), "[skep] Restore of größe_db (sandbox)");
        assert_eq!((header("References"), header("In-Reply-To")), (root.clone(), root.clone()));
        assert!(header("Received").contains("TLS"), "{}", header("Received"));
        assert!(mail.subparts[1].get_body().unwrap().contains("größe_db"));
        ids.insert(header("Message-ID"));
    }
    assert_eq!(ids.len(), 4, "two messages, each to two people");
}

#[test]
#[ignore = "needs the sandbox"]
fn the_page_replaces_whatever_the_nginx_image_would_serve_and_is_healthy() {
    let name = unique("skep-test-page");
    let mut ours = Ours::new(&name);
    let text = PageText {
        title: "Down for maintenance".to_owned(),
        message: "Back soon.".to_owned(),
        started: now(),
        expected_end: None,
        retry_after: 30,
        operation: "test".to_owned(),
    };
    let ports = [80, 8080];
    let page = render(&text, &ports);
    let mut create = vec!["service".to_owned(), "create".to_owned(), "-d".to_owned()];
    for (part, path, content) in
        [("conf", CONF_PATH, &page.conf), ("html", HTML_PATH, &page.html), ("json", JSON_PATH, &page.json)]
    {
        let (config, file) = (format!("{name}-{part}"), ours.directory.join(part));
        std::fs::write(&file, content).unwrap();
        docker(&["config", "create", &config, file.to_str().unwrap()]);
        ours.removes(&["config", "rm", &config]);
        create.extend(["--config".to_owned(), format!("source={config},target={path},mode=0444")]);
    }
    let health = &health_test(&ports)[1];
    for option in
        ["--name", &name, "--publish", "mode=host,target=80", "--health-interval", "500ms", "--health-cmd"]
    {
        create.push(option.to_owned());
    }
    create.extend([health.clone(), "skep-test/nginx:1".to_owned()]);
    docker(&create.iter().map(String::as_str).collect::<Vec<_>>());
    ours.removes(&["service", "rm", &name]);

    let filter = format!("name={name}");
    docker_until(&["ps", "-q", "--filter", &filter, "--filter", "health=healthy"], |list| {
        list.lines().count() == 1
    });
    let container = docker(&["ps", "-q", "--filter", &filter]);
    let port = docker(&["port", &container, "80/tcp"]);
    let port: u16 = port.lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect((sandbox_address().as_str(), port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let html = ask("POST /any HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(html.starts_with("HTTP/1.1 503 "), "{html}");
    assert!(html.contains("\r\nRetry-After: 30\r\n") && html.ends_with(&page.html), "{html}");
    let json = ask("GET / HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n");
    assert!(json.ends_with(&page.json), "{json}");
    assert!(ask("GET /__skep/healthy HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 503 "));
}
