//! The weekly mail: once a week, whoever leads, and whatever fails on the way.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use mailparse::{MailHeaderMap, parse_mail};
use skep::app::weekly::tell;
use skep::notify::settings::Tls;
use skep::notify::{MailSettings, Meter, Outbox};
use skep::operation::record::Work;
use skep::swarm::engine::Engine;
use skep_tests::farm::Farm;
use skep_tests::sim::{Cut, Fault, Trigger};
use skep_tests::smtp::{Options, Server};

fn outbox(address: SocketAddr, weekly: Option<&str>) -> Outbox {
    let settings = MailSettings {
        host: Some(address.ip().to_string()),
        port: Some(address.port()),
        tls: Tls::None,
        from: Some("Skep <skep@example.org>".to_owned()),
        to: vec!["ops@example.org".to_owned()],
        weekly: weekly.map(str::to_owned),
        time_zone: Some("Europe/Paris".to_owned()),
        ..MailSettings::default()
    };
    Outbox::new(settings.validate().unwrap().unwrap(), Arc::<Meter>::default()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A database with a backup, on a Monday's eve.
async fn farm() -> Farm {
    // The mail server's clock is the real one; until it is asked none needs to pass.
    tokio::time::pause();
    let labels = [("skep.notify", "somebody@example.org")];
    let farm = Farm::start("2026-03-01T12:00:00Z", &[("shop_db", &labels)]).await;
    let mut leader = farm.leader("leader").await;
    farm.ask("shop_db", Work::Backup).await;
    leader.lead("2026-03-01T12:05:00Z").await;
    assert_eq!(farm.backups().await.len(), 1);
    tokio::time::resume();
    farm
}

fn id(mail: &skep_tests::smtp::Mail) -> String {
    parse_mail(&mail.data).unwrap().headers.get_first_value("Message-ID").unwrap()
}

fn text(mail: &skep_tests::smtp::Mail) -> String {
    parse_mail(&mail.data).unwrap().subparts[0].get_body().unwrap()
}

async fn told(engine: &Engine, outbox: &Outbox, when: &str) {
    tell(engine, outbox, at(when)).await.unwrap();
}

/// Monday, 8 o'clock in Paris.
const DUE: &str = "2026-03-02T07:00:00Z";

#[tokio::test]
async fn each_week_is_told_once_to_the_operators_recipients_whoever_leads() {
    let farm = farm().await;
    let server = Server::start(Options::default(), None).await;
    let (one, two) = (farm.connect("one").await, farm.connect("two").await);
    let mail = outbox(server.address(), None);
    told(&one, &mail, "2026-03-01T12:10:00Z").await;
    told(&one, &mail, "2026-03-02T06:59:59Z").await;
    assert_eq!(server.mails().len(), 0, "it is not Monday, and there is nothing to tell of before");
    told(&one, &mail, DUE).await;
    told(&one, &mail, DUE).await;
    // Another one leads, who remembers nothing.
    told(&two, &outbox(server.address(), None), "2026-03-02T07:30:00Z").await;
    told(&two, &outbox(server.address(), None), "2026-03-09T06:00:00Z").await;
    let [mail] = server.mails().try_into().unwrap();
    assert_eq!(mail.to, "ops@example.org", "not those of a service's label");
    assert!(text(&mail).contains("shop_db: backed up, not proved"), "{}", text(&mail));
    // Three weeks without anybody who leads: the last one is told.
    told(&two, &outbox(server.address(), None), "2026-03-25T00:00:00Z").await;
    assert_eq!(server.mails().len(), 2);
    assert!(
        text(&server.mails()[1]).contains("From:         Mon 2 Mar 2026, 08:00:00 CET"),
        "{}",
        text(&server.mails()[1])
    );
}

#[tokio::test]
async fn what_was_sent_and_could_not_be_recorded_is_not_sent_again_or_is_the_same_message() {
    let farm = farm().await;
    let server = Server::start(Options::default(), None).await;
    let (one, two) = (farm.connect("one").await, farm.connect("two").await);
    let mail = outbox(server.address(), None);
    told(&one, &mail, "2026-03-01T12:10:00Z").await;
    let writes = farm.sim.faults().writes("one");
    farm.sim.faults().on("one", Trigger::Write(writes + 1), Fault::Cut(Cut::Before));
    assert!(tell(&one, &mail, at(DUE)).await.is_err(), "it was sent, not recorded");
    assert_eq!(server.mails().len(), 1);
    told(&one, &mail, "2026-03-02T07:00:05Z").await;
    assert_eq!(server.mails().len(), 1, "who remembers sends nothing again");
    told(&two, &outbox(server.address(), None), "2026-03-02T07:00:10Z").await;
    assert_eq!(server.mails().len(), 1, "it is recorded now");
    // The next week it dies in between: the next leader repeats the very message.
    let writes = farm.sim.faults().writes("two");
    farm.sim.faults().on("two", Trigger::Write(writes + 1), Fault::Kill(Cut::Before));
    assert!(tell(&two, &outbox(server.address(), None), at("2026-03-09T07:00:00Z")).await.is_err());
    told(&one, &outbox(server.address(), None), "2026-03-09T07:01:00Z").await;
    let mails = server.mails();
    assert_eq!(mails.len(), 3);
    assert_eq!(id(&mails[1]), id(&mails[2]), "a repeat is recognised");
    assert_ne!(id(&mails[0]), id(&mails[1]));
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let farm = farm().await;
    let server = Server::start(Options::default(), None).await;
    let engine = farm.connect("one").await;
    for when in ["2026-03-01T12:10:00Z", DUE, "2026-03-09T07:00:00Z"] {
        told(&engine, &outbox(server.address(), Some("off")), when).await;
    }
    assert_eq!(server.mails().len(), 0);
    assert!(!farm.sim.stored_names().contains(&"skep-weekly".to_owned()));
}
