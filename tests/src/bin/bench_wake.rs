//! What the waker costs while it is in the path of requests, against nginx.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use skep_tests::downtime::say;
use skep_tests::waking::{Load, Measured, Proxies, application, waker};

/// Measures the waker in the path against nginx with `auth_request`, and without
#[derive(Parser)]
struct Arguments {
    /// Rounds, in each of which every proxy is measured
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Clients at a time when latency is measured
    #[arg(long, default_value_t = 4)]
    few: usize,
    /// Clients at a time when requests a second are
    #[arg(long, default_value_t = 64)]
    many: usize,
    /// What to be instead
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// The application
    Application,
    /// The waker
    Waker {
        /// Where the application listens
        application: SocketAddr,
    },
}

/// What was measured of one proxy.
#[derive(Default)]
struct Result {
    few: Measured,
    rates: Vec<f64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.and_then(|runtime| runtime.block_on(act(&arguments)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_wake: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn act(arguments: &Arguments) -> io::Result<()> {
    match &arguments.role {
        Some(Role::Application) => application().await,
        Some(Role::Waker { application }) => waker(*application).await,
        None => measure(arguments).await,
    }
}

async fn measure(arguments: &Arguments) -> io::Result<()> {
    let proxies = Proxies::start(&std::env::current_exe()?).await;
    let time = Duration::from_secs_f64(arguments.seconds);
    let (few, many) = (Load { clients: arguments.few, time }, Load { clients: arguments.many, time });
    let targets = [proxies.waker, proxies.nginx, proxies.plain];
    let mut results: [Result; 3] = Default::default();
    for at in targets {
        // Not counted: connections are made, and memory is taken.
        many.on(at).await;
    }
    for round in 0..arguments.rounds {
        // Whoever is first in one round is last in another.
        for turn in 0..targets.len() {
            let which = (round + turn) % targets.len();
            results[which].few.add(few.on(targets[which]).await);
            results[which].rates.push(many.on(targets[which]).await.rate);
        }
    }
    let [waker, nginx, plain] = &mut results;
    say(&format!(
        "bench-wake-proxy: proxy_p50_us={} proxy_p99_us={} nginx_p50_us={} nginx_p99_us={} plain_nginx_p50_us={} \
         proxy_rps={:.0} nginx_rps={:.0} plain_nginx_rps={:.0}",
        waker.few.quantile_us(0.5),
        waker.few.quantile_us(0.99),
        nginx.few.quantile_us(0.5),
        nginx.few.quantile_us(0.99),
        plain.few.quantile_us(0.5),
        waker.rate(),
        nginx.rate(),
        plain.rate(),
    ));
    Ok(())
}

// === impl Result ===

impl Result {
    /// The median of the rounds.
    fn rate(&mut self) -> f64 {
        self.rates.sort_unstable_by(f64::total_cmp);
        self.rates[self.rates.len() / 2]
    }
}
