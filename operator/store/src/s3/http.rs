//! One HTTP connection to an S3 server at a time, for a program that does one thing after the other. Every wait is bounded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_LENGTH, HOST, RANGE};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::Url;

/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// What is sent may take longer by its size at this rate, in bytes a second.
const SLOWEST: u64 = 64 << 10;

/// A connection that is made when it is needed.
pub(super) struct Http {
    runtime: Runtime,
    tls: Option<TlsConnector>,
    host: String,
    port: u16,
    patience: Duration,
    open: Option<SendRequest<Full<Bytes>>>,
}

/// The server cannot be reached, or does not answer.
#[derive(Debug)]
pub(super) struct Away(pub(super) String);

// === impl Http ===

impl Http {
    /// A connection to the host of `url`; `patience` is the longest wait for anything.
    pub(super) fn new(url: &Url, patience: Duration) -> io::Result<Http> {
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let tls = match url.scheme() {
            "https" => Some(tls()?),
            "http" => None,
            _ => return Err(wrong("an endpoint begins with http:// or https://")),
        };
        let host = url.host_str().ok_or_else(|| wrong("an endpoint has a host"))?;
        Ok(Http {
            runtime: Builder::new_current_thread().enable_all().build()?,
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().unwrap_or(443),
            patience,
            open: None,
        })
    }

    /// Sends a request and waits for the head of its answer, `longer` than for others.
    pub(super) fn send(
        &mut self,
        method: &Method,
        url: &Url,
        from: Option<u64>,
        body: &Bytes,
        longer: Duration,
    ) -> Result<Response<Incoming>, Away> {
        let target = url.query().map_or_else(|| url.path().to_owned(), |q| format!("{}?{q}", url.path()));
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        let mut request = Request::builder().method(method).uri(target).header(HOST, host);
        if *method != Method::GET {
            request = request.header(CONTENT_LENGTH, body.len());
        }
        if let Some(from) = from.filter(|from| *from > 0) {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let request = request.body(Full::new(body.clone())).map_err(|e| Away(e.to_string()))?;
        let within = self.patience + longer + Duration::from_secs(body.len() as u64 / SLOWEST);
        let mut open = match self.open.take() {
            Some(open) if open.is_ready() => open,
            _ => self.connect()?,
        };
        let answer = self.runtime.block_on(async { timeout(within, open.send_request(request)).await });
        match answer {
            Ok(Ok(answer)) => {
                self.open = Some(open);
                Ok(answer)
            }
            Ok(Err(error)) => Err(Away(told(&error))),
            Err(_) => Err(Away(format!("no answer within {} s", within.as_secs()))),
        }
    }

    /// The next bytes of an answer; none at its end.
    pub(super) fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, Away> {
        let patience = self.patience;
        loop {
            let frame = self.runtime.block_on(async { timeout(patience, body.frame()).await });
            match frame {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(error))) => return Err(Away(told(&error))),
                Err(_) => return Err(Away(format!("nothing more within {} s", patience.as_secs()))),
            }
        }
    }

    fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Away> {
        let limit = CONNECT.min(self.patience);
        let made = self.runtime.block_on(async { timeout(limit, self.handshake()).await });
        match made {
            Ok(Ok(open)) => Ok(open),
            Ok(Err(why)) => Err(Away(why)),
            Err(_) => Err(Away(format!("no connection within {} s", limit.as_secs()))),
        }
    }

    async fn handshake(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| e.to_string())?;
        // Without delay, since a request's head and body are two writes.
        tcp.set_nodelay(true).map_err(|e| e.to_string())?;
        match &self.tls {
            None => speak(TokioIo::new(tcp)).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|e| e.to_string())?;
                speak(TokioIo::new(tls.connect(name, tcp).await.map_err(|e| e.to_string())?)).await
            }
        }
    }
}

async fn speak<T>(io: T) -> Result<SendRequest<Full<Bytes>>, String>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (open, connection) = http1::handshake(io).await.map_err(|e| told(&e))?;
    // Its failure is seen by the request that it carries.
    tokio::spawn(async move { drop(connection.await) });
    Ok(open)
}

fn tls() -> io::Result<TlsConnector> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What hyper says, with its cause, which tells more.
fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
