//! One conversation with the mail server. Every command has a deadline, and a failure says whom it concerns: the
//! server as a whole, this message for now, or this message for good.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use lettre::Message;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
use thiserror::Error;

use super::settings::{Mail, Tls};
use crate::runtime::scrub;

/// How to reach the server.
pub struct Smtp {
    host: String,
    port: u16,
    mode: Tls,
    tls: Option<TlsParameters>,
    login: Option<(String, PathBuf)>,
    hello: ClientId,
    timeout: Duration,
}

/// An open connection: encrypted and logged in as the settings want it.
pub struct Session {
    connection: AsyncSmtpConnection,
    timeout: Duration,
}

/// A message that was not delivered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The server cannot be reached, does not answer in time, or refuses to talk to us: nobody gets mail until that changes.
    #[error("{doing}: {message}")]
    Server {
        /// What was being done.
        doing: &'static str,
        /// What the server or the network said.
        message: String,
    },
    /// The server does not take this message now (4xx).
    #[error("the server does not take it now: {0}")]
    Deferred(String),
    /// The server will never take this message (5xx).
    #[error("the server refuses it: {0}")]
    Rejected(String),
}

/// Settings with which no connection can be made.
#[derive(Debug, Error)]
pub enum Unusable {
    /// The CA file cannot be read.
    #[error("cannot read the mail server's certificate authority from `{file}`")]
    Read {
        /// The file.
        file: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The CA file holds no certificate, or TLS cannot be set up with it.
    #[error("cannot set up TLS for the mail server")]
    Tls(#[from] lettre::transport::smtp::Error),
}

// === impl Smtp ===

impl Smtp {
    /// Prepares connections; reads the certificate authority.
    ///
    /// # Errors
    /// When the certificate authority cannot be read.
    pub fn new(mail: &Mail) -> Result<Smtp, Unusable> {
        let tls = match mail.tls {
            Tls::None => None,
            Tls::Starttls | Tls::Implicit => Some(tls_parameters(mail)?),
        };
        Ok(Smtp {
            host: mail.host.clone(),
            port: mail.port,
            mode: mail.tls,
            tls,
            login: mail.login.clone(),
            hello: mail.hello.clone().map_or_else(ClientId::default, ClientId::Domain),
            timeout: mail.timeout,
        })
    }

    /// Connects, encrypts and logs in.
    ///
    /// # Errors
    /// [`Fault::Server`], whatever goes wrong.
    pub async fn open(&self) -> Result<Session, Fault> {
        let implicit = self.tls.clone().filter(|_| self.mode == Tls::Implicit);
        let server = (self.host.as_str(), self.port);
        let connect = AsyncSmtpConnection::connect_tokio1(server, None, &self.hello, implicit, None);
        let mut connection = within(self.timeout, "cannot connect to the mail server", connect).await?;
        if let Some(tls) = self.tls.clone().filter(|_| self.mode == Tls::Starttls) {
            let upgrade = connection.starttls(tls, &self.hello);
            within(self.timeout, "cannot encrypt the connection to the mail server", upgrade).await?;
        }
        if let Some((user, file)) = &self.login {
            let password = password(file).await?;
            let credentials = Credentials::new(user.clone(), password);
            let login = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials);
            within(self.timeout, "cannot log in to the mail server", login).await?;
        }
        Ok(Session { connection, timeout: self.timeout })
    }
}

// === impl Session ===

impl Session {
    /// Hands one message over. After [`Fault::Server`] the session is of no use any more.
    ///
    /// # Errors
    /// A [`Fault`] that says whom it concerns. After a timeout or a lost connection the message may have been taken.
    pub async fn send(&mut self, message: &Message) -> Result<(), Fault> {
        let sent = self.transact(message).await;
        if matches!(sent, Err(Fault::Deferred(_) | Fault::Rejected(_))) {
            // Frees the server of the half-made message, so that the next one can go over the same connection.
            let reset = self.connection.command(Rset);
            within(self.timeout, "cannot go on with the mail server", reset).await?;
        }
        sent
    }

    /// Says good-bye; a failure changes nothing.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), self.connection.quit()).await;
    }

    async fn transact(&mut self, message: &Message) -> Result<(), Fault> {
        let bytes = message.formatted();
        let parameters = self.parameters(message, &bytes)?;
        let envelope = message.envelope();
        let from = MailFrom::new(envelope.from().cloned(), parameters);
        // A sender that is refused is refused for every message: a fault of the settings, not of this one.
        within(self.timeout, "the mail server refuses the sender", self.connection.command(from)).await?;
        for to in envelope.to() {
            let to = self.connection.command(Rcpt::new(to.clone(), Vec::new()));
            taken(self.timeout, "cannot name the recipient", to).await?;
        }
        taken(self.timeout, "cannot begin the message", self.connection.command(Data)).await?;
        taken(self.timeout, "cannot hand the message over", self.connection.message(&bytes)).await
    }

    fn parameters(&self, message: &Message, bytes: &[u8]) -> Result<Vec<MailParameter>, Fault> {
        let mut parameters = Vec::new();
        let server = self.connection.server_info();
        let envelope = message.envelope();
        let addresses = envelope.to().iter().chain(envelope.from());
        if !addresses.map(AsRef::<str>::as_ref).all(str::is_ascii) {
            if !server.supports_feature(Extension::SmtpUtfEight) {
                return Err(Fault::Rejected("it does not support addresses beyond ASCII".to_owned()));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !bytes.is_ascii() && server.supports_feature(Extension::EightBitMime) {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        Ok(parameters)
    }
}

fn tls_parameters(mail: &Mail) -> Result<TlsParameters, Unusable> {
    let mut tls = TlsParameters::builder(mail.tls_name.clone());
    if let Some(file) = &mail.ca_file {
        let pem = std::fs::read(file).map_err(|source| Unusable::Read { file: file.clone(), source })?;
        // The own authority replaces the public ones: whoever names one means that server and no other.
        tls =
            tls.certificate_store(CertificateStore::None).add_root_certificate(Certificate::from_pem(&pem)?);
    }
    Ok(tls.build()?)
}

/// Read for every connection, so that a password that changes needs no restart.
async fn password(file: &std::path::Path) -> Result<String, Fault> {
    let text = tokio::fs::read_to_string(file).await.map_err(|e| Fault::Server {
        doing: "cannot read the mail password",
        message: format!("{}: {e}", file.display()),
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

type Answer<T> = Result<T, lettre::transport::smtp::Error>;

/// Waits for an answer whose absence or refusal concerns the server as a whole.
async fn within<T>(
    timeout: Duration,
    doing: &'static str,
    answer: impl Future<Output = Answer<T>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Fault::Server { doing, message: said(&error) }),
        Err(_) => Err(Fault::Server { doing, message: format!("no answer within {} s", timeout.as_secs()) }),
    }
}

/// Waits for an answer about one message.
async fn taken(
    timeout: Duration,
    doing: &'static str,
    answer: impl Future<Output = Answer<Response>>,
) -> Result<(), Fault> {
    let answer = match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            return Err(Fault::Server {
                doing,
                message: format!("no answer within {} s", timeout.as_secs()),
            });
        }
    };
    let Err(error) = answer else { return Ok(()) };
    let code = error.status().map(u16::from);
    let message = said(&error);
    match code {
        // 421: the server closes the connection. 530–538: it wants another login. Both concern every message.
        Some(421 | 530..=538) | None => Err(Fault::Server { doing, message }),
        Some(_) if error.is_permanent() => Err(Fault::Rejected(message)),
        Some(_) => Err(Fault::Deferred(message)),
    }
}

/// The error and its causes on one line; a server may say anything.
fn said(error: &dyn std::error::Error) -> String {
    scrub::line(&error.to_string(), 300)
}
