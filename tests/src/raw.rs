//! A minimal raw client of the Docker API, for the suites: one connection a call, no types, no retries.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::sim::Connector;

/// Where the API is, and under which version.
#[derive(Clone)]
pub struct Raw {
    place: Place,
    version: &'static str,
}

#[derive(Clone)]
enum Place {
    Unix(PathBuf),
    Sim(Connector),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Bytes,
    /// The `Api-Version` header.
    pub api_version: Option<String>,
}

/// A body that goes on.
pub struct Lines {
    body: Incoming,
    rest: BytesMut,
}

// === impl Raw ===

impl Raw {
    /// On a unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Raw {
        Raw { place: Place::Unix(path.into()), version: "/v1.41" }
    }

    /// On a simulated engine.
    pub fn sim(connector: Connector) -> Raw {
        Raw { place: Place::Sim(connector), version: "/v1.41" }
    }

    /// The same with another version prefix; empty for none.
    pub fn under(&self, version: &'static str) -> Raw {
        Raw { place: self.place.clone(), version }
    }

    /// One call.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Reply> {
        let body = body.map(|b| Bytes::from(b.to_string()));
        self.call_bytes(method, path, body).await
    }

    /// One call with any body.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call_bytes(&self, method: &str, path: &str, body: Option<Bytes>) -> io::Result<Reply> {
        let response = self.send(method, path, body).await?;
        let status = response.status().as_u16();
        let api_version = response.headers().get("api-version");
        let api_version = api_version.and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Reply { status, body, api_version })
    }

    /// `GET` of what does not end.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn lines(&self, path: &str) -> io::Result<Lines> {
        let response = self.send("GET", path, None).await?;
        Ok(Lines { body: response.into_body(), rest: BytesMut::new() })
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<Bytes>,
    ) -> io::Result<hyper::Response<Incoming>> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{}", self.version, path))
            .header("Host", "docker")
            .header("Content-Type", "application/json")
            .body(Full::new(body.unwrap_or_default()))
            .map_err(io::Error::other)?;
        match &self.place {
            Place::Unix(path) => exchange(tokio::net::UnixStream::connect(path).await?, request).await,
            Place::Sim(connector) => exchange(connector().await?, request).await,
        }
    }
}

// === impl Reply ===

impl Reply {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The error message.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

// === impl Lines ===

impl Lines {
    /// The next line as JSON; none when nothing comes within the time, or the stream ended.
    pub async fn next(&mut self, within: Duration) -> Option<Value> {
        tokio::time::timeout(within, self.next_line()).await.ok().flatten()
    }

    async fn next_line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line = self.rest.split_to(end + 1);
                return serde_json::from_slice(&line).ok();
            }
            let chunk = self.next_chunk().await?;
            self.rest.extend_from_slice(&chunk);
        }
    }

    /// The next piece of the body as it comes.
    pub async fn next_chunk(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }
}

async fn exchange<S>(stream: S, request: hyper::Request<Full<Bytes>>) -> io::Result<hyper::Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}
