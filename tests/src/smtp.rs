//! A small mail server for tests: STARTTLS or TLS from the first byte, login, and answers by script (4xx, 5xx, no
//! answer, a connection cut before or after the message was taken). Keeps what it takes.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// What the server offers and wants.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Encryption.
    pub tls: Tls,
    /// User and password without which no mail is taken.
    pub login: Option<(String, String)>,
    /// Whether it takes addresses beyond ASCII.
    pub utf8: bool,
}

/// When a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Never, and it is not offered.
    #[default]
    Never,
    /// After STARTTLS, and nothing is taken before.
    Starttls,
    /// From the first byte on.
    Implicit,
}

/// A moment of the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The connection is there.
    Greeting,
    /// A login.
    Login,
    /// The sender is named.
    From,
    /// This recipient is named.
    To(String),
    /// The message has come, and is not yet taken.
    End,
    /// The message is taken, and that is not yet said.
    Taken,
}

/// What happens instead of the ordinary answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This line.
    Say(&'static str),
    /// Nothing, and the connection stays open.
    Silence,
    /// The connection ends.
    Cut,
}

/// A mail that the server has taken.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Envelope sender.
    pub from: String,
    /// Envelope recipient.
    pub to: String,
    /// The message as it came.
    pub data: Vec<u8>,
    /// Whether it came encrypted.
    pub encrypted: bool,
    /// Who had logged in.
    pub user: Option<String>,
}

/// A running server. Dropping it closes the port and every connection.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: JoinHandle<()>,
}

/// A certificate authority with a certificate for `localhost` and 127.0.0.1.
pub struct Authority {
    /// The authority's certificate, for clients.
    pub pem: String,
    acceptor: TlsAcceptor,
}

struct Shared {
    options: Options,
    acceptor: Option<TlsAcceptor>,
    script: watch::Sender<VecDeque<(Moment, Answer)>>,
    mails: watch::Sender<Vec<Mail>>,
    connections: watch::Sender<usize>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

struct Conversation {
    shared: Arc<Shared>,
    stream: BufReader<Box<dyn Stream>>,
    encrypted: bool,
    user: Option<String>,
    from: String,
    to: Vec<String>,
}

/// Whether the conversation goes on.
enum Then {
    Continue,
    Upgrade,
    End,
}

const PATIENCE: Duration = Duration::from_secs(20);

// === impl Authority ===

impl Authority {
    /// Makes a new one.
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key can be made"))
            .expect("the parameters are fine");
        let key = KeyPair::generate().expect("a key can be made");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).and_then(|p| p.signed_by(&key, &ca));
        let certificate = certificate.expect("the parameters are fine");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key belongs to the certificate");
        Authority { pem: ca.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    /// Writes the authority's certificate to a file for clients.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &std::path::Path) -> io::Result<PathBuf> {
        std::fs::write(file, &self.pem)?;
        Ok(file.to_owned())
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Server ===

impl Server {
    /// Starts on a free port of the loopback interface.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start(options: Options, authority: Option<&Authority>) -> Server {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("the loopback has a free port");
        Server::serve(listener, options, authority)
    }

    /// Starts on the given port, for one that was stopped.
    ///
    /// # Panics
    /// When the port is taken.
    pub async fn start_at(address: SocketAddr, options: Options, authority: Option<&Authority>) -> Server {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        Server::serve(listener, options, authority)
    }

    fn serve(listener: TcpListener, options: Options, authority: Option<&Authority>) -> Server {
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            options,
            acceptor: authority.map(|a| a.acceptor.clone()),
            script: watch::Sender::new(VecDeque::new()),
            mails: watch::Sender::new(Vec::new()),
            connections: watch::Sender::new(0),
        });
        let running = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Server { address, shared, running }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Once, at the next such moment, does this instead.
    pub fn at(&self, moment: Moment, answer: Answer) {
        self.shared.script.send_modify(|script| script.push_back((moment, answer)));
    }

    /// What it has taken so far.
    pub fn mails(&self) -> Vec<Mail> {
        self.shared.mails.borrow().clone()
    }

    /// How many connections have been made so far.
    pub fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Waits until it has taken so many mails.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn until(&self, count: usize) -> Vec<Mail> {
        let mut mails = self.shared.mails.subscribe();
        let enough = mails.wait_for(|mails| mails.len() >= count);
        let waited = tokio::time::timeout(PATIENCE, enough).await;
        waited.expect("mails come in time").expect("the sender lives as long as the server").clone()
    }

    /// Waits until every scripted moment has come.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn played(&self) {
        let mut script = self.shared.script.subscribe();
        let waited = tokio::time::timeout(PATIENCE, script.wait_for(VecDeque::is_empty)).await;
        waited.expect("the moments come in time").expect("the sender lives as long as the server");
    }

    /// Stops it; the port is free when this returns.
    pub async fn stop(self) {
        self.running.abort();
        while !self.running.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

// === impl Shared ===

impl Shared {
    /// Takes the first scripted answer for this moment.
    fn scripted(&self, moment: &Moment) -> Option<Answer> {
        let mut answer = None;
        self.script.send_if_modified(|script| {
            let at = script.iter().position(|(m, _)| m == moment);
            answer = at.and_then(|at| script.remove(at)).map(|(_, answer)| answer);
            answer.is_some()
        });
        answer
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Owned here, so that stopping the server ends its conversations.
    let mut conversations = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.send_modify(|n| *n += 1);
        let shared = Arc::clone(&shared);
        conversations.spawn(async move {
            // A client that goes away in the middle is the client's affair.
            let _ = converse(stream, shared).await;
        });
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let (mut stream, mut encrypted): (Box<dyn Stream>, bool) = (Box::new(stream), false);
    if shared.options.tls == Tls::Implicit {
        stream = Box::new(acceptor(&shared).accept(stream).await?);
        encrypted = true;
    }
    let stream = BufReader::new(stream);
    let mut conversation =
        Conversation { shared, stream, encrypted, user: None, from: String::new(), to: Vec::new() };
    if let Then::End = conversation.answer(&Moment::Greeting, "220 ready").await? {
        return Ok(());
    }
    loop {
        match conversation.step().await? {
            Then::Continue => {}
            Then::Upgrade => conversation = conversation.upgrade().await?,
            Then::End => return Ok(()),
        }
    }
}

fn acceptor(shared: &Shared) -> TlsAcceptor {
    shared.acceptor.clone().expect("a server with TLS is given an authority")
}

// === impl Conversation ===

impl Conversation {
    async fn upgrade(self) -> io::Result<Conversation> {
        let stream = acceptor(&self.shared).accept(self.stream.into_inner()).await?;
        let stream = BufReader::new(Box::new(stream) as Box<dyn Stream>);
        Ok(Conversation { stream, encrypted: true, ..self })
    }

    async fn step(&mut self) -> io::Result<Then> {
        let line = self.line().await?;
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let open = self.encrypted || self.shared.options.tls == Tls::Never;
        let known = self.user.is_some() || self.shared.options.login.is_none();
        match verb.as_str() {
            "EHLO" => self.greet().await,
            "STARTTLS" if self.shared.options.tls == Tls::Starttls && !self.encrypted => {
                self.say("220 go ahead").await?;
                Ok(Then::Upgrade)
            }
            "QUIT" => {
                self.say("221 bye").await?;
                Ok(Then::End)
            }
            "RSET" | "NOOP" => {
                self.to.clear();
                self.say("250 ok").await
            }
            _ if !open => self.say("530 5.7.0 must issue STARTTLS first").await,
            "AUTH" => self.login(&line).await,
            _ if !known => self.say("530 5.7.0 authentication required").await,
            "MAIL" => {
                self.from = address(&line);
                self.to.clear();
                self.answer(&Moment::From, "250 ok").await
            }
            "RCPT" => self.recipient(&line).await,
            "DATA" if !self.to.is_empty() => self.data().await,
            _ => self.say("503 5.5.1 not now").await,
        }
    }

    async fn greet(&mut self) -> io::Result<Then> {
        let options = &self.shared.options;
        let mut lines = vec!["250-localhost"];
        if options.tls == Tls::Starttls && !self.encrypted {
            lines.push("250-STARTTLS");
        }
        if options.login.is_some() {
            lines.push("250-AUTH PLAIN LOGIN");
        }
        if options.utf8 {
            lines.push("250-SMTPUTF8");
        }
        lines.push("250 8BITMIME");
        self.say(&lines.join("\r\n")).await
    }

    async fn login(&mut self, line: &str) -> io::Result<Then> {
        let given = line.split(' ').nth(2).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        let given = String::from_utf8_lossy(&given).into_owned();
        let wanted =
            self.shared.options.login.as_ref().map(|(user, password)| format!("\0{user}\0{password}"));
        if wanted.as_deref() != Some(given.as_str()) {
            return self.say("535 5.7.8 authentication credentials invalid").await;
        }
        self.user = self.shared.options.login.as_ref().map(|(user, _)| user.clone());
        self.answer(&Moment::Login, "235 2.7.0 accepted").await
    }

    async fn recipient(&mut self, line: &str) -> io::Result<Then> {
        let to = address(line);
        let moment = Moment::To(to.clone());
        if let Some(answer) = self.shared.scripted(&moment) {
            return self.instead(answer).await;
        }
        self.to.push(to);
        self.say("250 ok").await
    }

    async fn data(&mut self) -> io::Result<Then> {
        self.say("354 end with a dot").await?;
        let mut data = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                return Ok(Then::End);
            }
            if line == b".\r\n" {
                break;
            }
            data.extend(line.strip_prefix(b".").unwrap_or(&line));
        }
        if let Some(answer) = self.shared.scripted(&Moment::End) {
            return self.instead(answer).await;
        }
        let (from, encrypted, user) = (self.from.clone(), self.encrypted, self.user.clone());
        let mail = |to| Mail { from: from.clone(), to, data: data.clone(), encrypted, user: user.clone() };
        let taken: Vec<Mail> = self.to.drain(..).map(mail).collect();
        self.shared.mails.send_modify(|mails| mails.extend(taken));
        self.answer(&Moment::Taken, "250 2.0.0 queued").await
    }

    async fn answer(&mut self, moment: &Moment, ordinary: &str) -> io::Result<Then> {
        match self.shared.scripted(moment) {
            Some(answer) => self.instead(answer).await,
            None => self.say(ordinary).await,
        }
    }

    async fn instead(&mut self, answer: Answer) -> io::Result<Then> {
        match answer {
            Answer::Say(line) => self.say(line).await,
            Answer::Cut => Ok(Then::End),
            Answer::Silence => std::future::pending().await,
        }
    }

    async fn say(&mut self, line: &str) -> io::Result<Then> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.stream.flush().await?;
        Ok(Then::Continue)
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// The address between angle brackets.
fn address(line: &str) -> String {
    line.split(['<', '>']).nth(1).unwrap_or_default().to_owned()
}
