//! A real mail server in the sandbox that can die, fall silent and come back; what it has taken it keeps.

use std::path::PathBuf;
use std::time::Duration;

use mailparse::MailHeaderMap as _;

use crate::sandbox::{Sandbox, eventually, unique, unique_port};

/// The mail server.
pub struct PostOffice {
    sandbox: &'static Sandbox,
    container: String,
    port: u16,
    directory: PathBuf,
}

/// A message as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its `Message-ID`, the same when it is sent twice.
    pub id: String,
    /// To whom.
    pub to: String,
    /// `X-Skep-Operation`.
    pub operation: String,
    /// `X-Skep-Phase`: the newest that it tells.
    pub phase: String,
    /// Its plain text.
    pub text: String,
    /// The whole of it.
    pub raw: String,
}

// === impl PostOffice ===

impl PostOffice {
    /// User and password of the one who may send.
    const LOGIN: (&'static str, &'static str) = ("skep", "correct horse");

    /// Starts it; it need not listen yet when this returns.
    pub async fn open(sandbox: &'static Sandbox) -> PostOffice {
        let container = unique("skep-test-mail");
        let directory = std::env::temp_dir().join(&container);
        let port = unique_port();
        let (user, password) = PostOffice::LOGIN;
        let (user, login) = (format!("MAIL_USER={user}"), format!("MAIL_PASSWORD={password}"));
        let publish = format!("{port}:587");
        let run = ["run", "-d", "-p", &publish, "--name", &container, "-e", &user, "-e", &login];
        sandbox.docker(&[&run[..], &["skep-test/mail:1"]].concat()).await;
        let authority = sandbox.docker(&["exec", &container, "cat", "/etc/mail/tls/ca.crt"]).await;
        std::fs::create_dir_all(&directory).expect("the temporary directory can be written");
        let office = PostOffice { sandbox, container, port, directory };
        office.write("ca.crt", &authority);
        office.write("password", password);
        office
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.join(name), text).expect("its directory can be written");
    }

    /// What an operator is told to send its mail here, to these people.
    pub fn arguments(&self, to: &[&str]) -> Vec<String> {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let pairs = [
            ("--mail-host", self.sandbox.address().to_string()),
            ("--mail-port", self.port.to_string()),
            ("--mail-tls-name", "localhost".to_owned()),
            ("--mail-ca-file", file("ca.crt")),
            ("--mail-user", PostOffice::LOGIN.0.to_owned()),
            ("--mail-password-file", file("password")),
            ("--mail-from", "Skep <skep@example.org>".to_owned()),
            ("--mail-to", to.join(",")),
            ("--mail-timeout", "2s".to_owned()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// It dies: connections are refused.
    pub async fn die(&self) {
        self.sandbox.docker(&["kill", &self.container]).await;
    }

    /// It comes back after it died.
    pub async fn revive(&self) {
        self.sandbox.docker(&["start", &self.container]).await;
    }

    /// It falls silent: connections are made, and nothing is ever said on them.
    pub async fn fall_silent(&self) {
        self.sandbox.docker(&["pause", &self.container]).await;
    }

    /// It goes on where it fell silent.
    pub async fn speak(&self) {
        self.sandbox.docker(&["unpause", &self.container]).await;
    }

    /// What it has taken so far, in the order of arrival; while it is down or silent nobody can look.
    pub async fn received(&self) -> Vec<Received> {
        let mut all = Vec::new();
        for name in self.sandbox.docker(&["exec", &self.container, "messages"]).await.lines() {
            let raw = self.sandbox.docker(&["exec", &self.container, "messages", name]).await;
            all.push(Received::read(raw));
        }
        all
    }

    /// Waits until each of these people was told of each of these phases of an operation; in this order, and of no other.
    /// A message that came twice counts once.
    pub async fn has_told(&self, operation: &str, people: &[&str], phases: &[&str]) -> Vec<Received> {
        eventually(&format!("mail that says {phases:?}"), Duration::from_secs(90), async || {
            let mut all = self.received().await;
            all.retain(|m| m.operation == operation);
            let all = all.into_iter().fold(Vec::<Received>::new(), |mut once, message| {
                if once.iter().all(|m| m.id != message.id) {
                    once.push(message);
                }
                once
            });
            let to = |person: &str| -> Vec<&str> {
                all.iter().filter(|m| m.to.contains(person)).map(|m| m.phase.as_str()).collect()
            };
            let told: Vec<_> = people.iter().map(|person| to(person)).collect();
            if told.iter().all(|t| t == phases) { Ok(all) } else { Err(format!("{told:?}")) }
        })
        .await
    }
}

impl Drop for PostOffice {
    fn drop(&mut self) {
        let mut command = std::process::Command::new("docker");
        command.args(["rm", "-fv", &self.container]).envs(self.sandbox.environment());
        let _ = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

// === impl Received ===

impl Received {
    fn read(raw: String) -> Received {
        let mail = mailparse::parse_mail(raw.as_bytes()).expect("it is a message");
        let header = |name: &str| mail.headers.get_first_value(name).unwrap_or_default();
        let text = mail.subparts.first().and_then(|part| part.get_body().ok()).unwrap_or_default();
        Received {
            id: header("Message-ID"),
            to: header("To"),
            operation: header("X-Skep-Operation"),
            phase: header("X-Skep-Phase"),
            text,
            raw,
        }
    }
}
