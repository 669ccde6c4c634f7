//! Where the application is: asked of Swarm's name service, which lists a task from when it is healthy until 2 s before
//! it is told to stop.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::gate::Gate;
use crate::settings::Settings;

/// How long the name service may take. Where nobody has the name it asks elsewhere, and that may never answer.
const LOOKUP: Duration = Duration::from_secs(1);
/// After how long without an answer a door takes nobody for there: another container may have the address by then.
const BLIND: Duration = Duration::from_secs(5);
/// What the resolvers of the C libraries say of a name that nobody has.
const NOBODY: [&str; 4] = [
    "Name does not resolve",
    "Name has no usable address",
    "Name or service not known",
    "No address associated with hostname",
];

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
                match timeout(LOOKUP, lookup_host((name.as_str(), 0))).await {
                    Ok(Ok(found)) => {
                        hosts.extend(found.map(|address| address.ip()));
                        answered = true;
                    }
                    Ok(Err(error)) if has_nobody(&error) => answered = true,
                    Ok(Err(error)) => failed = Some(error),
                    Err(_) => failed = Some(io::ErrorKind::TimedOut.into()),
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

/// Whether this is the answer that nobody has the name: so it is where a service is at zero.
fn has_nobody(error: &io::Error) -> bool {
    let said = error.to_string();
    NOBODY.iter().any(|nobody| said.contains(nobody))
}

/// Looks where the application is, as long as anybody wants to know.
pub(crate) async fn watch(upstream: Arc<dyn Upstream>, gate: Arc<Gate>, settings: Settings, is_door: bool) {
    let mut since = Instant::now();
    let mut blind: Option<Instant> = None;
    loop {
        if !gate.is_up() && !gate.is_wanted() {
            gate.forget();
            // What a door passes on for nobody may have found it up.
            tokio::select! {
                () = gate.wanted() => {}
                () = gate.up() => {}
            }
            since = Instant::now();
        }
        match others(&*upstream).await {
            Ok(hosts) => {
                gate.list(&hosts);
                blind = None;
            }
            // What is known stays: whether it is still right shows when somebody connects.
            Err(error) if blind.is_none() => {
                warn!(%error, "the name service does not tell where the application is");
                gate.list_nothing_new();
                blind = Some(Instant::now());
            }
            Err(_) if is_door && blind.is_some_and(|since| since.elapsed() > BLIND) => gate.list(&[]),
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

/// The tasks of the application itself.
pub(crate) async fn others(upstream: &dyn Upstream) -> io::Result<Vec<IpAddr>> {
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

    #[tokio::test]
    async fn a_name_that_nobody_has_is_an_answer() {
        let tasks = Tasks::of("shop_app", &["invalid".to_owned()]);
        // `.invalid` is nobody's by RFC 6761; whether anybody answers at all is another matter.
        match lookup_host(("tasks.shop_app.invalid", 0)).await {
            Err(error) if has_nobody(&error) => {
                assert_eq!(tasks.hosts().await.unwrap(), Vec::<IpAddr>::new())
            }
            other => assert!(other.is_err(), "{:?}", other.map(Vec::from_iter)),
        }
        assert!(!has_nobody(&io::Error::other("failed to lookup address information: Try again")));
        assert!(has_nobody(&io::Error::other("failed to lookup address information: Name does not resolve")));
    }

    #[test]
    fn the_application_is_looked_for_on_its_own_networks() {
        let networks = ["shop_default", "shop_back"].map(str::to_owned);
        let names = ["tasks.shop_app.shop_default", "tasks.shop_app.shop_back"];
        assert_eq!(Tasks::of("shop_app", &networks).names, names);
        assert_eq!(Tasks::of("shop_app", &[]).names, ["tasks.shop_app"]);
    }
}
