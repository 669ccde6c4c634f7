//! The composition root of the daemon.
//!
//! ```text
//! every replica:   watcher ─▶ World ─▶ view, metrics, status page;  webhook ─▶ operations (atomic by name)
//! the leader also: World ─▶ keys ─▶ controllers: operations (drive), mail (tell), keeper (due, prune, sweep, recheck), registries (look)
//! ```
//! The controllers' engine is fenced by the lease: a leader that was paused writes nothing (S19).

mod desk;
mod driver;
mod keeper;
pub mod ledger;
pub mod mailer;
mod registries;
mod show;
pub mod weekly;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::settings::BadSettings;
use crate::cli::{self, OperatorArgs};
use crate::http::metrics::{Metrics, Reconciled};
use crate::http::server::{self, Shared};
use crate::http::token::{self, Tokens};
use crate::http::view::View;
use crate::notify::meter::Meter;
use crate::notify::outbox::Outbox;
use crate::notify::{settings as mail, smtp};
use crate::operation::record::OpId;
use crate::operation::saga::Env;
use crate::operation::settings::Settings;
use crate::plan::scheduled::Rules;
use crate::runtime::controller::{Ended, Options};
use crate::runtime::source::{Happening, Options as WatchOptions};
use crate::runtime::{Controller, Snapshots, Watcher, clock};
use crate::swarm::engine::Engine;
use crate::swarm::error::Error as SwarmError;
use crate::swarm::fence;
use crate::swarm::lease::{Leadership, Lease};
use crate::swarm::transport::Endpoint;
use crate::swarm::world::{World, WorldSource};
use crate::triggers::port::AlertPort;

/// Names of the controllers, as in metrics.
const CONTROLLERS: [&str; 4] = ["operations", "mail", "keeper", "registries"];
/// Operations driven at once.
const OPERATIONS_AT_ONCE: usize = 16;

/// Why the daemon cannot run.
#[derive(Debug, Error)]
pub enum Error {
    /// Settings.
    #[error("the settings cannot work")]
    Settings(#[from] BadSettings),
    /// Mail settings.
    #[error("the mail settings cannot work")]
    Mail(#[from] mail::Invalid),
    /// Mail client.
    #[error("mail cannot be sent")]
    Smtp(#[from] smtp::Unusable),
    /// A token's file.
    #[error("a token cannot be used")]
    Token(#[from] token::Unusable),
    /// The engine's address.
    #[error("`{0}` is no address of an engine; want unix:///path or tcp://host:port")]
    Endpoint(String),
    /// The engine's answer.
    #[error("the engine refuses Skep")]
    Engine(#[source] SwarmError),
    /// The listening address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Address.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

/// Wakes that may be stored while whoever feeds the queue does something else; any more are found in the next world.
const ASKED: usize = 64;

/// What every part shares.
struct Parts {
    engine: Engine,
    env: Env,
    snapshots: Snapshots<World>,
    leadership: watch::Receiver<Leadership>,
    metrics: Arc<Metrics>,
    meter: Arc<Meter>,
    outbox: Option<Arc<Outbox>>,
    port: AlertPort,
    rules: Rules,
    /// Wakes that were just stored: whoever leads begins at once, and need not read the Swarm for that.
    asked: broadcast::Sender<OpId>,
    /// When this process began.
    started: jiff::Timestamp,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot begin; what happens later is tried again.
pub async fn run(args: OperatorArgs, endpoint: &str, stop: CancellationToken) -> Result<(), Error> {
    let endpoint = Endpoint::parse(endpoint).ok_or_else(|| Error::Endpoint(endpoint.to_owned()))?;
    let started = clock::now();
    let instance = args.instance.clone().unwrap_or_else(instance_name);
    let metrics = Arc::new(Metrics::new(
        env!("CARGO_PKG_VERSION"),
        option_env!("SKEP_REVISION").unwrap_or(""),
        &CONTROLLERS,
    ));
    let settings = Settings { port: args.listen.port(), ..args.work.settings(&instance)? };
    let settings = Arc::new(settings);
    let runners = args.work.runners()?;
    let mail = args.mail().validate()?;
    let meter = Arc::<Meter>::default();
    let outbox = mail.map(|mail| Outbox::new(mail, meter.clone())).transpose()?.map(Arc::new);
    let tokens = |path: &Option<std::path::PathBuf>| path.as_deref().map(Tokens::from_file).transpose();
    let (webhook, people) = (tokens(&args.webhook_token_file)?, tokens(&args.status_token_file)?);
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|source| Error::Listen { address: args.listen, source })?;

    let engine = connect(endpoint, &metrics, &stop).await?;
    let (lease, fence, leadership) =
        Lease::with_term(&engine, instance.clone(), args.lease_term.unwrap_or(fence::TERM));
    let (watcher, snapshots) = watch_worlds(&engine, &metrics);
    let port = AlertPort {
        engine: engine.clone(),
        settings: Arc::new(args.alerts.settings()),
        listening_since: clock::now(),
    };
    let (clock, reports) = (Arc::new(clock::now), Arc::new(cli::written));
    let env = Env { engine: engine.with_fence(fence), settings, runners, clock, reports };
    let rules = args.schedules.rules();
    let (asked, _) = broadcast::channel(ASKED);
    let parts = Arc::new(Parts {
        engine,
        env,
        snapshots,
        leadership,
        metrics,
        meter,
        outbox,
        port,
        rules,
        asked,
        started,
    });
    info!(instance, listen = %args.listen, "skep {} is here", env!("CARGO_PKG_VERSION"));

    let last = CancellationToken::new();
    let lease = tokio::spawn(lease.run(last.clone()));
    let watching = tokio::spawn(watcher.run(last.clone()));
    let (publish, views) = watch::channel(None);
    let showing = tokio::spawn(show::publish(parts.clone(), publish, last.clone()));
    let serving = tokio::spawn(serve(parts.clone(), views, listener, webhook, people, last.clone()));
    lead(&parts, stop).await;
    last.cancel();
    let _ = tokio::join!(lease, watching, showing, serving);
    Ok(())
}

/// Asks until the engine answers: at start-up of a node it may come later than we do.
async fn connect(
    endpoint: Endpoint,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Engine, Error> {
    loop {
        match Engine::connect(endpoint.clone()).await {
            Ok(engine) => {
                let metrics = metrics.clone();
                engine.observe_by(Arc::new(move |call| metrics.requested(call)));
                return Ok(engine);
            }
            Err(error) if error.is_retryable() && !stop.is_cancelled() => {
                warn!("{error}; trying again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = stop.cancelled() => return Err(Error::Engine(error)),
                }
            }
            Err(error) => return Err(Error::Engine(error)),
        }
    }
}

fn watch_worlds(engine: &Engine, metrics: &Arc<Metrics>) -> (Watcher<WorldSource>, Snapshots<World>) {
    let metrics = metrics.clone();
    let observer = Arc::new(move |happening| match happening {
        Happening::Subscribed => metrics.event_stream_is_up(true),
        Happening::Listed => metrics.resynced(),
        Happening::Failed(_) => metrics.event_stream_is_up(false),
        Happening::Nudged | Happening::Refreshed => {}
    });
    Watcher::new(WorldSource::new(engine.clone()), WatchOptions::default(), Some(observer))
}

async fn serve(
    parts: Arc<Parts>,
    views: watch::Receiver<Option<Arc<View>>>,
    listener: TcpListener,
    webhook: Option<Tokens>,
    people: Option<Tokens>,
    stop: CancellationToken,
) {
    let metrics = parts.metrics.clone();
    let desk = desk::AppDesk::new(parts, views);
    let shared =
        Arc::new(Shared::new(desk, metrics, webhook.unwrap_or_default(), people.unwrap_or_default()));
    let router = server::pages(shared.clone());
    let router = router.merge(server::wakers(shared.clone())).merge(server::alerts(shared));
    if let Err(error) = server::serve(listener, router, stop).await {
        tracing::error!("the HTTP server ended: {error}");
    }
}

/// Runs the controllers while this process leads, each reign anew.
async fn lead(parts: &Arc<Parts>, stop: CancellationToken) {
    let mut leadership = parts.leadership.clone();
    while !stop.is_cancelled() {
        let leads = leadership.borrow_and_update().is_leading();
        if leads {
            let reign = stop.child_token();
            tokio::join!(reign_over(parts, reign.clone()), async {
                tokio::select! {
                    _ = leadership.wait_for(|l| !l.is_leading()) => {}
                    () = stop.cancelled() => {}
                }
                reign.cancel();
            });
        } else {
            tokio::select! {
                _ = leadership.wait_for(Leadership::is_leading) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

async fn reign_over(parts: &Arc<Parts>, stop: CancellationToken) {
    info!("leading");
    let options = |name, at_once| Options {
        at_once,
        observer: Some(observer(parts.metrics.clone(), name)),
        ..Options::named(name)
    };
    let operations =
        Controller::new(driver::Driver { env: parts.env.clone() }, options("operations", OPERATIONS_AT_ONCE));
    let mail = Controller::new(mailer::Mailer::new(parts), options("mail", 2));
    let keeper = Controller::new(keeper::Keeper::new(parts), options("keeper", 1));
    let registries = Controller::new(registries::Registries::new(parts), options("registries", 1));
    registries.queue().add(registries::Look);
    let feed = driver::feed(parts, operations.queue(), mail.queue(), keeper.queue(), stop.clone());
    tokio::join!(
        operations.run(stop.clone()),
        mail.run(stop.clone()),
        keeper.run(stop.clone()),
        registries.run(stop.clone()),
        feed,
    );
    info!("no longer leading");
}

fn observer(metrics: Arc<Metrics>, name: &'static str) -> Arc<dyn Fn(&Ended) + Send + Sync> {
    Arc::new(move |ended| {
        let result = match ended.outcome {
            "ok" => Reconciled::Success,
            "stale" | "exists" | "not-found" => Reconciled::Requeue,
            _ => Reconciled::Error,
        };
        metrics.reconciled(name, result, ended.duration, clock::now());
        metrics.queue(name, ended.waiting, ended.running);
    })
}

/// A name that no other process has: the host's (in a container its id) and a random part.
fn instance_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{:06x}", host.trim(), rand::random::<u32>() & 0x00ff_ffff)
}
