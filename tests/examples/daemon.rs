//! daemon
use clap::Parser;
#[derive(Parser)]
struct A {
    #[command(flatten)]
    o: skep::cli::OperatorArgs,
}
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter("info").init();
    let a = A::parse();
    let host = std::env::var("DOCKER_HOST").unwrap();
    skep::app::run(a.o, &host, tokio_util::sync::CancellationToken::new()).await.unwrap();
}
