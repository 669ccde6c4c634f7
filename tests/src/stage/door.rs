//! The one way of an operator to its engine: it sees every write, and can shut behind one of them.
//!
//! The write behind which it shuts has happened, and the operator never learns so: the hardest moment to be killed at. It
//! is hit exactly, however busy the machine is.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::sandbox::unique;

/// A write that the engine has answered.
#[derive(Clone, Debug)]
pub struct Write {
    /// Method and path.
    pub what: String,
    /// What was sent; null where nothing was.
    pub body: Value,
}

type Rule = Box<dyn FnMut(&Write) -> bool + Send>;

/// The door.
pub struct Door {
    path: PathBuf,
    shut: watch::Sender<bool>,
}

struct Keeper {
    engine: PathBuf,
    shut: watch::Sender<bool>,
    rule: Mutex<Rule>,
}

// === impl Write ===

impl Write {
    /// Whether this records a step of an operation in this state (as the journal spells it).
    pub fn records(&self, step: &str, state: &str) -> bool {
        let labels = self.body["Labels"].as_object();
        let record = labels.into_iter().flatten().find(|(key, _)| {
            key.strip_prefix("skep.step.")
                .and_then(|k| k.split_once('.'))
                .is_some_and(|(_, name)| name == step)
        });
        let record = record.and_then(|(_, text)| serde_json::from_str::<Value>(text.as_str()?).ok());
        record.is_some_and(|record| record["state"] == state)
    }

    /// Whether this is a record of an operation on the service with this id.
    pub fn is_of(&self, service_id: &str) -> bool {
        self.body["Labels"]["skep.service-id"] == service_id
    }

    /// Whether this is no record of an operation.
    pub fn is_of_no_operation(&self) -> bool {
        self.body["Labels"]["skep.service-id"].is_null()
    }

    /// Whether it only keeps the lease.
    pub fn is_of_the_lease(&self) -> bool {
        self.body["Name"] == "skep-lease"
    }
}

/// Holds of the write with this number among those of a step, its beginning not counted; of the one that ends the step
/// where there are fewer.
pub fn in_the_middle_of(step: &'static str, number: usize) -> impl FnMut(&Write) -> bool + Send + 'static {
    let mut behind: Option<usize> = None;
    move |write| {
        let begins = write.records(step, "started");
        match behind.as_mut() {
            None if begins => behind = Some(0),
            Some(_) if write.is_of_the_lease() => {}
            Some(count) => *count += 1,
            None => {}
        }
        behind.is_some_and(|count| count == number) || write.records(step, "done")
    }
}

// === impl Door ===

impl Door {
    /// Opens a door to the engine at this socket, which shuts behind the first write of which `rule` holds.
    pub fn open(engine: &Path, rule: impl FnMut(&Write) -> bool + Send + 'static) -> Door {
        let path = std::env::temp_dir().join(unique("door"));
        let listener = UnixListener::bind(&path).expect("the temporary directory can be written");
        let shut = watch::Sender::new(false);
        let rule: Rule = Box::new(rule);
        let keeper = Keeper { engine: engine.to_owned(), shut: shut.clone(), rule: Mutex::new(rule) };
        tokio::spawn(Arc::new(keeper).keep(listener));
        Door { path, shut }
    }

    /// What `DOCKER_HOST` is behind it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Waits until it is shut.
    pub async fn is_shut(&self) {
        let mut shut = self.shut.subscribe();
        let waiting = tokio::time::timeout(super::PATIENCE, shut.wait_for(|shut| *shut));
        waiting.await.expect("the write that shuts the door never came").expect("the door is there");
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shut.send_replace(true);
        let _ = std::fs::remove_file(&self.path);
    }
}

// === impl Keeper ===

impl Keeper {
    async fn keep(self: Arc<Self>, listener: UnixListener) {
        let mut shut = self.shut.subscribe();
        loop {
            let stream = tokio::select! {
                biased;
                _ = shut.wait_for(|shut| *shut) => return,
                accepted = listener.accept() => accepted.expect("the door's socket is good").0,
            };
            tokio::spawn(self.clone().serve(stream));
        }
    }

    async fn serve(self: Arc<Self>, stream: UnixStream) {
        let mut shut = self.shut.subscribe();
        let pass = service_fn(|request| {
            let keeper = self.clone();
            async move { Ok::<_, Infallible>(keeper.pass(request).await) }
        });
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass);
        tokio::select! {
            biased;
            _ = shut.wait_for(|shut| *shut) => {}
            // The operator may hang up whenever it likes.
            _ = serving => {}
        }
    }

    async fn pass(&self, request: Request<Incoming>) -> Response<Incoming> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("the operator sends whole requests").to_bytes();
        let write = (head.method != Method::GET).then(|| Write {
            what: format!("{} {}", head.method, head.uri.path()),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        });
        let response = self.ask(Request::from_parts(head, Full::new(body))).await;
        if let Some(write) = write {
            let mut rule = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
            if rule(&write) {
                println!("the door shuts behind {}", write.what);
                self.shut.send_replace(true);
            }
        }
        if *self.shut.borrow() {
            // The connection is dropped with this answer on its way.
            std::future::pending::<()>().await;
        }
        response
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = UnixStream::connect(&self.engine).await.expect("the engine listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("the engine speaks HTTP");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("the engine answers")
    }
}
