//! Closed loops: each client asks again when it has its answer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How much is asked at a time, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients, each with a connection that it keeps.
    pub clients: usize,
    /// How long.
    pub time: Duration,
}

/// What came.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// How long each request took.
    pub took: Vec<Duration>,
    /// Requests a second.
    pub rate: f64,
}

impl Load {
    /// Loads a proxy.
    ///
    /// # Panics
    /// When any answer is not the application's: such a measurement would say nothing.
    pub async fn on(self, at: SocketAddr) -> Measured {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..self.clients {
            clients.spawn(client(at, began + self.time));
        }
        let took = clients.join_all().await.concat();
        let rate = took.len() as f64 / began.elapsed().as_secs_f64();
        Measured { took, rate }
    }
}

async fn client(at: SocketAddr, until: Instant) -> Vec<Duration> {
    let stream = TcpStream::connect(at).await.expect("the proxy takes connections");
    stream.set_nodelay(true).expect("a socket");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let mut all = Vec::new();
    while Instant::now() < until {
        let request = Request::get("/").header("host", "app").body(Empty::<Bytes>::new());
        let began = Instant::now();
        sender.ready().await.expect("the connection is kept");
        let response =
            sender.send_request(request.expect("a request")).await.expect("the proxy passes requests");
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        all.push(began.elapsed());
        assert_eq!(body.len(), super::proxies::BODY.len());
    }
    all
}

impl Measured {
    /// Takes another round in.
    pub fn add(&mut self, other: Measured) {
        self.took.extend(other.took);
    }

    /// How long the fastest `part` of the requests took at most, in microseconds.
    ///
    /// # Panics
    /// When nothing was measured.
    pub fn quantile_us(&self, part: f64) -> u128 {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = ((took.len() as f64 * part).ceil() as usize).clamp(1, took.len());
        took[at - 1].as_micros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_all_requests() {
        let took = (1..=100).rev().map(Duration::from_micros).collect();
        let measured = Measured { took, rate: 0.0 };
        assert_eq!((measured.quantile_us(0.5), measured.quantile_us(0.99)), (50, 99));
        assert_eq!(Measured { took: vec![Duration::from_micros(7)], rate: 0.0 }.quantile_us(0.5), 7);
    }
}
