//! The server as a program, for the image of the tests.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use skep_s3::{Fault, Faults, Keys, serve};

/// An S3 server for tests.
#[derive(Debug, Parser)]
struct Args {
    /// Directory of the buckets.
    #[arg(long, default_value = "/data")]
    root: PathBuf,
    /// Buckets to make.
    #[arg(long)]
    bucket: Vec<String>,
    /// Where to listen.
    #[arg(long, default_value = "0.0.0.0:9000")]
    listen: SocketAddr,
    /// Access key id.
    #[arg(long)]
    id: String,
    /// Secret access key.
    #[arg(long)]
    secret: String,
    /// What goes wrong, as in `part:2:1000:503`.
    #[arg(long)]
    fault: Vec<Fault>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    for bucket in &args.bucket {
        std::fs::create_dir_all(args.root.join(bucket))?;
    }
    let faults = Faults::default();
    for Fault { asked, skip, times, kind } in args.fault {
        faults.add(asked, skip, times, kind);
    }
    let keys = Keys { id: args.id, secret: args.secret };
    let _server = serve(&args.root, &keys, args.listen, faults).await?;
    let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    ended.recv().await;
    Ok(())
}
