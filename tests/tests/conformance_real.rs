//! The conformance suite on a real engine.
//!
//! Run by: `tests/sandbox/engine.sh up`, then with `SKEP_DOCKER_SOCKET` (or the variables of `engine.sh env`):
//! `cargo test -p skep-tests --test conformance_real -- --ignored --nocapture`.

// A helper that cannot go on fails its test.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use skep_tests::conformance::{self, Containers, IMAGE};
use skep_tests::raw::Raw;

/// The socket of the private engine; never a user's own.
fn socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").ok().filter(|h| h.contains("skep") || h.contains(".sandbox"));
    let host = host.and_then(|h| h.strip_prefix("unix://").map(str::to_owned));
    let socket = std::env::var("SKEP_DOCKER_SOCKET").ok().or(host);
    let socket = PathBuf::from(socket.expect("SKEP_DOCKER_SOCKET is the socket of a private engine"));
    assert!(socket.exists(), "there is no socket at {}", socket.display());
    assert_ne!(socket, Path::new("/var/run/docker.sock"), "the user's own engine is left alone");
    socket
}

/// The image with the program of the suite, as a tar archive.
fn archive() -> Vec<u8> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    std::fs::create_dir_all(&dir).unwrap();
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/images/task.rs");
    let built = Command::new("rustc")
        .args(["--edition", "2024", "--target", &target, "-C", "opt-level=s", "-C", "strip=symbols", "-o"])
        .args([&dir.join("task"), Path::new(source)])
        .status();
    assert!(built.unwrap().success(), "rustc builds the suite's program");
    let tar = Command::new("tar").arg("-C").arg(&dir).args(["-c", "task"]).output().unwrap();
    assert!(tar.status.success(), "tar packs the suite's program");
    tar.stdout
}

async fn import(raw: &Raw) {
    let (repository, tag) = IMAGE.split_once(':').expect("the image has a tag");
    let entry = "ENTRYPOINT%20%5B%22%2Ftask%22%5D";
    let path = format!("/images/create?fromSrc=-&repo={repository}&tag={tag}&changes={entry}");
    let reply = raw.call_bytes("POST", &path, Some(Bytes::from(archive()))).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.message());
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_real_engine_behaves_as_the_suite_says() {
    let raw = Raw::unix(socket());
    import(&raw).await;
    let inside = raw.clone();
    let containers: Containers = Arc::new(move |service| {
        let raw = inside.clone();
        Box::pin(async move {
            let filters = format!("%7B%22label%22:%5B%22com.docker.swarm.service.name={service}%22%5D%7D");
            let reply = raw.call("GET", &format!("/containers/json?filters={filters}"), None).await.unwrap();
            reply.json().as_array().map_or(0, Vec::len)
        })
    });
    let run = u64::from(std::process::id());
    let failed = conformance::run_all(&raw, &containers, run).await;
    let version = raw.call("GET", "/version", None).await.unwrap().json()["Version"].clone();
    let count = conformance::cases().len();
    println!("conformance: {} of {count} cases hold on Docker {version}", count - failed.len());
    assert_eq!(failed, Vec::<&str>::new());
}
