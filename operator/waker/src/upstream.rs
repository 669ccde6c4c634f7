//! Where the application is: asked of Swarm's name service, which lists a task from when it is healthy until 2 s before
//! it is told to stop.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::gate::Gate;
use crate::settings::Settings;

/// The tasks of the service, the waker's own included.
pub trait Upstream: Send + Sync + 'static {
    /// Their addresses, as they are now: nothing is remembered.
    fn hosts(&self) -> BoxFuture<'_, io::Result<Vec<IpAddr>>>;

    /// Whether this address is the waker's own.
    fn is_own(&self, host: IpAddr) -> BoxFuture<'_, bool>;

    /// Where the application listens for what comes to a port of the waker.
    fn socket(&self, host: IpAddr, port: u16) -> SocketAddr {
        SocketAddr::new(host, port)
    }
}

/// `tasks.<service>`, in Swarm's name service.
///
/// The name service answers from one network only, the first that knows the name: where the waker is on a network that the
/// application is not on, which may be that one, it would list the waker alone. So each network is asked by its name.
#[derive(Clone, Debug)]
pub struct Tasks {
    names: Vec<String>,
}

// === impl Tasks ===

impl Tasks {
    /// The tasks of the service with this full name on these networks; on any, where none is named.
    pub fn of(service: &str, networks: &[String]) -> Tasks {
        let name = format!("tasks.{service}");
        match networks {
            [] => Tasks { names: vec![name] },
            networks => Tasks { names: networks.iter().map(|network| format!("{name}.{network}")).collect() },
        }
    }
}

impl Upstream for Tasks {
    fn hosts(&self) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(async {
            let (mut hosts, mut failed, mut answered) = (Vec::new(), None, false);
            for name in &self.names {
                match lookup_host((name.as_str(), 0)).await {
                    Ok(found) => {
                        hosts.extend(found.map(|address| address.ip()));
                        answered = true;
                    }
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                Some(error) if !answered => Err(error),
                _ => Ok(hosts),
            }
        })
    }

    /// Only an address of one's own can be listened on.
    fn is_own(&self, host: IpAddr) -> BoxFuture<'_, bool> {
        Box::pin(async move { UdpSocket::bind((host, 0)).await.is_ok() })
    }
}

/// Looks where the application is, as long as anybody wants to know.
pub(crate) async fn watch(upstream: Arc<dyn Upstream>, gate: Arc<Gate>, settings: Settings) {
    let mut since = Instant::now();
    let mut is_blind = false;
    loop {
        if !gate.is_up() && !gate.is_wanted() {
            gate.forget();
            gate.wanted().await;
            since = Instant::now();
        }
        match others(&*upstream).await {
            Ok(hosts) => {
                gate.list(&hosts);
                is_blind = false;
            }
            // What is known stays: whether it is still right shows when somebody connects.
            Err(error) if !is_blind => {
                warn!(%error, "the name service does not tell where the application is");
                gate.list_nothing_new();
                is_blind = true;
            }
            Err(_) => {}
        }
        if gate.is_up() {
            tokio::select! {
                () = sleep(settings.look_up) => {}
                () = gate.lost() => {}
            }
            since = Instant::now();
        } else {
            sleep(settings.look(since.elapsed())).await;
        }
    }
}

async fn others(upstream: &dyn Upstream) -> io::Result<Vec<IpAddr>> {
    let mut others = BTreeSet::new();
    for host in upstream.hosts().await? {
        let host = host.to_canonical();
        if !others.contains(&host) && !upstream.is_own(host).await {
            others.insert(host);
        }
    }
    Ok(others.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_ones_own_if_it_can_be_listened_on() {
        let tasks = Tasks::of("shop_app", &[]);
        assert!(tasks.is_own(IpAddr::from([127, 0, 0, 1])).await);
        // Reserved for documentation.
        assert!(!tasks.is_own(IpAddr::from([192, 0, 2, 1])).await);
    }

    #[test]
    fn the_application_is_looked_for_on_its_own_networks() {
        let networks = ["shop_default", "shop_back"].map(str::to_owned);
        let names = ["tasks.shop_app.shop_default", "tasks.shop_app.shop_back"];
        assert_eq!(Tasks::of("shop_app", &networks).names, names);
        assert_eq!(Tasks::of("shop_app", &[]).names, ["tasks.shop_app"]);
    }
}
