//! Mail about operations against a real SMTP conversation: nothing is lost, nothing is sent to the wrong place, and a
//! repeat is recognisable.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailparse::{MailHeaderMap, ParsedMail, parse_mail};
use skep::notify::settings::Tls as Encryption;
use skep::notify::smtp::Fault;
use skep::notify::{Audience, Delivery, Ledger, Mail, MailSettings, Meter, Outbox, Phase, Undelivered};
use skep::operation::record::{Intent, Journal, OpId, Operation, SCHEMA, State, StepState, Trigger, Work};
use skep::swarm::error::Error;
use skep::triggers::guard::{Notice, NoticeKind};
use skep_tests::smtp::{Answer, Authority, Moment, Options, Server, Tls};

const OPS: &str = "ops@example.org";
const DBA: &str = "dba@example.org";

fn at(seconds: i64) -> Timestamp {
    "2026-11-21T13:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn settings(address: SocketAddr) -> Mail {
    let settings = MailSettings {
        host: Some(address.ip().to_string()),
        port: Some(address.port()),
        tls: Encryption::None,
        from: Some("Skep <skep@example.org>".to_owned()),
        to: vec![OPS.to_owned()],
        cluster: Some("prod".to_owned()),
        hello: Some("skep.example.org".to_owned()),
        ..MailSettings::default()
    };
    settings.validate().unwrap().unwrap()
}

fn outbox(mail: Mail) -> (Outbox, Arc<Meter>) {
    let meter = Arc::new(Meter::default());
    (Outbox::new(mail, Arc::clone(&meter)).unwrap(), meter)
}

/// The record of one operation, kept as a Swarm would keep it.
struct Book {
    operation: Mutex<Operation>,
    refusals: Mutex<usize>,
}

impl Book {
    fn of(state: State) -> Book {
        let intent = Intent {
            schema: SCHEMA,
            service: "shop_db".to_owned(),
            service_id: "x1".to_owned(),
            work: Work::Restore {
                to: None,
                backup: None,
                before: None,
                in_place: None,
                quiesce: None,
                create_roles: false,
            },
            trigger: Trigger::Alert {
                name: "PostgresCorrupted".to_owned(),
                fingerprint: "0f3c".to_owned(),
                starts_at: at(-60),
            },
            created: at(0),
            approval: false,
            accept_problems: false,
        };
        let id = OpId::new(at(0), "shop_db");
        let journal = Journal::new(State::Pending);
        let operation = Operation { id, config: "c1".to_owned(), version: 1, intent, journal };
        let book = Book { operation: Mutex::new(operation), refusals: Mutex::new(0) };
        book.becomes(state);
        book
    }

    fn becomes(&self, state: State) {
        self.change(|operation| {
            operation.journal.state = state;
            operation.journal.step_mut("claim", at(1)).state = StepState::Done;
            operation.journal.ended = (state != State::Running).then(|| at(42));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Operation)) {
        change(&mut self.operation.lock().unwrap());
    }

    fn read(&self) -> Operation {
        self.operation.lock().unwrap().clone()
    }

    fn told(&self) -> Vec<String> {
        self.read().journal.told.into_keys().collect()
    }

    /// The next so many writes are refused.
    fn refuse(&self, writes: usize) {
        *self.refusals.lock().unwrap() = writes;
    }

    async fn deliver(&self, outbox: &Outbox, label: &[&str]) -> Result<Delivery, Undelivered> {
        let label: Vec<String> = label.iter().map(|&l| l.to_owned()).collect();
        let audience = Audience { label: &label, ..Audience::default() };
        outbox.deliver(&self.read(), audience, self, at(50)).await
    }
}

impl Ledger for Book {
    async fn record(&self, operation: &Operation, phases: &[Phase], at: Timestamp) -> Result<(), Error> {
        assert_eq!(operation.id, self.read().id);
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return Err(Error::Unreachable { what: "record".to_owned(), message: "no leader".to_owned() });
        }
        self.change(|op| op.journal.told.extend(phases.iter().map(|p| (p.as_str().to_owned(), at))));
        Ok(())
    }
}

fn parsed(mail: &skep_tests::smtp::Mail) -> ParsedMail<'_> {
    parse_mail(&mail.data).unwrap()
}

fn header(mail: &skep_tests::smtp::Mail, name: &str) -> String {
    let values = parsed(mail).headers.get_all_values(name);
    assert_eq!(values.len(), 1, "{name} stands once: {values:?}");
    values[0].clone()
}

fn part(mail: &skep_tests::smtp::Mail, kind: &str) -> String {
    let message = parsed(mail);
    assert_eq!(message.ctype.mimetype, "multipart/alternative");
    let part = message.subparts.iter().find(|p| p.ctype.mimetype == kind).unwrap();
    part.get_body().unwrap()
}

fn recipients(mails: &[skep_tests::smtp::Mail]) -> Vec<&str> {
    mails.iter().map(|m| m.to.as_str()).collect()
}

fn phases(delivery: &Delivery) -> Vec<Phase> {
    match delivery {
        Delivery::Told { phases, rejected } => {
            assert_eq!(rejected, &[]);
            phases.clone()
        }
        Delivery::Nothing { .. } | Delivery::Nobody => panic!("nothing was told: {delivery:?}"),
    }
}

fn is_server_fault(error: &Undelivered) -> bool {
    matches!(error, Undelivered::Unsent { source: Fault::Server { .. }, .. })
}

#[tokio::test]
async fn with_the_server_down_nothing_is_lost_and_all_is_told_once_it_is_up() {
    let server = Server::start(Options::default(), None).await;
    let address = server.address();
    let (outbox, meter) = outbox(settings(address));
    let book = Book::of(State::Running);
    server.stop().await;

    let error = book.deliver(&outbox, &[DBA]).await.unwrap_err();
    assert!(is_server_fault(&error), "{error:?}");
    assert_eq!(book.told(), [""; 0]);
    assert_eq!((meter.read().waiting, meter.read().oldest), (1, Some(at(1))));
    book.becomes(State::Succeeded);
    assert!(is_server_fault(&book.deliver(&outbox, &[DBA]).await.unwrap_err()));
    assert_eq!(meter.read().oldest, Some(at(1)), "it waits since the start, not since the end");

    let server = Server::start_at(address, Options::default(), None).await;
    assert_eq!(phases(&book.deliver(&outbox, &[DBA]).await.unwrap()), [Phase::Started, Phase::Finished]);
    assert_eq!(book.told(), ["finished", "started"]);
    for _ in 0..3 {
        assert_eq!(book.deliver(&outbox, &[DBA]).await.unwrap(), Delivery::Nothing { again: None });
    }
    let mails = server.mails();
    assert_eq!(recipients(&mails), [DBA, OPS], "one each");
    assert!(part(&mails[0], "text/plain").contains("so this one tells both"));
    assert_eq!((meter.read().sent, meter.read().waiting, meter.read().oldest), (2, 0, None));
}

#[tokio::test]
async fn the_messages_of_an_operation_make_one_thread() {
    let server = Server::start(Options::default(), None).await;
    let (outbox, _) = outbox(settings(server.address()));
    let book = Book::of(State::Running);
    assert_eq!(phases(&book.deliver(&outbox, &[]).await.unwrap()), [Phase::Started]);
    book.becomes(State::Succeeded);
    assert_eq!(phases(&book.deliver(&outbox, &[]).await.unwrap()), [Phase::Finished]);
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    let root = format!("<{}.root@prod.skep.example.org>", book.read().id);
    for mail in &mails {
        assert_eq!(header(mail, "Subject"), "[skep] Restore of shop_db (prod)");
        assert_eq!(header(mail, "References"), root);
        assert_eq!(header(mail, "In-Reply-To"), root);
        assert_eq!(header(mail, "Auto-Submitted"), "auto-generated");
        assert_eq!(header(mail, "X-Auto-Response-Suppress"), "All");
        assert_eq!(header(mail, "X-Skep-Operation"), book.read().id.to_string());
        assert_eq!(mail.from, "skep@example.org");
        assert!(part(mail, "text/html").contains("<h1"));
    }
    assert_ne!(header(&mails[0], "Message-ID"), header(&mails[1], "Message-ID"));
    assert_eq!(header(&mails[0], "X-Skep-Phase"), "started");
    assert_eq!(header(&mails[1], "X-Skep-Phase"), "finished");
}

#[tokio::test]
async fn one_who_is_deferred_holds_nobody_and_is_alone_in_being_tried_again() {
    let server = Server::start(Options::default(), None).await;
    let (outbox, meter) = outbox(settings(server.address()));
    let book = Book::of(State::Running);
    server.at(Moment::To(DBA.to_owned()), Answer::Say("451 4.7.1 greylisted, come back later"));
    server.at(Moment::End, Answer::Say("452 4.3.1 no room"));
    // DBA comes first and is greylisted; OPS is told that there is no room.
    let error = book.deliver(&outbox, &[DBA, "eve@example.org"]).await.unwrap_err();
    let Undelivered::Unsent { left, all, source: Fault::Deferred(_), .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((left, all), (2, 3));
    assert_eq!(recipients(&server.mails()), [OPS]);
    assert_eq!(book.told(), [""; 0]);
    book.deliver(&outbox, &[DBA, "eve@example.org"]).await.unwrap();
    assert_eq!(recipients(&server.mails()), [OPS, DBA, "eve@example.org"]);
    assert_eq!(book.told(), ["started"]);
    let reading = meter.read();
    assert_eq!((reading.sent, reading.deferred, reading.rejected), (3, 2, 0));
}

#[tokio::test]
async fn one_who_is_refused_for_good_is_a_dead_letter_and_holds_nobody() {
    let server = Server::start(Options::default(), None).await;
    let (outbox, meter) = outbox(settings(server.address()));
    let book = Book::of(State::Running);
    server.at(Moment::To(DBA.to_owned()), Answer::Say("550 5.1.1 no such user"));
    let Delivery::Told { rejected, .. } = book.deliver(&outbox, &[DBA, "not-an-address"]).await.unwrap()
    else {
        panic!("told")
    };
    let refused: BTreeSet<&str> = rejected.iter().map(|(to, _)| to.as_str()).collect();
    assert_eq!(refused, BTreeSet::from([DBA, "not-an-address"]));
    assert!(rejected.iter().any(|(_, why)| why.contains("no such user")), "{rejected:?}");
    assert_eq!(recipients(&server.mails()), [OPS]);
    assert_eq!(book.told(), ["started"]);
    assert_eq!(meter.read().rejected, 2);
    assert_eq!(book.deliver(&outbox, &[DBA]).await.unwrap(), Delivery::Nothing { again: None });
}

#[tokio::test]
async fn a_server_that_does_not_answer_holds_a_delivery_no_longer_than_the_timeout() {
    let server = Server::start(Options::default(), None).await;
    let mail = Mail { timeout: Duration::from_millis(200), ..settings(server.address()) };
    let (outbox, _) = outbox(mail);
    let book = Book::of(State::Running);
    let moments = [Moment::Greeting, Moment::From, Moment::To(OPS.to_owned()), Moment::End];
    for moment in moments {
        server.at(moment.clone(), Answer::Silence);
        let error = tokio::time::timeout(Duration::from_secs(10), book.deliver(&outbox, &[])).await.unwrap();
        let Err(Undelivered::Unsent { source: Fault::Server { message, .. }, .. }) = error else {
            panic!("{moment:?}: {error:?}")
        };
        assert!(message.contains("no answer within"), "{moment:?}: {message}");
    }
    assert_eq!(server.mails().len(), 0);
    book.deliver(&outbox, &[]).await.unwrap();
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn dying_between_sending_and_recording_repeats_the_same_message() {
    let server = Server::start(Options::default(), None).await;
    let book = Book::of(State::Running);
    let (first, _) = outbox(settings(server.address()));
    book.refuse(2);
    for _ in 0..2 {
        let error = book.deliver(&first, &[]).await.unwrap_err();
        assert!(matches!(error, Undelivered::Unrecorded { .. }), "{error:?}");
        assert_eq!(server.mails().len(), 1, "the same process knows what it sent");
    }
    drop(first);
    let (second, _) = outbox(settings(server.address()));
    book.deliver(&second, &[]).await.unwrap();
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!(header(&mails[0], "Message-ID"), header(&mails[1], "Message-ID"));
    assert_eq!(book.told(), ["started"]);
}

#[tokio::test]
async fn a_connection_cut_after_the_message_was_taken_repeats_the_same_message() {
    let server = Server::start(Options::default(), None).await;
    let book = Book::of(State::Running);
    let (outbox, _) = outbox(settings(server.address()));
    server.at(Moment::Taken, Answer::Cut);
    assert!(is_server_fault(&book.deliver(&outbox, &[]).await.unwrap_err()));
    book.deliver(&outbox, &[]).await.unwrap();
    let mails = server.mails();
    assert_eq!(mails.len(), 2);
    assert_eq!(header(&mails[0], "Message-ID"), header(&mails[1], "Message-ID"));
}

#[tokio::test]
async fn a_sender_that_the_server_refuses_costs_no_message() {
    let server = Server::start(Options::default(), None).await;
    let book = Book::of(State::Running);
    let (outbox, meter) = outbox(settings(server.address()));
    server.at(Moment::Greeting, Answer::Say("554 5.3.2 not today"));
    server.at(Moment::From, Answer::Say("550 5.7.1 sender not allowed"));
    server.at(Moment::To(OPS.to_owned()), Answer::Say("530 5.7.0 authentication required"));
    for _ in 0..3 {
        assert!(is_server_fault(&book.deliver(&outbox, &[]).await.unwrap_err()));
    }
    assert_eq!(meter.read().rejected, 0);
    book.deliver(&outbox, &[]).await.unwrap();
    assert_eq!(server.mails().len(), 1);
}

/// A directory with the authority's certificate and the password, gone when dropped.
struct Secrets(PathBuf);

impl Secrets {
    fn new(name: &str, authority: &Authority) -> Secrets {
        let directory = std::env::temp_dir().join(format!("skep-mail-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        authority.write(&directory.join("ca.pem")).unwrap();
        std::fs::write(directory.join("password"), "correct horse\n").unwrap();
        Secrets(directory)
    }

    fn settings(&self, address: SocketAddr, tls: Encryption) -> Mail {
        Mail {
            tls,
            ca_file: Some(self.0.join("ca.pem")),
            login: Some(("skep".to_owned(), self.0.join("password"))),
            ..settings(address)
        }
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn locked(tls: Tls) -> Options {
    Options { tls, login: Some(("skep".to_owned(), "correct horse".to_owned())), utf8: false }
}

#[tokio::test]
async fn mail_goes_encrypted_and_logged_in() {
    let authority = Authority::new();
    let secrets = Secrets::new("both", &authority);
    for (tls, encryption) in [(Tls::Starttls, Encryption::Starttls), (Tls::Implicit, Encryption::Implicit)] {
        let server = Server::start(locked(tls), Some(&authority)).await;
        let (outbox, _) = outbox(secrets.settings(server.address(), encryption));
        let book = Book::of(State::Running);
        book.deliver(&outbox, &[DBA]).await.unwrap();
        let mails = server.mails();
        assert_eq!(recipients(&mails), [DBA, OPS]);
        assert!(mails.iter().all(|m| m.encrypted && m.user.as_deref() == Some("skep")), "{mails:?}");
        assert_eq!(server.connections(), 1, "one connection for all");
    }
}

#[tokio::test]
async fn without_encryption_or_with_a_foreign_certificate_nothing_is_sent() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let secrets = Secrets::new("foreign", &authority);
    let plain = Server::start(locked(Tls::Never), None).await;
    let forged = Server::start(locked(Tls::Starttls), Some(&foreign)).await;
    let forged_first = Server::start(locked(Tls::Implicit), Some(&foreign)).await;
    for (server, encryption) in [
        (&plain, Encryption::Starttls),
        (&forged, Encryption::Starttls),
        (&forged_first, Encryption::Implicit),
    ] {
        let (outbox, _) = outbox(secrets.settings(server.address(), encryption));
        let book = Book::of(State::Running);
        let error = book.deliver(&outbox, &[]).await.unwrap_err();
        assert!(is_server_fault(&error), "{error:?}");
        assert_eq!((server.mails().len(), server.connections()), (0, 1));
    }
    let honest = Server::start(locked(Tls::Starttls), Some(&authority)).await;
    let settings = secrets.settings(honest.address(), Encryption::Starttls);
    for (name, delivered) in [("elsewhere.example.org", false), ("localhost", true)] {
        let (outbox, _) = outbox(Mail { tls_name: name.to_owned(), ..settings.clone() });
        assert_eq!(Book::of(State::Running).deliver(&outbox, &[]).await.is_ok(), delivered, "{name}");
    }
}

#[tokio::test]
async fn a_wrong_or_missing_password_costs_no_message() {
    let authority = Authority::new();
    let secrets = Secrets::new("password", &authority);
    let server = Server::start(locked(Tls::Starttls), Some(&authority)).await;
    let (outbox, _) = outbox(secrets.settings(server.address(), Encryption::Starttls));
    let book = Book::of(State::Running);
    let file = secrets.0.join("password");
    std::fs::write(&file, "wrong horse").unwrap();
    let error = book.deliver(&outbox, &[]).await.unwrap_err();
    assert!(is_server_fault(&error), "{error:?}");
    assert!(!format!("{error:?}").contains("wrong horse"), "{error:?}");
    std::fs::remove_file(&file).unwrap();
    assert!(is_server_fault(&book.deliver(&outbox, &[]).await.unwrap_err()));
    std::fs::write(&file, "correct horse\r\n").unwrap();
    book.deliver(&outbox, &[]).await.unwrap();
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn names_beyond_ascii_arrive_as_they_are_and_inject_nothing() {
    let server = Server::start(Options { utf8: true, ..Options::default() }, None).await;
    let (outbox, _) = outbox(settings(server.address()));
    let book = Book::of(State::Running);
    book.change(|op| {
        op.intent.service = "größe_база数据\r\nBcc: evil@example.net".to_owned();
        op.intent.trigger = Trigger::Alert {
            name: "Défaut\r\n.\r\nRCPT TO:<evil@example.net>\r\n.".to_owned(),
            fingerprint: String::new(),
            starts_at: at(0),
        };
    });
    book.deliver(&outbox, &["jörg@example.org"]).await.unwrap();
    let mails = server.mails();
    assert_eq!(recipients(&mails), ["jörg@example.org", OPS]);
    for mail in &mails {
        assert_eq!(header(mail, "Subject"), "[skep] Restore of größe_база数据 Bcc: evil@example.net (prod)");
        assert_eq!(parsed(mail).headers.get_all_values("Bcc"), [""; 0]);
        assert!(part(mail, "text/plain").contains("Défaut . RCPT TO:<evil@example.net> ."));
        assert!(part(mail, "text/html").contains("größe_база数据"));
    }
}

#[tokio::test]
async fn an_address_that_the_server_cannot_take_is_a_dead_letter() {
    let server = Server::start(Options::default(), None).await;
    let (outbox, meter) = outbox(settings(server.address()));
    let book = Book::of(State::Running);
    let told = book.deliver(&outbox, &["jörg@example.org"]).await.unwrap();
    let Delivery::Told { rejected, .. } = told else { panic!("told") };
    assert_eq!(rejected.len(), 1);
    assert_eq!(recipients(&server.mails()), [OPS]);
    assert_eq!((meter.read().sent, meter.read().rejected), (1, 1));
}

#[tokio::test]
async fn a_delivery_that_is_dropped_in_the_middle_repeats_nothing() {
    let server = Server::start(Options::default(), None).await;
    let (outbox, _) = outbox(settings(server.address()));
    let book = Book::of(State::Running);
    // DBA is served, and then the server says nothing to OPS any more.
    server.at(Moment::To(OPS.to_owned()), Answer::Silence);
    tokio::select! {
        delivery = book.deliver(&outbox, &[DBA]) => panic!("it hangs: {delivery:?}"),
        () = server.played() => {}
    }
    assert_eq!(recipients(&server.mails()), [DBA]);
    book.deliver(&outbox, &[DBA]).await.unwrap();
    assert_eq!(recipients(&server.mails()), [DBA, OPS]);
    assert_eq!(book.told(), ["started"]);
}

#[tokio::test]
async fn with_nobody_to_tell_nothing_waits() {
    let server = Server::start(Options::default(), None).await;
    let (outbox, meter) = outbox(Mail { to: Vec::new(), ..settings(server.address()) });
    let book = Book::of(State::Running);
    assert_eq!(book.deliver(&outbox, &[]).await.unwrap(), Delivery::Nobody);
    assert_eq!((server.connections(), meter.read().waiting), (0, 0));
}

#[tokio::test]
async fn what_is_no_longer_ours_does_not_wait_for_ever() {
    let server = Server::start(Options::default(), None).await;
    let address = server.address();
    server.stop().await;
    let (outbox, meter) = outbox(settings(address));
    let book = Book::of(State::Running);
    book.deliver(&outbox, &[]).await.unwrap_err();
    assert_eq!(meter.read().waiting, 1);
    outbox.retain(|_| false);
    assert_eq!((meter.read().waiting, meter.read().oldest), (0, None));
}

#[tokio::test]
async fn an_alert_that_was_not_acted_on_is_told_once_it_can_be_and_then_recorded() {
    let server = Server::start(Options::default(), None).await;
    let address = server.address();
    let (outbox, meter) = outbox(settings(address));
    let (label, recorded) = ([DBA.to_owned()], AtomicUsize::new(0));
    let notice = Notice {
        alert: "PostgresCorrupted".to_owned(),
        kind: NoticeKind::Limit,
        sentence: "the limit of 2 restores in 1 d is reached".to_owned(),
        at: at(0),
        incident: at(-9),
        operation: None,
        told: None,
    };
    let give = |fails: bool| {
        let recorded = &recorded;
        let record = async move {
            recorded.fetch_add(1, Ordering::SeqCst);
            let unreachable =
                Error::Unreachable { what: "record".to_owned(), message: "no leader".to_owned() };
            if fails { Err(unreachable) } else { Ok(()) }
        };
        outbox.give_notice("shop_db", &notice, &label, record, at(50))
    };
    server.stop().await;
    assert!(is_server_fault(&give(false).await.unwrap_err()));
    assert_eq!(
        (recorded.load(Ordering::SeqCst), meter.read().waiting),
        (0, 1),
        "recorded before it was sent"
    );
    let server = Server::start_at(address, Options::default(), None).await;
    let error = give(true).await.unwrap_err();
    assert!(matches!(error, Undelivered::Unrecorded { .. }), "{error:?}");
    assert_eq!(give(false).await.unwrap(), Some(Vec::new()));
    let mails = server.mails();
    assert_eq!(recipients(&mails), [DBA, OPS], "one each, although it was recorded only later");
    assert_eq!(header(&mails[0], "Subject"), "[skep] Alert PostgresCorrupted on shop_db (prod)");
    assert_eq!(header(&mails[0], "X-Skep-Notice"), "limit");
    assert!(part(&mails[0], "text/plain").contains("skep ops reset shop_db"));
    assert_eq!((recorded.load(Ordering::SeqCst), meter.read().waiting), (2, 0));
}
