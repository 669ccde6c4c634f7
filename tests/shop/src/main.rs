//! The demo application; see [`skep_shop`].

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use skep_shop::{Settings, database::Database, forward, streams, web, worker};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A small shop
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Subcommand)]
enum Part {
    /// Answer HTTP requests (the default)
    Serve,
    /// Book new orders
    Worker,
    /// Answer what lasts long or is large; needs no database
    Streams,
    /// Pass connections on
    Forward {
        /// PORT=HOST:PORT, each
        #[arg(required = true)]
        ways: Vec<forward::Way>,
    },
    /// Ask the running shop whether it is well
    Healthcheck,
}

fn main() -> ExitCode {
    let Arguments { settings, part } = Arguments::parse();
    tracing_subscriber::fmt().with_ansi(false).init();
    let outcome = match part.unwrap_or(Part::Serve) {
        Part::Healthcheck => healthcheck(settings.port),
        Part::Serve => run(serve(settings)),
        Part::Worker => run(work(settings)),
        Part::Streams => run(stream(settings)),
        Part::Forward { ways } => run(pass_on(ways)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(part: impl Future<Output = std::io::Result<()>>) -> std::io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(part)
}

async fn serve(settings: Settings) -> std::io::Result<()> {
    let stop = told_to_stop()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, settings.port)).await?;
    let shop = web::Shop::new(&settings);
    let preparing = Arc::clone(&shop);
    tokio::spawn(async move { preparing.prepare(settings.seed_orders).await });
    tokio::spawn(be_broken(settings.clone()));
    web::serve(listener, shop, settings.drain(), stop).await
}

/// Does what broken releases do, where it is told to.
async fn be_broken(settings: Settings) {
    let mut lost = Vec::new();
    for turn in 0_u64.. {
        if let Some(mib) = settings.leaks_mib {
            lost.push(vec![1_u8; mib << 20]);
        }
        if let Some(says) = settings.says.as_ref().filter(|_| turn % 10 == 9) {
            println!("{says}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn work(settings: Settings) -> std::io::Result<()> {
    let stop = told_to_stop()?;
    worker::run(&Database::new(settings), stop).await;
    Ok(())
}

async fn stream(settings: Settings) -> std::io::Result<()> {
    let stop = told_to_stop()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, settings.port)).await?;
    streams::serve(listener, settings.drain(), stop).await
}

async fn pass_on(ways: Vec<forward::Way>) -> std::io::Result<()> {
    forward::run(ways, told_to_stop()?).await
}

/// Resolves at SIGTERM or SIGINT.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

fn healthcheck(port: u16) -> std::io::Result<()> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let first = answer.lines().next().unwrap_or_default();
    if first.contains(" 200 ") { Ok(()) } else { Err(std::io::Error::other(first.to_owned())) }
}
