//! What waking on demand costs: how long whoever asks for a service that sleeps waits, against the time that Swarm itself needs
//! to start it; what the waker costs in the path of requests, against nginx; and what the operator needs for many sleepers.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use skep_tests::downtime::{operator, say};
use skep_tests::waking::{Load, Measured, Proxies, Sleepers, application, waker};

/// Measures waking on demand against Swarm itself, and the waker in the path against nginx with `auth_request`, and without
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
    /// How often a service is woken, and how often it is started by Swarm alone
    #[arg(long, default_value_t = 20)]
    wakes: usize,
    /// Services that are asked for at once
    #[arg(long, default_value_t = 25)]
    at_once: usize,
    /// Services that sleep while the operator is measured
    #[arg(long, default_value_t = 1_000)]
    asleep: usize,
    /// Seconds for which it is
    #[arg(long, default_value_t = 60.0)]
    idle_seconds: f64,
    /// The operator to run; `operator` beside this program where absent
    #[arg(long)]
    operator: Option<PathBuf>,
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

/// What was measured of services that sleep.
struct Woken {
    over_p50_ms: i128,
    over_p99_ms: i128,
    last: Duration,
    rss_mib: u64,
}

async fn measure(arguments: &Arguments) -> io::Result<()> {
    let [mut waker, mut nginx, mut plain] = in_the_path(arguments).await?;
    say(&format!(
        "in the path: the waker p50 {} us, p99 {} us, {:.0} requests/s; nginx with auth_request p50 {} us, p99 {} us, {:.0} \
         requests/s; nginx without p50 {} us, p99 {} us, {:.0} requests/s",
        waker.few.quantile_us(0.5),
        waker.few.quantile_us(0.99),
        waker.rate(),
        nginx.few.quantile_us(0.5),
        nginx.few.quantile_us(0.99),
        nginx.rate(),
        plain.few.quantile_us(0.5),
        plain.few.quantile_us(0.99),
        plain.rate(),
    ));
    let woken = on_a_swarm(arguments).await;
    say(&format!(
        "bench-wake: over_swarm_ms_p50={} over_swarm_ms_p99={} proxy_p50_us={} nginx_p50_us={} proxy_rps={:.0} \
         nginx_rps={:.0} wake25_last_s={:.2} rss_mib={}",
        woken.over_p50_ms,
        woken.over_p99_ms,
        waker.few.quantile_us(0.5),
        nginx.few.quantile_us(0.5),
        waker.rate(),
        nginx.rate(),
        woken.last.as_secs_f64(),
        woken.rss_mib,
    ));
    Ok(())
}

/// Of the waker, of nginx with `auth_request`, and of nginx without.
async fn in_the_path(arguments: &Arguments) -> io::Result<[Result; 3]> {
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
    Ok(results)
}

async fn on_a_swarm(arguments: &Arguments) -> Woken {
    let sleepers = Sleepers::set(arguments.at_once, &operator(arguments.operator.clone())).await;
    let (mut woken, mut bare) = (Measured::default(), Measured::default());
    for _ in 0..arguments.wakes {
        woken.took.push(sleepers.woken(0).await);
        bare.took.push(sleepers.bare(0).await);
    }
    let ms = |of: &Measured, part: f64| i128::try_from(of.quantile_us(part) / 1_000).unwrap_or(i128::MAX);
    let both = |part: f64| (ms(&woken, part), ms(&bare, part));
    let ((woken_p50, bare_p50), (woken_p99, bare_p99)) = (both(0.5), both(0.99));
    say(&format!(
        "{} wakes: the first byte after p50 {woken_p50} ms, p99 {woken_p99} ms; Swarm alone from 0 replicas to a healthy task: \
         p50 {bare_p50} ms, p99 {bare_p99} ms",
        arguments.wakes,
    ));
    let last = sleepers.all_at_once().await;
    say(&format!(
        "{} asked for at once: the last answered after {:.2} s",
        arguments.at_once,
        last.as_secs_f64()
    ));
    let idle = Duration::from_secs_f64(arguments.idle_seconds);
    let needs = sleepers.operator_needs(arguments.asleep, idle).await;
    say(&format!(
        "{} sleep at zero replicas, each put there by an operation: the operator needs {} MiB and {:.1} % of a processor",
        arguments.asleep, needs.rss_mib, needs.cpu_percent,
    ));
    sleepers.strike().await;
    let (over_p50_ms, over_p99_ms) = (woken_p50 - bare_p50, woken_p99 - bare_p99);
    Woken { over_p50_ms, over_p99_ms, last, rss_mib: needs.rss_mib }
}

// === impl Result ===

impl Result {
    /// The median of the rounds.
    fn rate(&mut self) -> f64 {
        self.rates.sort_unstable_by(f64::total_cmp);
        self.rates[self.rates.len() / 2]
    }
}
