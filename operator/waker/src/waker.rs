//! The whole: listens, serves, and leaves.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use hyper::header::HeaderValue;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::gate::Gate;
use crate::http::{self, Room};
use crate::idle::Idle;
use crate::open::Open;
use crate::page::Page;
use crate::pool::Pool;
use crate::rule::Rules;
use crate::settings::Settings;
use crate::socket::{listen, listen_to_oneself};
use crate::task::{Protocol, Task, TaskError};
use crate::upstream::{self, Tasks, Upstream};
use crate::{ask, tcp};

/// How long connections that have nothing on them may take to close.
const CLOSE: Duration = Duration::from_secs(5);
/// How long nothing is accepted when the system has no room for a connection.
const NO_ROOM: Duration = Duration::from_millis(50);
/// Files that are open beside connections.
const FILES: u64 = 64;

/// Why a waker cannot stand in.
#[derive(Debug, Error)]
pub enum Error {
    /// Its task makes no sense.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A port cannot be listened on.
    #[error("cannot listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// A waker that listens.
pub struct Waker {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
}

struct Listener {
    socket: TcpListener,
    port: u16,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Port(Protocol),
    /// For the health check alone.
    Health,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) task: Arc<Task>,
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    pub(crate) page: Page,
    /// Id of the sleep.
    pub(crate) sleep: HeaderValue,
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) open: Arc<Open>,
    pub(crate) upstream: Arc<dyn Upstream>,
    /// Whether the waker was told to leave.
    pub(crate) leaving: watch::Sender<bool>,
    /// Whether what is idle has to close now.
    over: watch::Sender<bool>,
    turn: AtomicUsize,
    seats: Arc<Semaphore>,
    standing: Arc<Semaphore>,
}

/// A connection that has come.
pub(crate) struct Accepted {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stream: TcpStream,
    /// Where from.
    pub(crate) peer: IpAddr,
    /// To which port of the task.
    pub(crate) port: u16,
    /// Changes when what is idle has to close.
    pub(crate) over: watch::Receiver<bool>,
}

/// Stands in for the service until `stop`, and then until nothing is open and nothing new comes.
///
/// # Errors
/// When the task makes no sense, or a port cannot be listened on.
pub async fn run(task: Task, stop: impl Future<Output = ()>) -> Result<(), Error> {
    task.check()?;
    let upstream = Tasks::of(&task.service, &task.networks);
    Waker::bind(task, upstream, Settings::default())?.run(stop).await;
    Ok(())
}

// === impl Waker ===

impl Waker {
    /// Listens on all ports of the task, and serves none yet. The kernel chooses a port for 0.
    ///
    /// # Errors
    /// When a rule makes no sense, or a port cannot be listened on.
    pub fn bind(task: Task, upstream: impl Upstream, settings: Settings) -> Result<Waker, Error> {
        let rules = Rules::new(&task.ignore).map_err(TaskError::from)?;
        let sleep = HeaderValue::from_str(&task.ask.sleep)
            .map_err(|_| TaskError::Value("no id of the sleep".to_owned()))?;
        let mut listeners = Vec::new();
        for port in &task.ports {
            let socket = listen(port.port).map_err(|source| Error::Listen { port: port.port, source })?;
            listeners.push(Listener { socket, port: port.port, kind: Kind::Port(port.protocol) });
        }
        if task.ports.iter().all(|p| p.protocol == Protocol::Tcp) {
            let port = settings.health_port.unwrap_or_else(|| task.health_port());
            let socket = listen_to_oneself(port).map_err(|source| Error::Listen { port, source })?;
            listeners.push(Listener { socket, port, kind: Kind::Health });
        }
        let seats = settings.connections.min(room());
        let shared = Shared {
            rules,
            page: Page::new(&task),
            sleep,
            gate: Arc::new(Gate::new(settings.page_counts)),
            pool: Arc::new(Pool::new(settings.connect)),
            open: Arc::default(),
            upstream: Arc::new(upstream),
            leaving: watch::Sender::new(false),
            over: watch::Sender::new(false),
            turn: AtomicUsize::new(0),
            seats: Arc::new(Semaphore::new(seats)),
            standing: Arc::new(Semaphore::new((seats / 8).max(1))),
            task: Arc::new(task),
            settings,
        };
        Ok(Waker { shared: Arc::new(shared), listeners })
    }

    /// Where it listens: the ports in the order of the task, then that of the health check, if it has one of its own.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.socket.local_addr().ok()).collect()
    }

    /// Serves until `stop`, and then until nothing is open and nothing new comes.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Waker { shared, listeners } = self;
        let door = shared.task.door.as_ref();
        match door {
            None => {
                info!(
                    service = shared.task.service,
                    sleep = shared.task.ask.sleep,
                    "standing in for what sleeps"
                );
            }
            Some(_) => info!(service = shared.task.service, "the door is open"),
        }
        let mut background = JoinSet::new();
        background.spawn(upstream::watch(
            shared.upstream.clone(),
            shared.gate.clone(),
            shared.settings,
            door.is_some(),
        ));
        if let Some(unused) = door.and_then(|door| door.unused.clone()) {
            let idle = Idle {
                task: shared.task.clone(),
                unused,
                gate: shared.gate.clone(),
                open: shared.open.clone(),
                upstream: shared.upstream.clone(),
                settings: shared.settings,
            };
            background.spawn(idle.watch());
        }
        background.spawn(ask::ask(shared.task.clone(), shared.gate.clone(), shared.settings));
        let mut serving = JoinSet::new();
        for listener in listeners {
            serving.spawn(listener.serve(shared.clone()));
        }
        stop.await;
        info!("told to leave; what is open may end");
        shared.open.leave();
        shared.leaving.send_replace(true);
        shared.open.quiet(shared.settings.quiet).await;
        shared.over.send_replace(true);
        let mut closed = std::pin::pin!(async { while serving.join_next().await.is_some() {} });
        while timeout(CLOSE, closed.as_mut()).await.is_err() {
            // What still has something on it came in the last moment, and may end like everything else.
            if shared.open.is_idle() {
                warn!("left with connections that did not close");
                break;
            }
        }
        info!("left");
    }
}

/// How many connections there is room for; each needs another one to the application.
fn room() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Whoever may not keeps what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(FILES) / 2).unwrap_or(usize::MAX).max(1)
}

// === impl Listener ===

impl Listener {
    async fn serve(self, shared: Arc<Shared>) {
        let mut connections = JoinSet::new();
        let mut over = shared.over.subscribe();
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok(come) => self.take(&shared, come, &mut connections),
                    Err(_) => sleep(NO_ROOM).await,
                },
                Some(_) = connections.join_next() => {}
                _ = over.changed() => break,
            }
        }
        while let Some(Ok(come)) = self.socket.accept().now_or_never() {
            self.take(&shared, come, &mut connections);
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }

    fn take(
        &self,
        shared: &Arc<Shared>,
        (stream, from): (TcpStream, SocketAddr),
        connections: &mut JoinSet<()>,
    ) {
        let Some((seat, room)) = shared.seat() else { return };
        let accepted = Accepted {
            shared: shared.clone(),
            stream,
            peer: from.ip().to_canonical(),
            port: self.port,
            over: shared.over.subscribe(),
        };
        let kind = self.kind;
        connections.spawn(async move {
            match (kind, room) {
                (Kind::Health, _) => http::serve(accepted, Room::Full).await,
                (Kind::Port(Protocol::Http), room) => http::serve(accepted, room).await,
                (Kind::Port(Protocol::Tcp), Room::Enough) => tcp::serve(accepted).await,
                // Closed: there is no other way to say that there are too many.
                (Kind::Port(Protocol::Tcp), Room::Full) => {}
            }
            drop(seat);
        });
    }
}

// === impl Shared ===

impl Shared {
    /// A place for a connection, if need be only to be told that there is none; where not even that, it is closed.
    fn seat(&self) -> Option<(OwnedSemaphorePermit, Room)> {
        let seat = |of: &Arc<Semaphore>| of.clone().try_acquire_owned().ok();
        let full = || Some((seat(&self.standing)?, Room::Full));
        seat(&self.seats).map(|seat| (seat, Room::Enough)).or_else(full)
    }

    /// Whether the application is there for somebody whom it is not woken for. A door is asked so also before anybody has looked.
    pub(crate) async fn is_there_anyway(&self) -> bool {
        if self.task.door.is_none() || self.gate.held_for().is_some() {
            return false;
        }
        match upstream::others(&*self.upstream).await {
            Ok(hosts) => self.gate.list(&hosts),
            Err(_) => self.gate.list_nothing_new(),
        }
        !self.gate.hosts().is_empty()
    }

    /// It was not. Nobody goes on looking, so what was seen does not stay.
    pub(crate) fn is_not_there_either(&self) {
        if !self.gate.is_up() && !self.gate.is_wanted() {
            self.gate.forget();
        }
    }

    /// Addresses, each time another one first.
    pub(crate) fn in_turn<'a>(&self, hosts: &'a [IpAddr]) -> impl Iterator<Item = IpAddr> + 'a {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..hosts.len()).map(move |at| hosts[first.wrapping_add(at) % hosts.len()])
    }
}
