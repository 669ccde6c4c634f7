//! Passes connections on, as a proxy that knows nothing of what they carry. It asks for the name anew each time.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::timeout;

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(1);

/// `PORT=HOST:PORT`: what comes to the one is passed on to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    port: u16,
    to: String,
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Way, String> {
        let wrong = || format!("`{text}` is not PORT=HOST:PORT");
        let (port, to) = text.split_once('=').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        to.rsplit_once(':')
            .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
            .ok_or_else(wrong)?;
        Ok(Way { port, to: to.to_owned() })
    }
}

/// Passes connections on until `stop` resolves.
///
/// # Errors
/// When a port cannot be listened on.
pub async fn run(ways: Vec<Way>, stop: impl Future<Output = ()>) -> std::io::Result<()> {
    for Way { port, to } in ways {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        tokio::spawn(async move {
            loop {
                // Whoever could not be accepted comes again.
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(pass(client, to.clone()));
            }
        });
    }
    stop.await;
    Ok(())
}

async fn pass(mut client: TcpStream, to: String) {
    let Ok(addresses) = lookup_host(&to).await else { return };
    for address in addresses {
        if let Ok(Ok(mut server)) = timeout(CONNECT, TcpStream::connect(address)).await {
            // Whatever ends it ends both sides.
            drop(copy_bidirectional(&mut client, &mut server).await);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_read_or_refused() {
        assert_eq!("8001=app:80".parse::<Way>().unwrap(), Way { port: 8_001, to: "app:80".to_owned() });
        for wrong in ["8001", "8001=app", "=app:80", "8001=:80", "80010=app:80", "8001=app:http"] {
            assert!(wrong.parse::<Way>().is_err(), "{wrong}");
        }
    }
}
