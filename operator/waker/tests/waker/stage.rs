//! What stands around the waker.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use skep_waker::task::{Ask, Mode, Port, Protocol, Task, Token};
use skep_waker::{Rule, SCHEMA, Settings, Upstream, Waker};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Where applications are; clients and wakers have 127.0.0.1.
pub(crate) const APPLICATION: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Longer than anything takes.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// What applications answer with.
pub(crate) type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// What a name service would tell.
#[derive(Clone, Default)]
pub(crate) struct Names {
    pub(crate) hosts: Arc<Mutex<Vec<IpAddr>>>,
    pub(crate) port: Arc<AtomicU16>,
    pub(crate) looked: Arc<AtomicUsize>,
}

impl Upstream for Names {
    fn hosts(&self) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        let hosts = self.hosts.lock().unwrap().clone();
        Box::pin(async { Ok(hosts) })
    }

    fn is_own(&self, _: IpAddr) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }

    fn socket(&self, host: IpAddr, _: u16) -> SocketAddr {
        SocketAddr::new(host, self.port.load(Ordering::SeqCst))
    }
}

impl Names {
    /// The application is healthy, and there.
    pub(crate) fn list(&self, at: SocketAddr) {
        self.port.store(at.port(), Ordering::SeqCst);
        *self.hosts.lock().unwrap() = vec![at.ip()];
    }

    /// The application is at zero.
    pub(crate) fn list_nobody(&self) {
        self.hosts.lock().unwrap().clear();
    }
}

/// How the operator answers next.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    Status(u16),
    /// After so long.
    Slow(Duration, u16),
    Silence,
}

/// An operator.
pub(crate) struct Operator {
    pub(crate) at: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<(HeaderMap, serde_json::Value)>>>,
    pub(crate) next: Arc<Mutex<VecDeque<Next>>>,
    pub(crate) count: watch::Receiver<usize>,
    /// How often it was asked to let the service sleep, and what it was asked.
    pub(crate) lulled: watch::Receiver<Vec<serde_json::Value>>,
    /// How it answers that next.
    pub(crate) next_lull: Arc<Mutex<VecDeque<Next>>>,
    _server: Server,
}

impl Operator {
    pub(crate) async fn new() -> Operator {
        let (asked, next) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<VecDeque<_>>>::default());
        let (counted, count) = watch::channel(0);
        let counted = Arc::new(counted);
        let (lulls, lulled) = watch::channel(Vec::new());
        let lulls = Arc::new(lulls);
        let next_lull = Arc::<Mutex<VecDeque<_>>>::default();
        let (list, queue, lull_queue) = (asked.clone(), next.clone(), next_lull.clone());
        let server = Server::new(Ipv4Addr::LOCALHOST.into(), move |request: Request<Incoming>| {
            let (list, queue, counted) = (list.clone(), queue.clone(), counted.clone());
            let (lulls, lull_queue) = (lulls.clone(), lull_queue.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let next = match (parts.method.as_str(), parts.uri.path()) {
                    ("POST", "/v1/wake") => {
                        list.lock().unwrap().push((parts.headers, body));
                        counted.send_modify(|c| *c += 1);
                        queue.lock().unwrap().pop_front()
                    }
                    ("POST", "/v1/sleep") => {
                        assert_eq!(parts.headers["authorization"], "Bearer s3cret");
                        lulls.send_modify(|all| all.push(body));
                        lull_queue.lock().unwrap().pop_front()
                    }
                    other => panic!("{other:?}"),
                };
                let next = next.unwrap_or(Next::Status(202));
                match next {
                    Next::Status(status) => text(StatusCode::from_u16(status).unwrap(), ""),
                    Next::Slow(pause, status) => {
                        tokio::time::sleep(pause).await;
                        text(StatusCode::from_u16(status).unwrap(), "")
                    }
                    Next::Silence => std::future::pending().await,
                }
            }
        })
        .await;
        Operator { at: server.at, asked, next, count, lulled, next_lull, _server: server }
    }

    /// Waits until it was asked so often.
    pub(crate) async fn asked(&self, times: usize) {
        let mut count = self.count.clone();
        soon(count.wait_for(|c| *c >= times)).await.unwrap();
    }

    /// Waits until it was asked so often to let the service sleep.
    pub(crate) async fn lulled(&self, times: usize) {
        let mut lulled = self.lulled.clone();
        soon(lulled.wait_for(|all| all.len() >= times)).await.unwrap();
    }

    /// How often it was asked to let the service sleep.
    pub(crate) fn lulls(&self) -> usize {
        self.lulled.borrow().len()
    }

    pub(crate) fn times(&self) -> usize {
        *self.count.borrow()
    }
}

/// An HTTP server of either version; gone when dropped.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn new<F, R>(host: IpAddr, answer: F) -> Server
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                all.spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(request);
                        async { Ok::<_, Infallible>(answer.await) }
                    });
                    let builder = Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
                });
            }
        });
        Server { at, connections, task }
    }

    /// An application that says that it is one.
    pub(crate) async fn application() -> Server {
        Server::new(APPLICATION, |_| async { text(StatusCode::OK, "the application") }).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A waker that stands in; gone when dropped.
pub(crate) struct Stand {
    pub(crate) at: SocketAddr,
    /// All that it listens on.
    pub(crate) all: Vec<SocketAddr>,
    pub(crate) names: Names,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Stand {
    pub(crate) fn new(task: Task, names: &Names, settings: Settings) -> Stand {
        let waker = Waker::bind(task, names.clone(), settings).unwrap();
        let all: Vec<_> = waker.addresses().iter().map(|a| (Ipv4Addr::LOCALHOST, a.port()).into()).collect();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(waker.run(async { drop(stopped.await) }));
        Stand { at: all[0], all, names: names.clone(), stop: Some(stop), task }
    }

    /// Tells it to leave.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has left.
    pub(crate) async fn left(&mut self) {
        soon(&mut self.task).await.unwrap();
    }

    pub(crate) fn has_left(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Everything, with the application asleep.
pub(crate) struct Stage {
    pub(crate) operator: Operator,
    pub(crate) waker: Stand,
}

impl Stage {
    pub(crate) async fn new(change: impl FnOnce(&mut Task)) -> Stage {
        Stage::with(change, fast()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Task), settings: Settings) -> Stage {
        let operator = Operator::new().await;
        let mut task = task(operator.at);
        change(&mut task);
        Stage { operator, waker: Stand::new(task, &Names::default(), settings) }
    }
}

/// What the waker is told, unless it is something else that a test is about.
pub(crate) fn task(operator: SocketAddr) -> Task {
    Task {
        schema: SCHEMA,
        service: "shop_app".to_owned(),
        networks: Vec::new(),
        ports: vec![Port { port: 0, protocol: Protocol::Http }],
        mode: Mode::Hold,
        timeout_s: 60,
        retry_after_s: 7,
        ask: Ask {
            url: format!("http://{operator}/v1/wake"),
            token: Token::new("s3cret"),
            sleep: "sleep-1".to_owned(),
        },
        ignore: Vec::<Rule>::new(),
        html: "<p>soon</p>".to_owned(),
        json: r#"{"soon":true}"#.to_owned(),
        door: None,
    }
}

/// Times that tests can wait for.
pub(crate) fn fast() -> Settings {
    Settings {
        ask_first: Duration::from_millis(5),
        ask_latest: Duration::from_millis(50),
        look_first: Duration::from_millis(5),
        quiet: Duration::from_millis(300),
        ask_held: Duration::from_millis(20),
        idle_look: Duration::from_millis(20),
        idle_again: Duration::from_millis(300),
        health_port: Some(0),
        ..Settings::default()
    }
}

/// A short answer.
pub(crate) fn text(status: StatusCode, text: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
    Response::builder().status(status).body(body.boxed()).unwrap()
}

/// A connection of a client.
pub(crate) async fn client(at: SocketAddr) -> http1::SendRequest<BoxBody<Bytes, hyper::Error>> {
    let stream = TcpStream::connect(at).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

/// Nothing to send.
pub(crate) fn nothing() -> BoxBody<Bytes, hyper::Error> {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

/// Asks for a path, on a connection of its own.
pub(crate) async fn get(at: SocketAddr, path: &str) -> (hyper::http::response::Parts, String) {
    get_with(at, path, &[]).await
}

/// Asks for a path with these headers, on a connection of its own.
pub(crate) async fn get_with(
    at: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (hyper::http::response::Parts, String) {
    let mut sender = client(at).await;
    let mut request = Request::get(path).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = soon(sender.send_request(request.body(nothing()).unwrap())).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap().to_bytes();
    (parts, String::from_utf8(body.to_vec()).unwrap())
}

/// Fails where it takes too long.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it takes too long")
}

/// An application that switches to bytes that it sends back.
pub(crate) async fn echo(mut request: Request<Incoming>) -> Answer {
    assert_eq!(request.headers()["upgrade"], "websocket");
    assert_eq!(request.headers()["connection"], "upgrade");
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        // It ends when the client goes.
        drop(tokio::io::copy(&mut from, &mut to).await);
    });
    let mut answer = text(StatusCode::SWITCHING_PROTOCOLS, "");
    answer.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    answer.headers_mut().insert("connection", "upgrade".parse().unwrap());
    answer
}

/// Opens what [`echo`] offers.
pub(crate) async fn websocket(at: SocketAddr) -> TokioIo<hyper::upgrade::Upgraded> {
    let mut sender = client(at).await;
    let request = Request::get("/ws")
        .header("host", "a")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(nothing())
        .unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "websocket");
    TokioIo::new(hyper::upgrade::on(response).await.unwrap())
}
