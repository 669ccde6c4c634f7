//! Mail and the maintenance page in the sandbox: a real OpenSMTPD and the nginx image; and a restore on a real Swarm whose
//! mail server is dead, or silent.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_mail -- --ignored --test-threads 1`. Needs root and the Debian
//! packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use jiff::Timestamp;
use mailparse::MailHeaderMap;
use skep::engines::nginx::{CONF_PATH, HTML_PATH, JSON_PATH, PageText, Reason, health_test, render};
use skep::notify::{Audience, Delivery, Ledger, Mail, MailSettings, Meter, Outbox, Phase, Undelivered};
use skep::operation::record::{Intent, Journal, OpId, Operation, SCHEMA, State, StepState, Trigger, Work};
use skep::swarm::error::Error;
use skep_tests::docker::{docker, docker_until, sandbox_address};
use skep_tests::sandbox::{Sandbox, eventually};
use skep_tests::stage::{PostOffice, Received, Setting, Stage, Users};

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");

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
            work: Work::Restore {
                to: None,
                backup: None,
                before: None,
                in_place: None,
                quiesce: None,
                create_roles: false,
            },
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

fn settings(office: &PostOffice) -> Mail {
    let line = std::iter::once("skep".to_owned()).chain(office.arguments(&["ops@example.org"]));
    let settings = Arguments::parse_from(line).mail;
    let settings = MailSettings { cluster: Some("sandbox".to_owned()), ..settings };
    settings.validate().unwrap().unwrap()
}

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    mail: MailSettings,
}

/// Tries again as the caller's queue would.
async fn deliver(book: &Book, outbox: &Outbox) {
    eventually("the mail to be taken", Duration::from_secs(20), async || {
        book.deliver(outbox).await.map(drop).map_err(|error| format!("{error:?}"))
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_real_server_takes_mail_after_starttls_and_login() {
    let office = PostOffice::open(Sandbox::shared().await).await;
    let outbox = |mail| Outbox::new(mail, Arc::new(Meter::default())).unwrap();
    let book = Book::new();
    let first = outbox(settings(&office));
    deliver(&book, &first).await;
    {
        let mut operation = book.0.lock().unwrap();
        operation.journal.state = State::Succeeded;
        operation.journal.ended = Some(now());
    }
    deliver(&book, &first).await;
    assert_eq!(book.deliver(&first).await.unwrap(), Delivery::Nothing { again: None });
    let id = book.0.lock().unwrap().id.to_string();
    let people = ["dba@example.org", "ops@example.org"];
    check_thread(&office.has_told(&id, &people, &["started", "finished"]).await, &id);

    let wrong = unique("password");
    let wrong = std::env::temp_dir().join(wrong);
    std::fs::write(&wrong, "wrong horse").unwrap();
    let mail = settings(&office);
    let mail = Mail { login: mail.login.map(|(user, _)| (user, wrong.clone())), ..mail };
    let error = Book::new().deliver(&outbox(mail)).await.unwrap_err();
    assert!(matches!(error, Undelivered::Unsent { left: 2, .. }), "{error:?}");
    assert_eq!(office.received().await.len(), 4, "two messages, each to two people");
    std::fs::remove_file(wrong).unwrap();
}

fn check_thread(messages: &[Received], id: &str) {
    let root = format!("<{id}.root@sandbox.skep.example.org>");
    for message in messages {
        let mail = mailparse::parse_mail(message.raw.as_bytes()).unwrap();
        let header = |name: &str| mail.headers.get_first_value(name).unwrap();
        assert_eq!(header("Subject"), "[skep] Restore of größe_db (sandbox)");
        assert_eq!((header("References"), header("In-Reply-To")), (root.clone(), root.clone()));
        assert!(header("Received").contains("TLS"), "{}", header("Received"));
        assert!(mail.subparts[1].get_body().unwrap().contains("größe_db"));
    }
}

const PEOPLE: [&str; 2] = ["dba@example.org", "ops@example.org"];

/// A restore after an accident, begun and not ended; with users who watch.
async fn accident(stage: &Stage) -> (OpId, Users) {
    stage.shop().drop_orders().await;
    let users = stage.users(40);
    (stage.ask_restore().await, users)
}

async fn ended_well(stage: &Stage, id: &OpId, users: Users) -> Operation {
    let ended = stage.ended(id).await;
    stage.shop().serves().await;
    users.leave().await.assert_nothing_wrong();
    assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    ended
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_restore_goes_on_while_the_mail_server_is_dead_or_silent_and_its_mail_comes_afterwards() {
    let stage = Stage::set(Setting::default()).await;
    let office = PostOffice::open(stage.sandbox).await;
    let mail = office.arguments(&PEOPLE);
    let mail: Vec<&str> = mail.iter().map(String::as_str).collect();
    let mut leader = stage.operator(OPERATOR, &mail).await;
    let backup = stage.back_up().await.id;
    office.has_told(backup.as_str(), &PEOPLE, &["finished"]).await;

    // Dead from before the restore until after it; the leader is replaced during it, and once more after it.
    office.die().await;
    let (dead, users) = accident(&stage).await;
    stage.caught(&dead, "cut", |op| op.journal.step("cut").is_some()).await;
    leader.kill().await;
    leader = stage.operator(OPERATOR, &mail).await;
    let ended = ended_well(&stage, &dead, users).await;
    assert!(ended.journal.told.is_empty(), "nobody could be told: {:?}", ended.journal.told);
    leader.kill().await;
    office.revive().await;
    leader = stage.operator(OPERATOR, &mail).await;
    for message in office.has_told(dead.as_str(), &PEOPLE, &["finished"]).await {
        assert!(
            message.text.contains("this one tells both"),
            "its start is told with its end: {}",
            message.text
        );
    }

    // Silent from after its start was told until after it; the same leader sends the rest.
    let (silent, users) = accident(&stage).await;
    office.has_told(silent.as_str(), &PEOPLE, &["started"]).await;
    office.fall_silent().await;
    let state = stage.when(&silent, "to be there", |_| true).await.journal.state;
    assert_eq!(state, State::Running, "it was silent before the end");
    let ended = ended_well(&stage, &silent, users).await;
    assert!(!ended.journal.told.contains_key("finished"), "{:?}", ended.journal.told);
    office.speak().await;
    office.has_told(silent.as_str(), &PEOPLE, &["started", "finished"]).await;
    for id in [&dead, &silent] {
        let told =
            stage.when(id, "to be told on record", |op| op.journal.told.contains_key("finished")).await;
        assert!(told.journal.told.contains_key("started"), "{:?}", told.journal.told);
    }
    let mut order: Vec<_> = office.received().await.into_iter().map(|m| m.operation).collect();
    order.dedup();
    assert_eq!(order, [backup.as_str(), dead.as_str(), silent.as_str()], "in the order of what happened");
    drop(leader);
    stage.strike().await;
}

#[test]
#[ignore = "needs the sandbox"]
fn the_page_replaces_whatever_the_nginx_image_would_serve_and_is_healthy() {
    let name = unique("skep-test-page");
    let mut ours = Ours::new(&name);
    let text = PageText {
        reason: Reason::Maintenance,
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
