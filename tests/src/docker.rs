//! The `docker` command against the sandbox's engine, for what tests arrange around Skep.

use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a docker command and returns what it prints.
///
/// # Panics
/// When it fails, or when `DOCKER_HOST` is not a sandbox's engine.
pub fn docker(arguments: &[&str]) -> String {
    let output = attempt(arguments);
    output.unwrap_or_else(|said| panic!("docker {}: {said}", arguments.join(" ")))
}

/// Repeats a docker command until it prints what is wanted.
///
/// # Panics
/// When it does not within a minute.
pub fn docker_until(arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let printed = attempt(arguments).unwrap_or_default();
        if wanted(&printed) {
            return printed;
        }
        assert!(Instant::now() < deadline, "docker {} keeps printing {printed:?}", arguments.join(" "));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The address at which the sandbox's published ports are reached.
///
/// # Panics
/// When the sandbox's variables are not set.
pub fn sandbox_address() -> String {
    std::env::var("SKEP_SANDBOX_ADDRESS").expect("the variables of tests/sandbox/engine.sh env are set")
}

fn attempt(arguments: &[&str]) -> Result<String, String> {
    let host = std::env::var("DOCKER_HOST").expect("DOCKER_HOST is that of the sandbox");
    assert!(host.contains(".sandbox") || host.contains("skep"), "{host} is not the sandbox's engine");
    let output = Command::new("docker").args(arguments).output().expect("docker runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
