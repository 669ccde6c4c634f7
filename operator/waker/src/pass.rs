//! One request on its way to the application.
//!
//! What may be tried again: a request of which nothing was sent, always; one that another waker refused, if it has no
//! body, for a body can be read once only; one whose connection broke, if it has no body and a method that changes nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hyper::body::{Body as _, Incoming};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::body::{Body, Passed, Upload};
use crate::headers;
use crate::open::Busy;
use crate::pool::Lent;
use crate::waker::Shared;

/// How often a request whose connection broke is tried.
const ATTEMPTS: usize = 3;

/// How long the application is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Until then.
    Until(Instant),
    /// Not at all: what is known to be there is tried once.
    None,
}

/// Why a request did not pass. The body is what is left of it.
#[derive(Debug)]
pub(crate) enum NotPassed {
    /// The application is not there, or was not in time.
    NotThere(Option<Incoming>),
    /// It is not known whether the application has seen the request.
    Broken,
}

enum Tried {
    Answer(Response<Body>),
    /// Nothing of it was sent, for there was no connection.
    NoConnection(Request<Upload>, io::Error),
    /// Nothing of it was sent: the connection was being closed.
    Closing(Request<Upload>),
    /// Another waker was there.
    Waker,
    Broken(hyper::Error),
}

/// Passes a request through.
pub(crate) async fn pass(
    shared: &Shared,
    mut request: Request<Incoming>,
    (peer, port): (IpAddr, u16),
    busy: Busy,
    patience: Patience,
) -> Result<Response<Body>, NotPassed> {
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let client = headers::is_upgrade(&parts).then_some(client);
    headers::forward(&mut parts, peer, &shared.task.service, &shared.sleep);
    parts.extensions.clear();
    let body = (!body.is_end_stream()).then_some(body);
    let head = body.is_none().then(|| parts.clone());
    let way = Way { shared, port, patience, head, client, busy: Some(busy) };
    way.go(Request::from_parts(parts, Upload(body))).await
}

struct Way<'a> {
    shared: &'a Shared,
    port: u16,
    patience: Patience,
    /// To be sent again; absent where there is a body.
    head: Option<Parts>,
    client: Option<OnUpgrade>,
    /// Until the response has gone.
    busy: Option<Busy>,
}

// === impl Way ===

impl Way<'_> {
    async fn go(mut self, mut request: Request<Upload>) -> Result<Response<Body>, NotPassed> {
        let shared = self.shared;
        let gate = &shared.gate;
        let mut waiting = None;
        let began = Instant::now();
        let (mut broken, mut closing) = (0, 0);
        loop {
            let hosts = gate.hosts();
            let mut turn = shared.in_turn(&hosts).peekable();
            while let Some(host) = turn.peek().copied() {
                let to = shared.upstream.socket(host, self.port);
                request = match self.attempt(to, request).await {
                    Tried::Answer(answer) => return Ok(answer),
                    Tried::Closing(request) => {
                        closing += 1;
                        // The next connection is another one.
                        if closing % ATTEMPTS == 0 {
                            turn.next();
                        }
                        request
                    }
                    Tried::NoConnection(request, why) => {
                        debug!(%why, "no connection to the application");
                        turn.next();
                        request
                    }
                    Tried::Waker => {
                        turn.next();
                        self.again().ok_or(NotPassed::NotThere(None))?
                    }
                    Tried::Broken(why) => {
                        debug!(%why, "a connection to the application broke");
                        broken += 1;
                        turn.next();
                        let may_be = self.is_safe() && broken < ATTEMPTS;
                        may_be.then(|| self.again()).flatten().ok_or(NotPassed::Broken)?
                    }
                };
            }
            if !hosts.is_empty() {
                gate.reached(false);
            }
            let Patience::Until(deadline) = self.patience else {
                return Err(NotPassed::NotThere(request.into_body().0));
            };
            waiting.get_or_insert_with(|| gate.wait());
            let next = async {
                if !hosts.is_empty() {
                    sleep(shared.settings.look(began.elapsed())).await;
                }
                gate.listed().await;
            };
            if timeout_at(deadline, next).await.is_err() {
                return Err(NotPassed::NotThere(request.into_body().0));
            }
        }
    }

    async fn attempt(&mut self, to: SocketAddr, request: Request<Upload>) -> Tried {
        if request.version() == Version::HTTP_2 {
            self.http2(to, request).await
        } else {
            self.http1(to, request).await
        }
    }

    async fn http1(&mut self, to: SocketAddr, request: Request<Upload>) -> Tried {
        let mut lent = match self.shared.pool.lend(to, self.is_safe()).await {
            Ok(lent) => lent,
            Err(error) => return Tried::NoConnection(request, error),
        };
        match lent.sender.try_send_request(request).await {
            Ok(response) if is_waker(&response) => Tried::Waker,
            Ok(response) => self.answer(response, Some(lent)),
            Err(mut error) => match error.take_message() {
                Some(request) if lent.is_old => Tried::Closing(request),
                Some(request) => Tried::NoConnection(request, io::Error::other(error.into_error())),
                None => Tried::Broken(error.into_error()),
            },
        }
    }

    async fn http2(&mut self, to: SocketAddr, request: Request<Upload>) -> Tried {
        let mut sender = match self.shared.pool.share(to).await {
            Ok(sender) => sender,
            Err(error) => return Tried::NoConnection(request, error),
        };
        match sender.try_send_request(request).await {
            Ok(response) if is_waker(&response) => Tried::Waker,
            Ok(response) => self.answer(response, None),
            Err(mut error) => match error.take_message() {
                Some(request) => Tried::Closing(request),
                None => Tried::Broken(error.into_error()),
            },
        }
    }

    fn answer(&mut self, mut response: Response<Incoming>, lent: Option<Lent>) -> Tried {
        self.shared.gate.reached(true);
        let mut busy = self.busy.take();
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(client) = self.client.take() {
                let application = hyper::upgrade::on(&mut response);
                tokio::spawn(tunnel(client, application, busy.take()));
            }
        } else {
            headers::strip(response.headers_mut());
            if response.status() != StatusCode::UPGRADE_REQUIRED {
                response.headers_mut().remove(hyper::header::UPGRADE);
            }
        }
        response.extensions_mut().clear();
        let (parts, body) = response.into_parts();
        let mut passed = Box::new(Passed { body, lent, _busy: busy });
        if passed.body.is_end_stream() {
            passed.end();
        }
        Tried::Answer(Response::from_parts(parts, Body::Passed(passed)))
    }

    /// The request once more, if it had no body.
    fn again(&self) -> Option<Request<Upload>> {
        self.head.clone().map(|head| Request::from_parts(head, Upload(None)))
    }

    /// Whether it does no harm if the application sees the request twice.
    fn is_safe(&self) -> bool {
        self.head.as_ref().is_some_and(|head| {
            matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) && self.client.is_none()
        })
    }
}

/// Another waker refuses what it would have to send back.
fn is_waker(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SERVICE_UNAVAILABLE && response.headers().contains_key(headers::WAKER)
}

/// What is neither HTTP any more nor ever ends by itself.
async fn tunnel(client: OnUpgrade, application: OnUpgrade, busy: Option<Busy>) {
    let both: Result<(Upgraded, Upgraded), hyper::Error> = tokio::try_join!(client, application);
    if let Ok((client, application)) = both {
        drop(copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(application)).await);
    }
    drop(busy);
}
